/*
 * unetctl client: a Python program that asks the models of a running server, with nothing but
 * Python's own library. What it has to know stands in the server's /openapi.json.
 */
#include "command.h"
#include "http.h"

#include "lib/json_whole.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

static const char help_text[] =
    "usage: unetctl client [--url URL] [-o FILE] [--force]\n"
    "\n"
    "Writes a Python program that asks the models of a running server and needs nothing but\n"
    "Python's own library.\n"
    "\n"
    "  --url URL   the server; http://127.0.0.1:8000\n"
    "  -o FILE     what to write; client.py\n"
    "  --force     overwrite a file that is there\n";

/* The program, with @URL@ and @MODELS@ where those belong; put in by the assembler. */
__asm__(".pushsection .rodata\n"
        ".local client_program\n"
        "client_program:\n"
        ".incbin \"lib/client/unetctl/client.py\"\n"
        ".byte 0\n"
        ".popsection\n");
extern const char client_program[];

struct order {
    const char *url;
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

/* For a raw string between three ' in Python: JSON needs no ', and a \ is no matter there. */
static bool put_json(FILE *out, const json_t *value)
{
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_INDENT(1) | JSON_ENSURE_ASCII);
    bool whole = text != NULL;
    for (const char *at = text; at && *at; at++)
        if (*at == '\'')
            fputs("\\u0027", out);
        else
            fputc(*at, out);
    free(text);
    return whole;
}

/* False: there is no memory. */
static bool put_program(FILE *out, const json_t *url, const json_t *models)
{
    const char *at = client_program;
    const char *mark;
    while ((mark = strstr(at, "'''@"))) {
        mark += strlen("'''");
        bool is_url = strncmp(mark, "@URL@", 5) == 0;
        fwrite(at, 1, (size_t)(mark - at), out);
        if (!put_json(out, is_url ? url : models))
            return false;
        at = mark + strlen(is_url ? "@URL@" : "@MODELS@");
    }
    fputs(at, out);
    return true;
}

static int write_program(const struct order *order, const json_t *models)
{
    int flags = O_WRONLY | O_CREAT | O_CLOEXEC | (order->force ? O_TRUNC : O_EXCL);
    json_t *url = json_string(order->url);
    if (!url)
        return command_fail(EX_USAGE, "the URL is not UTF-8");
    int fd = open(order->path, flags, 0777);
    FILE *out = fd < 0 ? NULL : fdopen(fd, "w");
    int code = EX_OK;
    if (!out && errno == EEXIST) {
        code = command_fail(EX_CANTCREAT, "%s is there already; --force overwrites it",
                            order->path);
    } else if (!out) {
        code = command_fail(EX_CANTCREAT, "cannot write %s: %s", order->path, strerror(errno));
    } else {
        bool whole = put_program(out, url, models);
        if (fclose(out) || !whole)
            code = command_fail(EX_IOERR, "cannot write %s: %s", order->path, strerror(errno));
    }
    json_decref(url);
    return code;
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
    static const struct option long_options[] = {{"url", required_argument, NULL, 'u'},
                                                 {"output", required_argument, NULL, 'o'},
                                                 {"force", no_argument, NULL, 'f'},
                                                 {"help", no_argument, NULL, 'h'},
                                                 {NULL, 0, NULL, 0}};
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, "ho:", long_options, NULL)) != -1) {
        switch (option) {
        case 'u': order->url = optarg; break;
        case 'o': order->path = optarg; break;
        case 'f': order->force = true; break;
        case 'h':
            fputs(help_text, stdout);
            *code = EX_OK;
            return false;
        default:
            *code = command_fail(EX_USAGE, "unknown option; see unetctl client --help");
            return false;
        }
    }
    if (optind < argc)
        *code = command_fail(EX_USAGE, "client takes no '%s'; see unetctl client --help",
                             argv[optind]);
    return optind == argc;
}

int command_client(int argc, char **argv)
{
    struct order order = {.url = "http://127.0.0.1:8000", .path = "client.py"};
    json_t *document = NULL;
    int code = EX_OK;
    if (!parse(argc, argv, &order, &code))
        return code;
    code = fetch(order.url, &document);
    if (code)
        return code;
    json_t *models = models_of(document);
    json_decref(document);
    if (json_array_size(models) == 0)
        code = command_fail(EX_UNAVAILABLE, "%s tells of no model", order.url);
    else
        code = write_program(&order, models);
    json_decref(models);
    if (!code)
        printf("%s is written. Next:\n\n    python3 %s\n", order.path, order.path);
    return code;
}
