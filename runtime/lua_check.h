/* SPDX-License-Identifier: MIT
 * lua_check.h - what the files of lunark.core.check share. Loop thread only. */
#ifndef LK_LUA_CHECK_H
#define LK_LUA_CHECK_H

struct lua_State;

/* check.data(stream, {...}): a Check. */
int lk_check_data(struct lua_State *L);
void lk_open_check_data(struct lua_State *L);
/* check.tar(stream) and check.compare(directory, bytes): they park. */
int lk_check_tar(struct lua_State *L);
int lk_check_compare(struct lua_State *L);
void lk_open_check_work(struct lua_State *L);

#endif
