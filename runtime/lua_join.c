/* SPDX-License-Identifier: MIT
 * lua_join.c - tasks as scripts see them: spawn, join, cancel, self, live.
 * Owns the pending joins. Loop thread only. */
#include "lua_sched.h"
#include <lauxlib.h>
#include <string.h>

/* --- joining --- */

int lk_task_outcome(lua_State *L, struct lk_task *task)
{
    task->joined = true;
    if (task->lost) {
        struct lk_error err;
        lk_error_set(&err, LK_MEMORY, "out of memory for scripts");
        lua_pushboolean(L, 0);
        lk_push_error_table(L, &err);
        return 2;
    }
    lua_State *co = task->co;
    int n = lua_gettop(co);
    luaL_checkstack(L, n, "too many results");
    luaL_checkstack(co, n, "too many results");
    for (int i = 1; i <= n; i++)
        lua_pushvalue(co, i);
    lua_xmove(co, L, n);
    return n;
}

static void leave_join(struct join *join)
{
    struct join **place = &join->target->joins;
    while (*place != NULL && *place != join)
        place = &(*place)->next;
    if (*place != NULL)
        *place = join->next;
    join->next = NULL;
}

static void cancel_join(struct lk_op *op)
{
    leave_join((struct join *)op);
    lk_op_done(op);
}

static int join_results(lua_State *L, struct lk_op *op)
{
    return lk_task_outcome(L, ((struct join *)op)->target);
}

static int task_join(lua_State *L)
{
    struct lk_task *task = luaL_checkudata(L, 1, TASK_CLASS);
    if (task->state == TASK_ENDED)
        return lk_task_outcome(L, task);
    if (task == lk_task_current(L))
        return lk_misuse(L, "task.join", "a task can't wait for itself");
    lua_settop(L, 1);
    struct join *join = lua_newuserdatauv(L, sizeof *join, 1);
    memset(join, 0, sizeof *join);
    join->op.cancel = cancel_join;
    join->op.results = join_results;
    join->target = task;
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, 2, 1);
    lk_task_parkable(L);
    join->next = task->joins;
    task->joins = join;
    return lk_task_park(L, 2, &join->op);
}

/* --- the module --- */

static int task_spawn(lua_State *L)
{
    luaL_checkany(L, 1);
    if (!lua_isfunction(L, 1))
        return lk_misuse(L, "task.spawn", "expected a function, got %s", luaL_typename(L, 1));
    lk_task_spawn(L, lua_gettop(L) - 1);
    return 1;
}

static int task_cancel(lua_State *L)
{
    struct lk_task *task = luaL_checkudata(L, 1, TASK_CLASS);
    luaL_optstring(L, 2, NULL);
    lua_settop(L, 2);
    if (!task->cancelled && task->state != TASK_ENDED)
        lua_setiuservalue(L, 1, SLOT_REASON);
    lk_task_cancel(task, NULL);
    return 0;
}

static int task_self(lua_State *L)
{
    struct lk_task *task = lk_task_current(L);
    if (task->co == NULL)
        return 0;
    lk_push_task(L, task);
    return 1;
}

static int task_live(lua_State *L)
{
    struct lk_tasks *tasks = lk_runtime_of(L)->tasks;
    lua_pushinteger(L, tasks->live_count);
    lua_pushinteger(L, tasks->op_count);
    return 2;
}

static int task_ended(lua_State *L)
{
    struct lk_task *task = luaL_checkudata(L, 1, TASK_CLASS);
    lua_pushboolean(L, task->state == TASK_ENDED);
    return 1;
}

static int task_silence(lua_State *L)
{
    struct lk_task *task = luaL_checkudata(L, 1, TASK_CLASS);
    task->silent = true;
    return 0;
}

/* The event is woken when the task ends, however that happens: a task that is cancelled before its
 * first turn runs none of its own code. */
static int task_watch(lua_State *L)
{
    struct lk_task *task = luaL_checkudata(L, 1, TASK_CLASS);
    lk_event_check(L, 2);
    lua_settop(L, 2);
    if (task->state == TASK_ENDED)
        lk_event_wake(L, 2);
    else
        lua_setiuservalue(L, 1, SLOT_WATCHER);
    return 0;
}

/* A failure that nobody asked for must not be silent. */
static int task_gc(lua_State *L)
{
    struct lk_task *task = luaL_checkudata(L, 1, TASK_CLASS);
    if (task->state != TASK_ENDED || !task->failed || task->joined || task->silent || task->lost)
        return 0;
    task->joined = true;
    struct lk_error err;
    lk_error_of_value(task->co, 2, &err);
    if (err.kind != LK_CANCELLED)
        lk_log_write(task->runtime->log, LK_ERROR, NULL, 0, "a task failed: %s%s%s", err.message,
                     err.hint[0] != '\0' ? "; " : "", err.hint);
    return 0;
}

static const luaL_Reg functions[] = {
    {"spawn", task_spawn},     {"join", task_join},   {"cancel", task_cancel},
    {"self", task_self},       {"live", task_live},   {"ended", task_ended},
    {"silence", task_silence}, {"watch", task_watch}, {NULL, NULL},
};

static const luaL_Reg methods[] = {
    {"join", task_join}, {"cancel", task_cancel}, {"ended", task_ended}, {NULL, NULL}};

void lk_open_task_class(lua_State *L)
{
    lk_new_class(L, TASK_CLASS, methods, task_gc);
    luaL_getmetatable(L, TASK_CLASS);
    lua_pushnil(L);
    lua_setfield(L, -2, "__close"); /* the end of a block doesn't end a task */
    lua_pop(L, 1);
}

int lk_open_task(lua_State *L)
{
    luaL_newlib(L, functions);
    lk_open_scope(L);
    return 1;
}
