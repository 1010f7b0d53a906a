/* SPDX-License-Identifier: MIT
 * verify.c - hashes and counts what passes and compares at the end.
 * Owns its input and the producer's side of its output. One stage thread, which blocks on both
 * streams. */
#include "verify.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { DEPTH = 4 };

struct verify {
    struct lk_stream *input, *output;
    struct lk_hasher *hasher; /* NULL: only counted */
    uint64_t bytes;
    unsigned char head[LK_BEGIN_LENGTH]; /* the first bytes */
    size_t head_len;
    struct lk_expected expected;
};

static int wrong_size(const struct verify *verify, const char *how, struct lk_error *err)
{
    return lk_error_set(err, LK_CORRUPT,
                        "%s is damaged: %s%" PRIu64 " bytes read, %" PRIu64 " expected",
                        verify->expected.name, how, verify->bytes, verify->expected.size);
}

static int compare(struct verify *verify, struct lk_error *err)
{
    unsigned char found[LK_DIGEST_MAX];
    char found_hex[2 * LK_DIGEST_MAX + 1], expected_hex[2 * LK_DIGEST_MAX + 1];

    if (verify->expected.size != LK_ANY_SIZE && verify->bytes != verify->expected.size)
        return wrong_size(verify, "", err);
    if (!verify->hasher)
        return 0;
    lk_hasher_final(verify->hasher, found);
    if (memcmp(found, verify->expected.sha256, sizeof verify->expected.sha256) == 0)
        return 0;
    lk_hex(found, sizeof verify->expected.sha256, found_hex);
    lk_hex(verify->expected.sha256, sizeof verify->expected.sha256, expected_hex);
    return lk_error_set(err, LK_CORRUPT, "%s is damaged: SHA-256 %s read, %s expected",
                        verify->expected.name, found_hex, expected_hex);
}

/* True as long as what is known of the beginning can still be one of the expected ones. */
static bool begins_well(const struct verify *verify, bool whole)
{
    const struct lk_expected *expected = &verify->expected;
    for (size_t i = 0; i < expected->begin_count; i++) {
        size_t len = expected->begins[i].len;
        if (whole && verify->head_len < len)
            continue;
        if (memcmp(verify->head, expected->begins[i].bytes,
                   len < verify->head_len ? len : verify->head_len) == 0)
            return true;
    }
    return expected->begin_count == 0;
}

/* Adds to the head what it has room for and compares; at the end with whole = true. */
static int check_begin(struct verify *verify, const struct lk_chunk *chunk, bool whole,
                       struct lk_error *err)
{
    char shown[LK_BEGIN_LENGTH + 1];
    size_t room = sizeof verify->head - verify->head_len;
    size_t n = chunk == NULL ? 0 : chunk->len < room ? chunk->len : room;

    if (n > 0)
        memcpy(verify->head + verify->head_len, chunk->data, n);
    verify->head_len += n;
    if (begins_well(verify, whole))
        return 0;
    for (size_t i = 0; i < verify->head_len; i++)
        shown[i] = verify->head[i] >= ' ' && verify->head[i] < 127 ? (char)verify->head[i] : '?';
    shown[verify->head_len] = '\0';
    return lk_error_set(err, LK_IO, "%s is not what is expected: it begins with '%s'",
                        verify->expected.name, shown);
}

static int pump(struct verify *verify, struct lk_error *err)
{
    struct lk_chunk *chunk;
    int rc;

    while ((rc = lk_stream_read(verify->input, &chunk, err)) == LK_STREAM_DATA) {
        verify->bytes += chunk->len;
        if (verify->bytes > verify->expected.size) {
            lk_chunk_unref(chunk);
            return wrong_size(verify, "at least ", err);
        }
        if (verify->expected.most && verify->bytes > verify->expected.most) {
            lk_chunk_unref(chunk);
            return lk_error_set(err, LK_CORRUPT,
                                "%s holds more than the %" PRIu64 " bytes that it may have",
                                verify->expected.name, verify->expected.most);
        }
        if (check_begin(verify, chunk, false, err) < 0) {
            lk_chunk_unref(chunk);
            return -1;
        }
        if (verify->hasher)
            lk_hasher_update(verify->hasher, chunk->data, chunk->len);
        if (lk_stream_write(verify->output, chunk, err) < 0)
            return -1;
    }
    if (rc == 0 && check_begin(verify, NULL, true, err) < 0)
        return -1;
    return rc < 0 ? rc : compare(verify, err);
}

static void drop(struct verify *verify)
{
    lk_stream_cancel(verify->input);
    lk_stream_unref(verify->input);
    lk_hasher_free(verify->hasher);
    free(verify);
}

static void run(void *arg)
{
    struct verify *verify = arg;
    struct lk_error err;
    int rc = pump(verify, &err);

    lk_stream_end(verify->output, rc < 0 ? &err : NULL);
    lk_stream_unref(verify->output);
    drop(verify);
}

static void cancel_input(void *arg)
{
    lk_stream_cancel(arg);
}

struct lk_stream *lk_stream_verify(struct lk_pool *pool, struct lk_stream *input,
                                   const struct lk_expected *expected, struct lk_error *err)
{
    struct verify *verify = calloc(1, sizeof *verify);

    if (!verify) {
        lk_error_set(err, LK_MEMORY, "no memory for a stage");
        lk_stream_cancel(input);
        lk_stream_unref(input);
        return NULL;
    }
    verify->input = input;
    verify->expected = *expected;
    if (expected->hashed && !(verify->hasher = lk_hasher_new(LK_SHA256, err)))
        goto failed;
    struct lk_stream *output = lk_stream_new(DEPTH, err);
    if (!output)
        goto failed;
    verify->output = output;
    lk_stream_on_cancel(output, cancel_input, input);
    if (lk_pool_stage(pool, "lunark-verify", run, verify, err) == 0)
        return output;
    lk_stream_on_cancel(output, NULL, NULL);
    lk_stream_unref(output);
    lk_stream_unref(output);
failed:
    drop(verify);
    return NULL;
}
