-- SPDX-License-Identifier: MIT
-- providers/sign/sigv4.lua against published signatures: the examples of the S3 documentation ("Signature
-- calculations", examplebucket, 2013-05-24) and AWS's Signature Version 4 test suite (2015-08-30).
-- luacheck: no max line length
local lu = require "luaunit"
local crypto = require "lunark.core.crypto"
local sigv4 = require "providers.sign.sigv4"
local sys = require "lunark.core.sys"
local time = require "lunark.time"

local TestSigv4 = {}

local function sha256(text) return crypto.hex(crypto.digest("sha256", text)) end

-- --- S3 documentation ---

local S3_TIME = time.parse "2013-05-24T00:00:00Z"
local S3_KEYS = {
  access_key_id = "AKIAIOSFODNN7EXAMPLE",
  secret_access_key = sys.secret "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
}

local function s3_signature(method, path, query, headers, body)
  local hash = sha256(body or "")
  headers.host = "examplebucket.s3.amazonaws.com"
  headers["x-amz-content-sha256"] = hash
  local authorization, canonical, to_sign = sigv4.sign({
    method = method, path = path, query = sigv4.query(query), headers = headers, payload_hash = hash,
  }, S3_KEYS, { time = S3_TIME, region = "us-east-1", service = "s3" })
  return authorization, canonical, to_sign
end

function TestSigv4.test_s3_get_with_range()
  local authorization, canonical, to_sign = s3_signature("GET", "/test.txt", {}, { range = "bytes=0-9" })
  lu.assertEquals(to_sign:match("[^\n]+$"), "7344ae5b7ee6c3e7e6b0fe0640412a37625d1fbfff95c48bbb2dc43964946972")
  lu.assertStrContains(canonical, "range:bytes=0-9\n")
  lu.assertEquals(authorization, "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/"
    .. "aws4_request, SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, "
    .. "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41")
end

function TestSigv4.test_s3_put()
  local authorization = s3_signature("PUT", "/" .. sigv4.escape("test$file.text", true), {}, {
    date = "Fri, 24 May 2013 00:00:00 GMT", ["x-amz-storage-class"] = "REDUCED_REDUNDANCY",
  }, "Welcome to Amazon S3.")
  lu.assertStrContains(authorization, "SignedHeaders=date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class")
  lu.assertStrContains(authorization, "Signature=98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd")
end

function TestSigv4.test_s3_lifecycle()
  local authorization = s3_signature("GET", "/", { { "lifecycle", "" } }, {})
  lu.assertStrContains(authorization, "Signature=fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543")
end

function TestSigv4.test_s3_list()
  local authorization = s3_signature("GET", "/", { { "prefix", "J" }, { "max-keys", 2 } }, {})
  lu.assertStrContains(authorization, "Signature=34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7")
end

-- --- the test suite ---

local SUITE_KEYS = {
  access_key_id = "AKIDEXAMPLE", secret_access_key = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
}

local function suite(method, path, query, headers, body, token)
  headers = headers or {}
  headers.Host = "example.amazonaws.com"
  local keys = { session_token = token }
  for name, value in pairs(SUITE_KEYS) do keys[name] = value end
  local authorization = sigv4.sign({
    method = method, path = path, query = sigv4.query(query or {}), headers = headers, payload_hash = sha256(body or ""),
  }, keys, { time = time.parse "2015-08-30T12:36:00Z", region = "us-east-1", service = "service", normalize = true })
  return authorization:match("Signature=(%x+)$"), authorization
end

local VANILLA = "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"

function TestSigv4.test_suite_vanilla()
  local signature, authorization = suite("GET", "/")
  lu.assertEquals(signature, VANILLA)
  lu.assertStrContains(authorization,
    "Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders=host;x-amz-date, ")
end

function TestSigv4.test_suite_paths_are_normalized()
  lu.assertEquals((suite("GET", "/example/..")), VANILLA)
  lu.assertEquals((suite("GET", "//")), VANILLA)
  lu.assertEquals((suite("GET", "/./")), VANILLA)
  lu.assertEquals((suite("GET", "/example1/example2/../..")), VANILLA)
end

function TestSigv4.test_suite_unicode_path()
  lu.assertEquals((suite("GET", "/\u{1234}")), "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85")
end

function TestSigv4.test_suite_space()
  lu.assertEquals((suite("GET", "/example space/")), "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741")
end

function TestSigv4.test_suite_unreserved()
  lu.assertEquals((suite("GET", "/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")),
    "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f")
end

function TestSigv4.test_suite_query_order()
  lu.assertEquals((suite("GET", "/", { { "Param2", "value2" }, { "Param1", "value1" } })),
    "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500")
end

function TestSigv4.test_suite_post()
  lu.assertEquals((suite("POST", "/")), "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b")
end

function TestSigv4.test_suite_post_form()
  lu.assertEquals((suite("POST", "/", nil, { ["Content-Type"] = "application/x-www-form-urlencoded" },
    "Param1=value1")), "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a")
end

function TestSigv4.test_suite_header_values()
  lu.assertEquals((suite("GET", "/", nil, { ["My-Header1"] = "value2,value2,value1" })),
    "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea")
  lu.assertEquals((suite("GET", "/", nil, { ["My-Header1"] = " value1", ["My-Header2"] = ' "a   b   c"' })),
    "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736")
end

function TestSigv4.test_suite_session_token()
  local token = sys.secret("AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIe"
    .. "oIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9"
    .. "HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx"
    .. "3iSIlTJabIQwj2ICCR/oLxBA==")
  lu.assertEquals((suite("POST", "/", nil, nil, nil, token)),
    "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead")
end

-- --- the rest ---

function TestSigv4.test_query()
  lu.assertEquals(sigv4.query { { "b", "2" }, { "a", "x y/+~" }, { "a", "10" }, { "a-", "" } },
    "a=10&a=x%20y%2F%2B~&a-=&b=2")
  lu.assertEquals(sigv4.query { { "uploads", "" } }, "uploads=")
end

function TestSigv4.test_escape()
  lu.assertEquals(sigv4.escape("a b/ü~", true), "a%20b/%C3%BC~")
  lu.assertEquals(sigv4.escape("a/b"), "a%2Fb")
end

function TestSigv4.test_session_token_becomes_a_header()
  local headers = { host = "h" }
  sigv4.sign({ method = "GET", path = "/", headers = headers, payload_hash = sigv4.UNSIGNED },
    { access_key_id = "a", secret_access_key = "b", session_token = sys.secret "the-token" },
    { time = 0, region = "r", service = "s3" })
  lu.assertEquals(headers["x-amz-security-token"]:reveal(), "the-token")
  lu.assertEquals(headers["x-amz-date"], "19700101T000000Z")
end

return { TestSigv4 = TestSigv4 }
