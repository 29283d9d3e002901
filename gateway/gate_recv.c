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
 * Everything else that calls recv (libzmq, on its own thread) names sockets that are in no table
 * and goes straight to the kernel.
 */
/* With it the C library's headers hold a recv of their own, inline. */
#undef _FORTIFY_SOURCE

#include "gateway/gate_recv.h"

#include "gateway/connection.h"

#include <dlfcn.h>
#include <string.h>
#include <sys/socket.h>

/* Takes the place of the C library's for the whole process. */
__attribute__((visibility("default"))) ssize_t recv(int fd, void *buffer, size_t size, int flags);

bool gate_recv_in_place(void)
{
    ssize_t (*ours)(int, void *, size_t, int) = recv;
    void *seen_by_libraries = dlsym(RTLD_DEFAULT, "recv");
    return seen_by_libraries && memcmp(&seen_by_libraries, &ours, sizeof ours) == 0;
}

ssize_t recv(int fd, void *buffer, size_t size, int flags)
{
    struct connection *connection = connection_find(fd);
    return connection ? connection_read(connection, buffer, size, flags)
                      : recvfrom(fd, buffer, size, flags, NULL, NULL);
}
