/*
 * A GPU for machines without one: a libcuda.so.1 whose "device" is this process's memory, and a
 * libcudnn.so.9 in front of the real one, which keeps making graphs and plans while their execution
 * happens here. Found first by LD_LIBRARY_PATH; the worker does not know.
 *
 * It is stricter than a device. Nothing that was put on a stream runs until somebody waits for it,
 * and then streams take turns, one operation each (GPUDOUBLE_ORDER=late: only what is waited for
 * runs), so that a wait that is missing is seen. Device memory begins as NaN, is out of the host's
 * reach, lies against a guard page, and is gone when freed, with its addresses; a plan fills its
 * workspace with NaN. Copies beside a stream's order must be
 * page-locked, within one range that was locked, and one that is only read is not written; nothing
 * is unlocked under a copy. A capture allows what CUDA allows. Whoever breaks a rule is told so on
 * stderr, and the process aborts.
 *
 * GPUDOUBLE_DEVICE names the description of the device; GPUDOUBLE_FAIL_AT=n lets the n-th call
 * fail, and all after it, as on a device that is lost; GPUDOUBLE_FAIL_CODE says with which code.
 * Each plan takes a time of its own by the events' clock, whatever it really takes;
 * GPUDOUBLE_BAD_PLANS=yes: a third of them fail when they are executed.
 * GPUDOUBLE_READ_ONLY=no: memory that the process only reads cannot be locked. GPUDOUBLE_TELL=names
 * of calls: how often they were made is said at the end.
 */
#ifndef DOUBLE_H
#define DOUBLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXPORT __attribute__((visibility("default")))

/* Something for a stream, run when its turn comes; argument is freed afterwards. */
struct double_work {
    void (*run)(const void *argument);
    void *argument;
    size_t bytes;
    uint64_t takes_ns; /* by the clock that events of the stream are read from */
};

/* For libcudnn.so.9, found by name in libcuda.so.1. 0, or a CUresult. */
typedef int double_submit_fn(void *stream, const struct double_work *work);
typedef int double_enter_fn(const char *call);
/* Is all of this device memory? */
typedef bool double_owns_fn(const void *data, size_t bytes);

/* For tests: let the n-th call from now on fail with that CUresult, 0: none; and calls so far. */
typedef void double_fail_fn(long n, int code);
typedef long double_calls_fn(void);

/* For tests: how often the call of that name was made; and bytes of the process's memory that are
 * page-locked now. */
typedef long double_count_fn(const char *call);
#define DOUBLE_OVERLAP                                                                             \
    "copies beside work" /* counted like a call: those that a forward pass hides */
typedef size_t double_locked_fn(void);

__attribute__((noreturn, format(printf, 1, 2))) void double_abort(const char *format, ...);

#endif
