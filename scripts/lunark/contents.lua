-- SPDX-License-Identifier: MIT
-- What is in an archive: its entries from the index alone, or by reading an archive that has none, or a wrong
-- one. Needs lunark.index and opened stores. How to use it:
--
--   for record, err in contents.each(store, backup, { "etc" }) do print(record and record.path or err) end

local core = require "lunark.core.index"
local fetch = require "lunark.fetch"
local index = require "lunark.index"
local log = require "lunark.log"

local contents = {}

-- One line of core.contents.
local function parse(line)
  local mode, type, size, mtime, mtime_ns, at = string.unpack("<I4c1i8i8I4", line)
  return {
    path = line:sub(at):gsub("^%./+", ""):gsub("/+$", ""), type = type, mode = mode, size = size,
    mtime = mtime, mtime_ns = mtime_ns,
  }
end

-- The lines of a stream.
local function each_line(source)
  local buffer, at = "", 1
  return function()
    while true do
      if #buffer - at + 1 >= 4 then
        local length = string.unpack("<I4", buffer, at)
        if #buffer - at + 1 >= 4 + length then
          at = at + 4 + length
          return buffer:sub(at - length, at - 1)
        end
      end
      local more, err = source:read()
      if not more then
        return err and false or nil, err
      end
      buffer, at = buffer:sub(at) .. more, 1
    end
  end
end

-- Which globs match; a glob that is empty matches everything.
local function selected(path, globs, seen)
  local found = false
  for _, glob in ipairs(globs) do
    if index.matches(glob, path) then
      found = true
      seen[glob] = (seen[glob] or 0) + 1
    end
  end
  return found
end

---@class lunark.contents.Reader
---@field step fun(): table|false|nil, table|nil
---@field handle table|nil to-be-closed, what step reads from
local Reader = {}
Reader.__index = Reader

-- All of the archive is read; what was given already is left out.
function Reader:begin_whole()
  local reader, err = fetch.open(self.store, self.backup.key, { size = self.backup.size })
  if not reader then
    return nil, err
  end
  self.handle = reader
  local lines
  lines, err = core.contents(reader.stream)
  if not lines then
    return nil, err
  end
  local next_line, skip = each_line(lines), self.given
  self.given = 0
  self.step = function()
    for line, why in next_line do
      if not line then
        return false, why
      end
      local record = parse(line)
      if selected(record.path, self.globs, self.counts) then
        skip = skip - 1
        if skip < 0 then
          return record
        end
      end
    end
  end
  return true
end

function Reader:begin_index()
  if not self.store:can("range") then
    return nil, { index = "none", message = "the store does not read parts of objects" }
  end
  local found, err = index.open(self.store, self.backup.key, self.backup.size)
  if not found then
    return nil, err
  end
  local step, _, _, handle = found:find(self.globs, self.counts)
  self.step, self.handle = step, handle
  return true
end

function Reader:close()
  local _ <close> = self.handle
  self.handle, self.step = nil, nil
end
Reader.__close = Reader.close

-- The next entry; nil at the end, or false and an error.
function Reader:next()
  local record, err
  if self.step then
    record, err = self.step()
  else
    local ok
    ok, err = self:begin_index()
    if ok then
      return self:next()
    end
  end
  if record then
    self.given = self.given + 1
    return record
  elseif not err then
    return nil
  elseif self.whole or not err.index then
    return false, err
  end
  log.info(("%s: %s; reading the archive whole"):format(self.backup.key, err.message),
    { item = self.backup.item })
  self:close()
  self.whole = true
  for glob in pairs(self.counts) do
    self.counts[glob] = nil
  end
  local ok, why = self:begin_whole()
  if not ok then
    return false, why
  end
  return self:next()
end

--- Iterates over the entries of an archive, in its order: `for record, err in contents.each(store, backup)`.
--- The last turn gives false and an error if it could not go on.
---@param store table lunark.store
---@param backup lunark.list.Backup
---@param globs string[]|nil only what one of them matches: patterns as --exclude takes them, from the path's
--- beginning on; with a directory goes all below it
---@param seen table<string, integer>|nil gets how many entries each glob has matched
---@return fun(): lunark.index.Record|false|nil, table|nil
function contents.each(store, backup, globs, seen)
  local clean = {}
  for i, glob in ipairs(globs or { "" }) do
    clean[i] = index.clean(glob)
  end
  local self = setmetatable({ store = store, backup = backup, globs = clean, counts = {}, given = 0 }, Reader)
  return function()
    local record, err = self:next()
    if record == nil and seen then
      for i, glob in ipairs(globs or {}) do
        seen[glob] = self.counts[clean[i]]
      end
    end
    return record, err
  end, nil, nil, self
end

return contents
