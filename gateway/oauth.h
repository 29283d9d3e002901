/*
 * What is known about bearer tokens, and whom to ask about others. What unetserve-auth has said of
 * a token is believed until the answer says otherwise, under a salted digest of the token; a
 * token that is not known is asked about while its request waits. Answers, open questions,
 * questions of one client and the time that a question may take are bounded: beyond that a request
 * is told to come back. Whatever happens to unetserve-auth, nobody gets in without its answer.
 */
#ifndef GATEWAY_OAUTH_H
#define GATEWAY_OAUTH_H

#include "gateway/peers.h"

#include "lib/auth_wire.h"
#include "unetserve/config.h"

#include <systemd/sd-event.h>

#define OAUTH_SETS            512
#define OAUTH_WAYS            4
#define OAUTH_CHECKS_MAX      256 /* tokens that are being asked about */
#define OAUTH_CHECKS_A_CLIENT 64
#define OAUTH_DIGEST_SIZE     32
#define OAUTH_SALT_SIZE       16

struct oauth_check;

/* A request that waits. Zeros: it does not. */
struct oauth_waiter {
    struct oauth_check *check;
    struct oauth_waiter *previous, *next;
    struct peer *place;
    /* Called once, when the answer is there; the waiter does not wait any more then. */
    void (*told)(void *opaque, const struct auth_answer *answer);
    void *opaque;
};

struct oauth_entry {
    unsigned char digest[OAUTH_DIGEST_SIZE];
    uint64_t used; /* when it was last of use, in looks; 0: vacant */
    struct auth_answer answer;
};

struct oauth_check {
    uint64_t id; /* 0: vacant */
    unsigned char digest[OAUTH_DIGEST_SIZE];
    uint64_t deadline_ns;
    struct oauth_waiter *first;
};

struct oauth {
    const struct config *config;
    int fd; /* SEAT_FD_AUTH, where it is a socket; else -1 */
    sd_event_source *answers, *timer;
    bool timer_armed;
    uint64_t rules; /* config_oauth_mark */
    uint64_t next_id, looks;
    unsigned char salt[OAUTH_SALT_SIZE];
    unsigned open; /* checks */
    struct oauth_check checks[OAUTH_CHECKS_MAX];
    struct oauth_entry *entries; /* OAUTH_SETS * OAUTH_WAYS of them; NULL: tokens are not taken */
    struct peers askers;
};

/* fd: the gateway's end of the pair to auth, taken as it is; -1: none. config and secret live
 * longer. 0, or -errno. */
int oauth_open(struct oauth *oauth, sd_event *event, int fd, const struct config *config,
               const struct admission *secret);

/* Whoever waits is told to come back. */
void oauth_give_up(struct oauth *oauth, const char *reason);

/* The configuration may have changed. If its oauth_ keys have, nothing that was said before counts,
 * and nobody waits any more. */
void oauth_reconfigure(struct oauth *oauth);

/* What is known about a token, or NULL. Good until the next call of anything here. */
const struct auth_answer *oauth_look(struct oauth *oauth, const char *token, size_t size);

/* Ask about a token of at most AUTH_TOKEN_MAX bytes; told is set. 0; -EBUSY: this client asks about
 * too many already; -EAGAIN: too many are asked about, or auth takes no question; -ENOMEM. */
int oauth_ask(struct oauth *oauth, const char *token, size_t size, const struct client *client,
              struct oauth_waiter *waiter);

/* The waiter does not want to know any more. It need not be waiting. */
void oauth_forget(struct oauth *oauth, struct oauth_waiter *waiter);

/* Take what answers have come (called by the loop). */
void oauth_collect(struct oauth *oauth);

/* Tell those whose time is over (called by the loop). */
void oauth_expire(struct oauth *oauth, uint64_t now_ns);

/* Nobody waits any more. */
void oauth_close(struct oauth *oauth);

#endif
