/*
 * unetserve-gateway: requests in, slots filled, answers out.
 *
 *     unetserve-gateway --seat SEAT --index INDEX [--front http|zmq]
 *
 * Started by unetserve, with the descriptors of unetserve/seat.h. ARCHITECTURE.md walks a request
 * through it.
 */
#include "gateway/front_zmq.h"
#include "gateway/http.h"

#include "unetserve/log.h"
#include "unetserve/sandbox.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

static const char usage[] =
    "usage: unetserve-gateway --seat SEAT --index INDEX [--front http|zmq]\n"
    "\n"
    "Takes requests over HTTP, or over ZeroMQ. Started by unetserve, with inherited file "
    "descriptors.\n";

static struct sandbox sandbox = {.role = QUEUE_GATEWAY};

static int serve_http(struct gateway *gateway)
{
    static struct http http;
    int error = http_open(&http, gateway);
    if (!error)
        error = sandbox_serve(&sandbox);
    if (!error) {
        seat_ready(&gateway->seat);
        error = gateway_run(gateway);
    }
    http_close(&http);
    return error;
}

static int serve_zmq(struct gateway *gateway)
{
    static struct front_zmq front;
    int error = front_zmq_open(&front, gateway);
    if (!error)
        error = sandbox_serve(&sandbox);
    if (!error) {
        seat_ready(&gateway->seat);
        error = gateway_run(gateway);
    }
    front_zmq_close(&front);
    return error;
}

int main(int argc, char **argv)
{
    static struct gateway gateway;
    if (seat_explain(argc, argv, "unetserve-gateway", usage))
        return EX_OK;
    log_init("gateway", -1, LOG_FORMAT_TEXT, LOG_LEVEL_INFO);
    seat_signals();
    if (seat_take(QUEUE_GATEWAY, &argc, argv, &gateway.seat))
        return EX_USAGE;
    if (seat_config(&gateway.config))
        return EX_CONFIG;
    seat_outlive(gateway.config.drain_timeout_ms);
    log_init("gateway", (int)gateway.seat.seat, gateway.config.log_format,
             gateway.config.log_level);
    bool zmq = argc == 3 && strcmp(argv[1], "--front") == 0 && strcmp(argv[2], "zmq") == 0;
    bool http = argc == 1 ||
                (argc == 3 && strcmp(argv[1], "--front") == 0 && strcmp(argv[2], "http") == 0);
    if (!zmq && !http) {
        log_event(LOG_LEVEL_ERROR,
                  "usage: unetserve-gateway --seat SEAT --index INDEX [--front http|zmq]");
        return EX_USAGE;
    }
    json_object_seed(0); /* from a file, which cannot be opened later */
    sandbox.mode = sandbox_mode_of(gateway.config.sandbox);
    sandbox.again[0] = gateway.config.api_key_file;
    sandbox.again[1] = gateway.config.tls_certificate;
    sandbox.again[2] = gateway.config.tls_key;
    sandbox.again[3] = gateway.config.tls_client_ca;
    sandbox.max_connections = gateway.config.max_connections;
    if (sandbox_begin(&sandbox))
        return EX_CONFIG;
    int error = gateway_open(&gateway);
    if (!error)
        error = zmq ? serve_zmq(&gateway) : serve_http(&gateway);
    gateway_close(&gateway);
    return error == -ENOKEY ? EX_CONFIG : error ? EX_SOFTWARE : EX_OK;
}
