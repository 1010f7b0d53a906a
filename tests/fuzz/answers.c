/* SPDX-License-Identifier: MIT
 * answers.c - any bytes as the answer of a store, to each of its calls; answers.lua says what must
 * hold. */
#include "lua_fuzz.h"

LUA_TARGET("answers.lua")
