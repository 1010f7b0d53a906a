/* SPDX-License-Identifier: MIT
 * check_internal.h - what the parts of checking share: check.c (start, end, workers), check_plan.c
 * (what is to be read), check_read.c (the feeder), check_match.c (what follows files and compares
 * them). */
#ifndef LK_CHECK_INTERNAL_H
#define LK_CHECK_INTERNAL_H

#include "check.h"
#include "crypto.h"
#include "engine.h"
#include "member.h"
#include "ring.h"
#include "tar_scan.h"
#include "tools.h"
#include <pthread.h>

#define LK_NO_ENTRY UINT32_MAX

/* An entry of the tar as it was read. */
struct lk_check_entry {
    struct lk_tar_item item;
    bool hashed;
    uint32_t damage; /* 1 + the number of the damage that its data is in; 0 = none */
    unsigned char sha256[32];
};

/* The entries that begin in one member, in order. */
struct lk_check_batch {
    struct lk_check_batch *next;
    uint64_t member;     /* its offset in the file */
    uint64_t last;       /* its last byte */
    size_t count, taken; /* entries; those that were compared */
    struct lk_check_entry entries[];
};

/* What is to be read next: the table of a block, and then the block. */
struct lk_check_row {
    uint64_t at;
    uint32_t size, raw;
    uint32_t entry_at; /* where in its data the first entry begins, if a record of the same block
                          says so; else LK_NO_ENTRY */
};

struct lk_check_plan {
    struct lk_check_plan *next;
    uint64_t at;   /* of the block; without bytes: to where the members' own headers are followed */
    bool read;     /* the block itself is in the input, behind its members */
    size_t count;  /* rows */
    size_t len;    /* bytes of the block */
    uint64_t last; /* member that the previous record named; while it is made */
    unsigned char *bytes;
    struct lk_check_row *rows;
};

enum lk_check_kind { LK_CHECK_DATA, LK_CHECK_BLOCK, LK_CHECK_NOTE };

struct lk_check_slot {
    struct lk_job job;
    struct lk_check *check;
    size_t number;
    enum lk_check_kind kind;
    uint64_t at, last; /* bytes of the file */
    /* DATA */
    struct lk_check_row row;
    size_t header; /* bytes before the deflate body */
    bool starts;   /* the member says that an entry begins with it */
    bool in_table;
    struct lk_chunk *in, *out;
    struct lk_check_batch *batch; /* what the worker found from parsed_at on */
    size_t parsed_at;
    bool bad_tar;
    /* BLOCK: an index member; NOTE: a finding */
    unsigned char *block;
    size_t block_len;
    const char *message; /* NULL = it is whole */
    int rc;              /* -1: not its fault; err */
    struct lk_error err;
};

struct lk_check_damage {
    uint64_t first, last;
    const char *message;
};

/* The state of the thread that takes slots in order. */
struct lk_match {
    struct lk_check_stats stats;
    struct lk_finding *last_finding;
    bool tar, tolerant;
    bool synced;  /* it is known where in a member an entry begins */
    bool indexed; /* a block was read */
    struct lk_check_batch *first, *last;
    size_t pending; /* entries in them */
    /* The large file that goes on in the next member: the last entry of the last batch. */
    bool large;
    uint64_t large_left, large_pad;
    struct lk_hasher *hasher;
    struct lk_check_damage *damages; /* ascending; of what is not damaged but could not be followed
                                        the message is NULL */
    size_t damage_count, damage_room;
    int rc;
    struct lk_error err;
};

/* The input, with the bytes that were looked at. */
struct lk_check_source {
    struct lk_chunk *chunk;
    size_t at;
    bool ended;
    uint64_t offset; /* in the file, of what comes next */
    unsigned char ahead[LK_MEMBER_HEADER];
    size_t ahead_len;
};

struct lk_check {
    int refs; /* atomic */
    struct lk_pool *pool;
    struct lk_check_options options;
    struct lk_stream *origin; /* what was given */
    struct lk_stream *stream; /* the same, or behind the hash */
    struct lk_slabs *in_slabs, *out_slabs;
    struct lk_hasher *whole;
    unsigned char sha256[32];

    struct lk_tools tools;
    pthread_mutex_t mutex; /* of what follows */
    pthread_cond_t change;
    void (*news)(void *arg);
    void *arg;
    bool asked, finished, stopped, ended;
    struct lk_check_plan *plans, *last_plan;
    int plan_count;

    uint64_t bytes, files; /* atomic: so far */
    struct lk_check_source source;
    int feed_rc;
    struct lk_error feed_err;
    struct lk_match match;
    struct lk_ring ring;
    struct lk_check_slot slots[];
};

/* check.c */
/* Feeder: the next slot, and giving it to a worker or on. */
struct lk_check_slot *lk_check_claim(struct lk_check *check, enum lk_check_kind kind);
int lk_check_submit(struct lk_check *check, struct lk_check_slot *slot, struct lk_error *err);
void lk_check_pass(struct lk_check *check, struct lk_check_slot *slot);
/* Any thread: the entries from `at` on, with digests of the files that are whole; false when there
 * is something that is no tar. *batch is NULL when there are none; errors in *err. */
bool lk_check_parse(const struct lk_chunk *data, size_t at, uint64_t member,
                    struct lk_hasher *hasher, struct lk_check_batch **batch, int *rc,
                    struct lk_error *err);

/* check_plan.c */
/* Feeder: the next plan, which the caller frees; NULL when none follows, or it was cancelled. */
struct lk_check_plan *lk_check_next_plan(struct lk_check *check);
void lk_check_plan_free(struct lk_check_plan *plan);
/* With the mutex: calls `news` if somebody asked. */
void lk_check_tell(struct lk_check *check);

/* check_read.c */
void lk_check_feed(void *arg);

/* check_match.c */
int lk_match_init(struct lk_match *match, const struct lk_check_options *options,
                  struct lk_error *err);
void lk_match_slot(struct lk_match *match, struct lk_check_slot *slot);
void lk_match_end(struct lk_match *match);
void lk_match_free(struct lk_match *match);

#endif
