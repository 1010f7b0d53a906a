-- SPDX-License-Identifier: MIT
--- Uploads: one read of a stream into one or several stores, in parts, in bounded memory.
--- Needs lunark.store. The size of parts is settled before the first byte, from what the stores
--- take, what is known of the stream's size, and the memory that parts may use.

local log = require "lunark.log"
local sys = require "lunark.core.sys"
local task = require "lunark.task"

local transfer = {}

local MiB = 1024 * 1024
local GiB = 1024 * MiB
local ROOM = 56 * GiB -- that much fits into an object of unknown size, where the number of parts has a limit
local PART = 4 * MiB -- more of them on their way at once count for more than larger ones, down to this
local PART_IN_TURN = 16 * MiB -- each part costs a round trip in which nothing is sent
-- For stores that take parts of any size, several at once: the last one is done sooner.
local SMALL_PART = 2 * MiB
local SHARE, SHARE_RAW = 0.6, 0.9 -- of the stream budget; the rest is for compression, where there is one
local WIDTH_MAX = 16
local MARGIN = 1.1 -- an estimate may be that much too small
local SETTLE = 3 -- seconds that parts under way get when the upload is given up

---@class lunark.transfer.Target
---@field store lunark.Store
---@field key string
---@field meta table<string, string>?
---@field exclusive boolean? fail with conflict when the key is taken, as far as the store can tell

---@class lunark.transfer.Options
---@field expect_size integer? bytes: the size, or an estimate of it
---@field spill_dir string? where parts are kept that memory has no room for
---@field memory integer? bytes for parts, 60 % of the stream budget, or with `raw` 90 %
---@field raw boolean? the stream is not compressed here
---@field part_size integer? bytes, in place of what would be chosen
---@field progress fun(bytes: integer)? told after each part how many bytes are stored everywhere

---@class lunark.transfer.Result
---@field bytes integer
---@field sha256 string
---@field parts integer
---@field targets table[] as given: {ok =, err =, info =}

local KNOWN = { expect_size = true, spill_dir = true, memory = true, part_size = true, progress = true,
  raw = true }

local function failure(kind, message, hint)
  return sys.error { kind = kind, op = "transfer", message = message, hint = hint }
end

local function ceil_to(value, unit)
  return math.tointeger(math.ceil(value / unit)) * unit
end

-- What all stores together ask of a part.
local function agree(targets)
  local limits = {
    min = 1, max = math.maxinteger, count = math.maxinteger, align = 1, single = math.maxinteger,
    in_turn = false, -- some store takes them so
    all_in_turn = true,
  }
  local hashes, seen = {}, {}
  for _, target in ipairs(targets) do
    local features = target.store.features
    local multipart = features.multipart
    if multipart then
      limits.min = math.max(limits.min, multipart.min or 1)
      limits.max = math.min(limits.max, multipart.max or math.maxinteger)
      limits.count = math.min(limits.count, multipart.count or math.maxinteger)
      limits.align = math.max(limits.align, multipart.align or 1)
      limits.in_turn = limits.in_turn or multipart.width == 1
      limits.all_in_turn = limits.all_in_turn and multipart.width == 1
    else
      limits.count = 1
    end
    limits.single = math.min(limits.single, features.put_max or math.maxinteger)
    for _, name in ipairs(features.part_hash or {}) do
      if not seen[name] then
        seen[name] = true
        hashes[#hashes + 1] = name
      end
    end
  end
  return limits, hashes
end

local function too_large(size, limits)
  if size <= limits.max then return nil end
  return failure("usage", ("%d bytes do not fit into %d parts of %d bytes, which is what the store takes")
    :format(size * limits.count, limits.count, limits.max), "store it in several items")
end

--- How many bytes go into the stores when nothing is known about the size of the stream.
---@param targets lunark.transfer.Target[]
---@param options lunark.transfer.Options
---@return integer
function transfer.capacity(targets, options)
  local limits = agree(targets)
  if limits.count == math.maxinteger then return math.maxinteger end
  local plan = transfer.plan(targets, options)
  return plan and math.floor(plan.size / MARGIN) * plan.count or 0
end

--- Settles size, number in memory, and place of parts.
---@param targets lunark.transfer.Target[]
---@param options lunark.transfer.Options
---@return table? plan {size, width, hash, spill_dir, count}
---@return table? err usage: what to give so that it fits
function transfer.plan(targets, options)
  local limits, hashes = agree(targets)
  local memory = options.memory or math.floor(sys.budget().memory * (options.raw and SHARE_RAW or SHARE))
  local unit = math.max(limits.align, MiB)
  local size = options.part_size
  if not size then
    local small = limits.min < MiB and limits.count == math.maxinteger and not limits.in_turn
    size = small and SMALL_PART or limits.all_in_turn and PART_IN_TURN
      or math.max(PART, ceil_to(ROOM / limits.count, MiB))
    local held = limits.all_in_turn and 2 or 3 -- one on its way, one that fills
    size = math.max(limits.min, math.min(size, limits.max, memory // held // unit * unit))
    local expected = options.expect_size
    if expected and limits.count < math.maxinteger then
      size = math.max(size, ceil_to(expected * MARGIN / limits.count, unit))
    end
    size = ceil_to(size, limits.align)
  end
  local err = too_large(size, limits)
  if err then return nil, err end
  local plan = { size = size, hash = hashes, count = limits.count, single = limits.single }
  plan.width = math.min(WIDTH_MAX, memory // size)
  if plan.width < 2 then
    if not options.spill_dir then
      return nil, failure("usage", ("parts of %d MiB are needed, memory has room for %d MiB of them")
        :format(ceil_to(size, MiB) // MiB, memory // MiB),
        ("give --work-dir, where parts can wait, or --memory %dM")
          :format(ceil_to(2 * size / SHARE, MiB) // MiB))
    end
    plan.width, plan.spill_dir = 3, options.spill_dir
  end
  return plan
end

-- --- one target ---

-- A target's life: parts wait in its queue, its workers send them; the first error ends it.
local Lane = {}
Lane.__index = Lane

local function new_lane(target, plan)
  local features = target.store.features
  local width = features.multipart and features.multipart.width or plan.width
  return setmetatable({
    target = target, store = target.store, queue = task.queue(plan.width),
    width = math.min(width, plan.width), tasks = {}, sending = 0, sent = 0,
  }, Lane)
end

-- Ends the lane; what is under way ends by itself, and the last one of it clears up.
function Lane:fail(err)
  if self.err then return end
  self.err = err
  -- The caller hears of it in the end; where others go on, that may be long after.
  local say = self.alone and log.debug or log.warn
  say(("%s: %s"):format(self.store:describe(), err.message), { key = self.target.key, kind = err.kind })
  if self.sending == 0 then self:abort() end
end

function Lane:abort()
  local upload = self.upload
  self.upload = nil
  if upload then upload:abort() end
end

function Lane:send(part)
  if self.err then return end
  self.sending = self.sending + 1
  local ok, err = self.upload:part(part.number, part)
  self.sending = self.sending - 1
  if ok then
    self.sent = self.sent + part.size
  elseif not self.err then
    self:fail(err)
  elseif self.sending == 0 then
    self:abort()
  end
end

function Lane:work(on_sent)
  for part in function() return self.queue:get() end do
    local held <close> = part
    self:send(held)
    on_sent()
  end
end

function Lane:begin(options, on_sent)
  local target = self.target
  if not self.store:can("multipart") then
    return self:fail(failure("usage", target.key .. ": the store takes it in one part only, and it has more"))
  end
  local err
  task.shield(function() -- an upload whose answer nobody waits for could not be aborted
    self.upload, err = self.store:uploader(target.key, target.meta, {
      exclusive = target.exclusive, expect_size = options.expect_size,
    })
  end, SETTLE)
  if not self.upload then return self:fail(err) end
  for index = 1, self.width do self.tasks[index] = task.spawn(self.work, self, on_sent) end
end

-- No more parts come: waits for those under way.
function Lane:drain()
  self.queue:finish()
  for _, worker in ipairs(self.tasks) do
    local ok, err = task.join(worker)
    if not ok and not self.err then
      self:fail(sys.is_error(err) and err or failure("io", tostring(err)))
    end
  end
  self.tasks = {}
end

-- Leaves nothing behind, however far it came. A server may still store a part that it has read when the
-- connection ends, behind the back of abort: so until `deadline` those under way may get their answers.
function Lane:close(deadline)
  self.queue:finish()
  for part in function() return self.queue:get() end do part:close() end
  task.timeout(math.max(deadline - sys.monotonic(), 0), function()
    for _, worker in ipairs(self.tasks) do task.join(worker) end
  end)
  for _, worker in ipairs(self.tasks) do task.cancel(worker, "the upload was given up") end
  for _, worker in ipairs(self.tasks) do task.join(worker) end
  self.tasks = {}
  self:abort()
end

-- --- all of it ---

local function alive(lanes)
  local list = {}
  for _, lane in ipairs(lanes) do
    if not lane.err then list[#list + 1] = lane end
  end
  return list
end

local function put_everywhere(lanes, part)
  task.map(alive(lanes), #lanes, function(lane)
    local target = lane.target
    local info, err = lane.store:put(target.key, part, target.meta, { exclusive = target.exclusive })
    if info then
      lane.info = info
    else
      lane:fail(err)
    end
    return true
  end)
end

local function finish_everywhere(lanes)
  task.map(alive(lanes), #lanes, function(lane)
    local info, err = lane.upload:finish()
    if info then
      lane.upload, lane.info = nil, info
    else
      lane:fail(err)
    end
    return true
  end)
end

local function out_of_parts(plan)
  return failure("io", ("the object needs more than %d parts of %d MiB: the store takes no more")
    :format(plan.count, plan.size // MiB), "say about how large it gets with --expect-size, for larger parts")
end

-- Hands every part to every lane. True, or nil and the source's error.
local function pump(parts, lanes, plan, options, state)
  local function on_sent()
    local least
    for _, lane in ipairs(alive(lanes)) do least = math.min(least or lane.sent, lane.sent) end
    if options.progress and least then options.progress(least) end
  end
  while #alive(lanes) > 0 do
    local next_part, err = parts:next()
    if not next_part then
      if err then return nil, err end
      break
    end
    local part <close> = next_part
    state.count = state.count + 1
    if part.number == 1 and part.last and part.size <= plan.single then
      put_everywhere(lanes, part)
      if options.progress then options.progress(part.size) end
    else
      if part.number == 1 then
        task.map(alive(lanes), #lanes, function(lane)
          lane:begin(options, on_sent)
          return true
        end)
      end
      for _, lane in ipairs(alive(lanes)) do
        local limits = lane.store.features.multipart
        if part.number > (limits.count or math.maxinteger) then
          lane:fail(out_of_parts(plan))
        else
          lane.queue:put(part:ref())
        end
      end
    end
  end
  return true
end

local function report(lanes, parts, count)
  local result = { parts = count, targets = {} }
  local conflict, stored
  for index, lane in ipairs(lanes) do
    local ok = lane.info ~= nil and not lane.err
    result.targets[index] = { ok = ok, err = lane.err, info = lane.info }
    stored = stored or ok
    if lane.err and lane.err.kind == "conflict" then conflict = conflict or lane.err end
  end
  if not stored then
    local err = conflict or lanes[1].err
    err.targets = result.targets
    return nil, err
  end
  result.bytes = parts:bytes()
  result.sha256 = parts:total().sha256
  return result
end

--- Stores one stream under the targets' keys. Nothing is visible before the source has ended whole.
--- A target that fails drops out, the others go on; a source that fails, or cancellation, leaves
--- nothing anywhere.
---@param stream lunark.Stream moved
---@param targets lunark.transfer.Target[]
---@param given lunark.transfer.Options?
---@return lunark.transfer.Result? when at least one target has it; look at each target's `ok`
---@return table? err of the source, of the options, or of a target when none has it (conflict where a
--- key was taken); its `targets` then has what became of each
function transfer.upload(stream, targets, given)
  local options = given or {}
  for key in pairs(options) do
    if not KNOWN[key] then
      error(failure("usage", ("transfer.upload: unknown option '%s'"):format(tostring(key))), 0)
    end
  end
  if #targets == 0 then error(failure("usage", "transfer.upload: no target"), 0) end
  local source <close> = stream
  local plan, err = transfer.plan(targets, options)
  if not plan then return nil, err end
  local lanes = {}
  for index, target in ipairs(targets) do
    lanes[index] = new_lane(target, plan)
    lanes[index].alone = #targets == 1
  end
  local _ <close> = setmetatable({}, { __close = function()
    task.shield(function()
      local deadline = sys.monotonic() + SETTLE
      for _, lane in ipairs(lanes) do lane:close(deadline) end
    end, 20)
  end })
  local made
  made, err = source:parts {
    size = plan.size, width = plan.width, hash = plan.hash, total = { "sha256" }, spill_dir = plan.spill_dir,
  }
  if not made then return nil, err end
  local parts <close> = made
  local state = { count = 0 }
  local ok
  ok, err = pump(parts, lanes, plan, options, state)
  if not ok then return nil, err end
  for _, lane in ipairs(lanes) do lane:drain() end
  local multi = {}
  for _, lane in ipairs(lanes) do
    if lane.upload then multi[#multi + 1] = lane end
  end
  if #multi > 0 then finish_everywhere(multi) end
  return report(lanes, parts, state.count)
end

return transfer
