/* SPDX-License-Identifier: MIT
 * pool.h - threads: `width` workers for short CPU-bound jobs, and stage threads for work that
 * blocks. All threads block every signal, so SIGPIPE never reaches them. Any thread may call. */
#ifndef LK_POOL_H
#define LK_POOL_H

#include "error.h"

struct lk_pool;

/* A short job that never blocks on a stream, a pipe or another job: compressing or hashing one
 * chunk. */
struct lk_job {
    void (*run)(struct lk_job *job); /* on a worker; may free the job */
    struct lk_job *next;             /* private */
};

/* width = number of workers (they start at the first job); 0 = lk_pool_cpus(). */
struct lk_pool *lk_pool_new(int width, struct lk_error *err);
/* Waits until all jobs have run and all stage threads have returned, then frees. The caller has
 * cancelled them. */
void lk_pool_free(struct lk_pool *pool);
int lk_pool_width(const struct lk_pool *pool);

/* FIFO. -1 only if not even one worker could be started. */
int lk_pool_submit(struct lk_pool *pool, struct lk_job *job, struct lk_error *err);

/* Runs fn(arg) on a stage thread of its own (threads are kept and used again). fn may block. */
int lk_pool_stage(struct lk_pool *pool, const char *name, void (*fn)(void *arg), void *arg,
                  struct lk_error *err);

/* CPUs that the affinity mask and the cgroup's quota (v2 and v1) give this process, rounded up, at
 * least 1. */
int lk_pool_cpus(void);

#endif
