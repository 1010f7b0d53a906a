/* SPDX-License-Identifier: MIT
 * check_read.c - the feeder of a check: cuts the input into members, by the tables of index blocks
 * or, where there is none, by the members' own headers. Behind damage the tables say where the next
 * member is; without one, the next thing that looks like a header is taken. One stage thread. */
#include "check_internal.h"

#include "index_writer.h"
#include <stdlib.h>
#include <string.h>

static const char CUT_OFF[] = "the archive ends before it, or in it";
static const char BAD_HEADER[] = "its header is damaged";
static const char NOT_EMPTY[] = "it should be empty to other readers";
static const char NO_MEMBER[] = "no member begins here";

/* --- the input --- */

/* Makes the next bytes of the chunks available: 1, 0 at the end, or -1. */
static int more(struct lk_check *c, struct lk_error *err)
{
    struct lk_check_source *s = &c->source;

    while (!s->ended && (!s->chunk || s->at == s->chunk->len)) {
        lk_chunk_unref(s->chunk);
        s->chunk = NULL;
        s->at = 0;
        int rc = lk_stream_read(c->stream, &s->chunk, err);
        if (rc < 0) {
            return -1;
        }
        s->ended = rc == LK_STREAM_DONE;
        if (!s->ended) {
            __atomic_add_fetch(&c->bytes, s->chunk->len, __ATOMIC_RELAXED);
        }
    }
    return !s->ended;
}

/* Takes up to len bytes (to nowhere if out is NULL), first those that were looked at; how many, or
 * -1. */
static int64_t take(struct lk_check *c, unsigned char *out, uint64_t len, struct lk_error *err)
{
    struct lk_check_source *s = &c->source;
    uint64_t got = s->ahead_len < len ? s->ahead_len : len;

    if (got > 0) {
        if (out) {
            memcpy(out, s->ahead, (size_t)got);
        }
        s->ahead_len -= (size_t)got;
        memmove(s->ahead, s->ahead + got, s->ahead_len);
    }
    while (got < len) {
        int rc = more(c, err);
        if (rc < 0) {
            return -1;
        }
        if (rc == 0) {
            break;
        }
        size_t n = s->chunk->len - s->at;
        n = n < len - got ? n : (size_t)(len - got);
        if (out) {
            memcpy(out + got, s->chunk->data + s->at, n);
        }
        s->at += n;
        got += n;
    }
    s->offset += got;
    return (int64_t)got;
}

/* Fills `ahead` as far as the input goes. */
static int look_ahead(struct lk_check *c, struct lk_error *err)
{
    struct lk_check_source *s = &c->source;

    while (s->ahead_len < sizeof(s->ahead)) {
        int rc = more(c, err);
        if (rc <= 0) {
            return rc;
        }
        size_t n = s->chunk->len - s->at, room = sizeof(s->ahead) - s->ahead_len;
        n = n < room ? n : room;
        memcpy(s->ahead + s->ahead_len, s->chunk->data + s->at, n);
        s->at += n;
        s->ahead_len += n;
    }
    return 0;
}

static void note(struct lk_check *c, uint64_t first, uint64_t last, const char *message)
{
    struct lk_check_slot *slot = lk_check_claim(c, LK_CHECK_NOTE);

    slot->at = first;
    slot->last = last;
    slot->message = message;
    lk_check_pass(c, slot);
}

/* --- data members --- */

/* Time 0, XFL 0, OS 255: what every member of ours has. */
static bool canonical(const unsigned char *header)
{
    static const unsigned char wanted[6] = {0, 0, 0, 0, 0, 255};

    return memcmp(header + 4, wanted, sizeof(wanted)) == 0;
}

/* The header in slot->in, compared with the row. */
static const char *check_header(struct lk_check_slot *slot)
{
    struct lk_member m;
    const unsigned char *in = slot->in->data;

    if (!lk_member_parse(in, &m) || m.type != LK_MEMBER_DATA || !canonical(in) ||
        m.size != slot->row.size || m.raw != slot->row.raw) {
        return BAD_HEADER;
    }
    slot->header = m.header;
    slot->starts = m.flags & LK_MEMBER_STARTS;
    return NULL;
}

/* Reads a member of row->size bytes and gives it to a worker; with what is wrong already, on. */
static int feed_row(struct lk_check *c, const struct lk_check_row *row, bool in_table,
                    struct lk_error *err)
{
    struct lk_chunk *in = lk_slabs_take(c->in_slabs, err);
    int64_t got = in ? take(c, in->data, row->size, err) : -1;

    if (got < 0) {
        lk_chunk_unref(in);
        return -1;
    }
    struct lk_check_slot *slot = lk_check_claim(c, LK_CHECK_DATA);
    slot->row = *row;
    slot->in_table = in_table;
    slot->at = row->at;
    slot->last = row->at + row->size - 1;
    slot->in = in;
    slot->message = got < row->size ? CUT_OFF : check_header(slot);
    if (slot->message) {
        slot->in = NULL;
        lk_chunk_unref(in);
        lk_check_pass(c, slot);
        return 0;
    }
    if (row->raw > 0 && !(slot->out = lk_slabs_take(c->out_slabs, err))) {
        lk_chunk_unref(in);
        return -1;
    }
    return lk_check_submit(c, slot, err);
}

/* --- members without data --- */

/* Whether a member that holds no data is one that holds none for other readers, too. */
static bool is_empty(const unsigned char *bytes, const struct lk_member *m)
{
    static const unsigned char wanted[LK_EMPTY_BODY + LK_MEMBER_TRAILER] = {3};

    return m->raw == 0 && m->size == m->header + sizeof(wanted) &&
           memcmp(bytes + m->header, wanted, sizeof(wanted)) == 0;
}

/* Index, list, footer, or what a later version has. */
static int feed_other(struct lk_check *c, const struct lk_member *m, struct lk_error *err)
{
    uint64_t at = c->source.offset;
    unsigned char *bytes = malloc(m->size);
    int64_t got = bytes ? take(c, bytes, m->size, err) : -1;
    const unsigned char *p = bytes ? bytes + LK_MEMBER_HEADER : NULL;
    const char *message = NULL;

    if (!bytes) {
        lk_error_set(err, LK_MEMORY, "no memory for a member");
    }
    if (got < 0) {
        free(bytes);
        return -1;
    }
    if (got < (int64_t)m->size) {
        message = CUT_OFF;
    } else if (!is_empty(bytes, m)) {
        message = NOT_EMPTY;
    } else if (m->type <= LK_MEMBER_FOOTER) {
        /* Of what a later version adds nothing is known but that it has no data. */
        bool sane = canonical(bytes) && m->payload >= 4 && LK_MEMBER_HEADER + m->payload <= m->size;
        message = !sane                                               ? BAD_HEADER
                  : lk_crc32(0, p + 4, m->payload - 4) != lk_get32(p) ? "its checksum is wrong"
                                                                      : NULL;
    }
    if (m->type == LK_MEMBER_INDEX && !message) {
        struct lk_check_slot *slot = lk_check_claim(c, LK_CHECK_BLOCK);
        slot->at = at;
        slot->last = at + m->size - 1;
        slot->block = bytes;
        slot->block_len = m->size;
        lk_check_pass(c, slot);
        return 0;
    }
    free(bytes);
    if (message) {
        note(c, at, at + m->size - 1, message);
    }
    return 0;
}

/* Whether a member can begin here that ends before `until`. */
static bool is_member(const struct lk_check_source *s, uint64_t until, struct lk_member *m)
{
    return s->ahead_len == sizeof(s->ahead) && lk_member_parse(s->ahead, m) &&
           m->size <= until - s->offset;
}

/* --- by the table of a block --- */

/* Passes over what a later version may have put between two tables. */
static int pass_unknown(struct lk_check *c, uint64_t until, struct lk_error *err)
{
    struct lk_check_source *s = &c->source;
    struct lk_member m;
    int rc = 0;

    while (rc == 0 && s->offset < until && (rc = look_ahead(c, err)) == 0 &&
           is_member(s, until, &m) && m.type > LK_MEMBER_FOOTER) {
        rc = feed_other(c, &m, err);
    }
    return rc;
}

/* Comes to a place where something must begin: 1 when it is there, 0 when it is passed already. */
static int go_to(struct lk_check *c, uint64_t at, struct lk_error *err)
{
    if (!c->options.sample && pass_unknown(c, at, err) < 0) {
        return -1;
    }
    uint64_t from = c->source.offset;
    if (from > at) {
        return 0;
    }
    if (from < at && !c->source.ended) {
        int64_t got = take(c, NULL, at - from, err);
        if (got < 0) {
            return -1;
        }
        if (got > 0) {
            note(c, from, from + (uint64_t)got - 1, "these bytes are in no table of the index");
        }
    }
    return 1;
}

static int feed_block(struct lk_check *c, struct lk_check_plan *plan, struct lk_error *err)
{
    struct lk_check_slot *slot;
    unsigned char *bytes = NULL;
    const char *message = NULL;

    if (plan->read) {
        int rc = go_to(c, plan->at, err);
        if (rc < 0) {
            return -1;
        }
        bytes = rc > 0 ? malloc(plan->len) : NULL;
        if (rc > 0 && !bytes) {
            return lk_error_set(err, LK_MEMORY, "no memory for an index block");
        }
        int64_t got = rc > 0 ? take(c, bytes, plan->len, err) : 0;
        bool same = got == (int64_t)plan->len && memcmp(bytes, plan->bytes, plan->len) == 0;
        struct lk_member m;
        free(bytes);
        if (got < 0) {
            return -1;
        }
        message = !same ? "the index block here is another one when it is read again"
                  : lk_member_parse(plan->bytes, &m) && is_empty(plan->bytes, &m) ? NULL
                                                                                  : NOT_EMPTY;
    }
    slot = lk_check_claim(c, LK_CHECK_BLOCK);
    slot->at = plan->at;
    slot->last = plan->at + plan->len - 1;
    slot->message = message;
    slot->block = plan->bytes;
    slot->block_len = plan->len;
    plan->bytes = NULL;
    lk_check_pass(c, slot);
    return 0;
}

static int feed_plan(struct lk_check *c, struct lk_check_plan *plan, struct lk_error *err)
{
    for (size_t i = 0; i < plan->count; i++) {
        const struct lk_check_row *row = &plan->rows[i];
        int rc = row->size < LK_MEMBER_HEADER ? 0 : go_to(c, row->at, err);
        if (rc < 0) {
            return -1;
        }
        if (rc == 0) {
            note(c, row->at, row->at, "the index has a member here that can't be");
        } else if (feed_row(c, row, true, err) < 0) {
            return -1;
        }
    }
    return feed_block(c, plan, err);
}

/* --- by the members' headers --- */

/* Goes on to the next bytes that can be a header, or to `until`. */
static int resync(struct lk_check *c, uint64_t until, struct lk_error *err)
{
    struct lk_check_source *s = &c->source;
    uint64_t from = s->offset;
    struct lk_member m;

    do {
        const unsigned char *next =
            s->ahead_len > 1 ? memchr(s->ahead + 1, 0x1f, s->ahead_len - 1) : NULL;
        uint64_t step = next ? (uint64_t)(next - s->ahead) : s->ahead_len;
        step = step < until - s->offset ? step : until - s->offset;
        if (take(c, NULL, step, err) < 0 || look_ahead(c, err) < 0) {
            return -1;
        }
    } while (s->ahead_len > 0 && s->offset < until && !is_member(s, until, &m));
    note(c, from, s->offset - 1, NO_MEMBER);
    return 0;
}

static int walk(struct lk_check *c, uint64_t until, struct lk_error *err)
{
    struct lk_check_source *s = &c->source;
    struct lk_member m;
    int rc = 0;

    while (rc == 0 && s->offset < until && (rc = look_ahead(c, err)) == 0 && s->ahead_len > 0) {
        if (!is_member(s, until, &m)) {
            rc = resync(c, until, err);
        } else if (m.type == LK_MEMBER_DATA) {
            struct lk_check_row row = {
                .at = s->offset, .size = m.size, .raw = m.raw, .entry_at = LK_NO_ENTRY};
            rc = feed_row(c, &row, false, err);
        } else {
            rc = feed_other(c, &m, err);
        }
    }
    return rc;
}

void lk_check_feed(void *arg)
{
    struct lk_check *c = arg;
    struct lk_error err = {0};
    struct lk_check_plan *plan;
    int rc = 0;

    while (rc == 0 && (plan = lk_check_next_plan(c))) {
        rc = plan->bytes ? feed_plan(c, plan, &err) : walk(c, plan->at, &err);
        lk_check_plan_free(plan);
    }
    if (rc == 0) {
        /* Of a sample all was read, and the stream still has to say that it is whole. */
        rc = !c->options.sample                    ? walk(c, UINT64_MAX, &err)
             : take(c, NULL, UINT64_MAX, &err) < 0 ? -1
                                                   : 0;
    }
    lk_chunk_unref(c->source.chunk);
    c->source.chunk = NULL;
    c->feed_rc = rc;
    c->feed_err = err;
    lk_ring_close(&c->ring);
}
