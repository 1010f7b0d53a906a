/* SPDX-License-Identifier: MIT
 * shared_fd.c - writing to a descriptor that other programs share, whose flags stay as they are.
 * Owns nothing. Any thread. */
#include "shared_fd.h"
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* write() without a SIGPIPE: one that it caused is taken back, one that was pending before stays.
 */
static ssize_t write_quietly(int fd, const char *data, size_t len)
{
    const struct timespec zero = {0, 0};
    sigset_t pipe_set, pending, before;

    sigemptyset(&pipe_set);
    sigaddset(&pipe_set, SIGPIPE);
    sigemptyset(&pending);
    sigpending(&pending);
    pthread_sigmask(SIG_BLOCK, &pipe_set, &before);
    ssize_t n = write(fd, data, len);
    int saved = errno;
    if (n < 0 && saved == EPIPE && !sigismember(&pending, SIGPIPE))
        while (sigtimedwait(&pipe_set, NULL, &zero) < 0 && errno == EINTR)
            continue;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = saved;
    return n;
}

ssize_t lk_write_piece(int fd, const char *data, size_t len)
{
    size_t piece = len < PIPE_BUF ? len : PIPE_BUF;
    ssize_t n = send(fd, data, piece, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n >= 0 || (errno != ENOTSOCK && errno != EOPNOTSUPP))
        return n;
    return write_quietly(fd, data, piece);
}

int lk_write_shared(int fd, const char *data, size_t len, bool *stalled, struct lk_error *err)
{
    while (len > 0) {
        struct pollfd pfd = {.fd = fd, .events = POLLOUT};
        int ready = poll(&pfd, 1, *stalled ? 0 : 1000);
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready == 0) {
            *stalled = true;
            return lk_error_set(err, LK_IO, "descriptor %d: reader stands still, %zu bytes dropped",
                                fd, len);
        }
        ssize_t n = ready < 0 ? -1 : lk_write_piece(fd, data, len);
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
