/* What each role gives up. The reasons stand in SECURITY.md. */
#include "unetserve/sandbox.h"

#include "lib/sandbox_filter.h"
#include "lib/sandbox_paths.h"
#include "unetserve/log.h"

#include <dirent.h>
#include <errno.h>
#include <linux/capability.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FILES_SPARE  1024 /* descriptors beside those of connections */
#define FILES_WORKER 4096
#define PATHS_MOST   64

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true /* their runtimes fork, trace and open files whenever they like */
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED true
#endif
#endif
#ifndef SANITIZED
#define SANITIZED false
#endif

enum sandbox_mode sandbox_mode_of(const char *text)
{
    if (strcmp(text, "on") == 0)
        return SANDBOX_ON;
    if (strcmp(text, "files") == 0)
        return SANDBOX_FILES;
    return strcmp(text, "off") == 0 ? SANDBOX_OFF : SANDBOX_AUTO;
}

void sandbox_resolve(struct config *config)
{
    for (uint32_t i = 0; i < config->model_count; i++) {
        struct config_model *model = &config->models[i];
        if (strcmp(model->sandbox, "server") != 0)
            continue;
        memcpy(model->sandbox, config->sandbox, sizeof config->sandbox);
        if (config_model_is_python(model) && sandbox_mode_of(config->sandbox) == SANDBOX_AUTO)
            strcpy(model->sandbox, "off");
    }
}

/* With filters that service managers and containers may have put around it: a filter that is not
 * there makes EFAULT where one would be taken. */
static bool has_seccomp(void)
{
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, NULL) < 0 && errno == EFAULT;
}

const char *sandbox_missing(void)
{
    if (SANITIZED)
        return "a build without sanitizers";
    if (!has_seccomp())
        return "seccomp filters";
    if (sandbox_landlock_version() == 0)
        return "Landlock";
    return NULL;
}

/* ---- limits and privileges ---- */

/* Lowered for good; never raised. */
static void limit_lower(int resource, rlim_t most)
{
    struct rlimit limit;
    if (getrlimit(resource, &limit) || limit.rlim_cur <= most)
        return;
    limit.rlim_cur = limit.rlim_max = most;
    setrlimit(resource, &limit);
}

/* Root's powers go, where there are any. To read whatever file a model is made of is the last of
 * them. */
static int privileges_drop(bool but_reading)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct had[2] = {{0}};
    struct __user_cap_data_struct kept[2] = {{0}};
    if (syscall(SYS_capget, &header, had))
        return -errno;
    if (but_reading)
        kept[0].effective = kept[0].permitted = had[0].permitted & 1u << CAP_DAC_READ_SEARCH;
    if (had[0].permitted == kept[0].permitted && had[1].permitted == 0)
        return 0; /* a service manager may have forbidden the very call */
    return syscall(SYS_capset, &header, kept) ? -errno : 0;
}

static bool is_file(int fd)
{
    struct stat status;
    return fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
}

/* ---- paths ---- */

static void list_allow(int rules, const char *list, enum sandbox_access access, int *error)
{
    char path[PATH_MAX];
    for (int i = 0; !*error && list && list[0] && i < PATHS_MOST; i++) {
        size_t length = strcspn(list, ":");
        if (length > 0 && length < sizeof path) {
            memcpy(path, list, length);
            path[length] = '\0';
            *error = sandbox_rules_allow(rules, path, access);
        }
        list += length + (list[length] == ':');
    }
}

static void parent_allow(int rules, const char *path, int *error)
{
    char parent[PATH_MAX];
    snprintf(parent, sizeof parent, "%s", path);
    char *slash = strrchr(parent, '/');
    if (!slash || slash == parent)
        return;
    *slash = '\0';
    if (!*error)
        *error = sandbox_rules_allow(rules, parent, SANDBOX_READ);
}

/* What the links in a model's directory point at, as caches of downloaded models have them. */
static void links_allow(int rules, const char *directory, int *error)
{
    DIR *entries = opendir(directory);
    struct dirent *entry;
    while (entries && !*error && (entry = readdir(entries))) {
        char path[PATH_MAX];
        int length = snprintf(path, sizeof path, "%s/%s", directory, entry->d_name);
        if (entry->d_type == DT_LNK && length > 0 && (size_t)length < sizeof path)
            *error = sandbox_rules_allow(rules, path, SANDBOX_READ);
    }
    if (entries)
        closedir(entries);
}

/* The model itself: a directory, or a file with what lies beside it. */
static void model_allow(int rules, const char *path, int *error)
{
    char real[PATH_MAX];
    struct stat status;
    if (!path || !realpath(path, real) || stat(real, &status))
        return; /* loading it will say so */
    if (!S_ISDIR(status.st_mode)) {
        parent_allow(rules, real, error);
        return;
    }
    if (!*error)
        *error = sandbox_rules_allow(rules, real, SANDBOX_READ);
    links_allow(rules, real, error);
}

/* The programs' own directories: the plugins that come with them lie there. */
static void programs_allow(int rules, int *error)
{
    char path[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 32);
    if (length <= 0)
        return;
    path[length] = '\0';
    parent_allow(rules, path, error);
    char *slash = strrchr(path, '/');
    if (!slash)
        return;
    snprintf(slash, sizeof path - (size_t)(slash - path), "/../lib/unetserve");
    if (!*error)
        *error = sandbox_rules_allow(rules, path, SANDBOX_READ);
}

static void gpu_allow(int rules, int *error)
{
    char path[PATH_MAX];
    list_allow(rules, "/dev/nvidiactl:/dev/nvidia-uvm:/dev/nvidia-uvm-tools:/dev/nvidia-modeset",
               SANDBOX_USE, error);
    for (int i = 0; !*error && i < 16; i++) {
        snprintf(path, sizeof path, "/dev/nvidia%d", i);
        *error = sandbox_rules_allow(rules, path, SANDBOX_USE);
    }
    list_allow(rules, "/dev/nvidia-caps:/proc/driver/nvidia:/proc/self/task", SANDBOX_USE, error);
    list_allow(rules, "/dev/shm:/tmp", SANDBOX_WRITE, error);
    list_allow(rules, getenv("CUDA_CACHE_PATH"), SANDBOX_WRITE, error);
    const char *home = getenv("HOME");
    if (home && home[0] == '/') {
        snprintf(path, sizeof path, "%s/.nv", home);
        if (!*error)
            *error = sandbox_rules_allow(rules, path, SANDBOX_WRITE);
    }
}

/* What any program and any library may need. Not /etc and /proc as a whole: there are keys, and
 * other processes' environments. */
static void system_allow(int rules, int *error)
{
    list_allow(rules,
               "/usr:/lib:/lib64:/lib32:/bin:/opt:/nix/store:/sys:"
               "/etc/ld.so.cache:/etc/ld.so.preload:/etc/ld.so.conf:/etc/ld.so.conf.d:"
               "/etc/alternatives:/etc/localtime:/etc/nsswitch.conf:/etc/passwd:/etc/group:"
               "/etc/nvidia:/etc/OpenCL:",
               SANDBOX_READ, error);
    list_allow(rules,
               "/proc/self:/proc/cpuinfo:/proc/meminfo:/proc/stat:/proc/version:/proc/filesystems:"
               "/proc/devices:/proc/modules:/proc/loadavg:/proc/uptime:/proc/sys:/proc/driver",
               SANDBOX_READ, error);
    list_allow(rules, "/dev/urandom:/dev/random:/dev/zero", SANDBOX_READ, error);
    list_allow(rules, "/dev/null", SANDBOX_USE, error);
    list_allow(rules, getenv("LD_LIBRARY_PATH"), SANDBOX_READ, error);
}

static int worker_rules(const struct sandbox *sandbox, int rules)
{
    int error = 0;
    system_allow(rules, &error);
    programs_allow(rules, &error);
    model_allow(rules, sandbox->model_path, &error);
    list_allow(rules, sandbox->paths, SANDBOX_READ, &error);
    for (size_t i = 0; i < sizeof sandbox->writable / sizeof sandbox->writable[0]; i++)
        if (!error && sandbox->writable[i] && sandbox->writable[i][0])
            error = sandbox_rules_allow(rules, sandbox->writable[i], SANDBOX_WRITE);
    if (sandbox->gpu)
        gpu_allow(rules, &error);
    return error;
}

/* Certificates, and what the C library looks names up with. Not /etc as a whole: there are keys. */
static int auth_rules(const struct sandbox *sandbox, int rules)
{
    int error = 0;
    list_allow(rules,
               "/usr:/lib:/lib64:/etc/ld.so.cache:/etc/resolv.conf:/etc/hosts:/etc/host.conf:"
               "/etc/nsswitch.conf:/etc/gai.conf:/etc/services:/run/systemd/resolve:"
               "/run/NetworkManager:/run/resolvconf:/etc/ssl/certs:/etc/ssl/openssl.cnf:"
               "/etc/pki/tls/certs:/etc/pki/ca-trust:/etc/localtime:/dev/urandom",
               SANDBOX_READ, &error);
    for (size_t i = 0; i < SANDBOX_FILES_AGAIN; i++)
        if (sandbox->again[i] && sandbox->again[i][0])
            parent_allow(rules, sandbox->again[i], &error);
    for (size_t i = 0; !error && i < SANDBOX_PORTS; i++)
        if (sandbox->ports[i])
            error = sandbox_rules_connect(rules, sandbox->ports[i]);
    return error;
}

/* Fronts bind and remove their own sockets until they serve; of the network they have what they
 * were given. */
static int rules_begin(const struct sandbox *sandbox)
{
    bool worker = sandbox->role == QUEUE_WORKER;
    bool auth = sandbox->role == QUEUE_AUTH;
    int rules = sandbox_rules_new(worker || auth);
    if (rules < 0)
        return rules == -ENOSYS ? 0 : rules;
    int error = worker ? worker_rules(sandbox, rules) : auth ? auth_rules(sandbox, rules) : 0;
    if (error) {
        close(rules);
        return error;
    }
    return sandbox_rules_apply(rules);
}

static bool reads_again(const struct sandbox *sandbox)
{
    for (size_t i = 0; i < SANDBOX_FILES_AGAIN; i++)
        if (sandbox->again[i] && sandbox->again[i][0])
            return true;
    return false;
}

/* No file at all but those that are read again, and whatever takes their place. */
static int rules_serve(const struct sandbox *sandbox)
{
    int rules = sandbox_rules_new(true);
    if (rules < 0)
        return rules == -ENOSYS ? 0 : rules;
    int error = 0;
    for (size_t i = 0; i < SANDBOX_FILES_AGAIN; i++)
        if (sandbox->again[i] && sandbox->again[i][0])
            parent_allow(rules, sandbox->again[i], &error);
    if (error) {
        close(rules);
        return error;
    }
    return sandbox_rules_apply(rules);
}

/* ---- the two steps ---- */

static int complain(const char *what, int error)
{
    log_event(LOG_LEVEL_ERROR, "cannot give up privileges", log_text("what", what),
              log_text("error", strerror(-error)));
    return error;
}

/* Is there a filter to load, and may the process go on if there is none? */
static int ask_kernel(const struct sandbox *sandbox)
{
    const char *missing = sandbox_missing();
    if (!missing)
        return 0;
    bool must = sandbox->mode == SANDBOX_ON;
    if (sandbox->asked && !must)
        return 0;
    log_event(must ? LOG_LEVEL_ERROR : LOG_LEVEL_INFO,
              "a wall of the sandbox is missing: the kernel, or this program, does not have it",
              log_text("missing", missing));
    return must ? -ENOSYS : 0;
}

static int filter(enum sandbox_stage stage, bool gpu)
{
    return has_seccomp() ? sandbox_filter_load(stage, gpu) : 0;
}

int sandbox_begin(const struct sandbox *sandbox)
{
    bool worker = sandbox->role == QUEUE_WORKER;
    if (sandbox->mode == SANDBOX_OFF)
        return 0;
    int error = ask_kernel(sandbox);
    if (error)
        return error;
    limit_lower(RLIMIT_CORE, 0);
    limit_lower(RLIMIT_NOFILE,
                worker ? FILES_WORKER : FILES_SPARE + 2 * (rlim_t)sandbox->max_connections);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        return complain("no_new_privs", -errno);
    if (SANITIZED)
        return 0;
    error = rules_begin(sandbox);
    if (error)
        return complain("Landlock", error);
    error = privileges_drop(true);
    if (error)
        return complain("capabilities", error);
    error = worker ? filter(SANDBOX_STAGE_SETUP, sandbox->gpu) : 0;
    return error ? complain("seccomp", error) : 0;
}

static enum sandbox_stage front_stage(const struct sandbox *sandbox)
{
    if (sandbox->role == QUEUE_AUTH)
        return SANDBOX_STAGE_AUTH;
    if (sandbox->role != QUEUE_GATEWAY)
        return SANDBOX_STAGE_BROKER;
    return reads_again(sandbox) ? SANDBOX_STAGE_GATEWAY_READS : SANDBOX_STAGE_GATEWAY;
}

static int fronts_serve(const struct sandbox *sandbox)
{
    bool auth = sandbox->role == QUEUE_AUTH; /* has its rules, and starts threads for look-ups */
    int error = auth ? 0 : rules_serve(sandbox);
    if (error)
        return complain("Landlock", error);
    error = privileges_drop(false);
    if (error)
        return complain("capabilities", error);
    if (!auth)
        limit_lower(RLIMIT_NPROC, 0);
    if (!is_file(STDERR_FILENO) && !is_file(STDOUT_FILENO))
        limit_lower(RLIMIT_FSIZE, 0);
    error = filter(front_stage(sandbox), false);
    return error ? complain("seccomp", error) : 0;
}

int sandbox_serve(const struct sandbox *sandbox)
{
    if (sandbox->mode == SANDBOX_OFF || SANITIZED)
        return 0;
    if (sandbox->role != QUEUE_WORKER)
        return fronts_serve(sandbox);
    bool files = sandbox->mode == SANDBOX_FILES || sandbox->gpu;
    int error = privileges_drop(false);
    if (error)
        return complain("capabilities", error);
    error = filter(files ? SANDBOX_STAGE_FILES : SANDBOX_STAGE_MODEL, sandbox->gpu);
    return error ? complain("seccomp", error) : 0;
}
