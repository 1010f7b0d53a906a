-- SPDX-License-Identifier: MIT
-- lunark.retention against a slow, obvious oracle: what date(1)'s calendar says (os.date in UTC), asked for
-- each backup beside each other, over seeded histories.
local lu = require "luaunit"
local naming = require "lunark.naming"
local retention = require "lunark.retention"
local time = require "lunark.time"

local TestRetention = {}

local FORMS = { daily = "!%Y-%m-%d", weekly = "!%G-W%V", monthly = "!%Y-%m", yearly = "!%Y" }
local NUMBERS = { "last", "daily", "weekly", "monthly", "yearly" }
local FAR = 4102444800 -- 2100-01-01
local DAY = 86400

local function newer(a, b)
  return a.time > b.time or a.time == b.time and a.key < b.key
end

-- True when a backup is the newest of its period, and its period among the `count` newest.
local function of_period(backup, others, form, count)
  local label, later = os.date(form, backup.time), {}
  for _, other in ipairs(others) do
    local theirs = os.date(form, other.time)
    if newer(other, backup) and theirs == label then
      return false
    elseif newer(other, backup) then
      later[theirs] = true
    end
  end
  local periods = 0
  for _ in pairs(later) do periods = periods + 1 end
  return periods < count
end

-- The keys that must be kept.
local function oracle(backups, rules, now)
  local past, kept = {}, {}
  for _, backup in ipairs(backups) do
    if backup.time > now then
      kept[backup.key] = true
    else
      past[#past + 1] = backup
    end
  end
  for _, backup in ipairs(past) do
    local before, newest, newest_of_kind = 0, backup.time, true
    for _, other in ipairs(past) do
      before = before + (newer(other, backup) and 1 or 0)
      newest = math.max(newest, other.time)
      if newer(other, backup) and not other.adopted == not backup.adopted then newest_of_kind = false end
    end
    local keep = newest_of_kind or before < (rules.last or 0)
      or (rules.within or 0) > 0 and newest - backup.time <= rules.within
    for name, form in pairs(FORMS) do
      keep = keep or of_period(backup, past, form, rules[name] or 0)
    end
    kept[backup.key] = keep or nil
  end
  return kept
end

local function planned(backups, rules, now)
  local kept, verdicts = {}, retention.plan(backups, rules, now)
  lu.assertEquals(#verdicts, #backups)
  for _, verdict in ipairs(verdicts) do
    lu.assertEquals(verdict.keep, #verdict.reasons > 0)
    kept[verdict.backup.key] = verdict.keep or nil
  end
  return kept
end

local function backup(seconds, style, suffix, adopted)
  return {
    time = seconds, adopted = adopted, key = naming.data_key("n", seconds, suffix or ".tar.gz", style),
  }
end

-- Times at which calendars go wrong: ends of years, ISO weeks 53 and 1, leap days, the nights of summer time.
local EDGES = {}
for _, text in ipairs {
  "1969-12-31T23:59:59Z", "1970-01-01T00:00:00Z", "1999-12-31T23:59:59Z", "2000-02-29T12:00:00Z",
  "2015-12-28T00:00:00Z", "2016-01-03T23:59:59Z", "2016-01-04T00:00:00Z", "2020-12-31T23:59:59Z",
  "2021-01-01T00:00:00Z", "2021-01-03T23:59:59Z", "2021-01-04T00:00:00Z", "2024-02-28T23:59:59Z",
  "2024-02-29T00:00:00Z", "2024-03-01T00:00:00Z", "2024-03-31T00:59:59Z", "2024-03-31T01:00:00Z",
  "2024-10-27T00:59:59Z", "2024-10-27T01:00:00Z", "2024-12-29T23:59:59Z", "2024-12-30T00:00:00Z",
  "2026-12-31T23:59:59Z", "2027-01-03T23:59:59Z", "2027-01-04T00:00:00Z", "2100-02-28T23:59:59Z",
} do
  EDGES[#EDGES + 1] = assert(time.parse(text))
end

local random

local function pick(list) return list[random(#list)] end

-- A history as a site may have one: a rhythm with gaps, more by hand, times that are equal or at an edge.
local function history()
  local backups, seen = {}, {}
  local at = pick(EDGES) - random(0, 40) * DAY
  local step = pick { 3600, 6 * 3600, DAY, DAY, DAY, 7 * DAY, 30 * DAY, 170 * DAY }
  local function add(seconds)
    local made = backup(seconds, pick { "standard", "standard", "compat" },
      pick { ".tar.gz", ".tar.gz", ".dump.gz" }, random(8) == 1 or nil)
    if not seen[made.key] then
      seen[made.key] = true
      backups[#backups + 1] = made
    end
  end
  for _ = 1, random(0, 60) do
    at = at + step + pick { 0, 0, 0, 1, -1, random(-1800, 1800), random(10) * DAY }
    add(at)
    if random(10) == 1 then add(at) end
    if random(15) == 1 then add(pick(EDGES)) end
  end
  return backups, at
end

local function rules_of(backups)
  local rules = {}
  for _, name in ipairs(NUMBERS) do
    rules[name] = random(3) == 1 and random(0, 15) or nil
  end
  rules.within = random(4) == 1 and pick { 1, 3600, DAY, 30 * DAY, 400 * DAY } or nil
  if random(20) == 1 then rules.last = #backups end
  return rules
end

local function shuffled(list)
  local out = table.move(list, 1, #list, 1, {})
  for i = #out, 2, -1 do
    local j = random(i)
    out[i], out[j] = out[j], out[i]
  end
  return out
end

local function each_history(seed, count, fn)
  math.randomseed(seed)
  random = math.random
  for round = 1, count do
    local backups, last = history()
    local now = pick { FAR * 2, last, last - 5 * DAY, 0 }
    fn(backups, rules_of(backups), now, ("seed %d, round %d"):format(seed, round))
  end
end

function TestRetention.test_oracle()
  each_history(1, 600, function(backups, rules, now, where)
    lu.assertEquals(planned(backups, rules, now), oracle(backups, rules, now), where)
  end)
end

function TestRetention.test_order_does_not_matter()
  each_history(2, 200, function(backups, rules, now, where)
    lu.assertEquals(planned(shuffled(backups), rules, now), planned(backups, rules, now), where)
  end)
end

function TestRetention.test_a_second_time_deletes_nothing()
  each_history(3, 300, function(backups, rules, now, where)
    local kept, left = planned(backups, rules, now), {}
    for _, one in ipairs(backups) do
      if kept[one.key] then left[#left + 1] = one end
    end
    lu.assertEquals(planned(left, rules, now), kept, where)
  end)
end

function TestRetention.test_more_keeps_more()
  each_history(4, 300, function(backups, rules, now, where)
    local before = planned(backups, rules, now)
    local name = pick { "last", "daily", "weekly", "monthly", "yearly", "within" }
    rules[name] = (rules[name] or 0) + random(1, 5)
    local after = planned(backups, rules, now)
    for key in pairs(before) do lu.assertTrue(after[key], where .. ": " .. key) end
  end)
end

function TestRetention.test_the_newest_good_one_stays()
  each_history(5, 300, function(backups, rules, now, where)
    table.sort(backups, newer)
    local kept, seen = planned(backups, rules, now), {}
    for _, one in ipairs(backups) do
      local kind = one.adopted and 1 or 2
      if one.time <= now and not seen[kind] then
        seen[kind] = true
        lu.assertTrue(kept[one.key], where)
      end
      if one == backups[1] then lu.assertTrue(kept[one.key], where) end
    end
  end)
end

function TestRetention.test_reasons()
  local backups = {}
  for _, text in ipairs { "2020-12-30T02:00:00Z", "2020-12-31T02:00:00Z", "2021-01-03T02:00:00Z" } do
    backups[#backups + 1] = backup(assert(time.parse(text)))
  end
  local rules = { last = 1, daily = 2, weekly = 1, monthly = 2, yearly = 5, within = 3 * DAY }
  local verdicts = retention.plan(backups, rules, FAR)
  lu.assertEquals(verdicts[1].reasons,
    { "last", "daily 2021-01-03", "weekly 2020-W53", "monthly 2021-01", "yearly 2021", "within" })
  lu.assertEquals(verdicts[2].reasons, { "daily 2020-12-31", "monthly 2020-12", "yearly 2020", "within" })
  lu.assertFalse(verdicts[3].keep)
  verdicts = retention.plan(backups, { yearly = 1 }, assert(time.parse("2021-01-01")))
  lu.assertEquals(verdicts[1].reasons, { "in the future" })
  lu.assertEquals(verdicts[2].reasons, { "yearly 2020" })
  lu.assertEquals(retention.plan(backups, { last = 0, within = 0 }, FAR)[1].reasons, { "newest" })
  lu.assertEquals(retention.plan({}, { last = 1 }, FAR), {})
end

function TestRetention.test_rules()
  lu.assertEquals(retention.of_options { keep_last = 3, keep_within = 60 }, { last = 3, within = 60 })
  lu.assertNil(retention.of_options {})
  for _, case in ipairs {
    { {}, "nothing says what is kept" }, { { last = 0 }, "nothing says what is kept" },
    { { hourly = 1 }, "there is no rule 'hourly'" }, { { last = -1 }, "a whole number from 0 on" },
    { { daily = 1.5 }, "found '1.5'" }, { { within = "1d" }, "seconds expected" }, { 7, "a table expected" },
  } do
    local rules, err = retention.check(case[1])
    lu.assertNil(rules)
    lu.assertEquals(err.kind, "usage")
    lu.assertStrContains(err.message, case[2])
  end
end

return { TestRetention = TestRetention }
