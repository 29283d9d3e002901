/*
 * A model that tries what it must not, for tests of the sandbox. It answers a document
 *
 *     "scratch"       with the report below, after having tried to write its input area
 *     anything else   with {"setup": {ATTEMPT: ERRNO, ...}, "serve": {ATTEMPT: ERRNO, ...}}
 *
 * where ERRNO is 0 for what succeeded. Nothing here does harm where a wall is missing: no signal is
 * sent, no program is there to be run.
 */
#include "unetserve/model.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define INPUTS_FD 8 /* SEAT_FD_INPUTS */

static char at_setup[1024];

static int outcome(long result)
{
    return result < 0 ? errno : 0;
}

static int try_exec(void)
{
    char *const none[] = {NULL};
    return outcome(execve("/nowhere/at/all", none, none));
}

static int try_fork(void)
{
    pid_t child = fork();
    if (child == 0)
        _exit(0);
    if (child > 0)
        waitpid(child, NULL, 0);
    return outcome(child);
}

static int try_open(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC, 0600);
    int result = outcome(fd);
    if (fd >= 0)
        close(fd);
    return result;
}

/* The file that a test names, which is no business of a model. */
static int try_secret(void)
{
    const char *path = getenv("INTRUDER_SECRET");
    return try_open(path ? path : "/etc/hostname", O_RDONLY);
}

/* What any library may want to read. */
static int try_system(void)
{
    return try_open("/usr/lib/os-release", O_RDONLY);
}

static int try_make(void)
{
    const char *path = getenv("INTRUDER_MAKE");
    return path ? try_open(path, O_WRONLY | O_CREAT) : 0;
}

static int try_socket(int family, int type)
{
    int fd = socket(family, type, 0);
    int result = outcome(fd);
    if (fd >= 0)
        close(fd);
    return result;
}

static int try_inet(void)
{
    return try_socket(AF_INET, SOCK_STREAM);
}

static int try_unix(void)
{
    return try_socket(AF_UNIX, SOCK_STREAM);
}

static int try_kill(void)
{
    return outcome(kill(getppid(), 0));
}

static int try_ptrace(void)
{
    return outcome(ptrace(PTRACE_SEIZE, 0, NULL, NULL)); /* nobody: ESRCH */
}

static int try_foreign_memory(void)
{
    char byte = 0;
    struct iovec here = {&byte, 1};
    struct iovec there = {NULL, 1}; /* nowhere: EFAULT */
    return outcome(process_vm_writev(getppid(), &here, 1, &there, 1, 0));
}

static int try_namespace(void)
{
    return outcome(unshare(CLONE_NEWUSER));
}

static int try_environ_of_parent(void)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/environ", (int)getppid());
    return try_open(path, O_RDONLY);
}

static int try_map_inputs(void)
{
    void *base = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, INPUTS_FD, 0);
    return base == MAP_FAILED ? errno : 0;
}

static int try_protect_inputs(void)
{
    void *base = mmap(NULL, 4096, PROT_READ, MAP_SHARED, INPUTS_FD, 0);
    return base == MAP_FAILED ? ENODEV : outcome(mprotect(base, 4096, PROT_READ | PROT_WRITE));
}

static int try_write_inputs(void)
{
    return outcome(pwrite(INPUTS_FD, "", 1, 0));
}

static int try_chmod_inputs(void)
{
    return outcome(fchmod(INPUTS_FD, 0700));
}

static int try_reopen_inputs(void)
{
    return try_open("/proc/self/fd/8", O_RDWR);
}

static void *nothing(void *opaque)
{
    return opaque;
}

/* What a model may do. */
static int try_thread(void)
{
    pthread_t thread;
    int error = pthread_create(&thread, NULL, nothing, NULL);
    if (!error)
        pthread_join(thread, NULL);
    return error;
}

static void try_all(char *report, size_t size)
{
    static const struct {
        const char *name;
        int (*attempt)(void);
    } attempts[] = {
        {"exec", try_exec},
        {"fork", try_fork},
        {"secret", try_secret},
        {"system", try_system},
        {"make", try_make},
        {"inet", try_inet},
        {"unix", try_unix},
        {"kill", try_kill},
        {"ptrace", try_ptrace},
        {"foreign_memory", try_foreign_memory},
        {"namespace", try_namespace},
        {"parent_environ", try_environ_of_parent},
        {"map_inputs", try_map_inputs},
        {"protect_inputs", try_protect_inputs},
        {"write_inputs", try_write_inputs},
        {"chmod_inputs", try_chmod_inputs},
        {"reopen_inputs", try_reopen_inputs},
        {"thread", try_thread},
    };
    size_t at = 0;
    for (size_t i = 0; i < sizeof attempts / sizeof attempts[0] && at < size; i++)
        at += (size_t)snprintf(report + at, size - at, "%s\"%s\": %d", i ? ", " : "",
                               attempts[i].name, attempts[i].attempt());
}

static int describe(const struct unetserve_setup *setup, struct unetserve_interface *interface,
                    char *error, size_t error_size)
{
    (void)setup, (void)error, (void)error_size;
    memset(interface, 0, sizeof *interface);
    snprintf(interface->name, sizeof interface->name, "intruder");
    snprintf(interface->version, sizeof interface->version, "1");
    interface->input_kind = UNETSERVE_DOCUMENT;
    interface->output_kind = UNETSERVE_DOCUMENT;
    interface->size_multiple = 1;
    interface->max_batch = 1;
    return 0;
}

static int setup(const struct unetserve_setup *options, void **model,
                 struct unetserve_interface *interface, char *error, size_t error_size)
{
    *model = at_setup;
    try_all(at_setup, sizeof at_setup);
    return describe(options, interface, error, error_size);
}

static int predict(void *model, struct unetserve_item *const *items, size_t count)
{
    (void)model;
    char at_serve[1024];
    for (size_t i = 0; i < count; i++) {
        struct unetserve_item *item = items[i];
        if (item->input_bytes >= 9 && memcmp(item->input, "\"scratch\"", 9) == 0)
            *(volatile char *)(uintptr_t)item->input = '!';
        try_all(at_serve, sizeof at_serve);
        int length = snprintf(item->output, item->output_capacity,
                              "{\"setup\": {%s}, \"serve\": {%s}}", at_setup, at_serve);
        item->output_bytes = (size_t)length;
    }
    return 0;
}

static void teardown(void *model)
{
    (void)model;
}

const struct unetserve_model_ops *unetserve_model(void)
{
    static const struct unetserve_model_ops ops = {
        .abi = UNETSERVE_MODEL_ABI,
        .size = sizeof ops,
        .name = "intruder",
        .describe = describe,
        .setup = setup,
        .predict = predict,
        .teardown = teardown,
    };
    return &ops;
}
