/* SPDX-License-Identifier: MIT
 * test_pool.c - workers, stage threads, their signal masks, and the CPUs that a control group
 * leaves. */
#include "pool.h"

#include "cgroup.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- threads --- */

static int ran, at_once, most_at_once;

struct job {
    struct lk_job job; /* first */
    struct lk_pool *pool;
    int again;
};

static void run_job(struct lk_job *job)
{
    struct job *own = (struct job *)job;
    int now = __atomic_add_fetch(&at_once, 1, __ATOMIC_SEQ_CST);
    int most = __atomic_load_n(&most_at_once, __ATOMIC_SEQ_CST);

    while (now > most && !__atomic_compare_exchange_n(&most_at_once, &most, now, false,
                                                      __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        continue;
    usleep(50);
    __atomic_sub_fetch(&at_once, 1, __ATOMIC_SEQ_CST);
    __atomic_add_fetch(&ran, 1, __ATOMIC_SEQ_CST);
    if (own->again-- > 0)
        lk_pool_submit(own->pool, job, NULL);
    else
        free(own);
}

static void runs_all_jobs_before_it_goes(void **state)
{
    struct lk_pool *pool = lk_pool_new(3, NULL);
    int i;

    (void)state;
    ran = most_at_once = 0;
    assert_int_equal(lk_pool_width(pool), 3);
    for (i = 0; i < 500; i++) {
        struct job *job = calloc(1, sizeof *job);

        assert_non_null(job);
        job->job.run = run_job;
        job->pool = pool;
        job->again = i % 2;
        assert_int_equal(lk_pool_submit(pool, &job->job, NULL), 0);
    }
    lk_pool_free(pool);
    assert_int_equal(ran, 750);
    assert_in_range(most_at_once, 2, 3);
}

static int job_order[100], order_count;

static void note_order(struct lk_job *job)
{
    job_order[order_count++] = ((struct job *)job)->again;
}

static void jobs_are_first_in_first_out(void **state)
{
    struct lk_pool *pool = lk_pool_new(1, NULL);
    static struct job jobs[100];
    int i;

    (void)state;
    order_count = 0;
    for (i = 0; i < 100; i++) {
        jobs[i].job.run = note_order;
        jobs[i].again = i;
        assert_int_equal(lk_pool_submit(pool, &jobs[i].job, NULL), 0);
    }
    lk_pool_free(pool);
    for (i = 0; i < 100; i++)
        assert_int_equal(job_order[i], i);
}

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t gate_change = PTHREAD_COND_INITIALIZER;
static int arrived, done_count;
static bool open_gate, masked;
static char seen_name[16];

static void wait_at_gate(void *arg)
{
    sigset_t mask;
    char name[16];

    (void)arg;
    pthread_sigmask(SIG_BLOCK, NULL, &mask);
    pthread_getname_np(pthread_self(), name, sizeof name);
    pthread_mutex_lock(&gate);
    masked =
        sigismember(&mask, SIGPIPE) && sigismember(&mask, SIGTERM) && sigismember(&mask, SIGCHLD);
    memcpy(seen_name, name, sizeof name);
    arrived++;
    pthread_cond_broadcast(&gate_change);
    while (!open_gate)
        pthread_cond_wait(&gate_change, &gate);
    done_count++;
    pthread_cond_broadcast(&gate_change);
    pthread_mutex_unlock(&gate);
}

static void stages_block_side_by_side(void **state)
{
    struct lk_pool *pool = lk_pool_new(1, NULL);
    sigset_t before, after;
    int i, round;

    (void)state;
    pthread_sigmask(SIG_BLOCK, NULL, &before);
    for (round = 0; round < 2; round++) { /* the second time on the threads of the first */
        arrived = done_count = 0;
        open_gate = false;
        for (i = 0; i < 10; i++)
            assert_int_equal(
                lk_pool_stage(pool, "a-name-that-is-too-long", wait_at_gate, NULL, NULL), 0);
        pthread_mutex_lock(&gate);
        while (arrived < 10)
            pthread_cond_wait(&gate_change, &gate);
        open_gate = true;
        pthread_cond_broadcast(&gate_change);
        while (done_count < 10)
            pthread_cond_wait(&gate_change, &gate);
        assert_true(masked);
        assert_string_equal(seen_name, "a-name-that-is-");
        pthread_mutex_unlock(&gate);
    }
    lk_pool_free(pool);
    pthread_sigmask(SIG_BLOCK, NULL, &after);
    assert_int_equal(sigismember(&before, SIGPIPE), sigismember(&after, SIGPIPE));
    assert_int_equal(sigismember(&before, SIGTERM), sigismember(&after, SIGTERM));
}

static void start_stage(void *arg)
{
    struct lk_pool *pool = arg;

    usleep(1000);
    if (__atomic_add_fetch(&ran, 1, __ATOMIC_SEQ_CST) < 20)
        lk_pool_stage(pool, "again", start_stage, pool, NULL);
}

static void free_waits_for_stages_that_start_stages(void **state)
{
    struct lk_pool *pool = lk_pool_new(1, NULL);

    (void)state;
    ran = 0;
    assert_int_equal(lk_pool_stage(pool, NULL, start_stage, pool, NULL), 0);
    lk_pool_free(pool);
    assert_int_equal(ran, 20);
}

static void refuses_nonsense(void **state)
{
    struct lk_error err;

    (void)state;
    assert_null(lk_pool_new(-1, &err));
    assert_int_equal(err.kind, LK_USAGE);
    lk_pool_free(NULL);
}

/* --- CPUs --- */

static int pin(int cpus)
{
    cpu_set_t all, some;
    int i, n = 0;

    sched_getaffinity(0, sizeof all, &all);
    CPU_ZERO(&some);
    for (i = 0; i < CPU_SETSIZE && n < cpus; i++) {
        if (CPU_ISSET(i, &all)) {
            CPU_SET(i, &some);
            n++;
        }
    }
    sched_setaffinity(0, sizeof some, &some);
    return n;
}

static void affinity_counts(void **state)
{
    cpu_set_t all;
    struct lk_pool *pool;

    (void)state;
    sched_getaffinity(0, sizeof all, &all);
    assert_in_range(lk_pool_cpus(), 1, CPU_COUNT(&all));
    pin(1);
    assert_int_equal(lk_pool_cpus(), 1);
    pool = lk_pool_new(0, NULL);
    assert_int_equal(lk_pool_width(pool), 1);
    lk_pool_free(pool);
    sched_setaffinity(0, sizeof all, &all);
}

static char root[] = "/tmp/lunark-test-pool-XXXXXX";

/* Writes root/path, with its directories. */
static void put(const char *path, const char *text)
{
    char name[300];
    char *slash;
    int fd;

    snprintf(name, sizeof name, "%s%s", root, path);
    for (slash = name + strlen(root) + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = '\0';
        mkdir(name, 0700);
        *slash = '/';
    }
    fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

static void quota_of_version_2(void **state)
{
    (void)state;
    put("/proc/self/mountinfo", "24 1 0:22 / /sys rw - sysfs sysfs rw\n"
                                "30 24 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw\n");
    put("/proc/self/cgroup", "0::/a/b\n");
    put("/sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
    put("/sys/fs/cgroup/a/cpu.max", "max 100000\n");
    assert_int_equal(lk_cgroup_cpus(root), 0);
    put("/sys/fs/cgroup/a/b/cpu.max", "250000 100000\n");
    assert_int_equal(lk_cgroup_cpus(root), 3); /* 2.5 */
    put("/sys/fs/cgroup/a/cpu.max", "50000 100000\n");
    assert_int_equal(lk_cgroup_cpus(root), 1); /* the group above has less */
    put("/sys/fs/cgroup/a/cpu.max", "nonsense\n");
    assert_int_equal(lk_cgroup_cpus(root), 3);
    /* In a namespace of its own the process is at the top, where a container's limit is. */
    put("/proc/self/cgroup", "0::/\n");
    put("/sys/fs/cgroup/cpu.max", "400000 200000\n");
    assert_int_equal(lk_cgroup_cpus(root), 2);
    assert_int_equal(lk_cgroup_memory(root), 0);
    put("/sys/fs/cgroup/memory.max", "100663296\n");
    assert_int_equal(lk_cgroup_memory(root), 96 << 20);
    put("/proc/self/cgroup", "0::/a/b\n");
    put("/sys/fs/cgroup/a/b/memory.max", "max\n");
    assert_int_equal(lk_cgroup_memory(root), 96 << 20);
    put("/sys/fs/cgroup/a/memory.max", "67108864\n");
    assert_int_equal(lk_cgroup_memory(root), 64 << 20);
}

static void quota_of_version_1(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "9:memory:/m\n4:cpu,cpuacct:/docker/abc/job\n1:name=systemd:/\n");
    put("/proc/self/mountinfo",
        "33 31 0:30 /docker/abc /cg/cpuacct rw - cgroup cgroup rw,cpuacct\n"
        "32 31 0:29 /docker/abc /cg/a\\040b rw,nosuid master:7 - cgroup cgroup rw,cpu,cpuacct\n");
    put("/cg/a b/job/cpu.cfs_quota_us", "-1\n");
    put("/cg/a b/job/cpu.cfs_period_us", "100000\n");
    assert_int_equal(lk_cgroup_cpus(root), 0);
    put("/cg/a b/cpu.cfs_quota_us", "600001\n");
    put("/cg/a b/cpu.cfs_period_us", "100000\n");
    assert_int_equal(lk_cgroup_cpus(root), 7);
    put("/cg/a b/job/cpu.cfs_quota_us", "100000\n");
    assert_int_equal(lk_cgroup_cpus(root), 1);
    put("/proc/self/mountinfo", "34 31 0:31 /docker/abc /cg/mem rw - cgroup cgroup rw,memory\n");
    put("/proc/self/cgroup", "9:memory:/docker/abc/job\n");
    put("/cg/mem/job/memory.limit_in_bytes", "9223372036854771712\n");
    assert_int_equal(lk_cgroup_memory(root), 0);
    put("/cg/mem/memory.limit_in_bytes", "1048576\n");
    assert_int_equal(lk_cgroup_memory(root), 1 << 20);
    put("/proc/self/mountinfo",
        "32 31 0:29 /docker/abc /cg/a\\040b rw,nosuid master:7 - cgroup cgroup rw,cpu,cpuacct\n");
    /* The mount shows another root than the group's name says: the mount itself is the group. */
    put("/proc/self/cgroup", "4:cpu,cpuacct:/elsewhere\n");
    assert_int_equal(lk_cgroup_cpus(root), 7);
}

static void no_control_groups_are_no_limit(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "");
    assert_int_equal(lk_cgroup_cpus(root), 0);
    assert_int_equal(lk_cgroup_cpus("/nonexistent"), 0);
}

static int make_root(void **state)
{
    (void)state;
    return mkdtemp(root) ? 0 : -1;
}

static const char *const leftovers[] = {"proc/self/cgroup",
                                        "proc/self/mountinfo",
                                        "proc/self",
                                        "proc",
                                        "sys/fs/cgroup/a/b/cpu.max",
                                        "sys/fs/cgroup/a/b/memory.max",
                                        "sys/fs/cgroup/a/b",
                                        "sys/fs/cgroup/a/cpu.max",
                                        "sys/fs/cgroup/a/memory.max",
                                        "sys/fs/cgroup/a",
                                        "sys/fs/cgroup/cpu.max",
                                        "sys/fs/cgroup/memory.max",
                                        "sys/fs/cgroup",
                                        "sys/fs",
                                        "sys",
                                        "cg/a b/job/cpu.cfs_quota_us",
                                        "cg/a b/job/cpu.cfs_period_us",
                                        "cg/a b/job",
                                        "cg/a b/cpu.cfs_quota_us",
                                        "cg/a b/cpu.cfs_period_us",
                                        "cg/a b",
                                        "cg/mem/job/memory.limit_in_bytes",
                                        "cg/mem/job",
                                        "cg/mem/memory.limit_in_bytes",
                                        "cg/mem",
                                        "cg"};

static int remove_root(void **state)
{
    char name[300];
    size_t i;

    (void)state;
    for (i = 0; i < sizeof leftovers / sizeof leftovers[0]; i++) {
        snprintf(name, sizeof name, "%s/%s", root, leftovers[i]);
        remove(name);
    }
    return remove(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(runs_all_jobs_before_it_goes),
        cmocka_unit_test(jobs_are_first_in_first_out),
        cmocka_unit_test(stages_block_side_by_side),
        cmocka_unit_test(free_waits_for_stages_that_start_stages),
        cmocka_unit_test(refuses_nonsense),
        cmocka_unit_test(affinity_counts),
        cmocka_unit_test(quota_of_version_2),
        cmocka_unit_test(quota_of_version_1),
        cmocka_unit_test(no_control_groups_are_no_limit),
    };

    return cmocka_run_group_tests(tests, make_root, remove_root);
}
