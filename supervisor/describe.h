/*
 * What a model takes and gives, asked of `unetserve-worker --describe`, because only workers load
 * models.
 */
#ifndef DESCRIBE_H
#define DESCRIBE_H

#include "unetserve/config.h"
#include "unetserve/model.h"

#include <stdbool.h>
#include <sys/types.h>

/* Blocks, at most timeout_ms. signal_fd: a signalfd whose becoming readable ends the wait (it is
 * not read), or -1. 0; -EINTR: a signal came; a positive value: the exit status to end with, after
 * a sentence on stderr. */
int describe_model(const struct config_model *model, int timeout_ms, int signal_fd,
                   struct unetserve_interface *out);

/* The same without blocking: a child that is asked, with descriptors to watch. */
struct describing {
    pid_t pid;
    int pidfd;  /* readable when it has ended: then describe_finish */
    int output; /* readable when it says something: then describe_listen */
    char *text;
    size_t size;
};

/* 0, or the exit status to end with after a sentence on stderr. */
int describe_begin(const struct config_model *model, struct describing *out);

/* Take what it says now. False: there is nothing more to listen to. */
bool describe_listen(struct describing *describing);

/* Takes what is left and closes everything; a child that has not ended is killed. As describe_model
 * returns. */
int describe_finish(const struct config_model *model, struct describing *describing,
                    struct unetserve_interface *out);

/* What a worker is told for the configuration's `devices`: "cpu" or "cuda". */
const char *describe_device(const struct config_model *model);

#endif
