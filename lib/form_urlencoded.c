#include "lib/form.h"

#include <string.h>

void form_urlencoded_init(struct form_urlencoded *form, const struct form_taker *taker)
{
    *form = (struct form_urlencoded){.taker = *taker};
}

static int begin_value(struct form_urlencoded *form, struct problem *problem)
{
    form->in_value = true;
    form->part.name[form->name_size] = '\0';
    if (++form->parts > FORM_PARTS_MAX) {
        problem_set(problem, 400, "The form has more than %d fields", FORM_PARTS_MAX);
        return -1;
    }
    return form->taker.begin(form->taker.opaque, &form->part, problem);
}

static int give(struct form_urlencoded *form, const char *bytes, size_t size,
                struct problem *problem)
{
    if (size == 0)
        return 0;
    if (form->in_value)
        return form->taker.data(form->taker.opaque, bytes, size, problem);
    if (size >= FORM_NAME_MAX - form->name_size || memchr(bytes, '\0', size)) {
        problem_set(problem, 400, "The name of a form's field must have less than %d characters",
                    FORM_NAME_MAX);
        return -1;
    }
    memcpy(form->part.name + form->name_size, bytes, size);
    form->name_size += size;
    return 0;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* What began with % and is none of it stays as it was written, as Python has it. */
static int end_escape(struct form_urlencoded *form, struct problem *problem)
{
    char text[3] = {'%', form->escape[0], form->escape[1]};
    size_t size = 1u + form->escape_size;
    form->escaping = false;
    form->escape_size = 0;
    return give(form, text, size, problem);
}

static int take_escape(struct form_urlencoded *form, const char **at, struct problem *problem)
{
    if (hex_value(**at) < 0)
        return end_escape(form, problem);
    form->escape[form->escape_size++] = *(*at)++;
    if (form->escape_size < 2)
        return 0;
    char byte = (char)(hex_value(form->escape[0]) * 16 + hex_value(form->escape[1]));
    form->escaping = false;
    form->escape_size = 0;
    return give(form, &byte, 1, problem);
}

/* & or the end: a field without = has an empty value, nothing at all is no field. */
static int end_field(struct form_urlencoded *form, struct problem *problem)
{
    if (form->escaping && end_escape(form, problem))
        return -1;
    if (!form->in_value && form->name_size == 0)
        return 0;
    if (!form->in_value && begin_value(form, problem))
        return -1;
    form->in_value = false;
    form->name_size = 0;
    return form->taker.end(form->taker.opaque, problem);
}

static int take_sign(struct form_urlencoded *form, char c, struct problem *problem)
{
    switch (c) {
    case '&': return end_field(form, problem);
    case '+': return give(form, " ", 1, problem);
    case '%': form->escaping = true; return 0;
    default: break;
    }
    return form->in_value ? give(form, &c, 1, problem) : begin_value(form, problem);
}

int form_urlencoded_feed(struct form_urlencoded *form, const char *bytes, size_t size,
                         struct problem *problem)
{
    const char *at = bytes, *end = bytes + size;
    while (at < end) {
        const char *from = at;
        if (form->escaping) {
            if (take_escape(form, &at, problem))
                return -1;
            continue;
        }
        while (at < end && *at != '&' && *at != '+' && *at != '%' && *at != '=')
            at++;
        if (give(form, from, (size_t)(at - from), problem) ||
            (at < end && take_sign(form, *at++, problem)))
            return -1;
    }
    return 0;
}

int form_urlencoded_finish(struct form_urlencoded *form, struct problem *problem)
{
    return end_field(form, problem);
}
