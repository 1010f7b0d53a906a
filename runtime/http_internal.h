/* SPDX-License-Identifier: MIT
 * http_internal.h - what http.c (loop and life), http_setup.c (options) and http_body.c (bytes)
 * share. */
#ifndef LK_HTTP_INTERNAL_H
#define LK_HTTP_INTERNAL_H

#include "buf.h"
#include "http.h"
#include <curl/curl.h>

#define LK_HTTP_CHUNK ((size_t)256 << 10) /* bytes of a chunk of a response stream */
#define LK_HTTP_DEPTH 4                   /* chunks waiting in a response stream */
#define LK_HTTP_SLABS 16                  /* chunks of one response that exist at once */
#define LK_HTTP_HEADER_MAX ((size_t)256 << 10)

struct http_socket;

struct lk_http {
    struct lk_loop *loop;
    struct lk_caps *caps;
    CURLM *multi;
    CURLSH *share;
    struct lk_timer timer;            /* libcurl's */
    struct lk_event sweep;            /* a consumer has cancelled a response stream */
    struct http_socket *sockets;      /* all watched ones */
    struct lk_http_request *requests; /* all that exist */
};

struct lk_http_request {
    struct lk_http *http; /* NULL after lk_http_free */
    struct lk_http_request *next, *prev;
    CURL *easy; /* NULL once the transfer has ended */
    struct curl_slist *headers, *resolve;
    char *label; /* "GET http://host/path", for messages */
    char *peer;  /* "host:port" */
    char reason[CURL_ERROR_SIZE];

    /* life */
    bool running;   /* the transfer, or draining its last chunk */
    bool added;     /* to the multi handle */
    bool connected; /* a connection was ready for the request */
    bool released;  /* by the caller */
    bool reported;  /* done is queued or was called */
    bool failed;    /* error holds why */
    struct lk_error error;
    void (*done)(void *arg);
    void *arg;
    struct lk_event event; /* calls done */
    uint64_t started_ns, active_ns, connect_ms, idle_ms, total_ms;
    struct lk_timer idle;

    /* request body */
    char *body;
    size_t body_len, body_at;
    struct lk_part *part;
    struct lk_stream *input;
    struct lk_chunk *out; /* being sent */
    size_t out_at;
    bool input_whole;
    bool send_paused;
    int64_t length; /* -1 = unknown */
    uint64_t sent;

    /* response */
    bool sink, head_done, cut;
    size_t max;
    struct lk_buf head; /* name NUL value NUL ... */
    struct lk_buf answer;
    struct lk_http_response response;
    struct lk_stream *output; /* the producer's reference */
    struct lk_stream *offer;  /* the consumer's, until it is taken */
    struct lk_slabs *slabs;
    struct lk_chunk *in;    /* being filled */
    struct lk_timer refill; /* asks again for a slab; goes on after a pause */
    bool recv_paused;
};

/* http.c: called by callbacks of libcurl, so it only queues. */
void lk_http_report(struct lk_http_request *request);
/* A stream of the request has news: goes on with what was paused or drained. Never from within
 * libcurl. */
void lk_http_wake(struct lk_http_request *request);

/* http_setup.c */
/* Copies the options into the request and its easy handle; the stream has been moved already. */
int lk_http_setup(struct lk_http_request *request, const struct lk_http_options *options,
                  struct lk_error *err);
/* Says in request->error what `code` means, unless it has failed already. */
void lk_http_explain(struct lk_http_request *request, CURLcode code);

/* http_body.c: libcurl's callbacks */
size_t lk_http_on_read(char *data, size_t size, size_t count, void *arg);
int lk_http_on_seek(void *arg, curl_off_t offset, int origin);
size_t lk_http_on_header(char *data, size_t size, size_t count, void *arg);
size_t lk_http_on_write(char *data, size_t size, size_t count, void *arg);
int lk_http_on_connected(void *arg, char *peer_ip, char *own_ip, int peer_port, int own_port);
/* Reads on from the input of known length 0: LK_STREAM_DONE when it is whole, AGAIN, or -1
 * (request->error). */
int lk_http_await_empty(struct lk_http_request *request);

#endif
