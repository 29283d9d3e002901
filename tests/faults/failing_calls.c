/*
 * For LD_PRELOAD: makes calls of a running unetserve fail, as told through a small file that every
 * process maps.
 *
 * UNETSERVE_FAILING_CALLS names the file, struct control below; tests/system/test_failing_calls.py
 * writes it. While `armed`, calls of the kinds in `kinds` that come from the program `program` (its
 * file's name) are counted: after `countdown` of them the next one fails, and `left` calls in all.
 * own: only calls from the program itself and from models, told by the return address; otherwise
 * those from every library too. Counting is over all processes of that program, so that one call
 * fails once, whoever makes it.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

enum { KIND_MEMORY = 1, KIND_DESCRIPTOR = 2 };

struct control {
    _Atomic uint32_t armed;
    _Atomic uint32_t kinds;
    _Atomic uint32_t own;
    _Atomic int32_t error; /* errno of descriptors: EMFILE, ENFILE, ENOMEM */
    _Atomic int64_t countdown;
    _Atomic int64_t left;
    _Atomic uint64_t failed;
    _Atomic uint64_t caller; /* offset of the last one that failed, in its object */
    char program[32];
};

static struct control *control;

/* ---- whose call is it ---- */

struct search {
    uintptr_t address, offset;
    bool ours;
};

static int search_object(struct dl_phdr_info *info, size_t size, void *opaque)
{
    (void)size;
    struct search *search = opaque;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *header = &info->dlpi_phdr[i];
        uintptr_t begin = info->dlpi_addr + header->p_vaddr;
        if (header->p_type != PT_LOAD || search->address < begin ||
            search->address >= begin + header->p_memsz)
            continue;
        search->offset = search->address - info->dlpi_addr;
        search->ours = !info->dlpi_name || !info->dlpi_name[0] ||
                       strstr(info->dlpi_name, "/models/") != NULL;
        return 1;
    }
    return 0;
}

static bool fails(uint32_t kind, const void *caller)
{
    if (!control || !atomic_load(&control->armed) || !(atomic_load(&control->kinds) & kind) ||
        strcmp(control->program, program_invocation_short_name) != 0)
        return false;
    struct search search = {.address = (uintptr_t)caller};
    dl_iterate_phdr(search_object, &search);
    if (atomic_load(&control->own) && !search.ours)
        return false;
    if (atomic_fetch_sub(&control->countdown, 1) > 0 || atomic_fetch_sub(&control->left, 1) <= 0)
        return false;
    atomic_store(&control->caller, search.offset);
    atomic_fetch_add(&control->failed, 1);
    errno = kind == KIND_MEMORY ? ENOMEM : atomic_load(&control->error);
    return true;
}

__attribute__((constructor)) static void control_open(void)
{
    const char *path = getenv("UNETSERVE_FAILING_CALLS");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *mapped = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (mapped != MAP_FAILED)
        control = mapped;
}

/* ---- memory: glibc's own under the names that it gives away ---- */

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);
void *__libc_memalign(size_t align, size_t size);

#define CALLER __builtin_return_address(0)

EXPORT void *malloc(size_t size)
{
    return fails(KIND_MEMORY, CALLER) ? NULL : __libc_malloc(size);
}

EXPORT void *calloc(size_t count, size_t size)
{
    return fails(KIND_MEMORY, CALLER) ? NULL : __libc_calloc(count, size);
}

EXPORT void *realloc(void *old, size_t size)
{
    return fails(KIND_MEMORY, CALLER) ? NULL : __libc_realloc(old, size);
}

EXPORT void *reallocarray(void *old, size_t count, size_t size)
{
    size_t bytes;
    if (fails(KIND_MEMORY, CALLER) || __builtin_mul_overflow(count, size, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    return __libc_realloc(old, bytes);
}

EXPORT void *aligned_alloc(size_t align, size_t size)
{
    return fails(KIND_MEMORY, CALLER) ? NULL : __libc_memalign(align, size);
}

EXPORT int posix_memalign(void **out, size_t align, size_t size)
{
    void *made = fails(KIND_MEMORY, CALLER) ? NULL : __libc_memalign(align, size);
    if (!made)
        return ENOMEM;
    *out = made;
    return 0;
}

/* strdup would be seen as a call from the C library. */
EXPORT char *strndup(const char *text, size_t size)
{
    size_t length = strnlen(text, size);
    char *copy = fails(KIND_MEMORY, CALLER) ? NULL : __libc_malloc(length + 1);
    if (!copy)
        return NULL;
    memcpy(copy, text, length);
    copy[length] = '\0';
    return copy;
}

EXPORT char *strdup(const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = fails(KIND_MEMORY, CALLER) ? NULL : __libc_malloc(size);
    return copy ? memcpy(copy, text, size) : NULL;
}

/* ---- the others ---- */

#define CALL(type, name, kind, failure, parameters, arguments)                                     \
    EXPORT type name parameters                                                                    \
    {                                                                                              \
        static _Atomic uintptr_t real;                                                             \
        if (!real)                                                                                 \
            real = (uintptr_t)dlsym(RTLD_NEXT, #name);                                             \
        return fails(kind, CALLER) ? failure : ((__typeof__(&name))(uintptr_t)real)arguments;      \
    }

CALL(FILE *, open_memstream, KIND_MEMORY, NULL, (char **text, size_t *size), (text, size))
CALL(FILE *, fmemopen, KIND_MEMORY, NULL, (void *text, size_t size, const char *mode),
     (text, size, mode))
CALL(void *, mmap, KIND_MEMORY, MAP_FAILED,
     (void *at, size_t size, int protection, int flags, int fd, off_t offset),
     (at, size, protection, flags, fd, offset))
CALL(int, accept4, KIND_DESCRIPTOR, -1,
     (int fd, struct sockaddr *address, socklen_t *size, int flags), (fd, address, size, flags))
CALL(int, socket, KIND_DESCRIPTOR, -1, (int domain, int type, int protocol),
     (domain, type, protocol))
CALL(int, socketpair, KIND_DESCRIPTOR, -1, (int domain, int type, int protocol, int fds[2]),
     (domain, type, protocol, fds))
CALL(int, eventfd, KIND_DESCRIPTOR, -1, (unsigned value, int flags), (value, flags))
CALL(int, epoll_create1, KIND_DESCRIPTOR, -1, (int flags), (flags))
CALL(int, pipe2, KIND_DESCRIPTOR, -1, (int fds[2], int flags), (fds, flags))
CALL(int, memfd_create, KIND_DESCRIPTOR, -1, (const char *name, unsigned flags), (name, flags))
CALL(FILE *, fopen, KIND_DESCRIPTOR, NULL, (const char *path, const char *mode), (path, mode))
EXPORT int open(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    unsigned mode = flags & O_CREAT ? va_arg(arguments, unsigned) : 0;
    va_end(arguments);
    return fails(KIND_DESCRIPTOR, CALLER) ? -1 : openat(AT_FDCWD, path, flags, mode);
}

CALL(int, dup, KIND_DESCRIPTOR, -1, (int fd), (fd))
