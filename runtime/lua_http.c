/* SPDX-License-Identifier: MIT
 * lua_http.c - lunark.core.http: one request as a parking call, and the parts of a URL.
 * Owns the request while the task waits for it. The options arrive checked and completed by
 * scripts/lunark/http.lua (query, signature); no Lua runs between the start of a request and its
 * result. Loop thread only. */
#include "http.h"
#include "lua_task.h"
#include "part.h"
#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

#define REQUEST_CLASS "lunark.http.request"
#define URL_CLASS "lunark.http.url"
#define RESOLVE_MAX 64
#define HEADERS_MAX 1000

struct http_op {
    struct lk_op op;
    struct lk_http_request *request;
    bool cancelled;
};

/* --- the operation --- */

static void finished(void *arg)
{
    struct http_op *op = arg;
    if (op->cancelled) { /* nobody takes the response: its stream must not wait for the collector */
        lk_http_release(op->request);
        op->request = NULL;
    }
    lk_op_done(&op->op);
}

static void cancel(struct lk_op *base)
{
    struct http_op *op = (struct http_op *)base;
    op->cancelled = true;
    lk_http_cancel(op->request); /* finished() comes, for this or because it was on its way */
}

static int collect(lua_State *L)
{
    struct http_op *op = luaL_checkudata(L, 1, REQUEST_CLASS);
    lk_http_release(op->request);
    op->request = NULL;
    return 0;
}

/* Adds name = value to the table on top; a name that is there already gets ", value" appended. */
static void set_header(lua_State *L, const struct lk_http_header *header)
{
    if (lua_getfield(L, -1, header->name) == LUA_TSTRING) { /* headers old */
        lua_pushliteral(L, ", ");
        lua_pushlstring(L, header->value, header->value_len);
        lua_concat(L, 3); /* headers value */
    } else {
        lua_pop(L, 1);
        lua_pushlstring(L, header->value, header->value_len); /* headers value */
    }
    lua_setfield(L, -2, header->name); /* headers */
}

/* The server's own name for this request, for its operators: the first of the usual headers that is
 * there. */
static void set_request_id(lua_State *L) /* response headers */
{
    static const char *const names[] = {"x-amz-request-id",     "x-ms-request-id",
                                        "x-guploader-uploadid", "x-goog-request-id",
                                        "x-request-id",         NULL};
    for (const char *const *name = names; *name != NULL; name++) {
        if (lua_getfield(L, -1, *name) == LUA_TSTRING) { /* response headers id */
            lua_setfield(L, -3, "request_id");
            return;
        }
        lua_pop(L, 1);
    }
}

static int results(lua_State *L, struct lk_op *base)
{
    struct http_op *op = (struct http_op *)base;
    struct lk_error err;
    const struct lk_http_response *response = lk_http_result(op->request, &err);
    if (response == NULL) {
        lk_http_release(op->request);
        op->request = NULL;
        return lk_push_error(L, &err);
    }
    lua_createtable(L, 0, 7); /* response */
    lua_pushinteger(L, response->status);
    lua_setfield(L, -2, "status");
    lua_pushnumber(L, response->seconds);
    lua_setfield(L, -2, "seconds");
    lua_pushinteger(L, 0);
    lua_setfield(L, -2, "retries");
    lua_createtable(L, 0, (int)response->header_count); /* response headers */
    for (size_t i = 0; i < response->header_count; i++)
        set_header(L, &response->headers[i]);
    set_request_id(L);
    lua_setfield(L, -2, "headers"); /* response */
    if (response->streamed) {
        struct lk_stream **box = lk_push_stream_box(L); /* response stream */
        *box = lk_http_take_stream(op->request);
        lua_setfield(L, -2, "stream");
    } else {
        lua_pushlstring(L, response->body != NULL ? response->body : "", response->body_len);
        lua_setfield(L, -2, "body");
    }
    lk_http_release(op->request);
    op->request = NULL;
    return 1;
}

/* --- options --- */

/* A map of names to strings or secrets. The array is a userdata, left on the stack; it points into
 * the table's values, which live as long as the table. */
static void read_headers(lua_State *L, struct lk_http_options *options)
{
    int type = lua_getfield(L, 1, "headers"); /* headers */
    if (type == LUA_TNIL)
        return;
    if (type != LUA_TTABLE)
        lk_misuse(L, "http.request", "'headers' must be a table, got %s", luaL_typename(L, -1));
    int table = lua_gettop(L);
    size_t count = 0;
    for (lua_pushnil(L); lua_next(L, table) != 0; lua_pop(L, 1))
        if (++count > HEADERS_MAX)
            lk_misuse(L, "http.request", "more than %d headers", HEADERS_MAX);
    struct lk_http_header *list =
        lua_newuserdatauv(L, (count + 1) * sizeof(*list), 0);      /* headers list */
    for (lua_pushnil(L); lua_next(L, table) != 0; lua_pop(L, 1)) { /* headers list name value */
        struct lk_http_header *header = &list[options->header_count];
        size_t name_len = 0;
        header->name = lua_type(L, -2) == LUA_TSTRING ? lua_tolstring(L, -2, &name_len) : NULL;
        if (header->name == NULL || strlen(header->name) != name_len)
            lk_misuse(L, "http.request", "the name of a header must be a string without NUL bytes");
        header->value = lk_text_of(L, -1, &header->value_len);
        if (header->value == NULL)
            lk_misuse(L, "http.request", "header '%s' must be a string or a secret, got %s",
                      header->name, luaL_typename(L, -1));
        options->header_count++;
    }
    options->headers = list;
}

static void read_resolve(lua_State *L, struct lk_http_options *options)
{
    int type = lua_getfield(L, 1, "resolve"); /* resolve */
    if (type == LUA_TNIL)
        return;
    lua_Unsigned count = type == LUA_TTABLE ? lua_rawlen(L, -1) : 0;
    if (type != LUA_TTABLE || count > RESOLVE_MAX)
        lk_misuse(L, "http.request", "'resolve' must be a list of at most %d strings", RESOLVE_MAX);
    const char **list =
        lua_newuserdatauv(L, ((size_t)count + 1) * sizeof(*list), 0); /* resolve list */
    for (lua_Unsigned i = 0; i < count; i++) {
        if (lua_rawgeti(L, -2, (lua_Integer)i + 1) != LUA_TSTRING) /* resolve list entry */
            lk_misuse(L, "http.request", "'resolve' must be a list of strings");
        list[i] = lua_tostring(L, -1); /* the table keeps it */
        lua_pop(L, 1);
    }
    options->resolve = list;
    options->resolve_count = (size_t)count;
}

static bool is_streamed(lua_State *L)
{
    const char *sink = lk_opt_string(L, 1, "sink", NULL);
    if (sink != NULL && strcmp(sink, "stream") != 0)
        lk_misuse(L, "http.request", "'sink' must be \"stream\", got \"%s\"", sink);
    return sink != NULL;
}

static int read_http2(lua_State *L)
{
    int type = lua_getfield(L, 1, "http2");
    lua_pop(L, 1);
    return type == LUA_TNIL ? -1 : lk_opt_boolean(L, 1, "http2", false);
}

/* C strings: what follows a NUL byte would be lost without a word. */
static const char *read_text(lua_State *L, const char *key)
{
    size_t len = 0;
    const char *text = lk_opt_string(L, 1, key, &len);
    if (text != NULL && strlen(text) != len)
        lk_misuse(L, "http.request", "'%s' holds a NUL byte", key);
    return text;
}

static void read_options(lua_State *L, struct lk_http_options *options)
{
    static const char *const keys[] = {"method",       "url",     "headers", "body",
                                       "length",       "sink",    "max",     "connect_timeout",
                                       "idle_timeout", "timeout", "ca_file", "ca_path",
                                       "insecure",     "proxy",   "http2",   "expect_continue",
                                       "resolve",      NULL};
    lk_check_keys(L, 1, "http.request", keys);
    options->method = read_text(L, "method");
    options->url = read_text(L, "url");
    if (options->url == NULL)
        lk_misuse(L, "http.request", "'url' is missing");
    options->length = lk_opt_integer(L, 1, "length", 0, INT64_MAX, -1);
    options->sink = is_streamed(L);
    options->max =
        (size_t)lk_opt_integer(L, 1, "max", 1, (lua_Integer)1 << 30, (lua_Integer)1 << 20);
    options->connect_ms = lk_opt_milliseconds(L, 1, "connect_timeout", 10);
    options->idle_ms = lk_opt_milliseconds(L, 1, "idle_timeout", 60);
    options->total_ms = lk_opt_milliseconds(L, 1, "timeout", 0);
    options->ca_file = read_text(L, "ca_file");
    options->ca_path = read_text(L, "ca_path");
    options->insecure = lk_opt_boolean(L, 1, "insecure", false);
    options->proxy = read_text(L, "proxy");
    options->http2 = read_http2(L);
    options->expect_continue = lk_opt_boolean(L, 1, "expect_continue", false);
    read_headers(L, options);
    read_resolve(L, options);
}

/* Last, because a part or a stream is held from here on and nothing may raise any more. Returns the
 * part. */
static struct lk_part *read_body(lua_State *L, struct lk_http_options *options)
{
    int type = lua_getfield(L, 1, "body"); /* body: stays, so that its text does */
    if (type == LUA_TNIL)
        return NULL;
    options->body = lk_text_of(L, -1, &options->body_len);
    if (options->body != NULL)
        return NULL;
    if (lk_is_stream(L, -1)) {
        options->stream = lk_take_stream(L, lua_gettop(L), "http.request");
        return NULL;
    }
    options->part = lk_ref_part(L, lua_gettop(L), "http.request");
    if (options->part == NULL)
        lk_misuse(L, "http.request",
                  "'body' must be a string, a secret, a Part or a Stream, got %s",
                  luaL_typename(L, -1));
    return options->part;
}

/* --- the runtime's lk_http --- */

struct http_cleanup {
    struct lk_cleanup base;
    struct lk_runtime *runtime;
};

static void clean_up(struct lk_cleanup *base)
{
    struct http_cleanup *cleanup = (struct http_cleanup *)base;
    lk_http_free(cleanup->runtime->http);
    cleanup->runtime->http = NULL;
    free(cleanup);
}

/* Made at the first request, goes with the runtime. */
static int need_http(struct lk_runtime *runtime, struct lk_error *err)
{
    if (runtime->http != NULL)
        return 0;
    struct http_cleanup *cleanup = calloc(1, sizeof(*cleanup));
    if (cleanup == NULL)
        return lk_error_set(err, LK_MEMORY, "no memory for http");
    runtime->http = lk_http_new(runtime->loop, runtime->caps, err);
    if (runtime->http == NULL) {
        free(cleanup);
        return -1;
    }
    cleanup->base.run = clean_up;
    cleanup->runtime = runtime;
    lk_runtime_on_close(runtime, &cleanup->base);
    return 0;
}

static int start(lua_State *L)
{
    struct lk_runtime *runtime = lk_runtime_of(L);
    struct lk_http_options options = {.length = -1};
    struct lk_error err;
    lua_settop(L, 1);
    lk_task_parkable(L);
    struct http_op *op = lua_newuserdatauv(L, sizeof(*op), 0); /* options op */
    memset(op, 0, sizeof(*op));
    luaL_setmetatable(L, REQUEST_CLASS);
    read_options(L, &options);
    if (need_http(runtime, &err) < 0)
        return lk_push_error(L, &err);
    op->op.cancel = cancel;
    op->op.results = results;
    options.done = finished;
    options.arg = op;
    struct lk_part *part = read_body(L, &options);
    op->request = lk_http_start(runtime->http, &options, &err);
    if (part != NULL)
        lk_part_unref(part);
    if (op->request == NULL)
        return err.kind == LK_USAGE ? lk_raise(L, &err) : lk_push_error(L, &err);
    return lk_task_park(L, 2, &op->op);
}

/* --- URLs --- */

static int free_url(lua_State *L)
{
    lk_http_url_free(luaL_checkudata(L, 1, URL_CLASS));
    return 0;
}

static void set_text(lua_State *L, const char *key, const char *text)
{
    if (text != NULL) {
        lua_pushstring(L, text);
        lua_setfield(L, -2, key);
    }
}

static int parse_url(lua_State *L)
{
    size_t len;
    struct lk_error err;
    const char *text = luaL_checklstring(L, 1, &len);
    struct lk_http_url *url = lua_newuserdatauv(L, sizeof(*url), 0); /* url */
    memset(url, 0, sizeof(*url));
    luaL_setmetatable(L, URL_CLASS);
    if (lk_http_parse_url(text, len, url, &err) < 0)
        return lk_push_error(L, &err);
    lua_createtable(L, 0, 6); /* url result */
    set_text(L, "scheme", url->scheme);
    set_text(L, "host", url->host);
    set_text(L, "path", url->path);
    set_text(L, "query", url->query);
    lua_pushinteger(L, url->port);
    lua_setfield(L, -2, "port");
    lua_pushboolean(L, url->default_port);
    lua_setfield(L, -2, "default_port");
    return 1;
}

int lk_open_http(lua_State *L)
{
    static const luaL_Reg methods[] = {{NULL, NULL}};
    static const luaL_Reg functions[] = {
        {"request", start}, {"parse_url", parse_url}, {NULL, NULL}};
    lk_new_class(L, REQUEST_CLASS, methods, collect);
    lk_new_class(L, URL_CLASS, methods, free_url);
    luaL_newlib(L, functions);
    return 1;
}
