/* SPDX-License-Identifier: MIT
 * index.c - the list of entries that an archive source hangs on a chunk.
 * Owns the entries of a list. One thread at a time. */
#include "index.h"

#include <stdlib.h>
#include <string.h>

static void free_entries(struct lk_chunk_meta *meta)
{
    struct lk_entries *entries = (struct lk_entries *)meta;
    struct lk_entry *entry = entries->first;

    while (entry) {
        struct lk_entry *next = entry->next;
        lk_entry_free(entry);
        entry = next;
    }
    free(entries);
}

void lk_entry_free(struct lk_entry *entry)
{
    if (entry && entry->large) {
        entry->large->free(entry->large);
    }
    free(entry);
}

struct lk_entries *lk_entries_new(struct lk_error *err)
{
    struct lk_entries *entries = calloc(1, sizeof(*entries));

    if (!entries) {
        lk_error_set(err, LK_MEMORY, "no memory for a list of entries");
        return NULL;
    }
    entries->base.free = free_entries;
    return entries;
}

struct lk_entry *lk_entries_add(struct lk_entries *entries, const char *path, size_t len,
                                struct lk_error *err)
{
    struct lk_entry *entry =
        len < SIZE_MAX - sizeof(*entry) - 1 ? calloc(1, sizeof(*entry) + len + 1) : NULL;

    if (!entry) {
        lk_error_set(err, LK_MEMORY, "no memory for the entry of a path of %zu bytes", len);
        return NULL;
    }
    memcpy(entry->path, path, len);
    entry->path_len = len;
    if (entries->last) {
        entries->last->next = entry;
    } else {
        entries->first = entry;
    }
    entries->last = entry;
    return entry;
}

int lk_path_compare(const char *a, size_t a_len, const char *b, size_t b_len)
{
    size_t len = a_len < b_len ? a_len : b_len;

    for (size_t i = 0; i < len; i++) {
        if (a[i] != b[i]) {
            unsigned char left = a[i] == '/' ? 0 : (unsigned char)a[i];
            unsigned char right = b[i] == '/' ? 0 : (unsigned char)b[i];
            return left < right ? -1 : 1;
        }
    }
    return a_len < b_len ? -1 : a_len > b_len;
}
