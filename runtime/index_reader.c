/* SPDX-License-Identifier: MIT
 * index_reader.c - reads footer, list and blocks of an archive's index.
 * Owns nothing between calls. The input may be anything: every length is compared with what is
 * there. Any thread. */
#include "index_reader.h"

#include "engine.h"
#include "member.h"
#include <stdlib.h>
#include <string.h>

enum { BODY_MAX = 64 << 10, NS_MAX = 999999999 };

/* What is left of a piece of memory. Running out sets `bad`, and gives zeros. */
struct cursor {
    const unsigned char *at, *end;
    bool bad;
};

static int bad_index(struct lk_error *err, const char *what)
{
    return lk_error_set(err, LK_CORRUPT, "the index of the archive is damaged: %s", what);
}

static const unsigned char *take(struct cursor *c, uint64_t len)
{
    const unsigned char *at = c->at;

    if (c->bad || len > (uint64_t)(c->end - c->at)) {
        c->bad = true;
        return NULL;
    }
    c->at += len;
    return at;
}

static uint64_t number(struct cursor *c)
{
    uint64_t value = 0;

    for (unsigned shift = 0; shift < 64; shift += 7) {
        const unsigned char *byte = take(c, 1);
        if (!byte) {
            return 0;
        }
        value |= (uint64_t)(*byte & 0x7f) << shift;
        if (!(*byte & 0x80)) {
            return value;
        }
    }
    c->bad = true;
    return 0;
}

static uint64_t difference(struct cursor *c, uint64_t previous)
{
    uint64_t n = number(c);

    return previous + (n >> 1 ^ (n & 1 ? UINT64_MAX : 0));
}

/* Rebuilds a path on top of the previous one in `path`; its length. */
static size_t path_of(struct cursor *c, char *path, size_t previous, size_t max)
{
    uint64_t shared = number(c);
    uint64_t more = number(c);
    const unsigned char *rest = take(c, more);

    if (!rest || shared > previous || more > max - shared) {
        c->bad = true;
        return 0;
    }
    memcpy(path + shared, rest, (size_t)more);
    return (size_t)(shared + more);
}

/* A record with its length before it, so that fields of a later version are skipped. */
static struct cursor record_of(struct cursor *c)
{
    uint64_t len = number(c);
    const unsigned char *at = take(c, len);

    return at ? (struct cursor){.at = at, .end = at + len} : (struct cursor){.bad = true};
}

/* Checks a member of the given type and its checksum; the payload behind the checksum. */
static int open_member(const unsigned char *data, size_t len, unsigned type, struct cursor *payload,
                       size_t *size, struct lk_error *err)
{
    struct lk_member m;

    if (len < LK_MEMBER_HEADER || !lk_member_parse(data, &m) || m.type != type || m.size > len) {
        return bad_index(err, "a member is not what it should be");
    }
    if (m.payload < 4 || LK_MEMBER_HEADER + m.payload > m.size) {
        return bad_index(err, "a member is too short");
    }
    const unsigned char *p = data + LK_MEMBER_HEADER;
    if (lk_crc32(0, p + 4, m.payload - 4) != lk_get32(p)) {
        return bad_index(err, "a checksum is wrong");
    }
    *payload = (struct cursor){.at = p + 4, .end = p + m.payload};
    *size = m.size;
    return 0;
}

static uint32_t fixed32(struct cursor *c)
{
    const unsigned char *p = take(c, 4);

    return p ? lk_get32(p) : 0;
}

static uint64_t fixed64(struct cursor *c)
{
    const unsigned char *p = take(c, 8);

    return p ? lk_get64(p) : 0;
}

/* Inflates the rest of the payload; *body is freed by the caller. */
static int open_body(struct cursor *payload, uint32_t size, unsigned char **body,
                     struct lk_error *err)
{
    *body = NULL;
    if (payload->bad || size > BODY_MAX) {
        return bad_index(err, "a size is out of range");
    }
    struct lk_inflater *inflater = lk_inflater_new(err);
    if (!inflater) {
        return -1;
    }
    *body = malloc(size + 1u);
    int rc =
        *body ? lk_inflate(inflater, payload->at, (size_t)(payload->end - payload->at), *body, size)
              : lk_error_set(err, LK_MEMORY, "no memory to read an index");
    lk_inflater_free(inflater);
    if (rc < 0 && *body) {
        free(*body);
        *body = NULL;
        return bad_index(err, "a block can't be decompressed");
    }
    return rc;
}

int lk_footer_read(const unsigned char *tail, uint64_t file_size, struct lk_footer *footer,
                   struct lk_error *err)
{
    struct lk_member m;
    struct cursor c;
    size_t size;

    if (!lk_member_parse(tail, &m) || m.type != LK_MEMBER_FOOTER || m.size != LK_FOOTER_SIZE) {
        return lk_error_set(err, LK_NOT_FOUND, "the archive has no index");
    }
    if (open_member(tail, LK_FOOTER_SIZE, LK_MEMBER_FOOTER, &c, &size, err) < 0) {
        return -1;
    }
    uint32_t flags = fixed32(&c);
    footer->partial = flags & LK_FOOTER_PARTIAL;
    footer->ordered = flags & LK_FOOTER_ORDERED;
    footer->list_at = fixed64(&c);
    footer->list_size = fixed64(&c);
    footer->blocks = fixed64(&c);
    footer->members = fixed64(&c);
    footer->entries = fixed64(&c);
    footer->raw = fixed64(&c);
    uint64_t end = file_size - LK_FOOTER_SIZE;
    if (c.bad || file_size < LK_FOOTER_SIZE || footer->list_at > end ||
        footer->list_size != end - footer->list_at) {
        return bad_index(err, "the footer does not fit the size of the file");
    }
    return 0;
}

/* --- list --- */

static int read_refs(struct cursor *body, uint32_t blocks, const struct lk_index_visitor *v,
                     struct lk_error *err)
{
    struct lk_block_ref ref = {0};
    char path[LK_PATH_MAX];

    for (uint32_t i = 0; i < blocks; i++) {
        struct cursor c = record_of(body);
        ref.at += number(&c);
        ref.size = number(&c);
        ref.members = number(&c);
        ref.records = number(&c);
        ref.raw_base += number(&c);
        ref.path_len = path_of(&c, path, ref.path_len, sizeof(path));
        ref.path = path;
        if (c.bad) {
            return bad_index(err, "the list of blocks");
        }
        int rc = v->block ? v->block(v->arg, &ref) : 0;
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

/* Bytes of a member of a type that this version does not know; 0 if there is none. */
static size_t unknown_member(const unsigned char *data, size_t len)
{
    struct lk_member m;
    bool unknown = len >= LK_MEMBER_HEADER && lk_member_parse(data, &m) &&
                   m.type > LK_MEMBER_FOOTER && m.size <= len;

    return unknown ? m.size : 0;
}

int lk_list_read(const unsigned char *data, size_t len, const struct lk_index_visitor *v,
                 struct lk_error *err)
{
    while (len > 0) {
        struct cursor payload;
        unsigned char *bytes;
        size_t size = unknown_member(data, len);
        if (size > 0) {
            data += size;
            len -= size;
            continue;
        }
        if (open_member(data, len, LK_MEMBER_LIST, &payload, &size, err) < 0) {
            return -1;
        }
        uint32_t blocks = fixed32(&payload);
        uint32_t plain = fixed32(&payload);
        if (open_body(&payload, plain, &bytes, err) < 0) {
            return -1;
        }
        struct cursor body = {.at = bytes, .end = bytes + plain};
        int rc = read_refs(&body, blocks, v, err);
        free(bytes);
        if (rc != 0) {
            return rc;
        }
        data += size;
        len -= size;
    }
    return 0;
}

/* --- blocks --- */

/* True if a member can have so many bytes, and end where files can. */
static bool can_be(uint64_t at, uint64_t len, uint64_t max)
{
    return len <= max && at <= (uint64_t)INT64_MAX - max;
}

static int read_members(struct cursor *body, uint32_t members, uint64_t at, uint64_t raw_at,
                        const struct lk_index_visitor *v, struct lk_error *err)
{
    for (uint32_t i = 0; i < members; i++) {
        uint64_t size = number(body);
        uint64_t raw = number(body);
        if (body->bad || !can_be(at, size, LK_MEMBER_MAX) || !can_be(raw_at, raw, LK_MEMBER_SIZE)) {
            return bad_index(err, "the table of members");
        }
        int rc = v->member ? v->member(v->arg, at, size, raw_at, raw) : 0;
        if (rc != 0) {
            return rc;
        }
        at += size;
        raw_at += raw;
    }
    return 0;
}

/* Reads one record on top of what the previous one left in r and path. */
static int read_record(struct cursor *c, struct lk_record *r, char *path, struct cursor *hashes)
{
    uint64_t flags = number(c);
    const unsigned char *type = take(c, 1);

    r->type = type ? (char)*type : 0;
    r->mode = (uint32_t)number(c);
    r->member = difference(c, r->member);
    r->header_at = number(c);
    r->data_at = r->header_at + number(c);
    r->size = number(c);
    r->mtime = (int64_t)difference(c, (uint64_t)r->mtime);
    uint64_t ns = number(c);
    r->mtime_ns = (uint32_t)ns;
    r->full_len = number(c);
    r->path_len = path_of(c, path, r->path_len, LK_PATH_MAX);
    r->path = path;
    r->large = flags & LK_RECORD_LARGE;
    r->sha256 = flags & LK_RECORD_HASH ? take(hashes, 32) : NULL;
    bool cut = flags & LK_RECORD_CUT;
    return c->bad || r->size > INT64_MAX || ns > NS_MAX || hashes->bad ||
                   (cut ? r->full_len <= r->path_len : r->full_len != r->path_len)
               ? -1
               : 0;
}

static int read_records(struct cursor *body, uint32_t records, struct cursor *hashes,
                        const struct lk_index_visitor *v, struct lk_error *err)
{
    struct lk_record r = {0};
    char path[LK_PATH_MAX];

    for (uint32_t i = 0; i < records; i++) {
        struct cursor c = record_of(body);
        if (read_record(&c, &r, path, hashes) < 0) {
            return bad_index(err, "a record");
        }
        int rc = v->record ? v->record(v->arg, &r) : 0;
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

int lk_block_read(const unsigned char *data, size_t len, const struct lk_index_visitor *v,
                  struct lk_error *err)
{
    struct cursor c;
    unsigned char *bytes;
    size_t size;

    if (open_member(data, len, LK_MEMBER_INDEX, &c, &size, err) < 0) {
        return -1;
    }
    uint64_t base = fixed64(&c);
    uint64_t raw_base = fixed64(&c);
    uint32_t members = fixed32(&c);
    uint32_t records = fixed32(&c);
    uint32_t count = fixed32(&c);
    uint32_t plain = fixed32(&c);
    const unsigned char *digests = take(&c, (uint64_t)count * 32);
    if (!digests) {
        return bad_index(err, "the digests of a block");
    }
    if (open_body(&c, plain, &bytes, err) < 0) {
        return -1;
    }
    struct cursor body = {.at = bytes, .end = bytes + plain};
    struct cursor hashes = {.at = digests, .end = digests + (size_t)count * 32};
    int rc = read_members(&body, members, base, raw_base, v, err);
    if (rc == 0) {
        rc = read_records(&body, records, &hashes, v, err);
    }
    free(bytes);
    return rc;
}
