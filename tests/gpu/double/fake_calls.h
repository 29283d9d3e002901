/*
 * What every call of the double's driver (fake_cuda.c) goes through: one at a time, counted, held
 * or failing as a test wishes, by its environment, its functions or its file (double.h).
 */
#ifndef FAKE_CALLS_H
#define FAKE_CALLS_H

#include "device.h"

int calls_lock(void);
void calls_unlock(const int *locked);

/* One call at a time, until the end of the block. */
#define LOCKED __attribute__((cleanup(calls_unlock), unused)) const int is_locked = calls_lock()

/* Nothing comes to its end while the test says so. */
void calls_hold(void);

/* Has the device ever failed for good, though a test may have taken it back since? */
bool calls_ever_lost(void);

/* Is this the thread whose calls are counted? */
bool calls_of_first_thread(void);

/* A call of that name begins: 0, or the code that it fails with. */
EXPORT double_enter_fn gpudouble_enter;

/* What a function of the driver does first. */
#define ENTER                                                                                      \
    LOCKED;                                                                                        \
    int entered = gpudouble_enter(__func__);                                                       \
    if (entered != 0) {                                                                            \
        return (CUresult)entered;                                                                  \
    }                                                                                              \
    (void)0

/* For calls that end something: memory cannot run out there. */
#define ENTER_END                                                                                  \
    LOCKED;                                                                                        \
    int entered = gpudouble_enter(__func__);                                                       \
    if (entered != 0 && entered != CUDA_ERROR_OUT_OF_MEMORY) {                                     \
        return (CUresult)entered;                                                                  \
    }                                                                                              \
    (void)0

#endif
