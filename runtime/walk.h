/* SPDX-License-Identifier: MIT
 * walk.h - walks directory trees in a stable order without following links.
 * One thread at a time; the callbacks run inside lk_walk. */
#ifndef LK_WALK_H
#define LK_WALK_H

#include "error.h"
#include <stddef.h>
#include <sys/stat.h>

/* --- exclude patterns, exclude.c --- */

/* Patterns as in GNU tar's --exclude (its defaults):
 *   - `*` any number of characters, `?` one, `[abc]` `[a-z]` `[!a]` one of a set, `\` takes the
 * next one as it is. All of them match `/` too. Upper and lower case differ. A character is a UTF-8
 * sequence, or a byte that is not part of one.
 *   - A pattern may begin to match at the start of the path or behind any `/` of it (it is not
 * anchored): `cache` excludes `cache` and `home/a/cache`, `a/b` excludes `x/a/b`. It must match to
 * the end of the path, or up to a `/`.
 *   - What lies below an excluded directory is excluded.
 *   - The path is the root as given (with its leading `/`) and what was found below it: `/home/a`
 * excludes only that. A slash at the end of a pattern is ignored (where GNU tar matches nothing).
 */
struct lk_exclude;

struct lk_exclude *lk_exclude_new(const char *const *patterns, size_t count, struct lk_error *err);
void lk_exclude_free(struct lk_exclude *exclude);
/* One pattern by these rules, but from the path's beginning on: true if it matches all of the path,
 * or all up to a slash. */
bool lk_pattern_matches(const char *pattern, const char *path);
/* Whole rules for one path; also true when a directory above it is excluded. */
bool lk_exclude_path(const struct lk_exclude *exclude, const char *path);
/* The same for a path whose directories are known not to be excluded; base = its last component.
 * Faster. */
bool lk_exclude_name(const struct lk_exclude *exclude, const char *path, const char *base);

/* --- the walk, walk.c --- */

struct lk_walk_entry {
    const char *source; /* path in the file system, as the root was given: for messages */
    const char *path;   /* member path */
    size_t path_len;
    int dirfd; /* name is relative to it; may be AT_FDCWD */
    const char *name;
    int fd;     /* a directory's own descriptor, the walk's; else -1 */
    bool known; /* st is filled; else it is a regular file, as far as its directory says */
    struct stat st;
};

enum lk_walk_problem { LK_WALK_VANISHED, LK_WALK_UNREADABLE };

struct lk_walk {
    const struct lk_exclude *exclude; /* NULL = nothing */
    bool exclude_caches;
    bool one_file_system;
    /* One entry, a directory before what is in it. Not 0 ends the walk. */
    int (*visit)(void *arg, const struct lk_walk_entry *entry);
    /* Something could not be looked at; the walk goes on. errnum 0: message says it all. */
    void (*problem)(void *arg, const char *source, enum lk_walk_problem kind, int errnum,
                    const char *message);
    void *arg;
};

/* Walks one root: `path` in the file system, `name` as member path ("" = what is below it has no
 * prefix). Entries of a directory come in the order of their bytes. A root that is a link is
 * visited as a link. Depth and length of paths are limited only by LK_TAR_PATH_MAX, and few
 * descriptors are open at once. 0, what visit returned, or -1. */
int lk_walk_root(const struct lk_walk *walk, const char *path, const char *name,
                 struct lk_error *err);

/* Member path of a root without a name of its own: without leading "/" and "./", and without
 * anything up to a `..`. *name is malloc'ed. */
int lk_walk_name(const char *path, char **name, struct lk_error *err);

#endif
