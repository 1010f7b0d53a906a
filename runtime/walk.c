/* SPDX-License-Identifier: MIT
 * walk.c - walks a directory tree in the order of its names' bytes.
 *
 * Every step is relative to a directory's descriptor and never follows a link, so neither the
 * length of a path nor a tree that changes meanwhile leads elsewhere. The way down is a list on the
 * heap. Only the deepest OPEN_FRAMES directories keep their descriptor; one above them is opened
 * again from below by "..", or, where that is not the same directory any more, component by
 * component from the root.
 *
 * Owns the descriptors it passes to the callbacks. One thread at a time. */
#include "walk.h"
#include "buf.h"
#include "tar.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OPEN_FRAMES = 16, DENTS_SIZE = 32 << 10 };
#define NAMES_MAX ((size_t)1 << 30) /* bytes of the names of one directory */

struct frame {
    int fd; /* -1 when it had to be closed */
    dev_t dev;
    ino_t ino;
    size_t source_len, path_len; /* of this directory's own paths */
    char *names;                 /* type byte, name, NUL; again and again */
    char **order;                /* sorted, each behind its type byte */
    size_t count, next;
};

struct walker {
    const struct lk_walk *walk;
    struct lk_buf source, path;
    struct frame *frames;
    size_t depth, room;
    char *dents;
    dev_t dev; /* of the root */
};

/* --- names --- */

int lk_walk_name(const char *path, char **name, struct lk_error *err)
{
    char *out = malloc(strlen(path) + 1);
    if (!out)
        return lk_error_set(err, LK_MEMORY, "no memory for a path");
    size_t len = 0;
    for (const char *at = path; *at;) {
        size_t n = strcspn(at, "/");
        if (n == 2 && at[0] == '.' && at[1] == '.') {
            len = 0;
        } else if (n > 0 && !(n == 1 && at[0] == '.')) {
            if (len)
                out[len++] = '/';
            memcpy(out + len, at, n);
            len += n;
        }
        at += n;
        at += strspn(at, "/");
    }
    out[len] = 0;
    *name = out;
    return 0;
}

static void cut(struct lk_buf *buf, size_t len)
{
    buf->len = len;
    if (buf->data)
        buf->data[len] = 0;
}

/* Appends one component to both paths; false if they would get too long. */
static bool append(struct walker *w, const char *name)
{
    size_t len = strlen(name);
    bool slash = w->source.len > 0 && w->source.data[w->source.len - 1] != '/';
    return w->path.len + len + 2 < LK_TAR_PATH_MAX &&
           (!slash || lk_buf_add(&w->source, "/", 1, NULL) == 0) &&
           lk_buf_add(&w->source, name, len, NULL) == 0 &&
           (w->path.len == 0 || lk_buf_add(&w->path, "/", 1, NULL) == 0) &&
           lk_buf_add(&w->path, name, len, NULL) == 0;
}

static void problem(struct walker *w, enum lk_walk_problem kind, int errnum, const char *message)
{
    w->walk->problem(w->walk->arg, w->source.data, kind, errnum, message);
}

static void problem_errno(struct walker *w, int errnum)
{
    problem(w, errnum == ENOENT ? LK_WALK_VANISHED : LK_WALK_UNREADABLE, errnum, NULL);
}

/* --- reading a directory --- */

static int open_directory(int dirfd, const char *name)
{
    const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    int fd = openat(dirfd, name, flags | O_NOATIME);
    if (fd < 0 && errno == EPERM) /* only the owner may keep the access time */
        fd = openat(dirfd, name, flags);
    return fd;
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The tag of the Cache Directory Tagging Specification: it counts only with this beginning. */
static bool tagged(int fd)
{
    static const char signature[] = "Signature: 8a477f597d28d172789f06886806bc55";
    char text[sizeof signature - 1];
    int tag = openat(fd, "CACHEDIR.TAG", O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (tag < 0)
        return false;
    ssize_t n = read(tag, text, sizeof text);
    close(tag);
    return n == (ssize_t)sizeof text && memcmp(text, signature, sizeof text) == 0;
}

/* Sorts what read_names collected; in a cache directory only the tag is left. */
static int order_names(struct walker *w, struct frame *f, struct lk_buf *names, bool tag,
                       struct lk_error *err)
{
    f->names = names->data;
    f->order = malloc((f->count ? f->count : 1) * sizeof *f->order);
    if (!f->order)
        return lk_error_set(err, LK_MEMORY, "no memory for the %zu names in %s", f->count,
                            w->source.data);
    bool only_tag = tag && w->walk->exclude_caches && tagged(f->fd);
    size_t kept = 0;
    char *at = f->names;
    for (size_t i = 0; i < f->count; i++) {
        if (!only_tag || strcmp(at + 1, "CACHEDIR.TAG") == 0)
            f->order[kept++] = at + 1;
        at += strlen(at + 1) + 2;
    }
    f->count = kept;
    qsort(f->order, f->count, sizeof *f->order, by_bytes);
    return 0;
}

static int read_names(struct walker *w, struct frame *f, struct lk_error *err)
{
    struct lk_buf names;
    lk_buf_init(&names, NAMES_MAX);
    bool tag = false;
    for (;;) {
        ssize_t n = getdents64(f->fd, w->dents, DENTS_SIZE);
        if (n < 0)
            problem_errno(w, errno); /* goes on with the names it has */
        if (n <= 0)
            break;
        for (ssize_t at = 0; at < n;) {
            const struct dirent64 *d = (const struct dirent64 *)(const void *)(w->dents + at);
            at += d->d_reclen;
            if (d->d_name[0] == '.' && (!d->d_name[1] || (d->d_name[1] == '.' && !d->d_name[2])))
                continue;
            if (lk_buf_add(&names, &d->d_type, 1, err) ||
                lk_buf_add(&names, d->d_name, strlen(d->d_name) + 1, err)) {
                lk_buf_free(&names);
                return -1;
            }
            f->count++;
            if (d->d_name[0] == 'C' && strcmp(d->d_name, "CACHEDIR.TAG") == 0)
                tag = true;
        }
    }
    return order_names(w, f, &names, tag, err);
}

/* --- down and up --- */

static int push(struct walker *w, int fd, const struct stat *st, struct lk_error *err)
{
    if (w->depth == w->room) {
        size_t room = w->room ? w->room * 2 : 16;
        struct frame *frames = realloc(w->frames, room * sizeof *frames);
        if (!frames) {
            close(fd);
            return lk_error_set(err, LK_MEMORY, "no memory for %zu levels of directories", room);
        }
        w->frames = frames;
        w->room = room;
    }
    struct frame *f = &w->frames[w->depth++];
    *f = (struct frame){.fd = fd,
                        .dev = st->st_dev,
                        .ino = st->st_ino,
                        .source_len = w->source.len,
                        .path_len = w->path.len};
    if (w->depth > OPEN_FRAMES) {
        struct frame *above = &w->frames[w->depth - 1 - OPEN_FRAMES];
        if (above->fd >= 0)
            close(above->fd);
        above->fd = -1;
    }
    return read_names(w, f, err);
}

static bool is_frame(int fd, const struct frame *f)
{
    struct stat st;
    return fstat(fd, &st) == 0 && st.st_dev == f->dev && st.st_ino == f->ino;
}

/* Opens the directory of frame `level` anew from the root down. */
static int open_from_root(struct walker *w, size_t level)
{
    char *source = w->source.data;
    int fd = -1;
    for (size_t i = 0; i <= level; i++) {
        size_t end = w->frames[i].source_len;
        size_t start = i ? w->frames[i - 1].source_len : 0;
        char kept = source[end];
        source[end] = 0;
        int next = open_directory(i ? fd : AT_FDCWD, source + start + (i && source[start] == '/'));
        source[end] = kept;
        if (fd >= 0)
            close(fd);
        if (next >= 0 && !is_frame(next, &w->frames[i])) {
            close(next);
            next = -1;
        }
        if (next < 0)
            return -1;
        fd = next;
    }
    return fd;
}

static void pop(struct walker *w)
{
    struct frame *f = &w->frames[w->depth - 1];
    if (w->depth > 1 && f[-1].fd < 0) {
        struct frame *parent = f - 1;
        if (f->fd >= 0) {
            parent->fd = open_directory(f->fd, "..");
            if (parent->fd >= 0 && !is_frame(parent->fd, parent)) {
                close(parent->fd);
                parent->fd = -1;
            }
        }
        if (parent->fd < 0)
            parent->fd = open_from_root(w, w->depth - 2);
        cut(&w->source, parent->source_len);
        if (parent->fd < 0 && parent->next < parent->count) {
            problem(w, LK_WALK_VANISHED, 0, "directory was moved or removed while it was read");
            parent->next = parent->count;
        }
    }
    if (f->fd >= 0)
        close(f->fd);
    free(f->names);
    free(f->order);
    w->depth--;
}

static int visit(struct walker *w, struct lk_walk_entry *entry)
{
    entry->source = w->source.data;
    entry->path = w->path.len ? w->path.data : ".";
    entry->path_len = w->path.len ? w->path.len : 1;
    return w->walk->visit(w->walk->arg, entry);
}

/* A directory whose descriptor is open: its own entry, then down. */
static int directory(struct walker *w, struct lk_walk_entry *entry, int fd, struct lk_error *err)
{
    if (fstat(fd, &entry->st)) {
        problem_errno(w, errno);
        close(fd);
        return 0;
    }
    entry->fd = fd;
    entry->known = true;
    int result = visit(w, entry);
    if (w->depth == 0)
        w->dev = entry->st.st_dev;
    /* As tar: the place where another file system is mounted is archived, what is in it is not. */
    if (result || (w->walk->one_file_system && entry->st.st_dev != w->dev)) {
        close(fd);
        return result;
    }
    return push(w, fd, &entry->st, err);
}

/* One name, already appended to the paths. */
static int step(struct walker *w, int dirfd, const char *name, unsigned char type,
                struct lk_error *err)
{
    struct lk_walk_entry entry = {.dirfd = dirfd, .name = name, .fd = -1};
    if (type == DT_REG)
        return visit(w, &entry);
    if (type == DT_DIR) {
        int fd = open_directory(dirfd, name);
        if (fd >= 0)
            return directory(w, &entry, fd, err);
    }
    if (fstatat(dirfd, name, &entry.st, AT_SYMLINK_NOFOLLOW)) {
        problem_errno(w, errno);
        return 0;
    }
    entry.known = true;
    if (!S_ISDIR(entry.st.st_mode))
        return visit(w, &entry);
    int fd = open_directory(dirfd, name);
    if (fd >= 0)
        return directory(w, &entry, fd, err);
    /* It can't be read: what is known of it is archived. */
    problem_errno(w, errno);
    return visit(w, &entry);
}

/* The next name of the deepest directory. */
static int advance(struct walker *w, struct lk_error *err)
{
    struct frame *f = &w->frames[w->depth - 1];
    if (f->next == f->count) {
        pop(w);
        return 0;
    }
    char *name = f->order[f->next++];
    cut(&w->source, f->source_len);
    cut(&w->path, f->path_len);
    if (!append(w, name)) {
        problem(w, LK_WALK_UNREADABLE, 0, "path is too long");
        return 0;
    }
    if (lk_exclude_name(w->walk->exclude, w->source.data, name))
        return 0;
    return step(w, f->fd, name, (unsigned char)name[-1], err);
}

int lk_walk_root(const struct lk_walk *walk, const char *path, const char *name,
                 struct lk_error *err)
{
    struct walker w = {.walk = walk};
    int result = -1;
    size_t len = strlen(path);
    while (len > 1 && path[len - 1] == '/') /* as tar: "link/" is the link */
        len--;
    lk_buf_init(&w.source, 2 * LK_TAR_PATH_MAX);
    lk_buf_init(&w.path, LK_TAR_PATH_MAX);
    w.dents = malloc(DENTS_SIZE);
    char *root = strndup(path, len);
    if (!w.dents || !root) {
        lk_error_set(err, LK_MEMORY, "no memory to walk %s", path);
        goto done;
    }
    if (lk_buf_add(&w.source, path, len, err) || lk_buf_add(&w.path, name, strlen(name), err))
        goto done;
    result = 0;
    if (lk_exclude_path(walk->exclude, root))
        goto done;
    result = step(&w, AT_FDCWD, root, DT_UNKNOWN, err);
    while (result == 0 && w.depth > 0)
        result = advance(&w, err);
done:
    while (w.depth > 0) {
        struct frame *f = &w.frames[--w.depth];
        if (f->fd >= 0)
            close(f->fd);
        free(f->names);
        free(f->order);
    }
    free(w.frames);
    free(w.dents);
    free(root);
    lk_buf_free(&w.source);
    lk_buf_free(&w.path);
    return result;
}
