/*
 * unetserve-gpu: asks the NVIDIA driver about GPUs, so that nobody else has to wait for it. With
 * --list it says which there are; started by unetserve in a seat it tells every second what they
 * are doing.
 */
#include "gpu/gpu_sample.h"
#include "unetserve/config.h"
#include "unetserve/log.h"
#include "unetserve/sandbox.h"
#include "unetserve/seat.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sysexits.h>
#include <unistd.h>

#define SAMPLE_EVERY_MS 1000

static const char usage[] = "usage: unetserve-gpu --list\n"
                            "       unetserve-gpu --seat SEAT --index INDEX\n"
                            "\n"
                            "Says which GPUs this machine has, as one line of JSON; or, started by "
                            "unetserve, what they are doing.\n";

static struct nvml nvml;
static struct gpu_machine machine;

static int look(char *error, size_t error_size)
{
    int failure = nvml_open(&nvml, error, error_size);
    return failure ? failure : gpu_find(&nvml, &machine, error, error_size);
}

/* ---- once ---- */

static int list(void)
{
    static struct gpu_list found;
    /* Who asked may be gone before the driver answers. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (look(found.error, sizeof found.error) == 0)
        gpu_find_list(&machine, getenv("CUDA_VISIBLE_DEVICES"), &found);
    snprintf(found.driver, sizeof found.driver, "%s", nvml.driver);
    char *text = gpu_list_to_json(&found);
    int written = text ? printf("%s\n", text) : -1;
    free(text);
    if (written < 0 || fflush(stdout))
        return EX_IOERR;
    return found.error[0] ? EX_UNAVAILABLE : EXIT_SUCCESS;
}

/* ---- in a seat ---- */

static void on_progress(void *opaque)
{
    seat_tick(opaque);
}

/* Until SIGTERM, or until there is nobody who would read the figures. */
static int sample(struct seat *seat, int signal_fd)
{
    struct pollfd fds[] = {{signal_fd, POLLIN, 0}, {SEAT_FD_LIFE, POLLIN, 0}};
    for (;;) {
        gpu_sample(&nvml, &machine, seat->queue.gpus, on_progress, seat);
        seat_tick(seat);
        int ready = poll(fds, 2, SAMPLE_EVERY_MS);
        if (ready < 0 && errno != EINTR)
            return EX_OSERR;
        if (ready > 0)
            return EXIT_SUCCESS;
    }
}

/* The walls of a worker on a GPU: it opens the same device nodes. */
static int serve(struct seat *seat, const struct config *config, int signal_fd)
{
    char error[GPU_LIST_ERROR_MAX];
    const struct sandbox sandbox = {
        .role = QUEUE_WORKER, .mode = sandbox_mode_of(config->sandbox), .gpu = true, .paths = ""};
    if (sandbox_begin(&sandbox))
        return EX_CONFIG;
    if (look(error, sizeof error)) {
        log_event(LOG_LEVEL_ERROR, error);
        return EX_UNAVAILABLE;
    }
    gpu_sample_begin(&machine, seat->queue.gpus);
    if (sandbox_serve(&sandbox))
        return EX_CONFIG;
    seat_ready(seat);
    return sample(seat, signal_fd);
}

static int take_seat(int argc, char **argv)
{
    static struct seat seat;
    static struct config config;
    sigset_t term;
    seat_signals();
    if (seat_take(QUEUE_GPU, &argc, argv, &seat))
        return EX_USAGE;
    if (seat_config(&config))
        return EX_CONFIG;
    seat_outlive(config.drain_timeout_ms);
    log_init("gpu", (int)seat.seat, config.log_format, config.log_level);
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    int signal_fd = signalfd(-1, &term, SFD_CLOEXEC | SFD_NONBLOCK);
    int status = signal_fd < 0 ? EX_OSERR : serve(&seat, &config, signal_fd);
    queue_close(&seat.queue);
    return status;
}

int main(int argc, char **argv)
{
    if (seat_explain(argc, argv, "unetserve-gpu", usage))
        return EXIT_SUCCESS;
    log_init("gpu", -1, LOG_FORMAT_TEXT, LOG_LEVEL_INFO);
    if (argc == 2 && strcmp(argv[1], "--list") == 0)
        return list();
    return take_seat(argc, argv);
}
