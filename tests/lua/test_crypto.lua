-- SPDX-License-Identifier: MIT
-- lunark.crypto: published vectors through the binding, and what is refused.
local crypto = require "lunark.crypto"
local lu = require "luaunit"
local sys = require "lunark.core.sys"

local TestCrypto = {}

local function misuse(message, fn, ...)
  local ok, err = pcall(fn, ...)
  lu.assertFalse(ok)
  lu.assertEquals(err.kind, "usage")
  lu.assertStrContains(tostring(err), message)
end

function TestCrypto.test_digests()
  lu.assertEquals(crypto.hex_digest("md5", "message digest"), "f96b697d7cb7938d525a2f31aaf161d0")
  lu.assertEquals(crypto.hex_digest("sha1", "abc"), "a9993e364706816aba3e25717850c26c9cd0d89d")
  lu.assertEquals(
    crypto.hex_digest("sha256", "abc"),
    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
  )
  lu.assertEquals(crypto.hex_digest("crc32", "123456789"), "cbf43926")
  lu.assertEquals(crypto.digest("crc32c", "123456789"), "\xe3\x06\x92\x83")
  lu.assertEquals(#crypto.digest("sha512", ""), 64)
end

function TestCrypto.test_hmac_takes_a_secret()
  local expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843" -- RFC 4231, case 2
  local data = "what do ya want for nothing?"
  lu.assertEquals(crypto.hex(crypto.hmac("sha256", "Jefe", data)), expected)
  lu.assertEquals(crypto.hex(crypto.hmac("sha256", sys.secret("Jefe"), data)), expected)
end

function TestCrypto.test_encodings()
  lu.assertEquals(crypto.base64("fooba"), "Zm9vYmE=")
  lu.assertEquals(crypto.base64url("\xfb\xff\xfe"), "-__-")
  lu.assertEquals(crypto.base64url("f"), "Zg")
  lu.assertEquals(crypto.unbase64("Zm9vYmE="), "fooba")
  lu.assertEquals(crypto.unbase64url("Zg"), "f")
  lu.assertEquals(crypto.unbase64url("Zg=="), "f")
  lu.assertEquals(crypto.hex("\0\xff"), "00ff")
  lu.assertEquals(crypto.unhex("00fF"), "\0\xff")
  lu.assertEquals({ crypto.base64(""), crypto.hex(""), crypto.unhex("") }, { "", "", "" })
  for size = 0, 5000, 617 do
    local data = crypto.random(size)
    lu.assertEquals(#data, size)
    lu.assertEquals(crypto.unbase64(crypto.base64(data)), data)
    lu.assertEquals(crypto.unbase64url(crypto.base64url(data)), data)
    lu.assertEquals(crypto.unhex(crypto.hex(data)), data)
  end
end

function TestCrypto.test_what_is_not_encoded_is_an_error()
  for _, case in ipairs {
    { crypto.unbase64, "Zg", "expected base64, found 2 characters that are no such text" },
    { crypto.unbase64, "-__-", "expected base64, found 4" },
    { crypto.unbase64url, "+//+", "expected base64url, found 4" },
    { crypto.unhex, ("x"):rep(3000), "expected hexadecimal, found 3000" },
  } do
    local data, err = case[1](case[2])
    lu.assertNil(data)
    lu.assertEquals(err.kind, "corrupt")
    lu.assertStrContains(err.message, case[3])
  end
end

function TestCrypto.test_hasher()
  local hasher = crypto.hasher("sha256")
  local whole = crypto.digest("sha256", "abc")
  lu.assertEquals(hasher:update("a"):update("bc"):final(), whole)
  lu.assertEquals(hasher:update("abc"):final(), whole, "it starts anew")
  hasher:close()
  hasher:close()
  misuse("expected an open hasher, got a closed one", hasher.update, hasher, "x")
end

function TestCrypto.test_equal()
  lu.assertTrue(crypto.equal("abc", sys.secret("abc")))
  lu.assertFalse(crypto.equal("abc", "abd"))
  lu.assertFalse(crypto.equal("abc", "abcd"))
  lu.assertTrue(crypto.equal("", ""))
end

function TestCrypto.test_random_differs()
  lu.assertNotEquals(crypto.random(16), crypto.random(16))
end

function TestCrypto.test_rs256_says_what_is_wrong()
  local signature, err = crypto.rs256("no key", "data")
  lu.assertNil(signature)
  lu.assertEquals(err.kind, "usage")
  lu.assertStrContains(err.message, "expected a private key in PEM form")
end

function TestCrypto.test_misuse()
  misuse("digest 'sha3': expected md5", crypto.digest, "sha3", "x")
  misuse("argument 2 must be a string or a secret, got nil", crypto.digest, "md5", nil)
  misuse("argument 1 must be a string or a secret, got table", crypto.hex, {})
  misuse("crc32 is a checksum", crypto.hmac, "crc32", "k", "d")
  misuse("expected a number of bytes", crypto.random, -1)
  misuse("expected a number of bytes", crypto.random, "8")
end

return { TestCrypto = TestCrypto }
