/* SPDX-License-Identifier: MIT
 * lua_archive.h - what the bindings of archives and extraction share: options, results, and jobs on
 * a stage thread that a task waits for. Loop thread only, but for lk_lua_job_done. */
#ifndef LK_LUA_ARCHIVE_H
#define LK_LUA_ARCHIVE_H

#include "archiver.h"
#include "lua_stream.h"
#include <lauxlib.h>
#include <pthread.h>

/* The handle of a script, in userdata. */
struct lk_job_handle {
    struct lk_op op; /* first: the task layer gives it back */
    struct lk_lua_job *job;
    struct lk_extract *extract; /* NULL for an estimate */
    bool ended;                 /* the stage's end has arrived on the loop */
};

/* Shared by handle (loop thread) and stage. The stage posts the event once; if the handle has gone
 * by then, the stage frees the job. Otherwise the handle does. */
struct lk_lua_job {
    struct lk_event event; /* first */
    struct lk_loop *loop;
    struct lk_job_handle *handle; /* loop thread only */
    pthread_mutex_t mutex;
    bool posted, abandoned;
    int stop; /* atomic */
    bool failed;
    struct lk_error err;
    uint64_t files, bytes;
};

struct lk_lua_job *lk_lua_job_new(lua_State *L, struct lk_job_handle *handle, struct lk_error *err);
void lk_lua_job_free(struct lk_lua_job *job);
/* Stage thread, at the end of the work. */
void lk_lua_job_done(struct lk_lua_job *job);
struct lk_job_handle *lk_push_job_handle(lua_State *L, const char *class);
/* Also __close: cancels. The memory goes with the handle. */
int lk_job_handle_close(lua_State *L);
void lk_new_job_class(lua_State *L, const char *class, const luaL_Reg *methods);

/* A path from the stack's top: a string without a NUL byte. It stays alive while its table does. */
const char *lk_path_at_top(lua_State *L, const char *function, const char *what);
/* Length of the list in field `key` of the table at index, which is left on the stack; 0 and nil if
 * there is none. */
size_t lk_push_list(lua_State *L, int index, const char *function, const char *key);
void lk_push_stats(lua_State *L, const struct lk_archive_stats *stats);

/* lua_extract.c: archive.extract, and the class of what it returns. */
int lk_lua_extract(lua_State *L);
void lk_open_extract(lua_State *L);

#endif
