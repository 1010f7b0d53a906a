/* SPDX-License-Identifier: MIT
 * http_server.h - for test_http*.c: a scripted server as a child, a loop with an lk_http on it, and
 * requests that are waited for. Everything is ended by pid and taken away in the teardown. */
#ifndef HTTP_SERVER_H
#define HTTP_SERVER_H

#include "http.h"
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

struct server {
    pid_t pid;
    int port, in; /* in: its standard input; it ends when that is closed */
    char dir[64], log[80];
    char url[64]; /* http://127.0.0.1:PORT */
};

struct fixture {
    struct lk_loop *loop;
    struct lk_caps *caps;
    struct lk_pool *pool;
    struct lk_http *http;
    struct server server, other; /* started by the test, ended by the teardown */
};

struct call {
    struct lk_http_request *request;
    bool done;
    const struct lk_http_response *response;
    struct lk_error err;
};

static inline void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

/* argv[0] with its standard input and output as pipes; the ends are ours. */
static inline pid_t spawn_piped(const char *const argv[], int *in, int *out)
{
    int to[2], from[2];
    assert_int_equal(pipe2(to, O_CLOEXEC), 0);
    assert_int_equal(pipe2(from, O_CLOEXEC), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (dup2(to[0], 0) == 0 && dup2(from[1], 1) == 1)
            execvp(argv[0], (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    close(to[0]);
    close(from[1]);
    *in = to[1];
    *out = from[0];
    return pid;
}

static inline void start_server(struct server *server, const char *script, const char *cert,
                                const char *key)
{
    char program[512], path[80], line[64] = "";
    const char *root = getenv("LUNARK_ROOT");
    snprintf(program, sizeof(program), "%s/tests/support/faulty.py", root != NULL ? root : ".");
    snprintf(server->dir, sizeof(server->dir), "/tmp/lunark-http.XXXXXX");
    assert_non_null(mkdtemp(server->dir));
    snprintf(server->log, sizeof(server->log), "%s/log", server->dir);
    snprintf(path, sizeof(path), "%s/script", server->dir);
    write_file(path, script);
    const char *argv[] = {"python3", program, "--script", path, "--log", server->log,
                          "--cert",  cert,    "--key",    key,  NULL};
    if (cert == NULL)
        argv[6] = NULL;
    int out;
    server->pid = spawn_piped(argv, &server->in, &out);
    FILE *text = fdopen(out, "re");
    assert_non_null(text);
    if (fgets(line, sizeof(line), text) == NULL || sscanf(line, "port %d", &server->port) != 1)
        fail_msg("the test server did not start: %s", program);
    fclose(text);
    snprintf(server->url, sizeof(server->url), "%s://127.0.0.1:%d", cert != NULL ? "https" : "http",
             server->port);
}

static inline void stop_server(struct server *server)
{
    char path[80];
    if (server->pid <= 0)
        return;
    close(server->in);
    assert_int_equal(waitpid(server->pid, NULL, 0), server->pid);
    static const char *const names[] = {"log", "script"};
    for (size_t i = 0; i < 2; i++) {
        snprintf(path, sizeof(path), "%s/%s", server->dir, names[i]);
        unlink(path);
    }
    assert_int_equal(rmdir(server->dir), 0);
    server->pid = 0;
}

/* The requests that the server has logged, a JSON object a line; free it. */
static inline char *server_log(const struct server *server)
{
    char *text = calloc(1, 1 << 20);
    FILE *file = fopen(server->log, "re");
    assert_non_null(text);
    if (file != NULL) {
        assert_true(fread(text, 1, (1 << 20) - 1, file) < (1 << 20) - 1);
        fclose(file);
    }
    return text;
}

static inline int count_in(const char *text, const char *what)
{
    int count = 0;
    for (const char *at = text; (at = strstr(at, what)) != NULL; at += strlen(what))
        count++;
    return count;
}

static inline int count_in_log(const struct server *server, const char *what)
{
    char *text = server_log(server);
    int count = count_in(text, what);
    free(text);
    return count;
}

static inline int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    if (f == NULL)
        return -1;
    unsetenv("http_proxy");
    unsetenv("https_proxy");
    unsetenv("all_proxy");
    unsetenv("no_proxy");
    f->loop = lk_loop_new(NULL);
    f->caps = lk_caps_new(NULL);
    f->pool = lk_pool_new(2, NULL);
    f->http = lk_http_new(f->loop, f->caps, NULL);
    if (f->http == NULL || lk_caps_allow(f->caps, LK_CAP_NET, "127.0.0.1", NULL) < 0)
        return -1;
    *state = f;
    return 0;
}

static inline int tear_down(void **state)
{
    struct fixture *f = *state;
    lk_http_stop(f->http);
    lk_pool_free(f->pool);
    int left = lk_http_active(f->http);
    lk_http_free(f->http);
    while (lk_loop_step(f->loop, 0, NULL) > 0)
        ;
    lk_loop_free(f->loop);
    lk_caps_free(f->caps);
    stop_server(&f->server);
    stop_server(&f->other);
    free(f);
    return left;
}

static inline void call_is_done(void *arg)
{
    struct call *call = arg;
    assert_false(call->done);
    call->done = true;
    call->response = lk_http_result(call->request, &call->err);
}

/* Steps the loop until *flag; fails the test after `seconds`. */
static inline void run_until(struct fixture *f, const bool *flag, double seconds)
{
    uint64_t end = lk_now_ns() + (uint64_t)(seconds * 1e9);
    while (!*flag) {
        if (lk_now_ns() > end)
            fail_msg("not done after %g s", seconds);
        assert_true(lk_loop_step(f->loop, 100, NULL) >= 0);
    }
}

static inline void run_for(struct fixture *f, double seconds)
{
    uint64_t end = lk_now_ns() + (uint64_t)(seconds * 1e9);
    while (lk_now_ns() < end)
        assert_true(lk_loop_step(f->loop, 10, NULL) >= 0);
}

static inline void begin_call(struct fixture *f, struct call *call, struct lk_http_options *options)
{
    memset(call, 0, sizeof(*call));
    options->done = call_is_done;
    options->arg = call;
    if (options->http2 == 0)
        options->http2 = -1;
    call->request = lk_http_start(f->http, options, &call->err);
    if (call->request == NULL)
        fail_msg("could not start: %s", call->err.message);
    assert_false(call->done);
}

static inline void do_call(struct fixture *f, struct call *call, struct lk_http_options *options)
{
    begin_call(f, call, options);
    run_until(f, &call->done, 60);
}

/* server->url + path, in a buffer of the caller. */
static inline const char *at(const struct server *server, const char *path, char buffer[256])
{
    snprintf(buffer, 256, "%s%s", server->url, path);
    return buffer;
}

/* The call failed in this way, retryable or not, with this text in its message. */
static inline void assert_failed(const struct call *call, enum lk_kind kind, bool retryable,
                                 const char *text)
{
    assert_null(call->response);
    if (call->err.kind != kind || call->err.retryable != retryable ||
        strstr(call->err.message, text) == NULL)
        fail_msg("%s, retryable %d: %s", lk_kind_name(call->err.kind), call->err.retryable,
                 call->err.message);
}

/* Options of a request; HTTP/2 as it comes. */
#define OPTIONS(...)                                                                               \
    &(struct lk_http_options)                                                                      \
    {                                                                                              \
        __VA_ARGS__, .http2 = -1                                                                   \
    }

#endif
