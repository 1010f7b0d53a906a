/* SPDX-License-Identifier: MIT
 * gzip_bytes.h - runs bytes through the gzip stages and gets bytes back, for tests. */
#ifndef LK_TEST_GZIP_BYTES_H
#define LK_TEST_GZIP_BYTES_H

#include "gzip.h"
#include "index.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct bytes {
    unsigned char *data;
    size_t len, cap;
    size_t longest; /* chunk */
    int rc;         /* 0, or -1 with err */
    struct lk_error err;
};

static inline void add_bytes(struct bytes *b, const void *data, size_t len)
{
    if (b->len + len > b->cap) {
        b->cap = (b->len + len) * 2 + 64;
        b->data = realloc(b->data, b->cap);
        assert_non_null(b->data);
    }
    if (len > 0) {
        memcpy(b->data + b->len, data, len);
    }
    b->len += len;
}

/* Reads a stream to its end and drops it. */
static inline struct bytes collect(struct lk_stream *stream)
{
    struct bytes b = {0};
    struct lk_chunk *chunk;
    int rc;

    assert_non_null(stream);
    while ((rc = lk_stream_read(stream, &chunk, &b.err)) == LK_STREAM_DATA) {
        add_bytes(&b, chunk->data, chunk->len);
        b.longest = chunk->len > b.longest ? chunk->len : b.longest;
        lk_chunk_unref(chunk);
    }
    b.rc = rc;
    lk_stream_unref(stream);
    return b;
}

/* A stream of the bytes in chunks of `piece`, queued as a whole. */
static inline struct lk_stream *stream_of(const void *data, size_t len, size_t piece)
{
    struct lk_stream *stream = lk_stream_new((int)(len / piece + 2), NULL);

    for (size_t at = 0; at < len; at += piece) {
        size_t n = len - at < piece ? len - at : piece;
        struct lk_chunk *chunk = lk_chunk_alloc(n, NULL);
        assert_non_null(chunk);
        memcpy(chunk->data, (const char *)data + at, n);
        chunk->len = chunk->raw_len = n;
        assert_int_equal(lk_stream_write(stream, chunk, NULL), 0);
    }
    lk_stream_end(stream, NULL);
    lk_stream_unref(stream);
    return stream;
}

static inline struct bytes compress_bytes(struct lk_pool *pool, const void *data, size_t len,
                                          size_t piece, const struct lk_gzip_options *options,
                                          struct lk_gzip_stats *stats)
{
    struct lk_error err;

    return collect(lk_gzip(pool, stream_of(data, len, piece), options, stats, &err));
}

static inline struct bytes expand_bytes(struct lk_pool *pool, const void *data, size_t len,
                                        size_t piece)
{
    struct lk_error err;

    return collect(lk_gunzip(pool, stream_of(data, len, piece), 4, &err));
}

/* The same bytes in every run. */
static inline uint32_t next_random(uint32_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 17;
    *seed ^= *seed << 5;
    return *seed;
}

static inline void fill_random(unsigned char *data, size_t len, uint32_t seed)
{
    for (size_t i = 0; i < len; i++) {
        data[i] = (unsigned char)(next_random(&seed) >> 11);
    }
}

/* Words in a random order: about a quarter of its size when compressed. */
static inline void fill_text(unsigned char *data, size_t len, uint32_t seed)
{
    static const char *const words[] = {"backup ", "archive ",  "member ", "index ", "restore ",
                                        "store ",  "manifest ", "policy ", "part\n", "stream "};
    size_t at = 0;

    while (at < len) {
        const char *word = words[next_random(&seed) % 10];
        size_t n = strlen(word) < len - at ? strlen(word) : len - at;
        memcpy(data + at, word, n);
        at += n;
    }
}

#endif
