/* SPDX-License-Identifier: MIT
 * check_match.c - follows the files through the members of an archive, in order, and compares them
 * with the records of the index as its blocks come. A block comes behind the members that it speaks
 * of, so what was found in the tar waits for it; both are in the order of the archive. One thread.
 */
#include "check_internal.h"

#include "index_reader.h"
#include "tar.h"
#include <stdlib.h>
#include <string.h>

enum { PENDING_MAX = 1000000, DAMAGES_FIRST = 64 };

int lk_match_init(struct lk_match *m, const struct lk_check_options *options, struct lk_error *err)
{
    m->tolerant = options->tolerant || options->sample;
    m->tar = options->tar;
    m->synced = options->at == 0;
    m->hasher = lk_hasher_new(LK_SHA256, err);
    return m->hasher ? 0 : -1;
}

static void drop_batches(struct lk_match *m)
{
    while (m->first) {
        struct lk_check_batch *next = m->first->next;
        free(m->first);
        m->first = next;
    }
    m->last = NULL;
    m->pending = 0;
    m->large = false;
}

void lk_match_free(struct lk_match *m)
{
    drop_batches(m);
    while (m->stats.findings) {
        struct lk_finding *next = m->stats.findings->next;
        free(m->stats.findings);
        m->stats.findings = next;
    }
    free(m->damages);
    lk_hasher_free(m->hasher);
}

static void out_of_memory(struct lk_match *m)
{
    m->rc = lk_error_set(&m->err, LK_MEMORY, "no memory for what is found in an archive");
}

/* --- findings --- */

static void find(struct lk_match *m, uint64_t first, uint64_t last, const char *message,
                 const struct lk_record *record)
{
    size_t len = record ? record->path_len : 0;

    if (m->stats.finding_count++ >= LK_FINDINGS_MAX) {
        return;
    }
    struct lk_finding *finding = malloc(sizeof(*finding) + len + 1);
    if (!finding) {
        out_of_memory(m);
        return;
    }
    *finding = (struct lk_finding){
        .first = first, .last = last, .message = message, .is_file = record, .path_len = len};
    if (len > 0) {
        memcpy(finding->path, record->path, len);
    }
    finding->path[len] = '\0';
    if (m->last_finding) {
        m->last_finding->next = finding;
    } else {
        m->stats.findings = finding;
    }
    m->last_finding = finding;
}

/* Remembers bytes that records may name; message NULL: they are not damaged, only not followed. */
static void remember(struct lk_match *m, uint64_t first, uint64_t last, const char *message)
{
    struct lk_check_damage *before = m->damage_count > 0 ? &m->damages[m->damage_count - 1] : NULL;

    if (before && !before->message && !message && before->last + 1 == first) {
        before->last = last;
        return;
    }
    if (m->damage_count == m->damage_room) {
        size_t room = m->damage_room > 0 ? m->damage_room * 2 : DAMAGES_FIRST;
        struct lk_check_damage *damages = realloc(m->damages, room * sizeof(*damages));
        if (!damages) {
            out_of_memory(m);
            return;
        }
        m->damages = damages;
        m->damage_room = room;
    }
    m->damages[m->damage_count++] =
        (struct lk_check_damage){.first = first, .last = last, .message = message};
}

static const struct lk_check_damage *damage_at(const struct lk_match *m, uint64_t at)
{
    size_t low = 0, high = m->damage_count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (m->damages[middle].last < at) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < m->damage_count && m->damages[low].first <= at ? &m->damages[low] : NULL;
}

/* --- the files --- */

static struct lk_check_entry *last_entry(struct lk_match *m)
{
    return &m->last->entries[m->last->count - 1];
}

/* The large file has come to its end, or what follows can't be told. */
static void end_large(struct lk_match *m)
{
    struct lk_check_entry *e = last_entry(m);

    m->large = false;
    if (!e->hashed) {
        lk_hasher_final(m->hasher, e->sha256);
        e->hashed = e->damage == 0 && m->large_left == 0;
    }
}

/* Takes the bytes of the large file from the beginning of a member's data (NULL = they are
 * damaged); how many of the data's bytes were its own. */
static size_t more_large(struct lk_match *m, const unsigned char *data, size_t len)
{
    size_t n = m->large_left < len ? (size_t)m->large_left : len;

    if (data && !last_entry(m)->hashed && last_entry(m)->damage == 0) {
        lk_hasher_update(m->hasher, data, n);
    }
    m->large_left -= n;
    size_t pad = m->large_pad < len - n ? (size_t)m->large_pad : len - n;
    m->large_pad -= pad;
    if (m->large_left == 0 && m->large_pad == 0) {
        end_large(m);
    }
    return n + pad;
}

/* The last entry of a member may go on in the next one. */
static void begin_large(struct lk_match *m, const struct lk_chunk *data)
{
    struct lk_check_entry *e = last_entry(m);
    uint64_t here = data->len - e->item.data_at;
    uint64_t pad = lk_tar_padding(e->item.size);

    if (e->item.size < here && pad <= here - e->item.size) {
        return;
    }
    m->large_left = e->item.size > here ? e->item.size - here : 0;
    m->large_pad = m->large_left > 0 ? pad : pad - (here - e->item.size);
    m->large = m->large_left > 0 || m->large_pad > 0;
    if (m->large && !e->hashed) {
        lk_hasher_update(m->hasher, data->data + e->item.data_at, (size_t)here);
    }
}

static void append(struct lk_match *m, struct lk_check_batch *batch)
{
    if (m->pending > PENDING_MAX) {
        drop_batches(m);
        m->tolerant = true;
    }
    batch->next = NULL;
    if (m->last) {
        m->last->next = batch;
    } else {
        m->first = batch;
    }
    m->last = batch;
    m->pending += batch->count;
}

/* Where in a member's data the first entry begins that is not there yet; LK_NO_ENTRY if that can't
 * be told, or none does. */
static uint32_t place(struct lk_match *m, struct lk_check_slot *slot)
{
    uint32_t raw = slot->row.raw, at = 0;

    if (m->large && slot->starts && last_entry(m)->damage > 0) {
        end_large(m); /* its size was damaged, too */
    }
    if (m->large) {
        at = (uint32_t)more_large(m, slot->out->data, raw);
        return m->large || at == raw ? LK_NO_ENTRY : at;
    }
    if (!m->synced) {
        at = slot->starts ? 0 : slot->row.entry_at;
        if (at >= raw) {
            remember(m, slot->at, slot->last, NULL);
            return LK_NO_ENTRY;
        }
    }
    m->synced = true;
    return at;
}

static void good_member(struct lk_match *m, struct lk_check_slot *slot)
{
    m->stats.members++;
    m->stats.raw += slot->row.raw;
    uint32_t at = m->tar && slot->out ? place(m, slot) : LK_NO_ENTRY;
    if (at == LK_NO_ENTRY) {
        return;
    }
    if (slot->parsed_at != at) {
        free(slot->batch);
        slot->bad_tar =
            !lk_check_parse(slot->out, at, slot->at, m->hasher, &slot->batch, &m->rc, &m->err);
    }
    if (slot->batch) {
        struct lk_check_batch *batch = slot->batch;
        slot->batch = NULL;
        batch->last = slot->last;
        append(m, batch);
        begin_large(m, slot->out);
    }
    if (slot->bad_tar) {
        m->synced = false;
        find(m, slot->at, slot->last, "its data is no tar", NULL);
        remember(m, slot->at, slot->last, "its data is no tar");
    }
}

static void bad_member(struct lk_match *m, struct lk_check_slot *slot)
{
    find(m, slot->at, slot->last, slot->message, NULL);
    remember(m, slot->at, slot->last, slot->message);
    m->synced = m->large;
    if (m->large) {
        struct lk_check_entry *e = last_entry(m);
        if (e->damage == 0 && m->damage_count < UINT32_MAX) {
            e->damage = (uint32_t)m->damage_count;
            e->hashed = false;
        }
        m->synced = more_large(m, NULL, slot->row.raw) == slot->row.raw;
    }
}

/* --- the records --- */

static void compare(struct lk_match *m, const struct lk_record *r,
                    const struct lk_check_batch *batch, const struct lk_check_entry *e)
{
    const struct lk_tar_item *item = &e->item;

    if (item->path_hash != lk_path_hash(r->path, r->path_len) || item->type != r->type ||
        item->size != r->size || item->data_at != r->data_at) {
        find(m, batch->member, batch->last, "the index says something else of it than the archive",
             r);
        return;
    }
    if (e->damage > 0) {
        const struct lk_check_damage *damage = &m->damages[e->damage - 1];
        find(m, damage->first, damage->last, damage->message, r);
        return;
    }
    m->stats.entries++;
    if (!r->sha256) {
        return;
    }
    if (!e->hashed) {
        m->stats.unchecked++;
    } else if (memcmp(e->sha256, r->sha256, sizeof(e->sha256)) == 0) {
        m->stats.files++;
    } else {
        find(m, batch->member, batch->last, "its SHA-256 is not that of the index", r);
    }
}

static void without_entry(struct lk_match *m, const struct lk_record *r)
{
    const struct lk_check_damage *damage = damage_at(m, r->member);

    if (damage && damage->message) {
        find(m, damage->first, damage->last, damage->message, r);
    } else if (damage || m->tolerant) {
        m->stats.unchecked++;
    } else {
        find(m, r->member, r->member, "it is in the index and not in the archive", r);
    }
}

static void without_record(struct lk_match *m, const struct lk_check_batch *batch)
{
    if (!m->tolerant && m->indexed) {
        find(m, batch->member, batch->last, "an entry of the archive is not in its index", NULL);
    }
}

/* The next entry that waits, or NULL. What is behind the large file waits for that. */
static struct lk_check_entry *front(struct lk_match *m)
{
    while (m->first && m->first->taken == m->first->count) {
        struct lk_check_batch *next = m->first->next;
        free(m->first);
        m->first = next;
        m->last = next ? m->last : NULL;
    }
    return m->first ? &m->first->entries[m->first->taken] : NULL;
}

static void pop(struct lk_match *m)
{
    /* A record came before its file has ended, which no index of ours has. */
    if (m->large && m->first == m->last && m->first->taken + 1 == m->first->count) {
        end_large(m);
        m->synced = false;
    }
    m->first->taken++;
    m->pending--;
}

static int on_record(void *arg, const struct lk_record *r)
{
    struct lk_match *m = arg;
    struct lk_check_entry *e;

    while ((e = front(m)) && (m->first->member < r->member || (m->first->member == r->member &&
                                                               e->item.header_at < r->header_at))) {
        without_record(m, m->first);
        pop(m);
    }
    if (e && m->first->member == r->member && e->item.header_at == r->header_at) {
        compare(m, r, m->first, e);
        pop(m);
    } else {
        without_entry(m, r);
    }
    return m->rc;
}

static void take_block(struct lk_match *m, struct lk_check_slot *slot)
{
    struct lk_index_visitor visitor = {.record = on_record, .arg = m};
    struct lk_error err;

    m->indexed = true;
    if (slot->message) {
        find(m, slot->at, slot->last, slot->message, NULL);
    }
    if (m->tar && lk_block_read(slot->block, slot->block_len, &visitor, &err) < 0 && m->rc == 0) {
        find(m, slot->at, slot->last, "an index block is damaged", NULL);
        m->tolerant = true;
    }
}

void lk_match_slot(struct lk_match *m, struct lk_check_slot *slot)
{
    if (slot->rc < 0) {
        m->rc = -1;
        m->err = slot->err;
    } else if (slot->kind == LK_CHECK_BLOCK) {
        take_block(m, slot);
    } else if (slot->kind == LK_CHECK_NOTE) {
        find(m, slot->at, slot->last, slot->message, NULL);
        remember(m, slot->at, slot->last, slot->message);
        m->tolerant = true;
    } else if (slot->message) {
        bad_member(m, slot);
    } else {
        good_member(m, slot);
    }
}

void lk_match_end(struct lk_match *m)
{
    while (front(m)) {
        without_record(m, m->first);
        pop(m);
    }
}
