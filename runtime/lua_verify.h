/* SPDX-License-Identifier: MIT
 * lua_verify.h - a method of Stream that checks what passes. Loop thread only. */
#ifndef LK_LUA_VERIFY_H
#define LK_LUA_VERIFY_H

struct lua_State;

/* s:verify{sha256=, size=, name=}: a Stream of the same bytes that fails at its end (corrupt) when
 * they have another hash or size. */
int lk_stream_verify_method(struct lua_State *L);

#endif
