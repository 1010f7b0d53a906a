/* SPDX-License-Identifier: MIT
 * engine.c - zlib, libdeflate and ISA-L behind one interface, and the names of engines and levels.
 * Owns the libraries' objects. Knows nothing of gzip members or streams. Any thread; an object is
 * used by one at a time.
 *
 * Levels were chosen by measurement on a tar of /usr/share (MB/s of one core, size against pigz of
 * the same input): fast = ISA-L 2 (850, +0.4 % of pigz -1; level 3 is 1.6 % smaller at 500),
 * balanced = libdeflate 5 (150, -0.5 % of pigz -6; level 6 is 0.4 % smaller at 132), best =
 * libdeflate 9 (54, -0.8 % of pigz -9; 12 is 2 % smaller at 9). */
#include "engine.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#ifdef HAVE_LIBDEFLATE
#include <libdeflate.h>
#endif
#ifdef HAVE_ISAL
#include <isa-l.h>
#endif

enum { STORED_MAX = 65535, SAMPLES = 64, SAMPLE_SIZE = 256 };

struct lk_deflater {
    enum lk_engine engine;
    int level;
    bool zlib_ready;
    z_stream zlib;
#ifdef HAVE_LIBDEFLATE
    struct libdeflate_compressor *libdeflate;
#endif
#ifdef HAVE_ISAL
    struct isal_zstream *isal;
    uint8_t *isal_buffer;
    uint32_t isal_size;
#endif
};

struct lk_inflater {
#ifdef HAVE_LIBDEFLATE
    struct libdeflate_decompressor *libdeflate;
#else
    z_stream zlib;
    bool zlib_ready;
#endif
};

static const char *const engine_names[LK_ENGINE_COUNT] = {"auto", "zlib", "libdeflate", "isal"};

const char *lk_engine_version(enum lk_engine engine)
{
    switch (engine) {
    case LK_ENGINE_ZLIB:
        return zlibVersion();
#ifdef HAVE_LIBDEFLATE
    case LK_ENGINE_LIBDEFLATE:
        return LIBDEFLATE_VERSION_STRING;
#endif
#ifdef HAVE_ISAL
#define TEXT2(x) #x
#define TEXT(x) TEXT2(x)
    case LK_ENGINE_ISAL:
        return TEXT(ISAL_MAJOR_VERSION) "." TEXT(ISAL_MINOR_VERSION) "." TEXT(ISAL_PATCH_VERSION);
#endif
    default:
        return NULL;
    }
}

int lk_engine_parse(const char *name, enum lk_engine *engine, struct lk_error *err)
{
    for (int i = 0; i < LK_ENGINE_COUNT; i++) {
        if (!strcmp(name, engine_names[i])) {
            *engine = (enum lk_engine)i;
            return 0;
        }
    }
    lk_error_set(err, LK_USAGE, "unknown compression engine '%s'", name);
    return lk_error_hint(err, "use auto, zlib, libdeflate or isal");
}

int lk_level_parse(const char *name, int *level, struct lk_error *err)
{
    static const struct {
        const char *name;
        int level;
    } words[] = {{"none", LK_LEVEL_NONE},
                 {"fast", LK_LEVEL_FAST},
                 {"balanced", LK_LEVEL_BALANCED},
                 {"best", LK_LEVEL_BEST}};

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (!strcmp(name, words[i].name)) {
            *level = words[i].level;
            return 0;
        }
    }
    char *end = NULL;
    long number = name[0] >= '1' && name[0] <= '9' ? strtol(name, &end, 10) : 0;
    if (number >= 1 && number <= 12 && *end == '\0') {
        *level = (int)number;
        return 0;
    }
    lk_error_set(err, LK_USAGE, "unknown compression level '%s'", name);
    return lk_error_hint(err, "use fast, balanced, best, none, or a number from 1 to 12");
}

/* The best engine there is for a level that was asked for. */
static enum lk_engine auto_engine(int level)
{
    if (level == LK_LEVEL_FAST && lk_engine_version(LK_ENGINE_ISAL)) {
        return LK_ENGINE_ISAL;
    }
    return lk_engine_version(LK_ENGINE_LIBDEFLATE) ? LK_ENGINE_LIBDEFLATE : LK_ENGINE_ZLIB;
}

int lk_engine_pick(enum lk_engine *engine, int *level, struct lk_error *err)
{
    static const struct {
        int fast, balanced, best, max;
    } levels[LK_ENGINE_COUNT] = {[LK_ENGINE_ZLIB] = {1, 6, 9, 9},
                                 [LK_ENGINE_LIBDEFLATE] = {1, 5, 9, 12},
                                 [LK_ENGINE_ISAL] = {2, 3, 3, 3}};

    if (*level < LK_LEVEL_BEST || *level > 12) {
        return lk_error_set(err, LK_USAGE, "unknown compression level %d", *level);
    }
    enum lk_engine chosen = *engine == LK_ENGINE_AUTO ? auto_engine(*level) : *engine;
    if (chosen >= LK_ENGINE_COUNT || !lk_engine_version(chosen)) {
        lk_error_set(err, LK_USAGE, "compression engine '%s' is not built in",
                     chosen < LK_ENGINE_COUNT ? engine_names[chosen] : "?");
        return lk_error_hint(err, "use auto or zlib, or build with the engine's library installed");
    }
    *engine = chosen;
    if (*level == LK_LEVEL_FAST) {
        *level = levels[chosen].fast;
    } else if (*level == LK_LEVEL_BALANCED) {
        *level = levels[chosen].balanced;
    } else if (*level == LK_LEVEL_BEST) {
        *level = levels[chosen].best;
    } else if (*level > levels[chosen].max) {
        *level = levels[chosen].max;
    }
    return 0;
}

#ifdef HAVE_ISAL
static bool open_isal(struct lk_deflater *d)
{
    static const uint32_t sizes[] = {ISAL_DEF_LVL0_DEFAULT, ISAL_DEF_LVL1_LARGE,
                                     ISAL_DEF_LVL2_LARGE, ISAL_DEF_LVL3_LARGE};

    d->isal_size = sizes[d->level];
    d->isal = calloc(1, sizeof(*d->isal));
    d->isal_buffer = calloc(1, d->isal_size + 1);
    return d->isal && d->isal_buffer;
}
#endif

static bool open_engine(struct lk_deflater *d)
{
    switch (d->engine) {
#ifdef HAVE_LIBDEFLATE
    case LK_ENGINE_LIBDEFLATE:
        d->libdeflate = libdeflate_alloc_compressor(d->level);
        return d->libdeflate != NULL;
#endif
#ifdef HAVE_ISAL
    case LK_ENGINE_ISAL:
        return open_isal(d);
#endif
    default:
        d->zlib_ready =
            deflateInit2(&d->zlib, d->level, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY) == Z_OK;
        return d->zlib_ready;
    }
}

struct lk_deflater *lk_deflater_new(enum lk_engine engine, int level, struct lk_error *err)
{
    struct lk_deflater *d = calloc(1, sizeof(*d));

    if (d) {
        d->engine = engine;
        d->level = level;
    }
    if (!d || (level > 0 && !open_engine(d))) {
        lk_error_set(err, LK_MEMORY, "no memory for a %s compressor of level %d",
                     engine_names[engine], level);
        lk_deflater_free(d);
        return NULL;
    }
    return d;
}

void lk_deflater_free(struct lk_deflater *d)
{
    if (!d) {
        return;
    }
#ifdef HAVE_LIBDEFLATE
    libdeflate_free_compressor(d->libdeflate);
#endif
#ifdef HAVE_ISAL
    free(d->isal);
    free(d->isal_buffer);
#endif
    if (d->zlib_ready) {
        deflateEnd(&d->zlib);
    }
    free(d);
}

#ifdef HAVE_ISAL
static size_t isal(struct lk_deflater *d, const void *in, size_t len, void *out, size_t cap)
{
    struct isal_zstream *s = d->isal;

    isal_deflate_stateless_init(s);
    s->level = (uint32_t)d->level;
    s->level_buf = d->isal_buffer;
    s->level_buf_size = d->isal_size;
    s->end_of_stream = 1;
    s->flush = NO_FLUSH;
    s->next_in = (uint8_t *)(uintptr_t)in;
    s->avail_in = (uint32_t)len;
    s->next_out = out;
    s->avail_out = (uint32_t)cap;
    /* The library leaves an input that did not fit without an error in some versions: look at both
     * ends. */
    return isal_deflate_stateless(s) == COMP_OK && s->avail_in == 0 ? s->total_out : 0;
}
#endif

static size_t zlib(struct lk_deflater *d, const void *in, size_t len, void *out, size_t cap)
{
    z_stream *s = &d->zlib;

    deflateReset(s);
    s->next_in = (Bytef *)(uintptr_t)in;
    s->avail_in = (uInt)len;
    s->next_out = out;
    s->avail_out = (uInt)cap;
    return deflate(s, Z_FINISH) == Z_STREAM_END ? s->total_out : 0;
}

size_t lk_deflate(struct lk_deflater *d, const void *in, size_t len, void *out, size_t cap)
{
    if (len > UINT_MAX || cap > UINT_MAX) {
        return 0;
    }
    if (d->level == 0) {
        return lk_deflate_stored(in, len, out, cap);
    }
    switch (d->engine) {
#ifdef HAVE_LIBDEFLATE
    case LK_ENGINE_LIBDEFLATE:
        return libdeflate_deflate_compress(d->libdeflate, in, len, out, cap);
#endif
#ifdef HAVE_ISAL
    case LK_ENGINE_ISAL:
        return isal(d, in, len, out, cap);
#endif
    default:
        return zlib(d, in, len, out, cap);
    }
}

size_t lk_stored_size(size_t len)
{
    size_t blocks = len == 0 ? 1 : (len + STORED_MAX - 1) / STORED_MAX;

    return len + blocks * 5;
}

/* RFC 1951, 3.2.4: a block of at most 65,535 bytes behind a bit for "last", its length and the
 * complement. */
size_t lk_deflate_stored(const void *in, size_t len, void *out, size_t cap)
{
    const unsigned char *from = in;
    unsigned char *to = out;
    size_t left = len;

    if (cap < lk_stored_size(len)) {
        return 0;
    }
    do {
        size_t n = left < STORED_MAX ? left : STORED_MAX;
        *to++ = n == left;
        *to++ = (unsigned char)n;
        *to++ = (unsigned char)(n >> 8);
        *to++ = (unsigned char)~n;
        *to++ = (unsigned char)(~n >> 8);
        if (n > 0) {
            memcpy(to, from, n);
        }
        to += n;
        from += n;
        left -= n;
    } while (left > 0);
    return (size_t)(to - (unsigned char *)out);
}

struct lk_inflater *lk_inflater_new(struct lk_error *err)
{
    struct lk_inflater *i = calloc(1, sizeof(*i));

#ifdef HAVE_LIBDEFLATE
    bool ready = i && (i->libdeflate = libdeflate_alloc_decompressor()) != NULL;
#else
    bool ready = i && (i->zlib_ready = inflateInit2(&i->zlib, -MAX_WBITS) == Z_OK);
#endif
    if (!ready) {
        lk_error_set(err, LK_MEMORY, "no memory for a decompressor");
        lk_inflater_free(i);
        return NULL;
    }
    return i;
}

void lk_inflater_free(struct lk_inflater *i)
{
    if (!i) {
        return;
    }
#ifdef HAVE_LIBDEFLATE
    libdeflate_free_decompressor(i->libdeflate);
#else
    if (i->zlib_ready) {
        inflateEnd(&i->zlib);
    }
#endif
    free(i);
}

int lk_inflate(struct lk_inflater *i, const void *in, size_t len, void *out, size_t out_len)
{
    if (len > UINT_MAX || out_len > UINT_MAX) {
        return -1;
    }
#ifdef HAVE_LIBDEFLATE
    size_t used = 0;
    size_t made = 0;
    enum libdeflate_result result =
        libdeflate_deflate_decompress_ex(i->libdeflate, in, len, out, out_len, &used, &made);
    return result == LIBDEFLATE_SUCCESS && used == len && made == out_len ? 0 : -1;
#else
    z_stream *s = &i->zlib;
    inflateReset(s);
    s->next_in = (Bytef *)(uintptr_t)in;
    s->avail_in = (uInt)len;
    s->next_out = out;
    s->avail_out = (uInt)out_len;
    int result = inflate(s, Z_FINISH);
    return result == Z_STREAM_END && s->avail_in == 0 && s->total_out == out_len ? 0 : -1;
#endif
}

uint32_t lk_crc32(uint32_t crc, const void *data, size_t len)
{
#ifdef HAVE_LIBDEFLATE
    return libdeflate_crc32(crc, data, len);
#elif defined(HAVE_ISAL)
    return crc32_gzip_refl(crc, data, len);
#else
    return (uint32_t)crc32_z(crc, data, len);
#endif
}

/* Pearson's chi-square of 64 pieces of 256 bytes against an even spread. Random, encrypted and
 * compressed data give 255 +- 23, and up to about 600 with a format's own headers between; at the
 * limit of 640 the evenness of single bytes leaves at most 0.25 % to gain. A few percent of text
 * among them are already far beyond. The pieces do not lie at multiples of 512, so that the headers
 * of a tar are not all that is seen, or never. */
bool lk_looks_random(const unsigned char *data, size_t len)
{
    uint32_t counts[256] = {0};
    uint64_t squares = 0;
    size_t step = len / SAMPLES;

    if (step < SAMPLE_SIZE * 2) {
        return false;
    }
    for (size_t i = 0; i < SAMPLES; i++) {
        size_t shift = (i * 37 % 64) * (step - SAMPLE_SIZE) / 64;
        const unsigned char *piece = data + i * step + shift;
        for (size_t k = 0; k < SAMPLE_SIZE; k++) {
            counts[piece[k]]++;
        }
    }
    for (size_t i = 0; i < 256; i++) {
        squares += (uint64_t)counts[i] * counts[i];
    }
    uint64_t total = (uint64_t)SAMPLES * SAMPLE_SIZE;
    return squares * 256 <= total * (total + 640);
}
