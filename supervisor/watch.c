#include "supervisor/watch.h"

bool watch_is_hung(uint64_t now_ns, uint64_t run_ns, uint64_t run_timeout_ns, uint64_t tick_ns)
{
    return run_timeout_ns > 0 && now_ns > run_ns && now_ns - run_ns > run_timeout_ns &&
           now_ns > tick_ns && now_ns - tick_ns > WATCH_SILENCE_NS;
}
