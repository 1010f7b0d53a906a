/* SPDX-License-Identifier: MIT
 * stream.c - the bounded queue between one producer and one consumer, and its end.
 * Owns the chunks that wait in it. Callbacks run with no lock held: on_cancel on the thread that
 * cancels, space and ready on the loop. A queued notification keeps the stream alive until the loop
 * has seen it. Any thread. */
#include "stream.h"

#include "stream_internal.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* How one side on the loop hears of the other. */
struct notice {
    struct lk_event event;
    struct lk_stream *stream;
    struct lk_loop *loop;
    void (*fn)(void *arg);
    void *arg;
    bool wanted; /* the last try gave LK_STREAM_AGAIN */
    bool posted; /* the event is on its way, and holds the stream */
};

struct wakes {
    int fd;
    struct lk_slabs *slabs;
};

struct lk_stream {
    pthread_mutex_t mutex;
    pthread_cond_t change;
    int refs;  /* of users */
    int holds; /* of queued notices and of calls that still need the struct */
    enum lk_end state;
    bool dropped;    /* cancelled, perhaps after its end: reads fail */
    bool read_out;   /* the consumer has seen the end */
    bool cancelling; /* on_cancel runs on canceller */
    pthread_t canceller;
    struct lk_error error; /* of LK_END_FAILED */
    void (*on_cancel)(void *arg);
    void *cancel_arg;
    struct wakes wakes[2];
    struct notice ready, space;
    uint64_t bytes, raw_bytes;
    int depth, head, count;
    struct lk_chunk *ring[];
};

static void run_ready(struct lk_event *event);
static void run_space(struct lk_event *event);

struct lk_stream *lk_stream_new(int depth, struct lk_error *err)
{
    struct lk_stream *stream;

    if (depth < 1) {
        lk_error_set(err, LK_USAGE, "a stream of depth %d makes no sense", depth);
        return NULL;
    }
    stream = calloc(1, sizeof *stream + (size_t)depth * sizeof(struct lk_chunk *));
    if (!stream) {
        lk_error_set(err, LK_MEMORY, "no memory for a stream");
        return NULL;
    }
    pthread_mutex_init(&stream->mutex, NULL);
    pthread_cond_init(&stream->change, NULL);
    stream->refs = 2;
    stream->depth = depth;
    stream->wakes[0].fd = stream->wakes[1].fd = -1;
    stream->ready.event.run = run_ready;
    stream->ready.stream = stream;
    stream->space.event.run = run_space;
    stream->space.stream = stream;
    return stream;
}

/* Called with the lock held. */
static struct lk_chunk *pop(struct lk_stream *stream)
{
    struct lk_chunk *chunk = stream->ring[stream->head];

    stream->head = (stream->head + 1) % stream->depth;
    stream->count--;
    return chunk;
}

/* Ends a critical section; frees the stream when nobody can reach it any more. */
static void leave(struct lk_stream *stream)
{
    bool gone = stream->refs == 0 && stream->holds == 0;

    pthread_mutex_unlock(&stream->mutex);
    if (!gone)
        return;
    while (stream->count > 0)
        lk_chunk_unref(pop(stream));
    pthread_cond_destroy(&stream->change);
    pthread_mutex_destroy(&stream->mutex);
    free(stream);
}

/* Called with the lock held. The loop has no lock of its own while it calls back, so posting from
 * here is safe. */
static void tell(struct lk_stream *stream, struct notice *notice)
{
    if (!notice->wanted || !notice->fn)
        return;
    notice->wanted = false;
    if (notice->posted)
        return;
    notice->posted = true;
    stream->holds++;
    lk_loop_post(notice->loop, &notice->event);
}

static void run_notice(struct notice *notice)
{
    struct lk_stream *stream = notice->stream;
    void (*fn)(void *arg);
    void *arg;

    pthread_mutex_lock(&stream->mutex);
    /* Without users there is nobody to tell. Or the callback was taken back meanwhile. */
    fn = stream->refs > 0 ? notice->fn : NULL;
    arg = notice->arg;
    notice->posted = false;
    stream->holds--;
    leave(stream);
    if (fn)
        fn(arg);
}

static void run_ready(struct lk_event *event)
{
    run_notice((struct notice *)((char *)event - offsetof(struct notice, event)));
}

static void run_space(struct lk_event *event)
{
    run_notice((struct notice *)((char *)event - offsetof(struct notice, event)));
}

static void set_notice(struct lk_stream *stream, struct notice *notice, struct lk_loop *loop,
                       void (*fn)(void *arg), void *arg)
{
    pthread_mutex_lock(&stream->mutex);
    if (notice->posted && notice->loop != loop && lk_loop_unpost(notice->loop, &notice->event)) {
        notice->posted = false;
        stream->holds--;
    }
    notice->loop = loop;
    notice->fn = fn;
    notice->arg = arg;
    if (!fn)
        notice->wanted = false;
    leave(stream);
}

/* --- end and cancellation --- */

/* Called with the lock held, once, when the state leaves LK_END_OPEN or what was queued is dropped.
 */
static void wake_all(struct lk_stream *stream)
{
    pthread_cond_broadcast(&stream->change);
    tell(stream, &stream->ready);
    tell(stream, &stream->space);
}

/* Called with the lock held. The producer's argument must outlive a callback that another thread is
 * running. */
static void await_canceller(struct lk_stream *stream)
{
    stream->holds++;
    while (stream->cancelling && !pthread_equal(stream->canceller, pthread_self()))
        pthread_cond_wait(&stream->change, &stream->mutex);
    stream->holds--;
}

void lk_stream_on_cancel(struct lk_stream *stream, void (*fn)(void *arg), void *arg)
{
    pthread_mutex_lock(&stream->mutex);
    stream->on_cancel = fn;
    stream->cancel_arg = arg;
    await_canceller(stream);
    leave(stream);
}

void lk_stream_end(struct lk_stream *stream, const struct lk_error *err)
{
    pthread_mutex_lock(&stream->mutex);
    if (stream->state == LK_END_OPEN) {
        stream->state = err ? LK_END_FAILED : LK_END_WHOLE;
        if (err)
            stream->error = *err;
        wake_all(stream);
    }
    stream->space.fn = NULL;
    stream->on_cancel = NULL;
    await_canceller(stream);
    leave(stream);
}

static void wake_side(const struct wakes *wakes)
{
    uint64_t one = 1;

    if (wakes->slabs)
        lk_slabs_close(wakes->slabs);
    if (wakes->fd >= 0 && write(wakes->fd, &one, sizeof one) < 0)
        return; /* full = already signalled */
}

void lk_stream_wakes(struct lk_stream *stream, enum lk_stream_side side, int fd,
                     struct lk_slabs *slabs)
{
    pthread_mutex_lock(&stream->mutex);
    stream->wakes[side] = (struct wakes){.fd = fd, .slabs = slabs};
    if (stream->dropped)
        wake_side(&stream->wakes[side]);
    leave(stream);
}

/* Called with the lock held, gives it up on the way: chunks and callbacks are somebody else's code.
 */
static void cancel(struct lk_stream *stream)
{
    struct lk_chunk *first = NULL, **last = &first, *chunk;
    void (*fn)(void *arg);
    void *arg;

    stream->dropped = true;
    if (stream->state == LK_END_OPEN)
        stream->state = LK_END_CANCELLED;
    while (stream->count > 0) {
        chunk = pop(stream);
        /* A chunk that somebody else holds too has a link that may be theirs. */
        if (__atomic_load_n(&chunk->refs, __ATOMIC_ACQUIRE) > 1) {
            lk_chunk_unref(chunk);
            continue;
        }
        chunk->next = NULL;
        *last = chunk;
        last = &chunk->next;
    }
    wake_side(&stream->wakes[LK_STREAM_PRODUCER]);
    wake_side(&stream->wakes[LK_STREAM_CONSUMER]);
    fn = stream->on_cancel;
    arg = stream->cancel_arg;
    stream->on_cancel = NULL;
    stream->cancelling = fn != NULL;
    stream->canceller = pthread_self();
    stream->holds++;
    wake_all(stream);
    pthread_mutex_unlock(&stream->mutex);
    while ((chunk = first)) {
        first = chunk->next;
        lk_chunk_unref(chunk);
    }
    if (fn)
        fn(arg);
    pthread_mutex_lock(&stream->mutex);
    stream->holds--;
    if (fn) {
        stream->cancelling = false;
        pthread_cond_broadcast(&stream->change);
    }
}

void lk_stream_cancel(struct lk_stream *stream)
{
    pthread_mutex_lock(&stream->mutex);
    if (!stream->dropped && !stream->read_out)
        cancel(stream);
    leave(stream);
}

/* --- references --- */

struct lk_stream *lk_stream_ref(struct lk_stream *stream)
{
    pthread_mutex_lock(&stream->mutex);
    stream->refs++;
    pthread_mutex_unlock(&stream->mutex);
    return stream;
}

void lk_stream_unref(struct lk_stream *stream)
{
    if (!stream)
        return;
    pthread_mutex_lock(&stream->mutex);
    stream->refs--;
    if (stream->refs == 1 && stream->state == LK_END_OPEN) {
        /* One side is left alone with an open stream. A consumer that is gone hears nothing any
         * more. */
        stream->ready.fn = NULL;
        cancel(stream);
    }
    leave(stream);
}

void lk_stream_leave(struct lk_stream *stream)
{
    pthread_mutex_lock(&stream->mutex);
    stream->refs--;
    leave(stream);
}

/* --- producer --- */

/* Called with the lock held and room in the ring. */
static void push(struct lk_stream *stream, struct lk_chunk *chunk)
{
    stream->ring[(stream->head + stream->count) % stream->depth] = chunk;
    stream->count++;
    stream->bytes += chunk->len;
    stream->raw_bytes += chunk->raw_len;
    pthread_cond_broadcast(&stream->change);
    tell(stream, &stream->ready);
}

/* Called with the lock held. */
static int refuse_write(const struct lk_stream *stream, struct lk_error *err)
{
    if (stream->state == LK_END_CANCELLED)
        return lk_error_set(err, LK_CANCELLED, "the reader of the stream cancelled it");
    return lk_error_set(err, LK_CANCELLED, "the stream has ended");
}

int lk_stream_write(struct lk_stream *stream, struct lk_chunk *chunk, struct lk_error *err)
{
    int rc = 0;

    pthread_mutex_lock(&stream->mutex);
    while (stream->state == LK_END_OPEN && stream->count == stream->depth)
        pthread_cond_wait(&stream->change, &stream->mutex);
    if (stream->state == LK_END_OPEN) {
        push(stream, chunk);
        chunk = NULL;
    } else {
        rc = refuse_write(stream, err);
    }
    leave(stream);
    lk_chunk_unref(chunk);
    return rc;
}

int lk_stream_try_write(struct lk_stream *stream, struct lk_chunk *chunk, struct lk_error *err)
{
    int rc = 0;

    pthread_mutex_lock(&stream->mutex);
    if (stream->state != LK_END_OPEN) {
        rc = refuse_write(stream, err);
    } else if (stream->count == stream->depth) {
        stream->space.wanted = true;
        rc = LK_STREAM_AGAIN;
    } else {
        push(stream, chunk);
    }
    leave(stream);
    if (rc < 0)
        lk_chunk_unref(chunk);
    return rc;
}

void lk_stream_on_space(struct lk_stream *stream, struct lk_loop *loop, void (*space)(void *arg),
                        void *arg)
{
    set_notice(stream, &stream->space, loop, space, arg);
}

/* --- consumer --- */

/* Called with the lock held: takes what is there, LK_STREAM_AGAIN for nothing yet. */
static int take(struct lk_stream *stream, struct lk_chunk **chunk, struct lk_error *err)
{
    *chunk = NULL;
    if (stream->dropped && stream->state != LK_END_FAILED)
        return lk_error_set(err, LK_CANCELLED, "the stream was cancelled");
    if (stream->count > 0) {
        *chunk = pop(stream);
        pthread_cond_broadcast(&stream->change);
        tell(stream, &stream->space);
        return LK_STREAM_DATA;
    }
    if (stream->state == LK_END_OPEN)
        return LK_STREAM_AGAIN;
    stream->read_out = true;
    if (stream->state == LK_END_WHOLE)
        return LK_STREAM_DONE;
    if (err)
        *err = stream->error;
    return -1;
}

int lk_stream_read(struct lk_stream *stream, struct lk_chunk **chunk, struct lk_error *err)
{
    int rc;

    pthread_mutex_lock(&stream->mutex);
    while ((rc = take(stream, chunk, err)) == LK_STREAM_AGAIN)
        pthread_cond_wait(&stream->change, &stream->mutex);
    leave(stream);
    return rc;
}

int lk_stream_try_read(struct lk_stream *stream, struct lk_chunk **chunk, struct lk_error *err)
{
    int rc;

    pthread_mutex_lock(&stream->mutex);
    rc = take(stream, chunk, err);
    if (rc == LK_STREAM_AGAIN)
        stream->ready.wanted = true;
    leave(stream);
    return rc;
}

void lk_stream_on_ready(struct lk_stream *stream, struct lk_loop *loop, void (*ready)(void *arg),
                        void *arg)
{
    set_notice(stream, &stream->ready, loop, ready, arg);
}

/* --- anyone --- */

enum lk_end lk_stream_state(struct lk_stream *stream)
{
    enum lk_end state;

    pthread_mutex_lock(&stream->mutex);
    state = stream->state;
    pthread_mutex_unlock(&stream->mutex);
    return state;
}

uint64_t lk_stream_bytes(struct lk_stream *stream)
{
    uint64_t bytes;

    pthread_mutex_lock(&stream->mutex);
    bytes = stream->bytes;
    pthread_mutex_unlock(&stream->mutex);
    return bytes;
}

uint64_t lk_stream_raw_bytes(struct lk_stream *stream)
{
    uint64_t bytes;

    pthread_mutex_lock(&stream->mutex);
    bytes = stream->raw_bytes;
    pthread_mutex_unlock(&stream->mutex);
    return bytes;
}
