#include "lib/form.h"

#include <string.h>
#include <strings.h>

static int malformed(struct problem *problem, const char *what)
{
    problem_set(problem, 400, "malformed multipart body: %s", what);
    return -1;
}

/* ---- parameters: ; name=value ; name="value" ---- */

struct parameter {
    const char *name;
    size_t name_size;
    char value[FORM_NAME_MAX];
    bool cut;
};

static const char *skip_blanks(const char *at, const char *end)
{
    while (at < end && (*at == ' ' || *at == '\t'))
        at++;
    return at;
}

static void keep(struct parameter *parameter, size_t *size, char c)
{
    if (*size + 1 < sizeof parameter->value)
        parameter->value[(*size)++] = c;
    else
        parameter->cut = true;
}

/* In quotes: browsers write %22 for a quote, others a backslash before it. NULL: no end. */
static const char *read_quoted(const char *at, const char *end, struct parameter *parameter,
                               size_t *size)
{
    for (; at < end && *at != '"'; at++) {
        if (*at == '\\' && end - at > 1 && (at[1] == '"' || at[1] == '\\'))
            at++;
        keep(parameter, size, *at);
    }
    return at < end ? at + 1 : NULL;
}

/* The next parameter from a semicolon on. 1; 0: there is none; -1: malformed. */
static int next_parameter(const char **from, const char *end, struct parameter *parameter)
{
    size_t size = 0;
    const char *at = skip_blanks(*from, end);
    *parameter = (struct parameter){.cut = false};
    if (at == end)
        return 0;
    if (*at != ';')
        return -1;
    at = skip_blanks(at + 1, end);
    parameter->name = at;
    while (at < end && *at != '=' && *at != ';' && *at != ' ')
        at++;
    parameter->name_size = (size_t)(at - parameter->name);
    if (parameter->name_size == 0 && at == end)
        return 0; /* a semicolon at the end */
    if (at == end || *at++ != '=')
        return -1;
    if (at < end && *at == '"') {
        at = read_quoted(at + 1, end, parameter, &size);
        if (!at)
            return -1;
    } else {
        while (at < end && *at != ';' && *at != ' ' && *at != '\t')
            keep(parameter, &size, *at++);
    }
    parameter->value[size] = '\0';
    *from = at;
    return 1;
}

static bool is_named(const struct parameter *parameter, const char *name)
{
    return parameter->name_size == strlen(name) &&
           strncasecmp(parameter->name, name, parameter->name_size) == 0;
}

/* ---- the boundary ---- */

static bool is_boundary(const char *text)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                  "'()+_,-./:=? ";
    size_t size = strlen(text);
    return size >= 1 && size <= FORM_BOUNDARY_MAX && strspn(text, allowed) == size &&
           text[size - 1] != ' ';
}

int form_multipart_init(struct form_multipart *form, const char *content_type,
                        const struct form_taker *taker, struct problem *problem)
{
    const char *at = content_type + strcspn(content_type, ";");
    const char *end = content_type + strlen(content_type);
    struct parameter parameter;
    int found;
    while ((found = next_parameter(&at, end, &parameter)) > 0)
        if (is_named(&parameter, "boundary"))
            break;
    if (found <= 0 || parameter.cut || !is_boundary(parameter.value)) {
        problem_set(problem, 400,
                    "Content-Type multipart/form-data needs a boundary of 1 to %d characters",
                    FORM_BOUNDARY_MAX);
        return -1;
    }
    *form = (struct form_multipart){.taker = *taker, .state = FORM_PREAMBLE};
    size_t size = strlen(parameter.value);
    memcpy(form->delimiter, "\r\n--", 4);
    memcpy(form->delimiter + 4, parameter.value, size);
    form->delimiter_size = size + 4;
    form->matched = form->phantom = 2; /* the first one may stand at the very beginning */
    return 0;
}

/* ---- a part's header ---- */

static int read_disposition(struct form_multipart *form, const char *at, const char *end,
                            struct problem *problem)
{
    static const char type[] = "form-data";
    struct parameter parameter;
    bool named = false;
    int found;
    if ((size_t)(end - at) < sizeof type - 1 || strncasecmp(at, type, sizeof type - 1) != 0 ||
        form->disposed)
        return malformed(problem, "a part's Content-Disposition must be form-data, once");
    at += sizeof type - 1;
    while ((found = next_parameter(&at, end, &parameter)) > 0) {
        if (is_named(&parameter, "name")) {
            if (named || parameter.cut)
                return malformed(problem, "a part's name is there twice, or too long");
            named = true;
            memcpy(form->part.name, parameter.value, sizeof form->part.name);
        } else if (is_named(&parameter, "filename")) {
            form->part.is_file = true;
            memcpy(form->part.filename, parameter.value, sizeof form->part.filename);
        } else if (is_named(&parameter, "filename*")) {
            form->part.is_file = true; /* RFC 7578 forbids it; some clients send it all the same */
        }
    }
    if (found < 0 || !named)
        return malformed(problem, "a part without a name");
    form->disposed = true;
    return 0;
}

static bool is_field(const char *line, size_t size, const char *name)
{
    return size == strlen(name) && strncasecmp(line, name, size) == 0;
}

/* One line, without its CR LF. */
static int read_header(struct form_multipart *form, const char *line, size_t size,
                       struct problem *problem)
{
    const char *end = line + size;
    const char *colon = memchr(line, ':', size);
    if (!colon || colon == line || memchr(line, '\0', size))
        return malformed(problem, "a line in a part's header that is no field");
    const char *value = skip_blanks(colon + 1, end);
    size_t name_size = (size_t)(colon - line), value_size = (size_t)(end - value);
    if (is_field(line, name_size, "Content-Disposition"))
        return read_disposition(form, value, end, problem);
    if (is_field(line, name_size, "Content-Type")) {
        size_t kept = value_size < sizeof form->part.type ? value_size : sizeof form->part.type - 1;
        memcpy(form->part.type, value, kept);
        form->part.type[kept] = '\0';
    } else if (is_field(line, name_size, "Content-Transfer-Encoding") &&
               !is_field(value, value_size, "binary") && !is_field(value, value_size, "8bit") &&
               !is_field(value, value_size, "7bit")) {
        return malformed(problem, "a part with a Content-Transfer-Encoding: send it as it is");
    }
    return 0;
}

static int begin_part(struct form_multipart *form, struct problem *problem)
{
    if (!form->disposed)
        return malformed(problem, "a part without Content-Disposition");
    form->state = FORM_DATA;
    /* A delimiter may follow at once: that CR LF is its own. */
    form->matched = form->phantom = 2;
    return form->taker.begin(form->taker.opaque, &form->part, problem);
}

/* The rest of a line: true when it is whole, without its CR LF. */
static int collect_line(struct form_multipart *form, const char **at, const char *end, bool *whole,
                        struct problem *problem)
{
    const char *feed = memchr(*at, '\n', (size_t)(end - *at));
    size_t size = (size_t)((feed ? feed + 1 : end) - *at);
    form->header_bytes += size;
    if (size > sizeof form->line - form->line_size || form->header_bytes > FORM_HEADER_MAX)
        return malformed(problem, "a part's header is too long");
    memcpy(form->line + form->line_size, *at, size);
    form->line_size += size;
    *at += size;
    *whole = feed != NULL;
    if (!*whole)
        return 0;
    if (form->line_size < 2 || form->line[form->line_size - 2] != '\r')
        return malformed(problem, "a line that does not end with CR LF");
    form->line_size -= 2;
    return 0;
}

static int feed_header(struct form_multipart *form, const char **at, const char *end,
                       struct problem *problem)
{
    bool whole;
    if (collect_line(form, at, end, &whole, problem))
        return -1;
    if (!whole)
        return 0;
    size_t size = form->line_size;
    form->line_size = 0;
    return size ? read_header(form, form->line, size, problem) : begin_part(form, problem);
}

/* After a delimiter: "--" is the end of all, blanks and CR LF begin a part. */
static int feed_delimiter(struct form_multipart *form, const char **at, const char *end,
                          struct problem *problem)
{
    for (; *at < end; ++*at) {
        char c = **at;
        if (form->line_size == 1 && form->line[0] == '-') {
            if (c != '-')
                break;
            form->state = FORM_OVER;
            return 0;
        }
        if (form->line_size == 1 && form->line[0] == '\r') {
            if (c != '\n')
                break;
            ++*at;
            if (++form->parts > FORM_PARTS_MAX)
                return malformed(problem, "it has more than 1000 parts");
            form->state = FORM_HEADER;
            form->line_size = form->header_bytes = 0;
            form->disposed = false;
            memset(&form->part, 0, sizeof form->part);
            return 0;
        }
        if (c == ' ' || c == '\t')
            continue;
        if (c != '-' && c != '\r')
            break;
        form->line[form->line_size++] = c;
    }
    return *at < end ? malformed(problem, "what follows a boundary is neither a line's end nor --")
                     : 0;
}

/* ---- content ---- */

static int give(struct form_multipart *form, const char *bytes, size_t size,
                struct problem *problem)
{
    if (size == 0 || form->state == FORM_PREAMBLE)
        return 0;
    return form->taker.data(form->taker.opaque, bytes, size, problem);
}

static int end_content(struct form_multipart *form, struct problem *problem)
{
    bool part = form->state == FORM_DATA;
    form->state = FORM_DELIMITER;
    form->matched = form->phantom = form->line_size = 0;
    return part ? form->taker.end(form->taker.opaque, problem) : 0;
}

/* CR stands in the delimiter at its beginning only, so that what has matched so far and then does
 * not is content, all of it, and a new match can begin at the byte that did not. */
static int feed_content(struct form_multipart *form, const char **at, const char *end,
                        struct problem *problem)
{
    while (*at < end && form->matched < form->delimiter_size) {
        if (form->matched == 0) {
            const char *mark = memchr(*at, '\r', (size_t)(end - *at));
            const char *stop = mark ? mark : end;
            if (give(form, *at, (size_t)(stop - *at), problem))
                return -1;
            *at = stop;
            if (!mark)
                return 0;
        }
        if (**at == form->delimiter[form->matched]) {
            form->matched++;
            ++*at;
            continue;
        }
        size_t phantom = form->phantom, matched = form->matched - phantom;
        form->matched = form->phantom = 0;
        if (give(form, form->delimiter + phantom, matched, problem))
            return -1;
    }
    return form->matched == form->delimiter_size ? end_content(form, problem) : 0;
}

int form_multipart_feed(struct form_multipart *form, const char *bytes, size_t size,
                        struct problem *problem)
{
    const char *at = bytes, *end = bytes + size;
    int failed = 0;
    while (at < end && !failed)
        switch (form->state) {
        case FORM_PREAMBLE:
        case FORM_DATA: failed = feed_content(form, &at, end, problem); break;
        case FORM_DELIMITER: failed = feed_delimiter(form, &at, end, problem); break;
        case FORM_HEADER: failed = feed_header(form, &at, end, problem); break;
        case FORM_OVER: return 0; /* what follows the end is nobody's */
        }
    return failed;
}

int form_multipart_finish(const struct form_multipart *form, struct problem *problem)
{
    return form->state == FORM_OVER ? 0 : malformed(problem, "truncated before its last boundary");
}
