-- SPDX-License-Identifier: MIT
-- Looks at the index of an archive by ranged reads: footer, list of blocks, blocks. What it finds goes to
-- findings; what can't be read is an error. Needs lunark.store objects. docs/format.md has the format.

local check = require "lunark.core.check"
local core = require "lunark.core.index"
local sys = require "lunark.core.sys"
local task = require "lunark.task"

local index = {}

local TAIL = 64 * 1024 -- read at first: the footer, and of most archives the whole list
local PIECE = 256 * 1024 -- of a long list at once
local MEMBER = 28 -- bytes of a member's header
local WIDTH = 8
local FOOTER = 3 -- the last type of members of this version
local PASSED = 64 -- members of other types side by side, at most
local KEPT = 4 * 1024 * 1024 -- bytes of blocks that are not read again

---@class lunark.verify.Source
---@field read fun(first: integer, last: integer): string|nil, table|nil bytes of the object, both inclusive
---@field size integer

--- One object, read piece by piece.
---@param store table lunark.store
---@param key string
---@param size integer
---@return lunark.verify.Source
function index.source(store, key, size)
  local source = { size = size, key = key, tail_at = size, blocks = {}, kept = 0 }
  local function fetch(first, last)
    local stream, info = store:get(key, { first, last })
    if not stream then
      return nil, info
    end
    local body <close> = stream
    local bytes, err = body:read_all(last - first + 2)
    if bytes and #bytes ~= last - first + 1 then
      return nil, sys.error {
        kind = "io", hint = "was it replaced while it was read?",
        message = ("%s: %d bytes from byte %d on expected, %d read"):format(key, last - first + 1, first,
          #bytes),
      }
    end
    return bytes, err
  end
  function source.read(first, last)
    if first >= source.tail_at then
      return source.tail:sub(first - source.tail_at + 1, last - source.tail_at + 1)
    end
    return fetch(first, last)
  end
  function source.load()
    local at = math.max(0, size - TAIL)
    local bytes, err = "", nil
    if size > 0 then
      bytes, err = fetch(at, size - 1)
    end
    source.tail, source.tail_at = bytes, bytes and at or size
    return bytes, err
  end
  return source
end

--- True when the object begins with one of lunark's members.
---@return boolean|nil
---@return table|nil err
function index.begins(source)
  if source.size < MEMBER then
    return false
  end
  local bytes, err = source.read(0, MEMBER - 1)
  if not bytes then
    return nil, err
  end
  return (check.is_member(bytes))
end

-- True if two places of the file have nothing between them but members of types that this version does not
-- know, which a later one may put between tables. nil, err when that can't be read.
local function only_unknown(source, at, stop)
  for _ = 1, PASSED do
    if at >= stop then
      break
    end
    local bytes, err = source.read(at, math.min(at + MEMBER, stop) - 1)
    if not bytes then
      return nil, err
    end
    local ours, kind, size = check.is_member(bytes)
    if not ours or kind <= FOOTER then
      return false
    end
    at = at + size
  end
  return at == stop
end

--- The footer.
---@param source lunark.verify.Source
---@return lunark.index.Footer|nil
---@return table|nil err kind not_found: the archive has none
function index.footer(source)
  local tail, err = source.load()
  if not tail then
    return nil, err
  end
  return core.footer(tail, source.size)
end

--- Iterates over the blocks of the list. When it can't go on, the last turn gives false and the error.
---@param source lunark.verify.Source
---@param footer lunark.index.Footer
---@return fun(): lunark.index.Ref|false|nil, table|nil
function index.blocks(source, footer)
  local at, stop = footer.list_at, footer.list_at + footer.list_size
  local bytes, refs, next_ref = "", {}, 0
  local function refill()
    if #bytes < PIECE // 4 and at < stop then
      local more, err = source.read(at, math.min(at + PIECE, stop) - 1)
      if not more then
        return nil, err
      end
      at, bytes = at + #more, bytes .. more
    end
    if bytes == "" then
      return false
    end
    local size
    refs, size = core.list(bytes)
    if not refs then
      refs, bytes, at = {}, "", stop
      return nil, size
    end
    next_ref, bytes = 0, bytes:sub(size + 1) -- `size` is where the next one begins
    return true
  end
  return function()
    while true do
      next_ref = next_ref + 1
      if refs[next_ref] then
        return refs[next_ref]
      end
      local ok, err = refill()
      if ok == nil then
        return false, err
      elseif not ok then
        return nil
      end
    end
  end
end

---@class lunark.verify.Sums
---@field members integer
---@field records integer
---@field raw integer bytes of data in its members
---@field names integer|nil offset of the member that its last record names
---@field first integer|nil offset of its first member
---@field stop integer|nil where its last member ends
---@field raw_at integer|nil

--- What one index block holds; its checksum is compared, and all in it is read.
---@param bytes string the index member
---@return lunark.verify.Sums|nil
---@return table|nil err kind corrupt
function index.sums(bytes)
  local opened, err = core.block(bytes)
  if not opened then
    return nil, err
  end
  local block <close> = opened
  local records, members = block:count()
  local sums = { records = records, members = members, raw = 0 }
  if records > 0 then
    sums.names = block:record(records).member
  end
  if members > 0 then
    local at, _, raw_at = block:member(1)
    local last, size, last_raw_at, last_raw = block:member(members)
    sums.first, sums.stop, sums.raw_at, sums.raw = at, last + size, raw_at, last_raw_at + last_raw - raw_at
  end
  return sums
end

---@class lunark.verify.Unit
---@field first integer bytes of the file, inclusive
---@field last integer
---@field row integer of the block's table, from 0
---@field rows integer

--- The members of an index block's table in pieces.
---@param bytes string the index member
---@param size integer bytes of a piece, about
---@return lunark.verify.Unit[] none where the block is damaged
function index.units(bytes, size)
  local opened = core.block(bytes)
  if not opened then
    return {}
  end
  local block <close> = opened
  local units = {}
  local _, members = block:count()
  for number = 1, members do
    local at, length = block:member(number)
    local unit = units[#units]
    if not unit or at - unit.first >= size then
      unit = { first = at, row = number - 1, rows = 0 }
      units[#units + 1] = unit
    end
    unit.last, unit.rows = at + length - 1, unit.rows + 1
  end
  return units
end

-- Whether a block is what the list says, and lies behind its members.
local function compare(ref, block, expected_first)
  if block.members ~= ref.members or block.records ~= ref.records then
    return ("has %d members and %d records, the list says %d and %d"):format(block.members, block.records,
      ref.members, ref.records)
  elseif block.members > 0 and block.stop ~= ref.at then
    return ("lies at byte %d, its members end at byte %d"):format(ref.at, block.stop)
  elseif block.members > 0 and expected_first and block.first ~= expected_first then
    return ("begins with the member at byte %d, the one before ends at byte %d"):format(block.first,
      expected_first)
  elseif block.members > 0 and block.raw_at ~= ref.raw_at then
    return "stands for other data than the list says"
  end
  return nil
end

--- True when a place that the list names can't be: it must be in the file, before the list.
---@param ref lunark.index.Ref
---@param footer lunark.index.Footer
---@param before integer where the block before it ends
---@return boolean
function index.misplaced(ref, footer, before)
  return ref.size < MEMBER or ref.size > 1 << 20 or ref.at < before or ref.at > footer.list_at
    or ref.size > footer.list_at - ref.at
end

--- The bytes of a block.
---@param source lunark.verify.Source
---@param ref lunark.index.Ref
---@return string|nil
---@return table|nil err
function index.block(source, ref)
  local bytes, err = source.blocks[ref.at], nil
  if not bytes then
    bytes, err = source.read(ref.at, ref.at + ref.size - 1)
    if bytes and source.kept + #bytes <= KEPT then
      source.blocks[ref.at], source.kept = bytes, source.kept + #bytes
    end
  end
  return bytes, err
end

-- Reads one block and compares it. Its sums, or nil where it is damaged; an error ends all.
local function check_one(source, ref, first, damage)
  local bytes, err = index.block(source, ref)
  if not bytes then
    return nil, err
  end
  local block
  block, err = index.sums(bytes)
  if block and first and block.members > 0 and block.first > first then
    local passed, why = only_unknown(source, first, block.first)
    if passed == nil then
      return nil, why
    end
    first = passed and block.first or first
  end
  local wrong = not block and err.message or compare(ref, block, first)
  if wrong then
    damage(("index block at byte %d: %s"):format(ref.at, wrong:gsub("^the index of the archive is damaged: ",
      "")),
      ref.at, ref.at + ref.size - 1)
  end
  return block or false
end

--- Checks list and blocks against the footer and each other.
---@param source lunark.verify.Source
---@param footer lunark.index.Footer
---@param damage fun(message: string, first: integer|nil, last: integer|nil)
---@return lunark.index.Footer|nil
---@return table|nil err what could not be read
function index.check(source, footer, damage)
  local sums = { blocks = 0, members = 0, records = 0, bytes = 0 }
  local before, whole = 0, not footer.partial
  local group <close> = task.group(WIDTH)
  for ref, err in index.blocks(source, footer) do
    if not ref then
      if err.kind ~= "corrupt" then
        return nil, err
      end
      damage("the list of index blocks is damaged", footer.list_at, footer.list_at + footer.list_size - 1)
      whole = false
      break
    elseif index.misplaced(ref, footer, before) then
      damage("the list of index blocks names one that is not in the archive", footer.list_at,
        footer.list_at + footer.list_size - 1)
      whole = false
      break
    end
    local first = not footer.partial and before or nil
    before, sums.blocks = ref.at + ref.size, sums.blocks + 1
    local started = group:spawn(function()
      local block, why = check_one(source, ref, first, damage)
      if block == nil then
        error(why, 0)
      elseif not block then
        whole = false
      else
        sums.members, sums.records = sums.members + block.members, sums.records + block.records
        sums.bytes = sums.bytes + block.raw
      end
    end)
    if not started then
      break
    end
  end
  local ok, err = group:wait()
  if not ok then
    return nil, err
  end
  local passed = true
  if whole and before < footer.list_at then
    passed, err = only_unknown(source, before, footer.list_at)
    if passed == nil then
      return nil, err
    end
  end
  if whole and (before > footer.list_at or not passed) then
    damage(("the list of index blocks is at byte %d, the last block ends at byte %d"):format(footer.list_at,
      before))
  end
  for _, name in ipairs(whole and { "blocks", "members", "records", "bytes" } or {}) do
    if sums[name] ~= footer[name] then
      damage(("the index has %d %s, its footer says %d"):format(sums[name], name, footer[name]))
    end
  end
  return footer
end

return index
