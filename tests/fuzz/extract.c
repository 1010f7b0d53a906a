/* SPDX-License-Identifier: MIT
 * extract.c - any bytes as a tar that is extracted into a directory. What lies beside the directory
 * must stay as it is: nothing new, nothing gone, no other content, mode, time or number of links.
 *
 * Input: a byte of options, a byte that says how many components are taken off and how long the
 * first chunk is, then the tar. The mutator
 * also makes the checksums of headers right. Everything is written as nobody where root runs it,
 * and removed after each input. */
#include "fuzz.h"

#include "archiver.h"
#include <dirent.h>
#include <fcntl.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/fsuid.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    EXISTING = 3, /* enum lk_existing */
    PREPARED = 4, /* the directory has a file, a directory and links out of it already */
    GUNZIP = 8,
    OWNER_SHIFT = 4, /* two bits */
    UMASK = 64,
    MAPPED = 128,
    FIRST = 63, /* of the second byte; the other two bits are `strip` */
    FILE_MAX = 64 << 20,
    BYTES_MAX = 8 << 20,
    NOBODY = 65534,
    BLOCK = 512
};

static const char outside_text[] = "nothing may change this\n";
static char scratch[] = "/tmp/lunark-fuzz-XXXXXX";
static char into_path[64];
static int scratch_fd, into_fd;
static struct stat outside_stat;

/* --- the directory --- */

/* Removes what is in a directory. Trees may be deeper than there are descriptors, so whatever is in
 * a directory below moves up before that is removed. */
static void clear(int top)
{
    static unsigned long number;
    bool found;

    do {
        found = false;
        DIR *dir = fdopendir(openat(top, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        must(dir);
        for (struct dirent *e; (e = readdir(dir));) {
            if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
                continue;
            found = true;
            if (unlinkat(top, e->d_name, 0) == 0 || unlinkat(top, e->d_name, AT_REMOVEDIR) == 0)
                continue;
            fchmodat(top, e->d_name, 0700, 0);
            DIR *below = fdopendir(openat(top, e->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
            must(below);
            for (struct dirent *b; (b = readdir(below));) {
                char name[32];
                if (strcmp(b->d_name, ".") == 0 || strcmp(b->d_name, "..") == 0)
                    continue;
                snprintf(name, sizeof name, "..%lu", number++);
                fchmodat(dirfd(below), b->d_name, 0700, AT_SYMLINK_NOFOLLOW);
                must(renameat(dirfd(below), b->d_name, top, name) == 0);
            }
            closedir(below);
            must(unlinkat(top, e->d_name, AT_REMOVEDIR) == 0);
        }
        closedir(dir);
    } while (found);
}

static void make_file(int dir, const char *name, const char *text)
{
    int fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    must(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    must(geteuid() != 0 || fchown(fd, NOBODY, NOBODY) == 0);
    close(fd);
}

static void leave(void)
{
    clear(scratch_fd);
    rmdir(scratch);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    struct rlimit limit = {FILE_MAX, FILE_MAX};

    (void)argc;
    (void)argv;
    must(mkdtemp(scratch));
    scratch_fd = open(scratch, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    must(scratch_fd >= 0 && mkdirat(scratch_fd, "into", 0700) == 0);
    must(geteuid() != 0 || (chown(scratch, NOBODY, NOBODY) == 0 &&
                            fchownat(scratch_fd, "into", NOBODY, NOBODY, 0) == 0));
    into_fd = openat(scratch_fd, "into", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    must(into_fd >= 0);
    snprintf(into_path, sizeof into_path, "%s/into", scratch);
    make_file(scratch_fd, "outside", outside_text);
    must(fstatat(scratch_fd, "outside", &outside_stat, AT_SYMLINK_NOFOLLOW) == 0);
    atexit(leave);
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &limit);
    return 0;
}

static void prepare(void)
{
    make_file(into_fd, "a", "was here");
    must(symlinkat("../outside", into_fd, "l") == 0);
    must(symlinkat("..", into_fd, "u") == 0);
    must(mkdirat(into_fd, "d", 0755) == 0);
    must(geteuid() != 0 || fchownat(into_fd, "d", NOBODY, NOBODY, 0) == 0);
}

static void check_outside(void)
{
    struct stat st;
    char text[sizeof outside_text + 1];
    int entries = 0;

    DIR *dir = fdopendir(openat(scratch_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    must(dir);
    while (readdir(dir))
        entries++;
    closedir(dir);
    must(entries == 4); /* with . and .. */
    must(fstatat(scratch_fd, "outside", &st, AT_SYMLINK_NOFOLLOW) == 0);
    must(st.st_ino == outside_stat.st_ino && st.st_mode == outside_stat.st_mode);
    must(st.st_size == outside_stat.st_size && st.st_nlink == 1);
    must(st.st_uid == outside_stat.st_uid && st.st_gid == outside_stat.st_gid);
    must(st.st_ctim.tv_sec == outside_stat.st_ctim.tv_sec);
    must(st.st_ctim.tv_nsec == outside_stat.st_ctim.tv_nsec);
    int fd = openat(scratch_fd, "outside", O_RDONLY | O_CLOEXEC);
    must(read(fd, text, sizeof text) == sizeof outside_text - 1);
    close(fd);
    must(memcmp(text, outside_text, sizeof outside_text - 1) == 0);
}

/* --- one input --- */

struct outcome {
    sem_t done;
    struct lk_error err;
};

static void done(void *arg, const struct lk_error *err)
{
    struct outcome *outcome = arg;
    if (err)
        outcome->err = *err;
    sem_post(&outcome->done);
}

static void extract(const uint8_t *data, size_t size, unsigned bits, unsigned first)
{
    struct outcome outcome = {.err = {.kind = LK_OK}};
    static const struct lk_path_map map[] = {{"k", "m/n"}, {"d/f", "u/x"}, {"t", "d"}};
    struct lk_extract_options options = {.into = into_path, .max_bytes = BYTES_MAX, .map = map};

    options.existing = (enum lk_existing)(bits & EXISTING);
    options.owner = (enum lk_owner)((bits >> OWNER_SHIFT & 3) % 3);
    options.gunzip_in_flight = (bits & GUNZIP) && size < 1024 ? 2 : 0;
    options.use_umask = bits & UMASK;
    options.map_count = bits & MAPPED ? sizeof map / sizeof *map : 0;
    options.strip = first / (FIRST + 1);
    sem_init(&outcome.done, 0, 0);
    struct lk_extract *x =
        lk_extract_new(fuzz_pool(), fuzz_stream(data, size, 1 + (first & FIRST) * 64), &options,
                       done, &outcome, &outcome.err);
    must(x);
    while (sem_wait(&outcome.done))
        ;
    must(outcome.err.kind == LK_OK || outcome.err.message[0] != '\0');
    lk_extract_unref(x);
    sem_destroy(&outcome.done);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    unsigned bits = take_byte(&data, &size), first = take_byte(&data, &size);

    if (bits & PREPARED)
        prepare();
    /* Threads that are made meanwhile are nobody's too, and stay so. */
    if (geteuid() == 0)
        setfsuid(NOBODY);
    extract(data, size, bits, first);
    if (geteuid() == 0)
        setfsuid(0);
    check_outside();
    clear(into_fd);
    fchmod(into_fd, 0700);
    return 0;
}

/* --- the mutator --- */

static size_t octal(const uint8_t *field, size_t len)
{
    size_t value = 0;
    for (size_t i = 0; i < len && field[i] >= '0' && field[i] <= '7'; i++)
        value = value << 3 | (field[i] & 7u);
    return value;
}

static void checksum(uint8_t *header)
{
    unsigned sum = 0;
    memset(header + 148, ' ', 8);
    for (int i = 0; i < BLOCK; i++)
        sum += header[i];
    snprintf((char *)header + 148, 8, "%06o", sum & 0777777);
    header[155] = ' ';
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed)
{
    static const uint8_t zeros[BLOCK];

    size = LLVMFuzzerMutate(data, size, max);
    for (size_t at = 2; seed % 4 != 0 && at + BLOCK <= size;) {
        size_t content = octal(data + at + 124, 12);
        if (memcmp(data + at, zeros, BLOCK) != 0)
            checksum(data + at);
        content = content < size ? (content + BLOCK - 1) / BLOCK * BLOCK : 0;
        at += BLOCK + content;
    }
    return size;
}
