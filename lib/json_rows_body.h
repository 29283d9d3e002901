/*
 * Rows of numbers by windows of 64 bytes: one bit a byte says what it is, the grammar is checked
 * for the whole window by a few operations on such masks, and then digits become numbers, eight
 * integers or one float at a time. Compiled for two instruction sets; before it is included there
 * are
 *
 *   classify             64 bytes to masks
 *   store_integers       numbers of at most eight digits
 *   select_digits        the values of up to 32 digits that end at a place, zeros in front, a point
 *                        before the last so many passed over (at least DIGITS_MAX: there is none)
 *   ROWS_READ            the function's name
 */

enum {
    WINDOW = 64,
    BEFORE = 40,      /* bytes before a window that may be read */
    BEHIND = 16,      /* and behind it */
    POWER_MAX = 22,   /* largest power of ten that a double holds exactly */
    DIGITS_MAX = 32,  /* that select_digits takes */
    HIGH_LIMIT = 922, /* so many times 10^16 fit 63 bits */
};

static const double powers[POWER_MAX + 1] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                             1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                             1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

/* What is known of a window up to its last number that is whole. */
struct window {
    uint64_t starts; /* first digits of numbers */
    uint64_t ends;   /* the comma or bracket behind each */
    uint64_t dots, minuses;
    bool small;  /* integers of at most eight digits, no signs */
    bool closed; /* the last end is a bracket */
};

/* False: no number is whole, or some byte is out of place. */
static inline bool read_window(const struct masks *m, struct window *window)
{
    uint64_t known = m->digits | m->commas | m->spaces | m->dots | m->minuses;
    uint64_t stop = ~known &
                    (known + 1); /* the first byte that is none of these; 0: there is none */
    uint64_t ends = (m->commas & (stop - 1)) | (stop & m->closes);
    if (ends == 0)
        return false;
    uint64_t within = ~UINT64_C(0) >> __builtin_clzll(ends);
    uint64_t digits = m->digits & within, dots = m->dots & within, minuses = m->minuses & within;
    uint64_t behind_digit = digits << 1;
    uint64_t begins = (m->commas | m->spaces) << 1 | 1; /* where a space, a sign, a number may be */
    uint64_t fractions = digits & ~behind_digit & dots << 1;
    uint64_t starts = digits & ~behind_digit & ~(dots << 1);
    uint64_t behind_fraction = (digits + fractions) & ~digits; /* a carry runs through each */
    uint64_t wrong = (ends & ~behind_digit) | (behind_digit & ~digits & within & ~(ends | dots)) |
                     (m->spaces & within & ~begins) | (minuses & ~begins) |
                     (minuses << 1 & ~digits) | (dots & ~behind_digit) | (dots << 1 & ~digits) |
                     (behind_fraction & dots) | (m->zeros & starts & digits >> 1);
    if (wrong)
        return false;
    uint64_t run = digits & behind_digit; /* the end of two digits, of four, of eight */
    run &= run << 2;
    run &= run << 4;
    *window = (struct window){
        .starts = starts,
        .ends = ends,
        .dots = dots,
        .minuses = minuses,
        .small = !(dots | minuses | (run & run << 1)),
        .closed = ends & stop,
    };
    return true;
}

/* Those digits as two numbers of sixteen. */
static inline void take_digits_apart(const char *end, unsigned after, unsigned count,
                                     uint64_t *high, uint64_t *low)
{
    __m256i v = select_digits(end, after, count);
    v = _mm256_maddubs_epi16(v, _mm256_set1_epi16(0x010a));  /* pairs */
    v = _mm256_madd_epi16(v, _mm256_set1_epi32(0x00010064)); /* fours */
    v = _mm256_packus_epi32(v, v);
    v = _mm256_madd_epi16(v, _mm256_set1_epi32(0x00012710)); /* eights: 10000 and 1 */
    uint64_t first = (uint64_t)_mm256_extract_epi64(v, 0);
    uint64_t second = (uint64_t)_mm256_extract_epi64(v, 2);
    *high = (uint32_t)first * UINT64_C(100000000) + (first >> 32);
    *low = (uint32_t)second * UINT64_C(100000000) + (second >> 32);
}

/* The value of mantissa / 10^after, if it is sure: see json_number_round. */
static inline bool round_fraction(uint64_t mantissa, unsigned after, float *out)
{
    double value = (double)(int64_t)mantissa / powers[after];
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    *out = (float)value;
    return ((bits & 0x1fffffff) - (0x10000000 - 7)) > 14;
}

/* Numbers with points and signs, one after the other. Returns how far they were simple. */
static inline size_t store_fractions(const char *text, struct window *window, struct json_row *row)
{
    size_t taken = 0;
    for (uint64_t ends = window->ends, starts = window->starts; ends;
         ends &= ends - 1, starts &= starts - 1) {
        unsigned end = (unsigned)__builtin_ctzll(ends), start = (unsigned)__builtin_ctzll(starts);
        uint64_t dot = window->dots & (window->dots - 1); /* without the next one */
        uint64_t next = window->dots ^ dot;
        bool fraction = next && next < (UINT64_C(1) << end);
        unsigned after = fraction ? end - 1 - (unsigned)__builtin_ctzll(next) : 0;
        unsigned count = end - start - fraction;
        uint64_t high, low;
        if (count > DIGITS_MAX || after > POWER_MAX)
            break;
        take_digits_apart(text + end, fraction ? after : DIGITS_MAX, count, &high, &low);
        uint64_t mantissa = high * UINT64_C(10000000000000000) + low;
        float value;
        if (high >= HIGH_LIMIT || !round_fraction(mantissa, after, &value))
            break;
        if (fraction)
            window->dots = dot;
        uint32_t bits, sign = start && (window->minuses >> (start - 1) & 1);
        memcpy(&bits, &value, sizeof bits);
        bits |= sign << 31;
        memcpy(row->out++, &bits, sizeof bits);
        row->stored++;
        row->room--;
        row->ended = window->closed && (ends & (ends - 1)) == 0;
        taken = end + !row->ended;
    }
    return taken;
}

/* Returns how many bytes were read. */
static inline size_t take_window(const char *text, struct json_row *row)
{
    struct masks masks;
    struct window window;
    classify(text, &masks);
    if (!read_window(&masks, &window))
        return 0;
    size_t count = (size_t)__builtin_popcountll(window.ends);
    if (count > row->room)
        return 0;
    if (!window.small)
        return store_fractions(text, &window, row);
    store_integers(text, window.starts, window.ends, count, row->out);
    row->out += count;
    row->stored += count;
    row->room -= count;
    row->ended = window.closed;
    return 64 - (size_t)__builtin_clzll(window.ends) - row->ended;
}

/* Near the ends of the piece: with room on both sides. */
static size_t take_copied(struct json_row *row)
{
    char copy[BEFORE + WINDOW + BEHIND] = {0};
    size_t size = (size_t)(row->end - row->at);
    memcpy(copy + BEFORE, row->at, size < WINDOW ? size : WINDOW);
    return take_window(copy + BEFORE, row);
}

void ROWS_READ(struct json_row *row)
{
    while (!row->ended && row->room && row->at < row->end) {
        bool inside = row->at - row->begin >= BEFORE && row->end - row->at >= WINDOW + BEHIND;
        size_t taken = inside ? take_window(row->at, row) : take_copied(row);
        row->at += taken;
        if (taken == 0 && !json_rows_step(row))
            break;
    }
}
