/* SPDX-License-Identifier: MIT
 * redact.c - finds secrets in texts.
 * Every form that a secret may take is made when it is added; a text is then searched for all of
 * them. Overlapping matches are marked first and replaced together, so that no rest of one shows.
 * Wipes its copies. */
#include "redact.h"

#include "buf.h"
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { SHORTEST = 4, SHORTEST_LINE = 12 };
#define MAX_FORM ((size_t)1 << 20)

struct form {
    struct form *next;
    size_t len;
    /* A base64 character on either side that some bits of the secret share with other bytes. */
    bool left, right;
    char text[];
};

struct lk_redact {
    struct form *forms;
    bool first[256]; /* bytes that a form begins with */
};

struct lk_redact *lk_redact_new(struct lk_error *err)
{
    struct lk_redact *redact = calloc(1, sizeof *redact);

    if (!redact)
        lk_error_set(err, LK_MEMORY, "no memory for a list of secrets");
    return redact;
}

void lk_redact_free(struct lk_redact *redact)
{
    struct form *form;

    if (!redact)
        return;
    while ((form = redact->forms)) {
        redact->forms = form->next;
        explicit_bzero(form->text, form->len);
        free(form);
    }
    free(redact);
}

/* --- forms --- */

static int add_form(struct lk_redact *redact, const char *text, size_t len, bool left, bool right,
                    struct lk_error *err)
{
    struct form *form;

    if (len < SHORTEST)
        return 0;
    for (form = redact->forms; form; form = form->next)
        if (form->len == len && memcmp(form->text, text, len) == 0 && form->left == left &&
            form->right == right)
            return 0;
    form = malloc(sizeof *form + len);
    if (!form)
        return lk_error_set(err, LK_MEMORY, "no memory to remember a secret");
    form->len = len;
    form->left = left;
    form->right = right;
    memcpy(form->text, text, len);
    form->next = redact->forms;
    redact->forms = form;
    redact->first[(unsigned char)text[0]] = true;
    return 0;
}

static bool is_unreserved(unsigned char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("-._~", c));
}

/* keep = further characters that stay as they are (a path keeps its slashes); plus = a blank
 * becomes `+`. */
static int add_url(struct lk_redact *redact, const char *secret, size_t len, const char *digits,
                   const char *keep, bool plus, struct lk_error *err)
{
    struct lk_buf buf;
    size_t i;
    int rc = 0;

    lk_buf_init(&buf, MAX_FORM);
    for (i = 0; rc == 0 && i < len; i++) {
        unsigned char c = (unsigned char)secret[i];
        char escaped[3] = {'%', digits[c >> 4], digits[c & 15]};

        if (is_unreserved(c) || (c != '\0' && strchr(keep, c)))
            rc = lk_buf_add(&buf, &c, 1, err);
        else if (plus && c == ' ')
            rc = lk_buf_add(&buf, "+", 1, err);
        else
            rc = lk_buf_add(&buf, escaped, 3, err);
    }
    if (rc == 0)
        rc = add_form(redact, buf.data, buf.len, false, false, err);
    if (buf.data)
        explicit_bzero(buf.data, buf.len);
    lk_buf_free(&buf);
    return rc;
}

static int json_char(struct lk_buf *buf, unsigned char c, bool slash, struct lk_error *err)
{
    static const char plain[] = "\"\\\b\f\n\r\t", letter[] = "\"\\bfnrt";
    const char *at = c ? strchr(plain, c) : NULL;
    char pair[2] = {'\\', (char)c};

    if (at) {
        pair[1] = letter[at - plain];
        return lk_buf_add(buf, pair, 2, err);
    }
    if (c == '/' && slash)
        return lk_buf_add(buf, pair, 2, err);
    if (c < 0x20 || c == 0x7f)
        return lk_buf_printf(buf, err, "\\u%04x", c);
    return lk_buf_add(buf, &c, 1, err);
}

/* slash = with `\/`, which some encoders write. */
static int add_json(struct lk_redact *redact, const char *secret, size_t len, bool slash,
                    struct lk_error *err)
{
    struct lk_buf buf;
    size_t i;
    int rc = 0;

    lk_buf_init(&buf, MAX_FORM);
    for (i = 0; rc == 0 && i < len; i++)
        rc = json_char(&buf, (unsigned char)secret[i], slash, err);
    if (rc == 0)
        rc = add_form(redact, buf.data, buf.len, false, false, err);
    if (buf.data)
        explicit_bzero(buf.data, buf.len);
    lk_buf_free(&buf);
    return rc;
}

/* The 6 bits at place i of a text that begins with `shift` unknown bytes, then the secret, then
 * zeros. */
static unsigned sextet(const char *secret, size_t len, size_t shift, size_t i)
{
    unsigned value = 0;
    size_t bit, at;

    for (bit = i * 6; bit < i * 6 + 6; bit++) {
        at = bit / 8;
        value <<= 1;
        if (at >= shift && at - shift < len)
            value |= ((unsigned char)secret[at - shift] >> (7 - bit % 8)) & 1u;
    }
    return value;
}

/* Inside a longer text (`user:password`) the secret may begin at each of three alignments. The
 * characters that it alone decides are the form; those at its edges go with it. */
static int add_base64(struct lk_redact *redact, const char *secret, size_t len, size_t shift,
                      const char *alphabet, struct lk_error *err)
{
    size_t from = (shift * 8 + 5) / 6, to = (shift + len) * 8 / 6, i;
    char *text = malloc(to + 1);
    int rc;

    if (!text)
        return lk_error_set(err, LK_MEMORY, "no memory to remember a secret");
    for (i = from; i < to; i++)
        text[i - from] = alphabet[sextet(secret, len, shift, i)];
    rc = add_form(redact, text, to - from, shift > 0, (shift + len) * 8 % 6 > 0, err);
    explicit_bzero(text, to - from);
    free(text);
    return rc;
}

static int add_forms(struct lk_redact *redact, const char *secret, size_t len, struct lk_error *err)
{
    static const char std[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    static const char url[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    static const char *const hex[] = {"0123456789ABCDEF", "0123456789abcdef"};
    size_t shift;
    int i, rc = add_form(redact, secret, len, false, false, err);

    for (i = 0; rc == 0 && i < 2; i++) {
        rc = add_url(redact, secret, len, hex[i], "", false, err);
        if (rc == 0)
            rc = add_url(redact, secret, len, hex[i], "/", false, err);
        if (rc == 0)
            rc = add_url(redact, secret, len, hex[i], "", true, err);
        if (rc == 0)
            rc = add_json(redact, secret, len, i > 0, err);
    }
    for (shift = 0; rc == 0 && shift < 3; shift++) {
        rc = add_base64(redact, secret, len, shift, std, err);
        if (rc == 0)
            rc = add_base64(redact, secret, len, shift, url, err);
    }
    return rc;
}

int lk_redact_add(struct lk_redact *redact, const char *secret, size_t len, struct lk_error *err)
{
    const char *end = secret + len, *line, *stop;

    if (len < SHORTEST)
        return 0;
    if (len > MAX_FORM / 8)
        return lk_error_set(err, LK_USAGE, "a secret of %zu bytes is too long", len);
    if (add_forms(redact, secret, len, err) < 0)
        return -1;
    if (!memchr(secret, '\n', len))
        return 0;
    for (line = secret; line < end; line = stop + 1) {
        stop = memchr(line, '\n', (size_t)(end - line));
        if (!stop)
            stop = end;
        /* `-----BEGIN PRIVATE KEY-----` is no secret. */
        if (stop - line < SHORTEST_LINE || memcmp(line, "-----", 5) == 0)
            continue;
        if (add_form(redact, line, (size_t)(stop - line), false, false, err) < 0)
            return -1;
    }
    return 0;
}

/* --- search --- */

static bool is_base64(char c)
{
    return is_unreserved((unsigned char)c) ? c != '.' && c != '~' : c == '+' || c == '/';
}

static void mark_matches(const struct lk_redact *redact, const char *text, size_t len,
                         unsigned char *marks)
{
    const struct form *form;
    size_t i, from, to;

    for (i = 0; i + SHORTEST <= len; i++) {
        if (!redact->first[(unsigned char)text[i]])
            continue;
        for (form = redact->forms; form; form = form->next) {
            if (form->len > len - i || memcmp(text + i, form->text, form->len) != 0)
                continue;
            from = i;
            to = i + form->len;
            if (form->left && from > 0 && is_base64(text[from - 1]))
                from--;
            if (form->right && to < len && is_base64(text[to]))
                to++;
            memset(marks + from, 1, to - from);
        }
    }
}

size_t lk_redact_text(const struct lk_redact *redact, char *text, size_t len)
{
    unsigned char *marks;
    size_t i, out = 0;

    if (!redact->forms || len < SHORTEST)
        return len;
    marks = calloc(1, len);
    if (!marks) {
        memcpy(text, "***", 3);
        return 3;
    }
    mark_matches(redact, text, len, marks);
    for (i = 0; i < len; i++) {
        if (!marks[i]) {
            text[out++] = text[i];
        } else if (i == 0 || !marks[i - 1]) {
            memcpy(text + out, "***",
                   3); /* a match has 4 bytes or more: this overwrites none to come */
            out += 3;
        }
    }
    free(marks);
    return out;
}
