-- SPDX-License-Identifier: MIT
--- Credentials that end: keeps the current ones and gets new ones before their time is up. One task
--- fetches, others wait for it. Knows no cloud: what it keeps is what `fetch` returns.

local sys = require "lunark.core.sys"
local task = require "lunark.core.task"

local renewal = {}

local EARLY = 225 -- seconds before the end; metadata services have new ones from 300 s on
local RECHECK = 60 -- seconds after which ones without an end are fetched again
local AGAIN = 15 -- seconds until the next try where renewing failed and the old ones still hold

---@class lunark.credential.Renewal
local Renewal = {}
Renewal.__index = Renewal

---@param fetch fun(): any, any credentials and the time they end at (nil: not known); or nil, err
---@param context table {clock = fun(): number, log =, what = "access token of ..." for messages}
---@return lunark.credential.Renewal
function renewal.new(fetch, context)
  return setmetatable({
    fetch = fetch, clock = context.clock, log = context.log, what = context.what,
  }, Renewal)
end

-- Waits until no other task is fetching.
local function wait_turn(self)
  while self.fetching do self.fetching:wait() end
end

-- The event that ends the turn, however it ends.
local function take_turn(self)
  self.fetching = task.event()
  return setmetatable({}, { __close = function()
    local over = self.fetching
    self.fetching = nil
    over:wake()
  end })
end

local function renew(self)
  local fresh, ends = self.fetch()
  local now = self.clock()
  if fresh ~= nil then
    self.current, self.ends, self.proven = fresh, ends, false
    self.renew_at = ends and ends - math.min(EARLY, (ends - now) / 2) or now + RECHECK
    return fresh
  end
  local err = ends
  if self.current == nil or not self.ends or now >= self.ends then return nil, err end
  self.log.warn(("%s could not be renewed, the present one holds for %.0f s: %s"):format(self.what,
    self.ends - now, sys.is_error(err) and err.message or tostring(err)))
  self.renew_at = math.min(now + AGAIN, self.ends)
  return self.current
end

local function current(self)
  if self.current ~= nil and self.clock() < self.renew_at then return self.current end
end

--- The credentials to use now. Parks while they are fetched.
---@return any
---@return table? err
function Renewal:get()
  local found = current(self)
  if found ~= nil then return found end
  wait_turn(self)
  found = current(self)
  if found ~= nil then return found end
  local _ <close> = take_turn(self)
  return renew(self)
end

--- The store took a request with these.
---@param used any
function Renewal:worked(used)
  if used == self.current then self.proven = true end
end

--- The store refused them. True when it is worth another try: they had been good before and have
--- been dropped, or others have taken their place.
---@param used any
---@return boolean
function Renewal:refused(used)
  if used ~= self.current then return true end
  if not self.proven then return false end
  self.current, self.proven = nil, false
  return true
end

return renewal
