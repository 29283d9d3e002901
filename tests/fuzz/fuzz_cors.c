/* Header values, one a line: Origin, Access-Control-Request-Method, Access-Control-Request-Headers;
 * before them how open the server is. What answers carry back is one line of visible text, and an
 * origin is granted only where it is configured. */
#include "gateway/cors.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int condition)
{
    if (!condition)
        abort();
}

static void look_at(void *out, const char *name, const char *value)
{
    (void)out;
    check(strncmp(name, "Access-Control-", 15) == 0);
    for (const char *at = value; *at; at++)
        check((*at >= ' ' && *at < 0x7f) || *at == '\t');
}

static void try_values(const struct config *config, char *const *values)
{
    struct cors_grant grant;
    struct problem problem;
    cors_configure(config);
    cors_grant(values[0], &grant);
    cors_write(&grant, look_at, NULL);
    if (grant.origin[0] && config->cors.allow_origins[0] != '*')
        check(strcmp(grant.origin, "https://a.example") == 0);
    if (!cors_is_preflight("OPTIONS", values[0], values[1]))
        return;
    if (cors_grant_preflight(values[0], values[1], values[2], &grant, &problem))
        check(problem.status == 400);
    else
        check(grant.origin[0]);
    cors_write(&grant, look_at, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct config config;
    struct config_error error;
    char *text = malloc(size + 1), *rest = text;
    if (!text)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    const char *how = strsep(&rest, "\n");
    config_init(&config);
    config_set(&config, "server", "cors_allow_origins",
               strchr(how, 'o') ? "*" : "https://a.example", &error);
    config_set(&config, "server", "cors_allow_headers", strchr(how, 'h') ? "*" : "X-A", &error);
    config_set(&config, "server", "cors_allow_credentials", strchr(how, 'c') ? "on" : "off",
               &error);
    char *values[3] = {NULL};
    for (size_t i = 0; i < 3 && rest; i++)
        values[i] = strsep(&rest, "\n");
    try_values(&config, values);
    free(text);
    return 0;
}
