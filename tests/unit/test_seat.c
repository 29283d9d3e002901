/* A child's start: it takes its seat only when queue and process table agree, and wakes reach the
 * right eventfd. */
#include "unetserve/seat.h"

#include "unetserve/log.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static struct queue make_queue(void)
{
    struct queue_geometry geometry = {
        .class_count = 1,
        .model_count = 1,
        .classes = {{.input_bytes = 64, .output_bytes = 64, .count = 2}}};
    struct queue queue;
    assert_int_equal(queue_create(&geometry, &queue), 0);
    return queue;
}

/* The inherited numbers are low and may be in use here, so each case plays the child in a process
 * of its own. Returns its exit status: 0 if `body` held. */
static int in_child(int (*body)(struct queue *queue, uint16_t index), enum queue_role role)
{
    struct queue queue = make_queue();
    uint16_t index = 0;
    assert_int_equal(queue_process_enter(&queue, role, 1, &index), 0);
    pid_t child = fork();
    if (child == 0) {
        int ready[2];
        if (pipe2(ready, O_CLOEXEC))
            _exit(99);
        int queue_fd = fcntl(queue.fd, F_DUPFD, 200);
        int write_fd = fcntl(ready[1], F_DUPFD, 200);
        int inputs_fd = fcntl(queue.inputs_fd, F_DUPFD, 200);
        int outputs_fd = fcntl(queue.outputs_fd, F_DUPFD, 200);
        dup2(queue_fd, SEAT_FD_QUEUE);
        dup2(inputs_fd, SEAT_FD_INPUTS);
        dup2(outputs_fd, SEAT_FD_OUTPUTS);
        dup2(write_fd, SEAT_FD_READY);
        for (int seat = 0; seat < 2; seat++)
            dup2(fcntl(eventfd(0, EFD_NONBLOCK), F_DUPFD, 200), SEAT_FD_EVENT + seat);
        _exit(body(&queue, index));
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    queue_close(&queue);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

static int take(enum queue_role role, const char *seat_text, uint16_t index, struct seat *out)
{
    char index_text[16];
    snprintf(index_text, sizeof index_text, "%u", index);
    char *argv[] = {"child",   "--front",  "zmq",    "--seat", (char *)seat_text,
                    "--index", index_text, "--last", NULL};
    int argc = 8;
    int error = seat_take(role, &argc, argv, out);
    if (!error &&
        (argc != 4 || strcmp(argv[1], "--front") != 0 || strcmp(argv[3], "--last") != 0 || argv[4]))
        return -EDOM;
    return error;
}

static int body_takes(struct queue *queue, uint16_t index)
{
    (void)queue;
    struct seat seat;
    if (take(QUEUE_WORKER, "1", index, &seat))
        return 1;
    if (!(fcntl(SEAT_FD_QUEUE, F_GETFD) & FD_CLOEXEC) ||
        !(fcntl(SEAT_FD_EVENT, F_GETFD) & FD_CLOEXEC))
        return 2;
    seat_wake(&seat.queue, index);
    seat_wake(&seat.queue, index);
    uint64_t count = 0;
    if (read(SEAT_FD_EVENT + 1, &count, sizeof count) != sizeof count || count != 2)
        return 3;
    seat_wake_role(&seat.queue, QUEUE_WORKER);
    seat_wake_role(&seat.queue, QUEUE_BROKER);
    seat_wake(&seat.queue, 0);
    seat_wake(&seat.queue, 9999);
    seat_clear(&seat);
    if (read(SEAT_FD_EVENT + 1, &count, sizeof count) != -1 ||
        read(SEAT_FD_EVENT, &count, sizeof count) != -1)
        return 4;
    /* Who is awake is told beside its eventfd, and asks when it is about to sleep. */
    seat_awake(&seat);
    if (seat_asleep(&seat))
        return 7;
    if (seat_awake(&seat))
        return 10;
    seat_wake(&seat.queue, index);
    if (!seat_awake(&seat) || seat_awake(&seat))
        return 11;
    seat_wake(&seat.queue, index);
    if (read(SEAT_FD_EVENT + 1, &count, sizeof count) != -1 || !seat_asleep(&seat) ||
        seat_asleep(&seat))
        return 8;
    seat_wake(&seat.queue, index);
    if (read(SEAT_FD_EVENT + 1, &count, sizeof count) != sizeof count || count != 1)
        return 9;
    /* Whom somebody has called already need not be written to once more. */
    seat_call(&seat.queue, index);
    if (read(SEAT_FD_EVENT + 1, &count, sizeof count) != -1 || !seat_awake(&seat))
        return 13;
    seat_call(&seat.queue, index);
    if (!seat_asleep(&seat) || read(SEAT_FD_EVENT + 1, &count, sizeof count) != -1)
        return 14;
    seat_call(&seat.queue, index);
    seat_call(&seat.queue, index);
    if (read(SEAT_FD_EVENT + 1, &count, sizeof count) != sizeof count || count != 1)
        return 15;
    seat_ready(&seat);
    seat_tick(&seat);
    if (!atomic_load(&seat.queue.processes[index].ready) ||
        atomic_load(&seat.queue.processes[index].tick) != 1)
        return 5;
    return fcntl(SEAT_FD_READY, F_GETFD) == -1 ? 0 : 6;
}

static int spare_areas[2];

/* A refusal closes the queue, so each try gets it anew. */
static int retake(int spare, enum queue_role role, const char *seat_text, uint16_t index)
{
    struct seat seat;
    dup2(spare, SEAT_FD_QUEUE);
    dup2(spare_areas[0], SEAT_FD_INPUTS);
    dup2(spare_areas[1], SEAT_FD_OUTPUTS);
    return take(role, seat_text, index, &seat);
}

static int body_refuses(struct queue *queue, uint16_t index)
{
    (void)queue;
    int spare = fcntl(SEAT_FD_QUEUE, F_DUPFD, 200);
    spare_areas[0] = fcntl(SEAT_FD_INPUTS, F_DUPFD, 200);
    spare_areas[1] = fcntl(SEAT_FD_OUTPUTS, F_DUPFD, 200);
    if (retake(spare, QUEUE_GATEWAY, "1", index) != -EPROTO)
        return 1;
    if (retake(spare, QUEUE_WORKER, "0", index) != -EPROTO)
        return 2;
    if (retake(spare, QUEUE_WORKER, "1", index + 1) != -EPROTO)
        return 3;
    if (retake(spare, QUEUE_WORKER, "x", index) != -EINVAL ||
        retake(spare, QUEUE_WORKER, "128", index) != -EINVAL)
        return 4;
    if (retake(spare, QUEUE_WORKER, "1", index))
        return 5;
    int plain = open("/dev/null", O_RDWR | O_CLOEXEC);
    return retake(plain, QUEUE_WORKER, "1", index) < 0 ? 0 : 6;
}

static void test_takes(void **state)
{
    (void)state;
    assert_int_equal(in_child(body_takes, QUEUE_WORKER), 0);
}

static void test_refuses(void **state)
{
    (void)state;
    assert_int_equal(in_child(body_refuses, QUEUE_WORKER), 0);
}

/* Signals of a terminal leave it alone, and SIGTERM waits for its loop. */
static void test_signals(void **state)
{
    (void)state;
    pid_t child = fork();
    if (child == 0) {
        sigset_t pending;
        seat_signals();
        raise(SIGINT);
        raise(SIGHUP);
        raise(SIGPIPE);
        raise(SIGTERM);
        sigpending(&pending);
        _exit(sigismember(&pending, SIGTERM) && !sigismember(&pending, SIGHUP) ? 0 : 1);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int main(void)
{
    log_init("test", -1, LOG_FORMAT_TEXT, LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_takes), cmocka_unit_test(test_refuses),
                                       cmocka_unit_test(test_signals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
