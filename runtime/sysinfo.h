/* SPDX-License-Identifier: MIT
 * sysinfo.h - facts about the surroundings, and writing to a descriptor that others share. Any
 * thread. */
#ifndef LK_SYSINFO_H
#define LK_SYSINFO_H

#include "error.h"
#include <stddef.h>
#include <stdint.h>

/* The memory limit of the process's cgroup and those above it (v2 and v1), in bytes; 0 when there
 * is none. */
uint64_t lk_memory_limit(void);
/* Columns of the terminal at fd; 80 when it is none. */
int lk_columns(int fd);
/* Writes without O_NONBLOCK on a descriptor that others share, never with SIGPIPE. Gives up after a
 * second without progress (at once while *stalled, which it keeps up to date) and says how much was
 * dropped. */
int lk_write_shared(int fd, const char *data, size_t len, bool *stalled, struct lk_error *err);

#endif
