/* How many tiles a run is made of, on machines whose times the test makes up. */
#include "workers/models/unet/batch_choice.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* What a run of so many takes: a start, and each tile. */
struct machine {
    uint64_t start_ns;
    uint64_t tile_ns;
};

static uint64_t run_ns(const struct machine *machine, uint32_t tiles)
{
    return machine->start_ns + machine->tile_ns * tiles;
}

/* Run on until nothing is left to be learned from so many. Returns how many runs that took. */
static unsigned learn(struct batch_choice *choice, const struct machine *machine, uint32_t waiting)
{
    unsigned runs = 0;
    for (; runs < 100; runs++) {
        uint32_t next = batch_choice_next(choice, waiting);
        assert_in_range(next, 1, waiting);
        struct batch_choice before = *choice;
        batch_choice_note(choice, next, run_ns(machine, next));
        if (memcmp(before.sizes, choice->sizes, sizeof before.sizes) == 0)
            break;
    }
    return runs;
}

static const struct machine even = {0, 1000};          /* a tile costs what it costs */
static const struct machine slow_start = {8000, 1000}; /* the more the better */
static const struct machine quick_start = {100, 1000}; /* two are enough */

static void each_size_has_its_runs(void **state)
{
    (void)state;
    struct batch_choice choice;
    batch_choice_begin(&choice, 8);
    assert_int_equal(choice.count, 4);
    assert_int_equal(batch_choice_next(&choice, 8), 1);
    assert_int_equal(learn(&choice, &even, 8), 4 * BATCH_CHOICE_RUNS);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(choice.sizes[i].tiles, 1u << i);
        assert_int_equal(choice.sizes[i].runs, BATCH_CHOICE_RUNS);
    }
}

static void check_made(const struct machine *machine, uint32_t most, uint32_t expected)
{
    struct batch_choice choice;
    batch_choice_begin(&choice, most);
    assert_int_equal(batch_choice_made(&choice), 0);
    learn(&choice, machine, most);
    assert_int_equal(batch_choice_made(&choice), expected);
    assert_int_equal(batch_choice_next(&choice, most), expected);
    assert_int_equal(batch_choice_next(&choice, 1), 1);
    assert_int_equal(batch_choice_next(&choice, 100000), expected);
}

static void the_smallest_that_is_fast_enough_is_chosen(void **state)
{
    (void)state;
    check_made(&even, 8, 1);
    check_made(&quick_start, 8, 4); /* 1100, 1050, 1025, 1012 a tile */
    check_made(&slow_start, 8, 8);
    check_made(&slow_start, 6, 6);
    check_made(&slow_start, 1, 1);
    check_made(&slow_start, 1024, 256); /* 1031, and 1008 with four times as many */
}

static void a_size_that_is_slower_than_its_neighbours_is_passed_over(void **state)
{
    (void)state;
    struct batch_choice choice;
    batch_choice_begin(&choice, 4);
    for (int i = 0; i < BATCH_CHOICE_RUNS; i++) {
        batch_choice_note(&choice, 1, 1000);
        batch_choice_note(&choice, 2, 3000);
        batch_choice_note(&choice, 4, 3600);
    }
    assert_int_equal(batch_choice_made(&choice), 4);
}

static void the_best_run_counts(void **state)
{
    (void)state;
    struct batch_choice choice;
    batch_choice_begin(&choice, 2);
    for (int i = 0; i < BATCH_CHOICE_RUNS; i++) {
        batch_choice_note(&choice, 1, i == 1 ? 1000 : 90000); /* others had the cores meanwhile */
        batch_choice_note(&choice, 2, 2000);
    }
    assert_int_equal(batch_choice_made(&choice), 1);
    /* What comes later changes nothing. */
    batch_choice_note(&choice, 2, 10);
    assert_int_equal(batch_choice_made(&choice), 1);
}

static void a_choice_is_made_anew_after_a_while(void **state)
{
    (void)state;
    struct batch_choice choice;
    batch_choice_begin(&choice, 8);
    learn(&choice, &even, 8);
    for (unsigned i = 0; i < BATCH_CHOICE_LASTS - 2; i++) {
        batch_choice_note(&choice, 1, 1);
        assert_int_equal(batch_choice_made(&choice), 1);
    }
    batch_choice_note(&choice, 1, 1);
    assert_int_equal(batch_choice_made(&choice), 0);
    learn(&choice, &slow_start, 8);
    assert_int_equal(batch_choice_made(&choice), 8);
}

static void with_few_that_wait_it_chooses_among_what_they_fill(void **state)
{
    (void)state;
    struct batch_choice choice;
    batch_choice_begin(&choice, 8);
    learn(&choice, &slow_start, 3);
    assert_int_equal(batch_choice_made(&choice), 0);
    assert_int_equal(batch_choice_next(&choice, 3),
                     3); /* the more the better, as far as is known */
    assert_int_equal(batch_choice_next(&choice, 5), 4); /* not tried yet */
    batch_choice_begin(&choice, 8);
    learn(&choice, &even, 3);
    assert_int_equal(batch_choice_next(&choice, 3), 1);
    assert_int_equal(batch_choice_next(&choice, 0), 1);
    batch_choice_note(&choice, 3, 1); /* no size of those that are compared */
    assert_int_equal(batch_choice_next(&choice, 3), 1);
}

static void the_times_are_told(void **state)
{
    (void)state;
    struct batch_choice choice;
    char text[64];
    batch_choice_begin(&choice, 4);
    batch_choice_tell(&choice, text, sizeof text);
    assert_string_equal(text, "");
    batch_choice_note(&choice, 1, 8200000);
    batch_choice_note(&choice, 4, 32000000);
    batch_choice_tell(&choice, text, sizeof text);
    assert_string_equal(text, "1: 8.20, 4: 8.00");
    batch_choice_tell(&choice, text, 5);
    assert_string_equal(text, "1: 8");
}

static void each_size_of_image_has_a_choice(void **state)
{
    (void)state;
    struct batch_choices choices = {.looks = 0};
    struct batch_choice *small = batch_choices_find(&choices, 64, 64, 8);
    learn(small, &slow_start, 8);
    struct batch_choice *large = batch_choices_find(&choices, 64, 128, 2);
    assert_ptr_not_equal(small, large);
    assert_int_equal(large->count, 2);
    assert_int_equal(batch_choice_made(batch_choices_find(&choices, 64, 64, 8)), 8);
    /* Those that were not seen for longest go, and begin anew when they come again. */
    for (uint32_t i = 0; i < BATCH_CHOICE_IMAGES - 1; i++) {
        batch_choices_find(&choices, 1000, i, 8);
        assert_int_equal(batch_choice_made(batch_choices_find(&choices, 64, 64, 8)), 8);
    }
    for (uint32_t i = 0; i < BATCH_CHOICE_IMAGES; i++)
        batch_choices_find(&choices, 2000, i, 8);
    assert_int_equal(batch_choice_made(batch_choices_find(&choices, 64, 64, 8)), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_size_has_its_runs),
        cmocka_unit_test(the_smallest_that_is_fast_enough_is_chosen),
        cmocka_unit_test(a_size_that_is_slower_than_its_neighbours_is_passed_over),
        cmocka_unit_test(the_best_run_counts),
        cmocka_unit_test(a_choice_is_made_anew_after_a_while),
        cmocka_unit_test(with_few_that_wait_it_chooses_among_what_they_fill),
        cmocka_unit_test(the_times_are_told),
        cmocka_unit_test(each_size_of_image_has_a_choice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
