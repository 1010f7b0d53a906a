/* SPDX-License-Identifier: MIT
 * test_buf.c - buffers grow, stop at their maximum, and end in a NUL. */
#include "buf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

static void adds_bytes(void **state)
{
    struct lk_buf buf;
    int i;

    (void)state;
    lk_buf_init(&buf, 10000);
    assert_null(buf.data);
    for (i = 0; i < 1000; i++)
        assert_int_equal(lk_buf_add(&buf, "a\0b", 3, NULL), 0);
    assert_int_equal(buf.len, 3000);
    assert_memory_equal(buf.data + 2997, "a\0b", 4);
    lk_buf_free(&buf);
    assert_null(buf.data);
    assert_int_equal(lk_buf_add(&buf, "x", 1, NULL), 0);
    assert_string_equal(buf.data, "x");
    lk_buf_free(&buf);
}

static void adding_nothing_gives_an_empty_string(void **state)
{
    struct lk_buf buf;

    (void)state;
    lk_buf_init(&buf, 0);
    assert_int_equal(lk_buf_add(&buf, NULL, 0, NULL), 0);
    assert_string_equal(buf.data, "");
    lk_buf_free(&buf);
}

static void stops_at_the_maximum(void **state)
{
    struct lk_error err;
    struct lk_buf buf;

    (void)state;
    lk_buf_init(&buf, 100);
    assert_int_equal(lk_buf_printf(&buf, &err, "%99d", 7), 0);
    assert_int_equal(lk_buf_add(&buf, "ab", 2, &err), -1);
    assert_int_equal(err.kind, LK_MEMORY);
    assert_string_equal(err.message, "a buffer would pass its maximum of 100 bytes");
    assert_int_equal(buf.len, 99);
    assert_int_equal(lk_buf_add(&buf, "a", 1, &err), 0);
    assert_int_equal(buf.len, 100);
    assert_true(buf.cap <= 101);
    assert_int_equal(buf.data[100], 0);
    assert_int_equal(lk_buf_printf(&buf, &err, "%s", "x"), -1);
    assert_null(lk_buf_room(&buf, SIZE_MAX, &err));
    assert_int_equal(lk_buf_printf(&buf, &err, "%s", ""), 0);
    lk_buf_free(&buf);
}

static void no_maximum_does_not_overflow(void **state)
{
    struct lk_buf buf;

    (void)state;
    lk_buf_init(&buf, SIZE_MAX);
    assert_int_equal(lk_buf_add(&buf, "abc", 3, NULL), 0);
    assert_null(lk_buf_room(&buf, SIZE_MAX - 3, NULL));
    assert_null(lk_buf_room(&buf, SIZE_MAX, NULL));
    assert_string_equal(buf.data, "abc");
    lk_buf_free(&buf);
}

static void formats(void **state)
{
    struct lk_buf buf;
    char *room;

    (void)state;
    lk_buf_init(&buf, 1000);
    assert_int_equal(lk_buf_printf(&buf, NULL, "%s=%d;", "a", 1), 0);
    assert_int_equal(lk_buf_printf(&buf, NULL, "%200s", "b"), 0);
    assert_int_equal(buf.len, 204);
    assert_memory_equal(buf.data, "a=1;   ", 7);
    room = lk_buf_room(&buf, 3, NULL);
    assert_ptr_equal(room, buf.data + 204);
    memcpy(room, "xyz", 4);
    buf.len += 3;
    assert_string_equal(buf.data + 203, "bxyz");
    lk_buf_free(&buf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adds_bytes),
        cmocka_unit_test(adding_nothing_gives_an_empty_string),
        cmocka_unit_test(stops_at_the_maximum),
        cmocka_unit_test(no_maximum_does_not_overflow),
        cmocka_unit_test(formats),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
