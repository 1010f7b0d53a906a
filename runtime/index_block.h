/* SPDX-License-Identifier: MIT
 * index_block.h - one index block in memory, and what to look for in it: paths by order and by
 * pattern. Immutable once it was read; any thread. */
#ifndef LK_INDEX_BLOCK_H
#define LK_INDEX_BLOCK_H

#include "index_reader.h"

struct lk_block_member {
    uint64_t at, size;    /* in the file */
    uint64_t raw_at, raw; /* in the data */
};

struct lk_block {
    size_t member_count, record_count;
    struct lk_block_member *members;
    struct lk_record *records; /* path and sha256 belong to the block */
    /* private */
    char *paths;
    size_t paths_len, paths_room, members_room, records_room;
};

/* Reads one index member, data[0..len). NULL with LK_CORRUPT or LK_MEMORY. */
struct lk_block *lk_block_open(const void *data, size_t len, struct lk_error *err);
void lk_block_free(struct lk_block *block); /* NULL is allowed */
/* The row of the member that begins at this offset of the file; NULL if the block has none. */
const struct lk_block_member *lk_block_find(const struct lk_block *block, uint64_t at);
/* The row of the member that holds this byte of the data; NULL if the block has none. */
const struct lk_block_member *lk_block_holding(const struct lk_block *block, uint64_t raw);

/* A path as it is compared with patterns: without "/" and "./" before it. Moves *path and *len. */
void lk_path_clean(const char **path, size_t *len);

#endif
