/*
 * A model for tests of what happens when models misbehave. It answers a document with the same
 * document, and
 *
 *     crash...    ends the process by SIGSEGV
 *     abort...    ends it by SIGABRT, in decode_request, before any batch is formed
 *     exit...     ends it by an exit that fails, as a library may
 *     hang...     never returns and never ticks
 *     slow N...   takes N milliseconds, with signs of progress
 *     mute N...   takes N milliseconds without any
 *     held N...   goes on, with signs of progress, until the file PATH.gate is longer than N bytes;
 *                 PATH is the plugin's. Without such a file at its setup, for ever
 *     drip N...   takes N milliseconds, or twice or three times that, and writes its answer bit by
 *                 bit all the while; a second run of the same job may end before the first does
 *     fail...     makes predict fail as a whole
 *
 * so that the first word of a request says what it does to its worker.
 */
#include "tests/plugins/gate.h"
#include "unetserve/model.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BATCH_MAX 8
#define STEP_MS   5

struct poison {
    const struct unetserve_host *host;
    int gate; /* or -1 */
};

static int describe(const struct unetserve_setup *setup, struct unetserve_interface *interface,
                    char *error, size_t error_size)
{
    (void)setup, (void)error, (void)error_size;
    memset(interface, 0, sizeof *interface);
    snprintf(interface->name, sizeof interface->name, "poison");
    snprintf(interface->version, sizeof interface->version, "1");
    interface->input_kind = UNETSERVE_DOCUMENT;
    interface->output_kind = UNETSERVE_DOCUMENT;
    interface->size_multiple = 1;
    interface->max_batch = BATCH_MAX;
    return 0;
}

static int setup(const struct unetserve_setup *options, void **model,
                 struct unetserve_interface *interface, char *error, size_t error_size)
{
    struct poison *poison = malloc(sizeof *poison);
    if (!poison)
        return -ENOMEM;
    *poison = (struct poison){options->host, gate_open(options->path)};
    *model = poison;
    return describe(options, interface, error, error_size);
}

static bool says(const struct unetserve_item *item, const char *word)
{
    size_t size = strlen(word);
    return item->input_bytes >= size && memcmp(item->input, word, size) == 0;
}

static unsigned number_after(const struct unetserve_item *item, const char *word)
{
    char text[32] = "";
    size_t skip = strlen(word);
    size_t size = item->input_bytes - skip;
    memcpy(text, (const char *)item->input + skip, size < sizeof text - 1 ? size : sizeof text - 1);
    return (unsigned)strtoul(text, NULL, 10);
}

static void wait_ms(const struct unetserve_host *host, unsigned ms, bool ticking)
{
    for (unsigned done = 0; done < ms; done += STEP_MS) {
        nanosleep(&(struct timespec){.tv_nsec = STEP_MS * 1000000L}, NULL);
        if (ticking)
            host->tick(host);
    }
}

static int decode_request(void *model, struct unetserve_item *item)
{
    (void)model;
    if (says(item, "abort"))
        abort();
    return 0;
}

static void drip(const struct unetserve_host *host, const struct unetserve_item *item)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    unsigned steps = (number_after(item, "drip") / STEP_MS + 1) *
                     (1 + (unsigned)(now.tv_nsec / 1000 % 3));
    size_t size = item->input_bytes;
    /* A copy, so that what is written belongs to this job whatever becomes of its slot. */
    char *text = malloc(size);
    if (!text)
        abort();
    memcpy(text, item->input, size);
    for (unsigned i = 0; i < steps; i++) {
        size_t from = size * i / steps;
        wait_ms(host, STEP_MS, true);
        memcpy((char *)item->output + from, text + from, size * (i + 1) / steps - from);
    }
    free(text);
}

static void answer(const struct unetserve_host *host, const struct unetserve_item *item)
{
    if (says(item, "drip"))
        drip(host, item);
    else
        memcpy(item->output, item->input, item->input_bytes);
}

static int misbehave(const struct poison *poison, const struct unetserve_item *item)
{
    const struct unetserve_host *host = poison->host;
    if (says(item, "crash"))
        raise(SIGSEGV);
    if (says(item, "exit"))
        _exit(3);
    for (volatile bool forever = says(item, "hang"); forever;)
        ;
    if (says(item, "slow"))
        wait_ms(host, number_after(item, "slow"), true);
    if (says(item, "mute"))
        wait_ms(host, number_after(item, "mute"), false);
    while (says(item, "held") && gate_holds(poison->gate, number_after(item, "held")))
        wait_ms(host, STEP_MS, true);
    return says(item, "fail") ? -EINVAL : 0;
}

static int predict(void *model, struct unetserve_item *const *items, size_t count)
{
    const struct poison *poison = model;
    int error = 0;
    for (size_t i = 0; i < count; i++) {
        struct unetserve_item *item = items[i];
        if (item->input_bytes > item->output_capacity)
            return -ENOSPC;
        if (misbehave(poison, item))
            error = -EINVAL;
        answer(poison->host, item);
        item->output_bytes = item->input_bytes;
    }
    return error;
}

static void teardown(void *model)
{
    struct poison *poison = model;
    if (poison->gate >= 0)
        close(poison->gate);
    free(poison);
}

const struct unetserve_model_ops *unetserve_model(void)
{
    static const struct unetserve_model_ops ops = {
        .abi = UNETSERVE_MODEL_ABI,
        .size = sizeof ops,
        .name = "poison",
        .describe = describe,
        .setup = setup,
        .decode_request = decode_request,
        .predict = predict,
        .teardown = teardown,
    };
    return &ops;
}
