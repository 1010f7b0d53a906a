/* SPDX-License-Identifier: MIT
 * stream_internal.h - what the stages for descriptors and rates share with the stream itself. Any
 * thread. */
#ifndef LK_STREAM_INTERNAL_H
#define LK_STREAM_INTERNAL_H

#include "stream.h"

/* What cancelling wakes besides blocked readers and writers: an eventfd that a stage polls, and a
 * pool of slabs that it takes from. There is one slot for the producer's stage and one for the
 * consumer's. Independent of lk_stream_on_cancel, which stays the owner's. fd -1 and slabs NULL
 * clear a slot, before they are closed. Set after the stream was cancelled, it wakes at once. */
enum lk_stream_side { LK_STREAM_PRODUCER, LK_STREAM_CONSUMER };
void lk_stream_wakes(struct lk_stream *stream, enum lk_stream_side side, int fd,
                     struct lk_slabs *slabs);

/* Drops a reference of a side that leaves the end of the stream to somebody else: the stream is not
 * taken for abandoned. */
void lk_stream_leave(struct lk_stream *stream);

#endif
