/*
 * What ZeroMQ clients speak with a gateway's front, a ROUTER at "ipc://RUN_DIR/client.ipc". A
 * client is a DEALER (or REQ, which adds the empty frame that is echoed). Everything but the tensor
 * itself is one msgpack map; keys may come in any order and unknown keys are ignored.
 *
 *     request  = [ empty ] head tensor            ; frames
 *     reply    = [ empty ] head [ body ]
 *
 *     head of a request, a map:
 *       "v"        uint  1                        ; protocol version, required
 *       "op"       str   "predict" | "status"     ; required
 *       "id"       str   at most 63 bytes         ; echoed; made up by the gateway if absent
 *       "model"    str   name                     ; optional if one model is served
 *       "dtype"    str   "uint16"                 ; predict: as X-Unetserve-Dtype
 *       "shape"    array of uint                  ; predict: as X-Unetserve-Shape
 *       "accept"   str   "tensor" | "json" | "npy" | "png"   ; default "tensor"
 *       "timeout"  uint  milliseconds             ; optional, how long the request is worth waiting
 * for tensor      the bytes, little-endian, C order; for document models the document
 *
 *     head of a reply, a map:
 *       "v"        uint  1
 *       "id"       str
 *       "status"   uint  as HTTP's: 200, 4xx, 5xx
 *       "dtype"    str   } of the body, when status is 200 and accept was "tensor"
 *       "shape"    array }
 *       "type"     str   media type of the body ("application/json", ...)
 *       "times"    map of str -> float            ; "receive", "queue", "forward", "encode":
 * milliseconds body        the answer; for an error the JSON document that HTTP would carry
 *
 * A message that is no such request is answered with status 400 where it can be, and dropped where
 * not (no head).
 */
#ifndef PROTOCOL_H
#define PROTOCOL_H

#include "unetserve/tensor.h"

#include <stddef.h>
#include <stdint.h>

#define PROTOCOL_VERSION  1
#define PROTOCOL_HEAD_MAX 4096 /* bytes of a head; larger ones are refused */

enum protocol_op { PROTOCOL_PREDICT, PROTOCOL_STATUS };
enum protocol_accept { PROTOCOL_TENSOR, PROTOCOL_JSON, PROTOCOL_NPY, PROTOCOL_PNG };

struct protocol_request {
    enum protocol_op op;
    char id[64];
    char model[64];               /* "" : the only one */
    struct unetserve_shape shape; /* rank 0 if absent */
    enum protocol_accept accept;
    uint64_t timeout_ms; /* 0: the model's */
};

struct protocol_reply {
    char id[64];
    uint32_t status;
    struct unetserve_shape shape; /* rank 0 if absent */
    char type[64];
    double receive_ms, queue_ms, forward_ms, encode_ms;
};

/* Write a head into bytes (PROTOCOL_HEAD_MAX). Return its length, or -ENOSPC. */
long protocol_request_write(const struct protocol_request *request, unsigned char *bytes,
                            size_t size);
long protocol_reply_write(const struct protocol_reply *reply, unsigned char *bytes, size_t size);

/* Read a head. 0, or -EBADMSG with a sentence. Counts are bounded before anything is unpacked. A
 * request that is refused still leaves its id in out->id ("" if it had none that could be read), so
 * that the refusal can carry it; a reply is written on success only. */
int protocol_request_read(const void *bytes, size_t size, struct protocol_request *out, char *error,
                          size_t error_size);
int protocol_reply_read(const void *bytes, size_t size, struct protocol_reply *out, char *error,
                        size_t error_size);

#endif
