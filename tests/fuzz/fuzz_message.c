/* Messages in a stream of bytes: what a measured message is does not depend on how much lies behind
 * it, or on how the bytes came in. */
#include "lib/message.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MESSAGE_MAX 4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int condition)
{
    if (!condition)
        abort();
}

static void check_one(const uint8_t *data, const struct message *message)
{
    struct message again;
    char error[200];
    check(message->bytes > 0 && message->bytes <= MESSAGE_MAX);
    check(message_measure(data, message->bytes, 0, MESSAGE_MAX, &again, error, sizeof error) == 0);
    check(again.kind == message->kind && again.bytes == message->bytes);
    check(message_measure(data, message->bytes - 1, 0, MESSAGE_MAX, &again, error, sizeof error) ==
          -EAGAIN);
    if (message->kind == MESSAGE_LINE) {
        check(data[message->bytes - 1] == '\n' && !memchr(data, '\n', message->bytes - 1));
        check(message_measure(data, message->bytes, message->bytes - 1, MESSAGE_MAX, &again, error,
                              sizeof error) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    while (size > 0) {
        struct message message;
        char error[200] = "";
        int rc = message_measure(data, size, 0, MESSAGE_MAX, &message, error, sizeof error);
        check(rc == 0 || rc == -EAGAIN || ((rc == -EBADMSG || rc == -EFBIG) && error[0]));
        if (rc != 0)
            return 0;
        check(message.bytes <= size);
        check_one(data, &message);
        data += message.bytes;
        size -= message.bytes;
    }
    return 0;
}
