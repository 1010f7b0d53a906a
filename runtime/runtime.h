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
#include <stdatomic.h>

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
    bool full_lua;      /* scripts get Lua's whole library, not the allow-list */
    int print_fd;       /* where print goes; -1 = the log */
    bool stalled[3];    /* a descriptor whose reader stood still, see shared_fd.h */
    atomic_int cancels; /* how often lunark_cancel was called; any thread */
    char **script_dirs; /* searched in order, before the embedded files; script_dir_count of them */
    size_t script_dir_count;
    void (*on_progress)(void *arg, const char *json);
    void *on_progress_arg;
    size_t memory; /* stream budget in bytes; 40 MiB by default */
    int jobs;      /* compression width of one stream */
};

/* runtime.c: the parts that need no Lua. A runtime that could not be made completely is freed all
 * the same. */
int lk_runtime_init(struct lk_runtime *runtime, size_t memory, int jobs, struct lk_error *err);
/* Runs the cleanups, waits for threads, frees the parts. The Lua state is closed before. */
void lk_runtime_free(struct lk_runtime *runtime);
/* Copies dir to the given place (0 = searched first). */
int lk_runtime_add_script_dir(struct lk_runtime *runtime, const char *dir, size_t place,
                              struct lk_error *err);

/* Adds a cleanup. */
static inline void lk_runtime_on_close(struct lk_runtime *runtime, struct lk_cleanup *cleanup)
{
    cleanup->next = runtime->cleanups;
    runtime->cleanups = cleanup;
}

#define LK_DEFAULT_MEMORY ((size_t)40 << 20)

#endif
