/* SPDX-License-Identifier: MIT
 * cgroup.h - how many CPUs the control groups of this process allow it, version 2 and version 1.
 * The process's own group and all groups above it count; the smallest limit wins. Any thread. */
#ifndef LK_CGROUP_H
#define LK_CGROUP_H

/* CPUs that the quota is worth, rounded up; 0 = no quota. root is put before /proc and before the
 * mount points: "" but in tests. */
int lk_cgroup_cpus(const char *root);

#endif
