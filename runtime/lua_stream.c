/* SPDX-License-Identifier: MIT
 * lua_stream.c - the Stream of scripts: sources from memory and files, filters, reads.
 * Owns the consumer's side of a stream until it is moved into something else. Data become Lua
 * strings only in read and read_all. Loop thread only. */
#include "lua_stream.h"

#include "lua_verify.h"
#include <lauxlib.h>
#include <string.h>

#define READ_CLASS "lunark.stream.read"
enum { DEFAULT_MAX = 16 << 20 };

/* --- boxes --- */

static void open_classes(lua_State *L);

struct lk_stream **lk_push_stream_box(lua_State *L)
{
    open_classes(L);
    struct lk_stream_box *box = lua_newuserdatauv(L, sizeof(*box), 1);
    memset(box, 0, sizeof(*box));
    box->gone = "was never opened";
    luaL_setmetatable(L, LK_STREAM_CLASS);
    return &box->stream;
}

bool lk_is_stream(lua_State *L, int index)
{
    return luaL_testudata(L, index, LK_STREAM_CLASS) != NULL;
}

static struct lk_stream_box *check_box(lua_State *L, int index, const char *function)
{
    struct lk_stream_box *box = luaL_testudata(L, index, LK_STREAM_CLASS);

    if (!box) {
        lk_misuse(L, function, "expected a stream, got %s", luaL_typename(L, index));
    }
    return box;
}

static void check_live(lua_State *L, const struct lk_stream_box *box, const char *function)
{
    if (!box->stream) {
        lk_misuse(L, function, "the stream %s", box->gone);
    }
    if (box->reading) {
        lk_misuse(L, function, "another task is reading the stream");
    }
}

struct lk_stream_box *lk_check_stream(lua_State *L, const char *function, bool ended)
{
    struct lk_stream_box *box = check_box(L, 1, function);

    if (!ended || !box->ended) {
        check_live(L, box, function);
    }
    return box;
}

struct lk_stream *lk_take_stream(lua_State *L, int index, const char *function)
{
    struct lk_stream_box *box = check_box(L, index, function);

    check_live(L, box, function);
    struct lk_stream *stream = box->stream;
    box->stream = NULL;
    box->gone = "was given to something else";
    return stream;
}

/* Pushes a Stream, or nil and the error. Room for the box was made before the stream was. */
static int give(lua_State *L, struct lk_stream **box, struct lk_stream *stream,
                const struct lk_error *err)
{
    if (!stream) {
        return lk_push_error(L, err);
    }
    *box = stream;
    return 1;
}

/* --- reading --- */

struct lk_read_op {
    struct lk_op op;
    struct lk_stream_box *box;
    struct lk_chunk *chunk; /* of read */
    bool all;
    struct lk_buf buf; /* of read_all */
    int rc;            /* LK_STREAM_* or -1 with err */
    struct lk_error err;
};

static void finish_read(struct lk_read_op *read, int rc)
{
    struct lk_stream_box *box = read->box;

    read->rc = rc;
    read->box = NULL;
    box->reading = NULL;
    if (box->stream) {
        lk_stream_on_ready(box->stream, read->op.runtime->loop, NULL, NULL);
    }
    lk_op_done(&read->op);
}

static int keep(struct lk_read_op *read, struct lk_chunk *chunk)
{
    struct lk_buf *buf = &read->buf;

    if (!read->all) {
        read->chunk = chunk;
        return LK_STREAM_DATA;
    }
    int rc = LK_STREAM_AGAIN;
    if (chunk->len > buf->max - buf->len) {
        lk_error_set(&read->err, LK_MEMORY, "the stream is longer than %zu bytes", buf->max);
        lk_error_hint(&read->err, "give read_all a larger maximum, or read it piece by piece");
        rc = -1;
    } else if (lk_buf_add(buf, chunk->data, chunk->len, &read->err) < 0) {
        rc = -1;
    }
    lk_chunk_unref(chunk);
    return rc;
}

static void go_on(void *arg)
{
    struct lk_read_op *read = arg;
    struct lk_chunk *chunk;
    int rc;

    if (!read->box) {
        return;
    }
    do {
        rc = lk_stream_try_read(read->box->stream, &chunk, &read->err);
        if (rc == LK_STREAM_AGAIN) {
            return;
        }
        if (rc == LK_STREAM_DATA) {
            rc = keep(read, chunk);
        }
    } while (rc == LK_STREAM_AGAIN);
    finish_read(read, rc);
}

/* The stream itself goes on: after a timeout it can be read again. */
static void cancel_read(struct lk_op *op)
{
    struct lk_read_op *read = (struct lk_read_op *)op;

    if (read->box) {
        lk_error_set(&read->err, LK_CANCELLED, "the read was cancelled");
        finish_read(read, -1);
    }
}

static int read_results(lua_State *L, struct lk_op *op)
{
    struct lk_read_op *read = (struct lk_read_op *)op;

    if (read->rc < 0) {
        return lk_push_error(L, &read->err);
    }
    if (read->all) {
        lua_pushlstring(L, read->buf.data ? read->buf.data : "", read->buf.len);
        lk_buf_free(&read->buf);
        return 1;
    }
    if (read->rc == LK_STREAM_DONE) {
        lua_pushnil(L);
        return 1;
    }
    lua_pushlstring(L, (const char *)read->chunk->data, read->chunk->len);
    lk_chunk_unref(read->chunk);
    read->chunk = NULL;
    return 1;
}

static int read_gc(lua_State *L)
{
    struct lk_read_op *read = lua_touserdata(L, 1);

    lk_chunk_unref(read->chunk);
    read->chunk = NULL;
    lk_buf_free(&read->buf);
    return 0;
}

/* Stack: the stream at 1. */
static int start_read(lua_State *L, struct lk_stream_box *box, bool all, size_t max)
{
    lua_settop(L, 1);
    struct lk_read_op *read = lua_newuserdatauv(L, sizeof(*read), 1);
    memset(read, 0, sizeof(*read));
    lk_buf_init(&read->buf, max);
    luaL_setmetatable(L, READ_CLASS);
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, 2, 1); /* the stream lives as long as the read */
    lk_task_parkable(L);
    read->op.cancel = cancel_read;
    read->op.results = read_results;
    read->op.runtime = lk_runtime_of(L);
    read->all = all;
    read->box = box;
    box->reading = read;
    lk_stream_on_ready(box->stream, read->op.runtime->loop, go_on, read);
    go_on(read);
    return lk_task_park(L, 2, &read->op);
}

static int stream_read(lua_State *L)
{
    return start_read(L, lk_check_stream(L, "stream.read", false), false, 1);
}

static int stream_read_all(lua_State *L)
{
    struct lk_stream_box *box = lk_check_stream(L, "stream.read_all", false);
    lua_Integer max = luaL_optinteger(L, 2, DEFAULT_MAX);

    if (max < 0) {
        return lk_misuse(L, "stream.read_all", "the maximum must be 0 or more");
    }
    return start_read(L, box, true, max > 0 ? (size_t)max : 1);
}

/* --- filters --- */

/* A level as word or number. */
static int level_option(lua_State *L, int index, const char *function)
{
    struct lk_error err;
    int level = LK_LEVEL_BALANCED;
    int type = lua_getfield(L, index, "level");

    if (type != LUA_TNIL && type != LUA_TSTRING && type != LUA_TNUMBER) {
        lk_misuse(L, function, "'level' must be a word or a number, got %s", luaL_typename(L, -1));
    }
    if (type != LUA_TNIL && lk_level_parse(lua_tostring(L, -1), &level, &err) < 0) {
        lk_raise(L, &err);
    }
    lua_pop(L, 1);
    return level;
}

void lk_read_gzip_options(lua_State *L, int index, const char *function,
                          struct lk_gzip_options *options)
{
    struct lk_runtime *runtime = lk_runtime_of(L);
    struct lk_error err;

    *options = (struct lk_gzip_options){.engine = LK_ENGINE_AUTO, .level = LK_LEVEL_BALANCED};
    if (lua_istable(L, index)) {
        options->level = level_option(L, index, function);
    }
    const char *engine = lk_opt_string(L, index, "engine", NULL);
    if (engine && lk_engine_parse(engine, &options->engine, &err) < 0) {
        lk_raise(L, &err);
    }
    options->index = lk_opt_boolean(L, index, "index", true);
    int jobs = (int)lk_opt_integer(L, index, "jobs", 1, 1024, runtime->jobs);
    options->in_flight = lk_gzip_in_flight(runtime->memory, jobs);
}

static int stream_gzip(lua_State *L)
{
    static const char *const keys[] = {"level", "engine", "index", "jobs", NULL};
    struct lk_gzip_options options;
    struct lk_error err;

    lk_check_stream(L, "stream.gzip", false);
    lua_settop(L, 2);
    lk_check_keys(L, 2, "stream.gzip", keys);
    lk_read_gzip_options(L, 2, "stream.gzip", &options);
    struct lk_stream **box = lk_push_stream_box(L);
    struct lk_stream *input = lk_take_stream(L, 1, "stream.gzip");
    return give(L, box, lk_gzip(lk_runtime_of(L)->pool, input, &options, NULL, &err), &err);
}

static int stream_gunzip(lua_State *L)
{
    struct lk_runtime *runtime = lk_runtime_of(L);
    struct lk_error err;

    lk_check_stream(L, "stream.gunzip", false);
    struct lk_stream **box = lk_push_stream_box(L);
    struct lk_stream *input = lk_take_stream(L, 1, "stream.gunzip");
    int in_flight = lk_gzip_in_flight(runtime->memory, runtime->jobs);
    return give(L, box, lk_gunzip(runtime->pool, input, in_flight, &err), &err);
}

static int stream_limit(lua_State *L)
{
    struct lk_error err;

    lk_check_stream(L, "stream.limit", false);
    lua_Number rate = luaL_checknumber(L, 2);
    if (!(rate >= 1 && rate < 9e18)) {
        return lk_misuse(L, "stream.limit", "expected 1 byte per second or more");
    }
    struct lk_stream **box = lk_push_stream_box(L);
    struct lk_stream *input = lk_take_stream(L, 1, "stream.limit");
    return give(L, box, lk_stream_limit(lk_runtime_of(L)->pool, input, (uint64_t)rate, &err), &err);
}

/* --- what it is like --- */

static int stream_state(lua_State *L)
{
    static const char *const names[] = {"open", "whole", "failed", "cancelled"};
    struct lk_stream_box *box = check_box(L, 1, "stream.state");

    if (!box->stream && !box->ended) {
        return lk_misuse(L, "stream.state", "the stream %s", box->gone);
    }
    lua_pushstring(L, names[box->ended ? box->end : lk_stream_state(box->stream)]);
    return 1;
}

static int push_bytes(lua_State *L, const char *function, bool raw)
{
    struct lk_stream_box *box = check_box(L, 1, function);
    uint64_t bytes;

    if (box->ended) {
        bytes = raw ? box->raw_bytes : box->bytes;
    } else if (!box->stream) {
        return lk_misuse(L, function, "the stream %s", box->gone);
    } else {
        bytes = raw ? lk_stream_raw_bytes(box->stream) : lk_stream_bytes(box->stream);
    }
    lua_pushinteger(L, (lua_Integer)bytes);
    return 1;
}

static int stream_bytes(lua_State *L)
{
    return push_bytes(L, "stream.bytes", false);
}

static int stream_raw_bytes(lua_State *L)
{
    return push_bytes(L, "stream.raw_bytes", true);
}

/* Also __gc and __close. What the stream was stays known. */
static int stream_close(lua_State *L)
{
    struct lk_stream_box *box = check_box(L, 1, "stream.close");
    struct lk_stream *stream = box->stream;

    if (!stream) {
        return 0;
    }
    if (box->reading) {
        lk_error_set(&box->reading->err, LK_CANCELLED, "the stream was closed while it was read");
        finish_read(box->reading, -1);
    }
    lk_stream_cancel(stream);
    box->stream = NULL;
    box->gone = "is closed";
    box->ended = true;
    box->end = lk_stream_state(stream);
    box->bytes = lk_stream_bytes(stream);
    box->raw_bytes = lk_stream_raw_bytes(stream);
    lk_stream_unref(stream);
    return 0;
}

/* --- sources --- */

static int source_of(lua_State *L)
{
    struct lk_error err;
    size_t len;
    const char *text = lk_text_of(L, 1, &len);

    if (!text) {
        return lk_misuse(L, "stream.of", "expected a string, got %s", luaL_typename(L, 1));
    }
    struct lk_stream **box = lk_push_stream_box(L);
    return give(L, box, lk_stream_of_bytes(text, len, &err), &err);
}

static int source_file(lua_State *L)
{
    struct lk_runtime *runtime = lk_runtime_of(L);
    const char *path = lk_check_path(L, 1, "stream.file");
    struct lk_error err;
    struct lk_stream **box = lk_push_stream_box(L);
    struct lk_file *file = lk_file_open(runtime->caps, path, LK_FILE_READ, 0, &err);
    struct lk_stream *stream =
        file ? lk_file_stream(runtime->pool, file, 0, UINT64_MAX, &err) : NULL;

    lk_file_unref(file);
    return give(L, box, stream, &err);
}

static int is_stream(lua_State *L)
{
    lua_pushboolean(L, lk_is_stream(L, 1));
    return 1;
}

/* Other modules make streams too, perhaps before this one was asked for. */
static void open_classes(lua_State *L)
{
    static const luaL_Reg methods[] = {{"read", stream_read},
                                       {"read_all", stream_read_all},
                                       {"gzip", stream_gzip},
                                       {"gunzip", stream_gunzip},
                                       {"limit", stream_limit},
                                       {"discard", lk_sink_discard},
                                       {"hash", lk_sink_hash},
                                       {"to_file", lk_sink_to_file},
                                       {"to_stdout", lk_sink_to_stdout},
                                       {"parts", lk_stream_parts},
                                       {"state", stream_state},
                                       {"bytes", stream_bytes},
                                       {"raw_bytes", stream_raw_bytes},
                                       {"verify", lk_stream_verify_method},
                                       {"close", stream_close},
                                       {NULL, NULL}};
    static const luaL_Reg none[] = {{NULL, NULL}};

    if (luaL_getmetatable(L, LK_STREAM_CLASS) == LUA_TNIL) {
        lk_new_class(L, LK_STREAM_CLASS, methods, stream_close);
        lk_new_class(L, READ_CLASS, none, read_gc);
        lk_open_sinks(L);
        lk_open_parts(L);
        lk_open_gather(L);
        lk_open_pipe(L);
    }
    lua_pop(L, 1);
}

int lk_open_stream(lua_State *L)
{
    static const luaL_Reg functions[] = {{"of", source_of},        {"file", source_file},
                                         {"is_stream", is_stream}, {"gather", lk_stream_gather},
                                         {"pipe", lk_stream_pipe}, {NULL, NULL}};

    open_classes(L);
    luaL_newlib(L, functions);
    return 1;
}
