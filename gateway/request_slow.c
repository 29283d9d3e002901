/*
 * Bodies that come slowly: too slowly at all, or so that they hold slots which others wait for.
 */
#include "gateway/metrics.h"
#include "gateway/request_parts.h"

/* Slower bodies than that, after the time that a head may take, are refused: they hold a slot. */
#define LEAST_BYTES_A_SECOND 4096

/* When bodies that are still coming hold all slots, one that is slower than that, after that time,
 * loses its slot to a newcomer. */
#define HURRIED_BYTES_A_SECOND 65536
#define HURRIED_AFTER_MS       1000
/* After that time if its client has more slots than the newcomer's would have then. */
#define HURRIED_HEAVY_AFTER_MS 100

bool request_receives(const struct request *request)
{
    return request && request->state == REQUEST_BODY && !request->connection->refused &&
           !head_gate_idle(&request->connection->gate);
}

/* How slowly its body comes, where it is old enough to tell; UINT64_MAX: it is in order. Who takes
 * up more slots than the newcomer has less time. */
static uint64_t upload_rate(const struct request *request, uint32_t newcomers, uint64_t now_ns)
{
    uint64_t age_ms = (now_ns - request->begun_ns) / 1000000;
    bool heavy = request->upload && request->upload->count > newcomers + 1;
    if (age_ms < (heavy ? HURRIED_HEAVY_AFTER_MS : HURRIED_AFTER_MS))
        return UINT64_MAX;
    uint64_t rate = request->body_seen * 1000 / age_ms;
    return rate < HURRIED_BYTES_A_SECOND ? rate : UINT64_MAX;
}

/* Is a, rather than b, the one to give way? That of the client with most slots; among equals the
 * slowest. */
static bool gives_way(const struct request *a, uint64_t rate_a, const struct request *b,
                      uint64_t rate_b)
{
    uint32_t count_a = a->upload ? a->upload->count : 0;
    uint32_t count_b = b->upload ? b->upload->count : 0;
    return count_a != count_b ? count_a > count_b : rate_a < rate_b;
}

/* Slots that wait for bodies do no work. If that is what they are taken by, free one for this
 * client, unless all bodies come in order. */
bool request_free_slowest(struct http *http, const struct client *newcomer,
                          const struct admit_load *load)
{
    if (load->receiving < http->gateway->seat.queue.slot_count / 4)
        return false;
    struct request *slowest = NULL;
    uint64_t now_ns = queue_now_ns();
    uint64_t least = UINT64_MAX;
    uint32_t newcomers = peers_count(&http->uploads, newcomer);
    for (struct connection *at = http->connections.first; at; at = at->next) {
        if (!request_receives(at->request))
            continue;
        uint64_t rate = upload_rate(at->request, newcomers, now_ns);
        if (rate != UINT64_MAX && (!slowest || gives_way(at->request, rate, slowest, least))) {
            least = rate;
            slowest = at->request;
        }
    }
    if (!slowest)
        return false;
    request_refuse_slow(slowest, "The body came too slowly while others waited for a slot");
    return true;
}

void request_sweep(struct request *request, uint64_t now_ns)
{
    if (request->state != REQUEST_BODY && request->state != REQUEST_PAGE)
        return;
    if (head_gate_idle(&request->connection->gate))
        return; /* the body is whole, the answer is on its way out */
    uint64_t allowed_ms = request->http->gateway->config.header_timeout_ms +
                          request->body_seen * 1000 / LEAST_BYTES_A_SECOND;
    if ((now_ns - request->begun_ns) / 1000000 <= allowed_ms)
        return;
    request_refuse_slow(request, "The body of the request took too long");
}
