#include "lib/sandbox_paths.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Debian 12's headers end at version 2. */
#define ACCESS_TRUNCATE    (UINT64_C(1) << 14) /* version 3 */
#define ACCESS_TCP         UINT64_C(3)         /* version 4: bind, connect */
#define ACCESS_TCP_CONNECT UINT64_C(2)
#define RULE_NET_PORT      2
#define SCOPE_ALL          UINT64_C(3) /* version 6: abstract sockets, signals */
#define ACCESS_FILE_READ   (LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE)
#define ACCESS_READ        (ACCESS_FILE_READ | LANDLOCK_ACCESS_FS_READ_DIR)
#define ACCESS_FILE_WRITE  (LANDLOCK_ACCESS_FS_WRITE_FILE | ACCESS_TRUNCATE)
#define ACCESS_MAKE                                                                                \
    (LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE |  \
     LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REFER)
#define ACCESS_NEVER                                                                               \
    (LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_MAKE_FIFO |  \
     LANDLOCK_ACCESS_FS_MAKE_BLOCK | LANDLOCK_ACCESS_FS_MAKE_SYM)

/* struct landlock_ruleset_attr as it is from version 6 on; older kernels take zeros at its end. */
struct ruleset {
    uint64_t fs, net, scoped;
};

/* struct landlock_net_port_attr, of version 4. */
struct port_rule {
    uint64_t allowed_access, port;
};

int sandbox_landlock_version(void)
{
    long version = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    return version < 0 ? 0 : (int)version;
}

/* What that version can rule. */
static uint64_t known(int version)
{
    uint64_t all = ACCESS_READ | ACCESS_FILE_WRITE | ACCESS_MAKE | ACCESS_NEVER;
    if (version < 3)
        all &= ~ACCESS_TRUNCATE;
    if (version < 2)
        all &= ~(uint64_t)LANDLOCK_ACCESS_FS_REFER;
    return all;
}

int sandbox_rules_new(bool files)
{
    int version = sandbox_landlock_version();
    if (version == 0)
        return -ENOSYS;
    struct ruleset ruleset = {
        .fs = files ? known(version) : 0,
        .net = version >= 4 ? ACCESS_TCP : 0,
        .scoped = version >= 6 ? SCOPE_ALL : 0,
    };
    if (!ruleset.fs && !ruleset.net)
        return -ENOSYS;
    long fd = syscall(SYS_landlock_create_ruleset, &ruleset, sizeof ruleset, 0);
    return fd < 0 ? -errno : (int)fd;
}

int sandbox_rules_allow(int rules, const char *path, enum sandbox_access access)
{
    struct stat status;
    int fd = open(path, O_PATH | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT || errno == ENOTDIR || errno == EACCES ? 0 : -errno;
    if (fstat(fd, &status)) {
        int error = -errno;
        close(fd);
        return error;
    }
    uint64_t allowed = ACCESS_READ;
    if (access != SANDBOX_READ)
        allowed |= ACCESS_FILE_WRITE;
    if (access == SANDBOX_WRITE)
        allowed |= ACCESS_MAKE;
    if (!S_ISDIR(status.st_mode))
        allowed &= ACCESS_FILE_READ | ACCESS_FILE_WRITE;
    struct landlock_path_beneath_attr rule = {
        .allowed_access = allowed & known(sandbox_landlock_version()), .parent_fd = fd};
    int error = 0;
    if (syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &rule, 0))
        error = -errno;
    close(fd);
    return error;
}

int sandbox_rules_connect(int rules, uint16_t port)
{
    struct port_rule rule = {.allowed_access = ACCESS_TCP_CONNECT, .port = port};
    if (sandbox_landlock_version() < 4)
        return 0;
    return syscall(SYS_landlock_add_rule, rules, RULE_NET_PORT, &rule, 0) ? -errno : 0;
}

int sandbox_rules_apply(int rules)
{
    int error = syscall(SYS_landlock_restrict_self, rules, 0) ? -errno : 0;
    close(rules);
    return error;
}
