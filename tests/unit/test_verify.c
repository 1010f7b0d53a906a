/* SPDX-License-Identifier: MIT
 * test_verify.c - what was stored is told from what was not: size, hash, the source's own failure.
 */
#include "verify.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

/* SHA-256 of "abc", from FIPS 180-2. */
static const unsigned char abc[32] = {
    0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea, 0x41, 0x41, 0x40, 0xde, 0x5d, 0xae, 0x22, 0x23,
    0xb0, 0x03, 0x61, 0xa3, 0x96, 0x17, 0x7a, 0x9c, 0xb4, 0x10, 0xff, 0x61, 0xf2, 0x00, 0x15, 0xad};

static int set_up(void **state)
{
    *state = lk_pool_new(1, NULL);
    return *state ? 0 : -1;
}

static int tear_down(void **state)
{
    lk_pool_free(*state);
    return 0;
}

static struct lk_expected expect(uint64_t size, bool hashed)
{
    struct lk_expected expected = {.size = size, .hashed = hashed, .name = "key 'a'"};
    memcpy(expected.sha256, abc, sizeof abc);
    return expected;
}

/* Reads to the end: what the last read gave, and how much came before it. */
static int read_out(struct lk_stream *stream, size_t *len, struct lk_error *err)
{
    struct lk_chunk *chunk;
    int rc;

    *len = 0;
    while ((rc = lk_stream_read(stream, &chunk, err)) == LK_STREAM_DATA) {
        *len += chunk->len;
        lk_chunk_unref(chunk);
    }
    lk_stream_unref(stream);
    return rc;
}

static int verify(struct lk_pool *pool, const char *text, const struct lk_expected *expected,
                  size_t *len, struct lk_error *err)
{
    struct lk_stream *input = lk_stream_of_bytes(text, strlen(text), err);
    assert_non_null(input);
    struct lk_stream *output = lk_stream_verify(pool, input, expected, err);
    assert_non_null(output);
    return read_out(output, len, err);
}

static void what_is_right_passes(void **state)
{
    const struct lk_expected all = expect(3, true), size = expect(3, false),
                             hash = expect(LK_ANY_SIZE, true), none = expect(LK_ANY_SIZE, false),
                             empty = expect(0, false);
    struct lk_error err;
    size_t len;

    assert_int_equal(verify(*state, "abc", &all, &len, &err), LK_STREAM_DONE);
    assert_int_equal(len, 3);
    assert_int_equal(verify(*state, "abc", &size, &len, &err), LK_STREAM_DONE);
    assert_int_equal(verify(*state, "abc", &hash, &len, &err), LK_STREAM_DONE);
    assert_int_equal(verify(*state, "other", &none, &len, &err), LK_STREAM_DONE);
    assert_int_equal(verify(*state, "", &empty, &len, &err), LK_STREAM_DONE);
}

static void what_is_wrong_fails(void **state)
{
    const struct lk_expected all = expect(3, true), hash = expect(LK_ANY_SIZE, true);
    struct lk_error err;
    size_t len;

    assert_int_equal(verify(*state, "ab", &all, &len, &err), -1);
    assert_int_equal(err.kind, LK_CORRUPT);
    assert_string_equal(err.message, "key 'a' is damaged: 2 bytes read, 3 expected");
    assert_int_equal(verify(*state, "abcd", &all, &len, &err), -1);
    assert_string_equal(err.message, "key 'a' is damaged: at least 4 bytes read, 3 expected");
    assert_int_equal(len, 0); /* no byte too many is let through */
    assert_int_equal(verify(*state, "abd", &hash, &len, &err), -1);
    assert_int_equal(err.kind, LK_CORRUPT);
    assert_string_equal(
        err.message, "key 'a' is damaged: SHA-256 "
                     "a52d159f262b2c6ddb724a61840befc36eb30c88877a4030b65cbe86298449c9 read, "
                     "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad expected");
    assert_int_equal(verify(*state, "", &hash, &len, &err), -1);
    assert_int_equal(err.kind, LK_CORRUPT);
}

static void a_failed_source_stays_failed(void **state)
{
    const struct lk_expected all = expect(3, true);
    struct lk_error failure, err;
    size_t len;
    struct lk_stream *input = lk_stream_new(1, &err);

    lk_error_set(&failure, LK_EXIT, "program 'x' exited with code 1");
    lk_stream_end(input, &failure);
    lk_stream_unref(input);
    struct lk_stream *output = lk_stream_verify(*state, input, &all, &err);
    assert_non_null(output);
    assert_int_equal(read_out(output, &len, &err), -1);
    assert_int_equal(err.kind, LK_EXIT);
    assert_string_equal(err.message, failure.message);
}

/* The source hears of it, and its producer is not left waiting. */
static void a_cancel_reaches_the_source(void **state)
{
    const struct lk_expected all = expect(3, true);
    struct lk_error err;
    struct lk_stream *input = lk_stream_new(1, &err);
    struct lk_stream *output = lk_stream_verify(*state, input, &all, &err);

    assert_non_null(output);
    lk_stream_cancel(output);
    lk_stream_unref(output);
    struct lk_chunk *chunk;
    do
        chunk = lk_chunk_alloc(1, &err);
    while (lk_stream_write(input, chunk, &err) == 0);
    assert_int_equal(err.kind, LK_CANCELLED);
    lk_stream_unref(input);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_right_passes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_wrong_fails, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_failed_source_stays_failed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_cancel_reaches_the_source, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
