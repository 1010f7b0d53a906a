/* SPDX-License-Identifier: MIT
 * ring.h - slots in order for one feeder, many workers and one writer: filled in turn, finished in
 * any order, emptied in turn. The slots themselves are the caller's array. */
#ifndef LK_RING_H
#define LK_RING_H

#include "error.h"
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

struct lk_ring {
    pthread_mutex_t mutex;
    pthread_cond_t change;
    uint64_t head, tail; /* slots pushed and released so far */
    size_t count;
    bool closed;
    bool *done;
};

int lk_ring_init(struct lk_ring *ring, size_t count, struct lk_error *err);
void lk_ring_destroy(struct lk_ring *ring);
/* Feeder: the number of the next slot; waits until it is free. */
size_t lk_ring_claim(struct lk_ring *ring);
/* Feeder: the claimed slot is in use now; then lk_ring_finish is due for it, from any thread. */
void lk_ring_push(struct lk_ring *ring);
void lk_ring_finish(struct lk_ring *ring, size_t slot);
/* Feeder: no slot follows. The ring may be destroyed by the writer as soon as this has returned
 * there. */
void lk_ring_close(struct lk_ring *ring);
/* Writer: waits for the next slot in order to be finished; false when closed and empty. */
bool lk_ring_next(struct lk_ring *ring, size_t *slot);
/* Writer: the slot that lk_ring_next gave is free again. */
void lk_ring_release(struct lk_ring *ring);

#endif
