/* SPDX-License-Identifier: MIT
 * cut.h - a filter that takes chosen entries out of the data of an archive, by the records of its
 * index, and compares them: the path, type and size in the tar header with the record, the data
 * with its SHA-256. What does not fit ends the output before the entry is complete. */
#ifndef LK_CUT_H
#define LK_CUT_H

#include "stream.h"

enum {
    LK_CUT_HASHED = 1, /* sha256 counts */
    LK_CUT_PATH = 2,   /* the path is only the beginning of the entry's */
    LK_CUT_FIXED = 56  /* bytes of a line of the plan before its path */
};

/* Takes over both streams, also when it fails. `plan` has a line for each entry, in the order of
 * `input`, little-endian: bytes of input before it (8), of its headers (4), of its data (8), type
 * of tar (1), flags (1), SHA-256 (32), length of the path (2), path. The output is a tar of these
 * entries, or with `bare` their data alone. It ends as the input does; LK_CORRUPT for what differs.
 */
struct lk_stream *lk_cut(struct lk_pool *pool, struct lk_stream *input, struct lk_stream *plan,
                         bool bare, struct lk_error *err);

#endif
