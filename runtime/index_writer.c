/* SPDX-License-Identifier: MIT
 * index_writer.c - builds index blocks, the list of blocks and the footer of an archive.
 * Owns the block that is being filled, one entry that waits for its digest, and the finished pieces
 * of the list. Knows no streams: what is ready goes to a callback. One thread.
 *
 * A block is closed before its plain bytes pass what an extra field holds, so it fits whatever
 * deflate makes of it. Digests are not compressed: they would only cost time and a few bits each.
 */
#include "index_writer.h"

#include "buf.h"
#include "engine.h"
#include "member.h"
#include <stdlib.h>
#include <string.h>

enum {
    BLOCK_FIXED = 36,
    LIST_FIXED = 12,
    FOOTER_FIXED = 56,
    STORED_EXTRA = 5,
    BLOCK_ROOM = LK_PAYLOAD_MAX - BLOCK_FIXED - STORED_EXTRA,
    LIST_ROOM = LK_PAYLOAD_MAX - LIST_FIXED - STORED_EXTRA,
    LIST_PATH_MAX = 128, /* bytes of a block's first path in the list */
    LIST_MAX = 8 << 20,  /* bytes of finished list members kept */
    MEMBER_COST = 10,    /* bytes of one row of the member table, at most */
    LEVEL = 6
};

struct block_ref {
    uint64_t at, raw_base;
};

struct lk_index_writer {
    int (*emit)(void *arg, struct lk_chunk *chunk, struct lk_error *err);
    void *arg;
    struct lk_deflater *deflater;
    uint64_t offset, raw; /* of the file and of the data, so far */
    uint64_t members, entries, blocks;

    /* the block that is being filled */
    struct lk_buf table, records, record, hashes;
    uint32_t block_members, block_records;
    uint64_t base, raw_base; /* of its first member */
    uint64_t previous_member;
    int64_t previous_mtime;
    char path[LK_PATH_MAX]; /* of the previous record */
    size_t path_len;        /* 0 at the start of a block */
    size_t last_len;        /* of `path`, also then */
    bool disordered;        /* a path came before one that it should follow */
    char first_path[LIST_PATH_MAX];
    size_t first_len;

    struct lk_entry *waiting; /* a large file whose digest is not known yet */
    uint64_t waiting_member;

    /* the list of blocks */
    struct lk_buf list;
    uint32_t list_blocks;
    struct block_ref previous_block;
    char list_path[LIST_PATH_MAX];
    size_t list_path_len;
    struct lk_chunk *done, *done_last;
    size_t done_size;
    bool partial;
    unsigned char payload[LK_PAYLOAD_MAX];
};

struct lk_index_writer *lk_index_writer_new(int (*emit)(void *arg, struct lk_chunk *chunk,
                                                        struct lk_error *err),
                                            void *arg, struct lk_error *err)
{
    struct lk_index_writer *w = calloc(1, sizeof(*w));
    enum lk_engine engine = LK_ENGINE_AUTO;
    int level = LEVEL;

    if (!w) {
        lk_error_set(err, LK_MEMORY, "no memory for the index of an archive");
        return NULL;
    }
    lk_buf_init(&w->table, BLOCK_ROOM + MEMBER_COST);
    lk_buf_init(&w->records, BLOCK_ROOM);
    lk_buf_init(&w->record, LK_PATH_MAX + 256);
    lk_buf_init(&w->hashes, BLOCK_ROOM);
    lk_buf_init(&w->list, LIST_ROOM);
    w->emit = emit;
    w->arg = arg;
    if (lk_engine_pick(&engine, &level, err) < 0 ||
        !(w->deflater = lk_deflater_new(engine, level, err))) {
        lk_index_writer_free(w);
        return NULL;
    }
    return w;
}

void lk_index_writer_free(struct lk_index_writer *w)
{
    if (!w) {
        return;
    }
    while (w->done) {
        struct lk_chunk *next = w->done->next;
        lk_chunk_unref(w->done);
        w->done = next;
    }
    lk_entry_free(w->waiting);
    lk_buf_free(&w->table);
    lk_buf_free(&w->records);
    lk_buf_free(&w->record);
    lk_buf_free(&w->hashes);
    lk_buf_free(&w->list);
    lk_deflater_free(w->deflater);
    free(w);
}

uint64_t lk_index_writer_blocks(const struct lk_index_writer *w)
{
    return w->blocks;
}

/* LEB128: seven bits a byte, lowest first. */
static int add_number(struct lk_buf *buf, uint64_t value, struct lk_error *err)
{
    unsigned char bytes[10];
    size_t n = 0;

    do {
        bytes[n++] = (unsigned char)((value & 0x7f) | (value > 0x7f ? 0x80 : 0));
        value >>= 7;
    } while (value > 0);
    return lk_buf_add(buf, bytes, n, err);
}

/* 0, -1, 1, -2 ... as 0, 1, 2, 3 ...; the difference wraps like every unsigned number. */
static int add_difference(struct lk_buf *buf, uint64_t value, uint64_t previous,
                          struct lk_error *err)
{
    uint64_t d = value - previous;

    return add_number(buf, d << 1 ^ (d >> 63 ? UINT64_MAX : 0), err);
}

static int add_path(struct lk_buf *buf, const char *path, size_t len, const char *previous,
                    size_t previous_len, struct lk_error *err)
{
    size_t shared = 0;

    while (shared < len && shared < previous_len && path[shared] == previous[shared]) {
        shared++;
    }
    if (add_number(buf, shared, err) < 0 || add_number(buf, len - shared, err) < 0) {
        return -1;
    }
    return lk_buf_add(buf, path + shared, len - shared, err);
}

/* A member of the given type around payload[0..fixed) + plain bytes, deflated; the CRC comes first.
 */
static struct lk_chunk *make_member(struct lk_index_writer *w, unsigned type, size_t fixed,
                                    const struct lk_buf *plain, struct lk_error *err)
{
    size_t room = LK_PAYLOAD_MAX - fixed;
    size_t len = lk_deflate(w->deflater, plain->data, plain->len, w->payload + fixed, room);

    if (len == 0) {
        len = lk_deflate_stored(plain->data, plain->len, w->payload + fixed, room);
    }
    len += fixed;
    lk_put32(w->payload, lk_crc32(0, w->payload + 4, len - 4));
    struct lk_chunk *chunk =
        lk_chunk_alloc(LK_MEMBER_HEADER + len + LK_EMPTY_BODY + LK_MEMBER_TRAILER, err);
    if (chunk) {
        chunk->len = lk_member_empty(chunk->data, type, w->payload, len);
    }
    return chunk;
}

static int send(struct lk_index_writer *w, struct lk_chunk *chunk, struct lk_error *err)
{
    if (!chunk) {
        return -1;
    }
    w->offset += chunk->len;
    return w->emit(w->arg, chunk, err);
}

/* --- the list of blocks --- */

static int close_list_member(struct lk_index_writer *w, struct lk_error *err)
{
    if (w->list_blocks == 0) {
        return 0;
    }
    lk_put32(w->payload + 4, w->list_blocks);
    lk_put32(w->payload + 8, (uint32_t)w->list.len);
    struct lk_chunk *chunk = make_member(w, LK_MEMBER_LIST, LIST_FIXED, &w->list, err);
    if (!chunk) {
        return -1;
    }
    if (w->done_last) {
        w->done_last->next = chunk;
    } else {
        w->done = chunk;
    }
    w->done_last = chunk;
    w->done_size += chunk->len;
    w->list.len = 0;
    w->list_blocks = 0;
    w->list_path_len = 0;
    w->previous_block = (struct block_ref){0, 0};
    return 0;
}

static int encode_ref(struct lk_index_writer *w, size_t size, struct lk_error *err)
{
    struct lk_buf *b = &w->record;

    b->len = 0;
    if (add_number(b, w->offset - w->previous_block.at, err) < 0 || add_number(b, size, err) < 0 ||
        add_number(b, w->block_members, err) < 0 || add_number(b, w->block_records, err) < 0 ||
        add_number(b, w->raw_base - w->previous_block.raw_base, err) < 0) {
        return -1;
    }
    return add_path(b, w->first_path, w->first_len, w->list_path, w->list_path_len, err);
}

/* Names the block that is about to be written at w->offset. */
static int list_block(struct lk_index_writer *w, size_t size, struct lk_error *err)
{
    if (w->done_size >= LIST_MAX) {
        w->partial = true;
        return 0;
    }
    if (encode_ref(w, size, err) < 0) {
        return -1;
    }
    if (w->list.len + w->record.len + 2 > LIST_ROOM &&
        (close_list_member(w, err) < 0 || encode_ref(w, size, err) < 0)) {
        return -1;
    }
    if (add_number(&w->list, w->record.len, err) < 0 ||
        lk_buf_add(&w->list, w->record.data, w->record.len, err) < 0) {
        return -1;
    }
    memcpy(w->list_path, w->first_path, w->first_len);
    w->list_path_len = w->first_len;
    w->previous_block = (struct block_ref){w->offset, w->raw_base};
    w->list_blocks++;
    return 0;
}

/* --- blocks --- */

static void start_block(struct lk_index_writer *w)
{
    w->table.len = w->records.len = w->hashes.len = 0;
    w->block_members = w->block_records = 0;
    w->previous_member = 0;
    w->previous_mtime = 0;
    w->path_len = w->first_len = 0;
}

static int close_block(struct lk_index_writer *w, struct lk_error *err)
{
    if (w->block_members == 0 && w->block_records == 0) {
        return 0;
    }
    if (w->block_members == 0) {
        w->base = w->offset;
        w->raw_base = w->raw;
    }
    unsigned char *p = w->payload;
    size_t fixed = BLOCK_FIXED + w->hashes.len;
    lk_put64(p + 4, w->base);
    lk_put64(p + 12, w->raw_base);
    lk_put32(p + 20, w->block_members);
    lk_put32(p + 24, w->block_records);
    lk_put32(p + 28, (uint32_t)(w->hashes.len / 32));
    lk_put32(p + 32, (uint32_t)(w->table.len + w->records.len));
    if (w->hashes.len > 0) {
        memcpy(p + BLOCK_FIXED, w->hashes.data, w->hashes.len);
    }
    if (w->records.len > 0 && lk_buf_add(&w->table, w->records.data, w->records.len, err) < 0) {
        return -1;
    }
    struct lk_chunk *chunk = make_member(w, LK_MEMBER_INDEX, fixed, &w->table, err);
    if (!chunk || list_block(w, chunk->len, err) < 0) {
        lk_chunk_unref(chunk);
        return -1;
    }
    w->blocks++;
    start_block(w);
    return send(w, chunk, err);
}

static size_t room_left(const struct lk_index_writer *w)
{
    return BLOCK_ROOM - w->table.len - w->records.len - w->hashes.len;
}

static int encode_record(struct lk_index_writer *w, const struct lk_entry *e, uint64_t member,
                         unsigned flags, struct lk_error *err)
{
    struct lk_buf *b = &w->record;
    size_t len = e->path_len < LK_PATH_MAX ? e->path_len : LK_PATH_MAX;
    unsigned char type = (unsigned char)e->type;

    if (len < e->path_len) {
        flags |= LK_RECORD_CUT;
    }
    b->len = 0;
    if (add_number(b, flags, err) < 0 || lk_buf_add(b, &type, 1, err) < 0 ||
        add_number(b, e->mode, err) < 0 || add_difference(b, member, w->previous_member, err) < 0 ||
        add_number(b, e->header_at, err) < 0 || add_number(b, e->data_at - e->header_at, err) < 0 ||
        add_number(b, e->size, err) < 0 ||
        add_difference(b, (uint64_t)e->mtime, (uint64_t)w->previous_mtime, err) < 0 ||
        add_number(b, e->mtime_ns, err) < 0 || add_number(b, e->path_len, err) < 0) {
        return -1;
    }
    return add_path(b, e->path, len, w->path, w->path_len, err);
}

static void remember_path(struct lk_index_writer *w, const struct lk_entry *e)
{
    size_t len = e->path_len < LK_PATH_MAX ? e->path_len : LK_PATH_MAX;
    int order = w->entries > 1 ? lk_path_compare(w->path, w->last_len, e->path, len) : -1;

    /* Of two paths that are cut to the same, nothing is known. */
    if (order > 0 || (order == 0 && len < e->path_len)) {
        w->disordered = true;
    }
    w->path_len = w->last_len = len;
    memcpy(w->path, e->path, w->path_len);
    if (w->block_records == 1) {
        w->first_len = w->path_len < LIST_PATH_MAX ? w->path_len : LIST_PATH_MAX;
        memcpy(w->first_path, e->path, w->first_len);
    }
}

static int add_record(struct lk_index_writer *w, const struct lk_entry *e, uint64_t member,
                      bool hashed, struct lk_error *err)
{
    unsigned flags = (hashed ? LK_RECORD_HASH : 0u) | (e->large ? LK_RECORD_LARGE : 0u);

    if (encode_record(w, e, member, flags, err) < 0) {
        return -1;
    }
    if (w->record.len + 2 + (hashed ? 32 : 0) > room_left(w) &&
        (close_block(w, err) < 0 || encode_record(w, e, member, flags, err) < 0)) {
        return -1;
    }
    if (add_number(&w->records, w->record.len, err) < 0 ||
        lk_buf_add(&w->records, w->record.data, w->record.len, err) < 0 ||
        (hashed && lk_buf_add(&w->hashes, e->sha256, 32, err) < 0)) {
        return -1;
    }
    w->block_records++;
    w->entries++;
    w->previous_member = member;
    w->previous_mtime = e->mtime;
    remember_path(w, e);
    return 0;
}

/* The chunks of the waiting file have all been read by now, so its digest is only a matter of time.
 */
static int settle(struct lk_index_writer *w, struct lk_error *err)
{
    struct lk_entry *e = w->waiting;

    if (!e) {
        return 0;
    }
    bool hashed = e->large->wait(e->large, e->sha256);
    int rc = add_record(w, e, w->waiting_member, hashed, err);
    w->waiting = NULL;
    lk_entry_free(e);
    return rc;
}

static int add_entries(struct lk_index_writer *w, struct lk_entries *entries, uint64_t member,
                       struct lk_error *err)
{
    if (settle(w, err) < 0) {
        return -1;
    }
    while (entries->first) {
        struct lk_entry *e = entries->first;
        entries->first = e->next;
        if (e->large && !entries->first) {
            w->waiting = e;
            w->waiting_member = member;
            return 0;
        }
        /* A regular file without data needs no digest: it is that of no bytes. */
        bool hashed = e->type == '0' && e->size > 0 && !e->large;
        int rc = add_record(w, e, member, hashed, err);
        lk_entry_free(e);
        if (rc < 0) {
            return -1;
        }
    }
    return 0;
}

int lk_index_writer_member(struct lk_index_writer *w, size_t size, size_t raw,
                           struct lk_entries *entries, struct lk_error *err)
{
    uint64_t member = w->offset;
    int rc = 0;

    w->offset += size;
    w->raw += raw;
    w->members++;
    if (w->block_members == 0) {
        w->base = member;
        w->raw_base = w->raw - raw;
    }
    if (add_number(&w->table, size, err) < 0 || add_number(&w->table, raw, err) < 0) {
        rc = -1;
    }
    w->block_members++;
    if (entries) {
        rc = rc < 0 ? rc : add_entries(w, entries, member, err);
        entries->base.free(&entries->base);
    }
    /* The next member must find room: the members of a block lie side by side in the file. */
    if (rc == 0 && room_left(w) < MEMBER_COST) {
        rc = close_block(w, err);
    }
    return rc;
}

int lk_index_writer_finish(struct lk_index_writer *w, struct lk_error *err)
{
    if (settle(w, err) < 0 || close_block(w, err) < 0 || close_list_member(w, err) < 0) {
        return -1;
    }
    uint64_t list_at = w->offset;
    while (w->done) {
        struct lk_chunk *chunk = w->done;
        w->done = chunk->next;
        chunk->next = NULL;
        if (send(w, chunk, err) < 0) {
            return -1;
        }
    }
    w->done_last = NULL;
    unsigned char *p = w->payload;
    lk_put32(p + 4, (w->partial ? LK_FOOTER_PARTIAL : 0) | (w->disordered ? 0 : LK_FOOTER_ORDERED));
    lk_put64(p + 8, list_at);
    lk_put64(p + 16, w->offset - list_at);
    lk_put64(p + 24, w->blocks);
    lk_put64(p + 32, w->members);
    lk_put64(p + 40, w->entries);
    lk_put64(p + 48, w->raw);
    lk_put32(p, lk_crc32(0, p + 4, FOOTER_FIXED - 4));
    struct lk_chunk *chunk = lk_chunk_alloc(LK_FOOTER_SIZE, err);
    if (chunk) {
        chunk->len = lk_member_empty(chunk->data, LK_MEMBER_FOOTER, p, FOOTER_FIXED);
    }
    return send(w, chunk, err);
}
