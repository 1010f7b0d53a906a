/* SPDX-License-Identifier: MIT
 * test_file.c - files beneath what was granted: links and dots that lead elsewhere are refused. */
#include "file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char root[64], inside[80], outside[80];
static struct lk_caps *caps;

static const char *path_of(const char *dir, const char *name)
{
    static char path[2][200];
    static int turn;

    turn = !turn;
    snprintf(path[turn], sizeof(path[turn]), "%s/%s", dir, name);
    return path[turn];
}

static void make(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, "secret", 6), 6);
    close(fd);
}

static int set_up(void **state)
{
    (void)state;
    snprintf(root, sizeof(root), "/tmp/lunark-file-XXXXXX");
    assert_non_null(mkdtemp(root));
    snprintf(inside, sizeof(inside), "%s/in", root);
    snprintf(outside, sizeof(outside), "%s/out", root);
    assert_int_equal(mkdir(inside, 0700), 0);
    assert_int_equal(mkdir(outside, 0700), 0);
    make(path_of(inside, "a"));
    make(path_of(outside, "a"));
    assert_int_equal(symlink(outside, path_of(inside, "dir")), 0);
    assert_int_equal(symlink("../out/a", path_of(inside, "link")), 0);
    assert_int_equal(symlink("../out/new", path_of(inside, "dangling")), 0);
    assert_int_equal(symlink("a", path_of(inside, "fine")), 0);
    caps = lk_caps_new(NULL);
    assert_int_equal(lk_caps_allow(caps, LK_CAP_READ, inside, NULL), 0);
    assert_int_equal(lk_caps_allow(caps, LK_CAP_WRITE, inside, NULL), 0);
    return 0;
}

static int tear_down(void **state)
{
    static const char *const names[] = {"a", "dir", "link", "dangling", "fine", "made"};

    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        unlink(path_of(inside, names[i]));
    }
    unlink(path_of(outside, "a"));
    rmdir(inside);
    rmdir(outside);
    rmdir(root);
    lk_caps_free(caps);
    return 0;
}

static void what_leads_elsewhere_is_denied(void **state)
{
    static const char *const names[] = {"link",     "dir/a",    "dir/new",
                                        "dangling", "../out/a", "fine/../../out/a"};
    struct lk_error err;

    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        for (int mode = LK_FILE_READ; mode <= LK_FILE_CREATE; mode++) {
            err = (struct lk_error){0};
            struct lk_file *file =
                lk_file_open(caps, path_of(inside, names[i]), (enum lk_file_mode)mode, 0600, &err);
            assert_null(file);
            assert_int_equal(err.kind, LK_DENIED);
            assert_non_null(strstr(err.message, mode == LK_FILE_READ ? "reading" : "writing"));
        }
    }
    struct stat st;
    assert_int_equal(stat(path_of(outside, "a"), &st), 0);
    assert_int_equal(st.st_size, 6);
    assert_int_equal(stat(path_of(outside, "new"), &st), -1);
}

static void what_stays_beneath_is_opened(void **state)
{
    struct lk_error err = {0};
    uint64_t size;

    (void)state;
    struct lk_file *file = lk_file_open(caps, path_of(inside, "fine"), LK_FILE_READ, 0, &err);
    assert_string_equal(err.message, "");
    assert_int_equal(lk_file_size(file, &size, &err), 0);
    assert_int_equal(size, 6);
    assert_int_equal(lk_file_write(file, "x", 1, 0, &err), -1);
    assert_int_equal(err.kind, LK_USAGE);
    lk_file_unref(file);
    file = lk_file_open(caps, path_of(inside, "made"), LK_FILE_CREATE, 0600, &err);
    assert_non_null(file);
    assert_int_equal(lk_file_write(file, "x", 1, 9, &err), 0);
    assert_int_equal(lk_file_size(file, &size, &err), 0);
    assert_int_equal(size, 10);
    lk_file_unref(file);
    file = lk_file_open_dir(caps, inside, &err);
    assert_non_null(file);
    assert_int_equal(lk_file_sync(file, &err), 0);
    lk_file_unref(file);
}

static void reading_is_not_writing(void **state)
{
    struct lk_caps *reader = lk_caps_new(NULL);
    struct lk_error err;
    uint64_t bytes;

    (void)state;
    assert_int_equal(lk_caps_allow(reader, LK_CAP_READ, inside, NULL), 0);
    assert_null(lk_file_open(reader, path_of(inside, "a"), LK_FILE_WRITE, 0600, &err));
    assert_int_equal(err.kind, LK_DENIED);
    assert_null(lk_file_open_dir(reader, inside, &err));
    assert_int_equal(err.kind, LK_DENIED);
    assert_int_equal(lk_file_free_bytes(reader, inside, &bytes, &err), 0);
    assert_int_equal(lk_file_free_bytes(reader, outside, &bytes, &err), -1);
    assert_int_equal(err.kind, LK_DENIED);
    lk_caps_free(reader);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_leads_elsewhere_is_denied, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_stays_beneath_is_opened, set_up, tear_down),
        cmocka_unit_test_setup_teardown(reading_is_not_writing, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
