/* SPDX-License-Identifier: MIT
 * lua_index.c - lunark.core.index: footer, list and blocks of an archive's index from their bytes,
 * and the order and patterns of paths. Owns a block through its userdata. Reads no file: that is
 * scripts/lunark/index.lua. Loop thread only. */
#include "cut.h"
#include "index_block.h"
#include "lua_stream.h"
#include "lua_task.h"
#include "member.h"
#include "toc.h"
#include "walk.h"
#include <lauxlib.h>
#include <string.h>

#define BLOCK_CLASS "lunark.index.block"

static void set_boolean(lua_State *L, const char *key, bool value)
{
    lua_pushboolean(L, value);
    lua_setfield(L, -2, key);
}

static void set_text(lua_State *L, const char *key, const void *text, size_t len)
{
    lua_pushlstring(L, text, len);
    lua_setfield(L, -2, key);
}

static const char *check_bytes(lua_State *L, int index, const char *function, size_t *len)
{
    if (lua_type(L, index) != LUA_TSTRING)
        lk_misuse(L, function, "argument %d must be a string, got %s", index,
                  luaL_typename(L, index));
    return lua_tolstring(L, index, len);
}

/* The bytes from the offset in argument 2 on, 0 where there is none. */
static const char *check_bytes_from(lua_State *L, const char *function, size_t *len)
{
    const char *bytes = check_bytes(L, 1, function, len);
    lua_Integer at = luaL_optinteger(L, 2, 0);
    if (at < 0 || (lua_Unsigned)at > *len)
        lk_misuse(L, function, "offset %lld is outside of the %zu bytes", (long long)at, *len);
    *len -= (size_t)at;
    return bytes + at;
}

/* --- footer and list --- */

static int index_footer(lua_State *L)
{
    struct lk_footer footer;
    struct lk_error err;
    size_t len;
    const char *tail = check_bytes(L, 1, "index.footer", &len);
    lua_Integer size = luaL_checkinteger(L, 2);
    if (len < LK_FOOTER_SIZE || size < (lua_Integer)len) {
        lk_error_set(&err, LK_NOT_FOUND, "the archive has no index");
        return lk_push_error(L, &err);
    }
    const char *last = tail + len - LK_FOOTER_SIZE;
    if (lk_footer_read((const unsigned char *)last, (uint64_t)size, &footer, &err) < 0)
        return lk_push_error(L, &err);
    lua_createtable(L, 0, 8);
    lk_set_integer(L, "list_at", footer.list_at);
    lk_set_integer(L, "list_size", footer.list_size);
    lk_set_integer(L, "blocks", footer.blocks);
    lk_set_integer(L, "members", footer.members);
    lk_set_integer(L, "records", footer.entries);
    lk_set_integer(L, "bytes", footer.raw);
    set_boolean(L, "partial", footer.partial);
    set_boolean(L, "ordered", footer.ordered);
    return 1;
}

struct listing {
    lua_State *L;
    lua_Integer count;
};

/* Arguments: the table of refs, the ref. */
static int push_ref(lua_State *L)
{
    const struct lk_block_ref *ref = lua_touserdata(L, 2);
    lua_pushvalue(L, 1);
    lua_createtable(L, 0, 6);
    lk_set_integer(L, "at", ref->at);
    lk_set_integer(L, "size", ref->size);
    lk_set_integer(L, "members", ref->members);
    lk_set_integer(L, "records", ref->records);
    lk_set_integer(L, "raw_at", ref->raw_base);
    set_text(L, "path", ref->path, ref->path_len);
    lua_seti(L, -2, luaL_len(L, 1) + 1);
    return 0;
}

/* Protected, so that the reader's memory is freed whatever happens; the error stays on the stack.
 */
static int list_block(void *arg, const struct lk_block_ref *ref)
{
    struct listing *listing = arg;
    lua_State *L = listing->L;
    lua_pushcfunction(L, push_ref);
    lua_pushvalue(L, -2);
    lua_pushlightuserdata(L, (void *)(uintptr_t)ref);
    return lua_pcall(L, 2, 0, 0) == LUA_OK ? 0 : 1;
}

/* One member of the list: what it names, and where the next one begins. */
static int index_list(lua_State *L)
{
    struct listing listing = {.L = L};
    struct lk_index_visitor visitor = {.block = list_block, .arg = &listing};
    struct lk_member member;
    struct lk_error err;
    size_t len;
    const unsigned char *bytes = (const unsigned char *)check_bytes_from(L, "index.list", &len);
    lua_Integer at = luaL_optinteger(L, 2, 0);
    luaL_checkstack(L, 8, NULL);
    lua_newtable(L);
    if (len < LK_MEMBER_HEADER || !lk_member_parse(bytes, &member) || member.size > len) {
        lk_error_set(&err, LK_CORRUPT, "the index of the archive is damaged: the list of blocks");
        return lk_push_error(L, &err);
    }
    int rc = lk_list_read(bytes, member.size, &visitor, &err);
    if (rc > 0)
        return lua_error(L);
    if (rc < 0)
        return lk_push_error(L, &err);
    lua_pushinteger(L, at + (lua_Integer)member.size);
    return 2;
}

/* --- blocks --- */

static int index_block(lua_State *L)
{
    struct lk_error err;
    size_t len;
    const char *bytes = check_bytes_from(L, "index.block", &len);
    struct lk_block **box = lua_newuserdatauv(L, sizeof(*box), 0);
    *box = NULL;
    luaL_setmetatable(L, BLOCK_CLASS);
    *box = lk_block_open(bytes, len, &err);
    return *box ? 1 : lk_push_error(L, &err);
}

static const struct lk_block *check_block(lua_State *L, const char *function)
{
    struct lk_block **box = luaL_checkudata(L, 1, BLOCK_CLASS);
    if (!*box)
        lk_misuse(L, function, "the block is closed");
    return *box;
}

static int block_count(lua_State *L)
{
    const struct lk_block *block = check_block(L, "block:count");
    lua_pushinteger(L, (lua_Integer)block->record_count);
    lua_pushinteger(L, (lua_Integer)block->member_count);
    return 2;
}

/* The place that argument 2 names, from 0. */
static size_t check_place(lua_State *L, const char *function, size_t count)
{
    lua_Integer place = luaL_checkinteger(L, 2);
    if (place < 1 || (lua_Unsigned)place > count)
        lk_misuse(L, function, "there is no number %lld, the block has %zu", (long long)place,
                  count);
    return (size_t)place - 1;
}

static int block_record(lua_State *L)
{
    const struct lk_block *block = check_block(L, "block:record");
    size_t place = check_place(L, "block:record", block->record_count);
    const struct lk_record *record = &block->records[place];
    char type = record->type;
    lua_createtable(L, 0, 13);
    set_text(L, "path", record->path, record->path_len);
    set_text(L, "type", &type, 1);
    lk_set_integer(L, "mode", record->mode);
    lk_set_integer(L, "size", record->size);
    lk_set_integer(L, "mtime", (uint64_t)record->mtime);
    lk_set_integer(L, "mtime_ns", record->mtime_ns);
    lk_set_integer(L, "member", record->member);
    lk_set_integer(L, "header_at", record->header_at);
    lk_set_integer(L, "data_at", record->data_at);
    set_boolean(L, "large", record->large);
    set_boolean(L, "cut", record->full_len > record->path_len);
    if (record->sha256)
        set_text(L, "sha256", record->sha256, 32);
    return 1;
}

static int block_next(lua_State *L)
{
    const struct lk_block *block = check_block(L, "block:next");
    lua_Integer from = luaL_checkinteger(L, 2);
    size_t len;
    const char *pattern = check_bytes(L, 3, "block:next", &len);
    const char *type = luaL_optstring(L, 4, "");
    lk_path_clean(&pattern, &len);
    for (size_t i = from > 1 ? (size_t)from - 1 : 0; i < block->record_count; i++) {
        const char *path = block->records[i].path;
        size_t path_len = block->records[i].path_len;
        if (*type && *type != block->records[i].type)
            continue;
        lk_path_clean(&path, &path_len);
        if (len == 0 || lk_pattern_matches(pattern, path)) {
            lua_pushinteger(L, (lua_Integer)i + 1);
            return 1;
        }
    }
    lua_pushnil(L);
    return 1;
}

static int push_member(lua_State *L, const struct lk_block_member *member)
{
    if (!member) {
        lua_pushnil(L);
        return 1;
    }
    lua_pushinteger(L, (lua_Integer)member->at);
    lua_pushinteger(L, (lua_Integer)member->size);
    lua_pushinteger(L, (lua_Integer)member->raw_at);
    lua_pushinteger(L, (lua_Integer)member->raw);
    return 4;
}

static int block_member(lua_State *L)
{
    const struct lk_block *block = check_block(L, "block:member");
    return push_member(L, &block->members[check_place(L, "block:member", block->member_count)]);
}

static int block_member_at(lua_State *L)
{
    const struct lk_block *block = check_block(L, "block:member_at");
    return push_member(L, lk_block_find(block, (uint64_t)luaL_checkinteger(L, 2)));
}

static int block_member_of(lua_State *L)
{
    const struct lk_block *block = check_block(L, "block:member_of");
    return push_member(L, lk_block_holding(block, (uint64_t)luaL_checkinteger(L, 2)));
}

static int block_close(lua_State *L)
{
    struct lk_block **box = luaL_checkudata(L, 1, BLOCK_CLASS);
    lk_block_free(*box);
    *box = NULL;
    return 0;
}

/* --- paths --- */

static int index_compare(lua_State *L)
{
    size_t left_len, right_len;
    const char *left = check_bytes(L, 1, "index.compare", &left_len);
    const char *right = check_bytes(L, 2, "index.compare", &right_len);
    lua_pushinteger(L, lk_path_compare(left, left_len, right, right_len));
    return 1;
}

static int index_matches(lua_State *L)
{
    size_t pattern_len, path_len;
    const char *pattern = check_bytes(L, 1, "index.matches", &pattern_len);
    const char *path = check_bytes(L, 2, "index.matches", &path_len);
    lk_path_clean(&pattern, &pattern_len);
    lk_path_clean(&path, &path_len);
    lua_pushboolean(L, pattern_len == 0 || lk_pattern_matches(pattern, path));
    return 1;
}

/* Two streams, and whether only data comes out. */
static int index_cut(lua_State *L)
{
    struct lk_error err;
    luaL_argcheck(L, lk_is_stream(L, 1), 1, "a stream expected");
    luaL_argcheck(L, lk_is_stream(L, 2), 2, "a stream expected");
    bool bare = lua_toboolean(L, 3);
    struct lk_stream **box = lk_push_stream_box(L);
    struct lk_stream *input = lk_take_stream(L, 1, "index.cut");
    struct lk_stream *plan = lk_take_stream(L, 2, "index.cut");
    *box = lk_cut(lk_runtime_of(L)->pool, input, plan, bare, &err);
    return *box ? 1 : lk_push_error(L, &err);
}

static int index_contents(lua_State *L)
{
    struct lk_runtime *runtime = lk_runtime_of(L);
    struct lk_error err;
    luaL_argcheck(L, lk_is_stream(L, 1), 1, "a stream expected");
    struct lk_stream **box = lk_push_stream_box(L);
    struct lk_stream *input = lk_take_stream(L, 1, "index.contents");
    int in_flight = lk_gzip_in_flight(runtime->memory, runtime->jobs);
    *box = lk_toc(runtime->pool, input, in_flight, &err);
    return *box ? 1 : lk_push_error(L, &err);
}

int lk_open_index(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"count", block_count},         {"record", block_record},
        {"next", block_next},           {"member", block_member},
        {"member_at", block_member_at}, {"member_of", block_member_of},
        {"close", block_close},         {NULL, NULL}};
    static const luaL_Reg functions[] = {{"footer", index_footer},     {"list", index_list},
                                         {"block", index_block},       {"compare", index_compare},
                                         {"matches", index_matches},   {"cut", index_cut},
                                         {"contents", index_contents}, {NULL, NULL}};
    lk_new_class(L, BLOCK_CLASS, methods, block_close);
    luaL_newlib(L, functions);
    return 1;
}
