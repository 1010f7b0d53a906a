/* SPDX-License-Identifier: MIT
 * compare.c - files beneath a directory against the records of an index: type, mode, size, time,
 * SHA-256. Reaches them by descriptors, never through a link. Owns nothing between calls. Stage
 * threads only. */
#include "compare.h"

#include "beneath.h"
#include "crypto.h"
#include "index_reader.h"
#include "member.h"
#include "toc.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PIECE = 256 << 10, MESSAGE = 256 };

struct compare {
    struct lk_compare_found *found;
    struct lk_beneath *parents;
    struct lk_hasher *hasher;
    struct lk_buf path;
    unsigned char *piece;
    mode_t modes; /* the bits that are compared */
    bool differs;
};

static void differs(struct compare *c, const struct lk_record *r, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void differs(struct compare *c, const struct lk_record *r, const char *format, ...)
{
    char message[MESSAGE];
    va_list args;

    va_start(args, format);
    vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    c->differs = true;
    c->found->differs(c->found->arg, r->path, r->path_len, message);
}

/* Some file systems keep times in coarser steps, cut off. */
static bool same_time(const struct lk_record *r, const struct stat *st)
{
    static const uint32_t steps[] = {1, 100, 1000, 1000000, 1000000000};
    uint32_t found = (uint32_t)st->st_mtim.tv_nsec;

    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        if (found == r->mtime_ns - r->mtime_ns % steps[i]) {
            return st->st_mtim.tv_sec == r->mtime;
        }
    }
    return false;
}

static int open_file(int parent, const char *name)
{
    const int flags = O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK;
    int fd = openat(parent, name, flags);

    /* It is a copy that nobody else has, and its mode was compared already. */
    if (fd < 0 && errno == EACCES && fchmodat(parent, name, 0600, 0) == 0) {
        fd = openat(parent, name, flags);
    }
    return fd;
}

static void compare_data(struct compare *c, const struct lk_record *r, int parent, const char *name)
{
    unsigned char digest[LK_DIGEST_MAX];
    int fd = open_file(parent, name);
    ssize_t n = -1;

    while (fd >= 0 && (n = read(fd, c->piece, PIECE)) != 0) {
        if (n < 0 && errno != EINTR) {
            break;
        }
        lk_hasher_update(c->hasher, c->piece, n > 0 ? (size_t)n : 0);
    }
    int errnum = errno;
    lk_hasher_final(c->hasher, digest);
    if (fd >= 0) {
        close(fd);
    }
    if (fd < 0 || n < 0) {
        differs(c, r, "can't be read after its restore: %s", strerrordesc_np(errnum));
    } else if (memcmp(digest, r->sha256, 32) != 0) {
        differs(c, r, "has another SHA-256 after its restore than in the index");
    } else {
        c->found->files++;
    }
}

static void compare_stat(struct compare *c, const struct lk_record *r, const struct stat *st)
{
    /* Some tars don't say of what type it is that a hard link leads to. */
    if ((r->mode & S_IFMT) != 0 && (st->st_mode & S_IFMT) != (r->mode & S_IFMT)) {
        differs(c, r, "is of another type after its restore than in the index");
        return;
    }
    if (!S_ISLNK(st->st_mode) && (st->st_mode & c->modes) != (r->mode & c->modes)) {
        differs(c, r, "has mode %04o after its restore, %04o expected", st->st_mode & c->modes,
                r->mode & c->modes);
    }
    if (r->type == '0' && (uint64_t)st->st_size != r->size) {
        differs(c, r, "has %" PRIu64 " bytes after its restore, %" PRIu64 " expected",
                (uint64_t)st->st_size, r->size);
    }
    if (r->type == '1' && st->st_nlink < 2) {
        differs(c, r, "is no hard link after its restore");
    }
    if (!same_time(r, st)) {
        differs(c, r, "has time %lld.%09ld after its restore, %lld.%09" PRIu32 " expected",
                (long long)st->st_mtim.tv_sec, st->st_mtim.tv_nsec, (long long)r->mtime,
                r->mtime_ns);
    }
}

/* The directory that the path's last part is in; name is that part. Below -1: it can't be reached.
 */
static int parent_of(struct compare *c, const struct lk_record *r, const char **name,
                     struct lk_error *err)
{
    char path[LK_PATH_MAX + 1];

    memcpy(path, r->path, r->path_len);
    path[r->path_len] = '\0';
    c->path.len = 0;
    if (strlen(path) != r->path_len || lk_beneath_clean(path, "member", &c->path, err) < 0) {
        return lk_error_set(err, LK_CORRUPT, "is a path that can't be restored");
    }
    const char *slash = c->path.len > 0 ? memrchr(c->path.data, '/', c->path.len) : NULL;
    *name = slash ? slash + 1 : c->path.len > 0 ? c->path.data : ".";
    return lk_beneath_open(c->parents, c->path.data ? c->path.data : "",
                           slash ? (size_t)(slash - c->path.data) : 0, false, err);
}

static int compare_record(void *arg, const struct lk_record *r)
{
    struct compare *c = arg;
    struct lk_error err;
    struct stat st;
    const char *name = NULL;

    if (r->type == '3' || r->type == '4' || r->full_len != r->path_len) {
        c->found->unchecked++;
        return 0;
    }
    c->differs = false;
    int parent = parent_of(c, r, &name, &err);
    if (parent < 0 && err.kind == LK_DENIED) {
        c->found->unchecked++;
        return 0;
    }
    if (parent < 0 || fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
        differs(c, r, "is not there after its restore");
        return 0;
    }
    compare_stat(c, r, &st);
    if (r->sha256 && r->type == '0' && !c->differs) {
        compare_data(c, r, parent, name);
    }
    c->found->entries += c->differs ? 0 : 1;
    return 0;
}

static int begin(struct compare *c, int root, struct lk_error *err)
{
    lk_buf_init(&c->path, 2 * LK_PATH_MAX);
    c->modes = geteuid() == 0 ? 07777 : 0777;
    c->piece = malloc(PIECE);
    if (!c->piece) {
        return lk_error_set(err, LK_MEMORY, "no memory to compare files");
    }
    c->parents = lk_beneath_new(root, err);
    c->hasher = c->parents ? lk_hasher_new(LK_SHA256, err) : NULL;
    return c->hasher ? 0 : -1;
}

static void end(struct compare *c, int root)
{
    free(c->piece);
    lk_beneath_free(c->parents);
    lk_hasher_free(c->hasher);
    lk_buf_free(&c->path);
    if (root >= 0) {
        close(root);
    }
}

static int open_root(const char *directory, struct lk_error *err)
{
    int root = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    return root >= 0 ? root : lk_error_errno(err, errno, "directory %s can't be opened", directory);
}

int lk_compare_block(const char *directory, const void *bytes, size_t len,
                     struct lk_compare_found *found, struct lk_error *err)
{
    struct compare c = {.found = found};
    struct lk_index_visitor visitor = {.record = compare_record, .arg = &c};
    int root = open_root(directory, err);
    int rc = root < 0 ? -1 : begin(&c, root, err);

    if (rc == 0) {
        rc = lk_block_read(bytes, len, &visitor, err);
    }
    end(&c, root);
    return rc;
}

/* --- a tar without index --- */

/* A line of lk_toc as a record without digest. */
static void compare_line(struct compare *c, const unsigned char *line, size_t len)
{
    struct lk_record r = {.path = (const char *)line + LK_TOC_FIXED,
                          .path_len = len - LK_TOC_FIXED,
                          .mode = lk_get32(line + 4),
                          .type = (char)line[8],
                          .size = lk_get64(line + 9),
                          .mtime = (int64_t)lk_get64(line + 17),
                          .mtime_ns = lk_get32(line + 25)};

    r.full_len = r.path_len <= LK_PATH_MAX ? r.path_len : 0;
    compare_record(c, &r);
}

static void compare_lines(struct compare *c, const struct lk_chunk *chunk)
{
    for (size_t at = 0; at < chunk->len;) {
        size_t len = 4 + (size_t)lk_get32(chunk->data + at);
        if (c->parents) {
            compare_line(c, chunk->data + at, len);
        } else {
            c->found->entries++;
        }
        at += len;
    }
}

int lk_compare_tar(struct lk_pool *pool, const char *directory, struct lk_stream *input,
                   int in_flight, struct lk_compare_found *found, struct lk_error *err)
{
    struct compare c = {.found = found};
    struct lk_stream *lines = lk_toc(pool, input, in_flight, err);
    struct lk_chunk *chunk;
    int root = lines && directory ? open_root(directory, err) : -1;
    int rc = !lines || (directory && root < 0) ? -1 : 0;

    if (rc == 0 && directory) {
        rc = begin(&c, root, err);
    }
    for (int got = LK_STREAM_DATA; rc == 0 && got == LK_STREAM_DATA;) {
        got = lk_stream_read(lines, &chunk, err);
        if (got == LK_STREAM_DATA) {
            compare_lines(&c, chunk);
            lk_chunk_unref(chunk);
        }
        rc = got < 0 ? -1 : 0;
    }
    if (lines) {
        lk_stream_cancel(lines);
        lk_stream_unref(lines);
    }
    end(&c, root);
    return rc;
}
