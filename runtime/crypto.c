/* SPDX-License-Identifier: MIT
 * crypto.c - digests, HMAC, RS256, base64, hex, random bytes.
 * Owns nothing between calls but a hasher's own context. OpenSSL's error queue is left empty, and
 * OpenSSL never asks for a passphrase on a terminal. Knows no Lua. Any thread. */
#include "crypto.h"

#include <endian.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

struct digest_info {
    const char *name;    /* what scripts say */
    const char *openssl; /* what OpenSSL says; NULL = a CRC, done here */
    size_t size;
};

static const struct digest_info digests[LK_DIGEST_COUNT] = {
    [LK_MD5] = {"md5", "MD5", 16},          [LK_SHA1] = {"sha1", "SHA1", 20},
    [LK_SHA256] = {"sha256", "SHA256", 32}, [LK_SHA512] = {"sha512", "SHA512", 64},
    [LK_CRC32] = {"crc32", NULL, 4},        [LK_CRC32C] = {"crc32c", NULL, 4},
};

struct lk_hasher {
    enum lk_digest digest;
    uint32_t crc;    /* of the CRCs */
    bool failed;     /* an OpenSSL call failed: the digest will be zeros, which matches nothing */
    EVP_MD *md;      /* fetched once: a fetch costs more than hashing a small file */
    EVP_MD_CTX *ctx; /* NULL for the CRCs */
};

int lk_digest_parse(const char *name, enum lk_digest *digest, struct lk_error *err)
{
    for (int i = 0; i < LK_DIGEST_COUNT; i++) {
        if (strcmp(name, digests[i].name) == 0) {
            *digest = (enum lk_digest)i;
            return 0;
        }
    }
    return lk_error_set(
        err, LK_USAGE, "digest '%.40s': expected md5, sha1, sha256, sha512, crc32 or crc32c", name);
}

const char *lk_digest_name(enum lk_digest digest)
{
    return digests[digest].name;
}

size_t lk_digest_size(enum lk_digest digest)
{
    return digests[digest].size;
}

/* Turns what OpenSSL queued into an error and empties the queue: left there, it would be taken for
 * the failure of somebody else's next call on this thread. */
static int openssl_error(struct lk_error *err, enum lk_kind kind, const char *what)
{
    unsigned long number = ERR_peek_last_error();
    const char *reason = number != 0 ? ERR_reason_error_string(number) : NULL;
    ERR_clear_error();
    return lk_error_set(err, kind, "%s: %s", what,
                        reason != NULL ? reason : "OpenSSL gave no reason");
}

static int digest_error(struct lk_error *err, enum lk_digest digest)
{
    char what[64];
    snprintf(what, sizeof what, "digest %s", digests[digest].name);
    openssl_error(err, LK_IO, what);
    return lk_error_hint(err, "the configuration of OpenSSL on this host may forbid %s (FIPS mode)",
                         digests[digest].name);
}

static void put_crc(uint32_t crc, unsigned char *out)
{
    crc = htobe32(crc);
    memcpy(out, &crc, sizeof crc);
}

static uint32_t update_crc(enum lk_digest digest, uint32_t crc, const void *data, size_t len)
{
    if (len == 0) /* zlib takes NULL for "start anew" */
        return crc;
    return digest == LK_CRC32 ? (uint32_t)crc32_z(crc, data, len) : lk_crc32c(crc, data, len);
}

int lk_digest_of(enum lk_digest digest, const void *data, size_t len, unsigned char *out,
                 struct lk_error *err)
{
    if (digests[digest].openssl == NULL) {
        put_crc(update_crc(digest, 0, data, len), out);
        return 0;
    }
    if (!EVP_Q_digest(NULL, digests[digest].openssl, NULL, len != 0 ? data : "", len, out, NULL))
        return digest_error(err, digest);
    return 0;
}

struct lk_hasher *lk_hasher_new(enum lk_digest digest, struct lk_error *err)
{
    struct lk_hasher *hasher = calloc(1, sizeof *hasher);
    if (hasher == NULL) {
        lk_error_set(err, LK_MEMORY, "digest %s: out of memory", digests[digest].name);
        return NULL;
    }
    hasher->digest = digest;
    if (digests[digest].openssl == NULL)
        return hasher;
    hasher->md = EVP_MD_fetch(NULL, digests[digest].openssl, NULL);
    hasher->ctx = EVP_MD_CTX_new();
    if (hasher->md == NULL || hasher->ctx == NULL ||
        !EVP_DigestInit_ex2(hasher->ctx, hasher->md, NULL)) {
        digest_error(err, digest);
        lk_hasher_free(hasher);
        return NULL;
    }
    return hasher;
}

void lk_hasher_update(struct lk_hasher *hasher, const void *data, size_t len)
{
    if (len == 0)
        return;
    if (hasher->ctx == NULL)
        hasher->crc = update_crc(hasher->digest, hasher->crc, data, len);
    else if (!EVP_DigestUpdate(hasher->ctx, data, len))
        hasher->failed = true;
}

void lk_hasher_final(struct lk_hasher *hasher, unsigned char *out)
{
    if (hasher->ctx == NULL) {
        put_crc(hasher->crc, out);
        hasher->crc = 0;
        return;
    }
    if (!EVP_DigestFinal_ex(hasher->ctx, out, NULL) || hasher->failed) {
        memset(out, 0, digests[hasher->digest].size);
        ERR_clear_error();
    }
    hasher->failed = !EVP_DigestInit_ex2(hasher->ctx, hasher->md, NULL);
}

void lk_hasher_free(struct lk_hasher *hasher)
{
    if (hasher == NULL)
        return;
    EVP_MD_CTX_free(hasher->ctx);
    EVP_MD_free(hasher->md);
    free(hasher);
}

int lk_hmac(enum lk_digest digest, const void *key, size_t key_len, const void *data, size_t len,
            unsigned char *out, struct lk_error *err)
{
    if (digests[digest].openssl == NULL)
        return lk_error_set(err, LK_USAGE,
                            "hmac: %s is a checksum, expected a digest such as sha256",
                            digests[digest].name);
    /* An empty key is a key: OpenSSL wants a pointer all the same. */
    if (EVP_Q_mac(NULL, "HMAC", NULL, digests[digest].openssl, NULL, key_len != 0 ? key : "",
                  key_len, len != 0 ? data : (const void *)"", len, out, LK_DIGEST_MAX,
                  NULL) == NULL)
        return digest_error(err, digest);
    return 0;
}

/* Without a callback OpenSSL would ask for the passphrase on the terminal, and wait. */
static int no_passphrase(char *text, int size, int writing, void *arg)
{
    (void)text;
    (void)size;
    (void)writing;
    *(bool *)arg = true;
    return -1;
}

static EVP_PKEY *read_key(const char *pem, size_t pem_len, struct lk_error *err)
{
    bool encrypted = false;
    EVP_PKEY *key = NULL;
    BIO *bio = pem_len <= INT32_MAX ? BIO_new_mem_buf(pem, (int)pem_len) : NULL;

    if (bio != NULL)
        key = PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, &encrypted);
    BIO_free(bio);
    if (key == NULL && encrypted) {
        ERR_clear_error();
        lk_error_set(err, LK_USAGE,
                     "rs256: the private key is encrypted, expected one without passphrase");
        lk_error_hint(err, "`openssl pkey -in KEY -out PLAIN` writes it without one");
    } else if (key == NULL) {
        openssl_error(err, LK_USAGE, "rs256: expected a private key in PEM form");
        lk_error_hint(err,
                      "the text starts with -----BEGIN PRIVATE KEY----- and has real line breaks");
    } else if (!EVP_PKEY_is_a(key, "RSA")) {
        const char *type = EVP_PKEY_get0_type_name(key);
        lk_error_set(err, LK_USAGE, "rs256: expected an RSA private key, found one of type %s",
                     type != NULL ? type : "unknown");
        EVP_PKEY_free(key);
        key = NULL;
    }
    return key;
}

int lk_rs256(const char *pem, size_t pem_len, const void *data, size_t len, unsigned char **out,
             size_t *out_len, struct lk_error *err)
{
    int result = -1;
    unsigned char *signature = NULL;
    size_t size = 0;
    EVP_MD_CTX *ctx = NULL;
    EVP_PKEY *key = read_key(pem, pem_len, err);

    if (key == NULL)
        return -1;
    ctx = EVP_MD_CTX_new();
    /* PKCS#1 v1.5 is the default padding of an RSA key. */
    if (ctx == NULL || !EVP_DigestSignInit_ex(ctx, NULL, "SHA256", NULL, NULL, key, NULL) ||
        !EVP_DigestSign(ctx, NULL, &size, data, len)) {
        openssl_error(err, LK_IO, "rs256: signing failed");
        goto done;
    }
    signature = malloc(size);
    if (signature == NULL) {
        lk_error_set(err, LK_MEMORY, "rs256: out of memory");
        goto done;
    }
    if (!EVP_DigestSign(ctx, signature, &size, data, len)) {
        openssl_error(err, LK_IO, "rs256: signing failed");
        goto done;
    }
    *out = signature;
    *out_len = size;
    signature = NULL;
    result = 0;
done:
    free(signature);
    EVP_MD_CTX_free(ctx);
    EVP_PKEY_free(key);
    return result;
}

int lk_random(void *out, size_t len, struct lk_error *err)
{
    if (RAND_bytes_ex(NULL, out, len, 0) != 1)
        return openssl_error(err, LK_IO, "random bytes");
    return 0;
}

bool lk_equal(const void *a, const void *b, size_t len)
{
    return len == 0 || CRYPTO_memcmp(a, b, len) == 0;
}

/* --- base64 and hex --- */

static const char base64_standard[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char base64_url[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

size_t lk_base64_size(size_t len)
{
    return len / 3 * 4 + 5;
}

size_t lk_base64(const void *data, size_t len, bool url, char *out)
{
    const char *alphabet = url ? base64_url : base64_standard;
    const unsigned char *in = data;
    char *p = out;

    for (; len >= 3; len -= 3, in += 3) {
        *p++ = alphabet[in[0] >> 2];
        *p++ = alphabet[(in[0] & 3) << 4 | in[1] >> 4];
        *p++ = alphabet[(in[1] & 15) << 2 | in[2] >> 6];
        *p++ = alphabet[in[2] & 63];
    }
    if (len > 0) {
        unsigned second = len > 1 ? in[1] : 0;
        *p++ = alphabet[in[0] >> 2];
        *p++ = alphabet[(in[0] & 3) << 4 | second >> 4];
        if (len > 1)
            *p++ = alphabet[(second & 15) << 2];
        for (size_t i = len; i < 3 && !url; i++)
            *p++ = '=';
    }
    *p = '\0';
    return (size_t)(p - out);
}

static int base64_value(unsigned char c, bool url)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    if (c == (url ? '-' : '+'))
        return 62;
    if (c == (url ? '_' : '/'))
        return 63;
    return -1;
}

ssize_t lk_unbase64(const char *text, size_t len, bool url, void *out)
{
    unsigned char *p = out;
    uint32_t bits = 0;
    int held = 0; /* bits in `bits` not yet written */
    size_t digits = len;

    while (digits > 0 && len - digits < 2 && text[digits - 1] == '=')
        digits--;
    if (digits != len ? len % 4 != 0 : !url && len % 4 != 0)
        return -1;
    if (digits % 4 == 1) /* six bits make no byte */
        return -1;
    for (size_t i = 0; i < digits; i++) {
        int value = base64_value((unsigned char)text[i], url);
        if (value < 0)
            return -1;
        bits = bits << 6 | (uint32_t)value;
        held += 6;
        if (held >= 8) {
            held -= 8;
            *p++ = (unsigned char)(bits >> held);
        }
    }
    /* RFC 4648, 3.5: bits behind the last byte must be zero, else two texts would mean the same
     * bytes. */
    if ((bits & ((1u << held) - 1)) != 0)
        return -1;
    return p - (unsigned char *)out;
}

void lk_hex(const void *data, size_t len, char *out)
{
    const unsigned char *in = data;
    for (size_t i = 0; i < len; i++) {
        *out++ = "0123456789abcdef"[in[i] >> 4];
        *out++ = "0123456789abcdef"[in[i] & 15];
    }
    *out = '\0';
}

static int hex_value(unsigned char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

ssize_t lk_unhex(const char *text, size_t len, void *out)
{
    unsigned char *p = out;
    if (len % 2 != 0)
        return -1;
    for (size_t i = 0; i < len; i += 2) {
        int high = hex_value((unsigned char)text[i]);
        int low = hex_value((unsigned char)text[i + 1]);
        if (high < 0 || low < 0)
            return -1;
        *p++ = (unsigned char)(high << 4 | low);
    }
    return (ssize_t)(len / 2);
}

/* --- CRC-32C ---
 * Without hardware: eight bytes a step through eight tables, where table[k][b] is the CRC of byte b
 * followed by k zero bytes. A CRC is linear, so each table follows from its eight entries for a
 * single bit, and the compiler builds them from those: constant data, nothing to initialise. */
#define BIT(n, bit, value) (((n) >> (bit)&1u) ? (value) : 0u)
#define ENTRY(n, a, b, c, d, e, f, g, h)                                                           \
    (BIT(n, 0, a) ^ BIT(n, 1, b) ^ BIT(n, 2, c) ^ BIT(n, 3, d) ^ BIT(n, 4, e) ^ BIT(n, 5, f) ^     \
     BIT(n, 6, g) ^ BIT(n, 7, h))
#define FOUR(n, ...)                                                                               \
    ENTRY((n), __VA_ARGS__), ENTRY((n) + 1u, __VA_ARGS__), ENTRY((n) + 2u, __VA_ARGS__),           \
        ENTRY((n) + 3u, __VA_ARGS__)
#define SIXTEEN(n, ...)                                                                            \
    FOUR((n), __VA_ARGS__), FOUR((n) + 4u, __VA_ARGS__), FOUR((n) + 8u, __VA_ARGS__),              \
        FOUR((n) + 12u, __VA_ARGS__)
#define SIXTY_FOUR(n, ...)                                                                         \
    SIXTEEN((n), __VA_ARGS__), SIXTEEN((n) + 16u, __VA_ARGS__), SIXTEEN((n) + 32u, __VA_ARGS__),   \
        SIXTEEN((n) + 48u, __VA_ARGS__)
#define ROW(...)                                                                                   \
    {                                                                                              \
        SIXTY_FOUR(0u, __VA_ARGS__), SIXTY_FOUR(64u, __VA_ARGS__), SIXTY_FOUR(128u, __VA_ARGS__),  \
            SIXTY_FOUR(192u, __VA_ARGS__)                                                          \
    }

static const uint32_t crc32c_table[8][256] = {
    ROW(0xf26b8303u, 0xe13b70f7u, 0xc79a971fu, 0x8ad958cfu, 0x105ec76fu, 0x20bd8edeu, 0x417b1dbcu,
        0x82f63b78u),
    ROW(0x13a29877u, 0x274530eeu, 0x4e8a61dcu, 0x9d14c3b8u, 0x3fc5f181u, 0x7f8be302u, 0xff17c604u,
        0xfbc3faf9u),
    ROW(0xa541927eu, 0x4f6f520du, 0x9edea41au, 0x38513ec5u, 0x70a27d8au, 0xe144fb14u, 0xc76580d9u,
        0x8b277743u),
    ROW(0xdd45aab8u, 0xbf672381u, 0x7b2231f3u, 0xf64463e6u, 0xe964b13du, 0xd725148bu, 0xaba65fe7u,
        0x52a0c93fu),
    ROW(0x38116facu, 0x7022df58u, 0xe045beb0u, 0xc5670b91u, 0x8f2261d3u, 0x1ba8b557u, 0x37516aaeu,
        0x6ea2d55cu),
    ROW(0xef306b19u, 0xdb8ca0c3u, 0xb2f53777u, 0x6006181fu, 0xc00c303eu, 0x85f4168du, 0x0e045bebu,
        0x1c08b7d6u),
    ROW(0x68032cc8u, 0xd0065990u, 0xa5e0c5d1u, 0x4e2dfd53u, 0x9c5bfaa6u, 0x3d5b83bdu, 0x7ab7077au,
        0xf56e0ef4u),
    ROW(0x493c7d27u, 0x9278fa4eu, 0x211d826du, 0x423b04dau, 0x847609b4u, 0x0d006599u, 0x1a00cb32u,
        0x34019664u),
};

uint32_t lk_crc32c_portable(uint32_t crc, const void *data, size_t len)
{
    const unsigned char *in = data;
    crc = ~crc;
    for (; len >= 8; len -= 8, in += 8) {
        uint64_t word;
        memcpy(&word, in, sizeof word);
        word = le64toh(word) ^ crc;
        crc = 0;
        for (int i = 0; i < 8; i++)
            crc ^= crc32c_table[7 - i][word >> (8 * i) & 255];
    }
    for (; len > 0; len--)
        crc = crc >> 8 ^ crc32c_table[0][(crc ^ *in++) & 255];
    return ~crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t crc32c_sse42(uint32_t crc, const void *data,
                                                               size_t len)
{
    const unsigned char *in = data;
    uint64_t state = ~crc;
    for (; len >= 8; len -= 8, in += 8) {
        uint64_t word;
        memcpy(&word, in, sizeof word);
        state = _mm_crc32_u64(state, word);
    }
    crc = (uint32_t)state;
    for (; len > 0; len--)
        crc = _mm_crc32_u8(crc, *in++);
    return ~crc;
}
#endif

uint32_t lk_crc32c(uint32_t crc, const void *data, size_t len)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2"))
        return crc32c_sse42(crc, data, len);
#endif
    return lk_crc32c_portable(crc, data, len);
}
