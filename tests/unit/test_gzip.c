/* SPDX-License-Identifier: MIT
 * test_gzip.c - members written by every engine, read back by lunark and by other programs; data of
 * other programs; damage of all kinds. */
#include "gzip_bytes.h"

#include "engine.h"
#include "member.h"
#include <fcntl.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zlib.h>

#define PIECE LK_MEMBER_SIZE
enum { SIZE = 5 * (1 << 20) + 12345 };

static struct lk_pool *pool;
static unsigned char *mixed; /* text, noise, zeros and text again */

static int set_up(void **state)
{
    (void)state;
    pool = lk_pool_new(2, NULL);
    mixed = calloc(1, SIZE);
    assert_non_null(pool);
    assert_non_null(mixed);
    fill_text(mixed, 2 << 20, 7);
    fill_random(mixed + (2 << 20), 1 << 20, 99);
    fill_text(mixed + (4 << 20), SIZE - (4 << 20), 11);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    lk_pool_free(pool);
    free(mixed);
    return 0;
}

static void same(const struct bytes *b, const void *data, size_t len)
{
    assert_string_equal(b->rc < 0 ? b->err.message : "", "");
    assert_int_equal(b->len, len);
    assert_true(len == 0 || memcmp(b->data, data, len) == 0);
}

static struct bytes pack(int level, bool index)
{
    struct lk_gzip_options options = {.level = level, .index = index, .in_flight = 4};
    struct bytes b = compress_bytes(pool, mixed, SIZE, PIECE, &options, NULL);

    assert_int_equal(b.rc, 0);
    return b;
}

/* --- round trips --- */

static void every_engine_and_level_gives_the_data_back(void **state)
{
    static const int levels[] = {
        LK_LEVEL_NONE, LK_LEVEL_FAST, LK_LEVEL_BALANCED, LK_LEVEL_BEST, 1, 4, 12};

    (void)state;
    for (int engine = LK_ENGINE_AUTO; engine < LK_ENGINE_COUNT; engine++) {
        if (engine != LK_ENGINE_AUTO && !lk_engine_version((enum lk_engine)engine)) {
            continue;
        }
        for (size_t i = 0; i < sizeof(levels) / sizeof(levels[0]); i++) {
            struct lk_gzip_options options = {.engine = (enum lk_engine)engine,
                                              .level = levels[i],
                                              .index = i % 2 == 0,
                                              .in_flight = 3};
            struct lk_gzip_stats stats;
            size_t len = levels[i] == 12 ? 1 << 20 : SIZE;
            struct bytes packed = compress_bytes(pool, mixed, len, PIECE, &options, &stats);
            assert_int_equal(packed.rc, 0);
            assert_int_equal(stats.bytes, packed.len);
            assert_int_equal(stats.raw_bytes, len);
            assert_int_equal(stats.members, (len + PIECE - 1) / PIECE);
            struct bytes plain = expand_bytes(pool, packed.data, packed.len, 70001);
            same(&plain, mixed, len);
            free(plain.data);
            free(packed.data);
        }
    }
}

static void small_and_empty_input(void **state)
{
    (void)state;
    for (size_t len = 0; len < 3; len++) {
        for (int index = 0; index < 2; index++) {
            struct lk_gzip_options options = {
                .level = LK_LEVEL_BALANCED, .index = index, .in_flight = 1};
            struct bytes packed = compress_bytes(pool, "xy", len, PIECE, &options, NULL);
            struct bytes plain = expand_bytes(pool, packed.data, packed.len, 1);
            same(&plain, "xy", len);
            free(plain.data);
            free(packed.data);
        }
    }
}

static void threads_do_not_change_a_byte(void **state)
{
    struct lk_gzip_options options = {.level = LK_LEVEL_BALANCED, .index = true, .in_flight = 1};
    struct lk_pool *one = lk_pool_new(1, NULL);
    struct lk_pool *eight = lk_pool_new(8, NULL);

    (void)state;
    struct bytes a = compress_bytes(one, mixed, SIZE, PIECE, &options, NULL);
    options.in_flight = 20;
    struct bytes b = compress_bytes(eight, mixed, SIZE, PIECE, &options, NULL);
    same(&b, a.data, a.len);
    free(a.data);
    free(b.data);
    lk_pool_free(one);
    lk_pool_free(eight);
}

static void a_member_does_not_depend_on_its_place(void **state)
{
    struct lk_gzip_options options = {.level = LK_LEVEL_BALANCED, .in_flight = 4};

    (void)state;
    struct bytes all = compress_bytes(pool, mixed, 3 * PIECE, PIECE, &options, NULL);
    struct bytes second = compress_bytes(pool, mixed + PIECE, PIECE, PIECE, &options, NULL);
    struct lk_member first;
    assert_true(lk_member_parse(all.data, &first));
    assert_memory_equal(all.data + first.size, second.data, second.len);
    free(all.data);
    free(second.data);
}

static void noise_is_stored_and_text_is_not(void **state)
{
    struct lk_gzip_options options = {.level = LK_LEVEL_BALANCED, .in_flight = 4};
    unsigned char *data = malloc(PIECE);

    (void)state;
    fill_random(data, PIECE, 5);
    struct bytes noise = compress_bytes(pool, data, PIECE, PIECE, &options, NULL);
    assert_true(noise.len <= PIECE + 17 * 5 + LK_MEMBER_HEADER + LK_MEMBER_TRAILER);
    /* Bits 1 and 2 of the first body byte are the block type: 0 = stored (RFC 1951, 3.2.3). */
    assert_int_equal(noise.data[LK_MEMBER_HEADER] & 6, 0);
    assert_true(lk_looks_random(data, PIECE));
    fill_text(data, PIECE / 8, 3);
    assert_false(lk_looks_random(data, PIECE));
    struct bytes part = compress_bytes(pool, data, PIECE, PIECE, &options, NULL);
    assert_true(part.len < PIECE - PIECE / 16);
    free(noise.data);
    free(part.data);
    free(data);
}

static void a_hole_gives_the_bytes_of_zeros(void **state)
{
    struct lk_gzip_options options = {.level = LK_LEVEL_BALANCED, .in_flight = 2};
    unsigned char *zeros = calloc(1, 3 * PIECE);
    struct lk_stream *input = lk_stream_new(4, NULL);

    (void)state;
    for (int i = 0; i < 3; i++) {
        struct lk_chunk *chunk = lk_chunk_alloc(PIECE, NULL);
        memset(chunk->data, 0, PIECE);
        chunk->len = chunk->raw_len = PIECE;
        chunk->zeros = true;
        assert_int_equal(lk_stream_write(input, chunk, NULL), 0);
    }
    lk_stream_end(input, NULL);
    lk_stream_unref(input);
    struct bytes holes = collect(lk_gzip(pool, input, &options, NULL, NULL));
    struct bytes plain = compress_bytes(pool, zeros, 3 * PIECE, PIECE, &options, NULL);
    same(&holes, plain.data, plain.len);
    assert_true(holes.len < 3 * 1200);
    free(holes.data);
    free(plain.data);
    free(zeros);
}

/* --- other programs --- */

/* The status of a program whose output goes to a file; 127 when it is not installed. */
static int run(const char *const *argv, const char *out)
{
    pid_t pid = fork();
    int status = 0;

    if (pid == 0) {
        int in = open("/dev/null", O_RDONLY | O_CLOEXEC);
        int fd = open(out, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (dup2(in, 0) == 0 && dup2(fd, 1) == 1) {
            execvp(argv[0], (char *const *)(uintptr_t)argv);
        }
        _exit(127);
    }
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static void write_file(const char *path, const void *data, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, len), len);
    close(fd);
}

static struct bytes read_file(const char *path)
{
    struct lk_error err;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    return collect(lk_stream_of_fd(pool, fd, PIECE, NULL, NULL, &err));
}

static void read_by_others(const char *gz, const char *out, bool tell)
{
    static const char python[] = "import gzip,sys,shutil\n"
                                 "shutil.copyfileobj(gzip.open(sys.argv[1]),sys.stdout.buffer)";
    const char *const programs[][5] = {
        {"gzip", "-dc", gz},  {"pigz", "-dc", gz},           {"busybox", "gzip", "-dc", gz},
        {"bsdcat", gz},       {"7z", "e", "-so", gz},        {"python3", "-c", python, gz},
        {"igzip", "-dc", gz}, {"libdeflate-gzip", "-dc", gz}};

    for (size_t i = 0; i < sizeof(programs) / sizeof(programs[0]); i++) {
        int status = run(programs[i], out);
        if (status == 127) {
            if (tell) {
                print_message("skipped: %s is not installed here\n", programs[i][0]);
            }
            continue;
        }
        if (status != 0) {
            fail_msg("%s ended with %d", programs[i][0], status);
        }
        struct bytes plain = read_file(out);
        same(&plain, mixed, SIZE);
        free(plain.data);
    }
}

static void other_programs_read_it(void **state)
{
    static const int levels[] = {LK_LEVEL_FAST, LK_LEVEL_BALANCED, LK_LEVEL_NONE};
    char dir[] = "/tmp/lunark-gzip-XXXXXX";
    char gz[64], out[64];

    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(gz, sizeof(gz), "%s/a.gz", dir);
    snprintf(out, sizeof(out), "%s/a", dir);
    for (size_t i = 0; i < sizeof(levels) / sizeof(levels[0]); i++) {
        struct bytes packed = pack(levels[i], true);
        write_file(gz, packed.data, packed.len);
        free(packed.data);
        read_by_others(gz, out, i == 0);
    }
    unlink(gz);
    unlink(out);
    rmdir(dir);
}

/* --- data of other programs --- */

/* One member by zlib, with all the optional fields of a header. */
static void add_foreign(struct bytes *b, const void *data, size_t len)
{
    static Bytef extra[5000];
    static Bytef name[] = "a name", comment[] = "a comment";
    gz_header head = {
        .extra = extra, .extra_len = sizeof(extra), .name = name, .comment = comment, .hcrc = 1};
    z_stream z = {0};
    unsigned char *out = malloc(len + 10000);

    assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(deflateSetHeader(&z, &head), Z_OK);
    z.next_in = (Bytef *)(uintptr_t)data;
    z.avail_in = (uInt)len;
    z.next_out = out;
    z.avail_out = (uInt)(len + 10000);
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    add_bytes(b, out, z.total_out);
    deflateEnd(&z);
    free(out);
}

static void foreign_members_and_ours_in_one_file(void **state)
{
    struct lk_gzip_options options = {.level = LK_LEVEL_FAST, .index = true, .in_flight = 4};
    struct bytes file = {0}, want = {0};

    (void)state;
    for (int i = 0; i < 3; i++) {
        add_foreign(&file, mixed, SIZE);
        add_foreign(&file, "", 0);
        struct bytes ours = compress_bytes(pool, mixed, 3000000, PIECE, &options, NULL);
        add_bytes(&file, ours.data, ours.len);
        free(ours.data);
        add_bytes(&want, mixed, SIZE);
        add_bytes(&want, mixed, 3000000);
    }
    static const size_t pieces[] = {1 << 20, 4096, 27, 29};
    for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
        struct bytes plain = expand_bytes(pool, file.data, file.len, pieces[i]);
        same(&plain, want.data, want.len);
        assert_true(plain.longest <= LK_MEMBER_SIZE);
        free(plain.data);
    }
    free(file.data);
    free(want.data);
}

/* The 20 bytes that `gzip -n < /dev/null` gives: shorter than what is looked at ahead. */
static void the_shortest_member(void **state)
{
    static const unsigned char empty[20] = {0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 3};
    struct bytes twice = {0};

    (void)state;
    add_bytes(&twice, empty, 20);
    add_bytes(&twice, empty, 20);
    add_foreign(&twice, "tail", 4);
    struct bytes plain = expand_bytes(pool, twice.data, twice.len, 7);
    same(&plain, "tail", 4);
    free(plain.data);
    free(twice.data);
}

static void padding_is_fine_and_garbage_is_not(void **state)
{
    static const unsigned char zeros[20000];
    struct bytes file = pack(LK_LEVEL_FAST, true);
    size_t len = file.len;

    (void)state;
    add_bytes(&file, zeros, sizeof(zeros));
    struct bytes plain = expand_bytes(pool, file.data, file.len, 512);
    same(&plain, mixed, SIZE);
    free(plain.data);
    file.data[len + 15000] = 'x';
    plain = expand_bytes(pool, file.data, file.len, 4096);
    char want[120];
    snprintf(want, sizeof(want), "gzip data is followed by something else at byte %zu",
             len + 15000);
    assert_int_equal(plain.rc, -1);
    assert_int_equal(plain.err.kind, LK_CORRUPT);
    assert_string_equal(plain.err.message, want);
    free(plain.data);
    free(file.data);
}

static void what_is_not_gzip_is_said_to_be(void **state)
{
    static const struct {
        const char *data;
        size_t len;
        const char *message;
    } cases[] = {
        {"", 0, "the data is not gzip: it is empty"},
        {"\0\0\0\0", 4, "the data is not gzip: it does not begin with 1f 8b"},
        {"PK\3\4 and so on, longer than a header", 37,
         "the data is not gzip: it does not begin with 1f 8b"},
        {"\x1f", 1, "gzip data is cut off at byte 1, inside the member that begins at byte 0"},
        {"\x1f\x8b\x08", 3,
         "gzip data is cut off at byte 3, inside the member that begins at byte 0"}};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct bytes plain = expand_bytes(pool, cases[i].data, cases[i].len, 16);
        assert_int_equal(plain.rc, -1);
        assert_int_equal(plain.err.kind, LK_CORRUPT);
        assert_string_equal(plain.err.message, cases[i].message);
        free(plain.data);
    }
}

/* --- damage --- */

static void cut_at_every_border(void **state)
{
    struct bytes file = pack(LK_LEVEL_FAST, true);
    struct lk_member m;
    size_t plain_len = 0;

    (void)state;
    for (size_t at = 0; at < file.len; at += m.size) {
        assert_true(lk_member_parse(file.data + at, &m));
        plain_len += m.raw;
        for (int i = -1; i <= 1; i++) {
            size_t end = at + m.size + (size_t)i;
            if (end > file.len) {
                continue;
            }
            struct bytes plain = expand_bytes(pool, file.data, end, PIECE);
            if (i == 0) {
                same(&plain, mixed, plain_len); /* a whole gzip file, as far as gzip can tell */
            } else {
                char want[120];
                snprintf(
                    want, sizeof(want),
                    "gzip data is cut off at byte %zu, inside the member that begins at byte %zu",
                    end, i < 0 ? at : at + m.size);
                assert_int_equal(plain.rc, -1);
                assert_int_equal(plain.err.kind, LK_CORRUPT);
                assert_string_equal(plain.err.message, want);
            }
            free(plain.data);
        }
    }
    free(file.data);
}

static void a_flipped_bit_never_changes_what_comes_out(void **state)
{
    struct lk_gzip_options options = {.level = LK_LEVEL_FAST, .index = true, .in_flight = 4};
    struct bytes file = compress_bytes(pool, mixed, 300000, 100000, &options, NULL);
    uint32_t seed = 4711;
    int failed = 0;

    (void)state;
    for (int i = 0; i < 1500; i++) {
        size_t at = i < 28 * 8 ? (size_t)i / 8 : next_random(&seed) % file.len;
        unsigned char bit = (unsigned char)(1u << (i % 8));
        file.data[at] ^= bit;
        struct bytes plain = expand_bytes(pool, file.data, file.len, 65536);
        if (plain.rc < 0) {
            assert_int_equal(plain.err.kind, LK_CORRUPT);
            failed++;
        } else {
            same(&plain, mixed, 300000);
        }
        free(plain.data);
        file.data[at] ^= bit;
    }
    assert_true(failed > 1100);
    free(file.data);
}

static void sizes_that_lie_are_damage(void **state)
{
    struct lk_gzip_options options = {.level = LK_LEVEL_FAST, .in_flight = 4};
    struct bytes file = compress_bytes(pool, mixed, 200000, 100000, &options, NULL);
    struct lk_member m;

    (void)state;
    assert_true(lk_member_parse(file.data, &m));
    for (int i = 0; i < 4; i++) {
        struct bytes copy = {0};
        add_bytes(&copy, file.data, file.len);
        lk_put32(copy.data + 20, m.raw + (i == 0 ? 1 : i == 1 ? -1u : 0));
        lk_put32(copy.data + 24, m.size + (i == 2 ? 1 : i == 3 ? -1u : 0));
        struct bytes plain = expand_bytes(pool, copy.data, copy.len, PIECE);
        assert_int_equal(plain.rc, -1);
        assert_int_equal(plain.err.kind, LK_CORRUPT);
        assert_non_null(strstr(plain.err.message, "the member at byte 0 is damaged"));
        assert_int_equal(plain.len, 0);
        free(plain.data);
        free(copy.data);
    }
    free(file.data);
}

/* --- ends --- */

static void the_error_of_the_source_is_the_error_of_the_end(void **state)
{
    struct lk_gzip_options options = {.level = LK_LEVEL_FAST, .index = true, .in_flight = 2};
    struct lk_error cause;

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct lk_stream *input = lk_stream_new(4, NULL);
        lk_error_set(&cause, LK_EXIT, "pg_dump ended with status 1");
        struct lk_chunk *chunk = lk_chunk_alloc(10, NULL);
        memcpy(chunk->data, "\x1f\x8b\x08\0\0\0\0\0\0\3", 10);
        chunk->len = 10;
        lk_stream_write(input, chunk, NULL);
        lk_stream_end(input, &cause);
        lk_stream_unref(input);
        struct bytes b = collect(i == 0 ? lk_gzip(pool, input, &options, NULL, NULL)
                                        : lk_gunzip(pool, input, 2, NULL));
        assert_int_equal(b.rc, -1);
        assert_int_equal(b.err.kind, LK_EXIT);
        assert_string_equal(b.err.message, "pg_dump ended with status 1");
        free(b.data);
    }
}

static void a_chunk_that_is_too_long_is_refused(void **state)
{
    struct lk_gzip_options options = {.level = LK_LEVEL_FAST, .in_flight = 2};

    (void)state;
    struct bytes b = compress_bytes(pool, mixed, PIECE + 1, PIECE + 1, &options, NULL);
    assert_int_equal(b.rc, -1);
    assert_string_equal(b.err.message,
                        "a chunk of 1048577 bytes is too large for a gzip member of 1048576");
    free(b.data);
}

static void cancelling_ends_everything(void **state)
{
    struct lk_gzip_options options = {.level = LK_LEVEL_BALANCED, .index = true, .in_flight = 2};
    struct bytes packed = pack(LK_LEVEL_FAST, false);

    (void)state;
    for (int i = 0; i < 40; i++) {
        struct lk_pool *own = lk_pool_new(2, NULL);
        struct lk_stream *s =
            i % 2 ? lk_gzip(own, stream_of(mixed, SIZE, PIECE), &options, NULL, NULL)
                  : lk_gunzip(own, stream_of(packed.data, packed.len, 9999), 2, NULL);
        struct lk_chunk *chunk;
        for (int n = 0; n < i % 4; n++) {
            assert_int_equal(lk_stream_read(s, &chunk, NULL), LK_STREAM_DATA);
            lk_chunk_unref(chunk);
        }
        lk_stream_cancel(s);
        lk_stream_unref(s);
        lk_pool_free(own); /* returns only when the stages have */
    }
    free(packed.data);
}

/* --- names --- */

static void names_of_engines_and_levels(void **state)
{
    enum lk_engine engine;
    struct lk_error err;
    int level;

    (void)state;
    assert_int_equal(lk_engine_parse("zlib", &engine, &err), 0);
    assert_int_equal(engine, LK_ENGINE_ZLIB);
    assert_int_equal(lk_engine_parse("zstd", &engine, &err), -1);
    assert_string_equal(err.message, "unknown compression engine 'zstd'");
    assert_int_equal(lk_level_parse("balanced", &level, &err), 0);
    assert_int_equal(level, LK_LEVEL_BALANCED);
    assert_int_equal(lk_level_parse("12", &level, &err), 0);
    assert_int_equal(level, 12);
    static const char *const wrong[] = {"",   "0",  "13",      "-1",
                                        "6x", " 6", "fastest", "99999999999999999999"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_int_equal(lk_level_parse(wrong[i], &level, &err), -1);
        assert_int_equal(err.kind, LK_USAGE);
    }
    assert_string_equal(lk_engine_version(LK_ENGINE_ZLIB), zlibVersion());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_engine_and_level_gives_the_data_back),
        cmocka_unit_test(small_and_empty_input),
        cmocka_unit_test(threads_do_not_change_a_byte),
        cmocka_unit_test(a_member_does_not_depend_on_its_place),
        cmocka_unit_test(noise_is_stored_and_text_is_not),
        cmocka_unit_test(a_hole_gives_the_bytes_of_zeros),
        cmocka_unit_test(other_programs_read_it),
        cmocka_unit_test(foreign_members_and_ours_in_one_file),
        cmocka_unit_test(the_shortest_member),
        cmocka_unit_test(padding_is_fine_and_garbage_is_not),
        cmocka_unit_test(what_is_not_gzip_is_said_to_be),
        cmocka_unit_test(cut_at_every_border),
        cmocka_unit_test(a_flipped_bit_never_changes_what_comes_out),
        cmocka_unit_test(sizes_that_lie_are_damage),
        cmocka_unit_test(the_error_of_the_source_is_the_error_of_the_end),
        cmocka_unit_test(a_chunk_that_is_too_long_is_refused),
        cmocka_unit_test(cancelling_ends_everything),
        cmocka_unit_test(names_of_engines_and_levels),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
