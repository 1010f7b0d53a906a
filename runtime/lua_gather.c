/* SPDX-License-Identifier: MIT
 * lua_gather.c - stream.gather of scripts: one stream out of streams that are read at once.
 * Owns the gather; each take owns the stream that it reads. Loop thread only. */
#include "gather.h"
#include "lua_stream.h"
#include <lauxlib.h>
#include <string.h>

#define GATHER_CLASS "lunark.gather"
#define WAIT_CLASS "lunark.gather.wait"

struct wait;

struct box {
    struct lk_gather *gather;
    struct lk_loop *loop;
    struct wait *waits; /* for their turn */
};

/* A task that waits for room, or for a stream to be taken in. */
struct wait {
    struct lk_op op; /* first */
    struct box *box; /* NULL when it is over */
    struct wait *next;
    uint64_t number, bytes, most;
    struct lk_stream *stream; /* NULL: it waits for room */
    int rc;
    struct lk_error err;
};

static void finish(struct wait *wait, int rc)
{
    struct box *box = wait->box;
    if (!box)
        return;
    wait->box = NULL;
    wait->rc = rc;
    for (struct wait **at = &box->waits; *at; at = &(*at)->next)
        if (*at == wait) {
            *at = wait->next;
            break;
        }
    if (wait->stream) {
        lk_stream_on_ready(wait->stream, box->loop, NULL, NULL);
        lk_stream_cancel(wait->stream);
        lk_stream_unref(wait->stream);
        wait->stream = NULL;
    }
    lk_op_done(&wait->op);
}

static void moved(void *arg)
{
    struct box *box = arg;
    for (struct wait *wait = box->waits, *next; wait; wait = next) {
        next = wait->next;
        int room = lk_gather_room(box->gather, wait->number, &wait->err);
        if (room < 0 || (room && !wait->stream))
            finish(wait, room);
    }
}

static void cancel(struct lk_op *op)
{
    struct wait *wait = (struct wait *)op;
    if (!wait->box)
        return;
    lk_error_set(&wait->err, LK_CANCELLED, "the wait was cancelled");
    finish(wait, -1);
}

/* Stack: the gather at 1; leaves the wait at the top. */
static struct wait *push_wait(lua_State *L, lua_Integer number)
{
    struct wait *wait = lua_newuserdatauv(L, sizeof *wait, 1);
    memset(wait, 0, sizeof *wait);
    luaL_setmetatable(L, WAIT_CLASS);
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, -2, 1); /* the gather lives as long */
    wait->op.cancel = cancel;
    wait->number = (uint64_t)number;
    lk_task_parkable(L);
    return wait;
}

static void enter(struct box *box, struct wait *wait)
{
    wait->box = box;
    wait->next = box->waits;
    box->waits = wait;
}

static struct box *check_box(lua_State *L, const char *function)
{
    struct box *box = luaL_checkudata(L, 1, GATHER_CLASS);
    if (!box->gather)
        lk_misuse(L, function, "the gather is closed");
    return box;
}

static lua_Integer check_number(lua_State *L, const char *function)
{
    lua_Integer number = luaL_checkinteger(L, 2);
    if (number < 0)
        lk_misuse(L, function, "pieces are numbered from 0, got %d", (int)number);
    return number;
}

/* --- room --- */

static int room_results(lua_State *L, struct lk_op *op)
{
    struct wait *wait = (struct wait *)op;
    if (wait->rc < 0)
        return lk_push_error(L, &wait->err);
    lua_pushboolean(L, 1);
    return 1;
}

static int gather_room(lua_State *L)
{
    struct box *box = check_box(L, "gather.room");
    struct wait *wait = push_wait(L, check_number(L, "gather.room"));
    wait->op.results = room_results;
    wait->rc = lk_gather_room(box->gather, wait->number, &wait->err);
    if (wait->rc == 0)
        enter(box, wait);
    else
        lk_op_done(&wait->op);
    return lk_task_park(L, lua_gettop(L), &wait->op);
}

/* --- take --- */

static void take_on(void *arg)
{
    struct wait *wait = arg;
    struct lk_chunk *chunk;
    int rc = LK_STREAM_DATA;
    while (wait->box && rc == LK_STREAM_DATA) {
        rc = lk_stream_try_read(wait->stream, &chunk, &wait->err);
        if (rc != LK_STREAM_DATA)
            break;
        if (chunk->len > wait->most - wait->bytes) {
            lk_chunk_unref(chunk);
            rc =
                lk_error_set(&wait->err, LK_IO, "more than the %llu bytes that were asked for came",
                             (unsigned long long)wait->most);
            break;
        }
        size_t len = chunk->len;
        /* This may end the wait: the reader has cancelled. */
        if (lk_gather_put(wait->box->gather, wait->number, chunk, &wait->err))
            rc = -1;
        else
            wait->bytes += len;
    }
    if (wait->box && rc != LK_STREAM_AGAIN)
        finish(wait, rc);
}

static int take_results(lua_State *L, struct lk_op *op)
{
    struct wait *wait = (struct wait *)op;
    lua_settop(L, 0);
    if (wait->rc < 0) {
        lk_push_error(L, &wait->err);
    } else {
        lua_pushboolean(L, 1);
        lua_pushnil(L);
    }
    lua_pushinteger(L, (lua_Integer)wait->bytes);
    return 3;
}

static int gather_take(lua_State *L)
{
    struct box *box = check_box(L, "gather.take");
    lua_Integer number = check_number(L, "gather.take");
    lua_Integer most = luaL_checkinteger(L, 4);
    struct lk_error err;
    if (lk_gather_room(box->gather, (uint64_t)number, &err) == 0)
        lk_misuse(L, "gather.take", "it is not the turn of piece %d yet", (int)number);
    struct wait *wait = push_wait(L, number);
    wait->op.results = take_results;
    wait->most = most > 0 ? (uint64_t)most : 0;
    wait->stream = lk_take_stream(L, 3, "gather.take");
    enter(box, wait);
    lk_stream_on_ready(wait->stream, box->loop, take_on, wait);
    take_on(wait);
    return lk_task_park(L, lua_gettop(L), &wait->op);
}

/* --- the rest --- */

static int gather_done(lua_State *L)
{
    struct box *box = check_box(L, "gather.done");
    lk_gather_done(box->gather, (uint64_t)check_number(L, "gather.done"));
    return 0;
}

static int gather_finish(lua_State *L)
{
    lk_gather_end(check_box(L, "gather.finish")->gather, NULL);
    return 0;
}

static int gather_fail(lua_State *L)
{
    struct box *box = check_box(L, "gather.fail");
    struct lk_error err;
    luaL_checkany(L, 2);
    lk_error_of_value(L, 2, &err);
    lk_gather_end(box->gather, &err);
    return 0;
}

static int gather_stream(lua_State *L)
{
    struct box *box = check_box(L, "gather.stream");
    struct lk_stream **stream = lk_push_stream_box(L);
    *stream = lk_gather_stream(box->gather);
    if (!*stream)
        lk_misuse(L, "gather.stream", "the stream was taken already");
    return 1;
}

static int gather_close(lua_State *L)
{
    struct box *box = luaL_checkudata(L, 1, GATHER_CLASS);
    while (box->waits) {
        struct wait *wait = box->waits;
        lk_error_set(&wait->err, LK_CANCELLED, "the gather was closed");
        finish(wait, -1);
    }
    lk_gather_free(box->gather);
    box->gather = NULL;
    return 0;
}

int lk_stream_gather(lua_State *L)
{
    struct lk_runtime *runtime = lk_runtime_of(L);
    struct lk_error err;
    lua_Integer width = luaL_checkinteger(L, 1);
    if (width < 1 || width > 1024)
        return lk_misuse(L, "stream.gather", "a width from 1 to 1024 expected");
    struct box *box = lua_newuserdatauv(L, sizeof *box, 0);
    *box = (struct box){.loop = runtime->loop};
    luaL_setmetatable(L, GATHER_CLASS);
    box->gather = lk_gather_new(runtime->loop, (size_t)width, moved, box, &err);
    return box->gather ? 1 : lk_push_error(L, &err);
}

void lk_open_gather(lua_State *L)
{
    static const luaL_Reg methods[] = {{"room", gather_room},   {"take", gather_take},
                                       {"done", gather_done},   {"finish", gather_finish},
                                       {"fail", gather_fail},   {"stream", gather_stream},
                                       {"close", gather_close}, {NULL, NULL}};
    static const luaL_Reg none[] = {{NULL, NULL}};
    lk_new_class(L, GATHER_CLASS, methods, gather_close);
    lk_new_class(L, WAIT_CLASS, none, NULL);
}
