/* The module unetserve._worker: run the worker, and what a model may ask of it. */
#include "python/extension/extension.h"

#include "unetserve/log.h"
#include "unetserve/seat.h"
#include "workers/program.h"

#include <errno.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define WORDS_MAX 64

struct extension extension = {.retire_fd = -1, .wake_fd = -1};

/* ---- SIGTERM ---- */

static pid_t worker_pid;

/* In whatever thread it arrives. A child that the model has forked ends of it as any process. */
static void on_terminate(int number)
{
    int before = errno;
    if (getpid() != worker_pid) {
        signal(number, SIG_DFL);
        raise(number);
    } else {
        (void)!write(extension.retire_fd, &(uint64_t){1}, sizeof(uint64_t));
    }
    errno = before;
}

static int prepare(void)
{
    struct sigaction action = {.sa_handler = on_terminate, .sa_flags = SA_RESTART};
    extension.retire_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    extension.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    worker_pid = getpid();
    if (extension.retire_fd < 0 || extension.wake_fd < 0 || sigaction(SIGTERM, &action, NULL)) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    return 0;
}

/* ---- run ---- */

/* New references to bytes that argv points into. */
static int words_take(PyObject *list, PyObject **held, char **argv)
{
    Py_ssize_t count = PyList_Size(list);
    if (count < 1 || count >= WORDS_MAX) {
        PyErr_SetString(PyExc_ValueError, "words: a list of 1 to 63");
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        held[i] = PyUnicode_EncodeFSDefault(PyList_GetItem(list, i));
        argv[i] = held[i] ? PyBytes_AsString(held[i]) : NULL;
        if (!argv[i])
            return -1;
    }
    return (int)count;
}

static PyObject *run(PyObject *self, PyObject *arguments)
{
    (void)self;
    PyObject *list, *model;
    const char *paths;
    PyObject *held[WORDS_MAX] = {NULL};
    char *argv[WORDS_MAX] = {NULL};
    if (!PyArg_ParseTuple(arguments, "O!Os", &PyList_Type, &list, &model, &paths))
        return NULL;
    if (extension.model) {
        PyErr_SetString(PyExc_RuntimeError, "this process is a worker already");
        return NULL;
    }
    int status = -1;
    int argc = words_take(list, held, argv);
    if (argc > 0 && prepare() == 0) {
        Py_INCREF(model); /* for as long as the process lives */
        extension.model = model;
        struct program program = {.ops = &extension_ops,
                                  .paths = paths,
                                  .answer_fd = SEAT_FD_READY,
                                  .retire_fd = extension.retire_fd};
        Py_BEGIN_ALLOW_THREADS status = program_run(argc, argv, &program);
        Py_END_ALLOW_THREADS
    }
    for (size_t i = 0; i < WORDS_MAX; i++)
        Py_XDECREF(held[i]);
    return status < 0 ? NULL : PyLong_FromLong(status);
}

/* ---- what a model asks ---- */

/* emit(handle, bytes) -> 0 or a negative errno; -ESRCH: that request has come to its end. On the
 * worker's thread. */
static PyObject *emit(PyObject *self, PyObject *arguments)
{
    (void)self;
    unsigned long long handle;
    const char *bytes;
    Py_ssize_t size;
    int error = -ESRCH;
    if (!PyArg_ParseTuple(arguments, "Ky#", &handle, &bytes, &size))
        return NULL;
    struct place *place = place_of(handle);
    if (place) {
        struct unetserve_item *item = place->item;
        Py_BEGIN_ALLOW_THREADS error = extension.host->emit(extension.host, item, bytes,
                                                            (size_t)size);
        Py_END_ALLOW_THREADS
    }
    return PyLong_FromLong(error);
}

/* complete(handle, status, body): the verdict of a request that was started. From any thread. */
static PyObject *complete(PyObject *self, PyObject *arguments)
{
    (void)self;
    unsigned long long handle;
    unsigned status;
    PyObject *body;
    if (!PyArg_ParseTuple(arguments, "KIS", &handle, &status, &body))
        return NULL;
    struct place *place = place_of(handle);
    if (place) {
        Py_INCREF(body);
        Py_XDECREF(place->value);
        place->value = body;
        place->status = status;
        extension.host->complete(extension.host, place->item, 0);
    }
    return Py_BuildValue("");
}

/* wake(): have model.woken called on the worker's thread. From any thread. */
static PyObject *wake(PyObject *self, PyObject *nothing)
{
    (void)self, (void)nothing;
    (void)!write(extension.wake_fd, &(uint64_t){1}, sizeof(uint64_t));
    return Py_BuildValue("");
}

/* gauge(name, value) -> 0 or a negative errno. On the worker's thread. */
static PyObject *gauge(PyObject *self, PyObject *arguments)
{
    (void)self;
    const char *name;
    double value;
    if (!PyArg_ParseTuple(arguments, "sd", &name, &value))
        return NULL;
    return PyLong_FromLong(extension.host->gauge(extension.host, name, value));
}

/* log(level, message, request_id, detail): one line, whatever it holds. From any thread. */
static PyObject *write_log(PyObject *self, PyObject *arguments)
{
    (void)self;
    int level;
    const char *message, *request_id, *detail;
    if (!PyArg_ParseTuple(arguments, "isss", &level, &message, &request_id, &detail))
        return NULL;
    if (level < LOG_LEVEL_ERROR || level > LOG_LEVEL_DEBUG)
        level = LOG_LEVEL_INFO;
    log_event((enum log_level)level, message, log_text("model", extension.interface.name),
              log_text(request_id[0] ? "request_id" : NULL, request_id),
              log_text("detail", detail));
    return Py_BuildValue("");
}

static PyMethodDef methods[] = {
    {"run", run, METH_VARARGS, "run(words, model, paths): be the worker, return its exit status"},
    {"emit", emit, METH_VARARGS, "emit(handle, bytes): send one item of a stream"},
    {"complete", complete, METH_VARARGS, "complete(handle, status, body)"},
    {"wake", wake, METH_NOARGS, "wake(): call model.woken on the worker's thread"},
    {"gauge", gauge, METH_VARARGS, "gauge(name, value)"},
    {"log", write_log, METH_VARARGS, "log(level, message, request_id, detail)"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "unetserve._worker",
                                        .m_size = -1, .m_methods = methods};

PyMODINIT_FUNC PyInit__worker(void);

PyMODINIT_FUNC PyInit__worker(void)
{
    return PyModule_Create(&definition);
}
