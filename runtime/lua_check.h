/* SPDX-License-Identifier: MIT
 * lua_check.h - what the two files of lunark.core.check share. Loop thread only. */
#ifndef LK_LUA_CHECK_H
#define LK_LUA_CHECK_H

struct lua_State;

/* check.data(stream, {...}): a Check. */
int lk_check_data(struct lua_State *L);
void lk_open_check_data(struct lua_State *L);

#endif
