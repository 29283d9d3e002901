/* Connections counted over gateways: threads as gateways over one table, and such that die. */
#include "gateway/peers.h"
#include "unetserve/queue.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define GATEWAYS 4
#define ROUNDS   20000
#define MOST     6

struct gateway {
    struct queue *queue;
    uint32_t seat;
    uint16_t index;
    struct crowd crowd;
    struct peers peers;
};

static struct queue queue;
static struct gateway gateways[GATEWAYS];

static void gateway_begin(struct gateway *gateway, uint32_t seat)
{
    gateway->queue = &queue;
    gateway->seat = seat;
    assert_int_equal(queue_process_enter(&queue, QUEUE_GATEWAY, seat, &gateway->index), 0);
    crowd_open(&gateway->crowd, &queue, GATEWAYS, seat, gateway->index);
    peers_init(&gateway->peers, queue.admission);
    gateway->peers.crowd = &gateway->crowd;
}

static int set_up(void **state)
{
    (void)state;
    static const struct queue_geometry geometry = {
        .class_count = 1, .classes = {{.input_bytes = 64, .output_bytes = 64, .count = 1}}};
    assert_int_equal(queue_create(&geometry, &queue), 0);
    for (uint32_t i = 0; i < GATEWAYS; i++)
        gateway_begin(&gateways[i], i);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    queue_close(&queue);
    return 0;
}

static struct peer *enter(struct gateway *gateway, const char *address, uint32_t most)
{
    struct client client = client_of_peer_address(address);
    struct peer *peer = NULL;
    int error = peers_enter(&gateway->peers, &client, most, &peer);
    assert_true(error == 0 || error == -EBUSY);
    return error ? NULL : peer;
}

static void test_all_count(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < MOST; i++)
        assert_true(crowd_take(&gateways[i % 3].crowd, MOST));
    for (uint32_t i = 0; i < GATEWAYS; i++) {
        assert_false(crowd_take(&gateways[i].crowd, MOST));
        assert_int_equal(crowd_total(&gateways[i].crowd), MOST);
    }
    crowd_give(&gateways[1].crowd);
    assert_true(crowd_take(&gateways[3].crowd, MOST));
    assert_false(crowd_somebody_waits(&gateways[0].crowd));
    crowd_wait(&gateways[2].crowd, true);
    assert_true(crowd_somebody_waits(&gateways[0].crowd));
    assert_true(crowd_somebody_waits(&gateways[2].crowd));
    crowd_wait(&gateways[2].crowd, false);
    assert_false(crowd_somebody_waits(&gateways[2].crowd));
}

static void test_addresses(void **state)
{
    (void)state;
    struct peer *peers[3];
    for (int i = 0; i < 3; i++)
        assert_non_null(peers[i] = enter(&gateways[i], "192.0.2.1", 3));
    for (int i = 0; i < GATEWAYS; i++)
        assert_null(enter(&gateways[i], "192.0.2.1", 3));
    struct peer *other = enter(&gateways[3], "192.0.2.2", 3);
    assert_non_null(other);
    peers_leave(&gateways[1].peers, peers[1]);
    struct peer *last = enter(&gateways[3], "192.0.2.1", 3);
    assert_non_null(last);
    assert_null(enter(&gateways[1], "192.0.2.1", 3));
    /* Without a limit it is told all the same: there may be one later. */
    struct peer *more = enter(&gateways[1], "192.0.2.1", 0);
    assert_non_null(more);
    assert_null(enter(&gateways[0], "192.0.2.1", 4));
    peers_leave(&gateways[1].peers, more);
    peers_leave(&gateways[3].peers, last);
    peers_leave(&gateways[3].peers, other);
    peers_leave(&gateways[0].peers, peers[0]);
    peers_leave(&gateways[2].peers, peers[2]);
    for (uint32_t seat = 0; seat < GATEWAYS; seat++)
        for (unsigned set = 0; set < CROWD_SETS; set++)
            for (unsigned way = 0; way < CROWD_WAYS; way++)
                assert_true(atomic_load(&queue.crowds[seat].addresses[set][way]) == 0);
}

/* What a dead gateway had counts no more when it is buried; what its successor finds is nothing. */
static void test_deaths(void **state)
{
    (void)state;
    struct gateway *dead = &gateways[1];
    for (int i = 0; i < MOST; i++) {
        assert_true(crowd_take(&dead->crowd, MOST));
        assert_non_null(enter(dead, "192.0.2.1", MOST));
    }
    crowd_wait(&dead->crowd, true);
    assert_false(crowd_take(&gateways[0].crowd, MOST));
    assert_null(enter(&gateways[0], "192.0.2.1", MOST));
    queue_process_leave(&queue, dead->index, false);
    assert_int_equal(crowd_total(&gateways[0].crowd), 0);
    assert_false(crowd_somebody_waits(&gateways[0].crowd));
    /* Its index goes to another seat, and to no gateway: the numbers are still nobody's. */
    atomic_store(&queue.processes[dead->index].role, QUEUE_GATEWAY);
    atomic_store(&queue.processes[dead->index].seat, 3);
    atomic_store(&queue.processes[dead->index].life, QUEUE_LIVE);
    assert_int_equal(crowd_total(&gateways[0].crowd), 0);
    queue_process_leave(&queue, dead->index, false);
    free(enter(dead, "192.0.2.1", 0));
    gateway_begin(dead, 1);
    assert_int_equal(crowd_total(&gateways[0].crowd), 0);
    for (int i = 0; i < MOST; i++) {
        assert_true(crowd_take(&gateways[0].crowd, MOST));
        assert_non_null(enter(&gateways[0], "192.0.2.1", MOST));
    }
    assert_false(crowd_take(&dead->crowd, MOST));
    assert_null(enter(dead, "192.0.2.1", MOST));
    struct peer *peer = enter(&gateways[0], "192.0.2.1", 0);
    for (int i = 0; i <= MOST; i++)
        peers_leave(&gateways[0].peers, peer);
}

/* Addresses for which there is no room are counted by their gateway alone, and nothing else is. */
static void test_full_set(void **state)
{
    (void)state;
    struct crowd *crowd = &gateways[0].crowd;
    for (unsigned way = 0; way < CROWD_WAYS; way++) {
        uint64_t hash = 5 + CROWD_SETS * (uint64_t)(way + 1) * 1000;
        _Atomic uint64_t *place = crowd_address_place(crowd, hash);
        assert_non_null(place);
        crowd_address_set(place, hash, way + 1);
        assert_int_equal(crowd_address_elsewhere(&gateways[1].crowd, hash), way + 1);
    }
    assert_null(crowd_address_place(crowd, 5));
    crowd_address_set(NULL, 5, 1);
    assert_int_equal(crowd_address_elsewhere(&gateways[1].crowd, 5), 0);
    assert_non_null(crowd_address_place(crowd, 6));
    assert_null(crowd_address_place(&(struct crowd){.mine = NULL}, 5));
}

static _Atomic int inside, inside_address, wrong;

static void come_and_go(struct gateway *gateway)
{
    struct client client = client_of_peer_address("192.0.2.1");
    struct peer *peer = NULL;
    if (crowd_take(&gateway->crowd, MOST)) {
        wrong += atomic_fetch_add(&inside, 1) >= MOST;
        if (peers_enter(&gateway->peers, &client, MOST / 2, &peer) == 0) {
            wrong += atomic_fetch_add(&inside_address, 1) >= MOST / 2;
            sched_yield();
            atomic_fetch_sub(&inside_address, 1);
            peers_leave(&gateway->peers, peer);
        }
        atomic_fetch_sub(&inside, 1);
        crowd_give(&gateway->crowd);
    }
}

static void *run(void *opaque)
{
    for (int i = 0; i < ROUNDS; i++)
        come_and_go(opaque);
    return NULL;
}

/* Never more than are allowed, whoever comes when; and afterwards there is nobody. */
static void test_together(void **state)
{
    (void)state;
    pthread_t threads[GATEWAYS];
    /* So that places are short: two are always taken. */
    assert_true(crowd_take(&gateways[0].crowd, MOST) && crowd_take(&gateways[0].crowd, MOST));
    atomic_store(&inside, 2);
    for (int i = 0; i < GATEWAYS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, run, &gateways[i]), 0);
    for (int i = 0; i < GATEWAYS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(crowd_total(&gateways[1].crowd), 2);
    assert_int_equal(atomic_load(&wrong), 0);
    assert_int_equal(atomic_load(&inside), 2);
    assert_int_equal(atomic_load(&inside_address), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_all_count, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_addresses, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_deaths, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_full_set, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_together, set_up, tear_down),
    };
    return cmocka_run_group_tests_name("crowd", tests, NULL, NULL);
}
