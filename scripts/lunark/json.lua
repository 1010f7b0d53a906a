-- SPDX-License-Identifier: MIT
--- JSON: text to Lua values by lua-cjson, Lua values to text with sorted keys.
--- Needs lua-cjson. Integers stay integers, an empty array can be written, and failures are
--- returned, not raised. The writer is Lua because what it writes is kept (manifests): the same
--- value must always give the same bytes.

local cjson = require "cjson"
local sys = require "lunark.core.sys"

local json = {}

local decoder = cjson.new()
decoder.decode_max_depth(64)
decoder.decode_invalid_numbers(false)

--- What JSON's null is read as, and written from.
json.null = cjson.null

local array_mark = {}

--- Marks a table as an array, so that an empty one is written `[]`.
---@param list table?
---@return table list
function json.array(list)
  return setmetatable(list or {}, array_mark)
end

local function failed(format, ...)
  return nil, sys.error { kind = "corrupt", op = "json", message = format:format(...) }
end

-- cjson gives every number as a float; a whole one that a double holds exactly is an integer again.
-- Raises for one that no double holds: it would be infinite.
local function restore_integers(value)
  if type(value) == "number" then
    if value == math.huge or value == -math.huge then error("a number is out of range", 0) end
    if math.type(value) == "float" and value == math.floor(value) and math.abs(value) <= 2 ^ 53 then
      return math.tointeger(value)
    end
    return value
  end
  if type(value) ~= "table" then return value end
  for key, item in pairs(value) do
    local kind = type(item)
    if kind == "number" or kind == "table" then value[key] = restore_integers(item) end
  end
  return value
end

--- Reads one JSON value.
---@param text string
---@param what string? names the text in an error: "manifest a/b"
---@return any value or nil
---@return table? err kind corrupt
function json.decode(text, what)
  local ok, value = pcall(decoder.decode, text)
  if ok then ok, value = pcall(restore_integers, value) end
  if not ok then
    local reason = tostring(value):gsub("^.-:%d+: ", "")
    return failed("%s is not JSON: %s", what or "text", reason:sub(1, 1):lower() .. reason:sub(2))
  end
  return value
end

local function encode_number(value)
  if math.type(value) == "integer" then return ("%d"):format(value) end
  if value ~= value or value == math.huge or value == -math.huge then
    local message = "JSON has no infinite numbers and no NaN"
    error(sys.error { kind = "usage", op = "json.encode", message = message }, 0)
  end
  local short = ("%.14g"):format(value)
  if tonumber(short) ~= value then short = ("%.17g"):format(value) end
  return short
end

local function is_array(value)
  if getmetatable(value) == array_mark then return true end
  local count = 0
  for key in pairs(value) do
    if math.type(key) ~= "integer" or key < 1 then return false end
    count = count + 1
  end
  return count > 0 and count == #value
end

local encode_value

local function encode_array(value, out, indent, depth)
  if #value == 0 then
    out[#out + 1] = "[]"
    return
  end
  local inner = indent and "\n" .. indent:rep(depth + 1) or ""
  for index, item in ipairs(value) do
    out[#out + 1] = (index == 1 and "[" or ",") .. inner
    encode_value(item, out, indent, depth + 1)
  end
  out[#out + 1] = (indent and "\n" .. indent:rep(depth) or "") .. "]"
end

local function encode_object(value, out, indent, depth)
  local keys = {}
  for key in pairs(value) do
    if type(key) ~= "string" then
      error(sys.error {
        kind = "usage", op = "json.encode",
        message = ("a table with the key %s is neither a list nor an object"):format(tostring(key)),
      }, 0)
    end
    keys[#keys + 1] = key
  end
  if #keys == 0 then
    out[#out + 1] = "{}"
    return
  end
  table.sort(keys)
  local inner = indent and "\n" .. indent:rep(depth + 1) or ""
  for index, key in ipairs(keys) do
    out[#out + 1] = (index == 1 and "{" or ",") .. inner .. cjson.encode(key) .. (indent and ": " or ":")
    encode_value(value[key], out, indent, depth + 1)
  end
  out[#out + 1] = (indent and "\n" .. indent:rep(depth) or "") .. "}"
end

function encode_value(value, out, indent, depth)
  if depth > 64 then
    local message = "the value nests deeper than 64 levels"
    error(sys.error { kind = "usage", op = "json.encode", message = message }, 0)
  end
  local kind = type(value)
  if kind == "string" then
    out[#out + 1] = (cjson.encode(value):gsub("\\/", "/"))
  elseif kind == "number" then
    out[#out + 1] = encode_number(value)
  elseif kind == "boolean" then
    out[#out + 1] = tostring(value)
  elseif value == json.null then
    out[#out + 1] = "null"
  elseif kind == "table" then
    if is_array(value) then
      encode_array(value, out, indent, depth)
    else
      encode_object(value, out, indent, depth)
    end
  elseif sys.is_secret(value) then
    out[#out + 1] = '"***"'
  else
    error(sys.error { kind = "usage", op = "json.encode", message = "JSON has no value for a " .. kind }, 0)
  end
end

--- Writes a value with sorted keys. An empty table is an object; `json.array{}` is an empty array.
--- A secret is written as `***`. Raises kind usage for what JSON can't say (functions, NaN, mixed
--- tables).
---@param value any
---@param indent string? two spaces make it readable
---@return string
function json.encode(value, indent)
  local out = {}
  encode_value(value, out, indent, 0)
  return table.concat(out)
end

return json
