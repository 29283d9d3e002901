#include "stream_answer.h"

#include "image.h"
#include "unetserve/mask_writer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct stream_task {
    const struct masks_options *options;
    const struct unetserve_interface *legend;
    enum message_kind kind;
    char *data;
    size_t bytes; /* without a line's end */
    struct stream_answer *out;
};

/* ---- words ---- */

static int answer_set(struct stream_answer *out, const void *data, size_t bytes, const char *tail)
{
    size_t length = strlen(tail);
    out->data = malloc(bytes + length + 1);
    if (!out->data)
        return -ENOMEM;
    memcpy(out->data, data, bytes);
    memcpy(out->data + bytes, tail, length + 1);
    out->bytes = bytes + length;
    return 0;
}

/* Takes line over. */
static int answer_set_json(struct stream_answer *out, json_t *line)
{
    char *text = line ? json_dumps(line, JSON_COMPACT) : NULL;
    int rc = text ? answer_set(out, text, strlen(text), "\n") : -ENOMEM;
    free(text);
    json_decref(line);
    return rc;
}

/* {"status": 422, "detail": ...} */
static int answer_set_refusal(struct stream_answer *out, const struct unetserve_answer *answer)
{
    json_t *document = json_loadb(answer->data, answer->bytes, 0, NULL);
    json_t *line = json_pack("{s:i}", "status", answer->status);
    if (line && json_is_object(document))
        json_object_update(line, document);
    json_decref(document);
    snprintf(out->error, sizeof out->error, "the server refused it (%d): %.300s", answer->status,
             (const char *)answer->data);
    out->failed = true;
    return answer_set_json(out, line);
}

static int answer_set_empty_mask(struct stream_answer *out)
{
    char header[256];
    const struct unetserve_shape empty = {UNETSERVE_U8, 2, {0, 0}};
    int bytes = npy_header_write(&empty, header, sizeof header);
    return bytes < 0 ? bytes : answer_set(out, header, (size_t)bytes, "");
}

/* ---- asking ---- */

static int ask_document(struct server *server, const struct stream_task *task, char *error,
                        size_t error_size)
{
    struct unetserve_answer answer;
    int rc = server_ask_document(server, task->data, task->bytes, &answer, error, error_size);
    if (rc < 0)
        return rc;
    const char *text = answer.data;
    size_t bytes = answer.bytes;
    while (bytes > 0 && (text[bytes - 1] == '\n' || text[bytes - 1] == '\r'))
        bytes--;
    rc = answer.status == 200 ? answer_set(task->out, text, bytes, "\n")
                              : answer_set_refusal(task->out, &answer);
    unetserve_answer_free(&answer);
    return rc;
}

static int ask_tile(struct server *server, const struct stream_task *task, char *error,
                    size_t error_size)
{
    struct image image = {.data = NULL};
    struct windows_result result = {.labels = NULL};
    void *npy;
    FILE *file = fmemopen(task->data, task->bytes, "rb");
    int rc = -ENOMEM;
    if (file) {
        rc = image_read_npy(file, &image, error, error_size);
        fclose(file);
    }
    if (rc == 0)
        rc = masks_predict(task->options, server, &image, &result, error, error_size);
    if (rc == 0 && (rc = mask_encode(MASK_NPY, task->legend, &result.shape, result.labels, &npy,
                                     &task->out->bytes)) == 0)
        task->out->data = npy;
    free(result.labels);
    image_free(&image);
    return rc;
}

static int ask_file(struct server *server, const struct stream_task *task, char *error,
                    size_t error_size)
{
    const char *slash = strrchr(task->data, '/');
    const struct masks_one one = {.input = task->data, .name = slash ? slash + 1 : task->data};
    unsigned requests;
    int rc = masks_run(task->options, task->legend, server, &one, &requests, error, error_size);
    if (rc < 0)
        return rc;
    task->out->data = masks_json_line(task->data, rc, NULL);
    task->out->bytes = task->out->data ? strlen(task->out->data) : 0;
    return 0;
}

static int ask(struct server *server, void *context, char *error, size_t error_size)
{
    const struct stream_task *task = context;
    snprintf(error, error_size, "no memory");
    if (task->kind == MESSAGE_NPY)
        return ask_tile(server, task, error, error_size);
    return task->options->output ? ask_file(server, task, error, error_size)
                                 : ask_document(server, task, error, error_size);
}

void stream_answer(const struct masks_options *options, const struct unetserve_interface *legend,
                   struct server **server, const struct message *message, char *data,
                   struct stream_answer *out)
{
    struct stream_task task = {options, legend, message->kind, data, message->bytes, out};
    bool lost;
    *out = (struct stream_answer){.data = NULL};
    if (message->kind == MESSAGE_LINE) {
        while (task.bytes > 0 && (data[task.bytes - 1] == '\n' || data[task.bytes - 1] == '\r'))
            task.bytes--;
        data[task.bytes] = 0;
    }
    int rc = server_endure(&options->server, server, ask, &task, &lost, out->error,
                           sizeof out->error);
    if (lost)
        out->lost = command_exit_code(rc);
    if (rc >= 0 || lost)
        return;
    out->failed = true;
    if (message->kind == MESSAGE_NPY)
        (void)answer_set_empty_mask(out);
    else if (options->output && (out->data = masks_json_line(data, rc, out->error)))
        out->bytes = strlen(out->data);
    else
        (void)answer_set_json(out, json_pack("{s:s}", "detail", out->error));
}
