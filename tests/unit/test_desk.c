/* Questions of gateways over a socket pair, with providers that are not there or say nothing. */
#include "auth/desk.h"

#include "lib/config_oauth.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define ROUNDS 20000

static struct config config;
static struct desk desk;
static int ends[2]; /* the gateway's, the desk's */

/* A socket on loopback that takes connections and says nothing; or, closed, a port of nobody's. */
static int silent_port(uint16_t *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, size), 0);
    assert_int_equal(listen(fd, 128), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    *port = ntohs(address.sin_port);
    return fd;
}

static void configure(const char *issuer, const char *introspection, uint16_t port)
{
    config_init(&config);
    config.oauth.timeout_ms = 300;
    if (issuer)
        snprintf(config.oauth.issuer, sizeof config.oauth.issuer, issuer, port);
    if (introspection)
        snprintf(config.oauth.introspection_url, sizeof config.oauth.introspection_url,
                 introspection, port);
    snprintf(config.oauth.audience, sizeof config.oauth.audience, "maps");
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    assert_int_equal(desk_open(&desk, &config), 0);
}

static void put_away(void)
{
    desk_close(&desk);
    close(ends[0]);
    close(ends[1]);
}

static void send_question(uint64_t id, const char *token, uint64_t rules)
{
    static struct auth_question question;
    question.id = id;
    question.rules = rules;
    question.size = (uint32_t)strlen(token);
    memcpy(question.token, token, question.size);
    size_t bytes = auth_question_bytes(&question);
    assert_int_equal(send(ends[0], &question, bytes, MSG_DONTWAIT), (ssize_t)bytes);
    desk_take(&desk, ends[1]);
}

/* Turns until there is one: each waits for a while, and there are many. */
static void next_answer(struct auth_answer *answer)
{
    for (int i = 0; i < ROUNDS; i++) {
        ssize_t got = recv(ends[0], answer, sizeof *answer, MSG_DONTWAIT);
        if (got > 0) {
            assert_int_equal(auth_answer_check(answer, (size_t)got), 0);
            return;
        }
        desk_turn(&desk, queue_now_ns());
        assert_int_equal(fetcher_wait(&desk.fetcher, NULL, 0, 5), 0);
    }
    fail_msg("no answer");
}

static void assert_later(uint64_t id, const char *reason)
{
    struct auth_answer answer;
    next_answer(&answer);
    assert_int_equal(answer.id, id);
    assert_int_equal(answer.verdict, AUTH_UNAVAILABLE);
    assert_true(answer.retry_after_s >= 1 && answer.retry_after_s <= 30);
    assert_non_null(strstr(answer.reason, reason));
}

static void test_no_provider(void **state)
{
    (void)state;
    uint16_t port;
    close(silent_port(&port));
    configure("http://127.0.0.1:%u", NULL, port);
    send_question(7, "a.b.c", config_oauth_mark(&config));
    assert_later(7, "cannot be fetched");
    send_question(8, "a.b.c", config_oauth_mark(&config));
    assert_later(8, "cannot be fetched");
    assert_int_equal(desk.waiting, 0);
    put_away();
    configure(NULL, "http://127.0.0.1:%u/introspect", port);
    send_question(9, "opaque", config_oauth_mark(&config));
    assert_later(9, "cannot be reached");
    assert_int_equal(desk.waiting, 0);
    put_away();
}

static void test_silent_provider(void **state)
{
    (void)state;
    uint16_t port;
    int fd = silent_port(&port);
    configure("http://127.0.0.1:%u", NULL, port);
    send_question(1, "a.b.c", config_oauth_mark(&config));
    assert_int_equal(desk.waiting, 1);
    struct auth_answer answer;
    next_answer(&answer);
    assert_int_equal(answer.verdict, AUTH_UNAVAILABLE);
    assert_int_equal(desk.waiting, 0);
    put_away();
    close(fd);
}

/* Beyond the room that there is, the answer comes at once; all others get theirs, too. */
static void test_too_many(void **state)
{
    (void)state;
    uint16_t port;
    int fd = silent_port(&port);
    configure(NULL, "http://127.0.0.1:%u/introspect", port);
    config.oauth.timeout_ms = 20000;
    for (uint64_t id = 1; id <= DESK_WAITING_MAX; id++)
        send_question(id, "opaque", desk.mark);
    assert_int_equal(desk.waiting, DESK_WAITING_MAX);
    assert_true(desk.fetcher.count <= FETCH_MAX);
    send_question(1000, "opaque", desk.mark);
    assert_later(1000, "Too many");
    struct auth_answer answer;
    bool seen[DESK_WAITING_MAX + 1] = {false};
    for (unsigned i = 0; i < DESK_WAITING_MAX; i++) {
        /* One by one: the pair holds fewer answers than there are questions. */
        desk.places[i].deadline_ns = queue_now_ns();
        next_answer(&answer);
        assert_true(answer.id >= 1 && answer.id <= DESK_WAITING_MAX && !seen[answer.id]);
        assert_int_equal(answer.verdict, AUTH_UNAVAILABLE);
        seen[answer.id] = true;
    }
    assert_int_equal(desk.waiting, 0);
    put_away();
    close(fd);
}

static void test_questions_that_are_none(void **state)
{
    (void)state;
    static struct auth_question question = {.id = 5, .size = 8};
    uint16_t port;
    close(silent_port(&port));
    configure("http://127.0.0.1:%u", NULL, port);
    size_t head = offsetof(struct auth_question, token);
    const size_t sizes[] = {1, 7, head - 1, head, head + 7, head + 9, sizeof question};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        assert_int_equal(send(ends[0], &question, sizes[i], 0), (ssize_t)sizes[i]);
        desk_take(&desk, ends[1]);
    }
    question.size = AUTH_TOKEN_MAX + 1;
    assert_int_equal(send(ends[0], &question, sizeof question, 0), (ssize_t)sizeof question);
    desk_take(&desk, ends[1]);
    assert_int_equal(desk.waiting, 0);
    /* By rules that are not these, it is not answered by these. */
    send_question(6, "a.b.c", config_oauth_mark(&config) + 1);
    assert_later(6, "just changed");
    put_away();
}

static void test_secrets(void **state)
{
    (void)state;
    char path[] = "/tmp/unetserve-secret-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    configure(NULL, "http://127.0.0.1:%u/introspect", 1);
    snprintf(config.oauth.client_secret_file, sizeof config.oauth.client_secret_file, "%s", path);
    assert_int_not_equal(desk_read_secret(&desk), 0);
    assert_int_equal(write(fd, "sesame \r\nmore\n", 14), 14);
    assert_int_equal(desk_read_secret(&desk), 0);
    assert_string_equal(desk.secret, "sesame ");
    assert_int_equal(unlink(path), 0);
    assert_int_not_equal(desk_read_secret(&desk), 0);
    assert_string_equal(desk.secret, "sesame ");
    close(fd);
    put_away();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_provider), cmocka_unit_test(test_silent_provider),
        cmocka_unit_test(test_too_many),    cmocka_unit_test(test_questions_that_are_none),
        cmocka_unit_test(test_secrets),
    };
    curl_global_init(CURL_GLOBAL_DEFAULT);
    int failed = cmocka_run_group_tests_name("desk", tests, NULL, NULL);
    curl_global_cleanup();
    return failed;
}
