-- SPDX-License-Identifier: MIT
-- s3_faults.lua - providers/s3.lua against a server that answers as a script says, in front of a real one.
-- Run by test_s3_faults.py: `luarun s3_faults.lua CASE`, which prints what became of it.
local json = require "lunark.json"
local store = require "lunark.store"
local stream = require "lunark.core.stream"
local sys = require "lunark.core.sys"
local transfer = require "lunark.transfer"

local MiB = 1024 * 1024
local case, bucket = ...
local s = assert(store.open(("s3://%s/faults"):format(bucket or "lunark-test")))

local function upload(size)
  return transfer.upload(stream.of(("0123456789abcdef"):rep(size // 16)), { { store = s, key = "big" } },
    { part_size = 5 * MiB })
end

local function count_keys()
  local count = 0
  for info, err in s:list() do
    assert(info, err)
    count = count + 1
  end
  return count
end

local cases = {
  put = function() return s:put("key", "the body", { a = "1" }) end,
  exclusive = function() return s:put("key", "the body", nil, { exclusive = true }) end,
  head = function() return s:head("key") end,
  get = function() return s:get("key") end,
  list = function() return s:page("") end,
  delete = function() return s:delete("key") end,
  check = function() return s:check("write") end,
  read = function() return s:check("read") end,
  upload = function() return upload(12 * MiB) end,
  copy = function()
    assert(s:put("from", "bytes"))
    return s:copy("from", "to")
  end,
  delete_many = function()
    assert(s:put("a", "1"))
    assert(s:put("b", "2"))
    assert(s:delete { "a", "b", "c" })
    return count_keys() == 0
  end,
}

local result, err = cases[case]()
local out = { ok = result ~= nil and result ~= false, skew = s.skew, region = s.inner.region }
if err and sys.is_error(err) then
  for _, name in ipairs { "kind", "message", "hint", "code", "status", "retryable", "request_id" } do
    out[name] = err[name]
  end
end
io.stdout:write(json.encode(out), "\n")
