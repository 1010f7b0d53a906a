/* SPDX-License-Identifier: MIT
 * lua_log.c - lunark.core.log: log lines and progress records. Owns nothing. Loop thread only. */
#include "buf.h"
#include "lua_task.h"
#include <lauxlib.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define FIELDS_MAX 32
#define PROGRESS_MAX ((size_t)64 << 10)
#define DEPTH_MAX 8

static enum lk_level check_level(lua_State *L, int index)
{
    static const char *const names[] = {"debug", "info", "warn", "error", NULL};
    const char *name = luaL_checkstring(L, index);
    for (int i = 0; names[i] != NULL; i++)
        if (strcmp(name, names[i]) == 0)
            return (enum lk_level)i;
    lk_misuse(L, "log", "level must be debug, info, warn or error, got '%s'", name);
    return LK_INFO;
}

/* The texts stay on the stack, where the fields point to them. */
static size_t read_fields(lua_State *L, int index, struct lk_field *fields)
{
    if (lua_isnoneornil(L, index))
        return 0;
    luaL_checktype(L, index, LUA_TTABLE);
    luaL_checkstack(L, FIELDS_MAX * 2 + 4, NULL);
    size_t n = 0;
    lua_pushnil(L);
    while (n < FIELDS_MAX && lua_next(L, index) != 0) { /* ... key value */
        if (lua_type(L, -2) != LUA_TSTRING) {
            lua_pop(L, 1);
            continue;
        }
        fields[n].name = lua_tostring(L, -2);
        luaL_tolstring(L, -1, NULL);
        fields[n++].value = lua_tostring(L, -1);
        lua_remove(L, -2);    /* ... key text */
        lua_pushvalue(L, -2); /* ... key text key */
    }
    /* lua_next gives names in any order; lines should not differ from run to run */
    for (size_t i = 1; i < n; i++) {
        struct lk_field field = fields[i];
        size_t j = i;
        for (; j > 0 && strcmp(fields[j - 1].name, field.name) > 0; j--)
            fields[j] = fields[j - 1];
        fields[j] = field;
    }
    return n;
}

static int log_write(lua_State *L)
{
    enum lk_level level = check_level(L, 1);
    lua_settop(L, 3);
    luaL_tolstring(L, 2, NULL);
    lua_replace(L, 2);
    struct lk_field fields[FIELDS_MAX];
    size_t n = read_fields(L, 3, fields);
    lk_log_write(lk_runtime_of(L)->log, level, fields, n, "%s", lua_tostring(L, 2));
    return 0;
}

static int log_set(lua_State *L)
{
    static const char *const keys[] = {"level", "format", "to", "fields", NULL};
    struct lk_log *log = lk_runtime_of(L)->log;
    lk_check_keys(L, 1, "log.set", keys);
    lua_settop(L, 1);
    if (lua_getfield(L, 1, "level") != LUA_TNIL)
        lk_log_set_level(log, check_level(L, -1));
    const char *format = lk_opt_string(L, 1, "format", NULL);
    if (format != NULL && strcmp(format, "json") != 0 && strcmp(format, "text") != 0)
        return lk_misuse(L, "log.set", "format must be text or json, got '%s'", format);
    if (format != NULL)
        lk_log_set_json(log, strcmp(format, "json") == 0);
    int type = lua_getfield(L, 1, "to");
    if (type == LUA_TSTRING && strcmp(lua_tostring(L, -1), "host") == 0)
        lk_log_set_fd(log, -1);
    else if (type == LUA_TNUMBER && (lua_tointeger(L, -1) == 1 || lua_tointeger(L, -1) == 2))
        lk_log_set_fd(log, (int)lua_tointeger(L, -1));
    else if (type != LUA_TNIL)
        return lk_misuse(L, "log.set", "'to' must be 1, 2 or \"host\"");
    if (lua_getfield(L, 1, "fields") == LUA_TNIL)
        return 0;
    luaL_checktype(L, -1, LUA_TTABLE);
    lua_pushnil(L);
    while (lua_next(L, -2) != 0) {
        struct lk_error err;
        const char *value = lua_isboolean(L, -1) ? NULL : luaL_tolstring(L, -1, NULL);
        if (lk_log_set_field(log, luaL_checkstring(L, value ? -3 : -2), value, &err) < 0)
            return lk_raise(L, &err);
        lua_pop(L, value ? 2 : 1);
    }
    return 0;
}

/* --- progress as JSON; the buffer is C's, so nothing in here raises --- */

static int add_value(lua_State *L, struct lk_buf *out, int depth);

static int add_string(struct lk_buf *out, const char *text, size_t len)
{
    int bad = lk_buf_add(out, "\"", 1, NULL);
    for (size_t i = 0; i < len && !bad; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c < 0x20 || c == '"' || c == '\\' || c == 0x7f)
            bad = lk_buf_printf(out, NULL, "\\u%04x", c);
        else
            bad = lk_buf_add(out, text + i, 1, NULL);
    }
    return bad < 0 ? -1 : lk_buf_add(out, "\"", 1, NULL);
}

static int add_number(lua_State *L, struct lk_buf *out)
{
    if (lua_isinteger(L, -1))
        return lk_buf_printf(out, NULL, "%lld", (long long)lua_tointeger(L, -1));
    double number = lua_tonumber(L, -1);
    return isfinite(number) ? lk_buf_printf(out, NULL, "%.14g", number)
                            : lk_buf_add(out, "null", 4, NULL);
}

static int add_list(lua_State *L, struct lk_buf *out, size_t n, int depth)
{
    int bad = lk_buf_add(out, "[", 1, NULL);
    for (size_t i = 1; i <= n && bad >= 0; i++) {
        lua_rawgeti(L, -1, (lua_Integer)i);
        bad = i > 1 ? lk_buf_add(out, ",", 1, NULL) : 0;
        bad = bad < 0 ? bad : add_value(L, out, depth + 1);
        lua_pop(L, 1);
    }
    return bad < 0 ? -1 : lk_buf_add(out, "]", 1, NULL);
}

static int add_table(lua_State *L, struct lk_buf *out, int depth)
{
    size_t n = lua_rawlen(L, -1);
    if (depth > DEPTH_MAX || !lua_checkstack(L, 4))
        return lk_buf_add(out, "null", 4, NULL);
    if (n > 0)
        return add_list(L, out, n, depth);
    int bad = lk_buf_add(out, "{", 1, NULL);
    bool first = true;
    lua_pushnil(L);
    while (lua_next(L, -2) != 0) {
        size_t len;
        const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tolstring(L, -2, &len) : NULL;
        if (key != NULL && bad >= 0) {
            bad = first ? 0 : lk_buf_add(out, ",", 1, NULL);
            bad = bad < 0 ? bad : add_string(out, key, len);
            bad = bad < 0 ? bad : lk_buf_add(out, ":", 1, NULL);
            bad = bad < 0 ? bad : add_value(L, out, depth + 1);
            first = false;
        }
        lua_pop(L, 1);
    }
    return bad < 0 ? -1 : lk_buf_add(out, "}", 1, NULL);
}

static int add_value(lua_State *L, struct lk_buf *out, int depth)
{
    size_t len;
    switch (lua_type(L, -1)) {
    case LUA_TTABLE:
        return add_table(L, out, depth);
    case LUA_TSTRING: {
        const char *text = lua_tolstring(L, -1, &len);
        return add_string(out, text, len);
    }
    case LUA_TNUMBER:
        return add_number(L, out);
    case LUA_TBOOLEAN:
        return lk_buf_printf(out, NULL, "%s", lua_toboolean(L, -1) ? "true" : "false");
    default:
        return lk_buf_add(out, "null", 4, NULL);
    }
}

static int log_progress(lua_State *L)
{
    struct lk_runtime *runtime = lk_runtime_of(L);
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    if (runtime->on_progress == NULL)
        return 0;
    struct lk_buf out;
    lk_buf_init(&out, PROGRESS_MAX);
    if (add_value(L, &out, 0) >= 0) {
        lk_log_clean(runtime->log, out.data, out.cap);
        runtime->on_progress(runtime->on_progress_arg, out.data);
    }
    lk_buf_free(&out);
    return 0;
}

int lk_open_log(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"write", log_write}, {"set", log_set}, {"progress", log_progress}, {NULL, NULL}};
    luaL_newlib(L, functions);
    return 1;
}
