/* SPDX-License-Identifier: MIT
 * lua_exec.c - lunark.core.exec: start a program, wait for it, signal it.
 * Owns the handle of a program through its userdata; the runtime's set of programs is made at the
 * first one. Options are read completely, and everything Lua must allocate is there, before a
 * program starts. Loop thread only. */
#include "exec.h"
#include "launch.h"
#include "lua_task.h"
#include <errno.h>
#include <lauxlib.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PROCESS_CLASS "lunark.exec.process"
#define WAIT_CLASS "lunark.exec.wait"
#define CAPTURE_LIMIT ((lua_Integer)1 << 30)
#define NEVER_MS ((uint64_t)1000000000000)
enum { SLOT_STDOUT = 1, SLOT_STDERR = 2, SLOTS = 2 }; /* user values of a process: its streams */

struct wait_op {
    struct lk_op op;
    struct process_box *box; /* the operation's user value keeps it */
    struct wait_op *next;
};

struct process_box {
    struct lk_process *process; /* NULL before the start and after close */
    struct wait_op *waiters;
    bool closed;
};

/* --- the runtime's programs --- */

struct exec_cleanup {
    struct lk_cleanup base;
    struct lk_runtime *runtime;
};

static void clean_up(struct lk_cleanup *base)
{
    struct exec_cleanup *cleanup = (struct exec_cleanup *)base;
    lk_exec_free(cleanup->runtime->exec);
    cleanup->runtime->exec = NULL;
    free(cleanup);
}

static struct lk_exec *programs_of(struct lk_runtime *runtime, struct lk_error *err)
{
    if (runtime->exec != NULL)
        return runtime->exec;
    struct exec_cleanup *cleanup = calloc(1, sizeof *cleanup);
    if (cleanup == NULL) {
        lk_error_set(err, LK_MEMORY, "programs: out of memory");
        return NULL;
    }
    runtime->exec = lk_exec_new(runtime->loop, runtime->pool, runtime->log, err);
    if (runtime->exec == NULL) {
        free(cleanup);
        return NULL;
    }
    cleanup->base.run = clean_up;
    cleanup->runtime = runtime;
    lk_runtime_on_close(runtime, &cleanup->base);
    return runtime->exec;
}

/* --- options --- */

/* The text of the value at the top, which becomes an argument or so and thus can't hold a NUL. The
 * table of options, at 1, keeps it; what is made here is kept by the table at `keep`. */
static const char *plain_text(lua_State *L, int keep, const char *what)
{
    size_t len;
    if (lua_type(L, -1) == LUA_TNUMBER) { /* a copy: the conversion is in place */
        luaL_tolstring(L, -1, NULL);
        lua_pushvalue(L, -1);
        lua_rawseti(L, keep, (lua_Integer)lua_rawlen(L, keep) + 1);
        lua_replace(L, -2);
    }
    const char *text = lk_text_of(L, -1, &len);
    if (text == NULL)
        lk_misuse(L, "exec.start", "%s must be a string, a number or a secret, got %s", what,
                  luaL_typename(L, -1));
    if (strlen(text) != len)
        lk_misuse(L, "exec.start", "%s has a NUL byte, which no program can be given", what);
    return text;
}

/* Leaves the array, a userdata, on the stack. */
static void read_argv(lua_State *L, int keep, struct lk_exec_options *options)
{
    size_t count = lua_rawlen(L, 1);
    if (count == 0)
        lk_misuse(L, "exec.start", "expected a program and its arguments, got an empty list");
    const char **argv = lua_newuserdatauv(L, (count + 1) * sizeof *argv, 0); /* argv */
    for (size_t i = 0; i < count; i++) {
        char what[40];
        snprintf(what, sizeof what, "argument %zu", i);
        lua_rawgeti(L, 1, (lua_Integer)i + 1); /* argv text */
        argv[i] = plain_text(L, keep, i > 0 ? what : "the program");
        lua_pop(L, 1); /* argv */
    }
    argv[count] = NULL;
    options->argv = argv;
}

/* Leaves the array of changes, a userdata, on the stack. */
static void read_env(lua_State *L, int keep, struct lk_exec_options *options)
{
    int type = lua_getfield(L, 1, "env"); /* env */
    if (type == LUA_TNIL)
        return;
    if (type != LUA_TTABLE)
        lk_misuse(L, "exec.start", "'env' must be a table, got %s", luaL_typename(L, -1));
    int table = lua_gettop(L);
    size_t count = 0;
    for (lua_pushnil(L); lua_next(L, table) != 0; lua_pop(L, 1))
        count++;
    const char **list = lua_newuserdatauv(L, (count + 1) * sizeof *list, 0); /* env list */
    for (lua_pushnil(L); lua_next(L, table) != 0; lua_pop(L, 1)) { /* env list name value */
        size_t len = 0;
        const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tolstring(L, -2, &len) : NULL;
        if (name == NULL || len == 0 || strlen(name) != len || strchr(name, '=') != NULL)
            lk_misuse(L, "exec.start", "a name in 'env' must be a string without '=' and NUL");
        if (lua_isboolean(L, -1) && !lua_toboolean(L, -1)) {
            list[options->env_count++] = name;
            continue;
        }
        const char *value = plain_text(L, keep, name);
        list[options->env_count++] = lua_pushfstring(L, "%s=%s", name, value);
        lua_rawseti(L, keep, (lua_Integer)lua_rawlen(L, keep) + 1); /* env list name value */
    }
    options->env = list;
}

/* cwd, user, group, log_prefix. Numbers are fine for user and group. */
static const char *read_text(lua_State *L, int keep, const char *key)
{
    const char *text = NULL;
    if (lua_getfield(L, 1, key) != LUA_TNIL)
        text = plain_text(L, keep, key);
    lua_pop(L, 1);
    return text;
}

/* stdin: leaves its value on the stack. The stream itself is taken last of all. */
static void read_input(lua_State *L, struct lk_exec_options *options)
{
    lua_getfield(L, 1, "stdin"); /* stdin */
    const char *text = lk_text_of(L, -1, &options->byte_count);
    if (text != NULL && lua_type(L, -1) == LUA_TSTRING && strcmp(text, "inherit") == 0) {
        options->input = LK_EXEC_INHERIT;
    } else if (text != NULL) {
        options->input = LK_EXEC_BYTES;
        options->bytes = text;
    } else if (lk_is_stream(L, -1)) {
        options->input = LK_EXEC_STREAM;
    } else if (!lua_isnil(L, -1)) {
        lk_misuse(L, "exec.start", "'stdin' must be a string or a stream, got %s",
                  luaL_typename(L, -1));
    }
}

static enum lk_exec_io read_output(lua_State *L, const char *key, enum lk_exec_io fallback)
{
    static const struct {
        const char *name;
        enum lk_exec_io mode;
    } modes[] = {{"stream", LK_EXEC_STREAM},   {"capture", LK_EXEC_CAPTURE},
                 {"log", LK_EXEC_LOG},         {"null", LK_EXEC_NULL},
                 {"inherit", LK_EXEC_INHERIT}, {"stdout", LK_EXEC_STDOUT}};
    const char *name = lk_opt_string(L, 1, key, NULL);
    size_t count = sizeof modes / sizeof modes[0] - (strcmp(key, "stderr") == 0 ? 0 : 1);
    if (name == NULL)
        return fallback;
    for (size_t i = 0; i < count; i++) {
        if (strcmp(name, modes[i].name) == 0)
            return modes[i].mode;
    }
    lk_misuse(L, "exec.start", "'%s' must be stream, capture, log, null, inherit%s; got '%s'", key,
              count == sizeof modes / sizeof modes[0] ? " or stdout" : "", name);
    return fallback;
}

/* Leaves the array, a userdata, on the stack. */
static void read_ok(lua_State *L, struct lk_exec_options *options)
{
    int type = lua_getfield(L, 1, "ok"); /* ok */
    if (type == LUA_TNIL)
        return;
    if (type != LUA_TTABLE)
        lk_misuse(L, "exec.start", "'ok' must be a list of exit codes, got %s",
                  luaL_typename(L, -1));
    size_t count = lua_rawlen(L, -1);
    int *list = lua_newuserdatauv(L, (count + 1) * sizeof *list, 0); /* ok list */
    for (size_t i = 0; i < count; i++) {
        int exact = 0;
        lua_rawgeti(L, -2, (lua_Integer)i + 1); /* ok list code */
        lua_Integer code = lua_type(L, -1) == LUA_TNUMBER ? lua_tointegerx(L, -1, &exact) : 0;
        if (!exact || code < 0 || code > 255)
            lk_misuse(L, "exec.start", "'ok' must be a list of exit codes from 0 to 255");
        list[i] = (int)code;
        lua_pop(L, 1); /* ok list */
    }
    options->ok = list;
    options->ok_count = count;
}

/* What is read points into the table at 1 and into values left on the stack. */
static void read_options(lua_State *L, struct lk_exec_options *options)
{
    static const char *const keys[] = {
        "env",    "clean_env",  "cwd",         "user",    "group",  "stdin",
        "stdout", "stderr",     "capture_max", "timeout", "grace",  "allow_empty",
        "ok",     "log_prefix", "log_item",    "log_max", "remind", NULL};
    memset(options, 0, sizeof *options);
    if (!lua_istable(L, 1))
        lk_misuse(L, "exec.start", "expected a table of arguments and options, got %s",
                  luaL_typename(L, 1));
    lk_check_keys(L, 1, "exec.start", keys);
    lua_newtable(L);
    int keep = lua_gettop(L);
    read_argv(L, keep, options);
    read_env(L, keep, options);
    read_ok(L, options);
    options->clean_env = lk_opt_boolean(L, 1, "clean_env", false);
    options->allow_empty = lk_opt_boolean(L, 1, "allow_empty", false);
    options->cwd = read_text(L, keep, "cwd");
    options->user = read_text(L, keep, "user");
    options->group = read_text(L, keep, "group");
    options->log_prefix = read_text(L, keep, "log_prefix");
    options->log_item = read_text(L, keep, "log_item");
    options->output = read_output(L, "stdout", LK_EXEC_CAPTURE);
    options->errors = read_output(L, "stderr", LK_EXEC_LOG);
    options->capture_max = (size_t)lk_opt_integer(L, 1, "capture_max", 1, CAPTURE_LIMIT, 1 << 20);
    options->log_max = (size_t)lk_opt_integer(L, 1, "log_max", 1, CAPTURE_LIMIT, 0);
    options->timeout_ms = lk_opt_milliseconds(L, 1, "timeout", 0);
    options->grace_ms = lk_opt_milliseconds(L, 1, "grace", 10);
    uint64_t remind = lk_opt_milliseconds(L, 1, "remind", 30);
    options->remind_ms = remind > 0 ? remind : NEVER_MS;
    read_input(L, options);
}

/* --- the process --- */

static struct process_box *check_process(lua_State *L, const char *function)
{
    struct process_box *box = luaL_testudata(L, 1, PROCESS_CLASS);
    if (box == NULL)
        lk_misuse(L, function, "expected a process, got %s", luaL_typename(L, 1));
    if (box->closed || box->process == NULL)
        lk_misuse(L, function, "the process was closed");
    return box;
}

static void ended(void *arg)
{
    struct process_box *box = arg;
    struct wait_op *wait = box->waiters;
    box->waiters = NULL;
    while (wait != NULL) {
        struct wait_op *next = wait->next;
        lk_op_done(&wait->op);
        wait = next;
    }
}

/* Makes room for the streams first: nothing may raise once the program runs. */
static int start(lua_State *L)
{
    struct lk_exec_options options;
    struct lk_error err;
    struct lk_stream **streams[2] = {NULL, NULL};

    lua_settop(L, 1);
    read_options(L, &options);
    int input = lua_gettop(L);
    struct lk_runtime *runtime = lk_runtime_of(L);
    struct lk_exec *exec = programs_of(runtime, &err);
    if (exec == NULL)
        return lk_push_error(L, &err);
    struct process_box *box = lua_newuserdatauv(L, sizeof *box, SLOTS);
    int slot = lua_gettop(L);
    memset(box, 0, sizeof *box);
    luaL_setmetatable(L, PROCESS_CLASS);
    for (int i = 0; i < 2; i++) {
        if ((i == 0 ? options.output : options.errors) != LK_EXEC_STREAM)
            continue;
        streams[i] = lk_push_stream_box(L);
        lua_setiuservalue(L, slot, i == 0 ? SLOT_STDOUT : SLOT_STDERR);
    }
    if (options.input == LK_EXEC_STREAM)
        options.stream = lk_take_stream(L, input, "exec.start");
    box->process = lk_process_start(exec, runtime->caps, &options, &err);
    if (box->process == NULL)
        return lk_push_error(L, &err);
    if (streams[0] != NULL)
        *streams[0] = lk_process_stdout(box->process);
    if (streams[1] != NULL)
        *streams[1] = lk_process_stderr(box->process);
    lk_process_on_done(box->process, ended, box);
    lua_settop(L, slot);
    return 1;
}

static void set_captured(lua_State *L, struct lk_process *process, bool errors, bool *truncated)
{
    size_t len;
    bool cut = false;
    const char *text = lk_process_captured(process, errors, &len, &cut);
    if (text == NULL)
        return;
    lua_pushlstring(L, text, len);
    lua_setfield(L, -2, errors ? "stderr" : "stdout");
    *truncated = *truncated || cut;
}

static int push_result(lua_State *L, struct lk_process *process)
{
    struct lk_error err;
    bool truncated = false;
    const struct lk_exec_result *result = lk_process_result(process);
    if (lk_process_lost(process, &err))
        return lk_push_error(L, &err);
    lua_createtable(L, 0, 8);
    if (result->signal != 0) {
        lua_pushinteger(L, result->signal);
        lua_setfield(L, -2, "signal");
    } else {
        lua_pushinteger(L, result->code);
        lua_setfield(L, -2, "code");
    }
    lua_pushboolean(L, result->timed_out);
    lua_setfield(L, -2, "timed_out");
    lua_pushboolean(L, result->left_open);
    lua_setfield(L, -2, "left_open");
    lua_pushnumber(L, result->seconds);
    lua_setfield(L, -2, "seconds");
    set_captured(L, process, false, &truncated);
    set_captured(L, process, true, &truncated);
    lua_pushboolean(L, truncated);
    lua_setfield(L, -2, "truncated");
    return 1;
}

static int wait_results(lua_State *L, struct lk_op *op)
{
    return push_result(L, ((struct wait_op *)op)->box->process);
}

/* The task goes on when the program has ended, which ended() tells. */
static void wait_cancel(struct lk_op *op)
{
    lk_process_end(((struct wait_op *)op)->box->process);
}

/* A task that was closed by force leaves its operation in the list. */
static int wait_collect(lua_State *L)
{
    struct wait_op *wait = luaL_checkudata(L, 1, WAIT_CLASS);
    struct wait_op **link = wait->box != NULL ? &wait->box->waiters : NULL;
    while (link != NULL && *link != NULL && *link != wait)
        link = &(*link)->next;
    if (link != NULL && *link == wait)
        *link = wait->next;
    return 0;
}

static int process_wait(lua_State *L)
{
    struct process_box *box = check_process(L, "process:wait");
    lua_settop(L, 1);
    if (lk_process_result(box->process) != NULL && box->waiters == NULL)
        return push_result(L, box->process);
    struct wait_op *wait = lua_newuserdatauv(L, sizeof *wait, 1); /* process wait */
    memset(wait, 0, sizeof *wait);
    luaL_setmetatable(L, WAIT_CLASS);
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, 2, 1);
    lk_task_parkable(L);
    wait->op.cancel = wait_cancel;
    wait->op.results = wait_results;
    wait->box = box;
    wait->next = box->waiters;
    box->waiters = wait;
    return lk_task_park(L, 2, &wait->op);
}

static int process_status(lua_State *L)
{
    struct lk_error err;
    struct process_box *box = check_process(L, "process:status");
    if (lk_process_result(box->process) == NULL)
        return lk_misuse(L, "process:status", "the program still runs: wait for it");
    if (lk_process_status(box->process, &err) != 0)
        return lk_push_error(L, &err);
    lua_pushboolean(L, 1);
    return 1;
}

static int signal_number(lua_State *L, int index)
{
    int exact = 0;
    if (lua_type(L, index) == LUA_TNUMBER) {
        lua_Integer number = lua_tointegerx(L, index, &exact);
        if (exact && number > 0 && number < NSIG)
            return (int)number;
    } else if (lua_type(L, index) == LUA_TSTRING) {
        const char *name = lua_tostring(L, index);
        if (strncmp(name, "SIG", 3) == 0)
            name += 3;
        for (int number = 1; number < NSIG; number++) {
            const char *known = sigabbrev_np(number);
            if (known != NULL && strcmp(name, known) == 0)
                return number;
        }
    }
    return lk_misuse(L, "process:kill", "expected the name or number of a signal");
}

static int process_kill(lua_State *L)
{
    struct lk_error err;
    struct process_box *box = check_process(L, "process:kill");
    int number = lua_isnoneornil(L, 2) ? SIGTERM : signal_number(L, 2);
    if (lk_process_kill(box->process, number, &err) != 0)
        return lk_push_error(L, &err);
    lua_pushboolean(L, 1);
    return 1;
}

/* Ends it, without waiting: the runtime reaps it. Who waits for it still gets its result. */
static int process_close(lua_State *L)
{
    struct process_box *box = luaL_checkudata(L, 1, PROCESS_CLASS);
    if (box->process == NULL || box->closed)
        return 0;
    box->closed = true;
    lk_process_end(box->process);
    return 0;
}

static int process_collect(lua_State *L)
{
    struct process_box *box = luaL_checkudata(L, 1, PROCESS_CLASS);
    if (box->process != NULL)
        lk_process_unref(box->process);
    box->process = NULL;
    return 0;
}

/* Upvalue 1: the methods. */
static int process_index(lua_State *L)
{
    struct process_box *box = luaL_checkudata(L, 1, PROCESS_CLASS);
    const char *key = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "";
    if (strcmp(key, "pid") == 0 && box->process != NULL)
        lua_pushinteger(L, lk_process_pid(box->process));
    else if (strcmp(key, "stdout") == 0)
        lua_getiuservalue(L, 1, SLOT_STDOUT);
    else if (strcmp(key, "stderr") == 0)
        lua_getiuservalue(L, 1, SLOT_STDERR);
    else {
        lua_settop(L, 2);
        lua_rawget(L, lua_upvalueindex(1));
    }
    return 1;
}

/* --- the module --- */

static int which(lua_State *L)
{
    struct lk_error err;
    char *found;
    if (lua_type(L, 1) != LUA_TSTRING)
        return lk_misuse(L, "exec.which", "expected the name of a program, got %s",
                         luaL_typename(L, 1));
    const char *name = lua_tostring(L, 1);
    if (lk_caps_check(lk_runtime_of(L)->caps, LK_CAP_EXEC, name, &err) != 0 ||
        lk_spawn_find(name, &found, &err) != 0)
        return lk_push_error(L, &err);
    char path[4096];
    int code = snprintf(path, sizeof path, "%s", found) < (int)sizeof path ? 0 : ENAMETOOLONG;
    free(found);
    if (code == 0 && access(path, X_OK) != 0)
        code = errno;
    if (code != 0) {
        lk_error_errno(&err, code, "program '%s'", name);
        return lk_push_error(L, &err);
    }
    lua_pushstring(L, path);
    return 1;
}

int lk_open_exec(lua_State *L)
{
    static const luaL_Reg methods[] = {{"wait", process_wait},
                                       {"status", process_status},
                                       {"kill", process_kill},
                                       {"close", process_close},
                                       {NULL, NULL}};
    static const luaL_Reg none[] = {{NULL, NULL}};
    static const luaL_Reg functions[] = {{"start", start}, {"which", which}, {NULL, NULL}};

    lk_new_class(L, PROCESS_CLASS, none, process_collect);
    luaL_getmetatable(L, PROCESS_CLASS); /* mt */
    lua_pushcfunction(L, process_close);
    lua_setfield(L, -2, "__close");
    luaL_newlib(L, methods); /* mt methods */
    lua_pushcclosure(L, process_index, 1);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
    lk_new_class(L, WAIT_CLASS, none, wait_collect);
    luaL_newlib(L, functions);
    return 1;
}
