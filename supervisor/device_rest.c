#include "supervisor/device_rest.h"

#include "supervisor/describe.h"
#include "unetserve/log.h"
#include "unetserve/loss.h"

#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#define NS_A_MS UINT64_C(1000000)
/* While another worker tries the device. */
#define TRY_POLL_MS 250

uint32_t device_rest_ms(uint32_t first_ms, uint64_t failures)
{
    uint64_t rest_ms = first_ms;
    for (uint64_t i = 1; i < failures && rest_ms < DEVICE_LONGEST_REST_MS; i++)
        rest_ms *= 2;
    return rest_ms < DEVICE_LONGEST_REST_MS ? (uint32_t)rest_ms : DEVICE_LONGEST_REST_MS;
}

static void name_set(struct counters_device *device, const char *name)
{
    snprintf(device->name, sizeof device->name, "%s", name);
}

/* The last place is the driver's own choice: where `devices` is just "cuda". */
void device_rest_begin(struct server *server)
{
    struct counters_device *devices = server->queue.devices;
    for (uint32_t i = 0; i < server->gpus->count; i++)
        name_set(&devices[i], server->gpus->entries[i].uuid);
    name_set(&devices[COUNTERS_MAX_GPUS], "cuda");
}

/* The place of a worker's GPU in queue.devices; -1: it is on the CPU, or no worker. */
static int place_of(const struct tree_seat *seat)
{
    const struct server *server = seat->server;
    if (seat->role != QUEUE_WORKER ||
        strcmp(describe_device(&server->config->models[seat->model]), "cpu") == 0)
        return -1;
    const struct gpu_entry *gpu = server_gpu(seat);
    return gpu ? (int)(gpu - server->gpus->entries) : COUNTERS_MAX_GPUS;
}

static const char *name_of(const struct server *server, int place)
{
    return place < COUNTERS_MAX_GPUS ? server->gpus->entries[place].uuid : "cuda";
}

uint64_t device_rest_left_ms(struct tree_seat *seat)
{
    int place = place_of(seat);
    struct device_rest *rest = place >= 0 ? &seat->server->rests[place] : NULL;
    if (!rest || !rest->until_ns)
        return 0;
    uint64_t now_ns = queue_now_ns();
    if (now_ns < rest->until_ns)
        return (rest->until_ns - now_ns) / NS_A_MS + 1;
    if (rest->trying && rest->trying != seat && seat_has_process(rest->trying))
        return TRY_POLL_MS;
    rest->trying = seat;
    return 0;
}

void device_rest_up(const struct tree_seat *seat)
{
    int place = place_of(seat);
    struct device_rest *rest = place >= 0 ? &seat->server->rests[place] : NULL;
    if (!rest || rest->trying != seat)
        return;
    rest->trying = NULL;
    rest->until_ns = 0;
    rest->serves_ns = queue_now_ns();
    counter_set(&seat->server->queue.devices[place].rests_until_ns, 0);
    log_event(LOG_LEVEL_INFO, "a GPU serves again",
              log_text("device", name_of(seat->server, place)),
              log_number("after_failures", (int64_t)rest->in_a_row));
}

/* Its first failure after a longer while of work begins the count anew. */
static void begin_rest(const struct tree_seat *seat, int place, uint32_t why, uint64_t now_ns)
{
    struct server *server = seat->server;
    struct device_rest *rest = &server->rests[place];
    bool worked = rest->until_ns == 0 && now_ns - rest->serves_ns > DEVICE_STEADY_MS * NS_A_MS;
    rest->in_a_row = worked ? 1 : rest->in_a_row + 1;
    uint32_t rest_ms = device_rest_ms(loss_rest_ms(why), rest->in_a_row);
    rest->until_ns = now_ns + rest_ms * NS_A_MS;
    counter_set(&server->queue.devices[place].in_a_row, rest->in_a_row);
    counter_set(&server->queue.devices[place].rests_until_ns, rest->until_ns);
    log_event(LOG_LEVEL_ERROR,
              "a GPU failed under its worker: nothing is started on it for a while",
              log_text("device", name_of(server, place)), log_text("reason", loss_name(why)),
              log_number("failures_in_a_row", (int64_t)rest->in_a_row),
              log_number("rest_ms", rest_ms), log_number("seat_number", seat->number));
}

void device_rest_end(const struct tree_seat *seat, int loss)
{
    int place = place_of(seat);
    if (place < 0)
        return;
    struct device_rest *rest = &seat->server->rests[place];
    uint64_t now_ns = queue_now_ns();
    if (rest->trying == seat)
        rest->trying = NULL;
    if (loss == LOSS_NONE)
        return;
    struct counters_device *device = &seat->server->queue.devices[place];
    counter_add(&device->failures[loss], 1);
    counter_set(&device->last, (uint64_t)loss);
    if (rest->until_ns <= now_ns) /* else others fall with the first: one failure of the device */
        begin_rest(seat, place, (uint32_t)loss, now_ns);
}

int device_rest_cause(const struct tree_seat *seat, const siginfo_t *end)
{
    if (end->si_code != CLD_EXITED)
        return LOSS_NONE;
    if (end->si_status == EX_UNAVAILABLE && seat->ever_up)
        return UNETSERVE_LOSS_OTHER;
    return loss_of_status(end->si_status);
}
