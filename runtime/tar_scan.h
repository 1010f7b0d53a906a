/* SPDX-License-Identifier: MIT
 * tar_scan.h - steps from entry to entry of a tar in memory, as tar.c writes it: for comparing it
 * with an index. What it does not know (GNU's long names, sparse files, global headers) it refuses.
 * Any thread. */
#ifndef LK_TAR_SCAN_H
#define LK_TAR_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lk_tar_item {
    size_t header_at;   /* offset of its first block, extended header included */
    size_t data_at;     /* offset of its data */
    uint64_t size;      /* of its data, which may go on behind what is there */
    uint64_t path_hash; /* lk_path_hash of its path */
    char type;
};

/* Of the first 4,096 bytes of a path, without the slash at the end. */
uint64_t lk_path_hash(const char *path, size_t len);

/* The entry whose first block is at `at`: 1, 0 when nothing but zeros follows (or nothing), -1 when
 * none begins there. A header must be there as a whole. */
int lk_tar_scan(const unsigned char *data, size_t len, size_t at, struct lk_tar_item *item);

#endif
