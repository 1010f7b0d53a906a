/* SPDX-License-Identifier: MIT
 * error.h - one error, by value, with everything a user needs to act on it.
 * Every function of the core that can fail returns int (0 or more for success, -1 for failure) and
 * takes a `struct lk_error *` as its last parameter, which may be NULL. Any thread. */
#ifndef LK_ERROR_H
#define LK_ERROR_H

#include <stdbool.h>

/* The closed set of kinds; lk_kind_name() gives the word that scripts see. */
enum lk_kind {
    LK_OK,
    LK_USAGE,
    LK_DENIED,
    LK_NOT_FOUND,
    LK_CONFLICT,
    LK_AUTH,
    LK_THROTTLED,
    LK_TIMEOUT,
    LK_NETWORK,
    LK_EXIT,
    LK_IO,
    LK_CORRUPT,
    LK_CANCELLED,
    LK_MEMORY
};

struct lk_error {
    enum lk_kind kind;
    int code;           /* errno, exit code, or libcurl code; 0 if none */
    int status;         /* HTTP status; 0 if none */
    bool retryable;     /* the same attempt may succeed later */
    char op[32];        /* what was being done: "open", "http.request"; may be empty */
    char message[1024]; /* lower case, no final dot, names the object */
    char hint[320];     /* what to do; may be empty */
};

/* Fills *err (if not NULL) and returns -1, so that `return lk_error_set(...)` reads well. Resets
 * all other fields. */
int lk_error_set(struct lk_error *err, enum lk_kind kind, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* As lk_error_set, with ": " and the errno's text appended (untranslated, first letter lower: "no
 * such file or directory"), code = errnum and a kind that fits the errno (ENOENT: not_found, EACCES
 * and EPERM: denied, EEXIST: conflict, ENOMEM: memory, ECANCELED: cancelled, ETIMEDOUT: timeout;
 * else io). */
int lk_error_errno(struct lk_error *err, int errnum, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Sets the hint of an error that is already set; no-op on NULL. Returns -1. */
int lk_error_hint(struct lk_error *err, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* "usage", "denied", "not_found", ... ; "ok" for LK_OK. Never NULL. */
const char *lk_kind_name(enum lk_kind kind);

#endif
