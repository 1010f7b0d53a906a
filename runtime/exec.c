/* SPDX-License-Identifier: MIT
 * exec.c - run programs with their pipes on the event loop.
 * Owns the processes, their pipes and timers. Never blocks, but for lk_exec_free; never installs a
 * signal handler; knows no Lua. Loop thread only; stage threads leave a note in the process and
 * wake the loop.
 *
 * A process has ended when its status is known (pidfd), no writer is left at its output (end of
 * file where it is read here, a hang-up seen on a second descriptor where a stage reads it) and its
 * input is done with. It is reaped only then: as long as it is a zombie its number can't be given
 * to another group, so a signal can't hit a stranger. A stream ends, whole or failed, when in
 * addition all has been read from the pipe. */
#include "exec.h"

#include "lines.h"
#include "spawn.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

#define DRAIN_MS 5000 /* what holds a pipe open this long after the exit is ended */
#define DEATH_MS 5000 /* what lives this long after KILL is given up */
#define FREE_MS 2000  /* grace when the runtime goes */
#define REMIND_MS 30000
#define CAPTURE_MAX ((size_t)1 << 20)
#define CHUNK_SIZE ((size_t)1 << 20)
#define WORDS_MAX ((size_t)4 << 10) /* of logged stderr, kept for the error */
#define READ_SIZE 65536
#define PIPE_SIZE (256 << 10)
#define SMALL_INPUT 4096 /* fits into an empty pipe whatever its size */

enum { OUT, ERR }; /* index of an output */

enum note { /* what stage threads report */
            NOTE_EOF_OUT = 1,
            NOTE_EOF_ERR = 2,
            NOTE_INPUT = 4,
            NOTE_CANCELLED = 8
};

enum ending { RUNNING, TERMINATING, KILLING, GIVEN_UP };

struct output {
    struct lk_process *process;
    enum lk_exec_io mode;
    struct lk_watch
        watch;    /* fd: the read end, or a second one that only hears of the hang-up; -1 */
    bool open;    /* something may still write */
    bool reading; /* a stage still reads */
    struct lk_stream *stream; /* until it was ended */
    struct lk_stream *handed; /* the consumer's reference, until it is fetched */
    struct lk_tail tail;
    struct lk_lines *lines; /* of LK_EXEC_LOG */
};

struct lk_process {
    struct lk_exec *exec;            /* NULL once the set is gone */
    struct lk_process *next, **link; /* in the set */
    int refs;                        /* atomic: handle, set, stages */
    char *name, *prefix;
    pid_t pid;
    uint64_t started_ns;
    struct lk_watch exit; /* fd: the pidfd */
    struct lk_timer limit, grace, remind;
    uint64_t grace_ms, remind_ms;
    enum ending ending;
    bool known, lost, reaped, settled, allow_empty, words;
    struct lk_error lost_error;
    struct lk_exec_result result;
    int *ok;
    size_t ok_count;
    struct output output[2];
    struct lk_stream *input; /* while a stage writes it */
    struct lk_watch
        input_hold; /* fd: a second write end, so that the end of input is ours to say */
    bool input_open, input_failed;
    struct lk_error input_error;
    void (*done)(void *arg);
    void *done_arg;
    struct lk_event done_event;
    pthread_mutex_t mutex; /* of the notes */
    unsigned notes;
    bool deaf; /* the loop is not to be woken any more */
    struct lk_loop *loop;
    struct lk_event note_event;
};

struct lk_exec {
    struct lk_loop *loop;
    struct lk_pool *pool;
    struct lk_log *log;
    struct lk_process *first;
    size_t live;
};

static void advance(struct lk_process *process);

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

static void hold(struct lk_process *process)
{
    __atomic_add_fetch(&process->refs, 1, __ATOMIC_RELAXED);
}

/* The last one frees memory and nothing else: descriptors and streams are given back on the loop
 * thread before. */
static void release(struct lk_process *process)
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
    free(process->ok);
    free(process);
}

static void close_watch(struct lk_process *process, struct lk_watch *watch)
{
    lk_loop_unwatch(process->loop, watch);
    if (watch->fd >= 0)
        close(watch->fd);
    watch->fd = -1;
}

static void leave_set(struct lk_process *process)
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
    release(process);
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

static void stage_eof(void *arg)
{
    struct output *output = arg;
    struct lk_process *process = output->process;
    note(process, output == &process->output[OUT] ? NOTE_EOF_OUT : NOTE_EOF_ERR);
    release(process);
}

static void stage_cancelled(void *arg)
{
    struct output *output = arg;
    note(output->process, NOTE_CANCELLED);
}

static void stage_input(void *arg, const struct lk_error *err, uint64_t bytes)
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
    release(process);
}

static void read_notes(struct lk_event *event)
{
    struct lk_process *process =
        (struct lk_process *)((char *)event - offsetof(struct lk_process, note_event));
    bool failed;

    pthread_mutex_lock(&process->mutex);
    unsigned notes = process->notes;
    process->notes = 0;
    failed = process->input_failed;
    pthread_mutex_unlock(&process->mutex);

    hold(process);
    for (int i = 0; i < 2; i++) {
        if ((notes & (i == OUT ? NOTE_EOF_OUT : NOTE_EOF_ERR)) != 0) {
            process->output[i].reading = false;
            process->output[i].open = false;
            close_watch(process, &process->output[i].watch);
        }
    }
    if ((notes & NOTE_INPUT) != 0) {
        lk_stream_unref(process->input);
        process->input = NULL;
        process->input_open = false;
        if (failed) /* ended first: seeing the end of its input it would take half of it for all */
            lk_process_end(process);
        else
            close_watch(process, &process->input_hold);
    }
    if ((notes & NOTE_CANCELLED) != 0)
        lk_process_end(process);
    advance(process);
    release(process);
}

/* --- output --- */

static void log_line(void *arg, const char *text)
{
    struct lk_process *process = arg;
    if (process->exec != NULL && process->exec->log != NULL)
        lk_log_write(process->exec->log, LK_INFO, NULL, 0, "%s%s%s", process->prefix,
                     process->prefix[0] != '\0' ? ": " : "", text);
}

static void end_output(struct output *output)
{
    close_watch(output->process, &output->watch);
    output->open = false;
    if (output->lines != NULL)
        lk_lines_end(output->lines);
}

static void output_readable(struct lk_watch *watch, uint32_t events)
{
    struct output *output = watch->arg;
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
    end_output(output);
    advance(output->process);
}

/* Nobody has the pipe open for writing any more; what is in it is the stage's to read. */
static void output_hung_up(struct lk_watch *watch, uint32_t events)
{
    struct output *output = watch->arg;
    (void)events;
    close_watch(output->process, watch);
    output->open = false;
    advance(output->process);
}

/* Nobody has the input open for reading any more: its source has no reason to go on. */
static void input_hung_up(struct lk_watch *watch, uint32_t events)
{
    struct lk_process *process = watch->arg;
    (void)events;
    close_watch(process, watch);
    if (process->input != NULL)
        lk_stream_cancel(process->input);
    advance(process);
}

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
    struct output *from = &process->output[process->words ? ERR : OUT];
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
static void end_stream(struct output *output)
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

static void run_done(struct lk_event *event)
{
    struct lk_process *process =
        (struct lk_process *)((char *)event - offsetof(struct lk_process, done_event));
    void (*done)(void *) = process->done;

    process->done = NULL;
    if (done != NULL)
        done(process->done_arg);
    release(process);
}

static void tell_done(struct lk_process *process)
{
    if (process->done == NULL || process->done_event.queued)
        return;
    hold(process);
    lk_loop_post(process->loop, &process->done_event);
}

static void signal_group(const struct lk_process *process, int number)
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
    close_watch(process, watch);
    advance(process);
}

static void reap(struct lk_process *process)
{
    siginfo_t info;

    if (process->ending != RUNNING) /* what did not listen to TERM while the program itself did */
        signal_group(process, SIGKILL);
    memset(&info, 0, sizeof info);
    while (waitid(P_PIDFD, (id_t)process->exit.fd, &info, WEXITED | WNOHANG) != 0) {
        if (errno != EINTR) {
            info.si_pid = process->pid;
            break;
        }
    }
    if (info.si_pid != 0) { /* else it was given up; exited_late comes when it dies after all */
        process->reaped = true;
        close_watch(process, &process->exit);
    }
}

static void settle(struct lk_process *process)
{
    process->settled = true;
    lk_loop_disarm(process->loop, &process->limit);
    lk_loop_disarm(process->loop, &process->grace);
    lk_loop_disarm(process->loop, &process->remind);
    close_watch(process, &process->input_hold);
    reap(process);
    tell_done(process);
}

/* Goes on with whatever has become possible. May give back the set's reference. */
static void advance(struct lk_process *process)
{
    struct output *out = &process->output[OUT], *err = &process->output[ERR];
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
        leave_set(process);
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

static void exited(struct lk_watch *watch, uint32_t events)
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
    advance(process);
}

/* The timeout of a program that runs, or of the pipes of one that has exited. */
static void limit_passed(struct lk_timer *timer)
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
        struct output *output = &process->output[i];
        if (output->stream != NULL && output->open) {
            lk_stream_end(output->stream, &err);
            lk_stream_cancel(output->stream); /* the stage waits in the pipe */
        }
        end_output(output);
    }
    advance(process);
}

static void grace_passed(struct lk_timer *timer)
{
    struct lk_process *process = timer->arg;

    if (process->ending == KILLING) {
        give_up(process);
        return;
    }
    process->ending = KILLING;
    signal_group(process, SIGKILL);
    lk_loop_arm(process->loop, &process->grace, DEATH_MS, NULL);
}

static void remind(struct lk_timer *timer)
{
    struct lk_process *process = timer->arg;
    unsigned long long seconds = (lk_now_ns() - process->started_ns) / 1000000000u;

    if (process->exec == NULL)
        return;
    if (process->exec->log != NULL)
        lk_log_write(process->exec->log, LK_INFO, NULL, 0, "still waiting for %s (%llu s)",
                     process->name, seconds);
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
    signal_group(process, SIGTERM);
    signal_group(process, SIGCONT); /* a stopped one would not see it */
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

/* --- start --- */

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

/* --- start, continued: what is attached to the loop once the program runs --- */

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
static int attach_output(struct output *output, int *fd, size_t chunk_size, struct lk_error *err)
{
    struct lk_process *process = output->process;
    int own = *fd;

    if (own < 0)
        return 0;
    if (output->mode != LK_EXEC_STREAM) {
        *fd = -1;
        output->open = true;
        fcntl(own, F_SETFL, O_NONBLOCK);
        return watch_fd(process, &output->watch, own, EPOLLIN, output_readable, output, err);
    }
    /* Without any event asked for, the loop still tells of a hang-up. */
    if (watch_fd(process, &output->watch, fcntl(own, F_DUPFD_CLOEXEC, 3), 0, output_hung_up, output,
                 err) != 0)
        return -1;
    *fd = -1;
    fcntl(own, F_SETPIPE_SZ, PIPE_SIZE); /* fewer switches; the default will do as well */
    hold(process);
    output->open = output->reading = true;
    output->handed = lk_stream_of_fd(process->exec->pool, own, chunk_size, stage_eof, output, err);
    if (output->handed == NULL) {
        output->reading = false;
        release(process);
        return -1;
    }
    output->stream = lk_stream_ref(output->handed);
    lk_stream_on_cancel(output->stream, stage_cancelled, output);
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
    if (watch_fd(process, &process->input_hold, fcntl(own, F_DUPFD_CLOEXEC, 3), 0, input_hung_up,
                 process, err) != 0)
        return -1;
    *fd = -1;
    *stream = NULL;
    hold(process);
    process->input = lk_stream_ref(input);
    process->input_open = true;
    if (lk_stream_to_fd(process->exec->pool, input, own, stage_input, process, err) != 0) {
        process->input_open = false;
        release(process);
        return -1;
    }
    return 0;
}

static int attach(struct lk_process *process, const struct lk_exec_options *options,
                  struct pipes *pipes, struct lk_stream **stream, int pidfd, struct lk_error *err)
{
    size_t chunk_size = options->chunk_size > 0 ? options->chunk_size : CHUNK_SIZE;

    if (watch_fd(process, &process->exit, pidfd, EPOLLIN, exited, process, err) != 0 ||
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

static int prepare_output(struct output *output, enum lk_exec_io mode, size_t capture_max)
{
    output->mode = mode;
    if (mode == LK_EXEC_CAPTURE)
        lk_tail_init(&output->tail, capture_max > 0 ? capture_max : CAPTURE_MAX);
    else if (mode == LK_EXEC_LOG)
        lk_tail_init(&output->tail, WORDS_MAX);
    if (mode != LK_EXEC_LOG)
        return 0;
    output->lines = calloc(1, sizeof *output->lines);
    if (output->lines == NULL)
        return -1;
    output->lines->line = log_line;
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
    process->limit = timer_for(process, limit_passed);
    process->grace = timer_for(process, grace_passed);
    process->remind = timer_for(process, remind);
    process->grace_ms = options->grace_ms;
    process->remind_ms = options->remind_ms > 0 ? options->remind_ms : REMIND_MS;
    process->allow_empty = options->allow_empty;
    process->words = options->errors == LK_EXEC_CAPTURE || options->errors == LK_EXEC_LOG;
    process->note_event.run = read_notes;
    process->done_event.run = run_done;
    pthread_mutex_init(&process->mutex, NULL);
    process->name = strdup(options->argv[0]);
    process->prefix = strdup(options->log_prefix != NULL ? options->log_prefix
                             : slash != NULL             ? slash + 1
                                                         : options->argv[0]);
    process->ok = calloc(options->ok_count + 1, sizeof *process->ok);
    bool ready = process->name != NULL && process->prefix != NULL && process->ok != NULL;
    if (ready && options->ok_count > 0)
        memcpy(process->ok, options->ok, options->ok_count * sizeof *process->ok);
    process->ok_count = options->ok_count;
    for (int i = 0; i < 2; i++) {
        process->output[i].process = process;
        process->output[i].watch.fd = -1;
        ready = prepare_output(&process->output[i], i == OUT ? options->output : options->errors,
                               options->capture_max) == 0 &&
                ready;
    }
    if (ready)
        return process;
    release(process);
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
    hold(process);
    process->link = &exec->first;
    process->next = exec->first;
    if (exec->first != NULL)
        exec->first->link = &process->next;
    exec->first = process;
    exec->live++;
}

static void abandon(struct lk_process *process);

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
        abandon(process);
done:
    close_pipes(&pipes);
    if (stream != NULL) {
        lk_stream_cancel(stream);
        lk_stream_unref(stream);
    }
    if (process != NULL && !running) {
        release(process);
        process = NULL;
    }
    return process;
}

/* --- the handle --- */

pid_t lk_process_pid(const struct lk_process *process)
{
    return process->pid;
}

static struct lk_stream *take_stream(struct output *output)
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
        release(process); /* never the last: the caller has one */
    if (process->settled && !process->deaf)
        tell_done(process);
}

const struct lk_exec_result *lk_process_result(const struct lk_process *process)
{
    return process->settled ? &process->result : NULL;
}

const char *lk_process_captured(struct lk_process *process, bool errors, size_t *len,
                                bool *truncated)
{
    struct output *output = &process->output[errors ? ERR : OUT];
    if (output->mode != LK_EXEC_CAPTURE)
        return NULL;
    *truncated = output->tail.truncated;
    return lk_tail_text(&output->tail, len);
}

void lk_process_unref(struct lk_process *process)
{
    bool wanted = false;

    lk_process_on_done(process, NULL, NULL);
    for (int i = 0; i < 2; i++) {
        struct output *output = &process->output[i];
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
    release(process);
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
        release(process); /* never the last: the set has one */
    lk_loop_disarm(process->loop, &process->limit);
    lk_loop_disarm(process->loop, &process->grace);
    lk_loop_disarm(process->loop, &process->remind);
    lk_loop_unwatch(process->loop, &process->exit);
    close_watch(process, &process->input_hold);
    if (process->input != NULL) {
        lk_stream_cancel(process->input);
        lk_stream_unref(process->input);
        process->input = NULL;
    }
    lk_error_set(&err, LK_CANCELLED, "program '%s' was stopped: its runtime is closing",
                 process->name);
    for (int i = 0; i < 2; i++) {
        struct output *output = &process->output[i];
        close_watch(process, &output->watch);
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

    signal_group(process, SIGKILL);
    await_exit(process, lk_now_ns() + (uint64_t)DEATH_MS * 1000000u);
    while (waitid(P_PIDFD, (id_t)process->exit.fd, &info, WEXITED | WNOHANG) != 0 && errno == EINTR)
        ;
    process->reaped = true;
    close_watch(process, &process->exit);
}

static void abandon(struct lk_process *process)
{
    cut_off(process);
    if (process->exit.fd >= 0)
        bury(process);
    leave_set(process);
}

void lk_exec_free(struct lk_exec *exec)
{
    uint64_t deadline = lk_now_ns() + (uint64_t)FREE_MS * 1000000u;

    if (exec == NULL)
        return;
    for (struct lk_process *p = exec->first; p != NULL; p = p->next) {
        cut_off(p);
        if (p->exit.fd >= 0 && !p->known) {
            signal_group(p, SIGTERM);
            signal_group(p, SIGCONT);
        }
    }
    for (struct lk_process *p = exec->first; p != NULL; p = p->next) {
        if (p->exit.fd >= 0)
            await_exit(p, deadline);
    }
    while (exec->first != NULL)
        abandon(exec->first);
    free(exec);
}
