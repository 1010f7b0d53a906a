/* SPDX-License-Identifier: MIT
 * extract_name.c - where a member goes beneath the target: maps, and components that are stripped.
 *
 * The path is made clean first, so what a map or a strip makes of it stays beneath the target. No
 * path on disk is touched. Stage thread, but for taking and freeing the maps. */
#include "extract_internal.h"
#include <stdlib.h>
#include <string.h>

/* One side of a map as a clean path; NULL with LK_USAGE. */
static char *side(const char *text, const char *map, struct lk_error *err)
{
    struct lk_buf clean;
    lk_buf_init(&clean, LK_TAR_PATH_MAX);
    int result = lk_beneath_clean(text, "path", &clean, NULL);
    char *copy = result == 0 ? strdup(clean.len ? clean.data : "") : NULL;
    lk_buf_free(&clean);
    if (result)
        lk_error_set(
            err, LK_USAGE,
            "map %s: '%s' is not a path beneath the target, one without a leading \"/\" and "
            "\"..\" was expected",
            map, text);
    else if (!copy)
        lk_error_set(err, LK_MEMORY, "no memory for a path");
    return copy;
}

int lk_extract_take_map(struct lk_extract *x, const struct lk_path_map *map, size_t count,
                        struct lk_error *err)
{
    if (count == 0)
        return 0;
    x->map = calloc(count, sizeof *x->map);
    x->map_used = calloc(count, sizeof *x->map_used);
    if (!x->map || !x->map_used)
        return lk_error_set(err, LK_MEMORY, "no memory for %zu maps", count);
    for (; x->map_count < count; x->map_count++) {
        struct lk_path_map *kept = &x->map[x->map_count];
        /* "/etc" means the same as "etc", which is what the archive has. */
        const char *from = map[x->map_count].from + strspn(map[x->map_count].from, "/");
        if (!(kept->from = side(from, "from", err)))
            return -1;
        if (!(kept->to = side(map[x->map_count].to, "to", err))) {
            free((char *)(uintptr_t)kept->from);
            return -1;
        }
    }
    return 0;
}

void lk_extract_free_map(struct lk_extract *x)
{
    for (size_t i = 0; i < x->map_count; i++) {
        free((char *)(uintptr_t)x->map[i].from);
        free((char *)(uintptr_t)x->map[i].to);
    }
    free(x->map);
    free(x->map_used);
    x->map = NULL;
    x->map_used = NULL;
    x->map_count = 0;
}

void lk_extract_judge_map(struct lk_extract *x)
{
    for (size_t i = 0; i < x->map_count; i++)
        if (x->map_used[i] == 0)
            lk_stats_warn(&x->stats, LK_WARN_SKIPPED, x->map[i].from,
                          "no path in the archive goes by this map");
}

/* out becomes `to` and, behind it, `rest`, which may be in it. */
static int rename_to(struct lk_extract *x, struct lk_buf *out, const char *to, const char *rest)
{
    x->mapped.len = 0;
    rest += *rest == '/';
    if (lk_buf_add(&x->mapped, to, strlen(to), &x->error) ||
        (*to && *rest && lk_buf_add(&x->mapped, "/", 1, &x->error)) ||
        lk_buf_add(&x->mapped, rest, strlen(rest), &x->error))
        return -1;
    out->len = 0;
    return lk_buf_add(out, x->mapped.data ? x->mapped.data : "", x->mapped.len, &x->error);
}

int lk_extract_name(struct lk_extract *x, const char *path, const char *what, struct lk_buf *out)
{
    out->len = 0;
    if (lk_beneath_clean(path, what, out, &x->error))
        return -1;
    for (size_t i = 0; i < x->map_count; i++) {
        size_t len = strlen(x->map[i].from);
        char after = len < out->len ? out->data[len] : 0;
        if (len <= out->len && memcmp(out->data, x->map[i].from, len) == 0 &&
            (len == 0 || after == '/' || after == 0)) {
            x->map_used[i]++;
            return rename_to(x, out, x->map[i].to, out->data + len);
        }
    }
    if (x->strip == 0)
        return 0;
    const char *rest = out->data;
    for (unsigned i = 0; i < x->strip; i++) {
        rest = strchr(rest, '/');
        if (!rest)
            return 1;
        rest++;
    }
    return rename_to(x, out, "", rest);
}
