/* SPDX-License-Identifier: MIT
 * http_setup.c - from the options of a request to an easy handle of libcurl, and from libcurl's
 * results to errors. Refuses what could smuggle a header or reach a host that was not checked.
 * Knows no Lua. Loop thread only. */
#include "http_internal.h"
#include <arpa/inet.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define CONNECT_MS 10000
#define HEADER_LINE_MAX ((size_t)64 << 10)
#define PATH_SHOWN 300 /* bytes of a path in messages */

static const char TOKEN[] =
    "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/* --- URLs --- */

void lk_http_url_free(struct lk_http_url *url)
{
    free(url->scheme);
    free(url->host);
    free(url->path);
    free(url->query);
    memset(url, 0, sizeof(*url));
}

static int bad_url(struct lk_error *err, const char *why)
{
    lk_error_set(err, LK_USAGE, "bad url: %s", why);
    return lk_error_hint(err, "write it as https://host[:port]/path, other bytes escaped as %%XX");
}

static char *url_part(CURLU *parsed, CURLUPart what, unsigned flags)
{
    char *text = NULL, *copy = NULL;
    if (curl_url_get(parsed, what, &text, flags) == CURLUE_OK && text != NULL)
        copy = strdup(text);
    curl_free(text);
    return copy;
}

static int fill_url(CURLU *parsed, const char *text, struct lk_http_url *url, struct lk_error *err)
{
    CURLUcode code = curl_url_set(parsed, CURLUPART_URL, text, CURLU_PATH_AS_IS);
    if (code != CURLUE_OK)
        return bad_url(err, curl_url_strerror(code));
    url->scheme = url_part(parsed, CURLUPART_SCHEME, 0);
    url->host = url_part(parsed, CURLUPART_HOST, 0);
    url->path = url_part(parsed, CURLUPART_PATH, 0);
    url->query = url_part(parsed, CURLUPART_QUERY, 0);
    char *port = url_part(parsed, CURLUPART_PORT, CURLU_DEFAULT_PORT);
    char *user = url_part(parsed, CURLUPART_USER, 0);
    bool has_user = user != NULL;
    url->port = port == NULL ? 0 : (int)strtol(port, NULL, 10);
    free(port);
    free(user);
    if (has_user)
        return bad_url(err, "user and password don't belong into it");
    if (url->scheme == NULL || url->host == NULL || url->path == NULL || url->port <= 0)
        return bad_url(err, "a part of it is missing");
    bool tls = strcasecmp(url->scheme, "https") == 0;
    if (!tls && strcasecmp(url->scheme, "http") != 0)
        return bad_url(err, "only http and https are known");
    url->default_port = url->port == (tls ? 443 : 80);
    return 0;
}

int lk_http_parse_url(const char *text, size_t len, struct lk_http_url *url, struct lk_error *err)
{
    memset(url, 0, sizeof(*url));
    for (size_t i = 0; i < len; i++) {
        if (text[i] <= ' ' ||
            text[i] > '~') /* char may be signed: both ends are refused either way */
            return bad_url(err, "it holds a space, a control character or a byte above 126");
        if (text[i] == '#')
            return bad_url(err, "a # would cut it off");
    }
    char *copy = strndup(text, len);
    CURLU *parsed = curl_url();
    int result = -1;
    if (copy == NULL || parsed == NULL)
        lk_error_set(err, LK_MEMORY, "no memory for a url");
    else
        result = fill_url(parsed, copy, url, err);
    free(copy);
    curl_url_cleanup(parsed);
    if (result < 0)
        lk_http_url_free(url);
    return result;
}

/* Credentials of a cloud's machine are handed out at these: a proxy must never see them. */
static bool is_metadata_host(const char *host)
{
    static const char *const names[] = {"169.254.169.254", "169.254.170.2", "169.254.170.23",
                                        "metadata.google.internal", "metadata.google.internal."};
    static const char v6[] = "fd00:ec2::254";
    struct in6_addr known, given;
    char bare[64];
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcasecmp(host, names[i]) == 0)
            return true;
    size_t len = strlen(host);
    if (host[0] != '[' || len < 3 || len - 2 >= sizeof(bare))
        return false;
    memcpy(bare, host + 1, len - 2);
    bare[len - 2] = '\0';
    return inet_pton(AF_INET6, v6, &known) == 1 && inet_pton(AF_INET6, bare, &given) == 1 &&
           memcmp(&known, &given, sizeof(known)) == 0;
}

/* --- header --- */

static bool token_only(const char *text)
{
    return text != NULL && text[0] != '\0' && text[strspn(text, TOKEN)] == '\0';
}

static bool blank(const char *value, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (value[i] != ' ' && value[i] != '\t')
            return false;
    return true;
}

static int add_line(struct lk_http_request *request, const char *line, struct lk_error *err)
{
    struct curl_slist *list = curl_slist_append(request->headers, line);
    if (list == NULL)
        return lk_error_set(err, LK_MEMORY, "no memory for a header");
    request->headers = list;
    return 0;
}

/* libcurl writes it from the body; one that says something else is an error of the caller. */
static int check_content_length(const struct lk_http_header *header, int64_t size,
                                struct lk_error *err)
{
    char expected[32];
    snprintf(expected, sizeof(expected), "%lld", (long long)size);
    if (size >= 0 && header->value_len == strlen(expected) &&
        memcmp(header->value, expected, header->value_len) == 0)
        return 0;
    return lk_error_set(err, LK_USAGE, "header content-length is not the length of the body (%s)",
                        size < 0 ? "unknown" : expected);
}

static int add_header(struct lk_http_request *request, const struct lk_http_header *header,
                      struct lk_error *err)
{
    struct lk_buf line;
    if (!token_only(header->name))
        return lk_error_set(err, LK_USAGE, "bad name of a header: \"%.60s\"", header->name);
    for (size_t i = 0; i < header->value_len; i++)
        if (header->value[i] == '\r' || header->value[i] == '\n' || header->value[i] == '\0')
            return lk_error_set(err, LK_USAGE,
                                "header %.60s: its value holds a line end or a NUL byte",
                                header->name);
    lk_buf_init(&line, HEADER_LINE_MAX);
    int result;
    if (blank(header->value, header->value_len))
        result = lk_buf_printf(&line, err, "%s;",
                               header->name); /* how libcurl is told of an empty one */
    else
        result = lk_buf_printf(&line, err, "%s: %.*s", header->name, (int)header->value_len,
                               header->value);
    if (result < 0)
        lk_error_set(err, LK_USAGE, "header %.60s is longer than %zu bytes", header->name,
                     HEADER_LINE_MAX);
    else
        result = add_line(request, line.data, err);
    lk_buf_free(&line);
    return result;
}

static int add_headers(struct lk_http_request *request, const struct lk_http_options *options,
                       int64_t size, struct lk_error *err)
{
    bool expect = false;
    for (size_t i = 0; i < options->header_count; i++) {
        const struct lk_http_header *header = &options->headers[i];
        if (header->value_len > HEADER_LINE_MAX)
            return lk_error_set(err, LK_USAGE, "header %.60s is longer than %zu bytes",
                                header->name, HEADER_LINE_MAX);
        if (strcasecmp(header->name, "transfer-encoding") == 0)
            return lk_error_set(err, LK_USAGE, "header transfer-encoding can't be given");
        if (strcasecmp(header->name, "expect") == 0)
            expect = true;
        if (strcasecmp(header->name, "content-length") == 0) {
            if (check_content_length(header, size, err) < 0)
                return -1;
        } else if (add_header(request, header, err) < 0) {
            return -1;
        }
    }
    if (expect)
        return 0;
    return add_line(request, options->expect_continue ? "Expect: 100-continue" : "Expect:", err);
}

/* --- options --- */

static const char *environment(const char *name)
{
    const char *value = getenv(name);
    return value != NULL && value[0] != '\0' ? value : NULL;
}

static void set_tls(CURL *easy, const struct lk_http_options *options)
{
    const char *file = options->ca_file, *path = options->ca_path;
    if (file == NULL && path == NULL) {
        file = environment("CURL_CA_BUNDLE");
        if (file == NULL) {
            file = environment("SSL_CERT_FILE");
            path = environment("SSL_CERT_DIR");
        }
    }
    if (file != NULL || path != NULL) { /* else libcurl's own default stays */
        curl_easy_setopt(easy, CURLOPT_CAINFO, file);
        curl_easy_setopt(easy, CURLOPT_CAPATH, path);
        curl_easy_setopt(easy, CURLOPT_PROXY_CAINFO, file);
        curl_easy_setopt(easy, CURLOPT_PROXY_CAPATH, path);
    }
    curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, options->insecure ? 0L : 1L);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, options->insecure ? 0L : 2L);
}

/* A proxy or address that a script names itself is a host that it reaches. */
static int check_named_host(struct lk_http *http, const char *text, struct lk_error *err)
{
    char peer[300];
    CURLU *parsed = curl_url();
    if (parsed == NULL)
        return lk_error_set(err, LK_MEMORY, "no memory for a url");
    CURLUcode code =
        curl_url_set(parsed, CURLUPART_URL, text, CURLU_DEFAULT_SCHEME | CURLU_NON_SUPPORT_SCHEME);
    char *host = code == CURLUE_OK ? url_part(parsed, CURLUPART_HOST, 0) : NULL;
    char *port = code == CURLUE_OK ? url_part(parsed, CURLUPART_PORT, 0) : NULL;
    int result = -1;
    if (host == NULL) {
        lk_error_set(err, LK_USAGE, "bad proxy or address: no host in it");
    } else {
        snprintf(peer, sizeof(peer), "%s:%s", host, port != NULL ? port : "1080");
        result = lk_caps_check(http->caps, LK_CAP_NET, peer, err);
    }
    free(host);
    free(port);
    curl_url_cleanup(parsed);
    return result;
}

static int set_proxy(struct lk_http_request *request, const struct lk_http_options *options,
                     const char *host, struct lk_error *err)
{
    const char *proxy = options->proxy == NULL ? "env" : options->proxy;
    if (is_metadata_host(host) || strcmp(proxy, "none") == 0) {
        curl_easy_setopt(request->easy, CURLOPT_PROXY, "");
        curl_easy_setopt(request->easy, CURLOPT_NOPROXY, "*");
        return 0;
    }
    if (strcmp(proxy, "env") == 0)
        return 0;
    if (check_named_host(request->http, proxy, err) < 0)
        return -1;
    curl_easy_setopt(request->easy, CURLOPT_PROXY, proxy);
    curl_easy_setopt(request->easy, CURLOPT_NOPROXY, "");
    return 0;
}

static int set_resolve(struct lk_http_request *request, const struct lk_http_options *options,
                       struct lk_error *err)
{
    for (size_t i = 0; i < options->resolve_count; i++) {
        const char *entry = options->resolve[i], *host_end = strchr(entry, ':');
        char *port_end = NULL, peer[300];
        long port = host_end == NULL ? 0 : strtol(host_end + 1, &port_end, 10);
        if (port <= 0 || port > 65535 || *port_end != ':' || strchr("+-*", entry[0]) != NULL ||
            strchr(port_end + 1, ',') != NULL)
            return lk_error_set(err, LK_USAGE,
                                "bad entry of resolve: \"%.100s\", expected host:port:address",
                                entry);
        snprintf(peer, sizeof(peer), "%s:%ld", port_end + 1, port);
        if (check_named_host(request->http, peer, err) < 0)
            return -1;
        struct curl_slist *list = curl_slist_append(request->resolve, entry);
        if (list == NULL)
            return lk_error_set(err, LK_MEMORY, "no memory for an entry of resolve");
        request->resolve = list;
    }
    curl_easy_setopt(request->easy, CURLOPT_RESOLVE, request->resolve);
    return 0;
}

/* Debian 12's libcurl makes its sockets without it. */
static curl_socket_t open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
    (void)arg, (void)purpose;
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

static void set_callbacks(struct lk_http_request *request)
{
    CURL *easy = request->easy;
    curl_easy_setopt(easy, CURLOPT_PRIVATE, request);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, request->reason);
    curl_easy_setopt(easy, CURLOPT_READFUNCTION, lk_http_on_read);
    curl_easy_setopt(easy, CURLOPT_READDATA, request);
    curl_easy_setopt(easy, CURLOPT_SEEKFUNCTION, lk_http_on_seek);
    curl_easy_setopt(easy, CURLOPT_SEEKDATA, request);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, lk_http_on_write);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, request);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, lk_http_on_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, request);
    curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, lk_http_on_connected);
    curl_easy_setopt(easy, CURLOPT_PREREQDATA, request);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket);
}

static void set_fixed(struct lk_http_request *request)
{
    CURL *easy = request->easy;
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L); /* never wait for a resolver thread */
    curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L); /* the path is signed as it stands */
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    curl_easy_setopt(easy, CURLOPT_HEADEROPT, (long)CURLHEADER_SEPARATE);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "lunark/" LUNARK_VERSION);
    curl_easy_setopt(easy, CURLOPT_SHARE, request->http->share);
}

static long milliseconds(uint64_t ms, long fallback)
{
    if (ms == 0)
        return fallback;
    return ms > LONG_MAX ? LONG_MAX : (long)ms;
}

static bool expects_body(const char *method)
{
    return strcmp(method, "PUT") == 0 || strcmp(method, "POST") == 0 ||
           strcmp(method, "PATCH") == 0;
}

/* Method and body. An upload with another word as method is what libcurl does for any method with a
 * body. */
static void set_method(struct lk_http_request *request, const char *method, int64_t size,
                       bool has_body)
{
    CURL *easy = request->easy;
    if (has_body || expects_body(method)) {
        curl_easy_setopt(easy, CURLOPT_UPLOAD, 1L);
        curl_easy_setopt(easy, CURLOPT_INFILESIZE_LARGE, (curl_off_t)size);
        curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE,
                         size < 0 || size > 1 << 20 ? 128L << 10 : 16L << 10);
        curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, method);
        if (request->input != NULL)
            curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT,
                             1L); /* it could not be sent again on another one */
    } else if (strcmp(method, "HEAD") == 0) {
        curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
    } else if (strcmp(method, "GET") != 0) {
        curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, method);
    }
}

static int set_transfer(struct lk_http_request *request, const struct lk_http_options *options,
                        const char *method, struct lk_error *err)
{
    CURL *easy = request->easy;
    bool has_body = options->body != NULL || request->part != NULL || request->input != NULL;
    int64_t size = request->input != NULL  ? request->length
                   : request->part != NULL ? (int64_t)request->part->size
                                           : (int64_t)request->body_len;
    bool http2 = options->http2 == 1 || (options->http2 < 0 && !has_body && !options->sink);
    set_method(request, method, size, has_body);
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION,
                     (long)(http2 ? CURL_HTTP_VERSION_2TLS : CURL_HTTP_VERSION_1_1));
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS,
                     milliseconds(options->connect_ms, CONNECT_MS));
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, milliseconds(options->total_ms, 0));
    if (options->sink)
        curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, 64L << 10);
    if (add_headers(request, options, size, err) < 0)
        return -1;
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, request->headers);
    return 0;
}

static int check_bodies(const struct lk_http_request *request,
                        const struct lk_http_options *options, const char *method,
                        struct lk_error *err)
{
    int bodies = (options->body != NULL) + (options->part != NULL) + (request->input != NULL);
    if (!token_only(method) || strlen(method) > 32)
        return lk_error_set(err, LK_USAGE, "bad method \"%.40s\"", method);
    if (bodies > 1)
        return lk_error_set(err, LK_USAGE, "a request has one body: memory, a part or a stream");
    if (bodies == 1 && strcmp(method, "HEAD") == 0)
        return lk_error_set(err, LK_USAGE, "a HEAD request has no body");
    return 0;
}

/* Copies of what must live as long as the request. */
static int set_copies(struct lk_http_request *request, const struct lk_http_options *options,
                      const char *method, const struct lk_http_url *url, struct lk_error *err)
{
    int shown = strlen(url->path) > PATH_SHOWN ? PATH_SHOWN : (int)strlen(url->path);
    char port[16] = "";
    if (!url->default_port)
        snprintf(port, sizeof(port), ":%d", url->port);
    if (asprintf(&request->peer, "%s:%d", url->host, url->port) < 0)
        request->peer = NULL;
    if (asprintf(&request->label, "%s %s://%s%s%.*s%s", method, url->scheme, url->host, port, shown,
                 url->path, url->path[shown] != '\0' ? "..." : "") < 0)
        request->label = NULL;
    if (options->body_len > 0)
        request->body = malloc(options->body_len);
    if (request->peer == NULL || request->label == NULL ||
        (options->body_len > 0 && request->body == NULL))
        return lk_error_set(err, LK_MEMORY, "no memory for a request");
    if (options->body_len > 0)
        memcpy(request->body, options->body, options->body_len);
    request->body_len = options->body_len;
    if (options->part != NULL)
        request->part = lk_part_ref(options->part);
    request->length = options->stream == NULL || options->length < 0 ? -1 : options->length;
    return 0;
}

int lk_http_setup(struct lk_http_request *request, const struct lk_http_options *options,
                  struct lk_error *err)
{
    const char *method = options->method == NULL ? "GET" : options->method;
    struct lk_http_url url;
    if (lk_http_parse_url(options->url, strlen(options->url), &url, err) < 0)
        return -1;
    int result = check_bodies(request, options, method, err);
    if (result == 0)
        result = set_copies(request, options, method, &url, err);
    if (result == 0)
        result = lk_caps_check(request->http->caps, LK_CAP_NET, request->peer, err);
    if (result == 0 && (request->easy = curl_easy_init()) == NULL)
        result = lk_error_set(err, LK_MEMORY, "no memory for a request");
    if (result == 0) {
        set_fixed(request);
        set_callbacks(request);
        set_tls(request->easy, options);
        result = set_proxy(request, options, url.host, err);
    }
    if (result == 0)
        result = set_resolve(request, options, err);
    if (result == 0)
        result = set_transfer(request, options, method, err);
    if (result == 0 && curl_easy_setopt(request->easy, CURLOPT_URL, options->url) != CURLE_OK)
        result = lk_error_set(err, LK_MEMORY, "no memory for a url");
    lk_http_url_free(&url);
    return result;
}

/* --- results --- */

static enum lk_kind kind_of(CURLcode code, bool *retryable)
{
    *retryable = true;
    switch (code) {
    case CURLE_OPERATION_TIMEDOUT:
        return LK_TIMEOUT;
    case CURLE_OUT_OF_MEMORY:
        return LK_MEMORY;
    case CURLE_URL_MALFORMAT:
        *retryable = false;
        return LK_USAGE;
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_INVALIDCERTSTATUS:
    case CURLE_SSL_PINNEDPUBKEYNOTMATCH:
    case CURLE_UNSUPPORTED_PROTOCOL: /* the answer is not HTTP */
    case CURLE_SEND_FAIL_REWIND:
        *retryable = false;
        return LK_NETWORK;
    default:
        return LK_NETWORK;
    }
}

static void add_hint(struct lk_error *err, CURLcode code)
{
    switch (code) {
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
        lk_error_hint(err, "give the certificate of its CA (ca_file, or CURL_CA_BUNDLE in the "
                           "environment), and the "
                           "name that the server's certificate is for");
        break;
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
        lk_error_hint(err, "check the name of the host and the name servers");
        break;
    case CURLE_COULDNT_CONNECT:
        lk_error_hint(err, "check host and port, and that the server runs");
        break;
    case CURLE_SEND_FAIL_REWIND:
        lk_error_hint(err, "a stream can't be sent again: begin anew, or send parts");
        break;
    default:
        break;
    }
}

void lk_http_explain(struct lk_http_request *request, CURLcode code)
{
    bool retryable;
    enum lk_kind kind = kind_of(code, &retryable);
    struct lk_error *err = &request->error;
    const char *text = request->reason[0] != '\0' ? request->reason : curl_easy_strerror(code);
    char reason[CURL_ERROR_SIZE];
    if (request->failed)
        return;
    request->failed = true;
    snprintf(reason, sizeof(reason), "%s", text);
    size_t len = strlen(reason);
    while (len > 0 && (reason[len - 1] == '.' || reason[len - 1] == '\n' || reason[len - 1] == ' '))
        reason[--len] = '\0';
    if (reason[0] >= 'A' && reason[0] <= 'Z' && reason[1] >= 'a' && reason[1] <= 'z')
        reason[0] = (char)(reason[0] - 'A' + 'a');
    uint64_t ms = (lk_now_ns() - request->started_ns) / 1000000;
    if (code == CURLE_OPERATION_TIMEDOUT && request->total_ms > 0 && ms >= request->total_ms)
        lk_error_set(err, kind, "%s: not done within %g s", request->label,
                     (double)request->total_ms / 1000);
    else if (code == CURLE_OPERATION_TIMEDOUT && !request->connected)
        lk_error_set(err, kind, "%s: no connection to %s within %g s", request->label,
                     request->peer, (double)request->connect_ms / 1000);
    else
        lk_error_set(err, kind, "%s: %s", request->label, reason);
    err->code = (int)code;
    err->retryable = retryable;
    snprintf(err->op, sizeof(err->op), "http.request");
    add_hint(err, code);
}
