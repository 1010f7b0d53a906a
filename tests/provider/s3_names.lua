-- SPDX-License-Identifier: MIT
-- s3_names.lua - objects under names that another client gave them, or is to read. Run by test_s3_clients.py:
-- `luarun s3_names.lua write|read|count URL [FILE]`, FILE being a JSON list of keys. Prints JSON.
local fs = require "lunark.fs"
local json = require "lunark.json"
local store = require "lunark.store"

local mode, where, file = ...
local s = assert(store.open(where))

local function content(key)
  local body <close> = assert(s:get(key))
  return assert(body:read_all(1 << 20))
end

local out = {}
if mode == "write" then
  for _, key in ipairs(assert(json.decode(assert(fs.read_text(file))))) do
    assert(s:put(key, "content of " .. key))
  end
elseif mode == "read" then
  for info, err in s:list() do
    local key = assert(info, err).key
    assert(assert(s:head(key)).size == info.size, key)
    out[#out + 1] = { key = key, text = content(key) }
  end
elseif mode == "count" then
  out.count, out.ordered = 0, true
  local last = ""
  for info, err in s:list() do
    out.ordered = out.ordered and last < assert(info, err).key
    last, out.count = info.key, out.count + 1
  end
end
io.stdout:write(json.encode(out), "\n")
