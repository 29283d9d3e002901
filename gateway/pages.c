#include "gateway/pages.h"

#include "gateway/metrics.h"

#include "lib/json_whole.h"
#include "lib/model_facts.h"

#include "unetserve/interface_text.h"
#include "unetserve/loss.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- /info ---- */

/* UUIDs, or whatever else is no number. */
static json_t *devices_named(const char *text)
{
    json_t *list = json_array();
    while (*text) {
        size_t length = strcspn(text, ",");
        json_whole_append(&list, json_stringn(text, length));
        text += length + (text[length] == ',');
    }
    return list;
}

/* "auto" and "cpu" as they are for LitServe; "0,2" are device numbers, a single number is a count.
 */
static json_t *devices(const char *text)
{
    if (strspn(text, "0123456789,") != strlen(text) || !text[0])
        return devices_named(strcmp(text, "auto") == 0 ? "cpu" : text);
    json_t *list = json_array();
    bool numbers = strchr(text, ',') != NULL;
    unsigned long count = numbers ? 64 : strtoul(text, NULL, 10);
    const char *at = text;
    char name[32];
    for (unsigned long i = 0; i < count && i < 64 && (!numbers || *at); i++) {
        snprintf(name, sizeof name, "cuda:%lu", numbers ? strtoul(at, NULL, 10) : i);
        json_whole_append(&list, json_string(name));
        at += strcspn(at, ",");
        at += *at == ',';
    }
    return list;
}

/* LitServe's two keys, and the classes of a segmentation model as a legend: "color" as in CSS. */
static json_t *info_model(const struct unetserve_interface *interface)
{
    json_t *model = json_pack("{s:o, s:o}", "name",
                              json_whole_string(interface->name, sizeof interface->name), "version",
                              json_whole_string(interface->version, sizeof interface->version));
    if (interface->class_count == 0)
        return model;
    json_whole_set(&model, "classes", model_facts_classes(interface));
    return model;
}

static bool model_streams(struct models *models, uint32_t index)
{
    struct model_view *view = models_view(models, index);
    bool streams = view && (view->interface.flags & UNETSERVE_STREAMS);
    if (view)
        model_view_drop(view);
    return streams;
}

char *pages_info(struct models *models)
{
    const struct config *config = models->config;
    json_t *stream = json_object();
    for (uint32_t i = 0; i < config->model_count; i++)
        json_whole_set(&stream, config->models[i].route, json_boolean(model_streams(models, i)));
    json_t *model = json_null();
    struct model_view *view = config->model_count ? models_view(models, 0) : NULL;
    if (view) {
        model = info_model(&view->interface);
        model_view_drop(view);
    } else if (config->model_count && atomic_load(&models->queue->models[0].generation)) {
        model = NULL; /* it is there, but no memory for it: then there is no page */
    }
    const struct config_model *first = &config->models[0];
    return json_whole_text(json_pack(
        "{s:o, s:{s:o, s:I, s:f, s:o, s:I, s:b}}", "model", model, "server", "devices",
        devices(first->devices), "workers_per_device", (json_int_t)first->workers_per_device,
        "timeout", first->timeout_ms / 1000.0, "stream", stream, "max_payload_size",
        (json_int_t)config->max_body_bytes, "track_requests", 0));
}

/* ---- status ---- */

/* Answers so far, all of them and those with 200. */
static void status_answers(json_t **entry, const struct counters_model *counts)
{
    uint64_t answered = 0;
    for (unsigned place = 0; place < COUNTERS_STATUSES; place++)
        answered += counter_read(&counts->answers[place]);
    json_whole_set(entry, "answered", json_integer((json_int_t)answered));
    json_whole_set(entry, "answered_200",
                   json_integer((json_int_t)counter_read(&counts->answers[counters_status(200)])));
}

static json_t *status_model(struct models *models, uint32_t index, const struct counters *total)
{
    const struct config_model *model = &models->config->models[index];
    json_t *entry = json_pack(
        "{s:s, s:s, s:I, s:I, s:I, s:I}", "name", model->name, "route", model->route,
        "workers_ready", (json_int_t)queue_ready_workers(models->queue, index), "workers_needed",
        (json_int_t)models_workers_needed(model), "workers_wanted",
        (json_int_t)atomic_load(&models->queue->models[index].workers_wanted), "generation",
        (json_int_t)atomic_load(&models->queue->models[index].generation));
    status_answers(&entry, &total->models[index]);
    struct model_view *view = models_view(models, index);
    if (view) {
        char *interface = interface_to_json(&view->interface);
        json_whole_set(&entry, "interface",
                       interface ? json_whole_load(interface, strlen(interface), 0, NULL) : NULL);
        free(interface);
        model_view_drop(view);
    }
    return entry;
}

static const char *life_name(uint32_t life)
{
    return life == QUEUE_LIVE ? "live" : "condemned";
}

static json_t *status_process(const struct queue *queue, uint32_t index)
{
    static const char *const roles[QUEUE_ROLE_COUNT] = {"nobody", "supervisor", "gateway", "broker",
                                                        "worker", "auth",       "gpu"};
    const struct queue_process *process = &queue->processes[index];
    uint32_t role = atomic_load(&process->role);
    json_t *entry = json_pack(
        "{s:I, s:s, s:I, s:I, s:s, s:b, s:b, s:I}", "index", (json_int_t)index, "role",
        role < QUEUE_ROLE_COUNT ? roles[role] : "?", "seat",
        (json_int_t)atomic_load(&process->seat), "pid", (json_int_t)atomic_load(&process->pid),
        "life", life_name(atomic_load(&process->life)), "ready", atomic_load(&process->ready) != 0,
        "draining", atomic_load(&process->draining) != 0, "jobs",
        (json_int_t)atomic_load(&process->jobs));
    if (role == QUEUE_WORKER) {
        json_whole_set(&entry, "model", json_integer(atomic_load(&process->model)));
        json_whole_set(&entry, "busy_ms",
                       json_integer((json_int_t)(atomic_load(&process->busy_ns) / 1000000)));
    }
    return entry;
}

static json_t *status_slots(const struct queue *queue)
{
    unsigned counts[QUEUE_STATE_COUNT] = {0};
    for (uint32_t i = 0; i < queue->slot_count; i++) {
        unsigned state = queue_word_state(queue_word(queue, i));
        if (state < QUEUE_STATE_COUNT)
            counts[state]++;
    }
    json_t *slots = json_object();
    json_whole_set(&slots, "total", json_integer(queue->slot_count));
    for (unsigned state = 0; state < QUEUE_STATE_COUNT; state++)
        json_whole_set(&slots, queue_state_name((enum queue_state)state),
                       json_integer(counts[state]));
    return slots;
}

/* GPUs that workers have failed on. */
static json_t *status_devices(const struct queue *queue)
{
    uint64_t now_ns = queue_now_ns();
    json_t *devices = json_array();
    for (uint32_t i = 0; i <= COUNTERS_MAX_GPUS; i++) {
        const struct counters_device *device = &queue->devices[i];
        char name[sizeof device->name];
        uint64_t failures = counters_device_failures(device);
        uint64_t until_ns = counter_read(&device->rests_until_ns);
        if (failures == 0)
            continue;
        memcpy(name, device->name, sizeof name);
        json_whole_append(
            &devices,
            json_pack(
                "{s:o, s:I, s:s, s:I, s:b, s:I}", "device",
                json_stringn(name, strnlen(name, sizeof name)), "failures", (json_int_t)failures,
                "reason", loss_name((uint32_t)counter_read(&device->last)), "failures_in_a_row",
                (json_int_t)counter_read(&device->in_a_row), "resting", until_ns != 0, "rest_ms",
                (json_int_t)(until_ns > now_ns ? (until_ns - now_ns) / 1000000 : 0)));
    }
    return devices;
}

char *pages_status(struct models *models)
{
    struct counters *total = aligned_alloc(_Alignof(struct counters), sizeof *total);
    if (!total)
        return NULL;
    metrics_total(models->queue, total);
    json_t *served = json_array(), *processes = json_array();
    for (uint32_t i = 0; i < models->config->model_count; i++)
        json_whole_append(&served, status_model(models, i, total));
    free(total);
    for (uint32_t i = 0; (i = queue_process_next(models->queue, i));)
        if (atomic_load(&models->queue->processes[i].life) != QUEUE_VACANT)
            json_whole_append(&processes, status_process(models->queue, i));
    return json_whole_text(json_pack("{s:b, s:o, s:o, s:o, s:o}", "ready", models_ready(models),
                                     "models", served, "slots", status_slots(models->queue),
                                     "processes", processes, "failed_devices",
                                     status_devices(models->queue)));
}
