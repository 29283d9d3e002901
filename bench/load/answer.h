/*
 * An HTTP/1.1 answer, read as it comes and compared with what it should be. For answers that tell
 * their length, as those of all servers measured here do; anything else is malformed.
 */
#ifndef BENCH_LOAD_ANSWER_H
#define BENCH_LOAD_ANSWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ANSWER_LINE_MAX 256 /* of a line of the head; the rest is passed over */
#define ANSWER_HEAD_MAX 65536

/* What the body of a 200 must be, byte for byte. bytes NULL: any body is right. */
struct answer_expected {
    const unsigned char *bytes;
    size_t size;
};

enum answer_state { ANSWER_STATUS, ANSWER_HEAD, ANSWER_BODY, ANSWER_WHOLE, ANSWER_MALFORMED };

struct answer {
    enum answer_state state;
    int status;
    bool closes; /* the server will close the connection */
    bool wrong;  /* a 200 whose body is not the expected one */
    bool has_length;
    uint64_t length, body_bytes;
    uint32_t head_bytes, line_bytes;
    struct answer_expected expected; /* its bytes are the caller's, and stay */
    char line[ANSWER_LINE_MAX];
};

/* Before the first byte of each answer. */
void answer_begin(struct answer *answer, struct answer_expected expected);

/* Take in what came. state is ANSWER_WHOLE with the last byte of the answer; bytes after that, a
 * head that is none, and one without a length make it ANSWER_MALFORMED. */
enum answer_state answer_feed(struct answer *answer, const char *bytes, size_t size);

#endif
