/*
 * A model that is what the file PATH.mood says: its interface has that text as its version, and its
 * answers are that text, after as many milliseconds as the request's number says, or for "held N"
 * when gate.h lets it. With the mood "fail" it can be described but not set up; with "slow..." a
 * description takes an hour. As long as the file PATH.hold has the mood that it found, it is not
 * set up; "MOOD at N" concerns the worker at seat N only.
 */
#include "tests/plugins/gate.h"
#include "unetserve/model.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct moody {
    const struct unetserve_host *host;
    char mood[32];
    int gate;
};

static void text_read(const char *path, const char *which, char mood[32])
{
    char name[4096];
    snprintf(name, sizeof name, "%s.%s", path, which);
    FILE *file = fopen(name, "re");
    size_t got = file ? fread(mood, 1, 31, file) : 0;
    mood[got] = '\0';
    if (file)
        fclose(file);
}

/* "" where the worker has no such number. */
static void seat_read(char seat[32])
{
    char words[4096];
    FILE *file = fopen("/proc/self/cmdline", "re");
    size_t got = file ? fread(words, 1, sizeof words - 1, file) : 0;
    if (file)
        fclose(file);
    words[got] = '\0';
    seat[0] = '\0';
    for (size_t at = 0; at < got; at += strlen(words + at) + 1)
        if (strcmp(words + at, "--seat") == 0)
            snprintf(seat, 32, "%.31s", words + at + sizeof "--seat");
}

static bool is_held(const char *path, const char *mood, const char *seat)
{
    char held[32];
    char here[80];
    text_read(path, "hold", held);
    snprintf(here, sizeof here, "%s at %s", mood, seat);
    return held[0] && (strcmp(held, mood) == 0 || strcmp(held, here) == 0);
}

static void wait_ms(long milliseconds)
{
    struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    nanosleep(&time, NULL);
}

static void interface_fill(const char *mood, struct unetserve_interface *interface)
{
    memset(interface, 0, sizeof *interface);
    snprintf(interface->name, sizeof interface->name, "moody");
    snprintf(interface->version, sizeof interface->version, "%.20s", mood);
    interface->input_kind = UNETSERVE_DOCUMENT;
    interface->output_kind = UNETSERVE_DOCUMENT;
    interface->size_multiple = 1;
    interface->max_batch = 1;
}

static int describe(const struct unetserve_setup *setup, struct unetserve_interface *interface,
                    char *error, size_t error_size)
{
    (void)error, (void)error_size;
    char mood[32];
    text_read(setup->path, "mood", mood);
    if (strncmp(mood, "slow", 4) == 0)
        wait_ms(3600000);
    interface_fill(mood, interface);
    return 0;
}

static void teardown(void *model)
{
    struct moody *moody = model;
    if (moody->gate >= 0)
        close(moody->gate);
    free(moody);
}

static int setup(const struct unetserve_setup *options, void **model,
                 struct unetserve_interface *interface, char *error, size_t error_size)
{
    struct moody *moody = calloc(1, sizeof *moody);
    char seat[32];
    if (!moody)
        return -ENOMEM;
    moody->host = options->host;
    moody->gate = gate_open(options->path);
    text_read(options->path, "mood", moody->mood);
    seat_read(seat);
    for (int i = 0; i < 360000 && is_held(options->path, moody->mood, seat); i++)
        wait_ms(10);
    if (strcmp(moody->mood, "fail") == 0) {
        snprintf(error, error_size, "not in the mood");
        teardown(moody);
        return -EINVAL;
    }
    interface_fill(moody->mood, interface);
    *model = moody;
    return 0;
}

static int predict(void *model, struct unetserve_item *const *items, size_t count)
{
    const struct moody *moody = model;
    for (size_t i = 0; i < count; i++) {
        char text[16] = "";
        memcpy(text, items[i]->input,
               items[i]->input_bytes < sizeof text ? items[i]->input_bytes : sizeof text - 1);
        while (strncmp(text, "held", 4) == 0 &&
               gate_holds(moody->gate, (unsigned)strtoul(text + 4, NULL, 10))) {
            wait_ms(5);
            moody->host->tick(moody->host);
        }
        wait_ms(strtol(text, NULL, 10));
        items[i]->output_bytes = strlen(moody->mood);
        memcpy(items[i]->output, moody->mood, items[i]->output_bytes);
    }
    return 0;
}

const struct unetserve_model_ops *unetserve_model(void)
{
    static const struct unetserve_model_ops ops = {
        .abi = UNETSERVE_MODEL_ABI,
        .size = sizeof ops,
        .name = "moody",
        .describe = describe,
        .setup = setup,
        .predict = predict,
        .teardown = teardown,
    };
    return &ops;
}
