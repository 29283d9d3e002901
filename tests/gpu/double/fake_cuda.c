/* libcuda.so.1 as described in double.h: what the cuDNN backend calls of it, and no more. */
#include "double.h"

#include "workers/backends/cudnn/gpu_kernels.h"

#include <cuda.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE_BYTES    4096u
#define ALIGN_BYTES   512u
#define MOST_MEMORIES 256
#define MOST_STREAMS  16
#define MOST_NAMES    128
#define MOST_LOCKED   4096
#define FATBIN_MAGIC  0xba55ed50u

void double_abort(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("gpu double: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    abort();
}

/* ---- failing ---- */

static long call_count;
static long fail_at;
static int fail_code = CUDA_ERROR_ILLEGAL_ADDRESS;
static int lost; /* the code of a device that failed once */

static void read_environment(void)
{
    static bool done;
    const char *at = getenv("GPUDOUBLE_FAIL_AT");
    const char *code = getenv("GPUDOUBLE_FAIL_CODE");
    if (done) {
        return;
    }
    done = true;
    fail_at = at != NULL ? atol(at) : fail_at;
    fail_code = code != NULL ? atoi(code) : fail_code;
}

/* How often each call was made, by its name. */
static struct {
    const char *name;
    long count;
} tallies[MOST_NAMES];

static void tally(const char *call)
{
    size_t i = 0;
    while (i < MOST_NAMES && tallies[i].name != NULL && strcmp(tallies[i].name, call) != 0) {
        i++;
    }
    if (i == MOST_NAMES) {
        double_abort("more names of calls than there is room for");
    }
    tallies[i].name = call;
    tallies[i].count++;
}

/* cuda.h's macros have made cuMemFree_v2 of cuMemFree. */
static bool is_call(const char *name, const char *call)
{
    size_t length = strlen(call);
    return strncmp(name, call, length) == 0 &&
           (name[length] == '\0' || strcmp(name + length, "_v2") == 0);
}

EXPORT long gpudouble_count(const char *call);
long gpudouble_count(const char *call)
{
    for (size_t i = 0; i < MOST_NAMES && tallies[i].name != NULL; i++) {
        if (is_call(tallies[i].name, call)) {
            return tallies[i].count;
        }
    }
    return 0;
}

/* GPUDOUBLE_TELL=cuMemAllocHost,...: say at the end of the process how often those were called. */
__attribute__((destructor)) static void tell(void)
{
    const char *names = getenv("GPUDOUBLE_TELL");
    char *list = names != NULL ? strdup(names) : NULL;
    char *rest = NULL;
    for (const char *name = list != NULL ? strtok_r(list, ",", &rest) : NULL; name != NULL;
         name = strtok_r(NULL, ",", &rest)) {
        fprintf(stderr, "gpu double: %s was called %ld times\n", name, gpudouble_count(name));
    }
    free(list);
}

EXPORT int gpudouble_enter(const char *call);
int gpudouble_enter(const char *call)
{
    read_environment();
    call_count++;
    tally(call);
    if (fail_at > 0 && call_count == fail_at) {
        fprintf(stderr, "gpu double: call %ld, %s, fails with %d\n", call_count, call, fail_code);
        if (fail_code == CUDA_ERROR_OUT_OF_MEMORY) {
            return fail_code;
        }
        lost = fail_code;
    }
    return lost;
}

EXPORT void gpudouble_fail(long n, int code);
void gpudouble_fail(long n, int code)
{
    read_environment();
    fail_at = n > 0 ? call_count + n : 0;
    fail_code = code;
    lost = 0;
}

EXPORT long gpudouble_calls(void);
long gpudouble_calls(void)
{
    return call_count;
}

#define ENTER                                                                                      \
    do {                                                                                           \
        int entered = gpudouble_enter(__func__);                                                   \
        if (entered != 0) {                                                                        \
            return (CUresult)entered;                                                              \
        }                                                                                          \
    } while (0)

/* ---- the device ---- */

static int capability;
static int processors;
static char device_name[128];
static int retained;

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
    *version = CUDA_VERSION;
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
    ENTER;
    retained--;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxSetCurrent(CUcontext context)
{
    ENTER;
    return context == (CUcontext)&retained ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

/* ---- memory ---- */

struct memory {
    char *map;
    size_t map_bytes;
    char *data;
    size_t bytes;
    bool host;
};

static struct memory memories[MOST_MEMORIES];

/* Between two guard pages, its end as close to the second as alignment allows. */
static struct memory *memory_create(size_t bytes, bool host)
{
    struct memory *memory = memories;
    while (memory < memories + MOST_MEMORIES && memory->map != NULL) {
        memory++;
    }
    if (memory == memories + MOST_MEMORIES || bytes == 0) {
        double_abort("memory of %zu bytes is asked for, or too many pieces", bytes);
    }
    size_t rounded = (bytes + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
    size_t body = (rounded + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    char *map = (char *)mmap(NULL, body + 2 * PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS,
                             -1, 0);
    if (map == MAP_FAILED || mprotect(map + PAGE_BYTES, body, PROT_READ | PROT_WRITE) != 0) {
        double_abort("no memory");
    }
    memset(map + PAGE_BYTES, 0xff, body); /* NaN in every type */
    *memory = (struct memory){.map = map,
                              .map_bytes = body + 2 * PAGE_BYTES,
                              .data = map + PAGE_BYTES + body - rounded,
                              .bytes = bytes,
                              .host = host};
    return memory;
}

/* Device memory is in reach only while the device works. */
static void device_open(bool open)
{
    for (size_t i = 0; i < MOST_MEMORIES; i++) {
        const struct memory *memory = &memories[i];
        if (memory->map != NULL && !memory->host) {
            (void)mprotect(memory->map + PAGE_BYTES, memory->map_bytes - 2 * PAGE_BYTES,
                           open ? PROT_READ | PROT_WRITE : PROT_NONE);
        }
    }
}

static struct memory *memory_find(const void *data, bool host)
{
    for (size_t i = 0; i < MOST_MEMORIES; i++) {
        const struct memory *memory = &memories[i];
        const char *at = (const char *)data;
        if (memory->map != NULL && memory->host == host && at >= memory->data &&
            at < memory->data + memory->bytes) {
            return &memories[i];
        }
    }
    return NULL;
}

static bool memory_holds(const void *data, size_t bytes, bool host)
{
    const struct memory *memory = memory_find(data, host);
    return memory != NULL && bytes <= (size_t)(memory->data + memory->bytes - (const char *)data);
}

/* The process's own memory, page-locked. */
struct locked {
    char *data; /* NULL: unused */
    size_t bytes;
    bool read_only;
};

static struct locked locked[MOST_LOCKED];

/* One range holds all of it: no device takes two for one. */
static bool locked_holds(const void *data, size_t bytes, bool written)
{
    const char *at = (const char *)data;
    for (size_t i = 0; i < MOST_LOCKED; i++) {
        const struct locked *range = &locked[i];
        if (range->data != NULL && at >= range->data && at < range->data + range->bytes) {
            return bytes <= (size_t)(range->data + range->bytes - at) &&
                   !(written && range->read_only);
        }
    }
    return false;
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
    return memory_holds(data, bytes, false);
}

/* ---- streams ---- */

enum kind { COPY, SET, KERNEL, WORK, RECORD, WAIT };

struct operation {
    struct operation *next;
    enum kind kind;
    void *to;
    const void *from;
    size_t bytes;
    int value;
    void (*kernel)(const void *args, uint32_t thread, uint32_t threads);
    uint32_t threads;
    struct double_work work;
    struct event *event;
    uint64_t ticket;
};

struct queue {
    struct operation *first;
    struct operation **end;
};

struct stream {
    bool used;
    bool capturing;
    uint64_t clock_ns; /* time of what it has run */
    struct queue queue;
    struct queue captured;
};

struct event {
    uint64_t recorded;
    uint64_t completed;
    struct stream *stream;
    bool timed;
    uint64_t time_ns; /* of its stream, when it came to it */
};

static struct stream streams[MOST_STREAMS];
static struct stream *capturing; /* one at a time */

static void queue_append(struct queue *queue, const struct operation *from)
{
    struct operation *made = (struct operation *)malloc(sizeof *made);
    if (made == NULL) {
        double_abort("no memory");
    }
    *made = *from;
    made->next = NULL;
    if (from->work.argument != NULL) {
        made->work.argument = malloc(from->work.bytes);
        if (made->work.argument == NULL) {
            double_abort("no memory");
        }
        memcpy(made->work.argument, from->work.argument, from->work.bytes);
    }
    if (queue->first == NULL) {
        queue->end = &queue->first;
    }
    *queue->end = made;
    queue->end = &made->next;
}

static void operation_free(struct operation *operation)
{
    free(operation->work.argument);
    free(operation);
}

static void queue_clear(struct queue *queue)
{
    while (queue->first != NULL) {
        struct operation *operation = queue->first;
        queue->first = operation->next;
        operation_free(operation);
    }
}

static struct stream *stream_of(CUstream stream)
{
    struct stream *found = (struct stream *)stream;
    if (found < streams || found >= streams + MOST_STREAMS || !found->used) {
        double_abort("a stream that there is not");
    }
    return found;
}

static void submit(struct stream *stream, const struct operation *operation)
{
    queue_append(stream->capturing ? &stream->captured : &stream->queue, operation);
}

static void perform(const struct operation *operation)
{
    switch (operation->kind) {
    case COPY: memcpy(operation->to, operation->from, operation->bytes); break;
    case SET: memset(operation->to, operation->value, operation->bytes); break;
    case KERNEL:
        for (uint32_t thread = 0; thread < operation->threads; thread++) {
            operation->kernel(operation->work.argument, thread, operation->threads);
        }
        break;
    case WORK: operation->work.run(operation->work.argument); break;
    case RECORD: operation->event->completed = operation->ticket; break;
    case WAIT: break;
    }
}

static bool can_step(const struct stream *stream)
{
    const struct operation *operation = stream->queue.first;
    return operation != NULL &&
           (operation->kind != WAIT || operation->event->completed >= operation->ticket);
}

/* Could a device have copied here while it computes there? */
static void note_overlap(const struct stream *copying)
{
    for (size_t i = 0; i < MOST_STREAMS; i++) {
        const struct operation *other = streams[i].queue.first;
        if (&streams[i] != copying && other != NULL &&
            (other->kind == KERNEL || other->kind == WORK)) {
            tally(DOUBLE_OVERLAP);
            return;
        }
    }
}

/* Run a stream's next operation. False: there is none, or it waits. */
static bool stream_step(struct stream *stream)
{
    struct operation *operation = stream->queue.first;
    if (!can_step(stream)) {
        return false;
    }
    if (operation->kind == COPY) {
        note_overlap(stream);
    }
    stream->queue.first = operation->next;
    perform(operation);
    stream->clock_ns += operation->kind == WORK ? operation->work.takes_ns : 1000;
    if (operation->kind == RECORD) {
        operation->event->time_ns = stream->clock_ns;
    }
    operation_free(operation);
    return true;
}

/* Run until `stream` is empty, or `event` has come that far. */
static void run_until(struct stream *stream, const struct event *event, uint64_t ticket)
{
    const char *order = getenv("GPUDOUBLE_ORDER");
    bool late = order != NULL && strcmp(order, "late") == 0;
    device_open(true);
    while (event != NULL ? event->completed < ticket : stream->queue.first != NULL) {
        bool moved = false;
        for (size_t i = 0; i < MOST_STREAMS; i++) {
            if (!late || (&streams[i] == stream)) {
                moved |= stream_step(&streams[i]);
            }
        }
        for (size_t i = 0; i < MOST_STREAMS && !moved; i++) {
            moved = stream_step(&streams[i]);
        }
        if (!moved) {
            double_abort("streams wait for each other, or for an event that nobody records");
        }
    }
    device_open(false);
}

static void run_all(void)
{
    for (size_t i = 0; i < MOST_STREAMS; i++) {
        if (streams[i].used) {
            run_until(&streams[i], NULL, 0);
        }
    }
}

/* While a capture is on, calls that wait or allocate are not allowed. */
static void not_in_capture(const char *call)
{
    if (capturing != NULL) {
        double_abort("%s during a capture", call);
    }
}

EXPORT CUresult cuMemGetInfo(size_t *available, size_t *total)
{
    ENTER;
    *available = *total = (size_t)1 << 30;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuMemAlloc(CUdeviceptr *address, size_t bytes)
{
    ENTER;
    not_in_capture(__func__);
    *address = (CUdeviceptr)(uintptr_t)memory_create(bytes, false)->data;
    device_open(false);
    return CUDA_SUCCESS;
}

static CUresult free_memory(void *data, bool host)
{
    struct memory *memory = memory_find(data, host);
    if (memory == NULL || memory->data != (char *)data) {
        double_abort("freed what was not allocated");
    }
    run_all(); /* as the driver does */
    /* The addresses are nobody's from now on: who keeps an old one must not find something new. */
    if (mmap(memory->map, memory->map_bytes, PROT_NONE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED) {
        double_abort("freed memory stays");
    }
    *memory = (struct memory){.map = NULL};
    return CUDA_SUCCESS;
}

EXPORT CUresult cuMemFree(CUdeviceptr address)
{
    ENTER;
    not_in_capture(__func__);
    return free_memory((void *)(uintptr_t)address, false);
}

EXPORT CUresult cuMemAllocHost(void **data, size_t bytes)
{
    ENTER;
    not_in_capture(__func__);
    *data = memory_create(bytes, true)->data;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuMemFreeHost(void *data)
{
    ENTER;
    not_in_capture(__func__);
    return free_memory(data, true);
}

static bool overlaps(const struct locked *range, const void *data, size_t bytes)
{
    const char *at = (const char *)data;
    return range->data != NULL && at < range->data + range->bytes && range->data < at + bytes;
}

EXPORT CUresult cuMemHostRegister(void *data, size_t bytes, unsigned flags)
{
    bool read_only = (flags & CU_MEMHOSTREGISTER_READ_ONLY) != 0;
    struct locked *place = NULL;
    ENTER;
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
    for (size_t i = 0; i < MOST_LOCKED; i++) {
        if (overlaps(&locked[i], data, bytes)) {
            return CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
        }
        place = place == NULL && locked[i].data == NULL ? &locked[i] : place;
    }
    if (place == NULL) {
        double_abort("too many ranges are locked");
    }
    *place = (struct locked){.data = (char *)data, .bytes = bytes, .read_only = read_only};
    return CUDA_SUCCESS;
}

static void not_in_use(const struct locked *range)
{
    for (size_t i = 0; i < MOST_STREAMS; i++) {
        for (const struct operation *at = streams[i].queue.first; at != NULL; at = at->next) {
            if (at->kind == COPY &&
                (overlaps(range, at->from, at->bytes) || overlaps(range, at->to, at->bytes))) {
                double_abort("memory is unlocked under a copy");
            }
        }
    }
}

EXPORT CUresult cuMemHostUnregister(void *data)
{
    ENTER;
    not_in_capture(__func__);
    for (size_t i = 0; i < MOST_LOCKED; i++) {
        if (locked[i].data == (char *)data && data != NULL) {
            not_in_use(&locked[i]);
            locked[i] = (struct locked){.data = NULL};
            return CUDA_SUCCESS;
        }
    }
    double_abort("unlocked what was not locked");
}

/* For tests: bytes that are locked now. */
EXPORT size_t gpudouble_locked(void);
size_t gpudouble_locked(void)
{
    size_t bytes = 0;
    for (size_t i = 0; i < MOST_LOCKED; i++) {
        bytes += locked[i].data != NULL ? locked[i].bytes : 0;
    }
    return bytes;
}

EXPORT CUresult cuMemcpyHtoD(CUdeviceptr to, const void *from, size_t bytes)
{
    ENTER;
    not_in_capture(__func__);
    if (!memory_holds((void *)(uintptr_t)to, bytes, false)) {
        double_abort("a copy of %zu bytes to where the device has no memory", bytes);
    }
    device_open(true);
    memcpy((void *)(uintptr_t)to, from, bytes);
    device_open(false);
    return CUDA_SUCCESS;
}

static CUresult copy_async(void *to, const void *from, size_t bytes, bool to_device,
                           CUstream stream)
{
    if (!reachable(to, bytes, to_device, true) || !reachable(from, bytes, !to_device, false)) {
        double_abort("a copy of %zu bytes beyond memory of the device, or from or to memory that "
                     "is not page-locked",
                     bytes);
    }
    submit(stream_of(stream),
           &(struct operation){.kind = COPY, .to = to, .from = from, .bytes = bytes});
    return CUDA_SUCCESS;
}

EXPORT CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void *from, size_t bytes, CUstream stream)
{
    ENTER;
    return copy_async((void *)(uintptr_t)to, from, bytes, true, stream);
}

EXPORT CUresult cuMemcpyDtoHAsync(void *to, CUdeviceptr from, size_t bytes, CUstream stream)
{
    ENTER;
    return copy_async(to, (const void *)(uintptr_t)from, bytes, false, stream);
}

EXPORT CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t bytes, CUstream stream)
{
    ENTER;
    if (!memory_holds((void *)(uintptr_t)to, bytes, false)) {
        double_abort("%zu bytes are set where the device has no memory", bytes);
    }
    submit(stream_of(stream),
           &(struct operation){
               .kind = SET, .to = (void *)(uintptr_t)to, .bytes = bytes, .value = value});
    return CUDA_SUCCESS;
}

EXPORT CUresult cuStreamCreate(CUstream *stream, unsigned flags)
{
    (void)flags;
    ENTER;
    not_in_capture(__func__);
    for (size_t i = 0; i < MOST_STREAMS; i++) {
        if (!streams[i].used) {
            streams[i] = (struct stream){.used = true};
            *stream = (CUstream)&streams[i];
            return CUDA_SUCCESS;
        }
    }
    double_abort("too many streams");
}

EXPORT CUresult cuStreamDestroy(CUstream stream)
{
    ENTER;
    run_until(stream_of(stream), NULL, 0);
    stream_of(stream)->used = false;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuStreamSynchronize(CUstream stream)
{
    ENTER;
    not_in_capture(__func__);
    run_until(stream_of(stream), NULL, 0);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuEventCreate(CUevent *event, unsigned flags)
{
    ENTER;
    struct event *made = calloc(1, sizeof *made);
    if (made != NULL) {
        made->timed = (flags & CU_EVENT_DISABLE_TIMING) == 0;
    }
    *event = (CUevent)made;
    return made != NULL ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

EXPORT CUresult cuEventDestroy(CUevent event)
{
    ENTER;
    run_all();
    free(event);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuEventRecord(CUevent event, CUstream stream)
{
    struct event *e = (struct event *)event;
    ENTER;
    if (stream_of(stream)->capturing) {
        double_abort("an event of outside is recorded in a capture");
    }
    e->recorded++;
    e->stream = stream_of(stream);
    submit(stream_of(stream),
           &(struct operation){.kind = RECORD, .event = e, .ticket = e->recorded});
    return CUDA_SUCCESS;
}

EXPORT CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned flags)
{
    struct event *e = (struct event *)event;
    (void)flags;
    ENTER;
    if (stream_of(stream)->capturing) {
        double_abort("an event of outside is waited for in a capture");
    }
    submit(stream_of(stream), &(struct operation){.kind = WAIT, .event = e, .ticket = e->recorded});
    return CUDA_SUCCESS;
}

EXPORT CUresult cuEventSynchronize(CUevent event)
{
    struct event *e = (struct event *)event;
    ENTER;
    not_in_capture(__func__);
    run_until(e->stream, e, e->recorded);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuEventElapsedTime(float *milliseconds, CUevent begin, CUevent end)
{
    const struct event *from = (struct event *)begin;
    const struct event *to = (struct event *)end;
    ENTER;
    if (!from->timed || !to->timed || from->completed < from->recorded ||
        to->completed < to->recorded || from->recorded == 0 || to->recorded == 0) {
        double_abort("a time between events that are not there yet, or have none");
    }
    *milliseconds = (float)(to->time_ns - from->time_ns) * 1e-6f;
    return CUDA_SUCCESS;
}

/* ---- graphs ---- */

EXPORT CUresult cuStreamBeginCapture(CUstream stream, CUstreamCaptureMode mode)
{
    (void)mode;
    ENTER;
    not_in_capture(__func__);
    capturing = stream_of(stream);
    capturing->capturing = true;
    capturing->captured = (struct queue){.first = NULL};
    return CUDA_SUCCESS;
}

EXPORT CUresult cuStreamEndCapture(CUstream stream, CUgraph *graph)
{
    struct stream *s = stream_of(stream);
    s->capturing = false;
    capturing = NULL;
    ENTER;
    struct queue *made = (struct queue *)malloc(sizeof *made);
    if (made == NULL || s->captured.first == NULL) {
        double_abort("a capture of nothing");
    }
    *made = s->captured;
    s->captured = (struct queue){.first = NULL};
    *graph = (CUgraph)made;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuGraphInstantiateWithFlags(CUgraphExec *out, CUgraph graph,
                                            unsigned long long flags)
{
    (void)flags;
    ENTER;
    struct queue *made = (struct queue *)calloc(1, sizeof *made);
    if (made == NULL) {
        double_abort("no memory");
    }
    for (struct operation *at = ((struct queue *)graph)->first; at != NULL; at = at->next) {
        queue_append(made, at);
    }
    *out = (CUgraphExec)made;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuGraphDestroy(CUgraph graph)
{
    queue_clear((struct queue *)graph);
    free(graph);
    ENTER;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuGraphExecDestroy(CUgraphExec graph)
{
    queue_clear((struct queue *)graph);
    free(graph);
    ENTER;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuGraphLaunch(CUgraphExec graph, CUstream stream)
{
    ENTER;
    for (struct operation *at = ((struct queue *)graph)->first; at != NULL; at = at->next) {
        submit(stream_of(stream), at);
    }
    return CUDA_SUCCESS;
}

EXPORT int gpudouble_submit(void *stream, const struct double_work *work);
int gpudouble_submit(void *stream, const struct double_work *work)
{
    submit(stream_of((CUstream)stream), &(struct operation){.kind = WORK, .work = *work});
    return 0;
}

/* ---- kernels ---- */

struct function {
    const char *name;
    size_t args_bytes;
    void (*run)(const void *args, uint32_t thread, uint32_t threads);
};

#define DECLARE(name)                                                                              \
    void gpu_##name##_f32(const void *, uint32_t, uint32_t);                                       \
    void gpu_##name##_f16(const void *, uint32_t, uint32_t);                                       \
    void gpu_##name##_bf16(const void *, uint32_t, uint32_t);
GPU_KERNELS(DECLARE)

static struct function functions[] = {
#define LIST(name)                                                                                 \
    {"gpu_" #name "_f32", sizeof(struct gpu_##name##_args), gpu_##name##_f32},                     \
        {"gpu_" #name "_f16", sizeof(struct gpu_##name##_args), gpu_##name##_f16},                 \
        {"gpu_" #name "_bf16", sizeof(struct gpu_##name##_args), gpu_##name##_bf16},
    GPU_KERNELS(LIST)};

EXPORT CUresult cuModuleLoadData(CUmodule *module, const void *image)
{
    uint32_t magic;
    ENTER;
    memcpy(&magic, image, sizeof magic);
    *module = (CUmodule)functions;
    return magic == FATBIN_MAGIC ? CUDA_SUCCESS : CUDA_ERROR_INVALID_IMAGE;
}

EXPORT CUresult cuModuleUnload(CUmodule module)
{
    (void)module;
    ENTER;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuModuleGetFunction(CUfunction *out, CUmodule module, const char *name)
{
    (void)module;
    ENTER;
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        if (strcmp(functions[i].name, name) == 0) {
            *out = (CUfunction)&functions[i];
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
    struct function *f = (struct function *)function;
    ENTER;
    if (grid_x == 0 || grid_y != 1 || grid_z != 1 || block_x != GPU_BLOCK_THREADS || block_y != 1 ||
        block_z != 1 || shared_bytes != 0 || extra != NULL) {
        double_abort("%s started with a grid of %u blocks of %u threads", f->name, grid_x, block_x);
    }
    submit(stream_of(stream),
           &(struct operation){.kind = KERNEL,
                               .kernel = f->run,
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
