/* SPDX-License-Identifier: MIT
 * extract_write.c - makes one entry beneath the target: file, directory, link, device, FIFO.
 *
 * A name that is free is taken directly (O_EXCL and the like never follow or replace anything) or
 * by a rename that replaces nothing; see extract_place.c. Runs of zeros become holes. Stage thread
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
enum { HOLE = 64 << 10, PIECE = 4 << 10, ENTRY_COST = 512, LOOK_FROM = 64 << 10 };

/* --- data --- */

static bool zeros(const char *data, size_t len)
{
    return data[0] == 0 && memcmp(data, data + 1, len - 1) == 0;
}

static int write_all(struct lk_extract *x, int fd, const char *data, size_t len, int64_t offset)
{
    if (lk_extract_spend(x, len))
        return -1;
    while (len > 0) {
        ssize_t n = pwrite(fd, data, len, offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return lk_extract_errno(x, errno, "written");
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
        return lk_extract_errno(x, errno, "given its size");
    return 0;
}

/* --- the kinds of entries --- */

/* After an attempt to make a link or a node failed: 0 = try again, 1 = it is left out, -1. */
static int again(struct lk_extract *x, struct lk_place *place, struct archive_entry *entry,
                 const char *what)
{
    return errno == EEXIST ? lk_place_again(x, place, entry) : lk_extract_errno(x, errno, what);
}

/* What was made gets its attributes and its name, or goes. */
static int complete(struct lk_extract *x, struct lk_place *place, struct archive_entry *entry,
                    int fd)
{
    int result = lk_extract_meta(x, entry, fd, place->parent, lk_place_made(place));
    if (fd >= 0 && close(fd) && result == 0)
        result = lk_extract_errno(x, errno, "written");
    if (result)
        lk_place_discard(place);
    else
        result = lk_place_settle(x, place, entry);
    return result;
}

static int regular(struct lk_extract *x, struct archive_entry *entry, struct lk_place *place)
{
    const int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    int fd;
    do
        lk_place_temporary(x, place);
    while ((fd = openat(place->parent, place->temporary, flags, 0600)) < 0 && errno == EEXIST);
    if (fd < 0)
        return lk_extract_errno(x, errno, "made");
    if (copy_data(x, fd, archive_entry_size(entry))) {
        close(fd);
        lk_place_discard(place);
        return -1;
    }
    int result = complete(x, place, entry, fd);
    if (result == 0) {
        x->stats.files++;
        x->stats.bytes += (uint64_t)archive_entry_size(entry);
    }
    return result;
}

static int symbolic(struct lk_extract *x, struct archive_entry *entry, struct lk_place *place)
{
    const char *target = archive_entry_symlink(entry);
    int result = 0;
    if (!target)
        return lk_error_set(&x->error, LK_CORRUPT, "link %s has no target", lk_extract_shown(x));
    if (place->replace)
        lk_place_temporary(x, place);
    while (symlinkat(target, place->parent, lk_place_made(place)))
        if ((result = again(x, place, entry, "made")))
            return result;
    result = complete(x, place, entry, -1);
    x->stats.links += result == 0;
    return result;
}

/* The directory of a hard link's target, and the name in it; -1, or 1 when it is the link itself.
 */
static int link_target(struct lk_extract *x, const char *target, int *from, const char **name)
{
    int result = lk_extract_name(x, target, "hard link target", &x->target);
    if (result > 0) {
        lk_error_set(&x->error, LK_NOT_FOUND, "hard link %s leads to %.200s, which is left out",
                     lk_extract_shown(x), target);
        return lk_error_hint(&x->error, "strip fewer components");
    }
    if (result < 0)
        return -1;
    if (x->target.len == x->path.len && memcmp(x->target.data, x->path.data, x->path.len) == 0)
        return 1;
    size_t len = lk_extract_split(&x->target, name);
    *from = lk_extract_open(x, x->targets, x->target.data, len, false);
    return *from < 0 ? -1 : 0;
}

static int hard(struct lk_extract *x, struct archive_entry *entry, struct lk_place *place)
{
    const char *name = NULL, *target = archive_entry_hardlink(entry);
    int from = -1, result = link_target(x, target, &from, &name);
    if (result)
        return result;
    if (place->replace)
        lk_place_temporary(x, place);
    while (linkat(from, name, place->parent, lk_place_made(place), 0))
        if (errno == ENOENT)
            return lk_error_set(
                &x->error, LK_CORRUPT,
                "hard link %s leads to %.200s, which is not in the archive before it",
                lk_extract_shown(x), target);
        else if ((result = again(x, place, entry, "linked")))
            return result;
    result = lk_place_settle(x, place, entry);
    x->stats.links += result == 0;
    return result;
}

static int special(struct lk_extract *x, struct archive_entry *entry, struct lk_place *place)
{
    mode_t type = archive_entry_filetype(entry);
    dev_t device = makedev(archive_entry_rdevmajor(entry), archive_entry_rdevminor(entry));
    int result = 0;
    if (type != AE_IFIFO && !x->devices) {
        lk_extract_warn(x, "device is left out, devices are made only when asked for", 0);
        return 1;
    }
    if (place->replace)
        lk_place_temporary(x, place);
    while (mknodat(place->parent, lk_place_made(place), type | 0600, type == AE_IFIFO ? 0 : device))
        if (errno == EPERM || errno == ENOTSUP) {
            lk_extract_warn(x, "device or FIFO can't be made, left out", errno);
            return 1;
        } else if ((result = again(x, place, entry, "made"))) {
            return result;
        }
    result = complete(x, place, entry, -1);
    x->stats.others += result == 0;
    return result;
}

/* --- directories --- */

/* True when a directory has the name; *here = this extraction made it. */
static bool is_directory(const struct lk_extract *x, const struct lk_place *place, bool *here)
{
    struct stat st;
    if (fstatat(place->parent, place->name, &st, AT_SYMLINK_NOFOLLOW) || !S_ISDIR(st.st_mode))
        return false;
    *here = lk_extract_made_here(x, place->parent, place->name, &st);
    return true;
}

static int directory(struct lk_extract *x, struct archive_entry *entry, struct lk_place *place)
{
    bool here = true;
    while (place && mkdirat(place->parent, place->name, 0700)) {
        if (errno != EEXIST)
            return lk_extract_errno(x, errno, "made");
        if (is_directory(x, place, &here))
            break;
        int result = lk_place_look(x, place, entry);
        if (result)
            return result;
        if (unlinkat(place->parent, place->name, 0) && errno != ENOENT)
            return lk_extract_errno(x, errno, "replaced");
    }
    x->stats.directories++;
    /* One that was there keeps what it has, where what is there stays. */
    return here || x->existing != LK_EXISTING_SKIP ? lk_extract_remember(x, entry) : 0;
}

/* --- one entry --- */

static int make(struct lk_extract *x, struct archive_entry *entry, struct lk_place *place)
{
    mode_t type = archive_entry_filetype(entry);
    bool link = archive_entry_hardlink(entry) != NULL;
    if (!link && type == AE_IFDIR)
        return directory(x, entry, place);
    /* A name that is taken shows when the entry gets it, too; but then it was written in vain. */
    bool look = x->existing == LK_EXISTING_SKIP || x->existing == LK_EXISTING_KEEP_NEWER ||
                archive_entry_size(entry) >= LOOK_FROM;
    int result = look ? lk_place_look(x, place, entry) : 0;
    if (result)
        return result;
    if (link)
        return hard(x, entry, place);
    switch (type) {
    case AE_IFREG:
        return regular(x, entry, place);
    case AE_IFLNK:
        return symbolic(x, entry, place);
    case AE_IFIFO:
    case AE_IFCHR:
    case AE_IFBLK:
        return special(x, entry, place);
    default:
        lk_extract_warn(x, "entry of unknown type is left out", 0);
        return 1;
    }
}

int lk_extract_entry(struct lk_extract *x, struct archive_entry *entry)
{
    const char *path = archive_entry_pathname(entry);
    if (!path || !*path)
        return lk_error_set(&x->error, LK_CORRUPT, "an entry of the archive has no name");
    if (lk_extract_flush_dirs(x))
        return -1;
    int result = lk_extract_name(x, path, "member", &x->path);
    if (result || lk_extract_spend(x, ENTRY_COST))
        return result > 0 ? 0 : -1;
    if (x->path.len == 0) {
        if (archive_entry_filetype(entry) == AE_IFDIR)
            return directory(x, entry, NULL);
        return lk_error_set(&x->error, LK_CORRUPT,
                            "member %.200s is the target itself, but no directory", path);
    }
    struct lk_place place = {.parent = -1};
    size_t len = lk_extract_split(&x->path, &place.name);
    place.parent = lk_extract_open(x, x->parents, x->path.data, len, true);
    return place.parent < 0 || make(x, entry, &place) < 0 ? -1 : 0;
}
