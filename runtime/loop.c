/* SPDX-License-Identifier: MIT
 * loop.c - the event loop over one epoll descriptor.
 * A timerfd and an eventfd are in the epoll set, so a host that polls only lk_loop_fd() misses
 * nothing. Timers are a binary heap, posted events a list under a mutex. Owns its descriptors,
 * never those it watches; never calls back with the lock held. Loop thread only, but for
 * lk_loop_post and lk_loop_wake. */
#include "loop.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 64 };

/* Events fetched by one lk_loop_step. Steps can nest (a callback that drives the loop), so the
 * batches are a list: whoever removes a watch strikes it from all of them. */
struct batch {
    struct epoll_event events[BATCH];
    int count;
    struct batch *outer;
};

struct lk_loop {
    int epoll_fd, timer_fd, event_fd;
    struct batch *batches;
    struct lk_timer **heap;
    size_t timers, heap_cap;
    uint64_t alarm_ns; /* what timer_fd is set to; 0 = not set */
    pthread_mutex_t mutex;
    struct lk_event *first, **last;
    size_t posted;
    bool signalled; /* event_fd was written for what is in the list */
};

uint64_t lk_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int add_internal(struct lk_loop *loop, int *fd, struct lk_error *err)
{
    struct epoll_event event = {.events = EPOLLIN, .data = {.ptr = fd}};

    if (*fd < 0 || epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, *fd, &event) < 0)
        return lk_error_errno(err, errno, "the event loop could not be set up");
    return 0;
}

struct lk_loop *lk_loop_new(struct lk_error *err)
{
    struct lk_loop *loop = calloc(1, sizeof *loop);

    if (!loop) {
        lk_error_set(err, LK_MEMORY, "no memory for an event loop");
        return NULL;
    }
    pthread_mutex_init(&loop->mutex, NULL);
    loop->last = &loop->first;
    loop->timer_fd = loop->event_fd = -1;
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (loop->epoll_fd < 0) {
        lk_error_errno(err, errno, "the event loop could not be set up");
        goto failed;
    }
    loop->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (add_internal(loop, &loop->timer_fd, err) < 0)
        goto failed;
    loop->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (add_internal(loop, &loop->event_fd, err) < 0)
        goto failed;
    return loop;
failed:
    lk_loop_free(loop);
    return NULL;
}

void lk_loop_free(struct lk_loop *loop)
{
    if (!loop)
        return;
    if (loop->event_fd >= 0)
        close(loop->event_fd);
    if (loop->timer_fd >= 0)
        close(loop->timer_fd);
    if (loop->epoll_fd >= 0)
        close(loop->epoll_fd);
    pthread_mutex_destroy(&loop->mutex);
    free(loop->heap);
    free(loop);
}

int lk_loop_fd(const struct lk_loop *loop)
{
    return loop->epoll_fd;
}

/* --- descriptors --- */

int lk_loop_watch(struct lk_loop *loop, struct lk_watch *watch, struct lk_error *err)
{
    struct epoll_event event = {.events = watch->events, .data = {.ptr = watch}};

    if (watch->active)
        return lk_loop_rewatch(loop, watch, watch->events, err);
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, watch->fd, &event) < 0)
        return lk_error_errno(err, errno, "descriptor %d can't be watched", watch->fd);
    watch->active = true;
    return 0;
}

int lk_loop_rewatch(struct lk_loop *loop, struct lk_watch *watch, uint32_t events,
                    struct lk_error *err)
{
    struct epoll_event event = {.events = events, .data = {.ptr = watch}};

    if (!watch->active)
        return lk_error_set(err, LK_USAGE, "descriptor %d is not watched", watch->fd);
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_MOD, watch->fd, &event) < 0)
        return lk_error_errno(err, errno, "descriptor %d can't be watched", watch->fd);
    watch->events = events;
    return 0;
}

void lk_loop_unwatch(struct lk_loop *loop, struct lk_watch *watch)
{
    struct batch *batch;
    int i;

    if (!watch->active)
        return;
    watch->active = false;
    epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, watch->fd, NULL); /* fails if it was closed before */
    for (batch = loop->batches; batch; batch = batch->outer)
        for (i = 0; i < batch->count; i++)
            if (batch->events[i].data.ptr == watch)
                batch->events[i].data.ptr = NULL;
}

/* --- timers: slot is the place in the heap plus one --- */

static void place(struct lk_loop *loop, size_t at, struct lk_timer *timer)
{
    loop->heap[at] = timer;
    timer->slot = at + 1;
}

static void sift_up(struct lk_loop *loop, size_t at, struct lk_timer *timer)
{
    while (at > 0 && loop->heap[(at - 1) / 2]->due_ns > timer->due_ns) {
        place(loop, at, loop->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    place(loop, at, timer);
}

static void sift_down(struct lk_loop *loop, size_t at, struct lk_timer *timer)
{
    size_t child;

    while ((child = at * 2 + 1) < loop->timers) {
        if (child + 1 < loop->timers && loop->heap[child + 1]->due_ns < loop->heap[child]->due_ns)
            child++;
        if (loop->heap[child]->due_ns >= timer->due_ns)
            break;
        place(loop, at, loop->heap[child]);
        at = child;
    }
    place(loop, at, timer);
}

/* Sets the timerfd to the earliest timer. One that is set too early costs a wake-up and is left. */
static void set_alarm(struct lk_loop *loop)
{
    uint64_t due = loop->timers ? loop->heap[0]->due_ns : 0;
    struct itimerspec spec = {
        .it_value = {.tv_sec = (time_t)(due / 1000000000u), .tv_nsec = (long)(due % 1000000000u)}};

    if (due == 0 || (loop->alarm_ns && loop->alarm_ns <= due))
        return;
    timerfd_settime(loop->timer_fd, TFD_TIMER_ABSTIME, &spec, NULL);
    loop->alarm_ns = due;
}

int lk_loop_arm(struct lk_loop *loop, struct lk_timer *timer, uint64_t ms, struct lk_error *err)
{
    const uint64_t longest =
        (uint64_t)INT64_MAX / 2 / 1000000u; /* ms that fit a timespec for sure */
    struct lk_timer **heap;
    size_t cap;

    lk_loop_disarm(loop, timer);
    if (loop->timers == loop->heap_cap) {
        cap = loop->heap_cap ? loop->heap_cap * 2 : 16;
        heap = realloc(loop->heap, cap * sizeof(*heap));
        if (!heap)
            return lk_error_set(err, LK_MEMORY, "no memory for a timer");
        loop->heap = heap;
        loop->heap_cap = cap;
    }
    timer->due_ns = lk_now_ns() + (ms < longest ? ms : longest) * 1000000u;
    sift_up(loop, loop->timers++, timer);
    set_alarm(loop);
    return 0;
}

bool lk_timer_overdue(const struct lk_timer *timer)
{
    return timer->slot != 0 && timer->due_ns <= lk_now_ns();
}

void lk_loop_disarm(struct lk_loop *loop, struct lk_timer *timer)
{
    size_t at = timer->slot - 1;
    struct lk_timer *moved;

    if (timer->slot == 0)
        return;
    timer->slot = 0;
    moved = loop->heap[--loop->timers];
    if (moved == timer)
        return;
    if (at > 0 && loop->heap[(at - 1) / 2]->due_ns > moved->due_ns)
        sift_up(loop, at, moved);
    else
        sift_down(loop, at, moved);
}

/* Runs what was due at the start; a timer that arms itself again with 0 ms waits for the next step.
 */
static int run_timers(struct lk_loop *loop)
{
    uint64_t now = loop->timers ? lk_now_ns() : 0;
    size_t most = loop->timers;
    struct lk_timer *timer;
    int ran = 0;

    while (most-- > 0 && loop->timers > 0 && (timer = loop->heap[0])->due_ns <= now) {
        lk_loop_disarm(loop, timer);
        timer->expired(timer);
        ran++;
    }
    set_alarm(loop);
    return ran;
}

/* --- events --- */

/* An eventfd counts to 2^64 - 2: the write can't fail for want of room. Nothing else is left to do
 * if it fails. */
static void signal_fd(int fd)
{
    uint64_t one = 1;
    int saved = errno;

    if (write(fd, &one, sizeof one) < 0)
        errno = saved;
}

static void drain_fd(int fd)
{
    uint64_t count;
    int saved = errno;

    if (read(fd, &count, sizeof count) < 0)
        errno = saved;
}

void lk_loop_wake(struct lk_loop *loop)
{
    signal_fd(loop->event_fd);
}

void lk_loop_post(struct lk_loop *loop, struct lk_event *event)
{
    pthread_mutex_lock(&loop->mutex);
    if (!event->queued) {
        event->queued = true;
        event->next = NULL;
        *loop->last = event;
        loop->last = &event->next;
        loop->posted++;
        if (!loop->signalled)
            signal_fd(loop->event_fd);
        loop->signalled = true;
    }
    pthread_mutex_unlock(&loop->mutex);
}

bool lk_loop_unpost(struct lk_loop *loop, struct lk_event *event)
{
    struct lk_event **at;
    bool found = false;

    pthread_mutex_lock(&loop->mutex);
    for (at = &loop->first; event->queued && *at; at = &(*at)->next) {
        if (*at != event)
            continue;
        *at = event->next;
        if (!*at)
            loop->last = at;
        event->queued = false;
        loop->posted--;
        found = true;
        break;
    }
    pthread_mutex_unlock(&loop->mutex);
    return found;
}

static struct lk_event *next_event(struct lk_loop *loop)
{
    struct lk_event *event;

    pthread_mutex_lock(&loop->mutex);
    event = loop->first;
    if (event) {
        loop->first = event->next;
        if (!loop->first)
            loop->last = &loop->first;
        event->queued = false;
        loop->posted--;
    }
    pthread_mutex_unlock(&loop->mutex);
    return event;
}

/* Runs as many as were queued at the start; what they post is for the next step, and the descriptor
 * says so. */
static int run_events(struct lk_loop *loop)
{
    struct lk_event *event;
    size_t most;
    int ran = 0;

    pthread_mutex_lock(&loop->mutex);
    if (loop->signalled)
        drain_fd(loop->event_fd);
    loop->signalled = false;
    most = loop->posted;
    pthread_mutex_unlock(&loop->mutex);
    while (most-- > 0 && (event = next_event(loop))) {
        event->run(event);
        ran++;
    }
    return ran;
}

/* --- a step --- */

static int run_descriptors(struct lk_loop *loop, struct batch *batch)
{
    struct lk_watch *watch;
    uint32_t events;
    int i, ran = 0;

    for (i = 0; i < batch->count; i++) {
        if (batch->events[i].data.ptr == &loop->timer_fd) {
            drain_fd(loop->timer_fd);
            loop->alarm_ns = 0;
            continue;
        }
        if (batch->events[i].data.ptr == &loop->event_fd) {
            /* Under the lock, so that a post after it writes again. */
            pthread_mutex_lock(&loop->mutex);
            drain_fd(loop->event_fd);
            loop->signalled = false;
            pthread_mutex_unlock(&loop->mutex);
            continue;
        }
        watch = batch->events[i].data.ptr;
        if (!watch)
            continue;
        /* An earlier callback of this batch may have changed what this one waits for. */
        events = batch->events[i].events & (watch->events | EPOLLERR | EPOLLHUP);
        if (!events)
            continue;
        batch->events[i].data.ptr = NULL;
        watch->ready(watch, events);
        ran++;
    }
    return ran;
}

int lk_loop_step(struct lk_loop *loop, int timeout_ms, struct lk_error *err)
{
    struct batch batch;
    int ran;

    batch.count = epoll_wait(loop->epoll_fd, batch.events, BATCH, timeout_ms);
    if (batch.count < 0) {
        if (errno != EINTR)
            return lk_error_errno(err, errno, "the event loop can't wait");
        batch.count = 0;
    }
    batch.outer = loop->batches;
    loop->batches = &batch;
    ran = run_descriptors(loop, &batch);
    ran += run_timers(loop);
    ran += run_events(loop);
    loop->batches = batch.outer;
    return ran;
}
