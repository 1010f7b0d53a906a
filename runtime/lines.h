/* SPDX-License-Identifier: MIT
 * lines.h - what is kept of a program's output: the end of it, and its lines for the log. One
 * thread at a time. */
#ifndef LK_LINES_H
#define LK_LINES_H

#include <stdbool.h>
#include <stddef.h>

/* The last `max` bytes of what was added. */
struct lk_tail {
    char *data;
    size_t max, cap, len;
    size_t start;   /* of the oldest byte, once it wraps */
    bool truncated; /* the beginning is gone */
};

void lk_tail_init(struct lk_tail *tail, size_t max);
void lk_tail_free(struct lk_tail *tail);
/* Without memory it keeps what it has and is truncated. */
void lk_tail_add(struct lk_tail *tail, const char *data, size_t len);
/* In one piece, NUL-terminated, valid until the next call; never NULL. */
const char *lk_tail_text(struct lk_tail *tail, size_t *len);

#define LK_LINE_MAX 4096

/* Cuts bytes into lines of clean text. A carriage return starts the line anew, as on a terminal;
 * what is beyond LK_LINE_MAX is left out and marked with "...". */
struct lk_lines {
    void (*line)(void *arg, const char *text); /* non-empty, clean, without newline */
    void *arg;
    size_t len;
    bool cut, returned;
    char text[LK_LINE_MAX + 4];
};

void lk_lines_add(struct lk_lines *lines, const char *data, size_t len);
/* Gives out an unfinished last line. */
void lk_lines_end(struct lk_lines *lines);

/* Replaces in place, each byte by '?', what would harm a terminal or a log: control characters but
 * tab, and what is not UTF-8. */
void lk_text_clean(char *text, size_t len);
/* The last non-empty lines of text, at most `count`, joined with "; ", clean, in out. */
void lk_last_lines(const char *text, size_t len, int count, char *out, size_t size);

#endif
