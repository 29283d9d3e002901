/* Any text: refused, or a list of GPUs that comes back the same, and `devices` that mean some of
 * them or are refused. */
#include "lib/gpu_list.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void resolve(const struct gpu_list *list, const char *devices)
{
    char text[1024];
    char error[GPU_LIST_ERROR_MAX + 300];
    if (gpu_list_resolve(list, devices, text, sizeof text, error, sizeof error))
        return;
    bool open = list->error[0] || strcmp(text, "auto") == 0 || strcmp(text, "cpu") == 0;
    if (!open && !gpu_list_find(list, strtok(text, ",")))
        abort();
}

/* A line of JSON; what follows it is a value of `devices`. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct gpu_list list, again;
    const uint8_t *end = memchr(data, '\n', size);
    size_t json_bytes = end ? (size_t)(end - data) : size;
    memset(&list, 0, sizeof list);
    memset(&again, 0, sizeof again);
    if (gpu_list_from_json((const char *)data, json_bytes, &list))
        return 0;
    char *text = gpu_list_to_json(&list);
    if (!text || gpu_list_from_json(text, strlen(text), &again) || again.count != list.count)
        abort();
    for (uint32_t i = 0; i < list.count; i++)
        if (strcmp(list.entries[i].uuid, again.entries[i].uuid) != 0 ||
            memcmp(list.entries[i].cpus, again.entries[i].cpus, sizeof again.entries[i].cpus) != 0)
            abort();
    free(text);
    char *devices = end ? strndup((const char *)end + 1, size - json_bytes - 1) : NULL;
    resolve(&list, devices ? devices : "cuda");
    free(devices);
    return 0;
}
