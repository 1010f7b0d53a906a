-- SPDX-License-Identifier: MIT
-- lunark.task - tasks: start, join, cancel, and the patterns made of them (map, group, queue). Needs nothing.
local core = require "lunark.core.task"
local sys = require "lunark.core.sys"

---@class lunark.task
local M = {}

M.spawn = core.spawn
M.join = core.join
M.cancel = core.cancel
M.sleep = core.sleep
M.self = core.self
M.shield = core.shield
M.timeout = core.timeout
M.live = core.live
M.ended = core.ended
M.event = core.event

local function misuse(message)
  error(sys.error({ kind = "usage", message = message }), 3)
end

local function check_width(width, name)
  if math.type(width) ~= "integer" or width < 1 then
    misuse(("%s: width must be an integer of 1 or more, got %s"):format(name, tostring(width)))
  end
end

--- Tasks that belong together: at most `width` run at once, the first error cancels the others.
---@class lunark.task.Group
local Group = {}
Group.__index = Group
Group.__name = "lunark.task.Group"
Group.__metatable = false

---@param width? integer tasks at once, default no limit
---@return lunark.task.Group
function M.group(width)
  if width ~= nil then
    check_width(width, "task.group")
  end
  return setmetatable({ width = width or math.huge, running = {}, count = 0, changed = core.event() }, Group)
end

-- Takes the tasks that have ended out of the group and remembers the first error. What runs in a task can not
-- keep such a count: one that is cancelled before its first turn runs nothing at all.
local function reap(group)
  local ended = {}
  for task in pairs(group.running) do
    if core.ended(task) then
      ended[#ended + 1] = task
    end
  end
  for _, task in ipairs(ended) do
    group.running[task] = nil
    group.count = group.count - 1
    local ok, err = core.join(task)
    if not ok and not group.failed then
      group.failed, group.err = true, err
      group:cancel("another task of the group failed")
    end
  end
end

local function wait_below(group, count)
  reap(group)
  while group.count >= count do
    group.changed:wait()
    reap(group)
  end
end

--- Starts fn(...) as a task of the group; parks while `width` tasks run. After an error it starts nothing.
---@return userdata|nil task nil when the group has failed
function Group:spawn(fn, ...)
  wait_below(self, self.width)
  if self.failed then
    return nil
  end
  local task = core.spawn(fn, ...)
  core.silence(task) -- wait() tells
  core.watch(task, self.changed)
  self.running[task] = true
  self.count = self.count + 1
  return task
end

--- Parks until all have ended.
---@return boolean|nil ok, any err the first error
function Group:wait()
  wait_below(self, 1)
  if self.failed then
    return nil, self.err
  end
  return true
end

--- Cancels what runs; does not wait.
---@param reason? string
function Group:cancel(reason)
  for task in pairs(self.running) do
    if task ~= core.self() then
      core.cancel(task, reason)
    end
  end
end

-- What runs is cancelled and has ended when the block is left, however that happens.
function Group:__close()
  if self.count == 0 then
    return
  end
  self.failed = true
  self:cancel("its group was closed")
  core.shield(function()
    wait_below(self, 1)
  end)
end

--- Calls fn(item, index) for all items, at most `width` at once. The first error cancels the rest
--- and is raised.
---@param list any[]
---@param width integer
---@param fn fun(item: any, index: integer): any
---@return any[] results the first result of each call
function M.map(list, width, fn)
  check_width(width, "task.map")
  local results = {}
  local group <close> = M.group(width)
  for index = 1, #list do
    local started = group:spawn(function()
      results[index] = fn(list[index], index)
    end)
    if not started then
      break
    end
  end
  local ok, err = group:wait()
  if not ok then
    error(err, 0)
  end
  return results
end

--- A bounded channel between tasks.
---@class lunark.task.Queue
local Queue = {}
Queue.__index = Queue
Queue.__name = "lunark.task.Queue"
Queue.__metatable = false

---@param size? integer values that may wait in it, default 1
---@return lunark.task.Queue
function M.queue(size)
  size = size or 1
  check_width(size, "task.queue")
  return setmetatable({ size = size, first = 1, last = 0, changed = core.event() }, Queue)
end

--- Parks while the queue is full.
---@param value any not nil
function Queue:put(value)
  if value == nil then
    misuse("queue.put: nil can't be put")
  end
  while self.last - self.first + 1 >= self.size and not self.finished do
    self.changed:wait()
  end
  if self.finished then
    misuse("queue.put: the queue was finished")
  end
  self.last = self.last + 1
  self[self.last] = value
  self.changed:wake()
end

--- Parks while the queue is empty.
---@return any value nil once it was finished and is empty
function Queue:get()
  while self.first > self.last do
    if self.finished then
      return nil
    end
    self.changed:wait()
  end
  local value = self[self.first]
  self[self.first] = nil
  self.first = self.first + 1
  self.changed:wake()
  return value
end

--- No more values come.
function Queue:finish()
  self.finished = true
  self.changed:wake()
end

--- What is to be done when a block is left, however it ends: `local _ <close> = task.finally(fn)`. It
--- may park: cancellation is held back meanwhile.
---@param fn fun()
---@param deadline number? seconds, 20
---@return table to-be-closed
function M.finally(fn, deadline)
  return setmetatable({}, { __close = function() M.shield(fn, deadline) end })
end

return M
