/*
 * make-scene SPECTRA OUT.npy [TRUTH.npy] [SEED]: draws an invented landscape, gives each pixel the
 * reflectances of its land cover class as real satellite images have them (SPECTRA: mean and spread
 * per band), and writes it as a tile of digital numbers (uint16, bands x 256 x 256, 10000 =
 * reflectance 1) with the classes' positions as truth (uint8, 256 x 256).
 */
#include "unetserve/mask_writer.h"

#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SIZE      256
#define PIXELS    (SIZE * SIZE)
#define BANDS_MAX 16
#define PARCELS   105

/* WorldCover's classes, in the order of the demonstration model's labels. */
enum cover { TREES, SHRUBS, GRASS, CROPS, BUILT, BARE, SNOW, WATER, COVER_COUNT };

static const char *const cover_codes[COVER_COUNT] = {"10", "20", "30", "40",
                                                     "50", "60", "70", "80"};

/* How a class differs within a scene, in the spreads of its spectrum, which are those of many
 * scenes. */
struct variation {
    float shift; /* of the whole class: towards what tells it from its likes */
    float tint;  /* of one field from the next */
    float noise; /* of one pixel from the next */
};

static const struct variation variations[COVER_COUNT] = {
    [TREES] = {0, 0, 0.38f},          [SHRUBS] = {0, 0, 0},        [GRASS] = {0.25f, 0.15f, 0.33f},
    [CROPS] = {-0.15f, 0.15f, 0.33f}, [BUILT] = {0.1f, 0, 0.45f},  [BARE] = {-0.6f, 0.2f, 0.3f},
    [SNOW] = {0.1f, 0, 0.2f},         [WATER] = {-0.75f, 0, 0.1f},
};

struct spectrum {
    float mean[BANDS_MAX];
    float spread[BANDS_MAX];
};

struct scene {
    size_t bands;
    struct spectrum spectra[COVER_COUNT];
    uint8_t cover[PIXELS];
    float light[PIXELS]; /* factor: slopes towards and away from the sun */
    float tint[PIXELS];  /* in spreads: one value a field */
    float reflectance[BANDS_MAX][PIXELS];
};

/* ---- chance ---- */

static uint64_t random_state;

static uint64_t random_bits(void)
{
    uint64_t z = (random_state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* From 0 to below 1. */
static float random_unit(void)
{
    return (float)(random_bits() >> 40) / 16777216.0f;
}

/* Mean 0, spread 1. */
static float random_normal(void)
{
    float sum = 0;
    for (int i = 0; i < 12; i++)
        sum += random_unit();
    return sum - 6.0f;
}

/* ---- smooth fields ---- */

static float smooth_step(float t)
{
    return t * t * (3 - 2 * t);
}

/* A number from 0 to 1 for a point of a lattice. */
static float lattice_value(int x, int y, uint32_t salt)
{
    uint32_t h = (uint32_t)x * 0x8da6b343u ^ (uint32_t)y * 0xd8163841u ^ salt * 0xcb1ab31fu;
    h ^= h >> 13;
    h *= 0x5bd1e995u;
    h ^= h >> 15;
    return (float)(h & 0xffffff) / 16777216.0f;
}

static float noise_at(float x, float y, uint32_t salt)
{
    int left = (int)floorf(x);
    int top = (int)floorf(y);
    float u = smooth_step(x - (float)left);
    float v = smooth_step(y - (float)top);
    float upper = lattice_value(left, top, salt) * (1 - u) + lattice_value(left + 1, top, salt) * u;
    float lower = lattice_value(left, top + 1, salt) * (1 - u) +
                  lattice_value(left + 1, top + 1, salt) * u;
    return upper * (1 - v) + lower * v;
}

/* Hills on hills: from 0 to 1, features of about scale pixels and finer. */
static float hills_at(float x, float y, float scale, uint32_t salt)
{
    float sum = 0;
    float weight = 0.5f;
    for (uint32_t octave = 0; octave < 4; octave++) {
        sum += weight * noise_at(x / scale, y / scale, salt + octave);
        scale /= 2;
        weight /= 2;
    }
    return sum / 0.9375f;
}

/* ---- the landscape ---- */

struct parcel {
    float x, y;
    enum cover cover;
    float tint;
};

static void parcels_place(struct parcel *parcels)
{
    for (int i = 0; i < PARCELS; i++) {
        float chance = random_unit();
        parcels[i] = (struct parcel){
            .x = random_unit() * SIZE,
            .y = random_unit() * SIZE,
            .cover = chance < 0.62f   ? CROPS
                     : chance < 0.92f ? GRASS
                                      : BARE,
            .tint = 2 * random_unit() - 1,
        };
    }
}

/* Fields lie along two directions, as where land was once divided with a ruler. */
static const struct parcel *parcel_at(const struct parcel *parcels, float x, float y)
{
    const struct parcel *nearest = parcels;
    float least = INFINITY;
    for (int i = 0; i < PARCELS; i++) {
        float dx = x - parcels[i].x;
        float dy = y - parcels[i].y;
        float along = fabsf(0.93f * dx + 0.37f * dy);
        float across = fabsf(-0.37f * dx + 0.93f * dy);
        float distance = fmaxf(along * 0.8f, across * 1.15f) + 0.25f * (along + across);
        if (distance < least) {
            least = distance;
            nearest = &parcels[i];
        }
    }
    return nearest;
}

/* Distance from the middle of the river, in its half widths: below 1 is water. */
static float river_at(float x, float y, uint32_t salt)
{
    float wander = (noise_at(y / 58, 0.5f, salt) - 0.5f) * 88 +
                   (noise_at(y / 23, 7.5f, salt) - 0.5f) * 20;
    float middle = 84 + 0.22f * y + wander;
    float half_width = 4.2f + y / 75;
    return fabsf(x - middle) / half_width;
}

static float lake_at(float x, float y, uint32_t salt)
{
    float dx = (x - 70) / 42;
    float dy = (y - 216) / 25;
    return sqrtf(dx * dx + dy * dy) + (hills_at(x, y, 30, salt) - 0.5f) * 0.9f;
}

static float town_at(float x, float y, uint32_t salt)
{
    float dx = (x - 176) / 38;
    float dy = (y - 168) / 30;
    return sqrtf(dx * dx + dy * dy) + (hills_at(x, y, 22, salt) - 0.5f) * 0.9f;
}

static enum cover cover_at(float x, float y, const struct parcel *parcel, uint32_t salt)
{
    float mountain = hills_at(x, y, 64, salt) * 0.5f + ((x - 128) / 128) * 0.42f - (y - 40) / 150;
    float river = river_at(x, y, salt + 20);
    float lake = lake_at(x, y, salt + 30);
    if (mountain > 0.83f)
        return SNOW;
    if (mountain > 0.66f)
        return BARE;
    if (river < 1 || lake < 0.8f)
        return WATER;
    float wood = hills_at(x, y, 50, salt + 40) + (y < 110 ? (110 - y) / 420 : 0);
    if (mountain > 0.46f || wood > 0.645f ||
        (river < 2.1f && hills_at(x, y, 20, salt + 50) > 0.52f))
        return TREES;
    if (town_at(x, y, salt + 60) < 1.0f)
        return hills_at(x, y, 16, salt + 70) > 0.70f ? GRASS : BUILT;
    return parcel->cover;
}

static void scene_draw(struct scene *scene, uint32_t salt)
{
    static struct parcel parcels[PARCELS];
    parcels_place(parcels);
    for (int i = 0; i < PIXELS; i++) {
        int row = i / SIZE;
        float x = (float)(i % SIZE);
        float y = (float)row;
        const struct parcel *parcel = parcel_at(parcels, x, y);
        enum cover cover = cover_at(x, y, parcel, salt);
        bool rough = cover == TREES || cover == BARE || cover == SNOW;
        float slope = hills_at(x + 3, y + 3, 26, salt + 80) - hills_at(x - 3, y - 3, 26, salt + 80);
        scene->cover[i] = (uint8_t)cover;
        scene->light[i] = 1 + (rough ? 0.8f : 0.2f) * fmaxf(-0.2f, fminf(0.2f, slope));
        scene->tint[i] = cover == parcel->cover ? parcel->tint : 0;
    }
}

/* ---- what a satellite would see ---- */

static void scene_colour(struct scene *scene)
{
    for (int i = 0; i < PIXELS; i++) {
        const struct spectrum *spectrum = &scene->spectra[scene->cover[i]];
        const struct variation *variation = &variations[scene->cover[i]];
        /* One part moves all bands together (brighter, darker), one moves each by itself. */
        float common = variation->shift + variation->tint * scene->tint[i] +
                       variation->noise * 0.7f * random_normal();
        for (size_t band = 0; band < scene->bands; band++) {
            float own = variation->noise * 0.7f * random_normal();
            scene->reflectance[band][i] = (spectrum->mean[band] +
                                           (common + own) * spectrum->spread[band]) *
                                          scene->light[i];
        }
    }
}

/* Half of a pixel's light comes from its neighbourhood. */
static float scene_blurred(const float *band, int x, int y)
{
    float sum = 0;
    int count = 0;
    for (int v = y - 1; v <= y + 1; v++) {
        for (int u = x - 1; u <= x + 1; u++) {
            if (u < 0 || v < 0 || u >= SIZE || v >= SIZE)
                continue;
            sum += band[v * SIZE + u];
            count++;
        }
    }
    return 0.5f * band[y * SIZE + x] + 0.5f * sum / (float)count;
}

/* ---- files ---- */

static int spectrum_read(const json_t *class, size_t bands, struct spectrum *out)
{
    const json_t *mean = json_object_get(class, "mean");
    const json_t *spread = json_object_get(class, "std");
    if (json_array_size(mean) != bands || json_array_size(spread) != bands)
        return -1;
    for (size_t band = 0; band < bands; band++) {
        out->mean[band] = (float)json_number_value(json_array_get(mean, band));
        out->spread[band] = (float)json_number_value(json_array_get(spread, band));
    }
    return 0;
}

static int spectra_read(const char *path, struct scene *scene)
{
    json_error_t error;
    json_t *document = json_load_file(path, 0, &error);
    const json_t *classes = json_object_get(document, "classes");
    size_t bands = json_array_size(json_object_get(document, "bands"));
    int rc = document && bands > 0 && bands <= BANDS_MAX ? 0 : -1;
    for (int cover = 0; rc == 0 && cover < COVER_COUNT; cover++) {
        /* No shrubs grow here. */
        if (cover != SHRUBS)
            rc = spectrum_read(json_object_get(classes, cover_codes[cover]), bands,
                               &scene->spectra[cover]);
    }
    if (rc < 0)
        fprintf(stderr, "make-scene: '%s' holds no spectra of these classes: %s\n", path,
                document ? "a class or a band is missing" : error.text);
    scene->bands = bands;
    json_decref(document);
    return rc;
}

static int npy_write(const char *path, const struct unetserve_shape *shape, const void *data)
{
    char header[256];
    uint64_t bytes;
    int header_bytes = npy_header_write(shape, header, sizeof header);
    if (header_bytes < 0 || unetserve_shape_bytes(shape, &bytes) < 0)
        return -1;
    FILE *file = fopen(path, "wbe");
    bool written = file && fwrite(header, 1, (size_t)header_bytes, file) == (size_t)header_bytes &&
                   fwrite(data, 1, bytes, file) == bytes;
    if (file && fclose(file) != 0)
        written = false;
    if (!written)
        perror(path);
    return written ? 0 : -1;
}

static int scene_write(const struct scene *scene, const char *tile_path, const char *truth_path)
{
    static uint16_t numbers[BANDS_MAX * PIXELS];
    for (size_t band = 0; band < scene->bands; band++) {
        for (int i = 0; i < PIXELS; i++) {
            float value = scene_blurred(scene->reflectance[band], i % SIZE, i / SIZE);
            numbers[band * PIXELS + (size_t)i] = (uint16_t)lrintf(10000 *
                                                                  fmaxf(0, fminf(1, value)));
        }
    }
    const struct unetserve_shape tile = {UNETSERVE_U16, 3, {scene->bands, SIZE, SIZE}};
    const struct unetserve_shape truth = {UNETSERVE_U8, 2, {SIZE, SIZE}};
    if (npy_write(tile_path, &tile, numbers) < 0)
        return -1;
    return truth_path ? npy_write(truth_path, &truth, scene->cover) : 0;
}

int main(int argc, char **argv)
{
    static struct scene scene;
    if (argc < 3 || argc > 5) {
        fputs("usage: make-scene SPECTRA OUT.npy [TRUTH.npy] [SEED]\n", stderr);
        return 64;
    }
    random_state = argc > 4 ? strtoull(argv[4], NULL, 10) : 5;
    uint32_t salt = (uint32_t)random_state * 1000;
    if (spectra_read(argv[1], &scene) < 0)
        return 65;
    scene_draw(&scene, salt);
    scene_colour(&scene);
    return scene_write(&scene, argv[2], argc > 3 ? argv[3] : NULL) < 0 ? 73 : 0;
}
