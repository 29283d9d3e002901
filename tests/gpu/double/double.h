/*
 * A GPU for machines without one: a libcuda.so.1 whose "device" is this process's memory, and a
 * libcudnn.so.9 in front of the real one, which keeps making graphs and plans while their execution
 * happens here. Found first by LD_LIBRARY_PATH; the worker does not know.
 *
 * It is stricter than a device. Nothing that was put on a stream runs until somebody waits for it,
 * and then streams take turns, one operation each (GPUDOUBLE_ORDER=late: only what is waited for
 * runs, and threads of a kernel run backwards). Two uses of one place that no order of streams,
 * events and waits puts one before the other are a race, whatever they did here; memory is not
 * freed or unlocked before the host has waited for who uses it. Kernels run as nvcc reads them, and
 * each access is looked at: aligned, inside the device's memory, and what is read was written.
 * Device memory begins as NaN, is out of the host's reach, lies against a guard page, and is gone
 * when freed, with its addresses; a plan fills its workspace with NaN, and its tensors lie apart.
 * Copies beside a stream's order must be page-locked, within one range that was locked; one that is
 * only read is not written, what a copy has yet to read does not change, and where one is yet to
 * write nonsense stands. A capture allows what CUDA allows, and nothing whose code is not loaded.
 * Handles that are gone are not used, and at the end of a context none is left. A thread enters the
 * context before it uses it. Whoever breaks a rule is told so on stderr, and the process aborts.
 *
 * GPUDOUBLE_DEVICE names the description of the device; GPUDOUBLE_MEMORY says how many bytes it
 * has, GPUDOUBLE_DRIVER and GPUDOUBLE_CUDNN_VERSION which versions there are. GPUDOUBLE_FAIL_AT=n
 * lets the n-th call fail, and all after it, as on a device that is lost; GPUDOUBLE_FAIL_CODE says
 * with which code. Each plan takes a time of its own by the events' clock, whatever it really
 * takes; GPUDOUBLE_BAD_PLANS=yes: a third of them fail when they are executed. Plans whose code
 * would be compiled for them are none here. Calls may come from several threads, one after the
 * other; those of the first alone are counted. GPUDOUBLE_WAIT=first: the waits of others let
 * nothing run, so that a test knows what runs when. GPUDOUBLE_CONTROL names a file that a test
 * changes under a running worker. GPUDOUBLE_READ_ONLY=no: memory that the process only reads cannot
 * be locked. GPUDOUBLE_TELL=names of calls: how often they were made is said at the end.
 */
#ifndef DOUBLE_H
#define DOUBLE_H

#ifdef __cplusplus
#define DOUBLE_ATOMIC volatile /* its C++ has no such word; only C reads it */
#else
#include <stdatomic.h>
#define DOUBLE_ATOMIC _Atomic
#endif
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
    bool loaded;       /* it has run before */
};

/* What GPUDOUBLE_CONTROL's file holds, and is mapped for as long as the process runs. */
struct double_control {
    DOUBLE_ATOMIC int32_t hold; /* not 0: no event is reached */
    DOUBLE_ATOMIC int32_t code; /* not 0: each call fails with it from now on */
};

/* For libcudnn.so.9, found by name in libcuda.so.1. 0, or a CUresult. */
typedef int double_submit_fn(void *stream, const struct double_work *work);
typedef int double_enter_fn(const char *call);
/* Is all of this device memory? */
typedef bool double_owns_fn(const void *data, size_t bytes);
/* What work does to device memory (enum use in device.h). */
typedef void double_use_fn(const void *data, size_t bytes, int use);

/* For tests: let the n-th call from now on fail with that CUresult, 0: none; and calls so far. */
typedef void double_fail_fn(long n, int code);
typedef long double_calls_fn(void);

/* For tests: how often the call of that name was made; and bytes of the process's memory that are
 * page-locked now. */
typedef long double_count_fn(const char *call);
#define DOUBLE_OVERLAP                                                                             \
    "copies beside work" /* counted like a call: those that a forward pass hides */
#define DOUBLE_SLOWER                                                                              \
    "slower plans" /* executions of plans where another for the same convolution was faster */
typedef size_t double_locked_fn(void);
typedef void double_tally_fn(const char *call);

__attribute__((noreturn, format(printf, 1, 2))) void double_abort(const char *format, ...);

#endif
