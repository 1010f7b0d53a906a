/* SPDX-License-Identifier: MIT
 * check.c - any bytes as an archive whose data is verified. It ends, whatever the index says; and
 * what it finds nothing wrong with, the decompressor takes too, with as many bytes.
 *
 * Input: a byte of options, a byte that says how long the first chunk is, then the archive. The
 * index blocks that are given to the check are those that the members' headers lead to. The mutator
 * makes the checksums of index members fit, because no change would get past them. */
#include "fuzz.h"

#include "check.h"
#include <semaphore.h>
#include <zlib.h>

enum { TAR = 1, SAMPLE = 2, TOLERANT = 4, HASH = 8, WALK = 16 };

static void news(void *arg)
{
    sem_post(arg);
}

/* Size of a member of ours, 0 = there is none. */
static size_t member_at(const uint8_t *data, size_t size, struct lk_member *m)
{
    if (size < LK_MEMBER_HEADER || !lk_member_parse(data, m) || m->size > size)
        return 0;
    return m->size;
}

/* Gives the next index block, or says that there is none; false then. */
static bool give(struct lk_check *check, const uint8_t *data, size_t size, size_t *at)
{
    struct lk_member m;
    struct lk_error err;
    size_t n;

    while ((n = member_at(data + *at, size - *at, &m)) > 0) {
        size_t here = *at;
        *at += n;
        if (m.type == LK_MEMBER_INDEX &&
            lk_check_block(check, data + here, n, here, m.raw % 3, 100, &err) == 0)
            return true;
    }
    lk_check_finish(check);
    return false;
}

static bool gunzips(const uint8_t *data, size_t size, uint64_t raw)
{
    struct lk_error err;
    struct lk_chunk *chunk;
    uint64_t out = 0;
    int rc;

    struct lk_stream *plain = lk_gunzip(fuzz_pool(), fuzz_stream(data, size, 4096), 2, &err);
    must(plain);
    while ((rc = lk_stream_read(plain, &chunk, &err)) == LK_STREAM_DATA) {
        out += chunk->len;
        lk_chunk_unref(chunk);
    }
    lk_stream_unref(plain);
    return rc == LK_STREAM_DONE && out == raw;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    unsigned bits = take_byte(&data, &size), first = take_byte(&data, &size);
    struct lk_check_options options = {.tar = bits & TAR,
                                       .sample = bits & SAMPLE,
                                       .tolerant = bits & TOLERANT,
                                       .hash = bits & HASH,
                                       .in_flight = 2};
    struct lk_check_stats *stats;
    struct lk_error err = {0};
    size_t at = 0;
    sem_t woken;
    int asked;

    sem_init(&woken, 0, 0);
    struct lk_check *check = lk_check_new(fuzz_pool(), fuzz_stream(data, size, 1 + first * 16),
                                          &options, news, &woken, &err);
    must(check);
    if (bits & WALK)
        lk_check_finish(check);
    while ((asked = lk_check_ask(check)) != LK_CHECK_ENDED) {
        if (asked == LK_CHECK_MORE)
            give(check, data, size, &at);
        else
            while (sem_wait(&woken))
                ;
    }
    if (lk_check_result(check, &stats, &err) < 0) {
        must(err.message[0] != '\0');
    } else {
        uint64_t seen = 0;
        for (struct lk_finding *f = stats->findings; f; f = f->next, seen++)
            must(f->first <= f->last && f->message && (f->is_file || f->path_len == 0));
        must(seen <= stats->finding_count);
        bool all = size > 0 && stats->finding_count == 0 && !options.sample && !options.tolerant;
        must(!all || gunzips(data, size, stats->raw));
    }
    lk_check_unref(check);
    sem_destroy(&woken);
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed)
{
    struct lk_member m;
    size_t n;

    size = LLVMFuzzerMutate(data, size, max);
    for (size_t at = 2; seed % 4 != 0 && at < size; at += n) {
        n = member_at(data + at, size - at, &m);
        if (n == 0)
            break;
        uint8_t *p = data + at + LK_MEMBER_HEADER;
        if (m.type != LK_MEMBER_DATA && m.payload >= 4 && LK_MEMBER_HEADER + m.payload <= n)
            lk_put32(p, (uint32_t)crc32(0, p + 4, (uInt)(m.payload - 4)));
    }
    return size;
}
