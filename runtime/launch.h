/* SPDX-License-Identifier: MIT
 * launch.h - start a program: find it, resolve its user, and clone with its descriptors in place.
 * The caller keeps the pidfd and reaps. Any thread. */
#ifndef LK_LAUNCH_H
#define LK_LAUNCH_H

#include "error.h"
#include <stddef.h>
#include <sys/types.h>

/* Who a program runs as. */
struct lk_identity {
    bool change; /* false: as the caller, and the rest is unused */
    uid_t uid;
    gid_t gid;
    gid_t *groups; /* supplementary; freed by lk_identity_free */
    int group_count;
};

/* user, group: name or number, NULL = not given. A user without group gets the group and the
 * supplementary groups of the user database, or, for a number that is not in it, the group of the
 * same number. Asking for what the process is already changes nothing, and so needs no privilege.
 */
int lk_identity_find(const char *user, const char *group, struct lk_identity *identity,
                     struct lk_error *err);
void lk_identity_free(struct lk_identity *identity);

/* A name without slash is looked up in this process's own PATH (not in one that a script sets,
 * which would turn a granted name into any program); entries that are not absolute are passed over.
 * A name with a slash is a path. *path is malloc'ed. The error says for every candidate why it is
 * not the one. */
int lk_spawn_find(const char *name, char **path, struct lk_error *err);

/* The environment of a program: this process's (nothing if `clean`) with the changes, each
 * "NAME=value" to set or "NAME" to remove; a later one wins. One malloc'ed block, freed with
 * free(). */
char **lk_spawn_env(const char *const *changes, size_t count, bool clean, struct lk_error *err);

struct lk_spawn {
    const char *path;
    const char *const *argv;
    char *const *env;
    const char *cwd; /* NULL = the caller's; entered as the new user */
    int fd[3];       /* what becomes 0, 1 and 2: 3 or above; -1 = the caller's
                           own; 1 for the last = the same as stdout */
    const struct lk_identity *identity;
};

/* Starts it as leader of a session and process group of its own, with default signal handlers, no
 * blocked signal and no other descriptor. Returns when the program runs, or with the reason why it
 * can't. */
int lk_spawn(const struct lk_spawn *spawn, pid_t *pid, int *pidfd, struct lk_error *err);

#endif
