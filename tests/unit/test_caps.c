/* SPDX-License-Identifier: MIT
 * test_caps.c - nothing is allowed that was not granted: programs, hosts, paths with links, names.
 */
#include "caps.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct lk_caps *caps;
static struct lk_error err;

static int set_up(void **state)
{
    (void)state;
    caps = lk_caps_new(NULL);
    return caps ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    lk_caps_free(caps);
    return 0;
}

static void allow(enum lk_cap cap, const char *value)
{
    if (lk_caps_allow(caps, cap, value, &err) < 0)
        fail_msg("%s", err.message);
}

static bool may(enum lk_cap cap, const char *value)
{
    return lk_caps_check(caps, cap, value, &err) == 0;
}

static void denies_by_default(void **state)
{
    (void)state;
    assert_false(may(LK_CAP_EXEC, "pg_dump"));
    assert_int_equal(err.kind, LK_DENIED);
    assert_string_equal(err.message, "running program pg_dump is not allowed");
    assert_string_equal(err.hint, "grant exec for \"pg_dump\"");
    assert_false(may(LK_CAP_NET, "s3.example.org:443"));
    assert_string_equal(err.message, "connecting to s3.example.org:443 is not allowed");
    assert_false(may(LK_CAP_READ, "/etc/passwd"));
    assert_string_equal(err.message, "reading /etc/passwd is not allowed");
    assert_string_equal(err.hint, "grant read for \"/etc/passwd\"");
    assert_false(may(LK_CAP_WRITE, "/tmp/x"));
    assert_false(may(LK_CAP_ENV, "PGPASSWORD"));
    assert_string_equal(err.message, "environment variable PGPASSWORD is not allowed");
    assert_false(may(LK_CAP_POSIX, "*"));
    assert_string_equal(err.message, "posix is not allowed");
    assert_string_equal(err.hint, "grant posix for \"*\"");
    assert_false(may(LK_CAP_EXEC, NULL));
    assert_false(may(LK_CAP_COUNT, "x"));
}

static void star_allows_all(void **state)
{
    int i;

    (void)state;
    for (i = 0; i < LK_CAP_COUNT; i++) {
        assert_false(may((enum lk_cap)i, "/any/thing"));
        allow((enum lk_cap)i, "*");
        assert_true(may((enum lk_cap)i, "/any/thing"));
    }
    assert_true(may(LK_CAP_NET, "not a host @"));
}

static void programs(void **state)
{
    (void)state;
    allow(LK_CAP_EXEC, "pg_dump");
    allow(LK_CAP_EXEC, "/usr/bin/tar");
    assert_true(may(LK_CAP_EXEC, "pg_dump"));
    assert_false(may(LK_CAP_EXEC, "pg_dumpall"));
    assert_false(may(LK_CAP_EXEC, "/usr/bin/pg_dump"));
    assert_false(may(LK_CAP_EXEC, "./pg_dump"));
    assert_true(may(LK_CAP_EXEC, "/usr/bin/tar"));
    assert_false(may(LK_CAP_EXEC, "tar")); /* PATH may find another */
    assert_false(may(LK_CAP_EXEC, "/usr/bin/../bin/tar"));
    assert_false(may(LK_CAP_EXEC, ""));
}

static void hosts(void **state)
{
    (void)state;
    allow(LK_CAP_NET, "S3.Example.org");
    allow(LK_CAP_NET, "db.example.org:5432");
    allow(LK_CAP_NET, "*.blob.example.net");
    assert_true(may(LK_CAP_NET, "s3.example.org"));
    assert_true(may(LK_CAP_NET, "s3.EXAMPLE.org.:443"));
    assert_false(may(LK_CAP_NET, "a.s3.example.org"));
    assert_false(may(LK_CAP_NET, "s3.example.org.evil.com"));
    assert_true(may(LK_CAP_NET, "db.example.org:5432"));
    assert_false(may(LK_CAP_NET, "db.example.org:22"));
    assert_false(may(LK_CAP_NET, "db.example.org"));
    assert_true(may(LK_CAP_NET, "acc.blob.example.net:443"));
    assert_true(may(LK_CAP_NET, "a.b.blob.example.net"));
    assert_false(may(LK_CAP_NET, "blob.example.net"));
    assert_false(may(LK_CAP_NET, "evilblob.example.net"));
    assert_false(may(LK_CAP_NET, "s3.example.org:"));
    assert_false(may(LK_CAP_NET, "s3.example.org@evil.com"));
    assert_false(may(LK_CAP_NET, "s3.example.org:80/evil.com"));
    assert_false(may(LK_CAP_NET, ""));
}

static void addresses(void **state)
{
    (void)state;
    allow(LK_CAP_NET, "[::1]:9000");
    allow(LK_CAP_NET, "fe80::2");
    allow(LK_CAP_NET, "127.0.0.1:9000");
    assert_true(may(LK_CAP_NET, "[::1]:9000"));
    assert_true(may(LK_CAP_NET, "[0:0::0:1]:9000"));
    assert_false(may(LK_CAP_NET, "[::1]:9001"));
    assert_false(may(LK_CAP_NET, "::1"));
    assert_true(may(LK_CAP_NET, "[FE80::2]:1"));
    assert_true(may(LK_CAP_NET, "fe80:0::2"));
    assert_false(may(LK_CAP_NET, "[::1"));
    assert_true(may(LK_CAP_NET, "127.0.0.1:9000"));
    assert_false(may(LK_CAP_NET, "127.0.0.2:9000"));
}

static void variables(void **state)
{
    (void)state;
    allow(LK_CAP_ENV, "HOME");
    allow(LK_CAP_ENV, "AWS_*");
    assert_true(may(LK_CAP_ENV, "HOME"));
    assert_false(may(LK_CAP_ENV, "home"));
    assert_false(may(LK_CAP_ENV, "HOMEDRIVE"));
    assert_true(may(LK_CAP_ENV, "AWS_REGION"));
    assert_false(may(LK_CAP_ENV, "AWS"));
}

/* --- paths --- */

static char root[PATH_MAX];

static char *in(const char *path)
{
    static char names[4][2 * PATH_MAX];
    static int next;
    char *name = names[next++ % 4];

    snprintf(name, sizeof names[0], "%s/%s", root, path);
    return name;
}

static const char *const things[] = {
    "granted/sub/file", "granted/sub/out",  "granted/sub",    "granted/dangling", "granted/loop",
    "granted/inner",    "granted/absolute", "granted/updown", "granted",          "granted2",
    "outside/secret",   "outside",          "entry"};

static int make_tree(void **state)
{
    char made[] = "/tmp/lunark-test-caps-XXXXXX";
    bool ok;

    (void)state;
    if (!mkdtemp(made) || !realpath(made, root))
        return -1;
    ok = mkdir(in("granted"), 0700) == 0 && mkdir(in("granted/sub"), 0700) == 0 &&
         mkdir(in("granted2"), 0700) == 0 && mkdir(in("outside"), 0700) == 0 &&
         close(open(in("granted/sub/file"), O_CREAT | O_WRONLY | O_CLOEXEC, 0600)) == 0 &&
         close(open(in("outside/secret"), O_CREAT | O_WRONLY | O_CLOEXEC, 0600)) == 0 &&
         symlink("../../outside", in("granted/sub/out")) == 0 &&
         symlink("../outside/new", in("granted/dangling")) == 0 &&
         symlink("loop", in("granted/loop")) == 0 &&
         symlink("sub/./file", in("granted/inner")) == 0 &&
         symlink(in("outside/secret"), in("granted/absolute")) == 0 &&
         symlink("sub/out/..", in("granted/updown")) == 0 && symlink("granted", in("entry")) == 0;
    return ok ? 0 : -1;
}

static int remove_tree(void **state)
{
    size_t i;

    (void)state;
    for (i = 0; i < sizeof things / sizeof things[0]; i++)
        remove(in(things[i]));
    return remove(root);
}

static void paths_by_component(void **state)
{
    (void)state;
    allow(LK_CAP_READ, in("granted"));
    assert_true(may(LK_CAP_READ, in("granted")));
    assert_true(may(LK_CAP_READ, in("granted/")));
    assert_true(may(LK_CAP_READ, in("granted/sub/file")));
    assert_true(may(LK_CAP_READ, in("granted/not/yet/there")));
    assert_true(may(LK_CAP_READ, in("granted//./sub/../sub/file")));
    assert_true(may(LK_CAP_READ, in("outside/../granted/sub")));
    assert_false(may(LK_CAP_READ, in("granted2")));
    assert_false(may(LK_CAP_READ, in("")));
    assert_false(may(LK_CAP_WRITE, in("granted/sub/file")));
}

static void dots_and_links_do_not_leave(void **state)
{
    (void)state;
    allow(LK_CAP_READ, in("granted"));
    assert_true(may(LK_CAP_READ, in("granted/inner")));
    assert_false(may(LK_CAP_READ, in("granted/../outside/secret")));
    assert_false(may(LK_CAP_READ, in("granted/sub/out/secret")));
    assert_non_null(strstr(err.message, "/outside/secret)"));
    assert_non_null(strstr(err.hint, "/outside/secret\""));
    assert_false(may(LK_CAP_READ, in("granted/absolute")));
    assert_false(may(LK_CAP_READ, in("granted/dangling")));
    assert_false(may(LK_CAP_READ, in("granted/loop")));
    assert_non_null(strstr(err.message, "too many links"));
    assert_false(may(LK_CAP_READ, in("granted/updown")));
    assert_false(may(LK_CAP_READ, in("granted/none/../../outside/secret")));
    assert_int_equal(err.kind, LK_DENIED);
    assert_non_null(strstr(err.message, ".. behind something that is not there"));
}

static void a_granted_link_means_its_target(void **state)
{
    (void)state;
    allow(LK_CAP_WRITE, in("entry/"));
    assert_true(may(LK_CAP_WRITE, in("entry/sub/new")));
    assert_true(may(LK_CAP_WRITE, in("granted/sub/new")));
    assert_false(may(LK_CAP_WRITE, in("outside/new")));
}

static void relative_paths_begin_here(void **state)
{
    char here[PATH_MAX];

    (void)state;
    assert_non_null(getcwd(here, sizeof here));
    allow(LK_CAP_READ, here);
    assert_true(may(LK_CAP_READ, "some/file"));
    assert_true(may(LK_CAP_READ, "."));
    if (strcmp(here, "/") != 0)
        assert_false(may(LK_CAP_READ, ".."));
}

static void root_is_every_path(void **state)
{
    char *name = malloc(3 * PATH_MAX);

    (void)state;
    assert_non_null(name);
    allow(LK_CAP_READ, "/");
    assert_true(may(LK_CAP_READ, "/"));
    assert_true(may(LK_CAP_READ, "/etc/passwd"));
    memset(name, '/', 3 * PATH_MAX);
    name[3 * PATH_MAX - 1] = '\0';
    assert_false(may(LK_CAP_READ, name));
    assert_non_null(strstr(err.message, "too long"));
    memset(name + 1, 'n', 300);
    name[301] = '\0';
    assert_false(may(LK_CAP_READ, name));
    free(name);
}

/* --- granting --- */

static void bad_values_are_refused(void **state)
{
    static const struct {
        enum lk_cap cap;
        const char *value;
    } rows[] = {{LK_CAP_EXEC, ""},       {LK_CAP_EXEC, "bin/tar"}, {LK_CAP_EXEC, "./tar"},
                {LK_CAP_NET, ""},        {LK_CAP_NET, "a:b"},      {LK_CAP_NET, "http://a"},
                {LK_CAP_NET, "a.*.org"}, {LK_CAP_NET, "*example"}, {LK_CAP_NET, "[::1"},
                {LK_CAP_NET, "a:"},      {LK_CAP_READ, "etc"},     {LK_CAP_READ, ""},
                {LK_CAP_WRITE, "./x"},   {LK_CAP_ENV, "A=B"},      {LK_CAP_ENV, ""},
                {LK_CAP_ENV, "A*B"},     {LK_CAP_EXEC, NULL}};
    size_t i;

    (void)state;
    for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_int_equal(lk_caps_allow(caps, rows[i].cap, rows[i].value, &err), -1);
        assert_int_equal(err.kind, LK_USAGE);
    }
    lk_caps_allow(caps, LK_CAP_READ, "etc", &err);
    assert_string_equal(err.message,
                        "read can't be granted for \"etc\": expected an absolute path or *");
}

static void a_sealed_set_stays(void **state)
{
    (void)state;
    allow(LK_CAP_ENV, "HOME");
    lk_caps_seal(caps);
    assert_int_equal(lk_caps_allow(caps, LK_CAP_ENV, "PATH", &err), -1);
    assert_int_equal(err.kind, LK_DENIED);
    assert_int_equal(lk_caps_allow(caps, LK_CAP_POSIX, NULL, &err), -1);
    assert_true(may(LK_CAP_ENV, "HOME"));
    assert_false(may(LK_CAP_ENV, "PATH"));
}

static void names_of_capabilities(void **state)
{
    enum lk_cap cap;
    int i;

    (void)state;
    for (i = 0; i < LK_CAP_COUNT; i++) {
        assert_int_equal(lk_cap_parse(lk_cap_name((enum lk_cap)i), &cap, &err), 0);
        assert_int_equal(cap, i);
    }
    assert_int_equal(lk_cap_parse("network", &cap, &err), -1);
    assert_int_equal(err.kind, LK_USAGE);
    assert_string_equal(
        err.message, "unknown capability network: expected exec, net, read, write, env or posix");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(denies_by_default),
        TEST(star_allows_all),
        TEST(programs),
        TEST(hosts),
        TEST(addresses),
        TEST(variables),
        TEST(paths_by_component),
        TEST(dots_and_links_do_not_leave),
        TEST(a_granted_link_means_its_target),
        TEST(relative_paths_begin_here),
        TEST(root_is_every_path),
        TEST(bad_values_are_refused),
        TEST(a_sealed_set_stays),
        TEST(names_of_capabilities),
    };

    return cmocka_run_group_tests(tests, make_tree, remove_tree);
}
