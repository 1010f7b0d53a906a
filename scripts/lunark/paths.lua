-- SPDX-License-Identifier: MIT
-- Single files and globs out of an archive: with its index only what holds them is read; without one, or
-- where the index is wrong, the archive is read whole and only what is selected is written. Used by
-- lunark.restore.

local exit = require "lunark.exit"
local log = require "lunark.log"
local sys = require "lunark.core.sys"

local paths = {}

--- How an archive is read; lunark.restore has both. Each gives the result of an extraction, or nil and an
--- error.
---@class lunark.paths.Reader
---@field whole fun(options: table): table|nil, table|nil reads all of it
---@field pieces fun(options: table): table|nil, table|nil reads what its index says; err.index: read it whole

--- A path as a glob that matches it and what is below it.
---@param path string
---@return string
function paths.literal(path)
  return (path:gsub("[*?%[\\]", "\\%0"))
end

local literal = paths.literal

-- Where a member goes by the options, as the extraction has it.
local function place_of(path, options)
  for _, pair in ipairs(options.map or {}) do
    local from, to = pair[1]:gsub("^/+", ""), pair[2]
    if path == from or from == "" then
      return path == from and to or to == "" and path or to .. "/" .. path
    elseif path:sub(1, #from + 1) == from .. "/" then
      return to == "" and path:sub(#from + 2) or to .. path:sub(#from + 1)
    end
  end
  for _ = 1, options.strip or 0 do
    path = path:match("/(.*)$") or path
  end
  return path
end

-- Options that restore links whose targets were not selected: the first link to a target becomes the file
-- itself.
local function of_lost(lost, options)
  local map, select, first = {}, {}, {}
  for _, link in ipairs(lost) do
    select[#select + 1] = literal(link.path)
    if not first[link.target] then
      first[link.target] = true
      select[#select + 1] = literal(link.target)
      map[#map + 1] = { link.target, place_of(link.path, options) }
    end
  end
  table.move(options.map or {}, 1, #(options.map or {}), #map + 1, map)
  return setmetatable({ select = select, map = map }, { __index = options })
end

local function add(result, more)
  for _, name in ipairs { "files", "links", "others", "skipped", "bytes" } do
    result[name] = result[name] + more[name]
  end
  table.move(more.warnings, 1, #more.warnings, #result.warnings + 1, result.warnings)
end

-- By the index if there is one that is right, else whole. A folder that had to be empty holds only what the
-- first try has written, so the second one may replace it.
local function read(reader, options)
  local result, err = reader.pieces(options)
  if result or not err.index then
    return result, err
  end
  log.info(("%s: %s; reading the archive whole"):format(options.key, err.message), { item = options.name })
  return reader.whole(setmetatable({
    existing = (options.existing or "error") == "error" and "replace" or options.existing,
  }, { __index = options }))
end

local function unmatched(result, options)
  local missing = {}
  for i, glob in ipairs(options.path) do
    if result.matched[i] == 0 then
      missing[#missing + 1] = glob
    end
  end
  if #missing == 0 then
    return nil
  end
  local err = sys.error {
    kind = "not_found", hint = "lunark list --files shows what is in it; what other globs match was restored",
    message = ("nothing in %s matches %s"):format(options.key, table.concat(missing, ", ")),
  }
  err.exit = exit.FAILED
  return err
end

--- Restores what globs select. A hard link to a file that is not selected becomes a file. A glob that matches
--- nothing is an error once the others are restored.
---@param reader lunark.paths.Reader
---@param options table of lunark.restore, with `path`, the globs, and `key` for messages
---@return table|nil result of archive.extract
---@return table|nil err
function paths.read(reader, options)
  local chosen = setmetatable({ select = options.path }, { __index = options })
  local result, err = read(reader, chosen)
  if not result then
    return nil, err
  end
  if #result.lost > 0 then
    local more
    more, err = read(reader, of_lost(result.lost, options))
    if not more then
      return nil, err
    end
    add(result, more)
  end
  err = unmatched(result, options)
  if err then
    return nil, err
  end
  return result
end

return paths
