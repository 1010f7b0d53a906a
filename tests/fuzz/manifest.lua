-- SPDX-License-Identifier: MIT
-- Any text as JSON and as a manifest. What is read as JSON can be written, and reads the same again; what
-- is taken for a manifest has the fields that a restore believes; nothing raises.
local json = require "lunark.json"
local manifest = require "lunark.manifest"
local sys = require "lunark.core.sys"

local KEY = "db/db-2020-06-16T123257Z.manifest.json"

local function same(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then return a == b and math.type(a) == math.type(b) end
  for key, value in pairs(a) do
    if not same(value, b[key]) then return false end
  end
  for key in pairs(b) do
    if a[key] == nil then return false end
  end
  return true
end

local function read_json(data)
  local value, err = json.decode(data)
  if value == nil then
    assert(sys.is_error(err) and err.kind == "corrupt", "an error of kind corrupt expected")
    return err.message
  end
  local text = json.encode(value)
  local again = json.decode(text)
  assert(same(value, again), "it reads differently once written: " .. text)
  assert(json.encode(again, "  ") == json.encode(value, "  "), "it is written differently")
  return type(value)
end

return function(data)
  local outcome = read_json(data)
  local found, err = manifest.decode(data, KEY)
  if not found then
    assert(sys.is_error(err) and (err.kind == "corrupt" or err.kind == "usage"), "corrupt or usage expected")
    return outcome .. err.message
  end
  assert(found.lunark_manifest == 1 and #found.sha256 == 64 and not found.sha256:find("%X"))
  assert(math.type(found.size) == "integer" and found.size >= 0)
  assert(found.key:find("/db%-2020%-06%-16T123257Z%.[^/]+$") or found.key:find("^db%-2020"))
  return "manifest"
end
