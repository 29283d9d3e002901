#include "gateway/decoding.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <zlib.h>
#include <zstd.h>

#define PIECE (64u << 10)

struct decoder {
    enum body_coding coding;
    uint64_t most_bytes, made_bytes;
    bool begun; /* bytes have come */
    bool whole; /* the stream is at an end; another may follow (RFC 1952, RFC 8878) */
    z_stream zlib;
    ZSTD_DCtx *zstd;
    size_t zstd_bytes; /* that it holds, as counted in zstd_held */
};

/* One thread decodes. */
static size_t zstd_held;
static char piece[PIECE];

/* ---- which coding ---- */

static const char *coding_name(enum body_coding coding)
{
    static const char *const names[] = {"identity", "gzip", "deflate", "zstd"};
    return names[coding];
}

static bool name_is(const char *text, size_t size, const char *name)
{
    return size == strlen(name) && strncasecmp(text, name, size) == 0;
}

int decoding_choose(const char *content_encoding, enum body_coding *coding, struct problem *problem)
{
    const char *text = content_encoding ? content_encoding : "";
    text += strspn(text, " \t");
    size_t size = strlen(text);
    while (size > 0 && (text[size - 1] == ' ' || text[size - 1] == '\t'))
        size--;
    for (enum body_coding each = BODY_PLAIN; each <= BODY_ZSTD; each++)
        if (size == 0 || name_is(text, size, coding_name(each)) ||
            (each == BODY_GZIP && name_is(text, size, "x-gzip"))) {
            *coding = each;
            return 0;
        }
    if (memchr(text, ',', size))
        problem_set(problem, 415, "Content-Encoding %.100s: one coding is taken, not several",
                    text);
    else
        problem_set(problem, 415,
                    "Content-Encoding %.100s is not taken, possible: " DECODING_ACCEPTED, text);
    return -1;
}

/* ---- life ---- */

static bool decoder_begin(struct decoder *decoder)
{
    if (decoder->coding != BODY_ZSTD)
        return inflateInit2(&decoder->zlib, decoder->coding == BODY_GZIP ? 15 + 16 : 15) == Z_OK;
    decoder->zstd = ZSTD_createDCtx();
    return decoder->zstd && !ZSTD_isError(ZSTD_DCtx_setParameter(decoder->zstd, ZSTD_d_windowLogMax,
                                                                 DECODING_ZSTD_WINDOW_LOG));
}

struct decoder *decoder_open(enum body_coding coding, uint64_t most_bytes)
{
    struct decoder *decoder = malloc(sizeof *decoder);
    if (!decoder)
        return NULL;
    *decoder = (struct decoder){.coding = coding, .most_bytes = most_bytes};
    if (decoder_begin(decoder))
        return decoder;
    decoder_close(decoder);
    return NULL;
}

void decoder_close(struct decoder *decoder)
{
    if (!decoder)
        return;
    if (decoder->coding != BODY_ZSTD)
        inflateEnd(&decoder->zlib);
    ZSTD_freeDCtx(decoder->zstd);
    zstd_held -= decoder->zstd_bytes;
    free(decoder);
}

/* ---- unpacking ---- */

static int say_broken(const struct decoder *decoder, const char *what, struct problem *problem)
{
    problem_set(problem, 400, "The body is no %s stream, as Content-Encoding says it is: %s",
                coding_name(decoder->coding), what);
    return -1;
}

static int say_no_memory(struct problem *problem)
{
    problem_set(problem, 503, "There is no memory to unpack the body, try again later");
    return -1;
}

/* Both fill `piece` from bytes and say how far they came. */
static int inflate_some(struct decoder *decoder, const char *bytes, size_t size, size_t *taken,
                        size_t *made, struct problem *problem)
{
    z_stream *zlib = &decoder->zlib;
    uInt given = size < PIECE ? (uInt)size : PIECE;
    zlib->next_in = (Bytef *)(uintptr_t)bytes; /* zlib reads only */
    zlib->avail_in = given;
    zlib->next_out = (Bytef *)piece;
    zlib->avail_out = PIECE;
    /* Another member of a gzip file; of zlib's streams there is one. */
    if (decoder->whole && size > 0 && decoder->coding == BODY_DEFLATE)
        return say_broken(decoder, "it goes on after its end", problem);
    if (decoder->whole && size > 0 && inflateReset(zlib) != Z_OK)
        return say_no_memory(problem);
    if (size > 0)
        decoder->whole = false;
    int status = decoder->whole ? Z_BUF_ERROR : inflate(zlib, Z_NO_FLUSH);
    if (status == Z_MEM_ERROR)
        return say_no_memory(problem);
    if (status == Z_NEED_DICT)
        return say_broken(decoder, "it wants a dictionary", problem);
    if (status != Z_OK && status != Z_STREAM_END && status != Z_BUF_ERROR)
        return say_broken(decoder, zlib->msg ? zlib->msg : "invalid data", problem);
    decoder->whole = decoder->whole || status == Z_STREAM_END;
    *taken = given - zlib->avail_in;
    *made = PIECE - zlib->avail_out;
    return 0;
}

static int zstd_some(struct decoder *decoder, const char *bytes, size_t size, size_t *taken,
                     size_t *made, struct problem *problem)
{
    ZSTD_inBuffer in = {bytes, size, 0};
    ZSTD_outBuffer out = {piece, PIECE, 0};
    size_t left = ZSTD_decompressStream(decoder->zstd, &out, &in);
    if (ZSTD_isError(left))
        return say_broken(decoder, ZSTD_getErrorName(left), problem);
    if (in.pos > 0 || out.pos > 0)
        decoder->whole = left == 0;
    size_t bytes_held = ZSTD_sizeof_DCtx(decoder->zstd);
    zstd_held += bytes_held - decoder->zstd_bytes;
    decoder->zstd_bytes = bytes_held;
    *taken = in.pos;
    *made = out.pos;
    return zstd_held > DECODING_MEMORY_MAX ? say_no_memory(problem) : 0;
}

static int hand_on(struct decoder *decoder, size_t size, decoder_take *take, void *opaque,
                   struct problem *problem)
{
    decoder->made_bytes += size;
    if (decoder->made_bytes > decoder->most_bytes) {
        problem_set(problem, 413, "Payload too large: it unpacks to more than %llu bytes",
                    (unsigned long long)decoder->most_bytes);
        return -1;
    }
    return size ? take(opaque, piece, size, problem) : 0;
}

int decoder_feed(struct decoder *decoder, const void *bytes, size_t size, size_t *used,
                 decoder_take *take, void *opaque, struct problem *problem)
{
    size_t at = 0, call = 0, taken = 0, made = 0;
    decoder->begun = decoder->begun || size > 0;
    do {
        const char *from = (const char *)bytes + at;
        int failed = decoder->coding == BODY_ZSTD
                         ? zstd_some(decoder, from, size - at, &taken, &made, problem)
                         : inflate_some(decoder, from, size - at, &taken, &made, problem);
        if (failed || hand_on(decoder, made, take, opaque, problem))
            return -1;
        at += taken;
        call += made;
        /* What is still inside when all input was taken is less than a block: it comes out now. */
    } while ((at < size && call < DECODING_A_CALL && (taken || made)) ||
             (at == size && made == PIECE));
    if (at < size && !taken && !made)
        return say_broken(decoder, "it does not go on", problem);
    *used = at;
    return 0;
}

int decoder_finish(const struct decoder *decoder, struct problem *problem)
{
    if (decoder->whole || !decoder->begun)
        return 0;
    return say_broken(decoder, "it is truncated", problem);
}
