/* SPDX-License-Identifier: MIT
 * chunk.c - ref-counted pieces of memory, most of them from pools of fixed size.
 * A slab's lk_chunk header is made with its mapping and used again with it. The most recently
 * returned slab is handed out first, so a pipeline that keeps up touches few of them. Callbacks run
 * with no lock held. Any thread. */
#include "chunk.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* From this size on lk_chunk_alloc maps pages, so that freed data goes back to the system at once.
 */
#define MAP_FROM ((size_t)64 << 10)

struct waiter {
    struct waiter *next;
    void (*freed)(void *arg);
    void *arg;
};

struct lk_slabs {
    pthread_mutex_t mutex;
    pthread_cond_t change; /* a slab came back, the pool closed, a callback returned */
    size_t size;
    int count;
    int mapped; /* slabs that exist */
    int out;    /* slabs in use */
    int takers; /* threads inside lk_slabs_take or a notification: the pool must not go yet */
    bool closed;
    bool owned;   /* the owner's reference */
    bool calling; /* `freed` callbacks are running on caller */
    pthread_t caller;
    struct lk_chunk *free;  /* LIFO through next */
    struct waiter *waiters; /* in order of arrival */
};

static size_t round_to_page(size_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);

    return (size + page - 1) / page * page;
}

static unsigned char *map_bytes(size_t size, struct lk_error *err)
{
    void *data = size > SIZE_MAX / 2 ? MAP_FAILED
                                     : mmap(NULL, round_to_page(size), PROT_READ | PROT_WRITE,
                                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (data == MAP_FAILED) {
        lk_error_set(err, LK_MEMORY, "no memory for a block of %zu bytes", size);
        return NULL;
    }
    return data;
}

/* --- slabs --- */

struct lk_slabs *lk_slabs_new(size_t size, int count, struct lk_error *err)
{
    struct lk_slabs *slabs;

    if (size == 0 || count < 1) {
        lk_error_set(err, LK_USAGE, "a pool of %d slabs of %zu bytes makes no sense", count, size);
        return NULL;
    }
    slabs = calloc(1, sizeof *slabs);
    if (!slabs) {
        lk_error_set(err, LK_MEMORY, "no memory for a pool of slabs");
        return NULL;
    }
    pthread_mutex_init(&slabs->mutex, NULL);
    pthread_cond_init(&slabs->change, NULL);
    slabs->size = size;
    slabs->count = count;
    slabs->owned = true;
    return slabs;
}

/* Ends a critical section; frees the pool when nobody can reach it any more. */
static void leave(struct lk_slabs *slabs)
{
    bool gone = !slabs->owned && slabs->out == 0 && slabs->takers == 0;
    struct lk_chunk *chunk;

    pthread_mutex_unlock(&slabs->mutex);
    if (!gone)
        return;
    while ((chunk = slabs->free)) {
        slabs->free = chunk->next;
        munmap(chunk->data, round_to_page(slabs->size));
        free(chunk);
    }
    pthread_cond_destroy(&slabs->change);
    pthread_mutex_destroy(&slabs->mutex);
    free(slabs);
}

/* Called with the lock held. Runs all registered callbacks without it; one of them at a time over
 * all threads, so that lk_slabs_untry knows what to wait for. */
static void notify(struct lk_slabs *slabs)
{
    struct waiter *waiter;

    if (slabs->calling)
        return; /* the thread that is at it looks again */
    slabs->takers++;
    slabs->calling = true;
    slabs->caller = pthread_self();
    while ((slabs->free || slabs->mapped < slabs->count || slabs->closed) &&
           (waiter = slabs->waiters)) {
        slabs->waiters = waiter->next;
        pthread_mutex_unlock(&slabs->mutex);
        waiter->freed(waiter->arg);
        free(waiter);
        pthread_mutex_lock(&slabs->mutex);
    }
    slabs->calling = false;
    slabs->takers--;
    pthread_cond_broadcast(&slabs->change);
}

/* Called with the lock held: a free slab, a new one, or NULL with LK_OK when all are out. */
static struct lk_chunk *pick(struct lk_slabs *slabs, struct lk_error *err)
{
    struct lk_chunk *chunk = slabs->free;

    if (err)
        err->kind = LK_OK;
    if (slabs->closed) {
        lk_error_set(err, LK_CANCELLED, "the pool of slabs was closed");
        return NULL;
    }
    if (chunk) {
        slabs->free = chunk->next;
    } else if (slabs->mapped < slabs->count) {
        chunk = calloc(1, sizeof *chunk);
        if (!chunk) {
            lk_error_set(err, LK_MEMORY, "no memory for a chunk");
            return NULL;
        }
        chunk->data = map_bytes(slabs->size, err);
        if (!chunk->data) {
            free(chunk);
            return NULL;
        }
        chunk->cap = slabs->size;
        chunk->slabs = slabs;
        slabs->mapped++;
    } else {
        return NULL;
    }
    slabs->out++;
    chunk->refs = 1;
    chunk->len = 0;
    chunk->raw_len = 0;
    chunk->meta = NULL;
    chunk->next = NULL;
    chunk->zeros = false;
    return chunk;
}

struct lk_chunk *lk_slabs_take(struct lk_slabs *slabs, struct lk_error *err)
{
    struct lk_error local;
    struct lk_error *e = err ? err : &local;
    struct lk_chunk *chunk;

    pthread_mutex_lock(&slabs->mutex);
    slabs->takers++;
    while (!(chunk = pick(slabs, e)) && e->kind == LK_OK)
        pthread_cond_wait(&slabs->change, &slabs->mutex);
    slabs->takers--;
    leave(slabs);
    return chunk;
}

/* Called with the lock held. */
static int add_waiter(struct lk_slabs *slabs, void (*freed)(void *arg), void *arg,
                      struct lk_error *err)
{
    struct waiter **end = &slabs->waiters;
    struct waiter *waiter;

    for (; *end; end = &(*end)->next)
        if ((*end)->freed == freed && (*end)->arg == arg)
            return 0;
    waiter = malloc(sizeof *waiter);
    if (!waiter)
        return lk_error_set(err, LK_MEMORY, "no memory to wait for a slab");
    *waiter = (struct waiter){.freed = freed, .arg = arg};
    *end = waiter;
    return 0;
}

struct lk_chunk *lk_slabs_try(struct lk_slabs *slabs, void (*freed)(void *arg), void *arg,
                              struct lk_error *err)
{
    struct lk_error local;
    struct lk_error *e = err ? err : &local;
    struct lk_chunk *chunk;

    pthread_mutex_lock(&slabs->mutex);
    chunk = pick(slabs, e);
    if (!chunk && e->kind == LK_OK && freed)
        add_waiter(slabs, freed, arg, e);
    leave(slabs);
    return chunk;
}

void lk_slabs_untry(struct lk_slabs *slabs, void (*freed)(void *arg), void *arg)
{
    struct waiter **at, *waiter;

    pthread_mutex_lock(&slabs->mutex);
    for (at = &slabs->waiters; (waiter = *at); at = &waiter->next) {
        if (waiter->freed == freed && waiter->arg == arg) {
            *at = waiter->next;
            free(waiter);
            break;
        }
    }
    slabs->takers++;
    while (slabs->calling && !pthread_equal(slabs->caller, pthread_self()))
        pthread_cond_wait(&slabs->change, &slabs->mutex);
    slabs->takers--;
    leave(slabs);
}

void lk_slabs_close(struct lk_slabs *slabs)
{
    pthread_mutex_lock(&slabs->mutex);
    slabs->closed = true;
    pthread_cond_broadcast(&slabs->change);
    notify(slabs);
    leave(slabs);
}

void lk_slabs_free(struct lk_slabs *slabs)
{
    if (!slabs)
        return;
    pthread_mutex_lock(&slabs->mutex);
    slabs->closed = true;
    pthread_cond_broadcast(&slabs->change);
    notify(slabs);
    slabs->owned = false;
    leave(slabs);
}

size_t lk_slabs_size(const struct lk_slabs *slabs)
{
    return slabs->size;
}

size_t lk_slabs_mapped(const struct lk_slabs *slabs)
{
    /* Only the lock is touched, and it is not part of what const promises. */
    pthread_mutex_t *mutex = (pthread_mutex_t *)&slabs->mutex;
    size_t bytes;

    pthread_mutex_lock(mutex);
    bytes = (size_t)slabs->mapped * slabs->size;
    pthread_mutex_unlock(mutex);
    return bytes;
}

static void give_back(struct lk_slabs *slabs, struct lk_chunk *chunk)
{
    pthread_mutex_lock(&slabs->mutex);
    chunk->next = slabs->free;
    slabs->free = chunk;
    slabs->out--;
    pthread_cond_broadcast(&slabs->change);
    notify(slabs);
    leave(slabs);
}

/* --- chunks --- */

struct lk_chunk *lk_chunk_alloc(size_t cap, struct lk_error *err)
{
    bool mapped = cap >= MAP_FROM;
    struct lk_chunk *chunk = calloc(1, sizeof *chunk + (mapped ? 0 : cap));

    if (!chunk) {
        lk_error_set(err, LK_MEMORY, "no memory for a chunk of %zu bytes", cap);
        return NULL;
    }
    chunk->data = mapped ? map_bytes(cap, err) : (unsigned char *)(chunk + 1);
    if (!chunk->data) {
        free(chunk);
        return NULL;
    }
    chunk->cap = cap;
    chunk->refs = 1;
    return chunk;
}

struct lk_chunk *lk_chunk_ref(struct lk_chunk *chunk)
{
    __atomic_add_fetch(&chunk->refs, 1, __ATOMIC_RELAXED);
    return chunk;
}

void lk_chunk_unref(struct lk_chunk *chunk)
{
    if (!chunk || __atomic_sub_fetch(&chunk->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    if (chunk->meta) {
        chunk->meta->free(chunk->meta);
        chunk->meta = NULL;
    }
    if (chunk->slabs) {
        give_back(chunk->slabs, chunk);
        return;
    }
    if (chunk->cap >= MAP_FROM)
        munmap(chunk->data, round_to_page(chunk->cap));
    free(chunk);
}
