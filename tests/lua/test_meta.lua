-- SPDX-License-Identifier: MIT
-- scripts/meta: what editors are told of the C modules is what the modules have, no more and no less.
local lu = require "luaunit"

local FOLDER = "scripts/meta/"
local MODULES = {
  "archive", "check", "crypto", "exec", "file", "http", "index", "log", "stream", "sys", "task",
}

local function text_of(name)
  local file <close> = assert(io.open(FOLDER .. name .. ".lua"))
  return file:read("a")
end

-- Functions by what they are declared in: {Task = {"join", ...}, task = {"spawn", ...}}.
local function declared(text)
  local found = {}
  for owner, name in text:gmatch("\nfunction ([%w_]+)[.:]([%w_]+)%(") do
    found[owner] = found[owner] or {}
    table.insert(found[owner], name)
  end
  return found
end

local function names_of(functions)
  local names = {}
  for name, value in pairs(functions) do
    if type(value) == "function" then names[#names + 1] = name end
  end
  table.sort(names)
  return names
end

local function sorted(names)
  table.sort(names or {})
  return names
end

-- Methods of the classes in C, by the last word of their names as the files write it: "Task".
local function classes()
  local found = {}
  for name, class in pairs(debug.getregistry()) do
    if type(name) == "string" and name:find("^lunark%.") and type(class) == "table" then
      local index = class.__index
      if type(index) == "function" then
        local _, methods = debug.getupvalue(index, 1) -- fields come first, then the methods
        index = methods
      end
      local names = names_of(type(index) == "table" and index or {})
      if #names > 0 then
        found[name:match("%w+$"):gsub("^%l", string.upper)] = names
      end
    end
  end
  return found
end

local TestMeta = {}

function TestMeta.test_functions()
  for _, name in ipairs(MODULES) do
    local text = text_of(name)
    local own = text:match("\nreturn ([%w_]+)\n$")
    local has = names_of(require("lunark.core." .. name))
    lu.assertEquals(sorted(declared(text)[own]), has, FOLDER .. name .. ".lua")
    lu.assertStrContains(text, "---@meta lunark.core." .. name .. "\n")
  end
end

function TestMeta.test_methods()
  local told = {}
  for _, name in ipairs(MODULES) do
    require("lunark.core." .. name)
    for owner, names in pairs(declared(text_of(name))) do
      if owner:find("^%u") then told[owner] = sorted(names) end
    end
  end
  lu.assertEquals(told, classes())
end

-- What a script calls by its short name is all that the C module has.
function TestMeta.test_short_names()
  for _, name in ipairs { "archive", "crypto", "exec", "file", "http", "stream" } do
    local short = require("lunark." .. name)
    for _, key in ipairs(names_of(require("lunark.core." .. name))) do
      lu.assertIsFunction(short[key], ("lunark.%s.%s"):format(name, key))
    end
  end
end

return { TestMeta = TestMeta }
