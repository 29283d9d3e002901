/* The shared-memory job queue. include/unetserve/queue.h is the contract; ARCHITECTURE.md has the
 * table and the reasons. */
#include "unetserve/queue.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define QUEUE_ALIGN 4096u
#define QUEUE_SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

/* Where the areas of a slot lie in the inputs and the outputs: at pages. */
struct queue_place {
    uint64_t input_offset;
    uint64_t input_capacity;
    uint64_t output_offset;
    uint64_t output_capacity;
};

struct queue_layout {
    struct queue_geometry geometry;
    struct queue_place first[QUEUE_MAX_CLASSES]; /* of each class */
};

struct queue_header {
    uint64_t magic;
    uint32_t layout_version;
    uint32_t slot_count;
    uint64_t size;
    uint64_t processes_offset;
    uint64_t models_offset;
    uint64_t slots_offset;
    uint64_t counted_offset;
    uint64_t seats_offset;
    uint64_t counters_offset;
    uint64_t gpus_offset;
    uint64_t devices_offset;
    uint64_t admission_offset;
    uint64_t crowds_offset;
    uint64_t inputs_size;
    uint64_t outputs_size;
    uint64_t created_unix_ms;
    struct queue_geometry geometry;
    _Alignas(64) _Atomic uint32_t next_process; /* the supervisor's: where its next search begins */
    _Atomic uint64_t entered[QUEUE_MAX_PROCESSES / 64]; /* the supervisor's: who is not vacant */
};

_Static_assert(sizeof(struct queue_process) == 128, "layout");
_Static_assert(sizeof(struct queue_slot) % 64 == 0, "slots do not share cache lines");
_Static_assert(COUNTERS_MAX_MODELS == QUEUE_MAX_MODELS, "each model has its counters");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2 && ATOMIC_INT_LOCK_FREE == 2,
               "words are shared between processes");

/* ---- words ---- */

enum { OWNER_NOBODY, OWNER_GATEWAY, OWNER_WORKER };

static const struct {
    const char *name;
    int owner;
} states[QUEUE_STATE_COUNT] = {
#define STATE_ROW(name, owner) [QUEUE_##name] = {#name, OWNER_##owner},
    QUEUE_STATES(STATE_ROW)
#undef STATE_ROW
};

static const struct {
    uint8_t from, to, role;
} edges[] = {
#define EDGE_ROW(from, to, role) {QUEUE_##from, QUEUE_##to, QUEUE_##role},
    QUEUE_EDGES(EDGE_ROW)
#undef EDGE_ROW
};

const char *queue_state_name(enum queue_state state)
{
    return (unsigned)state < QUEUE_STATE_COUNT ? states[state].name : "?";
}

bool queue_edge_exists(enum queue_state from, enum queue_state to, enum queue_role role)
{
    for (size_t i = 0; i < sizeof edges / sizeof edges[0]; i++)
        if (edges[i].from == from && edges[i].to == to && edges[i].role == role)
            return true;
    return false;
}

static uint64_t word_make(enum queue_state state, uint16_t owner, unsigned faults, unsigned kills,
                          uint32_t generation)
{
    return (uint64_t)state | (uint64_t)owner << 8 | (uint64_t)(faults & 7) << 24 |
           (uint64_t)(kills & 31) << 27 | (uint64_t)generation << 32;
}

/* Acquire on success as well as release: who takes a slot over sees what its last owner wrote, even
 * where it read the word a while ago; relaxed on failure, since the caller reads the word again. */
static bool word_swap(struct queue *queue, uint32_t slot, uint64_t from, uint64_t to)
{
    return atomic_compare_exchange_strong_explicit(&queue->slots[slot].word, &from, to,
                                                   memory_order_acq_rel, memory_order_relaxed);
}

static bool move_counted(struct queue *queue, enum queue_role role, uint32_t slot, uint64_t word,
                         enum queue_state to, uint16_t owner, unsigned faults, unsigned kills,
                         uint64_t *moved)
{
    assert(slot < queue->slot_count);
    assert(queue_edge_exists(queue_word_state(word), to, role));
    assert((owner != 0) == (states[to].owner != OWNER_NOBODY));
    uint32_t generation = queue_word_generation(word);
    uint64_t next = to == QUEUE_FREE ? word_make(to, 0, 0, 0, generation + 1)
                                     : word_make(to, owner, faults, kills, generation);
    if (!word_swap(queue, slot, word, next))
        return false;
    if (moved)
        *moved = next;
    return true;
}

bool queue_move(struct queue *queue, enum queue_role role, uint32_t slot, uint64_t word,
                enum queue_state to, uint16_t owner, uint64_t *moved)
{
    return move_counted(queue, role, slot, word, to, owner, queue_word_faults(word),
                        queue_word_kills(word), moved);
}

uint64_t queue_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t unix_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

uint64_t queue_created_unix_ms(const struct queue *queue)
{
    return queue->header->created_unix_ms;
}

/* ---- creation and mapping ---- */

static uint64_t round_up(uint64_t value, uint64_t to)
{
    return (value + to - 1) / to * to;
}

static int geometry_check(const struct queue_geometry *geometry, uint32_t *slot_count)
{
    uint64_t slots = 0;
    if (geometry->class_count == 0 || geometry->class_count > QUEUE_MAX_CLASSES ||
        geometry->model_count > QUEUE_MAX_MODELS)
        return -EINVAL;
    for (uint32_t i = 0; i < geometry->class_count; i++) {
        const struct queue_class *class = &geometry->classes[i];
        if (class->count == 0 || class->count > QUEUE_MAX_SLOTS || class->input_bytes == 0 ||
            class->input_bytes > UINT64_C(1) << 40 || class->output_bytes == 0 ||
            class->output_bytes > UINT64_C(1) << 40)
            return -EINVAL;
        if (i > 0 && class->input_bytes < geometry->classes[i - 1].input_bytes)
            return -EINVAL;
        slots += class->count;
    }
    if (slots > QUEUE_MAX_SLOTS)
        return -EINVAL;
    *slot_count = (uint32_t)slots;
    return 0;
}

/* Where everything lies, from the geometry alone: creator and attachers must come to the same
 * answer. */
static void layout_plan(const struct queue_geometry *geometry, uint32_t slot_count,
                        struct queue_header *plan)
{
    memset(plan, 0, sizeof *plan);
    plan->magic = QUEUE_MAGIC;
    plan->layout_version = QUEUE_LAYOUT_VERSION;
    plan->slot_count = slot_count;
    plan->geometry = *geometry;
    uint64_t at = round_up(sizeof *plan, QUEUE_ALIGN);
    plan->processes_offset = at;
    at += round_up(sizeof(struct queue_process) * QUEUE_MAX_PROCESSES, QUEUE_ALIGN);
    plan->models_offset = at;
    at += round_up(sizeof(struct queue_model) * QUEUE_MAX_MODELS, QUEUE_ALIGN);
    plan->slots_offset = at;
    at += round_up(sizeof(struct queue_slot) * slot_count, QUEUE_ALIGN);
    plan->counted_offset = at;
    at += round_up(sizeof(struct counters_server), QUEUE_ALIGN);
    plan->seats_offset = at;
    at += round_up(sizeof(struct counters_seat) * COUNTERS_MAX_SEATS, QUEUE_ALIGN);
    plan->counters_offset = at;
    at += round_up(sizeof(struct counters) * COUNTERS_MAX_SEATS, QUEUE_ALIGN);
    plan->gpus_offset = at;
    at += round_up(sizeof(struct counters_gpu) * COUNTERS_MAX_GPUS, QUEUE_ALIGN);
    plan->devices_offset = at;
    at += round_up(sizeof(struct counters_device) * (COUNTERS_MAX_GPUS + 1), QUEUE_ALIGN);
    plan->admission_offset = at;
    at += round_up(sizeof(struct admission), QUEUE_ALIGN);
    plan->crowds_offset = at;
    at += round_up(sizeof(struct crowd_block) * CROWD_GATEWAYS, QUEUE_ALIGN);
    plan->size = at;
    uint32_t first = 0;
    for (uint32_t i = 0; i < geometry->class_count; i++) {
        struct queue_class *class = &plan->geometry.classes[i];
        class->first = first;
        first += class->count;
        plan->inputs_size += class->count * round_up(class->input_bytes, QUEUE_ALIGN);
        plan->outputs_size += class->count * round_up(class->output_bytes, QUEUE_ALIGN);
    }
}

/* Generation 1 upwards, so that an all-zero cancel word never matches. */
static void slots_fill(struct queue *queue)
{
    for (uint32_t i = 0; i < queue->slot_count; i++)
        atomic_store(&queue->slots[i].word, word_make(QUEUE_FREE, 0, 0, 0, 1));
}

/* A process's own copy of what must not change under it: whoever can write the table could lead it
 * astray by an offset. NULL: out of memory. */
static struct queue_layout *layout_make(const struct queue_geometry *geometry)
{
    struct queue_layout *layout = calloc(1, sizeof *layout);
    uint64_t inputs = 0;
    uint64_t outputs = 0;
    if (!layout)
        return NULL;
    layout->geometry = *geometry;
    for (uint32_t i = 0; i < geometry->class_count; i++) {
        const struct queue_class *class = &geometry->classes[i];
        struct queue_place *first = &layout->first[i];
        *first = (struct queue_place){
            .input_offset = inputs,
            .input_capacity = round_up(class->input_bytes, QUEUE_ALIGN),
            .output_offset = outputs,
            .output_capacity = round_up(class->output_bytes, QUEUE_ALIGN),
        };
        inputs += class->count * first->input_capacity;
        outputs += class->count * first->output_capacity;
    }
    return layout;
}

/* Mapped as the descriptor allows. 0, -EBADMSG if it is not a memfd of that size with our seals. */
static int map_fd(int fd, uint64_t size, void **out)
{
    struct stat status;
    if (fstat(fd, &status))
        return -errno;
    int seals = fcntl(fd, F_GET_SEALS);
    int flags = fcntl(fd, F_GETFL);
    if (seals < 0 || (seals & QUEUE_SEALS) != QUEUE_SEALS || flags < 0 || status.st_size < 0 ||
        (uint64_t)status.st_size != size)
        return -EBADMSG;
    int protection = (flags & O_ACCMODE) == O_RDWR ? PROT_READ | PROT_WRITE : PROT_READ;
    void *base = mmap(NULL, size, protection, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED)
        return errno == ENOMEM ? -ENOMEM : -EIO;
    /* A Python model may fork: its children must not hold the slots. */
    madvise(base, size, MADV_DONTFORK);
    *out = base;
    return 0;
}

static int map_table(int fd, uint64_t size, struct queue *out)
{
    void *base;
    int error = map_fd(fd, size, &base);
    if (!error)
        *out = (struct queue){
            .fd = fd, .size = size, .header = base, .inputs_fd = -1, .outputs_fd = -1};
    return error;
}

static int map_areas(int inputs_fd, int outputs_fd, const struct queue_header *plan,
                     struct queue *out)
{
    void *inputs = NULL;
    void *outputs = NULL;
    int error = map_fd(inputs_fd, plan->inputs_size, &inputs);
    if (error)
        return error;
    error = map_fd(outputs_fd, plan->outputs_size, &outputs);
    if (error) {
        munmap(inputs, plan->inputs_size);
        return error;
    }
    out->inputs_fd = inputs_fd;
    out->outputs_fd = outputs_fd;
    out->inputs_size = plan->inputs_size;
    out->outputs_size = plan->outputs_size;
    out->inputs = inputs;
    out->outputs = outputs;
    return 0;
}

static void unmap(struct queue *queue)
{
    queue_leave_areas(queue);
    free(queue->layout);
    munmap(queue->header, queue->size);
}

static int pointers_set(struct queue *queue, const struct queue_header *plan)
{
    char *base = (char *)queue->header;
    queue->layout = layout_make(&plan->geometry);
    if (!queue->layout)
        return -ENOMEM;
    queue->geometry = &queue->layout->geometry;
    queue->processes = (struct queue_process *)(base + plan->processes_offset);
    queue->entered = queue->header->entered;
    queue->models = (struct queue_model *)(base + plan->models_offset);
    queue->slots = (struct queue_slot *)(base + plan->slots_offset);
    queue->slot_count = plan->slot_count;
    queue->counted = (struct counters_server *)(base + plan->counted_offset);
    queue->seats = (struct counters_seat *)(base + plan->seats_offset);
    queue->counters = (struct counters *)(base + plan->counters_offset);
    queue->gpus = (struct counters_gpu *)(base + plan->gpus_offset);
    queue->devices = (struct counters_device *)(base + plan->devices_offset);
    queue->admission = (struct admission *)(base + plan->admission_offset);
    queue->crowds = (struct crowd_block *)(base + plan->crowds_offset);
    return 0;
}

/* A descriptor, or a negative errno. */
static int memory_make(const char *name, uint64_t size)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    if (ftruncate(fd, (off_t)size) || fcntl(fd, F_ADD_SEALS, QUEUE_SEALS)) {
        int error = -errno;
        close(fd);
        return error;
    }
    return fd;
}

static int create_mapped(const struct queue_header *plan, const int fds[3], struct queue *out)
{
    for (int i = 0; i < 3; i++)
        if (fds[i] < 0)
            return fds[i];
    struct queue queue;
    int error = map_table(fds[0], plan->size, &queue);
    if (error)
        return error;
    *queue.header = *plan;
    error = map_areas(fds[1], fds[2], plan, &queue);
    if (!error)
        error = pointers_set(&queue, plan);
    if (!error)
        error = admission_init(queue.admission);
    if (error) {
        unmap(&queue);
        return error;
    }
    slots_fill(&queue);
    *out = queue;
    return 0;
}

int queue_create(const struct queue_geometry *geometry, struct queue *out)
{
    uint32_t slot_count = 0;
    int error = geometry_check(geometry, &slot_count);
    if (error)
        return error;
    struct queue_header plan;
    layout_plan(geometry, slot_count, &plan);
    plan.created_unix_ms = unix_ms();
    const int fds[] = {
        memory_make("unetserve-queue", plan.size),
        memory_make("unetserve-inputs", plan.inputs_size),
        memory_make("unetserve-outputs", plan.outputs_size),
    };
    error = create_mapped(&plan, fds, out);
    for (int i = 0; error && i < 3; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    return error;
}

void queue_leave_areas(struct queue *queue)
{
    if (queue->inputs)
        munmap(queue->inputs, queue->inputs_size);
    if (queue->outputs)
        munmap(queue->outputs, queue->outputs_size);
    queue->inputs = queue->outputs = NULL;
}

/* The same memory under a descriptor that only reads; or a negative errno. */
static int reader_open(int fd)
{
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int reader = open(path, O_RDONLY | O_CLOEXEC);
    return reader < 0 ? -errno : reader;
}

int queue_open_readers(const struct queue *queue, int *inputs_fd, int *outputs_fd)
{
    int inputs = reader_open(queue->inputs_fd);
    if (inputs < 0)
        return inputs;
    int outputs = reader_open(queue->outputs_fd);
    int error = outputs < 0 ? outputs : 0;
    if (!error && (fchmod(queue->fd, 0) || fchmod(inputs, 0) || fchmod(outputs, 0)))
        error = -errno;
    if (error) {
        close(inputs);
        if (outputs >= 0)
            close(outputs);
        return error;
    }
    *inputs_fd = inputs;
    *outputs_fd = outputs;
    return 0;
}

int queue_attach(int fd, int inputs_fd, int outputs_fd, struct queue *out)
{
    struct stat status;
    if ((inputs_fd < 0) != (outputs_fd < 0))
        return -EBADF;
    if (fstat(fd, &status))
        return -errno;
    if (status.st_size < (off_t)sizeof(struct queue_header))
        return -EBADMSG;
    struct queue queue;
    int error = map_table(fd, (uint64_t)status.st_size, &queue);
    if (error)
        return error;
    struct queue_header plan;
    struct queue_geometry geometry = queue.header->geometry;
    uint32_t slot_count = 0;
    error = -EBADMSG;
    if (queue.header->magic != QUEUE_MAGIC ||
        queue.header->layout_version != QUEUE_LAYOUT_VERSION ||
        geometry_check(&geometry, &slot_count))
        goto fail;
    layout_plan(&geometry, slot_count, &plan);
    if (plan.size != queue.size || queue.header->size != queue.size)
        goto fail;
    error = pointers_set(&queue, &plan);
    if (!error && inputs_fd >= 0)
        error = map_areas(inputs_fd, outputs_fd, &plan, &queue);
    if (error)
        goto fail;
    *out = queue;
    return 0;
fail:
    unmap(&queue);
    return error;
}

void queue_close(struct queue *queue)
{
    unmap(queue);
    close(queue->fd);
    if (queue->inputs_fd >= 0)
        close(queue->inputs_fd);
    if (queue->outputs_fd >= 0)
        close(queue->outputs_fd);
    *queue = (struct queue){.fd = -1, .inputs_fd = -1, .outputs_fd = -1};
}

/* ---- slots ---- */

/* The first slot of its class lies there; the others follow. */
static struct queue_place place_of(const struct queue *queue, uint32_t slot)
{
    assert(slot < queue->slot_count);
    const struct queue_layout *layout = queue->layout;
    uint32_t i = layout->geometry.class_count - 1;
    while (layout->geometry.classes[i].first > slot)
        i--;
    struct queue_place place = layout->first[i];
    uint64_t before = slot - layout->geometry.classes[i].first;
    place.input_offset += before * place.input_capacity;
    place.output_offset += before * place.output_capacity;
    return place;
}

void *queue_input(const struct queue *queue, uint32_t slot)
{
    assert(queue->inputs);
    return queue->inputs + place_of(queue, slot).input_offset;
}

void *queue_output(const struct queue *queue, uint32_t slot)
{
    assert(queue->outputs);
    return queue->outputs + place_of(queue, slot).output_offset;
}

uint64_t queue_input_capacity(const struct queue *queue, uint32_t slot)
{
    return place_of(queue, slot).input_capacity;
}

uint64_t queue_output_capacity(const struct queue *queue, uint32_t slot)
{
    return place_of(queue, slot).output_capacity;
}

/* In areas of one class, which lie side by side. */
static bool area_take(const char *first, uint64_t bytes, uint32_t count, const char *address,
                      struct unetserve_area *out)
{
    if (address < first || (uint64_t)(address - first) >= bytes * count)
        return false;
    uint64_t before = (uint64_t)(address - first) / bytes;
    *out = (struct unetserve_area){.data = first + before * bytes, .bytes = bytes};
    return true;
}

int queue_find_area(const struct queue *queue, const void *address, struct unetserve_area *out)
{
    const struct queue_layout *layout = queue->layout;
    for (uint32_t i = 0; i < layout->geometry.class_count; i++) {
        const struct queue_place *first = &layout->first[i];
        uint32_t count = layout->geometry.classes[i].count;
        bool input = queue->inputs && area_take(queue->inputs + first->input_offset,
                                                first->input_capacity, count, address, out);
        if (input || (queue->outputs && area_take(queue->outputs + first->output_offset,
                                                  first->output_capacity, count, address, out))) {
            int flags = fcntl(input ? queue->inputs_fd : queue->outputs_fd, F_GETFL);
            out->writable = flags >= 0 && (flags & O_ACCMODE) == O_RDWR;
            return 0;
        }
    }
    return -ENOENT;
}

uint64_t queue_largest_input(const struct queue *queue)
{
    return queue_input_capacity(queue, queue->slot_count - 1);
}

/* The first free slot of that class: those in use stay few, so that the pages of the others are
 * never touched and the ones that are stay warm. */
static bool class_reserve(struct queue *queue, uint32_t class_index, uint16_t self, uint32_t *slot,
                          uint64_t *word)
{
    const struct queue_class *class = &queue->geometry->classes[class_index];
    for (uint32_t i = 0; i < class->count; i++) {
        uint32_t number = class->first + i;
        if (number >= queue->slot_count)
            return false;
        uint64_t now = queue_word(queue, number);
        if (queue_word_state(now) != QUEUE_FREE ||
            !queue_move(queue, QUEUE_GATEWAY, number, now, QUEUE_RECV, self, word))
            continue;
        /* After the move: before it the slot is not ours, and its old gateway may still be looked
         * up. */
        atomic_store_explicit(&queue->slots[number].reply_to, self, memory_order_relaxed);
        *slot = number;
        return true;
    }
    return false;
}

int queue_reserve(struct queue *queue, uint16_t self, uint64_t input_bytes, uint64_t output_bytes,
                  uint32_t *slot, uint64_t *word)
{
    bool fits = false;
    for (uint32_t i = 0; i < queue->geometry->class_count && i < QUEUE_MAX_CLASSES; i++) {
        const struct queue_class *class = &queue->geometry->classes[i];
        if (class->input_bytes < input_bytes || class->output_bytes < output_bytes)
            continue;
        fits = true;
        if (class_reserve(queue, i, self, slot, word))
            return 0;
    }
    return fits ? -EBUSY : -E2BIG;
}

void queue_request_id(const struct queue *queue, uint32_t slot, char id[QUEUE_ID_MAX])
{
    memcpy(id, queue->slots[slot].request_id, QUEUE_ID_MAX);
    id[QUEUE_ID_MAX - 1] = '\0';
}

void queue_cancel(struct queue *queue, uint32_t slot, uint32_t generation)
{
    assert(slot < queue->slot_count);
    _Atomic uint64_t *cancel = &queue->slots[slot].cancel;
    uint64_t now = atomic_load_explicit(cancel, memory_order_relaxed);
    uint64_t want = (uint64_t)generation << 32 | QUEUE_CANCEL;
    do {
        /* A late flag must not wipe out that of a younger job in the same slot. Generations wrap:
         * compare by distance. */
        if ((now & QUEUE_CANCEL) && (int32_t)((uint32_t)(now >> 32) - generation) >= 0)
            return;
    } while (!atomic_compare_exchange_weak_explicit(cancel, &now, want, memory_order_release,
                                                    memory_order_relaxed));
}

bool queue_cancelled(const struct queue *queue, uint32_t slot, uint32_t generation)
{
    assert(slot < queue->slot_count);
    return atomic_load_explicit(&queue->slots[slot].cancel, memory_order_acquire) ==
           ((uint64_t)generation << 32 | QUEUE_CANCEL);
}

/* ---- processes ---- */

static bool process_live(const struct queue *queue, uint32_t index)
{
    return index > 0 && index < QUEUE_MAX_PROCESSES &&
           atomic_load_explicit(&queue->processes[index].life, memory_order_acquire) !=
               QUEUE_VACANT;
}

bool queue_process_is(const struct queue *queue, uint32_t index, enum queue_role role)
{
    return process_live(queue, index) &&
           atomic_load_explicit(&queue->processes[index].role, memory_order_relaxed) ==
               (uint32_t)role;
}

static bool slot_names(const struct queue *queue, uint32_t slot, uint32_t index)
{
    uint64_t word = queue_word(queue, slot);
    if (queue_word_owner(word) == index)
        return true;
    return queue_word_state(word) != QUEUE_FREE &&
           atomic_load_explicit(&queue->slots[slot].reply_to, memory_order_relaxed) == index;
}

static bool any_slot_names(const struct queue *queue, uint32_t index)
{
    for (uint32_t i = 0; i < queue->slot_count; i++)
        if (slot_names(queue, i, index))
            return true;
    return false;
}

int queue_process_enter(struct queue *queue, enum queue_role role, uint32_t seat, uint16_t *index)
{
    uint32_t start = atomic_load_explicit(&queue->header->next_process, memory_order_relaxed);
    for (uint32_t i = 0; i < QUEUE_MAX_PROCESSES - 1; i++) {
        uint32_t candidate = 1 + (start + i) % (QUEUE_MAX_PROCESSES - 1);
        struct queue_process *process = &queue->processes[candidate];
        if (process_live(queue, candidate) || any_slot_names(queue, candidate))
            continue;
        atomic_store(&process->role, role);
        atomic_store(&process->seat, seat);
        atomic_store(&process->model, 0);
        atomic_store(&process->model_generation, 0);
        atomic_store(&process->draining, 0);
        atomic_store(&process->died_by_fault, 0);
        atomic_store(&process->pid, 0);
        atomic_store(&process->ready, 0);
        atomic_store(&process->attention, 0);
        atomic_store(&process->tick, 0);
        atomic_store(&process->jobs, 0);
        atomic_store(&process->busy_ns, 0);
        atomic_store(&process->batch, 0);
        atomic_fetch_or(&queue->entered[candidate / 64], UINT64_C(1) << candidate % 64);
        atomic_store_explicit(&process->life, QUEUE_LIVE, memory_order_release);
        atomic_store_explicit(&queue->header->next_process, start + i + 1, memory_order_relaxed);
        *index = (uint16_t)candidate;
        return 0;
    }
    return -EAGAIN;
}

void queue_process_leave(struct queue *queue, uint16_t index, bool by_fault)
{
    assert(index > 0 && index < QUEUE_MAX_PROCESSES);
    struct queue_process *process = &queue->processes[index];
    atomic_store(&process->ready, 0);
    atomic_store(&process->died_by_fault, by_fault);
    atomic_store_explicit(&process->life, QUEUE_VACANT, memory_order_release);
    atomic_fetch_and(&queue->entered[index / 64], ~(UINT64_C(1) << index % 64));
    /* Whoever gets this index next must not be taken for the one that was writing an interface. */
    for (uint32_t i = 0; i < QUEUE_MAX_MODELS; i++) {
        uint32_t writer = index;
        atomic_compare_exchange_strong(&queue->models[i].writer, &writer, 0);
    }
}

/* ---- standing rules ---- */

static bool reply_to_gone(const struct queue *queue, uint32_t slot)
{
    uint32_t gateway = atomic_load_explicit(&queue->slots[slot].reply_to, memory_order_relaxed);
    return !queue_process_is(queue, gateway, QUEUE_GATEWAY);
}

/* RUN of a dead worker: once more, unless it has died of this job often enough or nobody wants it
 * any more. */
static bool rule_run(struct queue *queue, uint32_t slot, uint64_t word)
{
    uint16_t owner = queue_word_owner(word);
    bool by_fault = owner < QUEUE_MAX_PROCESSES &&
                    atomic_load(&queue->processes[owner].died_by_fault);
    unsigned faults = queue_word_faults(word) + (by_fault ? 1 : 0);
    unsigned kills = queue_word_kills(word) + (by_fault ? 0 : 1);
    bool enough = faults >= QUEUE_MAX_ATTEMPTS || kills >= QUEUE_MAX_KILLS ||
                  queue_cancelled(queue, slot, queue_word_generation(word));
    /* The start that it tells is over, and so are the items that nobody has seen. Nobody else
     * writes them: its worker is gone, and its gateway takes items only after it has moved the
     * word. */
    if (!enough) {
        atomic_store(&queue->slots[slot].started_ns, 0);
        ring_clear(&queue->slots[slot].ring);
    }
    return move_counted(queue, QUEUE_SUPERVISOR, slot, word, enough ? QUEUE_FAILED : QUEUE_READY, 0,
                        faults, kills, NULL);
}

static bool rule_leased(struct queue *queue, uint32_t slot, uint64_t word)
{
    uint16_t owner = queue_word_owner(word);
    if (queue_process_is(queue, owner, QUEUE_WORKER) &&
        atomic_load(&queue->processes[owner].life) != QUEUE_CONDEMNED)
        return false;
    return queue_move(queue, QUEUE_SUPERVISOR, slot, word, QUEUE_READY, 0, NULL);
}

static bool rule_cancel(struct queue *queue, uint32_t slot, uint64_t word)
{
    uint32_t generation = queue_word_generation(word);
    if (!reply_to_gone(queue, slot) || queue_cancelled(queue, slot, generation))
        return false;
    /* The gateway looked up may be a later one's if the word has moved on; then the flag would hit
     * the wrong job. */
    if (queue_word(queue, slot) != word)
        return false;
    queue_cancel(queue, slot, generation);
    return true;
}

static bool slot_apply_rules(struct queue *queue, uint32_t slot)
{
    uint64_t word = queue_word(queue, slot);
    uint16_t owner = queue_word_owner(word);
    switch (queue_word_state(word)) {
    case QUEUE_RECV:
    case QUEUE_SEND:
        return !queue_process_is(queue, owner, QUEUE_GATEWAY) &&
               queue_move(queue, QUEUE_SUPERVISOR, slot, word, QUEUE_FREE, 0, NULL);
    case QUEUE_READY:
    case QUEUE_DONE:
    case QUEUE_FAILED:
        return reply_to_gone(queue, slot) &&
               queue_move(queue, QUEUE_SUPERVISOR, slot, word, QUEUE_FREE, 0, NULL);
    case QUEUE_LEASED: return rule_leased(queue, slot, word) || rule_cancel(queue, slot, word);
    case QUEUE_RUN:
        if (!queue_process_is(queue, owner, QUEUE_WORKER))
            return rule_run(queue, slot, word);
        return rule_cancel(queue, slot, word);
    case QUEUE_STREAM:
        if (!queue_process_is(queue, owner, QUEUE_WORKER))
            return queue_move(queue, QUEUE_SUPERVISOR, slot, word, QUEUE_FAILED, 0, NULL);
        return rule_cancel(queue, slot, word);
    case QUEUE_FREE:
    case QUEUE_STATE_COUNT: break;
    }
    return false;
}

unsigned queue_apply_standing_rules(struct queue *queue)
{
    unsigned changed = 0;
    for (uint32_t i = 0; i < queue->slot_count; i++)
        changed += slot_apply_rules(queue, i);
    return changed;
}

/* ---- models ---- */

static int writer_lock(struct queue *queue, struct queue_model *model, uint16_t self)
{
    uint32_t writer = atomic_load(&model->writer);
    /* A writer that died left nothing that counts: the generation is stored last. */
    if (writer != 0 && queue_process_is(queue, writer, QUEUE_WORKER))
        return -EBUSY;
    return atomic_compare_exchange_strong(&model->writer, &writer, self) ? 0 : -EBUSY;
}

/* Nothing between the fields that could differ by chance. */
_Static_assert(offsetof(struct unetserve_interface, request_fields) ==
                       offsetof(struct unetserve_interface, request_field_count) + 8 &&
                   offsetof(struct unetserve_interface, request_field_count) ==
                       offsetof(struct unetserve_interface, classes) +
                           sizeof((struct unetserve_interface *)0)->classes &&
                   sizeof(struct unetserve_interface) ==
                       offsetof(struct unetserve_interface, request_schema) +
                           sizeof(char[2][UNETSERVE_MAX_SCHEMA]) &&
                   offsetof(struct unetserve_interface, request_schema) ==
                       offsetof(struct unetserve_interface, max_pending) + 4 &&
                   sizeof(struct unetserve_field) ==
                       offsetof(struct unetserve_field, fallback_text) + 32,
               "an interface has no padding");

int queue_model_publish(struct queue *queue, uint32_t model_index, uint32_t generation,
                        uint16_t self, const struct unetserve_interface *interface)
{
    assert(model_index < QUEUE_MAX_MODELS && generation > 0);
    struct queue_model *model = &queue->models[model_index];
    int error = writer_lock(queue, model, self);
    if (error)
        return error;
    struct unetserve_interface *place = &model->interfaces[generation & 1];
    uint32_t published = atomic_load(&model->generation);
    if (published < generation) {
        *place = *interface;
        atomic_store_explicit(&model->generation, generation, memory_order_release);
    } else if (published - generation > 1) {
        error = -EPROTO; /* its place has another's */
    } else {
        /* Two workers of the same model fill it in the same way, to the byte. One that is late may
         * have found the next model's files. */
        /* NOLINTNEXTLINE(bugprone-suspicious-memory-comparison) */
        error = memcmp(place, interface, sizeof *place) ? -EPROTO : 0;
    }
    atomic_store(&model->writer, 0);
    return error;
}

void queue_model_take_back(struct queue *queue, uint32_t model, uint32_t generation)
{
    assert(model < QUEUE_MAX_MODELS && generation > 1);
    assert(atomic_load(&queue->models[model].generation) == generation);
    atomic_store_explicit(&queue->models[model].generation, generation - 1, memory_order_release);
}

static void fields_bound(struct unetserve_field *fields, uint32_t *count)
{
    if (*count > UNETSERVE_MAX_FIELDS)
        *count = UNETSERVE_MAX_FIELDS;
    for (uint32_t i = 0; i < UNETSERVE_MAX_FIELDS; i++) {
        fields[i].name[sizeof fields[i].name - 1] = '\0';
        fields[i].fallback_text[sizeof fields[i].fallback_text - 1] = '\0';
        if (fields[i].depth > UNETSERVE_MAX_DEPTH)
            fields[i].depth = UNETSERVE_MAX_DEPTH;
    }
}

/* Another process wrote it. */
static void interface_bound(struct unetserve_interface *copy)
{
    copy->name[sizeof copy->name - 1] = copy->version[sizeof copy->version - 1] = '\0';
    copy->request_schema[UNETSERVE_MAX_SCHEMA - 1] =
        copy->response_schema[UNETSERVE_MAX_SCHEMA - 1] = '\0';
    copy->input_field[sizeof copy->input_field - 1] =
        copy->output_field[sizeof copy->output_field - 1] = '\0';
    if (copy->class_count > UNETSERVE_MAX_CLASSES)
        copy->class_count = UNETSERVE_MAX_CLASSES;
    fields_bound(copy->request_fields, &copy->request_field_count);
    fields_bound(copy->response_fields, &copy->response_field_count);
}

int queue_model_read(const struct queue *queue, uint32_t model_index,
                     struct unetserve_interface *interface, uint32_t *generation)
{
    assert(model_index < QUEUE_MAX_MODELS);
    const struct queue_model *model = &queue->models[model_index];
    for (int attempt = 0; attempt < 8; attempt++) {
        uint32_t before = atomic_load_explicit(&model->generation, memory_order_acquire);
        if (before == 0)
            return -ENOENT;
        struct unetserve_interface copy = model->interfaces[before & 1];
        atomic_thread_fence(memory_order_acquire);
        /* The place is written again only by generation before + 2, after another one was published
         * or this one was taken back. */
        if (atomic_load_explicit(&model->generation, memory_order_relaxed) - before > 0)
            continue;
        interface_bound(&copy);
        *interface = copy;
        *generation = before;
        return 0;
    }
    return -ENOENT;
}

uint64_t queue_shape_key(const struct unetserve_shape *shape)
{
    uint64_t key = UINT64_C(0xcbf29ce484222325) + shape->dtype;
    for (uint32_t i = 0; i < shape->rank && i < UNETSERVE_MAX_DIMS; i++) {
        key = (key ^ shape->dims[i]) * UINT64_C(0x9e3779b97f4a7c15);
        key ^= key >> 29;
    }
    return key ? key : 1;
}

bool queue_generation_is_over(const struct queue *queue, uint32_t model, uint32_t generation)
{
    assert(model < QUEUE_MAX_MODELS);
    if (atomic_load_explicit(&queue->models[model].generation, memory_order_acquire) == generation)
        return false;
    for (uint32_t i = 0; (i = queue_process_next(queue, i));) {
        const struct queue_process *process = &queue->processes[i];
        if (queue_process_is(queue, i, QUEUE_WORKER) && atomic_load(&process->life) == QUEUE_LIVE &&
            atomic_load(&process->model) == model &&
            atomic_load(&process->model_generation) == generation)
            return false;
    }
    return true;
}

unsigned queue_ready_workers(const struct queue *queue, uint32_t model)
{
    unsigned ready = 0;
    for (uint32_t i = 0; (i = queue_process_next(queue, i));) {
        const struct queue_process *process = &queue->processes[i];
        ready += queue_process_is(queue, i, QUEUE_WORKER) &&
                 atomic_load(&process->life) == QUEUE_LIVE &&
                 atomic_load(&process->model) == model && atomic_load(&process->ready) &&
                 !atomic_load(&process->draining);
    }
    return ready;
}
