/*
 * unetctl dockerize: a Dockerfile and a .dockerignore for one model (dockerfile.h), and the
 * commands that build and run the image. The build context is the directory that they are written
 * to; unetserve's own source comes as a context of its own, so that the image holds what was built
 * for it and nothing of this machine.
 */
#include "command.h"
#include "dockerfile.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

static const char help_text[] =
    "usage: unetctl dockerize MODEL [--port 8000] [-o DIR] [--name NAME] [--source DIR] [--gpu] "
    "[--force]\n"
    "\n"
    "  Writes DIR/Dockerfile and DIR/.dockerignore and prints the commands that build, run, tag "
    "and push the image.\n"
    "\n"
    "  MODEL         a weights file, a model directory or a plugin, in DIR or below it; or a "
    "Python "
    "file with\n"
    "                a LitAPI: then all of DIR goes along, and the packages of its "
    "requirements.txt\n"
    "  --port N      what the server listens on in the container; 8000. A Python file says it "
    "itself "
    "in run()\n"
    "  -o DIR        the build context; the current directory\n"
    "  --name NAME   of the image and the model; the model's own file name\n"
    "  --source DIR  unetserve's source tree; the one that unetctl was built in\n"
    "  --gpu         for nodes with an NVIDIA GPU; with the CUDA and cuDNN libraries, but for a "
    "Python file\n"
    "  --force       overwrite a Dockerfile or .dockerignore that is there\n";

struct order {
    const char *model;
    const char *directory;
    const char *source;
    bool force;
    struct dockerfile about;
    char source_path[PATH_MAX]; /* resolved */
};

/* ---- the files ---- */

static int write_file(const struct order *order, const char *name,
                      void (*write)(FILE *out, const struct dockerfile *about))
{
    char path[PATH_MAX];
    if ((size_t)snprintf(path, sizeof path, "%s/%s", order->about.context, name) >= sizeof path)
        return command_fail(EX_USAGE, "%s: the path is too long", order->about.context);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | (order->force ? O_TRUNC : O_EXCL), 0666);
    FILE *out = fd < 0 ? NULL : fdopen(fd, "w");
    if (!out) {
        if (errno == EEXIST)
            return command_fail(EX_CANTCREAT, "%s is there already; --force overwrites it", path);
        return command_fail(EX_CANTCREAT, "cannot write %s: %s", path, strerror(errno));
    }
    write(out, &order->about);
    if (fclose(out))
        return command_fail(EX_IOERR, "cannot write %s: %s", path, strerror(errno));
    return EX_OK;
}

static void print_commands(const struct order *order)
{
    const char *gpus = order->about.gpu ? " --gpus all" : "";
    printf("wrote %s/Dockerfile and %s/.dockerignore.\n", order->about.context,
           order->about.context);
    if (order->about.python)
        printf("The image expects that run() in %s listens on 0.0.0.0, port %d.\n%s",
               order->about.relative, (int)order->about.port,
               order->about.requirements ? "" : "No packages: there is no requirements.txt.\n");
    printf("Next:\n\n");
    printf("  docker build --build-context unetserve=%s -t %s %s\n", order->source_path,
           order->about.name, order->about.context);
    printf("  docker run --rm -p %d:%d --read-only --tmpfs /tmp%s %s\n", (int)order->about.port,
           (int)order->about.port, gpus, order->about.name);
    printf("  docker tag %s REGISTRY/%s:latest\n", order->about.name, order->about.name);
    printf("  docker push REGISTRY/%s:latest\n", order->about.name);
}

/* ---- the arguments ---- */

/* Part of a Dockerfile's JSON strings and of shell lines: nothing that either would read otherwise.
 */
static bool is_plain_path(const char *path)
{
    for (; *path; path++)
        if (!isalnum((unsigned char)*path) && !strchr("._-+/ @=,", *path))
            return false;
    return true;
}

/* Names of images: small letters, digits, and single separators between them. */
static void make_name(const char *from, char *name, size_t size)
{
    size_t used = 0;
    for (; *from && used < size - 1; from++) {
        bool fits = isalnum((unsigned char)*from);
        if (fits)
            name[used++] = (char)tolower((unsigned char)*from);
        else if (used > 0 && name[used - 1] != '-')
            name[used++] = '-';
    }
    while (used > 0 && name[used - 1] == '-')
        used--;
    name[used] = '\0';
}

static bool is_source(const char *directory)
{
    char path[PATH_MAX];
    return (size_t)snprintf(path, sizeof path, "%s/supervisor/main.c", directory) < sizeof path &&
           access(path, R_OK) == 0;
}

/* The tree in whose build directory this very program lies. */
static bool find_source(char *out)
{
    char path[PATH_MAX];
    char *slash;
    if (!command_directory(path, sizeof path) || !(slash = strrchr(path, '/')) || slash == path)
        return false;
    *slash = '\0';
    return is_source(path) && realpath(path, out);
}

static int resolve_model(struct order *order)
{
    char model[PATH_MAX];
    if (!realpath(order->directory, order->about.context))
        return command_fail(EX_NOINPUT, "%s: %s", order->directory, strerror(errno));
    if (!realpath(order->model, model))
        return command_fail(EX_NOINPUT, "%s: %s", order->model, strerror(errno));
    size_t length = strlen(order->about.context);
    if (strncmp(model, order->about.context, length) != 0 || model[length] != '/')
        return command_fail(
            EX_USAGE,
            "%s does not lie in %s, and a build sees nothing outside it; copy the model there, or "
            "choose a directory above it with -o",
            model, order->about.context);
    snprintf(order->about.relative, sizeof order->about.relative, "%s", model + length + 1);
    const char *last = strrchr(model, '/') + 1;
    struct stat status;
    bool directory = stat(model, &status) == 0 && S_ISDIR(status.st_mode);
    order->about.python = !directory && command_has_suffix(model, ".py");
    if (!is_plain_path(order->about.relative) || order->about.relative[0] == ' ' ||
        strlen(last) >= sizeof order->about.served)
        return command_fail(EX_USAGE,
                            "'%s': rename it: letters, digits and ._-+/ are safe in a Dockerfile",
                            order->about.relative);
    if (order->about.name[0] == '\0') {
        char stem[PATH_MAX];
        snprintf(stem, sizeof stem, "%s", last);
        char *dot = strrchr(stem, '.');
        if (dot && dot != stem && !directory)
            *dot = '\0';
        make_name(stem, order->about.name, sizeof order->about.name);
    }
    /* A weights file keeps its ending, by which it is recognised. */
    snprintf(order->about.served, sizeof order->about.served, "%s",
             directory ? order->about.name : last);
    return EX_OK;
}

/* The packages that a Python file's author has written down, where they are wont to be. */
static int resolve_requirements(struct order *order)
{
    char path[PATH_MAX];
    if ((size_t)snprintf(path, sizeof path, "%s/requirements.txt", order->about.context) >=
        sizeof path)
        return command_fail(EX_USAGE, "%s: the path is too long", order->about.context);
    order->about.requirements = order->about.python && access(path, F_OK) == 0;
    return EX_OK;
}

static int resolve_source(struct order *order)
{
    if (order->source ? is_source(order->source) && realpath(order->source, order->source_path)
                      : find_source(order->source_path))
        return EX_OK;
    if (order->source)
        return command_fail(EX_NOINPUT, "%s is not unetserve's source tree", order->source);
    return command_fail(EX_USAGE,
                        "where is unetserve's source? The image is built from it: --source DIR");
}

/* EX_OK with *out; -1: help was printed. */
static int parse_arguments(int argc, char **argv, struct order *out)
{
    static const struct option long_options[] = {
        {"port", required_argument, NULL, 'p'}, {"output", required_argument, NULL, 'o'},
        {"name", required_argument, NULL, 'n'}, {"source", required_argument, NULL, 's'},
        {"gpu", no_argument, NULL, 'g'},        {"force", no_argument, NULL, 'f'},
        {"help", no_argument, NULL, 'h'},       {NULL, 0, NULL, 0},
    };
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, ":ho:", long_options, NULL)) != -1) {
        switch (option) {
        case 'p':
            if (!command_parse_number(optarg, 1, 65535, &out->about.port))
                return command_fail(EX_USAGE, "--port takes a number from 1 to 65535, not '%s'",
                                    optarg);
            break;
        case 'o': out->directory = optarg; break;
        case 's': out->source = optarg; break;
        case 'g': out->about.gpu = true; break;
        case 'f': out->force = true; break;
        case 'n':
            make_name(optarg, out->about.name, sizeof out->about.name);
            if (strcmp(out->about.name, optarg) != 0)
                return command_fail(EX_USAGE,
                                    "--name takes small letters, digits and '-', not '%s'", optarg);
            break;
        case 'h': fputs(help_text, stdout); return -1;
        default: return command_bad_option(option);
        }
    }
    if (argc - optind != 1)
        return command_fail(EX_USAGE, "dockerize takes one model, %d were given", argc - optind);
    out->model = argv[optind];
    return EX_OK;
}

int command_dockerize(int argc, char **argv)
{
    struct order order = {.directory = ".", .about.port = 8000};
    int code = parse_arguments(argc, argv, &order);
    if (code)
        return code < 0 ? EX_OK : code;
    if ((code = resolve_model(&order)) || (code = resolve_requirements(&order)) ||
        (code = resolve_source(&order)) ||
        (code = write_file(&order, "Dockerfile", dockerfile_write)) ||
        (code = write_file(&order, ".dockerignore", dockerfile_write_ignored)))
        return code;
    print_commands(&order);
    return EX_OK;
}
