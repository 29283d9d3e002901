/* The broker's ZeroMQ socket: what arrives, what is no baton, what is too large, and a
 * predecessor's socket file. */
#include "broker/inbox.h"
#include "unetserve/wire.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <zmq.h>

struct scene {
    char run_dir[64];
    char address[128];
    struct inbox inbox;
    void *context;
    void *push;
};

static void begin(struct scene *scene)
{
    snprintf(scene->run_dir, sizeof scene->run_dir, "/tmp/unetserve-inbox-XXXXXX");
    assert_non_null(mkdtemp(scene->run_dir));
    snprintf(scene->address, sizeof scene->address, "ipc://%s/%s", scene->run_dir,
             WIRE_BROKER_ADDRESS);
    assert_int_equal(inbox_open(scene->run_dir, &scene->inbox), 0);
    scene->context = zmq_ctx_new();
    scene->push = zmq_socket(scene->context, ZMQ_PUSH);
    int linger_ms = 2000;
    assert_int_equal(zmq_setsockopt(scene->push, ZMQ_LINGER, &linger_ms, sizeof linger_ms), 0);
    assert_int_equal(zmq_connect(scene->push, scene->address), 0);
}

static void end(struct scene *scene)
{
    char path[128];
    zmq_close(scene->push);
    zmq_ctx_term(scene->context);
    inbox_close(&scene->inbox);
    snprintf(path, sizeof path, "%s/%s", scene->run_dir, WIRE_BROKER_ADDRESS);
    unlink(path);
    assert_int_equal(rmdir(scene->run_dir), 0);
}

static void push(struct scene *scene, const void *bytes, size_t size)
{
    assert_int_equal(zmq_send(scene->push, bytes, size, 0), size);
}

static void push_baton(struct scene *scene, uint32_t slot)
{
    unsigned char bytes[WIRE_BATON_MAX];
    size_t size = wire_baton_write(&(struct wire_baton){.slot = slot}, bytes);
    push(scene, bytes, size);
}

/* Wait as the broker does, by the fd alone, until that many messages have come. Bounded. */
static void receive(struct scene *scene, uint64_t messages)
{
    for (int turn = 0; turn < 400; turn++) {
        bool arrived;
        bool empty = inbox_drain(&scene->inbox, &arrived);
        if (scene->inbox.batons + scene->inbox.not_batons >= messages)
            return;
        struct pollfd ready = {scene->inbox.fd, POLLIN, 0};
        poll(&ready, 1, empty ? 50 : 0);
    }
    fail_msg("messages did not arrive");
}

static void batons_arrive_and_leave_it_empty(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene);
    for (uint32_t i = 0; i < 10000; i++)
        push_baton(&scene, i);
    receive(&scene, 10000);
    assert_int_equal(scene.inbox.batons, 10000);
    assert_int_equal(scene.inbox.not_batons, 0);
    bool arrived = true;
    assert_true(inbox_drain(&scene.inbox, &arrived));
    assert_false(arrived);
    end(&scene);
}

/* Another user to whom path and directory are open is hung up on all the same. */
static void another_user_is_not_heard(void **state)
{
    (void)state;
    if (geteuid() != 0) {
        print_message("skipped: to be another user takes root\n");
        skip();
    }
    /* Forked before there are threads, which emulators do not bring along; told where when it is
     * there. */
    int where[2];
    assert_int_equal(pipe(where), 0);
    pid_t child = fork();
    if (child == 0) {
        static const char hello[] = "hello";
        int linger_ms = 300; /* what is not taken by then never is */
        char address[128] = "";
        if (setgid(65534) || setuid(65534) || read(where[0], address, sizeof address - 1) <= 0)
            _exit(1);
        void *context = zmq_ctx_new();
        void *socket = zmq_socket(context, ZMQ_PUSH);
        zmq_setsockopt(socket, ZMQ_LINGER, &linger_ms, sizeof linger_ms);
        if (zmq_connect(socket, address) || zmq_send(socket, hello, 5, 0) != 5)
            _exit(2);
        zmq_close(socket);
        zmq_ctx_term(context);
        _exit(0);
    }
    struct scene scene;
    begin(&scene);
    assert_int_equal(chmod(scene.run_dir, 0755), 0);
    assert_int_equal(chmod(scene.address + strlen("ipc://"), 0666), 0);
    assert_true(write(where[1], scene.address, strlen(scene.address)) > 0);
    close(where[0]);
    close(where[1]);
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    push_baton(&scene, 1);
    receive(&scene, 1);
    assert_int_equal(scene.inbox.batons, 1);
    assert_int_equal(scene.inbox.not_batons, 0);
    end(&scene);
}

static void what_is_no_baton_is_counted_and_dropped(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene);
    push(&scene, "", 0);
    push(&scene, "hello", 5);
    push_baton(&scene, 1);
    receive(&scene, 3);
    assert_int_equal(scene.inbox.batons, 1);
    assert_int_equal(scene.inbox.not_batons, 2);
    end(&scene);
}

static void a_message_that_is_too_large_costs_its_sender_the_connection_only(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene);
    static char large[1 << 20];
    push(&scene, large, sizeof large);
    void *other = zmq_socket(scene.context, ZMQ_PUSH);
    assert_int_equal(zmq_connect(other, scene.address), 0);
    unsigned char bytes[WIRE_BATON_MAX];
    size_t size = wire_baton_write(&(struct wire_baton){.slot = 7}, bytes);
    assert_int_equal(zmq_send(other, bytes, size, 0), size);
    receive(&scene, 1);
    assert_int_equal(scene.inbox.batons, 1);
    int linger_ms = 0;
    zmq_setsockopt(scene.push, ZMQ_LINGER, &linger_ms, sizeof linger_ms);
    zmq_close(other);
    end(&scene);
}

static void the_socket_is_private_and_replaces_a_dead_brokers(void **state)
{
    (void)state;
    struct scene scene;
    char path[128];
    struct stat status;
    begin(&scene);
    snprintf(path, sizeof path, "%s/%s", scene.run_dir, WIRE_BROKER_ADDRESS);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 077, 0);
    inbox_close(&scene.inbox);
    unlink(path);
    FILE *left = fopen(path, "w");
    assert_non_null(left);
    fclose(left);
    assert_int_equal(inbox_open(scene.run_dir, &scene.inbox), 0);
    push_baton(&scene, 3);
    receive(&scene, 1);
    end(&scene);
}

static void a_place_that_cannot_be_bound_is_an_error(void **state)
{
    (void)state;
    struct inbox inbox;
    char long_name[600];
    memset(long_name, 'x', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = '\0';
    assert_true(inbox_open("/nonexistent/unetserve", &inbox) < 0);
    assert_int_equal(inbox_open(long_name, &inbox), -ENAMETOOLONG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batons_arrive_and_leave_it_empty),
        cmocka_unit_test(another_user_is_not_heard),
        cmocka_unit_test(what_is_no_baton_is_counted_and_dropped),
        cmocka_unit_test(a_message_that_is_too_large_costs_its_sender_the_connection_only),
        cmocka_unit_test(the_socket_is_private_and_replaces_a_dead_brokers),
        cmocka_unit_test(a_place_that_cannot_be_bound_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
