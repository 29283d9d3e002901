/* libcuda.so.1 as described in double.h: what the cuDNN backend calls of it, and no more. */
#include "fake_calls.h"

#include "workers/backends/cudnn/gpu_kernels.h"

#include <cuda.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PAGE_BYTES   4096u
#define FATBIN_MAGIC 0xba55ed50u

/* ---- the device ---- */

static int capability;
static int processors;
static char device_name[128];
static int retained;
static _Thread_local CUcontext current;

/* For calls that need the device's context: each thread must have entered it. */
#define ENTER_CONTEXT                                                                              \
    ENTER;                                                                                         \
    if (current != (CUcontext)&retained || retained == 0) {                                        \
        return CUDA_ERROR_INVALID_CONTEXT;                                                         \
    }                                                                                              \
    (void)0

static bool read_device(void)
{
    const char *path = getenv("GPUDOUBLE_DEVICE");
    json_t *text = path != NULL ? json_load_file(path, 0, NULL) : NULL;
    if (text == NULL) {
        return false;
    }
    capability = (int)json_integer_value(json_object_get(text, "deviceVer")) / 10;
    processors = (int)json_integer_value(json_object_get(text, "multiProcessorCount"));
    snprintf(device_name, sizeof device_name, "double of %s",
             json_string_value(json_object_get(text, "deviceName")));
    json_decref(text);
    return true;
}

EXPORT CUresult cuInit(unsigned flags)
{
    (void)flags;
    ENTER;
    return read_device() ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE;
}

EXPORT CUresult cuDriverGetVersion(int *version)
{
    const char *wish = getenv("GPUDOUBLE_DRIVER");
    *version = wish != NULL ? atoi(wish) : CUDA_VERSION;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuGetErrorString(CUresult error, const char **text)
{
    *text = error == CUDA_ERROR_OUT_OF_MEMORY ? "out of memory"
            : error == CUDA_ERROR_NO_DEVICE   ? "no CUDA-capable device is detected"
                                              : "a failure of the double";
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGetCount(int *count)
{
    ENTER;
    *count = 1;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
    ENTER;
    *device = ordinal;
    return ordinal == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

EXPORT CUresult cuDeviceGetName(char *name, int size, CUdevice device)
{
    (void)device;
    ENTER;
    snprintf(name, (size_t)size, "%s", device_name);
    return CUDA_SUCCESS;
}

/* GPUDOUBLE_READ_ONLY=no: a device that cannot lock memory which the process only reads. */
static bool takes_read_only(void)
{
    const char *wish = getenv("GPUDOUBLE_READ_ONLY");
    return wish == NULL || strcmp(wish, "no") != 0;
}

EXPORT CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device)
{
    (void)device;
    ENTER;
    switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = capability / 10; break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = capability % 10; break;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = processors; break;
    case CU_DEVICE_ATTRIBUTE_READ_ONLY_HOST_REGISTER_SUPPORTED: *value = takes_read_only(); break;
    default: double_abort("attribute %d is not known here", (int)attribute);
    }
    return CUDA_SUCCESS;
}

static long events_left;
static long graphs_left;
static long modules_left;

/* Nothing of a context may outlive its use. */
static void check_left(void)
{
    memory_check_left();
    if (streams_used() > 0 || events_left > 0 || graphs_left > 0 || modules_left > 0) {
        double_abort("%zu streams, %ld events, %ld graphs and %ld modules are never ended",
                     streams_used(), events_left, graphs_left, modules_left);
    }
}

EXPORT CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device)
{
    (void)device;
    ENTER;
    retained++;
    *context = (CUcontext)&retained;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDevicePrimaryCtxRelease(CUdevice device)
{
    (void)device;
    ENTER_END;
    if (--retained == 0 && !calls_ever_lost()) {
        check_left();
    }
    return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxSetCurrent(CUcontext context)
{
    ENTER;
    if (context != (CUcontext)&retained || retained == 0) {
        return CUDA_ERROR_INVALID_CONTEXT;
    }
    current = context;
    return CUDA_SUCCESS;
}

/* ---- memory ---- */

static struct stream *capturing; /* one at a time */
static pthread_t capturer;

/* While a capture is on, calls that wait or allocate are not allowed to the thread that makes it.
 */
static void not_in_capture(const char *call)
{
    if (capturing != NULL && pthread_equal(capturer, pthread_self())) {
        double_abort("%s during a capture", call);
    }
}

/* Device memory or locked memory, as copies take it. */
static bool reachable(const void *data, size_t bytes, bool on_device, bool written)
{
    return memory_holds(data, bytes, !on_device) ||
           (!on_device && locked_holds(data, bytes, written));
}

/* Whether this process may write there: the kernel refuses to read a pipe into memory where not. */
static bool process_writes(char *data)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) {
        double_abort("no pipe");
    }
    bool may = write(ends[1], data, 1) == 1 && read(ends[0], data, 1) == 1;
    close(ends[0]);
    close(ends[1]);
    return may;
}

EXPORT bool gpudouble_owns(const void *data, size_t bytes);
bool gpudouble_owns(const void *data, size_t bytes)
{
    LOCKED;
    return memory_holds(data, bytes, false);
}

EXPORT void gpudouble_use(const void *data, size_t bytes, int use);
void gpudouble_use(const void *data, size_t bytes, int use)
{
    LOCKED;
    memory_work_use(data, bytes, (enum use)use);
}

EXPORT CUresult cuMemGetInfo(size_t *available, size_t *total)
{
    ENTER_CONTEXT;
    *available = memory_free_bytes();
    *total = memory_total();
    return CUDA_SUCCESS;
}

EXPORT CUresult cuMemAlloc(CUdeviceptr *address, size_t bytes)
{
    ENTER_CONTEXT;
    not_in_capture(__func__);
    void *data = memory_create(bytes, false);
    if (data == NULL) {
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *address = (CUdeviceptr)(uintptr_t)data;
    memory_open(false);
    return CUDA_SUCCESS;
}

static CUresult free_memory(void *data, bool host)
{
    streams_run_all(); /* so that whoever uses it is known */
    memory_destroy(data, host);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuMemFree(CUdeviceptr address)
{
    ENTER_END;
    not_in_capture(__func__);
    return free_memory((void *)(uintptr_t)address, false);
}

EXPORT CUresult cuMemAllocHost(void **data, size_t bytes)
{
    ENTER_CONTEXT;
    not_in_capture(__func__);
    *data = memory_create(bytes, true);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuMemFreeHost(void *data)
{
    ENTER_END;
    not_in_capture(__func__);
    return free_memory(data, true);
}

EXPORT CUresult cuMemHostRegister(void *data, size_t bytes, unsigned flags)
{
    bool read_only = (flags & CU_MEMHOSTREGISTER_READ_ONLY) != 0;
    ENTER_CONTEXT;
    not_in_capture(__func__);
    if ((uintptr_t)data % PAGE_BYTES != 0 || bytes % PAGE_BYTES != 0 || bytes == 0) {
        double_abort("%zu bytes are to be locked that are no whole pages", bytes);
    }
    if (read_only && !takes_read_only()) {
        return CUDA_ERROR_NOT_SUPPORTED;
    }
    if (!read_only && !process_writes((char *)data)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    return locked_add(data, bytes, read_only) ? CUDA_SUCCESS
                                              : CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
}

EXPORT CUresult cuMemHostUnregister(void *data)
{
    ENTER_END;
    not_in_capture(__func__);
    locked_remove(data);
    return CUDA_SUCCESS;
}

/* For tests: bytes that are locked now. */
EXPORT size_t gpudouble_locked(void);
size_t gpudouble_locked(void)
{
    return locked_bytes();
}

/* ---- copies ---- */

/* On the driver's own stream: the host waits until the bytes are read, but not until they are
 * there, and streams that do not block do not wait for it either. */
EXPORT CUresult cuMemcpyHtoD(CUdeviceptr to, const void *from, size_t bytes)
{
    ENTER_CONTEXT;
    not_in_capture(__func__);
    moment_join(&own_moment, &host_moment);
    own_moment.before[OWN_STREAM]++;
    const struct actor actor = {"a copy", OWN_STREAM, own_moment};
    memory_use(&actor, (void *)(uintptr_t)to, bytes, WRITE);
    memory_open(true);
    memcpy((void *)(uintptr_t)to, from, bytes);
    memory_open(false);
    return CUDA_SUCCESS;
}

static void check_copy(const void *to, const void *from, size_t bytes, bool to_device)
{
    if (!reachable(to, bytes, to_device, true) || !reachable(from, bytes, !to_device, false)) {
        double_abort("a copy of %zu bytes beyond memory of the device, or from or to memory that "
                     "is not page-locked",
                     bytes);
    }
}

/* What is copied must stay as it is until it was. */
EXPORT CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void *from, size_t bytes, CUstream stream)
{
    ENTER_CONTEXT;
    check_copy((void *)(uintptr_t)to, from, bytes, true);
    stream_submit(stream_of(stream), &(struct operation){.kind = COPY,
                                                         .to = (void *)(uintptr_t)to,
                                                         .from = from,
                                                         .bytes = bytes,
                                                         .mark = double_mark(from, bytes)});
    return CUDA_SUCCESS;
}

/* From now on until the copy is done there may be anything there; so there is. */
EXPORT CUresult cuMemcpyDtoHAsync(void *to, CUdeviceptr from, size_t bytes, CUstream stream)
{
    ENTER_CONTEXT;
    check_copy(to, (const void *)(uintptr_t)from, bytes, false);
    memset(to, 0x5a, bytes);
    stream_submit(stream_of(stream), &(struct operation){.kind = COPY,
                                                         .to = to,
                                                         .from = (const void *)(uintptr_t)from,
                                                         .bytes = bytes});
    return CUDA_SUCCESS;
}

EXPORT CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t bytes, CUstream stream)
{
    ENTER_CONTEXT;
    if (!memory_holds((void *)(uintptr_t)to, bytes, false)) {
        double_abort("%zu bytes are set where the device has no memory", bytes);
    }
    stream_submit(stream_of(stream),
                  &(struct operation){
                      .kind = SET, .to = (void *)(uintptr_t)to, .bytes = bytes, .value = value});
    return CUDA_SUCCESS;
}

/* ---- streams and events ---- */

EXPORT CUresult cuStreamCreate(CUstream *stream, unsigned flags)
{
    (void)flags;
    ENTER_CONTEXT;
    not_in_capture(__func__);
    *stream = (CUstream)stream_create();
    return CUDA_SUCCESS;
}

EXPORT CUresult cuStreamDestroy(CUstream stream)
{
    ENTER_END;
    stream_destroy(stream_of(stream));
    return CUDA_SUCCESS;
}

EXPORT CUresult cuStreamSynchronize(CUstream stream)
{
    ENTER_CONTEXT;
    not_in_capture(__func__);
    if (stream == NULL) {
        moment_join(&host_moment, &own_moment);
        return CUDA_SUCCESS;
    }
    stream_run(stream_of(stream), NULL);
    moment_join(&host_moment, &stream_of(stream)->moment);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuEventCreate(CUevent *event, unsigned flags)
{
    ENTER_CONTEXT;
    struct event *made = (struct event *)calloc(1, sizeof *made);
    if (made == NULL) {
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    made->alive = true;
    made->timed = (flags & CU_EVENT_DISABLE_TIMING) == 0;
    events_left++;
    *event = (CUevent)made;
    return CUDA_SUCCESS;
}

/* It stays, so that who uses it later is seen. */
EXPORT CUresult cuEventDestroy(CUevent event)
{
    ENTER_END;
    streams_run_all();
    event_of(event)->alive = false;
    events_left--;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuEventRecord(CUevent event, CUstream stream)
{
    struct event *e = event_of(event);
    ENTER_CONTEXT;
    if (stream_of(stream)->capturing) {
        double_abort("an event of outside is recorded in a capture");
    }
    e->recorded++;
    e->stream = stream_of(stream);
    stream_submit(stream_of(stream),
                  &(struct operation){.kind = RECORD, .event = e, .ticket = e->recorded});
    return CUDA_SUCCESS;
}

EXPORT CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned flags)
{
    struct event *e = event_of(event);
    (void)flags;
    ENTER_CONTEXT;
    if (stream_of(stream)->capturing) {
        double_abort("an event of outside is waited for in a capture");
    }
    stream_submit(stream_of(stream),
                  &(struct operation){.kind = PAUSE, .event = e, .ticket = e->recorded});
    return CUDA_SUCCESS;
}

/* GPUDOUBLE_WAIT=first: another thread's wait lets nothing run, the first one's does. After a loss
 * that a test has taken back nobody waits: what was to come is gone. */
static void let_first_run(const struct event *event, uint64_t ticket)
{
    const char *wish = getenv("GPUDOUBLE_WAIT");
    bool over = wish == NULL || strcmp(wish, "first") != 0 || calls_of_first_thread();
    while (!over) {
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        LOCKED;
        over = event->completed >= ticket || calls_ever_lost();
    }
}

EXPORT CUresult cuEventSynchronize(CUevent event)
{
    struct event *e = event_of(event);
    calls_hold();
    let_first_run(e, e->recorded);
    ENTER_CONTEXT;
    not_in_capture(__func__);
    if (e->recorded > 0) {
        stream_run(e->stream, e);
        moment_join(&host_moment, &e->moment);
    }
    return CUDA_SUCCESS;
}

EXPORT CUresult cuEventElapsedTime(float *milliseconds, CUevent begin, CUevent end)
{
    const struct event *from = event_of(begin);
    const struct event *to = event_of(end);
    ENTER_CONTEXT;
    if (!from->timed || !to->timed || from->completed < from->recorded ||
        to->completed < to->recorded || from->recorded == 0 || to->recorded == 0) {
        double_abort("a time between events that are not there yet, or have none");
    }
    *milliseconds = (float)(to->time_ns - from->time_ns) * 1e-6f;
    return CUDA_SUCCESS;
}

/* ---- graphs ---- */

static struct graph *graph_create(void)
{
    struct graph *made = (struct graph *)calloc(1, sizeof *made);
    if (made == NULL) {
        double_abort("no memory");
    }
    made->alive = true;
    graphs_left++;
    return made;
}

static void graph_destroy(struct graph *graph)
{
    queue_clear(&graph->queue);
    graph->alive = false;
    graphs_left--;
}

EXPORT CUresult cuStreamBeginCapture(CUstream stream, CUstreamCaptureMode mode)
{
    (void)mode;
    ENTER_CONTEXT;
    not_in_capture(__func__);
    capturing = stream_of(stream);
    capturer = pthread_self();
    capturing->capturing = true;
    capturing->captured = (struct queue){.first = NULL};
    return CUDA_SUCCESS;
}

EXPORT CUresult cuStreamEndCapture(CUstream stream, CUgraph *graph)
{
    LOCKED;
    struct stream *s = stream_of(stream);
    s->capturing = false;
    capturing = NULL;
    int entered = gpudouble_enter(__func__);
    if (entered != 0) {
        return (CUresult)entered;
    }
    if (s->captured.first == NULL) {
        double_abort("a capture of nothing");
    }
    struct graph *made = graph_create();
    made->queue = s->captured;
    s->captured = (struct queue){.first = NULL};
    *graph = (CUgraph)made;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuGraphInstantiateWithFlags(CUgraphExec *out, CUgraph graph,
                                            unsigned long long flags)
{
    (void)flags;
    ENTER_CONTEXT;
    struct graph *from = graph_of(graph);
    struct graph *made = graph_create();
    for (struct operation *at = from->queue.first; at != NULL; at = at->next) {
        queue_append(&made->queue, at);
    }
    *out = (CUgraphExec)made;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuGraphDestroy(CUgraph graph)
{
    LOCKED;
    graph_destroy(graph_of(graph));
    return (CUresult)gpudouble_enter(__func__);
}

EXPORT CUresult cuGraphExecDestroy(CUgraphExec graph)
{
    LOCKED;
    graph_destroy(graph_of(graph));
    return (CUresult)gpudouble_enter(__func__);
}

EXPORT CUresult cuGraphLaunch(CUgraphExec graph, CUstream stream)
{
    struct graph *launched = graph_of(graph);
    ENTER_CONTEXT;
    not_in_capture(__func__);
    for (struct operation *at = launched->queue.first; at != NULL; at = at->next) {
        stream_submit(stream_of(stream), at);
    }
    return CUDA_SUCCESS;
}

/* What runs for the first time has its code loaded, which a capture does not survive. */
static void need_code(const struct stream *stream, bool loaded, const char *what)
{
    if (stream->capturing && !loaded) {
        double_abort("%s is captured that never ran before", what);
    }
}

EXPORT int gpudouble_submit(void *stream, const struct double_work *work);
int gpudouble_submit(void *stream, const struct double_work *work)
{
    LOCKED;
    need_code(stream_of(stream), work->loaded, "a plan");
    stream_submit(stream_of(stream), &(struct operation){.kind = WORK, .work = *work});
    return 0;
}

/* ---- kernels ---- */

EXPORT CUresult cuModuleLoadData(CUmodule *module, const void *image)
{
    uint32_t magic;
    ENTER_CONTEXT;
    memcpy(&magic, image, sizeof magic);
    if (magic != FATBIN_MAGIC) {
        return CUDA_ERROR_INVALID_IMAGE;
    }
    *module = (CUmodule)device_functions;
    modules_left++;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuModuleUnload(CUmodule module)
{
    (void)module;
    ENTER_END;
    modules_left--;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuModuleGetFunction(CUfunction *out, CUmodule module, const char *name)
{
    (void)module;
    ENTER_CONTEXT;
    for (struct device_function *f = device_functions; f->name != NULL; f++) {
        if (strcmp(f->name, name) == 0) {
            f->loaded = false;
            *out = (CUfunction)f;
            return CUDA_SUCCESS;
        }
    }
    return CUDA_ERROR_NOT_FOUND;
}

EXPORT CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y,
                               unsigned grid_z, unsigned block_x, unsigned block_y,
                               unsigned block_z, unsigned shared_bytes, CUstream stream,
                               void **parameters, void **extra)
{
    struct device_function *f = (struct device_function *)function;
    ENTER_CONTEXT;
    if (grid_x == 0 || grid_y != 1 || grid_z != 1 || block_x != GPU_BLOCK_THREADS || block_y != 1 ||
        block_z != 1 || shared_bytes != 0 || extra != NULL || modules_left == 0) {
        double_abort("%s started with a grid of %u blocks of %u threads", f->name, grid_x, block_x);
    }
    need_code(stream_of(stream), f->loaded, f->name);
    f->loaded = true;
    stream_submit(stream_of(stream),
                  &(struct operation){.kind = KERNEL,
                                      .function = f,
                                      .threads = grid_x * block_x,
                                      .work = {.argument = parameters[0], .bytes = f->args_bytes}});
    return CUDA_SUCCESS;
}

/* ---- for cuDNN's own runtime ---- */

/* The real cuDNN must see no device: what it would do with one is done in fake_cudnn.c. It asks for
 * its functions here, the backend by dlsym. */
static CUresult no_device(unsigned flags)
{
    (void)flags;
    return CUDA_ERROR_NO_DEVICE;
}

EXPORT CUresult cuGetProcAddress_v2(const char *symbol, void **out, int version, cuuint64_t flags,
                                    CUdriverProcAddressQueryResult *status)
{
    (void)version;
    (void)flags;
    CUresult (*init)(unsigned) = no_device;
    *out = NULL;
    if (strcmp(symbol, "cuInit") == 0) {
        memcpy(out, &init, sizeof init);
    }
    if (status != NULL) {
        *status = *out != NULL ? CU_GET_PROC_ADDRESS_SUCCESS : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    }
    return *out != NULL ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}
