/* Recognition of families, torch's parameter counts and cost, and what a report says when names or
 * shapes do not fit. */
#include "goldens.h"
#include "workers/models/unet/family.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* ---- state dicts made here: right names and shapes, all zeros ---- */

#define SYNTHETIC_MAX 512

struct synthetic {
    struct weights weights;
    struct weights_tensor tensors[SYNTHETIC_MAX];
    char names[SYNTHETIC_MAX][96];
    uint64_t largest;
    void *zeros;
};

static void add_tensor(struct synthetic *s, const char *path, const char *leaf, uint32_t rank,
                       const uint64_t *dims)
{
    size_t at = s->weights.count++;
    assert_true(at < SYNTHETIC_MAX);
    struct weights_tensor *tensor = &s->tensors[at];
    snprintf(s->names[at], sizeof s->names[at], "%s.%s", path, leaf);
    *tensor = (struct weights_tensor){.name = s->names[at], .dtype = WEIGHTS_F32, .rank = rank};
    tensor->elements = 1;
    for (uint32_t i = 0; i < rank; i++) {
        tensor->dims[i] = dims[i];
        tensor->elements *= dims[i];
    }
    tensor->bytes = (size_t)tensor->elements * 4;
    if (tensor->elements > s->largest)
        s->largest = tensor->elements;
}

static void add_conv(struct synthetic *s, const char *path, uint64_t out, uint64_t in,
                     uint64_t kernel)
{
    add_tensor(s, path, "weight", 4, (const uint64_t[]){out, in, kernel, kernel});
}

static void add_norm(struct synthetic *s, const char *path, uint64_t channels)
{
    static const char *const leaves[] = {"weight", "bias", "running_mean", "running_var"};
    for (int i = 0; i < 4; i++)
        add_tensor(s, path, leaves[i], 1, &channels);
}

/* conv, norm, conv, norm at prefix + each of the four parts */
static void add_double(struct synthetic *s, const char *prefix, const char *const *parts,
                       uint64_t in, uint64_t middle, uint64_t out)
{
    char path[96];
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s%s", prefix, parts[2 * i]);
        add_conv(s, path, i ? out : middle, i ? middle : in, 3);
        snprintf(path, sizeof path, "%s%s", prefix, parts[2 * i + 1]);
        add_norm(s, path, i ? out : middle);
    }
}

static const char *const by_index[4] = {"0", "1", "3", "4"};
static const char *const by_word[4] = {"conv1", "norm1", "conv2", "norm2"};

static void add_head(struct synthetic *s, const char *path, uint64_t classes, uint64_t in)
{
    add_conv(s, path, classes, in, 1);
    add_tensor(s, path, "bias", 1, &classes);
}

static struct synthetic *finish(struct synthetic *s)
{
    s->zeros = calloc((size_t)s->largest, sizeof(float));
    assert_non_null(s->zeros);
    for (size_t i = 0; i < s->weights.count; i++)
        s->tensors[i].data = s->zeros;
    s->weights.tensors = s->tensors;
    return s;
}

static struct synthetic *begin(void)
{
    struct synthetic *s = calloc(1, sizeof *s);
    assert_non_null(s);
    return s;
}

static void discard(struct synthetic *s)
{
    free(s->zeros);
    free(s);
}

static struct synthetic *make_milesial(bool bilinear)
{
    struct synthetic *s = begin();
    char path[96];
    add_double(s, "inc.double_conv.", by_index, 12, 64, 64);
    for (uint64_t n = 1; n <= 4; n++) {
        uint64_t out = (64ull << n) / (bilinear && n == 4 ? 2 : 1);
        snprintf(path, sizeof path, "down%u.maxpool_conv.1.double_conv.", (unsigned)n);
        add_double(s, path, by_index, 32ull << n, out, out);
    }
    for (uint64_t n = 1; n <= 4; n++) {
        uint64_t in = 2048ull >> n;
        snprintf(path, sizeof path, "up%u.up", (unsigned)n);
        uint64_t half = in / 2;
        if (!bilinear) {
            add_tensor(s, path, "weight", 4, (const uint64_t[]){in, half, 2, 2});
            add_tensor(s, path, "bias", 1, &half);
        }
        snprintf(path, sizeof path, "up%u.conv.double_conv.", (unsigned)n);
        add_double(s, path, by_index, in, half, bilinear && n < 4 ? half / 2 : half);
    }
    add_head(s, "outc.conv", 11, 64);
    return finish(s);
}

static struct synthetic *make_mateuszbuda(void)
{
    struct synthetic *s = begin();
    char path[96];
    for (uint64_t n = 1; n <= 4; n++) {
        uint64_t out = 16ull << n;
        snprintf(path, sizeof path, "encoder%u.enc%u", (unsigned)n, (unsigned)n);
        add_double(s, path, by_word, n == 1 ? 12 : out / 2, out, out);
    }
    add_double(s, "bottleneck.bottleneck", by_word, 256, 512, 512);
    for (uint64_t n = 4; n >= 1; n--) {
        uint64_t out = 16ull << n;
        snprintf(path, sizeof path, "upconv%u", (unsigned)n);
        add_tensor(s, path, "weight", 4, (const uint64_t[]){out * 2, out, 2, 2});
        add_tensor(s, path, "bias", 1, &out);
        snprintf(path, sizeof path, "decoder%u.dec%u", (unsigned)n, (unsigned)n);
        add_double(s, path, by_word, out * 2, out, out);
    }
    add_head(s, "conv", 11, 32);
    return finish(s);
}

static char report[65536];

typedef int make_network(const struct weights *weights, const struct family_wish *wish,
                         struct network *out, char *text, size_t size);

/* Without its values, a network is the same. */
static void expect_plan(make_network *make, const struct weights *weights,
                        const struct family_wish *wish, const struct network *whole)
{
    struct network plan;
    assert_int_equal(make(weights, wish, &plan, report, sizeof report), 0);
    assert_int_equal(plan.layer_count, whole->layer_count);
    assert_int_equal(plan.parameters, whole->parameters);
    assert_int_equal(plan.classes, whole->classes);
    assert_int_equal(plan.size_multiple, whole->size_multiple);
    for (size_t i = 0; i < plan.layer_count; i++) {
        const struct network_layer *a = &plan.layers[i];
        const struct network_layer *b = &whole->layers[i];
        assert_null(a->weights);
        assert_null(a->bias);
        assert_int_equal(a->op, b->op);
        assert_memory_equal(a->inputs, b->inputs, sizeof a->inputs);
        assert_int_equal(a->channels, b->channels);
        assert_int_equal(a->kernel, b->kernel);
        assert_int_equal(a->relu, b->relu);
        assert_string_equal(a->name, b->name);
    }
    network_free(&plan);
}

static struct network build(const struct weights *weights, const char *family)
{
    struct network network;
    const struct family_wish wish = {.family = family};
    report[0] = '\0';
    if (family_build(weights, &wish, &network, report, sizeof report) < 0)
        fail_msg("%s", report);
    expect_plan(family_plan, weights, &wish, &network);
    expect_plan(family_check, weights, &wish, &network);
    return network;
}

/* conv1 and conv2 of one of fepegar's blocks; without the first norm there is a bias. */
static void add_fepegar_block(struct synthetic *s, const char *prefix, uint64_t in, uint64_t out,
                              bool first)
{
    char path[96];
    for (int i = 1; i <= 2; i++) {
        snprintf(path, sizeof path, "%s.conv%d.conv_layer", prefix, i);
        add_conv(s, path, out, i == 1 ? in : out, 3);
        if (first && i == 1) {
            add_tensor(s, path, "bias", 1, &out);
            continue;
        }
        snprintf(path, sizeof path, "%s.conv%d.norm_layer", prefix, i);
        add_norm(s, path, out);
    }
}

static struct synthetic *make_fepegar(void)
{
    struct synthetic *s = begin();
    char path[96];
    for (unsigned n = 0; n < 4; n++) {
        snprintf(path, sizeof path, "encoder.encoding_blocks.%u", n);
        add_fepegar_block(s, path, n ? 32ull << n : 12, 64ull << n, n == 0);
    }
    add_fepegar_block(s, "bottom_block", 512, 1024, false);
    for (unsigned n = 0; n < 4; n++) {
        uint64_t in = 1024ull >> n;
        snprintf(path, sizeof path, "decoder.decoding_blocks.%u.upsample", n);
        add_tensor(s, path, "weight", 4, (const uint64_t[]){in, in, 2, 2});
        add_tensor(s, path, "bias", 1, &in);
        snprintf(path, sizeof path, "decoder.decoding_blocks.%u", n);
        add_fepegar_block(s, path, in + in / 2, in / 2, false);
    }
    add_head(s, "classifier.conv_layer", 11, 64);
    return finish(s);
}

/* conv and norm of one kernel size at prefix.conv and prefix.norm */
static void add_normed(struct synthetic *s, const char *prefix, const char *const names[2],
                       uint64_t out, uint64_t in, uint64_t kernel)
{
    char path[96];
    snprintf(path, sizeof path, "%s.%s", prefix, names[0]);
    add_conv(s, path, out, in, kernel);
    snprintf(path, sizeof path, "%s.%s", prefix, names[1]);
    add_norm(s, path, out);
}

static void add_smp_layer(struct synthetic *s, unsigned number, unsigned blocks, uint64_t in,
                          uint64_t out)
{
    char prefix[48];
    for (unsigned j = 0; j < blocks; j++) {
        snprintf(prefix, sizeof prefix, "encoder.layer%u.%u", number, j);
        add_normed(s, prefix, (const char *const[]){"conv1", "bn1"}, out, j ? out : in, 3);
        add_normed(s, prefix, (const char *const[]){"conv2", "bn2"}, out, out, 3);
        if (j == 0 && in != out)
            add_normed(s, prefix, (const char *const[]){"downsample.0", "downsample.1"}, out, in,
                       1);
    }
}

static struct synthetic *make_smp(const unsigned blocks[4])
{
    static const uint64_t skips[] = {256, 128, 64, 64, 0};
    const uint64_t classes = 11;
    struct synthetic *s = begin();
    char prefix[48];
    uint64_t in = 512;
    add_normed(s, "encoder", (const char *const[]){"conv1", "bn1"}, 64, 12, 7);
    for (unsigned n = 1; n <= 4; n++)
        add_smp_layer(s, n, blocks[n - 1], n == 1 ? 64 : 32ull << (n - 1), 32ull << n);
    for (unsigned n = 0; n < 5; n++) {
        uint64_t out = 256ull >> n;
        snprintf(prefix, sizeof prefix, "decoder.blocks.%u", n);
        add_normed(s, prefix, (const char *const[]){"conv1.0", "conv1.1"}, out, in + skips[n], 3);
        add_normed(s, prefix, (const char *const[]){"conv2.0", "conv2.1"}, out, out, 3);
        in = out;
    }
    add_conv(s, "segmentation_head.0", classes, 16, 3);
    add_tensor(s, "segmentation_head.0", "bias", 1, &classes);
    return finish(s);
}

static void check_size(struct synthetic *s, const char *family, uint64_t parameters, double gflop)
{
    struct network network = build(&s->weights, NULL);
    assert_string_equal(network.family, family);
    assert_int_equal(network.parameters, parameters);
    assert_int_equal(network.in_channels, 12);
    assert_int_equal(network.classes, 11);
    uint32_t depth = strcmp(family, "smp") == 0 ? 5 : 4;
    assert_int_equal(network.depth, depth);
    assert_int_equal(network.size_min, 1 << depth);
    double measured = (double)network_flop(&network, 256, 256) / 1e9;
    assert_true(measured > gflop - 0.06 && measured < gflop + 0.06);
    network_free(&network);
    discard(s);
}

static void test_sizes_are_torchs(void **state)
{
    (void)state;
    check_size(make_milesial(false), "milesial", 31043467, 97.1);
    check_size(make_milesial(true), "milesial", 17268811, 80.7);
    check_size(make_mateuszbuda(), "mateuszbuda", 7765963, 24.5);
    check_size(make_fepegar(), "fepegar", 36963083, 120.7);
    check_size(make_smp((const unsigned[]){2, 2, 2, 2}), "smp", 14357883, 11.9);
    check_size(make_smp((const unsigned[]){3, 4, 6, 3}), "smp", 24466043, 16.7);
}

/* ---- goldens: recognition under any prefix, every lost tensor noticed ---- */

struct golden {
    const char *file;
    const char *family;
    const char *up;
    uint32_t depth;
    uint32_t base_width;
    uint32_t size_multiple;
};

static const struct golden goldens[] = {
    {"milesial_transposed.safetensors", "milesial", "transposed", 3, 4, 1},
    {"milesial_deep.safetensors", "milesial", "transposed", 4, 2, 1},
    {"milesial_bilinear.safetensors", "milesial", "bilinear", 3, 4, 1},
    {"milesial_no_norm.safetensors", "milesial", "transposed", 2, 4, 1},
    {"milesial_checkpoint.pth", "milesial", "transposed", 3, 3, 1},
    {"mateuszbuda.safetensors", "mateuszbuda", "transposed", 3, 3, 8},
    {"mateuszbuda_bf16.pth", "mateuszbuda", "transposed", 2, 4, 4},
    {"aladdinpersson.safetensors", "aladdinpersson", "transposed", 3, 4, 8},
    {"zhoudaxia233.safetensors", "zhoudaxia233", "transposed", 3, 3, 8},
    {"zhoudaxia233_views.pth", "zhoudaxia233", "transposed", 2, 3, 4},
    {"plain.safetensors", "plain", "transposed", 2, 4, 4},
    {"plain_upwards.safetensors", "plain", "transposed", 3, 5, 8},
    {"cbr.safetensors", "cbr", "transposed", 2, 4, 4},
    {"cbr_nested.safetensors", "cbr", "transposed", 3, 4, 8},
    {"cbr_compiled.pth", "cbr", "transposed", 2, 4, 4},
    {"fepegar.safetensors", "fepegar", "transposed", 2, 4, 4},
    {"smp.safetensors", "smp", "nearest", 5, 4, 32},
};

#define GOLDEN_COUNT (sizeof goldens / sizeof *goldens)

static struct weights open_golden(size_t i)
{
    char path[256];
    struct weights weights;
    snprintf(path, sizeof path, GOLDENS "%s", goldens[i].file);
    if (weights_open(path, &weights, report, sizeof report) < 0)
        fail_msg("%s", report);
    return weights;
}

static void test_recognition(void **state)
{
    (void)state;
    for (size_t i = 0; i < GOLDEN_COUNT; i++) {
        struct weights weights = open_golden(i);
        struct network network = build(&weights, NULL);
        assert_string_equal(network.family, goldens[i].family);
        assert_string_equal(network.up, goldens[i].up);
        assert_int_equal(network.depth, goldens[i].depth);
        assert_int_equal(network.base_width, goldens[i].base_width);
        assert_int_equal(network.size_multiple, goldens[i].size_multiple);
        assert_int_equal(network.size_min, 1 << goldens[i].depth);
        network_free(&network);
        network = build(&weights, goldens[i].family);
        network_free(&network);
        weights_close(&weights);
    }
}

static void test_prefixes(void **state)
{
    static const char *const prefixes[] = {"module.", "model.net.", "_orig_mod.module.model.",
                                           "my_network."};
    (void)state;
    for (size_t i = 0; i < GOLDEN_COUNT; i++) {
        struct weights weights = open_golden(i);
        for (size_t k = 0; k < sizeof prefixes / sizeof *prefixes; k++) {
            struct weights renamed = weights;
            renamed.tensors = calloc(weights.count, sizeof *renamed.tensors);
            char(*names)[128] = calloc(weights.count, sizeof *names);
            assert_true(renamed.tensors && names);
            for (size_t t = 0; t < weights.count; t++) {
                snprintf(names[t], sizeof names[t], "%s%s", prefixes[k], weights.tensors[t].name);
                renamed.tensors[t] = weights.tensors[t];
                renamed.tensors[t].name = names[t];
            }
            struct network network = build(&renamed, NULL);
            assert_string_equal(network.family, goldens[i].family);
            network_free(&network);
            free(renamed.tensors);
            free(names);
        }
        weights_close(&weights);
    }
}

/* Only first components and places count: older releases of milesial's network call the inner parts
 * differently, and a dropout or a wrapped norm moves indices. */
static void test_inner_names_do_not_matter(void **state)
{
    static const char *const renamings[][2] = {
        {"maxpool_conv.1.double_conv", "mpconv.1.conv"},
        {"inc.double_conv", "inc.conv.conv"},
        {"conv.double_conv", "conv.conv"},
        {".3.", ".12."},
        {".4.", ".13."},
    };
    (void)state;
    struct weights weights = open_golden(0);
    char(*names)[128] = calloc(weights.count, sizeof *names);
    assert_non_null(names);
    for (size_t i = 0; i < weights.count; i++) {
        snprintf(names[i], sizeof names[i], "%s", weights.tensors[i].name);
        for (size_t k = 0; k < sizeof renamings / sizeof *renamings; k++) {
            const char *found = strstr(names[i], renamings[k][0]);
            if (!found)
                continue;
            char renamed[128];
            snprintf(renamed, sizeof renamed, "%.*s%s%s", (int)(found - names[i]), names[i],
                     renamings[k][1], found + strlen(renamings[k][0]));
            memcpy(names[i], renamed, sizeof renamed);
        }
        weights.tensors[i].name = names[i];
    }
    struct network network = build(&weights, NULL);
    assert_string_equal(network.family, "milesial");
    assert_int_equal(network.depth, 3);
    network_free(&network);
    free(names);
    weights_close(&weights);
}

/* What a trainer's module holds besides the network says nothing about the network. */
static void test_weights_of_a_loss_are_passed_over(void **state)
{
    static const char *const names[] = {"criterion.weight", "loss_fn.ce.weight", "loss.pos_weight"};
    (void)state;
    struct weights weights = open_golden(0);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct weights more = {.count = weights.count + 1};
        more.tensors = calloc(more.count, sizeof *more.tensors);
        char(*renamed)[128] = calloc(weights.count, sizeof *renamed);
        assert_true(more.tensors && renamed);
        for (size_t t = 0; t < weights.count; t++) {
            snprintf(renamed[t], sizeof renamed[t], "unet.%s", weights.tensors[t].name);
            more.tensors[t] = weights.tensors[t];
            more.tensors[t].name = renamed[t];
        }
        more.tensors[weights.count] = (struct weights_tensor){
            .name = names[i], .dtype = WEIGHTS_F32, .rank = 1, .dims = {5}, .elements = 5};
        struct network network = build(&more, NULL);
        assert_string_equal(network.family, "milesial");
        network_free(&network);
        free(more.tensors);
        free(renamed);
    }
    weights_close(&weights);
}

/* Transposed convolutions may be without biases, if all of them are. */
static void test_up_steps_without_biases(void **state)
{
    (void)state;
    struct weights weights = open_golden(0);
    struct weights fewer = {.count = 0};
    fewer.tensors = calloc(weights.count, sizeof *fewer.tensors);
    assert_non_null(fewer.tensors);
    for (size_t t = 0; t < weights.count; t++)
        if (!strstr(weights.tensors[t].name, ".up.bias"))
            fewer.tensors[fewer.count++] = weights.tensors[t];
    assert_int_equal(fewer.count, weights.count - 3);
    struct network network = build(&fewer, NULL);
    assert_string_equal(network.up, "transposed");
    network_free(&network);
    free(fewer.tensors);
    weights_close(&weights);
}

/* In every concat of a built network, does the encoder's value come first? The up step's is the
 * one made just before. */
static bool skips_come_first(const struct network *network)
{
    size_t first = 0;
    size_t concats = 0;
    for (uint32_t i = 0; i < network->layer_count; i++) {
        const struct network_layer *layer = &network->layers[i];
        if (layer->op != NETWORK_CONCAT)
            continue;
        concats++;
        first += layer->inputs[1] == i;
    }
    assert_true(concats > 0);
    assert_true(first == 0 || first == concats);
    return first > 0;
}

static void test_concat_order_can_be_said(void **state)
{
    (void)state;
    for (size_t i = 0; i < GOLDEN_COUNT; i++) {
        struct weights weights = open_golden(i);
        struct network network = build(&weights, NULL);
        bool usual = skips_come_first(&network);
        assert_int_equal(usual, strcmp(goldens[i].family, "milesial") == 0 ||
                                    strcmp(goldens[i].family, "aladdinpersson") == 0 ||
                                    strcmp(goldens[i].family, "fepegar") == 0);
        network_free(&network);
        for (int skip_first = 0; skip_first < 2; skip_first++) {
            const struct family_wish wish = {.concat = skip_first ? "skip_up" : "up_skip"};
            assert_int_equal(family_build(&weights, &wish, &network, report, sizeof report), 0);
            assert_int_equal(skips_come_first(&network), skip_first);
            network_free(&network);
        }
        const struct family_wish wish = {.concat = "sideways"};
        assert_int_equal(family_build(&weights, &wish, &network, report, sizeof report), -EBADMSG);
        assert_non_null(strstr(report, "sideways"));
        weights_close(&weights);
    }
}

/* fepegar's blocks list every layer twice, and a writer may have kept either name. */
static void test_fepegars_second_names(void **state)
{
    static const char *const words[][2] = {{"conv_layer", "block.0"}, {"norm_layer", "block.1"}};
    (void)state;
    struct weights weights;
    assert_int_equal(weights_open(GOLDENS "fepegar.safetensors", &weights, report, sizeof report),
                     0);
    struct weights twice = {.count = 0};
    twice.tensors = calloc(weights.count * 2, sizeof *twice.tensors);
    char(*names)[128] = calloc(weights.count, sizeof *names);
    assert_true(twice.tensors && names);
    for (size_t t = 0; t < weights.count; t++) {
        twice.tensors[twice.count++] = weights.tensors[t];
        for (size_t k = 0; k < 2; k++) {
            const char *name = weights.tensors[t].name;
            const char *found = strstr(name, words[k][0]);
            if (!found)
                continue;
            snprintf(names[t], sizeof names[t], "%.*s%s%s", (int)(found - name), name, words[k][1],
                     found + strlen(words[k][0]));
            twice.tensors[twice.count] = weights.tensors[t];
            twice.tensors[twice.count++].name = names[t];
        }
    }
    assert_true(twice.count > weights.count);
    struct network once = build(&weights, NULL);
    struct network both = build(&twice, NULL);
    assert_int_equal(both.parameters, once.parameters);
    network_free(&both);
    for (size_t t = 0; t < weights.count; t++)
        if (names[t][0])
            weights.tensors[t].name = names[t];
    struct network second = build(&weights, NULL);
    assert_int_equal(second.parameters, once.parameters);
    assert_int_equal(second.layer_count, once.layer_count);
    network_free(&second);
    network_free(&once);
    free(twice.tensors);
    free(names);
    weights_close(&weights);
}

static void expect_refusal(const struct weights *weights, const char *family)
{
    struct network network;
    const struct family_wish wish = {.family = family};
    report[0] = '\0';
    assert_int_equal(family_check(weights, &wish, &network, report, sizeof report), -EBADMSG);
    char *first = strdup(report);
    assert_non_null(first);
    assert_int_equal(family_build(weights, &wish, &network, report, sizeof report), -EBADMSG);
    assert_string_equal(report, first);
    assert_true(strlen(report) > 10);
    free(first);
}

static bool is_counter(const char *name)
{
    return strstr(name, "num_batches_tracked") != NULL;
}

/* Whichever single tensor is lost, the network is refused; where names are fixed, the lost one is
 * named. */
static void test_every_lost_tensor_is_noticed(void **state)
{
    (void)state;
    for (size_t i = 0; i < GOLDEN_COUNT; i++) {
        struct weights weights = open_golden(i);
        struct weights fewer = {.count = weights.count - 1};
        fewer.tensors = calloc(weights.count, sizeof *fewer.tensors);
        assert_non_null(fewer.tensors);
        for (size_t lost = 0; lost < weights.count; lost++) {
            size_t at = 0;
            for (size_t t = 0; t < weights.count; t++)
                if (t != lost)
                    fewer.tensors[at++] = weights.tensors[t];
            const char *name = weights.tensors[lost].name;
            if (is_counter(name)) {
                struct network network = build(&fewer, NULL);
                network_free(&network);
                continue;
            }
            expect_refusal(&fewer, NULL);
            if (strstr(goldens[i].file, ".safetensors") && !strstr(goldens[i].file, "nested") &&
                !strstr(goldens[i].file, "no_norm") && !strstr(goldens[i].file, "upwards") &&
                !strstr(report, name))
                fail_msg("%s without %s:\n%s", goldens[i].file, name, report);
        }
        free(fewer.tensors);
        weights_close(&weights);
    }
}

static struct weights_tensor *tensor_named(struct weights *weights, const char *name)
{
    for (size_t i = 0; i < weights->count; i++)
        if (strcmp(weights->tensors[i].name, name) == 0)
            return &weights->tensors[i];
    fail_msg("no tensor %s", name);
    return NULL;
}

static void test_report_lines(void **state)
{
    (void)state;
    struct weights weights = open_golden(0);
    tensor_named(&weights, "down1.maxpool_conv.1.double_conv.3.weight")->name = "stray.weight";
    tensor_named(&weights, "up2.up.bias")->dims[0] = 9;
    tensor_named(&weights, "inc.double_conv.1.running_var")->name = "inc.extra.momentum";
    expect_refusal(&weights, NULL);
    assert_non_null(strstr(report, "the family milesial: 2 missing, 2 unexpected, 1 of another"));
    assert_non_null(
        strstr(report, "\nmissing down1.maxpool_conv.1.double_conv.3.weight [8, 8, 3, 3]\n"));
    assert_non_null(strstr(report, "\nmissing inc.double_conv.1.running_var [4]\n"));
    assert_non_null(strstr(report, "\nunexpected stray.weight [8, 8, 3, 3]\n"));
    assert_non_null(strstr(report, "\nunexpected inc.extra.momentum [4]\n"));
    assert_non_null(strstr(report, "\nshape up2.up.bias [9] want [8]\n"));
    weights_close(&weights);
}

static void test_wrong_kinds_of_numbers(void **state)
{
    (void)state;
    struct weights weights = open_golden(0);
    tensor_named(&weights, "outc.conv.bias")->dtype = WEIGHTS_I32;
    expect_refusal(&weights, NULL);
    assert_non_null(strstr(report, "outc.conv.bias holds integers"));
    weights_close(&weights);
    weights = open_golden(0);
    static const float negative[4] = {1.0f, -1.0f, 1.0f, 1.0f};
    tensor_named(&weights, "inc.double_conv.1.running_var")->data = negative;
    expect_refusal(&weights, NULL);
    assert_non_null(strstr(report, "inc.double_conv.0"));
    assert_non_null(strstr(report, "negative variance"));
    weights_close(&weights);
}

/* Wherever in a convolution one number is none, or becomes none by its norm, it is found, whether
 * weights are kept or only looked at; and a number that is large enough is none of these. */
static void test_one_number_that_is_none(void **state)
{
    (void)state;
    static const float none[] = {NAN, -NAN, INFINITY, -INFINITY, 3e38f, -3e38f};
    struct weights weights = open_golden(0);
    struct weights_tensor *tensor = tensor_named(&weights, "inc.double_conv.3.weight");
    struct weights_tensor *scale = tensor_named(&weights, "inc.double_conv.4.weight");
    size_t count = (size_t)tensor->elements;
    float *values = malloc(tensor->bytes), *factors = malloc(scale->bytes);
    assert_true(values && factors && tensor->dtype == WEIGHTS_F32 && scale->dtype == WEIGHTS_F32);
    memcpy(values, tensor->data, tensor->bytes);
    for (size_t i = 0; i < scale->elements; i++)
        factors[i] = 1e3f;
    tensor->data = values;
    scale->data = factors;
    for (size_t at = 0; at < count; at += at < 40 ? 1 : 37) {
        float kept = values[at];
        values[at] = none[at % (sizeof none / sizeof none[0])];
        expect_refusal(&weights, NULL);
        assert_non_null(strstr(report, "inc.double_conv.3: the weights hold a NaN"));
        values[at] = 1e20f;
        struct network network;
        assert_int_equal(family_check(&weights, NULL, &network, report, sizeof report), 0);
        network_free(&network);
        values[at] = kept;
    }
    free(values);
    free(factors);
    weights_close(&weights);
}

static void test_unknown_families(void **state)
{
    (void)state;
    struct weights weights = open_golden(0);
    expect_refusal(&weights, "resnet");
    assert_non_null(strstr(report, "resnet"));
    assert_non_null(strstr(report, "milesial"));
    expect_refusal(&weights, "mateuszbuda");
    assert_non_null(strstr(report, "unexpected inc.double_conv.0.weight"));
    for (size_t i = 0; i < weights.count; i++)
        weights.tensors[i].name = i % 2 ? "layer1.0.fc" : "stem.weight";
    expect_refusal(&weights, NULL);
    assert_non_null(strstr(report, "none of the UNets known"));
    weights.count = 0;
    expect_refusal(&weights, NULL);
    weights.count = 1;
    weights_close(&weights);
    const char *const *names = family_names();
    size_t count = 0;
    for (; names[count]; count++)
        expect_refusal(&(struct weights){.count = 0}, names[count]);
    assert_int_equal(count, 8);
}

/* Two of the same family at once (an average beside the weights): the second is not silently
 * preferred. */
static void test_two_networks_in_one_file(void **state)
{
    (void)state;
    struct weights weights = open_golden(0);
    struct weights both = {.count = weights.count * 2};
    both.tensors = calloc(both.count, sizeof *both.tensors);
    char(*names)[128] = calloc(weights.count, sizeof *names);
    assert_true(both.tensors && names);
    for (size_t i = 0; i < weights.count; i++) {
        both.tensors[i] = both.tensors[weights.count + i] = weights.tensors[i];
        snprintf(names[i], sizeof names[i], "module.%s", weights.tensors[i].name);
        both.tensors[i].name = names[i];
    }
    expect_refusal(&both, NULL);
    assert_non_null(strstr(report, "unexpected"));
    free(both.tensors);
    free(names);
    weights_close(&weights);
}

/* However small the buffer: terminated, whole lines, and the number of lines left out. */
static void test_report_is_bounded(void **state)
{
    (void)state;
    struct synthetic *s = make_mateuszbuda();
    struct network network;
    s->weights.count -= 60;
    const struct family_wish wish = {.family = "milesial"};
    assert_int_equal(family_build(&s->weights, &wish, &network, report, sizeof report), -EBADMSG);
    assert_null(strstr(report, " more\n"));
    size_t full = strlen(report);
    assert_true(full > 1000);
    for (size_t size = 1; size < full + 200; size += size < 600 ? 1 : 97) {
        char *small = malloc(size);
        assert_non_null(small);
        memset(small, 'x', size);
        assert_int_equal(family_build(&s->weights, &wish, &network, small, size), -EBADMSG);
        assert_non_null(memchr(small, '\0', size));
        unsigned more = 0;
        const char *tail = strstr(small, "\nand ");
        if (size > full + 16) {
            assert_string_equal(small, report);
        } else if (size > 400) {
            assert_non_null(tail);
            assert_int_equal(sscanf(tail, "\nand %u more\n", &more), 1);
            assert_true(more > 0);
        }
        free(small);
    }
    discard(s);
}

/* ---- what a network says about sizes ---- */

static void test_value_shapes(void **state)
{
    (void)state;
    struct weights weights = open_golden(0);
    struct network network = build(&weights, NULL);
    uint32_t last = (uint32_t)network.layer_count;
    uint32_t c = 0;
    uint32_t h = 0;
    uint32_t w = 0;
    assert_int_equal(network_value_shape(&network, last, 37, 45, &c, &h, &w), 0);
    assert_true(c == 5 && h == 37 && w == 45);
    assert_int_equal(network_value_shape(&network, 0, 37, 45, &c, &h, &w), 0);
    assert_true(c == 3 && h == 37 && w == 45);
    assert_int_equal(network_value_shape(&network, 3, 37, 45, &c, &h, &w), 0);
    assert_true(c == 4 && h == 18 && w == 22);
    assert_int_equal(network_value_shape(&network, last + 1, 37, 45, &c, &h, &w), -EINVAL);
    assert_int_equal(network_value_shape(&network, last, 0, 45, &c, &h, &w), -EINVAL);
    assert_int_equal(network_value_shape(&network, last, 4, 45, &c, &h, &w), -EINVAL);
    assert_true(network_flop(&network, 4, 45) == 0);
    network_free(&network);
    weights_close(&weights);
    /* A network that cannot pad refuses sizes between its multiples. */
    weights = open_golden(5);
    network = build(&weights, NULL);
    last = (uint32_t)network.layer_count;
    assert_int_equal(network_value_shape(&network, last, 32, 40, &c, &h, &w), 0);
    assert_int_equal(network_value_shape(&network, last, 33, 40, &c, &h, &w), -EINVAL);
    network_free(&network);
    weights_close(&weights);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes_are_torchs),
        cmocka_unit_test(test_recognition),
        cmocka_unit_test(test_prefixes),
        cmocka_unit_test(test_inner_names_do_not_matter),
        cmocka_unit_test(test_weights_of_a_loss_are_passed_over),
        cmocka_unit_test(test_up_steps_without_biases),
        cmocka_unit_test(test_concat_order_can_be_said),
        cmocka_unit_test(test_fepegars_second_names),
        cmocka_unit_test(test_every_lost_tensor_is_noticed),
        cmocka_unit_test(test_report_lines),
        cmocka_unit_test(test_wrong_kinds_of_numbers),
        cmocka_unit_test(test_one_number_that_is_none),
        cmocka_unit_test(test_unknown_families),
        cmocka_unit_test(test_two_networks_in_one_file),
        cmocka_unit_test(test_report_is_bounded),
        cmocka_unit_test(test_value_shapes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
