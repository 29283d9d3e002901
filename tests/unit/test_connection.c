/* A connection that the gateway hangs up on between two requests, while another is on its way. */
#include "gateway/connection.h"

#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static const char request[] = "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello";
#define REQUEST_BYTES (sizeof request - 1)

static struct connections connections;
static struct connection *connection;
static int client;

static int loopback_pair(int pair[2])
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof address;
    int listening = socket(AF_INET, SOCK_STREAM, 0);
    pair[1] = socket(AF_INET, SOCK_STREAM, 0);
    bool made = listening >= 0 && pair[1] >= 0 &&
                bind(listening, (struct sockaddr *)&address, size) == 0 &&
                listen(listening, 1) == 0 &&
                getsockname(listening, (struct sockaddr *)&address, &size) == 0 &&
                connect(pair[1], (struct sockaddr *)&address, size) == 0;
    pair[0] = made ? accept4(listening, NULL, NULL, SOCK_NONBLOCK) : -1;
    close(listening);
    return pair[0] >= 0 ? 0 : -1;
}

static int set_up_on(int pair[2])
{
    connections = (struct connections){.count = 0};
    connections.crowd.count = 1;
    client = pair[1];
    connection = connection_open(&connections, pair[0]);
    return connection ? 0 : -1;
}

static int set_up(void **state)
{
    (void)state;
    int pair[2];
    return loopback_pair(pair) ? -1 : set_up_on(pair);
}

static int set_up_unix(void **state)
{
    (void)state;
    int pair[2];
    return socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) ? -1 : set_up_on(pair);
}

static int tear_down(void **state)
{
    (void)state;
    int fd = connection->fd;
    connection_close(&connections, connection);
    close(fd);
    if (client >= 0)
        close(client);
    return 0;
}

static void pause_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_nsec = ms * 1000000}, NULL);
}

/* Until all that the client has sent, its end too, lies in the other socket. */
static void wait_delivered(void)
{
    int left = 1;
    for (int tries = 0; left && tries < 10000; tries++) {
        assert_int_equal(ioctl(client, SIOCOUTQ, &left), 0);
        if (left)
            pause_ms(1);
    }
    assert_int_equal(left, 0);
}

static void client_sends(size_t from, size_t to)
{
    assert_int_equal(send(client, request + from, to - from, MSG_NOSIGNAL), to - from);
    wait_delivered();
}

static void client_half_closes(void)
{
    assert_int_equal(shutdown(client, SHUT_WR), 0);
    wait_delivered();
}

static void client_closes(void)
{
    client_half_closes();
    close(client);
    client = -1;
}

/* What libmicrohttpd gets when it asks: bytes, 0, or -1 with EAGAIN. */
static ssize_t reads(void)
{
    char buffer[256];
    ssize_t got = connection_read(connection, buffer, sizeof buffer, 0);
    assert_true(got >= 0 || errno == EAGAIN);
    assert_false(connection->refused);
    return got;
}

static void test_an_idle_one_reads_as_ended(void **state)
{
    (void)state;
    assert_int_equal(reads(), -1);
    connection_hang_up(connection);
    assert_true(connection_end_is_ours(connection));
    assert_true(connection_ended(connection));
    assert_int_equal(reads(), 0);
}

static void test_a_request_that_was_on_its_way_is_read_whole(void **state)
{
    (void)state;
    static const size_t cuts[] = {1, 30, REQUEST_BYTES - 5, REQUEST_BYTES - 1};
    for (size_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
        connection_hang_up(connection);
        client_sends(0, cuts[i]);
        assert_int_equal(reads(), cuts[i]);
        assert_int_equal(reads(), -1); /* neither an end nor a request that was cut */
        assert_true(connection_end_is_ours(connection));
        client_sends(cuts[i], REQUEST_BYTES);
        assert_int_equal(reads(), REQUEST_BYTES - cuts[i]);
        assert_int_equal(reads(), -1); /* it is not answered yet */
        connection_request_done(connection);
        assert_int_equal(reads(), 0);
    }
}

static void test_a_client_that_ends_in_the_middle_is_told(void **state)
{
    (void)state;
    char answer[32] = "";
    connection_hang_up(connection);
    client_sends(0, 30);
    assert_int_equal(reads(), 30);
    client_half_closes();
    assert_false(connection_end_is_ours(connection));
    char buffer[256];
    assert_int_equal(connection_read(connection, buffer, sizeof buffer, 0), -1);
    assert_true(connection->refused);
    assert_true(recv(client, answer, 12, MSG_WAITALL) == 12);
    assert_string_equal(answer, "HTTP/1.1 400");
}

static void test_a_client_that_leaves_is_noticed(void **state)
{
    (void)state;
    connection_hang_up(connection);
    client_sends(0, REQUEST_BYTES);
    assert_int_equal(reads(), REQUEST_BYTES);
    assert_true(connection_end_is_ours(connection));
    client_closes();
    assert_false(connection_end_is_ours(connection));
    assert_true(connection_ended(connection));
}

static void test_an_end_is_the_clients_where_nobody_hung_up(void **state)
{
    (void)state;
    client_sends(0, REQUEST_BYTES);
    assert_int_equal(reads(), REQUEST_BYTES);
    client_half_closes();
    assert_true(connection_ended(connection));
    assert_false(connection_end_is_ours(connection));
}

/* Nothing comes over a Unix socket that was hung up: its client is told by the kernel. */
static void test_a_unix_socket_is_over(void **state)
{
    (void)state;
    connection_hang_up(connection);
    assert_int_equal(send(client, request, REQUEST_BYTES, MSG_NOSIGNAL), -1);
    assert_int_equal(errno, EPIPE);
    assert_int_equal(reads(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_an_idle_one_reads_as_ended, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_request_that_was_on_its_way_is_read_whole, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_client_that_ends_in_the_middle_is_told, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_client_that_leaves_is_noticed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_an_end_is_the_clients_where_nobody_hung_up, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_unix_socket_is_over, set_up_unix, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
