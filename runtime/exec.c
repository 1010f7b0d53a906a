/* SPDX-License-Identifier: MIT
 * exec.c - the programs of a runtime: what the loop and the stage threads tell of them, the handle,
 * and the end of all. Owns the processes, their pipes and timers. Never blocks, but for
 * lk_exec_free; never installs a signal handler; knows no Lua. Loop thread only; stage threads
 * leave a note in the process and wake the loop. exec_start.c starts them, exec_end.c ends them. */
#include "exec_internal.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define FREE_MS 2000 /* grace when the runtime goes */
#define READ_SIZE 65536

/* --- life and death of the structs --- */

struct lk_exec *lk_exec_new(struct lk_loop *loop, struct lk_pool *pool, struct lk_log *log,
                            struct lk_error *err)
{
    struct lk_exec *exec = calloc(1, sizeof *exec);
    if (exec == NULL) {
        lk_error_set(err, LK_MEMORY, "programs: out of memory");
        return NULL;
    }
    exec->loop = loop;
    exec->pool = pool;
    exec->log = log;
    return exec;
}

size_t lk_exec_live(const struct lk_exec *exec)
{
    return exec->live;
}

void lk_exec_hold(struct lk_process *process)
{
    __atomic_add_fetch(&process->refs, 1, __ATOMIC_RELAXED);
}

void lk_exec_release(struct lk_process *process)
{
    if (__atomic_sub_fetch(&process->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    for (int i = 0; i < 2; i++) {
        lk_tail_free(&process->output[i].tail);
        free(process->output[i].lines);
    }
    pthread_mutex_destroy(&process->mutex);
    free(process->name);
    free(process->prefix);
    free(process->item);
    free(process->ok);
    free(process);
}

void lk_exec_close_watch(struct lk_process *process, struct lk_watch *watch)
{
    lk_loop_unwatch(process->loop, watch);
    if (watch->fd >= 0)
        close(watch->fd);
    watch->fd = -1;
}

void lk_exec_leave(struct lk_process *process)
{
    if (process->exec == NULL)
        return;
    pthread_mutex_lock(
        &process->mutex); /* a reader may have cancelled its stream at the last moment */
    lk_loop_unpost(process->loop, &process->note_event);
    pthread_mutex_unlock(&process->mutex);
    *process->link = process->next;
    if (process->next != NULL)
        process->next->link = process->link;
    process->exec->live--;
    process->exec = NULL;
    lk_exec_release(process);
}

/* --- notes from stage threads --- */

static void note(struct lk_process *process, unsigned what)
{
    pthread_mutex_lock(&process->mutex);
    process->notes |= what;
    if (!process->deaf)
        lk_loop_post(process->loop, &process->note_event);
    pthread_mutex_unlock(&process->mutex);
}

void lk_exec_stage_eof(void *arg)
{
    struct lk_exec_output *output = arg;
    struct lk_process *process = output->process;
    note(process, output == &process->output[OUT] ? NOTE_EOF_OUT : NOTE_EOF_ERR);
    lk_exec_release(process);
}

void lk_exec_stage_cancelled(void *arg)
{
    struct lk_exec_output *output = arg;
    note(output->process, NOTE_CANCELLED);
}

void lk_exec_stage_input(void *arg, const struct lk_error *err, uint64_t bytes)
{
    struct lk_process *process = arg;
    (void)bytes;
    pthread_mutex_lock(&process->mutex);
    if (err != NULL && err->code != EPIPE && err->kind != LK_CANCELLED) {
        process->input_failed = true;
        process->input_error = *err;
    }
    pthread_mutex_unlock(&process->mutex);
    note(process, NOTE_INPUT);
    lk_exec_release(process);
}

void lk_exec_read_notes(struct lk_event *event)
{
    struct lk_process *process =
        (struct lk_process *)((char *)event - offsetof(struct lk_process, note_event));
    bool failed;

    pthread_mutex_lock(&process->mutex);
    unsigned notes = process->notes;
    process->notes = 0;
    failed = process->input_failed;
    pthread_mutex_unlock(&process->mutex);

    lk_exec_hold(process);
    for (int i = 0; i < 2; i++) {
        if ((notes & (i == OUT ? NOTE_EOF_OUT : NOTE_EOF_ERR)) != 0) {
            process->output[i].reading = false;
            process->output[i].open = false;
            lk_exec_close_watch(process, &process->output[i].watch);
        }
    }
    if ((notes & NOTE_INPUT) != 0) {
        lk_stream_unref(process->input);
        process->input = NULL;
        process->input_open = false;
        if (failed) /* ended first: seeing the end of its input it would take half of it for all */
            lk_process_end(process);
        else
            lk_exec_close_watch(process, &process->input_hold);
    }
    if ((notes & NOTE_CANCELLED) != 0)
        lk_process_end(process);
    lk_exec_advance(process);
    lk_exec_release(process);
}

/* --- output --- */

void lk_exec_log_line(void *arg, const char *text)
{
    struct lk_process *process = arg;
    if (process->exec != NULL && process->exec->log != NULL)
        lk_log_write(process->exec->log, LK_INFO,
                     &(struct lk_field){.name = "item", .value = process->item}, 1, "%s%s%s",
                     process->prefix, process->prefix[0] != '\0' ? ": " : "", text);
}

void lk_exec_end_output(struct lk_exec_output *output)
{
    lk_exec_close_watch(output->process, &output->watch);
    output->open = false;
    if (output->lines != NULL)
        lk_lines_end(output->lines);
}

void lk_exec_output_readable(struct lk_watch *watch, uint32_t events)
{
    struct lk_exec_output *output = watch->arg;
    char data[READ_SIZE];
    ssize_t n = read(watch->fd, data, sizeof data);

    (void)events;
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n > 0) {
        lk_tail_add(&output->tail, data, (size_t)n);
        if (output->lines != NULL)
            lk_lines_add(output->lines, data, (size_t)n);
        return;
    }
    lk_exec_end_output(output);
    lk_exec_advance(output->process);
}

/* Nobody has the pipe open for writing any more; what is in it is the stage's to read. */
void lk_exec_output_hung_up(struct lk_watch *watch, uint32_t events)
{
    struct lk_exec_output *output = watch->arg;
    (void)events;
    lk_exec_close_watch(output->process, watch);
    output->open = false;
    lk_exec_advance(output->process);
}

/* Nobody has the input open for reading any more: its source has no reason to go on. */
void lk_exec_input_hung_up(struct lk_watch *watch, uint32_t events)
{
    struct lk_process *process = watch->arg;
    (void)events;
    lk_exec_close_watch(process, watch);
    if (process->input != NULL)
        lk_stream_cancel(process->input);
    lk_exec_advance(process);
}
/* --- the handle --- */

pid_t lk_process_pid(const struct lk_process *process)
{
    return process->pid;
}

static struct lk_stream *take_stream(struct lk_exec_output *output)
{
    struct lk_stream *stream = output->handed;
    output->handed = NULL;
    return stream;
}

struct lk_stream *lk_process_stdout(struct lk_process *process)
{
    return take_stream(&process->output[OUT]);
}

struct lk_stream *lk_process_stderr(struct lk_process *process)
{
    return take_stream(&process->output[ERR]);
}

void lk_process_on_done(struct lk_process *process, void (*done)(void *arg), void *arg)
{
    process->done = done;
    process->done_arg = arg;
    if (done == NULL && process->done_event.queued &&
        lk_loop_unpost(process->loop, &process->done_event))
        lk_exec_release(process); /* never the last: the caller has one */
    if (process->settled && !process->deaf)
        lk_exec_tell_done(process);
}

const struct lk_exec_result *lk_process_result(const struct lk_process *process)
{
    return process->settled ? &process->result : NULL;
}

const char *lk_process_captured(struct lk_process *process, bool errors, size_t *len,
                                bool *truncated)
{
    struct lk_exec_output *output = &process->output[errors ? ERR : OUT];
    if (!output->kept)
        return NULL;
    *truncated = output->tail.truncated;
    return lk_tail_text(&output->tail, len);
}

void lk_process_unref(struct lk_process *process)
{
    bool wanted = false;

    lk_process_on_done(process, NULL, NULL);
    for (int i = 0; i < 2; i++) {
        struct lk_exec_output *output = &process->output[i];
        if (output->handed != NULL) {
            lk_stream_cancel(output->handed);
            lk_stream_unref(output->handed);
            output->handed = NULL;
        }
        wanted =
            wanted || (output->stream != NULL && lk_stream_state(output->stream) == LK_END_OPEN);
    }
    if (!wanted)
        lk_process_end(process);
    lk_exec_release(process);
}

/* --- the end of the runtime --- */

/* Cuts a process off from loop and stages; it may still run. */
static void cut_off(struct lk_process *process)
{
    struct lk_error err;

    pthread_mutex_lock(&process->mutex);
    process->deaf = true;
    lk_loop_unpost(process->loop, &process->note_event);
    pthread_mutex_unlock(&process->mutex);
    if (lk_loop_unpost(process->loop, &process->done_event))
        lk_exec_release(process); /* never the last: the set has one */
    lk_loop_disarm(process->loop, &process->limit);
    lk_loop_disarm(process->loop, &process->grace);
    lk_loop_disarm(process->loop, &process->remind);
    lk_loop_unwatch(process->loop, &process->exit);
    lk_exec_close_watch(process, &process->input_hold);
    if (process->input != NULL) {
        lk_stream_cancel(process->input);
        lk_stream_unref(process->input);
        process->input = NULL;
    }
    lk_error_set(&err, LK_CANCELLED, "program '%s' was stopped: its runtime is closing",
                 process->name);
    for (int i = 0; i < 2; i++) {
        struct lk_exec_output *output = &process->output[i];
        lk_exec_close_watch(process, &output->watch);
        if (output->stream == NULL)
            continue;
        lk_stream_end(output->stream, &err);
        lk_stream_cancel(output->stream);
        lk_stream_unref(output->stream);
        output->stream = NULL;
    }
}

/* Waits for the exit of one; true if it has come. */
static bool await_exit(const struct lk_process *process, uint64_t deadline_ns)
{
    struct pollfd fd = {.fd = process->exit.fd, .events = POLLIN};
    int rc;

    do {
        uint64_t now = lk_now_ns();
        rc = poll(&fd, 1, now < deadline_ns ? (int)((deadline_ns - now) / 1000000u) + 1 : 0);
    } while (rc < 0 && errno == EINTR);
    return rc > 0;
}

static void bury(struct lk_process *process)
{
    siginfo_t info;

    lk_exec_signal(process, SIGKILL);
    await_exit(process, lk_now_ns() + (uint64_t)DEATH_MS * 1000000u);
    while (waitid(P_PIDFD, (id_t)process->exit.fd, &info, WEXITED | WNOHANG) != 0 && errno == EINTR)
        ;
    process->reaped = true;
    lk_exec_close_watch(process, &process->exit);
}

void lk_exec_abandon(struct lk_process *process)
{
    cut_off(process);
    if (process->exit.fd >= 0)
        bury(process);
    lk_exec_leave(process);
}

void lk_exec_free(struct lk_exec *exec)
{
    uint64_t deadline = lk_now_ns() + (uint64_t)FREE_MS * 1000000u;

    if (exec == NULL)
        return;
    for (struct lk_process *p = exec->first; p != NULL; p = p->next) {
        cut_off(p);
        if (p->exit.fd >= 0 && !p->known) {
            lk_exec_signal(p, SIGTERM);
            lk_exec_signal(p, SIGCONT);
        }
    }
    for (struct lk_process *p = exec->first; p != NULL; p = p->next) {
        if (p->exit.fd >= 0)
            await_exit(p, deadline);
    }
    while (exec->first != NULL)
        lk_exec_abandon(exec->first);
    free(exec);
}
