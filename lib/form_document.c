#include "lib/form_document.h"

#include "lib/json_text.h"
#include "lib/utf8.h"

#include <stdio.h>
#include <string.h>

#define PIECE 3072 /* of a file, at a time; a multiple of three */

void form_document_init(struct form_document *document, bool takes_files, form_document_put *put,
                        void *opaque)
{
    *document = (struct form_document){.put = put, .opaque = opaque, .takes_files = takes_files};
}

static int put(struct form_document *document, const char *text, size_t size,
               struct problem *problem)
{
    return size ? document->put(document->opaque, text, size, problem) : 0;
}

static int put_text(struct form_document *document, const char *text, struct problem *problem)
{
    return put(document, text, strlen(text), problem);
}

/* A short string, quotes included. */
static int put_string(struct form_document *document, const char *string, struct problem *problem)
{
    char text[FORM_NAME_MAX * 6 + 3];
    struct json_text json;
    json_text_init(&json, text, sizeof text);
    json_text_quote(&json, string, strlen(string), sizeof text - 1);
    return put(document, text, json.length, problem);
}

int form_document_begin(void *opaque, const struct form_part *part, struct problem *problem)
{
    struct form_document *document = opaque;
    if (part->is_file && !document->takes_files) {
        problem_set(problem, 422, "The field %s is a file, and this model takes none", part->name);
        return -1;
    }
    if (put(document, document->begun ? "," : "{", 1, problem) ||
        put_string(document, part->name, problem))
        return -1;
    document->begun = true;
    document->in_file = part->is_file;
    document->rest_size = document->rest_left = 0;
    if (!part->is_file)
        return put_text(document, ":\"", problem);
    if (put_text(document, ":{\"unetserve.UploadFile\":{\"filename\":", problem) ||
        put_string(document, part->filename, problem) ||
        put_text(document, ",\"content_type\":", problem) ||
        put_string(document, part->type, problem))
        return -1;
    return put_text(document, ",\"data\":\"", problem);
}

/* ---- files ---- */

static int put_file(struct form_document *document, const char *bytes, size_t size,
                    struct problem *problem)
{
    char letters[BASE64_LETTERS(PIECE)];
    while (size > 0) {
        char piece[PIECE];
        size_t used = document->rest_size, taken = size < PIECE - used ? size : PIECE - used;
        memcpy(piece, document->rest, used);
        memcpy(piece + used, bytes, taken);
        used += taken;
        bytes += taken;
        size -= taken;
        size_t whole = used / 3 * 3;
        document->rest_size = (uint8_t)(used - whole);
        memcpy(document->rest, piece + whole, used - whole);
        base64_encode(piece, whole, letters);
        if (put(document, letters, BASE64_LETTERS(whole), problem))
            return -1;
    }
    return 0;
}

/* ---- text ---- */

static const char replacement[] = "\xef\xbf\xbd";

/* A character of several bytes that has not come to its end. */
static int drop_rest(struct form_document *document, struct problem *problem)
{
    bool any = document->rest_size > 0;
    document->rest_size = document->rest_left = 0;
    return any ? put_text(document, replacement, problem) : 0;
}

static int put_escaped(struct form_document *document, char c, struct problem *problem)
{
    char text[8];
    if (c == '"' || c == '\\')
        snprintf(text, sizeof text, "\\%c", c);
    else
        snprintf(text, sizeof text, "\\u%04x", (unsigned)(unsigned char)c);
    return put_text(document, text, problem);
}

static bool is_plain(char c)
{
    return (unsigned char)c >= 0x20 && (unsigned char)c < 0x80 && c != '"' && c != '\\';
}

/* A byte that is not plain. */
static int put_byte(struct form_document *document, char c, struct problem *problem)
{
    uint8_t byte = (uint8_t)c;
    if (document->rest_left && byte >= document->low && byte <= document->high) {
        document->rest[document->rest_size++] = c;
        document->low = 0x80;
        document->high = 0xbf;
        if (--document->rest_left)
            return 0;
        size_t size = document->rest_size;
        document->rest_size = 0;
        return put(document, document->rest, size, problem);
    }
    if (drop_rest(document, problem))
        return -1;
    if (byte < 0x80)
        return put_escaped(document, c, problem);
    int more = utf8_lead(byte, &document->low, &document->high);
    if (more < 0)
        return put_text(document, replacement, problem);
    document->rest[0] = c;
    document->rest_size = 1;
    document->rest_left = (uint8_t)more;
    return 0;
}

int form_document_data(void *opaque, const char *bytes, size_t size, struct problem *problem)
{
    struct form_document *document = opaque;
    if (document->in_file)
        return put_file(document, bytes, size, problem);
    for (size_t at = 0; at < size;) {
        size_t plain = at;
        while (plain < size && is_plain(bytes[plain]))
            plain++;
        if (plain > at &&
            (drop_rest(document, problem) || put(document, bytes + at, plain - at, problem)))
            return -1;
        at = plain;
        if (at < size && put_byte(document, bytes[at++], problem))
            return -1;
    }
    return 0;
}

int form_document_end(void *opaque, struct problem *problem)
{
    struct form_document *document = opaque;
    if (!document->in_file)
        return drop_rest(document, problem) ? -1 : put(document, "\"", 1, problem);
    char letters[4];
    base64_encode(document->rest, document->rest_size, letters);
    return put(document, letters, BASE64_LETTERS(document->rest_size), problem) ||
                   put_text(document, "\"}}", problem)
               ? -1
               : 0;
}

int form_document_finish(struct form_document *document, struct problem *problem)
{
    return put_text(document, document->begun ? "}" : "{}", problem);
}
