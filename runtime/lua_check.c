/* SPDX-License-Identifier: MIT
 * lua_check.c - lunark.core.check, for verifying: its small parts. lua_check_data.c has the Check,
 * lua_check_work.c what blocks. Loop thread only. */
#include "lua_check.h"

#include "lua_task.h"
#include "member.h"
#include <lauxlib.h>

/* is_member(bytes): whether one of our members begins here; its type and size. */
static int check_is_member(lua_State *L)
{
    struct lk_member m;
    size_t len;
    const char *bytes = luaL_checklstring(L, 1, &len);

    bool ours = len >= LK_MEMBER_HEADER && lk_member_parse((const unsigned char *)bytes, &m);
    lua_pushboolean(L, ours);
    if (!ours)
        return 1;
    lua_pushinteger(L, (lua_Integer)m.type);
    lua_pushinteger(L, (lua_Integer)m.size);
    return 3;
}

int lk_open_check(lua_State *L)
{
    static const luaL_Reg functions[] = {{"is_member", check_is_member},
                                         {"data", lk_check_data},
                                         {"tar", lk_check_tar},
                                         {"compare", lk_check_compare},
                                         {NULL, NULL}};

    lk_open_check_data(L);
    lk_open_check_work(L);
    luaL_newlib(L, functions);
    return 1;
}
