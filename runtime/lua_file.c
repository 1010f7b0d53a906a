/* SPDX-License-Identifier: MIT
 * lua_file.c - the File of scripts: writes at positions, sync, ranges as streams.
 * Owns one reference to a file. What touches the disk runs on a stage thread while the task waits.
 * Loop thread only. */
#include "lua_stream.h"

#include "part.h"
#include <lauxlib.h>
#include <string.h>

#define WORK_CLASS "lunark.file.work"
enum { DEFAULT_PERM = 0600 };

struct file_box {
    struct lk_file *file; /* NULL: closed */
};

struct file_op {
    struct lk_stage_op stage;
    struct lk_file *file;
    const char *data; /* of a string that the user value anchors */
    size_t len;
    struct lk_part *part;
    uint64_t offset;
};

const char *lk_check_path(lua_State *L, int index, const char *function)
{
    size_t len;

    if (lua_type(L, index) != LUA_TSTRING) {
        lk_misuse(L, function, "expected a path, got %s", luaL_typename(L, index));
    }
    const char *path = lua_tolstring(L, index, &len);
    if (strlen(path) != len || len == 0) {
        lk_misuse(L, function, "a path has at least one byte and no NUL");
    }
    return path;
}

struct lk_file *lk_check_file(lua_State *L, int index, const char *function)
{
    struct file_box *box = luaL_testudata(L, index, LK_FILE_CLASS);

    if (!box) {
        lk_misuse(L, function, "expected a file, got %s", luaL_typename(L, index));
    } else if (!box->file) {
        lk_misuse(L, function, "the file is closed");
    }
    return box ? box->file : NULL;
}

/* --- operations --- */

static void finish(struct lk_stage_op *stage)
{
    struct file_op *op = (struct file_op *)stage;

    lk_file_unref(op->file);
    op->file = NULL;
    if (op->part) {
        lk_part_unref(op->part);
        op->part = NULL;
    }
}

static int work_gc(lua_State *L)
{
    struct file_op *op = lua_touserdata(L, 1);

    if (!op->stage.running) { /* as in a plain Lua that ends */
        finish(&op->stage);
    }
    return 0;
}

static int true_results(lua_State *L, struct lk_op *op)
{
    struct file_op *work = (struct file_op *)op;

    if (work->stage.rc < 0) {
        return lk_push_error(L, &work->stage.err);
    }
    lua_pushboolean(L, 1);
    return 1;
}

/* Pushes an operation that anchors the value at `anchor`. */
static struct file_op *push_op(lua_State *L, int anchor, void (*work)(struct lk_stage_op *stage))
{
    struct file_op *op = lua_newuserdatauv(L, sizeof(*op), 1);

    memset(op, 0, sizeof(*op));
    luaL_setmetatable(L, WORK_CLASS);
    lua_pushvalue(L, anchor);
    lua_setiuservalue(L, -2, 1);
    op->stage.work = work;
    op->stage.finish = finish;
    op->stage.op.cancel = lk_stage_wait; /* a system call that was begun is waited for */
    op->stage.op.results = true_results;
    lk_task_parkable(L);
    return op;
}

static int write_part(struct file_op *op, struct lk_error *err)
{
    struct lk_part *part = op->part;
    char buffer[16 << 10];
    size_t at = 0;

    if (part->data) {
        return lk_file_write(op->file, part->data, part->size, op->offset, err);
    }
    while (at < part->size) {
        size_t want = part->size - at < sizeof(buffer) ? part->size - at : sizeof(buffer);
        ssize_t n = lk_part_read(part, at, buffer, want, err);
        if (n < 0) {
            return -1;
        }
        if (n == 0) {
            return lk_error_set(err, LK_IO, "part %d ends after %zu of %zu bytes", part->number, at,
                                part->size);
        }
        if (lk_file_write(op->file, buffer, (size_t)n, op->offset + at, err) < 0) {
            return -1;
        }
        at += (size_t)n;
    }
    return 0;
}

static void work_write(struct lk_stage_op *stage)
{
    struct file_op *op = (struct file_op *)stage;

    stage->rc = op->part ? write_part(op, &stage->err)
                         : lk_file_write(op->file, op->data, op->len, op->offset, &stage->err);
}

static void work_sync(struct lk_stage_op *stage)
{
    struct file_op *op = (struct file_op *)stage;

    stage->rc = lk_file_sync(op->file, &stage->err);
}

/* --- methods --- */

static int file_pwrite(lua_State *L)
{
    struct lk_file *file = lk_check_file(L, 1, "file.pwrite");
    lua_Integer offset = luaL_optinteger(L, 3, 0);

    if (offset < 0) {
        return lk_misuse(L, "file.pwrite", "the offset must be 0 or more");
    }
    if (!file->writable) {
        return lk_misuse(L, "file.pwrite", "'%s' was opened for reading", file->path);
    }
    struct file_op *op = push_op(L, 2, work_write);
    op->part = lk_ref_part(L, 2, "file.pwrite");
    op->data = op->part ? NULL : lk_text_of(L, 2, &op->len);
    if (!op->part && !op->data) {
        return lk_misuse(L, "file.pwrite", "expected a string or a part, got %s",
                         luaL_typename(L, 2));
    }
    op->file = lk_file_ref(file);
    op->offset = (uint64_t)offset;
    return lk_stage_park(L, lua_gettop(L), &op->stage);
}

static int file_sync(lua_State *L)
{
    struct lk_file *file = lk_check_file(L, 1, "file.sync");
    struct file_op *op = push_op(L, 1, work_sync);

    op->file = lk_file_ref(file);
    return lk_stage_park(L, lua_gettop(L), &op->stage);
}

static int file_size(lua_State *L)
{
    struct lk_file *file = lk_check_file(L, 1, "file.size");
    struct lk_error err;
    uint64_t size;

    if (lk_file_size(file, &size, &err) < 0) {
        return lk_push_error(L, &err);
    }
    lua_pushinteger(L, (lua_Integer)size);
    return 1;
}

static int file_lock(lua_State *L)
{
    struct lk_file *file = lk_check_file(L, 1, "file.lock");
    struct lk_error err;

    if (lk_file_lock(file, &err) < 0) {
        return lk_push_error(L, &err);
    }
    lua_pushboolean(L, true);
    return 1;
}

static int file_stream(lua_State *L)
{
    struct lk_file *file = lk_check_file(L, 1, "file.stream");
    lua_Integer first = luaL_optinteger(L, 2, 0);
    lua_Integer last = luaL_optinteger(L, 3, -1);
    struct lk_error err;

    if (first < 0 || (!lua_isnoneornil(L, 3) && last < first - 1)) {
        return lk_misuse(L, "file.stream", "the range is not valid");
    }
    uint64_t end = lua_isnoneornil(L, 3) ? UINT64_MAX : (uint64_t)last;
    struct lk_stream **box = lk_push_stream_box(L);
    /* A range that ends before it begins: no bytes. */
    *box = last == first - 1 && end != UINT64_MAX
               ? lk_stream_of_bytes("", 0, &err)
               : lk_file_stream(lk_runtime_of(L)->pool, file, (uint64_t)first, end, &err);
    return *box ? 1 : lk_push_error(L, &err);
}

static int file_close(lua_State *L)
{
    struct file_box *box = luaL_checkudata(L, 1, LK_FILE_CLASS);
    struct lk_file *file = box->file;

    box->file = NULL;
    lk_file_unref(file);
    return 0;
}

/* --- functions --- */

static int open_file(lua_State *L)
{
    const char *path = lk_check_path(L, 1, "file.open");
    const char *mode = luaL_optstring(L, 2, "r");
    lua_Integer perm = luaL_optinteger(L, 3, DEFAULT_PERM);
    enum lk_file_mode flag = LK_FILE_READ;
    struct lk_error err;

    if (!strcmp(mode, "w")) {
        flag = LK_FILE_WRITE;
    } else if (!strcmp(mode, "x")) {
        flag = LK_FILE_CREATE;
    } else if (strcmp(mode, "r") != 0) {
        return lk_misuse(L, "file.open", "unknown mode '%s': use r, w or x", mode);
    }
    if (perm < 0 || perm > 0777) {
        return lk_misuse(L, "file.open", "permissions must be between 0 and 0777 (octal)");
    }
    struct file_box *box = lua_newuserdatauv(L, sizeof(*box), 0);
    box->file = NULL;
    luaL_setmetatable(L, LK_FILE_CLASS);
    box->file = lk_file_open(lk_runtime_of(L)->caps, path, flag, (unsigned)perm, &err);
    return box->file ? 1 : lk_push_error(L, &err);
}

static int sync_dir(lua_State *L)
{
    const char *path = lk_check_path(L, 1, "file.sync_dir");
    struct file_op *op = push_op(L, 1, work_sync);
    struct lk_error err;

    op->file = lk_file_open_dir(lk_runtime_of(L)->caps, path, &err);
    if (!op->file) {
        return lk_push_error(L, &err);
    }
    return lk_stage_park(L, lua_gettop(L), &op->stage);
}

static int free_bytes(lua_State *L)
{
    const char *path = lk_check_path(L, 1, "file.free_bytes");
    struct lk_error err;
    uint64_t bytes;

    if (lk_file_free_bytes(lk_runtime_of(L)->caps, path, &bytes, &err) < 0) {
        return lk_push_error(L, &err);
    }
    lua_pushinteger(L, bytes > INT64_MAX ? INT64_MAX : (lua_Integer)bytes);
    return 1;
}

int lk_open_file(lua_State *L)
{
    static const luaL_Reg methods[] = {{"pwrite", file_pwrite},
                                       {"sync", file_sync},
                                       {"size", file_size},
                                       {"stream", file_stream},
                                       {"lock", file_lock},
                                       {"close", file_close},
                                       {NULL, NULL}};
    static const luaL_Reg none[] = {{NULL, NULL}};
    static const luaL_Reg functions[] = {
        {"open", open_file}, {"sync_dir", sync_dir}, {"free_bytes", free_bytes}, {NULL, NULL}};

    lk_new_class(L, LK_FILE_CLASS, methods, file_close);
    lk_new_class(L, WORK_CLASS, none, work_gc);
    luaL_newlib(L, functions);
    return 1;
}
