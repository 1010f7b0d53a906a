/* SPDX-License-Identifier: MIT
 * test_crypto.c - published vectors of RFC 1321, FIPS 180, RFC 2202, RFC 4231, RFC 4648, RFC 3720
 * and RFC 7515, and what is refused. */
#include "crypto.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <stdlib.h>
#include <string.h>

/* The key, input and signature of RFC 7515, A.2; the key's numbers written as PKCS#8. */
static const char rfc7515_key[] =
    "-----BEGIN PRIVATE KEY-----\n"
    "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQCh+BYK4uPJtGXO\n"
    "jS1lYmM2K5J9vinh8CR3/BYlzJChNuOL2TSXxbbqY913EeZ8dCn5VrD7io8ImtxL\n"
    "aYk8wTM/U+3QGbh3hCUv7JFP5IV3aVlL6kKA0ywPVb9ilE8TA5a8bpvfbr3SvaNn\n"
    "juygxmj3AbONv/s4yDQs4v5tJ/reSlpIdJed1LnPmt7Ex1sFhSwsD174pcF1A5L5\n"
    "ROjtZMEQxrZHYJqkeDrrnGya11UxMFBji4NmXG9veoKjlnAqH2QbgtPr8jkiGUkf\n"
    "toaHLFcW9Qr4NY2ai50Xw0Byj3+H2JoY2PyrZ62EWQwuz3WTOTY8BwNNb2BvniHg\n"
    "VFbK5emhAgMBAAECggEAEq5xpGnNCivDflJsRQBXHx1hdR1k6Ulwe2JZD50LpXyW\n"
    "PEAeP88vLNO97IjlA7/GQ5sLKMgvfTeXZx9SE+7YwVol2NXOoAJe46sui395IW/G\n"
    "O+pWJ1O0BkTGoVEn2bKVRUCgu+GjBVaYLU6f3l9kJfFNS3E0QbVdxzubSu3Mkqzj\n"
    "kn439X0M/V51gfpRLI9JYanrC4D4qAdGcopV/0ZHHzQlBjudU2QvXt4ehNYTCBr6\n"
    "XCLQUShb1juUO1ZdiYoFaFQT5Tw8bGUl/x/jTj3ccPDVZFD9pIuhLhBOneufuBiB\n"
    "4cS98l2SR/RQyGWSeWjnczT0QU91p1DhOVRuOopznQKBgQDgHMQQ60imZV1URk0K\n"
    "pLttoLhyt3SmqdEf/kgHePDdtzEafpAu+cS191R2JiuoF2yzWXnwFDcqGigp5BNr\n"
    "0AHQfD8/Lk8l1Mk09jxxCfui5nYooNyac8YFjm3vItzVCVDnEd3BbVWG8qf6deqE\n"
    "lMGAg+C2V0L4oNXnP7LZcPAZRwKBgQC5A8R+CZW2MvRTLLHzwZkUXV866cff7tx6\n"
    "kqa0finGG0KgeqlaZPxgCZnFp7AeAcCMtiynVlJ7vMVgePsLq6XtON4tB5kP9jAP\n"
    "rq3rbAOal78eUH5OcED6eNuCV8ixEu1eWcPNCS/l1OW1EnXUEoEHKl54Xrrz2uNw\n"
    "kgMTP1FZ1wKBgAcCn1dwJKufzBWQxWQp1vsM5fggqPN1qGb5y0MAk3g7/Ls5bkUp\n"
    "5u9SN0Ai3Ya6hNnvWJMb7sXQX6U/zyO2M/hTip7tUeh7CXgwo59dkpN75gJLVds2\n"
    "9+DAncu3KXU4f2Fa+7bLNrur53k8KwPOq2bbuTG69QtV7Jr5MR0AHWKNAoGBAIf/\n"
    "evpitUf+4JYbLpvNXWcY052Mpz22aR84mY3nh3F2LF2mjMJDpTg7FmuyPcVw6EcG\n"
    "yoAe9fa65iNqCq+jdw6PVNGo2hxfjSiZ8IIzHdsPXI89//pMjZcQK9r+CCoRjaZj\n"
    "OYiIDktVWZzmevJuv6WywUqd57LE3Zar3dLSIkx1AoGAIYd7DHOhrWvxkwPQsRM2\n"
    "tOgrjbcrfvtQJipd+DlcxyVuuM9sQLdgjVk2oy26F0EmpScGLq2MowX7fhd/QJQ3\n"
    "ydy5cY7YIBi87w93IKLEdfnbJtoOPLUW0ITrJReOgo1cq9SbsxYawBgfp/gh6A56\n"
    "03k2+ZQwVK0JKSHuLFkuQ3U=\n"
    "-----END PRIVATE KEY-----\n";
static const char rfc7515_input[] =
    "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9"
    "leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
static const char rfc7515_signature[] =
    "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF"
    "5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK"
    "5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqt"
    "FZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrB"
    "p0igcN_IoypGlUPQGe77Rw";
static const char ec_key[] = "-----BEGIN PRIVATE KEY-----\n"
                             "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgfk7MR0vIE6moVCxS\n"
                             "PoOAdsV0E6FhuQMadr8IB2z/7TqhRANCAASomO1dlu7HUsmOSyocD0mnaWHqJe6a\n"
                             "CXAe3GfXzuledSWmramDOZZO087GfVCD7QeTpk8v6yVrbAP5ZX/FhpSQ\n"
                             "-----END PRIVATE KEY-----\n";

struct vector {
    enum lk_digest digest;
    const char *text;
    const char *hex;
};

static const struct vector digest_vectors[] = {
    /* RFC 1321, A.5 */
    {LK_MD5, "", "d41d8cd98f00b204e9800998ecf8427e"},
    {LK_MD5, "message digest", "f96b697d7cb7938d525a2f31aaf161d0"},
    {LK_MD5, "abcdefghijklmnopqrstuvwxyz", "c3fcd3d76192e4007dfb496cca67e13b"},
    /* FIPS 180 */
    {LK_SHA1, "abc", "a9993e364706816aba3e25717850c26c9cd0d89d"},
    {LK_SHA1, "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
     "84983e441c3bd26ebaae4aa1f95129e5e54670f1"},
    {LK_SHA256, "", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
    {LK_SHA256, "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
    {LK_SHA256, "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
     "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
    {LK_SHA512, "abc",
     "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
     "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"},
    /* the usual check value of the two CRCs */
    {LK_CRC32, "123456789", "cbf43926"},
    {LK_CRC32C, "123456789", "e3069283"},
    {LK_CRC32, "", "00000000"},
};

static void check_hex(const unsigned char *raw, size_t size, const char *expected)
{
    char text[LK_DIGEST_MAX * 2 + 1];
    lk_hex(raw, size, text);
    assert_string_equal(text, expected);
}

static void digests_match_the_published_vectors(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof digest_vectors / sizeof digest_vectors[0]; i++) {
        const struct vector *v = &digest_vectors[i];
        unsigned char out[LK_DIGEST_MAX];
        size_t len = strlen(v->text);
        struct lk_hasher *hasher = lk_hasher_new(v->digest, NULL);

        assert_non_null(hasher);
        assert_int_equal(lk_digest_of(v->digest, v->text, len, out, NULL), 0);
        check_hex(out, lk_digest_size(v->digest), v->hex);
        for (int round = 0; round < 2; round++) { /* final starts anew */
            for (size_t j = 0; j < len; j++)
                lk_hasher_update(hasher, v->text + j, 1);
            lk_hasher_final(hasher, out);
            check_hex(out, lk_digest_size(v->digest), v->hex);
        }
        lk_hasher_free(hasher);
    }
}

static void a_million_letters_hash_as_published(void **state)
{
    (void)state;
    /* FIPS 180: one million times "a" */
    struct lk_hasher *sha1 = lk_hasher_new(LK_SHA1, NULL);
    struct lk_hasher *sha256 = lk_hasher_new(LK_SHA256, NULL);
    unsigned char out[LK_DIGEST_MAX];
    char block[1000];

    memset(block, 'a', sizeof block);
    for (int i = 0; i < 1000; i++) {
        lk_hasher_update(sha1, block, sizeof block);
        lk_hasher_update(sha256, block, sizeof block);
    }
    lk_hasher_final(sha1, out);
    check_hex(out, 20, "34aa973cd4c4daa4f61eeb2bdbad27316534016f");
    lk_hasher_final(sha256, out);
    check_hex(out, 32, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    lk_hasher_free(sha1);
    lk_hasher_free(sha256);
}

static void crc32c_matches_rfc_3720_on_both_paths(void **state)
{
    (void)state;
    unsigned char data[32], iscsi[48] = {0x01, 0xc0};

    memset(data, 0, sizeof data);
    assert_int_equal(lk_crc32c(0, data, 32), 0x8a9136aa);
    assert_int_equal(lk_crc32c_portable(0, data, 32), 0x8a9136aa);
    memset(data, 0xff, sizeof data);
    assert_int_equal(lk_crc32c(0, data, 32), 0x62a8ab43);
    assert_int_equal(lk_crc32c_portable(0, data, 32), 0x62a8ab43);
    for (int i = 0; i < 32; i++)
        data[i] = (unsigned char)i;
    assert_int_equal(lk_crc32c(0, data, 32), 0x46dd794e);
    assert_int_equal(lk_crc32c_portable(0, data, 32), 0x46dd794e);
    for (int i = 0; i < 32; i++)
        data[i] = (unsigned char)(31 - i);
    assert_int_equal(lk_crc32c(0, data, 32), 0x113fdb5c);
    /* B.4: an iSCSI SCSI Read (10) command */
    iscsi[16] = 0x14;
    iscsi[22] = 0x04;
    iscsi[27] = 0x14;
    iscsi[31] = 0x18;
    iscsi[32] = 0x28;
    iscsi[40] = 0x02;
    assert_int_equal(lk_crc32c(0, iscsi, 48), 0xd9963a56);
    assert_int_equal(lk_crc32c_portable(0, iscsi, 48), 0xd9963a56);
}

/* Bit by bit, straight from the definition. */
static uint32_t crc32c_by_bits(const unsigned char *data, size_t len)
{
    uint32_t crc = 0xffffffff;
    for (size_t i = 0; i < len; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ ((crc & 1) != 0 ? 0x82f63b78u : 0);
    }
    return ~crc;
}

static void crc32c_is_the_same_for_every_length_and_cut(void **state)
{
    (void)state;
    unsigned char data[300];
    uint32_t seed = 1;

    for (size_t i = 0; i < sizeof data; i++) {
        seed = seed * 1664525 + 1013904223;
        data[i] = (unsigned char)(seed >> 24);
    }
    for (size_t len = 0; len <= sizeof data; len++) {
        uint32_t expected = crc32c_by_bits(data, len);
        size_t cut = len / 3;
        assert_int_equal(lk_crc32c(0, data, len), expected);
        assert_int_equal(lk_crc32c_portable(0, data, len), expected);
        assert_int_equal(lk_crc32c(lk_crc32c_portable(0, data, cut), data + cut, len - cut),
                         expected);
    }
}

static void digest_names_are_parsed_both_ways(void **state)
{
    (void)state;
    struct lk_error err;
    enum lk_digest digest;

    for (int i = 0; i < LK_DIGEST_COUNT; i++) {
        assert_int_equal(lk_digest_parse(lk_digest_name((enum lk_digest)i), &digest, NULL), 0);
        assert_int_equal(digest, i);
    }
    assert_int_equal(lk_digest_parse("sha3", &digest, &err), -1);
    assert_int_equal(err.kind, LK_USAGE);
    assert_string_equal(err.message,
                        "digest 'sha3': expected md5, sha1, sha256, sha512, crc32 or crc32c");
}

static void hmac_matches_rfc_2202_and_4231(void **state)
{
    (void)state;
    unsigned char key[131], data[50], out[LK_DIGEST_MAX];
    struct lk_error err;

    memset(key, 0x0b, 20);
    assert_int_equal(lk_hmac(LK_MD5, key, 16, "Hi There", 8, out, NULL), 0);
    check_hex(out, 16, "9294727a3638bb1c13f48ef8158bfc9d");
    assert_int_equal(lk_hmac(LK_SHA1, key, 20, "Hi There", 8, out, NULL), 0);
    check_hex(out, 20, "b617318655057264e28bc0b6fb378c8ef146be00");
    assert_int_equal(lk_hmac(LK_SHA256, key, 20, "Hi There", 8, out, NULL), 0);
    check_hex(out, 32, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
    assert_int_equal(lk_hmac(LK_SHA512, "Jefe", 4, "what do ya want for nothing?", 28, out, NULL),
                     0);
    check_hex(out, 64,
              "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554"
              "9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737");
    memset(key, 0xaa, sizeof key);
    memset(data, 0xdd, sizeof data);
    assert_int_equal(lk_hmac(LK_SHA256, key, 20, data, 50, out, NULL), 0);
    check_hex(out, 32, "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe");
    /* a key longer than a block */
    const char *text = "Test Using Larger Than Block-Size Key - Hash Key First";
    assert_int_equal(lk_hmac(LK_SHA256, key, 131, text, strlen(text), out, NULL), 0);
    check_hex(out, 32, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
    /* nothing, signed with nothing */
    assert_int_equal(lk_hmac(LK_SHA256, NULL, 0, NULL, 0, out, NULL), 0);
    check_hex(out, 32, "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad");

    assert_int_equal(lk_hmac(LK_CRC32, "k", 1, "d", 1, out, &err), -1);
    assert_string_equal(err.message, "hmac: crc32 is a checksum, expected a digest such as sha256");
}

static void rs256_gives_the_signature_of_rfc_7515(void **state)
{
    (void)state;
    unsigned char *signature = NULL;
    size_t len = 0;
    char text[400];

    assert_int_equal(lk_rs256(rfc7515_key, strlen(rfc7515_key), rfc7515_input,
                              strlen(rfc7515_input), &signature, &len, NULL),
                     0);
    assert_int_equal(len, 256);
    assert_int_equal(lk_base64(signature, len, true, text), strlen(rfc7515_signature));
    assert_string_equal(text, rfc7515_signature);
    free(signature);
}

static void refused(const char *pem, size_t len, const char *message)
{
    struct lk_error err;
    unsigned char *signature = NULL;
    size_t size = 0;

    assert_int_equal(lk_rs256(pem, len, "x", 1, &signature, &size, &err), -1);
    assert_null(signature);
    assert_int_equal(err.kind, LK_USAGE);
    assert_non_null(strstr(err.message, message));
}

static void rs256_says_why_a_key_is_no_good(void **state)
{
    (void)state;
    BIO *in = BIO_new_mem_buf(rfc7515_key, -1), *out = BIO_new(BIO_s_mem());
    EVP_PKEY *key = PEM_read_bio_PrivateKey(in, NULL, NULL, NULL);
    char *encrypted = NULL;
    long len;

    refused("", 0, "rs256: expected a private key in PEM form");
    refused("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", 58,
            "rs256: expected a private key in PEM form");
    refused(ec_key, strlen(ec_key), "rs256: expected an RSA private key, found one of type EC");
    assert_int_equal(
        PEM_write_bio_PKCS8PrivateKey(out, key, EVP_aes_256_cbc(), "secret", 6, NULL, NULL), 1);
    len = BIO_get_mem_data(out, &encrypted);
    refused(encrypted, (size_t)len,
            "rs256: the private key is encrypted, expected one without passphrase");
    EVP_PKEY_free(key);
    BIO_free(in);
    BIO_free(out);
}

static void base64_matches_rfc_4648(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        {"", ""},
        {"f", "Zg=="},
        {"fo", "Zm8="},
        {"foo", "Zm9v"},
        {"foob", "Zm9vYg=="},
        {"fooba", "Zm9vYmE="},
        {"foobar", "Zm9vYmFy"},
    };
    char text[64], back[64];

    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        size_t len = strlen(pairs[i][0]);
        assert_int_equal(lk_base64(pairs[i][0], len, false, text), strlen(pairs[i][1]));
        assert_string_equal(text, pairs[i][1]);
        assert_true(lk_base64_size(len) > strlen(text));
        assert_int_equal(lk_unbase64(text, strlen(text), false, back), len);
        assert_memory_equal(back, pairs[i][0], len);
        assert_int_equal(lk_unbase64(text, strlen(text), true, back), len); /* padded */
    }
    assert_int_equal(lk_base64("\xfb\xff\xfe", 3, false, text), 4);
    assert_string_equal(text, "+//+");
    lk_base64("\xfb\xff\xfe", 3, true, text);
    assert_string_equal(text, "-__-");
    lk_base64("f", 1, true, text);
    assert_string_equal(text, "Zg");
    assert_int_equal(lk_unbase64("Zg", 2, true, back), 1);
}

static void base64_refuses_what_is_not_base64(void **state)
{
    (void)state;
    static const char *const bad[] = {"Z",    "Zg",   "Zg=",  "Zm9v=",    "Zh==",   "Zm9=", "====",
                                      "Z===", "Zm 9", "-__-", "Zg==Zg==", "Zm9v\n", "=Zg="};
    char back[64];

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(lk_unbase64(bad[i], strlen(bad[i]), false, back), -1);
    assert_int_equal(lk_unbase64("+//+", 4, true, back), -1);
    assert_int_equal(lk_unbase64("Zg=", 3, true, back), -1);
    assert_int_equal(lk_unbase64("Z", 1, true, back), -1);
}

static void hex_goes_both_ways(void **state)
{
    (void)state;
    char text[16], back[16];

    lk_hex("\x00\x9f\xff", 3, text);
    assert_string_equal(text, "009fff");
    assert_int_equal(lk_unhex("009FfF", 6, back), 3);
    assert_memory_equal(back, "\x00\x9f\xff", 3);
    assert_int_equal(lk_unhex("", 0, back), 0);
    assert_int_equal(lk_unhex("0", 1, back), -1);
    assert_int_equal(lk_unhex("0g", 2, back), -1);
}

static void random_and_equal(void **state)
{
    (void)state;
    unsigned char a[32] = {0}, b[32] = {0};

    assert_true(lk_equal(a, b, sizeof a));
    assert_int_equal(lk_random(a, sizeof a, NULL), 0);
    assert_int_equal(lk_random(b, sizeof b, NULL), 0);
    assert_false(lk_equal(a, b, sizeof a));
    assert_true(lk_equal(a, b, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(digests_match_the_published_vectors),
        cmocka_unit_test(a_million_letters_hash_as_published),
        cmocka_unit_test(crc32c_matches_rfc_3720_on_both_paths),
        cmocka_unit_test(crc32c_is_the_same_for_every_length_and_cut),
        cmocka_unit_test(digest_names_are_parsed_both_ways),
        cmocka_unit_test(hmac_matches_rfc_2202_and_4231),
        cmocka_unit_test(rs256_gives_the_signature_of_rfc_7515),
        cmocka_unit_test(rs256_says_why_a_key_is_no_good),
        cmocka_unit_test(base64_matches_rfc_4648),
        cmocka_unit_test(base64_refuses_what_is_not_base64),
        cmocka_unit_test(hex_goes_both_ways),
        cmocka_unit_test(random_and_equal),
    };
    return cmocka_run_group_tests_name("crypto", tests, NULL, NULL);
}
