/* SPDX-License-Identifier: MIT
 * tools.h - what workers need for one gzip member, kept from job to job: a decompressor, and a
 * hasher where one is wanted. A worker takes a tool, uses it alone and gives it back. Any thread,
 * but for init and destroy. */
#ifndef LK_TOOLS_H
#define LK_TOOLS_H

#include "crypto.h"
#include "engine.h"
#include <pthread.h>

struct lk_tool {
    struct lk_tool *next;
    struct lk_inflater *inflater;
    struct lk_hasher *hasher; /* SHA-256; NULL where none is wanted */
};

struct lk_tools {
    pthread_mutex_t mutex; /* of idle */
    struct lk_tool *idle;
    bool hash; /* tools have hashers */
};

void lk_tools_init(struct lk_tools *tools, bool hash);
void lk_tools_destroy(struct lk_tools *tools); /* all were given back */
/* An idle one or a new one; NULL: LK_MEMORY. */
struct lk_tool *lk_tools_take(struct lk_tools *tools, struct lk_error *err);
void lk_tools_give(struct lk_tools *tools, struct lk_tool *tool);

/* Decompresses a whole member of `size` bytes, its gzip header `header` bytes long, into `raw`
 * bytes (out may be NULL when raw is 0). What is wrong with it, or NULL. */
const char *lk_tool_inflate(struct lk_tool *tool, const unsigned char *member, size_t size,
                            size_t header, unsigned char *out, size_t raw);

#endif
