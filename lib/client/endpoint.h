/*
 * Which unetserve a client means when it names none.
 */
#ifndef ENDPOINT_H
#define ENDPOINT_H

#include <stddef.h>

#define ENDPOINT_MAX 256

/* Look, in this order: $UNETSERVE_ENDPOINT; the instances of this user (directories below the run
 * root whose client.ipc somebody listens on); /run/unetserve/client.ipc. 0 with the ZeroMQ address;
 * -ENOENT: none; -EBUSY: several, text then lists their addresses, one a line, as far as they fit;
 * -ENAMETOOLONG. */
int endpoint_find(char *text, size_t size);

#endif
