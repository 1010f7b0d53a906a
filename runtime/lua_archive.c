/* SPDX-License-Identifier: MIT
 * lua_archive.c - lunark.core.archive: archives of paths, extraction, estimates.
 *
 * An Archive owns its reader's handle. An Extract or an estimate is a job on a stage thread: what
 * the thread needs is in a struct of its own that the thread frees when the script's handle went
 * first. Loop thread only. */
#include "archiver.h"
#include "lua_stream.h"
#include <lauxlib.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define ARCHIVE_CLASS "lunark.archive"
#define EXTRACT_CLASS "lunark.extract"
#define ESTIMATE_CLASS "lunark.archive.estimate"

enum { PATHS_MAX = 100000 };

struct archive_box {
    struct lk_archive *archive;
    struct lk_gzip_options gzip;
    bool taken;
};

/* --- options --- */

/* A path from the stack's top: a string without a NUL byte. It stays alive while its table does. */
static const char *path_at_top(lua_State *L, const char *function, const char *what)
{
    size_t len;
    if (lua_type(L, -1) != LUA_TSTRING)
        lk_misuse(L, function, "%s must be a string, got %s", what, luaL_typename(L, -1));
    const char *path = lua_tolstring(L, -1, &len);
    if (strlen(path) != len)
        lk_misuse(L, function, "%s has a NUL byte", what);
    return path;
}

/* The root at the stack's top: a string, or a table with path and name. */
static struct lk_archive_root read_root(lua_State *L, const char *function)
{
    static const char *const keys[] = {"path", "name", NULL};
    struct lk_archive_root root = {NULL, NULL};
    if (lua_istable(L, -1)) {
        lk_check_keys(L, -1, function, keys);
        lua_getfield(L, -1, "path"); /* root path */
        root.path = path_at_top(L, function, "path of a root");
        lua_pop(L, 1);
        if (lua_getfield(L, -1, "name") != LUA_TNIL)
            root.name = path_at_top(L, function, "name of a root");
        lua_pop(L, 1);
    } else {
        root.path = path_at_top(L, function, "a root");
    }
    return root;
}

/* Length of the list in field `key` of the table at 1, which is left on the stack; 0 and nil if
 * there is none. */
static size_t push_list(lua_State *L, const char *function, const char *key)
{
    int type = lua_getfield(L, 1, key);
    if (type == LUA_TNIL)
        return 0;
    if (type != LUA_TTABLE)
        lk_misuse(L, function, "'%s' must be a list, got %s", key, luaL_typename(L, -1));
    size_t len = lua_rawlen(L, -1);
    if (len > PATHS_MAX)
        lk_misuse(L, function, "'%s' has %d entries, at most %d are possible", key, (int)len,
                  (int)PATHS_MAX);
    return len;
}

/* Fills what create and estimate share. Leaves four values on the stack that keep the memory alive.
 */
static void read_options(lua_State *L, const char *function, struct lk_archive_options *options)
{
    size_t count = push_list(L, function, "roots"); /* roots */
    if (count == 0)
        lk_misuse(L, function, "'roots' must name at least one path");
    struct lk_archive_root *roots =
        lua_newuserdatauv(L, count * sizeof *roots, 0); /* roots memory */
    for (size_t i = 0; i < count; i++) {
        lua_rawgeti(L, -2, (lua_Integer)i + 1); /* roots memory root */
        roots[i] = read_root(L, function);
        lua_pop(L, 1);
    }
    size_t patterns = push_list(L, function, "exclude"); /* ... list */
    const char **exclude =
        lua_newuserdatauv(L, (patterns ? patterns : 1) * sizeof *exclude, 0); /* ... list memory */
    for (size_t i = 0; i < patterns; i++) {
        lua_rawgeti(L, -2, (lua_Integer)i + 1);
        exclude[i] = path_at_top(L, function, "an exclude pattern");
        lua_pop(L, 1);
    }
    *options = (struct lk_archive_options){
        .roots = roots,
        .root_count = count,
        .exclude = exclude,
        .exclude_count = patterns,
        .exclude_caches = lk_opt_boolean(L, 1, "exclude_caches", false),
        .one_file_system = lk_opt_boolean(L, 1, "one_file_system", false)};
}

static int check_roots(lua_State *L, const struct lk_archive_options *options, struct lk_error *err)
{
    for (size_t i = 0; i < options->root_count; i++)
        if (lk_caps_check(lk_runtime_of(L)->caps, LK_CAP_READ, options->roots[i].path, err))
            return -1;
    return 0;
}

/* --- Archive --- */

static int create(lua_State *L)
{
    static const char *const keys[] = {"roots", "exclude", "exclude_caches", "one_file_system",
                                       "level", "engine",  "jobs",           "index",
                                       NULL};
    struct lk_archive_options options;
    struct lk_error err;
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    lk_check_keys(L, 1, "archive.create", keys);
    read_options(L, "archive.create", &options);
    struct archive_box *box = lua_newuserdatauv(L, sizeof *box, 0);
    *box = (struct archive_box){.archive = NULL};
    luaL_setmetatable(L, ARCHIVE_CLASS);
    lk_read_gzip_options(L, 1, "archive.create", &box->gzip);
    /* Beside what is compressed, one chunk is being filled and one waits. */
    options.in_flight = box->gzip.in_flight + 2;
    if (check_roots(L, &options, &err) || !(box->archive = lk_archive_new(&options, &err)))
        return lk_push_error(L, &err);
    return 1;
}

static struct archive_box *check_archive(lua_State *L, const char *function)
{
    struct archive_box *box = luaL_checkudata(L, 1, ARCHIVE_CLASS);
    if (!box->archive)
        lk_misuse(L, function, "the archive is closed");
    return box;
}

static int archive_stream(lua_State *L)
{
    struct archive_box *box = check_archive(L, "archive:stream");
    struct lk_pool *pool = lk_runtime_of(L)->pool;
    struct lk_error err;
    if (box->taken)
        lk_misuse(L, "archive:stream", "the archive's stream was taken already");
    struct lk_stream **stream = lk_push_stream_box(L);
    box->taken = true;
    struct lk_stream *plain = lk_archive_stream(box->archive, pool, &err);
    if (plain)
        *stream = lk_gzip(pool, plain, &box->gzip, NULL, &err);
    return *stream ? 1 : lk_push_error(L, &err);
}

static void set_integer(lua_State *L, const char *key, uint64_t value)
{
    lua_pushinteger(L, (lua_Integer)value);
    lua_setfield(L, -2, key);
}

static int archive_progress(lua_State *L)
{
    struct archive_box *box = check_archive(L, "archive:progress");
    uint64_t bytes, files;
    char path[1024];
    lk_archive_progress(box->archive, &bytes, &files, path, sizeof path);
    lua_createtable(L, 0, 3);
    set_integer(L, "bytes", bytes);
    set_integer(L, "files", files);
    lua_pushstring(L, path);
    lua_setfield(L, -2, "path");
    return 1;
}

static void push_stats(lua_State *L, const struct lk_archive_stats *stats)
{
    lua_createtable(L, 0, 9);
    set_integer(L, "files", stats->files);
    set_integer(L, "directories", stats->directories);
    set_integer(L, "links", stats->links);
    set_integer(L, "others", stats->others);
    set_integer(L, "bytes", stats->bytes);
    set_integer(L, "warning_count", stats->warning_count);
    lua_newtable(L); /* result warnings */
    lua_Integer n = 0;
    for (const struct lk_warning *warning = stats->warnings; warning; warning = warning->next) {
        lua_createtable(L, 0, 3); /* result warnings warning */
        lua_pushstring(L, warning->path);
        lua_setfield(L, -2, "path");
        lua_pushstring(L, lk_warning_name(warning->kind));
        lua_setfield(L, -2, "kind");
        lua_pushstring(L, warning->message);
        lua_setfield(L, -2, "message");
        lua_rawseti(L, -2, ++n);
    }
    lua_setfield(L, -2, "warnings");
}

static int archive_result(lua_State *L)
{
    struct archive_box *box = check_archive(L, "archive:result");
    const struct lk_archive_stats *stats = lk_archive_result(box->archive);
    struct lk_error err;
    if (!stats) {
        lk_error_set(&err, LK_USAGE,
                     "the archive is not complete: its stream has not been read to its end");
        return lk_push_error(L, &err);
    }
    push_stats(L, stats);
    set_integer(L, "unreadable", stats->unreadable);
    set_integer(L, "members", stats->members);
    return 1;
}

static int archive_close(lua_State *L)
{
    struct archive_box *box = luaL_checkudata(L, 1, ARCHIVE_CLASS);
    lk_archive_unref(box->archive);
    box->archive = NULL;
    return 0;
}

/* --- jobs on a stage thread --- */

struct handle {
    struct lk_op op; /* first: the task layer gives it back */
    struct job *job;
    struct lk_extract *extract; /* NULL for an estimate */
    bool ended;                 /* the stage's end has arrived on the loop */
};

/* Shared by handle (loop thread) and stage. The stage posts the event once; if the handle has gone
 * by then, the stage frees the job. Otherwise the handle does. */
struct job {
    struct lk_event event; /* first */
    struct lk_loop *loop;
    struct handle *handle; /* loop thread only */
    pthread_mutex_t mutex;
    bool posted, abandoned;
    int stop; /* atomic */
    bool failed;
    struct lk_error err;
    uint64_t files, bytes;
};

static void free_job(struct job *job)
{
    pthread_mutex_destroy(&job->mutex);
    free(job);
}

static void job_delivered(struct lk_event *event)
{
    struct job *job = (struct job *)event;
    job->handle->ended = true;
    lk_op_done(&job->handle->op);
}

static void job_done(struct job *job)
{
    pthread_mutex_lock(&job->mutex);
    bool abandoned = job->abandoned;
    if (!abandoned) {
        job->posted = true;
        lk_loop_post(job->loop, &job->event);
    }
    pthread_mutex_unlock(&job->mutex);
    if (abandoned)
        free_job(job);
}

/* The handle goes. */
static void drop_job(struct job *job)
{
    if (!job)
        return;
    pthread_mutex_lock(&job->mutex);
    bool posted = job->posted;
    job->abandoned = true;
    pthread_mutex_unlock(&job->mutex);
    if (posted) {
        lk_loop_unpost(job->loop, &job->event);
        free_job(job);
    }
}

static struct job *new_job(lua_State *L, struct handle *handle, struct lk_error *err)
{
    struct job *job = calloc(1, sizeof *job);
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

static struct handle *push_handle(lua_State *L, const char *class)
{
    struct handle *handle = lua_newuserdatauv(L, sizeof *handle, 0);
    *handle = (struct handle){.job = NULL};
    luaL_setmetatable(L, class);
    return handle;
}

/* Closing only cancels: a task may wait, and is told so. The memory goes with the handle. */
static int handle_close(lua_State *L)
{
    struct handle *handle = lua_touserdata(L, 1);
    if (handle->job)
        __atomic_store_n(&handle->job->stop, 1, __ATOMIC_RELAXED);
    if (handle->extract)
        lk_extract_cancel(handle->extract);
    return 0;
}

static int handle_gc(lua_State *L)
{
    struct handle *handle = lua_touserdata(L, 1);
    handle_close(L);
    drop_job(handle->job);
    handle->job = NULL;
    lk_extract_unref(handle->extract);
    handle->extract = NULL;
    return 0;
}

/* --- Extract --- */

static void extract_done(void *arg, const struct lk_error *err)
{
    struct job *job = arg;
    if (err) {
        job->failed = true;
        job->err = *err;
    }
    job_done(job);
}

static void cancel_extract(struct lk_op *op)
{
    lk_extract_cancel(((struct handle *)op)->extract);
}

static int extract_results(lua_State *L, struct lk_op *op)
{
    struct handle *handle = (struct handle *)op;
    if (handle->job->failed)
        return lk_push_error(L, &handle->job->err);
    push_stats(L, lk_extract_result(handle->extract));
    return 1;
}

static enum lk_owner owner_option(lua_State *L)
{
    const char *owner = lk_opt_string(L, 2, "owner", NULL);
    if (!owner || strcmp(owner, "auto") == 0)
        return LK_OWNER_AUTO;
    if (strcmp(owner, "keep") == 0)
        return LK_OWNER_KEEP;
    if (strcmp(owner, "none") != 0)
        lk_misuse(L, "archive.extract", "'owner' must be auto, keep or none, got %s", owner);
    return LK_OWNER_NONE;
}

static int extract(lua_State *L)
{
    static const char *const keys[] = {"into", "overwrite", "owner", "jobs", NULL};
    struct lk_runtime *runtime = lk_runtime_of(L);
    struct lk_error err;
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_settop(L, 2);
    lk_check_keys(L, 2, "archive.extract", keys);
    lua_getfield(L, 2, "into");
    struct lk_extract_options options = {.into = path_at_top(L, "archive.extract", "'into'")};
    options.overwrite = lk_opt_boolean(L, 2, "overwrite", false);
    options.owner = owner_option(L);
    int jobs = (int)lk_opt_integer(L, 2, "jobs", 1, 1024, runtime->jobs);
    options.gunzip_in_flight = lk_gzip_in_flight(runtime->memory, jobs);
    struct handle *handle = push_handle(L, EXTRACT_CLASS);
    handle->op.cancel = cancel_extract;
    handle->op.results = extract_results;
    if (lk_caps_check(runtime->caps, LK_CAP_WRITE, options.into, &err))
        return lk_push_error(L, &err);
    struct lk_stream *input = lk_take_stream(L, 1, "archive.extract");
    handle->job = new_job(L, handle, &err);
    if (!handle->job) {
        lk_stream_cancel(input);
        lk_stream_unref(input);
        return lk_push_error(L, &err);
    }
    handle->extract =
        lk_extract_new(runtime->pool, input, &options, extract_done, handle->job, &err);
    if (!handle->extract) {
        free_job(handle->job);
        handle->job = NULL;
        return lk_push_error(L, &err);
    }
    return 1;
}

static struct handle *check_extract(lua_State *L, const char *function)
{
    struct handle *handle = luaL_checkudata(L, 1, EXTRACT_CLASS);
    if (!handle->extract)
        lk_misuse(L, function, "the extraction was never started");
    return handle;
}

static int extract_progress(lua_State *L)
{
    struct handle *handle = check_extract(L, "extract:progress");
    uint64_t bytes, files;
    lk_extract_progress(handle->extract, &bytes, &files);
    lua_createtable(L, 0, 2);
    set_integer(L, "bytes", bytes);
    set_integer(L, "files", files);
    return 1;
}

static int extract_wait(lua_State *L)
{
    struct handle *handle = check_extract(L, "extract:wait");
    lua_settop(L, 1);
    if (handle->ended) /* also when it is asked again */
        return extract_results(L, &handle->op);
    return lk_task_park(L, 1, &handle->op);
}

static int extract_close(lua_State *L)
{
    luaL_checkudata(L, 1, EXTRACT_CLASS);
    return handle_close(L);
}

/* --- estimate --- */

static void estimate_done(void *arg, uint64_t files, uint64_t bytes)
{
    struct job *job = arg;
    job->files = files;
    job->bytes = bytes;
    job_done(job);
}

static void cancel_estimate(struct lk_op *op)
{
    __atomic_store_n(&((struct handle *)op)->job->stop, 1, __ATOMIC_RELAXED);
}

static int estimate_results(lua_State *L, struct lk_op *op)
{
    const struct job *job = ((struct handle *)op)->job;
    lua_createtable(L, 0, 2);
    set_integer(L, "files", job->files);
    set_integer(L, "bytes", job->bytes);
    return 1;
}

static int estimate(lua_State *L)
{
    /* The keys of create, so that a script can pass one table to both. */
    static const char *const keys[] = {"roots", "exclude", "exclude_caches", "one_file_system",
                                       "level", "engine",  "jobs",           "index",
                                       NULL};
    struct lk_archive_options options;
    struct lk_error err;
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    lk_check_keys(L, 1, "archive.estimate", keys);
    lk_task_parkable(L);
    read_options(L, "archive.estimate", &options);
    struct handle *handle = push_handle(L, ESTIMATE_CLASS);
    handle->op.cancel = cancel_estimate;
    handle->op.results = estimate_results;
    if (check_roots(L, &options, &err) || !(handle->job = new_job(L, handle, &err)))
        return lk_push_error(L, &err);
    if (lk_archive_estimate(&options, lk_runtime_of(L)->pool, &handle->job->stop, estimate_done,
                            handle->job, &err)) {
        free_job(handle->job);
        handle->job = NULL;
        return lk_push_error(L, &err);
    }
    return lk_task_park(L, lua_gettop(L), &handle->op);
}

static int engines(lua_State *L)
{
    static const struct {
        const char *name;
        enum lk_engine engine;
    } list[] = {
        {"zlib", LK_ENGINE_ZLIB}, {"libdeflate", LK_ENGINE_LIBDEFLATE}, {"isal", LK_ENGINE_ISAL}};
    lua_newtable(L);
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        const char *version = lk_engine_version(list[i].engine);
        if (version) {
            lua_pushstring(L, version);
            lua_setfield(L, -2, list[i].name);
        }
    }
    return 1;
}

static void new_handle_class(lua_State *L, const char *class, const luaL_Reg *methods)
{
    lk_new_class(L, class, methods, handle_close);
    luaL_getmetatable(L, class); /* class */
    lua_pushcfunction(L, handle_gc);
    lua_setfield(L, -2, "__gc");
    lua_pop(L, 1);
}

int lk_open_archive(lua_State *L)
{
    static const luaL_Reg archive_methods[] = {{"stream", archive_stream},
                                               {"progress", archive_progress},
                                               {"result", archive_result},
                                               {"close", archive_close},
                                               {NULL, NULL}};
    static const luaL_Reg extract_methods[] = {{"progress", extract_progress},
                                               {"wait", extract_wait},
                                               {"close", extract_close},
                                               {NULL, NULL}};
    static const luaL_Reg none[] = {{NULL, NULL}};
    static const luaL_Reg functions[] = {{"create", create},
                                         {"extract", extract},
                                         {"estimate", estimate},
                                         {"engines", engines},
                                         {NULL, NULL}};
    lk_new_class(L, ARCHIVE_CLASS, archive_methods, archive_close);
    new_handle_class(L, EXTRACT_CLASS, extract_methods);
    new_handle_class(L, ESTIMATE_CLASS, none);
    luaL_newlib(L, functions);
    return 1;
}
