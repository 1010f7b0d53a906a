/* SPDX-License-Identifier: MIT
 * chunk.h - the unit that moves through a stream: a ref-counted piece of memory from a pool of
 * fixed size. A pool (`struct lk_slabs`) holds at most `count` slabs, mapped when first needed;
 * taking one blocks until one is free. This is what bounds memory: no stage allocates data outside
 * a pool. A chunk is written by one owner and is immutable once it has been sent. Any thread. */
#ifndef LK_CHUNK_H
#define LK_CHUNK_H

#include "error.h"
#include <stddef.h>
#include <stdint.h>

struct lk_slabs;

/* What a source knows about the bytes of a chunk and a later stage wants to know (an archive's
 * entries); the chunk owns it and frees it through `free` at its last unref. */
struct lk_chunk_meta {
    void (*free)(struct lk_chunk_meta *meta);
};

struct lk_chunk {
    unsigned char *data;
    size_t len; /* bytes used */
    size_t cap; /* bytes there are */
    uint64_t
        raw_len; /* after a filter: the number of bytes this chunk stands for before it; else len */
    struct lk_chunk_meta *meta; /* NULL, or owned by the chunk */
    struct lk_slabs *slabs;     /* private */
    struct lk_chunk *next;      /* the holder's, for a list */
    int refs;                   /* private, atomic */
    bool zeros;                 /* all len bytes are known to be zero (a hole) */
};

/* size = bytes of a slab, count = how many at most. Memory is mapped lazily and kept until the pool
 * is freed. */
struct lk_slabs *lk_slabs_new(size_t size, int count, struct lk_error *err);
/* Drops the owner's reference; the pool goes when the last chunk has come back. Wakes and fails
 * waiting takers. */
void lk_slabs_free(struct lk_slabs *slabs);
/* A chunk with len 0. Blocks while all are out; NULL (LK_CANCELLED) after lk_slabs_close or
 * lk_slabs_free. */
struct lk_chunk *lk_slabs_take(struct lk_slabs *slabs, struct lk_error *err);
/* As lk_slabs_take but never blocks: NULL with err->kind LK_OK when none is free. `freed` (may be
 * NULL) is then called once, on the thread that gives a slab back or closes the pool, with no lock
 * held. The same pair of freed and arg waits once, however often it asks. */
struct lk_chunk *lk_slabs_try(struct lk_slabs *slabs, void (*freed)(void *arg), void *arg,
                              struct lk_error *err);
/* Takes back a registration of lk_slabs_try, before arg goes: after it `freed` neither runs nor
 * will run with arg. Waits for a callback that runs on another thread just now. */
void lk_slabs_untry(struct lk_slabs *slabs, void (*freed)(void *arg), void *arg);
/* Every taker, waiting now or later, gets NULL. */
void lk_slabs_close(struct lk_slabs *slabs);
size_t lk_slabs_size(const struct lk_slabs *slabs);
/* Bytes mapped now. */
size_t lk_slabs_mapped(const struct lk_slabs *slabs);

/* A chunk outside any pool, for small or foreign data; NULL without memory. */
struct lk_chunk *lk_chunk_alloc(size_t cap, struct lk_error *err);
struct lk_chunk *lk_chunk_ref(struct lk_chunk *chunk);
void lk_chunk_unref(struct lk_chunk *chunk); /* NULL is allowed */

#endif
