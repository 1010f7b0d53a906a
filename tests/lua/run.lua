-- SPDX-License-Identifier: MIT
-- run.lua - runs Lua tests inside a runtime, so that they can park:
-- `luarun tests/lua/run.lua FILE... [luaunit options]`.
-- A test file returns a table of classes by name (or defines globals, as luaunit has it). A test fails when
-- it leaves a descriptor, a child process, a task or an operation behind.
local dirent = require "posix.dirent"
local unistd = require "posix.unistd"
local lu = require "luaunit"
local task = require "lunark.core.task"

local PATIENCE = 5 -- seconds until what a test left must be gone
-- Connections kept for reuse, and the wake-up descriptors of threads that are kept: so many may be new.
local KEPT = { ["socket:"] = 32, ["anon_inode:[eventfd]"] = 16 }

local function descriptors()
  local found = {}
  for name in dirent.files("/proc/self/fd") do
    local target = tonumber(name) and unistd.readlink("/proc/self/fd/" .. name)
    if target and not target:match("^/proc/%d+/fd$") then
      found[name .. " " .. target] = target:match("^socket:") or target
    end
  end
  return found
end

local function children()
  local found = {}
  local me = tostring(unistd.getpid())
  for name in dirent.files("/proc") do
    local file = name:match("^%d+$") and io.open("/proc/" .. name .. "/stat")
    if file then
      local line = file:read("l") or ""
      file:close()
      local command, parent = line:match("%((.*)%) %a (%d+)")
      if parent == me then
        found["child " .. name .. " " .. command] = true
      end
    end
  end
  return found
end

local function snapshot()
  local tasks, operations = task.live()
  return { descriptors = descriptors(), children = children(), tasks = tasks, operations = operations }
end

local function left_behind(before)
  local now = snapshot()
  local left, kept = {}, {}
  for name, kind in pairs(now.descriptors) do
    if not before.descriptors[name] then
      kept[kind] = (kept[kind] or 0) + 1
      if kept[kind] > (KEPT[kind] or 0) then
        left[#left + 1] = "descriptor " .. name
      end
    end
  end
  for name in pairs(now.children) do
    if not before.children[name] then
      left[#left + 1] = name
    end
  end
  if now.tasks > before.tasks then
    left[#left + 1] = ("%d tasks"):format(now.tasks - before.tasks)
  end
  if now.operations > before.operations then
    left[#left + 1] = ("%d operations"):format(now.operations - before.operations)
  end
  table.sort(left)
  return left
end

local function check(before)
  local left = left_behind(before)
  for _ = 1, PATIENCE * 50 do
    if #left == 0 then
      return
    end
    collectgarbage()
    task.sleep(0.02)
    left = left_behind(before)
  end
  lu.fail("left behind: " .. table.concat(left, ", "))
end

local function method(class, ...)
  for _, name in ipairs { ... } do
    if type(class[name]) == "function" then
      return class[name]
    end
  end
end

local function checked(class, fn)
  local up = method(class, "setUp", "setup", "SetUp", "Setup")
  local down = method(class, "tearDown", "teardown", "TearDown", "Teardown")
  return function()
    local before = snapshot()
    do
      local _ <close> = setmetatable({}, {
        __close = function()
          if down then
            down(class)
          end
        end,
      })
      if up then
        up(class)
      end
      fn(class)
    end
    check(before)
  end
end

-- The class as luaunit gets it: its tests, each with its set-up, tear-down and check.
local function wrapped(class)
  local out = {}
  for name, fn in pairs(class) do
    if type(name) == "string" and type(fn) == "function" and name:lower():find("^test") then
      out[name] = checked(class, fn)
    end
  end
  return out
end

local function add_classes(instances, from)
  local names = {}
  for name, value in pairs(from) do
    if type(name) == "string" and name:find("^[Tt]est") and type(value) == "table" then
      names[#names + 1] = name
    end
  end
  table.sort(names)
  for _, name in ipairs(names) do
    instances[#instances + 1] = { name, wrapped(from[name]) }
    if from == _G then
      _G[name] = nil
    end
  end
end

local instances, options = {}, {}
for _, argument in ipairs { ... } do
  if argument:find("%.lua$") then
    local result = assert(loadfile(argument, "t"))(argument)
    if type(result) == "table" then
      add_classes(instances, result)
    end
    add_classes(instances, _G)
  else
    options[#options + 1] = argument
  end
end
if #instances == 0 then
  io.stderr:write("run.lua: no tests in what was given\n")
  return 2
end
-- luaunit's runSuiteByInstances takes one option only.
local runner = lu.LuaUnit.new()
runner:initFromArguments(table.unpack(options))
runner:registerSuite()
runner:internalRunSuiteByInstances(instances)
runner:unregisterSuite()
io.stdout:flush()
return math.min(runner.result.notSuccessCount, 255)
