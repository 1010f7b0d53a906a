/* SPDX-License-Identifier: MIT
 * check_plan.c - what a check is to read next: the tables of index blocks, from the caller to the
 * feeder. Owns those that wait, under the check's mutex. Any thread. */
#include "check_internal.h"

#include "index_reader.h"
#include <stdlib.h>
#include <string.h>

enum { PLANS_LOW = 4, ROWS_FIRST = 64 };

void lk_check_plan_free(struct lk_check_plan *plan)
{
    if (plan) {
        free(plan->bytes);
        free(plan->rows);
        free(plan);
    }
}

void lk_check_tell(struct lk_check *c)
{
    if (c->asked) {
        c->asked = false;
        if (c->news) {
            c->news(c->arg);
        }
    }
}

struct lk_check_plan *lk_check_next_plan(struct lk_check *c)
{
    pthread_mutex_lock(&c->mutex);
    while (!c->plans && !c->finished && !c->stopped) {
        pthread_cond_wait(&c->change, &c->mutex);
    }
    struct lk_check_plan *plan = c->stopped ? NULL : c->plans;
    if (plan) {
        c->plans = plan->next;
        c->last_plan = c->plans ? c->last_plan : NULL;
        c->plan_count--;
        if (c->plan_count < PLANS_LOW && !c->finished) {
            lk_check_tell(c);
        }
    }
    pthread_mutex_unlock(&c->mutex);
    return plan;
}

static int add_row(void *arg, uint64_t at, uint64_t size, uint64_t raw_at, uint64_t raw)
{
    struct lk_check_plan *plan = arg;
    (void)raw_at;

    if (plan->count % ROWS_FIRST == 0) {
        size_t room = plan->count + ROWS_FIRST;
        struct lk_check_row *rows = realloc(plan->rows, room * sizeof(*rows));
        if (!rows) {
            return 1;
        }
        plan->rows = rows;
    }
    /* What is out of range is a size of 0, which no member has. */
    bool sane = at <= INT64_MAX && size <= LK_MEMBER_MAX && raw <= LK_MEMBER_SIZE;
    plan->rows[plan->count++] = (struct lk_check_row){.at = at,
                                                      .size = sane ? (uint32_t)size : 0,
                                                      .raw = sane ? (uint32_t)raw : 0,
                                                      .entry_at = LK_NO_ENTRY};
    return 0;
}

static int row_order(const void *key, const void *row)
{
    uint64_t at = *(const uint64_t *)key, other = ((const struct lk_check_row *)row)->at;

    return at < other ? -1 : at > other;
}

/* The first record of a member says where its first entry begins. */
static int note_record(void *arg, const struct lk_record *record)
{
    struct lk_check_plan *plan = arg;

    if (record->member == plan->last || plan->count == 0) {
        return 0;
    }
    plan->last = record->member;
    struct lk_check_row *row =
        bsearch(&record->member, plan->rows, plan->count, sizeof(*row), row_order);
    if (row && row->entry_at == LK_NO_ENTRY && record->header_at < row->raw) {
        row->entry_at = (uint32_t)record->header_at;
    }
    return 0;
}

static struct lk_check_plan *make_plan(const void *bytes, size_t len, uint64_t at,
                                       struct lk_error *err)
{
    struct lk_check_plan *plan = calloc(1, sizeof(*plan));
    struct lk_index_visitor visitor = {.member = add_row, .record = note_record, .arg = plan};

    if (!plan || !(plan->bytes = malloc(len))) {
        lk_error_set(err, LK_MEMORY, "no memory for an index block");
        lk_check_plan_free(plan);
        return NULL;
    }
    memcpy(plan->bytes, bytes, len);
    plan->len = len;
    plan->at = at;
    plan->last = UINT64_MAX;
    int rc = lk_block_read(bytes, len, &visitor, err);
    if (rc != 0) {
        if (rc > 0) {
            lk_error_set(err, LK_MEMORY, "no memory for an index block");
        }
        lk_check_plan_free(plan);
        return NULL;
    }
    return plan;
}

static void add_plan(struct lk_check *c, struct lk_check_plan *plan)
{
    pthread_mutex_lock(&c->mutex);
    if (c->last_plan) {
        c->last_plan->next = plan;
    } else {
        c->plans = plan;
    }
    c->last_plan = plan;
    c->plan_count++;
    pthread_cond_broadcast(&c->change);
    pthread_mutex_unlock(&c->mutex);
}

int lk_check_walk(struct lk_check *c, uint64_t until, struct lk_error *err)
{
    struct lk_check_plan *plan = calloc(1, sizeof(*plan));

    if (!plan) {
        return lk_error_set(err, LK_MEMORY, "no memory to check an archive");
    }
    plan->at = until;
    add_plan(c, plan);
    return 0;
}

int lk_check_block(struct lk_check *c, const void *bytes, size_t len, uint64_t at,
                   uint32_t first_row, uint32_t rows, struct lk_error *err)
{
    struct lk_check_plan *plan = make_plan(bytes, len, at, err);

    if (!plan) {
        return -1;
    }
    plan->read = !c->options.sample;
    if (c->options.sample) {
        size_t skipped = first_row < plan->count ? first_row : plan->count;
        plan->count -= skipped;
        memmove(plan->rows, plan->rows + skipped, plan->count * sizeof(plan->rows[0]));
        plan->count = rows < plan->count ? rows : plan->count;
    }
    add_plan(c, plan);
    return 0;
}

void lk_check_finish(struct lk_check *c)
{
    pthread_mutex_lock(&c->mutex);
    c->finished = true;
    pthread_cond_broadcast(&c->change);
    pthread_mutex_unlock(&c->mutex);
}

int lk_check_ask(struct lk_check *c)
{
    int answer = 0;

    pthread_mutex_lock(&c->mutex);
    if (c->ended) {
        answer = LK_CHECK_ENDED;
    } else if (!c->finished && !c->stopped && c->plan_count < PLANS_LOW) {
        answer = LK_CHECK_MORE;
    }
    c->asked = answer == 0;
    pthread_mutex_unlock(&c->mutex);
    return answer;
}
