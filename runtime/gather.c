/* SPDX-License-Identifier: MIT
 * gather.c - one stream out of pieces that come in any order.
 * Owns the chunks that wait for their turn and the producer's side of the stream. Never blocks:
 * where the stream is full it goes on when the stream says that there is room. Loop thread only. */
#include "gather.h"

#include <stdlib.h>

enum { DEPTH = 2 };

struct piece {
    struct lk_chunk *first, **last;
    bool done;
};

struct lk_gather {
    struct lk_stream *output, *offer; /* offer: the reader's side until it is taken */
    struct lk_loop *loop;
    void (*moved)(void *arg);
    void *arg;
    uint64_t turn; /* number of the piece that is being passed on */
    bool ending, ended, cancelled;
    size_t width;
    struct piece pieces[];
};

static void pump(void *arg);

struct lk_gather *lk_gather_new(struct lk_loop *loop, size_t width, void (*moved)(void *arg),
                                void *arg, struct lk_error *err)
{
    struct lk_gather *g = calloc(1, sizeof *g + width * sizeof(struct piece));
    if (!g) {
        lk_error_set(err, LK_MEMORY, "no memory to join %zu pieces", width);
        return NULL;
    }
    g->output = lk_stream_new(DEPTH, err);
    if (!g->output) {
        free(g);
        return NULL;
    }
    g->offer = g->output;
    g->loop = loop;
    g->moved = moved;
    g->arg = arg;
    g->width = width;
    for (size_t i = 0; i < width; i++)
        g->pieces[i].last = &g->pieces[i].first;
    lk_stream_on_space(g->output, loop, pump, g);
    return g;
}

static struct lk_chunk *pop(struct piece *piece)
{
    struct lk_chunk *chunk = piece->first;
    piece->first = chunk->next;
    if (!piece->first)
        piece->last = &piece->first;
    chunk->next = NULL;
    return chunk;
}

static void drop_chunks(struct lk_gather *g)
{
    for (size_t i = 0; i < g->width; i++)
        while (g->pieces[i].first)
            lk_chunk_unref(pop(&g->pieces[i]));
}

void lk_gather_free(struct lk_gather *g)
{
    if (!g)
        return;
    lk_stream_on_space(g->output, g->loop, NULL, NULL);
    drop_chunks(g);
    if (!g->ended) {
        struct lk_error err;
        lk_error_set(&err, LK_CANCELLED, "what fills the stream was closed");
        lk_stream_end(g->output, &err);
    }
    if (g->offer)
        lk_stream_unref(g->offer);
    lk_stream_unref(g->output);
    free(g);
}

struct lk_stream *lk_gather_stream(struct lk_gather *g)
{
    struct lk_stream *stream = g->offer;
    g->offer = NULL;
    return stream;
}

static struct piece *piece_of(struct lk_gather *g, uint64_t number)
{
    return &g->pieces[number % g->width];
}

/* Passes on what the piece whose turn it is has: true when all of it has gone. */
static bool pass_on(struct lk_gather *g, struct piece *piece)
{
    while (piece->first) {
        struct lk_chunk *chunk = pop(piece);
        int result = lk_stream_try_write(g->output, chunk, NULL);
        if (result == LK_STREAM_AGAIN) {
            chunk->next = piece->first;
            piece->first = chunk;
            if (!chunk->next)
                piece->last = &chunk->next;
            return false;
        }
        if (result < 0) {
            g->cancelled = true;
            drop_chunks(g);
            return false;
        }
    }
    return piece->done;
}

static void pump(void *arg)
{
    struct lk_gather *g = arg;
    bool moved = false;
    struct piece *piece = piece_of(g, g->turn);
    while (!g->cancelled && pass_on(g, piece)) {
        piece->done = false;
        piece = piece_of(g, ++g->turn);
        moved = true;
    }
    if (!g->cancelled && g->ending && !g->ended && !piece->first) {
        g->ended = true;
        lk_stream_end(g->output, NULL);
    }
    if ((moved || g->cancelled) && g->moved)
        g->moved(g->arg);
}

int lk_gather_room(const struct lk_gather *g, uint64_t number, struct lk_error *err)
{
    if (g->cancelled || g->ended)
        return lk_error_set(err, LK_CANCELLED, "%s",
                            g->cancelled ? "the reader of the stream cancelled it"
                                         : "the stream has ended");
    return number - g->turn < g->width;
}

int lk_gather_put(struct lk_gather *g, uint64_t number, struct lk_chunk *chunk,
                  struct lk_error *err)
{
    int room = lk_gather_room(g, number, err);
    if (room <= 0) {
        lk_chunk_unref(chunk);
        return room < 0 ? -1 : lk_error_set(err, LK_USAGE, "it is not the turn of that piece");
    }
    struct piece *piece = piece_of(g, number);
    chunk->next = NULL;
    *piece->last = chunk;
    piece->last = &chunk->next;
    if (number == g->turn)
        pump(g);
    return 0;
}

void lk_gather_done(struct lk_gather *g, uint64_t number)
{
    if (lk_gather_room(g, number, NULL) != 1)
        return;
    piece_of(g, number)->done = true;
    if (number == g->turn)
        pump(g);
}

void lk_gather_end(struct lk_gather *g, const struct lk_error *err)
{
    if (g->ended)
        return;
    if (!err) {
        g->ending = true;
        pump(g);
        return;
    }
    g->ended = true;
    drop_chunks(g);
    lk_stream_end(g->output, err);
    if (g->moved)
        g->moved(g->arg);
}
