/* SPDX-License-Identifier: MIT
 * test_error.c - what an error says, and that it is whole whatever was in it before. */
#include "error.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

static void sets_all_fields(void **state)
{
    struct lk_error err;

    (void)state;
    memset(&err, 0x55, sizeof err);
    assert_int_equal(lk_error_set(&err, LK_USAGE, "option %s: expected %d", "--jobs", 3), -1);
    assert_int_equal(err.kind, LK_USAGE);
    assert_string_equal(err.message, "option --jobs: expected 3");
    assert_string_equal(err.hint, "");
    assert_string_equal(err.op, "");
    assert_int_equal(err.code, 0);
    assert_int_equal(err.status, 0);
    assert_false(err.retryable);
}

static void allows_null(void **state)
{
    (void)state;
    assert_int_equal(lk_error_set(NULL, LK_IO, "x"), -1);
    assert_int_equal(lk_error_errno(NULL, ENOENT, "x"), -1);
    assert_int_equal(lk_error_hint(NULL, "x"), -1);
}

static void names_the_errno(void **state)
{
    struct lk_error err;

    (void)state;
    errno = EDOM;
    assert_int_equal(lk_error_errno(&err, ENOENT, "open %s", "/nowhere"), -1);
    assert_int_equal(errno, EDOM);
    assert_string_equal(err.message, "open /nowhere: no such file or directory");
    assert_int_equal(err.kind, LK_NOT_FOUND);
    assert_int_equal(err.code, ENOENT);
    lk_error_errno(&err, EACCES, "open %s", "x");
    assert_string_equal(err.message, "open x: permission denied");
    assert_int_equal(err.kind, LK_DENIED);
    lk_error_errno(&err, EIO, "read");
    assert_string_equal(err.message, "read: input/output error");
    assert_int_equal(err.kind, LK_IO);
    lk_error_errno(&err, EDOTDOT, "call");
    assert_string_equal(err.message,
                        "call: RFS specific error"); /* an acronym keeps its capitals */
    lk_error_errno(&err, 99999, "call");
    assert_string_equal(err.message, "call: error 99999");
}

static void kinds_fit_the_errno(void **state)
{
    static const struct {
        int errnum;
        enum lk_kind kind;
    } rows[] = {{EPERM, LK_DENIED},      {EEXIST, LK_CONFLICT},     {ENOMEM, LK_MEMORY},
                {ETIMEDOUT, LK_TIMEOUT}, {ECANCELED, LK_CANCELLED}, {ENOSPC, LK_IO},
                {ENOTDIR, LK_IO}};
    struct lk_error err;
    size_t i;

    (void)state;
    for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        lk_error_errno(&err, rows[i].errnum, "x");
        assert_int_equal(err.kind, rows[i].kind);
    }
}

static void builds_on_its_own_message(void **state)
{
    struct lk_error err;

    (void)state;
    lk_error_set(&err, LK_IO, "disk full");
    lk_error_hint(&err, "free some");
    lk_error_set(&err, LK_IO, "store %s: %s", "a", err.message);
    assert_string_equal(err.message, "store a: disk full");
    assert_string_equal(err.hint, "");
    lk_error_hint(&err, "%s, then %s", "free some", "try again");
    assert_string_equal(err.hint, "free some, then try again");
}

static void cuts_long_texts_at_a_character(void **state)
{
    struct lk_error err;
    char name[3000];
    size_t i;

    (void)state;
    for (i = 0; i + 2 < sizeof name; i += 2)
        memcpy(name + i, "\xc3\xa4", 2);
    name[i] = '\0';
    lk_error_set(&err, LK_IO, "%s", name);
    i = strlen(err.message);
    assert_true(i > 1000 && i < sizeof err.message);
    assert_string_equal(err.message + i - 3, "...");
    assert_memory_equal(err.message + i - 5, "\xc3\xa4", 2);
    lk_error_set(&err, LK_IO, ".%s", name);
    i = strlen(err.message);
    assert_memory_equal(err.message + i - 5, "\xc3\xa4", 2);
    lk_error_errno(&err, ENOENT, "%s", name);
    assert_int_equal(err.code, ENOENT);
    assert_true(strlen(err.message) < sizeof err.message);
}

static void every_kind_has_a_name(void **state)
{
    static const char *const names[] = {"ok",   "usage",     "denied",    "not_found", "conflict",
                                        "auth", "throttled", "timeout",   "network",   "exit",
                                        "io",   "corrupt",   "cancelled", "memory"};
    int i;

    (void)state;
    for (i = LK_OK; i <= LK_MEMORY; i++)
        assert_string_equal(lk_kind_name((enum lk_kind)i), names[i]);
    assert_non_null(lk_kind_name((enum lk_kind)1000));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sets_all_fields),
        cmocka_unit_test(allows_null),
        cmocka_unit_test(names_the_errno),
        cmocka_unit_test(kinds_fit_the_errno),
        cmocka_unit_test(builds_on_its_own_message),
        cmocka_unit_test(cuts_long_texts_at_a_character),
        cmocka_unit_test(every_kind_has_a_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
