#include "family_plan.h"

#include "family_encoders.h"

#include <stdio.h>
#include <string.h>

static const char *const parts_by_index[4] = {"0", "1", "3", "4"};
static const char *const parts_by_word[4] = {"conv1", "norm1", "conv2", "norm2"};

/* Least and largest number that follows stem among the first components. */
static bool number_range(const struct module_set *set, const char *stem, uint32_t *least,
                         uint32_t *largest)
{
    bool any = false;
    for (size_t i = 0; i < set->count; i++) {
        uint32_t number;
        if (!module_path_starts(set->modules[i].path, stem, true, &number))
            continue;
        if (!any || number < *least)
            *least = number;
        if (!any || number > *largest)
            *largest = number;
        any = true;
    }
    return any;
}

/* The deepest level that any of the stems names, so that a level that lost one part is still seen.
 */
static uint32_t deepest(const struct module_set *set, const char *const *stems)
{
    uint32_t depth = 0;
    for (; *stems; stems++) {
        uint32_t least = 0;
        uint32_t largest = 0;
        if (number_range(set, *stems, &least, &largest) && largest > depth)
            depth = largest;
    }
    return depth;
}

static bool has_stem(const struct module_set *set, const char *stem)
{
    uint32_t number;
    for (size_t i = 0; i < set->count; i++)
        if (module_path_starts(set->modules[i].path, stem, false, &number))
            return true;
    return false;
}

static bool depth_fits(uint32_t depth)
{
    return depth >= 1 && depth <= PLAN_MAX_DEPTH;
}

/* Formats for names take the level's number; a plain name takes none. */
static void name_block(struct plan_block *block, const char *prefix, const char *inner,
                       const char *const *parts)
{
    snprintf(block->prefix, sizeof block->prefix, "%s", prefix);
    snprintf(block->inner, sizeof block->inner, "%s%s", prefix, inner);
    block->parts = parts;
}

static void name_level(struct plan_block *block, const char *stem, uint32_t number,
                       const char *below, const char *inner)
{
    char prefix[40];
    snprintf(prefix, sizeof prefix, "%s%u%s", stem, number, below);
    name_block(block, prefix, inner, parts_by_index);
}

static void name_text(char *out, size_t size, const char *stem, uint32_t number, const char *rest)
{
    snprintf(out, size, "%s%u%s", stem, number, rest);
}

/* ---- milesial ---- */

static const char *const milesial_stems[] = {"inc", "outc", "down#", "up#", NULL};

static bool plan_milesial(const struct module_set *set, struct plan *out)
{
    uint32_t depth = deepest(set, (const char *const[]){"down", "up", NULL});
    if (!depth_fits(depth))
        return false;
    struct plan plan = {
        .depth = depth, .skip_first = true, .bilinear = true, .fits_any_size = true};
    name_block(&plan.encoders[0], "inc", ".double_conv.", parts_by_index);
    for (uint32_t n = 1; n <= depth; n++) {
        struct plan_block *block = n == depth ? &plan.bottom : &plan.encoders[n];
        name_level(block, "down", n, "", ".maxpool_conv.1.double_conv.");
        name_level(&plan.decoders[n - 1], "up", n, ".conv", ".double_conv.");
        name_text(plan.ups[n - 1], sizeof plan.ups[0], "up", n, ".up");
        if (module_any_within(set, plan.ups[n - 1], MODULE_CONV))
            plan.bilinear = false;
    }
    snprintf(plan.head, sizeof plan.head, "outc");
    snprintf(plan.head_inner, sizeof plan.head_inner, "outc.conv");
    *out = plan;
    return true;
}

/* ---- mateuszbuda ---- */

static const char *const mateuszbuda_stems[] = {"encoder#", "bottleneck", "upconv#",
                                                "decoder#", "conv",       NULL};

static void name_mateuszbuda(struct plan_block *block, const char *outer, const char *short_name,
                             uint32_t n)
{
    snprintf(block->prefix, sizeof block->prefix, "%s%u", outer, n);
    snprintf(block->inner, sizeof block->inner, "%s%u.%s%u", outer, n, short_name, n);
    block->parts = parts_by_word;
}

static bool plan_mateuszbuda(const struct module_set *set, struct plan *out)
{
    uint32_t depth = deepest(set, (const char *const[]){"encoder", "upconv", "decoder", NULL});
    if (!depth_fits(depth))
        return false;
    struct plan plan = {.depth = depth};
    for (uint32_t n = 1; n <= depth; n++) {
        name_mateuszbuda(&plan.encoders[n - 1], "encoder", "enc", n);
        name_mateuszbuda(&plan.decoders[depth - n], "decoder", "dec", n);
        name_text(plan.ups[depth - n], sizeof plan.ups[0], "upconv", n, "");
    }
    name_block(&plan.bottom, "bottleneck", ".bottleneck", parts_by_word);
    snprintf(plan.head, sizeof plan.head, "conv");
    snprintf(plan.head_inner, sizeof plan.head_inner, "conv");
    *out = plan;
    return true;
}

/* ---- aladdinpersson ---- */

static const char *const aladdinpersson_stems[] = {"downs", "ups", "bottleneck", "final_conv",
                                                   NULL};

/* ModuleLists: downs.0, downs.1, ...; ups alternates transposed convolutions and blocks. */
static bool plan_aladdinpersson(const struct module_set *set, struct plan *out)
{
    uint32_t depth = 0;
    char prefix[48];
    for (uint32_t n = 0; n < PLAN_MAX_DEPTH; n++) {
        snprintf(prefix, sizeof prefix, "downs.%u", n);
        bool down = module_any_within(set, prefix, MODULE_CONV);
        snprintf(prefix, sizeof prefix, "ups.%u", 2 * n);
        if (down || module_any_within(set, prefix, MODULE_CONV))
            depth = n + 1;
    }
    if (!depth_fits(depth))
        return false;
    struct plan plan = {.depth = depth, .skip_first = true};
    for (uint32_t n = 0; n < depth; n++) {
        name_level(&plan.encoders[n], "downs.", n, "", ".conv.");
        name_level(&plan.decoders[n], "ups.", 2 * n + 1, "", ".conv.");
        name_text(plan.ups[n], sizeof plan.ups[0], "ups.", 2 * n, "");
    }
    name_block(&plan.bottom, "bottleneck", ".conv.", parts_by_index);
    snprintf(plan.head, sizeof plan.head, "final_conv");
    snprintf(plan.head_inner, sizeof plan.head_inner, "final_conv");
    *out = plan;
    return true;
}

/* ---- zhoudaxia233 ---- */

static const char *const zhoudaxia_stems[] = {"conv#", "bottleneck", "up_conv#", NULL};

/* conv1..d down, up_conv and conv d+1..2d up, conv 2d+1 the head. */
static bool plan_zhoudaxia(const struct module_set *set, struct plan *out)
{
    uint32_t depth = deepest(set, (const char *const[]){"up_conv", NULL}) / 2;
    if (!depth_fits(depth))
        return false;
    struct plan plan = {.depth = depth};
    for (uint32_t n = 1; n <= depth; n++) {
        name_level(&plan.encoders[n - 1], "conv", n, "", ".");
        name_level(&plan.decoders[n - 1], "conv", depth + n, "", ".");
        name_text(plan.ups[n - 1], sizeof plan.ups[0], "up_conv", depth + n, "");
    }
    name_block(&plan.bottom, "bottleneck", ".", parts_by_index);
    name_text(plan.head, sizeof plan.head, "conv", 2 * depth + 1, "");
    snprintf(plan.head_inner, sizeof plan.head_inner, "%s", plan.head);
    *out = plan;
    return true;
}

/* ---- plain and CBR: encN, a bottom, upN, decN, a head ---- */

static const char *const plain_stems[] = {"enc#",    "bottom", "bottleneck", "center", "up#",
                                          "upconv#", "dec#",   "head",       NULL};
static const char *const cbr_stems[] = {"enc#",    "bottom", "bottleneck", "center",     "up#",
                                        "upconv#", "dec#",   "final",      "final_conv", NULL};

static const struct module *first_conv(const struct module_set *set, const char *prefix)
{
    for (size_t i = 0; i < set->count; i++)
        if (set->modules[i].kind == MODULE_CONV && module_path_within(set->modules[i].path, prefix))
            return &set->modules[i];
    return NULL;
}

/* dec1 may be the first decoder or the last. The bottom's width tells; where all widths are equal,
 * the name of the level does, and the deepest comes first. */
static bool counts_upwards(const struct module_set *set, const char *stem, uint32_t least,
                           uint32_t largest)
{
    char low[48];
    char high[48];
    name_text(low, sizeof low, stem, least, "");
    name_text(high, sizeof high, stem, largest, "");
    const struct module *low_up = first_conv(set, low);
    const struct module *high_up = first_conv(set, high);
    return low_up && high_up &&
           low_up->leaves[LEAF_WEIGHT]->dims[0] > high_up->leaves[LEAF_WEIGHT]->dims[0];
}

/* Without a bottom of its own name, the encoder block below the last skip is the bottom. */
static void name_bottom(const struct module_set *set, uint32_t next_encoder, struct plan *plan)
{
    static const char *const stems[] = {"bottom", "bottleneck", "center"};
    for (size_t i = 0; i < sizeof stems / sizeof *stems; i++) {
        if (has_stem(set, stems[i])) {
            name_block(&plan->bottom, stems[i], ".", parts_by_index);
            return;
        }
    }
    name_level(&plan->bottom, "enc", next_encoder, "", ".");
}

static bool plan_numbered(const struct module_set *set, const char *head, struct plan *out)
{
    uint32_t least = 0;
    uint32_t largest = 0;
    uint32_t encoder = 1;
    uint32_t ignored = 0;
    const char *up = number_range(set, "upconv", &least, &largest) ? "upconv" : "up";
    if (!number_range(set, up, &least, &largest) && !number_range(set, "dec", &least, &largest))
        return false;
    number_range(set, "enc", &encoder, &ignored);
    uint32_t depth = largest - least + 1;
    if (!depth_fits(depth))
        return false;
    struct plan plan = {.depth = depth, .any_length = true};
    bool upwards = counts_upwards(set, up, least, largest);
    for (uint32_t i = 0; i < depth; i++) {
        uint32_t n = upwards ? least + i : largest - i;
        name_level(&plan.encoders[i], "enc", encoder + i, "", ".");
        name_level(&plan.decoders[i], "dec", n, "", ".");
        name_text(plan.ups[i], sizeof plan.ups[0], up, n, "");
    }
    name_bottom(set, encoder + depth, &plan);
    snprintf(plan.head, sizeof plan.head, "%s", head);
    snprintf(plan.head_inner, sizeof plan.head_inner, "%s", head);
    *out = plan;
    return true;
}

static bool plan_plain(const struct module_set *set, struct plan *out)
{
    return plan_numbered(set, "head", out);
}

static bool plan_cbr(const struct module_set *set, struct plan *out)
{
    return plan_numbered(set, has_stem(set, "final_conv") ? "final_conv" : "final", out);
}

/* ---- those that make their layers themselves ---- */

static const char *const fepegar_stems[] = {"encoder", "bottom_block", "decoder", "classifier",
                                            NULL};
static const char *const smp_stems[] = {"encoder", "decoder", "segmentation_head", NULL};

/* ---- recognition ---- */

const struct family family_table[] = {
    {"milesial", milesial_stems, plan_milesial, NULL},
    {"mateuszbuda", mateuszbuda_stems, plan_mateuszbuda, NULL},
    {"aladdinpersson", aladdinpersson_stems, plan_aladdinpersson, NULL},
    {"zhoudaxia233", zhoudaxia_stems, plan_zhoudaxia, NULL},
    {"plain", plain_stems, plan_plain, NULL},
    {"cbr", cbr_stems, plan_cbr, NULL},
    {"fepegar", fepegar_stems, NULL, assemble_fepegar},
    {"smp", smp_stems, NULL, assemble_smp},
    {NULL, NULL, NULL, NULL},
};

static bool stem_covers(const char *stem, const char *path)
{
    char text[32];
    uint32_t number;
    size_t length = strlen(stem);
    bool numbered = stem[length - 1] == '#';
    snprintf(text, sizeof text, "%.*s", (int)(length - (numbered ? 1 : 0)), stem);
    return module_path_starts(path, text, numbered, &number);
}

static size_t count_covered(const struct module_set *set, const struct family *family)
{
    size_t covered = 0;
    for (size_t i = 0; i < set->count; i++) {
        for (const char *const *stem = family->stems; *stem; stem++) {
            if (stem_covers(*stem, set->modules[i].path)) {
                covered++;
                break;
            }
        }
    }
    return covered;
}

const struct family *family_recognise(const struct module_set *set)
{
    const struct family *best = NULL;
    size_t most = 0;
    for (const struct family *family = family_table; family->name; family++) {
        size_t covered = count_covered(set, family);
        if (covered > most) {
            best = family;
            most = covered;
        }
    }
    return most * 2 >= set->count ? best : NULL;
}
