/*
 * A small bitmap typeface, for legends in pictures.
 */
#ifndef LETTERS_H
#define LETTERS_H

#define LETTER_WIDTH  5
#define LETTER_HEIGHT 9 /* seven rows above the baseline, two below */

/* The rows of a character, bit 4 on the left; a question mark for what the typeface lacks, nothing
 * for a space. */
const unsigned char *letter_rows(char character);

#endif
