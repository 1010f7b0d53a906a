/* SPDX-License-Identifier: MIT
 * large.h - SHA-256 of files that span several chunks, on a thread of its own, in the order of
 * their bytes. One thread feeds it; lk_large.wait may be called from any. */
#ifndef LK_LARGE_H
#define LK_LARGE_H

#include "index.h"
#include "pool.h"

struct lk_larges;

struct lk_larges *lk_larges_new(struct lk_pool *pool, struct lk_error *err);
/* Digests that were begun and not finished are told that there is none; what was finished is still
 * hashed. */
void lk_larges_free(struct lk_larges *larges);
/* Begins a file. The result belongs to a lk_entry. */
struct lk_large *lk_larges_begin(struct lk_larges *larges, struct lk_error *err);
/* The next bytes of the file that was begun: a piece of a chunk, which is kept alive until they are
 * hashed. */
int lk_larges_add(struct lk_larges *larges, struct lk_chunk *chunk, size_t at, size_t len,
                  struct lk_error *err);
/* All bytes were given. whole false = there is no digest. */
int lk_larges_finish(struct lk_larges *larges, bool whole, struct lk_error *err);

#endif
