/* SPDX-License-Identifier: MIT
 * lua_archive_job.c - an extraction or an estimate on a stage thread, and a task that waits for it.
 * What the thread needs is in a struct of its own that the thread frees when the script's handle
 * went first. Closing a handle only cancels: a task may wait, and is told so. Loop thread, but for
 * lk_lua_job_done. */
#include "lua_archive.h"
#include <stdlib.h>

void lk_lua_job_free(struct lk_lua_job *job)
{
    pthread_mutex_destroy(&job->mutex);
    free(job);
}

static void job_delivered(struct lk_event *event)
{
    struct lk_lua_job *job = (struct lk_lua_job *)event;
    job->handle->ended = true;
    lk_op_done(&job->handle->op);
}

void lk_lua_job_done(struct lk_lua_job *job)
{
    pthread_mutex_lock(&job->mutex);
    bool abandoned = job->abandoned;
    if (!abandoned) {
        job->posted = true;
        lk_loop_post(job->loop, &job->event);
    }
    pthread_mutex_unlock(&job->mutex);
    if (abandoned)
        lk_lua_job_free(job);
}

/* The handle goes. */
static void drop_job(struct lk_lua_job *job)
{
    if (!job)
        return;
    pthread_mutex_lock(&job->mutex);
    bool posted = job->posted;
    job->abandoned = true;
    pthread_mutex_unlock(&job->mutex);
    if (posted) {
        lk_loop_unpost(job->loop, &job->event);
        lk_lua_job_free(job);
    }
}

struct lk_lua_job *lk_lua_job_new(lua_State *L, struct lk_job_handle *handle, struct lk_error *err)
{
    struct lk_lua_job *job = calloc(1, sizeof *job);
    if (!job) {
        lk_error_set(err, LK_MEMORY, "no memory for a job");
        return NULL;
    }
    job->event.run = job_delivered;
    job->loop = lk_runtime_of(L)->loop;
    job->handle = handle;
    pthread_mutex_init(&job->mutex, NULL);
    return job;
}

struct lk_job_handle *lk_push_job_handle(lua_State *L, const char *class)
{
    struct lk_job_handle *handle = lua_newuserdatauv(L, sizeof *handle, 0);
    *handle = (struct lk_job_handle){.job = NULL};
    luaL_setmetatable(L, class);
    return handle;
}

int lk_job_handle_close(lua_State *L)
{
    struct lk_job_handle *handle = lua_touserdata(L, 1);
    if (handle->job)
        __atomic_store_n(&handle->job->stop, 1, __ATOMIC_RELAXED);
    if (handle->extract)
        lk_extract_cancel(handle->extract);
    return 0;
}

static int handle_gc(lua_State *L)
{
    struct lk_job_handle *handle = lua_touserdata(L, 1);
    lk_job_handle_close(L);
    drop_job(handle->job);
    handle->job = NULL;
    lk_extract_unref(handle->extract);
    handle->extract = NULL;
    return 0;
}

void lk_new_job_class(lua_State *L, const char *class, const luaL_Reg *methods)
{
    lk_new_class(L, class, methods, lk_job_handle_close);
    luaL_getmetatable(L, class); /* class */
    lua_pushcfunction(L, handle_gc);
    lua_setfield(L, -2, "__gc");
    lua_pop(L, 1);
}
