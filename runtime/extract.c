/* SPDX-License-Identifier: MIT
 * extract.c - reads a tar stream on a stage thread and has its entries written beneath a directory.
 *
 * libarchive parses, fed with the stream's chunks; it never touches the disk. The thread's locale
 * (not the process's) is C meanwhile, so that names come through byte by byte: libarchive can't
 * convert them to it and leaves them alone (it warns of that), while in a UTF-8 locale it composes
 * letters and their accents, and two names become one. An archive must end with its end mark: what
 * was cut off is an error, also between two entries. What follows the end mark is read too, because
 * the stream's own end decides whether all of this was right.
 *
 * Owns the input and the descriptor of the target. */
#include "extract_internal.h"
#include "sniff.h"
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CLOCK_WAIT_MS = 20 };
#define RATIO_FROM ((uint64_t)256 << 20)

/* --- libarchive's side --- */

static la_ssize_t read_input(struct archive *archive, void *arg, const void **data)
{
    struct lk_extract *x = arg;
    do {
        lk_chunk_unref(x->chunk);
        x->chunk = NULL;
        int result = lk_stream_read(x->input, &x->chunk, &x->input_error);
        if (result == LK_STREAM_DONE) {
            x->ended = true;
            return 0;
        }
        if (result < 0) {
            archive_set_error(archive, EIO, "input failed");
            return ARCHIVE_FATAL;
        }
    } while (x->chunk->len == 0);
    *data = x->chunk->data;
    return (la_ssize_t)x->chunk->len;
}

int lk_extract_parse_error(struct lk_extract *x, struct lk_error *err)
{
    if (x->input_error.kind != LK_OK) {
        *err = x->input_error;
        return -1;
    }
    if (x->ended)
        return lk_error_set(err, LK_CORRUPT,
                            "the archive is cut off after %llu bytes, more was expected",
                            (unsigned long long)archive_filter_bytes(x->archive, -1));
    const char *text = archive_error_string(x->archive);
    return lk_error_set(err, LK_CORRUPT, "the archive is damaged near byte %llu: %s",
                        (unsigned long long)archive_filter_bytes(x->archive, -1),
                        text ? text : "no tar entry");
}

int lk_extract_spend(struct lk_extract *x, uint64_t bytes)
{
    x->written += bytes;
    if (x->max_bytes && x->written > x->max_bytes) {
        lk_error_set(&x->error, LK_CORRUPT,
                     "the archive holds more than the %llu bytes that it may have",
                     (unsigned long long)x->max_bytes);
        return lk_error_hint(&x->error,
                             "it is not what it says to be, or a larger limit is needed");
    }
    if (x->max_ratio == 0 || x->written < RATIO_FROM)
        return 0;
    uint64_t read = lk_stream_bytes(x->source);
    if (x->written / x->max_ratio <= read)
        return 0;
    lk_error_set(&x->error, LK_CORRUPT,
                 "the archive grows to more than %u times its size: %llu bytes out of %llu",
                 x->max_ratio, (unsigned long long)x->written, (unsigned long long)read);
    return lk_error_hint(&x->error,
                         "it may be made to fill the disk; if it is not, raise the limit");
}

/* True if what the first path becomes in the target is a directory above what the second becomes.
 */
static int stays_above(struct lk_extract *x, const char *directory, const char *path)
{
    int left_out = lk_extract_name(x, directory, "member", &x->target);
    if (left_out == 0)
        left_out = lk_extract_name(x, path, "member", &x->path);
    if (left_out)
        return left_out < 0 ? -1 : 0;
    size_t len = x->target.len;
    return len == 0 || (len < x->path.len && x->path.data[len] == '/' &&
                        memcmp(x->target.data, x->path.data, len) == 0);
}

/* An entry that is selected, after the directories above it. */
static int select_entry(struct lk_extract *x, struct archive_entry *entry)
{
    int result = lk_select_look(x->select, entry, &x->error);
    struct archive_entry *above;
    while (result > 0 && (above = lk_select_above(x->select))) {
        const char *path = archive_entry_pathname(entry);
        int makes = path ? stays_above(x, archive_entry_pathname(above), path) : 0;
        if (makes < 0 || (makes && lk_extract_entry(x, above)))
            return -1;
    }
    return result > 0 ? lk_extract_entry(x, entry) : result;
}

static int read_entries(struct lk_extract *x)
{
    for (;;) {
        struct archive_entry *entry;
        if (__atomic_load_n(&x->stop, __ATOMIC_RELAXED))
            return lk_error_set(&x->error, LK_CANCELLED, "the extraction was cancelled");
        int result = archive_read_next_header(x->archive, &entry);
        if (result == ARCHIVE_EOF && !x->ended)
            return 0;
        if (result != ARCHIVE_OK && result != ARCHIVE_WARN)
            return lk_extract_parse_error(x, &x->error);
        if (x->select ? select_entry(x, entry) : lk_extract_entry(x, entry))
            return -1;
        __atomic_add_fetch(&x->files, 1, __ATOMIC_RELAXED);
    }
}

/* What follows the end mark: padding, or the stream's own verdict. */
static int drain(struct lk_extract *x)
{
    int result;
    do {
        lk_chunk_unref(x->chunk);
        x->chunk = NULL;
        result = lk_stream_read(x->input, &x->chunk, &x->error);
    } while (result == LK_STREAM_DATA);
    return result == LK_STREAM_DONE ? 0 : -1;
}

/* --- the stage --- */

/* The time that a new file beneath the target gets now, which may not be by this machine's clock.
 */
static struct timespec target_clock(const struct lk_extract *x)
{
    struct stat st;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    int fd = openat(x->into, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
    if (fd >= 0 && fstat(fd, &st) == 0)
        now = st.st_ctim;
    if (fd >= 0)
        close(fd);
    return now;
}

/* What is made from now on is told from what was there by its time, so that clock must have moved
 * on: a tick is 4 ms. Where its steps are coarser than CLOCK_WAIT_MS, what was made in the same
 * step counts as ours. */
static void read_clock(struct lk_extract *x)
{
    struct timespec start = target_clock(x), pause = {.tv_nsec = 1000000};
    x->began = start;
    for (int i = 0; i < CLOCK_WAIT_MS; i++) {
        if (x->began.tv_sec != start.tv_sec || x->began.tv_nsec != start.tv_nsec)
            break;
        nanosleep(&pause, NULL);
        x->began = target_clock(x);
    }
}

static int set_up(struct lk_extract *x)
{
    read_clock(x);
    x->fractions_fall = lk_extract_fractions_fall();
    lk_buf_init(&x->path, 2 * LK_TAR_PATH_MAX);
    lk_buf_init(&x->target, 2 * LK_TAR_PATH_MAX);
    lk_buf_init(&x->mapped, 2 * LK_TAR_PATH_MAX);
    x->umask = x->use_umask ? lk_extract_umask() : 0;
    if (!(x->parents = lk_beneath_new(x->into, &x->error)) ||
        !(x->targets = lk_beneath_new(x->into, &x->error)) || !(x->names = lk_names_new(&x->error)))
        return -1;
    if (x->gunzip_in_flight > 0)
        x->input = lk_sniff(x->pool, lk_stream_ref(x->source), x->gunzip_in_flight, &x->error);
    else
        x->input = lk_stream_ref(x->source);
    if (!x->input)
        return -1;
    x->archive = archive_read_new();
    if (!x->archive || archive_read_support_format_tar(x->archive))
        return lk_error_set(&x->error, LK_MEMORY, "no memory to read an archive");
    if (archive_read_open2(x->archive, x, NULL, read_input, NULL, NULL))
        return lk_extract_parse_error(x, &x->error);
    return 0;
}

static void drop_stage(struct lk_extract *x)
{
    for (size_t i = 0; i < x->dir_count; i++) {
        free(x->dirs[i].path);
        archive_entry_free(x->dirs[i].entry);
    }
    free(x->dirs);
    archive_read_free(x->archive);
    lk_chunk_unref(x->chunk);
    lk_stream_unref(x->input);
    lk_beneath_free(x->parents);
    lk_beneath_free(x->targets);
    lk_buf_free(&x->path);
    lk_buf_free(&x->target);
    lk_buf_free(&x->mapped);
    lk_names_free(x->names);
}

static void extract_stage(void *arg)
{
    struct lk_extract *x = arg;
    locale_t plain = newlocale(LC_CTYPE_MASK, "C", (locale_t)0);
    locale_t before = plain ? uselocale(plain) : (locale_t)0;
    int result = set_up(x);
    if (result == 0)
        result = read_entries(x);
    /* Also after a failure: what is there should look as it should. */
    struct lk_error first = x->error;
    if (lk_extract_finish_dirs(x) && result == 0)
        result = -1;
    else if (result)
        x->error = first;
    if (result == 0)
        result = drain(x);
    if (result == 0)
        lk_extract_judge_map(x);
    if (result && x->input)
        lk_stream_cancel(x->input);
    if (result)
        lk_stream_cancel(x->source);
    drop_stage(x);
    if (plain) {
        uselocale(before);
        freelocale(plain);
    }
    if (result && __atomic_load_n(&x->stop, __ATOMIC_RELAXED))
        lk_error_set(&x->error, LK_CANCELLED, "the extraction was cancelled");
    x->done(x->arg, result ? &x->error : NULL);
    lk_extract_unref(x);
}

/* --- interface --- */

/* mkdir -p */
static int make_directories(const char *path, struct lk_error *err)
{
    char *copy = strdup(path);
    if (!copy)
        return lk_error_set(err, LK_MEMORY, "no memory for a path");
    int result = 0;
    for (size_t at = 1; at <= strlen(path) && result == 0; at++) {
        if (path[at] != '/' && path[at])
            continue;
        copy[at] = 0;
        if (mkdir(copy, 0777) && errno != EEXIST)
            result = lk_error_errno(err, errno, "directory %s can't be made", copy);
        copy[at] = path[at];
    }
    free(copy);
    return result;
}

static int open_into(const char *path, struct lk_error *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) {
        if (make_directories(path, err))
            return -1;
        fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    if (fd < 0)
        lk_error_errno(err, errno, "directory %s can't be opened", path);
    return fd;
}

static void take_options(struct lk_extract *x, const struct lk_extract_options *options)
{
    x->gunzip_in_flight = options->gunzip_in_flight;
    x->existing = options->existing;
    x->must_keep = options->owner == LK_OWNER_KEEP;
    x->keep_owner = x->must_keep || (options->owner == LK_OWNER_AUTO && geteuid() == 0);
    x->pid = getpid();
    x->use_umask = options->use_umask;
    x->devices = options->devices;
    x->strip = options->strip;
    x->max_bytes = options->max_bytes;
    x->max_ratio = options->max_ratio;
}

static int take_select(struct lk_extract *x, const struct lk_extract_options *options,
                       struct lk_error *err)
{
    if (options->select_count == 0)
        return 0;
    x->select = lk_select_new(options->select, options->select_count, err);
    return x->select ? 0 : -1;
}

struct lk_extract *lk_extract_new(struct lk_pool *pool, struct lk_stream *input,
                                  const struct lk_extract_options *options,
                                  void (*done)(void *arg, const struct lk_error *err), void *arg,
                                  struct lk_error *err)
{
    struct lk_extract *x = calloc(1, sizeof *x);
    if (!x) {
        lk_error_set(err, LK_MEMORY, "no memory for an extraction");
        goto failed;
    }
    *x = (struct lk_extract){.refs = 2, .pool = pool, .source = input, .done = done, .arg = arg};
    x->into = -1;
    take_options(x, options);
    if (take_select(x, options, err) == 0 &&
        lk_extract_take_map(x, options->map, options->map_count, err) == 0 &&
        (x->into = open_into(options->into, err)) >= 0 &&
        lk_pool_stage(pool, "extract", extract_stage, x, err) == 0)
        return x;
    if (x->into >= 0)
        close(x->into);
    lk_extract_free_map(x);
    lk_select_free(x->select);
    free(x);
failed:
    lk_stream_cancel(input);
    lk_stream_unref(input);
    return NULL;
}

void lk_extract_progress(struct lk_extract *x, uint64_t *bytes, uint64_t *files)
{
    *bytes = __atomic_load_n(&x->bytes, __ATOMIC_RELAXED);
    *files = __atomic_load_n(&x->files, __ATOMIC_RELAXED);
}

const struct lk_archive_stats *lk_extract_result(struct lk_extract *x)
{
    return &x->stats;
}

const struct lk_select *lk_extract_selection(struct lk_extract *x)
{
    return x->select;
}

void lk_extract_cancel(struct lk_extract *x)
{
    __atomic_store_n(&x->stop, 1, __ATOMIC_RELAXED);
    lk_stream_cancel(x->source);
}

void lk_extract_unref(struct lk_extract *x)
{
    if (!x || __atomic_sub_fetch(&x->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    close(x->into);
    lk_stream_unref(x->source);
    lk_stats_free(&x->stats);
    lk_extract_free_map(x);
    lk_select_free(x->select);
    free(x);
}
