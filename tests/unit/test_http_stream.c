/* SPDX-License-Identifier: MIT
 * test_http_stream.c - answers and requests as streams against a scripted server on loopback: large
 * ones in bounded memory, slow readers, and every way in which they can break. */
#include "crypto.h"
#include "http_server.h"

#define LARGE ((uint64_t)200 << 20)

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MEASURES_MEMORY 0 /* sanitizers keep freed memory for a while */
#else
#define MEASURES_MEMORY 1
#endif

/* Resident bytes of this process. */
static size_t resident(void)
{
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%*d %ld", &pages), 1);
    fclose(file);
    return (size_t)pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* The consumer of an answer, on the loop: checks the server's pattern (byte i is i mod 251). */
struct reader {
    struct fixture *f;
    struct lk_stream *stream;
    uint64_t bytes, sleep_at;
    size_t peak;
    bool ended, wrong;
    int result;
    struct lk_error err;
};

static void read_on(void *arg)
{
    struct reader *reader = arg;
    struct lk_chunk *chunk;
    int got;
    while (!reader->ended &&
           (got = lk_stream_try_read(reader->stream, &chunk, &reader->err)) != LK_STREAM_AGAIN) {
        if (got != LK_STREAM_DATA) {
            reader->ended = true;
            reader->result = got;
            return;
        }
        for (size_t i = 0; i < chunk->len; i++)
            if (chunk->data[i] != (reader->bytes + i) % 251)
                reader->wrong = true;
        reader->bytes += chunk->len;
        lk_chunk_unref(chunk);
        size_t now = resident();
        reader->peak = now > reader->peak ? now : reader->peak;
    }
}

static void open_answer(struct fixture *f, struct call *call, struct reader *reader,
                        struct lk_http_options *options)
{
    options->sink = true;
    do_call(f, call, options);
    assert_non_null(call->response);
    assert_true(call->response->streamed);
    memset(reader, 0, sizeof(*reader));
    reader->f = f;
    reader->stream = lk_http_take_stream(call->request);
    assert_non_null(reader->stream);
    assert_null(lk_http_take_stream(call->request));
    lk_http_release(call->request); /* the stream lives on */
}

static void read_answer(struct reader *reader)
{
    lk_stream_on_ready(reader->stream, reader->f->loop, read_on, reader);
    read_on(reader);
    run_until(reader->f, &reader->ended, 120);
    lk_stream_unref(reader->stream);
    assert_false(reader->wrong);
}

static void small_answers(void **state)
{
    struct fixture *f = *state;
    struct call call;
    struct reader reader;
    char url[256];
    start_server(
        &f->server,
        "[{\"match\": {\"method\": \"HEAD\"}, \"length\": 77}, {\"status\": 204},"
        " {\"body\": \"\"}, {\"body\": {\"bytes\": 1}},"
        " {\"body\": {\"bytes\": 1000000}, \"chunked\": true, \"trailers\": {\"x-t\": \"1\"}},"
        " {\"body\": {\"bytes\": 262144}, \"no_length\": true}]",
        NULL, NULL);
    static const uint64_t sizes[] = {0, 0, 0, 1, 1000000, 262144};
    for (int i = 0; i < 6; i++) {
        open_answer(f, &call, &reader,
                    OPTIONS(.url = at(&f->server, "/", url), .method = i == 0 ? "HEAD" : "GET"));
        read_answer(&reader);
        assert_int_equal(reader.result, LK_STREAM_DONE);
        assert_int_equal(reader.bytes, sizes[i]);
        assert_int_equal(lk_http_active(f->http), 0);
    }
}

static void large_answer(void **state)
{
    struct fixture *f = *state;
    struct call call;
    struct reader reader;
    char url[256];
    start_server(&f->server, "[{\"body\": {\"bytes\": 209715200}, \"times\": 0}]", NULL, NULL);
    size_t before = resident();
    open_answer(f, &call, &reader, OPTIONS(.url = at(&f->server, "/", url)));
    read_answer(&reader);
    assert_int_equal(reader.result, LK_STREAM_DONE);
    assert_int_equal(reader.bytes, LARGE);
    if (MEASURES_MEMORY && reader.peak > before + (16 << 20))
        fail_msg("%zu bytes more than before", reader.peak - before);
}

/* Nobody reads for longer than the idle timeout: the transfer waits, and takes no memory meanwhile.
 */
static void slow_reader(void **state)
{
    struct fixture *f = *state;
    struct call call;
    struct reader reader;
    char url[256];
    start_server(&f->server, "[{\"body\": {\"bytes\": 50000000}}]", NULL, NULL);
    open_answer(f, &call, &reader, OPTIONS(.url = at(&f->server, "/", url), .idle_ms = 300));
    size_t before = resident();
    run_for(f, 1.2);
    assert_int_equal(lk_http_active(f->http), 1);
    assert_true(lk_stream_bytes(reader.stream) <= 4 * ((uint64_t)256 << 10));
    if (MEASURES_MEMORY && resident() > before + (4 << 20))
        fail_msg("%zu bytes more than before", resident() - before);
    read_answer(&reader);
    assert_int_equal(reader.result, LK_STREAM_DONE);
    assert_int_equal(reader.bytes, 50000000);
}

static void *hold_chunks(void *arg)
{
    struct reader *reader = arg;
    struct lk_chunk *held[16], *chunk;
    int count = 0;
    while (lk_stream_read(reader->stream, &chunk, &reader->err) == LK_STREAM_DATA) {
        reader->bytes += chunk->len;
        held[count++] = chunk;
        if (count == 16 || reader->bytes >= 16000000)
            while (count > 0)
                lk_chunk_unref(held[--count]);
    }
    while (count > 0)
        lk_chunk_unref(held[--count]);
    reader->result = lk_stream_state(reader->stream) == LK_END_WHOLE ? LK_STREAM_DONE : -1;
    __atomic_store_n(&reader->ended, true, __ATOMIC_RELEASE);
    return NULL;
}

static void hold_stage(void *arg)
{
    hold_chunks(arg);
}

/* A consumer on a thread that keeps chunks until none is left to be filled. */
static void hoarding_reader(void **state)
{
    struct fixture *f = *state;
    struct call call;
    struct reader reader;
    char url[256];
    start_server(&f->server, "[{\"body\": {\"bytes\": 20000000}}]", NULL, NULL);
    open_answer(f, &call, &reader, OPTIONS(.url = at(&f->server, "/", url), .idle_ms = 5000));
    assert_int_equal(lk_pool_stage(f->pool, "hoard", hold_stage, &reader, NULL), 0);
    uint64_t end = lk_now_ns() + 60000000000u;
    while (!__atomic_load_n(&reader.ended, __ATOMIC_ACQUIRE) && lk_now_ns() < end)
        assert_true(lk_loop_step(f->loop, 50, NULL) >= 0);
    assert_true(__atomic_load_n(&reader.ended, __ATOMIC_ACQUIRE));
    assert_int_equal(reader.result, LK_STREAM_DONE);
    assert_int_equal(reader.bytes, 20000000);
    lk_stream_unref(reader.stream);
}

static void broken_answers(void **state)
{
    struct fixture *f = *state;
    struct call call;
    struct reader reader;
    char url[256];
    start_server(&f->server,
                 "[{\"body\": {\"bytes\": 900000}, \"reset_after\": 400000},"
                 " {\"body\": {\"bytes\": 900000}, \"length\": 900001, \"close\": true},"
                 " {\"body\": {\"bytes\": 900000}, \"chunked\": true, \"close_after\": 400000},"
                 " {\"body\": {\"bytes\": 900000}, \"stall_after\": 400000}]",
                 NULL, NULL);
    for (int i = 0; i < 4; i++) {
        open_answer(f, &call, &reader,
                    OPTIONS(.url = at(&f->server, "/broken", url), .idle_ms = 500));
        read_answer(&reader);
        assert_int_equal(reader.result, -1);
        assert_string_equal(lk_kind_name(reader.err.kind), i == 3 ? "timeout" : "network");
        assert_true(reader.err.retryable);
        assert_non_null(strstr(reader.err.message, "/broken"));
        assert_true(reader.bytes < 900001);
        assert_int_equal(lk_http_active(f->http), 0);
    }
}

static void error_answer(void **state)
{
    struct fixture *f = *state;
    struct call call;
    char url[256];
    start_server(&f->server, "[{\"status\": 404, \"body\": \"<Error/>\"}]", NULL, NULL);
    do_call(f, &call, OPTIONS(.url = at(&f->server, "/", url), .sink = true));
    assert_int_equal(call.response->status, 404);
    assert_false(call.response->streamed);
    assert_null(lk_http_take_stream(call.request));
    assert_memory_equal(call.response->body, "<Error/>", 8);
    lk_http_release(call.request);
}

/* The reader goes: the server sees the connection end at once. */
static void dropped_answers(void **state)
{
    struct fixture *f = *state;
    struct call call;
    struct reader reader;
    char url[256];
    start_server(&f->server,
                 "[{\"body\": {\"bytes\": 900000}, \"stall_after\": 400000, \"times\": 2},"
                 " {\"body\": {\"bytes\": 90000000}, \"times\": 0}]",
                 NULL, NULL);
    for (int i = 0; i < 4; i++) {
        open_answer(f, &call, &reader, OPTIONS(.url = at(&f->server, "/", url)));
        run_for(f, 0.1);
        assert_int_equal(lk_http_active(f->http), 1);
        if (i % 2 == 0)
            lk_stream_cancel(reader.stream);
        lk_stream_unref(reader.stream);
        run_for(f, 0.05);
        assert_int_equal(lk_http_active(f->http), 0);
    }
    do_call(f, &call, OPTIONS(.url = at(&f->server, "/", url), .sink = true));
    lk_http_release(call.request); /* with the stream not taken */
    assert_int_equal(lk_http_active(f->http), 0);
    open_answer(f, &call, &reader, OPTIONS(.url = at(&f->server, "/", url)));
    lk_http_stop(f->http);
    read_answer(&reader);
    assert_int_equal(reader.result, -1);
    assert_int_equal(reader.err.kind, LK_CANCELLED);
}

/* --- upload --- */

struct writer {
    struct lk_stream *stream;
    struct lk_slabs *slabs;
    uint64_t size;
};

static void write_pattern(void *arg)
{
    struct writer *writer = arg;
    struct lk_chunk *chunk;
    uint64_t done = 0;
    while (done < writer->size && (chunk = lk_slabs_take(writer->slabs, NULL)) != NULL) {
        for (chunk->len = 0; chunk->len < chunk->cap && done < writer->size; chunk->len++)
            chunk->data[chunk->len] = (unsigned char)(done++ % 251);
        chunk->raw_len = chunk->len;
        if (lk_stream_write(writer->stream, chunk, NULL) < 0)
            break;
    }
    lk_stream_end(writer->stream, NULL);
    lk_stream_unref(writer->stream);
}

static void pattern_digest(uint64_t size, char hex[65])
{
    unsigned char block[251 * 1024], digest[LK_DIGEST_MAX];
    struct lk_hasher *hasher = lk_hasher_new(LK_SHA256, NULL);
    assert_non_null(hasher);
    for (size_t i = 0; i < sizeof(block); i++)
        block[i] = (unsigned char)(i % 251);
    for (uint64_t done = 0; done < size; done += sizeof(block))
        lk_hasher_update(hasher, block,
                         size - done < sizeof(block) ? (size_t)(size - done) : sizeof(block));
    lk_hasher_final(hasher, digest);
    lk_hasher_free(hasher);
    lk_hex(digest, 32, hex);
}

static void large_upload(void **state)
{
    struct fixture *f = *state;
    struct call call;
    char url[256], hex[65];
    start_server(&f->server, "[{\"times\": 0}]", NULL, NULL);
    pattern_digest(LARGE, hex);
    size_t before = resident();
    for (int i = 0; i < 2; i++) {
        struct writer writer = {.size = LARGE,
                                .stream = lk_stream_new(4, NULL),
                                .slabs = lk_slabs_new(1 << 18, 8, NULL)};
        assert_int_equal(lk_pool_stage(f->pool, "write", write_pattern, &writer, NULL), 0);
        begin_call(f, &call,
                   OPTIONS(.url = at(&f->server, "/", url), .method = "PUT",
                           .stream = writer.stream, .length = i == 0 ? -1 : (int64_t)LARGE));
        size_t peak = 0;
        while (!call.done) {
            assert_true(lk_loop_step(f->loop, 100, NULL) >= 0);
            size_t now = resident();
            peak = now > peak ? now : peak;
        }
        assert_non_null(call.response);
        lk_http_release(call.request);
        lk_slabs_free(writer.slabs);
        if (MEASURES_MEMORY && peak > before + (16 << 20))
            fail_msg("%zu bytes more than before", peak - before);
    }
    assert_int_equal(count_in_log(&f->server, hex), 2);
}

/* The server answers before it has read the body: an error is the answer, and the source is told.
 */
static void refused_upload(void **state)
{
    struct fixture *f = *state;
    struct call call;
    char url[256];
    start_server(&f->server,
                 "[{\"read\": 1000, \"delay\": 0.3, \"status\": 403, \"body\": \"no\"}]", NULL,
                 NULL);
    struct lk_stream *stream = lk_stream_new(4, NULL);
    begin_call(
        f, &call,
        OPTIONS(.url = at(&f->server, "/", url), .method = "PUT", .stream = stream, .length = -1));
    struct lk_chunk *chunk = lk_chunk_alloc(100000, NULL);
    assert_non_null(chunk);
    memset(chunk->data, 0, 100000);
    chunk->len = 100000;
    assert_int_equal(lk_stream_write(stream, chunk, NULL), 0);
    run_until(f, &call.done, 20);
    assert_non_null(call.response);
    assert_int_equal(call.response->status, 403);
    lk_http_release(call.request);
    assert_int_equal(lk_stream_state(stream), LK_END_CANCELLED);
    lk_stream_unref(stream);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(small_answers),   TEST(large_answer),   TEST(slow_reader),
        TEST(hoarding_reader), TEST(broken_answers), TEST(error_answer),
        TEST(dropped_answers), TEST(large_upload),   TEST(refused_upload),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
