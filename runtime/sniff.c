/* SPDX-License-Identifier: MIT
 * sniff.c - looks at the first bytes of a stream and puts gunzip behind it where they say so.
 * What was read to look is passed on by a stage that hands the chunks from input to a stream of its
 * own; nothing is copied. The look happens on the caller's stage thread. */
#include "sniff.h"
#include "gzip.h"
#include <stdlib.h>

enum { DEPTH = 2 };

struct relay {
    struct lk_stream *input, *output;
    struct lk_chunk *first; /* NULL when the input has ended already */
};

static void stop(void *arg)
{
    struct relay *relay = arg;
    lk_stream_cancel(relay->input);
}

static void relay_stage(void *arg)
{
    struct relay *relay = arg;
    struct lk_error err;
    struct lk_chunk *chunk = relay->first;
    int result = chunk ? LK_STREAM_DATA : lk_stream_read(relay->input, &chunk, &err);
    while (result == LK_STREAM_DATA) {
        if (lk_stream_write(relay->output, chunk, &err))
            result = -1;
        else
            result = lk_stream_read(relay->input, &chunk, &err);
    }
    lk_stream_end(relay->output, result < 0 ? &err : NULL);
    if (result < 0)
        lk_stream_cancel(relay->input);
    lk_stream_unref(relay->output);
    lk_stream_unref(relay->input);
    free(relay);
}

/* The first chunk with something in it; NULL at the end of input, failed or whole: reading again
 * says which. */
static struct lk_chunk *first_chunk(struct lk_stream *input)
{
    struct lk_chunk *chunk;
    while (lk_stream_read(input, &chunk, NULL) == LK_STREAM_DATA) {
        if (chunk->len)
            return chunk;
        lk_chunk_unref(chunk);
    }
    return NULL;
}

struct lk_stream *lk_sniff(struct lk_pool *pool, struct lk_stream *input, int in_flight,
                           struct lk_error *err)
{
    struct lk_stream *output = lk_stream_new(DEPTH, err);
    struct relay *relay = calloc(1, sizeof *relay);
    if (!output || !relay) {
        lk_error_set(err, LK_MEMORY, "no memory for a stream");
        goto failed;
    }
    *relay = (struct relay){.input = input, .output = output, .first = first_chunk(input)};
    /* A single byte decides too: no tar begins with 0x1f. */
    bool gzip = relay->first && relay->first->data[0] == 0x1f &&
                (relay->first->len == 1 || relay->first->data[1] == 0x8b);
    lk_stream_on_cancel(output, stop, relay);
    if (lk_pool_stage(pool, "relay", relay_stage, relay, err)) {
        lk_chunk_unref(relay->first);
        goto failed;
    }
    return gzip ? lk_gunzip(pool, output, in_flight, err) : output;
failed:
    if (output) {
        lk_stream_end(output, NULL);
        lk_stream_unref(output);
        lk_stream_unref(output);
    }
    free(relay);
    lk_stream_cancel(input);
    lk_stream_unref(input);
    return NULL;
}
