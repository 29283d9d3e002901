/*
 * The oauth_ keys of the configuration: URLs, lists of words, and what must stand together.
 */
#ifndef CONFIG_OAUTH_H
#define CONFIG_OAUTH_H

#include "unetserve/config.h"

#define CONFIG_URL_HOST_MAX 256

struct config_url {
    bool tls;
    char host[CONFIG_URL_HOST_MAX]; /* without the brackets of an IPv6 address */
    uint16_t port;
};

/* "https://HOST[:PORT][/PATH]"; "http://" only of this very machine (localhost, 127.0.0.0/8,
 * [::1]), since keys and tokens go over it. No user, no fragment, nothing that would have to be
 * escaped. 0 with *out, or -EINVAL. */
int config_url_read(const char *text, struct config_url *out);

/* Words with single spaces between them, of what RFC 6749 allows in a scope. */
bool config_words_fit(const char *text);

/* Is that one of the words? One with a space in it is none. */
bool config_words_have(const char *words, const char *word, size_t size);

/* Is every word of `wanted` among those of `words`? Both as above, or "". */
bool config_words_have_all(const char *words, const char *wanted);

/* Are tokens taken at all? */
bool config_has_oauth(const struct config *config);

/* A number that says which oauth_ keys these are: the same for the same ones. */
uint64_t config_oauth_mark(const struct config *config);

/* Does each key have what it needs? 0, or -EINVAL with a sentence. */
int config_oauth_validate(const struct config *config, char *text, size_t size);

#endif
