/* The slot table: every edge there is, no other, and what the supervisor does for the dead. */
#include "unetserve/queue.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* The table of the design, stated a second time and in another form: one string a state and role,
 * the states it leads to. */
static const struct {
    enum queue_state from;
    enum queue_role role;
    const char *to;
} table[] = {
    {QUEUE_FREE, QUEUE_GATEWAY, "RECV"},           {QUEUE_RECV, QUEUE_GATEWAY, "FREE READY"},
    {QUEUE_RECV, QUEUE_SUPERVISOR, "FREE"},        {QUEUE_READY, QUEUE_GATEWAY, "FREE"},
    {QUEUE_READY, QUEUE_BROKER, "LEASED"},         {QUEUE_READY, QUEUE_WORKER, "RUN"},
    {QUEUE_READY, QUEUE_SUPERVISOR, "FREE"},       {QUEUE_LEASED, QUEUE_WORKER, "RUN"},
    {QUEUE_LEASED, QUEUE_BROKER, "READY"},         {QUEUE_LEASED, QUEUE_SUPERVISOR, "READY"},
    {QUEUE_RUN, QUEUE_WORKER, "DONE FAILED"},      {QUEUE_RUN, QUEUE_GATEWAY, "STREAM"},
    {QUEUE_RUN, QUEUE_SUPERVISOR, "READY FAILED"}, {QUEUE_STREAM, QUEUE_WORKER, "DONE FAILED"},
    {QUEUE_STREAM, QUEUE_SUPERVISOR, "FAILED"},    {QUEUE_DONE, QUEUE_GATEWAY, "SEND FREE"},
    {QUEUE_DONE, QUEUE_SUPERVISOR, "FREE"},        {QUEUE_FAILED, QUEUE_GATEWAY, "SEND FREE"},
    {QUEUE_FAILED, QUEUE_SUPERVISOR, "FREE"},      {QUEUE_SEND, QUEUE_GATEWAY, "FREE"},
    {QUEUE_SEND, QUEUE_SUPERVISOR, "FREE"},
};

static bool table_allows(enum queue_state from, enum queue_state to, enum queue_role role)
{
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (table[i].from != from || table[i].role != role)
            continue;
        char words[64];
        snprintf(words, sizeof words, "%s", table[i].to);
        char *rest = words;
        for (char *word; (word = strsep(&rest, " "));)
            if (strcmp(word, queue_state_name(to)) == 0)
                return true;
    }
    return false;
}

static struct queue make_queue(void)
{
    struct queue_geometry geometry = {
        .class_count = 2,
        .model_count = 1,
        .classes = {{.input_bytes = 4096, .output_bytes = 4096, .count = 4},
                    {.input_bytes = 65536, .output_bytes = 8192, .count = 2}},
    };
    struct queue queue;
    assert_int_equal(queue_create(&geometry, &queue), 0);
    return queue;
}

static uint16_t owner_for(enum queue_state state)
{
    return state == QUEUE_RECV || state == QUEUE_SEND                             ? 7
           : state == QUEUE_LEASED || state == QUEUE_RUN || state == QUEUE_STREAM ? 9
                                                                                  : 0;
}

/* Put a word there by hand, as no process may. */
static uint64_t force(struct queue *queue, uint32_t slot, enum queue_state state, uint16_t owner,
                      unsigned faults, unsigned kills, uint32_t generation)
{
    uint64_t word = (uint64_t)state | (uint64_t)owner << 8 | (uint64_t)faults << 24 |
                    (uint64_t)kills << 27 | (uint64_t)generation << 32;
    atomic_store(&queue->slots[slot].word, word);
    return word;
}

static void test_every_edge(void **state)
{
    (void)state;
    struct queue queue = make_queue();
    unsigned edges = 0;
    for (int from = 0; from < QUEUE_STATE_COUNT; from++)
        for (int to = 0; to < QUEUE_STATE_COUNT; to++)
            for (int role = 0; role < QUEUE_ROLE_COUNT; role++) {
                bool allowed = table_allows(from, to, role);
                assert_int_equal(queue_edge_exists(from, to, role), allowed);
                if (!allowed)
                    continue;
                edges++;
                uint64_t word = force(&queue, 0, from, owner_for(from), 1, 3, 41);
                uint64_t moved = 0;
                assert_true(queue_move(&queue, role, 0, word, to, owner_for(to), &moved));
                assert_int_equal(queue_word(&queue, 0), moved);
                assert_int_equal(queue_word_state(moved), to);
                assert_int_equal(queue_word_owner(moved), owner_for(to));
                assert_int_equal(queue_word_generation(moved), to == QUEUE_FREE ? 42 : 41);
                assert_int_equal(queue_word_faults(moved), to == QUEUE_FREE ? 0 : 1);
                assert_int_equal(queue_word_kills(moved), to == QUEUE_FREE ? 0 : 3);
                /* The word has moved on: the same move again fails and changes nothing. */
                assert_false(queue_move(&queue, role, 0, word, to, owner_for(to), NULL));
                assert_int_equal(queue_word(&queue, 0), moved);
            }
    assert_int_equal(edges, 27);
    queue_close(&queue);
}

/* Does that move end the process? Asked in a child. */
static bool move_aborts(struct queue *queue, enum queue_state from, enum queue_state to,
                        enum queue_role role)
{
    uint64_t word = force(queue, 0, from, owner_for(from), 0, 0, 5);
    /* A child may not have the mapping (MADV_DONTFORK), so take that back for this test. */
    madvise(queue->header, queue->size, MADV_DOFORK);
    pid_t child = fork();
    if (child == 0) {
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
        dup2(null, 2);
        signal(SIGABRT, SIG_DFL);
        queue_move(queue, role, 0, word, to, owner_for(to), NULL);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static void test_no_other_edge(void **state)
{
    (void)state;
    struct queue queue = make_queue();
    for (int from = 0; from < QUEUE_STATE_COUNT; from++)
        for (int to = 0; to < QUEUE_STATE_COUNT; to++)
            for (int role = 0; role < QUEUE_ROLE_COUNT; role++)
                assert_int_equal(move_aborts(&queue, from, to, role),
                                 !table_allows(from, to, role));
    queue_close(&queue);
}

static void test_reserve(void **state)
{
    (void)state;
    struct queue queue = make_queue();
    uint32_t slot = 99;
    uint64_t word = 0;
    for (unsigned i = 0; i < 6; i++) {
        assert_int_equal(queue_reserve(&queue, 3, 100, 100, &slot, &word), 0);
        assert_int_equal(queue_word_state(word), QUEUE_RECV);
        assert_int_equal(queue_word_owner(word), 3);
        assert_int_equal(atomic_load(&queue.slots[slot].reply_to), 3);
        if (i < 4)
            assert_true(slot < 4);
        else
            assert_true(slot >= 4);
        memset(queue_input(&queue, slot), 1, queue_input_capacity(&queue, slot));
        memset(queue_output(&queue, slot), 2, queue_output_capacity(&queue, slot));
    }
    assert_int_equal(queue_reserve(&queue, 3, 100, 100, &slot, &word), -EBUSY);
    assert_int_equal(queue_reserve(&queue, 3, 65537, 1, &slot, &word), -E2BIG);
    assert_int_equal(queue_reserve(&queue, 3, 1, 8193, &slot, &word), -E2BIG);
    assert_int_equal(queue_largest_input(&queue), 65536);
    assert_true(queue_move(&queue, QUEUE_GATEWAY, 5, queue_word(&queue, 5), QUEUE_FREE, 0, NULL));
    assert_int_equal(queue_reserve(&queue, 3, 5000, 100, &slot, &word), 0);
    assert_int_equal(slot, 5);
    assert_int_equal(queue_word_generation(word), 2);
    queue_close(&queue);
}

static int attach(const struct queue *queue, struct queue *other)
{
    return queue_attach(dup(queue->fd), dup(queue->inputs_fd), dup(queue->outputs_fd), other);
}

static void test_attach(void **state)
{
    (void)state;
    struct queue queue = make_queue();
    struct queue other;
    assert_int_equal(attach(&queue, &other), 0);
    assert_int_equal(other.slot_count, 6);
    memcpy(queue_input(&queue, 2), "hello", 6);
    assert_string_equal(queue_input(&other, 2), "hello");
    /* Sealed: nobody can cut it short under the others. */
    assert_int_equal(ftruncate(queue.fd, 4096), -1);
    queue_close(&other);
    int fd = dup(queue.fd);
    assert_int_equal(queue_attach(fd, queue.outputs_fd, queue.inputs_fd, &other), -EBADMSG);
    ((uint64_t *)queue.header)[0]++;
    assert_int_equal(queue_attach(fd, -1, -1, &other), -EBADMSG);
    close(fd);
    queue_close(&queue);

    int plain = memfd_create("plain", MFD_ALLOW_SEALING | MFD_CLOEXEC);
    assert_int_equal(ftruncate(plain, 1 << 20), 0);
    assert_int_equal(queue_attach(plain, -1, -1, &other), -EBADMSG);
    assert_int_equal(fcntl(plain, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), 0);
    assert_int_equal(queue_attach(plain, -1, -1, &other), -EBADMSG);
    close(plain);

    struct queue_geometry bad = {.class_count = 2,
                                 .classes = {{.input_bytes = 10, .output_bytes = 1, .count = 1},
                                             {.input_bytes = 5, .output_bytes = 1, .count = 1}}};
    assert_int_equal(queue_create(&bad, &other), -EINVAL);
    bad = (struct queue_geometry){
        .class_count = 1, .classes = {{.input_bytes = 1, .output_bytes = 1, .count = 5000}}};
    assert_int_equal(queue_create(&bad, &other), -EINVAL);
}

/* Can somebody without privileges have that memory writable, by the descriptor or by its name? */
static bool writable(int fd)
{
    char path[32];
    pid_t child = fork();
    if (child == 0) {
        if (geteuid() == 0 && (setgid(65534) || setuid(65534)))
            _exit(2);
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        void *base = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        void *read_only = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
        _exit(base != MAP_FAILED || mprotect(read_only, 4096, PROT_WRITE) == 0 ||
              open(path, O_RDWR) >= 0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) < 2);
    return WEXITSTATUS(status) == 1;
}

/* Every slot's areas are found by their first and by their last byte, and nothing else is. */
static void check_areas(const struct queue *queue)
{
    struct unetserve_area area;
    for (uint32_t slot = 0; slot < queue->slot_count; slot++) {
        const char *const first[2] = {(const char *)queue_input(queue, slot),
                                      (const char *)queue_output(queue, slot)};
        const uint64_t bytes[2] = {queue_input_capacity(queue, slot),
                                   queue_output_capacity(queue, slot)};
        for (int i = 0; i < 2; i++) {
            assert_int_equal(queue_find_area(queue, first[i] + bytes[i] - 1, &area), 0);
            assert_ptr_equal(area.data, first[i]);
            assert_int_equal(area.bytes, bytes[i]);
            assert_int_equal(area.writable, i == 1);
            assert_int_equal(queue_find_area(queue, first[i], &area), 0);
            assert_ptr_equal(area.data, first[i]);
        }
    }
    assert_int_equal(queue_find_area(queue, queue->header, &area), -ENOENT);
    assert_int_equal(queue_find_area(queue, &area, &area), -ENOENT);
}

static void test_readers(void **state)
{
    (void)state;
    struct queue queue = make_queue();
    struct queue worker;
    int inputs;
    int outputs;
    assert_int_equal(queue_open_readers(&queue, &inputs, &outputs), 0);
    assert_true(writable(queue.outputs_fd));
    assert_false(writable(inputs));
    assert_false(writable(outputs));
    assert_int_equal(queue_attach(dup(queue.fd), inputs, dup(queue.outputs_fd), &worker), 0);
    memcpy(queue_input(&queue, 2), "hello", 6);
    assert_string_equal(queue_input(&worker, 2), "hello");
    memcpy(queue_output(&worker, 2), "world", 6);
    check_areas(&worker);
    queue_leave_areas(&worker);
    assert_string_equal(queue_output(&queue, 2), "world");
    queue_close(&worker);
    close(outputs);
    queue_close(&queue);
}

static void test_processes(void **state)
{
    (void)state;
    struct queue queue = make_queue();
    uint16_t gateway = 0;
    uint16_t worker = 0;
    assert_int_equal(queue_process_enter(&queue, QUEUE_GATEWAY, 0, &gateway), 0);
    assert_int_equal(queue_process_enter(&queue, QUEUE_WORKER, 2, &worker), 0);
    assert_int_not_equal(gateway, worker);
    assert_true(queue_process_is(&queue, worker, QUEUE_WORKER));
    assert_false(queue_process_is(&queue, worker, QUEUE_GATEWAY));
    assert_false(queue_process_is(&queue, 0, QUEUE_NOBODY));
    assert_false(queue_process_is(&queue, 70000, QUEUE_WORKER));

    assert_int_equal(queue_ready_workers(&queue, 0), 0);
    atomic_store(&queue.processes[worker].ready, 1);
    assert_int_equal(queue_ready_workers(&queue, 0), 1);
    atomic_store(&queue.processes[worker].draining, 1);
    assert_int_equal(queue_ready_workers(&queue, 0), 0);

    /* An index that a slot still names is not given out again, however often one asks. */
    force(&queue, 0, QUEUE_RUN, worker, 0, 0, 1);
    queue_process_leave(&queue, worker, false);
    assert_false(queue_process_is(&queue, worker, QUEUE_WORKER));
    assert_int_equal(queue_process_next(&queue, 0), gateway);
    assert_int_equal(queue_process_next(&queue, gateway), 0);
    for (unsigned i = 0; i < QUEUE_MAX_PROCESSES - 3; i++) {
        uint16_t index = 0;
        assert_int_equal(queue_process_enter(&queue, QUEUE_WORKER, 3, &index), 0);
        assert_int_not_equal(index, worker);
        assert_int_not_equal(index, gateway);
    }
    uint16_t none = 77;
    assert_int_equal(queue_process_enter(&queue, QUEUE_WORKER, 3, &none), -EAGAIN);
    assert_int_equal(none, 77);
    unsigned entered = 0; /* all but nobody and the one that has left */
    for (uint16_t i = 0; (i = queue_process_next(&queue, i));)
        entered += i != worker;
    assert_int_equal(entered, QUEUE_MAX_PROCESSES - 2);
    force(&queue, 0, QUEUE_FREE, 0, 0, 0, 2);
    assert_int_equal(queue_process_enter(&queue, QUEUE_WORKER, 3, &none), 0);
    assert_int_equal(none, worker);
    queue_close(&queue);
}

struct rule_case {
    enum queue_state state;
    bool gateway_lives, worker_lives, by_fault, cancelled;
    unsigned faults, kills;
    enum queue_state becomes;
    bool flagged;
    unsigned faults_then, kills_then;
};

static const struct rule_case rule_cases[] = {
    {QUEUE_RECV, true, true, false, false, 0, 0, QUEUE_RECV, false, 0, 0},
    {QUEUE_RECV, false, true, false, false, 0, 0, QUEUE_FREE, false, 0, 0},
    {QUEUE_SEND, false, true, false, false, 0, 0, QUEUE_FREE, false, 0, 0},
    {QUEUE_READY, true, false, false, false, 0, 0, QUEUE_READY, false, 0, 0},
    {QUEUE_READY, false, true, false, false, 1, 0, QUEUE_FREE, false, 0, 0},
    {QUEUE_DONE, false, true, false, false, 0, 0, QUEUE_FREE, false, 0, 0},
    {QUEUE_FAILED, false, true, false, false, 0, 0, QUEUE_FREE, false, 0, 0},
    {QUEUE_LEASED, true, true, false, false, 0, 0, QUEUE_LEASED, false, 0, 0},
    {QUEUE_LEASED, true, false, true, false, 0, 0, QUEUE_READY, false, 0, 0},
    {QUEUE_LEASED, false, true, false, false, 0, 0, QUEUE_LEASED, true, 0, 0},
    {QUEUE_RUN, true, true, false, false, 0, 0, QUEUE_RUN, false, 0, 0},
    {QUEUE_RUN, false, true, false, false, 0, 0, QUEUE_RUN, true, 0, 0},
    {QUEUE_RUN, true, false, true, false, 0, 0, QUEUE_READY, false, 1, 0},
    {QUEUE_RUN, true, false, true, false, 1, 5, QUEUE_FAILED, false, 2, 5},
    {QUEUE_RUN, true, false, false, false, 1, 0, QUEUE_READY, false, 1, 1},
    {QUEUE_RUN, true, false, false, false, 0, 18, QUEUE_READY, false, 0, 19},
    {QUEUE_RUN, true, false, false, false, 0, 19, QUEUE_FAILED, false, 0, 20},
    {QUEUE_RUN, true, false, false, true, 0, 0, QUEUE_FAILED, true, 0, 1},
    {QUEUE_STREAM, true, false, false, false, 0, 0, QUEUE_FAILED, false, 0, 0},
    {QUEUE_STREAM, false, true, false, false, 0, 0, QUEUE_STREAM, true, 0, 0},
};

static void check_rule(const struct rule_case *c)
{
    struct queue queue = make_queue();
    uint16_t gateway = 0;
    uint16_t worker = 0;
    assert_int_equal(queue_process_enter(&queue, QUEUE_GATEWAY, 0, &gateway), 0);
    assert_int_equal(queue_process_enter(&queue, QUEUE_WORKER, 1, &worker), 0);
    uint16_t owner = owner_for(c->state) == 7 ? gateway : owner_for(c->state) == 9 ? worker : 0;
    force(&queue, 1, c->state, owner, c->faults, c->kills, 12);
    atomic_store(&queue.slots[1].reply_to, gateway);
    atomic_store(&queue.slots[1].started_ns, 5);
    if (c->cancelled)
        queue_cancel(&queue, 1, 12);
    if (!c->gateway_lives)
        queue_process_leave(&queue, gateway, false);
    if (!c->worker_lives)
        queue_process_leave(&queue, worker, c->by_fault);
    /* Twice: the rules are standing ones, and the second time finds nothing more to do. */
    queue_apply_standing_rules(&queue);
    unsigned again = queue_apply_standing_rules(&queue);
    uint64_t word = queue_word(&queue, 1);
    assert_int_equal(again, 0);
    assert_int_equal(queue_word_state(word), c->becomes);
    assert_int_equal(queue_word_generation(word), c->becomes == QUEUE_FREE ? 13 : 12);
    assert_int_equal(queue_cancelled(&queue, 1, 12), c->flagged);
    assert_int_equal(queue_word_faults(word), c->faults_then);
    assert_int_equal(queue_word_kills(word), c->kills_then);
    /* A second run must not be judged by the first one's start. */
    bool again_ready = c->state == QUEUE_RUN && c->becomes == QUEUE_READY;
    assert_int_equal(atomic_load(&queue.slots[1].started_ns), again_ready ? 0 : 5);
    queue_close(&queue);
}

static void test_standing_rules(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rule_cases / sizeof rule_cases[0]; i++)
        check_rule(&rule_cases[i]);
}

static void test_condemned(void **state)
{
    (void)state;
    struct queue queue = make_queue();
    uint16_t gateway = 0;
    uint16_t worker = 0;
    assert_int_equal(queue_process_enter(&queue, QUEUE_GATEWAY, 0, &gateway), 0);
    assert_int_equal(queue_process_enter(&queue, QUEUE_WORKER, 1, &worker), 0);
    atomic_store(&queue.slots[0].reply_to, gateway);
    atomic_store(&queue.slots[1].reply_to, gateway);
    force(&queue, 0, QUEUE_LEASED, worker, 0, 0, 1);
    force(&queue, 1, QUEUE_RUN, worker, 0, 0, 1);
    atomic_store(&queue.processes[worker].life, QUEUE_CONDEMNED);
    assert_int_equal(queue_apply_standing_rules(&queue), 1);
    assert_int_equal(queue_word_state(queue_word(&queue, 0)), QUEUE_READY);
    /* What it runs stays out of use until it is gone: it may still write there. */
    assert_int_equal(queue_word_state(queue_word(&queue, 1)), QUEUE_RUN);
    queue_close(&queue);
}

static void test_cancel(void **state)
{
    (void)state;
    struct queue queue = make_queue();
    assert_false(queue_cancelled(&queue, 0, 0));
    assert_false(queue_cancelled(&queue, 0, 1));
    queue_cancel(&queue, 0, 6);
    assert_true(queue_cancelled(&queue, 0, 6));
    assert_false(queue_cancelled(&queue, 0, 7));
    queue_cancel(&queue, 0, 5); /* late, for an older job */
    assert_true(queue_cancelled(&queue, 0, 6));
    queue_cancel(&queue, 0, 7);
    assert_true(queue_cancelled(&queue, 0, 7));
    assert_false(queue_cancelled(&queue, 0, 6));
    queue_cancel(&queue, 1, UINT32_MAX);
    queue_cancel(&queue, 1, 0); /* the generation wrapped */
    assert_true(queue_cancelled(&queue, 1, 0));
    queue_close(&queue);
}

static void test_models(void **state)
{
    (void)state;
    struct queue queue = make_queue();
    uint16_t first = 0;
    uint16_t second = 0;
    assert_int_equal(queue_process_enter(&queue, QUEUE_WORKER, 1, &first), 0);
    assert_int_equal(queue_process_enter(&queue, QUEUE_WORKER, 2, &second), 0);
    struct unetserve_interface interface = {.name = "a", .channels = 12, .class_count = 11};
    struct unetserve_interface got;
    uint32_t generation = 0;
    assert_int_equal(queue_model_read(&queue, 0, &got, &generation), -ENOENT);
    assert_int_equal(queue_model_publish(&queue, 0, 1, first, &interface), 0);
    assert_int_equal(queue_model_publish(&queue, 0, 1, second, &interface), 0);
    assert_int_equal(queue_model_read(&queue, 0, &got, &generation), 0);
    assert_int_equal(generation, 1);
    assert_memory_equal(&got, &interface, sizeof got);

    struct unetserve_interface other = {.name = "b", .channels = 3};
    assert_int_equal(queue_model_publish(&queue, 0, 1, second, &other), -EPROTO);
    atomic_store(&queue.models[0].writer, first);
    assert_int_equal(queue_model_publish(&queue, 0, 2, second, &other), -EBUSY);
    queue_process_leave(&queue, first, true); /* it died while it wrote */
    assert_int_equal(atomic_load(&queue.models[0].writer),
                     0); /* nor does its index's next holder */
    assert_int_equal(queue_model_publish(&queue, 0, 2, second, &other), 0);
    assert_int_equal(queue_model_read(&queue, 0, &got, &generation), 0);
    assert_int_equal(generation, 2);
    assert_int_equal(got.channels, 3);
    /* An old worker that is late does not bring the old interface back. */
    assert_int_equal(queue_model_publish(&queue, 0, 1, second, &interface), 0);
    assert_int_equal(queue_model_read(&queue, 0, &got, &generation), 0);
    assert_int_equal(generation, 2);
    /* Nor may it serve the old one's requests if what it found was the new one's files already. */
    assert_int_equal(queue_model_publish(&queue, 0, 1, second, &other), -EPROTO);

    memset(&other, 'x', sizeof other);
    assert_int_equal(queue_model_publish(&queue, 0, 3, second, &other), 0);
    assert_int_equal(queue_model_publish(&queue, 0, 1, second, &other), -EPROTO);
    assert_int_equal(queue_model_read(&queue, 0, &got, &generation), 0);
    assert_int_equal(strlen(got.name), sizeof got.name - 1);
    assert_int_equal(got.class_count, UNETSERVE_MAX_CLASSES);
    queue_close(&queue);
}

/* The whole way of many jobs through all roles as threads over one table: each job is done once,
 * and its number comes back. */
#define RACE_JOBS 4000

struct race {
    struct queue queue;
    uint16_t gateways[2], workers[2];
    _Atomic unsigned answered, wrong, started;
};

struct race_thread {
    struct race *race;
    unsigned number;
};

static void *race_gateway(void *argument)
{
    struct race_thread *self = argument;
    struct race *race = self->race;
    uint16_t me = race->gateways[self->number];
    for (unsigned job = 0; job < RACE_JOBS / 2;) {
        uint32_t slot = 0;
        uint64_t word = 0;
        if (queue_reserve(&race->queue, me, 8, 8, &slot, &word)) {
            sched_yield();
            continue;
        }
        uint64_t value = (uint64_t)self->number << 32 | job;
        memcpy(queue_input(&race->queue, slot), &value, sizeof value);
        if (!queue_move(&race->queue, QUEUE_GATEWAY, slot, word, QUEUE_READY, 0, &word))
            atomic_fetch_add(&race->wrong, 1);
        while (queue_word_state(word = queue_word(&race->queue, slot)) != QUEUE_DONE)
            sched_yield();
        if (!queue_move(&race->queue, QUEUE_GATEWAY, slot, word, QUEUE_SEND, me, &word))
            atomic_fetch_add(&race->wrong, 1);
        uint64_t answer = 0;
        memcpy(&answer, queue_output(&race->queue, slot), sizeof answer);
        atomic_fetch_add(&race->wrong, answer != value + 1);
        if (!queue_move(&race->queue, QUEUE_GATEWAY, slot, word, QUEUE_FREE, 0, NULL))
            atomic_fetch_add(&race->wrong, 1);
        atomic_fetch_add(&race->answered, 1);
        job++;
    }
    return NULL;
}

static void *race_worker(void *argument)
{
    struct race_thread *self = argument;
    struct race *race = self->race;
    uint16_t me = race->workers[self->number];
    while (atomic_load(&race->answered) < RACE_JOBS) {
        for (uint32_t slot = 0; slot < race->queue.slot_count; slot++) {
            uint64_t word = queue_word(&race->queue, slot);
            if (queue_word_state(word) != QUEUE_LEASED || queue_word_owner(word) != me ||
                !queue_move(&race->queue, QUEUE_WORKER, slot, word, QUEUE_RUN, me, &word))
                continue;
            atomic_fetch_add(&race->started, 1);
            uint64_t value = 0;
            memcpy(&value, queue_input(&race->queue, slot), sizeof value);
            value++;
            memcpy(queue_output(&race->queue, slot), &value, sizeof value);
            if (!queue_move(&race->queue, QUEUE_WORKER, slot, word, QUEUE_DONE, 0, NULL))
                atomic_fetch_add(&race->wrong, 1);
        }
        sched_yield();
    }
    return NULL;
}

static void *race_broker(void *argument)
{
    struct race *race = ((struct race_thread *)argument)->race;
    unsigned turn = 0;
    while (atomic_load(&race->answered) < RACE_JOBS) {
        for (uint32_t slot = 0; slot < race->queue.slot_count; slot++) {
            uint64_t word = queue_word(&race->queue, slot);
            if (queue_word_state(word) == QUEUE_READY)
                queue_move(&race->queue, QUEUE_BROKER, slot, word, QUEUE_LEASED,
                           race->workers[turn++ & 1], NULL);
            else if (queue_word_state(word) == QUEUE_LEASED && turn % 7 == 0)
                queue_move(&race->queue, QUEUE_BROKER, slot, word, QUEUE_READY, 0, NULL);
        }
        sched_yield();
    }
    return NULL;
}

static void test_roles_race(void **state)
{
    (void)state;
    struct race race = {.queue = make_queue()};
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(queue_process_enter(&race.queue, QUEUE_GATEWAY, i, &race.gateways[i]), 0);
        assert_int_equal(queue_process_enter(&race.queue, QUEUE_WORKER, 2 + i, &race.workers[i]),
                         0);
    }
    struct race_thread selves[5] = {{&race, 0}, {&race, 1}, {&race, 0}, {&race, 1}, {&race, 0}};
    void *(*bodies[5])(void *) = {race_gateway, race_gateway, race_worker, race_worker,
                                  race_broker};
    pthread_t threads[5];
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, bodies[i], &selves[i]), 0);
    for (unsigned i = 0; i < 5; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(race.wrong, 0);
    assert_int_equal(race.answered, RACE_JOBS);
    assert_int_equal(race.started, RACE_JOBS);
    for (uint32_t slot = 0; slot < race.queue.slot_count; slot++)
        assert_int_equal(queue_word_state(queue_word(&race.queue, slot)), QUEUE_FREE);
    queue_close(&race.queue);
}

/* The same with deaths and cancelled jobs: workers that die between any two steps, a supervisor
 * that buries them and lets others in, gateways that give up some of what they sent. Nothing is
 * lost, and an answer is always the right one.
 */
#define MORTAL_JOBS 3000

struct mortal {
    struct queue queue;
    uint16_t gateways[2];
    _Atomic uint16_t workers[2];
    _Atomic bool dead[2];
    _Atomic unsigned ended, wrong, cancelled, deaths;
};

struct mortal_thread {
    struct mortal *mortal;
    unsigned number, dice;
};

/* A linear congruential generator will do. */
static unsigned roll(unsigned *dice, unsigned sides)
{
    *dice = *dice * 1664525u + 1013904223u;
    return (*dice >> 16) % sides;
}

/* Ask for one in eight back; then it ends as FAILED, or as DONE when that came first. */
static void mortal_wait(struct mortal_thread *self, uint32_t slot, uint32_t generation)
{
    struct mortal *mortal = self->mortal;
    bool give_up = roll(&self->dice, 8) == 0;
    uint64_t word = queue_word(&mortal->queue, slot);
    while (queue_word_state(word) != QUEUE_DONE && queue_word_state(word) != QUEUE_FAILED) {
        atomic_fetch_add(&mortal->wrong, queue_word_generation(word) != generation);
        if (give_up)
            queue_cancel(&mortal->queue, slot, generation);
        sched_yield();
        word = queue_word(&mortal->queue, slot);
    }
    if (queue_word_state(word) == QUEUE_DONE)
        return;
    atomic_fetch_add(&mortal->cancelled, 1);
    atomic_fetch_add(&mortal->wrong, !give_up);
}

static void mortal_job(struct mortal_thread *self, uint64_t value)
{
    struct mortal *mortal = self->mortal;
    uint16_t me = mortal->gateways[self->number];
    uint32_t slot = 0;
    uint64_t word = 0;
    uint64_t answer = 0;
    while (queue_reserve(&mortal->queue, me, 8, 8, &slot, &word))
        sched_yield();
    memcpy(queue_input(&mortal->queue, slot), &value, sizeof value);
    bool moved = queue_move(&mortal->queue, QUEUE_GATEWAY, slot, word, QUEUE_READY, 0, &word);
    atomic_fetch_add(&mortal->wrong, !moved);
    mortal_wait(self, slot, queue_word_generation(word));
    word = queue_word(&mortal->queue, slot);
    bool done = queue_word_state(word) == QUEUE_DONE;
    moved = queue_move(&mortal->queue, QUEUE_GATEWAY, slot, word, QUEUE_SEND, me, &word);
    memcpy(&answer, queue_output(&mortal->queue, slot), sizeof answer);
    atomic_fetch_add(&mortal->wrong, !moved || (done && answer != value + 1));
    moved = queue_move(&mortal->queue, QUEUE_GATEWAY, slot, word, QUEUE_FREE, 0, NULL);
    atomic_fetch_add(&mortal->wrong, !moved);
    atomic_fetch_add(&mortal->ended, 1);
}

static void *mortal_gateway(void *argument)
{
    struct mortal_thread *self = argument;
    for (unsigned job = 0; job < MORTAL_JOBS / 2; job++)
        mortal_job(self, (uint64_t)self->number << 32 | job);
    return NULL;
}

/* True: it has died, and its successor is there. */
static bool mortal_dies(struct mortal_thread *self)
{
    struct mortal *mortal = self->mortal;
    if (roll(&self->dice, 40))
        return false;
    atomic_fetch_add(&mortal->deaths, 1);
    atomic_store(&mortal->dead[self->number], true);
    while (atomic_load(&mortal->dead[self->number]))
        sched_yield();
    return true;
}

static void mortal_run(struct mortal_thread *self, uint32_t slot, uint64_t word)
{
    struct queue *queue = &self->mortal->queue;
    uint16_t me = atomic_load(&self->mortal->workers[self->number]);
    if (mortal_dies(self) || !queue_move(queue, QUEUE_WORKER, slot, word, QUEUE_RUN, me, &word) ||
        mortal_dies(self))
        return;
    uint64_t value = 0;
    memcpy(&value, queue_input(queue, slot), sizeof value);
    value++;
    memcpy(queue_output(queue, slot), &value, sizeof value);
    if (mortal_dies(self))
        return;
    bool given_up = queue_cancelled(queue, slot, queue_word_generation(word));
    bool moved = queue_move(queue, QUEUE_WORKER, slot, word, given_up ? QUEUE_FAILED : QUEUE_DONE,
                            0, NULL);
    atomic_fetch_add(&self->mortal->wrong, !moved);
}

static void *mortal_worker(void *argument)
{
    struct mortal_thread *self = argument;
    struct mortal *mortal = self->mortal;
    while (atomic_load(&mortal->ended) < MORTAL_JOBS) {
        for (uint32_t slot = 0; slot < mortal->queue.slot_count; slot++) {
            uint64_t word = queue_word(&mortal->queue, slot);
            if (queue_word_state(word) == QUEUE_LEASED &&
                queue_word_owner(word) == atomic_load(&mortal->workers[self->number]))
                mortal_run(self, slot, word);
        }
        sched_yield();
    }
    return NULL;
}

static void *mortal_broker(void *argument)
{
    struct mortal_thread *self = argument;
    struct mortal *mortal = self->mortal;
    while (atomic_load(&mortal->ended) < MORTAL_JOBS) {
        for (uint32_t slot = 0; slot < mortal->queue.slot_count; slot++) {
            uint64_t word = queue_word(&mortal->queue, slot);
            uint16_t worker = atomic_load(&mortal->workers[roll(&self->dice, 2)]);
            if (queue_word_state(word) == QUEUE_READY)
                queue_move(&mortal->queue, QUEUE_BROKER, slot, word, QUEUE_LEASED, worker, NULL);
        }
        sched_yield();
    }
    return NULL;
}

static void *mortal_supervisor(void *argument)
{
    struct mortal *mortal = ((struct mortal_thread *)argument)->mortal;
    while (atomic_load(&mortal->ended) < MORTAL_JOBS) {
        for (unsigned i = 0; i < 2; i++) {
            if (!atomic_load(&mortal->dead[i]))
                continue;
            uint16_t index = 0;
            queue_process_leave(&mortal->queue, atomic_load(&mortal->workers[i]), false);
            queue_apply_standing_rules(&mortal->queue);
            if (queue_process_enter(&mortal->queue, QUEUE_WORKER, 2 + i, &index))
                atomic_fetch_add(&mortal->wrong, 1);
            atomic_store(&mortal->workers[i], index);
            atomic_store(&mortal->dead[i], false);
        }
        queue_apply_standing_rules(&mortal->queue);
        sched_yield();
    }
    return NULL;
}

static void test_roles_race_with_deaths(void **state)
{
    (void)state;
    struct mortal mortal = {.queue = make_queue()};
    for (unsigned i = 0; i < 2; i++) {
        uint16_t worker = 0;
        assert_int_equal(queue_process_enter(&mortal.queue, QUEUE_GATEWAY, i, &mortal.gateways[i]),
                         0);
        assert_int_equal(queue_process_enter(&mortal.queue, QUEUE_WORKER, 2 + i, &worker), 0);
        atomic_store(&mortal.workers[i], worker);
    }
    struct mortal_thread selves[6] = {{&mortal, 0, 1}, {&mortal, 1, 2}, {&mortal, 0, 3},
                                      {&mortal, 1, 4}, {&mortal, 0, 5}, {&mortal, 0, 6}};
    void *(*bodies[6])(void *) = {mortal_gateway, mortal_gateway, mortal_worker,
                                  mortal_worker,  mortal_broker,  mortal_supervisor};
    pthread_t threads[6];
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, bodies[i], &selves[i]), 0);
    for (unsigned i = 0; i < 6; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(mortal.wrong, 0);
    assert_int_equal(mortal.ended, MORTAL_JOBS);
    assert_true(mortal.deaths > 0 && mortal.cancelled > 0);
    queue_apply_standing_rules(&mortal.queue);
    for (uint32_t slot = 0; slot < mortal.queue.slot_count; slot++)
        assert_int_equal(queue_word_state(queue_word(&mortal.queue, slot)), QUEUE_FREE);
    queue_close(&mortal.queue);
}

static void shapes_have_keys(void **state)
{
    (void)state;
    static const struct unetserve_shape shapes[] = {
        {0},
        {UNETSERVE_F32, 0, {0}},
        {UNETSERVE_U8, 3, {12, 256, 256}},
        {UNETSERVE_U16, 3, {12, 256, 256}},
        {UNETSERVE_U8, 3, {256, 12, 256}},
        {UNETSERVE_U8, 4, {1, 12, 256, 256}},
        {UNETSERVE_U8, 4, {12, 256, 256, 0}},
        {UNETSERVE_U8, 6, {0}},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        struct unetserve_shape same = shapes[i];
        same.dims[5] += shapes[i].rank < 6; /* beyond its rank: not looked at */
        assert_int_not_equal(queue_shape_key(&shapes[i]), 0);
        assert_int_equal(queue_shape_key(&same), queue_shape_key(&shapes[i]));
        for (size_t k = 0; k < i; k++)
            assert_int_not_equal(queue_shape_key(&shapes[i]), queue_shape_key(&shapes[k]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shapes_have_keys),
        cmocka_unit_test(test_every_edge),
        cmocka_unit_test(test_no_other_edge),
        cmocka_unit_test(test_reserve),
        cmocka_unit_test(test_attach),
        cmocka_unit_test(test_readers),
        cmocka_unit_test(test_processes),
        cmocka_unit_test(test_standing_rules),
        cmocka_unit_test(test_condemned),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_models),
        cmocka_unit_test(test_roles_race),
        cmocka_unit_test(test_roles_race_with_deaths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
