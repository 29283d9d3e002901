/*
 * unetctl watch: tiles that come into a directory become masks in another. The main thread learns
 * from inotify which files are whole and puts their names on a short list; others take them off it,
 * each with a connection of its own. What the list has no room for waits in the kernel, and where
 * that gives up the directory is read again: so nothing grows and nothing is missed.
 */
#include "command.h"
#include "masks.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#define WATCH_LIST_MAX 256

static const char help_text[] =
    "usage: unetctl watch DIR -o OUT [--url URL | --endpoint ADDRESS] [OPTION]...\n"
    "\n"
    "Sends every .npy and .tif that is in a directory, and that comes into it from then on, to\n"
    "unetserve and writes their masks. A file is taken when it is closed or renamed into place.\n"
    "Ends with SIGTERM or SIGINT, after what is in flight.\n"
    "\n"
    "  -o, --output OUT    directory of the masks\n" MASKS_HELP
    "      --count N       end after N files\n"
    "      --json          a line of JSON for each file\n"
    "\n"
    "UNETSERVE_API_KEY in the environment is sent with requests over HTTP.\n";

enum { OPTION_COUNT = MASKS_OWN };

static const struct option long_options[] = {
    MASKS_LONG_OPTIONS,
    {"json", no_argument, NULL, MASKS_JSON},
    {"count", required_argument, NULL, OPTION_COUNT},
    {NULL, 0, NULL, 0},
};

struct watch_entry {
    char name[NAME_MAX + 1];
};

struct watch {
    struct masks_options masks;
    const char *input;
    int64_t count;                     /* 0: no end */
    struct unetserve_interface legend; /* read-only once threads run */
    unsigned jobs;
    int inotify;

    pthread_mutex_t lock; /* guards what follows, and the output */
    pthread_cond_t moved; /* the list, or what is running, changed */
    struct watch_entry list[WATCH_LIST_MAX];
    unsigned waiting;
    char running[MASKS_JOBS_MAX][NAME_MAX + 1]; /* by thread; "": none */
    unsigned in_flight;
    bool closing; /* nothing more comes */
    int64_t done, failed;
};

struct watch_thread {
    pthread_t thread;
    struct watch *watch;
    char *running;
};

/* ---- options ---- */

static int take_options(struct watch *watch, int argc, char **argv)
{
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, ":o:h", long_options, NULL)) != -1) {
        int code = -1;
        if (option != OPTION_COUNT)
            code = masks_take_option(&watch->masks, help_text, option);
        else if (!command_parse_number(optarg, 1, INT64_MAX, &watch->count))
            code = command_fail(EX_USAGE, "--count is '%s', expected 1 or more", optarg);
        if (code >= 0)
            return code;
    }
    if (argc - optind != 1)
        return command_fail(EX_USAGE, "watch takes one directory, %d were given", argc - optind);
    watch->input = argv[optind];
    if (!watch->masks.output)
        return command_fail(EX_USAGE, "watch needs -o OUT, a directory for the masks");
    return masks_check_options(&watch->masks);
}

/* ---- the list ---- */

static bool watch_has_enough(const struct watch *watch)
{
    return atomic_load(&masks_stop) ||
           (watch->count && watch->done + watch->failed >= watch->count);
}

/* A signal wakes nobody who waits for the condition, so that waits are short. */
static void watch_wait(struct watch *watch)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 200000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_cond_timedwait(&watch->moved, &watch->lock, &until);
}

/* Waits while the list is full; a name that waits already does not wait twice. */
static void watch_put(struct watch *watch, const char *name)
{
    size_t length = strlen(name);
    if (name[0] == '.' || length > NAME_MAX || !masks_is_tile(name))
        return;
    pthread_mutex_lock(&watch->lock);
    unsigned at = 0;
    while (at < watch->waiting && strcmp(watch->list[at].name, name) != 0)
        at++;
    while (at == watch->waiting && watch->waiting == WATCH_LIST_MAX && !watch_has_enough(watch)) {
        watch_wait(watch);
        at = watch->waiting;
    }
    if (at < WATCH_LIST_MAX) {
        memcpy(watch->list[at].name, name, length + 1);
        watch->waiting += at == watch->waiting;
        pthread_cond_broadcast(&watch->moved);
    }
    pthread_mutex_unlock(&watch->lock);
}

static bool watch_is_running(const struct watch *watch, const char *name)
{
    for (unsigned i = 0; i < watch->jobs; i++)
        if (strcmp(watch->running[i], name) == 0)
            return true;
    return false;
}

/* Where the first is that may be run now, or waiting: none. A file that was written again waits for
 * its last run. */
static unsigned watch_find(const struct watch *watch)
{
    unsigned at = 0;
    if (watch->count && watch->done + watch->failed + watch->in_flight >= watch->count)
        return watch->waiting;
    while (at < watch->waiting && watch_is_running(watch, watch->list[at].name))
        at++;
    return at;
}

/* False: it is over. The lock is held. */
static bool watch_take(struct watch *watch, char *running, struct watch_entry *out)
{
    unsigned at;
    while (!watch_has_enough(watch)) {
        if ((at = watch_find(watch)) < watch->waiting) {
            *out = watch->list[at];
            memmove(&watch->list[at], &watch->list[at + 1],
                    (watch->waiting - at - 1) * sizeof *watch->list);
            watch->waiting--;
            watch->in_flight++;
            memcpy(running, out->name, sizeof out->name);
            pthread_cond_broadcast(&watch->moved);
            return true;
        }
        if (watch->closing && !watch->waiting)
            return false;
        watch_wait(watch);
    }
    return false;
}

/* ---- one file ---- */

/* Does somebody write to it? The kernel grants a read lease only where nobody does. Then its end
 * is yet to be told. Where there are no leases (some network file systems) it counts as whole. */
static bool file_is_being_written(const char *path)
{
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool busy = fcntl(fd, F_SETLEASE, F_RDLCK) != 0 && errno == EAGAIN;
    close(fd);
    return busy;
}

struct watch_task {
    const struct watch *watch;
    struct masks_one one;
};

static int watch_mask(struct server *server, void *context, char *error, size_t error_size)
{
    const struct watch_task *task = context;
    unsigned requests;
    return masks_run(&task->watch->masks, &task->watch->legend, server, &task->one, &requests,
                     error, error_size);
}

/* As masks_run. 1, too, for what is gone, is no file, or is not whole yet. */
static int watch_run(const struct watch *watch, struct server **server,
                     const struct watch_entry *entry, char *error, size_t error_size)
{
    char input[MASKS_PATH_MAX];
    struct watch_task task = {watch, {.input = input, .name = entry->name, .watched = true}};
    struct stat status;
    bool lost;
    if (snprintf(input, sizeof input, "%s/%s", watch->input, entry->name) >= (int)sizeof input) {
        snprintf(error, error_size, "its path is too long");
        return -ENAMETOOLONG;
    }
    if (stat(input, &status) != 0 || !S_ISREG(status.st_mode) || file_is_being_written(input))
        return 1;
    return server_endure(&watch->masks.server, server, watch_mask, &task, &lost, error, error_size);
}

static void watch_tell(const struct watch *watch, const char *name, int rc, const char *error)
{
    if (watch->masks.json) {
        masks_tell_json(name, rc, error);
    } else if (rc < 0) {
        fprintf(stderr, "unetctl: %s: %s\n", name, error);
    } else {
        printf("%s\n", name);
        fflush(stdout);
    }
}

static void *watch_thread(void *argument)
{
    const struct watch_thread *self = argument;
    struct watch *watch = self->watch;
    struct server *server = NULL;
    struct watch_entry entry;
    char error[COMMAND_ERROR_MAX];
    pthread_mutex_lock(&watch->lock);
    while (watch_take(watch, self->running, &entry)) {
        pthread_mutex_unlock(&watch->lock);
        int rc = watch_run(watch, &server, &entry, error, sizeof error);
        pthread_mutex_lock(&watch->lock);
        *self->running = 0;
        watch->in_flight--;
        watch->done += rc == 0;
        watch->failed += rc < 0;
        if (rc <= 0)
            watch_tell(watch, entry.name, rc, error);
        pthread_cond_broadcast(&watch->moved);
    }
    pthread_mutex_unlock(&watch->lock);
    server_close(server);
    return NULL;
}

/* ---- what comes in ---- */

/* Everything that is there. -1 or the exit code. */
static int watch_list(struct watch *watch)
{
    DIR *directory = opendir(watch->input);
    if (!directory)
        return command_fail(EX_NOINPUT, "cannot list '%s': %s", watch->input, strerror(errno));
    const struct dirent *entry;
    while (!atomic_load(&masks_stop) && (entry = readdir(directory)))
        watch_put(watch, entry->d_name);
    closedir(directory);
    return -1;
}

/* What inotify has to tell. -1 or the exit code. */
static int watch_hear(struct watch *watch)
{
    _Alignas(struct inotify_event) char told[16384];
    ssize_t bytes = read(watch->inotify, told, sizeof told);
    bool missed = false;
    for (char *at = told; bytes > 0 && at < told + bytes;) {
        const struct inotify_event *event = (const struct inotify_event *)(void *)at;
        at += sizeof *event + event->len;
        if (event->mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_IGNORED | IN_UNMOUNT))
            return command_fail(EX_NOINPUT, "'%s' went away", watch->input);
        if (event->mask & IN_Q_OVERFLOW)
            missed = true;
        else if (event->len && !(event->mask & IN_ISDIR))
            watch_put(watch, event->name);
    }
    return missed ? watch_list(watch) : -1;
}

/* -1 or the exit code. */
static int watch_open(struct watch *watch)
{
    int code = masks_open_output(watch->masks.output, watch->input);
    if (code >= 0)
        return code;
    watch->inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (watch->inotify < 0)
        return command_fail(EX_OSERR, "cannot watch: %s", strerror(errno));
    if (inotify_add_watch(watch->inotify, watch->input,
                          IN_CLOSE_WRITE | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF |
                              IN_ONLYDIR) < 0)
        return command_fail(errno == ENOSPC ? EX_OSERR : EX_NOINPUT, "cannot watch '%s': %s",
                            watch->input, strerror(errno));
    return masks_meet_server(&watch->masks, &watch->legend, &watch->jobs);
}

/* Until somebody says stop. -1 or the exit code. */
static int watch_listen(struct watch *watch, const sigset_t *stop, const sigset_t *unblocked)
{
    const struct timespec look_again = {0, 200000000}; /* whether --count is reached */
    int code = watch_list(watch);
    for (bool enough = false; code < 0 && !enough;) {
        struct pollfd poll = {watch->inotify, POLLIN, 0};
        int ready = 0;
        /* No signal between the look and the wait. */
        pthread_sigmask(SIG_BLOCK, stop, NULL);
        pthread_mutex_lock(&watch->lock);
        enough = watch_has_enough(watch);
        pthread_mutex_unlock(&watch->lock);
        if (!enough)
            ready = ppoll(&poll, 1, watch->count ? &look_again : NULL, unblocked);
        pthread_sigmask(SIG_SETMASK, unblocked, NULL);
        if (ready > 0)
            code = watch_hear(watch);
    }
    return code;
}

static int watch_work(struct watch *watch)
{
    struct watch_thread threads[MASKS_JOBS_MAX];
    unsigned started = 0;
    sigset_t stop, unblocked;
    sigemptyset(&stop);
    sigaddset(&stop, SIGINT);
    sigaddset(&stop, SIGTERM);
    masks_catch_signals();
    /* Only the main thread sees them. */
    pthread_sigmask(SIG_BLOCK, &stop, &unblocked);
    while (started < watch->jobs) {
        struct watch_thread *one = &threads[started];
        *one = (struct watch_thread){.watch = watch, .running = watch->running[started]};
        if (pthread_create(&one->thread, NULL, watch_thread, one) != 0)
            break;
        started++;
    }
    pthread_sigmask(SIG_SETMASK, &unblocked, NULL);
    int code = started ? watch_listen(watch, &stop, &unblocked)
                       : command_fail(EX_OSERR, "cannot start a thread");
    pthread_mutex_lock(&watch->lock);
    watch->closing = true;
    pthread_cond_broadcast(&watch->moved);
    pthread_mutex_unlock(&watch->lock);
    while (started > 0)
        pthread_join(threads[--started].thread, NULL);
    return code;
}

int command_watch(int argc, char **argv)
{
    static struct watch watch = {
        .lock = PTHREAD_MUTEX_INITIALIZER, .moved = PTHREAD_COND_INITIALIZER, .inotify = -1};
    watch.masks = masks_defaults();
    int code = take_options(&watch, argc, argv);
    if (code >= 0)
        return code;
    /* A lease that somebody wants to break says so by this signal, whose default ends programs. */
    signal(SIGIO, SIG_IGN);
    code = watch_open(&watch);
    if (code < 0)
        code = watch_work(&watch);
    if (watch.inotify >= 0)
        close(watch.inotify);
    if (code >= 0)
        return code;
    if (!watch.masks.json)
        fprintf(stderr, "unetctl: %" PRId64 " done, %" PRId64 " failed\n", watch.done,
                watch.failed);
    return EX_OK;
}
