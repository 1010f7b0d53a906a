/* SPDX-License-Identifier: MIT
 * lua_sys.c - lunark.core.sys: errors, secrets, clocks, capabilities, budgets, and scripts by name.
 * Owns nothing but the class of secrets. Loop thread only. */
#include "cgroup.h"
#include "embedded.h"
#include "lua_vm.h"
#include "shared_fd.h"
#include <errno.h>
#include <lauxlib.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#ifndef LUNARK_VERSION
#define LUNARK_VERSION "0.1.0"
#endif

/* --- errors --- */

static int sys_error(lua_State *L)
{
    static const char *const keys[] = {"kind",      "message",    "op",   "code",  "status",
                                       "retryable", "request_id", "hint", "cause", NULL};
    if (!lua_istable(L, 1))
        return lk_misuse(L, "sys.error", "expected a table, got %s", luaL_typename(L, 1));
    lk_check_keys(L, 1, "sys.error", keys);
    lua_settop(L, 1);
    const char *kind = lk_opt_string(L, 1, "kind", NULL);
    if (lk_opt_string(L, 1, "message", NULL) == NULL)
        return lk_misuse(L, "sys.error", "'message' is missing");
    bool known = false;
    for (int i = LK_USAGE; kind != NULL && i <= LK_MEMORY; i++)
        known = known || strcmp(kind, lk_kind_name((enum lk_kind)i)) == 0;
    if (!known)
        return lk_misuse(L, "sys.error", "'kind' is '%s', which is none",
                         kind == NULL ? "nil" : kind);
    lk_set_error_class(L);
    return 1;
}

static int sys_is_error(lua_State *L)
{
    lua_pushboolean(L, lk_is_error(L, 1));
    return 1;
}

/* --- secrets --- */

static int secret_reveal(lua_State *L)
{
    struct lk_secret *secret = luaL_checkudata(L, 1, LK_SECRET_CLASS);
    lua_pushlstring(L, secret->text, secret->len);
    return 1;
}

static int secret_len(lua_State *L)
{
    struct lk_secret *secret = luaL_checkudata(L, 1, LK_SECRET_CLASS);
    lua_pushinteger(L, (lua_Integer)secret->len);
    return 1;
}

static int secret_tostring(lua_State *L)
{
    lua_pushliteral(L, "***");
    return 1;
}

static int secret_eq(lua_State *L)
{
    struct lk_secret *a = luaL_testudata(L, 1, LK_SECRET_CLASS);
    struct lk_secret *b = luaL_testudata(L, 2, LK_SECRET_CLASS);
    lua_pushboolean(L, a != NULL && b != NULL && a->len == b->len &&
                           memcmp(a->text, b->text, a->len) == 0);
    return 1;
}

static int secret_gc(lua_State *L)
{
    struct lk_secret *secret = luaL_checkudata(L, 1, LK_SECRET_CLASS);
    explicit_bzero(secret->text, secret->len);
    return 0;
}

static int sys_secret(lua_State *L)
{
    size_t len;
    if (luaL_testudata(L, 1, LK_SECRET_CLASS) != NULL) {
        lua_settop(L, 1);
        return 1;
    }
    if (lua_type(L, 1) != LUA_TSTRING)
        return lk_misuse(L, "sys.secret", "expected a string, got %s", luaL_typename(L, 1));
    const char *text = lua_tolstring(L, 1, &len);
    struct lk_secret *secret = lua_newuserdatauv(L, sizeof *secret + len + 1, 0);
    secret->len = len;
    memcpy(secret->text, text, len);
    secret->text[len] = '\0';
    luaL_setmetatable(L, LK_SECRET_CLASS);
    struct lk_error err;
    if (lk_log_redact(lk_runtime_of(L)->log, text, len, &err) < 0)
        return lk_raise(L, &err);
    return 1;
}

static int sys_is_secret(lua_State *L)
{
    lua_pushboolean(L, luaL_testudata(L, 1, LK_SECRET_CLASS) != NULL);
    return 1;
}

static void open_secrets(lua_State *L)
{
    static const luaL_Reg methods[] = {{"reveal", secret_reveal}, {NULL, NULL}};
    static const luaL_Reg meta[] = {
        {"__len", secret_len}, {"__tostring", secret_tostring}, {"__eq", secret_eq}, {NULL, NULL}};
    lk_new_class(L, LK_SECRET_CLASS, methods, secret_gc);
    luaL_getmetatable(L, LK_SECRET_CLASS);
    luaL_setfuncs(L, meta, 0);
    lua_pushnil(L);
    lua_setfield(L, -2, "__close");
    lua_pop(L, 1);
}

/* --- surroundings --- */

static int sys_env(lua_State *L)
{
    const char *name = luaL_checkstring(L, 1);
    struct lk_error err;
    if (lk_caps_check(lk_runtime_of(L)->caps, LK_CAP_ENV, name, &err) < 0)
        return lk_raise(L, &err);
    lua_pushstring(L, getenv(name));
    return 1;
}

static int push_clock(lua_State *L, clockid_t id)
{
    struct timespec now;
    clock_gettime(id, &now);
    lua_pushnumber(L, (lua_Number)now.tv_sec + (lua_Number)now.tv_nsec / 1e9);
    return 1;
}

static int sys_clock(lua_State *L)
{
    return push_clock(L, CLOCK_REALTIME);
}

static int sys_monotonic(lua_State *L)
{
    return push_clock(L, CLOCK_MONOTONIC);
}

static int sys_cpus(lua_State *L)
{
    lua_pushinteger(L, lk_pool_cpus());
    return 1;
}

static int sys_memory_limit(lua_State *L)
{
    uint64_t limit = lk_cgroup_memory("");
    if (limit == 0)
        return 0;
    lua_pushinteger(L, (lua_Integer)limit);
    return 1;
}

static int sys_hostname(lua_State *L)
{
    char name[HOST_NAME_MAX + 1] = "";
    if (gethostname(name, sizeof name - 1) != 0 || name[0] == '\0')
        snprintf(name, sizeof name, "localhost");
    lua_pushstring(L, name);
    return 1;
}

static int sys_pid(lua_State *L)
{
    lua_pushinteger(L, getpid());
    return 1;
}

static int sys_uid(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)geteuid());
    return 1;
}

static int check_fd(lua_State *L, const char *function, int least)
{
    lua_Integer fd = luaL_checkinteger(L, 1);
    if (fd < least || fd > 2)
        return lk_misuse(L, function, "descriptor must be %d to 2, got %d", least, (int)fd);
    return (int)fd;
}

static int sys_isatty(lua_State *L)
{
    lua_pushboolean(L, isatty(check_fd(L, "sys.isatty", 0)));
    return 1;
}

static int sys_columns(lua_State *L)
{
    int fd = isatty(STDERR_FILENO) ? STDERR_FILENO : STDOUT_FILENO;
    struct winsize size;
    bool known = ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
    lua_pushinteger(L, known ? size.ws_col : 80);
    return 1;
}

static int sys_write(lua_State *L)
{
    int fd = check_fd(L, "sys.write", 1);
    size_t len;
    const char *text = luaL_checklstring(L, 2, &len);
    struct lk_error err;
    if (lk_write_shared(fd, text, len, &lk_runtime_of(L)->stalled[fd], &err) < 0)
        return lk_push_error(L, &err);
    lua_pushboolean(L, 1);
    return 1;
}

/* --- budget --- */

static int sys_budget(lua_State *L)
{
    struct lk_runtime *runtime = lk_runtime_of(L);
    lua_createtable(L, 0, 2);
    lua_pushinteger(L, (lua_Integer)runtime->memory);
    lua_setfield(L, -2, "memory");
    lua_pushinteger(L, runtime->jobs);
    lua_setfield(L, -2, "jobs");
    return 1;
}

static int sys_set_budget(lua_State *L)
{
    static const char *const keys[] = {"memory", "jobs", NULL};
    struct lk_runtime *runtime = lk_runtime_of(L);
    lk_check_keys(L, 1, "sys.set_budget", keys);
    lua_Integer memory = lk_opt_integer(L, 1, "memory", (lua_Integer)4 << 20, LUA_MAXINTEGER,
                                        (lua_Integer)runtime->memory);
    lua_Integer jobs = lk_opt_integer(L, 1, "jobs", 1, 1024, runtime->jobs);
    runtime->memory = (size_t)memory;
    runtime->jobs = (int)jobs;
    return 0;
}

/* --- capabilities --- */

static enum lk_cap check_cap(lua_State *L)
{
    enum lk_cap cap;
    struct lk_error err;
    if (lk_cap_parse(luaL_checkstring(L, 1), &cap, &err) < 0)
        lk_raise(L, &err);
    return cap;
}

static int grant(lua_State *L)
{
    enum lk_cap cap = check_cap(L);
    struct lk_error err;
    if (lk_caps_allow(lk_runtime_of(L)->caps, cap, luaL_optstring(L, 2, "*"), &err) < 0)
        return lk_raise(L, &err);
    return 0;
}

static int sys_allow(lua_State *L)
{
    struct lk_error err;
    if (!lk_runtime_of(L)->sealed)
        return grant(L);
    lk_error_set(&err, LK_DENIED, "%s can't be granted: the runtime is sealed",
                 lk_cap_name(check_cap(L)));
    lk_error_hint(&err, "grant it before a script runs");
    return lk_raise(L, &err);
}

/* What sys.seal(true) gives: grants as before, until it is called with nothing. */
static int late_allow(lua_State *L)
{
    if (!lua_isnoneornil(L, 1))
        return grant(L);
    lk_caps_seal(lk_runtime_of(L)->caps);
    return 0;
}

static int sys_check(lua_State *L)
{
    enum lk_cap cap = check_cap(L);
    struct lk_error err;
    if (lk_caps_check(lk_runtime_of(L)->caps, cap, luaL_optstring(L, 2, "*"), &err) < 0)
        return lk_push_error(L, &err);
    lua_pushboolean(L, 1);
    return 1;
}

static int sys_seal(lua_State *L)
{
    struct lk_runtime *runtime = lk_runtime_of(L);
    bool first = !runtime->sealed;
    runtime->sealed = true;
    if (first && lua_toboolean(L, 1)) {
        lua_pushcfunction(L, late_allow);
        return 1;
    }
    lk_caps_seal(runtime->caps);
    return 0;
}

static int sys_sealed(lua_State *L)
{
    lua_pushboolean(L, lk_runtime_of(L)->sealed);
    return 1;
}

/* --- scripts --- */

static int sys_load(lua_State *L)
{
    const char *name = luaL_checkstring(L, 1);
    size_t len;
    const char *source = luaL_checklstring(L, 2, &len);
    lua_settop(L, 3);
    if (lua_isnil(L, 3)) {
        lk_push_environment(L);
        lua_replace(L, 3);
    }
    luaL_checktype(L, 3, LUA_TTABLE);
    return lk_vm_load(L, name, source, len, 3);
}

static int sys_environment(lua_State *L)
{
    lk_push_environment(L);
    return 1;
}

static int sys_embedded(lua_State *L)
{
    const char *name = luaL_checkstring(L, 1);
    for (const struct lk_embedded *file = lk_embedded_files; file->name != NULL; file++) {
        if (strcmp(file->name, name) == 0) {
            lua_pushlstring(L, file->text, file->len);
            return 1;
        }
    }
    lua_pushnil(L);
    return 1;
}

static int sys_embedded_names(lua_State *L)
{
    lua_newtable(L);
    lua_Integer n = 0;
    for (const struct lk_embedded *file = lk_embedded_files; file->name != NULL; file++) {
        lua_pushstring(L, file->name);
        lua_seti(L, -2, ++n);
    }
    return 1;
}

static int sys_find(lua_State *L)
{
    int n = lk_vm_find(L, luaL_checkstring(L, 1));
    if (n == 0)
        lua_pushnil(L);
    return n == 0 ? 1 : n;
}

static int sys_script_dirs(lua_State *L)
{
    struct lk_runtime *runtime = lk_runtime_of(L);
    lua_newtable(L);
    for (size_t i = 0; i < runtime->script_dir_count; i++) {
        lua_pushstring(L, runtime->script_dirs[i]);
        lua_seti(L, -2, (lua_Integer)i + 1);
    }
    return 1;
}

static int sys_add_script_dir(lua_State *L)
{
    struct lk_runtime *runtime = lk_runtime_of(L);
    const char *dir = luaL_checkstring(L, 1);
    lua_Integer place = luaL_optinteger(L, 2, (lua_Integer)runtime->script_dir_count + 1);
    if (runtime->sealed)
        return lk_misuse(L, "sys.add_script_dir", "the runtime is sealed");
    if (place < 1 || place > (lua_Integer)runtime->script_dir_count + 1)
        return lk_misuse(L, "sys.add_script_dir", "place is out of range");
    struct lk_error err;
    if (lk_runtime_add_script_dir(runtime, dir, (size_t)place - 1, &err) < 0)
        return lk_raise(L, &err);
    return 0;
}

static const luaL_Reg functions[] = {{"error", sys_error},
                                     {"is_error", sys_is_error},
                                     {"secret", sys_secret},
                                     {"is_secret", sys_is_secret},
                                     {"env", sys_env},
                                     {"clock", sys_clock},
                                     {"monotonic", sys_monotonic},
                                     {"cpus", sys_cpus},
                                     {"memory_limit", sys_memory_limit},
                                     {"hostname", sys_hostname},
                                     {"pid", sys_pid},
                                     {"uid", sys_uid},
                                     {"isatty", sys_isatty},
                                     {"columns", sys_columns},
                                     {"write", sys_write},
                                     {"budget", sys_budget},
                                     {"set_budget", sys_set_budget},
                                     {"allow", sys_allow},
                                     {"check", sys_check},
                                     {"seal", sys_seal},
                                     {"sealed", sys_sealed},
                                     {"load", sys_load},
                                     {"environment", sys_environment},
                                     {"embedded", sys_embedded},
                                     {"embedded_names", sys_embedded_names},
                                     {"find", sys_find},
                                     {"script_dirs", sys_script_dirs},
                                     {"add_script_dir", sys_add_script_dir},
                                     {NULL, NULL}};

int lk_open_sys(lua_State *L)
{
    open_secrets(L);
    luaL_newlib(L, functions);
    lua_pushliteral(L, LUNARK_VERSION);
    lua_setfield(L, -2, "version");
    return 1;
}
