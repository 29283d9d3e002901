/* What every call of the double's driver goes through, as fake_calls.h has it. */
#include "fake_calls.h"

#include <cuda.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define MOST_NAMES 128

void double_abort(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("gpu double: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    abort();
}

/* ---- one call at a time ---- */

static pthread_mutex_t mutex;
static pthread_t first_thread; /* that whose calls are counted */

__attribute__((constructor)) static void begin(void)
{
    pthread_mutexattr_t recursive;
    pthread_mutexattr_init(&recursive);
    pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&mutex, &recursive);
    pthread_mutexattr_destroy(&recursive);
    first_thread = pthread_self();
}

int calls_lock(void)
{
    return pthread_mutex_lock(&mutex);
}

void calls_unlock(const int *locked)
{
    (void)locked;
    pthread_mutex_unlock(&mutex);
}

/* ---- told from outside ---- */

static const struct double_control *control;

static void find_control(void)
{
    const char *path = getenv("GPUDOUBLE_CONTROL");
    int fd = path != NULL ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (path == NULL) {
        return;
    }
    void *map = mmap(NULL, sizeof *control, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        double_abort("%s cannot be read", path);
    }
    control = (const struct double_control *)map;
    close(fd);
}

void calls_hold(void)
{
    while (control != NULL && atomic_load(&control->hold) != 0) {
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
}

/* ---- failing ---- */

static long call_count;
static long fail_at;
static int fail_code = CUDA_ERROR_ILLEGAL_ADDRESS;
static int lost; /* the code of a device that failed once */
static bool ever_lost;

static void read_environment(void)
{
    static bool done;
    const char *at = getenv("GPUDOUBLE_FAIL_AT");
    const char *code = getenv("GPUDOUBLE_FAIL_CODE");
    if (done) {
        return;
    }
    done = true;
    find_control();
    fail_at = at != NULL ? atol(at) : fail_at;
    fail_code = code != NULL ? atoi(code) : fail_code;
}

/* How often each call was made, by its name. */
static struct {
    const char *name;
    long count;
} tallies[MOST_NAMES];

void double_tally(const char *call)
{
    size_t i = 0;
    while (i < MOST_NAMES && tallies[i].name != NULL && strcmp(tallies[i].name, call) != 0) {
        i++;
    }
    if (i == MOST_NAMES) {
        double_abort("more names of calls than there is room for");
    }
    tallies[i].name = call;
    tallies[i].count++;
}

/* cuda.h's macros have made cuMemFree_v2 of cuMemFree. */
static bool is_call(const char *name, const char *call)
{
    size_t length = strlen(call);
    return strncmp(name, call, length) == 0 &&
           (name[length] == '\0' || strcmp(name + length, "_v2") == 0);
}

EXPORT long gpudouble_count(const char *call);
long gpudouble_count(const char *call)
{
    for (size_t i = 0; i < MOST_NAMES && tallies[i].name != NULL; i++) {
        if (is_call(tallies[i].name, call)) {
            return tallies[i].count;
        }
    }
    return 0;
}

/* GPUDOUBLE_TELL=cuMemAllocHost,...: say at the end of the process how often those were called. */
__attribute__((destructor)) static void tell(void)
{
    const char *names = getenv("GPUDOUBLE_TELL");
    char *list = names != NULL ? strdup(names) : NULL;
    char *rest = NULL;
    for (const char *name = list != NULL ? strtok_r(list, ",", &rest) : NULL; name != NULL;
         name = strtok_r(NULL, ",", &rest)) {
        fprintf(stderr, "gpu double: %s was called %ld times\n", name, gpudouble_count(name));
    }
    free(list);
}

int gpudouble_enter(const char *call)
{
    LOCKED;
    read_environment();
    if (control != NULL && atomic_load(&control->code) != 0) {
        lost = atomic_load(&control->code);
        ever_lost = true;
    }
    /* When others make theirs is not the test's to know. */
    if (!calls_of_first_thread()) {
        return lost;
    }
    call_count++;
    double_tally(call);
    if (fail_at > 0 && call_count == fail_at) {
        fprintf(stderr, "gpu double: call %ld, %s, fails with %d\n", call_count, call, fail_code);
        if (fail_code == CUDA_ERROR_OUT_OF_MEMORY) {
            return fail_code;
        }
        lost = fail_code;
        ever_lost = true;
    }
    return lost;
}

EXPORT void gpudouble_fail(long n, int code);
void gpudouble_fail(long n, int code)
{
    read_environment();
    fail_at = n > 0 ? call_count + n : 0;
    fail_code = code;
    lost = 0;
}

EXPORT long gpudouble_calls(void);
long gpudouble_calls(void)
{
    return call_count;
}

bool calls_ever_lost(void)
{
    return ever_lost;
}

bool calls_of_first_thread(void)
{
    return pthread_equal(pthread_self(), first_thread) != 0;
}
