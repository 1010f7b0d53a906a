/* SPDX-License-Identifier: MIT
 * http.h - one HTTP request, one attempt, over libcurl's multi-socket interface on the event loop.
 *
 * No redirect is followed, nothing is retried and nothing is signed here: scripts do that. Bodies
 * move as memory, parts or streams of chunks. TLS is verified; CA certificates come from the
 * options, else from CURL_CA_BUNDLE, SSL_CERT_FILE and SSL_CERT_DIR, else from libcurl's default.
 * Loop thread only. */
#ifndef LK_HTTP_H
#define LK_HTTP_H

#include "caps.h"
#include "part.h"
#include "stream.h"

struct lk_http;
struct lk_http_request;

struct lk_http_header {
    const char *name;
    const char *value;
    size_t value_len;
};

struct lk_http_options {
    const char *method; /* "GET", "PUT", ...; NULL = GET */
    const char *url;    /* http or https, already escaped, without user, password and fragment; path
                           sent as it is */
    const struct lk_http_header
        *headers; /* content-length may be among them if it is the body's; no transfer-encoding */
    size_t header_count;

    /* The request's body: at most one of memory (copied), part (referenced) and stream (taken over
     * in every case). */
    const void *body;
    size_t body_len;
    struct lk_part *part;
    struct lk_stream
        *stream;    /* can't be sent again: an attempt that would need that fails, not retryable */
    int64_t length; /* bytes of the stream, checked; -1 = unknown, sent chunked. The last byte is
                     * held back until the stream has ended whole, so that a source that fails at
                     * its end is never stored */

    bool sink;  /* a body with a status below 300 becomes a stream; `done` comes as soon as the
                   header is there */
    size_t max; /* of a body that is collected: a longer one is LK_MEMORY; cut off with status 300
                   and above */

    uint64_t connect_ms; /* name, connection and TLS; 0 = 10 s */
    uint64_t idle_ms;  /* no byte either way; waiting for the own side's streams does not count; 0 =
                          none */
    uint64_t total_ms; /* 0 = none */

    const char *ca_file, *ca_path; /* instead of the environment's */
    bool insecure;                 /* TLS is not verified */
    const char *proxy; /* NULL or "env", "none", or a URL. Cloud metadata addresses never use one */
    int http2; /* -1 = unless there is a body or a sink, 0 no, 1 yes (only where TLS offers it) */
    bool expect_continue;
    const char *const *resolve; /* "host:port:address", instead of a look-up */
    size_t resolve_count;

    /* Called once, on the loop, never from within lk_http_start. */
    void (*done)(void *arg);
    void *arg;
};

struct lk_http_response {
    int status;
    struct lk_http_header *headers; /* names in lower case, in the order of arrival */
    size_t header_count;
    const char *body; /* collected; NULL when there is none */
    size_t body_len;
    bool streamed; /* lk_http_take_stream() gives the body */
    double seconds;
};

struct lk_http *lk_http_new(struct lk_loop *loop, struct lk_caps *caps, struct lk_error *err);
/* Ends every request: those waiting get LK_CANCELLED, open response streams fail. */
void lk_http_stop(struct lk_http *http);
/* Stops first. Consumers of response streams may go on; requests that are still held can only be
 * released then. */
void lk_http_free(struct lk_http *http);
/* Requests and response streams that have not ended (tests). */
int lk_http_active(const struct lk_http *http);

/* Checks the net capability and the options (LK_DENIED, LK_USAGE), then starts. The caller owns the
 * request. */
struct lk_http_request *lk_http_start(struct lk_http *http, const struct lk_http_options *options,
                                      struct lk_error *err);
/* After `done`: the response, valid until the release; or NULL and *err. Any status is a response.
 */
const struct lk_http_response *lk_http_result(struct lk_http_request *request,
                                              struct lk_error *err);
/* The response's stream, the caller's; NULL if there is none or it was taken. It fails when the
 * body is cut short, the connection breaks or stands still. */
struct lk_stream *lk_http_take_stream(struct lk_http_request *request);
/* Stops it at once; `done` comes with LK_CANCELLED unless it was on its way. */
void lk_http_cancel(struct lk_http_request *request);
/* Drops the caller's hold: cancels without `done` if it runs, cancels a stream that was not taken.
 * NULL is allowed. */
void lk_http_release(struct lk_http_request *request);

/* --- URLs --- */
struct lk_http_url {
    char *scheme, *host, *path,
        *query; /* malloc'ed; path and query as given, query may be NULL; IPv6 in brackets */
    int port;   /* the default one if none was given */
    bool default_port;
};
/* LK_USAGE for what lk_http_start would refuse. */
int lk_http_parse_url(const char *text, size_t len, struct lk_http_url *url, struct lk_error *err);
void lk_http_url_free(struct lk_http_url *url);

#endif
