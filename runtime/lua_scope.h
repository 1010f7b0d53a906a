/* SPDX-License-Identifier: MIT
 * lua_scope.h - what stands between a task and its cancellation: shields and timeouts. Shared by
 * lua_task.c, which decides, and lua_scope.c, which makes them. Loop thread only. */
#ifndef LK_LUA_SCOPE_H
#define LK_LUA_SCOPE_H

#include "lua_task.h"

struct lk_task;

/* In userdata on the stack of the function that runs inside it; linked in its task while that
 * function runs. */
struct lk_scope {
    struct lk_task *task; /* NULL once it was left */
    struct lk_scope *next;
    struct lk_loop *loop;
    struct lk_timer timer;
    double seconds;
    bool shield;  /* else a timeout */
    bool expired; /* a timeout is due; a shield holds nothing back any more */
    bool held;    /* a shield's time is running */
};

/* Unlinks and disarms. Idempotent. */
void lk_scope_leave(struct lk_scope *scope);
/* Something waits outside a shield: its time begins, unless it has begun. */
void lk_scope_hold(struct lk_scope *scope);

/* lua_task.c */
struct lk_task *lk_task_current(lua_State *L);
struct lk_scope **lk_task_scopes(struct lk_task *task);
/* True if a cancellation or a timeout may reach the task now. */
bool lk_task_pending(struct lk_task *task);
/* Lets something new outside the shields that are further in than `source` (NULL = all) take
 * effect. */
void lk_task_poke(struct lk_task *task, struct lk_scope *source);

/* Wakes all who wait for the event at index. Never raises. */
void lk_event_wake(lua_State *L, int index);
/* Raises unless an event is at index. */
void lk_event_check(lua_State *L, int index);

/* lua_scope.c: adds sleep, timeout, shield and event to the module at the top. */
void lk_open_scope(lua_State *L);

#endif
