/* SPDX-License-Identifier: MIT
 * lua_check.c - lunark.core.check: what verifying needs to know of an archive's index. Pieces of
 * the file come as strings, which are small; numbers go out, names never do. Loop thread only. */
#include "lua_check.h"

#include "index_reader.h"
#include "lua_task.h"
#include "member.h"
#include <lauxlib.h>

static void set_integer(lua_State *L, const char *key, uint64_t value)
{
    lua_pushinteger(L, (lua_Integer)value);
    lua_setfield(L, -2, key);
}

/* footer(tail, size): the last bytes of a file of `size` bytes; {list_at, list_size, blocks,
 * members, entries, raw, partial}. */
static int check_footer(lua_State *L)
{
    struct lk_footer footer;
    struct lk_error err;
    size_t len;
    const char *tail = luaL_checklstring(L, 1, &len);
    lua_Integer size = luaL_checkinteger(L, 2);

    if (len < LK_FOOTER_SIZE || size < LK_FOOTER_SIZE) {
        lk_error_set(&err, LK_NOT_FOUND, "the archive has no index");
        return lk_push_error(L, &err);
    }
    const unsigned char *at = (const unsigned char *)tail + len - LK_FOOTER_SIZE;
    if (lk_footer_read(at, (uint64_t)size, &footer, &err) < 0)
        return lk_push_error(L, &err);
    lua_createtable(L, 0, 7);
    set_integer(L, "list_at", footer.list_at);
    set_integer(L, "list_size", footer.list_size);
    set_integer(L, "blocks", footer.blocks);
    set_integer(L, "members", footer.members);
    set_integer(L, "entries", footer.entries);
    set_integer(L, "raw", footer.raw);
    lua_pushboolean(L, footer.partial);
    lua_setfield(L, -2, "partial");
    return 1;
}

/* A list in Lua can't be filled from a callback, which must not raise: blocks of one member are
 * collected first. An entry has 8 bytes or more, a list's body 64 KiB at most. */
enum { REFS_MAX = 8192 };

struct refs {
    struct lk_block_ref *all;
    size_t count;
};

static int keep_ref(void *arg, const struct lk_block_ref *ref)
{
    struct refs *refs = arg;

    if (refs->count < REFS_MAX)
        refs->all[refs->count++] = *ref;
    return 0;
}

static void push_ref(lua_State *L, const struct lk_block_ref *ref)
{
    lua_createtable(L, 0, 5);
    set_integer(L, "at", ref->at);
    set_integer(L, "size", ref->size);
    set_integer(L, "members", ref->members);
    set_integer(L, "records", ref->records);
    set_integer(L, "raw_at", ref->raw_base);
}

/* list(bytes): blocks that the first member of a list names, and the bytes of that member. */
static int check_list(lua_State *L)
{
    struct lk_error err;
    struct lk_member m;
    size_t len;
    const unsigned char *bytes = (const unsigned char *)luaL_checklstring(L, 1, &len);
    struct refs refs = {.all = lua_newuserdatauv(L, REFS_MAX * sizeof *refs.all, 0)};
    struct lk_index_visitor visitor = {.block = keep_ref, .arg = &refs};

    if (len < LK_MEMBER_HEADER || !lk_member_parse(bytes, &m) || m.size > len) {
        lk_error_set(&err, LK_CORRUPT, "the index of the archive is damaged: the list of blocks");
        return lk_push_error(L, &err);
    }
    if (lk_list_read(bytes, m.size, &visitor, &err) < 0)
        return lk_push_error(L, &err);
    lua_createtable(L, (int)refs.count, 0);
    for (size_t i = 0; i < refs.count; i++) {
        push_ref(L, &refs.all[i]);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_pushinteger(L, (lua_Integer)m.size);
    return 2;
}

struct sums {
    uint64_t first, end, raw_at, raw, members, records;
    uint64_t last_member; /* that a record names */
};

static int add_member(void *arg, uint64_t at, uint64_t size, uint64_t raw_at, uint64_t raw)
{
    struct sums *sums = arg;

    if (sums->members++ == 0) {
        sums->first = at;
        sums->raw_at = raw_at;
    }
    sums->end = at + size;
    sums->raw += raw;
    return 0;
}

static int add_record(void *arg, const struct lk_record *record)
{
    struct sums *sums = arg;

    sums->records++;
    sums->last_member = record->member;
    return 0;
}

/* block(bytes): sums of one index member: {members, records, raw}, and of its table {first, stop,
 * raw_at} unless that is empty; `names` is the member of its last record. */
static int check_block(lua_State *L)
{
    struct lk_error err;
    struct sums sums = {0};
    struct lk_index_visitor visitor = {.member = add_member, .record = add_record, .arg = &sums};
    size_t len;
    const char *bytes = luaL_checklstring(L, 1, &len);

    if (lk_block_read((const unsigned char *)bytes, len, &visitor, &err) < 0)
        return lk_push_error(L, &err);
    lua_createtable(L, 0, 7);
    set_integer(L, "members", sums.members);
    set_integer(L, "records", sums.records);
    set_integer(L, "raw", sums.raw);
    if (sums.records > 0)
        set_integer(L, "names", sums.last_member);
    if (sums.members > 0) {
        set_integer(L, "first", sums.first);
        set_integer(L, "stop", sums.end);
        set_integer(L, "raw_at", sums.raw_at);
    }
    return 1;
}

struct unit {
    uint64_t first, end;
    size_t row, rows;
};

/* Members side by side, of at least `size` bytes together or up to the end of the table. */
struct units {
    struct unit *all;
    size_t count, room, row;
    uint64_t size;
};

static int add_to_unit(void *arg, uint64_t at, uint64_t size, uint64_t raw_at, uint64_t raw)
{
    struct units *units = arg;
    struct unit *unit = units->count > 0 ? &units->all[units->count - 1] : NULL;

    (void)raw_at;
    (void)raw;
    if (!unit || unit->end - unit->first >= units->size) {
        if (units->count == units->room)
            return 1;
        unit = &units->all[units->count++];
        *unit = (struct unit){.first = at, .row = units->row};
    }
    unit->end = at + size;
    unit->rows++;
    units->row++;
    return 0;
}

/* units(bytes, size): the table of an index block in pieces of about that size: {first, last, row,
 * rows}. */
static int check_units(lua_State *L)
{
    enum { UNITS_MAX = 32768 };
    struct lk_error err;
    size_t len;
    const char *bytes = luaL_checklstring(L, 1, &len);
    lua_Integer size = luaL_checkinteger(L, 2);
    struct units units = {.size = size > 0 ? (uint64_t)size : 1, .room = UNITS_MAX};
    struct lk_index_visitor visitor = {.member = add_to_unit, .arg = &units};

    units.all = lua_newuserdatauv(L, UNITS_MAX * sizeof *units.all, 0);
    if (lk_block_read((const unsigned char *)bytes, len, &visitor, &err) < 0)
        return lk_push_error(L, &err);
    lua_createtable(L, (int)units.count, 0);
    for (size_t i = 0; i < units.count; i++) {
        lua_createtable(L, 0, 4);
        set_integer(L, "first", units.all[i].first);
        set_integer(L, "last", units.all[i].end - 1);
        set_integer(L, "row", units.all[i].row);
        set_integer(L, "rows", units.all[i].rows);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    return 1;
}

/* is_member(bytes): whether one of our members begins here. */
static int check_is_member(lua_State *L)
{
    struct lk_member m;
    size_t len;
    const char *bytes = luaL_checklstring(L, 1, &len);

    lua_pushboolean(L,
                    len >= LK_MEMBER_HEADER && lk_member_parse((const unsigned char *)bytes, &m));
    return 1;
}

int lk_open_check(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"footer", check_footer},       {"list", check_list},          {"block", check_block},
        {"is_member", check_is_member}, {"units", check_units},        {"data", lk_check_data},
        {"tar", lk_check_tar},          {"compare", lk_check_compare}, {NULL, NULL}};

    lk_open_check_data(L);
    lk_open_check_work(L);
    luaL_newlib(L, functions);
    return 1;
}
