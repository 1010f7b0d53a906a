/* SPDX-License-Identifier: MIT
 * extract_place.c - the name of an entry in the target: what has it already, and how the entry gets
 * it.
 *
 * A regular file is made under a temporary name and renamed when it is complete; so is everything
 * that replaces something. What this extraction made itself may always be replaced: an archive can
 * hold a path twice, and the last one counts, as with tar. That is told by the time at which the
 * file came to be. A directory is never replaced by something else. Stage thread only. */
#include "extract_internal.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A name can be longer than a message. */
const char *lk_extract_shown(struct lk_extract *x)
{
    if (x->path.len < sizeof x->shown)
        return x->path.len ? x->path.data : ".";
    snprintf(x->shown, sizeof x->shown, "%.120s...%s", x->path.data,
             x->path.data + x->path.len - 60);
    return x->shown;
}

int lk_extract_errno(struct lk_extract *x, int errnum, const char *what)
{
    return lk_error_errno(&x->error, errnum, "%s can't be %s", lk_extract_shown(x), what);
}

bool lk_extract_made_here(const struct lk_extract *x, int parent, const char *name,
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

/* True when what is in the way of a path, the first component that is no directory, was made by
 * this extraction. Whatever the components before it are, they are directories, so no link is
 * followed. */
static bool blocked_by_ours(const struct lk_extract *x, const char *path, size_t len)
{
    char part[PATH_MAX];
    struct stat st;
    for (size_t at = 1; at <= len && at < sizeof part; at++) {
        if (at < len && path[at] != '/')
            continue;
        memcpy(part, path, at);
        part[at] = 0;
        if (fstatat(x->into, part, &st, AT_SYMLINK_NOFOLLOW))
            return false;
        if (!S_ISDIR(st.st_mode))
            return lk_extract_made_here(x, x->into, part, &st);
    }
    return false;
}

int lk_extract_open(struct lk_extract *x, struct lk_beneath *beneath, const char *path, size_t len,
                    bool make)
{
    int fd = lk_beneath_open(beneath, path, len, make, &x->error);
    if (fd < 0 && x->error.kind == LK_CONFLICT && blocked_by_ours(x, path, len)) {
        x->error.kind = LK_CORRUPT;
        lk_error_hint(&x->error, "the archive has it as that and leads through it all the same");
    }
    return fd;
}

static bool newer(const struct lk_extract *x, const struct stat *st, struct archive_entry *entry)
{
    struct timespec time = lk_extract_time(x, entry);
    return st->st_mtim.tv_sec > time.tv_sec ||
           (st->st_mtim.tv_sec == time.tv_sec && st->st_mtim.tv_nsec > time.tv_nsec);
}

int lk_place_look(struct lk_extract *x, struct lk_place *place, struct archive_entry *entry)
{
    struct stat st;
    place->replace = false;
    if (fstatat(place->parent, place->name, &st, AT_SYMLINK_NOFOLLOW))
        return errno == ENOENT ? 0 : lk_extract_errno(x, errno, "made");
    if (S_ISDIR(st.st_mode)) {
        lk_error_set(&x->error, LK_CONFLICT,
                     "%s is a directory in the target, something else in the archive",
                     lk_extract_shown(x));
        return lk_error_hint(&x->error, "remove the directory or choose another target");
    }
    place->replace = true;
    if (x->existing == LK_EXISTING_REPLACE ||
        lk_extract_made_here(x, place->parent, place->name, &st))
        return 0;
    if (x->existing == LK_EXISTING_KEEP_NEWER && !newer(x, &st, entry))
        return 0;
    if (x->existing != LK_EXISTING_ERROR && archive_entry_filetype(entry) == AE_IFDIR) {
        lk_error_set(&x->error, LK_CONFLICT,
                     "%s is a directory in the archive, something else in the target",
                     lk_extract_shown(x));
        return lk_error_hint(&x->error, "remove it or choose another target");
    }
    if (x->existing != LK_EXISTING_ERROR) {
        x->stats.skipped++;
        return 1;
    }
    lk_error_set(&x->error, LK_CONFLICT, "%s exists in the target", lk_extract_shown(x));
    return lk_error_hint(&x->error, "extract into an empty directory, or allow to overwrite");
}

void lk_place_temporary(struct lk_extract *x, struct lk_place *place)
{
    snprintf(place->temporary, sizeof place->temporary, ".lunark-%ld-%u.tmp", (long)x->pid,
             x->temporary++);
}

const char *lk_place_made(const struct lk_place *place)
{
    return *place->temporary ? place->temporary : place->name;
}

int lk_place_again(struct lk_extract *x, struct lk_place *place, struct archive_entry *entry)
{
    if (!*place->temporary) {
        int result = lk_place_look(x, place, entry);
        if (result)
            return result;
    }
    lk_place_temporary(x, place);
    return 0;
}

void lk_place_discard(const struct lk_place *place)
{
    unlinkat(place->parent, lk_place_made(place), 0);
}

/* Gives it a name that nothing has; -1 with errno. */
static int take_free_name(const struct lk_place *place)
{
    int parent = place->parent;
    if (renameat2(parent, place->temporary, parent, place->name, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno != EINVAL && errno != ENOSYS)
        return -1;
    /* Not every file system has that. */
    if (linkat(parent, place->temporary, parent, place->name, 0))
        return -1;
    unlinkat(parent, place->temporary, 0);
    return 0;
}

int lk_place_settle(struct lk_extract *x, struct lk_place *place, struct archive_entry *entry)
{
    int result = 0;
    if (!*place->temporary)
        return 0;
    if (!place->replace) {
        if (take_free_name(place) == 0)
            return 0;
        if (errno == EEXIST)
            result = lk_place_look(x, place, entry);
        else if (errno != EPERM && errno != ENOTSUP) /* no hard links either: it was just free */
            result = lk_extract_errno(x, errno, "given its name");
    }
    if (result == 0 && renameat(place->parent, place->temporary, place->parent, place->name))
        result = lk_extract_errno(x, errno, "replaced");
    /* rename() does nothing when both are links to one file; then the temporary one is left. */
    unlinkat(place->parent, place->temporary, 0);
    return result;
}
