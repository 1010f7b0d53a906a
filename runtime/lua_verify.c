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

int lk_stream_verify_method(lua_State *L)
{
    static const char *const keys[] = {"sha256", "size", "name", NULL};
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
    read_hash(L, &expected);
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
