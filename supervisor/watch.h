/*
 * When is a worker hung? It has held one job for longer than that may run, and has shown no
 * progress for a while. Pure.
 */
#ifndef WATCH_H
#define WATCH_H

#include <stdbool.h>
#include <stdint.h>

/* Plugins promise a sign of progress every second. */
#define WATCH_SILENCE_NS UINT64_C(3000000000)
/* How long a killed process may take to go before it counts as one that never will. */
#define WATCH_GOING_NS UINT64_C(5000000000)

/* run_ns: since when the job has been seen running; tick_ns: since when the tick has not moved. 0
 * as run timeout: no limit. */
bool watch_is_hung(uint64_t now_ns, uint64_t run_ns, uint64_t run_timeout_ns, uint64_t tick_ns);

#endif
