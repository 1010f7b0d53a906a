/* SPDX-License-Identifier: MIT
 * beneath.c - opens directories beneath one directory, never through a link.
 *
 * Every component is opened by itself, relative to the one before it and with O_NOFOLLOW, and `..`
 * is refused before. So no lookup can leave the root: the promise of openat2(RESOLVE_BENEATH |
 * RESOLVE_NO_SYMLINKS), but on every kernel, for paths of any length, and with one system call for
 * a directory next to the last one, because the way to that stays open. At most OPEN_LEVELS
 * descriptors are kept; one above them is found again from the root.
 *
 * Owns the descriptors of its levels. One thread at a time. */
#include "beneath.h"
#include "tar.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { OPEN_LEVELS = 16 };

struct level {
    size_t end; /* of its path in beneath->path */
    int fd;     /* -1 when it had to be closed */
};

struct lk_beneath {
    int root;
    struct lk_buf path; /* of the deepest level */
    struct level *levels;
    size_t depth, room;
};

struct lk_beneath *lk_beneath_new(int root, struct lk_error *err)
{
    struct lk_beneath *b = calloc(1, sizeof *b);
    if (!b) {
        lk_error_set(err, LK_MEMORY, "no memory for a directory");
        return NULL;
    }
    b->root = root;
    lk_buf_init(&b->path, 2 * LK_TAR_PATH_MAX);
    return b;
}

static void drop_to(struct lk_beneath *b, size_t depth)
{
    while (b->depth > depth) {
        struct level *level = &b->levels[--b->depth];
        if (level->fd >= 0)
            close(level->fd);
    }
    b->path.len = depth ? b->levels[depth - 1].end : 0;
}

void lk_beneath_free(struct lk_beneath *b)
{
    if (!b)
        return;
    drop_to(b, 0);
    free(b->levels);
    lk_buf_free(&b->path);
    free(b);
}

static int open_component(int parent, const char *name)
{
    return openat(parent, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

static int fail(const struct lk_beneath *b, int parent, size_t start, int errnum,
                struct lk_error *err)
{
    struct stat st;
    const char *path = b->path.data;
    if (errnum != ENOTDIR && errnum != ELOOP)
        return lk_error_errno(err, errnum, "directory %.200s can't be opened", path);
    bool link = fstatat(parent, path + start, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(st.st_mode);
    lk_error_set(err, LK_CONFLICT, "%.200s is %s, a directory was expected", path,
                 link ? "a link" : "not a directory");
    return lk_error_hint(
        err, link ? "extraction never goes through a link; remove it or choose another target"
                  : "remove it or choose another target");
}

/* The descriptor of the deepest level, opened again from the root if it was closed. */
static int deepest(struct lk_beneath *b, struct lk_error *err)
{
    if (b->depth == 0)
        return b->root;
    struct level *last = &b->levels[b->depth - 1];
    if (last->fd >= 0)
        return last->fd;
    int fd = b->root;
    char *path = b->path.data;
    for (size_t i = 0, start = 0; i < b->depth; start = b->levels[i++].end + 1) {
        char kept = path[b->levels[i].end];
        path[b->levels[i].end] = 0;
        int next = open_component(fd, path + start);
        int errnum = errno;
        if (next < 0)
            lk_error_errno(err, errnum, "directory %.200s can't be opened again", path);
        path[b->levels[i].end] = kept;
        if (fd != b->root)
            close(fd);
        if (next < 0)
            return -1;
        fd = next;
    }
    last->fd = fd;
    return fd;
}

static int add_level(struct lk_beneath *b, int fd, struct lk_error *err)
{
    if (b->depth == b->room) {
        size_t room = b->room ? b->room * 2 : 16;
        struct level *levels = realloc(b->levels, room * sizeof *levels);
        if (!levels) {
            close(fd);
            return lk_error_set(err, LK_MEMORY, "no memory for %zu levels of directories", room);
        }
        b->levels = levels;
        b->room = room;
    }
    b->levels[b->depth++] = (struct level){.end = b->path.len, .fd = fd};
    if (b->depth > OPEN_LEVELS) {
        struct level *above = &b->levels[b->depth - 1 - OPEN_LEVELS];
        if (above->fd >= 0)
            close(above->fd);
        above->fd = -1;
    }
    return 0;
}

/* One component down. */
static int down(struct lk_beneath *b, const char *name, size_t len, bool make, struct lk_error *err)
{
    int parent = deepest(b, err);
    if (parent < 0)
        return -1;
    size_t old = b->path.len;
    if ((old && lk_buf_add(&b->path, "/", 1, err)) || lk_buf_add(&b->path, name, len, err))
        return -1;
    size_t start = old ? old + 1 : 0;
    const char *component = b->path.data + start;
    int fd = open_component(parent, component);
    if (fd < 0 && errno == ENOENT && make &&
        (mkdirat(parent, component, 0777) == 0 || errno == EEXIST))
        fd = open_component(parent, component);
    if (fd < 0)
        fail(b, parent, start, errno, err);
    else if (add_level(b, fd, err) == 0)
        return 0;
    b->path.len = old;
    return -1;
}

/* Levels that `path` shares with the last one. */
static size_t common(const struct lk_beneath *b, const char *path, size_t len)
{
    size_t depth = 0;
    while (depth < b->depth) {
        size_t end = b->levels[depth].end, start = depth ? b->levels[depth - 1].end : 0;
        if (end > len || memcmp(path + start, b->path.data + start, end - start) != 0 ||
            (end < len && path[end] != '/'))
            break;
        depth++;
    }
    return depth;
}

int lk_beneath_open(struct lk_beneath *b, const char *path, size_t len, bool make,
                    struct lk_error *err)
{
    drop_to(b, common(b, path, len));
    size_t at = b->path.len + (b->path.len && b->path.len < len);
    while (at < len) {
        const char *slash = memchr(path + at, '/', len - at);
        size_t n = slash ? (size_t)(slash - path) - at : len - at;
        if (down(b, path + at, n, make, err))
            return -1;
        at += n + 1;
    }
    return deepest(b, err);
}

int lk_beneath_clean(const char *path, const char *what, struct lk_buf *out, struct lk_error *err)
{
    if (*path == '/') {
        lk_error_set(err, LK_CORRUPT,
                     "%s %.200s is an absolute path, one beneath the target was expected", what,
                     path);
        return lk_error_hint(err, "the archive was not made by lunark, or was tampered with");
    }
    size_t first = out->len;
    for (const char *at = path; *at;) {
        size_t n = strcspn(at, "/");
        if (n == 2 && at[0] == '.' && at[1] == '.') {
            lk_error_set(err, LK_CORRUPT,
                         "%s %.200s has a \"..\", a path beneath the target was expected", what,
                         path);
            return lk_error_hint(err, "the archive was not made by lunark, or was tampered with");
        }
        if (n > 0 && !(n == 1 && at[0] == '.') &&
            ((out->len > first && lk_buf_add(out, "/", 1, err)) || lk_buf_add(out, at, n, err)))
            return -1;
        at += n;
        at += strspn(at, "/");
    }
    return lk_buf_add(out, "", 0, err);
}
