#include "workers/models/unet/family.h"
#include "workers/models/unet/model_dir.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char error[1024];
static struct model_dir parsed;

static void parse(const char *text)
{
    if (model_dir_parse(text, strlen(text), &parsed, error, sizeof error) < 0)
        fail_msg("%s: %s", text, error);
}

static void test_defaults(void **state)
{
    (void)state;
    parse("{}");
    assert_string_equal(parsed.name, "");
    assert_string_equal(parsed.version, "1");
    assert_string_equal(parsed.family, "");
    assert_string_equal(parsed.precision, "auto");
    assert_string_equal(parsed.convolution, "auto");
    assert_int_equal(parsed.tile, 256);
    assert_int_equal(parsed.in_channels, 0);
    assert_int_equal(parsed.class_count, 0);
    assert_true(parsed.offset == 0.0f && parsed.scale == 10000.0f && parsed.clip);
    assert_true(parsed.clip_low == 0.0f && parsed.clip_high == 1.0f);
}

static void test_every_key(void **state)
{
    (void)state;
    parse("{\"name\": \"fields\", \"version\": \"7b\", \"family\": \"cbr\", \"weights\": \"w.pth\","
          " \"concat\": \"skip_up\","
          " \"in_channels\": 4, \"tile\": 128, \"precision\": \"bf16\", \"convolution\": "
          "\"direct\", \"license\": \"MIT\","
          " \"source\": \"here\", \"preprocess\": {\"offset\": -1000, \"scale\": 2.5,"
          " \"clip\": [-1, 2]}, \"classes\": [\"water\","
          " {\"name\": \"crop\", \"code\": 40, \"color\": \"#F09610\"},"
          " {\"colour\": [1, 2, 3]}]}");
    assert_string_equal(parsed.name, "fields");
    assert_string_equal(parsed.version, "7b");
    assert_string_equal(parsed.family, "cbr");
    assert_string_equal(parsed.concat, "skip_up");
    assert_string_equal(parsed.weights_path, "w.pth");
    assert_int_equal(parsed.in_channels, 4);
    assert_int_equal(parsed.tile, 128);
    assert_string_equal(parsed.precision, "bf16");
    assert_string_equal(parsed.convolution, "direct");
    assert_string_equal(parsed.license, "MIT");
    assert_string_equal(parsed.source, "here");
    assert_true(parsed.offset == -1000.0f && parsed.scale == 2.5f && parsed.clip);
    assert_true(parsed.clip_low == -1.0f && parsed.clip_high == 2.0f);
    assert_int_equal(parsed.class_count, 3);
    assert_string_equal(parsed.classes[0].name, "water");
    assert_int_equal(parsed.classes[0].code, 0);
    assert_string_equal(parsed.classes[1].name, "crop");
    assert_int_equal(parsed.classes[1].code, 40);
    assert_memory_equal(parsed.classes[1].rgb, "\xf0\x96\x10", 3);
    assert_string_equal(parsed.classes[2].name, "class_2");
    assert_int_equal(parsed.classes[2].code, 2);
    assert_memory_equal(parsed.classes[2].rgb, "\x01\x02\x03", 3);
    parse("{\"preprocess\": {\"clip\": null}}");
    assert_false(parsed.clip);
}

static void test_families_agree_with_the_recogniser(void **state)
{
    (void)state;
    for (const char *const *name = family_names(); *name; name++) {
        char text[64];
        snprintf(text, sizeof text, "{\"family\": \"%s\"}", *name);
        parse(text);
        assert_string_equal(parsed.family, *name);
    }
}

static void test_refusals(void **state)
{
    static const char *const cases[][2] = {
        {"", "line 1"},
        {"[]", "not a JSON object"},
        {"{\"name\": \"a\", \"name\": \"b\"}", "duplicate"},
        {"{\"nmae\": \"a\"}", "unknown key \"nmae\""},
        {"{\"name\": 3}", "\"name\" must be a text"},
        {"{\"name\": \"0123456789012345678901234567890123456789012345678901234567890123\"}",
         "longer than 63 bytes"},
        {"{\"name\": \"a\\nb\"}", "\"name\" must be a text without control characters"},
        {"{\"classes\": [\"a\\nb\"]}", "must be a text without control characters"},
        {"{\"family\": \"resnet\"}", "\"family\" must be one of milesial, mateuszbuda"},
        {"{\"concat\": \"both\"}", "\"concat\" must be one of skip_up, up_skip"},
        {"{\"family\": null}", "\"family\" must be one of"},
        {"{\"precision\": \"fp16\"}", "\"precision\" must be one of auto, f32, bf16, f16, int8"},
        {"{\"convolution\": \"fft\"}", "\"convolution\" must be one of auto, direct, winograd"},
        {"{\"in_channels\": 0}", "\"in_channels\" must be a whole number from 1 to 65535"},
        {"{\"in_channels\": 1.5}", "\"in_channels\""},
        {"{\"tile\": -1}", "\"tile\""},
        {"{\"tile\": 99999999999}", "\"tile\""},
        {"{\"weights\": \"../secret.pth\"}", "without \"/\""},
        {"{\"weights\": \"..\"}", "\"weights\""},
        {"{\"weights\": \"\"}", "\"weights\""},
        {"{\"preprocess\": []}", "\"preprocess\" must be an object"},
        {"{\"preprocess\": {\"mean\": 0}}", "preprocess.mean"},
        {"{\"preprocess\": {\"scale\": 0}}", "must not be 0"},
        {"{\"preprocess\": {\"scale\": 1e-60}}", "must not be 0"},
        {"{\"preprocess\": {\"scale\": 1e60}}", "preprocess.scale"},
        {"{\"preprocess\": {\"offset\": \"0\"}}", "preprocess.offset"},
        {"{\"preprocess\": {\"clip\": [0]}}", "preprocess.clip"},
        {"{\"preprocess\": {\"clip\": [1, 0]}}", "preprocess.clip"},
        {"{\"preprocess\": {\"clip\": true}}", "preprocess.clip"},
        {"{\"classes\": []}", "\"classes\""},
        {"{\"classes\": {}}", "\"classes\""},
        {"{\"classes\": [1]}", "names or objects"},
        {"{\"classes\": [{\"id\": 1}]}", "classes[].id"},
        {"{\"classes\": [{\"code\": 65536}]}", "classes[].code"},
        {"{\"classes\": [{\"color\": \"red\"}]}", "classes[].color"},
        {"{\"classes\": [{\"color\": \"#12345\"}]}", "classes[].color"},
        {"{\"classes\": [{\"color\": \"#12345g\"}]}", "classes[].color"},
        {"{\"classes\": [{\"color\": [1, 2, 256]}]}", "classes[].color"},
        {"{\"classes\": [{\"color\": [1, 2]}]}", "classes[].color"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        memset(&parsed, 0x55, sizeof parsed);
        int rc = model_dir_parse(cases[i][0], strlen(cases[i][0]), &parsed, error, sizeof error);
        if (rc != -EBADMSG || !strstr(error, cases[i][1]))
            fail_msg("%s: %d, \"%s\"", cases[i][0], rc, error);
        assert_int_equal(parsed.tile, 0x55555555); /* written on success only */
    }
}

static void test_too_many_classes(void **state)
{
    (void)state;
    char text[8192] = "{\"classes\": [";
    size_t used = strlen(text);
    for (int i = 0; i <= UNETSERVE_MAX_CLASSES; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "%s\"x\"", i ? "," : "");
    snprintf(text + used, sizeof text - used, "]}");
    assert_int_equal(model_dir_parse(text, strlen(text), &parsed, error, sizeof error), -EBADMSG);
    assert_non_null(strstr(error, "1 to 256"));
}

/* ---- directories ---- */

static char directory[64];

static int make_directory(void **state)
{
    (void)state;
    snprintf(directory, sizeof directory, "/tmp/test_model_dir_XXXXXX");
    return mkdtemp(directory) ? 0 : -1;
}

static int remove_directory(void **state)
{
    static const char *const names[] = {"model.json", "a.safetensors", "b.pth"};
    char path[128];
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", directory, names[i]);
        unlink(path);
    }
    return rmdir(directory);
}

static void put_file(const char *name, const char *text)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static int load(const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "%s%s%s", directory, *name ? "/" : "", name);
    error[0] = '\0';
    return model_dir_load(path, &parsed, error, sizeof error);
}

static void expect_weights(const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    assert_string_equal(parsed.weights_path, path);
}

static void test_directory(void **state)
{
    (void)state;
    assert_int_equal(load(""), -ENOENT);
    assert_non_null(strstr(error, "no .safetensors, .pth, .pt or .ckpt"));
    assert_int_equal(load("absent"), -ENOENT);
    put_file("a.safetensors", "x");
    assert_int_equal(load(""), 0);
    expect_weights("a.safetensors");
    assert_string_equal(parsed.name, directory + 5);
    put_file("b.pth", "x");
    assert_int_equal(load(""), -EBADMSG);
    assert_non_null(strstr(error, "2 weights files"));
    put_file("model.json", "{\"weights\": \"b.pth\", \"name\": \"chosen\", \"tile\": 64}");
    assert_int_equal(load(""), 0);
    expect_weights("b.pth");
    assert_string_equal(parsed.name, "chosen");
    assert_int_equal(parsed.tile, 64);
    put_file("model.json", "{\"weights\": \"c.pth\"}");
    assert_int_equal(load(""), -ENOENT);
    assert_non_null(strstr(error, "c.pth"));
    put_file("model.json", "{\"tile\": \"x\"}");
    assert_int_equal(load(""), -EBADMSG);
    assert_non_null(strstr(error, "model.json"));
    assert_non_null(strstr(error, "\"tile\""));
}

static void test_usual_endings(void **state)
{
    static const char *const names[] = {"c.pt", "c.ckpt", "c.pth", "c.safetensors"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[128];
        put_file(names[i], "x");
        assert_int_equal(load(""), 0);
        expect_weights(names[i]);
        assert_int_equal(load(names[i]), 0);
        assert_string_equal(parsed.name, "c");
        snprintf(path, sizeof path, "%s/%s", directory, names[i]);
        assert_int_equal(unlink(path), 0);
    }
}

static void test_weights_file(void **state)
{
    (void)state;
    put_file("a.safetensors", "x");
    put_file("b.pth", "x");
    put_file("model.json", "{\"weights\": \"b.pth\", \"name\": \"chosen\", \"tile\": 64}");
    assert_int_equal(load("b.pth"), 0);
    assert_string_equal(parsed.name, "chosen");
    expect_weights("b.pth");
    assert_int_equal(load("a.safetensors"), 0); /* model.json is about the other one */
    assert_string_equal(parsed.name, "a");
    assert_int_equal(parsed.tile, 256);
    expect_weights("a.safetensors");
    put_file("model.json", "{\"weights\": \"b.pth\", \"tile\": 0}");
    assert_int_equal(load("b.pth"), -EBADMSG);
    assert_non_null(strstr(error, "\"tile\""));
}

static void test_the_demonstration_model(void **state)
{
    (void)state;
    if (model_dir_load("packaging/models/s2-worldcover", &parsed, error, sizeof error) < 0)
        fail_msg("%s", error);
    assert_string_equal(parsed.name, "s2-worldcover");
    assert_string_equal(parsed.version, "1");
    assert_int_equal(parsed.in_channels, 12);
    assert_int_equal(parsed.class_count, 11);
    static const uint16_t codes[] = {10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 100};
    for (size_t i = 0; i < 11; i++)
        assert_int_equal(parsed.classes[i].code, codes[i]);
    assert_string_equal(parsed.license, "CC-BY-SA-4.0");
    assert_int_equal(access(parsed.weights_path, R_OK), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_every_key),
        cmocka_unit_test(test_families_agree_with_the_recogniser),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_too_many_classes),
        cmocka_unit_test_setup_teardown(test_directory, make_directory, remove_directory),
        cmocka_unit_test_setup_teardown(test_usual_endings, make_directory, remove_directory),
        cmocka_unit_test_setup_teardown(test_weights_file, make_directory, remove_directory),
        cmocka_unit_test(test_the_demonstration_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
