/* SPDX-License-Identifier: MIT
 * error.c - filling an error and naming its kind.
 * Owns nothing, allocates nothing, keeps errno. Any thread. */
#include "error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* A text that was cut off ends in dots instead of in half a character. */
static void mark_cut(char *text, size_t size)
{
    size_t end = size - 4;

    while (end > 0 && ((unsigned char)text[end] & 0xc0) == 0x80)
        end--;
    memcpy(text + end, "...", 4);
}

/* The arguments may point into the destination (`"%s: %s", name, err->message`), so the text is
 * made aside. */
static void format_text(char *out, size_t size, const char *format, va_list args)
{
    char text[sizeof(((struct lk_error *)0)->message)];
    int n = vsnprintf(text, size, format, args);

    if (n < 0)
        text[0] = '\0';
    else if ((size_t)n >= size)
        mark_cut(text, size);
    memcpy(out, text, strlen(text) + 1);
}

static void fill(struct lk_error *err, enum lk_kind kind, const char *format, va_list args)
{
    format_text(err->message, sizeof err->message, format, args);
    err->kind = kind;
    err->code = 0;
    err->status = 0;
    err->retryable = false;
    err->op[0] = '\0';
    err->hint[0] = '\0';
}

int lk_error_set(struct lk_error *err, enum lk_kind kind, const char *format, ...)
{
    int saved = errno;
    va_list args;

    if (err) {
        va_start(args, format);
        fill(err, kind, format, args);
        va_end(args);
    }
    errno = saved;
    return -1;
}

static enum lk_kind kind_of_errno(int errnum)
{
    switch (errnum) {
    case ENOENT:
        return LK_NOT_FOUND;
    case EACCES:
    case EPERM:
        return LK_DENIED;
    case EEXIST:
        return LK_CONFLICT;
    case ENOMEM:
        return LK_MEMORY;
    case ECANCELED:
        return LK_CANCELLED;
    case ETIMEDOUT:
        return LK_TIMEOUT;
    default:
        return LK_IO;
    }
}

/* Appends ": no such file or directory". The C library's words begin with a capital; acronyms (RFS,
 * RPC) stay. */
static void append_reason(struct lk_error *err, int errnum)
{
    const char *reason = strerrordesc_np(errnum);
    char *first;
    size_t len = strlen(err->message);
    size_t room = sizeof err->message - len;
    int n;

    if (reason)
        n = snprintf(err->message + len, room, ": %s", reason);
    else
        n = snprintf(err->message + len, room, ": error %d", errnum);
    if (n >= 0 && (size_t)n >= room)
        mark_cut(err->message, sizeof err->message);
    if (room < 5)
        return;
    first = err->message + len + 2;
    if (first[0] >= 'A' && first[0] <= 'Z' && !(first[1] >= 'A' && first[1] <= 'Z'))
        first[0] = (char)(first[0] - 'A' + 'a');
}

int lk_error_errno(struct lk_error *err, int errnum, const char *format, ...)
{
    int saved = errno;
    va_list args;

    if (err) {
        va_start(args, format);
        fill(err, kind_of_errno(errnum), format, args);
        va_end(args);
        append_reason(err, errnum);
        err->code = errnum;
    }
    errno = saved;
    return -1;
}

int lk_error_hint(struct lk_error *err, const char *format, ...)
{
    int saved = errno;
    va_list args;

    if (err) {
        va_start(args, format);
        format_text(err->hint, sizeof err->hint, format, args);
        va_end(args);
    }
    errno = saved;
    return -1;
}

const char *lk_kind_name(enum lk_kind kind)
{
    static const char *const names[] = {
        [LK_OK] = "ok",
        [LK_USAGE] = "usage",
        [LK_DENIED] = "denied",
        [LK_NOT_FOUND] = "not_found",
        [LK_CONFLICT] = "conflict",
        [LK_AUTH] = "auth",
        [LK_THROTTLED] = "throttled",
        [LK_TIMEOUT] = "timeout",
        [LK_NETWORK] = "network",
        [LK_EXIT] = "exit",
        [LK_IO] = "io",
        [LK_CORRUPT] = "corrupt",
        [LK_CANCELLED] = "cancelled",
        [LK_MEMORY] = "memory",
    };

    if ((unsigned)kind >= sizeof names / sizeof names[0])
        return "io";
    return names[kind];
}
