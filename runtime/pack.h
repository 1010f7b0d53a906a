/* SPDX-License-Identifier: MIT
 * pack.h - puts tar entries into chunks, so that each becomes one gzip member.
 *
 * Small entries share a chunk of at most LK_MEMBER_SIZE; it begins and ends at an entry's boundary.
 * An entry that does not fit an empty chunk is large: it begins a chunk, goes on in chunks that are
 * full, and what follows it begins a new one. So a chunk's bytes depend on what is in it and not on
 * where it is. One thread. */
#ifndef LK_PACK_H
#define LK_PACK_H

#include "large.h"
#include "stream.h"
#include "tar.h"

struct lk_pack {
    struct lk_slabs *slabs;   /* of LK_MEMBER_SIZE; not owned */
    struct lk_stream *out;    /* not owned */
    struct lk_larges *larges; /* not owned */
    /* private */
    struct lk_chunk *chunk;
    struct lk_entries *entries; /* of the chunk */
    struct lk_buf header;
    uint64_t left;  /* bytes of the entry's data still to come */
    size_t data_at; /* where the entry's data begins in the chunk */
    bool large, nonzero;
    uint64_t sent; /* chunks */
};

void lk_pack_init(struct lk_pack *pack, struct lk_slabs *slabs, struct lk_stream *out,
                  struct lk_larges *larges);
void lk_pack_free(struct lk_pack *pack);
/* Begins an entry; st_mode goes into the index. Then entry->size bytes follow, then lk_pack_end. */
int lk_pack_begin(struct lk_pack *pack, const struct lk_tar_entry *entry, uint32_t st_mode,
                  struct lk_error *err);
/* Where the next data goes: *len bytes of room, 0 when the entry has all its bytes. NULL on
 * failure. */
void *lk_pack_room(struct lk_pack *pack, size_t *len, struct lk_error *err);
/* That many bytes were put there. */
void lk_pack_put(struct lk_pack *pack, size_t len);
int lk_pack_zeros(struct lk_pack *pack, uint64_t len, struct lk_error *err);
/* whole = the data is the file's, so its digest means something. */
int lk_pack_end(struct lk_pack *pack, bool whole, struct lk_error *err);
/* Sends what is left and the end of the archive in a chunk of its own. */
int lk_pack_finish(struct lk_pack *pack, struct lk_error *err);

#endif
