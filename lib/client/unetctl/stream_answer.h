/*
 * One message of unetctl stream and its answer.
 */
#ifndef STREAM_ANSWER_H
#define STREAM_ANSWER_H

#include "command.h"
#include "masks.h"

#include "lib/message.h"

struct stream_answer {
    char *data; /* what to write; NULL only if lost, or without memory */
    size_t bytes;
    bool failed; /* it says so, and error why */
    int lost;    /* exit code: there is no server any more to answer */
    char error[COMMAND_ERROR_MAX];
};

/* Ask. data: message.bytes long and terminated; it is changed. *server as server_endure. An npy's
 * mask is npy, an empty one (0 x 0) if there is none; a line is answered by a line. */
void stream_answer(const struct masks_options *options, const struct unetserve_interface *legend,
                   struct server **server, const struct message *message, char *data,
                   struct stream_answer *out);

#endif
