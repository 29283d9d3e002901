/* The configuration: what a file may say, what comes of it, and what is said about a wrong one. */
#include "lib/config_address.h"
#include "lib/config_keys.h"
#include "unetserve/config.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct config config, again;
static struct config_error error;

static int parse(const char *text)
{
    config_init(&config);
    error.text[0] = '\0';
    return config_parse(text, strlen(text), "x.conf", &config, &error);
}

static void test_defaults(void **state)
{
    (void)state;
    assert_int_equal(parse(""), 0);
    assert_int_equal(config.listen_count, 1);
    assert_string_equal(config.listen[0], "127.0.0.1:8000");
    assert_int_equal(config.gateways, 1);
    assert_int_equal(config.max_body_bytes, 512 << 20);
    assert_int_equal(config.queue_memory, 0);
    assert_int_equal(config.model_count, 0);
    assert_int_equal(config_validate(&config, &error), -EINVAL);
    assert_non_null(strstr(error.text, "--model"));
}

static void test_whole_file(void **state)
{
    (void)state;
    assert_int_equal(parse("\xef\xbb\xbf# a comment\n"
                           "[server]   ; and another\n"
                           "listen = 127.0.0.1:8001, [::1]:8002   ; two\r\n"
                           "listen = unix:/tmp/a;b\n"
                           "  max_body_bytes = 3G\n"
                           "trusted_proxies = 10.0.0.0/8 fd00::/8\n"
                           "log_format = json\nlog_level = debug\n"
                           "\n[model land-cover]\n"
                           "path=/models/a b.pth\n"
                           "workers = 1-4\nmax_batch_size = 8\nprecision = bf16\ndevices = 0,2\n"
                           "[model other]\npath = x\nmax_batch_size = auto\n"
                           "[model third]\npath = y\nroute = /third/way\nworkers = 3"),
                     0);
    assert_int_equal(config.listen_count, 3);
    assert_string_equal(config.listen[1], "[::1]:8002");
    assert_string_equal(config.listen[2], "unix:/tmp/a;b");
    assert_int_equal(config.max_body_bytes, UINT64_C(3) << 30);
    assert_int_equal(config.trusted_proxy_count, 2);
    assert_string_equal(config.trusted_proxies[1], "fd00::/8");
    assert_int_equal(config.log_format, LOG_FORMAT_JSON);
    assert_int_equal(config.log_level, LOG_LEVEL_DEBUG);
    assert_int_equal(config.model_count, 3);
    assert_string_equal(config.models[0].path, "/models/a b.pth");
    assert_string_equal(config.models[0].route, "/predict");
    assert_int_equal(config.models[0].workers_min, 1);
    assert_int_equal(config.models[0].workers_max, 4);
    assert_int_equal(config.models[0].max_batch_size, 8);
    assert_int_equal(config.models[1].max_batch_size, 0);
    assert_string_equal(config.models[1].route, "/predict/other");
    assert_string_equal(config.models[2].route, "/third/way");
    assert_int_equal(config.models[2].workers_min, 3);
    assert_int_equal(config.models[2].workers_max, 3);
    assert_int_equal(config_validate(&config, &error), 0);
}

/* What is wrong, and what the message must contain. */
static const struct {
    const char *text, *line, *word, *allowed;
} wrong[] = {
    {"[server]\ngateways = auto\n", "x.conf:2: ", "'gateways'", "1 to 64"},
    {"[model a]\nmax_batch_size = automatic\n", "x.conf:2: ", "'max_batch_size'", "auto"},
    {"[model a]\nmax_batch_size = 1025\n", "x.conf:2: ", "'max_batch_size'", "1 to 1024"},
    {"[server]\nspeed = 1\n", "x.conf:2: ", "'speed'", "gateways"},
    {"[model a]\nspeed = 1\n", "x.conf:2: ", "'speed'", "precision"},
    {"[server]\ngateways = 0\n", "x.conf:2: ", "'gateways'", "1 to 64"},
    {"[server]\ngateways = -1\n", "x.conf:2: ", "'gateways'", "1 to 64"},
    {"[server]\ngateways = 1x\n", "x.conf:2: ", "'gateways'", "1 to 64"},
    {"[server]\ngateways = 4294967297\n", "x.conf:2: ", "'gateways'", "1 to 64"},
    {"[server]\ngateways =\n", "x.conf:2: ", "'gateways'", "1 to 64"},
    {"[server]\ngateways = 1\ngateways = 1\n", "x.conf:3: ", "twice", "once"},
    {"[server]\nmax_body_bytes = 1P\n", "x.conf:2: ", "'max_body_bytes'", "1K to 1T"},
    {"[server]\nmax_body_bytes = 99999999999999T\n", "x.conf:2: ", "'max_body_bytes'", "1K to 1T"},
    {"[server]\nlisten = 8000\n", "x.conf:2: ", "'listen'", "unix:/PATH"},
    {"[server]\nlisten = 127.0.0.1:65536\n", "x.conf:2: ", "'listen'", "unix:/PATH"},
    {"[server]\nlisten = unix:relative\n", "x.conf:2: ", "'listen'", "unix:/PATH"},
    {"[server]\nlisten =\n", "x.conf:2: ", "'listen'", "unix:/PATH"},
    {"[server]\nrate_limit = 1.2345\n", "x.conf:2: ", "'rate_limit'", "three decimals"},
    {"[server]\nrate_limit = .5\n", "x.conf:2: ", "'rate_limit'", "10000"},
    {"[server]\nrate_limit = 1.\n", "x.conf:2: ", "'rate_limit'", "10000"},
    {"[server]\nrate_limit = -1\n", "x.conf:2: ", "'rate_limit'", "10000"},
    {"[server]\nrate_limit = 10000.001\n", "x.conf:2: ", "'rate_limit'", "10000"},
    {"[server]\ntrusted_proxies = unix:/run/x\n", "x.conf:2: ", "'trusted_proxies'", "unix:"},
    {"[server]\ntrusted_proxies = 10.0.0.0/33\n", "x.conf:2: ", "'trusted_proxies'", "10.0.0.0/8"},
    {"[server]\nrun_dir = here\n", "x.conf:2: ", "'run_dir'", "absolute"},
    {"[server]\ncache_dir = ../here\n", "x.conf:2: ", "'cache_dir'", "absolute"},
    {"[server]\nlog_level = loud\n", "x.conf:2: ", "'log_level'", "error|warning|info|debug"},
    {"[model a]\npath = x\nprecision = f\n", "x.conf:3: ", "'precision'", "auto|f32"},
    {"[model a]\npath = x\nbatch_timeout_ms = 60000.001\n", "x.conf:3: ", "'batch_timeout_ms'",
     "0 to 60000"},
    {"[model a]\npath = x\nconvolution = fft\n", "x.conf:3: ", "'convolution'",
     "auto|direct|winograd"},
    {"[model a]\npath = x\nengine_timing = yes\n", "x.conf:3: ", "'engine_timing'", "on|off"},
    {"[model a]\npath = x\nbatch_wait = never\n", "x.conf:3: ", "'batch_wait'", "receiving|always"},
    {"[model a]\npath = x\nbatch_timeout_ms = 11\ntimeout_ms = 10\n", "", "'batch_timeout_ms'",
     "less"},
    {"[model a]\npath = x\nworkers = 4-1\n", "x.conf:3: ", "'workers'", "MIN-MAX"},
    {"[model a]\npath = x\nworkers = 1-2-3\n", "x.conf:3: ", "'workers'", "MIN-MAX"},
    {"[model a]\npath = x\ndevices = 1,,2\n", "x.conf:3: ", "'devices'", "auto, cpu"},
    {"[model a]\npath = x\nroute = /v2/a\n", "x.conf:3: ", "'route'", "/metrics"},
    {"[model a]\npath = x\nroute = predict\n", "x.conf:3: ", "'route'", "a path such as"},
    {"[model a]\npath = x\nroute = /p\n[model b]\nroute = /p\npath = y\n", "x.conf:5: ", "'route'",
     "own"},
    {"\n[model a]\n[server]\n", "x.conf:2: ", "'path'", "a file or a directory"},
    {"[model a]\npath = x\n[model a]\n", "x.conf:3: ", "[model a]", "already"},
    {"[model a b]\n", "x.conf:1: ", "a b", "letters"},
    {"[model ]\n", "x.conf:1: ", "[model ]", "letters"},
    {"[other]\n", "x.conf:1: ", "[other]", "[server], [model NAME]"},
    {"[server\n", "x.conf:1: ", "section", "']'"},
    {"[server] x\n", "x.conf:1: ", "comment", "']'"},
    {"a = 1\n", "x.conf:1: ", "'a'", "[server]"},
    {"[server]\n\nwords\n", "x.conf:3: ", "key = value", "[section]"},
};

static void test_errors_name_line_key_and_what_is_allowed(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        int result = parse(wrong[i].text);
        if (result != -EINVAL || strncmp(error.text, wrong[i].line, strlen(wrong[i].line)) != 0 ||
            !strstr(error.text, wrong[i].word) || !strstr(error.text, wrong[i].allowed))
            fail_msg("%s gives %d: %s", wrong[i].text, result, error.text);
    }
}

/* An unknown key's error holds the whole list. */
static void test_unknown_keys_tell_all(void **state)
{
    (void)state;
    static const char *const texts[] = {"[server]\nspeed = 1\n", "[model a]\nspeed = 1\n"};
    for (int of_model = 0; of_model < 2; of_model++) {
        const struct config_key *key;
        assert_int_equal(parse(texts[of_model]), -EINVAL);
        for (size_t i = 0; (key = config_key_at(of_model, i)); i++)
            if (!strstr(error.text, key->name))
                fail_msg("%s is not in %s", key->name, error.text);
    }
}

static void test_failure_changes_nothing(void **state)
{
    (void)state;
    config_init(&config);
    again = config;
    static const char text[] = "[server]\ngateways = 7\n[model a]\npath = x\nbad = 1\n";
    assert_int_equal(config_parse(text, strlen(text), "x", &config, &error), -EINVAL);
    assert_memory_equal(&config, &again, sizeof config);
}

static void test_limits(void **state)
{
    (void)state;
    static char text[1 << 16];
    memset(text, 'a', sizeof text);
    int length = snprintf(text, sizeof text, "[server]\nrun_dir = /");
    text[length] = 'a';
    config_init(&config);
    assert_int_equal(config_parse(text, sizeof text, "x", &config, &error), -EINVAL);
    assert_non_null(strstr(error.text, "x:2: "));
    assert_int_equal(config_parse("[server]\n\0", 10, "x", &config, &error), -EINVAL);
    size_t at = 0;
    for (int i = 0; i <= QUEUE_MAX_MODELS; i++)
        at += (size_t)sprintf(text + at, "[model m%d]\npath = p\n", i);
    assert_int_equal(config_parse(text, at, "x", &config, &error), -EINVAL);
    assert_non_null(strstr(error.text, "too many models"));
}

static void round_trip(void)
{
    static char text[256 << 10];
    long length = config_write(&config, text, sizeof text);
    assert_true(length > 0);
    config_init(&again);
    int result = config_parse(text, (size_t)length, "memfd", &again, &error);
    if (result)
        fail_msg("%s\n%s", error.text, text);
    static char second[256 << 10];
    assert_int_equal(config_write(&again, second, sizeof second), length);
    assert_string_equal(text, second);
    assert_int_equal(again.model_count, config.model_count);
    assert_int_equal(again.rate_limit_milli, config.rate_limit_milli);
    for (uint32_t i = 0; i < config.model_count; i++) {
        assert_string_equal(again.models[i].path, config.models[i].path);
        assert_string_equal(again.models[i].route, config.models[i].route);
        assert_int_equal(again.models[i].workers_max, config.models[i].workers_max);
    }
    assert_int_equal(config_write(&config, text, (size_t)length), -ENOSPC);
    assert_int_equal(config_write(&config, text, 10), -ENOSPC);
}

static void test_batch_timeout_is_a_decimal_or_the_models(void **state)
{
    (void)state;
    assert_int_equal(parse("[model a]\npath = x\nbatch_timeout_ms = 0.5\nbatch_wait = always\n"
                           "[model b]\npath = y\n[model c]\npath = z\nbatch_timeout_ms = 0\n"),
                     0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(config.models[0].batch_timeout_us, 500);
        assert_string_equal(config.models[0].batch_wait, "always");
        assert_int_equal(config.models[1].batch_timeout_us, CONFIG_MODELS_CHOICE);
        assert_string_equal(config.models[1].batch_wait, "receiving");
        assert_string_equal(config.models[1].engine_timing, "on");
        assert_string_equal(config.models[1].convolution, "auto");
        assert_int_equal(config.models[2].batch_timeout_us, 0);
        round_trip();
        config = again;
    }
}

static void test_write_comes_back(void **state)
{
    (void)state;
    config_init(&config);
    round_trip();
    assert_int_equal(
        parse("[server]\nlisten = unix:/a, [::]:1\nqueue_memory = 5M\n"
              "trusted_proxies = 10.0.0.1 unix:\nrate_limit = 2.5\nrate_burst = "
              "7\napi_key_file = /etc/keys\nrun_dir = /r\ncache_dir = /c/d\n"
              "[model one]\npath = /x y/z=1.pth\nworkers = 2-3\nthreads = 2\n"
              "batch_timeout_ms = 5\ntile = 64\nmax_response_bytes = 3M\nbackend = onednn\n"
              "engine_timing = off\nconvolution = winograd\n"
              "sandbox = files\nsandbox_paths = /a b:/c\n"
              "[model two]\npath = q\n"),
        0);
    round_trip();
}

static void test_command_line(void **state)
{
    (void)state;
    config_init(&config);
    assert_int_equal(config_add_model(&config, "a=/x=y/b.pth", &error), 0);
    assert_int_equal(config_add_model(&config, "/models/my net.safetensors", &error), 0);
    assert_int_equal(config_add_model(&config, "/models/s2-worldcover/", &error), 0);
    assert_int_equal(config_add_model(&config, "./dir=1/c.so", &error), 0);
    assert_string_equal(config.models[0].name, "a");
    assert_string_equal(config.models[0].path, "/x=y/b.pth");
    assert_string_equal(config.models[1].name, "my-net");
    assert_string_equal(config.models[2].name, "s2-worldcover");
    assert_string_equal(config.models[3].name, "c");
    assert_string_equal(config.models[3].path, "./dir=1/c.so");
    assert_string_equal(config.models[0].route, "/predict");
    assert_string_equal(config.models[3].route, "/predict/c");
    assert_int_equal(config_add_model(&config, "a=again", &error), -EINVAL);
    assert_int_equal(config_add_model(&config, "b=", &error), -EINVAL);
    assert_int_equal(config_add_model(&config, "b=x ;y", &error), -EINVAL);
    assert_int_equal(config_add_model(&config, "b=x\ny", &error), -EINVAL);
    assert_int_equal(config.model_count, 4);
    assert_int_equal(config_set(&config, "model a", "workers", "2", &error), 0);
    assert_int_equal(config.models[0].workers_min, 2);
    assert_int_equal(config_set(&config, "model b", "workers", "2", &error), -EINVAL);
    assert_int_equal(config_set(&config, "server", "listen", "localhost:0", &error), 0);
    assert_string_equal(config.listen[0], "127.0.0.1:0");
    assert_int_equal(config_set(&config, "server", "listen", "", &error), -EINVAL);
    assert_int_equal(config_set(&config, "server", "path", "x", &error), -EINVAL);
    assert_int_equal(config_set(&config, "client", "path", "x", &error), -EINVAL);
    assert_int_equal(config_validate(&config, &error), 0);
    round_trip();
}

static void test_validate(void **state)
{
    (void)state;
    config_init(&config);
    assert_int_equal(config_add_model(&config, "a=x", &error), 0);
    assert_int_equal(config_set(&config, "model a", "route", "/metrics", &error), 0);
    assert_int_equal(config_validate(&config, &error), -EINVAL);
    assert_int_equal(config_set(&config, "model a", "route", "/metrics2", &error), 0);
    assert_int_equal(config_validate(&config, &error), 0);
    assert_int_equal(config_set(&config, "server", "listen", "127.0.0.1:80,127.0.0.1:80", &error),
                     0);
    assert_int_equal(config_validate(&config, &error), -EINVAL);
    assert_int_equal(config_set(&config, "server", "listen", "127.0.0.1:0,127.0.0.1:0", &error), 0);
    assert_int_equal(config_validate(&config, &error), 0);
    assert_int_equal(config_set(&config, "server", "rate_limit", "0.01", &error), 0);
    assert_int_equal(config.rate_limit_milli, 10);
    assert_int_equal(config_set(&config, "server", "rate_burst", "864", &error), 0);
    assert_int_equal(config_validate(&config, &error), 0);
    assert_int_equal(config_set(&config, "server", "rate_burst", "865", &error), 0);
    assert_int_equal(config_validate(&config, &error), -EINVAL);
    assert_non_null(strstr(error.text, "rate_burst"));
    assert_int_equal(config_set(&config, "server", "rate_limit", "0", &error), 0);
    assert_int_equal(config_validate(&config, &error), 0);
}

static void test_load(void **state)
{
    (void)state;
    char path[] = "/tmp/test_config-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    static const char text[] = "[server]\ngateways = 3\n";
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    config_init(&config);
    assert_int_equal(config_load(path, &config, &error), 0);
    assert_int_equal(config.gateways, 3);
    /* The file position of a shared fd is nobody's. */
    assert_int_equal(config_load_fd(fd, "memfd", &config, &error), 0);
    close(fd);
    unlink(path);
    assert_int_equal(config_load(path, &config, &error), -ENOENT);
    assert_non_null(strstr(error.text, path));
    assert_int_equal(config_load("/tmp", &config, &error), -EISDIR);
}

static void test_addresses(void **state)
{
    (void)state;
    static const char *const good[] = {"0.0.0.0:0", "[::]:65535", "[::1]:1", "unix:/a b"};
    static const char *const bad[] = {"",      ":80",      "1.2.3:80",   "1.2.3.4",  "[::1]",
                                      "::1:8", "[::1:80",  "[x]:80",     "1.2.3.4:", "1.2.3.4:-1",
                                      "unix:", "unix:a/b", "1.2.3.4:1x", "host:80"};
    struct sockaddr_storage address;
    socklen_t length;
    char text[128];
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_int_equal(config_address_parse(good[i], &address, &length), 0);
        assert_int_equal(config_address_format(&address, length, text, sizeof text), 0);
        assert_string_equal(text, good[i]);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(config_address_parse(bad[i], &address, &length), -EINVAL);
    assert_int_equal(config_network_check("::1"), 0);
    assert_int_equal(config_network_check("::/128"), 0);
    assert_int_equal(config_network_check("::/129"), -EINVAL);
    assert_int_equal(config_network_check("a.b"), -EINVAL);
    assert_int_equal(config_network_check("10.0.0.0/"), -EINVAL);
}

/* The table is what the file format is made of: every key can be written as it is read. */
static void test_keys(void **state)
{
    (void)state;
    for (int of_model = 0; of_model < 2; of_model++) {
        const struct config_key *key;
        size_t count = 0;
        while ((key = config_key_at(of_model, count))) {
            assert_ptr_equal(config_key_find(of_model, key->name), key);
            assert_int_equal(config_key_number(of_model, key), count);
            assert_true(strlen(key->allowed) > 0);
            count++;
        }
        assert_true(count > 10 && count <= 64);
        assert_null(config_key_find(of_model, "nonsense"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_whole_file),
        cmocka_unit_test(test_errors_name_line_key_and_what_is_allowed),
        cmocka_unit_test(test_unknown_keys_tell_all),
        cmocka_unit_test(test_failure_changes_nothing),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_batch_timeout_is_a_decimal_or_the_models),
        cmocka_unit_test(test_write_comes_back),
        cmocka_unit_test(test_command_line),
        cmocka_unit_test(test_validate),
        cmocka_unit_test(test_load),
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
