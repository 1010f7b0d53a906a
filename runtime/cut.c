/* SPDX-License-Identifier: MIT
 * cut.c - takes entries out of the data of an archive.
 * Owns its two inputs, the chunk that is being filled and the producer's side of its output. The
 * last bytes of a file stay in that chunk until the file's hash was compared, so what reads behind
 * it never has all of a file that is not the one of the index. One stage thread, which blocks on
 * all three streams. */
#include "cut.h"

#include "buf.h"
#include "crypto.h"
#include "member.h"
#include "tar.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEPTH = 4, NAME = 100, SIZE_AT = 124, SIZE_LEN = 12, TYPE_AT = 156, PREFIX_AT = 345 };
enum { PREFIX = 155, PATH_LEN_AT = 54 };
#define PIECE ((size_t)256 << 10)

/* A stream with the chunk that is being read. */
struct feed {
    struct lk_stream *stream;
    struct lk_chunk *chunk;
    size_t at;
};

/* A line of the plan. */
struct line {
    uint64_t skip, size;
    uint32_t header;
    char type;
    unsigned flags;
    unsigned char sha256[32];
    size_t path_len;
    char path[UINT16_MAX + 1];
};

struct cut {
    struct feed input, plan;
    struct lk_stream *output;
    struct lk_chunk *chunk; /* not sent yet */
    struct lk_hasher *hasher;
    struct lk_buf header; /* of the entry */
    bool bare;
    struct line line;
};

/* --- reading --- */

/* The next bytes in one piece: 1, 0 at the end, or -1. */
static int span(struct feed *feed, const unsigned char **data, size_t *len, struct lk_error *err)
{
    while (!feed->chunk || feed->at == feed->chunk->len) {
        lk_chunk_unref(feed->chunk);
        feed->chunk = NULL;
        feed->at = 0;
        int rc = lk_stream_read(feed->stream, &feed->chunk, err);
        if (rc != LK_STREAM_DATA)
            return rc;
    }
    *data = feed->chunk->data + feed->at;
    *len = feed->chunk->len - feed->at;
    return 1;
}

/* Copies up to len bytes; how many, or -1. */
static ssize_t take(struct feed *feed, void *out, size_t len, struct lk_error *err)
{
    size_t got = 0;

    while (got < len) {
        const unsigned char *data;
        size_t n;
        int rc = span(feed, &data, &n, err);
        if (rc < 0)
            return -1;
        if (rc == 0)
            break;
        n = n < len - got ? n : len - got;
        memcpy((unsigned char *)out + got, data, n);
        feed->at += n;
        got += n;
    }
    return (ssize_t)got;
}

static int differs(const struct cut *cut, struct lk_error *err, const char *what)
{
    return lk_error_set(err, LK_CORRUPT,
                        "the index of the archive does not fit its data: %s, where '%.200s' should "
                        "be",
                        what, cut->line.path);
}

static int ended(const struct cut *cut, struct lk_error *err)
{
    return differs(cut, err, "there are no more bytes in the members that it names");
}

/* The next line: 1, 0 at the end, or -1. */
static int read_line(struct cut *cut, struct lk_error *err)
{
    unsigned char fixed[LK_CUT_FIXED];
    struct line *line = &cut->line;
    ssize_t got = take(&cut->plan, fixed, sizeof fixed, err);

    if (got <= 0)
        return (int)got;
    if ((size_t)got == sizeof fixed) {
        line->skip = lk_get64(fixed);
        line->header = lk_get32(fixed + 8);
        line->size = lk_get64(fixed + 12);
        line->type = (char)fixed[20];
        line->flags = fixed[21];
        memcpy(line->sha256, fixed + 22, sizeof line->sha256);
        line->path_len = lk_get16(fixed + PATH_LEN_AT);
        got = take(&cut->plan, line->path, line->path_len, err);
        if (got < 0)
            return -1;
        line->path[got] = '\0';
        if ((size_t)got == line->path_len)
            return 1;
    }
    return lk_error_set(err, LK_USAGE, "the plan of a cut ends in the middle of a line");
}

/* --- writing --- */

static int flush(struct cut *cut, struct lk_error *err)
{
    struct lk_chunk *chunk = cut->chunk;

    cut->chunk = NULL;
    if (!chunk || chunk->len == 0) {
        lk_chunk_unref(chunk);
        return 0;
    }
    chunk->raw_len = chunk->len;
    return lk_stream_write(cut->output, chunk, err);
}

/* Room in the chunk; what is full goes only when more comes. */
static unsigned char *room(struct cut *cut, size_t *len, struct lk_error *err)
{
    if (cut->chunk && cut->chunk->len == PIECE && flush(cut, err) < 0)
        return NULL;
    if (!cut->chunk && !(cut->chunk = lk_chunk_alloc(PIECE, err)))
        return NULL;
    *len = PIECE - cut->chunk->len;
    return cut->chunk->data + cut->chunk->len;
}

static int put(struct cut *cut, const void *data, size_t len, struct lk_error *err)
{
    const unsigned char *at = data;

    while (len > 0) {
        size_t n;
        unsigned char *to = room(cut, &n, err);
        if (!to)
            return -1;
        n = n < len ? n : len;
        if (at) {
            memcpy(to, at, n);
            at += n;
        } else {
            memset(to, 0, n);
        }
        cut->chunk->len += n;
        len -= n;
    }
    return 0;
}

/* Moves bytes from input to output; without `out` they are dropped. */
static int move(struct cut *cut, uint64_t len, bool out, struct lk_hasher *hasher,
                struct lk_error *err)
{
    while (len > 0) {
        const unsigned char *data;
        size_t n;
        int rc = span(&cut->input, &data, &n, err);
        if (rc <= 0)
            return rc < 0 ? -1 : ended(cut, err);
        n = n < len ? n : (size_t)len;
        if (hasher)
            lk_hasher_update(hasher, data, n);
        if (out && put(cut, data, n, err) < 0)
            return -1;
        cut->input.at += n;
        len -= n;
    }
    return 0;
}

/* --- the header --- */

/* A number of a tar header: octal, or base 256. */
static uint64_t tar_number(const unsigned char *at)
{
    uint64_t value = 0;

    if (*at & 0x80) {
        for (size_t i = 1; i < SIZE_LEN; i++)
            value = value << 8 | at[i];
        return value;
    }
    for (size_t i = 0; i < SIZE_LEN && at[i] >= '0' && at[i] <= '7'; i++)
        value = value << 3 | (uint64_t)(at[i] - '0');
    return value;
}

/* What the headers of an entry say; path points into them or at `whole`. */
struct found {
    const char *path;
    size_t path_len;
    uint64_t size;
    bool sized; /* by an extended header */
    char type;
    char whole[PREFIX + 1 + NAME];
};

/* Reads one record of an extended header, "LENGTH KEY=VALUE\n"; its length, 0 if it is none. */
static size_t pax_record(const char *at, size_t left, struct found *found)
{
    size_t len = 0, digits = 0;

    while (digits < left && digits < 9 && at[digits] >= '0' && at[digits] <= '9')
        len = len * 10 + (size_t)(at[digits++] - '0');
    if (digits == 0 || len > left || len < digits + 3 || at[digits] != ' ' || at[len - 1] != '\n')
        return 0;
    const char *key = at + digits + 1, *end = at + len - 1;
    const char *value = memchr(key, '=', (size_t)(end - key));
    if (!value)
        return 0;
    size_t key_len = (size_t)(value++ - key);
    if (key_len == 4 && memcmp(key, "path", 4) == 0) {
        found->path = value;
        found->path_len = (size_t)(end - value);
    } else if (key_len == 4 && memcmp(key, "size", 4) == 0) {
        found->size = 0;
        for (; value < end && *value >= '0' && *value <= '9'; value++)
            found->size = found->size * 10 + (uint64_t)(*value - '0');
        found->sized = true;
    }
    return len;
}

static void own_path(const unsigned char *block, struct found *found)
{
    const char *name = (const char *)block, *prefix = (const char *)block + PREFIX_AT;
    size_t name_len = strnlen(name, NAME), prefix_len = strnlen(prefix, PREFIX), at = 0;

    if (prefix_len > 0) {
        memcpy(found->whole, prefix, prefix_len);
        found->whole[prefix_len] = '/';
        at = prefix_len + 1;
    }
    memcpy(found->whole + at, name, name_len);
    found->path = found->whole;
    found->path_len = at + name_len;
}

/* The headers in [data, data + len): extended ones, then the entry's own, which is the last block.
 * 0, or -1 when they are something else. */
static int parse_header(const unsigned char *data, size_t len, struct found *found)
{
    *found = (struct found){.path = NULL};
    for (size_t at = 0; at + LK_TAR_BLOCK <= len;) {
        const unsigned char *block = data + at;
        if (memcmp(block + 257, "ustar", 5) != 0)
            return -1;
        uint64_t size = tar_number(block + SIZE_AT);
        at += LK_TAR_BLOCK;
        if (block[TYPE_AT] != 'x') {
            found->type = (char)block[TYPE_AT];
            if (!found->sized)
                found->size = size;
            if (!found->path)
                own_path(block, found);
            return at == len ? 0 : -1;
        }
        if (size > len - at)
            return -1;
        for (size_t pos = 0, n; pos < size; pos += n)
            if ((n = pax_record((const char *)data + at + pos, (size_t)size - pos, found)) == 0)
                return -1;
        at += (size_t)size + lk_tar_padding(size);
    }
    return -1;
}

static bool same_path(const struct line *line, const struct found *found)
{
    size_t len = found->path_len;

    while (len > 0 && found->path[len - 1] == '/')
        len--;
    bool fits = line->flags & LK_CUT_PATH ? len > line->path_len : len == line->path_len;
    return fits && memcmp(line->path, found->path, line->path_len) == 0;
}

static int check_header(struct cut *cut, struct lk_error *err)
{
    struct line *line = &cut->line;
    struct found found;
    char what[320];

    if (line->header > LK_TAR_HEADER_MAX)
        return differs(cut, err, "headers that are too long");
    char *to = lk_buf_room(&cut->header, line->header, err);
    if (!to)
        return -1;
    ssize_t got = take(&cut->input, to, line->header, err);
    if (got < 0)
        return -1;
    if ((size_t)got < line->header)
        return ended(cut, err);
    if (parse_header((const unsigned char *)to, line->header, &found) < 0)
        return differs(cut, err, "no tar header");
    if (!same_path(line, &found)) {
        snprintf(what, sizeof what, "'%.*s'", (int)(found.path_len < 200 ? found.path_len : 200),
                 found.path);
        return differs(cut, err, what);
    }
    if (found.type != line->type || found.size != line->size)
        return differs(cut, err, "another type or size");
    return cut->bare ? 0 : put(cut, to, line->header, err);
}

/* --- the stage --- */

static int check_hash(struct cut *cut, struct lk_error *err)
{
    unsigned char found[LK_DIGEST_MAX];

    lk_hasher_final(cut->hasher, found);
    lk_hasher_free(cut->hasher);
    cut->hasher = NULL;
    if (memcmp(found, cut->line.sha256, sizeof cut->line.sha256) == 0)
        return 0;
    return differs(cut, err, "data with another SHA-256");
}

static int cut_entry(struct cut *cut, struct lk_error *err)
{
    struct line *line = &cut->line;

    if (move(cut, line->skip, false, NULL, err) < 0 || check_header(cut, err) < 0)
        return -1;
    if (line->flags & LK_CUT_HASHED && !(cut->hasher = lk_hasher_new(LK_SHA256, err)))
        return -1;
    if (move(cut, line->size, true, cut->hasher, err) < 0)
        return -1;
    if (cut->hasher && check_hash(cut, err) < 0)
        return -1;
    return cut->bare ? 0 : put(cut, NULL, lk_tar_padding(line->size), err);
}

static int pump(struct cut *cut, struct lk_error *err)
{
    int rc;

    while ((rc = read_line(cut, err)) > 0)
        if (cut_entry(cut, err) < 0)
            return -1;
    if (rc == 0 && !cut->bare)
        rc = put(cut, NULL, LK_TAR_END_SIZE, err);
    if (rc == 0)
        rc = flush(cut, err);
    while (rc == 0) {
        const unsigned char *data;
        size_t len;
        int more = span(&cut->input, &data, &len, err);
        if (more <= 0)
            return more;
        cut->input.at += len;
    }
    return rc;
}

static void drop_feed(struct feed *feed)
{
    lk_chunk_unref(feed->chunk);
    lk_stream_cancel(feed->stream);
    lk_stream_unref(feed->stream);
}

static void drop(struct cut *cut)
{
    drop_feed(&cut->input);
    drop_feed(&cut->plan);
    lk_chunk_unref(cut->chunk);
    lk_hasher_free(cut->hasher);
    lk_buf_free(&cut->header);
    free(cut);
}

static void run(void *arg)
{
    struct cut *cut = arg;
    struct lk_error err;
    int rc = pump(cut, &err);

    lk_stream_end(cut->output, rc < 0 ? &err : NULL);
    lk_stream_unref(cut->output);
    drop(cut);
}

static void cancel_inputs(void *arg)
{
    struct cut *cut = arg;

    lk_stream_cancel(cut->input.stream);
    lk_stream_cancel(cut->plan.stream);
}

struct lk_stream *lk_cut(struct lk_pool *pool, struct lk_stream *input, struct lk_stream *plan,
                         bool bare, struct lk_error *err)
{
    struct cut *cut = calloc(1, sizeof *cut);

    if (!cut) {
        lk_error_set(err, LK_MEMORY, "no memory for a stage");
        drop_feed(&(struct feed){.stream = input});
        drop_feed(&(struct feed){.stream = plan});
        return NULL;
    }
    cut->input.stream = input;
    cut->plan.stream = plan;
    cut->bare = bare;
    lk_buf_init(&cut->header, LK_TAR_HEADER_MAX);
    struct lk_stream *output = lk_stream_new(DEPTH, err);
    if (!output)
        goto failed;
    cut->output = output;
    lk_stream_on_cancel(output, cancel_inputs, cut);
    if (lk_pool_stage(pool, "lunark-cut", run, cut, err) == 0)
        return output;
    lk_stream_on_cancel(output, NULL, NULL);
    lk_stream_unref(output);
    lk_stream_unref(output);
failed:
    drop(cut);
    return NULL;
}
