/*
 * load: a bounded load on a server of this machine, and a report of it as JSON. Run it without
 * arguments for its options; bench/README.md says how to read what it prints.
 */
#include "load.h"
#include "report.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>

#define FIELDS_MAX 16
#define FILE_MOST  (INT64_C(1) << 30)

static const char usage_text[] =
    "usage: load URL [OPTION]...\n"
    "\n"
    "Asks a server on this machine's loopback again and again and prints a report as JSON.\n"
    "\n"
    "  --clients N      connections (1)\n"
    "  --rate R         open loop: R requests a second, whatever the answers do; without it each\n"
    "                   connection asks as soon as it was answered\n"
    "  --poisson        in an open loop: exponentially distributed gaps\n"
    "  --seed N         of these gaps (1)\n"
    "  --seconds S      how long (5), at most 600\n"
    "  --count N        requests at most\n"
    "  --timeout S      how long to wait for the last answers (30), at most 600\n"
    "  --body FILE      a POST with this body; without it a GET\n"
    "  --expect FILE    what the answer to that body must be; both may be given several times\n"
    "  --header 'N: V'  a field of each request, such as 'Content-Type: application/json'\n"
    "\n"
    "Exit status 0 when every request was answered rightly, 1 when not, 64 and more: it did not "
    "run.\n";

struct command {
    const char *url;
    const char *fields[FIELDS_MAX];
    const char *bodies[LOAD_REQUESTS_MAX];
    const char *expected[LOAD_REQUESTS_MAX];
    size_t field_count, body_count, expected_count;
    struct load_settings settings;
};

static int fail(int code, const char *what, const char *why)
{
    fprintf(stderr, "load: %s: %s\n", what, why);
    return code;
}

/* ---- the command line ---- */

static int take_number(const char *name, double least, double most, double *out)
{
    char *end = NULL;
    double value = strtod(optarg, &end);
    if (end == optarg || *end != '\0' || !(value >= least && value <= most)) {
        fprintf(stderr, "load: --%s is '%s', expected a number from %g to %g\n", name, optarg,
                least, most);
        return -EINVAL;
    }
    *out = value;
    return 0;
}

static int take_text(const char **list, size_t *count, size_t most)
{
    if (*count == most) {
        fprintf(stderr, "load: too many of an option, at most %zu\n", most);
        return -EINVAL;
    }
    list[(*count)++] = optarg;
    return 0;
}

static int take_option(struct command *command, int option)
{
    struct load_settings *s = &command->settings;
    double number = 0;
    int error = 0;
    switch (option) {
    case 'c':
        error = take_number("clients", 1, LOAD_CLIENTS_MAX, &number);
        s->clients = (uint32_t)number;
        return error;
    case 'r': return take_number("rate", 1e-3, 1e7, &s->per_second);
    case 'p': s->poisson = true; return 0;
    case 'g':
        error = take_number("seed", 0, 1e15, &number);
        s->seed = (uint64_t)number;
        return error;
    case 's': return take_number("seconds", 1e-3, 600, &s->seconds);
    case 'n':
        error = take_number("count", 1, 1e9, &number);
        s->count = (uint64_t)number;
        return error;
    case 't': return take_number("timeout", 0, 600, &s->timeout_s);
    case 'b': return take_text(command->bodies, &command->body_count, LOAD_REQUESTS_MAX);
    case 'e': return take_text(command->expected, &command->expected_count, LOAD_REQUESTS_MAX);
    case 'h': return take_text(command->fields, &command->field_count, FIELDS_MAX);
    default: return -EINVAL;
    }
}

static int parse(int argc, char **argv, struct command *command)
{
    static const struct option options[] = {
        {"clients", required_argument, NULL, 'c'},
        {"rate", required_argument, NULL, 'r'},
        {"poisson", no_argument, NULL, 'p'},
        {"seed", required_argument, NULL, 'g'},
        {"seconds", required_argument, NULL, 's'},
        {"count", required_argument, NULL, 'n'},
        {"timeout", required_argument, NULL, 't'},
        {"body", required_argument, NULL, 'b'},
        {"expect", required_argument, NULL, 'e'},
        {"header", required_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (take_option(command, option) != 0) {
            return -EINVAL;
        }
    }
    if (optind + 1 != argc) {
        return -EINVAL;
    }
    command->url = argv[optind];
    if (command->expected_count > (command->body_count > 0 ? command->body_count : 1)) {
        fputs("load: more of --expect than of --body\n", stderr);
        return -EINVAL;
    }
    return 0;
}

/* ---- requests ---- */

static int read_file(const char *path, unsigned char **out, size_t *size)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        return -errno;
    }
    struct stat status;
    unsigned char *bytes = NULL;
    int error = fstat(fileno(file), &status) != 0 ? -errno : 0;
    if (error == 0 && (!S_ISREG(status.st_mode) || status.st_size > FILE_MOST)) {
        error = -EFBIG;
    }
    if (error == 0) {
        bytes = (unsigned char *)malloc((size_t)status.st_size + 1);
        error = bytes == NULL ? -ENOMEM : 0;
    }
    if (error == 0 && fread(bytes, 1, (size_t)status.st_size, file) != (size_t)status.st_size) {
        error = -EIO;
    }
    fclose(file);
    if (error != 0) {
        free(bytes);
        return error;
    }
    *out = bytes;
    *size = (size_t)status.st_size;
    return 0;
}

static int make_request(const struct command *command, const struct target *target, size_t i,
                        struct target_request *out)
{
    unsigned char *body = NULL;
    unsigned char *expected = NULL;
    size_t body_size = 0;
    size_t expected_size = 0;
    const char *what = i < command->body_count ? command->bodies[i] : "a request";
    int error = 0;
    if (i < command->body_count) {
        error = read_file(command->bodies[i], &body, &body_size);
    }
    if (error == 0 && i < command->expected_count) {
        what = command->expected[i];
        error = read_file(what, &expected, &expected_size);
    }
    if (error == 0) {
        error = target_request_make(target, command->fields, command->field_count, body, body_size,
                                    out);
    }
    free(body);
    if (error != 0) {
        free(expected);
        return fail(EX_NOINPUT, what, strerror(-error));
    }
    out->expected = (struct answer_expected){.bytes = expected, .size = expected_size};
    return 0;
}

/* ---- a run ---- */

static int run(const struct load_settings *settings)
{
    static struct load_result result;
    char reason[256];
    if (load_run(settings, &result, reason, sizeof reason) != 0) {
        return fail(EX_UNAVAILABLE, "no load", reason);
    }
    char *text = report_text(settings, &result);
    if (text == NULL) {
        return fail(EX_OSERR, "report", strerror(ENOMEM));
    }
    puts(text);
    free(text);
    return result.right == result.sent && result.sent > 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
    struct command command = {
        .settings = {.clients = 1, .seed = 1, .count = 1000000000, .seconds = 5, .timeout_s = 30}};
    if (parse(argc, argv, &command) != 0) {
        fputs(usage_text, stderr);
        return EX_USAGE;
    }
    struct target target;
    int error = target_parse(command.url, &target);
    if (error != 0) {
        return fail(EX_USAGE, command.url,
                    error == -EACCES ? "not on this machine's loopback, and nothing else is asked"
                                     : "expected http://127.0.0.1:PORT/PATH");
    }
    struct target_request requests[LOAD_REQUESTS_MAX] = {0};
    uint32_t count = command.body_count > 0 ? (uint32_t)command.body_count : 1;
    int code = 0;
    for (uint32_t i = 0; i < count && code == 0; i++) {
        code = make_request(&command, &target, i, &requests[i]);
    }
    if (code == 0) {
        command.settings.target = &target;
        command.settings.requests = requests;
        command.settings.request_count = count;
        code = run(&command.settings);
    }
    for (uint32_t i = 0; i < count; i++) {
        free(requests[i].bytes);
        free((void *)(uintptr_t)requests[i].expected.bytes);
    }
    return code;
}
