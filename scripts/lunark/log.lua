-- SPDX-License-Identifier: MIT
-- lunark.log - log lines with a level and fields. Needs nothing.
local core = require "lunark.core.log"

---@class lunark.log
local M = {}

local levels = { "debug", "info", "warn", "error" }

local function merged(base, fields)
  if base == nil or fields == nil then
    return fields or base
  end
  local all = {}
  for key, value in pairs(base) do
    all[key] = value
  end
  for key, value in pairs(fields) do
    all[key] = value
  end
  return all
end

local function functions(base)
  local log = {}
  for _, level in ipairs(levels) do
    log[level] = function(message, fields)
      core.write(level, message, merged(base, fields))
    end
  end
  --- The same functions with these fields in every line.
  log.with = function(fields)
    return functions(merged(base, fields))
  end
  return log
end

---@param message any
---@param fields? table<string, any> item, key ...
for name, fn in pairs(functions(nil)) do
  M[name] = fn
end

--- level, format ("text", "json"), to (1, 2 or "host"), fields (in every line; false removes one).
M.set = core.set

--- Hands a progress record (a table of strings, numbers, booleans and such tables) to the host.
M.progress = core.progress

return M
