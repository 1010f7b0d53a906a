/* SPDX-License-Identifier: MIT
 * lua_run.h - runs one script after the other in a runtime: what lunark.c needs of the Lua side.
 * Includes no Lua. Loop thread only. */
#ifndef LK_LUA_RUN_H
#define LK_LUA_RUN_H

#include "runtime.h"

struct lk_task;

/* Zeroed at first. */
struct lk_run {
    struct lk_task *task; /* the main chunk; anchored in the registry */
    bool started;
    bool wound_up; /* the main chunk has ended, and what it left was cancelled */
    char *result;  /* malloc'ed text of the first value, or NULL */
};

/* Makes the Lua state of a runtime; limit = bytes for Lua, 0 = no limit. */
int lk_run_open(struct lk_runtime *runtime, size_t limit, struct lk_error *err);
/* Unwinds what is alive (see lk_tasks_close) and closes the state. */
void lk_run_close(struct lk_runtime *runtime, double grace);
int lk_run_add_module(struct lk_runtime *runtime, const char *name, int (*open)(struct lua_State *),
                      struct lk_error *err);

/* args: NULL-terminated, or NULL. */
int lk_run_start(struct lk_runtime *runtime, struct lk_run *script, const char *name,
                 const char *source, size_t len, const char *const *args, struct lk_error *err);
/* 1 = it runs, 0 = it has ended (or none was started), -1. */
int lk_run_step(struct lk_runtime *runtime, struct lk_run *script, int timeout_ms,
                struct lk_error *err);
/* What an ended script raised, or gave as nil, err; or sets script->result. */
int lk_run_finish(struct lk_runtime *runtime, struct lk_run *script, struct lk_error *err);

#endif
