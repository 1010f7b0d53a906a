-- SPDX-License-Identifier: MIT
-- client.lua - the half of tests with a cloud's own client that is lunark's: `client.lua write|read FILE`.
-- The store is in LUNARK_TEST_STORE. FILE is JSON, a list of {key, size, meta}; an object's bytes are made
-- from its key. What is there is printed as JSON, a list of {key, size, sha256, meta} in the store's order.
local crypto = require "lunark.crypto"
local json = require "lunark.json"
local store = require "lunark.store"
local stream = require "lunark.core.stream"
local sys = require "lunark.core.sys"
local transfer = require "lunark.transfer"

local MiB = 1024 * 1024
local what, path = ...
local s = assert(store.open(assert(sys.env "LUNARK_TEST_STORE")))

local part = math.max(MiB, s.features.multipart.min or 1)

-- As the test makes them, too.
local function bytes_of(key, size)
  local block = crypto.digest("sha256", key)
  return block:rep(size // #block + 1):sub(1, size)
end

if what == "write" then
  local file <close> = assert(io.open(path, "rb"))
  for _, one in ipairs(assert(json.decode(file:read "a"))) do
    local body = bytes_of(one.key, one.size)
    if one.size < part then
      assert(s:put(one.key, body, one.meta))
    else
      local target = { store = s, key = one.key, meta = one.meta }
      assert(transfer.upload(stream.of(body), { target }, { part_size = part }))
    end
  end
end

local found = {}
for info, err in s:list() do
  assert(info, err)
  local body <close> = assert(s:get(info.key))
  found[#found + 1] = {
    key = info.key, size = info.size, sha256 = body:hash { "sha256" }.sha256,
    meta = assert(s:head(info.key)).meta,
  }
end
io.stdout:write(json.encode(found), "\n")
