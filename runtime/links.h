/* SPDX-License-Identifier: MIT
 * links.h - which file a hard link leads to (archive source), and names of users and groups by id
 * and back. Small tables with an owner each; one thread. */
#ifndef LK_LINKS_H
#define LK_LINKS_H

#include "error.h"
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

struct lk_links;

struct lk_links *lk_links_new(struct lk_error *err);
void lk_links_free(struct lk_links *links);
/* The member path that was kept for this file, or NULL. Forgets it once all its links have been
 * asked for. The result is valid until the next call. */
const char *lk_links_find(struct lk_links *links, const struct stat *st);
/* Keeps the path of the first of st_nlink links. */
int lk_links_add(struct lk_links *links, const struct stat *st, const char *path,
                 struct lk_error *err);

struct lk_names;

struct lk_names *lk_names_new(struct lk_error *err);
void lk_names_free(struct lk_names *names);
/* "" for an id without a name. Each id is looked up once. */
const char *lk_names_user(struct lk_names *names, uid_t uid);
const char *lk_names_group(struct lk_names *names, gid_t gid);
/* The id of a name on this system; fallback if there is none or the name is empty. */
uid_t lk_names_uid(struct lk_names *names, const char *name, uid_t fallback);
gid_t lk_names_gid(struct lk_names *names, const char *name, gid_t fallback);

#endif
