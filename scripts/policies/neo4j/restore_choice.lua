-- SPDX-License-Identifier: MIT
-- neo4j: which backups are restored: those of one run, where there is one that has all databases.

local fs = require "lunark.fs"
local log = require "lunark.log"
local naming = require "lunark.naming"
local progress = require "lunark.progress"
local sys = require "lunark.core.sys"
local tool = require "policies.neo4j.tool"

local choice = {}

local function at_time(backups, time)
  for _, backup in ipairs(backups) do
    if backup.time == time then
      return backup
    end
  end
  return nil
end

-- The newest run, not after `limit`, that has all databases.
local function of_one_run(lists, limit)
  for _, first in ipairs(lists[1]) do
    local found = first.time <= limit and {}
    for i, backups in ipairs(found and lists or {}) do
      found[i] = at_time(backups, first.time)
    end
    if found and #found == #lists then
      return found
    end
  end
  return nil
end

-- What `latest` of each database is, and the oldest of their times.
local function latest_of(job, names)
  local found, limit = {}, math.maxinteger
  for i, name in ipairs(names) do
    found[i] = assert(job:find(name, "latest"))
    limit = found[i].time and math.min(limit, found[i].time)
    if not limit then
      return found, nil
    end
  end
  return found, limit
end

local function newest_of(job, names, lists)
  local found = {}
  for i, name in ipairs(names) do
    found[i] = lists[i][1] or assert(job:find(name, "latest"))
  end
  return found
end

local function warn_of_times(job, names, found)
  local told, differ = {}, false
  for i, backup in ipairs(found) do
    local shown = backup.time and naming.format_time(backup.time) or "an unknown time"
    told[i] = ("%s of %s"):format(names[i], shown)
    differ = differ or backup.time ~= found[1].time
  end
  if differ then
    job:warn("the backups are of different runs: " .. table.concat(told, ", "))
  end
end

-- One backup for each name.
local function select(job, names)
  if job.store.key then
    if #names > 1 then
      error(sys.error {
        kind = "usage", message = "--from names one archive, and --database several databases",
      })
    end
    return { assert(job:find(names[1])) }
  elseif math.type(job.at) == "integer" then
    local found = {}
    for i, name in ipairs(names) do
      found[i] = assert(job:find(name, job.at))
    end
    return found
  end
  local limit, found = math.maxinteger, nil
  if job.at == "latest" then
    found, limit = latest_of(job, names)
    if not limit or job.options.mixed or #names == 1 then
      return found
    end
  end
  local lists = {}
  for i, name in ipairs(names) do
    lists[i] = assert(job:candidates(name))
  end
  found = found or newest_of(job, names, lists)
  return not job.options.mixed and of_one_run(lists, limit) or found
end

local function check_version(given, one)
  local made = tool.parse_version(tostring((one.expected.details or {}).neo4j_version or ""))
  if made and made.major > given.version.major then
    error(sys.error {
      kind = "usage", message = ("%s: the backup is of Neo4j %s, neo4j-admin of %s"):format(one.database,
        made.text, given.version.text), hint = "run it with a neo4j-admin of that release, or a later one",
    })
  end
end

---@class lunark.neo4j.Chosen
---@field database string
---@field backup lunark.list.Backup
---@field expected table its manifest
---@field dump boolean
---@field recovered boolean|nil

--- The backups to restore. Raises why there are none.
---@param job lunark.recovery.Job
---@param names string[]
---@return lunark.neo4j.Chosen[]
function choice.choose(job, names)
  local found, chosen = select(job, names), {}
  warn_of_times(job, names, found)
  for i, backup in ipairs(found) do
    local expected = assert(job:expected(backup))
    local details = expected.details or {}
    chosen[i] = {
      database = names[i], backup = backup, expected = expected, recovered = details.recovered,
      dump = details.method == "dump" or backup.suffix:find("^%.dump") ~= nil,
    }
    check_version(job.options, chosen[i])
    if not expected.sha256 then
      job:warn(("%s: there is no SHA-256 to compare it with"):format(backup.key), { item = names[i] })
    end
  end
  return chosen
end

--- Compares free space with what will be written.
---@param job lunark.recovery.Job
---@param chosen lunark.neo4j.Chosen[]
---@return true|nil
---@return table|nil err
function choice.check_space(job, chosen)
  local dir, needed = job.options.data_dir, 0
  for _, one in ipairs(chosen) do
    local size = math.tointeger(one.expected.raw_size) or one.backup.size or 0
    -- What 4.x restores is moved; a dump or an artifact is there beside the database that is made of it.
    needed = needed + (job.options.version.major == 4 and not one.dump and size or 2 * size)
  end
  local free = fs.free(dir)
  log.debug(("%s are free in %s, %s are needed"):format(progress.size(free or 0), dir, progress.size(needed)))
  if not job.options.check_space or not free or free >= needed then
    return true
  end
  return nil, sys.error {
    kind = "io",
    message = ("%s are free in %s, %s are needed"):format(progress.size(free), dir, progress.size(needed)),
    hint = "make room, or add --no-check-space",
  }
end

--- What is told of a database that was restored.
---@param one lunark.neo4j.Chosen
---@return table
function choice.facts(one)
  return {
    item = one.database, key = one.backup.key, time = one.backup.time, state = one.backup.state,
    bytes = one.bytes,
  }
end

return choice
