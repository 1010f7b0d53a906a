/* SPDX-License-Identifier: MIT
 * lua_parts.c - Parts and Part: a stream cut for uploads, as handles.
 * Owns the cutter and one reference for each Part. Bytes become a string only in part:string. Loop
 * thread only. */
#include "lua_stream.h"

#include "part.h"
#include <lauxlib.h>
#include <string.h>

#define PARTS_CLASS "lunark.parts"
#define PART_CLASS "lunark.part"
#define NEXT_CLASS "lunark.parts.next"

enum { MIN_WIDTH = 1, MAX_WIDTH = 1024 };

struct parts_box {
    struct lk_parts *parts; /* NULL: closed */
    struct next_op *waiting;
    unsigned totals;
    uint64_t bytes; /* once closed */
    bool ended;
};

struct part_box {
    struct lk_part *part; /* NULL: closed */
};

/* --- Part --- */

static struct part_box *push_part(lua_State *L)
{
    struct part_box *box = lua_newuserdatauv(L, sizeof(*box), 0);

    box->part = NULL;
    luaL_setmetatable(L, PART_CLASS);
    return box;
}

static struct lk_part *check_part(lua_State *L, int index, const char *function)
{
    struct part_box *box = luaL_testudata(L, index, PART_CLASS);

    if (!box) {
        lk_misuse(L, function, "expected a part, got %s", luaL_typename(L, index));
    } else if (!box->part) {
        lk_misuse(L, function, "the part is closed");
    }
    return box ? box->part : NULL;
}

struct lk_part *lk_ref_part(lua_State *L, int index, const char *function)
{
    struct part_box *box = luaL_testudata(L, index, PART_CLASS);

    return box ? lk_part_ref(check_part(L, index, function)) : NULL;
}

static int part_string(lua_State *L)
{
    struct lk_part *part = check_part(L, 1, "part.string");
    lua_Integer first = luaL_optinteger(L, 2, 0), most = luaL_optinteger(L, 3, LUA_MAXINTEGER);
    struct lk_error err;
    luaL_Buffer buffer;

    if (first < 0 || most < 0)
        lk_misuse(L, "part.string", "an offset and a length from 0 expected");
    size_t from = (lua_Unsigned)first < part->size ? (size_t)first : part->size;
    size_t len = part->size - from;
    len = (lua_Unsigned)most < len ? (size_t)most : len;
    char *to = luaL_buffinitsize(L, &buffer, len);
    size_t got = 0;
    while (got < len) {
        ssize_t n = lk_part_read(part, from + got, to + got, len - got, &err);
        if (n < 0) {
            return lk_push_error(L, &err);
        }
        if (n == 0) {
            break;
        }
        got += (size_t)n;
    }
    luaL_pushresultsize(&buffer, got);
    return 1;
}

static int part_ref(lua_State *L)
{
    struct lk_part *part = check_part(L, 1, "part.ref");

    push_part(L)->part = lk_part_ref(part);
    return 1;
}

static int part_close(lua_State *L)
{
    struct part_box *box = luaL_checkudata(L, 1, PART_CLASS);
    struct lk_part *part = box->part;

    box->part = NULL;
    lk_part_unref(part);
    return 0;
}

/* Fields of a live part, then methods (upvalue 1). */
static int part_index(lua_State *L)
{
    struct part_box *box = luaL_checkudata(L, 1, PART_CLASS);
    const char *key = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "";

    lua_pushvalue(L, 2);
    if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL) {
        return 1;
    }
    struct lk_part *part = box->part;
    if (!part) {
        return lk_misuse(L, "part", "the part is closed");
    }
    if (!strcmp(key, "number")) {
        lua_pushinteger(L, part->number);
    } else if (!strcmp(key, "offset")) {
        lua_pushinteger(L, (lua_Integer)part->offset);
    } else if (!strcmp(key, "size")) {
        lua_pushinteger(L, (lua_Integer)part->size);
    } else if (!strcmp(key, "last")) {
        lua_pushboolean(L, part->last);
    } else if (!strcmp(key, "hash")) {
        lk_push_digests(L, part->hashes, (const unsigned char(*)[LK_DIGEST_MAX])part->hash);
    } else {
        lua_pushnil(L);
    }
    return 1;
}

/* --- Parts --- */

struct next_op {
    struct lk_op op;
    struct parts_box *box;
    struct lk_part *part;
    int rc;
    struct lk_error err;
};

static void finish_next(struct next_op *next, int rc)
{
    next->rc = rc;
    next->box->waiting = NULL;
    next->box = NULL;
    lk_op_done(&next->op);
}

static void look(struct next_op *next)
{
    int rc = lk_parts_next(next->box->parts, &next->part, &next->err);

    if (rc != LK_STREAM_AGAIN) {
        next->box->ended = rc == LK_STREAM_DONE;
        finish_next(next, rc);
    }
}

static void news(void *arg)
{
    struct parts_box *box = arg;

    if (box->waiting && box->parts) {
        look(box->waiting);
    }
}

static void cancel_next(struct lk_op *op)
{
    struct next_op *next = (struct next_op *)op;

    if (next->box) {
        lk_error_set(&next->err, LK_CANCELLED, "the wait for a part was cancelled");
        finish_next(next, -1);
    }
}

static int next_results(lua_State *L, struct lk_op *op)
{
    struct next_op *next = (struct next_op *)op;

    if (next->rc < 0) {
        return lk_push_error(L, &next->err);
    }
    if (next->rc == LK_STREAM_DONE) {
        lua_pushnil(L);
        return 1;
    }
    push_part(L)->part = next->part;
    next->part = NULL;
    return 1;
}

static int next_gc(lua_State *L)
{
    struct next_op *next = lua_touserdata(L, 1);

    if (next->part) {
        lk_part_unref(next->part);
        next->part = NULL;
    }
    return 0;
}

static struct parts_box *check_parts(lua_State *L, const char *function)
{
    struct parts_box *box = luaL_testudata(L, 1, PARTS_CLASS);

    if (!box) {
        lk_misuse(L, function, "expected parts, got %s", luaL_typename(L, 1));
    }
    return box;
}

static int parts_next(lua_State *L)
{
    struct parts_box *box = check_parts(L, "parts.next");

    if (!box->parts) {
        return lk_misuse(L, "parts.next", "the parts are closed");
    }
    if (box->waiting) {
        return lk_misuse(L, "parts.next", "another task is waiting for a part");
    }
    lua_settop(L, 1);
    struct next_op *next = lua_newuserdatauv(L, sizeof(*next), 1);
    memset(next, 0, sizeof(*next));
    luaL_setmetatable(L, NEXT_CLASS);
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, 2, 1);
    lk_task_parkable(L);
    next->op.cancel = cancel_next;
    next->op.results = next_results;
    next->box = box;
    box->waiting = next;
    look(next);
    return lk_task_park(L, 2, &next->op);
}

static int parts_bytes(lua_State *L)
{
    struct parts_box *box = check_parts(L, "parts.bytes");

    lua_pushinteger(L, (lua_Integer)(box->parts ? lk_parts_bytes(box->parts) : box->bytes));
    return 1;
}

static int parts_total(lua_State *L)
{
    struct parts_box *box = check_parts(L, "parts.total");
    char hex[LK_DIGEST_MAX * 2 + 1];

    if (!box->parts || !box->ended) {
        return lk_misuse(L, "parts.total", "the stream was not read to its whole end");
    }
    lua_newtable(L);
    for (int i = 0; i < LK_DIGEST_COUNT; i++) {
        const unsigned char *digest = lk_parts_total(box->parts, (enum lk_digest)i);
        if (box->totals & 1u << i && digest) {
            lk_hex(digest, lk_digest_size((enum lk_digest)i), hex);
            lua_pushstring(L, hex);
            lua_setfield(L, -2, lk_digest_name((enum lk_digest)i));
        }
    }
    return 1;
}

static int parts_close(lua_State *L)
{
    struct parts_box *box = check_parts(L, "parts.close");
    struct lk_parts *parts = box->parts;

    if (!parts) {
        return 0;
    }
    box->bytes = lk_parts_bytes(parts);
    box->parts = NULL;
    if (box->waiting) {
        lk_error_set(&box->waiting->err, LK_CANCELLED, "the parts were closed");
        finish_next(box->waiting, -1);
    }
    lk_parts_free(parts);
    return 0;
}

static unsigned digests_option(lua_State *L, int index, const char *key)
{
    lua_getfield(L, index, key);
    unsigned set = lk_check_digests(L, lua_gettop(L), "stream.parts");
    lua_pop(L, 1);
    return set;
}

int lk_stream_parts(lua_State *L)
{
    static const char *const keys[] = {"size", "width", "hash", "total", "spill_dir", NULL};
    struct lk_runtime *runtime = lk_runtime_of(L);
    struct lk_parts_options options = {0};
    struct lk_error err;

    lk_check_stream(L, "stream.parts", false);
    lua_settop(L, 2);
    lk_check_keys(L, 2, "stream.parts", keys);
    luaL_checktype(L, 2, LUA_TTABLE);
    options.size = (size_t)lk_opt_integer(L, 2, "size", 1, (lua_Integer)1 << 40, 8 << 20);
    options.width = (int)lk_opt_integer(L, 2, "width", MIN_WIDTH, MAX_WIDTH, 2);
    options.hashes = digests_option(L, 2, "hash");
    options.totals = digests_option(L, 2, "total");
    options.spill_dir = lk_opt_string(L, 2, "spill_dir", NULL);
    if (options.spill_dir &&
        lk_caps_check(runtime->caps, LK_CAP_WRITE, options.spill_dir, &err) < 0) {
        return lk_push_error(L, &err);
    }
    struct parts_box *box = lua_newuserdatauv(L, sizeof(*box), 0);
    memset(box, 0, sizeof(*box));
    luaL_setmetatable(L, PARTS_CLASS);
    box->totals = options.totals;
    struct lk_stream *input = lk_take_stream(L, 1, "stream.parts");
    box->parts = lk_parts_new(runtime->loop, runtime->pool, input, &options, news, box, &err);
    return box->parts ? 1 : lk_push_error(L, &err);
}

void lk_open_parts(lua_State *L)
{
    static const luaL_Reg parts[] = {{"next", parts_next},
                                     {"bytes", parts_bytes},
                                     {"total", parts_total},
                                     {"close", parts_close},
                                     {NULL, NULL}};
    static const luaL_Reg part[] = {
        {"string", part_string}, {"ref", part_ref}, {"close", part_close}, {NULL, NULL}};
    static const luaL_Reg none[] = {{NULL, NULL}};

    lk_new_class(L, PARTS_CLASS, parts, parts_close);
    lk_new_class(L, NEXT_CLASS, none, next_gc);
    lk_new_class(L, PART_CLASS, part, part_close);
    luaL_getmetatable(L, PART_CLASS);
    lua_getfield(L, -1, "__index");
    lua_pushcclosure(L, part_index, 1);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
}
