#include "batch_choice.h"

#include <stdio.h>

/* What a larger size must save of a tile's time. Less is lost again by waiting for more tiles. */
#define NOTICEABLE 0.03

void batch_choice_begin(struct batch_choice *choice, uint32_t most)
{
    *choice = (struct batch_choice){.count = 0};
    for (uint32_t tiles = 1; tiles < most && choice->count < BATCH_CHOICE_SIZES - 1; tiles *= 2)
        choice->sizes[choice->count++].tiles = tiles;
    choice->sizes[choice->count++].tiles = most > 0 ? most : 1;
}

struct batch_choice *batch_choices_find(struct batch_choices *choices, uint32_t height,
                                        uint32_t width, uint32_t most)
{
    size_t place = 0;
    for (size_t i = 0; i < BATCH_CHOICE_IMAGES; i++) {
        if (choices->images[i].looked && choices->images[i].height == height &&
            choices->images[i].width == width) {
            choices->images[i].looked = ++choices->looks;
            return &choices->images[i].choice;
        }
        if (choices->images[i].looked < choices->images[place].looked)
            place = i;
    }
    choices->images[place].height = height;
    choices->images[place].width = width;
    choices->images[place].looked = ++choices->looks;
    batch_choice_begin(&choices->images[place].choice, most);
    return &choices->images[place].choice;
}

static double tile_ns(const struct batch_choice *choice, size_t number)
{
    return (double)choice->sizes[number].best_ns / (double)choice->sizes[number].tiles;
}

/* The smallest of the first `count` sizes that no larger one of them beats. */
static size_t find_best(const struct batch_choice *choice, size_t count)
{
    for (size_t i = 0; i + 1 < count; i++) {
        bool beaten = false;
        for (size_t k = i + 1; k < count; k++)
            beaten = beaten || tile_ns(choice, k) < tile_ns(choice, i) * (1 - NOTICEABLE);
        if (!beaten)
            return i;
    }
    return count - 1;
}

/* The one with the fewest runs, of those that want more; count: none does. */
static size_t find_untried(const struct batch_choice *choice, size_t count)
{
    size_t least = count;
    for (size_t i = 0; i < count; i++)
        if (choice->sizes[i].runs < BATCH_CHOICE_RUNS &&
            (least == count || choice->sizes[i].runs < choice->sizes[least].runs))
            least = i;
    return least;
}

uint32_t batch_choice_next(const struct batch_choice *choice, uint32_t waiting)
{
    uint32_t most = choice->sizes[choice->count - 1].tiles;
    uint32_t made = batch_choice_made(choice);
    size_t reach = 0;
    if (made)
        return waiting < 1 ? 1 : waiting < made ? waiting : made;
    while (reach < choice->count && choice->sizes[reach].tiles <= waiting)
        reach++;
    if (reach == 0)
        return 1;
    size_t untried = find_untried(choice, reach);
    if (untried < reach)
        return choice->sizes[untried].tiles;
    size_t best = find_best(choice, reach);
    /* As far as is known, the more the better. */
    if (best + 1 == reach && best > 0)
        return waiting < most ? waiting : most;
    return choice->sizes[best].tiles;
}

void batch_choice_note(struct batch_choice *choice, uint32_t tiles, uint64_t ns)
{
    if (batch_choice_made(choice)) {
        if (++choice->made_runs == BATCH_CHOICE_LASTS)
            batch_choice_begin(choice, choice->sizes[choice->count - 1].tiles);
        return;
    }
    for (size_t i = 0; i < choice->count; i++) {
        if (choice->sizes[i].tiles != tiles || choice->sizes[i].runs == BATCH_CHOICE_RUNS)
            continue;
        if (choice->sizes[i].runs == 0 || ns < choice->sizes[i].best_ns)
            choice->sizes[i].best_ns = ns;
        choice->sizes[i].runs++;
    }
}

uint32_t batch_choice_made(const struct batch_choice *choice)
{
    if (find_untried(choice, choice->count) < choice->count)
        return 0;
    return choice->sizes[find_best(choice, choice->count)].tiles;
}

void batch_choice_tell(const struct batch_choice *choice, char *text, size_t size)
{
    size_t used = 0;
    text[0] = '\0';
    for (size_t i = 0; i < choice->count && used < size; i++)
        if (choice->sizes[i].runs)
            used += (size_t)snprintf(text + used, size - used, "%s%u: %.2f", used ? ", " : "",
                                     choice->sizes[i].tiles, tile_ns(choice, i) * 1e-6);
}
