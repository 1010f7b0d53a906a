/* SPDX-License-Identifier: MIT
 * cgroup.h - what the control groups of this process allow it, version 2 and version 1. The
 * process's own group and all groups above it count; the smallest limit wins. Any thread. */
#ifndef LK_CGROUP_H
#define LK_CGROUP_H

#include <stdint.h>

/* CPUs that the quota is worth, rounded up; 0 = no quota. root is put before /proc and before the
 * mount points: "" but in tests. */
int lk_cgroup_cpus(const char *root);
/* The memory limit in bytes; 0 = none. root: as above. */
uint64_t lk_cgroup_memory(const char *root);

#endif
