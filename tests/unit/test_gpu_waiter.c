/*
 * The thread that waits for a device, on a driver of which there is only the call that waits: it
 * returns when the test lets it.
 */
#include "workers/backends/cudnn/gpu_waiter.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define PATIENCE_S 30 /* of a test that is about to fail */

/* ---- a driver ---- */

static struct {
    sem_t entered; /* somebody waits */
    sem_t go;      /* may it end */
    CUresult result;
    _Atomic uintptr_t event; /* that is waited for, or was last */
    _Atomic uintptr_t context;
    _Atomic int calls;
    _Atomic int ended;
    _Atomic bool signals_blocked;
} device;

static CUresult enter_context(CUcontext context)
{
    atomic_store(&device.context, (uintptr_t)context);
    return CUDA_SUCCESS;
}

static CUresult wait_for_event(CUevent event)
{
    sigset_t blocked;
    pthread_sigmask(SIG_SETMASK, NULL, &blocked);
    atomic_store(&device.signals_blocked,
                 sigismember(&blocked, SIGTERM) == 1 && sigismember(&blocked, SIGCHLD) == 1);
    atomic_store(&device.event, (uintptr_t)event);
    atomic_fetch_add(&device.calls, 1);
    sem_post(&device.entered);
    while (sem_wait(&device.go) != 0) {
    }
    atomic_fetch_add(&device.ended, 1);
    return device.result;
}

static const struct gpu_driver driver = {.cuCtxSetCurrent = enter_context,
                                         .cuEventSynchronize = wait_for_event};
static const struct gpu_device gpu = {.driver = &driver, .context = (CUcontext)0x5000}; /* NOLINT */

static CUevent event_number(uintptr_t number)
{
    return (CUevent)(number * 64); /* NOLINT(performance-no-int-to-ptr) */
}

/* ---- what is there before and after each test ---- */

static int descriptors(void)
{
    DIR *directory = opendir("/proc/self/fd");
    int count = 0;
    assert_non_null(directory);
    while (readdir(directory) != NULL) {
        count++;
    }
    closedir(directory);
    return count;
}

static struct gpu_waiter waiter;
static int descriptors_before;

static int open_waiter(void **state)
{
    (void)state;
    sem_init(&device.entered, 0, 0);
    sem_init(&device.go, 0, 0);
    device.result = CUDA_SUCCESS;
    device.calls = 0;
    device.ended = 0;
    device.context = 0;
    waiter = (struct gpu_waiter){.driver = NULL};
    descriptors_before = descriptors();
    return gpu_waiter_open(&gpu, &waiter);
}

static int close_waiter(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) { /* of a test that has failed */
        sem_post(&device.go);
    }
    gpu_waiter_close(&waiter);
    int left = descriptors() - descriptors_before;
    if (left != 0) {
        print_error("%d descriptors are left\n", left);
    }
    return left;
}

/* Until the device is asked to wait once more. */
static void see_it_wait(void)
{
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += PATIENCE_S;
    int failure;
    do {
        failure = sem_timedwait(&device.entered, &end);
    } while (failure != 0 && errno == EINTR);
    assert_int_equal(failure, 0);
}

static bool told_within(int ms)
{
    struct pollfd told = {.fd = waiter.told, .events = POLLIN};
    return poll(&told, 1, ms) == 1;
}

/* ---- tests ---- */

static void a_mark_comes_when_its_event_has(void **state)
{
    (void)state;
    for (uint64_t mark = 1; mark <= 3; mark++) {
        assert_int_equal(gpu_waiter_expect(&waiter, event_number(mark), mark), 0);
        see_it_wait();
        assert_int_equal(device.event, (uintptr_t)event_number(mark));
        assert_int_equal(gpu_waiter_reached(&waiter), mark - 1);
        assert_false(told_within(0));
        sem_post(&device.go);
        assert_true(told_within(PATIENCE_S * 1000));
        assert_int_equal(gpu_waiter_reached(&waiter), mark);
        assert_false(told_within(0)); /* not again before the next */
    }
}

static void marks_come_in_order(void **state)
{
    (void)state;
    assert_int_equal(gpu_waiter_expect(&waiter, event_number(1), 7), 0);
    assert_int_equal(gpu_waiter_expect(&waiter, event_number(2), 9), 0);
    see_it_wait();
    assert_int_equal(device.event, (uintptr_t)event_number(1));
    sem_post(&device.go);
    see_it_wait(); /* for the second: the first has come */
    assert_int_equal(device.event, (uintptr_t)event_number(2));
    assert_true(told_within(PATIENCE_S * 1000));
    assert_int_equal(gpu_waiter_reached(&waiter), 7);
    sem_post(&device.go);
    assert_true(told_within(PATIENCE_S * 1000));
    assert_int_equal(gpu_waiter_reached(&waiter), 9);
}

/* Who is told asks the device then, and hears it. */
static void an_event_that_fails_has_come(void **state)
{
    (void)state;
    device.result = CUDA_ERROR_LAUNCH_FAILED;
    assert_int_equal(gpu_waiter_expect(&waiter, event_number(1), 1), 0);
    sem_post(&device.go);
    assert_true(told_within(PATIENCE_S * 1000));
    assert_int_equal(gpu_waiter_reached(&waiter), 1);
}

static void nothing_is_told_twice_and_nothing_asked_for_blocks(void **state)
{
    (void)state;
    assert_int_equal(gpu_waiter_reached(&waiter), 0);
    assert_int_equal(gpu_waiter_reached(&waiter), 0);
}

static void the_thread_is_in_the_context_and_takes_no_signals(void **state)
{
    (void)state;
    sigset_t blocked;
    assert_int_equal(gpu_waiter_expect(&waiter, event_number(1), 1), 0);
    see_it_wait();
    sem_post(&device.go);
    assert_int_equal(device.context, (uintptr_t)gpu.context);
    assert_true(device.signals_blocked);
    pthread_sigmask(SIG_SETMASK, NULL, &blocked);
    assert_int_equal(sigismember(&blocked, SIGTERM), 0); /* it is ours to take */
}

static void *let_go_slowly(void *argument)
{
    (void)argument;
    struct timespec pause = {.tv_nsec = 50000000}; /* in which who does not wait would be seen */
    nanosleep(&pause, NULL);
    for (int i = 0; i < 3; i++) {
        sem_post(&device.go);
    }
    return NULL;
}

/* Events may be destroyed afterwards. */
static void closing_waits_for_what_was_told(void **state)
{
    (void)state;
    pthread_t thread;
    for (uint64_t mark = 1; mark <= 3; mark++) {
        assert_int_equal(gpu_waiter_expect(&waiter, event_number(mark), mark), 0);
    }
    assert_int_equal(pthread_create(&thread, NULL, let_go_slowly, NULL), 0);
    gpu_waiter_close(&waiter);
    assert_int_equal(device.ended, 3);
    assert_int_equal(pthread_join(thread, NULL), 0);
    gpu_waiter_close(&waiter); /* closed already: nothing happens */
}

/* One descriptor more than there are, two more: neither is enough, and none stays. */
static void without_descriptors_it_is_said(void **state)
{
    (void)state;
    struct rlimit before;
    int next = dup(0);
    assert_true(next >= 0);
    close(next);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    for (rlim_t more = 1; more <= 2; more++) {
        struct rlimit few = {.rlim_cur = (rlim_t)next + more, .rlim_max = before.rlim_max};
        struct gpu_waiter other = {.driver = NULL};
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
        int code = gpu_waiter_open(&gpu, &other);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
        assert_int_equal(code, -EMFILE);
        gpu_waiter_close(&other); /* not open: nothing happens */
    }
}

int main(void)
{
    alarm(2 * PATIENCE_S); /* who hangs has failed */
#define WAITER_TEST(name) cmocka_unit_test_setup_teardown(name, open_waiter, close_waiter)
    const struct CMUnitTest tests[] = {
        WAITER_TEST(a_mark_comes_when_its_event_has),
        WAITER_TEST(marks_come_in_order),
        WAITER_TEST(an_event_that_fails_has_come),
        WAITER_TEST(nothing_is_told_twice_and_nothing_asked_for_blocks),
        WAITER_TEST(the_thread_is_in_the_context_and_takes_no_signals),
        WAITER_TEST(closing_waits_for_what_was_told),
        WAITER_TEST(without_descriptors_it_is_said),
    };
#undef WAITER_TEST
    return cmocka_run_group_tests(tests, NULL, NULL);
}
