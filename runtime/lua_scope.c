/* SPDX-License-Identifier: MIT
 * lua_scope.c - waiting and its limits: sleep, timeout, shield, and the event that tasks wake each
 * other with. Owns the timers. Loop thread only. */
#include "lua_scope.h"
#include <lauxlib.h>
#include <math.h>
#include <string.h>

#define SCOPE_CLASS "lunark.scope"
#define SLEEP_CLASS "lunark.sleep"
#define EVENT_CLASS "lunark.event"

#define SHIELD_SECONDS 20
#define LONGEST_SECONDS 1e9

/* Rounded up, so that a task doesn't wake before its time. */
static uint64_t milliseconds(double seconds)
{
    return (uint64_t)ceil(fmin(seconds, LONGEST_SECONDS) * 1000);
}

static double check_seconds(lua_State *L, int index, const char *function)
{
    int is_number;
    double seconds = lua_tonumberx(L, index, &is_number);
    if (!is_number || lua_type(L, index) != LUA_TNUMBER || isnan(seconds) || seconds < 0)
        lk_misuse(L, function, "expected a number of seconds, 0 or more, got %s",
                  luaL_tolstring(L, index, NULL));
    return seconds;
}

static void arm(lua_State *L, struct lk_runtime *runtime, struct lk_timer *timer, double seconds)
{
    struct lk_error err;
    if (lk_loop_arm(runtime->loop, timer, milliseconds(seconds), &err) < 0)
        lk_raise(L, &err);
}

/* --- sleep --- */

struct nap {
    struct lk_op op;
    struct lk_timer timer;
    struct lk_runtime *runtime;
};

static void nap_over(struct lk_timer *timer)
{
    lk_op_done(timer->arg);
}

static void nap_cancel(struct lk_op *op)
{
    struct nap *nap = (struct nap *)op;
    lk_loop_disarm(nap->runtime->loop, &nap->timer);
    lk_op_done(op);
}

static int nap_gc(lua_State *L)
{
    struct nap *nap = luaL_checkudata(L, 1, SLEEP_CLASS);
    lk_loop_disarm(nap->runtime->loop, &nap->timer);
    return 0;
}

static int no_results(lua_State *L, struct lk_op *op)
{
    (void)L;
    (void)op;
    return 0;
}

static int task_sleep(lua_State *L)
{
    double seconds = check_seconds(L, 1, "task.sleep");
    struct nap *nap = lua_newuserdatauv(L, sizeof *nap, 0);
    memset(nap, 0, sizeof *nap);
    nap->op.cancel = nap_cancel;
    nap->op.results = no_results;
    nap->runtime = lk_runtime_of(L);
    nap->timer.expired = nap_over;
    nap->timer.arg = &nap->op;
    luaL_setmetatable(L, SLEEP_CLASS);
    arm(L, nap->runtime, &nap->timer, seconds);
    return lk_task_park(L, -1, &nap->op);
}

/* --- events: any number of tasks wait, wake() lets all of them go on --- */

struct event;

struct waiting {
    struct lk_op op;
    struct event *event;
    struct waiting *next;
};

struct event {
    struct waiting *first;
};

static void wait_leave(struct waiting *waiting)
{
    struct waiting **place = &waiting->event->first;
    while (*place != NULL && *place != waiting)
        place = &(*place)->next;
    if (*place != NULL)
        *place = waiting->next;
    waiting->next = NULL;
}

static void wait_cancel(struct lk_op *op)
{
    wait_leave((struct waiting *)op);
    lk_op_done(op);
}

static int event_wait(lua_State *L)
{
    struct event *event = luaL_checkudata(L, 1, EVENT_CLASS);
    lua_settop(L, 1);
    struct waiting *waiting = lua_newuserdatauv(L, sizeof *waiting, 1);
    memset(waiting, 0, sizeof *waiting);
    waiting->op.cancel = wait_cancel;
    waiting->op.results = no_results;
    waiting->event = event;
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, 2, 1);
    lk_task_parkable(L);
    struct waiting **place = &event->first;
    while (*place != NULL)
        place = &(*place)->next;
    *place = waiting;
    return lk_task_park(L, 2, &waiting->op);
}

void lk_event_check(lua_State *L, int index)
{
    luaL_checkudata(L, index, EVENT_CLASS);
}

void lk_event_wake(lua_State *L, int index)
{
    struct event *event = lua_touserdata(L, index);
    while (event->first != NULL) {
        struct waiting *waiting = event->first;
        event->first = waiting->next;
        waiting->next = NULL;
        lk_op_done(&waiting->op);
    }
}

static int event_wake(lua_State *L)
{
    lk_event_check(L, 1);
    lk_event_wake(L, 1);
    return 0;
}

static int task_event(lua_State *L)
{
    struct event *event = lua_newuserdatauv(L, sizeof *event, 0);
    event->first = NULL;
    luaL_setmetatable(L, EVENT_CLASS);
    return 1;
}

/* --- scopes --- */

void lk_scope_leave(struct lk_scope *scope)
{
    if (scope->task == NULL)
        return;
    struct lk_scope **place = lk_task_scopes(scope->task);
    while (*place != scope)
        place = &(*place)->next;
    *place = scope->next;
    lk_loop_disarm(scope->loop, &scope->timer);
    scope->task = NULL;
}

static int scope_gc(lua_State *L)
{
    lk_scope_leave(luaL_checkudata(L, 1, SCOPE_CLASS));
    return 0;
}

static void scope_expired(struct lk_timer *timer)
{
    struct lk_scope *scope = timer->arg;
    scope->expired = true;
    lk_task_poke(scope->task, scope);
}

void lk_scope_hold(struct lk_scope *scope)
{
    if (scope->held)
        return;
    scope->held = true;
    /* Without memory for a timer there is no time to hold anything back. */
    if (lk_loop_arm(scope->loop, &scope->timer, milliseconds(scope->seconds), NULL) < 0)
        scope->expired = true;
}

/* [seconds, function, arguments...] -> [scope, function, arguments...], scope entered. */
static struct lk_scope *enter(lua_State *L, double seconds, bool shield)
{
    struct lk_scope *scope = lua_newuserdatauv(L, sizeof *scope, 0);
    memset(scope, 0, sizeof *scope);
    scope->loop = lk_runtime_of(L)->loop;
    scope->timer.expired = scope_expired;
    scope->timer.arg = scope;
    scope->seconds = seconds;
    scope->shield = shield;
    luaL_setmetatable(L, SCOPE_CLASS);
    lua_replace(L, 1);
    struct lk_task *task = lk_task_current(L);
    bool held = shield && lk_task_pending(task);
    if (!shield)
        arm(L, lk_runtime_of(L), &scope->timer, seconds);
    scope->task = task;
    scope->next = *lk_task_scopes(task);
    *lk_task_scopes(task) = scope;
    if (held)
        lk_scope_hold(scope);
    return scope;
}

static int timeout_done(lua_State *L, int status, lua_KContext context)
{
    struct lk_scope *scope = (struct lk_scope *)context;
    bool expired = scope->expired;
    lk_scope_leave(scope);
    if (status == LUA_OK || status == LUA_YIELD)
        return lua_gettop(L) - 1;
    struct lk_error err;
    lk_error_of_value(L, -1, &err);
    if (!expired || err.kind != LK_TIMEOUT)
        return lua_error(L);
    lua_pushnil(L);
    lua_insert(L, -2);
    return 2;
}

static int task_timeout(lua_State *L)
{
    double seconds = check_seconds(L, 1, "task.timeout");
    if (!lua_isfunction(L, 2))
        return lk_misuse(L, "task.timeout", "expected a function, got %s", luaL_typename(L, 2));
    struct lk_scope *scope = enter(L, seconds, false);
    lua_KContext context = (lua_KContext)scope;
    return timeout_done(L, lua_pcallk(L, lua_gettop(L) - 2, LUA_MULTRET, 0, context, timeout_done),
                        context);
}

static int shield_done(lua_State *L, int status, lua_KContext context)
{
    lk_scope_leave((struct lk_scope *)context);
    if (status == LUA_OK || status == LUA_YIELD)
        return lua_gettop(L) - 1;
    return lua_error(L);
}

static int task_shield(lua_State *L)
{
    double seconds = lua_isnoneornil(L, 2) ? SHIELD_SECONDS : check_seconds(L, 2, "task.shield");
    if (!lua_isfunction(L, 1))
        return lk_misuse(L, "task.shield", "expected a function, got %s", luaL_typename(L, 1));
    lua_settop(L, 1);
    lua_pushnil(L);
    lua_insert(L, 1);
    lua_KContext context = (lua_KContext)enter(L, seconds, true);
    return shield_done(L, lua_pcallk(L, 0, LUA_MULTRET, 0, context, shield_done), context);
}

static const luaL_Reg functions[] = {{"sleep", task_sleep},
                                     {"timeout", task_timeout},
                                     {"shield", task_shield},
                                     {"event", task_event},
                                     {NULL, NULL}};

static const luaL_Reg event_methods[] = {{"wait", event_wait}, {"wake", event_wake}, {NULL, NULL}};

static const luaL_Reg no_methods[] = {{NULL, NULL}};

void lk_open_scope(lua_State *L)
{
    lk_new_class(L, SCOPE_CLASS, no_methods, scope_gc);
    lk_new_class(L, SLEEP_CLASS, no_methods, nap_gc);
    lk_new_class(L, EVENT_CLASS, event_methods, NULL);
    luaL_setfuncs(L, functions, 0);
}
