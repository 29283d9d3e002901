/* Who a client is: addresses, trusted networks, and X-Forwarded-For in all the ways in which it is
 * written and forged. */
#include "gateway/client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

static struct trusted trusted;

static void trust(const char *networks)
{
    static struct config config;
    struct config_error error;
    config_init(&config);
    if (networks[0])
        assert_int_equal(config_set(&config, "server", "trusted_proxies", networks, &error), 0);
    trusted_read(&config, &trusted);
}

static struct client of_text(const char *text)
{
    return client_of_peer_address(text);
}

static const char *shown(const struct client *client)
{
    static char text[INET6_ADDRSTRLEN];
    if (client->kind == CLIENT_IPV4)
        return inet_ntop(AF_INET, client->bytes, text, sizeof text);
    if (client->kind == CLIENT_IPV6)
        return inet_ntop(AF_INET6, client->bytes, text, sizeof text);
    return client->kind == CLIENT_USER ? "user" : "unknown";
}

static void test_networks(void **state)
{
    (void)state;
    static const struct {
        const char *networks, *address;
        bool inside;
    } cases[] = {
        {"10.0.0.0/8", "10.255.0.1", true},
        {"10.0.0.0/8", "11.0.0.1", false},
        {"10.0.0.0/9", "10.127.255.255", true},
        {"10.0.0.0/9", "10.128.0.0", false},
        {"10.1.2.3", "10.1.2.3", true},
        {"10.1.2.3", "10.1.2.2", false},
        {"0.0.0.0/0", "8.8.8.8", true},
        {"0.0.0.0/0", "2001:db8::1", false},
        {"::/0", "2001:db8::1", true},
        {"::/0", "8.8.8.8", false},
        {"2001:db8::/33", "2001:db8:7fff::", true},
        {"2001:db8::/33", "2001:db8:8000::", false},
        {"::1", "::1", true},
        {"::1", "::2", false},
        {"::ffff:10.0.0.0/104", "10.9.9.9", true},
        {"::ffff:10.0.0.0/104", "11.9.9.9", false},
        {"::ffff:10.0.0.1", "10.0.0.1", true},
        {"::ffff:10.0.0.1", "10.0.0.2", false},
        {"10.0.0.1", "::ffff:10.0.0.1", true},
        {"::ffff:0:0/90", "10.0.0.1", false},
        {"unix:", "10.0.0.1", false},
        {"unix:", ":0:0:17", true},
        {"10.0.0.0/8", ":0:0:17", false},
        {"", "127.0.0.1", false},
        {"192.168.0.0/16, fd00::/8 10.0.0.0/8", "10.0.0.1", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        trust(cases[i].networks);
        struct client client = of_text(cases[i].address);
        if (trusted_has(&trusted, &client) != cases[i].inside)
            fail_msg("%s in %s", cases[i].address, cases[i].networks);
    }
}

static void test_peers(void **state)
{
    (void)state;
    struct sockaddr_in6 six = {.sin6_family = AF_INET6};
    inet_pton(AF_INET6, "::ffff:192.0.2.1", &six.sin6_addr);
    struct client client = client_of_socket(-1, (struct sockaddr *)&six);
    assert_string_equal(shown(&client), "192.0.2.1");
    inet_pton(AF_INET6, "2001:db8:1:2:3:4:5:6", &six.sin6_addr);
    client = client_of_socket(-1, (struct sockaddr *)&six);
    assert_string_equal(shown(&client), "2001:db8:1:2:3:4:5:6");
    client = client_block(&client);
    assert_string_equal(shown(&client), "2001:db8:1:2::");
    int pair[2];
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    client = client_of_socket(pair[0], (struct sockaddr *)&local);
    struct client mine = {.kind = CLIENT_USER};
    uint32_t user = getuid();
    memcpy(mine.bytes, &user, sizeof user);
    assert_memory_equal(&client, &mine, sizeof mine);
    close(pair[0]);
    close(pair[1]);
    client = client_of_socket(-1, (struct sockaddr *)&local);
    assert_int_equal(client.kind, CLIENT_UNKNOWN);
    /* What libzmq says. */
    struct api_key named = {.holder = {0xe8, 3}}; /* 1000 */
    struct client key = client_of_key(&named);
    assert_int_not_equal(memcmp(&key, &mine, sizeof mine), 0);
    client = client_of_peer_address(":1000:100:4711");
    struct client same = client_of_peer_address(":1000:7:1");
    assert_int_equal(client.kind, CLIENT_USER);
    assert_memory_equal(&client, &same, sizeof same);
    client = client_of_peer_address("192.0.2.9");
    assert_string_equal(shown(&client), "192.0.2.9");
    client = client_of_peer_address(NULL);
    assert_int_equal(client.kind, CLIENT_UNKNOWN);
    client = client_of_peer_address("nobody");
    assert_int_equal(client.kind, CLIENT_UNKNOWN);
}

static void test_forwarded(void **state)
{
    (void)state;
    static const struct {
        const char *peer, *lines[4], *client;
    } cases[] = {
        /* No header; a peer that is not trusted says what it likes. */
        {"10.0.0.1", {NULL}, "10.0.0.1"},
        {"198.51.100.1", {"192.0.2.1"}, "198.51.100.1"},
        /* One proxy, several, and what is left of the first that is not trusted. */
        {"10.0.0.1", {"192.0.2.1"}, "192.0.2.1"},
        {"10.0.0.1", {"192.0.2.1, 10.0.0.2, fd00::9"}, "192.0.2.1"},
        {"10.0.0.1", {"203.0.113.7, 192.0.2.1"}, "192.0.2.1"},
        {"10.0.0.1", {"10.0.0.9, 203.0.113.7, 10.0.0.2"}, "203.0.113.7"},
        {"fd00::1", {"2001:db8::5"}, "2001:db8::5"},
        /* All are trusted: the one that is farthest. */
        {"10.0.0.1", {"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
        /* Lines join; an entry never goes over the end of one. */
        {"10.0.0.1", {"203.0.113.7", "192.0.2.1", "10.0.0.2"}, "192.0.2.1"},
        {"10.0.0.1", {"192.0.2.1", ""}, "192.0.2.1"},
        {"10.0.0.1", {"203.0.113.7", "10.0.0.2, 10.0.0.3"}, "203.0.113.7"},
        /* Ports, brackets, white space, empty entries. */
        {"10.0.0.1", {"192.0.2.1:4711"}, "192.0.2.1"},
        {"10.0.0.1", {"[2001:db8::5]:4711"}, "2001:db8::5"},
        {"10.0.0.1", {"[2001:db8::5]"}, "2001:db8::5"},
        {"10.0.0.1", {" \t192.0.2.1\t ,,, 10.0.0.2 ,"}, "192.0.2.1"},
        {"10.0.0.1", {","}, "10.0.0.1"},
        {"10.0.0.1", {"::ffff:192.0.2.1"}, "192.0.2.1"},
        {"10.0.0.1", {"203.0.113.7, ::ffff:10.0.0.2"}, "203.0.113.7"},
        /* No addresses: whoever wrote them is the last one known. */
        {"10.0.0.1", {"192.0.2.1, unknown"}, "10.0.0.1"},
        {"10.0.0.1", {"192.0.2.1, _hidden, 10.0.0.2"}, "10.0.0.2"},
        {"10.0.0.1", {"192.0.2.1, 256.0.0.1"}, "10.0.0.1"},
        {"10.0.0.1", {"192.0.2.1, 1.2.3"}, "10.0.0.1"},
        {"10.0.0.1", {"192.0.2.1:"}, "10.0.0.1"},
        {"10.0.0.1", {"192.0.2.1:123456"}, "10.0.0.1"},
        {"10.0.0.1", {"192.0.2.1:12x"}, "10.0.0.1"},
        {"10.0.0.1", {"[192.0.2.1]"}, "10.0.0.1"},
        {"10.0.0.1", {"[2001:db8::5"}, "10.0.0.1"},
        {"10.0.0.1", {"[2001:db8::5]4711"}, "10.0.0.1"},
        {"10.0.0.1", {"fe80::1%eth0"}, "10.0.0.1"},
        {"10.0.0.1", {"192.0.2.1 192.0.2.2"}, "10.0.0.1"},
        {"10.0.0.1", {"\"192.0.2.1\""}, "10.0.0.1"},
        {"10.0.0.1",
         {"192.0.2.1, 000000000000000000000000000000000000000000000000000000000000000010.0.0.1"},
         "10.0.0.1"},
        /* A proxy on this machine. */
        {":0:0:12", {"192.0.2.1"}, "192.0.2.1"},
        {":0:0:12", {NULL}, "user"},
    };
    trust("10.0.0.0/8, fd00::/8, unix:");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        size_t count = 0;
        while (count < 4 && cases[i].lines[count])
            count++;
        struct client peer = of_text(cases[i].peer);
        struct client client = client_forwarded(&trusted, &peer, cases[i].lines, count);
        if (strcmp(shown(&client), cases[i].client) != 0)
            fail_msg("case %zu: %s", i, shown(&client));
    }
    trust("");
    struct client peer = of_text("127.0.0.1");
    struct client client = client_forwarded(&trusted, &peer, (const char *[]){"192.0.2.1"}, 1);
    assert_string_equal(shown(&client), "127.0.0.1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_networks),
        cmocka_unit_test(test_peers),
        cmocka_unit_test(test_forwarded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
