/*
 * The running server: everything that the supervisor owns, and the seats of its process tree.
 *
 *   server.c   what is made before the first process and removed after the last
 *   seats.c    one seat: start, notice that it is ready, bury, end (the actions of tree.h)
 *   loop.c     signals, timers, the drain, what systemd is told
 */
#ifndef SERVER_H
#define SERVER_H

#include "lib/gpu_list.h"
#include "supervisor/core_share.h"
#include "supervisor/listeners.h"
#include "supervisor/options.h"
#include "supervisor/run_dir.h"
#include "supervisor/scaler.h"
#include "supervisor/tree.h"
#include "supervisor/watch.h"
#include "unetserve/config.h"
#include "unetserve/queue.h"
#include "unetserve/seat.h"

#include <stdbool.h>
#include <systemd/sd-event.h>

#define SERVER_START_TIMEOUT_MS 120000
#define SERVER_MAX_GRAVES       16 /* beyond that a stuck process keeps its seat */
#define SERVER_FIRST_TRIES      5 /* a seat that has never been up and ends so often ends the server */

struct server;

struct tree_seat {
    struct server *server;
    uint32_t number; /* the seat */
    enum queue_role role;
    uint32_t gateway; /* HTTP gateways: which; the ZeroMQ front: LISTENERS_MAX_GATEWAYS */
    uint32_t model;   /* workers */
    uint32_t worker;  /* workers: which of those without a GPU of their own, for its cores */
    uint32_t device;  /* workers: which of its model's devices */
    enum tree_state state;
    bool want_up;
    bool extra; /* a worker above its model's minimum: the autoscaler's */
    bool ever_up;
    unsigned failures; /* ends in a row that came too soon */
    uint64_t begun_ns; /* when its process was started */
    uint64_t up_ns;    /* when it said that it was ready; 0: it has not */
    /* its process, while there is one */
    uint16_t index; /* 0: none */
    pid_t pid;
    int pidfd, ready_fd;
    bool hung;    /* killed by our own watchdog */
    bool stopped; /* because somebody had stopped it */
    uint64_t killed_ns;
    struct watch watch;
    sd_event_source *gone_source, *ready_source, *timer;
};

/* A process that was killed and does not go: in uninterruptible sleep. It is condemned in the queue
 * until it does; its seat has another. */
struct tree_grave {
    struct server *server;
    uint16_t index; /* 0: nobody lies here */
    pid_t pid;
    int pidfd;
    bool by_fault; /* its end counts against the jobs that it runs */
    sd_event_source *gone_source;
};

/* A GPU that workers have failed on (device_rest.h). */
struct device_rest {
    uint64_t in_a_row;        /* failures */
    uint64_t until_ns;        /* nothing is started on it before; 0: it is not known to be bad */
    uint64_t serves_ns;       /* since when it has been good again */
    struct tree_seat *trying; /* alone, after a rest */
};

enum server_phase {
    SERVER_RUNNING,
    SERVER_DRAINING, /* gateways finish what they accepted; the others serve them */
    SERVER_ENDING,   /* gateways are gone; the others end */
};

struct server {
    struct config *config;
    const struct options *options;          /* what a reload reads again */
    struct config *asked;                   /* the configuration as it was asked for */
    struct unetserve_interface *interfaces; /* a model each */
    struct queue queue;                     /* the table; the areas are not mapped */
    int read_inputs_fd;                     /* the areas, for those who only read them */
    int read_outputs_fd;
    struct listeners listeners;
    struct run_dir run_dir;
    struct seat_config_area *config_area;
    int config_fd;    /* memfd of the area */
    int auth_keys_fd; /* memory of auth's, which outlives its processes (lib/auth_wire.h) */
    int auth_pairs[LISTENERS_MAX_GATEWAYS][2]; /* between an HTTP gateway and auth; -1: not made */
    int gateway_line[2]; /* gateways hold the write end, the others the read end */
    int life[2];         /* the children hold the read end; the write end ends with this process */
    struct core_share cores;
    uint32_t workers;     /* in all, at most */
    uint32_t cpu_workers; /* of them, those that the cores are divided among */
    const struct gpu_list *gpus;
    struct scaler scalers[QUEUE_MAX_MODELS];
    struct tree_seat seats[SEAT_MAX];
    uint32_t seat_count;
    struct tree_grave graves[SERVER_MAX_GRAVES];
    char programs[QUEUE_ROLE_COUNT][PATH_MAX];
    /* the loop */
    sd_event *event;
    sd_event_source *rescan_timer, *drain_timer, *scale_timer;
    enum server_phase phase;
    bool gateways_wait; /* until the others are up */
    bool announced;     /* the ready line is out */
    bool killing;       /* the drain is over */
    int exit_status;
    struct reload *reload;                  /* NULL: none is under way */
    uint32_t generations[QUEUE_MAX_MODELS]; /* which new workers load */
    uint32_t taken_back[QUEUE_MAX_MODELS];  /* published, and not to be after all; 0: none */
    struct tree_seat *auth;                 /* wanted where tokens are taken */
    struct tree_seat *gpu;                  /* wanted where there are GPUs to tell of */
    struct tree_seat *spare;                /* of the worker that tries a reload first */
    struct device_rest rests[COUNTERS_MAX_GPUS + 1]; /* by the GPU's place in queue.devices */
};

/* ---- server.c ---- */

/* Workers that a model has at least. */
uint32_t server_workers(const struct config_model *model);

/* How the queue's slots would be laid out. 0; or an exit status after a sentence: the memory does
 * not do. */
int server_plan_queue(const struct config *config, const struct unetserve_interface *interfaces,
                      struct queue_geometry *out);

/* Make everything but processes. 0, or an exit status after a sentence on stderr; nothing is left
 * behind then. config's listen and run_dir become what they really are; its devices are resolved.
 * interfaces and gpus are kept by reference, of the passed sockets those that are served. */
int server_open(struct server *server, struct config *config,
                struct unetserve_interface *interfaces, const struct gpu_list *gpus,
                struct passed *passed);

/* The GPU that a worker's seat is bound to, or NULL. */
const struct gpu_entry *server_gpu(const struct tree_seat *seat);

/* Tell the broker how that model's jobs are put together: by the configuration, or else by what the
 * model says. */
void server_tell_batching(struct server *server, uint32_t model);

/* Hand the configuration to processes that start or read it again from now on. 0 or an exit status
 * after a sentence.
 */
int server_publish_config(struct server *server);

/* The opposite. No process is left. */
void server_close(struct server *server);

/* ---- seats.c ---- */

/* Tell a seat what happened, and do what follows. */
void seat_handle(struct tree_seat *seat, enum tree_event event);

/* Have the processes of that role that are up read the configuration again. */
void seats_tell(struct server *server, enum queue_role role);

/* Want it up or down. */
void seat_want(struct tree_seat *seat, bool up);

/* What its program is called. */
const char *seat_program(const struct tree_seat *seat);

bool seat_has_process(const struct tree_seat *seat);

/* ---- loop.c ---- */

/* Serve until a signal and the end of the drain. Returns the exit status. */
int loop_run(struct server *server);

/* Called by seats.c after a seat has come up or has come down. */
void loop_seat_changed(struct tree_seat *seat);

/* Called by seats.c: this end of a process ends the server, with that exit status. */
void loop_give_up(struct server *server, int status);

#endif
