/*
 * Calls to the device that fail, one after the other, and what the cuDNN backend says of it; memory
 * that is not there.
 */
#include "tests/gpu/against_reference.h"

#include <cuda.h>
#include <errno.h>
#include <sys/wait.h>
#include <unistd.h>

static void fail_at(long n, int code)
{
    double_fail_fn *function;
    *(void **)&function = double_symbol("gpudouble_fail");
    assert_non_null(function);
    function(n, code);
}

static long calls(void)
{
    double_calls_fn *function;
    *(void **)&function = double_symbol("gpudouble_calls");
    assert_non_null(function);
    return function();
}

static uint32_t last_loss;

static void keep_loss(void *opaque, uint32_t why)
{
    (void)opaque;
    last_loss = why;
}

/* In a child: everything that a worker asks of a device, with the n-th call failing. 0: nothing
 * failed; 1: told as it should; else: not. */
static int work_with_failure(long n, int code)
{
    char error[1024] = "";
    void *gpu = NULL;
    struct backend_options options = wishes("auto");
    struct tiles tiles = make_tiles(UNETSERVE_F32, 10, 16, 20);
    fail_at(n, code);
    int result = backend_cudnn.create(network, &options, &gpu, error, sizeof error);
    if (result != 0) {
        bool known = result == -ENODEV || result == -ENOMEM;
        return known && error[0] != '\0' ? 1 : 2;
    }
    for (int round = 0; round < 3 && result == 0; round++) {
        result = run(&backend_cudnn, gpu, UNETSERVE_F32, &tiles);
    }
    if (result != 0) {
        /* cuDNN without memory for a plan says no more than that it has none. */
        bool known = result == -EIO || result == -ENOMEM ||
                     (code == CUDA_ERROR_OUT_OF_MEMORY && result == -EINVAL);
        return known && last_log[0] != '\0' ? 1 : 3;
    }
    backend_cudnn.destroy(gpu);
    return 0;
}

static int in_child(long n, int code)
{
    int status = 0;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        alarm(60);
        if (freopen("/dev/null", "w", stderr) == NULL) {
            _exit(9);
        }
        _exit(work_with_failure(n, code));
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    if (!WIFEXITED(status)) {
        print_error("call %ld, failing with %d: signal %d\n", n, code, WTERMSIG(status));
        return -1;
    }
    return WEXITSTATUS(status);
}

static void each_call_fails_in_turn(void **state)
{
    (void)state;
    const char *order = getenv("GPUDOUBLE_ORDER");
    if (double_symbol("gpudouble_fail") == NULL || (order != NULL && strcmp(order, "late") == 0)) {
        skip(); /* a real device; or once is enough */
    }
    open_network("tests/goldens/milesial_transposed.safetensors");
    long before = calls();
    assert_int_equal(work_with_failure(0, 0), 0);
    long all = calls() - before;
    print_message("%ld calls\n", all);
    assert_true(all > 500);
    /* Every call of opening; of running one in 5; of the thousands that make plans, one in 197. */
    for (long n = 1; n <= all; n += n < 60 ? 1 : n > all - 200 ? 5 : 197) {
        int result = in_child(n, CUDA_ERROR_ILLEGAL_ADDRESS);
        if (result != 1 && result != 0) {
            print_error("call %ld of %ld: result %d\n", n, all, result);
        }
        assert_in_range(result, 0, 1);
        if (n % 5 == 0) {
            assert_in_range(in_child(n, CUDA_ERROR_OUT_OF_MEMORY), 0, 1);
        }
    }
    source_close(&source);
}

/* Where there is no memory for a usual tile the device is given up; a larger one fails alone. */
static void without_memory_the_device_is_given_up(void **state)
{
    (void)state;
    if (!on_double()) {
        skip();
    }
    open_network("tests/goldens/milesial_transposed.safetensors");
    struct backend_options options = wishes("auto");
    options.tile = 16;
    options.lost = keep_loss;
    void *gpu = start(&backend_cudnn, &options);
    struct tiles usual = make_tiles(UNETSERVE_F32, 2, 16, 16);
    struct tiles large = make_tiles(UNETSERVE_F32, 1, 32, 32);
    fail_at(3, CUDA_ERROR_OUT_OF_MEMORY);
    int result = run_labels(&backend_cudnn, gpu, &large);
    assert_true(result < 0 && result != -EIO);
    usual.count = 1;
    fail_at(0, 0);
    assert_int_equal(run_labels(&backend_cudnn, gpu, &usual), 0);
    backend_cudnn.destroy(gpu);
    gpu = start(&backend_cudnn, &options);
    fail_at(2, CUDA_ERROR_OUT_OF_MEMORY); /* behind cuCtxSetCurrent: memory for the tile */
    assert_int_equal(run_labels(&backend_cudnn, gpu, &usual), -EIO);
    assert_non_null(strstr(last_log, "no memory left for one usual tile"));
    assert_int_equal(last_loss, UNETSERVE_LOSS_MEMORY);
    fail_at(0, 0);
    backend_cudnn.destroy(gpu);
    usual.count = 2;
    free_tiles(&usual);
    free_tiles(&large);
    source_close(&source);
}

/* What the driver's code says is passed on; memory that ran out before does not hide it. */
static void why_a_device_is_lost_is_told(void **state)
{
    (void)state;
    static const struct {
        int code;
        uint32_t why;
    } all[] = {{CUDA_ERROR_ECC_UNCORRECTABLE, UNETSERVE_LOSS_ECC},
               {CUDA_ERROR_DEVICE_UNAVAILABLE, UNETSERVE_LOSS_GONE},
               {CUDA_ERROR_LAUNCH_FAILED, UNETSERVE_LOSS_FAULT},
               {CUDA_ERROR_UNKNOWN, UNETSERVE_LOSS_OTHER}};
    if (!on_double()) {
        skip();
    }
    open_network("tests/goldens/milesial_transposed.safetensors");
    struct backend_options options = wishes("auto");
    options.tile = 16;
    options.lost = keep_loss;
    struct tiles usual = make_tiles(UNETSERVE_F32, 1, 16, 16);
    struct tiles large = make_tiles(UNETSERVE_F32, 1, 32, 32);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        void *gpu = start(&backend_cudnn, &options);
        fail_at(3, CUDA_ERROR_OUT_OF_MEMORY);
        int result = run_labels(&backend_cudnn, gpu, &large);
        assert_true(result < 0 && result != -EIO);
        last_loss = UINT32_MAX;
        fail_at(2, all[i].code);
        assert_int_equal(run_labels(&backend_cudnn, gpu, &usual), -EIO);
        assert_int_equal(last_loss, all[i].why);
        assert_null(strstr(last_log, "memory"));
        fail_at(0, 0);
        backend_cudnn.destroy(gpu);
    }
    free_tiles(&usual);
    free_tiles(&large);
    source_close(&source);
}

int main(int argc, char **argv)
{
    begin_program(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_memory_the_device_is_given_up),
        cmocka_unit_test(why_a_device_is_lost_is_told),
        cmocka_unit_test(each_call_fails_in_turn),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
