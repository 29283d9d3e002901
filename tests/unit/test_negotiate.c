/* Header fields, keys and routes: pure functions of text. */
#include "gateway/negotiate.h"
#include "gateway/routes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct unetserve_interface tensors = {.input_kind = UNETSERVE_TENSOR,
                                             .output_kind = UNETSERVE_TENSOR};
static struct unetserve_interface documents = {.input_kind = UNETSERVE_DOCUMENT,
                                               .output_kind = UNETSERVE_DOCUMENT};

static void test_format(void **state)
{
    (void)state;
    static const struct {
        const char *type;
        int format; /* -1: 415 */
    } cases[] = {
        {NULL, BODY_JSON},
        {"", BODY_JSON},
        {"application/json", BODY_JSON},
        {"APPLICATION/JSON ; charset=utf-8", BODY_JSON},
        {"application/geo+json", BODY_JSON},
        {"text/plain", BODY_JSON},
        {"application/x-npy", BODY_NPY},
        {"application/x-npy;v=1", BODY_NPY},
        {"application/octet-stream", BODY_RAW},
        {"application/octet-streams", -1},
        {"image/tiff", BODY_FILE},
        {"Image/PNG; x=y", BODY_FILE},
        {"image/jpeg", -1},
        {"multipart/form-data; boundary=x", BODY_MULTIPART},
        {"+json", -1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct problem problem = {0};
        enum body_format format = BODY_DOCUMENT;
        int refused = negotiate_format(&tensors, cases[i].type, &format, &problem);
        assert_int_equal(refused ? -1 : (int)format, cases[i].format);
        assert_int_equal(problem.status, refused ? 415 : 0);
        if (refused)
            assert_non_null(strstr(problem.body, "application/x-npy"));
    }
}

static void test_document_format(void **state)
{
    (void)state;
    static const struct {
        const char *type;
        enum body_format format;
    } cases[] = {
        {NULL, BODY_DOCUMENT},
        {"application/json", BODY_DOCUMENT},
        {"image/png", BODY_DOCUMENT},
        {"application/x-www-form-urlencoded", BODY_URLENCODED},
        {"multipart/form-data", BODY_MULTIPART},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct problem problem;
        enum body_format format = BODY_JSON;
        assert_int_equal(negotiate_format(&documents, cases[i].type, &format, &problem), 0);
        assert_int_equal(format, cases[i].format);
    }
}

static void test_accept(void **state)
{
    (void)state;
    static const struct {
        const char *accept;
        int form; /* -1: 406 */
    } cases[] = {
        {NULL, JOB_JSON},
        {"", JOB_JSON},
        {" , ", JOB_JSON},
        {"*/*", JOB_JSON},
        {"application/*", JOB_JSON},
        {"image/*", JOB_PNG},
        {"image/png", JOB_PNG},
        {"IMAGE/PNG", JOB_PNG},
        {"application/x-npy", JOB_NPY},
        {"image/png, application/json", JOB_PNG},
        {"application/json, image/png", JOB_JSON},
        {"application/json;q=0.5, image/png;q=0.7", JOB_PNG},
        {"application/json; q=0.5 ,image/png ; q=0.7", JOB_PNG},
        {"image/png;q=0.2, */*;q=0.1", JOB_PNG},
        {"*/*, image/png", JOB_PNG},
        {"text/html,application/xhtml+xml,*/*;q=0.8", JOB_JSON},
        {"application/json;q=0, */*", JOB_NPY},
        {"application/*;q=0, */*;q=0.1", JOB_PNG},
        {"image/png;q=0.001, application/x-npy;q=0.0", JOB_PNG},
        {"image/png;q=1.000", JOB_PNG},
        {"image/png;level=1;q=0.3, application/x-npy;q=0.4", JOB_NPY},
        {"image/png;q=nonsense", JOB_PNG},
        {"text/html", -1},
        {"application/json;q=0", -1},
        {"image/pngx", -1},
        {"*/*;q=0", -1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct problem problem = {0};
        enum job_form form = JOB_TENSOR;
        int refused = negotiate_form(&tensors, cases[i].accept, &form, &problem);
        if ((refused ? -1 : (int)form) != cases[i].form)
            fail_msg("Accept: %s gave %d", cases[i].accept, refused ? -1 : (int)form);
        assert_int_equal(problem.status, refused ? 406 : 0);
    }
    struct problem problem;
    enum job_form form = JOB_TENSOR;
    assert_int_equal(negotiate_form(&documents, "text/html", &form, &problem), 0);
    assert_int_equal(form, JOB_JSON);
}

static void test_priority(void **state)
{
    (void)state;
    struct problem problem = {0};
    static const struct {
        const char *text;
        int32_t most, priority;
    } good[] = {{NULL, 0, 0}, {"0", 0, 0}, {"-9 ", 0, -9},
                {"-0", 0, 0}, {"9", 9, 9}, {"3\t", 3, 3}};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        int32_t priority = 77;
        assert_int_equal(negotiate_priority(good[i].text, good[i].most, &priority, &problem), 0);
        assert_int_equal(priority, good[i].priority);
    }
    static const char *const bad[] = {"", "-", "+1", "10", "-10", "1.0", "x", " 1", "--1", "1-"};
    int32_t priority = 77;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(negotiate_priority(bad[i], 9, &priority, &problem), -1);
        assert_int_equal(problem.status, 400);
    }
    assert_int_equal(negotiate_priority("4", 3, &priority, &problem), -1);
    assert_int_equal(problem.status, 403);
    assert_int_equal(priority, 77);
}

static void test_timeout(void **state)
{
    (void)state;
    struct problem problem = {0};
    uint64_t timeout_ms = 7;
    assert_int_equal(negotiate_timeout(NULL, &timeout_ms, &problem), 0);
    assert_int_equal(timeout_ms, 0);
    assert_int_equal(negotiate_timeout("1", &timeout_ms, &problem), 0);
    assert_int_equal(timeout_ms, 1);
    assert_int_equal(negotiate_timeout("86400000 \t", &timeout_ms, &problem), 0);
    assert_int_equal(timeout_ms, 86400000);
    static const char *const bad[] = {"",
                                      "0",
                                      "-1",
                                      "+1",
                                      "1.5",
                                      "1e3",
                                      " 1",
                                      "1 1",
                                      "0x10",
                                      "86400001",
                                      "999999999999999999999"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        problem.status = 0;
        assert_int_equal(negotiate_timeout(bad[i], &timeout_ms, &problem), -1);
        assert_int_equal(problem.status, 400);
    }
    assert_int_equal(timeout_ms, 86400000);
}

static void test_request_id(void **state)
{
    (void)state;
    char id[64], other[64], longest[64], too_long[65];
    memset(longest, 'x', 63);
    longest[63] = '\0';
    memset(too_long, 'x', 64);
    too_long[64] = '\0';
    negotiate_request_id("job-17/b ", id);
    assert_string_equal(id, "job-17/b");
    negotiate_request_id("job-17/b", id);
    assert_string_equal(id, "job-17/b");
    negotiate_request_id(longest, id);
    assert_string_equal(id, longest);
    const char *const bad[] = {NULL, "", "a b", "a\"b", "a\r\nX: b", "\xc3\xa4", too_long};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        negotiate_request_id(bad[i], id);
        negotiate_request_id(bad[i], other);
        assert_int_equal(strspn(id, "0123456789abcdef"), 32);
        assert_int_equal(strlen(id), 32);
        assert_string_not_equal(id, other);
    }
}

static void test_routes(void **state)
{
    (void)state;
    static struct config config;
    config.model_count = 2;
    snprintf(config.models[0].route, sizeof config.models[0].route, "%s", "/predict");
    snprintf(config.models[1].route, sizeof config.models[1].route, "%s", "/other");
    struct models models;
    models_init(&models, NULL, &config);
    static const struct {
        const char *method, *path;
        int status; /* 0: found */
        enum route_kind kind;
        uint32_t model;
        const char *allow;
    } cases[] = {
        {"GET", "/", 0, ROUTE_ROOT, 0, NULL},
        {"HEAD", "/health", 0, ROUTE_HEALTH, 0, NULL},
        {"GET", "/info", 0, ROUTE_INFO, 0, NULL},
        {"POST", "/predict", 0, ROUTE_MODEL, 0, NULL},
        {"POST", "/other", 0, ROUTE_MODEL, 1, NULL},
        {"POST", "/", 405, ROUTE_ROOT, 0, "GET, HEAD"},
        {"GET", "/predict", 405, ROUTE_ROOT, 0, "POST"},
        {"get", "/", 405, ROUTE_ROOT, 0, "GET, HEAD"},
        {"GET", "", 404, ROUTE_ROOT, 0, NULL},
        {"GET", "/predict/", 404, ROUTE_ROOT, 0, NULL},
        {"POST", "/PREDICT", 404, ROUTE_ROOT, 0, NULL},
        {"GET", "*", 404, ROUTE_ROOT, 0, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct problem problem = {0};
        struct route route = {ROUTE_ROOT, 0};
        const char *allow = "untouched";
        routes_find(&models, cases[i].method, cases[i].path, &route, &problem, &allow);
        assert_int_equal(problem.status, cases[i].status);
        assert_int_equal(route.kind, cases[i].kind);
        assert_int_equal(route.model, cases[i].model);
        assert_true(cases[i].allow ? allow && strcmp(allow, cases[i].allow) == 0 : !allow);
    }
}

static void test_workers_needed(void **state)
{
    (void)state;
    static const struct {
        const char *devices;
        uint32_t per_device, min, max, needed;
    } cases[] = {
        {"auto", 1, 0, 0, 1}, {"cpu", 3, 0, 0, 3}, {"2", 1, 0, 0, 2},    {"0,2", 2, 0, 0, 4},
        {"auto", 1, 2, 4, 2}, {"3", 2, 1, 4, 1},   {"auto", 0, 0, 0, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        static struct config_model model;
        snprintf(model.devices, sizeof model.devices, "%s", cases[i].devices);
        model.workers_per_device = cases[i].per_device;
        model.workers_min = cases[i].min;
        model.workers_max = cases[i].max;
        assert_int_equal(models_workers_needed(&model), cases[i].needed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_format),   cmocka_unit_test(test_document_format),
        cmocka_unit_test(test_accept),   cmocka_unit_test(test_timeout),
        cmocka_unit_test(test_priority), cmocka_unit_test(test_request_id),
        cmocka_unit_test(test_routes),   cmocka_unit_test(test_workers_needed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
