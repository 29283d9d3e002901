/*
 * unetctl calibrate: runs a network in f32 on tiles, counts what its layers put out, chooses the
 * ranges that int8 keeps, runs it in int8 too, and says how many labels changed.
 */
#include "calibrate.h"
#include "command.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#define REPORT_MAX 65536

static const char help_text[] =
    "usage: unetctl calibrate MODEL TILE... -o DIR [OPTION]...\n"
    "\n"
    "Finds the ranges of a network's activations on your tiles, for precision int8, and writes a\n"
    "model directory that has them. Prints how many labels int8 changes on each tile.\n"
    "\n"
    "  MODEL               weights or a model directory, as for unetserve\n"
    "  TILE                .npy, .tif, or a directory of them\n"
    "  -o, --output DIR    the directory: model.json, the weights (linked or copied),\n"
    "                      quantization.json, quantization-report.json\n"
    "      --check TILE    tiles that do not count for the ranges, only for the report; "
    "repeatable\n"
    "      --method M      channel (default): a range for each channel, which holds all that was\n"
    "                      seen; one for each layer: mse (least squares), or percentile\n"
    "      --percentile P  how much of the values a range holds then, in percent (99.99)\n"
    "      --keep LAYER    run that layer in float, by its name (see unetctl inspect); "
    "repeatable.\n"
    "                      The first and the last convolution are always in float\n"
    "      --offset N      add N to every value first\n"
    "      --threads N     (all cores)\n"
    "      --json          the report as JSON\n";

#define KEEP_MAX 64

enum method { BY_CHANNEL, BY_LEAST_SQUARES, BY_PERCENTILE };

struct options {
    const char *model;
    const char *output;
    enum method method;
    bool json;
    double percentile;
    int offset;
    uint32_t threads;
    const char *keep[KEEP_MAX];
    size_t keep_count;
    struct calibrate_files tiles;
    struct calibrate_files checks;
};

/* What a run of the command holds. */
struct work {
    const struct options *options;
    struct source source;
    struct tally **tallies; /* by layer; NULL where a range means nothing */
    struct quantise_file file;
    struct quantise_ranges ranges;
    struct calibrate_engine exact;
    struct calibrate_engine coded;
    json_t *report;
    uint64_t pixels; /* of the tile at hand */
    uint64_t changed;
};

/* ---- ranges ---- */

/* Pooling makes no numbers, but means of its own. */
static bool is_counted(const struct network_layer *layer)
{
    return quantise_makes_numbers(layer) || layer->op == NETWORK_MAX_POOL;
}

static int make_tallies(struct work *work)
{
    const struct network *plan = &work->source.plan;
    work->tallies = (struct tally **)calloc(plan->layer_count, sizeof(struct tally *));
    for (size_t i = 0; work->tallies && i < plan->layer_count; i++) {
        if (!is_counted(&plan->layers[i]))
            continue;
        work->tallies[i] = tally_new(plan->layers[i].channels);
        if (!work->tallies[i])
            return command_fail(EX_OSERR, "no memory");
    }
    return work->tallies ? 0 : command_fail(EX_OSERR, "no memory");
}

static int count_piece(void *opaque, const struct calibrate_piece *piece)
{
    const struct work *work = opaque;
    uint8_t *labels = malloc((size_t)piece->height * piece->width);
    if (!labels)
        return command_fail(EX_OSERR, "no memory");
    int code = calibrate_engine_run(&work->exact, piece, labels);
    free(labels);
    return code;
}

static int count_tiles(struct work *work)
{
    const struct calibrate_setup setup = {
        .source = &work->source, .threads = work->options->threads, .tallies = work->tallies};
    int code = calibrate_engine_start(&setup, &work->exact);
    const struct calibrate_files *tiles = &work->options->tiles;
    for (size_t i = 0; i < tiles->count && code == 0; i++)
        code = calibrate_walk(tiles->paths[i], &work->source.plan, work->options->offset,
                              count_piece, work);
    calibrate_engine_stop(&work->exact);
    return code;
}

static bool is_conv(const struct network_layer *layer)
{
    return layer->op == NETWORK_CONV || layer->op == NETWORK_CONV_UP;
}

static size_t last_conv(const struct network *network)
{
    size_t last = 0;
    for (size_t i = 0; i < network->layer_count; i++)
        if (is_conv(&network->layers[i]))
            last = i;
    return last;
}

static bool is_kept(const struct options *options, const char *name)
{
    for (size_t i = 0; i < options->keep_count; i++)
        if (strcmp(options->keep[i], name) == 0)
            return true;
    return false;
}

static void name_method(const struct options *options, char *out, size_t size)
{
    if (options->method == BY_PERCENTILE)
        snprintf(out, size, "percentile %g", options->percentile);
    else
        snprintf(out, size, "%s", options->method == BY_CHANNEL ? "channel" : "mse");
}

static int choose_range(const struct options *options, const struct tally *tally, uint32_t channels,
                        struct quantise_entry *entry)
{
    struct quantise_range range = tally_percentile(tally, 100.0);
    if (options->method == BY_PERCENTILE)
        range = tally_percentile(tally, options->percentile);
    if (options->method == BY_LEAST_SQUARES)
        range = tally_least_squares(tally);
    entry->low = range.low;
    entry->high = range.high;
    entry->channels = calloc(channels, sizeof *entry->channels);
    if (!entry->channels)
        return command_fail(EX_OSERR, "no memory");
    entry->channel_count = channels;
    for (uint32_t c = 0; c < channels; c++)
        entry->channels[c] = options->method == BY_CHANNEL ? tally_channel(tally, c)
                                                           : tally_mean(tally, c, &range);
    return 0;
}

static int choose_ranges(struct work *work)
{
    const struct options *options = work->options;
    const struct network *plan = &work->source.plan;
    struct quantise_file *file = &work->file;
    file->weights = weights_file_hash(&work->source.weights);
    name_method(options, file->method, sizeof file->method);
    file->entries = calloc(plan->layer_count, sizeof *file->entries);
    if (!file->entries)
        return command_fail(EX_OSERR, "no memory");
    for (size_t i = 0; i < plan->layer_count; i++) {
        const struct network_layer *layer = &plan->layers[i];
        if (!work->tallies[i])
            continue;
        struct quantise_entry *entry = &file->entries[file->count++];
        *entry = (struct quantise_entry){.layer = (uint32_t)i};
        entry->keep = is_conv(layer) && (i == last_conv(plan) || is_kept(options, layer->name));
        snprintf(entry->name, sizeof entry->name, "%s", layer->name);
        int code = choose_range(options, work->tallies[i], layer->channels, entry);
        if (code != 0)
            return code;
    }
    char error[COMMAND_ERROR_MAX];
    int rc = quantise_file_bind(file, plan, &file->weights, &work->ranges, error, sizeof error);
    return rc < 0 ? command_fail(command_exit_code(rc), "%s", error) : 0;
}

/* ---- what it costs ---- */

static int compare_piece(void *opaque, const struct calibrate_piece *piece)
{
    struct work *work = opaque;
    size_t pixels = (size_t)piece->height * piece->width;
    uint8_t *labels = malloc(2 * pixels);
    if (!labels)
        return command_fail(EX_OSERR, "no memory");
    int code = calibrate_engine_run(&work->exact, piece, labels);
    if (code == 0)
        code = calibrate_engine_run(&work->coded, piece, labels + pixels);
    for (size_t i = 0; i < pixels && code == 0; i++)
        work->changed += labels[i] != labels[pixels + i];
    work->pixels += pixels;
    free(labels);
    return code;
}

static int compare_files(struct work *work, const struct calibrate_files *files, const char *key)
{
    json_t *tiles = json_array();
    double sum = 0;
    double worst = 0;
    int code = 0;
    for (size_t i = 0; i < files->count && code == 0; i++) {
        work->pixels = work->changed = 0;
        code = calibrate_walk(files->paths[i], &work->source.plan, work->options->offset,
                              compare_piece, work);
        double share = work->pixels ? (double)work->changed / (double)work->pixels : 0;
        sum += share;
        worst = share > worst ? share : worst;
        json_array_append_new(tiles, json_pack("{s:s, s:I, s:I, s:f}", "tile", files->paths[i],
                                               "pixels", (json_int_t)work->pixels, "changed",
                                               (json_int_t)work->changed, "share", share));
    }
    double mean = files->count ? sum / (double)files->count : 0;
    json_t *part = json_pack("{s:f, s:f, s:o}", "mean", mean, "worst", worst, "tiles", tiles);
    if (json_object_set_new(work->report, key, part) < 0 && code == 0)
        code = command_fail(EX_DATAERR, "a tile's name is not UTF-8");
    return code;
}

static int compare(struct work *work)
{
    struct calibrate_setup setup = {.source = &work->source, .threads = work->options->threads};
    int code = calibrate_engine_start(&setup, &work->exact);
    setup.ranges = &work->ranges;
    if (code == 0)
        code = calibrate_engine_start(&setup, &work->coded);
    work->report = json_pack("{s:s, s:s}", "method", work->file.method, "backend",
                             code == 0 ? work->coded.backend->name : "");
    if (!work->report)
        return command_fail(EX_OSERR, "no memory");
    if (code == 0)
        code = compare_files(work, &work->options->tiles, "calibrated");
    if (code == 0 && work->options->checks.count > 0)
        code = compare_files(work, &work->options->checks, "checked");
    return code;
}

static void print_part(const json_t *report, const char *key, const char *title)
{
    const json_t *part = json_object_get(report, key);
    if (!part)
        return;
    printf("%s\n", title);
    const json_t *tiles = json_object_get(part, "tiles");
    for (size_t i = 0; i < json_array_size(tiles); i++) {
        const json_t *tile = json_array_get(tiles, i);
        printf("  %8.4f %%  %s\n", 100 * json_real_value(json_object_get(tile, "share")),
               json_string_value(json_object_get(tile, "tile")));
    }
    printf("  %8.4f %%  on average, %.4f %% at most\n",
           100 * json_real_value(json_object_get(part, "mean")),
           100 * json_real_value(json_object_get(part, "worst")));
}

static int finish(const struct work *work)
{
    char *text = json_dumps(work->report, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    if (!text)
        return command_fail(EX_OSERR, "no memory");
    int code = calibrate_write(work->options->output, work->options->model, &work->source,
                               &work->file, text);
    if (code == 0 && work->options->json)
        puts(text);
    free(text);
    if (code != 0 || work->options->json)
        return code;
    print_part(work->report, "calibrated",
               "labels that int8 changes, against f32, on the tiles that chose the ranges:");
    print_part(work->report, "checked", "and on others:");
    bool slow = strcmp(work->coded.backend->name, "reference") == 0;
    printf("%s: serve it with --precision int8%s\n", work->options->output,
           slow ? ", on a processor with VNNI, which this one has not" : "");
    return EX_OK;
}

static void release(struct work *work)
{
    for (size_t i = 0; work->tallies && i < work->source.plan.layer_count; i++)
        free(work->tallies[i]);
    free((void *)work->tallies);
    calibrate_engine_stop(&work->exact);
    calibrate_engine_stop(&work->coded);
    quantise_file_free(&work->file);
    quantise_ranges_free(&work->ranges);
    json_decref(work->report);
    source_close(&work->source);
}

static int calibrate(const struct options *options)
{
    static char report[REPORT_MAX];
    struct work work = {.options = options};
    int rc = source_open(options->model, true, &work.source, report, sizeof report);
    if (rc < 0)
        return command_fail(command_exit_code(rc), "%s", report);
    int code = make_tallies(&work);
    if (code == 0)
        code = count_tiles(&work);
    if (code == 0)
        code = choose_ranges(&work);
    if (code == 0)
        code = compare(&work);
    if (code == 0)
        code = finish(&work);
    release(&work);
    return code;
}

/* ---- the command line ---- */

enum {
    OPTION_CHECK = 256,
    OPTION_METHOD,
    OPTION_PERCENTILE,
    OPTION_KEEP,
    OPTION_OFFSET,
    OPTION_THREADS,
    OPTION_JSON
};

static int take_number(const char *name, int64_t low, int64_t high, int64_t *out)
{
    if (command_parse_number(optarg, low, high, out))
        return 0;
    return command_fail(EX_USAGE, "%s is '%s', expected %" PRId64 " to %" PRId64, name, optarg, low,
                        high);
}

static int take_percentile(struct options *options)
{
    char *end;
    options->percentile = strtod(optarg, &end);
    if (end == optarg || *end || !(options->percentile >= 50 && options->percentile <= 100))
        return command_fail(EX_USAGE, "--percentile is '%s', expected 50 to 100", optarg);
    return 0;
}

static int take_method(struct options *options)
{
    static const char *const names[] = {
        [BY_CHANNEL] = "channel", [BY_LEAST_SQUARES] = "mse", [BY_PERCENTILE] = "percentile"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(optarg, names[i]) == 0) {
            options->method = (enum method)i;
            return 0;
        }
    }
    return command_fail(EX_USAGE, "--method is '%s', expected channel, mse or percentile", optarg);
}

static int take_option(struct options *options, int option)
{
    int64_t number = 0;
    int code = 0;
    switch (option) {
    case 'o': options->output = optarg; return 0;
    case OPTION_CHECK: return calibrate_files_add(&options->checks, optarg);
    case OPTION_METHOD: return take_method(options);
    case OPTION_PERCENTILE: return take_percentile(options);
    case OPTION_KEEP:
        if (options->keep_count == KEEP_MAX)
            return command_fail(EX_USAGE, "more than %d layers to keep", KEEP_MAX);
        options->keep[options->keep_count++] = optarg;
        return 0;
    case OPTION_OFFSET:
        code = take_number("--offset", -1000000, 1000000, &number);
        options->offset = (int)number;
        return code;
    case OPTION_THREADS:
        code = take_number("--threads", 1, 1024, &number);
        options->threads = (uint32_t)number;
        return code;
    case OPTION_JSON: options->json = true; return 0;
    default: return command_bad_option(option);
    }
}

/* -1: go on; else the command is over with that code. */
static int parse(int argc, char **argv, struct options *options)
{
    static const struct option long_options[] = {
        {"output", required_argument, NULL, 'o'},
        {"check", required_argument, NULL, OPTION_CHECK},
        {"method", required_argument, NULL, OPTION_METHOD},
        {"percentile", required_argument, NULL, OPTION_PERCENTILE},
        {"keep", required_argument, NULL, OPTION_KEEP},
        {"offset", required_argument, NULL, OPTION_OFFSET},
        {"threads", required_argument, NULL, OPTION_THREADS},
        {"json", no_argument, NULL, OPTION_JSON},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, ":o:h", long_options, NULL)) != -1) {
        if (option == 'h') {
            fputs(help_text, stdout);
            return EX_OK;
        }
        int code = take_option(options, option);
        if (code != 0)
            return code;
    }
    if (argc - optind < 2 || !options->output)
        return command_fail(EX_USAGE, "calibrate takes a model, tiles and -o DIR");
    options->model = argv[optind];
    for (int i = optind + 1; i < argc; i++) {
        int code = calibrate_files_add(&options->tiles, argv[i]);
        if (code != 0)
            return code;
    }
    return -1;
}

int command_calibrate(int argc, char **argv)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    struct options options = {.percentile = 99.99, .threads = cores > 0 ? (uint32_t)cores : 1};
    int code = parse(argc, argv, &options);
    if (code < 0)
        code = calibrate(&options);
    calibrate_files_free(&options.tiles);
    calibrate_files_free(&options.checks);
    return code;
}
