/* SPDX-License-Identifier: MIT
 * xml.c - any bytes as XML; xml.lua says what must hold. */
#include "lua_fuzz.h"

LUA_TARGET("xml.lua")
