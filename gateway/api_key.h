/*
 * API keys: what opens the model routes, for whom, how fast. None configured: everything is open.
 * lib/api_key_line.h has the form of the file. Keys are kept as digests, plain ones too.
 */
#ifndef GATEWAY_API_KEY_H
#define GATEWAY_API_KEY_H

#include "lib/api_key_line.h"

#include "unetserve/problem.h"

#include <stdbool.h>
#include <stdint.h>

#define API_KEY_MAX_KEYS 1024

struct api_keys {
    unsigned count;
    struct api_key keys[API_KEY_MAX_KEYS];
};

/* Keys from the environment's UNETSERVE_API_KEY (environment, NULL or "" if unset), which is a
 * plain one, and from a file ("" : no file), with # comments. 0; or -errno of the file, -ENODATA: a
 * file without keys, -EMSGSIZE: too many keys or too long a one, -EINVAL: a line that is none; with
 * a sentence. */
int api_keys_load(struct api_keys *keys, const char *environment, const char *path, char *error,
                  size_t error_size);

/* What a request brought: the values of X-API-Key and of Authorization, NULL where there is none.
 */
struct api_key_given {
    const char *key, *authorization;
};

/* True with *found (NULL where no keys are configured), which lies in keys; or false with *problem
 * (401) and *challenge, the value of WWW-Authenticate (static). Takes as long for every key. */
bool api_keys_admit(const struct api_keys *keys, const struct api_key_given *given,
                    const struct api_key **found, struct problem *problem, const char **challenge);

#endif
