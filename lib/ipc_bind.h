/*
 * A ZeroMQ socket at a path that outlives its processes: the next one takes the path over while the
 * last one still has peers, and the end of the last one does not take it away again (libzmq removes
 * the path that it has bound, whoever has it by then).
 */
#ifndef IPC_BIND_H
#define IPC_BIND_H

/* Bind at ipc://DIRECTORY/NAME, for this user alone. 0 or a negative errno. The path stays; whoever
 * owns the directory removes it. */
int ipc_bind(void *socket, const char *directory, const char *name);

#endif
