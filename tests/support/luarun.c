/* SPDX-License-Identifier: MIT
 * luarun.c - `luarun SCRIPT [ARGS]`: runs a script with everything granted and Lua's whole library,
 * for tests. The script's result is the exit status. */
#include "../../runtime/lunark.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct lunark *runtime;

static void on_signal(int number)
{
    (void)number;
    lunark_cancel(runtime);
}

static void on_log(void *arg, enum lunark_level level, const char *message, const char *json)
{
    (void)arg;
    (void)json;
    if (level >= LUNARK_WARN || getenv("LUNARK_TEST_LOG") != NULL)
        dprintf(STDERR_FILENO, "log %d: %s\n", (int)level, message);
}

static int fail(const char *what, const struct lunark_error *error)
{
    fprintf(stderr, "luarun: %s: %s: %s\n", what, error->kind, error->message);
    if (error->hint[0] != '\0')
        fprintf(stderr, "hint: %s\n", error->hint);
    lunark_free(runtime);
    return EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    static const char *const kinds[] = {"exec", "net", "read", "write", "env", "posix"};
    /* A folder of the user's own, then the tree's own copies, before the embedded ones. */
    const char *dirs[] = {"scripts", ".", NULL, NULL};
    struct lunark_options options = {.size = sizeof options, .flags = LUNARK_FULL_LUA};
    struct lunark_error error;
    if (argc < 2) {
        fprintf(stderr, "usage: luarun SCRIPT [ARGS]\n");
        return 2;
    }
    const char *mine = getenv("LUNARK_PATH");
    if (mine != NULL && mine[0] == '/') {
        memmove(dirs + 1, dirs, 2 * sizeof *dirs);
        dirs[0] = mine;
    }
    options.script_dirs = dirs;
    runtime = lunark_new(&options, &error);
    if (runtime == NULL)
        return fail("cannot start", &error);
    lunark_on_log(runtime, on_log, NULL);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (lunark_allow(runtime, kinds[i], "*", &error) < 0)
            return fail(kinds[i], &error);
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    if (lunark_run_file(runtime, argv[1], (const char *const *)argv + 2, &error) < 0)
        return fail(argv[1], &error);
    const char *result = lunark_result(runtime);
    int status = result == NULL ? 0 : (int)strtol(result, NULL, 10);
    lunark_free(runtime);
    return status;
}
