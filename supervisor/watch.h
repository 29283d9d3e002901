/*
 * When is a process hung? Each of them counts up its tick at every sign of progress: workers at
 * every layer, all of them at every turn of their loops, and those that sleep are woken to do so.
 * Who has not ticked for long enough is taken for hung, whatever it was doing.
 *
 * Silence is added up look by look, and no look adds more than a little: when everything stood
 * still (a suspended machine, a frozen container) nobody is to blame.
 */
#ifndef WATCH_H
#define WATCH_H

#include "unetserve/queue.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* What one look adds at most: twice the longest time between two of them. */
#define WATCH_STEP_NS UINT64_C(2000000000)
/* Silence after which a process is woken, so that it may tick. */
#define WATCH_WAKE_NS UINT64_C(500000000)
/* The shortest silence for which a process is killed; a stopped one is then. */
#define WATCH_SILENCE_NS UINT64_C(3000000000)
/* For those whose turns are short by nature. */
#define WATCH_LOOP_NS UINT64_C(10000000000)
/* How long a killed process may take to go before it counts as one that never will. */
#define WATCH_GOING_NS UINT64_C(5000000000)

struct watch {
    uint64_t tick, seen_ns, silence_ns;
};

/* A new process, at its start. */
void watch_begin(struct watch *watch, uint64_t now_ns);

/* One look at its tick. */
void watch_look(struct watch *watch, uint64_t now_ns, uint64_t tick);

/* Silent for too long? Workers may be silent for a sixth of their model's run time-out, since the
 * layers of a slow model are long. */
bool watch_is_hung(const struct watch *watch, enum queue_role role, uint64_t run_timeout_ns,
                   bool stopped);

/* Has somebody stopped it (SIGSTOP)? Such a death is nobody's fault. */
bool watch_is_stopped(pid_t pid);

#endif
