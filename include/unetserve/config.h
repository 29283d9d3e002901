/*
 * The configuration: defaults, then the file, then the command line, resolved once by the
 * supervisor, which hands the result to every child as a memfd in the file's own form (one parser,
 * one truth). Every error names file, line, key and what is allowed; an unknown section or key is
 * an error.
 */
#ifndef CONFIG_H
#define CONFIG_H

#include "unetserve/log.h"
#include "unetserve/queue.h"

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONFIG_MAX_LISTEN  8
#define CONFIG_MAX_PROXIES 32
#define CONFIG_MAX_DEVICES 64
#define CONFIG_ADDRESS_MAX 128

/* Where a decimal may be left to the model. */
#define CONFIG_MODELS_CHOICE UINT32_MAX

struct config_model {
    char name[64];
    char path[PATH_MAX];
    char python[PATH_MAX]; /* of a Python file: its interpreter; "": python3 of PATH */
    char route[128];       /* "/predict" */
    char devices[1024];    /* "auto", "cpu", "cuda", "2", "0,2"; in children UUIDs of GPUs */
    char precision[16];    /* "auto" */
    char convolution[16];  /* "auto" */
    char backend[16];      /* "auto" */
    uint32_t workers_per_device;
    uint32_t workers_min; /* the autoscaler's range; both 0: workers_per_device for each device */
    uint32_t workers_max;
    uint32_t scale_wait_ms;       /* how long a request may wait before there are more workers */
    uint32_t scale_down_after_ms; /* how long a worker is kept that is not needed */
    uint32_t threads; /* CPU threads a worker; 0: the allowed cores divided by the largest number of
                         workers */
    uint32_t max_batch_size;
    uint32_t batch_timeout_us; /* how long a request may be held for others of its shape;
                                  CONFIG_MODELS_CHOICE: as long as the model says */
    char engine_timing[8];     /* "on" or "off": whether a GPU's engines are measured */
    char batch_wait[16];       /* for whom: "receiving" or "always" */
    uint32_t timeout_ms;
    uint32_t run_timeout_ms;
    uint32_t tile;               /* 0: what the model says */
    uint64_t max_response_bytes; /* of a document that is answered; 0: as the queue's slots are */
    char sandbox[8];             /* "auto", "on", "files", "off"; "server": as the server's */
    char sandbox_paths[1024];    /* what its workers may read beside the model: PATH:PATH... */
    char scope[256];             /* that tokens need for it, beside the server's: words; "": none */
};

/* Words with commas between them, or "*". */
struct config_cors {
    char allow_origins[1024]; /* "": no cross-origin requests */
    char allow_methods[256];
    char allow_headers[512];
    char expose_headers[512];
    char allow_credentials[8]; /* "on", "off" */
    uint32_t max_age;          /* seconds */
};

/* Tokens of an identity provider; "" where there is none. */
struct config_oauth {
    char issuer[512];            /* a URL; "": no signed tokens */
    char audience[512];          /* words, one of which tokens name */
    char jwks_url[512];          /* "": the issuer tells */
    char algorithms[128];        /* "RS256, ES256" */
    char introspection_url[512]; /* "": the provider is not asked about tokens */
    char client_id[256];         /* who asks */
    char client_secret_file[PATH_MAX];
    char ca_file[PATH_MAX]; /* "": the system's */
    char scope[512];        /* that every token needs: words */
    uint32_t leeway_s;      /* by which clocks may differ */
    uint32_t cache_s;       /* how long what was found out about a token is believed */
    uint32_t refresh_s;     /* how often keys are fetched */
    uint32_t refetch_s;     /* how often at most for a key that is not known */
    uint32_t keep_s;        /* how long keys are used when no new ones can be had */
    uint32_t grace_s;       /* how long a key is used that is not published any more */
    uint32_t timeout_ms;    /* of each request to the provider, and of a client's wait for it */
};

struct config {
    char listen[CONFIG_MAX_LISTEN]
               [CONFIG_ADDRESS_MAX]; /* "127.0.0.1:8000", "[::1]:8000", "unix:/path", each perhaps
                                       after "https://" */
    uint32_t listen_count;
    uint32_t gateways;
    uint64_t max_body_bytes;
    uint64_t queue_memory; /* bytes; 0: a quarter of what the cgroup allows, at most 1G */
    char trusted_proxies[CONFIG_MAX_PROXIES][64]; /* CIDR, or "unix:" */
    uint32_t trusted_proxy_count;
    uint32_t rate_limit_milli; /* predictions a second of one client, in thousandths; 0: no limit */
    uint32_t rate_burst;       /* at once; 0: a second's worth, at least one */
    char run_dir[108 - 32];   /* holds sockets: short enough for sun_path; "" : a private default */
    char cache_dir[PATH_MAX]; /* what workers share and later ones use again; "": run_dir */
    char api_key_file[PATH_MAX];
    char tls_certificate[PATH_MAX]; /* PEM, what follows too; "": no address speaks TLS */
    char tls_key[PATH_MAX];
    char tls_client_ca[PATH_MAX]; /* "": clients need no certificate */
    uint32_t drain_timeout_ms;
    uint32_t drain_delay_ms;
    uint32_t send_timeout_ms;   /* a client that takes nothing of a stream for so long is dropped */
    uint32_t header_timeout_ms; /* a whole head must be in by then; also how long an idle connection
                                   is kept */
    uint32_t max_connections;
    uint32_t max_connections_per_address; /* 0: any number */
    uint32_t max_receiving_percent;       /* of the slots may wait for bodies */
    struct config_cors cors;
    struct config_oauth oauth;
    uint32_t gzip_level, zstd_level; /* of answers; 0: not offered */
    uint32_t compress_min_bytes;     /* shorter ones go out as they are */
    char sandbox[8];                 /* "auto", "on", "off" */
    char docs[4];                    /* "on", "off": /openapi.json and /docs */
    enum log_format log_format;
    enum log_level log_level;
    struct config_model models[QUEUE_MAX_MODELS];
    uint32_t model_count;
};

struct config_error {
    char text[1400]; /* "FILE:LINE: key 'x': ..., allowed: ..." */
};

/* Defaults, no models. */
void config_init(struct config *config);

/* Read a file, or an open fd (name is for messages), on top of what config holds. A file that names
 * models replaces none that are already there; a name twice is an error, and so is a key twice in a
 * section, except that lists (listen, trusted_proxies) grow; the first such line replaces what was
 * there before. Models without a route get one: the first /predict unless it is taken, the others
 * /predict/NAME. 0; -ENOENT/-EACCES and the like; -EINVAL; always with error, and config is then as
 * it was. */
int config_load(const char *path, struct config *config, struct config_error *error);
int config_load_fd(int fd, const char *name, struct config *config, struct config_error *error);
int config_parse(const char *text, size_t size, const char *name, struct config *config,
                 struct config_error *error);

/* One key as on the command line; section is "server" or "model NAME". */
int config_set(struct config *config, const char *section, const char *key, const char *value,
               struct config_error *error);

/* Devices that a model's `devices` names: "auto", "cpu" and "cuda" are one, "3" is three, "0,2" or
 * two UUIDs are two. And its workers, at the least. */
uint32_t config_model_devices(const struct config_model *model);
uint32_t config_model_workers(const struct config_model *model);

/* Is its path a Python file, with a class as LitServe takes it? */
bool config_model_is_python(const struct config_model *model);

/* MODEL of the command line: PATH or NAME=PATH; the name follows from the path if none is given. */
int config_add_model(struct config *config, const char *argument, struct config_error *error);

/* Everything that concerns more than one key: at least one model, routes distinct and not reserved
 * ("/", "/health", "/info",
 * "/metrics", "/docs", "/openapi.json", "/redoc", "/v2..."), min <= max, ... */
int config_validate(const struct config *config, struct config_error *error);

/* The resolved configuration as text that config_parse reads back to the same struct. Returns the
 * length, or -ENOSPC. */
long config_write(const struct config *config, char *text, size_t size);

#endif
