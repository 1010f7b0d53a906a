/* SPDX-License-Identifier: MIT
 * verify.h - a filter that lets bytes pass and fails at their end when they are not the expected
 * ones: what reads behind it learns of damage as it learns of any other failure of its source. */
#ifndef LK_VERIFY_H
#define LK_VERIFY_H

#include "crypto.h"
#include "stream.h"

#define LK_ANY_SIZE UINT64_MAX

enum { LK_BEGINS_MAX = 8, LK_BEGIN_LENGTH = 16 };

struct lk_begin {
    unsigned char bytes[LK_BEGIN_LENGTH];
    size_t len;
};

struct lk_expected {
    uint64_t size; /* LK_ANY_SIZE = not known */
    uint64_t most; /* more bytes are LK_CORRUPT at once; 0 = any number */
    bool hashed;   /* sha256 is set */
    unsigned char sha256[32];
    struct lk_begin begins[LK_BEGINS_MAX]; /* one of which it begins with */
    size_t begin_count;                    /* 0 = with anything */
    char name[256];                        /* of the object, for the message */
};

/* Takes over `input`, also when it fails. The output ends as the input does; where that is whole,
 * with LK_CORRUPT for another size or hash. More bytes than expected fail at once, as
 * another beginning does (LK_IO: it is not what it should be, which need not be damage). */
struct lk_stream *lk_stream_verify(struct lk_pool *pool, struct lk_stream *input,
                                   const struct lk_expected *expected, struct lk_error *err);

#endif
