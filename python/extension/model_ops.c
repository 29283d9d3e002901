/* A Python class as a model: each hook takes the interpreter's lock and calls a method. The methods
 * (unetserve/_model.py) let no exception of the class through: what comes back is a verdict,
 * (200, VALUE) or (STATUS, BODY). */
#include "python/extension/extension.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

/* ---- places ---- */

struct place *place_of(uint64_t handle)
{
    struct place *place = &extension.places[handle % WORKER_MAX_JOBS];
    return place->item && place->handle == handle ? place : NULL;
}

static struct place *place_take(struct unetserve_item *item)
{
    static uint64_t round;
    for (uint64_t i = 0; i < WORKER_MAX_JOBS; i++) {
        struct place *place = &extension.places[i];
        if (place->item)
            continue;
        *place = (struct place){.item = item, .handle = ++round * WORKER_MAX_JOBS + i};
        item->user = place;
        return place;
    }
    return NULL;
}

static void place_leave(struct unetserve_item *item)
{
    struct place *place = item->user;
    if (!place)
        return;
    Py_CLEAR(place->value);
    place->item = NULL;
    item->user = NULL;
}

/* ---- calls ---- */

static PyGILState_STATE call_begin(const struct unetserve_item *item)
{
    const struct job *job = item->host_item;
    ticker_begin(job->run_timeout_ns);
    return PyGILState_Ensure();
}

static void call_end(PyGILState_STATE state)
{
    PyGILState_Release(state);
    ticker_end();
}

/* An exception that should not have come this far (sys.exit in a hook is one). */
static int broken(void)
{
    if (PyErr_Occurred())
        PyErr_WriteUnraisable(extension.model);
    return -EFAULT;
}

/* ---- verdicts ---- */

static void refuse(struct unetserve_item *item, uint32_t status, const char *body, size_t size)
{
    static const char too_long[] = "{\"detail\":\"The answer is too long\"}";
    item->status = status;
    if (size > item->output_capacity) {
        extension.host->log(extension.host, 3,
                            "an answer of %zu bytes does not fit the %zu of its slot", size,
                            item->output_capacity);
        item->status = 500;
        body = too_long;
        size = sizeof too_long - 1;
    }
    memcpy(item->output, body, size);
    item->output_bytes = size;
}

/* An answer or a refusal, as bytes. */
static int body_write(struct unetserve_item *item, uint32_t status, PyObject *bytes)
{
    char *body;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(bytes, &body, &size))
        return broken();
    refuse(item, status, body, (size_t)size);
    return 0;
}

static int shape_read(PyObject *sizes, enum unetserve_dtype dtype, struct unetserve_shape *out)
{
    struct unetserve_shape shape = {.dtype = dtype};
    Py_ssize_t rank = PyTuple_Size(sizes);
    if (rank < 1 || rank > UNETSERVE_MAX_DIMS)
        return broken();
    for (Py_ssize_t i = 0; i < rank; i++)
        shape.dims[i] = PyLong_AsUnsignedLongLong(PyTuple_GetItem(sizes, i));
    shape.rank = (uint32_t)rank;
    if (PyErr_Occurred())
        return broken();
    *out = shape;
    return 0;
}

/* Steals the verdict. *value, a new reference, is set with status 200 only. */
static int verdict_take(struct unetserve_item *item, PyObject *verdict, PyObject **value)
{
    unsigned status;
    PyObject *object;
    int error = 0;
    if (!verdict || !PyArg_ParseTuple(verdict, "IO", &status, &object)) {
        error = broken();
    } else if (status == 200) {
        Py_INCREF(object);
        *value = object;
    } else {
        error = body_write(item, status, object);
    }
    Py_XDECREF(verdict);
    return error;
}

/* ---- the hooks ---- */

static int describe(const struct unetserve_setup *setup, struct unetserve_interface *interface,
                    char *error, size_t error_size)
{
    PyGILState_STATE state = PyGILState_Ensure();
    PyObject *dict = PyObject_CallMethod(extension.model, "describe", "z", setup->route);
    int failed = 0;
    if (dict && PyUnicode_Check(dict)) {
        PyObject *text = PyUnicode_AsUTF8String(dict);
        snprintf(error, error_size, "%s", text ? PyBytes_AsString(text) : "");
        Py_XDECREF(text);
        failed = -EINVAL;
    } else if (!dict || interface_from_dict(dict, &extension.interface) ||
               interface_number(dict, "is_async", &extension.is_async) ||
               interface_number(dict, "watches_self", &extension.watches_self)) {
        snprintf(error, error_size, "the class cannot be described");
        failed = broken();
    }
    Py_XDECREF(dict);
    PyGILState_Release(state);
    if (failed)
        return failed;
    if (setup->max_batch)
        extension.interface.max_batch = setup->max_batch;
    *interface = extension.interface;
    return 0;
}

static void on_woken(void *opaque, int fd, uint32_t events)
{
    (void)opaque, (void)events;
    uint64_t count;
    (void)!read(fd, &count, sizeof count);
    PyGILState_STATE state = PyGILState_Ensure();
    PyObject *nothing = PyObject_CallMethod(extension.model, "woken", NULL);
    if (!nothing)
        broken();
    Py_XDECREF(nothing);
    PyGILState_Release(state);
}

static int set_up(const struct unetserve_setup *setup, void **model,
                  struct unetserve_interface *interface, char *error, size_t error_size)
{
    extension.host = setup->host;
    int failed = describe(setup, interface, error, error_size);
    if (!failed)
        failed = setup->host->watch(setup->host, extension.wake_fd, EPOLLIN, on_woken, NULL);
    if (failed)
        return failed;
    PyGILState_STATE state = PyGILState_Ensure();
    PyObject *sentence = PyObject_CallMethod(extension.model, "setup", "sI", setup->device,
                                             interface->max_batch);
    if (!sentence) {
        snprintf(error, error_size, "setup did not come to its end");
        failed = broken();
    } else if (PyUnicode_Check(sentence)) {
        PyObject *text = PyUnicode_AsUTF8String(sentence);
        snprintf(error, error_size, "%s", text ? PyBytes_AsString(text) : "");
        Py_XDECREF(text);
        failed = -EBADMSG;
    }
    Py_XDECREF(sentence);
    PyGILState_Release(state);
    if (!failed)
        failed = ticker_start();
    *model = &extension;
    return failed;
}

static PyObject *shape_tuple(const struct unetserve_shape *shape)
{
    PyObject *sizes = PyTuple_New(shape->rank);
    for (uint32_t i = 0; sizes && i < shape->rank; i++)
        PyTuple_SetItem(sizes, i, PyLong_FromUnsignedLongLong(shape->dims[i]));
    return sizes;
}

/* The input itself, not a copy: read-only, and mapped for as long as the process lives. What an
 * image file was expanded to lives as long as its job only, so the class gets a copy of that. */
static PyObject *input_view(const struct unetserve_item *item)
{
    const struct job *job = item->host_item;
    if (job->file) {
        PyObject *copy = PyBytes_FromStringAndSize(item->input, (Py_ssize_t)item->input_bytes);
        PyObject *view = copy ? PyMemoryView_FromObject(copy) : NULL;
        Py_XDECREF(copy);
        return view;
    }
    return PyMemoryView_FromMemory((char *)(uintptr_t)item->input, (Py_ssize_t)item->input_bytes,
                                   PyBUF_READ);
}

static int decode_request(void *model, struct unetserve_item *item)
{
    (void)model;
    PyGILState_STATE state = call_begin(item);
    struct place *place = place_take(item);
    PyObject *view = input_view(item);
    PyObject *sizes = shape_tuple(&item->input_shape);
    int error = -ENOMEM;
    if (place && view && sizes)
        error = verdict_take(item,
                             PyObject_CallMethod(extension.model, "decode", "KOsIO",
                                                 (unsigned long long)place->handle, view,
                                                 item->request_id, item->input_shape.dtype, sizes),
                             &place->value);
    Py_XDECREF(view);
    Py_XDECREF(sizes);
    if (error || item->status != 200)
        place_leave(item);
    call_end(state);
    return error;
}

static PyObject *values_list(struct unetserve_item *const *items, size_t count)
{
    PyObject *values = PyList_New((Py_ssize_t)count);
    for (size_t i = 0; values && i < count; i++) {
        const struct place *place = items[i]->user;
        Py_INCREF(place->value);
        PyList_SetItem(values, (Py_ssize_t)i, place->value);
    }
    return values;
}

/* One verdict for each; None: the batch failed as a whole. */
static int verdicts_take(struct unetserve_item *const *items, size_t count, PyObject *verdicts)
{
    if (!verdicts)
        return broken();
    if (verdicts == Py_None)
        return -EFAULT;
    int error = PyList_Size(verdicts) == (Py_ssize_t)count ? 0 : broken();
    for (size_t i = 0; !error && i < count; i++) {
        struct place *place = items[i]->user;
        PyObject *verdict = PyList_GetItem(verdicts, (Py_ssize_t)i);
        Py_XINCREF(verdict);
        Py_CLEAR(place->value);
        error = verdict_take(items[i], verdict, &place->value);
    }
    return error;
}

static int predict(void *model, struct unetserve_item *const *items, size_t count)
{
    (void)model;
    PyGILState_STATE state = call_begin(items[0]);
    PyObject *values = values_list(items, count);
    PyObject *verdicts = values ? PyObject_CallMethod(extension.model, "predict", "O", values)
                                : NULL;
    Py_XDECREF(values);
    int error = extension.is_async && verdicts ? UNETSERVE_PENDING
                                               : verdicts_take(items, count, verdicts);
    Py_XDECREF(verdicts);
    call_end(state);
    return error;
}

/* (200, BYTES) or, of labels, (200, (BYTES, SIZES)). */
static int answer_write(struct unetserve_item *item, PyObject *answer)
{
    PyObject *bytes;
    PyObject *sizes;
    if (!PyTuple_Check(answer))
        return body_write(item, 200, answer);
    if (!PyArg_ParseTuple(answer, "OO", &bytes, &sizes))
        return broken();
    int error = body_write(item, 200, bytes);
    if (!error && item->status == 200)
        error = shape_read(sizes, UNETSERVE_U8, &item->output_shape);
    return error;
}

static int encode_one(struct unetserve_item *item, const struct place *place)
{
    PyObject *answer = NULL;
    int error = verdict_take(
        item, PyObject_CallMethod(extension.model, "encode", "O", place->value), &answer);
    if (!error && answer)
        error = answer_write(item, answer);
    Py_XDECREF(answer);
    return error;
}

/* Also of one that came to nothing, to free what is kept for it. */
static int encode_response(void *model, struct unetserve_item *item)
{
    (void)model;
    struct place *place = item->user;
    int error = 0;
    PyGILState_STATE state = call_begin(item);
    if (place && item->status == 200) {
        if (extension.is_async)
            error = place->value ? body_write(item, place->status, place->value) : -EFAULT;
        else if (!(extension.interface.flags & UNETSERVE_STREAMS))
            error = encode_one(item, place);
    }
    place_leave(item);
    call_end(state);
    return error;
}

static int health(void *model)
{
    (void)model;
    if (!extension.watches_self)
        return 0;
    PyGILState_STATE state = PyGILState_Ensure();
    PyObject *well = PyObject_CallMethod(extension.model, "health", NULL);
    int error = well ? (PyObject_IsTrue(well) == 1 ? 0 : -EAGAIN) : broken();
    Py_XDECREF(well);
    PyGILState_Release(state);
    return error;
}

static void cancel(void *model, struct unetserve_item *item)
{
    (void)model;
    const struct place *place = item->user;
    if (!extension.is_async || !place)
        return;
    PyGILState_STATE state = PyGILState_Ensure();
    PyObject *nothing = PyObject_CallMethod(extension.model, "cancel", "K",
                                            (unsigned long long)place->handle);
    if (!nothing)
        broken();
    Py_XDECREF(nothing);
    PyGILState_Release(state);
}

static void teardown(void *model)
{
    (void)model; /* the interpreter ends next, and with it the class */
}

const struct unetserve_model_ops extension_ops = {
    .abi = UNETSERVE_MODEL_ABI,
    .size = sizeof extension_ops,
    .name = "python",
    .describe = describe,
    .setup = set_up,
    .decode_request = decode_request,
    .predict = predict,
    .encode_response = encode_response,
    .health = health,
    .teardown = teardown,
    .cancel = cancel,
};
