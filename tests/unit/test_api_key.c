/* API keys: lines, files, and what a request is let in by. */
#include "gateway/api_key.h"
#include "gateway/client.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

/* Of the key below, by sha256sum. */
#define KEY    "unetserve_0011223344556677_000102030405060708090a0b0c0d0e0f1011121314151617"
#define DIGEST "eca2f8a8fdd01c13daf140549cb88c287a209a6d6fa5de198acbc0c935760d9e"
#define LINE   "sha256:0011223344556677:" DIGEST

static const char *refusal(const char *line)
{
    struct api_key key = {.name = "untouched"};
    const char *why = NULL;
    assert_int_equal(api_key_line_read(line, &key, &why), -EINVAL);
    assert_string_equal(key.name, "untouched");
    assert_non_null(why);
    return why;
}

static void test_lines(void **state)
{
    (void)state;
    struct api_key key;
    const char *why;
    assert_int_equal(api_key_line_read("alice " LINE, &key, &why), 0);
    assert_string_equal(key.name, "alice");
    assert_false(key.has_rate);
    assert_string_equal(key.models, "");
    assert_int_equal(api_key_line_read(
                         "a.b-c_d@e\t " LINE " models=x,land-cover  rate=2.5 burst=10", &key, &why),
                     0);
    assert_true(key.has_rate);
    assert_int_equal(key.rate_milli, 2500);
    assert_int_equal(key.burst, 10);
    assert_string_equal(key.models, "x,land-cover");
    assert_int_equal(key.priority, 0);
    assert_int_equal(api_key_line_read("a " LINE " priority=9 models=x", &key, &why), 0);
    assert_int_equal(key.priority, 9);

    /* Plain keys may hold spaces, as they always could. */
    assert_int_equal(api_key_line_read("open sesame", &key, &why), 0);
    assert_string_equal(key.name, "");
    assert_int_equal(api_key_line_read("alice rate=1", &key, &why), 0);
    assert_string_equal(key.name, "");

    static const char *const wrong[] = {
        LINE,
        "a sha256:",
        "a sha256:0011223344556677:",
        "a sha256:0011223344556677:" DIGEST "0",
        "a sha256:001122334455667:0" DIGEST,
        "a sha256:001122334455667g:" DIGEST,
        "a/b " LINE,
        "a " LINE " rate=",
        "a " LINE " rate=-1",
        "a " LINE " rate=1.2345",
        "a " LINE " rate=10001",
        "a " LINE " rate=1 rate=1",
        "a " LINE " burst=1",
        "a " LINE " rate=1 burst=x",
        "a " LINE " rate=1 burst=1 burst=1",
        "a " LINE " models=",
        "a " LINE " models=a,,b",
        "a " LINE " models=,a",
        "a " LINE " models=a,",
        "a " LINE " models=a models=b",
        "a " LINE " model=a",
        "a " LINE " priority=0",
        "a " LINE " priority=10",
        "a " LINE " priority=-1",
        "a " LINE " priority=1 priority=2",
        "a " LINE " x",
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        refusal(wrong[i]);
    char longest[API_KEY_LINE_MAX + 8];
    memset(longest, 'k', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    assert_string_equal(refusal(longest), "the line is too long");
    longest[API_KEY_TEXT_MAX] = '\0';
    refusal(longest);
    longest[API_KEY_TEXT_MAX - 1] = '\0';
    assert_int_equal(api_key_line_read(longest, &key, &why), 0);
    snprintf(longest + API_KEY_NAME_MAX, sizeof longest - API_KEY_NAME_MAX, " " LINE);
    refusal(longest);
    assert_int_equal(api_key_line_read(longest + 1, &key, &why), 0);
    assert_int_equal(strlen(key.name), API_KEY_NAME_MAX - 1);
}

static void test_scope(void **state)
{
    (void)state;
    struct api_key key = {.models = "land-cover,x"};
    assert_true(api_key_opens(&key, "land-cover"));
    assert_true(api_key_opens(&key, "x"));
    assert_false(api_key_opens(&key, "land"));
    assert_false(api_key_opens(&key, "cover"));
    assert_false(api_key_opens(&key, "land-cover,x"));
    assert_false(api_key_opens(&key, ""));
    key.models[0] = '\0';
    assert_true(api_key_opens(&key, "anything"));
}

static void test_made_keys(void **state)
{
    (void)state;
    char keys[2][API_KEY_TEXT_MAX];
    char lines[2][API_KEY_LINE_MAX];
    struct api_key read[2];
    const char *why;
    for (int i = 0; i < 2; i++) {
        unsigned char digest[API_KEY_DIGEST_SIZE];
        assert_int_equal(api_key_make("alice", keys[i], lines[i]), 0);
        assert_int_equal(api_key_line_read(lines[i], &read[i], &why), 0);
        assert_int_equal(api_key_digest(keys[i], strlen(keys[i]), digest), 0);
        assert_memory_equal(read[i].digest, digest, sizeof digest);
        /* The line has the salt, and nothing more of the key. */
        assert_null(strstr(lines[i], keys[i] + sizeof "unetserve_0011223344556677" - 1));
        assert_memory_equal(strchr(lines[i], ':') + 1, keys[i] + sizeof "unetserve_" - 1, 16);
    }
    assert_string_not_equal(keys[0], keys[1]);
    /* Two keys of one name are one client, keys of two names are not. */
    struct client clients[2] = {client_of_key(&read[0]), client_of_key(&read[1])};
    assert_memory_equal(&clients[0], &clients[1], sizeof clients[0]);
    assert_int_equal(api_key_line_read("plain", &read[0], &why), 0);
    assert_int_equal(api_key_line_read("other", &read[1], &why), 0);
    clients[0] = client_of_key(&read[0]);
    assert_memory_not_equal(&clients[0], &clients[1], sizeof clients[0]);
    clients[1] = client_of_key(&read[1]);
    assert_memory_not_equal(&clients[0], &clients[1], sizeof clients[0]);
}

/* ---- files and requests ---- */

static struct api_keys keys;

static int load(const char *environment, const char *text)
{
    char path[64];
    char error[256] = "";
    int fd = memfd_create("keys", 0);
    assert_true(fd >= 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    int failed = api_keys_load(&keys, environment, path, error, sizeof error);
    assert_true(!failed || error[0]);
    if (failed == -EINVAL)
        assert_memory_equal(error, "line ", 5);
    close(fd);
    return failed;
}

/* The name by which the door opens, "" for a plain key; NULL: it stays shut, with that challenge.
 */
static const char *enter(const char *key, const char *authorization, const char **challenge)
{
    struct api_key_given given = {key, authorization};
    const struct api_key *found = NULL;
    struct problem problem = {0};
    *challenge = NULL;
    bool open = api_keys_admit(&keys, &given, &found, &problem, challenge);
    if (open) {
        assert_null(*challenge);
        return found ? found->name : "nobody";
    }
    assert_int_equal(problem.status, 401);
    bool nothing = !key && *challenge && strcmp(*challenge, "APIKey") == 0;
    assert_int_equal(nothing, strcmp(problem.body, "{\"detail\":\"Not authenticated\"}") == 0);
    return NULL;
}

static void test_no_keys(void **state)
{
    (void)state;
    const char *challenge;
    char error[64];
    assert_int_equal(api_keys_load(&keys, NULL, "", error, sizeof error), 0);
    assert_string_equal(enter(NULL, NULL, &challenge), "nobody");
    assert_string_equal(enter("what", "Bearer ever", &challenge), "nobody");
}

static void test_environment(void **state)
{
    (void)state;
    const char *challenge;
    char error[64];
    assert_int_equal(api_keys_load(&keys, "sesame", "", error, sizeof error), 0);
    assert_string_equal(enter("sesame", NULL, &challenge), "");
    assert_string_equal(enter("sesame \t", NULL, &challenge), "");
    static const char *const wrong[] = {"", "sesam", " ", "sesame s", "Sesame", "sesamesesame"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_null(enter(wrong[i], NULL, &challenge));
        assert_string_equal(challenge, "APIKey");
    }
    struct api_key_given given = {"wrong", NULL};
    const struct api_key *found;
    struct problem problem;
    assert_false(api_keys_admit(&keys, &given, &found, &problem, &challenge));
    assert_string_equal(problem.body, "{\"detail\":\"Invalid API Key. Check that you are passing a "
                                      "correct 'X-API-Key' in your header.\"}");
    assert_null(enter(NULL, NULL, &challenge));
    assert_string_equal(challenge, "APIKey");
    char longest[API_KEY_TEXT_MAX + 1];
    memset(longest, 'k', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    assert_int_equal(api_keys_load(&keys, longest, "", error, sizeof error), -EINVAL);
}

static void test_file(void **state)
{
    (void)state;
    const char *challenge;
    assert_int_equal(load("zeroth", "# keys\n\nfirst\n  second\t\r\n#third\n bob " LINE " \r\n"),
                     0);
    assert_int_equal(keys.count, 4);
    assert_string_equal(enter("zeroth", NULL, &challenge), "");
    assert_string_equal(enter("first", NULL, &challenge), "");
    assert_string_equal(enter("second", NULL, &challenge), "");
    assert_string_equal(enter(KEY, NULL, &challenge), "bob");
    static const char *const shut[] = {"third", "#third", "", "bob", DIGEST, LINE, "bob " LINE};
    for (size_t i = 0; i < sizeof shut / sizeof shut[0]; i++)
        assert_null(enter(shut[i], NULL, &challenge));
    /* Nobody keeps a key's text. */
    assert_null(memmem(&keys, sizeof keys, "second", 6));
    assert_int_equal(load(NULL, "# keys\n\n"), -ENODATA);
    assert_int_equal(load(NULL, "fine\nbob " LINE " rate=much\n"), -EINVAL);
    char error[64];
    assert_int_equal(api_keys_load(&keys, NULL, "/nonexistent/keys", error, sizeof error), -ENOENT);
    assert_string_equal(error, "No such file or directory");

    char *many = calloc(API_KEY_MAX_KEYS + 1, 8);
    assert_non_null(many);
    for (int i = 0; i < API_KEY_MAX_KEYS; i++)
        snprintf(many + 6 * (size_t)i, 8, "k%04d\n", i);
    assert_int_equal(load(NULL, many), 0);
    assert_int_equal(keys.count, API_KEY_MAX_KEYS);
    assert_int_equal(load("one more", many), -EMSGSIZE);
    free(many);
}

static void test_bearer(void **state)
{
    (void)state;
    const char *challenge;
    assert_int_equal(load(NULL, "bob " LINE "\nplain key\n"), 0);
    assert_string_equal(enter(NULL, "Bearer " KEY, &challenge), "bob");
    assert_string_equal(enter(NULL, "bEARER   " KEY " ", &challenge), "bob");
    assert_null(enter(NULL, "Bearer nonsense", &challenge));
    assert_string_equal(challenge, "Bearer error=\"invalid_token\"");
    static const char *const none[] = {"Basic " KEY,   "Bearer", "Bearer\t" KEY,
                                       "Bearerx " KEY, "",       KEY};
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++) {
        assert_null(enter(NULL, none[i], &challenge));
        assert_string_equal(challenge, "APIKey");
    }
    /* X-API-Key goes first, whatever else comes. */
    assert_null(enter("wrong", "Bearer " KEY, &challenge));
    assert_string_equal(challenge, "APIKey");
    assert_string_equal(enter(KEY, "Bearer wrong", &challenge), "bob");
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines),       cmocka_unit_test(test_scope),
        cmocka_unit_test(test_made_keys),   cmocka_unit_test(test_no_keys),
        cmocka_unit_test(test_environment), cmocka_unit_test(test_file),
        cmocka_unit_test(test_bearer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
