/* SPDX-License-Identifier: MIT
 * tools.c - decompressors and hashers of workers. Owns those that are idle. Knows no streams. */
#include "tools.h"

#include "member.h"
#include <stdlib.h>

void lk_tools_init(struct lk_tools *tools, bool hash)
{
    pthread_mutex_init(&tools->mutex, NULL);
    tools->idle = NULL;
    tools->hash = hash;
}

static void free_tool(struct lk_tool *tool)
{
    lk_inflater_free(tool->inflater);
    lk_hasher_free(tool->hasher);
    free(tool);
}

void lk_tools_destroy(struct lk_tools *tools)
{
    while (tools->idle) {
        struct lk_tool *tool = tools->idle;
        tools->idle = tool->next;
        free_tool(tool);
    }
    pthread_mutex_destroy(&tools->mutex);
}

struct lk_tool *lk_tools_take(struct lk_tools *tools, struct lk_error *err)
{
    pthread_mutex_lock(&tools->mutex);
    struct lk_tool *tool = tools->idle;
    if (tool) {
        tools->idle = tool->next;
    }
    pthread_mutex_unlock(&tools->mutex);
    if (tool) {
        return tool;
    }
    tool = calloc(1, sizeof(*tool));
    if (!tool) {
        lk_error_set(err, LK_MEMORY, "no memory for a decompressor");
        return NULL;
    }
    tool->inflater = lk_inflater_new(err);
    if (tool->inflater && tools->hash) {
        tool->hasher = lk_hasher_new(LK_SHA256, err);
    }
    if (!tool->inflater || (tools->hash && !tool->hasher)) {
        free_tool(tool);
        return NULL;
    }
    return tool;
}

void lk_tools_give(struct lk_tools *tools, struct lk_tool *tool)
{
    pthread_mutex_lock(&tools->mutex);
    tool->next = tools->idle;
    tools->idle = tool;
    pthread_mutex_unlock(&tools->mutex);
}

const char *lk_tool_inflate(struct lk_tool *tool, const unsigned char *member, size_t size,
                            size_t header, unsigned char *out, size_t raw)
{
    const unsigned char *trailer = member + size - LK_MEMBER_TRAILER;
    unsigned char none[1];

    out = out ? out : none;
    if (lk_get32(trailer + 4) != raw) {
        return "its sizes do not agree";
    }
    size_t body = size - header - LK_MEMBER_TRAILER;
    if (lk_inflate(tool->inflater, member + header, body, out, raw) < 0) {
        return "its data can't be decompressed";
    }
    return lk_crc32(0, out, raw) == lk_get32(trailer) ? NULL : "its checksum is wrong";
}
