/*
 * Memory that is kept for the next who needs it: given again, within bounds, and freed in the end.
 */
#include "gateway/spare.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { SIZE = 2000, PIECES = SPARE_MAX + 3 };

static void test_pieces_are_given_again(void **state)
{
    (void)state;
    struct spare spare = {.size = SIZE};
    void *pieces[PIECES];
    for (int i = 0; i < PIECES; i++) {
        pieces[i] = spare_take(&spare);
        assert_non_null(pieces[i]);
        memset(pieces[i], i, SIZE);
    }
    for (int i = 0; i < PIECES; i++)
        spare_give(&spare, pieces[i]);
    spare_give(&spare, NULL);
    assert_int_equal(spare.count, SPARE_MAX);
    void *again = spare_take(&spare);
    assert_non_null(again);
    if (SPARE_MAX)
        assert_ptr_equal(again, pieces[SPARE_MAX - 1]);
    spare_give(&spare, again);
    spare_free(&spare);
    assert_int_equal(spare.count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_pieces_are_given_again)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
