/* SPDX-License-Identifier: MIT
 * test_tar.c - tar headers against those of GNU tar, access lists against getfacl, and what needs a
 * pax record. */
#include "tar.h"

#include "archive_help.h"

static size_t header(struct lk_buf *out, struct lk_tar_entry entry)
{
    struct lk_error err = {.kind = LK_OK};
    lk_buf_init(out, LK_TAR_HEADER_MAX);
    if (!entry.path_len)
        entry.path_len = strlen(entry.path);
    if (entry.link)
        entry.link_len = strlen(entry.link);
    if (lk_tar_header(out, &entry, &err))
        fail_msg("%s", err.message);
    assert_int_equal(out->len % LK_TAR_BLOCK, 0);
    return out->len;
}

/* The records of an extended header as one text. */
static const char *records(const struct lk_buf *out)
{
    assert_int_equal(out->data[156], 'x');
    assert_true(out->len >= 3 * LK_TAR_BLOCK);
    return out->data + LK_TAR_BLOCK;
}

/* Takes out what GNU tar writes in one way up to 1.34 and in another since: the device numbers of
 * what is no device, and with them the checksum. */
static void without_device(char *block)
{
    memset(block + 148, 0, 8);
    memset(block + 329, 0, 16);
}

/* A plain entry is, byte for byte, what GNU tar writes. */
static void plain_header_is_gnu_tars(void **state)
{
    struct world *w = *state;
    char expected[512], path[128];
    struct lk_buf out;
    must(w->dir,
         "mkdir d && printf 'abc' > d/file && chmod 4751 d/file && touch -d @1700000000 d/file &&"
         "tar --format=ustar --owner=nobody:65534 --group=games:60 -cf t.tar d/file");
    snprintf(path, sizeof path, "%s/t.tar", w->dir);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_int_equal(read(fd, expected, sizeof expected), 512);
    close(fd);
    assert_int_equal(header(&out, (struct lk_tar_entry){.path = "d/file",
                                                        .type = '0',
                                                        .mode = 04751,
                                                        .uid = 65534,
                                                        .gid = 60,
                                                        .uname = "nobody",
                                                        .gname = "games",
                                                        .size = 3,
                                                        .mtime = 1700000000}),
                     512);
    without_device(out.data);
    without_device(expected);
    assert_memory_equal(out.data, expected, 512);
    lk_buf_free(&out);
}

static void times_need_a_record_only_with_fractions(void **state)
{
    (void)state;
    struct lk_buf out;
    header(&out, (struct lk_tar_entry){
                     .path = "a", .type = '0', .mtime = 1700000000, .mtime_ns = 123456789});
    assert_string_equal(records(&out), "30 mtime=1700000000.123456789\n");
    lk_buf_free(&out);
    header(&out, (struct lk_tar_entry){
                     .path = "a", .type = '0', .mtime = 1700000000, .mtime_ns = 500000000});
    assert_string_equal(records(&out), "22 mtime=1700000000.5\n");
    lk_buf_free(&out);
    /* -1.5 s is -2 s and 500,000,000 ns upwards. */
    header(&out,
           (struct lk_tar_entry){.path = "a", .type = '0', .mtime = -2, .mtime_ns = 500000000});
    assert_string_equal(records(&out), "14 mtime=-1.5\n");
    lk_buf_free(&out);
    header(&out,
           (struct lk_tar_entry){.path = "a", .type = '0', .mtime = -1, .mtime_ns = 500000000});
    assert_string_equal(records(&out), "14 mtime=-0.5\n");
    lk_buf_free(&out);
    header(&out, (struct lk_tar_entry){.path = "a", .type = '0', .mtime = INT64_C(8589934592)});
    assert_string_equal(records(&out), "20 mtime=8589934592\n");
    lk_buf_free(&out);
    assert_int_equal(
        header(&out, (struct lk_tar_entry){.path = "a", .type = '0', .mtime = INT64_C(8589934591)}),
        512);
    lk_buf_free(&out);
}

static void large_numbers(void **state)
{
    (void)state;
    struct lk_buf out;
    header(&out, (struct lk_tar_entry){.path = "a",
                                       .type = '0',
                                       .size = UINT64_C(8589934592),
                                       .uid = 2097152,
                                       .gid = 2097151});
    assert_string_equal(records(&out), "19 size=8589934592\n15 uid=2097152\n");
    const char *block = out.data + 2 * LK_TAR_BLOCK; /* readers without pax see base 256 */
    assert_memory_equal(block + 124, "\x80\0\0\0\0\0\0\x02\0\0\0\0", 12);
    assert_memory_equal(block + 116, "7777777", 8);
    lk_buf_free(&out);
    assert_int_equal(
        header(&out, (struct lk_tar_entry){.path = "a", .type = '0', .size = UINT64_C(8589934591)}),
        512);
    lk_buf_free(&out);
}

/* A record's length counts its own digits: the values around 10, 100 and 1,000. */
static void record_lengths(void **state)
{
    (void)state;
    for (size_t len = 101; len < 1100; len++) {
        struct lk_buf out;
        char path[1200], expected[1300];
        memset(path, 'n', len);
        path[len] = 0;
        header(&out, (struct lk_tar_entry){.path = path, .type = '0'});
        size_t said = strtoul(records(&out), NULL, 10);
        snprintf(expected, sizeof expected, "%zu path=%s\n", said, path);
        assert_int_equal(strlen(expected), said);
        assert_memory_equal(records(&out), expected, said);
        lk_buf_free(&out);
    }
}

static void names_that_are_not_utf8_are_binary(void **state)
{
    (void)state;
    struct lk_buf out;
    header(&out, (struct lk_tar_entry){.path = "\xff", .type = '0'});
    assert_string_equal(records(&out), "21 hdrcharset=BINARY\n9 path=\xff\n");
    lk_buf_free(&out);
    header(&out, (struct lk_tar_entry){.path = "\xc3\xa4", .type = '2', .link = "\xe9"});
    assert_string_equal(records(&out),
                        "21 hdrcharset=BINARY\n11 path=\xc3\xa4\n14 linkpath=\xe9\n");
    lk_buf_free(&out);
    header(&out, (struct lk_tar_entry){.path = "\xc3\xa4", .type = '0'});
    assert_string_equal(records(&out), "11 path=\xc3\xa4\n");
    lk_buf_free(&out);
}

/* 155 + 1 + 100 bytes fit without a record, if there is a slash in the right place. */
static void names_are_split(void **state)
{
    (void)state;
    struct lk_buf out;
    char path[300];
    memset(path, 'a', sizeof path);
    path[155] = '/';
    path[256] = 0;
    assert_int_equal(header(&out, (struct lk_tar_entry){.path = path, .type = '0'}), 512);
    assert_memory_equal(out.data + 345, path, 155);
    assert_memory_equal(out.data, path + 156, 100);
    lk_buf_free(&out);
    path[256] = 'a';
    path[257] = 0;
    assert_int_equal(header(&out, (struct lk_tar_entry){.path = path, .type = '0'}), 1536);
    lk_buf_free(&out);
    path[155] = 'a';
    path[101] = 0;
    assert_int_equal(header(&out, (struct lk_tar_entry){.path = path, .type = '0'}), 1536);
    lk_buf_free(&out);
    path[100] = 0;
    assert_int_equal(header(&out, (struct lk_tar_entry){.path = path, .type = '0'}), 512);
    lk_buf_free(&out);
    assert_int_equal(header(&out, (struct lk_tar_entry){.path = path, .type = '5'}),
                     1536); /* and a slash */
    lk_buf_free(&out);
}

static void attributes(void **state)
{
    (void)state;
    struct lk_buf out;
    const struct lk_tar_xattr list[] = {
        {"user.a", "x\0\n=y", 5}, {"user.b=c", "foobar", 6}, {"user.empty", "", 0}};
    header(
        &out,
        (struct lk_tar_entry){
            .path = "a", .type = '0', .xattrs = list, .xattr_count = 3, .acl_access = "user::r--"});
    static const char expected[] = "29 SCHILY.xattr.user.a=x\0\n=y\n"
                                   "40 LIBARCHIVE.xattr.user.b%3Dc=Zm9vYmFy\n"
                                   "28 SCHILY.xattr.user.empty=\n"
                                   "31 SCHILY.acl.access=user::r--\n";
    assert_memory_equal(records(&out), expected, sizeof expected);
    lk_buf_free(&out);
}

static void utf8(void **state)
{
    (void)state;
    static const char *const good[] = {"",
                                       "abc",
                                       "\xc2\x80",
                                       "\xdf\xbf",
                                       "\xe0\xa0\x80",
                                       "\xed\x9f\xbf",
                                       "\xef\xbf\xbf",
                                       "\xf0\x90\x80\x80",
                                       "\xf4\x8f\xbf\xbf"};
    /* From Markus Kuhn's test file: lone, missing, overlong, surrogates, beyond the end. */
    static const char *const bad[] = {"\x80",
                                      "\xbf",
                                      "\xc3",
                                      "\xe2\x82",
                                      "\xf0\x9f\x98",
                                      "\xfe",
                                      "\xff",
                                      "\xc0\xaf",
                                      "\xc1\xbf",
                                      "\xe0\x80\xaf",
                                      "\xe0\x9f\xbf",
                                      "\xf0\x80\x80\xaf",
                                      "\xf0\x8f\xbf\xbf",
                                      "\xed\xa0\x80",
                                      "\xed\xbf\xbf",
                                      "\xf4\x90\x80\x80",
                                      "\xf8\x88\x80\x80\x80",
                                      "a\xc3(",
                                      "\xe2(\xa1"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_true(lk_utf8_valid(good[i], strlen(good[i])));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(lk_utf8_valid(bad[i], strlen(bad[i])));
}

static void access_lists(void **state)
{
    (void)state;
    static const unsigned char value[] = {
        2,  0, 0, 0, 1,   0,   6,   0,   255, 255, 255, 255, 2,   0,   5,    0,    0xe8, 3,
        0,  0, 4, 0, 4,   0,   255, 255, 255, 255, 8,   0,   7,   0,   0x39, 0x30, 0,    0,
        16, 0, 7, 0, 255, 255, 255, 255, 32,  0,   0,   0,   255, 255, 255,  255};
    struct lk_buf out;
    struct lk_error err;
    lk_buf_init(&out, 1000);
    assert_int_equal(lk_tar_acl_text(value, sizeof value, &out, &err), 0);
    assert_string_equal(out.data,
                        "user::rw-,user:1000:r-x,group::r--,group:12345:rwx,mask::rwx,other::---");
    assert_int_equal(lk_tar_acl_text(value, sizeof value - 1, &out, &err), -1);
    assert_int_equal(err.kind, LK_CORRUPT);
    assert_int_equal(lk_tar_acl_text("\x03\0\0\0", 4, &out, &err), -1);
    lk_buf_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(plain_header_is_gnu_tars, world_new, world_free),
        cmocka_unit_test(times_need_a_record_only_with_fractions),
        cmocka_unit_test(large_numbers),
        cmocka_unit_test(record_lengths),
        cmocka_unit_test(names_that_are_not_utf8_are_binary),
        cmocka_unit_test(names_are_split),
        cmocka_unit_test(attributes),
        cmocka_unit_test(utf8),
        cmocka_unit_test(access_lists),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
