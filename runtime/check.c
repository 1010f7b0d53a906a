/* SPDX-License-Identifier: MIT
 * check.c - checking an archive: what is asked for, the threads' beginning and end, the workers.
 * Owns the slabs and the workers' tools. The handle, the hash of the whole
 * input, the feeder and the matcher each hold a reference. Knows no Lua. */
#include "check_internal.h"

#include "tar.h"
#include <stdlib.h>
#include <string.h>

enum { HASH_DEPTH = 4, BATCH_FIRST = 16 };

/* --- memory --- */

static void drop(struct lk_check *c)
{
    if (__atomic_sub_fetch(&c->refs, 1, __ATOMIC_ACQ_REL) > 0) {
        return;
    }
    while (c->plans) {
        struct lk_check_plan *next = c->plans->next;
        lk_check_plan_free(c->plans);
        c->plans = next;
    }
    lk_match_free(&c->match);
    lk_hasher_free(c->whole);
    if (c->stream != c->origin) {
        lk_stream_unref(c->stream);
    }
    lk_stream_unref(c->origin);
    lk_slabs_free(c->in_slabs);
    lk_slabs_free(c->out_slabs);
    lk_ring_destroy(&c->ring);
    pthread_cond_destroy(&c->change);
    pthread_mutex_destroy(&c->mutex);
    lk_tools_destroy(&c->tools);
    free(c);
}

/* --- workers --- */

/* What is wrong with a member whose header is right, or NULL. */
static const char *inflate_member(struct lk_tool *tool, struct lk_check_slot *slot)
{
    const char *wrong = lk_tool_inflate(tool, slot->in->data, slot->row.size, slot->header,
                                        slot->out ? slot->out->data : NULL, slot->row.raw);

    if (!wrong && slot->out) {
        slot->out->len = slot->row.raw;
    }
    return wrong;
}

static struct lk_check_entry *add_entry(struct lk_check_batch **batch, size_t *room)
{
    struct lk_check_batch *b = *batch;

    if (!b || b->count == *room) {
        *room = b ? *room * 2 : BATCH_FIRST;
        b = realloc(b, sizeof(*b) + *room * sizeof(b->entries[0]));
        if (!b) {
            return NULL;
        }
        if (!*batch) {
            *b = (struct lk_check_batch){.next = NULL};
        }
        *batch = b;
    }
    struct lk_check_entry *e = &b->entries[b->count++];
    *e = (struct lk_check_entry){.hashed = false};
    return e;
}

bool lk_check_parse(const struct lk_chunk *data, size_t at, uint64_t member,
                    struct lk_hasher *hasher, struct lk_check_batch **batch, int *rc,
                    struct lk_error *err)
{
    struct lk_tar_item item;
    size_t room = 0;
    int found;

    *batch = NULL;
    while ((found = lk_tar_scan(data->data, data->len, at, &item)) > 0) {
        struct lk_check_entry *e = add_entry(batch, &room);
        if (!e) {
            *rc = lk_error_set(err, LK_MEMORY, "no memory for the entries of an archive");
            return true;
        }
        e->item = item;
        if (item.size > data->len - item.data_at) {
            break;
        }
        if (item.size > 0) {
            lk_hasher_update(hasher, data->data + item.data_at, (size_t)item.size);
            lk_hasher_final(hasher, e->sha256);
            e->hashed = true;
        }
        at = item.data_at + (size_t)item.size + lk_tar_padding(item.size);
        if (at > data->len) {
            break;
        }
    }
    if (*batch) {
        (*batch)->member = member;
    }
    return found >= 0;
}

static void run_job(struct lk_job *job)
{
    struct lk_check_slot *slot = (struct lk_check_slot *)job;
    struct lk_check *c = slot->check;
    struct lk_tool *tool = lk_tools_take(&c->tools, &slot->err);

    if (!tool) {
        slot->rc = -1;
    } else {
        slot->message = inflate_member(tool, slot);
        slot->parsed_at = slot->starts ? 0 : slot->row.entry_at;
        if (!slot->message && slot->out && c->options.tar && slot->parsed_at < slot->row.raw) {
            slot->bad_tar = !lk_check_parse(slot->out, slot->parsed_at, slot->at, tool->hasher,
                                            &slot->batch, &slot->rc, &slot->err);
        }
        lk_tools_give(&c->tools, tool);
    }
    lk_chunk_unref(slot->in);
    slot->in = NULL;
    lk_ring_finish(&c->ring, slot->number);
}

/* --- the feeder's slots --- */

struct lk_check_slot *lk_check_claim(struct lk_check *c, enum lk_check_kind kind)
{
    size_t number = lk_ring_claim(&c->ring);
    struct lk_check_slot *slot = &c->slots[number];

    *slot = (struct lk_check_slot){
        .job.run = run_job, .check = c, .number = number, .kind = kind, .parsed_at = LK_NO_ENTRY};
    return slot;
}

void lk_check_pass(struct lk_check *c, struct lk_check_slot *slot)
{
    lk_ring_push(&c->ring);
    lk_ring_finish(&c->ring, slot->number);
}

int lk_check_submit(struct lk_check *c, struct lk_check_slot *slot, struct lk_error *err)
{
    lk_ring_push(&c->ring);
    if (lk_pool_submit(c->pool, &slot->job, err) == 0) {
        return 0;
    }
    slot->rc = -1;
    slot->err = *err;
    lk_chunk_unref(slot->in);
    slot->in = NULL;
    lk_ring_finish(&c->ring, slot->number);
    return -1;
}

/* --- the hash of the whole input --- */

struct whole {
    struct lk_check *check;
    struct lk_stream *output;
};

static void run_whole(void *arg)
{
    struct whole *whole = arg;
    struct lk_check *c = whole->check;
    struct lk_stream *output = whole->output;
    struct lk_error err;
    struct lk_chunk *chunk;
    int rc;

    free(whole);
    while ((rc = lk_stream_read(c->origin, &chunk, &err)) == LK_STREAM_DATA) {
        lk_hasher_update(c->whole, chunk->data, chunk->len);
        if ((rc = lk_stream_write(output, chunk, &err)) < 0) {
            break;
        }
    }
    if (rc == LK_STREAM_DONE) {
        lk_hasher_final(c->whole, c->sha256);
    }
    lk_stream_end(output, rc < 0 ? &err : NULL);
    lk_stream_unref(output);
    drop(c);
}

static int start_whole(struct lk_check *c, struct lk_error *err)
{
    struct whole *whole = malloc(sizeof(*whole));
    struct lk_stream *output = whole ? lk_stream_new(HASH_DEPTH, err) : NULL;

    if (!whole) {
        return lk_error_set(err, LK_MEMORY, "no memory for a stage");
    }
    if (!output || !(c->whole = lk_hasher_new(LK_SHA256, err))) {
        lk_stream_unref(output);
        lk_stream_unref(output);
        free(whole);
        return -1;
    }
    *whole = (struct whole){.check = c, .output = output};
    __atomic_add_fetch(&c->refs, 1, __ATOMIC_RELAXED);
    if (lk_pool_stage(c->pool, "lunark-hash", run_whole, whole, err) < 0) {
        __atomic_sub_fetch(&c->refs, 1, __ATOMIC_RELAXED);
        lk_stream_unref(output);
        lk_stream_unref(output);
        free(whole);
        return -1;
    }
    c->stream = output;
    return 0;
}

/* --- the matcher's thread --- */

static void stop(struct lk_check *c)
{
    pthread_mutex_lock(&c->mutex);
    c->stopped = true;
    pthread_cond_broadcast(&c->change);
    pthread_mutex_unlock(&c->mutex);
    lk_stream_cancel(c->stream);
    lk_stream_cancel(c->origin);
    lk_slabs_close(c->in_slabs);
    lk_slabs_close(c->out_slabs);
}

static void run_matcher(void *arg)
{
    struct lk_check *c = arg;
    struct lk_match *m = &c->match;
    size_t number;

    while (lk_ring_next(&c->ring, &number)) {
        struct lk_check_slot *slot = &c->slots[number];
        if (m->rc == 0) {
            lk_match_slot(m, slot);
            __atomic_store_n(&c->files, m->stats.files, __ATOMIC_RELAXED);
            if (m->rc < 0) {
                stop(c);
            }
        }
        lk_chunk_unref(slot->out);
        free(slot->batch);
        free(slot->block);
        lk_ring_release(&c->ring);
    }
    if (m->rc == 0 && c->feed_rc < 0) {
        m->rc = -1;
        m->err = c->feed_err;
    }
    if (m->rc == 0) {
        lk_match_end(m);
    } else {
        stop(c);
    }
    m->stats.bytes = __atomic_load_n(&c->bytes, __ATOMIC_RELAXED);
    m->stats.hashed = c->whole != NULL && m->rc == 0;
    memcpy(m->stats.sha256, c->sha256, sizeof(m->stats.sha256));
    pthread_mutex_lock(&c->mutex);
    c->ended = true;
    lk_check_tell(c);
    pthread_mutex_unlock(&c->mutex);
    drop(c);
}

static void run_feeder(void *arg)
{
    struct lk_check *c = arg;

    lk_check_feed(c);
    drop(c);
}

/* --- interface --- */

static struct lk_check *new_check(struct lk_pool *pool, const struct lk_check_options *options,
                                  struct lk_error *err)
{
    size_t count = options->in_flight < 1 ? 1 : (size_t)options->in_flight;
    struct lk_check *c = calloc(1, sizeof(*c) + count * sizeof(c->slots[0]));

    if (!c) {
        lk_error_set(err, LK_MEMORY, "no memory to check an archive");
        return NULL;
    }
    if (lk_ring_init(&c->ring, count, err) < 0) {
        free(c);
        return NULL;
    }
    c->refs = 1;
    c->pool = pool;
    c->options = *options;
    c->source.offset = options->at;
    lk_tools_init(&c->tools, true);
    pthread_mutex_init(&c->mutex, NULL);
    pthread_cond_init(&c->change, NULL);
    c->in_slabs = lk_slabs_new(LK_MEMBER_MAX, (int)count, err);
    c->out_slabs = c->in_slabs ? lk_slabs_new(LK_MEMBER_SIZE, (int)count, err) : NULL;
    if (!c->out_slabs || lk_match_init(&c->match, options, err) < 0) {
        drop(c);
        return NULL;
    }
    return c;
}

struct lk_check *lk_check_new(struct lk_pool *pool, struct lk_stream *input,
                              const struct lk_check_options *options, void (*news)(void *arg),
                              void *arg, struct lk_error *err)
{
    struct lk_check *c = new_check(pool, options, err);

    if (!c) {
        lk_stream_cancel(input);
        lk_stream_unref(input);
        return NULL;
    }
    c->news = news;
    c->arg = arg;
    c->origin = c->stream = input;
    if (options->hash && start_whole(c, err) < 0) {
        stop(c);
        drop(c);
        return NULL;
    }
    __atomic_add_fetch(&c->refs, 1, __ATOMIC_RELAXED);
    if (lk_pool_stage(pool, "lunark-check", run_matcher, c, err) < 0) {
        stop(c);
        drop(c);
        drop(c);
        return NULL;
    }
    __atomic_add_fetch(&c->refs, 1, __ATOMIC_RELAXED);
    if (lk_pool_stage(pool, "lunark-read", run_feeder, c, &c->feed_err) < 0) {
        c->feed_rc = -1;
        lk_ring_close(&c->ring);
        drop(c);
    }
    return c;
}

int lk_check_result(struct lk_check *c, struct lk_check_stats **stats, struct lk_error *err)
{
    *stats = &c->match.stats;
    if (c->match.rc < 0) {
        *err = c->match.err;
        return -1;
    }
    return 0;
}

void lk_check_progress(struct lk_check *c, uint64_t *bytes, uint64_t *files)
{
    *bytes = __atomic_load_n(&c->bytes, __ATOMIC_RELAXED);
    *files = __atomic_load_n(&c->files, __ATOMIC_RELAXED);
}

void lk_check_cancel(struct lk_check *c)
{
    stop(c);
}

void lk_check_unref(struct lk_check *c)
{
    if (!c) {
        return;
    }
    pthread_mutex_lock(&c->mutex);
    c->news = NULL;
    bool ended = c->ended;
    pthread_mutex_unlock(&c->mutex);
    if (!ended) {
        stop(c);
    }
    drop(c);
}
