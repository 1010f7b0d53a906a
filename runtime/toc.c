/* SPDX-License-Identifier: MIT
 * toc.c - the entries of a tar as lines of bytes.
 * libarchive parses, fed with the stream's chunks. Owns its input and the producer's side of its
 * output. One stage thread, whose locale is C meanwhile, so that names come through as they are. */
#include "toc.h"

#include "member.h"
#include "sniff.h"
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>

enum { DEPTH = 4, FIXED = 25, PATH_MAX_BYTES = 1 << 20 };
#define PIECE ((size_t)64 << 10)

struct toc {
    struct lk_pool *pool;
    struct lk_stream *source, *input, *output;
    int in_flight;
    struct archive *archive;
    struct lk_chunk *chunk, *out;
    struct lk_error input_error;
    bool ended; /* it asked for more than there is */
};

static la_ssize_t read_input(struct archive *archive, void *arg, const void **data)
{
    struct toc *toc = arg;
    do {
        lk_chunk_unref(toc->chunk);
        toc->chunk = NULL;
        int rc = lk_stream_read(toc->input, &toc->chunk, &toc->input_error);
        if (rc == LK_STREAM_DONE) {
            toc->ended = true;
            return 0;
        }
        if (rc < 0) {
            archive_set_error(archive, EIO, "input failed");
            return ARCHIVE_FATAL;
        }
    } while (toc->chunk->len == 0);
    *data = toc->chunk->data;
    return (la_ssize_t)toc->chunk->len;
}

static int parse_error(struct toc *toc, struct lk_error *err)
{
    if (toc->input_error.kind != LK_OK) {
        *err = toc->input_error;
        return -1;
    }
    const char *text = archive_error_string(toc->archive);
    return lk_error_set(err, LK_CORRUPT, "the archive is %s near byte %llu: %s",
                        toc->ended ? "cut off" : "damaged",
                        (unsigned long long)archive_filter_bytes(toc->archive, -1),
                        toc->ended || !text ? "a tar entry is expected" : text);
}

static int flush(struct toc *toc, struct lk_error *err)
{
    struct lk_chunk *out = toc->out;
    toc->out = NULL;
    if (!out)
        return 0;
    out->raw_len = out->len;
    return lk_stream_write(toc->output, out, err);
}

static char type_of(struct archive_entry *entry)
{
    if (archive_entry_hardlink(entry))
        return '1';
    switch (archive_entry_filetype(entry)) {
    case AE_IFREG:
        return '0';
    case AE_IFLNK:
        return '2';
    case AE_IFCHR:
        return '3';
    case AE_IFBLK:
        return '4';
    case AE_IFDIR:
        return '5';
    case AE_IFIFO:
        return '6';
    default:
        return '?';
    }
}

static int add_line(struct toc *toc, struct archive_entry *entry, struct lk_error *err)
{
    const char *path = archive_entry_pathname(entry);
    size_t len = path ? strnlen(path, PATH_MAX_BYTES) : 0, line = 4 + FIXED + len;
    if (toc->out && toc->out->cap - toc->out->len < line && flush(toc, err) < 0)
        return -1;
    if (!toc->out && !(toc->out = lk_chunk_alloc(line > PIECE ? line : PIECE, err)))
        return -1;
    unsigned char *to = toc->out->data + toc->out->len;
    lk_put32(to, (uint32_t)(FIXED + len));
    lk_put32(to + 4, (uint32_t)archive_entry_mode(entry));
    to[8] = (unsigned char)type_of(entry);
    lk_put64(to + 9, (uint64_t)(archive_entry_size_is_set(entry) ? archive_entry_size(entry) : 0));
    lk_put64(to + 17, (uint64_t)archive_entry_mtime(entry));
    lk_put32(to + 25, (uint32_t)archive_entry_mtime_nsec(entry));
    if (len > 0)
        memcpy(to + 4 + FIXED, path, len);
    toc->out->len += line;
    return 0;
}

static int read_entries(struct toc *toc, struct lk_error *err)
{
    for (;;) {
        struct archive_entry *entry;
        int rc = archive_read_next_header(toc->archive, &entry);
        if (rc == ARCHIVE_EOF && !toc->ended)
            return flush(toc, err);
        if (rc != ARCHIVE_OK && rc != ARCHIVE_WARN)
            return parse_error(toc, err);
        if (add_line(toc, entry, err) < 0)
            return -1;
    }
}

static int pump(struct toc *toc, struct lk_error *err)
{
    toc->input = lk_sniff(toc->pool, lk_stream_ref(toc->source), toc->in_flight, err);
    if (!toc->input)
        return -1;
    toc->archive = archive_read_new();
    if (!toc->archive || archive_read_support_format_tar(toc->archive) != ARCHIVE_OK)
        return lk_error_set(err, LK_MEMORY, "no memory to read an archive");
    if (archive_read_open2(toc->archive, toc, NULL, read_input, NULL, NULL) != ARCHIVE_OK)
        return parse_error(toc, err);
    int rc = read_entries(toc, err);
    while (rc == 0) {
        lk_chunk_unref(toc->chunk);
        toc->chunk = NULL;
        int more = lk_stream_read(toc->input, &toc->chunk, err);
        if (more <= 0)
            return more;
    }
    return rc;
}

static void drop(struct toc *toc)
{
    archive_read_free(toc->archive);
    lk_chunk_unref(toc->chunk);
    lk_chunk_unref(toc->out);
    if (toc->input)
        lk_stream_cancel(toc->input);
    lk_stream_unref(toc->input);
    lk_stream_cancel(toc->source);
    lk_stream_unref(toc->source);
    free(toc);
}

static void run(void *arg)
{
    struct toc *toc = arg;
    struct lk_error err;
    locale_t plain = newlocale(LC_CTYPE_MASK, "C", (locale_t)0);
    locale_t before = plain ? uselocale(plain) : (locale_t)0;
    int rc = pump(toc, &err);
    if (plain) {
        uselocale(before);
        freelocale(plain);
    }
    lk_stream_end(toc->output, rc < 0 ? &err : NULL);
    lk_stream_unref(toc->output);
    drop(toc);
}

static void cancel_source(void *arg)
{
    lk_stream_cancel(arg);
}

struct lk_stream *lk_toc(struct lk_pool *pool, struct lk_stream *input, int in_flight,
                         struct lk_error *err)
{
    struct toc *toc = calloc(1, sizeof *toc);
    if (!toc) {
        lk_error_set(err, LK_MEMORY, "no memory for a stage");
        lk_stream_cancel(input);
        lk_stream_unref(input);
        return NULL;
    }
    *toc = (struct toc){.pool = pool, .source = input, .in_flight = in_flight};
    struct lk_stream *output = lk_stream_new(DEPTH, err);
    if (!output)
        goto failed;
    toc->output = output;
    lk_stream_on_cancel(output, cancel_source, input);
    if (lk_pool_stage(pool, "lunark-toc", run, toc, err) == 0)
        return output;
    lk_stream_on_cancel(output, NULL, NULL);
    lk_stream_unref(output);
    lk_stream_unref(output);
failed:
    drop(toc);
    return NULL;
}
