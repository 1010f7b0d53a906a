-- SPDX-License-Identifier: MIT
-- lunark.url: what is read from a store's URL, and what is refused.
local lu = require "luaunit"
local url = require "lunark.url"

local TestUrl = {}

local function refused(text)
  local parsed, err = url.parse(text)
  lu.assertNil(parsed, text)
  lu.assertEquals(err.kind, "usage")
  return err
end

function TestUrl.test_paths()
  for text, path in pairs {
    ["/backup"] = "/backup", ["/backup/"] = "/backup", ["/"] = "/", ["relative/dir"] = "relative/dir",
    ["."] = ".", ["/with space/ü?x=1"] = "/with space/ü?x=1", ["C:dir"] = "C:dir",
    ["file:///a%20b/c"] = "/a b/c", ["file://localhost/x"] = "/x", ["FILE:///x"] = "/x",
  } do
    local parsed = assert(url.parse(text))
    lu.assertEquals(parsed.scheme, "file", text)
    lu.assertEquals(parsed.path, path, text)
    lu.assertEquals(parsed.query, {}, text)
  end
end

function TestUrl.test_object_stores()
  local parsed = assert(url.parse "s3://bucket/some/prefix/?region=eu-west-1&endpoint=https%3A%2F%2Fh%3A9000")
  lu.assertEquals(parsed.scheme, "s3")
  lu.assertEquals(parsed.host, "bucket")
  lu.assertEquals(parsed.path, "some/prefix")
  lu.assertEquals(parsed.query, { region = "eu-west-1", endpoint = "https://h:9000" })
  lu.assertEquals(assert(url.parse "s3://bucket").path, "")
  lu.assertEquals(assert(url.parse "s3://bucket/").path, "")
  lu.assertEquals(assert(url.parse "S3://bucket/a%20b+c/100%25").path, "a b+c/100%")
  parsed = assert(url.parse "s3://bucket?endpoint=http://127.0.0.1:7070")
  lu.assertEquals(parsed.query.endpoint, "http://127.0.0.1:7070")
end

function TestUrl.test_one_archive()
  lu.assertEquals(assert(url.parse "s3://b/x/x-2026.tar.gz").archive, "x-2026.tar.gz")
  lu.assertEquals(assert(url.parse "/d/db-2026.dump.gz?").archive, nil)
  lu.assertEquals(assert(url.parse "/d/db-2026.dump.gz").archive, "db-2026.dump.gz")
  lu.assertEquals(assert(url.parse "/d/x.tgz").archive, "x.tgz")
  lu.assertEquals(assert(url.parse "/d/x.tar").archive, "x.tar")
  lu.assertNil(assert(url.parse "/d/.gz").archive)
  lu.assertNil(assert(url.parse "/d.gz/x").archive)
end

-- A file's name is none, whatever is in the file.
function TestUrl.test_files_of_secrets_are_named()
  lu.assertEquals(url.parse("azure://c?credentials_file=/run/x").query, { credentials_file = "/run/x" })
end

function TestUrl.test_secrets_are_refused()
  for _, text in ipairs {
    "s3://b/p?secret_access_key=abc", "s3://b?session_token=x", "s3://b?password=x", "s3://b?SecretKey=x",
    "azure://c?sig=x", "azure://c?account_key=x", "s3://b?X-Amz-Signature=x",
  } do
    local err = refused(text)
    lu.assertStrContains(err.message, "looks like a secret")
    lu.assertStrContains(err.hint, "environment")
    lu.assertNotStrContains(err.message, "=x")
    lu.assertNotStrContains(err.message, "abc")
  end
  local err = refused "s3://user:geheim@bucket/x"
  lu.assertNotStrContains(err.message, "geheim")
  lu.assertEquals(assert(url.parse "s3://b?access_key_id=AK").query.access_key_id, "AK")
end

function TestUrl.test_what_is_wrong_is_said()
  lu.assertStrContains(refused("").message, "empty")
  lu.assertStrContains(refused("s3://").message, "no bucket")
  lu.assertStrContains(refused("s3:///x").message, "no bucket")
  lu.assertStrContains(refused("file://host/x").message, "three slashes")
  lu.assertStrContains(refused("file:/x").message, "three slashes")
  -- Not a directory of that name, where nobody would look for the backup.
  for _, text in ipairs { "s3:b/x", "s3:/b/x", "gs:b", "azure:c", "host:dir", "file:x" } do
    local err = refused(text)
    lu.assertStrContains(err.message, "two slashes")
    lu.assertStrContains(err.hint, "./" .. text)
  end
  lu.assertStrContains(refused("s3:b?secret=geheim").hint, "./s3:b for")
  lu.assertEquals(assert(url.parse "./s3:b").path, "./s3:b")
  lu.assertEquals(assert(url.parse "db-2026-01-31-02:00:00.tar.gz").path, "db-2026-01-31-02:00:00.tar.gz")
  lu.assertStrContains(refused("s3://b/100%").hint, "%25")
  lu.assertStrContains(refused("s3://b?region").message, "no value")
  lu.assertStrContains(refused("s3://b?region=a&region=b").message, "twice")
  lu.assertStrContains(refused("s3://b/x#y").message, "#")
  lu.assertStrContains(refused("/a\0b").message, "value 0")
end

return { TestUrl = TestUrl }
