#include "unetserve/loss.h"
#include "unetserve/counters.h"

static const struct {
    int status;
    uint32_t rest_ms;
    const char *name;
} losses[] = {
#define LOSS(reason, status, name, rest_ms) [UNETSERVE_LOSS_##reason] = {status, rest_ms, name},
    LOSSES(LOSS)
#undef LOSS
};

_Static_assert(UNETSERVE_LOSS_COUNT == COUNTERS_LOSSES, "each is counted");
_Static_assert(sizeof losses / sizeof losses[0] == UNETSERVE_LOSS_COUNT, "each has its line");

static uint32_t known(uint32_t why)
{
    return why < UNETSERVE_LOSS_COUNT ? why : UNETSERVE_LOSS_OTHER;
}

int loss_status(uint32_t why)
{
    return losses[known(why)].status;
}

const char *loss_name(uint32_t why)
{
    return losses[known(why)].name;
}

uint32_t loss_rest_ms(uint32_t why)
{
    return losses[known(why)].rest_ms;
}

int loss_of_status(int status)
{
    for (int why = 0; why < UNETSERVE_LOSS_COUNT; why++)
        if (losses[why].status == status)
            return why;
    return LOSS_NONE;
}
