/* SPDX-License-Identifier: MIT
 * buf.h - a growable byte buffer with a mandatory maximum. One thread at a time. */
#ifndef LK_BUF_H
#define LK_BUF_H

#include "error.h"
#include <stddef.h>

struct lk_buf {
    char *data; /* always NUL-terminated once anything was added; NULL before */
    size_t len;
    size_t cap;
    size_t max; /* len never exceeds it */
};

void lk_buf_init(struct lk_buf *buf, size_t max);
/* Frees the memory; the buffer can be used again with the same maximum. */
void lk_buf_free(struct lk_buf *buf);
/* 0, or -1 (LK_MEMORY): no memory, or the maximum would be passed; the buffer is unchanged then. */
int lk_buf_add(struct lk_buf *buf, const void *data, size_t len, struct lk_error *err);
int lk_buf_printf(struct lk_buf *buf, struct lk_error *err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Makes room for `more` bytes and a NUL behind data + len and returns where they go; NULL with *err
 * set as above. Who fills them adds to len (and writes the NUL if it is to be read as a string). */
char *lk_buf_room(struct lk_buf *buf, size_t more, struct lk_error *err);

#endif
