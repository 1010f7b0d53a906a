/* SPDX-License-Identifier: MIT
 * lua_task.c - the scheduler: coroutines that park in an operation and are resumed by the loop.
 *
 * Owns every task from its start to its end, and the scopes (shield, timeout) that decide what a
 * cancellation may reach. A task is never resumed from inside another one or from a completion: it
 * is queued on the loop. With no task running, which is the case in a plain Lua, `root` stands for
 * the caller and a park drives the loop.
 *
 * A cancellation is not an event but a state: `pending` looks at scopes and flags each time a task
 * parks or is resumed, so a script that catches the error meets it again at the next park.
 *
 * Never lets a Lua error out into the loop. Loop thread only. */
#include "lua_sched.h"
#include <lauxlib.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* How often a task may still be resumed after the grace of lk_tasks_close before it is closed by
 * force. */
#define LAST_TURNS 64

/* Address = what a parked coroutine yields; and the key of the table of live tasks in the registry.
 */
static const char park_mark = 0;
static const char live_key = 0;

/* --- parking --- */

bool lk_is_parked(lua_State *co)
{
    return lua_status(co) == LUA_YIELD && lua_gettop(co) > 0 &&
           lua_touserdata(co, -1) == (const void *)&park_mark;
}

void lk_push_park(lua_State *L)
{
    lua_pushlightuserdata(L, (void *)(uintptr_t)&park_mark);
}

void lk_task_barrier(lua_State *L, int change)
{
    lk_runtime_of(L)->tasks->current->barrier += change;
}

lua_State *lk_task_coroutine(lua_State *L)
{
    return lk_runtime_of(L)->tasks->current->co;
}

static void set_slot(lua_State *L, struct lk_task *task, int slot)
{
    lua_rawgetp(L, LUA_REGISTRYINDEX, &live_key); /* value live */
    lua_rawgetp(L, -1, task);                     /* value live task */
    lua_pushvalue(L, -3);                         /* value live task value */
    lua_setiuservalue(L, -2, slot);
    lua_pop(L, 3);
}

void lk_push_task(lua_State *L, struct lk_task *task)
{
    lua_rawgetp(L, LUA_REGISTRYINDEX, &live_key);
    lua_rawgetp(L, -1, task);
    lua_remove(L, -2);
}

/* The scope whose time is up or NULL; *cancelled says that the task itself was cancelled. A shield
 * hides what lies further out. */
static struct lk_scope *pending(struct lk_task *task, bool *cancelled)
{
    *cancelled = false;
    bool hard = task->runtime->tasks->hard;
    for (struct lk_scope *scope = task->scopes; scope != NULL; scope = scope->next) {
        if (scope->shield && !scope->expired && !hard)
            return NULL;
        if (!scope->shield && scope->expired)
            return scope;
    }
    *cancelled = task->cancelled;
    return NULL;
}

bool lk_task_pending(struct lk_task *task)
{
    bool cancelled;
    return pending(task, &cancelled) != NULL || cancelled;
}

static void push_cancelled(lua_State *L, struct lk_task *task)
{
    struct lk_error err;
    lk_error_set(&err, LK_CANCELLED, "cancelled");
    if (task->co != NULL && task->state != TASK_ENDED) {
        if (task->reason != NULL)
            snprintf(err.message, sizeof err.message, "%s", task->reason);
        lk_push_task(L, task);
        if (lua_getiuservalue(L, -1, SLOT_REASON) == LUA_TSTRING)
            snprintf(err.message, sizeof err.message, "%s", lua_tostring(L, -1));
        lua_pop(L, 2);
    }
    lk_push_error_table(L, &err);
}

/* Raises what is pending; returns if nothing is. */
static void raise_pending(lua_State *L, struct lk_task *task)
{
    bool cancelled;
    struct lk_scope *scope = pending(task, &cancelled);
    if (scope != NULL) {
        struct lk_error err;
        lk_error_set(&err, LK_TIMEOUT, "timed out after %g s", scope->seconds);
        lk_raise(L, &err);
    }
    if (cancelled) {
        push_cancelled(L, task);
        lua_error(L);
    }
}

/* Makes the operation the task waits for stop, if something pending may reach it. */
static void stop_op(struct lk_task *task)
{
    struct lk_op *op = task->op;
    if (op == NULL || op->state != OP_PARKED || op->stopped || !lk_task_pending(task))
        return;
    op->stopped = true;
    if (op->cancel != NULL)
        op->cancel(op);
}

/* The operation has ended: what the script gets. */
static int finish_op(lua_State *L, struct lk_task *task, struct lk_op *op)
{
    struct lk_tasks *tasks = task->runtime->tasks;
    tasks->op_count--;
    task->op = NULL;
    op->state = OP_IDLE;
    op->task = NULL;
    op->stopped = false;
    raise_pending(L, task);
    return op->results(L, op);
}

static int after_park(lua_State *L, int status, lua_KContext context)
{
    (void)status;
    struct lk_op *op = (struct lk_op *)context; /* NOLINT: lua_KContext is an intptr_t */
    struct lk_task *task = op->task;
    if (task->co != NULL) {
        lua_pushnil(L);
        set_slot(L, task, SLOT_OP);
    }
    return finish_op(L, task, op);
}

static int drive(lua_State *L, struct lk_task *root, struct lk_op *op)
{
    struct lk_error err;
    while (op->state != OP_DONE)
        if (lk_loop_step(root->runtime->loop, -1, &err) < 0)
            lk_log_write(root->runtime->log, LK_ERROR, NULL, 0, "event loop: %s", err.message);
    return finish_op(L, root, op);
}

void lk_task_parkable(lua_State *L)
{
    struct lk_task *task = lk_task_current(L);
    if (task->co == NULL || (lua_isyieldable(L) && task->barrier == 0))
        return;
    lk_misuse(L, "task",
              "can't wait here: a function of C is in between that can't be left and entered "
              "again (table.sort, string.gsub, tostring, a finalizer)");
}

int lk_task_park(lua_State *L, int index, struct lk_op *op)
{
    index = lua_absindex(L, index);
    struct lk_runtime *runtime = lk_runtime_of(L);
    struct lk_task *task = runtime->tasks->current;
    if (op->state == OP_PARKED)
        return lk_misuse(L, "task", "another task waits for this operation already");
    lk_task_parkable(L);
    if (task->co != NULL) {
        lua_pushvalue(L, index);
        set_slot(L, task, SLOT_OP);
    }
    op->runtime = runtime;
    op->task = task;
    op->stopped = false;
    task->op = op;
    runtime->tasks->op_count++;
    if (op->state == OP_DONE) {
        if (task->co != NULL)
            lk_loop_post(runtime->loop, &task->wake);
    } else {
        op->state = OP_PARKED;
        stop_op(task);
    }
    if (task->co == NULL)
        return drive(L, task, op);
    lk_push_park(L);
    return lua_yieldk(L, 1, (lua_KContext)op, after_park);
}

void lk_op_done(struct lk_op *op)
{
    bool parked = op->state == OP_PARKED;
    op->state = OP_DONE;
    if (parked && op->task->co != NULL)
        lk_loop_post(op->runtime->loop, &op->task->wake);
}

/* --- running --- */

int lk_traceback(lua_State *L)
{
    struct lk_runtime *runtime = lk_runtime_of(L);
    bool table = lua_type(L, 1) == LUA_TTABLE;
    struct lk_error err;
    lk_error_of_value(L, 1, &err);
    if (err.kind != LK_CANCELLED && runtime != NULL) {
        luaL_traceback(L, L, err.message, 1);
        lk_log_write(runtime->log, LK_DEBUG, NULL, 0, "%s", lua_tostring(L, -1));
        lua_pop(L, 1);
    }
    if (table)
        return 1;
    snprintf(err.op, sizeof err.op, "script");
    lk_push_error_table(L, &err);
    return 1;
}

/* Leaves true, results... or false, err. */
static int body_done(lua_State *L, int status, lua_KContext context)
{
    (void)context;
    if (status == LUA_ERRMEM) {
        struct lk_error err;
        lk_error_of_value(L, -1, &err);
        lk_push_error_table(L, &err);
        lua_replace(L, -2);
    }
    lua_pushboolean(L, status == LUA_OK || status == LUA_YIELD);
    lua_replace(L, 1);
    return lua_gettop(L);
}

static int body(lua_State *L)
{
    lua_pushcfunction(L, lk_traceback);
    lua_insert(L, 1);
    return body_done(L, lua_pcallk(L, lua_gettop(L) - 2, LUA_MULTRET, 1, 0, body_done), 0);
}

static void unlink_live(struct lk_task *task)
{
    struct lk_tasks *tasks = task->runtime->tasks;
    if (task->prev != NULL)
        task->prev->next = task->next;
    else
        tasks->live = task->next;
    if (task->next != NULL)
        task->next->prev = task->prev;
    task->next = task->prev = NULL;
    tasks->live_count--;
}

/* The outcome is on the task's stack. May raise for want of memory only at its last step. */
static void end_task(lua_State *L, struct lk_task *task)
{
    task->state = TASK_ENDED;
    if (task->runtime->tasks->main == task)
        task->runtime->tasks->main = NULL;
    task->failed = task->lost || !lua_toboolean(task->co, 1);
    lk_loop_unpost(task->runtime->loop, &task->wake);
    unlink_live(task);
    while (task->scopes != NULL)
        lk_scope_leave(task->scopes);
    task->joined = task->joins != NULL;
    for (struct join *join = task->joins, *next; join != NULL; join = next) {
        next = join->next;
        join->next = NULL;
        lk_op_done(&join->op);
    }
    task->joins = NULL;
    lua_rawgetp(L, LUA_REGISTRYINDEX, &live_key);
    if (lua_rawgetp(L, -1, task) == LUA_TUSERDATA) {
        if (lua_getiuservalue(L, -1, SLOT_WATCHER) == LUA_TUSERDATA)
            lk_event_wake(L, -1);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    lua_pushnil(L);
    lua_rawsetp(L, -2, task);
    lua_pop(L, 1);
}

/* Replaces whatever is on the task's stack by false and the error at the top of it. */
static void keep_error(lua_State *co)
{
    lua_pushboolean(co, 0);
    lua_insert(co, -2);
    while (lua_gettop(co) > 2)
        lua_remove(co, 1);
}

void lk_close_coroutine(lua_State *co)
{
#if LUA_VERSION_RELEASE_NUM >= 50406
    lua_closethread(co, NULL);
#else
    lua_resetthread(co);
#endif
}

/* Ends a task that doesn't end by itself; its operation is over. */
static void force_end(lua_State *L, struct lk_task *task)
{
    if (task->op != NULL) {
        task->runtime->tasks->op_count--;
        task->op->state = OP_IDLE;
        task->op = NULL;
    }
    lk_close_coroutine(task->co);
    lua_settop(task->co, 0);
    push_cancelled(task->co, task);
    keep_error(task->co);
    end_task(L, task);
}

/* Every outcome of lua_resume is translated here. */
static int run_task(lua_State *L)
{
    struct lk_task *task = lua_touserdata(L, 1);
    struct lk_tasks *tasks = task->runtime->tasks;
    lua_State *co = task->co;
    int nargs = 0, nresults = 0;
    if (task->state == TASK_NEW) {
        nargs = lua_gettop(co) - 1; /* of body: the script's function and its arguments */
        if (task->cancelled) {
            lua_settop(co, 0);
            push_cancelled(co, task);
            keep_error(co);
            end_task(L, task);
            return 0;
        }
    } else {
        if (tasks->hard && ++task->last_turns > LAST_TURNS) {
            force_end(L, task);
            return 0;
        }
        lua_pop(co, 1); /* park_mark */
    }
    task->state = TASK_RUNNING;
    tasks->current = task;
    int status = lua_resume(co, L, nargs, &nresults);
    tasks->current = &tasks->root;
    if (status == LUA_YIELD && lk_is_parked(co)) {
        task->state = TASK_PARKED;
        return 0;
    }
    if (status == LUA_YIELD) { /* a hook stopped it */
        force_end(L, task);
        return 0;
    }
    if (status != LUA_OK)
        keep_error(co);
    end_task(L, task);
    return 0;
}

static void wake(struct lk_event *event)
{
    struct lk_task *task = (struct lk_task *)((char *)event - offsetof(struct lk_task, wake));
    struct lk_tasks *tasks = task->runtime->tasks;
    if (tasks == NULL) /* the state is being closed */
        return;
    lua_State *L = tasks->L;
    lua_pushcfunction(L, run_task);
    lua_pushlightuserdata(L, task);
    if (lua_pcall(L, 1, 0, 0) == LUA_OK)
        return;
    lua_pop(L, 1);
    tasks->current = &tasks->root;
    lk_log_write(task->runtime->log, LK_ERROR, NULL, 0, "out of memory for scripts");
    task->lost = true;
    if (task->state != TASK_ENDED)
        end_task(L, task);
}

struct lk_task *lk_task_spawn(lua_State *L, int n)
{
    struct lk_runtime *runtime = lk_runtime_of(L);
    struct lk_tasks *tasks = runtime->tasks;
    int function = lua_gettop(L) - n;
    struct lk_task *task = lua_newuserdatauv(L, sizeof *task, SLOT_COUNT);
    memset(task, 0, sizeof *task);
    task->runtime = runtime;
    task->state = TASK_ENDED; /* until it is complete */
    task->joined = true;
    luaL_setmetatable(L, TASK_CLASS);
    task->co = lua_newthread(L);
    lua_setiuservalue(L, -2, SLOT_THREAD);
    if (!lua_checkstack(task->co, n + 8))
        luaL_error(L, "too many arguments");
    lua_rawgetp(L, LUA_REGISTRYINDEX, &live_key);
    lua_pushvalue(L, -2);
    lua_rawsetp(L, -2, task);
    lua_pop(L, 1);
    lua_insert(L, function); /* task function arguments... */
    lua_pushcfunction(task->co, body);
    lua_xmove(L, task->co, n + 1);
    task->joined = false;
    task->state = TASK_NEW;
    task->wake.run = wake;
    task->next = tasks->live;
    if (tasks->live != NULL)
        tasks->live->prev = task;
    tasks->live = task;
    tasks->live_count++;
    lk_loop_post(runtime->loop, &task->wake);
    return task;
}

/* --- cancelling --- */

void lk_task_poke(struct lk_task *task, struct lk_scope *source)
{
    for (struct lk_scope *scope = task->scopes; scope != source; scope = scope->next)
        if (scope->shield)
            lk_scope_hold(scope);
    stop_op(task);
}

void lk_task_cancel(struct lk_task *task, const char *reason)
{
    if (task->state == TASK_ENDED || task->cancelled)
        return;
    task->cancelled = true;
    task->reason = reason;
    lk_task_poke(task, NULL);
}

void lk_task_set_main(struct lk_runtime *runtime, struct lk_task *task)
{
    runtime->tasks->main = task;
    runtime->tasks->hard = false;
}

void lk_task_take_cancels(struct lk_runtime *runtime)
{
    struct lk_tasks *tasks = runtime->tasks;
    int cancels = atomic_load(&runtime->cancels);
    if (cancels > 0 && tasks->main != NULL)
        lk_task_cancel(tasks->main, "cancelled by the host");
    if (cancels > 1 && !tasks->hard) {
        tasks->hard = true;
        for (struct lk_task *task = tasks->live; task != NULL; task = task->next)
            stop_op(task);
    }
}

/* True if a timeout of the task is due, also one that the loop had no chance to see. */
static bool overdue(struct lk_task *task)
{
    bool cancelled;
    for (struct lk_scope *scope = task->scopes; scope != NULL; scope = scope->next)
        scope->expired = scope->expired || lk_timer_overdue(&scope->timer);
    return pending(task, &cancelled) != NULL;
}

void lk_task_overtime(lua_State *L)
{
    struct lk_tasks *tasks = lk_runtime_of(L)->tasks;
    struct lk_task *task = tasks->current;
    if (task->co == NULL)
        return;
    /* A task that never parks must not outlive the time of the whole script either. */
    bool all = tasks->main != NULL && tasks->main != task && overdue(tasks->main);
    if (all)
        lk_task_cancel(task, "the time of the script is up");
    if (overdue(task) || all)
        raise_pending(L, task);
}

void lk_task_interrupt(lua_State *L)
{
    struct lk_runtime *runtime = lk_runtime_of(L);
    struct lk_task *task = runtime->tasks->current;
    lk_task_take_cancels(runtime);
    if (task->co == NULL || !lk_task_pending(task))
        return;
    /* Whoever catches the error and goes on computing meets it again at the next instruction, on
     * each level out to the first. */
    if (runtime->tasks->hard && ++task->last_turns > LAST_TURNS)
        lua_sethook(L, lua_gethook(L), LUA_MASKCOUNT, 1);
    raise_pending(L, task);
}

bool lk_task_ended(const struct lk_task *task)
{
    return task->state == TASK_ENDED;
}

struct lk_task *lk_task_current(lua_State *L)
{
    return lk_runtime_of(L)->tasks->current;
}

struct lk_scope **lk_task_scopes(struct lk_task *task)
{
    return &task->scopes;
}

/* --- the scheduler's own life --- */

static int open_tasks(lua_State *L)
{
    struct lk_runtime *runtime = lua_touserdata(L, 1);
    lk_set_runtime(L, runtime);
    lua_newtable(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &live_key);
    lk_open_task_class(L);
    lk_patch_coroutines(L);
    return 0;
}

int lk_tasks_new(lua_State *L, struct lk_runtime *runtime, struct lk_error *err)
{
    struct lk_tasks *tasks = calloc(1, sizeof *tasks);
    if (tasks == NULL)
        return lk_error_set(err, LK_MEMORY, "no memory for the scheduler");
    tasks->runtime = runtime;
    tasks->L = L;
    tasks->root.runtime = runtime;
    tasks->root.state = TASK_RUNNING;
    tasks->current = &tasks->root;
    runtime->tasks = tasks;
    lua_pushcfunction(L, open_tasks);
    lua_pushlightuserdata(L, runtime);
    if (lua_pcall(L, 1, 0, 0) == LUA_OK)
        return 0;
    lua_pop(L, 1);
    lk_tasks_free(runtime);
    return lk_error_set(err, LK_MEMORY, "no memory for the scheduler");
}

static void turn(struct lk_runtime *runtime, int timeout_ms)
{
    struct lk_error err;
    if (lk_loop_step(runtime->loop, timeout_ms, &err) < 0)
        lk_log_write(runtime->log, LK_ERROR, NULL, 0, "event loop: %s", err.message);
}

void lk_tasks_cancel_all(struct lk_runtime *runtime, const char *reason)
{
    for (struct lk_task *task = runtime->tasks->live; task != NULL; task = task->next)
        lk_task_cancel(task, reason);
}

int lk_tasks_live(const struct lk_runtime *runtime)
{
    return runtime->tasks->live_count;
}

void lk_tasks_close(struct lk_runtime *runtime, double grace)
{
    struct lk_tasks *tasks = runtime->tasks;
    uint64_t limit = lk_now_ns() + (uint64_t)(grace * 1e9);
    while (tasks->live_count > 0 && lk_now_ns() < limit) {
        lk_tasks_cancel_all(runtime, "the runtime is closing");
        turn(runtime, 100);
    }
    /* An operation that was told to stop ends: its contract. What may be in the way is a shield, or
     * a script that goes on regardless and meets LAST_TURNS. */
    tasks->hard = true;
    while (tasks->live_count > 0) {
        lk_tasks_cancel_all(runtime, "the runtime is closing");
        for (struct lk_task *task = tasks->live; task != NULL; task = task->next)
            stop_op(task);
        turn(runtime, 100);
    }
}

void lk_tasks_free(struct lk_runtime *runtime)
{
    free(runtime->tasks);
    runtime->tasks = NULL;
}
