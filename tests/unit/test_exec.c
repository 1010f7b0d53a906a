/* SPDX-License-Identifier: MIT
 * test_exec.c - programs on the loop: output modes, input, how they end and are ended, what they
 * inherit, and that nothing is left behind: every test ends with no child, no descriptor and no
 * process more than before. */
#include "exec.h"
#include "launch.h"
#include "lines.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define ARGV(...) ((const char *const[]){__VA_ARGS__, NULL})
#define SHELL(script) ARGV("sh", "-c", script)
#define SLOW (under_valgrind() ? 10 : 1)

struct fixture {
    struct lk_loop *loop;
    struct lk_pool *pool;
    struct lk_log *log;
    struct lk_exec *exec;
    int descriptors;
    pthread_mutex_t mutex;
    char lines[8192]; /* what was logged */
};

/* valgrind can't go on when exec fails, which only makes these cases untestable there. */
static bool under_valgrind(void)
{
    const char *preload = getenv("LD_PRELOAD");
    return preload != NULL && strstr(preload, "vgpreload") != NULL;
}

static int count_descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int count = 0;
    assert_non_null(dir);
    while (readdir(dir) != NULL)
        count++;
    closedir(dir);
    return count;
}

static void logged(void *arg, enum lk_level level, const char *message, const char *json)
{
    struct fixture *f = arg;
    (void)level;
    (void)json;
    size_t len = strlen(f->lines);
    snprintf(f->lines + len, sizeof f->lines - len, "%s\n", message);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    f->descriptors = count_descriptors();
    f->loop = lk_loop_new(NULL);
    f->pool = lk_pool_new(2, NULL);
    f->log = lk_log_new(NULL);
    lk_log_set_fd(f->log, -1);
    lk_log_set_function(f->log, logged, f);
    f->exec = lk_exec_new(f->loop, f->pool, f->log, NULL);
    *state = f;
    return f->loop != NULL && f->pool != NULL && f->log != NULL && f->exec != NULL ? 0 : -1;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    lk_exec_free(f->exec);
    lk_pool_free(f->pool);
    lk_loop_free(f->loop);
    lk_log_free(f->log);
    int left = count_descriptors() - f->descriptors;
    int child = waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD ? 0 : 1;
    free(f);
    if (left != 0 || child != 0)
        fprintf(stderr, "left behind: %d descriptors, %d child\n", left, child);
    return left != 0 || child != 0;
}

/* --- helpers --- */

static void set_flag(void *arg)
{
    *(bool *)arg = true;
}

static void step_until(struct fixture *f, const bool *flag, int seconds)
{
    uint64_t deadline = lk_now_ns() + (uint64_t)seconds * SLOW * 1000000000u;
    while (!*flag && lk_now_ns() < deadline)
        assert_true(lk_loop_step(f->loop, 100, NULL) >= 0);
    assert_true(*flag);
}

static void step_for(struct fixture *f, int ms)
{
    uint64_t deadline = lk_now_ns() + (uint64_t)ms * 1000000u;
    while (lk_now_ns() < deadline)
        assert_true(lk_loop_step(f->loop, 10, NULL) >= 0);
}

static void settle_all(struct fixture *f)
{
    uint64_t deadline = lk_now_ns() + (uint64_t)20 * SLOW * 1000000000u;
    while (lk_exec_live(f->exec) > 0 && lk_now_ns() < deadline)
        assert_true(lk_loop_step(f->loop, 100, NULL) >= 0);
    assert_int_equal(lk_exec_live(f->exec), 0);
}

static struct lk_process *start(struct fixture *f, const struct lk_exec_options *options)
{
    struct lk_error err;
    struct lk_process *process = lk_process_start(f->exec, NULL, options, &err);
    if (process == NULL)
        fail_msg("%s", err.message);
    return process;
}

static void await(struct fixture *f, struct lk_process *process)
{
    bool done = false;
    lk_process_on_done(process, set_flag, &done);
    step_until(f, &done, 20);
    assert_non_null(lk_process_result(process));
}

/* Runs it and gives the handle of the ended program back. */
static struct lk_process *run(struct fixture *f, const struct lk_exec_options *options)
{
    struct lk_process *process = start(f, options);
    await(f, process);
    return process;
}

static const char *output_of(struct lk_process *process)
{
    size_t len;
    bool truncated;
    return lk_process_captured(process, false, &len, &truncated);
}

/* Runs it with captured stdout, checks the text and that it ended well. */
static void expect_output(struct fixture *f, const struct lk_exec_options *options,
                          const char *expected)
{
    struct lk_exec_options captured = *options;
    struct lk_error err = {0};
    captured.output = LK_EXEC_CAPTURE;
    struct lk_process *process = run(f, &captured);
    if (lk_process_status(process, &err) != 0)
        fail_msg("%s", err.message);
    assert_string_equal(output_of(process), expected);
    lk_process_unref(process);
}

static void expect_refused(struct fixture *f, const struct lk_exec_options *options,
                           enum lk_kind kind, const char *message)
{
    struct lk_error err = {0};
    assert_null(lk_process_start(f->exec, NULL, options, &err));
    if (strstr(err.message, message) == NULL)
        fail_msg("got '%s'", err.message);
    assert_int_equal(err.kind, kind);
    assert_int_equal(lk_exec_live(f->exec), 0);
}

static void expect_status(struct lk_process *process, enum lk_kind kind, const char *message)
{
    struct lk_error err = {0};
    assert_int_equal(lk_process_status(process, &err), -1);
    if (strstr(err.message, message) == NULL)
        fail_msg("got '%s'", err.message);
    assert_int_equal(err.kind, kind);
    lk_process_unref(process);
}

/* True while the group has a member that is no zombie: orphans wait for init to reap them. */
static bool group_lives(pid_t group)
{
    DIR *dir = opendir("/proc");
    struct dirent *entry;
    bool lives = false;
    assert_non_null(dir);
    while ((entry = readdir(dir)) != NULL) {
        char path[300], text[512] = "", state = 0;
        int pgrp = 0;
        snprintf(path, sizeof path, "/proc/%s/stat", entry->d_name);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            continue;
        if (read(fd, text, sizeof text - 1) > 0 && strrchr(text, ')') != NULL &&
            sscanf(strrchr(text, ')') + 1, " %c %*d %d", &state, &pgrp) == 2)
            lives = lives || (pgrp == group && state != 'Z' && state != 'X');
        close(fd);
    }
    closedir(dir);
    return lives;
}

static void assert_no_group(pid_t group)
{
    for (int i = 0; i < 100 && group_lives(group); i++)
        usleep(20000);
    assert_false(group_lives(group));
}

struct reader {
    struct lk_stream *stream;
    uint64_t bytes;
    int result; /* LK_STREAM_DONE or -1 */
    bool ended;
    struct lk_error err;
};

static void read_on(void *arg)
{
    struct reader *reader = arg;
    struct lk_chunk *chunk;
    int rc;
    while ((rc = lk_stream_try_read(reader->stream, &chunk, &reader->err)) == LK_STREAM_DATA) {
        reader->bytes += chunk->len;
        lk_chunk_unref(chunk);
    }
    if (rc == LK_STREAM_AGAIN)
        return;
    reader->result = rc;
    reader->ended = true;
}

static void read_stream(struct fixture *f, struct lk_stream *stream, struct reader *reader)
{
    memset(reader, 0, sizeof *reader);
    reader->stream = stream;
    assert_non_null(stream);
    lk_stream_on_ready(stream, f->loop, read_on, reader);
    read_on(reader);
    step_until(f, &reader->ended, 30);
    lk_stream_cancel(stream);
    lk_stream_unref(stream);
}

/* --- output --- */

static void output_and_errors_are_captured(void **state)
{
    struct fixture *f = *state;
    struct lk_process *process =
        run(f, &(struct lk_exec_options){.argv = SHELL("echo out; echo err >&2"),
                                         .output = LK_EXEC_CAPTURE,
                                         .errors = LK_EXEC_CAPTURE});
    size_t len;
    bool truncated;
    assert_string_equal(output_of(process), "out\n");
    assert_string_equal(lk_process_captured(process, true, &len, &truncated), "err\n");
    assert_int_equal(len, 4);
    assert_false(truncated);
    assert_int_equal(lk_process_result(process)->code, 0);
    assert_int_equal(lk_process_status(process, NULL), 0);
    lk_process_unref(process);
    expect_output(f,
                  &(struct lk_exec_options){.argv = SHELL("echo a; echo b >&2; echo c"),
                                            .errors = LK_EXEC_STDOUT},
                  "a\nb\nc\n");
    expect_output(f, &(struct lk_exec_options){.argv = ARGV("printf", "a\\000b")}, "a");
}

static void a_capture_keeps_the_end(void **state)
{
    struct fixture *f = *state;
    struct lk_process *process =
        run(f, &(struct lk_exec_options){
                   .argv = SHELL("seq 1 100000"), .output = LK_EXEC_CAPTURE, .capture_max = 1000});
    size_t len;
    bool truncated;
    const char *text = lk_process_captured(process, false, &len, &truncated);
    assert_int_equal(len, 1000);
    assert_true(truncated);
    assert_string_equal(text + len - 14, "\n99999\n100000\n");
    for (size_t i = 1; i + 7 < len;
         i++) { /* each line follows the one before: nothing is twisted */
        if (text[i - 1] == '\n' && text[i + 5] == '\n' && i + 11 < len && text[i + 11] == '\n') {
            char one[6] = {0}, two[6] = {0};
            memcpy(one, text + i, 5);
            memcpy(two, text + i + 6, 5);
            assert_int_equal(strtol(one, NULL, 10) + 1, strtol(two, NULL, 10));
        }
    }
    lk_process_unref(process);
}

static void lines_are_logged_while_it_runs(void **state)
{
    struct fixture *f = *state;
    struct lk_process *process = start(
        f, &(struct lk_exec_options){
               .argv = SHELL(
                   "trap 'printf last; exit' USR1;"
                   "printf 'one\\n\\n10%%\\r20%%\\r99%%\\r\\nb\\303\\244h \\033[1m\\377\\n' >&2;"
                   "head -c 9000 /dev/zero | tr '\\0' x; echo; echo;"
                   "while :; do sleep 0.05; done"),
               .output = LK_EXEC_LOG,
               .errors = LK_EXEC_LOG,
               .log_prefix = "p"});
    for (int i = 0; i < 200 * SLOW && strstr(f->lines, "xxx...\n") == NULL; i++)
        step_for(f, 50);
    assert_non_null(strstr(f->lines, "p: one\np: 99%\np: b\xc3\xa4h ?[1m?\n"));
    assert_non_null(strstr(f->lines, "xxx...\n"));
    assert_null(strstr(f->lines, "last"));
    assert_true(strlen(f->lines) < 4300);
    assert_int_equal(lk_process_kill(process, SIGUSR1, NULL), 0);
    await(f, process);
    assert_non_null(strstr(f->lines, "p: last\n"));
    lk_process_unref(process);
}

static void a_stream_carries_all_of_it(void **state)
{
    struct fixture *f = *state;
    struct reader reader;
    struct lk_process *process =
        start(f, &(struct lk_exec_options){.argv = SHELL("head -c 20000000 /dev/zero"),
                                           .output = LK_EXEC_STREAM});
    read_stream(f, lk_process_stdout(process), &reader);
    assert_int_equal(reader.result, LK_STREAM_DONE);
    assert_int_equal(reader.bytes, 20000000);
    await(f, process);
    assert_null(lk_process_stdout(process));
    lk_process_unref(process);
}

static void a_slow_reader_is_no_failure(void **state)
{
    struct fixture *f = *state;
    struct reader reader;
    struct lk_process *process =
        start(f, &(struct lk_exec_options){.argv = SHELL("head -c 200000 /dev/zero"),
                                           .output = LK_EXEC_STREAM,
                                           .chunk_size = 4096});
    struct lk_stream *stream = lk_process_stdout(process);
    await(f, process); /* it has exited, and most of its output is still in the pipe */
    assert_false(lk_process_result(process)->left_open);
    lk_process_unref(process);
    assert_int_equal(lk_exec_live(f->exec), 1);
    step_for(f, 6000);
    read_stream(f, stream, &reader);
    assert_int_equal(reader.result, LK_STREAM_DONE);
    assert_int_equal(reader.bytes, 200000);
    settle_all(f);
}

static void check_failing_stream(struct fixture *f, const char *script, bool allow_empty,
                                 const char *message)
{
    struct reader reader;
    struct lk_process *process = start(f, &(struct lk_exec_options){.argv = SHELL(script),
                                                                    .output = LK_EXEC_STREAM,
                                                                    .errors = LK_EXEC_CAPTURE,
                                                                    .allow_empty = allow_empty});
    read_stream(f, lk_process_stdout(process), &reader);
    lk_process_unref(process);
    if (message == NULL) {
        assert_int_equal(reader.result, LK_STREAM_DONE);
        return;
    }
    assert_int_equal(reader.result, -1);
    assert_int_equal(reader.err.kind, LK_EXIT);
    assert_string_equal(reader.err.message, message);
}

static void a_stream_fails_at_its_end(void **state)
{
    struct fixture *f = *state;
    check_failing_stream(f, "echo data; echo 'no such table' >&2; exit 3", false,
                         "program 'sh' exited with code 3: no such table");
    check_failing_stream(f, "echo data; kill -9 $$", false,
                         "program 'sh' was killed by signal 9 (SIGKILL)");
    check_failing_stream(f, "exec >&-; sleep 0.2; exit 7", false,
                         "program 'sh' exited with code 7");
    check_failing_stream(f, ":", false, "program 'sh' exited with code 0, but printed nothing");
    check_failing_stream(f, ":", true, NULL);
}

static void cancelling_the_stream_ends_the_program(void **state)
{
    struct fixture *f = *state;
    struct lk_process *process =
        start(f, &(struct lk_exec_options){
                     .argv = SHELL("trap '' PIPE; while :; do echo x; sleep 0.1; done 2>/dev/null"),
                     .output = LK_EXEC_STREAM,
                     .grace_ms = 10000});
    struct lk_stream *stream = lk_process_stdout(process);
    lk_stream_cancel(stream);
    lk_stream_unref(stream);
    await(f, process);
    expect_status(process, LK_CANCELLED, "program 'sh' was stopped after ");
}

/* --- input --- */

static void input_comes_from_bytes(void **state)
{
    struct fixture *f = *state;
    size_t size = 300000;
    char *large = malloc(size + 1);
    memset(large, 'y', size);
    large[size] = '\0';

    expect_output(f, &(struct lk_exec_options){.argv = ARGV("cat")}, "");
    expect_output(
        f,
        &(struct lk_exec_options){
            .argv = ARGV("cat"), .input = LK_EXEC_BYTES, .bytes = "hello", .byte_count = 5},
        "hello");
    expect_output(
        f,
        &(struct lk_exec_options){
            .argv = ARGV("cat"), .input = LK_EXEC_BYTES, .bytes = large, .byte_count = size},
        large);
    /* a program that does not want it all */
    expect_output(f,
                  &(struct lk_exec_options){.argv = ARGV("head", "-c", "3"),
                                            .input = LK_EXEC_BYTES,
                                            .bytes = large,
                                            .byte_count = size},
                  "yyy");
    free(large);
}

static void a_hundred_megabytes_go_through_two_programs(void **state)
{
    struct fixture *f = *state;
    struct lk_process *source =
        start(f, &(struct lk_exec_options){.argv = ARGV("head", "-c", "100000000", "/dev/zero"),
                                           .output = LK_EXEC_STREAM});
    struct lk_process *cat = start(f, &(struct lk_exec_options){.argv = ARGV("cat"),
                                                                .input = LK_EXEC_STREAM,
                                                                .stream = lk_process_stdout(source),
                                                                .output = LK_EXEC_STREAM});
    expect_output(f,
                  &(struct lk_exec_options){.argv = ARGV("wc", "-c"),
                                            .input = LK_EXEC_STREAM,
                                            .stream = lk_process_stdout(cat)},
                  "100000000\n");
    lk_process_unref(source);
    lk_process_unref(cat);
    settle_all(f);
}

static void a_failing_input_fails_the_program(void **state)
{
    struct fixture *f = *state;
    char mark[] = "/tmp/lunark-exec-XXXXXX";
    char script[200];
    int fd = mkostemp(mark, O_CLOEXEC);
    struct stat st;
    close(fd);
    snprintf(script, sizeof script, "cat > /dev/null; echo committed > %s", mark);

    struct lk_process *source = start(
        f, &(struct lk_exec_options){.argv = SHELL("echo half; exit 5"), .output = LK_EXEC_STREAM});
    struct lk_process *sink = run(f, &(struct lk_exec_options){.argv = SHELL(script),
                                                               .input = LK_EXEC_STREAM,
                                                               .stream = lk_process_stdout(source),
                                                               .grace_ms = 5000});
    expect_status(sink, LK_EXIT, "program 'sh': its input failed: program 'sh' exited with code 5");
    assert_int_equal(stat(mark, &st), 0);
    assert_int_equal(st.st_size, 0); /* it never saw the end of half an input */
    unlink(mark);
    lk_process_unref(source);
}

static void a_source_is_ended_when_its_reader_has_exited(void **state)
{
    struct fixture *f = *state;
    struct lk_process *source = start(
        f, &(struct lk_exec_options){
               .argv = SHELL("echo x; exec sleep 60"), .output = LK_EXEC_STREAM, .chunk_size = 1});
    struct lk_process *sink =
        run(f, &(struct lk_exec_options){.argv = SHELL("read x; exit 0"),
                                         .input = LK_EXEC_STREAM,
                                         .stream = lk_process_stdout(source)});
    assert_int_equal(lk_process_status(sink, NULL), 0);
    lk_process_unref(sink);
    await(f, source);
    expect_status(source, LK_CANCELLED, "was stopped");
}

/* --- how it ends --- */

static void codes_and_signals_are_told(void **state)
{
    struct fixture *f = *state;
    const int ok[] = {0, 2};
    struct lk_process *process = run(f, &(struct lk_exec_options){.argv = SHELL("exit 42")});
    assert_int_equal(lk_process_result(process)->code, 42);
    assert_int_equal(lk_process_result(process)->signal, 0);
    expect_status(process, LK_EXIT, "program 'sh' exited with code 42");

    process = run(f, &(struct lk_exec_options){.argv = SHELL("kill -TERM $$")});
    assert_int_equal(lk_process_result(process)->code, -1);
    assert_int_equal(lk_process_result(process)->signal, SIGTERM);
    expect_status(process, LK_EXIT, "program 'sh' was killed by signal 15 (SIGTERM)");

    process = run(f, &(struct lk_exec_options){.argv = SHELL("exit 2"), .ok = ok, .ok_count = 2});
    assert_int_equal(lk_process_status(process, NULL), 0);
    lk_process_unref(process);

    process =
        run(f, &(struct lk_exec_options){
                   .argv = SHELL("for i in 1 2 3 4 5; do echo line $i >&2; echo >&2; done; exit 1"),
                   .errors = LK_EXEC_LOG});
    expect_status(process, LK_EXIT, "exited with code 1: line 3; line 4; line 5");
}

static void a_timeout_ends_the_whole_group(void **state)
{
    struct fixture *f = *state;
    /* the grandchild ignores TERM, and both hold the pipe */
    struct lk_process *process =
        run(f, &(struct lk_exec_options){.argv = SHELL("(trap '' TERM; sleep 61) & sleep 62"),
                                         .output = LK_EXEC_CAPTURE,
                                         .timeout_ms = 300,
                                         .grace_ms = 300});
    assert_true(lk_process_result(process)->timed_out);
    assert_int_equal(lk_process_result(process)->signal, SIGTERM);
    assert_no_group(lk_process_pid(process));
    expect_status(process, LK_TIMEOUT,
                  "program 'sh' ran longer than its timeout and was ended after ");
}

static void what_ignores_term_is_killed(void **state)
{
    struct fixture *f = *state;
    struct lk_process *process =
        start(f, &(struct lk_exec_options){
                     .argv = SHELL("trap '' TERM; echo ready; while :; do sleep 0.1; done"),
                     .output = LK_EXEC_CAPTURE,
                     .grace_ms = 300});
    step_for(f, 300 * SLOW);
    lk_process_end(process);
    lk_process_end(process);
    await(f, process);
    assert_int_equal(lk_process_result(process)->signal, SIGKILL);
    assert_true(lk_process_result(process)->stopped);
    expect_status(process, LK_CANCELLED, "program 'sh' was stopped after ");
}

static void a_stopped_program_is_ended_too(void **state)
{
    struct fixture *f = *state;
    struct lk_process *process =
        start(f, &(struct lk_exec_options){.argv = ARGV("sleep", "60"), .grace_ms = 20000});
    assert_int_equal(lk_process_kill(process, SIGSTOP, NULL), 0);
    lk_process_end(process);
    await(f, process);
    assert_int_equal(lk_process_result(process)->signal, SIGTERM);
    assert_int_equal(lk_process_kill(process, SIGTERM, NULL), -1);
    lk_process_unref(process);
}

static void a_pipe_left_open_is_a_failure(void **state)
{
    struct fixture *f = *state;
    struct reader reader;
    uint64_t before = lk_now_ns();
    struct lk_process *process =
        start(f, &(struct lk_exec_options){.argv = SHELL("echo data; sleep 60 & exit 0"),
                                           .output = LK_EXEC_STREAM,
                                           .grace_ms = 1000});
    read_stream(f, lk_process_stdout(process), &reader);
    assert_int_equal(reader.result, -1);
    assert_non_null(strstr(reader.err.message, "left a process behind that kept its pipes open"));
    assert_true(lk_now_ns() - before > 4500000000u);
    await(f, process);
    assert_true(lk_process_result(process)->left_open);
    assert_int_equal(lk_process_result(process)->code, 0);
    assert_no_group(lk_process_pid(process));
    lk_process_unref(process);
}

/* One that left the group can't be ended; the pipe is given up, and nobody waits for it for ever.
 */
static void a_pipe_held_from_outside_the_group_is_given_up(void **state)
{
    struct fixture *f = *state;
    struct reader reader;
    struct lk_process *process = start(
        f, &(struct lk_exec_options){
               .argv = SHELL("setsid sh -c 'echo $$ >&2; exec sleep 60 2>/dev/null' & sleep 0.2"),
               .output = LK_EXEC_STREAM,
               .errors = LK_EXEC_CAPTURE,
               .grace_ms = 100});
    size_t len;
    bool truncated;
    read_stream(f, lk_process_stdout(process), &reader);
    assert_int_equal(reader.result, -1);
    await(f, process);
    assert_int_equal(lk_process_result(process)->code, 0);
    pid_t stranger = (pid_t)strtol(lk_process_captured(process, true, &len, &truncated), NULL, 10);
    assert_true(stranger > 1 && group_lives(stranger));
    kill(stranger, SIGKILL);
    expect_status(process, LK_EXIT, "left a process behind that kept its pipes open");
    settle_all(f);
}

static void a_lost_status_is_a_failure(void **state)
{
    struct fixture *f = *state;
    struct reader reader;
    struct sigaction ignore = {.sa_handler = SIG_IGN}, old;
    sigaction(SIGCHLD, &ignore, &old);
    struct lk_process *process =
        start(f, &(struct lk_exec_options){.argv = SHELL("echo data"), .output = LK_EXEC_STREAM});
    read_stream(f, lk_process_stdout(process), &reader);
    sigaction(SIGCHLD, &old, NULL);
    assert_int_equal(reader.result, -1);
    assert_string_equal(reader.err.message,
                        "program 'sh': exit status lost: the host ignores or reaps SIGCHLD");
    await(f, process);
    assert_true(lk_process_lost(process, NULL));
    expect_status(process, LK_EXIT, "exit status lost");
}

static void it_says_that_it_still_waits(void **state)
{
    struct fixture *f = *state;
    struct lk_process *process =
        run(f, &(struct lk_exec_options){.argv = ARGV("sleep", "1.2"), .remind_ms = 500});
    assert_string_equal(f->lines, "still waiting for sleep (0 s)\nstill waiting for sleep (1 s)\n");
    lk_process_unref(process);
}

/* --- what it starts with --- */

static void only_three_descriptors_are_inherited(void **state)
{
    struct fixture *f = *state;
    int leak = open("/dev/null", O_RDONLY); /* without O_CLOEXEC, as a host may have it */
    int high = fcntl(leak, F_DUPFD, 200);
    expect_output(f, &(struct lk_exec_options){.argv = ARGV("ls", "/proc/self/fd")},
                  "0\n1\n2\n3\n");
    close(leak);
    close(high);
}

static void signals_are_at_their_defaults(void **state)
{
    struct fixture *f = *state;
    struct sigaction ignore = {.sa_handler = SIG_IGN}, pipe_old, usr_old;
    struct sigaction standard = {.sa_handler = SIG_DFL}, hangup_old; /* nohup is inherited */
    sigset_t block, old;
    sigemptyset(&block);
    sigaddset(&block, SIGTERM);
    sigaddset(&block, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &block, &old);
    sigaction(SIGPIPE, &ignore, &pipe_old);
    sigaction(SIGUSR2, &ignore, &usr_old);
    sigaction(SIGHUP, &standard, &hangup_old);
    expect_output(
        f,
        &(struct lk_exec_options){.argv = ARGV("grep", "-E", "Sig(Blk|Ign)", "/proc/self/status")},
        "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
    sigaction(SIGPIPE, &pipe_old, NULL);
    sigaction(SIGUSR2, &usr_old, NULL);
    sigaction(SIGHUP, &hangup_old, NULL);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static void environment_and_directory_are_set(void **state)
{
    struct fixture *f = *state;
    const char *changes[] = {"LUNARK_A=1", "LUNARK_A=2", "HOME", "LUNARK_EMPTY="};
    expect_output(
        f,
        &(struct lk_exec_options){
            .argv = SHELL(
                "echo $LUNARK_A ${HOME-none} ${LUNARK_EMPTY-unset}.; pwd; echo ${PATH:+path}"),
            .env = changes,
            .env_count = 4,
            .cwd = "/usr"},
        "2 none .\n/usr\npath\n");
    expect_output(f,
                  &(struct lk_exec_options){
                      .argv = ARGV("env"), .env = changes, .env_count = 1, .clean_env = true},
                  "LUNARK_A=1\n");
}

static void it_leads_a_session_without_terminal(void **state)
{
    struct fixture *f = *state;
    expect_output(
        f,
        &(struct lk_exec_options){.argv = SHELL("set -- $(cut -d' ' -f1,5,6,7 /proc/$$/stat); [ $1 "
                                                "= $2 ] && [ $1 = $3 ] && echo $4")},
        "0\n");
}

static void the_user_is_switched(void **state)
{
    struct fixture *f = *state;
    if (geteuid() != 0) {
        print_message("skipped: the_user_is_switched needs root\n");
        skip();
    }
    expect_output(f,
                  &(struct lk_exec_options){.argv = SHELL("id -u; id -g; id -G"), .user = "12345"},
                  "12345\n12345\n12345\n");
    expect_output(f,
                  &(struct lk_exec_options){
                      .argv = SHELL("id -u; id -g; id -G"), .user = "12345", .group = "54321"},
                  "12345\n54321\n54321\n");
    expect_output(
        f,
        &(struct lk_exec_options){
            .argv = SHELL("id -un; grep -c 'Uid:.65534.65534.65534.65534' /proc/self/status"),
            .user = "nobody"},
        "nobody\n1\n");
    assert_int_equal(geteuid(), 0);
    /* the directory is entered as that user */
    expect_refused(f,
                   &(struct lk_exec_options){.argv = ARGV("true"), .user = "12345", .cwd = "/root"},
                   LK_DENIED, "program '/usr/bin/true': directory '/root'");
}

static void switching_the_user_needs_root(void **state)
{
    struct fixture *f = *state;
    if (geteuid() == 0) { /* in a child that has given root up */
        int status;
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            struct lk_error err = {0};
            struct lk_identity identity;
            pid_t child;
            int pidfd;
            if (setgid(12345) != 0 || setuid(12345) != 0 ||
                lk_identity_find("12345", NULL, &identity, NULL) != 0 || identity.change)
                _exit(2);
            lk_identity_free(&identity);
            if (lk_identity_find("12346", NULL, &identity, NULL) != 0)
                _exit(3);
            struct lk_spawn spawn = {.path = "/usr/bin/true",
                                     .argv = ARGV("true"),
                                     .env = environ,
                                     .fd = {-1, -1, -1},
                                     .identity = &identity};
            if (lk_spawn(&spawn, &child, &pidfd, &err) == 0)
                _exit(4);
            lk_identity_free(&identity);
            if (err.kind != LK_DENIED || strstr(err.message, "can't be run as uid 12346") == NULL)
                _exit(5);
            _exit(strstr(err.hint, "this process runs as uid 12345") != NULL ? 0 : 6);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        return;
    }
    expect_refused(f, &(struct lk_exec_options){.argv = ARGV("true"), .user = "root"}, LK_DENIED,
                   "program '/usr/bin/true' can't be run as uid 0");
}

static void write_file(const char *path, const char *text, mode_t mode)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

static void it_says_why_it_cannot_start(void **state)
{
    struct fixture *f = *state;
    char dir[] = "/tmp/lunark-exec-XXXXXX", plain[64], lost[64], path[80], message[300];
    char **old = environ, *only_path[] = {path, NULL};

    assert_non_null(mkdtemp(dir));
    snprintf(plain, sizeof plain, "%s/plain", dir);
    snprintf(lost, sizeof lost, "%s/lost", dir);
    write_file(plain, "data", 0644);
    write_file(lost, "#!/no/such/interpreter\n", 0755);
    expect_refused(f, &(struct lk_exec_options){.argv = ARGV("no-such-program")}, LK_NOT_FOUND,
                   "program 'no-such-program' not found in PATH (");
    expect_refused(f, &(struct lk_exec_options){.argv = ARGV("")}, LK_USAGE, "program ''");
    expect_refused(f, &(struct lk_exec_options){.argv = ARGV("true"), .user = "no-such-user"},
                   LK_NOT_FOUND, "user 'no-such-user': no such user");
    expect_refused(f, &(struct lk_exec_options){.argv = ARGV("true"), .group = "no-such-group"},
                   LK_NOT_FOUND, "group 'no-such-group': no such group");
    expect_refused(f, &(struct lk_exec_options){.argv = ARGV("true"), .cwd = "/no/such/directory"},
                   LK_NOT_FOUND, "program '/usr/bin/true': directory '/no/such/directory'");
    /* "." and other relative entries of PATH are passed over, and every candidate's reason is told
     */
    snprintf(path, sizeof path, "PATH=.:%s::tmp:/", dir);
    environ = only_path;
    snprintf(message, sizeof message, "program 'plain' can't be run: %s is not executable", plain);
    expect_refused(f, &(struct lk_exec_options){.argv = ARGV("plain")}, LK_DENIED, message);
    expect_refused(f, &(struct lk_exec_options){.argv = ARGV("tmp")}, LK_DENIED,
                   "/tmp is a directory");
    environ = old;
    if (!under_valgrind()) {
        snprintf(message, sizeof message, "program '%s' can't be started", plain);
        expect_refused(f, &(struct lk_exec_options){.argv = ARGV(plain)}, LK_DENIED, message);
        snprintf(
            message, sizeof message,
            "program '%s' can't be started: the interpreter or loader that it names is missing",
            lost);
        expect_refused(f, &(struct lk_exec_options){.argv = ARGV(lost)}, LK_NOT_FOUND, message);
        expect_refused(f, &(struct lk_exec_options){.argv = ARGV("/no/such/file")}, LK_NOT_FOUND,
                       "program '/no/such/file' can't be started");
    }
    unlink(plain);
    unlink(lost);
    rmdir(dir);
}

static void a_program_needs_its_grant(void **state)
{
    struct fixture *f = *state;
    struct lk_caps *caps = lk_caps_new(NULL);
    struct lk_error err = {0};
    struct lk_exec_options options = {.argv = ARGV("true")};
    assert_null(lk_process_start(f->exec, caps, &options, &err));
    assert_int_equal(err.kind, LK_DENIED);
    assert_int_equal(lk_caps_allow(caps, LK_CAP_EXEC, "true", NULL), 0);
    struct lk_process *process = lk_process_start(f->exec, caps, &options, &err);
    assert_non_null(process);
    await(f, process);
    lk_process_unref(process);
    lk_caps_free(caps);
}

/* --- many --- */

static void hundreds_run_in_a_row(void **state)
{
    struct fixture *f = *state;
    int before = count_descriptors();
    for (int i = 0; i < 300 / SLOW; i++)
        expect_output(f, &(struct lk_exec_options){.argv = ARGV("echo", "x")}, "x\n");
    assert_int_equal(count_descriptors(), before);
    assert_int_equal(lk_exec_live(f->exec), 0);
}

static void dozens_run_at_once(void **state)
{
    struct fixture *f = *state;
    enum { COUNT = 48 };
    struct lk_process *process[COUNT];
    bool done[COUNT] = {false};
    char script[64];
    for (int i = 0; i < COUNT; i++) {
        snprintf(script, sizeof script, "sleep 0.3; echo %d; exit %d", i, i);
        process[i] = start(f, &(struct lk_exec_options){.argv = SHELL(script),
                                                        .output = LK_EXEC_CAPTURE,
                                                        .errors = LK_EXEC_CAPTURE});
        lk_process_on_done(process[i], set_flag, &done[i]);
    }
    for (int i = 0; i < COUNT; i++) {
        step_until(f, &done[i], 30);
        snprintf(script, sizeof script, "%d\n", i);
        assert_string_equal(output_of(process[i]), script);
        assert_int_equal(lk_process_result(process[i])->code, i);
        lk_process_unref(process[i]);
    }
}

static void a_dropped_handle_is_reaped(void **state)
{
    struct fixture *f = *state;
    struct lk_process *process =
        start(f, &(struct lk_exec_options){.argv = ARGV("sleep", "60"), .grace_ms = 1000});
    pid_t pid = lk_process_pid(process);
    lk_process_unref(process);
    settle_all(f);
    assert_true(kill(pid, 0) != 0 && errno == ESRCH);
}

static void freeing_the_runtime_ends_all(void **state)
{
    struct fixture *f = *state;
    struct lk_process *deaf = start(
        f, &(struct lk_exec_options){.argv = SHELL("trap '' TERM; while :; do sleep 0.1; done"),
                                     .output = LK_EXEC_STREAM,
                                     .grace_ms = 60000});
    struct lk_process *sleeper =
        start(f, &(struct lk_exec_options){.argv = ARGV("sleep", "60"),
                                           .output = LK_EXEC_CAPTURE,
                                           .input = LK_EXEC_STREAM,
                                           .stream = lk_process_stdout(deaf)});
    pid_t pids[] = {lk_process_pid(deaf), lk_process_pid(sleeper)};
    step_for(f, 100);
    uint64_t before = lk_now_ns();
    lk_exec_free(f->exec);
    assert_true(lk_now_ns() - before < (uint64_t)6 * SLOW * 1000000000u);
    for (int i = 0; i < 2; i++)
        assert_true(kill(pids[i], 0) != 0 && errno == ESRCH);
    lk_process_unref(deaf);
    lk_process_unref(sleeper);
    f->exec = lk_exec_new(f->loop, f->pool, f->log, NULL);
}

/* --- lines and tails --- */

static void a_tail_keeps_the_last_bytes(void **state)
{
    (void)state;
    char text[64];
    size_t len;
    for (size_t step = 1; step < 30; step++) {
        struct lk_tail tail;
        lk_tail_init(&tail, 10);
        for (size_t i = 0; i < 60; i++)
            text[i] = (char)('A' + i);
        for (size_t i = 0; i < 60; i += step)
            lk_tail_add(&tail, text + i, i + step <= 60 ? step : 60 - i);
        const char *kept = lk_tail_text(&tail, &len);
        assert_int_equal(len, 10);
        assert_memory_equal(kept, text + 50, 10);
        assert_true(tail.truncated);
        lk_tail_free(&tail);
    }
}

static void text_is_cleaned(void **state)
{
    (void)state;
    char text[] =
        "a\tb\x01\x7f\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80|\xc0\x80\xed\xa0\x80\xc2\x85\xff\xe2\x82";
    lk_text_clean(text, strlen(text));
    assert_string_equal(text, "a\tb??\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80|??????????");
    char out[32];
    const char *lines = "one\n\ntwo\r\nthree\n\n";
    lk_last_lines(lines, strlen(lines), 2, out, sizeof out);
    assert_string_equal(out, "two; three");
    lk_last_lines("", 0, 2, out, sizeof out);
    assert_string_equal(out, "");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(output_and_errors_are_captured),
        TEST(a_capture_keeps_the_end),
        TEST(lines_are_logged_while_it_runs),
        TEST(a_stream_carries_all_of_it),
        TEST(a_slow_reader_is_no_failure),
        TEST(a_stream_fails_at_its_end),
        TEST(cancelling_the_stream_ends_the_program),
        TEST(input_comes_from_bytes),
        TEST(a_hundred_megabytes_go_through_two_programs),
        TEST(a_failing_input_fails_the_program),
        TEST(a_source_is_ended_when_its_reader_has_exited),
        TEST(codes_and_signals_are_told),
        TEST(a_timeout_ends_the_whole_group),
        TEST(what_ignores_term_is_killed),
        TEST(a_stopped_program_is_ended_too),
        TEST(a_pipe_left_open_is_a_failure),
        TEST(a_pipe_held_from_outside_the_group_is_given_up),
        TEST(a_lost_status_is_a_failure),
        TEST(it_says_that_it_still_waits),
        TEST(only_three_descriptors_are_inherited),
        TEST(signals_are_at_their_defaults),
        TEST(environment_and_directory_are_set),
        TEST(it_leads_a_session_without_terminal),
        TEST(the_user_is_switched),
        TEST(switching_the_user_needs_root),
        TEST(it_says_why_it_cannot_start),
        TEST(a_program_needs_its_grant),
        TEST(hundreds_run_in_a_row),
        TEST(dozens_run_at_once),
        TEST(a_dropped_handle_is_reaped),
        TEST(freeing_the_runtime_ends_all),
        cmocka_unit_test(a_tail_keeps_the_last_bytes),
        cmocka_unit_test(text_is_cleaned),
    };
    return cmocka_run_group_tests_name("exec", tests, NULL, NULL);
}
