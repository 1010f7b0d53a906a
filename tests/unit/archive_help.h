/* SPDX-License-Identifier: MIT
 * archive_help.h - for the tests of archives: a work directory, other programs, archives into
 * files. */
#ifndef ARCHIVE_HELP_H
#define ARCHIVE_HELP_H

#include "archiver.h"
#include "gzip.h"
#include "index.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

struct world {
    char dir[64]; /* absolute */
    struct lk_pool *pool;
};

/* Runs a shell command in the work directory; $D is it, $T the comparing script. Its exit status.
 */
static inline int shell(const char *dir, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static inline int shell(const char *dir, const char *format, ...)
{
    char command[8192], full[10240], tools[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(command, sizeof command, format, args);
    va_end(args);
    const char *slash = strrchr(__FILE__, '/');
    char cwd[512];
    assert_non_null(getcwd(cwd, sizeof cwd));
    snprintf(tools, sizeof tools, "%s%s%.*s/archive_tools.py", *__FILE__ == '/' ? "" : cwd,
             *__FILE__ == '/' ? "" : "/", slash ? (int)(slash - __FILE__) : 1,
             slash ? __FILE__ : ".");
    snprintf(full, sizeof full, "export D='%s' T='%s' LC_ALL=C.UTF-8; cd \"$D\" && %s", dir, tools,
             command);
    int status = -1;
    pid_t pid = fork();
    if (pid == 0) {
        execlp("sh", "sh", "-c", full, (char *)NULL);
        _exit(127);
    }
    assert_true(pid > 0);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

#define must(dir, ...) assert_int_equal(shell(dir, __VA_ARGS__), 0)

static inline int world_new(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    snprintf(w->dir, sizeof w->dir, "/tmp/lunark-test-XXXXXX");
    if (!mkdtemp(w->dir) || !(w->pool = lk_pool_new(2, NULL)))
        return -1;
    *state = w;
    return 0;
}

static inline int world_free(void **state)
{
    struct world *w = *state;
    lk_pool_free(w->pool);
    int result = shell("/", "chmod -R u+rwX '%s'; rm -rf '%s'", w->dir, w->dir);
    free(w);
    return result;
}

static inline void write_file(const char *dir, const char *name, const void *data, size_t len)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, len), (ssize_t)len);
    close(fd);
}

/* Reads the rest of a stream into fd (-1: nowhere). What the last read said. */
static inline int copy_to(struct lk_stream *stream, int fd, struct lk_error *err)
{
    struct lk_chunk *chunk;
    int result;
    while ((result = lk_stream_read(stream, &chunk, err)) == LK_STREAM_DATA) {
        if (fd >= 0)
            assert_int_equal(write(fd, chunk->data, chunk->len), (ssize_t)chunk->len);
        lk_chunk_unref(chunk);
    }
    return result;
}

/* Archives into DIR/file. The handle, for its results. */
static inline struct lk_archive *
archive_to(struct world *w, const struct lk_archive_options *options, const char *file)
{
    char path[4096];
    struct lk_error err = {.kind = LK_OK};
    struct lk_archive *archive = lk_archive_new(options, &err);
    if (!archive)
        fail_msg("%s", err.message);
    struct lk_stream *stream = lk_archive_stream(archive, w->pool, &err);
    assert_non_null(stream);
    snprintf(path, sizeof path, "%s/%s", w->dir, file);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    assert_int_equal(copy_to(stream, fd, &err), LK_STREAM_DONE);
    close(fd);
    lk_stream_unref(stream);
    return archive;
}

/* Options for one root beneath the work directory, as member `name`. */
struct one_root {
    char path[4096];
    struct lk_archive_root root;
    struct lk_archive_options options;
};

static inline struct lk_archive_options *one_root(struct one_root *one, struct world *w,
                                                  const char *name)
{
    snprintf(one->path, sizeof one->path, "%s/%s", w->dir, name);
    one->root = (struct lk_archive_root){.path = one->path, .name = name};
    one->options =
        (struct lk_archive_options){.roots = &one->root, .root_count = 1, .in_flight = 4};
    return &one->options;
}

/* --- extraction --- */

struct extraction {
    sem_t done;
    struct lk_error err; /* kind LK_OK = whole */
    struct lk_extract *extract;
};

static inline void extraction_done(void *arg, const struct lk_error *err)
{
    struct extraction *e = arg;
    if (err)
        e->err = *err;
    sem_post(&e->done);
}

/* Extracts a stream into DIR/into, as the options say (NULL = the defaults), and waits. The kind of
 * its error; the rest is in *e. */
static inline enum lk_kind extract_stream_with(struct world *w, struct lk_stream *stream,
                                               const char *into,
                                               const struct lk_extract_options *given,
                                               struct extraction *e)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", w->dir, into);
    struct lk_extract_options options = {.devices = true};
    if (given)
        options = *given;
    options.into = path;
    options.gunzip_in_flight = 3;
    memset(e, 0, sizeof *e);
    sem_init(&e->done, 0, 0);
    e->extract = lk_extract_new(w->pool, stream, &options, extraction_done, e, &e->err);
    if (e->extract)
        while (sem_wait(&e->done))
            ;
    sem_destroy(&e->done);
    return e->err.kind;
}

static inline enum lk_kind extract_stream(struct world *w, struct lk_stream *stream,
                                          const char *into, bool overwrite, struct extraction *e)
{
    struct lk_extract_options options = {
        .existing = overwrite ? LK_EXISTING_REPLACE : LK_EXISTING_ERROR, .devices = true};
    return extract_stream_with(w, stream, into, &options, e);
}

static inline struct lk_stream *stream_of_file(struct world *w, const char *file)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", w->dir, file);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    struct lk_stream *stream = lk_stream_of_fd(w->pool, fd, (size_t)100 << 10, NULL, NULL, NULL);
    assert_non_null(stream);
    return stream;
}

static inline enum lk_kind extract_file(struct world *w, const char *file, const char *into,
                                        bool overwrite, struct extraction *e)
{
    return extract_stream(w, stream_of_file(w, file), into, overwrite, e);
}

static inline const struct lk_warning *find_warning(const struct lk_archive_stats *stats,
                                                    const char *path_end)
{
    for (const struct lk_warning *warning = stats->warnings; warning; warning = warning->next) {
        size_t len = strlen(warning->path), end = strlen(path_end);
        if (len >= end && strcmp(warning->path + len - end, path_end) == 0)
            return warning;
    }
    return NULL;
}

#endif
