/*
 * rate: how many jobs a second go through the broker when nothing else is to be done for them. The
 * broker's own inbox and look are called on a real queue; the gateway in front of it and the worker
 * behind it do nothing but move slots. In turns: so many jobs are submitted, each with its baton
 * over ZeroMQ; the broker takes the batons and leases; the workers' eventfds are read, their jobs
 * run and are freed. One line of JSON: jobs a second of all of that, and microseconds of the
 * broker's part for each.
 */
#include "broker/inbox.h"
#include "broker/survey.h"
#include "gateway/baton.h"
#include "unetserve/seat.h"

#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#define JOBS_MAX    1024
#define WORKERS_MAX 64
#define WAIT_MS     10000 /* for batons; then something is wrong */
#define QUIET_MS    50

struct rate {
    uint32_t slots, workers, jobs;
    double seconds;
    struct queue queue;
    struct survey *survey;
    struct inbox inbox;
    struct baton_line line;
    uint16_t gateway;
    uint32_t taken[JOBS_MAX]; /* slots of this turn's jobs */
    uint64_t done, looks, broker_ns;
};

static uint64_t thread_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void must(const char *what, int error)
{
    if (error != 0) {
        fprintf(stderr, "rate: %s: %s\n", what, strerror(-error));
        exit(EX_SOFTWARE);
    }
}

/* ---- begin and end ---- */

static void add_worker(struct rate *rate, uint32_t number)
{
    uint16_t index = 0;
    uint32_t seat = 1 + number;
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (fd < 0 || dup2(fd, SEAT_FD_EVENT + (int)seat) < 0) {
        must("eventfd", -errno);
    }
    close(fd);
    must("a worker's entry", queue_process_enter(&rate->queue, QUEUE_WORKER, seat, &index));
    struct queue_process *process = &rate->queue.processes[index];
    atomic_store(&process->model_generation, 1);
    atomic_store(&process->ready, 1);
}

/* ZeroMQ connects in a thread of its own, and batons until then are not kept: so many are sent
 * until one arrives, and then none for a while. */
static void connect_line(struct rate *rate)
{
    const struct wire_baton baton = {.slot = 0};
    struct pollfd fd = {.fd = rate->inbox.fd, .events = POLLIN};
    bool quiet = false;
    for (int tries = 0; !quiet && tries < WAIT_MS / QUIET_MS; tries++) {
        if (rate->inbox.batons == 0) {
            baton_pass(&rate->line, &baton);
        }
        bool arrived = false;
        quiet = poll(&fd, 1, QUIET_MS) == 0 && rate->inbox.batons > 0;
        while (!inbox_drain(&rate->inbox, &arrived)) {
        }
    }
    must("connect", quiet ? 0 : -ETIMEDOUT);
}

static void begin(struct rate *rate, const char *directory)
{
    struct queue_geometry geometry = {
        .class_count = 1, .model_count = 1, .classes = {{4096, 4096, rate->slots, 0}}};
    must("queue", queue_create(&geometry, &rate->queue));
    must("a gateway's entry", queue_process_enter(&rate->queue, QUEUE_GATEWAY, 0, &rate->gateway));
    atomic_store(&rate->queue.models[0].max_batch, (rate->jobs - 1) / rate->workers + 1);
    for (uint32_t i = 0; i < rate->workers; i++) {
        add_worker(rate, i);
    }
    rate->survey = survey_create(&rate->queue);
    must("survey", rate->survey != NULL ? 0 : -ENOMEM);
    must("inbox", inbox_open(directory, &rate->inbox));
    must("line", baton_open(&rate->line, &rate->queue, directory));
    connect_line(rate);
}

static void end(struct rate *rate, const char *directory)
{
    char path[64];
    baton_close(&rate->line);
    inbox_close(&rate->inbox);
    survey_free(rate->survey);
    queue_close(&rate->queue);
    snprintf(path, sizeof path, "%s/" WIRE_BROKER_ADDRESS, directory);
    unlink(path);
    rmdir(directory);
}

/* ---- a turn ---- */

static void submit(struct rate *rate)
{
    for (uint32_t i = 0; i < rate->jobs; i++) {
        uint32_t slot = 0;
        uint64_t word = 0;
        must("slot", queue_reserve(&rate->queue, rate->gateway, 64, 64, &slot, &word));
        struct queue_slot *fields = &rate->queue.slots[slot];
        atomic_store(&fields->model, 0);
        atomic_store(&fields->model_generation, 1);
        atomic_store(&fields->accepted_ns, queue_now_ns());
        queue_move(&rate->queue, QUEUE_GATEWAY, slot, word, QUEUE_READY, 0, &word);
        rate->taken[i] = slot;
        const struct wire_baton baton = {.slot = slot, .word = word};
        baton_pass(&rate->line, &baton);
    }
}

/* All batons of this turn, and a look for what came with each part of them. */
static void broker_turn(struct rate *rate)
{
    uint64_t wanted = rate->inbox.batons + rate->jobs;
    uint32_t leased = 0;
    while (leased < rate->jobs) {
        struct pollfd fd = {.fd = rate->inbox.fd, .events = POLLIN};
        uint64_t begun = thread_ns();
        bool arrived = false;
        bool empty = inbox_drain(&rate->inbox, &arrived);
        if (arrived || rate->inbox.batons == wanted) {
            leased += survey_look(rate->survey, &rate->queue, false).leased;
            rate->looks++;
        }
        rate->broker_ns += thread_ns() - begun;
        if (empty && leased < rate->jobs && rate->inbox.batons < wanted &&
            poll(&fd, 1, WAIT_MS) == 0) {
            must("batons", -ETIMEDOUT);
        }
        if (leased < rate->jobs && rate->inbox.batons == wanted && !arrived) {
            must("leases", -EPROTO);
        }
    }
    while (rate->inbox.batons < wanted) { /* their jobs were leased already */
        bool arrived = false;
        inbox_drain(&rate->inbox, &arrived);
    }
}

static void run_jobs(struct rate *rate)
{
    static const struct {
        enum queue_role role;
        enum queue_state to;
    } steps[] = {{QUEUE_WORKER, QUEUE_RUN},
                 {QUEUE_WORKER, QUEUE_DONE},
                 {QUEUE_GATEWAY, QUEUE_SEND},
                 {QUEUE_GATEWAY, QUEUE_FREE}};
    for (uint32_t i = 0; i < rate->workers; i++) {
        uint64_t wakes = 0;
        if (read(SEAT_FD_EVENT + 1 + (int)i, &wakes, sizeof wakes) < 0 && errno != EAGAIN) {
            must("eventfd", -errno);
        }
    }
    for (uint32_t i = 0; i < rate->jobs; i++) {
        uint64_t word = queue_word(&rate->queue, rate->taken[i]);
        uint16_t worker = queue_word_owner(word);
        for (size_t k = 0; k < sizeof steps / sizeof *steps; k++) {
            uint16_t owner = steps[k].to == QUEUE_RUN    ? worker
                             : steps[k].to == QUEUE_SEND ? rate->gateway
                                                         : 0;
            if (!queue_move(&rate->queue, steps[k].role, rate->taken[i], word, steps[k].to, owner,
                            &word)) {
                must("a move", -EPROTO);
            }
        }
    }
    rate->done += rate->jobs;
}

/* ---- the command line ---- */

static int number(const char *text, uint32_t least, uint32_t most, uint32_t *out)
{
    char *rest = NULL;
    unsigned long value = strtoul(text, &rest, 10);
    if (rest == text || *rest != '\0' || value < least || value > most) {
        fprintf(stderr, "rate: %s: want a number from %u to %u\n", text, least, most);
        return -EINVAL;
    }
    *out = (uint32_t)value;
    return 0;
}

static int parse(int argc, char **argv, struct rate *rate)
{
    static const struct option options[] = {{"slots", required_argument, NULL, 's'},
                                            {"workers", required_argument, NULL, 'w'},
                                            {"jobs", required_argument, NULL, 'j'},
                                            {"ms", required_argument, NULL, 't'},
                                            {NULL, 0, NULL, 0}};
    uint32_t ms = 500;
    int error = 0;
    for (int option; error == 0 && (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (option) {
        case 's': error = number(optarg, 1, QUEUE_MAX_SLOTS, &rate->slots); break;
        case 'w': error = number(optarg, 1, WORKERS_MAX, &rate->workers); break;
        case 'j': error = number(optarg, 1, JOBS_MAX, &rate->jobs); break;
        case 't': error = number(optarg, 1, 60000, &ms); break;
        default: error = -EINVAL;
        }
    }
    rate->seconds = ms * 1e-3;
    return error == 0 && optind == argc && rate->jobs <= rate->slots ? 0 : -EINVAL;
}

int main(int argc, char **argv)
{
    static struct rate rate = {.slots = 256, .workers = 8, .jobs = 64};
    char directory[] = "/tmp/unetserve-bench-XXXXXX";
    if (parse(argc, argv, &rate) != 0) {
        fprintf(stderr, "usage: rate [--slots N] [--workers N] [--jobs N (at once)] [--ms N]\n");
        return EX_USAGE;
    }
    if (mkdtemp(directory) == NULL) {
        must("mkdtemp", -errno);
    }
    begin(&rate, directory);
    uint64_t start = queue_now_ns();
    uint64_t stop = start + (uint64_t)(rate.seconds * 1e9);
    while (queue_now_ns() < stop) {
        submit(&rate);
        broker_turn(&rate);
        run_jobs(&rate);
    }
    double seconds = (double)(queue_now_ns() - start) * 1e-9;
    printf("{\"slots\": %u, \"workers\": %u, \"jobs\": %u, \"done\": %llu, \"jobs_per_s\": %.0f, "
           "\"broker_us\": %.4f, \"jobs_a_look\": %.2f}\n",
           rate.slots, rate.workers, rate.jobs, (unsigned long long)rate.done,
           (double)rate.done / seconds, (double)rate.broker_ns * 1e-3 / (double)rate.done,
           (double)rate.done / (double)rate.looks);
    end(&rate, directory);
    return 0;
}
