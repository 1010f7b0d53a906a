/* SPDX-License-Identifier: MIT
 * tar_scan.c - reads the headers that tar.c writes: ustar, and before it an extended header of
 * which path and size count. Owns nothing, believes no number. Any thread. */
#include "tar_scan.h"

#include "tar.h"
#include <string.h>

enum {
    AT_SIZE = 124,
    SIZE_LEN = 12,
    AT_CHECKSUM = 148,
    CHECKSUM_LEN = 8,
    AT_TYPE = 156,
    AT_MAGIC = 257,
    AT_PREFIX = 345,
    NAME_LEN = 100,
    PREFIX_LEN = 155,
    HASHED = 4096
};

static uint64_t hash_more(uint64_t hash, const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        hash = (hash ^ (unsigned char)text[i]) * 0x100000001b3u; /* FNV-1a */
    }
    return hash;
}

uint64_t lk_path_hash(const char *path, size_t len)
{
    if (len > 0 && path[len - 1] == '/') {
        len--;
    }
    return hash_more(0xcbf29ce484222325u, path, len < HASHED ? len : HASHED);
}

/* Octal digits, then spaces or NUL bytes. */
static bool octal(const unsigned char *field, size_t len, uint64_t *value)
{
    size_t i = 0;

    *value = 0;
    while (i < len && field[i] == ' ') {
        i++;
    }
    for (; i < len && field[i] >= '0' && field[i] <= '7'; i++) {
        *value = *value << 3 | (uint64_t)(field[i] - '0');
    }
    return i == len || field[i] == 0 || field[i] == ' ';
}

/* The base-256 form of what octal can't say is left to the extended header that comes with it. */
static bool read_size(const unsigned char *block, uint64_t *size)
{
    if (block[AT_SIZE] & 0x80) {
        *size = 0;
        return true;
    }
    return octal(block + AT_SIZE, SIZE_LEN, size);
}

static bool is_header(const unsigned char *block)
{
    uint64_t wanted, sum = 0;

    if (memcmp(block + AT_MAGIC, "ustar", 5) != 0 ||
        !octal(block + AT_CHECKSUM, CHECKSUM_LEN, &wanted)) {
        return false;
    }
    for (size_t i = 0; i < LK_TAR_BLOCK; i++) {
        bool own = i >= AT_CHECKSUM && i < AT_CHECKSUM + CHECKSUM_LEN;
        sum += own ? ' ' : block[i];
    }
    return sum == wanted;
}

static bool zeros(const unsigned char *data, size_t len)
{
    return len == 0 || (data[0] == 0 && memcmp(data, data + 1, len - 1) == 0);
}

static size_t text_len(const unsigned char *field, size_t max)
{
    const unsigned char *end = memchr(field, 0, max);

    return end ? (size_t)(end - field) : max;
}

/* The path of a ustar header: prefix, slash, name. */
static uint64_t plain_hash(const unsigned char *block)
{
    char path[PREFIX_LEN + 1 + NAME_LEN];
    size_t prefix = text_len(block + AT_PREFIX, PREFIX_LEN), name = text_len(block, NAME_LEN);

    memcpy(path, block + AT_PREFIX, prefix);
    if (prefix > 0) {
        path[prefix++] = '/';
    }
    memcpy(path + prefix, block, name);
    return lk_path_hash(path, prefix + name);
}

struct extended {
    bool has_path, has_size;
    uint64_t path_hash, size;
};

static bool decimal(const char *text, size_t len, uint64_t *value)
{
    *value = 0;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9' || *value > (UINT64_MAX - 9) / 10) {
            return false;
        }
        *value = *value * 10 + (uint64_t)(text[i] - '0');
    }
    return len > 0;
}

static bool use_record(struct extended *x, const char *key, size_t key_len, const char *value,
                       size_t len)
{
    if (key_len == 4 && memcmp(key, "path", 4) == 0) {
        x->has_path = true;
        x->path_hash = lk_path_hash(value, len);
    } else if (key_len == 4 && memcmp(key, "size", 4) == 0) {
        x->has_size = true;
        return decimal(value, len, &x->size);
    }
    return key_len < 11 || memcmp(key, "GNU.sparse.", 11) != 0;
}

/* Records "LENGTH key=value\n". */
static bool read_extended(const char *text, size_t len, struct extended *x)
{
    while (len > 0) {
        const char *space = memchr(text, ' ', len < 20 ? len : 20);
        uint64_t all;
        if (!space || !decimal(text, (size_t)(space - text), &all)) {
            return false;
        }
        size_t head = (size_t)(space - text) + 1;
        if (all > len || all < head + 2 || text[all - 1] != '\n') {
            return false;
        }
        const char *equals = memchr(space + 1, '=', (size_t)all - head);
        if (!equals || !use_record(x, space + 1, (size_t)(equals - space - 1), equals + 1,
                                   (size_t)(text + all - 1 - (equals + 1)))) {
            return false;
        }
        text += all;
        len -= (size_t)all;
    }
    return true;
}

int lk_tar_scan(const unsigned char *data, size_t len, size_t at, struct lk_tar_item *item)
{
    struct extended x = {.has_path = false};
    uint64_t size;

    if (at >= len || zeros(data + at, len - at < LK_TAR_BLOCK ? len - at : LK_TAR_BLOCK)) {
        return at >= len || zeros(data + at, len - at) ? 0 : -1;
    }
    item->header_at = at;
    if (len - at < LK_TAR_BLOCK || !is_header(data + at) || !read_size(data + at, &size)) {
        return -1;
    }
    if (data[at + AT_TYPE] == 'x') {
        size_t rest = len - at - LK_TAR_BLOCK;
        if (size > rest || size + lk_tar_padding(size) + LK_TAR_BLOCK > rest ||
            !read_extended((const char *)data + at + LK_TAR_BLOCK, (size_t)size, &x)) {
            return -1;
        }
        at += LK_TAR_BLOCK + (size_t)size + lk_tar_padding(size);
        if (!is_header(data + at) || !read_size(data + at, &size)) {
            return -1;
        }
    }
    item->type = (char)data[at + AT_TYPE];
    if (!strchr("01234567", item->type) || item->type == 0) {
        return -1;
    }
    item->size = x.has_size ? x.size : size;
    item->path_hash = x.has_path ? x.path_hash : plain_hash(data + at);
    item->data_at = at + LK_TAR_BLOCK;
    return 1;
}
