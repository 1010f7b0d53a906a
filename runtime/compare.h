/* SPDX-License-Identifier: MIT
 * compare.h - compares what was restored beneath a directory with the records of an index, or
 * with a tar that has none. Both block: stage threads only. */
#ifndef LK_COMPARE_H
#define LK_COMPARE_H

#include "stream.h"

struct lk_compare_found {
    uint64_t entries;   /* that are as the index says */
    uint64_t files;     /* of them regular files whose SHA-256 was compared */
    uint64_t unchecked; /* devices, which are not restored, paths that are cut in the index, and
                           what this user may not look at */
    /* Called for each entry that is not as it should be. */
    void (*differs)(void *arg, const char *path, size_t len, const char *message);
    void *arg;
};

/* All records of an index member. -1: the block, or the directory, can't be read. */
int lk_compare_block(const char *directory, const void *bytes, size_t len,
                     struct lk_compare_found *found, struct lk_error *err);

/* Reads a tar, or a tar in gzip, to its end, and compares each entry with what is in the directory,
 * but for the data (NULL = it is only read, and found->entries counts). Takes over input. -1:
 * LK_CORRUPT with the place, or what the input failed with. */
int lk_compare_tar(struct lk_pool *pool, const char *directory, struct lk_stream *input,
                   int in_flight, struct lk_compare_found *found, struct lk_error *err);

#endif
