/* SPDX-License-Identifier: MIT
 * test_index.c - the index of an archive: written block by block, read back, and read by a program
 * that knows nothing of lunark but docs/format.md. */
#include "gzip_bytes.h"

#include "archiver.h"
#include "crypto.h"
#include "index_reader.h"
#include "member.h"
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* --- the writer and the reader --- */

/* A file of which only the index members are kept, at their offsets. */
struct sink {
    struct bytes file;
    size_t blocks;
    size_t largest;
};

static int keep(void *arg, struct lk_chunk *chunk, struct lk_error *err)
{
    struct sink *sink = arg;

    (void)err;
    add_bytes(&sink->file, chunk->data, chunk->len);
    sink->blocks++;
    sink->largest = chunk->len > sink->largest ? chunk->len : sink->largest;
    lk_chunk_unref(chunk);
    return 0;
}

static void add_member(struct lk_index_writer *w, struct sink *sink, struct lk_entries *entries,
                       size_t size)
{
    static const unsigned char filler[70000];
    struct lk_error err;

    add_bytes(&sink->file, filler, size);
    assert_int_equal(lk_index_writer_member(w, size, LK_MEMBER_SIZE, entries, &err), 0);
}

struct digest {
    struct lk_large base;
    bool known;
    int *freed;
};

static bool wait_digest(struct lk_large *large, unsigned char sha256[32])
{
    memset(sha256, 0xab, 32);
    return ((struct digest *)large)->known;
}

static void free_digest(struct lk_large *large)
{
    struct digest *digest = (struct digest *)large;

    ++*digest->freed;
    free(digest);
}

static struct lk_entry *add_entry(struct lk_entries *entries, const char *path, size_t len,
                                  uint64_t size)
{
    struct lk_entry *e = lk_entries_add(entries, path, len, NULL);

    assert_non_null(e);
    e->type = '0';
    e->mode = S_IFREG | 0644;
    e->size = size;
    e->data_at = 512;
    memset(e->sha256, (int)size, 32);
    return e;
}

static void make_large(struct lk_entry *e, bool known, int *freed)
{
    struct digest *digest = calloc(1, sizeof(*digest));

    assert_non_null(digest);
    *digest = (struct digest){.base = {wait_digest, free_digest}, .known = known, .freed = freed};
    e->large = &digest->base;
}

struct seen {
    const struct bytes *file;
    size_t records, members;
    uint64_t next_raw;
    char last[LK_PATH_MAX + 1];
    struct lk_record record;
    unsigned char sha256[32];
};

static int see_record(void *arg, const struct lk_record *r)
{
    struct seen *seen = arg;

    seen->records++;
    seen->record = *r;
    memcpy(seen->last, r->path, r->path_len);
    seen->last[r->path_len] = '\0';
    if (r->sha256) {
        memcpy(seen->sha256, r->sha256, 32);
    }
    return 0;
}

static int see_member(void *arg, uint64_t at, uint64_t size, uint64_t raw_at, uint64_t raw)
{
    struct seen *seen = arg;

    assert_int_equal(raw_at, seen->next_raw);
    assert_true(at + size <= seen->file->len);
    seen->next_raw += raw;
    seen->members++;
    return 0;
}

static int (*on_record)(void *arg, const struct lk_record *record);

static int see_block(void *arg, const struct lk_block_ref *ref)
{
    struct seen *seen = arg;
    struct lk_index_visitor v = {.member = see_member, .record = on_record, .arg = seen};
    struct lk_error err = {0};
    size_t records = seen->records;

    int rc = lk_block_read(seen->file->data + ref->at, (size_t)ref->size, &v, &err);
    assert_string_equal(err.message, "");
    assert_int_equal(seen->records - records, ref->records);
    return rc;
}

static struct lk_footer read_index(const struct bytes *file, struct seen *seen,
                                   int (*record)(void *arg, const struct lk_record *record))
{
    struct lk_footer f;
    struct lk_error err = {0};
    struct lk_index_visitor v = {.block = see_block, .arg = seen};

    *seen = (struct seen){.file = file};
    on_record = record;
    int rc = lk_footer_read(file->data + file->len - LK_FOOTER_SIZE, file->len, &f, &err);
    assert_string_equal(err.message, "");
    assert_int_equal(rc, 0);
    rc = lk_list_read(file->data + f.list_at, (size_t)f.list_size, &v, &err);
    assert_string_equal(err.message, "");
    assert_int_equal(rc, 0);
    assert_int_equal(seen->records, f.entries);
    assert_int_equal(seen->members, f.members);
    return f;
}

static struct lk_index_writer *start(struct sink *sink)
{
    *sink = (struct sink){0};
    struct lk_index_writer *w = lk_index_writer_new(keep, sink, NULL);
    assert_non_null(w);
    return w;
}

static void finish(struct lk_index_writer *w)
{
    struct lk_error err = {0};

    lk_index_writer_finish(w, &err);
    assert_string_equal(err.message, "");
    lk_index_writer_free(w);
}

/* Each path holds its own number, from which all the rest follows. */
static void numbered_path(char *path, size_t size, size_t n)
{
    snprintf(path, size, "usr/share/doc/package-%zu/some/file-%zu.txt", n / 30, n);
}

static int check_numbered(void *arg, const struct lk_record *r)
{
    struct seen *seen = arg;
    size_t n = seen->records++;
    char want[100];

    numbered_path(want, sizeof(want), n);
    assert_int_equal(r->path_len, strlen(want));
    assert_memory_equal(r->path, want, r->path_len);
    assert_int_equal(r->size, n % 1000);
    assert_int_equal(r->mtime, (int64_t)n * 86400 - 1000000000);
    assert_int_equal(r->mtime_ns, n * 997 % 1000000000);
    assert_int_equal(r->header_at, n % 50 * 1024);
    assert_int_equal(r->data_at, n % 50 * 1024 + 512);
    assert_int_equal(r->mode, S_IFREG | 0644);
    assert_int_equal(r->type, '0');
    if (n % 1000 == 0) {
        assert_null(r->sha256);
    } else {
        assert_int_equal(r->sha256[0], (unsigned char)(n % 1000));
        assert_int_equal(r->sha256[31], (unsigned char)(n % 1000));
    }
    /* The member is one that begins where the table says; its filler is zeros. */
    assert_true(r->member < seen->file->len);
    return 0;
}

static void many_entries_in_many_blocks(void **state)
{
    struct sink sink;
    struct seen seen;
    struct lk_index_writer *w = start(&sink);
    enum { COUNT = 60000 };
    size_t n = 0;

    (void)state;
    while (n < COUNT) {
        struct lk_entries *entries = lk_entries_new(NULL);
        for (int i = 0; i < 50; i++, n++) {
            char path[100];
            numbered_path(path, sizeof(path), n);
            struct lk_entry *e = add_entry(entries, path, strlen(path), n % 1000);
            e->mtime = (int64_t)n * 86400 - 1000000000;
            e->mtime_ns = (uint32_t)(n * 997 % 1000000000);
            e->header_at = n % 50 * 1024;
            e->data_at = e->header_at + 512;
        }
        add_member(w, &sink, entries, 1000 + n % 997);
    }
    uint64_t index_bytes = sink.file.len;
    finish(w);
    assert_true(sink.largest <= 12 + LK_EXTRA_MAX + LK_EMPTY_BODY + LK_MEMBER_TRAILER);
    struct lk_footer f = read_index(&sink.file, &seen, check_numbered);
    assert_int_equal(f.entries, COUNT);
    assert_int_equal(f.members, COUNT / 50);
    assert_int_equal(f.raw, (uint64_t)COUNT / 50 * LK_MEMBER_SIZE);
    assert_false(f.partial);
    assert_true(f.list_size > 0 && f.list_at < index_bytes + 10000);
    free(sink.file.data);
}

static void a_large_file_waits_for_its_digest(void **state)
{
    struct sink sink;
    struct seen seen;
    int freed = 0;

    (void)state;
    for (int known = 0; known < 2; known++) {
        struct lk_index_writer *w = start(&sink);
        struct lk_entries *first = lk_entries_new(NULL);
        add_entry(first, "a", 1, 3);
        struct lk_entry *e = add_entry(first, "big", 3, 5000u << 20);
        e->header_at = 1024;
        e->data_at = 1536;
        make_large(e, known, &freed);
        add_member(w, &sink, NULL, 777);
        add_member(w, &sink, first, 100);
        for (int i = 0; i < 5000; i++) {
            add_member(w, &sink, NULL, 50);
        }
        finish(w);
        read_index(&sink.file, &seen, see_record);
        assert_int_equal(seen.records, 2);
        assert_string_equal(seen.last, "big");
        assert_int_equal(seen.record.member, 777);
        assert_true(seen.record.large);
        assert_int_equal(seen.record.size, 5000u << 20);
        assert_int_equal(seen.record.sha256 != NULL, known);
        assert_int_equal(seen.sha256[0], known ? 0xab : 3);
        assert_int_equal(freed, known + 1);
        free(sink.file.data);
    }
}

static void what_was_not_written_is_freed(void **state)
{
    struct sink sink;
    int freed = 0;

    (void)state;
    struct lk_index_writer *w = start(&sink);
    struct lk_entries *entries = lk_entries_new(NULL);
    make_large(add_entry(entries, "big", 3, 1u << 30), true, &freed);
    add_member(w, &sink, entries, 100);
    lk_index_writer_free(w);
    assert_int_equal(freed, 1);
    entries = lk_entries_new(NULL);
    make_large(add_entry(entries, "big", 3, 1u << 30), true, &freed);
    entries->base.free(&entries->base);
    assert_int_equal(freed, 2);
    free(sink.file.data);
}

static void paths_of_any_bytes_and_length(void **state)
{
    static const size_t lengths[] = {1, 255, LK_PATH_MAX - 1, LK_PATH_MAX, LK_PATH_MAX + 1, 70000};
    struct sink sink;
    struct seen seen;
    char *path = malloc(70000);

    (void)state;
    fill_random((unsigned char *)path, 70000, 17);
    path[0] = '\xff';
    path[1] = '\n';
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        struct lk_index_writer *w = start(&sink);
        struct lk_entries *entries = lk_entries_new(NULL);
        add_entry(entries, "before", 6, 0);
        add_entry(entries, path, lengths[i], 5);
        add_member(w, &sink, entries, 10);
        finish(w);
        read_index(&sink.file, &seen, see_record);
        size_t kept = lengths[i] < LK_PATH_MAX ? lengths[i] : LK_PATH_MAX;
        assert_int_equal(seen.record.full_len, lengths[i]);
        assert_int_equal(seen.record.path_len, kept);
        assert_memory_equal(seen.last, path, kept);
        free(sink.file.data);
    }
    free(path);
}

static void an_archive_without_anything(void **state)
{
    struct sink sink;
    struct seen seen;

    (void)state;
    finish(start(&sink));
    struct lk_footer f = read_index(&sink.file, &seen, see_record);
    assert_int_equal(sink.file.len, LK_FOOTER_SIZE);
    assert_int_equal(f.list_size, 0);
    assert_int_equal(f.blocks, 0);
    free(sink.file.data);
}

/* Reads whatever the bytes claim to be; what matters is that it ends and touches nothing else. */
static int read_anything(const struct bytes *file, uint64_t at)
{
    struct lk_footer f;
    struct lk_error err;
    struct lk_index_visitor v = {0};

    if (lk_footer_read(file->data + file->len - LK_FOOTER_SIZE, file->len, &f, &err) < 0 ||
        lk_list_read(file->data + f.list_at, (size_t)f.list_size, &v, &err) < 0 ||
        lk_block_read(file->data + at, file->len - (size_t)at, &v, &err) < 0) {
        assert_true(err.kind == LK_CORRUPT || err.kind == LK_NOT_FOUND);
        return -1;
    }
    return 0;
}

static void a_damaged_index_is_said_to_be(void **state)
{
    struct sink sink;
    struct lk_index_writer *w = start(&sink);
    struct lk_entries *entries = lk_entries_new(NULL);
    uint32_t seed = 31;

    (void)state;
    for (size_t i = 0; i < 100; i++) {
        char path[100];
        numbered_path(path, sizeof(path), i);
        add_entry(entries, path, strlen(path), i);
    }
    add_member(w, &sink, entries, 10);
    finish(w);
    struct bytes *file = &sink.file;
    assert_int_equal(read_anything(file, 10), 0);
    for (int i = 0; i < 4000; i++) {
        size_t at = 10 + next_random(&seed) % (file->len - 10);
        unsigned char bit = (unsigned char)(1u << (next_random(&seed) % 8));
        file->data[at] ^= bit;
        read_anything(file, 10);
        /* Also with a checksum that fits: the numbers inside are not believed either. */
        struct lk_member m;
        if (lk_member_parse(file->data + 10, &m) && m.payload >= 4 && m.size <= file->len - 10 &&
            LK_MEMBER_HEADER + m.payload <= m.size) {
            unsigned char *p = file->data + 10 + LK_MEMBER_HEADER;
            unsigned char old[4];
            memcpy(old, p, 4);
            unsigned char digest[LK_DIGEST_MAX];
            lk_digest_of(LK_CRC32, p + 4, m.payload - 4, digest, NULL);
            for (int k = 0; k < 4; k++) {
                p[k] = digest[3 - k];
            }
            read_anything(file, 10);
            memcpy(p, old, 4);
        }
        file->data[at] ^= bit;
    }
    free(file->data);
}

/* --- a real archive, read by another program --- */

static int run_script(const char *name, const char *option, const char *path)
{
    const char *root = getenv("LUNARK_ROOT");
    char script[4096];
    int status;

    snprintf(script, sizeof(script), "%s/tests/support/%s", root ? root : ".", name);
    pid_t pid = fork();
    if (pid == 0) {
        int out = open("/dev/null", O_WRONLY | O_CLOEXEC);
        if (dup2(out, 1) == 1) {
            execlp("python3", "python3", script, option ? option : path, option ? path : NULL,
                   (char *)NULL);
        }
        _exit(127);
    }
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static void make_file(const char *dir, const char *name, size_t len, uint32_t seed)
{
    char path[600];
    unsigned char *data = malloc(len + 1);

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
    assert_true(fd >= 0);
    fill_text(data, len, seed);
    assert_int_equal(write(fd, data, len), len);
    close(fd);
    free(data);
}

static void write_packed(const char *path, const struct bytes *b)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, b->data, b->len), b->len);
    close(fd);
}

static void another_program_finds_every_entry(void **state)
{
    struct lk_gzip_options options = {.level = LK_LEVEL_FAST, .index = true, .in_flight = 4};
    struct lk_pool *pool = lk_pool_new(2, NULL);
    char dir[] = "/tmp/lunark-index-XXXXXX";
    char path[600], out[600];
    struct lk_error err = {0};

    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/tree", dir);
    assert_int_equal(mkdir(path, 0750), 0);
    for (uint32_t i = 0; i < 400; i++) {
        char name[300];
        snprintf(name, sizeof(name), "%03u-%.*s", i, (int)(i % 200),
                 "a-name-that-is-longer-than-what-fits-in-the-hundred-bytes-of-a-tar-header-so-"
                 "that-an-extended-"
                 "header-comes-before-it-and-the-data-begins-later-than-usual-and-even-longer-than-"
                 "that-was-needed");
        make_file(path, name, i % 7 == 0 ? 0 : i * 31, i + 1);
    }
    make_file(path, "200-large", 3500000, 5);
    make_file(path, "999-large", 1 << 20, 6);
    struct lk_archive_root root = {.path = path, .name = "tree"};
    struct lk_archive_options what = {.roots = &root, .root_count = 1, .in_flight = 4};
    struct lk_archive *archive = lk_archive_new(&what, &err);
    assert_string_equal(err.message, "");
    struct lk_stream *tar = lk_archive_stream(archive, pool, &err);
    struct bytes packed = collect(lk_gzip(pool, tar, &options, NULL, &err));
    assert_int_equal(packed.rc, 0);
    snprintf(out, sizeof(out), "%s/a.tar.gz", dir);
    write_packed(out, &packed);
    assert_int_equal(run_script("read_index.py", "--tar", out), 0);
    free(packed.data);
    lk_archive_unref(archive);

    /* A program's output: members and no records. */
    unsigned char *text = malloc(3 << 20);
    fill_text(text, 3 << 20, 3);
    packed = compress_bytes(pool, text, 3 << 20, LK_MEMBER_SIZE, &options, NULL);
    write_packed(out, &packed);
    assert_int_equal(run_script("read_index.py", "--any", out), 0);
    free(packed.data);
    free(text);
    lk_pool_free(pool);
    const char *const remove[] = {"rm", "-rf", dir, NULL};
    pid_t pid = fork();
    if (pid == 0) {
        execvp(remove[0], (char *const *)(uintptr_t)remove);
        _exit(127);
    }
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static struct bytes read_all(const char *path)
{
    struct bytes b = {0};
    unsigned char piece[4096];
    ssize_t n;

    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    while ((n = read(fd, piece, sizeof(piece))) > 0) {
        add_bytes(&b, piece, (size_t)n);
    }
    close(fd);
    return b;
}

static size_t number_in(const char *digits, size_t len)
{
    size_t n = 0;

    for (size_t i = 0; i < len; i++) {
        n = n * 10 + (size_t)(digits[i] - '0');
    }
    return n;
}

/* Of future/file-N: N * 1,000 bytes of value N. */
static int check_future(void *arg, const struct lk_record *r)
{
    struct seen *seen = arg;
    unsigned char content[30000], digest[LK_DIGEST_MAX];

    seen->records++;
    assert_true(r->path_len > 12 && memcmp(r->path, "future/file-", 12) == 0);
    size_t n = (size_t)number_in(r->path + 12, r->path_len - 12);
    assert_int_equal(r->size, n * 1000);
    assert_int_equal(r->mtime, 1600000000 - (int64_t)n * 1000);
    assert_int_equal(r->data_at, r->header_at + 512);
    assert_false(r->large);
    assert_int_equal(r->sha256 != NULL, n > 0);
    if (r->sha256) {
        memset(content, (int)n, n * 1000);
        lk_digest_of(LK_SHA256, content, n * 1000, digest, NULL);
        assert_memory_equal(r->sha256, digest, 32);
    }
    return 0;
}

/* What docs/format.md lets a later version add is passed over. */
static void an_archive_of_a_later_version(void **state)
{
    struct lk_pool *pool = lk_pool_new(2, NULL);
    char path[] = "/tmp/lunark-index-XXXXXX";
    struct seen seen;

    (void)state;
    close(mkstemp(path));
    assert_int_equal(run_script("future_archive.py", NULL, path), 0);
    struct bytes file = read_all(path);
    struct lk_footer f = read_index(&file, &seen, check_future);
    assert_int_equal(f.entries, 30);
    assert_false(f.partial);
    struct bytes plain = expand_bytes(pool, file.data, file.len, 1000);
    assert_int_equal(plain.rc, 0);
    assert_int_equal(plain.len, f.raw);
    free(plain.data);
    free(file.data);
    unlink(path);
    lk_pool_free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_entries_in_many_blocks),
        cmocka_unit_test(a_large_file_waits_for_its_digest),
        cmocka_unit_test(what_was_not_written_is_freed),
        cmocka_unit_test(paths_of_any_bytes_and_length),
        cmocka_unit_test(an_archive_without_anything),
        cmocka_unit_test(a_damaged_index_is_said_to_be),
        cmocka_unit_test(another_program_finds_every_entry),
        cmocka_unit_test(an_archive_of_a_later_version),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
