/* SPDX-License-Identifier: MIT
 * lines.c - what is kept of a program's output: the end of it, and its lines for the log.
 * Owns the kept bytes. Knows no loop, no log, no Lua. One thread at a time. */
#include "lines.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* --- the end of an output --- */

void lk_tail_init(struct lk_tail *tail, size_t max)
{
    memset(tail, 0, sizeof *tail);
    tail->max = max;
}

void lk_tail_free(struct lk_tail *tail)
{
    free(tail->data);
    lk_tail_init(tail, tail->max);
}

/* Makes room for `len` bytes in all, as far as max allows. Called while nothing has wrapped yet. */
static void grow(struct lk_tail *tail, size_t len)
{
    size_t cap = tail->cap > 0 ? tail->cap : 1024;
    char *data;

    while (cap < len)
        cap *= 2;
    if (cap > tail->max)
        cap = tail->max;
    if (cap <= tail->cap || (data = realloc(tail->data, cap + 1)) == NULL)
        return;
    tail->data = data;
    tail->cap = cap;
}

void lk_tail_add(struct lk_tail *tail, const char *data, size_t len)
{
    if (tail->start == 0 && tail->len + len > tail->cap)
        grow(tail, tail->len + len);
    if (len > tail->cap) {
        data += len - tail->cap;
        len = tail->cap;
        tail->truncated = true;
    }
    while (len > 0) {
        size_t at = (tail->start + tail->len) % tail->cap;
        size_t n = tail->cap - at < len ? tail->cap - at : len;
        memcpy(tail->data + at, data, n);
        data += n;
        len -= n;
        tail->len += n;
        if (tail->len > tail->cap) {
            tail->start = (tail->start + tail->len - tail->cap) % tail->cap;
            tail->len = tail->cap;
            tail->truncated = true;
        }
    }
}

static void reverse(char *data, size_t len)
{
    for (size_t i = 0; i < len / 2; i++) {
        char c = data[i];
        data[i] = data[len - 1 - i];
        data[len - 1 - i] = c;
    }
}

const char *lk_tail_text(struct lk_tail *tail, size_t *len)
{
    *len = tail->len;
    if (tail->data == NULL)
        return "";
    if (tail->start >
        0) { /* it has wrapped, so it is full: rotate by reversing both halves and the whole */
        reverse(tail->data, tail->start);
        reverse(tail->data + tail->start, tail->cap - tail->start);
        reverse(tail->data, tail->cap);
        tail->start = 0;
    }
    tail->data[tail->len] = '\0';
    return tail->data;
}

/* --- clean text --- */

/* The length of the UTF-8 sequence at `text` if it is one and may be shown; else 0. */
static size_t shown(const unsigned char *text, size_t len)
{
    uint32_t c = text[0], least;
    size_t size;

    if (c < 0x80)
        return (c >= 0x20 && c != 0x7f) || c == '\t' ? 1 : 0;
    if (c >= 0xc2 && c < 0xe0) {
        size = 2;
        least = 0xa0; /* 0x80 to 0x9f are control characters */
        c &= 0x1f;
    } else if (c >= 0xe0 && c < 0xf0) {
        size = 3;
        least = 0x800;
        c &= 0x0f;
    } else if (c >= 0xf0 && c < 0xf5) {
        size = 4;
        least = 0x10000;
        c &= 0x07;
    } else {
        return 0;
    }
    if (size > len)
        return 0;
    for (size_t i = 1; i < size; i++) {
        if ((text[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (text[i] & 0x3f);
    }
    return c < least || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? 0 : size;
}

void lk_text_clean(char *text, size_t len)
{
    for (size_t i = 0; i < len;) {
        size_t size = shown((unsigned char *)text + i, len - i);
        if (size == 0)
            text[i++] = '?';
        else
            i += size;
    }
}

/* --- lines --- */

static void give(struct lk_lines *lines)
{
    size_t len = lines->len;

    lines->len = 0;
    lines->returned = false;
    if (len == 0) {
        lines->cut = false;
        return;
    }
    if (lines->cut) {
        /* The cut may be inside a character: its beginning goes too. */
        while (len > LK_LINE_MAX - 3 && (lines->text[len - 1] & 0xc0) == 0x80)
            len--;
        if (len > 0 && (lines->text[len - 1] & 0xc0) == 0xc0)
            len--;
    }
    lk_text_clean(lines->text, len);
    memcpy(lines->text + len, "...", 4);
    if (!lines->cut)
        lines->text[len] = '\0';
    lines->cut = false;
    lines->line(lines->arg, lines->text);
}

void lk_lines_add(struct lk_lines *lines, const char *data, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        char c = data[i];
        if (c == '\n') {
            give(lines);
            continue;
        }
        if (lines->returned) { /* only now: the end of the line may come after it */
            lines->len = 0;
            lines->cut = false;
        }
        lines->returned = c == '\r';
        if (lines->returned)
            continue;
        if (lines->len < LK_LINE_MAX)
            lines->text[lines->len++] = c;
        else
            lines->cut = true;
    }
}

void lk_lines_end(struct lk_lines *lines)
{
    give(lines);
}

void lk_last_lines(const char *text, size_t len, int count, char *out, size_t size)
{
    size_t from, used = 0;
    int lines = 0;

    while (len > 0 && (text[len - 1] == '\n' || text[len - 1] == '\r'))
        len--;
    for (from = len; from > 0; from--) {
        bool ends = text[from - 1] == '\n';
        if (ends && from < len && text[from] != '\n' && ++lines == count)
            break;
    }
    if (len - from > size / 2) /* room for the separators */
        from = len - size / 2;
    for (size_t i = from; i < len && used + 3 < size; i++) {
        if (text[i] == '\r')
            continue;
        if (text[i] != '\n') {
            out[used++] = text[i];
        } else if (used > 0 && out[used - 1] != ' ') {
            out[used++] = ';';
            out[used++] = ' ';
        }
    }
    lk_text_clean(out, used);
    out[used] = '\0';
}
