-- SPDX-License-Identifier: MIT
-- Names of stored objects: <item>/<item>-TIME<suffix>, its manifest beside it, and
-- <item>/<item>-latest<suffix>. TIME is the start of the run in UTC. Two forms of it are written and
-- read: `standard`, 2020-06-16T123257Z, and `compat`, 2020-06-16-12:32:57. Needs lunark.core.sys.

local sys = require "lunark.core.sys"
local time = require "lunark.time"

local naming = {}

--- The forms of TIME by name, each a format for year, month, day, hour, minute, second.
naming.styles = { standard = "%04d-%02d-%02dT%02d%02d%02dZ", compat = "%04d-%02d-%02d-%02d:%02d:%02d" }

--- What a manifest's key ends with.
naming.MANIFEST = ".manifest.json"

local STANDARD = "(%d%d%d%d)%-(%d%d)%-(%d%d)T(%d%d)(%d%d)(%d%d)Z"
local COMPAT = "(%d%d%d%d)%-(%d%d)%-(%d%d)%-(%d%d):(%d%d):(%d%d)"
local NAME_MAX = 120

local function usage(message, hint)
  return nil, sys.error { kind = "usage", message = message, hint = hint }
end

--- Formats a time.
---@param seconds number since 1970, UTC; fractions are cut off
---@param style string|nil "standard" (default) or "compat"
---@return string
function naming.format_time(seconds, style)
  local form = naming.styles[style or "standard"]
  if not form then
    error(sys.error { kind = "usage", message = "unknown form of time '" .. tostring(style) .. "'" })
  end
  local t = time.fields(seconds)
  return form:format(t.year, t.month, t.day, t.hour, t.min, t.sec)
end

--- Reads a TIME of either form.
---@param text string
---@return integer|nil seconds since 1970, UTC; nil when it is no such time
---@return string|nil style
function naming.parse_time(text)
  local style = "standard"
  local year, month, day, hour, minute, second = text:match("^" .. STANDARD .. "$")
  if not year then
    style = "compat"
    year, month, day, hour, minute, second = text:match("^" .. COMPAT .. "$")
    if not year then
      return nil
    end
  end
  local seconds = time.of {
    year = math.tointeger(year), month = math.tointeger(month), day = math.tointeger(day),
    hour = math.tointeger(hour), min = math.tointeger(minute), sec = math.tointeger(second),
  }
  if not seconds then
    return nil
  end
  return seconds, style
end

--- Reads what a person gives for --at.
---@param text string "latest", RFC 3339, or a TIME as in a key
---@return integer|string|nil seconds since 1970, or "latest"
---@return table|nil err
function naming.parse_at(text)
  if text == "latest" then
    return "latest"
  end
  local seconds = naming.parse_time(text) or time.parse(text)
  if not seconds then
    return usage("'" .. text .. "' is no time",
      "write 2020-06-16T12:32:57Z, 2020-06-16T123257Z, 2020-06-16-12:32:57 or latest")
  end
  return math.floor(seconds)
end

--- Checks the name of an item.
---@param name string
---@return true|nil
---@return table|nil err
function naming.check_name(name)
  if type(name) ~= "string" or name == "" then
    return usage("the name of an item is empty", "give one with --name")
  elseif #name > NAME_MAX then
    return usage(("the name '%s...' has %d bytes, at most %d are allowed")
      :format(name:sub(1, 20), #name, NAME_MAX))
  elseif name == "." or name == ".." or name:find("[/%c]") then
    return usage(("'%s' can't be a name: no '/', no control characters, not '.' or '..'")
      :format((name:gsub("%c", "?"))), "give another with --name; folders belong into the URL")
  elseif not utf8.len(name) then
    -- It goes into manifests and keys, which are text.
    return usage(("'%s' can't be a name: UTF-8 expected"):format((name:gsub("[\x80-\xff]", "?"))),
      "give another with --name")
  end
  return true
end

--- Checks the suffix of a program's output.
---@param suffix string "" or ".dump" and the like
---@return true|nil
---@return table|nil err
function naming.check_suffix(suffix)
  if type(suffix) == "string" and suffix:find("^[%.%w_%-]*$") and (suffix == "" or suffix:sub(1, 1) == ".")
    and not (suffix .. "."):find("^%.manifest%.") and not (suffix .. "."):find("^%.report%.") then
    return true
  end
  return usage(("'%s' can't be a suffix: a dot, then letters, digits, '_' and '-', not .manifest or .report")
    :format(tostring(suffix)))
end

--- The key of the data object.
---@param name string item
---@param seconds number start of the run
---@param suffix string with its dot, as it is stored: ".tar.gz", ".dump.gz"
---@param style string|nil form of TIME
---@return string
function naming.data_key(name, seconds, suffix, style)
  return ("%s/%s-%s%s"):format(name, name, naming.format_time(seconds, style), suffix)
end

--- The key of the manifest of one run of one item.
function naming.manifest_key(name, seconds, style)
  return naming.data_key(name, seconds, naming.MANIFEST, style)
end

--- The key of the newest backup's copy.
function naming.latest_key(name, suffix)
  return ("%s/%s-latest%s"):format(name, name, suffix)
end

---@class lunark.naming.Key
---@field item string
---@field kind string "data", "manifest", "latest" or "report"
---@field suffix string with its dot
---@field time integer|nil seconds since 1970
---@field stamp string|nil TIME as written
---@field style string|nil form of TIME

-- What stands behind the item's name in a file's name.
local function parse_rest(item, rest)
  local latest = rest:match("^latest(%..+)$")
  if latest then
    return { item = item, kind = "latest", suffix = latest }
  end
  local stamp, suffix = rest:match("^([%d%-:TZ]+)(%..+)$")
  local seconds, style
  if stamp then
    seconds, style = naming.parse_time(stamp)
  end
  if not seconds then
    return nil
  end
  local kind = "data"
  if suffix == naming.MANIFEST then
    kind = "manifest"
  elseif suffix:find("^%.report%.") then
    kind = "report"
  end
  return { item = item, kind = kind, suffix = suffix, time = seconds, stamp = stamp, style = style }
end

--- Takes a key apart.
---@param key string relative to the store
---@return lunark.naming.Key|nil nil when it is not one of ours
function naming.parse_key(key)
  local item, file = key:match("^([^/]+)/([^/]+)$")
  if not item or file:sub(1, #item + 1) ~= item .. "-" then
    return nil
  end
  return parse_rest(item, file:sub(#item + 2))
end

--- Takes the last part of a key apart, where the folder that names the item is not known.
---@param file string
---@return lunark.naming.Key|nil nil when it is not one of ours
function naming.parse_file(file)
  for _, form in ipairs { "^([^/]+)%-(latest%.[^/]+)$", "^([^/]+)%-(" .. STANDARD .. "%.[^/]+)$",
    "^([^/]+)%-(" .. COMPAT .. "%.[^/]+)$" } do
    local item, rest = file:match(form)
    if item then
      return parse_rest(item, rest)
    end
  end
  return nil
end

--- A text as object metadata can hold it: every byte outside of printable ASCII, and '%', as %XX.
---@param text string
---@return string
function naming.to_meta(text)
  return (text:gsub("[^\x21-\x24\x26-\x7e]", function(byte)
    return ("%%%02X"):format(byte:byte())
  end))
end

--- The text that to_meta wrote.
---@param text string
---@return string
function naming.from_meta(text)
  return (text:gsub("%%(%x%x)", function(hex)
    return string.char(tonumber(hex, 16))
  end))
end

return naming
