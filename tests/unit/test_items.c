/* A stream as its gateway takes it, and as it goes over the wire. */
#include "gateway/items.h"
#include "gateway/stream_text.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

struct scene {
    struct ring_counts counts;
    unsigned char bytes[128];
    struct ring producer;
    struct items items;
};

static void begin(struct scene *scene)
{
    memset(scene, 0, sizeof *scene);
    scene->producer = (struct ring){
        .counts = &scene->counts, .bytes = scene->bytes, .capacity = sizeof scene->bytes};
    items_begin(&scene->items, &scene->counts, scene->bytes, sizeof scene->bytes);
}

static void put(struct scene *scene, const char *text)
{
    assert_int_equal(ring_put(&scene->producer, text, strlen(text)), 0);
}

static enum items_next next(struct scene *scene, const char *expected)
{
    const char *bytes = NULL;
    size_t size = 0;
    bool wake;
    enum items_next what = items_take(&scene->items, &bytes, &size, &wake);
    if (expected) {
        assert_int_equal(what, ITEMS_ONE);
        assert_int_equal(size, strlen(expected));
        assert_memory_equal(bytes, expected, size);
    }
    return what;
}

static void a_stream_goes_from_the_ring_to_its_copy_to_the_end(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene);
    assert_false(items_ready(&scene.items));
    assert_int_equal(next(&scene, NULL), ITEMS_NOT_YET);
    put(&scene, "1");
    assert_true(items_ready(&scene.items));
    next(&scene, "1");
    assert_int_equal(next(&scene, NULL), ITEMS_NOT_YET);
    put(&scene, "[2]");
    put(&scene, "3");
    items_finish(&scene.items);
    memset(scene.bytes, 0, sizeof scene.bytes); /* the slot is another's by now */
    next(&scene, "[2]");
    assert_true(items_ready(&scene.items));
    next(&scene, "3");
    assert_int_equal(next(&scene, NULL), ITEMS_END);
    assert_int_equal(next(&scene, NULL), ITEMS_END);
    items_free(&scene.items);
}

static void a_broken_one_says_why_last(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene);
    put(&scene, "1");
    put(&scene, "2");
    items_finish(&scene.items);
    items_break(&scene.items, "It broke", false);
    next(&scene, "1");
    next(&scene, "2");
    next(&scene, "{\"detail\":\"It broke\"}");
    assert_int_equal(next(&scene, NULL), ITEMS_BROKEN);
    assert_int_equal(next(&scene, NULL), ITEMS_BROKEN);
    items_free(&scene.items);

    begin(&scene);
    put(&scene, "{\"detail\":\"the model's own\"}");
    items_finish(&scene.items);
    items_break(&scene.items, NULL, false);
    next(&scene, "{\"detail\":\"the model's own\"}");
    assert_int_equal(next(&scene, NULL), ITEMS_BROKEN);
    items_free(&scene.items);
}

static void one_that_is_cut_gives_nothing_more(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene);
    put(&scene, "1");
    items_break(&scene.items, "Too late", true);
    put(&scene, "2");
    assert_true(items_ready(&scene.items));
    next(&scene, "{\"detail\":\"Too late\"}");
    assert_int_equal(next(&scene, NULL), ITEMS_BROKEN);
    items_free(&scene.items);
}

static void nonsense_breaks_it(void **state)
{
    (void)state;
    struct scene scene;
    begin(&scene);
    atomic_store(&scene.counts.produced, 3);
    next(&scene, "{\"detail\":\"The model's stream makes no sense\"}");
    assert_int_equal(next(&scene, NULL), ITEMS_BROKEN);
    items_free(&scene.items);

    begin(&scene);
    atomic_store(&scene.counts.produced, 1000);
    items_finish(&scene.items);
    next(&scene, "{\"detail\":\"The model's stream makes no sense\"}");
    assert_int_equal(next(&scene, NULL), ITEMS_BROKEN);
    items_free(&scene.items);
}

static void check_text(bool events, const char *item, const char *expected)
{
    struct stream_text text = {.bytes = NULL};
    char whole[256] = "";
    size_t size = 0;
    assert_int_equal(
        stream_text_set(&text, events, "longer than what comes next, and left unsent", 44), 0);
    assert_int_equal(stream_text_set(&text, events, item, strlen(item)), 0);
    for (size_t taken; (taken = stream_text_take(&text, whole + size, 3)) > 0;)
        size += taken;
    whole[size] = '\0';
    assert_string_equal(whole, expected);
    stream_text_free(&text);
}

static void an_item_is_one_line_or_one_event(void **state)
{
    (void)state;
    check_text(false, "{\"a\":1}", "{\"a\":1}\n");
    check_text(false, "{\"a\":\n1}\r\n", "{\"a\": 1}\n");
    check_text(false, "", "\n");
    check_text(true, "{\"a\":1}", "data: {\"a\":1}\n\n");
    /* Otherwise an item could end its event, and begin another of any kind. */
    check_text(true, "{\n\n\"a\":\r1}\n\n", "data: {  \"a\": 1}\n\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stream_goes_from_the_ring_to_its_copy_to_the_end),
        cmocka_unit_test(a_broken_one_says_why_last),
        cmocka_unit_test(one_that_is_cut_gives_nothing_more),
        cmocka_unit_test(nonsense_breaks_it),
        cmocka_unit_test(an_item_is_one_line_or_one_event),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
