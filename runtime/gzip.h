/* SPDX-License-Identifier: MIT
 * gzip.h - gzip members in parallel: compression and decompression stages, and the engines behind
 * them. Stages run on threads of the pool; the functions here may be called from any thread.
 * Format: docs/format.md. */
#ifndef LK_GZIP_H
#define LK_GZIP_H

#include "stream.h"

/* A member holds at most this much; a source cuts its chunks to it. */
#define LK_MEMBER_SIZE ((size_t)1 << 20)

enum lk_engine {
    LK_ENGINE_AUTO,
    LK_ENGINE_ZLIB,
    LK_ENGINE_LIBDEFLATE,
    LK_ENGINE_ISAL,
    LK_ENGINE_COUNT
};

struct lk_gzip_options {
    enum lk_engine engine;
    int level;     /* LK_LEVEL_* or 1..12 */
    bool index;    /* write index, list of blocks and footer */
    int in_flight; /* chunks being compressed or waiting to be written, at most */
};
enum { LK_LEVEL_NONE = 0, LK_LEVEL_FAST = -1, LK_LEVEL_BALANCED = -2, LK_LEVEL_BEST = -3 };

struct lk_gzip_stats {
    uint64_t members, index_blocks, raw_bytes, bytes;
};

/* NULL when the engine is not built in or this CPU can't run it; else its version. */
const char *lk_engine_version(enum lk_engine engine);
/* "auto", "zlib", "libdeflate", "isal" / "fast", "balanced", "best", "none", "1".."12"; -1
 * (LK_USAGE) for others. */
int lk_engine_parse(const char *name, enum lk_engine *engine, struct lk_error *err);
int lk_level_parse(const char *name, int *level, struct lk_error *err);

/* Each chunk of input becomes one member (a chunk that is longer than LK_MEMBER_SIZE is an error),
 * in order; index blocks in between, from chunk->meta (struct lk_entries). Takes over input. stats
 * (may be NULL) is owned by the caller, must outlive the stream and is complete when the stream has
 * ended. */
struct lk_stream *lk_gzip(struct lk_pool *pool, struct lk_stream *input,
                          const struct lk_gzip_options *options, struct lk_gzip_stats *stats,
                          struct lk_error *err);
/* How many chunks at once fit both the compression width and a budget of memory for the whole way
 * from the source to the store: four a worker and a little, so that a worker never waits for one
 * that takes long, at most a third of the budget, 3 or more. */
int lk_gzip_in_flight(size_t memory, int jobs);
/* Any gzip data: members that carry their sizes are inflated in parallel, others one after the
 * other. Input that is not gzip, is cut off, or has garbage or a wrong CRC fails with LK_CORRUPT
 * and the offset. Index members give nothing. */
struct lk_stream *lk_gunzip(struct lk_pool *pool, struct lk_stream *input, int in_flight,
                            struct lk_error *err);

#endif
