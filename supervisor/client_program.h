/*
 * --client-file: a Python program for whoever wants to ask the models that are served here.
 */
#ifndef CLIENT_PROGRAM_H
#define CLIENT_PROGRAM_H

#include "unetserve/config.h"
#include "unetserve/model.h"

/* Write it to path, for the first TCP address of config->listen, whose port is known. interfaces: a
 * model each. 0; -EEXIST: path is there, and is left as it is; -EADDRNOTAVAIL: there is no TCP
 * address; or as client_file_write. */
int client_program_write(const char *path, const struct config *config,
                         const struct unetserve_interface *interfaces);

#endif
