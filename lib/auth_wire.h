/*
 * What a gateway and unetserve-auth say to each other: one question, one answer, each a packet on a
 * socket pair (AF_UNIX, SOCK_SEQPACKET) that both inherit from the supervisor, one pair a gateway.
 * Not ZeroMQ, as the baton is: a pair has no name, so nobody else can come to it; nothing has to be
 * connected again when either end dies, since the supervisor keeps both; and what is in it is
 * bounded by the kernel. A question that is lost with its reader is one whose time runs out.
 *
 * Packets are these structs, cut after what they hold. Both ends are of one build.
 */
#ifndef AUTH_WIRE_H
#define AUTH_WIRE_H

#include <stddef.h>
#include <stdint.h>

#define AUTH_TOKEN_MAX  8192 /* a longer one is refused where it comes in */
#define AUTH_SCOPES_MAX 2048 /* with its end */
#define AUTH_REASON_MAX 160
#define AUTH_HOLDER_MAX 32

/* Of the memory in which auth leaves the provider's keys to its successor (auth/keep.h). */
#define AUTH_KEEP_BYTES ((size_t)(2 * (256 << 10) + 4096))

enum auth_verdict {
    AUTH_ACCEPTED = 1,
    AUTH_REFUSED,     /* whatever is tried again: 401 */
    AUTH_UNAVAILABLE, /* cannot be told now: 503 */
};

struct auth_question {
    uint64_t id;    /* the gateway's; comes back with the answer */
    uint64_t rules; /* config_oauth_mark: by which configuration it is to be answered */
    uint32_t size;
    char token[AUTH_TOKEN_MAX]; /* not terminated */
};

struct auth_answer {
    uint64_t id;
    int64_t expires_s;                     /* since 1970: not to be believed from then on */
    uint32_t verdict;                      /* enum auth_verdict */
    uint32_t retry_after_s;                /* of AUTH_UNAVAILABLE */
    unsigned char holder[AUTH_HOLDER_MAX]; /* digest of issuer and subject */
    char reason[AUTH_REASON_MAX];          /* a sentence for the client, unless accepted */
    char scopes[AUTH_SCOPES_MAX];          /* separated by single spaces */
};

/* The bytes of a question or an answer that are to be sent. */
size_t auth_question_bytes(const struct auth_question *question);
size_t auth_answer_bytes(const struct auth_answer *answer);

/* A packet of that many bytes as it was received into the struct: 0, or -EBADMSG for what is none.
 * Texts are terminated afterwards. */
int auth_question_check(const struct auth_question *question, size_t bytes);
int auth_answer_check(struct auth_answer *answer, size_t bytes);

#endif
