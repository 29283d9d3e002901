/*
 * What the cuDNN backend copies, and when: tiles straight from their slots and labels straight into
 * theirs, beside a forward pass, and of batches that nobody waits for.
 */
#include "tests/gpu/against_reference.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

static size_t locked_now(void)
{
    double_locked_fn *function;
    *(void **)&function = double_symbol("gpudouble_locked");
    return function != NULL ? function() : 0;
}

/* ---- areas of the queue ---- */

#define LOTS      6
#define LOT_BYTES (((size_t)4 << 20) + 8192) /* a piece, and a little of the next */

/* Slots' areas as a worker has them: inputs that it only reads, outputs that it writes. */
struct lots {
    char *filled; /* the inputs, for whoever fills them */
    char *inputs;
    char *outputs;
};

static struct lots lots;

static void map_lots(void)
{
    int fd = memfd_create("inputs", 0);
    assert_true(fd >= 0 && ftruncate(fd, LOTS * LOT_BYTES) == 0);
    lots.filled = (char *)mmap(NULL, LOTS * LOT_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    lots.inputs = (char *)mmap(NULL, LOTS * LOT_BYTES, PROT_READ, MAP_SHARED, fd, 0);
    lots.outputs = (char *)mmap(NULL, LOTS * LOT_BYTES, PROT_READ | PROT_WRITE,
                                MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(lots.filled != MAP_FAILED && lots.inputs != MAP_FAILED &&
                lots.outputs != MAP_FAILED);
    close(fd);
}

static void unmap_lots(void)
{
    munmap(lots.filled, LOTS * LOT_BYTES);
    munmap(lots.inputs, LOTS * LOT_BYTES);
    munmap(lots.outputs, LOTS * LOT_BYTES);
}

static int find_lot(void *opaque, const void *address, struct unetserve_area *out)
{
    const char *at = (const char *)address;
    (void)opaque;
    for (int i = 0; i < 2; i++) {
        const char *first = i == 0 ? lots.inputs : lots.outputs;
        if (at >= first && at < first + LOTS * LOT_BYTES) {
            size_t before = (size_t)(at - first) / LOT_BYTES * LOT_BYTES;
            *out = (struct unetserve_area){first + before, LOT_BYTES, i == 1};
            return 0;
        }
    }
    return -ENOENT;
}

/* Where in its lot a tile lies: at the front, or across two pieces. */
static size_t place_in_lot(uint32_t tile)
{
    return tile % LOTS * LOT_BYTES + (tile % 2 == 0 ? 0 : ((size_t)4 << 20) - 100);
}

/* The same tiles in lots, the last one elsewhere; labels only. */
static void move_to_lots(struct tiles *tiles)
{
    size_t bytes = (size_t)network->in_channels * tiles->height * tiles->width * sizeof(float);
    for (uint32_t i = 0; i + 1 < tiles->count; i++) {
        memcpy(lots.filled + place_in_lot(i), tiles->inputs[i], bytes);
        free(tiles->inputs[i]);
        free(tiles->labels[i]);
        tiles->inputs[i] = lots.inputs + place_in_lot(i);
        tiles->labels[i] = (uint8_t *)lots.outputs + place_in_lot(i);
    }
}

/* Run tiles in lots `rounds` times; the labels must be those of the reference backend. */
static void check_lots(void *gpu, uint32_t tile_count, int rounds, bool one_elsewhere)
{
    struct backend_options options = wishes("f32");
    void *reference = start(&backend_reference, &options);
    struct tiles tiles = make_tiles(UNETSERVE_F32, tile_count + 1, 20, 24);
    uint8_t *want[MOST_TILES];
    size_t plane = (size_t)tiles.height * tiles.width;
    tiles.count = tile_count + (one_elsewhere ? 1 : 0);
    assert_int_equal(run_labels(&backend_reference, reference, &tiles), 0);
    for (uint32_t i = 0; i < tiles.count; i++) {
        want[i] = (uint8_t *)malloc(plane);
        memcpy(want[i], tiles.labels[i], plane);
    }
    tiles.count = tile_count + 1;
    move_to_lots(&tiles);
    tiles.count = tile_count + (one_elsewhere ? 1 : 0);
    for (int round = 0; round < rounds; round++) {
        for (uint32_t i = 0; i < tiles.count; i++) {
            memset(tiles.labels[i], 0xee, plane);
        }
        assert_int_equal(run_labels(&backend_cudnn, gpu, &tiles), 0);
        for (uint32_t i = 0; i < tiles.count; i++) {
            assert_memory_equal(tiles.labels[i], want[i], plane);
        }
    }
    for (uint32_t i = 0; i < tiles.count; i++) {
        free(want[i]);
    }
    for (uint32_t i = 0; i < tile_count; i++) {
        free(tiles.logits[i]);
    }
    free(tiles.inputs[tile_count]);
    free(tiles.labels[tile_count]);
    free(tiles.logits[tile_count]);
    backend_reference.destroy(reference);
}

/* Tiles go from their slots to the device and labels come back into theirs, with nothing in
 * between; what is locked is locked once, and unlocked at the end. */
static void slots_are_locked_once(void **state)
{
    (void)state;
    open_network("tests/goldens/milesial_transposed.safetensors");
    map_lots();
    struct backend_options options = wishes("f32");
    options.area = find_lot;
    last_log[0] = '\0';
    long between = count("cuMemAllocHost");
    long locks = count("cuMemHostRegister");
    void *gpu = start(&backend_cudnn, &options);
    check_lots(gpu, 4, 3, false);
    if (on_double()) {
        assert_int_equal(count("cuMemAllocHost"), between);
        /* Lots 0 and 2 have one piece in use, 1 and 3 have two; inputs and outputs. */
        assert_int_equal(count("cuMemHostRegister"), locks + 2 * (1 + 2 + 1 + 2));
    }
    check_lots(gpu, LOTS - 1, 2, true); /* and one tile that lies in no slot */
    if (on_double()) {
        assert_true(count("cuMemAllocHost") > between);
        assert_true(locked_now() > 0);
    }
    assert_string_equal(last_log, "");
    backend_cudnn.destroy(gpu);
    assert_int_equal(locked_now(), 0);
    unmap_lots();
    source_close(&source);
}

static void inputs_that_cannot_be_locked_are_copied(void **state)
{
    (void)state;
    if (!on_double()) {
        skip();
    }
    open_network("tests/goldens/milesial_transposed.safetensors");
    map_lots();
    struct backend_options options = wishes("f32");
    options.area = find_lot;
    setenv("GPUDOUBLE_READ_ONLY", "no", 1);
    last_log[0] = '\0';
    long locks = count("cuMemHostRegister");
    void *gpu = start(&backend_cudnn, &options);
    check_lots(gpu, 4, 2, false);
    assert_non_null(strstr(last_log, "slots' inputs are not page-locked"));
    assert_int_equal(count("cuMemHostRegister"), locks + 1 + 2 + 1 + 2); /* outputs */
    unsetenv("GPUDOUBLE_READ_ONLY");
    backend_cudnn.destroy(gpu);
    unmap_lots();
    source_close(&source);
}

/* ---- several parts, several batches ---- */

/* Of a batch that goes in two parts, one's copies are made while the other is computed. */
static void copies_hide_behind_work(void **state)
{
    (void)state;
    const char *order = getenv("GPUDOUBLE_ORDER");
    if (!on_double() || (order != NULL && strcmp(order, "late") == 0)) {
        skip();
    }
    open_network("tests/goldens/milesial_transposed.safetensors");
    struct backend_options options = wishes("f32");
    void *gpu = start(&backend_cudnn, &options);
    struct tiles tiles = make_tiles(UNETSERVE_F32, 16, 16, 16);
    long before = count(DOUBLE_OVERLAP);
    tiles.count = 8;
    assert_int_equal(run_labels(&backend_cudnn, gpu, &tiles), 0);
    assert_int_equal(count(DOUBLE_OVERLAP), before);
    tiles.count = 16;
    assert_int_equal(run_labels(&backend_cudnn, gpu, &tiles), 0);
    assert_true(count(DOUBLE_OVERLAP) >= before + 8);
    free_tiles(&tiles);
    backend_cudnn.destroy(gpu);
    source_close(&source);
}

/* Batches that nobody waits for come out as those do that somebody does, in their order; the copies
 * of one hide behind the other's work. */
static void batches_overlap(void **state)
{
    (void)state;
    enum { BATCHES = 4, COUNT = 3, PIXELS = 16 * 20 };
    static uint8_t want[BATCHES][COUNT][PIXELS];
    uint64_t marks[BATCHES];
    uint64_t come = 0;
    struct tiles tiles[BATCHES];
    const char *order = getenv("GPUDOUBLE_ORDER");
    bool mixed = on_double() && (order == NULL || strcmp(order, "late") != 0);
    open_network("tests/goldens/milesial_transposed.safetensors");
    struct backend_options options = wishes("bf16");
    void *gpu = start(&backend_cudnn, &options);
    for (int i = 0; i < BATCHES; i++) {
        tiles[i] = make_tiles(UNETSERVE_F32, COUNT, 16, 20);
        assert_int_equal(run_labels(&backend_cudnn, gpu, &tiles[i]), 0);
        for (int k = 0; k < COUNT; k++) {
            memcpy(want[i][k], tiles[i].labels[k], PIXELS);
            memset(tiles[i].labels[k], 0xee, PIXELS);
        }
    }
    long before = count(DOUBLE_OVERLAP);
    for (int i = 0; i < BATCHES; i++) {
        const void *inputs[COUNT];
        uint8_t *labels[COUNT];
        memcpy(inputs, tiles[i].inputs, sizeof inputs);
        memcpy(labels, tiles[i].labels, sizeof labels);
        struct backend_batch batch = {COUNT, UNETSERVE_F32, 16, 20, inputs, labels, NULL};
        assert_int_equal(backend_cudnn.submit(gpu, &batch, &marks[i]), 0);
        memset(inputs, 0, sizeof inputs); /* the arrays are ours again */
        memset(labels, 0, sizeof labels);
        assert_true(i == 0 || marks[i] > marks[i - 1]);
    }
    for (int i = 0; i < BATCHES; i++) {
        assert_int_equal(backend_cudnn.collect(gpu, marks[i], &come), 0);
        assert_true(come >= marks[i]);
        for (int j = 0; j < BATCHES && marks[j] <= come; j++) { /* and whatever else has come */
            for (int k = 0; k < COUNT; k++) {
                assert_memory_equal(tiles[j].labels[k], want[j][k], PIXELS);
            }
        }
    }
    assert_true(!mixed || count(DOUBLE_OVERLAP) > before);
    backend_cudnn.destroy(gpu);
    for (int i = 0; i < BATCHES; i++) {
        free_tiles(&tiles[i]);
    }
    source_close(&source);
}

/* A batch whose second part finds no memory: its first part has ended when that is told, and the
 * next batch does not suffer. */
static void what_fails_leaves_nothing_under_way(void **state)
{
    (void)state;
    enum { COUNT = 16, PART = 8, PIXELS = 16 * 16 };
    static uint8_t want[COUNT][PIXELS];
    if (!on_double()) {
        skip();
    }
    open_network("tests/goldens/milesial_transposed.safetensors");
    struct backend_options options = wishes("bf16");
    struct tiles tiles = make_tiles(UNETSERVE_F32, COUNT, 16, 16);
    void *gpu = start(&backend_cudnn, &options);
    assert_int_equal(run_labels(&backend_cudnn, gpu, &tiles), 0);
    for (int k = 0; k < COUNT; k++) {
        memcpy(want[k], tiles.labels[k], PIXELS);
        memset(tiles.labels[k], 0xee, PIXELS);
    }
    backend_cudnn.destroy(gpu);
    gpu = start(&backend_cudnn, &options);
    tiles.count = PART; /* one lane gets room for 8, the other for 1 */
    assert_int_equal(run_labels(&backend_cudnn, gpu, &tiles), 0);
    tiles.count = 1;
    assert_int_equal(run_labels(&backend_cudnn, gpu, &tiles), 0);
    for (int k = 0; k < COUNT; k++) {
        memset(tiles.labels[k], 0xee, PIXELS);
    }
    tiles.count = COUNT;
    setenv("GPUDOUBLE_MEMORY", "1", 1);
    assert_int_equal(run_labels(&backend_cudnn, gpu, &tiles), -ENOMEM);
    unsetenv("GPUDOUBLE_MEMORY");
    for (int k = 0; k < PART; k++) {
        assert_memory_equal(tiles.labels[k], want[k], PIXELS);
    }
    assert_int_equal(run_labels(&backend_cudnn, gpu, &tiles), 0);
    for (int k = 0; k < COUNT; k++) {
        assert_memory_equal(tiles.labels[k], want[k], PIXELS);
    }
    backend_cudnn.destroy(gpu);
    free_tiles(&tiles);
    source_close(&source);
}

int main(int argc, char **argv)
{
    begin_program(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slots_are_locked_once),
        cmocka_unit_test(inputs_that_cannot_be_locked_are_copied),
        cmocka_unit_test(copies_hide_behind_work),
        cmocka_unit_test(batches_overlap),
        cmocka_unit_test(what_fails_leaves_nothing_under_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
