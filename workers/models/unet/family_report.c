#include "family_report.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define LINE_MAX_BYTES 512
#define SHAPE_MAX      8

static void format_shape(uint32_t rank, const uint64_t *dims, char *text, size_t size)
{
    size_t used = (size_t)snprintf(text, size, "[");
    for (uint32_t i = 0; i < rank && i < SHAPE_MAX && used < size; i++) {
        const char *comma = i ? ", " : "";
        int n = dims[i] ? snprintf(text + used, size - used, "%s%" PRIu64, comma, dims[i])
                        : snprintf(text + used, size - used, "%s?", comma);
        used += (size_t)n;
    }
    if (used < size)
        snprintf(text + used, size - used, "]");
}

static void add_line(struct family_report *report, const char *line)
{
    size_t length = strlen(line);
    /* Once a line had no room, shorter ones after it are left out too: the list stays a prefix. */
    if (report->unlisted || length + 2 > report->size - report->used) {
        report->unlisted++;
        return;
    }
    memcpy(report->lines + report->used, line, length);
    report->used += length;
    report->lines[report->used++] = '\n';
    report->lines[report->used] = '\0';
}

static void add_named(struct family_report *report, const char *what, const char *name,
                      uint32_t rank, const uint64_t *dims)
{
    char shape[192];
    char line[LINE_MAX_BYTES];
    format_shape(rank, dims, shape, sizeof shape);
    snprintf(line, sizeof line, "%s %.200s %s", what, name, shape);
    add_line(report, line);
}

void family_report_missing(struct family_report *report, const char *name, uint32_t rank,
                           const uint64_t *dims)
{
    report->missing++;
    add_named(report, "missing", name, rank, dims);
}

void family_report_unexpected(struct family_report *report, const char *name, uint32_t rank,
                              const uint64_t *dims)
{
    report->unexpected++;
    add_named(report, "unexpected", name, rank, dims);
}

void family_report_shape(struct family_report *report, const char *name, uint32_t rank,
                         const uint64_t *has, uint32_t want_rank, const uint64_t *want)
{
    char has_text[192];
    char want_text[192];
    char line[LINE_MAX_BYTES * 2];
    report->misshapen++;
    format_shape(rank, has, has_text, sizeof has_text);
    format_shape(want_rank, want, want_text, sizeof want_text);
    snprintf(line, sizeof line, "shape %.200s %s want %s", name, has_text, want_text);
    add_line(report, line);
}

void family_report_object(struct family_report *report, const char *format, ...)
{
    if (report->sentence[0])
        return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(report->sentence, sizeof report->sentence, format, arguments);
    va_end(arguments);
}

int family_report_any(const struct family_report *report)
{
    return report->missing || report->unexpected || report->misshapen || report->sentence[0];
}

void family_report_write(const struct family_report *report, const char *family, char *text,
                         size_t size)
{
    char head[512];
    char tail[64] = "";
    if (size == 0)
        return;
    if (report->sentence[0])
        snprintf(head, sizeof head, "%s", report->sentence);
    else
        snprintf(
            head, sizeof head,
            "the weights do not fit the family %s: %zu missing, %zu unexpected, %zu of another "
            "shape",
            family, report->missing, report->unexpected, report->misshapen);
    /* Cut whole lines from the list until head, list and the count of what was cut fit. */
    size_t kept = report->used;
    size_t cut = report->unlisted;
    for (;;) {
        tail[0] = '\0';
        if (cut)
            snprintf(tail, sizeof tail, "and %zu more\n", cut);
        if (kept == 0 || strlen(head) + 1 + kept + strlen(tail) < size)
            break;
        cut++;
        kept--;
        while (kept > 0 && report->lines[kept - 1] != '\n')
            kept--;
    }
    snprintf(text, size, "%s\n%.*s%s", head, (int)kept, report->lines ? report->lines : "", tail);
}
