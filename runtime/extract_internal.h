/* SPDX-License-Identifier: MIT
 * extract_internal.h - what extract.c (interface, reading) and extract_write.c, extract_meta.c
 * (disk) share. */
#ifndef LK_EXTRACT_INTERNAL_H
#define LK_EXTRACT_INTERNAL_H

#include "archive_internal.h"
#include "beneath.h"
#include <archive.h>
#include <archive_entry.h>
#include <time.h>

/* A directory whose mode, owner and times are set at the end, when nothing is written into it any
 * more. */
struct lk_extract_dir {
    char *path;
    struct archive_entry *entry; /* NULL: the rest says it all, in a tenth of the memory */
    size_t number;               /* order of appearance: the last one counts */
    int64_t mtime;
    uint32_t mtime_ns, uid, gid;
    uint16_t perm;
    bool timed; /* mtime is set */
};

struct lk_extract {
    int refs; /* atomic */
    int stop; /* atomic */
    struct lk_pool *pool;
    struct lk_stream *source; /* what was given; cancelled from any thread */
    int gunzip_in_flight;
    int into;
    bool overwrite, keep_owner, must_keep;
    void (*done)(void *arg, const struct lk_error *err);
    void *arg;
    struct lk_archive_stats stats;
    uint64_t bytes, files; /* atomic: so far */

    /* The stage's own. */
    struct lk_stream *input; /* the tar in source */
    struct archive *archive;
    struct lk_chunk *chunk; /* libarchive reads from it */
    bool ended;             /* it asked for more than there is */
    struct lk_error input_error;
    struct lk_beneath *parents, *targets; /* of entries; of what hard links lead to */
    struct lk_buf path, target;
    struct lk_names *names;
    struct lk_extract_dir *dirs;
    size_t dir_count, dir_room;
    bool fractions_fall;   /* of times before 1970, see lk_extract_fractions_fall */
    struct timespec began; /* by the target's clock */
    unsigned temporary;    /* number of the next temporary name */
    struct lk_error error;
};

/* extract.c: fills *err from what libarchive says, or from the stream's error behind it. */
int lk_extract_parse_error(struct lk_extract *x, struct lk_error *err);
/* extract_write.c: makes one entry. */
int lk_extract_entry(struct lk_extract *x, struct archive_entry *entry);
int lk_extract_finish_dirs(struct lk_extract *x);
/* extract_meta.c. fd: of a file or directory that is open, -1 for others, which are parent and
 * name. */
int lk_extract_meta(struct lk_extract *x, struct archive_entry *entry, int fd, int parent,
                    const char *name);
/* True if libarchive here counts fractions of a second before 1970 the wrong way. */
bool lk_extract_fractions_fall(void);
void lk_extract_warn(struct lk_extract *x, const char *what, int errnum);

#endif
