/*
 * Families that family_plan.h cannot describe: fepegar's `unet`, whose up steps keep their channels
 * and whose first convolution has no norm, and segmentation_models_pytorch's Unet on a residual
 * encoder. Both make their layers themselves, by the names that their modules have.
 */
#ifndef FAMILY_ENCODERS_H
#define FAMILY_ENCODERS_H

#include "family_layers.h"

/* Make all layers and fill in the description; what does not fit lands in the report. concat: 1
 * skip first, 0 up first, -1 as the family does. false when not even the depth can be told. */
bool assemble_fepegar(struct layer_builder *builder, int concat);
bool assemble_smp(struct layer_builder *builder, int concat);

#endif
