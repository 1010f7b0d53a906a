/* SPDX-License-Identifier: MIT
 * runtime.h - what one runtime consists of: the parts of the core that the bindings share.
 * Internal, no Lua. Filled by lunark.c; everything in it belongs to the loop thread unless its own
 * header says otherwise. */
#ifndef LK_RUNTIME_H
#define LK_RUNTIME_H

#include "caps.h"
#include "log.h"
#include "loop.h"
#include "pool.h"

struct lk_http;
struct lk_exec;
struct lk_tasks;
struct lua_State;

/* Something that a binding keeps for a runtime and that must go with it. */
struct lk_cleanup {
    void (*run)(struct lk_cleanup *cleanup); /* loop thread; the Lua state is closed, loop and pool
                                                are still there */
    struct lk_cleanup *next;                 /* private */
};

struct lk_runtime {
    struct lk_loop *loop;
    struct lk_pool *pool;
    struct lk_caps *caps;
    struct lk_log *log;
    struct lk_http *http; /* made at the first request */
    struct lk_exec *exec; /* made at the first program */
    struct lk_tasks *tasks;
    struct lua_State *lua;
    struct lk_cleanup *cleanups; /* run in reverse order */
    bool sealed;
    size_t memory; /* stream budget in bytes; 40 MiB by default */
    int jobs;      /* compression width of one stream */
};

/* Adds a cleanup. */
static inline void lk_runtime_on_close(struct lk_runtime *runtime, struct lk_cleanup *cleanup)
{
    cleanup->next = runtime->cleanups;
    runtime->cleanups = cleanup;
}

#define LK_DEFAULT_MEMORY ((size_t)40 << 20)

#endif
