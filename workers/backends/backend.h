/*
 * A device that runs a network. One small vtable; "reference" defines what is right, every other
 * backend is tested against it. A backend instance is used from one thread (it may start its own).
 */
#ifndef BACKEND_H
#define BACKEND_H

#include "../models/unet/network.h"
#include "packed_file.h"
#include "quantise.h"
#include "unetserve/model.h"
#include "unetserve/tensor.h"

#define BACKEND_ABI 1

/* What happens to digital numbers before the network: clip((x + offset) / scale, low, high). */
struct backend_preprocess {
    float offset;
    float scale; /* not 0 */
    bool clip;
    float clip_low;
    float clip_high;
};

/* What a layer put out, as it lies in memory: pixels `pitch` floats apart, and a pixel's channels
 * `step` floats apart. */
struct backend_sight {
    const float *data;
    size_t channels;
    size_t step;
    size_t pitch;
    size_t pixels;
};

typedef void backend_observe(void *opaque, size_t layer, const struct backend_sight *sight);

struct backend_options {
    const char *
        precision; /* "auto", "f32", "bf16", "f16", "int8": -EINVAL where the backend has no such */
    const char *convolution; /* "auto", "direct" or "winograd", of layers in f32 on the onednn
                                backend; NULL: "auto" */
    uint32_t threads;        /* at least 1 */
    uint32_t device;         /* GPU ordinal; ignored on a CPU */
    struct backend_preprocess preprocess;
    uint32_t tile;              /* the usual height and width; 0: not known */
    uint32_t max_batch;         /* tiles that come at once, at most; 0: not known */
    void (*tick)(void *opaque); /* called between layers; may be NULL */
    void *opaque;               /* of all calls here */

    /* A directory where packed weights may be kept for other workers, or NULL; and what they are
     * made from, as a hash of the weights file. */
    const char *cache_dir;
    struct packed_hash weights_id;

    /* Nothing is measured to be kept there; what was measured before counts. Else how long that may
     * take at most, in seconds; 0: as long as the backend thinks right. */
    bool no_timing;
    uint32_t timing_s;

    /* The same network, weights and all, where create got it without; called at most once. It stays
     * the caller's, until create returns. NULL if create gets it with weights. 0, or a negative
     * errno with a sentence. */
    int (*load)(void *opaque, const struct network **out, char *error, size_t error_size);

    /* What int8 needs to know of the layers' outputs; create keeps nothing of it. NULL: int8 is not
     * to be had. */
    const struct quantise_ranges *ranges;

    /* Called behind each layer where the precision is f32; may be NULL. Backends on the CPU only.
     */
    backend_observe *observe;

    /* The memory that outlives its batches which an address of a tile or of labels lies in, to be
     * page-locked. 0, -ENOENT: it lies in none. May be NULL. */
    int (*area)(void *opaque, const void *address, struct unetserve_area *out);

    /* Why the device has failed (enum unetserve_loss), before -EIO says that it has. May be NULL.
     */
    void (*lost)(void *opaque, uint32_t why);

    /* One line for the log; level as in model.h. May be NULL. */
    void (*log)(void *opaque, int level, const char *text);
};

/* A batch: count tiles of equal size and type, each C x H x W packed, gathered from wherever they
 * lie. */
struct backend_batch {
    uint32_t count;
    uint32_t dtype; /* enum unetserve_dtype: U8, I8, U16, I16, F16, F32 */
    uint32_t height;
    uint32_t width;
    const void *const *inputs; /* count pointers to C x H x W elements */
    uint8_t *const *labels;    /* count pointers to H x W labels, or NULL */
    float *const *logits;      /* count pointers to classes x H x W floats, or NULL: not wanted */
};

struct backend {
    uint32_t abi;
    const char *name;

    /* Is this backend able to run here? 0, or -ENODEV and a sentence naming what is missing. Cheap.
     */
    int (*probe)(char *error, size_t error_size);

    /* Does it take this network in that precision? "auto" asks only a backend that does. NULL: all.
     */
    bool (*suits)(const struct network *network, const char *precision);

    /* Has it that precision here, as far as can be told without the network? 0, or -EINVAL and the
     * sentence that create would say. Cheap. NULL: create tells. */
    int (*check_precision)(const char *precision, char *error, size_t error_size);

    /* Prepare for a network: weights are converted and packed, nothing of *network is kept. Where
     * options->load is there, its layers may lack weights and bias. 0, -EINVAL, -ENOMEM, -ENODEV,
     * or what options->load says. */
    int (*create)(const struct network *network, const struct backend_options *options,
                  void **instance, char *error, size_t error_size);

    /* Run. Labels are the argmax over classes (the first of equal ones); with one class, logit > 0.
     * 0, -EINVAL (size that the network does not take), -ENOMEM, -EIO (the device failed: the
     * worker must exit). */
    int (*forward)(void *instance, const struct backend_batch *batch);

    /* "bf16", "f32", ...: what create chose. Static storage. */
    const char *(*precision)(const void *instance);

    void (*destroy)(void *instance);

    /* Batches that overlap: of a backend whose device works while nobody waits. All three, or none.
     */

    /* As forward, but it may return before the answers are there: they are when collect has come to
     * *mark. Until then tiles and labels must stay, not the batch and its arrays; logits are not to
     * be had. Batches end in the order in which they were begun. After an error none of this batch
     * is under way. */
    int (*submit)(void *instance, const struct backend_batch *batch, uint64_t *mark);

    /* How far has it come? Waits until it has come to `least`; 0: does not wait. 0, -EIO. */
    int (*collect)(void *instance, uint64_t least, uint64_t *mark);

    /* A descriptor that is readable when collect has something new to tell. */
    int (*descriptor)(const void *instance);
};

/* The backends that were built, NULL-terminated, best first; and one by name ("auto": the first
 * whose probe succeeds), NULL if there is none. */
const struct backend *const *backend_list(void);
const struct backend *backend_find(const char *name);

/* As backend_find, where "auto" is the first that also suits the network in that precision. */
const struct backend *backend_choose(const char *name, const struct network *network,
                                     const char *precision);

/* The network with weights: network itself, or what options->load gives. Errors as for load. */
int backend_load(const struct network *network, const struct backend_options *options,
                 const struct network **out, char *error, size_t error_size);

/* Are there ranges for this network in precision int8? 0, or -EINVAL and a sentence. */
int backend_check_ranges(const struct network *network, const struct backend_options *options,
                         char *error, size_t error_size);

/* Helpers shared by backends. */

/* The network without weights and bias, of the caller's own: free out->layers. 0, -ENOMEM. */
int backend_copy_network(const struct network *network, struct network *out);

/* Does the network take that size? */
bool backend_size_fits(const struct network *network, uint32_t size);

/* Does it take a batch of that type and size? Not whether there is memory for it. */
bool backend_batch_fits(const struct network *network, const struct backend_batch *batch);

/* Tiles [first, first + count) of a batch. */
struct backend_batch backend_part(const struct backend_batch *batch, uint32_t first,
                                  uint32_t count);

/* Shared by CPU backends: one tile of any type through the preprocess step to float, same
 * layout. */
void backend_preprocess_f32(const struct backend_preprocess *preprocess, uint32_t dtype,
                            const void *in, size_t elements, float *out);

#endif
