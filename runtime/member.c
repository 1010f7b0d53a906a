/* SPDX-License-Identifier: MIT
 * member.c - headers and trailers of gzip members (RFC 1952) with lunark's subfield "LK".
 * Owns nothing, allocates nothing. Any thread. */
#include "member.h"

#include <string.h>

enum { VERSION = 1, FEXTRA = 4, SUBFIELD = 12 };

void lk_put16(unsigned char *out, unsigned value)
{
    out[0] = (unsigned char)value;
    out[1] = (unsigned char)(value >> 8);
}

void lk_put32(unsigned char *out, uint32_t value)
{
    lk_put16(out, value & 0xffff);
    lk_put16(out + 2, value >> 16);
}

void lk_put64(unsigned char *out, uint64_t value)
{
    lk_put32(out, (uint32_t)value);
    lk_put32(out + 4, (uint32_t)(value >> 32));
}

unsigned lk_get16(const unsigned char *in)
{
    return in[0] | (unsigned)in[1] << 8;
}

uint32_t lk_get32(const unsigned char *in)
{
    return lk_get16(in) | (uint32_t)lk_get16(in + 2) << 16;
}

uint64_t lk_get64(const unsigned char *in)
{
    return lk_get32(in) | (uint64_t)lk_get32(in + 4) << 32;
}

/* Time 0 and system 255 (unknown), so that the bytes depend on the data alone. */
void lk_member_header(unsigned char *out, unsigned type, unsigned flags, size_t raw, size_t size,
                      size_t payload)
{
    static const unsigned char head[10] = {0x1f, 0x8b, 8, FEXTRA, 0, 0, 0, 0, 0, 255};

    memcpy(out, head, sizeof(head));
    lk_put16(out + 10, (unsigned)(4 + SUBFIELD + payload));
    out[12] = 'L';
    out[13] = 'K';
    lk_put16(out + 14, (unsigned)(SUBFIELD + payload));
    out[16] = VERSION;
    out[17] = (unsigned char)type;
    lk_put16(out + 18, flags);
    lk_put32(out + 20, (uint32_t)raw);
    lk_put32(out + 24, (uint32_t)size);
}

bool lk_member_parse(const unsigned char *in, struct lk_member *member)
{
    size_t extra = lk_get16(in + 10);
    size_t subfield = lk_get16(in + 14);

    if (in[0] != 0x1f || in[1] != 0x8b || in[2] != 8 || in[3] != FEXTRA || in[12] != 'L' ||
        in[13] != 'K' || in[16] != VERSION || subfield < SUBFIELD || extra < 4 + subfield) {
        return false;
    }
    member->type = in[17];
    member->flags = lk_get16(in + 18);
    member->raw = lk_get32(in + 20);
    member->size = lk_get32(in + 24);
    member->payload = subfield - SUBFIELD;
    member->header = 12 + extra;
    return member->raw <= LK_MEMBER_SIZE && member->size <= LK_MEMBER_MAX &&
           extra <= LK_EXTRA_MAX &&
           member->size >= member->header + LK_EMPTY_BODY + LK_MEMBER_TRAILER;
}

void lk_member_trailer(unsigned char *out, uint32_t crc, size_t raw)
{
    lk_put32(out, crc);
    lk_put32(out + 4, (uint32_t)raw);
}

size_t lk_member_empty(unsigned char *out, unsigned type, const void *payload, size_t len)
{
    size_t size = LK_MEMBER_HEADER + len + LK_EMPTY_BODY + LK_MEMBER_TRAILER;

    lk_member_header(out, type, 0, 0, size, len);
    if (len > 0) {
        memcpy(out + LK_MEMBER_HEADER, payload, len);
    }
    unsigned char *body = out + LK_MEMBER_HEADER + len;
    body[0] = 3; /* one last block of fixed codes with nothing but its end */
    body[1] = 0;
    lk_member_trailer(body + LK_EMPTY_BODY, 0, 0);
    return size;
}
