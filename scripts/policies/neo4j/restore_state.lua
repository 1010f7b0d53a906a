-- SPDX-License-Identifier: MIT
-- neo4j: what a restore leaves on the data volume, so that one that was killed, or is started again, knows
-- where it is: a marker with the request and what is done, and the old databases, set aside until the new
-- ones are whole.

local fs = require "lunark.fs"
local json = require "lunark.json"
local time = require "lunark.time"

local state = {}

local MARKER = ".lunark-restore.json"
local PLACES = { "databases", "transactions" }

local function place(dir, below, database)
  return ("%s/%s/%s"):format(dir, below, database)
end

local function aside(dir, below, database)
  return ("%s/%s/.%s.lunark-old"):format(dir, below, database)
end

--- Where a database is.
---@param dir string data folder
---@param database string
---@return string
function state.path(dir, database)
  return place(dir, PLACES[1], database)
end

--- All the folders of a database.
---@param dir string data folder
---@param database string
---@return string[]
function state.paths(dir, database)
  local list = {}
  for i, below in ipairs(PLACES) do
    list[i] = place(dir, below, database)
  end
  return list
end

---@param dir string
---@param database string
---@return boolean
function state.exists(dir, database)
  return fs.exists(place(dir, PLACES[1], database))
end

--- The marker of the restore before this one.
---@param dir string
---@return table {request =, state = "begun" | "done", done = {DATABASE = KEY}, at_work = DATABASE, and for
--- that one had = {databases =, transactions =}: true where there was one before}
function state.read(dir)
  local text = fs.read_text(dir .. "/" .. MARKER)
  local found = text and json.decode(text)
  if type(found) ~= "table" or type(found.done) ~= "table" then
    return { done = {} }
  end
  return found
end

--- Writes the marker; to the disk before this returns.
---@param dir string
---@param marker table
---@return true|nil
---@return table|nil err
function state.write(dir, marker)
  marker.at = time.rfc3339(os.time())
  return fs.write_text(dir .. "/" .. MARKER, json.encode(marker, "  ") .. "\n", tonumber("644", 8))
end

--- What makes two requests the same.
---@param from string the store
---@param names string[]
---@param at integer|string|nil
---@return string
function state.request(from, names, at)
  local sorted = table.move(names, 1, #names, 1, {})
  table.sort(sorted)
  return ("%s %s %s"):format(from, table.concat(sorted, ","), at or "latest")
end

--- Notes that a database is at work, and sets the old one aside.
---@param dir string
---@param marker table
---@param database string
---@return true|nil
---@return table|nil err
function state.begin(dir, marker, database)
  marker.at_work, marker.done[database], marker.had = database, nil, {}
  for _, below in ipairs(PLACES) do
    marker.had[below] = fs.exists(place(dir, below, database))
  end
  local ok, err = state.write(dir, marker)
  for _, below in ipairs(PLACES) do
    if ok and marker.had[below] then
      ok, err = fs.rename(place(dir, below, database), aside(dir, below, database))
    end
  end
  return ok, err
end

-- Removes what was set aside.
local function drop_aside(dir, database)
  for _, below in ipairs(PLACES) do
    local ok, err = fs.remove_all(aside(dir, below, database))
    if not ok then
      return nil, err
    end
  end
  return true
end

-- Removes what there is of a new database, and puts the old one back. Where there was an old one and none is
-- set aside, it had not come to that, or it is back already.
local function put_back(dir, database, had)
  for _, below in ipairs(PLACES) do
    local path, other = place(dir, below, database), aside(dir, below, database)
    local is_aside, ok, err = fs.exists(other), true, nil
    if is_aside or not had[below] then
      ok, err = fs.remove_all(path)
    end
    if ok and is_aside then
      ok, err = fs.rename(other, path)
    end
    if not ok then
      return nil, err
    end
  end
  return true
end

--- Ends the work on a database: where it is noted as done, the old one goes; else what there is of the new
--- one goes and the old one is back, or none is there, as before.
---@param dir string
---@param marker table
---@return true|nil
---@return table|nil err
function state.finish(dir, marker)
  local database = marker.at_work
  local ok, err
  if marker.done[database] then
    ok, err = drop_aside(dir, database)
  else
    ok, err = put_back(dir, database, type(marker.had) == "table" and marker.had or {})
  end
  if ok then
    marker.at_work, marker.had = nil, nil
    ok, err = state.write(dir, marker)
  end
  return ok, err
end

return state
