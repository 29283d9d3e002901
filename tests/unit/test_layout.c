/* Where programs and plugins are found: beside the program, and as installed. The program that
 * looks is this one, copied into trees of both kinds and started there with an argument. */
#include "unetserve/layout.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char tree[] = "/tmp/test_layout-XXXXXX";

/* What the copies do: print what they find. */
static int look(void)
{
    char path[PATH_MAX];
    printf("%s\n", layout_program("unetserve-worker", path, sizeof path) ? "none" : path);
    printf("%s\n", layout_plugin("unet", path, sizeof path) ? "none" : path);
    return 0;
}

static void file_make(const char *directory, const char *name)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", tree, directory);
    for (char *slash = path + strlen(tree) + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = '\0';
        mkdir(path, 0700);
        *slash = '/';
    }
    mkdir(path, 0700);
    snprintf(path, sizeof path, "%s/%s/%s", tree, directory, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0700);
    assert_true(fd >= 0);
    close(fd);
}

/* Copy this program to DIRECTORY/looker, run it there, compare its two lines with what is to be
 * found below the tree. */
static void check(const char *directory, const char *program, const char *plugin)
{
    char path[PATH_MAX];
    struct stat status;
    file_make(directory, "looker");
    snprintf(path, sizeof path, "%s/%s/looker", tree, directory);
    int from = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    int to = open(path, O_WRONLY | O_CLOEXEC);
    assert_int_equal(fstat(from, &status), 0);
    for (off_t done = 0; done < status.st_size;)
        assert_true(sendfile(to, from, &done, (size_t)(status.st_size - done)) > 0);
    close(from);
    close(to);
    char command[PATH_MAX + 16];
    snprintf(command, sizeof command, "%s look", path);
    FILE *output = popen(command, "r");
    assert_non_null(output);
    const char *expected[] = {program, plugin};
    for (int i = 0; i < 2; i++) {
        char found[PATH_MAX];
        char resolved[PATH_MAX] = "none";
        char wanted[PATH_MAX];
        assert_non_null(fgets(found, sizeof found, output));
        found[strcspn(found, "\n")] = '\0';
        if (strcmp(found, "none") != 0)
            assert_non_null(realpath(found, resolved));
        snprintf(wanted, sizeof wanted, expected[i] ? "%s/%s" : "none", tree, expected[i]);
        assert_string_equal(resolved, wanted);
    }
    assert_int_equal(pclose(output), 0);
}

static void test_trees(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(tree));
    check("empty/bin", NULL, NULL);
    file_make("build", "unetserve-worker");
    file_make("build/models", "unet.so");
    check("build", "build/unetserve-worker", "build/models/unet.so");
    file_make("usr/lib/unetserve", "unetserve-worker");
    file_make("usr/lib/unetserve/models", "unet.so");
    check("usr/bin", "usr/lib/unetserve/unetserve-worker", "usr/lib/unetserve/models/unet.so");
    check("usr/lib/unetserve", "usr/lib/unetserve/unetserve-worker",
          "usr/lib/unetserve/models/unet.so");
    char command[PATH_MAX];
    snprintf(command, sizeof command, "rm -r %s", tree);
    assert_int_equal(system(command), 0);
}

static void test_too_long(void **state)
{
    (void)state;
    char path[4];
    assert_int_equal(layout_run_root(path, sizeof path), -ENAMETOOLONG);
    char whole[PATH_MAX] = "as it was";
    assert_int_equal(layout_program("no-such-program", whole, sizeof whole), -ENOENT);
    assert_string_equal(whole, "as it was");
}

static void test_run_root(void **state)
{
    (void)state;
    char path[100];
    char expected[100];
    setenv("XDG_RUNTIME_DIR", "/run/user/1", 1);
    assert_int_equal(layout_run_root(path, sizeof path), 0);
    assert_string_equal(path, "/run/user/1/unetserve");
    snprintf(expected, sizeof expected, "/tmp/unetserve-%u", (unsigned)getuid());
    setenv("XDG_RUNTIME_DIR", "relative", 1);
    assert_int_equal(layout_run_root(path, sizeof path), 0);
    assert_string_equal(path, expected);
    unsetenv("XDG_RUNTIME_DIR");
    assert_int_equal(layout_run_root(path, sizeof path), 0);
    assert_string_equal(path, expected);
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "look") == 0)
        return look();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_trees),
        cmocka_unit_test(test_too_long),
        cmocka_unit_test(test_run_root),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
