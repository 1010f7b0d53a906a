/* SPDX-License-Identifier: MIT
 * test_extract_options.c - what becomes of what is there, other names, owners, modes and limits.
 * Archives are made by GNU tar. */
#include "archive_help.h"

static void finish(struct extraction *e)
{
    lk_extract_unref(e->extract);
}

/* Extracts a.tar into x; the message must be as expected, "" for none. */
static void expect(struct world *w, const struct lk_extract_options *options, enum lk_kind kind,
                   const char *message, struct extraction *e)
{
    extract_stream_with(w, stream_of_file(w, "a.tar"), "x", options, e);
    assert_string_equal(e->err.message, message);
    assert_int_equal(e->err.kind, kind);
}

static void what_is_there(void **state)
{
    struct world *w = *state;
    struct extraction e;
    struct lk_extract_options options = {.existing = LK_EXISTING_SKIP};
    const char *there =
        "rm -rf x && mkdir -p x/t/dir && echo old > x/t/older && echo old > x/t/newer && echo old "
        "> "
        "x/t/same && ln -s old x/t/link && touch -d 2001-01-01 x/t/older && touch -d 2030-01-01 "
        "x/t/newer && touch -d 2020-01-01 x/t/same && chmod 711 x/t/dir && sleep 0.02";
    must(w->dir,
         "mkdir -p t/dir && for f in older newer same free dir/in; do echo new > t/$f; done && "
         "ln -s new t/link && find t -exec touch -h -d 2020-01-01 {} + && tar --sort=name -cf "
         "a.tar t");
    must(w->dir, "%s", there);
    expect(w, &options, LK_OK, "", &e);
    assert_int_equal(lk_extract_result(e.extract)->skipped, 4);
    assert_int_equal(lk_extract_result(e.extract)->files, 2);
    finish(&e);
    must(w->dir, "grep -q old x/t/older && grep -q old x/t/newer && grep -q new x/t/free && "
                 "grep -q new x/t/dir/in && test $(stat -c %%a x/t/dir) = 711 && "
                 "test \"$(readlink x/t/link)\" = old");
    must(w->dir, "%s", there);
    options.existing = LK_EXISTING_KEEP_NEWER;
    expect(w, &options, LK_OK, "", &e);
    assert_int_equal(lk_extract_result(e.extract)->skipped, 2); /* the link is newer, too */
    finish(&e);
    must(w->dir, "grep -q new x/t/older && grep -q old x/t/newer && grep -q new x/t/same && "
                 "test \"$(readlink x/t/link)\" = old");
    must(w->dir, "%s", there);
    options.existing = LK_EXISTING_ERROR;
    expect(w, &options, LK_CONFLICT, "t/link exists in the target", &e);
    finish(&e);
    options.existing = LK_EXISTING_REPLACE;
    expect(w, &options, LK_OK, "", &e);
    finish(&e);
    must(w->dir,
         "grep -q new x/t/older && grep -q new x/t/newer && test \"$(readlink x/t/link)\" = "
         "new && test -z \"$(find x -name '.lunark*')\"");
}

/* A file in the way of a directory goes only when it may be replaced; last entries count. */
static void what_is_in_the_way(void **state)
{
    struct world *w = *state;
    struct extraction e;
    struct lk_extract_options options = {.existing = LK_EXISTING_SKIP};
    must(w->dir, "mkdir -p t/dir x/t && echo new > t/dir/f && echo one > t/f && tar -cf a.tar t && "
                 "echo two > t/f && tar -rf a.tar t/f && echo old > x/t/dir && sleep 0.02");
    expect(w, &options, LK_CONFLICT,
           "t/dir is a directory in the archive, something else in the target", &e);
    finish(&e);
    must(w->dir, "rm -rf x");
    expect(w, &options, LK_OK, "", &e);
    finish(&e);
    must(w->dir, "grep -q two x/t/f");
}

static void other_names(void **state)
{
    struct world *w = *state;
    struct extraction e;
    static const struct lk_path_map map[] = {
        {"/srv/a/./b", "moved/b"}, {"srv/a", "."}, {"srv/gone/", "here//"}, {"not/there", "x"}};
    struct lk_extract_options options = {.map = map, .map_count = 4, .strip = 1};
    must(w->dir,
         "mkdir -p srv/a/b srv/ab srv/gone etc && echo 1 > srv/a/b/f && echo 2 > srv/a/g && "
         "echo 3 > srv/ab/h && ln srv/a/g etc/hard && ln -s ../srv/a/g etc/soft && "
         "echo 4 > srv/gone/i && echo 5 > top && tar -cf a.tar srv etc top");
    expect(w, &options, LK_OK, "", &e);
    assert_int_equal(lk_extract_result(e.extract)->warning_count, 1);
    assert_non_null(find_warning(lk_extract_result(e.extract), "not/there"));
    finish(&e);
    must(
        w->dir,
        "cd x && find . -type f -o -type l | sort > ../list && printf '%%s\\n' ./ab/h ./g ./hard "
        "./here/i ./moved/b/f ./soft | diff - ../list && test g -ef hard && grep -q 1 moved/b/f && "
        "test \"$(readlink soft)\" = ../srv/a/g");
    must(w->dir, "rm -rf x");
    options = (struct lk_extract_options){.strip = 2};
    expect(w, &options, LK_OK, "", &e); /* nothing is left of etc, nor of top */
    finish(&e);
    must(w->dir, "test \"$(cd x && find . -type f | sort | tr '\\n' ' ')\" = './b/f ./g ./h ./i '");
}

static void names_that_can_not_be(void **state)
{
    struct world *w = *state;
    struct extraction e;
    struct lk_path_map map = {"a", "../b"};
    struct lk_extract_options options = {.map = &map, .map_count = 1};
    must(w->dir, "mkdir -p d/e && echo 1 > f && ln f d/e/h && tar -cf a.tar f d");
    expect(w, &options, LK_USAGE,
           "map to: '../b' is not a path beneath the target, one without a leading \"/\" and "
           "\"..\" was "
           "expected",
           &e);
    map.to = "/b";
    expect(
        w, &options, LK_USAGE,
        "map to: '/b' is not a path beneath the target, one without a leading \"/\" and \"..\" was "
        "expected",
        &e);
    options = (struct lk_extract_options){.strip = 1};
    expect(w, &options, LK_NOT_FOUND, "hard link e/h leads to f, which is left out", &e);
    finish(&e);
}

/* A member that leaves the target is refused before a map or a strip could make it look well. */
static void hostile_names_are_not_mended(void **state)
{
    struct world *w = *state;
    struct extraction e;
    struct lk_extract_options options = {.strip = 2};
    must(w->dir, "python3 \"$T\" hostile dotdot a.tar");
    expect(w, &options, LK_CORRUPT,
           "member a/../../evil has a \"..\", a path beneath the target was expected", &e);
    finish(&e);
}

static void modes_and_devices(void **state)
{
    struct world *w = *state;
    struct extraction e;
    struct lk_extract_options options = {.use_umask = true, .owner = LK_OWNER_NONE};
    must(w->dir, "mkdir t && echo x > t/f && echo x > t/s && mkfifo -m 644 t/p && chmod 777 t && "
                 "chmod 666 t/f "
                 "&& chmod 4775 t/s");
    bool root = geteuid() == 0 && shell(w->dir, "mknod t/null c 1 3") == 0;
    must(w->dir, "tar -cf a.tar t");
    expect(w, &options, LK_OK, "", &e);
    assert_int_equal(find_warning(lk_extract_result(e.extract), "t/null") != NULL, root);
    finish(&e);
    must(w->dir, "m=$(umask) && test ! -e x/t/null && test \"$(cd x/t && stat -c %%a . f s p | tr "
                 "'\\n' ' ')\" = \"$(printf '%%o %%o %%o %%o ' $((0777 & ~m)) $((0666 & ~m)) "
                 "$((0775 & ~m)) $((0644 & ~m)))\"");
    if (!root)
        return;
    must(w->dir, "rm -rf x");
    options = (struct lk_extract_options){.devices = true};
    expect(w, &options, LK_OK, "", &e);
    finish(&e);
    must(w->dir, "test -c x/t/null && test \"$(stat -c %%a x/t/s)\" = 4775");
}

static void limits(void **state)
{
    struct world *w = *state;
    struct extraction e;
    struct lk_extract_options options = {.max_bytes = 100000};
    must(w->dir, "mkdir t && truncate -s 200M t/hole && yes | head -c 60000 > t/a && "
                 "tar -cf a.tar t");
    expect(w, &options, LK_OK, "", &e);
    finish(&e);
    must(w->dir, "cp t/a t/b && tar --sort=name -cf a.tar t && rm -rf x");
    expect(w, &options, LK_CORRUPT, "the archive holds more than the 100000 bytes that it may have",
           &e);
    finish(&e);
    must(w->dir, "test ! -e x/t/b");
    must(w->dir, "rm -rf x t && python3 \"$T\" bomb 300 a.tar");
    options = (struct lk_extract_options){.max_ratio = 200};
    extract_stream_with(w, stream_of_file(w, "a.tar"), "x", &options, &e);
    assert_int_equal(e.err.kind, LK_CORRUPT);
    assert_non_null(strstr(e.err.message, "the archive grows to more than 200 times its size: 26"));
    finish(&e);
    must(w->dir, "test -z \"$(find x -type f)\"");
}

#define test(name) cmocka_unit_test_setup_teardown(name, world_new, world_free)

int main(void)
{
    const struct CMUnitTest tests[] = {
        test(what_is_there),
        test(what_is_in_the_way),
        test(other_names),
        test(names_that_can_not_be),
        test(hostile_names_are_not_mended),
        test(modes_and_devices),
        test(limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
