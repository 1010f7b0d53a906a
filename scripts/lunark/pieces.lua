-- SPDX-License-Identifier: MIT
-- Chosen entries of an archive as a tar stream, by ranged reads of the members that hold them. The index says
-- where they are; what comes out is compared with it. Needs lunark.index.

local core = require "lunark.core.index"
local index = require "lunark.index"
local stream = require "lunark.stream"
local sys = require "lunark.core.sys"
local task = require "lunark.task"

local pieces = {}

local READ = 2 << 20 -- bytes of one read
local WIDTH = 4 -- reads at once
local GAP = 256 << 10 -- what lies between two members is read with them when it is less
local RANGE, LINES = 8 << 20, 1000 -- bytes and entries from which on a range is closed
local EMPTY = "\x1f\x8b\x08\0\0\0\0\0\0\xff\x03\0\0\0\0\0\0\0\0\0" -- gzip of nothing
local HEADER_MAX = 1000 << 10

---@class lunark.Pieces
---@field stream lunark.Stream tar
local Pieces = {}
Pieces.__index = Pieces

local function damaged(record, what)
  local err = sys.error {
    kind = "corrupt", message = ("the index of the archive is damaged: %s of '%s'"):format(what, record.path),
  }
  err.index = "damaged"
  return nil, err
end

-- The member that an entry begins in: mostly one of the block that has its record.
local function member_of_record(found, record)
  local row = index.keep_row(record)
  if row then
    return row
  end
  return found:member_at(record.member)
end

-- The last member of an entry whose data ends there.
local function last_of(found, record, first, to)
  if to <= first.raw_at + first.raw then
    return first
  end
  local last, err = found:member_of(to - 1)
  if last and last.raw_at < first.raw_at then
    return damaged(record, "the place")
  end
  return last, err
end

-- Where an entry is in the data, and the members that hold it; known = one of which all is known.
local function place_of(found, record, known)
  local header, size = record.data_at - record.header_at, record.size
  if header < 512 or header > HEADER_MAX or record.header_at < 0 or size < 0 then
    return damaged(record, "the place")
  end
  if not known or known.at ~= record.member then
    local err
    known, err = member_of_record(found, record)
    if not known then
      return nil, err
    end
  end
  local from = known.raw_at + record.header_at
  local to = from + header + size
  local last, err = last_of(found, record, known, to)
  if not last then
    return nil, err
  end
  return { from = from, to = to, header = header, first = known, last = last }
end

local function line(skip, place, record)
  local flags = (record.sha256 and 1 or 0) | (record.cut and 2 or 0)
  return string.pack("<I8I4I8c1Bc32s2", skip, place.header, record.size, record.type, flags,
    record.sha256 or "", record.path)
end

-- Writes what the tasks read into the pipe, in order.
local function write_all(self, queue)
  for slot in function() return queue:get() end do
    while not slot.ready do
      slot.done:wait()
    end
    local ok, err = slot.bytes, slot.err
    if ok then
      ok, err = self.data:write(slot.bytes)
      if type(slot.bytes) ~= "string" then
        slot.bytes:close()
      end
    end
    if not ok then
      return self:fail(err)
    end
  end
  self.data:finish()
end

-- Starts to read a range of the file; parks while enough are under way.
local function read_range(self, first, last)
  for at = first, last, READ do
    local slot = { done = task.event() }
    self.queue:put(slot)
    self.group:spawn(function()
      slot.bytes, slot.err = self.found:bytes(at, math.min(at + READ - 1, last))
      slot.ready = true
      slot.done:wake()
    end)
  end
end

-- What is read at once: members that lie side by side, or nearly so, and the lines of the plan for them.
local function close_range(self)
  local range = self.range
  local ok, err = self.plan:write(table.concat(range.lines))
  if not ok then
    return nil, err
  end
  self.range = nil
  self.left = range.raw_to - self.position -- bytes behind the last entry that will come first
  read_range(self, range.first, range.last)
  return true
end

-- True if an entry is read with those before it.
local function belongs(range, place)
  local first = place.first
  if first.at + first.size <= range.last + 1 then
    return true
  end
  return first.at <= range.last + 1 + GAP and #range.lines < LINES and range.last - range.first < RANGE
end

-- Adds an entry to the range, or closes that and begins another.
local function add(self, record, place)
  if self.range and not belongs(self.range, place) then
    local ok, err = close_range(self)
    if not ok then
      return nil, err
    end
  end
  if not self.range then
    self.range = { first = place.first.at, last = -1, raw_to = 0, lines = {} }
    self.position = place.first.raw_at - self.left
  end
  if place.from < self.position then
    return damaged(record, "the order")
  end
  local range = self.range
  range.lines[#range.lines + 1] = line(place.from - self.position, place, record)
  range.last = math.max(range.last, place.last.at + place.last.size - 1)
  range.raw_to = math.max(range.raw_to, place.last.raw_at + place.last.raw)
  self.position = place.to
  return true
end

-- Makes plan and ranges out of what is selected.
local function plan(self, globs)
  local known, count -- known = the member that was seen last
  for record, err in self.found:entries(globs) do
    local place, ok
    if record then
      place, err = place_of(self.found, record, known)
    end
    if place then
      ok, err = add(self, record, place)
    end
    if not ok then
      return nil, err
    end
    known, count = place.last, true
  end
  if not count then
    self.queue:put { ready = true, bytes = EMPTY }
  else
    local ok, err = close_range(self)
    if not ok then
      return nil, err
    end
  end
  self.plan:finish()
  self.queue:finish()
  return true
end

local function run(self, globs)
  local group <close> = task.group()
  self.group = group
  group:spawn(write_all, self, self.queue)
  local ok, err = plan(self, globs)
  if not ok then
    return self:fail(err)
  end
  group:wait()
end

--- Ends both pipes with an error: it comes out of the stream.
function Pieces:fail(err)
  self.data:finish(err)
  self.plan:finish(err)
end

--- Cancels what is under way. Idempotent.
function Pieces:close()
  local planner = self.planner
  if planner then
    self.planner = nil
    task.cancel(planner, "the pieces were closed")
    task.shield(function()
      task.join(planner)
    end)
  end
  self.stream:close()
  self.data:close()
  self.plan:close()
end
Pieces.__close = Pieces.close

--- Opens what globs select as a tar stream. Reading begins at once.
---@param store table lunark.store
---@param key string
---@param size integer of the object
---@param globs string[]
---@param options table|nil {limit_rate = bytes a second, bare = only the data}
---@return lunark.Pieces|nil to-be-closed
---@return table|nil err with `index` where that is what is wrong
function pieces.open(store, key, size, globs, options)
  options = options or {}
  local found, err = index.open(store, key, size)
  if not found then
    return nil, err
  end
  local clean = {}
  for i, glob in ipairs(globs) do
    clean[i] = index.clean(glob)
  end
  local data, plan_stream
  local self = setmetatable({ found = found, position = 0, left = 0, queue = task.queue(WIDTH) }, Pieces)
  data, self.data = assert(stream.pipe())
  plan_stream, self.plan = assert(stream.pipe())
  if options.limit_rate then
    data = assert(data:limit(options.limit_rate))
  end
  self.stream = assert(core.cut(assert(data:gunzip()), plan_stream, options.bare))
  self.planner = task.spawn(function()
    local ok, why = pcall(run, self, clean)
    if not ok then -- whoever reads must hear of it, or waits for ever
      self:fail(sys.is_error(why) and why or sys.error { kind = "io", message = tostring(why) })
    end
  end)
  return self
end

return pieces
