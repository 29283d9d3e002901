/* The broker's look at a real queue: leases given, leases taken back, who is woken. */
#include "broker/survey.h"
#include "unetserve/handover.h"
#include "unetserve/seat.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

enum { GATEWAY_SEAT = 1, FIRST_WORKER_SEAT = 3, SEATS = 3 };

struct scene {
    struct queue queue;
    struct survey *survey;
    uint16_t gateway;
    uint64_t clock;
};

static const struct unetserve_shape image = {UNETSERVE_U8, 3, {1, 2, 2}};

static void begin(struct scene *scene)
{
    struct queue_geometry geometry = {
        .class_count = 1, .model_count = 2, .classes = {{4096, 4096, 8, 0}}};
    memset(scene, 0, sizeof *scene);
    assert_int_equal(queue_create(&geometry, &scene->queue), 0);
    assert_int_equal(
        queue_process_enter(&scene->queue, QUEUE_GATEWAY, GATEWAY_SEAT, &scene->gateway), 0);
    atomic_store(&scene->queue.models[0].max_batch, 2);
    atomic_store(&scene->queue.models[1].max_batch, 2);
    scene->survey = survey_create(&scene->queue);
    assert_non_null(scene->survey);
    for (int seat = FIRST_WORKER_SEAT; seat < FIRST_WORKER_SEAT + SEATS; seat++) {
        int fd = eventfd(0, EFD_NONBLOCK);
        assert_int_equal(dup2(fd, SEAT_FD_EVENT + seat), SEAT_FD_EVENT + seat);
        close(fd);
    }
}

static void end(struct scene *scene)
{
    for (int seat = FIRST_WORKER_SEAT; seat < FIRST_WORKER_SEAT + SEATS; seat++)
        close(SEAT_FD_EVENT + seat);
    survey_free(scene->survey);
    queue_close(&scene->queue);
}

static uint16_t add_worker(struct scene *scene, uint32_t seat, uint32_t model)
{
    uint16_t index;
    assert_int_equal(
        queue_process_enter(&scene->queue, QUEUE_WORKER, FIRST_WORKER_SEAT + seat, &index), 0);
    struct queue_process *process = &scene->queue.processes[index];
    atomic_store(&process->model, model);
    atomic_store(&process->model_generation, 1);
    atomic_store(&process->ready, 1);
    return index;
}

static uint64_t wakes(uint32_t seat)
{
    uint64_t count = 0;
    int fd = SEAT_FD_EVENT + FIRST_WORKER_SEAT + (int)seat;
    return read(fd, &count, sizeof count) == sizeof count ? count : 0;
}

static uint32_t submit(struct scene *scene, uint32_t model)
{
    uint32_t slot;
    uint64_t word;
    assert_int_equal(queue_reserve(&scene->queue, scene->gateway, 64, 64, &slot, &word), 0);
    struct queue_slot *fields = &scene->queue.slots[slot];
    atomic_store(&fields->model, model);
    atomic_store(&fields->model_generation, 1);
    atomic_store(&fields->accepted_ns, ++scene->clock);
    fields->input_shape = image;
    assert_true(queue_move(&scene->queue, QUEUE_GATEWAY, slot, word, QUEUE_READY, 0, NULL));
    return slot;
}

static void lease(struct scene *scene, uint32_t slot, uint16_t worker)
{
    assert_true(queue_move(&scene->queue, QUEUE_BROKER, slot, queue_word(&scene->queue, slot),
                           QUEUE_LEASED, worker, NULL));
}

static void expect(const struct scene *scene, uint32_t slot, enum queue_state state, uint16_t owner)
{
    uint64_t word = queue_word(&scene->queue, slot);
    assert_string_equal(queue_state_name(queue_word_state(word)), queue_state_name(state));
    assert_int_equal(queue_word_owner(word), owner);
}

static void an_empty_queue_is_not_busy(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene);
    add_worker(&scene, 0, 0);
    struct survey_result result = survey_look(scene.survey, &scene.queue, true);
    assert_false(result.busy);
    assert_int_equal(result.leased, 0);
    assert_int_equal(wakes(0), 0);
    end(&scene);
}

static void a_waiting_job_is_leased_and_its_worker_woken_once(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene);
    uint16_t worker = add_worker(&scene, 0, 0);
    uint32_t first = submit(&scene, 0);
    uint32_t second = submit(&scene, 0);
    uint32_t third = submit(&scene, 0);
    struct survey_result result = survey_look(scene.survey, &scene.queue, false);
    assert_true(result.busy);
    assert_int_equal(result.leased, 2);
    expect(&scene, first, QUEUE_LEASED, worker);
    expect(&scene, second, QUEUE_LEASED, worker);
    expect(&scene, third, QUEUE_READY, 0);
    assert_int_equal(wakes(0), 1);
    end(&scene);
}

static void a_new_broker_sees_what_the_old_one_leased(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene);
    uint16_t busy = add_worker(&scene, 0, 0);
    uint16_t idle = add_worker(&scene, 1, 0);
    uint32_t running = submit(&scene, 0);
    lease(&scene, running, busy);
    assert_true(queue_move(&scene.queue, QUEUE_WORKER, running, queue_word(&scene.queue, running),
                           QUEUE_RUN, busy, NULL));
    lease(&scene, submit(&scene, 0), busy);
    uint32_t fresh = submit(&scene, 0);
    assert_int_equal(survey_look(scene.survey, &scene.queue, true).leased, 1);
    expect(&scene, fresh, QUEUE_LEASED, idle);
    assert_int_equal(wakes(0), 0);
    assert_int_equal(wakes(1), 1);
    end(&scene);
}

static void a_worker_whose_wake_up_was_lost_is_reminded(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene);
    lease(&scene, submit(&scene, 0), add_worker(&scene, 0, 0));
    survey_look(scene.survey, &scene.queue, false);
    assert_int_equal(wakes(0), 0);
    survey_look(scene.survey, &scene.queue, true);
    assert_int_equal(wakes(0), 1);
    end(&scene);
}

/* Lease to a worker that then changes; where does the job go when another one is there? */
static void check_taken_back(void (*change)(struct scene *scene, uint16_t worker))
{
    struct scene scene;
    begin(&scene);
    uint16_t worker = add_worker(&scene, 0, 0);
    uint16_t heir = add_worker(&scene, 1, 0);
    uint32_t slot = submit(&scene, 0);
    lease(&scene, slot, worker);
    change(&scene, worker);
    struct survey_result result = survey_look(scene.survey, &scene.queue, false);
    assert_int_equal(result.taken_back, 1);
    assert_int_equal(result.leased, 1);
    expect(&scene, slot, QUEUE_LEASED, heir);
    end(&scene);
}

static void drain(struct scene *scene, uint16_t worker)
{
    atomic_store(&scene->queue.processes[worker].draining, 1);
}
static void condemn(struct scene *scene, uint16_t worker)
{
    atomic_store(&scene->queue.processes[worker].life, QUEUE_CONDEMNED);
}
static void die(struct scene *scene, uint16_t worker)
{
    queue_process_leave(&scene->queue, worker, true);
}
static void become_gateway(struct scene *scene, uint16_t worker)
{
    atomic_store(&scene->queue.processes[worker].role, QUEUE_GATEWAY);
}
static void change_model(struct scene *scene, uint16_t worker)
{
    atomic_store(&scene->queue.processes[worker].model, 1);
}
static void change_generation(struct scene *scene, uint16_t worker)
{
    atomic_store(&scene->queue.processes[worker].model_generation, 2);
}

static void leases_of_workers_that_will_not_run_them_are_taken_back(void **state)
{
    (void)state;
    check_taken_back(drain);
    check_taken_back(condemn);
    check_taken_back(die);
    check_taken_back(become_gateway);
    check_taken_back(change_model);
    check_taken_back(change_generation);
}

static void a_worker_that_is_leaving_keeps_its_leases_and_gets_no_more(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene);
    uint16_t worker = add_worker(&scene, 0, 0);
    uint32_t kept = submit(&scene, 0);
    lease(&scene, kept, worker);
    atomic_store(&scene.queue.processes[worker].ready, 0);
    uint32_t waiting = submit(&scene, 0);
    struct survey_result result = survey_look(scene.survey, &scene.queue, false);
    assert_int_equal(result.taken_back, 0);
    expect(&scene, kept, QUEUE_LEASED, worker);
    expect(&scene, waiting, QUEUE_READY, 0);
    end(&scene);
}

static void condemned_workers_and_other_models_get_nothing(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene);
    uint16_t worker = add_worker(&scene, 0, 0);
    add_worker(&scene, 1, 1);
    condemn(&scene, worker);
    uint32_t slot = submit(&scene, 0);
    uint32_t nonsense = submit(&scene, 0);
    atomic_store(&scene.queue.slots[nonsense].model, 12345);
    assert_int_equal(survey_look(scene.survey, &scene.queue, true).leased, 0);
    expect(&scene, slot, QUEUE_READY, 0);
    expect(&scene, nonsense, QUEUE_READY, 0);
    end(&scene);
}

/* Since so long ago. */
static uint32_t run(struct scene *scene, uint16_t worker, uint64_t since_ns)
{
    uint32_t slot = submit(scene, 0);
    lease(scene, slot, worker);
    assert_true(queue_move(&scene->queue, QUEUE_WORKER, slot, queue_word(&scene->queue, slot),
                           QUEUE_RUN, worker, NULL));
    atomic_store(&scene->queue.slots[slot].started_ns, queue_now_ns() - since_ns);
    return slot;
}

static void what_waits_behind_a_long_job_is_given_to_who_becomes_idle(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene);
    uint16_t busy = add_worker(&scene, 0, 0);
    uint16_t other = add_worker(&scene, 1, 0);
    uint32_t held = run(&scene, busy, HANDOVER_PATIENCE_NS);
    uint32_t running = run(&scene, other, HANDOVER_PATIENCE_NS);
    uint32_t first = submit(&scene, 0);
    uint32_t second = submit(&scene, 0);
    lease(&scene, first, busy);
    lease(&scene, second, busy);
    struct survey_result result = survey_look(scene.survey, &scene.queue, true);
    assert_int_equal(result.taken_back, 0);
    assert_true(queue_move(&scene.queue, QUEUE_WORKER, running, queue_word(&scene.queue, running),
                           QUEUE_DONE, 0, NULL));
    uint32_t generation = queue_word_generation(queue_word(&scene.queue, first));
    result = survey_look(scene.survey, &scene.queue, false);
    assert_int_equal(result.taken_back, 2);
    assert_int_equal(result.leased, 2);
    expect(&scene, held, QUEUE_RUN, busy);
    expect(&scene, first, QUEUE_LEASED, other);
    expect(&scene, second, QUEUE_LEASED, other);
    assert_int_equal(queue_word_generation(queue_word(&scene.queue, first)), generation);
    assert_int_equal(wakes(0), 0);
    assert_int_equal(wakes(1), 1);
    for (int i = 0; i < 3; i++)
        assert_int_equal(survey_look(scene.survey, &scene.queue, false).taken_back, 0);
    expect(&scene, first, QUEUE_LEASED, other);
    end(&scene);
}

/* The autoscaler's, say: it is no worker until it is ready. */
static void a_new_worker_is_given_what_waits_behind_a_long_job(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene);
    uint16_t busy = add_worker(&scene, 0, 0);
    uint16_t fresh = add_worker(&scene, 1, 0);
    atomic_store(&scene.queue.processes[fresh].ready, 0);
    run(&scene, busy, HANDOVER_PATIENCE_NS);
    uint32_t slot = submit(&scene, 0);
    lease(&scene, slot, busy);
    assert_int_equal(survey_look(scene.survey, &scene.queue, false).taken_back, 0);
    atomic_store(&scene.queue.processes[fresh].model_generation, 2);
    atomic_store(&scene.queue.processes[fresh].ready, 1);
    assert_int_equal(survey_look(scene.survey, &scene.queue, false).taken_back, 0);
    expect(&scene, slot, QUEUE_LEASED, busy);
    atomic_store(&scene.queue.processes[fresh].model_generation, 1);
    assert_int_equal(survey_look(scene.survey, &scene.queue, false).taken_back, 1);
    expect(&scene, slot, QUEUE_LEASED, fresh);
    end(&scene);
}

/* Its worker has not even said when. */
static void what_waits_behind_a_job_that_has_just_begun_stays(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene);
    uint16_t busy = add_worker(&scene, 0, 0);
    add_worker(&scene, 1, 0);
    uint32_t running = run(&scene, busy, 0);
    atomic_store(&scene.queue.slots[running].started_ns, 0);
    uint32_t slot = submit(&scene, 0);
    lease(&scene, slot, busy);
    assert_int_equal(survey_look(scene.survey, &scene.queue, false).taken_back, 0);
    expect(&scene, slot, QUEUE_LEASED, busy);
    end(&scene);
}

/* ---- the worker runs it at the very moment at which the broker takes it back ---- */

enum { RACES = 3000 };

struct race {
    struct scene scene;
    uint16_t workers[2];
    uint32_t slot;
    _Atomic unsigned round; /* odd: the race is on; even: it is over */
    _Atomic unsigned ready; /* how many wait for the next */
    _Atomic unsigned starts;
    unsigned started_by[2]; /* by the one who had it, and the one who was given it */
};

/* A worker's look: it starts what is leased to it. */
static unsigned start_leased(struct race *race, unsigned number)
{
    struct queue *queue = &race->scene.queue;
    uint64_t word = queue_word(queue, race->slot);
    if (queue_word_state(word) != QUEUE_LEASED || queue_word_owner(word) != race->workers[number])
        return 0;
    return queue_move(queue, QUEUE_WORKER, race->slot, word, QUEUE_RUN, race->workers[number],
                      NULL);
}

/* The worker whose long job ends just then. */
static void *holder_runs(void *argument)
{
    struct race *race = argument;
    for (unsigned round = 1; round < 2 * RACES; round += 2) {
        atomic_fetch_add(&race->ready, 1);
        while (atomic_load(&race->round) < round)
            sched_yield();
        unsigned started = start_leased(race, 0);
        race->started_by[0] += started;
        atomic_fetch_add(&race->starts, started);
        atomic_fetch_add(&race->ready, 1);
        while (atomic_load(&race->round) < round + 1)
            sched_yield();
    }
    return NULL;
}

static void wait_for_holder(struct race *race)
{
    while (atomic_load(&race->ready) == 0)
        sched_yield();
    atomic_store(&race->ready, 0);
}

static void race_once(struct race *race, unsigned round)
{
    struct queue *queue = &race->scene.queue;
    race->slot = submit(&race->scene, 0);
    lease(&race->scene, race->slot, race->workers[0]);
    wait_for_holder(race);
    atomic_store(&race->starts, 0);
    atomic_store(&race->round, round);
    struct survey_result result = survey_look(race->scene.survey, queue, false);
    wait_for_holder(race);
    unsigned taken = start_leased(race, 1);
    race->started_by[1] += taken;
    assert_int_equal(atomic_load(&race->starts) + taken, 1);
    assert_int_equal(result.taken_back, taken);
    uint64_t word = queue_word(queue, race->slot);
    assert_true(queue_move(queue, QUEUE_WORKER, race->slot, word, QUEUE_DONE, 0, &word));
    assert_true(queue_move(queue, QUEUE_GATEWAY, race->slot, word, QUEUE_FREE, 0, NULL));
    atomic_store(&race->round, round + 1);
}

static void one_of_broker_and_worker_has_the_job(void **state)
{
    (void)state;
    static struct race race;
    begin(&race.scene);
    race.workers[0] = add_worker(&race.scene, 0, 0);
    race.workers[1] = add_worker(&race.scene, 1, 0);
    run(&race.scene, race.workers[0], HANDOVER_PATIENCE_NS);
    pthread_t holder;
    assert_int_equal(pthread_create(&holder, NULL, holder_runs, &race), 0);
    for (unsigned round = 1; round < 2 * RACES; round += 2)
        race_once(&race, round);
    pthread_join(holder, NULL);
    assert_int_equal(race.started_by[0] + race.started_by[1], RACES);
    end(&race.scene);
}

/* A slot in RECV whose body will be whole in so many milliseconds. */
static void receive(struct scene *scene, uint32_t model, int64_t in_ms)
{
    uint32_t slot;
    uint64_t word;
    assert_int_equal(queue_reserve(&scene->queue, scene->gateway, 64, 64, &slot, &word), 0);
    struct queue_slot *fields = &scene->queue.slots[slot];
    atomic_store(&fields->model, model);
    atomic_store(&fields->model_generation, 1);
    atomic_store(&fields->upload_ends_ns, queue_now_ns() + (uint64_t)(in_ms * 1000000));
    atomic_store(&fields->upload_shape, queue_shape_key(&image));
}

/* Windows of a minute, so that none of them ends in this test. */
static uint32_t submit_now(struct scene *scene, bool always)
{
    atomic_store(&scene->queue.models[0].batch_timeout_us, 60000000);
    atomic_store(&scene->queue.models[0].batch_always, always);
    scene->clock = queue_now_ns();
    return submit(scene, 0);
}

static void a_job_is_held_for_a_body_that_is_coming(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene);
    uint16_t worker = add_worker(&scene, 0, 0);
    receive(&scene, 0, 30000);
    uint32_t slot = submit_now(&scene, false);
    struct survey_result result = survey_look(scene.survey, &scene.queue, false);
    assert_int_equal(result.leased, 0);
    assert_in_range(result.look_ns, scene.clock + 1, scene.clock + UINT64_C(60000000000));
    expect(&scene, slot, QUEUE_READY, 0);
    /* A broker that has just been started comes to the same end. */
    struct survey *fresh = survey_create(&scene.queue);
    assert_non_null(fresh);
    assert_int_equal(survey_look(fresh, &scene.queue, true).look_ns, result.look_ns);
    survey_free(fresh);
    uint32_t second = submit(&scene, 0);
    result = survey_look(scene.survey, &scene.queue, false);
    assert_int_equal(result.leased, 2);
    assert_int_equal(result.look_ns, 0);
    expect(&scene, slot, QUEUE_LEASED, worker);
    expect(&scene, second, QUEUE_LEASED, worker);
    end(&scene);
}

static void a_job_is_not_held_for_others_bodies(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene);
    uint16_t worker = add_worker(&scene, 0, 0);
    receive(&scene, 1, 30000);
    receive(&scene, 0, -30000);
    receive(&scene, 0, 90000);
    uint32_t slot = submit_now(&scene, false);
    struct survey_result result = survey_look(scene.survey, &scene.queue, false);
    assert_int_equal(result.look_ns, 0);
    expect(&scene, slot, QUEUE_LEASED, worker);
    end(&scene);
}

static void always_holds_to_the_end_of_the_window(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene);
    add_worker(&scene, 0, 0);
    uint32_t slot = submit_now(&scene, true);
    struct survey_result result = survey_look(scene.survey, &scene.queue, false);
    expect(&scene, slot, QUEUE_READY, 0);
    assert_int_equal(result.look_ns,
                     atomic_load(&scene.queue.slots[slot].accepted_ns) + UINT64_C(60000000000));
    atomic_store(&scene.queue.models[0].batch_timeout_us, 0);
    assert_int_equal(survey_look(scene.survey, &scene.queue, false).leased, 1);
    end(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_queue_is_not_busy),
        cmocka_unit_test(a_waiting_job_is_leased_and_its_worker_woken_once),
        cmocka_unit_test(a_new_broker_sees_what_the_old_one_leased),
        cmocka_unit_test(a_worker_whose_wake_up_was_lost_is_reminded),
        cmocka_unit_test(leases_of_workers_that_will_not_run_them_are_taken_back),
        cmocka_unit_test(a_worker_that_is_leaving_keeps_its_leases_and_gets_no_more),
        cmocka_unit_test(condemned_workers_and_other_models_get_nothing),
        cmocka_unit_test(what_waits_behind_a_long_job_is_given_to_who_becomes_idle),
        cmocka_unit_test(a_new_worker_is_given_what_waits_behind_a_long_job),
        cmocka_unit_test(what_waits_behind_a_job_that_has_just_begun_stays),
        cmocka_unit_test(one_of_broker_and_worker_has_the_job),
        cmocka_unit_test(a_job_is_held_for_a_body_that_is_coming),
        cmocka_unit_test(a_job_is_not_held_for_others_bodies),
        cmocka_unit_test(always_holds_to_the_end_of_the_window),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
