/* Memory of the double's device, and what is known about each byte of it (device.h). */
#include "device.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE_BYTES    4096u
#define ALIGN_BYTES   512u
#define MOST_MEMORIES 256
#define MOST_LOCKED   4096
#define MOST_USES     4096
#define CELL_BYTES    16u
#define NUMBER_BITS   28u
#define STACK_SLACK   256

/* Of 16 bytes: who used them last, as a party's number and its operation's; 0: nobody. */
struct cell {
    uint32_t writer;
    uint32_t readers[PARTIES]; /* operations only */
    uint16_t written;          /* a bit a byte */
};

struct memory {
    char *map;
    size_t map_bytes;
    char *data;
    size_t bytes;
    bool host;
    struct cell *cells; /* of the device's */
};

static struct memory memories[MOST_MEMORIES];
static size_t device_bytes;

struct moment host_moment;
struct moment own_moment;

void moment_join(struct moment *moment, const struct moment *other)
{
    for (int i = 0; i < PARTIES; i++) {
        if (other->before[i] > moment->before[i]) {
            moment->before[i] = other->before[i];
        }
    }
}

size_t memory_total(void)
{
    const char *wish = getenv("GPUDOUBLE_MEMORY");
    return wish != NULL ? strtoul(wish, NULL, 10) : (size_t)1 << 30;
}

size_t memory_free_bytes(void)
{
    size_t total = memory_total();
    return total > device_bytes ? total - device_bytes : 0;
}

static struct memory *unused_memory(size_t bytes)
{
    struct memory *memory = memories;
    while (memory < memories + MOST_MEMORIES && memory->map != NULL) {
        memory++;
    }
    if (memory == memories + MOST_MEMORIES || bytes == 0) {
        double_abort("memory of %zu bytes is asked for, or too many pieces", bytes);
    }
    return memory;
}

/* Its end is as close to the guard page as alignment allows. */
void *memory_create(size_t bytes, bool host)
{
    struct memory *memory = unused_memory(bytes);
    if (!host && bytes > memory_free_bytes()) {
        return NULL;
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
    if (!host) {
        memory->cells = (struct cell *)calloc(rounded / CELL_BYTES + 1, sizeof *memory->cells);
        if (memory->cells == NULL) {
            double_abort("no memory");
        }
        device_bytes += bytes;
    }
    return memory->data;
}

void memory_open(bool open)
{
    for (size_t i = 0; i < MOST_MEMORIES; i++) {
        const struct memory *memory = &memories[i];
        if (memory->map != NULL && !memory->host) {
            (void)mprotect(memory->map + PAGE_BYTES, memory->map_bytes - 2 * PAGE_BYTES,
                           open ? PROT_READ | PROT_WRITE : PROT_NONE);
        }
    }
}

static bool is_in(const struct memory *memory, const char *at, bool host)
{
    return memory->map != NULL && memory->host == host && at >= memory->data &&
           at < memory->data + memory->bytes;
}

static struct memory *memory_find(const void *data, bool host)
{
    static struct memory *last[2]; /* kernels go back and forth between two */
    const char *at = (const char *)data;
    for (size_t i = 0; i < 2; i++) {
        if (last[i] != NULL && is_in(last[i], at, host)) {
            return last[i];
        }
    }
    for (size_t i = 0; i < MOST_MEMORIES; i++) {
        if (is_in(&memories[i], at, host)) {
            last[1] = last[0];
            last[0] = &memories[i];
            return &memories[i];
        }
    }
    return NULL;
}

bool memory_holds(const void *data, size_t bytes, bool host)
{
    const struct memory *memory = memory_find(data, host);
    return memory != NULL && bytes <= (size_t)(memory->data + memory->bytes - (const char *)data);
}

/* ---- uses ---- */

static const char *party_name(int party)
{
    static const char *const names[PARTIES] = {
        "stream 0", "stream 1", "stream 2", "stream 3", "stream 4",
        "stream 5", "stream 6", "stream 7", "the host", "a copy that the host waits for"};
    return names[party];
}

static void need_order(const struct actor *actor, int party, uint32_t number, const char *how)
{
    if (number > actor->moment.before[party]) {
        double_abort("a race: %s on %s %s where %s was, and nobody waited for that", actor->what,
                     party_name(actor->party), how, party_name(party));
    }
}

static void need_writer_before(const struct actor *actor, const struct cell *cell, const char *how)
{
    need_order(actor, (int)(cell->writer >> NUMBER_BITS), cell->writer & ((1u << NUMBER_BITS) - 1),
               how);
}

static void use_cell(const struct actor *actor, struct cell *cell, uint16_t bits, enum use use)
{
    uint32_t number = actor->moment.before[actor->party];
    if (use == READ) {
        need_writer_before(actor, cell, "reads");
        if ((cell->written & bits) != bits) {
            double_abort("%s on %s reads what nobody wrote", actor->what, party_name(actor->party));
        }
        cell->readers[actor->party] = number;
        return;
    }
    need_writer_before(actor, cell, "writes");
    for (int i = 0; i < PARTIES; i++) {
        need_order(actor, i, cell->readers[i], "writes");
    }
    cell->writer = (uint32_t)actor->party << NUMBER_BITS | number;
    cell->written = use == SPOIL ? (uint16_t)(cell->written & ~bits)
                                 : (uint16_t)(cell->written | bits);
}

void memory_use(const struct actor *actor, const void *data, size_t bytes, enum use use)
{
    if (bytes == 0) {
        return;
    }
    const struct memory *memory = memory_find(data, false);
    if (memory == NULL || !memory_holds(data, bytes, false)) {
        double_abort("%s on %s touches %zu bytes that are not the device's", actor->what,
                     party_name(actor->party), bytes);
    }
    size_t at = (size_t)((const char *)data - memory->data);
    size_t end = at + bytes;
    while (at < end) {
        size_t first = at % CELL_BYTES;
        size_t last = end - at < CELL_BYTES - first ? first + (end - at) : CELL_BYTES;
        uint16_t bits = (uint16_t)((1u << last) - (1u << first));
        use_cell(actor, &memory->cells[at / CELL_BYTES], bits, use);
        at += last - first;
    }
}

static const struct actor *working;
static const char *stack_top; /* whoever works is called from where memory_work is */

void memory_work(const struct actor *actor)
{
    working = actor;
    stack_top = (const char *)__builtin_frame_address(0) + STACK_SLACK;
}

void memory_touch(const void *data, size_t bytes, bool written)
{
    const char *here = (const char *)__builtin_frame_address(0);
    const char *at = (const char *)data;
    if (at >= here && at < stack_top) {
        return;
    }
    if (working == NULL || (uintptr_t)data % bytes != 0) {
        double_abort("%s reaches for %zu bytes that are not aligned",
                     working != NULL ? working->what : "nobody", bytes);
    }
    memory_use(working, data, bytes, written ? WRITE : READ);
}

void memory_work_use(const void *data, size_t bytes, enum use use)
{
    if (working == NULL) {
        double_abort("nobody uses memory");
    }
    memory_use(working, data, bytes, use);
}

uint64_t double_mark(const void *data, size_t bytes)
{
    const unsigned char *at = (const unsigned char *)data;
    uint64_t mark = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < bytes; i++) {
        mark = (mark ^ at[i]) * UINT64_C(0x100000001b3);
    }
    return mark;
}

/* ---- the host's ---- */

/* The process's own memory, page-locked. */
struct locked {
    char *data; /* NULL: unused */
    size_t bytes;
    bool read_only;
};

static struct locked locked[MOST_LOCKED];

/* Copies that the host has not waited for yet. */
static struct {
    const char *data;
    size_t bytes;
    int party;
    uint32_t number;
} uses[MOST_USES];
static size_t use_count;

static void drop_finished(void)
{
    size_t left = 0;
    for (size_t i = 0; i < use_count; i++) {
        if (uses[i].number > host_moment.before[uses[i].party]) {
            uses[left++] = uses[i];
        }
    }
    use_count = left;
}

void host_use(const struct actor *actor, const void *data, size_t bytes)
{
    drop_finished();
    if (use_count == MOST_USES) {
        double_abort("too many copies that nobody waits for");
    }
    uses[use_count].data = (const char *)data;
    uses[use_count].bytes = bytes;
    uses[use_count].party = actor->party;
    uses[use_count].number = actor->moment.before[actor->party];
    use_count++;
}

static void need_unused(const char *data, size_t bytes)
{
    drop_finished();
    for (size_t i = 0; i < use_count; i++) {
        if (uses[i].data < data + bytes && data < uses[i].data + uses[i].bytes) {
            double_abort("memory is unlocked under a copy");
        }
    }
}

bool locked_holds(const void *data, size_t bytes, bool written)
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

bool locked_add(void *data, size_t bytes, bool read_only)
{
    const char *at = (const char *)data;
    struct locked *place = NULL;
    for (size_t i = 0; i < MOST_LOCKED; i++) {
        const struct locked *range = &locked[i];
        if (range->data != NULL && at < range->data + range->bytes && range->data < at + bytes) {
            return false;
        }
        place = place == NULL && range->data == NULL ? &locked[i] : place;
    }
    if (place == NULL) {
        double_abort("too many ranges are locked");
    }
    *place = (struct locked){.data = (char *)data, .bytes = bytes, .read_only = read_only};
    return true;
}

void locked_remove(void *data)
{
    for (size_t i = 0; i < MOST_LOCKED; i++) {
        if (locked[i].data == (char *)data && data != NULL) {
            need_unused(locked[i].data, locked[i].bytes);
            locked[i] = (struct locked){.data = NULL};
            return;
        }
    }
    double_abort("unlocked what was not locked");
}

size_t locked_bytes(void)
{
    size_t bytes = 0;
    for (size_t i = 0; i < MOST_LOCKED; i++) {
        bytes += locked[i].data != NULL ? locked[i].bytes : 0;
    }
    return bytes;
}

/* ---- the end ---- */

void memory_destroy(void *data, bool host)
{
    struct memory *memory = memory_find(data, host);
    if (memory == NULL || memory->data != (char *)data) {
        double_abort("freed what was not allocated");
    }
    if (host) {
        need_unused(memory->data, memory->bytes);
    } else {
        struct actor actor = {"the freeing of memory", HOST, host_moment};
        moment_join(&actor.moment, &own_moment); /* by the driver, too */
        size_t cells = (memory->bytes + CELL_BYTES - 1) / CELL_BYTES;
        for (size_t i = 0; i < cells; i++) {
            use_cell(&actor, &memory->cells[i], 0, SPOIL);
        }
        device_bytes -= memory->bytes;
    }
    free(memory->cells);
    /* The addresses are nobody's from now on: who keeps an old one must not find something new. */
    if (mmap(memory->map, memory->map_bytes, PROT_NONE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED) {
        double_abort("freed memory stays");
    }
    *memory = (struct memory){.map = NULL};
}

void memory_check_left(void)
{
    for (size_t i = 0; i < MOST_MEMORIES; i++) {
        if (memories[i].map != NULL) {
            double_abort("%zu bytes of %s memory are never freed", memories[i].bytes,
                         memories[i].host ? "page-locked" : "the device's");
        }
    }
    if (locked_bytes() > 0) {
        double_abort("%zu bytes stay page-locked", locked_bytes());
    }
}
