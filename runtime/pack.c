/* SPDX-License-Identifier: MIT
 * pack.c - puts tar entries into chunks. Data is read straight into the slab; only headers are
 * copied. A chunk goes out as soon as it is known that nothing more fits. */
#include "pack.h"
#include "gzip.h"
#include <string.h>

void lk_pack_init(struct lk_pack *pack, struct lk_slabs *slabs, struct lk_stream *out,
                  struct lk_larges *larges)
{
    *pack = (struct lk_pack){.slabs = slabs, .out = out, .larges = larges};
    lk_buf_init(&pack->header, LK_TAR_HEADER_MAX);
}

void lk_pack_free(struct lk_pack *pack)
{
    if (pack->entries)
        pack->entries->base.free(&pack->entries->base);
    pack->entries = NULL;
    lk_chunk_unref(pack->chunk);
    pack->chunk = NULL;
    lk_buf_free(&pack->header);
}

/* Sends the chunk, if there is one. The hash thread gets its reference first: who waits for a
 * digest may hold the last of the chunk's other references. */
static int flush(struct lk_pack *pack, struct lk_error *err)
{
    struct lk_chunk *chunk = pack->chunk;
    if (!chunk)
        return 0;
    if (pack->large && chunk->len > pack->data_at &&
        lk_larges_add(pack->larges, chunk, pack->data_at, chunk->len - pack->data_at, err))
        return -1;
    chunk->raw_len = chunk->len;
    chunk->zeros = !pack->nonzero && chunk->len == LK_MEMBER_SIZE;
    chunk->meta = pack->entries ? &pack->entries->base : NULL;
    pack->chunk = NULL;
    pack->entries = NULL;
    pack->sent++;
    return lk_stream_write(pack->out, chunk, err);
}

static int take(struct lk_pack *pack, struct lk_error *err)
{
    pack->chunk = lk_slabs_take(pack->slabs, err);
    pack->nonzero = false;
    pack->data_at = 0;
    return pack->chunk ? 0 : -1;
}

static int add_entry(struct lk_pack *pack, const struct lk_tar_entry *entry, uint32_t st_mode,
                     struct lk_error *err)
{
    if (!pack->entries && !(pack->entries = lk_entries_new(err)))
        return -1;
    struct lk_entry *e = lk_entries_add(pack->entries, entry->path, entry->path_len, err);
    if (!e)
        return -1;
    e->size = entry->size;
    e->mtime = entry->mtime;
    e->mtime_ns = entry->mtime_ns;
    e->mode = st_mode;
    e->type = entry->type;
    e->header_at = pack->chunk->len;
    e->data_at = pack->chunk->len + pack->header.len;
    if (pack->large && !(e->large = lk_larges_begin(pack->larges, err)))
        return -1;
    return 0;
}

int lk_pack_begin(struct lk_pack *pack, const struct lk_tar_entry *entry, uint32_t st_mode,
                  struct lk_error *err)
{
    pack->header.len = 0;
    if (lk_tar_header(&pack->header, entry, err))
        return -1;
    size_t header = pack->header.len;
    bool large = entry->size > LK_MEMBER_SIZE - header;
    size_t all = large ? 0 : header + (size_t)entry->size + lk_tar_padding(entry->size);
    if (pack->chunk && (large || all > LK_MEMBER_SIZE - pack->chunk->len) && flush(pack, err))
        return -1;
    if (!pack->chunk && take(pack, err))
        return -1;
    pack->large = large;
    if (add_entry(pack, entry, st_mode, err))
        return -1;
    memcpy(pack->chunk->data + pack->chunk->len, pack->header.data, header);
    pack->chunk->len += header;
    pack->nonzero = true;
    pack->data_at = pack->chunk->len;
    pack->left = entry->size;
    return 0;
}

void *lk_pack_room(struct lk_pack *pack, size_t *len, struct lk_error *err)
{
    if (pack->large && pack->left && pack->chunk && pack->chunk->len == LK_MEMBER_SIZE &&
        flush(pack, err))
        return NULL;
    if (!pack->chunk && take(pack, err))
        return NULL;
    size_t room = LK_MEMBER_SIZE - pack->chunk->len;
    *len = pack->left < room ? (size_t)pack->left : room;
    return pack->chunk->data + pack->chunk->len;
}

void lk_pack_put(struct lk_pack *pack, size_t len)
{
    pack->chunk->len += len;
    pack->left -= len;
    pack->nonzero = true;
}

int lk_pack_zeros(struct lk_pack *pack, uint64_t len, struct lk_error *err)
{
    while (len > 0) {
        size_t room;
        void *at = lk_pack_room(pack, &room, err);
        if (!at)
            return -1;
        if (room > len)
            room = (size_t)len;
        if (room == 0)
            break;
        memset(at, 0, room);
        pack->chunk->len += room;
        pack->left -= room;
        len -= room;
    }
    return 0;
}

int lk_pack_end(struct lk_pack *pack, bool whole, struct lk_error *err)
{
    if (pack->left && lk_pack_zeros(pack, pack->left, err))
        return -1;
    size_t data_end = pack->chunk->len, padding = lk_tar_padding(data_end);
    if (pack->large && data_end > pack->data_at) {
        if (lk_larges_add(pack->larges, pack->chunk, pack->data_at, data_end - pack->data_at, err))
            return -1;
        pack->data_at = LK_MEMBER_SIZE; /* so that flush adds nothing */
    }
    memset(pack->chunk->data + data_end, 0, padding);
    pack->chunk->len += padding;
    if (!pack->large)
        return 0;
    int result = lk_larges_finish(pack->larges, whole, err) || flush(pack, err) ? -1 : 0;
    pack->large = false;
    return result;
}

int lk_pack_finish(struct lk_pack *pack, struct lk_error *err)
{
    if (flush(pack, err))
        return -1;
    struct lk_chunk *chunk = lk_chunk_alloc(LK_TAR_END_SIZE, err);
    if (!chunk)
        return -1;
    memset(chunk->data, 0, LK_TAR_END_SIZE);
    chunk->len = chunk->raw_len = LK_TAR_END_SIZE;
    pack->sent++;
    return lk_stream_write(pack->out, chunk, err);
}
