/* SPDX-License-Identifier: MIT
 * lua_sched.h - what a task and the scheduler consist of. Shared by lua_task.c, which runs tasks,
 * and lua_join.c, which gives them to scripts. Loop thread only. */
#ifndef LK_LUA_SCHED_H
#define LK_LUA_SCHED_H

#include "lua_scope.h"

enum { OP_IDLE, OP_PARKED, OP_DONE };
enum { TASK_NEW, TASK_RUNNING, TASK_PARKED, TASK_ENDED };
enum { SLOT_THREAD = 1, SLOT_OP = 2, SLOT_REASON = 3, SLOT_WATCHER = 4, SLOT_COUNT = 4 };

#define TASK_CLASS "lunark.task"

struct join;

struct lk_task {
    struct lk_runtime *runtime;
    lua_State *co; /* anchored in SLOT_THREAD; NULL for root */
    struct lk_op *op;
    struct lk_scope *scopes; /* innermost first */
    struct join *joins;
    struct lk_task *next, *prev; /* live tasks */
    struct lk_event wake;
    const char *reason; /* of its cancellation, unless SLOT_REASON has a script's own */
    int state;
    int barrier;
    int last_turns;
    bool cancelled;
    bool failed;
    bool joined;
    bool silent; /* whoever started it learns of a failure in another way */
    bool lost;   /* no memory even for the error: the outcome is not on the stack */
};

struct lk_tasks {
    struct lk_runtime *runtime;
    lua_State *L;
    struct lk_task root;
    struct lk_task *current;
    struct lk_task *main; /* the script's main chunk */
    struct lk_task *live;
    int live_count;
    int op_count;
    bool hard; /* shields hold nothing back any more */
};

struct join {
    struct lk_op op;
    struct lk_task *target;
    struct join *next;
};

/* Pushes the userdata of a live task. */
void lk_push_task(lua_State *L, struct lk_task *task);
/* Makes the class of tasks. */
void lk_open_task_class(lua_State *L);

#endif
