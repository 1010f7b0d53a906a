/* SPDX-License-Identifier: MIT
 * lua_sink.c - what reads a stream to its end: discard, hash, to_file, to_stdout. And work on stage
 * threads that a task waits for. Owns the stream while it reads. The bytes never enter Lua. The
 * work runs on a stage thread, the rest on the loop. */
#include "lua_stream.h"

#include <lauxlib.h>
#include <string.h>
#include <unistd.h>

#define SINK_CLASS "lunark.stream.sink"

/* --- stage operations --- */

static void stage_over(struct lk_stage_op *stage)
{
    stage->running = false;
    if (stage->finish) {
        stage->finish(stage);
    }
    lk_op_done(&stage->op);
}

static void run_event(struct lk_event *event)
{
    stage_over((struct lk_stage_op *)((char *)event - offsetof(struct lk_stage_op, event)));
}

static void run_stage(void *arg)
{
    struct lk_stage_op *stage = arg;

    stage->work(stage);
    lk_loop_post(stage->loop, &stage->event);
}

int lk_stage_park(lua_State *L, int index, struct lk_stage_op *stage)
{
    struct lk_runtime *runtime = lk_runtime_of(L);

    stage->loop = runtime->loop;
    stage->event.run = run_event;
    stage->running = true;
    if (lk_pool_stage(runtime->pool, "work", run_stage, stage, &stage->err) < 0) {
        stage->rc = -1;
        stage_over(stage);
    }
    return lk_task_park(L, index, &stage->op);
}

void lk_stage_wait(struct lk_op *op)
{
    (void)op;
}

/* --- sinks --- */

struct sink {
    struct lk_stage_op stage;
    struct lk_stream_box *box; /* anchored by the user value */
    struct lk_stream *stream;
    struct lk_file *file;
    bool to_stdout;
    struct lk_hasher *hashers[LK_DIGEST_COUNT];
    unsigned set;
    unsigned char digests[LK_DIGEST_COUNT][LK_DIGEST_MAX];
    uint64_t bytes;
};

static int take_chunk(struct sink *sink, const struct lk_chunk *chunk, struct lk_error *err)
{
    uint64_t offset = sink->bytes;

    sink->bytes += chunk->len;
    for (int i = 0; i < LK_DIGEST_COUNT; i++) {
        if (sink->hashers[i]) {
            lk_hasher_update(sink->hashers[i], chunk->data, chunk->len);
        }
    }
    if (!sink->file) {
        return 0;
    }
    return lk_file_write(sink->file, chunk->data, chunk->len, sink->file->position + offset, err);
}

static void work(struct lk_stage_op *stage)
{
    struct sink *sink = (struct sink *)stage;
    struct lk_chunk *chunk;
    int rc;

    if (sink->to_stdout) {
        stage->rc = lk_stream_drain(sink->stream, STDOUT_FILENO, &sink->bytes, &stage->err);
        if (stage->rc < 0) {
            lk_stream_cancel(sink->stream);
        }
        return;
    }
    while ((rc = lk_stream_read(sink->stream, &chunk, &stage->err)) == LK_STREAM_DATA) {
        rc = take_chunk(sink, chunk, &stage->err);
        lk_chunk_unref(chunk);
        if (rc < 0) {
            lk_stream_cancel(sink->stream);
            break;
        }
    }
    stage->rc = rc;
}

static void release(struct sink *sink)
{
    for (int i = 0; i < LK_DIGEST_COUNT; i++) {
        lk_hasher_free(sink->hashers[i]);
        sink->hashers[i] = NULL;
    }
    lk_file_unref(sink->file);
    sink->file = NULL;
    lk_stream_unref(sink->stream);
    sink->stream = NULL;
}

static void finish(struct lk_stage_op *stage)
{
    struct sink *sink = (struct sink *)stage;
    struct lk_stream_box *box = sink->box;

    for (int i = 0; i < LK_DIGEST_COUNT; i++) {
        if (sink->hashers[i]) {
            lk_hasher_final(sink->hashers[i], sink->digests[i]);
        }
    }
    if (sink->file) {
        sink->file->position += sink->bytes;
    }
    box->ended = true;
    box->end = lk_stream_state(sink->stream);
    box->bytes = lk_stream_bytes(sink->stream);
    box->raw_bytes = lk_stream_raw_bytes(sink->stream);
    box->gone = "was read to its end";
    release(sink);
}

static void cancel(struct lk_op *op)
{
    struct sink *sink = (struct sink *)op;

    if (sink->stream) {
        lk_stream_cancel(sink->stream);
    }
}

/* While the stage runs, which is so only when the state of a plain Lua is closed, finish()
 * releases.
 */
static int sink_gc(lua_State *L)
{
    struct sink *sink = lua_touserdata(L, 1);

    if (sink->stream) {
        lk_stream_cancel(sink->stream);
    }
    if (!sink->stage.running) {
        release(sink);
    }
    return 0;
}

static int bytes_results(lua_State *L, struct lk_op *op)
{
    struct sink *sink = (struct sink *)op;

    if (sink->stage.rc < 0) {
        return lk_push_error(L, &sink->stage.err);
    }
    lua_pushinteger(L, (lua_Integer)sink->bytes);
    return 1;
}

void lk_push_digests(lua_State *L, unsigned set, const unsigned char digests[][LK_DIGEST_MAX])
{
    char hex[LK_DIGEST_MAX * 2 + 1];

    lua_newtable(L);
    for (int i = 0; i < LK_DIGEST_COUNT; i++) {
        if (set & 1u << i) {
            lk_hex(digests[i], lk_digest_size((enum lk_digest)i), hex);
            lua_pushstring(L, hex);
            lua_setfield(L, -2, lk_digest_name((enum lk_digest)i));
        }
    }
}

static int hash_results(lua_State *L, struct lk_op *op)
{
    struct sink *sink = (struct sink *)op;

    if (sink->stage.rc < 0) {
        return lk_push_error(L, &sink->stage.err);
    }
    lk_push_digests(L, sink->set, (const unsigned char(*)[LK_DIGEST_MAX])sink->digests);
    lua_pushinteger(L, (lua_Integer)sink->bytes);
    return 2;
}

/* Leaves the sink at the top, with the stream at 1 anchored but not taken yet. */
static struct sink *push_sink(lua_State *L, struct lk_stream_box *box)
{
    struct sink *sink = lua_newuserdatauv(L, sizeof(*sink), 1);

    memset(sink, 0, sizeof(*sink));
    luaL_setmetatable(L, SINK_CLASS);
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, -2, 1);
    sink->box = box;
    sink->stage.work = work;
    sink->stage.finish = finish;
    sink->stage.op.cancel = cancel;
    sink->stage.op.results = bytes_results;
    lk_task_parkable(L);
    return sink;
}

int lk_sink_discard(lua_State *L)
{
    struct lk_stream_box *box = lk_check_stream(L, "stream.discard", false);
    struct sink *sink = push_sink(L, box);

    sink->stream = lk_take_stream(L, 1, "stream.discard");
    return lk_stage_park(L, lua_gettop(L), &sink->stage);
}

unsigned lk_check_digests(lua_State *L, int index, const char *function)
{
    unsigned set = 0;

    if (lua_isnoneornil(L, index)) {
        return 0;
    }
    if (!lua_istable(L, index)) {
        lk_misuse(L, function, "expected a list of digest names, got %s", luaL_typename(L, index));
    }
    lua_Integer count = (lua_Integer)lua_rawlen(L, index);
    for (lua_Integer i = 1; i <= count; i++) {
        enum lk_digest digest;
        struct lk_error err;
        lua_rawgeti(L, index, i);
        if (lua_type(L, -1) != LUA_TSTRING) {
            lk_misuse(L, function, "expected the name of a digest, got %s", luaL_typename(L, -1));
        }
        if (lk_digest_parse(lua_tostring(L, -1), &digest, &err) < 0) {
            lk_raise(L, &err);
        }
        set |= 1u << digest;
        lua_pop(L, 1);
    }
    return set;
}

int lk_sink_hash(lua_State *L)
{
    struct lk_stream_box *box = lk_check_stream(L, "stream.hash", false);
    unsigned set = lk_check_digests(L, 2, "stream.hash");
    struct sink *sink = push_sink(L, box);
    struct lk_error err;

    sink->set = set;
    sink->stage.op.results = hash_results;
    for (int i = 0; i < LK_DIGEST_COUNT; i++) {
        if (set & 1u << i && !(sink->hashers[i] = lk_hasher_new((enum lk_digest)i, &err))) {
            return lk_push_error(L, &err);
        }
    }
    sink->stream = lk_take_stream(L, 1, "stream.hash");
    return lk_stage_park(L, lua_gettop(L), &sink->stage);
}

int lk_sink_to_file(lua_State *L)
{
    struct lk_stream_box *box = lk_check_stream(L, "stream.to_file", false);
    struct lk_file *file = lk_check_file(L, 2, "stream.to_file");

    if (!file->writable) {
        return lk_misuse(L, "stream.to_file", "'%s' was opened for reading", file->path);
    }
    struct sink *sink = push_sink(L, box);
    sink->file = lk_file_ref(file);
    sink->stream = lk_take_stream(L, 1, "stream.to_file");
    return lk_stage_park(L, lua_gettop(L), &sink->stage);
}

int lk_sink_to_stdout(lua_State *L)
{
    struct lk_stream_box *box = lk_check_stream(L, "stream.to_stdout", false);
    struct sink *sink = push_sink(L, box);

    sink->to_stdout = true;
    sink->stream = lk_take_stream(L, 1, "stream.to_stdout");
    return lk_stage_park(L, lua_gettop(L), &sink->stage);
}

void lk_open_sinks(lua_State *L)
{
    static const luaL_Reg none[] = {{NULL, NULL}};

    lk_new_class(L, SINK_CLASS, none, sink_gc);
}
