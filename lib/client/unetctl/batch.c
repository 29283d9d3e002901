/*
 * unetctl batch: a directory of tiles in, a directory of masks out. Threads take files off one
 * list, each over a connection of its own; a mask gets its name when it is whole.
 */
#include "command.h"
#include "image.h"
#include "server.h"
#include "windows.h"

#include <assert.h>
#include <errno.h>
#include <ftw.h>
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#define BATCH_PATH_MAX  4096
#define BATCH_FILES_MAX ((size_t)1 << 22)
#define BATCH_JOBS_MAX  256

struct batch_options {
    struct server_options server;
    const char *input;
    const char *output;
    const char *format;
    int offset;
    unsigned window;
    unsigned jobs; /* 0: as the server has workers */
    unsigned shard, shards;
    bool codes, recursive, force, json;
};

static const char help_text[] =
    "usage: unetctl batch DIR -o OUT [--url URL | --endpoint ADDRESS] [OPTION]...\n"
    "\n"
    "Sends every .npy and .tif of a directory to unetserve and writes their masks. Run again, it\n"
    "goes on where it ended.\n"
    "\n"
    "  -o, --output OUT    directory of the masks\n"
    "      --url URL       over HTTP: http://HOST:PORT[/ROUTE]\n"
    "      --endpoint ADR  over ZeroMQ: ipc://PATH; default: the one unetserve running here\n"
    "      --model NAME    which model, where several are served (ZeroMQ)\n"
    "      --format F      tif (default), npy or png\n"
    "      --offset N      add N to every value first\n"
    "      --window N      cut scenes larger than N x N into overlapping windows (512; 0: never)\n"
    "      --codes         write the classes' codes instead of 0, 1, 2... (npy, tif)\n"
    "      --recursive     directories below, too\n"
    "      --force         make masks again that are there\n"
    "      --jobs N        files in flight (two for each of the server's workers, else 4)\n"
    "      --shard I/N     only part I of N, for job arrays (1/N to N/N)\n"
    "      --timeout MS    wait that long for an answer (30000)\n"
    "      --patience MS   wait that long in all where the server is too busy (60000)\n"
    "      --json          a line of JSON for each file, and a summary\n"
    "\n"
    "UNETSERVE_API_KEY in the environment is sent with requests over HTTP.\n";

enum {
    OPTION_URL = 256,
    OPTION_ENDPOINT,
    OPTION_MODEL,
    OPTION_FORMAT,
    OPTION_OFFSET,
    OPTION_WINDOW,
    OPTION_CODES,
    OPTION_RECURSIVE,
    OPTION_FORCE,
    OPTION_JOBS,
    OPTION_SHARD,
    OPTION_TIMEOUT,
    OPTION_PATIENCE,
    OPTION_JSON
};

static const struct option long_options[] = {
    {"output", required_argument, NULL, 'o'},
    {"url", required_argument, NULL, OPTION_URL},
    {"endpoint", required_argument, NULL, OPTION_ENDPOINT},
    {"model", required_argument, NULL, OPTION_MODEL},
    {"format", required_argument, NULL, OPTION_FORMAT},
    {"offset", required_argument, NULL, OPTION_OFFSET},
    {"window", required_argument, NULL, OPTION_WINDOW},
    {"codes", no_argument, NULL, OPTION_CODES},
    {"recursive", no_argument, NULL, OPTION_RECURSIVE},
    {"force", no_argument, NULL, OPTION_FORCE},
    {"jobs", required_argument, NULL, OPTION_JOBS},
    {"shard", required_argument, NULL, OPTION_SHARD},
    {"timeout", required_argument, NULL, OPTION_TIMEOUT},
    {"patience", required_argument, NULL, OPTION_PATIENCE},
    {"json", no_argument, NULL, OPTION_JSON},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

/* ---- options ---- */

static int take_number(const char *name, int64_t low, int64_t high, int64_t *out)
{
    if (!command_parse_number(optarg, low, high, out))
        return command_fail(EX_USAGE, "%s is '%s', expected %" PRId64 " to %" PRId64, name, optarg,
                            low, high);
    return -1;
}

static int take_shard(struct batch_options *options)
{
    char end;
    if (sscanf(optarg, "%5u/%5u%c", &options->shard, &options->shards, &end) != 2 ||
        options->shard < 1 || options->shard > options->shards)
        return command_fail(EX_USAGE, "--shard is '%s', expected I/N with I from 1 to N", optarg);
    return -1;
}

static int take_numeric_option(struct batch_options *options, int option)
{
    int64_t number = 0;
    int code;
    switch (option) {
    case OPTION_OFFSET:
        code = take_number("--offset", -1000000, 1000000, &number);
        options->offset = (int)number;
        return code;
    case OPTION_WINDOW:
        code = take_number("--window", 0, 65536, &number);
        options->window = (unsigned)number;
        if (code < 0 && number && number < WINDOW_LEAST)
            return command_fail(EX_USAGE, "--window is '%s', expected 0 or %d to 65536", optarg,
                                WINDOW_LEAST);
        return code;
    case OPTION_JOBS:
        code = take_number("--jobs", 1, BATCH_JOBS_MAX, &number);
        options->jobs = (unsigned)number;
        return code;
    case OPTION_TIMEOUT:
        code = take_number("--timeout", 1, 86400000, &number);
        options->server.timeout_ms = (int)number;
        return code;
    case OPTION_PATIENCE:
        code = take_number("--patience", 0, 86400000, &number);
        options->server.patience_ms = (int)number;
        return code;
    default:
        return command_fail(EX_USAGE, "unknown or incomplete option; see unetctl batch --help");
    }
}

/* -1: go on; else the exit code. */
static int take_option(struct batch_options *options, int option)
{
    switch (option) {
    case 'o': options->output = optarg; return -1;
    case OPTION_URL: options->server.url = optarg; return -1;
    case OPTION_ENDPOINT: options->server.endpoint = optarg; return -1;
    case OPTION_MODEL: options->server.model = optarg; return -1;
    case OPTION_FORMAT: options->format = optarg; return -1;
    case OPTION_CODES: options->codes = true; return -1;
    case OPTION_RECURSIVE: options->recursive = true; return -1;
    case OPTION_FORCE: options->force = true; return -1;
    case OPTION_JSON: options->json = true; return -1;
    case OPTION_SHARD: return take_shard(options);
    case 'h': fputs(help_text, stdout); return EX_OK;
    default: return take_numeric_option(options, option);
    }
}

static int take_options(struct batch_options *options, int argc, char **argv)
{
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, "o:h", long_options, NULL)) != -1) {
        int code = take_option(options, option);
        if (code >= 0)
            return code;
    }
    if (argc - optind != 1)
        return command_fail(EX_USAGE, "batch takes one directory, %d were given", argc - optind);
    options->input = argv[optind];
    if (!options->output)
        return command_fail(EX_USAGE, "batch needs -o OUT, a directory for the masks");
    if (strcmp(options->format, "tif") != 0 && strcmp(options->format, "npy") != 0 &&
        strcmp(options->format, "png") != 0)
        return command_fail(EX_USAGE, "--format is '%s', expected tif, npy or png",
                            options->format);
    if (options->server.url && (options->server.endpoint || options->server.model))
        return command_fail(EX_USAGE, "--url excludes --endpoint and --model");
    return -1;
}

/* ---- the list ---- */

struct batch_list {
    char **names; /* below the directory, sorted */
    size_t count, room;
};

/* What nftw() cannot be handed: it runs before any thread does. */
static struct {
    const struct batch_options *options;
    struct batch_list *list;
    struct stat output;
    size_t prefix; /* length of the directory's path and its slash */
} walk;

/* FNV-1a: stable over machines and versions, as shards must be. */
static uint64_t name_hash(const char *name)
{
    uint64_t hash = 0xcbf29ce484222325U;
    for (; *name; name++)
        hash = (hash ^ (unsigned char)*name) * 0x100000001b3U;
    return hash;
}

static bool list_add(struct batch_list *list, const char *name)
{
    if (list->count == list->room) {
        size_t room = list->room ? list->room * 2 : 256;
        char **grown = room <= BATCH_FILES_MAX ? realloc(list->names, room * sizeof *grown) : NULL;
        if (!grown)
            return false;
        list->names = grown;
        list->room = room;
    }
    list->names[list->count] = strdup(name);
    return list->names[list->count] && ++list->count;
}

static int walk_visit(const char *path, const struct stat *status, int kind, struct FTW *where)
{
    const struct batch_options *options = walk.options;
    if (kind == FTW_DNR)
        return -1;
    if (where->level > 0 && path[where->base] == '.')
        return FTW_SKIP_SUBTREE;
    if (kind == FTW_D) {
        bool output = status->st_dev == walk.output.st_dev && status->st_ino == walk.output.st_ino;
        bool below = where->level > 0 && (!options->recursive || output);
        return below ? FTW_SKIP_SUBTREE : FTW_CONTINUE;
    }
    if (kind != FTW_F || !S_ISREG(status->st_mode) ||
        (!command_has_suffix(path, ".npy") && !command_has_suffix(path, ".tif") &&
         !command_has_suffix(path, ".tiff")))
        return FTW_CONTINUE;
    const char *name = path + walk.prefix;
    name += strspn(name, "/");
    if (options->shards && name_hash(name) % options->shards != options->shard - 1)
        return FTW_CONTINUE;
    return list_add(walk.list, name) ? FTW_CONTINUE : -1;
}

static int name_compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void list_free(struct batch_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        free(list->names[i]);
    free(list->names);
}

static int list_read(const struct batch_options *options, struct batch_list *list)
{
    struct stat input;
    assert(options->input && options->output);
    if (stat(options->input, &input) != 0 || !S_ISDIR(input.st_mode))
        return command_fail(EX_NOINPUT, "'%s' is no directory", options->input);
    if ((mkdir(options->output, 0777) != 0 && errno != EEXIST) ||
        stat(options->output, &walk.output) != 0 || !S_ISDIR(walk.output.st_mode))
        return command_fail(EX_CANTCREAT, "'%s' is no directory and cannot become one",
                            options->output);
    if (input.st_dev == walk.output.st_dev && input.st_ino == walk.output.st_ino)
        return command_fail(EX_USAGE, "masks cannot go where the tiles are, '%s'", options->input);
    walk.options = options;
    walk.list = list;
    walk.prefix = strlen(options->input);
    if (nftw(options->input, walk_visit, 16, FTW_PHYS | FTW_ACTIONRETVAL) != 0)
        return command_fail(EX_NOINPUT, "cannot list '%s' and what is below it", options->input);
    if (list->count)
        qsort(list->names, list->count, sizeof *list->names, name_compare);
    return -1;
}

/* ---- one file ---- */

struct batch {
    const struct batch_options *options;
    const struct batch_list *list;
    struct unetserve_interface legend; /* read-only once threads run */
    pthread_mutex_t lock;              /* guards what follows, and the output */
    size_t next;
    size_t done, skipped, failed;
    uint64_t requests;
};

static atomic_bool batch_stop;

static void batch_signal(int number)
{
    (void)number;
    atomic_store(&batch_stop, true);
}

/* The mask's path: the tile's whole name, so that a.npy and a.tif have masks of their own. part:
 * what it is called until it is whole. */
static bool mask_paths(const struct batch_options *options, const char *name, char *path,
                       char *part)
{
    const char *slash = strrchr(name, '/');
    const char *base = slash ? slash + 1 : name;
    const char *dot = strrchr(base, '.');
    assert(dot); /* walk_visit chose by suffix */
    bool raster = !command_has_suffix(name, ".npy");
    int stem = raster ? (int)(dot - name) : (int)strlen(name);
    if (raster && command_has_suffix(name, ".tiff"))
        stem = (int)strlen(name); /* a.tif may lie beside it */
    int used = snprintf(path, BATCH_PATH_MAX, "%s/%.*s.%s", options->output, stem, name,
                        options->format);
    if (used >= BATCH_PATH_MAX)
        return false;
    const char *last = strrchr(path, '/');
    assert(last);
    used = snprintf(part, BATCH_PATH_MAX, "%.*s/.%s.part.%s", (int)(last - path), path, last + 1,
                    options->format);
    return used < BATCH_PATH_MAX;
}

static bool mask_is_there(const char *input, const char *mask)
{
    struct stat of_input, of_mask;
    if (stat(input, &of_input) != 0 || stat(mask, &of_mask) != 0)
        return false;
    const struct timespec *a = &of_input.st_mtim, *b = &of_mask.st_mtim;
    return b->tv_sec != a->tv_sec ? b->tv_sec > a->tv_sec : b->tv_nsec >= a->tv_nsec;
}

/* The directories of path below the output's own. */
static int make_directories(char *path, size_t from)
{
    for (char *at = path + from + 1; (at = strchr(at, '/')); at++) {
        *at = 0;
        int rc = mkdir(path, 0777) != 0 && errno != EEXIST ? -errno : 0;
        *at = '/';
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* The picture's companion first: who sees the mask's name finds both. */
static int mask_publish(const char *part, const char *path)
{
    char companion[2][BATCH_PATH_MAX + 16];
    snprintf(companion[0], sizeof companion[0], "%s.aux.xml", part);
    snprintf(companion[1], sizeof companion[1], "%s.aux.xml", path);
    if (rename(companion[0], companion[1]) != 0 && errno != ENOENT)
        return -errno;
    return rename(part, path) == 0 ? 0 : -errno;
}

static int mask_write(struct batch *batch, const struct image *image, struct windows_result *result,
                      char *path, const char *part, char *error, size_t error_size)
{
    const struct batch_options *options = batch->options;
    uint64_t pixels = result->shape.dims[0] * result->shape.dims[1];
    for (uint64_t i = 0; image->hidden && i < pixels; i++)
        if (image->hidden[i])
            result->labels[i] = RASTER_NODATA;
    int rc = make_directories(path, strlen(options->output));
    if (rc < 0) {
        snprintf(error, error_size, "cannot make the directory of '%.2000s': %s", path,
                 strerror(-rc));
        return rc;
    }
    rc = mask_file_write(part, &result->shape, result->labels, options->codes, &batch->legend,
                         image, error, error_size);
    if (rc == 0 && (rc = mask_publish(part, path)) < 0)
        snprintf(error, error_size, "cannot name '%.2000s': %s", path, strerror(-rc));
    return rc;
}

/* 1: it is there already; 0: done; negative with a sentence. */
static int file_run(struct batch *batch, struct server *server, const char *name,
                    unsigned *requests, char *error, size_t error_size)
{
    const struct batch_options *options = batch->options;
    char input[BATCH_PATH_MAX], path[BATCH_PATH_MAX], part[BATCH_PATH_MAX];
    if (snprintf(input, sizeof input, "%s/%s", options->input, name) >= (int)sizeof input ||
        !mask_paths(options, name, path, part)) {
        snprintf(error, error_size, "its path is too long");
        return -ENAMETOOLONG;
    }
    if (!options->force && mask_is_there(input, path))
        return 1;
    struct image image;
    struct windows_result result = {.labels = NULL};
    int rc = image_read(input, &image, error, error_size);
    if (rc < 0)
        return rc;
    if (options->offset != 0 && (rc = image_add_offset(&image, options->offset)) < 0)
        snprintf(error, error_size, "--offset cannot be added to %s",
                 unetserve_dtype_name(image.shape.dtype));
    image_blank_hidden(&image);
    if (rc == 0)
        rc = windows_predict(server, &image, options->window, &result, error, error_size);
    if (rc == 0) {
        *requests = result.requests;
        rc = mask_write(batch, &image, &result, path, part, error, error_size);
    }
    free(result.labels);
    image_free(&image);
    return rc;
}

/* ---- all of them ---- */

static void batch_tell(struct batch *batch, const char *name, int rc, const char *error)
{
    bool bar = isatty(STDERR_FILENO) && !batch->options->json;
    if (batch->options->json) {
        json_t *line = json_pack("{s:s, s:s, s:s*}", "file", name, "state",
                                 rc < 0    ? "failed"
                                 : rc == 0 ? "done"
                                           : "skipped",
                                 "error", rc < 0 ? error : NULL);
        if (line) {
            json_dumpf(line, stdout, JSON_COMPACT);
            putchar('\n');
            fflush(stdout);
        }
        json_decref(line);
    } else if (rc < 0) {
        fprintf(stderr, "%sunetctl: %s: %s\n", bar ? "\r\033[K" : "", name, error);
    } else if (rc == 0 && !bar) {
        printf("%s\n", name);
        fflush(stdout);
    }
    if (bar) {
        size_t over = batch->done + batch->skipped + batch->failed;
        int filled = (int)(over * 40 / batch->list->count);
        fprintf(stderr, "\r[%.*s%*s] %zu of %zu", filled,
                "########################################", 40 - filled, "", over,
                batch->list->count);
    }
}

static void *batch_thread(void *argument)
{
    struct batch *batch = argument;
    char error[COMMAND_ERROR_MAX];
    struct server *server = NULL;
    int opened = server_open(&batch->options->server, &server, error, sizeof error);
    pthread_mutex_lock(&batch->lock);
    while (!atomic_load(&batch_stop) && batch->next < batch->list->count) {
        const char *name = batch->list->names[batch->next++];
        unsigned requests = 0;
        pthread_mutex_unlock(&batch->lock);
        int rc = opened;
        if (rc == 0)
            rc = file_run(batch, server, name, &requests, error, sizeof error);
        pthread_mutex_lock(&batch->lock);
        batch->requests += requests;
        batch->done += rc == 0;
        batch->skipped += rc > 0;
        batch->failed += rc < 0;
        batch_tell(batch, name, rc, error);
    }
    pthread_mutex_unlock(&batch->lock);
    server_close(server);
    return NULL;
}

/* Ask once what the classes are and how many workers there are; that tells, too, that there is
 * somebody. */
static int batch_meet_server(struct batch *batch, unsigned *jobs)
{
    char error[COMMAND_ERROR_MAX];
    struct server *server;
    json_t *document;
    int rc = server_open(&batch->options->server, &server, error, sizeof error);
    if (rc < 0)
        return command_fail(rc == -EINVAL ? EX_USAGE : command_exit_code(rc), "%s", error);
    rc = server_status(server, &document, error, sizeof error);
    if (rc == 0) {
        json_int_t workers = 0;
        const json_t *models = json_object_get(document, "models");
        for (size_t i = 0; i < json_array_size(models); i++)
            workers += json_integer_value(
                json_object_get(json_array_get(models, i), "workers_ready"));
        *jobs = workers > 0 && workers <= BATCH_JOBS_MAX / 2 ? (unsigned)workers * 2 : 4;
        json_decref(document);
        server_legend(server, &batch->legend);
    }
    server_close(server);
    if (rc < 0)
        return command_fail(command_exit_code(rc), "%s", error);
    if (batch->options->codes && batch->legend.class_count == 0)
        return command_fail(EX_UNAVAILABLE, "the server does not tell its classes' codes");
    return -1;
}

static int batch_sum_up(const struct batch *batch, double seconds)
{
    size_t left = batch->list->count - batch->done - batch->skipped - batch->failed;
    double rate = seconds > 0 ? (double)batch->requests / seconds : 0;
    if (batch->options->json)
        printf("{\"done\":%zu,\"skipped\":%zu,\"failed\":%zu,\"left\":%zu,\"tiles\":%" PRIu64
               ",\"seconds\":%.3f,\"tiles_per_second\":%.3f}\n",
               batch->done, batch->skipped, batch->failed, left, batch->requests, seconds, rate);
    else
        printf("%s%zu done, %zu skipped, %zu failed; %" PRIu64 " tiles in %.1f s, %.1f tiles/s\n",
               isatty(STDERR_FILENO) && isatty(STDOUT_FILENO) ? "\n" : "", batch->done,
               batch->skipped, batch->failed, batch->requests, seconds, rate);
    if (left > 0)
        return command_fail(EX_TEMPFAIL, "interrupted with %zu files left; the same line goes on",
                            left);
    if (batch->failed > 0)
        return command_fail(EX_DATAERR, "%zu of %zu files failed", batch->failed,
                            batch->list->count);
    return EX_OK;
}

static void batch_run(struct batch *batch, unsigned jobs)
{
    pthread_t threads[BATCH_JOBS_MAX];
    unsigned started = 0;
    jobs = jobs < batch->list->count ? jobs : (unsigned)batch->list->count;
    while (started + 1 < jobs && pthread_create(&threads[started], NULL, batch_thread, batch) == 0)
        started++;
    batch_thread(batch);
    while (started > 0)
        pthread_join(threads[--started], NULL);
}

int command_batch(int argc, char **argv)
{
    struct batch_options options = {
        .server = {.timeout_ms = 30000, .patience_ms = 60000, .stop = &batch_stop},
        .window = WINDOW_DEFAULT,
        .format = "tif"};
    struct batch_list list = {.names = NULL};
    static struct batch batch = {.lock = PTHREAD_MUTEX_INITIALIZER};
    int code = take_options(&options, argc, argv);
    if (code >= 0)
        return code;
    unsigned jobs = 0;
    batch.options = &options;
    batch.list = &list;
    code = list_read(&options, &list);
    if (code < 0)
        code = batch_meet_server(&batch, &jobs);
    if (code < 0) {
        /* The default comes back with the first signal: a second one ends it at once. */
        const struct sigaction action = {.sa_handler = batch_signal,
                                         .sa_flags = SA_RESTART | (int)SA_RESETHAND};
        sigaction(SIGINT, &action, NULL);
        sigaction(SIGTERM, &action, NULL);
        struct timespec start, end;
        clock_gettime(CLOCK_MONOTONIC, &start);
        batch_run(&batch, options.jobs ? options.jobs : jobs);
        clock_gettime(CLOCK_MONOTONIC, &end);
        code = batch_sum_up(&batch, (double)(end.tv_sec - start.tv_sec) +
                                        (double)(end.tv_nsec - start.tv_nsec) / 1e9);
    }
    list_free(&list);
    batch.options = NULL;
    batch.list = NULL;
    return code;
}
