/* SPDX-License-Identifier: MIT
 * lua_crypto.c - lunark.core.crypto: digests, HMAC, RS256, encodings and random bytes for scripts.
 * Owns a hasher through its userdata. What is taken as text may be a string or a secret; what is
 * given back is a plain string. Loop thread only. */
#include "crypto.h"
#include "lua_task.h"
#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

#define HASHER_CLASS "lunark.crypto.hasher"
#define RANDOM_MAX (1 << 20)
#define SIGNATURE_MAX 4096

static const char *check_text(lua_State *L, int index, const char *function, size_t *len)
{
    const char *text = lk_text_of(L, index, len);
    if (text == NULL)
        lk_misuse(L, function, "argument %d must be a string or a secret, got %s", index,
                  luaL_typename(L, index));
    return text;
}

static enum lk_digest check_digest(lua_State *L, int index, const char *function)
{
    struct lk_error err;
    enum lk_digest digest;
    if (lua_type(L, index) != LUA_TSTRING)
        lk_misuse(L, function, "argument %d must be the name of a digest, got %s", index,
                  luaL_typename(L, index));
    if (lk_digest_parse(lua_tostring(L, index), &digest, &err) != 0)
        lk_misuse(L, function, "%s", err.message);
    return digest;
}

static int give_digest(lua_State *L, enum lk_digest digest, const unsigned char *raw)
{
    lua_pushlstring(L, (const char *)raw, lk_digest_size(digest));
    return 1;
}

static int crypto_digest(lua_State *L)
{
    unsigned char raw[LK_DIGEST_MAX];
    struct lk_error err;
    size_t len;
    enum lk_digest digest = check_digest(L, 1, "crypto.digest");
    const char *data = check_text(L, 2, "crypto.digest", &len);
    if (lk_digest_of(digest, data, len, raw, &err) != 0)
        return lk_push_error(L, &err);
    return give_digest(L, digest, raw);
}

static int crypto_hmac(lua_State *L)
{
    unsigned char raw[LK_DIGEST_MAX];
    struct lk_error err;
    size_t key_len, len;
    enum lk_digest digest = check_digest(L, 1, "crypto.hmac");
    const char *key = check_text(L, 2, "crypto.hmac", &key_len);
    const char *data = check_text(L, 3, "crypto.hmac", &len);
    if (lk_hmac(digest, key, key_len, data, len, raw, &err) == 0)
        return give_digest(L, digest, raw);
    if (err.kind == LK_USAGE)
        return lk_raise(L, &err);
    return lk_push_error(L, &err);
}

static int crypto_rs256(lua_State *L)
{
    unsigned char copy[SIGNATURE_MAX], *signature;
    struct lk_error err;
    size_t pem_len, len, size;
    const char *pem = check_text(L, 1, "crypto.rs256", &pem_len);
    const char *data = check_text(L, 2, "crypto.rs256", &len);

    if (lk_rs256(pem, pem_len, data, len, &signature, &size, &err) != 0)
        return lk_push_error(L, &err);
    /* Pushing a string may raise, which would lose the block. */
    size_t kept = size < sizeof copy ? size : sizeof copy;
    memcpy(copy, signature, kept);
    free(signature);
    if (kept != size) {
        lk_error_set(&err, LK_USAGE, "rs256: expected a key of at most %d bits", SIGNATURE_MAX * 8);
        return lk_push_error(L, &err);
    }
    lua_pushlstring(L, (const char *)copy, size);
    return 1;
}

/* --- encodings --- */

static int crypto_hex(lua_State *L)
{
    luaL_Buffer buffer;
    size_t len;
    const char *data = check_text(L, 1, "crypto.hex", &len);
    lk_hex(data, len, luaL_buffinitsize(L, &buffer, len * 2 + 1));
    luaL_pushresultsize(&buffer, len * 2);
    return 1;
}

static int encode(lua_State *L, const char *function, bool url)
{
    luaL_Buffer buffer;
    size_t len;
    const char *data = check_text(L, 1, function, &len);
    char *out = luaL_buffinitsize(L, &buffer, lk_base64_size(len));
    luaL_pushresultsize(&buffer, lk_base64(data, len, url, out));
    return 1;
}

static int crypto_base64(lua_State *L)
{
    return encode(L, "crypto.base64", false);
}

static int crypto_base64url(lua_State *L)
{
    return encode(L, "crypto.base64url", true);
}

/* Pushes what was decoded into the buffer, or nil and an error. The text itself is not told: it may
 * be a secret. */
static int give_decoded(lua_State *L, luaL_Buffer *buffer, ssize_t size, const char *what,
                        size_t len)
{
    struct lk_error err;
    if (size >= 0) {
        luaL_pushresultsize(buffer, (size_t)size);
        return 1;
    }
    luaL_pushresultsize(buffer, 0); /* takes the buffer's own slot away */
    lk_error_set(&err, LK_CORRUPT, "expected %s, found %zu characters that are no such text", what,
                 len);
    return lk_push_error(L, &err);
}

static int crypto_unhex(lua_State *L)
{
    luaL_Buffer buffer;
    size_t len;
    const char *text = check_text(L, 1, "crypto.unhex", &len);
    char *out = luaL_buffinitsize(L, &buffer, len + 1);
    return give_decoded(L, &buffer, lk_unhex(text, len, out), "hexadecimal", len);
}

static int crypto_unbase64(lua_State *L)
{
    luaL_Buffer buffer;
    size_t len;
    const char *text = check_text(L, 1, "crypto.unbase64", &len);
    char *out = luaL_buffinitsize(L, &buffer, len + 1);
    return give_decoded(L, &buffer, lk_unbase64(text, len, false, out), "base64", len);
}

static int crypto_unbase64url(lua_State *L)
{
    luaL_Buffer buffer;
    size_t len;
    const char *text = check_text(L, 1, "crypto.unbase64url", &len);
    char *out = luaL_buffinitsize(L, &buffer, len + 1);
    return give_decoded(L, &buffer, lk_unbase64(text, len, true, out), "base64url", len);
}

/* --- the rest --- */

static int crypto_equal(lua_State *L)
{
    size_t a_len, b_len;
    const char *a = check_text(L, 1, "crypto.equal", &a_len);
    const char *b = check_text(L, 2, "crypto.equal", &b_len);
    lua_pushboolean(L, a_len == b_len && lk_equal(a, b, a_len));
    return 1;
}

static int crypto_random(lua_State *L)
{
    luaL_Buffer buffer;
    struct lk_error err;
    int exact = 0;
    lua_Integer size = lua_type(L, 1) == LUA_TNUMBER ? lua_tointegerx(L, 1, &exact) : 0;
    if (!exact || size < 0 || size > RANDOM_MAX)
        return lk_misuse(L, "crypto.random", "expected a number of bytes from 0 to %d", RANDOM_MAX);
    char *out = luaL_buffinitsize(L, &buffer, (size_t)size + 1);
    int rc = lk_random(out, (size_t)size, &err);
    luaL_pushresultsize(&buffer, rc == 0 ? (size_t)size : 0);
    return rc == 0 ? 1 : lk_push_error(L, &err);
}

/* --- hasher --- */

struct hasher_box {
    struct lk_hasher *hasher;
    enum lk_digest digest;
};

static int crypto_hasher(lua_State *L)
{
    struct lk_error err;
    enum lk_digest digest = check_digest(L, 1, "crypto.hasher");
    struct hasher_box *box = lua_newuserdatauv(L, sizeof *box, 0);
    box->hasher = NULL;
    box->digest = digest;
    luaL_setmetatable(L, HASHER_CLASS);
    box->hasher = lk_hasher_new(digest, &err);
    return box->hasher != NULL ? 1 : lk_push_error(L, &err);
}

static struct hasher_box *check_hasher(lua_State *L, const char *function)
{
    struct hasher_box *box = luaL_testudata(L, 1, HASHER_CLASS);
    if (box == NULL || box->hasher == NULL)
        lk_misuse(L, function, "expected an open hasher, got %s",
                  box != NULL ? "a closed one" : luaL_typename(L, 1));
    return box;
}

static int hasher_update(lua_State *L)
{
    size_t len;
    struct hasher_box *box = check_hasher(L, "hasher:update");
    const char *data = check_text(L, 2, "hasher:update", &len);
    lk_hasher_update(box->hasher, data, len);
    lua_settop(L, 1);
    return 1;
}

static int hasher_final(lua_State *L)
{
    unsigned char raw[LK_DIGEST_MAX];
    struct hasher_box *box = check_hasher(L, "hasher:final");
    lk_hasher_final(box->hasher, raw);
    return give_digest(L, box->digest, raw);
}

static int hasher_close(lua_State *L)
{
    struct hasher_box *box = luaL_checkudata(L, 1, HASHER_CLASS);
    lk_hasher_free(box->hasher);
    box->hasher = NULL;
    return 0;
}

int lk_open_crypto(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"update", hasher_update}, {"final", hasher_final}, {"close", hasher_close}, {NULL, NULL}};
    static const luaL_Reg functions[] = {
        {"digest", crypto_digest},
        {"hmac", crypto_hmac},
        {"rs256", crypto_rs256},
        {"hex", crypto_hex},
        {"unhex", crypto_unhex},
        {"base64", crypto_base64},
        {"unbase64", crypto_unbase64},
        {"base64url", crypto_base64url},
        {"equal", crypto_equal},
        {"unbase64url", crypto_unbase64url},
        {"random", crypto_random},
        {"hasher", crypto_hasher},
        {NULL, NULL},
    };
    lk_new_class(L, HASHER_CLASS, methods, hasher_close);
    luaL_newlib(L, functions);
    return 1;
}
