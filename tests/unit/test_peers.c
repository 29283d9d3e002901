/* Counts by client. */
#include "gateway/peers.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static struct admission secret;
static struct peers peers;

static struct peer *enter(const struct client *client, uint32_t most)
{
    struct peer *peer = NULL;
    int error = peers_enter(&peers, client, most, &peer);
    assert_true(error == 0 || error == -EBUSY);
    assert_true((error == 0) == (peer != NULL));
    return peer;
}

static int set_up(void **state)
{
    (void)state;
    peers_init(&peers, &secret);
    return 0;
}

static void test_counts_and_bounds(void **state)
{
    (void)state;
    struct client a = client_of_peer_address("192.0.2.1");
    struct client b = client_of_peer_address("192.0.2.2");
    struct peer *first = enter(&a, 2);
    assert_non_null(first);
    assert_ptr_equal(enter(&a, 2), first);
    assert_null(enter(&a, 2));
    assert_int_equal(peers_count(&peers, &a), 2);
    assert_int_equal(peers_count(&peers, &b), 0);
    struct peer *other = enter(&b, 2);
    assert_non_null(other);
    peers_leave(&peers, first);
    assert_ptr_equal(enter(&a, 2), first);
    assert_ptr_equal(enter(&a, 0), first);
    for (int i = 0; i < 3; i++)
        peers_leave(&peers, first);
    assert_int_equal(peers_count(&peers, &a), 0);
    assert_int_equal(peers_count(&peers, &b), 1);
    peers_leave(&peers, other);
}

/* An IPv6 client is its network. */
static void test_networks_are_one(void **state)
{
    (void)state;
    struct client a = client_of_peer_address("2001:db8::1");
    struct client b = client_of_peer_address("2001:db8::ffff:2");
    struct client c = client_of_peer_address("2001:db8:0:1::1");
    struct peer *first = enter(&a, 0);
    assert_ptr_equal(enter(&b, 0), first);
    struct peer *other = enter(&c, 0);
    assert_ptr_not_equal(other, first);
    peers_leave(&peers, other);
    peers_leave(&peers, first);
    peers_leave(&peers, first);
}

#define MANY 5000

/* More clients than chains, leaving in another order than they came. */
static void test_many(void **state)
{
    (void)state;
    static struct peer *all[MANY];
    char text[32];
    for (unsigned i = 0; i < MANY; i++) {
        snprintf(text, sizeof text, "10.0.%u.%u", i / 256, i % 256);
        struct client client = client_of_peer_address(text);
        all[i] = enter(&client, 1);
        assert_non_null(all[i]);
        assert_null(enter(&client, 1));
    }
    for (unsigned i = 0; i < MANY; i++)
        peers_leave(&peers, all[(i * 7) % MANY]);
    for (unsigned i = 0; i < PEERS_CHAINS; i++)
        assert_null(peers.chains[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_counts_and_bounds, set_up),
        cmocka_unit_test_setup(test_networks_are_one, set_up),
        cmocka_unit_test_setup(test_many, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
