/*
 * The autoscaler's law: single decisions, and whole days in a discrete-event simulator against a
 * bound that no schedule goes below. With --table the simulator prints its table instead.
 *
 * A request is LATE when it waits longer than TARGET_S for a worker, or is refused because the
 * queue is full. Cost is worker-seconds: of ready, starting and draining workers.
 *
 * THE BOUND. Let a schedule know the future, have workers at once and in fractions, and split a job
 * among them; it only has at least m workers at each moment (the configured least) and at most a
 * share e of the N jobs late. It works at a rate r(t) <= w(t), so in a time T its cost is at least
 * the integral of max(m, r) = m T + E, where E is the work done beyond the rate m.
 *
 * Leave the late jobs out for now. A job that is not late starts by arrival + D and, since workers
 * do not pause, ends by arrival + X with X = D + the longest service time. Mark each bit of work as
 * low or high: within the rate m, or beyond it. Let A(t) be the work that arrives until t, H(t) its
 * low part. Low work that arrives in (u, t] is done in (u, t + X] at a rate of at most m, so
 *
 *     H(t) - H(u) <= m (t - u) + m X   for all u < t,   and H grows by no more than A.       (1)
 *
 * Take a store that takes in A, drains at the rate m and spills what would exceed m X. What it
 * takes in, G, has the largest value that (1) allows, at each t: where it does not spill, G grows
 * as A does, by no less than H; where it spills, the store is full and was last empty at some u, so
 * that G(t) = G(u) + m (t - u) + m X >= H(u) + H(t) - H(u) = H(t), by induction over these times.
 * So E = A - H >= A - G = what is spilt.
 *
 * The late jobs: of those left the store would take in some G'; that is feasible with all jobs
 * there too, so G >= G', and spilt' = A - L - G' >= spilt - L, where L is the work of the late
 * jobs, at most that of the longest e N. Arrivals in the last X may be done after T and are left
 * out. So
 *
 *     cost >= m T + max(0, spilt - L).
 *
 * It ignores cold starts, whole workers, and that the future is unknown.
 */
#include "supervisor/autoscale.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MOST        16
#define QUEUE_MOST  256
#define JOBS_MOST   400000
#define SPAN_S      1800.0
#define TARGET_S    0.5
#define SERVICE_S   0.1
#define LATE_SHARE  0.005
#define COST_FACTOR 1.25
#define FIRST_SEED  101 /* not those by which the law was chosen */
#define SEEDS       5
#define HOLD_S      0.8 /* the default */

/* ---- traces ---- */

static uint64_t dice_state;

static double roll(void)
{
    dice_state ^= dice_state << 13;
    dice_state ^= dice_state >> 7;
    dice_state ^= dice_state << 17;
    return ((double)(dice_state >> 11) + 0.5) / 9007199254740992.0;
}

static void dice_seed(uint64_t seed)
{
    dice_state = UINT64_C(88172645463325252) ^ seed * UINT64_C(0x9e3779b97f4a7c15);
    for (int i = 0; i < 20; i++)
        (void)roll();
}

/* Requests a second, at most RATE_MOST. */
#define RATE_MOST 120.0

static double rate_day(double t)
{
    return 60 - 50 * cos(2 * M_PI * t / SPAN_S);
}

static double rate_step(double t)
{
    return t > 600 && t < 1200 ? 100 : 8;
}

static double rate_ramp(double t)
{
    return 8 + 100 * t / SPAN_S;
}

/* Half a minute in every three. */
static double rate_bursts(double t)
{
    return fmod(t, 180) > 150 ? 110 : 10;
}

static double rate_square(double t)
{
    return fmod(t, 60) < 30 ? 100 : 15;
}

static const struct {
    const char *name;
    double (*rate)(double t);
} traces[] = {{"day curve", rate_day},
              {"step", rate_step},
              {"ramp", rate_ramp},
              {"bursts of 30 s", rate_bursts},
              {"square of 30 s", rate_square}};
#define TRACES (sizeof traces / sizeof traces[0])

struct job {
    double arrival, service;
};

static struct job jobs[JOBS_MOST];
static size_t job_count;

/* Mean SERVICE_S; a lognormal time with a deviation of half its mean, at most 1 s, if it varies. */
static double service_draw(bool varies)
{
    double square = log(1.25);
    double normal = sqrt(-2 * log(roll())) * cos(2 * M_PI * roll());
    return varies ? fmin(1, exp(log(SERVICE_S) - square / 2 + sqrt(square) * normal)) : SERVICE_S;
}

static void trace_make(size_t trace, bool varies, uint64_t seed)
{
    dice_seed(seed * 16 + trace);
    job_count = 0;
    double t = 0;
    while ((t -= log(roll()) / RATE_MOST) < SPAN_S) {
        if (roll() * RATE_MOST >= traces[trace].rate(t))
            continue;
        assert_true(job_count < JOBS_MOST);
        jobs[job_count++] = (struct job){t, service_draw(varies)};
    }
}

/* ---- the bound ---- */

static int longer_first(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return x > y ? -1 : x < y;
}

/* The work of the longest jobs, as many as may be late. */
static double late_work(void)
{
    static double services[JOBS_MOST];
    double work = 0;
    for (size_t i = 0; i < job_count; i++)
        services[i] = jobs[i].service;
    qsort(services, job_count, sizeof services[0], longer_first);
    for (size_t i = 0; i < (size_t)(LATE_SHARE * (double)job_count); i++)
        work += services[i];
    return work;
}

static double bound(uint32_t least)
{
    double stored = 0, spilt = 0, longest = 0, last = 0;
    for (size_t i = 0; i < job_count; i++)
        longest = fmax(longest, jobs[i].service);
    double room = least * (TARGET_S + longest);
    for (size_t i = 0; i < job_count && jobs[i].arrival < SPAN_S - room / least; i++) {
        stored = fmax(0, stored - least * (jobs[i].arrival - last)) + jobs[i].service;
        last = jobs[i].arrival;
        if (stored > room) {
            spilt += stored - room;
            stored = room;
        }
    }
    return least * SPAN_S + fmax(0, spilt - late_work());
}

/* ---- the simulator ---- */

enum place_state { OFF, STARTING, IDLE, BUSY };

struct place {
    enum place_state state;
    bool draining;
    double until; /* STARTING, BUSY */
    double service;
};

struct simulation {
    double now, cold, cost;
    struct place places[MOST];
    size_t next, head; /* jobs not yet arrived; those before it and from head on may wait */
    size_t queue[QUEUE_MOST];
    uint32_t waiting;
    size_t late, changes;
    double runs[MOST];
    struct autoscale_metrics seen;
    struct autoscale_state state;
};

static void advance(struct simulation *s, double to)
{
    unsigned on = 0;
    for (unsigned i = 0; i < MOST; i++)
        on += s->places[i].state != OFF;
    s->cost += on * (to - s->now);
    s->now = to;
}

static void arrive(struct simulation *s)
{
    s->seen.arrivals++;
    if (s->waiting == QUEUE_MOST)
        s->late++;
    else
        s->queue[(s->head + s->waiting++) % QUEUE_MOST] = s->next;
    s->next++;
}

static void finish(struct simulation *s, struct place *place)
{
    if (place->state == BUSY) {
        s->seen.served++;
        s->seen.busy_ns += (uint64_t)(place->service * 1e9);
    }
    place->state = place->draining ? OFF : IDLE;
    place->draining = false;
}

static void dispatch(struct simulation *s)
{
    for (unsigned i = 0; i < MOST && s->waiting; i++) {
        struct place *place = &s->places[i];
        if (place->state != IDLE)
            continue;
        const struct job *job = &jobs[s->queue[s->head]];
        s->head = (s->head + 1) % QUEUE_MOST;
        s->waiting--;
        s->late += s->now - job->arrival > TARGET_S;
        place->state = BUSY;
        place->service = job->service;
        place->until = s->now + job->service;
    }
}

static uint32_t present(const struct simulation *s)
{
    uint32_t count = 0;
    for (unsigned i = 0; i < MOST; i++)
        count += s->places[i].state != OFF && !s->places[i].draining;
    return count;
}

static struct place *place_find(struct simulation *s, enum place_state state)
{
    for (unsigned i = MOST; i-- > 0;)
        if (s->places[i].state == state && !s->places[i].draining)
            return &s->places[i];
    return NULL;
}

static void grow(struct simulation *s)
{
    struct place *place = place_find(s, OFF);
    if (place)
        *place = (struct place){.state = STARTING, .until = s->now + s->cold};
}

static void shrink(struct simulation *s)
{
    static const enum place_state order[] = {IDLE, STARTING, BUSY};
    struct place *place = NULL;
    for (unsigned i = 0; i < 3 && !place; i++)
        place = place_find(s, order[i]);
    if (place && place->state == BUSY)
        place->draining = true;
    else if (place)
        place->state = OFF;
}

static void see_runs(struct simulation *s)
{
    s->seen.runs = s->runs;
    s->seen.run_count = 0;
    for (unsigned i = 0; i < MOST; i++) {
        const struct place *place = &s->places[i];
        if (place->state == BUSY && !place->draining)
            s->runs[s->seen.run_count++] = place->service - (place->until - s->now);
    }
}

static void tick(struct simulation *s, const struct autoscale_limits *limits)
{
    s->seen.waiting = s->waiting;
    s->seen.waited_s = s->waiting ? s->now - jobs[s->queue[s->head]].arrival : 0;
    s->seen.present = present(s);
    see_runs(s);
    uint32_t wanted = autoscale_decide(&s->seen, limits, s->now, &s->state);
    s->changes += wanted != s->seen.present;
    for (uint32_t n = s->seen.present; n < wanted; n++)
        grow(s);
    for (uint32_t n = s->seen.present; n > wanted; n--)
        shrink(s);
}

/* Replay the trace. */
static void simulate(struct simulation *s, double cold)
{
    struct autoscale_limits limits = {1, MOST, TARGET_S, HOLD_S, cold};
    double next_tick = 0;
    *s = (struct simulation){.cold = cold};
    s->places[0].state = IDLE;
    for (;;) {
        double to = fmin(next_tick, s->next < job_count ? jobs[s->next].arrival : INFINITY);
        struct place *ending = NULL;
        for (unsigned i = 0; i < MOST; i++) {
            struct place *place = &s->places[i];
            if ((place->state == STARTING || place->state == BUSY) && place->until < to) {
                to = place->until;
                ending = place;
            }
        }
        if (to > SPAN_S)
            break;
        advance(s, to);
        if (ending) {
            finish(s, ending);
        } else if (to == next_tick) {
            tick(s, &limits);
            next_tick += AUTOSCALE_TICK_MS / 1000.0;
        } else {
            arrive(s);
        }
        dispatch(s);
    }
    advance(s, SPAN_S);
    s->late += s->waiting; /* as if: at most a few, that arrived at the very end */
}

struct row {
    double factor, late; /* worst of the seeds: cost by the bound, and the share */
    double changes;      /* mean */
};

static struct row row_make(size_t trace, bool varies, double cold)
{
    struct row row = {0, 0, 0};
    static struct simulation s;
    for (uint64_t seed = FIRST_SEED; seed < FIRST_SEED + SEEDS; seed++) {
        trace_make(trace, varies, seed);
        simulate(&s, cold);
        row.factor = fmax(row.factor, s.cost / bound(1));
        row.late = fmax(row.late, (double)s.late / (double)job_count);
        row.changes += (double)s.changes / SEEDS;
    }
    return row;
}

static void table_print(void)
{
    static const double colds[] = {0.05, 0.3, 1, 2, 5, 10};
    printf("%-15s %-8s %7s %12s %8s %9s\n", "trace", "service", "cold s", "cost / bound", "late %",
           "decisions");
    for (size_t c = 0; c < sizeof colds / sizeof colds[0]; c++)
        for (size_t trace = 0; trace < TRACES; trace++)
            for (int varies = 0; varies < 2; varies++) {
                struct row row = row_make(trace, varies, colds[c]);
                printf("%-15s %-8s %7.2f %12.3f %8.3f %9.0f\n", traces[trace].name,
                       varies ? "variable" : "fixed", colds[c], row.factor, 100 * row.late,
                       row.changes);
            }
}

/* ---- single decisions ---- */

static const struct autoscale_limits few = {.least = 1, .most = 4, .target_s = 0.5, .hold_s = 2};

static void test_idle_keeps_the_least(void **unused)
{
    (void)unused;
    struct autoscale_state state = {.rate = 0};
    struct autoscale_metrics metrics = {.present = 1};
    for (int tick = 0; tick < 100; tick++)
        assert_int_equal(autoscale_decide(&metrics, &few, 100 + tick * 0.1, &state), 1);
}

static void test_queue_raises_at_once_and_within_the_limits(void **unused)
{
    (void)unused;
    struct autoscale_state state = {.service_s = 0.1, .now_s = 9.9};
    struct autoscale_metrics metrics = {.present = 1, .waiting = 2};
    assert_int_equal(autoscale_decide(&metrics, &few, 10, &state), 1); /* 0.2 s of work is borne */
    metrics.waiting = 8;
    assert_int_equal(autoscale_decide(&metrics, &few, 10.1, &state), 2);
    metrics.waiting = 4000;
    assert_int_equal(autoscale_decide(&metrics, &few, 10.2, &state), 4);
}

/* What is refused waits nowhere, and counts. */
static void test_rate_alone_raises(void **unused)
{
    (void)unused;
    struct autoscale_state state = {.service_s = 0.1, .now_s = 0};
    struct autoscale_metrics metrics = {.present = 1};
    uint32_t wanted = 1;
    for (int tick = 1; tick <= 200; tick++) {
        metrics.arrivals += 3; /* 30 a second: three workers */
        wanted = autoscale_decide(&metrics, &few, tick * 0.1, &state);
        metrics.present = wanted;
    }
    assert_int_equal(wanted, 3);
}

static void test_falls_after_the_hold_down(void **unused)
{
    (void)unused;
    struct autoscale_state state = {.service_s = 0.1, .now_s = 9.9};
    struct autoscale_metrics metrics = {.present = 4, .waiting = 400};
    assert_int_equal(autoscale_decide(&metrics, &few, 10, &state), 4);
    metrics.waiting = 0;
    assert_int_equal(autoscale_decide(&metrics, &few, 11.8, &state), 4);
    assert_int_equal(autoscale_decide(&metrics, &few, 12.2, &state), 1);
}

/* What takes long to start is kept longer, and rounded up. */
static void test_slow_starts_are_heeded(void **unused)
{
    (void)unused;
    struct autoscale_limits limits = few;
    limits.start_s = 4;
    struct autoscale_state state = {.service_s = 0.1, .now_s = 9.9};
    struct autoscale_metrics metrics = {.present = 4, .waiting = 400};
    assert_int_equal(autoscale_decide(&metrics, &limits, 10, &state), 4);
    metrics.waiting = 0;
    assert_int_equal(autoscale_decide(&metrics, &limits, 14.7, &state), 4);
    assert_int_equal(autoscale_decide(&metrics, &limits, 15.4, &state), 1);
    for (int half = 0; half < 2; half++) { /* 22 a second: 2.2 workers */
        limits.start_s = half ? 1 : 0.3;
        state = (struct autoscale_state){.service_s = 0.1, .rate = 22, .now_s = 0};
        metrics = (struct autoscale_metrics){.present = 2, .arrivals = 22};
        assert_int_equal(autoscale_decide(&metrics, &limits, 1, &state), half ? 3 : 2);
    }
}

/* Holding starts nobody: one that could not be started is not asked for again without need. */
static void test_hold_starts_nobody(void **unused)
{
    (void)unused;
    struct autoscale_state state = {.service_s = 0.1, .now_s = 9.9};
    struct autoscale_metrics metrics = {.present = 1, .waiting = 400};
    assert_int_equal(autoscale_decide(&metrics, &few, 10, &state), 4);
    metrics.waiting = 0;
    assert_int_equal(autoscale_decide(&metrics, &few, 10.1, &state), 1);
}

static void test_counts_that_fall_are_borne(void **unused)
{
    (void)unused;
    struct autoscale_state state = {.service_s = 0.1, .now_s = 0};
    struct autoscale_metrics metrics = {.present = 1, .arrivals = 5};
    autoscale_decide(&metrics, &few, 0.1, &state);
    double rate = state.rate;
    metrics.arrivals = 3;
    assert_int_equal(autoscale_decide(&metrics, &few, 0.2, &state), 1);
    assert_true(state.rate < rate);
    metrics.arrivals = 5;
    autoscale_decide(&metrics, &few, 0.2, &state); /* no time has passed */
    assert_true(state.rate >= 0 && isfinite(state.rate));
}

static void test_service_time_is_learnt(void **unused)
{
    (void)unused;
    struct autoscale_state state = {.now_s = 0};
    struct autoscale_metrics metrics = {.present = 1, .served = 10, .busy_ns = 2000000000};
    autoscale_decide(&metrics, &few, 0.1, &state);
    assert_true(fabs(state.service_s - 0.2) < 1e-9);
}

/* All that is known is that requests take no time. One that takes long holds the only worker. */
static void test_a_worker_that_is_held_is_replaced(void **unused)
{
    (void)unused;
    struct autoscale_state state = {.service_s = 0.005, .now_s = 9.9};
    double runs[4] = {0.4};
    struct autoscale_metrics metrics = {
        .present = 1, .waiting = 3, .waited_s = 0.4, .runs = runs, .run_count = 1};
    assert_int_equal(autoscale_decide(&metrics, &few, 10, &state), 1); /* as long as any may wait */
    runs[0] = 0.6;
    metrics.waited_s = 0.2; /* somebody has just come */
    assert_int_equal(autoscale_decide(&metrics, &few, 10.1, &state), 1);
    metrics.waited_s = 0.3;
    assert_int_equal(autoscale_decide(&metrics, &few, 10.2, &state), 2);
    metrics.waiting = 0;
    assert_int_equal(autoscale_decide(&metrics, &few, 10.3, &state), 1); /* nobody waits */
    /* Three are held, the fourth has room: it stays for as long as they are. */
    for (int i = 0; i < 3; i++)
        runs[i] = 30;
    metrics = (struct autoscale_metrics){.present = 4, .waiting = 2, .runs = runs, .run_count = 3};
    state.rate = 100;
    metrics.arrivals = state.last.arrivals;
    for (int tick = 0; tick < 100; tick++) {
        metrics.arrivals += 10;
        assert_int_equal(autoscale_decide(&metrics, &few, 11 + tick * 0.1, &state), 4);
    }
}

/* Runs that last no longer than those before are counted on as before. */
static void test_long_runs_that_are_usual_hold_nobody(void **unused)
{
    (void)unused;
    struct autoscale_state state = {.service_s = 2, .now_s = 9.9};
    double runs[] = {1.9, 5};
    struct autoscale_metrics metrics = {.present = 2, .runs = runs, .run_count = 2};
    assert_int_equal(autoscale_decide(&metrics, &few, 10, &state), 1);
    runs[1] = 6.5;
    assert_int_equal(autoscale_decide(&metrics, &few, 14, &state), 1);
    metrics.waiting = 1; /* for the one that is not held: 2 s of work */
    assert_int_equal(autoscale_decide(&metrics, &few, 14.1, &state), 4);
}

/* ---- the requirement ---- */

static void row_check(size_t trace, bool varies, double cold)
{
    struct row row = row_make(trace, varies, cold);
    if (row.factor > COST_FACTOR || row.late > LATE_SHARE)
        fail_msg("%s, %.1f s to start: cost %.3f of the bound, %.3f %% late", traces[trace].name,
                 cold, row.factor, 100 * row.late);
}

static void test_cost_and_lateness_against_the_bound(void **unused)
{
    (void)unused;
    for (size_t trace = 0; trace < TRACES; trace++)
        for (int varies = 0; varies < 2; varies++)
            row_check(trace, varies, 0.3);
}

/* With a start of 1 s too where the load does not jump. */
static void test_slow_starts_against_the_bound(void **unused)
{
    (void)unused;
    for (size_t trace = 0; trace < TRACES; trace++)
        if (traces[trace].rate == rate_day || traces[trace].rate == rate_ramp)
            for (int varies = 0; varies < 2; varies++)
                row_check(trace, varies, 1);
}

#define LONG_EVERY_S 60.0
#define LONG_S       20.0
#define COLD_S       0.3

/* How many have come within that time after a long one. */
static size_t behind_long_ones(double seconds)
{
    double until = 0;
    size_t count = 0;
    for (size_t i = 0; i < job_count; i++) {
        count += jobs[i].arrival < until;
        if (jobs[i].service >= LONG_S)
            until = jobs[i].arrival + seconds;
    }
    return count;
}

/* Many requests of 5 ms, and each minute one of 20 s. Those that come behind it wait until it has
 * lasted for as long as one may wait, until the next tick then, and for the start of a worker: late
 * are only those that come in the first of these moments. */
static void test_quick_requests_do_not_wait_behind_long_ones(void **unused)
{
    (void)unused;
    static struct simulation s;
    double due = LONG_EVERY_S;
    size_t longs = 0;
    trace_make(1, false, FIRST_SEED);
    for (size_t i = 0; i < job_count; i++) {
        bool is_long = jobs[i].arrival >= due;
        jobs[i].service = is_long ? LONG_S : 0.005;
        due += is_long ? LONG_EVERY_S : 0;
        longs += is_long;
    }
    simulate(&s, COLD_S);
    size_t few_late = behind_long_ones(COLD_S + 3 * AUTOSCALE_TICK_MS / 1000.0);
    /* One worker for what is quick, and one for each long request and a little longer. */
    double enough = SPAN_S + (double)longs * (LONG_S + HOLD_S + COLD_S);
    if (s.late > few_late || s.cost > COST_FACTOR * enough)
        fail_msg("%zu late, %zu are few; cost %.3f of what is enough", s.late, few_late,
                 s.cost / enough);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_idle_keeps_the_least),
        cmocka_unit_test(test_queue_raises_at_once_and_within_the_limits),
        cmocka_unit_test(test_rate_alone_raises),
        cmocka_unit_test(test_falls_after_the_hold_down),
        cmocka_unit_test(test_slow_starts_are_heeded),
        cmocka_unit_test(test_hold_starts_nobody),
        cmocka_unit_test(test_counts_that_fall_are_borne),
        cmocka_unit_test(test_service_time_is_learnt),
        cmocka_unit_test(test_a_worker_that_is_held_is_replaced),
        cmocka_unit_test(test_long_runs_that_are_usual_hold_nobody),
        cmocka_unit_test(test_quick_requests_do_not_wait_behind_long_ones),
        cmocka_unit_test(test_cost_and_lateness_against_the_bound),
        cmocka_unit_test(test_slow_starts_against_the_bound),
    };
    if (argc == 2 && strcmp(argv[1], "--table") == 0) {
        table_print();
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
