/* What a gateway, a broker or auth can still do once it serves: each attempt in a process of its
 * own that gave up what they give up. */
#include "unetserve/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define SUCCEEDED 0
#define NOT_READY 255

static int outcome(long result)
{
    return result < 0 ? errno : SUCCEEDED;
}

/* Connected to each other by TCP before anything is given up. */
static int ends[2];

static int tcp_pair(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    ends[0] = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, 1) ||
        getsockname(listener, (struct sockaddr *)&address, &size) ||
        connect(ends[0], (struct sockaddr *)&address, size))
        return -1;
    ends[1] = accept(listener, NULL, NULL);
    return ends[1] < 0 ? -1 : 0;
}

/* A thread from before, which tries in the main thread's place when it is told to. */
static int (*thread_attempt)(void);
static int thread_result;
static pthread_barrier_t told;

static void *thread_run(void *opaque)
{
    pthread_barrier_wait(&told);
    thread_result = thread_attempt();
    return opaque;
}

static int prepare(const struct sandbox *sandbox, pthread_t *thread)
{
    pthread_barrier_init(&told, NULL, 2);
    if (tcp_pair() || sandbox_begin(sandbox) || pthread_create(thread, NULL, thread_run, NULL) ||
        sandbox_serve(sandbox))
        return -1;
    return 0;
}

/* The wait status of a process that makes the attempt: an exit with its errno. */
static int status_of(const struct sandbox *sandbox, int (*attempt)(void), bool by_thread)
{
    pid_t child = fork();
    if (child == 0) {
        pthread_t thread;
        thread_attempt = attempt;
        if (prepare(sandbox, &thread))
            _exit(NOT_READY);
        if (!by_thread)
            _exit(attempt());
        pthread_barrier_wait(&told);
        pthread_join(thread, NULL);
        _exit(thread_result);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static int wait_status(enum queue_role role, int (*attempt)(void), bool by_thread)
{
    const struct sandbox sandbox = {.role = role, .mode = SANDBOX_AUTO, .max_connections = 10};
    return status_of(&sandbox, attempt, by_thread);
}

static void assert_ends(int (*attempt)(void), int expected)
{
    static const enum queue_role roles[] = {QUEUE_GATEWAY, QUEUE_BROKER};
    for (int i = 0; i < 4; i++) {
        int status = wait_status(roles[i / 2], attempt, i % 2);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), expected);
    }
}

static int try_open(void)
{
    return outcome(open("/dev/null", O_RDONLY));
}

static int try_inet(void)
{
    return outcome(socket(AF_INET, SOCK_STREAM, 0));
}

static int try_unix(void)
{
    return outcome(socket(AF_UNIX, SOCK_STREAM, 0));
}

/* A connection that was accepted is taken apart and connected elsewhere: seccomp sees no
 * difference. */
static int try_connect_again(void)
{
    struct sockaddr nobody = {.sa_family = AF_UNSPEC};
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (connect(ends[1], &nobody, sizeof nobody))
        return outcome(-1);
    return outcome(connect(ends[1], (struct sockaddr *)&address, sizeof address));
}

static int try_write(void)
{
    return outcome(write(ends[1], "x", 1));
}

static int try_fork(void)
{
    pid_t child = fork();
    if (child == 0)
        _exit(0);
    return outcome(child);
}

static int try_code(void)
{
    return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED
               ? errno
               : SUCCEEDED;
}

static int try_kill(void)
{
    return outcome(kill(getppid(), 0));
}

static int try_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_max > 1024 + 20)
        return NOT_READY;
    return outcome(setrlimit(RLIMIT_NOFILE, &limit));
}

static int try_open_system(void)
{
    return outcome(open("/usr", O_RDONLY | O_DIRECTORY));
}

static int try_open_etc(void)
{
    return outcome(open("/etc", O_RDONLY | O_DIRECTORY));
}

static int try_open_writing(void)
{
    return outcome(open("/tmp/unetserve-never-made", O_WRONLY | O_CREAT, 0600));
}

/* Whoever listens there was there before. */
static struct sockaddr_in listening;

static int try_connect(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    return outcome(fd < 0 ? fd : connect(fd, (struct sockaddr *)&listening, sizeof listening));
}

static int try_listen(void)
{
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    return outcome(fd < 0 ? fd : bind(fd, (struct sockaddr *)&any, sizeof any));
}

static int try_exec(void)
{
    char *const none[] = {NULL};
    return outcome(execve("/nowhere/at/all", none, none));
}

static int set_policy(int policy)
{
    struct sched_param none = {.sched_priority = 0};
    return outcome(sched_setscheduler(0, policy, &none));
}

static int try_own_policy(void)
{
    return set_policy(SCHED_BATCH);
}

static int try_other_policy(void)
{
    return set_policy(SCHED_IDLE);
}

static void needs_seccomp(void)
{
    const char *missing = sandbox_missing();
    if (missing && strcmp(missing, "Landlock") != 0) {
        print_message("skipped: there is no sandbox without %s\n", missing);
        skip();
    }
}

static void test_fronts_are_walled_in(void **state)
{
    (void)state;
    needs_seccomp();
    assert_ends(try_open, EPERM);
    assert_ends(try_inet, EPERM);
    assert_ends(try_fork, EPERM);
    assert_ends(try_code, EPERM);
    assert_ends(try_kill, EPERM);
    assert_ends(try_limit, EPERM);
    assert_ends(try_write, SUCCEEDED);
    assert_ends(try_unix, SUCCEEDED);
}

/* libzmq's threads set the policy that they have, and end the process where they may not. */
static void test_threads_name_their_policy(void **state)
{
    (void)state;
    needs_seccomp();
    assert_int_equal(set_policy(SCHED_BATCH), SUCCEEDED);
    assert_ends(try_own_policy, SUCCEEDED);
    assert_ends(try_other_policy, EPERM);
    assert_int_equal(set_policy(SCHED_OTHER), SUCCEEDED);
}

static void test_exec_ends_the_process(void **state)
{
    (void)state;
    needs_seccomp();
    for (int by_thread = 0; by_thread < 2; by_thread++) {
        int status = wait_status(QUEUE_GATEWAY, try_exec, by_thread);
        assert_true(WIFSIGNALED(status));
        assert_int_equal(WTERMSIG(status), SIGSYS);
    }
}

/* Landlock knows TCP since its version 4. */
static void test_no_tcp_connection_is_made(void **state)
{
    (void)state;
    needs_seccomp();
    if (sandbox_missing())
        skip();
    int status = wait_status(QUEUE_GATEWAY, try_connect_again, false);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == ECONNREFUSED) {
        print_message("skipped: this kernel's Landlock does not know TCP\n");
        skip();
    }
    assert_int_equal(WEXITSTATUS(status), EACCES);
}

static int auth_ends(int (*attempt)(void), bool by_thread, uint16_t port)
{
    const struct sandbox sandbox = {.role = QUEUE_AUTH, .mode = SANDBOX_AUTO, .ports = {port}};
    int status = status_of(&sandbox, attempt, by_thread);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* Its threads look names up, so they have what it has. */
static void test_auth_is_walled_in(void **state)
{
    (void)state;
    needs_seccomp();
    for (int by_thread = 0; by_thread < 2; by_thread++) {
        assert_int_equal(auth_ends(try_inet, by_thread, 0), SUCCEEDED);
        assert_int_equal(auth_ends(try_unix, by_thread, 0), SUCCEEDED);
        assert_int_equal(auth_ends(try_open_system, by_thread, 0), SUCCEEDED);
        assert_int_equal(auth_ends(try_open_writing, by_thread, 0), EPERM);
        assert_int_equal(auth_ends(try_listen, by_thread, 0), EPERM);
        assert_int_equal(auth_ends(try_fork, by_thread, 0), EPERM);
        assert_int_equal(auth_ends(try_code, by_thread, 0), EPERM);
        assert_int_equal(auth_ends(try_kill, by_thread, 0), EPERM);
        int status = wait_status(QUEUE_AUTH, try_exec, by_thread);
        assert_true(WIFSIGNALED(status));
        assert_int_equal(WTERMSIG(status), SIGSYS);
        if (!sandbox_missing())
            assert_int_equal(auth_ends(try_open_etc, by_thread, 0), EACCES);
    }
}

static void test_auth_connects_where_it_may(void **state)
{
    (void)state;
    needs_seccomp();
    if (sandbox_missing())
        skip();
    socklen_t size = sizeof listening;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    listening.sin_family = AF_INET;
    listening.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(listener, (struct sockaddr *)&listening, size), 0);
    assert_int_equal(listen(listener, 8), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&listening, &size), 0);
    uint16_t port = ntohs(listening.sin_port);
    assert_int_equal(auth_ends(try_connect, false, port), SUCCEEDED);
    int elsewhere = auth_ends(try_connect, false, port == 9 ? 10 : 9);
    close(listener);
    if (elsewhere == SUCCEEDED) {
        print_message("skipped: this kernel's Landlock does not know TCP\n");
        skip();
    }
    assert_int_equal(elsewhere, EACCES);
}

static int without(enum sandbox_mode mode)
{
    const struct sandbox sandbox = {.role = QUEUE_GATEWAY, .mode = mode, .max_connections = 10};
    pid_t child = fork();
    if (child == 0)
        _exit(sandbox_begin(&sandbox) || sandbox_serve(&sandbox) ? NOT_READY : try_open());
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void test_modes(void **state)
{
    (void)state;
    assert_int_equal(without(SANDBOX_OFF), SUCCEEDED);
    assert_int_equal(without(SANDBOX_ON), sandbox_missing() ? NOT_READY : EPERM);
    assert_int_equal(sandbox_mode_of("auto"), SANDBOX_AUTO);
    assert_int_equal(sandbox_mode_of("on"), SANDBOX_ON);
    assert_int_equal(sandbox_mode_of("files"), SANDBOX_FILES);
    assert_int_equal(sandbox_mode_of("off"), SANDBOX_OFF);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fronts_are_walled_in),
        cmocka_unit_test(test_threads_name_their_policy),
        cmocka_unit_test(test_exec_ends_the_process),
        cmocka_unit_test(test_no_tcp_connection_is_made),
        cmocka_unit_test(test_auth_is_walled_in),
        cmocka_unit_test(test_auth_connects_where_it_may),
        cmocka_unit_test(test_modes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
