/* SPDX-License-Identifier: MIT
 * exec_start.c - starts a program: its pipes, the program itself, and what the loop and the stages
 * are to hear of it. Owns pipes until they are attached. A start that fails leaves nothing behind.
 * Loop thread only. */
#include "exec_internal.h"

#include "launch.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define REMIND_MS 30000
#define CAPTURE_MAX ((size_t)1 << 20)
#define CHUNK_SIZE ((size_t)1 << 20)
#define WORDS_MAX ((size_t)4 << 10) /* of logged stderr, kept for the error */
#define PIPE_SIZE (256 << 10)
#define SMALL_INPUT 4096 /* fits into an empty pipe whatever its size */

/* --- pipes --- */

struct pipes {
    int in[2], out[2], err[2]; /* reading and writing end; -1 */
    int null;
};

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void close_pipes(struct pipes *pipes)
{
    for (int i = 0; i < 2; i++) {
        close_fd(&pipes->in[i]);
        close_fd(&pipes->out[i]);
        close_fd(&pipes->err[i]);
    }
    close_fd(&pipes->null);
}

/* A child places its descriptors from 0 to 2, so what it gets must be above them even if the host
 * has closed its own. */
static int above(int fd)
{
    if (fd < 0 || fd > 2)
        return fd;
    int moved = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    int saved = errno;
    close(fd);
    errno = saved;
    return moved;
}

static int make_pipe(int fd[2])
{
    if (pipe2(fd, O_CLOEXEC) != 0)
        return -1;
    fd[0] = above(fd[0]);
    fd[1] = above(fd[1]);
    return fd[0] < 0 || fd[1] < 0 ? -1 : 0;
}

static bool has_pipe(enum lk_exec_io mode)
{
    return mode == LK_EXEC_STREAM || mode == LK_EXEC_BYTES || mode == LK_EXEC_CAPTURE ||
           mode == LK_EXEC_LOG;
}

static int make_pipes(struct pipes *pipes, const struct lk_exec_options *options)
{
    if ((has_pipe(options->input) && make_pipe(pipes->in) != 0) ||
        (has_pipe(options->output) && make_pipe(pipes->out) != 0) ||
        (has_pipe(options->errors) && make_pipe(pipes->err) != 0))
        return -1;
    pipes->null = above(open("/dev/null", O_RDWR | O_CLOEXEC));
    return pipes->null < 0 ? -1 : 0;
}

static int child_fd(enum lk_exec_io mode, int fd, const struct pipes *pipes)
{
    return mode == LK_EXEC_NULL ? pipes->null : mode == LK_EXEC_INHERIT ? -1 : fd;
}

/* --- what is attached to the loop once the program runs --- */

static int watch_fd(struct lk_process *process, struct lk_watch *watch, int fd, uint32_t events,
                    void (*ready)(struct lk_watch *, uint32_t), void *arg, struct lk_error *err)
{
    watch->fd = fd;
    watch->events = events;
    watch->ready = ready;
    watch->arg = arg;
    if (fd < 0)
        return lk_error_errno(err, errno, "program '%s': its pipes", process->name);
    return lk_loop_watch(process->loop, watch, err);
}

/* Takes over *fd. */
static int attach_output(struct lk_exec_output *output, int *fd, size_t chunk_size,
                         struct lk_error *err)
{
    struct lk_process *process = output->process;
    int own = *fd;

    if (own < 0)
        return 0;
    if (output->mode != LK_EXEC_STREAM) {
        *fd = -1;
        output->open = true;
        fcntl(own, F_SETFL, O_NONBLOCK);
        return watch_fd(process, &output->watch, own, EPOLLIN, lk_exec_output_readable, output,
                        err);
    }
    /* Without any event asked for, the loop still tells of a hang-up. */
    if (watch_fd(process, &output->watch, fcntl(own, F_DUPFD_CLOEXEC, 3), 0, lk_exec_output_hung_up,
                 output, err) != 0)
        return -1;
    *fd = -1;
    fcntl(own, F_SETPIPE_SZ, PIPE_SIZE); /* fewer switches; the default will do as well */
    lk_exec_hold(process);
    output->open = output->reading = true;
    output->handed =
        lk_stream_of_fd(process->exec->pool, own, chunk_size, lk_exec_stage_eof, output, err);
    if (output->handed == NULL) {
        output->reading = false;
        lk_exec_release(process);
        return -1;
    }
    output->stream = lk_stream_ref(output->handed);
    lk_stream_on_cancel(output->stream, lk_exec_stage_cancelled, output);
    return 0;
}

/* Takes over *fd and *stream. */
static int attach_input(struct lk_process *process, int *fd, struct lk_stream **stream,
                        struct lk_error *err)
{
    int own = *fd;
    struct lk_stream *input = *stream;

    if (own < 0)
        return 0;
    if (watch_fd(process, &process->input_hold, fcntl(own, F_DUPFD_CLOEXEC, 3), 0,
                 lk_exec_input_hung_up, process, err) != 0)
        return -1;
    *fd = -1;
    *stream = NULL;
    lk_exec_hold(process);
    process->input = lk_stream_ref(input);
    process->input_open = true;
    if (lk_stream_to_fd(process->exec->pool, input, own, lk_exec_stage_input, process, err) != 0) {
        process->input_open = false;
        lk_exec_release(process);
        return -1;
    }
    return 0;
}

static int attach(struct lk_process *process, const struct lk_exec_options *options,
                  struct pipes *pipes, struct lk_stream **stream, int pidfd, struct lk_error *err)
{
    size_t chunk_size = options->chunk_size > 0 ? options->chunk_size : CHUNK_SIZE;

    if (watch_fd(process, &process->exit, pidfd, EPOLLIN, lk_exec_exited, process, err) != 0 ||
        attach_output(&process->output[OUT], &pipes->out[0], chunk_size, err) != 0 ||
        attach_output(&process->output[ERR], &pipes->err[0], chunk_size, err) != 0 ||
        attach_input(process, &pipes->in[1], stream, err) != 0)
        return -1;
    if (options->timeout_ms > 0 &&
        lk_loop_arm(process->loop, &process->limit, options->timeout_ms, err) != 0)
        return -1;
    return lk_loop_arm(process->loop, &process->remind, process->remind_ms, err);
}

static struct lk_timer timer_for(struct lk_process *process, void (*expired)(struct lk_timer *))
{
    return (struct lk_timer){.expired = expired, .arg = process};
}

static int prepare_output(struct lk_exec_output *output, enum lk_exec_io mode,
                          const struct lk_exec_options *options)
{
    size_t capture = options->capture_max > 0 ? options->capture_max : CAPTURE_MAX;
    size_t words = options->log_max > WORDS_MAX ? options->log_max : WORDS_MAX;

    output->mode = mode;
    output->kept = mode == LK_EXEC_CAPTURE || (mode == LK_EXEC_LOG && options->log_max > 0);
    if (mode == LK_EXEC_CAPTURE || mode == LK_EXEC_LOG)
        lk_tail_init(&output->tail, mode == LK_EXEC_LOG ? words : capture);
    if (mode != LK_EXEC_LOG)
        return 0;
    output->lines = calloc(1, sizeof *output->lines);
    if (output->lines == NULL)
        return -1;
    output->lines->line = lk_exec_log_line;
    output->lines->arg = output->process;
    return 0;
}

static struct lk_process *make_process(struct lk_exec *exec, const struct lk_exec_options *options)
{
    struct lk_process *process = calloc(1, sizeof *process);
    const char *slash = strrchr(options->argv[0], '/');

    if (process == NULL)
        return NULL;
    process->refs = 1;
    process->exec = exec;
    process->loop = exec->loop;
    process->exit.fd = process->input_hold.fd = -1;
    process->limit = timer_for(process, lk_exec_limit_passed);
    process->grace = timer_for(process, lk_exec_grace_passed);
    process->remind = timer_for(process, lk_exec_remind);
    process->grace_ms = options->grace_ms;
    process->remind_ms = options->remind_ms > 0 ? options->remind_ms : REMIND_MS;
    process->allow_empty = options->allow_empty;
    process->words = options->errors == LK_EXEC_CAPTURE || options->errors == LK_EXEC_LOG;
    process->note_event.run = lk_exec_read_notes;
    process->done_event.run = lk_exec_run_done;
    pthread_mutex_init(&process->mutex, NULL);
    process->name = strdup(options->argv[0]);
    process->prefix = strdup(options->log_prefix != NULL ? options->log_prefix
                             : slash != NULL             ? slash + 1
                                                         : options->argv[0]);
    process->ok = calloc(options->ok_count + 1, sizeof *process->ok);
    process->item = options->log_item != NULL ? strdup(options->log_item) : NULL;
    bool ready = process->name != NULL && process->prefix != NULL && process->ok != NULL &&
                 (process->item != NULL || options->log_item == NULL);
    if (ready && options->ok_count > 0)
        memcpy(process->ok, options->ok, options->ok_count * sizeof *process->ok);
    process->ok_count = options->ok_count;
    for (int i = 0; i < 2; i++) {
        process->output[i].process = process;
        process->output[i].watch.fd = -1;
        ready = prepare_output(&process->output[i], i == OUT ? options->output : options->errors,
                               options) == 0 &&
                ready;
    }
    if (ready)
        return process;
    lk_exec_release(process);
    return NULL;
}

/* What fits into the pipe goes there at once; more becomes a stream, for a stage to write. */
static int prepare_input(const struct lk_exec_options *options, struct pipes *pipes,
                         struct lk_stream **stream, struct lk_error *err)
{
    if (options->input != LK_EXEC_BYTES)
        return 0;
    if (options->byte_count > SMALL_INPUT) {
        *stream = lk_stream_of_bytes(options->bytes, options->byte_count, err);
        return *stream != NULL ? 0 : -1;
    }
    if (options->byte_count > 0 &&
        write(pipes->in[1], options->bytes, options->byte_count) != (ssize_t)options->byte_count)
        return lk_error_errno(err, errno, "program '%s': its input", options->argv[0]);
    close_fd(&pipes->in[1]);
    return 0;
}

static int spawn(struct lk_process *process, const struct lk_exec_options *options,
                 const struct pipes *pipes, int *pidfd, struct lk_error *err)
{
    struct lk_identity identity;
    char *path = NULL, **env = NULL;
    int result = -1;

    if (lk_identity_find(options->user, options->group, &identity, err) != 0)
        return -1;
    if (lk_spawn_find(options->argv[0], &path, err) == 0 &&
        (env = lk_spawn_env(options->env, options->env_count, options->clean_env, err)) != NULL) {
        int out = child_fd(options->output, pipes->out[1], pipes);
        struct lk_spawn spawn_options = {
            .path = path,
            .argv = options->argv,
            .env = env,
            .cwd = options->cwd,
            .fd = {child_fd(options->input, pipes->in[0], pipes), out,
                   options->errors != LK_EXEC_STDOUT
                       ? child_fd(options->errors, pipes->err[1], pipes)
                   : out >= 0 ? out
                              : 1},
            .identity = &identity,
        };
        process->started_ns = lk_now_ns();
        result = lk_spawn(&spawn_options, &process->pid, pidfd, err);
    }
    free(path);
    free(env);
    lk_identity_free(&identity);
    return result;
}

static void join_set(struct lk_process *process)
{
    struct lk_exec *exec = process->exec;
    lk_exec_hold(process);
    process->link = &exec->first;
    process->next = exec->first;
    if (exec->first != NULL)
        exec->first->link = &process->next;
    exec->first = process;
    exec->live++;
}

struct lk_process *lk_process_start(struct lk_exec *exec, struct lk_caps *caps,
                                    const struct lk_exec_options *options, struct lk_error *err)
{
    struct pipes pipes = {{-1, -1}, {-1, -1}, {-1, -1}, -1};
    struct lk_stream *stream = options->input == LK_EXEC_STREAM ? options->stream : NULL;
    struct lk_process *process = NULL;
    int pidfd = -1;
    bool running = false;

    if (caps != NULL && lk_caps_check(caps, LK_CAP_EXEC, options->argv[0], err) != 0)
        goto done;
    process = make_process(exec, options);
    if (process == NULL) {
        lk_error_set(err, LK_MEMORY, "program '%s': out of memory", options->argv[0]);
        goto done;
    }
    if (make_pipes(&pipes, options) != 0) {
        lk_error_errno(err, errno, "program '%s': its pipes", options->argv[0]);
        goto done;
    }
    if (prepare_input(options, &pipes, &stream, err) != 0 ||
        spawn(process, options, &pipes, &pidfd, err) != 0)
        goto done;
    close_fd(&pipes.in[0]);
    close_fd(&pipes.out[1]);
    close_fd(&pipes.err[1]);
    join_set(process);
    running = attach(process, options, &pipes, &stream, pidfd, err) == 0;
    if (!running)
        lk_exec_abandon(process);
done:
    close_pipes(&pipes);
    if (stream != NULL) {
        lk_stream_cancel(stream);
        lk_stream_unref(stream);
    }
    if (process != NULL && !running) {
        lk_exec_release(process);
        process = NULL;
    }
    return process;
}
