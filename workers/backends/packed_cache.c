#include "packed_cache.h"

#include "clock.h"
#include "unetserve/layout.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#define DRAFT_SUFFIX  ".new"
#define NAME_BYTES    64
#define POLL_NS       5000000
#define POLLS_A_TICK  10
#define MAX_FILES     1024
#define RENAME_TRIES  16
#define SECONDS_A_DAY 86400

static void file_name(const struct packed_hash *key, const char *suffix, char *out)
{
    snprintf(out, NAME_BYTES, LAYOUT_PACKED_PREFIX "%016" PRIx64 "%016" PRIx64 "%s", key->high,
             key->low, suffix);
}

static int complain(int error, const char *what, const char *name, char *note, size_t size)
{
    snprintf(note, size, "%s: %s (%s)", name, what, strerror(-error));
    return error;
}

/* ---- the directory ---- */

/* Open it, made if need be, if nobody but this user can write to it. */
static int directory_open(const char *path, int *out, char *note, size_t note_size)
{
    struct stat status;
    (void)mkdir(path, 0700);
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return complain(-errno, "not usable as cache_dir", path, note, note_size);
    }
    int error = fstat(fd, &status) != 0 ? -errno : 0;
    if (error == 0 && (status.st_uid != geteuid() || (status.st_mode & 0022) != 0)) {
        error = -EPERM;
    }
    if (error != 0) {
        close(fd);
        return complain(error, "not used as cache_dir, somebody else could write there", path, note,
                        note_size);
    }
    *out = fd;
    return 0;
}

/* ---- mapping ---- */

/* A regular file of this user's that nobody else can open. */
static bool is_ours(const struct stat *status)
{
    return S_ISREG(status->st_mode) && status->st_uid == geteuid() &&
           (status->st_mode & 0077) == 0 && status->st_nlink == 1;
}

static int map_file(int fd, const struct packed_hash *key, struct packed_map *out, const char **why)
{
    struct stat status;
    if (fstat(fd, &status) != 0) {
        return -errno;
    }
    if (!is_ours(&status)) {
        *why = "not this user's alone";
        return -EPERM;
    }
    if (status.st_size <= 0 || (uintmax_t)status.st_size > SIZE_MAX) {
        *why = "empty";
        return -EBADMSG;
    }
    size_t bytes = (size_t)status.st_size;
    void *data = mmap(NULL, bytes, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (data == MAP_FAILED) {
        return -errno;
    }
    int error = packed_file_read(data, bytes, key, &out->view, why);
    if (error != 0) {
        munmap(data, bytes);
    }
    return error;
}

int packed_cache_map(const char *directory, const struct packed_hash *key, struct packed_map *out,
                     char *note, size_t note_size)
{
    char name[NAME_BYTES];
    const char *why = "cannot be read";
    int at = -1;
    int error = directory_open(directory, &at, note, note_size);
    if (error != 0) {
        return error;
    }
    file_name(key, "", name);
    int fd = openat(at, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    error = fd < 0 ? -errno : map_file(fd, key, out, &why);
    if (error == 0) {
        (void)futimens(fd, NULL); /* "used now"; a read-only disk does without */
    } else if (error != -ENOENT) {
        complain(error, why, name, note, note_size);
    }
    if (fd >= 0) {
        close(fd);
    }
    close(at);
    return error;
}

void packed_cache_unmap(struct packed_map *map)
{
    if (map->view.data != NULL) {
        munmap((void *)(uintptr_t)map->view.data, map->view.bytes);
    }
    *map = (struct packed_map){0};
}

/* ---- the right to write ---- */

/* Does that name still stand for the file that is open? */
static bool is_named(int directory, const char *name, int fd)
{
    struct stat named;
    struct stat held;
    return fstat(fd, &held) == 0 && fstatat(directory, name, &named, AT_SYMLINK_NOFOLLOW) == 0 &&
           named.st_ino == held.st_ino && named.st_dev == held.st_dev;
}

struct waiting {
    uint64_t end_ns;
    void (*tick)(void *opaque);
    void *opaque;
};

static int lock_file(int fd, const struct waiting *waiting)
{
    for (unsigned round = 0; flock(fd, LOCK_EX | LOCK_NB) != 0; round++) {
        if (errno != EWOULDBLOCK && errno != EINTR) {
            return -errno;
        }
        if (clock_now_ns() >= waiting->end_ns) {
            return -ETIMEDOUT;
        }
        if (waiting->tick != NULL && round % POLLS_A_TICK == 0) {
            waiting->tick(waiting->opaque);
        }
        nanosleep(&(struct timespec){.tv_nsec = POLL_NS}, NULL);
    }
    return 0;
}

/* Whoever had the lock before has renamed the file, removed it, or died over it. 0: it is ours to
 * write; -EAGAIN: removed, there may be another of that name. */
static int take_draft(const struct packed_draft *draft, const char *name,
                      const struct waiting *waiting)
{
    char final[NAME_BYTES];
    struct stat status;
    int error = lock_file(draft->fd, waiting);
    if (error != 0) {
        return error;
    }
    file_name(&draft->key, "", final);
    if (is_named(draft->directory, final, draft->fd)) {
        return -EEXIST;
    }
    if (!is_named(draft->directory, name, draft->fd)) {
        return -EAGAIN;
    }
    if (fstat(draft->fd, &status) != 0 || !is_ours(&status)) {
        return -EPERM;
    }
    return ftruncate(draft->fd, 0) != 0 ? -errno : 0;
}

static int open_draft(struct packed_draft *draft, const struct waiting *waiting)
{
    char name[NAME_BYTES];
    file_name(&draft->key, DRAFT_SUFFIX, name);
    int error = -EAGAIN;
    for (int i = 0; i < RENAME_TRIES && error == -EAGAIN; i++) {
        draft->fd = openat(draft->directory, name,
                           O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
        if (draft->fd < 0) {
            return -errno;
        }
        error = take_draft(draft, name, waiting);
        if (error != 0) {
            close(draft->fd);
        }
    }
    return error;
}

int packed_cache_begin(const char *directory, const struct packed_hash *key, uint32_t wait_ms,
                       void (*tick)(void *), void *opaque, struct packed_draft *out, char *note,
                       size_t note_size)
{
    struct packed_draft draft = {.directory = -1, .fd = -1, .key = *key};
    int error = directory_open(directory, &draft.directory, note, note_size);
    if (error != 0) {
        return error;
    }
    struct waiting waiting = {clock_now_ns() + wait_ms * UINT64_C(1000000), tick, opaque};
    error = open_draft(&draft, &waiting);
    if (error != 0) {
        close(draft.directory);
        return error == -EEXIST ? error
                                : complain(error, "packed weights are not kept there", directory,
                                           note, note_size);
    }
    *out = draft;
    return 0;
}

static void end_draft(struct packed_draft *draft)
{
    close(draft->fd); /* and with it the lock goes */
    close(draft->directory);
    *draft = (struct packed_draft){.directory = -1, .fd = -1};
}

void packed_cache_abandon(struct packed_draft *draft)
{
    char name[NAME_BYTES];
    file_name(&draft->key, DRAFT_SUFFIX, name);
    (void)unlinkat(draft->directory, name, 0);
    end_draft(draft);
}

/* ---- writing ---- */

static int write_at(int fd, const void *data, size_t bytes, uint64_t offset)
{
    const uint8_t *at = (const uint8_t *)data;
    while (bytes > 0) {
        ssize_t written = pwrite(fd, at, bytes, (off_t)offset);
        if (written < 0 && errno != EINTR) {
            return -errno;
        }
        if (written == 0) {
            return -EIO;
        }
        if (written > 0) {
            at += written;
            bytes -= (size_t)written;
            offset += (uint64_t)written;
        }
    }
    return 0;
}

static int write_file(int fd, const struct packed_hash *key, struct packed_section *sections,
                      const void *const *pieces, size_t count)
{
    void *head = NULL;
    size_t head_bytes = 0;
    uint64_t file_bytes = 0;
    int error = packed_file_head(key, sections, pieces, count, &head, &head_bytes, &file_bytes);
    if (error == 0) {
        error = write_at(fd, head, head_bytes, 0);
        free(head);
    }
    for (size_t i = 0; i < count && error == 0; i++) {
        error = write_at(fd, pieces[i], (size_t)sections[i].bytes, sections[i].offset);
    }
    return error;
}

/* ---- what is old ---- */

struct entry {
    char name[NAME_BYTES];
    uint64_t bytes;
    int64_t used; /* seconds */
};

/* Last used first. */
static int by_use(const void *a, const void *b)
{
    const struct entry *x = (const struct entry *)a;
    const struct entry *y = (const struct entry *)b;
    return (x->used < y->used) - (x->used > y->used);
}

static size_t list_entries(DIR *directory, struct entry *entries)
{
    size_t count = 0;
    for (const struct dirent *at = readdir(directory); at != NULL && count < MAX_FILES;
         at = readdir(directory)) {
        struct stat status;
        size_t length = strlen(at->d_name);
        if (length >= NAME_BYTES ||
            strncmp(at->d_name, LAYOUT_PACKED_PREFIX, strlen(LAYOUT_PACKED_PREFIX)) != 0 ||
            fstatat(dirfd(directory), at->d_name, &status, AT_SYMLINK_NOFOLLOW) != 0 ||
            !S_ISREG(status.st_mode)) {
            continue;
        }
        struct entry *entry = &entries[count++];
        memcpy(entry->name, at->d_name, length + 1);
        entry->bytes = (uint64_t)status.st_size;
        entry->used = status.st_mtim.tv_sec;
    }
    return count;
}

/* A draft is removed only if nobody writes it; a worker that waits for it will notice. */
static void remove_entry(int directory, const char *name)
{
    size_t length = strlen(name);
    size_t tail = strlen(DRAFT_SUFFIX);
    if (length < tail || strcmp(name + length - tail, DRAFT_SUFFIX) != 0) {
        (void)unlinkat(directory, name, 0);
        return;
    }
    int fd = openat(directory, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd >= 0) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0 && is_named(directory, name, fd)) {
            (void)unlinkat(directory, name, 0);
        }
        close(fd);
    }
}

/* A run directory in memory may be small, and must not be filled by reloads. */
static uint64_t most_bytes(int directory)
{
    struct statvfs status;
    uint64_t quarter = fstatvfs(directory, &status) == 0
                           ? (uint64_t)status.f_blocks * status.f_frsize / 4
                           : PACKED_CACHE_MAX_BYTES;
    return quarter < PACKED_CACHE_MAX_BYTES ? quarter : PACKED_CACHE_MAX_BYTES;
}

/* The entry that was used last stays, however large it is: it is the one just written. */
static void remove_old(int directory)
{
    int copy = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *listing = copy >= 0 ? fdopendir(copy) : NULL;
    struct entry *entries = (struct entry *)calloc(MAX_FILES, sizeof *entries);
    if (listing != NULL && entries != NULL) {
        size_t count = list_entries(listing, entries);
        qsort(entries, count, sizeof *entries, by_use);
        int64_t oldest = (int64_t)time(NULL) - (int64_t)PACKED_CACHE_DAYS * SECONDS_A_DAY;
        uint64_t most = most_bytes(directory);
        uint64_t total = 0;
        for (size_t i = 0; i < count; i++) {
            total += entries[i].bytes;
            if (i > 0 && (entries[i].used < oldest || total > most)) {
                remove_entry(directory, entries[i].name);
            }
        }
    }
    free(entries);
    if (listing != NULL) {
        closedir(listing);
    } else if (copy >= 0) {
        close(copy);
    }
}

int packed_cache_commit(struct packed_draft *draft, struct packed_section *sections,
                        const void *const *pieces, size_t count, char *note, size_t note_size)
{
    char name[NAME_BYTES];
    char final[NAME_BYTES];
    file_name(&draft->key, DRAFT_SUFFIX, name);
    file_name(&draft->key, "", final);
    int error = write_file(draft->fd, &draft->key, sections, pieces, count);
    if (error == 0 && renameat(draft->directory, name, draft->directory, final) != 0) {
        error = -errno;
    }
    if (error != 0) {
        complain(error, "cannot keep packed weights", final, note, note_size);
        packed_cache_abandon(draft);
        return error;
    }
    remove_old(draft->directory);
    end_draft(draft);
    return 0;
}
