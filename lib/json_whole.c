#include "lib/json_whole.h"

#include "lib/utf8.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static void container_drop(json_t **container)
{
    json_decref(*container);
    *container = NULL;
}

void json_whole_append(json_t **list, json_t *item)
{
    if (json_array_append_new(*list, item))
        container_drop(list);
}

void json_whole_set(json_t **object, const char *key, json_t *item)
{
    if (json_object_set_new(*object, key, item))
        container_drop(object);
}

static bool text_is_utf8(const char *text, size_t size)
{
    for (size_t at = 0, taken; at < size; at += taken)
        if (!(taken = utf8_sequence_length(text + at, size - at)))
            return false;
    return true;
}

json_t *json_whole_string(const char *text, size_t size)
{
    size_t length = strnlen(text, size);
    if (text_is_utf8(text, length))
        return json_stringn(text, length);
    char *ascii = strndup(text, length);
    for (size_t i = 0; ascii && i < length; i++)
        if ((unsigned char)ascii[i] >= 0x80)
            ascii[i] = '?';
    json_t *string = ascii ? json_string(ascii) : NULL;
    free(ascii);
    return string;
}

/* ---- reading ---- */

static _Thread_local bool memory_ran_out;

static void *memory_take(size_t size)
{
    void *memory = malloc(size);
    if (!memory)
        memory_ran_out = true;
    return memory;
}

json_t *json_whole_load(const char *text, size_t size, size_t flags, json_error_t *error)
{
    json_set_alloc_funcs(memory_take, free);
    memory_ran_out = false;
    json_t *document = json_loadb(text, size, flags, error);
    if (memory_ran_out) {
        json_decref(document);
        document = NULL;
    }
    errno = memory_ran_out ? ENOMEM : EBADMSG;
    return document;
}

/* Not json_dumps: when its buffer cannot grow within a key (jansson 2.14), it leaves a quote out
 * and says nothing. */
char *json_whole_text(json_t *root)
{
    size_t size = root ? json_dumpb(root, NULL, 0, JSON_COMPACT) : 0;
    char *text = size ? malloc(size + 1) : NULL;
    if (text && json_dumpb(root, text, size, JSON_COMPACT) != size) {
        free(text);
        text = NULL;
    }
    if (text)
        text[size] = '\0';
    json_decref(root);
    return text;
}
