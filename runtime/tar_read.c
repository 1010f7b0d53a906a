/* SPDX-License-Identifier: MIT
 * tar_read.c - reads a tar of any tool to its end, to see that it has one. libarchive parses, fed
 * with the stream's chunks. Owns the input while it reads. Stage threads only: it blocks. */
#include "compare.h"

#include "sniff.h"
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <locale.h>

struct input {
    struct lk_stream *stream;
    struct lk_chunk *chunk;
    bool ended;
    struct lk_error err;
};

static la_ssize_t read_input(struct archive *archive, void *arg, const void **data)
{
    struct input *in = arg;

    do {
        lk_chunk_unref(in->chunk);
        in->chunk = NULL;
        int rc = lk_stream_read(in->stream, &in->chunk, &in->err);
        if (rc == LK_STREAM_DONE) {
            in->ended = true;
            return 0;
        }
        if (rc < 0) {
            archive_set_error(archive, EIO, "input failed");
            return ARCHIVE_FATAL;
        }
    } while (in->chunk->len == 0);
    *data = in->chunk->data;
    return (la_ssize_t)in->chunk->len;
}

static int failed(struct archive *a, const struct input *in, struct lk_error *err)
{
    unsigned long long at = (unsigned long long)archive_filter_bytes(a, -1);

    if (in->err.kind != LK_OK) {
        *err = in->err;
        return -1;
    }
    if (in->ended) {
        return lk_error_set(err, LK_CORRUPT,
                            "the archive is cut off after %llu bytes, more was expected", at);
    }
    const char *text = archive_error_string(a);
    return lk_error_set(err, LK_CORRUPT, "the archive is damaged near byte %llu: %s", at,
                        text ? text : "no tar entry");
}

static int read_data(struct archive *a, uint64_t *bytes)
{
    const void *data;
    size_t len;
    la_int64_t offset;
    int rc;

    while ((rc = archive_read_data_block(a, &data, &len, &offset)) == ARCHIVE_OK ||
           rc == ARCHIVE_WARN) {
        *bytes += len;
    }
    return rc;
}

static int read_entries(struct archive *a, struct input *in, uint64_t *entries, uint64_t *bytes,
                        struct lk_error *err)
{
    struct archive_entry *entry;
    int rc;

    for (;;) {
        rc = archive_read_next_header(a, &entry);
        if (rc == ARCHIVE_EOF && !in->ended) {
            break;
        }
        /* ARCHIVE_RETRY is a header that is damaged: what comes behind may be read, this can't. */
        if ((rc != ARCHIVE_OK && rc != ARCHIVE_WARN) || read_data(a, bytes) != ARCHIVE_EOF) {
            return failed(a, in, err);
        }
        ++*entries;
    }
    /* Behind the end mark is padding, and the stream's own verdict. */
    do {
        lk_chunk_unref(in->chunk);
        in->chunk = NULL;
    } while ((rc = lk_stream_read(in->stream, &in->chunk, err)) == LK_STREAM_DATA);
    return rc < 0 ? -1 : 0;
}

int lk_tar_read(struct lk_pool *pool, struct lk_stream *input, int in_flight, uint64_t *entries,
                uint64_t *bytes, struct lk_error *err)
{
    struct input in = {.stream = lk_sniff(pool, input, in_flight, err)};
    struct archive *a = in.stream ? archive_read_new() : NULL;
    locale_t utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
    locale_t before = utf8 ? uselocale(utf8) : (locale_t)0;
    int rc = -1;

    *entries = *bytes = 0;
    if (in.stream && (!a || archive_read_support_format_tar(a) != ARCHIVE_OK)) {
        lk_error_set(err, LK_MEMORY, "no memory to read an archive");
    } else if (in.stream) {
        rc = archive_read_open2(a, &in, NULL, read_input, NULL, NULL) != ARCHIVE_OK
                 ? failed(a, &in, err)
                 : read_entries(a, &in, entries, bytes, err);
    }
    archive_read_free(a);
    lk_chunk_unref(in.chunk);
    if (in.stream) {
        lk_stream_cancel(in.stream);
        lk_stream_unref(in.stream);
    }
    if (utf8) {
        uselocale(before);
        freelocale(utf8);
    }
    return rc;
}
