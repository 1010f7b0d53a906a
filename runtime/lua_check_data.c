/* SPDX-License-Identifier: MIT
 * lua_check_data.c - lunark.core.check's data: a Check reads an archive and says what is damaged.
 * The handle owns a reference to the check, whose threads tell it through an event. Loop thread
 * only, but for `news`. */
#include "lua_check.h"

#include "check.h"
#include "lua_stream.h"
#include <lauxlib.h>

#define CHECK_CLASS "lunark.check"

struct handle {
    struct lk_op op;       /* first: the task layer gives it back */
    struct lk_event event; /* posted by the check's threads, once for each wait */
    struct lk_loop *loop;
    struct lk_check *check;
    int answer;   /* of lk_check_ask */
    bool waiting; /* a task does */
};

static struct handle *check_handle(lua_State *L, const char *function)
{
    struct handle *handle = luaL_checkudata(L, 1, CHECK_CLASS);
    if (!handle->check)
        lk_misuse(L, function, "the check is closed");
    return handle;
}

/* --- start --- */

static void news(void *arg)
{
    struct handle *handle = arg;
    lk_loop_post(handle->loop, &handle->event);
}

static void delivered(struct lk_event *event)
{
    struct handle *handle = (struct handle *)((char *)event - offsetof(struct handle, event));
    handle->answer = lk_check_ask(handle->check);
    /* It was told of one thing, and another has come true meanwhile: then it is asked again. */
    if (handle->answer != 0) {
        handle->waiting = false;
        lk_op_done(&handle->op);
    }
}

static void cancel(struct lk_op *op)
{
    lk_check_cancel(((struct handle *)op)->check);
}

static int results(lua_State *L, struct lk_op *op);

int lk_check_data(lua_State *L)
{
    static const char *const keys[] = {"at", "tar", "sample", "tolerant", "hash", "jobs", NULL};
    struct lk_runtime *runtime = lk_runtime_of(L);
    struct lk_error err;
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_settop(L, 2);
    lk_check_keys(L, 2, "check.data", keys);
    int jobs = (int)lk_opt_integer(L, 2, "jobs", 1, 1024, runtime->jobs);
    struct lk_check_options options = {
        .at = (uint64_t)lk_opt_integer(L, 2, "at", 0, LUA_MAXINTEGER, 0),
        .tar = lk_opt_boolean(L, 2, "tar", false),
        .sample = lk_opt_boolean(L, 2, "sample", false),
        .tolerant = lk_opt_boolean(L, 2, "tolerant", false),
        .hash = lk_opt_boolean(L, 2, "hash", false),
        .in_flight = lk_gzip_in_flight(runtime->memory, jobs)};
    struct handle *handle = lua_newuserdatauv(L, sizeof *handle, 0);
    *handle = (struct handle){.op = {.cancel = cancel, .results = results},
                              .event = {.run = delivered},
                              .loop = runtime->loop};
    luaL_setmetatable(L, CHECK_CLASS);
    struct lk_stream *input = lk_take_stream(L, 1, "check.data");
    handle->check = lk_check_new(runtime->pool, input, &options, news, handle, &err);
    return handle->check ? 1 : lk_push_error(L, &err);
}

/* --- Check --- */

static int check_block(lua_State *L)
{
    struct handle *handle = check_handle(L, "check:block");
    struct lk_error err;
    size_t len;
    const char *bytes = luaL_checklstring(L, 2, &len);
    lua_Integer at = luaL_checkinteger(L, 3), first = luaL_optinteger(L, 4, 0);
    lua_Integer rows = luaL_optinteger(L, 5, 0);
    if (at < 0 || first < 0 || rows < 0 || first > UINT32_MAX || rows > UINT32_MAX)
        lk_misuse(L, "check:block", "an offset and a range of rows expected");
    if (lk_check_block(handle->check, bytes, len, (uint64_t)at, (uint32_t)first, (uint32_t)rows,
                       &err))
        return lk_push_error(L, &err);
    lua_pushboolean(L, true);
    return 1;
}

static int check_walk(lua_State *L)
{
    struct handle *handle = check_handle(L, "check:walk");
    struct lk_error err;
    lua_Integer until = luaL_checkinteger(L, 2);
    if (lk_check_walk(handle->check, (uint64_t)until, &err))
        return lk_push_error(L, &err);
    lua_pushboolean(L, true);
    return 1;
}

static int check_finish(lua_State *L)
{
    lk_check_finish(check_handle(L, "check:finish")->check);
    return 0;
}

static void push_findings(lua_State *L, const struct lk_check_stats *stats)
{
    lua_Integer n = 0;
    lua_newtable(L); /* result findings */
    for (const struct lk_finding *finding = stats->findings; finding; finding = finding->next) {
        lua_createtable(L, 0, 4); /* result findings finding */
        lk_set_integer(L, "first", finding->first);
        lk_set_integer(L, "last", finding->last);
        lua_pushstring(L, finding->message);
        lua_setfield(L, -2, "message");
        if (finding->is_file) {
            lua_pushlstring(L, finding->path, finding->path_len);
            lua_setfield(L, -2, "path");
        }
        lua_rawseti(L, -2, ++n);
    }
    lua_setfield(L, -2, "findings");
}

static void push_stats(lua_State *L, const struct lk_check_stats *stats)
{
    char hex[65];
    lua_createtable(L, 0, 9);
    lk_set_integer(L, "bytes", stats->bytes);
    lk_set_integer(L, "members", stats->members);
    lk_set_integer(L, "raw", stats->raw);
    lk_set_integer(L, "files", stats->files);
    lk_set_integer(L, "entries", stats->entries);
    lk_set_integer(L, "unchecked", stats->unchecked);
    lk_set_integer(L, "finding_count", stats->finding_count);
    if (stats->hashed) {
        lk_hex(stats->sha256, sizeof stats->sha256, hex);
        lua_pushstring(L, hex);
        lua_setfield(L, -2, "sha256");
    }
    push_findings(L, stats);
}

static int results(lua_State *L, struct lk_op *op)
{
    struct handle *handle = (struct handle *)op;
    struct lk_check_stats *stats;
    struct lk_error err;
    if (handle->answer == LK_CHECK_MORE) {
        lua_pushliteral(L, "more");
        return 1;
    }
    if (lk_check_result(handle->check, &stats, &err))
        return lk_push_error(L, &err);
    push_stats(L, stats);
    return 1;
}

static int check_wait(lua_State *L)
{
    struct handle *handle = check_handle(L, "check:wait");
    lua_settop(L, 1);
    lk_task_parkable(L);
    handle->answer = lk_check_ask(handle->check);
    if (handle->answer != 0)
        return results(L, &handle->op);
    handle->waiting = true;
    return lk_task_park(L, 1, &handle->op);
}

static int check_progress(lua_State *L)
{
    uint64_t bytes, files;
    lk_check_progress(check_handle(L, "check:progress")->check, &bytes, &files);
    lua_createtable(L, 0, 2);
    lk_set_integer(L, "bytes", bytes);
    lk_set_integer(L, "files", files);
    return 1;
}

static int check_gc(lua_State *L)
{
    struct handle *handle = luaL_checkudata(L, 1, CHECK_CLASS);
    if (handle->check) {
        lk_check_unref(handle->check);
        lk_loop_unpost(handle->loop, &handle->event);
        handle->check = NULL;
    }
    return 0;
}

/* A task that waits is told so first. Else the memory is given back at once: it is much. */
static int check_close(lua_State *L)
{
    struct handle *handle = luaL_checkudata(L, 1, CHECK_CLASS);
    if (!handle->waiting)
        return check_gc(L);
    if (handle->check)
        lk_check_cancel(handle->check);
    return 0;
}

void lk_open_check_data(lua_State *L)
{
    static const luaL_Reg methods[] = {{"block", check_block},
                                       {"walk", check_walk},
                                       {"finish", check_finish},
                                       {"wait", check_wait},
                                       {"progress", check_progress},
                                       {"close", check_close},
                                       {NULL, NULL}};
    lk_new_class(L, CHECK_CLASS, methods, check_gc);
    luaL_getmetatable(L, CHECK_CLASS);
    lua_pushcfunction(L, check_close);
    lua_setfield(L, -2, "__close");
    lua_pop(L, 1);
}
