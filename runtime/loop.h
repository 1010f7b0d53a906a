/* SPDX-License-Identifier: MIT
 * loop.h - the event loop: one epoll set with descriptors, timers and events posted by other
 * threads. Everything but lk_loop_post() and lk_loop_wake() belongs to the loop thread. A host
 * polls lk_loop_fd(). */
#ifndef LK_LOOP_H
#define LK_LOOP_H

#include "error.h"
#include <stddef.h>
#include <stdint.h>

struct lk_loop;

/* A descriptor that is watched. The caller owns the struct and the descriptor; the struct stays put
 * while watched. */
struct lk_watch {
    int fd;
    uint32_t events; /* EPOLLIN, EPOLLOUT */
    void (*ready)(struct lk_watch *watch,
                  uint32_t events); /* may add, change and remove any watch, itself too */
    void *arg;
    bool active; /* private */
};

/* A one-shot timer on the monotonic clock. The caller owns the struct; it stays put while armed. */
struct lk_timer {
    void (*expired)(struct lk_timer *timer); /* disarmed before it is called; may arm it again */
    void *arg;
    uint64_t due_ns; /* private */
    size_t slot;     /* private: place in the heap + 1, 0 = not armed */
};

/* Work for the loop thread, queued from any thread. The poster owns the struct until `run` is
 * called with it; it may be freed or posted again from inside `run`. */
struct lk_event {
    void (*run)(struct lk_event *event);
    struct lk_event *next; /* private */
    bool queued;           /* private */
};

struct lk_loop *lk_loop_new(struct lk_error *err);
/* No watch, timer or event may be left. */
void lk_loop_free(struct lk_loop *loop);
/* The epoll descriptor: readable when lk_loop_step(loop, 0) has something to do. */
int lk_loop_fd(const struct lk_loop *loop);
/* Runs what is due; waits at most timeout_ms for it (0 = not at all, -1 = for ever). Number of
 * callbacks run, or -1. */
int lk_loop_step(struct lk_loop *loop, int timeout_ms, struct lk_error *err);

int lk_loop_watch(struct lk_loop *loop, struct lk_watch *watch, struct lk_error *err);
/* Changes the events of an active watch. */
int lk_loop_rewatch(struct lk_loop *loop, struct lk_watch *watch, uint32_t events,
                    struct lk_error *err);
/* No-op if it is not active. After it, `ready` is not called again, not even for an event already
 * fetched. */
void lk_loop_unwatch(struct lk_loop *loop, struct lk_watch *watch);

/* Arms (again) to expire in `ms` milliseconds from now. -1 only without memory. */
int lk_loop_arm(struct lk_loop *loop, struct lk_timer *timer, uint64_t ms, struct lk_error *err);
void lk_loop_disarm(struct lk_loop *loop, struct lk_timer *timer);
/* True for an armed timer whose time has come, also while the loop has no chance to run it. */
bool lk_timer_overdue(const struct lk_timer *timer);

/* Any thread. Queues the event once (posting a queued event again is a no-op) and wakes the loop.
 * FIFO order. */
void lk_loop_post(struct lk_loop *loop, struct lk_event *event);
/* Any thread, and async-signal-safe: makes a waiting lk_loop_step return. */
void lk_loop_wake(struct lk_loop *loop);
/* Takes a queued event back, on the loop thread; true if it was queued. */
bool lk_loop_unpost(struct lk_loop *loop, struct lk_event *event);

/* Monotonic time in nanoseconds. Any thread. */
uint64_t lk_now_ns(void);

#endif
