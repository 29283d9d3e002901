/*
 * The keys of the configuration: one table from which the parser, the writer and the error messages
 * are made.
 */
#ifndef CONFIG_KEYS_H
#define CONFIG_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum config_kind {
    CONFIG_NUMBER,    /* uint32_t within [least, most] */
    CONFIG_AUTO,      /* the same, or auto, which is 0 */
    CONFIG_DECIMAL,   /* uint32_t, in thousandths, within [least, most] of these; nothing is written
                         of CONFIG_MODELS_CHOICE, which cannot be read either */
    CONFIG_BYTES,     /* uint64_t with K, M, G or T, within [least, most] */
    CONFIG_TEXT,      /* char[] */
    CONFIG_ABSOLUTE,  /* char[], a path from / */
    CONFIG_ROUTE,     /* char[], /path */
    CONFIG_ORIGINS,   /* char[], web origins, or * */
    CONFIG_NAMES,     /* char[], names of methods or headers, or * */
    CONFIG_URL,       /* char[], as config_url_read takes it */
    CONFIG_WORDS,     /* char[], words with single spaces between them */
    CONFIG_SIGNING,   /* char[], names of signature algorithms of JWS */
    CONFIG_CHOICE,    /* char[], one of the words in allowed */
    CONFIG_WORD,      /* enum, one of the words in allowed; numbers in config_keys.c */
    CONFIG_DEVICES,   /* char[] */
    CONFIG_RANGE,     /* two uint32_t: N, or MIN-MAX */
    CONFIG_ADDRESSES, /* listen and listen_count */
    CONFIG_NETWORKS,  /* trusted_proxies and trusted_proxy_count */
};

struct config_key {
    const char *name;
    enum config_kind kind;
    size_t offset; /* in struct config or struct config_model */
    size_t size;   /* of the field */
    uint64_t least, most;
    const char *allowed; /* for people */
};

/* The key of that name in [server] (of_model false) or [model NAME], or NULL. */
const struct config_key *config_key_find(bool of_model, const char *name);

/* The n-th key, NULL at the end. */
const struct config_key *config_key_at(bool of_model, size_t n);

/* Its place in the table. */
size_t config_key_number(bool of_model, const struct config_key *key);

/* Read value into the field; base is the struct config or config_model. With `append`, a list
 * grows, else it is replaced. 0, or -EINVAL, and nothing has changed. */
int config_key_read(const struct config_key *key, void *base, const char *value, bool append);

/* The field as config_key_read takes it; "" where there is nothing to say. Always terminated; false
 * if it does not fit. */
bool config_key_write(const struct config_key *key, const void *base, char *text, size_t size);

#endif
