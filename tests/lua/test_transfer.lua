-- SPDX-License-Identifier: MIT
-- lunark.transfer against stores in memory that fail as they are told: sizes of parts, several
-- targets, order, bounds, and what is left when something goes wrong.
local lu = require "luaunit"
local fs = require "lunark.fs"
local store = require "lunark.store"
local stream = require "lunark.core.stream"
local sys = require "lunark.core.sys"
local task = require "lunark.task"
local transfer = require "lunark.transfer"

local KiB, MiB, GiB = 1024, 1024 * 1024, 1024 * 1024 * 1024
local TestTransfer = {}

-- A store in memory. `behaviour` has functions by the name of a call; what they return as an error
-- is its failure.
local function memory_store(features, behaviour)
  behaviour = behaviour or {}
  local inner = { objects = {}, calls = {}, open = 0, sending = 0, most = 0, order = {} }
  local function call(name, ...)
    inner.calls[name] = (inner.calls[name] or 0) + 1
    if behaviour[name] then return behaviour[name](...) end
  end
  function inner:put(key, body, meta)
    local err = call("put", key, body)
    if err then return nil, err end
    self.objects[key] = { text = type(body) == "string" and body or body:string(), meta = meta }
    return { size = #self.objects[key].text }
  end
  function inner:head(key)
    if self.objects[key] then return { size = #self.objects[key].text } end
    return nil, sys.error { kind = "not_found", message = key .. ": there is no such object" }
  end
  inner.get, inner.list, inner.delete = inner.head, inner.head, inner.head
  function inner:begin(key, meta)
    local err = call("begin", key)
    if err then return nil, err end
    self.open = self.open + 1
    local upload = { parts = {} }
    function upload.part(_, number, body)
      self.sending = self.sending + 1
      self.most = math.max(self.most, self.sending)
      local why = call("part", number, body)
      self.sending = self.sending - 1
      if why then return nil, why end
      self.order[#self.order + 1] = number
      upload.parts[number] = body:string()
      return { number = number }
    end
    function upload.finish()
      local why = call("finish", key)
      if why then return nil, why end
      self.open = self.open - 1
      self.objects[key] = { text = table.concat(upload.parts), meta = meta }
      return { size = #self.objects[key].text }
    end
    function upload.abort()
      call("abort", key)
      self.open = self.open - 1
      return true
    end
    return upload
  end
  features = features or {}
  features.multipart = features.multipart or { min = 1, max = GiB, count = 10000 }
  return setmetatable({
    scheme = "mem", text = "mem://" .. (behaviour.name or "store"), prefix = "", skew = 0, inner = inner,
    provider = "memory", features = features,
  }, store.Store), inner
end

local function text_of(size)
  local block = {}
  for index = 1, 997 do block[index] = ("%d,"):format(index * 7919) end
  local text = table.concat(block)
  return text:rep(size // #text + 1):sub(1, size)
end

local function broken(message)
  return sys.error { kind = "io", message = message }
end

-- --- sizes ---

local function plan(features, options)
  return transfer.plan({ { store = memory_store(features), key = "k" } }, options)
end

local S3 = { multipart = { min = 5 * MiB, max = 5 * GiB, count = 10000 }, part_hash = { "sha256", "md5" } }

function TestTransfer.test_plan_with_the_default_budget()
  local made = assert(plan(S3, { memory = 24 * MiB }))
  lu.assertEquals({ made.size, made.width, made.spill_dir }, { 6 * MiB, 4 })
  lu.assertEquals(made.hash, { "sha256", "md5" })
end

function TestTransfer.test_plan_of_parts_that_go_in_turn()
  local in_turn = { multipart = { min = 256 * KiB, align = 256 * KiB, width = 1 } }
  local made = assert(plan(in_turn, { memory = 24 * MiB }))
  lu.assertEquals({ made.size, made.width }, { 12 * MiB, 2 })
  lu.assertEquals(assert(plan(in_turn, { memory = 100 * MiB })).size, 16 * MiB)
  local both = { { store = memory_store(S3), key = "k" }, { store = memory_store(in_turn), key = "k" } }
  lu.assertEquals(assert(transfer.plan(both, { memory = 24 * MiB })).size, 6 * MiB)
end

function TestTransfer.test_plan_of_many_parts()
  local azure = { multipart = { min = 1, max = 4000 * MiB, count = 50000 } }
  lu.assertEquals(assert(plan(azure, { memory = 24 * MiB })).size, 4 * MiB)
  lu.assertEquals(assert(plan({ multipart = { min = 1, max = 3 * MiB, count = 10 } }, {})).size, 3 * MiB)
end

function TestTransfer.test_plan_of_what_is_not_compressed()
  lu.assertTrue(assert(plan(S3, { raw = true })).width > assert(plan(S3, {})).width)
end

function TestTransfer.test_plan_for_an_expected_size()
  -- 10,000 parts of 6 MiB are 58 GiB; a tenth is kept for an estimate that is too small.
  lu.assertEquals(assert(plan(S3, { memory = 24 * MiB, expect_size = 50 * GiB })).size, 6 * MiB)
  lu.assertEquals(assert(plan(S3, { memory = 24 * MiB, expect_size = 100 * GiB })).size, 12 * MiB)
  local made = assert(plan(S3, { memory = 24 * MiB, expect_size = 1024 * GiB, spill_dir = "/tmp" }))
  lu.assertEquals({ made.size, made.spill_dir }, { 116 * MiB, "/tmp" })
  lu.assertTrue(made.size * 10000 >= 1024 * GiB)
end

function TestTransfer.test_plan_that_needs_more_memory()
  local made, err = plan(S3, { memory = 24 * MiB, expect_size = 1024 * GiB })
  lu.assertNil(made)
  lu.assertEquals(err.kind, "usage")
  lu.assertEquals(err.message, "parts of 116 MiB are needed, memory has room for 24 MiB of them")
  lu.assertEquals(err.hint, "give --work-dir, where parts can wait, or --memory 387M")
end

function TestTransfer.test_plan_beyond_the_store()
  local made, err = plan({ multipart = { min = 1, max = 10 * MiB, count = 10 } }, { expect_size = GiB })
  lu.assertNil(made)
  lu.assertStrContains(err.message, "do not fit into 10 parts of 10485760 bytes")
end

function TestTransfer.test_plan_with_little_memory()
  lu.assertEquals(assert(plan(S3, { memory = 15 * MiB })).size, 5 * MiB)
  lu.assertEquals(assert(plan(S3, { memory = 10 * MiB })).width, 2)
  lu.assertNil(plan(S3, { memory = 9 * MiB }))
end

function TestTransfer.test_plan_of_all_stores_together()
  local gcs = { multipart = { min = 256 * KiB, max = GiB, count = 1000, align = 256 * KiB, width = 1 },
    part_hash = { "crc32c" } }
  local made = assert(transfer.plan({
    { store = memory_store(S3), key = "k" }, { store = memory_store(gcs), key = "k" },
  }, { memory = 200 * MiB, expect_size = 20 * GiB }))
  lu.assertEquals(made.hash, { "sha256", "md5", "crc32c" })
  lu.assertEquals(made.count, 1000)
  lu.assertEquals(made.size % (256 * KiB), 0)
  lu.assertTrue(made.size * 1000 >= 20 * GiB)
end

-- --- one store ---

function TestTransfer.test_one_part_is_put()
  local s, inner = memory_store()
  local told = {}
  local done = assert(transfer.upload(stream.of "hello", { { store = s, key = "k", meta = { a = "1" } } }, {
    progress = function(bytes) told[#told + 1] = bytes end,
  }))
  lu.assertEquals(inner.calls, { put = 1 })
  lu.assertEquals(inner.objects.k, { text = "hello", meta = { a = "1" } })
  lu.assertEquals({ done.bytes, done.parts }, { 5, 1 })
  lu.assertEquals(done.sha256, "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824")
  lu.assertEquals(told, { 5 })
end

function TestTransfer.test_nothing_is_an_object_too()
  local s, inner = memory_store()
  local done = assert(transfer.upload(stream.of "", { { store = s, key = "k" } }))
  lu.assertEquals(inner.objects.k.text, "")
  lu.assertEquals(done.sha256, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
end

function TestTransfer.test_parts()
  local s, inner = memory_store()
  local text, told = text_of(1000 * KiB + 1), {}
  local done = assert(transfer.upload(stream.of(text), { { store = s, key = "k" } }, {
    part_size = 100 * KiB, memory = 500 * KiB, progress = function(bytes) told[#told + 1] = bytes end,
  }))
  lu.assertTrue(inner.objects.k.text == text)
  lu.assertEquals(done.parts, 11)
  lu.assertEquals(inner.calls, { begin = 1, part = 11, finish = 1 })
  lu.assertEquals(inner.open, 0)
  lu.assertEquals(told[#told], #text)
end

function TestTransfer.test_no_more_parts_at_once_than_memory_has_room_for()
  local s, inner = memory_store(nil, { part = function() task.sleep(0.005) end })
  local text = text_of(2 * MiB)
  assert(transfer.upload(stream.of(text), { { store = s, key = "k" } }, {
    part_size = 64 * KiB, memory = 256 * KiB,
  }))
  lu.assertTrue(inner.objects.k.text == text)
  lu.assertTrue(inner.most <= 4 and inner.most >= 2, inner.most)
end

function TestTransfer.test_parts_in_turn()
  local features = { multipart = { min = 1, max = GiB, count = 1000, width = 1 } }
  local s, inner = memory_store(features, { part = function(number) task.sleep(number % 3 * 0.002) end })
  assert(transfer.upload(stream.of(text_of(MiB)), { { store = s, key = "k" } }, {
    part_size = 64 * KiB, memory = 512 * KiB,
  }))
  lu.assertEquals(inner.most, 1)
  for index = 1, 16 do lu.assertEquals(inner.order[index], index) end
end

function TestTransfer.test_a_part_too_large_for_one_put()
  local s, inner = memory_store { put_max = 10 }
  assert(transfer.upload(stream.of(("x"):rep(11)), { { store = s, key = "k" } }))
  lu.assertEquals(inner.calls, { begin = 1, part = 1, finish = 1 })
end

function TestTransfer.test_more_parts_than_the_store_takes()
  local s, inner = memory_store { multipart = { min = 1, max = GiB, count = 3 } }
  local done, err = transfer.upload(stream.of(text_of(400 * KiB)), { { store = s, key = "k" } }, {
    part_size = 100 * KiB - 1,
  })
  lu.assertNil(done)
  lu.assertStrContains(err.message, "needs more than 3 parts")
  lu.assertStrContains(err.hint, "--expect-size")
  lu.assertNil(inner.objects.k)
  lu.assertEquals(inner.open, 0)
  lu.assertNil(inner.calls.finish)
end

function TestTransfer.test_parts_on_disk()
  local dir = assert(fs.tmpdir("/tmp", "lunark-spill"))
  local s, inner = memory_store()
  local text = text_of(3 * MiB)
  assert(transfer.upload(stream.of(text), { { store = s, key = "k" } }, {
    part_size = MiB, memory = MiB, spill_dir = dir,
  }))
  lu.assertTrue(inner.objects.k.text == text)
  lu.assertEquals(fs.readdir(dir), {})
  assert(fs.remove_all(dir))
end

-- --- several stores ---

function TestTransfer.test_one_read_in_two_stores()
  local a, one = memory_store()
  local b, two = memory_store(nil, { part = function() task.sleep(0.002) end })
  local text = text_of(900 * KiB)
  local done = assert(transfer.upload(stream.of(text), {
    { store = a, key = "x", meta = { to = "a" } }, { store = b, key = "y", meta = { to = "b" } },
  }, { part_size = 100 * KiB }))
  lu.assertTrue(done.targets[1].ok and done.targets[2].ok)
  lu.assertTrue(one.objects.x.text == text and two.objects.y.text == text)
  lu.assertEquals(two.objects.y.meta, { to = "b" })
end

function TestTransfer.test_one_of_two_fails()
  for _, at in ipairs { "begin", "part", "finish" } do
    local a, one = memory_store()
    local b, two = memory_store(nil, {
      [at] = function(number) return (at ~= "part" or number == 3) and broken("disk on fire") or nil end,
    })
    local text = text_of(900 * KiB)
    local targets = { { store = b, key = "k" }, { store = a, key = "k" } }
    local done = assert(transfer.upload(stream.of(text), targets, {
      part_size = 100 * KiB, memory = 300 * KiB,
    }))
    lu.assertEquals({ done.targets[1].ok, done.targets[2].ok }, { false, true }, at)
    lu.assertEquals(done.targets[1].err.message, "disk on fire", at)
    lu.assertTrue(one.objects.k.text == text, at)
    lu.assertNil(two.objects.k, at)
    lu.assertEquals(two.open, 0, at)
    lu.assertEquals(#done.sha256, 64)
  end
end

function TestTransfer.test_one_of_two_puts_fails()
  local a = memory_store(nil, { put = function() return broken("no") end })
  local b, two = memory_store()
  local done = assert(transfer.upload(stream.of "x", { { store = a, key = "k" }, { store = b, key = "k" } }))
  lu.assertEquals({ done.targets[1].ok, done.targets[2].ok }, { false, true })
  lu.assertEquals(two.objects.k.text, "x")
end

function TestTransfer.test_all_fail()
  local a, one = memory_store(nil, { part = function() return broken("a broke") end })
  local b, two = memory_store(nil, { part = function() return broken("b broke") end })
  local source = stream.of(text_of(900 * KiB))
  local done, err = transfer.upload(source, { { store = a, key = "k" }, { store = b, key = "k" } }, {
    part_size = 50 * KiB,
  })
  lu.assertNil(done)
  lu.assertEquals(err.message, "a broke")
  lu.assertEquals(err.targets[1].err.message, "a broke")
  lu.assertEquals(err.targets[2].err.message, "b broke")
  lu.assertEquals({ one.open, two.open }, { 0, 0 })
end

function TestTransfer.test_a_taken_key()
  local taken = sys.error { kind = "conflict", message = "k: the object is there already" }
  local s = memory_store(nil, { put = function() return taken end })
  local done, err = transfer.upload(stream.of "x", { { store = s, key = "k", exclusive = true } })
  lu.assertNil(done)
  lu.assertIs(err, taken)
end

-- --- retries, failing sources, cancelling ---

function TestTransfer.test_a_part_is_sent_again()
  local tries = {}
  local s, inner = memory_store(nil, {
    part = function(number)
      tries[number] = (tries[number] or 0) + 1
      if tries[number] == 1 and number % 2 == 0 then
        return sys.error { kind = "network", message = "connection reset", retryable = true }
      end
    end,
  })
  local text = text_of(500 * KiB)
  local targets = { { store = s, key = "k" } }
  local done = assert(transfer.upload(stream.of(text), targets, { part_size = 100 * KiB }))
  lu.assertTrue(done.targets[1].ok)
  lu.assertTrue(inner.objects.k.text == text)
  lu.assertEquals(tries, { 1, 2, 1, 2, 1 })
end

-- A stream whose end is missing: it fails there.
local function cut_short(size)
  local whole <close> = assert(stream.of(text_of(size)):gzip { level = "fast" })
  local text = assert(whole:read_all(64 * MiB))
  return assert(stream.of(text:sub(1, -30)):gunzip())
end

function TestTransfer.test_a_source_that_fails()
  local s, inner = memory_store()
  local targets = { { store = s, key = "k" } }
  local done, err = transfer.upload(cut_short(3 * MiB), targets, { part_size = 100 * KiB })
  lu.assertNil(done)
  lu.assertEquals(err.kind, "corrupt")
  lu.assertEquals({ inner.open, inner.calls.finish, inner.objects.k }, { 0 })
  s, inner = memory_store()
  done, err = transfer.upload(cut_short(10 * KiB), { { store = s, key = "k" } })
  lu.assertNil(done)
  lu.assertEquals(err.kind, "corrupt")
  lu.assertEquals(inner.calls, {})
end

function TestTransfer.test_cancel()
  for _, at in ipairs { "begin", "part", "finish" } do
    local reached = false
    local s, inner = memory_store(nil, {
      [at] = function()
        reached = true
        task.sleep(60)
      end,
    })
    local running = task.spawn(transfer.upload, stream.of(text_of(MiB)), { { store = s, key = "k" } }, {
      part_size = 100 * KiB, memory = 300 * KiB,
    })
    while not reached do task.sleep(0.001) end
    task.cancel(running, "enough")
    local ok, err = task.join(running)
    lu.assertFalse(ok)
    lu.assertEquals(err.kind, "cancelled", at)
    lu.assertNil(inner.objects.k, at)
    lu.assertEquals(inner.open, 0, at)
  end
end

function TestTransfer.test_misuse()
  local s = memory_store()
  local ok, err = pcall(transfer.upload, stream.of "x", { { store = s, key = "k" } }, { expected_size = 1 })
  lu.assertFalse(ok)
  lu.assertStrContains(err.message, "expected_size")
  ok, err = pcall(transfer.upload, stream.of "x", {})
  lu.assertFalse(ok)
  lu.assertStrContains(err.message, "no target")
end

return { TestTransfer = TestTransfer }
