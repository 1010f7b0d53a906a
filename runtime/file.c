/* SPDX-License-Identifier: MIT
 * file.c - open, write, sync and stream single files.
 * Owns the descriptor of a file. Never follows a link that was not resolved and checked. Any
 * thread. */
#include "file.h"

#include "resolve.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

/* What goes past the page cache: this much at least, from memory and at offsets of this alignment.
 */
#define DIRECT_SIZE ((size_t)256 << 10)
#define DIRECT_ALIGN ((size_t)4096)

/* Pieces of a file that may be on their way: two for each worker that compresses them, and two. */
enum { STREAM_SLABS_MIN = 3, STREAM_SLABS_MAX = 12 };
#define PIECE ((size_t)1 << 20)

static int disk_error(struct lk_error *err, int errnum, const char *what, const char *path)
{
    lk_error_errno(err, errnum, "%s '%s'", what, path);
    switch (errnum) {
    case ENOSPC:
        return lk_error_hint(err, "make room on the file system, or write to another one");
    case EDQUOT:
        return lk_error_hint(err, "the disk quota of this user is used up: make room or raise it");
    case EFBIG:
        return lk_error_hint(err, "the file system or the file size limit (ulimit -f) allows no "
                                  "larger file");
    default:
        return -1;
    }
}

/* Where path leads, if that is allowed. out has PATH_MAX bytes. */
static int resolve(struct lk_caps *caps, enum lk_cap cap, const char *path, char *out,
                   struct lk_error *err)
{
    if (lk_resolve(path, out, PATH_MAX, err) < 0) {
        return -1;
    }
    if (lk_caps_check(caps, cap, out, err) < 0) {
        /* The same again for what was asked for, so that the message names it too. */
        lk_caps_check(caps, cap, path, err);
        return -1;
    }
    return 0;
}

/* The path has no link in it any more; one that was put there since is refused by the kernel.
 * Kernels and sandboxes without openat2 still refuse a link as last component. */
static int open_resolved(const char *path, int flags, unsigned perm)
{
    struct open_how how = {.flags = (uint64_t)flags,
                           .mode = flags & O_CREAT ? perm : 0,
                           .resolve = RESOLVE_NO_SYMLINKS};
    int fd;

    do {
        fd = (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof(how));
    } while (fd < 0 && errno == EINTR);
    if (fd < 0 && (errno == ENOSYS || errno == EPERM)) {
        fd = open(path, flags | O_NOFOLLOW, perm);
    }
    return fd;
}

static int open_error(struct lk_error *err, int errnum, const char *path, enum lk_file_mode mode)
{
    if (errnum == EEXIST && mode == LK_FILE_CREATE) {
        lk_error_set(err, LK_CONFLICT, "open '%s': it is there already", path);
        err->code = errnum;
        return -1;
    }
    if (errnum == ELOOP) {
        lk_error_set(err, LK_DENIED, "open '%s': it became a symbolic link while it was opened",
                     path);
        err->code = errnum;
        return -1;
    }
    return disk_error(err, errnum, "open", path);
}

static struct lk_file *new_file(const char *path, struct lk_error *err)
{
    size_t len = strlen(path) + 1;
    struct lk_file *file = calloc(1, sizeof(*file) + len);

    if (!file) {
        lk_error_set(err, LK_MEMORY, "open '%s': no memory", path);
        return NULL;
    }
    memcpy(file->path, path, len);
    file->refs = 1;
    file->fd = file->direct = -1;
    return file;
}

struct lk_file *lk_file_open(struct lk_caps *caps, const char *path, enum lk_file_mode mode,
                             unsigned perm, struct lk_error *err)
{
    static const int flags[] = {[LK_FILE_READ] = O_RDONLY,
                                [LK_FILE_WRITE] = O_RDWR | O_CREAT | O_TRUNC,
                                [LK_FILE_CREATE] = O_RDWR | O_CREAT | O_EXCL};
    struct lk_error own;
    char real[PATH_MAX];
    struct stat st;

    err = err ? err : &own;
    if (resolve(caps, mode == LK_FILE_READ ? LK_CAP_READ : LK_CAP_WRITE, path, real, err) < 0) {
        return NULL;
    }
    struct lk_file *file = new_file(path, err);
    if (!file) {
        return NULL;
    }
    file->writable = mode != LK_FILE_READ;
    /* O_NONBLOCK: opening a FIFO must not wait for somebody at its other end. */
    file->fd = open_resolved(real, flags[mode] | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, perm & 0777);
    if (file->fd < 0) {
        open_error(err, errno, path, mode);
    } else if (fstat(file->fd, &st) < 0) {
        disk_error(err, errno, "stat", path);
    } else if (S_ISDIR(st.st_mode)) {
        disk_error(err, EISDIR, "open", path);
    } else if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
        lk_error_set(err, LK_IO, "open '%s': neither a regular file nor a block device", path);
    } else {
        return file;
    }
    lk_file_unref(file);
    return NULL;
}

struct lk_file *lk_file_ref(struct lk_file *file)
{
    __atomic_add_fetch(&file->refs, 1, __ATOMIC_RELAXED);
    return file;
}

void lk_file_unref(struct lk_file *file)
{
    if (!file || __atomic_sub_fetch(&file->refs, 1, __ATOMIC_ACQ_REL) > 0) {
        return;
    }
    if (file->fd >= 0) {
        close(file->fd);
    }
    if (file->direct >= 0) {
        close(file->direct);
    }
    free(file);
}

static int write_all(struct lk_file *file, int fd, const char *from, size_t len, uint64_t offset,
                     struct lk_error *err)
{
    while (len > 0) {
        ssize_t n = pwrite(fd, from, len, (off_t)offset);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return disk_error(err, n < 0 ? errno : EIO, "write", file->path);
        }
        from += n;
        offset += (uint64_t)n;
        len -= (size_t)n;
    }
    return 0;
}

/* The descriptor past the page cache, or -1. Without /proc, or on a file system that can't, there
 * is none. */
static int direct_fd(struct lk_file *file)
{
    int fd = __atomic_load_n(&file->direct, __ATOMIC_ACQUIRE);
    int none = -1;
    char name[32];

    if (fd != -1)
        return fd < 0 ? -1 : fd;
    snprintf(name, sizeof name, "/proc/self/fd/%d", file->fd);
    fd = open(name, O_WRONLY | O_DIRECT | O_CLOEXEC);
    if (!__atomic_compare_exchange_n(&file->direct, &none, fd < 0 ? -2 : fd, false,
                                     __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        if (fd >= 0)
            close(fd);
        fd = none;
    }
    return fd < 0 ? -1 : fd;
}

/* How many bytes from the start were written past the page cache: as many whole blocks as the file
 * system took. What it refuses for its own reasons (alignment, no space to be told properly) is
 * left to the ordinary way. */
static size_t write_direct(struct lk_file *file, const char *from, size_t len, uint64_t offset)
{
    size_t whole = len & ~(DIRECT_ALIGN - 1), done = 0;
    int fd;

    if (whole < DIRECT_SIZE || ((uintptr_t)from | offset) & (DIRECT_ALIGN - 1) ||
        (fd = direct_fd(file)) < 0)
        return 0;
    while (done < whole) {
        ssize_t n = pwrite(fd, from + done, whole - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        done += (size_t)n & ~(DIRECT_ALIGN - 1);
        if ((size_t)n & (DIRECT_ALIGN - 1))
            break;
    }
    return done;
}

int lk_file_write(struct lk_file *file, const void *data, size_t len, uint64_t offset,
                  struct lk_error *err)
{
    if (!file->writable) {
        return lk_error_set(err, LK_USAGE, "write '%s': it was opened for reading", file->path);
    }
    if (offset > INT64_MAX - len) {
        return disk_error(err, EFBIG, "write", file->path);
    }
    size_t done = write_direct(file, data, len, offset);
    return write_all(file, file->fd, (const char *)data + done, len - done, offset + done, err);
}

int lk_file_sync(struct lk_file *file, struct lk_error *err)
{
    if (fsync(file->fd) == 0) {
        return 0;
    }
    /* Some network file systems can't sync a directory and say so; there is nothing more to do. */
    if (file->directory && (errno == EINVAL || errno == ENOTSUP)) {
        return 0;
    }
    return disk_error(err, errno, "sync", file->path);
}

int lk_file_lock(struct lk_file *file, struct lk_error *err)
{
    if (flock(file->fd, LOCK_EX | LOCK_NB) == 0)
        return 0;
    if (errno == EWOULDBLOCK)
        return lk_error_set(err, LK_CONFLICT, "%s is locked", file->path);
    return disk_error(err, errno, "lock", file->path);
}

int lk_file_size(struct lk_file *file, uint64_t *size, struct lk_error *err)
{
    struct stat st;

    if (fstat(file->fd, &st) < 0) {
        return disk_error(err, errno, "stat", file->path);
    }
    *size = (uint64_t)st.st_size;
    if (S_ISBLK(st.st_mode)) {
        off_t end = lseek(file->fd, 0, SEEK_END);
        if (end < 0) {
            return disk_error(err, errno, "seek", file->path);
        }
        *size = (uint64_t)end;
    }
    return 0;
}

struct lk_file *lk_file_open_dir(struct lk_caps *caps, const char *path, struct lk_error *err)
{
    char real[PATH_MAX];

    if (resolve(caps, LK_CAP_WRITE, path, real, err) < 0) {
        return NULL;
    }
    struct lk_file *file = new_file(path, err);
    if (!file) {
        return NULL;
    }
    file->directory = true;
    file->fd = open_resolved(real, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (file->fd < 0) {
        disk_error(err, errno, "open directory", path);
        lk_file_unref(file);
        return NULL;
    }
    return file;
}

int lk_file_free_bytes(struct lk_caps *caps, const char *path, uint64_t *bytes,
                       struct lk_error *err)
{
    char real[PATH_MAX];
    struct statvfs vfs;

    if (resolve(caps, LK_CAP_READ, path, real, NULL) < 0 &&
        resolve(caps, LK_CAP_WRITE, path, real, err) < 0) {
        return -1;
    }
    while (statvfs(real, &vfs) < 0) {
        /* What is not there yet will be on the file system of what it is made in. */
        char *slash = errno == ENOENT ? strrchr(real, '/') : NULL;
        if (slash && slash > real) {
            *slash = 0;
            continue;
        }
        return disk_error(err, errno, "look at the file system of", path);
    }
    *bytes = (uint64_t)vfs.f_bavail * vfs.f_frsize;
    return 0;
}

/* --- a range as a stream --- */

struct source {
    struct lk_file *file;
    struct lk_stream *output;
    struct lk_slabs *slabs;
    uint64_t at, left;
};

static int read_piece(struct source *s, struct lk_chunk *chunk, struct lk_error *err)
{
    size_t want = s->left < PIECE ? (size_t)s->left : PIECE;

    while (chunk->len < want) {
        ssize_t n = pread(s->file->fd, chunk->data + chunk->len, want - chunk->len, (off_t)s->at);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return disk_error(err, errno, "read", s->file->path);
        }
        if (n == 0) {
            s->left = chunk->len;
            break;
        }
        chunk->len += (size_t)n;
        s->at += (uint64_t)n;
    }
    s->left -= chunk->len;
    chunk->raw_len = chunk->len;
    return 0;
}

static int copy_range(struct source *s, struct lk_error *err)
{
    while (s->left > 0) {
        struct lk_chunk *chunk = lk_slabs_take(s->slabs, err);
        if (!chunk) {
            return -1;
        }
        int rc = read_piece(s, chunk, err);
        if (rc == 0 && chunk->len > 0) {
            rc = lk_stream_write(s->output, chunk, err);
        } else {
            lk_chunk_unref(chunk);
        }
        if (rc < 0) {
            return -1;
        }
    }
    return 0;
}

static void free_source(struct source *s)
{
    lk_slabs_free(s->slabs);
    lk_file_unref(s->file);
    free(s);
}

static void run_source(void *arg)
{
    struct source *s = arg;
    struct lk_stream *output = s->output;
    struct lk_error err;
    int rc = copy_range(s, &err);

    lk_stream_end(output, rc < 0 ? &err : NULL);
    free_source(s);
    lk_stream_unref(output);
}

static void stop_source(void *arg)
{
    struct source *s = arg;

    lk_slabs_close(s->slabs);
}

struct lk_stream *lk_file_stream(struct lk_pool *pool, struct lk_file *file, uint64_t first,
                                 uint64_t last, struct lk_error *err)
{
    struct source *s = calloc(1, sizeof(*s));

    if (!s) {
        lk_error_set(err, LK_MEMORY, "read '%s': no memory", file->path);
        return NULL;
    }
    s->file = lk_file_ref(file);
    s->at = first;
    s->left = first > last ? 0 : last - first < UINT64_MAX ? last - first + 1 : UINT64_MAX;
    int slabs = lk_pool_width(pool) * 2 + 2;
    slabs = slabs < STREAM_SLABS_MIN ? STREAM_SLABS_MIN : slabs;
    slabs = slabs > STREAM_SLABS_MAX ? STREAM_SLABS_MAX : slabs;
    s->slabs = lk_slabs_new(PIECE, slabs, err);
    s->output = s->slabs ? lk_stream_new(STREAM_SLABS_MIN - 1, err) : NULL;
    if (!s->output) {
        free_source(s);
        return NULL;
    }
    struct lk_stream *output = s->output;
    lk_stream_on_cancel(output, stop_source, s);
    if (lk_pool_stage(pool, "file read", run_source, s, err) < 0) {
        lk_stream_end(output, NULL);
        lk_stream_unref(output);
        lk_stream_unref(output);
        free_source(s);
        return NULL;
    }
    return output;
}
