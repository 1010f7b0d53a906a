/* SPDX-License-Identifier: MIT
 * extract_meta.c - owner, mode, attributes, access lists and times of what was extracted.
 *
 * The order matters: changing the owner clears set-id bits and capabilities, changing the mode
 * changes an access list's mask, and the times come last. Files and directories are reached by
 * their descriptor. What has none (links, devices, FIFOs) has just been made under its name and is
 * reached by that, never through a link. Stage thread only. */
#include "extract_internal.h"
#include "tar.h"
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { SET_IDS = S_ISUID | S_ISGID, ACL_LINES_MAX = 1024 };

void lk_extract_warn(struct lk_extract *x, const char *what, int errnum)
{
    char message[320];
    const char *reason = errnum ? strerrordesc_np(errnum) : NULL;
    if (reason)
        snprintf(message, sizeof message, "%s: %c%s", what, tolower((unsigned char)*reason),
                 reason + 1);
    else
        snprintf(message, sizeof message, "%s", what);
    lk_stats_warn(&x->stats, LK_WARN_SKIPPED, x->path.len ? x->path.data : ".", message);
}

/* --- attributes --- */

/* One attribute, by descriptor or through the directory's. */
static int set_xattr(int fd, int parent, const char *name, const char *key, const void *value,
                     size_t size)
{
    char path[64 + 256];
    if (fd >= 0)
        return fsetxattr(fd, key, value, size, 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d/%s", parent, name);
    return lsetxattr(path, key, value, size, 0);
}

/* What gives a program rights comes with its owner alone, as set-id bits do. */
static bool gives_rights(const char *key)
{
    return strcmp(key, "security.capability") == 0;
}

static void set_xattrs(struct lk_extract *x, struct archive_entry *entry, int fd, int parent,
                       const char *name, bool owner_kept)
{
    const char *key;
    const void *value;
    size_t size;
    if (archive_entry_xattr_reset(entry) == 0)
        return;
    while (archive_entry_xattr_next(entry, &key, &value, &size) == ARCHIVE_OK) {
        if (((!owner_kept || x->use_umask) && gives_rights(key)) ||
            set_xattr(fd, parent, name, key, value, size) == 0)
            continue;
        char what[300];
        int errnum = errno;
        snprintf(what, sizeof what, "extended attribute %.200s can't be set", key);
        lk_extract_warn(x, what, errnum);
    }
}

/* --- access lists --- */

struct acl_line {
    unsigned tag, bits;
    uint32_t id;
};

static int by_tag(const void *a, const void *b)
{
    const struct acl_line *one = a, *two = b;
    if (one->tag != two->tag)
        return one->tag < two->tag ? -1 : 1;
    return one->id < two->id ? -1 : one->id > two->id;
}

static void little(unsigned char *at, uint32_t value, int bytes)
{
    for (int i = 0; i < bytes; i++, value >>= 8)
        at[i] = (unsigned char)(value & 0xff);
}

/* From libarchive's words to the kernel's; false for one that POSIX lists don't have, or a name
 * without an id. */
static bool acl_line(struct lk_extract *x, int tag, int bits, int id, const char *name,
                     struct acl_line *line)
{
    line->bits = (unsigned)bits & 7;
    line->id = UINT32_MAX;
    switch (tag) {
    case ARCHIVE_ENTRY_ACL_USER_OBJ:
        line->tag = 0x01;
        return true;
    case ARCHIVE_ENTRY_ACL_USER:
        line->tag = 0x02;
        line->id = lk_names_uid(x->names, name, (uid_t)id);
        return line->id != UINT32_MAX;
    case ARCHIVE_ENTRY_ACL_GROUP_OBJ:
        line->tag = 0x04;
        return true;
    case ARCHIVE_ENTRY_ACL_GROUP:
        line->tag = 0x08;
        line->id = lk_names_gid(x->names, name, (gid_t)id);
        return line->id != UINT32_MAX;
    case ARCHIVE_ENTRY_ACL_MASK:
        line->tag = 0x10;
        return true;
    case ARCHIVE_ENTRY_ACL_OTHER:
        line->tag = 0x20;
        return true;
    default:
        return false;
    }
}

static void set_acl(struct lk_extract *x, struct archive_entry *entry, int type, const char *key,
                    int fd, int parent, const char *name)
{
    int count = archive_entry_acl_reset(entry, type);
    if (count <= (type == ARCHIVE_ENTRY_ACL_TYPE_ACCESS ? 3 : 0)) /* no more than the mode says */
        return;
    struct acl_line lines[ACL_LINES_MAX];
    unsigned char value[4 + 8 * ACL_LINES_MAX];
    size_t n = 0;
    int kind, bits, tag, id;
    const char *who;
    while (archive_entry_acl_next(entry, type, &kind, &bits, &tag, &id, &who) == ARCHIVE_OK) {
        if (n == ACL_LINES_MAX || !acl_line(x, tag, bits, id, who, &lines[n])) {
            lk_extract_warn(x, "access list has a line that can't be restored, left out", 0);
            return;
        }
        n++;
    }
    qsort(lines, n, sizeof *lines, by_tag);
    little(value, 2, 4);
    for (size_t i = 0; i < n; i++) {
        little(value + 4 + 8 * i, lines[i].tag, 2);
        little(value + 6 + 8 * i, lines[i].bits, 2);
        little(value + 8 + 8 * i, lines[i].id, 4);
    }
    if (set_xattr(fd, parent, name, key, value, 4 + 8 * n))
        lk_extract_warn(x, "access list can't be set", errno);
}

static void set_acls(struct lk_extract *x, struct archive_entry *entry, int fd, int parent,
                     const char *name)
{
    if (x->use_umask || archive_entry_acl_types(entry) == 0)
        return;
    set_acl(x, entry, ARCHIVE_ENTRY_ACL_TYPE_ACCESS, "system.posix_acl_access", fd, parent, name);
    set_acl(x, entry, ARCHIVE_ENTRY_ACL_TYPE_DEFAULT, "system.posix_acl_default", fd, parent, name);
}

/* --- owner, mode, times --- */

/* *kept = the owner is the archive's. */
static int set_owner(struct lk_extract *x, struct archive_entry *entry, int fd, int parent,
                     const char *name, bool *kept)
{
    *kept = false;
    if (!x->keep_owner)
        return 0;
    uid_t uid = lk_names_uid(x->names, archive_entry_uname(entry), (uid_t)archive_entry_uid(entry));
    gid_t gid = lk_names_gid(x->names, archive_entry_gname(entry), (gid_t)archive_entry_gid(entry));
    int result =
        fd >= 0 ? fchown(fd, uid, gid) : fchownat(parent, name, uid, gid, AT_SYMLINK_NOFOLLOW);
    if (result == 0) {
        *kept = true;
        return 0;
    }
    if (x->must_keep) {
        lk_error_errno(&x->error, errno, "owner of %s can't be set to %u:%u", x->path.data,
                       (unsigned)uid, (unsigned)gid);
        return lk_error_hint(&x->error, "run as root, or extract without owners");
    }
    lk_extract_warn(x, "owner can't be set", errno);
    return 0;
}

static int set_mode(struct lk_extract *x, struct archive_entry *entry, int fd, int parent,
                    const char *name, bool owner_kept)
{
    mode_t mode = archive_entry_perm(entry), type = archive_entry_filetype(entry);
    if (type == AE_IFLNK)
        return 0;
    if (!owner_kept && type != AE_IFDIR)
        mode &= (mode_t)~SET_IDS;
    if (x->use_umask)
        mode &= (mode_t)(0777 & ~x->umask);
    if (fd >= 0) {
        if (fchmod(fd, mode) == 0)
            return 0;
        return lk_error_errno(&x->error, errno, "mode of %s can't be set to %04o", x->path.data,
                              (unsigned)mode);
    }
    /* A device or FIFO: by a descriptor that stands for the file itself and doesn't open it. */
    char path[64];
    int at = openat(parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    snprintf(path, sizeof path, "/proc/self/fd/%d", at);
    if (at < 0 || chmod(path, mode))
        lk_extract_warn(x, "mode can't be set", errno);
    if (at >= 0)
        close(at);
    return 0;
}

/* libarchive takes the sign of "-1.5" for the whole seconds alone (3.6 to 3.8): it says -1 s and
 * 0.5 s upwards of that. What -0.5 was can't be told from 0.5 any more. */
bool lk_extract_fractions_fall(void)
{
    static const struct lk_tar_entry entry = {
        .path = "t", .path_len = 1, .type = '0', .mtime = -2, .mtime_ns = 500000000};
    struct lk_buf tar;
    struct archive *archive = archive_read_new();
    struct archive_entry *found;
    lk_buf_init(&tar, LK_TAR_HEADER_MAX);
    bool read = archive && lk_tar_header(&tar, &entry, NULL) == 0 &&
                archive_read_support_format_tar(archive) == ARCHIVE_OK &&
                archive_read_open_memory(archive, tar.data, tar.len) == ARCHIVE_OK &&
                archive_read_next_header(archive, &found) == ARCHIVE_OK;
    bool fall = read && archive_entry_mtime(found) == -1;
    archive_read_free(archive);
    lk_buf_free(&tar);
    return fall;
}

struct timespec lk_extract_time(const struct lk_extract *x, struct archive_entry *entry)
{
    struct timespec time = {.tv_sec = archive_entry_mtime(entry),
                            .tv_nsec = archive_entry_mtime_nsec(entry)};
    if (x->fractions_fall && time.tv_sec < 0 && time.tv_nsec > 0) {
        time.tv_sec--;
        time.tv_nsec = 1000000000 - time.tv_nsec;
    }
    return time;
}

static int set_times(struct lk_extract *x, struct archive_entry *entry, int fd, int parent,
                     const char *name)
{
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_nsec = UTIME_OMIT}};
    if (!archive_entry_mtime_is_set(entry))
        return 0;
    times[1] = lk_extract_time(x, entry);
    if ((fd >= 0 ? futimens(fd, times) : utimensat(parent, name, times, AT_SYMLINK_NOFOLLOW)) == 0)
        return 0;
    lk_extract_warn(x, "time can't be set", errno);
    return 0;
}

/* Reading it by umask() would change it for a moment, for all threads. */
mode_t lk_extract_umask(void)
{
    char line[128];
    unsigned mask = 022;
    FILE *status = fopen("/proc/self/status", "re");
    while (status && fgets(line, sizeof line, status))
        if (sscanf(line, "Umask: %o", &mask) == 1)
            break;
    if (status)
        fclose(status);
    return (mode_t)mask & 0777;
}

int lk_extract_meta(struct lk_extract *x, struct archive_entry *entry, int fd, int parent,
                    const char *name)
{
    bool owner_kept;
    if (set_owner(x, entry, fd, parent, name, &owner_kept) ||
        set_mode(x, entry, fd, parent, name, owner_kept))
        return -1;
    set_xattrs(x, entry, fd, parent, name, owner_kept);
    set_acls(x, entry, fd, parent, name);
    return set_times(x, entry, fd, parent, name);
}
