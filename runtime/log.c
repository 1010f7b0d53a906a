/* SPDX-License-Identifier: MIT
 * log.c - log lines to a descriptor and to the host, without secrets, without ever holding up a
 * backup. The descriptor is shared with other programs, so its flags stay: it is written in pieces
 * that poll says it takes. A line that was begun is finished before the next one, however long that
 * takes; lines in between are counted. The host's function is called with no lock held.
 * lk_log_write: any thread. */
#include "log.h"

#include "log_format.h"
#include "redact.h"
#include "shared_fd.h"
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WAIT_NS 1000000000u /* for a reader that stands still, in all */
#define MAX_MESSAGE ((size_t)64 << 10)
#define MAX_LINE ((size_t)1 << 20)

struct sink {
    int fd; /* -1: nowhere, or the reader is gone */
    uint64_t wait_ns;
    uint64_t dropped;
    struct lk_buf rest; /* of a line that was begun */
};

struct lk_log {
    pthread_mutex_t mutex;
    enum lk_level level;
    bool json;
    struct sink sink;
    void (*fn)(void *arg, enum lk_level level, const char *message, const char *json);
    void *arg;
    struct lk_field *common;
    size_t common_count;
    struct lk_redact *redact;
};

struct lk_log *lk_log_new(struct lk_error *err)
{
    struct lk_log *log = calloc(1, sizeof *log);

    if (!log) {
        lk_error_set(err, LK_MEMORY, "no memory for a log");
        return NULL;
    }
    log->redact = lk_redact_new(err);
    if (!log->redact) {
        free(log);
        return NULL;
    }
    pthread_mutex_init(&log->mutex, NULL);
    log->level = LK_INFO;
    log->sink.fd = -1;
    lk_buf_init(&log->sink.rest, MAX_LINE);
    return log;
}

/* --- without secrets, with the lock held --- */

static void clean(const struct lk_log *log, char *text, size_t cap)
{
    size_t len = lk_redact_text(log->redact, text, strnlen(text, cap));

    if (len < cap)
        text[len] = '\0';
}

/* The text without secrets; cut after that, so that no half of one remains. NULL without memory. */
static char *clean_copy(const struct lk_log *log, char *text)
{
    size_t len, end = MAX_MESSAGE - 3;

    if (!text)
        return NULL;
    len = strlen(text);
    clean(log, text, len + 1);
    if (strlen(text) > MAX_MESSAGE) {
        while (end > 0 && ((unsigned char)text[end] & 0xc0) == 0x80)
            end--;
        memcpy(text + end, "...", 4);
    }
    return text;
}

/* Copies with clean values; NULL without memory (or without fields). */
static struct lk_field *clean_fields(const struct lk_log *log, const struct lk_field *fields,
                                     size_t count)
{
    struct lk_field *copy = count > 0 ? calloc(count, sizeof *copy) : NULL;
    size_t i;

    for (i = 0; copy && i < count; i++) {
        copy[i].name = fields[i].name;
        copy[i].value = fields[i].value ? clean_copy(log, strdup(fields[i].value)) : NULL;
    }
    return copy;
}

static void free_fields(struct lk_field *fields, size_t count)
{
    size_t i;

    for (i = 0; fields && i < count; i++)
        free((char *)fields[i].value);
    free(fields);
}

/* --- writing to the descriptor, with the lock held --- */

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* True when the descriptor takes a piece; the wait comes out of what is left of it. */
static bool wait_writable(struct sink *sink)
{
    struct pollfd fd = {.fd = sink->fd, .events = POLLOUT};
    uint64_t before = now_ns(), spent;
    int rc = poll(&fd, 1, (int)(sink->wait_ns / 1000000u));

    spent = now_ns() - before;
    if (rc == 0)
        sink->wait_ns = 0;
    else
        sink->wait_ns -= spent < sink->wait_ns ? spent : sink->wait_ns;
    if (rc > 0 && (fd.revents & POLLNVAL))
        sink->fd = -1;
    return rc > 0 && sink->fd >= 0;
}

/* Number of bytes that went out. Fewer than len: the reader stands still, or is gone (fd = -1). */
static size_t put(struct sink *sink, const char *data, size_t len)
{
    size_t at = 0;
    ssize_t n;

    while (at < len && sink->fd >= 0 && wait_writable(sink)) {
        n = lk_write_piece(sink->fd, data + at, len - at);
        if (n >= 0) {
            at += (size_t)n;
        } else if (errno == EPIPE || errno == EBADF) {
            sink->fd = -1;
        } else if (errno != EINTR) {
            break; /* a full disk, or a descriptor that another program made non-blocking and full
                    */
        }
    }
    return at;
}

/* True when all of it is out or kept to be finished; false when nothing was begun. */
static bool put_line(struct sink *sink, const char *line, size_t len)
{
    size_t n = put(sink, line, len);

    if (n > 0 && n < len)
        lk_buf_add(&sink->rest, line + n, len - n, NULL);
    return n > 0;
}

static void put_dropped(struct lk_log *log)
{
    struct lk_field *common = clean_fields(log, log->common, log->common_count);
    struct lk_record record = {.level = LK_WARN, .common = common};
    struct lk_buf line;
    char text[96];

    snprintf(text, sizeof text, "the reader of the log stood still: %llu line%s dropped",
             (unsigned long long)log->sink.dropped, log->sink.dropped == 1 ? "" : "s");
    record.message = text;
    record.common_count = common ? log->common_count : 0;
    clock_gettime(CLOCK_REALTIME, &record.time);
    lk_buf_init(&line, MAX_LINE);
    if ((log->json ? lk_record_json : lk_record_text)(&line, &record, NULL) == 0 &&
        lk_buf_add(&line, "\n", 1, NULL) == 0 && put_line(&log->sink, line.data, line.len))
        log->sink.dropped = 0;
    lk_buf_free(&line);
    free_fields(common, record.common_count);
}

/* First what is owed: the rest of a line, then the number of lines that were dropped. False if that
 * did not go out. */
static bool settle(struct lk_log *log)
{
    struct sink *sink = &log->sink;
    size_t n;

    if (sink->rest.len > 0) {
        n = put(sink, sink->rest.data, sink->rest.len);
        memmove(sink->rest.data, sink->rest.data + n, sink->rest.len - n);
        sink->rest.len -= n;
    }
    if (sink->rest.len == 0 && sink->dropped > 0)
        put_dropped(log);
    return sink->rest.len == 0 && sink->dropped == 0;
}

static void write_line(struct lk_log *log, const char *line, size_t len)
{
    if (log->sink.fd < 0)
        return;
    if (!settle(log) || !put_line(&log->sink, line, len))
        log->sink.dropped++;
}

/* --- settings --- */

static void free_field(struct lk_field *field)
{
    free((char *)field->name);
    free((char *)field->value);
}

void lk_log_free(struct lk_log *log)
{
    size_t i;

    if (!log)
        return;
    if (log->sink.fd >= 0)
        settle(log);
    for (i = 0; i < log->common_count; i++)
        free_field(&log->common[i]);
    free(log->common);
    lk_buf_free(&log->sink.rest);
    lk_redact_free(log->redact);
    pthread_mutex_destroy(&log->mutex);
    free(log);
}

void lk_log_set_level(struct lk_log *log, enum lk_level level)
{
    pthread_mutex_lock(&log->mutex);
    log->level = level;
    pthread_mutex_unlock(&log->mutex);
}

void lk_log_set_json(struct lk_log *log, bool json)
{
    pthread_mutex_lock(&log->mutex);
    log->json = json;
    pthread_mutex_unlock(&log->mutex);
}

void lk_log_set_fd(struct lk_log *log, int fd)
{
    pthread_mutex_lock(&log->mutex);
    if (log->sink.fd >= 0)
        settle(log);
    lk_buf_free(&log->sink.rest);
    log->sink.fd = fd;
    log->sink.dropped = 0;
    log->sink.wait_ns = WAIT_NS;
    pthread_mutex_unlock(&log->mutex);
}

void lk_log_set_function(struct lk_log *log,
                         void (*fn)(void *arg, enum lk_level level, const char *message,
                                    const char *json),
                         void *arg)
{
    pthread_mutex_lock(&log->mutex);
    log->fn = fn;
    log->arg = arg;
    pthread_mutex_unlock(&log->mutex);
}

/* Called with the lock held. */
static int set_field(struct lk_log *log, const char *name, const char *value, struct lk_error *err)
{
    struct lk_field *grown, field = {NULL, NULL};
    size_t i;

    for (i = 0; i < log->common_count && strcmp(log->common[i].name, name) != 0; i++)
        continue;
    if (value) {
        field.name = strdup(name);
        field.value = strdup(value);
        grown = realloc(log->common, (log->common_count + 1) * sizeof *grown);
        if (grown)
            log->common = grown;
        if (!field.name || !field.value || !grown) {
            free_field(&field);
            return lk_error_set(err, LK_MEMORY, "no memory for log field %s", name);
        }
    }
    if (i < log->common_count) {
        free_field(&log->common[i]);
        if (value)
            log->common[i] = field;
        else
            memmove(&log->common[i], &log->common[i + 1],
                    (--log->common_count - i) * sizeof log->common[0]);
    } else if (value) {
        log->common[log->common_count++] = field;
    }
    return 0;
}

int lk_log_set_field(struct lk_log *log, const char *name, const char *value, struct lk_error *err)
{
    int rc;

    pthread_mutex_lock(&log->mutex);
    rc = set_field(log, name, value, err);
    pthread_mutex_unlock(&log->mutex);
    return rc;
}

int lk_log_redact(struct lk_log *log, const char *secret, size_t len, struct lk_error *err)
{
    int rc;

    pthread_mutex_lock(&log->mutex);
    rc = lk_redact_add(log->redact, secret, len, err);
    pthread_mutex_unlock(&log->mutex);
    return rc;
}

void lk_log_clean(struct lk_log *log, char *text, size_t cap)
{
    pthread_mutex_lock(&log->mutex);
    clean(log, text, cap);
    pthread_mutex_unlock(&log->mutex);
}

/* --- records --- */

/* What to call once the lock is given up. */
struct call {
    void (*fn)(void *arg, enum lk_level level, const char *message, const char *json);
    void *arg;
};

/* Called with the lock held. */
static void emit(struct lk_log *log, const struct lk_record *record, struct lk_buf *json)
{
    struct lk_buf text;

    if (log->fn || log->json)
        lk_record_json(json, record, NULL);
    if (log->sink.fd < 0)
        return;
    lk_buf_init(&text, MAX_LINE);
    if (log->json && json->data)
        lk_buf_add(&text, json->data, json->len, NULL);
    else
        lk_record_text(&text, record, NULL);
    if (lk_buf_add(&text, "\n", 1, NULL) == 0)
        write_line(log, text.data, text.len);
    else
        log->sink.dropped++;
    lk_buf_free(&text);
}

static struct call write_record(struct lk_log *log, struct lk_record *record, char *message,
                                struct lk_buf *json)
{
    struct lk_field *fields, *common;
    struct call call;

    pthread_mutex_lock(&log->mutex);
    call = (struct call){log->fn, log->arg};
    fields = clean_fields(log, record->fields, record->count);
    common = clean_fields(log, log->common, log->common_count);
    record->fields = fields;
    record->count = fields ? record->count : 0;
    record->common = common;
    record->common_count = common ? log->common_count : 0;
    record->message = clean_copy(log, message);
    emit(log, record, json);
    free_fields(fields, record->count);
    free_fields(common, record->common_count);
    pthread_mutex_unlock(&log->mutex);
    return call;
}

static bool wanted(struct lk_log *log, enum lk_level level)
{
    bool yes;

    pthread_mutex_lock(&log->mutex);
    yes = level >= log->level && (log->fn || log->sink.fd >= 0);
    pthread_mutex_unlock(&log->mutex);
    return yes;
}

void lk_log_write(struct lk_log *log, enum lk_level level, const struct lk_field *fields,
                  size_t count, const char *format, ...)
{
    struct lk_record record = {.level = level, .fields = fields, .count = count};
    int saved = errno;
    struct call call;
    struct lk_buf json;
    char *message;
    va_list args;

    if (!wanted(log, level))
        return;
    clock_gettime(CLOCK_REALTIME, &record.time);
    va_start(args, format);
    if (vasprintf(&message, format, args) < 0)
        message = NULL;
    va_end(args);
    if (message) {
        lk_buf_init(&json, MAX_LINE);
        call = write_record(log, &record, message, &json);
        if (call.fn)
            call.fn(call.arg, level, message, json.data ? json.data : "{}");
        lk_buf_free(&json);
        free(message);
    }
    errno = saved;
}
