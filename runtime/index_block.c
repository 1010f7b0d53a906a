/* SPDX-License-Identifier: MIT
 * index_block.c - one index block in memory.
 * Owns the rows, the records and their paths. A block is small; what it says may still be anything,
 * so its paths have a limit of their own: each can repeat the one before it. Any thread. */
#include "index_block.h"

#include <stdlib.h>
#include <string.h>

enum { DIGEST = 32, AFTER = 1 + DIGEST }; /* behind a path: a NUL, then the digest */
#define PATHS_MAX ((size_t)4 << 20)

static int no_memory(struct lk_error *err)
{
    return lk_error_set(err, LK_MEMORY, "no memory for a block of an index");
}

/* Room for `more` items of `size` bytes behind `count`. */
static int grow(void **items, size_t *room, size_t count, size_t more, size_t size)
{
    if (count + more <= *room) {
        return 0;
    }
    size_t wanted = *room * 2 > count + more ? *room * 2 : count + more + 16;
    void *moved = realloc(*items, wanted * size);
    if (!moved) {
        return -1;
    }
    *items = moved;
    *room = wanted;
    return 0;
}

struct reading {
    struct lk_block *block;
    struct lk_error *err;
};

static int add_member(void *arg, uint64_t at, uint64_t size, uint64_t raw_at, uint64_t raw)
{
    struct reading *reading = arg;
    struct lk_block *b = reading->block;
    void *members = b->members;

    if (grow(&members, &b->members_room, b->member_count, 1, sizeof(*b->members)) < 0) {
        return no_memory(reading->err);
    }
    b->members = members;
    b->members[b->member_count++] = (struct lk_block_member){at, size, raw_at, raw};
    return 0;
}

/* Where path and digest are is set when all are read: their memory moves until then. */
static int add_record(void *arg, const struct lk_record *record)
{
    struct reading *reading = arg;
    struct lk_block *b = reading->block;
    void *records = b->records, *paths = b->paths;
    size_t len = record->path_len + AFTER;

    if (b->paths_len + len > PATHS_MAX) {
        return lk_error_set(reading->err, LK_CORRUPT,
                            "the index of the archive is damaged: a block has too many paths");
    }
    if (grow(&paths, &b->paths_room, b->paths_len, len, 1) < 0) {
        return no_memory(reading->err);
    }
    b->paths = paths;
    if (grow(&records, &b->records_room, b->record_count, 1, sizeof(*b->records)) < 0) {
        return no_memory(reading->err);
    }
    b->records = records;
    char *path = b->paths + b->paths_len;
    memcpy(path, record->path, record->path_len);
    path[record->path_len] = '\0';
    if (record->sha256) {
        memcpy(path + record->path_len + 1, record->sha256, DIGEST);
    }
    b->paths_len += len;
    b->records[b->record_count++] = *record;
    return 0;
}

static void set_pointers(struct lk_block *b)
{
    const char *at = b->paths;

    for (size_t i = 0; i < b->record_count; i++) {
        struct lk_record *record = &b->records[i];
        record->path = at;
        at += record->path_len + 1;
        record->sha256 = record->sha256 ? (const unsigned char *)at : NULL;
        at += DIGEST;
    }
}

struct lk_block *lk_block_open(const void *data, size_t len, struct lk_error *err)
{
    struct reading reading = {.block = calloc(1, sizeof(*reading.block)), .err = err};
    struct lk_index_visitor visitor = {.member = add_member, .record = add_record, .arg = &reading};

    if (!reading.block) {
        no_memory(err);
        return NULL;
    }
    if (lk_block_read(data, len, &visitor, err) < 0) {
        lk_block_free(reading.block);
        return NULL;
    }
    set_pointers(reading.block);
    return reading.block;
}

void lk_block_free(struct lk_block *block)
{
    if (!block) {
        return;
    }
    free(block->members);
    free(block->records);
    free(block->paths);
    free(block);
}

const struct lk_block_member *lk_block_find(const struct lk_block *block, uint64_t at)
{
    for (size_t i = 0; i < block->member_count; i++) {
        if (block->members[i].at == at) {
            return &block->members[i];
        }
    }
    return NULL;
}

const struct lk_block_member *lk_block_holding(const struct lk_block *block, uint64_t raw)
{
    for (size_t i = 0; i < block->member_count; i++) {
        const struct lk_block_member *member = &block->members[i];
        if (raw >= member->raw_at && raw - member->raw_at < member->raw) {
            return member;
        }
    }
    return NULL;
}

void lk_path_clean(const char **path, size_t *len)
{
    for (;;) {
        size_t skip = *len > 0 && **path == '/'                            ? 1
                      : *len > 1 && (*path)[0] == '.' && (*path)[1] == '/' ? 2
                                                                           : 0;
        if (skip == 0) {
            return;
        }
        *path += skip;
        *len -= skip;
    }
}
