/* SPDX-License-Identifier: MIT
 * test_embed.c - the public interface as a host uses it. */
#include "lunark.h"
#include <dirent.h>
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct lunark *make(unsigned flags)
{
    struct lunark_options options = {.size = sizeof options, .flags = flags, .jobs = 1};
    struct lunark_error error;
    struct lunark *runtime = lunark_new(&options, &error);
    assert_non_null(runtime);
    return runtime;
}

static int run(struct lunark *runtime, const char *source, struct lunark_error *error)
{
    memset(error, 0, sizeof *error);
    return lunark_run_string(runtime, "test", source, NULL, error);
}

static void assert_result(struct lunark *runtime, const char *source, const char *expected)
{
    struct lunark_error error;
    if (run(runtime, source, &error) < 0)
        fail_msg("%s: %s", error.kind, error.message);
    if (expected == NULL)
        assert_null(lunark_result(runtime));
    else
        assert_string_equal(lunark_result(runtime), expected);
}

static void assert_fails(struct lunark *runtime, const char *source, const char *kind,
                         const char *text)
{
    struct lunark_error error;
    assert_int_equal(run(runtime, source, &error), -1);
    assert_string_equal(error.kind, kind);
    if (strstr(error.message, text) == NULL)
        fail_msg("'%s' is not in '%s'", text, error.message);
    assert_null(lunark_result(runtime));
}

static int count_descriptors(void)
{
    int count = 0;
    DIR *dir = opendir("/proc/self/fd");
    while (readdir(dir) != NULL)
        count++;
    closedir(dir);
    return count;
}

static void results_and_errors(void **state)
{
    (void)state;
    static const char *const args[] = {"a", "b c", NULL};
    struct lunark_error error;
    struct lunark *runtime = make(0);
    assert_result(runtime, "return 1 + 1", "2");
    assert_result(runtime, "return 'text', 2", "text");
    assert_result(runtime, "return", NULL);
    assert_result(runtime, "return true", "true");
    assert_int_equal(
        lunark_run_string(runtime, "args", "return select('#', ...) .. ...", args, &error), 0);
    assert_string_equal(lunark_result(runtime), "2a");
    assert_fails(runtime, "local x = nil\nreturn x.y", "usage",
                 "test:2: attempt to index a nil value");
    assert_fails(runtime, "return nil +", "usage", "test:1:");
    assert_fails(runtime, "error('plain', 0)", "usage", "plain");
    assert_fails(
        runtime,
        "return nil, require('lunark.core.sys').error{kind = 'auth', message = 'wrong key'}",
        "auth", "wrong key");
    assert_fails(runtime, "require('lunark.core.sys').error(5)", "usage", "expected a table");
    assert_fails(runtime, "\033Lua", "usage", "binary chunk");
    lunark_free(runtime);
    lunark_free(NULL);
}

static void files(void **state)
{
    (void)state;
    char path[] = "/tmp/lunark-test-XXXXXX";
    struct lunark_error error;
    struct lunark *runtime = make(0);
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    static const char text[] = "#!/usr/bin/env -S lunark run\nreturn 'from a file'\n";
    assert_int_equal(write(fd, text, sizeof text - 1), sizeof text - 1);
    close(fd);
    assert_int_equal(lunark_run_file(runtime, path, NULL, &error), 0);
    assert_string_equal(lunark_result(runtime), "from a file");
    unlink(path);
    assert_int_equal(lunark_run_file(runtime, path, NULL, &error), -1);
    assert_string_equal(error.kind, "not_found");
    assert_non_null(strstr(error.message, path));
    lunark_free(runtime);
}

static void capabilities(void **state)
{
    (void)state;
    struct lunark_error error;
    struct lunark *runtime = make(0);
    static const char env[] = "return require('lunark.core.sys').env('PATH') ~= nil";
    assert_fails(runtime, env, "denied", "PATH");
    run(runtime, env, &error);
    assert_true(error.hint[0] != '\0');
    assert_int_equal(lunark_allow(runtime, "env", "PATH", &error), 0);
    assert_result(runtime, env, "true");
    assert_int_equal(lunark_allow(runtime, "fly", "x", &error), -1);
    assert_string_equal(error.kind, "usage");
    assert_fails(runtime, "return require 'posix.unistd'", "denied", "posix");
    /* Only the host grants: neither the call nor what the library would grant by itself does. */
    assert_fails(runtime, "require('lunark.core.sys').allow('env', '*')", "denied", "sealed");
    assert_fails(runtime, "require('lunark.policy').grant { env = { '*' } }", "denied", "sealed");
    assert_fails(runtime, "assert(require('lunark.store').open('/tmp/none'):check('read'))",
                 "denied", "/tmp/none");
    assert_fails(runtime, "require('argparse')():parse { '-h' }", "usage", "can't end the process");
    assert_result(runtime, "require('lunark.core.sys').seal()", NULL);
    assert_int_equal(lunark_allow(runtime, "env", "HOME", &error), -1);
    assert_string_equal(error.kind, "denied");
    lunark_free(runtime);
}

static void what_scripts_reach(void **state)
{
    (void)state;
    struct lunark *runtime = make(0);
    assert_result(runtime, "return tostring(io)", "nil");
    assert_result(runtime, "x = 1 return tostring(os.execute)", "nil");
    assert_result(runtime, "return tostring(x)", "nil");
    lunark_free(runtime);
    runtime = make(LUNARK_FULL_LUA);
    assert_result(runtime, "return type(io.open)", "function");
    lunark_free(runtime);
}

static void memory_limit(void **state)
{
    (void)state;
    struct lunark_options options = {.size = sizeof options, .lua_memory = (size_t)16 << 20};
    struct lunark_error error;
    struct lunark *runtime = lunark_new(&options, &error);
    assert_non_null(runtime);
    assert_fails(runtime, "local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(1000) .. i end",
                 "memory", "memory");
    assert_result(runtime, "return 'works on'", "works on");
    lunark_free(runtime);
    options.lua_memory = 1000;
    assert_null(lunark_new(&options, &error));
    assert_string_equal(error.kind, "memory");
    options.size = 3;
    assert_null(lunark_new(&options, &error));
    assert_string_equal(error.kind, "usage");
}

static void own_loop(void **state)
{
    (void)state;
    struct lunark_error error;
    struct lunark *runtime = make(0);
    int running, polls = 0;
    assert_int_equal(lunark_step(runtime, -1, &error), 0);
    assert_int_equal(lunark_finish(runtime, &error), -1);
    assert_int_equal(lunark_start_string(runtime, "own",
                                         "local task = require 'lunark.core.task'\n"
                                         "for i = 1, 5 do task.sleep(0.01) end return 'slept'",
                                         NULL, &error),
                     0);
    assert_int_equal(lunark_start_string(runtime, "second", "", NULL, &error), -1);
    assert_non_null(strstr(error.message, "running already"));
    while ((running = lunark_step(runtime, 0, &error)) > 0) {
        struct pollfd pfd = {.fd = lunark_fd(runtime), .events = POLLIN};
        assert_int_equal(poll(&pfd, 1, 5000), 1);
        polls++;
    }
    assert_int_equal(running, 0);
    assert_true(polls >= 5);
    assert_int_equal(lunark_finish(runtime, &error), 0);
    assert_string_equal(lunark_result(runtime), "slept");
    lunark_free(runtime);
}

struct canceller {
    struct lunark *runtime;
    int times;
};

static void *cancel(void *arg)
{
    struct canceller *canceller = arg;
    for (int i = 0; i < canceller->times; i++) {
        usleep(50 * 1000);
        lunark_cancel(canceller->runtime);
    }
    return NULL;
}

static void assert_cancelled(const char *source, int times)
{
    struct canceller canceller = {make(0), times};
    pthread_t thread;
    pthread_create(&thread, NULL, cancel, &canceller);
    assert_fails(canceller.runtime, source, "cancelled", "cancelled");
    pthread_join(thread, NULL);
    lunark_free(canceller.runtime);
}

static void cancelling(void **state)
{
    (void)state;
    assert_cancelled("require('lunark.core.task').sleep(3600)", 1);
    assert_cancelled("while true do end", 1);
    assert_cancelled("pcall(require('lunark.core.task').sleep, 3600) while true do end", 1);
    assert_cancelled(
        "local t = require 'lunark.core.task' t.shield(function() t.sleep(3600) end, 3600)", 2);
    assert_cancelled("local t = require 'lunark.core.task' while true do pcall(t.sleep, 3600) end",
                     2);
    assert_cancelled("while true do pcall(function() while true do end end) end", 2);
    assert_cancelled("local function on() while true do pcall(function() while true do end end) "
                     "end end\n"
                     "while true do pcall(coroutine.wrap(on)) end",
                     2);
    assert_cancelled("while true do pcall(table.sort, {1, 2}, function()\n"
                     "  while true do pcall(function() while true do end end) end end) end",
                     2);
    /* before the script begins */
    struct lunark *runtime = make(0);
    lunark_cancel(runtime);
    assert_fails(runtime, "return 1", "cancelled", "cancelled");
    assert_result(runtime, "return 1", "1");
    lunark_free(runtime);
}

static void on_log(void *arg, enum lunark_level level, const char *message, const char *json)
{
    char *all = arg;
    (void)json;
    snprintf(all + strlen(all), 1000 - strlen(all), "%d:%s;", (int)level, message);
}

static void tasks_that_are_left(void **state)
{
    (void)state;
    char all[1000] = "";
    struct lunark *runtime = make(0);
    lunark_on_log(runtime, on_log, all);
    assert_result(
        runtime,
        "local task = require 'lunark.core.task'\n"
        "task.spawn(function()\n"
        "  local _ <close> = setmetatable({}, {__close = function() print 'closed' end})\n"
        "  task.sleep(3600)\n"
        "end)\n"
        "task.spawn(error, 'alone')\n"
        "task.sleep(0.01) return 'main'",
        "main");
    assert_non_null(strstr(all, "1:closed;"));
    assert_non_null(strstr(all, "3:a task failed: alone;"));
    lunark_free(runtime);
}

static void freed_while_it_runs(void **state)
{
    (void)state;
    char all[1000] = "";
    struct lunark_error error;
    int before = count_descriptors();
    struct lunark *runtime = make(0);
    lunark_on_log(runtime, on_log, all);
    assert_int_equal(
        lunark_start_string(runtime, "endless",
                            "local task = require 'lunark.core.task'\n"
                            "local _ <close> = setmetatable({}, {__close = function()\n"
                            "  task.shield(function() task.sleep(0.02) print 'closed' end) end})\n"
                            "task.sleep(3600)",
                            NULL, &error),
        0);
    assert_int_equal(lunark_step(runtime, 10, &error), 1);
    lunark_free(runtime);
    assert_string_equal(all, "1:closed;");
    assert_int_equal(count_descriptors(), before);
}

static void finished_too_early(void **state)
{
    (void)state;
    struct lunark_error error;
    struct lunark *runtime = make(0);
    assert_int_equal(lunark_start_string(runtime, "left",
                                         "local task = require 'lunark.core.task'\n"
                                         "task.spawn(task.shield, function() task.sleep(0.05) end)"
                                         " task.sleep(0)",
                                         NULL, &error),
                     0);
    int early = 0;
    while (lunark_step(runtime, -1, &error) > 0)
        early += lunark_finish(runtime, &error) == 0;
    assert_int_equal(early, 0);
    assert_int_equal(lunark_finish(runtime, &error), 0);
    lunark_free(runtime);
}

static void odd_values(void **state)
{
    (void)state;
    struct lunark *runtime = make(0);
    /* what __index makes up, nothing would keep alive */
    assert_fails(runtime,
                 "require('lunark.core.stream').of('x'):parts(setmetatable({}, {__index = "
                 "function(_, key) if key == 'spill_dir' then return ('x'):rep(100) .. key end "
                 "end}))",
                 "usage", "metatable");
    assert_result(runtime,
                  "local task = require 'lunark.core.task'\n"
                  "local co\n"
                  "local t = task.spawn(function() co = coroutine.running() return print, 2 end)\n"
                  "t:join()\n"
                  "local ok, err = coroutine.resume(co)\n"
                  "return tostring(ok) .. err .. select('#', t:join())",
                  "falsecannot resume dead coroutine3");
    assert_result(runtime,
                  "local task, many = require 'lunark.core.task', {}\n"
                  "for i = 1, 250000 do many[i] = i end\n"
                  "local ok, t = pcall(task.spawn, select, '#', table.unpack(many))\n"
                  "if ok then t:join() end\n"
                  "return task.live()",
                  "1");
    lunark_free(runtime);
}

static int open_module(lua_State *L)
{
    lua_newtable(L);
    lua_pushliteral(L, "of the host");
    lua_setfield(L, -2, "name");
    return 1;
}

static int open_broken(lua_State *L)
{
    return luaL_error(L, "cannot open this");
}

static void modules(void **state)
{
    (void)state;
    struct lunark_error error;
    struct lunark *runtime = make(0);
    assert_int_equal(lunark_add_module(runtime, "host", open_module, &error), 0);
    assert_result(runtime, "return require('host').name", "of the host");
    assert_int_equal(lunark_add_module(runtime, "lunark.exec", open_module, &error), -1);
    assert_string_equal(error.kind, "usage");
    assert_int_equal(lunark_add_module(runtime, "broken", open_broken, &error), -1);
    assert_non_null(strstr(error.message, "cannot open this"));
    lunark_free(runtime);
}

static void *many_scripts(void *arg)
{
    struct lunark *runtime = make(0);
    struct lunark_error error;
    for (int i = 0; i < 5; i++) {
        if (run(runtime,
                "local task = require 'lunark.task'\n"
                "local sum = 0\n"
                "for _, v in ipairs(task.map({1, 2, 3, 4}, 2, function(x) task.sleep(0.001) return "
                "x end))\n"
                "do sum = sum + v end return sum",
                &error) < 0 ||
            strcmp(lunark_result(runtime), "10") != 0)
            *(int *)arg = 1;
    }
    lunark_free(runtime);
    return NULL;
}

static void several_threads(void **state)
{
    (void)state;
    pthread_t threads[6];
    int failed[6] = {0};
    for (size_t i = 0; i < 6; i++)
        pthread_create(&threads[i], NULL, many_scripts, &failed[i]);
    for (size_t i = 0; i < 6; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(failed[i], 0);
    }
}

/* Half of what a run may wait for when the cancellation comes. */
static const char busy[] =
    "local task, stream = require 'lunark.core.task', require 'lunark.core.stream'\n"
    "local exec = require 'lunark.core.exec'\n"
    "local text = ('text '):rep(50000)\n"
    "local function every(list) for _, f in ipairs(list) do task.spawn(function()\n"
    "  local _ <close> = setmetatable({}, {__close = function()\n"
    "    task.shield(function() task.sleep(0.001) end, 1) end})\n"
    "  f() end) end end\n"
    "every{function() task.timeout(0.002, task.sleep, 60) end,\n"
    "  function() stream.of(text):gzip{level = 'fast'}:gunzip():hash{'sha256'} end,\n"
    "  function() stream.of(text):limit(1e6):discard() end,\n"
    "  function() local p = stream.of(text):gzip{}:parts{size = 1000, hash = {'md5'}}\n"
    "    while p:next() do end end,\n"
    "  function() local p = assert(exec.start{'cat', stdin = stream.of(text), stdout = "
    "'stream'})\n"
    "    p.stdout:read_all() p:wait() end}\n"
    "task.sleep(0.01)";

struct cancelled_runs {
    unsigned seed;
    int failed;
};

static void *cancel_at_random(void *arg)
{
    struct canceller *canceller = arg;
    unsigned seed = (unsigned)canceller->times;
    for (int i = (int)(seed % 3); i > 0; i--) {
        usleep((useconds_t)(rand_r(&seed) % 8000));
        lunark_cancel(canceller->runtime);
    }
    return NULL;
}

static void *run_and_cancel(void *arg)
{
    struct cancelled_runs *runs = arg;
    struct lunark_error error;
    for (int i = 0; i < 50; i++) {
        struct canceller canceller = {make(0), rand_r(&runs->seed)};
        pthread_t thread;
        if (lunark_allow(canceller.runtime, "exec", "cat", &error) < 0 ||
            pthread_create(&thread, NULL, cancel_at_random, &canceller) != 0) {
            runs->failed++;
            continue;
        }
        if (run(canceller.runtime, busy, &error) < 0 && strcmp(error.kind, "cancelled") != 0) {
            fprintf(stderr, "%s: %s\n", error.kind, error.message);
            runs->failed++;
        }
        if (i % 2 == 0) /* freed while it runs */
            lunark_start_string(canceller.runtime, "again", busy, NULL, &error);
        lunark_step(canceller.runtime, 1, &error);
        pthread_join(thread, NULL);
        lunark_free(canceller.runtime);
    }
    return NULL;
}

static void cancelled_from_other_threads(void **state)
{
    (void)state;
    pthread_t threads[4];
    struct cancelled_runs runs[4];
    int before = count_descriptors();
    for (size_t i = 0; i < 4; i++) {
        runs[i] = (struct cancelled_runs){.seed = (unsigned)i + 1};
        assert_int_equal(pthread_create(&threads[i], NULL, run_and_cancel, &runs[i]), 0);
    }
    for (size_t i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(runs[i].failed, 0);
    }
    assert_int_equal(count_descriptors(), before);
}

LUNARK_API int luaopen_lunark(lua_State *L);

/* As a module of a plain Lua, whose program ends in the middle of everything. */
static void plain_lua_that_ends(void **state)
{
    (void)state;
    static const char *const waits[] = {"zeros():hash{'sha256'}",
                                        "zeros():discard()",
                                        "zeros():gzip{}:parts{size = 100}:next()",
                                        "local s = zeros() while s:read() do end",
                                        "require('lunark.core.task').sleep(60)",
                                        "require('lunark.core.file').sync_dir('/tmp')"};
    int before = count_descriptors();
    for (size_t i = 0; i < sizeof waits / sizeof waits[0]; i++) {
        lua_State *L = luaL_newstate();
        assert_non_null(L);
        luaL_openlibs(L);
        luaL_requiref(L, "lunark", luaopen_lunark, 0);
        lua_settop(L, 0);
        lua_pushfstring(L,
                        "local task = require 'lunark.core.task'\n"
                        "local function zeros() return require('lunark.core.exec')"
                        ".start{'cat', '/dev/zero', stdout = 'stream'}.stdout end\n"
                        "task.spawn(function() %s end) task.sleep(0.02)",
                        waits[i]);
        if (luaL_dostring(L, lua_tostring(L, 1)) != LUA_OK)
            fail_msg("%s: %s", waits[i], luaL_tolstring(L, -1, NULL));
        lua_close(L);
    }
    assert_int_equal(count_descriptors(), before);
}

static void read_mask(char mask[64])
{
    char line[256];
    FILE *file = fopen("/proc/self/status", "r");
    mask[0] = '\0';
    while (fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, "Umask:", 6) == 0)
            snprintf(mask, 64, "%.60s", line);
    fclose(file);
    assert_true(mask[0] != '\0');
}

static void leaves_the_process_alone(void **state)
{
    (void)state;
    struct sigaction before[32], after;
    char directory[4096], now[4096], mask[64], same[64];
    extern char **environ;
    char **environment = environ;
    for (int i = 1; i < 32; i++)
        sigaction(i, NULL, &before[i]);
    assert_non_null(getcwd(directory, sizeof directory));
    read_mask(mask);
    int descriptors = count_descriptors();
    struct lunark *runtime = make(0);
    assert_result(runtime, "require('lunark.core.task').sleep(0.01) return 'x'", "x");
    for (int i = 1; i < 32; i++) {
        sigaction(i, NULL, &after);
        assert_ptr_equal(after.sa_handler, before[i].sa_handler);
    }
    assert_non_null(getcwd(now, sizeof now));
    assert_string_equal(now, directory);
    read_mask(same);
    assert_string_equal(same, mask);
    assert_ptr_equal(environ, environment);
    lunark_free(runtime);
    assert_int_equal(count_descriptors(), descriptors);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(results_and_errors),  cmocka_unit_test(files),
        cmocka_unit_test(capabilities),        cmocka_unit_test(what_scripts_reach),
        cmocka_unit_test(memory_limit),        cmocka_unit_test(own_loop),
        cmocka_unit_test(cancelling),          cmocka_unit_test(tasks_that_are_left),
        cmocka_unit_test(freed_while_it_runs), cmocka_unit_test(modules),
        cmocka_unit_test(several_threads),     cmocka_unit_test(leaves_the_process_alone),
        cmocka_unit_test(finished_too_early),  cmocka_unit_test(odd_values),
        cmocka_unit_test(plain_lua_that_ends), cmocka_unit_test(cancelled_from_other_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
