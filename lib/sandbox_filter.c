#include "lib/sandbox_filter.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <seccomp.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

/* libseccomp 2.5 names them only where its headers are new enough. */
#define END (-1000000)

/* Memory, time, threads, and descriptors that are already open. */
static const int always[] = {
    SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(readv), SCMP_SYS(writev), SCMP_SYS(pread64),
    SCMP_SYS(preadv), SCMP_SYS(lseek), SCMP_SYS(close), SCMP_SYS(close_range), SCMP_SYS(dup),
    SCMP_SYS(dup2), SCMP_SYS(dup3), SCMP_SYS(fcntl), SCMP_SYS(fstat), SCMP_SYS(poll),
    SCMP_SYS(ppoll), SCMP_SYS(select), SCMP_SYS(pselect6), SCMP_SYS(epoll_create1),
    SCMP_SYS(epoll_ctl), SCMP_SYS(epoll_wait), SCMP_SYS(epoll_pwait), SCMP_SYS(epoll_pwait2),
    SCMP_SYS(eventfd2), SCMP_SYS(pipe2), SCMP_SYS(timerfd_create), SCMP_SYS(timerfd_settime),
    SCMP_SYS(timerfd_gettime), SCMP_SYS(signalfd4), SCMP_SYS(brk), SCMP_SYS(munmap),
    SCMP_SYS(mremap), SCMP_SYS(madvise), SCMP_SYS(mincore), SCMP_SYS(msync), SCMP_SYS(mlock),
    SCMP_SYS(munlock), SCMP_SYS(membarrier), SCMP_SYS(futex), SCMP_SYS(futex_waitv),
    SCMP_SYS(set_robust_list), SCMP_SYS(rseq), SCMP_SYS(set_tid_address), SCMP_SYS(sched_yield),
    SCMP_SYS(sched_getaffinity), SCMP_SYS(sched_getparam), SCMP_SYS(sched_getscheduler),
    SCMP_SYS(sched_get_priority_max), SCMP_SYS(sched_get_priority_min), SCMP_SYS(getcpu),
    SCMP_SYS(getpid), SCMP_SYS(gettid), SCMP_SYS(getppid), SCMP_SYS(getuid), SCMP_SYS(geteuid),
    SCMP_SYS(getgid), SCMP_SYS(getegid), SCMP_SYS(clock_gettime), SCMP_SYS(clock_getres),
    SCMP_SYS(clock_nanosleep), SCMP_SYS(nanosleep), SCMP_SYS(gettimeofday), SCMP_SYS(time),
    SCMP_SYS(times), SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigreturn),
    SCMP_SYS(rt_sigtimedwait), SCMP_SYS(rt_sigpending), SCMP_SYS(sigaltstack),
    SCMP_SYS(restart_syscall), SCMP_SYS(alarm), SCMP_SYS(setitimer), SCMP_SYS(getrandom),
    SCMP_SYS(getrusage), SCMP_SYS(getrlimit), SCMP_SYS(uname), SCMP_SYS(sysinfo), SCMP_SYS(exit),
    SCMP_SYS(exit_group), SCMP_SYS(capget),
    /* What follows makes a process poorer, or nothing. */
    SCMP_SYS(seccomp), SCMP_SYS(umask), END};

/* Connections: what is made here is a Unix socket, see socket_allow. */
static const int of_sockets[] = {
    SCMP_SYS(accept),      SCMP_SYS(accept4),    SCMP_SYS(connect),    SCMP_SYS(recvfrom),
    SCMP_SYS(recvmsg),     SCMP_SYS(recvmmsg),   SCMP_SYS(sendto),     SCMP_SYS(sendmsg),
    SCMP_SYS(sendmmsg),    SCMP_SYS(sendfile),   SCMP_SYS(shutdown),   SCMP_SYS(getsockname),
    SCMP_SYS(getpeername), SCMP_SYS(getsockopt), SCMP_SYS(setsockopt), END};

/* What name servers and certificates are looked up with. No bind, no listen, no netlink: the C
 * library does without. */
static const int of_clients[] = {SCMP_SYS(socketpair),
                                 SCMP_SYS(stat),
                                 SCMP_SYS(lstat),
                                 SCMP_SYS(newfstatat),
                                 SCMP_SYS(statx),
                                 SCMP_SYS(access),
                                 SCMP_SYS(faccessat),
                                 SCMP_SYS(readlink),
                                 SCMP_SYS(readlinkat),
                                 SCMP_SYS(getdents64),
                                 END};

/* Threads of a model: on which cores, and whose memory. */
static const int of_workers[] = {SCMP_SYS(sched_setaffinity),
                                 SCMP_SYS(mbind),
                                 SCMP_SYS(set_mempolicy),
                                 SCMP_SYS(get_mempolicy),
                                 SCMP_SYS(arch_prctl),
                                 SCMP_SYS(ftruncate),
                                 SCMP_SYS(flock),
                                 SCMP_SYS(memfd_create),
                                 SCMP_SYS(setpriority),
                                 SCMP_SYS(getpriority),
                                 SCMP_SYS(pkey_alloc),
                                 SCMP_SYS(pkey_free),
                                 SCMP_SYS(pwrite64),
                                 SCMP_SYS(fstatfs),
                                 SCMP_SYS(fadvise64),
                                 END};

/* Which files these reach is Landlock's to say. */
static const int of_files[] = {
    SCMP_SYS(open),     SCMP_SYS(openat),     SCMP_SYS(openat2),    SCMP_SYS(creat),
    SCMP_SYS(stat),     SCMP_SYS(lstat),      SCMP_SYS(newfstatat), SCMP_SYS(statx),
    SCMP_SYS(statfs),   SCMP_SYS(access),     SCMP_SYS(faccessat),  SCMP_SYS(faccessat2),
    SCMP_SYS(readlink), SCMP_SYS(readlinkat), SCMP_SYS(getdents),   SCMP_SYS(getdents64),
    SCMP_SYS(getcwd),   SCMP_SYS(chdir),      SCMP_SYS(fchdir),     SCMP_SYS(readahead),
    SCMP_SYS(getxattr), SCMP_SYS(lgetxattr),  SCMP_SYS(fgetxattr),  END};

/* Making packed weights. chmod and its kin are missing on purpose: they would open the queue's
 * input areas for writing again. */
static const int of_setup[] = {SCMP_SYS(mkdir),
                               SCMP_SYS(mkdirat),
                               SCMP_SYS(unlink),
                               SCMP_SYS(unlinkat),
                               SCMP_SYS(rename),
                               SCMP_SYS(renameat),
                               SCMP_SYS(renameat2),
                               SCMP_SYS(link),
                               SCMP_SYS(linkat),
                               SCMP_SYS(rmdir),
                               SCMP_SYS(fsync),
                               SCMP_SYS(fdatasync),
                               SCMP_SYS(fallocate),
                               SCMP_SYS(copy_file_range),
                               SCMP_SYS(utimensat),
                               SCMP_SYS(futimesat),
                               SCMP_SYS(pwritev),
                               SCMP_SYS(landlock_create_ruleset),
                               SCMP_SYS(landlock_add_rule),
                               SCMP_SYS(landlock_restrict_self),
                               SCMP_SYS(capset),
                               END};

/* Nothing in a gateway or a broker ever does these: whoever does has broken in. */
static const int fatal[] = {SCMP_SYS(execve),
                            SCMP_SYS(execveat),
                            SCMP_SYS(ptrace),
                            SCMP_SYS(process_vm_readv),
                            SCMP_SYS(process_vm_writev),
                            SCMP_SYS(pidfd_getfd),
                            SCMP_SYS(unshare),
                            SCMP_SYS(setns),
                            SCMP_SYS(mount),
                            SCMP_SYS(bpf),
                            SCMP_SYS(init_module),
                            SCMP_SYS(finit_module),
                            SCMP_SYS(io_uring_setup),
                            END};

static int list_add(scmp_filter_ctx filter, uint32_t action, const int *calls)
{
    for (; *calls != END; calls++) {
        int error = seccomp_rule_add(filter, action, *calls, 0);
        if (error && error != -EDOM) /* a call that this architecture does not have */
            return error;
    }
    return 0;
}

#define ALLOW(call, ...)                                                                           \
    (error = error ? error : seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(call), __VA_ARGS__))

/* Calls whose arguments decide. */
static int arguments_add(scmp_filter_ctx filter)
{
    static const int harmless[] = {PR_SET_NAME,     PR_GET_NAME,         PR_GET_DUMPABLE,
                                   PR_CAPBSET_READ, PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS,
                                   PR_SET_SECCOMP,  PR_GET_SECCOMP,      PR_SET_VMA};
    int error = 0;
    for (size_t i = 0; i < sizeof harmless / sizeof harmless[0]; i++)
        ALLOW(prctl, 1, SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)harmless[i], 0));
    /* abort() and pthread_kill: nobody but this process. */
    ALLOW(tgkill, 1, SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid(), 0));
    /* Threads that start name the policy that they have anyway. */
    ALLOW(sched_setscheduler, 1, SCMP_A1(SCMP_CMP_EQ, (scmp_datum_t)sched_getscheduler(0), 0));
    /* A limit of its own, to read. */
    ALLOW(prlimit64, 2, SCMP_A0(SCMP_CMP_EQ, 0, 0), SCMP_A2(SCMP_CMP_EQ, 0, 0));
    /* A new process is none of a thread's flags. */
    ALLOW(clone, 1, SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD));
    ALLOW(ioctl, 1, SCMP_A1(SCMP_CMP_EQ, TCGETS, 0));
    ALLOW(ioctl, 1, SCMP_A1(SCMP_CMP_EQ, FIONREAD, 0));
    ALLOW(ioctl, 1, SCMP_A1(SCMP_CMP_EQ, FIONBIO, 0));
    ALLOW(ioctl, 1, SCMP_A1(SCMP_CMP_EQ, FIOCLEX, 0));
    /* Its flags lie in memory, where no filter sees them; the C library then falls back to clone.
     */
    if (!error)
        error = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
    return error;
}

static int front_add(scmp_filter_ctx filter, bool reads)
{
    int error = list_add(filter, SCMP_ACT_ALLOW, of_sockets);
    if (!error)
        error = list_add(filter, SCMP_ACT_KILL_PROCESS, fatal);
    ALLOW(socket, 1, SCMP_A0(SCMP_CMP_EQ, AF_UNIX, 0));
    /* Which file is Landlock's to say. */
    if (reads)
        ALLOW(openat, 1, SCMP_A2(SCMP_CMP_MASKED_EQ, O_ACCMODE | O_CREAT | O_TRUNC, O_RDONLY));
    /* No new code. */
    ALLOW(mmap, 1, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    ALLOW(mprotect, 1, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    return error;
}

/* A name service's module is a library that is loaded at its first use: mapped from a file, which
 * Landlock confines to the system's, and never writable. */
static int auth_add(scmp_filter_ctx filter)
{
    int error = list_add(filter, SCMP_ACT_ALLOW, of_clients);
    ALLOW(socket, 1, SCMP_A0(SCMP_CMP_EQ, AF_INET, 0));
    ALLOW(socket, 1, SCMP_A0(SCMP_CMP_EQ, AF_INET6, 0));
    ALLOW(mmap, 2, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC | PROT_WRITE, PROT_EXEC),
          SCMP_A3(SCMP_CMP_MASKED_EQ, MAP_ANONYMOUS, 0));
    return error;
}

static int worker_add(scmp_filter_ctx filter, enum sandbox_stage stage, bool gpu)
{
    int error = list_add(filter, SCMP_ACT_ALLOW, of_workers);
    if (!error && stage != SANDBOX_STAGE_MODEL)
        error = list_add(filter, SCMP_ACT_ALLOW, of_files);
    if (!error && stage == SANDBOX_STAGE_SETUP)
        error = list_add(filter, SCMP_ACT_ALLOW, of_setup);
    /* Kernels are compiled for this very processor. */
    ALLOW(mmap, 0);
    ALLOW(mprotect, 0);
    if (stage == SANDBOX_STAGE_SETUP)
        ALLOW(prlimit64, 1, SCMP_A0(SCMP_CMP_EQ, 0, 0));
    /* Of the hundreds of requests those of NVIDIA's drivers: kind 'F', or none. What types into a
     * terminal is of kind 'T'. */
    if (gpu) {
        ALLOW(ioctl, 1, SCMP_A1(SCMP_CMP_MASKED_EQ, 0xff00, 'F' << 8));
        ALLOW(ioctl, 1, SCMP_A1(SCMP_CMP_MASKED_EQ, 0xff00, 0));
    }
    return error;
}

static int rules_add(scmp_filter_ctx filter, enum sandbox_stage stage, bool gpu)
{
    bool auth = stage == SANDBOX_STAGE_AUTH;
    bool reads = auth || stage == SANDBOX_STAGE_GATEWAY_READS;
    bool front = reads || stage == SANDBOX_STAGE_GATEWAY || stage == SANDBOX_STAGE_BROKER;
    int error = list_add(filter, SCMP_ACT_ALLOW, always);
    if (!error)
        error = arguments_add(filter);
    if (!error)
        error = front ? front_add(filter, reads) : worker_add(filter, stage, gpu);
    if (!error && auth)
        error = auth_add(filter);
    return error;
}

int sandbox_filter_load(enum sandbox_stage stage, bool gpu)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    if (!filter)
        return -ENOMEM;
    int error = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
    if (!error)
        error = seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2);
    if (!error)
        error = rules_add(filter, stage, gpu);
    if (!error)
        error = seccomp_load(filter);
    seccomp_release(filter);
    return error;
}
