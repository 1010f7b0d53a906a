/* SPDX-License-Identifier: MIT
 * exec_end.c - how a program ends: its status, its streams, its deadlines, TERM and KILL, and the
 * words for it. Owns nothing of its own. Loop thread only.
 *
 * A process has ended when its status is known (pidfd), no writer is left at its output (end of
 * file where it is read on the loop, a hang-up seen on a second descriptor where a stage reads it)
 * and its input is done with. It is reaped only then: as long as it is a zombie its number can't be
 * given to another group, so a signal can't hit a stranger. A stream ends, whole or failed, when in
 * addition all has been read from the pipe. */
#include "exec_internal.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#define CLOSE_MS 1000 /* what keeps a pipe open this long after KILL is not in the group */
#define DRAIN_MS 5000 /* what holds a pipe open this long after the exit is ended */

/* --- the end --- */

static const char *signal_name(int number)
{
    const char *name = sigabbrev_np(number);
    return name != NULL ? name : "unknown";
}

bool lk_process_lost(const struct lk_process *process, struct lk_error *err)
{
    if (process->lost && err != NULL)
        *err = process->lost_error;
    return process->lost;
}

static bool code_is_ok(const struct lk_process *process)
{
    for (size_t i = 0; i < process->ok_count; i++) {
        if (process->ok[i] == process->result.code)
            return true;
    }
    return process->ok_count == 0 && process->result.code == 0;
}

/* Adds the last lines of stderr, where they were kept. */
static int with_words(struct lk_process *process, struct lk_error *err)
{
    struct lk_exec_output *from = &process->output[process->words ? ERR : OUT];
    char words[512];
    size_t len, used;

    if (err == NULL || (!process->words && process->output[ERR].mode != LK_EXEC_STDOUT))
        return -1;
    const char *text = lk_tail_text(&from->tail, &len);
    lk_last_lines(text, len, 3, words, sizeof words);
    used = strlen(err->message);
    if (words[0] != '\0')
        snprintf(err->message + used, sizeof err->message - used, ": %s", words);
    return -1;
}

static int signalled(struct lk_process *process, struct lk_error *err)
{
    const struct lk_exec_result *result = &process->result;
    lk_error_set(err, LK_EXIT, "program '%s' was killed by signal %d (SIG%s)", process->name,
                 result->signal, signal_name(result->signal));
    if (result->signal == SIGKILL && process->ending == RUNNING)
        lk_error_hint(err, "the kernel does that when memory runs out: see its log and the "
                           "memory limit of the container");
    return with_words(process, err);
}

int lk_process_status(struct lk_process *process, struct lk_error *err)
{
    const struct lk_exec_result *result = &process->result;

    if (process->lost)
        lk_process_lost(process, err);
    else if (process->input_failed)
        lk_error_set(err, process->input_error.kind, "program '%s': its input failed: %.800s",
                     process->name, process->input_error.message);
    else if (result->timed_out) {
        lk_error_set(err, LK_TIMEOUT,
                     "program '%s' ran longer than its timeout and was ended after %.1f s",
                     process->name, result->seconds);
        with_words(process, err);
    } else if (result->stopped)
        lk_error_set(err, LK_CANCELLED, "program '%s' was stopped after %.1f s", process->name,
                     result->seconds);
    else if (result->signal != 0)
        signalled(process, err);
    else if (!code_is_ok(process)) {
        lk_error_set(err, LK_EXIT, "program '%s' exited with code %d", process->name, result->code);
        with_words(process, err);
        if (err != NULL)
            err->code = result->code;
    } else if (result->left_open) {
        lk_error_set(
            err, LK_EXIT,
            "program '%s' exited with code %d, but left a process behind that kept its pipes open",
            process->name, result->code);
        lk_error_hint(
            err,
            "start what is to stay with its own input and output, such as </dev/null >LOG 2>&1");
    } else
        return 0;
    return -1;
}

/* Ends the stream of an output that was read to its end. */
static void end_stream(struct lk_exec_output *output)
{
    struct lk_process *process = output->process;
    struct lk_stream *stream = output->stream;
    struct lk_error err;
    bool failed = false;

    output->stream = NULL;
    if (output == &process->output[OUT]) {
        failed = lk_process_status(process, &err) != 0;
        if (!failed && !process->allow_empty && lk_stream_bytes(stream) == 0) {
            lk_error_set(&err, LK_EXIT, "program '%s' exited with code %d, but printed nothing",
                         process->name, process->result.code);
            failed = with_words(process, &err) != 0;
        }
    } else {
        failed = lk_process_lost(process, &err);
    }
    lk_stream_end(stream, failed ? &err : NULL);
    lk_stream_unref(stream);
}

void lk_exec_run_done(struct lk_event *event)
{
    struct lk_process *process =
        (struct lk_process *)((char *)event - offsetof(struct lk_process, done_event));
    void (*done)(void *) = process->done;

    process->done = NULL;
    if (done != NULL)
        done(process->done_arg);
    lk_exec_release(process);
}

void lk_exec_tell_done(struct lk_process *process)
{
    if (process->done == NULL || process->done_event.queued)
        return;
    lk_exec_hold(process);
    lk_loop_post(process->loop, &process->done_event);
}

void lk_exec_signal(const struct lk_process *process, int number)
{
    if (!process->reaped) /* by somebody else: the number may be a stranger's by now */
        kill(-process->pid, number);
}

static void exited_late(struct lk_watch *watch, uint32_t events)
{
    struct lk_process *process = watch->arg;
    siginfo_t info;

    (void)events;
    while (waitid(P_PIDFD, (id_t)watch->fd, &info, WEXITED | WNOHANG) != 0 && errno == EINTR)
        ;
    lk_exec_close_watch(process, watch);
    lk_exec_advance(process);
}

static void reap(struct lk_process *process)
{
    siginfo_t info;

    if (process->ending != RUNNING) /* what did not listen to TERM while the program itself did */
        lk_exec_signal(process, SIGKILL);
    memset(&info, 0, sizeof info);
    while (waitid(P_PIDFD, (id_t)process->exit.fd, &info, WEXITED | WNOHANG) != 0) {
        if (errno != EINTR) {
            info.si_pid = process->pid;
            break;
        }
    }
    if (info.si_pid != 0) { /* else it was given up; exited_late comes when it dies after all */
        process->reaped = true;
        lk_exec_close_watch(process, &process->exit);
    }
}

static void settle(struct lk_process *process)
{
    process->settled = true;
    lk_loop_disarm(process->loop, &process->limit);
    lk_loop_disarm(process->loop, &process->grace);
    lk_loop_disarm(process->loop, &process->remind);
    lk_exec_close_watch(process, &process->input_hold);
    reap(process);
    lk_exec_tell_done(process);
}

void lk_exec_advance(struct lk_process *process)
{
    struct lk_exec_output *out = &process->output[OUT], *err = &process->output[ERR];
    bool left = false;

    if (!process->settled && process->known && !out->open && !err->open && !process->input_open)
        settle(process);
    if (!process->settled)
        return;
    for (int i = 0; i < 2; i++) {
        if (process->output[i].stream != NULL && !process->output[i].reading)
            end_stream(&process->output[i]);
        left = left || process->output[i].stream != NULL;
    }
    if (!left && process->exit.fd < 0)
        lk_exec_leave(process);
}

static int lose(struct lk_process *process, const char *why)
{
    process->known = process->lost = true;
    process->result.code = -1;
    return lk_error_set(&process->lost_error, LK_EXIT, "program '%s': %s", process->name, why);
}

static void read_status(struct lk_process *process, const siginfo_t *info)
{
    struct lk_exec_result *result = &process->result;

    process->known = true;
    result->code = info->si_code == CLD_EXITED ? info->si_status : -1;
    result->signal = info->si_code == CLD_EXITED ? 0 : info->si_status;
}

void lk_exec_exited(struct lk_watch *watch, uint32_t events)
{
    struct lk_process *process = watch->arg;
    siginfo_t info;

    (void)events;
    memset(&info, 0, sizeof info);
    if (waitid(P_PIDFD, (id_t)watch->fd, &info, WEXITED | WNOHANG | WNOWAIT) != 0) {
        if (errno == EINTR)
            return;
        process->reaped = errno == ECHILD;
        lose(process, process->reaped ? "exit status lost: the host ignores or reaps SIGCHLD"
                                      : "exit status lost");
        lk_error_hint(&process->lost_error, "the host must leave children that it did not start "
                                            "to their parent, and SIGCHLD at its default");
    } else if (info.si_pid == 0) {
        return;
    } else {
        read_status(process, &info);
    }
    process->result.seconds = (double)(lk_now_ns() - process->started_ns) / 1e9;
    lk_loop_unwatch(process->loop, watch);
    lk_loop_disarm(process->loop, &process->limit);
    lk_loop_disarm(process->loop, &process->remind);
    if (process->ending == RUNNING)
        lk_loop_arm(process->loop, &process->limit, DRAIN_MS, NULL);
    lk_exec_advance(process);
}

/* The timeout of a program that runs, or of the pipes of one that has exited. */
void lk_exec_limit_passed(struct lk_timer *timer)
{
    struct lk_process *process = timer->arg;
    if (process->known)
        process->result.left_open = true;
    else
        process->result.timed_out = true;
    bool stopped = process->result.stopped;
    lk_process_end(process);
    process->result.stopped = stopped;
}

/* KILL was no help: what still has the pipes left the group, or the program is stuck in the kernel.
 */
static void give_up(struct lk_process *process)
{
    struct lk_error err;

    process->ending = GIVEN_UP;
    if (!process->known) {
        process->result.seconds = (double)(lk_now_ns() - process->started_ns) / 1e9;
        lose(process, "it could not be ended, even by SIGKILL");
    }
    process->exit.ready = exited_late;
    process->result.left_open = true;
    lk_process_status(process, &err);
    if (process->input != NULL)
        lk_stream_cancel(process->input);
    for (int i = 0; i < 2; i++) {
        struct lk_exec_output *output = &process->output[i];
        if (output->stream != NULL && output->open) {
            lk_stream_end(output->stream, &err);
            lk_stream_cancel(output->stream); /* the stage waits in the pipe */
        }
        lk_exec_end_output(output);
    }
    lk_exec_advance(process);
}

void lk_exec_grace_passed(struct lk_timer *timer)
{
    struct lk_process *process = timer->arg;

    if (process->ending == KILLING) {
        give_up(process);
        return;
    }
    process->ending = KILLING;
    lk_exec_signal(process, SIGKILL);
    lk_loop_arm(process->loop, &process->grace, process->known ? CLOSE_MS : DEATH_MS, NULL);
}

void lk_exec_remind(struct lk_timer *timer)
{
    struct lk_process *process = timer->arg;
    unsigned long long seconds = (lk_now_ns() - process->started_ns) / 1000000000u;

    if (process->exec == NULL)
        return;
    if (process->exec->log != NULL)
        lk_log_write(process->exec->log, LK_INFO,
                     &(struct lk_field){.name = "item", .value = process->item}, 1,
                     "still waiting for %s (%llu s)", process->name, seconds);
    lk_loop_arm(process->loop, timer, process->remind_ms, NULL);
}

void lk_process_end(struct lk_process *process)
{
    if (process->settled || process->ending != RUNNING || process->exec == NULL)
        return;
    if (!process->known)
        process->result.stopped = true;
    process->ending = TERMINATING;
    lk_loop_disarm(process->loop, &process->limit);
    lk_exec_signal(process, SIGTERM);
    lk_exec_signal(process, SIGCONT); /* a stopped one would not see it */
    lk_loop_arm(process->loop, &process->grace, process->grace_ms, NULL);
}

int lk_process_kill(struct lk_process *process, int number, struct lk_error *err)
{
    if (process->known || process->exec == NULL)
        return lk_error_set(err, LK_NOT_FOUND, "program '%s' has ended", process->name);
    if (kill(-process->pid, number) != 0)
        return lk_error_errno(err, errno, "program '%s': signal %d", process->name, number);
    return 0;
}
