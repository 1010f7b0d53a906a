-- SPDX-License-Identifier: MIT
--- Times: UTC calendar, RFC 3339, HTTP dates and the forms that names and signatures use.
--- Needs nothing. A time is a number of seconds since 1970 UTC; fractions are allowed.

local sys = require "lunark.core.sys"

local time = {}

local days_of_week = { "Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat" }
local months = { "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec" }
local month_number = {}
for number, name in ipairs(months) do month_number[name] = number end

---@class lunark.time.fields
---@field year integer
---@field month integer 1 to 12
---@field day integer 1 to 31
---@field hour integer
---@field min integer
---@field sec integer 0 to 60
---@field fraction number? below one second
---@field weekday integer 0 is Sunday

-- Days since 1970-01-01 of a date in the proleptic Gregorian calendar. The year is counted from
-- March, so that the leap day is its last day.
local function days_from_civil(year, month, day)
  if month <= 2 then year = year - 1 end
  local era = year // 400
  local year_of_era = year - era * 400
  local day_of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
  local day_of_era = year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year
  return era * 146097 + day_of_era - 719468
end

local function civil_from_days(days)
  days = days + 719468
  local era = days // 146097
  local day_of_era = days - era * 146097
  local year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36524 - day_of_era // 146096) // 365
  local day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
  local shifted = (5 * day_of_year + 2) // 153
  local day = day_of_year - (153 * shifted + 2) // 5 + 1
  local month = shifted < 10 and shifted + 3 or shifted - 9
  local year = year_of_era + era * 400
  if month <= 2 then year = year + 1 end
  return year, month, day
end

local function days_in_month(year, month)
  local next_year, next_month = year, month + 1
  if next_month == 13 then next_year, next_month = year + 1, 1 end
  return days_from_civil(next_year, next_month, 1) - days_from_civil(year, month, 1)
end

--- The calendar fields of a time, in UTC.
---@param seconds number seconds since 1970
---@return lunark.time.fields
function time.fields(seconds)
  local whole = math.floor(seconds)
  local days = whole // 86400
  local rest = whole - days * 86400
  local year, month, day = civil_from_days(days)
  return {
    year = year, month = month, day = day,
    hour = rest // 3600, min = rest % 3600 // 60, sec = rest % 60,
    fraction = seconds - whole, weekday = (days + 4) % 7,
  }
end

--- The time of calendar fields in UTC, or nil when there is no such time.
---@param fields lunark.time.fields
---@return integer?
function time.of(fields)
  local year, month, day = fields.year, fields.month, fields.day
  local hour, min, sec = fields.hour or 0, fields.min or 0, fields.sec or 0
  if month < 1 or month > 12 or day < 1 or day > days_in_month(year, month) then return nil end
  if hour > 23 or min > 59 or sec > 60 then return nil end
  return days_from_civil(year, month, day) * 86400 + hour * 3600 + min * 60 + sec
end

--- `2026-03-01T12:00:00Z`, with as many digits of the second's fraction as asked for.
---@param seconds number
---@param digits integer? of the fraction, 0 by default
---@return string
function time.rfc3339(seconds, digits)
  local fields = time.fields(seconds)
  local text = ("%04d-%02d-%02dT%02d:%02d:%02d"):format(fields.year, fields.month, fields.day, fields.hour,
    fields.min, fields.sec)
  if digits and digits > 0 then
    local scaled = math.floor(fields.fraction * 10 ^ digits)
    text = text .. ("." .. "%0" .. digits .. "d"):format(scaled)
  end
  return text .. "Z"
end

--- `20260301T120000Z`, ISO 8601's basic form.
---@param seconds number
---@return string
function time.basic(seconds)
  local f = time.fields(seconds)
  return ("%04d%02d%02dT%02d%02d%02dZ"):format(f.year, f.month, f.day, f.hour, f.min, f.sec)
end

--- `Sun, 01 Mar 2026 12:00:00 GMT`, as HTTP headers have it.
---@param seconds number
---@return string
function time.http(seconds)
  local f = time.fields(seconds)
  return ("%s, %02d %s %04d %02d:%02d:%02d GMT"):format(days_of_week[f.weekday + 1], f.day,
    months[f.month], f.year, f.hour, f.min, f.sec)
end

--- Reads an HTTP date in its current form; nil for anything else.
---@param text string?
---@return integer?
function time.parse_http(text)
  if not text then return nil end
  local day, month, year, hour, min, sec =
    text:match("^%a+, (%d%d?) (%a%a%a) (%d%d%d%d) (%d%d):(%d%d):(%d%d) GMT$")
  if not day or not month_number[month] then return nil end
  return time.of {
    year = math.tointeger(year), month = month_number[month], day = math.tointeger(day),
    hour = math.tointeger(hour), min = math.tointeger(min), sec = math.tointeger(sec),
  }
end

local function offset_of(zone)
  if zone == "" or zone == "Z" or zone == "z" then return 0 end
  local sign, hours, minutes = zone:match("^([+-])(%d%d):?(%d%d)$")
  if not sign or tonumber(hours) > 23 or tonumber(minutes) > 59 then return nil end
  local offset = math.tointeger(hours) * 3600 + math.tointeger(minutes) * 60
  return sign == "-" and -offset or offset
end

local function split_clock(rest)
  if rest == "" then return "0", "0", "0", "", "" end
  local hour, min, after = rest:match("^[Tt _](%d%d):?(%d%d)(.*)$")
  if not hour then return nil end
  local sec, tail = after:match("^:?(%d%d)(.*)$")
  if not sec then return hour, min, "0", "", after end
  local fraction, zone = tail:match("^(%.%d+)(.*)$")
  return hour, min, sec, fraction or "", zone or tail
end

--- Reads RFC 3339 and its relatives: a date alone, a space in place of the T, no seconds, the basic
--- form `20260301T120000Z`, a numeric zone. Without a zone it is UTC.
---@param text string
---@return number? seconds
---@return table? err kind usage
function time.parse(text)
  local year, month, day, rest = text:match("^(%d%d%d%d)-(%d%d)-(%d%d)(.*)$")
  if not year then year, month, day, rest = text:match("^(%d%d%d%d)(%d%d)(%d%d)(.*)$") end
  local hour, min, sec, fraction, zone
  if year then hour, min, sec, fraction, zone = split_clock(rest) end
  local offset = zone and offset_of(zone)
  local seconds = offset and time.of {
    year = math.tointeger(year), month = math.tointeger(month), day = math.tointeger(day),
    hour = math.tointeger(hour), min = math.tointeger(min), sec = math.tointeger(sec),
  }
  if not seconds then
    return nil, sys.error {
      kind = "usage", op = "time.parse", message = ("'%s' is not a time"):format(text),
      hint = "write it like 2026-03-01T12:00:00Z",
    }
  end
  seconds = seconds - offset
  if fraction ~= "" then return seconds + tonumber("0" .. fraction) end
  return seconds
end

return time
