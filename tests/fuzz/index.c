/* SPDX-License-Identifier: MIT
 * index.c - any bytes as the index of an archive. Nothing may be read that is not there, and what
 * a visitor gets must be within the limits that its declaration promises.
 *
 * Input: a byte for what the rest is (footer, list, block, a whole archive), with BUILD the plain
 * body of a list or block that is packed here, then the data. Checksums are made to fit, because
 * no change would get past them. */
#include "fuzz.h"

#include "engine.h"
#include "index_reader.h"

enum { FOOTER, LIST, BLOCK, ARCHIVE, KINDS, BUILD = 0x80 };

struct seen {
    const uint8_t *file; /* of a whole archive */
    size_t size;
    uint64_t sum; /* of all bytes that were shown, so that each is read */
    unsigned blocks;
};

static void look(struct seen *seen, const void *data, size_t len)
{
    for (size_t i = 0; i < len; i++)
        seen->sum += ((const unsigned char *)data)[i];
}

static int see_record(void *arg, const struct lk_record *r)
{
    must(r->path_len <= LK_PATH_MAX && r->full_len >= r->path_len);
    look(arg, r->path, r->path_len);
    if (r->sha256)
        look(arg, r->sha256, 32);
    return 0;
}

static int see_member(void *arg, uint64_t at, uint64_t size, uint64_t raw_at, uint64_t raw)
{
    struct seen *seen = arg;
    seen->sum += at + size + raw_at + raw;
    return 0;
}

static int see_block(void *arg, const struct lk_block_ref *ref)
{
    struct seen *seen = arg;
    struct lk_index_visitor v = {.member = see_member, .record = see_record, .arg = seen};
    struct lk_error err;

    look(seen, ref->path, ref->path_len);
    if (!seen->file || ref->at > seen->size || ref->size > seen->size - ref->at)
        return 0;
    lk_block_read(seen->file + ref->at, (size_t)ref->size, &v, &err);
    return ++seen->blocks > 1000;
}

/* Lets the checksum of the member at data fit what is in it; its size, 0 when there is none. */
static size_t repair(uint8_t *data, size_t size)
{
    struct lk_member m;

    if (size < LK_MEMBER_HEADER || !lk_member_parse(data, &m) || m.size > size)
        return 0;
    uint8_t *p = data + LK_MEMBER_HEADER;
    if (m.type != LK_MEMBER_DATA && m.payload >= 4)
        lk_put32(p, lk_crc32(0, p + 4, m.payload - 4));
    return m.size;
}

/* A list or block around a plain body that begins with three numbers of a byte; a new piece of
 * memory. */
static uint8_t *build(unsigned kind, const uint8_t *data, size_t *size)
{
    static unsigned char payload[LK_PAYLOAD_MAX];
    unsigned numbers[3];
    size_t at = 4;

    for (int i = 0; i < 3; i++)
        numbers[i] = take_byte(&data, size);
    memset(payload, 0, sizeof payload);
    if (kind == BLOCK) {
        lk_put32(payload + 20, numbers[0]);
        lk_put32(payload + 24, numbers[1]);
        lk_put32(payload + 28, numbers[2] % 128);
        at = 32 + 32 * (numbers[2] % 128);
    } else {
        lk_put32(payload + 4, numbers[0]);
        at = 8;
    }
    size_t room = sizeof payload - at - 4 - lk_stored_size(0);
    size_t len = *size < room - 64 ? *size : room - 64;
    lk_put32(payload + (kind == BLOCK ? 32 : 8), (uint32_t)len);
    at += 4;
    at += lk_deflate_stored(data, len, payload + at, sizeof payload - at);
    uint8_t *out = malloc(LK_MEMBER_HEADER + at + LK_EMPTY_BODY + LK_MEMBER_TRAILER);
    must(out);
    *size = lk_member_empty(out, kind == BLOCK ? LK_MEMBER_INDEX : LK_MEMBER_LIST, payload, at);
    repair(out, *size);
    return out;
}

static void read_archive(uint8_t *file, size_t size)
{
    struct seen seen = {.file = file, .size = size};
    struct lk_index_visitor v = {.block = see_block, .arg = &seen};
    struct lk_footer f;
    struct lk_error err;
    size_t n;

    if (size < LK_FOOTER_SIZE)
        return;
    for (size_t at = 0; (n = repair(file + at, size - at)) > 0; at += n)
        ;
    repair(file + size - LK_FOOTER_SIZE, LK_FOOTER_SIZE);
    if (lk_footer_read(file + size - LK_FOOTER_SIZE, size, &f, &err) == 0) {
        must(f.list_at <= size && f.list_size <= size - f.list_at);
        lk_list_read(file + f.list_at, (size_t)f.list_size, &v, &err);
    }
}

static void read_piece(unsigned kind, uint8_t *data, size_t size)
{
    struct seen seen = {0};
    struct lk_index_visitor v = {see_block, see_member, see_record, &seen};
    struct lk_footer f;
    struct lk_error err = {0};

    repair(data, size);
    int rc = kind == FOOTER && size < LK_FOOTER_SIZE ? 0
             : kind == FOOTER ? lk_footer_read(data, LK_FOOTER_SIZE + size, &f, &err)
             : kind == LIST   ? lk_list_read(data, size, &v, &err)
                              : lk_block_read(data, size, &v, &err);
    must(rc >= 0 || ((err.kind == LK_CORRUPT || err.kind == LK_NOT_FOUND) && err.message[0]));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    unsigned what = take_byte(&data, &size), kind = (what & 0x7f) % KINDS;
    uint8_t *copy;

    if ((what & BUILD) && (kind == LIST || kind == BLOCK)) {
        copy = build(kind, data, &size);
    } else {
        copy = malloc(size + 1);
        must(copy);
        memcpy(copy, data, size);
        /* Exactly as long as the input, so that a byte too many is seen. */
        copy = realloc(copy, size > 0 ? size : 1);
        must(copy);
    }
    if (kind == ARCHIVE)
        read_archive(copy, size);
    else
        read_piece(kind, copy, size);
    free(copy);
    return 0;
}
