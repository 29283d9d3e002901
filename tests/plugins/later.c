/*
 * A model that answers later, from threads and when it likes. It answers a document with the same
 * document, and the first word of a request says when:
 *
 *     meet N      when N such requests are pending at the same time
 *     thread      from a thread of its own, soon
 *     nap         the same, a while later
 *     wait        when its client has left and the worker says so
 *     keep        never
 *     crash       the process ends by SIGSEGV while it is pending
 *     fail        with an error
 */
#include "unetserve/model.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MEET_MAX 32

struct meeting {
    const struct unetserve_host *host;
    struct unetserve_item *present[MEET_MAX];
    size_t count;
};

static int describe(const struct unetserve_setup *setup, struct unetserve_interface *interface,
                    char *error, size_t error_size)
{
    (void)setup, (void)error, (void)error_size;
    *interface = (struct unetserve_interface){
        .name = "later",
        .version = "1",
        .input_kind = UNETSERVE_DOCUMENT,
        .output_kind = UNETSERVE_DOCUMENT,
        .size_multiple = 1,
        .max_batch = 4,
        .max_pending = MEET_MAX,
    };
    return 0;
}

static int setup(const struct unetserve_setup *options, void **model,
                 struct unetserve_interface *interface, char *error, size_t error_size)
{
    struct meeting *meeting = calloc(1, sizeof *meeting);
    if (!meeting)
        return -ENOMEM;
    meeting->host = options->host;
    *model = meeting;
    return describe(options, interface, error, error_size);
}

static bool says(const struct unetserve_item *item, const char *word)
{
    size_t size = strlen(word);
    return item->input_bytes >= size && memcmp(item->input, word, size) == 0;
}

static void answer(const struct meeting *meeting, struct unetserve_item *item, int error)
{
    memcpy(item->output, item->input, item->input_bytes);
    item->output_bytes = item->input_bytes;
    meeting->host->complete(meeting->host, item, error);
}

static void meet(struct meeting *meeting, struct unetserve_item *item)
{
    char text[16] = "";
    size_t rest = item->input_bytes - 4;
    memcpy(text, (const char *)item->input + 4, rest < sizeof text - 1 ? rest : sizeof text - 1);
    meeting->present[meeting->count++] = item;
    if (meeting->count < strtoul(text, NULL, 10) && meeting->count < MEET_MAX)
        return;
    for (size_t i = 0; i < meeting->count; i++)
        answer(meeting, meeting->present[i], 0);
    meeting->count = 0;
}

struct errand {
    const struct meeting *meeting;
    struct unetserve_item *item;
};

static void *run_errand(void *opaque)
{
    struct errand *errand = opaque;
    bool naps = says(errand->item, "nap");
    nanosleep(&(struct timespec){.tv_nsec = naps ? 400000000 : 5000000}, NULL);
    answer(errand->meeting, errand->item, 0);
    free(errand);
    return NULL;
}

static void send_thread(struct meeting *meeting, struct unetserve_item *item)
{
    pthread_t thread;
    struct errand *errand = malloc(sizeof *errand);
    if (!errand)
        abort();
    *errand = (struct errand){meeting, item};
    if (pthread_create(&thread, NULL, run_errand, errand))
        abort();
    pthread_detach(thread);
}

static void *crash_soon(void *opaque)
{
    nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
    raise(SIGSEGV);
    return opaque;
}

static int predict(void *model, struct unetserve_item *const *items, size_t count)
{
    struct meeting *meeting = model;
    pthread_t thread;
    const struct unetserve_host *host = meeting->host;
    host->count(host, "calls_total", 0.5);
    host->gauge(host, "last_count", (double)count);
    if (host->count(host, "calls", 1) != -EINVAL || host->gauge(host, "x_total", 1) != -EINVAL ||
        host->gauge(host, "Bad", 1) != -EINVAL || host->count(host, "a_total", -1) != -EINVAL)
        return -EINVAL;
    for (size_t i = 0; i < count; i++) {
        if (says(items[i], "meet"))
            meet(meeting, items[i]);
        else if (says(items[i], "thread") || says(items[i], "nap"))
            send_thread(meeting, items[i]);
        else if (says(items[i], "fail"))
            answer(meeting, items[i], -EINVAL);
        else if (says(items[i], "crash") && pthread_create(&thread, NULL, crash_soon, NULL) == 0)
            pthread_detach(thread);
        else if (!says(items[i], "wait") && !says(items[i], "keep"))
            answer(meeting, items[i], 0);
    }
    return UNETSERVE_PENDING;
}

static void cancel(void *model, struct unetserve_item *item)
{
    const struct meeting *meeting = model;
    if (!says(item, "wait"))
        return;
    meeting->host->log(meeting->host, 6, "wait: nobody waits");
    meeting->host->complete(meeting->host, item, -ECANCELED);
}

static void teardown(void *model)
{
    free(model);
}

const struct unetserve_model_ops *unetserve_model(void)
{
    static const struct unetserve_model_ops ops = {
        .abi = UNETSERVE_MODEL_ABI,
        .size = sizeof ops,
        .name = "later",
        .describe = describe,
        .setup = setup,
        .predict = predict,
        .teardown = teardown,
        .cancel = cancel,
    };
    return &ops;
}
