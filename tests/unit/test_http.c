/* SPDX-License-Identifier: MIT
 * test_http.c - requests against a scripted server on loopback: what is sent, what comes back, how
 * it fails. */
#include "http_server.h"

static const struct lk_http_header *find(const struct lk_http_response *response, const char *name)
{
    for (size_t i = 0; i < response->header_count; i++)
        if (strcmp(response->headers[i].name, name) == 0)
            return &response->headers[i];
    return NULL;
}

static void assert_refused(struct fixture *f, const struct lk_http_options *options,
                           enum lk_kind kind, const char *text)
{
    struct lk_error err;
    assert_null(lk_http_start(f->http, options, &err));
    assert_string_equal(lk_kind_name(err.kind), lk_kind_name(kind));
    if (strstr(err.message, text) == NULL)
        fail_msg("\"%s\" is not in: %s", text, err.message);
    assert_int_equal(lk_http_active(f->http), 0);
}

/* --- what is sent and what comes back --- */

static void get_with_headers(void **state)
{
    struct fixture *f = *state;
    struct call call;
    char url[256];
    start_server(&f->server,
                 "[{\"informational\": [103], \"body\": \"hello\\n\", \"headers\":"
                 " [[\"X-Two\", \"a\"], [\"x-two\", \"b \"], [\"ETag\", \"\\\"q\\\"\"], "
                 "[\"Empty\", \"\"]]}]",
                 NULL, NULL);
    struct lk_http_header headers[] = {
        {"X-Given", "one: two", 8}, {"x-empty", "", 0}, {"accept", "text/x", 6}};
    do_call(f, &call,
            OPTIONS(.url = at(&f->server, "/b/a/../b/./c%2Fd?q=%20&r", url), .headers = headers,
                    .header_count = 3));
    assert_non_null(call.response);
    assert_int_equal(call.response->status, 200);
    assert_int_equal(call.response->body_len, 6);
    assert_memory_equal(call.response->body, "hello\n", 6);
    assert_string_equal(find(call.response, "etag")->value, "\"q\"");
    assert_string_equal(find(call.response, "empty")->value, "");
    assert_string_equal(find(call.response, "x-two")->value, "a");
    assert_string_equal((find(call.response, "x-two") + 1)->value, "b");
    assert_null(find(call.response, "x-interim"));
    assert_true(call.response->seconds > 0 && call.response->seconds < 10);
    char *log = server_log(&f->server);
    assert_non_null(strstr(log, "\"path\": \"/b/a/../b/./c%2Fd?q=%20&r\""));
    assert_non_null(strstr(log, "[\"X-Given\", \"one: two\"], [\"x-empty\", \"\"]"));
    assert_non_null(strstr(log, "[\"User-Agent\", \"lunark/"));
    assert_int_equal(count_in(log, "ccept"), 1);
    assert_null(strstr(log, "xpect"));
    free(log);
    lk_http_release(call.request);
}

static void refused_before_anything(void **state)
{
    struct fixture *f = *state;
    struct lk_http_header split = {"x-a", "b\r\nx-c: d", 9}, nul = {"x-a", "b\0c", 3},
                          name = {"x a", "b", 1};
    struct lk_http_header empty_name = {"", "b", 1}, length = {"Content-Length", "7", 1};
    struct lk_http_header encoding = {"Transfer-Encoding", "chunked", 7};
    const char *url = "http://127.0.0.1:9/";
    assert_refused(f, OPTIONS(.url = url, .headers = &split, .header_count = 1), LK_USAGE,
                   "header x-a");
    assert_refused(f, OPTIONS(.url = url, .headers = &nul, .header_count = 1), LK_USAGE,
                   "header x-a");
    assert_refused(f, OPTIONS(.url = url, .headers = &name, .header_count = 1), LK_USAGE,
                   "bad name");
    assert_refused(f, OPTIONS(.url = url, .headers = &empty_name, .header_count = 1), LK_USAGE,
                   "bad name");
    assert_refused(f, OPTIONS(.url = url, .headers = &encoding, .header_count = 1), LK_USAGE,
                   "transfer-encoding");
    assert_refused(f, OPTIONS(.url = url, .headers = &length, .header_count = 1, .method = "PUT"),
                   LK_USAGE, "content-length");
    assert_refused(f, OPTIONS(.url = url, .method = "GET / HTTP/1.1\r\nX:"), LK_USAGE,
                   "bad method");
    assert_refused(f, OPTIONS(.url = url, .method = "HEAD", .body = "x", .body_len = 1), LK_USAGE,
                   "HEAD");
    static const char *const bad[] = {"http://127.0.0.1:9/a b",
                                      "http://127.0.0.1:9/a\r\nb",
                                      "http://127.0.0.1:9/\xc3\xbc",
                                      "http://127.0.0.1:9/a#b",
                                      "http://u:p@127.0.0.1:9/",
                                      "ftp://127.0.0.1/",
                                      "file:///etc/passwd",
                                      "127.0.0.1:9/",
                                      "http://",
                                      "http://127.0.0.1:99999/",
                                      ""};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_refused(f, OPTIONS(.url = bad[i]), LK_USAGE, "bad url");
    assert_refused(f, OPTIONS(.url = "http://example.com/"), LK_DENIED, "example.com");
    assert_refused(f, OPTIONS(.url = "http://localhost:9/"), LK_DENIED, "localhost");
    assert_refused(f, OPTIONS(.url = url, .proxy = "http://proxy.example:3128"), LK_DENIED,
                   "proxy.example");
    const char *resolve = "127.0.0.1:9:192.0.2.1";
    assert_refused(f, OPTIONS(.url = url, .resolve = &resolve, .resolve_count = 1), LK_DENIED,
                   "192.0.2.1");
}

static void urls(void **state)
{
    struct lk_http_url url;
    (void)state;
    assert_int_equal(lk_http_parse_url("https://Example.COM/a/../b?x=1&y", 32, &url, NULL), 0);
    assert_string_equal(url.scheme, "https");
    assert_string_equal(url.path, "/a/../b");
    assert_string_equal(url.query, "x=1&y");
    assert_int_equal(url.port, 443);
    assert_true(url.default_port);
    lk_http_url_free(&url);
    assert_int_equal(lk_http_parse_url("http://[::1]:8080", 17, &url, NULL), 0);
    assert_string_equal(url.host, "[::1]");
    assert_string_equal(url.path, "/");
    assert_null(url.query);
    assert_int_equal(url.port, 8080);
    assert_false(url.default_port);
    lk_http_url_free(&url);
}

static void methods_without_body(void **state)
{
    struct fixture *f = *state;
    struct call call;
    char url[256];
    start_server(&f->server, "[{\"times\": 0, \"length\": 5, \"body\": \"12345\"}]", NULL, NULL);
    static const char *const methods[] = {"GET", "HEAD", "DELETE",  "OPTIONS",
                                          "PUT", "POST", "PROPFIND"};
    for (size_t i = 0; i < 7; i++) {
        do_call(f, &call,
                OPTIONS(.method = methods[i], .url = at(&f->server, "/x", url), .idle_ms = 5000));
        assert_non_null(call.response);
        assert_int_equal(call.response->body_len, strcmp(methods[i], "HEAD") == 0 ? 0 : 5);
        lk_http_release(call.request);
    }
    char *log = server_log(&f->server);
    for (size_t i = 0; i < 7; i++)
        assert_int_equal(count_in(log, methods[i]), 1);
    assert_int_equal(count_in(log, "[\"Content-Length\", \"0\"]"), 2); /* PUT and POST */
    assert_int_equal(count_in(log, "\"connection\": 1,"), 7);
    free(log);
}

static void redirect_is_an_answer(void **state)
{
    struct fixture *f = *state;
    struct call call;
    char url[256];
    start_server(
        &f->server,
        "[{\"status\": 307, \"headers\": {\"Location\": \"/other\"}, \"body\": \"moved\"}]", NULL,
        NULL);
    do_call(f, &call, OPTIONS(.url = at(&f->server, "/one", url), .sink = true));
    assert_int_equal(call.response->status, 307);
    assert_string_equal(find(call.response, "location")->value, "/other");
    assert_false(call.response->streamed);
    assert_memory_equal(call.response->body, "moved", 5);
    lk_http_release(call.request);
    assert_int_equal(count_in_log(&f->server, "\n"), 1);
}

static void bounded_answer(void **state)
{
    struct fixture *f = *state;
    struct call call;
    char url[256];
    start_server(&f->server,
                 "[{\"body\": {\"bytes\": 1000}, \"times\": 2}, {\"body\": {\"bytes\": 1000}, "
                 "\"status\": 500},"
                 " {\"headers\": {\"X-Big\": \"\"}, \"body\": \"\"}]",
                 NULL, NULL);
    do_call(f, &call, OPTIONS(.url = at(&f->server, "/fits", url), .max = 1000));
    assert_int_equal(call.response->body_len, 1000);
    lk_http_release(call.request);
    do_call(f, &call, OPTIONS(.url = at(&f->server, "/longer", url), .max = 999));
    assert_failed(&call, LK_MEMORY, false, "/longer: the answer is longer than 999 bytes");
    lk_http_release(call.request);
    do_call(f, &call, OPTIONS(.url = at(&f->server, "/error", url), .max = 999));
    assert_int_equal(call.response->status, 500);
    assert_int_equal(call.response->body_len, 999);
    lk_http_release(call.request);
}

/* --- request bodies --- */

static void put_memory(void **state)
{
    struct fixture *f = *state;
    struct call call;
    char url[256];
    struct lk_http_header headers[] = {{"content-length", "3", 1},
                                       {"content-type", "text/plain", 10}};
    start_server(&f->server, "[{\"body\": {\"echo\": true}, \"times\": 0}]", NULL, NULL);
    do_call(f, &call,
            OPTIONS(.method = "POST", .url = at(&f->server, "/m", url), .body = "a\0b",
                    .body_len = 3, .headers = headers, .header_count = 2));
    assert_int_equal(call.response->body_len, 3);
    assert_memory_equal(call.response->body, "a\0b", 3);
    lk_http_release(call.request);
    do_call(f, &call,
            OPTIONS(.method = "PUT", .url = at(&f->server, "/e", url), .body = "", .body_len = 0));
    assert_int_equal(call.response->body_len, 0);
    lk_http_release(call.request);
    do_call(f, &call,
            OPTIONS(.method = "PUT", .url = at(&f->server, "/x", url), .body = "x", .body_len = 1,
                    .expect_continue = true));
    assert_int_equal(call.response->body_len, 1);
    lk_http_release(call.request);
    char *log = server_log(&f->server);
    assert_int_equal(count_in(log, "ontent-"), 4); /* three lengths, one type */
    assert_int_equal(count_in(log, "xpect"), 1);
    free(log);
}

static struct lk_chunk *chunk_of(const char *text)
{
    struct lk_chunk *chunk = lk_chunk_alloc(strlen(text) + 1, NULL);
    assert_non_null(chunk);
    memcpy(chunk->data, text, strlen(text));
    chunk->len = chunk->raw_len = strlen(text);
    return chunk;
}

/* Sends "hello " and, a moment later, "world", then ends the stream with err, and waits for the
 * answer. */
static void send_stream(struct fixture *f, struct call *call, const char *path, int64_t length,
                        const struct lk_error *err)
{
    char url[256];
    struct lk_stream *stream = lk_stream_new(4, NULL);
    assert_non_null(stream);
    begin_call(f, call,
               OPTIONS(.method = "PUT", .url = at(&f->server, path, url), .stream = stream,
                       .length = length));
    run_for(f, 0.05);
    if (length != 0) {
        assert_int_equal(lk_stream_write(stream, chunk_of("hello "), NULL), 0);
        run_for(f, 0.05);
        assert_int_equal(lk_stream_write(stream, chunk_of("world"), NULL), 0);
        run_for(f, 0.05);
    }
    assert_false(call->done && call->response != NULL);
    lk_stream_end(stream, err);
    lk_stream_unref(stream);
    run_until(f, &call->done, 10);
}

static void put_stream(void **state)
{
    struct fixture *f = *state;
    struct call call;
    start_server(&f->server, "[{\"body\": {\"echo\": true}, \"times\": 0}]", NULL, NULL);
    static const int64_t lengths[] = {-1, 11};
    for (int i = 0; i < 2; i++) {
        send_stream(f, &call, "/whole", lengths[i], NULL);
        assert_non_null(call.response);
        assert_int_equal(call.response->body_len, 11);
        assert_memory_equal(call.response->body, "hello world", 11);
        lk_http_release(call.request);
    }
    send_stream(f, &call, "/whole", 0, NULL);
    assert_int_equal(call.response->status, 200);
    lk_http_release(call.request);
    assert_int_equal(count_in_log(&f->server, "\"complete\": true"), 3);
    assert_int_equal(count_in_log(&f->server, "chunked"), 1);
    assert_int_equal(count_in_log(&f->server, "\"connection\": 3"),
                     1); /* a stream gets a fresh one */
}

/* A source that fails at its very end must never look like a whole body to the server. */
static void put_failing_stream(void **state)
{
    struct fixture *f = *state;
    struct call call;
    struct lk_error err;
    lk_error_set(&err, LK_EXIT, "pg_dump ended with exit code 1");
    start_server(&f->server, "[{\"times\": 0}]", NULL, NULL);
    static const int64_t lengths[] = {-1, 11, 0};
    for (int i = 0; i < 3; i++) {
        send_stream(f, &call, "/failing", lengths[i], &err);
        assert_failed(&call, LK_EXIT, false, "pg_dump ended with exit code 1");
        lk_http_release(call.request);
    }
    send_stream(f, &call, "/short", 12, NULL);
    assert_failed(&call, LK_IO, false, "/short: the body is shorter than the 12 bytes announced");
    lk_http_release(call.request);
    send_stream(f, &call, "/long", 10, NULL);
    assert_failed(&call, LK_IO, false, "/long: the body is longer than the 10 bytes announced");
    lk_http_release(call.request);
    run_for(f, 0.2);
    assert_int_equal(count_in_log(&f->server, "\n"), 0); /* logged when whole */
}

/* A kept connection that the server has given up: libcurl sends a body in memory again on a new
 * one. */
static void dead_connection(void **state)
{
    struct fixture *f = *state;
    struct call call;
    char url[256];
    start_server(
        &f->server,
        "[{\"body\": \"first\"}, {\"match\": {\"method\": \"PUT\"}, \"drop\": true},"
        " {\"match\": {\"method\": \"PUT\"}, \"body\": {\"echo\": true}}, {\"drop\": true}]",
        NULL, NULL);
    do_call(f, &call, OPTIONS(.url = at(&f->server, "/", url)));
    lk_http_release(call.request);
    do_call(f, &call,
            OPTIONS(.method = "PUT", .url = at(&f->server, "/again", url), .body = "payload",
                    .body_len = 7));
    assert_non_null(call.response);
    assert_memory_equal(call.response->body, "payload", 7);
    lk_http_release(call.request);
    assert_int_equal(count_in_log(&f->server, "\"bytes\": 7,"), 2);
}

/* --- many --- */

static void many_at_once(void **state)
{
    struct fixture *f = *state;
    static struct call calls[64];
    char url[256], path[32];
    start_server(&f->server, "[{\"times\": 0, \"delay\": 0.2, \"body\": \"ok\"}]", NULL, NULL);
    uint64_t began = lk_now_ns();
    for (int i = 0; i < 64; i++) {
        snprintf(path, sizeof(path), "/%d", i);
        begin_call(f, &calls[i], OPTIONS(.url = at(&f->server, path, url)));
    }
    assert_int_equal(lk_http_active(f->http), 64);
    for (int i = 0; i < 64; i++) {
        run_until(f, &calls[i].done, 30);
        assert_non_null(calls[i].response);
        assert_memory_equal(calls[i].response->body, "ok", 2);
        lk_http_release(calls[i].request);
    }
    assert_true(lk_now_ns() - began < 10 * 1000000000ull); /* in turn it would be 12.8 s */
    assert_int_equal(count_in_log(&f->server, "\n"), 64);
}

/* --- failures --- */

static void broken_answers(void **state)
{
    struct fixture *f = *state;
    struct call call;
    char url[256];
    start_server(
        &f->server,
        "[{\"match\": {\"path\": \"drop\"}, \"times\": 0, \"drop\": true},"
        " {\"match\": {\"path\": \"reset\"}, \"body\": {\"bytes\": 9000}, \"reset_after\": 100},"
        " {\"match\": {\"path\": \"short\"}, \"body\": \"abc\", \"length\": 9},"
        " {\"match\": {\"path\": \"cut\"}, \"body\": \"abcdef\", \"chunked\": true, "
        "\"close_after\": 3},"
        " {\"match\": {\"path\": \"stall\"}, \"body\": {\"bytes\": 9000}, \"stall_after\": 100},"
        " {\"match\": {\"path\": \"hold\"}, \"times\": 0, \"hold\": 60}]",
        NULL, NULL);
    static const char *const paths[] = {"/drop", "/reset", "/short", "/cut"};
    for (int i = 0; i < 4; i++) {
        do_call(f, &call, OPTIONS(.url = at(&f->server, paths[i], url)));
        assert_failed(&call, LK_NETWORK, true, paths[i]);
        assert_string_equal(call.err.op, "http.request");
        assert_true(call.err.code > 0);
        lk_http_release(call.request);
    }
    do_call(f, &call, OPTIONS(.url = at(&f->server, "/stall", url), .idle_ms = 300));
    assert_failed(&call, LK_TIMEOUT, true, "/stall: no byte from or to the server for 0.3 s");
    lk_http_release(call.request);
    do_call(f, &call, OPTIONS(.url = at(&f->server, "/hold", url), .idle_ms = 300));
    assert_failed(&call, LK_TIMEOUT, true, "/hold: no byte from or to the server for 0.3 s");
    lk_http_release(call.request);
    do_call(f, &call,
            OPTIONS(.url = at(&f->server, "/hold", url), .idle_ms = 20000, .total_ms = 400));
    assert_failed(&call, LK_TIMEOUT, true, "/hold: not done within 0.4 s");
    lk_http_release(call.request);
}

static void cancelled(void **state)
{
    struct fixture *f = *state;
    struct call call;
    char url[256];
    start_server(&f->server, "[{\"times\": 0, \"hold\": 60}]", NULL, NULL);
    begin_call(f, &call, OPTIONS(.url = at(&f->server, "/a", url)));
    run_for(f, 0.1);
    lk_http_cancel(call.request);
    lk_http_cancel(call.request);
    assert_false(call.done);
    run_until(f, &call.done, 1);
    assert_failed(&call, LK_CANCELLED, false, "cancelled");
    lk_http_release(call.request);

    begin_call(f, &call, OPTIONS(.url = at(&f->server, "/b", url)));
    run_for(f, 0.1);
    lk_http_release(call.request);
    assert_int_equal(lk_http_active(f->http), 0);
    begin_call(f, &call, OPTIONS(.url = at(&f->server, "/c", url)));
    lk_http_release(call.request); /* before the first turn */
    begin_call(f, &call, OPTIONS(.url = at(&f->server, "/d", url)));
    lk_http_cancel(call.request);
    lk_http_release(call.request); /* with done on its way */
    run_for(f, 0.1);
    assert_false(call.done);

    begin_call(f, &call, OPTIONS(.url = at(&f->server, "/e", url)));
    lk_http_stop(f->http);
    run_until(f, &call.done, 1);
    assert_failed(&call, LK_CANCELLED, false, "the runtime ends");
    lk_http_release(call.request);
}

static void outlived(void **state)
{
    struct fixture *f = *state;
    struct call call;
    char url[256];
    start_server(&f->server, "[{\"times\": 0, \"hold\": 60}]", NULL, NULL);
    begin_call(f, &call, OPTIONS(.url = at(&f->server, "/a", url)));
    run_for(f, 0.1);
    lk_http_free(f->http);
    while (lk_loop_step(f->loop, 0, NULL) > 0)
        ;
    assert_false(call.done);
    lk_http_release(call.request);
    f->http = lk_http_new(f->loop, f->caps, NULL);
    assert_non_null(f->http);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(get_with_headers),
        TEST(refused_before_anything),
        TEST(urls),
        TEST(methods_without_body),
        TEST(redirect_is_an_answer),
        TEST(bounded_answer),
        TEST(put_memory),
        TEST(put_stream),
        TEST(put_failing_stream),
        TEST(dead_connection),
        TEST(many_at_once),
        TEST(broken_answers),
        TEST(cancelled),
        TEST(outlived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
