/* SPDX-License-Identifier: MIT
 * engine.h - deflate engines behind one interface: zlib always, libdeflate and ISA-L where they
 * were built in. An object serves one thread at a time and is reused from member to member; nothing
 * is allocated in between. */
#ifndef LK_ENGINE_H
#define LK_ENGINE_H

#include "gzip.h"

struct lk_deflater;
struct lk_inflater;

/* The engine and its own level that serve what was asked for: auto and LK_LEVEL_* are resolved, a
 * level beyond the engine's range is brought into it. level 0 = stored. LK_USAGE for an engine that
 * is not built in. */
int lk_engine_pick(enum lk_engine *engine, int *level, struct lk_error *err);

/* engine and level as lk_engine_pick gives them. */
struct lk_deflater *lk_deflater_new(enum lk_engine engine, int level, struct lk_error *err);
void lk_deflater_free(struct lk_deflater *deflater);
/* One whole raw deflate body. Bytes written, or 0 when cap is too small. Same input, same bytes. */
size_t lk_deflate(struct lk_deflater *deflater, const void *in, size_t len, void *out, size_t cap);
/* The same as stored blocks; needs lk_stored_size(len) bytes. */
size_t lk_deflate_stored(const void *in, size_t len, void *out, size_t cap);
size_t lk_stored_size(size_t len);

struct lk_inflater *lk_inflater_new(struct lk_error *err);
void lk_inflater_free(struct lk_inflater *inflater);
/* One raw deflate body that fills `in` exactly and gives exactly out_len bytes; else -1. */
int lk_inflate(struct lk_inflater *inflater, const void *in, size_t len, void *out, size_t out_len);

/* The CRC of gzip, by the fastest engine there is; crc 0 at the start. */
uint32_t lk_crc32(uint32_t crc, const void *data, size_t len);

/* True if a sample of the bytes is so even that deflate can't make them smaller in a way that pays.
 */
bool lk_looks_random(const unsigned char *data, size_t len);

#endif
