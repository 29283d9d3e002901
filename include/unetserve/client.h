/*
 * libunetserve: submit tensors to a unetserve on this machine over ZeroMQ and get masks back. A
 * client handle is used by one thread at a time. Link with -lunetserve.
 *
 *     struct unetserve_client *client;
 *     if (unetserve_client_open(NULL, &client)) ...
 *     struct unetserve_tensor tile = {{UNETSERVE_U16, 3, {12, 256, 256}}, pixels, sizeof pixels};
 *     struct unetserve_answer answer;
 *     if (unetserve_client_predict(client, NULL, &tile, 30000, &answer) == 0 && answer.status ==
 * 200) use(answer.data); unetserve_answer_free(&answer); unetserve_client_close(client);
 */
#ifndef UNETSERVE_CLIENT_H
#define UNETSERVE_CLIENT_H

#include "unetserve/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

#define UNETSERVE_API __attribute__((visibility("default")))

struct unetserve_client;

/* Bytes of a tensor, owned by the caller. */
struct unetserve_tensor {
    struct unetserve_shape shape;
    const void *data;
    size_t bytes;
};

struct unetserve_answer {
    int status;                   /* as HTTP's: 200, 4xx, 5xx */
    struct unetserve_shape shape; /* of data, when status is 200: uint8 H x W labels */
    void *data;                   /* the mask; or, for an error, its JSON document (terminated) */
    size_t bytes;
    char request_id[64];
    double receive_ms, queue_ms, forward_ms, encode_ms;
};

/* endpoint: "ipc:///run/unetserve/client.ipc" or any other ZeroMQ address; NULL: what
 * UNETSERVE_ENDPOINT in the environment says, else the one unetserve that this user runs here, else
 * the system's (/run/unetserve). 0; -ENOENT: none found; -EBUSY: several run, name one; -EINVAL;
 * -ENOMEM. Does not wait for the server. */
UNETSERVE_API int unetserve_client_open(const char *endpoint, struct unetserve_client **out);
UNETSERVE_API void unetserve_client_close(struct unetserve_client *client);

/* Send one tile (C x H x W) or batch (N x C x H x W), wait for the answer. model: NULL if one is
 * served. Blocks at most timeout_ms. 0: an answer came, of whatever status (free it); -EINVAL:
 * shape and bytes do not agree; -ETIMEDOUT; -EBADMSG: no sense in the answer; -ENOMEM; -EIO: the
 * connection broke (the server went, or the input is larger than it takes). The input is copied: it
 * is the caller's again when this returns. */
UNETSERVE_API int unetserve_client_predict(struct unetserve_client *client, const char *model,
                                           const struct unetserve_tensor *input, int timeout_ms,
                                           struct unetserve_answer *answer);

/* What runs there, as a JSON document in answer->data. Errors as above. */
UNETSERVE_API int unetserve_client_status(struct unetserve_client *client, int timeout_ms,
                                          struct unetserve_answer *answer);

UNETSERVE_API void unetserve_answer_free(struct unetserve_answer *answer);

#ifdef __cplusplus
}
#endif

#endif
