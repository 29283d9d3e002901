#include "lib/body_form.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- image models: the one file ---- */

static const char *field_of(const struct body_form *form, char field[33])
{
    snprintf(field, 33, "%.32s", form->interface->input_field);
    return field;
}

static int file_begin(void *opaque, const struct form_part *part, struct problem *problem)
{
    struct body_form *form = opaque;
    char field[33];
    form->in_file = part->is_file || strcmp(part->name, field_of(form, field)) == 0;
    if (form->in_file && form->had_file) {
        problem_set(problem, 422, "The form has more than one file, expected one image");
        return -1;
    }
    form->had_file = form->had_file || form->in_file;
    return 0;
}

static int file_data(void *opaque, const char *bytes, size_t size, struct problem *problem)
{
    struct body_form *form = opaque;
    return form->in_file ? form->content(form->opaque, bytes, size, problem) : 0;
}

static int file_end(void *opaque, struct problem *problem)
{
    struct body_form *form = opaque;
    (void)problem;
    form->in_file = false;
    return 0;
}

/* ---- either ---- */

static struct form_taker taker_of(struct body_form *form)
{
    if (form->interface->input_kind == UNETSERVE_TENSOR)
        return (struct form_taker){file_begin, file_data, file_end, form};
    return (struct form_taker){form_document_begin, form_document_data, form_document_end,
                               &form->document};
}

struct body_form *body_form_open(const struct unetserve_interface *interface,
                                 enum body_format format, const char *content_type,
                                 body_form_content *content, void *opaque, struct problem *problem)
{
    struct body_form *form = malloc(sizeof *form);
    if (!form) {
        problem_set(problem, 503, "Out of memory, try again later");
        return NULL;
    }
    form->interface = interface;
    form->content = content;
    form->opaque = opaque;
    form->begun = form->had_file = form->in_file = false;
    form_document_init(&form->document, interface->flags & UNETSERVE_TAKES_FILES, content, opaque);
    struct form_taker taker = taker_of(form);
    if (format == BODY_URLENCODED) {
        form_urlencoded_init(&form->as.urlencoded, &taker);
    } else if (form_multipart_init(&form->as.multipart, content_type ? content_type : "", &taker,
                                   problem)) {
        free(form);
        return NULL;
    }
    return form;
}

bool body_form_is_json(const struct body_form *form, const char **bytes, size_t *size)
{
    if (form->begun)
        return false;
    while (*size > 0 && strchr(" \t\r\n", **bytes) && **bytes) {
        ++*bytes;
        --*size;
    }
    return *size > 0 && (**bytes == '{' || **bytes == '[');
}

int body_form_feed(struct body_form *form, enum body_format format, const char *bytes, size_t size,
                   struct problem *problem)
{
    form->begun = form->begun || size > 0;
    return format == BODY_URLENCODED
               ? form_urlencoded_feed(&form->as.urlencoded, bytes, size, problem)
               : form_multipart_feed(&form->as.multipart, bytes, size, problem);
}

int body_form_finish(struct body_form *form, enum body_format format, struct problem *problem)
{
    char field[33];
    if (format == BODY_URLENCODED && !form->begun)
        return 0; /* no body at all: whoever reads documents says what that lacks */
    if (format == BODY_URLENCODED ? form_urlencoded_finish(&form->as.urlencoded, problem)
                                  : form_multipart_finish(&form->as.multipart, problem))
        return -1;
    if (form->interface->input_kind != UNETSERVE_TENSOR)
        return form_document_finish(&form->document, problem);
    if (form->had_file)
        return 0;
    problem_set_missing(problem, field_of(form, field), NULL);
    return -1;
}
