/*
 * unetctl dockerize: a Dockerfile and a .dockerignore for one model, and the commands that build
 * and run the image. The build context is the directory that they are written to; unetserve's own
 * source comes as a context of its own, so that the image holds what was built for it and nothing
 * of this machine.
 */
#include "command.h"

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
    "  MODEL         a weights file, a model directory or a plugin, in DIR or below it\n"
    "  --port N      what the server listens on in the container; 8000\n"
    "  -o DIR        the build context; the current directory\n"
    "  --name NAME   of the image and the model; the model's own file name\n"
    "  --source DIR  unetserve's source tree; the one that unetctl was built in\n"
    "  --gpu         with the CUDA and cuDNN libraries, for nodes with an NVIDIA GPU\n"
    "  --force       overwrite a Dockerfile or .dockerignore that is there\n";

struct order {
    const char *model;
    const char *directory;
    const char *source;
    char name[64]; /* of the image and of the model */
    int64_t port;
    bool gpu, force;
    /* worked out */
    char context[PATH_MAX];  /* the directory, resolved */
    char relative[PATH_MAX]; /* the model, from there */
    char served[256];        /* its name below /models */
    char source_path[PATH_MAX];
};

/* ---- the files ---- */

/* What the programs and the UNet plugin are linked to, which a test compares with what they really
 * are, and the certificates by which unetserve-auth knows a provider. */
#define RUNTIME_PACKAGES                                                                           \
    "ca-certificates libcjose0 libcurl4 libdnnl2 libgnutls30 libinih1 libjansson4 "                \
    "libmicrohttpd12 libpng16-16 libseccomp2 "                                                     \
    "libssl3 libsystemd0 libtiff6 "                                                                \
    "libxxhash0 libzip4 "                                                                          \
    "libzmq5 libzstd1 zlib1g"

/* NVIDIA's libraries are taken from images of theirs; the programs are built and run on the same
 * Debian. */
#define CUDA_IMAGE "nvidia/cuda:13.0.2-cudnn"

static void write_build_stage(FILE *out, const struct order *order)
{
    fputs("# unetserve, from its source. What this stage installs stays behind in it.\n"
          "FROM debian:bookworm-slim AS build\n",
          out);
    if (order->gpu)
        fputs(
            "COPY --from=" CUDA_IMAGE "-devel-ubuntu24.04 /usr/local/cuda-13.0 /usr/local/cuda\n"
            "COPY --from=" CUDA_IMAGE
            "-devel-ubuntu24.04 /usr/include/x86_64-linux-gnu/cudnn*.h /usr/local/cuda/include/\n",
            out);
    fputs("# The other build context.\n"
          "# hadolint ignore=DL3022\n"
          "COPY --from=unetserve . /src\n"
          "WORKDIR /src\n"
          "RUN packaging/install-deps.sh server \\\n"
          " && make -j\"$(nproc)\" BUILD=/build PREFIX=/usr OPTIMIZE=-O2 server \\\n"
          " && make BUILD=/build PREFIX=/usr OPTIMIZE=-O2 DESTDIR=/out install-server\n"
          "\n",
          out);
}

static void write_run_stage(FILE *out, const struct order *order)
{
    fputs("FROM debian:bookworm-slim\n"
          "# Versions are the distribution's: its security updates come with the next build.\n"
          "# hadolint ignore=DL3008\n"
          "RUN apt-get update \\\n"
          " && apt-get install -y --no-install-recommends \\\n"
          "      " RUNTIME_PACKAGES " \\\n"
          " && rm -rf /var/lib/apt/lists/* \\\n"
          " && groupadd --gid 10001 unetserve \\\n"
          " && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell "
          "/usr/sbin/nologin unetserve\n",
          out);
    if (order->gpu)
        fputs("# Without the linker's cache: LD_LIBRARY_PATH finds these, and the driver's own "
              "library comes with the container runtime.\n"
              "COPY --from=" CUDA_IMAGE
              "-runtime-ubuntu24.04 /usr/lib/x86_64-linux-gnu/libcudnn*.so.9 /opt/cuda/\n"
              "COPY --from=" CUDA_IMAGE
              "-runtime-ubuntu24.04 /usr/local/cuda-13.0/lib64/libcublas*.so.13 /opt/cuda/\n"
              "COPY --from=" CUDA_IMAGE
              "-runtime-ubuntu24.04 /usr/local/cuda-13.0/lib64/libnvrtc*.so.13 /opt/cuda/\n"
              "ENV LD_LIBRARY_PATH=/opt/cuda NVIDIA_VISIBLE_DEVICES=all "
              "NVIDIA_DRIVER_CAPABILITIES=compute,utility\n",
              out);
    fputs("COPY --from=build /out /\n", out);
    fprintf(out, "COPY --chown=10001:10001 [\"%s\", \"/models/%s\"]\n", order->relative,
            order->served);
    fputs("# In numbers, so that a cluster can see that it is not root.\n"
          "USER 10001:10001\n"
          "# Sockets between its own processes; everything else may be read-only.\n"
          "ENV XDG_RUNTIME_DIR=/tmp\n",
          out);
    fprintf(out,
            "EXPOSE %d\n"
            "HEALTHCHECK --interval=10s --timeout=5s --start-period=120s \\\n"
            "  CMD [\"unetserve\", \"--probe\", \"127.0.0.1:%d\"]\n"
            "ENTRYPOINT [\"unetserve\"]\n"
            "CMD [\"--model\", \"%s=/models/%s\", \"--listen\", \"0.0.0.0:%d\"]\n",
            (int)order->port, (int)order->port, order->name, order->served, (int)order->port);
}

static void write_dockerfile(FILE *out, const struct order *order)
{
    fprintf(out,
            "# An image that serves %s on port %d. Written by unetctl dockerize " UNETSERVE_VERSION
            ".\n"
            "# Needs a second build context, unetserve's source: --build-context "
            "unetserve=DIRECTORY\n\n",
            order->name, (int)order->port);
    write_build_stage(out, order);
    write_run_stage(out, order);
}

/* Nothing but the model goes to the builder. */
static void write_dockerignore(FILE *out, const struct order *order)
{
    fprintf(out, "*\n!%s\n", order->relative);
}

static int write_file(const struct order *order, const char *name,
                      void (*write)(FILE *out, const struct order *order))
{
    char path[PATH_MAX];
    if ((size_t)snprintf(path, sizeof path, "%s/%s", order->context, name) >= sizeof path)
        return command_fail(EX_USAGE, "%s: the path is too long", order->context);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | (order->force ? O_TRUNC : O_EXCL), 0666);
    FILE *out = fd < 0 ? NULL : fdopen(fd, "w");
    if (!out) {
        if (errno == EEXIST)
            return command_fail(EX_CANTCREAT, "%s is there already; --force overwrites it", path);
        return command_fail(EX_CANTCREAT, "cannot write %s: %s", path, strerror(errno));
    }
    write(out, order);
    if (fclose(out))
        return command_fail(EX_IOERR, "cannot write %s: %s", path, strerror(errno));
    return EX_OK;
}

static void print_commands(const struct order *order)
{
    const char *gpus = order->gpu ? " --gpus all" : "";
    printf("wrote %s/Dockerfile and %s/.dockerignore. Next:\n\n", order->context, order->context);
    printf("  docker build --build-context unetserve=%s -t %s %s\n", order->source_path,
           order->name, order->context);
    printf("  docker run --rm -p %d:%d --read-only --tmpfs /tmp%s %s\n", (int)order->port,
           (int)order->port, gpus, order->name);
    printf("  docker tag %s REGISTRY/%s:latest\n", order->name, order->name);
    printf("  docker push REGISTRY/%s:latest\n", order->name);
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
    if (!realpath(order->directory, order->context))
        return command_fail(EX_NOINPUT, "%s: %s", order->directory, strerror(errno));
    if (!realpath(order->model, model))
        return command_fail(EX_NOINPUT, "%s: %s", order->model, strerror(errno));
    if (command_has_suffix(model, ".py"))
        return command_fail(EX_USAGE,
                            "%s is a Python file, and dockerize writes no image with its "
                            "interpreter and packages: weights, a model directory or a plugin",
                            order->model);
    size_t length = strlen(order->context);
    if (strncmp(model, order->context, length) != 0 || model[length] != '/')
        return command_fail(
            EX_USAGE,
            "%s does not lie in %s, and a build sees nothing outside it; copy the model there, or "
            "choose a directory above it with -o",
            model, order->context);
    snprintf(order->relative, sizeof order->relative, "%s", model + length + 1);
    const char *last = strrchr(model, '/') + 1;
    struct stat status;
    bool directory = stat(model, &status) == 0 && S_ISDIR(status.st_mode);
    if (!is_plain_path(order->relative) || order->relative[0] == ' ' ||
        strlen(last) >= sizeof order->served)
        return command_fail(EX_USAGE,
                            "'%s': rename it: letters, digits and ._-+/ are safe in a Dockerfile",
                            order->relative);
    if (order->name[0] == '\0') {
        char stem[PATH_MAX];
        snprintf(stem, sizeof stem, "%s", last);
        char *dot = strrchr(stem, '.');
        if (dot && dot != stem && !directory)
            *dot = '\0';
        make_name(stem, order->name, sizeof order->name);
    }
    /* A weights file keeps its ending, by which it is recognised. */
    snprintf(order->served, sizeof order->served, "%s", directory ? order->name : last);
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
            if (!command_parse_number(optarg, 1, 65535, &out->port))
                return command_fail(EX_USAGE, "--port takes a number from 1 to 65535, not '%s'",
                                    optarg);
            break;
        case 'o': out->directory = optarg; break;
        case 's': out->source = optarg; break;
        case 'g': out->gpu = true; break;
        case 'f': out->force = true; break;
        case 'n':
            make_name(optarg, out->name, sizeof out->name);
            if (strcmp(out->name, optarg) != 0)
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
    struct order order = {.directory = ".", .port = 8000};
    int code = parse_arguments(argc, argv, &order);
    if (code)
        return code < 0 ? EX_OK : code;
    if ((code = resolve_model(&order)) || (code = resolve_source(&order)) ||
        (code = write_file(&order, "Dockerfile", write_dockerfile)) ||
        (code = write_file(&order, ".dockerignore", write_dockerignore)))
        return code;
    print_commands(&order);
    return EX_OK;
}
