/* Heads of the client protocol: the first byte chooses request or reply; what is read must write
 * and read back. */
#include "unetserve/protocol.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_request(const uint8_t *data, size_t size)
{
    struct protocol_request request;
    struct protocol_request again;
    unsigned char bytes[PROTOCOL_HEAD_MAX];
    char error[160];
    if (protocol_request_read(data, size, &request, error, sizeof error) < 0)
        return;
    long length = protocol_request_write(&request, bytes, sizeof bytes);
    if (length < 0 ||
        protocol_request_read(bytes, (size_t)length, &again, error, sizeof error) < 0 ||
        again.op != request.op || again.accept != request.accept ||
        again.timeout_ms != request.timeout_ms || strcmp(again.id, request.id) != 0 ||
        strcmp(again.model, request.model) != 0 ||
        memcmp(&again.shape, &request.shape, sizeof again.shape) != 0)
        abort();
}

static void try_reply(const uint8_t *data, size_t size)
{
    struct protocol_reply reply;
    struct protocol_reply again;
    unsigned char bytes[PROTOCOL_HEAD_MAX];
    char error[160];
    if (protocol_reply_read(data, size, &reply, error, sizeof error) < 0)
        return;
    long length = protocol_reply_write(&reply, bytes, sizeof bytes);
    if (length < 0 || protocol_reply_read(bytes, (size_t)length, &again, error, sizeof error) < 0 ||
        again.status != reply.status || again.queue_ms != reply.queue_ms ||
        strcmp(again.id, reply.id) != 0 || strcmp(again.type, reply.type) != 0 ||
        memcmp(&again.shape, &reply.shape, sizeof again.shape) != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    if (data[0] & 1)
        try_reply(data + 1, size - 1);
    else
        try_request(data + 1, size - 1);
    return 0;
}
