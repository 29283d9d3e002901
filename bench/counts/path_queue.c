#include "bench/counts/paths.h"
#include "broker/placement.h"
#include "unetserve/handover.h"
#include "unetserve/protocol.h"
#include "unetserve/queue.h"
#include "unetserve/ring.h"
#include "unetserve/wire.h"

#include <string.h>

enum { ROUNDS = 200, SLOTS = 128, JOBS = 64, WORKERS = 8, NOW_NS = 1000000000 };

static const struct unetserve_interface interface = {
    .name = "counts",
    .version = "1",
    .input_kind = UNETSERVE_DOCUMENT,
    .output_kind = UNETSERVE_DOCUMENT,
    .max_batch = 1,
};

static struct queue queue, full;
static uint16_t gateway, worker;

static void queue_make(struct queue *out, uint16_t *gateway_index, uint16_t *worker_index)
{
    const struct queue_geometry geometry = {
        .class_count = 1,
        .model_count = 1,
        .classes = {{.input_bytes = 4096, .output_bytes = 4096, .count = SLOTS}},
    };
    PATH_MUST(!queue_create(&geometry, out));
    PATH_MUST(!queue_process_enter(out, QUEUE_GATEWAY, 0, gateway_index));
    PATH_MUST(!queue_process_enter(out, QUEUE_WORKER, 1, worker_index));
    atomic_store(&out->processes[*worker_index].model_generation, 1);
    atomic_store(&out->processes[*worker_index].ready, 1);
    PATH_MUST(!queue_model_publish(out, 0, 1, *worker_index, &interface));
}

static void move(struct queue *in, enum queue_role role, uint32_t slot, uint64_t *word,
                 enum queue_state to, uint16_t owner)
{
    PATH_MUST(queue_move(in, role, slot, *word, to, owner, word));
}

/* As busy as it gets: no slot is free, and each is in order. */
static void queue_fill(void)
{
    uint16_t sender, runner;
    queue_make(&full, &sender, &runner);
    for (int i = 0; i < SLOTS; i++) {
        uint32_t slot;
        uint64_t word;
        PATH_MUST(!queue_reserve(&full, sender, 1, 1, &slot, &word));
        move(&full, QUEUE_GATEWAY, slot, &word, QUEUE_READY, 0);
        if (i % 2)
            move(&full, QUEUE_BROKER, slot, &word, QUEUE_LEASED, runner);
        if (i % 4 == 1)
            move(&full, QUEUE_WORKER, slot, &word, QUEUE_RUN, runner);
    }
}

void path_queue_begin(void)
{
    queue_make(&queue, &gateway, &worker);
    queue_fill();
}

static void run_slot(void)
{
    for (int i = 0; i < ROUNDS; i++) {
        uint32_t slot;
        uint64_t word;
        PATH_MUST(!queue_reserve(&queue, gateway, 4096, 4096, &slot, &word));
        move(&queue, QUEUE_GATEWAY, slot, &word, QUEUE_READY, 0);
        move(&queue, QUEUE_BROKER, slot, &word, QUEUE_LEASED, worker);
        move(&queue, QUEUE_WORKER, slot, &word, QUEUE_RUN, worker);
        move(&queue, QUEUE_WORKER, slot, &word, QUEUE_DONE, 0);
        move(&queue, QUEUE_GATEWAY, slot, &word, QUEUE_SEND, gateway);
        move(&queue, QUEUE_GATEWAY, slot, &word, QUEUE_FREE, 0);
    }
}

static void look_for_worker(void)
{
    uint32_t slot;
    uint64_t word;
    PATH_MUST(!queue_reserve(&queue, gateway, 1, 1, &slot, &word));
    atomic_store(&queue.slots[slot].model_generation, 1);
    move(&queue, QUEUE_GATEWAY, slot, &word, QUEUE_READY, 0);
    for (int i = 0; i < ROUNDS; i++)
        PATH_MUST(handover_find(&queue, slot) == worker);
    move(&queue, QUEUE_GATEWAY, slot, &word, QUEUE_FREE, 0);
}

static void run_only_worker(void)
{
    look_for_worker();
}

static void run_idle_worker(void)
{
    uint16_t second;
    PATH_MUST(!queue_process_enter(&queue, QUEUE_WORKER, 3, &second));
    atomic_store(&queue.processes[second].model_generation, 1);
    atomic_store(&queue.processes[second].ready, 1);
    look_for_worker();
    queue_process_leave(&queue, second, false);
}

static void run_rules(void)
{
    for (int i = 0; i < ROUNDS; i++)
        PATH_MUST(queue_apply_standing_rules(&full) == 0);
}

static void run_placement(void)
{
    static const struct placement_rule rule = {.max_batch = 4};
    static struct placement_job jobs[JOBS];
    static struct placement_worker workers[WORKERS];
    static struct placement_lease leases[JOBS];
    for (uint32_t i = 0; i < JOBS; i++)
        jobs[i] = (struct placement_job){
            .slot = i,
            .generation = 1,
            .priority = i % 5 == 0,
            .accepted_ns = NOW_NS - i * 7919 % 1000,
            .tiles = 1,
            .shape = {UNETSERVE_U16, 3, {12, i % 3 ? 256 : 512, 256}},
        };
    for (uint32_t i = 0; i < WORKERS; i++)
        workers[i] = (struct placement_worker){
            .index = (uint16_t)(10 + i), .generation = 1, .usable = true, .running_tiles = i % 2};
    const struct placement_scene scene = {
        .jobs = jobs,
        .job_count = JOBS,
        .workers = workers,
        .worker_count = WORKERS,
        .rules = &rule,
        .now_ns = NOW_NS,
    };
    uint64_t look_ns;
    PATH_MUST(placement_decide(&scene, leases, &look_ns) >= WORKERS);
}

static void run_wire(void)
{
    for (int i = 0; i < ROUNDS; i++) {
        unsigned char bytes[WIRE_BATON_MAX];
        struct wire_baton back;
        const struct wire_baton baton = {
            .slot = 77, .model = 3, .word = UINT64_C(0x1234567890abcd)};
        size_t size = wire_baton_write(&baton, bytes);
        PATH_MUST(!wire_baton_read(bytes, size, &back) && back.slot == baton.slot);
    }
}

static void run_protocol(void)
{
    const struct protocol_request request = {
        .id = "0123456789abcdef0123456789abcdef",
        .model = "land-cover",
        .shape = {UNETSERVE_U16, 3, {12, 256, 256}},
        .accept = PROTOCOL_NPY,
        .timeout_ms = 1000,
    };
    const struct protocol_reply reply = {
        .id = "0123456789abcdef0123456789abcdef",
        .status = 200,
        .shape = {UNETSERVE_U8, 2, {256, 256}},
        .type = "application/x-npy",
        .queue_ms = 0.25,
        .forward_ms = 100.5,
    };
    for (int i = 0; i < ROUNDS; i++) {
        unsigned char bytes[PROTOCOL_HEAD_MAX];
        char error[256];
        struct protocol_request request_back;
        struct protocol_reply reply_back;
        long size = protocol_request_write(&request, bytes, sizeof bytes);
        PATH_MUST(size > 0 &&
                  !protocol_request_read(bytes, (size_t)size, &request_back, error, sizeof error));
        size = protocol_reply_write(&reply, bytes, sizeof bytes);
        PATH_MUST(size > 0 &&
                  !protocol_reply_read(bytes, (size_t)size, &reply_back, error, sizeof error));
    }
}

/* One client, well within its rate. */
static void run_bucket(void)
{
    static uint64_t now_us = 1000000;
    static const char address[16] = "client's address";
    const struct admission_rate rate = admission_rate_of(1000000, 100);
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t hash = admission_hash(queue.admission, address, sizeof address);
        now_us += 5000;
        PATH_MUST(admission_take(queue.admission, &rate, hash, now_us) == 0);
    }
}

/* A stream's items, through the slot's ring. */
static void run_ring(void)
{
    static _Alignas(64) unsigned char area[4096];
    static struct ring_counts counts;
    memset(&counts, 0, sizeof counts);
    struct ring writer = {.counts = &counts, .bytes = area, .capacity = sizeof area};
    struct ring reader = writer;
    for (int i = 0; i < ROUNDS; i++) {
        char item[64] = "";
        size_t size;
        PATH_MUST(!ring_put(&writer, item, sizeof item));
        PATH_MUST(!ring_next(&reader, &size) && size == sizeof item);
        ring_take(&reader, item, size);
    }
}

const struct path path_queue[] = {
    {"slot: 200 times from FREE to FREE", run_slot},
    {"hand-over: 200 looks for an idle worker, 128 slots", run_idle_worker},
    {"hand-over: 200 looks for the only worker", run_only_worker},
    {"standing rules: 200 looks at 128 slots in use", run_rules},
    {"placement: 64 jobs, 8 workers", run_placement},
    {"baton: 200 written and read", run_wire},
    {"ZeroMQ heads: 200 requests and replies written and read", run_protocol},
    {"token bucket: 200 requests of a client", run_bucket},
    {"ring: 200 items of a stream", run_ring},
    {NULL, NULL},
};
