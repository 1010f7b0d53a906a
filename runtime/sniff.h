/* SPDX-License-Identifier: MIT
 * sniff.h - a stream that may be gzip, as what is in it. */
#ifndef LK_SNIFF_H
#define LK_SNIFF_H

#include "stream.h"

/* Waits for the first bytes of input: with gzip's magic number the result is the gunzipped stream,
 * else the same bytes. Takes over input. Stage threads only, as it blocks. */
struct lk_stream *lk_sniff(struct lk_pool *pool, struct lk_stream *input, int in_flight,
                           struct lk_error *err);

#endif
