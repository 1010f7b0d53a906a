/* SPDX-License-Identifier: MIT
 * trouble.c - preloaded into the command by the model test: a clock that stands still, and
 * something that happens before the Nth change of files.
 *
 * LUNARK_TEST_CLOCK=SECONDS       the real-time clock; the monotonic one goes on
 * LUNARK_TEST_TROUBLE=N:sSIGNAL   this signal before the Nth change
 * LUNARK_TEST_TROUBLE=N:eERRNO    the Nth change that needs room on the disk fails, and all such
 * after it
 *
 * So a run is killed between any two steps, and a disk is full at any of them, again and again in
 * the same place. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static long long clock_seconds = -1;
static long trouble_at, trouble_value;
static char trouble_kind;
static atomic_long changes;

__attribute__((constructor)) static void read_environment(void)
{
    const char *text = getenv("LUNARK_TEST_CLOCK");
    if (text != NULL)
        sscanf(text, "%lld", &clock_seconds);
    text = getenv("LUNARK_TEST_TROUBLE");
    if (text == NULL || sscanf(text, "%ld:%c%ld", &trouble_at, &trouble_kind, &trouble_value) != 3)
        trouble_at = 0;
}

/* A change; true when it fails. */
static int change(int needs_room)
{
    if (trouble_at == 0 || (trouble_kind == 'e' && !needs_room))
        return 0;
    long now = atomic_fetch_add(&changes, 1) + 1;
    if (trouble_kind == 's' && now == trouble_at)
        kill(getpid(), (int)trouble_value);
    if (trouble_kind != 'e' || now < trouble_at)
        return 0;
    errno = (int)trouble_value;
    return 1;
}

/* The function of the library below. */
#define REAL(name)                                                                                 \
    static __typeof__(&name) real;                                                                 \
    if (real == NULL)                                                                              \
    real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

#define WRAP(room, type, name, parameters, arguments)                                              \
    type name parameters                                                                           \
    {                                                                                              \
        REAL(name);                                                                                \
        return change(room) ? -1 : real arguments;                                                 \
    }

WRAP(1, ssize_t, pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at))
WRAP(1, int, ftruncate, (int fd, off_t size), (fd, size))
WRAP(1, int, mkdir, (const char *path, mode_t mode), (path, mode))
WRAP(1, int, mkdirat, (int at, const char *path, mode_t mode), (at, path, mode))
WRAP(1, int, link, (const char *old, const char *path), (old, path))
WRAP(1, int, symlinkat, (const char *target, int at, const char *path), (target, at, path))
WRAP(1, int, linkat, (int from, const char *old, int to, const char *path, int flags),
     (from, old, to, path, flags))
WRAP(1, int, mknodat, (int at, const char *path, mode_t mode, dev_t device),
     (at, path, mode, device))
WRAP(0, int, fsync, (int fd), (fd))
WRAP(0, int, unlink, (const char *path), (path))
WRAP(0, int, unlinkat, (int at, const char *path, int flags), (at, path, flags))
WRAP(0, int, rmdir, (const char *path), (path))
WRAP(0, int, rename, (const char *old, const char *path), (old, path))
WRAP(0, int, renameat, (int from, const char *old, int to, const char *path), (from, old, to, path))
WRAP(0, int, renameat2, (int from, const char *old, int to, const char *path, unsigned int flags),
     (from, old, to, path, flags))
WRAP(0, int, fchmod, (int fd, mode_t mode), (fd, mode))
WRAP(0, int, futimens, (int fd, const struct timespec times[2]), (fd, times))
WRAP(0, int, utimensat, (int at, const char *path, const struct timespec times[2], int flags),
     (at, path, times, flags))

int openat(int at, const char *path, int flags, ...)
{
    REAL(openat);
    va_list more;
    va_start(more, flags);
    mode_t mode = (flags & O_CREAT) ? va_arg(more, mode_t) : 0;
    va_end(more);
    if ((flags & O_CREAT) && change(1))
        return -1;
    return real(at, path, flags, mode);
}

int open(const char *path, int flags, ...)
{
    REAL(open);
    va_list more;
    va_start(more, flags);
    mode_t mode = (flags & O_CREAT) ? va_arg(more, mode_t) : 0;
    va_end(more);
    if ((flags & O_CREAT) && change(1))
        return -1;
    return real(path, flags, mode);
}

int clock_gettime(clockid_t id, struct timespec *now)
{
    REAL(clock_gettime);
    if (id != CLOCK_REALTIME || clock_seconds < 0)
        return real(id, now);
    now->tv_sec = (time_t)clock_seconds;
    now->tv_nsec = 0;
    return 0;
}
