#include "pickles.h"
#include "workers/models/unet/pickle.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

static char error[512];

static const struct pickle_value *parse(const struct pickle_text *p, void **memory)
{
    const struct pickle_value *root = NULL;
    error[0] = '\0';
    *memory = NULL;
    if (pickle_parse(p->bytes, p->size, memory, &root, error, sizeof error) < 0)
        fail_msg("%s", error);
    return root;
}

static void expect_refusal(const struct pickle_text *p, const char *words)
{
    void *memory = NULL;
    const struct pickle_value *root = NULL;
    error[0] = '\0';
    int rc = pickle_parse(p->bytes, p->size, &memory, &root, error, sizeof error);
    assert_int_equal(rc, -EBADMSG);
    assert_null(memory);
    if (!strstr(error, words))
        fail_msg("expected \"%s\" in \"%s\"", words, error);
}

static void test_plain_values(void **state)
{
    (void)state;
    struct pickle_text p = {.size = 0};
    void *memory;
    PUT(&p, "\x80\x02}(");
    put_text(&p, "a");
    PUT(&p, "K\xff");
    put_text(&p, "b");
    PUT(&p, "J\xfe\xff\xff\xff");
    put_text(&p, "c");
    PUT(&p, "\x8a\x02\x00\x80"); /* LONG1: -32768 */
    put_text(&p, "d");
    PUT(&p, "M\x34\x12");
    put_text(&p, "a"); /* again: the last one wins */
    PUT(&p, "\x88u.");
    const struct pickle_value *root = parse(&p, &memory);
    assert_int_equal(root->kind, PICKLE_DICT);
    assert_int_equal(pickle_dict_find(root, "a")->kind, PICKLE_BOOL);
    assert_int_equal(pickle_dict_find(root, "b")->as.number, -2);
    assert_int_equal(pickle_dict_find(root, "c")->as.number, -32768);
    assert_int_equal(pickle_dict_find(root, "d")->as.number, 0x1234);
    assert_null(pickle_dict_find(root, "e"));
    pickle_free(memory);
}

static void test_containers_and_memo(void **state)
{
    (void)state;
    struct pickle_text p = {.size = 0};
    void *memory;
    /* [(1, 2), (1, 2), [], None, 0.5], the second tuple through the memo; frames and MEMOIZE of
     * protocol 4 */
    PUT(&p, "\x80\x04\x95\x10\0\0\0\0\0\0\0]\x94(K\x01K\x02\x86\x94h\x01]NG?\xe0\0\0\0\0\0\0e.");
    const struct pickle_value *root = parse(&p, &memory);
    assert_int_equal(root->kind, PICKLE_LIST);
    assert_int_equal(root->count, 5);
    assert_ptr_equal(root->as.items[0], root->as.items[1]);
    assert_int_equal(root->as.items[0]->as.items[1]->as.number, 2);
    assert_int_equal(root->as.items[2]->kind, PICKLE_LIST);
    pickle_free(memory);
}

static void test_tensor(void **state)
{
    (void)state;
    struct pickle_text p = {.size = 0};
    void *memory;
    const struct tensor_text tensor = {"HalfStorage", "17", 40, 3, 2, {5, 2}, {2, 1}};
    PUT(&p, "\x80\x02");
    /* as a parameter: _rebuild_parameter(tensor, True, OrderedDict()) */
    put_global(&p, "torch._utils", "_rebuild_parameter");
    PUT(&p, "(");
    put_tensor(&p, &tensor);
    PUT(&p, "\x88");
    put_global(&p, "collections", "OrderedDict");
    PUT(&p, ")RtR.");
    const struct pickle_value *root = parse(&p, &memory);
    assert_int_equal(root->kind, PICKLE_TENSOR);
    assert_int_equal(root->as.tensor->offset, 3);
    assert_int_equal(root->as.tensor->rank, 2);
    assert_int_equal(root->as.tensor->dims[0], 5);
    assert_int_equal(root->as.tensor->strides[0], 2);
    assert_int_equal(root->as.tensor->storage->dtype, WEIGHTS_F16);
    assert_string_equal(root->as.tensor->storage->key, "17");
    pickle_free(memory);
}

static void test_attributes_are_ignored(void **state)
{
    (void)state;
    struct pickle_text p = {.size = 0};
    void *memory;
    PUT(&p, "\x80\x02");
    put_global(&p, "collections", "OrderedDict");
    PUT(&p, ")R(");
    put_text(&p, "k");
    PUT(&p, "K\x05u}");
    put_text(&p, "_metadata");
    PUT(&p, "}sb.");
    const struct pickle_value *root = parse(&p, &memory);
    assert_int_equal(root->kind, PICKLE_DICT);
    assert_int_equal(root->count, 2);
    pickle_free(memory);
}

/* What trainers keep beside the weights: best_loss as a numpy scalar, a confusion matrix, sets and
 * counters. They are passed over; the tensor behind them is read. */
static void test_numpy_values_are_passed_over(void **state)
{
    (void)state;
    struct pickle_text p = {.size = 0};
    void *memory;
    const struct tensor_text tensor = {"FloatStorage", "0", 4, 0, 1, {4}, {1}};
    /* scalar(dtype('f8'), encode('...', 'latin1')), as protocol 2 writes numpy.float64 */
    PUT(&p, "\x80\x02(cnumpy._core.multiarray\nscalar\ncnumpy\ndtype\nq\x01");
    put_text(&p, "f8");
    PUT(&p, "\x89\x88\x87R(K\x03");
    put_text(&p, "<");
    PUT(&p, "NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tbc_codecs\nencode\n");
    put_text(&p, "333333\xc3\x93?");
    put_text(&p, "latin1");
    PUT(&p, "\x86R\x86R");
    /* an array of an older numpy: _reconstruct(ndarray, (0,), 'b'), then its state */
    PUT(&p, "cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85U\x01"
            "b\x87R(K\x01K\x02\x85h\x01U\x02u1K\0K\x01\x87R\x89U\x02\x05\x06tb");
    PUT(&p, "c__builtin__\nset\n](K\x01K\x02"
            "e\x85Rccollections\nCounter\n}K\x03K\x01s\x85R");
    /* protocols 4 and 5: a frozenset, a bytearray */
    PUT(&p, "(K\x01\x91\x96\x02\0\0\0\0\0\0\0ab");
    put_tensor(&p, &tensor);
    PUT(&p, "t.");
    const struct pickle_value *root = parse(&p, &memory);
    assert_int_equal(root->kind, PICKLE_TUPLE);
    assert_int_equal(root->count, 7);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(root->as.items[i]->kind, PICKLE_NONE);
    assert_int_equal(root->as.items[6]->kind, PICKLE_TENSOR);
    pickle_free(memory);
}

static void test_programs_are_refused_by_name(void **state)
{
    static const char *const names[][3] = {
        {"os", "system", "os.system"},
        {"posix", "system", "posix.system"},
        {"builtins", "eval", "builtins.eval"},
        {"__builtin__", "getattr", "__builtin__.getattr"},
        {"__main__", "UNet", "__main__.UNet"},
        {"torch", "FloatStorage2", "torch.FloatStorage2"},
        {"torch._utils", "_rebuild_tensor_v", "torch._utils._rebuild_tensor_v,"},
        {"collections", "OrderedDict.update", "collections.OrderedDict.update"},
        {"numpy", "load", "numpy.load"},
        {"numpy.core.multiarray", "fromfile", "numpy.core.multiarray.fromfile"},
        {"_codecs", "lookup", "_codecs.lookup"},
        {"argparse", "Namespace", "argparse.Namespace"},
        {"datetime", "datetime", "datetime.datetime"},
        {"a\x1b[31m", "b", "a?[31m.b"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct pickle_text classic = {.size = 0};
        PUT(&classic, "\x80\x02");
        put_global(&classic, names[i][0], names[i][1]);
        PUT(&classic, "(");
        put_text(&classic, "true");
        PUT(&classic, "tR.");
        expect_refusal(&classic, names[i][2]);
        assert_non_null(strstr(error, "refused: the pickle names"));
        struct pickle_text stacked = {.size = 0};
        PUT(&stacked, "\x80\x04");
        put_text(&stacked, names[i][0]);
        put_text(&stacked, names[i][1]);
        PUT(&stacked, "\x93.");
        expect_refusal(&stacked, names[i][2]);
    }
}

static void test_damage_is_refused(void **state)
{
    static const struct {
        const char *bytes;
        size_t size;
        const char *words;
    } cases[] = {
#define CASE(literal, words) {literal, sizeof(literal) - 1, words}
        CASE("", "protocol"),
        CASE("}.", "protocol"),
        CASE("\x80\x01}.", "protocol"),
        CASE("\x80\x06}.", "protocol"),
        CASE("\x80\x02", "too early"),
        CASE("\x80\x02}", "too early"),
        CASE("\x80\x02.", "middle of a value"),
        CASE("\x80\x02}}.", "middle of a value"),
        CASE("\x80\x02(}.", "middle of a value"),
        CASE("\x80\x02"
             "0.",
             "empty stack"),
        CASE("\x80\x02t.", "no mark"),
        CASE("\x80\x02}(Ku", "too early"),
        CASE("\x80\x02}(K\x01u.", "takes none"),
        CASE("\x80\x02](K\x01K\x02u.", "takes none"),
        CASE("\x80\x02N(K\x01"
             "e.",
             "takes none"),
        CASE("\x80\x02K\x01(\x85.", "empty stack"),
        CASE("\x80\x02NNR.", "cannot be called"),
        CASE("\x80\x02NQ.", "reference"),
        CASE("\x80\x02Nb.", "attributes"),
        CASE("\x80\x02h\x05.", "never set"),
        CASE("\x80\x02Nr\xff\xff\xff\x7f.", "memo"),
        CASE("\x80\x02X\xff\xff\xff\xffz.", "past the end"),
        CASE("\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xffz.", "past the end"),
        CASE("\x80\x02\x8a\xffz.", "too early"),
        CASE("\x80\x02"
             "cos",
             "unfinished name"),
        CASE("\x80\x02P1\n.", "opcode 0x50"),
        CASE("\x80\x02i1\n.", "opcode 0x69"),
        CASE("\x80\x02\x82\x01.", "opcode 0x82"),
        CASE("\x80\x05\x97.", "opcode 0x97"),
        CASE("\x80\x02"
             "ctorch\nFloatStorage\n)R.",
             "storage type"),
        CASE("\x80\x02"
             "ctorch._utils\n_rebuild_tensor_v2\n)R.",
             "too few"),
        CASE("\x80\x02"
             "ctorch._utils\n_rebuild_tensor_v2\n(NK\x00))tR.",
             "wrong arguments"),
#undef CASE
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct pickle_text p = {.size = 0};
        put_bytes(&p, cases[i].bytes, cases[i].size);
        expect_refusal(&p, cases[i].words);
    }
}

/* A list that holds itself, and a deep nest: read without recursion, freed without recursion. */
static void test_cycles_and_depth(void **state)
{
    (void)state;
    struct pickle_text p = {.size = 0};
    void *memory;
    PUT(&p, "\x80\x02]q\x00h\x00"
            "a.");
    const struct pickle_value *root = parse(&p, &memory);
    assert_ptr_equal(root->as.items[0], root);
    pickle_free(memory);

    const size_t depth = 1000000;
    unsigned char *deep = malloc(depth * 2 + 3);
    assert_non_null(deep);
    deep[0] = 0x80;
    deep[1] = 2;
    memset(deep + 2, ']', depth);
    memset(deep + 2 + depth, 'a', depth - 1);
    deep[2 * depth + 1] = '.';
    assert_int_equal(pickle_parse(deep, depth * 2 + 2, &memory, &root, error, sizeof error), 0);
    pickle_free(memory);
    free(deep);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain_values),
        cmocka_unit_test(test_containers_and_memo),
        cmocka_unit_test(test_tensor),
        cmocka_unit_test(test_attributes_are_ignored),
        cmocka_unit_test(test_numpy_values_are_passed_over),
        cmocka_unit_test(test_programs_are_refused_by_name),
        cmocka_unit_test(test_damage_is_refused),
        cmocka_unit_test(test_cycles_and_depth),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
