/* SPDX-License-Identifier: MIT
 * beneath.h - directories beneath one directory, by path, never through a link. One thread at a
 * time. */
#ifndef LK_BENEATH_H
#define LK_BENEATH_H

#include "buf.h"

struct lk_beneath;

/* root stays the caller's and must outlive it. */
struct lk_beneath *lk_beneath_new(int root, struct lk_error *err);
void lk_beneath_free(struct lk_beneath *beneath);
/* A descriptor (O_PATH) of the directory `path`, which was made by lk_beneath_clean; valid until
 * the next call. make: what is missing is made. -1: LK_CONFLICT when a component is a link or no
 * directory, LK_NOT_FOUND, LK_IO. */
int lk_beneath_open(struct lk_beneath *beneath, const char *path, size_t len, bool make,
                    struct lk_error *err);
/* Appends a member path to out without "./", double slashes and a slash at the end; "" is the root.
 * LK_CORRUPT for an absolute path and for one with a `..`. what = "member", "hard link target". */
int lk_beneath_clean(const char *path, const char *what, struct lk_buf *out, struct lk_error *err);

#endif
