/* GPUs that fail: for how long nothing is started on them, who tries first, and what is counted. */
#include "supervisor/device_rest.h"
#include "supervisor/server.h"
#include "unetserve/loss.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include <cmocka.h>

static struct server *server;
static struct gpu_list gpus;

static int open_server(void **state)
{
    static const struct queue_geometry geometry = {
        .class_count = 1,
        .model_count = 2,
        .classes = {{.input_bytes = 4096, .output_bytes = 4096, .count = 1}}};
    (void)state;
    server = calloc(1, sizeof *server);
    server->config = calloc(1, sizeof *server->config);
    server->config->model_count = 2;
    snprintf(server->config->models[0].devices, sizeof server->config->models[0].devices, "%s",
             "GPU-a,GPU-b");
    snprintf(server->config->models[1].devices, sizeof server->config->models[1].devices, "cpu");
    gpus = (struct gpu_list){.count = 2};
    snprintf(gpus.entries[0].uuid, sizeof gpus.entries[0].uuid, "GPU-a");
    snprintf(gpus.entries[1].uuid, sizeof gpus.entries[1].uuid, "GPU-b");
    server->gpus = &gpus;
    assert_int_equal(queue_create(&geometry, &server->queue), 0);
    device_rest_begin(server);
    for (uint32_t i = 0; i < 5; i++) { /* two on each GPU, then one on the CPU */
        server->seats[i] = (struct tree_seat){.server = server,
                                              .number = i,
                                              .role = QUEUE_WORKER,
                                              .model = i / 4,
                                              .device = i % 2,
                                              .pidfd = -1};
    }
    return 0;
}

static int close_server(void **state)
{
    (void)state;
    queue_close(&server->queue);
    free(server->config);
    free(server);
    return 0;
}

static void rests_double_up_to_five_minutes(void **state)
{
    (void)state;
    static const uint32_t rests_ms[] = {1000,  2000,  4000,   8000,  16000,
                                        32000, 64000, 128000, 256000};
    for (size_t i = 0; i < sizeof rests_ms / sizeof rests_ms[0]; i++)
        assert_int_equal(device_rest_ms(1000, i + 1), rests_ms[i]);
    assert_int_equal(device_rest_ms(1000, 10), 300000);
    assert_int_equal(device_rest_ms(1000, UINT64_MAX), 300000);
}

/* The reason costs what it costs from the first rest on, and never more than five minutes. */
static void what_is_worse_rests_longer(void **state)
{
    (void)state;
    static const struct {
        uint32_t why;
        int status;
        uint32_t first_ms;
    } all[] = {{UNETSERVE_LOSS_OTHER, 74, 1000},
               {UNETSERVE_LOSS_ECC, 80, 10000},
               {UNETSERVE_LOSS_GONE, 81, 30000},
               {UNETSERVE_LOSS_MEMORY, 82, 1000},
               {UNETSERVE_LOSS_FAULT, 83, 1000}};
    siginfo_t end = {.si_code = CLD_EXITED};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        end.si_status = all[i].status;
        assert_int_equal(loss_status(all[i].why), all[i].status);
        assert_int_equal(device_rest_cause(&server->seats[0], &end), all[i].why);
        server->rests[0] = (struct device_rest){.serves_ns = 0};
        uint64_t before_ns = queue_now_ns();
        device_rest_end(&server->seats[0], (int)all[i].why);
        assert_true(server->rests[0].until_ns >= before_ns + all[i].first_ms * UINT64_C(1000000));
        assert_int_equal(counter_read(&server->queue.devices[0].failures[all[i].why]), 1);
        assert_int_equal(counter_read(&server->queue.devices[0].last), all[i].why);
    }
    assert_int_equal(device_rest_ms(30000, 4), 240000);
    assert_int_equal(device_rest_ms(30000, 5), 300000);
    /* Nonsense in the table, or from a plugin, is no crash. */
    assert_string_equal(loss_name(UINT32_MAX), "other");
    assert_int_equal(loss_status(77), 74);
    end.si_status = 84;
    assert_int_equal(device_rest_cause(&server->seats[0], &end), LOSS_NONE);
}

static const struct counters_device *shown(unsigned place)
{
    return &server->queue.devices[place];
}

/* So that it does not end under a slow test. */
static void stretch(void)
{
    server->rests[0].until_ns = UINT64_MAX;
}

static void the_device_rests_not_the_seat(void **state)
{
    (void)state;
    struct tree_seat *seats = server->seats;
    assert_string_equal(shown(0)->name, "GPU-a");
    assert_string_equal(shown(1)->name, "GPU-b");
    assert_int_equal(device_rest_left_ms(&seats[0]), 0);
    uint64_t before_ns = queue_now_ns();
    device_rest_end(&seats[0], UNETSERVE_LOSS_OTHER);
    assert_true(server->rests[0].until_ns >= before_ns + 1000 * UINT64_C(1000000));
    stretch();
    assert_true(device_rest_left_ms(&seats[0]) > 0);
    assert_true(device_rest_left_ms(&seats[2]) > 0); /* the same GPU */
    assert_int_equal(device_rest_left_ms(&seats[1]), 0);
    assert_int_equal(device_rest_left_ms(&seats[4]), 0);
    /* Who falls with it does not make it worse, but is counted. */
    device_rest_end(&seats[2], UNETSERVE_LOSS_OTHER);
    assert_int_equal(counters_device_failures(shown(0)), 2);
    assert_int_equal(counter_read(&shown(0)->in_a_row), 1);
    assert_true(counter_read(&shown(0)->rests_until_ns) > 0);
    /* Workers on the CPU, and ends for other reasons, change nothing. */
    device_rest_end(&seats[4], UNETSERVE_LOSS_OTHER);
    device_rest_end(&seats[1], LOSS_NONE);
    for (unsigned i = 1; i <= COUNTERS_MAX_GPUS; i++)
        assert_int_equal(counters_device_failures(shown(i)), 0);
}

static void one_seat_tries_alone(void **state)
{
    (void)state;
    struct tree_seat *seats = server->seats;
    device_rest_end(&seats[0], UNETSERVE_LOSS_OTHER);
    assert_int_equal(counter_read(&shown(0)->in_a_row), 1);
    server->rests[0].until_ns = 1; /* it is over */
    assert_int_equal(device_rest_left_ms(&seats[2]), 0);
    seats[2].pidfd = 77; /* started */
    assert_true(device_rest_left_ms(&seats[0]) > 0);
    /* It fails: twice the rest. */
    uint64_t before_ns = queue_now_ns();
    device_rest_end(&seats[2], UNETSERVE_LOSS_OTHER);
    seats[2].pidfd = -1;
    assert_true(server->rests[0].until_ns >= before_ns + 2000 * UINT64_C(1000000));
    assert_int_equal(counter_read(&shown(0)->in_a_row), 2);
    server->rests[0].until_ns = 1;
    /* Who was to try and has no process after all keeps nobody from it. */
    assert_int_equal(device_rest_left_ms(&seats[2]), 0);
    assert_int_equal(device_rest_left_ms(&seats[0]), 0);
    seats[0].pidfd = 77;
    device_rest_up(&seats[2]);
    assert_true(counter_read(&shown(0)->rests_until_ns) > 0);
    device_rest_up(&seats[0]); /* the one that tried */
    assert_int_equal(counter_read(&shown(0)->rests_until_ns), 0);
    assert_int_equal(device_rest_left_ms(&seats[2]), 0);
    /* It fails again soon: the count goes on. After a minute of work it begins anew. */
    device_rest_end(&seats[0], UNETSERVE_LOSS_OTHER);
    assert_int_equal(counter_read(&shown(0)->in_a_row), 3);
    server->rests[0] = (struct device_rest){
        .in_a_row = 3, .serves_ns = queue_now_ns() - (DEVICE_STEADY_MS + 1000) * UINT64_C(1000000)};
    device_rest_end(&seats[0], UNETSERVE_LOSS_OTHER);
    assert_int_equal(counter_read(&shown(0)->in_a_row), 1);
}

static void without_names_it_is_the_drivers_choice(void **state)
{
    (void)state;
    snprintf(server->config->models[0].devices, sizeof server->config->models[0].devices, "cuda");
    device_rest_end(&server->seats[0], UNETSERVE_LOSS_OTHER);
    server->rests[COUNTERS_MAX_GPUS].until_ns = UINT64_MAX;
    assert_true(device_rest_left_ms(&server->seats[1]) > 0);
    assert_int_equal(counters_device_failures(shown(COUNTERS_MAX_GPUS)), 1);
    assert_string_equal(shown(COUNTERS_MAX_GPUS)->name, "cuda");
}

static void which_ends_speak_of_the_device(void **state)
{
    (void)state;
    struct tree_seat *seat = &server->seats[0];
    siginfo_t end = {.si_code = CLD_EXITED};
    end.si_status = EX_IOERR;
    assert_int_equal(device_rest_cause(seat, &end), UNETSERVE_LOSS_OTHER);
    end.si_status = EX_UNAVAILABLE;
    assert_int_equal(device_rest_cause(seat, &end),
                     LOSS_NONE); /* a first start that fails: it is told */
    seat->ever_up = true;
    assert_int_equal(device_rest_cause(seat, &end), UNETSERVE_LOSS_OTHER);
    end.si_status = EX_SOFTWARE;
    assert_int_equal(device_rest_cause(seat, &end), LOSS_NONE);
    end.si_code = CLD_KILLED;
    end.si_status = EX_IOERR;
    assert_int_equal(device_rest_cause(seat, &end), LOSS_NONE);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_server, close_server)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(rests_double_up_to_five_minutes), TEST(what_is_worse_rests_longer),
        TEST(the_device_rests_not_the_seat),   TEST(one_seat_tries_alone),
        TEST(which_ends_speak_of_the_device),  TEST(without_names_it_is_the_drivers_choice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
