/* Colours for classes that nobody has given any. */
#ifndef CLASS_COLOURS_H
#define CLASS_COLOURS_H

#include <stdint.h>

/* The same in every run; told apart on screen and in print. */
void class_colour_default(uint32_t label, uint8_t rgb[3]);

#endif
