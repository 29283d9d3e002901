/*
 * How many tiles a run is best made of, learned from the runs themselves: while it is not known,
 * the sizes 1, 2, 4 ... take turns, as far as there are tiles to fill them. So it costs no run that
 * nobody wanted, and what is learned is how this machine runs this network. Times come from the
 * caller, so that tests can give theirs.
 *
 * The choice is the smallest size that no larger one beats by a noticeable share: where a larger
 * one is not faster, it only makes the first of its tiles wait for the last.
 */
#ifndef BATCH_CHOICE_H
#define BATCH_CHOICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BATCH_CHOICE_SIZES  11 /* 1 to 1024 */
#define BATCH_CHOICE_IMAGES 8
/* Of each size, of which the best counts: others have their share of the machine, and a size's
 * first run prepares it. */
#define BATCH_CHOICE_RUNS 8
/* Then it is made anew: the machine may have other work by now. */
#define BATCH_CHOICE_LASTS 5000

struct batch_choice {
    size_t count;       /* of sizes: powers of two up to the most, and the most */
    uint32_t made_runs; /* since it was made */
    struct {
        uint32_t tiles;
        uint32_t runs;
        uint64_t best_ns; /* of a run */
    } sizes[BATCH_CHOICE_SIZES];
};

/* A choice for each size of image; those that were seen last are kept. Zeroed to begin with. */
struct batch_choices {
    uint64_t looks;
    struct {
        uint32_t height;
        uint32_t width;
        uint64_t looked; /* 0: free */
        struct batch_choice choice;
    } images[BATCH_CHOICE_IMAGES];
};

/* The choice for images of that size, of at most so many; valid until the next call. */
struct batch_choice *batch_choices_find(struct batch_choices *choices, uint32_t height,
                                        uint32_t width, uint32_t most);

/* Nothing is known yet. most: at least 1, at most 1024. */
void batch_choice_begin(struct batch_choice *choice, uint32_t most);

/* How many to run next of `waiting` tiles, at least 1. */
uint32_t batch_choice_next(const struct batch_choice *choice, uint32_t waiting);

/* A run of so many took that long. */
void batch_choice_note(struct batch_choice *choice, uint32_t tiles, uint64_t ns);

/* The number that it has come to; 0: not all sizes have had their runs, or not again. */
uint32_t batch_choice_made(const struct batch_choice *choice);

/* "1: 8.2, 2: 8.3": the best of each size that was run, milliseconds a tile. Always terminated. */
void batch_choice_tell(const struct batch_choice *choice, char *text, size_t size);

#endif
