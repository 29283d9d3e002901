#include "goldens.h"
#include "pickles.h"
#include "workers/models/unet/weights.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>
#include <zip.h>

#include <cmocka.h>

static char error[512];

/* ---- safetensors ---- */

struct blob {
    unsigned char *bytes;
    size_t size;
};

static struct blob safetensors(const char *header, size_t data_bytes)
{
    uint64_t length = strlen(header);
    struct blob blob = {.size = 8 + (size_t)length + data_bytes};
    blob.bytes = malloc(blob.size);
    assert_non_null(blob.bytes);
    memcpy(blob.bytes, &length, 8);
    memcpy(blob.bytes + 8, header, (size_t)length);
    for (size_t i = 0; i < data_bytes; i++)
        blob.bytes[8 + length + i] = (unsigned char)i;
    return blob;
}

static void test_safetensors(void **state)
{
    (void)state;
    /* "b" first in the header, last in the data; an empty tensor and a scalar among them */
    struct blob blob = safetensors(
        "{\"__metadata__\":{\"format\":\"pt\"},"
        "\"b\":{\"dtype\":\"F32\",\"shape\":[2,1],\"data_offsets\":[9,17]},"
        "\"none\":{\"dtype\":\"I64\",\"shape\":[0,5],\"data_offsets\":[9,9]},"
        "\"a\":{\"dtype\":\"U8\",\"shape\":[9],\"data_offsets\":[0,9]},"
        "\"s\":{\"dtype\":\"F16\",\"shape\":[],\"data_offsets\":[17,19]}}",
        19);
    struct weights weights;
    assert_int_equal(
        weights_parse_safetensors(blob.bytes, blob.size, &weights, error, sizeof error), 0);
    assert_int_equal(weights.count, 4);
    assert_string_equal(weights.tensors[0].name, "b");
    const struct weights_tensor *b = weights_find(&weights, "b");
    assert_ptr_equal(b, &weights.tensors[0]);
    assert_int_equal(b->rank, 2);
    assert_int_equal(b->elements, 2);
    assert_int_equal(b->bytes, 8);
    assert_int_equal(*(const unsigned char *)b->data, 9);
    assert_int_equal(weights_find(&weights, "none")->elements, 0);
    assert_int_equal(weights_find(&weights, "s")->elements, 1);
    assert_null(weights_find(&weights, "__metadata__"));
    float values[9];
    assert_int_equal(weights_to_f32(weights_find(&weights, "a"), values), -EINVAL);
    assert_int_equal(weights_to_f32(b, values), 0); /* unaligned */
    weights_close(&weights);
    assert_null(weights.tensors);
    free(blob.bytes);
}

#define ONE(dtype, shape, offsets)                                                                 \
    "{\"a\":{\"dtype\":" dtype ",\"shape\":" shape ",\"data_offsets\":" offsets "}}"

static void test_bad_safetensors(void **state)
{
    static const struct {
        const char *header;
        size_t data;
        const char *words;
    } cases[] = {
        {"[]", 0, "not a JSON object"},
        {"{\"a\"", 0, "not a JSON object"},
        {"{}", 0, "no tensor"},
        {"{\"__metadata__\":{}}", 0, "no tensor"},
        {"{\"__metadata__\":{\"a\":1}}", 0, "__metadata__"},
        {"{\"__metadata__\":[]}", 0, "__metadata__"},
        {ONE("\"F32\"", "[1]", "[0,4]") " x", 4, "not a JSON object"},
        {ONE("\"F32\"", "[1]", "[0,4]"), 5, "1 bytes behind"},
        {ONE("\"F32\"", "[1]", "[0,4]"), 3, "outside"},
        {ONE("\"F32\"", "[2]", "[0,4]"), 4, "do not make"},
        {ONE("\"F32\"", "[1]", "[4,0]"), 4, "outside"},
        {ONE("\"F32\"", "[1]", "[1,5]"), 5, "follows a gap"},
        {ONE("\"F32\"", "[1]", "[-4,0]"), 4, "whole numbers"},
        {ONE("\"F32\"", "[1]", "[0,4.0]"), 4, "whole numbers"},
        {ONE("\"F32\"", "[1]", "[0]"), 4, "whole numbers"},
        {ONE("\"F32\"", "[1]", "4"), 4, "whole numbers"},
        {ONE("\"F32\"", "[1]", "[0,18446744073709551616]"), 4, "not a JSON object"},
        {ONE("\"F32\"", "[-1]", "[0,4]"), 4, "dimension"},
        {ONE("\"F32\"", "[1.5]", "[0,4]"), 4, "dimension"},
        {ONE("\"F32\"", "1", "[0,4]"), 4, "shape"},
        {ONE("\"F32\"", "[1,1,1,1,1,1,1,1,1]", "[0,4]"), 4, "shape"},
        {ONE("\"F32\"", "[4294967296,4294967296]", "[0,4]"), 4, "too large"},
        {ONE("\"F32\"", "[4611686018427387904]", "[0,0]"), 0, "do not make"},
        {ONE("\"F8_E4M3\"", "[4]", "[0,4]"), 4, "F8_E4M3"},
        {ONE("\"f32\"", "[1]", "[0,4]"), 4, "f32"},
        {ONE("32", "[1]", "[0,4]"), 4, "exactly"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "exactly"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"more\":1}}", 4,
         "exactly"},
        {"{\"a\":7}", 0, "exactly"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]},"
         "\"b\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[2,5]}}",
         5, "overlaps"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]},"
         "\"b\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]}}",
         3, "overlaps"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
         "\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
         1, "duplicate"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct blob blob = safetensors(cases[i].header, cases[i].data);
        struct weights weights;
        int rc = weights_parse_safetensors(blob.bytes, blob.size, &weights, error, sizeof error);
        if (rc != -EBADMSG || !strstr(error, cases[i].words))
            fail_msg("%s: %d, \"%s\"", cases[i].header, rc, error);
        free(blob.bytes);
    }
}

static void test_lying_header_length(void **state)
{
    static const uint64_t lengths[] = {1000, UINT64_MAX, UINT64_MAX - 7, 1ull << 63, 100000000};
    (void)state;
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        struct blob blob = safetensors(ONE("\"F32\"", "[1]", "[0,4]"), 4);
        memcpy(blob.bytes, &lengths[i], 8);
        struct weights weights;
        assert_int_equal(
            weights_parse_safetensors(blob.bytes, blob.size, &weights, error, sizeof error),
            -EBADMSG);
        assert_non_null(strstr(error, "claims"));
        free(blob.bytes);
    }
}

/* A file cut anywhere is refused, whatever the length. */
static void test_truncated_safetensors(void **state)
{
    (void)state;
    struct blob whole = safetensors(ONE("\"F32\"", "[3]", "[0,12]"), 12);
    for (size_t size = 0; size < whole.size; size++) {
        unsigned char *cut = malloc(size + 1);
        assert_non_null(cut);
        memcpy(cut, whole.bytes, size);
        struct weights weights;
        assert_int_equal(weights_parse_safetensors(cut, size, &weights, error, sizeof error),
                         -EBADMSG);
        free(cut);
    }
    free(whole.bytes);
}

/* ---- conversion ---- */

static void test_conversion(void **state)
{
    static const uint16_t halves[] = {0x3c00, 0xbc01, 0x0001, 0x83ff, 0x7bff, 0x8000, 0x7c00};
    static const float as_half[] = {1.0f,     -1.0009765625f, 0x1p-24f, -0x3ffp-24f,
                                    65504.0f, -0.0f,          INFINITY};
    static const uint16_t brains[] = {0x3f80, 0xc049, 0x0001, 0xff80};
    static const float as_brain[] = {1.0f, -3.140625f, 0x1p-133f, -INFINITY};
    static const double doubles[] = {0.1, -1e300};
    float out[8];
    (void)state;
    struct weights_tensor tensor = {.dtype = WEIGHTS_F16, .elements = 7, .data = halves};
    assert_int_equal(weights_to_f32(&tensor, out), 0);
    assert_memory_equal(out, as_half, sizeof as_half);
    tensor = (struct weights_tensor){.dtype = WEIGHTS_BF16, .elements = 4, .data = brains};
    assert_int_equal(weights_to_f32(&tensor, out), 0);
    assert_memory_equal(out, as_brain, sizeof as_brain);
    tensor = (struct weights_tensor){.dtype = WEIGHTS_F64, .elements = 2, .data = doubles};
    assert_int_equal(weights_to_f32(&tensor, out), 0);
    assert_true(out[0] == 0.1f && out[1] == -INFINITY);
    static const enum weights_dtype integers[] = {WEIGHTS_I64, WEIGHTS_I32, WEIGHTS_I16,
                                                  WEIGHTS_I8,  WEIGHTS_U8,  WEIGHTS_BOOL};
    for (size_t i = 0; i < sizeof integers / sizeof *integers; i++) {
        tensor.dtype = integers[i];
        assert_int_equal(weights_to_f32(&tensor, out), -EINVAL);
    }
}

/* ---- .pth ---- */

struct member {
    const char *name;
    const void *bytes;
    size_t size;
    int compression; /* ZIP_CM_STORE or ZIP_CM_DEFLATE */
};

static struct blob make_zip(const struct member *members, size_t count)
{
    zip_error_t problem;
    zip_error_init(&problem);
    zip_source_t *target = zip_source_buffer_create(NULL, 0, 0, &problem);
    zip_t *zip = zip_open_from_source(target, ZIP_TRUNCATE, &problem);
    assert_non_null(zip);
    zip_source_keep(target);
    for (size_t i = 0; i < count; i++) {
        zip_source_t *source = zip_source_buffer(zip, members[i].bytes, members[i].size, 0);
        zip_int64_t index = zip_file_add(zip, members[i].name, source, 0);
        assert_true(index >= 0);
        assert_int_equal(
            zip_set_file_compression(zip, (zip_uint64_t)index, members[i].compression, 0), 0);
    }
    assert_int_equal(zip_close(zip), 0);
    zip_stat_t status;
    assert_int_equal(zip_source_stat(target, &status), 0);
    struct blob blob = {.bytes = malloc((size_t)status.size), .size = (size_t)status.size};
    assert_non_null(blob.bytes);
    assert_int_equal(zip_source_open(target), 0);
    assert_int_equal(zip_source_read(target, blob.bytes, blob.size), (zip_int64_t)blob.size);
    zip_source_close(target);
    zip_source_free(target);
    return blob;
}

static const float numbers[6] = {0.0f, 1.0f, 2.0f, 3.0f, 4.0f, 5.0f};

/* {"w": tensor} with one storage of six floats. */
static struct blob make_pth(const struct tensor_text *tensor, int compression, const char *order)
{
    struct pickle_text p = {.size = 0};
    PUT(&p, "\x80\x02}");
    put_text(&p, "w");
    put_tensor(&p, tensor);
    PUT(&p, "s.");
    const struct member members[] = {
        {"x/data.pkl", p.bytes, p.size, compression},
        {"x/data/0", numbers, sizeof numbers, compression},
        {"x/byteorder", order, strlen(order), ZIP_CM_STORE},
    };
    return make_zip(members, 3);
}

static void expect_values(const struct blob *blob, const float *want, size_t count)
{
    struct weights weights;
    float out[8];
    if (weights_parse_pth(blob->bytes, blob->size, &weights, error, sizeof error) < 0)
        fail_msg("%s", error);
    assert_int_equal(weights.count, 1);
    assert_int_equal(weights.tensors[0].elements, count);
    assert_int_equal(weights_to_f32(&weights.tensors[0], out), 0);
    assert_memory_equal(out, want, count * sizeof *want);
    weights_close(&weights);
}

static void expect_refusal(const struct blob *blob, const char *words)
{
    struct weights weights;
    assert_int_equal(weights_parse_pth(blob->bytes, blob->size, &weights, error, sizeof error),
                     -EBADMSG);
    if (!strstr(error, words))
        fail_msg("expected \"%s\" in \"%s\"", words, error);
}

static void test_strides_and_offsets(void **state)
{
    static const struct {
        struct tensor_text tensor;
        float want[6];
        size_t count;
    } cases[] = {
        {{"FloatStorage", "0", 6, 0, 2, {2, 3}, {3, 1}}, {0, 1, 2, 3, 4, 5}, 6},
        {{"FloatStorage", "0", 6, 0, 2, {3, 2}, {1, 3}}, {0, 3, 1, 4, 2, 5}, 6},
        {{"FloatStorage", "0", 6, 2, 1, {2}, {3}}, {2, 5}, 2},
        {{"FloatStorage", "0", 6, 4, 1, {2}, {1}}, {4, 5}, 2},
        {{"FloatStorage", "0", 6, 5, 0, {0}, {0}}, {5}, 1},
        {{"FloatStorage", "0", 6, 3, 3, {1, 2, 1}, {99, 1, 77}}, {3, 4}, 2},
        {{"FloatStorage", "0", 6, 1, 2, {2, 2}, {0, 4}}, {1, 5, 1, 5}, 4},
        {{"FloatStorage", "0", 6, 0, 2, {0, 7}, {7, 1}}, {0}, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct blob blob = make_pth(&cases[i].tensor, ZIP_CM_STORE, "little");
        expect_values(&blob, cases[i].want, cases[i].count);
        free(blob.bytes);
        blob = make_pth(&cases[i].tensor, ZIP_CM_DEFLATE, "little");
        expect_values(&blob, cases[i].want, cases[i].count);
        free(blob.bytes);
    }
}

static void test_big_endian(void **state)
{
    (void)state;
    const struct tensor_text tensor = {"IntStorage", "0", 6, 1, 1, {2}, {1}};
    struct blob blob = make_pth(&tensor, ZIP_CM_STORE, "big");
    struct weights weights;
    assert_int_equal(weights_parse_pth(blob.bytes, blob.size, &weights, error, sizeof error), 0);
    static const unsigned char swapped[] = {0x3f, 0x80, 0, 0, 0x40, 0, 0, 0};
    assert_int_equal(weights.tensors[0].bytes, sizeof swapped);
    assert_memory_equal(weights.tensors[0].data, swapped, sizeof swapped);
    weights_close(&weights);
    free(blob.bytes);
    blob = make_pth(&tensor, ZIP_CM_STORE, "middle");
    expect_refusal(&blob, "byte order");
    free(blob.bytes);
}

static void test_tensors_outside_their_storage(void **state)
{
    static const struct {
        struct tensor_text tensor;
        const char *words;
    } cases[] = {
        {{"FloatStorage", "0", 6, 0, 1, {7}, {1}}, "past the end"},
        {{"FloatStorage", "0", 6, 5, 1, {2}, {1}}, "past the end"},
        {{"FloatStorage", "0", 6, 7, 1, {0}, {1}}, "past the end"},
        {{"FloatStorage", "0", 600, 0, 1, {7}, {1}}, "past the end"},
        {{"FloatStorage", "0", 3, 0, 1, {4}, {1}}, "past the end"},
        {{"DoubleStorage", "0", 6, 0, 1, {4}, {1}}, "past the end"},
        {{"FloatStorage", "0", 6, 0, 2, {2, 2}, {2147483647, 2147483647}}, "past the end"},
        {{"FloatStorage", "0", 6, 0, 4, {65536, 65536, 65536, 65536}, {0, 0, 0, 0}}, "too large"},
        {{"FloatStorage", "0", 6, 0, 2, {65536, 65536}, {0, 0}}, "larger than a file"},
        {{"FloatStorage", "0", 6, -1, 1, {1}, {1}}, "no whole number"},
        {{"FloatStorage", "0", 6, 0, 1, {-1}, {1}}, "no whole number"},
        {{"FloatStorage", "0", 6, 5, 1, {2}, {-1}}, "no whole number"},
        {{"FloatStorage", "0", -6, 0, 1, {1}, {1}}, "without a size"},
        {{"FloatStorage", "1", 6, 0, 1, {1}, {1}}, "missing"},
        {{"FloatStorage", "../data.pkl", 6, 0, 1, {1}, {1}}, "missing"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct blob blob = make_pth(&cases[i].tensor, ZIP_CM_STORE, "little");
        expect_refusal(&blob, cases[i].words);
        free(blob.bytes);
    }
}

static void put_pair(struct pickle_text *p, const char *name)
{
    const struct tensor_text tensor = {"FloatStorage", "0", 6, 0, 1, {1}, {1}};
    put_text(p, name);
    put_tensor(p, &tensor);
}

static struct blob zip_pickle(const struct pickle_text *p)
{
    const struct member members[] = {
        {"x/data.pkl", p->bytes, p->size, ZIP_CM_STORE},
        {"x/data/0", numbers, sizeof numbers, ZIP_CM_STORE},
    };
    return make_zip(members, 2);
}

/* {"epoch": 3, "state_dict": {"model_state_dict": {"mask": [], "w": tensor}}, "ema": {"w": tensor}}
 */
static void test_wrappers(void **state)
{
    (void)state;
    struct pickle_text p = {.size = 0};
    PUT(&p, "\x80\x02}(");
    put_text(&p, "epoch");
    PUT(&p, "K\x03");
    put_text(&p, "state_dict");
    PUT(&p, "}");
    put_text(&p, "model_state_dict");
    PUT(&p, "}(");
    put_text(&p, "mask");
    PUT(&p, "]");
    put_pair(&p, "w");
    PUT(&p, "us");
    put_text(&p, "ema");
    PUT(&p, "}");
    put_pair(&p, "v");
    PUT(&p, "su.");
    struct blob blob = zip_pickle(&p);
    struct weights weights;
    assert_int_equal(weights_parse_pth(blob.bytes, blob.size, &weights, error, sizeof error), 0);
    assert_int_equal(weights.count, 1);
    assert_string_equal(weights.tensors[0].name, "w");
    weights_close(&weights);
    free(blob.bytes);
}

/* {"epoch": 3, "unet": {"w": tensor}, "optimizer": {"state": {"w": tensor}}}; with a second such
 * entry nobody can say which one is meant. */
static void test_the_only_dict_with_tensors_is_the_state_dict(void **state)
{
    (void)state;
    struct pickle_text p = {.size = 0};
    PUT(&p, "\x80\x02}(");
    put_text(&p, "epoch");
    PUT(&p, "K\x03");
    put_text(&p, "unet");
    PUT(&p, "}");
    put_pair(&p, "w");
    PUT(&p, "s");
    put_text(&p, "optimizer");
    PUT(&p, "}");
    put_text(&p, "state");
    PUT(&p, "}");
    put_pair(&p, "m");
    PUT(&p, "ss");
    struct pickle_text two = p;
    PUT(&p, "u.");
    struct blob blob = zip_pickle(&p);
    struct weights weights;
    assert_int_equal(weights_parse_pth(blob.bytes, blob.size, &weights, error, sizeof error), 0);
    assert_int_equal(weights.count, 1);
    assert_string_equal(weights.tensors[0].name, "w");
    weights_close(&weights);
    free(blob.bytes);
    put_text(&two, "ema");
    PUT(&two, "}");
    put_pair(&two, "v");
    PUT(&two, "su.");
    blob = zip_pickle(&two);
    expect_refusal(&blob, "no state dict");
    free(blob.bytes);
}

static void test_pickles_without_a_state_dict(void **state)
{
    (void)state;
    struct pickle_text number = {.size = 0};
    PUT(&number, "\x80\x02K\x01.");
    struct blob blob = zip_pickle(&number);
    expect_refusal(&blob, "no state dict");
    free(blob.bytes);
    struct pickle_text own = {.size = 0}; /* d = {}; d["model"] = d */
    PUT(&own, "\x80\x02}q\x00");
    put_text(&own, "model");
    PUT(&own, "h\x00s.");
    blob = zip_pickle(&own);
    expect_refusal(&blob, "no state dict");
    free(blob.bytes);
    struct pickle_text twice = {.size = 0};
    PUT(&twice, "\x80\x02}(");
    put_pair(&twice, "w");
    put_pair(&twice, "w");
    PUT(&twice, "u.");
    blob = zip_pickle(&twice);
    expect_refusal(&blob, "twice");
    free(blob.bytes);
    struct pickle_text system = {.size = 0};
    PUT(&system, "\x80\x02");
    put_global(&system, "os", "system");
    PUT(&system, "(");
    put_text(&system, "false");
    PUT(&system, "tR.");
    blob = zip_pickle(&system);
    expect_refusal(&blob, "refused: the pickle names os.system");
    free(blob.bytes);
}

static void test_bad_zips(void **state)
{
    (void)state;
    const struct member other[] = {{"readme.txt", "hello", 5, ZIP_CM_STORE}};
    struct blob blob = make_zip(other, 1);
    expect_refusal(&blob, "without data.pkl");
    free(blob.bytes);
    struct blob rubbish = {.bytes = (unsigned char *)(uintptr_t) "PK\x03\x04 and no more",
                           .size = 16};
    expect_refusal(&rubbish, "damaged zip");
    /* A bomb: 64 MiB of zeros in some 64 KiB. */
    size_t huge = (size_t)64 << 20;
    void *zeros = calloc(huge, 1);
    assert_non_null(zeros);
    const struct member bomb[] = {{"x/data.pkl", zeros, huge, ZIP_CM_DEFLATE}};
    blob = make_zip(bomb, 1);
    free(zeros);
    expect_refusal(&blob, "more than a file of this size can hold");
    free(blob.bytes);
    /* A flipped byte in a storage: the checksum tells. */
    const struct tensor_text tensor = {"FloatStorage", "0", 6, 0, 1, {6}, {1}};
    blob = make_pth(&tensor, ZIP_CM_STORE, "little");
    unsigned char *at = memmem(blob.bytes, blob.size, numbers, sizeof numbers);
    assert_non_null(at);
    at[5] ^= 1;
    expect_refusal(&blob, "cannot be unpacked");
    free(blob.bytes);
}

/* ---- files ---- */

static void expect_open(const char *path, int rc, const char *words)
{
    struct weights weights;
    int got = weights_open(path, &weights, error, sizeof error);
    if (got != rc || !strstr(error, words) || !strstr(error, path))
        fail_msg("%s: %d, \"%s\"", path, got, error);
}

/* A wrong file is called what it is. */
static void test_mistaken_files_are_named(void **state)
{
    static const char *const cases[][2] = {
        {"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>\n", "this is an HTML page"},
        {"<html><head></head></html>\n", "this is an HTML page"},
        {"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "git lfs pull"},
        {"\x1f\x8b\x08 and more of a gzip file", "a gzip file"},
        {"\x93NUMPY\x01 and more of an array", "an npy array"},
        {"\x89HDF\r\n\x1a\n and more", "an HDF5 file"},
        {"GGUF and more of it", "a GGUF file"},
        {"these are no weights at all", "neither a safetensors file nor a zip"},
    };
    (void)state;
    char path[] = "/tmp/test-weights-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t length = strlen(cases[i][0]);
        assert_int_equal(ftruncate(fd, 0), 0);
        assert_int_equal(pwrite(fd, cases[i][0], length, 0), (ssize_t)length);
        expect_open(path, -EBADMSG, cases[i][1]);
    }
    close(fd);
    unlink(path);
}

static void test_files_that_are_refused(void **state)
{
    (void)state;
    expect_open(GOLDENS "nothing.pth", -ENOENT, "No such file");
    expect_open("tests/goldens", -EISDIR, "directory");
    expect_open("/dev/null", -EBADMSG, "no regular file");
    expect_open(GOLDENS "refused_module.pth", -EBADMSG, "refused: the pickle names __main__.Whole");
    expect_open(GOLDENS "refused_module.pth", -EBADMSG, "state_dict()");
    expect_open(GOLDENS "refused_legacy.pth", -EBADMSG, "before 1.6");
    expect_open(GOLDENS "refused_torchscript.pth", -EBADMSG, "TorchScript");
    expect_open(GOLDENS "cbr.logits.npy", -EBADMSG, "this is an npy array");
}

static void test_content_decides_not_the_suffix(void **state)
{
    (void)state;
    char path[] = "/tmp/test_weights_XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    struct blob blob = safetensors(ONE("\"F32\"", "[1]", "[0,4]"), 4);
    assert_int_equal(write(fd, blob.bytes, blob.size), (ssize_t)blob.size);
    close(fd);
    free(blob.bytes);
    struct weights weights;
    int rc = weights_open(path, &weights, error, sizeof error);
    unlink(path);
    assert_int_equal(rc, 0);
    assert_int_equal(weights.count, 1);
    weights_close(&weights);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_safetensors),
        cmocka_unit_test(test_bad_safetensors),
        cmocka_unit_test(test_lying_header_length),
        cmocka_unit_test(test_truncated_safetensors),
        cmocka_unit_test(test_conversion),
        cmocka_unit_test(test_strides_and_offsets),
        cmocka_unit_test(test_big_endian),
        cmocka_unit_test(test_tensors_outside_their_storage),
        cmocka_unit_test(test_wrappers),
        cmocka_unit_test(test_the_only_dict_with_tensors_is_the_state_dict),
        cmocka_unit_test(test_pickles_without_a_state_dict),
        cmocka_unit_test(test_bad_zips),
        cmocka_unit_test(test_mistaken_files_are_named),
        cmocka_unit_test(test_files_that_are_refused),
        cmocka_unit_test(test_content_decides_not_the_suffix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
