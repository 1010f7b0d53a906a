/* SPDX-License-Identifier: MIT
 * lua_coro.c - coroutine.resume, wrap, yield and close that let a park through.
 *
 * A primitive called inside a script's own coroutine must park the whole task. It yields a mark;
 * the resumer sees the mark, leaves it on the coroutine's stack and yields it further out, until it
 * reaches the scheduler. When the task is resumed, each level takes the mark away and resumes the
 * next one in. The mark also tells that a coroutine is in the middle of a park, so nobody else may
 * resume or close it. Loop thread only. */
#include "lua_task.h"
#include <lauxlib.h>
#include <string.h>

enum { RESUME, WRAP };

static int fail(lua_State *L, lua_KContext how, lua_State *co)
{
    /* [..., error] */
    if (how == RESUME) {
        lua_pushboolean(L, 0);
        lua_insert(L, -2);
        return 2;
    }
    int status = lua_status(co);
    if (status != LUA_OK && status != LUA_YIELD) {
        lk_close_coroutine(co); /* runs what is to be closed */
        lua_settop(co, 0);
    }
    if (lua_type(L, -1) == LUA_TSTRING) {
        luaL_where(L, 1);
        lua_insert(L, -2);
        lua_concat(L, 2);
    }
    return lua_error(L);
}

static int go_on(lua_State *L, lua_State *co, int nargs, lua_KContext how);

static int after_park(lua_State *L, int status, lua_KContext how)
{
    (void)status;
    lua_State *co = lua_tothread(L, how == RESUME ? 1 : lua_upvalueindex(1));
    lua_pop(co, 1); /* the mark */
    return go_on(L, co, 0, how);
}

static int go_on(lua_State *L, lua_State *co, int nargs, lua_KContext how)
{
    bool barrier = !lua_isyieldable(L);
    int nresults = 0;
    if (barrier)
        lk_task_barrier(L, 1);
    int status = lua_resume(co, L, nargs, &nresults);
    if (barrier)
        lk_task_barrier(L, -1);
    if (status == LUA_YIELD && lk_is_parked(co)) {
        lk_push_park(L);
        return lua_yieldk(L, 1, how, after_park);
    }
    if (status != LUA_OK && status != LUA_YIELD) {
        lua_xmove(co, L, 1);
        return fail(L, how, co);
    }
    if (!lua_checkstack(L, nresults + 1)) {
        lua_pop(co, nresults);
        lua_pushliteral(L, "too many results to resume");
        return fail(L, how, co);
    }
    if (how == RESUME)
        lua_pushboolean(L, 1);
    lua_xmove(co, L, nresults);
    return how == RESUME ? nresults + 1 : nresults;
}

/* One that has not begun has its function at 1; one that was a task may keep results there. */
static bool is_dead(lua_State *co)
{
    lua_Debug frame;
    return lua_status(co) == LUA_OK && lua_getstack(co, 0, &frame) == 0 && !lua_isfunction(co, 1);
}

/* [arguments...] at the top: moves them over and resumes. */
static int start(lua_State *L, lua_State *co, int nargs, lua_KContext how)
{
    if (lk_is_parked(co)) {
        lua_pushliteral(L, "cannot resume a coroutine that waits for an operation");
        return fail(L, how, co);
    }
    if (!lua_checkstack(co, nargs)) {
        lua_pushliteral(L, "too many arguments to resume");
        return fail(L, how, co);
    }
    if (is_dead(co)) {
        lua_pushliteral(L, "cannot resume dead coroutine");
        return fail(L, how, co);
    }
    lua_xmove(L, co, nargs);
    return go_on(L, co, nargs, how);
}

static int coro_resume(lua_State *L)
{
    lua_State *co = lua_tothread(L, 1);
    luaL_argexpected(L, co, 1, "coroutine");
    return start(L, co, lua_gettop(L) - 1, RESUME);
}

static int wrapped(lua_State *L)
{
    lua_State *co = lua_tothread(L, lua_upvalueindex(1));
    return start(L, co, lua_gettop(L), WRAP);
}

static int coro_wrap(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TFUNCTION);
    lua_State *co = lua_newthread(L);
    lua_pushvalue(L, 1);
    lua_xmove(L, co, 1);
    lua_pushcclosure(L, wrapped, 1);
    return 1;
}

static int coro_yield(lua_State *L)
{
    if (L == lk_task_coroutine(L))
        return lk_misuse(L, "coroutine.yield", "called outside a coroutine of the script's own");
    return lua_yield(L, lua_gettop(L));
}

static int coro_close(lua_State *L)
{
    lua_State *co = lua_tothread(L, 1);
    luaL_argexpected(L, co, 1, "coroutine");
    if (lk_is_parked(co))
        return lk_misuse(L, "coroutine.close", "the coroutine waits for an operation");
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
    return lua_gettop(L);
}

void lk_patch_coroutines(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"resume", coro_resume}, {"wrap", coro_wrap}, {"yield", coro_yield}, {NULL, NULL}};
    if (lua_getglobal(L, "coroutine") == LUA_TTABLE) {
        luaL_setfuncs(L, functions, 0);
        lua_getfield(L, -1, "close");
        lua_pushcclosure(L, coro_close, 1);
        lua_setfield(L, -2, "close");
    }
    lua_pop(L, 1);
}
