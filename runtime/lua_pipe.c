/* SPDX-License-Identifier: MIT
 * lua_pipe.c - stream.pipe of scripts: a stream whose bytes are parts and strings that a task
 * writes, so that what was fetched in pieces, with retries, is one stream again. Owns the
 * producer's side. Loop thread only. */
#include "lua_stream.h"

#include "part.h"
#include <lauxlib.h>
#include <string.h>

#define WRITER_CLASS "lunark.stream.writer"
#define WRITE_CLASS "lunark.stream.write"
enum { DEPTH = 4 };
#define PIECE ((size_t)256 << 10)

struct write_op;

struct writer_box {
    struct lk_stream *stream; /* NULL: ended */
    struct write_op *writing;
};

struct write_op {
    struct lk_op op;
    struct writer_box *box; /* anchored by the user value; NULL when it is over */
    struct lk_part *part;   /* or */
    const char *text;       /* anchored, too */
    size_t at, len;
    struct lk_chunk *chunk; /* what did not fit yet */
    int rc;
    struct lk_error err;
};

static void finish_write(struct write_op *write, int rc)
{
    struct writer_box *box = write->box;

    write->rc = rc;
    write->box = NULL;
    box->writing = NULL;
    lk_chunk_unref(write->chunk);
    write->chunk = NULL;
    if (box->stream)
        lk_stream_on_space(box->stream, write->op.runtime->loop, NULL, NULL);
    lk_op_done(&write->op);
}

/* The next piece as a chunk; 0 at the end. */
static int next_chunk(struct write_op *write)
{
    size_t len = write->len - write->at < PIECE ? write->len - write->at : PIECE;
    if (write->chunk || len == 0)
        return write->chunk != NULL;
    write->chunk = lk_chunk_alloc(len, &write->err);
    if (!write->chunk)
        return -1;
    if (!write->part)
        memcpy(write->chunk->data, write->text + write->at, len);
    else if (lk_part_read(write->part, write->at, write->chunk->data, len, &write->err) < 0)
        return -1;
    write->chunk->len = write->chunk->raw_len = len;
    write->at += len;
    return 1;
}

static void go_on(void *arg)
{
    struct write_op *write = arg;
    int rc;

    if (!write->box)
        return;
    while ((rc = next_chunk(write)) > 0) {
        rc = lk_stream_try_write(write->box->stream, write->chunk, &write->err);
        if (rc == LK_STREAM_AGAIN)
            return;
        write->chunk = NULL;
        if (rc < 0)
            break;
    }
    finish_write(write, rc);
}

static void cancel_write(struct lk_op *op)
{
    struct write_op *write = (struct write_op *)op;

    if (write->box) {
        lk_error_set(&write->err, LK_CANCELLED, "the write was cancelled");
        finish_write(write, -1);
    }
}

static int write_results(lua_State *L, struct lk_op *op)
{
    struct write_op *write = (struct write_op *)op;

    if (write->rc < 0)
        return lk_push_error(L, &write->err);
    lua_pushboolean(L, 1);
    return 1;
}

static int write_gc(lua_State *L)
{
    struct write_op *write = lua_touserdata(L, 1);

    lk_chunk_unref(write->chunk);
    write->chunk = NULL;
    lk_part_unref(write->part);
    write->part = NULL;
    return 0;
}

static struct writer_box *check_writer(lua_State *L, const char *function)
{
    struct writer_box *box = luaL_checkudata(L, 1, WRITER_CLASS);
    if (!box->stream)
        lk_misuse(L, function, "the writer is closed");
    if (box->writing)
        lk_misuse(L, function, "another task is writing");
    return box;
}

static int writer_write(lua_State *L)
{
    struct writer_box *box = check_writer(L, "writer:write");
    lua_settop(L, 2);
    struct write_op *write = lua_newuserdatauv(L, sizeof *write, 2);
    memset(write, 0, sizeof *write);
    luaL_setmetatable(L, WRITE_CLASS);
    if (lua_type(L, 2) == LUA_TSTRING) {
        write->text = lua_tolstring(L, 2, &write->len);
    } else if ((write->part = lk_ref_part(L, 2, "writer:write"))) {
        write->len = write->part->size;
    } else {
        lk_misuse(L, "writer:write", "a string or a part expected, got %s", luaL_typename(L, 2));
    }
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, 3, 1);
    lua_pushvalue(L, 2);
    lua_setiuservalue(L, 3, 2);
    lk_task_parkable(L);
    write->op.cancel = cancel_write;
    write->op.results = write_results;
    write->op.runtime = lk_runtime_of(L);
    write->box = box;
    box->writing = write;
    lk_stream_on_space(box->stream, write->op.runtime->loop, go_on, write);
    go_on(write);
    return lk_task_park(L, 3, &write->op);
}

static void end_stream(struct writer_box *box, const struct lk_error *err)
{
    lk_stream_end(box->stream, err);
    lk_stream_unref(box->stream);
    box->stream = NULL;
}

/* The first end counts. An error also ends a write that waits. */
static int writer_finish(lua_State *L)
{
    struct writer_box *box = luaL_checkudata(L, 1, WRITER_CLASS);
    struct lk_error err;
    bool failed = !lua_isnoneornil(L, 2);

    if (!box->stream)
        return 0;
    if (!failed)
        check_writer(L, "writer:finish");
    else
        lk_error_of_value(L, 2, &err);
    if (box->writing) {
        box->writing->err = err;
        finish_write(box->writing, -1);
    }
    end_stream(box, failed ? &err : NULL);
    return 0;
}

static int writer_close(lua_State *L)
{
    struct writer_box *box = luaL_checkudata(L, 1, WRITER_CLASS);
    struct lk_error err;

    if (!box->stream)
        return 0;
    lk_error_set(&err, LK_CANCELLED, "the stream's writer was closed before its end");
    if (box->writing) {
        box->writing->err = err;
        finish_write(box->writing, -1);
    }
    end_stream(box, &err);
    return 0;
}

void lk_open_pipe(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"write", writer_write}, {"finish", writer_finish}, {"close", writer_close}, {NULL, NULL}};
    static const luaL_Reg none[] = {{NULL, NULL}};

    lk_new_class(L, WRITER_CLASS, methods, writer_close);
    lk_new_class(L, WRITE_CLASS, none, write_gc);
}

int lk_stream_pipe(lua_State *L)
{
    struct lk_error err;

    struct lk_stream **stream = lk_push_stream_box(L);
    struct writer_box *box = lua_newuserdatauv(L, sizeof *box, 0);
    *box = (struct writer_box){.stream = NULL};
    luaL_setmetatable(L, WRITER_CLASS);
    *stream = lk_stream_new(DEPTH, &err);
    if (!*stream)
        return lk_push_error(L, &err);
    box->stream = *stream; /* two references: one each */
    return 2;
}
