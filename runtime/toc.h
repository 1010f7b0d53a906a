/* SPDX-License-Identifier: MIT
 * toc.h - the table of contents of a tar that has no index: a filter that reads all of it. */
#ifndef LK_TOC_H
#define LK_TOC_H

#include "stream.h"

/* Bytes of a line before the path. */
#define LK_TOC_FIXED ((size_t)29)

/* Takes over `input`, a tar or a tar in gzip, of which in_flight chunks are worked on at once. The
 * output has a line for each entry, little-endian: bytes of the rest of the line (4), mode (4),
 * type of tar (1), bytes of its data (8), seconds since 1970 (8), nanoseconds (4), path. It fails
 * as an extraction does. */
struct lk_stream *lk_toc(struct lk_pool *pool, struct lk_stream *input, int in_flight,
                         struct lk_error *err);

#endif
