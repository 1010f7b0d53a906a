/* SPDX-License-Identifier: MIT
 * exec_internal.h - a program as exec.c, exec_start.c and exec_end.c share it. Loop thread only. */
#ifndef LK_EXEC_INTERNAL_H
#define LK_EXEC_INTERNAL_H

#include "exec.h"

#include "lines.h"
#include <pthread.h>

#define DEATH_MS 5000 /* what lives this long after KILL is given up */

enum { OUT, ERR }; /* index of an output */

/* What stage threads report. */
enum note { NOTE_EOF_OUT = 1, NOTE_EOF_ERR = 2, NOTE_INPUT = 4, NOTE_CANCELLED = 8 };

enum ending { RUNNING, TERMINATING, KILLING, GIVEN_UP };

struct lk_exec_output {
    struct lk_process *process;
    enum lk_exec_io mode;
    struct lk_watch
        watch;    /* fd: the read end, or a second one that only hears of the hang-up; -1 */
    bool open;    /* something may still write */
    bool reading; /* a stage still reads */
    struct lk_stream *stream; /* until it was ended */
    struct lk_stream *handed; /* the consumer's reference, until it is fetched */
    struct lk_tail tail;
    bool kept;              /* the tail is handed out */
    struct lk_lines *lines; /* of LK_EXEC_LOG */
};

struct lk_process {
    struct lk_exec *exec;            /* NULL once the set is gone */
    struct lk_process *next, **link; /* in the set */
    int refs;                        /* atomic: handle, set, stages */
    char *name, *prefix, *item;
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
    struct lk_exec_output output[2];
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

/* --- exec.c --- */
void lk_exec_hold(struct lk_process *process);
/* The last one frees memory and nothing else: descriptors and streams are given back on the loop
 * thread before. */
void lk_exec_release(struct lk_process *process);
void lk_exec_close_watch(struct lk_process *process, struct lk_watch *watch);
/* Gives back the reference of the set. */
void lk_exec_leave(struct lk_process *process);
/* Ends it now, without its streams and callbacks, and takes it out of the set. */
void lk_exec_abandon(struct lk_process *process);
/* Callbacks of stage threads. */
void lk_exec_stage_eof(void *arg);
void lk_exec_stage_cancelled(void *arg);
void lk_exec_stage_input(void *arg, const struct lk_error *err, uint64_t bytes);
/* Callbacks of the loop. */
void lk_exec_read_notes(struct lk_event *event);
void lk_exec_output_readable(struct lk_watch *watch, uint32_t events);
void lk_exec_output_hung_up(struct lk_watch *watch, uint32_t events);
void lk_exec_input_hung_up(struct lk_watch *watch, uint32_t events);
void lk_exec_log_line(void *arg, const char *text);
void lk_exec_end_output(struct lk_exec_output *output);

/* --- exec_end.c --- */
/* Goes on with whatever has become possible. May give back the set's reference. */
void lk_exec_advance(struct lk_process *process);
void lk_exec_signal(const struct lk_process *process, int number);
void lk_exec_tell_done(struct lk_process *process);
/* Callbacks of the loop. */
void lk_exec_run_done(struct lk_event *event);
void lk_exec_exited(struct lk_watch *watch, uint32_t events);
void lk_exec_limit_passed(struct lk_timer *timer);
void lk_exec_grace_passed(struct lk_timer *timer);
void lk_exec_remind(struct lk_timer *timer);

#endif
