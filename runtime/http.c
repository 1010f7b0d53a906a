/* SPDX-License-Identifier: MIT
 * http.c - one libcurl multi handle on the event loop, and the life of a request on it.
 * Owns the multi handle with its connections, the watched sockets and every request. Handles are
 * added and removed from the loop only, never inside a callback of libcurl; nothing here blocks,
 * follows a redirect, retries or knows Lua. Loop thread only, but for the notice that a consumer
 * cancelled a response. */
#include "http_internal.h"
#include <fcntl.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#define IDLE_CONNECTIONS 32L
#define DEFAULT_MAX ((size_t)1 << 20)
#define CONNECT_MS 10000

struct http_socket {
    struct lk_watch watch;
    struct lk_http *http;
    struct http_socket *next, *prev;
};

static pthread_once_t once = PTHREAD_ONCE_INIT;

static void init_libcurl(void)
{
    curl_global_init(CURL_GLOBAL_DEFAULT); /* what fails here fails again in curl_multi_init */
}

/* --- the end of a transfer --- */

static void free_request(struct lk_http_request *request)
{
    struct lk_http *http = request->http;
    if (http != NULL) {
        if (request->prev != NULL)
            request->prev->next = request->next;
        else
            http->requests = request->next;
        if (request->next != NULL)
            request->next->prev = request->prev;
    }
    free(request->label);
    free(request->peer);
    free(request->response.headers);
    lk_buf_free(&request->head);
    lk_buf_free(&request->answer);
    free(request);
}

/* Gives the handle and everything that was to be sent back. */
static void drop_transfer(struct lk_http_request *request)
{
    struct lk_http *http = request->http;
    if (request->added)
        curl_multi_remove_handle(http->multi, request->easy);
    request->added = false;
    curl_easy_cleanup(request->easy);
    request->easy = NULL;
    curl_slist_free_all(request->headers);
    curl_slist_free_all(request->resolve);
    request->headers = request->resolve = NULL;
    lk_loop_disarm(http->loop, &request->idle);
    lk_loop_disarm(http->loop, &request->refill);
    lk_chunk_unref(request->out);
    request->out = NULL;
    if (request->input != NULL) {
        lk_stream_on_ready(request->input, http->loop, NULL, NULL);
        lk_stream_cancel(request->input);
        lk_stream_unref(request->input);
        request->input = NULL;
    }
    if (request->part != NULL)
        lk_part_unref(request->part);
    request->part = NULL;
    free(request->body);
    request->body = NULL;
}

/* The transfer is over: nothing but `done`, the response and the caller's hold may be left. */
static void settle(struct lk_http_request *request)
{
    request->running = false;
    if (!request->reported)
        lk_http_report(request);
    if (request->released)
        free_request(request);
}

/* Hands on the last chunk and ends the response stream; waits for room if there is none. */
static void drain(struct lk_http_request *request)
{
    if (!request->failed && request->in != NULL) {
        if (lk_stream_try_write(request->output, request->in, NULL) == LK_STREAM_AGAIN)
            return; /* space() comes back here */
        request->in = NULL;
    }
    lk_chunk_unref(request->in);
    request->in = NULL;
    lk_stream_on_cancel(request->output, NULL, NULL);
    lk_stream_on_space(request->output, request->http->loop, NULL, NULL);
    lk_stream_end(request->output, request->failed ? &request->error : NULL);
    lk_stream_unref(request->output);
    request->output = NULL;
    lk_slabs_free(request->slabs);
    request->slabs = NULL;
    settle(request);
}

static void finish(struct lk_http_request *request, CURLcode code)
{
    if (code != CURLE_OK)
        lk_http_explain(request, code);
    drop_transfer(request);
    if (request->output != NULL) {
        drain(request);
        return;
    }
    lk_slabs_free(request->slabs); /* there when the stream could not be made */
    request->slabs = NULL;
    settle(request);
}

static void finish_with(struct lk_http_request *request, enum lk_kind kind, const char *why)
{
    if (!request->failed)
        lk_error_set(&request->error, kind, "%s: %s", request->label, why);
    request->failed = true;
    finish(request, CURLE_OK);
}

/* --- libcurl on the loop --- */

static void reap(struct lk_http *http)
{
    CURLMsg *message;
    int left;
    while ((message = curl_multi_info_read(http->multi, &left)) != NULL) {
        struct lk_http_request *request = NULL;
        CURLcode code = message->data.result; /* the message is gone with the handle */
        if (message->msg != CURLMSG_DONE)
            continue;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&request);
        finish(request, code);
    }
}

static void socket_ready(struct lk_watch *watch, uint32_t events)
{
    struct http_socket *socket = watch->arg;
    struct lk_http *http = socket->http;
    int mask = 0, running;
    if (events & EPOLLIN)
        mask |= CURL_CSELECT_IN;
    if (events & EPOLLOUT)
        mask |= CURL_CSELECT_OUT;
    if (events &
        (EPOLLERR | EPOLLHUP)) /* found by reading or writing, whichever libcurl waits for */
        mask |= CURL_CSELECT_IN | CURL_CSELECT_OUT;
    curl_multi_socket_action(http->multi, watch->fd, mask, &running); /* may free the socket */
    reap(http);
}

static void unwatch(struct lk_http *http, struct http_socket *socket)
{
    lk_loop_unwatch(http->loop, &socket->watch);
    if (socket->prev != NULL)
        socket->prev->next = socket->next;
    else
        http->sockets = socket->next;
    if (socket->next != NULL)
        socket->next->prev = socket->prev;
    free(socket);
}

static struct http_socket *watch_socket(struct lk_http *http, curl_socket_t fd)
{
    struct http_socket *socket = calloc(1, sizeof(*socket));
    if (socket == NULL)
        return NULL;
    int flags = fcntl(fd, F_GETFD);
    if (flags >= 0 && (flags & FD_CLOEXEC) == 0) /* libcurl's own, from its resolver */
        fcntl(fd, F_SETFD, flags | FD_CLOEXEC);
    *socket = (struct http_socket){.watch = {.fd = fd, .ready = socket_ready}, .http = http};
    socket->watch.arg = socket;
    socket->next = http->sockets;
    if (socket->next != NULL)
        socket->next->prev = socket;
    http->sockets = socket;
    curl_multi_assign(http->multi, fd, socket);
    return socket;
}

/* Called by libcurl from many places: changes the watch and nothing else. */
static int on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *known)
{
    struct lk_http *http = arg;
    struct http_socket *socket = known;
    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        if (socket != NULL)
            unwatch(http, socket);
        curl_multi_assign(http->multi, fd, NULL);
        return 0;
    }
    uint32_t events = 0;
    if (what & CURL_POLL_IN)
        events |= EPOLLIN;
    if (what & CURL_POLL_OUT)
        events |= EPOLLOUT;
    if (socket != NULL && socket->watch.active)
        return lk_loop_rewatch(http->loop, &socket->watch, events, NULL);
    if (socket == NULL && (socket = watch_socket(http, fd)) == NULL)
        return -1;
    socket->watch.events = events;
    return lk_loop_watch(http->loop, &socket->watch, NULL);
}

static int on_timer(CURLM *multi, long ms, void *arg)
{
    struct lk_http *http = arg;
    (void)multi;
    if (ms >= 0)
        return lk_loop_arm(http->loop, &http->timer, (uint64_t)ms, NULL);
    lk_loop_disarm(http->loop, &http->timer);
    return 0;
}

static void timer_expired(struct lk_timer *timer)
{
    struct lk_http *http = timer->arg;
    int running;
    curl_multi_socket_action(http->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    reap(http);
}

/* --- the request's own events --- */

static void call_done(struct lk_event *event)
{
    struct lk_http_request *request =
        (struct lk_http_request *)((char *)event - offsetof(struct lk_http_request, event));
    if (request->done != NULL)
        request->done(request->arg);
}

void lk_http_report(struct lk_http_request *request)
{
    request->reported = true;
    request->response.seconds = (double)(lk_now_ns() - request->started_ns) / 1e9;
    if (!request->released)
        lk_loop_post(request->http->loop, &request->event);
}

static void idle_expired(struct lk_timer *timer)
{
    struct lk_http_request *request = timer->arg;
    uint64_t now = lk_now_ns(), idle_ns = request->idle_ms * 1000000;
    if (!request->connected || request->send_paused || request->recv_paused)
        request->active_ns = now;
    uint64_t since = now - request->active_ns;
    if (since < idle_ns) {
        if (lk_loop_arm(request->http->loop, timer, (idle_ns - since) / 1000000 + 1, NULL) == 0)
            return;
        finish_with(request, LK_MEMORY, "no memory for a timer");
        return;
    }
    char why[128];
    snprintf(why, sizeof(why), "no byte from or to the server for %g s",
             (double)request->idle_ms / 1000);
    lk_error_set(&request->error, LK_TIMEOUT, "%s: %s", request->label, why);
    snprintf(request->error.op, sizeof(request->error.op), "http.request");
    request->error.retryable = true;
    request->failed = true;
    finish(request, CURLE_OK);
}

/* Adds the handle, once a stream that is said to be empty has shown that it is. */
static void begin(struct lk_http_request *request)
{
    if (request->input != NULL && request->length == 0) {
        int got = lk_http_await_empty(request);
        if (got == LK_STREAM_AGAIN)
            return;
        if (got < 0) {
            finish(request, CURLE_OK);
            return;
        }
    }
    CURLMcode code = curl_multi_add_handle(request->http->multi, request->easy);
    if (code == CURLM_OK)
        request->added = true;
    else
        finish_with(request, code == CURLM_OUT_OF_MEMORY ? LK_MEMORY : LK_IO,
                    curl_multi_strerror(code));
}

void lk_http_wake(struct lk_http_request *request)
{
    if (request->easy == NULL) {
        if (request->output != NULL)
            drain(request);
        return;
    }
    if (!request->added) {
        begin(request);
        return;
    }
    if (!request->send_paused && !request->recv_paused)
        return;
    request->send_paused = request->recv_paused = false;
    request->active_ns = lk_now_ns();
    CURLcode code =
        curl_easy_pause(request->easy, CURLPAUSE_CONT); /* may call write, which may pause again */
    if (code != CURLE_OK)
        finish(request, code);
}

static void input_ready(void *arg)
{
    lk_http_wake(arg);
}

static void refill(struct lk_timer *timer)
{
    lk_http_wake(timer->arg);
}

/* Consumers have cancelled: stops the transfers of their streams. */
static void sweep(struct lk_event *event)
{
    struct lk_http *http = (struct lk_http *)((char *)event - offsetof(struct lk_http, sweep));
    struct lk_http_request *next;
    for (struct lk_http_request *request = http->requests; request != NULL; request = next) {
        next = request->next;
        if (request->output != NULL && lk_stream_state(request->output) == LK_END_CANCELLED)
            finish_with(request, LK_CANCELLED, "the answer is no longer wanted");
    }
}

/* --- public --- */

static struct lk_http_request *new_request(struct lk_http *http,
                                           const struct lk_http_options *options)
{
    struct lk_http_request *request = calloc(1, sizeof(*request));
    if (request == NULL)
        return NULL;
    request->http = http;
    request->input = options->stream;
    request->done = options->done;
    request->arg = options->arg;
    request->event.run = call_done;
    request->idle = (struct lk_timer){.expired = idle_expired, .arg = request};
    request->refill = (struct lk_timer){.expired = refill, .arg = request};
    request->started_ns = request->active_ns = lk_now_ns();
    request->connect_ms = options->connect_ms > 0 ? options->connect_ms : CONNECT_MS;
    request->idle_ms = options->idle_ms;
    request->total_ms = options->total_ms;
    request->sink = options->sink;
    request->max = options->max > 0 ? options->max : DEFAULT_MAX;
    lk_buf_init(&request->head, LK_HTTP_HEADER_MAX);
    lk_buf_init(&request->answer, request->max);
    request->next = http->requests;
    if (request->next != NULL)
        request->next->prev = request;
    http->requests = request;
    return request;
}

struct lk_http_request *lk_http_start(struct lk_http *http, const struct lk_http_options *options,
                                      struct lk_error *err)
{
    struct lk_http_request *request = new_request(http, options);
    if (request == NULL) {
        lk_error_set(err, LK_MEMORY, "no memory for a request");
        if (options->stream != NULL) {
            lk_stream_cancel(options->stream);
            lk_stream_unref(options->stream);
        }
        return NULL;
    }
    if (lk_http_setup(request, options, err) < 0 ||
        (request->idle_ms > 0 &&
         lk_loop_arm(http->loop, &request->idle, request->idle_ms, err) < 0)) {
        drop_transfer(request);
        free_request(request);
        return NULL;
    }
    if (request->input != NULL)
        lk_stream_on_ready(request->input, http->loop, input_ready, request);
    request->running = true;
    begin(request);
    return request;
}

const struct lk_http_response *lk_http_result(struct lk_http_request *request, struct lk_error *err)
{
    struct lk_http_response *response = &request->response;
    if (request->failed && !response->streamed) {
        if (err != NULL)
            *err = request->error;
        return NULL;
    }
    if (!response->streamed && request->answer.len > 0) {
        response->body = request->answer.data;
        response->body_len = request->answer.len;
    }
    return response;
}

struct lk_stream *lk_http_take_stream(struct lk_http_request *request)
{
    struct lk_stream *stream = request->offer;
    request->offer = NULL;
    return stream;
}

void lk_http_cancel(struct lk_http_request *request)
{
    if (request->running && !request->reported)
        finish_with(request, LK_CANCELLED, "cancelled");
}

void lk_http_release(struct lk_http_request *request)
{
    if (request == NULL)
        return;
    struct lk_http *http = request->http;
    request->done = NULL;
    if (http != NULL)
        lk_loop_unpost(http->loop, &request->event);
    if (request->offer != NULL) {
        struct lk_stream *stream = lk_http_take_stream(request);
        lk_stream_cancel(stream);
        lk_stream_unref(stream);
        if (request->running)
            finish_with(request, LK_CANCELLED, "the answer is no longer wanted");
    }
    request->released = true;
    if (request->running && !request->reported)
        finish_with(request, LK_CANCELLED, "cancelled"); /* frees it */
    else if (!request->running)
        free_request(request);
}

int lk_http_active(const struct lk_http *http)
{
    int count = 0;
    for (const struct lk_http_request *request = http->requests; request != NULL;
         request = request->next)
        count += request->running;
    return count;
}

struct lk_http *lk_http_new(struct lk_loop *loop, struct lk_caps *caps, struct lk_error *err)
{
    struct lk_http *http = calloc(1, sizeof(*http));
    pthread_once(&once, init_libcurl);
    if (http != NULL) {
        http->loop = loop;
        http->caps = caps;
        http->timer = (struct lk_timer){.expired = timer_expired, .arg = http};
        http->sweep.run = sweep;
        http->multi = curl_multi_init();
        http->share = curl_share_init();
    }
    if (http == NULL || http->multi == NULL || http->share == NULL) {
        lk_error_set(err, LK_MEMORY, "libcurl could not be started");
        if (http != NULL) {
            curl_multi_cleanup(http->multi);
            curl_share_cleanup(http->share);
        }
        free(http);
        return NULL;
    }
    curl_share_setopt(http->share, CURLSHOPT_SHARE,
                      CURL_LOCK_DATA_SSL_SESSION); /* one thread: no locks */
    curl_multi_setopt(http->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(http->multi, CURLMOPT_SOCKETDATA, http);
    curl_multi_setopt(http->multi, CURLMOPT_TIMERFUNCTION, on_timer);
    curl_multi_setopt(http->multi, CURLMOPT_TIMERDATA, http);
    curl_multi_setopt(http->multi, CURLMOPT_MAXCONNECTS, IDLE_CONNECTIONS);
    return http;
}

void lk_http_stop(struct lk_http *http)
{
    struct lk_http_request *next;
    for (struct lk_http_request *request = http->requests; request != NULL; request = next) {
        next = request->next;
        if (request->running)
            finish_with(request, LK_CANCELLED, "the runtime ends");
    }
}

void lk_http_free(struct lk_http *http)
{
    if (http == NULL)
        return;
    lk_http_stop(http);
    while (http->requests != NULL) { /* held by their callers still */
        struct lk_http_request *request = http->requests;
        http->requests = request->next;
        lk_loop_unpost(http->loop, &request->event);
        request->next = request->prev = NULL;
        request->http = NULL;
    }
    curl_multi_cleanup(http->multi);
    curl_share_cleanup(http->share);
    while (http->sockets != NULL)
        unwatch(http, http->sockets);
    lk_loop_disarm(http->loop, &http->timer);
    lk_loop_unpost(http->loop, &http->sweep);
    free(http);
}
