/*
 * The files of keys, secrets and certificates that a configuration names. Other processes read
 * them; what is wrong with them is better said before any of those is started.
 */
#ifndef NAMED_FILES_H
#define NAMED_FILES_H

#include "unetserve/config.h"

/* 0: each is a file that this user may read. Or -errno of the first that is none, with a sentence.
 * What is in them is not looked at. */
int named_files_check(const struct config *config, char *error, size_t error_size);

#endif
