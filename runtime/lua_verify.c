/* SPDX-License-Identifier: MIT
 * lua_verify.c - stream:verify of scripts. Loop thread only. */
#include "lua_verify.h"

#include "lua_stream.h"
#include "verify.h"
#include <lauxlib.h>
#include <string.h>

static void read_hash(lua_State *L, struct lk_expected *expected)
{
    size_t len;
    const char *hex = lk_opt_string(L, 2, "sha256", &len);

    if (!hex)
        return;
    if (len != 2 * sizeof expected->sha256 || lk_unhex(hex, len, expected->sha256) < 0)
        lk_misuse(L, "stream.verify", "'sha256' must be 64 hexadecimal digits");
    expected->hashed = true;
}

/* A list of texts, one of which is the beginning. */
static void read_begins(lua_State *L, struct lk_expected *expected)
{
    if (lua_getfield(L, 2, "begins") != LUA_TNIL) {
        luaL_checktype(L, -1, LUA_TTABLE);
        lua_Integer count = luaL_len(L, -1);
        if (count < 1 || count > LK_BEGINS_MAX)
            lk_misuse(L, "stream.verify", "'begins' must have 1 to %d texts", LK_BEGINS_MAX);
        for (lua_Integer i = 1; i <= count; i++) {
            struct lk_begin *begin = &expected->begins[i - 1];
            lua_geti(L, -1, i);
            const char *text = luaL_checklstring(L, -1, &begin->len);
            if (begin->len < 1 || begin->len > LK_BEGIN_LENGTH)
                lk_misuse(L, "stream.verify", "texts of 'begins' have 1 to %d bytes",
                          LK_BEGIN_LENGTH);
            memcpy(begin->bytes, text, begin->len);
            lua_pop(L, 1);
        }
        expected->begin_count = (size_t)count;
    }
    lua_pop(L, 1);
}

int lk_stream_verify_method(lua_State *L)
{
    static const char *const keys[] = {"sha256", "size", "most", "begins", "name", NULL};
    struct lk_runtime *runtime = lk_runtime_of(L);
    struct lk_expected expected = {.size = LK_ANY_SIZE};
    struct lk_error err;
    size_t len;

    lk_check_stream(L, "stream.verify", false);
    lua_settop(L, 2);
    luaL_checktype(L, 2, LUA_TTABLE);
    lk_check_keys(L, 2, "stream.verify", keys);
    lua_Integer size = lk_opt_integer(L, 2, "size", 0, LUA_MAXINTEGER, -1);
    if (size >= 0)
        expected.size = (uint64_t)size;
    expected.most = (uint64_t)lk_opt_integer(L, 2, "most", 0, LUA_MAXINTEGER, 0);
    read_hash(L, &expected);
    read_begins(L, &expected);
    const char *name = lk_opt_string(L, 2, "name", &len);
    if (!name) {
        name = "the stream";
        len = strlen(name);
    }
    if (len >= sizeof expected.name)
        len = sizeof expected.name - 1;
    memcpy(expected.name, name, len);

    struct lk_stream **box = lk_push_stream_box(L);
    struct lk_stream *input = lk_take_stream(L, 1, "stream.verify");
    *box = lk_stream_verify(runtime->pool, input, &expected, &err);
    return *box ? 1 : lk_push_error(L, &err);
}
