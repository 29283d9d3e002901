/*
 * A line of the file of API keys:
 *
 *     NAME sha256:SALT:DIGEST [rate=R] [burst=N] [models=NAME,NAME...] [priority=P]
 *
 * NAME says whose key it is. The key itself is `unetserve_SALT_SECRET`, made by `unetctl key`, and
 * DIGEST its SHA-256 over all of it, the salt with it: so one digest of what a request carries is
 * compared with all lines, and nobody can look for several keys at once. A fast digest is enough
 * because the secret is 192 random bits, which no dictionary has. rate and burst take the place of
 * rate_limit and rate_burst (rate=0: no limit), models names the models that the key opens (all of
 * them where it is missing), priority is the highest that its requests may ask for (0 where it is
 * missing).
 *
 * Any other line is a key as it stands, of its own name, as LitServe's users have it.
 */
#ifndef LIB_API_KEY_LINE_H
#define LIB_API_KEY_LINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define API_KEY_DIGEST_SIZE 32
#define API_KEY_NAME_MAX    64
#define API_KEY_MODELS_MAX  512
#define API_KEY_TEXT_MAX    256 /* of a key, with its end */
#define API_KEY_LINE_MAX    1024

struct api_key {
    char name[API_KEY_NAME_MAX]; /* "": a plain key */
    unsigned char digest[API_KEY_DIGEST_SIZE];
    unsigned char holder[API_KEY_DIGEST_SIZE]; /* the name's digest; of a plain key, its own */
    bool has_rate;
    uint32_t rate_milli, burst;      /* of its own, where has_rate */
    int32_t priority;                /* the highest that it may ask for */
    char models[API_KEY_MODELS_MAX]; /* names with commas between them; "": all */
};

/* The digest of a key. 0, or -EIO. */
int api_key_digest(const char *key, size_t size, unsigned char digest[API_KEY_DIGEST_SIZE]);

/* Letters, digits, '.', '_', '-' and '@': may this be a key's name? */
bool api_key_name_fits(const char *name);

/* Read a line, which has no white space at its ends and is neither empty nor a comment. 0 with
 * *out; or -EINVAL with *why, a static sentence about what is wrong with it. */
int api_key_line_read(const char *line, struct api_key *out, const char **why);

/* A new key and its line, up to the digest. 0, or -EIO: no random bytes. */
int api_key_make(const char *name, char key[API_KEY_TEXT_MAX], char line[API_KEY_LINE_MAX]);

/* Does the key open that model? */
bool api_key_opens(const struct api_key *key, const char *model);

#endif
