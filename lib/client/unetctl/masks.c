#include "masks.h"

#include "command.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <time.h>

/* ---- options ---- */

atomic_bool masks_stop;

struct masks_options masks_defaults(void)
{
    return (struct masks_options){
        .server = {.timeout_ms = 30000, .patience_ms = 60000, .stop = &masks_stop},
        .window = WINDOW_DEFAULT,
        .format = "tif"};
}

static int take_number(const char *name, int64_t low, int64_t high, int64_t *out)
{
    if (!command_parse_number(optarg, low, high, out))
        return command_fail(EX_USAGE, "%s is '%s', expected %" PRId64 " to %" PRId64, name, optarg,
                            low, high);
    return -1;
}

static int take_numeric_option(struct masks_options *options, int option)
{
    int64_t number = 0;
    int code;
    switch (option) {
    case MASKS_OFFSET:
        code = take_number("--offset", -1000000, 1000000, &number);
        options->offset = (int)number;
        return code;
    case MASKS_WINDOW:
        code = take_number("--window", 0, 65536, &number);
        options->window = (unsigned)number;
        if (code < 0 && number && number < WINDOW_LEAST)
            return command_fail(EX_USAGE, "--window is '%s', expected 0 or %d to 65536", optarg,
                                WINDOW_LEAST);
        return code;
    case MASKS_JOBS:
        code = take_number("--jobs", 1, MASKS_JOBS_MAX, &number);
        options->jobs = (unsigned)number;
        return code;
    case MASKS_TIMEOUT:
        code = take_number("--timeout", 1, 86400000, &number);
        options->server.timeout_ms = (int)number;
        return code;
    case MASKS_PATIENCE:
        code = take_number("--patience", 0, 86400000, &number);
        options->server.patience_ms = (int)number;
        return code;
    case MASKS_PRIORITY:
        code = take_number("--priority", -9, 9, &number);
        options->server.priority = (int)number;
        return code;
    default: return command_bad_option(option);
    }
}

int masks_take_option(struct masks_options *options, const char *help, int option)
{
    switch (option) {
    case 'o': options->output = optarg; return -1;
    case MASKS_URL: options->server.url = optarg; return -1;
    case MASKS_ENDPOINT: options->server.endpoint = optarg; return -1;
    case MASKS_MODEL: options->server.model = optarg; return -1;
    case MASKS_FORMAT: options->format = optarg; return -1;
    case MASKS_CODES: options->codes = true; return -1;
    case MASKS_FORCE: options->force = true; return -1;
    case MASKS_JSON: options->json = true; return -1;
    case 'h': fputs(help, stdout); return EX_OK;
    default: return take_numeric_option(options, option);
    }
}

int masks_check_options(const struct masks_options *options)
{
    if (strcmp(options->format, "tif") != 0 && strcmp(options->format, "npy") != 0 &&
        strcmp(options->format, "png") != 0)
        return command_fail(EX_USAGE, "--format is '%s', expected tif, npy or png",
                            options->format);
    if (options->server.url && (options->server.endpoint || options->server.model))
        return command_fail(EX_USAGE, "--url excludes --endpoint and --model");
    if (options->server.priority && !options->server.url)
        return command_fail(EX_USAGE, "--priority goes over HTTP: say where with --url");
    return -1;
}

/* ---- before the first one ---- */

static void masks_signal(int number)
{
    (void)number;
    atomic_store(&masks_stop, true);
}

void masks_catch_signals(void)
{
    /* The default comes back with the first signal. */
    const struct sigaction action = {.sa_handler = masks_signal,
                                     .sa_flags = SA_RESTART | (int)SA_RESETHAND};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

int masks_open_output(const char *output, const char *input)
{
    struct stat of_output, of_input;
    if ((mkdir(output, 0777) != 0 && errno != EEXIST) || stat(output, &of_output) != 0 ||
        !S_ISDIR(of_output.st_mode))
        return command_fail(EX_CANTCREAT, "'%s' is no directory and cannot become one", output);
    if (input && stat(input, &of_input) == 0 && of_input.st_dev == of_output.st_dev &&
        of_input.st_ino == of_output.st_ino)
        return command_fail(EX_USAGE, "masks cannot go where the tiles are, '%s'", input);
    return -1;
}

bool masks_is_tile(const char *path)
{
    return command_has_suffix(path, ".npy") || command_has_suffix(path, ".tif") ||
           command_has_suffix(path, ".tiff");
}

static unsigned jobs_for(const json_t *status)
{
    json_int_t workers = 0;
    const json_t *models = json_object_get(status, "models");
    for (size_t i = 0; i < json_array_size(models); i++)
        workers += json_integer_value(json_object_get(json_array_get(models, i), "workers_ready"));
    return workers > 0 && workers <= MASKS_JOBS_MAX / 2 ? (unsigned)workers * 2 : 4;
}

int masks_meet_server(const struct masks_options *options, struct unetserve_interface *legend,
                      unsigned *jobs)
{
    char error[COMMAND_ERROR_MAX];
    struct server *server;
    json_t *document;
    int rc = server_open(&options->server, &server, error, sizeof error);
    if (rc < 0)
        return command_fail(rc == -EINVAL ? EX_USAGE : command_exit_code(rc), "%s", error);
    rc = server_status(server, &document, error, sizeof error);
    if (rc == 0) {
        *jobs = options->jobs ? options->jobs : jobs_for(document);
        json_decref(document);
        server_legend(server, legend);
    }
    server_close(server);
    if (rc < 0)
        return command_fail(command_exit_code(rc), "%s", error);
    if (options->codes && legend->class_count == 0)
        return command_fail(EX_UNAVAILABLE, "the server does not tell its classes' codes");
    return -1;
}

/* ---- one ---- */

/* The mask's path: the tile's whole name, so that a.npy and a.tif have masks of their own. part:
 * what it is called until it is whole; of MASKS_PATH_MAX each. False: too long. */
static bool mask_paths(const struct masks_options *options, const char *name, char *path,
                       char *part)
{
    const char *slash = strrchr(name, '/');
    const char *base = slash ? slash + 1 : name;
    const char *dot = strrchr(base, '.');
    bool short_suffix = dot && command_has_suffix(name, ".tif");
    int stem = short_suffix ? (int)(dot - name)
                            : (int)strlen(name); /* a.tif may lie beside a.tiff */
    int used = snprintf(path, MASKS_PATH_MAX, "%s/%.*s.%s", options->output, stem, name,
                        options->format);
    if (used >= MASKS_PATH_MAX)
        return false;
    const char *last = strrchr(path, '/');
    assert(last);
    used = snprintf(part, MASKS_PATH_MAX, "%.*s/.%s.part.%s", (int)(last - path), path, last + 1,
                    options->format);
    return used < MASKS_PATH_MAX;
}

static bool is_later(const struct timespec *one, const struct timespec *other)
{
    return one->tv_sec != other->tv_sec ? one->tv_sec > other->tv_sec
                                        : one->tv_nsec > other->tv_nsec;
}

static bool mask_is_there(const struct masks_one *one, const char *mask)
{
    struct stat of_input, of_mask;
    if (stat(one->input, &of_input) != 0 || stat(mask, &of_mask) != 0)
        return false;
    /* A file that is moved here may be older than the mask of the one that it replaces. */
    return one->watched ? is_later(&of_mask.st_mtim, &of_input.st_ctim)
                        : !is_later(&of_input.st_mtim, &of_mask.st_mtim);
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
    char companion[2][MASKS_PATH_MAX + 16];
    snprintf(companion[0], sizeof companion[0], "%s.aux.xml", part);
    snprintf(companion[1], sizeof companion[1], "%s.aux.xml", path);
    if (rename(companion[0], companion[1]) != 0 && errno != ENOENT)
        return -errno;
    return rename(part, path) == 0 ? 0 : -errno;
}

static int mask_write(const struct masks_options *options, const struct unetserve_interface *legend,
                      const struct image *image, struct windows_result *result, const char *name,
                      char *error, size_t error_size)
{
    char path[MASKS_PATH_MAX], part[MASKS_PATH_MAX];
    if (!mask_paths(options, name, path, part)) {
        snprintf(error, error_size, "its path is too long");
        return -ENAMETOOLONG;
    }
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
    rc = mask_file_write(part, &result->shape, result->labels, options->codes, legend, image, error,
                         error_size);
    if (rc == 0 && (rc = mask_publish(part, path)) < 0)
        snprintf(error, error_size, "cannot name '%.2000s': %s", path, strerror(-rc));
    return rc;
}

int masks_predict(const struct masks_options *options, struct server *server, struct image *image,
                  struct windows_result *out, char *error, size_t error_size)
{
    int rc = options->offset != 0 ? image_add_offset(image, options->offset) : 0;
    if (rc < 0) {
        snprintf(error, error_size, "--offset cannot be added to %s",
                 unetserve_dtype_name(image->shape.dtype));
        return rc;
    }
    image_blank_hidden(image);
    return windows_predict(server, image, options->window, out, error, error_size);
}

int masks_run(const struct masks_options *options, const struct unetserve_interface *legend,
              struct server *server, const struct masks_one *one, unsigned *requests, char *error,
              size_t error_size)
{
    char path[MASKS_PATH_MAX], part[MASKS_PATH_MAX];
    if (!options->force && mask_paths(options, one->name, path, part) && mask_is_there(one, path))
        return 1;
    struct image image;
    struct windows_result result = {.labels = NULL};
    int rc = image_read(one->input, &image, error, error_size);
    if (rc < 0)
        return rc;
    rc = masks_predict(options, server, &image, &result, error, error_size);
    if (rc == 0) {
        *requests = result.requests;
        rc = mask_write(options, legend, &image, &result, one->name, error, error_size);
    }
    free(result.labels);
    image_free(&image);
    return rc;
}

/* ---- what is told ---- */

/* Names need not be UTF-8, JSON's strings must: what is not ASCII becomes ?. */
static json_t *name_json(const char *name)
{
    json_t *text = json_string(name);
    char *plain = text ? NULL : strdup(name);
    for (char *at = plain; at && *at; at++)
        if (*at & 0x80)
            *at = '?';
    if (plain)
        text = json_string(plain);
    free(plain);
    return text;
}

char *masks_json_line(const char *name, int rc, const char *error)
{
    const char *state = rc < 0 ? "failed" : rc == 0 ? "done" : "skipped";
    json_t *line = json_pack("{s:o, s:s}", "file", name_json(name), "state", state);
    if (line && rc < 0)
        json_object_set_new(line, "error", name_json(error));
    char *text = line ? json_dumps(line, JSON_COMPACT) : NULL;
    size_t length = text ? strlen(text) : 0;
    char *whole = text ? realloc(text, length + 2) : NULL;
    if (whole)
        memcpy(whole + length, "\n", 2);
    else
        free(text);
    json_decref(line);
    return whole;
}

void masks_tell_json(const char *name, int rc, const char *error)
{
    char *line = masks_json_line(name, rc, error);
    if (line) {
        fputs(line, stdout);
        fflush(stdout);
    }
    free(line);
}
