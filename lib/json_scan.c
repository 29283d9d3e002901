#include "lib/json_scan.h"

#include "lib/utf8.h"

#include <assert.h>
#include <string.h>

enum json_state {
    AT_START, /* a byte order mark may come: RFC 8259 lets readers ignore it, Python's does */
    AT_VALUE, /* a value must come */
    AT_VALUE_OR_END, /* just after [ */
    AT_KEY,          /* after a comma in an object */
    AT_KEY_OR_END,   /* just after { */
    AT_COLON,
    AFTER_VALUE, /* a comma or the end of the container must come */
    IN_NUMBER,
    IN_LITERAL,
    IN_STRING,
    IN_ESCAPE, /* after a backslash */
    IN_HEX,    /* after \u */
    IN_UTF8,   /* continuation bytes */
    AT_END     /* nothing but white space */
};

static const char *const literals[] = {"true", "false", "null", "NaN", "Infinity", "-Infinity"};
enum { LITERAL_NAN = 3, LITERAL_MINUS_INFINITY = 5 };

void json_scan_init(struct json_scan *scan)
{
    /* Not the token: it is as large as all the rest of a reader, and read only as far as it has
     * been written. */
    memset(scan, 0, offsetof(struct json_scan, token));
    scan->state = AT_START;
}

static enum json_event fail_at(struct json_scan *scan, uint64_t offset, const char *error)
{
    scan->error = error;
    scan->error_offset = offset;
    return SCAN_ERROR;
}

static uint64_t offset_of(const struct json_scan *scan, const struct json_piece *piece)
{
    return scan->offset + (uint64_t)(piece->at - piece->start);
}

static enum json_event fail_here(struct json_scan *scan, const struct json_piece *piece,
                                 const char *error)
{
    return fail_at(scan, offset_of(scan, piece), error);
}

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* A table, because every byte of every number passes through it. */
static const bool number_parts[256] = {
    ['0'] = true, ['1'] = true, ['2'] = true, ['3'] = true, ['4'] = true,
    ['5'] = true, ['6'] = true, ['7'] = true, ['8'] = true, ['9'] = true,
    ['.'] = true, ['-'] = true, ['+'] = true, ['e'] = true, ['E'] = true,
};

static bool is_number_part(char c)
{
    return number_parts[(unsigned char)c];
}

/* Moves to the next byte that is not white space; false when there is none in this piece. */
static bool skip_space(struct json_piece *piece)
{
    while (piece->at < piece->end && is_space(*piece->at))
        piece->at++;
    return piece->at < piece->end;
}

static bool in_object(const struct json_scan *scan)
{
    return scan->depth && (scan->objects >> (scan->depth - 1) & 1);
}

static void end_value(struct json_scan *scan)
{
    scan->state = scan->depth ? AFTER_VALUE : AT_END;
}

static enum json_event scan_start(struct json_scan *scan, struct json_piece *piece)
{
    static const char mark[] = "\xef\xbb\xbf";
    if (*piece->at == mark[scan->matched]) {
        piece->at++;
        if (mark[++scan->matched] == '\0')
            scan->state = AT_VALUE;
        return SCAN_MORE;
    }
    if (scan->matched)
        return fail_at(scan, 0, "Expecting value");
    scan->state = AT_VALUE;
    return SCAN_MORE;
}

/* ---- containers ---- */

static enum json_event open_container(struct json_scan *scan, struct json_piece *piece, bool object)
{
    if (scan->depth == JSON_DEPTH_MAX)
        return fail_here(scan, piece, "Nesting deeper than 64 levels");
    piece->at++;
    uint64_t bit = UINT64_C(1) << scan->depth;
    scan->objects = object ? scan->objects | bit : scan->objects & ~bit;
    scan->depth++;
    scan->state = object ? AT_KEY_OR_END : AT_VALUE_OR_END;
    return object ? SCAN_OPEN_OBJECT : SCAN_OPEN_LIST;
}

static enum json_event close_container(struct json_scan *scan, struct json_piece *piece)
{
    bool object = in_object(scan);
    piece->at++;
    scan->depth--;
    end_value(scan);
    return object ? SCAN_CLOSE_OBJECT : SCAN_CLOSE_LIST;
}

static enum json_event scan_after_value(struct json_scan *scan, struct json_piece *piece)
{
    if (!skip_space(piece))
        return SCAN_MORE;
    if (*piece->at == ',') {
        piece->at++;
        scan->state = in_object(scan) ? AT_KEY : AT_VALUE;
        return in_object(scan) ? SCAN_MORE : SCAN_COMMA;
    }
    if (*piece->at == (in_object(scan) ? '}' : ']'))
        return close_container(scan, piece);
    return fail_here(scan, piece, "Expecting ',' delimiter");
}

static enum json_event scan_colon(struct json_scan *scan, struct json_piece *piece)
{
    if (!skip_space(piece))
        return SCAN_MORE;
    if (*piece->at != ':')
        return fail_here(scan, piece, "Expecting ':' delimiter");
    piece->at++;
    scan->state = AT_VALUE;
    return SCAN_MORE;
}

static enum json_event scan_end(struct json_scan *scan, struct json_piece *piece)
{
    return skip_space(piece) ? fail_here(scan, piece, "Extra data") : SCAN_MORE;
}

/* ---- values ---- */

static void begin_token(struct json_scan *scan, const struct json_piece *piece,
                        enum json_state state)
{
    scan->token_offset = offset_of(scan, piece);
    scan->token_size = 0;
    scan->token_cut = false;
    scan->surrogate = 0;
    scan->matched = 0;
    scan->state = (uint8_t)state;
}

static enum json_event begin_string(struct json_scan *scan, struct json_piece *piece, bool key)
{
    begin_token(scan, piece, IN_STRING);
    scan->in_key = key;
    piece->at++;
    return SCAN_MORE;
}

static enum json_event begin_literal(struct json_scan *scan, struct json_piece *piece)
{
    for (unsigned i = 0; i < LITERAL_MINUS_INFINITY; i++)
        if (*piece->at == literals[i][0]) {
            begin_token(scan, piece, IN_LITERAL);
            scan->literal = (uint8_t)i;
            return SCAN_MORE;
        }
    return fail_here(scan, piece, "Expecting value");
}

static enum json_event scan_value(struct json_scan *scan, struct json_piece *piece)
{
    if (!skip_space(piece))
        return SCAN_MORE;
    char c = *piece->at;
    if (is_digit(c) || c == '-') {
        begin_token(scan, piece, IN_NUMBER);
        return SCAN_MORE;
    }
    if (c == '[' || c == '{')
        return open_container(scan, piece, c == '{');
    if (c == '"')
        return begin_string(scan, piece, false);
    if (c == ']' && scan->state == AT_VALUE_OR_END)
        return close_container(scan, piece);
    return begin_literal(scan, piece);
}

static enum json_event scan_key(struct json_scan *scan, struct json_piece *piece)
{
    if (!skip_space(piece))
        return SCAN_MORE;
    if (*piece->at == '"')
        return begin_string(scan, piece, true);
    if (*piece->at == '}' && scan->state == AT_KEY_OR_END)
        return close_container(scan, piece);
    return fail_here(scan, piece, "Expecting property name enclosed in double quotes");
}

static enum json_event scan_literal(struct json_scan *scan, struct json_piece *piece)
{
    const char *literal = literals[scan->literal];
    while (piece->at < piece->end && literal[scan->matched]) {
        if (*piece->at != literal[scan->matched])
            return fail_at(scan, scan->token_offset, "Expecting value");
        piece->at++;
        scan->matched++;
    }
    if (literal[scan->matched])
        return SCAN_MORE;
    scan->text = literal;
    scan->text_size = scan->matched;
    end_value(scan);
    return scan->literal >= LITERAL_NAN ? SCAN_NOT_FINITE : SCAN_LITERAL;
}

/* ---- numbers ---- */

static size_t skip_digits(const char *text, size_t size, size_t at)
{
    while (at < size && is_digit(text[at]))
        at++;
    return at;
}

/* How much of text is a number by the grammar: all of it, or up to the first byte that is wrong. */
static size_t number_prefix(const char *text, size_t size)
{
    size_t at = text[0] == '-';
    size_t digits = at;
    at = digits < size && text[digits] == '0' ? digits + 1 : skip_digits(text, size, digits);
    if (at == digits)
        return 0;
    if (at < size && text[at] == '.') {
        digits = skip_digits(text, size, at + 1);
        if (digits == at + 1)
            return at;
        at = digits;
    }
    if (at < size && (text[at] == 'e' || text[at] == 'E')) {
        size_t first = at + 1;
        if (first < size && (text[first] == '+' || text[first] == '-'))
            first++;
        digits = skip_digits(text, size, first);
        if (digits == first)
            return at;
        at = digits;
    }
    return at;
}

static enum json_event end_number(struct json_scan *scan, const char *text, size_t size)
{
    size_t good = number_prefix(text, size);
    if (good == 0)
        return fail_at(scan, scan->token_offset, "Expecting value");
    if (good < size)
        return fail_at(scan, scan->token_offset + good, "Malformed number");
    scan->text = text;
    scan->text_size = size;
    end_value(scan);
    return SCAN_NUMBER;
}

static enum json_event scan_number(struct json_scan *scan, struct json_piece *piece)
{
    size_t room = JSON_TOKEN_MAX - scan->token_size;
    const char *from = piece->at;
    const char *at = from;
    while (at < piece->end && is_number_part(*at))
        at++;
    size_t size = (size_t)(at - from);
    if (size > room)
        return fail_at(scan, scan->token_offset, "Number longer than 400 characters");
    piece->at = at;
    if (scan->token_size == 0 && at < piece->end && !(size == 1 && *at == 'I' && *from == '-'))
        return end_number(scan, from, size); /* whole in this piece: no copy */

    memcpy(scan->token + scan->token_size, from, size);
    scan->token_size += size;
    if (at == piece->end)
        return SCAN_MORE;
    if (scan->token_size == 1 && scan->token[0] == '-' && *at == 'I') {
        scan->state = IN_LITERAL;
        scan->literal = LITERAL_MINUS_INFINITY;
        scan->matched = 1;
        return SCAN_MORE;
    }
    return end_number(scan, scan->token, scan->token_size);
}

/* ---- strings ---- */

static void keep_bytes(struct json_scan *scan, const char *bytes, size_t size)
{
    size_t room = JSON_TOKEN_MAX - scan->token_size;
    if (size > room) {
        size = room;
        scan->token_cut = true;
    }
    memcpy(scan->token + scan->token_size, bytes, size);
    scan->token_size += size;
}

/* A first half of a surrogate pair that got no second half. */
static void keep_lone_surrogate(struct json_scan *scan)
{
    if (scan->surrogate)
        keep_bytes(scan, "\xef\xbf\xbd", 3);
    scan->surrogate = 0;
}

static enum json_event end_string(struct json_scan *scan)
{
    keep_lone_surrogate(scan);
    scan->text = scan->token;
    scan->text_size = scan->token_size;
    if (scan->in_key) {
        scan->state = AT_COLON;
        return SCAN_KEY;
    }
    end_value(scan);
    return SCAN_STRING;
}

/* Of a string that comes in pieces: what is in the token. */
static enum json_event give_token(struct json_scan *scan)
{
    scan->text = scan->token;
    scan->text_size = scan->token_size;
    scan->token_size = 0;
    return SCAN_TEXT;
}

static bool is_plain(char c)
{
    return (unsigned char)c >= 0x20 && (unsigned char)c < 0x80 && c != '"' && c != '\\';
}

static enum json_event begin_utf8(struct json_scan *scan, struct json_piece *piece)
{
    int more = utf8_lead((uint8_t)*piece->at, &scan->utf8_low, &scan->utf8_high);
    if (more < 0)
        return fail_here(scan, piece, "Invalid UTF-8");
    scan->utf8_left = (uint8_t)more;
    scan->state = IN_UTF8;
    keep_bytes(scan, piece->at++, 1);
    return SCAN_MORE;
}

static enum json_event scan_string(struct json_scan *scan, struct json_piece *piece)
{
    bool pieces = scan->pieces && !scan->in_key;
    if (pieces && *piece->at != '\\')
        keep_lone_surrogate(scan);
    if (pieces && scan->token_size)
        return give_token(scan);
    const char *from = piece->at;
    while (piece->at < piece->end && is_plain(*piece->at))
        piece->at++;
    if (piece->at > from && pieces) {
        scan->text = from;
        scan->text_size = (size_t)(piece->at - from);
        return SCAN_TEXT;
    }
    if (piece->at > from) {
        keep_lone_surrogate(scan);
        keep_bytes(scan, from, (size_t)(piece->at - from));
    }
    if (piece->at == piece->end)
        return SCAN_MORE;
    char c = *piece->at;
    if (c == '\\') {
        piece->at++;
        scan->state = IN_ESCAPE;
        return SCAN_MORE;
    }
    if (c == '"') {
        piece->at++;
        return end_string(scan);
    }
    if ((unsigned char)c < 0x20)
        return fail_here(scan, piece, "Invalid control character");
    keep_lone_surrogate(scan);
    return begin_utf8(scan, piece);
}

static enum json_event scan_utf8(struct json_scan *scan, struct json_piece *piece)
{
    uint8_t byte = (uint8_t)*piece->at;
    if (byte < scan->utf8_low || byte > scan->utf8_high)
        return fail_here(scan, piece, "Invalid UTF-8");
    keep_bytes(scan, piece->at++, 1);
    scan->utf8_low = 0x80;
    scan->utf8_high = 0xbf;
    if (--scan->utf8_left == 0)
        scan->state = IN_STRING;
    return SCAN_MORE;
}

static enum json_event scan_escape(struct json_scan *scan, struct json_piece *piece)
{
    static const char names[] = "\"\\/bfnrt";
    static const char values[] = "\"\\/\b\f\n\r\t";
    char c = *piece->at;
    if (c == 'u') {
        piece->at++;
        scan->escape = 0;
        scan->matched = 0;
        scan->state = IN_HEX;
        return SCAN_MORE;
    }
    const char *name = c ? strchr(names, c) : NULL;
    if (!name)
        return fail_here(scan, piece, "Invalid \\escape");
    piece->at++;
    keep_lone_surrogate(scan);
    keep_bytes(scan, &values[name - names], 1);
    scan->state = IN_STRING;
    return SCAN_MORE;
}

static int hex_value(char c)
{
    if (is_digit(c))
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

static void keep_code_unit(struct json_scan *scan, uint32_t unit)
{
    bool first = unit >= 0xd800 && unit < 0xdc00;
    bool second = unit >= 0xdc00 && unit < 0xe000;
    char bytes[4] = {0};
    if (second && scan->surrogate) {
        uint32_t code_point = 0x10000 + ((scan->surrogate - 0xd800) << 10) + (unit - 0xdc00);
        scan->surrogate = 0;
        keep_bytes(scan, bytes, utf8_encode(code_point, bytes));
        return;
    }
    keep_lone_surrogate(scan);
    if (first)
        scan->surrogate = unit;
    else
        keep_bytes(scan, bytes, utf8_encode(second ? 0xfffd : unit, bytes));
}

static enum json_event scan_hex(struct json_scan *scan, struct json_piece *piece)
{
    int digit = hex_value(*piece->at);
    if (digit < 0)
        return fail_here(scan, piece, "Invalid \\uXXXX escape");
    piece->at++;
    scan->escape = scan->escape << 4 | (uint32_t)digit;
    if (++scan->matched == 4) {
        keep_code_unit(scan, scan->escape);
        scan->state = IN_STRING;
    }
    return SCAN_MORE;
}

/* ---- the machine ---- */

enum json_event json_scan_next(struct json_scan *scan, struct json_piece *piece)
{
    static enum json_event (*const steps[])(struct json_scan *, struct json_piece *) = {
        [AT_START] = scan_start,
        [AT_VALUE] = scan_value,
        [AT_VALUE_OR_END] = scan_value,
        [AT_KEY] = scan_key,
        [AT_KEY_OR_END] = scan_key,
        [AT_COLON] = scan_colon,
        [AFTER_VALUE] = scan_after_value,
        [IN_NUMBER] = scan_number,
        [IN_LITERAL] = scan_literal,
        [IN_STRING] = scan_string,
        [IN_ESCAPE] = scan_escape,
        [IN_HEX] = scan_hex,
        [IN_UTF8] = scan_utf8,
        [AT_END] = scan_end,
    };
    while (piece->at < piece->end) {
        enum json_event event = steps[scan->state](scan, piece);
        if (event != SCAN_MORE)
            return event;
    }
    scan->offset += (uint64_t)(piece->end - piece->start);
    piece->start = piece->end;
    return SCAN_MORE;
}

enum json_event json_scan_finish(struct json_scan *scan)
{
    switch ((enum json_state)scan->state) {
    case AT_END: return SCAN_END;
    case IN_NUMBER:
        if (scan->depth == 0)
            return end_number(scan, scan->token, scan->token_size);
        return fail_at(scan, scan->offset, "Expecting ',' delimiter");
    case AT_KEY:
    case AT_KEY_OR_END:
        return fail_at(scan, scan->offset, "Expecting property name enclosed in double quotes");
    case AT_COLON: return fail_at(scan, scan->offset, "Expecting ':' delimiter");
    case AFTER_VALUE: return fail_at(scan, scan->offset, "Expecting ',' delimiter");
    case IN_STRING:
    case IN_ESCAPE:
    case IN_HEX:
    case IN_UTF8: return fail_at(scan, scan->token_offset, "Unterminated string");
    case IN_LITERAL: return fail_at(scan, scan->token_offset, "Expecting value");
    case AT_START:
    case AT_VALUE:
    case AT_VALUE_OR_END: break;
    }
    return fail_at(scan, scan->offset, "Expecting value");
}

bool json_scan_in_list_before_value(const struct json_scan *scan)
{
    return (scan->state == AT_VALUE || scan->state == AT_VALUE_OR_END) && scan->depth &&
           !in_object(scan);
}

void json_scan_skip_values(struct json_scan *scan, bool after_value)
{
    assert(json_scan_in_list_before_value(scan));
    scan->state = after_value ? AFTER_VALUE : AT_VALUE;
}

bool json_is_valid(const char *text, size_t size)
{
    struct json_scan scan;
    struct json_piece piece = {text, text, text + size};
    json_scan_init(&scan);
    scan.state = AT_VALUE; /* a value in a text has no mark */
    enum json_event event;
    do
        event = json_scan_next(&scan, &piece);
    while (event != SCAN_MORE && event != SCAN_ERROR && event != SCAN_NOT_FINITE);
    if (event != SCAN_MORE)
        return false;
    event = json_scan_finish(&scan);
    return event == SCAN_END || event == SCAN_NUMBER;
}
