-- SPDX-License-Identifier: MIT
-- neo4j: the folder that neo4j-admin writes to: what is in it, what a run has changed, what is removed.
-- 4.x keeps a folder DATABASE, and sets a failed one aside as DATABASE.err.N; Neo4j 5 adds a file
-- DATABASE-TIME.backup with each run. Names come from the folder, never from what neo4j-admin prints.

local fs = require "lunark.fs"

local folder = {}

local ARTIFACT = "^(.+)%-(%d%d%d%d%-%d%d%-%d%dT%d%d%-%d%d%-%d%d)%.backup$"
local ASIDE = "^(.+)%.err%.%d+$"
local NAME = "^%w[%w._-]*$" -- of a database

-- A pattern with * and ? as one of Lua.
local function lua_pattern(pattern)
  local escaped = pattern:gsub("[^%w*?]", "%%%0"):gsub("%*", ".*"):gsub("%?", ".")
  return "^" .. escaped .. "$"
end

--- True for what stands for several names.
---@param name string
---@return boolean
function folder.is_pattern(name)
  return name:find("[*?]") ~= nil
end

--- True when the name of a database is or matches the pattern.
function folder.matches(name, pattern)
  return name:find(lua_pattern(pattern)) ~= nil
end

--- Where the reports of a database go.
---@param options table of the policy
---@param dir string
---@param database string
---@return string
function folder.report(options, dir, database)
  return ("%s/.report_%s"):format(options.report_dir or dir, (database:gsub("[*?]", "_")))
end

-- Size, time and number of everything below a path, as one text for each.
local function note(path, relative, found)
  local info = fs.lstat(path)
  if not info then
    return
  end
  found[relative] = ("%s %d %d %d"):format(info.type, info.size, info.mtime, info.ino)
  for _, name in ipairs(info.type == "directory" and fs.readdir(path) or {}) do
    note(path .. "/" .. name, relative .. "/" .. name, found)
  end
end

--- What is at a path, to be compared with what is there later.
---@param path string
---@return table<string, string>
function folder.snapshot(path)
  local found = {}
  note(path, "", found)
  return found
end

--- True when two snapshots are not of the same files.
function folder.changed(before, after)
  for name, entry in pairs(after) do
    if before[name] ~= entry then
      return true
    end
  end
  for name in pairs(before) do
    if after[name] == nil then
      return true
    end
  end
  return false
end

--- Bytes of the files below a path.
---@param path string
---@return integer
function folder.size(path)
  local info = fs.lstat(path)
  local total = info and info.type == "file" and info.size or 0
  for _, name in ipairs(info and info.type == "directory" and fs.readdir(path) or {}) do
    total = total + folder.size(path .. "/" .. name)
  end
  return total
end

--- Folders of databases (4.x) that match a pattern, each with a snapshot.
---@param dir string
---@param pattern string
---@return table<string, table> name to snapshot
function folder.databases(dir, pattern)
  local found = {}
  for _, name in ipairs(fs.readdir(dir) or {}) do
    local path = dir .. "/" .. name
    if name:find(NAME) and not name:find(ASIDE) and folder.matches(name, pattern) and fs.is_dir(path) then
      found[name] = folder.snapshot(path)
    end
  end
  return found
end

---@class lunark.neo4j.Artifact
---@field file string
---@field database string
---@field time string as in its name
---@field size integer

--- Artifacts (Neo4j 5) of the databases that match a pattern, oldest first.
---@param dir string
---@param pattern string
---@return lunark.neo4j.Artifact[]
function folder.artifacts(dir, pattern)
  local list = {}
  for _, file in ipairs(fs.readdir(dir) or {}) do
    local database, time = file:match(ARTIFACT)
    local info = database and folder.matches(database, pattern) and fs.stat(dir .. "/" .. file)
    if info and info.type == "file" then
      list[#list + 1] = { file = file, database = database, time = time, size = info.size }
    end
  end
  table.sort(list, function(a, b)
    return a.time < b.time or (a.time == b.time and a.file < b.file)
  end)
  return list
end

-- True for a name in the folder that a run for this database or pattern writes.
local function is_of(name, pattern)
  local database = name:match(ARTIFACT) or name:match(ASIDE) or name:match("^%.report_(.+)$") or name
  return database:find(NAME) ~= nil and folder.matches(database, pattern)
end

--- Removes what earlier runs for a database or pattern have left. Other files of the folder stay.
---@param dir string
---@param pattern string
---@return true|nil
---@return table|nil err
function folder.clear(dir, pattern)
  for _, name in ipairs(fs.readdir(dir) or {}) do
    local path = dir .. "/" .. name
    if is_of(name, pattern) and (fs.is_dir(path) or name:find(ARTIFACT)) then
      local ok, err = fs.remove_all(path)
      if not ok then
        return nil, err
      end
    end
  end
  return true
end

--- Removes what neo4j-admin has set aside for a database.
---@param dir string
---@param database string
function folder.clear_aside(dir, database)
  for _, name in ipairs(fs.readdir(dir) or {}) do
    if name:match(ASIDE) == database then
      fs.remove_all(dir .. "/" .. name)
    end
  end
end

return folder
