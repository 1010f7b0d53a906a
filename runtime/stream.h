/* SPDX-License-Identifier: MIT
 * stream.h - a bounded queue of chunks between one producer and one consumer, and how it ends.
 *
 * A stream ends in exactly one of: whole, failed, cancelled. The producer says whole or failed
 * (lk_stream_end), the consumer says cancelled (lk_stream_cancel); the first one wins. Either side
 * may be a stage thread, which blocks, or the loop thread, which polls and is called back on the
 * loop. Two references exist at first, the producer's and the consumer's; each side drops its own:
 * the producer after lk_stream_end, the consumer whenever it has enough. When one reference is left
 * of a stream that is still open, it counts as cancelled: the other side is gone. */
#ifndef LK_STREAM_H
#define LK_STREAM_H

#include "chunk.h"
#include "loop.h"
#include "pool.h"

struct lk_stream;

enum lk_end { LK_END_OPEN, LK_END_WHOLE, LK_END_FAILED, LK_END_CANCELLED };

/* Results of reads; -1 is failure. */
enum { LK_STREAM_DONE = 0, LK_STREAM_DATA = 1, LK_STREAM_AGAIN = 2 };

/* depth = how many chunks may wait in it. */
struct lk_stream *lk_stream_new(int depth, struct lk_error *err);
struct lk_stream *lk_stream_ref(struct lk_stream *stream);
/* The last unref frees it with the chunks in it. NULL is allowed. */
void lk_stream_unref(struct lk_stream *stream);

/* --- producer --- */
/* What cancelling runs, once, on the canceller's thread, with no lock held: wake a blocked source,
 * cancel the input. Set before the consumer can cancel; NULL clears it. It does not run after
 * lk_stream_end, and lk_stream_end (and clearing it) waits for one that runs on another thread, so
 * arg can be freed then. It must not wait for the producer. */
void lk_stream_on_cancel(struct lk_stream *stream, void (*fn)(void *arg), void *arg);
/* Takes over the caller's reference to the chunk in every case. Blocks while full. 0, or -1:
 * LK_CANCELLED. */
int lk_stream_write(struct lk_stream *stream, struct lk_chunk *chunk, struct lk_error *err);
/* Loop thread: as write, but LK_STREAM_AGAIN (the chunk stays the caller's) when full; then `space`
 * is called on the loop once there is room or the stream was cancelled. 0 when taken. */
int lk_stream_try_write(struct lk_stream *stream, struct lk_chunk *chunk, struct lk_error *err);
void lk_stream_on_space(struct lk_stream *stream, struct lk_loop *loop, void (*space)(void *arg),
                        void *arg);
/* err NULL = whole. The consumer reads what is queued first. The state of a stream that has ended
 * stays what it is; neither on_cancel nor `space` is called after it. */
void lk_stream_end(struct lk_stream *stream, const struct lk_error *err);

/* --- consumer --- */
/* LK_STREAM_DATA: *chunk is the caller's. LK_STREAM_DONE: ended whole. -1: failed (the producer's
 * error) or cancelled. Blocks while empty and open. */
int lk_stream_read(struct lk_stream *stream, struct lk_chunk **chunk, struct lk_error *err);
/* Loop thread: as read, but LK_STREAM_AGAIN when empty; then `ready` is called on the loop when
 * there is news. */
int lk_stream_try_read(struct lk_stream *stream, struct lk_chunk **chunk, struct lk_error *err);
/* A cancelled stream is news too. A consumer on the loop sets ready to NULL before its arg goes;
 * the same holds for on_space. */
void lk_stream_on_ready(struct lk_stream *stream, struct lk_loop *loop, void (*ready)(void *arg),
                        void *arg);
/* Drops what is queued and tells the producer. Idempotent; no-op once the stream has ended AND was
 * read to its end. */
void lk_stream_cancel(struct lk_stream *stream);

/* --- anyone --- */
enum lk_end lk_stream_state(struct lk_stream *stream);
/* Chunk bytes and raw bytes (chunk->raw_len) that have passed lk_stream_write so far. */
uint64_t lk_stream_bytes(struct lk_stream *stream);
uint64_t lk_stream_raw_bytes(struct lk_stream *stream);

/* --- sources, sinks and filters with nothing else to them. Descriptors and input streams are taken
 * over in every case, also when the call fails. --- */
/* A stream of the bytes given (copied), in chunks of at most 1 MiB. */
struct lk_stream *lk_stream_of_bytes(const void *data, size_t len, struct lk_error *err);
/* Reads fd (closed when done) in chunks of `chunk_size` filled to the brim except the last, on a
 * stage thread. Cancelling wakes it also from a blocked read of a pipe. With `eof` the owner says
 * how the stream ends (a program's exit status comes first): eof(arg) is called once, on the stage
 * thread, when nothing more will be read: at the end of file, after a cancel, or after a read error
 * (the stream has failed then). The owner, which takes a reference of its own (lk_stream_ref)
 * before it hands the stream on, then calls lk_stream_end. lk_stream_on_cancel stays free for it.
 */
struct lk_stream *lk_stream_of_fd(struct lk_pool *pool, int fd, size_t chunk_size,
                                  void (*eof)(void *arg), void *arg, struct lk_error *err);
/* Copies input to fd (closed when done) on a stage thread; `done(arg, err or NULL, bytes)` is
 * called once, on that thread, after the close, with the bytes written (not if the call itself
 * fails). Cancelling the input while it is blocked in a write to a pipe or socket ends it too. A
 * pipe without a reader is LK_IO with code EPIPE. */
int lk_stream_to_fd(struct lk_pool *pool, struct lk_stream *input, int fd,
                    void (*done)(void *arg, const struct lk_error *err, uint64_t bytes), void *arg,
                    struct lk_error *err);
/* The same on the caller's thread, which blocks; input and fd stay the caller's. */
int lk_stream_drain(struct lk_stream *input, int fd, uint64_t *bytes, struct lk_error *err);
/* At most `bytes_per_second` pass (token bucket of one second); a filter stage. */
struct lk_stream *lk_stream_limit(struct lk_pool *pool, struct lk_stream *input,
                                  uint64_t bytes_per_second, struct lk_error *err);

#endif
