/*
 * What a model takes and gives, asked of `unetserve-worker --describe`, because only workers load
 * models.
 */
#ifndef DESCRIBE_H
#define DESCRIBE_H

#include "unetserve/config.h"
#include "unetserve/model.h"

/* Blocks, at most timeout_ms. signal_fd: a signalfd whose becoming readable ends the wait (it is
 * not read), or -1. 0; -EINTR: a signal came; a positive value: the exit status to end with, after
 * a sentence on stderr. */
int describe_model(const struct config_model *model, int timeout_ms, int signal_fd,
                   struct unetserve_interface *out);

/* What a worker is told for the configuration's `devices`: "cpu" or "cuda". */
const char *describe_device(const struct config_model *model);

#endif
