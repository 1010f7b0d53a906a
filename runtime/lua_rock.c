/* SPDX-License-Identifier: MIT
 * lua_rock.c - the runtime as a module of a plain Lua: `require "lunark"`.
 * The state is somebody else's, so are its libraries; primitives drive the loop themselves when no
 * task runs. All capabilities are granted: a plain Lua program can do all this anyway. Owns the
 * runtime, in userdata that is made before anything else of ours and therefore finalized last. Loop
 * thread only. */
#include "lua_vm.h"
#include "lunark.h"
#include <lauxlib.h>
#include <unistd.h>

#define ROCK_CLASS "lunark.rock"

struct rock {
    struct lk_runtime runtime;
    bool made;
};

/* Finalizers run in the reverse order of creation: every handle is closed already. Tasks that still
 * wait are not resumed any more; a program that wants their cleanup joins them before it ends. */
static int rock_gc(lua_State *L)
{
    struct rock *rock = luaL_checkudata(L, 1, ROCK_CLASS);
    if (!rock->made)
        return 0;
    rock->made = false;
    lk_tasks_free(&rock->runtime);
    lk_runtime_free(&rock->runtime);
    return 0;
}

static void grant_all(lua_State *L, struct lk_runtime *runtime)
{
    struct lk_error err;
    for (int cap = 0; cap < LK_CAP_COUNT; cap++)
        if (lk_caps_allow(runtime->caps, (enum lk_cap)cap, "*", &err) < 0)
            lk_raise(L, &err);
}

LUNARK_API int luaopen_lunark(lua_State *L);

int luaopen_lunark(lua_State *L)
{
    static const luaL_Reg no_methods[] = {{NULL, NULL}};
    struct lk_error err;
    lua_settop(L, 0);
    lk_new_class(L, ROCK_CLASS, no_methods, rock_gc);
    struct rock *rock = lua_newuserdatauv(L, sizeof *rock, 0);
    rock->made = false;
    luaL_setmetatable(L, ROCK_CLASS);
    lua_pushvalue(L, 1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, rock);
    int made = lk_runtime_init(&rock->runtime, 0, 0, &err);
    rock->made = true;
    if (made < 0)
        return lk_raise(L, &err);
    rock->runtime.print_fd = STDOUT_FILENO;
    rock->runtime.full_lua = true;
    lk_log_set_fd(rock->runtime.log, STDERR_FILENO);
    lk_log_set_level(rock->runtime.log, LK_INFO);
    lk_vm_attach(L, &rock->runtime);
    grant_all(L, &rock->runtime);
    lua_pushcfunction(L, lk_require_library);
    lua_pushliteral(L, "lunark.init");
    lua_call(L, 1, 1);
    return 1;
}
