/*
 * The tutorial's AsyncLitAPI: {"input": x} -> {"output": x^2 + x^3}, by a model that waits. Each
 * item waits on a timer of its own, as it might on an answer from elsewhere; meanwhile the worker
 * takes further items, up to WAITING_MAX of them. How many waited is shown at /metrics. (For work
 * that is not waiting there are batches and more workers.)
 */
#include "unetserve/model.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define WAITING_MAX 32
#define WAIT_NS     20000000

/* One item that waits; in item->user. */
struct wait {
    const struct unetserve_host *host;
    struct unetserve_item *item;
    int timer;
};

static int describe(const struct unetserve_setup *setup, struct unetserve_interface *interface,
                    char *error, size_t error_size)
{
    (void)setup, (void)error, (void)error_size;
    *interface = (struct unetserve_interface){
        .name = "async",
        .version = "1",
        .input_kind = UNETSERVE_DOCUMENT,
        .output_kind = UNETSERVE_DOCUMENT,
        .size_multiple = 1,
        .max_batch = WAITING_MAX,
        .max_pending = WAITING_MAX,
        .request_field_count = 1,
        .request_fields = {{.name = "input", .type = UNETSERVE_FLOAT}},
        .response_field_count = 1,
        .response_fields = {{.name = "output", .type = UNETSERVE_FLOAT}},
    };
    return 0;
}

static int setup(const struct unetserve_setup *options, void **model,
                 struct unetserve_interface *interface, char *error, size_t error_size)
{
    *model = (void *)options->host;
    return describe(options, interface, error, error_size);
}

static void finish(struct wait *wait, int error)
{
    struct unetserve_item *item = wait->item;
    const struct unetserve_host *host = wait->host;
    host->unwatch(host, wait->timer);
    close(wait->timer);
    free(wait);
    item->user = NULL;
    host->complete(host, item, error);
}

static void refuse(struct unetserve_item *item)
{
    static const char document[] = "{\"detail\":\"input is too large to be cubed\"}";
    item->status = 422;
    item->output_bytes = sizeof document - 1;
    memcpy(item->output, document, item->output_bytes);
}

/* What was waited for is there. */
static void on_time(void *opaque, int fd, uint32_t events)
{
    (void)fd, (void)events;
    struct wait *wait = opaque;
    double x = wait->item->values[0].number;
    struct unetserve_value output = {.number = pow(x, 2) + pow(x, 3)};
    int error = wait->host->respond(wait->host, wait->item, &output);
    if (error == -EDOM)
        refuse(wait->item);
    finish(wait, error == -EDOM ? 0 : error);
}

static int begin(const struct unetserve_host *host, struct unetserve_item *item)
{
    struct wait *wait = malloc(sizeof *wait);
    if (!wait)
        return -ENOMEM;
    *wait = (struct wait){host, item, timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)};
    const struct itimerspec later = {.it_value.tv_nsec = WAIT_NS};
    int error = 0;
    if (wait->timer < 0 || timerfd_settime(wait->timer, 0, &later, NULL))
        error = -errno;
    else
        error = host->watch(host, wait->timer, EPOLLIN, on_time, wait);
    item->user = wait;
    if (!error)
        return 0;
    if (wait->timer >= 0)
        close(wait->timer);
    free(wait);
    item->user = NULL;
    return error;
}

static int predict(void *model, struct unetserve_item *const *items, size_t count)
{
    const struct unetserve_host *host = model;
    host->count(host, "waits_total", (double)count);
    for (size_t i = 0; i < count; i++) {
        int error = begin(host, items[i]);
        if (error)
            host->complete(host, items[i], error);
    }
    return UNETSERVE_PENDING;
}

/* Its client has left: there is nothing to wait for. */
static void cancel(void *model, struct unetserve_item *item)
{
    (void)model;
    if (item->user)
        finish(item->user, -ECANCELED);
}

static void teardown(void *model)
{
    (void)model;
}

const struct unetserve_model_ops *unetserve_model(void)
{
    static const struct unetserve_model_ops ops = {
        .abi = UNETSERVE_MODEL_ABI,
        .size = sizeof ops,
        .name = "async",
        .describe = describe,
        .setup = setup,
        .predict = predict,
        .teardown = teardown,
        .cancel = cancel,
    };
    return &ops;
}
