/* SPDX-License-Identifier: MIT
 * tar.c - tar headers (POSIX.1-2001, "pax interchange format").
 *
 * An entry that fits a ustar header gets only that. Anything else goes in an extended header (type
 * x) before it: path, linkpath    longer than ustar can split, or not ASCII mtime             with
 * nanoseconds, negative, or beyond 11 octal digits size, uid, gid    beyond their octal fields
 * (these fields then hold the base-256 form for readers without pax) uname, gname      longer than
 * 31 bytes, or not ASCII SCHILY.xattr.*, SCHILY.acl.* pax says that names are UTF-8. Where one of a
 * header's names is not, `hdrcharset=BINARY` comes first and all names of that header are plain
 * bytes. Never a global header, no access or change times: equal entries give equal bytes.
 *
 * Owns nothing, reads no locale, keeps no state. Any thread. */
#include "tar.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum {
    AT_NAME = 0,
    AT_MODE = 100,
    AT_UID = 108,
    AT_GID = 116,
    AT_SIZE = 124,
    AT_MTIME = 136,
    AT_CHECKSUM = 148,
    AT_TYPE = 156,
    AT_LINK = 157,
    AT_MAGIC = 257,
    AT_UNAME = 265,
    AT_GNAME = 297,
    AT_MAJOR = 329,
    AT_MINOR = 337,
    AT_PREFIX = 345,
    NAME_SIZE = 100,
    PREFIX_SIZE = 155,
    OWNER_SIZE = 32
};

bool lk_utf8_valid(const char *text, size_t len)
{
    const unsigned char *s = (const unsigned char *)text, *end = s + len;
    while (s < end) {
        unsigned char c = *s++;
        if (c < 0x80)
            continue;
        int more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : 1;
        if (c < 0xc2 || c > 0xf4 || end - s < more)
            return false;
        /* No overlong forms, no surrogates, nothing above U+10FFFF: they show in the second byte.
         */
        if ((c == 0xe0 && s[0] < 0xa0) || (c == 0xed && s[0] > 0x9f) ||
            (c == 0xf0 && s[0] < 0x90) || (c == 0xf4 && s[0] > 0x8f))
            return false;
        for (; more > 0; more--)
            if ((*s++ & 0xc0) != 0x80)
                return false;
    }
    return true;
}

static bool ascii(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)text[i] >= 0x80)
            return false;
    return true;
}

size_t lk_tar_padding(uint64_t size)
{
    return (size_t)(-size & (LK_TAR_BLOCK - 1));
}

/* One record, "LENGTH key=value\n": the length counts itself. */
static int record(struct lk_buf *out, const char *key, size_t key_len, const void *value,
                  size_t len, struct lk_error *err)
{
    char number[24];
    size_t rest = key_len + len + 3, total = rest + 1;
    for (;;) {
        size_t digits = (size_t)snprintf(number, sizeof number, "%zu", total);
        if (rest + digits == total)
            break;
        total = rest + digits;
    }
    char *at = lk_buf_room(out, total, err);
    if (!at)
        return -1;
    size_t digits = strlen(number);
    memcpy(at, number, digits);
    at[digits] = ' ';
    memcpy(at + digits + 1, key, key_len);
    at[digits + 1 + key_len] = '=';
    if (len)
        memcpy(at + digits + 2 + key_len, value, len);
    at[total - 1] = '\n';
    out->len += total;
    return 0;
}

static int text_record(struct lk_buf *out, const char *key, const char *value, size_t len,
                       struct lk_error *err)
{
    return record(out, key, strlen(key), value, len, err);
}

static int number_record(struct lk_buf *out, const char *key, uint64_t value, struct lk_error *err)
{
    char text[24];
    int len = snprintf(text, sizeof text, "%" PRIu64, value);
    return text_record(out, key, text, (size_t)len, err);
}

/* Decimal seconds, as short as they are exact. struct timespec counts nanoseconds upwards, also
 * before 1970. */
static int time_record(struct lk_buf *out, int64_t seconds, uint32_t ns, struct lk_error *err)
{
    char text[48];
    const char *sign = "";
    uint64_t whole = (uint64_t)seconds;
    if (seconds < 0) {
        sign = "-";
        whole = 0 - whole;
        if (ns > 0) {
            whole--;
            ns = 1000000000u - ns;
        }
    }
    int len = snprintf(text, sizeof text, "%s%" PRIu64 ".%09" PRIu32, sign, whole, ns);
    while (text[len - 1] == '0')
        len--;
    if (text[len - 1] == '.')
        len--;
    return text_record(out, "mtime", text, (size_t)len, err);
}

/* A key of the form SCHILY ends at its first "=", so a name with one needs libarchive's escaped
 * form. */
static int escaped_xattr(struct lk_buf *out, const struct lk_tar_xattr *xattr, struct lk_error *err)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char key[1024];
    size_t at = (size_t)snprintf(key, sizeof key, "LIBARCHIVE.xattr.");
    for (const char *s = xattr->name; *s && at + 4 < sizeof key; s++) {
        bool plain = *s > ' ' && *s < 0x7f && *s != '=' && *s != '%';
        at +=
            (size_t)snprintf(key + at, sizeof key - at, plain ? "%c" : "%%%02X", (unsigned char)*s);
    }
    struct lk_buf text;
    lk_buf_init(&text, LK_TAR_XATTR_MAX * 2);
    int result = -1;
    const unsigned char *from = xattr->value;
    char *to = lk_buf_room(&text, xattr->size * 4 / 3 + 4, err);
    if (!to)
        goto done;
    for (size_t i = 0; i < xattr->size;
         i += 3) { /* base64 without padding, as libarchive writes it */
        size_t n = xattr->size - i < 3 ? xattr->size - i : 3;
        unsigned bits = (unsigned)from[i] << 16 | (n > 1 ? (unsigned)from[i + 1] << 8 : 0) |
                        (n > 2 ? (unsigned)from[i + 2] : 0);
        for (size_t j = 0; j <= n; j++)
            to[text.len++] = alphabet[bits >> (18 - 6 * j) & 63];
    }
    result = record(out, key, at, to, text.len, err);
done:
    lk_buf_free(&text);
    return result;
}

static int xattr_records(struct lk_buf *out, const struct lk_tar_entry *entry, struct lk_error *err)
{
    for (size_t i = 0; i < entry->xattr_count; i++) {
        const struct lk_tar_xattr *xattr = &entry->xattrs[i];
        if (strchr(xattr->name, '=') || strchr(xattr->name, '%')) {
            if (escaped_xattr(out, xattr, err))
                return -1;
            continue;
        }
        char key[300];
        int len = snprintf(key, sizeof key, "SCHILY.xattr.%s", xattr->name);
        if (len < 0 || (size_t)len >= sizeof key)
            return lk_error_set(err, LK_USAGE,
                                "extended attribute name of %zu bytes, at most 255 were expected",
                                strlen(xattr->name));
        if (record(out, key, (size_t)len, xattr->value, xattr->size, err))
            return -1;
    }
    if (entry->acl_access &&
        text_record(out, "SCHILY.acl.access", entry->acl_access, strlen(entry->acl_access), err))
        return -1;
    if (entry->acl_default &&
        text_record(out, "SCHILY.acl.default", entry->acl_default, strlen(entry->acl_default), err))
        return -1;
    return 0;
}

/* Octal digits and a NUL; what does not fit, in base 256 (first bit set), as GNU tar and star do.
 */
static void number(char *field, size_t size, uint64_t value)
{
    if (value >> (3 * (size - 1)) == 0) {
        for (size_t i = size - 1; i-- > 0; value >>= 3)
            field[i] = (char)('0' + (value & 7));
        return;
    }
    for (size_t i = size; i-- > 0; value >>= 8)
        field[i] = (char)(value & 0xff);
    field[0] = (char)(field[0] | 0x80);
}

static bool fits(uint64_t value, unsigned digits)
{
    return value >> (3 * digits) == 0;
}

/* Splits a path at a slash into prefix and name; false if it can't be. *cut = bytes of the prefix,
 * 0 = none. */
static bool split(const char *path, size_t len, size_t *cut)
{
    *cut = 0;
    if (len <= NAME_SIZE)
        return true;
    for (size_t i = len - NAME_SIZE - 1; i < len - 1 && i <= PREFIX_SIZE; i++)
        if (path[i] == '/' && i > 0) {
            *cut = i;
            return true;
        }
    return false;
}

/* Copies what fits; a shortened name must not end in a slash, which old readers take for a
 * directory. */
static void shorten(char *field, size_t size, const char *text, size_t len)
{
    bool cut = len > size;
    if (cut)
        len = size;
    while (cut && len > 1 && text[len - 1] == '/')
        len--;
    memcpy(field, text, len);
}

static void checksum(unsigned char *block)
{
    unsigned sum = 0;
    memset(block + AT_CHECKSUM, ' ', 8);
    for (size_t i = 0; i < LK_TAR_BLOCK; i++)
        sum += block[i];
    number((char *)block + AT_CHECKSUM, 7, sum);
    block[AT_CHECKSUM + 6] = 0;
}

static void magic(char *block)
{
    memcpy(block + AT_MAGIC,
           "ustar\0"
           "00",
           8);
}

static void owner(char *field, const char *name)
{
    if (name && strlen(name) < OWNER_SIZE)
        memcpy(field, name, strlen(name));
}

/* The entry's own header. path has its slash if it is a directory. */
static int ustar(struct lk_buf *out, const struct lk_tar_entry *entry, const char *path,
                 size_t path_len, struct lk_error *err)
{
    char *block = lk_buf_room(out, LK_TAR_BLOCK, err);
    if (!block)
        return -1;
    memset(block, 0, LK_TAR_BLOCK);
    size_t cut;
    if (split(path, path_len, &cut) && cut) {
        memcpy(block + AT_PREFIX, path, cut);
        memcpy(block + AT_NAME, path + cut + 1, path_len - cut - 1);
    } else {
        shorten(block + AT_NAME, NAME_SIZE, path, path_len);
    }
    if (entry->link)
        shorten(block + AT_LINK, NAME_SIZE, entry->link, entry->link_len);
    number(block + AT_MODE, 8, entry->mode & 07777);
    number(block + AT_UID, 8, entry->uid);
    number(block + AT_GID, 8, entry->gid);
    number(block + AT_SIZE, 12, entry->size);
    number(block + AT_MTIME, 12, entry->mtime < 0 ? 0 : (uint64_t)entry->mtime);
    block[AT_TYPE] = entry->type;
    magic(block);
    owner(block + AT_UNAME, entry->uname);
    owner(block + AT_GNAME, entry->gname);
    bool device = entry->type == '3' || entry->type == '4';
    number(block + AT_MAJOR, 8, device ? entry->major : 0);
    number(block + AT_MINOR, 8, device ? entry->minor : 0);
    checksum((unsigned char *)block);
    out->len += LK_TAR_BLOCK;
    return 0;
}

/* The header of the extended header. Its name only shows in readers that know no pax. */
static void extended_block(char *block, const char *path, size_t path_len, uint64_t size)
{
    static const char folder[] = "PaxHeaders/";
    size_t end = path_len, start;
    while (end > 1 && path[end - 1] == '/')
        end--;
    for (start = end; start > 0 && path[start - 1] != '/'; start--)
        ;
    size_t len = end - start;
    if (len > NAME_SIZE - sizeof folder)
        len = NAME_SIZE - sizeof folder;
    memset(block, 0, LK_TAR_BLOCK);
    memcpy(block, folder, sizeof folder - 1);
    memcpy(block + sizeof folder - 1, path + start, len);
    number(block + AT_MODE, 8, 0644);
    number(block + AT_UID, 8, 0);
    number(block + AT_GID, 8, 0);
    number(block + AT_SIZE, 12, size);
    number(block + AT_MTIME, 12, 0);
    block[AT_TYPE] = 'x';
    magic(block);
    number(block + AT_MAJOR, 8, 0);
    number(block + AT_MINOR, 8, 0);
    checksum((unsigned char *)block);
}

static int owner_record(struct lk_buf *out, const char *key, const char *name, struct lk_error *err)
{
    size_t len = name ? strlen(name) : 0;
    if (len < OWNER_SIZE && ascii(name ? name : "", len))
        return 0;
    return text_record(out, key, name, len, err);
}

static bool valid(const char *name)
{
    return !name || lk_utf8_valid(name, strlen(name));
}

/* All records that the entry needs, in a fixed order. */
static int records(struct lk_buf *out, const struct lk_tar_entry *entry, const char *path,
                   size_t path_len, struct lk_error *err)
{
    size_t cut;
    if ((!lk_utf8_valid(path, path_len) ||
         (entry->link && !lk_utf8_valid(entry->link, entry->link_len)) || !valid(entry->uname) ||
         !valid(entry->gname)) &&
        text_record(out, "hdrcharset", "BINARY", 6, err))
        return -1;
    if ((!split(path, path_len, &cut) || !ascii(path, path_len)) &&
        text_record(out, "path", path, path_len, err))
        return -1;
    if (entry->link && (entry->link_len > NAME_SIZE || !ascii(entry->link, entry->link_len)) &&
        text_record(out, "linkpath", entry->link, entry->link_len, err))
        return -1;
    if (!fits(entry->size, 11) && number_record(out, "size", entry->size, err))
        return -1;
    if (!fits(entry->uid, 7) && number_record(out, "uid", entry->uid, err))
        return -1;
    if (!fits(entry->gid, 7) && number_record(out, "gid", entry->gid, err))
        return -1;
    if (owner_record(out, "uname", entry->uname, err) ||
        owner_record(out, "gname", entry->gname, err))
        return -1;
    if ((entry->mtime_ns || entry->mtime < 0 || !fits((uint64_t)entry->mtime, 11)) &&
        time_record(out, entry->mtime, entry->mtime_ns, err))
        return -1;
    return xattr_records(out, entry, err);
}

/* Appends header and records; where there are none, takes the header's room back. */
static int extended(struct lk_buf *out, const struct lk_tar_entry *entry, const char *path,
                    size_t path_len, struct lk_error *err)
{
    size_t at = out->len;
    if (!lk_buf_room(out, LK_TAR_BLOCK, err))
        return -1;
    out->len += LK_TAR_BLOCK;
    if (records(out, entry, path, path_len, err))
        return -1;
    size_t size = out->len - at - LK_TAR_BLOCK;
    if (size == 0) {
        out->len = at;
        return 0;
    }
    extended_block(out->data + at, path, path_len, size);
    size_t padding = lk_tar_padding(size);
    char *end = lk_buf_room(out, padding, err);
    if (!end)
        return -1;
    memset(end, 0, padding);
    out->len += padding;
    return 0;
}

int lk_tar_header(struct lk_buf *out, const struct lk_tar_entry *entry, struct lk_error *err)
{
    const char *path = entry->path;
    size_t path_len = entry->path_len;
    struct lk_buf slashed;
    lk_buf_init(&slashed, LK_TAR_PATH_MAX + 2);
    int result = -1;
    if (entry->type == '5' && (path_len == 0 || path[path_len - 1] != '/')) {
        if (lk_buf_add(&slashed, path, path_len, err) || lk_buf_add(&slashed, "/", 1, err))
            goto done;
        path = slashed.data;
        path_len = slashed.len;
    }
    if (extended(out, entry, path, path_len, err) || ustar(out, entry, path, path_len, err))
        goto done;
    result = 0;
done:
    lk_buf_free(&slashed);
    return result;
}

static uint32_t little(const unsigned char *at, int bytes)
{
    uint32_t value = 0;
    for (int i = bytes; i-- > 0;)
        value = value << 8 | at[i];
    return value;
}

/* The kernel's form: a version (2), then for each line tag, permissions (16 bits each) and id (32),
 * little-endian. */
int lk_tar_acl_text(const void *value, size_t size, struct lk_buf *out, struct lk_error *err)
{
    const unsigned char *at = value, *end = at + size;
    if (size < 4 || little(at, 4) != 2 || (size - 4) % 8)
        return lk_error_set(err, LK_CORRUPT,
                            "access list of %zu bytes has a form that is not known", size);
    for (at += 4; at < end; at += 8) {
        unsigned tag = little(at, 2), bits = little(at + 2, 2);
        const char *word = tag == 0x01 || tag == 0x02   ? "user"
                           : tag == 0x04 || tag == 0x08 ? "group"
                           : tag == 0x10                ? "mask"
                           : tag == 0x20                ? "other"
                                                        : NULL;
        if (!word)
            return lk_error_set(err, LK_CORRUPT, "access list has a line of unknown type %u", tag);
        char id[12] = "";
        if (tag == 0x02 || tag == 0x08)
            snprintf(id, sizeof id, "%" PRIu32, little(at + 4, 4));
        if (lk_buf_printf(out, err, "%s%s:%s:%c%c%c", out->len ? "," : "", word, id,
                          bits & 4 ? 'r' : '-', bits & 2 ? 'w' : '-', bits & 1 ? 'x' : '-'))
            return -1;
    }
    return 0;
}
