/* SPDX-License-Identifier: MIT
 * lua_task.h - tasks: coroutines that park in an operation and are resumed by the loop. And lua_util's helpers.
 * Loop thread only. */
#ifndef LK_LUA_TASK_H
#define LK_LUA_TASK_H

#include "error.h"
#include "loop.h"
#include "runtime.h"
#include <lua.h>
#include <stdbool.h>

/* One pending operation. It lives in userdata of the binding (so that the collector owns its memory), is set up by
 * the binding, and is parked on once. While it is pending the task anchors it.
 *
 * Life: the binding fills cancel and results, starts the work, and ends with `return lk_task_park(L, index, op)`. When
 * the work has ended, on the loop thread, it calls lk_op_done(op): the task is queued and resumed from the loop,
 * never inline. The resumed task calls results(L, op), which pushes what the script gets.
 * Cancelling a task calls op->cancel(op) once; the binding then makes the work stop and still calls lk_op_done when
 * it has; the task gets an error of kind `cancelled` in place of the results. */
struct lk_op {
    void (*cancel)(struct lk_op *op);               /* loop thread; may call lk_op_done at once */
    int (*results)(lua_State *L, struct lk_op *op); /* pushes results, returns how many; may raise */
    struct lk_task *task;                           /* private */
    struct lk_runtime *runtime;                     /* set by lk_task_park */
    struct lk_event event;                          /* private */
    int state;                                      /* private */
};

/* index = the stack slot of the userdata that holds op. Returns only as a C function's result:
 * `return lk_task_park(L, index, op);`. Without a task it drives the loop until done and returns the results. If
 * lk_op_done was called before, the task continues at the next turn of the loop. */
int lk_task_park(lua_State *L, int index, struct lk_op *op);
void lk_op_done(struct lk_op *op);

/* The runtime that L belongs to. */
struct lk_runtime *lk_runtime_of(lua_State *L);

/* --- lua_util.c --- */
/* Pushes nil and an error table; returns 2: `return lk_push_error(L, &err);` */
int lk_push_error(lua_State *L, const struct lk_error *err);
/* Raises the error table. */
int lk_raise(lua_State *L, const struct lk_error *err);
/* Pushes the error table alone. */
void lk_push_error_table(lua_State *L, const struct lk_error *err);
/* Fills *err from any Lua value (error table, string, other). */
void lk_error_of_value(lua_State *L, int index, struct lk_error *err);
/* Raises LK_USAGE, naming function and argument. */
int lk_misuse(lua_State *L, const char *function, const char *format, ...);
/* Option tables: raises for any string key of the table at index that is not in the NULL-terminated list. */
void lk_check_keys(lua_State *L, int index, const char *function, const char *const *keys);
/* Option readers: raise on a wrong type, give the default when absent. Names appear in the message. */
lua_Integer lk_opt_integer(lua_State *L, int index, const char *key, lua_Integer min, lua_Integer max,
                           lua_Integer fallback);
lua_Number lk_opt_seconds(lua_State *L, int index, const char *key, lua_Number fallback);
bool lk_opt_boolean(lua_State *L, int index, const char *key, bool fallback);
/* The string stays valid while the table holds it: pushes nothing. NULL when absent. */
const char *lk_opt_string(lua_State *L, int index, const char *key, size_t *len);
/* Text of a string or a secret; NULL for other types. */
const char *lk_text_of(lua_State *L, int index, size_t *len);
/* Makes a metatable `name` with methods, __index, __gc and __close (both `gc`), __name; leaves nothing. */
struct luaL_Reg;
void lk_new_class(lua_State *L, const char *name, const struct luaL_Reg *methods, lua_CFunction gc);

/* Streams as Lua values (lua_stream.c). */
struct lk_stream;
/* Boxes first (may raise, without leak), then takes over the reference: call lk_push_stream_box, acquire the stream,
 * then store it. */
struct lk_stream **lk_push_stream_box(lua_State *L);
/* Moves the stream out of the userdata at index; raises if it is not a live stream. The caller owns the reference. */
struct lk_stream *lk_take_stream(lua_State *L, int index, const char *function);
/* True if the value is a stream (live or moved). */
bool lk_is_stream(lua_State *L, int index);
/* A Part at index: NULL if it is none; raises if it is closed. Takes a reference; lk_part_unref gives it back. */
struct lk_part;
struct lk_part *lk_ref_part(lua_State *L, int index, const char *function);

/* Registration: each binding file has one opener, called by lua_vm.c. */
int lk_open_task(lua_State *L);
int lk_open_sys(lua_State *L);
int lk_open_stream(lua_State *L);
int lk_open_file(lua_State *L);
int lk_open_exec(lua_State *L);
int lk_open_archive(lua_State *L);
int lk_open_http(lua_State *L);
int lk_open_crypto(lua_State *L);
int lk_open_log(lua_State *L);

#endif
