/* SPDX-License-Identifier: MIT
 * lua_archive.c - lunark.core.archive: archives of paths, estimates.
 * An Archive owns its reader's handle. Extraction is in lua_extract.c. Loop thread only. */
#include "lua_archive.h"
#include <string.h>

#define ARCHIVE_CLASS "lunark.archive"
#define ESTIMATE_CLASS "lunark.archive.estimate"

enum { PATHS_MAX = 100000 };

struct archive_box {
    struct lk_archive *archive;
    struct lk_gzip_options gzip;
    bool taken;
};

/* --- options --- */

const char *lk_path_at_top(lua_State *L, const char *function, const char *what)
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
        root.path = lk_path_at_top(L, function, "path of a root");
        lua_pop(L, 1);
        if (lua_getfield(L, -1, "name") != LUA_TNIL)
            root.name = lk_path_at_top(L, function, "name of a root");
        lua_pop(L, 1);
    } else {
        root.path = lk_path_at_top(L, function, "a root");
    }
    return root;
}

size_t lk_push_list(lua_State *L, int index, const char *function, const char *key)
{
    int type = lua_getfield(L, index, key);
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
    size_t count = lk_push_list(L, 1, function, "roots"); /* roots */
    if (count == 0)
        lk_misuse(L, function, "'roots' must name at least one path");
    struct lk_archive_root *roots =
        lua_newuserdatauv(L, count * sizeof *roots, 0); /* roots memory */
    for (size_t i = 0; i < count; i++) {
        lua_rawgeti(L, -2, (lua_Integer)i + 1); /* roots memory root */
        roots[i] = read_root(L, function);
        lua_pop(L, 1);
    }
    size_t patterns = lk_push_list(L, 1, function, "exclude"); /* ... list */
    const char **exclude =
        lua_newuserdatauv(L, (patterns ? patterns : 1) * sizeof *exclude, 0); /* ... list memory */
    for (size_t i = 0; i < patterns; i++) {
        lua_rawgeti(L, -2, (lua_Integer)i + 1);
        exclude[i] = lk_path_at_top(L, function, "an exclude pattern");
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
                                       "whole", NULL};
    struct lk_archive_options options;
    struct lk_error err;
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    lk_check_keys(L, 1, "archive.create", keys);
    read_options(L, "archive.create", &options);
    options.whole = lk_opt_boolean(L, 1, "whole", false);
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

static int archive_progress(lua_State *L)
{
    struct archive_box *box = check_archive(L, "archive:progress");
    uint64_t bytes, files;
    char path[1024];
    lk_archive_progress(box->archive, &bytes, &files, path, sizeof path);
    lua_createtable(L, 0, 3);
    lk_set_integer(L, "bytes", bytes);
    lk_set_integer(L, "files", files);
    lua_pushstring(L, path);
    lua_setfield(L, -2, "path");
    return 1;
}

void lk_push_stats(lua_State *L, const struct lk_archive_stats *stats)
{
    lua_createtable(L, 0, 10);
    lk_set_integer(L, "files", stats->files);
    lk_set_integer(L, "directories", stats->directories);
    lk_set_integer(L, "links", stats->links);
    lk_set_integer(L, "others", stats->others);
    lk_set_integer(L, "bytes", stats->bytes);
    lk_set_integer(L, "skipped", stats->skipped);
    lk_set_integer(L, "warning_count", stats->warning_count);
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
    lk_push_stats(L, stats);
    lk_set_integer(L, "unreadable", stats->unreadable);
    lk_set_integer(L, "members", stats->members);
    return 1;
}

static int archive_close(lua_State *L)
{
    struct archive_box *box = luaL_checkudata(L, 1, ARCHIVE_CLASS);
    lk_archive_unref(box->archive);
    box->archive = NULL;
    return 0;
}

/* --- estimate --- */

static void estimate_done(void *arg, uint64_t files, uint64_t bytes)
{
    struct lk_lua_job *job = arg;
    job->files = files;
    job->bytes = bytes;
    lk_lua_job_done(job);
}

static void cancel_estimate(struct lk_op *op)
{
    __atomic_store_n(&((struct lk_job_handle *)op)->job->stop, 1, __ATOMIC_RELAXED);
}

static int estimate_results(lua_State *L, struct lk_op *op)
{
    const struct lk_lua_job *job = ((struct lk_job_handle *)op)->job;
    lua_createtable(L, 0, 2);
    lk_set_integer(L, "files", job->files);
    lk_set_integer(L, "bytes", job->bytes);
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
    struct lk_job_handle *handle = lk_push_job_handle(L, ESTIMATE_CLASS);
    handle->op.cancel = cancel_estimate;
    handle->op.results = estimate_results;
    if (check_roots(L, &options, &err) || !(handle->job = lk_lua_job_new(L, handle, &err)))
        return lk_push_error(L, &err);
    if (lk_archive_estimate(&options, lk_runtime_of(L)->pool, &handle->job->stop, estimate_done,
                            handle->job, &err)) {
        lk_lua_job_free(handle->job);
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

int lk_open_archive(lua_State *L)
{
    static const luaL_Reg archive_methods[] = {{"stream", archive_stream},
                                               {"progress", archive_progress},
                                               {"result", archive_result},
                                               {"close", archive_close},
                                               {NULL, NULL}};
    static const luaL_Reg none[] = {{NULL, NULL}};
    static const luaL_Reg functions[] = {{"create", create},
                                         {"extract", lk_lua_extract},
                                         {"estimate", estimate},
                                         {"engines", engines},
                                         {NULL, NULL}};
    lk_new_class(L, ARCHIVE_CLASS, archive_methods, archive_close);
    lk_open_extract(L);
    lk_new_job_class(L, ESTIMATE_CLASS, none);
    luaL_newlib(L, functions);
    return 1;
}
