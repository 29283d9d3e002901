/*
 * A seat is a place in the process tree that outlives its processes: gateway 0, the broker,
 * worker 3. The supervisor makes one eventfd a seat and passes all of them, the queue, the
 * configuration and a life line to each child at fixed numbers. A process is started with
 *
 *     unetserve-ROLE --seat SEAT --index INDEX [role's own options]
 *
 * where INDEX is its place in the queue's process table.
 */
#ifndef SEAT_H
#define SEAT_H

#include "unetserve/config.h"
#include "unetserve/queue.h"

enum {
    SEAT_FD_QUEUE = 3,    /* the queue's memfd with the table */
    SEAT_FD_CONFIG = 4,   /* memfd, sealed against others' writing: struct seat_config_area */
    SEAT_FD_READY = 5,    /* pipe, write end: one newline when ready, then close */
    SEAT_FD_LIFE = 6,     /* pipe, read end: end of file means that the supervisor is gone */
    SEAT_FD_GATEWAYS = 7, /* pipe, gateways: its write end; others: its read end. End of file means
                             that there is no gateway, and no supervisor to start one */
    /* The queue's areas, with the access that the role has: gateways write inputs and read outputs,
     * workers the other way round; all others: closed */
    SEAT_FD_INPUTS = 8,
    SEAT_FD_OUTPUTS = 9,
    SEAT_FD_LISTEN =
        10, /* HTTP gateways: listening sockets, in the configuration's order; others: closed */
    SEAT_MAX_LISTEN = 8,
    SEAT_FD_AUTH = 18,  /* HTTP gateways: their end of the pair to auth (lib/auth_wire.h) */
    SEAT_FD_KEYS = 19,  /* auth: memory in which it leaves the provider's keys to its successor */
    SEAT_FD_EVENT = 32, /* SEAT_FD_EVENT + seat: that seat's eventfd (non-blocking) */
};

#define SEAT_MAX COUNTERS_MAX_SEATS /* seats in all */

/* HTTP gateways: more listening sockets, those of gateways that there are no more, without a gap.
 * Auth: its ends of the pairs to HTTP gateways, in their order. */
#define SEAT_FD_MORE  (SEAT_FD_EVENT + SEAT_MAX)
#define SEAT_MAX_MORE 64

#define SEAT_CONFIG_TEXT_MAX (256 << 10)

/* What lies in SEAT_FD_CONFIG. The supervisor alone writes, and only the text that is not the
 * current one; a reader whose version has moved on meanwhile reads again. */
struct seat_config_area {
    _Atomic uint32_t version;          /* texts[version & 1] is current */
    _Atomic uint32_t drain_timeout_ms; /* of the current one, for who reads none when it matters */
    char texts[2][SEAT_CONFIG_TEXT_MAX]; /* terminated */
};

struct seat {
    uint32_t seat;
    uint16_t index; /* this process in the process table */
    enum queue_role role;
    struct queue queue;
    int event_fd; /* own eventfd */
};

/* For people who start a child by hand: with --help anywhere on the command line print usage, with
 * --version the program's name and version, and return true: that was all. */
bool seat_explain(int argc, char **argv, const char *name, const char *usage);

/* Child, before it has threads: SIGTERM is blocked, for its event loop to read. A terminal's
 * interrupt or hang-up reaches the whole group and is the supervisor's to handle; a closed pipe is
 * an error of write. */
void seat_signals(void);

/* Child, when it knows how long a drain may take: see to it that this process does not outlive the
 * supervisor by much more than that, whatever its threads are doing then (a plugin may loop). */
void seat_outlive(uint32_t drain_timeout_ms);

/* Child, when the supervisor is gone: how long a drain may take by the configuration as it was at
 * the end. otherwise: what to take where that cannot be read. */
uint32_t seat_drain_timeout_ms(uint32_t otherwise);

/* Child: parse and remove --seat and --index from argv, attach the queue, check that the process
 * table agrees. Sets close-on-exec on all inherited fds. 0, or a negative errno after a log line.
 */
int seat_take(enum queue_role role, int *argc, char **argv, struct seat *out);

/* Child: the resolved configuration, as it is now. 0, or a negative errno after a log line. */
int seat_config(struct config *out);

/* Child: set the ready flag in the process table, write the newline, close the pipe. */
void seat_ready(struct seat *seat);

/* Others than gateways, when the supervisor is gone: has every gateway left, however it ended? */
bool seat_gateways_gone(void);

/* "I shall look at my slots before I sleep": until seat_asleep nobody has to write to this
 * process's eventfd. After seat_asleep it is written again. True, of both: somebody has called
 * since the last of these calls, so look once more before sleeping. */
bool seat_awake(const struct seat *seat);
bool seat_asleep(const struct seat *seat);

/* "Look at your slots": to the process with that index, if it is there. A write to its eventfd if
 * it sleeps. Never blocks, never fails. */
void seat_wake(const struct queue *queue, uint32_t index);

/* The same, but where somebody else has called since it slept, his write has to do: a process takes
 * many times as long to wake as a short job to run. Should he have died before it, the sleeper's
 * rescan finds out, and there must be one. */
void seat_call(const struct queue *queue, uint32_t index);

/* Wake the seat itself, whoever sits there. */
void seat_wake_seat(uint32_t seat);

/* Wake every live process of a role (the broker, usually). */
void seat_wake_role(const struct queue *queue, enum queue_role role);

/* Empty one's own eventfd. */
void seat_clear(const struct seat *seat);

/* "I make progress." */
void seat_tick(struct seat *seat);

/* The block in which this seat's process counts, and nobody else. */
struct counters *seat_counters(const struct seat *seat);

#endif
