/* SPDX-License-Identifier: MIT
 * lua_vm.c - the Lua state of a runtime: allocator with a limit, libraries, modules, and require.
 *
 * Modules in C are `lunark.core.NAME`, the library in Lua is `lunark.NAME` from the script
 * directories or the copies inside the library. Modules of the system are loaded by an allow-list,
 * and never from the current directory. Our require can be parked in, Lua's can't. Loop thread
 * only. */
#include "lua_vm.h"
#include "embedded.h"
#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <lualib.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SCRIPT_MAX ((off_t)16 << 20)
#define HOOK_COUNT 100000

static const char loading_key = 0; /* name -> the task that loads it */
static const char loaded_key = 0;  /* table of our modules: name -> value */
static const char require_key = 0; /* Lua's own require */

struct memory {
    size_t used, limit;
};

static void *allocate(void *arg, void *block, size_t old_size, size_t new_size)
{
    struct memory *memory = arg;
    if (block == NULL)
        old_size = 0; /* Lua says the type there */
    if (new_size == 0) {
        free(block);
        memory->used -= old_size;
        return NULL;
    }
    if (new_size > old_size && memory->limit != 0 &&
        new_size - old_size > memory->limit - memory->used)
        return NULL;
    void *moved = realloc(block, new_size);
    if (moved != NULL)
        memory->used += new_size - old_size;
    return moved;
}

static int panic(lua_State *L)
{
    static const char text[] = "lunark: error outside a protected call\n";
    (void)L;
    ssize_t ignored = write(STDERR_FILENO, text, sizeof text - 1);
    (void)ignored;
    return 0;
}

/* Lets lunark_cancel and timeouts reach a script that never parks. */
static void interrupt(lua_State *L, lua_Debug *ar)
{
    (void)ar;
    struct lk_runtime *runtime = lk_runtime_of(L);
    if (runtime == NULL)
        return;
    if (atomic_load(&runtime->cancels) > 0)
        lk_task_interrupt(L);
    else
        lk_task_overtime(L);
}

/* --- scripts by name --- */

const char *lk_vm_relative(const char *embedded_name)
{
    return strncmp(embedded_name, "scripts/", 8) == 0 ? embedded_name + 8 : embedded_name;
}

bool lk_vm_safe_name(const char *relative)
{
    return relative[0] != '\0' && relative[0] != '/' && relative[0] != '.' &&
           strstr(relative, "/.") == NULL && strstr(relative, "//") == NULL;
}

/* Pushes the content of a file, or nothing and false: it is not there or not a file. */
static bool push_file(lua_State *L, const char *path)
{
    /* The buffer is Lua's, made before the descriptor: what raises leaks nothing. */
    struct stat st;
    if (stat(path, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size > SCRIPT_MAX)
        return false;
    size_t size = (size_t)st.st_size;
    char *data = lua_newuserdatauv(L, size + 1, 0);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        lua_pop(L, 1);
        return false;
    }
    size_t len = 0;
    ssize_t n;
    while (len < size && ((n = read(fd, data + len, size - len)) > 0 || (n < 0 && errno == EINTR)))
        len += n > 0 ? (size_t)n : 0;
    close(fd);
    lua_pushlstring(L, data, len);
    lua_remove(L, -2);
    return true;
}

int lk_vm_find(lua_State *L, const char *relative)
{
    struct lk_runtime *runtime = lk_runtime_of(L);
    if (!lk_vm_safe_name(relative))
        return 0;
    luaL_checkstack(L, 4, NULL);
    for (size_t i = 0; i < runtime->script_dir_count; i++) {
        const char *path = lua_pushfstring(L, "%s/%s", runtime->script_dirs[i], relative);
        if (push_file(L, path)) {
            lua_insert(L, -2);
            return 2;
        }
        lua_pop(L, 1);
    }
    for (const struct lk_embedded *file = lk_embedded_files; file->name != NULL; file++) {
        if (strcmp(lk_vm_relative(file->name), relative) == 0) {
            lua_pushlstring(L, file->text, file->len);
            lua_pushliteral(L, "embedded");
            return 2;
        }
    }
    return 0;
}

int lk_vm_load(lua_State *L, const char *name, const char *source, size_t len, int env)
{
    env = lua_absindex(L, env);
    const char *line = source;
    if (len > 0 && source[0] == '#') { /* the line's end stays, so that numbers are right */
        line = memchr(source, '\n', len);
        if (line == NULL)
            line = source + len;
    }
    lua_pushfstring(L, "@%s", name);
    int status = luaL_loadbufferx(L, line, len - (size_t)(line - source), lua_tostring(L, -1), "t");
    lua_remove(L, -2);
    if (status == LUA_OK) {
        lua_pushvalue(L, env);
        if (lua_setupvalue(L, -2, 1) == NULL)
            lua_pop(L, 1);
        return 1;
    }
    struct lk_error err;
    lk_error_set(&err, LK_USAGE, "%s", lua_tostring(L, -1));
    snprintf(err.op, sizeof err.op, "load");
    lua_pop(L, 1);
    return lk_push_error(L, &err);
}

/* --- require --- */

static const struct {
    const char *name;
    lua_CFunction open;
} core_modules[] = {
    {"lunark.core.task", lk_open_task},     {"lunark.core.sys", lk_open_sys},
    {"lunark.core.stream", lk_open_stream}, {"lunark.core.file", lk_open_file},
    {"lunark.core.exec", lk_open_exec},     {"lunark.core.archive", lk_open_archive},
    {"lunark.core.http", lk_open_http},     {"lunark.core.crypto", lk_open_crypto},
    {"lunark.core.log", lk_open_log},       {"lunark.core.check", lk_open_check},
    {"lunark.core.index", lk_open_index},
};

static const char *const system_modules[] = {"cjson", "lxp",   "argparse", "luaunit",
                                             "posix", "bit32", "std",      NULL};

/* The name itself or what is below it. */
static bool is_below(const char *name, const char *base)
{
    size_t len = strlen(base);
    return strncmp(name, base, len) == 0 && (name[len] == '\0' || name[len] == '.');
}

static bool is_system_module(const char *name)
{
    for (const char *const *base = system_modules; *base != NULL; base++)
        if (is_below(name, *base))
            return true;
    return false;
}

static int no_module(lua_State *L, const char *name, const char *why)
{
    struct lk_error err;
    lk_error_set(&err, LK_NOT_FOUND, "module '%s': %s", name, why);
    snprintf(err.op, sizeof err.op, "require");
    return lk_raise(L, &err);
}

static bool push_loaded(lua_State *L)
{
    lua_rawgetp(L, LUA_REGISTRYINDEX, &loaded_key);
    lua_pushvalue(L, 1);
    lua_rawget(L, -2);
    lua_remove(L, -2);
    if (!lua_isnil(L, -1))
        return true;
    lua_pop(L, 1);
    return false;
}

/* [name, ...] value at the top -> kept and returned. Two tasks may have loaded it at once: the
 * first one wins. */
static int keep_module(lua_State *L)
{
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        lua_pushboolean(L, 1);
    }
    if (push_loaded(L))
        return 1;
    lua_rawgetp(L, LUA_REGISTRYINDEX, &loaded_key);
    lua_pushvalue(L, 1);
    lua_pushvalue(L, -3);
    lua_rawset(L, -3);
    lua_pop(L, 1);
    return 1;
}

/* Notes which task loads the module at index 1, or that none does any more. */
static void set_loading(lua_State *L, lua_State *who)
{
    lua_rawgetp(L, LUA_REGISTRYINDEX, &loading_key);
    lua_pushvalue(L, 1);
    if (who != NULL)
        lua_pushlightuserdata(L, who);
    else
        lua_pushnil(L);
    lua_rawset(L, -3);
    lua_pop(L, 1);
}

static bool is_loading(lua_State *L)
{
    lua_rawgetp(L, LUA_REGISTRYINDEX, &loading_key);
    lua_pushvalue(L, 1);
    lua_rawget(L, -2);
    bool same = lua_touserdata(L, -1) != NULL && lua_touserdata(L, -1) == lk_task_coroutine(L);
    lua_pop(L, 2);
    return same;
}

static int module_ran(lua_State *L, int status, lua_KContext context)
{
    (void)context;
    set_loading(L, NULL);
    if (status != LUA_OK && status != LUA_YIELD)
        return lua_error(L);
    return keep_module(L);
}

/* A module in Lua: `trusted` ones see the whole of Lua, others what a script sees. */
static int run_module(lua_State *L, const char *name, bool trusted)
{
    luaL_gsub(L, name, ".", "/");
    const char *relative = lua_pushfstring(L, "%s.lua", lua_tostring(L, -1));
    if (is_loading(L))
        return no_module(L, name, "it is being loaded: modules need each other");
    const char *package = lua_pushfstring(L, "%s/init.lua", lua_tostring(L, -2));
    if (lk_vm_find(L, relative) == 0 && lk_vm_find(L, package) == 0)
        return no_module(L, name, "there is no such file in the script directories");
    size_t len;
    const char *source = lua_tolstring(L, -2, &len);
    const char *origin =
        strcmp(lua_tostring(L, -1), "embedded") == 0 ? relative : lua_tostring(L, -1);
    if (trusted)
        lua_pushglobaltable(L);
    else
        lk_push_environment(L);
    if (lk_vm_load(L, origin, source, len, -1) != 1)
        return lua_error(L);
    lua_pushvalue(L, 1);
    lua_pushstring(L, origin);
    set_loading(L, lk_task_coroutine(L));
    return module_ran(L, lua_pcallk(L, 2, 1, 0, 0, module_ran), 0);
}

static int run_system_module(lua_State *L, const char *name, bool library)
{
    struct lk_error err;
    if (!library && is_below(name, "posix") &&
        lk_caps_check(lk_runtime_of(L)->caps, LK_CAP_POSIX, "*", &err) < 0)
        return lk_raise(L, &err);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &require_key);
    lua_pushvalue(L, 1);
    lua_callk(L, 1, 1, 0, module_ran);
    return module_ran(L, LUA_OK, 0);
}

static int require(lua_State *L, bool library)
{
    const char *name = luaL_checkstring(L, 1);
    lua_settop(L, 1);
    if (!(is_below(name, "posix") && !library) && push_loaded(L))
        return 1;
    for (size_t i = 0; i < sizeof core_modules / sizeof *core_modules; i++) {
        if (strcmp(name, core_modules[i].name) == 0) {
            lua_pushcfunction(L, core_modules[i].open);
            lua_call(L, 0, 1);
            return keep_module(L);
        }
    }
    if (is_system_module(name))
        return run_system_module(L, name, library);
    if (library && luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE) &&
        lua_getfield(L, -1, name) != LUA_TNIL)
        return 1; /* luaunit asks for "string" and the like */
    lua_settop(L, 1);
    return run_module(L, name, library || is_below(name, "lunark"));
}

int lk_require_library(lua_State *L)
{
    return require(L, true);
}

static int require_strict(lua_State *L)
{
    return require(L, false);
}

/* What is shared with the library can't be changed by a script. */
static int guard_module(lua_State *L, int status, lua_KContext context)
{
    (void)status;
    (void)context;
    const char *name = lua_tostring(L, 1);
    if (lua_istable(L, -1) && (is_below(name, "lunark") || is_system_module(name)))
        lk_make_readonly(L);
    return 1;
}

int lk_require_script(lua_State *L)
{
    luaL_checkstring(L, 1);
    lua_settop(L, 1);
    lua_pushcfunction(L, require_strict);
    lua_pushvalue(L, 1);
    lua_callk(L, 1, 1, 0, guard_module);
    return guard_module(L, LUA_OK, 0);
}

/* [open, name as light userdata] */
static int add_module(lua_State *L)
{
    lua_rawgetp(L, LUA_REGISTRYINDEX, &loaded_key);
    lua_pushvalue(L, 1);
    lua_call(L, 0, 1);
    lua_setfield(L, -2, lua_touserdata(L, 2));
    return 0;
}

int lk_vm_add_module(lua_State *L, const char *name, lua_CFunction open, struct lk_error *err)
{
    if (is_below(name, "lunark"))
        return lk_error_set(err, LK_USAGE, "module '%s': names under 'lunark' are taken", name);
    lua_pushcfunction(L, add_module);
    lua_pushcfunction(L, open);
    lua_pushlightuserdata(L, (void *)(uintptr_t)name);
    if (lua_pcall(L, 2, 0, 0) == LUA_OK)
        return 0;
    lk_error_of_failure(L, err);
    return -1;
}

/* --- the state --- */

/* Takes the entries that are relative to the current directory out of a search path. */
static void clean_path(lua_State *L, const char *field)
{
    lua_getfield(L, -1, field);
    luaL_Buffer kept;
    const char *path = lua_tostring(L, -1);
    luaL_buffinit(L, &kept);
    bool first = true;
    while (path != NULL && *path != '\0') {
        size_t len = strcspn(path, ";");
        if (path[0] == '/') {
            if (!first)
                luaL_addchar(&kept, ';');
            luaL_addlstring(&kept, path, len);
            first = false;
        }
        path += len + (path[len] == ';');
    }
    luaL_pushresult(&kept);
    lua_setfield(L, -3, field);
    lua_pop(L, 1);
}

static void open_registry(lua_State *L)
{
    lua_newtable(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &loaded_key);
    lua_newtable(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &loading_key);
    lua_getglobal(L, "require");
    lua_rawsetp(L, LUA_REGISTRYINDEX, &require_key);
}

static int open_state(lua_State *L)
{
    lua_pushboolean(L, 1); /* neither LUA_PATH nor LUA_INIT */
    lua_setfield(L, LUA_REGISTRYINDEX, "LUA_NOENV");
    luaL_openlibs(L);
    lua_getglobal(L, "package");
    clean_path(L, "path");
    clean_path(L, "cpath");
    lua_pop(L, 1);
    open_registry(L);
    lua_pushcfunction(L, lk_require_library);
    lua_setglobal(L, "require");
    lk_harden(L);
    return 0;
}

int lk_vm_new(struct lk_runtime *runtime, size_t limit, struct lk_error *err)
{
    struct memory *memory = calloc(1, sizeof *memory);
    lua_State *L = NULL;
    if (memory != NULL) {
        memory->limit = limit;
        L = lua_newstate(allocate, memory);
    }
    if (L == NULL) {
        free(memory);
        return lk_error_set(err, LK_MEMORY, "no memory for a Lua state");
    }
    lua_atpanic(L, panic);
    lua_sethook(L, interrupt, LUA_MASKCOUNT, HOOK_COUNT);
    runtime->lua = L;
    lua_pushcfunction(L, open_state);
    int status = lua_pcall(L, 0, 0, 0);
    if (status != LUA_OK)
        lk_error_of_failure(L, err);
    if (status == LUA_OK && lk_tasks_new(L, runtime, err) == 0)
        return 0;
    lk_vm_free(runtime, 0);
    return -1;
}

void lk_vm_free(struct lk_runtime *runtime, double grace)
{
    if (runtime->lua == NULL)
        return;
    void *memory;
    lua_getallocf(runtime->lua, &memory);
    if (runtime->tasks != NULL)
        lk_tasks_close(runtime, grace);
    lua_close(runtime->lua);
    runtime->lua = NULL;
    lk_tasks_free(runtime);
    free(memory);
}

/* A searcher for Lua's own require: our modules, loaded by our require. */
static int searcher(lua_State *L)
{
    const char *name = luaL_checkstring(L, 1);
    if (!is_below(name, "lunark"))
        return 0;
    lua_pushcfunction(L, lk_require_library);
    return 1;
}

void lk_vm_attach(lua_State *L, struct lk_runtime *runtime)
{
    struct lk_error err;
    runtime->lua = L;
    open_registry(L);
    if (lk_tasks_new(L, runtime, &err) < 0)
        lk_raise(L, &err);
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "searchers");
    for (lua_Integer i = luaL_len(L, -1); i >= 2; i--) {
        lua_geti(L, -1, i);
        lua_seti(L, -2, i + 1);
    }
    lua_pushcfunction(L, searcher);
    lua_seti(L, -2, 2);
    lua_pop(L, 2);
}
