-- SPDX-License-Identifier: MIT
-- Names of stored objects: <item>/<item>-TIME<suffix>, its manifest beside it, and
-- <item>/<item>-latest<suffix>. TIME is the start of the run in UTC. Two forms of it are written and
-- read: `standard`, 2020-06-16T123257Z, and `compat`, 2020-06-16-12:32:57. Needs lunark.core.sys.

local sys = require "lunark.core.sys"

local naming = {}

--- The forms of TIME by name, each a format for year, month, day, hour, minute, second.
naming.styles = { standard = "%04d-%02d-%02dT%02d%02d%02dZ", compat = "%04d-%02d-%02d-%02d:%02d:%02d" }

local STANDARD = "(%d%d%d%d)%-(%d%d)%-(%d%d)T(%d%d)(%d%d)(%d%d)Z"
local COMPAT = "(%d%d%d%d)%-(%d%d)%-(%d%d)%-(%d%d):(%d%d):(%d%d)"
local MANIFEST = ".manifest.json"
local NAME_MAX = 120

local function usage(message, hint)
  return nil, sys.error { kind = "usage", message = message, hint = hint }
end

-- Days since 1970-01-01 of a day in the Gregorian calendar; a year counts from March, so a leap day ends it.
local function days_of(year, month, day)
  if month <= 2 then
    year, month = year - 1, month + 12
  end
  return 365 * year + year // 4 - year // 100 + year // 400 + (153 * (month - 3) + 2) // 5 + day - 719469
end

local function seconds_of(year, month, day, hour, minute, second)
  year, month, day = math.tointeger(year), math.tointeger(month), math.tointeger(day)
  hour, minute, second = math.tointeger(hour), math.tointeger(minute), math.tointeger(second)
  if month < 1 or month > 12 or day < 1 or hour > 23 or minute > 59 or second > 59 then
    return nil
  end
  local days = days_of(year, month, day)
  local first = days_of(year, month, 1)
  local next_first = month == 12 and days_of(year + 1, 1, 1) or days_of(year, month + 1, 1)
  if day > next_first - first then
    return nil
  end
  return days * 86400 + hour * 3600 + minute * 60 + second
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
  local t = os.date("!*t", math.floor(seconds))
  return form:format(t.year, t.month, t.day, t.hour, t.min, t.sec)
end

--- Reads a TIME of either form.
---@param text string
---@return integer|nil seconds since 1970, UTC; nil when it is no such time
---@return string|nil style
function naming.parse_time(text)
  local year, month, day, hour, minute, second = text:match("^" .. STANDARD .. "$")
  local style = "standard"
  if not year then
    year, month, day, hour, minute, second = text:match("^" .. COMPAT .. "$")
    style = "compat"
    if not year then
      return nil
    end
  end
  local seconds = seconds_of(year, month, day, hour, minute, second)
  if not seconds then
    return nil
  end
  return seconds, style
end

-- RFC 3339 with T or a space, with or without seconds; UTC where no zone is given.
local function parse_rfc3339(text)
  local year, month, day, rest = text:match("^(%d%d%d%d)%-(%d%d)%-(%d%d)(.*)$")
  if not year then
    return nil
  end
  local hour, minute, zone = rest:match("^[Tt ](%d%d):(%d%d)(.*)$")
  if not hour then
    return nil
  end
  local second, after = zone:match("^:(%d%d)(.*)$")
  if second then
    zone = after:gsub("^%.%d+", "")
  end
  local offset
  if zone == "" or zone == "Z" or zone == "z" then
    offset = 0
  else
    local sign, oh, om = zone:match("^([+-])(%d%d):?(%d%d)$")
    if not sign or tonumber(oh) > 23 or tonumber(om) > 59 then
      return nil
    end
    offset = math.tointeger(oh) * 3600 + math.tointeger(om) * 60
    offset = sign == "-" and -offset or offset
  end
  local seconds = seconds_of(year, month, day, hour, minute, second or "00")
  return seconds and seconds - offset
end

--- Reads what a person gives for --at.
---@param text string "latest", RFC 3339, or a TIME as in a key
---@return integer|string|nil seconds since 1970, or "latest"
---@return table|nil err
function naming.parse_at(text)
  if text == "latest" then
    return "latest"
  end
  local seconds = naming.parse_time(text) or parse_rfc3339(text)
  if seconds then
    return seconds
  end
  return usage("'" .. text .. "' is no time",
    "write 2020-06-16T12:32:57Z, 2020-06-16T123257Z, 2020-06-16-12:32:57 or latest")
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
  return naming.data_key(name, seconds, MANIFEST, style)
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

--- Takes a key apart.
---@param key string relative to the store
---@return lunark.naming.Key|nil nil when it is not one of ours
function naming.parse_key(key)
  local item, file = key:match("^([^/]+)/([^/]+)$")
  if not item or file:sub(1, #item + 1) ~= item .. "-" then
    return nil
  end
  local rest = file:sub(#item + 2)
  local latest = rest:match("^latest(%..+)$")
  if latest then
    return { item = item, kind = "latest", suffix = latest }
  end
  local stamp, suffix = rest:match("^([%d%-:TZ]+)(%..+)$")
  local time, style
  if stamp then
    time, style = naming.parse_time(stamp)
  end
  if not time then
    return nil
  end
  local kind = "data"
  if suffix == MANIFEST then
    kind = "manifest"
  elseif suffix:find("^%.report%.") then
    kind = "report"
  end
  return { item = item, kind = kind, suffix = suffix, time = time, stamp = stamp, style = style }
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
