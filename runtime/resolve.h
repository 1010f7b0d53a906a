/* SPDX-License-Identifier: MIT
 * resolve.h - where a path leads once its links are followed. Any thread. */
#ifndef LK_RESOLVE_H
#define LK_RESOLVE_H

#include "error.h"
#include <stddef.h>

/* Makes path absolute without links, "." and "..", as far as it exists; what does not exist yet is
 * appended as it is. Also follows a last link, and one that leads to nothing. A relative path
 * begins at the current directory. -1: LK_DENIED for ".." behind something that does not exist, too
 * many links or a path that is too long. */
int lk_resolve(const char *path, char *out, size_t size, struct lk_error *err);

#endif
