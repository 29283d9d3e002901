/*
 * bare [PORT]: libmicrohttpd with nothing behind it, in the way in which the gateway uses it (one
 * thread, external epoll): the least that a server on this library can cost. It answers any POST
 * with the tutorial's {"output":80.0} once the body is there, and prints its port. Loopback only;
 * it ends with its standard input.
 */
#include <arpa/inet.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#define CONNECTIONS_MAX 20000u

static char asked; /* its address marks a request that has begun */

static enum MHD_Result answer(void *cls, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *data,
                              size_t *data_size, void **request)
{
    (void)url, (void)method, (void)version, (void)data;
    if (*request == NULL) {
        *request = &asked;
        return MHD_YES;
    }
    if (*data_size > 0) {
        *data_size = 0;
        return MHD_YES;
    }
    return MHD_queue_response(connection, MHD_HTTP_OK, (struct MHD_Response *)cls);
}

static void serve(struct MHD_Daemon *daemon, int epoll)
{
    struct epoll_event events[2];
    for (;;) {
        MHD_UNSIGNED_LONG_LONG wait = 0;
        int ms = MHD_get_timeout(daemon, &wait) == MHD_YES ? (int)wait : -1;
        int count = epoll_wait(epoll, events, 2, ms);
        for (int i = 0; i < count; i++) {
            char byte;
            if (events[i].data.fd == STDIN_FILENO && read(STDIN_FILENO, &byte, 1) <= 0) {
                return;
            }
        }
        MHD_run(daemon);
    }
}

static int watch(int epoll, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

int main(int argc, char **argv)
{
    static char body[] = "{\"output\":80.0}";
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    address.sin_port = htons(argc > 1 ? (uint16_t)strtoul(argv[1], NULL, 10) : 0);
    struct MHD_Response *response = MHD_create_response_from_buffer(sizeof body - 1, body,
                                                                    MHD_RESPMEM_PERSISTENT);
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, "application/json");
    struct MHD_Daemon *daemon = MHD_start_daemon(
        MHD_USE_EPOLL, 0, NULL, NULL, answer, response, MHD_OPTION_SOCK_ADDR, &address,
        MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS_MAX, MHD_OPTION_LISTEN_BACKLOG_SIZE, 1024u,
        MHD_OPTION_END);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (daemon == NULL || epoll < 0 ||
        watch(epoll, MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd) != 0 ||
        watch(epoll, STDIN_FILENO) != 0) {
        perror("bare");
        return 1;
    }
    printf("%u\n", MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_BIND_PORT)->port);
    fflush(stdout);
    serve(daemon, epoll);
    MHD_stop_daemon(daemon);
    MHD_destroy_response(response);
    return 0;
}
