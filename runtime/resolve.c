/* SPDX-License-Identifier: MIT
 * resolve.c - follows the links of a path, one component after the other, as the kernel does.
 * realpath() refuses a path that does not exist yet, and a link to nothing is just how one would
 * leave a granted directory. Opens nothing, changes nothing. Any thread. */
#include "resolve.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_LINKS = 40 };

struct walk {
    char done[PATH_MAX]; /* without links; "" is the root */
    size_t len;
    char rest[2 * PATH_MAX]; /* still to follow */
    bool missing;            /* done does not exist, so no link can be below it */
    int links;
};

static int too_long(const char *path, struct lk_error *err)
{
    return lk_error_set(err, LK_DENIED, "path %.200s... is too long to be checked", path);
}

static void pop(struct walk *walk)
{
    while (walk->len > 0 && walk->done[walk->len - 1] != '/')
        walk->len--;
    if (walk->len > 0)
        walk->len--;
    walk->done[walk->len] = '\0';
}

/* Puts what the link in done says before the rest. */
static int follow(struct walk *walk, const char *path, struct lk_error *err)
{
    char target[PATH_MAX], rest[2 * PATH_MAX];
    ssize_t n = readlink(walk->done, target, sizeof target - 1);
    int len;

    if (n < 0) /* replaced meanwhile */
        return lk_error_set(err, LK_DENIED, "path %s changed while it was checked", path);
    target[n] = '\0';
    if (++walk->links > MAX_LINKS)
        return lk_error_set(err, LK_DENIED, "path %s has too many links", path);
    len = snprintf(rest, sizeof rest, "%s/%s", target, walk->rest);
    if (len < 0 || (size_t)len >= sizeof rest)
        return too_long(path, err);
    memcpy(walk->rest, rest, (size_t)len + 1);
    if (target[0] == '/')
        walk->len = 0;
    else
        pop(walk);
    walk->done[walk->len] = '\0';
    return 0;
}

static int step(struct walk *walk, const char *name, size_t len, const char *path,
                struct lk_error *err)
{
    struct stat st;

    if (len == 2 && memcmp(name, "..", 2) == 0) {
        if (walk->missing)
            return lk_error_set(err, LK_DENIED, "path %s has .. behind something that is not there",
                                path);
        pop(walk);
        return 0;
    }
    if (walk->len + 1 + len >= sizeof walk->done)
        return too_long(path, err);
    walk->done[walk->len++] = '/';
    memcpy(walk->done + walk->len, name, len);
    walk->len += len;
    walk->done[walk->len] = '\0';
    if (walk->missing)
        return 0;
    if (lstat(walk->done, &st) < 0) {
        walk->missing = true;
        return 0;
    }
    return S_ISLNK(st.st_mode) ? follow(walk, path, err) : 0;
}

static int start(struct walk *walk, const char *path, struct lk_error *err)
{
    char here[PATH_MAX];
    int len;

    *walk = (struct walk){.len = 0};
    if (path[0] == '/')
        len = snprintf(walk->rest, sizeof walk->rest, "%s", path);
    else if (getcwd(here, sizeof here) && here[0] == '/')
        len = snprintf(walk->rest, sizeof walk->rest, "%s/%s", here, path);
    else
        return lk_error_set(err, LK_DENIED, "path %s: the current directory is unknown", path);
    if (len < 0 || (size_t)len >= sizeof walk->rest)
        return too_long(path, err);
    return 0;
}

int lk_resolve(const char *path, char *out, size_t size, struct lk_error *err)
{
    char name[NAME_MAX + 2];
    struct walk walk;
    size_t skip, len;

    if (start(&walk, path, err) < 0)
        return -1;
    while (walk.rest[skip = strspn(walk.rest, "/")]) {
        len = strcspn(walk.rest + skip, "/");
        if (len >= sizeof name)
            return too_long(path, err);
        memcpy(name, walk.rest + skip, len);
        memmove(walk.rest, walk.rest + skip + len, strlen(walk.rest + skip + len) + 1);
        if (len == 1 && name[0] == '.')
            continue;
        if (step(&walk, name, len, path, err) < 0)
            return -1;
    }
    if (walk.len + 2 > size)
        return too_long(path, err);
    memcpy(out, walk.len > 0 ? walk.done : "/", walk.len > 0 ? walk.len + 1 : 2);
    return 0;
}
