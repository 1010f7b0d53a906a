/* SPDX-License-Identifier: MIT
 * part.c - cuts a stream into parts for uploads.
 * A stage thread copies chunks into the part that is being filled and runs the totals; pool workers
 * hash whole parts; the loop takes them in order. A full part is held back until a next byte or the
 * end is known, so `last` is right. The struct lives as long as its owner, its stage, its jobs or
 * any of its parts. Callbacks run on the loop, with no lock held. */
#include "part.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define READ_SIZE ((size_t)128 << 10)

struct part {
    struct lk_part part; /* first: a struct lk_part * is one of these */
    struct lk_job job;
    struct lk_chunk *chunk; /* the memory, NULL when spilled */
    struct part *next;      /* in line for the loop */
    bool ready;             /* hashed */
};

struct lk_parts {
    pthread_mutex_t mutex;
    pthread_cond_t change; /* a part is gone, or cancelled */
    int refs;
    struct lk_loop *loop;
    struct lk_pool *pool;
    struct lk_stream *input; /* NULL once the stage is done with it */
    struct lk_parts_options options;
    char *spill_dir;
    struct lk_slabs *slabs;
    struct lk_hasher *totals[LK_DIGEST_COUNT]; /* the stage's */
    unsigned char total[LK_DIGEST_COUNT][LK_DIGEST_MAX];
    uint64_t bytes;
    int live; /* parts that exist */
    int made; /* parts so far, for their numbers */
    struct part *first, **last;
    bool cancelled; /* the owner is gone */
    bool ended;     /* no further part will come */
    bool failed;
    struct lk_error error;
    void (*news)(void *arg);
    void *arg;
    struct lk_event event;
};

/* --- life --- */

static void free_parts(struct lk_parts *parts)
{
    int i;

    for (i = 0; i < LK_DIGEST_COUNT; i++)
        lk_hasher_free(parts->totals[i]);
    lk_slabs_free(parts->slabs);
    free(parts->spill_dir);
    pthread_cond_destroy(&parts->change);
    pthread_mutex_destroy(&parts->mutex);
    free(parts);
}

/* Ends a critical section and drops one reference. */
static void leave(struct lk_parts *parts)
{
    bool gone = --parts->refs == 0;

    pthread_mutex_unlock(&parts->mutex);
    if (gone)
        free_parts(parts);
}

static void drop(struct lk_parts *parts)
{
    pthread_mutex_lock(&parts->mutex);
    leave(parts);
}

struct lk_part *lk_part_ref(struct lk_part *part)
{
    __atomic_add_fetch(&part->refs, 1, __ATOMIC_RELAXED);
    return part;
}

void lk_part_unref(struct lk_part *part)
{
    struct part *own = (struct part *)part;
    struct lk_parts *parts;

    if (!part || __atomic_sub_fetch(&part->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    parts = part->owner;
    if (part->fd >= 0)
        close(part->fd);
    lk_chunk_unref(own->chunk);
    free(own);
    pthread_mutex_lock(&parts->mutex);
    parts->live--;
    pthread_cond_broadcast(&parts->change);
    leave(parts);
}

ssize_t lk_part_read(struct lk_part *part, size_t offset, void *data, size_t len,
                     struct lk_error *err)
{
    size_t at = 0;
    ssize_t n;

    if (offset >= part->size)
        return 0;
    if (len > part->size - offset)
        len = part->size - offset;
    if (len > SSIZE_MAX)
        len = SSIZE_MAX;
    if (part->data) {
        memcpy(data, part->data + offset, len);
        return (ssize_t)len;
    }
    while (at < len) {
        n = pread(part->fd, (char *)data + at, len - at, (off_t)(offset + at));
        if (n > 0)
            at += (size_t)n;
        else if (n == 0)
            return lk_error_set(err, LK_IO, "part %d: its temporary file is shorter than %zu bytes",
                                part->number, part->size);
        else if (errno != EINTR)
            return lk_error_errno(err, errno, "part %d: reading its temporary file failed",
                                  part->number);
    }
    return (ssize_t)at;
}

/* --- telling the loop --- */

/* Called with the lock held. */
static void tell(struct lk_parts *parts)
{
    if (!parts->cancelled)
        lk_loop_post(parts->loop, &parts->event);
}

static void run_news(struct lk_event *event)
{
    struct lk_parts *parts = (struct lk_parts *)((char *)event - offsetof(struct lk_parts, event));

    parts->news(parts->arg); /* may free parts */
}

static void fail(struct lk_parts *parts, const struct lk_error *err)
{
    pthread_mutex_lock(&parts->mutex);
    if (!parts->failed) {
        parts->failed = true;
        parts->error = *err;
        tell(parts);
    }
    pthread_mutex_unlock(&parts->mutex);
}

/* --- hashing, on a worker --- */

static int hash_file(struct lk_part *part, enum lk_digest digest, unsigned char *buffer,
                     struct lk_error *err)
{
    struct lk_hasher *hasher = lk_hasher_new(digest, err);
    size_t at = 0;
    ssize_t n = 0;

    if (!hasher)
        return -1;
    while (at < part->size && (n = lk_part_read(part, at, buffer, READ_SIZE, err)) > 0) {
        lk_hasher_update(hasher, buffer, (size_t)n);
        at += (size_t)n;
    }
    lk_hasher_final(hasher, part->hash[digest]);
    lk_hasher_free(hasher);
    return n < 0 ? -1 : 0;
}

static int hash_part(struct lk_part *part, struct lk_error *err)
{
    unsigned char *buffer = NULL;
    int i, rc = 0;

    if (!part->data) {
        buffer = malloc(READ_SIZE);
        if (!buffer)
            return lk_error_set(err, LK_MEMORY, "no memory to hash part %d", part->number);
    }
    for (i = 0; rc == 0 && i < LK_DIGEST_COUNT; i++) {
        if (!(part->hashes & 1u << i))
            continue;
        if (buffer)
            rc = hash_file(part, (enum lk_digest)i, buffer, err);
        else
            rc = lk_digest_of((enum lk_digest)i, part->data, part->size, part->hash[i], err);
    }
    free(buffer);
    return rc;
}

/* The part is done: the loop may have it, once those before it are done too. Drops a reference to
 * the part. */
static void finish_part(struct part *own)
{
    struct lk_parts *parts = own->part.owner;

    pthread_mutex_lock(&parts->mutex);
    own->ready = true;
    if (parts->first == own)
        tell(parts);
    pthread_mutex_unlock(&parts->mutex);
    lk_part_unref(&own->part);
}

static void run_hash(struct lk_job *job)
{
    struct part *own = (struct part *)((char *)job - offsetof(struct part, job));
    struct lk_error err;

    if (hash_part(&own->part, &err) < 0)
        fail(own->part.owner, &err);
    finish_part(own);
}

/* --- filling, on the stage thread --- */

static int open_spill(const char *dir, struct lk_error *err)
{
    char name[PATH_MAX];
    int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

    if (fd >= 0)
        return fd;
    if (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL)
        return lk_error_errno(err, errno, "no temporary file in %s", dir);
    /* A file system that can't make a file without a name. */
    if ((size_t)snprintf(name, sizeof name, "%s/.lunark-part-XXXXXX", dir) >= sizeof name)
        return lk_error_errno(err, ENAMETOOLONG, "no temporary file in %s", dir);
    fd = mkostemp(name, O_CLOEXEC);
    if (fd < 0)
        return lk_error_errno(err, errno, "no temporary file in %s", dir);
    unlink(name);
    return fd;
}

/* Waits until one more part may exist. */
static int await_room(struct lk_parts *parts, struct lk_error *err)
{
    int rc = 0;

    pthread_mutex_lock(&parts->mutex);
    while (!parts->cancelled && parts->live >= parts->options.width)
        pthread_cond_wait(&parts->change, &parts->mutex);
    if (parts->cancelled)
        rc = lk_error_set(err, LK_CANCELLED, "the parts were cancelled");
    else
        parts->live++;
    pthread_mutex_unlock(&parts->mutex);
    return rc;
}

static int give_room(struct part *own, struct lk_parts *parts, struct lk_error *err)
{
    if (parts->spill_dir) {
        own->part.fd = open_spill(parts->spill_dir, err);
        return own->part.fd < 0 ? -1 : 0;
    }
    own->chunk = lk_slabs_take(parts->slabs, err);
    if (!own->chunk)
        return -1;
    own->part.data = own->chunk->data;
    return 0;
}

/* A new empty part with one reference, the stage's. */
static struct part *new_part(struct lk_parts *parts, struct lk_error *err)
{
    struct part *own;

    if (await_room(parts, err) < 0)
        return NULL;
    own = calloc(1, sizeof *own);
    if (!own) {
        lk_error_set(err, LK_MEMORY, "no memory for a part");
        pthread_mutex_lock(&parts->mutex);
        parts->live--;
        pthread_mutex_unlock(&parts->mutex);
        return NULL;
    }
    own->part.fd = -1;
    own->part.refs = 1;
    own->part.owner = parts;
    own->part.hashes = parts->options.hashes;
    own->part.number = ++parts->made;
    own->job.run = run_hash;
    pthread_mutex_lock(&parts->mutex);
    own->part.offset = parts->bytes;
    parts->refs++;
    pthread_mutex_unlock(&parts->mutex);
    if (give_room(own, parts, err) < 0) {
        lk_part_unref(&own->part);
        return NULL;
    }
    return own;
}

/* Puts the part in line and has it hashed. Takes over the stage's reference. */
static int submit_part(struct lk_parts *parts, struct part *own, bool last, struct lk_error *err)
{
    own->part.last = last;
    pthread_mutex_lock(&parts->mutex);
    if (!parts->cancelled) {
        lk_part_ref(&own->part); /* the line's; the stage's goes to the job */
        *parts->last = own;
        parts->last = &own->next;
    }
    pthread_mutex_unlock(&parts->mutex);
    if (own->part.hashes == 0) {
        finish_part(own);
        return 0;
    }
    if (lk_pool_submit(parts->pool, &own->job, err) < 0) {
        lk_part_unref(&own->part);
        return -1;
    }
    return 0;
}

static int append(struct part *own, const unsigned char *data, size_t len, struct lk_error *err)
{
    size_t at = 0;
    ssize_t n;

    if (own->chunk) {
        memcpy(own->chunk->data + own->part.size, data, len);
        own->part.size += len;
        return 0;
    }
    while (at < len) {
        n = pwrite(own->part.fd, data + at, len - at, (off_t)(own->part.size + at));
        if (n < 0 && errno != EINTR)
            return lk_error_errno(err, errno, "part %d: writing its temporary file failed",
                                  own->part.number);
        at += n > 0 ? (size_t)n : 0;
    }
    own->part.size += len;
    return 0;
}

/* Spreads the bytes of a chunk over parts. *current is full, begun or NULL before and after. */
static int add_bytes(struct lk_parts *parts, struct part **current, const unsigned char *data,
                     size_t len, struct lk_error *err)
{
    struct part *full;
    size_t room;

    while (len > 0) {
        if (*current && (*current)->part.size == parts->options.size) {
            full = *current;
            *current = NULL;
            if (submit_part(parts, full, false, err) < 0)
                return -1;
        }
        if (!*current && !(*current = new_part(parts, err)))
            return -1;
        room = parts->options.size - (*current)->part.size;
        if (room > len)
            room = len;
        if (append(*current, data, room, err) < 0)
            return -1;
        data += room;
        len -= room;
        pthread_mutex_lock(&parts->mutex);
        parts->bytes += room;
        pthread_mutex_unlock(&parts->mutex);
    }
    return 0;
}

/* Everything up to the end of the input, which is DONE or -1. */
static int fill_parts(struct lk_parts *parts, struct part **current, struct lk_error *err)
{
    struct lk_chunk *chunk;
    int i, rc;

    while ((rc = lk_stream_read(parts->input, &chunk, err)) == LK_STREAM_DATA) {
        for (i = 0; i < LK_DIGEST_COUNT; i++)
            if (parts->totals[i])
                lk_hasher_update(parts->totals[i], chunk->data, chunk->len);
        rc = add_bytes(parts, current, chunk->data, chunk->len, err);
        lk_chunk_unref(chunk);
        if (rc < 0)
            return -1;
    }
    if (rc < 0)
        return -1;
    return *current || (*current = new_part(parts, err)) ? 0 : -1; /* an empty stream: one part */
}

static void end_parts(struct lk_parts *parts)
{
    int i;

    for (i = 0; i < LK_DIGEST_COUNT; i++)
        if (parts->totals[i])
            lk_hasher_final(parts->totals[i], parts->total[i]);
    pthread_mutex_lock(&parts->mutex);
    parts->ended = true;
    tell(parts);
    pthread_mutex_unlock(&parts->mutex);
}

static void run_parts(void *arg)
{
    struct lk_parts *parts = arg;
    struct part *current = NULL;
    struct lk_stream *input;
    struct lk_error err;
    int rc = fill_parts(parts, &current, &err);

    if (rc == 0) {
        rc = submit_part(parts, current, true, &err);
        current = NULL;
    }
    if (current)
        lk_part_unref(&current->part);
    pthread_mutex_lock(&parts->mutex);
    input = parts->input;
    parts->input = NULL;
    pthread_mutex_unlock(&parts->mutex);
    lk_stream_cancel(input);
    lk_stream_unref(input);
    if (rc < 0)
        fail(parts, &err);
    else
        end_parts(parts);
    drop(parts);
}

/* --- the owner --- */

static int check_options(const struct lk_parts_options *options, struct lk_error *err)
{
    if (options->size == 0 || options->size > INT64_MAX || options->width < 1)
        return lk_error_set(err, LK_USAGE, "%d parts of %zu bytes make no sense", options->width,
                            options->size);
    if ((options->hashes | options->totals) >> LK_DIGEST_COUNT)
        return lk_error_set(err, LK_USAGE, "unknown digest in the set for parts");
    return 0;
}

static int prepare(struct lk_parts *parts, struct lk_error *err)
{
    int i;

    for (i = 0; i < LK_DIGEST_COUNT; i++) {
        if (!(parts->options.totals & 1u << i))
            continue;
        parts->totals[i] = lk_hasher_new((enum lk_digest)i, err);
        if (!parts->totals[i])
            return -1;
    }
    if (parts->options.spill_dir) {
        parts->spill_dir = strdup(parts->options.spill_dir);
        parts->options.spill_dir = NULL;
        if (!parts->spill_dir)
            return lk_error_set(err, LK_MEMORY, "no memory for parts");
        return 0;
    }
    parts->slabs = lk_slabs_new(parts->options.size, parts->options.width, err);
    return parts->slabs ? 0 : -1;
}

struct lk_parts *lk_parts_new(struct lk_loop *loop, struct lk_pool *pool, struct lk_stream *input,
                              const struct lk_parts_options *options, void (*news)(void *arg),
                              void *arg, struct lk_error *err)
{
    struct lk_parts *parts = NULL;

    if (check_options(options, err) < 0)
        goto failed;
    parts = calloc(1, sizeof *parts);
    if (!parts) {
        lk_error_set(err, LK_MEMORY, "no memory for parts");
        goto failed;
    }
    pthread_mutex_init(&parts->mutex, NULL);
    pthread_cond_init(&parts->change, NULL);
    parts->refs = 2; /* the owner's and the stage's */
    parts->loop = loop;
    parts->pool = pool;
    parts->input = input;
    parts->options = *options;
    parts->last = &parts->first;
    parts->news = news;
    parts->arg = arg;
    parts->event.run = run_news;
    if (prepare(parts, err) < 0)
        goto failed;
    if (lk_pool_stage(pool, "lunark-parts", run_parts, parts, err) < 0)
        goto failed;
    return parts;
failed:
    if (parts)
        free_parts(parts);
    lk_stream_cancel(input);
    lk_stream_unref(input);
    return NULL;
}

int lk_parts_next(struct lk_parts *parts, struct lk_part **part, struct lk_error *err)
{
    struct part *own;
    int rc = LK_STREAM_AGAIN;

    *part = NULL;
    pthread_mutex_lock(&parts->mutex);
    own = parts->first;
    if (parts->failed) {
        if (err)
            *err = parts->error;
        rc = -1;
    } else if (own && own->ready) {
        parts->first = own->next;
        if (!parts->first)
            parts->last = &parts->first;
        own->next = NULL;
        *part = &own->part;
        rc = LK_STREAM_DATA;
    } else if (!own && parts->ended) {
        rc = LK_STREAM_DONE;
    }
    pthread_mutex_unlock(&parts->mutex);
    return rc;
}

const unsigned char *lk_parts_total(const struct lk_parts *parts, enum lk_digest digest)
{
    if ((unsigned)digest >= LK_DIGEST_COUNT || !(parts->options.totals & 1u << digest))
        return NULL;
    return parts->total[digest];
}

uint64_t lk_parts_bytes(const struct lk_parts *parts)
{
    /* Only the lock is touched, and it is not part of what const promises. */
    pthread_mutex_t *mutex = (pthread_mutex_t *)&parts->mutex;
    uint64_t bytes;

    pthread_mutex_lock(mutex);
    bytes = parts->bytes;
    pthread_mutex_unlock(mutex);
    return bytes;
}

void lk_parts_free(struct lk_parts *parts)
{
    struct lk_stream *input = NULL;
    struct part *own, *next;

    if (!parts)
        return;
    pthread_mutex_lock(&parts->mutex);
    parts->cancelled = true; /* from here on nothing is posted */
    own = parts->first;
    parts->first = NULL;
    parts->last = &parts->first;
    if (parts->input)
        input = lk_stream_ref(parts->input);
    pthread_cond_broadcast(&parts->change);
    pthread_mutex_unlock(&parts->mutex);
    lk_loop_unpost(parts->loop, &parts->event);
    if (input) {
        lk_stream_cancel(input);
        lk_stream_unref(input);
    }
    if (parts->slabs)
        lk_slabs_close(parts->slabs);
    for (; own; own = next) {
        next = own->next;
        lk_part_unref(&own->part);
    }
    drop(parts);
}
