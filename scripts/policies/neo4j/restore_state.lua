-- SPDX-License-Identifier: MIT
-- neo4j: what a restore leaves on the data volume, so that one that was killed, or is started again, knows
-- where it is: a marker with the request and what is done, and the old databases, set aside until the new
-- ones are whole.

local fs = require "lunark.fs"
local json = require "lunark.json"
local log = require "lunark.log"
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

---@param dir string
---@param database string
---@return boolean
function state.exists(dir, database)
  return fs.exists(place(dir, PLACES[1], database))
end

--- The marker of the restore before this one.
---@param dir string
---@return table {request =, state = "begun" | "done", done = {DATABASE = KEY}, at_work = DATABASE}
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

--- Sets a database aside, where there is one.
---@param dir string
---@param database string
---@return true|nil
---@return table|nil err
function state.set_aside(dir, database)
  for _, below in ipairs(PLACES) do
    local path, other = place(dir, below, database), aside(dir, below, database)
    if fs.exists(path) then
      local ok, err = fs.rename(path, other)
      if not ok then
        return nil, err
      end
    end
  end
  return true
end

--- Removes what was set aside.
---@param dir string
---@param database string
---@return true|nil
---@return table|nil err
function state.drop_aside(dir, database)
  for _, below in ipairs(PLACES) do
    local ok, err = fs.remove_all(aside(dir, below, database))
    if not ok then
      return nil, err
    end
  end
  return true
end

--- Removes what there is of a new database, and puts the old one back.
---@param dir string
---@param database string
---@return true|nil
---@return table|nil err
function state.put_back(dir, database)
  for _, below in ipairs(PLACES) do
    local path, other = place(dir, below, database), aside(dir, below, database)
    local ok, err = fs.remove_all(path)
    if ok and fs.exists(other) then
      ok, err = fs.rename(other, path)
    end
    if not ok then
      return nil, err
    end
  end
  return true
end

--- Cleans up behind a restore that was ended in the middle: the database at work is the old one again, or is
--- not there, as before it.
---@param dir string
---@param marker table
---@return true|nil
---@return table|nil err
function state.recover(dir, marker)
  local database = marker.at_work
  if not database then
    return true
  end
  local ok, err
  if marker.done[database] then
    ok, err = state.drop_aside(dir, database)
  else
    log.warn(("%s: a restore was ended in the middle; what it has left is removed"):format(database))
    ok, err = state.put_back(dir, database)
  end
  if ok then
    marker.at_work = nil
    ok, err = state.write(dir, marker)
  end
  return ok, err
end

return state
