/*
 * unetserve-auth: says of tokens whose they are and what they allow. Started by unetserve where
 * the configuration names an identity provider; the one process that connects to the outside.
 */
#include "auth/desk.h"

#include "lib/config_oauth.h"
#include "unetserve/log.h"
#include "unetserve/sandbox.h"
#include "unetserve/seat.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sysexits.h>
#include <systemd/sd-event.h>

#define TURN_MOST_MS    500
#define EVENTS_A_TURN   256
#define SECOND_NS       UINT64_C(1000000000)
#define ORPHAN_LOOKS_NS (SECOND_NS / 10)

static const char usage[] = "usage: unetserve-auth --seat SEAT --index INDEX\n"
                            "\n"
                            "Checks OAuth tokens for the gateways. Started by unetserve, with "
                            "inherited file descriptors.\n";

struct auth {
    struct seat seat;
    struct config config;
    struct desk desk;
    sd_event *event;
    bool stopping, orphaned;
    uint64_t stop_at_ns;
};

static struct auth auth;

/* ---- the loop ---- */

static int on_question(sd_event_source *source, int fd, uint32_t events, void *opaque)
{
    (void)opaque;
    if (events & EPOLLIN)
        desk_take(&auth.desk, fd);
    else /* no other end: the supervisor, and every gateway */
        return sd_event_source_set_enabled(source, SD_EVENT_OFF);
    return 0;
}

static int on_wake(sd_event_source *source, int fd, uint32_t events, void *opaque)
{
    (void)source, (void)fd, (void)events, (void)opaque;
    seat_clear(&auth.seat);
    return 0;
}

static void begin_stop(const char *reason)
{
    if (auth.stopping)
        return;
    auth.stopping = true;
    auth.stop_at_ns = queue_now_ns() + auth.config.drain_timeout_ms * UINT64_C(1000000);
    log_event(LOG_LEVEL_INFO, "stopping", log_text("reason", reason));
}

static int on_life(sd_event_source *source, int fd, uint32_t events, void *opaque)
{
    (void)fd, (void)events, (void)opaque;
    auth.orphaned = true;
    begin_stop("the supervisor is gone");
    return sd_event_source_set_enabled(source, SD_EVENT_OFF);
}

static int on_term(sd_event_source *source, const struct signalfd_siginfo *info, void *opaque)
{
    (void)source, (void)info, (void)opaque;
    begin_stop("SIGTERM");
    return 0;
}

/* What else has changed makes the supervisor start another process. */
static int on_hup(sd_event_source *source, const struct signalfd_siginfo *info, void *opaque)
{
    (void)source, (void)info, (void)opaque;
    desk_read_secret(&auth.desk);
    return 0;
}

static int add_sources(void)
{
    sd_event *event = auth.event;
    int error = sd_event_add_io(event, NULL, auth.seat.event_fd, EPOLLIN, on_wake, NULL);
    if (error >= 0)
        error = sd_event_add_io(event, NULL, SEAT_FD_LIFE, EPOLLIN, on_life, NULL);
    if (error >= 0)
        error = sd_event_add_signal(event, NULL, SIGTERM, on_term, NULL);
    if (error >= 0)
        error = sd_event_add_signal(event, NULL, SIGHUP, on_hup, NULL);
    for (uint32_t i = 0; error >= 0 && i < auth.config.gateways; i++)
        error = sd_event_add_io(event, NULL, SEAT_FD_MORE + (int)i, EPOLLIN, on_question, NULL);
    return error < 0 ? error : 0;
}

/* An orphan leaves after the gateways, which may still have questions. */
static bool may_leave(void)
{
    if (!auth.stopping)
        return false;
    return !auth.orphaned || seat_gateways_gone() || queue_now_ns() >= auth.stop_at_ns;
}

static int wait_ms(uint64_t next_ns)
{
    uint64_t now_ns = queue_now_ns();
    uint64_t most_ns = auth.orphaned ? ORPHAN_LOOKS_NS : TURN_MOST_MS * UINT64_C(1000000);
    if (next_ns <= now_ns)
        return 0;
    uint64_t wait_ns = next_ns - now_ns < most_ns ? next_ns - now_ns : most_ns;
    return (int)(wait_ns / 1000000) + 1;
}

static int loop(void)
{
    struct curl_waitfd events = {.fd = sd_event_get_fd(auth.event), .events = CURL_WAIT_POLLIN};
    while (!may_leave()) {
        int more = 1;
        for (int i = 0; more > 0 && i < EVENTS_A_TURN; i++)
            more = sd_event_run(auth.event, 0);
        if (more < 0 && more != -EINTR)
            return more;
        uint64_t next_ns = desk_turn(&auth.desk, queue_now_ns());
        seat_tick(&auth.seat);
        int error = fetcher_wait(&auth.desk.fetcher, &events, 1, wait_ms(next_ns));
        if (error)
            return error;
    }
    return 0;
}

/* ---- the start ---- */

static uint16_t port_of(const char *text)
{
    struct config_url url;
    return text[0] && config_url_read(text, &url) == 0 ? url.port : 0;
}

/* Of the network it needs the ports that the configuration names, what https:// means (an issuer's
 * keys may lie elsewhere), and that of name servers. */
static struct sandbox walls(void)
{
    const struct config_oauth *oauth = &auth.config.oauth;
    struct sandbox sandbox = {
        .role = QUEUE_AUTH,
        .mode = sandbox_mode_of(auth.config.sandbox),
        .again = {oauth->client_secret_file, oauth->ca_file},
        .ports = {443, 53, port_of(oauth->issuer), port_of(oauth->jwks_url),
                  port_of(oauth->introspection_url)},
    };
    return sandbox;
}

static int serve(void)
{
    struct sandbox sandbox = walls();
    int error = desk_open(&auth.desk, &auth.config);
    if (error || desk_read_secret(&auth.desk)) {
        desk_close(&auth.desk);
        return error ? EX_OSERR : EX_CONFIG;
    }
    desk_inherit(&auth.desk, SEAT_FD_KEYS);
    if (sandbox_begin(&sandbox))
        return EX_CONFIG;
    error = sd_event_new(&auth.event);
    if (error >= 0)
        error = add_sources();
    if (error >= 0)
        error = sandbox_serve(&sandbox);
    if (error >= 0) {
        seat_ready(&auth.seat);
        error = loop();
    }
    if (error < 0)
        log_event(LOG_LEVEL_ERROR, "the event loop failed", log_text("error", strerror(-error)));
    desk_close(&auth.desk);
    sd_event_unref(auth.event);
    return error < 0 ? EX_OSERR : EXIT_SUCCESS;
}

/* What libraries read from files, and would read at their first use. */
static bool libraries_ready(void)
{
    json_object_seed(0);
    return OPENSSL_init_crypto(OPENSSL_INIT_LOAD_CONFIG, NULL) &&
           curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
}

int main(int argc, char **argv)
{
    sigset_t signals;
    if (seat_explain(argc, argv, "unetserve-auth", usage))
        return EXIT_SUCCESS;
    seat_signals();
    log_init("auth", -1, LOG_FORMAT_TEXT, LOG_LEVEL_INFO);
    if (seat_take(QUEUE_AUTH, &argc, argv, &auth.seat))
        return EX_USAGE;
    if (seat_config(&auth.config))
        return EX_CONFIG;
    sigemptyset(&signals);
    sigaddset(&signals, SIGHUP);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    signal(SIGHUP, SIG_DFL);
    seat_outlive(auth.config.drain_timeout_ms);
    log_init("auth", (int)auth.seat.seat, auth.config.log_format, auth.config.log_level);
    int status = libraries_ready() ? serve() : EX_OSERR;
    curl_global_cleanup();
    queue_close(&auth.seat.queue);
    return status;
}
