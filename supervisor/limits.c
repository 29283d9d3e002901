#include "supervisor/limits.h"

#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GROUPS "/sys/fs/cgroup"

/* The beginning of a small file. */
static bool file_read(const char *path, char *text, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t got = read(fd, text, size - 1);
    close(fd);
    if (got < 0)
        return false;
    text[got] = '\0';
    return true;
}

uint64_t limits_parse_memory(const char *text)
{
    char *end;
    if (text[0] < '0' || text[0] > '9')
        return UINT64_MAX;
    unsigned long long bytes = strtoull(text, &end, 10);
    return *end == '\0' || *end == '\n' ? bytes : UINT64_MAX;
}

unsigned limits_parse_cpu(const char *text)
{
    unsigned long long quota;
    unsigned long long period;
    if (text[0] < '0' || text[0] > '9')
        return 0;
    char *end;
    quota = strtoull(text, &end, 10);
    if (*end != ' ' || end[1] < '0' || end[1] > '9')
        return 0;
    period = strtoull(end + 1, &end, 10);
    if (quota == 0 || period == 0 || quota / period >= UINT_MAX)
        return 0;
    return (unsigned)(quota / period + (quota % period != 0));
}

/* This process's group in version 2's tree ("/a/b"), "" if it has none. */
static void group_path(char *path, size_t size)
{
    char text[4096];
    path[0] = '\0';
    if (!file_read("/proc/self/cgroup", text, sizeof text))
        return;
    char *line = strncmp(text, "0::", 3) == 0 ? text : strstr(text, "\n0::");
    if (!line)
        return;
    line += line == text ? 3 : 4;
    line[strcspn(line, "\n")] = '\0';
    if (strcmp(line, "/") != 0)
        snprintf(path, size, "%s", line);
}

/* Look at the file of that name in this group and in each one above it; see() gets every text. */
static void groups_climb(const char *name, void (*see)(const char *text, void *result),
                         void *result)
{
    char group[PATH_MAX / 2];
    char path[PATH_MAX];
    char text[128];
    group_path(group, sizeof group);
    for (;;) {
        snprintf(path, sizeof path, GROUPS "%s/%s", group, name);
        if (file_read(path, text, sizeof text))
            see(text, result);
        char *slash = strrchr(group, '/');
        if (!slash)
            return;
        *slash = '\0';
    }
}

static void see_memory(const char *text, void *result)
{
    uint64_t *least = result;
    uint64_t bytes = limits_parse_memory(text);
    if (bytes < *least)
        *least = bytes;
}

static void see_cpu(const char *text, void *result)
{
    unsigned *least = result;
    unsigned cpus = limits_parse_cpu(text);
    if (cpus > 0 && (*least == 0 || cpus < *least))
        *least = cpus;
}

uint64_t limits_memory(void)
{
    long pages = sysconf(_SC_PHYS_PAGES);
    long page = sysconf(_SC_PAGESIZE);
    uint64_t least = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : UINT64_MAX;
    char text[128];
    groups_climb("memory.max", see_memory, &least);
    if (file_read(GROUPS "/memory/memory.limit_in_bytes", text, sizeof text))
        see_memory(text, &least);
    return least;
}

unsigned limits_cpus(void)
{
    unsigned least = 0;
    char quota[64];
    char period[64];
    groups_climb("cpu.max", see_cpu, &least);
    if (file_read(GROUPS "/cpu/cpu.cfs_quota_us", quota, sizeof quota) &&
        file_read(GROUPS "/cpu/cpu.cfs_period_us", period, sizeof period)) {
        char text[160];
        quota[strcspn(quota, "\n")] = '\0';
        snprintf(text, sizeof text, "%s %s", quota, period);
        see_cpu(text, &least);
    }
    return least;
}
