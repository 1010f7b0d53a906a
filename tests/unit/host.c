/* SPDX-License-Identifier: MIT
 * host.c - a small program that embeds the runtime: grants, runs a script, gets log and progress,
 * and cancels it from another thread. Prints what it saw; the exit status is 0 when all of it went
 * as it should. */
#include "../../runtime/lunark.h"
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char script[] =
    "local log, task = require 'lunark.log', require 'lunark.task'\n"
    "log.info('hello ' .. ...)\n"
    "for i = 1, 3 do log.progress { step = i, of = 3 } task.sleep(0.01) end\n"
    "return 'done'\n";
static const char endless[] =
    "local task = require 'lunark.task'\n"
    "local undo <close> = setmetatable({}, { __close = function()\n"
    "  task.shield(function() task.sleep(0.05) require('lunark.log').info('cleaned up') end)\n"
    "end })\n"
    "require('lunark.log').progress { waiting = true }\n"
    "task.sleep(3600)\n";

static int logged, steps, cleaned, waiting;

static void on_log(void *arg, enum lunark_level level, const char *message, const char *json)
{
    logged++;
    cleaned += strstr(message, "cleaned up") != NULL;
    printf("%s: level %d: %s (%s)\n", (char *)arg, (int)level, message, json);
}

static void on_progress(void *arg, const char *json)
{
    steps++;
    printf("progress: %s\n", json);
    if (strstr(json, "waiting") != NULL)
        *(int *)arg = write(waiting, "x", 1) == 1; /* tells the other thread */
}

static struct lunark *runtime;

static void *cancel_later(void *arg)
{
    char byte;
    if (read(*(int *)arg, &byte, 1) == 1)
        lunark_cancel(runtime);
    return NULL;
}

int main(void)
{
    static const char *const args[] = {"world", NULL};
    struct lunark_error error;
    pthread_t thread;
    int ends[2], told = 0;
    runtime = lunark_new(NULL, &error);
    if (runtime == NULL || lunark_allow(runtime, "read", "/tmp", &error) < 0 || pipe(ends) != 0)
        return fprintf(stderr, "host: %s\n", error.message), 1;
    waiting = ends[1];
    lunark_on_log(runtime, on_log, (char *)"log");
    lunark_on_progress(runtime, on_progress, &told);
    if (lunark_run_string(runtime, "hello", script, args, &error) < 0)
        return fprintf(stderr, "host: %s\n", error.message), 1;
    printf("result: %s\n", lunark_result(runtime));
    if (logged != 1 || steps != 3 || strcmp(lunark_result(runtime), "done") != 0)
        return 1;
    pthread_create(&thread, NULL, cancel_later, ends);
    if (lunark_run_string(runtime, "endless", endless, NULL, &error) == 0)
        return 1;
    pthread_join(thread, NULL);
    printf("cancelled: %s: %s\n", error.kind, error.message);
    lunark_free(runtime);
    return strcmp(error.kind, "cancelled") == 0 && cleaned == 1 && told ? 0 : 1;
}
