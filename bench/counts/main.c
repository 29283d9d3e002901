/*
 * Runs each hot path twice: once so that everything is loaded and bound, and once in counted_run,
 * at whose return callgrind writes what it has counted. Prints the paths' names in that order.
 */
#include "bench/counts/paths.h"

#include <stdio.h>
#include <stdlib.h>

void path_fail(const char *file, int line, const char *condition)
{
    fprintf(stderr, "%s:%d: not so: %s\n", file, line, condition);
    exit(EXIT_FAILURE);
}

/* callgrind is told its name. */
__attribute__((noinline)) void counted_run(const struct path *path);

void counted_run(const struct path *path)
{
    path->run();
    __asm__ volatile("" ::: "memory"); /* it returns after the path, and not by way of it */
}

static void run_all(const struct path *paths)
{
    for (; paths->name; paths++) {
        paths->run();
        counted_run(paths);
        printf("%s\n", paths->name);
    }
}

int main(void)
{
    path_bodies_begin();
    path_queue_begin();
    run_all(path_bodies);
    run_all(path_queue);
    return fflush(stdout) ? EXIT_FAILURE : EXIT_SUCCESS;
}
