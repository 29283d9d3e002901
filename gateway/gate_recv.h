/*
 * recv(2) as libmicrohttpd calls it. gate_recv.c says why.
 */
#ifndef GATEWAY_GATE_RECV_H
#define GATEWAY_GATE_RECV_H

#include <stdbool.h>

/* Does a shared library's call of recv land here? False when the program was linked without
 * exporting the symbol: then no request may be served. */
bool gate_recv_in_place(void);

#endif
