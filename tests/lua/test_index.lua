-- SPDX-License-Identifier: MIT
-- lunark.index: records and paths of an archive by ranged reads; damage, and what does not fit together.
local archive = require "lunark.archive"
local core = require "lunark.core.index"
local exec = require "lunark.exec"
local index = require "lunark.index"
local lu = require "luaunit"
local store = require "lunark.store"
local transfer = require "lunark.transfer"

local TestIndex = {}

local function sh(command)
  return assert(exec.run { "sh", "-c", command, stderr = "capture" }).stdout
end

-- An archive of 3,000 small files, one of 2.5 MB and some beside it, in a local store; one for all tests.
local function prepare(self)
  self.dir = sh("mktemp -d /tmp/lunark-test-XXXXXX"):gsub("\n$", "")
  sh(([[cd %s && mkdir -p tree/many tree/big 'tree/many!' 'tree/a[1]' && for i in $(seq 3000)
    do echo $i > tree/many/f$i; done && head -c 2500000 /dev/urandom > tree/big/one && echo x > tree/big/two
    echo y > 'tree/many!/z' && echo z > 'tree/a[1]/b']]):format(self.dir))
  self.store = assert(store.open(self.dir .. "/store"))
  assert(self.store:check("write"))
end

local function put(self, key, options)
  local made = assert(archive.create(options))
  assert(transfer.upload(made:stream(), { { store = self.store, key = key } }))
end

function TestIndex:setUp()
  prepare(self)
  put(self, "a.tar.gz", { roots = { { path = self.dir .. "/tree", name = "t" } } })
end

function TestIndex:tearDown()
  sh("rm -rf " .. self.dir)
end

local function paths(iterator, a, b, closing)
  local found = {}
  local _ <close> = closing
  for record, err in iterator, a, b do
    found[#found + 1] = record and record.path or error(err)
  end
  return found
end

-- Reads of the store from now on: {first, last}.
local function watch(self)
  local reads, get = {}, self.store.get
  self.store.get = function(me, key, range)
    reads[#reads + 1] = range
    return get(me, key, range)
  end
  return reads
end

function TestIndex:test_records_are_those_of_tar()
  local found = assert(index.open(self.store, "a.tar.gz"))
  local listed = {}
  for line in sh(("tar tzf %s/store/a.tar.gz"):format(self.dir)):gmatch("[^\n]+") do
    listed[#listed + 1] = line:gsub("/$", "")
  end
  lu.assertTrue(table.concat(paths(found:records()), "\n") == table.concat(listed, "\n"))
  lu.assertEquals(found.footer.records, #listed)
  lu.assertTrue(found.footer.ordered)
  local data = 0
  for block in found:blocks() do
    local _, members = block:count()
    for i = 1, members do
      local at, size, raw_at, raw = block:member(i)
      lu.assertEquals(raw_at, data)
      lu.assertEquals({ block:member_at(at) }, { at, size, raw_at, raw })
      lu.assertEquals({ block:member_of(raw_at + raw - 1) }, { at, size, raw_at, raw })
      data = data + raw
    end
  end
  lu.assertEquals(data, found.footer.bytes)
end

function TestIndex:test_a_record_says_what_the_file_is()
  local found = assert(index.open(self.store, "a.tar.gz"))
  local seen = {}
  for record in found:find({ "t/big/one", "t/big/two", "t/none" }, seen) do
    seen[record.path] = record
  end
  local one = seen["t/big/one"]
  lu.assertEquals({ 1, 1, nil }, { seen["t/big/one"] and 1, seen["t/big/two"] and 1, seen["t/none"] })
  lu.assertEquals({ one.type, one.size, one.large, one.cut }, { "0", 2500000, true, false })
  local hex = sh(("sha256sum < %s/tree/big/one"):format(self.dir)):match("%x+")
  lu.assertEquals(require("lunark.crypto").hex(one.sha256), hex)
end

function TestIndex:test_what_globs_select()
  local found = assert(index.open(self.store, "a.tar.gz"))
  local function select(...)
    local cleaned = {}
    for i, glob in ipairs { ... } do
      cleaned[i] = index.clean(glob)
    end
    return paths(found:find(cleaned))
  end
  lu.assertEquals(select("t/big"), { "t/big", "t/big/one", "t/big/two" })
  lu.assertEquals(select("/t/big/"), { "t/big", "t/big/one", "t/big/two" })
  lu.assertEquals(select("./t/big/t*"), { "t/big/two" })
  lu.assertEquals(select("*/two", "t/big"), { "t/big", "t/big/one", "t/big/two" })
  lu.assertEquals(select("t/many/f300[0-3]"), { "t/many/f3000" })
  lu.assertEquals(select("t/many!"), { "t/many!", "t/many!/z" })
  lu.assertEquals(select("t/a\\[1]/?"), { "t/a[1]/b" })
  lu.assertEquals(select("t/bi"), {})
  lu.assertEquals(#select("/"), 3000 + 9)
end

function TestIndex:test_only_the_blocks_that_are_needed()
  local reads = watch(self)
  local found = assert(index.open(self.store, "a.tar.gz"))
  found.tail_at = found.size -- nothing is here already
  lu.assertEquals(#reads, 1)
  lu.assertEquals(paths(found:find({ "t/many/f1000" })), { "t/many/f1000" })
  lu.assertEquals(#reads, 2)
  lu.assertTrue(reads[2][2] - reads[2][1] < 9000)
  lu.assertTrue(found.footer.blocks > 20)
end

function TestIndex:test_roots_out_of_order()
  put(self, "b.tar.gz", {
    roots = { { path = self.dir .. "/tree/many", name = "m" }, { path = self.dir .. "/tree/big", name = "b" },
      { path = self.dir .. "/tree/many!", name = "z" } },
  })
  local found = assert(index.open(self.store, "b.tar.gz"))
  lu.assertFalse(found.footer.ordered)
  lu.assertEquals(paths(found:find({ "b/one" })), { "b/one" })
end

function TestIndex.test_order_of_paths()
  lu.assertTrue(index.compare("a/b", "a!b") < 0)
  lu.assertTrue(index.compare("a", "a/") < 0)
  lu.assertTrue(index.compare("a\xff", "b") < 0)
  lu.assertEquals(index.compare("x/y", "x/y"), 0)
end

-- Changes the archive's bytes and opens its index, or reads all of it.
local function after(self, change)
  local path = self.dir .. "/store/a.tar.gz"
  local file = assert(io.open(path, "rb"))
  local text = file:read("a")
  file:close()
  file = assert(io.open(self.dir .. "/store/c.tar.gz", "wb"))
  file:write(change(text))
  file:close()
  local found, err = index.open(self.store, "c.tar.gz")
  if not found then
    return err
  end
  for record, why in found:records() do
    if not record then
      return why
    end
  end
end

local function flip(text, at)
  return text:sub(1, at) .. string.char(text:byte(at + 1) ~ 1) .. text:sub(at + 2)
end

function TestIndex:test_damage()
  local found = assert(index.open(self.store, "a.tar.gz"))
  local refs = {}
  for _, ref in found:blocks() do
    refs[#refs + 1] = ref
  end
  local footer = found.footer
  local cases = {
    { "none", "has no index", function(text) return text:sub(1, -2) end },
    { "none", "has no index", function(text) return text:sub(1, 100) end },
    { "none", "has no index", function() return "" end },
    { "damaged", "a checksum", function(text) return flip(text, #text - 30) end },
    { "damaged", "footer does not fit", function(text) return "x" .. text end },
    { "damaged", "a checksum", function(text) return flip(text, footer.list_at + 40) end },
    { "damaged", "a checksum", function(text) return flip(text, refs[3].at + 100) end },
    { "damaged", "not what it should be", function(text) return flip(text, refs[3].at) end },
    -- two blocks in each other's place, with nothing wrong in them
    { "damaged", "", function(text)
      local one, two = refs[2], refs[3]
      local block = text:sub(one.at + 1, one.at + one.size)
      return text:sub(1, two.at) .. block .. text:sub(two.at + 1 + one.size)
    end },
  }
  for i, case in ipairs(cases) do
    local err = after(self, case[3])
    lu.assertEquals(err and err.index, case[1], "case " .. i .. ": " .. tostring(err))
    lu.assertStrContains(err.message, case[2])
  end
end

function TestIndex:test_an_object_that_is_replaced()
  local found = assert(index.open(self.store, "a.tar.gz"))
  found.tail_at = found.size
  found.etag = "another"
  local next_block, _, _, closing = found:blocks()
  local _ <close> = closing
  local block, err = next_block()
  lu.assertFalse(block)
  lu.assertEquals(err.kind, "conflict")
  lu.assertNil(err.index)
end

function TestIndex.test_misuse()
  lu.assertErrorMsgContains("argument 1 must be a string", core.block, {})
  lu.assertErrorMsgContains("outside of the 1 bytes", core.list, "x", 2)
  local _, err = core.list("x")
  lu.assertEquals(err.kind, "corrupt")
  _, err = core.footer("x", 1)
  lu.assertEquals(err.kind, "not_found")
end

return { TestIndex = TestIndex }
