#include "supervisor/client_program.h"

#include "lib/client_file.h"
#include "lib/config_address.h"
#include "lib/json_whole.h"
#include "lib/model_facts.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* Who listens everywhere is asked here. */
static void url_of(const char *address, char *url, size_t size)
{
    bool tls = config_address_is_tls(address);
    const char *host = tls ? address + strlen("https://") : address;
    const char *scheme = tls ? "https" : "http";
    const char *port = strrchr(host, ':');
    if (strncmp(host, "0.0.0.0:", 8) == 0)
        snprintf(url, size, "%s://127.0.0.1%s", scheme, port);
    else if (strncmp(host, "[::]:", 5) == 0)
        snprintf(url, size, "%s://[::1]%s", scheme, port);
    else
        snprintf(url, size, "%s://%s", scheme, host);
}

static const char *first_tcp(const struct config *config)
{
    for (uint32_t i = 0; i < config->listen_count; i++)
        if (strncmp(config->listen[i], "unix:", 5) != 0)
            return config->listen[i];
    return NULL;
}

int client_program_write(const char *path, const struct config *config,
                         const struct unetserve_interface *interfaces)
{
    char url[CONFIG_ADDRESS_MAX + 16];
    const char *address = first_tcp(config);
    if (!address)
        return -EADDRNOTAVAIL;
    url_of(address, url, sizeof url);
    json_t *models = json_array();
    for (uint32_t i = 0; i < config->model_count; i++) {
        json_t *facts = model_facts(&interfaces[i]);
        json_t *model = json_pack("{s:s}", "route", config->models[i].route);
        if (!model || !facts || json_object_update(model, facts)) {
            json_decref(model);
            model = NULL;
        }
        json_decref(facts);
        json_whole_append(&models, model);
    }
    int rc = models ? client_file_write(path, url, models) : -ENOMEM;
    json_decref(models);
    return rc;
}
