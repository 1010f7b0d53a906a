/* SPDX-License-Identifier: MIT
 * test_cut.c - entries cut out of a tar: what comes out, and what does not fit the plan. */
#include "gzip_bytes.h"

#include "crypto.h"
#include "cut.h"
#include "member.h"
#include "tar.h"
#include <stdio.h>

struct entry {
    const char *path;
    char type;
    size_t size;
    size_t at, header; /* where it is in the tar */
};

static struct lk_pool *pool;
static struct bytes tar, plan;

static int set_up(void **state)
{
    (void)state;
    pool = lk_pool_new(2, NULL);
    tar.len = plan.len = 0;
    return pool ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    lk_pool_free(pool);
    return 0;
}

static unsigned char byte_of(const struct entry *e, size_t i)
{
    return (unsigned char)(e->path[0] + i * 7 + i / 251);
}

static void add_entry(struct entry *e)
{
    static const unsigned char zeros[512];
    struct lk_buf header;
    struct lk_tar_entry t = {.path = e->path,
                             .path_len = strlen(e->path),
                             .type = e->type,
                             .mode = 0644,
                             .size = e->size,
                             .mtime_ns = 5};

    lk_buf_init(&header, LK_TAR_HEADER_MAX);
    assert_int_equal(lk_tar_header(&header, &t, NULL), 0);
    e->at = tar.len;
    e->header = header.len;
    add_bytes(&tar, header.data, header.len);
    lk_buf_free(&header);
    for (size_t i = 0; i < e->size; i++) {
        unsigned char byte = byte_of(e, i);
        add_bytes(&tar, &byte, 1);
    }
    add_bytes(&tar, zeros, lk_tar_padding(e->size));
}

static void add_line(const struct entry *e, size_t skip, const char *path, size_t size,
                     unsigned flags, unsigned char flip)
{
    unsigned char line[LK_CUT_FIXED] = {0};
    size_t len = strlen(path);

    lk_put64(line, skip);
    lk_put32(line + 8, (uint32_t)e->header);
    lk_put64(line + 12, size);
    line[20] = (unsigned char)e->type;
    line[21] = (unsigned char)flags;
    lk_digest_of(LK_SHA256, tar.data + e->at + e->header, e->size, line + 22, NULL);
    line[22] ^= flip;
    lk_put16(line + 54, (unsigned)len);
    add_bytes(&plan, line, sizeof line);
    add_bytes(&plan, path, len);
}

/* Cuts; what came out, and the error's message or "". */
static struct bytes cut(bool bare, char *message, size_t room)
{
    struct lk_error err = {0};
    struct bytes out = {0};
    struct lk_chunk *chunk;
    int rc;
    struct lk_stream *input = lk_stream_of_bytes(tar.data, tar.len, &err);
    struct lk_stream *lines = lk_stream_of_bytes(plan.data, plan.len, &err);
    struct lk_stream *stream = lk_cut(pool, input, lines, bare, &err);

    assert_non_null(stream);
    while ((rc = lk_stream_read(stream, &chunk, &err)) == LK_STREAM_DATA) {
        add_bytes(&out, chunk->data, chunk->len);
        lk_chunk_unref(chunk);
    }
    assert_int_equal(rc < 0, err.kind != LK_OK);
    snprintf(message, room, "%s", rc < 0 ? err.message : "");
    lk_stream_unref(stream);
    return out;
}

static struct entry entries[] = {{"a", '0', 700000, 0, 0},
                                 {"long/p\xc3\xa4th", '0', 3, 0, 0},
                                 {"dir/", '5', 0, 0, 0},
                                 {"dir/last", '0', 512, 0, 0}};

static void add_all(void)
{
    for (size_t i = 0; i < sizeof entries / sizeof *entries; i++)
        add_entry(&entries[i]);
}

static void takes_what_the_plan_says(void **state)
{
    char message[1024];
    const struct entry *one = &entries[1], *two = &entries[2], *three = &entries[3];

    (void)state;
    add_all();
    size_t end = one->at + one->header + one->size;
    add_line(one, one->at, one->path, one->size, LK_CUT_HASHED, 0);
    add_line(two, two->at - end, "dir", 0, 0, 0);
    add_line(three, 0, "dir/la", three->size, LK_CUT_HASHED | LK_CUT_PATH, 0);
    struct bytes out = cut(false, message, sizeof message);
    assert_string_equal(message, "");
    assert_int_equal(out.len, tar.len - one->at + LK_TAR_END_SIZE);
    assert_memory_equal(out.data, tar.data + one->at, tar.len - one->at);
    free(out.data);
    out = cut(true, message, sizeof message);
    assert_string_equal(message, "");
    assert_int_equal(out.len, one->size + three->size);
    free(out.data);
}

static void nothing_is_an_empty_tar(void **state)
{
    char message[1024];

    (void)state;
    add_all();
    struct bytes out = cut(false, message, sizeof message);
    assert_string_equal(message, "");
    assert_int_equal(out.len, LK_TAR_END_SIZE);
    free(out.data);
}

/* A plan that lies, and how it is noticed. The last byte of a file never comes out before. */
static void tells_what_does_not_fit(void **state)
{
    const struct entry *a = &entries[0];
    char message[1024];
    struct {
        size_t skip;
        const char *path;
        size_t size;
        unsigned flags, flip;
        const char *message;
    } cases[] = {
        {0, "b", 700000, LK_CUT_HASHED, 0, "'a', where 'b' should be"},
        {0, "a/b", 700000, LK_CUT_HASHED, 0, "'a', where 'a/b' should be"},
        {0, "a", 700000, LK_CUT_PATH, 0, "'a', where 'a' should be"},
        {0, "a", 699999, 0, 0, "another type or size"},
        {0, "a", 700000, LK_CUT_HASHED, 1, "data with another SHA-256"},
        {512, "a", 700000, LK_CUT_HASHED, 0, "no tar header"},
        {700000, "a", 700000, 0, 0, "no tar header"},
        {1u << 30, "a", 700000, 0, 0, "no more bytes in the members"},
    };

    (void)state;
    add_all();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        plan.len = 0;
        add_line(a, cases[i].skip, cases[i].path, cases[i].size, cases[i].flags,
                 (unsigned char)cases[i].flip);
        struct bytes out = cut(false, message, sizeof message);
        assert_non_null(strstr(message, cases[i].message));
        assert_true(out.len < a->header + a->size);
        free(out.data);
    }
    plan.len = 30;
    struct bytes out = cut(false, message, sizeof message);
    assert_non_null(strstr(message, "ends in the middle of a line"));
    free(out.data);
}

static void can_be_cancelled(void **state)
{
    struct lk_error err;

    (void)state;
    struct lk_stream *input = lk_stream_new(1, &err), *lines = lk_stream_new(1, &err);
    struct lk_stream *stream = lk_cut(pool, input, lines, false, &err);
    assert_non_null(stream);
    lk_stream_cancel(stream);
    lk_stream_unref(stream);
    lk_stream_unref(input);
    lk_stream_unref(lines);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(takes_what_the_plan_says, set_up, tear_down),
        cmocka_unit_test_setup_teardown(nothing_is_an_empty_tar, set_up, tear_down),
        cmocka_unit_test_setup_teardown(tells_what_does_not_fit, set_up, tear_down),
        cmocka_unit_test_setup_teardown(can_be_cancelled, set_up, tear_down),
    };
    int result = cmocka_run_group_tests(tests, NULL, NULL);
    free(tar.data);
    free(plan.data);
    return result;
}
