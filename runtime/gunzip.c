/* SPDX-License-Identifier: MIT
 * gunzip.c - decompresses gzip data: members that carry their sizes in parallel, all others one
 * after the other. Owns a ring of slots, slabs for compressed and plain data, and the
 * decompressors. Knows no Lua and no files.
 *
 * The feeder cuts the input into members. One of ours goes to a worker as a whole; anything else is
 * inflated by zlib on the feeder's own thread, 1 MiB of output a slot. The writer sends what is
 * finished in order. No number in the input is believed before it was compared with a limit and, in
 * the end, with what came out. */
#include "gzip.h"

#include "member.h"
#include "ring.h"
#include "tools.h"
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

/* The input, with the few bytes that were looked at before it is known what they are. */
struct source {
    struct lk_stream *stream;
    struct lk_chunk *chunk;
    size_t at; /* in the chunk */
    bool ended;
    uint64_t offset; /* bytes consumed */
    unsigned char ahead[LK_MEMBER_HEADER];
    size_t ahead_len;
};

struct slot {
    struct lk_job job;
    struct gunzip *gunzip;
    size_t number;
    struct lk_member member;
    uint64_t offset;
    struct lk_chunk *in, *out;
    int rc;
    struct lk_error err;
};

struct gunzip {
    struct lk_pool *pool;
    struct lk_stream *output;
    struct lk_slabs *in_slabs, *out_slabs;
    struct source source; /* the feeder's */
    z_stream zlib;
    bool zlib_ready;
    uint64_t members;
    struct lk_tools tools;
    int feed_rc;
    struct lk_error feed_err;
    struct lk_ring ring;
    struct slot slots[];
};

static int damaged(struct lk_error *err, uint64_t offset, const char *what)
{
    lk_error_set(err, LK_CORRUPT, "gzip data: the member at byte %llu is damaged: %s",
                 (unsigned long long)offset, what);
    return lk_error_hint(err, "the file was changed after it was written, or is not whole");
}

static int cut_off(struct lk_error *err, uint64_t offset, uint64_t end)
{
    lk_error_set(err, LK_CORRUPT,
                 "gzip data is cut off at byte %llu, inside the member that begins at byte %llu",
                 (unsigned long long)end, (unsigned long long)offset);
    return lk_error_hint(err, "the file was not written or transferred to its end");
}

/* --- the input --- */

/* Makes the next bytes of the chunks available: 1, 0 at the end, or -1. */
static int more(struct source *s, struct lk_error *err)
{
    while (!s->ended && (!s->chunk || s->at == s->chunk->len)) {
        lk_chunk_unref(s->chunk);
        s->chunk = NULL;
        s->at = 0;
        int rc = lk_stream_read(s->stream, &s->chunk, err);
        if (rc < 0) {
            return -1;
        }
        s->ended = rc == LK_STREAM_DONE;
    }
    return !s->ended;
}

/* Copies up to len bytes from the chunks, not from `ahead`; how many, or -1. */
static ssize_t copy(struct source *s, unsigned char *out, size_t len, struct lk_error *err)
{
    size_t got = 0;

    while (got < len) {
        int rc = more(s, err);
        if (rc < 0) {
            return -1;
        }
        if (rc == 0) {
            break;
        }
        size_t n = s->chunk->len - s->at;
        n = n < len - got ? n : len - got;
        memcpy(out + got, s->chunk->data + s->at, n);
        s->at += n;
        got += n;
    }
    return (ssize_t)got;
}

/* Fills `ahead` as far as the input goes. */
static int look_ahead(struct source *s, struct lk_error *err)
{
    ssize_t n = copy(s, s->ahead + s->ahead_len, sizeof(s->ahead) - s->ahead_len, err);

    if (n < 0) {
        return -1;
    }
    s->ahead_len += (size_t)n;
    return 0;
}

/* The next bytes in one piece: 1, 0 at the end, or -1. */
static int span(struct source *s, const unsigned char **data, size_t *len, struct lk_error *err)
{
    if (s->ahead_len > 0) {
        *data = s->ahead;
        *len = s->ahead_len;
        return 1;
    }
    int rc = more(s, err);
    if (rc > 0) {
        *data = s->chunk->data + s->at;
        *len = s->chunk->len - s->at;
    }
    return rc;
}

static void consume(struct source *s, size_t n)
{
    s->offset += n;
    if (s->ahead_len > 0) {
        s->ahead_len -= n;
        memmove(s->ahead, s->ahead + n, s->ahead_len);
    } else {
        s->at += n;
    }
}

/* --- members of ours --- */

static int inflate_member(struct lk_tool *tool, struct slot *slot)
{
    const struct lk_member *m = &slot->member;
    const char *wrong = lk_tool_inflate(tool, slot->in->data, m->size, m->header,
                                        slot->out ? slot->out->data : NULL, m->raw);

    if (wrong) {
        return damaged(&slot->err, slot->offset, wrong);
    }
    if (slot->out) {
        slot->out->len = slot->out->raw_len = m->raw;
    }
    return 0;
}

static void run_job(struct lk_job *job)
{
    struct slot *slot = (struct slot *)job;
    struct gunzip *g = slot->gunzip;
    struct lk_tool *tool = lk_tools_take(&g->tools, &slot->err);

    slot->rc = tool ? inflate_member(tool, slot) : -1;
    lk_chunk_unref(slot->in);
    slot->in = NULL;
    if (tool) {
        lk_tools_give(&g->tools, tool);
    }
    lk_ring_finish(&g->ring, slot->number);
}

static struct slot *claim(struct gunzip *g)
{
    size_t number = lk_ring_claim(&g->ring);
    struct slot *slot = &g->slots[number];

    *slot = (struct slot){.job.run = run_job, .gunzip = g, .number = number};
    return slot;
}

/* Collects the whole member; the header is in `ahead`. */
static int read_member(struct gunzip *g, struct slot *slot, struct lk_error *err)
{
    struct source *s = &g->source;
    size_t size = slot->member.size;

    slot->in = lk_slabs_take(g->in_slabs, err);
    if (!slot->in) {
        return -1;
    }
    memcpy(slot->in->data, s->ahead, s->ahead_len);
    ssize_t n = copy(s, slot->in->data + s->ahead_len, size - s->ahead_len, err);
    if (n < 0) {
        return -1;
    }
    size_t got = s->ahead_len + (size_t)n;
    s->ahead_len = 0;
    s->offset += got;
    if (got < size) {
        return cut_off(err, slot->offset, s->offset);
    }
    slot->in->len = size;
    return 0;
}

static int feed_member(struct gunzip *g, const struct lk_member *member, struct lk_error *err)
{
    struct slot *slot = claim(g);

    slot->member = *member;
    slot->offset = g->source.offset;
    if (read_member(g, slot, err) < 0 ||
        (member->raw > 0 && !(slot->out = lk_slabs_take(g->out_slabs, err)))) {
        lk_chunk_unref(slot->in);
        return -1;
    }
    lk_ring_push(&g->ring);
    if (lk_pool_submit(g->pool, &slot->job, err) < 0) {
        slot->rc = -1;
        slot->err = *err;
        lk_chunk_unref(slot->in);
        lk_ring_finish(&g->ring, slot->number);
        return -1;
    }
    return 0;
}

/* --- members of others --- */

static void deliver(struct gunzip *g, struct lk_chunk *chunk)
{
    struct slot *slot = claim(g);

    chunk->raw_len = chunk->len;
    slot->out = chunk;
    lk_ring_push(&g->ring);
    lk_ring_finish(&g->ring, slot->number);
}

/* Inflates until *out is full or the member ends: 1 at its end, 0, or -1. */
static int inflate_some(struct gunzip *g, struct lk_chunk *out, uint64_t start,
                        struct lk_error *err)
{
    z_stream *z = &g->zlib;
    const unsigned char *data = NULL;
    size_t len = 0;

    while (out->len < LK_MEMBER_SIZE) {
        int rc = span(&g->source, &data, &len, err);
        if (rc < 0) {
            return -1;
        }
        if (rc == 0) {
            return cut_off(err, start, g->source.offset);
        }
        z->next_in = (Bytef *)(uintptr_t)data;
        z->avail_in = len < LK_MEMBER_SIZE ? (uInt)len : (uInt)LK_MEMBER_SIZE;
        z->next_out = out->data + out->len;
        z->avail_out = (uInt)(LK_MEMBER_SIZE - out->len);
        uInt before = z->avail_in;
        int state = inflate(z, Z_NO_FLUSH);
        consume(&g->source, before - z->avail_in);
        out->len = LK_MEMBER_SIZE - z->avail_out;
        if (state == Z_STREAM_END) {
            return 1;
        }
        if (state == Z_MEM_ERROR) {
            return lk_error_set(err, LK_MEMORY, "no memory to decompress gzip data");
        }
        if (state != Z_OK && state != Z_BUF_ERROR) {
            return damaged(err, start, z->msg ? z->msg : "its data can't be decompressed");
        }
    }
    return 0;
}

static int feed_foreign(struct gunzip *g, struct lk_error *err)
{
    uint64_t start = g->source.offset;
    int rc = 0;

    if (!g->zlib_ready) {
        g->zlib_ready = inflateInit2(&g->zlib, 16 + MAX_WBITS) == Z_OK;
    }
    if (!g->zlib_ready || inflateReset(&g->zlib) != Z_OK) {
        return lk_error_set(err, LK_MEMORY, "no memory to decompress gzip data");
    }
    while (rc == 0) {
        struct lk_chunk *out = lk_slabs_take(g->out_slabs, err);
        if (!out) {
            return -1;
        }
        rc = inflate_some(g, out, start, err);
        /* What came out before the damage is not sent: nobody may take it for checked. */
        if (rc < 0 || out->len == 0) {
            lk_chunk_unref(out);
        } else {
            deliver(g, out);
        }
    }
    return rc < 0 ? -1 : 0;
}

/* --- the feeder --- */

/* Behind the last member gzip itself allows zeros (the padding of a tape's block) and nothing else.
 */
static int feed_padding(struct gunzip *g, struct lk_error *err)
{
    const unsigned char *data;
    size_t len;
    int rc;

    while ((rc = span(&g->source, &data, &len, err)) > 0) {
        for (size_t i = 0; i < len; i++) {
            if (data[i] != 0) {
                return lk_error_set(err, LK_CORRUPT,
                                    "gzip data is followed by something else at byte %llu",
                                    (unsigned long long)(g->source.offset + i));
            }
        }
        consume(&g->source, len);
    }
    return rc;
}

/* 1 after a member, 0 at the end, -1. */
static int feed(struct gunzip *g, struct lk_error *err)
{
    struct source *s = &g->source;
    struct lk_member member;

    if (look_ahead(s, err) < 0) {
        return -1;
    }
    bool magic = s->ahead_len >= 2 && s->ahead[0] == 0x1f && s->ahead[1] == 0x8b;
    bool cut = s->ahead_len == 1 && s->ahead[0] == 0x1f;
    if (g->members == 0 && !magic && !cut) {
        lk_error_set(err, LK_CORRUPT, "the data is not gzip: %s",
                     s->ahead_len == 0 ? "it is empty" : "it does not begin with 1f 8b");
        return lk_error_hint(err, "look whether this is the file that you meant");
    }
    if (!magic && !cut) {
        return feed_padding(g, err);
    }
    if (s->ahead_len < 2) {
        return cut_off(err, s->offset, s->offset + s->ahead_len);
    }
    g->members++;
    bool ours = s->ahead_len == LK_MEMBER_HEADER && lk_member_parse(s->ahead, &member);
    return (ours ? feed_member(g, &member, err) : feed_foreign(g, err)) < 0 ? -1 : 1;
}

static void run_feeder(void *arg)
{
    struct gunzip *g = arg;
    struct lk_error err = {0};
    int rc;

    do {
        rc = feed(g, &err);
    } while (rc > 0);
    lk_chunk_unref(g->source.chunk);
    g->source.chunk = NULL;
    g->feed_rc = rc;
    g->feed_err = err;
    lk_ring_close(&g->ring);
}

/* --- the writer --- */

static void stop(void *arg)
{
    struct gunzip *g = arg;

    lk_stream_cancel(g->source.stream);
    lk_slabs_close(g->in_slabs);
    lk_slabs_close(g->out_slabs);
}

static void free_gunzip(struct gunzip *g)
{
    if (g->zlib_ready) {
        inflateEnd(&g->zlib);
    }
    lk_stream_unref(g->source.stream);
    lk_slabs_free(g->in_slabs);
    lk_slabs_free(g->out_slabs);
    lk_ring_destroy(&g->ring);
    lk_tools_destroy(&g->tools);
    free(g);
}

static int write_slot(struct gunzip *g, struct slot *slot, struct lk_error *err)
{
    struct lk_chunk *out = slot->out;

    if (slot->rc < 0) {
        *err = slot->err;
        return -1;
    }
    slot->out = NULL;
    return out ? lk_stream_write(g->output, out, err) : 0;
}

static void run_writer(void *arg)
{
    struct gunzip *g = arg;
    struct lk_error err = {0};
    size_t number;
    int rc = 0;

    while (lk_ring_next(&g->ring, &number)) {
        struct slot *slot = &g->slots[number];
        if (rc == 0 && (rc = write_slot(g, slot, &err)) < 0) {
            stop(g);
        }
        lk_chunk_unref(slot->out);
        lk_ring_release(&g->ring);
    }
    if (rc == 0 && g->feed_rc < 0) {
        err = g->feed_err;
        rc = -1;
    }
    if (rc < 0) {
        stop(g);
    }
    struct lk_stream *output = g->output;
    lk_stream_end(output, rc < 0 ? &err : NULL);
    free_gunzip(g);
    lk_stream_unref(output);
}

/* --- start --- */

static struct gunzip *new_gunzip(struct lk_pool *pool, int in_flight, struct lk_error *err)
{
    size_t count = in_flight < 1 ? 1 : (size_t)in_flight;
    struct gunzip *g = calloc(1, sizeof(*g) + count * sizeof(g->slots[0]));

    if (!g) {
        lk_error_set(err, LK_MEMORY, "no memory for a decompression of %zu members at once", count);
        return NULL;
    }
    if (lk_ring_init(&g->ring, count, err) < 0) {
        free(g);
        return NULL;
    }
    lk_tools_init(&g->tools, false);
    g->pool = pool;
    g->in_slabs = lk_slabs_new(LK_MEMBER_MAX, (int)count, err);
    /* One more than slots: the one that the consumer is reading. */
    g->out_slabs = lk_slabs_new(LK_MEMBER_SIZE, (int)count + 1, err);
    g->output = lk_stream_new((int)count + 1, err);
    return g;
}

/* Ends what a start that failed left; the consumer's reference to the output too. */
static void abandon(struct gunzip *g, struct lk_stream *input)
{
    struct lk_stream *output = g ? g->output : NULL;

    if (output) {
        lk_stream_end(output, NULL);
    }
    if (g) {
        free_gunzip(g);
    }
    lk_stream_unref(output);
    lk_stream_unref(output);
    lk_stream_cancel(input);
    lk_stream_unref(input);
}

struct lk_stream *lk_gunzip(struct lk_pool *pool, struct lk_stream *input, int in_flight,
                            struct lk_error *err)
{
    struct gunzip *g = new_gunzip(pool, in_flight, err);

    if (!g || !g->in_slabs || !g->out_slabs || !g->output) {
        abandon(g, input);
        return NULL;
    }
    struct lk_stream *output = g->output;
    g->source.stream = input;
    lk_stream_on_cancel(output, stop, g);
    if (lk_pool_stage(pool, "gunzip read", run_feeder, g, err) < 0) {
        g->source.stream = NULL;
        abandon(g, input);
        return NULL;
    }
    struct lk_error late;
    if (lk_pool_stage(pool, "gunzip write", run_writer, g, &late) < 0) {
        /* The feeder is at work already: let it run out, then report. */
        stop(g);
        run_writer(g);
        lk_stream_unref(output);
        if (err) {
            *err = late;
        }
        return NULL;
    }
    return output;
}
