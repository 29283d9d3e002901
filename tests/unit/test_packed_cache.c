/* Files of packed weights: what the reader refuses, who may write, who waits, and what goes when it
 * is old. */
#include "workers/backends/packed_cache.h"

#include "unetserve/layout.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define PACKERS 6

static const struct packed_hash key = {0x1234, 0x5678};
static const struct packed_hash form = {1, 2};
static const struct packed_hash no_form = {0, 0};
static uint32_t weights[100];
static uint32_t bias[7];
static char directory[64];
static char note[512];

static int make_directory(void **state)
{
    (void)state;
    for (int i = 0; i < 100; i++)
        weights[i] = (uint32_t)i;
    for (int i = 0; i < 7; i++)
        bias[i] = ~(uint32_t)i;
    snprintf(directory, sizeof directory, "/tmp/test_packed-XXXXXX");
    note[0] = '\0';
    return mkdtemp(directory) ? 0 : -1;
}

static int remove_directory(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", directory);
    return system(command); /* NOLINT(cert-env33-c): a name of our own making */
}

static const char *path_of(const struct packed_hash *of, const char *suffix)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/" LAYOUT_PACKED_PREFIX "%016" PRIx64 "%016" PRIx64 "%s",
             directory, of->high, of->low, suffix);
    return path;
}

static bool exists(const struct packed_hash *of, const char *suffix)
{
    return access(path_of(of, suffix), F_OK) == 0;
}

static void fill_sections(struct packed_section *sections, const void **pieces)
{
    sections[0] = (struct packed_section){
        .layer = 3, .part = PACKED_WEIGHTS, .form = form, .bytes = sizeof weights};
    sections[1] = (struct packed_section){.layer = 3, .part = PACKED_BIAS, .bytes = sizeof bias};
    pieces[0] = weights;
    pieces[1] = bias;
}

static int commit(struct packed_draft *draft)
{
    struct packed_section sections[2];
    const void *pieces[2];
    fill_sections(sections, pieces);
    return packed_cache_commit(draft, sections, pieces, 2, note, sizeof note);
}

static int begin(const struct packed_hash *of, uint32_t wait_ms, struct packed_draft *out)
{
    return packed_cache_begin(directory, of, wait_ms, NULL, NULL, out, note, sizeof note);
}

static void write_one(const struct packed_hash *of)
{
    struct packed_draft draft;
    assert_int_equal(begin(of, 0, &draft), 0);
    assert_int_equal(commit(&draft), 0);
}

static int map(struct packed_map *out)
{
    return packed_cache_map(directory, &key, out, note, sizeof note);
}

static bool maps_well(void)
{
    struct packed_map mapped;
    if (map(&mapped) != 0)
        return false;
    const struct packed_view *view = &mapped.view;
    const struct packed_section *a = packed_file_find(view, 3, PACKED_WEIGHTS, &form);
    const struct packed_section *b = packed_file_find(view, 3, PACKED_BIAS, &no_form);
    bool good = a && b && !packed_file_find(view, 2, PACKED_BIAS, &no_form) &&
                !packed_file_find(view, 3, PACKED_WEIGHTS, &no_form) &&
                a->bytes == sizeof weights && b->bytes == sizeof bias &&
                memcmp(view->data + a->offset, weights, sizeof weights) == 0 &&
                memcmp(view->data + b->offset, bias, sizeof bias) == 0;
    packed_cache_unmap(&mapped);
    return good;
}

/* ---- the file ---- */

static uint8_t *read_whole(size_t *bytes)
{
    FILE *file = fopen(path_of(&key, ""), "rb");
    assert_non_null(file);
    uint8_t *data = malloc(1 << 16);
    assert_non_null(data);
    *bytes = fread(data, 1, 1 << 16, file);
    fclose(file);
    return data;
}

static int read_file(const void *data, size_t bytes)
{
    struct packed_view view;
    const char *why = NULL;
    int error = packed_file_read(data, bytes, &key, &view, &why);
    assert_true((error == 0) == (why == NULL));
    return error;
}

static void every_byte_counts(void **state)
{
    (void)state;
    size_t bytes = 0;
    write_one(&key);
    uint8_t *data = read_whole(&bytes);
    assert_int_equal(read_file(data, bytes), 0);
    for (size_t i = 0; i < bytes; i++) {
        data[i] ^= 0x10;
        assert_int_equal(read_file(data, bytes), -EBADMSG);
        data[i] ^= 0x10;
    }
    for (size_t cut = 0; cut < bytes; cut++)
        assert_int_equal(read_file(data, cut), -EBADMSG);
    assert_int_equal(read_file(data, bytes + 1), -EBADMSG);
    static const struct packed_hash other = {0x1235, 0x5678};
    struct packed_view view;
    const char *why = NULL;
    assert_int_equal(packed_file_read(data, bytes, &other, &view, &why), -EBADMSG);
    assert_string_equal(why, "other weights");
    free(data);
}

/* A liar who knows how to compute checksums. */
static void sections_stay_within_the_file(void **state)
{
    (void)state;
    enum { TABLE = 80, OFFSET = 24, BYTES = 32, SECTION = 40, COUNT = 28, DATA_OFFSET = 64 };
    static const uint64_t lies[] = {0,         1, 63, 4095, 1u << 20, UINT64_MAX, UINT64_MAX - 63,
                                    1ull << 63};
    static const size_t fields[] = {
        TABLE + OFFSET,          TABLE + BYTES, TABLE + SECTION + OFFSET,
        TABLE + SECTION + BYTES, COUNT,         DATA_OFFSET};
    size_t bytes = 0;
    write_one(&key);
    uint8_t *data = read_whole(&bytes);
    uint8_t *lie = malloc(bytes);
    assert_non_null(lie);
    for (size_t f = 0; f < sizeof fields / sizeof *fields; f++) {
        for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
            struct packed_view view;
            const char *why = NULL;
            memcpy(lie, data, bytes);
            memcpy(lie + fields[f], &lies[i], fields[f] == COUNT ? 4 : 8);
            packed_file_seal(lie, bytes);
            if (packed_file_read(lie, bytes, &key, &view, &why) != 0)
                continue;
            /* A shorter section, or none where there were two: smaller, and still inside. */
            for (size_t k = 0; k < view.count; k++) {
                assert_true(view.sections[k].offset >= 4096 && view.sections[k].offset < bytes);
                assert_true(view.sections[k].bytes <= bytes - view.sections[k].offset);
            }
        }
    }
    memcpy(lie, data, bytes);
    packed_file_seal(lie, bytes);
    assert_int_equal(read_file(lie, bytes), 0);
    free(lie);
    free(data);
}

static void what_no_file_can_hold_is_refused(void **state)
{
    (void)state;
    struct packed_section sections[2];
    const void *pieces[2];
    void *head = NULL;
    size_t head_bytes = 0;
    uint64_t file_bytes = 0;
    fill_sections(sections, pieces);
    assert_int_equal(packed_file_head(&key, sections, pieces, 0, &head, &head_bytes, &file_bytes),
                     -EINVAL);
    sections[1].bytes = 0;
    assert_int_equal(packed_file_head(&key, sections, pieces, 2, &head, &head_bytes, &file_bytes),
                     -EINVAL);
    assert_int_equal(packed_file_head(&key, sections, pieces, PACKED_MAX_SECTIONS + 1, &head,
                                      &head_bytes, &file_bytes),
                     -EINVAL);
    assert_null(head);
}

/* ---- the directory ---- */

static void what_was_written_is_mapped(void **state)
{
    (void)state;
    struct packed_map mapped;
    struct stat status;
    assert_int_equal(map(&mapped), -ENOENT);
    assert_string_equal(note, "");
    write_one(&key);
    assert_true(maps_well());
    assert_int_equal(stat(path_of(&key, ""), &status), 0);
    assert_int_equal(status.st_mode & 07777, 0600);
    assert_false(exists(&key, ".new"));
    write_one(&key); /* over the first one, as after a damage */
    assert_true(maps_well());
}

static void a_damaged_file_is_told_and_replaced(void **state)
{
    (void)state;
    struct packed_map mapped;
    write_one(&key);
    assert_int_equal(truncate(path_of(&key, ""), 4000), 0);
    assert_int_equal(map(&mapped), -EBADMSG);
    assert_non_null(strstr(note, "cut off"));
    assert_int_equal(truncate(path_of(&key, ""), 0), 0);
    assert_int_equal(map(&mapped), -EBADMSG);
    write_one(&key);
    assert_true(maps_well());
}

static void only_files_of_ones_own_are_mapped(void **state)
{
    (void)state;
    struct packed_map mapped;
    char moved[300];
    write_one(&key);
    assert_int_equal(chmod(path_of(&key, ""), 0640), 0);
    assert_int_equal(map(&mapped), -EPERM);
    assert_non_null(strstr(note, "alone"));
    assert_int_equal(chmod(path_of(&key, ""), 0600), 0);
    snprintf(moved, sizeof moved, "%s/elsewhere", directory);
    assert_int_equal(link(path_of(&key, ""), moved), 0);
    assert_int_equal(map(&mapped), -EPERM);
    assert_int_equal(unlink(path_of(&key, "")), 0);
    assert_int_equal(symlink(moved, path_of(&key, "")), 0);
    assert_int_equal(map(&mapped), -ELOOP);
    assert_int_equal(unlink(path_of(&key, "")), 0);
    assert_int_equal(mkfifo(path_of(&key, ""), 0600), 0);
    assert_int_equal(map(&mapped), -EPERM);
}

static void only_a_directory_of_ones_own_is_used(void **state)
{
    (void)state;
    struct packed_map mapped;
    struct packed_draft draft;
    write_one(&key);
    assert_int_equal(chmod(directory, 0770), 0);
    assert_int_equal(map(&mapped), -EPERM);
    assert_int_equal(begin(&key, 0, &draft), -EPERM);
    assert_non_null(strstr(note, "somebody else"));
    assert_int_equal(chmod(directory, 0755), 0);
    assert_true(maps_well());
    assert_int_equal(packed_cache_map("/dev/null", &key, &mapped, note, sizeof note), -ENOTDIR);
    assert_int_equal(packed_cache_map("/nowhere/at/all", &key, &mapped, note, sizeof note),
                     -ENOENT);
    assert_int_equal(
        packed_cache_begin("/nowhere/at/all", &key, 0, NULL, NULL, &draft, note, sizeof note),
        -ENOENT);
    /* Ours, and nothing can be made in it: as on a disk that is read-only. */
    note[0] = '\0';
    assert_true(packed_cache_begin("/proc/self", &key, 0, NULL, NULL, &draft, note, sizeof note) <
                0);
    assert_non_null(strstr(note, "/proc/self"));
}

static void a_full_disk_leaves_nothing(void **state)
{
    (void)state;
    struct rlimit before;
    struct packed_draft draft;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    struct rlimit small = {.rlim_cur = 4200, .rlim_max = before.rlim_max};
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(begin(&key, 0, &draft), 0);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    int error = commit(&draft);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    signal(SIGXFSZ, handler);
    assert_int_equal(error, -EFBIG);
    assert_true(note[0] != '\0');
    assert_false(exists(&key, ""));
    assert_false(exists(&key, ".new"));
}

/* ---- several at once ---- */

static void count_tick(void *opaque)
{
    ++*(unsigned *)opaque;
}

static void who_waits_too_long_goes_without(void **state)
{
    (void)state;
    unsigned ticks = 0;
    struct packed_draft first;
    struct packed_draft second;
    assert_int_equal(begin(&key, 0, &first), 0);
    assert_int_equal(
        packed_cache_begin(directory, &key, 30, count_tick, &ticks, &second, note, sizeof note),
        -ETIMEDOUT);
    assert_true(ticks > 0);
    static const struct packed_hash other = {9, 9};
    assert_int_equal(begin(&other, 0, &second), 0); /* other weights are another matter */
    packed_cache_abandon(&second);
    packed_cache_abandon(&first);
    assert_false(exists(&key, ".new"));
    write_one(&key);
}

static void whoever_dies_over_it_leaves_it_to_the_next(void **state)
{
    (void)state;
    int pipes[2];
    char byte;
    assert_int_equal(pipe(pipes), 0);
    pid_t child = fork();
    if (child == 0) {
        struct packed_draft draft;
        bool got = begin(&key, 0, &draft) == 0 && write(draft.fd, weights, sizeof weights) > 0;
        if (got && write(pipes[1], "x", 1) == 1)
            pause();
        _exit(1);
    }
    assert_true(child > 0);
    assert_int_equal(read(pipes[0], &byte, 1), 1);
    struct packed_draft draft;
    assert_int_equal(begin(&key, 10, &draft), -ETIMEDOUT);
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_int_equal(begin(&key, 10000, &draft), 0);
    assert_int_equal(commit(&draft), 0);
    assert_true(maps_well());
    close(pipes[0]);
    close(pipes[1]);
}

/* 0: wrote it; 1: found it written by another; 2: neither. */
static int pack_or_wait(void)
{
    struct packed_draft draft;
    struct packed_map mapped;
    if (map(&mapped) == 0)
        return 1;
    int error = begin(&key, 20000, &draft);
    if (error == -EEXIST)
        return maps_well() ? 1 : 2;
    if (error != 0)
        return 2;
    if (map(&mapped) == 0) {
        packed_cache_abandon(&draft);
        return 1;
    }
    usleep(50000); /* as packing takes its time */
    return commit(&draft) == 0 && maps_well() ? 0 : 2;
}

static void one_of_many_packs(void **state)
{
    (void)state;
    int pipes[2];
    int found[3] = {0};
    pid_t children[PACKERS];
    assert_int_equal(pipe(pipes), 0);
    for (int i = 0; i < PACKERS; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            char byte;
            close(pipes[1]);
            _exit(read(pipes[0], &byte, 1) == 0 ? pack_or_wait() : 2);
        }
        assert_true(children[i] > 0);
    }
    close(pipes[0]);
    close(pipes[1]); /* off they go */
    for (int i = 0; i < PACKERS; i++) {
        int status = 0;
        assert_int_equal(waitpid(children[i], &status, 0), children[i]);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) < 3);
        found[WEXITSTATUS(status)]++;
    }
    assert_int_equal(found[2], 0);
    assert_int_equal(found[0], 1);
    assert_true(maps_well());
}

/* ---- what is old ---- */

static void age(const char *path, time_t seconds)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    struct timespec times[2] = {{.tv_sec = now.tv_sec - seconds}, {.tv_sec = now.tv_sec - seconds}};
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

static void old_files_go(void **state)
{
    (void)state;
    enum { DAY = 86400 };
    static const struct packed_hash old = {1, 0}, young = {2, 0}, dead = {3, 0}, live = {4, 0};
    char kept[128];
    struct packed_draft draft;
    struct packed_draft busy;
    write_one(&old);
    write_one(&young);
    assert_int_equal(begin(&dead, 0, &draft), 0);
    close(draft.fd); /* its writer is gone, the file is not */
    close(draft.directory);
    assert_int_equal(begin(&live, 0, &busy), 0);
    snprintf(kept, sizeof kept, "%s/somebody's", directory);
    close(open(kept, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    age(path_of(&old, ""), (PACKED_CACHE_DAYS + 1) * DAY);
    age(path_of(&young, ""), (PACKED_CACHE_DAYS - 1) * DAY);
    age(path_of(&dead, ".new"), (PACKED_CACHE_DAYS + 1) * DAY);
    age(path_of(&live, ".new"), (PACKED_CACHE_DAYS + 1) * DAY);
    age(kept, 10 * PACKED_CACHE_DAYS * DAY);
    write_one(&key);
    assert_false(exists(&old, ""));
    assert_true(exists(&young, ""));
    assert_false(exists(&dead, ".new"));
    assert_true(exists(&live, ".new"));
    assert_int_equal(access(kept, F_OK), 0);
    assert_int_equal(commit(&busy), 0);
}

static void the_whole_is_bounded(void **state)
{
    (void)state;
    static const struct packed_hash large = {1, 0}, small = {2, 0};
    write_one(&large);
    write_one(&small);
    assert_int_equal(truncate(path_of(&large, ""), (off_t)PACKED_CACHE_MAX_BYTES), 0); /* sparse */
    age(path_of(&large, ""), 60);
    age(path_of(&small, ""), 120);
    write_one(&key);
    assert_false(exists(&large, ""));
    assert_false(exists(&small, ""));
    assert_true(maps_well());
}

static void what_is_used_is_young(void **state)
{
    (void)state;
    struct stat status;
    write_one(&key);
    age(path_of(&key, ""), 1000000);
    assert_true(maps_well());
    assert_int_equal(stat(path_of(&key, ""), &status), 0);
    assert_true(status.st_mtim.tv_sec > time(NULL) - 500000);
}

#define IN_DIRECTORY(f) cmocka_unit_test_setup_teardown(f, make_directory, remove_directory)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_DIRECTORY(every_byte_counts),
        IN_DIRECTORY(sections_stay_within_the_file),
        IN_DIRECTORY(what_no_file_can_hold_is_refused),
        IN_DIRECTORY(what_was_written_is_mapped),
        IN_DIRECTORY(a_damaged_file_is_told_and_replaced),
        IN_DIRECTORY(only_files_of_ones_own_are_mapped),
        IN_DIRECTORY(only_a_directory_of_ones_own_is_used),
        IN_DIRECTORY(a_full_disk_leaves_nothing),
        IN_DIRECTORY(who_waits_too_long_goes_without),
        IN_DIRECTORY(whoever_dies_over_it_leaves_it_to_the_next),
        IN_DIRECTORY(one_of_many_packs),
        IN_DIRECTORY(old_files_go),
        IN_DIRECTORY(the_whole_is_bounded),
        IN_DIRECTORY(what_is_used_is_young),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
