/*
 * The model plugin ABI: LitServe's LitAPI in C. A model is a shared object that exports one
 * function,
 *
 *     const struct unetserve_model_ops *unetserve_model(void);
 *
 * and is loaded by worker processes only. One worker holds one instance of one model on one device
 * and calls it from one thread. Nothing here is shared between processes, so a plugin may use any
 * library.
 *
 * A request reaches a plugin in one of three forms, chosen by its interface:
 *  - UNETSERVE_TENSOR: the gateway has decoded the body (JSON array, npy, raw), or the worker the
 * image file (TIFF, PNG), into a tensor of one of the declared types;
 *  - UNETSERVE_DOCUMENT with declared request fields: the worker has read the JSON document,
 * refused it with 422 where it is not as declared, and the plugin finds the fields in item->values;
 *  - UNETSERVE_DOCUMENT without: the plugin gets the body's bytes as they came and decodes them in
 * decode_request.
 * The answer, likewise, is a tensor that the gateway encodes as the client asked, or a document,
 * either written by host->respond from the declared response fields or by the plugin itself.
 *
 * docs/writing-a-model.md walks through it; workers/models/examples/ has one file for each way.
 */
#ifndef UNETSERVE_MODEL_H
#define UNETSERVE_MODEL_H

#include "unetserve/tensor.h"

#include <stdbool.h>
#include <stdint.h>

#define UNETSERVE_MODEL_ABI   1
#define UNETSERVE_MAX_CLASSES 256
#define UNETSERVE_MAX_FIELDS  8
#define UNETSERVE_MAX_WATCHES 128
#define UNETSERVE_MAX_METRICS 16
#define UNETSERVE_MAX_DEPTH   4 /* of lists in lists */
#define UNETSERVE_MAX_SCHEMA  8192

enum unetserve_payload { UNETSERVE_TENSOR = 1, UNETSERVE_DOCUMENT = 2 };

/* One class of a segmentation model. */
struct unetserve_class {
    char name[46];
    uint16_t code; /* the number in the product's legend (WorldCover: 10, 20, ...); the label is the
                      class's position */
    uint8_t rgb[3]; /* colour in PNG answers */
    uint8_t reserved[5];
};

enum unetserve_field_type {
    UNETSERVE_FLOAT = 1,
    UNETSERVE_INT,
    UNETSERVE_STR,
    UNETSERVE_BOOL,
};

/* One declared field of a JSON document. What fits is what pydantic takes for the same declaration:
 * "4.0" is a float, true is the number 1, 4.0 is an int and 4.5 is none. */
struct unetserve_field {
    char name[48];
    uint32_t type;     /* enum unetserve_field_type */
    uint32_t depth;    /* 0: one value; 3: List[List[List[float]]]. Lists are of FLOAT only */
    uint32_t optional; /* may be absent: then it is fallback, or fallback_text. Never a list */
    uint32_t or_bare;  /* depth 1: a bare number is taken too, as Union[float, List[float]] */
    double fallback;   /* FLOAT, INT, BOOL */
    char fallback_text[32];
};

/* One value as declared. */
struct unetserve_value {
    bool bare;                           /* depth 1: the list of one is a bare number */
    double number;                       /* FLOAT, INT; BOOL: 0 or 1 */
    int64_t integer;                     /* INT */
    const char *text;                    /* STR: UTF-8, terminated */
    size_t text_bytes;                   /* without the terminator */
    size_t count;                        /* lists: how many follow */
    const double *numbers;               /* a list of numbers */
    const struct unetserve_value *lists; /* a list of lists */
};

/* What a model takes and gives. Copied into shared memory for gateways: fixed widths, no pointers,
 * zero what is unused. */
struct unetserve_interface {
    char name[64];
    char version[32];
    uint32_t input_kind;   /* enum unetserve_payload */
    uint32_t output_kind;  /* enum unetserve_payload */
    char input_field[32];  /* the JSON key that holds the input tensor ("image") */
    char output_field[32]; /* the JSON key of the answer ("output") */

    /* For tensor inputs: C x H x W, or N x C x H x W when max_batch > 1. */
    uint32_t input_dtypes;  /* bit (1 << dtype) for each accepted enum unetserve_dtype; float64
                               bodies arrive as F32 */
    uint32_t channels;      /* C */
    uint32_t size_multiple; /* H and W must be multiples of this; 1: any */
    uint32_t size_min;      /* least H and W */
    uint32_t size_max;      /* largest H and W; 0: whatever fits a slot */
    uint32_t tile;          /* the usual H and W, 0 if unknown; slots are dimensioned by it */
    uint32_t max_batch;     /* tiles that predict takes at once, over all items; at least 1 */

    /* For tensor outputs. */
    uint32_t output_dtype; /* U8: labels H x W, or N x H x W for a batched request */
    uint32_t class_count;
    uint32_t flags; /* UNETSERVE_STREAMS, _READS_ITSELF, _TAKES_FILES, _ON_DEVICE */
    struct unetserve_class classes[UNETSERVE_MAX_CLASSES];

    /* For documents: declared fields. 0 of them: the plugin reads, or writes, the document itself.
     */
    uint32_t request_field_count;
    uint32_t response_field_count;
    struct unetserve_field request_fields[UNETSERVE_MAX_FIELDS];
    struct unetserve_field response_fields[UNETSERVE_MAX_FIELDS];

    uint32_t batch_timeout_ms; /* how long a request is worth holding back for others, where the
                                  configuration does not say */
    uint32_t max_pending; /* items that may be pending at once (predict returned UNETSERVE_PENDING);
                             0: as many as a worker holds */

    /* For documents that declared fields have no words for, and that the plugin reads and writes
     * itself: a JSON Schema of each, an object without references, for those who write clients.
     * "examples" in the request's is what they begin with. "": none. */
    char request_schema[UNETSERVE_MAX_SCHEMA];
    char response_schema[UNETSERVE_MAX_SCHEMA];
};

/* flags: an answer is any number of items, each sent as soon as it is made (host->emit). */
#define UNETSERVE_STREAMS 1u

/* flags: the request fields say what the document looks like, for clients; the plugin reads and
 * checks it itself, in decode_request, and there are no values. */
#define UNETSERVE_READS_ITSELF 2u

/* flags, of a model that takes documents: forms may hold files. A form comes as the JSON object of
 * its fields, text as strings; a file as the object {"unetserve.UploadFile": {"filename": ...,
 * "content_type": ..., "data": base64}}. Without it a form with a file is refused. */
#define UNETSERVE_TAKES_FILES 4u

/* flags: pending items are work that a device does by itself, and ends soon. The worker has predict
 * put a second batch behind the first, if that is a full one, so that the device need not wait; and
 * while none of them ends, it counts as hanging as if it were in predict. */
#define UNETSERVE_ON_DEVICE 8u

/* Why a device is lost. */
enum unetserve_loss {
    UNETSERVE_LOSS_OTHER,
    UNETSERVE_LOSS_ECC,    /* its memory has errors that nothing corrects */
    UNETSERVE_LOSS_GONE,   /* it does not answer any more: off the bus */
    UNETSERVE_LOSS_MEMORY, /* none is left for what there was memory for at the start */
    UNETSERVE_LOSS_FAULT,  /* what ran on it broke its context: an illegal address, a failed launch
                            */
    UNETSERVE_LOSS_COUNT
};

/* predict: those items of this call that are not completed yet will be, by host->complete. */
#define UNETSERVE_PENDING 1

/* One request as a model sees it. The worker owns the item; a model may keep a pointer in user
 * between its own calls for this item and must not touch the item after the call in which it
 * finished it. */
struct unetserve_item {
    /* input: read-only, valid during decode_request and predict */
    const void *input;
    size_t input_bytes;
    struct unetserve_shape input_shape; /* rank 0 for documents */
    const char *request_id;             /* for logs */

    /* output: the model writes at most output_capacity bytes and sets the three fields below */
    void *output;
    size_t output_capacity;
    size_t output_bytes;
    struct unetserve_shape output_shape; /* rank 0 for documents */
    uint32_t status; /* 200; or 400..599 and a JSON document in output: the model refuses this
                        request, alone */

    void *user;      /* the model's own, NULL at decode_request */
    void *host_item; /* the worker's own */

    /* one for each declared request field, in that order; valid until the item is finished */
    const struct unetserve_value *values;
};

/* Memory of the queue: a slot's area for inputs, or for outputs. Whole pages. */
struct unetserve_area {
    const void *data;
    size_t bytes;
    bool writable;
};

/* What the worker offers to a model. Valid from setup to teardown. Callable from the thread that
 * called the model, complete from any thread. */
struct unetserve_host {
    uint32_t abi;
    uint32_t size; /* of this struct as the worker knows it */
    /* One log line, printf-like. level: 3 error, 4 warning, 6 info, 7 debug (syslog's numbers). */
    void (*log)(const struct unetserve_host *host, int level, const char *format, ...)
        __attribute__((format(printf, 3, 4)));
    /* "I make progress": call it at least once a second while predicting, or the worker is taken
     * for hung and killed. */
    void (*tick)(const struct unetserve_host *host);
    /* Has the client of this item left, or its deadline passed? A model may then give it up (status
     * is ignored). */
    bool (*cancelled)(const struct unetserve_host *host, const struct unetserve_item *item);
    void *opaque; /* the worker's own */

    /* Write the item's answer from one value for each declared response field: a JSON object.
     * 0; -ENOSPC: it does not fit; -EDOM: it holds a number that JSON has not, NaN or infinite. */
    int (*respond)(const struct unetserve_host *host, struct unetserve_item *item,
                   const struct unetserve_value *values);

    /* ---- streaming models (UNETSERVE_STREAMS) ---- */

    /* Send one item of the answer: a JSON document, as soon as it is made. 0; -ECANCELED: its
     * client has left or its time is over, stop; -EMSGSIZE: larger than a slot's output area. When
     * the client reads slowly it blocks, with signs of progress, until there is room or the item is
     * cancelled; for a pending item it returns -EAGAIN instead. */
    int (*emit)(const struct unetserve_host *host, struct unetserve_item *item, const void *bytes,
                size_t size);

    /* The same with one value for each declared response field. Also -ENOSPC and -EDOM, as respond.
     */
    int (*emit_values)(const struct unetserve_host *host, struct unetserve_item *item,
                       const struct unetserve_value *values);

    /* ---- models that wait (predict returned UNETSERVE_PENDING) ---- */

    /* The item has its answer (error 0: encode_response comes next), or failed (a negative errno).
     * From any thread, once for each pending item, and the model's last touch of it until
     * encode_response. */
    void (*complete)(const struct unetserve_host *host, struct unetserve_item *item, int error);

    /* Call ready on the worker's thread whenever fd is readable (EPOLLIN) or writable (EPOLLOUT),
     * between calls of predict, until unwatch. The fd stays the model's. 0, -EEXIST, -ENOSPC
     * (UNETSERVE_MAX_WATCHES) or what epoll says. */
    int (*watch)(const struct unetserve_host *host, int fd, uint32_t events,
                 void (*ready)(void *opaque, int fd, uint32_t events), void *opaque);
    void (*unwatch)(const struct unetserve_host *host, int fd);

    /* ---- numbers of the model's own, shown at /metrics ---- */

    /* Add to a counter, or set a gauge: unetserve_model_NAME, added up over the model's workers. A
     * name has 1 to 47 characters of a-z, 0-9 and _; a counter's ends with _total. 0; -EINVAL: no
     * such name, not finite, a counter going down, or the name is the other kind's; -ENOSPC: more
     * than UNETSERVE_MAX_METRICS of them. From the worker's thread only. */
    int (*count)(const struct unetserve_host *host, const char *name, double more);
    int (*gauge)(const struct unetserve_host *host, const char *name, double value);

    /* ---- what came later: absent where size ends before it ---- */

    /* The area that this address of an item's input or output lies in. It stays where it is as long
     * as the process, so a model may page-lock it for its device. 0; -ENOENT: it lies in none, as
     * the pixels of an image file. */
    int (*area)(const struct unetserve_host *host, const void *address, struct unetserve_area *out);

    /* Why the device is lost that predict is about to return -EIO for, or complete to tell: enum
     * unetserve_loss. The worker's exit status says so, and the supervisor leaves the device alone
     * accordingly. */
    void (*lost)(const struct unetserve_host *host, uint32_t why);
};

/* How an instance is set up. Pointers are valid during the call only, except host. */
struct unetserve_setup {
    uint32_t abi;
    uint32_t size;                     /* of this struct as the worker knows it */
    const struct unetserve_host *host; /* NULL in describe when no worker is behind it */
    const char *path; /* what the configuration names: weights file, model directory, or the plugin
                         itself */
    const char *device; /* "cpu" or "cuda:N" */
    const char
        *precision; /* "auto", "f32", "bf16", "f16" or "int8"; overrides model.json unless "auto" */
    const char *backend; /* "auto", "reference", "onednn", "cudnn" */
    uint32_t threads;   /* CPU threads to use, at least 1; the worker is already pinned to that many
                           cores */
    uint32_t max_batch; /* from the configuration; 0: the model's choice */
    uint32_t tile;      /* from the configuration; 0: the model's choice */
    const char *cache_dir; /* where a model may keep what other workers, and later ones, can use
                              again; NULL: nowhere. To be opened in setup only */
    const char *route;     /* where it is served: "/predict"; NULL: not known */
    bool no_timing; /* do not spend the start on measuring what is fast here; absent: false */
    const char *convolution; /* "auto", "direct" or "winograd"; overrides model.json unless "auto";
                                absent: "auto" */
};

/*
 * Calls return 0 or a negative errno and, where there is an error buffer, a sentence in it that
 * names the file, what was expected and what came. describe and setup: -ENOENT and -EACCES missing
 * input, -EBADMSG bad model data, -ENODEV needed device missing, -EINVAL wrong option; these become
 * the process's exit status.
 */
struct unetserve_model_ops {
    uint32_t abi;  /* UNETSERVE_MODEL_ABI */
    uint32_t size; /* sizeof(struct unetserve_model_ops) as compiled, so that later fields can be
                      told to be absent */
    const char *name;

    /* Fill *interface quickly and cheaply, without building anything: used for --check and to
     * dimension the queue. */
    int (*describe)(const struct unetserve_setup *setup, struct unetserve_interface *interface,
                    char *error, size_t error_size);

    /* Make an instance ready to predict; *model is handed to every other call. Fills *interface
     * like describe. */
    int (*setup)(const struct unetserve_setup *setup, void **model,
                 struct unetserve_interface *interface, char *error, size_t error_size);

    /* (optional) Turn item->input into whatever predict wants, in item->user. Set item->status >=
     * 400 and write a JSON document to refuse. A negative return is an internal error: the request
     * is answered 500. */
    int (*decode_request)(void *model, struct unetserve_item *item);

    /* Answer count items of equal input shape. Without encode_response it writes the outputs; or it
     * returns UNETSERVE_PENDING, and completes each of them later. An item that it refuses gets a
     * status >= 400 and the others go on. After a negative return the worker decodes each item
     * again and calls predict for it alone: only those that fail by themselves are answered 500.
     * -EIO says that the device is lost: the worker ends, and the items run in another one. */
    int (*predict)(void *model, struct unetserve_item *const *items, size_t count);

    /* (optional) Write item->output from item->user, and free item->user. Called once for each item
     * that decode_request accepted, also when predict failed (item->status is then 500 and nothing
     * needs to be written). */
    int (*encode_response)(void *model, struct unetserve_item *item);

    /* (optional) 0 when the instance can serve. Called when the worker is idle. */
    int (*health)(void *model);

    void (*teardown)(void *model);

    /* ---- fields that came later: absent where size ends before them ---- */

    /* (optional) Called before predict with its items: stack what decode_request left in them. A
     * negative return counts as predict's. */
    int (*batch)(void *model, struct unetserve_item *const *items, size_t count);

    /* (optional) Called after predict: take apart what it made. A negative return counts as
     * predict's. It is also called when predict failed, to free what batch made. */
    int (*unbatch)(void *model, struct unetserve_item *const *items, size_t count);

    /* (optional) A pending item's client has left, or its time is over: complete it soon. Called
     * once. A worker whose model keeps such an item for longer than run_timeout_ms ends. */
    void (*cancel)(void *model, struct unetserve_item *item);

    /* (optional) How many tiles to run together next, of `waiting` ones of that shape; of an N x C
     * x H x W counts C x H x W alone. Asked before a batch is put together; at most max_batch are,
     * and a request is never cut. *settled, set by a model whose answer for that shape will stay as
     * it is however many wait: no more than so many are kept at hand for this worker from then on.
     */
    uint32_t (*together)(void *model, const struct unetserve_shape *shape, uint32_t waiting,
                         bool *settled);
};

__attribute__((visibility("default"))) const struct unetserve_model_ops *unetserve_model(void);

#endif
