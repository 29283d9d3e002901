#include "onednn_parallel.h"

#include <limits.h>

/* libgomp's entry points, as its manual lists them. Declared here, and weak, so that the compiler
 * needs no OpenMP of its own: clang's -fopenmp would bring a second library with a second pool.
 * oneDNN brings libgomp into the process. */
extern void GOMP_parallel(void (*body)(void *), void *data, unsigned threads, unsigned flags)
    __attribute__((weak));
extern void omp_set_num_threads(int threads) __attribute__((weak));
extern int omp_get_thread_num(void) __attribute__((weak));
extern int omp_get_num_threads(void) __attribute__((weak));

/* ThreadSanitizer does not see libgomp's barriers, which order what threads do before and after a
 * loop: it is told. */
#if defined(__SANITIZE_THREAD__)
#define WATCHED_BY_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define WATCHED_BY_TSAN 1
#endif
#endif

#ifdef WATCHED_BY_TSAN
#include <sanitizer/tsan_interface.h>

static void pass_on(void *barrier)
{
    __tsan_release(barrier);
}

static void take_over(void *barrier)
{
    __tsan_acquire(barrier);
}
#else
static void pass_on(void *barrier)
{
    (void)barrier;
}

static void take_over(void *barrier)
{
    (void)barrier;
}
#endif

struct parallel_loop {
    onednn_parallel_body *body;
    void *context;
    size_t count;
};

void onednn_parallel_set_threads(uint32_t threads)
{
    if (omp_set_num_threads != NULL) {
        omp_set_num_threads(threads > INT_MAX ? INT_MAX : (int)threads);
    }
}

static void run_share(void *data)
{
    take_over(data);
    const struct parallel_loop *loop = (const struct parallel_loop *)data;
    size_t threads = (size_t)omp_get_num_threads();
    size_t self = (size_t)omp_get_thread_num();
    size_t begin = loop->count * self / threads;
    size_t end = loop->count * (self + 1) / threads;
    if (begin < end) {
        loop->body(loop->context, begin, end);
    }
    pass_on(data);
}

void onednn_parallel_for(uint32_t threads, size_t count, onednn_parallel_body *body, void *context)
{
    if (threads > count) {
        threads = (uint32_t)count;
    }
    int available = GOMP_parallel != NULL && omp_get_thread_num != NULL &&
                    omp_get_num_threads != NULL;
    if (threads > 1 && available) {
        struct parallel_loop loop = {.body = body, .context = context, .count = count};
        pass_on(&loop);
        GOMP_parallel(run_share, &loop, threads, 0);
        take_over(&loop);
    } else if (count > 0) {
        body(context, 0, count);
    }
}
