/* SPDX-License-Identifier: MIT
 * lua_fuzz.h - a target whose work is done by a Lua function: one state with lunark's library for
 * all inputs. The script returns function(data), which raises where something must not be, and
 * returns a string that says what kind of outcome this was.
 *
 * libFuzzer sees neither Lua nor the C modules below it, so what ran is told to it by hand: the
 * lines that ran and the kind of outcome, numbers left out, count as coverage. */
#ifndef LK_LUA_FUZZ_H
#define LK_LUA_FUZZ_H

#include "fuzz.h"

#include <ctype.h>
#include <lauxlib.h>
#include <lualib.h>

int luaopen_lunark(lua_State *L);

enum { COUNTERS = 1 << 14, OUTCOME_MAX = 256 };

/* libFuzzer looks at this section after each input. */
__attribute__((section("__libfuzzer_extra_counters"))) static uint8_t counters[COUNTERS];

static inline void count(uint64_t hash)
{
    counters[(hash * 0x9e3779b97f4a7c15u) >> 50] = 1;
}

static inline void on_line(lua_State *L, lua_Debug *ar)
{
    lua_getinfo(L, "S", ar);
    count(((uintptr_t)ar->source << 16) + (unsigned)ar->currentline);
}

static inline void count_outcome(const char *text)
{
    uint64_t hash = 5381;
    for (size_t i = 0; text[i] && i < OUTCOME_MAX; i++)
        if (!isdigit((unsigned char)text[i]))
            hash = hash * 33 + (unsigned char)text[i];
    count(hash);
}

static inline lua_State *lua_start(const char *script)
{
    char path[4096];
    const char *root = getenv("LUNARK_ROOT");
    lua_State *L = luaL_newstate();

    must(L);
    luaL_openlibs(L);
    luaL_requiref(L, "lunark", luaopen_lunark, 0);
    lua_pop(L, 1);
    snprintf(path, sizeof path, "%s/tests/fuzz/%s", root ? root : ".", script);
    if (luaL_dofile(L, path) != LUA_OK) {
        fprintf(stderr, "%s\n", lua_tostring(L, -1));
        abort();
    }
    must(lua_isfunction(L, -1));
    lua_sethook(L, on_line, LUA_MASKLINE, 0);
    return L;
}

/* Calls the script's function, which stays on the stack. */
static inline void lua_one(lua_State *L, const uint8_t *data, size_t size)
{
    static unsigned inputs;

    lua_pushvalue(L, 1);
    lua_pushlstring(L, (const char *)data, size);
    if (lua_pcall(L, 1, 1, 0) != LUA_OK) {
        fprintf(stderr, "must not be raised: %s\n", luaL_tolstring(L, -1, NULL));
        abort();
    }
    if (lua_isstring(L, -1))
        count_outcome(lua_tostring(L, -1));
    lua_settop(L, 1);
    if (++inputs % 1000 == 0)
        lua_gc(L, LUA_GCCOLLECT);
}

/* The whole target. */
#define LUA_TARGET(script)                                                                         \
    int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)                                   \
    {                                                                                              \
        static lua_State *L;                                                                       \
        if (!L)                                                                                    \
            L = lua_start(script);                                                                 \
        lua_one(L, data, size);                                                                    \
        return 0;                                                                                  \
    }

#endif
