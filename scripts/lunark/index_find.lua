-- SPDX-License-Identifier: MIT
-- What globs select in the index of an archive, and in which blocks that can be. Part of lunark.index.

local core = require "lunark.core.index"

local find = {}

local PATH_CUT = 128 -- bytes that the list of blocks has of a path

--- Iterates over all records: `for record, err in index:records()`. The last turn gives false and an error if
--- it could not go on.
---@return fun(): lunark.index.Record|false|nil, lunark.index.Block|table, lunark.index.Ref
function find.records(self)
  return find.find(self, { "" })
end

-- --- paths ---

--- A glob as it is matched: without `/` and `./` before it, and without `/` behind it.
---@param glob string
---@return string
function find.clean(glob)
  local clean, count = glob, 1
  while count > 0 do
    clean, count = clean:gsub("^%.?/+", "")
  end
  return clean == "." and "" or (clean:gsub("/+$", ""))
end

-- Where a path lies to all paths that begin with the prefix: -1 before them, 1 behind, 0 among them, or not
-- known.
local function side(path, prefix)
  if path:sub(1, #prefix) == prefix then
    return 0
  elseif #path >= PATH_CUT and prefix:sub(1, #path) == path then
    return 0
  end
  return core.compare(path, prefix)
end

-- True if a block can have this very path.
local function can_have(ref, path)
  local following = ref.following
  if core.compare(ref.path, path) > 0 then
    return false
  end
  return not following or core.compare(following, path) > 0
    or #following >= PATH_CUT and path:sub(1, #following) == following
end

-- The directories above a path, outermost first.
local function above(path)
  local found = {}
  for at in path:gmatch("()/") do
    found[#found + 1] = path:sub(1, at - 1)
  end
  return found
end

-- Which blocks can have what the globs select and, if asked for, the directories above that.
local function bounds(self, globs, with_above)
  local prefixes, directories = {}, {}
  for i, glob in ipairs(globs) do
    prefixes[i] = self.footer.ordered and find.clean(glob):match("^[^*?%[\\]*") or ""
    if with_above then
      table.move(above(prefixes[i]), 1, 1 << 20, #directories + 1, directories)
    end
  end
  return function(ref)
    if ref.records == 0 then
      return false
    end
    for _, prefix in ipairs(prefixes) do
      if side(ref.path, prefix) <= 0 and not (ref.following and side(ref.following, prefix) < 0) then
        return true
      end
    end
    for _, directory in ipairs(directories) do
      if can_have(ref, directory) then
        return true
      end
    end
    return false
  end
end

-- The numbers of the records that the globs select, in order.
local function matches(block, globs, seen)
  local numbers, known = {}, {}
  for _, glob in ipairs(globs) do
    local number = block:next(1, glob)
    while number do
      if seen then
        seen[glob] = (seen[glob] or 0) + 1
      end
      if not known[number] then
        known[number] = true
        numbers[#numbers + 1] = number
      end
      number = block:next(number + 1, glob)
    end
  end
  if #globs > 1 then
    table.sort(numbers)
  end
  return numbers
end

--- Iterates over what globs select, in the order of the archive: `for record, block, ref in
--- index:find(globs)`. A glob is a pattern as --exclude takes it, from the beginning of the path on; with a
--- directory goes all below it. The last turn gives false and an error if it could not go on.
---@param globs string[] clean ones, see index.clean
---@param seen table<string, integer>|nil gets how many each one has selected
---@return fun(): lunark.index.Record|false|nil, lunark.index.Block|table, lunark.index.Ref
function find.find(self, globs, seen)
  local next_block, _, _, closing = self:blocks(bounds(self, globs))
  local block, ref, numbers, place = nil, nil, {}, 0
  return function()
    while true do
      place = place + 1
      if numbers[place] then
        return block:record(numbers[place]), block, ref
      end
      block, ref = next_block()
      if not block then
        return block, ref
      end
      numbers, place = matches(block, globs, seen), 0
    end
  end, nil, nil, closing
end

-- The numbers of directories beside those that are there.
local function add_directories(block, numbers)
  local known = {}
  for _, number in ipairs(numbers) do
    known[number] = true
  end
  local number = block:next(1, "", "5")
  while number do
    if not known[number] then
      numbers[#numbers + 1] = number
    end
    number = block:next(number + 1, "", "5")
  end
  table.sort(numbers)
  return known
end

--- The row of the member that a record of find.entries begins in, if it is in the same block's table. It is
--- kept with the record, whose block is let go.
---@param record lunark.index.Record
---@return table|nil {at, size, raw_at, raw}
function find.keep_row(record)
  local block = record.block
  if block then
    local at, size, raw_at, raw = block:member_at(record.member)
    record.block, record.row = nil, at and { at = at, size = size, raw_at = raw_at, raw = raw }
  end
  return record.row
end

--- As find, and with the directories above what is selected, before it: `for record, err in
--- index:entries(globs)`. find.keep_row has where it begins.
---@param globs string[] clean ones
---@return fun(): lunark.index.Record|false|nil, table|nil
function find.entries(self, globs)
  local next_block, _, _, closing = self:blocks(bounds(self, globs, true))
  local directories, ready, first = {}, {}, 1
  local function take(record, selected)
    while #directories > 0 do
      local last = directories[#directories]
      if record.path:sub(1, #last.path + 1) == last.path .. "/" then
        break
      end
      directories[#directories] = nil
    end
    if selected then
      for _, directory in ipairs(directories) do
        if not directory.given then
          directory.given = true
          ready[#ready + 1] = directory
        end
      end
      ready[#ready + 1] = record
    end
    if record.type == "5" then
      record.given = selected
      directories[#directories + 1] = record
    end
  end
  return function()
    while not ready[first] do
      for _, directory in ipairs(directories) do
        find.keep_row(directory)
      end
      local block, err = next_block()
      if not block then
        return block, err
      end
      ready, first = {}, 1
      local numbers = matches(block, globs)
      local selected = add_directories(block, numbers)
      for _, number in ipairs(numbers) do
        local record = block:record(number)
        record.block = block
        take(record, selected[number])
      end
    end
    first = first + 1
    return ready[first - 1]
  end, nil, nil, closing
end

return find
