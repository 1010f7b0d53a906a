/* SPDX-License-Identifier: MIT
 * extract_select.c - which entries of an archive are extracted.
 * Owns the patterns, what was lost, and the directories above the current entry: an archive has a
 * directory before what is in it, so whether one is needed is known only later. One thread at a
 * time. */
#include "extract_select.h"

#include "index_block.h"
#include "walk.h"
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { LOST_MAX = 1000000 };

static int no_memory(struct lk_error *err)
{
    return lk_error_set(err, LK_MEMORY, "no memory to select paths");
}

struct lk_select *lk_select_new(const char *const *globs, size_t count, struct lk_error *err)
{
    struct lk_select *select = calloc(1, sizeof *select);

    if (!select || !(select->globs = calloc(count ? count : 1, sizeof *select->globs))) {
        free(select);
        no_memory(err);
        return NULL;
    }
    select->lost_end = &select->lost;
    for (; select->count < count; select->count++) {
        const char *text = globs[select->count];
        size_t len = strlen(text);
        lk_path_clean(&text, &len);
        while (len > 0 && text[len - 1] == '/')
            len--;
        if (!(select->globs[select->count].pattern = strndup(text, len))) {
            lk_select_free(select);
            no_memory(err);
            return NULL;
        }
    }
    return select;
}

static void drop_above(struct lk_select *select, size_t from)
{
    while (select->above_count > from)
        archive_entry_free(select->above[--select->above_count]);
    if (select->above_given > from)
        select->above_given = from;
}

void lk_select_free(struct lk_select *select)
{
    if (!select)
        return;
    drop_above(select, 0);
    free(select->above);
    for (size_t i = 0; i < select->count; i++)
        free(select->globs[i].pattern);
    free(select->globs);
    while (select->lost) {
        struct lk_lost_link *next = select->lost->next;
        free(select->lost->target);
        free(select->lost);
        select->lost = next;
    }
    free(select);
}

/* The path without what is before and behind it that means nothing. */
static const char *clean(const char *path, size_t *len)
{
    *len = strlen(path);
    lk_path_clean(&path, len);
    while (*len > 0 && path[*len - 1] == '/')
        --*len;
    return path;
}

static bool matches(struct lk_select *select, const char *path, bool count)
{
    size_t len;
    bool found = false;

    path = clean(path, &len);
    for (size_t i = 0; i < select->count && (count || !found); i++) {
        struct lk_select_glob *glob = &select->globs[i];
        if (*glob->pattern && !lk_pattern_matches(glob->pattern, path))
            continue;
        found = true;
        glob->matched += count;
    }
    return found;
}

static bool is_above(const char *directory, const char *path)
{
    size_t len, path_len;

    directory = clean(directory, &len);
    path = clean(path, &path_len);
    return len == 0 || (len < path_len && path[len] == '/' && memcmp(directory, path, len) == 0);
}

/* Forgets the directories that the entry is not in. */
static void leave_directories(struct lk_select *select, const char *path)
{
    size_t kept = select->above_count;

    while (kept > 0 && !is_above(archive_entry_pathname(select->above[kept - 1]), path))
        kept--;
    drop_above(select, kept);
}

static int remember(struct lk_select *select, struct archive_entry *entry, struct lk_error *err)
{
    if (select->above_count == select->above_room) {
        size_t room = select->above_room ? select->above_room * 2 : 16;
        struct archive_entry **above = realloc(select->above, room * sizeof(*above));
        if (!above)
            return no_memory(err);
        select->above = above;
        select->above_room = room;
    }
    struct archive_entry *copy = archive_entry_clone(entry);
    if (!copy)
        return no_memory(err);
    select->above[select->above_count++] = copy;
    return 0;
}

static int lose(struct lk_select *select, const char *path, const char *target,
                struct lk_error *err)
{
    size_t len = strlen(path);
    struct lk_lost_link *lost = NULL;

    if (select->lost_count < LOST_MAX)
        lost = calloc(1, sizeof *lost + len + 1);
    if (!lost || !(lost->target = strdup(target))) {
        free(lost);
        lk_error_set(err, LK_MEMORY, "no memory for hard links to what is not selected");
        return lk_error_hint(err, "select what they lead to as well");
    }
    memcpy(lost->path, path, len);
    *select->lost_end = lost;
    select->lost_end = &lost->next;
    select->lost_count++;
    return 0;
}

int lk_select_look(struct lk_select *select, struct archive_entry *entry, struct lk_error *err)
{
    const char *path = archive_entry_pathname(entry);
    const char *target = archive_entry_hardlink(entry);

    if (!path || !*path)
        return 1; /* the extraction says what is wrong with it */
    leave_directories(select, path);
    if (!matches(select, path, true))
        return archive_entry_filetype(entry) == AE_IFDIR && !target ? remember(select, entry, err)
                                                                    : 0;
    if (target && !matches(select, target, false))
        return lose(select, path, target, err);
    return 1;
}

struct archive_entry *lk_select_above(struct lk_select *select)
{
    return select->above_given < select->above_count ? select->above[select->above_given++] : NULL;
}
