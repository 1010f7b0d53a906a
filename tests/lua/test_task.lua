-- SPDX-License-Identifier: MIT
-- lunark.task: parking, cancelling, shields, timeouts, coroutines, groups, queues.
local lu = require "luaunit"
local sys = require "lunark.core.sys"
local task = require "lunark.task"

local TestTask = {}

local function sleeper()
  task.sleep(60)
end

local function closing(fn)
  return setmetatable({}, { __close = fn })
end

local function caught(fn, ...)
  local ok, err = pcall(fn, ...)
  lu.assertFalse(ok)
  return err
end

function TestTask.test_results_of_a_task()
  local t = task.spawn(function(...)
    task.sleep(0.01)
    return select("#", ...), ...
  end, 1, nil, "x", nil)
  lu.assertEquals(table.pack(task.join(t)), { true, 4, 1, nil, "x", nil, n = 6 })
  lu.assertEquals({ task.join(t) }, { true, 4, 1, nil, "x" }, "joined again")
  lu.assertTrue(task.ended(t))
end

function TestTask.test_starts_at_the_next_turn()
  local started = false
  local t = task.spawn(function()
    started = true
  end)
  lu.assertFalse(started)
  task.join(t)
  lu.assertTrue(started)
end

function TestTask.test_tasks_run_at_once()
  local begun = sys.monotonic()
  local tasks = {}
  for i = 1, 50 do
    tasks[i] = task.spawn(task.sleep, 0.1)
  end
  for i = 1, 50 do
    task.join(tasks[i])
  end
  lu.assertTrue(sys.monotonic() - begun < 2)
end

function TestTask.test_an_error_reaches_who_joins()
  local ok, err = task.join(task.spawn(function()
    error("broken")
  end))
  lu.assertFalse(ok)
  lu.assertEquals(err.kind, "usage")
  lu.assertStrContains(err.message, "test_task.lua")
  lu.assertStrContains(err.message, "broken")
  local given = sys.error { kind = "io", message = "disk full", code = 28 }
  ok, err = task.join(task.spawn(error, given))
  lu.assertFalse(ok)
  lu.assertTrue(rawequal(err, given), "the very table")
end

function TestTask.test_cancel_raises_where_it_parks()
  local seen
  local t = task.spawn(function()
    local ok, err = pcall(task.sleep, 60)
    seen = { ok, err.kind, err.message }
    error(err, 0)
  end)
  task.sleep(0)
  task.cancel(t, "enough")
  local ok, err = task.join(t)
  lu.assertEquals(seen, { false, "cancelled", "enough" })
  lu.assertFalse(ok)
  lu.assertEquals(err.kind, "cancelled")
  task.cancel(t) -- ended: nothing happens
end

function TestTask.test_every_later_park_raises_again()
  local count = 0
  local t = task.spawn(function()
    for _ = 1, 5 do
      if not pcall(task.sleep, 60) then
        count = count + 1
      end
    end
    return "ended by itself"
  end)
  task.sleep(0)
  task.cancel(t)
  lu.assertEquals({ task.join(t) }, { true, "ended by itself" })
  lu.assertEquals(count, 5)
end

function TestTask.test_cancelled_before_it_starts()
  local ran = false
  local t = task.spawn(function()
    ran = true
  end)
  task.cancel(t, "too late")
  local ok, err = task.join(t)
  lu.assertFalse(ok)
  lu.assertEquals({ err.kind, err.message }, { "cancelled", "too late" })
  lu.assertFalse(ran)
end

function TestTask.test_cleanup_may_park_in_a_shield()
  local steps = {}
  local t = task.spawn(function()
    local _ <close> = closing(function()
      steps[#steps + 1] = pcall(task.sleep, 0.01)
      task.shield(function()
        task.sleep(0.01)
        steps[#steps + 1] = "cleaned"
      end)
      steps[#steps + 1] = pcall(task.sleep, 0.01)
    end)
    task.sleep(60)
  end)
  task.sleep(0)
  task.cancel(t)
  lu.assertFalse((task.join(t)))
  lu.assertEquals(steps, { false, "cleaned", false })
end

function TestTask.test_a_shield_returns_and_raises_what_its_function_does()
  lu.assertEquals({ task.shield(function()
    task.sleep(0)
    return 1, nil, 3
  end) }, { 1, nil, 3 })
  lu.assertStrContains(tostring(caught(task.shield, function()
    task.sleep(0)
    error("inside", 0)
  end)), "inside")
end

function TestTask.test_a_shield_holds_back_only_so_long()
  local begun = sys.monotonic()
  local t = task.spawn(function()
    task.shield(sleeper, 0.1)
  end)
  task.sleep(0)
  task.cancel(t)
  local ok, err = task.join(t)
  lu.assertFalse(ok)
  lu.assertEquals(err.kind, "cancelled")
  local passed = sys.monotonic() - begun
  lu.assertTrue(passed >= 0.1 and passed < 5, tostring(passed))
end

function TestTask.test_a_shield_has_all_the_time_while_nobody_cancels()
  lu.assertEquals(task.shield(function()
    task.sleep(0.1)
    return "done"
  end, 0.01), "done")
end

function TestTask.test_timeout()
  local closed = false
  local result, err = task.timeout(0.05, function()
    local _ <close> = closing(function()
      closed = true
    end)
    task.sleep(60)
  end)
  lu.assertNil(result)
  lu.assertEquals({ err.kind, err.message }, { "timeout", "timed out after 0.05 s" })
  lu.assertTrue(closed)
  lu.assertEquals({ task.timeout(60, function(...)
    task.sleep(0)
    return ...
  end, 1, 2) }, { 1, 2 })
  lu.assertStrContains(caught(task.timeout, 60, error, "own", 0), "own")
end

function TestTask.test_nested_timeouts()
  local inner, err
  local outer, outer_err = task.timeout(0.05, function()
    inner, err = task.timeout(60, sleeper)
    return "not reached"
  end)
  lu.assertNil(inner)
  lu.assertNil(err)
  lu.assertNil(outer)
  lu.assertEquals(outer_err.kind, "timeout")
  outer = task.timeout(60, function()
    inner, err = task.timeout(0.01, sleeper)
    return "went on"
  end)
  lu.assertEquals({ outer, inner, err.kind }, { "went on", nil, "timeout" })
end

function TestTask.test_a_timeout_inside_a_shield_of_a_cancelled_task()
  local result
  local t = task.spawn(function()
    local _ <close> = closing(function()
      task.shield(function()
        local _, err = task.timeout(0.02, sleeper)
        result = err.kind
      end)
    end)
    task.sleep(60)
  end)
  task.sleep(0)
  task.cancel(t)
  task.join(t)
  lu.assertEquals(result, "timeout")
end

function TestTask.test_parks_inside_a_generator()
  local others = 0
  local t = task.spawn(function()
    for _ = 1, 3 do
      task.sleep(0.01)
      others = others + 1
    end
  end)
  local got = {}
  for value in coroutine.wrap(function()
    for i = 1, 3 do
      task.sleep(0.02)
      coroutine.yield(i)
    end
  end) do
    got[#got + 1] = value
  end
  lu.assertEquals(got, { 1, 2, 3 })
  task.join(t)
  lu.assertEquals(others, 3)
end

function TestTask.test_parks_in_nested_coroutines_and_passes_values()
  local outer = coroutine.create(function(a)
    local inner = coroutine.wrap(function(b)
      task.sleep(0.01)
      local c = coroutine.yield(b + 1)
      task.sleep(0.01)
      return c + 1
    end)
    local d = coroutine.yield(inner(a))
    return inner(d), "end"
  end)
  lu.assertEquals({ coroutine.resume(outer, 1) }, { true, 2 })
  lu.assertEquals({ coroutine.resume(outer, 10) }, { true, 11, "end" })
  lu.assertEquals({ coroutine.resume(outer) }, { false, "cannot resume dead coroutine" })
end

function TestTask.test_cancel_goes_through_a_generator()
  local closed = false
  local t = task.spawn(function()
    for _ in coroutine.wrap(function()
      local _ <close> = closing(function()
        closed = true
      end)
      task.sleep(60)
    end) do
      lu.fail("not reached")
    end
  end)
  task.sleep(0)
  task.cancel(t)
  local ok, err = task.join(t)
  lu.assertFalse(ok)
  lu.assertEquals(err.kind, "cancelled")
  lu.assertTrue(closed)
end

function TestTask.test_a_parked_coroutine_is_nobody_elses()
  local co = coroutine.create(function()
    task.sleep(0.05)
    return "done"
  end)
  local t = task.spawn(function()
    return coroutine.resume(co)
  end)
  task.sleep(0.01)
  local ok, err = coroutine.resume(co)
  lu.assertFalse(ok)
  lu.assertStrContains(err, "waits for an operation")
  lu.assertStrContains(caught(coroutine.close, co).message, "waits for an operation")
  lu.assertEquals({ task.join(t) }, { true, true, "done" })
end

function TestTask.test_errors_of_coroutines()
  local co = coroutine.create(function()
    task.sleep(0)
    error({ "table" })
  end)
  local ok, err = coroutine.resume(co)
  lu.assertFalse(ok)
  lu.assertEquals(err, { "table" })
  lu.assertStrContains(caught(coroutine.wrap(function()
    task.sleep(0)
    error("text", 0)
  end)), "text")
  lu.assertStrContains(caught(coroutine.yield).message, "outside a coroutine")
end

function TestTask.test_works_in_protected_calls_and_metamethods()
  local object = setmetatable({}, {
    __index = function(_, key)
      task.sleep(0.001)
      return key
    end,
    __add = function()
      task.sleep(0.001)
      return 42
    end,
  })
  lu.assertEquals(object.name, "name")
  lu.assertEquals(object + 1, 42)
  lu.assertEquals({ pcall(pcall, function()
    task.sleep(0.001)
    return 1
  end) }, { true, true, 1 })
end

function TestTask.test_says_where_it_cannot_wait()
  local err = caught(table.sort, { 3, 2, 1 }, function(a, b)
    task.sleep(0)
    return a < b
  end)
  lu.assertEquals(err.kind, "usage")
  lu.assertStrContains(err.message, "can't wait here")
  lu.assertStrContains(err.message, "table.sort")
  lu.assertStrContains(err.hint, "test_task.lua:")
  err = caught(string.gsub, "x", "x", function()
    return coroutine.wrap(function()
      task.sleep(0)
    end)()
  end)
  lu.assertStrContains(tostring(err), "can't wait here")
end

function TestTask.test_misuse()
  lu.assertStrContains(caught(task.sleep, -1).message, "task.sleep: expected a number of seconds")
  lu.assertStrContains(caught(task.sleep, 0 / 0).message, "task.sleep")
  lu.assertStrContains(caught(task.sleep, "1").message, "task.sleep")
  lu.assertStrContains(caught(task.spawn, 5).message, "task.spawn: expected a function, got number")
  lu.assertStrContains(caught(task.timeout, 1, nil).message, "expected a function")
  lu.assertStrContains(caught(task.map, {}, 0, print).message, "width")
  local t = task.self()
  lu.assertStrContains(caught(task.join, t).message, "can't wait for itself")
end

function TestTask.test_joining_can_be_cancelled()
  local long = task.spawn(sleeper)
  local t = task.spawn(task.join, long)
  task.sleep(0)
  task.cancel(t)
  lu.assertFalse((task.join(t)))
  lu.assertFalse(task.ended(long))
  task.cancel(long)
  task.join(long)
end

function TestTask.test_live_counts()
  local tasks, operations = task.live()
  local t = task.spawn(sleeper)
  task.sleep(0)
  local more, more_operations = task.live()
  lu.assertEquals({ more - tasks, more_operations - operations }, { 1, 1 })
  task.cancel(t)
  task.join(t)
  lu.assertEquals({ task.live() }, { tasks, operations })
end

function TestTask.test_map()
  local most, now = 0, 0
  local results = task.map({ 5, 4, 3, 2, 1 }, 2, function(item, index)
    now = now + 1
    most = math.max(most, now)
    task.sleep(item / 500)
    now = now - 1
    return item * 10 + index
  end)
  lu.assertEquals(results, { 51, 42, 33, 24, 15 })
  lu.assertEquals(most, 2)
  lu.assertEquals(task.map({}, 3, error), {})
end

function TestTask.test_map_stops_at_the_first_error()
  local ended, started = 0, 0
  local err = caught(task.map, { 1, 2, 3, 4, 5, 6 }, 2, function(item)
    local _ <close> = closing(function()
      ended = ended + 1
    end)
    started = started + 1
    if item == 2 then
      error(sys.error { kind = "io", message = "item 2" })
    end
    task.sleep(60)
  end)
  lu.assertEquals({ err.kind, err.message }, { "io", "item 2" })
  lu.assertEquals({ started, ended }, { 2, 2 })
end

function TestTask.test_map_that_is_cancelled_ends_its_tasks()
  local ended = 0
  local t = task.spawn(task.map, { 1, 2, 3 }, 3, function()
    local _ <close> = closing(function()
      task.shield(function()
        task.sleep(0.01)
        ended = ended + 1
      end)
    end)
    task.sleep(60)
  end)
  task.sleep(0.01)
  task.cancel(t)
  lu.assertFalse((task.join(t)))
  lu.assertEquals(ended, 3, "all had ended when the map had")
end

function TestTask.test_group()
  local group = task.group(2)
  local order = {}
  for i = 1, 4 do
    group:spawn(function(value)
      task.sleep(0.01)
      order[#order + 1] = value
    end, i)
  end
  lu.assertTrue(group:wait())
  lu.assertEquals(order, { 1, 2, 3, 4 })
  group:spawn(error, "bad", 0)
  local ok, err = group:wait()
  lu.assertNil(ok)
  lu.assertEquals(err.message, "bad")
  lu.assertNil(group:spawn(print))
end

function TestTask.test_a_timeout_reaches_what_never_parks()
  local began = sys.monotonic()
  local ok, err = task.timeout(0.1, function()
    while true do end -- luacheck: ignore 542
  end)
  lu.assertNil(ok)
  lu.assertEquals(err.kind, "timeout")
  lu.assertTrue(sys.monotonic() - began < 5)
end

function TestTask.test_tasks_that_are_cancelled_before_their_first_turn_end_too()
  local ok, err = pcall(task.map, { 1, 2, 3, 4 }, 3, function() error("x", 0) end)
  lu.assertFalse(ok)
  lu.assertEquals(err.message, "x")
  local group = task.group()
  task.cancel(group:spawn(task.sleep, 60), "not wanted")
  lu.assertNil(group:wait())
end

function TestTask.test_a_closed_group_leaves_nothing()
  local before = task.live()
  do
    local group <close> = task.group()
    group:spawn(sleeper)
    group:spawn(sleeper)
    task.sleep(0)
  end
  lu.assertEquals((task.live()), before)
end

function TestTask.test_queue()
  local queue = task.queue(2)
  local put = 0
  local t = task.spawn(function()
    for i = 1, 6 do
      queue:put(i)
      put = i
    end
    queue:finish()
  end)
  task.sleep(0.01)
  lu.assertEquals(put, 2, "bounded")
  local got = {}
  for value in function()
    return queue:get()
  end do
    got[#got + 1] = value
  end
  lu.assertEquals(got, { 1, 2, 3, 4, 5, 6 })
  lu.assertNil(queue:get())
  lu.assertStrContains(caught(queue.put, queue, 1).message, "finished")
  task.join(t)
end

function TestTask.test_thousands_of_tasks()
  local sum = 0
  local list = {}
  for i = 1, 3000 do
    list[i] = i
  end
  task.map(list, 500, function(i)
    task.sleep(0)
    sum = sum + i
  end)
  lu.assertEquals(sum, 3000 * 3001 // 2)
end

function TestTask.test_finally()
  local done = 0
  do
    local _ <close> = task.finally(function() done = done + 1 end)
    lu.assertEquals(done, 0)
  end
  lu.assertEquals(done, 1)
  local t = task.spawn(function()
    local _ <close> = task.finally(function()
      task.sleep(0.01)
      done = done + 1
    end)
    sleeper()
  end)
  task.sleep(0)
  task.cancel(t, "enough")
  lu.assertFalse((task.join(t)))
  lu.assertEquals(done, 2)
end

return { TestTask = TestTask }
