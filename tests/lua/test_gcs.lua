-- SPDX-License-Identifier: MIT
-- providers/gcs/: checksums that are put together, and keys that the store takes.
local lu = require "luaunit"
local checks = require "providers.gcs.checks"
local crc32c = require "providers.gcs.crc32c"
local crypto = require "lunark.crypto"
local store = require "lunark.store"

local TestChecksums, TestNames = {}, {}

local function crc_of(text)
  return crc32c.number(crypto.digest("crc32c", text))
end

-- RFC 3720, B.4.
function TestChecksums.test_published_vectors()
  local zeros, ones = ("\0"):rep(32), ("\xFF"):rep(32)
  lu.assertEquals(crc_of(zeros), 0x8A9136AA)
  lu.assertEquals(crc_of(ones), 0x62A8AB43)
  lu.assertEquals(crc32c.combine(crc_of(zeros:sub(1, 20)), crc_of(zeros:sub(21)), 12), 0x8A9136AA)
  lu.assertEquals(crc32c.combine(crc_of(ones:sub(1, 1)), crc_of(ones:sub(2)), 31), 0x62A8AB43)
  lu.assertEquals(crc32c.combine(crc_of "1234", crc_of "56789", 5), 0xE3069283)
end

function TestChecksums.test_parts_of_any_size()
  local text = ("The quick brown fox. "):rep(5000)
  for _, at in ipairs { 0, 1, 7, 4096, 65536, #text - 1, #text } do
    local head, tail = text:sub(1, at), text:sub(at + 1)
    lu.assertEquals(crc32c.combine(crc_of(head), crc_of(tail), #tail), crc_of(text), at)
  end
end

function TestChecksums.test_lengths_beyond_4_gib()
  -- Two ways to the same: A, then many zeros, then B.
  local a, b, length = crc_of "a", crc_of "b", 5 * 2 ^ 40 // 1 | 0
  local zero = crc32c.combine(0, 0, length)
  lu.assertEquals(zero, 0)
  local once = crc32c.combine(a, b, length)
  local half = crc32c.combine(crc32c.combine(a, 0, length // 2), b, length // 2)
  lu.assertEquals(half, once)
end

function TestChecksums.test_as_google_writes_them()
  lu.assertEquals(checks.encode(checks.crc "123456789"), "4waSgw==")
  local parts = { { size = 4, crc = crc_of "1234" }, { size = 5, crc = crc_of "56789" } }
  lu.assertEquals({ checks.of_parts(parts) }, { 0xE3069283, 9 })
end

function TestNames.test_keys_that_are_refused()
  local s = assert(store.open("gs://bucket", { anonymous = true, endpoint = "http://127.0.0.1:1" }))
  for _, key in ipairs { "", ".", "..", "a\nb", "a\rb", "a\0b", "a\xFFb", ("n"):rep(1025) } do
    local info, err = s:head(key)
    lu.assertNil(info)
    lu.assertEquals(err.kind, "usage")
  end
end

function TestNames.test_addresses()
  for _, url in ipairs { "gs://b/x?endpoint=ftp://h", "gs://b?endpoint=http://", "gs://-b",
    "gs://b?endpoint=localhost:80" } do
    local s, err = store.open(url, { anonymous = true })
    lu.assertNil(s)
    lu.assertEquals(err.kind, "usage")
  end
  local s = assert(store.open("gs://bucket?endpoint=http://localhost:80/storage/v1/", { anonymous = true }))
  lu.assertEquals(s.inner.endpoint, "http://localhost:80")
  lu.assertEquals(s.inner:path("a/b c"), "/storage/v1/b/bucket/o/a%2Fb%20c")
end

return { TestChecksums = TestChecksums, TestNames = TestNames }
