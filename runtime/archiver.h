/* SPDX-License-Identifier: MIT
 * archiver.h - a tar of paths as a stream of chunks, and the way back: extraction beneath a
 * directory. The source walks and reads on a stage thread, extraction writes on one. Format:
 * docs/format.md. Not called archive.h, which is the name of libarchive's header. */
#ifndef LK_ARCHIVER_H
#define LK_ARCHIVER_H

#include "caps.h"
#include "stream.h"

struct lk_archive_root {
    const char *path; /* in the file system */
    const char *name; /* member path; NULL = path without leading "/" and "./" */
};

struct lk_archive_options {
    const struct lk_archive_root *roots;
    size_t root_count;
    const char *const *exclude; /* patterns as in tar --exclude, see walk.h */
    size_t exclude_count;
    bool exclude_caches; /* directories with a valid CACHEDIR.TAG: only the tag is kept */
    bool one_file_system;
    bool whole;    /* what can't be read, changes or vanishes fails the stream: no warning */
    int in_flight; /* chunks of LK_MEMBER_SIZE that may exist at once */
};

enum lk_warning_kind { LK_WARN_CHANGED, LK_WARN_VANISHED, LK_WARN_UNREADABLE, LK_WARN_SKIPPED };
const char *lk_warning_name(enum lk_warning_kind kind);

struct lk_warning {
    struct lk_warning *next;
    enum lk_warning_kind kind;
    char *message; /* "file changed as we read it", "permission denied" ... */
    char path[];
};

struct lk_archive_stats {
    uint64_t files, directories, links, others; /* entries written */
    uint64_t bytes;                             /* of file data */
    uint64_t members;                           /* chunks sent; each becomes one gzip member */
    uint64_t unreadable, warning_count;
    uint64_t skipped; /* extraction: entries that were left out for what is in the target */
    struct lk_warning *warnings; /* the first 1,000 */
};

struct lk_archive;

/* Copies the options. Fails at once for a root that is missing or can't be opened. */
struct lk_archive *lk_archive_new(const struct lk_archive_options *options, struct lk_error *err);
/* Starts reading; once. The stream is framed: a chunk is LK_MEMBER_SIZE at most, begins at an entry
 * or inside a large file, and carries struct lk_entries as meta. */
struct lk_stream *lk_archive_stream(struct lk_archive *archive, struct lk_pool *pool,
                                    struct lk_error *err);
/* While it runs, any thread: bytes of file data read and entries done so far; path (may be NULL)
 * gets the current one. */
void lk_archive_progress(struct lk_archive *archive, uint64_t *bytes, uint64_t *files, char *path,
                         size_t path_size);
/* After the stream has ended; NULL while it is still being read. */
const struct lk_archive_stats *lk_archive_result(struct lk_archive *archive);
/* Cancels and waits for nothing: the stage drops its own reference. */
void lk_archive_unref(struct lk_archive *archive);
/* A walk without reading, on a stage thread; cancel by setting *stop. done is called on that
 * thread. */
int lk_archive_estimate(const struct lk_archive_options *options, struct lk_pool *pool, int *stop,
                        void (*done)(void *arg, uint64_t files, uint64_t bytes), void *arg,
                        struct lk_error *err);

enum lk_owner { LK_OWNER_AUTO, LK_OWNER_KEEP, LK_OWNER_NONE }; /* auto = keep when root */

/* What becomes of a file that is there already: it is an error of kind conflict, it stays, it is
 * replaced, or it stays if it is newer than the archive's. What the extraction made itself is
 * always replaced: the last entry of a path counts. */
enum lk_existing {
    LK_EXISTING_ERROR,
    LK_EXISTING_SKIP,
    LK_EXISTING_REPLACE,
    LK_EXISTING_KEEP_NEWER
};

/* Members at `from` and below it are extracted as `to`. */
struct lk_path_map {
    const char *from, *to;
};

struct lk_extract_options {
    const char *into;     /* directory; made if it is missing */
    int gunzip_in_flight; /* > 0: input may be gzip, and that many chunks of it are worked on at
                             once */
    enum lk_existing existing;
    enum lk_owner owner;
    bool use_umask; /* modes less the process's umask, no set-id bits and no access lists */
    bool devices;   /* devices are made, too; else they are left out with a warning */
    unsigned strip; /* leading components that are taken off, of members no map names */
    const struct lk_path_map *map; /* the first one that fits a member's whole path */
    size_t map_count;
    const char *const *select; /* patterns of the paths that are extracted, extract_select.h */
    size_t select_count;       /* 0 = all */
    uint64_t max_bytes; /* that may be written, 0 = any; holes don't count, an entry counts 512 */
    unsigned max_ratio; /* of bytes written and read, once 256 MiB were written; 0 = any */
};

struct lk_extract;

/* Takes over input (a tar stream, chunks of any size). done is called on the stage thread when it
 * has ended. */
struct lk_extract *lk_extract_new(struct lk_pool *pool, struct lk_stream *input,
                                  const struct lk_extract_options *options,
                                  void (*done)(void *arg, const struct lk_error *err), void *arg,
                                  struct lk_error *err);
void lk_extract_progress(struct lk_extract *extract, uint64_t *bytes, uint64_t *files);
const struct lk_archive_stats *lk_extract_result(struct lk_extract *extract); /* after done */
/* After done: how often each pattern matched, and hard links to what was not selected; NULL if all
 * was extracted. */
struct lk_select;
const struct lk_select *lk_extract_selection(struct lk_extract *extract);
void lk_extract_cancel(struct lk_extract *extract); /* any thread; done still comes */
void lk_extract_unref(struct lk_extract *extract);

#endif
