-- SPDX-License-Identifier: MIT
-- conformance_uploads.lua - the part of conformance.lua about uploads in parts, sources that fail, and keys
-- that are taken. conformance.lua runs it, with what the two share.
local lu = require "luaunit"
local stream = require "lunark.core.stream"
local sys = require "lunark.core.sys"
local task = require "lunark.task"
local transfer = require "lunark.transfer"

local MiB = 1024 * 1024

local suite = ...
local TestStore, is_local, s = suite.tests, suite.is_local, suite.store
local text_of, keys_below, noise = suite.text_of, suite.keys_below, suite.noise
local sha256, upload = suite.sha256, suite.upload

local sizes = {
  empty = 0, one_byte = 1, below_a_part = 5 * MiB - 1, a_part = 5 * MiB, a_part_and_a_byte = 5 * MiB + 1,
  two_parts = 10 * MiB, many_parts = 23 * MiB + 12345,
}

for case, size in pairs(sizes) do
  TestStore["test_upload_" .. case] = function()
    local body = noise(size, case)
    local done = upload("u/" .. case, body, 5 * MiB)
    lu.assertEquals(done.bytes, size)
    lu.assertEquals(done.sha256, sha256(body))
    lu.assertEquals(done.parts, math.max(1, (size + 5 * MiB - 1) // (5 * MiB)))
    local read <close> = assert(s():get("u/" .. case))
    local hashes, bytes = read:hash { "sha256" }
    lu.assertEquals(bytes, size)
    lu.assertEquals(hashes.sha256, sha256(body))
    local info = assert(s():head("u/" .. case))
    lu.assertEquals(info.size, size)
    lu.assertEquals(info.etag, done.targets[1].info.etag)
  end
end

function TestStore.test_upload_replaces()
  assert(s():put("key", "old", { a = "1" }))
  upload("key", noise(6 * MiB, "new"), 5 * MiB)
  lu.assertEquals(assert(s():head("key")).size, 6 * MiB)
  lu.assertEquals(assert(s():head("key")).meta, {})
end

-- A store that takes parts one after the other.
local function in_turn()
  return s().features.multipart.width == 1
end

function TestStore.test_parts_out_of_order()
  local one, two, three = noise(5 * MiB, "1"), noise(5 * MiB, "2"), "the end"
  local up <close> = assert(s():uploader("key"))
  if in_turn() then
    local part, err = up:part(3, three, 10 * MiB)
    lu.assertNil(part)
    lu.assertEquals(err.kind, "usage")
    return
  end
  assert(up:part(3, three, 10 * MiB))
  assert(up:part(1, one, 0))
  lu.assertNil(s():head("key"))
  assert(up:part(2, two, 5 * MiB))
  lu.assertEquals(keys_below(""), {})
  assert(up:finish())
  lu.assertEquals(sha256(text_of("key")), sha256(one .. two .. three))
end

function TestStore.test_a_part_sent_twice()
  local up <close> = assert(s():uploader("key"))
  local right = noise(5 * MiB, "right")
  if in_turn() then
    assert(up:part(1, right, 0))
    assert(up:part(1, right, 0))
    assert(up:part(2, "tail", 5 * MiB))
  else
    assert(up:part(1, noise(5 * MiB, "wrong"), 0))
    assert(up:part(2, "tail", 5 * MiB))
    assert(up:part(1, right, 0))
  end
  assert(up:finish())
  lu.assertEquals(sha256(text_of("key")), sha256(right .. "tail"))
end

function TestStore.test_abort_leaves_nothing()
  assert(s():put("key", "old"))
  local up = assert(s():uploader("key"))
  assert(up:part(1, noise(5 * MiB, "gone"), 0))
  assert(up:abort())
  lu.assertTrue(up:abort())
  lu.assertEquals(text_of("key"), "old")
  lu.assertEquals(TestStore.open_uploads(), 0)
end

function TestStore.test_upload_not_finished_is_aborted()
  do
    local up <close> = assert(s():uploader("key"))
    assert(up:part(1, noise(5 * MiB, "gone"), 0))
  end
  lu.assertNil(s():head("key"))
  lu.assertEquals(TestStore.open_uploads(), 0)
end

-- How many unfinished uploads the store holds below the case's prefix.
function TestStore.open_uploads()
  if is_local then
    local fs = require "lunark.fs"
    local count = 0
    for _, name in ipairs(fs.readdir(suite.prefix()) or {}) do
      if name:find("%.tmp$") then count = count + 1 end
    end
    return count
  end
  -- Not every store can list them; tests with a scripted server look at the requests then.
  if not s().inner.send_xml then return 0 end
  local root = assert(s().inner:send_xml { op = "uploads", method = "GET", query = { { "uploads", "" } } })
  local count = 0
  for one in root:each("Upload") do
    if one:value("Key"):find(s().prefix, 1, true) == 1 then count = count + 1 end
  end
  return count
end

-- A stream that fails after some bytes: what gunzip finds when the end is missing.
local function failing(size)
  local gz <close> = assert(stream.of(noise(size, "cut")):gzip { level = "fast" })
  local text = assert(gz:read_all(64 * MiB))
  return stream.of(text:sub(1, #text - 100)):gunzip()
end

function TestStore.test_source_fails()
  assert(s():put("key", "old"))
  local targets = { { store = s(), key = "key" } }
  local done, err = transfer.upload(failing(16 * MiB), targets, { part_size = 5 * MiB })
  lu.assertNil(done)
  lu.assertEquals(err.kind, "corrupt")
  lu.assertEquals(text_of("key"), "old")
  lu.assertEquals(TestStore.open_uploads(), 0)
end

function TestStore.test_small_source_fails()
  local done, err = transfer.upload(failing(MiB), { { store = s(), key = "key" } })
  lu.assertNil(done)
  lu.assertEquals(err.kind, "corrupt")
  lu.assertEquals(keys_below(""), {})
end

function TestStore.test_cancel_leaves_nothing()
  local source = stream.of(noise(20 * MiB, "slow")):limit(12 * MiB)
  local targets = { { store = s(), key = "key" } }
  local running = task.spawn(transfer.upload, source, targets, { part_size = 5 * MiB })
  task.sleep(0.7)
  task.cancel(running, "enough")
  local ok, err = task.join(running)
  lu.assertFalse(ok)
  lu.assertEquals(err.kind, "cancelled")
  lu.assertEquals(keys_below(""), {})
  lu.assertEquals(TestStore.open_uploads(), 0)
end

function TestStore.test_exclusive()
  assert(s():put("taken", "first"))
  local info, err = s():put("taken", "second", nil, { exclusive = true })
  if info then return end -- the store takes no conditions, which it has said
  lu.assertEquals(err.kind, "conflict")
  lu.assertEquals(text_of("taken"), "first")
  assert(s():put("free", "x", nil, { exclusive = true }))
end

function TestStore.test_exclusive_upload()
  assert(s():put("taken", "first"))
  local done, err = transfer.upload(stream.of(noise(6 * MiB, "second")),
    { { store = s(), key = "taken", exclusive = true } }, { part_size = 5 * MiB })
  if done then return end
  lu.assertEquals(err.kind, "conflict")
  lu.assertEquals(text_of("taken"), "first")
  lu.assertEquals(TestStore.open_uploads(), 0)
  upload("free", noise(6 * MiB, "free"), 5 * MiB, { exclusive = true })
end

function TestStore.test_range_across_parts()
  local body = noise(11 * MiB, "across")
  upload("key", body, 5 * MiB)
  for _, at in ipairs { 5 * MiB, 10 * MiB } do
    lu.assertEquals(text_of("key", { at - 10, at + 9 }), body:sub(at - 9, at + 10))
  end
  lu.assertEquals(text_of("key", { 10 * MiB + 1 }), body:sub(10 * MiB + 2))
end

function TestStore.test_upload_of_odd_names()
  for _, key in ipairs { "a b+c%2B/ü:1.gz", ("part/"):rep(40) .. "日本" } do
    upload(key, noise(6 * MiB, key), 5 * MiB)
    lu.assertEquals(sha256(text_of(key)), sha256(noise(6 * MiB, key)))
    lu.assertEquals(keys_below(key), { key })
  end
end

-- --- uploads that were left ---

local function left()
  local found = {}
  for one, err in s():uploads("left/") do found[#found + 1] = assert(one, err) end
  table.sort(found, function(a, b) return a.key < b.key end)
  return found
end

function TestStore.test_uploads_in_flight()
  lu.assertEquals(left(), {})
  local one <close> = assert(s():uploader("left/one.tar.gz"))
  local two <close> = assert(s():uploader("left/two b+c.tar.gz"))
  local other <close> = assert(s():uploader("other/three.tar.gz"))
  for _, up in ipairs { one, two, other } do assert(up:part(1, noise(5 * MiB, "left"), 0)) end
  assert(s():put("left/whole.tar.gz", ""))
  local found = left()
  lu.assertEquals({ found[1].key, found[2].key, #found }, { "left/one.tar.gz", "left/two b+c.tar.gz", 2 })
  for _, up in ipairs(found) do
    if up.began then lu.assertAlmostEquals(up.began, sys.clock(), 60) end
    local touched = s():upload_time(up)
    if touched then lu.assertAlmostEquals(touched, sys.clock(), 60) end
    lu.assertNotNil(touched)
  end
  if not s():can_discard() then return end
  assert(s():discard(found[1]))
  assert(s():discard(found[1]))
  lu.assertEquals(#left(), 1)
  lu.assertEquals(left()[1].key, found[2].key)
  local touched, err = s():upload_time(found[1])
  lu.assertNil(touched)
  lu.assertEquals(err.kind, "not_found")
  lu.assertNil(s():head("left/one.tar.gz"))
  assert(two:finish())
  lu.assertEquals(left(), {})
end
