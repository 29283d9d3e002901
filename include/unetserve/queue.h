/*
 * The shared-memory job queue: three sealed memfds that the supervisor creates. Every process maps
 * the first, with the slot table, which is the only truth about jobs; messages and eventfds are
 * hints. The second holds the slots' input areas, the third their output areas; who only reads
 * them is handed a descriptor that only reads, so that not even a plugin can write there. What is
 * written here by whom:
 *
 * - header: the supervisor, before any other process exists; constant afterwards
 * - process table: an entry's first block by the supervisor, its second block by the process itself
 * - model table: name and route by the supervisor; the interface by the first ready worker of a
 *   generation
 * - slot word: whoever QUEUE_EDGES allows, by compare-and-swap through queue_move only
 * - slot fields: the word's owner, before the move that gives the slot away; readers read the word
 *   first and move it last
 * - input area: the gateway in RECV; read-only from READY on, so that a job can run again
 * - output area: the worker in RUN; valid in DONE only. Of a stream: a ring that the worker fills
 * in RUN and STREAM; what its counters say is there is valid from STREAM on
 * - counters: a seat's process in its seat's block, the supervisor in the blocks about seats
 *   (unetserve/counters.h)
 * - token buckets of clients: every gateway, by compare-and-swap (unetserve/admission.h)
 *
 * Everything read from here that another process wrote is bounded before it is used as an index or
 * a length.
 */
#ifndef QUEUE_H
#define QUEUE_H

#include "unetserve/admission.h"
#include "unetserve/counters.h"
#include "unetserve/crowd.h"
#include "unetserve/image_file.h"
#include "unetserve/model.h"
#include "unetserve/queue_states.h"
#include "unetserve/ring.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>

#define QUEUE_MAGIC          UINT64_C(0x3176655374656e75)
#define QUEUE_LAYOUT_VERSION 15
#define QUEUE_MAX_PROCESSES  256 /* index 0 is nobody */
#define QUEUE_MAX_MODELS     16
#define QUEUE_MAX_CLASSES    8
#define QUEUE_MAX_SLOTS      4096
#define QUEUE_MAX_ATTEMPTS   2  /* deaths by the job's own fault */
#define QUEUE_MAX_KILLS      20 /* deaths of its workers from outside */
#define QUEUE_ID_MAX         64

enum queue_state {
#define QUEUE_STATE_ENUM(name, owner) QUEUE_##name,
    QUEUE_STATES(QUEUE_STATE_ENUM)
#undef QUEUE_STATE_ENUM
        QUEUE_STATE_COUNT
};

enum queue_role {
    QUEUE_NOBODY,
    QUEUE_SUPERVISOR,
    QUEUE_GATEWAY,
    QUEUE_BROKER,
    QUEUE_WORKER,
    QUEUE_AUTH,
    QUEUE_GPU,
    QUEUE_ROLE_COUNT
};

/* ---- the control word ----
 *
 * state:8 | owner:16 | deaths:8 | generation:32, from the least significant bit; deaths: 3 bits by
 * the job's fault, then 5 bits from outside. */
static inline enum queue_state queue_word_state(uint64_t word)
{
    return (enum queue_state)(word & 0xff);
}
static inline uint16_t queue_word_owner(uint64_t word)
{
    return (uint16_t)(word >> 8);
}
static inline unsigned queue_word_faults(uint64_t word)
{
    return (unsigned)(word >> 24) & 7;
}
static inline unsigned queue_word_kills(uint64_t word)
{
    return (unsigned)(word >> 27) & 31;
}
static inline uint32_t queue_word_generation(uint64_t word)
{
    return (uint32_t)(word >> 32);
}

/* ---- what lies in shared memory ---- */

/* Bits of a process's attention (seat_awake, seat_asleep, seat_wake). */
#define QUEUE_AWAKE  1u
#define QUEUE_CALLED 2u

enum queue_life { QUEUE_VACANT, QUEUE_LIVE, QUEUE_CONDEMNED };

struct queue_process {
    /* by the supervisor */
    _Alignas(64) _Atomic uint32_t
        life;               /* enum queue_life; anything but VACANT counts as live for owners */
    _Atomic uint32_t role;  /* enum queue_role */
    _Atomic uint32_t seat;  /* whose eventfd wakes it */
    _Atomic uint32_t model; /* workers: index in the model table */
    _Atomic uint32_t model_generation; /* workers: the generation that they loaded */
    _Atomic uint32_t draining;         /* workers: give it no more work */
    _Atomic uint32_t died_by_fault; /* after LIVE: its death counts against the jobs that it ran */
    _Atomic int32_t pid;            /* for people; never used to find an owner */
    /* by the process itself */
    _Alignas(64) _Atomic uint32_t ready;
    _Atomic uint32_t attention; /* QUEUE_AWAKE, and QUEUE_CALLED, which others set */
    _Atomic uint64_t tick;      /* grows with every sign of progress */
    _Atomic uint64_t jobs;      /* finished, by any outcome */
    _Atomic uint64_t busy_ns;   /* workers: time in predict */
    _Atomic uint32_t batch; /* workers: most tiles that it likes to run together; 0: max_batch */
};

struct queue_model {
    /* by the supervisor */
    char name[64];
    char route[128];
    _Atomic uint32_t max_batch;        /* most tiles that the broker puts together */
    _Atomic uint32_t batch_timeout_us; /* how long it may hold a job for others */
    _Atomic uint32_t batch_always;     /* also when none of them is in sight */
    _Atomic uint32_t workers_wanted;   /* the autoscaler's last word */
    /* by the first ready worker of a generation, through queue_model_publish */
    _Atomic uint32_t
        generation; /* the one that new requests are pinned to; 0 until a worker is ready */
    _Atomic uint32_t writer; /* process index that is writing an interface, 0: nobody */
    struct unetserve_interface
        interfaces[2]; /* generation g in [g & 1]; read through queue_model_read only */
};

struct queue_slot {
    _Alignas(64) _Atomic uint64_t word;
    _Atomic uint64_t cancel; /* generation:32 << 32 | flags: QUEUE_CANCEL; counts only while the
                                word has that generation */

    /* by the gateway in RECV */
    _Atomic uint32_t reply_to; /* the gateway's process index; never cleared, only overwritten */
    _Atomic uint32_t model;
    _Atomic uint32_t model_generation;
    _Atomic int32_t priority;        /* higher first; 0 is usual */
    _Atomic uint64_t accepted_ns;    /* CLOCK_MONOTONIC, here and below */
    _Atomic uint64_t deadline_ns;    /* in the queue: not to be started after this */
    _Atomic uint64_t run_timeout_ns; /* how long it may run */
    uint64_t input_bytes;
    struct unetserve_shape input_shape;
    uint32_t input_file; /* enum image_file: the input is such a file, which expands to that shape;
                            0: it is the tensor, or a document */
    char request_id[QUEUE_ID_MAX];
    /* Hints for the broker, as long as the body is coming. */
    _Atomic uint64_t upload_ends_ns; /* when it will be whole, by its speed so far; 0: unknown */
    _Atomic uint64_t upload_shape;   /* queue_shape_key of it; 0: not known yet */

    /* by the worker in RUN */
    _Atomic uint64_t started_ns;
    _Atomic uint64_t finished_ns;
    uint64_t encode_ns; /* time in the model's encode_response */
    uint64_t output_bytes;
    struct unetserve_shape output_shape;
    uint32_t
        status; /* 200, or the model's refusal: 400..499 with a JSON document in the output area */
    uint32_t batch; /* how many jobs ran together with it, itself included */

    /* of a stream: what lies in the output area, from the first item on. produced by the worker in
     * RUN and STREAM, consumed by its gateway in STREAM and SEND; both cleared by the gateway in
     * RECV and by the supervisor in RUN of the dead */
    struct ring_counts ring;
};

#define QUEUE_CANCEL UINT64_C(1)

/* One size class of slots. */
struct queue_class {
    uint64_t input_bytes;
    uint64_t output_bytes;
    uint32_t count;
    uint32_t first; /* slot number; filled by queue_create */
};

struct queue_geometry {
    uint32_t class_count; /* classes sorted by input_bytes, smallest first */
    uint32_t model_count;
    struct queue_class classes[QUEUE_MAX_CLASSES];
};

struct queue_header; /* lib/queue.c */
struct queue_layout;

/* A process's mapping of the queue. Copy freely; pointers end with queue_close. */
struct queue {
    int fd; /* the table's */
    size_t size;
    int inputs_fd; /* -1 where the process has no areas */
    int outputs_fd;
    size_t inputs_size;
    size_t outputs_size;
    char *inputs; /* NULL where they are not mapped */
    char *outputs;
    struct queue_header *header;
    struct queue_layout *layout;           /* this process's own copy: nobody else can change it */
    const struct queue_geometry *geometry; /* in it */
    struct queue_process *processes;       /* QUEUE_MAX_PROCESSES */
    _Atomic uint64_t *entered;             /* a bit for each: see queue_process_next */
    struct queue_model *models;            /* geometry->model_count */
    struct queue_slot *slots;
    uint32_t slot_count;
    struct counters_server *counted; /* of the whole server */
    struct counters_seat *seats;     /* COUNTERS_MAX_SEATS */
    struct counters *counters;       /* COUNTERS_MAX_SEATS: by seat */
    struct counters_gpu *gpus;       /* COUNTERS_MAX_GPUS: by GPU */
    struct counters_device *devices; /* COUNTERS_MAX_GPUS + 1 */
    struct admission *admission;
    struct crowd_block *crowds; /* CROWD_GATEWAYS: by seat */
};

/* ---- life of the queue ---- */

/* Supervisor: make the memfds (close-on-exec), size and seal them, and map them for reading and
 * writing. 0, -EINVAL (geometry out of bounds or unsorted), -ENOMEM, ... */
int queue_create(const struct queue_geometry *geometry, struct queue *out);

/* Supervisor: unmap the areas, which are not its business. The descriptors stay, to be handed on;
 * queue_input and queue_output must not be called any more. */
void queue_leave_areas(struct queue *queue);

/* Supervisor: descriptors of the areas that can be mapped for reading only, for the caller to
 * close. Takes the memfds' permissions away, so that the user's processes without CAP_DAC_OVERRIDE
 * cannot open them again by /proc: to be called once. 0 or a negative errno. */
int queue_open_readers(const struct queue *queue, int *inputs_fd, int *outputs_fd);

/* Others: map inherited fds. The areas are mapped as their descriptors allow, for reading only or
 * for writing too; -1 for both (one alone: -EBADF): not at all. Checks magic, layout version, seals
 * and that everything lies inside. -EBADMSG if not. Keeps the fds; the mappings are not inherited
 * by children (MADV_DONTFORK). */
int queue_attach(int fd, int inputs_fd, int outputs_fd, struct queue *out);

void queue_close(struct queue *queue);

/* CLOCK_MONOTONIC in nanoseconds. */
uint64_t queue_now_ns(void);

/* When queue_create made it, in milliseconds since 1970. */
uint64_t queue_created_unix_ms(const struct queue *queue);

/* ---- moves ---- */

const char *queue_state_name(enum queue_state state);

/* Is there such an edge for that role? */
bool queue_edge_exists(enum queue_state from, enum queue_state to, enum queue_role role);

/* The word, read with acquire order: fields read afterwards belong to it if the move that follows
 * succeeds. Inline, since whoever looks for something looks at all of them. */
static inline uint64_t queue_word(const struct queue *queue, uint32_t slot)
{
    assert(slot < queue->slot_count);
    return atomic_load_explicit(&queue->slots[slot].word, memory_order_acquire);
}

/* Compare-and-swap `word` (as read before) to state `to` with owner `owner` (asserted: 0 exactly
 * where the state has no owner). Asserts that the role may do it. Every entry to FREE bumps the
 * generation and clears the deaths. Release order. False: somebody was faster, read again. *moved
 * (if not NULL) gets the new word on success. */
bool queue_move(struct queue *queue, enum queue_role role, uint32_t slot, uint64_t word,
                enum queue_state to, uint16_t owner, uint64_t *moved);

/* Gateway: take a free slot of the smallest class that holds both sizes, owned by `self` in RECV,
 * reply_to set. Looks into larger classes when the fitting one is full. 0 with slot and word;
 * -E2BIG: larger than any slot; -EBUSY: none free. */
int queue_reserve(struct queue *queue, uint16_t self, uint64_t input_bytes, uint64_t output_bytes,
                  uint32_t *slot, uint64_t *word);

/* Largest input that any slot holds. */
uint64_t queue_largest_input(const struct queue *queue);

/* Areas of a slot. Never NULL for slot < slot_count; the areas must be mapped (asserted). */
void *queue_input(const struct queue *queue, uint32_t slot);
void *queue_output(const struct queue *queue, uint32_t slot);
uint64_t queue_input_capacity(const struct queue *queue, uint32_t slot);
uint64_t queue_output_capacity(const struct queue *queue, uint32_t slot);

/* The area of whichever slot holds that address. 0, or -ENOENT: it lies in no slot's area. */
int queue_find_area(const struct queue *queue, const void *address, struct unetserve_area *out);

/* The id of the request in a slot, terminated; for logs: it may be changing meanwhile. */
void queue_request_id(const struct queue *queue, uint32_t slot, char id[QUEUE_ID_MAX]);

/* A number for a shape, never 0: equal shapes have equal ones, others hardly ever. */
uint64_t queue_shape_key(const struct unetserve_shape *shape);

/* Gateway or supervisor: ask whoever runs this generation of the slot to give it up. */
void queue_cancel(struct queue *queue, uint32_t slot, uint32_t generation);
bool queue_cancelled(const struct queue *queue, uint32_t slot, uint32_t generation);

/* ---- processes ---- */

/* Supervisor: a vacant index that no slot names, made live. 0 with *index, -EAGAIN if there is none
 * now. */
int queue_process_enter(struct queue *queue, enum queue_role role, uint32_t seat, uint16_t *index);

/* Supervisor, after the process is known to be gone: its index names nobody from now on. by_fault:
 * its death counts against the jobs that it ran. */
void queue_process_leave(struct queue *queue, uint16_t index, bool by_fault);

/* The next index after that one whose process may be there, 0: there is none; from 0 on it walks
 * through all that are not vacant, and past nearly all that are. */
static inline uint16_t queue_process_next(const struct queue *queue, uint32_t after)
{
    uint32_t from = after + 1;
    for (uint32_t i = from / 64; i < QUEUE_MAX_PROCESSES / 64; i++, from = i * 64) {
        uint64_t bits = atomic_load_explicit(&queue->entered[i], memory_order_acquire) >>
                        from % 64 << from % 64;
        if (bits)
            return (uint16_t)(i * 64 + (uint32_t)__builtin_ctzll(bits));
    }
    return 0;
}

/* Is the index live (or condemned) with that role? False for 0 and for out-of-range indices. */
bool queue_process_is(const struct queue *queue, uint32_t index, enum queue_role role);

/* Supervisor: apply the standing rules to every slot that names a process that is not there
 * (design: "What the supervisor does for the dead"). Idempotent, to be called at every rescan.
 * Returns the number of slots moved or flagged. */
unsigned queue_apply_standing_rules(struct queue *queue);

/* ---- models ---- */

/* Worker: publish what it loaded, once for a generation; later callers with the same generation, or
 * the one before the newest, find it done. 0, or -EBUSY while another live worker is writing (call
 * again), or -EPROTO when the interface differs from the one published for that generation. */
int queue_model_publish(struct queue *queue, uint32_t model, uint32_t generation, uint16_t self,
                        const struct unetserve_interface *interface);

/* Supervisor: that generation, the newest, is not to be after all; new requests are pinned to the
 * one before again. Nobody is left who could publish it. Its number is not used again: a later
 * generation's has the same place for its interface, and is larger. */
void queue_model_take_back(struct queue *queue, uint32_t model, uint32_t generation);

/* Copy a model's published interface. 0 with *interface and *generation, -ENOENT: no worker has
 * been ready yet. */
int queue_model_read(const struct queue *queue, uint32_t model,
                     struct unetserve_interface *interface, uint32_t *generation);

/* Is there no worker, ready or starting, of a generation of a model that is not the published one
 * any more? Then there never will be: new ones load the new files. */
bool queue_generation_is_over(const struct queue *queue, uint32_t model, uint32_t generation);

/* Live, ready, not condemned and not draining workers of a model. */
unsigned queue_ready_workers(const struct queue *queue, uint32_t model);

#endif
