/*
 * A Python call may take long without a chance to tick: a loop in the interpreter, or a library
 * that keeps the interpreter's lock for twenty seconds. Neither can be told from a hang by looking,
 * so time decides: a call counts as progress until it has used five sixths of its run time-out.
 * The silence after that is what the supervisor takes for a hang, at the end of the time-out.
 */
#include "python/extension/extension.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>

#define TICK_NS 250000000

static _Atomic uint64_t tick_until_ns; /* 0: no call is under way */

void ticker_begin(uint64_t limit_ns)
{
    uint64_t until_ns = limit_ns ? queue_now_ns() + limit_ns / 6 * 5 : UINT64_MAX;
    atomic_store_explicit(&tick_until_ns, until_ns, memory_order_relaxed);
}

void ticker_end(void)
{
    atomic_store_explicit(&tick_until_ns, 0, memory_order_relaxed);
}

static void *tick(void *opaque)
{
    (void)opaque;
    for (;;) {
        nanosleep(&(struct timespec){.tv_nsec = TICK_NS}, NULL);
        if (queue_now_ns() < atomic_load_explicit(&tick_until_ns, memory_order_relaxed))
            extension.host->tick(extension.host);
    }
    return NULL;
}

int ticker_start(void)
{
    pthread_t thread;
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&thread, NULL, tick, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!error)
        pthread_detach(thread);
    return -error;
}
