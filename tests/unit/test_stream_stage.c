/* SPDX-License-Identifier: MIT
 * test_stream_stage.c - streams from memory, from and to descriptors, and at a limited rate. */
#include "stream.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)

static struct lk_pool *pool;

static int count_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int n = 0;

    while (dir && readdir(dir))
        n++;
    if (dir)
        closedir(dir);
    return n;
}

/* Every test gives back all its descriptors once its threads are done. */
static int fds_before;

static int set_up(void **state)
{
    (void)state;
    fds_before = count_fds();
    pool = lk_pool_new(2, NULL);
    return pool ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    lk_pool_free(pool);
    return count_fds() == fds_before ? 0 : -1;
}

/* Byte i of every test's data. */
static unsigned char pattern(size_t i)
{
    return (unsigned char)(i * 31 + (i >> 8) * 7 + (i >> 16));
}

static unsigned char *make_data(size_t len)
{
    unsigned char *data = malloc(len + 1);
    size_t i;

    assert_non_null(data);
    for (i = 0; i < len; i++)
        data[i] = pattern(i);
    return data;
}

/* Reads to the end, checks the bytes, returns what the last read gave. */
static int expect_pattern(struct lk_stream *stream, size_t len, size_t chunk_size,
                          struct lk_error *err)
{
    struct lk_chunk *chunk;
    size_t at = 0, i;
    int rc;

    while ((rc = lk_stream_read(stream, &chunk, err)) == LK_STREAM_DATA) {
        assert_true(chunk->len > 0 && chunk->raw_len == chunk->len);
        if (chunk->len != chunk_size)
            assert_int_equal(at + chunk->len, len);
        for (i = 0; i < chunk->len; i++)
            if (chunk->data[i] != pattern(at + i))
                fail_msg("byte %zu is wrong", at + i);
        at += chunk->len;
        lk_chunk_unref(chunk);
    }
    if (rc == LK_STREAM_DONE)
        assert_int_equal(at, len);
    return rc;
}

static void bytes_come_in_pieces(void **state)
{
    static const size_t sizes[] = {0, 1, 1 << 20, (1 << 20) + 1, (3 << 20) + 5};
    size_t i;

    (void)state;
    for (i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        unsigned char *data = make_data(sizes[i]);
        struct lk_stream *stream = lk_stream_of_bytes(data, sizes[i], NULL);

        free(data);
        assert_int_equal(lk_stream_state(stream), LK_END_WHOLE);
        assert_int_equal(expect_pattern(stream, sizes[i], MIB, NULL), LK_STREAM_DONE);
        lk_stream_unref(stream);
    }
}

static int temporary_file(const void *data, size_t len)
{
    char name[] = "/tmp/lunark-test-stream-XXXXXX";
    int fd = mkostemp(name, O_CLOEXEC);

    assert_true(fd >= 0);
    unlink(name);
    assert_int_equal(write(fd, data, len), len);
    lseek(fd, 0, SEEK_SET);
    return fd;
}

static void reads_a_file(void **state)
{
    unsigned char *data = make_data(1000000);
    struct lk_stream *stream;

    (void)state;
    stream = lk_stream_of_fd(pool, temporary_file(data, 1000000), 65536, NULL, NULL, NULL);
    assert_int_equal(expect_pattern(stream, 1000000, 65536, NULL), LK_STREAM_DONE);
    lk_stream_unref(stream);
    stream = lk_stream_of_fd(pool, temporary_file("", 0), 65536, NULL, NULL, NULL);
    assert_int_equal(expect_pattern(stream, 0, 65536, NULL), LK_STREAM_DONE);
    lk_stream_unref(stream);
    free(data);
}

struct trickle {
    int fd;
    size_t len;
};

static void *write_slowly(void *arg)
{
    struct trickle *t = arg;
    unsigned char *data = make_data(t->len);
    size_t at, n;

    for (at = 0; at < t->len; at += n) {
        n = 1 + at % 777 < t->len - at ? 1 + at % 777 : t->len - at;
        if (write(t->fd, data + at, n) != (ssize_t)n)
            break;
    }
    close(t->fd);
    free(data);
    return NULL;
}

static void fills_chunks_from_a_pipe(void **state)
{
    struct trickle trickle = {.len = 300000};
    struct lk_stream *stream;
    pthread_t thread;
    int fds[2];

    (void)state;
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    trickle.fd = fds[1];
    pthread_create(&thread, NULL, write_slowly, &trickle);
    stream = lk_stream_of_fd(pool, fds[0], 4096, NULL, NULL, NULL);
    assert_int_equal(expect_pattern(stream, 300000, 4096, NULL), LK_STREAM_DONE);
    pthread_join(thread, NULL);
    lk_stream_unref(stream);
}

static void read_errors_fail_the_stream(void **state)
{
    struct lk_stream *stream;
    struct lk_error err;

    (void)state;
    stream = lk_stream_of_fd(pool, open("/", O_RDONLY | O_CLOEXEC), 4096, NULL, NULL, NULL);
    assert_int_equal(expect_pattern(stream, 0, 4096, &err), -1);
    assert_int_equal(err.code, EISDIR);
    assert_int_equal(err.kind, LK_IO);
    lk_stream_unref(stream);
}

/* --- the end that the owner decides --- */

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t change = PTHREAD_COND_INITIALIZER;
static int signals;

static void signal_once(void *arg)
{
    (void)arg;
    pthread_mutex_lock(&mutex);
    signals++;
    pthread_cond_broadcast(&change);
    pthread_mutex_unlock(&mutex);
}

static void await_signals(int n)
{
    pthread_mutex_lock(&mutex);
    while (signals < n)
        pthread_cond_wait(&change, &mutex);
    pthread_mutex_unlock(&mutex);
}

static void owner_ends_after_end_of_file(void **state)
{
    struct lk_stream *stream;
    struct lk_error err, failure;
    struct lk_chunk *chunk;
    int fds[2];

    (void)state;
    signals = 0;
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    assert_int_equal(write(fds[1], "abc", 3), 3);
    close(fds[1]);
    stream = lk_stream_of_fd(pool, fds[0], 4096, signal_once, NULL, NULL);
    await_signals(1);
    usleep(10000); /* the stage is gone now; the stream is not taken for abandoned */
    assert_int_equal(lk_stream_state(stream), LK_END_OPEN);
    lk_stream_ref(stream);
    lk_error_set(&failure, LK_EXIT, "it ended with 3");
    lk_stream_end(stream, &failure);
    assert_int_equal(lk_stream_read(stream, &chunk, &err), LK_STREAM_DATA);
    assert_int_equal(chunk->len, 3);
    lk_chunk_unref(chunk);
    assert_int_equal(lk_stream_read(stream, &chunk, &err), -1);
    assert_string_equal(err.message, "it ended with 3");
    lk_stream_unref(stream);
    lk_stream_unref(stream);
}

static void cancel_wakes_a_blocked_read(void **state)
{
    struct lk_stream *stream;
    int fds[2], i;

    (void)state;
    for (i = 0; i < 3; i++) {
        signals = 0;
        assert_int_equal(pipe2(fds, O_CLOEXEC), 0); /* nobody writes, nobody closes */
        stream = lk_stream_of_fd(pool, fds[0], 4096, signal_once, NULL, NULL);
        if (i > 0)
            usleep(10000);
        if (i < 2)
            lk_stream_cancel(stream);
        lk_stream_unref(stream);
        await_signals(1);
        close(fds[1]);
    }
}

static void cancel_wakes_a_source_without_slabs(void **state)
{
    unsigned char *data = make_data(200000);
    struct lk_stream *stream;
    struct lk_chunk *chunks[6];
    int i;

    (void)state;
    signals = 0;
    stream = lk_stream_of_fd(pool, temporary_file(data, 200000), 4096, signal_once, NULL, NULL);
    /* Width 2: six slabs. With all of them held here the source waits for one. */
    for (i = 0; i < 6; i++)
        assert_int_equal(lk_stream_read(stream, &chunks[i], NULL), LK_STREAM_DATA);
    usleep(10000);
    lk_stream_cancel(stream);
    await_signals(1);
    for (i = 0; i < 6; i++)
        lk_chunk_unref(chunks[i]); /* the pool of slabs lives on until here */
    lk_stream_unref(stream);
    free(data);
}

/* --- sinks --- */

static struct lk_error sink_error;
static bool sink_failed;
static uint64_t sink_bytes;

static void sink_done(void *arg, const struct lk_error *err, uint64_t bytes)
{
    pthread_mutex_lock(&mutex);
    sink_failed = err != NULL;
    if (err)
        sink_error = *err;
    sink_bytes = bytes;
    pthread_mutex_unlock(&mutex);
    signal_once(arg);
}

static void writes_a_file(void **state)
{
    unsigned char *data = make_data(3000000), *back = malloc(3000000);
    int fd = temporary_file("", 0);

    (void)state;
    signals = 0;
    assert_int_equal(lk_stream_to_fd(pool, lk_stream_of_bytes(data, 3000000, NULL), dup(fd),
                                     sink_done, NULL, NULL),
                     0);
    await_signals(1);
    assert_false(sink_failed);
    assert_int_equal(sink_bytes, 3000000);
    assert_int_equal(pread(fd, back, 3000000, 0), 3000000);
    assert_memory_equal(back, data, 3000000);
    close(fd);
    free(data);
    free(back);
}

static void writes_pipes_and_sockets(void **state)
{
    unsigned char *data = make_data(500000);
    int kind;

    (void)state;
    for (kind = 0; kind < 2; kind++) {
        struct lk_stream *back;
        int fds[2];

        signals = 0;
        if (kind == 0)
            assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
        else
            assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
        back = lk_stream_of_fd(pool, fds[0], 10000, NULL, NULL, NULL);
        lk_stream_to_fd(pool, lk_stream_of_bytes(data, 500000, NULL), fds[1], sink_done, NULL,
                        NULL);
        assert_int_equal(expect_pattern(back, 500000, 10000, NULL), LK_STREAM_DONE);
        await_signals(1);
        assert_false(sink_failed);
        assert_int_equal(sink_bytes, 500000);
        lk_stream_unref(back);
    }
    free(data);
}

static void says_that_the_reader_closed(void **state)
{
    unsigned char *data = make_data(500000);
    int fds[2];

    (void)state;
    signals = 0;
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    close(fds[0]);
    lk_stream_to_fd(pool, lk_stream_of_bytes(data, 500000, NULL), fds[1], sink_done, NULL, NULL);
    await_signals(1);
    assert_true(sink_failed);
    assert_int_equal(sink_error.kind, LK_IO);
    assert_int_equal(sink_error.code, EPIPE);
    assert_string_equal(sink_error.message,
                        "the reader closed the pipe after 0 bytes: broken pipe");
    free(data);
}

static void says_that_the_disk_is_full(void **state)
{
    int fd = open("/dev/full", O_WRONLY | O_CLOEXEC);

    (void)state;
    assert_true(fd >= 0);
    signals = 0;
    lk_stream_to_fd(pool, lk_stream_of_bytes("abc", 3, NULL), fd, sink_done, NULL, NULL);
    await_signals(1);
    assert_true(sink_failed);
    assert_int_equal(sink_error.code, ENOSPC);
}

static void cancel_wakes_a_blocked_write(void **state)
{
    unsigned char *data = make_data(500000);
    struct lk_stream *input = lk_stream_of_bytes(data, 500000, NULL), *open_input;
    int fds[2];

    (void)state;
    signals = 0;
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0); /* nobody reads */
    open_input = lk_stream_new(2, NULL);
    lk_stream_ref(open_input);
    assert_int_equal(lk_stream_to_fd(pool, open_input, fds[1], sink_done, NULL, NULL), 0);
    for (int i = 0; i < 3; i++) {
        struct lk_chunk *chunk;

        if (lk_stream_read(input, &chunk, NULL) != LK_STREAM_DATA)
            break;
        lk_stream_write(open_input, chunk, NULL);
    }
    usleep(20000); /* the pipe is full now */
    lk_stream_cancel(open_input);
    await_signals(1);
    assert_true(sink_failed);
    assert_int_equal(sink_error.kind, LK_CANCELLED);
    lk_stream_end(open_input, NULL);
    lk_stream_unref(open_input);
    lk_stream_unref(open_input);
    lk_stream_unref(input);
    close(fds[0]);
    free(data);
}

static void failed_input_fails_the_sink(void **state)
{
    struct lk_stream *input = lk_stream_new(1, NULL);
    struct lk_error err;

    (void)state;
    signals = 0;
    lk_error_set(&err, LK_CORRUPT, "bad input");
    lk_stream_to_fd(pool, input, open("/dev/null", O_WRONLY | O_CLOEXEC), sink_done, NULL, NULL);
    lk_stream_end(input, &err);
    lk_stream_unref(input);
    await_signals(1);
    assert_true(sink_failed);
    assert_string_equal(sink_error.message, "bad input");
}

/* --- rate --- */

static void limits_the_rate(void **state)
{
    unsigned char *data = make_data(3 * MIB);
    uint64_t start = lk_now_ns(), ns;
    struct lk_stream *stream;

    (void)state;
    stream = lk_stream_limit(pool, lk_stream_of_bytes(data, 3 * MIB, NULL), 10 * MIB, NULL);
    assert_int_equal(expect_pattern(stream, 3 * MIB, MIB, NULL), LK_STREAM_DONE);
    ns = lk_now_ns() - start;
    assert_true(ns >= 295000000u); /* 3 MiB at 10 MiB/s */
    lk_stream_unref(stream);
    free(data);
}

static void a_slow_limit_can_be_cancelled(void **state)
{
    struct lk_stream *input = lk_stream_of_bytes("abcdef", 6, NULL), *stream;
    struct lk_error err;

    (void)state;
    stream = lk_stream_limit(pool, input, 1, NULL);
    usleep(10000);
    lk_stream_cancel(stream);
    lk_stream_unref(stream);
    assert_null(lk_stream_limit(pool, lk_stream_of_bytes("abc", 3, NULL), 0, &err));
    assert_int_equal(err.kind, LK_USAGE);
    input = lk_stream_new(1, NULL);
    stream = lk_stream_limit(pool, input, 1000, NULL);
    lk_stream_unref(stream); /* while it waits for input: the input is cancelled */
    while (lk_stream_state(input) == LK_END_OPEN)
        usleep(1000);
    assert_int_equal(lk_stream_state(input), LK_END_CANCELLED);
    lk_stream_end(input, NULL);
    lk_stream_unref(input);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(bytes_come_in_pieces),
        TEST(reads_a_file),
        TEST(fills_chunks_from_a_pipe),
        TEST(read_errors_fail_the_stream),
        TEST(owner_ends_after_end_of_file),
        TEST(cancel_wakes_a_blocked_read),
        TEST(cancel_wakes_a_source_without_slabs),
        TEST(writes_a_file),
        TEST(writes_pipes_and_sockets),
        TEST(says_that_the_reader_closed),
        TEST(says_that_the_disk_is_full),
        TEST(cancel_wakes_a_blocked_write),
        TEST(failed_input_fails_the_sink),
        TEST(limits_the_rate),
        TEST(a_slow_limit_can_be_cancelled),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
