/*
 * Why this program has a recv of its own.
 *
 * libmicrohttpd 0.9.75 accepts what a server behind a proxy must not: two different Content-Length
 * headers (it takes the first), Content-Length beside Transfer-Encoding, white space before the
 * colon, bare line feeds, Transfer-Encoding in HTTP/1.0. By the time its handler is called the head
 * has been parsed and such differences are gone, and it offers no view of the raw bytes: no read
 * callback, no hook before the parser. Parsing in front of it through a socket pair would cost a
 * copy of every body. But it is a shared library that reads with recv(2), and a symbol of the
 * executable goes before the C library's. So its reads land here, the bytes go through the head
 * gate (head_gate.h) as they pass, and a connection that breaks the grammar is answered and ended
 * before libmicrohttpd has seen the byte that broke it.
 *
 * Over TLS the bytes to check are the decrypted ones. libmicrohttpd gets them by
 * gnutls_record_recv, which therefore lands here too, while GnuTLS's own recv goes on to the
 * kernel.
 *
 * Everything else that calls recv (libzmq, on its own thread) names sockets that are in no table
 * and goes straight to the kernel.
 */
/* With it the C library's headers hold a recv of their own, inline. */
#undef _FORTIFY_SOURCE

#include "gateway/gate_recv.h"

#include "gateway/connection.h"

#include <dlfcn.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

/* Takes the place of the C library's for the whole process. */
__attribute__((visibility("default"))) ssize_t recv(int fd, void *buffer, size_t size, int flags);

__attribute__((visibility("default"))) ssize_t gnutls_record_recv(gnutls_session_t session,
                                                                  void *buffer, size_t size);

typedef ssize_t record_recv(gnutls_session_t session, void *buffer, size_t size);

static record_recv *gnutls_own;

ssize_t gate_recv_record(gnutls_session_t session, void *buffer, size_t size)
{
    return gnutls_own ? gnutls_own(session, buffer, size) : GNUTLS_E_INTERNAL_ERROR;
}

static bool record_recv_in_place(void)
{
    record_recv *ours = gnutls_record_recv;
    void *seen_by_libraries = dlsym(RTLD_DEFAULT, "gnutls_record_recv");
    void *behind = dlsym(RTLD_NEXT, "gnutls_record_recv");
    memcpy(&gnutls_own, &behind, sizeof gnutls_own);
    return behind && seen_by_libraries && memcmp(&seen_by_libraries, &ours, sizeof ours) == 0;
}

bool gate_recv_in_place(void)
{
    ssize_t (*ours)(int, void *, size_t, int) = recv;
    void *seen_by_libraries = dlsym(RTLD_DEFAULT, "recv");
    return seen_by_libraries && memcmp(&seen_by_libraries, &ours, sizeof ours) == 0 &&
           record_recv_in_place();
}

ssize_t recv(int fd, void *buffer, size_t size, int flags)
{
    struct connection *connection = connection_find(fd);
    if (!connection)
        return recvfrom(fd, buffer, size, flags, NULL, NULL);
    return connection->tls ? connection_receive(connection, buffer, size, flags)
                           : connection_read(connection, buffer, size, flags);
}

/* Errors are those that it would have itself. */
ssize_t gnutls_record_recv(gnutls_session_t session, void *buffer, size_t size)
{
    struct connection *connection = connection_find(gnutls_transport_get_int(session));
    if (!connection || connection->tls != session)
        return gate_recv_record(session, buffer, size);
    connection->secured = true;
    ssize_t got = connection_read(connection, buffer, size, 0);
    if (got >= 0)
        return got;
    return errno == EAGAIN ? GNUTLS_E_AGAIN : GNUTLS_E_PREMATURE_TERMINATION;
}
