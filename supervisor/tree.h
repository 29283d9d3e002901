/*
 * The life of one seat of the process tree, as a table: what state it is in, what happens, what
 * follows. No process is touched here; seats.c carries the actions out. What is wanted (up or down)
 * is kept apart from what is.
 */
#ifndef TREE_H
#define TREE_H

#include <stdint.h>

#define TREE_STATES(X)                                                                             \
    X(DOWN)     /* no process, and none is wanted */                                               \
    X(STARTING) /* a process that has not said that it is ready */                                 \
    X(UP)       /* ready */                                                                        \
    X(STOPPING) /* asked to end */                                                                 \
    X(BACKOFF)  /* no process; one is wanted when the delay is over */

#define TREE_EVENTS(X)                                                                             \
    X(WANT_UP)                                                                                     \
    X(WANT_DOWN)                                                                                   \
    X(READY)   /* the newline on the ready pipe */                                                 \
    X(GONE)    /* the pidfd says so; or it could not be started */                                 \
    X(TIMEOUT) /* the state has lasted long enough */                                              \
    X(STUCK)   /* it was killed, and does not go */

#define TREE_ACTIONS(X)                                                                            \
    X(NOTHING)                                                                                     \
    X(SPAWN)                                                                                       \
    X(ANNOUNCE) /* note that it is up; stop the start's clock */                                   \
    X(BURY)     /* reap, clear its index, settle its jobs */                                       \
    X(DELAY)    /* bury, and set the clock for the next start */                                   \
    X(TERM)                                                                                        \
    X(KILL)                                                                                        \
    X(ABANDON) /* leave the process to the graveyard; set the clock if one is wanted */            \
    X(DISARM)  /* stop the clock */

/* What is not listed changes nothing. */
#define TREE_EDGES(X)                                                                              \
    X(DOWN, WANT_UP, STARTING, SPAWN)                                                              \
    X(STARTING, READY, UP, ANNOUNCE)                                                               \
    X(STARTING, GONE, BACKOFF, DELAY)                                                              \
    X(STARTING, TIMEOUT, STARTING, KILL)                                                           \
    X(STARTING, WANT_DOWN, STOPPING, TERM)                                                         \
    X(STARTING, STUCK, BACKOFF, ABANDON)                                                           \
    X(UP, STUCK, BACKOFF, ABANDON)                                                                 \
    X(STOPPING, STUCK, DOWN, ABANDON)                                                              \
    X(UP, GONE, BACKOFF, DELAY)                                                                    \
    X(UP, TIMEOUT, UP, KILL)                                                                       \
    X(UP, WANT_DOWN, STOPPING, TERM)                                                               \
    X(STOPPING, GONE, DOWN, BURY)                                                                  \
    X(STOPPING, TIMEOUT, STOPPING, KILL)                                                           \
    X(BACKOFF, TIMEOUT, STARTING, SPAWN)                                                           \
    X(BACKOFF, WANT_DOWN, DOWN, DISARM)

enum tree_state {
#define TREE_ENUM(name) TREE_##name,
    TREE_STATES(TREE_ENUM) TREE_STATE_COUNT
};
enum tree_event { TREE_EVENTS(TREE_ENUM) TREE_EVENT_COUNT };
enum tree_action {
    TREE_ACTIONS(TREE_ENUM) TREE_ACTION_COUNT
#undef TREE_ENUM
};

struct tree_step {
    enum tree_state next;
    enum tree_action action;
};

struct tree_step tree_next(enum tree_state state, enum tree_event event);

const char *tree_state_name(enum tree_state state);

/* How long to wait before the next start. failures: how many ends in a row came within
 * TREE_STEADY_MS of being ready (or before it), those from outside not counted. The first restart
 * waits for nothing.
 */
#define TREE_STEADY_MS  10000
#define TREE_LONGEST_MS 5000
uint32_t tree_delay_ms(unsigned failures);

#endif
