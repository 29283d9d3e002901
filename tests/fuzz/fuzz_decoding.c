/*
 * Compressed bodies: the first byte chooses coding and limit, the second how the body is split; the
 * rest is the body. Fed whole and in pieces it must come to the same bytes or be refused, and never
 * to more than the limit.
 */
#include "gateway/decoding.h"

#include "lib/json_scan.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MOST (1u << 20)

struct outcome {
    int status;
    size_t size;
    struct problem problem;
    char bytes[MOST];
};

static void check(int condition)
{
    if (!condition)
        abort();
}

static int take(void *opaque, const void *bytes, size_t size, struct problem *problem)
{
    struct outcome *outcome = opaque;
    (void)problem;
    check(size > 0);
    check(size <= MOST - outcome->size);
    memcpy(outcome->bytes + outcome->size, bytes, size);
    outcome->size += size;
    return 0;
}

static int feed(struct decoder *decoder, const uint8_t *body, size_t size, unsigned seed,
                struct outcome *outcome)
{
    for (size_t at = 0; at < size;) {
        size_t length = size - at, used = 0, before = outcome->size;
        if (seed) {
            seed = seed * 1103515245u + 12345u;
            size_t wanted = 1 + (seed >> 16) % 40;
            length = length < wanted ? length : wanted;
        }
        if (decoder_feed(decoder, body + at, length, &used, take, outcome, &outcome->problem))
            return -1;
        check(used <= length && (used > 0 || outcome->size > before));
        check(outcome->size - before <= 2 * DECODING_A_CALL);
        at += used;
    }
    return decoder_finish(decoder, &outcome->problem);
}

static void unpack(enum body_coding coding, uint64_t most, const uint8_t *body, size_t size,
                   unsigned seed, struct outcome *outcome)
{
    struct decoder *decoder = decoder_open(coding, most);
    check(decoder != NULL);
    memset(outcome, 0, offsetof(struct outcome, bytes));
    outcome->status = feed(decoder, body, size, seed, outcome);
    check(outcome->size <= most);
    decoder_close(decoder);
    if (outcome->status) {
        const struct problem *problem = &outcome->problem;
        check(problem->status == 400 || problem->status == 413);
        check(json_is_valid(problem->body, strlen(problem->body)));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct outcome whole, split;
    if (size < 2)
        return 0;
    enum body_coding coding = (enum body_coding)(BODY_GZIP + data[0] % 3);
    uint64_t most = data[0] & 0x80 ? 1000 : MOST;
    unpack(coding, most, data + 2, size - 2, 0, &whole);
    unpack(coding, most, data + 2, size - 2, data[1] + 1u, &split);
    check(whole.status == split.status);
    if (whole.status == 0)
        check(whole.size == split.size && memcmp(whole.bytes, split.bytes, whole.size) == 0);
    return 0;
}
