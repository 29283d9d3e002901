/*
 * When a job may go to a worker without the broker: every reason against it, one by one.
 */
#include "unetserve/handover.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { SLOTS = 6 };

static struct {
    struct queue queue;
    uint16_t gateway, worker, other;
    uint32_t job;
} scene;

static uint16_t enter_worker(uint32_t seat, uint32_t model)
{
    uint16_t index;
    assert_int_equal(queue_process_enter(&scene.queue, QUEUE_WORKER, seat, &index), 0);
    struct queue_process *process = &scene.queue.processes[index];
    atomic_store(&process->model, model);
    atomic_store(&process->model_generation, 3);
    atomic_store(&process->ready, 1);
    return index;
}

static uint32_t submit(uint32_t model)
{
    uint32_t slot;
    uint64_t word;
    assert_int_equal(queue_reserve(&scene.queue, scene.gateway, 1, 1, &slot, &word), 0);
    atomic_store(&scene.queue.slots[slot].model, model);
    atomic_store(&scene.queue.slots[slot].model_generation, 3);
    assert_true(queue_move(&scene.queue, QUEUE_GATEWAY, slot, word, QUEUE_READY, 0, NULL));
    return slot;
}

static void lease(uint32_t slot, uint16_t worker)
{
    assert_true(queue_move(&scene.queue, QUEUE_BROKER, slot, queue_word(&scene.queue, slot),
                           QUEUE_LEASED, worker, NULL));
}

/* A job in READY, its worker, and another one of another model. */
static int set_up(void **state)
{
    (void)state;
    const struct queue_geometry geometry = {
        .class_count = 1, .model_count = 2, .classes = {{64, 64, SLOTS, 0}}};
    memset(&scene, 0, sizeof scene);
    assert_int_equal(queue_create(&geometry, &scene.queue), 0);
    assert_int_equal(queue_process_enter(&scene.queue, QUEUE_GATEWAY, 0, &scene.gateway), 0);
    scene.other = enter_worker(1, 1);
    scene.worker = enter_worker(2, 0);
    scene.job = submit(0);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    queue_close(&scene.queue);
    return 0;
}

static struct queue_process *process(void)
{
    return &scene.queue.processes[scene.worker];
}

static void expect(uint16_t worker)
{
    assert_int_equal(handover_find(&scene.queue, scene.job), worker);
}

static void test_an_idle_worker_is_found(void **state)
{
    (void)state;
    expect(scene.worker);
    assert_true(handover_may_take(&scene.queue, scene.worker));
}

static void test_a_worker_that_is_not_there_for_it(void **state)
{
    (void)state;
    atomic_store(&process()->ready, 0);
    expect(0);
    assert_false(handover_may_take(&scene.queue, scene.worker));
    atomic_store(&process()->ready, 1);
    atomic_store(&process()->draining, 1);
    expect(0);
    assert_false(handover_may_take(&scene.queue, scene.worker));
    atomic_store(&process()->draining, 0);
    atomic_store(&process()->life, QUEUE_CONDEMNED);
    expect(0);
    assert_false(handover_may_take(&scene.queue, scene.worker));
    atomic_store(&process()->life, QUEUE_LIVE);
    atomic_store(&process()->model_generation, 4);
    expect(0);
    atomic_store(&process()->model_generation, 3);
    expect(scene.worker);
    queue_process_leave(&scene.queue, scene.worker, false);
    expect(0);
}

static void test_a_busy_worker_is_passed_over(void **state)
{
    (void)state;
    uint16_t second = enter_worker(3, 0);
    uint32_t before = submit(1);
    lease(before, scene.worker); /* whatever it is: it has something in hand */
    expect(second);
    atomic_store(&scene.queue.processes[second].ready, 0);
    expect(scene.worker); /* now there is nobody else, and its turn will come */
    atomic_store(&scene.queue.processes[second].ready, 1);
    assert_true(queue_move(&scene.queue, QUEUE_WORKER, before, queue_word(&scene.queue, before),
                           QUEUE_RUN, scene.worker, NULL));
    expect(second);
    assert_true(queue_move(&scene.queue, QUEUE_WORKER, before, queue_word(&scene.queue, before),
                           QUEUE_DONE, 0, NULL));
    expect(scene.worker);
}

static void test_others_in_the_line(void **state)
{
    (void)state;
    enter_worker(3, 0);
    submit(1);
    expect(scene.worker); /* not its line */
    submit(0);
    expect(0);
}

static void test_the_only_worker(void **state)
{
    (void)state;
    assert_true(handover_is_only(&scene.queue, scene.worker));
    assert_true(handover_is_only(&scene.queue, scene.other)); /* another model's */
    submit(0);
    submit(0);
    expect(scene.worker); /* whatever is in the line */
    uint16_t second = enter_worker(3, 0);
    expect(0);
    assert_false(handover_is_only(&scene.queue, scene.worker));
    assert_false(handover_is_only(&scene.queue, second));
    atomic_store(&process()->draining, 1);
    expect(second);
    assert_false(handover_is_only(&scene.queue, scene.worker));
    assert_true(handover_is_only(&scene.queue, second));
    atomic_store(&scene.queue.processes[second].model_generation, 4);
    expect(0);
    assert_true(handover_is_only(&scene.queue, second)); /* of its generation */
}

static void test_a_model_that_holds_jobs_back(void **state)
{
    (void)state;
    struct queue_model *model = &scene.queue.models[0];
    atomic_store(&model->max_batch, 8);
    expect(scene.worker);
    atomic_store(&model->batch_timeout_us, 500);
    expect(0);
    assert_false(handover_is_open(&scene.queue, 0));
    assert_false(handover_may_take(&scene.queue, scene.worker));
    atomic_store(&model->max_batch, 1); /* nobody could join it */
    expect(scene.worker);
}

static void test_a_model_that_there_is_not(void **state)
{
    (void)state;
    atomic_store(&scene.queue.slots[scene.job].model, 2);
    expect(0);
    atomic_store(&scene.queue.slots[scene.job].model, UINT32_MAX);
    expect(0);
    atomic_store(&process()->model, UINT32_MAX);
    assert_false(handover_may_take(&scene.queue, scene.worker));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_an_idle_worker_is_found),
        TEST(test_a_worker_that_is_not_there_for_it),
        TEST(test_a_busy_worker_is_passed_over),
        TEST(test_others_in_the_line),
        TEST(test_a_model_that_holds_jobs_back),
        TEST(test_a_model_that_there_is_not),
        TEST(test_the_only_worker),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
