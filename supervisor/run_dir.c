#include "supervisor/run_dir.h"

#include "unetserve/layout.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOCK_NAME "lock"

/* Make it, or take one that is there if only this user can write to it. */
static int directory_take(const char *path, bool *made)
{
    struct stat status;
    *made = mkdir(path, 0700) == 0;
    if (!*made && errno != EEXIST)
        return -errno;
    if (lstat(path, &status))
        return -errno;
    if (!S_ISDIR(status.st_mode))
        return -ENOTDIR;
    return status.st_uid != geteuid() || (status.st_mode & 0022) ? -EPERM : 0;
}

/* The lock is gone with the process that holds it, however that ends. -EBUSY: another holds it. */
static int directory_lock(const char *path, int *out)
{
    char lock[128];
    snprintf(lock, sizeof lock, "%s/" LOCK_NAME, path);
    for (int attempt = 0; attempt < 3; attempt++) {
        struct stat held;
        struct stat named;
        int fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
            return -errno;
        if (flock(fd, LOCK_EX | LOCK_NB)) {
            int error = errno == EWOULDBLOCK ? -EBUSY : -errno;
            close(fd);
            return error;
        }
        /* Its last holder may have removed the file between our open and our lock. */
        if (fstat(fd, &held) == 0 && lstat(lock, &named) == 0 && held.st_ino == named.st_ino) {
            *out = fd;
            return 0;
        }
        close(fd);
    }
    return -EBUSY;
}

static int instance_take(struct run_dir *run_dir)
{
    int error = directory_take(run_dir->path, &run_dir->made);
    if (!error)
        error = directory_lock(run_dir->path, &run_dir->lock_fd);
    /* What another instance left behind, or its life, is not ours to remove; that which was made
     * here is empty. */
    if (error && run_dir->made)
        rmdir(run_dir->path);
    if (error)
        run_dir->made = false;
    return error;
}

static int place(struct run_dir *run_dir, const char *name)
{
    int length = snprintf(run_dir->path, sizeof run_dir->path, "%.60s/%.40s", run_dir->root, name);
    if (length < 0 || (size_t)length >= sizeof run_dir->path)
        return -ENAMETOOLONG;
    int error = instance_take(run_dir);
    /* A directory that an instance left when it was killed is taken over, and goes at the end. */
    if (!error)
        run_dir->made = true;
    return error;
}

static int private_take(const char *name, struct run_dir *run_dir)
{
    bool made;
    char second[48];
    int error = layout_run_root(run_dir->root, sizeof run_dir->root);
    if (error || strlen(run_dir->root) > 60)
        return -ENAMETOOLONG;
    error = directory_take(run_dir->root, &made);
    if (error) {
        snprintf(run_dir->path, sizeof run_dir->path, "%s", run_dir->root);
        return error;
    }
    error = place(run_dir, name);
    if (error == -EBUSY) {
        /* The same port on another address. */
        snprintf(second, sizeof second, "%.20s-%d", name, (int)getpid());
        error = place(run_dir, second);
    }
    if (error && made)
        rmdir(run_dir->root); /* fails while another instance lives in it, as it should */
    return error;
}

int run_dir_open(const char *wanted, const char *name, struct run_dir *out, char *error,
                 size_t error_size)
{
    struct run_dir run_dir = {.lock_fd = -1};
    int failed;
    if (wanted[0]) {
        snprintf(run_dir.path, sizeof run_dir.path, "%s", wanted);
        failed = instance_take(&run_dir);
    } else {
        failed = private_take(name, &run_dir);
    }
    if (!failed) {
        *out = run_dir;
        return 0;
    }
    const char *why = failed == -EBUSY          ? "another unetserve lives there"
                      : failed == -EPERM        ? "somebody else could write there"
                      : failed == -ENAMETOOLONG ? "the path is too long for sockets; allowed: 60 "
                                                  "bytes, see run_dir"
                                                : strerror(-failed);
    snprintf(error, error_size, "cannot use the run directory %s: %s", run_dir.path, why);
    return failed;
}

static bool is_packed(const char *name, mode_t mode)
{
    return S_ISREG(mode) && strncmp(name, LAYOUT_PACKED_PREFIX, strlen(LAYOUT_PACKED_PREFIX)) == 0;
}

/* Sockets, packed weights and the lock are removed; anything else in it is somebody's and stays. */
static void directory_empty(const char *path)
{
    DIR *directory = opendir(path);
    struct dirent *entry;
    while (directory && (entry = readdir(directory))) {
        struct stat status;
        if (fstatat(dirfd(directory), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
            (S_ISSOCK(status.st_mode) || is_packed(entry->d_name, status.st_mode) ||
             strcmp(entry->d_name, LOCK_NAME) == 0))
            unlinkat(dirfd(directory), entry->d_name, 0);
    }
    if (directory)
        closedir(directory);
}

void run_dir_remove(struct run_dir *run_dir)
{
    if (run_dir->lock_fd < 0)
        return;
    directory_empty(run_dir->path);
    if (run_dir->made)
        rmdir(run_dir->path);
    if (run_dir->root[0])
        rmdir(run_dir->root); /* fails while other instances live in it, as it should */
    close(run_dir->lock_fd);
    run_dir->lock_fd = -1;
}
