/* Which jobs are taken back from busy workers for idle ones: small tables, and random ones. */
#include "broker/placement.h"
#include "unetserve/handover.h"
#include "unetserve/queue.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define NOW    UINT64_C(1000000000)
#define LONG   (NOW - 10 * HANDOVER_PATIENCE_NS)
#define WINDOW 50000000

enum { BUSY, IDLE, THIRD };

static const struct unetserve_shape tile = {3, 3, {12, 256, 256}};
static const struct unetserve_shape large = {3, 3, {12, 512, 512}};

struct scene {
    struct placement_job jobs[32];
    size_t job_count;
    struct placement_job leased[32];
    size_t leased_count;
    struct placement_worker workers[8];
    size_t worker_count;
    struct placement_upload uploads[1];
    size_t upload_count;
    struct placement_rule rules[2];
    struct placement_lease given[32];
    size_t given_count;
    struct placement_lease moves[32];
    size_t move_count;
    uint64_t look_ns;
};

/* Worker number k has process index 10 + k; running: since when it runs one tile, 0: it does not.
 */
static struct placement_worker *add_worker(struct scene *scene, uint64_t begun_ns)
{
    struct placement_worker *worker = &scene->workers[scene->worker_count];
    *worker = (struct placement_worker){
        .index = (uint16_t)(10 + scene->worker_count++),
        .generation = 1,
        .usable = true,
        .running_tiles = begun_ns ? 1 : 0,
        .begun_ns = begun_ns,
    };
    return worker;
}

/* One worker that has run something for long, and an idle one. */
static void begin(struct scene *scene, uint32_t max_batch)
{
    memset(scene, 0, sizeof *scene);
    scene->rules[0].max_batch = scene->rules[1].max_batch = max_batch;
    add_worker(scene, LONG);
    add_worker(scene, 0);
}

static struct placement_job make_job(uint32_t slot, const struct unetserve_shape *shape)
{
    return (struct placement_job){
        .slot = slot,
        .word = 5000 + slot,
        .generation = 1,
        .accepted_ns = NOW - 1000 + slot,
        .tiles = placement_tiles(shape),
        .shape = *shape,
    };
}

/* In READY: slots from 20 on, accepted in the order of being added, after all that is leased. */
static struct placement_job *add_job(struct scene *scene, const struct unetserve_shape *shape)
{
    struct placement_job *job = &scene->jobs[scene->job_count];
    *job = make_job((uint32_t)(20 + scene->job_count++), shape);
    return job;
}

/* In LEASED: slots from 0 on, accepted in the order of being added. */
static struct placement_job *add_lease(struct scene *scene, uint16_t holder,
                                       const struct unetserve_shape *shape, bool alone)
{
    struct placement_job *job = &scene->leased[scene->leased_count];
    *job = make_job((uint32_t)scene->leased_count++, shape);
    job->holder = holder;
    job->alone = alone;
    placement_add_lease(&scene->workers[holder], shape, job->tiles, alone);
    return job;
}

static void decide(struct scene *scene)
{
    const struct placement_scene view = {
        .jobs = scene->jobs,
        .job_count = scene->job_count,
        .leased = scene->leased,
        .leased_count = scene->leased_count,
        .workers = scene->workers,
        .worker_count = scene->worker_count,
        .uploads = scene->uploads,
        .upload_count = scene->upload_count,
        .rules = scene->rules,
        .now_ns = NOW,
    };
    scene->given_count = placement_decide(&view, scene->given, &scene->look_ns);
    scene->move_count = placement_take_back(&view, scene->moves);
}

/* Where the lease of that slot went: a worker's number, or -1: it stayed. */
static int moved_to(const struct scene *scene, uint32_t slot)
{
    for (size_t i = 0; i < scene->move_count; i++) {
        if (scene->moves[i].slot == slot) {
            assert_int_equal(scene->moves[i].word, 5000 + slot);
            return scene->moves[i].worker - 10;
        }
    }
    return -1;
}

/* The next look at what this one has done, as if nothing had happened since. */
static void carry_on(struct scene *scene)
{
    for (size_t m = 0; m < scene->move_count; m++)
        for (size_t i = 0; i < scene->leased_count; i++)
            if (scene->leased[i].slot == scene->moves[m].slot)
                scene->leased[i].holder = (uint16_t)(scene->moves[m].worker - 10);
    for (size_t g = 0; g < scene->given_count; g++) {
        for (size_t i = 0; i < scene->job_count; i++) {
            if (scene->jobs[i].slot != scene->given[g].slot)
                continue;
            scene->leased[scene->leased_count] = scene->jobs[i];
            scene->leased[scene->leased_count++].holder = (uint16_t)(scene->given[g].worker - 10);
            scene->jobs[i] = scene->jobs[--scene->job_count];
            break;
        }
    }
    for (size_t w = 0; w < scene->worker_count; w++) {
        struct placement_worker *worker = &scene->workers[w];
        worker->leased_jobs = worker->leased_tiles = 0;
        worker->leased_alone = false;
    }
    for (size_t i = 0; i < scene->leased_count; i++) {
        const struct placement_job *job = &scene->leased[i];
        placement_add_lease(&scene->workers[job->holder], &job->shape, job->tiles, job->alone);
    }
}

static void what_waits_behind_a_long_job_goes_to_the_idle_worker(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 1);
    add_lease(&scene, BUSY, &tile, false);
    decide(&scene);
    assert_int_equal(scene.move_count, 1);
    assert_int_equal(moved_to(&scene, 0), IDLE);
    assert_int_equal(scene.workers[BUSY].leased_jobs, 0);
    assert_int_equal(scene.workers[BUSY].leased_tiles, 0);
    assert_int_equal(scene.workers[IDLE].leased_jobs, 1);
}

static void nothing_is_taken_where_jobs_in_ready_suffice(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 1);
    add_lease(&scene, BUSY, &tile, false);
    add_job(&scene, &large);
    decide(&scene);
    assert_int_equal(scene.given_count, 1);
    assert_int_equal(scene.given[0].worker, 10 + IDLE);
    assert_int_equal(scene.move_count, 0);
    /* One is not enough for two. */
    begin(&scene, 1);
    add_worker(&scene, 0);
    add_lease(&scene, BUSY, &tile, false);
    add_job(&scene, &large);
    decide(&scene);
    assert_int_equal(scene.given_count, 1);
    assert_int_equal(scene.move_count, 1);
    assert_int_not_equal(moved_to(&scene, 0), scene.given[0].worker - 10);
    /* Nor are those that no worker starts any more, and those of another model. */
    begin(&scene, 1);
    add_lease(&scene, BUSY, &tile, false);
    add_job(&scene, &tile)->deadline_ns = NOW;
    add_job(&scene, &tile)->model = 1;
    decide(&scene);
    assert_int_equal(scene.given_count, 0);
    assert_int_equal(moved_to(&scene, 0), IDLE);
}

static void nothing_is_taken_for_those_who_could_not_run_it(void **state)
{
    (void)state;
    for (int i = 0; i < 5; i++) {
        struct scene scene;
        begin(&scene, 1);
        add_lease(&scene, BUSY, &tile, false);
        struct placement_worker *worker = &scene.workers[IDLE];
        worker->usable = i != 0;
        worker->model = i == 1;
        worker->generation = i == 2 ? 2 : 1;
        worker->running_tiles = i == 3;
        if (i == 4)
            add_lease(&scene, IDLE, &tile, false);
        decide(&scene);
        assert_int_equal(scene.move_count, 0);
    }
}

static void the_only_worker_keeps_what_it_has(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 4);
    scene.worker_count = 1;
    add_lease(&scene, BUSY, &tile, false);
    add_lease(&scene, BUSY, &tile, false);
    decide(&scene);
    assert_int_equal(scene.move_count, 0);
    assert_int_equal(scene.workers[BUSY].leased_jobs, 2);
}

static void who_runs_nothing_keeps_what_it_is_about_to_run(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 1);
    add_lease(&scene, BUSY, &tile, false);
    scene.workers[BUSY].running_tiles = 0;
    decide(&scene);
    assert_int_equal(scene.move_count, 0);
}

static void who_has_just_begun_something_gets_a_moment(void **state)
{
    (void)state;
    /* 0: it has not said so yet. In the future: its clock lies. */
    const uint64_t begun_ns[] = {NOW - HANDOVER_PATIENCE_NS + 1, NOW, 0, NOW + 5, UINT64_MAX};
    for (size_t i = 0; i < sizeof begun_ns / sizeof begun_ns[0]; i++) {
        struct scene scene;
        begin(&scene, 1);
        add_lease(&scene, BUSY, &tile, false);
        scene.workers[BUSY].begun_ns = begun_ns[i];
        decide(&scene);
        assert_int_equal(scene.move_count, 0);
        scene.workers[BUSY].begun_ns = NOW - HANDOVER_PATIENCE_NS;
        decide(&scene);
        assert_int_equal(moved_to(&scene, 0), IDLE);
    }
}

static void the_most_urgent_is_taken_first(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 1);
    add_worker(&scene, LONG);
    add_worker(&scene, LONG);
    add_lease(&scene, BUSY, &tile, false)->accepted_ns = NOW - 10;
    add_lease(&scene, THIRD, &tile, false)->accepted_ns = NOW - 20;
    add_lease(&scene, 3, &tile, false)->accepted_ns = NOW - 15;
    struct scene urgent = scene;
    decide(&scene);
    assert_int_equal(scene.move_count, 1);
    assert_int_equal(moved_to(&scene, 1), IDLE);
    urgent.leased[0].priority = 1;
    decide(&urgent);
    assert_int_equal(urgent.move_count, 1);
    assert_int_equal(moved_to(&urgent, 0), IDLE);
}

static void a_batch_goes_together_and_no_more_than_one(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 2);
    add_worker(&scene, LONG);
    add_lease(&scene, BUSY, &tile, false);
    add_lease(&scene, THIRD, &large, false);
    add_lease(&scene, BUSY, &tile, false);
    decide(&scene);
    assert_int_equal(scene.move_count, 2);
    assert_int_equal(moved_to(&scene, 0), IDLE);
    assert_int_equal(moved_to(&scene, 1), -1); /* of another shape */
    assert_int_equal(moved_to(&scene, 2), IDLE);
    /* Those of one shape of several workers, up to a batch of the one who takes them. */
    begin(&scene, 3);
    add_worker(&scene, LONG);
    for (uint16_t i = 0; i < 4; i++)
        add_lease(&scene, i % 2 ? THIRD : BUSY, &tile, false);
    scene.workers[IDLE].max_batch = 3;
    decide(&scene);
    assert_int_equal(scene.move_count, 3);
    assert_int_equal(moved_to(&scene, 3), -1);
    assert_int_equal(scene.workers[THIRD].leased_jobs, 1);
}

static void a_batch_spreads_over_all_who_are_idle(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 4);
    add_worker(&scene, 0);
    for (int i = 0; i < 4; i++)
        add_lease(&scene, BUSY, &tile, false);
    decide(&scene);
    assert_int_equal(scene.move_count, 4);
    assert_int_equal(scene.workers[IDLE].leased_jobs, 2);
    assert_int_equal(scene.workers[THIRD].leased_jobs, 2);
}

static void a_job_with_deaths_is_taken_alone(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 4);
    add_worker(&scene, LONG);
    add_lease(&scene, BUSY, &tile, true);
    add_lease(&scene, THIRD, &tile, false);
    decide(&scene);
    assert_int_equal(scene.move_count, 1);
    assert_int_equal(moved_to(&scene, 0), IDLE);
    assert_false(scene.workers[BUSY].leased_alone);
    /* Nor does it join another. */
    begin(&scene, 4);
    add_worker(&scene, LONG);
    add_lease(&scene, BUSY, &tile, false);
    add_lease(&scene, THIRD, &tile, true);
    decide(&scene);
    assert_int_equal(scene.move_count, 1);
    assert_int_equal(moved_to(&scene, 0), IDLE);
}

static void a_job_past_its_deadline_stays(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 4);
    add_lease(&scene, BUSY, &tile, false)->deadline_ns = NOW;
    add_lease(&scene, BUSY, &tile, false)->deadline_ns = NOW + 1;
    decide(&scene);
    assert_int_equal(scene.move_count, 1);
    assert_int_equal(moved_to(&scene, 1), IDLE);
}

/* By the window's end at the latest they have a worker: as many as that many keep nothing else. */
static void who_will_run_those_that_are_held_takes_nothing(void **state)
{
    (void)state;
    for (int always = 0; always < 2; always++) {
        struct scene scene;
        begin(&scene, 4);
        scene.rules[0].window_ns = WINDOW;
        scene.rules[0].always = always;
        add_lease(&scene, BUSY, &tile, false);
        add_job(&scene, &large)->accepted_ns = NOW;
        scene.uploads[scene.upload_count++] = (struct placement_upload){
            .generation = 1, .shape_key = queue_shape_key(&large), .ends_ns = NOW + 2000000};
        decide(&scene);
        assert_int_equal(scene.given_count, 0);
        assert_int_equal(scene.move_count, 0);
        if (!always)
            continue;
        add_worker(&scene, 0);
        decide(&scene);
        assert_int_equal(scene.given_count, 0);
        assert_int_equal(scene.move_count, 1);
        assert_int_equal(moved_to(&scene, 0), THIRD);
    }
}

static void repeated_looks_move_nothing_twice(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene, 2);
    add_worker(&scene, LONG);
    add_lease(&scene, BUSY, &tile, false);
    add_lease(&scene, BUSY, &tile, false);
    add_lease(&scene, THIRD, &large, false);
    decide(&scene);
    assert_int_equal(scene.move_count, 2);
    for (int look = 0; look < 3; look++) {
        carry_on(&scene);
        decide(&scene);
        assert_int_equal(scene.move_count, 0);
    }
    /* It has begun them: those who still wait have no other chance than before. */
    scene.workers[IDLE].running_tiles = 2;
    scene.workers[IDLE].begun_ns = LONG;
    scene.leased[0] = scene.leased[--scene.leased_count];
    carry_on(&scene);
    decide(&scene);
    assert_int_equal(scene.move_count, 0);
}

/* ---- whatever the scene: a fixed generator, so that a failure repeats ---- */

static uint32_t next_random(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 16;
}

static void fill_randomly(struct scene *scene, uint32_t *seed)
{
    memset(scene, 0, sizeof *scene);
    for (uint32_t i = 0; i < 2; i++) {
        scene->rules[i].max_batch = next_random(seed) % 5;
        scene->rules[i].window_ns = next_random(seed) % 3 ? 0 : WINDOW;
        scene->rules[i].always = next_random(seed) % 2;
    }
    uint32_t workers = next_random(seed) % 6 + 1;
    for (uint32_t i = 0; i < workers; i++) {
        struct placement_worker *worker = add_worker(
            scene, next_random(seed) % 2 ? NOW - next_random(seed) % 3 * HANDOVER_PATIENCE_NS : 0);
        worker->model = next_random(seed) % 4 == 0;
        worker->usable = next_random(seed) % 5 != 0;
        uint32_t leases = worker->running_tiles ? next_random(seed) % 4 : next_random(seed) % 2;
        bool alone = leases == 1 && next_random(seed) % 3 == 0;
        for (uint32_t k = 0; k < leases; k++) {
            struct placement_job *job = add_lease(scene, (uint16_t)i, &tile, alone);
            job->model = worker->model;
            job->priority = (int32_t)(next_random(seed) % 2);
            job->deadline_ns = next_random(seed) % 5 ? 0 : NOW - 1;
        }
    }
    uint32_t jobs = next_random(seed) % 4;
    for (uint32_t i = 0; i < jobs; i++)
        add_job(scene, next_random(seed) % 2 ? &tile : &large)->model = next_random(seed) % 2;
}

static bool may_be_given(const struct placement_worker *worker, const struct placement_job *job)
{
    return worker->usable && worker->model == job->model && worker->running_tiles == 0 &&
           worker->leased_jobs == 0;
}

static void check_moves(const struct scene *before, const struct scene *after)
{
    for (size_t i = 0; i < after->move_count; i++) {
        const struct placement_lease *move = &after->moves[i];
        size_t k = 0;
        while (k < before->leased_count && before->leased[k].slot != move->slot)
            k++;
        assert_true(k < before->leased_count);
        const struct placement_job *job = &before->leased[k];
        const struct placement_worker *holder = &before->workers[job->holder];
        assert_true(may_be_given(&before->workers[move->worker - 10], job));
        assert_true(holder->running_tiles && holder->begun_ns + HANDOVER_PATIENCE_NS <= NOW);
        assert_int_equal(job->deadline_ns, 0);
        const struct placement_worker *worker = &after->workers[move->worker - 10];
        uint32_t limit = before->rules[job->model].max_batch;
        assert_true(worker->leased_jobs == 1 || worker->leased_jobs <= limit);
        assert_true(worker->leased_jobs == 1 || !job->alone);
        for (size_t g = 0; g < after->given_count; g++)
            assert_int_not_equal(after->given[g].worker, move->worker);
    }
}

static void check_left(const struct scene *after)
{
    uint32_t leased = 0;
    for (size_t w = 0; w < after->worker_count; w++)
        leased += after->workers[w].leased_jobs;
    assert_int_equal(leased, after->leased_count + after->given_count);
    /* Nobody is stuck behind a long job while a worker is idle, but for those that are held for. */
    for (size_t i = 0; i < after->leased_count; i++) {
        const struct placement_job *job = &after->leased[i];
        const struct placement_worker *holder = &after->workers[job->holder];
        if (job->settled || job->deadline_ns || !holder->running_tiles ||
            holder->begun_ns + HANDOVER_PATIENCE_NS > NOW)
            continue;
        size_t idle = 0, held = 0;
        for (size_t w = 0; w < after->worker_count; w++)
            idle += may_be_given(&after->workers[w], job);
        for (size_t j = 0; j < after->job_count; j++)
            held += after->jobs[j].held && after->jobs[j].model == job->model;
        assert_true(idle <= held);
    }
}

static void no_rule_is_broken_in_random_scenes(void **state)
{
    (void)state;
    uint32_t seed = 1;
    size_t moves = 0;
    for (int i = 0; i < 5000; i++) {
        struct scene scene;
        fill_randomly(&scene, &seed);
        struct scene before = scene;
        decide(&scene);
        check_moves(&before, &scene);
        check_left(&scene);
        moves += scene.move_count;
        carry_on(&scene);
        decide(&scene);
        assert_int_equal(scene.move_count, 0);
    }
    assert_true(moves > 300);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_waits_behind_a_long_job_goes_to_the_idle_worker),
        cmocka_unit_test(nothing_is_taken_where_jobs_in_ready_suffice),
        cmocka_unit_test(nothing_is_taken_for_those_who_could_not_run_it),
        cmocka_unit_test(the_only_worker_keeps_what_it_has),
        cmocka_unit_test(who_runs_nothing_keeps_what_it_is_about_to_run),
        cmocka_unit_test(who_has_just_begun_something_gets_a_moment),
        cmocka_unit_test(the_most_urgent_is_taken_first),
        cmocka_unit_test(a_batch_goes_together_and_no_more_than_one),
        cmocka_unit_test(a_batch_spreads_over_all_who_are_idle),
        cmocka_unit_test(a_job_with_deaths_is_taken_alone),
        cmocka_unit_test(a_job_past_its_deadline_stays),
        cmocka_unit_test(who_will_run_those_that_are_held_takes_nothing),
        cmocka_unit_test(repeated_looks_move_nothing_twice),
        cmocka_unit_test(no_rule_is_broken_in_random_scenes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
