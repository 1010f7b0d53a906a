/* SPDX-License-Identifier: MIT
 * test_extract.c - extraction: what comes out is what went in, hostile archives stay inside, cut
 * ones fail. */
#include "archive_help.h"

#include <sys/resource.h>

static void expect_error(struct extraction *e, enum lk_kind kind, const char *message)
{
    assert_string_equal(e->err.message, message);
    assert_int_equal(e->err.kind, kind);
}

static void finish(struct extraction *e)
{
    lk_extract_unref(e->extract);
}

/* --- whole archives --- */

static void all_kinds_come_back(void **state)
{
    struct world *w = *state;
    struct one_root one;
    struct extraction e;
    must(w->dir, "python3 \"$T\" make tree");
    lk_archive_unref(archive_to(w, one_root(&one, w, "tree"), "a.tar"));
    assert_int_equal(extract_file(w, "a.tar", "x/y/z", false, &e), LK_OK);
    const struct lk_archive_stats *stats = lk_extract_result(e.extract);
    assert_int_equal(stats->warning_count, 0);
    assert_int_equal(stats->others, geteuid() == 0 ? 3 : 1);
    assert_int_equal(stats->links, 7);
    finish(&e);
    must(w->dir, "python3 \"$T\" tree tree tree > want && python3 \"$T\" tree x/y/z/tree tree > "
                 "got && diff want got");
}

/* Archives of GNU tar in its own format, of bsdtar and of Python are read as well. */
static void archives_of_others(void **state)
{
    struct world *w = *state;
    struct extraction e;
    must(w->dir,
         "python3 \"$T\" make tree && rm tree/far* tree/zz*symlink &&"
         "find tree -exec touch -h -d @1700000000 {} + && python3 \"$T\" tree tree tree > want");
    static const char *const commands[] = {
        "tar --format=gnu --sort=name -cf a.tar tree",
        "tar --format=posix --sort=name -S -cf a.tar tree",
        "LC_ALL=C.UTF-8 bsdtar --format pax -cf a.tar tree",
        "python3 -c 'import tarfile\nwith tarfile.open(\"a.tar\", \"w\", "
        "format=tarfile.PAX_FORMAT) as t:"
        " t.add(\"tree\")'",
    };
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        must(w->dir, "rm -rf x && %s 2>/dev/null", commands[i]);
        if (extract_file(w, "a.tar", "x", false, &e))
            fail_msg("%s: %s", commands[i], e.err.message);
        finish(&e);
        /* bsdtar takes the names in another order, so another link may be the file. */
        must(w->dir, "python3 \"$T\" tree x/tree tree > got && diff want got");
    }
}

/* A letter with an accent, in one and in two characters: two names, and both stay what they are. */
static void accents_are_left_alone(void **state)
{
    struct world *w = *state;
    struct one_root one;
    struct extraction e;
    must(w->dir, "mkdir tree && cd tree && for n in e\xcc\x81 \xc3\xa9; do echo $n > $n && "
                 "ln $n hard$n && ln -s $n soft$n && mkdir d$n && echo 1 > d$n/$n; done &&"
                 "find . -exec touch -h -d @1700000000 {} +");
    must(w->dir, "python3 \"$T\" tree tree tree > want && grep -c tree want | grep -qx 11");
    lk_archive_unref(archive_to(w, one_root(&one, w, "tree"), "ours.tar"));
    must(w->dir, "tar --format=posix --sort=name -cf gnu.tar tree && "
                 "tar --format=gnu --sort=name -cf old.tar tree");
    static const char *const archives[] = {"ours.tar", "gnu.tar", "old.tar"};
    for (size_t i = 0; i < sizeof archives / sizeof *archives; i++) {
        must(w->dir, "rm -rf x");
        assert_int_equal(extract_file(w, archives[i], "x", false, &e), LK_OK);
        assert_int_equal(lk_extract_result(e.extract)->warning_count, 0);
        finish(&e);
        must(w->dir, "python3 \"$T\" tree x/tree tree > got && diff want got");
    }
}

static void attributes_and_access_lists(void **state)
{
    struct world *w = *state;
    struct one_root one;
    struct extraction e;
    must(w->dir, "mkdir tree tree/dir && touch tree/file tree/dir/file && mkfifo tree/fifo && ln "
                 "-s file tree/link");
    if (shell(w->dir, "setfattr -n user.note -v 'a value' tree/file 2>/dev/null &&"
                      "setfattr -n user.bytes -v 0x00ff0a3d tree/dir 2>/dev/null &&"
                      "setfattr -n user.with=sign%% -v x tree/file && setfacl -m "
                      "u:1234:rx,g:4321:w tree/file tree/fifo &&"
                      "setfacl -d -m u:1234:rwx tree/dir")) {
        print_message("skipped: the file system of /tmp has no user attributes or access lists\n");
        skip();
    }
    if (geteuid() == 0)
        must(w->dir, "setfattr -h -n trusted.note -v x tree/link && setcap cap_net_raw=ep "
                     "tree/dir/file 2>/dev/null || true");
    lk_archive_unref(archive_to(w, one_root(&one, w, "tree"), "a.tar"));
    assert_int_equal(extract_file(w, "a.tar", "x", false, &e), LK_OK);
    assert_int_equal(lk_extract_result(e.extract)->warning_count, 0);
    finish(&e);
    must(w->dir,
         "cd tree && getfattr -R -h -d -m - . > ../want.x && getfacl -R -n . > ../want.a && cd "
         "../x/tree &&"
         "getfattr -R -h -d -m - . > ../../got.x && getfacl -R -n . > ../../got.a && cd ../.. &&"
         "diff want.x got.x && diff want.a got.a && grep -q 'with.*sign' got.x");
}

static void times_before_1970(void **state)
{
    struct world *w = *state;
    struct one_root one;
    struct extraction e;
    must(w->dir, "mkdir tree && touch -d @-1.5 tree/a && touch -d @-2 tree/b &&"
                 "touch -d @-100000000.000000001 tree/c && touch -d @0.5 tree/d &&"
                 "cd tree && stat -c '%%n %%.9Y' * > ../want");
    lk_archive_unref(archive_to(w, one_root(&one, w, "tree"), "ours.tar"));
    must(w->dir, "tar --format=posix -cf gnu.tar tree && "
                 "tar --format=gnu --mtime=@-2 -cf plain.tar tree");
    for (int i = 0; i < 2; i++) {
        assert_int_equal(extract_file(w, i ? "gnu.tar" : "ours.tar", i ? "y" : "x", false, &e),
                         LK_OK);
        finish(&e);
        must(w->dir, "cd %s/tree && stat -c '%%n %%.9Y' * | diff ../../want -", i ? "y" : "x");
    }
    assert_int_equal(extract_file(w, "plain.tar", "z", false, &e), LK_OK);
    finish(&e);
    must(w->dir, "test \"$(stat -c %%.9Y z/tree/a)\" = -2.000000000");
}

static void deep_tree(void **state)
{
    struct world *w = *state;
    struct one_root one;
    struct extraction e;
    must(w->dir, "python3 \"$T\" deep tree");
    lk_archive_unref(archive_to(w, one_root(&one, w, "tree"), "a.tar"));
    struct rlimit old, few = {.rlim_cur = 60};
    getrlimit(RLIMIT_NOFILE, &old);
    few.rlim_max = old.rlim_max;
    setrlimit(RLIMIT_NOFILE, &few);
    enum lk_kind kind = extract_file(w, "a.tar", "x", false, &e);
    setrlimit(RLIMIT_NOFILE, &old);
    if (kind)
        fail_msg("%s", e.err.message);
    finish(&e);
    must(w->dir, "python3 \"$T\" check-deep x/tree");
}

/* Larger than 8 GiB, made by GNU tar, whose sparse form is small. Holes stay holes. */
static void large_sparse_file(void **state)
{
    struct world *w = *state;
    struct extraction e;
    must(w->dir, "truncate -s 9G big && printf begin | dd of=big conv=notrunc status=none &&"
                 "printf end | dd of=big conv=notrunc bs=1M seek=9000 status=none && tar -S "
                 "--format=posix -cf a.tar big");
    assert_int_equal(extract_file(w, "a.tar", "x", false, &e), LK_OK);
    finish(&e);
    must(w->dir, "test $(stat -c %%s x/big) = 9663676416 && test $(stat -c %%b x/big) -lt 1000 &&"
                 "test $(head -c 5 x/big) = begin && test \"$(dd if=x/big bs=1M skip=9000 count=1 "
                 "status=none | head -c 3)\" = end");
}

static void zeros_become_holes(void **state)
{
    struct world *w = *state;
    struct one_root one;
    struct extraction e;
    must(w->dir, "mkdir tree && head -c 3000000 /dev/zero > tree/zeros && cp tree/zeros tree/mixed "
                 "&& printf x >> tree/mixed &&"
                 "printf y | dd of=tree/mixed conv=notrunc bs=1 seek=1500000 status=none");
    lk_archive_unref(archive_to(w, one_root(&one, w, "tree"), "a.tar"));
    assert_int_equal(extract_file(w, "a.tar", "x", false, &e), LK_OK);
    finish(&e);
    must(w->dir, "cmp tree/zeros x/tree/zeros && cmp tree/mixed x/tree/mixed && test $(stat -c %%b "
                 "x/tree/zeros) -lt 300 &&"
                 "test $(stat -c %%b x/tree/mixed) -lt 600");
}

/* --- gzip in front --- */

static void gzip_is_seen(void **state)
{
    struct world *w = *state;
    struct extraction e;
    must(w->dir, "mkdir tree && head -c 5000000 /dev/urandom > tree/a && echo b > tree/b && tar "
                 "-czf a.tar.gz tree &&"
                 "head -c 3000000 a.tar.gz > cut.gz && (tar -cf - tree; head -c 3000000 /dev/zero) "
                 "| gzip > long.gz");
    assert_int_equal(extract_file(w, "a.tar.gz", "x", false, &e), LK_OK);
    finish(&e);
    must(w->dir, "diff -r tree x/tree");
    assert_int_equal(extract_file(w, "cut.gz", "y", false, &e), LK_CORRUPT);
    finish(&e);
    assert_int_equal(extract_file(w, "long.gz", "z", false, &e), LK_OK);
    finish(&e);
    must(w->dir, "diff -r tree z/tree");
}

/* --- what exists already --- */

static void existing_files(void **state)
{
    struct world *w = *state;
    struct one_root one;
    struct extraction e;
    must(w->dir, "mkdir -p tree/d tree/e && echo new > tree/d/file && ln -s target tree/e/link && "
                 "ln tree/d/file tree/hard");
    lk_archive_unref(archive_to(w, one_root(&one, w, "tree"), "a.tar"));
    must(w->dir, "mkdir -p x/tree/d x/tree/e && echo old > x/tree/d/file && echo old > "
                 "x/tree/d/other && sleep 0.02");
    assert_int_equal(extract_file(w, "a.tar", "x", false, &e), LK_CONFLICT);
    expect_error(&e, LK_CONFLICT, "tree/d/file exists in the target");
    assert_string_equal(e.err.hint, "extract into an empty directory, or allow to overwrite");
    finish(&e);
    must(w->dir, "grep -q old x/tree/d/file");
    /* Links in the target are replaced, never written through. */
    must(w->dir, "echo outside > secret && rm x/tree/d/file && ln -s \"$D/secret\" x/tree/d/file "
                 "&& echo old > x/tree/e/link");
    assert_int_equal(extract_file(w, "a.tar", "x", true, &e), LK_OK);
    finish(&e);
    must(w->dir,
         "grep -q outside secret && grep -q new x/tree/d/file && grep -q old x/tree/d/other &&"
         "test \"$(readlink x/tree/e/link)\" = target && test x/tree/hard -ef x/tree/d/file &&"
         "test -z \"$(find x -name '.lunark*')\"");
    /* And once more over itself. */
    assert_int_equal(extract_file(w, "a.tar", "x", true, &e), LK_OK);
    finish(&e);
    must(w->dir, "diff -r --no-dereference tree/d/file x/tree/d/file && test -z \"$(find x -name "
                 "'.lunark*')\"");
}

static void a_directory_is_never_replaced(void **state)
{
    struct world *w = *state;
    struct one_root one;
    struct extraction e;
    must(w->dir, "mkdir tree && echo x > tree/name && mkdir -p x/tree/name/full");
    lk_archive_unref(archive_to(w, one_root(&one, w, "tree"), "a.tar"));
    assert_int_equal(extract_file(w, "a.tar", "x", true, &e), LK_CONFLICT);
    expect_error(&e, LK_CONFLICT,
                 "tree/name is a directory in the target, something else in the archive");
    finish(&e);
    must(w->dir, "test -d x/tree/name/full");
}

/* The same path twice, as when a root lies in another one: the last counts, also without
 * `overwrite`. */
static void a_path_twice(void **state)
{
    struct world *w = *state;
    struct extraction e;
    must(w->dir, "mkdir tree && echo one > tree/f && tar -cf a.tar tree tree && echo two > tree/f "
                 "&& tar -rf a.tar tree");
    assert_int_equal(extract_file(w, "a.tar", "x", false, &e), LK_OK);
    finish(&e);
    must(w->dir, "grep -q two x/tree/f");
}

static void a_link_in_the_way(void **state)
{
    struct world *w = *state;
    struct one_root one;
    struct extraction e;
    must(w->dir, "mkdir -p tree/sub outside x/tree && echo x > tree/sub/f && ln -s \"$D/outside\" "
                 "x/tree/sub");
    lk_archive_unref(
        archive_to(w, one_root(&one, w, "tree/sub/f"), "a.tar")); /* no entry for the directory */
    assert_int_equal(extract_file(w, "a.tar", "x", true, &e), LK_CONFLICT);
    expect_error(&e, LK_CONFLICT, "tree/sub is a link, a directory was expected");
    finish(&e);
    must(w->dir, "test -z \"$(ls outside)\"");
}

/* --- hostile archives --- */

static void hostile_archives_stay_inside(void **state)
{
    struct world *w = *state;
    static const struct {
        const char *kind;
        enum lk_kind error;
        const char *message;
    } cases[] = {
        {"dotdot", LK_CORRUPT,
         "member a/../../evil has a \"..\", a path beneath the target was expected"},
        {"absolute", LK_CORRUPT,
         "member /tmp/lunark-evil is an absolute path, one beneath the target was expected"},
        {"symlink", LK_CORRUPT, "way is a link, a directory was expected"},
        {"symlink-chain", LK_CORRUPT, "two is a link, a directory was expected"},
        {"hardlink-dotdot", LK_CORRUPT,
         "hard link target ../secret has a \"..\", a path beneath the target was expected"},
        {"hardlink-absolute", LK_CORRUPT,
         "hard link target /etc/passwd is an absolute path, one beneath the target was expected"},
        {"hardlink-symlink", LK_CORRUPT, "way is a link, a directory was expected"},
        {"symlink-replaced", LK_OK, ""},
        {"dir-over-symlink", LK_OK, ""},
    };
    must(w->dir, "echo mine > secret");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int overwrite = 0; overwrite < 2; overwrite++) {
            struct extraction e;
            must(w->dir, "rm -rf x && python3 \"$T\" hostile %s a.tar", cases[i].kind);
            extract_file(w, "a.tar", "x", overwrite, &e);
            expect_error(&e, cases[i].error, cases[i].message);
            finish(&e);
            must(w->dir, "test ! -e evil && test ! -e /tmp/lunark-evil && grep -q mine secret &&"
                         "test $(stat -c %%h secret) = 1 && test \"$(ls | tr '\\n' ' ')\" = 'a.tar "
                         "secret x '");
        }
}

/* --- damage --- */

/* Cut anywhere, also between two entries and inside the end mark, it fails. */
static void cut_archives_fail(void **state)
{
    struct world *w = *state;
    struct one_root one;
    must(w->dir,
         "mkdir tree && echo a > tree/a && head -c 3000 /dev/urandom > tree/b && ln -s a tree/c");
    lk_archive_unref(archive_to(w, one_root(&one, w, "tree"), "whole.tar"));
    char path[128];
    struct stat st;
    snprintf(path, sizeof path, "%s/whole.tar", w->dir);
    assert_int_equal(stat(path, &st), 0);
    for (off_t size = 0; size <= st.st_size; size += size % 512 == 0 ? 100 : 412) {
        struct extraction e;
        must(w->dir, "rm -rf x && head -c %lld whole.tar > a.tar", (long long)size);
        enum lk_kind kind = extract_file(w, "a.tar", "x", false, &e);
        assert_int_equal(kind, size == st.st_size ? LK_OK : LK_CORRUPT);
        finish(&e);
    }
    struct extraction e;
    must(w->dir, "rm -rf x && head -c %lld whole.tar > a.tar", (long long)st.st_size - 1024);
    extract_file(w, "a.tar", "x", false, &e);
    char message[128];
    snprintf(message, sizeof message, "the archive is cut off after %lld bytes, more was expected",
             (long long)st.st_size - 1024);
    expect_error(&e, LK_CORRUPT, message);
    finish(&e);
}

static void a_damaged_header_fails(void **state)
{
    struct world *w = *state;
    struct one_root one;
    struct extraction e;
    must(w->dir, "mkdir tree && echo a > tree/a && touch tree/b");
    lk_archive_unref(archive_to(w, one_root(&one, w, "tree"), "a.tar"));
    must(w->dir, "printf X | dd of=a.tar conv=notrunc bs=1 seek=3000 status=none");
    assert_int_equal(extract_file(w, "a.tar", "x", false, &e), LK_CORRUPT);
    finish(&e);
    must(w->dir, "head -c 5000 /dev/urandom > a.tar");
    assert_int_equal(extract_file(w, "a.tar", "x", false, &e), LK_CORRUPT);
    finish(&e);
}

struct late {
    struct lk_stream *stream;
    const char *path;
};

/* Sends a whole archive and then says that it failed. */
static void fail_late(void *arg)
{
    struct late *late = arg;
    struct lk_error err;
    int fd = open(late->path, O_RDONLY | O_CLOEXEC);
    struct lk_chunk *chunk = lk_chunk_alloc((size_t)1 << 20, NULL);
    chunk->len = chunk->raw_len = (size_t)read(fd, chunk->data, chunk->cap);
    close(fd);
    lk_stream_write(late->stream, chunk, NULL);
    lk_error_set(&err, LK_EXIT, "the program exited with 1");
    lk_stream_end(late->stream, &err);
    lk_stream_unref(late->stream);
}

/* A failure that comes after the last entry counts. */
static void a_stream_that_fails_at_its_end(void **state)
{
    struct world *w = *state;
    struct one_root one;
    struct extraction e;
    char path[128];
    must(w->dir, "mkdir tree && echo a > tree/a");
    lk_archive_unref(archive_to(w, one_root(&one, w, "tree"), "a.tar"));
    snprintf(path, sizeof path, "%s/a.tar", w->dir);
    struct late late = {.stream = lk_stream_new(2, NULL), .path = path};
    assert_int_equal(lk_pool_stage(w->pool, "late", fail_late, &late, NULL), 0);
    extract_stream(w, late.stream, "x", false, &e);
    expect_error(&e, LK_EXIT, "the program exited with 1");
    finish(&e);
}

/* An extraction that waits for its input can be cancelled, and leaves no half file. */
static void cancelling(void **state)
{
    struct world *w = *state;
    struct extraction e = {.err = {.kind = LK_OK}};
    char path[128];
    int pipes[2];
    must(w->dir,
         "mkdir tree && head -c 3000000 /dev/urandom > tree/a && tar -cf a.tar tree && mkfifo way");
    assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
    snprintf(path, sizeof path, "%s/x", w->dir);
    struct lk_extract_options options = {.into = path, .gunzip_in_flight = 2};
    sem_init(&e.done, 0, 0);
    struct lk_stream *stream =
        lk_stream_of_fd(w->pool, pipes[0], (size_t)64 << 10, NULL, NULL, NULL);
    e.extract = lk_extract_new(w->pool, stream, &options, extraction_done, &e, &e.err);
    assert_non_null(e.extract);
    char data[70000];
    snprintf(path, sizeof path, "%s/a.tar", w->dir);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    for (int i = 0; i < 10; i++)
        assert_int_equal(write(pipes[1], data, (size_t)read(fd, data, sizeof data)), sizeof data);
    close(fd);
    usleep(50000);
    lk_extract_cancel(e.extract);
    while (sem_wait(&e.done))
        ;
    sem_destroy(&e.done);
    close(pipes[1]);
    assert_int_equal(e.err.kind, LK_CANCELLED);
    finish(&e);
    must(w->dir, "test -d x/tree && test ! -e x/tree/a");
}

static void a_target_that_is_no_directory(void **state)
{
    struct world *w = *state;
    struct extraction e;
    must(w->dir, "mkdir tree && tar -cf a.tar tree && touch file");
    assert_int_equal(extract_file(w, "a.tar", "file", false, &e), LK_IO);
    assert_null(e.extract);
    assert_int_equal(e.err.code, ENOTDIR);
}

/* As somebody else: no owners, no set-id bits, devices left out with a warning. */
static void without_rights(void **state)
{
    struct world *w = *state;
    if (geteuid() != 0) {
        print_message("skipped: only root can make what others may not restore\n");
        skip();
    }
    must(w->dir, "chmod 755 . && mkdir tree && mknod tree/null c 1 3 && echo x > tree/tool && "
                 "chmod 4755 tree/tool &&"
                 "mkdir -m 555 tree/closed.d && echo y > tree/closed.d/f && tar -cf a.tar tree && "
                 "mkdir -m 777 out");
    pid_t pid = fork();
    if (pid == 0) {
        struct world mine = *w;
        struct extraction e;
        if (setgid(65534) || setuid(65534))
            _exit(1);
        mine.pool = lk_pool_new(1, NULL);
        if (extract_file(&mine, "a.tar", "out/x", false, &e))
            _exit(2);
        const struct lk_archive_stats *stats = lk_extract_result(e.extract);
        _exit(stats->warning_count == 1 && find_warning(stats, "tree/null") ? 0 : 3);
    }
    int status;
    waitpid(pid, &status, 0);
    assert_int_equal(status, 0);
    must(w->dir,
         "test $(stat -c %%a:%%u out/x/tree/tool) = 755:65534 && test ! -e out/x/tree/null &&"
         "test $(stat -c %%a out/x/tree/closed.d) = 555 && grep -q y out/x/tree/closed.d/f");
}

#define test(name) cmocka_unit_test_setup_teardown(name, world_new, world_free)

int main(void)
{
    const struct CMUnitTest tests[] = {
        test(all_kinds_come_back),
        test(archives_of_others),
        test(accents_are_left_alone),
        test(attributes_and_access_lists),
        test(times_before_1970),
        test(deep_tree),
        test(large_sparse_file),
        test(zeros_become_holes),
        test(gzip_is_seen),
        test(existing_files),
        test(a_directory_is_never_replaced),
        test(a_path_twice),
        test(a_link_in_the_way),
        test(hostile_archives_stay_inside),
        test(cut_archives_fail),
        test(a_damaged_header_fails),
        test(a_stream_that_fails_at_its_end),
        test(cancelling),
        test(a_target_that_is_no_directory),
        test(without_rights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
