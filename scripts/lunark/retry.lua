-- SPDX-License-Identifier: MIT
--- Retries what may be retried: errors with `retryable`, inside one total deadline, with jittered
--- backoff. Needs lunark.core.sys, task and log; all three can be replaced for tests.

local log = require "lunark.log"
local sys = require "lunark.core.sys"
local task = require "lunark.core.task"

local retry = {}

---@class lunark.retry.Options
---@field what string what is being done, for the log
---@field deadline number seconds in total, 120
---@field attempts integer? at most, without limit but the deadline
---@field base number first longest pause, 0.25
---@field cap number longest pause, 20
---@field on_skew fun(offset: number)? told once how far the server's clock is ahead; then tried again
---@field clock fun(): number? monotonic
---@field sleep fun(seconds: number)?
---@field random fun(): number? from 0 to 1
---@field log table?
local DEFAULTS = { what = "request", deadline = 120, base = 0.25, cap = 20 }
local KNOWN = {
  what = true, deadline = true, attempts = true, base = true, cap = true, on_skew = true, clock = true,
  sleep = true, random = true, log = true,
}

local function read_options(given)
  local options = {}
  for key, value in pairs(DEFAULTS) do options[key] = value end
  for key, value in pairs(given or {}) do
    if not KNOWN[key] then
      local message = ("retry: unknown option '%s'"):format(tostring(key))
      error(sys.error { kind = "usage", op = "retry", message = message }, 0)
    end
    options[key] = value
  end
  options.clock = options.clock or sys.monotonic
  options.sleep = options.sleep or task.sleep
  options.random = options.random or math.random
  options.log = options.log or log
  return options
end

-- Full jitter: anything between nothing and the bound, which doubles. What the server asks for is a
-- minimum.
local function pause_after(attempt, err, options)
  local bound = math.min(options.cap, options.base * 2 ^ (attempt - 1))
  local pause = options.random() * bound
  if err.retry_after then pause = math.max(pause, err.retry_after) end
  return pause
end

local function give_up(err, attempt, began, options)
  if attempt > 1 and sys.is_error(err) then
    local seconds = options.clock() - began
    err.message = ("%s (gave up after %d attempts in %.0f s)"):format(err.message, attempt, seconds)
  end
  return nil, err
end

--- Calls `fn(attempt, left)` until it succeeds, fails for good, or the deadline is near. `fn`
--- returns results, or nil and an error; `left` is how many seconds remain. An error can carry
--- `retry_after` (seconds) and `skew` (seconds that the server's clock is ahead).
---@param fn fun(attempt: integer, left: number): any, any
---@param given lunark.retry.Options?
---@return any ... what fn returned
function retry.run(fn, given)
  local options = read_options(given)
  local began = options.clock()
  local attempt, skew_corrected = 0, false
  while true do
    attempt = attempt + 1
    local results = table.pack(fn(attempt, options.deadline - (options.clock() - began)))
    local err = results[2]
    if results[1] ~= nil or type(err) ~= "table" then return table.unpack(results, 1, results.n) end
    if err.skew and options.on_skew and not skew_corrected then
      skew_corrected = true
      options.log.warn(("%s: the server's clock is %.0f s ahead of this one; signing with its time")
        :format(options.what, err.skew))
      options.on_skew(err.skew)
    else
      if not err.retryable then return table.unpack(results, 1, results.n) end
      local pause = pause_after(attempt, err, options)
      local left = options.deadline - (options.clock() - began)
      if pause >= left or (options.attempts and attempt >= options.attempts) then
        return give_up(err, attempt, began, options)
      end
      -- The first ones are everyday business of a busy store.
      local say = attempt >= 3 and options.log.warn or options.log.debug
      say(("%s: %s; again in %.1f s"):format(options.what, err.message, pause), { attempt = attempt })
      options.sleep(pause)
    end
  end
end

return setmetatable(retry, { __call = function(_, fn, given) return retry.run(fn, given) end })
