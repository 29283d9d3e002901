/* The broker's policy as small tables: jobs and workers in, leases out. */
#include "broker/placement.h"
#include "unetserve/queue.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define NOW    1000000000
#define WINDOW 50000000

static const struct unetserve_shape tile = {3, 3, {12, 256, 256}};
static const struct unetserve_shape large = {3, 3, {12, 512, 512}};
static const struct unetserve_shape four_tiles = {3, 4, {4, 12, 256, 256}};

struct scene {
    struct placement_job jobs[80];
    size_t job_count;
    struct placement_worker workers[16];
    size_t worker_count;
    struct placement_upload uploads[16];
    size_t upload_count;
    struct placement_rule rules[16];
    struct placement_lease leases[80];
    size_t lease_count;
    uint64_t look_ns;
};

static void begin(struct scene *scene, uint32_t max_batch)
{
    memset(scene, 0, sizeof *scene);
    for (size_t i = 0; i < 16; i++)
        scene->rules[i].max_batch = max_batch;
}

/* Job number k in slot k, accepted in the order of being added. */
static struct placement_job *add_job(struct scene *scene, const struct unetserve_shape *shape)
{
    struct placement_job *job = &scene->jobs[scene->job_count];
    *job = (struct placement_job){
        .slot = (uint32_t)scene->job_count,
        .word = 5000 + scene->job_count,
        .generation = 1,
        .accepted_ns = NOW - 1000 + scene->job_count,
        .tiles = placement_tiles(shape),
        .shape = *shape,
    };
    scene->job_count++;
    return job;
}

/* Worker number k has process index 10 + k. */
static struct placement_worker *add_worker(struct scene *scene, uint32_t running_tiles)
{
    struct placement_worker *worker = &scene->workers[scene->worker_count];
    *worker = (struct placement_worker){
        .index = (uint16_t)(10 + scene->worker_count),
        .generation = 1,
        .usable = true,
        .running_tiles = running_tiles,
    };
    scene->worker_count++;
    return worker;
}

static void decide(struct scene *scene)
{
    const struct placement_scene view = {
        .jobs = scene->jobs,
        .job_count = scene->job_count,
        .workers = scene->workers,
        .worker_count = scene->worker_count,
        .uploads = scene->uploads,
        .upload_count = scene->upload_count,
        .rules = scene->rules,
        .now_ns = NOW,
    };
    scene->lease_count = placement_decide(&view, scene->leases, &scene->look_ns);
}

/* Jobs may be held, for bodies that are coming in, or always. */
static void hold(struct scene *scene, bool always)
{
    for (size_t i = 0; i < 16; i++) {
        scene->rules[i].window_ns = WINDOW;
        scene->rules[i].always = always;
    }
}

/* shape NULL: not known yet. */
static struct placement_upload *add_upload(struct scene *scene, const struct unetserve_shape *shape,
                                           uint64_t ends_ns)
{
    struct placement_upload *upload = &scene->uploads[scene->upload_count++];
    *upload = (struct placement_upload){
        .generation = 1, .shape_key = shape ? queue_shape_key(shape) : 0, .ends_ns = ends_ns};
    return upload;
}

/* Nothing is leased, and the next decision is due then. */
static void expect_held(const struct scene *scene, uint64_t look_ns)
{
    assert_int_equal(scene->lease_count, 0);
    assert_int_equal(scene->look_ns, look_ns);
}

/* So many jobs are leased and nothing is held. */
static void expect_leased(const struct scene *scene, size_t count)
{
    assert_int_equal(scene->lease_count, count);
    assert_int_equal(scene->look_ns, 0);
}

/* Where slot went: its worker's index, 0 if it still waits. */
static uint16_t worker_of(const struct scene *scene, uint32_t slot)
{
    for (size_t i = 0; i < scene->lease_count; i++) {
        if (scene->leases[i].slot == slot) {
            assert_int_equal(scene->leases[i].word, 5000 + slot);
            return scene->leases[i].worker;
        }
    }
    return 0;
}

static void a_worker_holds_no_more_than_it_likes(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 4);
    for (int i = 0; i < 8; i++)
        add_job(&scene, &tile);
    add_worker(&scene, 1)->max_batch = 2;
    add_worker(&scene, 1)->max_batch = 9; /* the rule holds for it, too */
    decide(&scene);
    expect_leased(&scene, 6);
    assert_int_equal(scene.workers[0].leased_tiles, 2);
    assert_int_equal(scene.workers[1].leased_tiles, 4);
    /* Who likes none beside it need not wait for one. */
    begin(&scene, 4);
    hold(&scene, true);
    add_job(&scene, &tile);
    add_worker(&scene, 0)->max_batch = 1;
    decide(&scene);
    expect_leased(&scene, 1);
}

static void nothing_comes_of_nothing(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 4);
    decide(&scene);
    assert_int_equal(scene.lease_count, 0);
    add_job(&scene, &tile);
    decide(&scene);
    assert_int_equal(scene.lease_count, 0);
    begin(&scene, 4);
    add_worker(&scene, 0);
    decide(&scene);
    assert_int_equal(scene.lease_count, 0);
}

static void an_idle_worker_comes_before_a_busy_one(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 4);
    add_worker(&scene, 1);
    add_worker(&scene, 0);
    add_job(&scene, &tile);
    decide(&scene);
    assert_int_equal(worker_of(&scene, 0), 11);
}

static void a_busy_worker_gets_a_job_ahead_where_none_is_idle(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 1);
    add_worker(&scene, 1);
    for (int i = 0; i < 3; i++)
        add_job(&scene, &tile);
    decide(&scene);
    assert_int_equal(scene.lease_count, 1);
    assert_int_equal(worker_of(&scene, 0), 10);
}

static void no_second_batch_waits_at_a_worker(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 2);
    struct placement_worker *worker = add_worker(&scene, 2);
    placement_add_lease(worker, &tile, 1, false);
    for (int i = 0; i < 3; i++)
        add_job(&scene, &tile);
    decide(&scene);
    assert_int_equal(scene.lease_count, 1);
    assert_int_equal(scene.workers[0].leased_tiles, 2);
}

static void priority_comes_before_age(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 1);
    add_worker(&scene, 0);
    add_job(&scene, &tile);
    add_job(&scene, &tile)->accepted_ns = NOW - 2000;
    add_job(&scene, &tile)->priority = 1;
    decide(&scene);
    assert_int_equal(scene.lease_count, 1);
    assert_int_equal(worker_of(&scene, 2), 10);
    begin(&scene, 1);
    add_worker(&scene, 0);
    add_job(&scene, &tile);
    add_job(&scene, &tile)->accepted_ns = NOW - 2000;
    add_job(&scene, &tile)->priority = -1;
    decide(&scene);
    assert_int_equal(worker_of(&scene, 1), 10);
}

static void a_burst_spreads_before_it_is_batched(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 4);
    add_worker(&scene, 0);
    add_worker(&scene, 0);
    for (int i = 0; i < 6; i++)
        add_job(&scene, &tile);
    decide(&scene);
    assert_int_equal(scene.lease_count, 6);
    assert_int_equal(scene.workers[0].leased_jobs, 3);
    assert_int_equal(scene.workers[1].leased_jobs, 3);
}

static void batches_keep_to_the_limit_in_tiles(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 6);
    add_worker(&scene, 0);
    add_job(&scene, &four_tiles);
    add_job(&scene, &four_tiles);
    decide(&scene);
    assert_int_equal(scene.lease_count, 1);
    begin(&scene, 8);
    add_worker(&scene, 0);
    for (int i = 0; i < 3; i++)
        add_job(&scene, &four_tiles);
    decide(&scene);
    assert_int_equal(scene.lease_count, 2);
}

static void a_job_larger_than_a_batch_still_runs(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 2);
    add_worker(&scene, 0);
    add_job(&scene, &four_tiles);
    add_job(&scene, &four_tiles);
    decide(&scene);
    assert_int_equal(scene.lease_count, 1);
    assert_int_equal(worker_of(&scene, 0), 10);
}

static void only_equal_shapes_share_a_batch(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 4);
    add_worker(&scene, 0);
    add_job(&scene, &tile);
    add_job(&scene, &large);
    add_job(&scene, &tile);
    add_job(&scene, &four_tiles);
    add_job(&scene, &tile)->shape.dtype = 6;
    decide(&scene);
    assert_int_equal(scene.lease_count, 2);
    assert_int_equal(worker_of(&scene, 0), 10);
    assert_int_equal(worker_of(&scene, 2), 10);
}

static void a_job_with_deaths_is_leased_alone(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 4);
    add_worker(&scene, 0);
    add_job(&scene, &tile)->alone = true;
    add_job(&scene, &tile);
    decide(&scene);
    assert_int_equal(scene.lease_count, 1);
    assert_int_equal(worker_of(&scene, 0), 10);
    begin(&scene, 4);
    add_worker(&scene, 0);
    add_job(&scene, &tile);
    add_job(&scene, &tile)->alone = true;
    decide(&scene);
    assert_int_equal(scene.lease_count, 1);
    assert_int_equal(worker_of(&scene, 0), 10);
}

static void unusable_workers_get_nothing(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 4);
    add_worker(&scene, 0)->usable = false;
    add_job(&scene, &tile);
    decide(&scene);
    assert_int_equal(scene.lease_count, 0);
    add_worker(&scene, 3);
    decide(&scene);
    assert_int_equal(worker_of(&scene, 0), 11);
}

static void models_and_generations_do_not_mix(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 4);
    add_worker(&scene, 0)->model = 1;
    add_worker(&scene, 0)->generation = 2;
    add_job(&scene, &tile);
    decide(&scene);
    assert_int_equal(scene.lease_count, 0);
    add_job(&scene, &tile)->model = 1;
    add_job(&scene, &tile)->generation = 2;
    decide(&scene);
    assert_int_equal(scene.lease_count, 2);
    assert_int_equal(worker_of(&scene, 1), 10);
    assert_int_equal(worker_of(&scene, 2), 11);
}

static void a_job_past_its_deadline_is_left_to_its_gateway(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 1);
    add_worker(&scene, 0);
    add_job(&scene, &tile)->deadline_ns = NOW;
    add_job(&scene, &tile)->deadline_ns = NOW + 1;
    decide(&scene);
    assert_int_equal(scene.lease_count, 1);
    assert_int_equal(worker_of(&scene, 1), 10);
}

static void documents_share_a_batch_whatever_their_length(void **state)
{
    (void)state;
    struct scene scene;
    static const struct unetserve_shape document = {0};
    begin(&scene, 3);
    add_worker(&scene, 0);
    for (int i = 0; i < 5; i++)
        add_job(&scene, &document);
    decide(&scene);
    assert_int_equal(scene.lease_count, 3);
}

static void a_batch_limit_of_zero_means_one(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 0);
    add_worker(&scene, 0);
    add_job(&scene, &tile);
    add_job(&scene, &tile);
    decide(&scene);
    assert_int_equal(scene.lease_count, 1);
}

static void lying_shapes_do_not_wrap_the_sums(void **state)
{
    (void)state;
    struct scene scene;
    static const struct unetserve_shape lie = {3, 4, {UINT64_MAX, 1, 1, 1}};
    static const struct unetserve_shape rank = {3, UINT32_MAX, {1, 1, 1, 1, 1, 1}};
    begin(&scene, UINT32_MAX);
    add_worker(&scene, 0);
    for (int i = 0; i < 3; i++)
        add_job(&scene, &lie);
    add_job(&scene, &rank);
    decide(&scene);
    assert_int_equal(scene.workers[0].leased_tiles, UINT32_MAX);
    assert_int_equal(scene.lease_count, 1);
}

/* ---- holding ---- */

/* One idle worker, one job accepted now, bodies held for. */
static struct placement_job *begin_lone(struct scene *scene, bool always)
{
    begin(scene, 4);
    hold(scene, always);
    add_worker(scene, 0);
    struct placement_job *job = add_job(scene, &tile);
    job->accepted_ns = NOW;
    return job;
}

static void nobody_waits_for_somebody_who_is_not_in_sight(void **state)
{
    (void)state;
    struct scene scene;
    begin_lone(&scene, false);
    decide(&scene);
    expect_leased(&scene, 1);
}

static void a_job_waits_for_a_body_of_its_shape(void **state)
{
    (void)state;
    struct scene scene;
    begin_lone(&scene, false);
    add_upload(&scene, &tile, NOW + 2000000);
    decide(&scene);
    expect_held(&scene, NOW + 2000000 + PLACEMENT_GRACE_NS);
    begin_lone(&scene, false); /* two: for the later one */
    add_upload(&scene, &tile, NOW + 3000000);
    add_upload(&scene, NULL, NOW + 2000000);
    decide(&scene);
    expect_held(&scene, NOW + 3000000 + PLACEMENT_GRACE_NS);
    begin_lone(&scene, false); /* one that may still turn out to be of its shape */
    add_upload(&scene, NULL, NOW + 2000000);
    decide(&scene);
    expect_held(&scene, NOW + 2000000 + PLACEMENT_GRACE_NS);
}

static void no_job_waits_for_a_body_that_is_of_no_use_to_it(void **state)
{
    (void)state;
    struct scene scene;
    begin_lone(&scene, false);
    add_upload(&scene, &large, NOW + 2000000);
    add_upload(&scene, &tile, NOW + 2000000)->model = 1;
    add_upload(&scene, &tile, NOW + 2000000)->generation = 2;
    add_upload(&scene, &tile, NOW + WINDOW + 1);         /* comes too late */
    add_upload(&scene, &tile, NOW - PLACEMENT_GRACE_NS); /* is late */
    add_upload(&scene, &tile, UINT64_MAX);
    decide(&scene);
    expect_leased(&scene, 1);
}

static void a_body_that_stalls_holds_nobody_for_long(void **state)
{
    (void)state;
    struct scene scene;
    begin_lone(&scene, false);
    add_upload(&scene, &tile, NOW - PLACEMENT_GRACE_NS + 1);
    decide(&scene);
    expect_held(&scene, NOW + 1);
}

static void nothing_is_held_beyond_the_window_of_the_oldest(void **state)
{
    (void)state;
    for (int always = 0; always < 2; always++) {
        struct scene scene;
        begin_lone(&scene, always);
        add_job(&scene, &tile)->accepted_ns = NOW - WINDOW + 100;
        add_upload(&scene, &tile, NOW + 50);
        decide(&scene);
        expect_held(&scene, NOW + 100);
        scene.jobs[0].accepted_ns = NOW - WINDOW;
        decide(&scene);
        expect_leased(&scene, 2);
    }
}

static void a_clock_that_lies_holds_for_one_window_at_most(void **state)
{
    (void)state;
    struct scene scene;
    begin_lone(&scene, true)->accepted_ns = NOW + UINT64_C(1000) * WINDOW;
    decide(&scene);
    expect_held(&scene, NOW + WINDOW);
}

static void without_a_window_nothing_is_held(void **state)
{
    (void)state;
    struct scene scene;
    begin_lone(&scene, true);
    scene.rules[0].window_ns = 0;
    add_upload(&scene, &tile, NOW + 2000000);
    decide(&scene);
    expect_leased(&scene, 1);
}

static void always_waits_for_a_full_batch(void **state)
{
    (void)state;
    struct scene scene;
    begin_lone(&scene, true);
    add_job(&scene, &tile);
    add_job(&scene, &tile);
    decide(&scene);
    expect_held(&scene, NOW - 1000 + 1 + WINDOW);
    add_job(&scene, &tile);
    decide(&scene);
    expect_leased(&scene, 4);
}

static void always_fills_one_worker_before_the_next(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 4);
    hold(&scene, true);
    add_worker(&scene, 0);
    add_worker(&scene, 0);
    for (int i = 0; i < 6; i++)
        add_job(&scene, &tile);
    decide(&scene);
    assert_int_equal(scene.lease_count, 4);
    assert_int_equal(scene.workers[0].leased_jobs + scene.workers[1].leased_jobs, 4);
    assert_true(scene.workers[0].leased_jobs == 0 || scene.workers[1].leased_jobs == 0);
    assert_int_equal(scene.look_ns, NOW - 1000 + 4 + WINDOW);
}

static void always_holds_what_would_wait_at_a_busy_worker_too(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 4);
    hold(&scene, true);
    add_worker(&scene, 4);
    add_job(&scene, &tile)->accepted_ns = NOW;
    decide(&scene);
    expect_held(&scene, NOW + WINDOW);
    placement_add_lease(&scene.workers[0], &tile, 1, false);
    decide(&scene); /* a batch that waits there anyway */
    expect_leased(&scene, 1);
}

static void what_waits_at_a_busy_worker_is_not_held_for_bodies(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 4);
    hold(&scene, false);
    add_worker(&scene, 1);
    add_job(&scene, &tile);
    add_upload(&scene, &tile, NOW + 2000000);
    decide(&scene);
    expect_leased(&scene, 1);
}

static void only_the_last_idle_worker_holds_for_bodies(void **state)
{
    (void)state;
    struct scene scene;
    begin_lone(&scene, false);
    add_worker(&scene, 0);
    add_upload(&scene, &tile, NOW + 2000000);
    decide(&scene);
    expect_leased(&scene, 1);
    begin_lone(&scene, false);
    add_worker(&scene, 0);
    add_job(&scene, &tile)->accepted_ns = NOW;
    add_upload(&scene, &tile, NOW + 2000000);
    decide(&scene);
    assert_int_equal(scene.lease_count, 1);
    assert_int_equal(scene.look_ns, NOW + 2000000 + PLACEMENT_GRACE_NS);
    /* Idle workers of another model, or that get nothing, are none. */
    begin_lone(&scene, false);
    add_worker(&scene, 0)->model = 1;
    add_worker(&scene, 0)->usable = false;
    add_upload(&scene, &tile, NOW + 2000000);
    decide(&scene);
    expect_held(&scene, NOW + 2000000 + PLACEMENT_GRACE_NS);
}

static void a_full_batch_waits_for_nobody(void **state)
{
    (void)state;
    struct scene scene;
    begin_lone(&scene, false);
    for (int i = 0; i < 3; i++)
        add_job(&scene, &tile);
    add_upload(&scene, &tile, NOW + 2000000);
    decide(&scene);
    expect_leased(&scene, 4);
    begin(&scene, 6); /* a second one of four tiles would not fit */
    hold(&scene, true);
    add_worker(&scene, 0);
    add_job(&scene, &four_tiles);
    decide(&scene);
    expect_leased(&scene, 1);
}

static void a_deadline_within_the_window_is_not_waited_for(void **state)
{
    (void)state;
    for (int always = 0; always < 2; always++) {
        struct scene scene;
        begin_lone(&scene, always)->deadline_ns = NOW + WINDOW + PLACEMENT_MARGIN_NS - 1;
        add_job(&scene, &tile)->accepted_ns = NOW; /* goes with it */
        add_upload(&scene, &tile, NOW + 2000000);
        decide(&scene);
        expect_leased(&scene, 2);
        begin_lone(&scene, always)->deadline_ns = NOW + WINDOW + PLACEMENT_MARGIN_NS;
        add_upload(&scene, &tile, NOW + 2000000);
        decide(&scene);
        assert_int_equal(scene.lease_count, 0);
    }
}

static void a_job_with_deaths_is_not_held(void **state)
{
    (void)state;
    struct scene scene;
    begin_lone(&scene, true)->alone = true;
    decide(&scene);
    expect_leased(&scene, 1);
}

static void those_that_are_held_let_other_shapes_pass(void **state)
{
    (void)state;
    struct scene scene;
    begin_lone(&scene, false)->priority = 1;
    add_job(&scene, &large);
    add_upload(&scene, &tile, NOW + 2000000);
    decide(&scene);
    assert_int_equal(scene.lease_count, 1);
    assert_int_equal(worker_of(&scene, 1), 10);
    assert_int_equal(scene.look_ns, NOW + 2000000 + PLACEMENT_GRACE_NS);
}

static void of_several_shapes_that_are_held_the_first_is_due_first(void **state)
{
    (void)state;
    struct scene scene;
    begin_lone(&scene, true);
    add_job(&scene, &large)->accepted_ns = NOW - 300;
    add_job(&scene, &four_tiles)->accepted_ns = NOW - 200;
    scene.rules[0].max_batch = 8;
    decide(&scene);
    expect_held(&scene, NOW - 300 + WINDOW);
}

static void a_batch_that_was_held_goes_by_priority(void **state)
{
    (void)state;
    struct scene scene;
    begin_lone(&scene, true);
    for (int i = 0; i < 4; i++)
        add_job(&scene, &tile);
    add_job(&scene, &tile)->priority = 1;
    decide(&scene);
    assert_int_equal(scene.lease_count, 4);
    assert_int_equal(scene.leases[0].slot, 5);
    assert_int_equal(worker_of(&scene, 0), 0); /* the youngest */
}

static void shapes_beyond_the_limit_are_not_held(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 4);
    hold(&scene, true);
    add_worker(&scene, 0);
    for (uint64_t i = 0; i < 66; i++)
        add_job(&scene, &tile)->shape.dims[1] = i + 1;
    decide(&scene);
    assert_int_equal(scene.lease_count, 1);
    assert_int_equal(worker_of(&scene, 64), 10);
    assert_int_equal(scene.look_ns, NOW - 1000 + WINDOW);
}

/* Whatever the scene, no rule is broken. A fixed generator, so that a failure repeats. */
static uint32_t next_random(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 16;
}

static void fill_randomly(struct scene *scene, uint32_t *seed)
{
    begin(scene, next_random(seed) % 6);
    uint32_t workers = next_random(seed) % 5;
    for (uint32_t i = 0; i < workers; i++) {
        struct placement_worker *worker = add_worker(scene, next_random(seed) % 3);
        worker->model = next_random(seed) % 2;
        worker->usable = next_random(seed) % 4 != 0;
        if (next_random(seed) % 3 == 0)
            placement_add_lease(worker, &tile, 1, next_random(seed) % 4 == 0);
    }
    for (uint32_t i = 0; i < 2; i++) {
        scene->rules[i].window_ns = next_random(seed) % 2 ? WINDOW : 0;
        scene->rules[i].always = next_random(seed) % 2;
    }
    uint32_t uploads = next_random(seed) % 3;
    for (uint32_t i = 0; i < uploads; i++)
        add_upload(scene, next_random(seed) % 2 ? &tile : NULL,
                   NOW - WINDOW + next_random(seed) % 100 * (WINDOW / 50))
            ->model = next_random(seed) % 2;
    uint32_t jobs = next_random(seed) % 20;
    for (uint32_t i = 0; i < jobs; i++) {
        struct placement_job *job = add_job(scene, next_random(seed) % 3 ? &tile : &large);
        job->model = next_random(seed) % 2;
        job->alone = next_random(seed) % 5 == 0;
        job->deadline_ns = next_random(seed) % 4 ? 0 : NOW - 1;
    }
}

static const struct placement_job *find_job(const struct scene *scene, uint32_t slot)
{
    for (size_t i = 0; i < scene->job_count; i++)
        if (scene->jobs[i].slot == slot)
            return &scene->jobs[i];
    return NULL;
}

static bool may_be_held(const struct scene *scene, const struct placement_job *job)
{
    const struct placement_rule *rule = &scene->rules[job->model];
    if (job->alone || rule->window_ns == 0 || rule->max_batch < 2 ||
        job->accepted_ns + rule->window_ns <= NOW)
        return false;
    for (size_t i = 0; i < scene->upload_count && !rule->always; i++) {
        const struct placement_upload *upload = &scene->uploads[i];
        if (upload->model == job->model && upload->ends_ns + PLACEMENT_GRACE_NS > NOW &&
            upload->ends_ns <= NOW + WINDOW &&
            (!upload->shape_key || upload->shape_key == queue_shape_key(&job->shape)))
            return true;
    }
    return rule->always;
}

static void check_rules(const struct scene *before, const struct scene *after)
{
    bool leased[64] = {false};
    uint32_t given[16] = {0};
    for (size_t i = 0; i < after->lease_count; i++) {
        const struct placement_lease *lease = &after->leases[i];
        const struct placement_job *job = find_job(before, lease->slot);
        const struct placement_worker *old = &before->workers[lease->worker - 10];
        assert_non_null(job);
        assert_false(leased[lease->slot]);
        leased[lease->slot] = true;
        assert_true(old->usable);
        assert_int_equal(old->model, job->model);
        assert_int_equal(job->deadline_ns, 0);
        given[lease->worker - 10]++;
        uint32_t held = old->leased_jobs + given[lease->worker - 10];
        uint32_t limit = before->rules[0].max_batch ? before->rules[0].max_batch : 1;
        assert_true(held == 1 || held <= limit);
        if (job->alone)
            assert_int_equal(after->workers[lease->worker - 10].leased_jobs, 1);
    }
    if (after->look_ns)
        assert_in_range(after->look_ns, NOW + 1, NOW + WINDOW);
    /* No usable worker is left with nothing while a job that it could run waits, unless it is held.
     */
    for (size_t w = 0; w < after->worker_count; w++)
        for (size_t j = 0; j < after->job_count; j++) {
            const struct placement_job *job = &after->jobs[j];
            if (!after->workers[w].usable || after->workers[w].leased_jobs > 0 ||
                job->model != after->workers[w].model || job->deadline_ns || leased[job->slot])
                continue;
            assert_true(may_be_held(before, job));
            assert_int_not_equal(after->look_ns, 0);
        }
}

static void no_rule_is_broken_in_random_scenes(void **state)
{
    (void)state;
    uint32_t seed = 1;
    size_t leases = 0;
    for (int i = 0; i < 5000; i++) {
        struct scene scene;
        fill_randomly(&scene, &seed);
        struct scene before = scene;
        decide(&scene);
        check_rules(&before, &scene);
        leases += scene.lease_count;
    }
    assert_true(leases > 5000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_comes_of_nothing),
        cmocka_unit_test(an_idle_worker_comes_before_a_busy_one),
        cmocka_unit_test(a_busy_worker_gets_a_job_ahead_where_none_is_idle),
        cmocka_unit_test(no_second_batch_waits_at_a_worker),
        cmocka_unit_test(priority_comes_before_age),
        cmocka_unit_test(a_burst_spreads_before_it_is_batched),
        cmocka_unit_test(batches_keep_to_the_limit_in_tiles),
        cmocka_unit_test(a_job_larger_than_a_batch_still_runs),
        cmocka_unit_test(only_equal_shapes_share_a_batch),
        cmocka_unit_test(a_job_with_deaths_is_leased_alone),
        cmocka_unit_test(unusable_workers_get_nothing),
        cmocka_unit_test(models_and_generations_do_not_mix),
        cmocka_unit_test(a_job_past_its_deadline_is_left_to_its_gateway),
        cmocka_unit_test(documents_share_a_batch_whatever_their_length),
        cmocka_unit_test(a_batch_limit_of_zero_means_one),
        cmocka_unit_test(lying_shapes_do_not_wrap_the_sums),
        cmocka_unit_test(nobody_waits_for_somebody_who_is_not_in_sight),
        cmocka_unit_test(a_job_waits_for_a_body_of_its_shape),
        cmocka_unit_test(no_job_waits_for_a_body_that_is_of_no_use_to_it),
        cmocka_unit_test(a_body_that_stalls_holds_nobody_for_long),
        cmocka_unit_test(nothing_is_held_beyond_the_window_of_the_oldest),
        cmocka_unit_test(a_clock_that_lies_holds_for_one_window_at_most),
        cmocka_unit_test(without_a_window_nothing_is_held),
        cmocka_unit_test(always_waits_for_a_full_batch),
        cmocka_unit_test(always_fills_one_worker_before_the_next),
        cmocka_unit_test(always_holds_what_would_wait_at_a_busy_worker_too),
        cmocka_unit_test(what_waits_at_a_busy_worker_is_not_held_for_bodies),
        cmocka_unit_test(only_the_last_idle_worker_holds_for_bodies),
        cmocka_unit_test(a_full_batch_waits_for_nobody),
        cmocka_unit_test(a_deadline_within_the_window_is_not_waited_for),
        cmocka_unit_test(a_job_with_deaths_is_not_held),
        cmocka_unit_test(those_that_are_held_let_other_shapes_pass),
        cmocka_unit_test(of_several_shapes_that_are_held_the_first_is_due_first),
        cmocka_unit_test(a_batch_that_was_held_goes_by_priority),
        cmocka_unit_test(shapes_beyond_the_limit_are_not_held),
        cmocka_unit_test(a_worker_holds_no_more_than_it_likes),
        cmocka_unit_test(no_rule_is_broken_in_random_scenes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
