/* SPDX-License-Identifier: MIT
 * gather.h - one stream out of pieces that come in any order: what is ahead of its turn waits in
 * memory. A piece is a numbered run of chunks; at most `width` of them, the one whose turn it is
 * and those behind it, can be filled at once. Loop thread only; the stream's reader is anywhere. */
#ifndef LK_GATHER_H
#define LK_GATHER_H

#include "stream.h"

struct lk_gather;

/* moved(arg) is called on the loop, from within the functions here or a notice of the stream, when
 * the turn has moved on, the reader has cancelled, or a failure was told. */
struct lk_gather *lk_gather_new(struct lk_loop *loop, size_t width, void (*moved)(void *arg),
                                void *arg, struct lk_error *err);
/* Ends the stream, if it has not ended, as cancelled. NULL is allowed. */
void lk_gather_free(struct lk_gather *gather);
/* The reader's side, the caller's; once. */
struct lk_stream *lk_gather_stream(struct lk_gather *gather);
/* 1 = piece `number` can be filled, 0 = not yet, -1: LK_CANCELLED, it is over. */
int lk_gather_room(const struct lk_gather *gather, uint64_t number, struct lk_error *err);
/* Takes over the chunk in every case. Only while there is room for the piece. */
int lk_gather_put(struct lk_gather *gather, uint64_t number, struct lk_chunk *chunk,
                  struct lk_error *err);
/* The piece is complete. */
void lk_gather_done(struct lk_gather *gather, uint64_t number);
/* No piece follows: the stream ends whole once all are read, or failed at once. */
void lk_gather_end(struct lk_gather *gather, const struct lk_error *err);

#endif
