/* SPDX-License-Identifier: MIT
 * caps.h - what scripts of a runtime may do: programs, hosts, paths, environment names. Deny by
 * default. Loop thread; lk_caps_check* may be called from any thread once the set is sealed or no
 * longer changed. */
#ifndef LK_CAPS_H
#define LK_CAPS_H

#include "error.h"

enum lk_cap {
    LK_CAP_EXEC,
    LK_CAP_NET,
    LK_CAP_READ,
    LK_CAP_WRITE,
    LK_CAP_ENV,
    LK_CAP_POSIX,
    LK_CAP_COUNT
};

struct lk_caps;

struct lk_caps *lk_caps_new(struct lk_error *err);
void lk_caps_free(struct lk_caps *caps);
/* value: a program name or absolute path (exec), host or host:port or *.suffix (net), absolute path
 * prefix (read, write), name or PREFIX_* (env), ignored (posix); "*" = all. LK_DENIED after
 * sealing, LK_USAGE for a bad value. */
int lk_caps_allow(struct lk_caps *caps, enum lk_cap cap, const char *value, struct lk_error *err);
void lk_caps_seal(struct lk_caps *caps);
/* 0, or -1 (LK_DENIED) with a message that names cap and value, and a hint that says what to grant.
 * Paths are compared by component after resolving links of the longest part that exists, so `..`
 * and links can't leave a prefix. */
int lk_caps_check(struct lk_caps *caps, enum lk_cap cap, const char *value, struct lk_error *err);
/* "exec", "net", ... to enum; -1 (LK_USAGE) for others. */
int lk_cap_parse(const char *name, enum lk_cap *cap, struct lk_error *err);
const char *lk_cap_name(enum lk_cap cap);

#endif
