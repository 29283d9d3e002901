/* The configuration's file form. Lines and comments are inih's; sections, line numbers and limits
 * are watched here, because inih tells its handler neither the line nor a section without keys, and
 * cuts long section names. */
#include "unetserve/config.h"

#include "lib/config_address.h"
#include "lib/config_keys.h"
#include "lib/config_oauth.h"
#include "unetserve/admission.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CONFIG_FILE_MAX (1 << 20)
#define CONFIG_LINE_MAX 8192

struct parser {
    const char *text, *end;
    const char *name; /* of the file */
    struct config *config;
    struct config_error *error;
    int line;
    bool failed;
    struct config_model *model; /* of the section; NULL in [server] */
    bool in_section;
    int section_line;
    uint64_t seen_server; /* keys that [server] has had, by number */
    uint64_t seen_model;
    uint32_t first_model;              /* models before it are not this file's */
    int model_lines[QUEUE_MAX_MODELS]; /* where a model's route is given, or else its section begins
                                        */
};

__attribute__((format(printf, 2, 3))) static void error_write(struct config_error *error,
                                                              const char *format, ...)
{
    va_list arguments;
    *error = (struct config_error){""};
    va_start(arguments, format);
    vsnprintf(error->text, sizeof error->text, format, arguments);
    va_end(arguments);
}

/* "FILE:LINE: " and a sentence. The first error of a file is the one that is told. */
__attribute__((format(printf, 3, 4))) static int parser_fail(struct parser *parser, int line,
                                                             const char *format, ...)
{
    if (parser->failed)
        return -EINVAL;
    parser->failed = true;
    char sentence[1280];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sentence, sizeof sentence, format, arguments);
    va_end(arguments);
    error_write(parser->error, "%.100s:%d: %s", parser->name, line, sentence);
    return -EINVAL;
}

static void model_init(struct config_model *model)
{
    *model = (struct config_model){
        .devices = "auto",
        .precision = "auto",
        .convolution = "auto",
        .backend = "auto",
        .sandbox = "server",
        .workers_per_device = 1,
        .batch_timeout_us = CONFIG_MODELS_CHOICE,
        .batch_wait = "receiving",
        .engine_timing = "on",
        .scale_wait_ms = 500,
        .scale_down_after_ms = 800,
        .timeout_ms = 30000,
        .run_timeout_ms = 60000,
    };
}

void config_init(struct config *config)
{
    memset(config, 0, sizeof *config);
    snprintf(config->listen[0], sizeof config->listen[0], "127.0.0.1:8000");
    config->listen_count = 1;
    config->gateways = 1;
    config->max_body_bytes = UINT64_C(512) << 20;
    config->drain_timeout_ms = 30000;
    config->header_timeout_ms = 10000;
    config->send_timeout_ms = 30000;
    config->max_connections = 8192;
    config->max_connections_per_address = 1024;
    config->max_receiving_percent = 75;
    snprintf(config->cors.allow_methods, sizeof config->cors.allow_methods, "GET, POST");
    snprintf(config->cors.allow_credentials, sizeof config->cors.allow_credentials, "off");
    config->cors.max_age = 600;
    snprintf(config->oauth.algorithms, sizeof config->oauth.algorithms, "RS256, ES256");
    config->oauth.leeway_s = 30;
    config->oauth.cache_s = 60;
    config->oauth.refresh_s = 300;
    config->oauth.refetch_s = 10;
    config->oauth.keep_s = 3600;
    config->oauth.grace_s = 60;
    config->oauth.timeout_ms = 5000;
    config->gzip_level = 1;
    config->zstd_level = 1;
    config->compress_min_bytes = 1000;
    snprintf(config->sandbox, sizeof config->sandbox, "auto");
    snprintf(config->docs, sizeof config->docs, "on");
    config->log_format = LOG_FORMAT_TEXT;
    config->log_level = LOG_LEVEL_INFO;
}

/* ---- models ---- */

static bool model_name_fits(const char *name, size_t length)
{
    if (length == 0 || length >= sizeof((struct config_model *)0)->name || name[0] == '.')
        return false;
    for (size_t i = 0; i < length; i++)
        if (!isalnum((unsigned char)name[i]) && !strchr("-_.", name[i]))
            return false;
    return true;
}

static struct config_model *model_find(struct config *config, const char *name)
{
    for (uint32_t i = 0; i < config->model_count; i++)
        if (strcmp(config->models[i].name, name) == 0)
            return &config->models[i];
    return NULL;
}

/* A new model, or NULL when the table is full. The name has been checked. */
static struct config_model *model_new(struct config *config, const char *name)
{
    if (config->model_count == QUEUE_MAX_MODELS)
        return NULL;
    struct config_model *model = &config->models[config->model_count++];
    model_init(model);
    snprintf(model->name, sizeof model->name, "%s", name);
    return model;
}

static bool route_taken(const struct config *config, const char *route)
{
    for (uint32_t i = 0; i < config->model_count; i++)
        if (strcmp(config->models[i].route, route) == 0)
            return true;
    return false;
}

/* Models that were given no route: the first gets /predict if it is vacant, the others
 * /predict/NAME. */
static void routes_fill(struct config *config)
{
    for (uint32_t i = 0; i < config->model_count; i++) {
        struct config_model *model = &config->models[i];
        if (model->route[0])
            continue;
        /* A copy, because the compiler takes two fields of one model for one. */
        char name[sizeof model->name];
        memcpy(name, model->name, sizeof name);
        if (!route_taken(config, "/predict"))
            snprintf(model->route, sizeof model->route, "/predict");
        else
            snprintf(model->route, sizeof model->route, "/predict/%s", name);
    }
}

static bool route_reserved(const char *route)
{
    static const char *const reserved[] = {"/",     "/health",       "/info", "/metrics",
                                           "/docs", "/openapi.json", "/redoc"};
    for (size_t i = 0; i < sizeof reserved / sizeof reserved[0]; i++)
        if (strcmp(route, reserved[i]) == 0)
            return true;
    return strcmp(route, "/v2") == 0 || strncmp(route, "/v2/", 4) == 0;
}

static int model_validate(const struct config *config, uint32_t number, struct config_error *error)
{
    const struct config_model *model = &config->models[number];
    if (!model->path[0]) {
        error_write(error, "[model %s]: key 'path' is missing; allowed: a file or a directory",
                    model->name);
        return -EINVAL;
    }
    if (route_reserved(model->route) || !model->route[0]) {
        error_write(error,
                    "[model %s]: key 'route': '%s' is unetserve's own; allowed: any other than /, "
                    "/health, /info, /metrics, /docs, /openapi.json, /redoc and /v2",
                    model->name, model->route);
        return -EINVAL;
    }
    if (model->batch_timeout_us != CONFIG_MODELS_CHOICE &&
        model->batch_timeout_us / 1000 > model->timeout_ms) {
        error_write(error,
                    "[model %s]: key 'batch_timeout_ms' is more than timeout_ms, %u; allowed: less",
                    model->name, model->timeout_ms);
        return -EINVAL;
    }
    for (uint32_t i = 0; i < number; i++)
        if (strcmp(config->models[i].route, model->route) == 0) {
            error_write(error,
                        "[model %s]: key 'route': '%s' is model %s's already; allowed: a route of "
                        "its own",
                        model->name, model->route, config->models[i].name);
            return -EINVAL;
        }
    return 0;
}

/* ---- the file ---- */

static int section_end(struct parser *parser)
{
    if (parser->in_section && parser->model && !parser->model->path[0])
        return parser_fail(parser, parser->section_line,
                           "[model %s]: key 'path' is missing; allowed: a file or a directory",
                           parser->model->name);
    return 0;
}

static int section_model(struct parser *parser, const char *name)
{
    if (!model_name_fits(name, strlen(name)))
        return parser_fail(parser, parser->line,
                           "[model %.100s]: not a model's name; allowed: up to 63 letters, digits, "
                           "'-', '_' and '.'",
                           name);
    if (model_find(parser->config, name))
        return parser_fail(parser, parser->line,
                           "[model %s]: there is a model of that name already", name);
    parser->model = model_new(parser->config, name);
    if (!parser->model)
        return parser_fail(parser, parser->line, "[model %s]: too many models; allowed: up to %d",
                           name, QUEUE_MAX_MODELS);
    parser->seen_model = 0;
    parser->model_lines[parser->config->model_count - 1] = parser->line;
    return 0;
}

static int section_begin(struct parser *parser, const char *section)
{
    if (section_end(parser))
        return -EINVAL;
    parser->in_section = true;
    parser->section_line = parser->line;
    parser->model = NULL;
    if (strcmp(section, "server") == 0)
        return 0;
    if (strncmp(section, "model ", 6) == 0)
        return section_model(parser, section + 6 + strspn(section + 6, " \t"));
    return parser_fail(parser, parser->line,
                       "[%.100s]: no such section; allowed: [server], [model NAME]", section);
}

/* Does this line, as it stands in the file, open a section? */
static int line_look(struct parser *parser, const char *line, size_t length)
{
    const char *end = line + length;
    if (parser->line == 1 && length >= 3 && memcmp(line, "\xef\xbb\xbf", 3) == 0)
        line += 3;
    while (line < end && isspace((unsigned char)*line))
        line++;
    if (line == end || *line != '[')
        return 0;
    const char *close = memchr(line, ']', (size_t)(end - line));
    char section[256];
    size_t size = close ? (size_t)(close - line - 1) : sizeof section;
    if (size >= sizeof section)
        return parser_fail(parser, parser->line, "a section begins with '[' and ends with ']'");
    const char *rest = close + 1;
    while (rest < end && isspace((unsigned char)*rest))
        rest++;
    if (rest < end && *rest != ';')
        return parser_fail(parser, parser->line, "only a comment may follow a section's ']'");
    memcpy(section, line + 1, size);
    section[size] = '\0';
    return section_begin(parser, section);
}

/* inih's fgets. */
static char *line_read(char *buffer, int size, void *opaque)
{
    struct parser *parser = opaque;
    if (parser->failed || parser->text == parser->end)
        return NULL;
    parser->line++;
    size_t left = (size_t)(parser->end - parser->text);
    const char *newline = memchr(parser->text, '\n', left);
    size_t length = newline ? (size_t)(newline - parser->text) + 1 : left;
    if (size < 2 || length >= (size_t)size) {
        parser_fail(parser, parser->line, "the line is too long; allowed: %d bytes", size - 1);
        return NULL;
    }
    if (memchr(parser->text, '\0', length)) {
        parser_fail(parser, parser->line, "the line has a zero byte in it");
        return NULL;
    }
    if (line_look(parser, parser->text, length))
        return NULL;
    memcpy(buffer, parser->text, length);
    buffer[length] = '\0';
    parser->text += length;
    return buffer;
}

#define ALLOWED_KEYS_MAX 1024 /* all of a kind, and more to come */

static void allowed_keys(bool of_model, char *text, size_t size)
{
    const struct config_key *key;
    size_t at = 0;
    text[0] = '\0';
    for (size_t i = 0; (key = config_key_at(of_model, i)) && at < size; i++)
        at += (size_t)snprintf(text + at, size - at, "%s%s", i ? ", " : "", key->name);
}

/* inih's handler: non-zero goes on. Its idea of the section is not used. */
static int key_take(void *opaque, const char *section, const char *name, const char *value)
{
    (void)section;
    struct parser *parser = opaque;
    if (parser->failed)
        return 0;
    if (!parser->in_section)
        return !parser_fail(parser, parser->line,
                            "key '%.60s' stands before any section; allowed: [server], "
                            "[model NAME]",
                            name);
    bool of_model = parser->model != NULL;
    const struct config_key *key = config_key_find(of_model, name);
    if (!key) {
        char allowed[ALLOWED_KEYS_MAX];
        allowed_keys(of_model, allowed, sizeof allowed);
        return !parser_fail(parser, parser->line, "key '%.60s': no such key; allowed: %s", name,
                            allowed);
    }
    uint64_t *seen = of_model ? &parser->seen_model : &parser->seen_server;
    uint64_t bit = UINT64_C(1) << config_key_number(of_model, key);
    bool list = key->kind == CONFIG_ADDRESSES || key->kind == CONFIG_NETWORKS;
    if ((*seen & bit) && !list)
        return !parser_fail(parser, parser->line, "key '%s': given twice; allowed: once", name);
    void *base = of_model ? (void *)parser->model : (void *)parser->config;
    if (config_key_read(key, base, value ? value : "", *seen & bit))
        return !parser_fail(parser, parser->line, "key '%s': '%.80s' will not do; allowed: %s",
                            name, value ? value : "", key->allowed);
    *seen |= bit;
    if (key->kind == CONFIG_ROUTE)
        parser->model_lines[parser->model - parser->config->models] = parser->line;
    return 1;
}

static int parse_into(struct parser *parser)
{
    ini_allow_multiline = false;
    ini_allow_no_value = false;
    ini_stop_on_first_error = true;
    ini_use_stack = false;
    ini_allow_realloc = false;
    ini_initial_alloc = CONFIG_LINE_MAX;
    ini_max_line = CONFIG_LINE_MAX;
    int bad = ini_parse_stream(line_read, parser, key_take, parser);
    if (parser->failed)
        return -EINVAL;
    if (bad)
        return parser_fail(parser, parser->line, "neither a [section] nor a 'key = value'");
    if (section_end(parser))
        return -EINVAL;
    routes_fill(parser->config);
    for (uint32_t i = parser->first_model; i < parser->config->model_count; i++) {
        struct config_error error = {""};
        if (model_validate(parser->config, i, &error))
            return parser_fail(parser, parser->model_lines[i], "%s", error.text);
    }
    return 0;
}

int config_parse(const char *text, size_t size, const char *name, struct config *config,
                 struct config_error *error)
{
    /* Parsed into a copy: config is as it was when this fails. */
    struct config *copy = malloc(sizeof *copy);
    if (!copy) {
        error_write(error, "%.100s: out of memory", name);
        return -ENOMEM;
    }
    *copy = *config;
    struct parser parser = {
        .text = text,
        .end = text + size,
        .name = name,
        .config = copy,
        .error = error,
        .first_model = config->model_count,
    };
    int failed = parse_into(&parser);
    if (!failed)
        *config = *copy;
    free(copy);
    return failed;
}

int config_load_fd(int fd, const char *name, struct config *config, struct config_error *error)
{
    char *text = malloc(CONFIG_FILE_MAX + 1);
    size_t size = 0;
    int failed = text ? 0 : -ENOMEM;
    while (!failed && size <= CONFIG_FILE_MAX) {
        /* By offset: several processes share the memfd's file position. */
        ssize_t got = pread(fd, text + size, CONFIG_FILE_MAX + 1 - size, (off_t)size);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            failed = -errno;
        if (got <= 0)
            break;
        size += (size_t)got;
    }
    if (!failed && size > CONFIG_FILE_MAX) {
        error_write(error, "%.100s: the file is too large; allowed: %d bytes", name,
                    CONFIG_FILE_MAX);
        failed = -EINVAL;
    } else if (failed) {
        error_write(error, "%.100s: cannot be read: %s", name, strerror(-failed));
    }
    if (!failed)
        failed = config_parse(text, size, name, config, error);
    free(text);
    return failed;
}

int config_load(const char *path, struct config *config, struct config_error *error)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        int failed = -errno;
        error_write(error, "%.200s: cannot be opened: %s", path, strerror(errno));
        return failed;
    }
    int failed = config_load_fd(fd, path, config, error);
    close(fd);
    return failed;
}

uint32_t config_model_devices(const struct config_model *model)
{
    uint32_t commas = 0;
    for (const char *at = model->devices; *at; at++)
        commas += *at == ',';
    bool is_count = model->devices[strspn(model->devices, "0123456789")] == '\0';
    unsigned long count = is_count ? strtoul(model->devices, NULL, 10) : commas + 1;
    return count >= 1 && count <= CONFIG_MAX_DEVICES ? (uint32_t)count : 1;
}

uint32_t config_model_workers(const struct config_model *model)
{
    return model->workers_min ? model->workers_min
                              : model->workers_per_device * config_model_devices(model);
}

bool config_model_is_python(const struct config_model *model)
{
    size_t length = strlen(model->path);
    return length > 3 && strcmp(model->path + length - 3, ".py") == 0;
}

/* ---- the command line ---- */

int config_set(struct config *config, const char *section, const char *key_name, const char *value,
               struct config_error *error)
{
    struct config_model *model = NULL;
    bool of_model = strncmp(section, "model ", 6) == 0;
    if (!of_model && strcmp(section, "server") != 0) {
        error_write(error, "[%.100s]: no such section; allowed: [server], [model NAME]", section);
        return -EINVAL;
    }
    if (of_model && !(model = model_find(config, section + 6))) {
        error_write(error, "[%.100s]: there is no model of that name", section);
        return -EINVAL;
    }
    const struct config_key *key = config_key_find(of_model, key_name);
    if (!key) {
        char allowed[ALLOWED_KEYS_MAX];
        allowed_keys(of_model, allowed, sizeof allowed);
        error_write(error, "key '%.60s': no such key; allowed: %s", key_name, allowed);
        return -EINVAL;
    }
    if (config_key_read(key, of_model ? (void *)model : (void *)config, value, false)) {
        error_write(error, "key '%s': '%.80s' will not do; allowed: %s", key_name, value,
                    key->allowed);
        return -EINVAL;
    }
    return 0;
}

/* "models/my net.pth" is called "my-net". */
static void name_from_path(const char *path, char *name, size_t size)
{
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/')
        end--;
    size_t begin = end;
    while (begin > 0 && path[begin - 1] != '/')
        begin--;
    static const char *const endings[] = {".safetensors", ".pth", ".pt", ".ckpt", ".so", ".py"};
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
        size_t length = strlen(endings[i]);
        if (end - begin > length && strncmp(path + end - length, endings[i], length) == 0) {
            end -= length;
            break;
        }
    }
    size_t at = 0;
    for (size_t i = begin; i < end && at + 1 < size; i++) {
        bool keep = isalnum((unsigned char)path[i]) || strchr("-_", path[i]) ||
                    (path[i] == '.' && at > 0);
        name[at++] = keep ? path[i] : '-';
    }
    name[at] = '\0';
}

int config_add_model(struct config *config, const char *argument, struct config_error *error)
{
    char name[sizeof((struct config_model *)0)->name];
    const char *path = argument;
    const char *equals = strchr(argument, '=');
    if (equals && model_name_fits(argument, (size_t)(equals - argument))) {
        memcpy(name, argument, (size_t)(equals - argument));
        name[equals - argument] = '\0';
        path = equals + 1;
    } else {
        name_from_path(argument, name, sizeof name);
    }
    const struct config_key *key = config_key_find(true, "path");
    struct config_model *model = NULL;
    if (!model_name_fits(name, strlen(name)))
        error_write(error,
                    "'%.200s': no model's name follows from this; allowed: PATH or NAME=PATH",
                    argument);
    else if (model_find(config, name))
        error_write(error, "'%.200s': there is a model called '%s' already; allowed: NAME=PATH",
                    argument, name);
    else if (!(model = model_new(config, name)))
        error_write(error, "'%.200s': too many models; allowed: up to %d", argument,
                    QUEUE_MAX_MODELS);
    if (!model)
        return -EINVAL;
    if (config_key_read(key, model, path, false)) {
        config->model_count--;
        error_write(error, "'%.200s': the path will not do; allowed: %s", argument, key->allowed);
        return -EINVAL;
    }
    routes_fill(config);
    return 0;
}

/* ---- the whole ---- */

static int tls_validate(const struct config *config, struct config_error *error)
{
    bool tls = false;
    for (uint32_t i = 0; i < config->listen_count; i++)
        tls = tls || config_address_is_tls(config->listen[i]);
    const char *missing = !config->tls_certificate[0] ? "tls_certificate"
                          : !config->tls_key[0]       ? "tls_key"
                                                      : NULL;
    if (tls && missing) {
        error_write(error,
                    "[server]: key '%s': an https:// address needs it; allowed: an absolute path",
                    missing);
        return -EINVAL;
    }
    if (!tls && (config->tls_certificate[0] || config->tls_key[0] || config->tls_client_ca[0])) {
        error_write(error, "[server]: key 'listen': no address would use the tls_ keys; allowed: "
                           "https:// before one of them");
        return -EINVAL;
    }
    return 0;
}

int config_validate(const struct config *config, struct config_error *error)
{
    if (config->model_count == 0) {
        error_write(error, "no model is named; allowed: --model PATH, or a section [model NAME] "
                           "in the file of -c");
        return -EINVAL;
    }
    for (uint32_t i = 0; i < config->listen_count; i++)
        for (uint32_t k = 0; k < i; k++)
            if (strcmp(config_address_bare(config->listen[i]),
                       config_address_bare(config->listen[k])) == 0 &&
                strcmp(config->listen[i] + strlen(config->listen[i]) - 2, ":0") != 0) {
                error_write(error, "[server]: key 'listen': '%s' is there twice; allowed: once",
                            config->listen[i]);
                return -EINVAL;
            }
    if (tls_validate(config, error) ||
        config_oauth_validate(config, error->text, sizeof error->text))
        return -EINVAL;
    if (admission_rate_of(config->rate_limit_milli, config->rate_burst).window_us >
        ADMISSION_DEBT_MAX) {
        error_write(error,
                    "[server]: key 'rate_burst': %u requests take more than a day at this "
                    "rate_limit; allowed: what a day brings",
                    config->rate_burst);
        return -EINVAL;
    }
    for (uint32_t i = 0; i < config->model_count; i++)
        if (model_validate(config, i, error))
            return -EINVAL;
    return 0;
}

static int section_write(FILE *file, bool of_model, const void *base)
{
    static char value[CONFIG_LINE_MAX];
    const struct config_key *key;
    for (size_t i = 0; (key = config_key_at(of_model, i)); i++) {
        if (!config_key_write(key, base, value, sizeof value))
            return -ENOSPC;
        if (value[0] && fprintf(file, "%s = %s\n", key->name, value) < 0)
            return -ENOSPC;
    }
    return 0;
}

long config_write(const struct config *config, char *text, size_t size)
{
    FILE *file = size > 0 ? fmemopen(text, size, "w") : NULL;
    if (!file)
        return -ENOSPC;
    bool failed = fprintf(file, "[server]\n") < 0 || section_write(file, false, config);
    for (uint32_t i = 0; !failed && i < config->model_count; i++)
        failed = fprintf(file, "\n[model %s]\n", config->models[i].name) < 0 ||
                 section_write(file, true, &config->models[i]);
    /* What did not fit shows when the stream is flushed. */
    failed = fflush(file) != 0 || failed;
    long length = ftell(file);
    failed = fclose(file) != 0 || failed;
    return failed || length < 0 || (size_t)length >= size ? -ENOSPC : length;
}
