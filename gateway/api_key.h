/*
 * X-API-Key: the keys that open the model routes. None configured: everything is open.
 */
#ifndef GATEWAY_API_KEY_H
#define GATEWAY_API_KEY_H

#include "unetserve/problem.h"

#include <stdbool.h>
#include <stdint.h>

#define API_KEY_MAX_KEYS 256
#define API_KEY_MAX_SIZE 256

struct api_keys {
    unsigned count;
    char keys[API_KEY_MAX_KEYS][API_KEY_MAX_SIZE]; /* terminated, zero to the end */
};

/* Keys from the environment's UNETSERVE_API_KEY (environment, NULL or "" if unset) and from a file
 * with one key a line, # comments ("" : no file). 0, or -errno of the file, or -EMSGSIZE: too many
 * keys or too long a one. */
int api_keys_load(struct api_keys *keys, const char *environment, const char *path);

/* NULL in given: the header is absent. True with *number, which key it is (0 where none are
 * configured), or false with *problem (401). Takes as long for every key. */
bool api_keys_admit(const struct api_keys *keys, const char *given, uint32_t *number,
                    struct problem *problem);

#endif
