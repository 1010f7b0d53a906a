/* SPDX-License-Identifier: MIT
 * test_log.c - log lines as text and JSON, secrets taken out, and readers that stand still or are
 * gone. What invalid UTF-8 becomes, and the escaped forms of the secret, were made with Python. */
#include "log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static struct lk_log *log_;
static int fds[2];
static char text[1 << 17];

static int set_up(void **state)
{
    (void)state;
    log_ = lk_log_new(NULL);
    if (!log_ || pipe2(fds, O_CLOEXEC) < 0)
        return -1;
    fcntl(fds[0], F_SETFL, O_NONBLOCK);
    lk_log_set_fd(log_, fds[1]);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    lk_log_free(log_);
    close(fds[0]);
    close(fds[1]);
    return 0;
}

/* What was written since the last call. */
static const char *written(void)
{
    size_t len = 0;
    ssize_t n;

    while (len + 1 < sizeof text && (n = read(fds[0], text + len, sizeof text - 1 - len)) > 0)
        len += (size_t)n;
    text[len] = '\0';
    return text;
}

/* The line without its time, which must look like one and be close to now. */
static const char *without_time(const char *line, const char *format)
{
    struct tm tm = {.tm_isdst = 0};
    const char *rest = strptime(line, format, &tm);
    time_t then, now = time(NULL);

    assert_non_null(rest);
    then = timegm(&tm);
    assert_true(then <= now && then >= now - 60);
    return rest;
}

static const char *text_line(void)
{
    return without_time(written(), "%Y-%m-%dT%H:%M:%SZ ");
}

/* From behind the milliseconds on. */
static const char *json_line(void)
{
    const char *rest = without_time(written(), "{\"time\":\"%Y-%m-%dT%H:%M:%S.");

    assert_int_equal(strspn(rest, "0123456789"), 3);
    assert_memory_equal(rest + 3, "Z\",", 3);
    return rest + 6;
}

static void writes_text(void **state)
{
    const struct lk_field fields[] = {
        {"item", "neo4j"}, {"none", NULL}, {"path", "a b=\"c\\\""}, {"empty", ""}};

    (void)state;
    lk_log_write(log_, LK_INFO, fields, 1, "stored %d", 3);
    assert_string_equal(text_line(), "info  item=neo4j stored 3\n");
    lk_log_set_field(log_, "run", "r1", NULL);
    lk_log_write(log_, LK_ERROR, fields, 4, "x");
    assert_string_equal(text_line(),
                        "error run=r1 item=neo4j path=\"a b=\\\"c\\\\\\\"\" empty=\"\" x\n");
    lk_log_set_field(log_, "run", "r2", NULL);
    lk_log_write(log_, LK_WARN, NULL, 0, "x");
    assert_string_equal(text_line(), "warn  run=r2 x\n");
    lk_log_set_field(log_, "run", NULL, NULL);
    lk_log_set_field(log_, "run", NULL, NULL);
    lk_log_write(log_, LK_WARN, NULL, 0, "x");
    assert_string_equal(text_line(), "warn  x\n");
}

static void levels_filter(void **state)
{
    (void)state;
    lk_log_write(log_, LK_DEBUG, NULL, 0, "x");
    assert_string_equal(written(), "");
    lk_log_set_level(log_, LK_DEBUG);
    lk_log_write(log_, LK_DEBUG, NULL, 0, "x");
    assert_string_equal(text_line(), "debug x\n");
    lk_log_set_level(log_, LK_ERROR);
    lk_log_write(log_, LK_WARN, NULL, 0, "x");
    assert_string_equal(written(), "");
}

static void text_holds_no_control_characters(void **state)
{
    (void)state;
    lk_log_write(log_, LK_INFO, NULL, 0, "a\nb\r\tc\033[31md\x7f \xc2\x9b \xc3\xa4 \xff\\n");
    assert_string_equal(text_line(),
                        "info  a\\nb\\r\\tc\\x1b[31md\\x7f \\xc2\\x9b \xc3\xa4 \\xff\\n\n");
}

static void writes_json(void **state)
{
    const struct lk_field fields[] = {{"item", "a\"\\\b\f\n\r\t\001/"}, {"message", "m"}};

    (void)state;
    lk_log_set_json(log_, true);
    lk_log_set_field(log_, "run", "r1", NULL);
    lk_log_write(log_, LK_WARN, fields, 2, "%s", "x\ny");
    assert_string_equal(
        json_line(),
        "\"severity\":\"WARN\",\"run\":\"r1\",\"item\":"
        "\"a\\\"\\\\\\b\\f\\n\\r\\t\\u0001/\",\"message_\":\"m\",\"message\":\"x\\ny\"}\n");
    lk_log_set_field(log_, "item", "all", NULL); /* hidden by the line's own */
    lk_log_write(log_, LK_INFO, fields, 1, "x");
    assert_null(strstr(written(), "all"));
}

static void json_is_valid_for_any_bytes(void **state)
{
    static const char *const rows[][2] = {
        {"\xff", "\xef\xbf\xbd"},
        {"a\xc3(b", "a\xef\xbf\xbd(b"},
        {"\xe2\x82z", "\xef\xbf\xbdz"},
        {"\xf0\x9f\x98", "\xef\xbf\xbd"},
        {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xf0\x9f\x98\x80ok", "\xf0\x9f\x98\x80ok"},
        {"\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xe0\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
    };
    char expected[200];
    size_t i;

    (void)state;
    lk_log_set_json(log_, true);
    for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        lk_log_write(log_, LK_INFO, NULL, 0, "%s", rows[i][0]);
        snprintf(expected, sizeof expected, "\"severity\":\"INFO\",\"message\":\"%s\"}\n",
                 rows[i][1]);
        assert_string_equal(json_line(), expected);
    }
}

/* --- secrets --- */

#define SECRET "p\"a/s\\s w\xc3\xb6rd+?7"

static void expect_clean(const char *dirty, const char *expected)
{
    char copy[300];

    snprintf(copy, sizeof copy, "%s", dirty);
    lk_log_clean(log_, copy, sizeof copy);
    assert_string_equal(copy, expected);
}

static void takes_out_every_form(void **state)
{
    (void)state;
    assert_int_equal(lk_log_redact(log_, SECRET, strlen(SECRET), NULL), 0);
    expect_clean("is " SECRET " it", "is *** it");
    expect_clean(SECRET SECRET, "***");
    expect_clean("k=p%22a%2Fs%5Cs%20w%C3%B6rd%2B%3F7&x", "k=***&x");
    expect_clean("k=p%22a%2fs%5cs%20w%c3%b6rd%2b%3f7&x", "k=***&x");
    expect_clean("k=p%22a/s%5Cs%20w%C3%B6rd%2B%3F7", "k=***");
    expect_clean("k=p%22a%2Fs%5Cs+w%C3%B6rd%2B%3F7", "k=***");
    expect_clean("{\"k\":\"p\\\"a/s\\\\s w\xc3\xb6rd+?7\"}", "{\"k\":\"***\"}");
    expect_clean("{\"k\":\"p\\\"a\\/s\\\\s w\xc3\xb6rd+?7\"}", "{\"k\":\"***\"}");
    /* base64 of it alone, then behind 1, 2, 3 and 5 other bytes and with a tail */
    expect_clean("cCJhL3NccyB3w7ZyZCs/Nw==", "***==");
    expect_clean("cCJhL3NccyB3w7ZyZCs_Nw", "***");
    expect_clean("cCJhL3NccyB3w7ZyZCs/Nzp0YWls", "***p0YWls");
    expect_clean("dXAiYS9zXHMgd8O2cmQrPzc6dGFpbA==", "d***6dGFpbA==");
    expect_clean("YWJwImEvc1xzIHfDtnJkKz83OnRhaWw=", "YW***OnRhaWw=");
    expect_clean("Basic dXNlcjpwImEvc1xzIHfDtnJkKz83", "Basic dXNlcj***");
    expect_clean("nothing here: p\"a/s\\s", "nothing here: p\"a/s\\s");
}

static void overlapping_secrets_leave_nothing(void **state)
{
    (void)state;
    lk_log_redact(log_, "1234abcd", 8, NULL);
    lk_log_redact(log_, "abcd5678", 8, NULL);
    lk_log_redact(log_, "abcd", 4, NULL);
    expect_clean("x1234abcd5678y", "x***y");
    expect_clean("abcdabcd-abcd", "***-***");
    assert_int_equal(lk_log_redact(log_, "abc", 3, NULL), 0); /* too short to be one */
    expect_clean("abc", "abc");
}

static void lines_of_a_key_are_secrets(void **state)
{
    static const char key[] = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0\nAQEFAASC"
                              "BKcwggSjAgEA\n-----END PRIVATE KEY-----\n";

    (void)state;
    lk_log_redact(log_, key, sizeof key - 1, NULL);
    expect_clean("line MIIEvQIBADANBgkqhkiG9w0 read", "line *** read");
    expect_clean("-----BEGIN PRIVATE KEY-----", "-----BEGIN PRIVATE KEY-----");
}

static char host_message[100], host_json[400];
static int host_calls;

static void host_log(void *arg, enum lk_level level, const char *message, const char *json)
{
    assert_ptr_equal(arg, &host_calls);
    assert_int_equal(level, LK_INFO);
    if (host_calls++ == 0)
        lk_log_write(log_, LK_INFO, NULL, 0, "from inside"); /* no lock is held */
    snprintf(host_message, sizeof host_message, "%s", message);
    snprintf(host_json, sizeof host_json, "%s", json);
}

static void everything_that_goes_out_is_clean(void **state)
{
    const struct lk_field fields[] = {{"key", "say hunter22"}};

    (void)state;
    host_calls = 0;
    lk_log_redact(log_, "hunter22", 8, NULL);
    lk_log_set_field(log_, "run", "hunter22", NULL);
    lk_log_write(log_, LK_INFO, fields, 1, "it is %s!", "hunter22");
    assert_string_equal(text_line(), "info  run=*** key=\"say ***\" it is ***!\n");
    lk_log_set_function(log_, host_log, &host_calls);
    lk_log_set_fd(log_, -1);
    lk_log_write(log_, LK_INFO, fields, 1, "a\n%s", "hunter22");
    assert_int_equal(host_calls, 2);
    assert_string_equal(host_message, "a\n***");
    assert_null(strstr(host_json, "hunter22"));
    assert_non_null(strstr(host_json, "\"key\":\"say ***\",\"message\":\"a\\n***\"}"));
    assert_string_equal(written(), "");
}

static void long_messages_are_cut_after_cleaning(void **state)
{
    enum { LONG = 65530 };
    char *message = malloc(LONG + 100);

    (void)state;
    assert_non_null(message);
    memset(message, 'x', LONG);
    memcpy(message + LONG, "hunter22hunter22-hunter22", 26);
    lk_log_redact(log_, "hunter22", 8, NULL);
    lk_log_clean(log_, message, LONG + 100);
    assert_string_equal(message + LONG, "***-***");
    free(message);
}

/* --- readers --- */

static void fill_pipe(void)
{
    char block[4096] = {0};

    fcntl(fds[1], F_SETFL, O_NONBLOCK);
    while (write(fds[1], block, sizeof block) > 0)
        continue;
    fcntl(fds[1], F_SETFL, 0);
}

static void a_reader_that_stands_still_costs_a_second_in_all(void **state)
{
    struct timespec before, after;
    const char *at;
    double seconds;
    size_t got;
    int i;

    (void)state;
    fill_pipe();
    clock_gettime(CLOCK_MONOTONIC, &before);
    for (i = 0; i < 10; i++)
        lk_log_write(log_, LK_INFO, NULL, 0, "line %d", i);
    clock_gettime(CLOCK_MONOTONIC, &after);
    seconds =
        (double)(after.tv_sec - before.tv_sec) + (double)(after.tv_nsec - before.tv_nsec) / 1e9;
    assert_true(seconds > 0.9 && seconds < 2);
    while (read(fds[0], text, sizeof text) > 0)
        continue;
    lk_log_write(log_, LK_INFO, NULL, 0, "again");
    at = written();
    got = strcspn(at, "\n");
    assert_non_null(strstr(at, "warn  the reader of the log stood still: 10 lines dropped\n"));
    assert_non_null(strstr(at + got, "info  again\n"));
    assert_int_equal(fcntl(fds[1], F_GETFL) & O_NONBLOCK, 0);
}

/* A long line that stops half-way is finished before anything else is written. */
static void a_line_that_was_begun_is_finished(void **state)
{
    char *message = malloc(60001), *lines;
    size_t len;

    (void)state;
    assert_non_null(message);
    memset(message, 'x', 60000);
    message[60000] = '\0';
    lk_log_write(log_, LK_INFO, NULL, 0, "%s", message); /* fits into the pipe's 64 KiB */
    lk_log_write(log_, LK_INFO, NULL, 0, "%s", message); /* does not */
    lk_log_write(log_, LK_INFO, NULL, 0, "lost");
    lines = malloc(1 << 18);
    assert_non_null(lines);
    lines[0] = '\0';
    len = 0;
    for (int i = 0; i < 3; i++) {
        len += (size_t)snprintf(lines + len, (1 << 18) - len, "%s", written());
        lk_log_write(log_, LK_INFO, NULL, 0, "after %d", i);
    }
    snprintf(lines + len, (1 << 18) - len, "%s", written());
    /* Two whole long lines, the notice, then the rest, each line well-formed. */
    len = 0;
    for (char *line = lines; *line; line += strcspn(line, "\n") + 1, len++) {
        size_t n = strcspn(line, "\n");

        assert_int_equal(line[n], '\n');
        assert_int_equal(line[4], '-');
        if (len < 2)
            assert_int_equal(n, strlen("2026-01-02T03:04:05Z info  ") + 60000);
        if (len == 2)
            assert_non_null(strstr(line, "1 line dropped\n"));
    }
    assert_int_equal(len, 6);
    assert_null(strstr(lines, "lost"));
    free(lines);
    free(message);
}

static void a_closed_reader_is_no_error(void **state)
{
    struct timespec before, after;
    sigset_t pending;

    (void)state;
    close(fds[0]);
    signal(SIGPIPE, SIG_DFL); /* would end the program */
    clock_gettime(CLOCK_MONOTONIC, &before);
    lk_log_write(log_, LK_INFO, NULL, 0, "x");
    lk_log_write(log_, LK_INFO, NULL, 0, "x");
    clock_gettime(CLOCK_MONOTONIC, &after);
    assert_true(after.tv_sec - before.tv_sec <= 1 &&
                (after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1000000 <
                    700); /* nor is it waited for */
    sigpending(&pending);
    assert_false(sigismember(&pending, SIGPIPE));
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    lk_log_set_fd(log_, 999); /* not open at all */
    lk_log_write(log_, LK_INFO, NULL, 0, "x");
}

static void *write_many(void *arg)
{
    int i;

    for (i = 0; i < 200; i++) {
        const struct lk_field fields[] = {{"thread", arg}};

        lk_log_write(log_, LK_INFO, fields, 1, "number %d and some more text", i);
    }
    return NULL;
}

static void threads_do_not_mix_their_lines(void **state)
{
    pthread_t threads[3];
    char names[3][2] = {"a", "b", "c"};
    int i, lines = 0;
    const char *line;

    (void)state;
    for (i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, write_many, names[i]);
    for (i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    for (line = written(); *line; line += strcspn(line, "\n") + 1, lines++)
        assert_memory_equal(line + 20, " info  thread=", 14);
    assert_int_equal(lines, 600);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(writes_text),
        TEST(levels_filter),
        TEST(text_holds_no_control_characters),
        TEST(writes_json),
        TEST(json_is_valid_for_any_bytes),
        TEST(takes_out_every_form),
        TEST(overlapping_secrets_leave_nothing),
        TEST(lines_of_a_key_are_secrets),
        TEST(everything_that_goes_out_is_clean),
        TEST(long_messages_are_cut_after_cleaning),
        TEST(a_reader_that_stands_still_costs_a_second_in_all),
        TEST(a_line_that_was_begun_is_finished),
        TEST(a_closed_reader_is_no_error),
        TEST(threads_do_not_mix_their_lines),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
