/*
 * unetctl stream: messages on standard input, their answers on standard output in the same order.
 * One thread reads, several ask, one writes; between them lies a ring of entries. Where it is full
 * nothing is read, so that whoever writes to us waits in turn.
 */
#include "command.h"
#include "stream_answer.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sysexits.h>
#include <unistd.h>

#define STREAM_MESSAGE_MAX ((size_t)512 << 20)
#define STREAM_BYTES_MAX   ((size_t)1 << 30) /* of all messages that are in the ring */
#define STREAM_READ_BYTES  ((size_t)1 << 16)

static const char help_text[] =
    "usage: unetctl stream [-o OUT] [--url URL | --endpoint ADDRESS] [OPTION]...\n"
    "\n"
    "Reads messages from standard input and writes their answers to standard output, each as soon\n"
    "as it is there and those before it are written. Messages are\n"
    "\n"
    "  npy arrays          one after another, tiles; their masks are answered as npy\n"
    "  lines of JSON       documents for the model's route (--url); lines are answered\n"
    "  lines of paths      with -o: of tiles, whose masks go to OUT; answered by lines of JSON\n"
    "\n"
    "Ends with its input, or with SIGTERM or SIGINT after what it has read.\n"
    "\n"
    "  -o, --output OUT    directory of the masks\n" MASKS_HELP "\n"
    "UNETSERVE_API_KEY in the environment is sent with requests over HTTP.\n";

static const struct option long_options[] = {
    MASKS_LONG_OPTIONS,
    {NULL, 0, NULL, 0},
};

struct stream_entry {
    struct message message;
    char *data; /* the message, terminated */
    bool over;  /* the answer is there */
    struct stream_answer answer;
};

struct stream {
    struct masks_options masks;
    struct unetserve_interface legend; /* read-only once threads run */
    unsigned jobs;
    sigset_t stop, unblocked;
    int wake;                  /* eventfd: nothing more is written */
    struct stream_entry *ring; /* of room: message number n lies at n % room */
    size_t room;

    pthread_mutex_t lock; /* guards what follows, and whose turn an entry is */
    pthread_cond_t moved;
    uint64_t read, taken, written; /* so many messages */
    size_t bytes;                  /* of those between read and written */
    uint64_t failed;
    bool ended; /* nothing more is read */
    int code;   /* why before its time; -1: it was not */
};

/* ---- asking and writing ---- */

static void *stream_ask(void *argument)
{
    struct stream *stream = argument;
    struct server *server = NULL;
    pthread_mutex_lock(&stream->lock);
    for (;;) {
        while (stream->taken == stream->read && !stream->ended)
            pthread_cond_wait(&stream->moved, &stream->lock);
        if (stream->taken == stream->read || stream->code >= 0)
            break;
        struct stream_entry *entry = &stream->ring[stream->taken++ % stream->room];
        pthread_mutex_unlock(&stream->lock);
        stream_answer(&stream->masks, &stream->legend, &server, &entry->message, entry->data,
                      &entry->answer);
        pthread_mutex_lock(&stream->lock);
        entry->over = true;
        pthread_cond_broadcast(&stream->moved);
    }
    pthread_mutex_unlock(&stream->lock);
    server_close(server);
    return NULL;
}

/* -1 or an exit code. */
static int stream_write_one(struct stream *stream, const struct stream_entry *entry)
{
    const struct stream_answer *answer = &entry->answer;
    unsigned long long number = stream->written + 1;
    if (answer->lost)
        return command_fail(answer->lost, "message %llu: %s", number, answer->error);
    if (answer->failed)
        fprintf(stderr, "unetctl: message %llu: %s\n", number, answer->error);
    if (!answer->data)
        return command_fail(EX_OSERR, "message %llu: no memory for its answer", number);
    if (fwrite(answer->data, 1, answer->bytes, stdout) != answer->bytes || fflush(stdout) != 0)
        return command_fail(EX_IOERR, "cannot write to standard output: %s", strerror(errno));
    return -1;
}

static void *stream_write(void *argument)
{
    struct stream *stream = argument;
    pthread_mutex_lock(&stream->lock);
    while (stream->code < 0) {
        struct stream_entry *entry = &stream->ring[stream->written % stream->room];
        if (stream->written == stream->read && stream->ended)
            break;
        if (stream->written == stream->read || !entry->over) {
            pthread_cond_wait(&stream->moved, &stream->lock);
            continue;
        }
        pthread_mutex_unlock(&stream->lock);
        int code = stream_write_one(stream, entry);
        free(entry->data);
        free(entry->answer.data);
        pthread_mutex_lock(&stream->lock);
        stream->failed += entry->answer.failed;
        stream->bytes -= entry->message.bytes;
        *entry = (struct stream_entry){.data = NULL};
        stream->written++;
        stream->code = code;
        pthread_cond_broadcast(&stream->moved);
    }
    pthread_mutex_unlock(&stream->lock);
    /* Whoever waits for input looks up. */
    eventfd_write(stream->wake, 1);
    return NULL;
}

/* ---- reading ---- */

struct stream_input {
    char *data;
    size_t size, at, end; /* data[at] to data[end] is not yet taken */
    size_t seen;          /* so much of it holds no line's end */
    bool closed;
};

/* More bytes, once they come. 0; -EINTR: stop; or negative errno. */
static int input_fill(struct stream_input *input, const struct stream *stream)
{
    if (input->at > 0) {
        memmove(input->data, input->data + input->at, input->end - input->at);
        input->end -= input->at;
        input->at = 0;
    }
    if (input->size - input->end < STREAM_READ_BYTES) {
        char *grown = realloc(input->data, input->size * 2);
        if (!grown)
            return -ENOMEM;
        input->data = grown;
        input->size *= 2;
    }
    struct pollfd polls[] = {{STDIN_FILENO, POLLIN, 0}, {stream->wake, POLLIN, 0}};
    /* No signal between the look and the wait. */
    pthread_sigmask(SIG_BLOCK, &stream->stop, NULL);
    int ready = atomic_load(&masks_stop) ? -1 : ppoll(polls, 2, NULL, &stream->unblocked);
    pthread_sigmask(SIG_SETMASK, &stream->unblocked, NULL);
    if (ready < 0 || polls[1].revents || atomic_load(&masks_stop))
        return -EINTR;
    ssize_t got = read(STDIN_FILENO, input->data + input->end, input->size - input->end);
    if (got < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    input->closed = got == 0;
    input->end += (size_t)got;
    return 0;
}

/* The next message, copied and terminated. 0; -ENODATA: there is none; -EINTR: stop; else negative
 * with a sentence. */
static int input_next(struct stream_input *input, const struct stream *stream,
                      struct message *message, char **out, char *error, size_t error_size)
{
    for (;;) {
        size_t size = input->end - input->at;
        int rc = message_measure(input->data + input->at, size, input->seen, STREAM_MESSAGE_MAX,
                                 message, error, error_size);
        if (rc == -EAGAIN && input->closed) {
            if (size == 0)
                return -ENODATA;
            if (input->data[input->at] == (char)0x93) {
                snprintf(error, error_size, "it is cut short");
                return -EBADMSG;
            }
            *message = (struct message){MESSAGE_LINE, size}; /* the last line, without an end */
            rc = 0;
        }
        if (rc == 0) {
            *out = malloc(message->bytes + 1);
            if (!*out)
                return -ENOMEM;
            memcpy(*out, input->data + input->at, message->bytes);
            (*out)[message->bytes] = 0;
            input->at += message->bytes;
            input->seen = 0;
            return 0;
        }
        input->seen = size;
        if (rc != -EAGAIN || (rc = input_fill(input, stream)) < 0)
            return rc;
    }
}

/* Waits for room. Takes data over. */
static void stream_put(struct stream *stream, const struct message *message, char *data)
{
    pthread_mutex_lock(&stream->lock);
    while (stream->code < 0 && stream->read > stream->written &&
           (stream->read - stream->written >= stream->room ||
            stream->bytes > STREAM_BYTES_MAX - message->bytes))
        pthread_cond_wait(&stream->moved, &stream->lock);
    stream->ring[stream->read % stream->room] = (struct stream_entry){.message = *message,
                                                                      .data = data};
    stream->read++;
    stream->bytes += message->bytes;
    pthread_cond_broadcast(&stream->moved);
    pthread_mutex_unlock(&stream->lock);
}

/* To the end of the input. -1 or an exit code. */
static int stream_read(struct stream *stream)
{
    struct stream_input input = {.data = malloc(STREAM_READ_BYTES), .size = STREAM_READ_BYTES};
    struct message message;
    char *data;
    char error[COMMAND_ERROR_MAX] = "no memory";
    int rc = -ENOMEM;
    while (input.data &&
           (rc = input_next(&input, stream, &message, &data, error, sizeof error)) == 0) {
        bool blank = message.kind == MESSAGE_LINE && data[strspn(data, " \t\r\n")] == 0;
        if (blank)
            free(data);
        else
            stream_put(stream, &message, data);
    }
    free(input.data);
    if (rc == -ENODATA || rc == -EINTR)
        return -1;
    return command_fail(rc == -EFBIG ? EX_DATAERR : command_exit_code(rc),
                        "message %llu of the input: %s", (unsigned long long)stream->read + 1,
                        error);
}

/* ---- all of it ---- */

static int stream_work(struct stream *stream)
{
    pthread_t threads[MASKS_JOBS_MAX], writer;
    unsigned started = 0;
    masks_catch_signals();
    /* Only the main thread sees them. */
    pthread_sigmask(SIG_BLOCK, &stream->stop, &stream->unblocked);
    bool writes = pthread_create(&writer, NULL, stream_write, stream) == 0;
    while (writes && started < stream->jobs &&
           pthread_create(&threads[started], NULL, stream_ask, stream) == 0)
        started++;
    pthread_sigmask(SIG_SETMASK, &stream->unblocked, NULL);
    int code = started ? stream_read(stream) : command_fail(EX_OSERR, "cannot start a thread");
    pthread_mutex_lock(&stream->lock);
    stream->ended = true;
    pthread_cond_broadcast(&stream->moved);
    pthread_mutex_unlock(&stream->lock);
    while (started > 0)
        pthread_join(threads[--started], NULL);
    if (writes)
        pthread_join(writer, NULL);
    if (stream->code >= 0)
        return stream->code;
    if (code >= 0)
        return code;
    return stream->failed ? EX_DATAERR : EX_OK;
}

static int take_options(struct stream *stream, int argc, char **argv)
{
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, ":o:h", long_options, NULL)) != -1) {
        int code = masks_take_option(&stream->masks, help_text, option);
        if (code >= 0)
            return code;
    }
    if (optind < argc)
        return command_fail(EX_USAGE, "stream reads standard input and takes no '%s'",
                            argv[optind]);
    return masks_check_options(&stream->masks);
}

int command_stream(int argc, char **argv)
{
    static struct stream stream = {
        .lock = PTHREAD_MUTEX_INITIALIZER, .moved = PTHREAD_COND_INITIALIZER, .code = -1};
    stream.masks = masks_defaults();
    int code = take_options(&stream, argc, argv);
    if (code >= 0)
        return code;
    sigemptyset(&stream.stop);
    sigaddset(&stream.stop, SIGINT);
    sigaddset(&stream.stop, SIGTERM);
    if (stream.masks.output)
        code = masks_open_output(stream.masks.output, NULL);
    if (code < 0)
        code = masks_meet_server(&stream.masks, &stream.legend, &stream.jobs);
    if (code >= 0)
        return code;
    stream.room = (size_t)2 * stream.jobs;
    stream.ring = calloc(stream.room, sizeof *stream.ring);
    stream.wake = eventfd(0, EFD_CLOEXEC);
    if (!stream.ring || stream.wake < 0) {
        free(stream.ring);
        return command_fail(EX_OSERR, "cannot begin: %s", strerror(errno));
    }
    code = stream_work(&stream);
    for (size_t i = 0; i < stream.room; i++) {
        free(stream.ring[i].data);
        free(stream.ring[i].answer.data);
    }
    free(stream.ring);
    close(stream.wake);
    return code;
}
