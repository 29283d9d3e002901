/* The load generator reads answers of any server: in whatever pieces, the same comes of the same
 * bytes, and a whole answer has the length that it said. */
#include "bench/load/answer.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int condition)
{
    if (!condition)
        abort();
}

static void read_all(struct answer *answer, const char *bytes, size_t size, size_t piece)
{
    const struct answer_expected expected = {(const unsigned char *)"{\"output\":80.0}", 15};
    answer_begin(answer, expected);
    for (size_t at = 0; at < size; at += piece)
        answer_feed(answer, bytes + at, piece < size - at ? piece : size - at);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct answer at_once, in_pieces;
    size_t piece = 1 + data[0] % 64;
    const char *bytes = (const char *)data + 1;
    read_all(&at_once, bytes, size - 1, size);
    read_all(&in_pieces, bytes, size - 1, piece);
    check(at_once.state == in_pieces.state);
    if (at_once.state != ANSWER_WHOLE)
        return 0;
    check(at_once.status >= 200 && at_once.status < 600 && at_once.status == in_pieces.status);
    check(at_once.body_bytes == at_once.length && in_pieces.body_bytes == at_once.length);
    check(at_once.wrong == in_pieces.wrong && at_once.closes == in_pieces.closes);
    if (at_once.status == 200 && !at_once.wrong)
        check(at_once.length == 15 && memcmp(bytes + size - 1 - 15, "{\"output\":80.0}", 15) == 0);
    return 0;
}
