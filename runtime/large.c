/* SPDX-License-Identifier: MIT
 * large.c - SHA-256 of large files, beside the thread that reads them.
 *
 * The reader queues references to chunks that it is about to send; a stage thread, started at the
 * first of them, hashes them in order. The queue needs no bound of its own: each piece holds a
 * slab, and there are only so many, so a hash that is slower than everything else slows the reader
 * down and nothing more.
 *
 * The set is shared by the reader, the thread and every digest that is not freed yet. */
#include "large.h"
#include "crypto.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum state { PENDING, KNOWN, NONE };

struct large {
    struct lk_large base;
    struct lk_larges *larges;
    enum state state; /* under the set's mutex */
    unsigned char sha256[LK_DIGEST_MAX];
    int refs;
};

struct piece {
    struct piece *next;
    struct large *large;
    struct lk_chunk *chunk; /* NULL = the end of the file */
    size_t at, len;
    bool whole;
};

struct lk_larges {
    pthread_mutex_t mutex;
    pthread_cond_t news;  /* for the thread */
    pthread_cond_t known; /* for those who wait */
    int refs;
    struct lk_pool *pool;
    struct large *current; /* the reader's */
    struct piece *first, **end;
    bool started, closing;
};

static void unref(struct lk_larges *larges)
{
    if (__atomic_sub_fetch(&larges->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    pthread_cond_destroy(&larges->known);
    pthread_cond_destroy(&larges->news);
    pthread_mutex_destroy(&larges->mutex);
    free(larges);
}

static void unref_large(struct large *large)
{
    if (__atomic_sub_fetch(&large->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    unref(large->larges);
    free(large);
}

static bool large_wait(struct lk_large *base, unsigned char sha256[32])
{
    struct large *large = (struct large *)base;
    struct lk_larges *larges = large->larges;
    pthread_mutex_lock(&larges->mutex);
    while (large->state == PENDING)
        pthread_cond_wait(&larges->known, &larges->mutex);
    bool known = large->state == KNOWN;
    if (known)
        memcpy(sha256, large->sha256, 32);
    pthread_mutex_unlock(&larges->mutex);
    return known;
}

static void large_free(struct lk_large *base)
{
    unref_large((struct large *)base);
}

static void settle(struct large *large, enum state state)
{
    struct lk_larges *larges = large->larges;
    pthread_mutex_lock(&larges->mutex);
    if (large->state == PENDING)
        large->state = state;
    pthread_cond_broadcast(&larges->known);
    pthread_mutex_unlock(&larges->mutex);
}

static struct piece *next_piece(struct lk_larges *larges)
{
    pthread_mutex_lock(&larges->mutex);
    while (!larges->first && !larges->closing)
        pthread_cond_wait(&larges->news, &larges->mutex);
    struct piece *piece = larges->first;
    if (piece) {
        larges->first = piece->next;
        if (!larges->first)
            larges->end = &larges->first;
    }
    pthread_mutex_unlock(&larges->mutex);
    return piece;
}

static void hash_stage(void *arg)
{
    struct lk_larges *larges = arg;
    struct lk_hasher *hasher = lk_hasher_new(LK_SHA256, NULL);
    struct piece *piece;
    while ((piece = next_piece(larges))) {
        struct large *large = piece->large;
        if (piece->chunk) {
            if (hasher)
                lk_hasher_update(hasher, piece->chunk->data + piece->at, piece->len);
            lk_chunk_unref(piece->chunk);
        } else {
            unsigned char sha256[LK_DIGEST_MAX];
            if (hasher) {
                lk_hasher_final(hasher, sha256);
                memcpy(large->sha256, sha256, 32);
            }
            settle(large, hasher && piece->whole ? KNOWN : NONE);
        }
        unref_large(large);
        free(piece);
    }
    lk_hasher_free(hasher);
    unref(larges);
}

struct lk_larges *lk_larges_new(struct lk_pool *pool, struct lk_error *err)
{
    struct lk_larges *larges = calloc(1, sizeof *larges);
    if (!larges) {
        lk_error_set(err, LK_MEMORY, "no memory for the digests of large files");
        return NULL;
    }
    pthread_mutex_init(&larges->mutex, NULL);
    pthread_cond_init(&larges->news, NULL);
    pthread_cond_init(&larges->known, NULL);
    larges->refs = 1;
    larges->pool = pool;
    larges->end = &larges->first;
    return larges;
}

void lk_larges_free(struct lk_larges *larges)
{
    if (!larges)
        return;
    if (larges->current) {
        settle(larges->current, NONE);
        unref_large(larges->current);
    }
    pthread_mutex_lock(&larges->mutex);
    larges->closing = true;
    pthread_cond_broadcast(&larges->news);
    pthread_mutex_unlock(&larges->mutex);
    unref(larges);
}

static int start(struct lk_larges *larges, struct lk_error *err)
{
    if (larges->started)
        return 0;
    __atomic_add_fetch(&larges->refs, 1, __ATOMIC_RELAXED);
    if (lk_pool_stage(larges->pool, "hash", hash_stage, larges, err)) {
        unref(larges);
        return -1;
    }
    larges->started = true;
    return 0;
}

struct lk_large *lk_larges_begin(struct lk_larges *larges, struct lk_error *err)
{
    if (start(larges, err))
        return NULL;
    struct large *large = calloc(1, sizeof *large);
    if (!large) {
        lk_error_set(err, LK_MEMORY, "no memory for the digest of a large file");
        return NULL;
    }
    large->base = (struct lk_large){large_wait, large_free};
    large->larges = larges;
    large->refs = 2; /* the entry's and the reader's */
    __atomic_add_fetch(&larges->refs, 1, __ATOMIC_RELAXED);
    larges->current = large;
    return &large->base;
}

static int queue(struct lk_larges *larges, struct piece piece, struct lk_error *err)
{
    struct piece *copy = malloc(sizeof *copy);
    if (!copy)
        return lk_error_set(err, LK_MEMORY, "no memory for the digest of a large file");
    *copy = piece;
    if (piece.chunk)
        lk_chunk_ref(piece.chunk);
    __atomic_add_fetch(&piece.large->refs, 1, __ATOMIC_RELAXED);
    pthread_mutex_lock(&larges->mutex);
    *larges->end = copy;
    larges->end = &copy->next;
    pthread_cond_signal(&larges->news);
    pthread_mutex_unlock(&larges->mutex);
    return 0;
}

int lk_larges_add(struct lk_larges *larges, struct lk_chunk *chunk, size_t at, size_t len,
                  struct lk_error *err)
{
    return queue(larges,
                 (struct piece){.large = larges->current, .chunk = chunk, .at = at, .len = len},
                 err);
}

int lk_larges_finish(struct lk_larges *larges, bool whole, struct lk_error *err)
{
    struct large *large = larges->current;
    if (queue(larges, (struct piece){.large = large, .whole = whole}, err))
        return -1;
    larges->current = NULL;
    unref_large(large);
    return 0;
}
