/* SPDX-License-Identifier: MIT
 * lua_task.h - tasks: coroutines that park in an operation and are resumed by the loop. And
 * lua_util's helpers. Loop thread only. */
#ifndef LK_LUA_TASK_H
#define LK_LUA_TASK_H

#include "runtime.h"
#include <lua.h>
#include <stdbool.h>
#include <stddef.h>

/* One pending operation. It lives in userdata of the binding (so that the collector owns its
 * memory), is zeroed and set up by the binding, and is parked on; once the park has returned it can
 * be used for another. While it is pending the task anchors it.
 *
 * Life: the binding fills cancel and results, starts the work, and ends with `return
 * lk_task_park(L, index, op)`. When the work has ended, on the loop thread, it calls
 * lk_op_done(op): the task is queued and resumed from the loop, never inline. The resumed task
 * calls results(L, op), which pushes what the script gets. Cancelling a task calls op->cancel(op)
 * once; the binding then makes the work stop and still calls lk_op_done when it has; the task gets
 * an error of kind `cancelled` in place of the results. */
struct lk_op {
    void (*cancel)(struct lk_op *op); /* loop thread; may call lk_op_done at once */
    int (*results)(lua_State *L,
                   struct lk_op *op); /* pushes results, returns how many; may raise */
    struct lk_task *task;             /* private */
    struct lk_runtime *runtime;       /* set by lk_task_park */
    struct lk_event event;            /* private */
    int state;                        /* private */
    bool stopped;                     /* private */
};

/* index = the stack slot of the userdata that holds op; parking on one that another task waits for
 * is misuse. Returns only as a C function's result: `return lk_task_park(L, index, op);`. Without a
 * task it drives the loop until done and returns the results. If lk_op_done was called before, the
 * task continues at the next turn of the loop. */
int lk_task_park(lua_State *L, int index, struct lk_op *op);
void lk_op_done(struct lk_op *op);
/* Raises if a park would not be possible here (inside table.sort or the like). lk_task_park does so
 * too; call it before work is started that could not be taken back. */
void lk_task_parkable(lua_State *L);

/* The runtime that L belongs to. */
struct lk_runtime *lk_runtime_of(lua_State *L);

/* --- for lua_vm.c and lunark.c --- */
/* Makes the scheduler of a state (runtime->tasks) and replaces coroutine.resume, wrap, yield and
 * close by versions through which a park goes. */
int lk_tasks_new(lua_State *L, struct lk_runtime *runtime, struct lk_error *err);
/* Cancels every live task and drives the loop until all have ended; after `grace` seconds shields
 * hold nothing back any more, and a task that still goes on is closed by force. */
void lk_tasks_close(struct lk_runtime *runtime, double grace);
/* Cancels every live task. */
void lk_tasks_cancel_all(struct lk_runtime *runtime, const char *reason);
/* Number of live tasks. */
int lk_tasks_live(const struct lk_runtime *runtime);
void lk_tasks_free(struct lk_runtime *runtime);
/* Function and n arguments on the stack -> a Task on the stack, started at the next turn of the
 * loop. */
struct lk_task *lk_task_spawn(lua_State *L, int n);
/* Needs no memory. reason: a text that stays, or NULL. */
void lk_task_cancel(struct lk_task *task, const char *reason);
/* From a count hook: raises in the running task if it was cancelled, or is about to be
 * (runtime->cancels). */
void lk_task_interrupt(lua_State *L);
/* From the count hook: raises when a timeout of the running task, or of the whole script, is due.
 */
void lk_task_overtime(lua_State *L);
/* The task that runtime->cancels is about, NULL for none; and takes in what other threads have
 * asked for. */
void lk_task_set_main(struct lk_runtime *runtime, struct lk_task *task);
void lk_task_take_cancels(struct lk_runtime *runtime);
bool lk_task_ended(const struct lk_task *task);
/* Pushes what join gives (true, results... or false, err) and returns how many; marks the task as
 * joined. */
int lk_task_outcome(lua_State *L, struct lk_task *task);
/* Message handler for protected calls: wraps what is no error table into one and logs the traceback
 * at debug. */
int lk_traceback(lua_State *L);
/* A coroutine waits in a park when this is on top of its stack. */
bool lk_is_parked(lua_State *co);
/* Counts how deep the running task is in calls that no park can leave; lua_coro.c. */
void lk_task_barrier(lua_State *L, int change);
/* The coroutine the running task began with; NULL without a task. */
lua_State *lk_task_coroutine(lua_State *L);
void lk_push_park(lua_State *L);
/* lua_closethread, or lua_resetthread where that is all there is. */
void lk_close_coroutine(lua_State *co);
void lk_patch_coroutines(lua_State *L);

/* --- lua_util.c --- */
#define LK_ERROR_CLASS "lunark.error"
#define LK_SECRET_CLASS "lunark.secret"
struct lk_secret {
    size_t len;
    char text[]; /* NUL-terminated */
};
void lk_set_runtime(lua_State *L, struct lk_runtime *runtime);
/* Sets the metatable of error tables on the table at the top. */
void lk_set_error_class(lua_State *L);
bool lk_is_error(lua_State *L, int index);
/* Pushes nil and an error table; returns 2: `return lk_push_error(L, &err);` */
int lk_push_error(lua_State *L, const struct lk_error *err);
/* Raises the error table. */
int lk_raise(lua_State *L, const struct lk_error *err);
/* Pushes the error table alone. */
void lk_push_error_table(lua_State *L, const struct lk_error *err);
/* t[key] = value, of the table at the top. */
void lk_set_integer(lua_State *L, const char *key, uint64_t value);
/* Fills *err from any Lua value (error table, string, other). */
void lk_error_of_value(lua_State *L, int index, struct lk_error *err);
/* The same outside a protected call, where nothing may raise: for the value at the top, which it
 * takes away. */
void lk_error_of_failure(lua_State *L, struct lk_error *err);
/* Raises LK_USAGE, naming function and argument. */
int lk_misuse(lua_State *L, const char *function, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Option tables: raises for any string key of the table at index that is not in the NULL-terminated
 * list. */
void lk_check_keys(lua_State *L, int index, const char *function, const char *const *keys);
/* Option readers: raise on a wrong type, give the default when absent. Names appear in the message.
 */
lua_Integer lk_opt_integer(lua_State *L, int index, const char *key, lua_Integer min,
                           lua_Integer max, lua_Integer fallback);
/* A duration that scripts give in seconds; `seconds` is the default. */
uint64_t lk_opt_milliseconds(lua_State *L, int index, const char *key, unsigned seconds);
bool lk_opt_boolean(lua_State *L, int index, const char *key, bool fallback);
/* The string stays valid while the table holds it: pushes nothing. NULL when absent. */
const char *lk_opt_string(lua_State *L, int index, const char *key, size_t *len);
/* Text of a string or a secret; NULL for other types. */
const char *lk_text_of(lua_State *L, int index, size_t *len);
/* Makes a metatable `name` with methods, __index, __gc and __close (both `gc`), __name; leaves
 * nothing. */
struct luaL_Reg;
void lk_new_class(lua_State *L, const char *name, const struct luaL_Reg *methods, lua_CFunction gc);

/* Streams as Lua values (lua_stream.c). */
struct lk_stream;
/* Boxes first (may raise, without leak), then takes over the reference: call lk_push_stream_box,
 * acquire the stream, then store it. */
struct lk_stream **lk_push_stream_box(lua_State *L);
/* Moves the stream out of the userdata at index; raises if it is not a live stream. The caller owns
 * the reference. */
struct lk_stream *lk_take_stream(lua_State *L, int index, const char *function);
/* True if the value is a stream (live or moved). */
bool lk_is_stream(lua_State *L, int index);
/* A Part at index: NULL if it is none; raises if it is closed. Takes a reference; lk_part_unref
 * gives it back. */
struct lk_part;
struct lk_part *lk_ref_part(lua_State *L, int index, const char *function);

/* Registration: each binding file has one opener, called by lua_vm.c. */
int lk_open_task(lua_State *L);
int lk_open_sys(lua_State *L);
int lk_open_stream(lua_State *L);
int lk_open_file(lua_State *L);
int lk_open_exec(lua_State *L);
int lk_open_archive(lua_State *L);
int lk_open_check(lua_State *L);
int lk_open_index(lua_State *L);
int lk_open_http(lua_State *L);
int lk_open_crypto(lua_State *L);
int lk_open_log(lua_State *L);

#endif
