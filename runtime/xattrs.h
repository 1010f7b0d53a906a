/* SPDX-License-Identifier: MIT
 * xattrs.h - a file's extended attributes and access lists, for the archive source. One thread. */
#ifndef LK_XATTRS_H
#define LK_XATTRS_H

#include "tar.h"

struct lk_xattrs {
    struct lk_tar_xattr *list; /* sorted by name */
    size_t count;
    const char *acl_access, *acl_default; /* NULL = none */
    bool left_out;                        /* more than LK_TAR_XATTR_MAX */
    /* private */
    size_t room;
    struct lk_buf names, values, access_text, default_text;
};

void lk_xattrs_init(struct lk_xattrs *xattrs);
void lk_xattrs_free(struct lk_xattrs *xattrs);
/* Of a descriptor, or with fd -1 of a path (a link itself, not what it leads to). Forgets what was
 * read before. 0, or an errno; a file system without attributes is one without entries. One system
 * call where there are none. */
int lk_xattrs_read(struct lk_xattrs *xattrs, int fd, const char *path);

#endif
