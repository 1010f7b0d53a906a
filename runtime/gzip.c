/* SPDX-License-Identifier: MIT
 * gzip.c - compresses a stream of chunks, each into one gzip member, in parallel and in order.
 * Owns a ring of slots, the output's slabs and the compressors. Knows no Lua and no files.
 *
 * Two stage threads: the feeder reads chunks and hands them to the workers, the writer takes
 * finished members in order, sends them on and writes the index. A slot is the feeder's, then a
 * worker's, then the writer's. A slab for the output is taken before a chunk goes to a worker, in
 * order, so the member that is due next always has one. Compressors go from worker to worker; there
 * are never more than workers. */
#include "gzip.h"

#include "crypto.h"
#include "engine.h"
#include "index_writer.h"
#include "member.h"
#include "ring.h"
#include <stdlib.h>
#include <string.h>

/* What a worker needs for a job; used again by the next. */
struct tool {
    struct tool *next;
    struct lk_deflater *deflater;
    struct lk_hasher *hasher;
};

struct slot {
    struct lk_job job;
    struct gzip *gzip;
    size_t number;
    struct lk_chunk *in;
    struct lk_chunk *out; /* the member, when done and rc is 0 */
    struct lk_entries *entries;
    size_t raw;
    int rc;
    struct lk_error err;
};

struct gzip {
    struct lk_pool *pool;
    struct lk_stream *input, *output;
    struct lk_slabs *slabs;
    struct lk_gzip_options options;
    enum lk_engine engine;
    int level;
    struct lk_gzip_stats *stats, own_stats;
    struct lk_index_writer *index; /* the writer's */
    unsigned char *zero;           /* the feeder's: a member of LK_MEMBER_SIZE zeros */
    size_t zero_size;

    pthread_mutex_t mutex; /* of tools */
    struct tool *tools;
    int feed_rc; /* the feeder's, until it closes the ring */
    struct lk_error feed_err;
    struct lk_ring ring;
    struct slot slots[];
};

static void free_tool(struct tool *tool)
{
    if (tool) {
        lk_deflater_free(tool->deflater);
        lk_hasher_free(tool->hasher);
        free(tool);
    }
}

static struct tool *take_tool(struct gzip *g, struct lk_error *err)
{
    pthread_mutex_lock(&g->mutex);
    struct tool *tool = g->tools;
    if (tool) {
        g->tools = tool->next;
    }
    pthread_mutex_unlock(&g->mutex);
    if (tool) {
        return tool;
    }
    tool = calloc(1, sizeof(*tool));
    if (!tool) {
        lk_error_set(err, LK_MEMORY, "no memory for a compressor");
        return NULL;
    }
    tool->deflater = lk_deflater_new(g->engine, g->level, err);
    tool->hasher = tool->deflater && g->options.index ? lk_hasher_new(LK_SHA256, err) : NULL;
    if (!tool->deflater || (g->options.index && !tool->hasher)) {
        free_tool(tool);
        return NULL;
    }
    return tool;
}

static void give_tool(struct gzip *g, struct tool *tool)
{
    pthread_mutex_lock(&g->mutex);
    tool->next = g->tools;
    g->tools = tool;
    pthread_mutex_unlock(&g->mutex);
}

int lk_gzip_in_flight(size_t memory, int jobs)
{
    /* A member takes a slab before the compressor and one behind it; 2/5 of the memory is theirs.
     */
    size_t most = memory / LK_MEMBER_SIZE / 6;
    size_t wanted = jobs < 1 ? 4 : (size_t)jobs * 4 + 2;
    size_t count = wanted < most ? wanted : most;

    return count < 3 ? 3 : count > 4096 ? 4096 : (int)count;
}

/* --- a worker's part --- */

static size_t compress(struct lk_deflater *deflater, const struct lk_chunk *in, unsigned char *out)
{
    /* What deflate does not make smaller than stored blocks is stored. */
    size_t cap = lk_stored_size(in->len);
    size_t len = lk_looks_random(in->data, in->len)
                     ? 0
                     : lk_deflate(deflater, in->data, in->len, out, cap - 1);

    return len > 0 ? len : lk_deflate_stored(in->data, in->len, out, cap);
}

/* Fills out with the member of a chunk; its size. */
static size_t make_member(struct lk_deflater *deflater, const struct lk_chunk *in, unsigned flags,
                          unsigned char *out)
{
    unsigned char *body = out + LK_MEMBER_HEADER;
    size_t len = compress(deflater, in, body);
    size_t size = LK_MEMBER_HEADER + len + LK_MEMBER_TRAILER;

    lk_member_header(out, LK_MEMBER_DATA, flags, in->len, size, 0);
    lk_member_trailer(body + len, lk_crc32(0, in->data, in->len), in->len);
    return size;
}

static int hash_entries(struct lk_hasher *hasher, const struct lk_chunk *in,
                        struct lk_entries *entries, struct lk_error *err)
{
    for (struct lk_entry *e = entries->first; e; e = e->next) {
        if (e->type != '0' || e->size == 0 || e->large) {
            continue;
        }
        if (e->data_at > in->len || e->size > in->len - e->data_at) {
            return lk_error_set(err, LK_CORRUPT, "'%s': the entry is not whole in its chunk",
                                e->path);
        }
        lk_hasher_update(hasher, in->data + e->data_at, (size_t)e->size);
        lk_hasher_final(hasher, e->sha256);
    }
    return 0;
}

static bool starts_entry(const struct lk_entries *entries)
{
    return entries && entries->first && entries->first->header_at == 0;
}

static void run_job(struct lk_job *job)
{
    struct slot *slot = (struct slot *)job;
    struct gzip *g = slot->gzip;
    struct tool *tool = take_tool(g, &slot->err);

    slot->rc = tool ? 0 : -1;
    if (tool && slot->entries) {
        slot->rc = hash_entries(tool->hasher, slot->in, slot->entries, &slot->err);
    }
    if (slot->rc == 0) {
        unsigned flags = starts_entry(slot->entries) ? LK_MEMBER_STARTS : 0;
        slot->out->len = make_member(tool->deflater, slot->in, flags, slot->out->data);
        slot->out->raw_len = slot->raw;
    }
    if (tool) {
        give_tool(g, tool);
    }
    /* The source can have its memory back; the entries stay for the index. */
    lk_chunk_unref(slot->in);
    slot->in = NULL;
    lk_ring_finish(&g->ring, slot->number);
}

/* --- the feeder --- */

static int make_zero(struct gzip *g, const struct lk_chunk *in, struct lk_error *err)
{
    struct tool *tool = take_tool(g, err);

    if (!tool) {
        return -1;
    }
    g->zero = malloc(LK_MEMBER_MAX);
    if (g->zero) {
        g->zero_size = make_member(tool->deflater, in, 0, g->zero);
        unsigned char *smaller = realloc(g->zero, g->zero_size);
        g->zero = smaller ? smaller : g->zero;
    }
    give_tool(g, tool);
    return g->zero ? 0 : lk_error_set(err, LK_MEMORY, "no memory for a member of zeros");
}

/* A hole needs neither compressor nor slab: all members of zeros are the same bytes. */
static int feed_zeros(struct gzip *g, struct slot *slot, struct lk_error *err)
{
    if (!g->zero && make_zero(g, slot->in, err) < 0) {
        return -1;
    }
    slot->out = lk_chunk_alloc(g->zero_size, err);
    if (!slot->out) {
        return -1;
    }
    memcpy(slot->out->data, g->zero, g->zero_size);
    slot->out->len = g->zero_size;
    slot->out->raw_len = slot->raw;
    lk_chunk_unref(slot->in);
    slot->in = NULL;
    lk_ring_push(&g->ring);
    lk_ring_finish(&g->ring, slot->number);
    return 0;
}

/* Takes over the chunk. */
static int feed(struct gzip *g, struct lk_chunk *chunk, struct lk_error *err)
{
    size_t number = lk_ring_claim(&g->ring);
    struct slot *slot = &g->slots[number];
    int rc = -1;

    *slot = (struct slot){.job.run = run_job, .gzip = g, .number = number};
    slot->in = chunk;
    slot->raw = chunk->len;
    if (chunk->meta && g->options.index) {
        slot->entries = (struct lk_entries *)chunk->meta;
        chunk->meta = NULL;
    }
    if (chunk->len > LK_MEMBER_SIZE) {
        lk_error_set(err, LK_USAGE, "a chunk of %zu bytes is too large for a gzip member of %zu",
                     chunk->len, LK_MEMBER_SIZE);
    } else if (chunk->zeros && chunk->len == LK_MEMBER_SIZE && !slot->entries && g->level > 0) {
        rc = feed_zeros(g, slot, err);
    } else if ((slot->out = lk_slabs_take(g->slabs, err))) {
        lk_ring_push(&g->ring);
        rc = lk_pool_submit(g->pool, &slot->job, err);
        if (rc < 0) {
            slot->rc = -1;
            slot->err = *err;
            lk_chunk_unref(slot->in);
            lk_ring_finish(&g->ring, number);
        }
        return rc;
    }
    if (rc < 0) {
        lk_chunk_unref(slot->in);
        if (slot->entries) {
            slot->entries->base.free(&slot->entries->base);
        }
    }
    return rc;
}

static void run_feeder(void *arg)
{
    struct gzip *g = arg;
    struct lk_error err = {0};
    struct lk_chunk *chunk;
    int rc;

    while ((rc = lk_stream_read(g->input, &chunk, &err)) == LK_STREAM_DATA) {
        if (chunk->len == 0 && !chunk->meta) {
            lk_chunk_unref(chunk);
        } else if (feed(g, chunk, &err) < 0) {
            rc = -1;
            break;
        }
    }
    g->feed_rc = rc;
    g->feed_err = err;
    lk_ring_close(&g->ring);
}

/* --- the writer --- */

static int send(struct gzip *g, struct lk_chunk *chunk, struct lk_error *err)
{
    g->stats->bytes += chunk->len;
    return lk_stream_write(g->output, chunk, err);
}

static int emit_index(void *arg, struct lk_chunk *chunk, struct lk_error *err)
{
    struct gzip *g = arg;

    return send(g, chunk, err);
}

static int write_slot(struct gzip *g, struct slot *slot, struct lk_error *err)
{
    struct lk_chunk *out = slot->out;
    size_t size = out->len;

    slot->out = NULL;
    if (send(g, out, err) < 0) {
        return -1;
    }
    g->stats->members++;
    g->stats->raw_bytes += slot->raw;
    if (!g->index) {
        return 0;
    }
    struct lk_entries *entries = slot->entries;
    slot->entries = NULL;
    return lk_index_writer_member(g->index, size, slot->raw, entries, err);
}

static void empty_slot(struct gzip *g, struct slot *slot)
{
    lk_chunk_unref(slot->out);
    if (slot->entries) {
        slot->entries->base.free(&slot->entries->base);
    }
    lk_ring_release(&g->ring);
}

static int write_end(struct gzip *g, struct lk_error *err)
{
    if (g->index) {
        int rc = lk_index_writer_finish(g->index, err);
        g->stats->index_blocks = lk_index_writer_blocks(g->index);
        return rc;
    }
    if (g->stats->members > 0) {
        return 0;
    }
    struct lk_chunk *chunk =
        lk_chunk_alloc(LK_MEMBER_HEADER + LK_EMPTY_BODY + LK_MEMBER_TRAILER, err);
    if (!chunk) {
        return -1;
    }
    chunk->len = lk_member_empty(chunk->data, LK_MEMBER_DATA, NULL, 0);
    g->stats->members = 1;
    return send(g, chunk, err);
}

static void stop(void *arg)
{
    struct gzip *g = arg;

    lk_stream_cancel(g->input);
    lk_slabs_close(g->slabs);
}

static void free_gzip(struct gzip *g)
{
    while (g->tools) {
        struct tool *next = g->tools->next;
        free_tool(g->tools);
        g->tools = next;
    }
    lk_stream_unref(g->input);
    lk_slabs_free(g->slabs);
    lk_index_writer_free(g->index);
    free(g->zero);
    pthread_mutex_destroy(&g->mutex);
    lk_ring_destroy(&g->ring);
    free(g);
}

static void run_writer(void *arg)
{
    struct gzip *g = arg;
    struct lk_error err = {0};
    size_t number;
    int rc = 0;

    while (lk_ring_next(&g->ring, &number)) {
        struct slot *slot = &g->slots[number];
        if (rc == 0) {
            if (slot->rc < 0) {
                err = slot->err;
                rc = -1;
            } else {
                rc = write_slot(g, slot, &err);
            }
            if (rc < 0) {
                stop(g);
            }
        }
        empty_slot(g, slot);
    }
    if (rc == 0 && g->feed_rc < 0) {
        err = g->feed_err;
        rc = -1;
    }
    if (rc == 0) {
        rc = write_end(g, &err);
    }
    if (rc < 0) {
        stop(g);
    }
    struct lk_stream *output = g->output;
    lk_stream_end(output, rc < 0 ? &err : NULL);
    free_gzip(g);
    lk_stream_unref(output);
}

/* --- start --- */

static struct gzip *new_gzip(struct lk_pool *pool, const struct lk_gzip_options *options,
                             struct lk_gzip_stats *stats, struct lk_error *err)
{
    struct lk_gzip_options o = *options;
    enum lk_engine engine = o.engine;
    int level = o.level;

    if (lk_engine_pick(&engine, &level, err) < 0) {
        return NULL;
    }
    o.in_flight = o.in_flight < 1 ? 1 : o.in_flight;
    struct gzip *g = calloc(1, sizeof(*g) + (size_t)o.in_flight * sizeof(g->slots[0]));
    if (!g) {
        lk_error_set(err, LK_MEMORY, "no memory for a compression of %d chunks at once",
                     o.in_flight);
        return NULL;
    }
    pthread_mutex_init(&g->mutex, NULL);
    if (lk_ring_init(&g->ring, (size_t)o.in_flight, err) < 0) {
        pthread_mutex_destroy(&g->mutex);
        free(g);
        return NULL;
    }
    g->pool = pool;
    g->options = o;
    g->engine = engine;
    g->level = level;
    g->stats = stats ? stats : &g->own_stats;
    *g->stats = (struct lk_gzip_stats){0};
    /* One slab more than slots: the one that the consumer is reading. */
    g->slabs = lk_slabs_new(LK_MEMBER_MAX, o.in_flight + 1, err);
    g->output = lk_stream_new(o.in_flight + 1, err);
    g->index = o.index ? lk_index_writer_new(emit_index, g, err) : NULL;
    return g;
}

/* Ends what new_gzip or a start that failed left; the consumer's reference to the output too. */
static void abandon(struct gzip *g, struct lk_stream *input)
{
    struct lk_stream *output = g ? g->output : NULL;

    if (output) {
        lk_stream_end(output, NULL);
    }
    if (g) {
        free_gzip(g);
    }
    lk_stream_unref(output);
    lk_stream_unref(output);
    if (input) {
        lk_stream_cancel(input);
        lk_stream_unref(input);
    }
}

struct lk_stream *lk_gzip(struct lk_pool *pool, struct lk_stream *input,
                          const struct lk_gzip_options *options, struct lk_gzip_stats *stats,
                          struct lk_error *err)
{
    struct gzip *g = new_gzip(pool, options, stats, err);

    if (!g || !g->slabs || !g->output || (g->options.index && !g->index)) {
        abandon(g, input);
        return NULL;
    }
    struct lk_stream *output = g->output;
    g->input = input;
    lk_stream_on_cancel(output, stop, g);
    if (lk_pool_stage(pool, "gzip read", run_feeder, g, err) < 0) {
        g->input = NULL;
        abandon(g, input);
        return NULL;
    }
    struct lk_error late;
    if (lk_pool_stage(pool, "gzip write", run_writer, g, &late) < 0) {
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
