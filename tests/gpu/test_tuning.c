/*
 * Which engines the cuDNN backend runs: they are timed at the first start, kept, and read at later
 * ones; what is damaged, forged or another device's is not believed.
 */
#include "tests/gpu/against_reference.h"

#include <dirent.h>
#include <sys/wait.h>
#include <unistd.h>

#define RUNS_A_PLAN 6 /* with the first, that does not count */

/* A directory for what is kept, empty. */
static char kept[32];

static void make_kept(void)
{
    snprintf(kept, sizeof kept, "/tmp/test-gpu-XXXXXX");
    assert_non_null(mkdtemp(kept));
}

static void empty_kept(void)
{
    DIR *directory = opendir(kept);
    for (const struct dirent *at = readdir(directory); at != NULL; at = readdir(directory)) {
        (void)unlinkat(dirfd(directory), at->d_name, 0);
    }
    closedir(directory);
}

static char logged[4096];

static void keep_all(void *opaque, int level, const char *text)
{
    (void)opaque;
    (void)level;
    size_t used = strlen(logged);
    snprintf(logged + used, sizeof logged - used, "%s\n", text);
}

static struct backend_options tuned_wishes(void)
{
    struct backend_options options = wishes("bf16");
    options.cache_dir = kept;
    options.timing_s = 3600; /* whatever else runs */
    options.tile = 16;
    options.max_batch = 4;
    options.log = keep_all;
    logged[0] = '\0';
    return options;
}

/* Start on what is kept, run, and compare; returns how many times were taken. */
static long start_tuned(void)
{
    struct backend_options options = tuned_wishes();
    struct backend_options plain_options = wishes("bf16");
    long before = count("cuEventElapsedTime");
    void *gpu = start(&backend_cudnn, &options);
    long times = count("cuEventElapsedTime") - before;
    plain_options.precision = "f32";
    void *reference = start(&backend_reference, &plain_options);
    for (uint32_t tiles_count = 1; tiles_count <= 4; tiles_count += 3) {
        struct tiles got = make_tiles(UNETSERVE_F32, tiles_count, 16, 16);
        struct tiles want = make_tiles(UNETSERVE_F32, tiles_count, 16, 16);
        size_t bytes = (size_t)network->in_channels * 16 * 16 * sizeof(float);
        for (uint32_t i = 0; i < tiles_count; i++) {
            memcpy(want.inputs[i], got.inputs[i], bytes);
        }
        assert_int_equal(run(&backend_cudnn, gpu, UNETSERVE_F32, &got), 0);
        assert_int_equal(run(&backend_reference, reference, UNETSERVE_F32, &want), 0);
        assert_true(compare(&got, &want) < 0.06);
        free_tiles(&got);
        free_tiles(&want);
    }
    backend_cudnn.destroy(gpu);
    backend_reference.destroy(reference);
    return times;
}

/* The only file there; path has room for it. */
static void kept_file(char *path, size_t size)
{
    DIR *directory = opendir(kept);
    int files = 0;
    for (const struct dirent *at = readdir(directory); at != NULL; at = readdir(directory)) {
        if (at->d_name[0] != '.') {
            snprintf(path, size, "%s/%s", kept, at->d_name);
            files++;
        }
    }
    closedir(directory);
    assert_int_equal(files, 1);
}

static void overwrite(const char *path, long at, const void *data, size_t bytes, long end)
{
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_true(fseek(file, at, SEEK_SET) == 0 && fwrite(data, 1, bytes, file) == bytes);
    fclose(file);
    assert_true(end < 0 || truncate(path, end) == 0);
}

/* Engines that a file names and no cuDNN has, under checksums that fit. */
static void forge(const char *path)
{
    static uint8_t data[1 << 20];
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    size_t bytes = fread(data, 1, sizeof data, file);
    assert_true(bytes > PACKED_PAGE_BYTES && bytes < sizeof data);
    memset(data + PACKED_PAGE_BYTES, 0x7e, 8);
    packed_file_seal(data, bytes);
    rewind(file);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    fclose(file);
}

static void engines_are_timed_once_and_kept(void **state)
{
    (void)state;
    char path[600];
    open_network("tests/goldens/milesial_transposed.safetensors");
    make_kept();
    long times = start_tuned();
    assert_non_null(strstr(logged, " plans for "));
    if (on_double()) { /* two batch sizes, some 20 convolutions, several plans */
        assert_true(times > 2 * 15 * RUNS_A_PLAN * 2 && times <= 2 * 30 * RUNS_A_PLAN * 8);
        assert_null(strstr(logged, ": 0 run on another engine"));
    }
    kept_file(path, sizeof path);
    assert_int_equal(start_tuned(), 0);
    assert_non_null(strstr(logged, "convolutions read from"));

    overwrite(path, 3000, "?", 1, -1); /* damaged */
    assert_int_equal(start_tuned(), times);
    assert_non_null(strstr(logged, "a damaged head"));
    overwrite(path, 0, "UNSP", 4, 5000); /* cut off */
    assert_int_equal(start_tuned(), times);
    assert_non_null(strstr(logged, "cut off, or grown"));
    forge(path); /* one engine is none: that convolution alone is timed again */
    long again = start_tuned();
    assert_true(on_double() ? again > 0 && again <= RUNS_A_PLAN * 8 : again == 0);
    assert_non_null(strstr(logged, "of the engines kept in"));
    assert_int_equal(start_tuned(), 0);
    kept_file(path, sizeof path);
    empty_kept();
    rmdir(kept);
    source_close(&source);
}

/* Measure in another process, where `name` is `value`: the double reads its device once. */
static void tune_elsewhere(const char *name, const char *value)
{
    pid_t child = fork();
    if (child == 0) {
        setenv(name, value, 1);
        _exit(execl("/proc/self/exe", "test_gpu", "--tune", kept, (char *)NULL));
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* The same device under the name of its successor, described in a file beside `kept`. */
static void describe_successor(const char *device, char *path, size_t size)
{
    char text[8192] = "";
    FILE *file = fopen(device, "r");
    assert_non_null(file);
    assert_true(fread(text, 1, sizeof text - 1, file) > 0);
    fclose(file);
    char *name = strstr(text, "H100");
    assert_non_null(name);
    name[1] = '2';
    snprintf(path, size, "%s.h200", kept);
    file = fopen(path, "w");
    assert_true(file != NULL && fputs(text, file) >= 0);
    fclose(file);
}

/* What was measured on another device, with another driver or cuDNN has another name; even under
 * this device's it is not believed. */
static void engines_of_others_are_not_taken(void **state)
{
    (void)state;
    char successor[64];
    const char *const others[][2] = {{"GPUDOUBLE_DEVICE", "tests/gpu/devices/a100.json"},
                                     {"GPUDOUBLE_DEVICE", successor},
                                     {"GPUDOUBLE_DRIVER", "13990"},
                                     {"GPUDOUBLE_CUDNN_VERSION", "91999"}};
    char path[600];
    char mine[600];
    char foreign[600];
    const char *device = getenv("GPUDOUBLE_DEVICE");
    if (!on_double() || device == NULL || strstr(device, "h100") == NULL) {
        skip();
    }
    open_network("tests/goldens/milesial_transposed.safetensors");
    make_kept();
    long times = start_tuned();
    kept_file(path, sizeof path);
    snprintf(mine, sizeof mine, "%s.mine", kept);
    describe_successor(device, successor, sizeof successor);
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        tune_elsewhere(others[i][0], others[i][1]); /* beside this one's file */
        assert_int_equal(rename(path, mine), 0);
        kept_file(foreign, sizeof foreign);
        assert_string_not_equal(foreign, path);
        if (i == 0) {
            assert_int_equal(rename(foreign, path), 0);
            assert_int_equal(start_tuned(), times);
            assert_non_null(strstr(logged, "other weights"));
        }
        empty_kept();
        assert_int_equal(rename(mine, path), 0);
    }
    assert_int_equal(start_tuned(), 0);
    unlink(successor);
    empty_kept();
    rmdir(kept);
    source_close(&source);
}

/* A plan that fails when it is run is no candidate, and nothing else happens. */
static void plans_that_fail_are_passed_over(void **state)
{
    (void)state;
    if (!on_double()) {
        skip();
    }
    open_network("tests/goldens/milesial_transposed.safetensors");
    make_kept();
    setenv("GPUDOUBLE_BAD_PLANS", "yes", 1);
    assert_true(start_tuned() > 0);
    assert_null(strstr(logged, " 0 failed"));
    unsetenv("GPUDOUBLE_BAD_PLANS");
    empty_kept();
    rmdir(kept);
    source_close(&source);
}

/* --tune DIRECTORY: measure there, as another process on another device. */
static int tune_there(const char *directory)
{
    open_network("tests/goldens/milesial_transposed.safetensors");
    snprintf(kept, sizeof kept, "%s", directory);
    return start_tuned() > 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
    begin_program(argc, argv);
    if (argc == 3 && strcmp(argv[1], "--tune") == 0) {
        return tune_there(argv[2]);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(engines_are_timed_once_and_kept),
        cmocka_unit_test(engines_of_others_are_not_taken),
        cmocka_unit_test(plans_that_fail_are_passed_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
