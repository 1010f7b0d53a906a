-- SPDX-License-Identifier: MIT
-- Policies: Lua files that say how one kind of thing is backed up (contract in docs/policies.md).
-- `return policy { ... }` checks the contract when the file is loaded; find, load and names look in
-- the script directories and then among the embedded copies.

local commandline = require "lunark.commandline"
local fs = require "lunark.fs"
local scripts = require "lunark.scripts"
local sys = require "lunark.core.sys"

local policy = { API = 1 }

local FIELDS = {
  api = "integer", name = "string", summary = "string", needs = "table or function",
  options = "table", naming = "string", check = "function", backup = "function",
  restore = "table",
}
local RESTORE = {
  summary = "string", needs = "table or function", options = "table", check = "function", run = "function",
}
local REQUIRED = { "api", "name", "summary", "backup" }
local KINDS = { exec = true, net = true, read = true, write = true, env = true, posix = true }
local MARK = {}

local function misuse(message, hint)
  return sys.error { kind = "usage", message = message, hint = hint }
end

local function is_a(value, expected)
  local found = math.type(value) == "integer" and "integer" or type(value)
  return expected == found or (" " .. expected .. " "):find(" " .. found .. " ", 1, true) ~= nil
end

--- Checks a table of needs: {exec = {"pg_dump"}, read = {"/srv"}}.
---@param where string whose they are, for the message
---@param needs table
---@return table|nil err what is wrong with it
function policy.check_needs(where, needs)
  for kind, values in pairs(needs) do
    if not KINDS[kind] then
      return misuse(("%s: unknown capability '%s' in needs"):format(where, tostring(kind)),
        "exec, net, read, write, env and posix exist")
    elseif type(values) ~= "table" then
      return misuse(("%s: needs.%s must be a list of names"):format(where, kind))
    end
    for _, value in ipairs(values) do
      if type(value) ~= "string" then
        return misuse(("%s: needs.%s holds a %s, strings expected"):format(where, kind, type(value)))
      end
    end
  end
end

-- nil when `given` is the restore of a contract, else the error.
local function check_restore(where, given)
  for key, value in pairs(given) do
    local expected = RESTORE[key]
    if not expected then
      return misuse(("%s: unknown field 'restore.%s'"):format(where, tostring(key)))
    elseif not is_a(value, expected) then
      return misuse(("%s: the field restore.%s is a %s, %s expected")
        :format(where, key, type(value), expected))
    end
  end
  if not given.run or not given.summary then
    return misuse(("%s: the field restore.%s is missing"):format(where, given.run and "summary" or "run"))
  end
  local ok, wrong = commandline.check(given.options or {})
  if not ok then
    return misuse(("%s: restore: %s"):format(where, wrong))
  end
  return type(given.needs) == "table" and policy.check_needs(where, given.needs) or nil
end

-- nil when `contract` is one, else the error.
local function check(contract)
  local where = "policy " .. tostring(contract.name or "?")
  for _, key in ipairs(REQUIRED) do
    if contract[key] == nil then
      return misuse(("%s: the field %s is missing"):format(where, key))
    end
  end
  for key, value in pairs(contract) do
    local expected = FIELDS[key]
    if not expected then
      return misuse(("%s: unknown field '%s'"):format(where, tostring(key)))
    elseif not is_a(value, expected) then
      return misuse(("%s: the field %s is a %s, %s expected"):format(where, key, type(value), expected))
    end
  end
  if contract.api ~= policy.API then
    return misuse(("%s: api %d, this lunark has %d"):format(where, contract.api, policy.API))
  elseif not contract.name:find("^[%w][%w_%-]*$") then
    return misuse(("%s: a name of letters, digits, '_' and '-' expected"):format(where))
  elseif contract.naming and contract.naming ~= "standard" and contract.naming ~= "compat" then
    return misuse(("%s: naming '%s', standard or compat expected"):format(where, contract.naming))
  end
  local ok, wrong = commandline.check(contract.options or {})
  if not ok then
    return misuse(("%s: %s"):format(where, wrong))
  end
  local err = contract.restore and check_restore(where, contract.restore)
  if err then
    return err
  end
  return type(contract.needs) == "table" and policy.check_needs(where, contract.needs) or nil
end

--- Makes a policy of a contract; what is wrong with it is raised.
---@param contract table
---@return table policy
function policy.new(contract)
  if type(contract) ~= "table" then
    error(misuse("policy: a table expected, found a " .. type(contract)))
  end
  local err = check(contract)
  if err then
    error(err)
  end
  local made = { needs = {}, options = {}, naming = "standard" }
  for key, value in pairs(contract) do
    made[key] = value
  end
  if made.restore then
    made.restore.options, made.restore.needs = made.restore.options or {}, made.restore.needs or {}
  end
  return setmetatable(made, MARK)
end

--- True for what policy.new made.
function policy.is(value)
  return getmetatable(value) == MARK
end

--- The names of all policies that can be found, sorted.
---@return table list of {name=, origin=}
function policy.names()
  local list = {}
  for _, entry in ipairs(scripts.list("policies")) do
    local name = entry.name:match("^policies/([%w_%-]+)%.lua$")
    if name then
      list[#list + 1] = { name = name, origin = entry.origin }
    end
  end
  return list
end

--- Loads a policy by name.
---@param name string
---@return table|nil policy
---@return table|nil err not_found, or what is wrong with the file
---@return string|nil origin the file, or "embedded"
function policy.load(name)
  if not name:find("^[%w][%w_%-]*$") then
    return nil, misuse(("'%s' is no name of a policy"):format(name))
  end
  local chunk, err, origin = scripts.load("policies/" .. name .. ".lua")
  if not chunk then
    if err.kind == "not_found" then
      local known = {}
      for _, entry in ipairs(policy.names()) do
        known[#known + 1] = entry.name
      end
      err = misuse(("there is no policy '%s'"):format(name), "there are: " .. table.concat(known, ", "))
    end
    return nil, err
  end
  local ok, found = pcall(chunk)
  if not ok then
    if sys.is_error(found) and found.kind == "cancelled" then
      error(found)
    end
    return nil, sys.is_error(found) and found or misuse(("%s: %s"):format(origin, tostring(found)))
  elseif not policy.is(found) then
    return nil, misuse(("%s: it returns a %s, policy{...} expected"):format(origin, type(found)))
  elseif found.name ~= name then
    return nil, misuse(("%s: it calls itself '%s', '%s' expected"):format(origin, found.name, name))
  end
  return found, nil, origin
end

--- What a policy needs with these options: {exec = {...}, read = {...}, ...}. Raises what is wrong.
---@param made table policy
---@param options table
---@return table
function policy.needs_of(made, options)
  if type(made.needs) == "table" then
    return made.needs
  end
  local needs = made.needs(options)
  local err = type(needs) == "table" and policy.check_needs("policy " .. made.name, needs)
  if type(needs) ~= "table" then
    err = misuse(("policy %s: needs gives a %s, a table expected"):format(made.name, type(needs)))
  end
  if err then
    error(err)
  end
  return needs
end

--- Grants one thing; a path may be relative to the current directory.
---@param kind string
---@param value string
---@param allow function|nil what grants, sys.allow
function policy.allow(kind, value, allow)
  if (kind == "read" or kind == "write") and value ~= "*" then
    value = fs.absolute(value)
  end
  (allow or sys.allow)(kind, value)
end

--- Grants what was declared. Only while the runtime is not sealed.
---@param needs table
---@param allow function|nil what grants, sys.allow
function policy.grant(needs, allow)
  for kind, values in pairs(needs) do
    for _, value in ipairs(values) do
      policy.allow(kind, value, allow)
    end
  end
end

return setmetatable(policy, { __call = function(_, contract) return policy.new(contract) end })
