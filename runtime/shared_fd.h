/* SPDX-License-Identifier: MIT
 * shared_fd.h - writing to a descriptor that other programs share: standard output, a log. It is
 * never made non-blocking, which the others would get too, and no write raises SIGPIPE. Any thread.
 */
#ifndef LK_SHARED_FD_H
#define LK_SHARED_FD_H

#include "error.h"
#include <stddef.h>
#include <sys/types.h>

/* Writes at most what poll has promised that the descriptor takes; as write(). */
ssize_t lk_write_piece(int fd, const char *data, size_t len);
/* Writes everything. Gives up after a second without progress (at once while *stalled, which it
 * keeps up to date) and says how much was dropped. */
int lk_write_shared(int fd, const char *data, size_t len, bool *stalled, struct lk_error *err);

#endif
