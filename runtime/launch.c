/* SPDX-License-Identifier: MIT
 * launch.c - start a program: find it, resolve its user, and clone with its descriptors in place.
 * Owns nothing after it has returned. Never changes signal handlers, directory or environment of
 * this process; its signal mask only while it clones. Knows no Lua, no loop. Any thread.
 *
 * posix_spawn can't switch users and fork copies page tables, so this is clone() with the memory
 * shared and the calling thread suspended until exec. The child therefore runs on a stack of its
 * own, makes raw system calls only (glibc's setuid signals all threads of the process, which are
 * the parent's), and touches nothing of the parent's but errno. It reports through a pipe, because
 * not every place where this runs really shares the memory. */
#include "launch.h"
#include "buf.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <poll.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHILD_STACK ((size_t)64 << 10)
#define REPORT_FD 3     /* where the child keeps the pipe to the parent */
#define KERNEL_SIGSET 8 /* bytes of the kernel's signal set */
#define REPORT_MS 10000 /* how long to wait for a child whose clone did not suspend us */

/* Sanitizers would instrument the child, which runs in their parent's memory but is another
 * process. */
#define CHILD_CODE __attribute__((noinline, no_sanitize("address", "thread", "undefined")))

/* --- who --- */

static bool parse_id(const char *text, unsigned long *id)
{
    unsigned long value = 0;
    if (*text == '\0')
        return false;
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9')
            return false;
        value = value * 10 + (unsigned long)(*text - '0');
        if (value >= UINT32_MAX) /* the last one means "don't change" to the kernel */
            return false;
    }
    *id = value;
    return true;
}

/* Calls getpwnam_r or getpwuid_r with a buffer as large as it needs; *found says if there is an
 * entry. */
static int read_passwd(const char *user, struct passwd *entry, char **buffer, bool *found,
                       struct lk_error *err)
{
    struct passwd *result = NULL;
    unsigned long id;
    bool number = parse_id(user, &id);

    for (size_t size = 1024; size <= (size_t)1 << 20; size *= 4) {
        char *grown = realloc(*buffer, size);
        if (grown == NULL)
            return lk_error_set(err, LK_MEMORY, "user '%s': out of memory", user);
        *buffer = grown;
        int code = number ? getpwuid_r((uid_t)id, entry, grown, size, &result)
                          : getpwnam_r(user, entry, grown, size, &result);
        if (code == ERANGE)
            continue;
        /* Some user databases answer ENOENT and the like for "no such user". */
        if (code != 0 && code != ENOENT && code != ESRCH)
            return lk_error_errno(err, code, "user '%s': the user database can't be read", user);
        *found = result != NULL;
        return 0;
    }
    return lk_error_set(err, LK_IO, "user '%s': its entry in the user database is too long", user);
}

static int find_user(const char *user, bool want_groups, struct lk_identity *identity,
                     struct lk_error *err)
{
    struct passwd entry;
    char *buffer = NULL;
    bool found = false;
    unsigned long id;
    int result = -1;

    if (read_passwd(user, &entry, &buffer, &found, err) != 0)
        goto done;
    if (!found) {
        if (!parse_id(user, &id)) {
            lk_error_set(err, LK_NOT_FOUND, "user '%s': no such user", user);
            goto done;
        }
        identity->uid = (uid_t)id;
        identity->gid = (gid_t)id;
        result = 0;
        goto done;
    }
    identity->uid = entry.pw_uid;
    identity->gid = entry.pw_gid;
    identity->group_count = 0;
    if (want_groups) {
        int count = 0;
        getgrouplist(entry.pw_name, entry.pw_gid, NULL, &count);
        identity->groups = calloc((size_t)count + 1, sizeof *identity->groups);
        if (identity->groups == NULL) {
            lk_error_set(err, LK_MEMORY, "user '%s': out of memory", user);
            goto done;
        }
        if (getgrouplist(entry.pw_name, entry.pw_gid, identity->groups, &count) < 0) {
            lk_error_set(err, LK_IO, "user '%s': its groups changed while they were read", user);
            goto done;
        }
        identity->group_count = count;
    }
    result = 0;
done:
    free(buffer);
    return result;
}

static int find_group(const char *group, gid_t *gid, struct lk_error *err)
{
    struct group entry, *result = NULL;
    char *buffer = NULL;
    unsigned long id;

    if (parse_id(group, &id)) {
        *gid = (gid_t)id;
        return 0;
    }
    for (size_t size = 1024; size <= (size_t)4 << 20; size *= 4) {
        char *grown = realloc(buffer, size);
        if (grown == NULL)
            break;
        buffer = grown;
        if (getgrnam_r(group, &entry, buffer, size, &result) != ERANGE)
            break;
    }
    if (result != NULL)
        *gid = entry.gr_gid;
    free(buffer);
    return result != NULL ? 0 : lk_error_set(err, LK_NOT_FOUND, "group '%s': no such group", group);
}

int lk_identity_find(const char *user, const char *group, struct lk_identity *identity,
                     struct lk_error *err)
{
    memset(identity, 0, sizeof *identity);
    if (user == NULL && group == NULL)
        return 0;
    identity->uid = geteuid();
    identity->gid = getegid();
    if ((user != NULL && find_user(user, group == NULL, identity, err) != 0) ||
        (group != NULL && find_group(group, &identity->gid, err) != 0)) {
        lk_identity_free(identity);
        return -1;
    }
    if (identity->groups == NULL) {
        identity->groups = calloc(1, sizeof *identity->groups);
        if (identity->groups == NULL)
            return lk_error_set(err, LK_MEMORY, "user and group: out of memory");
        identity->groups[0] = identity->gid;
        identity->group_count = 1;
    }
    uid_t ruid, euid, suid;
    gid_t rgid, egid, sgid;
    getresuid(&ruid, &euid, &suid);
    getresgid(&rgid, &egid, &sgid);
    identity->change = euid == 0 || ruid != identity->uid || euid != identity->uid ||
                       suid != identity->uid || rgid != identity->gid || egid != identity->gid ||
                       sgid != identity->gid;
    return 0;
}

void lk_identity_free(struct lk_identity *identity)
{
    free(identity->groups);
    identity->groups = NULL;
}

/* --- which program --- */

/* 0 if it is a file that can be executed, else the errno that says why not. */
static int candidate(const char *path)
{
    struct stat st;
    if (stat(path, &st) !=
        0) /* a directory that can't be searched says nothing about the program */
        return errno != EACCES ? errno : ENOENT;
    if (S_ISDIR(st.st_mode))
        return EISDIR;
    if (!S_ISREG(st.st_mode) || faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) != 0)
        return EACCES;
    return 0;
}

static void add_reason(struct lk_buf *reasons, const char *path, int why)
{
    const char *text = why == EACCES   ? "is not executable"
                       : why == EISDIR ? "is a directory"
                                       : strerrordesc_np(why);
    /* What does not fit is left out: the first candidates say enough. */
    lk_buf_printf(reasons, NULL, "%s%s %s", reasons->len > 0 ? ", " : "", path,
                  text != NULL ? text : "can't be used");
}

static int not_found(const char *name, const char *search, struct lk_buf *reasons,
                     struct lk_error *err)
{
    if (reasons->len > 0) {
        lk_error_set(err, LK_DENIED, "program '%s' can't be run: %s", name, reasons->data);
        return -1;
    }
    lk_error_set(err, LK_NOT_FOUND, "program '%s' not found in PATH (%.500s)", name, search);
    return lk_error_hint(err, "install it, add its directory to PATH, or give its absolute path");
}

int lk_spawn_find(const char *name, char **path, struct lk_error *err)
{
    char file[PATH_MAX];
    struct lk_buf reasons;
    const char *search = getenv("PATH"), *found = NULL;
    int result;

    if (*name == '\0')
        return lk_error_set(err, LK_USAGE, "program '': expected a name or a path");
    if (search == NULL || *search == '\0')
        search = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    if (strchr(name, '/') !=
        NULL) /* exec itself says what is wrong with it, seen from its directory */
        found = name;
    lk_buf_init(&reasons, 900);
    for (const char *from = search; from != NULL && found == NULL;) {
        const char *colon = strchr(from, ':');
        int len = (int)(colon != NULL ? (size_t)(colon - from) : strnlen(from, PATH_MAX));
        int size = snprintf(file, sizeof file, "%.*s/%s", len, from, name);
        int why =
            *from != '/' || size < 0 || (size_t)size >= sizeof file ? ENOENT : candidate(file);
        if (why == 0)
            found = file;
        else if (why != ENOENT && why != ENOTDIR)
            add_reason(&reasons, file, why);
        from = colon != NULL ? colon + 1 : NULL;
    }
    if (found == NULL)
        result = not_found(name, search, &reasons, err);
    else if ((*path = strdup(found)) == NULL)
        result = lk_error_set(err, LK_MEMORY, "program '%s': out of memory", name);
    else
        result = 0;
    lk_buf_free(&reasons);
    return result;
}

/* --- with which environment --- */

/* The length of NAME in "NAME=value" or "NAME". */
static size_t name_length(const char *entry)
{
    return strcspn(entry, "=");
}

static bool same_name(const char *a, const char *b)
{
    size_t len = name_length(a);
    return len == name_length(b) && memcmp(a, b, len) == 0;
}

/* True if a change after `index` is about the same name as `entry`. */
static bool overridden(const char *entry, const char *const *changes, size_t index, size_t count)
{
    for (size_t i = index; i < count; i++) {
        if (same_name(entry, changes[i]))
            return true;
    }
    return false;
}

char **lk_spawn_env(const char *const *changes, size_t count, bool clean, struct lk_error *err)
{
    size_t inherited = 0, bytes = 0, kept = 0;
    while (!clean && environ != NULL && environ[inherited] != NULL)
        bytes += strlen(environ[inherited++]) + 1;
    for (size_t i = 0; i < count; i++)
        bytes += strlen(changes[i]) + 1;

    char **env = malloc((inherited + count + 1) * sizeof *env + bytes);
    if (env == NULL) {
        lk_error_set(err, LK_MEMORY, "environment of a program: out of memory");
        return NULL;
    }
    char *text = (char *)(env + inherited + count + 1);
    for (size_t i = 0; i < inherited + count; i++) {
        const char *entry = i < inherited ? environ[i] : changes[i - inherited];
        size_t len = strlen(entry) + 1;
        if (i >= inherited && entry[name_length(entry)] != '=')
            continue;
        if (overridden(entry, changes, i < inherited ? 0 : i - inherited + 1, count))
            continue;
        env[kept++] = memcpy(text, entry, len);
        text += len;
    }
    env[kept] = NULL;
    return env;
}

/* --- the child --- */

enum step { STEP_SESSION, STEP_FD, STEP_GROUPS, STEP_GID, STEP_UID, STEP_CWD, STEP_EXEC };

struct report {
    int step;
    int code; /* errno */
};

struct child {
    const struct lk_spawn *spawn;
    int report; /* the pipe to the parent, 3 or above */
};

/* Handlers of the parent must not run in the child, and a program expects defaults: only an ignored
 * SIGHUP stays ignored, which is how nohup works. The structure is the kernel's: the handler comes
 * first, the rest is zero. */
CHILD_CODE static void default_signals(void)
{
    unsigned long action[8], old[8];
    for (int i = 0; i < 8; i++)
        action[i] = old[i] = 0;
    for (int number = 1; number <= 64; number++) {
        if (number == SIGHUP && syscall(SYS_rt_sigaction, number, NULL, old, KERNEL_SIGSET) == 0 &&
            old[0] == (unsigned long)(uintptr_t)SIG_IGN)
            continue;
        syscall(SYS_rt_sigaction, number, action, NULL, KERNEL_SIGSET);
    }
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, action, NULL, KERNEL_SIGSET);
}

/* Closes everything from `first` up on kernels without close_range, by the list that /proc gives.
 */
CHILD_CODE static int close_listed(int first)
{
    struct {
        uint64_t ino, off;
        unsigned short size;
        unsigned char type;
        char name[];
    } * entry;
    _Alignas(8) char list[1024];
    long size;
    int dir =
        (int)syscall(SYS_openat, AT_FDCWD, "/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);

    if (dir < 0)
        return -1;
    while ((size = syscall(SYS_getdents64, dir, list, sizeof list)) > 0) {
        for (long at = 0; at < size; at += entry->size) {
            int fd = 0;
            entry = (void *)(list + at);
            for (const char *p = entry->name; *p >= '0' && *p <= '9'; p++)
                fd = fd * 10 + (*p - '0');
            if (fd >= first && fd != dir)
                syscall(SYS_close, fd);
        }
    }
    syscall(SYS_close, dir);
    return (int)size;
}

/* Leaves 0 to 2 and the report, as 3. Writes nothing to *child: it is the parent's. */
CHILD_CODE static int place_descriptors(const struct child *child)
{
    for (int i = 0; i < 3; i++) {
        int fd = child->spawn->fd[i];
        if (fd >= 0 && syscall(SYS_dup3, fd, i, 0) < 0)
            return -1;
    }
    if (child->report != REPORT_FD && syscall(SYS_dup3, child->report, REPORT_FD, O_CLOEXEC) < 0)
        return -1;
    if (syscall(SYS_close_range, REPORT_FD + 1, ~0u, 0) == 0)
        return 0;
    return close_listed(REPORT_FD + 1);
}

CHILD_CODE static int prepare(const struct child *child)
{
    const struct lk_spawn *spawn = child->spawn;
    const struct lk_identity *identity = spawn->identity;

    default_signals();
    if (syscall(SYS_setsid) < 0)
        return STEP_SESSION;
    if (place_descriptors(child) != 0)
        return STEP_FD;
    if (identity != NULL && identity->change) {
        if (syscall(SYS_setgroups, identity->group_count, identity->groups) != 0)
            return STEP_GROUPS;
        if (syscall(SYS_setresgid, identity->gid, identity->gid, identity->gid) != 0)
            return STEP_GID;
        if (syscall(SYS_setresuid, identity->uid, identity->uid, identity->uid) != 0)
            return STEP_UID;
    }
    if (spawn->cwd != NULL && syscall(SYS_chdir, spawn->cwd) != 0)
        return STEP_CWD;
    syscall(SYS_execve, spawn->path, spawn->argv, spawn->env);
    return STEP_EXEC;
}

CHILD_CODE static int run_child(void *arg)
{
    const struct child *child = arg;
    struct report report;

    report.step = prepare(child);
    report.code = errno;
    /* Which of the two it is by then depends on the step that failed. */
    if (syscall(SYS_write, child->report, &report, sizeof report) < 0)
        syscall(SYS_write, REPORT_FD, &report, sizeof report);
    syscall(SYS_exit_group, 127); /* not _exit: sanitizers put their own work into that */
    return 127;
}

/* --- the parent --- */

/* A script whose interpreter is missing gives ENOENT, which would read as if the script were. */
static int exec_error(const struct lk_spawn *spawn, int code, struct lk_error *err)
{
    if (code == ENOENT && spawn->cwd == NULL && access(spawn->path, F_OK) == 0) {
        lk_error_set(
            err, LK_NOT_FOUND,
            "program '%s' can't be started: the interpreter or loader that it names is missing",
            spawn->path);
        return lk_error_hint(err, "look at its first line: `head -1 %.200s`", spawn->path);
    }
    if (code == ENOEXEC) {
        lk_error_set(err, LK_IO, "program '%s' can't be started: not a program", spawn->path);
        return lk_error_hint(err, "a script needs a first line such as #!/bin/sh");
    }
    if (code == E2BIG)
        return lk_error_set(err, LK_USAGE,
                            "program '%s' can't be started: arguments and environment are too long",
                            spawn->path);
    return lk_error_errno(err, code, "program '%s' can't be started", spawn->path);
}

static int child_error(const struct lk_spawn *spawn, const struct report *report,
                       struct lk_error *err)
{
    const struct lk_identity *identity = spawn->identity;
    switch (report->step) {
    case STEP_EXEC:
        return exec_error(spawn, report->code, err);
    case STEP_CWD:
        return lk_error_errno(err, report->code, "program '%s': directory '%s'", spawn->path,
                              spawn->cwd);
    case STEP_GROUPS:
    case STEP_GID:
    case STEP_UID:
        lk_error_errno(err, report->code, "program '%s' can't be run as uid %lu gid %lu",
                       spawn->path, (unsigned long)identity->uid, (unsigned long)identity->gid);
        return lk_error_hint(err, "only root may switch users; this process runs as uid %lu",
                             (unsigned long)geteuid());
    default:
        return lk_error_errno(err, report->code, "program '%s': its descriptors", spawn->path);
    }
}

/* ThreadSanitizer's own clone() does not know memory shared with another process; there a plain
 * fork does. */
#if defined(__SANITIZE_THREAD__)
#define PLAIN_FORK 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define PLAIN_FORK 1
#endif
#endif
#ifndef PLAIN_FORK
#define PLAIN_FORK 0
#endif

/* The clone itself, with every signal blocked: a handler of the parent must not run in the child.
 */
CHILD_CODE static pid_t clone_child(struct child *child, void *stack, int *pidfd)
{
    uint64_t all = ~(uint64_t)0, before = 0;
    pid_t pid;

    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &before, KERNEL_SIGSET);
    if (PLAIN_FORK) {
        pid = (pid_t)syscall(SYS_clone, CLONE_PIDFD | SIGCHLD, NULL, pidfd, NULL, NULL);
        if (pid == 0)
            run_child(child);
    } else {
        pid = clone(run_child, (char *)stack + CHILD_STACK,
                    CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, child, pidfd);
    }
    int saved = errno;
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, KERNEL_SIGSET);
    errno = saved;
    return pid;
}

/* What the child wrote, if anything. It has run exec or ended by now, so the pipe is readable or at
 * its end, unless a process that the host forked at the wrong moment has it open too, or clone did
 * not suspend us (valgrind). */
static bool read_report(int fd, int pidfd, struct report *report)
{
    struct pollfd both[2] = {{.fd = fd, .events = POLLIN}, {.fd = pidfd, .events = POLLIN}};
    while (poll(both, 2, REPORT_MS) < 0 && errno == EINTR)
        ;
    return read(fd, report, sizeof *report) == (ssize_t)sizeof *report;
}

int lk_spawn(const struct lk_spawn *spawn, pid_t *pid, int *pidfd, struct lk_error *err)
{
    int pipe_fd[2] = {-1, -1}, result = -1;
    struct child child = {.spawn = spawn, .report = -1};
    struct report report;
    void *stack = mmap(NULL, CHILD_STACK, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);

    if (stack == MAP_FAILED || pipe2(pipe_fd, O_CLOEXEC | O_NONBLOCK) != 0) {
        lk_error_errno(err, errno, "program '%s' can't be started", spawn->path);
        goto done;
    }
    child.report = fcntl(pipe_fd[1], F_DUPFD_CLOEXEC, 3);
    if (child.report < 0) {
        lk_error_errno(err, errno, "program '%s' can't be started", spawn->path);
        goto done;
    }
    *pid = clone_child(&child, stack, pidfd);
    if (*pid < 0) {
        lk_error_errno(err, errno, "program '%s' can't be started", spawn->path);
        goto done;
    }
    close(pipe_fd[1]);
    close(child.report);
    pipe_fd[1] = child.report = -1;
    if (read_report(pipe_fd[0], *pidfd, &report)) {
        siginfo_t info;
        while (waitid(P_PIDFD, (id_t)*pidfd, &info, WEXITED) != 0 && errno == EINTR)
            ;
        close(*pidfd);
        child_error(spawn, &report, err);
        goto done;
    }
    result = 0;
done:
    if (stack != MAP_FAILED)
        munmap(stack, CHILD_STACK);
    for (int i = 0; i < 2; i++) {
        if (pipe_fd[i] >= 0)
            close(pipe_fd[i]);
    }
    if (child.report >= 0)
        close(child.report);
    return result;
}
