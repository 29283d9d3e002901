/*
 * The hot paths whose instructions are counted (run.py): each does the same work at every call, and
 * asks neither clock nor kernel.
 */
#ifndef BENCH_COUNTS_PATHS_H
#define BENCH_COUNTS_PATHS_H

struct path {
    const char *name;
    void (*run)(void);
};

/* Ends with a path without a name. */
extern const struct path path_bodies[]; /* from bytes to tensors, and back */
extern const struct path path_queue[];  /* from one process to the next */

/* Makes what the paths work on. Ends the process if that fails. */
void path_bodies_begin(void);
void path_queue_begin(void);

/* A path that does not do its work would be a cheap one. */
#define PATH_MUST(condition)                                                                       \
    do {                                                                                           \
        if (!(condition))                                                                          \
            path_fail(__FILE__, __LINE__, #condition);                                             \
    } while (0)

void path_fail(const char *file, int line, const char *condition) __attribute__((noreturn));

#endif
