#include "dockerfile.h"

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

/* Our own forward pass needs these; a Python file brings its framework's. */
static bool has_cuda(const struct dockerfile *about)
{
    return about->gpu && !about->python;
}

static void write_build_stage(FILE *out, const struct dockerfile *about)
{
    const char *group = about->python ? "server wheel" : "server";
    fputs("# unetserve, from its source. What this stage installs stays behind in it.\n"
          "FROM debian:bookworm-slim AS build\n",
          out);
    if (has_cuda(about))
        fputs(
            "COPY --from=" CUDA_IMAGE "-devel-ubuntu24.04 /usr/local/cuda-13.0 /usr/local/cuda\n"
            "COPY --from=" CUDA_IMAGE
            "-devel-ubuntu24.04 /usr/include/x86_64-linux-gnu/cudnn*.h /usr/local/cuda/include/\n",
            out);
    fprintf(out,
            "# The other build context.\n"
            "# hadolint ignore=DL3022\n"
            "COPY --from=unetserve . /src\n"
            "WORKDIR /src\n"
            "RUN packaging/install-deps.sh %s \\\n"
            " && make -j\"$(nproc)\" BUILD=/build PREFIX=/usr OPTIMIZE=-O2 %s \\\n"
            " && make BUILD=/build PREFIX=/usr OPTIMIZE=-O2 DESTDIR=/out install-server\n"
            "\n",
            group, group);
}

static void write_packages(FILE *out, const struct dockerfile *about)
{
    fprintf(out,
            "FROM debian:bookworm-slim\n"
            "# Versions are the distribution's: its security updates come with the next build.\n"
            "# hadolint ignore=DL3008\n"
            "RUN apt-get update \\\n"
            " && apt-get install -y --no-install-recommends \\\n"
            "      " RUNTIME_PACKAGES "%s \\\n"
            " && rm -rf /var/lib/apt/lists/* \\\n"
            " && groupadd --gid 10001 unetserve \\\n"
            " && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell "
            "/usr/sbin/nologin unetserve\n",
            about->python ? " python3-venv" : "");
    if (has_cuda(about))
        fputs("# Without the linker's cache: LD_LIBRARY_PATH finds these, and the driver's own "
              "library comes with the container runtime.\n"
              "COPY --from=" CUDA_IMAGE
              "-runtime-ubuntu24.04 /usr/lib/x86_64-linux-gnu/libcudnn*.so.9 /opt/cuda/\n"
              "COPY --from=" CUDA_IMAGE
              "-runtime-ubuntu24.04 /usr/local/cuda-13.0/lib64/libcublas*.so.13 /opt/cuda/\n"
              "COPY --from=" CUDA_IMAGE
              "-runtime-ubuntu24.04 /usr/local/cuda-13.0/lib64/libnvrtc*.so.13 /opt/cuda/\n"
              "ENV LD_LIBRARY_PATH=/opt/cuda\n",
              out);
    if (about->gpu)
        fputs("ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility\n", out);
}

static void write_model(FILE *out, const struct dockerfile *about)
{
    fputs("COPY --from=build /out /\n", out);
    fprintf(out, "COPY --chown=10001:10001 [\"%s\", \"/models/%s\"]\n", about->relative,
            about->served);
}

/* What changes more often comes later, so that packages are not installed again for it. */
static void write_program(FILE *out, const struct dockerfile *about)
{
    fputs("RUN python3 -m venv /venv\n", out);
    if (about->requirements)
        fputs("COPY requirements.txt /tmp/requirements.txt\n"
              "RUN /venv/bin/pip install --no-cache-dir -r /tmp/requirements.txt\n",
              out);
    else
        fputs("# There was no requirements.txt: packages that the file imports would come here.\n",
              out);
    fputs("COPY --from=build /build/wheel/*.whl /tmp/wheel/\n"
          "RUN /venv/bin/pip install --no-cache-dir --no-index /tmp/wheel/*.whl\n"
          "COPY --from=build /out /\n"
          "COPY . /app\n"
          "WORKDIR /app\n"
          "ENV PATH=/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1\n",
          out);
}

static void write_start(FILE *out, const struct dockerfile *about)
{
    fprintf(out,
            "# In numbers, so that a cluster can see that it is not root.\n"
            "USER 10001:10001\n"
            "# Sockets between its own processes; everything else may be read-only.\n"
            "ENV XDG_RUNTIME_DIR=/tmp\n"
            "EXPOSE %d\n"
            "HEALTHCHECK --interval=10s --timeout=5s --start-period=120s \\\n"
            "  CMD [\"unetserve\", \"--probe\", \"127.0.0.1:%d\"]\n",
            (int)about->port, (int)about->port);
    if (about->python)
        fprintf(out, "CMD [\"python\", \"/app/%s\"]\n", about->relative);
    else
        fprintf(out,
                "ENTRYPOINT [\"unetserve\"]\n"
                "CMD [\"--model\", \"%s=/models/%s\", \"--listen\", \"0.0.0.0:%d\"]\n",
                about->name, about->served, (int)about->port);
}

void dockerfile_write(FILE *out, const struct dockerfile *about)
{
    fprintf(out,
            "# An image that serves %s on port %d. Written by unetctl dockerize " UNETSERVE_VERSION
            ".\n"
            "# Needs a second build context, unetserve's source: --build-context "
            "unetserve=DIRECTORY\n\n",
            about->name, (int)about->port);
    write_build_stage(out, about);
    write_packages(out, about);
    if (about->python)
        write_program(out, about);
    else
        write_model(out, about);
    write_start(out, about);
}

/* Nothing but the model goes to the builder; of a Python file's directory, which may hold weights
 * and modules, all but what is hidden, made, or an environment. */
void dockerfile_write_ignored(FILE *out, const struct dockerfile *about)
{
    if (about->python)
        fputs("**/.*\n**/__pycache__\nvenv\nenv\nDockerfile\n", out);
    else
        fprintf(out, "*\n!%s\n", about->relative);
}
