/* SPDX-License-Identifier: MIT
 * archive_internal.h - what archive.c (interface) and archive_read.c (the stage that reads) share.
 */
#ifndef LK_ARCHIVE_INTERNAL_H
#define LK_ARCHIVE_INTERNAL_H

#include "archiver.h"
#include "links.h"
#include "pack.h"
#include "walk.h"
#include "xattrs.h"
#include <pthread.h>

enum { LK_WARNINGS_KEPT = 1000 };

/* Warnings of an archive or an extraction: counted, the first ones kept. */
void lk_stats_warn(struct lk_archive_stats *stats, enum lk_warning_kind kind, const char *path,
                   const char *message);
void lk_stats_free(struct lk_archive_stats *stats);

struct lk_archive {
    int refs; /* atomic */
    struct lk_archive_root *roots;
    size_t root_count;
    struct lk_exclude *exclude;
    bool exclude_caches, one_file_system, whole;
    int in_flight;
    bool started;
    int stop;     /* atomic: cancelled */
    int finished; /* atomic: stats are complete */

    struct lk_archive_stats stats;   /* the stage's until the stream has ended */
    uint64_t bytes_read, files_done; /* atomic */
    pthread_mutex_t mutex;           /* for current */
    char current[1024];

    /* The stage's own. */
    struct lk_stream *out;
    struct lk_slabs *slabs;
    struct lk_larges *larges;
    struct lk_links *links;
    struct lk_names *names;
    struct lk_xattrs xattrs;
    struct lk_pack pack;
    bool keep_atime; /* O_NOATIME is worth a try in this directory */
    struct lk_error error;
};

/* Visits one entry on the stage; see struct lk_walk. */
int lk_archive_visit(void *arg, const struct lk_walk_entry *entry);
void lk_archive_problem(void *arg, const char *source, enum lk_walk_problem kind, int errnum,
                        const char *message);

#endif
