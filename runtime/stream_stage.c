/* SPDX-License-Identifier: MIT
 * stream_stage.c - streams of bytes in memory, from a descriptor, to a descriptor, and at a limited
 * rate. Each runs on one stage thread, which owns its descriptor, an eventfd that cancelling
 * signals, and its side of the stream. Never changes the flags of a descriptor: it may share them
 * with other programs. */
#include "stream.h"

#include "stream_internal.h"
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { QUEUE = 2, MOST_SLABS = 12 };
#define PIECE ((size_t)1 << 20)
#define NANO 1000000000u

/* --- of bytes --- */

struct lk_stream *lk_stream_of_bytes(const void *data, size_t len, struct lk_error *err)
{
    size_t pieces = len / PIECE + (len % PIECE > 0), at = 0, n;
    struct lk_stream *stream;
    struct lk_chunk *chunk;

    if (pieces > INT_MAX / 2) {
        lk_error_set(err, LK_MEMORY, "%zu bytes are too many for a stream from memory", len);
        return NULL;
    }
    stream = lk_stream_new(pieces > 0 ? (int)pieces : 1, err);
    for (; stream && at < len; at += n) {
        n = len - at < PIECE ? len - at : PIECE;
        chunk = lk_chunk_alloc(n, err);
        if (!chunk) {
            lk_stream_unref(stream);
            lk_stream_unref(stream);
            return NULL;
        }
        memcpy(chunk->data, (const char *)data + at, n);
        chunk->len = n;
        chunk->raw_len = n;
        lk_stream_write(stream, chunk, NULL);
    }
    if (stream) {
        lk_stream_end(stream, NULL);
        lk_stream_unref(stream);
    }
    return stream;
}

/* --- what the stages share --- */

enum fd_type { FD_FILE, FD_PIPE, FD_SOCKET };

static enum fd_type type_of(int fd)
{
    struct stat st;

    if (fstat(fd, &st) < 0 || S_ISREG(st.st_mode) || S_ISBLK(st.st_mode))
        return FD_FILE;
    return S_ISSOCK(st.st_mode) ? FD_SOCKET : FD_PIPE;
}

/* Waits until fd is ready for events; false if wake was signalled first. fd -1 = until wake or the
 * timeout. */
static bool wait_for(int fd, short events, int wake, int timeout_ms)
{
    struct pollfd fds[2] = {{.fd = wake, .events = POLLIN}, {.fd = fd, .events = events}};

    while (poll(fds, 2, timeout_ms) < 0)
        if (errno != EINTR && errno != EAGAIN)
            break;
    return !(fds[0].revents & POLLIN);
}

static int make_wake(struct lk_error *err)
{
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    if (fd < 0)
        lk_error_errno(err, errno, "no descriptor to wake a stage with");
    return fd;
}

static void drop_input(struct lk_stream *input)
{
    lk_stream_cancel(input);
    lk_stream_unref(input);
}

/* --- from a descriptor --- */

struct source {
    struct lk_stream *stream;
    struct lk_slabs *slabs;
    int fd, wake;
    enum fd_type type;
    void (*eof)(void *arg);
    void *arg;
};

/* Fills the chunk up; 1 at the end of file, -1 on error or cancel. */
static int fill_chunk(struct source *source, struct lk_chunk *chunk, struct lk_error *err)
{
    ssize_t n;

    while (chunk->len < chunk->cap) {
        if (source->type != FD_FILE && !wait_for(source->fd, POLLIN, source->wake, -1))
            return lk_error_set(err, LK_CANCELLED, "the stream was cancelled");
        n = read(source->fd, chunk->data + chunk->len, chunk->cap - chunk->len);
        if (n == 0)
            return 1;
        if (n > 0)
            chunk->len += (size_t)n;
        else if (errno != EINTR && errno != EAGAIN)
            return lk_error_errno(err, errno, "reading descriptor %d failed", source->fd);
    }
    return 0;
}

/* Until the end of file (1), an error or a cancel (-1). */
static int pump_source(struct source *source, struct lk_error *err)
{
    struct lk_chunk *chunk;
    int rc = 0;

    while (rc == 0) {
        chunk = lk_slabs_take(source->slabs, err);
        if (!chunk)
            return -1;
        rc = fill_chunk(source, chunk, err);
        chunk->raw_len = chunk->len;
        if (rc < 0 || chunk->len == 0)
            lk_chunk_unref(chunk);
        else if (lk_stream_write(source->stream, chunk, err) < 0)
            rc = -1;
    }
    return rc;
}

static void free_source(struct source *source)
{
    lk_stream_wakes(source->stream, LK_STREAM_PRODUCER, -1, NULL);
    if (source->fd >= 0)
        close(source->fd);
    if (source->wake >= 0)
        close(source->wake);
    lk_slabs_free(source->slabs);
    free(source);
}

static void run_source(void *arg)
{
    struct source *source = arg;
    struct lk_stream *stream = source->stream;
    void (*eof)(void *) = source->eof;
    void *eof_arg = source->arg;
    struct lk_error err;
    int rc = pump_source(source, &err);

    free_source(source);
    if (rc < 0)
        lk_stream_end(stream, &err);
    else if (!eof)
        lk_stream_end(stream, NULL);
    if (eof) {
        eof(eof_arg);
        lk_stream_leave(stream);
    } else {
        lk_stream_unref(stream);
    }
}

struct lk_stream *lk_stream_of_fd(struct lk_pool *pool, int fd, size_t chunk_size,
                                  void (*eof)(void *arg), void *arg, struct lk_error *err)
{
    int slabs = lk_pool_width(pool) + QUEUE +
                2; /* one each: filled here, at work in every worker, queued */
    struct lk_stream *stream = lk_stream_new(QUEUE, err);
    struct source *source = calloc(1, sizeof *source);

    if (!stream || !source) {
        if (stream)
            lk_error_set(err, LK_MEMORY, "no memory for a stage");
        close(fd);
        lk_stream_unref(stream);
        lk_stream_unref(stream);
        free(source);
        return NULL;
    }
    *source = (struct source){.stream = stream, .fd = fd, .wake = -1, .eof = eof, .arg = arg};
    source->type = type_of(fd);
    source->slabs = lk_slabs_new(chunk_size, slabs < MOST_SLABS ? slabs : MOST_SLABS, err);
    source->wake = source->slabs ? make_wake(err) : -1;
    if (source->wake < 0)
        goto failed;
    lk_stream_wakes(stream, LK_STREAM_PRODUCER, source->wake, source->slabs);
    if (lk_pool_stage(pool, "lunark-read", run_source, source, err) < 0)
        goto failed;
    return stream;
failed:
    free_source(source);
    lk_stream_unref(stream);
    lk_stream_unref(stream);
    return NULL;
}

/* --- to a descriptor --- */

struct sink {
    struct lk_stream *input;
    int fd, wake;
    enum fd_type type;
    uint64_t bytes;
    void (*done)(void *arg, const struct lk_error *err, uint64_t bytes);
    void *arg;
};

/* One write that can't block for long. A pipe that poll calls writable takes PIPE_BUF bytes at
 * once. */
static ssize_t write_some(const struct sink *sink, const void *data, size_t len)
{
    switch (sink->type) {
    case FD_SOCKET:
        return send(sink->fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    case FD_PIPE:
        return write(sink->fd, data, len < PIPE_BUF ? len : PIPE_BUF);
    default:
        return write(sink->fd, data, len);
    }
}

static int write_chunk(struct sink *sink, const struct lk_chunk *chunk, struct lk_error *err)
{
    size_t at = 0;
    ssize_t n;

    while (at < chunk->len) {
        if (sink->type != FD_FILE && !wait_for(sink->fd, POLLOUT, sink->wake, -1))
            return lk_error_set(err, LK_CANCELLED, "the stream was cancelled");
        n = write_some(sink, chunk->data + at, chunk->len - at);
        if (n >= 0) {
            at += (size_t)n;
            sink->bytes += (uint64_t)n;
        } else if (errno == EPIPE) {
            lk_error_errno(err, EPIPE, "the reader closed the pipe after %llu bytes",
                           (unsigned long long)sink->bytes);
            return -1;
        } else if (errno != EINTR && errno != EAGAIN) {
            return lk_error_errno(err, errno, "writing descriptor %d failed after %llu bytes",
                                  sink->fd, (unsigned long long)sink->bytes);
        }
    }
    return 0;
}

static int pump_sink(struct sink *sink, struct lk_error *err)
{
    struct lk_chunk *chunk;
    int rc;

    while ((rc = lk_stream_read(sink->input, &chunk, err)) == LK_STREAM_DATA) {
        rc = write_chunk(sink, chunk, err);
        lk_chunk_unref(chunk);
        if (rc < 0)
            return -1;
    }
    return rc;
}

static void run_sink(void *arg)
{
    struct sink *sink = arg;
    struct lk_error err;
    int rc = pump_sink(sink, &err);

    lk_stream_wakes(sink->input, LK_STREAM_CONSUMER, -1, NULL);
    drop_input(sink->input);
    /* A network file system says only now that the disk is full. EINTR closes all the same. */
    if (close(sink->fd) < 0 && rc == 0 && errno != EINTR)
        rc = lk_error_errno(&err, errno, "closing descriptor %d failed", sink->fd);
    close(sink->wake);
    sink->done(sink->arg, rc < 0 ? &err : NULL, sink->bytes);
    free(sink);
}

int lk_stream_drain(struct lk_stream *input, int fd, uint64_t *bytes, struct lk_error *err)
{
    struct sink sink = {.input = input, .fd = fd, .wake = make_wake(err)};
    int rc = -1;

    if (sink.wake >= 0) {
        sink.type = type_of(fd);
        lk_stream_wakes(input, LK_STREAM_CONSUMER, sink.wake, NULL);
        rc = pump_sink(&sink, err);
        lk_stream_wakes(input, LK_STREAM_CONSUMER, -1, NULL);
        close(sink.wake);
    }
    *bytes = sink.bytes;
    return rc;
}

int lk_stream_to_fd(struct lk_pool *pool, struct lk_stream *input, int fd,
                    void (*done)(void *arg, const struct lk_error *err, uint64_t bytes), void *arg,
                    struct lk_error *err)
{
    struct sink *sink = calloc(1, sizeof *sink);
    int wake = make_wake(err);

    if (!sink)
        lk_error_set(err, LK_MEMORY, "no memory for a stage");
    if (!sink || wake < 0)
        goto failed;
    *sink = (struct sink){.input = input, .fd = fd, .wake = wake, .done = done, .arg = arg};
    sink->type = type_of(fd);
    lk_stream_wakes(input, LK_STREAM_CONSUMER, wake, NULL);
    if (lk_pool_stage(pool, "lunark-write", run_sink, sink, err) < 0)
        goto failed;
    return 0;
failed:
    lk_stream_wakes(input, LK_STREAM_CONSUMER, -1, NULL);
    drop_input(input);
    close(fd);
    if (wake >= 0)
        close(wake);
    free(sink);
    return -1;
}

/* --- at a limited rate --- */

struct limit {
    struct lk_stream *input, *output;
    int wake;
    uint64_t rate;     /* bytes in a second */
    uint64_t spent;    /* bytes since `since` */
    uint64_t since_ns; /* moves on when there was a pause, so that at most a second's worth is saved
                          up */
};

static void cancel_input(void *arg)
{
    lk_stream_cancel(arg);
}

/* Nanoseconds that bytes take at the rate. */
static uint64_t time_of(const struct limit *limit, uint64_t bytes)
{
    return bytes / limit->rate * NANO +
           (uint64_t)((double)(bytes % limit->rate) * NANO / (double)limit->rate);
}

/* Waits until len more bytes are due; -1 when the output was cancelled meanwhile. */
static int pay(struct limit *limit, size_t len, struct lk_error *err)
{
    uint64_t now = lk_now_ns(), due = limit->since_ns + time_of(limit, limit->spent);

    if (now > due + NANO) {
        limit->since_ns = now - NANO;
        limit->spent = 0;
    }
    limit->spent += len;
    due = limit->since_ns + time_of(limit, limit->spent);
    while ((now = lk_now_ns()) < due) {
        uint64_t ms = (due - now) / 1000000u + 1;

        if (!wait_for(-1, 0, limit->wake, ms < 60000 ? (int)ms : 60000))
            return lk_error_set(err, LK_CANCELLED, "the stream was cancelled");
    }
    return 0;
}

static int pump_limit(struct limit *limit, struct lk_error *err)
{
    struct lk_chunk *chunk;
    int rc;

    limit->since_ns = lk_now_ns();
    while ((rc = lk_stream_read(limit->input, &chunk, err)) == LK_STREAM_DATA) {
        if (pay(limit, chunk->len, err) < 0) {
            lk_chunk_unref(chunk);
            return -1;
        }
        if (lk_stream_write(limit->output, chunk, err) < 0)
            return -1;
    }
    return rc;
}

static void run_limit(void *arg)
{
    struct limit *limit = arg;
    struct lk_error err;
    int rc = pump_limit(limit, &err);

    lk_stream_wakes(limit->output, LK_STREAM_PRODUCER, -1, NULL);
    lk_stream_end(limit->output, rc < 0 ? &err : NULL);
    lk_stream_unref(limit->output);
    drop_input(limit->input);
    close(limit->wake);
    free(limit);
}

struct lk_stream *lk_stream_limit(struct lk_pool *pool, struct lk_stream *input,
                                  uint64_t bytes_per_second, struct lk_error *err)
{
    struct lk_stream *output = NULL;
    struct limit *limit = NULL;
    int wake = -1;

    if (bytes_per_second == 0) {
        lk_error_set(err, LK_USAGE, "a rate limit of 0 bytes per second lets nothing pass");
        goto failed;
    }
    wake = make_wake(err);
    output = wake < 0 ? NULL : lk_stream_new(QUEUE, err);
    if (!output)
        goto failed;
    limit = calloc(1, sizeof *limit);
    if (!limit) {
        lk_error_set(err, LK_MEMORY, "no memory for a stage");
        goto failed;
    }
    *limit = (struct limit){.input = input, .output = output, .wake = wake};
    limit->rate = bytes_per_second;
    lk_stream_wakes(output, LK_STREAM_PRODUCER, wake, NULL);
    lk_stream_on_cancel(output, cancel_input, input);
    if (lk_pool_stage(pool, "lunark-limit", run_limit, limit, err) < 0)
        goto failed;
    return output;
failed:
    if (output) {
        lk_stream_wakes(output, LK_STREAM_PRODUCER, -1, NULL);
        lk_stream_on_cancel(output, NULL, NULL);
    }
    lk_stream_unref(output);
    lk_stream_unref(output);
    drop_input(input);
    if (wake >= 0)
        close(wake);
    free(limit);
    return NULL;
}
