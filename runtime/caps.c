/* SPDX-License-Identifier: MIT
 * caps.c - the grants of a runtime and the checks against them.
 * A grant is normalised when it is made: hosts in lower case, paths without links, so a link that
 * changes later can't widen it. Owns its copies. Checks only read, so any thread may check once
 * nothing is granted any more. */
#include "caps.h"

#include "resolve.h"
#include <arpa/inet.h>
#include <ctype.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct grant {
    struct grant *next;
    char value[];
};

struct lk_caps {
    bool sealed;
    bool all[LK_CAP_COUNT];
    struct grant *grants[LK_CAP_COUNT];
};

static const char *const names[LK_CAP_COUNT] = {
    [LK_CAP_EXEC] = "exec",   [LK_CAP_NET] = "net", [LK_CAP_READ] = "read",
    [LK_CAP_WRITE] = "write", [LK_CAP_ENV] = "env", [LK_CAP_POSIX] = "posix",
};

const char *lk_cap_name(enum lk_cap cap)
{
    return (unsigned)cap < LK_CAP_COUNT ? names[cap] : "unknown";
}

int lk_cap_parse(const char *name, enum lk_cap *cap, struct lk_error *err)
{
    int i;

    for (i = 0; i < LK_CAP_COUNT; i++) {
        if (strcmp(name, names[i]) == 0) {
            *cap = (enum lk_cap)i;
            return 0;
        }
    }
    return lk_error_set(err, LK_USAGE,
                        "unknown capability %s: expected exec, net, read, write, env or posix",
                        name);
}

struct lk_caps *lk_caps_new(struct lk_error *err)
{
    struct lk_caps *caps = calloc(1, sizeof *caps);

    if (!caps)
        lk_error_set(err, LK_MEMORY, "no memory for a set of capabilities");
    return caps;
}

void lk_caps_free(struct lk_caps *caps)
{
    struct grant *grant;
    int i;

    if (!caps)
        return;
    for (i = 0; i < LK_CAP_COUNT; i++) {
        while ((grant = caps->grants[i])) {
            caps->grants[i] = grant->next;
            free(grant);
        }
    }
    free(caps);
}

void lk_caps_seal(struct lk_caps *caps)
{
    caps->sealed = true;
}

/* --- hosts --- */

struct peer {
    char host[256]; /* lower case, no brackets, no dot at the end; an IP address as inet_ntop writes
                       it */
    char port[8];   /* "" = any */
};

/* An address has many spellings (::1, 0:0::1); names have one. */
static void normalise_host(char *host)
{
    unsigned char address[sizeof(struct in6_addr)];
    size_t len = strlen(host), i;

    for (i = 0; i < len; i++)
        host[i] = (char)tolower((unsigned char)host[i]);
    if (len > 1 && host[len - 1] == '.')
        host[len - 1] = '\0';
    if (inet_pton(AF_INET6, host, address) == 1)
        inet_ntop(AF_INET6, address, host, 256);
}

/* host, host:port, [v6], [v6]:port or a bare v6 address. */
static bool parse_peer(const char *text, struct peer *peer)
{
    const char *host = text, *end, *port = NULL;
    size_t len;

    if (*text == '[') {
        host = text + 1;
        end = strchr(host, ']');
        if (!end || (end[1] != '\0' && end[1] != ':'))
            return false;
        port = end[1] == ':' ? end + 2 : NULL;
    } else {
        end = strchr(text, ':');
        if (end && !strchr(end + 1, ':'))
            port = end + 1;
        else
            end = text + strlen(text);
    }
    len = (size_t)(end - host);
    if (len == 0 || len >= sizeof peer->host || memchr(host, '/', len) || memchr(host, '@', len))
        return false;
    memcpy(peer->host, host, len);
    peer->host[len] = '\0';
    normalise_host(peer->host);
    peer->port[0] = '\0';
    if (!port)
        return true;
    len = strlen(port);
    if (len == 0 || len > 5 || strspn(port, "0123456789") != len)
        return false;
    memcpy(peer->port, port, len + 1);
    return true;
}

static bool host_matches(const char *value, const struct peer *wanted)
{
    struct peer grant;
    const char *suffix;
    size_t len, all;

    if (!parse_peer(value, &grant) || (grant.port[0] && strcmp(grant.port, wanted->port) != 0))
        return false;
    if (strncmp(grant.host, "*.", 2) != 0)
        return strcmp(grant.host, wanted->host) == 0;
    suffix =
        grant.host + 1; /* with its dot: *.example.org is not example.org, nor badexample.org */
    len = strlen(suffix);
    all = strlen(wanted->host);
    return all > len && strcmp(wanted->host + all - len, suffix) == 0;
}

/* --- paths, programs, names --- */

static bool path_matches(const char *prefix, const char *path)
{
    size_t len = strlen(prefix);

    if (strcmp(prefix, "/") == 0)
        return true;
    return strncmp(path, prefix, len) == 0 && (path[len] == '/' || path[len] == '\0');
}

static bool env_matches(const char *pattern, const char *name)
{
    size_t len = strlen(pattern);

    if (len > 0 && pattern[len - 1] == '*')
        return strncmp(name, pattern, len - 1) == 0;
    return strcmp(name, pattern) == 0;
}

/* --- granting --- */

static int bad_value(struct lk_error *err, enum lk_cap cap, const char *value, const char *expected)
{
    return lk_error_set(err, LK_USAGE, "%s can't be granted for \"%s\": expected %s", names[cap],
                        value, expected);
}

static int check_value(enum lk_cap cap, const char *value, struct lk_error *err)
{
    struct peer peer;
    const char *star;

    switch (cap) {
    case LK_CAP_EXEC:
        if (!*value || (strchr(value, '/') && *value != '/'))
            return bad_value(err, cap, value, "a program's name without / or an absolute path");
        return 0;
    case LK_CAP_NET:
        star = strrchr(value, '*');
        if (!parse_peer(value, &peer) || (star && (star != value || strncmp(value, "*.", 2) != 0)))
            return bad_value(err, cap, value, "HOST, HOST:PORT, *.SUFFIX or *");
        return 0;
    case LK_CAP_READ:
    case LK_CAP_WRITE:
        if (*value != '/')
            return bad_value(err, cap, value, "an absolute path or *");
        return 0;
    case LK_CAP_ENV:
        star = strchr(value, '*');
        if (!*value || strchr(value, '=') || (star && star[1]))
            return bad_value(err, cap, value, "a variable's name, PREFIX_* or *");
        return 0;
    default:
        return 0;
    }
}

int lk_caps_allow(struct lk_caps *caps, enum lk_cap cap, const char *value, struct lk_error *err)
{
    char path[PATH_MAX];
    struct grant *grant;
    size_t size;

    if ((unsigned)cap >= LK_CAP_COUNT)
        return lk_error_set(err, LK_USAGE, "unknown capability %d", (int)cap);
    if (caps->sealed) {
        lk_error_set(err, LK_DENIED, "%s can't be granted for \"%s\": the set is sealed",
                     names[cap], value ? value : "*");
        return lk_error_hint(err, "grant it before a script runs");
    }
    if (cap == LK_CAP_POSIX || !value || strcmp(value, "*") == 0) {
        if (!value && cap != LK_CAP_POSIX)
            return bad_value(err, cap, "", "a value or *");
        caps->all[cap] = true;
        return 0;
    }
    if (check_value(cap, value, err) < 0)
        return -1;
    if (cap == LK_CAP_READ || cap == LK_CAP_WRITE) {
        if (lk_resolve(value, path, sizeof path, err) < 0)
            return -1;
        value = path;
    }
    size = strlen(value) + 1;
    grant = malloc(sizeof *grant + size);
    if (!grant)
        return lk_error_set(err, LK_MEMORY, "no memory for a grant");
    memcpy(grant->value, value, size);
    grant->next = caps->grants[cap];
    caps->grants[cap] = grant;
    return 0;
}

/* --- checking --- */

static bool matches(enum lk_cap cap, const char *grant, const char *value, const struct peer *peer)
{
    switch (cap) {
    case LK_CAP_NET:
        return host_matches(grant, peer);
    case LK_CAP_READ:
    case LK_CAP_WRITE:
        return path_matches(grant, value);
    case LK_CAP_ENV:
        return env_matches(grant, value);
    default:
        return strcmp(grant, value) == 0;
    }
}

/* What the grant would have to be; for a path where it leads, if that is not what was asked for. */
static int deny(enum lk_cap cap, const char *asked, const char *resolved, struct lk_error *err)
{
    static const char *const verbs[LK_CAP_COUNT] = {
        [LK_CAP_EXEC] = "running program",
        [LK_CAP_NET] = "connecting to",
        [LK_CAP_READ] = "reading",
        [LK_CAP_WRITE] = "writing",
        [LK_CAP_ENV] = "environment variable",
        [LK_CAP_POSIX] = "posix",
    };
    bool elsewhere = strcmp(asked, resolved) != 0;

    if (cap == LK_CAP_POSIX)
        lk_error_set(err, LK_DENIED, "posix is not allowed");
    else
        lk_error_set(err, LK_DENIED, "%s %s is not allowed%s%s%s", verbs[cap], asked,
                     elsewhere ? " (it is " : "", elsewhere ? resolved : "", elsewhere ? ")" : "");
    return lk_error_hint(err, "grant %s for \"%s\"", names[cap],
                         cap == LK_CAP_POSIX ? "*" : resolved);
}

int lk_caps_check(struct lk_caps *caps, enum lk_cap cap, const char *value, struct lk_error *err)
{
    const char *resolved = value ? value : "";
    const struct grant *grant;
    char path[PATH_MAX];
    struct peer peer;

    if ((unsigned)cap >= LK_CAP_COUNT)
        return lk_error_set(err, LK_DENIED, "unknown capability %d", (int)cap);
    if (caps->all[cap])
        return 0;
    if (cap == LK_CAP_NET && !parse_peer(resolved, &peer))
        return deny(cap, resolved, resolved, err);
    if (caps->grants[cap] && (cap == LK_CAP_READ || cap == LK_CAP_WRITE)) {
        if (lk_resolve(resolved, path, sizeof path, err) < 0)
            return -1;
        resolved = path;
    }
    for (grant = caps->grants[cap]; grant; grant = grant->next)
        if (matches(cap, grant->value, resolved, &peer))
            return 0;
    return deny(cap, value ? value : "", resolved, err);
}
