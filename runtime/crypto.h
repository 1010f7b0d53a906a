/* SPDX-License-Identifier: MIT
 * crypto.h - digests, HMAC, RS256, base64, hex, random bytes: OpenSSL and zlib behind a few
 * functions. Any thread; no global state. */
#ifndef LK_CRYPTO_H
#define LK_CRYPTO_H

#include "error.h"
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum lk_digest { LK_MD5, LK_SHA1, LK_SHA256, LK_SHA512, LK_CRC32, LK_CRC32C, LK_DIGEST_COUNT };
#define LK_DIGEST_MAX 64

/* "md5", "sha1", "sha256", "sha512", "crc32", "crc32c"; -1 (LK_USAGE) for others. */
int lk_digest_parse(const char *name, enum lk_digest *digest, struct lk_error *err);
const char *lk_digest_name(enum lk_digest digest);
size_t lk_digest_size(enum lk_digest digest); /* 16, 20, 32, 64, 4, 4; CRCs are big-endian */

/* One-shot; out has LK_DIGEST_MAX bytes. */
int lk_digest_of(enum lk_digest digest, const void *data, size_t len, unsigned char *out,
                 struct lk_error *err);

struct lk_hasher;
struct lk_hasher *lk_hasher_new(enum lk_digest digest, struct lk_error *err);
void lk_hasher_update(struct lk_hasher *hasher, const void *data, size_t len);
/* Writes the digest and starts anew. */
void lk_hasher_final(struct lk_hasher *hasher, unsigned char *out);
void lk_hasher_free(struct lk_hasher *hasher);

/* md5, sha1, sha256, sha512 (RFC 2104). */
int lk_hmac(enum lk_digest digest, const void *key, size_t key_len, const void *data, size_t len,
            unsigned char *out, struct lk_error *err);
/* RSASSA-PKCS1-v1_5 with SHA-256 (RFC 7518, 3.3). pem: PKCS#8 or PKCS#1 private key. *out is
 * malloc'ed. */
int lk_rs256(const char *pem, size_t pem_len, const void *data, size_t len, unsigned char **out,
             size_t *out_len, struct lk_error *err);
int lk_random(void *out, size_t len, struct lk_error *err);
bool lk_equal(const void *a, const void *b, size_t len); /* constant time */

/* RFC 4648. The out buffers hold lk_base64_size(len) / len * 2 + 1 bytes and are NUL-terminated;
 * the number of bytes written, or -1 for input that is not valid. url: alphabet of section 5
 * without padding (decoding takes both). */
size_t lk_base64_size(size_t len);
size_t lk_base64(const void *data, size_t len, bool url, char *out);
ssize_t lk_unbase64(const char *text, size_t len, bool url, void *out); /* out: len bytes */
void lk_hex(const void *data, size_t len, char *out);                   /* lower case */
ssize_t lk_unhex(const char *text, size_t len, void *out);
uint32_t lk_crc32c(uint32_t crc, const void *data,
                   size_t len); /* Castagnoli, hardware where there is */
/* The same result without the hardware, which lk_crc32c falls back to. */
uint32_t lk_crc32c_portable(uint32_t crc, const void *data, size_t len);

#endif
