/* SPDX-License-Identifier: MIT
 * log_format.h - one log record as a line of text or as a JSON object. Any thread. */
#ifndef LK_LOG_FORMAT_H
#define LK_LOG_FORMAT_H

#include "buf.h"
#include "log.h"
#include <time.h>

struct lk_record {
    struct timespec time;
    enum lk_level level;
    const struct lk_field
        *common; /* that every line carries; one of the same name in fields hides it */
    size_t common_count;
    const struct lk_field *fields; /* those with a value of NULL are left out */
    size_t count;
    const char *message;
};

/* Both add to buf, without a newline. Secrets are the caller's business. */
int lk_record_text(struct lk_buf *buf, const struct lk_record *record, struct lk_error *err);
int lk_record_json(struct lk_buf *buf, const struct lk_record *record, struct lk_error *err);

#endif
