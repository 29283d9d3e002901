/*
 * Which items are in which batch under way, and when the worker is told of them: on a backend that
 * has come as far as the test says, and a host that notes what it is told.
 */
#include "workers/models/unet/flights.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/epoll.h>

#include <cmocka.h>

#define MOST 3 /* items in a batch */

/* ---- a backend and a host ---- */

static struct {
    uint64_t come;  /* by itself */
    uint64_t least; /* of the last call */
    int failure;
    int calls;
} device;

static int submit_none(void *instance, const struct backend_batch *batch, uint64_t *mark)
{
    (void)instance, (void)batch, (void)mark;
    fail_msg("flights submit nothing themselves");
    return -EIO;
}

static int collect(void *instance, uint64_t least, uint64_t *mark)
{
    assert_ptr_equal(instance, &device);
    device.calls++;
    device.least = least;
    device.come = least > device.come ? least : device.come;
    *mark = device.come;
    return device.failure;
}

static int descriptor(const void *instance)
{
    assert_ptr_equal(instance, &device);
    return 77;
}

static const struct backend backend = {
    .name = "made up", .submit = submit_none, .collect = collect, .descriptor = descriptor};

static struct {
    struct unetserve_item *items[16]; /* that are complete, in order */
    int errors[16];
    size_t complete;
    double overlapped;
    int watched; /* descriptor; 0: none */
    int refuse;  /* what watch returns */
    void (*ready)(void *opaque, int fd, uint32_t events);
    void *opaque;
} seen;

static void complete(const struct unetserve_host *host, struct unetserve_item *item, int error)
{
    (void)host;
    assert_true(seen.complete < 16);
    seen.items[seen.complete] = item;
    seen.errors[seen.complete++] = error;
}

static int watch(const struct unetserve_host *host, int fd, uint32_t events,
                 void (*ready)(void *opaque, int fd, uint32_t events), void *opaque)
{
    (void)host;
    assert_int_equal(events, EPOLLIN);
    if (seen.refuse != 0) {
        return seen.refuse;
    }
    seen.watched = fd;
    seen.ready = ready;
    seen.opaque = opaque;
    return 0;
}

static void unwatch(const struct unetserve_host *host, int fd)
{
    (void)host;
    assert_int_equal(fd, seen.watched);
    seen.watched = 0;
}

static int count_metric(const struct unetserve_host *host, const char *name, double more)
{
    (void)host;
    assert_string_equal(name, "overlapped_batches_total");
    seen.overlapped += more;
    return 0;
}

static const struct unetserve_host host = {
    .complete = complete, .watch = watch, .unwatch = unwatch, .count = count_metric};

/* ---- tests ---- */

static struct unetserve_item items[16];
static struct flights flights;

static int open_flights(void **state)
{
    (void)state;
    memset(&seen, 0, sizeof seen);
    memset(&device, 0, sizeof device);
    return flights_open(&host, &backend, &device, MOST, &flights);
}

static int close_flights(void **state)
{
    (void)state;
    flights_close(&flights);
    return seen.watched;
}

/* Items [first, first + count) end with that mark. The array is the caller's again at once. */
static void add(size_t first, size_t count, uint64_t mark)
{
    struct unetserve_item *some[MOST];
    assert_true(count <= MOST);
    for (size_t i = 0; i < count; i++) {
        some[i] = &items[first + i];
    }
    flights_add(&flights, some, count, mark);
    memset(some, 0, sizeof some);
}

/* So many items are complete in all, each as it should be, in the order in which they came. */
static void expect_complete(size_t count)
{
    assert_int_equal(seen.complete, count);
    for (size_t i = 0; i < count; i++) {
        assert_ptr_equal(seen.items[i], &items[i]);
        assert_int_equal(seen.errors[i], 0);
    }
}

static void ready(void)
{
    seen.ready(seen.opaque, seen.watched, EPOLLIN);
    assert_int_equal(device.least, 0); /* the loop does not wait */
}

static void items_are_told_when_their_batch_has_ended(void **state)
{
    (void)state;
    assert_int_equal(seen.watched, 77);
    add(0, 2, 3);
    add(2, 3, 5);
    ready();
    expect_complete(0);
    device.come = 2;
    ready();
    expect_complete(0);
    device.come = 3;
    ready();
    expect_complete(2);
    device.come = 4;
    ready();
    expect_complete(2);
    add(5, 1, 6);
    device.come = 6; /* both at once, in order */
    ready();
    expect_complete(6);
    ready();
    expect_complete(6);
}

static void the_ring_goes_round(void **state)
{
    (void)state;
    for (size_t i = 0; i < 8; i++) {
        assert_int_equal(flights_make_room(&flights), 0);
        add(2 * i, 2, i + 1);
        device.come = i;
        ready();
        expect_complete(2 * i);
    }
    assert_int_equal(flights_wait(&flights, 8), 0);
    expect_complete(16);
}

static void room_is_made_by_the_oldest_alone(void **state)
{
    (void)state;
    assert_int_equal(flights_make_room(&flights), 0);
    add(0, 1, 1);
    assert_int_equal(flights_make_room(&flights), 0);
    assert_int_equal(device.calls, 0); /* there was room */
    add(1, 1, 4);
    assert_int_equal(flights_make_room(&flights), 0);
    assert_int_equal(device.least, 1);
    expect_complete(1);
    add(2, 1, 5);
    assert_int_equal(flights_wait(&flights, 5), 0);
    expect_complete(3);
}

static void batches_behind_another_are_counted(void **state)
{
    (void)state;
    add(0, 1, 1);
    assert_true(seen.overlapped == 0);
    add(1, 1, 2);
    assert_true(seen.overlapped == 1);
    assert_int_equal(flights_wait(&flights, 2), 0);
    add(2, 1, 3);
    assert_true(seen.overlapped == 1);
    assert_int_equal(flights_wait(&flights, 3), 0);
    expect_complete(3);
}

/* A device that fails takes all with it: nobody's item is kept for ever. */
static void all_fail_with_their_device(void **state)
{
    (void)state;
    add(0, 3, 3);
    add(3, 2, 5);
    device.failure = -EIO;
    ready();
    assert_int_equal(seen.complete, 5);
    for (size_t i = 0; i < 5; i++) {
        assert_ptr_equal(seen.items[i], &items[i]);
        assert_int_equal(seen.errors[i], -EIO);
    }
    assert_int_equal(flights_wait(&flights, 0), -EIO);
    assert_int_equal(seen.complete, 5); /* once each */
}

static void room_that_cannot_be_made_is_told(void **state)
{
    (void)state;
    add(0, 1, 1);
    add(1, 1, 2);
    device.failure = -EIO;
    assert_int_equal(flights_make_room(&flights), -EIO);
    assert_int_equal(seen.complete, 2);
}

static void as_many_go_together_as_there_is_room_for(void **state)
{
    (void)state;
    struct flights none;
    assert_false(flights_take(&flights, 0));
    assert_true(flights_take(&flights, 1));
    assert_true(flights_take(&flights, MOST));
    assert_false(flights_take(&flights, MOST + 1));
    assert_int_equal(flights_open(NULL, &backend, &device, MOST, &none),
                     0); /* no loop: somebody waits */
    assert_false(flights_take(&none, 1));
    assert_int_equal(flights_wait(&none, 9), 0);
    assert_int_equal(device.calls, 0);
    flights_close(&none);
}

static void a_backend_that_waits_has_none(void **state)
{
    (void)state;
    const struct backend waits = {.name = "waits"};
    struct flights none;
    seen.watched = 0;
    assert_int_equal(flights_open(&host, &waits, &device, MOST, &none), 0);
    assert_int_equal(seen.watched, 0);
    assert_false(flights_take(&none, 1));
    flights_close(&none);
    seen.watched = 77;
}

static void what_cannot_be_watched_is_not_begun(void **state)
{
    (void)state;
    struct flights none;
    seen.refuse = -ENOSPC;
    assert_int_equal(flights_open(&host, &backend, &device, MOST, &none), -ENOSPC);
    assert_false(flights_take(&none, 1));
    flights_close(&none);
    assert_int_equal(seen.watched, 77); /* the other one's is */
}

int main(void)
{
#define FLIGHTS_TEST(name) cmocka_unit_test_setup_teardown(name, open_flights, close_flights)
    const struct CMUnitTest tests[] = {
        FLIGHTS_TEST(items_are_told_when_their_batch_has_ended),
        FLIGHTS_TEST(the_ring_goes_round),
        FLIGHTS_TEST(room_is_made_by_the_oldest_alone),
        FLIGHTS_TEST(batches_behind_another_are_counted),
        FLIGHTS_TEST(all_fail_with_their_device),
        FLIGHTS_TEST(room_that_cannot_be_made_is_told),
        FLIGHTS_TEST(as_many_go_together_as_there_is_room_for),
        FLIGHTS_TEST(a_backend_that_waits_has_none),
        FLIGHTS_TEST(what_cannot_be_watched_is_not_begun),
    };
#undef FLIGHTS_TEST
    return cmocka_run_group_tests(tests, NULL, NULL);
}
