#include "gateway/stream_text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char event_head[] = "data: ";
static const char event_tail[] = "\n\n";
static const char line_tail[] = "\n";

void stream_text_free(struct stream_text *text)
{
    free(text->bytes);
    *text = (struct stream_text){.bytes = NULL};
}

static void append(struct stream_text *text, const char *bytes, size_t size)
{
    memcpy(text->bytes + text->size, bytes, size);
    text->size += size;
}

int stream_text_set(struct stream_text *text, bool events, const char *item, size_t size)
{
    size_t needed = size + sizeof event_head + sizeof event_tail;
    if (needed > text->room) {
        char *larger = realloc(text->bytes, needed);
        if (!larger)
            return -ENOMEM;
        text->bytes = larger;
        text->room = needed;
    }
    text->size = text->sent = 0;
    while (size > 0 && (item[size - 1] == '\n' || item[size - 1] == '\r'))
        size--;
    if (events)
        append(text, event_head, sizeof event_head - 1);
    size_t from = text->size;
    append(text, item, size);
    for (size_t i = from; i < text->size; i++)
        if (text->bytes[i] == '\n' || text->bytes[i] == '\r')
            text->bytes[i] = ' ';
    if (events)
        append(text, event_tail, sizeof event_tail - 1);
    else
        append(text, line_tail, sizeof line_tail - 1);
    return 0;
}

size_t stream_text_take(struct stream_text *text, char *buffer, size_t size)
{
    size_t left = text->size - text->sent;
    size_t taken = left < size ? left : size;
    if (taken)
        memcpy(buffer, text->bytes + text->sent, taken);
    text->sent += taken;
    return taken;
}
