#include "gateway/cors.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

/* What browsers may send without asking is always allowed in a preflight too. */
#define SAFE_HEADERS "Accept, Accept-Language, Content-Language, Content-Type"
/* What "*" stands for in cors_allow_methods. */
#define ALL_METHODS "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"

static const struct config *configured;

void cors_configure(const struct config *config)
{
    configured = config && config->cors.allow_origins[0] ? config : NULL;
}

/* ---- lists of words with commas or white space between them ---- */

static const char between[] = ", \t";

/* The next word of *rest, which moves on. Its size is 0 at the end. */
static const char *next_word(const char **rest, size_t *size)
{
    const char *word = *rest + strspn(*rest, between);
    *size = strcspn(word, between);
    *rest = word + *size;
    return word;
}

static bool list_has(const char *list, const char *word, size_t size, bool any_case)
{
    size_t at_size;
    const char *at;
    while (at = next_word(&list, &at_size), at_size > 0)
        if (at_size == size &&
            (any_case ? strncasecmp(at, word, size) : memcmp(at, word, size)) == 0)
            return true;
    return false;
}

static bool is_any(const char *list)
{
    return list_has(list, "*", 1, false);
}

/* libmicrohttpd leaves the white space after a value. */
static size_t value_size(const char *text)
{
    size_t size = strlen(text);
    while (size > 0 && (text[size - 1] == ' ' || text[size - 1] == '\t'))
        size--;
    return size;
}

/* ---- what is allowed ---- */

static bool has_credentials(void)
{
    return strcmp(configured->cors.allow_credentials, "on") == 0;
}

/* Answers are the same for everybody: browsers take no "*" where there are credentials. */
static bool is_open(void)
{
    return is_any(configured->cors.allow_origins) && !has_credentials();
}

bool cors_varies(void)
{
    return configured && !is_open();
}

/* Without white space or commas, so that an answer can carry it back. */
static bool origin_is_sound(const char *origin, size_t size)
{
    if (size == 0 || size >= CORS_ORIGIN_MAX)
        return false;
    for (size_t i = 0; i < size; i++)
        if (origin[i] <= ' ' || origin[i] >= 0x7f || origin[i] == ',')
            return false;
    return true;
}

static bool origin_is_allowed(const char *origin, size_t size)
{
    return origin_is_sound(origin, size) &&
           (is_any(configured->cors.allow_origins) ||
            list_has(configured->cors.allow_origins, origin, size, false));
}

static bool headers_are_allowed(const char *asked)
{
    size_t size;
    const char *name;
    if (strlen(asked) >= CORS_HEADERS_MAX)
        return false;
    bool any = is_any(configured->cors.allow_headers);
    while (name = next_word(&asked, &size), size > 0) {
        for (size_t i = 0; i < size; i++)
            if (name[i] <= ' ' || name[i] >= 0x7f)
                return false;
        if (!any && !list_has(configured->cors.allow_headers, name, size, true) &&
            !list_has(SAFE_HEADERS, name, size, true))
            return false;
    }
    return true;
}

static const char *methods(void)
{
    return is_any(configured->cors.allow_methods) ? ALL_METHODS : configured->cors.allow_methods;
}

/* ---- requests ---- */

bool cors_is_preflight(const char *method, const char *origin, const char *asked_method)
{
    return configured && origin && asked_method && strcmp(method, "OPTIONS") == 0;
}

void cors_grant(const char *origin, struct cors_grant *grant)
{
    *grant = (struct cors_grant){.preflight = false};
    if (!configured || !origin)
        return;
    size_t size = value_size(origin);
    if (!origin_is_allowed(origin, size))
        return;
    memcpy(grant->origin, origin, size);
    grant->origin[size] = '\0';
}

int cors_grant_preflight(const char *origin, const char *asked_method, const char *asked_headers,
                         struct cors_grant *grant, struct problem *problem)
{
    cors_grant(origin, grant);
    grant->preflight = true;
    bool method = list_has(methods(), asked_method, value_size(asked_method), false);
    bool headers = headers_are_allowed(asked_headers ? asked_headers : "");
    if (asked_headers && headers)
        snprintf(grant->headers, sizeof grant->headers, "%s", asked_headers);
    if (grant->origin[0] && method && headers)
        return 0;
    problem_set(problem, 400, "Disallowed CORS %s%s%s", grant->origin[0] ? "" : "origin",
                method             ? ""
                : grant->origin[0] ? "method"
                                   : ", method",
                headers                      ? ""
                : grant->origin[0] && method ? "headers"
                                             : ", headers");
    return -1;
}

/* ---- answers ---- */

static void write_preflight(const struct cors_grant *grant, cors_emit *emit, void *out)
{
    char text[sizeof SAFE_HEADERS + sizeof configured->cors.allow_headers + 2];
    emit(out, "Access-Control-Allow-Methods", methods());
    if (!is_any(configured->cors.allow_headers)) {
        snprintf(text, sizeof text, "%s%s%s", SAFE_HEADERS,
                 configured->cors.allow_headers[0] ? ", " : "", configured->cors.allow_headers);
        emit(out, "Access-Control-Allow-Headers", text);
    } else if (grant->headers[0]) {
        emit(out, "Access-Control-Allow-Headers", grant->headers);
    }
    snprintf(text, sizeof text, "%u", configured->cors.max_age);
    emit(out, "Access-Control-Max-Age", text);
}

void cors_write(const struct cors_grant *grant, cors_emit *emit, void *out)
{
    if (!configured)
        return;
    if (is_open())
        emit(out, "Access-Control-Allow-Origin", "*");
    else if (grant->origin[0])
        emit(out, "Access-Control-Allow-Origin", grant->origin);
    else
        return;
    if (has_credentials())
        emit(out, "Access-Control-Allow-Credentials", "true");
    if (grant->preflight)
        write_preflight(grant, emit, out);
    else if (configured->cors.expose_headers[0])
        emit(out, "Access-Control-Expose-Headers", configured->cors.expose_headers);
}
