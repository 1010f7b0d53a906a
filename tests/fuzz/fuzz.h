/* SPDX-License-Identifier: MIT
 * fuzz.h - what the libFuzzer targets share: bytes of the input taken one by one, a pool of threads
 * for all inputs, streams of bytes. A target that sees what must not be calls must(), which ends
 * the process, and libFuzzer keeps the input. */
#ifndef LK_FUZZ_H
#define LK_FUZZ_H

#include "gzip.h"
#include "member.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);
/* libFuzzer's own mutation, and the hook for one of the target's. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed);

/* As assert, but never compiled out. */
#define must(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: must hold: %s\n", __FILE__, __LINE__, #condition);             \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* The first byte of the input; 0 when there is none left. */
static inline unsigned take_byte(const uint8_t **data, size_t *size)
{
    if (*size == 0)
        return 0;
    --*size;
    return *(*data)++;
}

/* One pool for all inputs. */
static inline struct lk_pool *fuzz_pool(void)
{
    static struct lk_pool *pool;
    if (!pool)
        pool = lk_pool_new(1, NULL);
    must(pool);
    return pool;
}

/* A stream of the bytes, the first chunk of `piece` bytes and each one twice as long as the one
 * before. */
static inline struct lk_stream *fuzz_stream(const uint8_t *data, size_t size, size_t piece)
{
    struct lk_stream *stream = lk_stream_new(40, NULL);
    must(stream && piece > 0);
    for (size_t at = 0; at < size; piece *= 2) {
        size_t n = size - at < piece ? size - at : piece;
        struct lk_chunk *chunk = lk_chunk_alloc(n, NULL);
        must(chunk);
        memcpy(chunk->data, data + at, n);
        chunk->len = chunk->raw_len = n;
        must(lk_stream_write(stream, chunk, NULL) == 0);
        at += n;
    }
    lk_stream_end(stream, NULL);
    lk_stream_unref(stream);
    return stream;
}

#endif
