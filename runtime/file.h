/* SPDX-License-Identifier: MIT
 * file.h - a file that is read or written at positions, and ranges of it as streams. The calls that
 * touch the disk block: they run on stage threads. Any thread. */
#ifndef LK_FILE_H
#define LK_FILE_H

#include "caps.h"
#include "stream.h"

struct lk_file {
    int fd;
    int direct; /* private: a second descriptor past the page cache, -1 = not tried, -2 = can't */
    bool writable, directory;
    uint64_t position; /* the owner's: where the next stream that is written to it begins */
    int refs;          /* private, atomic */
    char path[];       /* as it was given */
};

enum lk_file_mode {
    LK_FILE_READ,
    LK_FILE_WRITE, /* made if it is missing, else emptied */
    LK_FILE_CREATE /* LK_CONFLICT if it is there */
};

/* Follows the links of path first, asks caps about where it leads and opens that without following
 * any more. perm is for a new file, before the umask. A directory is LK_IO (EISDIR). */
struct lk_file *lk_file_open(struct lk_caps *caps, const char *path, enum lk_file_mode mode,
                             unsigned perm, struct lk_error *err);
struct lk_file *lk_file_ref(struct lk_file *file);
void lk_file_unref(struct lk_file *file); /* the last one closes it */

/* Writes all, or fails. Large pieces from page-aligned memory go past the page cache where the file
 * system can do that: a backup is read next year, not next second, and the copy costs. */
int lk_file_write(struct lk_file *file, const void *data, size_t len, uint64_t offset,
                  struct lk_error *err);
int lk_file_sync(struct lk_file *file, struct lk_error *err);
int lk_file_size(struct lk_file *file, uint64_t *size, struct lk_error *err);
/* Takes the file's lock for this descriptor, without waiting; LK_CONFLICT when another has it. It
 * is let go of when the file is closed, however its process ends. */
int lk_file_lock(struct lk_file *file, struct lk_error *err);
/* A directory to be synced with lk_file_sync, so that names made in it last. Needs write. */
struct lk_file *lk_file_open_dir(struct lk_caps *caps, const char *path, struct lk_error *err);
/* What an unprivileged user may still write there, or where it would be made. */
int lk_file_free_bytes(struct lk_caps *caps, const char *path, uint64_t *bytes,
                       struct lk_error *err);

/* The bytes from first to last (inclusive; UINT64_MAX = to the end) as far as the file has them, on
 * a stage thread. Keeps its own reference. */
struct lk_stream *lk_file_stream(struct lk_pool *pool, struct lk_file *file, uint64_t first,
                                 uint64_t last, struct lk_error *err);

#endif
