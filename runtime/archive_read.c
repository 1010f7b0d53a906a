/* SPDX-License-Identifier: MIT
 * archive_read.c - turns what the walk finds into tar entries: opens, describes, reads.
 *
 * A regular file costs one open, two fstat, one listxattr, one read and one close, where nothing is
 * special about it. Whatever a file does while it is read, its entry has exactly the size that its
 * header says: what is missing is zeros, what is too much is left, and a warning tells. Stage
 * thread only. */
#include "archive_internal.h"
#include "gzip.h"
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

enum { SPARSE_FROM = 64 << 10, ADVISE_FROM = 1 << 20 };

static void warn(struct lk_archive *a, enum lk_warning_kind kind, const char *source,
                 const char *message)
{
    lk_stats_warn(&a->stats, kind, source, message);
    if (a->whole && kind != LK_WARN_SKIPPED && a->error.kind == LK_OK)
        lk_error_set(&a->error, LK_IO, "%s: %s", source, message);
}

static void warn_errno(struct lk_archive *a, const char *source, const char *what, int errnum)
{
    char message[320];
    const char *reason = strerrordesc_np(errnum); /* not in the host's language */
    if (!reason)
        reason = "unknown error";
    snprintf(message, sizeof message, "%s: %c%s", what, tolower((unsigned char)*reason),
             reason + 1);
    if (errnum == ENOENT)
        warn(a, LK_WARN_VANISHED, source, "file vanished before it was read");
    else
        warn(a, LK_WARN_UNREADABLE, source, message);
}

void lk_archive_problem(void *arg, const char *source, enum lk_walk_problem kind, int errnum,
                        const char *message)
{
    struct lk_archive *a = arg;
    if (errnum)
        warn_errno(a, source, "can't be read", errnum);
    else
        warn(a, kind == LK_WALK_VANISHED ? LK_WARN_VANISHED : LK_WARN_UNREADABLE, source, message);
}

static void announce(struct lk_archive *a, const struct lk_walk_entry *entry)
{
    size_t len = entry->path_len < sizeof a->current ? entry->path_len : sizeof a->current - 1;
    if (pthread_mutex_trylock(&a->mutex))
        return;
    memcpy(a->current, entry->path, len);
    a->current[len] = 0;
    pthread_mutex_unlock(&a->mutex);
}

static struct lk_tar_entry describe(struct lk_archive *a, const struct lk_walk_entry *entry,
                                    const struct stat *st, char type)
{
    return (struct lk_tar_entry){.path = entry->path,
                                 .path_len = entry->path_len,
                                 .type = type,
                                 .mode = st->st_mode & 07777,
                                 .uid = st->st_uid,
                                 .gid = st->st_gid,
                                 .uname = lk_names_user(a->names, st->st_uid),
                                 .gname = lk_names_group(a->names, st->st_gid),
                                 .mtime = st->st_mtim.tv_sec,
                                 .mtime_ns = (uint32_t)st->st_mtim.tv_nsec};
}

/* Extended attributes by descriptor, or by a path through the directory's. */
static void attributes(struct lk_archive *a, const struct lk_walk_entry *entry, int fd,
                       struct lk_tar_entry *tar)
{
    char path[64 + NAME_MAX];
    const char *by_path = path;
    if (fd < 0 && entry->dirfd == AT_FDCWD)
        by_path = entry->name;
    else if (fd < 0)
        snprintf(path, sizeof path, "/proc/self/fd/%d/%s", entry->dirfd, entry->name);
    int errnum = lk_xattrs_read(&a->xattrs, fd, by_path);
    if (errnum && errnum != ENOENT)
        warn_errno(a, entry->source, "extended attributes can't be read", errnum);
    if (a->xattrs.left_out)
        warn(a, LK_WARN_SKIPPED, entry->source,
             "extended attributes of more than 256 KiB are left out");
    tar->xattrs = a->xattrs.list;
    tar->xattr_count = a->xattrs.count;
    tar->acl_access = a->xattrs.acl_access;
    tar->acl_default = a->xattrs.acl_default;
}

static int write_entry(struct lk_archive *a, const struct lk_tar_entry *tar, const struct stat *st)
{
    if (lk_pack_begin(&a->pack, tar, st->st_mode, &a->error))
        return -1;
    return tar->size ? 0 : lk_pack_end(&a->pack, true, &a->error);
}

/* 1 = written as a link to an earlier entry, 0 = it is the first, -1 = failure. */
static int hard_link(struct lk_archive *a, const struct lk_walk_entry *entry, const struct stat *st)
{
    if (st->st_nlink < 2)
        return 0;
    const char *first = lk_links_find(a->links, st);
    if (!first || strcmp(first, entry->path) ==
                      0) /* the same path again, under another root: no link to itself */
        return 0;
    struct lk_tar_entry tar = describe(a, entry, st, '1');
    tar.link = first;
    tar.link_len = strlen(first);
    if (write_entry(a, &tar, st))
        return -1;
    a->stats.links++;
    return 1;
}

static int remember(struct lk_archive *a, const struct lk_walk_entry *entry, const struct stat *st)
{
    return st->st_nlink < 2 ? 0 : lk_links_add(a->links, st, entry->path, &a->error);
}

/* --- everything that has no data --- */

static int symbolic_link(struct lk_archive *a, const struct lk_walk_entry *entry,
                         const struct stat *st)
{
    char target[PATH_MAX];
    ssize_t len = readlinkat(entry->dirfd, entry->name, target, sizeof target);
    if (len < 0) {
        warn_errno(a, entry->source, "can't be read", errno);
        return 0;
    }
    struct lk_tar_entry tar = describe(a, entry, st, '2');
    tar.link = target;
    tar.link_len = (size_t)len;
    attributes(a, entry, -1, &tar);
    a->stats.links++;
    return write_entry(a, &tar, st) || remember(a, entry, st) ? -1 : 0;
}

static int special(struct lk_archive *a, const struct lk_walk_entry *entry, const struct stat *st)
{
    char type = S_ISFIFO(st->st_mode)  ? '6'
                : S_ISCHR(st->st_mode) ? '3'
                : S_ISBLK(st->st_mode) ? '4'
                                       : 0;
    if (!type) {
        warn(a, LK_WARN_SKIPPED, entry->source,
             S_ISSOCK(st->st_mode) ? "socket is left out" : "file of unknown type is left out");
        return 0;
    }
    struct lk_tar_entry tar = describe(a, entry, st, type);
    tar.major = major(st->st_rdev);
    tar.minor = minor(st->st_rdev);
    attributes(a, entry, -1, &tar);
    a->stats.others++;
    return write_entry(a, &tar, st) || remember(a, entry, st) ? -1 : 0;
}

static int directory(struct lk_archive *a, const struct lk_walk_entry *entry)
{
    a->keep_atime = true;
    struct lk_tar_entry tar = describe(a, entry, &entry->st, '5');
    attributes(a, entry, entry->fd, &tar);
    a->stats.directories++;
    return write_entry(a, &tar, &entry->st);
}

static int other(struct lk_archive *a, const struct lk_walk_entry *entry, const struct stat *st)
{
    int linked = hard_link(a, entry, st);
    if (linked)
        return linked < 0 ? -1 : 0;
    return S_ISLNK(st->st_mode) ? symbolic_link(a, entry, st) : special(a, entry, st);
}

/* --- data --- */

/* The file's bytes up to `end`, starting at *at. 0; 1 when the file ends or fails before (*errnum
 * says which); -1 when the archive can't go on. */
static int copy_data(struct lk_archive *a, int fd, uint64_t *at, uint64_t end, int *errnum)
{
    while (*at < end) {
        size_t room;
        void *to = lk_pack_room(&a->pack, &room, &a->error);
        if (!to)
            return -1;
        if (room > end - *at)
            room = (size_t)(end - *at);
        ssize_t n = pread(fd, to, room, (off_t)*at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            *errnum = n < 0 ? errno : 0;
            return 1;
        }
        lk_pack_put(&a->pack, (size_t)n);
        *at += (uint64_t)n;
        __atomic_add_fetch(&a->bytes_read, (uint64_t)n, __ATOMIC_RELAXED);
    }
    return 0;
}

/* As copy_data for a file with holes: they are not read. */
static int copy_sparse(struct lk_archive *a, int fd, uint64_t *at, uint64_t end, int *errnum)
{
    while (*at < end) {
        off_t data = lseek(fd, (off_t)*at, SEEK_DATA);
        if (data < 0 && errno != ENXIO)
            return copy_data(a, fd, at, end, errnum); /* no such thing here */
        struct stat st;
        if (data < 0 && (fstat(fd, &st) || (uint64_t)st.st_size < end)) {
            *errnum = 0; /* not a hole: it was cut short meanwhile */
            return 1;
        }
        uint64_t from = data < 0 || (uint64_t)data > end ? end : (uint64_t)data;
        if (lk_pack_zeros(&a->pack, from - *at, &a->error))
            return -1;
        __atomic_add_fetch(&a->bytes_read, from - *at, __ATOMIC_RELAXED);
        *at = from;
        off_t hole = from < end ? lseek(fd, data, SEEK_HOLE) : -1;
        uint64_t to = hole < 0 || (uint64_t)hole > end ? end : (uint64_t)hole;
        int result = copy_data(a, fd, at, to, errnum);
        if (result)
            return result;
    }
    return 0;
}

/* What went wrong with the data, if anything did. */
static void judge(struct lk_archive *a, const struct lk_walk_entry *entry, int fd,
                  const struct stat *before, uint64_t read_to, int errnum)
{
    struct stat after;
    char message[96];
    uint64_t size = (uint64_t)before->st_size;
    if (errnum) {
        snprintf(message, sizeof message, "can't be read at byte %llu, rest filled with zeros",
                 (unsigned long long)read_to);
        warn_errno(a, entry->source, message, errnum);
    } else if (read_to < size) {
        snprintf(message, sizeof message, "file shrank by %llu bytes, filled with zeros",
                 (unsigned long long)(size - read_to));
        warn(a, LK_WARN_CHANGED, entry->source, message);
    } else if (fstat(fd, &after) == 0 && (after.st_size != before->st_size ||
                                          after.st_mtim.tv_sec != before->st_mtim.tv_sec ||
                                          after.st_mtim.tv_nsec != before->st_mtim.tv_nsec ||
                                          after.st_ctim.tv_sec != before->st_ctim.tv_sec ||
                                          after.st_ctim.tv_nsec != before->st_ctim.tv_nsec)) {
        warn(a, LK_WARN_CHANGED, entry->source,
             after.st_size > before->st_size ? "file grew as it was read, cut at its first size"
                                             : "file changed as it was read");
    }
}

static int regular_data(struct lk_archive *a, const struct lk_walk_entry *entry, int fd,
                        const struct stat *st)
{
    uint64_t size = (uint64_t)st->st_size, at = 0;
    bool sparse = size >= SPARSE_FROM && (uint64_t)st->st_blocks * 512 < size;
    int errnum = 0;
    if (size >= ADVISE_FROM)
        posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    int result = (sparse ? copy_sparse : copy_data)(a, fd, &at, size, &errnum);
    if (result < 0)
        return -1;
    judge(a, entry, fd, st, at, errnum);
    a->stats.bytes += size;
    return lk_pack_end(&a->pack, at == size, &a->error);
}

/* An open file whose type is still to be seen. */
static int opened(struct lk_archive *a, const struct lk_walk_entry *entry, int fd)
{
    struct stat st;
    if (fstat(fd, &st)) {
        warn_errno(a, entry->source, "can't be read", errno);
        return 0;
    }
    if (!S_ISREG(st.st_mode)) {
        warn(a, LK_WARN_CHANGED, entry->source, "is no longer a regular file, left out");
        return 0;
    }
    int linked = hard_link(a, entry, &st);
    if (linked)
        return linked < 0 ? -1 : 0;
    struct lk_tar_entry tar = describe(a, entry, &st, '0');
    tar.size = (uint64_t)st.st_size;
    attributes(a, entry, fd, &tar);
    a->stats.files++;
    if (write_entry(a, &tar, &st) || (tar.size && regular_data(a, entry, fd, &st)))
        return -1;
    return remember(a, entry, &st);
}

static int open_file(struct lk_archive *a, const struct lk_walk_entry *entry)
{
    const int flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
    if (a->keep_atime) {
        int fd = openat(entry->dirfd, entry->name, flags | O_NOATIME);
        if (fd >= 0 || errno != EPERM)
            return fd;
        a->keep_atime = false; /* not our file; its neighbours are likely not either */
    }
    return openat(entry->dirfd, entry->name, flags);
}

static int regular(struct lk_archive *a, const struct lk_walk_entry *entry)
{
    int fd = open_file(a, entry);
    if (fd >= 0) {
        int result = opened(a, entry, fd);
        close(fd);
        return result;
    }
    int errnum = errno;
    struct stat st;
    if ((errnum == ELOOP ||
         errnum == ENXIO) && /* replaced by a link or a socket since it was listed */
        fstatat(entry->dirfd, entry->name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
        !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
        return other(a, entry, &st);
    warn_errno(a, entry->source, "can't be opened", errnum);
    return 0;
}

int lk_archive_visit(void *arg, const struct lk_walk_entry *entry)
{
    struct lk_archive *a = arg;
    if (__atomic_load_n(&a->stop, __ATOMIC_RELAXED))
        return -1;
    announce(a, entry);
    int result;
    if (!entry->known || S_ISREG(entry->st.st_mode))
        result = regular(a, entry);
    else if (S_ISDIR(entry->st.st_mode))
        result = directory(a, entry);
    else
        result = other(a, entry, &entry->st);
    __atomic_add_fetch(&a->files_done, 1, __ATOMIC_RELAXED);
    return a->error.kind != LK_OK ? -1 : result;
}
