/*
 * What unetctl dockerize writes: the Dockerfile and the .dockerignore for one model.
 */
#ifndef DOCKERFILE_H
#define DOCKERFILE_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct dockerfile {
    char name[64]; /* of the image and of the model */
    int64_t port;
    bool gpu;
    char context[PATH_MAX];  /* the directory that goes to the builder, resolved */
    char relative[PATH_MAX]; /* the model, from there */
    char served[256];        /* its name below /models */
    bool python;             /* it is a file with a LitAPI, which needs what lies around it, */
    bool requirements;       /* and the packages of the context's requirements.txt */
};

void dockerfile_write(FILE *out, const struct dockerfile *about);
void dockerfile_write_ignored(FILE *out, const struct dockerfile *about);

#endif
