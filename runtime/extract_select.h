/* SPDX-License-Identifier: MIT
 * extract_select.h - which entries of an archive are extracted, by patterns of their paths. One
 * thread at a time. */
#ifndef LK_EXTRACT_SELECT_H
#define LK_EXTRACT_SELECT_H

#include "error.h"
#include <archive_entry.h>
#include <stddef.h>
#include <stdint.h>

/* A hard link that was selected, to a file that was not. */
struct lk_lost_link {
    struct lk_lost_link *next;
    char *target;
    char path[];
};

struct lk_select_glob {
    char *pattern;    /* as lk_pattern_matches takes it; "" selects everything */
    uint64_t matched; /* entries so far */
};

struct lk_select {
    size_t count;
    struct lk_select_glob *globs;
    struct lk_lost_link *lost, **lost_end; /* in the order of the archive */
    size_t lost_count;
    /* private: the directories above the current entry that were not selected, outermost first */
    struct archive_entry **above;
    size_t above_count, above_room, above_given;
};

/* Patterns without "/" and "./" before them match whole paths, and with a directory all below it.
 * Copies them. */
struct lk_select *lk_select_new(const char *const *globs, size_t count, struct lk_error *err);
void lk_select_free(struct lk_select *select); /* NULL is allowed */
/* 1 = the entry is selected, 0 = it is not, -1. A hard link to what is not selected is kept in
 * `lost`, and 0. */
int lk_select_look(struct lk_select *select, struct archive_entry *entry, struct lk_error *err);
/* After 1: the directories above it that were not given yet, outermost first; NULL when there are
 * no more. The entry stays the selection's. */
struct archive_entry *lk_select_above(struct lk_select *select);

#endif
