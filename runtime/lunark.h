/* SPDX-License-Identifier: MIT
 * lunark.h - the public interface: run Lua scripts that back things up, inside a program of yours.
 *
 * A runtime belongs to one thread at a time; several runtimes may live in several threads. The
 * library never writes to standard output, exits, handles signals, or changes environment,
 * directory or umask. One exception: a Lua module of the system (lua-cjson) may end the process
 * when there is no memory left. Functions that return int give 0 for success and -1 for failure
 * with *error filled (which may be NULL), unless they say otherwise. See docs/embedding.md. */
#ifndef LUNARK_H
#define LUNARK_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LUNARK_API __attribute__((visibility("default")))

struct lunark;    /* a runtime */
struct lua_State; /* of Lua 5.4; only for lunark_add_module */

struct lunark_error {
    char kind[16]; /* usage denied not_found conflict auth throttled timeout network exit io corrupt
                      cancelled memory */
    int code;      /* errno, exit status or libcurl code; 0 if none */
    int status;    /* HTTP status; 0 if none */
    char message[1024];
    char hint[320]; /* what to do; may be empty */
};

enum lunark_level { LUNARK_DEBUG, LUNARK_INFO, LUNARK_WARN, LUNARK_ERROR };

enum lunark_flags {
    LUNARK_FULL_LUA =
        1, /* scripts get Lua's whole library (io, os, debug ...): only for scripts you trust */
    LUNARK_PRINT = 2 /* print writes to standard output; without it, to the log */
};

/* Zero it, set size, then what you want to change. */
struct lunark_options {
    size_t size;       /* sizeof(struct lunark_options) */
    size_t memory;     /* bytes for backup data in flight; 0 = 40 MiB */
    size_t lua_memory; /* bytes for Lua; 0 = no limit */
    int jobs;          /* threads that compress; 0 = the CPUs this process may use */
    unsigned flags;
    const char *const
        *script_dirs; /* NULL-terminated; searched before the embedded scripts. NULL = none */
};

/* The version of the library, "0.1.0". */
LUNARK_API const char *lunark_version(void);

/* options may be NULL. NULL on failure. */
LUNARK_API struct lunark *lunark_new(const struct lunark_options *options,
                                     struct lunark_error *error);
/* Cancels what runs, lets it clean up (at most 20 s, then by force) and frees everything. NULL is
 * allowed. */
LUNARK_API void lunark_free(struct lunark *runtime);

/* Grants scripts a capability: kind is exec, net, read, write, env or posix; value a program, host,
 * path prefix or name,
 * "*" = all. Nothing is granted at first. */
LUNARK_API int lunark_allow(struct lunark *runtime, const char *kind, const char *value,
                            struct lunark_error *error);
/* Makes `require(name)` in scripts call open (which returns 1 and leaves the module on the stack).
 */
LUNARK_API int lunark_add_module(struct lunark *runtime, const char *name,
                                 int (*open)(struct lua_State *L), struct lunark_error *error);

/* Log lines, already cleared of secrets: the message, and the whole record as JSON. fn may be
 * called from any thread, and must not call back into the library. NULL = none. */
LUNARK_API void lunark_on_log(struct lunark *runtime,
                              void (*fn)(void *arg, enum lunark_level level, const char *message,
                                         const char *json),
                              void *arg);
/* Progress records as JSON objects, on the thread that runs the script. */
LUNARK_API void lunark_on_progress(struct lunark *runtime, void (*fn)(void *arg, const char *json),
                                   void *arg);

/* Runs a script to its end, with args (NULL-terminated, or NULL) as its `...`. What it raises, or
 * `nil, err` that it returns, becomes *error. Tasks it leaves behind are cancelled. One script at a
 * time. */
LUNARK_API int lunark_run_file(struct lunark *runtime, const char *path, const char *const *args,
                               struct lunark_error *error);
/* name appears in messages. */
LUNARK_API int lunark_run_string(struct lunark *runtime, const char *name, const char *source,
                                 const char *const *args, struct lunark_error *error);
/* The first value that the last script returned, as text; NULL if it was nil or failed. Valid until
 * the next run. */
LUNARK_API const char *lunark_result(const struct lunark *runtime);

/* For a program with an event loop of its own: start a script, poll lunark_fd for reading, call
 * lunark_step(runtime, 0) when it is readable, and lunark_finish once that has returned 0. */
LUNARK_API int lunark_start_file(struct lunark *runtime, const char *path, const char *const *args,
                                 struct lunark_error *error);
LUNARK_API int lunark_start_string(struct lunark *runtime, const char *name, const char *source,
                                   const char *const *args, struct lunark_error *error);
LUNARK_API int lunark_fd(const struct lunark *runtime);
/* Does what is due, waiting at most timeout_ms for it (-1 = for ever). 1 = the script runs, 0 = it
 * has ended, -1. */
LUNARK_API int lunark_step(struct lunark *runtime, int timeout_ms, struct lunark_error *error);
/* The outcome of a script that has ended, as lunark_run_file would have given it. */
LUNARK_API int lunark_finish(struct lunark *runtime, struct lunark_error *error);

/* Cancels the running script, or the next one if none runs: its operations stop, its cleanup runs.
 * A second call cuts the cleanup short. Any thread, and signal handlers. */
LUNARK_API void lunark_cancel(struct lunark *runtime);

#ifdef __cplusplus
}
#endif

#endif
