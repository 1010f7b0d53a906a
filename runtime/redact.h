/* SPDX-License-Identifier: MIT
 * redact.h - the secrets that must not be seen, in all the forms they take, and taking them out of
 * a text. One thread at a time: log.c has the lock. */
#ifndef LK_REDACT_H
#define LK_REDACT_H

#include "error.h"
#include <stddef.h>

struct lk_redact;

struct lk_redact *lk_redact_new(struct lk_error *err);
void lk_redact_free(struct lk_redact *redact);
/* Adds a secret of 4 bytes or more: as it is, URL-escaped, in base64 and base64url at every
 * alignment, JSON-escaped, and the longer lines of one that has several (a private key). Shorter
 * ones are ignored. */
int lk_redact_add(struct lk_redact *redact, const char *secret, size_t len, struct lk_error *err);
/* Replaces every occurrence in the len bytes by `***`, adjacent ones by one; the new length, never
 * more. Without memory the whole text goes. */
size_t lk_redact_text(const struct lk_redact *redact, char *text, size_t len);

#endif
