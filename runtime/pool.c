/* SPDX-License-Identifier: MIT
 * pool.c - worker threads for short jobs, stage threads for work that blocks, and how many CPUs
 * there are. Workers start with the first jobs, stage threads with the first stages; both stay
 * until the pool goes. Owns its threads; never touches the signal mask of the caller for longer
 * than the start of one. Any thread. */
#include "pool.h"

#include "cgroup.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* libarchive and OpenSSL run on these threads; the default of 8 MiB each would only be address
 * space, but counts where address space is limited. */
#define STACK_SIZE ((size_t)512 << 10)

struct stage {
    struct lk_pool *pool;
    pthread_t thread;
    pthread_cond_t wake;
    void (*fn)(void *arg); /* NULL = idle */
    void *arg;
    char name[16];
    struct stage *next_idle;
    struct stage *next;
};

struct lk_pool {
    pthread_mutex_t mutex;
    pthread_cond_t work; /* a job was queued, or stop */
    pthread_cond_t calm; /* a job or a stage has ended */
    int width;
    int started; /* workers */
    int waiting; /* workers without a job */
    int running; /* jobs being run */
    int busy;    /* stages being run */
    bool stop;
    struct lk_job *first, **last;
    size_t queued;
    struct stage *stages, *idle;
    pthread_t workers[];
};

/* The new thread inherits the mask, so there is no moment at which a signal could hit it. */
static int start_thread(pthread_t *thread, void *(*fn)(void *), void *arg)
{
    pthread_attr_t attr;
    sigset_t all, before;
    int rc;

    rc = pthread_attr_init(&attr);
    if (rc)
        return rc;
    pthread_attr_setstacksize(&attr, STACK_SIZE);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = pthread_create(thread, &attr, fn, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    return rc;
}

struct lk_pool *lk_pool_new(int width, struct lk_error *err)
{
    struct lk_pool *pool;

    if (width < 0) {
        lk_error_set(err, LK_USAGE, "a pool of %d threads makes no sense", width);
        return NULL;
    }
    if (width == 0)
        width = lk_pool_cpus();
    pool = calloc(1, sizeof *pool + (size_t)width * sizeof pool->workers[0]);
    if (!pool) {
        lk_error_set(err, LK_MEMORY, "no memory for a pool of %d threads", width);
        return NULL;
    }
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->calm, NULL);
    pool->width = width;
    pool->last = &pool->first;
    return pool;
}

int lk_pool_width(const struct lk_pool *pool)
{
    return pool->width;
}

static void free_stages(struct lk_pool *pool)
{
    struct stage *stage;

    while ((stage = pool->stages)) {
        pool->stages = stage->next;
        pthread_join(stage->thread, NULL);
        pthread_cond_destroy(&stage->wake);
        free(stage);
    }
}

void lk_pool_free(struct lk_pool *pool)
{
    struct stage *stage;
    int i;

    if (!pool)
        return;
    pthread_mutex_lock(&pool->mutex);
    while (pool->queued || pool->running || pool->busy)
        pthread_cond_wait(&pool->calm, &pool->mutex);
    pool->stop = true;
    pthread_cond_broadcast(&pool->work);
    for (stage = pool->stages; stage; stage = stage->next)
        pthread_cond_signal(&stage->wake);
    pthread_mutex_unlock(&pool->mutex);
    for (i = 0; i < pool->started; i++)
        pthread_join(pool->workers[i], NULL);
    free_stages(pool);
    pthread_cond_destroy(&pool->work);
    pthread_cond_destroy(&pool->calm);
    pthread_mutex_destroy(&pool->mutex);
    free(pool);
}

/* --- workers --- */

static void *worker_main(void *arg)
{
    struct lk_pool *pool = arg;
    struct lk_job *job;

    pthread_setname_np(pthread_self(), "lunark-worker");
    pthread_mutex_lock(&pool->mutex);
    for (;;) {
        pool->waiting++;
        while (!pool->first && !pool->stop)
            pthread_cond_wait(&pool->work, &pool->mutex);
        pool->waiting--;
        job = pool->first;
        if (!job)
            break;
        pool->first = job->next;
        if (!pool->first)
            pool->last = &pool->first;
        pool->queued--;
        pool->running++;
        pthread_mutex_unlock(&pool->mutex);
        job->run(job);
        pthread_mutex_lock(&pool->mutex);
        pool->running--;
        if (!pool->queued && !pool->running)
            pthread_cond_broadcast(&pool->calm);
    }
    pthread_mutex_unlock(&pool->mutex);
    return NULL;
}

int lk_pool_submit(struct lk_pool *pool, struct lk_job *job, struct lk_error *err)
{
    int rc = 0;

    pthread_mutex_lock(&pool->mutex);
    if ((size_t)pool->waiting <= pool->queued && pool->started < pool->width) {
        rc = start_thread(&pool->workers[pool->started], worker_main, pool);
        if (rc == 0)
            pool->started++;
    }
    if (pool->started == 0) {
        pthread_mutex_unlock(&pool->mutex);
        return lk_error_errno(err, rc, "a worker thread can't be started");
    }
    job->next = NULL;
    *pool->last = job;
    pool->last = &job->next;
    pool->queued++;
    pthread_cond_signal(&pool->work);
    pthread_mutex_unlock(&pool->mutex);
    return 0;
}

/* --- stages --- */

static void *stage_main(void *arg)
{
    struct stage *stage = arg;
    struct lk_pool *pool = stage->pool;
    void (*fn)(void *);

    pthread_mutex_lock(&pool->mutex);
    for (;;) {
        while (!stage->fn && !pool->stop)
            pthread_cond_wait(&stage->wake, &pool->mutex);
        fn = stage->fn;
        if (!fn)
            break;
        pthread_setname_np(stage->thread, stage->name);
        pthread_mutex_unlock(&pool->mutex);
        fn(stage->arg);
        pthread_mutex_lock(&pool->mutex);
        stage->fn = NULL;
        stage->next_idle = pool->idle;
        pool->idle = stage;
        if (--pool->busy == 0)
            pthread_cond_broadcast(&pool->calm);
    }
    pthread_mutex_unlock(&pool->mutex);
    return NULL;
}

/* Called with the lock held: an idle stage thread or a new one, which waits for the lock. */
static struct stage *pick_stage(struct lk_pool *pool, struct lk_error *err)
{
    struct stage *stage = pool->idle;
    int rc;

    if (stage) {
        pool->idle = stage->next_idle;
        return stage;
    }
    stage = calloc(1, sizeof *stage);
    if (!stage) {
        lk_error_set(err, LK_MEMORY, "no memory for a stage thread");
        return NULL;
    }
    stage->pool = pool;
    pthread_cond_init(&stage->wake, NULL);
    rc = start_thread(&stage->thread, stage_main, stage);
    if (rc) {
        lk_error_errno(err, rc, "a stage thread can't be started");
        pthread_cond_destroy(&stage->wake);
        free(stage);
        return NULL;
    }
    stage->next = pool->stages;
    pool->stages = stage;
    return stage;
}

int lk_pool_stage(struct lk_pool *pool, const char *name, void (*fn)(void *arg), void *arg,
                  struct lk_error *err)
{
    struct stage *stage;

    pthread_mutex_lock(&pool->mutex);
    stage = pick_stage(pool, err);
    if (stage) {
        stage->fn = fn;
        stage->arg = arg;
        snprintf(stage->name, sizeof stage->name, "%s", name ? name : "lunark-stage");
        pool->busy++;
        pthread_cond_signal(&stage->wake);
    }
    pthread_mutex_unlock(&pool->mutex);
    return stage ? 0 : -1;
}

/* --- CPUs --- */

static int affinity_cpus(void)
{
    cpu_set_t *set;
    size_t size;
    int max, n = 0;

    /* The mask may be larger than cpu_set_t; EINVAL says that the buffer is too small for it. */
    for (max = CPU_SETSIZE; n == 0 && max <= 1 << 20; max *= 4) {
        set = CPU_ALLOC((size_t)max);
        if (!set)
            break;
        size = CPU_ALLOC_SIZE((size_t)max);
        if (sched_getaffinity(0, size, set) == 0)
            n = CPU_COUNT_S(size, set);
        else if (errno != EINVAL)
            max = INT_MAX / 8;
        CPU_FREE(set);
    }
    return n > 0 ? n : 1;
}

int lk_pool_cpus(void)
{
    int cpus = affinity_cpus();
    int quota = lk_cgroup_cpus("");

    return quota > 0 && quota < cpus ? quota : cpus;
}
