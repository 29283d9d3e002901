/* The broker's policy as small tables: jobs and workers in, leases out. */
#include "broker/placement.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define NOW 1000000

static const struct unetserve_shape tile = {3, 3, {12, 256, 256}};
static const struct unetserve_shape large = {3, 3, {12, 512, 512}};
static const struct unetserve_shape four_tiles = {3, 4, {4, 12, 256, 256}};

struct scene {
    struct placement_job jobs[64];
    size_t job_count;
    struct placement_worker workers[16];
    size_t worker_count;
    uint32_t max_batch[16];
    struct placement_lease leases[64];
    size_t lease_count;
};

static void begin(struct scene *scene, uint32_t max_batch)
{
    memset(scene, 0, sizeof *scene);
    for (size_t i = 0; i < 16; i++)
        scene->max_batch[i] = max_batch;
}

/* Job number k in slot k, accepted in the order of being added. */
static struct placement_job *add_job(struct scene *scene, const struct unetserve_shape *shape)
{
    struct placement_job *job = &scene->jobs[scene->job_count];
    *job = (struct placement_job){
        .slot = (uint32_t)scene->job_count,
        .word = 5000 + scene->job_count,
        .generation = 1,
        .accepted_ns = 100 + scene->job_count,
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
    scene->lease_count = placement_decide(scene->jobs, scene->job_count, scene->workers,
                                          scene->worker_count, scene->max_batch, NOW,
                                          scene->leases);
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
    add_job(&scene, &tile)->accepted_ns = 50;
    add_job(&scene, &tile)->priority = 1;
    decide(&scene);
    assert_int_equal(scene.lease_count, 1);
    assert_int_equal(worker_of(&scene, 2), 10);
    begin(&scene, 1);
    add_worker(&scene, 0);
    add_job(&scene, &tile);
    add_job(&scene, &tile)->accepted_ns = 50;
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
        uint32_t limit = before->max_batch[0] ? before->max_batch[0] : 1;
        assert_true(held == 1 || held <= limit);
        if (job->alone)
            assert_int_equal(after->workers[lease->worker - 10].leased_jobs, 1);
    }
    /* No usable worker is left with nothing while a job that it could run waits. */
    for (size_t w = 0; w < after->worker_count; w++)
        for (size_t j = 0; j < after->job_count; j++)
            assert_false(after->workers[w].usable && after->workers[w].leased_jobs == 0 &&
                         after->jobs[j].model == after->workers[w].model &&
                         !after->jobs[j].deadline_ns && !leased[after->jobs[j].slot]);
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
        cmocka_unit_test(no_rule_is_broken_in_random_scenes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
