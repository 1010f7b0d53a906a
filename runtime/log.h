/* SPDX-License-Identifier: MIT
 * log.h - log lines as text or JSON, to a descriptor or to the host's function, with secrets taken
 * out. lk_log_write may be called from any thread; everything else from the loop thread. */
#ifndef LK_LOG_H
#define LK_LOG_H

#include "error.h"
#include <stddef.h>

enum lk_level { LK_DEBUG, LK_INFO, LK_WARN, LK_ERROR };

struct lk_field {
    const char *name;
    const char *value;
};

struct lk_log;

struct lk_log *lk_log_new(struct lk_error *err);
void lk_log_free(struct lk_log *log);
void lk_log_set_level(struct lk_log *log, enum lk_level level);
void lk_log_set_json(struct lk_log *log, bool json);
/* fd >= 0: lines go there; it is never blocked on for more than a second in all (a reader that
 * stands still makes lines be dropped, and the number dropped is said when it reads again), EPIPE
 * is ignored. -1: nowhere. */
void lk_log_set_fd(struct lk_log *log, int fd);
/* Also (or only) call fn. It gets the redacted message. Called on whatever thread writes. */
void lk_log_set_function(struct lk_log *log,
                         void (*fn)(void *arg, enum lk_level level, const char *message,
                                    const char *json),
                         void *arg);
/* A field that every line carries from now on (run id); NULL value removes it. */
int lk_log_set_field(struct lk_log *log, const char *name, const char *value, struct lk_error *err);

/* Text: `2026-01-02T03:04:05Z info  item=neo4j message`; JSON:
 * {"time":..,"severity":"INFO","run":..,"item":.., "message":..} with RFC 3339 time in UTC with
 * milliseconds. Newlines inside a message are escaped. */
void lk_log_write(struct lk_log *log, enum lk_level level, const struct lk_field *fields,
                  size_t count, const char *format, ...) __attribute__((format(printf, 5, 6)));

/* From now on every occurrence of `secret` (4 bytes or more), and of its URL-, base64- and
 * JSON-escaped forms, is written as `***`. Kept until the log is freed. */
int lk_log_redact(struct lk_log *log, const char *secret, size_t len, struct lk_error *err);
/* Replaces secrets in place in a NUL-terminated text of at most `cap` bytes. Any thread. */
void lk_log_clean(struct lk_log *log, char *text, size_t cap);

#endif
