/*
 * unetctl client: a Python program that asks the models of a server, with nothing but Python's own
 * library. What it has to know stands in the server's /openapi.json, or unetserve tells it.
 */
#include "command.h"
#include "http.h"

#include "lib/client_file.h"
#include "lib/json_whole.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

static const char help_text[] =
    "usage: unetctl client [--url URL] [--model MODEL] [-o FILE] [--force]\n"
    "\n"
    "Writes a Python program that asks the models of a server and needs nothing but Python's own\n"
    "library.\n"
    "\n"
    "  --url URL      the server, which is asked what it serves; http://127.0.0.1:8000\n"
    "  --model MODEL  what it will serve: no server need run\n"
    "  -o FILE        what to write; client.py\n"
    "  --force        overwrite a file that is there\n";

struct order {
    const char *url;
    const char *listen; /* the same without http:// */
    const char *model;  /* NULL: ask the server */
    const char *path;
    bool force;
};

/* [{"route", and what the server says of the model}], NULL without memory. */
static json_t *models_of(json_t *document)
{
    json_t *models = json_array();
    const char *route;
    json_t *item;
    json_object_foreach(json_object_get(document, "paths"), route, item)
    {
        json_t *facts = json_object_get(json_object_get(item, "post"), "x-unetserve-model");
        if (!json_is_object(facts))
            continue;
        json_t *model = json_pack("{s:s}", "route", route);
        if (model && json_object_update(model, facts)) {
            json_decref(model);
            model = NULL;
        }
        json_whole_append(&models, model);
    }
    return models;
}

/* The file gets its name when it is whole. */
static int publish(const struct order *order, const char *part)
{
    /* link() does not overwrite. */
    int rc = order->force ? rename(part, order->path) : link(part, order->path);
    int reason = errno;
    if (!order->force || rc)
        unlink(part);
    if (rc == 0)
        return EX_OK;
    if (reason == EEXIST)
        return command_fail(EX_CANTCREAT, "%s is there already; --force overwrites it",
                            order->path);
    return command_fail(EX_CANTCREAT, "cannot write %s: %s", order->path, strerror(reason));
}

static bool part_of(const char *path, char *part, size_t size)
{
    int length = snprintf(part, size, "%s.%ld.part", path, (long)getpid());
    return length > 0 && (size_t)length < size;
}

static int write_program(const struct order *order, const json_t *models)
{
    char part[PATH_MAX];
    if (!part_of(order->path, part, sizeof part))
        return command_fail(EX_USAGE, "the file's path is too long");
    int rc = client_file_write(part, order->url, models);
    if (rc < 0)
        return command_fail(EX_CANTCREAT, "cannot write %s: %s", order->path, strerror(-rc));
    return publish(order, part);
}

/* Without a server: unetserve says what it would serve, and writes the program. */
static int write_for_model(const struct order *order)
{
    char part[PATH_MAX], directory[PATH_MAX], program[PATH_MAX + 16];
    char *const words[] = {program,
                           "--model",
                           (char *)order->model,
                           "--listen",
                           (char *)order->listen,
                           "--client-file",
                           part,
                           "--check",
                           NULL};
    posix_spawn_file_actions_t actions;
    pid_t child;
    int status = 0;
    if (!part_of(order->path, part, sizeof part))
        return command_fail(EX_USAGE, "the file's path is too long");
    if (!command_directory(directory, sizeof directory))
        return command_fail(EX_UNAVAILABLE, "its own directory's path is too long");
    snprintf(program, sizeof program, "%s/unetserve", directory);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    int rc = posix_spawn(&child, program, &actions, NULL, words, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (rc != 0)
        return command_fail(EX_OSERR, "cannot start %s: %s", program, strerror(rc));
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) /* it has said why */
        return WIFEXITED(status) ? WEXITSTATUS(status) : EX_SOFTWARE;
    return publish(order, part);
}

/* What the server says of itself: 0 with *document, or the exit code after a sentence. */
static int fetch(const char *url, json_t **document)
{
    char error[COMMAND_ERROR_MAX];
    struct http *http;
    struct unetserve_answer answer = {.status = 0};
    int rc = http_open(url, 10000, &http, error, sizeof error);
    if (rc < 0)
        return command_fail(command_exit_code(rc), "%s", error);
    rc = http_get(http, "/openapi.json", &answer, error, sizeof error);
    http_close(http);
    if (rc < 0)
        return command_fail(command_exit_code(rc), "%s", error);
    int code = EX_OK;
    if (answer.status != 200)
        code = command_fail(EX_UNAVAILABLE,
                            "%s answers %d to /openapi.json: is it an unetserve, with docs = on?",
                            url, answer.status);
    else if (!(*document = json_whole_load(answer.data, answer.bytes, 0, NULL)))
        code = command_fail(EX_PROTOCOL, "%s: its /openapi.json is no JSON", url);
    unetserve_answer_free(&answer);
    return code;
}

/* True: go on. */
static bool parse(int argc, char **argv, struct order *order, int *code)
{
    static const struct option long_options[] = {
        {"url", required_argument, NULL, 'u'},    {"model", required_argument, NULL, 'm'},
        {"output", required_argument, NULL, 'o'}, {"force", no_argument, NULL, 'f'},
        {"help", no_argument, NULL, 'h'},         {NULL, 0, NULL, 0}};
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, ":ho:", long_options, NULL)) != -1) {
        switch (option) {
        case 'u': order->url = optarg; break;
        case 'm': order->model = optarg; break;
        case 'o': order->path = optarg; break;
        case 'f': order->force = true; break;
        case 'h':
            fputs(help_text, stdout);
            *code = EX_OK;
            return false;
        default: *code = command_bad_option(option); return false;
        }
    }
    if (optind < argc)
        *code = command_fail(EX_USAGE, "client takes no '%s'; see unetctl client --help",
                             argv[optind]);
    if (optind == argc && order->model && strncmp(order->url, "http://", 7) != 0)
        *code = command_fail(EX_USAGE, "--url is '%s', expected http://HOST:PORT", order->url);
    order->listen = order->url + strlen("http://");
    return *code == EX_OK;
}

int command_client(int argc, char **argv)
{
    struct order order = {.url = "http://127.0.0.1:8000", .path = "client.py"};
    json_t *document = NULL;
    int code = EX_OK;
    if (!parse(argc, argv, &order, &code))
        return code;
    if (order.model) {
        code = write_for_model(&order);
    } else if ((code = fetch(order.url, &document)) == EX_OK) {
        json_t *models = models_of(document);
        json_decref(document);
        code = json_array_size(models)
                   ? write_program(&order, models)
                   : command_fail(EX_UNAVAILABLE, "%s tells of no model", order.url);
        json_decref(models);
    }
    if (!code)
        printf("%s is written. Next:\n\n    python3 %s\n", order.path, order.path);
    return code;
}
