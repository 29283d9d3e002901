/* unetserve-broker: gives waiting jobs to workers. Started by unetserve. */
#include "broker/broker_loop.h"
#include "unetserve/config.h"
#include "unetserve/log.h"
#include "unetserve/sandbox.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

static const char usage[] = "usage: unetserve-broker --seat SEAT --index INDEX\n"
                            "\n"
                            "Gives waiting jobs to workers. Started by unetserve, with inherited "
                            "file descriptors.\n";

static int serve(struct seat *seat, const struct config *config)
{
    struct inbox inbox;
    struct sandbox sandbox = {.role = QUEUE_BROKER, .mode = sandbox_mode_of(config->sandbox)};
    if (sandbox_begin(&sandbox))
        return EX_CONFIG;
    int error = inbox_open(config->run_dir, &inbox);
    if (error) {
        log_event(LOG_LEVEL_ERROR, "cannot bind the broker's socket",
                  log_text("run_dir", config->run_dir), log_text("error", strerror(-error)));
        return EX_CANTCREAT;
    }
    error = sandbox_serve(&sandbox);
    if (!error)
        error = broker_loop(seat, &inbox, config->drain_timeout_ms);
    if (error)
        log_event(LOG_LEVEL_ERROR, "the event loop failed", log_text("error", strerror(-error)));
    log_event(LOG_LEVEL_DEBUG, "broker ends", log_number("batons", (int64_t)inbox.batons),
              log_number("not_batons", (int64_t)inbox.not_batons));
    inbox_close(&inbox);
    return error ? EX_OSERR : EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    static struct config config;
    struct seat seat;
    if (seat_explain(argc, argv, "unetserve-broker", usage))
        return EXIT_SUCCESS;
    seat_signals();
    log_init("broker", -1, LOG_FORMAT_TEXT, LOG_LEVEL_INFO);
    if (seat_take(QUEUE_BROKER, &argc, argv, &seat))
        return EX_USAGE;
    if (seat_config(&config))
        return EX_CONFIG;
    seat_outlive(config.drain_timeout_ms);
    log_init("broker", (int)seat.seat, config.log_format, config.log_level);
    int status = serve(&seat, &config);
    queue_close(&seat.queue);
    return status;
}
