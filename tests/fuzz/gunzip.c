/* SPDX-License-Identifier: MIT
 * gunzip.c - any bytes as gzip data. What lunark takes for whole zlib must take for whole too, and
 * the bytes must be the same; zlib may accept more, because it knows nothing of sizes in headers.
 *
 * Input: a byte that says how long the first chunk is, then the data. The mutator also makes
 * members whole again (sizes, CRC), because by chance no change would get past them. */
#include "fuzz.h"

#include <zlib.h>

/* What comes out of a small input may be a thousand times as much; more is cancelled. */
enum { OUTPUT_MAX = 3 << 19 };

static unsigned char wanted[OUTPUT_MAX];

/* One member by zlib: its size, or 0 when there is none. *out grows; past OUTPUT_MAX nothing is
 * kept. */
static size_t zlib_member(const uint8_t *data, size_t size, size_t *out)
{
    static unsigned char spill[1 << 16];
    z_stream z = {.next_in = (Bytef *)(uintptr_t)data, .avail_in = (uInt)size};
    int rc;

    must(inflateInit2(&z, 16 + MAX_WBITS) == Z_OK);
    do {
        bool room = *out < OUTPUT_MAX;
        uInt before = room ? (uInt)(OUTPUT_MAX - *out) : (uInt)sizeof spill;
        z.next_out = room ? wanted + *out : spill;
        z.avail_out = before;
        rc = inflate(&z, Z_NO_FLUSH);
        if (room)
            *out += before - z.avail_out;
    } while (rc == Z_OK);
    size_t used = size - z.avail_in;
    inflateEnd(&z);
    return rc == Z_STREAM_END ? used : 0;
}

/* True if all of it is gzip; its data is in `wanted`. */
static bool by_zlib(const uint8_t *data, size_t size, size_t *out)
{
    size_t at = 0;

    *out = 0;
    do {
        size_t used = zlib_member(data + at, size - at, out);
        if (used == 0)
            return false;
        at += used;
    } while (at < size && data[at] == 0x1f);
    while (at < size && data[at] == 0)
        at++;
    return at == size;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct lk_error err = {0};
    struct lk_chunk *chunk;
    size_t out = 0, expected;
    int rc;

    unsigned first = take_byte(&data, &size);
    bool whole = by_zlib(data, size, &expected);
    struct lk_stream *plain =
        lk_gunzip(fuzz_pool(), fuzz_stream(data, size, 1 + first), 1 + first % 3, &err);
    must(plain);
    while ((rc = lk_stream_read(plain, &chunk, &err)) == LK_STREAM_DATA) {
        must(chunk->len > 0 && chunk->len <= LK_MEMBER_SIZE);
        size_t n = out < OUTPUT_MAX ? OUTPUT_MAX - out : 0;
        n = chunk->len < n ? chunk->len : n;
        must(out + n <= expected && memcmp(wanted + out, chunk->data, n) == 0);
        out += n;
        lk_chunk_unref(chunk);
        if (out >= OUTPUT_MAX) {
            lk_stream_cancel(plain);
            break;
        }
    }
    must(rc != LK_STREAM_DONE || (whole && out == expected));
    must(rc >= 0 || (err.kind == LK_CORRUPT && err.message[0] != '\0'));
    lk_stream_unref(plain);
    return 0;
}

/* --- the mutator --- */

/* Makes one member of ours whole as far as its body can be decompressed; its size, 0 = none here.
 */
static size_t repair(uint8_t *data, size_t size)
{
    struct lk_member m;
    static unsigned char out[LK_MEMBER_SIZE];

    if (size < LK_MEMBER_HEADER)
        return 0;
    lk_put32(data + 20, 0);
    lk_put32(data + 24, LK_MEMBER_MAX);
    if (!lk_member_parse(data, &m) || m.header + LK_MEMBER_TRAILER > size)
        return 0;
    z_stream z = {.next_in = data + m.header, .avail_in = (uInt)(size - m.header)};
    z.next_out = out;
    z.avail_out = sizeof out;
    must(inflateInit2(&z, -MAX_WBITS) == Z_OK);
    int rc = inflate(&z, Z_FINISH);
    size_t used = size - z.avail_in, raw = sizeof out - z.avail_out;
    inflateEnd(&z);
    if (rc != Z_STREAM_END || used + LK_MEMBER_TRAILER > size)
        return 0;
    lk_put32(data + 20, (uint32_t)raw);
    lk_put32(data + 24, (uint32_t)(used + LK_MEMBER_TRAILER));
    lk_member_trailer(data + used, (uint32_t)crc32(0, out, (uInt)raw), raw);
    return used + LK_MEMBER_TRAILER;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed)
{
    size_t n = 1;

    size = LLVMFuzzerMutate(data, size, max);
    for (size_t at = 1; seed % 3 != 0 && at < size && n > 0; at += n)
        n = repair(data + at, size - at);
    return size;
}
