#include "gateway/negotiate.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

/* libmicrohttpd leaves the white space after a value, which is no part of it. */
static size_t value_size(const char *text)
{
    size_t size = text ? strlen(text) : 0;
    while (size > 0 && (text[size - 1] == ' ' || text[size - 1] == '\t'))
        size--;
    return size;
}

/* ---- Content-Type ---- */

/* The length of a media type without its parameters and the white space before them. */
static size_t media_type_size(const char *text)
{
    size_t size = strcspn(text, ";");
    while (size > 0 && (text[size - 1] == ' ' || text[size - 1] == '\t'))
        size--;
    return size;
}

static bool media_type_is(const char *text, size_t size, const char *type)
{
    return size == strlen(type) && strncasecmp(text, type, size) == 0;
}

static bool is_json_type(const char *text, size_t size)
{
    return size == 0 || media_type_is(text, size, "application/json") ||
           media_type_is(text, size, "text/json") || media_type_is(text, size, "text/plain") ||
           (size > 5 && strncasecmp(text + size - 5, "+json", 5) == 0);
}

int negotiate_format(const struct unetserve_interface *interface, const char *content_type,
                     enum body_format *format, struct problem *problem)
{
    const char *type = content_type ? content_type : "";
    size_t size = media_type_size(type);
    bool document = interface->input_kind == UNETSERVE_DOCUMENT;
    bool form = media_type_is(type, size, "application/x-www-form-urlencoded");
    if (media_type_is(type, size, "multipart/form-data")) {
        *format = BODY_MULTIPART;
    } else if (document) {
        *format = form ? BODY_URLENCODED : BODY_DOCUMENT;
    } else if (is_json_type(type, size)) {
        *format = BODY_JSON;
    } else if (media_type_is(type, size, "application/x-npy")) {
        *format = BODY_NPY;
    } else if (media_type_is(type, size, "application/octet-stream")) {
        *format = BODY_RAW;
    } else if (media_type_is(type, size, "image/tiff") || media_type_is(type, size, "image/png")) {
        *format = BODY_FILE;
    } else {
        problem_set(problem, 415, "Content-Type %.*s is not taken here, allowed: %s%s",
                    (int)(size < 100 ? size : 100), type,
                    "application/json, application/x-npy, image/tiff, image/png, "
                    "multipart/form-data, application/octet-stream",
                    form ? " (curl -d says so unless told otherwise: -H 'Content-Type: ...')" : "");
        return -1;
    }
    return 0;
}

/* ---- Accept ---- */

struct form_type {
    enum job_form form;
    const char *type, *range; /* and the range that holds it */
};

static const struct form_type form_types[] = {
    {JOB_JSON, "application/json", "application/*"},
    {JOB_NPY, "application/x-npy", "application/*"},
    {JOB_PNG, "image/png", "image/*"},
};

/* A streaming model's: LitServe's lines unless somebody wants events. */
static const struct form_type stream_types[] = {
    {JOB_LINES, "application/x-ndjson", "application/*"},
    {JOB_LINES, "application/json", "application/*"},
    {JOB_EVENTS, "text/event-stream", "text/*"},
};

enum {
    FORM_COUNT = sizeof form_types / sizeof form_types[0],
    STREAM_COUNT = sizeof stream_types / sizeof stream_types[0],
    RANGES_MAX = 64
};

_Static_assert(STREAM_COUNT == FORM_COUNT, "both are weighed in the same table");

struct preference {
    unsigned specific; /* 0: no range fits, 1: any type, 2: the right kind, 3: this very type */
    unsigned thousandths;
    unsigned position;
};

/* The q parameter of one element of Accept, in thousandths. What cannot be read counts as 1, as if
 * it were not there. */
static unsigned quality(const char *element, size_t size)
{
    for (size_t i = 0; i + 2 < size; i++) {
        if (element[i] != ';')
            continue;
        size_t at = i + 1;
        while (at < size && (element[at] == ' ' || element[at] == '\t'))
            at++;
        if (at + 2 >= size || (element[at] | 0x20) != 'q' || element[at + 1] != '=')
            continue;
        char text[8] = {0};
        memcpy(text, element + at + 2, size - at - 2 < 5 ? size - at - 2 : 5);
        if ((text[0] != '0' && text[0] != '1') || (text[1] && !strchr(". \t;", text[1])))
            return 1000;
        double value = strtod(text, NULL);
        return value >= 1 ? 1000 : (unsigned)(value * 1000 + 0.5);
    }
    return 1000;
}

static unsigned specificity(const struct form_type *form, const char *range, size_t size)
{
    if (media_type_is(range, size, form->type))
        return 3;
    if (media_type_is(range, size, form->range))
        return 2;
    return media_type_is(range, size, "*/*") ? 1 : 0;
}

static void weigh_element(const struct form_type *types, const char *element, size_t size,
                          unsigned position, struct preference preferences[FORM_COUNT])
{
    size_t type_size = media_type_size(element);
    if (type_size > size)
        type_size = size;
    for (size_t i = 0; i < FORM_COUNT; i++) {
        unsigned specific = specificity(&types[i], element, type_size);
        if (specific > preferences[i].specific)
            preferences[i] = (struct preference){specific, quality(element, size), position};
    }
}

static bool better(const struct preference *a, const struct preference *b)
{
    if (a->thousandths != b->thousandths)
        return a->thousandths > b->thousandths;
    if (a->specific != b->specific)
        return a->specific > b->specific;
    return a->position < b->position;
}

/* The index of the best of the types, -1 if Accept names none of them. */
static int weigh(const struct form_type *types, const char *accept)
{
    struct preference preferences[FORM_COUNT] = {{0, 0, 0}};
    const char *at = accept;
    for (unsigned position = 0; *at && position < RANGES_MAX; position++) {
        at += strspn(at, " \t,");
        size_t size = strcspn(at, ",");
        while (size > 0 && (at[size - 1] == ' ' || at[size - 1] == '\t'))
            size--;
        weigh_element(types, at, size, position, preferences);
        at += strcspn(at, ",");
    }
    int best = -1;
    for (int i = 0; i < FORM_COUNT; i++)
        if (preferences[i].specific && preferences[i].thousandths > 0 &&
            (best < 0 || better(&preferences[i], &preferences[best])))
            best = i;
    return best;
}

int negotiate_form(const struct unetserve_interface *interface, const char *accept,
                   enum job_form *form, struct problem *problem)
{
    bool named = accept && accept[strspn(accept, " \t,")];
    int best;
    if (interface->flags & UNETSERVE_STREAMS) {
        best = named ? weigh(stream_types, accept) : -1;
        *form = best < 0 ? JOB_LINES : stream_types[best].form;
        return 0;
    }
    *form = JOB_JSON;
    if (interface->output_kind != UNETSERVE_TENSOR || !named)
        return 0;
    best = weigh(form_types, accept);
    if (best < 0) {
        problem_set(problem, 406,
                    "None of the types in Accept can be given, possible: application/json, "
                    "application/x-npy, image/png");
        return -1;
    }
    *form = form_types[best].form;
    return 0;
}

/* ---- our own fields ---- */

int negotiate_timeout(const char *text, uint64_t *timeout_ms, struct problem *problem)
{
    uint64_t value = 0;
    size_t size = value_size(text);
    bool digits = size > 0 && size <= 8 && strspn(text, "0123456789") >= size;
    if (digits)
        value = strtoull(text, NULL, 10);
    if (text && (!digits || value == 0 || value > NEGOTIATE_TIMEOUT_MAX_MS)) {
        problem_set(problem, 400,
                    "X-Unetserve-Timeout-Ms must be a whole number from 1 to %u, not '%.40s'",
                    NEGOTIATE_TIMEOUT_MAX_MS, text);
        return -1;
    }
    *timeout_ms = value;
    return 0;
}

int negotiate_priority(const char *text, int32_t most, int32_t *priority, struct problem *problem)
{
    size_t size = value_size(text);
    bool minus = size == 2 && text[0] == '-';
    int32_t value = 0;
    if (text && (size != (minus ? 2 : 1) || text[minus] < '0' || text[minus] > '9')) {
        problem_set(problem, 400,
                    "X-Unetserve-Priority must be a whole number from -9 to 9, not '%.40s'", text);
        return -1;
    }
    if (text)
        value = minus ? '0' - text[1] : text[0] - '0';
    if (value > most) {
        problem_set(problem, 403, "X-Unetserve-Priority may be %d here at most, not %d", most,
                    value);
        return -1;
    }
    *priority = value;
    return 0;
}

enum { ID_BYTES = 16, IDS_AT_ONCE = 64 };

/* One system call for many ids. */
static void take_random(unsigned char random[ID_BYTES])
{
    static unsigned char pool[IDS_AT_ONCE * ID_BYTES];
    static size_t left;
    if (left == 0 && getrandom(pool, sizeof pool, GRND_NONBLOCK) == (ssize_t)sizeof pool)
        left = sizeof pool;
    if (left == 0) {
        /* Before the kernel's pool is filled: an id need not be secret, only unlike the others. */
        uint64_t now = queue_now_ns();
        memset(random, 0, ID_BYTES);
        memcpy(random, &now, sizeof now);
        return;
    }
    left -= ID_BYTES;
    memcpy(random, pool + left, ID_BYTES);
}

void negotiate_request_id(const char *given, char id[64])
{
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-:/+=@~";
    size_t size = value_size(given);
    if (size >= 1 && size <= 63 && strspn(given, allowed) >= size) {
        memcpy(id, given, size);
        id[size] = '\0';
        return;
    }
    unsigned char random[ID_BYTES];
    take_random(random);
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < ID_BYTES; i++) {
        id[2 * i] = digits[random[i] >> 4];
        id[2 * i + 1] = digits[random[i] & 15];
    }
    id[2 * ID_BYTES] = '\0';
}
