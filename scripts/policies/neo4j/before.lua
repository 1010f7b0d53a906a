-- SPDX-License-Identifier: MIT
-- neo4j: what is looked at before a run. Room is asked for; the rest are warnings.

local folder = require "policies.neo4j.folder"
local fs = require "lunark.fs"
local log = require "lunark.log"
local machine = require "lunark.machine"
local options = require "lunark.options"
local progress = require "lunark.progress"
local sys = require "lunark.core.sys"

local before = {}

local REMOTE = { nfs = true, nfs4 = true, cifs = true, smb3 = true, smbfs = true }
local PAGECACHE = 8 << 20 -- what neo4j-admin takes where nothing is said
local HEAP_SHARE = 4 -- Java takes this part of the memory where nothing is said
local OWN = 24 << 20 -- of this program, beside its streams
local DEPRECATED = { "check_label_scan_store", "check_property_owners" }

local function any(names, what)
  for _, name in ipairs(names) do
    if what(name) then
      return true
    end
  end
  return false
end

local function covers_system(name)
  return folder.matches("system", name)
end

local function size_of(given, name)
  return given[name] and options.convert(given[name], "size", name)
end

--- How many databases are backed up at once.
---@param job table
---@return integer
function before.at_once(job)
  return job.options.parallel or job.jobs or 1
end

local function check_memory(job)
  local given, limit = job.options, machine.memory()
  if not limit or not (given.heap_size or given.pagecache) then
    return
  end
  local heap = size_of(given, "heap_size") or limit // HEAP_SHARE
  local each = heap + (size_of(given, "pagecache") or PAGECACHE)
  local own = sys.budget().memory + OWN
  local most = any(given.names, folder.is_pattern) and math.maxinteger or #given.names
  local needed = each * math.min(before.at_once(job), most) + own
  if needed > limit then
    job:warn(("heap, page cache and lunark want %s of memory, there are %s")
      :format(progress.size(needed), progress.size(limit)), { hint = "lower --heap-size or --pagecache" })
  end
end

local function check_options(job)
  local given = job.options
  if not any(given.names, covers_system) then
    job:warn("the database 'system' is not among those that are backed up: users and roles are in it")
  end
  local named = {}
  for _, name in ipairs(DEPRECATED) do
    if given[name] ~= nil then
      named[#named + 1] = "--" .. name:gsub("_", "-")
    end
  end
  if #named > 0 then
    log.warn(("%s: deprecated, late versions of neo4j-admin ignore it"):format(table.concat(named, ", ")))
  end
end

--- Warns of what may go wrong in the whole run.
---@param job table
---@param dir string|nil the folder that neo4j-admin writes to
function before.run(job, dir)
  check_options(job)
  if job.options.method == "dump" then
    return
  end
  check_memory(job)
  if sys.uid() == 0 then
    job:warn("neo4j-admin runs as root: its manual asks for the user that owns the databases (neo4j)")
  end
  local kind = dir and machine.filesystem(fs.realpath(dir) or dir)
  if REMOTE[kind] then
    job:warn(("%s is on %s: backups over a network file system are slow and may be damaged")
      :format(dir, kind))
  end
end

--- Compares free space with the size of the backup before this one.
---@param job table
---@param database string
---@param dir string
---@return true|nil
---@return table|nil err
function before.space(job, database, dir)
  if not job.options.check_space then
    return true
  end
  local newest = job:newest(database, ".tar.gz")
  local expected = newest and math.tointeger(newest.raw_size) or job.expect_size or 0
  local free, there = fs.free(dir), folder.size(dir .. "/" .. database)
  for _, artifact in ipairs(folder.artifacts(dir, database)) do
    there = there + artifact.size
  end
  if not free or free + there >= expected then
    return true
  end
  return nil, sys.error {
    kind = "io",
    message = ("%s: %s are free in %s, the backup before had %s"):format(database, progress.size(free), dir,
      progress.size(expected)),
    hint = "make room, take another folder with --work-dir, or add --no-check-space",
  }
end

return before
