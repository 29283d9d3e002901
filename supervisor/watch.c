#include "supervisor/watch.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

void watch_begin(struct watch *watch, uint64_t now_ns)
{
    *watch = (struct watch){.seen_ns = now_ns};
}

void watch_look(struct watch *watch, uint64_t now_ns, uint64_t tick)
{
    uint64_t step_ns = now_ns > watch->seen_ns ? now_ns - watch->seen_ns : 0;
    watch->seen_ns = now_ns;
    watch->silence_ns += step_ns < WATCH_STEP_NS ? step_ns : WATCH_STEP_NS;
    if (tick != watch->tick)
        watch->silence_ns = 0;
    watch->tick = tick;
}

bool watch_is_hung(const struct watch *watch, enum queue_role role, uint64_t run_timeout_ns,
                   bool stopped)
{
    if (watch->silence_ns <= WATCH_SILENCE_NS)
        return false;
    if (stopped)
        return true;
    return watch->silence_ns > (role == QUEUE_WORKER ? run_timeout_ns / 6 : WATCH_LOOP_NS);
}

bool watch_is_stopped(pid_t pid)
{
    char path[40], text[256];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t got = read(fd, text, sizeof text - 1);
    close(fd);
    text[got > 0 ? got : 0] = '\0';
    /* PID (NAME) STATE ..., and a name may hold anything. */
    const char *name_end = strrchr(text, ')');
    return name_end && name_end[1] == ' ' && name_end[2] == 'T';
}
