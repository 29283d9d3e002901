/* The supervisor's pure parts (the tree's table, geometry, cores, limits, the watchdog), its
 * command line, its sockets' directory, and the file descriptors of a spawned process. */
#include "supervisor/core_share.h"
#include "supervisor/geometry.h"
#include "supervisor/limits.h"
#include "supervisor/listeners.h"
#include "supervisor/options.h"
#include "supervisor/run_dir.h"
#include "supervisor/scaler.h"
#include "supervisor/spawn.h"
#include "supervisor/tree.h"
#include "supervisor/watch.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- tree ---- */

/* Written out a second time, by state and event: every pair is one of these or does nothing. */
static const struct tree_step expected[TREE_STATE_COUNT][TREE_EVENT_COUNT] = {
    /*                 WANT_UP WANT_DOWN READY GONE TIMEOUT */
    [TREE_DOWN] = {{TREE_STARTING, TREE_SPAWN},
                   {TREE_DOWN, TREE_NOTHING},
                   {TREE_DOWN, TREE_NOTHING},
                   {TREE_DOWN, TREE_NOTHING},
                   {TREE_DOWN, TREE_NOTHING},
                   {TREE_DOWN, TREE_NOTHING}},
    [TREE_STARTING] = {{TREE_STARTING, TREE_NOTHING},
                       {TREE_STOPPING, TREE_TERM},
                       {TREE_UP, TREE_ANNOUNCE},
                       {TREE_BACKOFF, TREE_DELAY},
                       {TREE_STARTING, TREE_KILL},
                       {TREE_BACKOFF, TREE_ABANDON}},
    [TREE_UP] = {{TREE_UP, TREE_NOTHING},
                 {TREE_STOPPING, TREE_TERM},
                 {TREE_UP, TREE_NOTHING},
                 {TREE_BACKOFF, TREE_DELAY},
                 {TREE_UP, TREE_KILL},
                 {TREE_BACKOFF, TREE_ABANDON}},
    [TREE_STOPPING] = {{TREE_STOPPING, TREE_NOTHING},
                       {TREE_STOPPING, TREE_NOTHING},
                       {TREE_STOPPING, TREE_NOTHING},
                       {TREE_DOWN, TREE_BURY},
                       {TREE_STOPPING, TREE_KILL},
                       {TREE_DOWN, TREE_ABANDON}},
    [TREE_BACKOFF] = {{TREE_BACKOFF, TREE_NOTHING},
                      {TREE_DOWN, TREE_DISARM},
                      {TREE_BACKOFF, TREE_NOTHING},
                      {TREE_BACKOFF, TREE_NOTHING},
                      {TREE_STARTING, TREE_SPAWN},
                      {TREE_BACKOFF, TREE_NOTHING}},
};

static void test_tree_edges(void **state)
{
    (void)state;
    for (int from = 0; from < TREE_STATE_COUNT; from++)
        for (int event = 0; event < TREE_EVENT_COUNT; event++) {
            struct tree_step step = tree_next((enum tree_state)from, (enum tree_event)event);
            assert_int_equal(step.next, expected[from][event].next);
            assert_int_equal(step.action, expected[from][event].action);
        }
    assert_string_equal(tree_state_name(TREE_BACKOFF), "BACKOFF");
}

static void test_tree_delays(void **state)
{
    (void)state;
    assert_int_equal(tree_delay_ms(0), 0);
    assert_int_equal(tree_delay_ms(1), 0); /* the first restart is at once */
    for (unsigned failures = 2; failures < 100; failures++) {
        assert_true(tree_delay_ms(failures) >= tree_delay_ms(failures - 1));
        assert_true(tree_delay_ms(failures) > 0 && tree_delay_ms(failures) <= TREE_LONGEST_MS);
    }
    assert_int_equal(tree_delay_ms(100), TREE_LONGEST_MS);
}

/* ---- geometry ---- */

static struct unetserve_interface tensor_model(uint32_t channels, uint32_t tile)
{
    return (struct unetserve_interface){.input_kind = UNETSERVE_TENSOR,
                                        .output_kind = UNETSERVE_TENSOR,
                                        .channels = channels,
                                        .tile = tile,
                                        .max_batch = 8,
                                        .output_dtype = UNETSERVE_U8};
}

static struct unetserve_interface document_model(void)
{
    return (struct unetserve_interface){
        .input_kind = UNETSERVE_DOCUMENT, .output_kind = UNETSERVE_DOCUMENT, .max_batch = 1};
}

static int plan(const struct unetserve_interface *interfaces, uint32_t count, uint64_t memory,
                uint64_t max_body_bytes, struct queue_geometry *out)
{
    struct geometry_request request = {.interfaces = interfaces,
                                       .model_count = count,
                                       .memory = memory,
                                       .max_body_bytes = max_body_bytes};
    return geometry_plan(&request, out, NULL);
}

/* What holds for every plan: sorted both ways, within memory, and the queue takes it. */
static void plan_check(const struct queue_geometry *geometry, uint64_t memory, uint64_t most)
{
    uint64_t bytes = 0;
    struct queue queue;
    for (uint32_t i = 0; i < geometry->class_count; i++) {
        const struct queue_class *class = &geometry->classes[i];
        bytes += class->count * (class->input_bytes + class->output_bytes);
        assert_true(class->count > 0);
        assert_int_equal(class->input_bytes % 4096, 0);
        assert_int_equal(class->output_bytes % 4096, 0);
        assert_true(class->output_bytes >= 16384);
        if (i > 0) {
            assert_true(class->input_bytes > geometry->classes[i - 1].input_bytes);
            assert_true(class->input_bytes <= most);
        }
    }
    assert_true(bytes <= memory);
    assert_int_equal(queue_create(geometry, &queue), 0);
    queue_close(&queue);
}

static void test_geometry_usual(void **state)
{
    (void)state;
    struct unetserve_interface model = tensor_model(12, 256);
    struct queue_geometry geometry;
    assert_int_equal(plan(&model, 1, UINT64_C(1) << 30, UINT64_C(512) << 20, &geometry), 0);
    plan_check(&geometry, UINT64_C(1) << 30, UINT64_C(1) << 30);
    assert_int_equal(geometry.class_count, 3);
    /* A float32 tile; and its labels if it were four uint8 tiles. */
    assert_int_equal(geometry.classes[0].input_bytes, 12 * 256 * 256 * 4);
    assert_int_equal(geometry.classes[0].output_bytes, 4 * 256 * 256);
    assert_in_range(geometry.classes[0].count, 100, 256);
    assert_int_equal(geometry.classes[1].input_bytes, 16 * 12 * 256 * 256 * 4);
    assert_true(geometry.classes[1].count >= 4);
    assert_int_equal(geometry.classes[2].count, 1);
}

static void test_geometry_documents(void **state)
{
    (void)state;
    struct unetserve_interface model = document_model();
    struct queue_geometry geometry;
    assert_int_equal(plan(&model, 1, UINT64_C(1) << 30, UINT64_C(512) << 20, &geometry), 0);
    plan_check(&geometry, UINT64_C(1) << 30, UINT64_C(1) << 30);
    assert_int_equal(geometry.classes[0].input_bytes, 64 << 10);
    assert_int_equal(geometry.classes[0].output_bytes, 64 << 10);
    assert_int_equal(geometry.classes[0].count, 256);
    assert_int_equal(geometry.classes[1].input_bytes, 1 << 20);
    assert_int_equal(geometry.classes[1].count, 32);
}

static void test_geometry_small_bodies(void **state)
{
    (void)state;
    struct unetserve_interface model = tensor_model(3, 64);
    struct queue_geometry geometry;
    assert_int_equal(plan(&model, 1, UINT64_C(1) << 30, 100000, &geometry), 0);
    plan_check(&geometry, UINT64_C(1) << 30, 204800);
}

static void test_geometry_many_models(void **state)
{
    (void)state;
    struct unetserve_interface models[QUEUE_MAX_MODELS];
    struct queue_geometry geometry;
    for (uint32_t i = 0; i < QUEUE_MAX_MODELS; i++)
        models[i] = i == 3 ? document_model() : tensor_model(1 + i, 512 >> (i % 5));
    for (uint64_t memory = UINT64_C(64) << 20; memory <= UINT64_C(4) << 30; memory *= 2) {
        assert_int_equal(plan(models, QUEUE_MAX_MODELS, memory, UINT64_C(512) << 20, &geometry), 0);
        plan_check(&geometry, memory, UINT64_C(1) << 30);
        /* Every model's usual tile fits somewhere, with its labels. */
        const struct queue_class *last = &geometry.classes[geometry.class_count - 1];
        assert_true(last->input_bytes >= 16 * 32 * 32 * 4);
    }
    /* Two that are nearly the same share a class. */
    models[0] = tensor_model(12, 256);
    models[1] = tensor_model(13, 256);
    assert_int_equal(plan(models, 2, UINT64_C(1) << 30, UINT64_C(512) << 20, &geometry), 0);
    assert_int_equal(geometry.class_count, 3);
    assert_int_equal(geometry.classes[0].input_bytes, 13 * 256 * 256 * 4);
}

static void test_geometry_long_answers(void **state)
{
    (void)state;
    struct unetserve_interface models[2] = {document_model(), tensor_model(12, 64)};
    struct geometry_request request = {.interfaces = models,
                                       .model_count = 2,
                                       .memory = UINT64_C(256) << 20,
                                       .max_body_bytes = UINT64_C(512) << 20,
                                       .responses = {4 << 20}};
    struct queue_geometry geometry;
    assert_int_equal(geometry_plan(&request, &geometry, NULL), 0);
    plan_check(&geometry, request.memory, UINT64_C(1) << 30);
    assert_int_equal(geometry.classes[0].input_bytes, 64 << 10);
    assert_int_equal(geometry.classes[0].output_bytes, 4 << 20);
    /* Longer requests have that room, too. */
    assert_true(geometry.classes[geometry.class_count - 1].output_bytes >= 4 << 20);
    assert_true(geometry.classes[geometry.class_count - 1].input_bytes > 1 << 20);
}

static void test_geometry_too_little(void **state)
{
    (void)state;
    struct unetserve_interface model = tensor_model(12, 256);
    struct geometry_request request = {
        .interfaces = &model, .model_count = 1, .memory = 1 << 20, .max_body_bytes = 1 << 30};
    struct queue_geometry geometry;
    uint64_t needed = 0;
    assert_int_equal(geometry_plan(&request, &geometry, &needed), -ENOSPC);
    assert_true(needed > request.memory);
    for (uint64_t extra = 0; extra < UINT64_C(64) << 20; extra += 999999) {
        request.memory = needed + extra;
        assert_int_equal(geometry_plan(&request, &geometry, NULL), 0);
        plan_check(&geometry, request.memory, UINT64_C(2) << 30);
    }
    request.tiles[0] = 32; /* the configuration's tile counts, not the model's */
    assert_int_equal(geometry_plan(&request, &geometry, NULL), 0);
    assert_int_equal(geometry.classes[0].input_bytes, 12 * 32 * 32 * 4);
    request.model_count = 0;
    assert_int_equal(geometry_plan(&request, &geometry, NULL), -ENOSPC);
}

/* ---- cores and limits ---- */

static void test_cores_divided(void **state)
{
    (void)state;
    struct core_share all = {.count = 0};
    struct core_share share;
    static unsigned char owners[16];
    for (uint16_t i = 0; i < 16; i++)
        all.ids[all.count++] = (uint16_t)(3 + 2 * i);
    for (unsigned workers = 1; workers <= 16; workers++) {
        memset(owners, 0, sizeof owners);
        for (unsigned w = 0; w < workers; w++) {
            core_share_cut(&all, workers, w, &share);
            assert_in_range(share.count, 16 / workers, 16 / workers + 1);
            for (unsigned i = 0; i < share.count; i++)
                owners[(share.ids[i] - 3) / 2]++;
        }
        for (unsigned i = 0; i < 16; i++)
            assert_int_equal(owners[i], 1);
    }
    all.count = 2;
    for (unsigned w = 0; w < 5; w++) {
        core_share_cut(&all, 5, w, &share);
        assert_int_equal(share.count, 1);
        assert_int_equal(share.ids[0], all.ids[w % 2]);
    }
}

static void test_cores_near_a_gpu(void **state)
{
    (void)state;
    const struct core_share all = {.ids = {1, 3, 64, 70, 1023}, .count = 5};
    uint64_t near[CORE_SHARE_MAX / 64] = {[0] = 0x0a | 1u << 5, [1] = 1, [15] = UINT64_C(1) << 63};
    struct core_share share;
    core_share_near(&all, near, &share);
    assert_int_equal(share.count, 4);
    assert_int_equal(share.ids[2], 64);
    assert_int_equal(share.ids[3], 1023);
    memset(near, 0, sizeof near);
    near[0] = 1; /* none of ours: then all */
    core_share_near(&all, near, &share);
    assert_memory_equal(&share, &all, sizeof all);
}

static void test_cores_text(void **state)
{
    (void)state;
    struct core_share cores = {.ids = {0, 1, 2, 5, 8, 9}, .count = 6};
    char text[64];
    assert_string_equal(core_share_format(&cores, text, sizeof text), "0-2,5,8-9");
    assert_null(core_share_format(&cores, text, 6));
    assert_int_equal(core_share_allowed(0, &cores), 0);
    assert_true(cores.count >= 1);
    assert_int_equal(core_share_allowed(1, &cores), 0);
    assert_int_equal(cores.count, 1);
}

static void test_limits(void **state)
{
    (void)state;
    assert_int_equal(limits_parse_memory("1048576\n"), 1048576);
    assert_true(limits_parse_memory("max\n") == UINT64_MAX);
    assert_true(limits_parse_memory("") == UINT64_MAX);
    assert_true(limits_parse_memory("12 monkeys") == UINT64_MAX);
    assert_int_equal(limits_parse_cpu("150000 100000\n"), 2);
    assert_int_equal(limits_parse_cpu("200000 100000"), 2);
    assert_int_equal(limits_parse_cpu("1000 100000"), 1);
    assert_int_equal(limits_parse_cpu("max 100000"), 0);
    assert_int_equal(limits_parse_cpu("-1 100000"), 0);
    assert_int_equal(limits_parse_cpu("5 0"), 0);
    assert_int_equal(limits_parse_cpu("5"), 0);
    assert_int_equal(limits_parse_cpu(""), 0);
    assert_true(limits_memory() > 0);
}

/* Two workers of a model, the larger of 30, and a gateway that maps most of what is shared. */
static void test_memory_for_one_more(void **state)
{
    (void)state;
    const struct scaler_footprint processes[] = {{.own = 30, .shared = 50, .is_alike = true},
                                                 {.own = 20, .shared = 40, .is_alike = true},
                                                 {.own = 100, .shared = 60}};
    assert_true(scaler_memory_fits(processes, 3, 240));
    assert_false(scaler_memory_fits(processes, 3, 239));
    assert_true(scaler_memory_fits(processes, 3, UINT64_MAX));
    assert_true(scaler_memory_fits(processes + 2, 1, 160)); /* nobody tells what one takes */
}

static void test_watch(void **state)
{
    (void)state;
    const uint64_t s = 1000000000;
    struct watch watch;
    watch_begin(&watch, 100 * s);
    for (uint64_t at = 101; at <= 109; at++)
        watch_look(&watch, at * s, 5);
    /* The first look found another tick than 0; eight seconds of silence since then. */
    assert_int_equal(watch.silence_ns, 8 * s);
    assert_false(watch_is_hung(&watch, QUEUE_WORKER, 60 * s, false));
    assert_true(watch_is_hung(&watch, QUEUE_WORKER, 60 * s, true));
    assert_true(watch_is_hung(&watch, QUEUE_WORKER, 1, false));
    assert_false(watch_is_hung(&watch, QUEUE_GATEWAY, 0, false));
    watch_look(&watch, 111 * s, 5);
    watch_look(&watch, 112 * s, 5);
    assert_true(watch_is_hung(&watch, QUEUE_WORKER, 60 * s, false));
    assert_true(watch_is_hung(&watch, QUEUE_GATEWAY, 0, false));
    watch_look(&watch, 113 * s, 6); /* progress */
    assert_false(watch_is_hung(&watch, QUEUE_WORKER, 1, true));
    watch_look(&watch, 116 * s, 6);
    assert_false(watch_is_hung(&watch, QUEUE_WORKER, 1, true)); /* however small its limit */
    /* The whole machine stood still for an hour: that adds one step. */
    watch_begin(&watch, 100 * s);
    watch_look(&watch, 3700 * s, 0);
    assert_int_equal(watch.silence_ns, WATCH_STEP_NS);
    watch_look(&watch, 3600 * s, 0); /* and a clock that goes back adds nothing */
    assert_int_equal(watch.silence_ns, WATCH_STEP_NS);
}

static void test_watch_stopped(void **state)
{
    (void)state;
    pid_t child = fork();
    if (child == 0) {
        for (;;)
            pause();
    }
    assert_true(child > 0);
    assert_false(watch_is_stopped(child));
    int status = 0;
    kill(child, SIGSTOP);
    assert_int_equal(waitpid(child, &status, WUNTRACED), child);
    assert_true(WIFSTOPPED(status));
    assert_true(watch_is_stopped(child));
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_false(watch_is_stopped(child));
}

/* ---- command line ---- */

static int parse(struct options *options, char *error, const char *const *words)
{
    char *arguments[20] = {(char *)(uintptr_t) "unetserve"};
    int count = 1;
    for (; words[count - 1]; count++)
        arguments[count] = (char *)(uintptr_t)words[count - 1];
    return options_parse(count, arguments, options, error, 600);
}

#define PARSE(...) parse(&options, error, (const char *const[]){__VA_ARGS__, NULL})

static void test_options(void **state)
{
    (void)state;
    static struct config config;
    struct options options;
    struct config_error config_error = {""};
    char error[600];
    assert_int_equal(PARSE("--model", "a=x", "--model", "b=y", "--listen", "127.0.0.1:0",
                           "--listen", "[::1]:9", "--workers", "2-3", "--gateways=2"),
                     0);
    assert_int_equal(options_apply(&options, &config, &config_error), 0);
    assert_int_equal(config.model_count, 2);
    assert_int_equal(config.models[1].workers_max, 3);
    assert_int_equal(config.listen_count, 2);
    assert_int_equal(config.gateways, 2);
    assert_int_equal(PARSE("--model"), -EINVAL);
    assert_non_null(strstr(error, "--model"));
    assert_int_equal(PARSE("--nonsense"), -EINVAL);
    assert_int_equal(PARSE("x"), -EINVAL);
    assert_int_equal(PARSE("--check", "--model", "x", "--device", "tpu"), 0);
    assert_true(options.check);
    assert_int_equal(options_apply(&options, &config, &config_error), -EDOM);
    assert_int_equal(strncmp(config_error.text, "--device: ", 10), 0);
    assert_int_equal(PARSE("-c", "/nowhere/at/all"), 0);
    assert_int_equal(options_apply(&options, &config, &config_error), -ENOENT);
    assert_int_equal(PARSE("--check"), 0);
    assert_int_equal(options_apply(&options, &config, &config_error), -EDOM);
}

/* ---- run directory and sockets ---- */

static void test_run_dir(void **state)
{
    (void)state;
    char home[] = "/tmp/test_run-XXXXXX";
    char error[512];
    struct run_dir first, second, named;
    struct stat status;
    assert_non_null(mkdtemp(home));
    setenv("XDG_RUNTIME_DIR", home, 1);
    assert_int_equal(run_dir_open("", "8000", &first, error, sizeof error), 0);
    assert_int_equal(run_dir_open("", "8000", &second, error, sizeof error), 0);
    assert_string_not_equal(first.path, second.path); /* the same port on another address */
    assert_int_equal(run_dir_open(first.path, "x", &named, error, sizeof error), -EBUSY);
    assert_non_null(strstr(error, first.path));
    assert_int_equal(stat(first.path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0700);
    run_dir_remove(&first);
    assert_int_not_equal(stat(first.path, &status), 0);
    run_dir_remove(&second);
    char root[100];
    snprintf(root, sizeof root, "%s/unetserve", home);
    assert_int_not_equal(stat(root, &status), 0);
    /* A directory that others may write to is no place for sockets; nor is somebody's file. */
    assert_int_equal(mkdir(root, 0700), 0);
    assert_int_equal(chmod(root, 0777), 0);
    assert_int_equal(run_dir_open("", "1", &first, error, sizeof error), -EPERM);
    assert_int_equal(run_dir_open(root, "1", &first, error, sizeof error), -EPERM);
    assert_int_equal(chmod(root, 0700), 0);
    /* A named directory that was there stays, without what was put into it. */
    assert_int_equal(run_dir_open(root, "1", &first, error, sizeof error), 0);
    run_dir_remove(&first);
    assert_int_equal(rmdir(root), 0);
    assert_int_equal(rmdir(home), 0);
    char deep[120];
    snprintf(deep, sizeof deep, "/tmp/%0100d", 1);
    setenv("XDG_RUNTIME_DIR", deep, 1);
    assert_int_equal(run_dir_open("", "1", &first, error, sizeof error), -ENAMETOOLONG);
}

static void test_listeners(void **state)
{
    (void)state;
    static struct config config;
    struct config_error config_error = {""};
    static struct listeners listeners, others;
    static struct passed nothing;
    char error[512];
    config_init(&config);
    assert_int_equal(config_set(&config, "server", "listen", "127.0.0.1:0", &config_error), 0);
    config.gateways = 3;
    assert_int_equal(listeners_open(&config, &nothing, &listeners, error, sizeof error), 0);
    assert_string_not_equal(config.listen[0], "127.0.0.1:0");
    assert_int_not_equal(listeners.fds[0][0], listeners.fds[2][0]);
    /* The same address again, with sockets that would share: refused all the same. */
    assert_int_equal(listeners_open(&config, &nothing, &others, error, sizeof error), -EADDRINUSE);
    assert_non_null(strstr(error, config.listen[0]));
    listeners_close(&listeners);
    assert_int_equal(listeners_open(&config, &nothing, &listeners, error, sizeof error), 0);
    listeners_close(&listeners);
}

/* ---- spawn ---- */

static int spawn_and_read(const char *script, const struct spawn_fd *fds, size_t count, int output,
                          char *text, size_t size)
{
    const char *arguments[] = {"sh", "-c", script, NULL};
    static const char *const extra[] = {"GREETING=hello", NULL};
    char **environment = spawn_environment(false, extra);
    struct spawn spawn = {.path = "/bin/sh",
                          .arguments = (char *const *)(uintptr_t)arguments,
                          .environment = environment,
                          .fds = fds,
                          .fd_count = count,
                          .die_with_parent = true};
    pid_t pid;
    int pidfd;
    siginfo_t end = {0};
    assert_int_equal(spawn_process(&spawn, &pid, &pidfd), 0);
    free(environment);
    assert_int_equal(waitid(P_PIDFD, (id_t)pidfd, &end, WEXITED), 0);
    close(pidfd);
    ssize_t got = read(output, text, size - 1);
    text[got > 0 ? got : 0] = '\0';
    return end.si_status;
}

/* Sources that lie on each other's targets all arrive, and nothing else does. */
static void test_spawn_fds(void **state)
{
    (void)state;
    int a[2], b[2], out[2];
    char text[256];
    assert_int_equal(pipe(a), 0);
    assert_int_equal(pipe(b), 0);
    assert_int_equal(pipe(out), 0);
    assert_int_equal(write(a[1], "a\n", 2), 2);
    assert_int_equal(write(b[1], "b\n", 2), 2);
    /* Each on the other's number. */
    struct spawn_fd fds[] = {{a[0], b[0]}, {b[0], a[0]}, {out[1], 1}};
    char script[200];
    snprintf(script, sizeof script,
             "read x <&%d; read y <&%d; echo $x $y $GREETING; ls /proc/self/fd | wc -l", a[0],
             b[0]);
    assert_int_equal(spawn_and_read(script, fds, 3, out[0], text, sizeof text), 0);
    int open_fds = 0;
    char first[64] = "";
    assert_int_equal(sscanf(text, "%63[^\n] %d", first, &open_fds), 2);
    assert_string_equal(first, "b a hello");
    assert_int_equal(open_fds, 6); /* 0, 1, 2, the two, and the directory itself */
    for (int i = 0; i < 2; i++) {
        close(a[i]);
        close(b[i]);
        close(out[i]);
    }
}

static void test_environment(void **state)
{
    (void)state;
    setenv("UNETSERVE_API_KEY", "secret", 1);
    setenv("NOTIFY_SOCKET", "/x", 1);
    setenv("KEPT", "1", 1);
    static const char *const extra[] = {"KEPT=2", NULL};
    for (int with_key = 0; with_key < 2; with_key++) {
        int keys = 0, kept = 0;
        char **list = spawn_environment(with_key, extra);
        for (char **entry = list; *entry; entry++) {
            keys += strcmp(*entry, "UNETSERVE_API_KEY=secret") == 0;
            kept += strncmp(*entry, "KEPT=", 5) == 0;
            assert_int_not_equal(strncmp(*entry, "NOTIFY_SOCKET=", 14), 0);
            if (strncmp(*entry, "KEPT=", 5) == 0)
                assert_string_equal(*entry, "KEPT=2");
        }
        assert_int_equal(keys, with_key);
        assert_int_equal(kept, 1);
        free(list);
    }
    unsetenv("UNETSERVE_API_KEY");
    unsetenv("NOTIFY_SOCKET");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tree_edges),
        cmocka_unit_test(test_tree_delays),
        cmocka_unit_test(test_geometry_usual),
        cmocka_unit_test(test_geometry_documents),
        cmocka_unit_test(test_geometry_small_bodies),
        cmocka_unit_test(test_geometry_many_models),
        cmocka_unit_test(test_geometry_long_answers),
        cmocka_unit_test(test_geometry_too_little),
        cmocka_unit_test(test_cores_divided),
        cmocka_unit_test(test_cores_near_a_gpu),
        cmocka_unit_test(test_cores_text),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_memory_for_one_more),
        cmocka_unit_test(test_watch),
        cmocka_unit_test(test_watch_stopped),
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_run_dir),
        cmocka_unit_test(test_listeners),
        cmocka_unit_test(test_spawn_fds),
        cmocka_unit_test(test_environment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
