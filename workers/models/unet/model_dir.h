/*
 * model.json beside the weights: what names and shapes cannot tell. Every key is optional; an
 * unknown key is an error, a wrong type or value is an error that names key and file.
 */
#ifndef MODEL_DIR_H
#define MODEL_DIR_H

#include "unetserve/model.h"

#include <limits.h>

struct model_dir {
    char weights_path[PATH_MAX];
    char name[64];
    char version[32];
    char family[32];      /* "" : recognise */
    char concat[16];      /* "" : as the family does; "skip_up", "up_skip" */
    char precision[16];   /* "auto" */
    char convolution[16]; /* "auto" */
    char license[64];
    char source[256];
    uint32_t in_channels; /* 0: whatever the weights have; else they must agree */
    uint32_t tile;        /* usual H and W; 256 */
    float offset;         /* x' = clip((x + offset) / scale); the tutorial's: 0, 10000, [0, 1] */
    float scale;
    bool clip;
    float clip_low;
    float clip_high;
    uint32_t class_count; /* 0: not named */
    struct unetserve_class classes[UNETSERVE_MAX_CLASSES];
};

/* path: a directory with model.json (then "weights" names the file, default the only .safetensors,
 * .pth, .pt or .ckpt in it), or a weights file (a model.json beside it counts if it names that
 * file). 0, -ENOENT, -EBADMSG, -ENOMEM; error gets a sentence. */
int model_dir_load(const char *path, struct model_dir *out, char *error, size_t error_size);

/* The same from model.json's text, for tests and fuzzers. */
int model_dir_parse(const char *text, size_t size, struct model_dir *out, char *error,
                    size_t error_size);

/* A whole file of at most 1 MiB, to be freed. -ENOENT when there is none; other failures, too, with
 * a sentence. */
int model_dir_read_text(const char *path, char **out, size_t *out_bytes, char *error,
                        size_t error_size);

#endif
