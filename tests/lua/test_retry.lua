-- SPDX-License-Identifier: MIT
-- lunark.retry, with a clock that only sleeping moves.
local lu = require "luaunit"
local retry = require "lunark.retry"
local sys = require "lunark.core.sys"

local TestRetry = {}

local function failure(more)
  local err = sys.error { kind = "network", message = "no answer", retryable = true }
  for key, value in pairs(more or {}) do err[key] = value end
  return err
end

-- Runs fn under a false clock. What it returned, the pauses, the log.
local function run(fn, more)
  local now, pauses, lines = 1000, {}, {}
  local function log(level)
    return function(message) lines[#lines + 1] = level .. ": " .. message end
  end
  local options = {
    what = "put x", clock = function() return now end, random = function() return 1 end,
    sleep = function(seconds)
      pauses[#pauses + 1] = seconds
      now = now + seconds
    end,
    log = { warn = log "warn", debug = log "debug" },
  }
  for key, value in pairs(more or {}) do options[key] = value end
  local results = table.pack(retry.run(fn, options))
  return results, pauses, lines
end

local function failing(times, err)
  local calls = 0
  return function(attempt)
    calls = calls + 1
    lu.assertEquals(attempt, calls)
    if calls <= times then return nil, err or failure() end
    return "done", "and more", nil, 4
  end
end

function TestRetry.test_success_at_once()
  local results, pauses = run(failing(0))
  lu.assertEquals(results, { "done", "and more", nil, 4, n = 4 })
  lu.assertEquals(pauses, {})
end

function TestRetry.test_backoff_doubles_up_to_its_cap()
  local results, pauses, lines = run(failing(6), { base = 1, cap = 10, deadline = 100 })
  lu.assertEquals(results[1], "done")
  lu.assertEquals(pauses, { 1, 2, 4, 8, 10, 10 })
  lu.assertEquals(lines[1], "debug: put x: no answer; again in 1.0 s")
  lu.assertEquals(lines[3], "warn: put x: no answer; again in 4.0 s")
end

function TestRetry.test_jitter_is_full()
  local _, pauses = run(failing(2), { base = 1, random = function() return 0.25 end })
  lu.assertEquals(pauses, { 0.25, 0.5 })
end

function TestRetry.test_what_may_not_be_retried()
  local err = sys.error { kind = "auth", message = "refused" }
  local results, pauses = run(failing(1, err))
  lu.assertNil(results[1])
  lu.assertIs(results[2], err)
  lu.assertEquals(err.message, "refused")
  lu.assertEquals(pauses, {})
end

function TestRetry.test_nothing_without_an_error_is_a_result()
  local results = run(function() return nil end)
  lu.assertEquals(results.n, 1)
end

function TestRetry.test_deadline()
  local results, pauses = run(failing(1000), { base = 1, cap = 8, deadline = 30 })
  lu.assertNil(results[1])
  lu.assertEquals(results[2].kind, "network")
  lu.assertEquals(results[2].message, "no answer (gave up after 6 attempts in 23 s)")
  lu.assertEquals(pauses, { 1, 2, 4, 8, 8 })
end

function TestRetry.test_time_left_is_told()
  local left = {}
  run(function(_, seconds)
    left[#left + 1] = seconds
    if #left < 3 then return nil, failure() end
    return true
  end, { base = 1, deadline = 60 })
  lu.assertEquals(left, { 60, 59, 57 })
end

function TestRetry.test_attempts()
  local results, pauses = run(failing(1000), { attempts = 3 })
  lu.assertStrContains(results[2].message, "after 3 attempts")
  lu.assertEquals(#pauses, 2)
end

function TestRetry.test_retry_after_is_a_minimum()
  local _, pauses = run(failing(1, failure { retry_after = 7 }), { base = 1 })
  lu.assertEquals(pauses, { 7 })
  local results
  results, pauses = run(failing(1, failure { retry_after = 500 }), { deadline = 60 })
  lu.assertNil(results[1])
  lu.assertEquals(pauses, {})
end

function TestRetry.test_clock_skew_is_corrected_once()
  local offsets = {}
  local function on_skew(offset) offsets[#offsets + 1] = offset end
  local skewed = sys.error { kind = "auth", message = "too skewed" }
  skewed.skew = -1200
  local results, pauses, lines = run(failing(1, skewed), { on_skew = on_skew })
  lu.assertEquals(results[1], "done")
  lu.assertEquals(offsets, { -1200 })
  lu.assertEquals(pauses, {})
  lu.assertStrContains(lines[1], "-1200 s ahead")
  results = run(failing(5, skewed), { on_skew = on_skew })
  lu.assertIs(results[2], skewed)
  lu.assertEquals(#offsets, 2)
end

function TestRetry.test_errors_that_are_raised_pass()
  local ok, err = pcall(run, function() error("a mistake", 0) end)
  lu.assertFalse(ok)
  lu.assertEquals(err, "a mistake")
  ok, err = pcall(retry.run, print, { dedline = 1 })
  lu.assertFalse(ok)
  lu.assertStrContains(err.message, "dedline")
end

return { TestRetry = TestRetry }
