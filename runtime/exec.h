/* SPDX-License-Identifier: MIT
 * exec.h - run programs with their pipes on the event loop: input, output, deadlines, and how they
 * ended. Loop thread only. */
#ifndef LK_EXEC_H
#define LK_EXEC_H

#include "caps.h"
#include "log.h"
#include "stream.h"
#include <sys/types.h>

/* The programs of one runtime: what is running, and what must still be reaped. */
struct lk_exec;
/* One program. */
struct lk_process;

struct lk_exec *lk_exec_new(struct lk_loop *loop, struct lk_pool *pool, struct lk_log *log,
                            struct lk_error *err);
/* Ends every program that is left (TERM to all groups, KILL after at most two seconds), reaps them,
 * and cancels their streams. No callback comes any more. Handles stay valid and must still be given
 * back. */
void lk_exec_free(struct lk_exec *exec);
/* Programs not yet reaped or whose output is not yet read to the end. */
size_t lk_exec_live(const struct lk_exec *exec);

enum lk_exec_io {
    LK_EXEC_NULL,    /* /dev/null */
    LK_EXEC_INHERIT, /* this process's own */
    LK_EXEC_STREAM,
    LK_EXEC_BYTES,   /* input: the bytes given */
    LK_EXEC_CAPTURE, /* output: its end is kept, at most capture_max bytes */
    LK_EXEC_LOG,     /* output: each line is logged as it comes */
    LK_EXEC_STDOUT,  /* stderr: where stdout goes */
};

struct lk_exec_options {
    const char *const *argv; /* NULL-terminated; argv[0] is a name to be found in PATH, or a path */
    const char *const *env;  /* changes, "NAME=value" to set and "NAME" to remove */
    size_t env_count;
    bool clean_env; /* nothing is inherited */
    const char *cwd, *user, *group;
    enum lk_exec_io input, output, errors;
    const void *bytes; /* of LK_EXEC_BYTES; copied */
    size_t byte_count;
    struct lk_stream *stream; /* of LK_EXEC_STREAM; taken over in every case. If it fails, the
                                 program is ended before it sees the end of its input */
    size_t capture_max;       /* bytes; 0 = 1 MiB */
    size_t log_max;           /* bytes that LK_EXEC_LOG keeps for lk_process_captured; 0 = none */
    size_t chunk_size;        /* of output streams; 0 = 1 MiB */
    uint64_t timeout_ms;      /* 0 = none */
    uint64_t grace_ms;        /* between TERM and KILL */
    uint64_t remind_ms;       /* "still waiting for" is logged this often; 0 = 30 s */
    bool allow_empty;         /* an output stream without a byte is no failure */
    const int *ok;            /* exit codes that are success; NULL = 0 only */
    size_t ok_count;
    const char *log_prefix; /* of logged lines; NULL = the name of the program */
    const char *log_item;   /* their field `item`; NULL = none */
};

struct lk_exec_result {
    int code;       /* exit code; -1 when a signal ended it or nothing is known */
    int signal;     /* 0, or what ended it */
    bool timed_out; /* the timeout passed, and it was ended */
    bool stopped;   /* lk_process_end was called */
    bool left_open; /* it has exited, but something it left behind kept its pipes open for 5 s and
                       was ended */
    double seconds;
};

/* caps NULL = no check. NULL with *err set if it can't be started: not_found, denied, io. */
struct lk_process *lk_process_start(struct lk_exec *exec, struct lk_caps *caps,
                                    const struct lk_exec_options *options, struct lk_error *err);
pid_t lk_process_pid(const struct lk_process *process);
/* The consumer's reference to an output stream, once; then and for other modes NULL. Cancelling it
 * ends the program. */
struct lk_stream *lk_process_stdout(struct lk_process *process);
struct lk_stream *lk_process_stderr(struct lk_process *process);

/* Calls done(arg) once from the loop when the program has ended, nothing writes to its pipes any
 * more and captured output is complete; streamed output may still wait to be read. NULL takes it
 * back. Set after the end, it is called at the next turn of the loop. */
void lk_process_on_done(struct lk_process *process, void (*done)(void *arg), void *arg);
/* NULL before that. */
const struct lk_exec_result *lk_process_result(const struct lk_process *process);
/* 0 if it ended as it should; else -1 and why not, with its last words. Only after the end. */
int lk_process_status(struct lk_process *process, struct lk_error *err);
/* True if nobody will ever know how it ended: *err says why. Only after the end. */
bool lk_process_lost(const struct lk_process *process, struct lk_error *err);
/* What LK_EXEC_CAPTURE, or LK_EXEC_LOG with log_max, kept, NUL-terminated; else NULL. Only after
 * the end. */
const char *lk_process_captured(struct lk_process *process, bool errors, size_t *len,
                                bool *truncated);

/* Sends a signal to the group of a program that has not ended; LK_NOT_FOUND after the end. */
int lk_process_kill(struct lk_process *process, int number, struct lk_error *err);
/* TERM to the group, KILL after the grace, KILL to what is left of the group when the program has
 * ended. */
void lk_process_end(struct lk_process *process);
/* Gives the handle back. A program that runs is ended and reaped, unless somebody still reads an
 * output stream of it: then it goes on for that stream. */
void lk_process_unref(struct lk_process *process);

#endif
