/*
 * recv(2) and gnutls_record_recv(3) as libmicrohttpd calls them. gate_recv.c says why.
 */
#ifndef GATEWAY_GATE_RECV_H
#define GATEWAY_GATE_RECV_H

#include <gnutls/gnutls.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Do a shared library's calls of these land here? False when the program was linked without
 * exporting the symbols: then no request may be served. To be asked before any of them is called.
 */
bool gate_recv_in_place(void);

/* GnuTLS's own. */
ssize_t gate_recv_record(gnutls_session_t session, void *buffer, size_t size);

#endif
