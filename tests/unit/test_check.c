/* SPDX-License-Identifier: MIT
 * test_check.c - verifying an archive: what is whole has no findings, each flipped byte has one or
 * shows in the hash, damage names the files in it, and nothing is left behind when it is cancelled.
 * tests/cli/test_verify.py looks at the same with the index read by a program of its own. */
#include "archive_help.h"
#include "gzip_bytes.h"

#include "check.h"
#include "crypto.h"
#include "index_reader.h"
#include "member.h"
#include "tar.h"
#include "tar_scan.h"
#include <pthread.h>

enum { SMALL = 40, LARGE = 3 << 20 };

struct wait {
    pthread_mutex_t mutex;
    pthread_cond_t change;
    bool told;
};

static void news(void *arg)
{
    struct wait *wait = arg;

    pthread_mutex_lock(&wait->mutex);
    wait->told = true;
    pthread_cond_signal(&wait->change);
    pthread_mutex_unlock(&wait->mutex);
}

static int ask(struct lk_check *check, struct wait *wait)
{
    int answer = lk_check_ask(check);

    while (answer == 0) {
        pthread_mutex_lock(&wait->mutex);
        while (!wait->told)
            pthread_cond_wait(&wait->change, &wait->mutex);
        wait->told = false;
        pthread_mutex_unlock(&wait->mutex);
        answer = lk_check_ask(check);
    }
    return answer;
}

/* --- an archive --- */

static struct bytes made; /* shared by all tests */

static int make(void **state)
{
    struct one_root one;
    unsigned char *data = malloc(LARGE);
    char name[64];

    if (world_new(state) != 0 || !data)
        return -1;
    struct world *w = *state;
    must(w->dir, "mkdir t");
    fill_text(data, LARGE, 1);
    for (int i = 0; i < SMALL; i++) {
        snprintf(name, sizeof name, "t/small%02d", i);
        write_file(w->dir, name, data + i, (size_t)i * 100);
    }
    write_file(w->dir, "t/large", data, LARGE);
    free(data);
    struct lk_error err;
    struct lk_archive *archive = lk_archive_new(one_root(&one, w, "t"), &err);
    struct lk_gzip_options options = {.level = LK_LEVEL_FAST, .index = true, .in_flight = 4};
    made =
        collect(lk_gzip(w->pool, lk_archive_stream(archive, w->pool, &err), &options, NULL, &err));
    lk_archive_unref(archive);
    return made.rc;
}

static int forget(void **state)
{
    free(made.data);
    made = (struct bytes){0};
    return world_free(state);
}

struct feed {
    struct lk_check *check;
    const unsigned char *file;
};

static int give_block(void *arg, const struct lk_block_ref *ref)
{
    struct feed *feed = arg;
    struct lk_error err;

    if (lk_check_block(feed->check, feed->file + ref->at, (size_t)ref->size, ref->at, 0, 0, &err) <
        0)
        assert_int_equal(lk_check_walk(feed->check, ref->at + ref->size, &err), 0);
    return 0;
}

/* Gives it the blocks that the list of an archive names. */
static void give_index(struct lk_check *check, const unsigned char *file, size_t size)
{
    struct feed feed = {.check = check, .file = file};
    struct lk_index_visitor visitor = {.block = give_block, .arg = &feed};
    struct lk_footer footer;
    struct lk_error err;

    if (lk_footer_read(file + size - LK_FOOTER_SIZE, size, &footer, &err) == 0)
        lk_list_read(file + footer.list_at, (size_t)footer.list_size, &visitor, &err);
}

static struct lk_check *check_bytes(struct world *w, const unsigned char *data, size_t len,
                                    bool by_index, struct wait *wait)
{
    struct lk_check_options options = {.tar = true, .hash = true, .in_flight = 3};
    struct lk_error err;

    *wait = (struct wait){PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false};
    struct lk_check *check =
        lk_check_new(w->pool, stream_of(data, len, 65536), &options, news, wait, &err);
    assert_non_null(check);
    assert_int_equal(lk_check_ask(check), LK_CHECK_MORE);
    if (by_index)
        give_index(check, data, len);
    lk_check_finish(check);
    return check;
}

static struct lk_check_stats *stats_of(struct lk_check *check, struct wait *wait)
{
    struct lk_check_stats *stats;
    struct lk_error err;

    assert_int_equal(ask(check, wait), LK_CHECK_ENDED);
    assert_int_equal(lk_check_result(check, &stats, &err), 0);
    return stats;
}

/* --- the tests --- */

static void test_whole(void **state)
{
    struct wait wait;
    unsigned char digest[LK_DIGEST_MAX];
    uint64_t bytes, files;

    assert_int_equal(lk_digest_of(LK_SHA256, made.data, made.len, digest, NULL), 0);
    for (int by_index = 0; by_index < 2; by_index++) {
        struct lk_check *check = check_bytes(*state, made.data, made.len, by_index, &wait);
        struct lk_check_stats *stats = stats_of(check, &wait);
        assert_null(stats->findings);
        assert_int_equal(stats->entries, SMALL + 2);
        assert_int_equal(stats->files, SMALL); /* one is empty, and there is the large one */
        assert_int_equal(stats->bytes, made.len);
        assert_int_equal(stats->unchecked, 0);
        assert_memory_equal(stats->sha256, digest, 32);
        lk_check_progress(check, &bytes, &files);
        assert_int_equal(bytes, made.len);
        assert_int_equal(files, SMALL);
        lk_check_unref(check);
    }
}

static void test_any_flipped_byte(void **state)
{
    struct wait wait;
    uint32_t seed = 20260131;
    unsigned named = 0;

    for (int round = 0; round < 150; round++) {
        size_t at = round < 40 ? (size_t)round : next_random(&seed) % made.len;
        made.data[at] ^= 1u << round % 8;
        struct lk_check *check = check_bytes(*state, made.data, made.len, round % 2, &wait);
        struct lk_check_stats *stats = stats_of(check, &wait);
        struct lk_finding *finding = stats->findings;
        for (; finding; finding = finding->next) {
            assert_true(finding->first <= finding->last && finding->last < made.len + 1);
            if (finding->is_file) {
                named++;
                assert_memory_equal(finding->path, "t", 1);
            }
        }
        assert_true(stats->bytes == made.len);
        lk_check_unref(check);
        made.data[at] ^= 1u << round % 8;
    }
    assert_true(named > 100);
}

static void test_cut_off_anywhere(void **state)
{
    struct wait wait;

    for (size_t len = 0; len < made.len; len += made.len / 23) {
        struct lk_check *check = check_bytes(*state, made.data, len, false, &wait);
        struct lk_check_stats *stats = stats_of(check, &wait);
        assert_true(stats->bytes == len && (len == 0 || stats->findings));
        lk_check_unref(check);
    }
}

static void test_cancelled(void **state)
{
    struct world *w = *state;
    struct wait wait;
    struct lk_error err;
    struct lk_check_stats *stats;

    struct lk_check *check = check_bytes(w, made.data, made.len, true, &wait);
    lk_check_unref(check); /* while it is at work */
    wait = (struct wait){PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false};
    struct lk_check_options options = {.tar = true, .in_flight = 1};
    check =
        lk_check_new(w->pool, stream_of(made.data, made.len, 1000), &options, news, &wait, &err);
    assert_non_null(check);
    give_index(check, made.data, made.len); /* and it waits for more */
    lk_check_cancel(check);
    assert_int_equal(ask(check, &wait), LK_CHECK_ENDED);
    assert_int_equal(lk_check_result(check, &stats, &err), -1);
    assert_int_equal(err.kind, LK_CANCELLED);
    lk_check_unref(check);
}

static void test_input_that_fails(void **state)
{
    struct world *w = *state;
    struct wait wait = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false};
    struct lk_check_options options = {.tar = true, .hash = true, .in_flight = 2};
    struct lk_stream *input = lk_stream_new(2, NULL);
    struct lk_check_stats *stats;
    struct lk_error err;

    lk_error_set(&err, LK_NETWORK, "the line broke");
    lk_stream_end(input, &err);
    lk_stream_unref(input);
    struct lk_check *check = lk_check_new(w->pool, input, &options, news, &wait, NULL);
    assert_non_null(check);
    lk_check_finish(check);
    assert_int_equal(ask(check, &wait), LK_CHECK_ENDED);
    assert_int_equal(lk_check_result(check, &stats, &err), -1);
    assert_int_equal(err.kind, LK_NETWORK);
    assert_string_equal(err.message, "the line broke");
    lk_check_unref(check);
}

/* What tar.c writes is read back, and nothing behind the end is looked at. */
static void test_tar_scan(void **state)
{
    struct lk_buf out;
    char path[300];
    struct lk_tar_item item;
    uint32_t seed = 7;

    (void)state;
    memset(path, 'p', sizeof path);
    for (size_t len = 1; len < sizeof path; len += 13) {
        lk_buf_init(&out, LK_TAR_HEADER_MAX);
        struct lk_tar_entry entry = {
            .path = path, .path_len = len, .type = '0', .size = (uint64_t)len << 32, .mtime = -1};
        assert_int_equal(lk_tar_header(&out, &entry, NULL), 0);
        assert_int_equal(lk_tar_scan((unsigned char *)out.data, out.len, 0, &item), 1);
        assert_true(item.data_at == out.len && item.size == entry.size && item.type == '0');
        assert_true(item.path_hash == lk_path_hash(path, len));
        for (size_t cut = 1; cut < out.len; cut += 97) {
            unsigned char *copy = malloc(cut);
            memcpy(copy, out.data, cut);
            assert_int_equal(lk_tar_scan(copy, cut, 0, &item), -1);
            free(copy);
        }
        for (int i = 0; i < 200; i++) {
            size_t at = next_random(&seed) % out.len;
            out.data[at] ^= (char)(1 << i % 8);
            lk_tar_scan((unsigned char *)out.data, out.len, 0, &item);
        }
        lk_buf_free(&out);
    }
    unsigned char zeros[1024] = {0};
    assert_int_equal(lk_tar_scan(zeros, sizeof zeros, 0, &item), 0);
    assert_int_equal(lk_tar_scan(zeros, sizeof zeros, sizeof zeros, &item), 0);
    zeros[1000] = 1;
    assert_int_equal(lk_tar_scan(zeros, sizeof zeros, 0, &item), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole),
        cmocka_unit_test(test_any_flipped_byte),
        cmocka_unit_test(test_cut_off_anywhere),
        cmocka_unit_test(test_cancelled),
        cmocka_unit_test(test_input_that_fails),
        cmocka_unit_test(test_tar_scan),
    };

    return cmocka_run_group_tests(tests, make, forget);
}
