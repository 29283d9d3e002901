/* The head gate: whatever comes, the verdict is the same for the whole stream and for pieces of it,
 * the counts agree, and nothing is taken after a refusal. */
#include "gateway/head_gate.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int holds)
{
    if (!holds)
        abort();
}

static size_t feed_in_pieces(struct head_gate *gate, const uint8_t *data, size_t size,
                             size_t *whole, int *status)
{
    size_t taken = 0;
    *whole = 0;
    *status = 0;
    for (size_t at = 0; at < size && !*status;) {
        size_t piece = 1 + (at * 7 + size) % 13;
        if (piece > size - at)
            piece = size - at;
        struct head_gate_report report;
        size_t got = head_gate_feed(gate, data + at, piece, &report);
        require(got <= piece && report.whole <= got && (got == piece) == (report.status == 0));
        if (report.whole)
            *whole = at + report.whole;
        taken += got;
        at += piece;
        *status = report.status;
    }
    return taken;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct head_gate at_once, in_pieces;
    struct head_gate_report report;
    head_gate_init(&at_once);
    head_gate_init(&in_pieces);
    size_t taken = head_gate_feed(&at_once, data, size, &report);
    size_t whole;
    int status;
    require(taken <= size && report.whole <= taken && (report.status == 0) == (taken == size));
    require((report.status == 0) == (report.reason == NULL));
    require(feed_in_pieces(&in_pieces, data, size, &whole, &status) == taken);
    require(status == report.status && whole == report.whole);
    require(at_once.requests == in_pieces.requests && at_once.state == in_pieces.state);
    if (report.status)
        require(head_gate_feed(&at_once, data, size, &report) == 0 && (size == 0 || report.status));
    return 0;
}
