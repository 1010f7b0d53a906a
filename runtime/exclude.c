/* SPDX-License-Identifier: MIT
 * exclude.c - exclude patterns as in GNU tar's --exclude; the rules are in walk.h.
 * Not fnmatch(): that depends on the process's locale and rejects names that are not valid in it.
 * Since `*` matches everything, `/` too, only the last `*` ever needs another try: matching takes
 * at most pattern times path steps. Immutable once made; any thread. */
#include "walk.h"
#include <stdlib.h>
#include <string.h>

struct pattern {
    char *text;
    bool literal; /* no special character and no slash: compared with the last component */
};

struct lk_exclude {
    size_t count;
    struct pattern *patterns;
};

/* Bytes of the character at s: a whole UTF-8 sequence if it looks like one, else 1. */
static size_t character(const char *s)
{
    unsigned char c = (unsigned char)*s;
    size_t len = c >= 0xf0 && c <= 0xf4 ? 4 : c >= 0xe0 ? 3 : c >= 0xc2 ? 2 : 1;
    if (c > 0xf4)
        return 1;
    for (size_t i = 1; i < len; i++)
        if (((unsigned char)s[i] & 0xc0) != 0x80)
            return 1;
    return len;
}

/* Compares as numbers: equal lengths bytewise, else the longer sequence is the larger code point.
 */
static int compare(const char *a, size_t a_len, const char *b, size_t b_len)
{
    return a_len != b_len ? (a_len < b_len ? -1 : 1) : memcmp(a, b, a_len);
}

/* The set at p ("[...]"). Returns the pattern behind it, or NULL if it has no end (then "[" stands
 * for itself). */
static const char *set(const char *p, const char *c, size_t len, bool *match)
{
    bool negated = p[1] == '!' || p[1] == '^', found = false;
    const char *at = p + 1 + negated, *first = at;
    while (*at && (*at != ']' || at == first)) {
        if (*at == '\\' && at[1])
            at++;
        size_t low_len = character(at), high_len = low_len;
        const char *low = at, *high = at;
        at += low_len;
        if (at[0] == '-' && at[1] && at[1] != ']') {
            high = at + 1;
            if (*high == '\\' && high[1])
                high++;
            high_len = character(high);
            at = high + high_len;
        }
        if (compare(low, low_len, c, len) <= 0 && compare(c, len, high, high_len) <= 0)
            found = true;
    }
    if (!*at)
        return NULL;
    *match = found != negated;
    return at + 1;
}

/* Matches one character of the pattern. Returns the pattern behind it, or NULL; *len = bytes of s
 * it took. */
static const char *one(const char *p, const char *s, size_t *len)
{
    *len = character(s);
    if (*p == '?')
        return p + 1;
    if (*p == '[') {
        bool match = false;
        const char *after = set(p, s, *len, &match);
        if (after)
            return match ? after : NULL;
    }
    if (*p == '\\' && p[1])
        p++;
    *len = 1;
    return *p == *s ? p + 1 : NULL;
}

bool lk_pattern_matches(const char *p, const char *s)
{
    const char *star = NULL, *again = NULL;
    while (*s) {
        size_t len;
        const char *next;
        if (*p == '*') {
            star = ++p;
            again = s;
        } else if (*p && (next = one(p, s, &len))) {
            p = next;
            s += len;
        } else if (!*p && *s == '/') {
            return true;
        } else if (star) {
            p = star;
            again += character(again);
            s = again;
        } else {
            return false;
        }
    }
    while (*p == '*')
        p++;
    return !*p;
}

static bool anywhere(const char *pattern, const char *path)
{
    if (lk_pattern_matches(pattern, path))
        return true;
    for (const char *s = strchr(path, '/'); s; s = strchr(s + 1, '/'))
        if (s[1] && s[1] != '/' && lk_pattern_matches(pattern, s + 1))
            return true;
    return false;
}

bool lk_exclude_path(const struct lk_exclude *exclude, const char *path)
{
    for (size_t i = 0; exclude && i < exclude->count; i++)
        if (anywhere(exclude->patterns[i].text, path))
            return true;
    return false;
}

bool lk_exclude_name(const struct lk_exclude *exclude, const char *path, const char *base)
{
    for (size_t i = 0; exclude && i < exclude->count; i++) {
        const struct pattern *pattern = &exclude->patterns[i];
        if (pattern->literal ? strcmp(pattern->text, base) == 0 : anywhere(pattern->text, path))
            return true;
    }
    return false;
}

void lk_exclude_free(struct lk_exclude *exclude)
{
    if (!exclude)
        return;
    for (size_t i = 0; exclude->patterns && i < exclude->count; i++)
        free(exclude->patterns[i].text);
    free(exclude->patterns);
    free(exclude);
}

struct lk_exclude *lk_exclude_new(const char *const *patterns, size_t count, struct lk_error *err)
{
    struct lk_exclude *exclude = calloc(1, sizeof *exclude);
    if (!exclude)
        goto memory;
    exclude->patterns = calloc(count ? count : 1, sizeof *exclude->patterns);
    if (!exclude->patterns)
        goto memory;
    exclude->count = count;
    for (size_t i = 0; i < count; i++) {
        size_t len = strlen(patterns[i]);
        if (len == 0) {
            lk_error_set(err, LK_USAGE, "exclude pattern %zu is empty", i + 1);
            goto failed;
        }
        while (len > 1 && patterns[i][len - 1] == '/')
            len--;
        char *text = strndup(patterns[i], len);
        if (!text)
            goto memory;
        exclude->patterns[i].text = text;
        exclude->patterns[i].literal = !strpbrk(text, "*?[\\/");
    }
    return exclude;
memory:
    lk_error_set(err, LK_MEMORY, "no memory for %zu exclude patterns", count);
failed:
    lk_exclude_free(exclude);
    return NULL;
}
