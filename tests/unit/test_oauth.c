/* What a gateway knows about tokens, whom it asks, and whom it lets in; the other end is the test.
 */
#include "gateway/door.h"

#include "lib/config_oauth.h"
#include "unetserve/queue.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static struct admission secret;
static struct config config;
static struct oauth oauth;
static struct api_keys keys;
static sd_event *event;
static int ends[2];
static const struct client somebody = {.kind = CLIENT_IPV4, .bytes = {192, 0, 2, 1}};

struct asker {
    struct oauth_waiter waiter;
    unsigned told;
    struct auth_answer answer;
};

static void on_told(void *opaque, const struct auth_answer *answer)
{
    struct asker *asker = opaque;
    asker->told++;
    asker->answer = *answer;
}

static struct asker new_asker(void)
{
    return (struct asker){.waiter = {.told = on_told}};
}

static int setup(void **state)
{
    (void)state;
    config_init(&config);
    snprintf(config.oauth.issuer, sizeof config.oauth.issuer, "https://id.example");
    config.model_count = 1;
    snprintf(config.models[0].name, sizeof config.models[0].name, "x");
    memset(&keys, 0, sizeof keys);
    assert_int_equal(sd_event_new(&event), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    assert_int_equal(oauth_open(&oauth, event, ends[0], &config, &secret), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    oauth_close(&oauth);
    sd_event_unref(event);
    close(ends[0]);
    close(ends[1]);
    return 0;
}

static int ask(struct asker *asker, const char *token)
{
    asker->waiter.opaque = asker;
    return oauth_ask(&oauth, token, strlen(token), &somebody, &asker->waiter);
}

/* The next question, as auth sees it. */
static bool take(struct auth_question *question)
{
    ssize_t got = recv(ends[1], question, sizeof *question, MSG_DONTWAIT);
    if (got < 0)
        return false;
    assert_int_equal(auth_question_check(question, (size_t)got), 0);
    assert_true(question->rules == config_oauth_mark(&config));
    return true;
}

static void say(uint64_t id, uint32_t verdict, int64_t expires_s, const char *scopes)
{
    struct auth_answer answer = {.id = id, .verdict = verdict, .expires_s = expires_s};
    snprintf(answer.scopes, sizeof answer.scopes, "%s", scopes);
    if (verdict != AUTH_ACCEPTED)
        strcpy(answer.reason, "No");
    memset(answer.holder, 7, sizeof answer.holder);
    size_t bytes = auth_answer_bytes(&answer);
    assert_int_equal(send(ends[1], &answer, bytes, 0), (ssize_t)bytes);
    oauth_collect(&oauth);
}

static uint32_t known(const char *token)
{
    const struct auth_answer *answer = oauth_look(&oauth, token, strlen(token));
    return answer ? answer->verdict : 0;
}

static void learn(const char *token, uint32_t verdict)
{
    struct asker asker = new_asker();
    struct auth_question question;
    assert_int_equal(ask(&asker, token), 0);
    assert_true(take(&question));
    say(question.id, verdict, time(NULL) + 1000, "");
    assert_int_equal(asker.told, 1);
}

static void test_asked_once(void **state)
{
    (void)state;
    struct asker askers[3] = {new_asker(), new_asker(), new_asker()};
    struct auth_question question;
    for (int i = 0; i < 3; i++)
        assert_int_equal(ask(&askers[i], "token"), 0);
    assert_true(take(&question));
    assert_int_equal(question.size, 5);
    assert_memory_equal(question.token, "token", 5);
    assert_false(take(&question));
    oauth_forget(&oauth, &askers[1].waiter);
    oauth_forget(&oauth, &askers[1].waiter);
    assert_int_equal(peers_count(&oauth.askers, &somebody), 2);
    assert_int_equal(known("token"), 0);
    say(question.id, AUTH_ACCEPTED, time(NULL) + 1000, "a b");
    for (int i = 0; i < 3; i++)
        assert_int_equal(askers[i].told, i != 1);
    assert_string_equal(askers[2].answer.scopes, "a b");
    assert_int_equal(known("token"), AUTH_ACCEPTED);
    assert_int_equal(known("toke"), 0);
    assert_int_equal(known("token "), 0);
    assert_int_equal(oauth.open, 0);
    assert_int_equal(peers_count(&oauth.askers, &somebody), 0);
}

static void test_what_is_not_kept(void **state)
{
    (void)state;
    struct asker asker = new_asker();
    struct auth_question question;
    assert_int_equal(ask(&asker, "over"), 0);
    assert_true(take(&question));
    say(question.id, AUTH_ACCEPTED, time(NULL), "");
    assert_int_equal(asker.answer.verdict, AUTH_ACCEPTED);
    assert_int_equal(known("over"), 0);
    assert_int_equal(ask(&asker, "later"), 0);
    assert_true(take(&question));
    say(question.id, AUTH_UNAVAILABLE, time(NULL) + 1000, "");
    assert_int_equal(asker.answer.verdict, AUTH_UNAVAILABLE);
    assert_int_equal(known("later"), 0);
}

/* Answers to nobody's questions, packets that are none: nothing comes of them. */
static void test_strange_answers(void **state)
{
    (void)state;
    struct asker asker = new_asker();
    struct auth_question question;
    struct auth_answer answer = {.verdict = AUTH_ACCEPTED, .expires_s = time(NULL) + 1000};
    assert_int_equal(ask(&asker, "token"), 0);
    assert_true(take(&question));
    say(question.id + 1, AUTH_ACCEPTED, time(NULL) + 1000, "");
    say(0, AUTH_ACCEPTED, time(NULL) + 1000, "");
    answer.id = question.id;
    for (size_t bytes = 1; bytes <= offsetof(struct auth_answer, scopes); bytes++) {
        assert_int_equal(send(ends[1], &answer, bytes, 0), (ssize_t)bytes);
        oauth_collect(&oauth);
    }
    for (uint32_t verdict = 0; verdict < 8; verdict += 4) {
        answer.verdict = verdict;
        assert_true(send(ends[1], &answer, auth_answer_bytes(&answer), 0) > 0);
        oauth_collect(&oauth);
    }
    assert_int_equal(asker.told, 0);
    assert_int_equal(known("token"), 0);
    /* Neither text needs an end to be given one. */
    memset(&answer, 'x', sizeof answer);
    answer.id = question.id;
    answer.verdict = AUTH_ACCEPTED;
    answer.expires_s = time(NULL) + 1000;
    assert_int_equal(send(ends[1], &answer, sizeof answer, 0), (ssize_t)sizeof answer);
    oauth_collect(&oauth);
    assert_int_equal(asker.told, 1);
    assert_int_equal(strlen(asker.answer.scopes), AUTH_SCOPES_MAX - 1);
    assert_int_equal(strlen(asker.answer.reason), AUTH_REASON_MAX - 1);
}

static void test_time_runs_out(void **state)
{
    (void)state;
    struct asker asker = new_asker();
    struct auth_question question;
    assert_int_equal(ask(&asker, "token"), 0);
    assert_true(take(&question));
    oauth_expire(&oauth, queue_now_ns());
    assert_int_equal(asker.told, 0);
    oauth_expire(&oauth, queue_now_ns() + 3600 * UINT64_C(1000000000));
    assert_int_equal(asker.told, 1);
    assert_int_equal(asker.answer.verdict, AUTH_UNAVAILABLE);
    /* Too late. */
    say(question.id, AUTH_ACCEPTED, time(NULL) + 1000, "");
    assert_int_equal(asker.told, 1);
    assert_int_equal(known("token"), 0);
}

static void test_bounds(void **state)
{
    (void)state;
    static struct asker askers[OAUTH_CHECKS_MAX + 1];
    char token[32];
    int error = 0;
    for (int i = 0; i < OAUTH_CHECKS_A_CLIENT; i++) {
        askers[i] = new_asker();
        snprintf(token, sizeof token, "token-%d", i);
        assert_int_equal(ask(&askers[i], token), 0);
    }
    struct asker more = new_asker();
    assert_int_equal(ask(&more, "another"), -EBUSY);
    /* Other clients have their own share, until the pair or the table is full. */
    int i = OAUTH_CHECKS_A_CLIENT;
    for (; !error && i <= OAUTH_CHECKS_MAX; i++) {
        struct client other = {.kind = CLIENT_IPV4, .bytes = {192, 0, (unsigned char)(i / 32), 2}};
        askers[i] = new_asker();
        askers[i].waiter.opaque = &askers[i];
        snprintf(token, sizeof token, "token-%d", i);
        error = oauth_ask(&oauth, token, strlen(token), &other, &askers[i].waiter);
    }
    assert_int_equal(error, -EAGAIN);
    assert_true(i - 1 <= OAUTH_CHECKS_MAX);
    oauth_reconfigure(&oauth); /* nothing has changed */
    assert_int_equal(askers[0].told, 0);
    config.oauth.leeway_s++;
    oauth_reconfigure(&oauth);
    for (int k = 0; k < i - 1; k++) {
        assert_int_equal(askers[k].told, 1);
        assert_int_equal(askers[k].answer.verdict, AUTH_UNAVAILABLE);
    }
    assert_int_equal(oauth.open, 0);
    assert_int_equal(peers_count(&oauth.askers, &somebody), 0);
}

/* Thousands of refused tokens, and what was accepted is still known. */
static void test_refusals_push_nobody_out(void **state)
{
    (void)state;
    char token[32];
    for (int i = 0; i < 100; i++) {
        snprintf(token, sizeof token, "good-%d", i);
        learn(token, AUTH_ACCEPTED);
    }
    for (int i = 0; i < 3 * OAUTH_SETS * OAUTH_WAYS; i++) {
        snprintf(token, sizeof token, "bad-%d", i);
        learn(token, AUTH_REFUSED);
    }
    int kept = 0;
    for (int i = 0; i < 100; i++) {
        snprintf(token, sizeof token, "good-%d", i);
        kept += known(token) == AUTH_ACCEPTED;
    }
    assert_int_equal(kept, 100);
    assert_int_equal(known(token), AUTH_ACCEPTED);
    oauth_reconfigure(&oauth);
    assert_int_equal(known(token), AUTH_ACCEPTED);
    config.oauth.leeway_s++;
    oauth_reconfigure(&oauth);
    assert_int_equal(known(token), 0);
}

/* ---- the door ---- */

static enum door knock(const char *authorization, const char *api_key, struct problem *problem,
                       const char **challenge)
{
    static struct asker asker;
    static struct answer answer;
    const struct api_key *key;
    oauth_forget(&oauth, &asker.waiter);
    asker = new_asker();
    asker.waiter.opaque = &asker;
    answer = (struct answer){.status = 0};
    *problem = (struct problem){.status = 0};
    struct door_keys door = {&keys, &oauth, &config};
    struct door_knock knocking = {.given = {api_key, authorization},
                                  .model = 0,
                                  .client = &somebody,
                                  .waiter = &asker.waiter};
    enum door result = door_try(&door, &knocking, &key, problem, &answer);
    *challenge = answer.authenticate;
    assert_true((result == DOOR_CLOSED) == (problem->status != 0));
    return result;
}

static void test_door(void **state)
{
    (void)state;
    struct problem problem;
    const char *challenge;
    /* No keys are no open door. */
    static const char *const nothing[] = {NULL,     "",        "Basic eDp5",
                                          "Bearer", "Bearer ", "Bearer   \t"};
    for (size_t i = 0; i < sizeof nothing / sizeof nothing[0]; i++) {
        assert_int_equal(knock(nothing[i], NULL, &problem, &challenge), DOOR_CLOSED);
        assert_int_equal(problem.status, 401);
        assert_string_equal(challenge, "Bearer realm=\"unetserve\"");
    }
    assert_int_equal(knock(NULL, "sesame", &problem, &challenge), DOOR_CLOSED);
    assert_int_equal(knock("Bearer token", NULL, &problem, &challenge), DOOR_ASKS);
    struct auth_question question;
    assert_true(take(&question));
    learn("good", AUTH_ACCEPTED);
    learn("bad", AUTH_REFUSED);
    assert_int_equal(knock("bearer  good \t", NULL, &problem, &challenge), DOOR_OPEN);
    assert_int_equal(knock("Bearer bad", NULL, &problem, &challenge), DOOR_CLOSED);
    assert_int_equal(problem.status, 401);
    assert_non_null(strstr(challenge, "error=\"invalid_token\", error_description=\"No\""));
    static char huge[AUTH_TOKEN_MAX + 16] = "Bearer ";
    memset(huge + 7, 'x', AUTH_TOKEN_MAX + 1);
    assert_int_equal(knock(huge, NULL, &problem, &challenge), DOOR_CLOSED);
    assert_int_equal(problem.status, 401);
    /* Scopes longer than the header has room for are left out of it. */
    memset(config.oauth.scope, 's', sizeof config.oauth.scope - 1);
    assert_int_equal(knock("Bearer good", NULL, &problem, &challenge), DOOR_CLOSED);
    assert_int_equal(problem.status, 403);
    assert_non_null(strstr(challenge, "insufficient_scope"));
    assert_null(strstr(challenge, "scope=\""));
    assert_int_equal(challenge[strlen(challenge) - 1], '"');
    /* Auth is gone, and its place is full of questions. */
    config.oauth.scope[0] = '\0';
    close(ends[1]);
    assert_int_equal(knock("Bearer unknown", NULL, &problem, &challenge), DOOR_CLOSED);
    assert_int_equal(problem.status, 503);
    assert_true(problem.retry_after_s >= 1);
    assert_null(challenge);
    assert_int_equal(knock("Bearer good", NULL, &problem, &challenge), DOOR_OPEN);
    ends[1] = dup(ends[0]);
}

static void test_without_a_provider(void **state)
{
    (void)state;
    struct problem problem;
    const char *challenge;
    config.oauth.issuer[0] = '\0';
    oauth_reconfigure(&oauth);
    assert_int_equal(knock("Bearer token", NULL, &problem, &challenge), DOOR_OPEN);
    assert_int_equal(knock(NULL, NULL, &problem, &challenge), DOOR_OPEN);
    struct asker asker = new_asker();
    assert_int_equal(ask(&asker, "token"), -EAGAIN);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_asked_once),
        TEST(test_what_is_not_kept),
        TEST(test_strange_answers),
        TEST(test_time_runs_out),
        TEST(test_bounds),
        TEST(test_refusals_push_nobody_out),
        TEST(test_door),
        TEST(test_without_a_provider),
    };
    return cmocka_run_group_tests_name("oauth", tests, NULL, NULL);
}
