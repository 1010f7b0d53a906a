/* SPDX-License-Identifier: MIT
 * runtime.h - what one runtime consists of: the parts of the core that the bindings share. Internal, no Lua.
 * Filled by lunark.c; everything in it belongs to the loop thread unless its own header says otherwise. */
#ifndef LK_RUNTIME_H
#define LK_RUNTIME_H

#include "caps.h"
#include "log.h"
#include "loop.h"
#include "pool.h"

struct lk_http;

struct lk_runtime {
    struct lk_loop *loop;
    struct lk_pool *pool;
    struct lk_caps *caps;
    struct lk_log *log;
    struct lk_http *http; /* made at the first request */
    size_t memory;        /* stream budget in bytes; 40 MiB by default */
    int jobs;             /* compression width of one stream */
};

#define LK_DEFAULT_MEMORY ((size_t)40 << 20)

#endif
