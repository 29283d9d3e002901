#include "lib/gpu_list.h"

#include "lib/json_whole.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- as text ---- */

static json_t *cpus_to_json(const struct gpu_entry *entry)
{
    json_t *cpus = json_array();
    for (unsigned i = 0; i < GPU_CPU_WORDS * 64; i++)
        if (entry->cpus[i / 64] >> i % 64 & 1)
            json_whole_append(&cpus, json_integer(i));
    return cpus;
}

static json_t *entry_to_json(const struct gpu_entry *entry)
{
    return json_pack("{s:o, s:o, s:o, s:I, s:i, s:o}", "uuid",
                     json_whole_string(entry->uuid, sizeof entry->uuid), "index",
                     json_whole_string(entry->index, sizeof entry->index), "name",
                     json_whole_string(entry->name, sizeof entry->name), "memory_bytes",
                     (json_int_t)entry->memory_bytes, "numa_node", entry->node, "cpus",
                     cpus_to_json(entry));
}

char *gpu_list_to_json(const struct gpu_list *list)
{
    json_t *devices = json_array();
    for (uint32_t i = 0; i < list->count; i++)
        json_whole_append(&devices, entry_to_json(&list->entries[i]));
    return json_whole_text(
        json_pack("{s:o, s:o, s:o}", "driver", json_whole_string(list->driver, sizeof list->driver),
                  "error", json_whole_string(list->error, sizeof list->error), "devices", devices));
}

static int text_take(const char *from, char *to, size_t size)
{
    if (strlen(from) >= size)
        return -EBADMSG;
    memcpy(to, from, strlen(from) + 1);
    return 0;
}

static int cpus_take(const json_t *cpus, struct gpu_entry *entry)
{
    size_t i;
    const json_t *cpu;
    json_array_foreach(cpus, i, cpu)
    {
        json_int_t number = json_is_integer(cpu) ? json_integer_value(cpu) : -1;
        if (number < 0 || number >= GPU_CPU_WORDS * 64)
            return -EBADMSG;
        entry->cpus[number / 64] |= UINT64_C(1) << number % 64;
    }
    return 0;
}

/* They become words of a command line and of an environment. */
static bool is_name_of_gpu(const char *text)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                  "-:/";
    return text[0] && text[strspn(text, allowed)] == '\0';
}

static int entry_take(json_t *json, struct gpu_entry *out)
{
    const char *uuid, *index, *name;
    json_int_t memory_bytes;
    json_t *cpus;
    struct gpu_entry entry = {.node = -1};
    if (json_unpack(json, "{s:s, s:s, s:s, s:I, s:i, s:o}", "uuid", &uuid, "index", &index, "name",
                    &name, "memory_bytes", &memory_bytes, "numa_node", &entry.node, "cpus", &cpus))
        return -EBADMSG;
    if (!is_name_of_gpu(uuid) || !is_name_of_gpu(index) || memory_bytes < 0 || entry.node < -1 ||
        entry.node >= 1024 || text_take(uuid, entry.uuid, sizeof entry.uuid) ||
        text_take(index, entry.index, sizeof entry.index) ||
        text_take(name, entry.name, sizeof entry.name) || cpus_take(cpus, &entry))
        return -EBADMSG;
    entry.memory_bytes = (uint64_t)memory_bytes;
    *out = entry;
    return 0;
}

static int document_take(json_t *document, struct gpu_list *out)
{
    const char *driver, *error;
    json_t *devices;
    if (json_unpack(document, "{s:s, s:s, s:o}", "driver", &driver, "error", &error, "devices",
                    &devices) ||
        !json_is_array(devices) || json_array_size(devices) > GPU_LIST_MAX ||
        text_take(driver, out->driver, sizeof out->driver) ||
        text_take(error, out->error, sizeof out->error))
        return -EBADMSG;
    for (size_t i = 0; i < json_array_size(devices); i++) {
        int failure = entry_take(json_array_get(devices, i), &out->entries[i]);
        if (failure)
            return failure;
    }
    out->count = (uint32_t)json_array_size(devices);
    return 0;
}

int gpu_list_from_json(const char *text, size_t size, struct gpu_list *out)
{
    json_error_t where;
    json_t *document = json_whole_load(text, size, JSON_REJECT_DUPLICATES, &where);
    if (!document)
        return -errno;
    struct gpu_list *list = calloc(1, sizeof *list);
    int error = list ? document_take(document, list) : -ENOMEM;
    if (!error)
        *out = *list;
    free(list);
    json_decref(document);
    return error;
}

/* ---- which ones ---- */

const struct gpu_entry *gpu_list_find(const struct gpu_list *list, const char *which)
{
    const char *index = strncmp(which, "cuda:", 5) == 0 ? which + 5 : which;
    for (uint32_t i = 0; i < list->count; i++)
        if (strcmp(list->entries[i].uuid, which) == 0 || strcmp(list->entries[i].index, index) == 0)
            return &list->entries[i];
    return NULL;
}

struct writing {
    char *text;
    size_t size, used;
};

/* One more, which was not there before. 0, -EEXIST, -ENOSPC. */
static int name_add(struct writing *writing, const struct gpu_entry *entry)
{
    const char *known = strstr(writing->text, entry->uuid);
    size_t length = strlen(entry->uuid);
    if (known && (known[length] == ',' || known[length] == '\0'))
        return -EEXIST;
    int more = snprintf(writing->text + writing->used, writing->size - writing->used, "%s%s",
                        writing->used ? "," : "", entry->uuid);
    if (more < 0 || (size_t)more >= writing->size - writing->used)
        return -ENOSPC;
    writing->used += (size_t)more;
    return 0;
}

static int complain(char *error, size_t error_size, const char *which, const char *what)
{
    snprintf(error, error_size, "key 'devices': %.200s: %s", which, what);
    return -ENODEV;
}

static int resolve_count(const struct gpu_list *list, const char *devices, unsigned long count,
                         struct writing *writing, char *error, size_t error_size)
{
    char what[80];
    if (count == 0)
        return complain(error, error_size, devices,
                        "a number says how many; the first GPU is cuda:0");
    if (count > list->count) {
        snprintf(what, sizeof what, "there %s %u GPU%s here", list->count == 1 ? "is" : "are",
                 list->count, list->count == 1 ? "" : "s");
        return complain(error, error_size, devices, what);
    }
    for (unsigned long i = 0; i < count; i++)
        if (name_add(writing, &list->entries[i]))
            return complain(error, error_size, devices, "too many at once");
    return 0;
}

static int resolve_names(const struct gpu_list *list, const char *devices, struct writing *writing,
                         char *error, size_t error_size)
{
    char which[GPU_TEXT_MAX + 8];
    for (const char *at = devices + strspn(devices, ", "); *at; at += strspn(at, ", ")) {
        size_t length = strcspn(at, ", ");
        if (length >= sizeof which)
            return complain(error, error_size, at, "no name of a GPU");
        memcpy(which, at, length);
        which[length] = '\0';
        const struct gpu_entry *entry = gpu_list_find(list, which);
        if (!entry)
            return complain(error, error_size, which, "no such GPU; 'unetctl devices' lists them");
        int failure = name_add(writing, entry);
        if (failure)
            return complain(error, error_size, which,
                            failure == -EEXIST ? "named twice" : "too many at once");
        at += length;
    }
    return writing->used ? 0 : complain(error, error_size, devices, "names no GPU");
}

int gpu_list_resolve(const struct gpu_list *list, const char *devices, char *out, size_t size,
                     char *error, size_t error_size)
{
    struct writing writing = {.text = out, .size = size};
    bool all = strcmp(devices, "cuda") == 0;
    bool is_count = devices[strspn(devices, "0123456789")] == '\0';
    bool open = strcmp(devices, "auto") == 0 || strcmp(devices, "cpu") == 0;
    /* The driver's first one needs no name; if there is no driver, the worker will say so. */
    if (open || (list->error[0] && (all || strcmp(devices, "1") == 0))) {
        snprintf(out, size, "%s", devices);
        return 0;
    }
    out[0] = '\0';
    if (list->error[0])
        return complain(error, error_size, devices, list->error);
    if (list->count == 0)
        return complain(error, error_size, devices, "the NVIDIA driver shows no GPU here");
    if (all || is_count)
        return resolve_count(list, devices, all ? list->count : strtoul(devices, NULL, 10),
                             &writing, error, error_size);
    return resolve_names(list, devices, &writing, error, error_size);
}
