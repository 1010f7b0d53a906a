/* SPDX-License-Identifier: MIT
 * index_writer.h - the index of an archive while it is written: blocks between the data members, at
 * the end the list of blocks and the footer. docs/format.md. One thread. */
#ifndef LK_INDEX_WRITER_H
#define LK_INDEX_WRITER_H

#include "index.h"

enum {
    LK_PATH_MAX =
        4096, /* bytes of a path that a record holds; of a longer one these and its length */
    LK_FOOTER_SIZE = 94,   /* of the footer member, the last bytes of the file */
    LK_FOOTER_PARTIAL = 1, /* flag: the list does not name every block */
    LK_FOOTER_ORDERED = 2, /* flag: the records come in the order of their paths */
    LK_RECORD_HASH = 1,    /* flags of a record: its SHA-256 is the next one of the block */
    LK_RECORD_LARGE = 2,   /* its data goes on in the following members */
    LK_RECORD_CUT = 4      /* the path is longer than what is here */
};

struct lk_index_writer;

/* emit gets each index member (the chunk is its own to release) at the place where it belongs. */
struct lk_index_writer *lk_index_writer_new(int (*emit)(void *arg, struct lk_chunk *chunk,
                                                        struct lk_error *err),
                                            void *arg, struct lk_error *err);
/* A data member of size bytes was written that holds raw bytes; entries (NULL = none) is taken over
 * in every case. */
int lk_index_writer_member(struct lk_index_writer *writer, size_t size, size_t raw,
                           struct lk_entries *entries, struct lk_error *err);
/* Writes what is left: last block, list, footer. */
int lk_index_writer_finish(struct lk_index_writer *writer, struct lk_error *err);
uint64_t lk_index_writer_blocks(const struct lk_index_writer *writer);
void lk_index_writer_free(struct lk_index_writer *writer);

#endif
