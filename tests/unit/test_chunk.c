/* SPDX-License-Identifier: MIT
 * test_chunk.c - pools of slabs: bounded, used again, blocking takers, and gone with the last
 * chunk. */
#include "chunk.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

static void maps_slabs_when_needed(void **state)
{
    struct lk_slabs *slabs = lk_slabs_new(100000, 3, NULL);
    struct lk_chunk *a, *b, *c;
    struct lk_error err;

    (void)state;
    assert_int_equal(lk_slabs_size(slabs), 100000);
    assert_int_equal(lk_slabs_mapped(slabs), 0);
    a = lk_slabs_take(slabs, &err);
    assert_non_null(a);
    assert_int_equal(a->len, 0);
    assert_int_equal(a->cap, 100000);
    memset(a->data, 1, a->cap);
    assert_int_equal(lk_slabs_mapped(slabs), 100000);
    a->len = 5;
    a->zeros = true;
    lk_chunk_unref(a);
    b = lk_slabs_take(slabs, &err);
    assert_ptr_equal(a, b); /* the last one back is the first one out */
    assert_int_equal(b->len, 0);
    assert_false(b->zeros);
    c = lk_slabs_take(slabs, &err);
    assert_int_equal(lk_slabs_mapped(slabs), 200000);
    lk_chunk_unref(b);
    lk_chunk_unref(c);
    assert_ptr_equal(lk_slabs_take(slabs, &err), c);
    lk_chunk_unref(c);
    lk_slabs_free(slabs);
    lk_slabs_free(NULL);
}

static void refuses_nonsense(void **state)
{
    struct lk_error err;

    (void)state;
    assert_null(lk_slabs_new(0, 1, &err));
    assert_int_equal(err.kind, LK_USAGE);
    assert_null(lk_slabs_new(1, 0, &err));
    assert_null(lk_chunk_alloc(SIZE_MAX - 10, &err));
    assert_int_equal(err.kind, LK_MEMORY);
}

static void outlives_its_owner(void **state)
{
    struct lk_slabs *slabs = lk_slabs_new(4096, 2, NULL);
    struct lk_chunk *a = lk_slabs_take(slabs, NULL), *b = lk_slabs_take(slabs, NULL);

    (void)state;
    lk_slabs_free(slabs);
    memset(a->data, 1, a->cap);
    lk_chunk_unref(a);
    memset(b->data, 2, b->cap);
    lk_chunk_ref(b);
    lk_chunk_unref(b);
    assert_int_equal(b->data[4095], 2);
    lk_chunk_unref(b);
}

static int meta_freed;

static void free_meta(struct lk_chunk_meta *meta)
{
    (void)meta;
    meta_freed++;
}

static void frees_meta_with_the_last_reference(void **state)
{
    static struct lk_chunk_meta meta = {free_meta};
    struct lk_slabs *slabs = lk_slabs_new(4096, 1, NULL);
    struct lk_chunk *chunk = lk_slabs_take(slabs, NULL);

    (void)state;
    meta_freed = 0;
    chunk->meta = &meta;
    lk_chunk_ref(chunk);
    lk_chunk_unref(chunk);
    assert_int_equal(meta_freed, 0);
    lk_chunk_unref(chunk);
    assert_int_equal(meta_freed, 1);
    chunk = lk_slabs_take(slabs, NULL);
    assert_null(chunk->meta);
    lk_chunk_unref(chunk);
    lk_slabs_free(slabs);
}

static void allocates_outside_pools(void **state)
{
    static const size_t sizes[] = {0, 1, 4096, 65535, 65536, 1000000};
    size_t i;

    (void)state;
    for (i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct lk_chunk *chunk = lk_chunk_alloc(sizes[i], NULL);

        assert_non_null(chunk);
        assert_int_equal(chunk->cap, sizes[i]);
        memset(chunk->data, 7, sizes[i]);
        lk_chunk_unref(chunk);
    }
    lk_chunk_unref(NULL);
}

static int told;

static void count_call(void *arg)
{
    (*(int *)arg)++;
}

static void tells_when_a_slab_is_free(void **state)
{
    struct lk_slabs *slabs = lk_slabs_new(4096, 1, NULL);
    struct lk_chunk *chunk = lk_slabs_take(slabs, NULL);
    struct lk_error err = {.kind = LK_IO};
    int other = 0;

    (void)state;
    told = 0;
    assert_null(lk_slabs_try(slabs, count_call, &told, &err));
    assert_int_equal(err.kind, LK_OK);
    assert_null(lk_slabs_try(slabs, count_call, &told, &err));
    assert_null(lk_slabs_try(slabs, count_call, &other, &err));
    lk_slabs_untry(slabs, count_call, &other);
    assert_int_equal(told, 0);
    lk_chunk_unref(chunk);
    assert_int_equal(told, 1); /* once, though asked twice */
    assert_int_equal(other, 0);
    chunk = lk_slabs_try(slabs, count_call, &told, &err);
    assert_non_null(chunk);
    assert_null(lk_slabs_try(slabs, count_call, &told, &err));
    lk_slabs_close(slabs); /* closing is news too */
    assert_int_equal(told, 2);
    assert_null(lk_slabs_try(slabs, count_call, &told, &err));
    assert_int_equal(err.kind, LK_CANCELLED);
    lk_chunk_unref(chunk);
    lk_slabs_free(slabs);
    assert_int_equal(told, 2);
}

static void *taker(void *arg)
{
    struct lk_error err = {.kind = LK_OK};
    struct lk_chunk *chunk = lk_slabs_take(arg, &err);

    if (chunk) {
        lk_chunk_unref(chunk);
        return (void *)1;
    }
    return (void *)(intptr_t)(err.kind == LK_CANCELLED ? 2 : 3);
}

static void closing_wakes_takers(void **state)
{
    void (*const ways[])(struct lk_slabs *) = {lk_slabs_close, lk_slabs_free};
    size_t i;

    (void)state;
    for (i = 0; i < 2; i++) {
        struct lk_slabs *slabs = lk_slabs_new(4096, 1, NULL);
        struct lk_chunk *chunk = lk_slabs_take(slabs, NULL);
        pthread_t thread;
        void *result;

        pthread_create(&thread, NULL, taker, slabs);
        usleep(20000);
        ways[i](slabs);
        pthread_join(thread, &result);
        assert_ptr_equal(result, (void *)2);
        lk_chunk_unref(chunk);
        if (i == 0)
            lk_slabs_free(slabs);
    }
}

static void giving_back_wakes_a_taker(void **state)
{
    struct lk_slabs *slabs = lk_slabs_new(4096, 1, NULL);
    struct lk_chunk *chunk = lk_slabs_take(slabs, NULL);
    pthread_t thread;
    void *result;

    (void)state;
    pthread_create(&thread, NULL, taker, slabs);
    usleep(20000);
    lk_chunk_unref(chunk);
    pthread_join(thread, &result);
    assert_ptr_equal(result, (void *)1);
    lk_slabs_free(slabs);
}

enum { ROUNDS = 5000 };

static void *churn(void *arg)
{
    struct lk_slabs *slabs = arg;
    int calls = 0, i;

    for (i = 0; i < ROUNDS; i++) {
        struct lk_chunk *chunk =
            i % 3 ? lk_slabs_take(slabs, NULL) : lk_slabs_try(slabs, count_call, &calls, NULL);

        if (chunk) {
            chunk->data[0] = (unsigned char)i;
            lk_chunk_unref(chunk);
        }
        lk_slabs_untry(slabs, count_call, &calls);
        if (i % 64 == 0)
            sched_yield();
    }
    return NULL;
}

static void many_threads_share_a_pool(void **state)
{
    struct lk_slabs *slabs = lk_slabs_new(4096, 2, NULL);
    pthread_t threads[4];
    int i;

    (void)state;
    for (i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, churn, slabs);
    for (i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    assert_true(lk_slabs_mapped(slabs) <= 2 * 4096);
    lk_slabs_free(slabs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(maps_slabs_when_needed),
        cmocka_unit_test(refuses_nonsense),
        cmocka_unit_test(outlives_its_owner),
        cmocka_unit_test(frees_meta_with_the_last_reference),
        cmocka_unit_test(allocates_outside_pools),
        cmocka_unit_test(tells_when_a_slab_is_free),
        cmocka_unit_test(closing_wakes_takers),
        cmocka_unit_test(giving_back_wakes_a_taker),
        cmocka_unit_test(many_threads_share_a_pool),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
