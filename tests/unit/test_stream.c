/* SPDX-License-Identifier: MIT
 * test_stream.c - how streams move chunks, end, fail and are cancelled, between threads and the
 * loop. */
#include "stream.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct lk_chunk *chunk_of(const char *text)
{
    struct lk_chunk *chunk = lk_chunk_alloc(strlen(text), NULL);

    assert_non_null(chunk);
    memcpy(chunk->data, text, strlen(text));
    chunk->len = strlen(text);
    chunk->raw_len = chunk->len;
    return chunk;
}

static void expect_data(struct lk_stream *stream, const char *text)
{
    struct lk_chunk *chunk;

    assert_int_equal(lk_stream_read(stream, &chunk, NULL), LK_STREAM_DATA);
    assert_int_equal(chunk->len, strlen(text));
    assert_memory_equal(chunk->data, text, chunk->len);
    lk_chunk_unref(chunk);
}

static void drop_both(struct lk_stream *stream)
{
    lk_stream_unref(stream);
    lk_stream_unref(stream);
}

/* --- ends --- */

static void whole_stream_is_read_to_its_end(void **state)
{
    struct lk_stream *stream = lk_stream_new(3, NULL);
    struct lk_chunk *chunk = chunk_of("bc");

    (void)state;
    chunk->raw_len = 100;
    assert_int_equal(lk_stream_write(stream, chunk_of("a"), NULL), 0);
    assert_int_equal(lk_stream_write(stream, chunk, NULL), 0);
    lk_stream_end(stream, NULL);
    assert_int_equal(lk_stream_state(stream), LK_END_WHOLE);
    lk_stream_unref(stream);
    expect_data(stream, "a");
    expect_data(stream, "bc");
    assert_int_equal(lk_stream_read(stream, &chunk, NULL), LK_STREAM_DONE);
    assert_null(chunk);
    lk_stream_cancel(stream); /* too late to matter */
    assert_int_equal(lk_stream_state(stream), LK_END_WHOLE);
    assert_int_equal(lk_stream_read(stream, &chunk, NULL), LK_STREAM_DONE);
    assert_int_equal(lk_stream_bytes(stream), 3);
    assert_int_equal(lk_stream_raw_bytes(stream), 101);
    lk_stream_unref(stream);
}

static void failure_comes_after_the_data(void **state)
{
    struct lk_stream *stream = lk_stream_new(3, NULL);
    struct lk_error err, failure;
    struct lk_chunk *chunk;

    (void)state;
    lk_error_set(&failure, LK_EXIT, "pg_dump ended with 1");
    lk_error_hint(&failure, "look");
    lk_stream_write(stream, chunk_of("a"), NULL);
    lk_stream_end(stream, &failure);
    lk_stream_end(stream, NULL); /* the first one wins */
    assert_int_equal(lk_stream_state(stream), LK_END_FAILED);
    expect_data(stream, "a");
    assert_int_equal(lk_stream_read(stream, &chunk, &err), -1);
    assert_int_equal(err.kind, LK_EXIT);
    assert_string_equal(err.message, "pg_dump ended with 1");
    assert_string_equal(err.hint, "look");
    assert_int_equal(lk_stream_write(stream, chunk_of("b"), &err), -1);
    drop_both(stream);
}

static void count_call(void *arg)
{
    ++*(int *)arg;
}

static void cancelling_drops_what_is_queued(void **state)
{
    struct lk_stream *stream = lk_stream_new(3, NULL);
    struct lk_chunk *chunk, *shared = chunk_of("shared");
    struct lk_error err;
    int told = 0;

    (void)state;
    lk_stream_on_cancel(stream, count_call, &told);
    lk_stream_write(stream, chunk_of("a"), NULL);
    shared->next = shared; /* the other holder's business */
    lk_stream_write(stream, lk_chunk_ref(shared), NULL);
    lk_stream_write(stream, chunk_of("b"), NULL);
    lk_stream_cancel(stream);
    lk_stream_cancel(stream);
    assert_ptr_equal(shared->next, shared);
    lk_chunk_unref(shared);
    assert_int_equal(told, 1);
    assert_int_equal(lk_stream_state(stream), LK_END_CANCELLED);
    assert_int_equal(lk_stream_write(stream, chunk_of("c"), &err), -1);
    assert_int_equal(err.kind, LK_CANCELLED);
    assert_string_equal(err.message, "the reader of the stream cancelled it");
    assert_int_equal(lk_stream_read(stream, &chunk, &err), -1);
    assert_int_equal(err.kind, LK_CANCELLED);
    lk_stream_end(stream, NULL);
    assert_int_equal(lk_stream_state(stream), LK_END_CANCELLED);
    drop_both(stream);
}

static void on_cancel_does_not_run_after_the_end(void **state)
{
    struct lk_stream *stream = lk_stream_new(3, NULL);
    struct lk_chunk *chunk;
    int told = 0;

    (void)state;
    lk_stream_on_cancel(stream, count_call, &told);
    lk_stream_write(stream, chunk_of("a"), NULL);
    lk_stream_end(stream, NULL);
    lk_stream_cancel(stream); /* whole, but not read: dropped all the same */
    assert_int_equal(told, 0);
    assert_int_equal(lk_stream_read(stream, &chunk, NULL), -1);
    assert_int_equal(lk_stream_state(stream), LK_END_WHOLE);
    drop_both(stream);
}

static void consumer_that_goes_counts_as_cancel(void **state)
{
    struct lk_stream *stream = lk_stream_new(3, NULL);
    int told = 0;

    (void)state;
    lk_stream_on_cancel(stream, count_call, &told);
    lk_stream_write(stream, chunk_of("a"), NULL);
    lk_stream_unref(stream);
    assert_int_equal(told, 1);
    assert_int_equal(lk_stream_state(stream), LK_END_CANCELLED);
    lk_stream_end(stream, NULL);
    lk_stream_unref(stream);
    lk_stream_unref(NULL);
}

static void refuses_nonsense(void **state)
{
    struct lk_error err;

    (void)state;
    assert_null(lk_stream_new(0, &err));
    assert_int_equal(err.kind, LK_USAGE);
}

/* --- threads --- */

enum { CHUNKS = 4000 };

static void *produce(void *arg)
{
    struct lk_stream *stream = arg;
    char text[16];
    int i;

    for (i = 0; i < CHUNKS; i++) {
        struct lk_chunk *chunk = lk_chunk_alloc(sizeof text, NULL);

        chunk->len = (size_t)snprintf((char *)chunk->data, sizeof text, "%d", i);
        chunk->raw_len = 1;
        if (lk_stream_write(stream, chunk, NULL) < 0)
            break;
    }
    lk_stream_end(stream, NULL);
    lk_stream_unref(stream);
    return NULL;
}

static void blocking_sides_meet(void **state)
{
    struct lk_stream *stream = lk_stream_new(2, NULL);
    pthread_t thread;
    char text[16];
    int i;

    (void)state;
    pthread_create(&thread, NULL, produce, stream);
    for (i = 0; i < CHUNKS; i++) {
        snprintf(text, sizeof text, "%d", i);
        expect_data(stream, text);
    }
    assert_int_equal(lk_stream_read(stream, &(struct lk_chunk *){NULL}, NULL), LK_STREAM_DONE);
    pthread_join(thread, NULL);
    assert_int_equal(lk_stream_raw_bytes(stream), CHUNKS);
    lk_stream_unref(stream);
}

static void cancelling_wakes_a_blocked_writer(void **state)
{
    struct lk_stream *stream = lk_stream_new(1, NULL);
    pthread_t thread;

    (void)state;
    pthread_create(&thread, NULL, produce, stream);
    usleep(20000);
    lk_stream_cancel(stream);
    pthread_join(thread, NULL);
    assert_int_equal(lk_stream_state(stream), LK_END_CANCELLED);
    lk_stream_unref(stream);
}

static void *read_one(void *arg)
{
    struct lk_chunk *chunk;
    struct lk_error err = {.kind = LK_OK};

    if (lk_stream_read(arg, &chunk, &err) == LK_STREAM_DATA)
        lk_chunk_unref(chunk);
    return (void *)(intptr_t)err.kind;
}

static void cancelling_wakes_a_blocked_reader(void **state)
{
    struct lk_stream *stream = lk_stream_new(1, NULL);
    pthread_t thread;
    void *kind;

    (void)state;
    pthread_create(&thread, NULL, read_one, stream);
    usleep(20000);
    lk_stream_cancel(stream);
    pthread_join(thread, &kind);
    assert_int_equal((intptr_t)kind, LK_CANCELLED);
    drop_both(stream);
}

/* The producer frees what on_cancel uses right after lk_stream_end: it must not be in use any more.
 */
static void slow_cancel(void *arg)
{
    usleep(20000);
    ++*(int *)arg;
}

static void *cancel_it(void *arg)
{
    lk_stream_cancel(arg);
    return NULL;
}

static void end_waits_for_on_cancel(void **state)
{
    struct lk_stream *stream = lk_stream_new(1, NULL);
    struct lk_error err;
    pthread_t thread;
    int told = 0;

    (void)state;
    lk_stream_on_cancel(stream, slow_cancel, &told);
    pthread_create(&thread, NULL, cancel_it, stream);
    while (lk_stream_write(stream, chunk_of("x"), &err) == 0)
        lk_chunk_unref(NULL);
    lk_stream_end(stream, &err);
    assert_int_equal(told, 1);
    pthread_join(thread, NULL);
    drop_both(stream);
}

static void end_inside_cancel(void *arg)
{
    lk_stream_end(arg, NULL);
}

static void on_cancel_may_end_the_stream(void **state)
{
    struct lk_stream *stream = lk_stream_new(1, NULL);

    (void)state;
    lk_stream_on_cancel(stream, end_inside_cancel, stream);
    lk_stream_cancel(stream);
    assert_int_equal(lk_stream_state(stream), LK_END_CANCELLED);
    drop_both(stream);
}

/* --- on the loop --- */

struct end {
    struct lk_stream *stream;
    int calls, next, most;
    bool done;
    char text[16];
};

static void pull(void *arg)
{
    struct end *end = arg;
    struct lk_chunk *chunk;
    int rc;

    end->calls++;
    while ((rc = lk_stream_try_read(end->stream, &chunk, NULL)) == LK_STREAM_DATA) {
        snprintf(end->text, sizeof end->text, "%d", end->next++);
        assert_int_equal(chunk->len, strlen(end->text));
        assert_memory_equal(chunk->data, end->text, chunk->len);
        lk_chunk_unref(chunk);
    }
    end->done = rc == LK_STREAM_DONE;
}

static void loop_reads_from_a_thread(void **state)
{
    struct lk_loop *loop = lk_loop_new(NULL);
    struct end end = {.stream = lk_stream_new(2, NULL)};
    pthread_t thread;

    (void)state;
    lk_stream_on_ready(end.stream, loop, pull, &end);
    pthread_create(&thread, NULL, produce, end.stream);
    pull(&end);
    while (!end.done)
        assert_true(lk_loop_step(loop, 5000, NULL) >= 0);
    pthread_join(thread, NULL);
    assert_int_equal(end.next, CHUNKS);
    lk_stream_unref(end.stream);
    lk_loop_step(loop, 0, NULL);
    lk_loop_free(loop);
}

static void push(void *arg)
{
    struct end *end = arg;

    end->calls++;
    while (end->next < end->most) {
        snprintf(end->text, sizeof end->text, "%d", end->next);
        if (lk_stream_state(end->stream) == LK_END_CANCELLED)
            break;
        struct lk_chunk *chunk = chunk_of(end->text);
        int rc = lk_stream_try_write(end->stream, chunk, NULL);

        if (rc == LK_STREAM_AGAIN)
            lk_chunk_unref(chunk);
        if (rc != 0)
            return;
        end->next++;
    }
    lk_stream_end(end->stream, NULL);
    end->done = true;
}

static void loop_writes_and_loop_reads(void **state)
{
    struct lk_loop *loop = lk_loop_new(NULL);
    struct lk_stream *stream = lk_stream_new(3, NULL);
    struct end writer = {.stream = stream, .most = 100}, reader = {.stream = stream};

    (void)state;
    lk_stream_on_space(stream, loop, push, &writer);
    lk_stream_on_ready(stream, loop, pull, &reader);
    pull(&reader);
    push(&writer);
    assert_int_equal(writer.next, 3);
    while (!reader.done)
        assert_true(lk_loop_step(loop, 1000, NULL) > 0);
    assert_true(writer.done);
    assert_int_equal(reader.next, 100);
    drop_both(stream);
    lk_loop_step(loop, 0, NULL);
    lk_loop_free(loop);
}

static void cancel_is_news_to_a_loop_producer(void **state)
{
    struct lk_loop *loop = lk_loop_new(NULL);
    struct lk_stream *stream = lk_stream_new(1, NULL);
    struct end writer = {.stream = stream, .most = 100};

    (void)state;
    lk_stream_on_space(stream, loop, push, &writer);
    push(&writer);
    assert_false(writer.done);
    lk_stream_cancel(stream);
    assert_int_equal(lk_loop_step(loop, 1000, NULL), 1);
    assert_true(writer.done);
    drop_both(stream);
    lk_loop_free(loop);
}

static void stream_freed_with_news_on_the_way(void **state)
{
    struct lk_loop *loop = lk_loop_new(NULL);
    struct lk_stream *stream = lk_stream_new(1, NULL);
    struct lk_chunk *chunk;
    int told = 0, i;

    (void)state;
    lk_stream_on_ready(stream, loop, count_call, &told);
    assert_int_equal(lk_stream_try_read(stream, &chunk, NULL), LK_STREAM_AGAIN);
    lk_stream_write(stream, chunk_of("a"), NULL);
    lk_stream_end(stream, NULL);
    drop_both(stream);
    assert_int_equal(lk_loop_step(loop, 0, NULL), 1);
    assert_int_equal(told, 0); /* nobody is left to be told */

    /* Asked again while the news of before is still queued: one notice, and no reference is lost.
     */
    stream = lk_stream_new(2, NULL);
    lk_stream_on_ready(stream, loop, count_call, &told);
    for (i = 0; i < 2; i++) {
        assert_int_equal(lk_stream_try_read(stream, &chunk, NULL), LK_STREAM_AGAIN);
        lk_stream_write(stream, chunk_of("a"), NULL);
        expect_data(stream, "a");
    }
    assert_int_equal(lk_loop_step(loop, 0, NULL), 1);
    assert_int_equal(told, 1);

    /* A consumer that takes its callback back hears nothing more. */
    assert_int_equal(lk_stream_try_read(stream, &chunk, NULL), LK_STREAM_AGAIN);
    lk_stream_end(stream, NULL);
    lk_stream_on_ready(stream, NULL, NULL, NULL);
    assert_int_equal(lk_loop_step(loop, 0, NULL), 0);
    assert_int_equal(told, 1);
    drop_both(stream);
    lk_loop_free(loop);
}

static void sides_race_to_the_end(void **state)
{
    int i;

    (void)state;
    for (i = 0; i < 300; i++) {
        struct lk_stream *stream = lk_stream_new(1, NULL);
        pthread_t thread;
        int told = 0;

        lk_stream_on_cancel(stream, count_call, &told);
        pthread_create(&thread, NULL, cancel_it, lk_stream_ref(stream));
        lk_stream_write(stream, chunk_of("x"), NULL);
        lk_stream_end(stream, NULL);
        assert_true(told == (lk_stream_state(stream) == LK_END_CANCELLED));
        drop_both(stream);
        pthread_join(thread, NULL);
        lk_stream_unref(stream);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_stream_is_read_to_its_end),
        cmocka_unit_test(failure_comes_after_the_data),
        cmocka_unit_test(cancelling_drops_what_is_queued),
        cmocka_unit_test(on_cancel_does_not_run_after_the_end),
        cmocka_unit_test(consumer_that_goes_counts_as_cancel),
        cmocka_unit_test(refuses_nonsense),
        cmocka_unit_test(blocking_sides_meet),
        cmocka_unit_test(cancelling_wakes_a_blocked_writer),
        cmocka_unit_test(cancelling_wakes_a_blocked_reader),
        cmocka_unit_test(end_waits_for_on_cancel),
        cmocka_unit_test(on_cancel_may_end_the_stream),
        cmocka_unit_test(loop_reads_from_a_thread),
        cmocka_unit_test(loop_writes_and_loop_reads),
        cmocka_unit_test(cancel_is_news_to_a_loop_producer),
        cmocka_unit_test(stream_freed_with_news_on_the_way),
        cmocka_unit_test(sides_race_to_the_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
