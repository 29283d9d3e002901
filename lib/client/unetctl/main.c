/*
 * unetctl: unetserve from the command line. The commands are in files of their own.
 */
#include "command.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

struct command_row {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
};

static const struct command_row command_rows[] = {
    {"predict", command_predict, "send a tile, write its mask"},
    {"batch", command_batch, "send a directory of tiles, write their masks"},
    {"watch", command_watch, "send tiles as they come into a directory, write their masks"},
    {"stream", command_stream, "answer the messages of standard input on standard output"},
    {"status", command_status, "what runs: models, workers, slots"},
    {"bench", command_bench, "send a tile again and again, tell how long the answers took"},
    {"inspect", command_inspect, "what a model file is, or why it is none"},
    {"plan", command_plan, "how a GPU would run a model, layer by layer, without one"},
    {"devices", command_devices, "which GPUs this machine has"},
    {"check", command_check, "look at a tile, a model or a configuration without a server"},
    {"calibrate", command_calibrate, "find the ranges that precision int8 needs"},
    {"new-model", command_new_model, "write the beginnings of a model plugin"},
    {"client", command_client, "write a Python client for a server's models"},
    {"dockerize", command_dockerize, "write a Dockerfile for a model"},
    {"key", command_key, "make an API key"},
};

#define COMMAND_COUNT (sizeof command_rows / sizeof *command_rows)

/* The command and what stands behind it; getopt_long puts options first as it goes. */
static char **command_words;

int command_fail(int code, const char *format, ...)
{
    fputs("unetctl: ", stderr);
    va_list arguments;
    va_start(arguments, format);
    /* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized) */
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    return code;
}

int command_bad_option(int option)
{
    const char *word = command_words[optind - 1];
    const char *why = "no such option";
    if (option == ':')
        why = "a value is missing";
    else if (optopt != 0 && strncmp(word, "--", 2) == 0)
        why = "this option takes no value";
    return command_fail(EX_USAGE, "%s: %s; see unetctl %s --help", word, why, command_words[0]);
}

const char *command_one_file(int argc, char **argv, const char *noun, const char *help, bool *json,
                             int *code)
{
    static const struct option long_options[] = {
        {"json", no_argument, NULL, 'j'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
    const char *command = argv[0];
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, ":h", long_options, NULL)) != -1) {
        if (option == 'h') {
            fputs(help, stdout);
            *code = EX_OK;
            return NULL;
        }
        if (option != 'j') {
            *code = command_bad_option(option);
            return NULL;
        }
        *json = true;
    }
    if (argc - optind != 1) {
        *code = command_fail(EX_USAGE, "%s takes one %s, %d were given", command, noun,
                             argc - optind);
        return NULL;
    }
    return argv[optind];
}

int command_exit_code(int rc)
{
    switch (-rc) {
    case ENOENT:
    case ENOTDIR:
    case EISDIR: return EX_NOINPUT;
    case EACCES:
    case EPERM: return EX_NOPERM;
    case EBADMSG: return EX_DATAERR;
    case EINVAL: return EX_DATAERR;
    case ENODEV: return EX_UNAVAILABLE;
    case ETIMEDOUT: return EX_TEMPFAIL;
    case EPROTO: return EX_PROTOCOL;
    case ENOMEM: return EX_OSERR;
    default: return EX_IOERR;
    }
}

bool command_parse_number(const char *text, int64_t low, int64_t high, int64_t *out)
{
    char *end;
    errno = 0;
    long long number = strtoll(text, &end, 10);
    if (errno || end == text || *end || number < low || number > high)
        return false;
    *out = number;
    return true;
}

bool command_has_suffix(const char *path, const char *suffix)
{
    size_t path_length = strlen(path);
    size_t suffix_length = strlen(suffix);
    return path_length > suffix_length &&
           strcasecmp(path + path_length - suffix_length, suffix) == 0;
}

bool command_directory(char *out, size_t size)
{
    ssize_t length = readlink("/proc/self/exe", out, size);
    if (length <= 0 || (size_t)length >= size)
        return false;
    out[length] = '\0';
    *strrchr(out, '/') = '\0';
    return true;
}

bool command_looks_like_model(const char *path)
{
    struct stat status;
    if (stat(path, &status) == 0 && S_ISDIR(status.st_mode))
        return true;
    return command_has_suffix(path, ".safetensors") || command_has_suffix(path, ".pth") ||
           command_has_suffix(path, ".pt") || command_has_suffix(path, ".ckpt") ||
           command_has_suffix(path, ".so");
}

static void print_usage(FILE *stream)
{
    fputs("usage: unetctl COMMAND [ARGUMENTS]; unetctl COMMAND --help tells more\n\n", stream);
    for (size_t i = 0; i < COMMAND_COUNT; i++)
        fprintf(stream, "  %-10s %s\n", command_rows[i].name, command_rows[i].summary);
    fputs("\n  --help, --version\n", stream);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        print_usage(stderr);
        return EX_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        print_usage(stdout);
        return EX_OK;
    }
    if (strcmp(argv[1], "--version") == 0) {
        puts("unetctl " UNETSERVE_VERSION);
        return EX_OK;
    }
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        if (strcmp(argv[1], command_rows[i].name) != 0)
            continue;
        command_words = argv + 1;
        int code = command_rows[i].run(argc - 1, command_words);
        if (fflush(stdout) != 0)
            return command_fail(EX_IOERR, "cannot write to standard output: %s", strerror(errno));
        return code;
    }
    return command_fail(EX_USAGE, "'%s' is no command; see unetctl --help", argv[1]);
}
