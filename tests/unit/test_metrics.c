/* The page of /metrics, from blocks and tables that a test has filled in. */
#include "gateway/metrics.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct {
    struct seat seat;
    struct config config;
    struct models models;
} bench;

static int set_up(void **state)
{
    (void)state;
    const struct queue_geometry geometry = {
        .class_count = 1,
        .model_count = 2,
        .classes = {{.input_bytes = 4096, .output_bytes = 4096, .count = 3}},
    };
    memset(&bench, 0, sizeof bench);
    struct queue *queue = &bench.seat.queue;
    assert_int_equal(queue_create(&geometry, queue), 0);
    assert_int_equal(queue_process_enter(queue, QUEUE_GATEWAY, 0, &bench.seat.index), 0);
    atomic_store(&queue->seats[0].role, QUEUE_GATEWAY);
    config_init(&bench.config);
    bench.config.model_count = 2;
    strcpy(bench.config.models[0].name, "plain");
    strcpy(bench.config.models[1].name, "a\"b\\c\nd");
    models_init(&bench.models, queue, &bench.config);
    metrics_open(&bench.seat);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    queue_close(&bench.seat.queue);
    return 0;
}

static void expect(const char *line)
{
    size_t size = 0;
    char *page = metrics_page(&bench.models, &size);
    assert_non_null(page);
    assert_int_equal(strlen(page), size);
    if (!strstr(page, line))
        fail_msg("there is no %s in\n%s", line, page);
    free(page);
}

static void test_labels_are_escaped(void **state)
{
    (void)state;
    metrics_answered(1, 200, 10);
    expect("\nunetserve_requests_total{model=\"a\\\"b\\\\c\\nd\",code=\"200\"} 1\n");
    expect("\nunetserve_answered_bytes_total 10\n");
}

/* Numbers of models and statuses that do not exist are counted, and never written out of place. */
static void test_odd_numbers(void **state)
{
    (void)state;
    metrics_answered(UINT32_MAX, 404, 0);
    metrics_answered(COUNTERS_NO_MODEL, 404, 0);
    metrics_answered(0, -7, 0);
    metrics_answered(0, 302, 0);
    expect("\nunetserve_requests_total{model=\"\",code=\"404\"} 2\n");
    expect("\nunetserve_requests_total{model=\"plain\",code=\"other\"} 2\n");
}

static void test_seats_are_added_up(void **state)
{
    (void)state;
    struct queue *queue = &bench.seat.queue;
    struct counters *other = &queue->counters[5];
    metrics_answered(0, 503, 0);
    counter_add(&other->models[0].answers[counters_status(503)], 4);
    expect("{model=\"plain\",code=\"503\"} 1\n"); /* no such seat yet */
    atomic_store(&queue->seats[5].role, QUEUE_GATEWAY);
    expect("{model=\"plain\",code=\"503\"} 5\n");
    counter_add(&queue->seats[0].starts, 2);
    counter_add(&queue->seats[5].starts, 3);
    counter_add(&queue->seats[5].deaths, 1);
    expect("\nunetserve_process_starts_total{role=\"gateway\"} 5\n");
    expect("\nunetserve_process_restarts_total{role=\"gateway\"} 1\n");
}

/* What a gateway had in hand when it was killed is gone; what it had counted is not. */
static void test_gauges_of_the_dead(void **state)
{
    (void)state;
    metrics_connection_made();
    metrics_connections(3);
    metrics_request_begun();
    metrics_request_begun();
    metrics_request_ended(0, true);
    expect("\nunetserve_connections_open 3\n");
    expect("\nunetserve_requests_in_flight 1\n");
    queue_process_leave(&bench.seat.queue, bench.seat.index, false);
    expect("\nunetserve_connections_open 0\n");
    expect("\nunetserve_requests_in_flight 0\n");
    expect("\nunetserve_connections_total 1\n");
    assert_int_equal(queue_process_enter(&bench.seat.queue, QUEUE_GATEWAY, 0, &bench.seat.index),
                     0);
    metrics_open(&bench.seat);
    expect("\nunetserve_connections_open 0\n");
    expect("\nunetserve_connections_total 1\n");
    metrics_request_begun();
    metrics_request_ended(1, false);
    expect("\nunetserve_requests_in_flight 0\n");
    expect("\nunetserve_requests_abandoned_total{model=\"plain\"} 0\n");
    expect("\nunetserve_requests_abandoned_total{model=\"a\\\"b\\\\c\\nd\"} 1\n");
}

static void test_refused_jobs(void **state)
{
    (void)state;
    metrics_job_refused(0, 413);
    metrics_job_refused(0, 503);
    metrics_job_refused(1, 503);
    metrics_job_refused(0, 422);
    metrics_turned_away(0, COUNTERS_REFUSED_WAIT);
    metrics_refused(COUNTERS_REFUSED_RATE);
    metrics_accepted(0);
    expect("\nunetserve_refused_total{reason=\"size\"} 1\n");
    expect("\nunetserve_refused_total{reason=\"slots\"} 2\n");
    expect("\nunetserve_refused_total{reason=\"wait\"} 1\n");
    expect("\nunetserve_requests_arrived_total{model=\"plain\"} 3\n");
    expect("\nunetserve_requests_arrived_total{model=\"a\\\"b\\\\c\\nd\"} 1\n");
}

static void test_times(void **state)
{
    (void)state;
    struct job_outcome ran = {
        .status = 200,
        .times = {.receive_ms = 0.1, .queue_ms = 0.10001, .forward_ms = 40000, .encode_ms = -1}};
    struct job_outcome waited = {.status = 504, .times = {.receive_ms = 0.05, .queue_ms = 7}};
    metrics_job(0, queue_now_ns(), &ran);
    metrics_job(0, queue_now_ns(), &waited);
    expect("\nunetserve_receive_seconds_bucket{model=\"plain\",le=\"0.0001\"} 2\n");
    expect("\nunetserve_queue_seconds_bucket{model=\"plain\",le=\"0.0001\"} 0\n");
    expect("\nunetserve_queue_seconds_bucket{model=\"plain\",le=\"0.00025\"} 1\n");
    expect("\nunetserve_queue_seconds_bucket{model=\"plain\",le=\"0.01\"} 2\n");
    expect("\nunetserve_forward_seconds_bucket{model=\"plain\",le=\"30\"} 0\n");
    expect("\nunetserve_forward_seconds_bucket{model=\"plain\",le=\"+Inf\"} 1\n");
    expect("\nunetserve_forward_seconds_sum{model=\"plain\"} 40\n");
    expect("\nunetserve_encode_seconds_count{model=\"plain\"} 1\n");
    expect("\nunetserve_request_seconds_count{model=\"plain\"} 2\n");
}

static void test_tables(void **state)
{
    (void)state;
    struct queue *queue = &bench.seat.queue;
    uint32_t slot = 0;
    uint64_t word = 0;
    uint16_t worker = 0;
    assert_int_equal(queue_reserve(queue, bench.seat.index, 1, 1, &slot, &word), 0);
    atomic_store(&queue->slots[slot].model, 1);
    expect("\nunetserve_slots{state=\"RECV\"} 1\n");
    assert_true(queue_move(queue, QUEUE_GATEWAY, slot, word, QUEUE_READY, 0, NULL));
    expect("\nunetserve_slots{state=\"READY\"} 1\n");
    expect("\nunetserve_slots{state=\"FREE\"} 2\n");
    expect("\nunetserve_queue_depth{model=\"plain\"} 0\n");
    expect("\nunetserve_queue_depth{model=\"a\\\"b\\\\c\\nd\"} 1\n");
    assert_int_equal(queue_process_enter(queue, QUEUE_WORKER, 9, &worker), 0);
    struct queue_process *process = &queue->processes[worker];
    expect("\nunetserve_workers{model=\"plain\",state=\"starting\"} 1\n");
    atomic_store(&process->ready, 1);
    expect("\nunetserve_workers{model=\"plain\",state=\"ready\"} 1\n");
    atomic_store(&process->draining, 1);
    expect("\nunetserve_workers{model=\"plain\",state=\"draining\"} 1\n");
    atomic_store(&process->life, QUEUE_CONDEMNED);
    expect("\nunetserve_workers{model=\"plain\",state=\"condemned\"} 1\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_labels_are_escaped, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_odd_numbers, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_seats_are_added_up, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_gauges_of_the_dead, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_refused_jobs, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_times, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_tables, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
