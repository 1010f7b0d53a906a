-- SPDX-License-Identifier: MIT
-- lunark.manifest: what is written, and what is taken for a manifest.

local json = require "lunark.json"
local lu = require "luaunit"
local manifest = require "lunark.manifest"
local sys = require "lunark.core.sys"

local TestManifest = {}

local SHA = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
local KEY = "db/db-2020-06-16T123257Z.dump.gz"
local MANIFEST = "db/db-2020-06-16T123257Z.manifest.json"

local function record(more)
  local made = {
    item = "db", key = KEY, time = 1592310777, started = 1592310777.5, ended = 1592310800,
    policy = "p", run = "r1",
    kind = "program", suffix = ".dump.gz", size = 10, raw_size = 20, sha256 = SHA, parts = 1,
    producers = {
      { command = { "pg_dump", "--password", sys.secret("hunter2hunter2") }, code = 0, seconds = 1.5 },
    },
    warnings = { { path = "a\xff", kind = "changed", message = "it changed" } },
    warning_count = 1, unreadable = 0,
  }
  for key, value in pairs(more or {}) do
    made[key] = value
  end
  return made
end

function TestManifest.test_written_and_read()
  local text = manifest.encode(record())
  local found = assert(manifest.decode(text, MANIFEST))
  lu.assertEquals(found.lunark_manifest, 1)
  lu.assertEquals(found.version, sys.version)
  lu.assertEquals(found.key, KEY)
  lu.assertEquals(found.time, "2020-06-16T12:32:57Z")
  lu.assertEquals(found.ended, "2020-06-16T12:33:20Z")
  lu.assertEquals(found.size, 10)
  lu.assertEquals(found.sha256, SHA)
  lu.assertEquals(found.producers,
    { { command = { "pg_dump", "--password", "***" }, code = 0, seconds = 1.5 } })
  lu.assertEquals(found.warnings, { { path = "a\\xff", kind = "changed", message = "it changed" } })
  lu.assertEquals(text:sub(-1), "\n")
end

function TestManifest.test_no_secret_in_it()
  lu.assertNil(manifest.encode(record()):find("hunter2", 1, true))
end

function TestManifest.test_same_record_same_bytes()
  lu.assertEquals(manifest.encode(record()), manifest.encode(record()))
end

local function refused(change, expected, kind, key)
  local found = json.decode(manifest.encode(record()))
  change(found)
  local ok, err = manifest.decode(json.encode(found), key or MANIFEST)
  lu.assertNil(ok)
  lu.assertEquals(err.kind, kind or "corrupt")
  lu.assertStrContains(err.message, expected)
end

function TestManifest.test_what_is_refused()
  refused(function(m) m.lunark_manifest = nil end, "lunark_manifest is missing")
  refused(function(m) m.lunark_manifest = 2 end, "has form 2, form 1 expected", "usage")
  refused(function(m) m.sha256 = "abc" end, "sha256 with 64")
  refused(function(m) m.size = -1 end, "size in bytes")
  refused(function(m) m.size = "10" end, "size in bytes")
  refused(function(m) m.key = "nonsense" end, "the key of the backup")
  refused(function() end, "it speaks of another backup", "corrupt", "db/db-2020-06-16T123258Z.manifest.json")
  local ok, err = manifest.decode("not json", MANIFEST)
  lu.assertNil(ok)
  lu.assertEquals(err.kind, "corrupt")
  lu.assertStrContains(err.message, MANIFEST)
end

function TestManifest.test_unknown_fields_are_no_harm()
  local found = json.decode(manifest.encode(record()))
  found.something_new = { a = 1 }
  lu.assertNotNil(manifest.decode(json.encode(found), MANIFEST))
end

function TestManifest.test_prefix_of_the_store_does_not_matter()
  lu.assertNotNil(manifest.decode(manifest.encode(record()), "moved/" .. MANIFEST))
end

function TestManifest.test_fields_of_another_type_are_no_manifest()
  local key = "data/data-2026-01-31T020000Z.tar.gz"
  local good = {
    lunark_manifest = 1, sha256 = ("a"):rep(64), size = 1, key = key, item = "data", kind = "archive",
    raw_size = 7, archive = { files = 1, members = 1, added = "later" }, added = {},
  }
  local name = "data/data-2026-01-31T020000Z.manifest.json"
  lu.assertNotNil(manifest.decode(json.encode(good), name))
  for field, value in pairs {
    item = 1, kind = { 1 }, suffix = true, raw_size = "many", archive = "x", time = { 1 },
  } do
    local changed = setmetatable({ [field] = value }, nil)
    for other, kept in pairs(good) do
      if other ~= field then changed[other] = kept end
    end
    local found, err = manifest.decode(json.encode(changed), name)
    lu.assertNil(found, field)
    lu.assertEquals(err.kind, "corrupt")
    lu.assertStrContains(err.message, field)
  end
  for _, value in ipairs { -1, 1e300, "x" } do
    local changed = { archive = { files = value } }
    for other, kept in pairs(good) do
      changed[other] = changed[other] or kept
    end
    lu.assertNil((manifest.decode(json.encode(changed), name)))
  end
end

return { TestManifest = TestManifest }
