/*
 * What does not fit, collected over a whole state dict so that a user sees everything at once: a
 * count of each kind and one line a name. Lines beyond the given space are counted, not kept.
 */
#ifndef FAMILY_REPORT_H
#define FAMILY_REPORT_H

#include <stddef.h>
#include <stdint.h>

struct family_report {
    char *lines; /* size bytes, the caller's */
    size_t size;
    size_t used;
    size_t missing;
    size_t unexpected;
    size_t misshapen;
    size_t unlisted;    /* lines that had no room */
    char sentence[256]; /* an objection that is about no single name; "" if none */
};

/* Dimensions of 0 print as "?": they could not be told. */
void family_report_missing(struct family_report *report, const char *name, uint32_t rank,
                           const uint64_t *dims);
void family_report_unexpected(struct family_report *report, const char *name, uint32_t rank,
                              const uint64_t *dims);
void family_report_shape(struct family_report *report, const char *name, uint32_t rank,
                         const uint64_t *has, uint32_t want_rank, const uint64_t *want);

/* Keep the first objection only: later ones usually follow from it. */
void family_report_object(struct family_report *report, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Has anything been reported? */
int family_report_any(const struct family_report *report);

/* Sentence and lines into text, always terminated. */
void family_report_write(const struct family_report *report, const char *family, char *text,
                         size_t size);

#endif
