/* SPDX-License-Identifier: MIT
 * lua_vm.h - the Lua state of a runtime: its memory limit, its modules, and the environment scripts
 * run in. Loop thread only. */
#ifndef LK_LUA_VM_H
#define LK_LUA_VM_H

#include "lua_task.h"

/* Makes runtime->lua and the scheduler. limit = bytes that scripts may use, 0 = no limit. */
int lk_vm_new(struct lk_runtime *runtime, size_t limit, struct lk_error *err);
/* Ends all tasks (see lk_tasks_close) and closes the state. */
void lk_vm_free(struct lk_runtime *runtime, double grace);
/* For a state that is somebody else's: scheduler and modules, without touching its libraries. May
 * raise. */
void lk_vm_attach(lua_State *L, struct lk_runtime *runtime);
/* Makes `require(name)` call open. 0, or -1 (LK_USAGE) for a name under lunark. */
int lk_vm_add_module(lua_State *L, const char *name, lua_CFunction open, struct lk_error *err);
/* Pushes a function made of Lua source (never bytecode) with the environment at `env`, or nil,
 * error table; how many. A first line with #! is left out. */
int lk_vm_load(lua_State *L, const char *name, const char *source, size_t len, int env);
/* Pushes source and origin (a path or "embedded") of a script by its relative name
 * ("lunark/fs.lua", "policies/files.lua", "providers/s3.lua"): script directories first. 2, or 0
 * and nothing pushed when there is none. */
int lk_vm_find(lua_State *L, const char *relative);
/* The name in the source tree, "scripts/lunark/fs.lua", of an embedded relative name and back; NULL
 * when it has none. */
const char *lk_vm_relative(const char *embedded_name);
/* True if a lower-case relative path has no component that leads elsewhere. */
bool lk_vm_safe_name(const char *relative);

/* --- lua_env.c --- */
/* Pushes a new environment for a script that is not the library's. */
void lk_push_environment(lua_State *L);
/* The require of scripts (strict) or of the library. */
int lk_require_script(lua_State *L);
int lk_require_library(lua_State *L);
/* Replaces the table at the top by a view of it that can be read and called, not changed; always
 * the same one. */
void lk_make_readonly(lua_State *L);
/* Hides what must not be reached through values every script has (the metatable of strings). */
void lk_harden(lua_State *L);

#endif
