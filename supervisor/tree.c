#include "supervisor/tree.h"

#include <assert.h>
#include <stddef.h>

static const struct {
    enum tree_state state;
    enum tree_event event;
    struct tree_step step;
} edges[] = {
#define EDGE_ROW(state, event, next, action)                                                       \
    {TREE_##state, TREE_##event, {TREE_##next, TREE_##action}},
    TREE_EDGES(EDGE_ROW)
#undef EDGE_ROW
};

struct tree_step tree_next(enum tree_state state, enum tree_event event)
{
    assert(state < TREE_STATE_COUNT && event < TREE_EVENT_COUNT);
    for (size_t i = 0; i < sizeof edges / sizeof edges[0]; i++)
        if (edges[i].state == state && edges[i].event == event)
            return edges[i].step;
    return (struct tree_step){state, TREE_NOTHING};
}

const char *tree_state_name(enum tree_state state)
{
    static const char *const names[] = {
#define STATE_NAME(name) #name,
        TREE_STATES(STATE_NAME)
#undef STATE_NAME
    };
    return (unsigned)state < TREE_STATE_COUNT ? names[state] : "?";
}

uint32_t tree_delay_ms(unsigned failures)
{
    static const uint32_t delays_ms[] = {0, 0, 10, 100, 1000};
    return failures < sizeof delays_ms / sizeof delays_ms[0] ? delays_ms[failures]
                                                             : TREE_LONGEST_MS;
}
