/* SPDX-License-Identifier: MIT
 * test_loop.c - descriptors, timers and posted events of the event loop, and what callbacks may do
 * to each other. */
#include "loop.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/time.h>
#include <unistd.h>

static struct lk_loop *loop;

static int set_up(void **state)
{
    (void)state;
    loop = lk_loop_new(NULL);
    return loop ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    lk_loop_free(loop);
    return 0;
}

static bool host_sees_work(void)
{
    struct pollfd fd = {.fd = lk_loop_fd(loop), .events = POLLIN};

    return poll(&fd, 1, 0) == 1;
}

/* --- descriptors --- */

struct pipe_watch {
    struct lk_watch watch;
    int fds[2];
    int calls;
    uint32_t events;
};

static void count_ready(struct lk_watch *watch, uint32_t events)
{
    struct pipe_watch *p = watch->arg;

    p->calls++;
    p->events = events;
}

static void open_pipe(struct pipe_watch *p)
{
    *p = (struct pipe_watch){.calls = 0};
    assert_int_equal(pipe2(p->fds, O_CLOEXEC), 0);
    p->watch =
        (struct lk_watch){.fd = p->fds[0], .events = EPOLLIN, .ready = count_ready, .arg = p};
    assert_int_equal(lk_loop_watch(loop, &p->watch, NULL), 0);
}

static void close_pipe(struct pipe_watch *p)
{
    lk_loop_unwatch(loop, &p->watch);
    close(p->fds[0]);
    close(p->fds[1]);
}

static void watches_descriptors(void **state)
{
    struct pipe_watch p;

    (void)state;
    open_pipe(&p);
    assert_int_equal(lk_loop_step(loop, 0, NULL), 0);
    assert_false(host_sees_work());
    assert_int_equal(write(p.fds[1], "x", 1), 1);
    assert_true(host_sees_work());
    assert_int_equal(lk_loop_step(loop, -1, NULL), 1);
    assert_int_equal(p.calls, 1);
    assert_int_equal(p.events, EPOLLIN);
    assert_int_equal(lk_loop_rewatch(loop, &p.watch, 0, NULL), 0);
    assert_int_equal(lk_loop_step(loop, 0, NULL), 0);
    assert_int_equal(lk_loop_rewatch(loop, &p.watch, EPOLLIN, NULL), 0);
    assert_int_equal(lk_loop_step(loop, 0, NULL), 1);
    lk_loop_unwatch(loop, &p.watch);
    lk_loop_unwatch(loop, &p.watch);
    assert_int_equal(lk_loop_step(loop, 0, NULL), 0);
    assert_int_equal(p.calls, 2);
    close_pipe(&p);
}

static void says_what_cannot_be_watched(void **state)
{
    struct lk_watch watch = {.fd = -1, .events = EPOLLIN, .ready = count_ready};
    struct lk_error err;

    (void)state;
    assert_int_equal(lk_loop_watch(loop, &watch, &err), -1);
    assert_string_equal(err.message, "descriptor -1 can't be watched: bad file descriptor");
    assert_int_equal(lk_loop_rewatch(loop, &watch, EPOLLIN, &err), -1);
    assert_int_equal(err.kind, LK_USAGE);
}

/* Each of these, whichever is called first, removes and frees the other: the events of both were
 * fetched together. */
struct rival {
    struct lk_watch watch;
    struct rival *other;
};

static int rival_calls;

static void kill_other(struct lk_watch *watch, uint32_t events)
{
    struct rival *me = watch->arg;

    (void)events;
    rival_calls++;
    if (me->other) {
        lk_loop_unwatch(loop, &me->other->watch);
        close(me->other->watch.fd);
        free(me->other);
        me->other = NULL;
    }
}

static struct rival *new_rival(int fd)
{
    struct rival *rival = calloc(1, sizeof *rival);

    assert_non_null(rival);
    rival->watch =
        (struct lk_watch){.fd = fd, .events = EPOLLIN, .ready = kill_other, .arg = rival};
    assert_int_equal(lk_loop_watch(loop, &rival->watch, NULL), 0);
    return rival;
}

static void removed_watches_are_not_called(void **state)
{
    int a[2], b[2];
    struct rival *first, *second, *left;

    (void)state;
    assert_int_equal(pipe2(a, O_CLOEXEC), 0);
    assert_int_equal(pipe2(b, O_CLOEXEC), 0);
    first = new_rival(a[0]);
    second = new_rival(b[0]);
    first->other = second;
    second->other = first;
    assert_int_equal(write(a[1], "x", 1), 1);
    assert_int_equal(write(b[1], "x", 1), 1);
    rival_calls = 0;
    assert_int_equal(lk_loop_step(loop, 0, NULL), 1);
    assert_int_equal(rival_calls, 1);
    /* Which one was called is the kernel's choice; the one that is left has no other. */
    left = fcntl(a[0], F_GETFD) >= 0 ? first : second;
    lk_loop_unwatch(loop, &left->watch);
    close(left->watch.fd);
    free(left);
    close(a[1]);
    close(b[1]);
}

static struct pipe_watch nested[2];
static int nested_depth;

static void step_inside(struct lk_watch *watch, uint32_t events)
{
    struct pipe_watch *p = watch->arg;

    (void)events;
    p->calls++;
    if (nested_depth++ > 0)
        return;
    /* The inner step sees both again; then both go, and the outer batch must not call the second.
     */
    lk_loop_step(loop, 0, NULL);
    lk_loop_unwatch(loop, &nested[0].watch);
    lk_loop_unwatch(loop, &nested[1].watch);
}

static void steps_can_nest(void **state)
{
    int i;

    (void)state;
    nested_depth = 0;
    for (i = 0; i < 2; i++) {
        open_pipe(&nested[i]);
        nested[i].watch.ready = step_inside;
        assert_int_equal(write(nested[i].fds[1], "x", 1), 1);
    }
    lk_loop_step(loop, 0, NULL);
    assert_int_equal(nested[0].calls + nested[1].calls, 3);
    close_pipe(&nested[0]);
    close_pipe(&nested[1]);
}

/* --- timers --- */

static int order[64], expired_count;

static void note_expired(struct lk_timer *timer)
{
    assert_int_equal(timer->slot, 0);
    order[expired_count++ % 64] = (int)(intptr_t)timer->arg;
}

static void timers_expire_in_order(void **state)
{
    static const int ms[] = {30, 5, 20, 10, 25, 1, 15};
    struct lk_timer timers[7];
    uint64_t start = lk_now_ns();
    int i;

    (void)state;
    expired_count = 0;
    for (i = 0; i < 7; i++) {
        timers[i] = (struct lk_timer){.expired = note_expired, .arg = (void *)(intptr_t)ms[i]};
        assert_int_equal(lk_loop_arm(loop, &timers[i], (uint64_t)ms[i], NULL), 0);
    }
    lk_loop_disarm(loop, &timers[2]);
    lk_loop_disarm(loop, &timers[2]);
    lk_loop_arm(loop, &timers[3], 40, NULL); /* was 10 */
    assert_false(host_sees_work());
    while (expired_count < 6)
        assert_true(lk_loop_step(loop, 1000, NULL) >= 0);
    assert_true(lk_now_ns() - start >= 40 * 1000000u);
    assert_int_equal(order[0], 1);
    assert_int_equal(order[1], 5);
    assert_int_equal(order[2], 15);
    assert_int_equal(order[3], 25);
    assert_int_equal(order[4], 30);
    assert_int_equal(order[5], 10);
    assert_int_equal(lk_loop_step(loop, 0, NULL), 0);
}

static void timer_shows_on_the_descriptor(void **state)
{
    struct lk_timer timer = {.expired = note_expired};
    struct pollfd fd = {.fd = lk_loop_fd(loop), .events = POLLIN};

    (void)state;
    expired_count = 0;
    lk_loop_arm(loop, &timer, 1, NULL);
    assert_int_equal(poll(&fd, 1, 2000), 1);
    assert_int_equal(lk_loop_step(loop, 0, NULL), 1);
    assert_int_equal(expired_count, 1);
    assert_false(host_sees_work());
}

static void arm_again(struct lk_timer *timer)
{
    expired_count++;
    lk_loop_arm(loop, timer, 0, NULL);
}

static void timer_that_arms_itself_does_not_hold_the_loop(void **state)
{
    struct lk_timer timer = {.expired = arm_again};
    int i;

    (void)state;
    expired_count = 0;
    lk_loop_arm(loop, &timer, 0, NULL);
    for (i = 1; i <= 5; i++) {
        assert_int_equal(lk_loop_step(loop, 1000, NULL), 1);
        assert_int_equal(expired_count, i);
    }
    lk_loop_disarm(loop, &timer);
    lk_loop_arm(loop, &timer, UINT64_MAX, NULL);
    assert_int_equal(lk_loop_step(loop, 0, NULL), 0);
    lk_loop_disarm(loop, &timer);
}

static void heap_survives_random_use(void **state)
{
    enum { COUNT = 500 };
    static struct lk_timer timers[COUNT];
    unsigned seed = 1;
    uint64_t last = 0;
    int i, left = 0;

    (void)state;
    expired_count = 0;
    for (i = 0; i < 5000; i++) {
        struct lk_timer *timer = &timers[rand_r(&seed) % COUNT];

        timer->expired = note_expired;
        if (rand_r(&seed) % 3)
            lk_loop_arm(loop, timer, (uint64_t)(100000 + rand_r(&seed) % 1000), NULL);
        else
            lk_loop_disarm(loop, timer);
    }
    /* What the heap says is first must be first: take it off by name until nothing is left. */
    for (;;) {
        struct lk_timer *first = NULL;

        for (i = 0; i < COUNT; i++)
            if (timers[i].slot == 1)
                first = &timers[i];
        if (!first)
            break;
        assert_true(first->due_ns >= last);
        last = first->due_ns;
        lk_loop_disarm(loop, first);
        left++;
    }
    assert_true(left > 100);
    for (i = 0; i < COUNT; i++)
        assert_int_equal(timers[i].slot, 0);
}

/* --- events --- */

struct counted {
    struct lk_event event; /* first */
    int number;
    int runs;
};

static void count_run(struct lk_event *event)
{
    struct counted *c = (struct counted *)event;

    c->runs++;
    order[expired_count++ % 64] = c->number;
}

static void post_again(struct lk_event *event)
{
    count_run(event);
    lk_loop_post(loop, event);
}

static void free_event(struct lk_event *event)
{
    count_run(event);
    free(event);
}

static void events_run_in_order_and_once(void **state)
{
    struct counted a = {.event.run = count_run, .number = 1},
                   b = {.event.run = count_run, .number = 2};
    struct counted *c = calloc(1, sizeof *c);

    (void)state;
    assert_non_null(c);
    c->event.run = free_event;
    c->number = 3;
    expired_count = 0;
    lk_loop_post(loop, &a.event);
    lk_loop_post(loop, &b.event);
    lk_loop_post(loop, &a.event);
    lk_loop_post(loop, &c->event);
    assert_true(host_sees_work());
    assert_int_equal(lk_loop_step(loop, -1, NULL), 3);
    assert_int_equal(order[0], 1);
    assert_int_equal(order[1], 2);
    assert_int_equal(order[2], 3);
    assert_int_equal(a.runs, 1);
    assert_false(host_sees_work());
}

static void events_can_be_taken_back(void **state)
{
    struct counted a = {.event.run = count_run}, b = {.event.run = count_run},
                   c = {.event.run = count_run};

    (void)state;
    lk_loop_post(loop, &a.event);
    lk_loop_post(loop, &b.event);
    lk_loop_post(loop, &c.event);
    assert_true(lk_loop_unpost(loop, &c.event));
    assert_true(lk_loop_unpost(loop, &a.event));
    assert_false(lk_loop_unpost(loop, &a.event));
    lk_loop_post(loop, &c.event);
    assert_int_equal(lk_loop_step(loop, 0, NULL), 2);
    assert_int_equal(a.runs, 0);
    assert_int_equal(b.runs, 1);
    assert_int_equal(c.runs, 1);
}

static void event_that_posts_itself_does_not_hold_the_loop(void **state)
{
    struct counted a = {.event.run = post_again};

    (void)state;
    lk_loop_post(loop, &a.event);
    assert_int_equal(lk_loop_step(loop, 0, NULL), 1);
    assert_true(host_sees_work());
    assert_int_equal(lk_loop_step(loop, -1, NULL), 1);
    assert_true(lk_loop_unpost(loop, &a.event));
    lk_loop_step(loop, 0, NULL); /* a wake-up for nothing is allowed */
    assert_int_equal(a.runs, 2);
    assert_false(host_sees_work());
}

static void *wake_soon(void *arg)
{
    usleep(20000);
    lk_loop_wake(arg);
    return NULL;
}

static void wakes_from_another_thread(void **state)
{
    pthread_t thread;

    (void)state;
    pthread_create(&thread, NULL, wake_soon, loop);
    assert_int_equal(lk_loop_step(loop, 10000, NULL), 0);
    pthread_join(thread, NULL);
    assert_false(host_sees_work());
}

enum { POSTERS = 3, POSTS = 3000 };

struct poster {
    struct counted events[8];
    pthread_t thread;
};

static int run_total;

static void count_total(struct lk_event *event)
{
    (void)event;
    run_total++;
}

static void free_and_count(struct lk_event *event)
{
    run_total++;
    free(event);
}

static void *post_many(void *arg)
{
    struct poster *poster = arg;
    int i;

    for (i = 0; i < POSTS; i++) {
        struct lk_event *event = calloc(1, sizeof *event);

        lk_loop_post(loop, &poster->events[i % 8].event); /* may still be queued */
        if (event) {
            event->run = free_and_count;
            lk_loop_post(loop, event);
        }
    }
    return NULL;
}

static void threads_post_and_nothing_is_lost(void **state)
{
    static struct poster posters[POSTERS];
    int i, j;

    (void)state;
    run_total = 0;
    for (i = 0; i < POSTERS; i++) {
        for (j = 0; j < 8; j++)
            posters[i].events[j].event.run = count_total;
        pthread_create(&posters[i].thread, NULL, post_many, &posters[i]);
    }
    while (run_total < POSTERS * POSTS)
        assert_true(lk_loop_step(loop, 5000, NULL) >= 0);
    for (i = 0; i < POSTERS; i++)
        pthread_join(posters[i].thread, NULL);
    while (lk_loop_step(loop, 0, NULL) > 0)
        continue;
    assert_true(run_total >= POSTERS * POSTS + POSTERS * 8);
}

static void ignore(int signum)
{
    (void)signum;
}

static void a_signal_ends_a_wait(void **state)
{
    struct sigaction action = {.sa_handler = ignore}, before;
    struct itimerval soon = {.it_value = {.tv_usec = 20000}};

    (void)state;
    sigaction(SIGALRM, &action, &before);
    setitimer(ITIMER_REAL, &soon, NULL);
    assert_int_equal(lk_loop_step(loop, 10000, NULL), 0);
    sigaction(SIGALRM, &before, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(watches_descriptors, set_up, tear_down),
        cmocka_unit_test_setup_teardown(says_what_cannot_be_watched, set_up, tear_down),
        cmocka_unit_test_setup_teardown(removed_watches_are_not_called, set_up, tear_down),
        cmocka_unit_test_setup_teardown(steps_can_nest, set_up, tear_down),
        cmocka_unit_test_setup_teardown(timers_expire_in_order, set_up, tear_down),
        cmocka_unit_test_setup_teardown(timer_shows_on_the_descriptor, set_up, tear_down),
        cmocka_unit_test_setup_teardown(timer_that_arms_itself_does_not_hold_the_loop, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(heap_survives_random_use, set_up, tear_down),
        cmocka_unit_test_setup_teardown(events_run_in_order_and_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(events_can_be_taken_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(event_that_posts_itself_does_not_hold_the_loop, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(wakes_from_another_thread, set_up, tear_down),
        cmocka_unit_test_setup_teardown(threads_post_and_nothing_is_lost, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_signal_ends_a_wait, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
