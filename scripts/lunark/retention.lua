-- SPDX-License-Identifier: MIT
-- Which backups to keep and why. Pure: it looks at times and names alone, touches no store, and takes its
-- answer from the backups, not from their order or the clock. Periods are those of UTC; weeks are ISO's.

local sys = require "lunark.core.sys"
local time = require "lunark.time"

local retention = {}

local DAY = 86400
local NONE = {}

--- The options of the command line that say what is kept.
retention.options = {
  keep_last = { "integer", min = 0, metavar = "N", help = "keep the newest N" },
  keep_daily = { "integer", min = 0, metavar = "N", help = "keep the newest of each of the N newest days" },
  keep_weekly = { "integer", min = 0, metavar = "N", help = "the same for weeks" },
  keep_monthly = { "integer", min = 0, metavar = "N", help = "the same for months" },
  keep_yearly = { "integer", min = 0, metavar = "N", help = "the same for years" },
  keep_within = {
    "duration", metavar = "TIME", help = "keep what is not older than this before the newest one: 36h, 14d",
  },
}

--- The same in words, for hints.
retention.FLAGS = "--keep-last, --keep-daily, --keep-weekly, --keep-monthly, --keep-yearly, --keep-within"

---@class lunark.retention.Rules
---@field last integer|nil
---@field daily integer|nil
---@field weekly integer|nil
---@field monthly integer|nil
---@field yearly integer|nil
---@field within number|nil seconds

---@class lunark.retention.Backup
---@field time integer seconds since 1970
---@field key string
---@field adopted boolean|nil known by its name alone

---@class lunark.retention.Verdict
---@field backup lunark.retention.Backup
---@field keep boolean
---@field reasons string[] the rules that keep it, as people read them

-- Monday of a day's week, counted in days since 1970 (a Thursday).
local function monday(seconds)
  local day = seconds // DAY
  return day - (day + 3) % 7
end

-- A week belongs to the year that has its Thursday.
local function week(seconds)
  local thursday = monday(seconds) + 3
  local year = time.fields(thursday * DAY).year
  local first = time.of { year = year, month = 1, day = 1 } // DAY
  return ("%04d-W%02d"):format(year, (thursday - first) // 7 + 1)
end

-- How the period of a time is called.
local PERIODS = {
  { "daily", function(seconds) return time.rfc3339(seconds):sub(1, 10) end },
  { "weekly", week },
  { "monthly", function(seconds) return time.rfc3339(seconds):sub(1, 7) end },
  { "yearly", function(seconds) return time.rfc3339(seconds):sub(1, 4) end },
}

local NUMBERS = { last = true, daily = true, weekly = true, monthly = true, yearly = true }

local function usage(message, hint)
  return nil, sys.error { kind = "usage", op = "retention", message = message, hint = hint }
end

--- Checks rules: known names, whole numbers from 0 on, a duration, and at least one that keeps something.
---@param rules lunark.retention.Rules
---@return lunark.retention.Rules|nil
---@return table|nil err kind usage
function retention.check(rules)
  if type(rules) ~= "table" then
    return usage(("keep is a %s, a table expected: { daily = 7 }"):format(type(rules)))
  end
  local some = false
  for name, value in pairs(rules) do
    local number = NUMBERS[name] and math.type(value) == "integer"
      or name == "within" and type(value) == "number" and value < math.huge
    if not NUMBERS[name] and name ~= "within" then
      return usage(("keep: there is no rule '%s'"):format(tostring(name)),
        "there are: last, daily, weekly, monthly, yearly, within")
    elseif not number or value < 0 then
      return usage(("keep %s: %s, found '%s'"):format(name,
        name == "within" and "seconds expected" or "a whole number from 0 on expected", tostring(value)))
    end
    some = some or value > 0
  end
  if not some then
    return usage("nothing says what is kept", ("give one of %s with more than 0"):format(retention.FLAGS))
  end
  return rules
end

--- The rules that options of a command line give.
---@param values table of retention.options
---@return lunark.retention.Rules|nil nil and no error when none is given
---@return table|nil err kind usage
function retention.of_options(values)
  local rules
  for name in pairs(retention.options) do
    if values[name] ~= nil then
      rules = rules or {}
      rules[name:sub(6)] = values[name]
    end
  end
  if not rules then
    return nil
  end
  return retention.check(rules)
end

--- Newest first; what has one time by its key.
function retention.by_age(a, b)
  if a.time ~= b.time then
    return a.time > b.time
  end
  return a.key < b.key
end

-- Each of the `count` newest periods that have a backup keeps the newest one in it.
local function keep_periods(verdicts, name, label_of, count)
  local seen = nil
  for _, verdict in ipairs(verdicts) do
    local label = label_of(verdict.backup.time)
    if label ~= seen then
      if count == 0 then
        return
      end
      seen, count = label, count - 1
      table.insert(verdict.reasons, name .. " " .. label)
    end
  end
end

-- Whatever the rules say: the newest, and where that is known by its name alone also the newest with a
-- manifest.
local function keep_newest(verdicts)
  local seen = {}
  for _, verdict in ipairs(verdicts) do
    local kind = verdict.backup.adopted and "adopted" or "whole"
    if not seen[kind] then
      seen[kind] = true
      if #verdict.reasons == 0 then
        table.insert(verdict.reasons, "newest")
      end
    end
  end
end

--- What is to be kept of one series of good backups. One in the future is kept and counts for nothing: its
--- time is wrong, or the clock here is.
---@param backups lunark.retention.Backup[] in any order
---@param rules lunark.retention.Rules as retention.check has let pass
---@param now number
---@return lunark.retention.Verdict[] newest first
function retention.plan(backups, rules, now)
  local sorted = table.move(backups, 1, #backups, 1, {})
  table.sort(sorted, retention.by_age)
  local all, past = {}, {}
  for i, backup in ipairs(sorted) do
    all[i] = { backup = backup, reasons = {} }
    if backup.time > now then
      table.insert(all[i].reasons, "in the future")
    else
      past[#past + 1] = all[i]
    end
  end
  for i = 1, math.min(rules.last or 0, #past) do
    table.insert(past[i].reasons, "last")
  end
  for _, period in ipairs(PERIODS) do
    keep_periods(past, period[1], period[2], rules[period[1]] or 0)
  end
  for _, verdict in ipairs((rules.within or 0) > 0 and past or {}) do
    if verdict.backup.time >= past[1].backup.time - rules.within then
      table.insert(verdict.reasons, "within")
    end
  end
  keep_newest(past)
  for _, verdict in ipairs(all) do
    verdict.keep = #verdict.reasons > 0
    verdict.reasons = verdict.keep and verdict.reasons or NONE
  end
  return all
end

return retention
