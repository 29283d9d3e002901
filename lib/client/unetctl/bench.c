/*
 * unetctl bench: one tile again and again, and how long its answers took. The load generator is the
 * one of the project's own benchmarks; the answer to a first request says what all others must be.
 */
#include "bench/load/load.h"
#include "bench/load/report.h"
#include "command.h"
#include "http.h"
#include "image.h"
#include "refusal.h"
#include "unetserve/mask_writer.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

struct bench_options {
    const char *input;
    const char *url;
    struct load_settings load;
    bool json;
};

/* What is sent each time. */
struct question {
    const char *type;   /* Content-Type: ... */
    const char *accept; /* Accept: ... */
    char *body;
    size_t bytes;
};

static const char help_text[] =
    "usage: unetctl bench IN [OPTION]...\n"
    "\n"
    "Sends a tile to the unetserve of this machine again and again, compares each answer with the\n"
    "first one, and tells how many came and how long they took.\n"
    "\n"
    "  IN               .npy, any raster that GDAL reads, or a JSON document (.json)\n"
    "      --url URL    whom to ask (http://127.0.0.1:8000/predict); on this machine's loopback\n"
    "      --clients N  connections (1)\n"
    "      --rate R     R requests a second, whatever the answers do; their time counts from when\n"
    "                   they were due. Without it each connection asks as soon as it was answered\n"
    "      --seconds S  how long (5), at most 600\n"
    "      --timeout MS wait that long for the last answers (30000)\n"
    "      --json       print facts as JSON\n"
    "\n"
    "UNETSERVE_API_KEY in the environment is sent with each request.\n";

enum { OPTION_URL = 256, OPTION_CLIENTS, OPTION_RATE, OPTION_SECONDS, OPTION_TIMEOUT, OPTION_JSON };

static const struct option long_options[] = {
    {"url", required_argument, NULL, OPTION_URL},
    {"clients", required_argument, NULL, OPTION_CLIENTS},
    {"rate", required_argument, NULL, OPTION_RATE},
    {"seconds", required_argument, NULL, OPTION_SECONDS},
    {"timeout", required_argument, NULL, OPTION_TIMEOUT},
    {"json", no_argument, NULL, OPTION_JSON},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

/* ---- options ---- */

static int take_real(const char *name, double low, double high, double *out)
{
    char *end;
    double value = strtod(optarg, &end);
    if (end == optarg || *end || !(value >= low && value <= high))
        return command_fail(EX_USAGE, "--%s is '%s', expected %g to %g", name, optarg, low, high);
    *out = value;
    return -1;
}

/* -1: go on; else the exit code. */
static int take_option(struct bench_options *options, int option)
{
    int64_t number;
    switch (option) {
    case OPTION_URL: options->url = optarg; return -1;
    case OPTION_JSON: options->json = true; return -1;
    case OPTION_CLIENTS:
        if (!command_parse_number(optarg, 1, LOAD_CLIENTS_MAX, &number))
            return command_fail(EX_USAGE, "--clients is '%s', expected 1 to %d", optarg,
                                LOAD_CLIENTS_MAX);
        options->load.clients = (uint32_t)number;
        return -1;
    case OPTION_RATE: return take_real("rate", 1e-3, 1e7, &options->load.per_second);
    case OPTION_SECONDS: return take_real("seconds", 1e-3, 600, &options->load.seconds);
    case OPTION_TIMEOUT:
        if (!command_parse_number(optarg, 1, 600000, &number))
            return command_fail(EX_USAGE, "--timeout is '%s', expected 1 to 600000", optarg);
        options->load.timeout_s = (double)number / 1000;
        return -1;
    case 'h': fputs(help_text, stdout); return EX_OK;
    default: return command_bad_option(option);
    }
}

static int take_options(struct bench_options *options, int argc, char **argv)
{
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, ":h", long_options, NULL)) != -1) {
        int code = take_option(options, option);
        if (code >= 0)
            return code;
    }
    if (argc - optind != 1)
        return command_fail(EX_USAGE, "bench takes one tile, %d were given", argc - optind);
    options->input = argv[optind];
    return -1;
}

/* As http_open does: without a route it is /predict. */
static int parse_target(const char *url, struct target *out)
{
    int rc = target_parse(url, out);
    if (rc == -EACCES)
        return command_fail(EX_USAGE,
                            "'%s' is not on this machine's loopback, and bench asks "
                            "nobody else",
                            url);
    if (rc < 0)
        return command_fail(EX_USAGE, "'%s' is not of the form http://127.0.0.1:PORT[/ROUTE]", url);
    if (strcmp(out->path, "/") == 0)
        snprintf(out->path, sizeof out->path, "/predict");
    return -1;
}

/* ---- the question ---- */

static int read_document(const char *path, struct question *out)
{
    FILE *file = fopen(path, "rb");
    FILE *stream = open_memstream(&out->body, &out->bytes);
    char piece[65536];
    size_t got = 0;
    uint64_t sum = 0;
    int error = !stream ? ENOMEM : !file ? errno : 0;
    while (!error && (got = fread(piece, 1, sizeof piece, file)) > 0) {
        sum += got;
        fwrite(piece, 1, got, stream);
        error = sum > IMAGE_BYTES_MAX ? EFBIG : 0;
    }
    if (!error && ferror(file))
        error = errno;
    if (file)
        fclose(file);
    if (stream && fclose(stream) != 0 && !error)
        error = ENOMEM;
    if (error)
        return command_fail(command_exit_code(-error), "cannot read '%s': %s", path,
                            strerror(error));
    return -1;
}

static int read_tile(const char *path, struct question *out)
{
    char error[COMMAND_ERROR_MAX];
    char header[256];
    struct image image;
    int rc = image_read(path, &image, error, sizeof error);
    if (rc < 0)
        return command_fail(command_exit_code(rc), "%s", error);
    image_blank_hidden(&image);
    int header_bytes = npy_header_write(&image.shape, header, sizeof header);
    if (header_bytes > 0 && (out->body = malloc((size_t)header_bytes + image.bytes))) {
        memcpy(out->body, header, (size_t)header_bytes);
        memcpy(out->body + header_bytes, image.data, image.bytes);
        out->bytes = (size_t)header_bytes + image.bytes;
    }
    image_free(&image);
    return out->body ? -1 : command_fail(EX_OSERR, "no memory for '%s'", path);
}

static int make_question(const struct bench_options *options, struct question *out)
{
    bool document = command_has_suffix(options->input, ".json");
    out->type = document ? "Content-Type: application/json" : "Content-Type: application/x-npy";
    out->accept = document ? "Accept: application/json" : "Accept: application/x-npy";
    return document ? read_document(options->input, out) : read_tile(options->input, out);
}

/* The first answer, which all others are compared with. -1, or the exit code. */
static int ask_first(const struct bench_options *options, const struct question *question,
                     struct unetserve_answer *out)
{
    char error[COMMAND_ERROR_MAX];
    struct http *http;
    int timeout_ms = (int)(options->load.timeout_s * 1000);
    const char *const fields[] = {question->type, question->accept};
    *out = (struct unetserve_answer){.status = 0};
    int rc = http_open(options->url, timeout_ms, &http, error, sizeof error);
    if (rc < 0)
        return command_fail(command_exit_code(rc), "%s", error);
    rc = http_ask(http, fields, 2, question->body, question->bytes, out, error, sizeof error);
    http_close(http);
    if (rc < 0)
        return command_fail(command_exit_code(rc), "%s", error);
    if (out->status == 200)
        return -1;
    refusal_explain(out, error, sizeof error);
    int code = refusal_exit_code(0, out->status);
    unetserve_answer_free(out);
    return command_fail(code, "%s", error);
}

/* ---- what came out ---- */

static void print_report(const struct bench_options *options, size_t bytes,
                         const struct load_result *result)
{
    const struct histogram *ns = &result->latency_ns;
    printf("%s to %s: %zu bytes a request, %u connection%s, %.1f s\n", options->input, options->url,
           bytes, options->load.clients, options->load.clients == 1 ? "" : "s", result->seconds);
    printf("  %llu of %llu requests answered rightly, %.1f a second\n",
           (unsigned long long)result->right, (unsigned long long)result->sent,
           (double)result->in_time / (result->seconds > 0 ? result->seconds : 1e-9));
    for (int status = 0; status < 600; status++)
        if (status != 200 && result->statuses[status] > 0)
            printf("  %llu answered %d\n", (unsigned long long)result->statuses[status], status);
    if (result->wrong > 0)
        printf("  %llu answered otherwise than the first one\n", (unsigned long long)result->wrong);
    if (result->broken + result->malformed + result->unanswered > 0)
        printf("  %llu connections broke, %llu answers without a length, %llu not in time\n",
               (unsigned long long)result->broken, (unsigned long long)result->malformed,
               (unsigned long long)result->unanswered);
    printf("  milliseconds: p50 %.3f, p90 %.3f, p99 %.3f, p99.9 %.3f, longest %.3f\n",
           (double)histogram_percentile(ns, .5) * 1e-6, (double)histogram_percentile(ns, .9) * 1e-6,
           (double)histogram_percentile(ns, .99) * 1e-6,
           (double)histogram_percentile(ns, .999) * 1e-6, (double)ns->most * 1e-6);
}

static int print_json(const struct load_settings *settings, const struct load_result *result)
{
    char *text = report_text(settings, result);
    if (!text)
        return command_fail(EX_OSERR, "no memory for a report");
    puts(text);
    free(text);
    return -1;
}

static int run(const struct bench_options *options, const struct target_request *request)
{
    static struct load_result result;
    char error[COMMAND_ERROR_MAX];
    struct load_settings settings = options->load;
    settings.requests = request;
    settings.request_count = 1;
    if (load_run(&settings, &result, error, sizeof error) < 0)
        return command_fail(EX_UNAVAILABLE, "%s", error);
    int code = -1;
    if (options->json)
        code = print_json(&settings, &result);
    else
        print_report(options, request->size, &result);
    if (code < 0 && result.right != result.sent)
        return command_fail(EX_UNAVAILABLE, "%llu of %llu requests were not answered rightly",
                            (unsigned long long)(result.sent - result.right),
                            (unsigned long long)result.sent);
    return code < 0 ? EX_OK : code;
}

/* ---- the command ---- */

static int ask_again(const struct bench_options *options, const struct question *question)
{
    struct unetserve_answer first;
    struct target_request request;
    int code = ask_first(options, question, &first);
    if (code >= 0)
        return code;
    char key[HTTP_KEY_FIELD_MAX];
    const char *const fields[] = {question->type, question->accept, key};
    if (target_request_make(options->load.target, fields, http_key_field(key) ? 3 : 2,
                            question->body, question->bytes, &request) == 0) {
        request.expected = (struct answer_expected){first.data, first.bytes};
        code = run(options, &request);
        free(request.bytes);
    } else {
        code = command_fail(EX_OSERR, "no memory for the request, or a line break in the key");
    }
    unetserve_answer_free(&first);
    return code;
}

int command_bench(int argc, char **argv)
{
    struct target target;
    struct bench_options options = {
        .url = "http://127.0.0.1:8000/predict",
        .load = {.clients = 1, .seed = 1, .count = 1000000000, .seconds = 5, .timeout_s = 30}};
    int code = take_options(&options, argc, argv);
    if (code < 0)
        code = parse_target(options.url, &target);
    if (code >= 0)
        return code;
    options.load.target = &target;
    struct question question = {.body = NULL};
    code = make_question(&options, &question);
    if (code < 0)
        code = ask_again(&options, &question);
    free(question.body);
    return code;
}
