/*
 * Forms as bodies: multipart/form-data (RFC 7578) and application/x-www-form-urlencoded, resumable
 * at every byte, told as parts. Nothing of a part's content is held; its name, its file's name and
 * its type are, and bounded.
 */
#ifndef FORM_H
#define FORM_H

#include "unetserve/problem.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    FORM_PARTS_MAX = 1000,
    FORM_NAME_MAX = 128,
    FORM_LINE_MAX = 1024,   /* of a part's header */
    FORM_HEADER_MAX = 8192, /* all of its lines */
    FORM_BOUNDARY_MAX = 70
};

struct form_part {
    char name[FORM_NAME_MAX];
    char filename[FORM_NAME_MAX]; /* cut */
    char type[FORM_NAME_MAX];     /* Content-Type, cut; "": not told */
    bool is_file;                 /* there is a file name, if only "" */
};

/* Where the parts go: begin, data as often as need be, end. Each 0, or -1 with *problem. */
struct form_taker {
    int (*begin)(void *opaque, const struct form_part *part, struct problem *problem);
    int (*data)(void *opaque, const char *bytes, size_t size, struct problem *problem);
    int (*end)(void *opaque, struct problem *problem);
    void *opaque;
};

struct form_multipart {
    struct form_taker taker;
    char delimiter[FORM_BOUNDARY_MAX + 4]; /* CR LF - - boundary */
    size_t delimiter_size;
    size_t matched; /* bytes of it that were the last ones to come */
    size_t phantom; /* of them, that were not content: the line's end before it */
    enum { FORM_PREAMBLE, FORM_DELIMITER, FORM_HEADER, FORM_DATA, FORM_OVER } state;
    unsigned parts;
    size_t header_bytes; /* of this part */
    size_t line_size;
    char line[FORM_LINE_MAX];
    bool disposed; /* its Content-Disposition was there */
    struct form_part part;
};

/* Start. 0, or -1 with *problem (400): no sound boundary in that Content-Type. */
int form_multipart_init(struct form_multipart *form, const char *content_type,
                        const struct form_taker *taker, struct problem *problem);
int form_multipart_feed(struct form_multipart *form, const char *bytes, size_t size,
                        struct problem *problem);
int form_multipart_finish(const struct form_multipart *form, struct problem *problem);

struct form_urlencoded {
    struct form_taker taker;
    bool in_value;
    unsigned parts;
    size_t name_size;
    char escape[2]; /* of %XX */
    uint8_t escape_size;
    bool escaping;
    struct form_part part;
};

void form_urlencoded_init(struct form_urlencoded *form, const struct form_taker *taker);
int form_urlencoded_feed(struct form_urlencoded *form, const char *bytes, size_t size,
                         struct problem *problem);
int form_urlencoded_finish(struct form_urlencoded *form, struct problem *problem);

#endif
