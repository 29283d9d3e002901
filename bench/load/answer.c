#include "answer.h"

#include <string.h>
#include <strings.h>

void answer_begin(struct answer *answer, struct answer_expected expected)
{
    answer->state = ANSWER_STATUS;
    answer->status = 0;
    answer->closes = answer->wrong = answer->has_length = false;
    answer->length = answer->body_bytes = 0;
    answer->head_bytes = answer->line_bytes = 0;
    answer->expected = expected;
}

static bool read_status(struct answer *answer)
{
    const char *line = answer->line;
    if (strncmp(line, "HTTP/1.1 ", 9) != 0) {
        return false;
    }
    int status = 0;
    for (int i = 9; i < 12; i++) {
        if (line[i] < '0' || line[i] > '9') {
            return false;
        }
        status = 10 * status + line[i] - '0';
    }
    answer->status = status;
    return status >= 200 && status <= 599 && (line[12] == ' ' || line[12] == '\0');
}

static bool read_length(struct answer *answer, const char *text)
{
    uint64_t length = 0;
    size_t digits = strspn(text, "0123456789");
    if (digits == 0 || digits > 15 || text[digits + strspn(text + digits, " \t")] != '\0') {
        return false;
    }
    for (size_t i = 0; i < digits; i++) {
        length = 10 * length + (uint64_t)(text[i] - '0');
    }
    bool same = !answer->has_length || answer->length == length;
    answer->length = length;
    answer->has_length = true;
    return same;
}

static bool read_field(struct answer *answer)
{
    static const char content_length[] = "Content-Length:";
    static const char connection[] = "Connection:";
    const char *line = answer->line;
    if (strncasecmp(line, content_length, sizeof content_length - 1) == 0) {
        const char *value = line + sizeof content_length - 1;
        return read_length(answer, value + strspn(value, " \t"));
    }
    if (strncasecmp(line, connection, sizeof connection - 1) == 0) {
        answer->closes |= strcasestr(line + sizeof connection - 1, "close") != NULL;
    }
    return strncasecmp(line, "Transfer-Encoding:", 18) != 0;
}

static void begin_body(struct answer *answer)
{
    if (!answer->has_length) {
        answer->state = ANSWER_MALFORMED;
        return;
    }
    answer->wrong = answer->status == 200 && answer->expected.bytes != NULL &&
                    answer->length != answer->expected.size;
    answer->state = answer->length > 0 ? ANSWER_BODY : ANSWER_WHOLE;
}

static void take_line(struct answer *answer)
{
    while (answer->line_bytes > 0 && answer->line[answer->line_bytes - 1] == '\r') {
        answer->line_bytes--;
    }
    answer->line[answer->line_bytes] = '\0';
    if (answer->state == ANSWER_STATUS) {
        answer->state = read_status(answer) ? ANSWER_HEAD : ANSWER_MALFORMED;
    } else if (answer->line_bytes == 0) {
        begin_body(answer);
    } else if (!read_field(answer)) {
        answer->state = ANSWER_MALFORMED;
    }
    answer->line_bytes = 0;
}

/* Up to the end of a line. Returns how many bytes it took. */
static size_t feed_head(struct answer *answer, const char *bytes, size_t size)
{
    const char *end = memchr(bytes, '\n', size);
    size_t part = end != NULL ? (size_t)(end - bytes) : size;
    size_t room = ANSWER_LINE_MAX - 1 - answer->line_bytes;
    size_t kept = part < room ? part : room;
    memcpy(answer->line + answer->line_bytes, bytes, kept);
    answer->line_bytes += (uint32_t)kept;
    if (part + 1 > ANSWER_HEAD_MAX - answer->head_bytes) {
        answer->state = ANSWER_MALFORMED;
        return size;
    }
    answer->head_bytes += (uint32_t)part + 1;
    if (end == NULL) {
        return size;
    }
    take_line(answer);
    return part + 1;
}

static size_t feed_body(struct answer *answer, const char *bytes, size_t size)
{
    uint64_t rest = answer->length - answer->body_bytes;
    size_t part = size < rest ? size : (size_t)rest;
    if (answer->status == 200 && answer->expected.bytes != NULL && !answer->wrong) {
        answer->wrong = memcmp(answer->expected.bytes + answer->body_bytes, bytes, part) != 0;
    }
    answer->body_bytes += part;
    if (answer->body_bytes == answer->length) {
        answer->state = ANSWER_WHOLE;
    }
    return part;
}

enum answer_state answer_feed(struct answer *answer, const char *bytes, size_t size)
{
    size_t at = 0;
    while (at < size && answer->state != ANSWER_MALFORMED) {
        if (answer->state == ANSWER_WHOLE) {
            answer->state = ANSWER_MALFORMED;
        } else if (answer->state == ANSWER_BODY) {
            at += feed_body(answer, bytes + at, size - at);
        } else {
            at += feed_head(answer, bytes + at, size - at);
        }
    }
    return answer->state;
}
