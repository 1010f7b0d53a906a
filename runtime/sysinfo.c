/* SPDX-License-Identifier: MIT
 * sysinfo.c - facts about the surroundings, and writing to a descriptor that others share.
 * Owns nothing. Any thread. */
#include "sysinfo.h"
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* Values at or above this mean "no limit": v1 writes the largest page count it can hold. */
#define UNLIMITED ((uint64_t)1 << 60)

static uint64_t read_limit(const char *path)
{
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return 0;
    char text[64];
    uint64_t value = 0;
    if (fgets(text, sizeof text, file) != NULL && text[0] >= '0' && text[0] <= '9')
        value = strtoull(text, NULL, 10);
    fclose(file);
    return value >= UNLIMITED ? 0 : value;
}

/* The smallest limit from `group` up to the root of the hierarchy. */
static uint64_t limit_of(const char *mount, char *group, const char *name)
{
    uint64_t least = 0;
    for (;;) {
        char path[PATH_MAX];
        snprintf(path, sizeof path, "%s%s/%s", mount, strcmp(group, "/") == 0 ? "" : group, name);
        uint64_t value = read_limit(path);
        if (value != 0 && (least == 0 || value < least))
            least = value;
        char *slash = strrchr(group, '/');
        if (slash == NULL || group[0] == '\0')
            return least;
        *slash = '\0';
    }
}

static uint64_t limit_of_line(char *line)
{
    line[strcspn(line, "\n")] = '\0';
    if (strncmp(line, "0::", 3) == 0)
        return limit_of("/sys/fs/cgroup", line + 3, "memory.max");
    char *controller = strstr(line, ":memory:");
    if (controller == NULL)
        return 0;
    return limit_of("/sys/fs/cgroup/memory", controller + strlen(":memory:"),
                    "memory.limit_in_bytes");
}

uint64_t lk_memory_limit(void)
{
    FILE *file = fopen("/proc/self/cgroup", "re");
    if (file == NULL)
        return 0;
    uint64_t least = 0;
    char line[PATH_MAX];
    while (fgets(line, sizeof line, file) != NULL) {
        uint64_t value = limit_of_line(line);
        if (value != 0 && (least == 0 || value < least))
            least = value;
    }
    fclose(file);
    return least;
}

int lk_columns(int fd)
{
    struct winsize size;
    if (ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        return size.ws_col;
    return 80;
}

/* One piece, at most PIPE_BUF, which poll has promised to take; a socket promises less. */
static ssize_t write_piece(int fd, const char *data, size_t len)
{
    size_t piece = len > PIPE_BUF ? PIPE_BUF : len;
    ssize_t n = send(fd, data, piece, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n >= 0 || (errno != ENOTSOCK && errno != EOPNOTSUPP))
        return n;
    return write(fd, data, piece);
}

static int write_all(int fd, const char *data, size_t len, bool *stalled, struct lk_error *err)
{
    while (len > 0) {
        struct pollfd pfd = {.fd = fd, .events = POLLOUT};
        int ready = poll(&pfd, 1, *stalled ? 0 : 1000);
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready == 0) {
            *stalled = true;
            lk_error_set(err, LK_IO, "descriptor %d: reader stands still, %zu bytes dropped", fd,
                         len);
            return -1;
        }
        ssize_t n = ready < 0 ? -1 : write_piece(fd, data, len);
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (n < 0)
            return lk_error_errno(err, errno, "cannot write to descriptor %d", fd);
        *stalled = false;
        data += n;
        len -= (size_t)n;
    }
    return 0;
}

int lk_write_shared(int fd, const char *data, size_t len, bool *stalled, struct lk_error *err)
{
    sigset_t pipe_only, before, waiting;
    sigemptyset(&pipe_only);
    sigaddset(&pipe_only, SIGPIPE);
    sigpending(&waiting);
    pthread_sigmask(SIG_BLOCK, &pipe_only, &before);
    int result = write_all(fd, data, len, stalled, err);
    if (!sigismember(&waiting, SIGPIPE)) {
        struct timespec now = {0, 0};
        while (sigtimedwait(&pipe_only, NULL, &now) < 0 && errno == EINTR)
            ;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return result;
}
