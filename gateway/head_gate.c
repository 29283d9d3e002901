#include "gateway/head_gate.h"

#include <string.h>

struct refusal {
    int status;
    const char *reason;
};

static const struct refusal fine = {0, NULL};

static struct refusal refuse(int status, const char *reason)
{
    return (struct refusal){status, reason};
}

static struct refusal bad(const char *reason)
{
    return refuse(400, reason);
}

static bool is_digit(unsigned char byte)
{
    return byte >= '0' && byte <= '9';
}

static bool is_token(unsigned char byte)
{
    return is_digit(byte) || (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
           (byte && strchr("!#$%&'*+-.^_`|~", byte));
}

static bool is_value(unsigned char byte)
{
    return byte == '\t' || (byte >= ' ' && byte != 0x7f);
}

static int hex_digit(unsigned char byte)
{
    if (is_digit(byte))
        return byte - '0';
    byte |= 0x20;
    return byte >= 'a' && byte <= 'f' ? byte - 'a' + 10 : -1;
}

void head_gate_init(struct head_gate *gate)
{
    memset(gate, 0, sizeof *gate);
    gate->state = GATE_START;
}

bool head_gate_idle(const struct head_gate *gate)
{
    return gate->state == GATE_START;
}

bool head_gate_in_head(const struct head_gate *gate)
{
    return gate->state > GATE_START && gate->state <= GATE_HEAD_LF && !gate->in_trailer;
}

/* The end of a request: everything but the count of requests starts anew. */
static void end_request(struct head_gate *gate)
{
    uint32_t requests = gate->requests + 1;
    head_gate_init(gate);
    gate->requests = requests;
}

/* ---- what the fields mean ---- */

static bool name_is(const struct head_gate *gate, const char *name)
{
    return gate->name_size == strlen(name) && memcmp(gate->name, name, gate->name_size) == 0;
}

static struct refusal take_length(struct head_gate *gate)
{
    if (gate->has_length)
        return bad("more than one Content-Length header");
    if (gate->value_size == 0 || gate->value_size > 19)
        return bad("Content-Length must be a decimal number of at most 19 digits");
    uint64_t length = 0;
    for (uint32_t i = 0; i < gate->value_size; i++) {
        if (!is_digit((unsigned char)gate->value[i]))
            return bad("Content-Length must be a decimal number of at most 19 digits");
        length = length * 10 + (uint64_t)(gate->value[i] - '0');
    }
    if (length > INT64_MAX)
        return bad("Content-Length is beyond what any body can have");
    gate->has_length = true;
    gate->body_left = length;
    return fine;
}

static struct refusal take_coding(struct head_gate *gate)
{
    if (gate->has_coding)
        return bad("more than one Transfer-Encoding header");
    static const char chunked[] = "chunked";
    bool same = gate->value_size == sizeof chunked - 1;
    for (size_t i = 0; same && i < sizeof chunked - 1; i++)
        same = (gate->value[i] | 0x20) == chunked[i];
    if (!same)
        return bad("the only Transfer-Encoding known here is chunked");
    gate->has_coding = true;
    return fine;
}

/* A field line has ended; its name and value are in the gate. */
static struct refusal take_field(struct head_gate *gate)
{
    bool length = name_is(gate, "content-length"), coding = name_is(gate, "transfer-encoding");
    bool host = name_is(gate, "host");
    if (gate->in_trailer)
        return length || coding || host ? bad("a trailer must not carry framing or routing fields")
                                        : fine;
    if (length)
        return take_length(gate);
    if (coding)
        return take_coding(gate);
    if (host && ++gate->hosts > 1)
        return bad("more than one Host header");
    return fine;
}

/* The empty line after the fields has ended. */
static struct refusal end_head(struct head_gate *gate)
{
    if (gate->in_trailer) {
        end_request(gate);
        return fine;
    }
    if (gate->minor == 1 && gate->hosts != 1)
        return bad("the request needs a Host header");
    if (gate->has_coding && gate->has_length)
        return bad("both Content-Length and Transfer-Encoding");
    if (gate->has_coding && gate->minor == 0)
        return bad("Transfer-Encoding in a request of a version that has none");
    gate->part_bytes = 0;
    if (gate->has_coding) {
        gate->body_left = 0;
        gate->state = GATE_CHUNK_SIZE;
    } else if (gate->body_left > 0) {
        gate->state = GATE_BODY;
    } else {
        end_request(gate);
    }
    return fine;
}

/* ---- the request line ---- */

static struct refusal step_start(struct head_gate *gate, unsigned char byte)
{
    if (byte == '\r' && !gate->empty_line_seen) {
        gate->state = GATE_START_LF;
        return fine;
    }
    if (!is_token(byte))
        return bad("the request line must begin with a method");
    gate->state = GATE_METHOD;
    gate->part_bytes = 1;
    return fine;
}

static struct refusal step_start_lf(struct head_gate *gate, unsigned char byte)
{
    if (byte != '\n')
        return bad("a CR without its LF");
    gate->empty_line_seen = true;
    gate->state = GATE_START;
    return fine;
}

static struct refusal step_method(struct head_gate *gate, unsigned char byte)
{
    if (byte == ' ') {
        gate->state = GATE_TARGET;
        gate->part_bytes = 0;
        return fine;
    }
    if (!is_token(byte) || ++gate->part_bytes > 32)
        return bad("the request line must begin with a method");
    return fine;
}

static struct refusal step_target(struct head_gate *gate, unsigned char byte)
{
    if (byte == ' ' && gate->part_bytes > 0) {
        gate->state = GATE_VERSION;
        gate->part_bytes = 0;
        return fine;
    }
    if (byte <= ' ' || byte >= 0x7f)
        return bad("the request target holds a byte that no URI may have");
    if (++gate->part_bytes > HEAD_GATE_TARGET_MAX)
        return refuse(414, "the request target is longer than 8192 bytes");
    return fine;
}

static struct refusal step_version(struct head_gate *gate, unsigned char byte)
{
    static const char pattern[] = "HTTP/#.#";
    if (gate->part_bytes == sizeof pattern - 1) {
        if (byte != '\r')
            return bad("the request line must end with the version of HTTP and CRLF");
        gate->state = GATE_VERSION_LF;
        return gate->name[0] == '1' && gate->minor <= 1
                   ? fine
                   : refuse(505, "this version of HTTP is not spoken here");
    }
    unsigned char want = (unsigned char)pattern[gate->part_bytes];
    if (want == '#' ? !is_digit(byte) : byte != want)
        return bad("the request line must end with the version of HTTP and CRLF");
    if (gate->part_bytes == 5)
        gate->name[0] = (char)byte; /* the major version; the name is not in use yet */
    if (gate->part_bytes == 7)
        gate->minor = (uint8_t)(byte - '0');
    gate->part_bytes++;
    return fine;
}

static struct refusal expect_lf(struct head_gate *gate, unsigned char byte,
                                enum head_gate_state next)
{
    if (byte != '\n')
        return bad("a CR without its LF");
    gate->state = next;
    return fine;
}

/* ---- field lines ---- */

static void keep_name(struct head_gate *gate, unsigned char byte)
{
    if (gate->name_size < sizeof gate->name)
        gate->name[gate->name_size] = (char)(byte >= 'A' && byte <= 'Z' ? byte | 0x20 : byte);
    gate->name_size++;
}

static struct refusal step_line(struct head_gate *gate, unsigned char byte)
{
    if (byte == '\r') {
        gate->state = GATE_HEAD_LF;
        return fine;
    }
    if (byte == ' ' || byte == '\t')
        return bad("a header line begins with white space");
    if (!is_token(byte))
        return bad("a header name holds a byte that it may not have");
    if (++gate->headers > HEAD_GATE_HEADERS_MAX)
        return refuse(431, "more than 100 headers");
    gate->state = GATE_NAME;
    gate->name_size = gate->value_size = 0;
    keep_name(gate, byte);
    return fine;
}

static struct refusal step_name(struct head_gate *gate, unsigned char byte)
{
    if (byte == ':') {
        gate->state = GATE_BEFORE_VALUE;
        return fine;
    }
    if (!is_token(byte))
        return bad("a header name holds a byte that it may not have");
    keep_name(gate, byte);
    return fine;
}

static void keep_value(struct head_gate *gate, unsigned char byte)
{
    if (gate->value_size < sizeof gate->value)
        gate->value[gate->value_size] = (char)byte;
    gate->value_size++;
}

/* White space at the end of a value is no part of it. It can only be cut while all of the value is
 * kept; a longer one is too long for the two fields that matter anyway. */
static void trim_value(struct head_gate *gate)
{
    if (gate->value_size > sizeof gate->value)
        return;
    while (gate->value_size > 0 && strchr(" \t", gate->value[gate->value_size - 1]))
        gate->value_size--;
}

static struct refusal step_value(struct head_gate *gate, unsigned char byte)
{
    if (gate->state == GATE_BEFORE_VALUE && (byte == ' ' || byte == '\t'))
        return fine;
    gate->state = GATE_VALUE;
    if (byte == '\r') {
        gate->state = GATE_VALUE_LF;
        trim_value(gate);
        return take_field(gate);
    }
    if (!is_value(byte))
        return bad("a header value holds a control character");
    keep_value(gate, byte);
    return fine;
}

static struct refusal step_head_lf(struct head_gate *gate, unsigned char byte)
{
    return byte == '\n' ? end_head(gate) : bad("a CR without its LF");
}

/* ---- chunks ---- */

static struct refusal step_chunk_size(struct head_gate *gate, unsigned char byte)
{
    int digit = hex_digit(byte);
    if (digit >= 0) {
        if (++gate->part_bytes > 15)
            return bad("a chunk size of more than 15 digits");
        gate->body_left = gate->body_left << 4 | (unsigned)digit;
        return fine;
    }
    if (gate->part_bytes == 0 || (byte != ';' && byte != '\r'))
        return bad("a chunk must begin with its size in hexadecimal digits");
    gate->state = byte == ';' ? GATE_CHUNK_EXTENSION : GATE_CHUNK_SIZE_LF;
    gate->part_bytes = 0;
    return fine;
}

static struct refusal step_chunk_extension(struct head_gate *gate, unsigned char byte)
{
    if (byte == '\r') {
        gate->state = GATE_CHUNK_SIZE_LF;
        return fine;
    }
    if (!is_value(byte))
        return bad("a chunk extension holds a control character");
    if (++gate->part_bytes > HEAD_GATE_EXTENSION_MAX)
        return bad("a chunk extension of more than 128 bytes");
    return fine;
}

static struct refusal step_chunk_size_lf(struct head_gate *gate, unsigned char byte)
{
    if (byte != '\n')
        return bad("a CR without its LF");
    gate->part_bytes = 0;
    if (gate->body_left > 0) {
        gate->state = GATE_CHUNK_DATA;
        return fine;
    }
    gate->in_trailer = true;
    gate->head_bytes = 0;
    gate->state = GATE_LINE;
    return fine;
}

static struct refusal step_chunk_end(struct head_gate *gate, unsigned char byte)
{
    if (gate->state == GATE_CHUNK_CR) {
        gate->state = GATE_CHUNK_LF;
        return byte == '\r' ? fine : bad("a chunk is longer than its size says");
    }
    return expect_lf(gate, byte, GATE_CHUNK_SIZE);
}

/* ---- the machine ---- */

static struct refusal step(struct head_gate *gate, unsigned char byte)
{
    switch (gate->state) {
    case GATE_START: return step_start(gate, byte);
    case GATE_START_LF: return step_start_lf(gate, byte);
    case GATE_METHOD: return step_method(gate, byte);
    case GATE_TARGET: return step_target(gate, byte);
    case GATE_VERSION: return step_version(gate, byte);
    case GATE_VERSION_LF: return expect_lf(gate, byte, GATE_LINE);
    case GATE_LINE: return step_line(gate, byte);
    case GATE_NAME: return step_name(gate, byte);
    case GATE_BEFORE_VALUE:
    case GATE_VALUE: return step_value(gate, byte);
    case GATE_VALUE_LF: return expect_lf(gate, byte, GATE_LINE);
    case GATE_HEAD_LF: return step_head_lf(gate, byte);
    case GATE_CHUNK_SIZE: return step_chunk_size(gate, byte);
    case GATE_CHUNK_EXTENSION: return step_chunk_extension(gate, byte);
    case GATE_CHUNK_SIZE_LF: return step_chunk_size_lf(gate, byte);
    case GATE_CHUNK_CR:
    case GATE_CHUNK_LF: return step_chunk_end(gate, byte);
    case GATE_BODY:
    case GATE_CHUNK_DATA: /* skipped as a whole by head_gate_feed */
    case GATE_REFUSED: break;
    }
    return bad("the connection was refused before");
}

/* Count a byte of a head or a trailer section against its bound, before it can complete anything.
 */
static struct refusal count_head_byte(struct head_gate *gate)
{
    if (gate->state > GATE_HEAD_LF)
        return fine;
    gate->head_bytes++;
    if (gate->in_trailer)
        return gate->head_bytes > HEAD_GATE_TRAILER_MAX
                   ? refuse(431, "trailers of more than 2048 bytes")
                   : fine;
    return gate->head_bytes > HEAD_GATE_HEAD_MAX ? refuse(431, "a head of more than 16384 bytes")
                                                 : fine;
}

/* Body bytes need no look: skip as many of them as there are. */
static size_t skip_body(struct head_gate *gate, size_t size)
{
    size_t skipped = gate->body_left < size ? (size_t)gate->body_left : size;
    gate->body_left -= skipped;
    if (gate->body_left == 0) {
        if (gate->state == GATE_BODY)
            end_request(gate);
        else
            gate->state = GATE_CHUNK_CR;
    }
    return skipped;
}

size_t head_gate_feed(struct head_gate *gate, const void *bytes, size_t size,
                      struct head_gate_report *report)
{
    const unsigned char *data = bytes;
    *report = (struct head_gate_report){0};
    size_t at = 0;
    while (at < size) {
        uint32_t requests = gate->requests;
        if (gate->state == GATE_BODY || gate->state == GATE_CHUNK_DATA) {
            at += skip_body(gate, size - at);
        } else {
            struct refusal refusal = count_head_byte(gate);
            if (!refusal.status)
                refusal = step(gate, data[at]);
            if (refusal.status) {
                gate->state = GATE_REFUSED;
                report->status = refusal.status;
                report->reason = refusal.reason;
                return at;
            }
            at++;
        }
        if (gate->requests != requests)
            report->whole = at;
    }
    return at;
}
