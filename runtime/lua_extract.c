/* SPDX-License-Identifier: MIT
 * lua_extract.c - archive.extract of lunark.core.archive: options, and the Extract of scripts.
 * Loop thread only. */
#include "extract_select.h"
#include "lua_archive.h"
#include <string.h>

#define EXTRACT_CLASS "lunark.extract"
#define FUNCTION "archive.extract"

static void extract_done(void *arg, const struct lk_error *err)
{
    struct lk_lua_job *job = arg;
    if (err) {
        job->failed = true;
        job->err = *err;
    }
    lk_lua_job_done(job);
}

static void cancel_extract(struct lk_op *op)
{
    lk_extract_cancel(((struct lk_job_handle *)op)->extract);
}

/* Adds `matched` and `lost` to the table at the top. */
static void set_selection(lua_State *L, const struct lk_select *select)
{
    lua_newtable(L); /* result matched */
    for (size_t i = 0; i < select->count; i++) {
        lua_pushinteger(L, (lua_Integer)select->globs[i].matched);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_setfield(L, -2, "matched");
    lua_newtable(L); /* result lost */
    lua_Integer n = 0;
    for (const struct lk_lost_link *lost = select->lost; lost; lost = lost->next) {
        lua_createtable(L, 0, 2); /* result lost link */
        lua_pushstring(L, lost->path);
        lua_setfield(L, -2, "path");
        lua_pushstring(L, lost->target);
        lua_setfield(L, -2, "target");
        lua_rawseti(L, -2, ++n);
    }
    lua_setfield(L, -2, "lost");
}

static int extract_results(lua_State *L, struct lk_op *op)
{
    struct lk_job_handle *handle = (struct lk_job_handle *)op;
    if (handle->job->failed)
        return lk_push_error(L, &handle->job->err);
    lk_push_stats(L, lk_extract_result(handle->extract));
    if (lk_extract_selection(handle->extract))
        set_selection(L, lk_extract_selection(handle->extract));
    return 1;
}

/* The number of the word in an option, 0 if it is not given. */
static int word_option(lua_State *L, const char *key, const char *const *words,
                       const char *expected)
{
    const char *word = lk_opt_string(L, 2, key, NULL);
    for (int i = 0; word && words[i]; i++)
        if (strcmp(word, words[i]) == 0)
            return i;
    if (word)
        lk_misuse(L, FUNCTION, "'%s' must be %s, got %s", key, expected, word);
    return 0;
}

/* What `existing` says, or `overwrite`, which is older. */
static enum lk_existing existing_option(lua_State *L)
{
    static const char *const words[] = {"error", "skip", "replace", "keep-newer", NULL};
    int existing = word_option(L, "existing", words, "error, skip, replace or keep-newer");
    if (lk_opt_boolean(L, 2, "overwrite", false) && existing == LK_EXISTING_ERROR)
        existing = LK_EXISTING_REPLACE;
    return (enum lk_existing)existing;
}

/* Leaves two values on the stack that keep the memory alive. */
static void map_option(lua_State *L, struct lk_extract_options *options)
{
    size_t count = lk_push_list(L, 2, FUNCTION, "map"); /* list */
    struct lk_path_map *map =
        lua_newuserdatauv(L, (count ? count : 1) * sizeof *map, 0); /* list memory */
    for (size_t i = 0; i < count; i++) {
        if (lua_rawgeti(L, -2, (lua_Integer)i + 1) != LUA_TTABLE) /* list memory pair */
            lk_misuse(L, FUNCTION, "'map' must be a list of {from, to}");
        lua_rawgeti(L, -1, 1);
        map[i].from = lk_path_at_top(L, FUNCTION, "what is mapped");
        lua_rawgeti(L, -2, 2);
        map[i].to = lk_path_at_top(L, FUNCTION, "what it is mapped to");
        lua_pop(L, 3);
    }
    options->map = map;
    options->map_count = count;
}

/* Likewise. An empty list selects nothing, which no script means. */
static void select_option(lua_State *L, struct lk_extract_options *options)
{
    size_t count = lk_push_list(L, 2, FUNCTION, "select"); /* list */
    const char **globs =
        lua_newuserdatauv(L, (count ? count : 1) * sizeof *globs, 0); /* list memory */
    if (count == 0 && lua_istable(L, -2))
        lk_misuse(L, FUNCTION, "'select' must name at least one path");
    for (size_t i = 0; i < count; i++) {
        lua_rawgeti(L, -2, (lua_Integer)i + 1);
        globs[i] = lk_path_at_top(L, FUNCTION, "a path in 'select'");
        lua_pop(L, 1);
    }
    options->select = globs;
    options->select_count = count;
}

static struct lk_extract_options read_options(lua_State *L)
{
    static const char *const keys[] = {"into",    "overwrite", "existing", "owner",     "mode",
                                       "devices", "strip",     "map",      "max_bytes", "max_ratio",
                                       "jobs",    "select",    NULL};
    static const char *const owners[] = {"auto", "keep", "none", NULL};
    static const char *const modes[] = {"keep", "umask", NULL};
    struct lk_runtime *runtime = lk_runtime_of(L);
    lk_check_keys(L, 2, FUNCTION, keys);
    lua_getfield(L, 2, "into");
    struct lk_extract_options options = {.into = lk_path_at_top(L, FUNCTION, "'into'")};
    options.existing = existing_option(L);
    options.owner = (enum lk_owner)word_option(L, "owner", owners, "auto, keep or none");
    options.use_umask = word_option(L, "mode", modes, "keep or umask") == 1;
    options.devices = lk_opt_boolean(L, 2, "devices", false);
    options.strip = (unsigned)lk_opt_integer(L, 2, "strip", 0, 10000, 0);
    options.max_bytes = (uint64_t)lk_opt_integer(L, 2, "max_bytes", 0, LUA_MAXINTEGER, 0);
    options.max_ratio = (unsigned)lk_opt_integer(L, 2, "max_ratio", 0, 1000000000, 0);
    map_option(L, &options);
    select_option(L, &options);
    int jobs = (int)lk_opt_integer(L, 2, "jobs", 1, 1024, runtime->jobs);
    options.gunzip_in_flight = lk_gzip_in_flight(runtime->memory, jobs);
    return options;
}

int lk_lua_extract(lua_State *L)
{
    struct lk_runtime *runtime = lk_runtime_of(L);
    struct lk_error err;
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_settop(L, 2);
    struct lk_extract_options options = read_options(L);
    struct lk_job_handle *handle = lk_push_job_handle(L, EXTRACT_CLASS);
    handle->op.cancel = cancel_extract;
    handle->op.results = extract_results;
    if (lk_caps_check(runtime->caps, LK_CAP_WRITE, options.into, &err))
        return lk_push_error(L, &err);
    struct lk_stream *input = lk_take_stream(L, 1, FUNCTION);
    handle->job = lk_lua_job_new(L, handle, &err);
    if (!handle->job) {
        lk_stream_cancel(input);
        lk_stream_unref(input);
        return lk_push_error(L, &err);
    }
    handle->extract =
        lk_extract_new(runtime->pool, input, &options, extract_done, handle->job, &err);
    if (!handle->extract) {
        lk_lua_job_free(handle->job);
        handle->job = NULL;
        return lk_push_error(L, &err);
    }
    return 1;
}

static struct lk_job_handle *check_extract(lua_State *L, const char *function)
{
    struct lk_job_handle *handle = luaL_checkudata(L, 1, EXTRACT_CLASS);
    if (!handle->extract)
        lk_misuse(L, function, "the extraction was never started");
    return handle;
}

static int extract_progress(lua_State *L)
{
    struct lk_job_handle *handle = check_extract(L, "extract:progress");
    uint64_t bytes, files;
    lk_extract_progress(handle->extract, &bytes, &files);
    lua_createtable(L, 0, 2);
    lk_set_integer(L, "bytes", bytes);
    lk_set_integer(L, "files", files);
    return 1;
}

static int extract_wait(lua_State *L)
{
    struct lk_job_handle *handle = check_extract(L, "extract:wait");
    lua_settop(L, 1);
    if (handle->ended) /* also when it is asked again */
        return extract_results(L, &handle->op);
    return lk_task_park(L, 1, &handle->op);
}

static int extract_close(lua_State *L)
{
    luaL_checkudata(L, 1, EXTRACT_CLASS);
    return lk_job_handle_close(L);
}

void lk_open_extract(lua_State *L)
{
    static const luaL_Reg methods[] = {{"progress", extract_progress},
                                       {"wait", extract_wait},
                                       {"close", extract_close},
                                       {NULL, NULL}};
    lk_new_job_class(L, EXTRACT_CLASS, methods);
}
