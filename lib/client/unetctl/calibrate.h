/*
 * What unetctl calibrate is made of: tiles, which it reads and cuts (calibrate_tiles.c), networks
 * that it runs on them (calibrate_run.c), the directory that it writes (calibrate_write.c), and the
 * command itself (calibrate.c).
 */
#ifndef CALIBRATE_H
#define CALIBRATE_H

#include "tally.h"
#include "workers/backends/backend.h"
#include "workers/models/unet/quantise_file.h"
#include "workers/models/unet/source.h"

#define CALIBRATE_FILES_MAX 65536

/* Files by name, sorted within each directory that was named. */
struct calibrate_files {
    char **paths;
    size_t count;
};

/* A file, or all .npy and .tif of a directory. 0, or a code of sysexits.h after a sentence. */
int calibrate_files_add(struct calibrate_files *files, const char *path);
void calibrate_files_free(struct calibrate_files *files);

/* A part of an image that the network takes: C x height x width of an enum unetserve_dtype. */
struct calibrate_piece {
    const void *data;
    uint32_t dtype;
    uint32_t height;
    uint32_t width;
};

/* 0, or a code of sysexits.h after a sentence, which ends the walk. */
typedef int calibrate_visit(void *opaque, const struct calibrate_piece *piece);

/* Read an image, add offset, and call visit with each of its pieces. 0, or a code of sysexits.h. */
int calibrate_walk(const char *path, const struct network *network, int offset,
                   calibrate_visit *visit, void *opaque);

/* A network that runs. */
struct calibrate_engine {
    const struct backend *backend;
    void *instance;
};

/* In f32, where each layer's output is counted in tallies[layer] if that is not NULL; or with
 * ranges in int8. An error: a code of sysexits.h after a sentence. */
struct calibrate_setup {
    struct source *source;
    uint32_t threads;
    struct tally **tallies;
    const struct quantise_ranges *ranges; /* NULL: f32 */
};
int calibrate_engine_start(const struct calibrate_setup *setup, struct calibrate_engine *out);
int calibrate_engine_run(const struct calibrate_engine *engine, const struct calibrate_piece *piece,
                         uint8_t *labels);
void calibrate_engine_stop(struct calibrate_engine *engine);

/* Write the model directory. report: for report.json beside. 0 or a code of sysexits.h. */
int calibrate_write(const char *directory, const char *model, const struct source *source,
                    const struct quantise_file *file, const char *report);

#endif
