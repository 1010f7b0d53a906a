/* SPDX-License-Identifier: MIT
 * lua_env.c - the environment of a script that is not the library's own: an allow-list of globals,
 * copied anew for each, so that what one script changes no other sees. No io, debug, package,
 * os.execute; no bytecode; no finalizers of the script's own. Loop thread only. */
#include "lua_vm.h"
#include "shared_fd.h"
#include <lauxlib.h>
#include <string.h>

static const char *const base_names[] = {
    "assert",   "error",    "ipairs", "next",   "pairs",        "pcall",
    "rawequal", "rawget",   "rawlen", "rawset", "getmetatable", "select",
    "tonumber", "tostring", "type",   "xpcall", "_VERSION",     NULL};

static const char *const library_names[] = {"string", "table", "math", "utf8", "coroutine", NULL};

static const char *const os_names[] = {"time", "date", "clock", "difftime", NULL};

/* A finalizer runs at any moment, in the middle of anybody's code. */
static int safe_setmetatable(lua_State *L)
{
    luaL_argexpected(L, lua_istable(L, 1), 1, "table");
    luaL_argexpected(L, lua_isnoneornil(L, 2) || lua_istable(L, 2), 2, "nil or table");
    lua_settop(L, 2);
    if (lua_istable(L, 2)) {
        lua_pushliteral(L, "__gc");
        if (lua_rawget(L, 2) != LUA_TNIL)
            return lk_misuse(L, "setmetatable", "a script can't set finalizers (__gc)");
        lua_pop(L, 1);
    }
    if (luaL_getmetafield(L, 1, "__metatable") != LUA_TNIL)
        return lk_misuse(L, "setmetatable", "the metatable is protected");
    lua_setmetatable(L, 1);
    return 1;
}

/* upvalues: Lua's load, the environment */
static int safe_load(lua_State *L)
{
    lua_settop(L, 4);
    lua_pushliteral(L, "t");
    lua_replace(L, 3);
    if (lua_isnil(L, 4)) {
        lua_pushvalue(L, lua_upvalueindex(2));
        lua_replace(L, 4);
    }
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, 4, LUA_MULTRET);
    return lua_gettop(L);
}

static int safe_collectgarbage(lua_State *L)
{
    const char *what = luaL_optstring(L, 1, "collect");
    if (strcmp(what, "count") == 0) {
        lua_pushnumber(L, (lua_Number)lua_gc(L, LUA_GCCOUNT) + lua_gc(L, LUA_GCCOUNTB) / 1024.0);
        return 1;
    }
    if (strcmp(what, "collect") != 0)
        return lk_misuse(L, "collectgarbage", "only 'collect' and 'count' are there for scripts");
    lua_pushinteger(L, lua_gc(L, LUA_GCCOLLECT));
    return 1;
}

static int print(lua_State *L)
{
    struct lk_runtime *runtime = lk_runtime_of(L);
    int n = lua_gettop(L);
    luaL_checkstack(L, 2 * n + 2, "too many values");
    for (int i = 1; i <= n; i++) {
        luaL_tolstring(L, i, NULL);
        lua_pushstring(L, i < n ? "\t" : runtime->print_fd >= 0 ? "\n" : "");
    }
    if (n == 0)
        lua_pushstring(L, runtime->print_fd >= 0 ? "\n" : "");
    lua_concat(L, lua_gettop(L) - n);
    size_t len;
    const char *text = lua_tolstring(L, -1, &len);
    if (runtime->print_fd < 0)
        lk_log_write(runtime->log, LK_INFO, NULL, 0, "%s", text);
    else
        lk_write_shared(runtime->print_fd, text, len, &runtime->stalled[runtime->print_fd], NULL);
    return 0;
}

/* [env] */
static void copy_names(lua_State *L, int from, const char *const *names)
{
    for (; *names != NULL; names++) {
        lua_getfield(L, from, *names);
        lua_setfield(L, -2, *names);
    }
}

/* Pushes a copy of the table at `from`. */
static void push_copy(lua_State *L, int from)
{
    from = lua_absindex(L, from);
    lua_newtable(L);
    lua_pushnil(L);
    while (lua_next(L, from) != 0) {
        lua_pushvalue(L, -2);
        lua_insert(L, -2);
        lua_rawset(L, -4);
    }
}

static const luaL_Reg own[] = {{"setmetatable", safe_setmetatable},
                               {"collectgarbage", safe_collectgarbage},
                               {"print", print},
                               {"require", lk_require_script},
                               {NULL, NULL}};

void lk_push_environment(lua_State *L)
{
    luaL_checkstack(L, 8, NULL);
    lua_pushglobaltable(L);
    int global = lua_gettop(L);
    lua_newtable(L); /* global env */
    copy_names(L, global, base_names);
    for (const char *const *name = library_names; *name != NULL; name++) {
        lua_getfield(L, global, *name);
        push_copy(L, -1);
        lua_setfield(L, -3, *name);
        lua_pop(L, 1);
    }
    lua_getfield(L, global, "os");
    int os = lua_gettop(L);
    lua_newtable(L);
    copy_names(L, os, os_names);
    lua_setfield(L, -3, "os");
    lua_pop(L, 1); /* global env */
    luaL_setfuncs(L, own, 0);
    lua_getfield(L, global, "load");
    lua_pushvalue(L, -2);
    lua_pushcclosure(L, safe_load, 2);
    lua_setfield(L, -2, "load");
    lua_pushvalue(L, -1);
    lua_setfield(L, -2, "_G");
    lua_remove(L, global);
}

/* --- views of tables that scripts share with the library --- */

static const char views_key = 0; /* weak table: table -> view */

static int view_newindex(lua_State *L)
{
    return lk_misuse(L, "module", "'%s' can't be set: modules of the library are read-only",
                     luaL_tolstring(L, 2, NULL));
}

/* upvalue: the table. It is not handed out, as next(table) would. */
static int view_next(lua_State *L)
{
    lua_settop(L, 2);
    return lua_next(L, lua_upvalueindex(1)) ? 2 : 0;
}

static int view_pairs(lua_State *L)
{
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_pushcclosure(L, view_next, 1);
    return 1;
}

static int view_len(lua_State *L)
{
    lua_pushinteger(L, luaL_len(L, lua_upvalueindex(1)));
    return 1;
}

static int view_called(lua_State *L, int status, lua_KContext context)
{
    (void)status;
    (void)context;
    return lua_gettop(L);
}

static int view_call(lua_State *L)
{
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_replace(L, 1);
    lua_callk(L, lua_gettop(L) - 1, LUA_MULTRET, 0, view_called);
    return view_called(L, LUA_OK, 0);
}

/* [table] -> [table view] */
static void push_view(lua_State *L)
{
    static const luaL_Reg meta[] = {{"__newindex", view_newindex},
                                    {"__pairs", view_pairs},
                                    {"__len", view_len},
                                    {"__call", view_call},
                                    {NULL, NULL}};
    int table = lua_gettop(L);
    lua_newtable(L);
    lua_newtable(L); /* table view meta */
    lua_pushvalue(L, table);
    luaL_setfuncs(L, meta, 1);
    lua_pushvalue(L, table);
    lua_setfield(L, -2, "__index");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_setmetatable(L, -2);
}

static void push_views(lua_State *L)
{
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, &views_key) == LUA_TTABLE)
        return;
    lua_pop(L, 1);
    lua_newtable(L);
    lua_newtable(L);
    lua_pushliteral(L, "k");
    lua_setfield(L, -2, "__mode");
    lua_setmetatable(L, -2);
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &views_key);
}

void lk_make_readonly(lua_State *L)
{
    luaL_checkstack(L, 10, NULL);
    push_views(L); /* table views */
    lua_pushvalue(L, -2);
    if (lua_rawget(L, -2) == LUA_TNIL) { /* table views nil */
        lua_pop(L, 1);
        lua_insert(L, -2);    /* views table */
        push_view(L);         /* views table view */
        lua_pushvalue(L, -2); /* views table view table */
        lua_pushvalue(L, -2); /* views table view table view */
        lua_rawset(L, -5);
        lua_replace(L, -3);
        lua_pop(L, 1);
        return;
    }
    lua_replace(L, -3);
    lua_pop(L, 1);
}

/* argparse would end the whole process, and a host's with it. */
static int no_exit(lua_State *L)
{
    return lk_misuse(L, "os.exit", "a script can't end the process: return the status");
}

void lk_harden(lua_State *L)
{
    /* Methods of strings come from the library's own table: nobody may reach it, and it has no way
     * to bytecode. */
    lua_pushliteral(L, "");
    lua_getmetatable(L, -1);
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 2);
    lua_getglobal(L, "string");
    lua_pushnil(L);
    lua_setfield(L, -2, "dump");
    lua_getglobal(L, "os");
    lua_pushcfunction(L, no_exit);
    lua_setfield(L, -2, "exit");
    lua_pop(L, 2);
}
