/*
 * A Python program that asks models and needs nothing but Python's own library: written by unetctl
 * client, and by unetserve itself with --client-file.
 */
#ifndef CLIENT_FILE_H
#define CLIENT_FILE_H

#include <jansson.h>

/* Write it to path, which must not be there yet (-EEXIST). url: of the server. models: a list of
 * what model_facts() makes, each with its "route" beside. 0; -ENOMEM; or what the file system
 * says. A file that could not be written whole is taken away. */
int client_file_write(const char *path, const char *url, const json_t *models);

#endif
