/* SPDX-License-Identifier: MIT
 * buf.c - a growable byte buffer.
 * Owns its memory, never passes its maximum, always keeps a NUL behind the data. One thread at a
 * time. */
#include "buf.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_SIZE = 64 };

void lk_buf_init(struct lk_buf *buf, size_t max)
{
    *buf = (struct lk_buf){.max = max};
}

void lk_buf_free(struct lk_buf *buf)
{
    free(buf->data);
    lk_buf_init(buf, buf->max);
}

/* cap counts the byte for the NUL; len never includes it. */
char *lk_buf_room(struct lk_buf *buf, size_t more, struct lk_error *err)
{
    size_t max = buf->max < SIZE_MAX ? buf->max : SIZE_MAX - 1;
    size_t need, cap;
    char *data;

    if (more > max - buf->len) {
        lk_error_set(err, LK_MEMORY, "a buffer would pass its maximum of %zu bytes", max);
        return NULL;
    }
    need = buf->len + more + 1;
    if (need > buf->cap) {
        cap = buf->cap ? buf->cap : FIRST_SIZE;
        while (cap < need)
            cap = cap > SIZE_MAX / 2 ? need : cap * 2;
        if (cap > max)
            cap = max + 1;
        data = realloc(buf->data, cap);
        if (!data) {
            lk_error_set(err, LK_MEMORY, "no memory for a buffer of %zu bytes", cap);
            return NULL;
        }
        buf->data = data;
        buf->cap = cap;
    }
    buf->data[buf->len] = '\0';
    return buf->data + buf->len;
}

int lk_buf_add(struct lk_buf *buf, const void *data, size_t len, struct lk_error *err)
{
    char *room = lk_buf_room(buf, len, err);

    if (!room)
        return -1;
    if (len > 0)
        memcpy(room, data, len);
    room[len] = '\0';
    buf->len += len;
    return 0;
}

int lk_buf_printf(struct lk_buf *buf, struct lk_error *err, const char *format, ...)
{
    va_list args;
    char *room;
    int n;

    va_start(args, format);
    n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0)
        return lk_error_set(err, LK_MEMORY, "a text for a buffer could not be formatted");
    room = lk_buf_room(buf, (size_t)n, err);
    if (!room)
        return -1;
    va_start(args, format);
    vsnprintf(room, (size_t)n + 1, format, args);
    va_end(args);
    buf->len += (size_t)n;
    return 0;
}
