/* SPDX-License-Identifier: MIT
 * main.c - the command: a client of lunark.h that runs the embedded scripts/lunark/cli.lua.
 *
 * Links nothing: the library is loaded once it is needed, because loading what it depends on takes
 * longer than answering --version may. Handles TERM and INT, which the library never does: the
 * first cancels, the next one cuts the cleanup short, the third ends the process. As process 1 it
 * stays behind as an init - passes signals on, reaps orphans - and a child does the work. Needs no
 * HOME, no passwd entry, no writable directory. */
#include "lunark.h"
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef LUNARK_VERSION
#define LUNARK_VERSION "0.1.0"
#endif

#define LIBRARY "liblunark.so.0"
#define DIRS_MAX 64
#define CLEANUP_SECONDS 15 /* after a signal; then it is cut short */
#define LAST_SECONDS 4     /* after that the process ends */

static const char start[] = "return require('lunark.cli').main({...})";

/* The part of lunark.h that the command uses. */
static struct {
    struct lunark *(*create)(const struct lunark_options *, struct lunark_error *);
    void (*destroy)(struct lunark *);
    int (*run_string)(struct lunark *, const char *, const char *, const char *const *,
                      struct lunark_error *);
    const char *(*result)(const struct lunark *);
    void (*cancel)(struct lunark *);
} api;

static struct lunark *runtime;
static volatile sig_atomic_t signal_number; /* the first one that asked for the end */
static volatile sig_atomic_t signal_count;

/* --- the library --- */

static void *open_library(void)
{
    static const char *const places[] = {"/" LIBRARY, "/../lib/" LIBRARY, "/../lib64/" LIBRARY};
    char self[PATH_MAX];
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    if (len > 0) {
        self[len] = '\0';
        char *slash = strrchr(self, '/');
        for (size_t i = 0; slash != NULL && i < sizeof places / sizeof *places; i++) {
            char path[PATH_MAX + 32];
            *slash = '\0';
            snprintf(path, sizeof path, "%s%s", self, places[i]);
            if (access(path, R_OK) == 0)
                return dlopen(path, RTLD_NOW | RTLD_GLOBAL);
        }
    }
    return dlopen(LIBRARY, RTLD_NOW | RTLD_GLOBAL);
}

/* POSIX lets a function's address go through void *; ISO C has no cast for it. */
static int find(void *library, const char *name, void *function)
{
    void *address = dlsym(library, name);
    memcpy(function, &address, sizeof address);
    return address == NULL ? -1 : 0;
}

static int load_library(void)
{
    void *library = open_library();
    if (library == NULL || find(library, "lunark_new", &api.create) < 0 ||
        find(library, "lunark_free", &api.destroy) < 0 ||
        find(library, "lunark_run_string", &api.run_string) < 0 ||
        find(library, "lunark_result", &api.result) < 0 ||
        find(library, "lunark_cancel", &api.cancel) < 0) {
        const char *why = dlerror();
        fprintf(stderr, "lunark: cannot load %s: %s\n", LIBRARY, why != NULL ? why : "not found");
        return -1;
    }
    return 0;
}

/* --- script directories --- */

static char dir_text[DIRS_MAX][PATH_MAX];
static const char *dirs[DIRS_MAX + 1];
static size_t dir_count;

static void add_dir(const char *path, size_t len, const char *rest)
{
    if (len == 0 || path[0] != '/' || dir_count == DIRS_MAX)
        return; /* a relative one would mean the current directory */
    snprintf(dir_text[dir_count], PATH_MAX, "%.*s%s", (int)len, path, rest);
    dirs[dir_count] = dir_text[dir_count];
    dir_count++;
}

static void find_dirs(void)
{
    const char *path = getenv("LUNARK_PATH");
    while (path != NULL && *path != '\0') {
        size_t len = strcspn(path, ":");
        add_dir(path, len, "");
        path += len + (path[len] == ':');
    }
    const char *config = getenv("XDG_CONFIG_HOME");
    const char *home = getenv("HOME");
    if (config != NULL && config[0] != '\0')
        add_dir(config, strlen(config), "/lunark");
    else if (home != NULL)
        add_dir(home, strlen(home), "/.config/lunark");
    add_dir("/etc/lunark", strlen("/etc/lunark"), "");
}

/* --- signals --- */

static void on_signal(int number)
{
    int saved = errno;
    if (number != SIGALRM && signal_number == 0)
        signal_number = number;
    signal_count++;
    if (signal_count > 2)
        _exit(128 + (signal_number != 0 ? signal_number : SIGTERM));
    alarm(signal_count == 1 ? CLEANUP_SECONDS : LAST_SECONDS);
    if (runtime != NULL)
        api.cancel(runtime);
    errno = saved;
}

static void handle_signals(void)
{
    static const int numbers[] = {SIGTERM, SIGINT, SIGHUP, SIGALRM};
    struct sigaction action = {.sa_handler = on_signal};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        struct sigaction before;
        /* What was ignored when we were started (nohup) stays so. */
        if (sigaction(numbers[i], NULL, &before) == 0 && before.sa_handler == SIG_IGN &&
            numbers[i] == SIGHUP)
            continue;
        sigaction(numbers[i], &action, NULL);
    }
    signal(SIGPIPE, SIG_IGN);
    /* An ignored SIGCHLD, which is inherited, would lose the exit status of every program. */
    signal(SIGCHLD, SIG_DFL);
}

/* --- process 1 --- */

static int status_of(int status)
{
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* Reaps all there is; true and *result once the worker has ended. */
static int reap(pid_t worker, int *result)
{
    int status, ended = 0;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid == worker) {
            *result = status_of(status);
            ended = 1;
        }
    }
    return ended;
}

/* The end of process 1 ends everything in its namespace. */
static int be_init(pid_t worker, const sigset_t *set)
{
    time_t limit = 0;
    for (;;) {
        siginfo_t info;
        struct timespec second = {1, 0};
        int number = sigtimedwait(set, &info, &second);
        int result = 0;
        if (reap(worker, &result))
            return result;
        if (limit != 0 && time(NULL) > limit)
            kill(worker, SIGKILL);
        if (number < 0 || number == SIGCHLD)
            continue;
        if (limit == 0 && number != SIGHUP)
            limit = time(NULL) + CLEANUP_SECONDS + LAST_SECONDS;
        if (info.si_code != SI_KERNEL) /* a terminal has sent it to the worker as well */
            kill(worker, number);
    }
}

/* In process 1: never returns there. In others, and in the worker, returns. */
static void split_init(void)
{
    sigset_t set, before;
    if (getpid() != 1)
        return;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, &before);
    pid_t worker = fork();
    if (worker == 0) {
        sigprocmask(SIG_SETMASK, &before, NULL);
        return;
    }
    if (worker < 0) {
        fprintf(stderr, "lunark: cannot start a process: %s\n", strerror(errno));
        _exit(1);
    }
    _exit(be_init(worker, &set));
}

/* --- main --- */

/* A descriptor 0, 1 or 2 that is closed would be taken by the next file, and then written to as the
 * log. */
static void fill_descriptors(void)
{
    int fd;
    do
        fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    while (fd >= 0 && fd <= 2 && fcntl(fd, F_SETFD, 0) == 0);
    if (fd > 2)
        close(fd);
}

static int exit_status(const char *result)
{
    long status = result == NULL ? 0 : strtol(result, NULL, 10);
    if (signal_number != 0 && status != 0)
        return 128 + signal_number;
    return status < 0 || status > 255 ? 1 : (int)status;
}

static int report(const struct lunark_error *error)
{
    if (signal_number == 0) {
        fprintf(stderr, "lunark: %s\n", error->message);
        if (error->hint[0] != '\0')
            fprintf(stderr, "hint: %s\n", error->hint);
    }
    if (signal_number != 0)
        return 128 + signal_number;
    return strcmp(error->kind, "usage") == 0 || strcmp(error->kind, "denied") == 0 ? 2 : 1;
}

static int run(char **argv)
{
    struct lunark_error error;
    struct lunark_options options = {
        .size = sizeof options, .flags = LUNARK_FULL_LUA | LUNARK_PRINT, .script_dirs = dirs};
    find_dirs();
    if (load_library() < 0)
        return 1;
    handle_signals();
    struct lunark *made = api.create(&options, &error);
    if (made == NULL)
        return report(&error);
    runtime = made;
    if (signal_count > 0) /* came before there was anything to cancel */
        api.cancel(runtime);
    int status;
    if (api.run_string(runtime, "lunark", start, (const char *const *)argv + 1, &error) < 0)
        status = report(&error);
    else
        status = exit_status(api.result(runtime));
    runtime = NULL;
    api.destroy(made);
    return status;
}

int main(int argc, char **argv)
{
    fill_descriptors();
    if (argc == 2 && (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0))
        return puts("lunark " LUNARK_VERSION) < 0 || fflush(stdout) != 0;
    split_init();
    return run(argv);
}
