/* SPDX-License-Identifier: MIT
 * member.h - the gzip members that lunark writes: a header of fixed size with an extra subfield,
 * docs/format.md. Plain functions on bytes; any thread. */
#ifndef LK_MEMBER_H
#define LK_MEMBER_H

#include "gzip.h"

enum lk_member_type { LK_MEMBER_DATA, LK_MEMBER_INDEX, LK_MEMBER_LIST, LK_MEMBER_FOOTER };

enum {
    LK_MEMBER_STARTS = 1,  /* flag: the first byte of data is the first of a tar entry */
    LK_MEMBER_HEADER = 28, /* bytes from the magic number to the end of the subfield's fixed part */
    LK_MEMBER_TRAILER = 8,
    LK_EXTRA_MAX = 8192, /* XLEN at most */
    LK_PAYLOAD_MAX = LK_EXTRA_MAX - 16,
    LK_EMPTY_BODY = 2 /* a deflate body of no bytes */
};

/* Bytes that the largest member needs, stored. */
#define LK_MEMBER_MAX (LK_MEMBER_SIZE + 4096)

struct lk_member {
    unsigned type; /* enum lk_member_type, or one of a later version */
    unsigned flags;
    uint32_t raw;   /* bytes of data in it */
    uint32_t size;  /* bytes of the whole member */
    size_t payload; /* bytes behind the fixed part, inside the subfield */
    size_t header;  /* bytes before the deflate body */
};

/* Writes LK_MEMBER_HEADER bytes; payload bytes (at most LK_PAYLOAD_MAX) follow them in the file. */
void lk_member_header(unsigned char *out, unsigned type, unsigned flags, size_t raw, size_t size,
                      size_t payload);
/* Looks at LK_MEMBER_HEADER bytes: true if a member of ours begins here whose numbers are within
 * the limits. */
bool lk_member_parse(const unsigned char *in, struct lk_member *member);
void lk_member_trailer(unsigned char *out, uint32_t crc, size_t raw);

/* A whole empty member around a payload; its size. out has LK_MEMBER_HEADER + payload + 10 bytes of
 * room. */
size_t lk_member_empty(unsigned char *out, unsigned type, const void *payload, size_t len);

/* Little-endian numbers. */
void lk_put16(unsigned char *out, unsigned value);
void lk_put32(unsigned char *out, uint32_t value);
void lk_put64(unsigned char *out, uint64_t value);
unsigned lk_get16(const unsigned char *in);
uint32_t lk_get32(const unsigned char *in);
uint64_t lk_get64(const unsigned char *in);

#endif
