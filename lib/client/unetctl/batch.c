/*
 * unetctl batch: a directory of tiles in, a directory of masks out. Threads take files off one
 * list, each over a connection of its own; a mask gets its name when it is whole.
 */
#include "command.h"
#include "masks.h"

#include <assert.h>
#include <errno.h>
#include <ftw.h>
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#define BATCH_FILES_MAX ((size_t)1 << 22)

struct batch_options {
    struct masks_options masks;
    const char *input;
    unsigned shard, shards;
    bool recursive;
};

static const char help_text[] =
    "usage: unetctl batch DIR -o OUT [--url URL | --endpoint ADDRESS] [OPTION]...\n"
    "\n"
    "Sends every .npy and .tif of a directory to unetserve and writes their masks. Run again, it\n"
    "goes on where it ended.\n"
    "\n"
    "  -o, --output OUT    directory of the masks\n" MASKS_HELP
    "      --recursive     directories below, too\n"
    "      --force         make masks again that are there\n"
    "      --shard I/N     only part I of N, for job arrays (1/N to N/N)\n"
    "      --json          a line of JSON for each file, and a summary\n"
    "\n"
    "UNETSERVE_API_KEY in the environment is sent with requests over HTTP.\n";

enum { OPTION_RECURSIVE = MASKS_OWN, OPTION_SHARD };

static const struct option long_options[] = {
    MASKS_LONG_OPTIONS,
    {"json", no_argument, NULL, MASKS_JSON},
    {"force", no_argument, NULL, MASKS_FORCE},
    {"recursive", no_argument, NULL, OPTION_RECURSIVE},
    {"shard", required_argument, NULL, OPTION_SHARD},
    {NULL, 0, NULL, 0},
};

/* ---- options ---- */

static int take_shard(struct batch_options *options)
{
    char end;
    if (sscanf(optarg, "%5u/%5u%c", &options->shard, &options->shards, &end) != 2 ||
        options->shard < 1 || options->shard > options->shards)
        return command_fail(EX_USAGE, "--shard is '%s', expected I/N with I from 1 to N", optarg);
    return -1;
}

/* -1: go on; else the exit code. */
static int take_option(struct batch_options *options, int option)
{
    switch (option) {
    case OPTION_RECURSIVE: options->recursive = true; return -1;
    case OPTION_SHARD: return take_shard(options);
    default: return masks_take_option(&options->masks, help_text, option);
    }
}

static int take_options(struct batch_options *options, int argc, char **argv)
{
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, ":o:h", long_options, NULL)) != -1) {
        int code = take_option(options, option);
        if (code >= 0)
            return code;
    }
    if (argc - optind != 1)
        return command_fail(EX_USAGE, "batch takes one directory, %d were given", argc - optind);
    options->input = argv[optind];
    if (!options->masks.output)
        return command_fail(EX_USAGE, "batch needs -o OUT, a directory for the masks");
    return masks_check_options(&options->masks);
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
    if (kind != FTW_F || !S_ISREG(status->st_mode) || !masks_is_tile(path))
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
    assert(options->input && options->masks.output);
    if (stat(options->input, &input) != 0 || !S_ISDIR(input.st_mode))
        return command_fail(EX_NOINPUT, "'%s' is no directory", options->input);
    int code = masks_open_output(options->masks.output, options->input);
    if (code >= 0)
        return code;
    if (stat(options->masks.output, &walk.output) != 0)
        return command_fail(EX_CANTCREAT, "'%s' went away", options->masks.output);
    walk.options = options;
    walk.list = list;
    walk.prefix = strlen(options->input);
    if (nftw(options->input, walk_visit, 16, FTW_PHYS | FTW_ACTIONRETVAL) != 0)
        return command_fail(EX_NOINPUT, "cannot list '%s' and what is below it", options->input);
    if (list->count)
        qsort(list->names, list->count, sizeof *list->names, name_compare);
    return -1;
}

struct batch {
    const struct batch_options *options;
    const struct batch_list *list;
    struct unetserve_interface legend; /* read-only once threads run */
    pthread_mutex_t lock;              /* guards what follows, and the output */
    size_t next;
    size_t done, skipped, failed;
    uint64_t requests;
};

/* ---- their masks ---- */

static void batch_tell(struct batch *batch, const char *name, int rc, const char *error)
{
    const struct masks_options *options = &batch->options->masks;
    bool bar = isatty(STDERR_FILENO) && !options->json;
    if (options->json) {
        masks_tell_json(name, rc, error);
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

static int file_run(struct batch *batch, struct server *server, const char *name,
                    unsigned *requests, char *error, size_t error_size)
{
    const struct batch_options *options = batch->options;
    char input[MASKS_PATH_MAX];
    const struct masks_one one = {.input = input, .name = name};
    if (snprintf(input, sizeof input, "%s/%s", options->input, name) >= (int)sizeof input) {
        snprintf(error, error_size, "its path is too long");
        return -ENAMETOOLONG;
    }
    return masks_run(&options->masks, &batch->legend, server, &one, requests, error, error_size);
}

static void *batch_thread(void *argument)
{
    struct batch *batch = argument;
    char error[COMMAND_ERROR_MAX];
    struct server *server = NULL;
    int opened = server_open(&batch->options->masks.server, &server, error, sizeof error);
    pthread_mutex_lock(&batch->lock);
    while (!atomic_load(&masks_stop) && batch->next < batch->list->count) {
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

static int batch_sum_up(const struct batch *batch, double seconds)
{
    size_t left = batch->list->count - batch->done - batch->skipped - batch->failed;
    double rate = seconds > 0 ? (double)batch->requests / seconds : 0;
    if (batch->options->masks.json)
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
    pthread_t threads[MASKS_JOBS_MAX];
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
    struct batch_options options = {.masks = masks_defaults()};
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
        code = masks_meet_server(&options.masks, &batch.legend, &jobs);
    if (code < 0) {
        masks_catch_signals();
        struct timespec start, end;
        clock_gettime(CLOCK_MONOTONIC, &start);
        batch_run(&batch, jobs);
        clock_gettime(CLOCK_MONOTONIC, &end);
        code = batch_sum_up(&batch, (double)(end.tv_sec - start.tv_sec) +
                                        (double)(end.tv_nsec - start.tv_nsec) / 1e9);
    }
    list_free(&list);
    batch.options = NULL;
    batch.list = NULL;
    return code;
}
