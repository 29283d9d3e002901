#include "gateway/spare.h"

#include <stdlib.h>

void *spare_take(struct spare *spare)
{
    return spare->count ? spare->pieces[--spare->count] : malloc(spare->size);
}

void spare_give(struct spare *spare, void *piece)
{
    static const uint32_t most = SPARE_MAX;
    if (piece && spare->count < most)
        spare->pieces[spare->count++] = piece;
    else
        free(piece);
}

void spare_free(struct spare *spare)
{
    while (spare->count)
        free(spare->pieces[--spare->count]);
}
