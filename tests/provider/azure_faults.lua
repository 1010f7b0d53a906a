-- SPDX-License-Identifier: MIT
-- azure_faults.lua - providers/azure.lua against a server that answers as a script says, perhaps in front
-- of a real one. Run by test_azure_faults.py: `luarun azure_faults.lua CASE`, which prints what became of it.
local log = require "lunark.log"
local store = require "lunark.store"
local stream = require "lunark.core.stream"
local sys = require "lunark.core.sys"
local task = require "lunark.task"
local transfer = require "lunark.transfer"

local faults = dofile "tests/provider/faults.lua"
local noise = faults.noise

local MiB = 1024 * 1024
local case = ...
local server, account = sys.env "LUNARK_TEST_HTTP_URL", sys.env "AZURE_STORAGE_ACCOUNT" or "lunarktest"
local KEY = sys.env "AZURE_STORAGE_KEY" or "d3Jvbmcga2V5"

local function open(query, options)
  local url = ("azure://lunark-test/faults?account=%s&endpoint=%s/%s%s"):format(account, server, account,
    query or "")
  return assert(store.open(url, options or { account_key = KEY }))
end
local s = open()

local function upload(size, more)
  local target = { store = s, key = "big", meta = { mark = "yes" }, exclusive = more and more.exclusive }
  return transfer.upload(more and more.source or stream.of(noise(size)), { target }, { part_size = MiB })
end

-- Uploads, and reads back what is there then.
local function round_trip(size, more)
  local done, err = upload(size, more)
  if not done then return nil, err end
  faults.read_back(s, noise(size))
  return done
end

local function text_of(key)
  local body <close>, err = s:get(key)
  if not body then return nil, err end
  return body:read_all(MiB)
end

local cases = {
  put = function() return s:put("key", "the body", { a = "1" }) end,
  exclusive = function() return s:put("key", "the body", { a = "1" }, { exclusive = true }) end,
  head = function() return s:head("key") end,
  get = function() return s:get("key") end,
  text = function() return text_of("key") end,
  range = function() return s:get("key", { 2, 5 }) end,
  list = function() return s:page("") end,
  walk = function()
    for info, err in s:list() do
      if not info then return nil, err end
    end
    return true
  end,
  delete = function() return s:delete("key") end,
  delete_many = function() return s:delete { "a", "b", "c" } end,
  check = function() return s:check("write") end,
  read = function() return s:check("read") end,
  upload = function() return round_trip(3 * MiB + 5) end,
  upload_exclusive = function() return round_trip(3 * MiB + 5, { exclusive = true }) end,
  upload_only = function() return upload(3 * MiB + 5) end,
  -- A source that says nothing for 20 minutes, by the clock of the provider.
  silent = function()
    local late, clock = 0, s.inner.ctx.clock
    s.inner.ctx.clock = function() return clock() + late end
    local up <close> = assert(s:uploader("big"))
    assert(up:part(1, noise(MiB), 0))
    late = 1200
    assert(up:part(2, noise(MiB), MiB))
    return up:finish()
  end,
  -- Nothing comes for longer than a server keeps a connection.
  upload_slow = function()
    return round_trip(3 * MiB + 5, { source = stream.of(noise(3 * MiB + 5)):limit(MiB) })
  end,
  upload_twice = function()
    assert(round_trip(3 * MiB + 5, { exclusive = true }))
    return upload(3 * MiB + 5, { exclusive = true })
  end,
  stalled = function()
    local real = s.inner.ctx.http
    s.inner.ctx.http = setmetatable({ request = function(options)
      options.idle_timeout = 1
      return real.request(options)
    end }, { __index = real })
    return round_trip(3 * MiB + 5)
  end,
  many = function()
    local size = 10001 * 64 - 1
    local target = { store = s, key = "big", meta = { mark = "yes" }, exclusive = true }
    local done = assert(transfer.upload(stream.of(noise(size)), { target }, { part_size = 64 }))
    local back <close> = assert(s:get("big"))
    return done.parts == 10001 and back:read_all(size) == noise(size)
  end,
  cancel = function()
    local running = task.spawn(upload, 8 * MiB, { source = stream.of(noise(8 * MiB)):limit(4 * MiB) })
    task.sleep(0.7)
    task.cancel(running, "enough")
    local _, err = task.join(running)
    assert(s:head("big") == nil, "something is there")
    return nil, err
  end,
  -- Two uploads of one name: that the second one fails is not the first one's loss.
  beside = function()
    local other <close> = assert(s:uploader("big", {}))
    assert(other:part(1, noise(5)))
    local done, err = upload(3 * MiB)
    assert(not done and err.kind == "auth", "did not fail")
    assert(other:finish())
    return text_of("big") == noise(5)
  end,
  replace = function()
    assert(s:put("big", "before"))
    local done, err = upload(3 * MiB)
    assert(not done and err.kind == "auth", "did not fail")
    return text_of("big") == "before"
  end,
  copy = function()
    assert(s:put("from", "bytes"))
    assert(s:copy("from", "to", { of = "from" }))
    return text_of("to") == "bytes"
  end,
  copy_only = function() return s:copy("from", "to", { of = "from" }, { replaces = false }) end,
  latest = function() return s:copy("from", "to", { of = "from" }, { replaces = "0x8D" }) end,
  copy_new = function()
    assert(s:put("from", "bytes"))
    return s:copy("from", "to", { of = "from" }, { replaces = false })
  end,
  copy_known = function()
    assert(s:put("from", "bytes"))
    local old = assert(s:put("to", "old"))
    return s:copy("from", "to", { of = "from" }, { replaces = old.version })
  end,
  races = function()
    assert(s:put("from", "bytes"))
    assert(s:put("to", "old"))
    local old = assert(s:head("to")).version
    assert(s:copy("from", "to", { of = "1" }, { replaces = old }))
    local done, err = s:copy("from", "to", { of = "2" }, { replaces = old })
    assert(not done and err.kind == "conflict", "replaced what it did not know")
    done, err = s:copy("from", "to", { of = "2" }, { replaces = false })
    assert(not done and err.kind == "conflict", "replaced what was not to be there")
    return s:head("to").meta.of == "1"
  end,
  tier = function()
    s = open("&access_tier=Cool")
    assert(s:put("key", "x"))
    assert(upload(3 * MiB))
    return s:copy("key", "to")
  end,
  no_md5 = function()
    s = open("&check_md5=false")
    assert(s:put("key", "x"))
    return upload(3 * MiB)
  end,
  sas = function()
    s = open("", { sas_token = sys.env "LUNARK_TEST_AZURE_SAS" })
    assert(s:put("from", "bytes"))
    assert(s:copy("from", "to", { of = "from" }))
    assert(round_trip(3 * MiB + 5))
    return s:delete { "from", "to", "big" }
  end,
  sas_refused = function()
    s = open("", { sas_token = "sv=2021-12-02&ss=b&srt=co&sp=c&sig=very%2Fsecret%3D" })
    return s:put("key", "x")
  end,
}

local result, err = cases[case]()
if err and sys.is_error(err) then log.error(err.message) end
faults.report(result, err, { skew = s.skew })
