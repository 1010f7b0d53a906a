/* SPDX-License-Identifier: MIT
 * runtime.c - the parts of a runtime that need no Lua, from first to last.
 * Owns loop, pool, capabilities, log and the list of script directories. Loop thread only. */
#include "runtime.h"
#include <stdlib.h>
#include <string.h>

int lk_runtime_init(struct lk_runtime *runtime, size_t memory, int jobs, struct lk_error *err)
{
    memset(runtime, 0, sizeof *runtime);
    runtime->print_fd = -1;
    runtime->memory = memory != 0 ? memory : LK_DEFAULT_MEMORY;
    runtime->jobs = jobs > 0 ? jobs : lk_pool_cpus();
    runtime->log = lk_log_new(err);
    if (runtime->log == NULL)
        return -1;
    lk_log_set_fd(runtime->log, -1);
    runtime->caps = lk_caps_new(err);
    if (runtime->caps == NULL)
        return -1;
    runtime->loop = lk_loop_new(err);
    if (runtime->loop == NULL)
        return -1;
    runtime->pool = lk_pool_new(runtime->jobs, err);
    return runtime->pool == NULL ? -1 : 0;
}

/* Threads post to the loop until they have ended; what they posted last still has to run. */
static void drain(struct lk_runtime *runtime)
{
    while (runtime->loop != NULL && lk_loop_step(runtime->loop, 0, NULL) > 0)
        ;
}

void lk_runtime_free(struct lk_runtime *runtime)
{
    drain(runtime);
    while (runtime->cleanups != NULL) {
        struct lk_cleanup *cleanup = runtime->cleanups;
        runtime->cleanups = cleanup->next;
        cleanup->run(cleanup);
    }
    drain(runtime);
    if (runtime->pool != NULL)
        lk_pool_free(runtime->pool);
    drain(runtime);
    if (runtime->loop != NULL)
        lk_loop_free(runtime->loop);
    if (runtime->caps != NULL)
        lk_caps_free(runtime->caps);
    if (runtime->log != NULL)
        lk_log_free(runtime->log);
    for (size_t i = 0; i < runtime->script_dir_count; i++)
        free(runtime->script_dirs[i]);
    free(runtime->script_dirs);
    memset(runtime, 0, sizeof *runtime);
}

int lk_runtime_add_script_dir(struct lk_runtime *runtime, const char *dir, size_t place,
                              struct lk_error *err)
{
    size_t count = runtime->script_dir_count;
    char **dirs = realloc(runtime->script_dirs, (count + 1) * sizeof *dirs);
    if (dirs != NULL)
        runtime->script_dirs = dirs;
    char *copy = dirs != NULL ? strdup(dir) : NULL;
    if (copy == NULL)
        return lk_error_set(err, LK_MEMORY, "no memory for script directory '%s'", dir);
    memmove(dirs + place + 1, dirs + place, (count - place) * sizeof *dirs);
    dirs[place] = copy;
    runtime->script_dir_count++;
    return 0;
}
