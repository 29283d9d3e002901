/*
 * The worker's job loop over a real queue in one process, with a little plugin whose behaviour each
 * job's first byte chooses.
 */
#include "unetserve/handover.h"
#include "unetserve/log.h"
#include "workers/flight.h"
#include "workers/job.h"
#include "workers/run.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- the plugin ---- */

enum act {
    ACT_ANSWER,         /* the input's bytes plus one */
    ACT_REFUSE,         /* in predict */
    ACT_REFUSE_EARLY,   /* in decode_request */
    ACT_BREAK_DECODE,   /* decode_request returns an error */
    ACT_BREAK,          /* predict returns an error */
    ACT_BREAK_ENCODE,   /* encode_response returns an error */
    ACT_CLAIM_TOO_MUCH, /* more output than there is room for */
    ACT_WRONG_SHAPE,
    ACT_WRONG_STATUS,
    ACT_EMPTY_REFUSAL,
    ACT_LOSE_DEVICE,
    ACT_BE_CANCELLED, /* its client leaves while it runs */
    ACT_LATER,        /* pending */
};

struct calls {
    size_t predicts;
    size_t sizes[16]; /* of the batches, in order */
    size_t kept;      /* items decoded and not yet released */
    struct unetserve_item *later[16];
    size_t later_count;
    size_t told;  /* items of which nobody wants to hear any more */
    size_t asked; /* how many to run together, of so many */
    uint32_t waited[16];
    struct queue *queue;
};

static const char refusal[] = "{\"detail\":\"no\"}";

static enum act act_of(const struct unetserve_item *item)
{
    return (enum act)((const uint8_t *)item->input)[0];
}

static void write_refusal(struct unetserve_item *item, uint32_t status)
{
    item->status = status;
    item->output_bytes = sizeof refusal - 1;
    memcpy(item->output, refusal, sizeof refusal - 1);
}

static int little_decode(void *model, struct unetserve_item *item)
{
    struct calls *calls = model;
    assert_null(item->user);
    assert_int_equal(item->status, 200);
    if (act_of(item) == ACT_BREAK_DECODE)
        return -EINVAL;
    if (act_of(item) == ACT_REFUSE_EARLY) {
        write_refusal(item, 422);
        return 0;
    }
    item->user = calls; /* stands for something that encode_response has to free */
    calls->kept++;
    return 0;
}

static void answer(struct unetserve_item *item)
{
    const uint8_t *in = item->input;
    uint8_t *out = item->output;
    for (size_t i = 0; i < 4; i++)
        out[i] = (uint8_t)(in[i] + 1);
    item->output_bytes = 4;
    item->output_shape = (struct unetserve_shape){UNETSERVE_U8, 2, {2, 2}};
}

static void predict_one(struct calls *calls, struct unetserve_item *item)
{
    answer(item);
    switch (act_of(item)) {
    case ACT_REFUSE: write_refusal(item, 400); break;
    case ACT_CLAIM_TOO_MUCH: item->output_bytes = item->output_capacity + 1; break;
    case ACT_WRONG_SHAPE: item->output_shape.dims[0] = 3; break;
    case ACT_WRONG_STATUS: item->status = 600; break;
    case ACT_EMPTY_REFUSAL:
        item->status = 404;
        item->output_bytes = 0;
        break;
    case ACT_BE_CANCELLED:
        for (uint32_t slot = 0; slot < calls->queue->slot_count; slot++) {
            uint64_t word = queue_word(calls->queue, slot);
            if (queue_word_state(word) == QUEUE_RUN)
                queue_cancel(calls->queue, slot, queue_word_generation(word));
        }
        break;
    default: break;
    }
}

static int little_predict(void *model, struct unetserve_item *const *items, size_t count)
{
    struct calls *calls = model;
    calls->sizes[calls->predicts++] = count;
    for (size_t i = 0; i < count; i++) {
        if (act_of(items[i]) == ACT_BREAK)
            return -ENOMEM;
        if (act_of(items[i]) == ACT_LOSE_DEVICE)
            return -EIO;
    }
    for (size_t i = 0; i < count; i++)
        predict_one(calls, items[i]);
    if (act_of(items[0]) != ACT_LATER)
        return 0;
    for (size_t i = 0; i < count; i++)
        calls->later[calls->later_count++] = items[i];
    return UNETSERVE_PENDING;
}

static void little_cancel(void *model, struct unetserve_item *item)
{
    struct calls *calls = model;
    assert_int_equal(act_of(item), ACT_LATER);
    calls->told++;
}

static int little_encode(void *model, struct unetserve_item *item)
{
    struct calls *calls = model;
    assert_non_null(item->user);
    item->user = NULL;
    calls->kept--;
    return item->status == 200 && act_of(item) == ACT_BREAK_ENCODE ? -EINVAL : 0;
}

static const struct unetserve_model_ops little = {
    .abi = UNETSERVE_MODEL_ABI,
    .size = sizeof little,
    .name = "little",
    .decode_request = little_decode,
    .predict = little_predict,
    .encode_response = little_encode,
    .cancel = little_cancel,
};

/* ---- the scene ---- */

enum { GATEWAY_SEAT = 1, BROKER_SEAT = 2, WORKER_SEAT = 3 };

struct scene {
    struct queue queue;
    struct seat seat;
    struct worker worker;
    struct calls calls;
    uint16_t gateway;
    uint16_t broker;
    uint64_t clock; /* of accepted_ns */
};

static const struct unetserve_shape image = {UNETSERVE_U8, 3, {1, 2, 2}};
static const struct unetserve_shape wide_image = {UNETSERVE_U8, 3, {1, 2, 4}};
static const struct unetserve_shape three_images = {UNETSERVE_U8, 4, {3, 1, 2, 2}};

static void begin_with(struct scene *scene, uint32_t max_batch, uint32_t slots)
{
    struct queue_geometry geometry = {
        .class_count = 1, .model_count = 1, .classes = {{4096, 4096, slots, 0}}};
    memset(scene, 0, sizeof *scene);
    assert_int_equal(queue_create(&geometry, &scene->queue), 0);
    uint16_t self;
    assert_int_equal(
        queue_process_enter(&scene->queue, QUEUE_GATEWAY, GATEWAY_SEAT, &scene->gateway), 0);
    assert_int_equal(queue_process_enter(&scene->queue, QUEUE_BROKER, BROKER_SEAT, &scene->broker),
                     0);
    assert_int_equal(queue_process_enter(&scene->queue, QUEUE_WORKER, WORKER_SEAT, &self), 0);
    scene->seat = (struct seat){WORKER_SEAT, self, QUEUE_WORKER, scene->queue, -1};
    atomic_store(&scene->queue.processes[self].model_generation, 1);
    scene->calls.queue = &scene->queue;
    worker_init(&scene->worker, &scene->seat, 0, 1);
    scene->worker.ops = &little;
    scene->worker.instance = &scene->calls;
    scene->worker.interface = (struct unetserve_interface){
        .name = "little",
        .input_kind = UNETSERVE_TENSOR,
        .output_kind = UNETSERVE_TENSOR,
        .input_dtypes = 1u << UNETSERVE_U8,
        .channels = 1,
        .size_multiple = 2,
        .size_min = 2,
        .max_batch = max_batch,
        .output_dtype = UNETSERVE_U8,
    };
    for (int seat = GATEWAY_SEAT; seat <= BROKER_SEAT; seat++) {
        int fd = eventfd(0, EFD_NONBLOCK);
        assert_int_equal(dup2(fd, SEAT_FD_EVENT + seat), SEAT_FD_EVENT + seat);
        close(fd);
    }
}

static void begin(struct scene *scene, uint32_t max_batch)
{
    begin_with(scene, max_batch, 12);
}

static void end(struct scene *scene)
{
    assert_int_equal(scene->calls.kept, 0);
    close(SEAT_FD_EVENT + GATEWAY_SEAT);
    close(SEAT_FD_EVENT + BROKER_SEAT);
    queue_close(&scene->queue);
}

static uint64_t wakes(int seat)
{
    uint64_t count = 0;
    return read(SEAT_FD_EVENT + seat, &count, sizeof count) == sizeof count ? count : 0;
}

/* A job as a gateway leaves it in READY. */
static uint32_t submit(struct scene *scene, const struct unetserve_shape *shape, enum act act)
{
    uint32_t slot;
    uint64_t word;
    assert_int_equal(queue_reserve(&scene->queue, scene->gateway, 64, 64, &slot, &word), 0);
    struct queue_slot *fields = &scene->queue.slots[slot];
    atomic_store(&fields->model, 0);
    atomic_store(&fields->model_generation, 1);
    atomic_store(&fields->priority, 0);
    atomic_store(&fields->accepted_ns, ++scene->clock);
    atomic_store(&fields->deadline_ns, 0);
    fields->input_shape = *shape;
    assert_int_equal(unetserve_shape_bytes(shape, &fields->input_bytes), 0);
    memset(queue_input(&scene->queue, slot), (int)act, fields->input_bytes);
    snprintf(fields->request_id, sizeof fields->request_id, "test");
    assert_true(queue_move(&scene->queue, QUEUE_GATEWAY, slot, word, QUEUE_READY, 0, NULL));
    return slot;
}

static void lease(struct scene *scene, uint32_t slot)
{
    assert_true(queue_move(&scene->queue, QUEUE_BROKER, slot, queue_word(&scene->queue, slot),
                           QUEUE_LEASED, scene->seat.index, NULL));
}

static uint32_t submit_leased(struct scene *scene, const struct unetserve_shape *shape,
                              enum act act)
{
    uint32_t slot = submit(scene, shape, act);
    lease(scene, slot);
    return slot;
}

static void expect(const struct scene *scene, uint32_t slot, enum queue_state state)
{
    assert_string_equal(queue_state_name(queue_word_state(queue_word(&scene->queue, slot))),
                        queue_state_name(state));
}

static void expect_answer(const struct scene *scene, uint32_t slot, uint32_t batch)
{
    static const uint8_t answered[] = {1, 1, 1, 1};
    const struct queue_slot *fields = &scene->queue.slots[slot];
    expect(scene, slot, QUEUE_DONE);
    assert_int_equal(fields->status, 200);
    assert_int_equal(fields->output_bytes, 4);
    assert_int_equal(fields->output_shape.rank, 2);
    assert_int_equal(fields->batch, batch);
    assert_true(fields->finished_ns >= fields->started_ns && fields->started_ns > 0);
    assert_memory_equal(queue_output(&scene->queue, slot), answered, 4);
}

static void expect_refusal(const struct scene *scene, uint32_t slot, uint32_t status)
{
    const struct queue_slot *fields = &scene->queue.slots[slot];
    expect(scene, slot, QUEUE_DONE);
    assert_int_equal(fields->status, status);
    assert_int_equal(fields->output_bytes, sizeof refusal - 1);
    assert_int_equal(fields->output_shape.rank, 0);
    assert_memory_equal(queue_output(&scene->queue, slot), refusal, sizeof refusal - 1);
}

/* ---- tests ---- */

static void nothing_leased_is_nothing_done(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 4);
    struct run_result result = run_next(&scene.worker);
    assert_int_equal(result.jobs, 0);
    assert_false(result.waiting);
    assert_int_equal(wakes(BROKER_SEAT), 0);
    uint32_t slot = submit(&scene, &image, ACT_ANSWER);
    result = run_next(&scene.worker);
    assert_int_equal(result.jobs, 0);
    assert_true(result.waiting);
    assert_int_equal(wakes(BROKER_SEAT), 1);
    expect(&scene, slot, QUEUE_READY);
    end(&scene);
}

/* The other worker runs a job since so long ago, and holds another one. That one's slot. */
static uint32_t other_is_stuck(struct scene *scene, uint64_t since_ns, uint32_t *running)
{
    uint16_t other;
    assert_int_equal(queue_process_enter(&scene->queue, QUEUE_WORKER, WORKER_SEAT, &other), 0);
    atomic_store(&scene->queue.processes[other].model_generation, 1);
    atomic_store(&scene->queue.processes[other].ready, 1);
    uint32_t slot = 0;
    for (int i = 0; i < 2; i++) {
        slot = submit(scene, &image, ACT_ANSWER);
        uint64_t word = queue_word(&scene->queue, slot);
        assert_true(
            queue_move(&scene->queue, QUEUE_BROKER, slot, word, QUEUE_LEASED, other, &word));
        if (i > 0)
            break;
        assert_true(queue_move(&scene->queue, QUEUE_WORKER, slot, word, QUEUE_RUN, other, NULL));
        atomic_store(&scene->queue.slots[slot].started_ns, queue_now_ns() - since_ns);
        *running = slot;
    }
    return slot;
}

/* That alone may take back what waits at another worker. */
static void who_is_idle_while_jobs_are_stuck_at_others_wakes_the_broker(void **state)
{
    (void)state;
    struct scene scene;
    uint32_t running;
    begin(&scene, 1);
    uint32_t slot = other_is_stuck(&scene, HANDOVER_PATIENCE_NS, &running);
    assert_int_equal(run_next(&scene.worker).look_ns, 0);
    assert_int_equal(wakes(BROKER_SEAT), 1);
    /* Not who has something to do, until that is done. */
    submit_leased(&scene, &image, ACT_ANSWER);
    assert_int_equal(run_next(&scene.worker).jobs, 1);
    assert_int_equal(wakes(BROKER_SEAT), 0);
    assert_int_equal(run_next(&scene.worker).jobs, 0);
    assert_int_equal(wakes(BROKER_SEAT), 1);
    /* Nor for jobs of another model or generation, or those that are about to run. */
    atomic_store(&scene.queue.slots[slot].model_generation, 2);
    assert_int_equal(run_next(&scene.worker).look_ns, 0);
    atomic_store(&scene.queue.slots[slot].model_generation, 1);
    atomic_store(&scene.queue.slots[slot].model, 1);
    assert_int_equal(run_next(&scene.worker).look_ns, 0);
    atomic_store(&scene.queue.slots[slot].model, 0);
    assert_true(queue_move(&scene.queue, QUEUE_WORKER, running, queue_word(&scene.queue, running),
                           QUEUE_DONE, 0, NULL));
    assert_int_equal(run_next(&scene.worker).look_ns, 0);
    assert_int_equal(wakes(BROKER_SEAT), 0);
    end(&scene);
}

static void a_moment_later_the_idle_one_looks_again(void **state)
{
    (void)state;
    struct scene scene;
    uint32_t running;
    begin(&scene, 1);
    other_is_stuck(&scene, 0, &running);
    atomic_store(&scene.queue.slots[running].started_ns, 0);
    uint64_t before_ns = queue_now_ns();
    uint64_t look_ns = run_next(&scene.worker).look_ns;
    assert_in_range(look_ns, before_ns + HANDOVER_PATIENCE_NS,
                    queue_now_ns() + HANDOVER_PATIENCE_NS);
    assert_int_equal(wakes(BROKER_SEAT), 0);
    atomic_store(&scene.queue.slots[running].started_ns, before_ns - HANDOVER_PATIENCE_NS);
    assert_int_equal(run_next(&scene.worker).look_ns, 0);
    assert_int_equal(wakes(BROKER_SEAT), 1);
    end(&scene);
}

static void a_job_is_answered_and_its_gateway_woken(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 4);
    uint32_t slot = submit_leased(&scene, &image, ACT_ANSWER);
    assert_int_equal(run_next(&scene.worker).jobs, 1);
    expect_answer(&scene, slot, 1);
    assert_int_equal(wakes(GATEWAY_SEAT), 1);
    const struct queue_process *self = &scene.queue.processes[scene.seat.index];
    assert_int_equal(self->jobs, 1);
    assert_true(self->tick > 0);
    end(&scene);
}

static void equal_shapes_run_together_up_to_the_limit(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 3);
    uint32_t slots[5];
    for (int i = 0; i < 5; i++)
        slots[i] = submit_leased(&scene, &image, ACT_ANSWER);
    assert_int_equal(run_next(&scene.worker).jobs, 3);
    for (int i = 0; i < 3; i++)
        expect_answer(&scene, slots[i], 3);
    expect(&scene, slots[3], QUEUE_LEASED);
    assert_int_equal(run_next(&scene.worker).jobs, 2);
    expect_answer(&scene, slots[4], 2);
    assert_int_equal(scene.calls.predicts, 2);
    end(&scene);
}

static void other_shapes_wait_for_their_turn(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 4);
    uint32_t first = submit_leased(&scene, &image, ACT_ANSWER);
    uint32_t other = submit_leased(&scene, &wide_image, ACT_ANSWER);
    uint32_t third = submit_leased(&scene, &image, ACT_ANSWER);
    assert_int_equal(run_next(&scene.worker).jobs, 2);
    expect_answer(&scene, first, 2);
    expect_answer(&scene, third, 2);
    expect(&scene, other, QUEUE_LEASED);
    assert_int_equal(run_next(&scene.worker).jobs, 1);
    expect(&scene, other, QUEUE_DONE);
    end(&scene);
}

static void the_limit_counts_tiles(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 7);
    for (int i = 0; i < 3; i++)
        submit_leased(&scene, &three_images, ACT_ANSWER);
    assert_int_equal(run_next(&scene.worker).jobs, 2);
    assert_int_equal(run_next(&scene.worker).jobs, 1);
    scene.worker.interface.max_batch = 2;
    submit_leased(&scene, &three_images, ACT_ANSWER);
    assert_int_equal(run_next(&scene.worker).jobs, 1);
    end(&scene);
}

/* A model that likes two at once, and says so when it has been asked twice. */
static uint32_t two_together(void *model, const struct unetserve_shape *shape, uint32_t waiting,
                             bool *settled)
{
    struct calls *calls = model;
    assert_int_equal(shape->dims[shape->rank - 1], 2);
    calls->waited[calls->asked++] = waiting;
    *settled = calls->asked == 2;
    return calls->asked == 4 ? 1000 : 2;
}

static void a_model_may_like_fewer_at_once(void **state)
{
    (void)state;
    struct scene scene;
    struct unetserve_model_ops picky = little;
    picky.together = two_together;
    begin(&scene, 6);
    scene.worker.ops = &picky;
    const struct queue_process *self = &scene.queue.processes[scene.seat.index];
    for (int i = 0; i < 5; i++)
        submit_leased(&scene, &image, ACT_ANSWER);
    submit_leased(&scene, &three_images, ACT_ANSWER);
    submit_leased(&scene, &wide_image, ACT_ANSWER);
    assert_int_equal(run_next(&scene.worker).jobs, 2);
    assert_int_equal(self->batch, 0);
    assert_int_equal(run_next(&scene.worker).jobs, 2);
    assert_int_equal(self->batch, 2);
    assert_int_equal(run_next(&scene.worker).jobs, 1);
    assert_int_equal(scene.calls.waited[0], 5);
    assert_int_equal(scene.calls.waited[1], 3);
    assert_int_equal(scene.calls.waited[2], 1);
    /* No request is cut, and the limit stays. */
    for (int i = 0; i < 2; i++)
        submit_leased(&scene, &three_images, ACT_ANSWER);
    assert_int_equal(run_next(&scene.worker).jobs, 2);
    assert_int_equal(scene.calls.waited[3], 9);
    assert_int_equal(self->batch, 0);
    end(&scene);
}

static void priority_and_age_decide_who_is_first(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 1);
    uint32_t young = submit_leased(&scene, &image, ACT_ANSWER);
    uint32_t old = submit_leased(&scene, &image, ACT_ANSWER);
    uint32_t urgent = submit_leased(&scene, &image, ACT_ANSWER);
    atomic_store(&scene.queue.slots[young].accepted_ns, 100);
    atomic_store(&scene.queue.slots[urgent].priority, 5);
    run_next(&scene.worker);
    expect(&scene, urgent, QUEUE_DONE);
    expect(&scene, old, QUEUE_LEASED);
    run_next(&scene.worker);
    expect(&scene, old, QUEUE_DONE);
    expect(&scene, young, QUEUE_LEASED);
    end(&scene);
}

static void refusals_carry_status_and_document(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 4);
    uint32_t late = submit_leased(&scene, &image, ACT_REFUSE);
    uint32_t good = submit_leased(&scene, &image, ACT_ANSWER);
    uint32_t early = submit_leased(&scene, &image, ACT_REFUSE_EARLY);
    assert_int_equal(run_next(&scene.worker).jobs, 3);
    expect_refusal(&scene, late, 400);
    expect_refusal(&scene, early, 422);
    expect_answer(&scene, good, 3);
    assert_int_equal(scene.calls.predicts, 1);
    assert_int_equal(scene.calls.sizes[0], 2);
    end(&scene);
}

static void one_bad_job_does_not_fail_its_batch(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 4);
    uint32_t first = submit_leased(&scene, &image, ACT_ANSWER);
    uint32_t bad = submit_leased(&scene, &image, ACT_BREAK);
    uint32_t last = submit_leased(&scene, &image, ACT_ANSWER);
    assert_int_equal(run_next(&scene.worker).jobs, 3);
    expect_answer(&scene, first, 1);
    expect(&scene, bad, QUEUE_FAILED);
    expect_answer(&scene, last, 1);
    assert_int_equal(scene.calls.predicts, 4);
    assert_int_equal(wakes(GATEWAY_SEAT), 1); /* for all: it has not looked in between */
    end(&scene);
}

static void broken_answers_fail_and_overrun_nothing(void **state)
{
    (void)state;
    static const enum act acts[] = {ACT_BREAK,        ACT_BREAK_DECODE, ACT_BREAK_ENCODE,
                                    ACT_WRONG_SHAPE,  ACT_WRONG_STATUS, ACT_CLAIM_TOO_MUCH,
                                    ACT_EMPTY_REFUSAL};
    for (size_t i = 0; i < sizeof acts / sizeof *acts; i++) {
        struct scene scene;
        begin(&scene, 4);
        uint32_t bad = submit_leased(&scene, &image, acts[i]);
        uint32_t good = submit_leased(&scene, &image, ACT_ANSWER);
        assert_int_equal(run_next(&scene.worker).jobs, 2);
        expect(&scene, bad, QUEUE_FAILED);
        expect(&scene, good, QUEUE_DONE);
        end(&scene);
    }
}

static void a_job_with_a_death_on_it_runs_alone(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 4);
    uint32_t killer = submit_leased(&scene, &image, ACT_ANSWER);
    uint64_t word = queue_word(&scene.queue, killer);
    atomic_store(&scene.queue.slots[killer].word, word | UINT64_C(1) << 24);
    uint32_t good = submit_leased(&scene, &image, ACT_ANSWER);
    uint32_t better = submit_leased(&scene, &image, ACT_ANSWER);
    assert_int_equal(run_next(&scene.worker).jobs, 1);
    expect_answer(&scene, killer, 1);
    assert_int_equal(run_next(&scene.worker).jobs, 2);
    expect_answer(&scene, good, 2);
    expect_answer(&scene, better, 2);
    end(&scene);
}

static void a_death_keeps_a_younger_job_out_of_the_batch_too(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 4);
    uint32_t good = submit_leased(&scene, &image, ACT_ANSWER);
    uint32_t killed = submit_leased(&scene, &image, ACT_ANSWER);
    uint64_t word = queue_word(&scene.queue, killed);
    atomic_store(&scene.queue.slots[killed].word, word | UINT64_C(1) << 27);
    assert_int_equal(run_next(&scene.worker).jobs, 1);
    expect_answer(&scene, good, 1);
    expect(&scene, killed, QUEUE_LEASED);
    assert_int_equal(run_next(&scene.worker).jobs, 1);
    expect_answer(&scene, killed, 1);
    end(&scene);
}

static void cancelled_jobs_fail_without_being_run(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 4);
    uint32_t left = submit_leased(&scene, &image, ACT_ANSWER);
    uint32_t good = submit_leased(&scene, &image, ACT_ANSWER);
    queue_cancel(&scene.queue, left, queue_word_generation(queue_word(&scene.queue, left)));
    assert_int_equal(run_next(&scene.worker).jobs, 2);
    expect(&scene, left, QUEUE_FAILED);
    expect(&scene, good, QUEUE_DONE);
    assert_int_equal(scene.calls.sizes[0], 1);
    end(&scene);
}

static void a_job_cancelled_while_it_runs_fails(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 4);
    uint32_t slot = submit_leased(&scene, &image, ACT_BE_CANCELLED);
    assert_int_equal(run_next(&scene.worker).jobs, 1);
    expect(&scene, slot, QUEUE_FAILED);
    assert_int_equal(scene.calls.predicts, 1);
    end(&scene);
}

static void a_job_past_its_deadline_is_not_started(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 4);
    uint32_t late = submit(&scene, &image, ACT_ANSWER);
    atomic_store(&scene.queue.slots[late].deadline_ns, 1);
    lease(&scene, late);
    assert_int_equal(run_next(&scene.worker).jobs, 1);
    expect(&scene, late, QUEUE_FAILED);
    assert_int_equal(scene.calls.predicts, 0);
    end(&scene);
}

static void run_hostile(void (*spoil)(struct queue_slot *slot))
{
    struct scene scene;
    begin(&scene, 4);
    uint32_t bad = submit_leased(&scene, &image, ACT_ANSWER);
    uint32_t good = submit_leased(&scene, &image, ACT_ANSWER);
    spoil(&scene.queue.slots[bad]);
    run_next(&scene.worker);
    run_next(&scene.worker);
    expect(&scene, bad, QUEUE_FAILED);
    expect(&scene, good, QUEUE_DONE);
    end(&scene);
}

static void spoil_rank(struct queue_slot *slot)
{
    slot->input_shape.rank = UINT32_MAX;
}
static void spoil_no_rank(struct queue_slot *slot)
{
    slot->input_shape.rank = 0;
}
static void spoil_dims(struct queue_slot *slot)
{
    slot->input_shape.dims[1] = UINT64_C(1) << 62;
    slot->input_shape.dims[2] = 4;
}
static void spoil_dtype(struct queue_slot *slot)
{
    slot->input_shape.dtype = 0xffffff;
}
static void spoil_wrong_dtype(struct queue_slot *slot)
{
    slot->input_shape.dtype = UNETSERVE_I8;
}
static void spoil_channels(struct queue_slot *slot)
{
    slot->input_shape.dims[0] = 4;
    slot->input_shape.dims[1] = 1;
    slot->input_shape.dims[2] = 1;
}
static void spoil_odd_size(struct queue_slot *slot)
{
    slot->input_shape.dims[1] = 4;
    slot->input_shape.dims[2] = 1;
}
static void spoil_length(struct queue_slot *slot)
{
    slot->input_bytes = UINT64_MAX;
}
static void spoil_short_length(struct queue_slot *slot)
{
    slot->input_bytes = 3;
}
static void spoil_empty_batch(struct queue_slot *slot)
{
    slot->input_shape = (struct unetserve_shape){UNETSERVE_U8, 4, {0, 1, 2, 2}};
    slot->input_bytes = 0;
}

static void lying_slots_fail_alone(void **state)
{
    (void)state;
    run_hostile(spoil_rank);
    run_hostile(spoil_no_rank);
    run_hostile(spoil_dims);
    run_hostile(spoil_dtype);
    run_hostile(spoil_wrong_dtype);
    run_hostile(spoil_channels);
    run_hostile(spoil_odd_size);
    run_hostile(spoil_length);
    run_hostile(spoil_short_length);
    run_hostile(spoil_empty_batch);
}

static void an_unterminated_request_id_is_cut(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 4);
    uint32_t slot = submit_leased(&scene, &image, ACT_BREAK);
    memset(scene.queue.slots[slot].request_id, 'x', QUEUE_ID_MAX);
    assert_int_equal(run_next(&scene.worker).jobs, 1);
    expect(&scene, slot, QUEUE_FAILED);
    end(&scene);
}

static void jobs_of_another_model_or_generation_are_left_alone(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 4);
    uint32_t other = submit_leased(&scene, &image, ACT_ANSWER);
    uint32_t old = submit_leased(&scene, &image, ACT_ANSWER);
    atomic_store(&scene.queue.slots[other].model, 7);
    atomic_store(&scene.queue.slots[old].model_generation, 2);
    assert_int_equal(run_next(&scene.worker).jobs, 0);
    expect(&scene, other, QUEUE_LEASED);
    expect(&scene, old, QUEUE_LEASED);
    end(&scene);
}

static void a_lost_device_leaves_its_jobs_to_the_supervisor(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 4);
    uint32_t first = submit_leased(&scene, &image, ACT_ANSWER);
    uint32_t second = submit_leased(&scene, &image, ACT_LOSE_DEVICE);
    run_next(&scene.worker);
    assert_true(scene.worker.device_lost);
    expect(&scene, first, QUEUE_RUN);
    expect(&scene, second, QUEUE_RUN);
    /* The process ends here; what the model kept for the items goes with it. */
    assert_int_equal(scene.calls.kept, 2);
    scene.calls.kept = 0;
    end(&scene);
}

static void a_lease_that_was_taken_back_is_left_alone(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 4);
    uint32_t slot = submit_leased(&scene, &image, ACT_ANSWER);
    struct job job;
    uint64_t word = queue_word(&scene.queue, slot);
    job_read(&scene.queue, slot, word, &job);
    assert_true(queue_move(&scene.queue, QUEUE_BROKER, slot, word, QUEUE_READY, 0, NULL));
    assert_false(job_start(&scene.queue, scene.seat.index, &job));
    expect(&scene, slot, QUEUE_READY);
    assert_int_equal(atomic_load(&scene.queue.slots[slot].started_ns), 0);
    end(&scene);
}

static void an_answer_reaches_a_gateway_that_began_to_stream(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 4);
    uint32_t slot = submit_leased(&scene, &image, ACT_ANSWER);
    struct job job;
    job_read(&scene.queue, slot, queue_word(&scene.queue, slot), &job);
    assert_true(job_start(&scene.queue, scene.seat.index, &job));
    job_reset_item(&job);
    answer(&job.item);
    assert_true(queue_move(&scene.queue, QUEUE_GATEWAY, slot, job.word, QUEUE_STREAM,
                           scene.seat.index, NULL));
    job_done(&scene.queue, &job);
    expect(&scene, slot, QUEUE_DONE);
    assert_int_equal(wakes(GATEWAY_SEAT), 1);
    end(&scene);
}

/* ---- answers that come later ---- */

static void complete(struct scene *scene, size_t i, int error)
{
    scene->worker.host.complete(&scene->worker.host, scene->calls.later[i], error);
}

/* Its input is all ACT_LATER, its answer one more than that. */
static void expect_later_answer(const struct scene *scene, uint32_t slot)
{
    expect(scene, slot, QUEUE_DONE);
    assert_int_equal(((const uint8_t *)queue_output(&scene->queue, slot))[0], ACT_LATER + 1);
}

static void pending_jobs_stay_in_run_until_they_are_completed(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 2);
    uint32_t slots[3];
    for (int i = 0; i < 3; i++)
        slots[i] = submit_leased(&scene, &image, ACT_LATER);
    assert_int_equal(run_next(&scene.worker).jobs, 2);
    assert_int_equal(run_next(&scene.worker).jobs, 1);
    assert_int_equal(run_next(&scene.worker).jobs, 0);
    assert_int_equal(worker_pending(&scene.worker), 3);
    /* Others go on meanwhile. */
    uint32_t other = submit_leased(&scene, &image, ACT_ANSWER);
    assert_int_equal(run_next(&scene.worker).jobs, 1);
    expect(&scene, other, QUEUE_DONE);
    complete(&scene, 1, 0);
    complete(&scene, 2, -EINVAL);
    assert_int_equal(run_next(&scene.worker).jobs, 2);
    expect(&scene, slots[0], QUEUE_RUN);
    expect_later_answer(&scene, slots[1]);
    expect(&scene, slots[2], QUEUE_FAILED);
    complete(&scene, 0, 0);
    assert_int_equal(run_next(&scene.worker).jobs, 1);
    expect_later_answer(&scene, slots[0]);
    assert_int_equal(worker_pending(&scene.worker), 0);
    end(&scene);
}

static void no_more_are_pending_than_the_model_takes(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 4);
    scene.worker.interface.max_pending = 2;
    uint32_t slots[3];
    for (int i = 0; i < 3; i++)
        slots[i] = submit_leased(&scene, &image, ACT_LATER);
    assert_int_equal(run_next(&scene.worker).jobs, 2);
    assert_int_equal(run_next(&scene.worker).jobs, 0);
    expect(&scene, slots[2], QUEUE_LEASED);
    complete(&scene, 0, 0);
    assert_int_equal(run_next(&scene.worker).jobs, 2); /* one ends, one begins */
    expect(&scene, slots[2], QUEUE_RUN);
    complete(&scene, 1, 0);
    complete(&scene, 2, 0);
    assert_int_equal(run_next(&scene.worker).jobs, 2);
    end(&scene);
}

/* A death by the job's fault on a slot in READY. */
static void die_on(struct scene *scene, uint32_t slot)
{
    uint16_t victim;
    assert_int_equal(queue_process_enter(&scene->queue, QUEUE_WORKER, 9, &victim), 0);
    assert_true(queue_move(&scene->queue, QUEUE_BROKER, slot, queue_word(&scene->queue, slot),
                           QUEUE_LEASED, victim, NULL));
    assert_true(queue_move(&scene->queue, QUEUE_WORKER, slot, queue_word(&scene->queue, slot),
                           QUEUE_RUN, victim, NULL));
    queue_process_leave(&scene->queue, victim, true);
    queue_apply_standing_rules(&scene->queue);
    expect(scene, slot, QUEUE_READY);
}

static void who_runs_alone_waits_for_the_pending_and_they_for_it(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 4);
    uint32_t first = submit_leased(&scene, &image, ACT_LATER);
    assert_int_equal(run_next(&scene.worker).jobs, 1);
    uint32_t alone = submit(&scene, &image, ACT_LATER);
    die_on(&scene, alone);
    lease(&scene, alone);
    assert_int_equal(run_next(&scene.worker).jobs, 0);
    expect(&scene, alone, QUEUE_LEASED);
    complete(&scene, 0, 0);
    assert_int_equal(run_next(&scene.worker).jobs, 2);
    expect_later_answer(&scene, first);
    expect(&scene, alone, QUEUE_RUN);
    uint32_t third = submit_leased(&scene, &image, ACT_ANSWER);
    assert_int_equal(run_next(&scene.worker).jobs, 0);
    complete(&scene, 1, 0);
    assert_int_equal(run_next(&scene.worker).jobs, 2);
    expect(&scene, third, QUEUE_DONE);
    end(&scene);
}

static void the_model_is_told_once_that_nobody_waits(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 4);
    uint32_t slot = submit_leased(&scene, &image, ACT_LATER);
    assert_int_equal(run_next(&scene.worker).jobs, 1);
    assert_int_equal(scene.calls.told, 0);
    queue_cancel(&scene.queue, slot, queue_word_generation(queue_word(&scene.queue, slot)));
    run_next(&scene.worker);
    run_next(&scene.worker);
    assert_int_equal(scene.calls.told, 1);
    expect(&scene, slot, QUEUE_RUN);
    complete(&scene, 0, 0);
    assert_int_equal(run_next(&scene.worker).jobs, 1);
    expect(&scene, slot, QUEUE_FAILED);
    assert_false(scene.worker.device_lost);
    end(&scene);
}

/* ---- a device that works by itself ---- */

static void begin_on_device(struct scene *scene, uint32_t max_batch)
{
    begin(scene, max_batch);
    scene->worker.interface.flags = UNETSERVE_ON_DEVICE;
}

static uint64_t busy_ns(const struct scene *scene)
{
    return atomic_load(&scene->queue.processes[scene->seat.index].busy_ns);
}

static void a_full_batch_is_put_behind_the_first_and_no_third(void **state)
{
    (void)state;
    struct scene scene;
    begin_on_device(&scene, 2);
    uint32_t slots[6];
    for (int i = 0; i < 6; i++)
        slots[i] = submit_leased(&scene, &image, ACT_LATER);
    assert_int_equal(run_next(&scene.worker).jobs, 2);
    assert_int_equal(run_next(&scene.worker).jobs, 2);
    assert_int_equal(flight_count(&scene.worker), 2);
    assert_int_equal(run_next(&scene.worker).jobs, 0);
    expect(&scene, slots[4], QUEUE_LEASED);
    for (size_t i = 0; i < 2; i++)
        complete(&scene, i, 0);
    assert_int_equal(flight_count(&scene.worker), 1);
    assert_int_equal(run_next(&scene.worker).jobs, 4); /* two begin before two are answered */
    for (int i = 0; i < 2; i++)
        expect_later_answer(&scene, slots[i]);
    for (int i = 2; i < 6; i++)
        expect(&scene, slots[i], QUEUE_RUN);
    for (size_t i = 2; i < 6; i++)
        complete(&scene, i, 0);
    assert_int_equal(run_next(&scene.worker).jobs, 4);
    for (int i = 2; i < 6; i++)
        expect_later_answer(&scene, slots[i]);
    assert_int_equal(flight_count(&scene.worker), 0);
    end(&scene);
}

static void a_batch_that_may_grow_waits_for_the_device(void **state)
{
    (void)state;
    struct scene scene;
    begin_on_device(&scene, 3);
    uint32_t first = submit_leased(&scene, &image, ACT_LATER);
    assert_int_equal(run_next(&scene.worker).jobs, 1);
    uint32_t second = submit_leased(&scene, &image, ACT_LATER);
    assert_int_equal(run_next(&scene.worker).jobs, 0);
    uint32_t third = submit_leased(&scene, &image, ACT_LATER);
    assert_int_equal(run_next(&scene.worker).jobs, 0);
    expect(&scene, second, QUEUE_LEASED);
    complete(&scene, 0, 0);
    assert_int_equal(run_next(&scene.worker).jobs, 3);
    expect_later_answer(&scene, first);
    expect(&scene, third, QUEUE_RUN);
    assert_int_equal(scene.calls.sizes[1], 2);
    complete(&scene, 1, 0);
    complete(&scene, 2, 0);
    assert_int_equal(run_next(&scene.worker).jobs, 2);
    end(&scene);
}

/* As much work as three usual tiles. */
static void a_large_image_is_a_full_batch(void **state)
{
    (void)state;
    static const struct unetserve_shape large_image = {UNETSERVE_U8, 3, {1, 2, 6}};
    struct scene scene;
    begin_on_device(&scene, 3);
    scene.worker.interface.tile = 2;
    submit_leased(&scene, &image, ACT_LATER);
    assert_int_equal(run_next(&scene.worker).jobs, 1);
    uint32_t wide = submit_leased(&scene, &wide_image, ACT_LATER);
    assert_int_equal(run_next(&scene.worker).jobs, 0); /* that of two */
    complete(&scene, 0, 0);
    assert_int_equal(run_next(&scene.worker).jobs, 2);
    expect(&scene, wide, QUEUE_RUN);
    uint32_t large = submit_leased(&scene, &large_image, ACT_LATER);
    assert_int_equal(run_next(&scene.worker).jobs, 1);
    expect(&scene, large, QUEUE_RUN);
    complete(&scene, 1, 0);
    complete(&scene, 2, 0);
    assert_int_equal(run_next(&scene.worker).jobs, 2);
    end(&scene);
}

static void a_device_is_busy_until_its_last_batch_has_ended(void **state)
{
    (void)state;
    struct scene scene;
    begin_on_device(&scene, 1);
    submit_leased(&scene, &image, ACT_LATER);
    submit_leased(&scene, &image, ACT_LATER);
    uint64_t begin_ns = queue_now_ns();
    run_next(&scene.worker);
    run_next(&scene.worker);
    uint64_t both_ns = queue_now_ns();
    complete(&scene, 0, 0);
    run_next(&scene.worker);
    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    uint64_t last_ns = queue_now_ns();
    complete(&scene, 1, 0);
    run_next(&scene.worker);
    uint64_t end_ns = queue_now_ns();
    /* All the time, and no time twice. */
    assert_true(busy_ns(&scene) >= last_ns - both_ns && busy_ns(&scene) <= end_ns - begin_ns);
    uint64_t before = busy_ns(&scene);
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    run_next(&scene.worker);
    assert_int_equal(busy_ns(&scene), before);
    end(&scene);
}

static void a_device_that_fails_under_two_batches_leaves_both_in_run(void **state)
{
    (void)state;
    struct scene scene;
    begin_on_device(&scene, 1);
    uint32_t first = submit_leased(&scene, &image, ACT_LATER);
    uint32_t second = submit_leased(&scene, &image, ACT_LATER);
    run_next(&scene.worker);
    run_next(&scene.worker);
    complete(&scene, 0, -EIO);
    complete(&scene, 1, -EIO);
    run_next(&scene.worker);
    assert_true(scene.worker.device_lost);
    expect(&scene, first, QUEUE_RUN);
    expect(&scene, second, QUEUE_RUN);
    scene.worker.device_lost = false;
    scene.calls.kept = 0;
    end(&scene);
}

/* ---- streams ---- */

static int stream_predict(void *model, struct unetserve_item *const *items, size_t count)
{
    struct scene *scene = model;
    const struct unetserve_host *host = &scene->worker.host;
    assert_int_equal(count, 1);
    if (act_of(items[0]) != ACT_REFUSE_EARLY) {
        assert_int_equal(host->emit(host, items[0], "1", 1), 0);
        assert_int_equal(host->emit(host, items[0], "22", 2), 0);
    }
    char large[5000] = "";
    assert_int_equal(host->emit(host, items[0], large, sizeof large), -EMSGSIZE);
    if (act_of(items[0]) == ACT_ANSWER)
        return 0;
    if (act_of(items[0]) == ACT_BREAK)
        return -EINVAL;
    write_refusal(items[0], 422);
    return 0;
}

static const struct unetserve_model_ops stream = {
    .abi = UNETSERVE_MODEL_ABI,
    .size = sizeof stream,
    .name = "stream",
    .predict = stream_predict,
};

/* Runs one job of a streaming model. Returns its slot. */
static uint32_t run_stream(struct scene *scene, enum act act)
{
    begin(scene, 1);
    scene->worker.ops = &stream;
    scene->worker.instance = scene;
    scene->worker.interface.output_kind = UNETSERVE_DOCUMENT;
    scene->worker.interface.flags = UNETSERVE_STREAMS;
    uint32_t slot = submit_leased(scene, &image, act);
    assert_int_equal(run_next(&scene->worker).jobs, 1);
    return slot;
}

static void expect_items(const struct scene *scene, uint32_t slot, const char *const *items,
                         size_t count)
{
    struct ring ring = {.counts = &scene->queue.slots[slot].ring,
                        .bytes = queue_output(&scene->queue, slot),
                        .capacity = 4096};
    size_t size;
    for (size_t i = 0; i < count; i++) {
        char item[64];
        assert_int_equal(ring_next(&ring, &size), 0);
        assert_int_equal(size, strlen(items[i]));
        ring_take(&ring, item, size);
        assert_memory_equal(item, items[i], size);
    }
    assert_int_equal(ring_next(&ring, &size), -EAGAIN);
}

static void a_stream_lies_in_the_ring_and_its_refusal_last(void **state)
{
    (void)state;
    static const char *const items[] = {"1", "22", refusal};
    struct scene scene;
    uint32_t slot = run_stream(&scene, ACT_ANSWER);
    expect(&scene, slot, QUEUE_DONE);
    assert_int_equal(scene.queue.slots[slot].status, 200);
    assert_int_equal(wakes(GATEWAY_SEAT), 2); /* each item; the end as well, if it had looked */
    expect_items(&scene, slot, items, 2);
    end(&scene);

    slot = run_stream(&scene, ACT_REFUSE);
    expect(&scene, slot, QUEUE_DONE);
    assert_int_equal(scene.queue.slots[slot].status, 422);
    expect_items(&scene, slot, items, 3);
    end(&scene);

    slot = run_stream(&scene, ACT_BREAK);
    expect(&scene, slot, QUEUE_FAILED);
    expect_items(&scene, slot, items, 2);
    end(&scene);
}

/* Until nobody wants the stream any more. */
static int flood_predict(void *model, struct unetserve_item *const *items, size_t count)
{
    const struct scene *scene = model;
    static const char item[1000];
    assert_int_equal(count, 1);
    int error = 0;
    while (!error)
        error = scene->worker.host.emit(&scene->worker.host, items[0], item, sizeof item);
    return error;
}

static const struct unetserve_model_ops flood = {
    .abi = UNETSERVE_MODEL_ABI,
    .size = sizeof flood,
    .name = "flood",
    .predict = flood_predict,
};

/* A client that leaves while the ring is full, as soon as the worker says that it sleeps. */
static void *leave(void *opaque)
{
    struct scene *scene = opaque;
    const struct queue_process *process = &scene->queue.processes[scene->seat.index];
    for (int i = 0; i < 20000 && atomic_load(&process->attention) & QUEUE_AWAKE; i++)
        usleep(1000);
    bool slept = !(atomic_load(&process->attention) & QUEUE_AWAKE);
    queue_cancel(&scene->queue, 0, queue_word_generation(queue_word(&scene->queue, 0)));
    return slept ? scene : NULL;
}

static void who_waits_for_room_can_be_woken(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 1);
    scene.seat.event_fd = eventfd(0, EFD_NONBLOCK);
    scene.worker.ops = &flood;
    scene.worker.instance = &scene;
    scene.worker.interface.output_kind = UNETSERVE_DOCUMENT;
    scene.worker.interface.flags = UNETSERVE_STREAMS;
    uint32_t slot = submit_leased(&scene, &image, ACT_ANSWER);
    assert_int_equal(slot, 0);
    seat_awake(&scene.seat);
    pthread_t client;
    assert_int_equal(pthread_create(&client, NULL, leave, &scene), 0);
    assert_int_equal(run_next(&scene.worker).jobs, 1);
    void *slept = NULL;
    assert_int_equal(pthread_join(client, &slept), 0);
    assert_non_null(slept);
    assert_false(seat_asleep(&scene.seat));
    expect(&scene, slot, QUEUE_FAILED);
    close(scene.seat.event_fd);
    end(&scene);
}

static void a_refusal_before_the_first_item_is_an_answer(void **state)
{
    (void)state;
    struct scene scene;
    uint32_t slot = run_stream(&scene, ACT_REFUSE_EARLY);
    expect_refusal(&scene, slot, 422);
    expect_items(&scene, slot, NULL, 0);
    end(&scene);
}

/* ---- without the broker ---- */

static void be_ready(const struct scene *scene)
{
    atomic_store(&scene->queue.processes[scene->seat.index].ready, 1);
}

/* Another worker of its model, so that there is something to choose. */
static uint16_t add_worker(struct scene *scene)
{
    uint16_t other;
    assert_int_equal(queue_process_enter(&scene->queue, QUEUE_WORKER, 9, &other), 0);
    atomic_store(&scene->queue.processes[other].model_generation, 1);
    atomic_store(&scene->queue.processes[other].ready, 1);
    return other;
}

static uint64_t handed_over(const struct scene *scene)
{
    return counter_read(&scene->queue.counters[WORKER_SEAT].models[0].handed_over);
}

static void a_lone_job_is_taken_without_the_broker(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 4);
    be_ready(&scene);
    add_worker(&scene);
    uint32_t slot = submit(&scene, &image, ACT_ANSWER);
    assert_int_equal(run_next(&scene.worker).jobs, 1);
    expect_answer(&scene, slot, 1);
    assert_int_equal(wakes(GATEWAY_SEAT), 1);
    assert_int_equal(wakes(BROKER_SEAT), 0);
    assert_int_equal(handed_over(&scene), 1);
    /* Leased ones come first, and are not counted. */
    uint32_t leased = submit_leased(&scene, &image, ACT_ANSWER);
    uint32_t later = submit(&scene, &wide_image, ACT_ANSWER);
    assert_int_equal(run_next(&scene.worker).jobs, 1);
    expect_answer(&scene, leased, 1);
    expect(&scene, later, QUEUE_READY);
    assert_int_equal(wakes(BROKER_SEAT), 1);
    assert_int_equal(handed_over(&scene), 1);
    end(&scene);
}

static void expect_left(struct scene *scene, uint32_t slot)
{
    assert_int_equal(run_next(&scene->worker).jobs, 0);
    expect(scene, slot, QUEUE_READY);
    assert_int_equal(wakes(BROKER_SEAT), 1);
    assert_int_equal(handed_over(scene), 0);
}

static void the_brokers_jobs_are_left_to_it(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 4);
    struct queue_process *self = &scene.queue.processes[scene.seat.index];
    struct queue_model *model = &scene.queue.models[0];
    uint32_t slot = submit(&scene, &image, ACT_ANSWER);
    expect_left(&scene, slot); /* not ready */
    be_ready(&scene);
    atomic_store(&self->draining, 1);
    expect_left(&scene, slot);
    atomic_store(&self->draining, 0);
    atomic_store(&model->max_batch, 4);
    atomic_store(&model->batch_timeout_us, 1);
    expect_left(&scene, slot); /* it may have to wait for others */
    atomic_store(&model->batch_timeout_us, 0);
    atomic_store(&scene.queue.slots[slot].deadline_ns, 1);
    expect_left(&scene, slot); /* it is late */
    atomic_store(&scene.queue.slots[slot].deadline_ns, 0);
    atomic_store(&scene.queue.slots[slot].model_generation, 2);
    expect_left(&scene, slot);
    atomic_store(&scene.queue.slots[slot].model_generation, 1);
    uint16_t other = add_worker(&scene);
    uint32_t second = submit(&scene, &image, ACT_ANSWER);
    expect_left(&scene, slot); /* it is not alone, and its worker neither */
    expect(&scene, second, QUEUE_READY);
    queue_process_leave(&scene.queue, other, false);
    atomic_store(&model->max_batch, 2);
    assert_int_equal(run_next(&scene.worker).jobs, 2);
    expect_answer(&scene, second, 2);
    end(&scene);
}

/* As the broker would: by priority, then age, as many of one shape as fit, leased ones before. */
static void the_only_worker_takes_the_line_in_order(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 3);
    be_ready(&scene);
    atomic_store(&scene.queue.models[0].max_batch, 2); /* fewer than the model can */
    uint32_t leased = submit_leased(&scene, &image, ACT_ANSWER);
    uint32_t young = submit(&scene, &image, ACT_ANSWER);
    uint32_t wide = submit(&scene, &wide_image, ACT_ANSWER);
    uint32_t old = submit(&scene, &image, ACT_ANSWER);
    uint32_t late = submit(&scene, &image, ACT_ANSWER);
    uint32_t urgent = submit(&scene, &image, ACT_ANSWER);
    atomic_store(&scene.queue.slots[young].accepted_ns, 100);
    atomic_store(&scene.queue.slots[late].deadline_ns, 1);
    atomic_store(&scene.queue.slots[urgent].priority, 5);
    static const unsigned sizes[] = {1, 2, 1, 1};
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(run_next(&scene.worker).jobs, sizes[i]);
        assert_int_equal(wakes(BROKER_SEAT), 1); /* of the late one */
        assert_int_equal(scene.queue.slots[young].batch, i == 3);
        expect(&scene, wide, i < 2 ? QUEUE_READY : QUEUE_DONE);
    }
    expect_answer(&scene, leased, 1);
    expect_answer(&scene, urgent, 2);
    expect_answer(&scene, old, 2);
    expect_answer(&scene, young, 1);
    expect(&scene, late, QUEUE_READY);
    assert_int_equal(handed_over(&scene), 4);
    end(&scene);
}

/* More of them than it looks at in one go: the first in the order are among those that it keeps. */
static void a_long_line_loses_none_of_its_order(void **state)
{
    (void)state;
    struct scene scene;
    uint32_t slots[WORKER_MAX_JOBS + 6];
    begin_with(&scene, 2, WORKER_MAX_JOBS + 6);
    be_ready(&scene);
    atomic_store(&scene.queue.models[0].max_batch, 2);
    for (unsigned i = 0; i < WORKER_MAX_JOBS + 6; i++) {
        slots[i] = submit(&scene, &image, ACT_ANSWER);
        atomic_store(&scene.queue.slots[slots[i]].accepted_ns, 1000 - i);
    }
    for (unsigned i = WORKER_MAX_JOBS + 6; i > 0; i -= 2) {
        scene.calls.predicts = 0;
        assert_int_equal(run_next(&scene.worker).jobs, 2);
        expect_answer(&scene, slots[i - 1], 2);
        expect_answer(&scene, slots[i - 2], 2);
    }
    end(&scene);
}

static void a_job_with_a_death_on_it_is_the_brokers(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 4);
    be_ready(&scene);
    uint16_t dead;
    assert_int_equal(queue_process_enter(&scene.queue, QUEUE_WORKER, 9, &dead), 0);
    uint32_t slot = submit(&scene, &image, ACT_ANSWER);
    assert_true(queue_move(&scene.queue, QUEUE_WORKER, slot, queue_word(&scene.queue, slot),
                           QUEUE_RUN, dead, NULL));
    queue_process_leave(&scene.queue, dead, true);
    queue_apply_standing_rules(&scene.queue);
    expect_left(&scene, slot);
    end(&scene);
}

static void who_has_pending_jobs_takes_none_by_itself(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 1);
    be_ready(&scene);
    add_worker(&scene);
    uint32_t slot = submit(&scene, &image, ACT_LATER);
    assert_int_equal(run_next(&scene.worker).jobs, 1);
    expect(&scene, slot, QUEUE_RUN);
    uint32_t next = submit(&scene, &image, ACT_ANSWER);
    assert_int_equal(run_next(&scene.worker).jobs, 0);
    expect(&scene, next, QUEUE_READY);
    assert_int_equal(wakes(BROKER_SEAT), 1);
    scene.worker.host.complete(&scene.worker.host, scene.calls.later[0], 0);
    assert_int_equal(run_next(&scene.worker).jobs, 2); /* that one, and then the next */
    expect(&scene, slot, QUEUE_DONE);
    expect_answer(&scene, next, 1);
    end(&scene);
}

static void the_only_worker_takes_more_while_others_are_pending(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 1);
    be_ready(&scene);
    scene.worker.interface.max_pending = 2;
    for (int i = 0; i < 3; i++)
        submit(&scene, &image, ACT_LATER);
    assert_int_equal(run_next(&scene.worker).jobs, 1);
    assert_int_equal(run_next(&scene.worker).jobs, 1);
    assert_int_equal(run_next(&scene.worker).jobs, 0); /* no more than the model takes */
    assert_int_equal(worker_pending(&scene.worker), 2);
    assert_int_equal(wakes(BROKER_SEAT), 0);
    assert_int_equal(handed_over(&scene), 2);
    for (int i = 0; i < 2; i++)
        scene.worker.host.complete(&scene.worker.host, scene.calls.later[i], 0);
    assert_int_equal(run_next(&scene.worker).jobs, 3);
    scene.worker.host.complete(&scene.worker.host, scene.calls.later[2], 0);
    assert_int_equal(run_next(&scene.worker).jobs, 1);
    end(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_leased_is_nothing_done),
        cmocka_unit_test(a_lone_job_is_taken_without_the_broker),
        cmocka_unit_test(the_brokers_jobs_are_left_to_it),
        cmocka_unit_test(the_only_worker_takes_the_line_in_order),
        cmocka_unit_test(a_long_line_loses_none_of_its_order),
        cmocka_unit_test(the_only_worker_takes_more_while_others_are_pending),
        cmocka_unit_test(a_job_with_a_death_on_it_is_the_brokers),
        cmocka_unit_test(who_has_pending_jobs_takes_none_by_itself),
        cmocka_unit_test(who_is_idle_while_jobs_are_stuck_at_others_wakes_the_broker),
        cmocka_unit_test(a_moment_later_the_idle_one_looks_again),
        cmocka_unit_test(a_job_is_answered_and_its_gateway_woken),
        cmocka_unit_test(equal_shapes_run_together_up_to_the_limit),
        cmocka_unit_test(other_shapes_wait_for_their_turn),
        cmocka_unit_test(the_limit_counts_tiles),
        cmocka_unit_test(a_model_may_like_fewer_at_once),
        cmocka_unit_test(priority_and_age_decide_who_is_first),
        cmocka_unit_test(refusals_carry_status_and_document),
        cmocka_unit_test(one_bad_job_does_not_fail_its_batch),
        cmocka_unit_test(broken_answers_fail_and_overrun_nothing),
        cmocka_unit_test(a_job_with_a_death_on_it_runs_alone),
        cmocka_unit_test(a_death_keeps_a_younger_job_out_of_the_batch_too),
        cmocka_unit_test(cancelled_jobs_fail_without_being_run),
        cmocka_unit_test(a_job_cancelled_while_it_runs_fails),
        cmocka_unit_test(a_job_past_its_deadline_is_not_started),
        cmocka_unit_test(lying_slots_fail_alone),
        cmocka_unit_test(an_unterminated_request_id_is_cut),
        cmocka_unit_test(jobs_of_another_model_or_generation_are_left_alone),
        cmocka_unit_test(a_lost_device_leaves_its_jobs_to_the_supervisor),
        cmocka_unit_test(a_lease_that_was_taken_back_is_left_alone),
        cmocka_unit_test(an_answer_reaches_a_gateway_that_began_to_stream),
        cmocka_unit_test(pending_jobs_stay_in_run_until_they_are_completed),
        cmocka_unit_test(no_more_are_pending_than_the_model_takes),
        cmocka_unit_test(who_runs_alone_waits_for_the_pending_and_they_for_it),
        cmocka_unit_test(the_model_is_told_once_that_nobody_waits),
        cmocka_unit_test(a_full_batch_is_put_behind_the_first_and_no_third),
        cmocka_unit_test(a_batch_that_may_grow_waits_for_the_device),
        cmocka_unit_test(a_large_image_is_a_full_batch),
        cmocka_unit_test(a_device_is_busy_until_its_last_batch_has_ended),
        cmocka_unit_test(a_device_that_fails_under_two_batches_leaves_both_in_run),
        cmocka_unit_test(a_stream_lies_in_the_ring_and_its_refusal_last),
        cmocka_unit_test(who_waits_for_room_can_be_woken),
        cmocka_unit_test(a_refusal_before_the_first_item_is_an_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
