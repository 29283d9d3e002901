#include "gateway/compress.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <zlib.h>
#include <zstd.h>

#define ELEMENTS_MAX 64

static const struct config *configured;

void compress_configure(const struct config *config)
{
    configured = config;
}

/* ---- which coding ---- */

const char *compress_name(enum coding coding)
{
    return coding == CODING_ZSTD ? "zstd" : coding == CODING_GZIP ? "gzip" : "identity";
}

static bool is_offered(enum coding coding)
{
    if (coding == CODING_IDENTITY)
        return true;
    return configured && (coding == CODING_ZSTD ? configured->zstd_level : configured->gzip_level);
}

/* "0", "1", with up to three decimals, in thousandths. What cannot be read counts as 0: better
 * uncompressed than in a coding that nobody asked for. */
static int thousandths(const char *text, size_t size)
{
    if (size == 0 || size > 5 || (text[0] != '0' && text[0] != '1') || (size > 1 && text[1] != '.'))
        return 0;
    int value = (text[0] - '0') * 1000;
    int weight = 100;
    for (size_t i = 2; i < size; i++, weight /= 10) {
        if (text[i] < '0' || text[i] > '9')
            return 0;
        value += (text[i] - '0') * weight;
    }
    return value > 1000 ? 0 : value;
}

static size_t skip_space(const char *text)
{
    return strspn(text, " \t");
}

/* The quality of one element, which ends at a comma. */
static int quality(const char *element, size_t size)
{
    const char *end = element + size;
    const char *at = memchr(element, ';', size);
    if (!at)
        return 1000;
    at++;
    at += skip_space(at);
    if (end - at < 2 || strncasecmp(at, "q=", 2) != 0)
        return 0;
    at += 2;
    size_t length = (size_t)(end - at);
    while (length > 0 && (at[length - 1] == ' ' || at[length - 1] == '\t'))
        length--;
    return thousandths(at, length);
}

/* Qualities that the header names, -1 where it does not; [3] is "*". */
static void read_qualities(const char *text, int qualities[4])
{
    static const char *const names[] = {"identity", "gzip", "zstd", "*"};
    for (unsigned count = 0; *text && count < ELEMENTS_MAX; count++) {
        text += strspn(text, " \t,");
        size_t size = strcspn(text, ",");
        size_t name = strcspn(text, ",; \t");
        for (size_t i = 0; i < 4; i++)
            if ((name == strlen(names[i]) && strncasecmp(text, names[i], name) == 0) ||
                (i == 1 && name == 6 && strncasecmp(text, "x-gzip", 6) == 0))
                qualities[i] = quality(text, size);
        text += size;
    }
}

int compress_choose(const char *accept_encoding, enum coding *coding, struct problem *problem)
{
    int qualities[4] = {-1, -1, -1, -1};
    if (accept_encoding)
        read_qualities(accept_encoding, qualities);
    enum coding best = CODING_IDENTITY;
    int best_quality = 0;
    for (enum coding each = CODING_ZSTD; each != CODING_IDENTITY; each--) {
        int each_quality = qualities[each] >= 0 ? qualities[each] : qualities[3];
        if (is_offered(each) && each_quality > best_quality) {
            best = each;
            best_quality = each_quality;
        }
    }
    /* Without a word about it the answer as it is will do, but is not asked for. */
    if (qualities[CODING_IDENTITY] > best_quality)
        best = CODING_IDENTITY;
    bool bare = qualities[CODING_IDENTITY] > 0 ||
                (qualities[CODING_IDENTITY] < 0 && qualities[3] != 0);
    if (best == CODING_IDENTITY && !bare) {
        problem_set(problem, 406,
                    "None of the codings in Accept-Encoding can be given, possible: %s%sidentity",
                    is_offered(CODING_GZIP) ? "gzip, " : "",
                    is_offered(CODING_ZSTD) ? "zstd, " : "");
        return -1;
    }
    *coding = best;
    return 0;
}

bool compress_fits(const char *type, size_t size)
{
    static const char *const types[] = {"application/json", "application/x-npy", "text/"};
    if (!type || size == 0 || (!is_offered(CODING_GZIP) && !is_offered(CODING_ZSTD)) ||
        size < configured->compress_min_bytes)
        return false;
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (strncmp(type, types[i], strlen(types[i])) == 0)
            return true;
    return false;
}

/* ---- the compressor ---- */

struct compressor {
    enum coding coding;
    char *body;
    size_t size, taken; /* pieces that were given to the library, as far as it has read them */
    size_t piece_end;
    bool flushed; /* nothing of the last piece is left inside */
    bool ended;
    z_stream zlib;
    ZSTD_CCtx *zstd;
};

static bool compressor_begin(struct compressor *compressor)
{
    if (compressor->coding == CODING_GZIP)
        return deflateInit2(&compressor->zlib, (int)configured->gzip_level, Z_DEFLATED, 15 + 16, 8,
                            Z_DEFAULT_STRATEGY) == Z_OK;
    compressor->zstd = ZSTD_createCCtx();
    return compressor->zstd &&
           !ZSTD_isError(ZSTD_CCtx_setParameter(compressor->zstd, ZSTD_c_compressionLevel,
                                                (int)configured->zstd_level)) &&
           !ZSTD_isError(ZSTD_CCtx_setPledgedSrcSize(compressor->zstd, compressor->size));
}

struct compressor *compressor_open(enum coding coding, void *body, size_t size)
{
    struct compressor *compressor = malloc(sizeof *compressor);
    if (!compressor)
        return NULL;
    *compressor = (struct compressor){
        .coding = coding, .body = body, .size = size, .flushed = true};
    if (compressor_begin(compressor))
        return compressor;
    compressor_close(compressor, true);
    return NULL;
}

void compressor_close(struct compressor *compressor, bool keep_body)
{
    if (compressor->coding == CODING_GZIP)
        deflateEnd(&compressor->zlib);
    ZSTD_freeCCtx(compressor->zstd);
    if (!keep_body)
        free(compressor->body);
    free(compressor);
}

static ssize_t deflate_some(struct compressor *compressor, bool last, void *buffer, size_t size)
{
    z_stream *zlib = &compressor->zlib;
    zlib->next_in = (Bytef *)compressor->body + compressor->taken;
    zlib->avail_in = (uInt)(compressor->piece_end - compressor->taken);
    zlib->next_out = buffer;
    zlib->avail_out = (uInt)(size < COMPRESS_PIECE ? size : COMPRESS_PIECE);
    uInt room = zlib->avail_out;
    int status = deflate(zlib, last ? Z_FINISH : Z_SYNC_FLUSH);
    if (status != Z_OK && status != Z_STREAM_END && status != Z_BUF_ERROR)
        return -EIO;
    compressor->taken = compressor->piece_end - zlib->avail_in;
    compressor->flushed = last ? status == Z_STREAM_END : zlib->avail_out > 0;
    return (ssize_t)(room - zlib->avail_out);
}

static ssize_t zstd_some(struct compressor *compressor, bool last, void *buffer, size_t size)
{
    ZSTD_inBuffer in = {compressor->body, compressor->piece_end, compressor->taken};
    ZSTD_outBuffer out = {buffer, size, 0};
    size_t left = ZSTD_compressStream2(compressor->zstd, &out, &in,
                                       last ? ZSTD_e_end : ZSTD_e_flush);
    if (ZSTD_isError(left))
        return -EIO;
    compressor->taken = in.pos;
    compressor->flushed = left == 0;
    return (ssize_t)out.pos;
}

ssize_t compressor_read(struct compressor *compressor, void *buffer, size_t size)
{
    while (!compressor->ended) {
        if (compressor->flushed) {
            size_t rest = compressor->size - compressor->taken;
            compressor->piece_end = compressor->taken +
                                    (rest < COMPRESS_PIECE ? rest : COMPRESS_PIECE);
        }
        bool last = compressor->piece_end == compressor->size;
        ssize_t made = compressor->coding == CODING_GZIP
                           ? deflate_some(compressor, last, buffer, size)
                           : zstd_some(compressor, last, buffer, size);
        if (made < 0)
            return made;
        compressor->ended = last && compressor->flushed;
        if (made > 0)
            return made;
        if (!compressor->flushed)
            return -EIO;
    }
    return 0;
}
