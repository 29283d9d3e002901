/*
 * unetctl predict: a tile in, a mask out, and what it shows.
 */
#include "command.h"
#include "image.h"
#include "refusal.h"
#include "server.h"
#include "windows.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>

struct predict_options {
    struct server_options server;
    const char *input;
    const char *output;
    const char *sent;
    int offset;
    unsigned window;
    bool codes;
    bool json;
};

static const char help_text[] =
    "usage: unetctl predict IN -o OUT [--url URL | --endpoint ADDRESS] [OPTION]...\n"
    "\n"
    "Sends a tile to unetserve and writes the mask.\n"
    "\n"
    "  IN                  .npy (C x H x W, or N x C x H x W), or any raster that GDAL reads\n"
    "  -o, --output OUT    .png (the classes' colours), .npy, or .tif (IN's georeference)\n"
    "      --url URL       over HTTP: http://HOST:PORT[/ROUTE]\n"
    "      --endpoint ADR  over ZeroMQ: ipc://PATH; default: the one unetserve running here\n"
    "      --model NAME    which model, where several are served (ZeroMQ)\n"
    "      --offset N      add N to every value first (-1000 for baseline 04.00 of Sentinel-2)\n"
    "      --window N      cut scenes larger than N x N into overlapping windows (512; 0: never)\n"
    "      --codes         write the classes' codes instead of 0, 1, 2... (.npy, .tif)\n"
    "      --timeout MS    wait that long for an answer (30000)\n"
    "      --sent FILE.npy write what was sent, too: after --offset, missing values blanked\n"
    "      --json          print facts as JSON\n"
    "\n"
    "UNETSERVE_API_KEY in the environment is sent with requests over HTTP.\n";

enum {
    OPTION_URL = 256,
    OPTION_ENDPOINT,
    OPTION_MODEL,
    OPTION_OFFSET,
    OPTION_WINDOW,
    OPTION_CODES,
    OPTION_TIMEOUT,
    OPTION_SENT,
    OPTION_JSON
};

static const struct option long_options[] = {
    {"output", required_argument, NULL, 'o'},
    {"url", required_argument, NULL, OPTION_URL},
    {"endpoint", required_argument, NULL, OPTION_ENDPOINT},
    {"model", required_argument, NULL, OPTION_MODEL},
    {"offset", required_argument, NULL, OPTION_OFFSET},
    {"window", required_argument, NULL, OPTION_WINDOW},
    {"codes", no_argument, NULL, OPTION_CODES},
    {"timeout", required_argument, NULL, OPTION_TIMEOUT},
    {"sent", required_argument, NULL, OPTION_SENT},
    {"json", no_argument, NULL, OPTION_JSON},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

/* ---- options ---- */

/* -1: go on; else the exit code. */
static int take_option(struct predict_options *options, int option)
{
    int64_t number;
    switch (option) {
    case 'o': options->output = optarg; return -1;
    case OPTION_URL: options->server.url = optarg; return -1;
    case OPTION_ENDPOINT: options->server.endpoint = optarg; return -1;
    case OPTION_MODEL: options->server.model = optarg; return -1;
    case OPTION_SENT: options->sent = optarg; return -1;
    case OPTION_CODES: options->codes = true; return -1;
    case OPTION_JSON: options->json = true; return -1;
    case OPTION_OFFSET:
        if (!command_parse_number(optarg, -1000000, 1000000, &number))
            return command_fail(EX_USAGE, "--offset is '%s', expected -1000000 to 1000000", optarg);
        options->offset = (int)number;
        return -1;
    case OPTION_WINDOW:
        if (!command_parse_number(optarg, 0, 65536, &number) || (number && number < WINDOW_LEAST))
            return command_fail(EX_USAGE, "--window is '%s', expected 0 or %d to 65536", optarg,
                                WINDOW_LEAST);
        options->window = (unsigned)number;
        return -1;
    case OPTION_TIMEOUT:
        if (!command_parse_number(optarg, 1, 86400000, &number))
            return command_fail(EX_USAGE, "--timeout is '%s', expected 1 to 86400000", optarg);
        options->server.timeout_ms = (int)number;
        return -1;
    case 'h': fputs(help_text, stdout); return EX_OK;
    default: return command_bad_option(option);
    }
}

static int take_options(struct predict_options *options, int argc, char **argv)
{
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, ":o:h", long_options, NULL)) != -1) {
        int code = take_option(options, option);
        if (code >= 0)
            return code;
    }
    if (argc - optind != 1)
        return command_fail(EX_USAGE, "predict takes one tile, %d were given", argc - optind);
    options->input = argv[optind];
    if (!options->output)
        return command_fail(EX_USAGE, "predict needs -o OUT (.png, .npy or .tif)");
    if (mask_file_kind(options->output) == MASK_FILE_UNKNOWN)
        return command_fail(EX_USAGE, "'%s' must end in .png, .npy or .tif", options->output);
    if (options->server.url && options->server.endpoint)
        return command_fail(EX_USAGE, "--url and --endpoint exclude each other");
    if (options->server.url && options->server.model)
        return command_fail(EX_USAGE, "--model goes with ZeroMQ; over HTTP put the model's route "
                                      "behind --url");
    return -1;
}

/* ---- what came out ---- */

struct predict_report {
    const struct predict_options *options;
    const struct image *image;
    const struct windows_result *result;
    const struct unetserve_interface *legend;
    uint64_t pixels[256]; /* by label */
    uint64_t total;       /* without hidden ones */
    double seconds;
};

static void report_count(struct predict_report *report)
{
    uint64_t count = 0;
    if (unetserve_shape_elements(&report->result->shape, &count) < 0)
        return;
    bool hides = report->image->hidden && report->result->shape.rank == 2;
    for (uint64_t i = 0; i < count; i++) {
        if (hides && report->image->hidden[i])
            continue;
        report->pixels[report->result->labels[i]]++;
        report->total++;
    }
}

static const struct unetserve_class *report_class(const struct predict_report *report,
                                                  uint32_t label)
{
    return label < report->legend->class_count ? &report->legend->classes[label] : NULL;
}

static void report_print(const struct predict_report *report)
{
    const struct windows_result *result = report->result;
    char text[160];
    printf("%s: %s", report->options->input,
           unetserve_shape_format(&report->image->shape, text, sizeof text));
    if (*raster_reference_name(report->image->reference))
        printf(", %s", raster_reference_name(report->image->reference));
    if (result->window)
        printf(", %u windows of up to %u x %u", result->requests, result->window, result->window);
    printf(" -> %s\n", report->options->output);
    for (uint32_t label = 0; label < 256; label++) {
        const struct unetserve_class *class = report_class(report, label);
        if (report->pixels[label] > 0)
            printf("  %3u  %-24s %6.2f %%\n", class ? class->code : label,
                   class ? class->name : "class",
                   100.0 * (double)report->pixels[label] / (double)report->total);
    }
    if (report->image->hidden)
        printf("  no data is written as %d where the input has none\n", RASTER_NODATA);
    printf("receive %.1f ms, queue %.1f ms, forward %.1f ms, encode %.1f ms; %.1f ms in all\n",
           result->receive_ms, result->queue_ms, result->forward_ms, result->encode_ms,
           report->seconds * 1000);
}

static json_t *report_classes(const struct predict_report *report)
{
    json_t *classes = json_array();
    for (uint32_t label = 0; label < 256; label++) {
        const struct unetserve_class *class = report_class(report, label);
        if (report->pixels[label] == 0)
            continue;
        json_array_append_new(classes,
                              json_pack("{s:i, s:i, s:s, s:I, s:f}", "label", (int)label, "code",
                                        class ? (int)class->code : (int)label, "name",
                                        class ? class->name : "", "pixels",
                                        (json_int_t)report->pixels[label], "share",
                                        (double)report->pixels[label] / (double)report->total));
    }
    return classes;
}

static json_t *report_shape(const struct unetserve_shape *shape)
{
    json_t *dims = json_array();
    for (uint32_t i = 0; i < shape->rank; i++)
        json_array_append_new(dims, json_integer((json_int_t)shape->dims[i]));
    return dims;
}

static int report_print_json(const struct predict_report *report)
{
    const struct windows_result *result = report->result;
    json_t *document = json_pack(
        "{s:s, s:s, s:s, s:o, s:o, s:s, s:i, s:i, s:s, s:o, s:{s:f, s:f, s:f, s:f, s:f}}", "input",
        report->options->input, "output", report->options->output, "dtype",
        unetserve_dtype_name(report->image->shape.dtype), "shape",
        report_shape(&report->image->shape), "mask_shape", report_shape(&result->shape), "crs",
        raster_reference_name(report->image->reference), "requests", (int)result->requests,
        "window", (int)result->window, "request_id", result->request_id, "classes",
        report_classes(report), "times_ms", "receive", result->receive_ms, "queue",
        result->queue_ms, "forward", result->forward_ms, "encode", result->encode_ms, "total",
        report->seconds * 1000);
    if (!document)
        return command_fail(EX_DATAERR, "the facts cannot be put as JSON: a name is not UTF-8");
    json_dumpf(document, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(document);
    return EX_OK;
}

/* ---- the work ---- */

static double clock_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static int write_and_report(struct predict_report *report, struct windows_result *result)
{
    char error[COMMAND_ERROR_MAX];
    const struct predict_options *options = report->options;
    if (options->codes && report->legend->class_count == 0)
        return command_fail(EX_UNAVAILABLE, "the server does not tell its classes' codes");
    report_count(report);
    for (uint64_t i = 0; report->image->hidden && i < result->shape.dims[0] * result->shape.dims[1];
         i++)
        if (report->image->hidden[i])
            result->labels[i] = RASTER_NODATA;
    int rc = mask_file_write(options->output, &result->shape, result->labels, options->codes,
                             report->legend, report->image, error, sizeof error);
    if (rc == -EINVAL)
        return command_fail(EX_USAGE, "%s", error);
    if (rc < 0)
        return command_fail(EX_CANTCREAT, "%s", error);
    if (options->json)
        return report_print_json(report);
    report_print(report);
    return EX_OK;
}

static int predict_image(const struct predict_options *options, struct image *image)
{
    char error[COMMAND_ERROR_MAX];
    static struct unetserve_interface legend;
    struct server *server;
    struct windows_result result = {.labels = NULL};
    int rc = server_open(&options->server, &server, error, sizeof error);
    if (rc < 0)
        return command_fail(rc == -EINVAL ? EX_USAGE : command_exit_code(rc), "%s", error);
    double start = clock_seconds();
    rc = windows_predict(server, image, options->window, &result, error, sizeof error);
    double seconds = clock_seconds() - start;
    if (rc < 0) {
        server_close(server);
        return command_fail(refusal_exit_code(rc, result.status), "%s", error);
    }
    server_legend(server, &legend);
    server_close(server);
    struct predict_report report = {.options = options,
                                    .image = image,
                                    .result = &result,
                                    .legend = &legend,
                                    .seconds = seconds};
    int code = write_and_report(&report, &result);
    free(result.labels);
    return code;
}

int command_predict(int argc, char **argv)
{
    struct predict_options options = {.server = {.timeout_ms = 30000}, .window = WINDOW_DEFAULT};
    int code = take_options(&options, argc, argv);
    if (code >= 0)
        return code;
    char error[COMMAND_ERROR_MAX];
    struct image image;
    int rc = image_read(options.input, &image, error, sizeof error);
    if (rc < 0)
        return command_fail(command_exit_code(rc), "%s", error);
    if (options.offset != 0 && image_add_offset(&image, options.offset) < 0)
        code = command_fail(EX_USAGE, "--offset cannot be added to %s",
                            unetserve_dtype_name(image.shape.dtype));
    image_blank_hidden(&image);
    if (code < 0 && options.sent && image_write_npy(options.sent, &image, error, sizeof error) < 0)
        code = command_fail(EX_CANTCREAT, "%s", error);
    if (code < 0)
        code = predict_image(&options, &image);
    image_free(&image);
    return code;
}
