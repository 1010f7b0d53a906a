/* SPDX-License-Identifier: MIT
 * test_lua_memory.c - every allocation that a script makes Lua do fails once: no crash, no leak
 * (the sanitizers say), and the runtime goes on working. */
#include "lua_run.h"
#include "lunark.h"
#include <dirent.h>
#include <lauxlib.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

/* Lua's allocator with a fault: the request number `at` that asks for more is refused, and so are
 * the `span` - 1 after it. Lua collects and asks again, which counts. */
struct fault {
    lua_Alloc allocate;
    void *arg;
    uint64_t count, at, span;
};

static void *faulty(void *arg, void *block, size_t old_size, size_t new_size)
{
    struct fault *fault = arg;
    if (new_size > (block != NULL ? old_size : 0)) {
        uint64_t number = ++fault->count;
        if (fault->at != 0 && number >= fault->at && number - fault->at < fault->span)
            return NULL;
    }
    return fault->allocate(fault->arg, block, old_size, new_size);
}

struct fixture {
    struct lk_runtime runtime;
    struct lk_run script;
    struct fault fault;
    char dir[64];
};

static void open_runtime(struct fixture *f)
{
    struct lk_error err;
    memset(&f->runtime, 0, sizeof f->runtime);
    memset(&f->script, 0, sizeof f->script);
    memset(&f->fault, 0, sizeof f->fault);
    assert_int_equal(lk_runtime_init(&f->runtime, 0, 1, &err), 0);
    assert_int_equal(lk_run_open(&f->runtime, 0, &err), 0);
    for (int cap = 0; cap < LK_CAP_COUNT; cap++)
        assert_int_equal(lk_caps_allow(f->runtime.caps, (enum lk_cap)cap, "*", &err), 0);
    f->fault.allocate = lua_getallocf(f->runtime.lua, &f->fault.arg);
    lua_setallocf(f->runtime.lua, faulty, &f->fault);
}

static void close_runtime(struct fixture *f)
{
    f->fault.at = 0;
    lua_setallocf(f->runtime.lua, f->fault.allocate, f->fault.arg);
    lk_run_close(&f->runtime, 5);
    free(f->script.result);
    lk_runtime_free(&f->runtime);
}

static int run(struct fixture *f, const char *source, struct lk_error *err)
{
    const char *args[] = {f->dir, NULL};
    int state;
    memset(err, 0, sizeof *err);
    if (lk_run_start(&f->runtime, &f->script, "test", source, strlen(source), args, err) < 0)
        return -1;
    while ((state = lk_run_step(&f->runtime, &f->script, -1, err)) > 0)
        ;
    return state < 0 ? -1 : lk_run_finish(&f->runtime, &f->script, err);
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

/* Fails request after request until the script gets through; `span` as above. */
static void fail_each(struct fixture *f, const char *source, uint64_t span)
{
    struct lk_error err;
    uint64_t at = 0, failed = 0, total;
    open_runtime(f);
    for (int i = 0; i < 2; i++) /* modules are loaded, classes made */
        if (run(f, source, &err) < 0)
            fail_msg("%s", err.message);
    uint64_t before = f->fault.count;
    assert_int_equal(run(f, source, &err), 0);
    total = f->fault.count - before;
    int descriptors = count_descriptors();
    while (at < total + 20) {
        at++;
        f->fault.count = 0;
        f->fault.at = at;
        f->fault.span = span;
        if (run(f, source, &err) < 0) {
            failed++;
            if (err.kind == LK_OK || err.message[0] == '\0')
                fail_msg("request %llu: an error without words", (unsigned long long)at);
        }
        f->fault.at = 0;
        if (run(f, source, &err) < 0)
            fail_msg("after request %llu: %s", (unsigned long long)at, err.message);
    }
    for (int i = 0; i < 200 && count_descriptors() > descriptors; i++)
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL); /* a stage may still be ending */
    assert_true(count_descriptors() <= descriptors); /* one may have been ending before, too */
    assert_true(failed > 0);
    close_runtime(f);
}

static void fail_each_way(void **state, const char *source)
{
    struct fixture *f = *state;
    fail_each(f, source, 2); /* the collection does not help, what follows works */
    fail_each(f, source, UINT64_MAX);
}

static void tasks(void **state)
{
    fail_each_way(
        state,
        "local task = require 'lunark.core.task'\n"
        "local event = task.event()\n"
        "local a = task.spawn(function(x) event:wait() return x, x end, 1)\n"
        "local b = task.spawn(function() task.shield(function() task.sleep(0.001) end, 1) end)\n"
        "local c = task.spawn(function() task.timeout(0.001, task.sleep, 60) end)\n"
        "local d = task.spawn(task.sleep, 60)\n"
        "local e = task.spawn(error, 'x') task.silence(e)\n"
        "event:wake() task.watch(d, event)\n"
        "d:cancel('no longer ' .. 'needed')\n"
        "a:join() b:join() c:join() d:join() e:join()\n"
        "for v in coroutine.wrap(function() for i = 1, 2 do task.sleep(0) coroutine.yield(i) end "
        "end) do _ = v end\n"
        "pcall(table.sort, {2, 1}, function() task.sleep(0) end)");
}

static void streams(void **state)
{
    fail_each_way(
        state,
        "local stream = require 'lunark.core.stream'\n"
        "local text = ('some text '):rep(1000)\n"
        "local s = stream.of(text):gzip{level = 'fast'}:gunzip()\n"
        "s:read() s:read_all() s:close()\n"
        "stream.of(text):limit(1e9):hash{'sha256', 'md5'}\n"
        "stream.of(text):verify{size = #text, name = 'text'}:discard()\n"
        "stream.of(text):verify{size = 3, name = 'text'}:discard()\n"
        "local parts = stream.of(text):parts{size = 6000, hash = {'crc32'}, total = {'sha256'}}\n"
        "for part in function() return parts:next() end do part:string() part:ref():close() "
        "_ = part.hash part:close() end\n"
        "parts:total() parts:close()\n"
        "stream.of(text):parts{size = 100}");
}

static void files(void **state)
{
    fail_each_way(state,
                  "local file, stream = require 'lunark.core.file', require 'lunark.core.stream'\n"
                  "local path = ... .. '/file'\n"
                  "local f = assert(file.open(path, 'w'))\n"
                  "f:pwrite('text', 10) stream.of('more'):to_file(f) f:sync() f:size() f:close()\n"
                  "file.open(path, 'x') file.open(path .. '/no', 'r')\n"
                  "f = assert(file.open(path)) f:stream(1, 2):read_all() f:close()\n"
                  "stream.file(path):read_all() file.sync_dir(...) file.free_bytes(...)");
}

static void programs(void **state)
{
    fail_each_way(
        state, "local exec, stream = require 'lunark.core.exec', require 'lunark.core.stream'\n"
               "local p = assert(exec.start{'cat', stdin = stream.of('text'), stdout = 'stream', "
               "env = {A = 'b', C = 1}, ok = {0, 1}})\n"
               "p.stdout:read_all() p:wait() p:status() p:close()\n"
               "p = assert(exec.start{'echo', 1, 2}) p:wait() p:wait()\n"
               "exec.start{'/no/such/program'} exec.which('true')\n"
               "assert(exec.start{'sleep', 60}):close()");
}

static void archives(void **state)
{
    fail_each_way(
        state,
        "local archive, file = require 'lunark.core.archive', require 'lunark.core.file'\n"
        "local dir = ...\n"
        "local f = file.open(dir .. '/member', 'w') if f then f:pwrite('text') f:close() end\n"
        "local options = {roots = {{path = dir .. '/member', name = 'm'}}, exclude = {'*.o'}}\n"
        "archive.estimate(options) archive.engines()\n"
        "local a = assert(archive.create(options))\n"
        "a:result()\n"
        "local x = assert(archive.extract(assert(a:stream()), {into = dir .. '/out', "
        "overwrite = true, owner = 'none'}))\n"
        "x:progress() x:wait() x:wait() a:progress() a:result() a:close() x:close()\n"
        "assert(archive.create(options)):stream()");
}

static void indexes(void **state)
{
    fail_each_way(
        state,
        "local index, stream = require 'lunark.core.index', require 'lunark.core.stream'\n"
        "local bytes = assert(assert(assert(stream.of(('x'):rep(3000))):gzip{}):read_all())\n"
        "local footer = assert(index.footer(bytes, #bytes))\n"
        "local refs = assert(index.list(bytes, footer.list_at))\n"
        "local block = assert(index.block(bytes, refs[1].at))\n"
        "block:count() block:member(1) block:member_at(0) block:member_of(7) block:next(1, 'a')\n"
        "block:close()\n"
        "local data, writer = assert(stream.pipe())\n"
        "local cut = assert(index.cut(assert(data:gunzip()), assert(stream.of(''))))\n"
        "assert(writer:write(bytes)) writer:finish()\n"
        "assert(cut:read_all())\n"
        "assert(index.contents(assert(stream.of(('\\0'):rep(1024))))):read_all()");
}

static void the_rest(void **state)
{
    fail_each_way(
        state,
        "local crypto, sys = require 'lunark.core.crypto', require 'lunark.core.sys'\n"
        "local log, http = require 'lunark.core.log', require 'lunark.core.http'\n"
        "crypto.digest('sha256', 'a') crypto.hmac('sha1', 'key', 'a') crypto.random(100)\n"
        "crypto.unhex(crypto.hex('abc')) crypto.unbase64(crypto.base64('abc')) crypto.unhex('x')\n"
        "crypto.hasher('md5'):update('a'):final() crypto.rs256('no key', 'a')\n"
        "tostring(sys.secret('a secret text')) sys.env('PATH') sys.find('no/such.lua')\n"
        "tostring(sys.error{kind = 'io', message = 'm', hint = 'h'}) sys.script_dirs()\n"
        "pcall(sys.error, 1) pcall(sys.write, 5) sys.embedded_names() sys.budget()\n"
        "log.write('info', 'text', {a = 1, b = 'c'}) log.progress{a = {1, 'x'}}\n"
        "pcall(require, 'no_such_module') load('return 1')()\n"
        "http.parse_url('http://127.0.0.1:1/a?b=c') http.parse_url(':')\n"
        "http.request{method = 'PUT', url = 'http://127.0.0.1:1/', body = 'text', "
        "headers = {a = 'b'}, resolve = {'x:1:127.0.0.1'}}");
}

static void new_runtimes(void **state)
{
    struct fixture *f = *state;
    struct lunark_options options = {.size = sizeof options, .jobs = 1};
    struct lunark_error error;
    size_t limit;
    (void)f;
    for (limit = 1000; limit < (size_t)8 << 20; limit += 997) {
        options.lua_memory = limit;
        struct lunark *runtime = lunark_new(&options, &error);
        if (runtime != NULL) {
            lunark_free(runtime);
            return;
        }
        assert_string_equal(error.kind, "memory");
    }
    fail();
}

static int open_module(lua_State *L)
{
    lua_newtable(L);
    return 1;
}

static void host_calls(void **state)
{
    struct fixture *f = *state;
    struct lk_error err;
    open_runtime(f);
    for (uint64_t at = 1; at < 40; at++) {
        char name[16];
        snprintf(name, sizeof name, "m%llu", (unsigned long long)at);
        f->fault.count = 0;
        f->fault.at = at;
        f->fault.span = UINT64_MAX;
        if (lk_run_add_module(&f->runtime, name, open_module, &err) < 0)
            assert_int_equal(err.kind, LK_MEMORY);
        f->fault.at = 0;
        assert_int_equal(lk_run_start(&f->runtime, &f->script, "test",
                                      "require 'lunark.core.task'.sleep(60)", 36, NULL, &err),
                         0);
        assert_int_equal(lk_run_step(&f->runtime, &f->script, 0, &err), 1);
        f->fault.count = 0;
        f->fault.at = at;
        atomic_fetch_add(&f->runtime.cancels, 1);
        while (lk_run_step(&f->runtime, &f->script, -1, &err) > 0)
            ;
        assert_int_equal(lk_run_finish(&f->runtime, &f->script, &err), -1);
        assert_true(err.kind == LK_MEMORY || err.kind == LK_CANCELLED);
        f->fault.at = 0;
    }
    close_runtime(f);
}

static int set_up(void **state)
{
    static struct fixture fixture;
    snprintf(fixture.dir, sizeof fixture.dir, "/tmp/lunark-test-XXXXXX");
    *state = &fixture;
    return mkdtemp(fixture.dir) != NULL ? 0 : -1;
}

static int tear_down(void **state)
{
    static const char *const names[] = {"file", "member", "out/m", NULL};
    struct fixture *f = *state;
    char path[128];
    for (const char *const *name = names; *name != NULL; name++) {
        snprintf(path, sizeof path, "%s/%s", f->dir, *name);
        unlink(path);
    }
    snprintf(path, sizeof path, "%s/out", f->dir);
    rmdir(path);
    return rmdir(f->dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(tasks, set_up, tear_down),
        cmocka_unit_test_setup_teardown(streams, set_up, tear_down),
        cmocka_unit_test_setup_teardown(files, set_up, tear_down),
        cmocka_unit_test_setup_teardown(programs, set_up, tear_down),
        cmocka_unit_test_setup_teardown(archives, set_up, tear_down),
        cmocka_unit_test_setup_teardown(indexes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_rest, set_up, tear_down),
        cmocka_unit_test_setup_teardown(new_runtimes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(host_calls, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
