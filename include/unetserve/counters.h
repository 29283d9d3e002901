/*
 * What is counted, in shared memory beside the slot table: one block for each seat, so that a count
 * outlives the process that made it, and one writer for each block, so that counting takes no lock
 * and no locked instruction. Readers add the blocks up.
 *
 *   struct counters_server the supervisor; there is one
 *   struct counters_seat   the supervisor
 *   struct counters        the process that sits there; after its death nobody until the next one
 *
 * Counters only grow, but for the gauges, which a process sets to 0 when it takes its seat. All are
 * relaxed: a reader gets each number whole and never an older one than it got before, but no
 * snapshot of all. Numbers read from here are sums to be shown, never indices or lengths.
 */
#ifndef COUNTERS_H
#define COUNTERS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define COUNTERS_MAX_SEATS  128
#define COUNTERS_MAX_MODELS 16
#define COUNTERS_NO_MODEL   COUNTERS_MAX_MODELS /* requests that name none: pages, bad heads */
#define COUNTERS_BUCKETS    18                  /* the last one has no upper bound */
#define COUNTERS_STATUSES   115
#define COUNTERS_OWN_MAX    16 /* numbers that a model makes up, a worker */

/* Where the time of a request goes. */
#define COUNTERS_TIMES(X)                                                                          \
    X(REQUEST, "request", "From the head of an accepted request to its answer.")                   \
    X(RECEIVE, "receive", "From the head to the last byte of the body, decoded.")                  \
    X(QUEUE, "queue", "From acceptance to the start in a worker.")                                 \
    X(FORWARD, "forward", "In a worker, without encoding.")                                        \
    X(ENCODE, "encode", "Turning a result into the answer's form.")

/* Why a request was refused before it was accepted. */
#define COUNTERS_REFUSALS(X)                                                                       \
    X(HEAD, "head")               /* the grammar of HTTP */                                        \
    X(CUT, "cut")                 /* the connection ended within the request */                    \
    X(SLOW, "slow")               /* head or body took too long */                                 \
    X(KEY, "key")                 /* none, or a wrong one */                                       \
    X(AUTH, "auth")               /* a token could not be checked now */                           \
    X(CONNECTIONS, "connections") /* its address has as many as it may have */                     \
    X(RATE, "rate")               /* over the client's rate */                                     \
    X(SIZE, "size")               /* larger than any slot, or than max_body_bytes */               \
    X(WAIT, "wait")               /* its time would be over before a worker is free */             \
    X(RECEIVING, "receiving")     /* max_receiving_percent of the slots wait for bodies */         \
    X(SLOTS, "slots")             /* all that would hold it are taken */                           \
    X(NOT_READY, "not_ready")     /* no worker has been ready yet */                               \
    X(DRAINING, "draining")       /* the server is shutting down */

enum counters_time {
#define COUNTERS_TIME_ENUM(name, text, help) COUNTERS_TIME_##name,
    COUNTERS_TIMES(COUNTERS_TIME_ENUM)
#undef COUNTERS_TIME_ENUM
        COUNTERS_TIME_COUNT
};

enum counters_refusal {
#define COUNTERS_REFUSAL_ENUM(name, text) COUNTERS_REFUSED_##name,
    COUNTERS_REFUSALS(COUNTERS_REFUSAL_ENUM)
#undef COUNTERS_REFUSAL_ENUM
        COUNTERS_REFUSAL_COUNT
};

typedef _Atomic uint64_t counter;

struct counters_histogram {
    counter sum;                       /* of what was observed */
    counter buckets[COUNTERS_BUCKETS]; /* each without those below it; their sum is the count */
};

/* By the supervisor, of the whole server. */
struct counters_server {
    _Alignas(64) counter reloads; /* that took over what was asked for */
    counter reloads_refused;      /* that changed nothing */
};

/* By the supervisor. */
struct counters_seat {
    _Alignas(64) _Atomic uint32_t role; /* enum queue_role; QUEUE_NOBODY: there is no such seat */
    counter starts;                     /* processes started */
    counter deaths;                     /* those of them that ended although nobody asked them to */
};

struct counters_model {
    /* by a gateway */
    counter answers[COUNTERS_STATUSES]; /* by counters_status */
    counter abandoned; /* requests that ended without an answer: their client left */
    counter arrived;   /* accepted, or refused because the queue has no slot or too long a wait */
    struct counters_histogram times[COUNTERS_TIME_COUNT]; /* ns, of accepted requests */
    /* by a worker */
    struct counters_histogram batch; /* tiles in one call of predict */
    counter busy_ns;                 /* in predict */
    counter handed_over;             /* jobs that it took without the broker */
};

enum counters_kind { COUNTERS_UNUSED, COUNTERS_COUNTER, COUNTERS_GAUGE };

/* A number that a model made up. Its place never changes its name, its model or its kind, so
 * whoever sits there next goes on with it. */
struct counters_own {
    char name[48];
    uint32_t model;
    _Atomic uint32_t kind; /* written last */
    counter bits;          /* of a double */
};

#define COUNTERS_MAX_GPUS 64

#define COUNTERS_LOSSES 5

/* A GPU under workers, by the supervisor; and, after COUNTERS_MAX_GPUS of them, the one that the
 * driver chooses. */
struct counters_device {
    char name[96];                     /* UUID, or "cuda"; empty: there is none. Constant */
    counter failures[COUNTERS_LOSSES]; /* workers that it failed under, by enum unetserve_loss */
    counter last;                      /* why it did so last */
    counter in_a_row;                  /* failures without a longer while of work in between */
    counter rests_until_ns; /* nothing is started on it before; 0: it is not known to be bad */
};

/* Figures of a GPU: name in /metrics, unit of what is kept by that of what is shown. */
#define COUNTERS_GPU_FIGURES(X)                                                                    \
    X(UTILIZATION, "utilization_ratio", 1e-2,                                                      \
      "Share of the last moments in which the GPU computed.")                                      \
    X(MEMORY_UTILIZATION, "memory_utilization_ratio", 1e-2,                                        \
      "Share of the last moments in which its memory was read or written.")                        \
    X(MEMORY_USED, "memory_used_bytes", 1, "Memory in use, by whatever process.")                  \
    X(MEMORY_TOTAL, "memory_total_bytes", 1, "Memory that there is.")                              \
    X(TEMPERATURE, "temperature_celsius", 1, "Temperature of the GPU.")                            \
    X(POWER, "power_watts", 1e-3, "Power that the board draws.")                                   \
    X(POWER_LIMIT, "power_limit_watts", 1e-3, "Power at which it slows down.")                     \
    X(CLOCK, "clock_hertz", 1e6, "Clock of its processors.")                                       \
    X(THROTTLE, "", 1, "")                                                                         \
    X(ECC_CORRECTED, "", 1, "")                                                                    \
    X(ECC_UNCORRECTED, "", 1, "")

enum counters_gpu_figure {
#define COUNTERS_GPU_ENUM(name, text, scale, help) COUNTERS_GPU_##name,
    COUNTERS_GPU_FIGURES(COUNTERS_GPU_ENUM)
#undef COUNTERS_GPU_ENUM
        COUNTERS_GPU_FIGURE_COUNT
};

/* A GPU, or an instance of one. By the process of role QUEUE_GPU; who it is stands there before its
 * first sample. Texts end with a zero byte, or with their room. */
struct counters_gpu {
    char uuid[96];
    char index[24];
    char name[96];
    _Alignas(64) counter sampled_ns; /* when its figures were read; 0: never. Written last */
    counter known;                   /* which of them it tells, a bit each */
    counter lost;                    /* the driver says that it is gone */
    counter figures[COUNTERS_GPU_FIGURE_COUNT];
};

struct counters {
    /* by a gateway */
    _Alignas(64) counter received_bytes;
    counter answered_bytes;
    counter body_bytes;   /* of accepted requests, as their readers get them */
    counter copied_bytes; /* that were written for them into slots, and from slot to slot */
    counter connections;
    counter refusals[COUNTERS_REFUSAL_COUNT];
    counter connections_open;                              /* gauge */
    counter requests_open;                                 /* gauge */
    struct counters_model models[COUNTERS_MAX_MODELS + 1]; /* the last: COUNTERS_NO_MODEL */
    /* by a worker */
    struct counters_own own[COUNTERS_OWN_MAX];
};

/* Only by the block's one writer. */
static inline void counter_add(counter *it, uint64_t value)
{
    atomic_store_explicit(it, atomic_load_explicit(it, memory_order_relaxed) + value,
                          memory_order_relaxed);
}

static inline void counter_set(counter *it, uint64_t value)
{
    atomic_store_explicit(it, value, memory_order_relaxed);
}

static inline uint64_t counter_read(const counter *it)
{
    return atomic_load_explicit(it, memory_order_relaxed);
}

/* By whatever reason. */
static inline uint64_t counters_device_failures(const struct counters_device *device)
{
    uint64_t sum = 0;
    for (int why = 0; why < COUNTERS_LOSSES; why++)
        sum += counter_read(&device->failures[why]);
    return sum;
}

/* The place of a status in `answers`: 200, 400 to 499 and 500 to 512 have one each, all others
 * share the last. */
unsigned counters_status(int status);

/* The status of a place, 0 for the last one. */
int counters_status_of(unsigned place);

/* Upper bounds of the buckets, each belonging to its bucket: of times in ns, of batches in tiles.
 * The last is UINT64_MAX. */
extern const uint64_t counters_time_bounds[COUNTERS_BUCKETS];
extern const uint64_t counters_batch_bounds[COUNTERS_BUCKETS];

/* Only by the block's one writer. */
void counters_observe(struct counters_histogram *histogram, const uint64_t bounds[COUNTERS_BUCKETS],
                      uint64_t value);

/* Only by the block's one writer: add to a number of a model's own, or set it. 0, -EINVAL (name,
 * kind or value), -ENOSPC. */
int counters_own_set(struct counters *block, uint32_t model, const char *name,
                     enum counters_kind kind, double value);

/* A copy of one, checked. False: unused, or what it says makes no sense. */
struct counters_own_view {
    char name[48];
    enum counters_kind kind;
    uint32_t model;
    double value;
};
bool counters_own_read(const struct counters_own *own, struct counters_own_view *out);

/* Gauges are 0 when a process takes its seat. */
void counters_own_begin(struct counters *block);

/* Add a block to a private one (but for what models make up). */
void counters_sum(struct counters *total, const struct counters *block);

#endif
