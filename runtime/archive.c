/* SPDX-License-Identifier: MIT
 * archive.c - the interface of the archive source: options, life, progress, warnings, estimate.
 *
 * Owns the copied options and the results. The handle and the reading stage have a reference each.
 * What happens to one entry is in archive_read.c, the walk in walk.c. */
#include "archive_internal.h"
#include "gzip.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { STREAM_DEPTH = 4 };

/* --- warnings --- */

const char *lk_warning_name(enum lk_warning_kind kind)
{
    static const char *const names[] = {"changed", "vanished", "unreadable", "skipped"};
    return (unsigned)kind < sizeof names / sizeof *names ? names[kind] : "unknown";
}

void lk_stats_warn(struct lk_archive_stats *stats, enum lk_warning_kind kind, const char *path,
                   const char *message)
{
    stats->warning_count++;
    if (kind == LK_WARN_UNREADABLE)
        stats->unreadable++;
    if (stats->warning_count > LK_WARNINGS_KEPT)
        return;
    size_t len = strlen(path), message_len = strlen(message);
    struct lk_warning *warning = malloc(sizeof *warning + len + message_len + 2);
    if (!warning)
        return; /* counted all the same */
    warning->next = NULL;
    warning->kind = kind;
    memcpy(warning->path, path, len + 1);
    warning->message = warning->path + len + 1;
    memcpy(warning->message, message, message_len + 1);
    struct lk_warning **end = &stats->warnings;
    while (*end)
        end = &(*end)->next;
    *end = warning;
}

void lk_stats_free(struct lk_archive_stats *stats)
{
    for (struct lk_warning *warning = stats->warnings, *next; warning; warning = next) {
        next = warning->next;
        free(warning);
    }
    stats->warnings = NULL;
}

/* --- life --- */

void lk_archive_unref(struct lk_archive *archive)
{
    if (!archive || __atomic_sub_fetch(&archive->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    for (size_t i = 0; archive->roots && i < archive->root_count; i++) {
        free((char *)archive->roots[i].path);
        free((char *)archive->roots[i].name);
    }
    free(archive->roots);
    lk_exclude_free(archive->exclude);
    lk_stats_free(&archive->stats);
    pthread_mutex_destroy(&archive->mutex);
    free(archive);
}

/* A root must be there, and a file or directory be readable, before anything is begun. */
static int check_root(const char *path, struct lk_error *err)
{
    struct stat st;
    if (!*path)
        return lk_error_set(err, LK_USAGE, "a path to archive is empty");
    if (fstatat(AT_FDCWD, path, &st, AT_SYMLINK_NOFOLLOW))
        return lk_error_errno(err, errno, "%s can't be archived", path);
    if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
        return 0;
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return lk_error_errno(err, errno, "%s can't be archived", path);
    close(fd);
    return 0;
}

static int copy_roots(struct lk_archive *archive, const struct lk_archive_options *options,
                      struct lk_error *err)
{
    archive->roots = calloc(options->root_count, sizeof *archive->roots);
    if (!archive->roots)
        return lk_error_set(err, LK_MEMORY, "no memory for %zu paths", options->root_count);
    archive->root_count = options->root_count;
    for (size_t i = 0; i < options->root_count; i++) {
        const struct lk_archive_root *root = &options->roots[i];
        char *name = NULL;
        if (check_root(root->path, err) ||
            lk_walk_name(root->name ? root->name : root->path, &name, err))
            return -1;
        archive->roots[i].name = name;
        if (!(archive->roots[i].path = strdup(root->path)))
            return lk_error_set(err, LK_MEMORY, "no memory for a path");
    }
    return 0;
}

struct lk_archive *lk_archive_new(const struct lk_archive_options *options, struct lk_error *err)
{
    if (options->root_count == 0) {
        lk_error_set(err, LK_USAGE, "nothing to archive: no path was given");
        return NULL;
    }
    struct lk_archive *archive = calloc(1, sizeof *archive);
    if (!archive) {
        lk_error_set(err, LK_MEMORY, "no memory for an archive");
        return NULL;
    }
    archive->refs = 1;
    pthread_mutex_init(&archive->mutex, NULL);
    archive->exclude_caches = options->exclude_caches;
    archive->one_file_system = options->one_file_system;
    archive->whole = options->whole;
    archive->in_flight = options->in_flight > 2 ? options->in_flight : 2;
    if (copy_roots(archive, options, err))
        goto failed;
    if (options->exclude_count &&
        !(archive->exclude = lk_exclude_new(options->exclude, options->exclude_count, err)))
        goto failed;
    return archive;
failed:
    lk_archive_unref(archive);
    return NULL;
}

/* --- the stage --- */

static int walk_roots(const struct lk_archive *archive, const struct lk_walk *walk,
                      struct lk_error *err)
{
    int result = 0;
    for (size_t i = 0; i < archive->root_count && result == 0; i++)
        result = lk_walk_root(walk, archive->roots[i].path, archive->roots[i].name, err);
    return result;
}

static struct lk_walk walk_of(const struct lk_archive *archive)
{
    return (struct lk_walk){.exclude = archive->exclude,
                            .exclude_caches = archive->exclude_caches,
                            .one_file_system = archive->one_file_system};
}

static void drop_stage(struct lk_archive *a)
{
    lk_pack_free(&a->pack);
    lk_xattrs_free(&a->xattrs);
    lk_larges_free(a->larges);
    lk_links_free(a->links);
    lk_names_free(a->names);
    lk_slabs_free(a->slabs);
    lk_stream_unref(a->out);
    lk_archive_unref(a);
}

static void read_stage(void *arg)
{
    struct lk_archive *a = arg;
    struct lk_walk walk = walk_of(a);
    walk.visit = lk_archive_visit;
    walk.problem = lk_archive_problem;
    walk.arg = a;
    int result = walk_roots(a, &walk, &a->error);
    if (result == 0 && a->error.kind != LK_OK) /* after the last entry that was visited */
        result = -1;
    if (result == 0)
        result = lk_pack_finish(&a->pack, &a->error);
    a->stats.members = a->pack.sent;
    if (result && __atomic_load_n(&a->stop, __ATOMIC_RELAXED))
        lk_error_set(&a->error, LK_CANCELLED, "the archive was cancelled");
    __atomic_store_n(&a->finished, 1, __ATOMIC_RELEASE);
    lk_stream_end(a->out, result ? &a->error : NULL); /* no cancelled() after it */
    drop_stage(a);
}

/* Any thread: the stage may wait for a slab or in a write. */
static void cancelled(void *arg)
{
    struct lk_archive *a = arg;
    __atomic_store_n(&a->stop, 1, __ATOMIC_RELAXED);
    lk_slabs_close(a->slabs);
}

struct lk_stream *lk_archive_stream(struct lk_archive *a, struct lk_pool *pool,
                                    struct lk_error *err)
{
    if (a->started) {
        lk_error_set(err, LK_USAGE, "the archive was already read");
        return NULL;
    }
    a->started = true;
    __atomic_add_fetch(&a->refs, 1, __ATOMIC_RELAXED);
    lk_xattrs_init(&a->xattrs);
    a->keep_atime = true;
    struct lk_stream *stream = NULL;
    if (!(a->out = lk_stream_new(STREAM_DEPTH, err)) ||
        !(a->slabs = lk_slabs_new(LK_MEMBER_SIZE, a->in_flight, err)) ||
        !(a->larges = lk_larges_new(pool, err)) || !(a->links = lk_links_new(err)) ||
        !(a->names = lk_names_new(err)))
        goto failed;
    lk_pack_init(&a->pack, a->slabs, a->out, a->larges);
    lk_stream_on_cancel(a->out, cancelled, a);
    stream = a->out; /* the second of its two references is the consumer's */
    if (lk_pool_stage(pool, "archive", read_stage, a, err) == 0)
        return stream;
failed:
    if (a->out) {
        lk_stream_on_cancel(a->out, NULL, NULL);
        lk_stream_end(a->out, NULL);
        lk_stream_unref(a->out); /* the consumer's */
    }
    drop_stage(a);
    return NULL;
}

/* --- what others may ask --- */

void lk_archive_progress(struct lk_archive *archive, uint64_t *bytes, uint64_t *files, char *path,
                         size_t path_size)
{
    if (bytes)
        *bytes = __atomic_load_n(&archive->bytes_read, __ATOMIC_RELAXED);
    if (files)
        *files = __atomic_load_n(&archive->files_done, __ATOMIC_RELAXED);
    if (!path || !path_size)
        return;
    pthread_mutex_lock(&archive->mutex);
    size_t len = strnlen(archive->current, path_size - 1);
    memcpy(path, archive->current, len);
    path[len] = 0;
    pthread_mutex_unlock(&archive->mutex);
}

const struct lk_archive_stats *lk_archive_result(struct lk_archive *archive)
{
    return __atomic_load_n(&archive->finished, __ATOMIC_ACQUIRE) ? &archive->stats : NULL;
}

/* --- estimate --- */

struct estimate {
    struct lk_archive *archive; /* for its options */
    struct lk_links *links;
    int *stop;
    void (*done)(void *arg, uint64_t files, uint64_t bytes);
    void *arg;
    uint64_t files, bytes;
};

static int count_entry(void *arg, const struct lk_walk_entry *entry)
{
    struct estimate *e = arg;
    struct stat other;
    const struct stat *st = &entry->st;
    if (__atomic_load_n(e->stop, __ATOMIC_RELAXED))
        return 1;
    if (!entry->known) {
        if (fstatat(entry->dirfd, entry->name, &other, AT_SYMLINK_NOFOLLOW))
            return 0;
        st = &other;
    }
    if (!S_ISREG(st->st_mode))
        return 0;
    e->files++;
    if (st->st_nlink > 1) {
        if (lk_links_find(e->links, st))
            return 0;
        lk_links_add(e->links, st, "", NULL);
    }
    e->bytes += (uint64_t)st->st_size;
    return 0;
}

static void ignore_problem(void *arg, const char *source, enum lk_walk_problem kind, int errnum,
                           const char *message)
{
    (void)arg, (void)source, (void)kind, (void)errnum, (void)message;
}

static void estimate_stage(void *arg)
{
    struct estimate *e = arg;
    struct lk_walk walk = walk_of(e->archive);
    walk.visit = count_entry;
    walk.problem = ignore_problem;
    walk.arg = e;
    walk_roots(e->archive, &walk, NULL);
    e->done(e->arg, e->files, e->bytes);
    lk_links_free(e->links);
    lk_archive_unref(e->archive);
    free(e);
}

int lk_archive_estimate(const struct lk_archive_options *options, struct lk_pool *pool, int *stop,
                        void (*done)(void *arg, uint64_t files, uint64_t bytes), void *arg,
                        struct lk_error *err)
{
    struct estimate *e = calloc(1, sizeof *e);
    if (!e)
        return lk_error_set(err, LK_MEMORY, "no memory for an estimate");
    e->stop = stop;
    e->done = done;
    e->arg = arg;
    if ((e->archive = lk_archive_new(options, err)) && (e->links = lk_links_new(err)) &&
        lk_pool_stage(pool, "estimate", estimate_stage, e, err) == 0)
        return 0;
    lk_links_free(e->links);
    lk_archive_unref(e->archive);
    free(e);
    return -1;
}
