/*
 * Scenes larger than what a server takes at once: cut into overlapping windows, of each of which
 * the centre is kept.
 */
#ifndef WINDOWS_H
#define WINDOWS_H

#include "image.h"
#include "server.h"

#define WINDOW_DEFAULT 512
#define WINDOW_OVERLAP 64
#define WINDOW_LEAST   128

struct windows_result {
    struct unetserve_shape shape; /* uint8 H x W, or N x H x W */
    uint8_t *labels;              /* free it */
    unsigned requests;
    unsigned window; /* side that was used; 0: sent whole */
    char request_id[64];
    double receive_ms, queue_ms, forward_ms, encode_ms; /* sums */
    int status;                                         /* 200, or of the answer that ended it */
};

/* Predict the image; sides up to window go in one piece (0: always). A 413 halves the window. 0
 * with status 200; -EPROTO when the server refuses (status says how) or makes no sense, or what
 * server_predict returns; a sentence in error. */
int windows_predict(struct server *server, const struct image *image, unsigned window,
                    struct windows_result *out, char *error, size_t error_size);

#endif
