/* SPDX-License-Identifier: MIT
 * extract_dirs.c - directories: their modes, owners and times are set when nothing is written into
 * them any more, which is at the end.
 *
 * An archive may have any number of them, so when DIRS_KEPT are waiting those are finished that do
 * not hold what was extracted last: archivers write what a directory holds behind it. Where an
 * archive comes back to such a directory, the directory's time is that of the restore. Stage thread
 * only. */
#include "extract_internal.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { DIRS_KEPT = 65536 };

size_t lk_extract_split(const struct lk_buf *path, const char **name)
{
    const char *slash = memrchr(path->data, '/', path->len);
    *name = slash ? slash + 1 : path->data;
    return slash ? (size_t)(slash - path->data) : 0;
}

int lk_extract_remember(struct lk_extract *x, struct archive_entry *entry)
{
    if (x->dir_count == x->dir_room) {
        size_t room = x->dir_room ? x->dir_room * 2 : 64;
        struct lk_extract_dir *dirs = realloc(x->dirs, room * sizeof *dirs);
        if (!dirs)
            return lk_error_set(&x->error, LK_MEMORY, "no memory for %zu directories", room);
        x->dirs = dirs;
        x->dir_room = room;
    }
    struct lk_extract_dir dir = {
        .path = strdup(x->path.data),
        .number = x->dir_count,
        .timed = archive_entry_mtime_is_set(entry),
        .mtime = archive_entry_mtime(entry),
        .mtime_ns = (uint32_t)archive_entry_mtime_nsec(entry),
        .uid = lk_names_uid(x->names, archive_entry_uname(entry), (uid_t)archive_entry_uid(entry)),
        .gid = lk_names_gid(x->names, archive_entry_gname(entry), (gid_t)archive_entry_gid(entry)),
        .perm = (uint16_t)archive_entry_perm(entry)};
    bool more = archive_entry_xattr_count(entry) > 0 || archive_entry_acl_types(entry) != 0;
    if (more)
        dir.entry = archive_entry_clone(entry);
    if (!dir.path || (more && !dir.entry)) {
        free(dir.path);
        archive_entry_free(dir.entry);
        return lk_error_set(&x->error, LK_MEMORY, "no memory for directory %s",
                            lk_extract_shown(x));
    }
    x->dirs[x->dir_count++] = dir;
    return 0;
}

/* Deeper paths sort behind the ones above them; of equal ones the last wins. */
static int deepest_first(const void *a, const void *b)
{
    const struct lk_extract_dir *one = a, *two = b;
    int order = strcmp(two->path, one->path);
    return order ? order : one->number < two->number ? -1 : 1;
}

/* Fills the entry with what was kept of a directory. */
static struct archive_entry *recall(const struct lk_extract_dir *dir, struct archive_entry *entry)
{
    archive_entry_clear(entry);
    archive_entry_set_filetype(entry, AE_IFDIR);
    archive_entry_set_perm(entry, dir->perm);
    archive_entry_set_uid(entry, dir->uid);
    archive_entry_set_gid(entry, dir->gid);
    if (dir->timed)
        archive_entry_set_mtime(entry, dir->mtime, (long)dir->mtime_ns);
    return entry;
}

static int finish_dir(struct lk_extract *x, const struct lk_extract_dir *dir,
                      struct archive_entry *scratch)
{
    const char *name = ".";
    x->path.len = 0;
    if (lk_buf_add(&x->path, dir->path, strlen(dir->path), &x->error))
        return -1;
    int parent = x->into;
    if (x->path.len) {
        size_t len = lk_extract_split(&x->path, &name);
        parent = lk_extract_open(x, x->parents, x->path.data, len, false);
    }
    if (parent < 0)
        return -1;
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return lk_extract_errno(x, errno, "given its mode and times");
    struct archive_entry *entry = dir->entry ? dir->entry : recall(dir, scratch);
    int result = lk_extract_meta(x, entry, fd, parent, name);
    close(fd);
    return result;
}

/* True for a directory that is or holds what x->path was. */
static bool holds(const struct lk_extract_dir *dir, const char *path, size_t path_len)
{
    size_t len = strlen(dir->path);
    return len == 0 || (len <= path_len && memcmp(dir->path, path, len) == 0 &&
                        (path[len] == '/' || path[len] == 0));
}

/* Finishes the directories, but for those that hold `open` (NULL = all); the first failure counts.
 */
static int finish(struct lk_extract *x, const char *open, size_t open_len)
{
    int result = 0;
    size_t kept = 0;
    struct lk_error first = {.kind = LK_OK};
    struct archive_entry *scratch = archive_entry_new();
    if (!scratch)
        return lk_error_set(&x->error, LK_MEMORY, "no memory for the modes of directories");
    if (x->dir_count)
        qsort(x->dirs, x->dir_count, sizeof *x->dirs, deepest_first);
    for (size_t i = 0; i < x->dir_count; i++) {
        struct lk_extract_dir dir = x->dirs[i];
        bool again = i + 1 < x->dir_count && strcmp(dir.path, x->dirs[i + 1].path) == 0;
        if (open && holds(&dir, open, open_len)) {
            x->dirs[kept++] = dir;
            continue;
        }
        if (!again && finish_dir(x, &dir, scratch) && result == 0) {
            result = -1;
            first = x->error;
        }
        free(dir.path);
        archive_entry_free(dir.entry);
    }
    x->dir_count = kept;
    archive_entry_free(scratch);
    if (result)
        x->error = first;
    return result;
}

int lk_extract_finish_dirs(struct lk_extract *x)
{
    return finish(x, NULL, 0);
}

int lk_extract_flush_dirs(struct lk_extract *x)
{
    if (x->dir_count < x->dir_limit || x->dir_count < DIRS_KEPT)
        return 0;
    size_t len = x->path.len;
    char *open = strdup(len ? x->path.data : "");
    if (!open)
        return lk_error_set(&x->error, LK_MEMORY, "no memory for a path");
    int result = finish(x, open, len);
    free(open);
    x->dir_limit = x->dir_count * 2;
    return result;
}
