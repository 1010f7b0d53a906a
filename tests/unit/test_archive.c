/* SPDX-License-Identifier: MIT
 * test_archive.c - the archive source against GNU tar, bsdtar and Python: everything a tree can
 * hold, what happens to files that change meanwhile, patterns, and how entries are cut into chunks.
 */
#include "archive_help.h"
#include "crypto.h"
#include "walk.h"

#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

/* Every entry as Python's tarfile sees it, and as Python sees the tree. */
static void all_kinds_as_python_reads_them(void **state)
{
    struct world *w = *state;
    struct one_root one;
    must(w->dir, "python3 \"$T\" make tree");
    struct lk_archive *archive = archive_to(w, one_root(&one, w, "tree"), "a.tar");
    const struct lk_archive_stats *stats = lk_archive_result(archive);
    assert_int_equal(stats->warning_count, 0);
    assert_int_equal(stats->others, geteuid() == 0 ? 3 : 1);
    assert_int_equal(stats->links, 7);
    must(w->dir,
         "python3 \"$T\" tree tree tree > want && python3 \"$T\" tar a.tar > got && diff want got");
    /* GNU tar compares contents, modes, owners, times and links with the tree. */
    must(w->dir, "tar --compare -f a.tar");
    must(w->dir, "bsdtar -tf a.tar > /dev/null && test $(bsdtar -tf a.tar | wc -l) -ge 30");
    lk_archive_unref(archive);
}

static void the_same_tree_gives_the_same_bytes(void **state)
{
    struct world *w = *state;
    struct one_root one;
    must(w->dir, "python3 \"$T\" make tree");
    lk_archive_unref(archive_to(w, one_root(&one, w, "tree"), "a.tar"));
    one.options.in_flight = 2;
    lk_archive_unref(archive_to(w, &one.options, "b.tar"));
    must(w->dir, "cmp a.tar b.tar");
    /* Python can only see global headers when there are any. */
    must(w->dir, "python3 -c 'import tarfile; assert not tarfile.open(\"a.tar\").pax_headers'");
}

static void attributes_and_access_lists(void **state)
{
    struct world *w = *state;
    struct one_root one;
    must(w->dir, "mkdir tree tree/dir && touch tree/file tree/plain");
    if (shell(w->dir,
              "setfattr -n user.note -v 'a value' tree/file 2>/dev/null &&"
              "setfattr -n user.bytes -v 0x00ff0a3d tree/dir 2>/dev/null &&"
              "setfacl -m u:1234:rx,g:4321:w tree/file && setfacl -d -m u:1234:rwx tree/dir")) {
        print_message("skipped: the file system of /tmp has no user attributes or access lists\n");
        skip();
    }
    lk_archive_unref(archive_to(w, one_root(&one, w, "tree"), "a.tar"));
    must(w->dir,
         "mkdir x && tar -C x --xattrs --acls -xpf a.tar && cd tree &&"
         "getfattr -R -d -m '^user' . > ../want.x && getfacl -R -n . > ../want.a && cd ../x/tree &&"
         "getfattr -R -d -m '^user' . > ../../got.x && getfacl -R -n . > ../../got.a && cd ../.. &&"
         "diff want.x got.x && diff want.a got.a && grep -q bytes=0sAP8KPQ== got.x && grep -q "
         "user:1234 got.a");
    must(w->dir,
         "mkdir y && bsdtar -C y -xpf a.tar && cd y/tree &&"
         "getfattr -R -d -m '^user' . > ../../got.x && getfacl -R -n . > ../../got.a && cd ../.. &&"
         "diff want.x got.x && diff want.a got.a");
}

/* --- names --- */

static void names_of_roots(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"/usr/share", "usr/share"},
        {"./a/b", "a/b"},
        {"a//b/", "a/b"},
        {".", ""},
        {"/", ""},
        {"../a", "a"},
        {"a/../b/c", "b/c"},
        {"..", ""},
        {"a/./b", "a/b"},
        {"...", "..."},
        {"a/..b", "a/..b"},
        {"//x", "x"},
        {"a/b/../..", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *name;
        assert_int_equal(lk_walk_name(cases[i][0], &name, NULL), 0);
        assert_string_equal(name, cases[i][1]);
        free(name);
    }
}

static void roots(void **state)
{
    struct world *w = *state;
    char paths[5][4096];
    must(w->dir, "mkdir -p d/e && echo x > d/f && echo y > d/e/g && ln d/f d/h && ln -s d l");
    static const char *const names[] = {"d/e", "d", "l/", "d/f", "."};
    struct lk_archive_root list[5];
    for (size_t i = 0; i < 5; i++) {
        snprintf(paths[i], sizeof paths[i], "%s/%s", w->dir, names[i]);
        list[i] = (struct lk_archive_root){.path = paths[i], .name = i < 4 ? names[i] : "all"};
    }
    struct lk_archive_options options = {.roots = list, .root_count = 4, .in_flight = 4};
    struct lk_archive *archive = archive_to(w, &options, "a.tar");
    must(
        w->dir,
        "tar -tf a.tar > got; printf '%%s\\n' d/e/ d/e/g d/ d/e/ d/e/g d/f d/h l d/f | diff - got");
    must(w->dir, "tar -tvf a.tar | grep -q 'h link to d/f' && tar -tvf a.tar | grep -q 'l -> d'");
    must(w->dir, "mkdir x && tar -C x -xf a.tar && diff -r --no-dereference d x/d");
    lk_archive_unref(archive);
    list[0].path = "/nonexistent/x";
    struct lk_error err;
    assert_null(lk_archive_new(&options, &err));
    assert_int_equal(err.kind, LK_NOT_FOUND);
    assert_string_equal(err.message, "/nonexistent/x can't be archived: no such file or directory");
    options.root_count = 0;
    assert_null(lk_archive_new(&options, &err));
    assert_int_equal(err.kind, LK_USAGE);
}

/* Deeper than PATH_MAX and than the descriptors there are. */
static void deep_tree(void **state)
{
    struct world *w = *state;
    struct one_root one;
    must(w->dir, "python3 \"$T\" deep tree");
    struct rlimit old, few = {.rlim_cur = 60, .rlim_max = 60};
    getrlimit(RLIMIT_NOFILE, &old);
    few.rlim_max = old.rlim_max;
    setrlimit(RLIMIT_NOFILE, &few);
    struct lk_archive *archive = archive_to(w, one_root(&one, w, "tree"), "a.tar");
    setrlimit(RLIMIT_NOFILE, &old);
    assert_int_equal(lk_archive_result(archive)->warning_count, 0);
    assert_int_equal(lk_archive_result(archive)->files, 600);
    assert_int_equal(lk_archive_result(archive)->directories, 601);
    lk_archive_unref(archive);
    must(w->dir, "python3 \"$T\" list-deep a.tar");
}

/* --- what is left out --- */

static void patterns_as_gnu_tar(void **state)
{
    struct world *w = *state;
    static const char *const lists[][4] = {
        {"*.o"},     {"cache"}, {"a/b"}, {"tree/a"},  {"*"},       {"?"},        {"[a-c]*"},
        {"[!a]*.c"}, {"*/b/*"}, {"x*y"}, {"\\*star"}, {"nothing"}, {"a", "*.c"}, {"tree/*/*.c"},
        {"[]x]*"},   {"tree"},  {"b/c"}, {"*c"},      {"[x"},      {"*.[ch]"},   {"[^a-z]*"},
    };
    must(w->dir, "mkdir -p tree/a/b/c tree/cache/cache tree/xay tree/b && cd tree &&"
                 "touch a.o a.c a/x.o a/b/c/d.c a/b/c.h cache/f xay/q '*star' star ']x' '[x' b/c "
                 "Z9 a/b/xzzy");
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        struct one_root one;
        struct lk_archive_options *options = one_root(&one, w, "tree");
        char flags[512] = "";
        options->exclude = lists[i];
        while (options->exclude_count < 4 && lists[i][options->exclude_count]) {
            size_t len = strlen(flags);
            snprintf(flags + len, sizeof flags - len, " --exclude='%s'",
                     lists[i][options->exclude_count++]);
        }
        lk_archive_unref(archive_to(w, options, "a.tar"));
        /* tar sees the path as given, so it is given the same one. */
        int result =
            shell(w->dir,
                  "tar --sort=name %s -cf - \"$D/tree\" 2>/dev/null | tar -tf - 2>/dev/null |"
                  "sed \"s|^${D#/}/||\" | sort > want; tar -tf a.tar 2>/dev/null | sort > got; "
                  "diff want got",
                  flags);
        if (result)
            fail_msg("differs from tar%s", flags);
    }
}

static void cache_directories(void **state)
{
    struct world *w = *state;
    struct one_root one;
    must(w->dir,
         "mkdir -p tree/real/sub tree/fake tree/link && cd tree &&"
         "printf 'Signature: 8a477f597d28d172789f06886806bc55\\n# x' > real/CACHEDIR.TAG &&"
         "printf 'Signature: 8a477f597d28d172789f06886806bc5x' > fake/CACHEDIR.TAG &&"
         "ln -s ../real/CACHEDIR.TAG link/CACHEDIR.TAG && touch real/x real/sub/y fake/x link/x");
    one_root(&one, w, "tree")->exclude_caches = true;
    lk_archive_unref(archive_to(w, &one.options, "a.tar"));
    must(w->dir,
         "tar -tf a.tar > got; printf '%%s\\n' tree/ tree/fake/ tree/fake/CACHEDIR.TAG tree/fake/x "
         "tree/link/"
         " tree/link/CACHEDIR.TAG tree/link/x tree/real/ tree/real/CACHEDIR.TAG | diff - got");
}

static void one_file_system(void **state)
{
    struct world *w = *state;
    struct one_root one;
    char path[128];
    must(w->dir, "mkdir -p tree/other && touch tree/file");
    snprintf(path, sizeof path, "%s/tree/other", w->dir);
    if (mount("tmpfs", path, "tmpfs", 0, "size=1m")) {
        print_message("skipped: no right to mount a file system\n");
        skip();
    }
    must(w->dir, "touch tree/other/inside");
    one_root(&one, w, "tree")->one_file_system = true;
    lk_archive_unref(archive_to(w, &one.options, "a.tar"));
    one.options.one_file_system = false;
    lk_archive_unref(archive_to(w, &one.options, "b.tar"));
    umount2(path, MNT_DETACH);
    must(w->dir, "tar -tf a.tar > got; printf '%%s\\n' tree/ tree/file tree/other/ | diff - got");
    must(w->dir, "tar -tf b.tar | grep -q tree/other/inside");
}

static void sockets_are_left_out(void **state)
{
    struct world *w = *state;
    struct one_root one;
    must(w->dir, "mkdir tree && touch tree/file");
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s/tree/socket", w->dir);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    struct lk_archive *archive = archive_to(w, one_root(&one, w, "tree"), "a.tar");
    close(fd);
    const struct lk_archive_stats *stats = lk_archive_result(archive);
    assert_int_equal(stats->warning_count, 1);
    assert_int_equal(stats->unreadable, 0);
    assert_int_equal(stats->warnings->kind, LK_WARN_SKIPPED);
    assert_string_equal(stats->warnings->message, "socket is left out");
    assert_non_null(find_warning(stats, "/tree/socket"));
    must(w->dir, "test $(tar -tf a.tar | wc -l) = 2");
    lk_archive_unref(archive);
}

/* --- files that change while they are read --- */

/* Begins an archive of `tree` and reads one chunk, so that the reader stands still in tree/big,
 * whose 16 MiB don't fit what may be in flight. Then `change` runs, and the rest is read. */
static struct lk_archive *changed_meanwhile(struct world *w, const char *change)
{
    struct one_root one;
    struct lk_error err = {.kind = LK_OK};
    struct lk_chunk *chunk;
    char path[128];
    must(w->dir, "mkdir tree && head -c 16777216 /dev/urandom > tree/big && echo x > tree/later && "
                 "echo y > tree/last");
    one_root(&one, w, "tree")->in_flight = 2;
    struct lk_archive *archive = lk_archive_new(&one.options, &err);
    struct lk_stream *stream = lk_archive_stream(archive, w->pool, &err);
    snprintf(path, sizeof path, "%s/a.tar", w->dir);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    for (int i = 0; i < 2; i++) { /* the directory's entry, the beginning of big */
        assert_int_equal(lk_stream_read(stream, &chunk, &err), LK_STREAM_DATA);
        assert_int_equal(write(fd, chunk->data, chunk->len), (ssize_t)chunk->len);
        lk_chunk_unref(chunk);
    }
    usleep(50000);
    must(w->dir, "%s", change);
    assert_int_equal(copy_to(stream, fd, &err), LK_STREAM_DONE);
    close(fd);
    lk_stream_unref(stream);
    must(w->dir, "tar -tf a.tar > list");
    return archive;
}

static void expect_warning(struct lk_archive *archive, const char *path, enum lk_warning_kind kind,
                           const char *message)
{
    const struct lk_archive_stats *stats = lk_archive_result(archive);
    const struct lk_warning *warning = find_warning(stats, path);
    assert_int_equal(stats->warning_count, 1);
    assert_non_null(warning);
    assert_int_equal(warning->kind, kind);
    assert_string_equal(warning->message, message);
    assert_int_equal(stats->unreadable, kind == LK_WARN_UNREADABLE);
}

static void shrinks(void **state)
{
    struct world *w = *state;
    struct lk_archive *archive =
        changed_meanwhile(w, "cp tree/big was && truncate -s 8388608 tree/big");
    expect_warning(archive, "tree/big", LK_WARN_CHANGED,
                   "file shrank by 8388608 bytes, filled with zeros");
    must(w->dir, "tar -xOf a.tar tree/big > got && test $(stat -c %%s got) = 16777216 && cmp -n "
                 "8388608 was got &&"
                 "tail -c 8388608 got | cmp -n 8388608 - /dev/zero && tar -xOf a.tar tree/later | "
                 "grep -q x");
    lk_archive_unref(archive);
}

static void grows(void **state)
{
    struct world *w = *state;
    struct lk_archive *archive = changed_meanwhile(w, "cp tree/big was && echo more >> tree/big");
    expect_warning(archive, "tree/big", LK_WARN_CHANGED,
                   "file grew as it was read, cut at its first size");
    must(w->dir, "tar -xOf a.tar tree/big | cmp - was && tar -xOf a.tar tree/later | grep -q x");
    lk_archive_unref(archive);
}

static void is_rewritten(void **state)
{
    struct world *w = *state;
    struct lk_archive *archive = changed_meanwhile(
        w, "printf z | dd of=tree/big conv=notrunc bs=1 seek=16000000 status=none");
    expect_warning(archive, "tree/big", LK_WARN_CHANGED, "file changed as it was read");
    lk_archive_unref(archive);
}

static void vanishes(void **state)
{
    struct world *w = *state;
    struct lk_archive *archive = changed_meanwhile(w, "rm tree/later");
    expect_warning(archive, "tree/later", LK_WARN_VANISHED, "file vanished before it was read");
    must(w->dir, "grep -q tree/last list && ! grep -q tree/later list");
    lk_archive_unref(archive);
}

static void becomes_a_link(void **state)
{
    struct world *w = *state;
    struct lk_archive *archive =
        changed_meanwhile(w, "rm tree/later && ln -s /etc/passwd tree/later");
    assert_int_equal(lk_archive_result(archive)->warning_count, 0);
    must(w->dir, "tar -tvf a.tar | grep -q 'tree/later -> /etc/passwd'");
    lk_archive_unref(archive);
}

/* A file whose reading fails: the kernel has some. */
static void read_error(void **state)
{
    struct world *w = *state;
    static const char *const files[] = {
        "/sys/class/net/lo/phys_port_id", "/sys/class/net/lo/speed", "/sys/class/net/lo/duplex",
        "/sys/class/net/eth0/phys_port_id", "/sys/class/net/eth0/phys_switch_id"};
    const char *file = NULL;
    int errnum = 0;
    for (size_t i = 0; i < sizeof files / sizeof *files && !file; i++) {
        char byte;
        int fd = open(files[i], O_RDONLY | O_CLOEXEC);
        if (fd >= 0 && read(fd, &byte, 1) < 0) {
            errnum = errno;
            file = files[i];
        }
        if (fd >= 0)
            close(fd);
    }
    if (!file) {
        print_message("skipped: no file whose reading fails\n");
        skip();
    }
    struct lk_archive_root root = {.path = file, .name = "bad"};
    struct lk_archive_options options = {.roots = &root, .root_count = 1, .in_flight = 4};
    struct lk_archive *archive = archive_to(w, &options, "a.tar");
    char expected[256];
    snprintf(expected, sizeof expected, "can't be read at byte 0, rest filled with zeros: %s",
             strerror(errnum));
    char *reason = strstr(expected, ": ") + 2;
    *reason = (char)(*reason | 0x20);
    expect_warning(archive, file, LK_WARN_UNREADABLE, expected);
    must(w->dir, "test $(tar -xOf a.tar bad | wc -c) = 4096");
    lk_archive_unref(archive);
}

/* As somebody who may not read everything; a process of its own, because the user is the process's.
 */
static void without_permission(void **state)
{
    struct world *w = *state;
    must(w->dir, "chmod 755 . && mkdir -p tree/closed && echo x > tree/secret && echo y > "
                 "tree/open && touch tree/closed/x &&"
                 "chmod 0 tree/secret tree/closed && mkdir -m 777 out");
    pid_t pid = fork();
    if (pid == 0) {
        struct one_root one;
        if (geteuid() == 0 && (setgid(65534) || setuid(65534)))
            _exit(1);
        struct world mine = *w;
        mine.pool = lk_pool_new(1, NULL);
        struct lk_archive *archive = archive_to(&mine, one_root(&one, w, "tree"), "out/a.tar");
        const struct lk_archive_stats *stats = lk_archive_result(archive);
        const struct lk_warning *secret = find_warning(stats, "tree/secret"),
                                *closed = find_warning(stats, "tree/closed");
        bool good = stats->unreadable == 2 && stats->warning_count == 2 && secret && closed &&
                    strcmp(secret->message, "can't be opened: permission denied") == 0 &&
                    strcmp(closed->message, "can't be read: permission denied") == 0;
        _exit(good ? 0 : 2);
    }
    int status;
    waitpid(pid, &status, 0);
    assert_int_equal(status, 0);
    must(w->dir,
         "tar -tf out/a.tar > got; printf '%%s\\n' tree/ tree/closed/ tree/open | diff - got");
}

/* --- chunks --- */

struct seen {
    size_t chunks, zeros, entries;
    unsigned char large[32]; /* digest of the chunks of tree/large */
    struct lk_large *digest;
    bool found;
};

static void look(struct seen *seen, struct lk_chunk *chunk, const char *large)
{
    assert_true(chunk->len > 0 && chunk->len <= LK_MEMBER_SIZE && chunk->len % 512 == 0);
    assert_int_equal(chunk->raw_len, chunk->len);
    seen->chunks++;
    if (chunk->zeros) {
        seen->zeros++;
        assert_int_equal(chunk->len, LK_MEMBER_SIZE);
        assert_int_equal(chunk->data[0], 0);
        assert_memory_equal(chunk->data, chunk->data + 1, chunk->len - 1);
    }
    struct lk_entries *entries = (struct lk_entries *)chunk->meta;
    if (!entries)
        return;
    assert_int_equal(entries->first->header_at, 0);
    for (struct lk_entry *e = entries->first; e; e = e->next, seen->entries++) {
        assert_memory_equal(chunk->data + e->data_at - 512 + 257, "ustar", 5);
        if (strcmp(e->path, large) == 0) {
            assert_ptr_equal(e, entries->first);
            assert_null(e->next);
            assert_non_null(e->large);
            seen->found = true;
            seen->digest = e->large;
            e->large = NULL;
        }
    }
}

static void chunks(void **state)
{
    struct world *w = *state;
    struct one_root one;
    struct lk_error err;
    struct lk_chunk *chunk;
    struct seen seen = {.chunks = 0};
    must(w->dir,
         "mkdir tree && cd tree && for i in $(seq 1 300); do head -c $((i * 37)) /dev/zero > "
         "small.$i; done &&"
         "head -c 3500000 /dev/urandom > large && truncate -s 10M sparse && printf x >> sparse");
    struct lk_archive *archive = lk_archive_new(one_root(&one, w, "tree"), &err);
    struct lk_stream *stream = lk_archive_stream(archive, w->pool, &err);
    while (lk_stream_read(stream, &chunk, &err) == LK_STREAM_DATA) {
        look(&seen, chunk, "tree/large");
        lk_chunk_unref(chunk);
    }
    lk_stream_unref(stream);
    assert_int_equal(seen.entries, 303);
    assert_int_equal(lk_archive_result(archive)->members, seen.chunks);
    assert_int_equal(seen.zeros, 9); /* the first begins with the header */
    /* tree; large: 4; small: 2.x MiB; sparse: 11; the end */
    assert_true(seen.found);
    unsigned char sha256[32];
    char hex[65];
    assert_true(seen.digest->wait(seen.digest, sha256));
    seen.digest->free(seen.digest);
    for (int i = 0; i < 32; i++)
        snprintf(hex + 2 * i, 3, "%02x", sha256[i]);
    must(w->dir, "echo '%s  tree/large' | sha256sum -c --quiet", hex);
    lk_archive_unref(archive);
}

/* A large file's chunks do not depend on what came before. */
static void chunks_do_not_depend_on_position(void **state)
{
    struct world *w = *state;
    struct one_root one;
    must(w->dir, "mkdir tree && head -c 3000000 /dev/urandom > tree/large");
    lk_archive_unref(archive_to(w, one_root(&one, w, "tree/large"), "alone"));
    must(w->dir, "for i in $(seq 1 20); do echo $i > tree/before.$i; done");
    struct lk_error err;
    struct lk_chunk *chunk;
    struct lk_archive *archive = lk_archive_new(one_root(&one, w, "tree"), &err);
    struct lk_stream *stream = lk_archive_stream(archive, w->pool, &err);
    char path[128];
    snprintf(path, sizeof path, "%s/inside", w->dir);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    bool inside = false;
    while (lk_stream_read(stream, &chunk, &err) == LK_STREAM_DATA) {
        struct lk_entries *entries = (struct lk_entries *)chunk->meta;
        inside = entries ? strcmp(entries->first->path, "tree/large") == 0 : inside;
        if (inside)
            assert_int_equal(write(fd, chunk->data, chunk->len), (ssize_t)chunk->len);
        lk_chunk_unref(chunk);
    }
    close(fd);
    lk_stream_unref(stream);
    lk_archive_unref(archive);
    must(w->dir, "cmp alone inside");
}

/* Only the beginning of 9 GiB is read: the size must be right, the rest can't differ from smaller
 * files. */
static void more_than_8_gib(void **state)
{
    struct world *w = *state;
    struct one_root one;
    struct lk_error err;
    struct lk_chunk *chunk;
    must(w->dir, "truncate -s 9G big");
    struct lk_archive *archive = lk_archive_new(one_root(&one, w, "big"), &err);
    struct lk_stream *stream = lk_archive_stream(archive, w->pool, &err);
    assert_int_equal(lk_stream_read(stream, &chunk, &err), LK_STREAM_DATA);
    write_file(w->dir, "head", chunk->data, 4096);
    lk_chunk_unref(chunk);
    lk_stream_cancel(stream);
    lk_stream_unref(stream);
    lk_archive_unref(archive);
    must(w->dir,
         "python3 -c 'import tarfile; assert tarfile.open(\"head\").next().size == 9 << 30' &&"
         "tar -tvf head 2>/dev/null | grep -q ' 9663676416 ' && busybox tar -tvf head 2>/dev/null "
         "| grep -q ' 9663676416 '");
}

static void cancelling_ends_it(void **state)
{
    struct world *w = *state;
    struct one_root one;
    struct lk_error err;
    struct lk_chunk *chunk;
    must(w->dir, "mkdir tree && head -c 20000000 /dev/urandom > tree/big && touch tree/x");
    for (int reads = 0; reads < 4; reads++) {
        struct lk_archive *archive = lk_archive_new(one_root(&one, w, "tree"), &err);
        struct lk_stream *stream = lk_archive_stream(archive, w->pool, &err);
        for (int i = 0; i < reads; i++) {
            assert_int_equal(lk_stream_read(stream, &chunk, &err), LK_STREAM_DATA);
            lk_chunk_unref(chunk);
        }
        assert_null(lk_archive_stream(archive, w->pool, &err));
        assert_int_equal(err.kind, LK_USAGE);
        lk_stream_cancel(stream);
        lk_stream_unref(stream);
        lk_archive_unref(archive);
    }
}

struct estimation {
    sem_t done;
    uint64_t files, bytes;
};

static void estimated(void *arg, uint64_t files, uint64_t bytes)
{
    struct estimation *e = arg;
    e->files = files;
    e->bytes = bytes;
    sem_post(&e->done);
}

static void estimate_counts_links_once(void **state)
{
    struct world *w = *state;
    struct one_root one;
    struct lk_error err;
    struct estimation e;
    int stop = 0;
    must(w->dir, "mkdir -p tree/d && head -c 1000 /dev/zero > tree/a && ln tree/a tree/d/b && head "
                 "-c 50 /dev/zero > tree/c.o &&"
                 "ln -s a tree/l");
    const char *pattern = "*.o";
    one_root(&one, w, "tree");
    one.options.exclude = &pattern;
    one.options.exclude_count = 1;
    sem_init(&e.done, 0, 0);
    assert_int_equal(lk_archive_estimate(&one.options, w->pool, &stop, estimated, &e, &err), 0);
    sem_wait(&e.done);
    sem_destroy(&e.done);
    assert_int_equal(e.files, 2);
    assert_int_equal(e.bytes, 1000);
}

#define test(name) cmocka_unit_test_setup_teardown(name, world_new, world_free)

int main(void)
{
    const struct CMUnitTest tests[] = {
        test(all_kinds_as_python_reads_them),
        test(the_same_tree_gives_the_same_bytes),
        test(attributes_and_access_lists),
        test(names_of_roots),
        test(roots),
        test(deep_tree),
        test(patterns_as_gnu_tar),
        test(cache_directories),
        test(one_file_system),
        test(sockets_are_left_out),
        test(shrinks),
        test(grows),
        test(is_rewritten),
        test(vanishes),
        test(becomes_a_link),
        test(read_error),
        test(without_permission),
        test(chunks),
        test(chunks_do_not_depend_on_position),
        test(more_than_8_gib),
        test(cancelling_ends_it),
        test(estimate_counts_links_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
