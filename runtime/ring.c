/* SPDX-License-Identifier: MIT
 * ring.c - the order of slots between a feeder, workers and a writer.
 * Owns one flag a slot. Knows nothing of what is in them. Any thread, in the roles that ring.h
 * names. */
#include "ring.h"

#include <stdlib.h>

int lk_ring_init(struct lk_ring *ring, size_t count, struct lk_error *err)
{
    *ring = (struct lk_ring){.count = count};
    ring->done = calloc(count, sizeof(*ring->done));
    if (!ring->done) {
        return lk_error_set(err, LK_MEMORY, "no memory for %zu slots", count);
    }
    pthread_mutex_init(&ring->mutex, NULL);
    pthread_cond_init(&ring->change, NULL);
    return 0;
}

void lk_ring_destroy(struct lk_ring *ring)
{
    if (!ring->done) {
        return;
    }
    pthread_cond_destroy(&ring->change);
    pthread_mutex_destroy(&ring->mutex);
    free(ring->done);
    ring->done = NULL;
}

size_t lk_ring_claim(struct lk_ring *ring)
{
    pthread_mutex_lock(&ring->mutex);
    while (ring->head - ring->tail == ring->count) {
        pthread_cond_wait(&ring->change, &ring->mutex);
    }
    size_t slot = (size_t)(ring->head % ring->count);
    ring->done[slot] = false;
    pthread_mutex_unlock(&ring->mutex);
    return slot;
}

void lk_ring_push(struct lk_ring *ring)
{
    pthread_mutex_lock(&ring->mutex);
    ring->head++;
    pthread_mutex_unlock(&ring->mutex);
}

void lk_ring_finish(struct lk_ring *ring, size_t slot)
{
    pthread_mutex_lock(&ring->mutex);
    ring->done[slot] = true;
    pthread_cond_broadcast(&ring->change);
    pthread_mutex_unlock(&ring->mutex);
}

void lk_ring_close(struct lk_ring *ring)
{
    pthread_mutex_lock(&ring->mutex);
    ring->closed = true;
    pthread_cond_broadcast(&ring->change);
    pthread_mutex_unlock(&ring->mutex);
}

bool lk_ring_next(struct lk_ring *ring, size_t *slot)
{
    bool found = false;

    pthread_mutex_lock(&ring->mutex);
    for (;;) {
        *slot = (size_t)(ring->tail % ring->count);
        found = ring->tail < ring->head && ring->done[*slot];
        if (found || (ring->closed && ring->tail == ring->head)) {
            break;
        }
        pthread_cond_wait(&ring->change, &ring->mutex);
    }
    pthread_mutex_unlock(&ring->mutex);
    return found;
}

void lk_ring_release(struct lk_ring *ring)
{
    pthread_mutex_lock(&ring->mutex);
    ring->tail++;
    pthread_cond_broadcast(&ring->change);
    pthread_mutex_unlock(&ring->mutex);
}
