/* A job's life without any socket: this test is the broker and the worker, and moves the slots by
 * hand. */
#include "gateway/jobs.h"
#include "gateway/outcome.h"
#include "tests/image_interface.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

enum { TILE = 16, CHANNELS = 2, TILE_BYTES = CHANNELS * TILE * TILE * 2, SLOTS = 3 };

struct bench {
    struct seat seat;
    uint16_t worker;
    struct config config;
    struct models models;
    struct jobs jobs;
    unsigned batons;
    struct wire_baton baton;
    unsigned answers;
    struct job_outcome outcome; /* of the last answer; its body is ours */
};

static struct bench bench;

static void count_baton(void *opaque, const struct wire_baton *baton)
{
    (void)opaque;
    bench.batons++;
    bench.baton = *baton;
}

static void take_answer(void *opaque, const struct job_outcome *outcome)
{
    assert_ptr_equal(opaque, &bench);
    free(bench.outcome.body);
    bench.outcome = *outcome;
    bench.answers++;
}

static int set_up(void **state)
{
    (void)state;
    memset(&bench, 0, sizeof bench);
    const struct queue_geometry geometry = {
        .class_count = 2,
        .model_count = 2,
        .classes = {{.input_bytes = 4096, .output_bytes = 4096, .count = SLOTS},
                    {.input_bytes = 65536, .output_bytes = 16384, .count = 1}},
    };
    assert_int_equal(queue_create(&geometry, &bench.seat.queue), 0);
    struct queue *queue = &bench.seat.queue;
    assert_int_equal(queue_process_enter(queue, QUEUE_GATEWAY, 0, &bench.seat.index), 0);
    assert_int_equal(queue_process_enter(queue, QUEUE_WORKER, 1, &bench.worker), 0);
    bench.seat.role = QUEUE_GATEWAY;
    bench.seat.event_fd = -1;
    config_init(&bench.config);
    bench.config.model_count = 2;
    for (int i = 0; i < 2; i++) {
        bench.config.models[i].timeout_ms = 10000;
        bench.config.models[i].run_timeout_ms = 20000;
    }
    static const struct unetserve_interface unet = {
        .name = "unet",
        IMAGE_INTERFACE,
        .channels = CHANNELS,
        .size_min = 1,
        .tile = TILE,
        .max_batch = 4,
        .class_count = 3,
    };
    static const struct unetserve_interface text = {.name = "text",
                                                    .version = "1",
                                                    .input_kind = UNETSERVE_DOCUMENT,
                                                    .output_kind = UNETSERVE_DOCUMENT,
                                                    .max_batch = 1};
    assert_int_equal(queue_model_publish(queue, 0, 1, bench.worker, &unet), 0);
    assert_int_equal(queue_model_publish(queue, 1, 1, bench.worker, &text), 0);
    models_init(&bench.models, queue, &bench.config);
    jobs_init(&bench.jobs, &bench.seat, &bench.config, count_baton, NULL);
    return 0;
}

static unsigned slots_in(enum queue_state state)
{
    unsigned count = 0;
    for (uint32_t i = 0; i < bench.seat.queue.slot_count; i++)
        count += queue_word_state(queue_word(&bench.seat.queue, i)) == state;
    return count;
}

/* After each test everything must have come back. */
static int tear_down(void **state)
{
    (void)state;
    assert_int_equal(slots_in(QUEUE_FREE), bench.seat.queue.slot_count);
    assert_int_equal(bench.jobs.waiting_count, 0);
    assert_int_equal(bench.jobs.receiving_count, 0);
    free(bench.outcome.body);
    models_close(&bench.models);
    jobs_close(&bench.jobs);
    queue_close(&bench.seat.queue);
    return 0;
}

static struct job *open_tile(uint64_t timeout_ms, struct problem *problem)
{
    struct model_view *view = models_view(&bench.models, 0);
    assert_non_null(view);
    static const struct unetserve_shape shape = {UNETSERVE_U16, 3, {CHANNELS, TILE, TILE}};
    const struct job_order order = {.view = view,
                                    .format = BODY_RAW,
                                    .shape = &shape,
                                    .body_bytes = TILE_BYTES,
                                    .form = JOB_TENSOR,
                                    .request_id = "one",
                                    .timeout_ms = timeout_ms,
                                    .begun_ns = queue_now_ns()};
    struct job *job = NULL;
    int refused = job_open(&bench.jobs, &order, take_answer, &bench, problem, &job);
    model_view_drop(view);
    return refused ? NULL : job;
}

static struct job *submit_tile(uint64_t timeout_ms)
{
    static const unsigned char pixels[TILE_BYTES];
    struct problem problem = {0};
    struct job *job = open_tile(timeout_ms, &problem);
    assert_non_null(job);
    assert_int_equal(job_feed(job, pixels, 100, &problem), 0);
    assert_int_equal(job_feed(job, pixels + 100, TILE_BYTES - 100, &problem), 0);
    assert_int_equal(job_submit(job, &problem), 0);
    jobs_pass_on(&bench.jobs);
    return job;
}

static void move(uint32_t slot, enum queue_role role, enum queue_state to, uint16_t owner)
{
    assert_true(queue_move(&bench.seat.queue, role, slot, queue_word(&bench.seat.queue, slot), to,
                           owner, NULL));
}

static void start(uint32_t slot)
{
    move(slot, QUEUE_BROKER, QUEUE_LEASED, bench.worker);
    move(slot, QUEUE_WORKER, QUEUE_RUN, bench.worker);
    atomic_store(&bench.seat.queue.slots[slot].started_ns, queue_now_ns());
}

static void finish_with_labels(uint32_t slot, uint64_t bytes)
{
    struct queue_slot *entry = &bench.seat.queue.slots[slot];
    memset(queue_output(&bench.seat.queue, slot), 2, TILE * TILE);
    entry->status = 200;
    entry->output_bytes = bytes;
    entry->output_shape = (struct unetserve_shape){UNETSERVE_U8, 2, {TILE, TILE}};
    atomic_store(&entry->finished_ns, queue_now_ns());
    move(slot, QUEUE_WORKER, QUEUE_DONE, 0);
}

/* While its body is coming, a slot tells when it will be whole and what shape it has. */
static void test_upload_is_told(void **state)
{
    (void)state;
    static const unsigned char pixels[TILE_BYTES];
    static const struct unetserve_shape shape = {UNETSERVE_U16, 3, {CHANNELS, TILE, TILE}};
    struct problem problem = {0};
    struct job *job = open_tile(0, &problem);
    assert_non_null(job);
    uint32_t slot = 0;
    while (queue_word_state(queue_word(&bench.seat.queue, slot)) != QUEUE_RECV)
        slot++;
    const struct queue_slot *entry = &bench.seat.queue.slots[slot];
    assert_int_equal(atomic_load(&entry->upload_ends_ns), 0);
    assert_int_equal(job_feed(job, pixels, 0, &problem), 0);
    assert_int_equal(atomic_load(&entry->upload_ends_ns), 0);
    uint64_t before_ns = queue_now_ns();
    assert_int_equal(job_feed(job, pixels, 100, &problem), 0);
    assert_true(atomic_load(&entry->upload_ends_ns) > before_ns);
    assert_int_equal(atomic_load(&entry->upload_shape), queue_shape_key(&shape));
    job_drop(job);
    /* The next one in that slot begins anew. */
    job = open_tile(0, &problem);
    assert_non_null(job);
    assert_int_equal(queue_word_state(queue_word(&bench.seat.queue, slot)), QUEUE_RECV);
    assert_int_equal(atomic_load(&entry->upload_ends_ns), 0);
    job_drop(job);
}

/* The broker does not hear of it, unless the worker leaves it where it is. */
static void test_handed_over(void **state)
{
    (void)state;
    atomic_store(&bench.seat.queue.processes[bench.worker].ready, 1);
    atomic_store(&bench.seat.queue.processes[bench.worker].model_generation, 1);
    int fd = eventfd(0, EFD_NONBLOCK), worker_fd = SEAT_FD_EVENT + 1;
    assert_int_equal(dup2(fd, worker_fd), worker_fd);
    close(fd);
    submit_tile(0);
    uint64_t woken = 0;
    assert_int_equal(read(worker_fd, &woken, sizeof woken), sizeof woken);
    close(worker_fd);
    assert_int_equal(woken, 1);
    assert_int_equal(bench.batons, 0);
    jobs_collect(&bench.jobs);
    assert_int_equal(bench.batons, 0);
    jobs_check(&bench.jobs);
    jobs_pass_on(&bench.jobs);
    assert_int_equal(bench.batons, 1);
    assert_int_equal(bench.baton.word, queue_word(&bench.seat.queue, bench.baton.slot));
    assert_int_equal(queue_word_state(bench.baton.word), QUEUE_READY);
    jobs_check(&bench.jobs);
    jobs_pass_on(&bench.jobs);
    assert_int_equal(bench.batons, 1);
    uint16_t second; /* and where it is not the only one, a line is the broker's */
    assert_int_equal(queue_process_enter(&bench.seat.queue, QUEUE_WORKER, 9, &second), 0);
    atomic_store(&bench.seat.queue.processes[second].ready, 1);
    atomic_store(&bench.seat.queue.processes[second].model_generation, 1);
    submit_tile(0);
    assert_int_equal(bench.batons, 2);
    while (bench.jobs.waiting_count)
        job_drop(bench.jobs.waiting[0]);
}

static void test_answer(void **state)
{
    (void)state;
    submit_tile(0);
    assert_int_equal(bench.batons, 1);
    uint32_t slot = bench.baton.slot;
    const struct queue_slot *entry = &bench.seat.queue.slots[slot];
    assert_int_equal(bench.baton.word, queue_word(&bench.seat.queue, slot));
    assert_int_equal(queue_word_state(bench.baton.word), QUEUE_READY);
    assert_int_equal(entry->input_bytes, TILE_BYTES);
    assert_int_equal(atomic_load(&entry->reply_to), bench.seat.index);
    assert_int_equal(atomic_load(&entry->deadline_ns) - atomic_load(&entry->accepted_ns),
                     10000 * 1000000ull);
    assert_string_equal(entry->request_id, "one");
    start(slot);
    jobs_check(&bench.jobs);
    assert_int_equal(bench.answers, 0);
    finish_with_labels(slot, TILE * TILE);
    jobs_collect(&bench.jobs);
    assert_int_equal(bench.answers, 1);
    assert_int_equal(bench.outcome.status, 200);
    assert_int_equal(bench.outcome.size, TILE * TILE);
    assert_int_equal(((unsigned char *)bench.outcome.body)[TILE * TILE - 1], 2);
}

static void test_senseless_output(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {TILE * TILE - 1, UINT64_MAX, 0};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        submit_tile(0);
        start(bench.baton.slot);
        finish_with_labels(bench.baton.slot, sizes[i]);
        jobs_collect(&bench.jobs);
        assert_int_equal(bench.outcome.status, 500);
    }
    assert_int_equal(bench.answers, 3);
}

static void refuse(uint32_t slot, uint32_t status)
{
    static const char text[] = "{\"detail\":\"no\"}";
    struct queue_slot *entry = &bench.seat.queue.slots[slot];
    memcpy(queue_output(&bench.seat.queue, slot), text, sizeof text - 1);
    entry->status = status;
    entry->output_bytes = sizeof text - 1;
    move(slot, QUEUE_WORKER, QUEUE_DONE, 0);
}

static void test_refusal_and_failure(void **state)
{
    (void)state;
    submit_tile(0);
    start(bench.baton.slot);
    refuse(bench.baton.slot, 422);
    jobs_collect(&bench.jobs);
    assert_int_equal(bench.outcome.status, 422);
    assert_memory_equal(bench.outcome.body, "{\"detail\":\"no\"}", bench.outcome.size);
    submit_tile(0);
    start(bench.baton.slot);
    refuse(bench.baton.slot, 302);
    jobs_collect(&bench.jobs);
    assert_int_equal(bench.outcome.status, 500);
    submit_tile(0);
    start(bench.baton.slot);
    move(bench.baton.slot, QUEUE_WORKER, QUEUE_FAILED, 0);
    jobs_collect(&bench.jobs);
    assert_int_equal(bench.outcome.status, 500);
    assert_int_equal(bench.answers, 3);
}

/* A worker that dies of the job: once more, then enough, worded as what it is. */
static void test_deaths(void **state)
{
    (void)state;
    submit_tile(0);
    uint32_t slot = bench.baton.slot;
    for (int death = 1; death <= QUEUE_MAX_ATTEMPTS; death++) {
        start(slot);
        queue_process_leave(&bench.seat.queue, bench.worker, true);
        queue_apply_standing_rules(&bench.seat.queue);
        jobs_check(&bench.jobs);
        assert_int_equal(bench.answers, death == QUEUE_MAX_ATTEMPTS);
        assert_int_equal(queue_process_enter(&bench.seat.queue, QUEUE_WORKER, 1, &bench.worker), 0);
    }
    assert_int_equal(bench.outcome.status, 500);
    assert_memory_equal(bench.outcome.body,
                        "{\"detail\":\"The model crashed or hung on this input 2 times\"}",
                        bench.outcome.size);
}

static void wait_past(uint64_t moment_ns)
{
    while (queue_now_ns() <= moment_ns)
        ;
}

static void test_deadline_in_the_queue(void **state)
{
    (void)state;
    bench.config.models[0].timeout_ms = 1;
    submit_tile(0);
    wait_past(atomic_load(&bench.seat.queue.slots[bench.baton.slot].deadline_ns));
    jobs_check(&bench.jobs);
    assert_int_equal(bench.answers, 1);
    assert_int_equal(bench.outcome.status, 504);
    assert_memory_equal(bench.outcome.body, "{\"detail\":\"Request timed out\"}",
                        bench.outcome.size);
    assert_int_equal(slots_in(QUEUE_FREE), bench.seat.queue.slot_count);
}

/* Given to a worker that is busy with something else: that is still the queue. */
/* The model becomes another one, and then the last worker of the old one dies. */
static void test_last_worker_of_a_generation(void **state)
{
    (void)state;
    struct queue *queue = &bench.seat.queue;
    uint16_t fresh;
    struct unetserve_interface interface;
    uint32_t generation;
    assert_int_equal(queue_model_read(queue, 0, &interface, &generation), 0);
    atomic_store(&queue->processes[bench.worker].model_generation, generation);
    (void)submit_tile(0);
    assert_int_equal(queue_process_enter(queue, QUEUE_WORKER, 2, &fresh), 0);
    atomic_store(&queue->processes[fresh].model_generation, generation + 1);
    assert_int_equal(queue_model_publish(queue, 0, generation + 1, fresh, &interface), 0);
    jobs_collect(&bench.jobs);
    assert_int_equal(slots_in(QUEUE_READY), 1); /* there is one that will take it */
    assert_int_equal(bench.outcome.status, 0);
    queue_process_leave(queue, bench.worker, false);
    jobs_collect(&bench.jobs);
    assert_int_equal(bench.outcome.status, 503);
    assert_non_null(strstr(bench.outcome.body, "send it again"));
}

static void test_deadline_while_leased(void **state)
{
    (void)state;
    bench.config.models[0].timeout_ms = 1;
    submit_tile(0);
    uint32_t slot = bench.baton.slot;
    move(slot, QUEUE_BROKER, QUEUE_LEASED, bench.worker);
    wait_past(atomic_load(&bench.seat.queue.slots[slot].deadline_ns));
    jobs_check(&bench.jobs);
    assert_int_equal(bench.answers, 1);
    assert_int_equal(bench.outcome.status, 504);
    assert_true(queue_cancelled(&bench.seat.queue, slot,
                                queue_word_generation(queue_word(&bench.seat.queue, slot))));
    move(slot, QUEUE_BROKER, QUEUE_READY, 0);
    jobs_collect(&bench.jobs);
    assert_int_equal(bench.answers, 1);
}

/* Its worker came to it after the deadline and gave it back before the gateway looked. */
static void test_started_too_late(void **state)
{
    (void)state;
    bench.config.models[0].timeout_ms = 1;
    submit_tile(0);
    uint32_t slot = bench.baton.slot;
    wait_past(atomic_load(&bench.seat.queue.slots[slot].deadline_ns));
    start(slot);
    move(slot, QUEUE_WORKER, QUEUE_FAILED, 0);
    jobs_check(&bench.jobs);
    assert_int_equal(bench.answers, 1);
    assert_int_equal(bench.outcome.status, 504);
}

/* A job that runs is not cut short by the queue's deadline, but by its own; its slot comes back
 * later. */
static void test_deadline_while_running(void **state)
{
    (void)state;
    bench.config.models[0].timeout_ms = 1;
    bench.config.models[0].run_timeout_ms = 3600000;
    submit_tile(0);
    uint32_t slot = bench.baton.slot;
    start(slot);
    struct queue_slot *entry = &bench.seat.queue.slots[slot];
    wait_past(atomic_load(&entry->deadline_ns));
    jobs_check(&bench.jobs);
    assert_int_equal(bench.answers, 0);
    atomic_store(&entry->run_timeout_ns, 1);
    wait_past(atomic_load(&entry->started_ns) + 1);
    jobs_check(&bench.jobs);
    assert_int_equal(bench.answers, 1);
    assert_int_equal(bench.outcome.status, 504);
    assert_true(queue_cancelled(&bench.seat.queue, slot,
                                queue_word_generation(queue_word(&bench.seat.queue, slot))));
    assert_int_equal(bench.jobs.waiting_count, 1);
    move(slot, QUEUE_WORKER, QUEUE_FAILED, 0);
    jobs_collect(&bench.jobs);
    assert_int_equal(bench.answers, 1);
}

static void test_timeout_of_the_request(void **state)
{
    (void)state;
    submit_tile(1);
    uint32_t slot = bench.baton.slot;
    start(slot);
    wait_past(atomic_load(&bench.seat.queue.slots[slot].deadline_ns));
    jobs_check(&bench.jobs);
    assert_int_equal(bench.outcome.status, 504);
    finish_with_labels(slot, TILE * TILE);
    jobs_check(&bench.jobs);
    assert_int_equal(bench.answers, 1);
}

/* The client leaves at every stage of the job; nobody is told anything. */
static void test_drop(void **state)
{
    (void)state;
    struct problem problem = {0};
    job_drop(open_tile(0, &problem));
    assert_int_equal(slots_in(QUEUE_FREE), bench.seat.queue.slot_count);
    job_drop(submit_tile(0));
    assert_int_equal(slots_in(QUEUE_FREE), bench.seat.queue.slot_count);
    struct job *job = submit_tile(0);
    uint32_t slot = bench.baton.slot;
    move(slot, QUEUE_BROKER, QUEUE_LEASED, bench.worker);
    job_drop(job);
    assert_int_equal(slots_in(QUEUE_LEASED), 1);
    move(slot, QUEUE_BROKER, QUEUE_READY,
         0); /* the broker takes it back: nobody may start it again */
    jobs_check(&bench.jobs);
    assert_int_equal(slots_in(QUEUE_FREE), bench.seat.queue.slot_count);
    job = submit_tile(0);
    slot = bench.baton.slot;
    start(slot);
    finish_with_labels(slot, TILE * TILE);
    job_drop(job);
    assert_int_equal(bench.answers, 0);
}

static void test_slots_run_out(void **state)
{
    (void)state;
    struct problem problem = {0};
    struct job *jobs[SLOTS + 1];
    for (int i = 0; i < SLOTS + 1; i++) {
        jobs[i] = open_tile(0, &problem);
        assert_non_null(jobs[i]);
    }
    assert_null(open_tile(0, &problem));
    assert_int_equal(problem.status, 503);
    for (int i = 0; i < SLOTS + 1; i++)
        job_drop(jobs[i]);
}

static struct job *open_json(uint64_t body_bytes, struct problem *problem)
{
    struct model_view *view = models_view(&bench.models, 0);
    const struct job_order order = {.view = view,
                                    .format = BODY_JSON,
                                    .body_bytes = body_bytes,
                                    .form = JOB_JSON,
                                    .request_id = "two",
                                    .begun_ns = queue_now_ns()};
    struct job *job = NULL;
    int refused = job_open(&bench.jobs, &order, take_answer, &bench, problem, &job);
    model_view_drop(view);
    return refused ? NULL : job;
}

/* {"image": C x side x side}, all of them 7. */
static size_t write_json(char *text, int side)
{
    char *at = text + sprintf(text, "{\"image\":[");
    for (int c = 0; c < CHANNELS; c++) {
        at += sprintf(at, c ? ",[" : "[");
        for (int y = 0; y < side; y++)
            for (int x = 0; x < side; x++)
                at += sprintf(at, "%s7%s", x ? "," : y ? ",[" : "[", x == side - 1 ? "]" : "");
        *at++ = ']';
    }
    at += sprintf(at, "]}");
    return (size_t)(at - text);
}

/* A body whose size nobody knew begins in a small slot and moves to a larger one, with what it has.
 */
static void test_growing(void **state)
{
    (void)state;
    static char text[65536];
    struct problem problem = {0};
    size_t size = write_json(text, 64);
    struct job *job = open_json(UINT64_MAX, &problem);
    assert_non_null(job);
    for (size_t at = 0; at < size; at += 1000)
        assert_int_equal(job_feed(job, text + at, size - at < 1000 ? size - at : 1000, &problem),
                         0);
    assert_int_equal(job_submit(job, &problem), 0);
    jobs_pass_on(&bench.jobs);
    uint32_t slot = bench.baton.slot;
    assert_int_equal(slot, SLOTS);
    assert_int_equal(atomic_load(&bench.seat.queue.slots[slot].model_generation), 1);
    const float *values = queue_input(&bench.seat.queue, slot);
    for (int i = 0; i < CHANNELS * 64 * 64; i++)
        assert_true(values[i] == 7);
    assert_int_equal(bench.seat.queue.slots[slot].input_bytes, CHANNELS * 64 * 64 * 4);
    assert_int_equal(slots_in(QUEUE_FREE), SLOTS);
    job_drop(job);

    size = write_json(text, 100); /* 80000 bytes: larger than any slot */
    job = open_json(UINT64_MAX, &problem);
    assert_int_equal(job_feed(job, text, size, &problem), -1);
    assert_int_equal(problem.status, 413);
    job_drop(job);
}

/* float64 takes half as much in the slot as on the wire: a tensor that fits must not be refused by
 * its announced size. */
static void test_float64_fits(void **state)
{
    (void)state;
    struct problem problem = {0};
    struct model_view *view = models_view(&bench.models, 0);
    const struct unetserve_shape shape = {UNETSERVE_F64, 3, {CHANNELS, 80, 80}};
    const uint64_t bytes = CHANNELS * 80 * 80 * 8;
    assert_true(bytes > queue_largest_input(&bench.seat.queue));
    struct job_order order = {.view = view,
                              .format = BODY_RAW,
                              .shape = &shape,
                              .body_bytes = bytes,
                              .form = JOB_TENSOR,
                              .request_id = "four",
                              .begun_ns = queue_now_ns()};
    struct job *job;
    assert_int_equal(job_open(&bench.jobs, &order, take_answer, &bench, &problem, &job), 0);
    job_drop(job);
    order.format = BODY_NPY;
    order.body_bytes = bytes + 128;
    assert_int_equal(job_open(&bench.jobs, &order, take_answer, &bench, &problem, &job), 0);
    job_drop(job);
    order.body_bytes = 2 * queue_largest_input(&bench.seat.queue) + 128;
    assert_int_equal(job_open(&bench.jobs, &order, take_answer, &bench, &problem, &job), -1);
    assert_int_equal(problem.status, 413);
    model_view_drop(view);
}

static void test_documents(void **state)
{
    (void)state;
    struct problem problem = {0};
    struct model_view *view = models_view(&bench.models, 1);
    struct job_order order = {.view = view,
                              .format = BODY_DOCUMENT,
                              .body_bytes = 5,
                              .form = JOB_PNG,
                              .request_id = "three",
                              .begun_ns = queue_now_ns()};
    struct job *job;
    assert_int_equal(job_open(&bench.jobs, &order, take_answer, &bench, &problem, &job), 0);
    assert_int_equal(job_feed(job, "hello", 5, &problem), 0);
    assert_int_equal(job_submit(job, &problem), 0);
    jobs_pass_on(&bench.jobs);
    uint32_t slot = bench.baton.slot;
    assert_memory_equal(queue_input(&bench.seat.queue, slot), "hello", 5);
    start(slot);
    refuse(slot, 200);
    jobs_collect(&bench.jobs);
    assert_int_equal(bench.outcome.status, 200);
    assert_string_equal(bench.outcome.type, "application/json");
    order.body_bytes = 1u << 20;
    assert_int_equal(job_open(&bench.jobs, &order, take_answer, &bench, &problem, &job), -1);
    assert_int_equal(problem.status, 413);
    model_view_drop(view);
}

#define JOB_TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        JOB_TEST(test_upload_is_told),
        JOB_TEST(test_handed_over),
        JOB_TEST(test_answer),
        JOB_TEST(test_senseless_output),
        JOB_TEST(test_refusal_and_failure),
        JOB_TEST(test_deaths),
        JOB_TEST(test_deadline_in_the_queue),
        JOB_TEST(test_deadline_while_running),
        JOB_TEST(test_last_worker_of_a_generation),
        JOB_TEST(test_deadline_while_leased),
        JOB_TEST(test_started_too_late),
        JOB_TEST(test_timeout_of_the_request),
        JOB_TEST(test_drop),
        JOB_TEST(test_slots_run_out),
        JOB_TEST(test_growing),
        JOB_TEST(test_float64_fits),
        JOB_TEST(test_documents),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
