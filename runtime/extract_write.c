/* SPDX-License-Identifier: MIT
 * extract_write.c - makes one entry beneath the target: file, directory, link, device, FIFO.
 *
 * A name that is free is taken directly (O_EXCL and the like never follow or replace anything). A
 * name that is taken is an error, or with `overwrite` the entry is made under a temporary name and
 * renamed over it. What this extraction made itself may always be replaced: an archive can hold a
 * path twice, and the last one counts, as with tar. That is told by the time at which the file came
 * to be. A directory is never replaced by something else. Runs of zeros become holes. Stage thread
 * only. */
#include "extract_internal.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* Runs of zeros of this length become holes; they are looked for in pieces. */
enum { HOLE = 64 << 10, PIECE = 4 << 10, TEMPORARY_SIZE = 40 };

/* Where an entry goes. */
struct place {
    int parent;
    const char *name;
    bool replace;                   /* made as temporary, then renamed */
    char temporary[TEMPORARY_SIZE]; /* "" = name itself */
};

static const char *shown(const struct lk_extract *x)
{
    return x->path.len ? x->path.data : ".";
}

static int fail_errno(struct lk_extract *x, int errnum, const char *what)
{
    return lk_error_errno(&x->error, errnum, "%s can't be %s", shown(x), what);
}

/* --- names that are taken --- */

static bool made_here(const struct lk_extract *x, int parent, const char *name,
                      const struct stat *st)
{
    struct statx sx;
    struct timespec born = st->st_ctim;
    if (statx(parent, name, AT_SYMLINK_NOFOLLOW, STATX_BTIME, &sx) == 0 &&
        (sx.stx_mask & STATX_BTIME))
        born = (struct timespec){.tv_sec = sx.stx_btime.tv_sec, .tv_nsec = sx.stx_btime.tv_nsec};
    return born.tv_sec > x->began.tv_sec ||
           (born.tv_sec == x->began.tv_sec && born.tv_nsec >= x->began.tv_nsec);
}

/* May what has this name go? 0 = yes (or it is gone already). */
static int may_replace(struct lk_extract *x, int parent, const char *name)
{
    struct stat st;
    if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW))
        return errno == ENOENT ? 0 : fail_errno(x, errno, "made");
    if (S_ISDIR(st.st_mode)) {
        lk_error_set(&x->error, LK_CONFLICT,
                     "%s is a directory in the target, something else in the archive", shown(x));
        return lk_error_hint(&x->error, "remove the directory or choose another target");
    }
    if (x->overwrite || made_here(x, parent, name, &st))
        return 0;
    lk_error_set(&x->error, LK_CONFLICT, "%s exists in the target", shown(x));
    return lk_error_hint(&x->error, "extract into an empty directory, or allow to overwrite");
}

/* The name under which the entry is made: its own at the first try, then a temporary one. 0 = try
 * with it. */
static const char *name_of(const struct place *place)
{
    return place->replace ? place->temporary : place->name;
}

/* After a failed try with errno EEXIST: 0 = try again. */
static int next_name(struct lk_extract *x, struct place *place)
{
    if (!place->replace && may_replace(x, place->parent, place->name))
        return -1;
    place->replace = true;
    snprintf(place->temporary, sizeof place->temporary, ".lunark-%ld-%u.tmp", (long)getpid(),
             x->temporary++);
    return 0;
}

/* The entry is complete: gives it its name. */
static int settle(struct lk_extract *x, const struct place *place)
{
    if (!place->replace)
        return 0;
    int result = renameat(place->parent, place->temporary, place->parent, place->name);
    int errnum = errno;
    /* rename() does nothing when both are links to one file; then the temporary one is left. */
    if (unlinkat(place->parent, place->temporary, 0) && result == 0)
        return 0;
    return result ? fail_errno(x, errnum, "replaced") : 0;
}

static void discard(const struct place *place)
{
    unlinkat(place->parent, name_of(place), 0);
}

/* --- data --- */

static bool zeros(const char *data, size_t len)
{
    return data[0] == 0 && memcmp(data, data + 1, len - 1) == 0;
}

static int write_all(struct lk_extract *x, int fd, const char *data, size_t len, int64_t offset)
{
    while (len > 0) {
        ssize_t n = pwrite(fd, data, len, offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail_errno(x, errno, "written");
        data += n;
        len -= (size_t)n;
        offset += n;
    }
    return 0;
}

/* A file that is being written. */
struct data {
    int fd;
    int64_t at; /* behind what was given so far */
    int64_t
        zeros; /* where the zeros before it begin that are not written yet; at = there are none */
};

/* Nonzero data comes at d->at: the zeros before it are left as a hole or, where they are few,
 * written. */
static int fill_gap(struct lk_extract *x, struct data *d)
{
    static const char nothing[HOLE];
    int64_t gap = d->at - d->zeros;
    if (gap > 0 && gap < HOLE && write_all(x, d->fd, nothing, (size_t)gap, d->zeros))
        return -1;
    d->zeros = d->at;
    return 0;
}

static int write_block(struct lk_extract *x, struct data *d, const char *data, size_t len,
                       int64_t offset)
{
    if (offset > d->at) /* a hole that the archive tells of */
        d->at = offset;
    size_t from = 0, at = 0; /* from..at is data and not written yet */
    while (at < len) {
        size_t piece = PIECE - (size_t)((offset + (int64_t)at) % PIECE);
        if (piece > len - at)
            piece = len - at;
        bool zero = zeros(data + at, piece);
        if (zero && at > from &&
            write_all(x, d->fd, data + from, at - from, offset + (int64_t)from))
            return -1;
        if (!zero && from == at && fill_gap(x, d))
            return -1;
        at += piece;
        d->at = offset + (int64_t)at;
        if (zero)
            from = at;
        else
            d->zeros = d->at;
    }
    return at > from ? write_all(x, d->fd, data + from, at - from, offset + (int64_t)from) : 0;
}

static int copy_data(struct lk_extract *x, int fd, int64_t size)
{
    struct data d = {.fd = fd};
    for (;;) {
        const void *data;
        size_t len;
        la_int64_t offset;
        int result = archive_read_data_block(x->archive, &data, &len, &offset);
        if (result == ARCHIVE_EOF)
            break;
        if (result != ARCHIVE_OK && result != ARCHIVE_WARN)
            return lk_extract_parse_error(x, &x->error);
        if (__atomic_load_n(&x->stop, __ATOMIC_RELAXED))
            return lk_error_set(&x->error, LK_CANCELLED, "the extraction was cancelled");
        if (len && write_block(x, &d, data, len, offset))
            return -1;
        __atomic_add_fetch(&x->bytes, len, __ATOMIC_RELAXED);
    }
    if (d.zeros < size && ftruncate(fd, size))
        return fail_errno(x, errno, "given its size");
    return 0;
}

/* --- the kinds of entries --- */

static int regular(struct lk_extract *x, struct archive_entry *entry, struct place *place)
{
    const int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    int fd;
    while ((fd = openat(place->parent, name_of(place), flags, 0600)) < 0)
        if (errno != EEXIST)
            return fail_errno(x, errno, "made");
        else if (next_name(x, place))
            return -1;
    int result = copy_data(x, fd, archive_entry_size(entry));
    if (result == 0)
        result = lk_extract_meta(x, entry, fd, place->parent, name_of(place));
    if (close(fd) && result == 0)
        result = fail_errno(x, errno, "written");
    if (result == 0)
        result = settle(x, place);
    if (result) {
        discard(place);
        return -1;
    }
    x->stats.files++;
    x->stats.bytes += (uint64_t)archive_entry_size(entry);
    return 0;
}

static int symbolic(struct lk_extract *x, struct archive_entry *entry, struct place *place)
{
    const char *target = archive_entry_symlink(entry);
    if (!target)
        return lk_error_set(&x->error, LK_CORRUPT, "link %s has no target", shown(x));
    while (symlinkat(target, place->parent, name_of(place)))
        if (errno != EEXIST)
            return fail_errno(x, errno, "made");
        else if (next_name(x, place))
            return -1;
    if (lk_extract_meta(x, entry, -1, place->parent, name_of(place)) || settle(x, place)) {
        discard(place);
        return -1;
    }
    x->stats.links++;
    return 0;
}

/* Splits a clean path at its last slash: *name is the rest. Length of the directory's part. */
static size_t split(const struct lk_buf *path, const char **name)
{
    const char *slash = memrchr(path->data, '/', path->len);
    *name = slash ? slash + 1 : path->data;
    return slash ? (size_t)(slash - path->data) : 0;
}

static int hard(struct lk_extract *x, const char *target, struct place *place)
{
    const char *name;
    x->target.len = 0;
    if (lk_beneath_clean(target, "hard link target", &x->target, &x->error))
        return -1;
    if (x->target.len == x->path.len && memcmp(x->target.data, x->path.data, x->path.len) == 0)
        return 0; /* a link to itself: nothing to do */
    size_t len = split(&x->target, &name);
    int from = lk_beneath_open(x->targets, x->target.data, len, false, &x->error);
    if (from < 0)
        return -1;
    while (linkat(from, name, place->parent, name_of(place), 0))
        if (errno == ENOENT)
            return lk_error_set(&x->error, LK_CORRUPT,
                                "hard link %s leads to %s, which is not in the archive before it",
                                shown(x), target);
        else if (errno != EEXIST)
            return fail_errno(x, errno, "linked");
        else if (next_name(x, place))
            return -1;
    if (settle(x, place)) {
        discard(place);
        return -1;
    }
    x->stats.links++;
    return 0;
}

static int special(struct lk_extract *x, struct archive_entry *entry, struct place *place)
{
    mode_t type = archive_entry_filetype(entry);
    dev_t device = makedev(archive_entry_rdevmajor(entry), archive_entry_rdevminor(entry));
    while (mknodat(place->parent, name_of(place), type | 0600, type == AE_IFIFO ? 0 : device))
        if (errno == EPERM || errno == ENOTSUP) {
            lk_extract_warn(x, "device or FIFO can't be made, left out", errno);
            return 0;
        } else if (errno != EEXIST) {
            return fail_errno(x, errno, "made");
        } else if (next_name(x, place)) {
            return -1;
        }
    if (lk_extract_meta(x, entry, -1, place->parent, name_of(place)) || settle(x, place)) {
        discard(place);
        return -1;
    }
    x->stats.others++;
    return 0;
}

/* --- directories --- */

/* Keeps what has to wait for the end. */
static int remember(struct lk_extract *x, struct archive_entry *entry)
{
    if (x->dir_count == x->dir_room) {
        size_t room = x->dir_room ? x->dir_room * 2 : 64;
        struct lk_extract_dir *dirs = realloc(x->dirs, room * sizeof *dirs);
        if (!dirs)
            return lk_error_set(&x->error, LK_MEMORY, "no memory for %zu directories", room);
        x->dirs = dirs;
        x->dir_room = room;
    }
    struct lk_extract_dir dir = {
        .path = strdup(x->path.data),
        .number = x->dir_count,
        .timed = archive_entry_mtime_is_set(entry),
        .mtime = archive_entry_mtime(entry),
        .mtime_ns = (uint32_t)archive_entry_mtime_nsec(entry),
        .uid = lk_names_uid(x->names, archive_entry_uname(entry), (uid_t)archive_entry_uid(entry)),
        .gid = lk_names_gid(x->names, archive_entry_gname(entry), (gid_t)archive_entry_gid(entry)),
        .perm = (uint16_t)archive_entry_perm(entry)};
    bool more = archive_entry_xattr_count(entry) > 0 || archive_entry_acl_types(entry) != 0;
    if (more)
        dir.entry = archive_entry_clone(entry);
    if (!dir.path || (more && !dir.entry)) {
        free(dir.path);
        archive_entry_free(dir.entry);
        return lk_error_set(&x->error, LK_MEMORY, "no memory for directory %s", shown(x));
    }
    x->dirs[x->dir_count++] = dir;
    return 0;
}

static int directory(struct lk_extract *x, struct archive_entry *entry, struct place *place)
{
    struct stat st;
    while (place && mkdirat(place->parent, place->name, 0700)) {
        if (errno != EEXIST)
            return fail_errno(x, errno, "made");
        if (fstatat(place->parent, place->name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
            S_ISDIR(st.st_mode))
            break;
        if (may_replace(x, place->parent, place->name))
            return -1;
        if (unlinkat(place->parent, place->name, 0) && errno != ENOENT)
            return fail_errno(x, errno, "replaced");
    }
    x->stats.directories++;
    return remember(x, entry);
}

/* Deeper paths sort behind the ones above them; of equal ones the last wins. */
static int deepest_first(const void *a, const void *b)
{
    const struct lk_extract_dir *one = a, *two = b;
    int order = strcmp(two->path, one->path);
    return order ? order : one->number < two->number ? 1 : -1;
}

/* Fills the entry with what was kept of a directory. */
static struct archive_entry *recall(const struct lk_extract_dir *dir, struct archive_entry *entry)
{
    archive_entry_clear(entry);
    archive_entry_set_filetype(entry, AE_IFDIR);
    archive_entry_set_perm(entry, dir->perm);
    archive_entry_set_uid(entry, dir->uid);
    archive_entry_set_gid(entry, dir->gid);
    if (dir->timed)
        archive_entry_set_mtime(entry, dir->mtime, (long)dir->mtime_ns);
    return entry;
}

static int finish_dir(struct lk_extract *x, const struct lk_extract_dir *dir,
                      struct archive_entry *scratch)
{
    const char *name = ".";
    x->path.len = 0;
    if (lk_buf_add(&x->path, dir->path, strlen(dir->path), &x->error))
        return -1;
    int parent = x->into;
    if (x->path.len) {
        size_t len = split(&x->path, &name);
        parent = lk_beneath_open(x->parents, x->path.data, len, false, &x->error);
    }
    if (parent < 0)
        return -1;
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return fail_errno(x, errno, "given its mode and times");
    struct archive_entry *entry = dir->entry ? dir->entry : recall(dir, scratch);
    int result = lk_extract_meta(x, entry, fd, parent, name);
    close(fd);
    return result;
}

int lk_extract_finish_dirs(struct lk_extract *x)
{
    int result = 0;
    struct lk_error first = {.kind = LK_OK};
    struct archive_entry *scratch = archive_entry_new();
    if (!scratch)
        return lk_error_set(&x->error, LK_MEMORY, "no memory for the modes of directories");
    if (x->dir_count)
        qsort(x->dirs, x->dir_count, sizeof *x->dirs, deepest_first);
    for (size_t i = 0; i < x->dir_count; i++) {
        if (i > 0 && strcmp(x->dirs[i].path, x->dirs[i - 1].path) == 0)
            continue;
        if (finish_dir(x, &x->dirs[i], scratch) && result == 0) {
            result = -1;
            first = x->error;
        }
    }
    archive_entry_free(scratch);
    if (result)
        x->error = first;
    return result;
}

/* --- one entry --- */

static int make(struct lk_extract *x, struct archive_entry *entry, struct place *place)
{
    const char *target = archive_entry_hardlink(entry);
    if (target)
        return hard(x, target, place);
    switch (archive_entry_filetype(entry)) {
    case AE_IFREG:
        return regular(x, entry, place);
    case AE_IFDIR:
        return directory(x, entry, place);
    case AE_IFLNK:
        return symbolic(x, entry, place);
    case AE_IFIFO:
    case AE_IFCHR:
    case AE_IFBLK:
        return special(x, entry, place);
    default:
        lk_extract_warn(x, "entry of unknown type is left out", 0);
        return 0;
    }
}

int lk_extract_entry(struct lk_extract *x, struct archive_entry *entry)
{
    const char *path = archive_entry_pathname(entry);
    if (!path || !*path)
        return lk_error_set(&x->error, LK_CORRUPT, "an entry of the archive has no name");
    x->path.len = 0;
    if (lk_beneath_clean(path, "member", &x->path, &x->error))
        return -1;
    if (x->path.len == 0) {
        if (archive_entry_filetype(entry) == AE_IFDIR)
            return directory(x, entry, NULL);
        return lk_error_set(&x->error, LK_CORRUPT,
                            "member %s is the target itself, but no directory", path);
    }
    struct place place = {.replace = false};
    size_t len = split(&x->path, &place.name);
    place.parent = lk_beneath_open(x->parents, x->path.data, len, true, &x->error);
    return place.parent < 0 ? -1 : make(x, entry, &place);
}
