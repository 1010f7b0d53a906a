/* SPDX-License-Identifier: MIT
 * verify.h - a filter that lets bytes pass and fails at their end when they are not the expected
 * ones: what reads behind it learns of damage as it learns of any other failure of its source. */
#ifndef LK_VERIFY_H
#define LK_VERIFY_H

#include "crypto.h"
#include "stream.h"

#define LK_ANY_SIZE UINT64_MAX

struct lk_expected {
    uint64_t size; /* LK_ANY_SIZE = not known */
    bool hashed;   /* sha256 is set */
    unsigned char sha256[32];
    char name[256]; /* of the object, for the message */
};

/* Takes over `input`, also when it fails. The output ends as the input does; where that is whole,
 * with LK_CORRUPT for another size or hash. More bytes than expected fail at once. */
struct lk_stream *lk_stream_verify(struct lk_pool *pool, struct lk_stream *input,
                                   const struct lk_expected *expected, struct lk_error *err);

#endif
