/* SPDX-License-Identifier: MIT
 * lua_check_work.c - the parts of lunark.core.check that block, on a stage thread that a task waits
 * for: reading a tar to its end, comparing restored files with a block of the index. Loop thread
 * only, but for the work. */
#include "lua_check.h"

#include "caps.h"
#include "compare.h"
#include "lua_stream.h"
#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

#define TAR_CLASS "lunark.check.tar"
#define COMPARE_CLASS "lunark.check.compare"

/* --- what differs --- */

struct difference {
    struct difference *next;
    size_t path_len;
    char *message; /* behind the path */
    char path[];
};

struct differences {
    struct lk_compare_found found;
    struct difference *first, **last;
    bool no_memory;
};

static void keep_difference(void *arg, const char *path, size_t len, const char *message)
{
    struct differences *all = arg;
    size_t message_len = strlen(message);
    struct difference *d = malloc(sizeof *d + len + message_len + 1);

    if (!d) {
        all->no_memory = true;
        return;
    }
    d->next = NULL;
    d->path_len = len;
    d->message = d->path + len;
    memcpy(d->path, path, len);
    memcpy(d->message, message, message_len + 1);
    *all->last = d;
    all->last = &d->next;
}

static void differences_init(struct differences *all)
{
    all->last = &all->first;
    all->found.differs = keep_difference;
    all->found.arg = all;
}

static void differences_free(struct differences *all)
{
    while (all->first) {
        struct difference *next = all->first->next;
        free(all->first);
        all->first = next;
    }
}

static void check_memory(struct lk_stage_op *stage, const struct differences *all)
{
    if (stage->rc == 0 && all->no_memory)
        stage->rc = lk_error_set(&stage->err, LK_MEMORY, "no memory for what differs");
}

static int push_differences(lua_State *L, const struct differences *all)
{
    lua_Integer n = 0;

    lua_createtable(L, 0, 4);
    lk_set_integer(L, "entries", all->found.entries);
    lk_set_integer(L, "files", all->found.files);
    lk_set_integer(L, "unchecked", all->found.unchecked);
    lua_newtable(L); /* result findings */
    for (const struct difference *d = all->first; d; d = d->next) {
        lua_createtable(L, 0, 2);
        lua_pushlstring(L, d->path, d->path_len);
        lua_setfield(L, -2, "path");
        lua_pushstring(L, d->message);
        lua_setfield(L, -2, "message");
        lua_rawseti(L, -2, ++n);
    }
    lua_setfield(L, -2, "findings");
    return 1;
}

/* --- tar --- */

struct tar {
    struct lk_stage_op stage;
    struct lk_pool *pool;
    struct lk_stream *stream, *cancelled; /* the work's own; and ours, to cancel it */
    const char *directory;                /* anchored by the user value; NULL = only read */
    int in_flight;
    struct differences differences;
};

static void tar_work(struct lk_stage_op *stage)
{
    struct tar *tar = (struct tar *)stage;

    stage->rc = lk_compare_tar(tar->pool, tar->directory, tar->stream, tar->in_flight,
                               &tar->differences.found, &stage->err);
    tar->stream = NULL;
    check_memory(stage, &tar->differences);
}

static void tar_drop(struct tar *tar)
{
    lk_stream_unref(tar->cancelled);
    tar->cancelled = NULL;
}

static void tar_finish(struct lk_stage_op *stage)
{
    struct tar *tar = (struct tar *)stage;

    if (tar->stream) { /* it was never started */
        lk_stream_cancel(tar->stream);
        lk_stream_unref(tar->stream);
        tar->stream = NULL;
    }
    tar_drop(tar);
}

static void tar_cancel(struct lk_op *op)
{
    struct tar *tar = (struct tar *)op;

    if (tar->cancelled)
        lk_stream_cancel(tar->cancelled);
}

static int tar_results(lua_State *L, struct lk_op *op)
{
    struct tar *tar = (struct tar *)op;

    if (tar->stage.rc < 0)
        return lk_push_error(L, &tar->stage.err);
    return push_differences(L, &tar->differences);
}

static int tar_gc(lua_State *L)
{
    struct tar *tar = lua_touserdata(L, 1);

    if (!tar->stage.running) {
        tar_drop(tar);
        differences_free(&tar->differences);
    }
    return 0;
}

int lk_check_tar(lua_State *L)
{
    struct lk_runtime *runtime = lk_runtime_of(L);

    struct lk_error err;

    lk_check_stream(L, "check.tar", false);
    lua_settop(L, 2);
    const char *directory = lua_isnil(L, 2) ? NULL : lk_check_path(L, 2, "check.tar");
    if (directory && lk_caps_check(runtime->caps, LK_CAP_WRITE, directory, &err))
        return lk_push_error(L, &err);
    struct tar *tar = lua_newuserdatauv(L, sizeof *tar, 1);
    memset(tar, 0, sizeof *tar);
    differences_init(&tar->differences);
    luaL_setmetatable(L, TAR_CLASS);
    lua_pushvalue(L, 2);
    lua_setiuservalue(L, -2, 1);
    tar->directory = directory;
    tar->pool = runtime->pool;
    tar->in_flight = lk_gzip_in_flight(runtime->memory, runtime->jobs);
    tar->stage.work = tar_work;
    tar->stage.finish = tar_finish;
    tar->stage.op.cancel = tar_cancel;
    tar->stage.op.results = tar_results;
    lk_task_parkable(L);
    tar->stream = lk_take_stream(L, 1, "check.tar");
    tar->cancelled = lk_stream_ref(tar->stream);
    return lk_stage_park(L, lua_gettop(L), &tar->stage);
}

/* --- compare --- */

struct compare {
    struct lk_stage_op stage;
    const char *directory, *bytes; /* anchored by user values */
    size_t len;
    struct differences differences;
};

static void compare_work(struct lk_stage_op *stage)
{
    struct compare *compare = (struct compare *)stage;

    stage->rc = lk_compare_block(compare->directory, compare->bytes, compare->len,
                                 &compare->differences.found, &stage->err);
    check_memory(stage, &compare->differences);
}

static int compare_results(lua_State *L, struct lk_op *op)
{
    struct compare *compare = (struct compare *)op;

    if (compare->stage.rc < 0)
        return lk_push_error(L, &compare->stage.err);
    return push_differences(L, &compare->differences);
}

static int compare_gc(lua_State *L)
{
    struct compare *compare = lua_touserdata(L, 1);

    differences_free(&compare->differences);
    return 0;
}

int lk_check_compare(lua_State *L)
{
    struct lk_error err;
    size_t len;
    const char *directory = lk_check_path(L, 1, "check.compare");
    const char *bytes = luaL_checklstring(L, 2, &len);

    if (lk_caps_check(lk_runtime_of(L)->caps, LK_CAP_WRITE, directory, &err))
        return lk_push_error(L, &err);
    struct compare *compare = lua_newuserdatauv(L, sizeof *compare, 2);
    memset(compare, 0, sizeof *compare);
    differences_init(&compare->differences);
    luaL_setmetatable(L, COMPARE_CLASS);
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, -2, 1);
    lua_pushvalue(L, 2);
    lua_setiuservalue(L, -2, 2);
    compare->directory = directory;
    compare->bytes = bytes;
    compare->len = len;
    compare->stage.work = compare_work;
    compare->stage.op.cancel = lk_stage_wait;
    compare->stage.op.results = compare_results;
    lk_task_parkable(L);
    return lk_stage_park(L, lua_gettop(L), &compare->stage);
}

void lk_open_check_work(lua_State *L)
{
    static const luaL_Reg none[] = {{NULL, NULL}};

    lk_new_class(L, TAR_CLASS, none, tar_gc);
    lk_new_class(L, COMPARE_CLASS, none, compare_gc);
}
