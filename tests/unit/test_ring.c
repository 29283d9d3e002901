/* The ring between a worker and its gateway: order, bounds, wrapping, two threads, and lies. */
#include "unetserve/ring.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { CAPACITY = 61 };

struct scene {
    struct ring_counts counts;
    unsigned char bytes[CAPACITY];
    unsigned char guard[8];
    struct ring producer, consumer;
};

static void begin(struct scene *scene)
{
    memset(scene, 0, sizeof *scene);
    memset(scene->guard, 0x5a, sizeof scene->guard);
    scene->producer = (struct ring){
        .counts = &scene->counts, .bytes = scene->bytes, .capacity = CAPACITY};
    scene->consumer = scene->producer;
}

static void end(const struct scene *scene)
{
    for (size_t i = 0; i < sizeof scene->guard; i++)
        assert_int_equal(scene->guard[i], 0x5a);
}

static void expect(struct scene *scene, const char *text)
{
    char item[CAPACITY];
    size_t size;
    assert_int_equal(ring_next(&scene->consumer, &size), 0);
    assert_int_equal(size, strlen(text));
    ring_take(&scene->consumer, item, size);
    assert_memory_equal(item, text, size);
}

static void items_come_out_as_they_went_in(void **state)
{
    (void)state;
    struct scene scene;
    size_t size;
    begin(&scene);
    assert_int_equal(ring_next(&scene.consumer, &size), -EAGAIN);
    /* At every place of the ring, so that lengths and bytes wrap in every way. */
    for (int round = 0; round < 3 * CAPACITY; round++) {
        assert_int_equal(ring_put(&scene.producer, "first", 5), 0);
        assert_int_equal(ring_put(&scene.producer, "", 0), 0);
        assert_int_equal(ring_put(&scene.producer, "the second one", 14), 0);
        expect(&scene, "first");
        expect(&scene, "");
        expect(&scene, "the second one");
        assert_int_equal(ring_next(&scene.consumer, &size), -EAGAIN);
    }
    end(&scene);
}

static void a_full_ring_says_so_and_is_told_when_there_is_room(void **state)
{
    (void)state;
    struct scene scene;
    char item[CAPACITY] = {0};
    begin(&scene);
    assert_int_equal(ring_put(&scene.producer, item, CAPACITY - 3), -EMSGSIZE);
    assert_int_equal(ring_put(&scene.producer, item, CAPACITY - 4), 0);
    assert_int_equal(ring_put(&scene.producer, item, 0), -EAGAIN);
    assert_false(ring_wait(&scene.producer, 0));
    assert_true(ring_take(&scene.consumer, item, CAPACITY - 4));
    assert_true(ring_wait(&scene.producer, 0));
    assert_int_equal(ring_put(&scene.producer, item, 1), 0);
    /* The wait above was told before: once more, and then not again. */
    assert_true(ring_take(&scene.consumer, item, 1));
    assert_int_equal(ring_put(&scene.producer, item, 1), 0);
    assert_false(ring_take(&scene.consumer, item, 1));
    end(&scene);
}

static void what_is_left_can_be_copied_out(void **state)
{
    (void)state;
    struct scene scene;
    struct ring_counts counts;
    unsigned char rest[CAPACITY];
    size_t size;
    begin(&scene);
    assert_int_equal(ring_put(&scene.producer, "gone by then, long enough to wrap", 33), 0);
    expect(&scene, "gone by then, long enough to wrap");
    assert_int_equal(ring_put(&scene.producer, "left over", 9), 0);
    assert_int_equal(ring_put(&scene.producer, "this one, too", 13), 0);
    assert_int_equal(ring_size(&scene.consumer, &size), 0);
    assert_int_equal(size, 9 + 13 + 8);
    ring_detach(&scene.consumer, &counts, rest, size);
    memset(scene.bytes, 0, sizeof scene.bytes);
    expect(&scene, "left over");
    expect(&scene, "this one, too");
    assert_int_equal(ring_next(&scene.consumer, &size), -EAGAIN);
    end(&scene);
}

static void lies_lead_nowhere(void **state)
{
    (void)state;
    struct scene scene;
    size_t size;
    begin(&scene);
    static const uint64_t counters[] = {1, 3, CAPACITY + 1, UINT64_MAX, UINT64_MAX - 2};
    for (size_t i = 0; i < sizeof counters / sizeof counters[0]; i++) {
        atomic_store(&scene.counts.produced, counters[i]);
        assert_int_equal(ring_next(&scene.consumer, &size), -EBADMSG);
    }
    atomic_store(&scene.counts.produced, CAPACITY + 1);
    assert_int_equal(ring_size(&scene.consumer, &size), -EBADMSG);
    /* A length beyond what is there, up to the largest. */
    atomic_store(&scene.counts.produced, 10);
    for (int length = 7; length < 256; length++) {
        scene.bytes[0] = (unsigned char)length;
        assert_int_equal(ring_next(&scene.consumer, &size), -EBADMSG);
    }
    memset(scene.bytes, 0xff, 4);
    assert_int_equal(ring_next(&scene.consumer, &size), -EBADMSG);
    /* And a consumer that claims what was never there. */
    atomic_store(&scene.counts.consumed, 5);
    assert_int_equal(ring_put(&scene.producer, "x", 1), -EBADMSG);
    assert_true(ring_wait(&scene.producer, 1)); /* try again, and hear of it */
    end(&scene);
}

enum { MANY = 20000 };

static void *produce(void *opaque)
{
    struct scene *scene = opaque;
    for (uint32_t i = 0; i < MANY; i++) {
        unsigned char item[24];
        memset(item, (int)(i & 0xff), sizeof item);
        memcpy(item, &i, sizeof i);
        size_t size = sizeof i + i % 20;
        while (ring_put(&scene->producer, item, size) == -EAGAIN)
            if (!ring_wait(&scene->producer, size))
                sched_yield();
    }
    return NULL;
}

static void two_threads_agree(void **state)
{
    (void)state;
    struct scene scene;
    pthread_t thread;
    begin(&scene);
    assert_int_equal(pthread_create(&thread, NULL, produce, &scene), 0);
    for (uint32_t i = 0; i < MANY;) {
        unsigned char item[CAPACITY];
        size_t size;
        uint32_t number;
        int error = ring_next(&scene.consumer, &size);
        if (error == -EAGAIN) {
            sched_yield();
            continue;
        }
        assert_int_equal(error, 0);
        assert_int_equal(size, sizeof number + i % 20);
        ring_take(&scene.consumer, item, size);
        memcpy(&number, item, sizeof number);
        assert_int_equal(number, i);
        for (size_t k = sizeof number; k < size; k++)
            assert_int_equal(item[k], i & 0xff);
        i++;
    }
    pthread_join(thread, NULL);
    end(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(items_come_out_as_they_went_in),
        cmocka_unit_test(a_full_ring_says_so_and_is_told_when_there_is_room),
        cmocka_unit_test(what_is_left_can_be_copied_out),
        cmocka_unit_test(lies_lead_nowhere),
        cmocka_unit_test(two_threads_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
