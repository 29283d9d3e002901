/*
 * Every allocation and every call that makes a descriptor fails once, in turn, and then all from
 * there on: whatever of ours was at work must return an error or do without, leave its results
 * alone, leak nothing, and work again afterwards. The linker's --wrap puts the functions below
 * under everything that is linked in statically, which is all of our own code and none of the
 * libraries'; jansson takes its memory from here too, because it can be told to. Leaks of memory
 * are LeakSanitizer's to find (make SANITIZER=address unit), those of descriptors are counted.
 */
#include "auth/fetch.h"
#include "auth/jwks.h"
#include "auth/keep.h"
#include "broker/survey.h"
#include "gateway/api_key.h"
#include "gateway/compress.h"
#include "gateway/connection.h"
#include "gateway/decoding.h"
#include "gateway/docs_page.h"
#include "gateway/jobs.h"
#include "gateway/metrics.h"
#include "gateway/oauth.h"
#include "gateway/openapi.h"
#include "gateway/outcome.h"
#include "gateway/pages.h"
#include "goldens.h"
#include "lib/gpu_list.h"
#include "supervisor/client_program.h"
#include "supervisor/listeners.h"
#include "supervisor/run_dir.h"
#include "supervisor/spawn.h"
#include "tests/amx/amx_model.h"
#include "tests/image_interface.h"
#include "workers/backends/backend.h"
#include "workers/images/images.h"
#include "workers/models/unet/family.h"
#include "workers/models/unet/model_dir.h"
#include "workers/models/unet/pickle.h"
#include "workers/models/unet/quantise_file.h"

#include "unetserve/interface_text.h"
#include "unetserve/mask_writer.h"
#include "unetserve/protocol.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- calls that fail ---- */

static struct {
    bool armed, all;
    long countdown; /* calls that still succeed */
    unsigned failed;
} fault;

static bool fails(int error)
{
    if (!fault.armed || fault.countdown-- > 0)
        return false;
    fault.armed = fault.all;
    fault.countdown = 0;
    fault.failed++;
    errno = error;
    return true;
}

/* The real function, and its stand-in that may fail. */
#define WRAP(type, name, failure, error, parameters, arguments)                                    \
    type __real_##name parameters;                                                                 \
    type __wrap_##name parameters;                                                                 \
    type __wrap_##name parameters                                                                  \
    {                                                                                              \
        return fails(error) ? failure : __real_##name arguments;                                   \
    }

WRAP(void *, malloc, NULL, ENOMEM, (size_t size), (size))
WRAP(void *, calloc, NULL, ENOMEM, (size_t count, size_t size), (count, size))
WRAP(void *, realloc, NULL, ENOMEM, (void *old, size_t size), (old, size))
WRAP(void *, reallocarray, NULL, ENOMEM, (void *old, size_t count, size_t size), (old, count, size))
WRAP(void *, aligned_alloc, NULL, ENOMEM, (size_t align, size_t size), (align, size))
WRAP(char *, strdup, NULL, ENOMEM, (const char *text), (text))
WRAP(char *, strndup, NULL, ENOMEM, (const char *text, size_t size), (text, size))
WRAP(FILE *, open_memstream, NULL, ENOMEM, (char **text, size_t *size), (text, size))
WRAP(FILE *, fmemopen, NULL, ENOMEM, (void *text, size_t size, const char *mode),
     (text, size, mode))
WRAP(void *, mmap, MAP_FAILED, ENOMEM,
     (void *at, size_t size, int protection, int flags, int fd, off_t offset),
     (at, size, protection, flags, fd, offset))
WRAP(int, memfd_create, -1, EMFILE, (const char *name, unsigned flags), (name, flags))
WRAP(int, socket, -1, EMFILE, (int domain, int type, int protocol), (domain, type, protocol))
WRAP(int, eventfd, -1, EMFILE, (unsigned value, int flags), (value, flags))
WRAP(int, pipe2, -1, EMFILE, (int fds[2], int flags), (fds, flags))
WRAP(int, open, -1, ENFILE, (const char *path, int flags, mode_t mode), (path, flags, mode))
WRAP(FILE *, fopen, NULL, EMFILE, (const char *path, const char *mode), (path, mode))
WRAP(DIR *, opendir, NULL, EMFILE, (const char *path), (path))
WRAP(int, dup, -1, EMFILE, (int fd), (fd))

/* ---- running something until nothing fails any more ---- */

#define ENDLESS 20000

/* 0: it worked, and what came of it was looked at; negative: it said that it had not. */
typedef int attempt(void);

static unsigned open_fds(void)
{
    unsigned count = 0;
    DIR *directory = opendir("/proc/self/fd");
    assert_non_null(directory);
    while (readdir(directory))
        count++;
    closedir(directory);
    return count;
}

static unsigned try_from(attempt *try, long call, bool all, int *result)
{
    fault.failed = 0;
    fault.countdown = call;
    fault.all = all;
    fault.armed = true;
    *result = try();
    fault.armed = false;
    return fault.failed;
}

/* at_least: calls that it is known to make; a test that wraps nothing would pass silently. */
static void survive(const char *name, attempt *try, long at_least)
{
    for (int all = 0; all < 2; all++) {
        unsigned fds = open_fds(), refused = 0;
        int result = 0;
        long call = 0;
        assert_int_equal(try(), 0);
        while (try_from(try, call, all != 0, &result) > 0) {
            refused += result < 0;
            assert_int_equal(open_fds(), fds);
            assert_true(++call < ENDLESS);
        }
        assert_int_equal(result, 0);
        assert_true(call >= at_least);
        print_message("%s: %ld calls failed%s, %u refusals\n", name, call,
                      all ? " and all after them" : " one at a time", refused);
    }
}

static void *read_file(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    long length = ftell(file);
    assert_true(length > 0);
    rewind(file);
    void *data = malloc((size_t)length);
    assert_non_null(data);
    assert_int_equal(fread(data, 1, (size_t)length, file), length);
    fclose(file);
    *size = (size_t)length;
    return data;
}

/* ---- texts ---- */

static const struct unetserve_interface unet = {
    .name = "unet",
    IMAGE_INTERFACE,
    .channels = 2,
    .size_min = 1,
    .size_max = 64,
    .tile = 16,
    .max_batch = 4,
    .class_count = 2,
    .classes = {{.name = "Water", .code = 10, .rgb = {0, 0, 255}},
                {.name = "caf\xe9", .code = 20, .rgb = {1, 2, 3}}},
    .request_field_count = 1,
    .request_fields = {{.name = "a", .type = UNETSERVE_STR, .optional = 1, .fallback_text = "b"}},
    .response_field_count = 1,
    .response_fields = {{.name = "c", .type = UNETSERVE_FLOAT, .depth = 1, .or_bare = 1}},
};

static const struct unetserve_interface told_by_schema = {
    .name = "told",
    .input_kind = UNETSERVE_DOCUMENT,
    .output_kind = UNETSERVE_DOCUMENT,
    .max_batch = 1,
    .request_schema = "{\"type\":\"object\",\"examples\":[{\"a\":[1,2]}]}",
    .response_schema = "{\"type\":\"array\"}",
};

static int try_interface(void)
{
    static struct unetserve_interface again, none;
    again = none;
    char *text = interface_to_json(&unet);
    if (!text)
        return -ENOMEM;
    int error = interface_from_json(text, strlen(text), &again);
    if (error)
        assert_memory_equal(&again, &none, sizeof again);
    else
        assert_int_equal(again.class_count, unet.class_count);
    if (!error)
        assert_string_equal(again.classes[1].name, "caf?");
    free(text);
    return error;
}

static int try_gpu_list(void)
{
    static struct gpu_list list, again;
    list = (struct gpu_list){
        .count = 2,
        .driver = "580",
        .entries = {{.uuid = "GPU-0", .index = "0", .name = "one", .node = 1, .cpus = {7}},
                    {.uuid = "GPU-1", .index = "1", .name = "two", .node = -1}}};
    char *text = gpu_list_to_json(&list);
    if (!text)
        return -ENOMEM;
    again.count = 0;
    int error = gpu_list_from_json(text, strlen(text), &again);
    assert_int_equal(again.count, error ? 0 : 2);
    if (!error)
        assert_memory_equal(again.entries, list.entries, sizeof list.entries);
    free(text);
    return error;
}

static const char configuration[] =
    "[server]\nlisten = 127.0.0.1:80\nlisten = unix:/x\ntrusted_proxies = 10.0.0.0/8, ::1\n"
    "[model a]\npath = /a\n[model b]\npath = /b\ndevices = 0,1\n";

static int try_config(void)
{
    static struct config config, before;
    static char text[1 << 16];
    struct config_error error;
    config_init(&config);
    before = config;
    int failed = config_parse(configuration, sizeof configuration - 1, "x", &config, &error);
    if (failed) {
        assert_memory_equal(&config, &before, sizeof config);
        assert_true(error.text[0]);
        return failed;
    }
    assert_int_equal(config.model_count, 2);
    assert_int_equal(config.listen_count, 2);
    long length = config_write(&config, text, sizeof text);
    return length < 0 ? (int)length : 0;
}

static int try_config_file(void)
{
    static struct config config;
    struct config_error error;
    config_init(&config);
    return config_load("packaging/systemd/unetserve.conf", &config, &error);
}

static int try_keys(void)
{
    static struct api_keys keys;
    char text[256] = "";
    int error = api_keys_load(&keys, "one", "tests/fuzz/corpus/api_keys/two", text, sizeof text);
    assert_true(!error || text[0]);
    if (!error)
        assert_int_equal(keys.count, 3);
    return error;
}

static struct {
    char *data;
    size_t size;
} ranges_text;

static int try_quantise_file(void)
{
    struct quantise_file file;
    char error[512] = "";
    int failed = quantise_file_parse(ranges_text.data, ranges_text.size, &file, error,
                                     sizeof error);
    assert_int_not_equal(failed, -EBADMSG); /* it is good */
    if (!failed)
        quantise_file_free(&file);
    return failed;
}

static int try_model_dir(void)
{
    static struct model_dir loaded;
    char error[512] = "";
    int failed = model_dir_load("packaging/models/s2-worldcover", &loaded, error, sizeof error);
    assert_true(!failed || error[0]);
    assert_int_not_equal(failed, -EBADMSG);
    return failed;
}

static int try_form(void)
{
    static const struct unetserve_interface documents = {.input_kind = UNETSERVE_DOCUMENT};
    static char room[64];
    struct unetserve_shape shape;
    struct body_reader reader;
    struct problem problem;
    size_t bytes;
    assert_int_equal(body_reader_init(&reader, &documents, BODY_URLENCODED, NULL, room, sizeof room,
                                      NULL, NULL, &problem),
                     0);
    if (body_reader_begin_form(&reader, NULL, &problem))
        return problem.status == 503 ? -ENOMEM : 0;
    assert_int_equal(body_reader_feed(&reader, "a=b", 3, &problem), 0);
    assert_int_equal(body_reader_finish(&reader, &shape, &bytes, &problem), 0);
    body_reader_close(&reader);
    return 0;
}

static bool go_on(void *opaque)
{
    (void)opaque;
    return true;
}

static struct {
    void *bytes;
    size_t size;
} image;

static int try_image(void)
{
    static char pixels[1 << 16];
    struct unetserve_shape shape;
    struct problem problem;
    enum image_file kind = image_file_kind(image.bytes);
    int error = image_file_shape(kind, image.bytes, image.size, &shape, &problem);
    struct images_order order = {kind, image.bytes, image.size, &shape, go_on, NULL};
    return error ? error : unetserve_images()->expand(&order, pixels, &problem);
}

static void test_images(void **state)
{
    (void)state;
    static const char *const paths[] = {"tests/fuzz/corpus/images/u16-plain",
                                        "tests/fuzz/corpus/images/f32-deflate-pred",
                                        "tests/fuzz/corpus/images/png-rgb8"};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        image.bytes = read_file(paths[i], &image.size);
        survive(paths[i], try_image, 1);
        free(image.bytes);
    }
}

static int try_decoder(void)
{
    for (enum body_coding coding = BODY_GZIP; coding <= BODY_ZSTD; coding++) {
        struct decoder *decoder = decoder_open(coding, 1000);
        if (!decoder)
            return -ENOMEM;
        decoder_close(decoder);
    }
    return 0;
}

/* What could not be written whole is not there. */
static int try_client_file(void)
{
    static struct config config;
    static struct unetserve_interface interface;
    char path[64];
    snprintf(path, sizeof path, "/tmp/test_failing_calls.%ld.py", (long)getpid());
    config.model_count = 1;
    config.listen_count = 1;
    snprintf(config.listen[0], sizeof config.listen[0], "0.0.0.0:8000");
    snprintf(config.models[0].route, sizeof config.models[0].route, "/predict");
    interface.input_kind = interface.output_kind = UNETSERVE_DOCUMENT;
    interface.max_batch = 1;
    int rc = client_program_write(path, &config, &interface);
    assert_int_equal(access(path, F_OK) == 0, rc == 0);
    unlink(path);
    return rc;
}

static int try_compressor(void)
{
    char body[] = "[1,1,1,1]";
    char out[128];
    struct compressor *compressor = compressor_open(CODING_ZSTD, body, sizeof body);
    if (!compressor)
        return -ENOMEM;
    ssize_t made = compressor_read(compressor, out, sizeof out);
    compressor_close(compressor, true);
    return made > 0 ? 0 : -EIO;
}

static void test_texts(void **state)
{
    (void)state;
    survive("interface", try_interface, 20);
    survive("GPUs", try_gpu_list, 20);
    survive("configuration", try_config, 2);
    survive("configuration file", try_config_file, 3);
    static struct config defaults;
    config_init(&defaults);
    compress_configure(&defaults);
    survive("compressor", try_compressor, 1);
    survive("client file", try_client_file, 3);
    survive("decoder", try_decoder, 3);
    survive("form", try_form, 1);
    survive("API keys", try_keys, 1);
    survive("model directory", try_model_dir, 4);
    ranges_text.data = read_file("tests/fuzz/corpus/quantise_file/channels", &ranges_text.size);
    survive("ranges", try_quantise_file, 4);
    free(ranges_text.data);
}

/* ---- masks ---- */

static int encode(enum mask_format format)
{
    static const uint8_t labels[64 * 64] = {1, 0, 1};
    static const struct unetserve_shape shape = {UNETSERVE_U8, 2, {64, 64}};
    void *out;
    size_t size;
    int error = mask_encode(format, &unet, &shape, labels, &out, &size);
    if (error)
        return error;
    assert_true(size > 64);
    free(out);
    return 0;
}

static int try_mask_json(void)
{
    return encode(MASK_JSON);
}

static int try_mask_npy(void)
{
    return encode(MASK_NPY);
}

static int try_mask_png(void)
{
    return encode(MASK_PNG);
}

static void test_masks(void **state)
{
    (void)state;
    survive("mask as JSON", try_mask_json, 1);
    survive("mask as npy", try_mask_npy, 1);
    survive("mask as PNG", try_mask_png, 3);
}

/* ---- weights ---- */

static const char *weights_path;

static int try_weights(void)
{
    char error[2048] = "";
    struct weights weights;
    int failed = weights_open(weights_path, &weights, error, sizeof error);
    assert_true(!failed || error[0]);
    /* What is wrong with the data stays wrong: for such a worker the supervisor gives up. */
    assert_int_not_equal(failed, -EBADMSG);
    if (failed)
        return failed;
    assert_true(weights.count > 0);
    weights_close(&weights);
    return 0;
}

static struct {
    void *data;
    size_t size;
} pickled;

static int try_pickle(void)
{
    char error[512] = "";
    void *memory = NULL;
    const struct pickle_value *root = NULL;
    int failed = pickle_parse(pickled.data, pickled.size, &memory, &root, error, sizeof error);
    assert_int_not_equal(failed, -EBADMSG);
    if (failed)
        return failed;
    assert_non_null(root);
    pickle_free(memory);
    return 0;
}

static int try_family(void)
{
    char report[4096] = "";
    struct weights weights;
    struct network network;
    int failed = weights_open(weights_path, &weights, report, sizeof report);
    if (failed)
        return failed;
    failed = family_build(&weights, NULL, &network, report, sizeof report);
    assert_int_not_equal(failed, -EBADMSG);
    if (!failed)
        network_free(&network);
    weights_close(&weights);
    return failed;
}

static struct network built;
static const struct backend *backend;
static struct backend_options how = {.threads = 1, .preprocess = {.scale = 1}};

/* AMX's tiles in software, wherever this runs. */
const struct amx_kernels *amx_kernels_here(char *error, size_t error_size)
{
    (void)error;
    (void)error_size;
    return &amx_modelled;
}

static int try_backend(void)
{
    static uint8_t tile[16 * 32 * 32], labels[32 * 32];
    const void *input = tile;
    uint8_t *label = labels;
    const struct backend_batch batch = {.count = 1,
                                        .dtype = UNETSERVE_U8,
                                        .height = 32,
                                        .width = 32,
                                        .inputs = &input,
                                        .labels = &label};
    char error[512] = "";
    void *instance = NULL;
    int failed = backend->create(&built, &how, &instance, error, sizeof error);
    if (failed)
        return failed;
    failed = backend->forward(instance, &batch);
    backend->destroy(instance);
    return failed;
}

static void test_weights(void **state)
{
    (void)state;
    static const char *const paths[] = {GOLDENS "cbr.safetensors", GOLDENS "cbr_compiled.pth",
                                        GOLDENS "milesial_checkpoint.pth"};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        weights_path = paths[i];
        survive(paths[i], try_weights, 4);
        survive("its family", try_family, 10);
    }
    pickled.data = read_file("tests/fuzz/corpus/pickle/checkpoint", &pickled.size);
    survive("pickle", try_pickle, 2);
    free(pickled.data);
}

static void test_backends(void **state)
{
    (void)state;
    char report[4096];
    struct weights weights;
    assert_int_equal(weights_open(GOLDENS "plain.safetensors", &weights, report, sizeof report), 0);
    assert_int_equal(family_build(&weights, NULL, &built, report, sizeof report), 0);
    assert_true(built.in_channels <= 16);
    struct quantise_range layers[64] = {{0}};
    struct quantise_ranges ranges = {.layer_count = built.layer_count, .layers = layers};
    assert_true(built.layer_count <= 64);
    for (size_t i = 0; i < built.layer_count; i++)
        layers[i] = (struct quantise_range){.low = -1, .high = 1, .known = true};
    for (const struct backend *const *at = backend_list(); *at; at++) {
        backend = *at;
        bool exact = !backend->suits || backend->suits(&built, "f32");
        how.precision = exact ? "f32" : "bf16";
        how.ranges = NULL;
        if (backend->probe(report, sizeof report) == 0)
            survive(backend->name, try_backend, 4);
        how.precision = "int8";
        how.ranges = &ranges;
        if (try_backend() == 0) /* it has int8, and so has this processor */
            survive("int8", try_backend, 4);
    }
    network_free(&built);
    weights_close(&weights);
}

/* ---- the queue, the gateway, the broker ---- */

static struct {
    struct seat seat;
    struct config config;
    struct models models;
    struct jobs jobs;
    struct job_outcome outcome;
    unsigned answers;
} bench;

static int try_queue(void)
{
    const struct queue_geometry geometry = {
        .class_count = 1,
        .model_count = 1,
        .classes = {{.input_bytes = 4096, .output_bytes = 4096, .count = 2}}};
    struct queue queue, again;
    int error = queue_create(&geometry, &queue);
    if (error)
        return error;
    int fds[] = {dup(queue.fd), dup(queue.inputs_fd), dup(queue.outputs_fd)};
    error = queue_attach(fds[0], fds[1], fds[2], &again);
    if (!error)
        queue_close(&again);
    for (size_t i = 0; error && i < 3; i++)
        close(fds[i]);
    queue_close(&queue);
    return error;
}

static void no_baton(void *opaque, const struct wire_baton *baton)
{
    (void)opaque, (void)baton;
}

static void take_answer(void *opaque, const struct job_outcome *outcome)
{
    (void)opaque;
    bench.outcome = *outcome;
    bench.answers++;
}

static void bench_open(void)
{
    static const struct queue_geometry geometry = {
        .class_count = 1,
        .model_count = 2,
        .classes = {{.input_bytes = 4096, .output_bytes = 4096, .count = 2}}};
    memset(&bench, 0, sizeof bench);
    uint16_t worker;
    assert_int_equal(queue_create(&geometry, &bench.seat.queue), 0);
    assert_int_equal(queue_process_enter(&bench.seat.queue, QUEUE_GATEWAY, 0, &bench.seat.index),
                     0);
    assert_int_equal(queue_process_enter(&bench.seat.queue, QUEUE_WORKER, 1, &worker), 0);
    bench.seat.role = QUEUE_GATEWAY;
    bench.seat.event_fd = -1;
    config_init(&bench.config);
    bench.config.model_count = 2;
    bench.config.models[0] = (struct config_model){
        .name = "unet", .route = "/unet", .devices = "0,1", .timeout_ms = 9000};
    bench.config.models[1] = (struct config_model){
        .name = "told", .route = "/told", .devices = "0", .timeout_ms = 9000};
    assert_int_equal(queue_model_publish(&bench.seat.queue, 0, 1, worker, &unet), 0);
    assert_int_equal(queue_model_publish(&bench.seat.queue, 1, 1, worker, &told_by_schema), 0);
    models_init(&bench.models, &bench.seat.queue, &bench.config);
    jobs_init(&bench.jobs, &bench.seat, &bench.config, no_baton, NULL);
}

static void bench_close(void)
{
    models_close(&bench.models);
    queue_close(&bench.seat.queue);
}

/* A page is the same as ever or is not there: nothing is left out of it. */
static int page_is(char *page, char *usual, size_t size)
{
    if (!page)
        return -ENOMEM;
    if (!usual[0])
        snprintf(usual, size, "%s", page);
    assert_string_equal(page, usual);
    free(page);
    return 0;
}

static int try_info(void)
{
    static char usual[4096];
    return page_is(pages_info(&bench.models), usual, sizeof usual);
}

static int try_openapi(void)
{
    static char usual[65536];
    return page_is(openapi_make(&bench.models, true), usual, sizeof usual);
}

static int try_docs(void)
{
    char policy[256];
    char *page = docs_page(policy, sizeof policy);
    if (!page)
        return -ENOMEM;
    assert_non_null(strstr(page, "</html>"));
    free(page);
    return 0;
}

static int try_status(void)
{
    static char usual[16384];
    return page_is(pages_status(&bench.models), usual, sizeof usual);
}

static int try_metrics(void)
{
    static char usual[65536];
    size_t size;
    return page_is(metrics_page(&bench.models, &size), usual, sizeof usual);
}

static void expect_all_free(void)
{
    for (uint32_t i = 0; i < bench.seat.queue.slot_count; i++)
        assert_int_equal(queue_word_state(queue_word(&bench.seat.queue, i)), QUEUE_FREE);
    assert_int_equal(bench.jobs.waiting_count, 0);
    assert_int_equal(bench.jobs.receiving_count, 0);
}

static int run_job(struct model_view *view)
{
    static const unsigned char pixels[2 * 16 * 16 * 2];
    static const struct unetserve_shape shape = {UNETSERVE_U16, 3, {2, 16, 16}};
    const struct job_order order = {.view = view,
                                    .format = BODY_RAW,
                                    .shape = &shape,
                                    .body_bytes = sizeof pixels,
                                    .form = JOB_PNG,
                                    .request_id = "one",
                                    .begun_ns = queue_now_ns()};
    struct problem problem = {0};
    struct job *job;
    spare_free(&bench.jobs.spare); /* of the last try: so malloc is asked */
    if (job_open(&bench.jobs, &order, take_answer, NULL, &problem, &job)) {
        assert_int_equal(problem.status, 503);
        return -ENOMEM;
    }
    assert_int_equal(job_feed(job, pixels, sizeof pixels, &problem), 0);
    assert_int_equal(job_submit(job, &problem), 0);
    struct queue *queue = &bench.seat.queue;
    uint32_t slot = queue_word_state(queue_word(queue, 0)) == QUEUE_READY ? 0 : 1;
    uint64_t word = queue_word(queue, slot);
    assert_true(queue_move(queue, QUEUE_BROKER, slot, word, QUEUE_LEASED, 2, &word));
    assert_true(queue_move(queue, QUEUE_WORKER, slot, word, QUEUE_RUN, 2, &word));
    queue->slots[slot].status = 200;
    queue->slots[slot].output_bytes = 256;
    queue->slots[slot].output_shape = (struct unetserve_shape){UNETSERVE_U8, 2, {16, 16}};
    assert_true(queue_move(queue, QUEUE_WORKER, slot, word, QUEUE_DONE, 0, NULL));
    jobs_collect(&bench.jobs);
    return 0;
}

/* Accepted is answered: with the mask, or with a 503 that may have lost its sentence. */
static int try_job(void)
{
    struct model_view *view = models_view(&bench.models, 0);
    bench.answers = 0;
    int error = view ? run_job(view) : -ENOMEM;
    assert_int_equal(bench.answers, error ? 0 : 1);
    if (bench.answers)
        assert_true(bench.outcome.status == 200 || bench.outcome.status == 503);
    error = error || bench.outcome.status != 200 ? -ENOMEM : 0;
    if (bench.answers)
        free(bench.outcome.body);
    expect_all_free();
    if (view)
        model_view_drop(view);
    return error;
}

static int try_view(void)
{
    struct models models;
    models_init(&models, &bench.seat.queue, &bench.config);
    struct model_view *view = models_view(&models, 0);
    if (view)
        model_view_drop(view);
    models_close(&models);
    return view ? 0 : -ENOMEM;
}

static int try_survey(void)
{
    struct survey *survey = survey_create(&bench.seat.queue);
    if (!survey)
        return -ENOMEM;
    survey_look(survey, &bench.seat.queue, true);
    survey_free(survey);
    return 0;
}

static int try_connection(void)
{
    static struct connections connections;
    struct connection *connection = connection_open(&connections, 9);
    if (connection)
        connection_close(&connections, connection);
    assert_int_equal(connections.count, 0);
    assert_null(connection_find(9));
    return connection ? 0 : -ENOMEM;
}

static void test_serving(void **state)
{
    (void)state;
    survive("queue", try_queue, 3);
    bench_open();
    survive("/info", try_info, 10);
    survive("/openapi.json", try_openapi, 100);
    survive("/docs", try_docs, 1);
    survive("status", try_status, 20);
    survive("/metrics", try_metrics, 2);
    survive("model view", try_view, 1);
    survive("a job", try_job, 4);
    survive("survey", try_survey, 3);
    survive("connection", try_connection, 1);
    bench_close();
}

/* ---- the supervisor's ---- */

static int try_listeners(void)
{
    static struct config config;
    static struct listeners listeners;
    char error[256] = "";
    struct passed passed = {0};
    config_init(&config);
    config.gateways = 2;
    config.listen_count = 2;
    snprintf(config.listen[0], sizeof config.listen[0], "127.0.0.1:0");
    snprintf(config.listen[1], sizeof config.listen[1], "unix:/tmp/us-failing-%d", (int)getpid());
    int failed = listeners_open(&config, &passed, &listeners, error, sizeof error);
    assert_true(!failed || error[0]);
    if (!failed)
        listeners_close(&listeners);
    assert_int_not_equal(access(config.listen[1] + 5, F_OK), 0);
    return failed ? -1 : 0;
}

static int try_run_dir(void)
{
    static struct run_dir run_dir;
    char error[256] = "", path[64];
    snprintf(path, sizeof path, "/tmp/us-failing-dir-%d", (int)getpid());
    int failed = run_dir_open(path, "x", &run_dir, error, sizeof error);
    assert_true(!failed || error[0]);
    if (!failed)
        run_dir_remove(&run_dir);
    rmdir(path);
    return failed ? -1 : 0;
}

static int try_environment(void)
{
    static const char *const extra[] = {"A=b", NULL};
    char **list = spawn_environment(true, extra);
    free(list);
    return list ? 0 : -ENOMEM;
}

static void test_supervisor(void **state)
{
    (void)state;
    survive("listeners", try_listeners, 3);
    survive("run_dir", try_run_dir, 1);
    survive("environment", try_environment, 1);
}

/* ---- tokens ---- */

static int try_jwks(void)
{
    static const char set[] = "{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"kid\":\"e\","
                              "\"x\":\"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4\","
                              "\"y\":\"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM\"}]}";
    struct jwks keys;
    const char *why = NULL;
    int error = jwks_read(set, sizeof set - 1, &keys, &why);
    if (!error)
        jwks_free(&keys);
    return error;
}

static int try_keep(void)
{
    static const char set[] = "{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"kid\":\"e\","
                              "\"x\":\"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4\","
                              "\"y\":\"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM\"}]}";
    static struct keep_area area;
    struct jwks keys;
    uint64_t fetched_ns = 0;
    keep_store(&area, 1, set, sizeof set - 1, 5);
    int error = keep_read(&area, 1, 6, &keys, &fetched_ns);
    if (!error)
        jwks_free(&keys);
    return error;
}

static int try_fetch(void)
{
    struct fetcher fetcher;
    struct fetch *fetch;
    const struct fetch_order order = {
        .url = "http://127.0.0.1:1/", .form = "a=b", .most_bytes = 10};
    int error = fetcher_open(&fetcher, "", 100);
    if (!error)
        error = fetcher_begin(&fetcher, &order, &fetch);
    fetcher_close(&fetcher);
    return error;
}

static void never_told(void *opaque, const struct auth_answer *answer)
{
    (void)opaque, (void)answer;
    fail();
}

static int try_oauth(void)
{
    static struct oauth oauth;
    static struct config config;
    static const struct admission secret;
    static const struct client client = {.kind = CLIENT_IPV4};
    struct oauth_waiter waiter = {.told = never_told};
    sd_event *event = NULL;
    int ends[2];
    config_init(&config);
    snprintf(config.oauth.issuer, sizeof config.oauth.issuer, "https://id.example");
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    assert_int_equal(sd_event_new(&event), 0);
    int error = oauth_open(&oauth, event, ends[0], &config, &secret);
    if (!error)
        error = oauth_ask(&oauth, "token", 5, &client, &waiter);
    oauth_forget(&oauth, &waiter);
    oauth_close(&oauth);
    sd_event_unref(event);
    close(ends[0]);
    close(ends[1]);
    return error;
}

static void test_tokens(void **state)
{
    (void)state;
    survive("jwks", try_jwks, 1);
    survive("keep", try_keep, 1);
    survive("fetch", try_fetch, 1);
    survive("oauth", try_oauth, 2);
}

/* ---- what takes no memory at all ---- */

static int try_protocol(void)
{
    static const struct protocol_request request = {
        .op = PROTOCOL_PREDICT, .id = "a", .shape = {UNETSERVE_U16, 3, {1, 2, 3}}};
    struct protocol_request again;
    unsigned char bytes[PROTOCOL_HEAD_MAX];
    char error[160];
    long size = protocol_request_write(&request, bytes, sizeof bytes);
    return size < 0 ? -1 : protocol_request_read(bytes, (size_t)size, &again, error, sizeof error);
}

static int try_json_body(void)
{
    static const char body[] = "{\"image\": [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]}";
    static float values[8];
    struct body_reader reader;
    struct unetserve_shape shape;
    struct problem problem;
    size_t bytes;
    if (body_reader_init(&reader, &unet, BODY_JSON, NULL, values, sizeof values, NULL, NULL,
                         &problem))
        return -1;
    for (size_t i = 0; i < sizeof body - 1; i++)
        if (body_reader_feed(&reader, body + i, 1, &problem))
            return -1;
    return body_reader_finish(&reader, &shape, &bytes, &problem);
}

static void test_without_memory(void **state)
{
    (void)state;
    attempt *const tries[] = {try_protocol, try_json_body};
    for (size_t i = 0; i < sizeof tries / sizeof tries[0]; i++) {
        int result = -1;
        assert_int_equal(try_from(tries[i], 0, true, &result), 0);
        assert_int_equal(result, 0);
    }
}

int main(void)
{
    json_set_alloc_funcs(__wrap_malloc, free);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts),          cmocka_unit_test(test_masks),
        cmocka_unit_test(test_images),         cmocka_unit_test(test_weights),
        cmocka_unit_test(test_backends),       cmocka_unit_test(test_serving),
        cmocka_unit_test(test_supervisor),     cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
