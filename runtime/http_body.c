/* SPDX-License-Identifier: MIT
 * http_body.c - the bytes of a request: libcurl's read, seek, header and write callbacks.
 * They fill C structures only, never add or remove a handle, know no Lua, and pause the transfer
 * where the stream on the other side has nothing or no room. Loop thread only, from within libcurl.
 */
#include "http_internal.h"
#include <stdlib.h>
#include <string.h>

/* How often a transfer that found all its slabs in use asks again. */
#define REFILL_MS 10

static void fail(struct lk_http_request *request, const struct lk_error *err)
{
    if (!request->failed)
        request->error = *err;
    request->failed = true;
}

/* --- request body --- */

/* What the input has next, without empty chunks. */
static int next_chunk(struct lk_http_request *request, struct lk_chunk **chunk)
{
    struct lk_error err;
    *chunk = NULL;
    if (request->input_whole)
        return LK_STREAM_DONE;
    for (;;) {
        int got = lk_stream_try_read(request->input, chunk, &err);
        if (got == LK_STREAM_DATA && (*chunk)->len == 0) {
            lk_chunk_unref(*chunk);
            continue;
        }
        if (got < 0) {
            err.retryable = false; /* the source's bytes are gone */
            fail(request, &err);
        }
        if (got == LK_STREAM_DONE)
            request->input_whole = true;
        return got;
    }
}

static int wrong_length(struct lk_http_request *request, const char *how)
{
    struct lk_error err;
    lk_error_set(&err, LK_IO, "%s: the body is %s than the %lld bytes announced", request->label,
                 how, (long long)request->length);
    fail(request, &err);
    return -1;
}

int lk_http_await_empty(struct lk_http_request *request)
{
    struct lk_chunk *chunk;
    int got = next_chunk(request, &chunk);
    if (got != LK_STREAM_DATA)
        return got;
    lk_chunk_unref(chunk);
    return wrong_length(request, "longer");
}

/* How many of the `n` bytes at out_at may be sent now: the last byte of an announced length waits
 * for the end. */
static int hold_last(struct lk_http_request *request, size_t *n)
{
    struct lk_chunk *next;
    uint64_t left = (uint64_t)request->length - request->sent;
    if (request->out->len - request->out_at > left)
        return wrong_length(request, "longer");
    if (*n < left)
        return LK_STREAM_DATA;
    int got = next_chunk(request, &next);
    if (got == LK_STREAM_DATA) {
        lk_chunk_unref(next);
        return wrong_length(request, "longer");
    }
    if (got == LK_STREAM_AGAIN && --*n > 0)
        return LK_STREAM_DATA;
    return got == LK_STREAM_DONE ? LK_STREAM_DATA : got;
}

static size_t read_stream(struct lk_http_request *request, char *data, size_t room)
{
    int got = LK_STREAM_DATA;
    if (request->out != NULL && request->out_at == request->out->len) {
        lk_chunk_unref(request->out);
        request->out = NULL;
    }
    if (request->out == NULL) {
        request->out_at = 0;
        got = next_chunk(request, &request->out);
    }
    if (got == LK_STREAM_DONE) {
        if (request->length >= 0 && request->sent < (uint64_t)request->length)
            got = wrong_length(request, "shorter");
        else
            return 0;
    }
    size_t n = 0;
    if (got == LK_STREAM_DATA) {
        n = request->out->len - request->out_at;
        n = n < room ? n : room;
        if (request->length >= 0)
            got = hold_last(request, &n);
    }
    if (got == LK_STREAM_AGAIN) {
        request->send_paused = true;
        return CURL_READFUNC_PAUSE;
    }
    if (got < 0)
        return CURL_READFUNC_ABORT;
    memcpy(data, request->out->data + request->out_at, n);
    request->out_at += n;
    request->sent += n;
    return n;
}

size_t lk_http_on_read(char *data, size_t size, size_t count, void *arg)
{
    struct lk_http_request *request = arg;
    size_t room = size * count;
    request->active_ns = lk_now_ns();
    if (request->input != NULL)
        return read_stream(request, data, room);
    if (request->part != NULL) {
        struct lk_error err;
        ssize_t n = lk_part_read(request->part, request->body_at, data, room, &err);
        if (n < 0) {
            fail(request, &err);
            return CURL_READFUNC_ABORT;
        }
        request->body_at += (size_t)n;
        return (size_t)n;
    }
    size_t left = request->body_len - request->body_at;
    size_t n = left < room ? left : room;
    if (n > 0)
        memcpy(data, request->body + request->body_at, n);
    request->body_at += n;
    return n;
}

/* libcurl sends a body again when a connection that it reused turns out to be dead, and after a
 * 417. */
int lk_http_on_seek(void *arg, curl_off_t offset, int origin)
{
    struct lk_http_request *request = arg;
    if (origin != SEEK_SET || offset < 0)
        return CURL_SEEKFUNC_FAIL;
    if (request->input != NULL)
        return (uint64_t)offset == request->sent ? CURL_SEEKFUNC_OK : CURL_SEEKFUNC_FAIL;
    if ((uint64_t)offset > (request->part != NULL ? request->part->size : request->body_len))
        return CURL_SEEKFUNC_FAIL;
    request->body_at = (size_t)offset;
    return CURL_SEEKFUNC_OK;
}

int lk_http_on_connected(void *arg, char *peer_ip, char *own_ip, int peer_port, int own_port)
{
    struct lk_http_request *request = arg;
    (void)peer_ip, (void)own_ip, (void)peer_port, (void)own_port;
    request->connected = true;
    request->active_ns = lk_now_ns();
    return CURL_PREREQFUNC_OK;
}

/* --- response header --- */

static void space(void *arg); /* below: the output has room again */

/* Runs on whatever thread cancels. The stream waits for it before the transfer lets go of it. */
static void cancelled(void *arg)
{
    struct lk_http *http = arg;
    lk_loop_post(http->loop, &http->sweep);
}

static int open_output(struct lk_http_request *request, struct lk_error *err)
{
    request->slabs = lk_slabs_new(LK_HTTP_CHUNK, LK_HTTP_SLABS, err);
    if (request->slabs == NULL)
        return -1;
    request->output = lk_stream_new(LK_HTTP_DEPTH, err);
    if (request->output == NULL)
        return -1;
    request->offer =
        request->output; /* a new stream has two references: the producer's and the consumer's */
    lk_stream_on_cancel(request->output, cancelled, request->http);
    lk_stream_on_space(request->output, request->http->loop, space, request);
    request->response.streamed = true;
    return 0;
}

/* The header is complete: makes the list, and the stream if the body is to be one. */
static int head_ready(struct lk_http_request *request, struct lk_error *err)
{
    struct lk_http_response *response = &request->response;
    const char *at = request->head.data, *end = at == NULL ? NULL : at + request->head.len;
    size_t count = 0;
    for (const char *p = at; p < end; p += strlen(p) + 1)
        count++;
    response->headers = calloc(count / 2 + 1, sizeof(*response->headers));
    if (response->headers == NULL)
        return lk_error_set(err, LK_MEMORY, "%s: no memory for the header", request->label);
    while (at < end) {
        struct lk_http_header *header = &response->headers[response->header_count++];
        header->name = at;
        header->value = at + strlen(at) + 1;
        header->value_len = strlen(header->value);
        at = header->value + header->value_len + 1;
    }
    request->head_done = true;
    /* libcurl stops sending now, but a paused transfer would stay paused for ever. */
    if (request->send_paused && response->status >= 400 &&
        lk_loop_arm(request->http->loop, &request->refill, 0, err) < 0)
        return -1;
    if (!request->sink || response->status >= 300)
        return 0;
    if (open_output(request, err) < 0)
        return -1;
    lk_http_report(request);
    return 0;
}

static int add_header(struct lk_http_request *request, const char *line, size_t len,
                      struct lk_error *err)
{
    const char *colon = memchr(line, ':', len);
    if (colon == NULL || colon == line || line[0] == ' ' || line[0] == '\t')
        return 0; /* nothing that could be used: libcurl has let it pass */
    if (memchr(line, '\0', len) != NULL)
        return lk_error_set(err, LK_NETWORK, "%s: a header of the answer holds a NUL byte",
                            request->label);
    const char *value = colon + 1, *end = line + len;
    while (value < end && (*value == ' ' || *value == '\t'))
        value++;
    while (end > value && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    size_t at = request->head.len, name_len = (size_t)(colon - line);
    if (lk_buf_add(&request->head, line, name_len, err) < 0 ||
        lk_buf_add(&request->head, "", 1, err) < 0 ||
        lk_buf_add(&request->head, value, (size_t)(end - value), err) < 0 ||
        lk_buf_add(&request->head, "", 1, err) < 0)
        return lk_error_set(err, LK_NETWORK,
                            "%s: the header of the answer is longer than %zu bytes", request->label,
                            request->head.max);
    for (char *p = request->head.data + at; *p != '\0'; p++)
        if (*p >= 'A' && *p <= 'Z')
            *p = (char)(*p - 'A' + 'a');
    return 0;
}

/* "HTTP/1.1 200 OK": forgets what an interim answer, or one that libcurl answers itself (417), has
 * left. */
static void start_head(struct lk_http_request *request, const char *line, size_t len)
{
    const char *space_at = memchr(line, ' ', len);
    int status = 0;
    if (space_at != NULL)
        for (const char *p = space_at + 1;
             p < line + len && *p >= '0' && *p <= '9' && status < 1000; p++)
            status = status * 10 + (*p - '0');
    free(request->response.headers);
    memset(&request->response, 0, sizeof(request->response));
    request->response.status = status;
    lk_buf_free(&request->head);
    lk_buf_free(&request->answer);
    request->head_done = request->cut = false;
}

size_t lk_http_on_header(char *data, size_t size, size_t count, void *arg)
{
    struct lk_http_request *request = arg;
    struct lk_error err;
    size_t all = size * count, len = all;
    int result = 0;
    request->active_ns = lk_now_ns();
    while (len > 0 && (data[len - 1] == '\n' || data[len - 1] == '\r'))
        len--;
    if (len > 5 && memcmp(data, "HTTP/", 5) == 0 && request->output == NULL)
        start_head(request, data, len);
    else if (request->head_done)
        return all; /* a trailer */
    else if (len > 0)
        result = add_header(request, data, len, &err);
    else if (request->response.status >= 200)
        result = head_ready(request, &err);
    if (result < 0) {
        fail(request, &err);
        return 0;
    }
    return all;
}

/* --- response body --- */

static size_t collect(struct lk_http_request *request, const char *data, size_t len)
{
    struct lk_error err;
    size_t room = request->max - request->answer.len, take = len < room ? len : room;
    if (take < len && request->response.status < 300) {
        lk_error_set(&err, LK_MEMORY, "%s: the answer is longer than %zu bytes", request->label,
                     request->max);
        lk_error_hint(&err, "read it as a stream (sink = \"stream\"), or raise max");
        fail(request, &err);
        return 0;
    }
    request->cut = take < len;
    if (take > 0 && lk_buf_add(&request->answer, data, take, &err) < 0) {
        fail(request, &err);
        return 0;
    }
    return len;
}

static size_t pause_receiving(struct lk_http_request *request)
{
    request->recv_paused = true;
    return CURL_WRITEFUNC_PAUSE;
}

/* libcurl gives 16 KiB at a time and has it taken whole or not at all: a chunk that has no room for
 * it is sent. */
static size_t write_stream(struct lk_http_request *request, const char *data, size_t len)
{
    struct lk_error err;
    if (request->in != NULL && request->in->cap - request->in->len < len) {
        int sent = lk_stream_try_write(request->output, request->in, &err);
        if (sent == LK_STREAM_AGAIN)
            return pause_receiving(request);
        request->in = NULL;
        if (sent < 0) {
            fail(request, &err);
            return 0;
        }
    }
    if (request->in == NULL) {
        request->in = len > LK_HTTP_CHUNK ? lk_chunk_alloc(len, &err)
                                          : lk_slabs_try(request->slabs, NULL, NULL, &err);
        if (request->in == NULL && err.kind == LK_OK && len <= LK_HTTP_CHUNK &&
            lk_loop_arm(request->http->loop, &request->refill, REFILL_MS, &err) == 0)
            return pause_receiving(request);
        if (request->in == NULL) {
            fail(request, &err);
            return 0;
        }
    }
    memcpy(request->in->data + request->in->len, data, len);
    request->in->len += len;
    request->in->raw_len = request->in->len;
    return len;
}

size_t lk_http_on_write(char *data, size_t size, size_t count, void *arg)
{
    struct lk_http_request *request = arg;
    request->active_ns = lk_now_ns();
    if (request->output != NULL)
        return write_stream(request, data, size * count);
    return collect(request, data, size * count);
}

static void space(void *arg)
{
    lk_http_wake(arg);
}
