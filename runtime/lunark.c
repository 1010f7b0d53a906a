/* SPDX-License-Identifier: MIT
 * lunark.c - the public interface: a runtime and the script it runs.
 * Owns the runtime. On the thread that the host calls from; lunark_cancel from any. */
#include "lunark.h"
#include "lua_run.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef LUNARK_VERSION
#define LUNARK_VERSION "0.1.0"
#endif

#define GRACE_SECONDS 20
#define SCRIPT_MAX ((size_t)16 << 20)

struct lunark {
    struct lk_runtime runtime; /* first: the bindings know only this */
    void (*on_log)(void *arg, enum lunark_level level, const char *message, const char *json);
    void *on_log_arg;
    struct lk_run script;
};

const char *lunark_version(void)
{
    return LUNARK_VERSION;
}

/* Copies the error out and returns -1. */
static int hand_out(const struct lk_error *err, struct lunark_error *error)
{
    if (error == NULL)
        return -1;
    memset(error, 0, sizeof *error);
    snprintf(error->kind, sizeof error->kind, "%s", lk_kind_name(err->kind));
    error->code = err->code;
    error->status = err->status;
    memcpy(error->message, err->message, sizeof error->message);
    memcpy(error->hint, err->hint, sizeof error->hint);
    return -1;
}

static int read_options(struct lunark *self, const struct lunark_options *options,
                        size_t *lua_memory, struct lk_error *err)
{
    struct lunark_options all = {0};
    if (options != NULL) {
        if (options->size < sizeof options->size || options->size > sizeof all)
            return lk_error_set(err, LK_USAGE,
                                "options: size is %zu, expected at most %zu (a newer header?)",
                                options->size, sizeof all);
        memcpy(&all, options, options->size);
    }
    *lua_memory = all.lua_memory;
    if (lk_runtime_init(&self->runtime, all.memory, all.jobs, err) < 0)
        return -1;
    self->runtime.full_lua = (all.flags & LUNARK_FULL_LUA) != 0;
    self->runtime.print_fd = (all.flags & LUNARK_PRINT) != 0 ? STDOUT_FILENO : -1;
    for (size_t i = 0; all.script_dirs != NULL && all.script_dirs[i] != NULL; i++)
        if (lk_runtime_add_script_dir(&self->runtime, all.script_dirs[i], i, err) < 0)
            return -1;
    return 0;
}

struct lunark *lunark_new(const struct lunark_options *options, struct lunark_error *error)
{
    struct lk_error err;
    size_t lua_memory = 0;
    struct lunark *self = calloc(1, sizeof *self);
    if (self == NULL) {
        lk_error_set(&err, LK_MEMORY, "no memory for a runtime");
        hand_out(&err, error);
        return NULL;
    }
    if (read_options(self, options, &lua_memory, &err) == 0 &&
        lk_run_open(&self->runtime, lua_memory, &err) == 0)
        return self;
    hand_out(&err, error);
    lk_runtime_free(&self->runtime);
    free(self);
    return NULL;
}

void lunark_free(struct lunark *self)
{
    if (self == NULL)
        return;
    lk_run_close(&self->runtime, GRACE_SECONDS);
    lk_runtime_free(&self->runtime);
    free(self->script.result);
    free(self);
}

int lunark_allow(struct lunark *self, const char *kind, const char *value,
                 struct lunark_error *error)
{
    struct lk_error err;
    enum lk_cap cap;
    if (lk_cap_parse(kind, &cap, &err) < 0 ||
        lk_caps_allow(self->runtime.caps, cap, value, &err) < 0)
        return hand_out(&err, error);
    return 0;
}

int lunark_add_module(struct lunark *self, const char *name, int (*open)(struct lua_State *L),
                      struct lunark_error *error)
{
    struct lk_error err;
    if (lk_run_add_module(&self->runtime, name, open, &err) < 0)
        return hand_out(&err, error);
    return 0;
}

static void pass_log(void *arg, enum lk_level level, const char *message, const char *json)
{
    struct lunark *self = arg;
    self->on_log(self->on_log_arg, (enum lunark_level)level, message, json);
}

void lunark_on_log(struct lunark *self,
                   void (*fn)(void *arg, enum lunark_level level, const char *message,
                              const char *json),
                   void *arg)
{
    self->on_log = fn;
    self->on_log_arg = arg;
    lk_log_set_function(self->runtime.log, fn != NULL ? pass_log : NULL, self);
}

void lunark_on_progress(struct lunark *self, void (*fn)(void *arg, const char *json), void *arg)
{
    self->runtime.on_progress = fn;
    self->runtime.on_progress_arg = arg;
}

/* --- running --- */

static int start(struct lunark *self, const char *name, const char *source, size_t len,
                 const char *const *args, struct lunark_error *error)
{
    struct lk_error err;
    if (lk_run_start(&self->runtime, &self->script, name, source, len, args, &err) < 0)
        return hand_out(&err, error);
    return 0;
}

int lunark_start_string(struct lunark *self, const char *name, const char *source,
                        const char *const *args, struct lunark_error *error)
{
    return start(self, name, source, strlen(source), args, error);
}

/* *data is malloc'ed. */
static int read_script(const char *path, char **data, size_t *len, struct lk_error *err)
{
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return lk_error_errno(err, errno, "cannot open script '%s'", path);
    size_t cap = (size_t)64 << 10;
    *data = NULL;
    *len = 0;
    for (;;) {
        char *bigger = cap <= SCRIPT_MAX ? realloc(*data, cap) : NULL;
        if (bigger == NULL)
            break;
        *data = bigger;
        *len += fread(*data + *len, 1, cap - *len, file);
        if (*len < cap) {
            bool failed = ferror(file);
            fclose(file);
            if (!failed)
                return 0;
            free(*data);
            return lk_error_errno(err, EIO, "cannot read script '%s'", path);
        }
        cap *= 2;
    }
    fclose(file);
    free(*data);
    return lk_error_set(err, LK_MEMORY, "script '%s' is too large", path);
}

int lunark_start_file(struct lunark *self, const char *path, const char *const *args,
                      struct lunark_error *error)
{
    struct lk_error err;
    char *source = NULL;
    size_t len = 0;
    if (read_script(path, &source, &len, &err) < 0)
        return hand_out(&err, error);
    int result = start(self, path, source, len, args, error);
    free(source);
    return result;
}

int lunark_fd(const struct lunark *self)
{
    return lk_loop_fd(self->runtime.loop);
}

int lunark_step(struct lunark *self, int timeout_ms, struct lunark_error *error)
{
    struct lk_error err;
    int running = lk_run_step(&self->runtime, &self->script, timeout_ms, &err);
    return running < 0 ? hand_out(&err, error) : running;
}

int lunark_finish(struct lunark *self, struct lunark_error *error)
{
    struct lk_error err;
    if (lk_run_finish(&self->runtime, &self->script, &err) < 0)
        return hand_out(&err, error);
    return 0;
}

static int run(struct lunark *self, struct lunark_error *error)
{
    int state;
    while ((state = lunark_step(self, -1, error)) > 0)
        ;
    return state < 0 ? -1 : lunark_finish(self, error);
}

int lunark_run_file(struct lunark *self, const char *path, const char *const *args,
                    struct lunark_error *error)
{
    return lunark_start_file(self, path, args, error) < 0 ? -1 : run(self, error);
}

int lunark_run_string(struct lunark *self, const char *name, const char *source,
                      const char *const *args, struct lunark_error *error)
{
    return lunark_start_string(self, name, source, args, error) < 0 ? -1 : run(self, error);
}

const char *lunark_result(const struct lunark *self)
{
    return self->script.result;
}

void lunark_cancel(struct lunark *self)
{
    atomic_fetch_add(&self->runtime.cancels, 1);
    lk_loop_wake(self->runtime.loop);
}
