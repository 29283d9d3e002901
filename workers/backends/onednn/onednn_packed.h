/*
 * The packed weights of an instance as sections of a file that all workers map (packed_cache.h):
 * what its key is made of, and the way from weights to sections and back.
 */
#ifndef ONEDNN_PACKED_H
#define ONEDNN_PACKED_H

#include "onednn_weights.h"
#include "workers/backends/backend.h"
#include "workers/backends/packed_cache.h"

/* What the file holds depends on: the weights themselves, the network's plan, precision, the ranges
 * of int8, this oneDNN and the instructions that it may use, whether layers are Winograd's,
 * threads, the tile that is prepared for, and the programs' version. Whether a section's layout is
 * the one that a primitive wants is checked besides, section by section. */
struct packed_hash onednn_packed_key(const struct network *network,
                                     const struct backend_options *options, enum onednn_type type,
                                     const struct onednn_winograd_kernel *winograd, uint32_t tile);

/* Write the first form and the bias of every convolution as the draft's file. Ends the draft. */
int onednn_packed_write(const struct network *network, const struct onednn_weights *weights,
                        struct packed_draft *draft, char *note, size_t note_size);

#endif
