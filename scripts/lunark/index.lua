-- SPDX-License-Identifier: MIT
-- The index of an archive in a store, by ranged reads: footer and list with the end of the object, blocks
-- when they are wanted. How to use it:
--
--   local found <close> = assert(index.open(store, "data/data-2026-01-31T020000Z.tar.gz"))
--   for record, err in found:find({ "etc/*.conf" }) do print(record and record.path or err) end
--
-- A failure of the index, not of the store, has `err.index`: "none" (kind not_found) or "damaged" (kind
-- corrupt). Such an archive can be read whole. What is here checks the index against itself: a block is where
-- the list says, has as many records and members, and its members fill the file up to it. docs/format.md has
-- the format. Needs lunark.store objects whose store can "range".

local core = require "lunark.core.index"
local find = require "lunark.index_find"
local log = require "lunark.log"
local retry = require "lunark.retry"
local sys = require "lunark.core.sys"
local task = require "lunark.task"

local index = { compare = core.compare, matches = core.matches }

local TAIL = 64 << 10 -- read at once; the list of some 500,000 files fits
local LIST_MAX = 16 << 20
local WIDTH = 16 -- reads of blocks at once
local GAP, SPAN = 16 << 10, 256 << 10 -- blocks so near to each other are read at once, up to so much
local KEPT = 4 -- blocks
local PATH_CUT = 128 -- bytes that the list has of a path

---@class lunark.Index
---@field key string
---@field size integer bytes of the archive
---@field footer lunark.index.Footer
local Index = {}
Index.__index = Index

local function damaged(format, ...)
  local err = sys.error {
    kind = "corrupt", message = "the index of the archive is damaged: " .. format:format(...),
  }
  err.index = "damaged"
  return nil, err
end

-- What the C module says is about the index.
local function about_index(err)
  err.index = err.kind == "not_found" and "none" or "damaged"
  return nil, err
end

-- --- reading ---

local function all_of(body, length) return body:read_all(length) end

-- The bytes first to last of the object, as `consume` makes them of the stream. What breaks off is read
-- again.
local function fetch(self, first, last, consume)
  local store, key, length = self.store, self.key, last - first + 1
  return retry.run(function()
    local stream, info = store:get(key, { first, last })
    if not stream then
      info.retryable = nil -- the store has tried again already
      return nil, info
    end
    local body <close> = stream
    self.etag = self.etag or info.etag
    if info.size and info.size ~= self.size or info.etag ~= self.etag then
      return nil, sys.error {
        kind = "conflict", message = ("%s was replaced while it was read"):format(key), hint = "try again",
      }
    end
    return consume(body, length)
  end, { what = ("%s: get %s"):format(store:describe(), key), log = log })
end

local function too_short(self, length, came)
  return nil, sys.error {
    kind = "network", retryable = true,
    message = ("%s: %d bytes expected, %d came"):format(self.key, length, came),
  }
end

-- Reads bytes of the object as a string; those of its end are here already.
local function read(self, first, last)
  if first >= self.tail_at then
    return self.tail:sub(first - self.tail_at + 1, last - self.tail_at + 1)
  end
  return fetch(self, first, last, function(body, length)
    local text, err = all_of(body, length)
    if text and #text ~= length then
      return too_short(self, length, #text)
    end
    return text, err
  end)
end

--- Bytes of the archive, a few MiB at most, for a stream.pipe.
---@param first integer
---@param last integer
---@return lunark.Part|string|nil
---@return table|nil err
function Index:bytes(first, last)
  if first >= self.tail_at then
    return read(self, first, last)
  end
  return fetch(self, first, last, function(body, length)
    local parts <close> = assert(body:parts { size = length, width = 1 })
    local part, err = parts:next()
    if not part then
      return nil, err or select(2, too_short(self, length, 0))
    elseif part.size ~= length then
      local came = part.size
      part:close()
      return too_short(self, length, came)
    end
    return part
  end)
end

-- --- the list ---

-- One page of the list: its refs, each with where the block before it ends, and the path that the next
-- records begin with.
local function decode(self, page)
  local refs, following = core.list(self.list, page.at)
  if not refs then
    return about_index(following)
  end
  local ends, path = page.after, page.following
  for _, ref in ipairs(refs) do
    ref.after = ends
    ends = ref.at + ref.size
  end
  for i = #refs, 1, -1 do
    refs[i].following = path
    path = refs[i].records > 0 and refs[i].path or path
  end
  return refs, following, ends, path
end

-- Looks at the whole list once: where its pages are, and whether it fits the footer.
local function survey(self)
  local footer, pages, at, after = self.footer, self.pages, 0, 0
  local blocks, records, members = 0, 0, 0
  while at < #self.list do
    local page = { at = at, after = after }
    local refs, following, ends, path = decode(self, page)
    if not refs then
      return nil, following
    end
    page.path, page.raw_at = path, refs[1] and refs[1].raw_at
    for _, ref in ipairs(refs) do
      if ref.at < ref.after or ref.size < 1 or ref.at + ref.size > footer.list_at then
        return damaged("the list names a block at byte %d, which can't be there", ref.at)
      end
      blocks, records, members = blocks + 1, records + ref.records, members + ref.members
    end
    pages[#pages + 1] = page
    at, after = following, ends
  end
  for i = #pages - 1, 1, -1 do
    pages[i].following = pages[i + 1].path or pages[i + 1].following
  end
  if blocks ~= footer.blocks or records ~= footer.records or members ~= footer.members
    or after ~= footer.list_at then
    return damaged("list and footer don't fit together")
  end
  return true
end

-- The refs of a page; the page that was decoded last is kept.
local function page_refs(self, number)
  if self.page ~= number then
    self.page, self.refs = number, assert(decode(self, self.pages[number]))
  end
  return self.refs
end

-- Iterates over all refs; one page of the list is decoded at a time.
local function each_ref(self)
  local number, place, refs = 0, 0, {}
  return function()
    place = place + 1
    while place > #refs do
      number, place = number + 1, 1
      if number > #self.pages then
        refs = {}
        return nil
      end
      refs = page_refs(self, number)
    end
    return refs[place]
  end
end

-- --- opening ---

--- Opens the index of an archive.
---@param store table lunark.store
---@param key string
---@param size integer|nil of the object, where it is known; else the store is asked
---@return lunark.Index|nil
---@return table|nil err with `index`, see above; else of the store
function index.open(store, key, size)
  if not size then
    local info, err = store:head(key)
    if not info then
      return nil, err
    end
    size = info.size
  end
  local self = setmetatable({ store = store, key = key, size = size, pages = {}, kept = {} }, Index)
  self.tail_at = size
  if size == 0 then
    return about_index(sys.error { kind = "not_found", message = "the archive has no index" })
  end
  local first = math.max(0, size - TAIL)
  local tail, err = read(self, first, size - 1)
  if not tail then
    return nil, err
  end
  self.tail, self.tail_at = tail, first
  self.footer, err = core.footer(tail, size)
  if not self.footer then
    return about_index(err)
  elseif self.footer.partial then
    return damaged("its list does not name every block")
  elseif self.footer.list_size > LIST_MAX then
    return damaged("a list of %d bytes", self.footer.list_size)
  end
  self.list = ""
  if self.footer.list_size > 0 then
    self.list, err = read(self, self.footer.list_at, size - 1 - 94)
  end
  if not self.list then
    return nil, err
  end
  local ok
  ok, err = survey(self)
  if not ok then
    return nil, err
  end
  return self
end

-- --- blocks ---

-- Compares a block with what the list says of it.
local function check(block, ref)
  local records, members = block:count()
  if records ~= ref.records or members ~= ref.members then
    return damaged("the block at byte %d has %d records and %d members, the list says %d and %d", ref.at,
      records, members, ref.records, ref.members)
  end
  local ends = ref.after
  if members > 0 then
    local at, _, raw_at = block:member(1)
    local last, size = block:member(members)
    ends = last + size
    if at ~= ref.after or raw_at ~= ref.raw_at then
      return damaged("the members of the block at byte %d don't begin where the block before it ends", ref.at)
    end
  end
  if ends ~= ref.at then
    return damaged("the members of the block at byte %d end at byte %d", ref.at, ends)
  elseif records > 0 and block:record(1).path:sub(1, PATH_CUT) ~= ref.path then
    return damaged("the block at byte %d begins with another path than the list says", ref.at)
  end
  return block
end

-- The bytes of the blocks of refs that lie near to each other, in one read.
local function read_span(self, refs)
  return read(self, refs[1].at, refs[#refs].at + refs[#refs].size - 1)
end

-- One block out of the bytes of its span.
local function open_block(bytes, refs, place)
  local ref = refs[place]
  local block, err = core.block(bytes, ref.at - refs[1].at)
  if not block then
    return about_index(err)
  end
  local fits
  fits, err = check(block, ref)
  if not fits then
    block:close()
    return nil, err
  end
  return block
end

--- One block.
---@param ref lunark.index.Ref
---@return lunark.index.Block|nil
---@return table|nil err
function Index:block(ref)
  local bytes, err = read_span(self, { ref })
  if not bytes then
    return nil, err
  end
  return open_block(bytes, { ref }, 1)
end

-- The ref of the block whose table has a member: the last one with `field`, "after" or "raw_at", up to the
-- value.
local function ref_of(self, field, value)
  for number = #self.pages, 1, -1 do
    local first = self.pages[number][field]
    if first and first <= value then
      local refs = page_refs(self, number)
      for i = #refs, 1, -1 do
        if refs[i].members > 0 and refs[i][field] <= value then
          return refs[i]
        end
      end
    end
  end
end

local function cached_block(self, ref)
  for _, one in ipairs(self.kept) do
    if one.ref.at == ref.at then
      return one.block
    end
  end
  local block, err = self:block(ref)
  if not block then
    return nil, err
  end
  table.insert(self.kept, 1, { ref = ref, block = block })
  if #self.kept > KEPT then
    table.remove(self.kept).block:close()
  end
  return block
end

local function row(block, err, method, value)
  if not block then
    return nil, err
  end
  local at, size, raw_at, raw = block[method](block, value)
  if not at then
    return damaged("no member holds what a record names")
  end
  return { at = at, size = size, raw_at = raw_at, raw = raw }
end

--- The data member that begins at an offset of the file.
---@param at integer
---@return table|nil {at, size, raw_at, raw}
---@return table|nil err
function Index:member_at(at)
  local ref = ref_of(self, "after", at)
  if not ref then
    return damaged("no member begins at byte %d", at)
  end
  local block, err = cached_block(self, ref)
  return row(block, err, "member_at", at)
end

--- The data member that holds a byte of the data.
---@param raw integer
---@return table|nil {at, size, raw_at, raw}
---@return table|nil err
function Index:member_of(raw)
  local ref = ref_of(self, "raw_at", raw)
  if not ref then
    return damaged("no member holds byte %d of the data", raw)
  end
  local block, err = cached_block(self, ref)
  return row(block, err, "member_of", raw)
end

-- Gathers wanted refs into spans.
local function each_span(self, wanted)
  local next_ref = each_ref(self)
  local ahead
  return function()
    local span = { ahead }
    ahead = nil
    while true do
      local ref = next_ref()
      if not ref then
        break
      elseif not wanted or wanted(ref) then
        local last = span[#span]
        local size = last and ref.at + ref.size - span[1].at
        if last and (ref.at - last.at - last.size > GAP or size > SPAN) then
          ahead = ref
          break
        end
        span[#span + 1] = ref
      end
    end
    return span[1] and span or nil
  end
end

--- Iterates over blocks in the order of the file, several reads ahead: `for block, ref in index:blocks()`.
--- When one can't be had, the last turn gives false and the error. A block is closed by the next turn: few
--- bytes of a file can say that many blocks are large.
---@param wanted? fun(ref: lunark.index.Ref): boolean which; `ref.following` is the path of the first record
--- behind the block
---@return fun(): lunark.index.Block|false|nil, lunark.index.Ref|table
function Index:blocks(wanted)
  local next_span = each_span(self, wanted)
  local group = task.group(WIDTH)
  local queue, first, last, ended, place = {}, 1, 0, false, 0
  local given ---@type lunark.index.Block|nil
  local function fill()
    while not ended and last - first < WIDTH do
      local span = next_span()
      if not span then
        ended = true
        return
      end
      last = last + 1
      local slot = { refs = span, done = task.event() }
      queue[last] = slot
      group:spawn(function()
        slot.bytes, slot.err = read_span(self, span)
        slot.ready = true
        slot.done:wake()
      end)
    end
  end
  local function stop(err)
    queue, ended = {}, true
    return false, err
  end
  local function step()
    if given then
      given:close()
      given = nil
    end
    while true do
      fill()
      local slot = queue[first]
      if not slot then
        return nil
      end
      while not slot.ready do
        slot.done:wait()
      end
      if not slot.bytes then
        return stop(slot.err)
      end
      place = place + 1
      if place <= #slot.refs then
        local err
        given, err = open_block(slot.bytes, slot.refs, place)
        if not given then
          return stop(err)
        end
        return given, slot.refs[place]
      end
      queue[first] = nil
      first, place = first + 1, 0
    end
  end
  return step, nil, nil, group
end

Index.find, Index.records, Index.entries = find.find, find.records, find.entries
index.clean, index.keep_row = find.clean, find.keep_row

return index
