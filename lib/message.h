/*
 * Messages one after another in a stream of bytes, as `cat a.npy b.npy` or a program that prints
 * lines make them: npy arrays, which tell their own length, and lines.
 */
#ifndef MESSAGE_H
#define MESSAGE_H

#include <stddef.h>

enum message_kind { MESSAGE_LINE, MESSAGE_NPY };

struct message {
    enum message_kind kind; /* by its first byte */
    size_t bytes;           /* all of it, a line's end included */
};

/* How long the message is that data begins with; it may be max bytes. seen: so many bytes are known
 * to hold no line's end. 0 with *out; -EAGAIN: more bytes than size are needed; -EBADMSG (no right
 * npy) and -EFBIG with a sentence in error: where the next one begins is not to be known. */
int message_measure(const void *data, size_t size, size_t seen, size_t max, struct message *out,
                    char *error, size_t error_size);

#endif
