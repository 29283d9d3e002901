/*
 * Starting a program: which file descriptors it gets under which numbers, and nothing else of this
 * process.
 */
#ifndef SPAWN_H
#define SPAWN_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Give the child this process's fd `from` as number `to`. Sources may be anywhere, on other targets
 * too. */
struct spawn_fd {
    int from, to;
};

#define SPAWN_MAX_FDS 224

struct spawn {
    const char *path;
    char *const *arguments;
    char *const *environment;
    const struct spawn_fd
        *fds; /* beyond stdin (empty), stdout (= stderr unless listed) and stderr */
    size_t fd_count;
    int oom_score_adj;    /* above this process's own: 0 to leave it */
    bool die_with_parent; /* killed when this process ends; others notice their life line */
};

/* 0 with the process and a pidfd that the caller closes; or a negative errno. A program that cannot
 * be executed ends with status 127 after saying why on stderr. */
int spawn_process(const struct spawn *spawn, pid_t *pid, int *pidfd);

/* This process's environment without what is not for children (systemd's variables; the API key
 * unless with_key), and with `extra` ("NAME=VALUE", NULL at the end; they win). One allocation to
 * free, or NULL. The strings stay where they are. */
char **spawn_environment(bool with_key, const char *const *extra);

#endif
