/*
 * The two 16-bit float formats as bit patterns, widened to float without loss (subnormals,
 * infinities and NaN included).
 */
#ifndef HALF_H
#define HALF_H

#include <stdint.h>

float half_to_f32(uint16_t half);
float bfloat16_to_f32(uint16_t bits);

#endif
