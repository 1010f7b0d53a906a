/* SPDX-License-Identifier: MIT
 * lua_run.c - runs one script after the other in a runtime.
 * Owns the main chunk's task and its result. Loop thread only. */
#include "lua_run.h"
#include "lua_vm.h"
#include <dlfcn.h>
#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

static const char task_key = 0;

/* A host that loaded us with RTLD_LOCAL has liblua local too, and then modules of Lua find no
 * symbols. */
static void promote_lua(void)
{
    Dl_info info;
    void *address;
    lua_State *(*function)(lua_Alloc, void *) = lua_newstate;
    memcpy(&address, &function, sizeof address);
    if (dladdr(address, &info) == 0 || info.dli_fname == NULL)
        return;
    void *handle = dlopen(info.dli_fname, RTLD_NOLOAD | RTLD_GLOBAL | RTLD_NOW);
    if (handle != NULL)
        dlclose(handle);
}

int lk_run_open(struct lk_runtime *runtime, size_t limit, struct lk_error *err)
{
    promote_lua();
    return lk_vm_new(runtime, limit, err);
}

void lk_run_close(struct lk_runtime *runtime, double grace)
{
    lk_vm_free(runtime, grace);
}

int lk_run_add_module(struct lk_runtime *runtime, const char *name, int (*open)(struct lua_State *),
                      struct lk_error *err)
{
    return lk_vm_add_module(runtime->lua, name, open, err);
}

struct start {
    struct lk_runtime *runtime;
    struct lk_run *script;
    const char *name, *source;
    size_t len;
    const char *const *args;
};

static int start_protected(lua_State *L)
{
    struct start *start = lua_touserdata(L, 1);
    if (start->runtime->full_lua)
        lua_pushglobaltable(L);
    else
        lk_push_environment(L);
    if (lk_vm_load(L, start->name, start->source, start->len, -1) != 1)
        return lua_error(L);
    int n = 0;
    for (; start->args != NULL && start->args[n] != NULL; n++) {
        luaL_checkstack(L, 4, "too many arguments");
        lua_pushstring(L, start->args[n]);
    }
    start->script->task = lk_task_spawn(L, n);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &task_key);
    return 0;
}

int lk_run_start(struct lk_runtime *runtime, struct lk_run *script, const char *name,
                 const char *source, size_t len, const char *const *args, struct lk_error *err)
{
    struct start state = {runtime, script, name, source, len, args};
    lua_State *L = runtime->lua;
    if (script->started)
        return lk_error_set(err, LK_USAGE, "%s: a script is running already", name);
    free(script->result);
    script->result = NULL;
    lua_pushcfunction(L, start_protected);
    lua_pushlightuserdata(L, &state);
    if (!runtime->full_lua)
        runtime->sealed = true; /* grants are the host's, between scripts too */
    if (lua_pcall(L, 1, 0, 0) != LUA_OK) {
        lk_error_of_failure(L, err);
        return -1;
    }
    lk_task_set_main(runtime, script->task);
    script->started = true;
    script->wound_up = false;
    return 0;
}

int lk_run_step(struct lk_runtime *runtime, struct lk_run *script, int timeout_ms,
                struct lk_error *err)
{
    if (!script->started || (script->wound_up && lk_tasks_live(runtime) == 0))
        return 0;
    lk_task_take_cancels(runtime);
    if (lk_loop_step(runtime->loop, timeout_ms, err) < 0)
        return -1;
    lk_task_take_cancels(runtime);
    if (!lk_task_ended(script->task))
        return 1;
    if (!script->wound_up) {
        script->wound_up = true;
        lk_tasks_cancel_all(runtime, "the script has ended");
    }
    return lk_tasks_live(runtime) > 0;
}

struct finish {
    struct lk_run *script;
    struct lk_error *err;
    bool failed;
};

static int finish_protected(lua_State *L)
{
    struct finish *finish = lua_touserdata(L, 1);
    lua_settop(L, 0);
    lk_task_outcome(L, finish->script->task);
    lua_pushnil(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &task_key);
    if (!lua_toboolean(L, 1) || (lua_isnil(L, 2) && lk_is_error(L, 3))) {
        finish->failed = true;
        lk_error_of_value(L, lua_toboolean(L, 1) ? 3 : 2, finish->err);
        return 0;
    }
    if (!lua_isnoneornil(L, 2))
        finish->script->result = strdup(luaL_tolstring(L, 2, NULL));
    return 0;
}

int lk_run_finish(struct lk_runtime *runtime, struct lk_run *script, struct lk_error *err)
{
    lua_State *L = runtime->lua;
    struct lk_error ignored;
    struct finish finish = {script, err != NULL ? err : &ignored, false};
    if (!script->started || !script->wound_up || lk_tasks_live(runtime) > 0)
        return lk_error_set(err, LK_USAGE, "no script has ended");
    script->started = false;
    lua_pushcfunction(L, finish_protected);
    lua_pushlightuserdata(L, &finish);
    if (lua_pcall(L, 1, 0, 0) != LUA_OK) {
        lk_error_of_failure(L, finish.err);
        finish.failed = true;
    }
    script->task = NULL;
    atomic_store(&runtime->cancels, 0);
    lua_gc(L, LUA_GCCOLLECT);
    return finish.failed ? -1 : 0;
}
