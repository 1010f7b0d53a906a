/* SPDX-License-Identifier: MIT
 * cgroup.c - reads the limits of the process's control groups from the mounted hierarchies.
 * What can't be read sets no limit. Keeps nothing open, changes nothing. Any thread. */
#include "cgroup.h"

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Values at or above this mean "no limit": version 1 writes the largest page count it can hold. */
#define UNLIMITED ((uint64_t)1 << 60)

/* Where one hierarchy is: the directory it is mounted on, and the process's own group below it (""
 * = the top). */
struct place {
    char mount[PATH_MAX];
    char group[PATH_MAX];
};

/* True if word is one of the comma-separated words of list. */
static bool has_word(const char *list, const char *word)
{
    size_t len = strlen(word);
    const char *at;

    for (at = list; at; at = strchr(at, ',')) {
        if (*at == ',')
            at++;
        if (strncmp(at, word, len) == 0 && (at[len] == ',' || at[len] == '\0'))
            return true;
    }
    return false;
}

/* mountinfo writes a blank as \040 and so on. */
static void unescape(char *text)
{
    char *out = text;

    for (; *text; text++) {
        if (text[0] == '\\' && text[1] >= '0' && text[1] <= '3' && text[2] && text[3]) {
            *out++ = (char)((text[1] - '0') * 64 + (text[2] - '0') * 8 + (text[3] - '0'));
            text += 3;
        } else {
            *out++ = *text;
        }
    }
    *out = '\0';
}

/* The process's group as /proc/self/cgroup names it: line `0::/path` (version 2),
 * `4:cpu,cpuacct:/path` (version 1). controller NULL = version 2. */
static bool own_group(const char *root, const char *controller, char *group)
{
    char name[PATH_MAX], line[PATH_MAX + 256];
    bool found = false;
    FILE *file;

    snprintf(name, sizeof name, "%s/proc/self/cgroup", root);
    file = fopen(name, "re");
    if (!file)
        return false;
    while (!found && fgets(line, sizeof line, file)) {
        char *controllers = strchr(line, ':');
        char *path = controllers ? strchr(controllers + 1, ':') : NULL;

        if (!path)
            continue;
        *path++ = '\0';
        controllers++;
        path[strcspn(path, "\n")] = '\0';
        found = controller ? has_word(controllers, controller)
                           : strncmp(line, "0:", 2) == 0 && *controllers == '\0';
        if (found)
            snprintf(group, PATH_MAX, "%s", path);
    }
    fclose(file);
    return found;
}

/* One line of mountinfo: `31 23 0:28 ROOT MOUNT opts [tags] - TYPE source options`. Cuts line into
 * pieces. */
static bool is_hierarchy(char *line, const char *controller, char **mount_root, char **mount)
{
    char *dash = strstr(line, " - ");
    char *type, *options, *save = NULL;
    int i;

    if (!dash)
        return false;
    *dash = '\0';
    type = strtok_r(dash + 3, " \n", &save);
    if (!type || strcmp(type, controller ? "cgroup" : "cgroup2") != 0)
        return false;
    strtok_r(NULL, " \n", &save);
    options = strtok_r(NULL, " \n", &save);
    if (controller && (!options || !has_word(options, controller)))
        return false;
    *mount_root = strtok_r(line, " ", &save);
    for (i = 0; *mount_root && i < 3; i++)
        *mount_root = strtok_r(NULL, " ", &save);
    *mount = *mount_root ? strtok_r(NULL, " ", &save) : NULL;
    return *mount != NULL;
}

/* The group relative to the mount. A container may see its group under another name than the
 * mount's root has: then the mount itself is the group. */
static const char *below(const char *group, const char *mount_root)
{
    size_t len = strcmp(mount_root, "/") == 0 ? 0 : strlen(mount_root);

    if (strncmp(group, mount_root, len) != 0 || (group[len] != '/' && group[len] != '\0') ||
        strstr(group, "/.."))
        return "";
    return strcmp(group + len, "/") == 0 ? "" : group + len;
}

static bool find_place(const char *root, const char *controller, struct place *place)
{
    char name[PATH_MAX], line[2 * PATH_MAX + 512], group[PATH_MAX];
    char *mount_root, *mount;
    bool found = false;
    FILE *file;

    if (!own_group(root, controller, group))
        return false;
    snprintf(name, sizeof name, "%s/proc/self/mountinfo", root);
    file = fopen(name, "re");
    if (!file)
        return false;
    while (!found && fgets(line, sizeof line, file)) {
        if (!is_hierarchy(line, controller, &mount_root, &mount))
            continue;
        unescape(mount_root);
        unescape(mount);
        snprintf(place->mount, sizeof place->mount, "%s%s", root, mount);
        snprintf(place->group, sizeof place->group, "%s", below(group, mount_root));
        found = true;
    }
    fclose(file);
    return found;
}

/* First line of mount/group/leaf. */
static bool read_line(const struct place *place, const char *leaf, char *line, int size)
{
    char name[2 * PATH_MAX + 64];
    FILE *file;
    bool ok;

    snprintf(name, sizeof name, "%s%s/%s", place->mount, place->group, leaf);
    file = fopen(name, "re");
    if (!file)
        return false;
    ok = fgets(line, size, file) != NULL;
    fclose(file);
    return ok;
}

/* To the group above; false at the top. */
static bool up(struct place *place)
{
    char *slash = strrchr(place->group, '/');

    if (!slash)
        return false;
    *slash = '\0';
    return true;
}

static void lower(uint64_t *limit, uint64_t value)
{
    if (value > 0 && (*limit == 0 || value < *limit))
        *limit = value;
}

static uint64_t quota_v2(const struct place *place)
{
    unsigned long long quota, period;
    char line[64];

    if (!read_line(place, "cpu.max", line, sizeof line) ||
        sscanf(line, "%llu %llu", &quota, &period) != 2 || period == 0)
        return 0;
    return (quota + period - 1) / period;
}

static uint64_t quota_v1(const struct place *place)
{
    long long quota, period;
    char line[64];

    if (!read_line(place, "cpu.cfs_quota_us", line, sizeof line) ||
        sscanf(line, "%lld", &quota) != 1 || quota <= 0)
        return 0;
    if (!read_line(place, "cpu.cfs_period_us", line, sizeof line) ||
        sscanf(line, "%lld", &period) != 1 || period <= 0)
        return 0;
    return (uint64_t)((quota + period - 1) / period);
}

static uint64_t memory_of(const struct place *place, const char *leaf)
{
    char line[64];
    uint64_t value = 0;

    if (read_line(place, leaf, line, sizeof line) && line[0] >= '0' && line[0] <= '9')
        value = strtoull(line, NULL, 10);
    return value < UNLIMITED ? value : 0;
}

static uint64_t memory_v2(const struct place *place)
{
    return memory_of(place, "memory.max");
}

static uint64_t memory_v1(const struct place *place)
{
    return memory_of(place, "memory.limit_in_bytes");
}

/* The smallest limit from the process's own group up to the top; 0 = none. */
static uint64_t least(const char *root, const char *controller,
                      uint64_t (*v1)(const struct place *place),
                      uint64_t (*v2)(const struct place *place))
{
    struct place *place = malloc(sizeof *place);
    uint64_t limit = 0;

    if (!place)
        return 0;
    if (find_place(root, NULL, place)) {
        do
            lower(&limit, v2(place));
        while (up(place));
    }
    if (find_place(root, controller, place)) {
        do
            lower(&limit, v1(place));
        while (up(place));
    }
    free(place);
    return limit;
}

int lk_cgroup_cpus(const char *root)
{
    uint64_t cpus = least(root, "cpu", quota_v1, quota_v2);

    return cpus > INT_MAX ? INT_MAX : (int)cpus;
}

uint64_t lk_cgroup_memory(const char *root)
{
    return least(root, "memory", memory_v1, memory_v2);
}
