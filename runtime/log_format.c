/* SPDX-License-Identifier: MIT
 * log_format.c - log records as text and as JSON, whatever bytes are in them.
 * A line of text holds no control character, so a name can neither break the line nor steer a
 * terminal. JSON is valid UTF-8: what is not, becomes U+FFFD, one for each longest part of a
 * sequence, as Unicode recommends. */
#include "log_format.h"

#include <stdint.h>
#include <string.h>

/* Length of the UTF-8 sequence at text, or minus the number of bytes that can't be part of one. */
static int utf8_length(const unsigned char *text)
{
    unsigned char c = text[0], low = 0x80, high = 0xbf;
    int i, more;

    if (c < 0x80)
        return 1;
    if (c < 0xc2 || c > 0xf4)
        return -1;
    more = c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3;
    /* No overlong forms, no surrogates, nothing above U+10FFFF. */
    if (c == 0xe0)
        low = 0xa0;
    else if (c == 0xed)
        high = 0x9f;
    else if (c == 0xf0)
        low = 0x90;
    else if (c == 0xf4)
        high = 0x8f;
    for (i = 1; i <= more; i++) {
        if (text[i] < low || text[i] > high)
            return -i;
        low = 0x80;
        high = 0xbf;
    }
    return more + 1;
}

/* --- text --- */

static int text_char(struct lk_buf *buf, unsigned char c, struct lk_error *err)
{
    switch (c) {
    case '\n':
        return lk_buf_add(buf, "\\n", 2, err);
    case '\r':
        return lk_buf_add(buf, "\\r", 2, err);
    case '\t':
        return lk_buf_add(buf, "\\t", 2, err);
    default:
        return lk_buf_printf(buf, err, "\\x%02x", c);
    }
}

/* Runs that need nothing are added at once. U+0080 to U+009F are controls too. */
static int add_text(struct lk_buf *buf, const char *text, bool quoted, struct lk_error *err)
{
    const unsigned char *at = (const unsigned char *)text, *from = at;
    int n, i, rc = 0;

    for (; rc == 0 && *at; at += n > 0 ? n : -n) {
        n = utf8_length(at);
        if (n > 0 && *at >= 0x20 && *at != 0x7f && !(at[0] == 0xc2 && at[1] < 0xa0) &&
            !(quoted && (*at == '"' || *at == '\\')))
            continue;
        rc = lk_buf_add(buf, from, (size_t)(at - from), err);
        if (rc == 0 && n == 1 && *at >= 0x20 && *at != 0x7f)
            rc = lk_buf_printf(buf, err, "\\%c", *at);
        else
            for (i = 0; rc == 0 && i < (n > 0 ? n : -n); i++)
                rc = text_char(buf, at[i], err);
        from = at + (n > 0 ? n : -n);
    }
    if (rc == 0)
        rc = lk_buf_add(buf, from, (size_t)(at - from), err);
    return rc;
}

static int text_field(struct lk_buf *buf, const struct lk_field *field, struct lk_error *err)
{
    bool quoted = !*field->value || strpbrk(field->value, " \"=") != NULL;

    if (add_text(buf, field->name, false, err) < 0 ||
        lk_buf_add(buf, quoted ? "=\"" : "=", quoted ? 2 : 1, err) < 0 ||
        add_text(buf, field->value, quoted, err) < 0)
        return -1;
    return quoted ? lk_buf_add(buf, "\" ", 2, err) : lk_buf_add(buf, " ", 1, err);
}

/* --- json --- */

static int add_json(struct lk_buf *buf, const char *text, struct lk_error *err)
{
    static const char special[] = "\"\\\b\f\n\r\t", letter[] = "\"\\bfnrt";
    const unsigned char *at = (const unsigned char *)text, *from = at;
    const char *found;
    int n, rc = lk_buf_add(buf, "\"", 1, err);

    for (; rc == 0 && *at; at += n > 0 ? n : -n) {
        n = utf8_length(at);
        if (n > 0 && *at >= 0x20 && *at != '"' && *at != '\\' && *at != 0x7f)
            continue;
        rc = lk_buf_add(buf, from, (size_t)(at - from), err);
        from = at + (n > 0 ? n : -n);
        if (rc < 0)
            break;
        found = strchr(special, *at);
        if (n < 0)
            rc = lk_buf_add(buf, "\xef\xbf\xbd", 3, err);
        else if (found)
            rc = lk_buf_printf(buf, err, "\\%c", letter[found - special]);
        else
            rc = lk_buf_printf(buf, err, "\\u%04x", *at);
    }
    if (rc == 0)
        rc = lk_buf_add(buf, from, (size_t)(at - from), err);
    return rc < 0 ? rc : lk_buf_add(buf, "\"", 1, err);
}

/* A field may not take the place of what every record has: it gets a `_` behind its name. */
static int json_field(struct lk_buf *buf, const struct lk_field *field, struct lk_error *err)
{
    bool taken = strcmp(field->name, "time") == 0 || strcmp(field->name, "severity") == 0 ||
                 strcmp(field->name, "message") == 0;

    if (lk_buf_add(buf, ",", 1, err) < 0 || add_json(buf, field->name, err) < 0)
        return -1;
    if (taken) {
        buf->len--;
        if (lk_buf_add(buf, "_\"", 2, err) < 0)
            return -1;
    }
    if (lk_buf_add(buf, ":", 1, err) < 0)
        return -1;
    return add_json(buf, field->value, err);
}

/* --- a record --- */

static bool hidden(const struct lk_record *record, const struct lk_field *common)
{
    size_t i;

    for (i = 0; i < record->count; i++)
        if (record->fields[i].value && strcmp(record->fields[i].name, common->name) == 0)
            return true;
    return false;
}

static int add_fields(struct lk_buf *buf, const struct lk_record *record,
                      int (*add)(struct lk_buf *, const struct lk_field *, struct lk_error *),
                      struct lk_error *err)
{
    size_t i;

    for (i = 0; i < record->common_count; i++)
        if (!hidden(record, &record->common[i]) && add(buf, &record->common[i], err) < 0)
            return -1;
    for (i = 0; i < record->count; i++)
        if (record->fields[i].value && add(buf, &record->fields[i], err) < 0)
            return -1;
    return 0;
}

static int add_time(struct lk_buf *buf, const struct lk_record *record, const char *format,
                    struct lk_error *err)
{
    char text[40] = "";
    struct tm tm;

    gmtime_r(&record->time.tv_sec, &tm);
    strftime(text, sizeof text, format, &tm);
    return lk_buf_add(buf, text, strlen(text), err);
}

int lk_record_text(struct lk_buf *buf, const struct lk_record *record, struct lk_error *err)
{
    static const char *const words[] = {"debug", "info ", "warn ", "error"};

    if (add_time(buf, record, "%Y-%m-%dT%H:%M:%SZ ", err) < 0 ||
        lk_buf_printf(buf, err, "%s ", words[record->level & 3]) < 0 ||
        add_fields(buf, record, text_field, err) < 0)
        return -1;
    return add_text(buf, record->message, false, err);
}

int lk_record_json(struct lk_buf *buf, const struct lk_record *record, struct lk_error *err)
{
    static const char *const words[] = {"DEBUG", "INFO", "WARN", "ERROR"};

    if (add_time(buf, record, "{\"time\":\"%Y-%m-%dT%H:%M:%S", err) < 0 ||
        lk_buf_printf(buf, err, ".%03dZ\",\"severity\":\"%s\"",
                      (int)(record->time.tv_nsec / 1000000), words[record->level & 3]) < 0 ||
        add_fields(buf, record, json_field, err) < 0 ||
        lk_buf_add(buf, ",\"message\":", 11, err) < 0 || add_json(buf, record->message, err) < 0)
        return -1;
    return lk_buf_add(buf, "}", 1, err);
}
