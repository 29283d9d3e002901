/* Reading what tests/goldens holds. The tests run from the root of the checkout. */
#ifndef GOLDENS_H
#define GOLDENS_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GOLDENS "tests/goldens/"

struct array {
    uint32_t dims[3];
    char type[8]; /* "<u2" or "<f4" */
    void *data;
};

/* A C x H x W .npy of version 1, as numpy writes it. Exits on anything else: the files are ours. */
static inline struct array golden_read_npy(const char *name, const char *what)
{
    char path[256];
    char header[4096];
    struct array array = {.data = NULL};
    snprintf(path, sizeof path, GOLDENS "%s.%s.npy", name, what);
    FILE *file = fopen(path, "rb");
    unsigned char start[10];
    if (!file || fread(start, 1, 10, file) != 10 || memcmp(start, "\x93NUMPY\x01", 7) != 0) {
        fprintf(stderr, "%s: not a .npy file\n", path);
        exit(1);
    }
    size_t length = start[8] | (size_t)start[9] << 8;
    if (length >= sizeof header || fread(header, 1, length, file) != length)
        exit(1);
    header[length] = '\0';
    const char *type = strstr(header, "'descr': '");
    const char *shape = strstr(header, "'shape': (");
    if (!type || !shape ||
        sscanf(shape, "'shape': (%u, %u, %u)", &array.dims[0], &array.dims[1], &array.dims[2]) != 3)
        exit(1);
    snprintf(array.type, sizeof array.type, "%.3s", type + 10);
    size_t bytes = (size_t)array.dims[0] * array.dims[1] * array.dims[2] *
                   (size_t)(array.type[2] - '0');
    array.data = malloc(bytes);
    if (!array.data || fread(array.data, 1, bytes, file) != bytes)
        exit(1);
    fclose(file);
    return array;
}

#endif
