/* SPDX-License-Identifier: MIT
 * embedded.h - the Lua files inside the library: source text under the names they have in the
 * source tree. */
#ifndef LK_EMBEDDED_H
#define LK_EMBEDDED_H

#include <stddef.h>

struct lk_embedded {
    const char *name; /* "scripts/lunark/cli.lua", "providers/s3.lua"; NULL ends the list */
    const char *text; /* NUL-terminated */
    size_t len;
};

extern const struct lk_embedded lk_embedded_files[]; /* sorted by name */

#endif
