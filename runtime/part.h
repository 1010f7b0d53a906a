/* SPDX-License-Identifier: MIT
 * part.h - cuts a stream into parts of fixed size for uploads: immutable, ref-counted, re-readable,
 * hashed. A stage thread fills parts, pool workers hash them, and each is delivered on the loop
 * thread in order. */
#ifndef LK_PART_H
#define LK_PART_H

#include "crypto.h"
#include "stream.h"

struct lk_part {
    int number;      /* from 1 */
    uint64_t offset; /* in the stream */
    size_t size;
    bool last;                 /* the whole end follows */
    const unsigned char *data; /* NULL when spilled */
    int fd;                    /* -1, or the unlinked file that holds it */
    unsigned hashes;           /* bit set of 1u << enum lk_digest */
    unsigned char hash[LK_DIGEST_COUNT][LK_DIGEST_MAX];
    int refs;    /* private, atomic */
    void *owner; /* private */
};

struct lk_part *lk_part_ref(struct lk_part *part);
void lk_part_unref(struct lk_part *part);
/* Copies up to len bytes from offset inside the part; bytes copied, or -1 (reading a spilled part
 * failed). */
ssize_t lk_part_read(struct lk_part *part, size_t offset, void *data, size_t len,
                     struct lk_error *err);

struct lk_parts;

struct lk_parts_options {
    size_t size; /* bytes of a part */
    int width;   /* parts that may exist at once; from 2 on one is filled while another is sent */
    unsigned hashes;       /* of each part */
    unsigned totals;       /* of the whole stream */
    const char *spill_dir; /* NULL = memory */
};

/* Takes over `input` in every case. `news(arg)` is called on the loop thread when lk_parts_next has
 * something new to say. */
struct lk_parts *lk_parts_new(struct lk_loop *loop, struct lk_pool *pool, struct lk_stream *input,
                              const struct lk_parts_options *options, void (*news)(void *arg),
                              void *arg, struct lk_error *err);
/* Loop thread. LK_STREAM_DATA (*part is the caller's), LK_STREAM_DONE, LK_STREAM_AGAIN, or -1. Once
 * the stream has failed it is -1 with the stream's error, also when parts from before are waiting.
 */
int lk_parts_next(struct lk_parts *parts, struct lk_part **part, struct lk_error *err);
/* After DONE: digest of the whole stream. NULL if it was not asked for. */
const unsigned char *lk_parts_total(const struct lk_parts *parts, enum lk_digest digest);
uint64_t lk_parts_bytes(const struct lk_parts *parts);
/* Loop thread. Cancels what is not finished; parts that are still referenced stay valid. No `news`
 * after it. */
void lk_parts_free(struct lk_parts *parts);

#endif
