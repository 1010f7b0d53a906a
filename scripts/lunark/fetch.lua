-- SPDX-License-Identifier: MIT
-- Objects as streams, read by several ranged requests at once where the store can do that. Each range is
-- retried from where it broke, and all must be of the same object. Needs lunark.store objects. How to use it:
--
--   local reader <close> = assert(fetch.open(store, "t/t-latest.tar.gz", { size = info.size }))
--   assert(archive.extract(reader.stream, { into = "/restore" })):wait()

local stream = require "lunark.core.stream"
local sys = require "lunark.core.sys"
local task = require "lunark.task"

local fetch = {}

local MiB = 1024 * 1024
local RANGE = 2 * MiB -- fits what one response may hold in memory, so that it never waits for its turn
local WIDTH_MAX = 8
local SHARE = 0.4 -- of the stream budget; the rest is for decompression

---@class lunark.fetch.Reader to-be-closed
---@field stream lunark.Stream the bytes; is moved into what reads it
local Reader = {}
Reader.__index = Reader

---@class lunark.fetch.Options
---@field size integer|nil bytes of the object, as far as they are known; without it one request is made
---@field first integer|nil offset of the first byte, default 0
---@field last integer|nil of the last byte, default the object's last
---@field range integer|nil bytes of a request, at most 2 MiB, which is the default
---@field width integer|nil requests at once, default as memory allows, at most 8

local function failure(kind, message, hint, retryable)
  return sys.error { kind = kind, op = "fetch", message = message, hint = hint, retryable = retryable }
end

-- Requests at once. One file is read best from its beginning to its end.
local function width_of(store, options)
  local width = options.width or math.min(WIDTH_MAX, math.floor(sys.budget().memory * SHARE) // RANGE)
  return math.max(1, math.min(width, store.features.range_width or width))
end

-- An answer must be of the object that the first one was of.
function Reader:same(info)
  local is = self.identity
  if not is then
    self.identity = { etag = info.etag, version = info.version, size = info.size }
  elseif is.etag ~= info.etag or is.version ~= info.version or is.size ~= info.size then
    return nil, failure("io", ("%s was replaced by another object while it was read"):format(self.key),
      "read it again")
  end
  return true
end

-- Takes in the bytes of piece `number`, as often as it has to be begun again.
function Reader:piece(number, began, info)
  local at = self.first + number * self.range
  local last = math.min(at + self.range - 1, self.last)
  local function take(body, about)
    local ok, err = self:same(about)
    if not ok then
      return nil, err
    end
    local got
    ok, err, got = self.gather:take(number, body, last - at + 1)
    at = at + got
    if ok and at <= last then
      ok, err = nil, failure("network", ("%s: %d bytes are missing at the end of a range"):format(self.key,
        last - at + 1), nil, true)
    end
    return ok or got > 0 and err.retryable or nil, err
  end
  if began then
    local ok, err = take(began, info)
    if not ok and not err.retryable then
      return nil, err
    end
  end
  while at <= last do
    local ok, err = self.store:read(self.key, function() return { at, last } end, take)
    if not ok then
      return nil, err
    end
  end
  self.gather:done(number)
  return true
end

-- Reads all pieces, each begun when it is near its turn. The first failure ends the stream.
function Reader:run(began, info)
  local group <close> = task.group()
  local count = (self.last - self.first) // self.range + 1
  for number = 0, count - 1 do
    if not self.gather:room(number) then
      return
    end
    group:spawn(function()
      local ok, err = self:piece(number, number == 0 and began or nil, info)
      if not ok then
        self.gather:fail(err)
      end
    end)
  end
  if group:wait() then
    self.gather:finish()
  end
end

--- Opens an object for reading.
---@param store lunark.Store
---@param key string
---@param given lunark.fetch.Options|nil
---@return lunark.fetch.Reader|nil
---@return lunark.store.Info|table info, or err
function fetch.open(store, key, given)
  local options = given or {}
  local first, last = options.first or 0, options.last or options.size and options.size - 1
  local self = setmetatable({ store = store, key = key, first = first }, Reader)
  local ranged = store:can("range") and last and last >= first
  local width = ranged and width_of(store, options) or 1
  local partly = ranged and (options.first or options.last)
  self.range = math.max(1, math.min(options.range or RANGE, RANGE))
  local body, info = store:get(key, width > 1 and { first, math.min(first + self.range - 1, last) }
    or partly and { first, last } or nil)
  if not body then
    return nil, info
  end
  if width == 1 then
    self.stream = body
    return self, info
  end
  self.last = math.min(last, (info.size or last + 1) - 1)
  self.gather = assert(stream.gather(width))
  self.stream = self.gather:stream()
  self.master = task.spawn(function()
    local ok, err = pcall(self.run, self, body, info)
    if not ok then
      self.gather:fail(sys.is_error(err) and err or failure("io", tostring(err)))
    end
  end)
  return self, info
end

--- Ends what is under way. Idempotent.
function Reader:close()
  local master = self.master
  self.master = nil
  if master then
    task.shield(function()
      task.cancel(master, "nobody reads it any more")
      task.join(master)
    end, 20)
    self.gather:close()
  end
  if stream.is_stream(self.stream) then
    self.stream:close()
  end
end
Reader.__close = Reader.close

return fetch
