-- SPDX-License-Identifier: MIT
-- Loading: where scripts come from, what they may reach, require.
local lu = require "luaunit"
local sys = require "lunark.core.sys"
local task = require "lunark.core.task"

local TestLoad = {}

-- Runs source as a script of a user would be run.
local function script(source, ...)
  local fn, err = sys.load("user.lua", source, sys.environment())
  assert(fn, err)
  return fn(...)
end

local function error_of(source)
  local ok, err = pcall(script, source)
  lu.assertFalse(ok)
  return tostring(err)
end

function TestLoad.test_globals_of_a_script()
  local names = script [[
    local names = {}
    for name in pairs(_G) do names[#names + 1] = name end
    table.sort(names)
    return table.concat(names, " ")
  ]]
  lu.assertEquals(names, "_G _VERSION assert collectgarbage coroutine error getmetatable ipairs load math "
    .. "next os pairs pcall print rawequal rawget rawlen rawset require select setmetatable string table "
    .. "tonumber tostring type utf8 xpcall")
  names = script "local n = {} for k in pairs(os) do n[#n + 1] = k end table.sort(n) return n"
  lu.assertEquals(names, { "clock", "date", "difftime", "time" })
end

function TestLoad.test_each_script_has_its_own()
  script "string.rep = nil; _G.leak = 1; table.concat = nil; math.pi = 3"
  lu.assertNil(rawget(_G, "leak"))
  lu.assertEquals(script "return string.rep('x', 2), leak", "xx")
  lu.assertEquals(script "return ('y'):rep(2)", "yy")
  lu.assertTrue(script "return math.pi > 3.1")
end

function TestLoad.test_no_way_around()
  lu.assertFalse(script "return getmetatable('')")
  lu.assertNil(script "return string.dump")
  lu.assertNil(script "return ('').dump")
  lu.assertStrContains(error_of "setmetatable({}, {__gc = function() end})", "finalizers")
  lu.assertEquals(script "return select('#', load('return 1', 'x', 'b')())", 1)
  lu.assertStrContains(script "return select(2, load('\\27Lua', 'x', 'b'))", "attempt to load a binary chunk")
  lu.assertNil(script "return load('return io')()")
  lu.assertEquals(script "x = 5 return load('return x')()", 5)
  lu.assertEquals(script "return load('return x', 'c', 't', {x = 6})()", 6)
  lu.assertStrContains(error_of "return collectgarbage('stop')", "only 'collect' and 'count'")
  lu.assertTrue(script "return collectgarbage('count') > 1")
  lu.assertStrContains(error_of "setmetatable(setmetatable({}, {__metatable = 1}), {})", "protected")
  for _, name in ipairs { "io", "os", "debug", "package", "string", "ffi", "socket" } do
    lu.assertStrContains(error_of("require '" .. name .. "'"), "module '" .. name .. "'")
  end
end

function TestLoad.test_modules_of_a_script()
  lu.assertEquals(script "return require('lunark.core.sys').version", sys.version)
  lu.assertEquals(script "return require('cjson').encode({1})", "[1]")
  lu.assertTrue(script "return require('lunark.log') == require('lunark.log')")
  lu.assertStrContains(error_of "require 'lunark.none'", "module 'lunark.none': there is no such file")
  lu.assertStrContains(error_of "require '../../etc/passwd'", "no such file")
end

function TestLoad.test_modules_that_are_shared_cannot_be_changed()
  lu.assertStrContains(error_of "require('lunark.core.sys').check = print", "read-only")
  lu.assertStrContains(error_of "require('cjson').decode = print", "read-only")
  lu.assertFalse(script "return getmetatable(require 'lunark.core.sys')")
  lu.assertFalse(script "return getmetatable(require('lunark.task').group())")
  local view, real = script "return require 'lunark.task'", require "lunark.task"
  lu.assertEquals(view.spawn, real.spawn)
  local names, count = {}, 0
  for name, value in pairs(view) do
    names[name] = value
    lu.assertEquals(value, real[name])
  end
  for _ in pairs(real) do
    count = count + 1
  end
  for _ in pairs(names) do
    count = count - 1
  end
  lu.assertEquals(count, 0)
  lu.assertFalse(script [[
    local task = require "lunark.task"
    local step, state = pairs(task)
    rawset(task, "spawn", print)
    return state ~= nil
  ]])
  lu.assertFalse(real.spawn == print)
  local retry = script "return require 'lunark.retry'(function() return 'called' end)"
  lu.assertEquals(retry, "called")
end

function TestLoad.test_load_reports_file_and_line()
  local fn, err = sys.load("dir/bad.lua", "local x = 1\nlocal y = = 2")
  lu.assertNil(fn)
  lu.assertEquals(err.kind, "usage")
  lu.assertStrContains(err.message, "dir/bad.lua:2: unexpected symbol near '='")
  fn, err = sys.load("bytecode.lua", "\27Lua")
  lu.assertNil(fn)
  lu.assertStrContains(err.message, "binary chunk")
end

function TestLoad.test_a_first_line_for_the_shell()
  local fn = assert(sys.load("s.lua", "#!/usr/bin/env -S lunark run\nreturn ..., 2"))
  lu.assertEquals({ fn(1) }, { 1, 2 })
  local _, err = sys.load("s.lua", "#!/usr/bin/lunark\nx x")
  lu.assertStrContains(err.message, "s.lua:2:")
  lu.assertEquals(select("#", assert(sys.load("s.lua", "#!only"))()), 0)
end

function TestLoad.test_embedded()
  local names = sys.embedded_names()
  local found = false
  for index, name in ipairs(names) do
    lu.assertTrue(index == 1 or names[index - 1] < name, "sorted")
    found = found or name == "scripts/lunark/task.lua"
  end
  lu.assertTrue(found)
  local file <close> = assert(io.open("scripts/lunark/task.lua", "rb"))
  lu.assertEquals(sys.embedded("scripts/lunark/task.lua"), file:read("a"))
  lu.assertNil(sys.embedded("scripts/lunark/none.lua"))
end

local Dir = {}

local function write(path, text)
  local file <close> = assert(io.open(path, "wb"))
  file:write(text)
end

function Dir.setUp()
  Dir.path = os.tmpname()
  os.remove(Dir.path)
  local stat = require "posix.sys.stat"
  stat.mkdir(Dir.path)
  stat.mkdir(Dir.path .. "/policies")
  stat.mkdir(Dir.path .. "/mine")
  sys.add_script_dir(Dir.path, 1)
end

function Dir.tearDown()
  local unistd = require "posix.unistd"
  for _, name in ipairs { "policies/files", "policies/new", "mine/tool", "mine/slow", "mine/loop" } do
    os.remove(Dir.path .. "/" .. name .. ".lua")
  end
  unistd.rmdir(Dir.path .. "/policies")
  unistd.rmdir(Dir.path .. "/mine")
  assert(unistd.rmdir(Dir.path))
end

function Dir.test_a_file_replaces_the_embedded_one()
  lu.assertEquals(sys.script_dirs()[1], Dir.path)
  write(Dir.path .. "/policies/files.lua", "return 'mine'")
  lu.assertEquals({ sys.find("policies/files.lua") }, { "return 'mine'", Dir.path .. "/policies/files.lua" })
  os.remove(Dir.path .. "/policies/files.lua")
  lu.assertNil(sys.find("policies/new.lua"))
  write(Dir.path .. "/policies/new.lua", "return 1")
  lu.assertEquals((sys.find("policies/new.lua")), "return 1")
end

function Dir.test_names_stay_in_the_directory()
  for _, name in ipairs { "../etc/passwd", "/etc/passwd", "policies/../../x", "", ".hidden", "a//b" } do
    lu.assertNil(sys.find(name), name)
  end
  lu.assertNil(sys.find("policies"), "a directory is no script")
end

function Dir.test_modules_of_the_users_own()
  write(Dir.path .. "/mine/tool.lua", "assert(io == nil) return {name = ..., value = 42}")
  lu.assertEquals(script "return require('mine.tool').value", 42)
  lu.assertEquals(script "return require('mine.tool').name", "mine.tool")
end

function Dir.test_require_can_be_parked_in()
  write(Dir.path .. "/mine/slow.lua", "require('lunark.core.task').sleep(0.02) return {ready = true}")
  local other = task.spawn(function()
    task.sleep(0)
    return "ran"
  end)
  lu.assertTrue(script "return require('mine.slow').ready")
  lu.assertEquals({ task.join(other) }, { true, "ran" })
end

function Dir.test_modules_that_need_each_other()
  write(Dir.path .. "/mine/loop.lua", "return require 'mine.loop'")
  lu.assertStrContains(error_of "require 'mine.loop'", "module 'mine.loop': it is being loaded")
end

return { TestLoad = TestLoad, TestLoadDir = Dir }
