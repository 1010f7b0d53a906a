/* SPDX-License-Identifier: MIT
 * xattrs.c - reads a file's extended attributes. Its buffers are kept from file to file. One
 * thread. */
#include "xattrs.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

enum { NAMES_MAX = 64 << 10, FIRST_SIZE = 1024 };

void lk_xattrs_init(struct lk_xattrs *x)
{
    *x = (struct lk_xattrs){0};
    lk_buf_init(&x->names, NAMES_MAX + 1);
    lk_buf_init(&x->values, 2 * LK_TAR_XATTR_MAX);
    lk_buf_init(&x->access_text, LK_TAR_XATTR_MAX);
    lk_buf_init(&x->default_text, LK_TAR_XATTR_MAX);
}

void lk_xattrs_free(struct lk_xattrs *x)
{
    free(x->list);
    lk_buf_free(&x->names);
    lk_buf_free(&x->values);
    lk_buf_free(&x->access_text);
    lk_buf_free(&x->default_text);
    *x = (struct lk_xattrs){0};
}

static ssize_t list_names(int fd, const char *path, char *out, size_t size)
{
    return fd >= 0 ? flistxattr(fd, out, size) : llistxattr(path, out, size);
}

static ssize_t get(int fd, const char *path, const char *name, void *out, size_t size)
{
    return fd >= 0 ? fgetxattr(fd, name, out, size) : lgetxattr(path, name, out, size);
}

/* Appends one value to x->values. Bytes, or a negative errno. */
static ssize_t value(struct lk_xattrs *x, int fd, const char *path, const char *name)
{
    size_t size = FIRST_SIZE;
    for (;;) {
        char *at = lk_buf_room(&x->values, size, NULL);
        if (!at)
            return -E2BIG;
        ssize_t n = get(fd, path, name, at, size);
        if (n >= 0) {
            x->values.len += (size_t)n;
            return n;
        }
        if (errno != ERANGE || size > LK_TAR_XATTR_MAX)
            return errno == ERANGE ? -E2BIG : -errno;
        size *= 8;
    }
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct lk_tar_xattr *)a)->name, ((const struct lk_tar_xattr *)b)->name);
}

static int add(struct lk_xattrs *x, const char *name, size_t size)
{
    if (x->count == x->room) {
        size_t room = x->room ? x->room * 2 : 8;
        struct lk_tar_xattr *more = realloc(x->list, room * sizeof *more);
        if (!more)
            return ENOMEM;
        x->list = more;
        x->room = room;
    }
    x->list[x->count++] = (struct lk_tar_xattr){.name = name, .size = size};
    return 0;
}

/* An access list is stored as text; one of a form that is not known, as the attribute that it is.
 */
static bool acl(struct lk_xattrs *x, const char *name, size_t size)
{
    bool access = strcmp(name, "system.posix_acl_access") == 0;
    if (!access && strcmp(name, "system.posix_acl_default") != 0)
        return false;
    struct lk_buf *text = access ? &x->access_text : &x->default_text;
    if (lk_tar_acl_text(x->values.data + x->values.len - size, size, text, NULL) || text->len == 0)
        return false;
    *(access ? &x->acl_access : &x->acl_default) = text->data;
    x->values.len -= size;
    return true;
}

static int read_values(struct lk_xattrs *x, int fd, const char *path, size_t names_len)
{
    int result = 0;
    size_t total = 0;
    for (const char *name = x->names.data; name < x->names.data + names_len;
         name += strlen(name) + 1) {
        ssize_t n = value(x, fd, path, name);
        if (n == -ENODATA)
            continue; /* removed since it was listed */
        if (n == -E2BIG ||
            (n >= 0 && (total += (size_t)n + strlen(name) + 64) > LK_TAR_XATTR_MAX)) {
            x->left_out = true;
            if (n >= 0)
                x->values.len -= (size_t)n;
        } else if (n < 0) {
            result = (int)-n;
        } else if (!acl(x, name, (size_t)n) && add(x, name, (size_t)n)) {
            return ENOMEM;
        }
    }
    const char *at = x->values.data; /* it no longer moves */
    for (size_t i = 0; i < x->count; at += x->list[i++].size)
        x->list[i].value = at;
    if (x->count)
        qsort(x->list, x->count, sizeof *x->list, by_name);
    return result;
}

int lk_xattrs_read(struct lk_xattrs *x, int fd, const char *path)
{
    x->count = 0;
    x->acl_access = x->acl_default = NULL;
    x->left_out = false;
    x->names.len = x->values.len = x->access_text.len = x->default_text.len = 0;
    size_t size = FIRST_SIZE;
    for (;;) {
        char *names = lk_buf_room(&x->names, size, NULL);
        if (!names)
            return ENOMEM;
        ssize_t n = list_names(fd, path, names, size);
        if (n > 0)
            return read_values(x, fd, path, (size_t)n);
        if (n == 0 || errno == ENOTSUP || errno == ENOSYS)
            return 0;
        if (errno != ERANGE || size == NAMES_MAX)
            return errno;
        size = NAMES_MAX;
    }
}
