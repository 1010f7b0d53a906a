/* SPDX-License-Identifier: MIT
 * extract_internal.h - what extract.c (interface, reading), extract_name.c, extract_place.c (where
 * entries go) and extract_write.c, extract_meta.c (disk) share. */
#ifndef LK_EXTRACT_INTERNAL_H
#define LK_EXTRACT_INTERNAL_H

#include "archive_internal.h"
#include "beneath.h"
#include "extract_select.h"
#include <archive.h>
#include <archive_entry.h>
#include <sys/stat.h>
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

/* Where an entry goes. */
enum { LK_TEMPORARY_SIZE = 40 };
struct lk_place {
    int parent;
    const char *name;
    bool replace;                      /* what has the name goes */
    char temporary[LK_TEMPORARY_SIZE]; /* the name under which it is made; "" = its own */
};

struct lk_extract {
    int refs; /* atomic */
    int stop; /* atomic */
    struct lk_pool *pool;
    struct lk_stream *source; /* what was given; cancelled from any thread */
    int gunzip_in_flight;
    int into;
    enum lk_existing existing;
    bool keep_owner, must_keep, use_umask, devices;
    unsigned strip;
    struct lk_path_map *map; /* owned, with its texts */
    size_t map_count;
    uint64_t *map_used;       /* members that each has named */
    struct lk_select *select; /* NULL = all */
    uint64_t max_bytes;
    unsigned max_ratio;
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
    struct lk_buf path, target, mapped;
    char shown[200];  /* of a path that is long */
    uint64_t written; /* bytes that take room */
    mode_t umask;
    struct lk_names *names;
    struct lk_extract_dir *dirs;
    size_t dir_count, dir_room, dir_limit;
    bool fractions_fall;   /* of times before 1970, see lk_extract_fractions_fall */
    struct timespec began; /* by the target's clock */
    pid_t pid;
    unsigned temporary; /* number of the next temporary name */
    struct lk_error error;
};

/* extract.c: fills *err from what libarchive says, or from the stream's error behind it. */
int lk_extract_parse_error(struct lk_extract *x, struct lk_error *err);
/* Counts bytes that take room; -1 when they are more than the limits allow. */
int lk_extract_spend(struct lk_extract *x, uint64_t bytes);
/* extract_name.c: copies and checks the maps; LK_USAGE. */
int lk_extract_take_map(struct lk_extract *x, const struct lk_path_map *map, size_t count,
                        struct lk_error *err);
void lk_extract_free_map(struct lk_extract *x);
/* Warns of maps that have named nothing. */
void lk_extract_judge_map(struct lk_extract *x);
/* Where a member path (`what` for messages) goes: 0 and *out, 1 = it is left out, -1. */
int lk_extract_name(struct lk_extract *x, const char *path, const char *what, struct lk_buf *out);
/* extract_place.c. The path for messages. */
const char *lk_extract_shown(struct lk_extract *x);
/* As lk_beneath_open; LK_CORRUPT where what this extraction made is in the way. */
int lk_extract_open(struct lk_extract *x, struct lk_beneath *beneath, const char *path, size_t len,
                    bool make);
int lk_extract_errno(struct lk_extract *x, int errnum, const char *what);
/* Looks what has the name: 0 = the entry may be made, 1 = it is left out, -1. */
int lk_place_look(struct lk_extract *x, struct lk_place *place, struct archive_entry *entry);
/* The next free temporary name. */
void lk_place_temporary(struct lk_extract *x, struct lk_place *place);
/* The name to make the entry under. */
const char *lk_place_made(const struct lk_place *place);
/* The entry could not be made, its name was taken meanwhile: as lk_place_look; 0 = try again. */
int lk_place_again(struct lk_extract *x, struct lk_place *place, struct archive_entry *entry);
/* It is complete: gives it its name. As lk_place_look, and it is gone where that is not 0. */
int lk_place_settle(struct lk_extract *x, struct lk_place *place, struct archive_entry *entry);
void lk_place_discard(const struct lk_place *place);
bool lk_extract_made_here(const struct lk_extract *x, int parent, const char *name,
                          const struct stat *st);
/* extract_write.c: makes one entry. */
int lk_extract_entry(struct lk_extract *x, struct archive_entry *entry);
/* extract_dirs.c. Splits a clean path at its last slash: *name is the rest. Length of the
 * directory's part. */
size_t lk_extract_split(const struct lk_buf *path, const char **name);
/* Keeps of a directory what has to wait for the end. */
int lk_extract_remember(struct lk_extract *x, struct archive_entry *entry);
/* Finishes some when there are too many; before an entry. */
int lk_extract_flush_dirs(struct lk_extract *x);
int lk_extract_finish_dirs(struct lk_extract *x);
/* extract_meta.c. fd: of a file or directory that is open, -1 for others, which are parent and
 * name. */
int lk_extract_meta(struct lk_extract *x, struct archive_entry *entry, int fd, int parent,
                    const char *name);
struct timespec lk_extract_time(const struct lk_extract *x, struct archive_entry *entry);
/* True if libarchive here counts fractions of a second before 1970 the wrong way. */
bool lk_extract_fractions_fall(void);
mode_t lk_extract_umask(void);
void lk_extract_warn(struct lk_extract *x, const char *what, int errnum);

#endif
