/* SPDX-License-Identifier: MIT
 * manifest.c - a manifest and JSON of any kind; manifest.lua says what must hold. */
#include "lua_fuzz.h"

LUA_TARGET("manifest.lua")
