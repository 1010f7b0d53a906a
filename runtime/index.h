/* SPDX-License-Identifier: MIT
 * index.h - what an archive source tells about the entries in a chunk, and the index that gzip.c
 * writes from it. The format is specified in docs/format.md. */
#ifndef LK_INDEX_H
#define LK_INDEX_H

#include "chunk.h"
#include "error.h"

/* The SHA-256 of a file that spans several chunks: one ordered job of the archive source. */
struct lk_large {
    /* Blocks until the file's last byte was hashed (its chunks have all been sent before); false =
     * no digest (the source was cancelled, or the file could not be read to its end and was
     * padded). */
    bool (*wait)(struct lk_large *large, unsigned char sha256[32]);
    void (*free)(struct lk_large *large);
};

struct lk_entry {
    struct lk_entry *next;
    uint64_t size; /* of the file's data in the archive */
    int64_t mtime; /* seconds since 1970 */
    uint32_t mtime_ns;
    uint32_t mode; /* permission bits and type, as st_mode */
    char type; /* tar type flag: '0' file, '1' hard link, '2' symbolic link, '5' directory, ... */
    size_t header_at; /* offset in the chunk of the entry's first tar block (extended headers
                         included) */
    size_t data_at;   /* offset in the chunk of its data; whole in this chunk unless `large` */
    struct lk_large *large; /* NULL, or owned: the data goes on in following chunks */
    unsigned char
        sha256[32]; /* filled by the compress worker for a file that is whole in this chunk */
    size_t path_len;
    char path[]; /* as in the archive, any bytes, NUL-terminated */
};

/* The meta of a chunk that an archive source sends: chunk->meta = &entries->base. A chunk inside a
 * large file has none. lk_gzip takes it off the chunk. */
struct lk_entries {
    struct lk_chunk_meta base;
    struct lk_entry *first, *last;
};

/* Makes an empty list whose base.free frees the entries (and their `large`) too. */
struct lk_entries *lk_entries_new(struct lk_error *err);
/* Appends a zeroed entry with that path. */
struct lk_entry *lk_entries_add(struct lk_entries *entries, const char *path, size_t len,
                                struct lk_error *err);
/* The order of paths in a walk: as bytes, but `/` comes before every other one, so what is below a
 * directory lies side by side, right behind it. Less than, equal to or more than 0. */
int lk_path_compare(const char *a, size_t a_len, const char *b, size_t b_len);
/* Frees one entry that is in no list any more, and its `large`. NULL is allowed. */
void lk_entry_free(struct lk_entry *entry);

#endif
