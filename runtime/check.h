/* SPDX-License-Identifier: MIT
 * check.h - reads an archive, or a part of one, and says what in it is damaged: each gzip member,
 * and each file against the index. Damage does not end it: it goes on behind.
 *
 * Three kinds of threads: one cuts the input into members, the pool's workers decompress and hash
 * them, one takes them in order, follows the files and compares them with the records of the index.
 * Where the members are is told by the index blocks that the caller gives (lk_check_block), in the
 * order of the file; where none is given, the members' own headers are followed. */
#ifndef LK_CHECK_H
#define LK_CHECK_H

#include "stream.h"

enum { LK_FINDINGS_MAX = 100000 };

struct lk_finding {
    struct lk_finding *next;
    uint64_t first, last; /* bytes of the file, inclusive */
    const char *message;  /* a literal */
    bool is_file;         /* path is that of a file in the archive */
    size_t path_len;
    char path[]; /* any bytes */
};

struct lk_check_options {
    uint64_t at;   /* where in the file the input begins */
    bool tar;      /* the data is a tar; else only the members are checked */
    bool sample;   /* the input is a part: only what the given blocks name is read, and files that
                      are not there as a whole are not compared */
    bool tolerant; /* a part of the index is known to be damaged: what is in no index is no
                      finding */
    bool hash;     /* the SHA-256 of all of the input is wanted */
    int in_flight; /* members being worked on at once */
};

struct lk_check_stats {
    uint64_t bytes;         /* of the file read */
    uint64_t members, raw;  /* data members whose checksum is right, and their data */
    uint64_t files;         /* regular files whose SHA-256 is that of the index */
    uint64_t entries;       /* records that were compared with the tar */
    uint64_t unchecked;     /* records with nothing to compare with: not in the sample, or behind
                               damage */
    uint64_t finding_count; /* more than are in the list when they are over LK_FINDINGS_MAX */
    struct lk_finding *findings;
    bool hashed;
    unsigned char sha256[32];
};

struct lk_check;

/* Takes over input, also when it fails. `news` is called, on any thread, once after each
 * lk_check_ask that returned 0. */
struct lk_check *lk_check_new(struct lk_pool *pool, struct lk_stream *input,
                              const struct lk_check_options *options, void (*news)(void *arg),
                              void *arg, struct lk_error *err);
/* An index member of the file at `at`, in the order of the file: the members of its table are in
 * the input, before it. Of a sample the input has only `rows` of them, from first_row on, and not
 * the block itself. -1 (LK_CORRUPT) for a block that can't be read; nothing is taken over. */
int lk_check_block(struct lk_check *check, const void *bytes, size_t len, uint64_t at,
                   uint32_t first_row, uint32_t rows, struct lk_error *err);
/* Up to this place in the file no block tells where the members are: their headers are followed. */
int lk_check_walk(struct lk_check *check, uint64_t until, struct lk_error *err);
/* No block follows: what is left is as after lk_check_walk. */
void lk_check_finish(struct lk_check *check);
/* LK_CHECK_MORE: it waits for blocks, or soon will. LK_CHECK_ENDED: see lk_check_result. 0: neither
 * yet, `news` will be called. */
enum { LK_CHECK_MORE = 1, LK_CHECK_ENDED = 2 };
int lk_check_ask(struct lk_check *check);
/* After LK_CHECK_ENDED: -1 when the input could not be read to its end, or memory ran out. */
int lk_check_result(struct lk_check *check, struct lk_check_stats **stats, struct lk_error *err);
/* So far, any thread. */
void lk_check_progress(struct lk_check *check, uint64_t *bytes, uint64_t *files);
void lk_check_cancel(struct lk_check *check); /* any thread */
/* `news` is not called any more after this; cancels. The threads drop their own references. */
void lk_check_unref(struct lk_check *check);

#endif
