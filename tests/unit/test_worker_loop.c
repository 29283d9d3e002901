/* How a worker leaves: by order, as an orphan, by its model's own word. The loop runs here with the
 * fixed fds that a supervisor would have passed. */
#include "workers/run.h"
#include "workers/worker_loop.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

enum { WORKER_SEAT = 3 };

static int health_answer;

static int echo(void *model, struct unetserve_item *const *items, size_t count)
{
    (void)model;
    for (size_t i = 0; i < count; i++) {
        memcpy(items[i]->output, items[i]->input, items[i]->input_bytes);
        items[i]->output_bytes = items[i]->input_bytes;
    }
    return 0;
}

/* Called when the worker is idle. */
static void (*when_idle)(void);

static int health(void *model)
{
    (void)model;
    if (when_idle)
        when_idle();
    return health_answer;
}

static const struct unetserve_model_ops ops = {.name = "echo", .predict = echo, .health = health};

struct scene {
    struct queue queue;
    struct seat seat;
    struct worker worker;
    uint16_t gateway;
    int life;     /* the supervisor's end of the life line */
    int gateways; /* the gateways' end of their line */
    int ready;
};

static void place(int fd, int number)
{
    assert_int_equal(dup2(fd, number), number);
    close(fd);
}

/* A pipe with its far end at a fixed number: write ends and read ends above all fixed numbers. */
static int make_pipe(int number, int far)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    int high = dup(ends[1 - far]);
    int near = fcntl(high, F_DUPFD, 200);
    close(high);
    close(ends[1 - far]);
    if (ends[far] != number)
        place(ends[far], number);
    return near;
}

static void begin(struct scene *scene)
{
    struct queue_geometry geometry = {
        .class_count = 1, .model_count = 1, .classes = {{4096, 4096, 4, 0}}};
    uint16_t self;
    memset(scene, 0, sizeof *scene);
    health_answer = 0;
    when_idle = NULL;
    /* So that nothing else takes a fixed number. */
    for (int fd = open("/dev/null", O_RDWR); fd < 32; fd = open("/dev/null", O_RDWR))
        assert_true(fd >= 0);
    scene->life = make_pipe(SEAT_FD_LIFE, 0);
    scene->ready = make_pipe(SEAT_FD_READY, 1);
    scene->gateways = make_pipe(SEAT_FD_GATEWAYS, 0);
    assert_int_equal(queue_create(&geometry, &scene->queue), 0);
    assert_int_equal(queue_process_enter(&scene->queue, QUEUE_GATEWAY, 1, &scene->gateway), 0);
    assert_int_equal(queue_process_enter(&scene->queue, QUEUE_WORKER, WORKER_SEAT, &self), 0);
    place(eventfd(0, EFD_NONBLOCK), SEAT_FD_EVENT + WORKER_SEAT);
    scene->seat = (struct seat){WORKER_SEAT, self, QUEUE_WORKER, scene->queue,
                                SEAT_FD_EVENT + WORKER_SEAT};
    worker_init(&scene->worker, &scene->seat, 0, 1);
    scene->worker.ops = &ops;
    scene->worker.interface = (struct unetserve_interface){.name = "echo",
                                                           .input_kind = UNETSERVE_DOCUMENT,
                                                           .output_kind = UNETSERVE_DOCUMENT,
                                                           .max_batch = 1};
}

static void end(struct scene *scene)
{
    char newline = 0;
    assert_int_equal(read(scene->ready, &newline, 1), 1);
    assert_int_equal(newline, '\n');
    close(scene->ready);
    if (scene->life >= 0)
        close(scene->life);
    if (scene->gateways >= 0)
        close(scene->gateways);
    queue_close(&scene->queue);
    for (int fd = 3; fd <= 32; fd++)
        close(fd);
}

/* A job that is accepted; *out is the slot's word. */
static uint32_t accept_job(struct scene *scene, uint64_t *out)
{
    uint32_t slot;
    uint64_t word;
    assert_int_equal(queue_reserve(&scene->queue, scene->gateway, 64, 64, &slot, &word), 0);
    struct queue_slot *fields = &scene->queue.slots[slot];
    atomic_store(&fields->model_generation, 1);
    fields->input_bytes = 4;
    memcpy(queue_input(&scene->queue, slot), "null", 4);
    assert_true(queue_move(&scene->queue, QUEUE_GATEWAY, slot, word, QUEUE_READY, 0, out));
    return slot;
}

static uint32_t submit(struct scene *scene)
{
    uint64_t word;
    uint32_t slot = accept_job(scene, &word);
    assert_true(
        queue_move(&scene->queue, QUEUE_BROKER, slot, word, QUEUE_LEASED, scene->seat.index, NULL));
    return slot;
}

static enum queue_state state_of(const struct scene *scene, uint32_t slot)
{
    return queue_word_state(queue_word(&scene->queue, slot));
}

static void told_to_end_it_finishes_what_is_leased_to_it(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene);
    uint32_t slots[3];
    for (int i = 0; i < 3; i++)
        slots[i] = submit(&scene);
    raise(SIGTERM);
    assert_int_equal(worker_loop(&scene.worker, 1000), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(state_of(&scene, slots[i]), QUEUE_DONE);
    /* From the signal on the broker gives it nothing more. */
    assert_int_equal(scene.queue.processes[scene.seat.index].ready, 0);
    end(&scene);
}

static void an_orphan_finishes_and_leaves(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene);
    uint32_t slot = submit(&scene);
    close(scene.gateways);
    scene.gateways = -1;
    close(scene.life);
    scene.life = -1;
    assert_int_equal(worker_loop(&scene.worker, 60000), 0);
    assert_int_equal(state_of(&scene, slot), QUEUE_DONE);
    end(&scene);
}

/* Its broker was killed too. Jobs of another model or another generation are not its own. */
static void an_orphan_takes_what_nobody_leases(void **state)
{
    (void)state;
    struct scene scene;
    uint64_t word;
    begin(&scene);
    uint32_t slot = accept_job(&scene, &word);
    uint32_t other = accept_job(&scene, &word);
    uint32_t old = accept_job(&scene, &word);
    atomic_store(&scene.queue.slots[other].model, 1);
    atomic_store(&scene.queue.slots[old].model_generation, 7);
    assert_int_equal(run_next(&scene.worker).jobs, 0);
    close(scene.gateways);
    scene.gateways = -1;
    close(scene.life);
    scene.life = -1;
    assert_int_equal(worker_loop(&scene.worker, 60000), 0);
    assert_int_equal(state_of(&scene, slot), QUEUE_DONE);
    assert_int_equal(state_of(&scene, other), QUEUE_READY);
    assert_int_equal(state_of(&scene, old), QUEUE_READY);
    end(&scene);
}

static void an_orphan_waits_for_gateways_but_not_for_ever(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene);
    uint32_t slot;
    uint64_t word;
    assert_int_equal(queue_reserve(&scene.queue, scene.gateway, 64, 64, &slot, &word), 0);
    close(scene.life);
    scene.life = -1;
    uint64_t begin_ns = queue_now_ns();
    assert_int_equal(worker_loop(&scene.worker, 300), 0);
    assert_true(queue_now_ns() - begin_ns >= 300000000u);
    end(&scene);
}

static struct scene *late_scene;
static uint32_t late_slot;

static void leave(void)
{
    when_idle = NULL;
    close(late_scene->gateways);
    late_scene->gateways = -1;
}

/* The gateway accepts one more job; it leaves when there is nothing more. */
static void accept_late(void)
{
    when_idle = leave;
    late_slot = submit(late_scene);
}

static void an_orphan_stays_as_long_as_a_gateway_is_there(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene);
    late_scene = &scene;
    late_slot = UINT32_MAX;
    when_idle = accept_late;
    close(scene.life);
    scene.life = -1;
    assert_int_equal(worker_loop(&scene.worker, 60000), 0);
    assert_int_not_equal(late_slot, UINT32_MAX);
    assert_int_equal(state_of(&scene, late_slot), QUEUE_DONE);
    end(&scene);
}

static void a_model_that_cannot_serve_ends_the_worker(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene);
    health_answer = -1;
    assert_int_equal(worker_loop(&scene.worker, 1000), -EIO);
    end(&scene);
}

int main(void)
{
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(told_to_end_it_finishes_what_is_leased_to_it),
        cmocka_unit_test(an_orphan_finishes_and_leaves),
        cmocka_unit_test(an_orphan_takes_what_nobody_leases),
        cmocka_unit_test(an_orphan_waits_for_gateways_but_not_for_ever),
        cmocka_unit_test(an_orphan_stays_as_long_as_a_gateway_is_there),
        cmocka_unit_test(a_model_that_cannot_serve_ends_the_worker),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
