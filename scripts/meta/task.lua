-- SPDX-License-Identifier: MIT
---@meta lunark.core.task
-- Documents runtime/lua_join.c and runtime/lua_scope.c for editors; never loaded.

---@class lunark.core.task
local task = {}

---@class lunark.Task: userdata
local Task = {}

--- Parks until the task ends.
---@return boolean ok
---@return any ... its results, or the error
function Task:join() end

--- Cancels it: the operation it waits for is stopped, then an error of kind `cancelled` is raised there
--- and at every later park outside a shield. No-op on a task that has ended.
---@param reason? string the error's message
function Task:cancel(reason) end

--- True once it has ended, however that happened.
---@return boolean
function Task:ended() end

--- Starts a task at the next turn of the loop.
---@param fn function
---@return lunark.Task
function task.spawn(fn, ...) end

--- As t:join().
---@param t lunark.Task
---@return boolean ok
---@return any ... its results, or the error
function task.join(t) end

--- As t:cancel(reason).
---@param t lunark.Task
---@param reason? string
function task.cancel(t, reason) end

--- As t:ended().
---@param t lunark.Task
---@return boolean
function task.ended(t) end

--- Its failure is not logged, even if nobody joins it.
---@param t lunark.Task
function task.silence(t) end

--- Wakes the event when the task ends, however that happens.
---@param t lunark.Task
---@param event lunark.Event
function task.watch(t, event) end

--- Parks for this time.
---@param seconds number
function task.sleep(seconds) end

--- The running task, or nothing in a program without one.
---@return lunark.Task|nil
function task.self() end

--- Runs fn with cancellation held back, at most for `deadline` after it came; returns what fn returns.
---@param fn fun(): ...
---@param deadline? number seconds, default 20
---@return any ...
function task.shield(fn, deadline) end

--- fn's results, or nil and an error of kind `timeout` after what it waited for was stopped.
---@param seconds number
---@param fn function
---@return any ...
function task.timeout(seconds, fn, ...) end

--- Something that tasks wait for.
---@return lunark.Event
function task.event() end

---@class lunark.Event: userdata
local Event = {}

--- Parks until the next wake().
function Event:wait() end

--- Lets all that wait go on.
function Event:wake() end

--- Live tasks and pending operations.
---@return integer tasks
---@return integer operations
function task.live() end

return task
