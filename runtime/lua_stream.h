/* SPDX-License-Identifier: MIT
 * lua_stream.h - what the bindings of streams, parts and files share. Loop thread only. */
#ifndef LK_LUA_STREAM_H
#define LK_LUA_STREAM_H

#include "buf.h"
#include "crypto.h"
#include "file.h"
#include "gzip.h"
#include "lua_task.h"
#include "stream.h"

#define LK_STREAM_CLASS "lunark.stream"
#define LK_FILE_CLASS "lunark.file"

struct lk_read_op;

/* A Stream. The pointer comes first: it is what lk_push_stream_box gives. */
struct lk_stream_box {
    struct lk_stream *stream; /* NULL: moved, read by somebody, or closed */
    struct lk_read_op *reading;
    const char *gone; /* what happened to it, for the message */
    bool ended;       /* the rest is valid: a method of the stream itself has read it to its end */
    enum lk_end end;
    uint64_t bytes, raw_bytes;
};

/* level, engine, index and jobs from the table at index; their defaults where there is none. */
void lk_read_gzip_options(lua_State *L, int index, const char *function,
                          struct lk_gzip_options *options);

/* The box at 1, raising for what is no stream or, unless ended ones are allowed, is none any more.
 */
struct lk_stream_box *lk_check_stream(lua_State *L, const char *function, bool ended);

/* Work on a stage thread that a task waits for. In userdata, first. */
struct lk_stage_op {
    struct lk_op op;
    struct lk_event event;
    struct lk_loop *loop;                      /* for the stage thread, which does not look at op */
    void (*work)(struct lk_stage_op *stage);   /* stage thread: sets rc and err */
    void (*finish)(struct lk_stage_op *stage); /* loop thread, once, when it is over; may be NULL */
    bool running;                              /* the stage thread has it */
    int rc;
    struct lk_error err;
};

/* Starts the work and parks; index = the slot of the userdata. op.cancel and op.results are set by
 * the caller. */
int lk_stage_park(lua_State *L, int index, struct lk_stage_op *stage);
/* A cancel function for work that can't be stopped, and is waited for. */
void lk_stage_wait(struct lk_op *op);

/* lua_sink.c: discard, hash, to_file and to_stdout, methods of a Stream. */
int lk_sink_discard(lua_State *L);
int lk_sink_hash(lua_State *L);
int lk_sink_to_file(lua_State *L);
int lk_sink_to_stdout(lua_State *L);
void lk_open_sinks(lua_State *L);
/* Reads a list of digest names at index into a bit set. */
unsigned lk_check_digests(lua_State *L, int index, const char *function);
/* Pushes {name = hex} for the digests of the set. */
void lk_push_digests(lua_State *L, unsigned set, const unsigned char digests[][LK_DIGEST_MAX]);

/* lua_pipe.c: a function of the module. */
int lk_stream_pipe(lua_State *L);
void lk_open_pipe(lua_State *L);

/* lua_parts.c */
int lk_stream_parts(lua_State *L);
void lk_open_parts(lua_State *L);

/* lua_gather.c */
int lk_stream_gather(lua_State *L);
void lk_open_gather(lua_State *L);

/* The string at index, a path: no NUL inside. */
const char *lk_check_path(lua_State *L, int index, const char *function);
/* lua_file.c: the File at index; raises if it is none or closed. No reference is taken. */
struct lk_file *lk_check_file(lua_State *L, int index, const char *function);

#endif
