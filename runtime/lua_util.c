/* SPDX-License-Identifier: MIT
 * lua_util.c - what every binding needs: error tables, option tables, classes.
 * Owns no state but the metatables in the registry. Loop thread only. */
#include "lua_task.h"
#include <lauxlib.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Lua's own text, which never goes through a message handler. */
#define LUA_NO_MEMORY "not enough memory"

static const char runtime_key = 0;

void lk_set_runtime(lua_State *L, struct lk_runtime *runtime)
{
    lua_pushlightuserdata(L, runtime);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &runtime_key);
}

struct lk_runtime *lk_runtime_of(lua_State *L)
{
    lua_rawgetp(L, LUA_REGISTRYINDEX, &runtime_key);
    struct lk_runtime *runtime = lua_touserdata(L, -1);
    lua_pop(L, 1);
    return runtime;
}

/* --- error tables --- */

static int error_tostring(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_pushliteral(L, "message");
    if (lua_rawget(L, 1) != LUA_TSTRING) {
        lua_pop(L, 1);
        lua_pushliteral(L, "unknown error");
    }
    lua_pushliteral(L, "hint");
    if (lua_rawget(L, 1) != LUA_TSTRING) {
        lua_pop(L, 1);
        return 1;
    }
    lua_pushfstring(L, "%s (%s)", lua_tostring(L, -2), lua_tostring(L, -1));
    return 1;
}

void lk_set_error_class(lua_State *L)
{
    if (luaL_newmetatable(L, LK_ERROR_CLASS)) {
        lua_pushcfunction(L, error_tostring);
        lua_setfield(L, -2, "__tostring");
        lua_pushliteral(L, "error");
        lua_setfield(L, -2, "__metatable");
    }
    lua_setmetatable(L, -2);
}

bool lk_is_error(lua_State *L, int index)
{
    if (lua_type(L, index) != LUA_TTABLE || !lua_getmetatable(L, index))
        return false;
    luaL_getmetatable(L, LK_ERROR_CLASS);
    bool same = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
    return same;
}

static void set_text(lua_State *L, const char *key, const char *text)
{
    if (text[0] == '\0')
        return;
    lua_pushstring(L, text);
    lua_setfield(L, -2, key);
}

void lk_push_error_table(lua_State *L, const struct lk_error *err)
{
    luaL_checkstack(L, 4, NULL);
    lua_createtable(L, 0, 6);
    lk_set_error_class(L);
    set_text(L, "kind", lk_kind_name(err->kind));
    set_text(L, "message", err->message);
    set_text(L, "op", err->op);
    set_text(L, "hint", err->hint);
    if (err->code != 0) {
        lua_pushinteger(L, err->code);
        lua_setfield(L, -2, "code");
    }
    if (err->status != 0) {
        lua_pushinteger(L, err->status);
        lua_setfield(L, -2, "status");
    }
    if (err->retryable) {
        lua_pushboolean(L, 1);
        lua_setfield(L, -2, "retryable");
    }
}

void lk_set_integer(lua_State *L, const char *key, uint64_t value)
{
    lua_pushinteger(L, (lua_Integer)value);
    lua_setfield(L, -2, key);
}

int lk_push_error(lua_State *L, const struct lk_error *err)
{
    lua_pushnil(L);
    lk_push_error_table(L, err);
    return 2;
}

int lk_raise(lua_State *L, const struct lk_error *err)
{
    lk_push_error_table(L, err);
    return lua_error(L);
}

int lk_misuse(lua_State *L, const char *function, const char *format, ...)
{
    struct lk_error err;
    char text[sizeof err.message];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    lk_error_set(&err, LK_USAGE, "%s: %s", function, text);
    snprintf(err.op, sizeof err.op, "%s", function);
    luaL_where(L, 1);
    size_t len;
    const char *where = lua_tolstring(L, -1, &len);
    while (len > 0 && (where[len - 1] == ' ' || where[len - 1] == ':'))
        len--;
    if (len > 0)
        lk_error_hint(&err, "called at %.*s", (int)len, where);
    return lk_raise(L, &err);
}

static enum lk_kind kind_of_name(const char *name)
{
    for (int kind = LK_USAGE; kind <= LK_MEMORY; kind++)
        if (strcmp(name, lk_kind_name((enum lk_kind)kind)) == 0)
            return (enum lk_kind)kind;
    return LK_IO;
}

/* Copies a string field of the table at index, without metamethods; "" when it is none. */
static void get_text(lua_State *L, int index, const char *key, char *out, size_t size)
{
    lua_pushstring(L, key);
    lua_rawget(L, index);
    const char *text = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "";
    snprintf(out, size, "%s", text);
    lua_pop(L, 1);
}

static int get_int(lua_State *L, int index, const char *key)
{
    lua_pushstring(L, key);
    lua_rawget(L, index);
    lua_Integer value = lua_tointeger(L, -1);
    lua_pop(L, 1);
    return value >= -0x7fffffff && value <= 0x7fffffff ? (int)value : 0;
}

void lk_error_of_value(lua_State *L, int index, struct lk_error *err)
{
    index = lua_absindex(L, index);
    luaL_checkstack(L, 4, NULL);
    if (lua_type(L, index) == LUA_TTABLE) {
        char kind[32];
        get_text(L, index, "kind", kind, sizeof kind);
        lk_error_set(err, kind_of_name(kind), "%s", "");
        get_text(L, index, "message", err->message, sizeof err->message);
        get_text(L, index, "hint", err->hint, sizeof err->hint);
        get_text(L, index, "op", err->op, sizeof err->op);
        err->code = get_int(L, index, "code");
        err->status = get_int(L, index, "status");
        lua_pushliteral(L, "retryable");
        lua_rawget(L, index);
        err->retryable = lua_toboolean(L, -1);
        lua_pop(L, 1);
        if (err->message[0] == '\0')
            snprintf(err->message, sizeof err->message, "error without a message");
        return;
    }
    if (lua_type(L, index) == LUA_TSTRING && strcmp(lua_tostring(L, index), LUA_NO_MEMORY) == 0)
        lk_error_set(err, LK_MEMORY, "out of memory for scripts");
    else if (lua_type(L, index) == LUA_TSTRING)
        lk_error_set(err, LK_USAGE, "%s", lua_tostring(L, index));
    else
        lk_error_set(err, LK_USAGE, "error is a %s value", luaL_typename(L, index));
}

static int describe(lua_State *L)
{
    lk_error_of_value(L, 1, lua_touserdata(L, 2));
    return 0;
}

void lk_error_of_failure(lua_State *L, struct lk_error *err)
{
    struct lk_error found; /* err may be NULL */
    lua_pushcfunction(L, describe);
    lua_insert(L, -2);
    lua_pushlightuserdata(L, &found);
    if (lua_pcall(L, 2, 0, 0) != LUA_OK) {
        lua_pop(L, 1);
        lk_error_set(&found, LK_MEMORY, "out of memory for scripts");
    }
    if (err != NULL)
        *err = found;
}

/* --- option tables --- */

static bool is_listed(const char *key, const char *const *keys)
{
    for (; *keys != NULL; keys++)
        if (strcmp(key, *keys) == 0)
            return true;
    return false;
}

void lk_check_keys(lua_State *L, int index, const char *function, const char *const *keys)
{
    index = lua_absindex(L, index);
    if (lua_isnoneornil(L, index))
        return;
    if (!lua_istable(L, index))
        lk_misuse(L, function, "expected a table of options, got %s", luaL_typename(L, index));
    if (lua_getmetatable(L, index)) /* its values would not be held by the table */
        lk_misuse(L, function, "a table of options can't have a metatable");
    lua_pushnil(L);
    while (lua_next(L, index) != 0) {
        if (lua_type(L, -2) == LUA_TSTRING && !is_listed(lua_tostring(L, -2), keys))
            lk_misuse(L, function, "unknown option '%s'", lua_tostring(L, -2));
        lua_pop(L, 1);
    }
}

/* Pushes the field; LUA_TNIL when there is no table. */
static int push_option(lua_State *L, int index, const char *key)
{
    if (!lua_istable(L, index)) {
        lua_pushnil(L);
        return LUA_TNIL;
    }
    return lua_getfield(L, index, key);
}

static void wrong_option(lua_State *L, const char *key, const char *expected)
{
    lk_misuse(L, "options", "'%s' must be %s, got %s", key, expected, luaL_typename(L, -1));
}

lua_Integer lk_opt_integer(lua_State *L, int index, const char *key, lua_Integer min,
                           lua_Integer max, lua_Integer fallback)
{
    if (push_option(L, index, key) == LUA_TNIL) {
        lua_pop(L, 1);
        return fallback;
    }
    int exact = 0;
    lua_Integer value = lua_type(L, -1) == LUA_TNUMBER ? lua_tointegerx(L, -1, &exact) : 0;
    if (!exact)
        wrong_option(L, key, "an integer");
    if (value < min || value > max) {
        char text[120];
        snprintf(text, sizeof text, "'%s' must be between %lld and %lld, got %lld", key,
                 (long long)min, (long long)max, (long long)value);
        lk_misuse(L, "options", "%s", text);
    }
    lua_pop(L, 1);
    return value;
}

uint64_t lk_opt_milliseconds(lua_State *L, int index, const char *key, unsigned seconds)
{
    lua_Number value = seconds;
    if (push_option(L, index, key) != LUA_TNIL) {
        value = lua_tonumber(L, -1);
        if (lua_type(L, -1) != LUA_TNUMBER || isnan(value) || value < 0)
            wrong_option(L, key, "a number of seconds, 0 or more");
    }
    lua_pop(L, 1);
    return value > 1e9 ? (uint64_t)1e12 : (uint64_t)ceil(value * 1000);
}

bool lk_opt_boolean(lua_State *L, int index, const char *key, bool fallback)
{
    int type = push_option(L, index, key);
    if (type != LUA_TNIL && type != LUA_TBOOLEAN)
        wrong_option(L, key, "true or false");
    bool value = type == LUA_TNIL ? fallback : lua_toboolean(L, -1);
    lua_pop(L, 1);
    return value;
}

const char *lk_opt_string(lua_State *L, int index, const char *key, size_t *len)
{
    int type = push_option(L, index, key);
    if (type != LUA_TNIL && type != LUA_TSTRING)
        wrong_option(L, key, "a string");
    const char *value = type == LUA_TNIL ? NULL : lua_tolstring(L, -1, len);
    lua_pop(L, 1);
    return value;
}

const char *lk_text_of(lua_State *L, int index, size_t *len)
{
    if (lua_type(L, index) == LUA_TSTRING)
        return lua_tolstring(L, index, len);
    struct lk_secret *secret = luaL_testudata(L, index, LK_SECRET_CLASS);
    if (secret == NULL)
        return NULL;
    if (len != NULL)
        *len = secret->len;
    return secret->text;
}

void lk_new_class(lua_State *L, const char *name, const struct luaL_Reg *methods, lua_CFunction gc)
{
    luaL_newmetatable(L, name); /* mt */
    lua_newtable(L);            /* mt methods */
    luaL_setfuncs(L, methods, 0);
    lua_setfield(L, -2, "__index");
    if (gc != NULL) {
        lua_pushcfunction(L, gc);
        lua_setfield(L, -2, "__gc");
        lua_pushcfunction(L, gc);
        lua_setfield(L, -2, "__close");
    }
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 1);
}
