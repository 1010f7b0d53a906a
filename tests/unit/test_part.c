/* SPDX-License-Identifier: MIT
 * test_part.c - streams cut into parts: sizes, order, `last`, hashes, failure, and freeing at any
 * moment. The digests of the test data were made with Python's hashlib. */
#include "part.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TOTAL = 250000, SIZE = 100000 };

static const char *const part_sha256[] = {
    "69608808aa2a30317bebbe19c1f295e28059d3c3f848bd95efb29a60fec9f886",
    "eea50aacb4a5f9fa4e7e6532135563a129429eb51d7f84a6f9fae539ac82c889",
    "30b263351f5a498335c3760ffbd50fc3034b976506db8d7dee8d336a45ede28d"};
static const char *const part_md5[] = {"c752b1c5795446c096ccd2d09ead9ace",
                                       "8fa3879234107af62f852ea9078b7062",
                                       "9ace1a0ce45c2f5ce3efb19654706570"};
static const char total_sha256[] =
    "753dde6e6c14fbb2f091c507487d1661932cc8e3549f5b66f1eb35fe498535f4";
static const char empty_sha256[] =
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

static struct lk_loop *loop;
static struct lk_pool *pool;
static unsigned char *data;
static int news_count, fds_before;

static int count_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int n = 0;

    while (dir && readdir(dir))
        n++;
    if (dir)
        closedir(dir);
    return n;
}

static int set_up(void **state)
{
    size_t i;

    (void)state;
    fds_before = count_fds();
    news_count = 0;
    loop = lk_loop_new(NULL);
    pool = lk_pool_new(2, NULL);
    data = malloc(TOTAL);
    if (!loop || !pool || !data)
        return -1;
    for (i = 0; i < TOTAL; i++)
        data[i] = (unsigned char)(i * 31 + (i >> 8) * 7 + (i >> 16));
    return 0;
}

/* Whatever a test does, nothing is left: the pool waits for the stage, and no event may be queued.
 */
static int tear_down(void **state)
{
    (void)state;
    lk_pool_free(pool);
    while (lk_loop_step(loop, 0, NULL) > 0)
        continue;
    lk_loop_free(loop);
    free(data);
    return count_fds() == fds_before ? 0 : -1;
}

static void news(void *arg)
{
    assert_ptr_equal(arg, &news_count);
    news_count++;
}

static struct lk_parts *start(struct lk_stream *input, size_t size, int width, const char *dir)
{
    const struct lk_parts_options options = {.size = size,
                                             .width = width,
                                             .hashes = 1u << LK_SHA256 | 1u << LK_MD5,
                                             .totals = 1u << LK_SHA256,
                                             .spill_dir = dir};
    struct lk_error err;
    struct lk_parts *parts = lk_parts_new(loop, pool, input, &options, news, &news_count, &err);

    if (!parts)
        fail_msg("%s", err.message);
    return parts;
}

/* A stream of the first len bytes in chunks of `chunk` bytes. */
static struct lk_stream *in_chunks(size_t len, size_t chunk_size)
{
    struct lk_stream *stream = lk_stream_new((int)(len / chunk_size) + 1, NULL);
    size_t at, n;

    for (at = 0; at < len; at += n) {
        struct lk_chunk *chunk = lk_chunk_alloc(chunk_size, NULL);

        n = len - at < chunk_size ? len - at : chunk_size;
        memcpy(chunk->data, data + at, n);
        chunk->len = chunk->raw_len = n;
        lk_stream_write(stream, chunk, NULL);
    }
    lk_stream_end(stream, NULL);
    lk_stream_unref(stream);
    return stream;
}

/* The next part, waiting for news. */
static int next(struct lk_parts *parts, struct lk_part **part, struct lk_error *err)
{
    int rc;

    while ((rc = lk_parts_next(parts, part, err)) == LK_STREAM_AGAIN)
        assert_true(lk_loop_step(loop, 5000, NULL) >= 0);
    return rc;
}

static void expect_digest(const unsigned char *digest, size_t len, const char *hex)
{
    char text[2 * LK_DIGEST_MAX + 1];
    size_t i;

    for (i = 0; i < len; i++)
        snprintf(text + 2 * i, 3, "%02x", digest[i]);
    assert_string_equal(text, hex);
}

static void expect_part(struct lk_part *part, int number, size_t offset, size_t size, bool last)
{
    unsigned char *back = malloc(size + 1);

    assert_int_equal(part->number, number);
    assert_int_equal(part->offset, offset);
    assert_int_equal(part->size, size);
    assert_int_equal(part->last, last);
    assert_int_equal(lk_part_read(part, 0, back, size + 1, NULL), size);
    assert_memory_equal(back, data + offset, size);
    if (size > 10) {
        assert_int_equal(lk_part_read(part, size - 10, back, 100, NULL), 10);
        assert_memory_equal(back, data + offset + size - 10, 10);
    }
    assert_int_equal(lk_part_read(part, size, back, 1, NULL), 0);
    free(back);
}

static void cut_and_check(size_t chunk_size, const char *dir)
{
    struct lk_parts *parts = start(in_chunks(TOTAL, chunk_size), SIZE, 2, dir);
    struct lk_part *part;
    int i;

    for (i = 0; i < 3; i++) {
        assert_int_equal(next(parts, &part, NULL), LK_STREAM_DATA);
        expect_part(part, i + 1, (size_t)i * SIZE, i < 2 ? SIZE : TOTAL - 2 * SIZE, i == 2);
        expect_digest(part->hash[LK_SHA256], 32, part_sha256[i]);
        expect_digest(part->hash[LK_MD5], 16, part_md5[i]);
        assert_int_equal(part->fd >= 0, dir != NULL);
        assert_int_equal(part->data == NULL, dir != NULL);
        lk_part_unref(part);
    }
    assert_int_equal(next(parts, &part, NULL), LK_STREAM_DONE);
    assert_null(part);
    assert_int_equal(lk_parts_bytes(parts), TOTAL);
    expect_digest(lk_parts_total(parts, LK_SHA256), 32, total_sha256);
    assert_null(lk_parts_total(parts, LK_MD5));
    lk_parts_free(parts);
}

static void cuts_into_parts(void **state)
{
    (void)state;
    cut_and_check(7777, NULL);
    cut_and_check(TOTAL, NULL);
    cut_and_check(SIZE, NULL);
}

static void spills_to_files_without_a_name(void **state)
{
    char dir[] = "/tmp/lunark-test-part-XXXXXX";

    (void)state;
    assert_non_null(mkdtemp(dir));
    cut_and_check(7777, dir);
    assert_int_equal(rmdir(dir), 0); /* nothing is in it */
}

/* 200,000 bytes are two full parts: the second is the last one, and no empty third follows. */
static void a_full_last_part_is_the_last(void **state)
{
    struct lk_parts *parts = start(in_chunks(2 * SIZE, 1000), SIZE, 2, NULL);
    struct lk_part *part;

    (void)state;
    assert_int_equal(next(parts, &part, NULL), LK_STREAM_DATA);
    expect_part(part, 1, 0, SIZE, false);
    lk_part_unref(part);
    assert_int_equal(next(parts, &part, NULL), LK_STREAM_DATA);
    expect_part(part, 2, SIZE, SIZE, true);
    lk_part_unref(part);
    assert_int_equal(next(parts, &part, NULL), LK_STREAM_DONE);
    lk_parts_free(parts);
}

static void an_empty_stream_is_one_empty_part(void **state)
{
    const char *const dirs[] = {NULL, "/tmp"};
    struct lk_part *part;
    int i;

    (void)state;
    for (i = 0; i < 2; i++) {
        struct lk_parts *parts = start(lk_stream_of_bytes("", 0, NULL), SIZE, 2, dirs[i]);

        assert_int_equal(next(parts, &part, NULL), LK_STREAM_DATA);
        expect_part(part, 1, 0, 0, true);
        expect_digest(part->hash[LK_SHA256], 32, empty_sha256);
        lk_part_unref(part);
        assert_int_equal(next(parts, &part, NULL), LK_STREAM_DONE);
        expect_digest(lk_parts_total(parts, LK_SHA256), 32, empty_sha256);
        lk_parts_free(parts);
    }
}

static void a_full_part_is_held_back_until_more_is_known(void **state)
{
    struct lk_stream *input = lk_stream_new(4, NULL);
    struct lk_parts *parts = start(lk_stream_ref(input), 10, 2, NULL);
    struct lk_chunk *chunk = lk_chunk_alloc(10, NULL);
    struct lk_part *part;

    (void)state;
    memcpy(chunk->data, data, 10);
    chunk->len = 10;
    lk_stream_write(input, chunk, NULL);
    lk_loop_step(loop, 50, NULL);
    assert_int_equal(lk_parts_next(parts, &part, NULL), LK_STREAM_AGAIN);
    assert_int_equal(news_count, 0);
    lk_stream_end(input, NULL);
    assert_int_equal(next(parts, &part, NULL), LK_STREAM_DATA);
    expect_part(part, 1, 0, 10, true);
    lk_part_unref(part);
    assert_int_equal(next(parts, &part, NULL), LK_STREAM_DONE);
    lk_parts_free(parts);
    lk_stream_unref(input);
    lk_stream_unref(input);
}

/* Parts that are held bound the memory: the third waits until one has gone. */
static void at_most_width_parts_exist(void **state)
{
    struct lk_parts *parts = start(in_chunks(TOTAL, 5000), 50000, 2, NULL);
    struct lk_part *held[2], *part;

    (void)state;
    assert_int_equal(next(parts, &held[0], NULL), LK_STREAM_DATA);
    assert_int_equal(next(parts, &held[1], NULL), LK_STREAM_DATA);
    while (lk_loop_step(loop, 30, NULL) > 0)
        continue;
    assert_int_equal(lk_parts_next(parts, &part, NULL), LK_STREAM_AGAIN);
    assert_int_equal(lk_parts_bytes(parts), 100000);
    lk_part_ref(held[1]);
    lk_part_unref(held[1]);
    lk_part_unref(held[0]);
    assert_int_equal(next(parts, &part, NULL), LK_STREAM_DATA);
    expect_part(part, 3, 100000, 50000, false);
    expect_part(held[1], 2, 50000, 50000, false);
    lk_part_unref(part);
    lk_parts_free(parts);
    expect_part(held[1], 2, 50000, 50000, false); /* stays valid without its parts */
    lk_part_unref(held[1]);
}

static void a_failed_stream_gives_no_further_part(void **state)
{
    struct lk_stream *input = lk_stream_new(40, NULL);
    struct lk_parts *parts = start(input, 10, 8, NULL);
    struct lk_error failure, err;
    struct lk_part *part;
    int i;

    (void)state;
    for (i = 0; i < 3; i++) {
        struct lk_chunk *chunk = lk_chunk_alloc(10, NULL);

        memset(chunk->data, i, 10);
        chunk->len = 10;
        lk_stream_write(input, chunk, NULL);
    }
    while (lk_parts_next(parts, &part, NULL) != LK_STREAM_DATA)
        lk_loop_step(loop, 100, NULL);
    lk_part_unref(part);
    lk_error_set(&failure, LK_EXIT, "pg_dump ended with 1");
    lk_stream_end(input, &failure);
    lk_stream_unref(input);
    /* The failure overtakes what was waiting; what comes before it must not be the last part. */
    while ((i = next(parts, &part, &err)) == LK_STREAM_DATA) {
        assert_false(part->last);
        lk_part_unref(part);
    }
    assert_int_equal(i, -1);
    assert_int_equal(err.kind, LK_EXIT);
    assert_string_equal(err.message, "pg_dump ended with 1");
    assert_int_equal(lk_parts_next(parts, &part, &err), -1);
    lk_parts_free(parts);
}

static void a_missing_directory_fails(void **state)
{
    struct lk_parts *parts = start(in_chunks(1000, 100), 100, 2, "/nonexistent/dir");
    struct lk_error err;
    struct lk_part *part;

    (void)state;
    assert_int_equal(next(parts, &part, &err), -1);
    assert_int_equal(err.kind, LK_NOT_FOUND);
    assert_string_equal(err.message,
                        "no temporary file in /nonexistent/dir: no such file or directory");
    lk_parts_free(parts);
}

static void refuses_nonsense(void **state)
{
    struct lk_parts_options options = {.size = 0, .width = 2};
    struct lk_error err;

    (void)state;
    assert_null(lk_parts_new(loop, pool, lk_stream_of_bytes("a", 1, NULL), &options, news,
                             &news_count, &err));
    assert_int_equal(err.kind, LK_USAGE);
    options.size = 10;
    options.hashes = 1u << LK_DIGEST_COUNT;
    assert_null(lk_parts_new(loop, pool, lk_stream_of_bytes("a", 1, NULL), &options, news,
                             &news_count, &err));
    lk_parts_free(NULL);
    lk_part_unref(NULL);
}

static void without_hashes(void **state)
{
    const struct lk_parts_options options = {.size = SIZE, .width = 1};
    struct lk_parts *parts =
        lk_parts_new(loop, pool, in_chunks(TOTAL, 9000), &options, news, &news_count, NULL);
    struct lk_part *part;
    int n = 0;

    (void)state;
    for (; next(parts, &part, NULL) == LK_STREAM_DATA; n++) {
        assert_int_equal(part->hashes, 0);
        lk_part_unref(part);
    }
    assert_int_equal(n, 3);
    lk_parts_free(parts);
}

/* Freed while the stage reads, waits for room, hashes, or is done; with and without parts still
 * held. */
static void can_be_freed_at_any_moment(void **state)
{
    struct lk_part *held[2] = {NULL, NULL};
    int i;

    (void)state;
    for (i = 0; i < 120; i++) {
        struct lk_stream *input = i % 3 ? in_chunks(TOTAL, 3000) : lk_stream_new(2, NULL);
        struct lk_stream *mine = i % 3 ? NULL : lk_stream_ref(input);
        struct lk_parts *parts = start(input, 20000, 2, i % 4 ? NULL : "/tmp");

        if (i % 5 > 0)
            usleep((useconds_t)(i % 5 * 150));
        if (i % 2)
            lk_parts_next(parts, &held[0], NULL);
        lk_parts_free(parts);
        news_count = 0;
        if (mine) {
            while (lk_stream_state(mine) == LK_END_OPEN)
                usleep(100);
            lk_stream_end(mine, NULL);
            lk_stream_unref(mine);
            lk_stream_unref(mine);
        }
        lk_loop_step(loop, 0, NULL);
        assert_int_equal(news_count, 0); /* no news after it was freed */
        lk_part_unref(held[0]);
        held[0] = NULL;
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(cuts_into_parts),
        TEST(spills_to_files_without_a_name),
        TEST(a_full_last_part_is_the_last),
        TEST(an_empty_stream_is_one_empty_part),
        TEST(a_full_part_is_held_back_until_more_is_known),
        TEST(at_most_width_parts_exist),
        TEST(a_failed_stream_gives_no_further_part),
        TEST(a_missing_directory_fails),
        TEST(refuses_nonsense),
        TEST(without_hashes),
        TEST(can_be_freed_at_any_moment),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
