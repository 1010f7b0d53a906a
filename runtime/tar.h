/* SPDX-License-Identifier: MIT
 * tar.h - writes tar headers: POSIX ustar, with a pax extended header before it where ustar can't
 * say it all. The bytes depend on the entry alone: not on the locale, the time or the writer's
 * process. Any thread. */
#ifndef LK_TAR_H
#define LK_TAR_H

#include "buf.h"
#include <stdint.h>
#include <sys/types.h>

#define LK_TAR_BLOCK ((size_t)512)
/* The end of an archive: two blocks of zeros. */
#define LK_TAR_END_SIZE (2 * LK_TAR_BLOCK)
/* One file's extended attributes and access lists may take this much in a header; more is left out,
 * with a warning. */
#define LK_TAR_XATTR_MAX ((size_t)256 << 10)
/* The longest member path and link target. */
#define LK_TAR_PATH_MAX ((size_t)256 << 10)
/* The largest header of one entry; less than a gzip member. */
#define LK_TAR_HEADER_MAX ((size_t)1000 << 10)

struct lk_tar_xattr {
    const char *name; /* "user.comment"; not system.posix_acl_* */
    const void *value;
    size_t size;
};

struct lk_tar_entry {
    const char *path; /* any bytes; a directory's needs no slash at the end */
    size_t path_len;
    const char *link; /* target of a link, as stored; NULL for other types */
    size_t link_len;
    char type; /* '0' file, '1' hard link, '2' symbolic link, '3' '4' devices, '5' directory, '6'
                  FIFO */
    uint32_t mode; /* permission bits, set-id and sticky */
    uint64_t uid, gid;
    const char *uname, *gname; /* may be empty or NULL */
    uint64_t size;             /* bytes of data that follow; 0 for all but files */
    int64_t mtime;
    uint32_t mtime_ns;
    uint32_t major, minor; /* of devices */
    const struct lk_tar_xattr *xattrs;
    size_t xattr_count;
    const char *acl_access, *acl_default; /* text form, NULL if there is none */
};

/* Appends the header blocks of one entry to out: a multiple of LK_TAR_BLOCK. */
int lk_tar_header(struct lk_buf *out, const struct lk_tar_entry *entry, struct lk_error *err);

/* Bytes from size to the next block boundary. */
size_t lk_tar_padding(uint64_t size);

/* The value of system.posix_acl_access or _default as text, with numeric ids:
 * "user::rw-,user:1000:r--,...". -1 (LK_CORRUPT) for a value that is not one. */
int lk_tar_acl_text(const void *value, size_t size, struct lk_buf *out, struct lk_error *err);

/* Valid UTF-8 as in RFC 3629. */
bool lk_utf8_valid(const char *text, size_t len);

#endif
