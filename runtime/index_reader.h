/* SPDX-License-Identifier: MIT
 * index_reader.h - the index of an archive from its bytes: footer, list of blocks, blocks.
 * docs/format.md. Works on pieces of a file, so that ranged reads are enough: the last
 * LK_FOOTER_SIZE bytes, then the list, then the blocks that are wanted. Believes no number that it
 * did not check. Any thread. */
#ifndef LK_INDEX_READER_H
#define LK_INDEX_READER_H

#include "index_writer.h"

struct lk_footer {
    uint64_t list_at, list_size; /* where the list members are */
    uint64_t blocks, members, entries, raw;
    bool partial; /* the list does not name every block */
    bool ordered; /* the records come in the order of their paths, lk_path_compare */
};

struct lk_block_ref {
    uint64_t at;   /* offset of the index member in the file */
    uint64_t size; /* of the member */
    uint64_t members, records;
    uint64_t raw_base; /* plain offset of the block's first data member */
    const char *path;  /* of its first record, at most 128 bytes; valid during the call */
    size_t path_len;
};

struct lk_record {
    const char *path;  /* valid during the call */
    size_t path_len;   /* of what is here */
    uint64_t full_len; /* more than path_len when the path was cut */
    char type;
    uint32_t mode;
    uint64_t member; /* offset in the file of the data member that the entry begins in */
    uint64_t header_at, data_at, size;
    int64_t mtime;
    uint32_t mtime_ns;
    bool large;
    const unsigned char *sha256; /* NULL = none */
};

struct lk_index_visitor {
    /* Each may be NULL; another return value than 0 ends the reading and is returned. */
    int (*block)(void *arg, const struct lk_block_ref *block);
    int (*member)(void *arg, uint64_t at, uint64_t size, uint64_t raw_at, uint64_t raw);
    int (*record)(void *arg, const struct lk_record *record);
    void *arg;
};

/* tail = the last LK_FOOTER_SIZE bytes of a file of file_size bytes. LK_NOT_FOUND: there is no
 * footer. */
int lk_footer_read(const unsigned char *tail, uint64_t file_size, struct lk_footer *footer,
                   struct lk_error *err);
/* The list_size bytes from list_at on. Calls visitor->block in the order of the file. */
int lk_list_read(const unsigned char *data, size_t len, const struct lk_index_visitor *visitor,
                 struct lk_error *err);
/* One index member. Calls visitor->member and then visitor->record. */
int lk_block_read(const unsigned char *data, size_t len, const struct lk_index_visitor *visitor,
                  struct lk_error *err);

#endif
