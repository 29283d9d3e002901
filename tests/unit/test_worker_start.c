/* What a worker does before it serves: its command line, its cores, its plugin. */
#include "workers/cores.h"
#include "workers/load_plugin.h"
#include "workers/worker_options.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include <cmocka.h>

static void core_lists_are_read(void **state)
{
    (void)state;
    cpu_set_t cores;
    assert_int_equal(cores_parse("3", &cores), 0);
    assert_int_equal(CPU_COUNT(&cores), 1);
    assert_true(CPU_ISSET(3, &cores));
    assert_int_equal(cores_parse("0-1,4,8-11", &cores), 0);
    assert_int_equal(CPU_COUNT(&cores), 7);
    assert_true(CPU_ISSET(11, &cores) && !CPU_ISSET(2, &cores));
    assert_int_equal(cores_parse("1,1-2", &cores), 0);
    assert_int_equal(CPU_COUNT(&cores), 2);
}

static void bad_core_lists_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",    ",",  "1,",    "-1",      "1-", "2-1",   "a",
        "1 2", "1.", "99999", "0-99999", "+1", "1-2-3", "18446744073709551616"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cpu_set_t cores;
        assert_int_equal(cores_parse(bad[i], &cores), -EINVAL);
    }
}

static void threads_follow_the_worker_and_the_rest_the_user(void **state)
{
    (void)state;
    setenv("OMP_NUM_THREADS", "64", 1);
    setenv("GOMP_SPINCOUNT", "7", 1);
    unsetenv("OMP_WAIT_POLICY");
    assert_int_equal(cores_prepare_threads(3), 0);
    assert_string_equal(getenv("OMP_NUM_THREADS"), "3");
    assert_string_equal(getenv("GOMP_SPINCOUNT"), "7");
    assert_string_not_equal(getenv("OMP_WAIT_POLICY"), "ACTIVE");
    assert_true(cores_allowed() >= 1);
}

static int parse(const char *line, struct worker_options *options, char *error, size_t error_size)
{
    static char text[512];
    char *argv[32] = {"unetserve-worker"};
    int argc = 1;
    snprintf(text, sizeof text, "%s", line);
    for (char *word = strtok(text, " "); word; word = strtok(NULL, " "))
        argv[argc++] = word;
    return worker_options_parse(argc, argv, options, error, error_size);
}

static void command_lines_are_read(void **state)
{
    (void)state;
    struct worker_options options;
    char error[256];
    assert_int_equal(
        parse("--model 2 --device cuda:1 --cores 0-1 --threads 2", &options, error, sizeof error),
        0);
    assert_false(options.describe);
    assert_int_equal(options.model, 2);
    assert_string_equal(options.device, "cuda:1");
    assert_int_equal(options.threads, 2);
    assert_true(options.has_cores && CPU_ISSET(1, &options.cores));
    assert_int_equal(parse("--describe --model-path x.pth --device auto --precision bf16 --backend "
                           "reference --tile 128 --max-batch 4",
                           &options, error, sizeof error),
                     0);
    assert_true(options.describe);
    assert_string_equal(options.model_path, "x.pth");
    assert_string_equal(options.device, "cpu");
    assert_string_equal(options.precision, "bf16");
    assert_string_equal(options.backend, "reference");
    assert_int_equal(options.tile, 128);
    assert_int_equal(options.max_batch, 4);
}

static void bad_command_lines_are_named(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        {"--threads x", "--threads"},   {"--threads -1", "--threads"},
        {"--cores 1-0", "--cores"},     {"--what", "--what"},
        {"--model", "--model"},         {"more", "more"},
        {"--describe", "--model-path"}, {"--model-path x", "--describe"},
        {"--tile 1x", "--tile"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct worker_options options;
        char error[256] = "";
        assert_int_equal(parse(bad[i][0], &options, error, sizeof error), -EINVAL);
        if (!strstr(error, bad[i][1]))
            fail_msg("%s: %s", bad[i][0], error);
    }
}

static int no_describe(const struct unetserve_setup *setup, struct unetserve_interface *interface,
                       char *error, size_t error_size)
{
    (void)setup, (void)interface, (void)error, (void)error_size;
    return -ENODEV;
}
static int no_setup(const struct unetserve_setup *setup, void **model,
                    struct unetserve_interface *interface, char *error, size_t error_size)
{
    (void)model;
    return no_describe(setup, interface, error, error_size);
}
static int no_predict(void *model, struct unetserve_item *const *items, size_t count)
{
    (void)model, (void)items, (void)count;
    return 0;
}
static void no_teardown(void *model)
{
    (void)model;
}

static const struct unetserve_model_ops whole = {
    .abi = UNETSERVE_MODEL_ABI,
    .size = sizeof whole,
    .name = "whole",
    .describe = no_describe,
    .setup = no_setup,
    .predict = no_predict,
    .teardown = no_teardown,
};

static void check_refused(struct unetserve_model_ops ops, const char *word)
{
    char error[256] = "";
    assert_int_equal(plugin_check(&ops, error, sizeof error), -EBADMSG);
    if (!strstr(error, word))
        fail_msg("no %s in: %s", word, error);
}

static void plugins_for_another_abi_are_refused(void **state)
{
    (void)state;
    char error[256] = "";
    struct unetserve_model_ops ops = whole;
    assert_int_equal(plugin_check(&ops, error, sizeof error), 0);
    ops.size += 64; /* a later one with more fields */
    assert_int_equal(plugin_check(&ops, error, sizeof error), 0);
    assert_int_equal(plugin_check(NULL, error, sizeof error), -EBADMSG);
    ops = whole;
    ops.abi = UNETSERVE_MODEL_ABI + 1;
    check_refused(ops, "ABI");
    ops = whole;
    ops.size = 8;
    check_refused(ops, "bytes");
    ops = whole;
    ops.predict = NULL;
    check_refused(ops, "predict");
}

static void what_is_no_plugin_is_refused(void **state)
{
    (void)state;
    struct plugin plugin;
    char error[512] = "";
    assert_int_equal(plugin_load("/nonexistent/model.so", &plugin, error, sizeof error), -ENOENT);
    assert_non_null(strstr(error, "/nonexistent/model.so"));
    assert_int_equal(plugin_load("/nonexistent/weights.pth", &plugin, error, sizeof error),
                     -ENOENT);
    assert_non_null(strstr(error, "/nonexistent/weights.pth"));
    char path[] = "/tmp/unetserve-test-XXXXXX.so";
    int fd = mkstemps(path, 3);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(plugin_load(path, &plugin, error, sizeof error), -EBADMSG);
    remove(path);
}

static void failures_become_exit_statuses(void **state)
{
    (void)state;
    assert_int_equal(plugin_exit_status(0), 0);
    assert_int_equal(plugin_exit_status(-EBADMSG), EX_DATAERR);
    assert_int_equal(plugin_exit_status(-ENOENT), EX_NOINPUT);
    assert_int_equal(plugin_exit_status(-EACCES), EX_NOINPUT);
    assert_int_equal(plugin_exit_status(-ENODEV), EX_UNAVAILABLE);
    assert_int_equal(plugin_exit_status(-EINVAL), EX_CONFIG);
    assert_int_equal(plugin_exit_status(-ERANGE), EX_SOFTWARE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(core_lists_are_read),
        cmocka_unit_test(bad_core_lists_are_refused),
        cmocka_unit_test(threads_follow_the_worker_and_the_rest_the_user),
        cmocka_unit_test(command_lines_are_read),
        cmocka_unit_test(bad_command_lines_are_named),
        cmocka_unit_test(plugins_for_another_abi_are_refused),
        cmocka_unit_test(what_is_no_plugin_is_refused),
        cmocka_unit_test(failures_become_exit_statuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
