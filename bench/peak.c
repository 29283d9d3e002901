#include "peak.h"

#include "workers/backends/onednn/onednn_isa.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define TRIALS      40
#define TRIAL_NS    UINT64_C(20000000)
#define ROUNDS      UINT64_C(10000)
#define MAX_THREADS 1024

const struct peak_loop *peak_find(const char *precision)
{
    static const struct peak_loop amx = {"amx", "bf16", peak_amx_bf16};
    static const struct peak_loop avx512_bf16 = {"avx512", "bf16", peak_avx512_bf16};
    static const struct peak_loop avx512 = {"avx512", "f32", peak_avx512_f32};
    static const struct peak_loop avx2 = {"avx2", "f32", peak_avx2_f32};
    static const struct peak_loop sse = {"sse", "f32", peak_sse_f32};
    static const struct peak_loop avx512_int8 = {"avx512", "int8", peak_avx512_int8};
    struct onednn_isa isa = onednn_isa_detect();
    if (strcmp(precision, "int8") == 0) { /* of AMX there is no loop yet */
        return isa.avx512_vnni && !isa.amx_bf16 ? &avx512_int8 : NULL;
    }
    if (strcmp(precision, "bf16") == 0) {
        const struct peak_loop *vector = isa.avx512_bf16 ? &avx512_bf16 : NULL;
        return isa.amx_bf16 ? &amx : vector;
    }
    if (isa.vector == ONEDNN_VECTOR_AVX512) {
        return &avx512;
    }
    return isa.vector == ONEDNN_VECTOR_AVX2 && isa.fma ? &avx2 : &sse;
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

struct runner {
    pthread_t thread;
    const struct peak_loop *loop;
    double gflops;
};

static void *run_for_a_while(void *opaque)
{
    struct runner *runner = (struct runner *)opaque;
    uint64_t start = now_ns();
    uint64_t flop = 0;
    uint64_t passed = 0;
    do {
        flop += runner->loop->run(ROUNDS) * ROUNDS;
        passed = now_ns() - start;
    } while (passed < TRIAL_NS);
    runner->gflops = (double)flop / (double)passed;
    return NULL;
}

static double run_trial(const struct peak_loop *loop, struct runner *runners, uint32_t threads)
{
    double sum = 0;
    uint32_t started = 0;
    while (started < threads) {
        runners[started] = (struct runner){.loop = loop};
        if (pthread_create(&runners[started].thread, NULL, run_for_a_while, &runners[started]) !=
            0) {
            break;
        }
        started++;
    }
    for (uint32_t i = 0; i < started; i++) {
        pthread_join(runners[i].thread, NULL);
        sum += runners[i].gflops;
    }
    return started == threads ? sum : 0;
}

double peak_measure(const struct peak_loop *loop, uint32_t threads)
{
    threads = threads < MAX_THREADS ? threads : MAX_THREADS;
    struct runner *runners = (struct runner *)calloc(threads, sizeof *runners);
    double best = 0;
    for (int i = 0; i < TRIALS && runners != NULL; i++) {
        double gflops = run_trial(loop, runners, threads);
        best = gflops > best ? gflops : best;
    }
    free(runners);
    return best;
}
