/* SPDX-License-Identifier: MIT
 * links.c - tables of hard links and of names of users and groups.
 * Links: chained buckets that double; an entry goes when its file's last link was seen, so a tree
 * whose links are complete needs little memory. Names: lists in the order of last use, as there are
 * few. One thread. */
#include "links.h"
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>

/* --- hard links --- */

struct link {
    struct link *next;
    dev_t dev;
    ino_t ino;
    nlink_t left; /* links still to come */
    char path[];
};

struct lk_links {
    struct link **buckets;
    size_t size, count; /* size is a power of two */
    struct link *gone;  /* its path was returned last */
};

struct lk_links *lk_links_new(struct lk_error *err)
{
    struct lk_links *links = calloc(1, sizeof *links);
    if (links) {
        links->size = 256;
        links->buckets = calloc(links->size, sizeof *links->buckets);
    }
    if (!links || !links->buckets) {
        free(links);
        lk_error_set(err, LK_MEMORY, "no memory for a table of hard links");
        return NULL;
    }
    return links;
}

void lk_links_free(struct lk_links *links)
{
    if (!links)
        return;
    for (size_t i = 0; i < links->size; i++)
        for (struct link *link = links->buckets[i], *next; link; link = next) {
            next = link->next;
            free(link);
        }
    free(links->gone);
    free(links->buckets);
    free(links);
}

static struct link **bucket(const struct lk_links *links, dev_t dev, ino_t ino)
{
    uint64_t hash = ((uint64_t)ino ^ (uint64_t)dev << 32) * UINT64_C(0x9e3779b97f4a7c15);
    return &links->buckets[(hash >> 32) & (links->size - 1)];
}

const char *lk_links_find(struct lk_links *links, const struct stat *st)
{
    struct link **at = bucket(links, st->st_dev, st->st_ino);
    while (*at && ((*at)->ino != st->st_ino || (*at)->dev != st->st_dev))
        at = &(*at)->next;
    struct link *link = *at;
    if (!link)
        return NULL;
    if (link->left-- > 1)
        return link->path;
    *at = link->next;
    links->count--;
    free(links->gone);
    links->gone = link;
    return link->path;
}

static void grow(struct lk_links *links)
{
    size_t old_size = links->size;
    struct link **old = links->buckets, **buckets = calloc(old_size * 2, sizeof *buckets);
    if (!buckets)
        return; /* longer chains, then */
    links->buckets = buckets;
    links->size = old_size * 2;
    for (size_t i = 0; i < old_size; i++)
        for (struct link *link = old[i], *next; link; link = next) {
            struct link **at = bucket(links, link->dev, link->ino);
            next = link->next;
            link->next = *at;
            *at = link;
        }
    free(old);
}

int lk_links_add(struct lk_links *links, const struct stat *st, const char *path,
                 struct lk_error *err)
{
    size_t len = strlen(path);
    struct link *link = malloc(sizeof *link + len + 1);
    if (!link)
        return lk_error_set(err, LK_MEMORY, "no memory for a hard link");
    if (++links->count > links->size)
        grow(links);
    struct link **at = bucket(links, st->st_dev, st->st_ino);
    *link =
        (struct link){.next = *at, .dev = st->st_dev, .ino = st->st_ino, .left = st->st_nlink - 1};
    memcpy(link->path, path, len + 1);
    *at = link;
    return 0;
}

/* --- names --- */

struct name {
    struct name *next;
    uint32_t id;
    bool known; /* looked up by name: there is such an id */
    char text[];
};

enum list { USER, GROUP, UID, GID, LISTS };
enum { NAMES_KEPT = 1024 };

struct lk_names {
    struct name *lists[LISTS];
    char *scratch;
    size_t scratch_size;
};

static void free_list(struct name *name)
{
    while (name) {
        struct name *next = name->next;
        free(name);
        name = next;
    }
}

struct lk_names *lk_names_new(struct lk_error *err)
{
    struct lk_names *names = calloc(1, sizeof *names);
    if (names)
        names->scratch = malloc(names->scratch_size = 4096);
    if (!names || !names->scratch) {
        free(names);
        lk_error_set(err, LK_MEMORY, "no memory for names of users");
        return NULL;
    }
    return names;
}

void lk_names_free(struct lk_names *names)
{
    if (!names)
        return;
    for (int i = 0; i < LISTS; i++)
        free_list(names->lists[i]);
    free(names->scratch);
    free(names);
}

/* True if the buffer was too small and could be made larger (a group with many members). */
static bool larger(struct lk_names *names, int result)
{
    char *scratch;
    if (result != ERANGE || names->scratch_size > (size_t)1 << 22 ||
        !(scratch = realloc(names->scratch, names->scratch_size * 4)))
        return false;
    names->scratch = scratch;
    names->scratch_size *= 4;
    return true;
}

static struct passwd *find_user(struct lk_names *names, const char *name, uid_t uid,
                                struct passwd *user)
{
    struct passwd *found = NULL;
    int result;
    do {
        result = name ? getpwnam_r(name, user, names->scratch, names->scratch_size, &found)
                      : getpwuid_r(uid, user, names->scratch, names->scratch_size, &found);
    } while (larger(names, result));
    return result == 0 ? found : NULL;
}

static struct group *find_group(struct lk_names *names, const char *name, gid_t gid,
                                struct group *group)
{
    struct group *found = NULL;
    int result;
    do {
        result = name ? getgrnam_r(name, group, names->scratch, names->scratch_size, &found)
                      : getgrgid_r(gid, group, names->scratch, names->scratch_size, &found);
    } while (larger(names, result));
    return result == 0 ? found : NULL;
}

static struct name *remember(struct lk_names *names, enum list list, uint32_t id, const char *text,
                             bool known)
{
    size_t len = strlen(text);
    struct name *name = malloc(sizeof *name + len + 1);
    if (!name)
        return NULL;
    *name = (struct name){.next = names->lists[list], .id = id, .known = known};
    memcpy(name->text, text, len + 1);
    names->lists[list] = name;
    return name;
}

/* Looks in a list, by id or by text, and moves what it finds to the front. What was not asked for
 * since NAMES_KEPT others were is forgotten: an archive can have any number of them. */
static struct name *recall(struct lk_names *names, enum list list, uint32_t id, const char *text)
{
    size_t seen = 0;
    for (struct name **at = &names->lists[list], *name; (name = *at); at = &name->next, seen++) {
        if (seen == NAMES_KEPT) {
            *at = NULL;
            free_list(name);
            break;
        }
        if (text ? strcmp(name->text, text) == 0 : name->id == id) {
            *at = name->next;
            name->next = names->lists[list];
            names->lists[list] = name;
            return name;
        }
    }
    return NULL;
}

const char *lk_names_user(struct lk_names *names, uid_t uid)
{
    struct name *name = recall(names, USER, uid, NULL);
    if (!name) {
        struct passwd user, *found = find_user(names, NULL, uid, &user);
        name = remember(names, USER, uid, found ? found->pw_name : "", true);
    }
    return name ? name->text : "";
}

const char *lk_names_group(struct lk_names *names, gid_t gid)
{
    struct name *name = recall(names, GROUP, gid, NULL);
    if (!name) {
        struct group group, *found = find_group(names, NULL, gid, &group);
        name = remember(names, GROUP, gid, found ? found->gr_name : "", true);
    }
    return name ? name->text : "";
}

uid_t lk_names_uid(struct lk_names *names, const char *text, uid_t fallback)
{
    if (!text || !*text)
        return fallback;
    struct name *name = recall(names, UID, 0, text);
    if (!name) {
        struct passwd user, *found = find_user(names, text, 0, &user);
        name = remember(names, UID, found ? found->pw_uid : 0, text, found != NULL);
    }
    return name && name->known ? name->id : fallback;
}

gid_t lk_names_gid(struct lk_names *names, const char *text, gid_t fallback)
{
    if (!text || !*text)
        return fallback;
    struct name *name = recall(names, GID, 0, text);
    if (!name) {
        struct group group, *found = find_group(names, text, 0, &group);
        name = remember(names, GID, found ? found->gr_gid : 0, text, found != NULL);
    }
    return name && name->known ? name->id : fallback;
}
