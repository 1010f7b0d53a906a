-- SPDX-License-Identifier: MIT
--- Options that are declared in a table: types, environment names, defaults, and messages for what
--- is wrong. Used by stores, providers and policies. A declaration is `name = {type, env = "NAME"
--- or {"NAME", ...}, default =, required =, values = {...}, help =}`; types are string, secret,
--- integer, size (bytes: "64M", "1GiB"), duration (seconds: "30s", "1h30m"), boolean, list and
--- enum.

local fs = require "lunark.fs"
local sys = require "lunark.core.sys"

local options = {}

local KEYS = {
  env = true, default = true, required = true, values = true, help = true, min = true, max = true,
  metavar = true,
}
local UNITS = { [""] = 0, k = 1, m = 2, g = 3, t = 4, p = 5 }
local SECONDS = { ms = 0.001, s = 1, m = 60, h = 3600, d = 86400, w = 604800 }
local TRUE = { ["true"] = true, yes = true, on = true, ["1"] = true }
local FALSE = { ["false"] = true, no = true, off = true, ["0"] = true }

local function bad(message, hint)
  return nil, sys.error { kind = "usage", op = "options", message = message, hint = hint }
end

-- Letters to change, add or remove to get from a to b.
local function distance(a, b)
  local row = {}
  for j = 0, #b do row[j] = j end
  for i = 1, #a do
    local diagonal = row[0]
    row[0] = i
    for j = 1, #b do
      local cost = a:byte(i) == b:byte(j) and 0 or 1
      local best = math.min(row[j] + 1, row[j - 1] + 1, diagonal + cost)
      diagonal, row[j] = row[j], best
    end
  end
  return row[#b]
end

--- The known name most like a given one, or nil when none is near.
---@param name string
---@param known table keys are the names
---@return string?
function options.nearest(name, known)
  local best, best_distance
  for candidate in pairs(known) do
    local d = distance(name, candidate)
    if not best or d < best_distance or (d == best_distance and candidate < best) then
      best, best_distance = candidate, d
    end
  end
  if best and best_distance <= math.max(1, math.min(#name, #best) // 3) then return best end
end

local convert = {}

function convert.string(value)
  if type(value) == "number" then value = tostring(value) end
  if type(value) ~= "string" then return nil, "a string" end
  return value
end

function convert.secret(value)
  if sys.is_secret(value) then return value end
  if type(value) ~= "string" or value == "" then return nil, "a string" end
  return sys.secret(value)
end

function convert.integer(value)
  local text = type(value) == "string" and value:find("^%-?%d+$")
  local number = (text or type(value) == "number") and math.tointeger(tonumber(value))
  if not number then return nil, "a whole number" end
  return number
end

function convert.size(value)
  if math.type(value) == "integer" and value >= 0 then return value end
  if type(value) ~= "string" then return nil, "a size like 64M or 1GiB" end
  local number, unit, tail = value:match("^(%d+%.?%d*) ?([kKmMgGtTpP]?)(%a*)$")
  local power = unit and UNITS[unit:lower()]
  tail = tail and tail:lower()
  if not power or not (tail == "" or tail == "b" or (tail == "ib" and power > 0)) then
    return nil, "a size like 64M or 1GiB"
  end
  -- As dd and tar: K, M, KiB are powers of 1024; kB, MB are powers of 1000.
  local base = (tail == "b" and power > 0) and 1000 or 1024
  local whole = math.tointeger(math.floor(tonumber(number) * base ^ power))
  if not whole then return nil, "a size below 8 EiB" end
  return whole
end

function convert.duration(value)
  if type(value) == "number" and value >= 0 and value < math.huge then return value end
  if type(value) ~= "string" then return nil, "a duration like 30s or 1h30m" end
  if value:find("^%d+%.?%d*$") then return tonumber(value) end
  local total, rest = 0, value
  while rest ~= "" do
    local number, unit, after = rest:match("^(%d+%.?%d*)(%l+)(.*)$")
    if not number or not SECONDS[unit] then return nil, "a duration like 30s or 1h30m" end
    total, rest = total + tonumber(number) * SECONDS[unit], after
  end
  if value == "" then return nil, "a duration like 30s or 1h30m" end
  return total
end

function convert.boolean(value)
  if type(value) == "boolean" then return value end
  local word = tostring(value):lower()
  if TRUE[word] then return true end
  if FALSE[word] then return false end
  return nil, "true or false"
end

function convert.list(value)
  local items = {}
  if type(value) == "table" then
    for _, item in ipairs(value) do
      local inner, expected = convert.list(item)
      if not inner then return nil, expected end
      table.move(inner, 1, #inner, #items + 1, items)
    end
    return items
  end
  if type(value) ~= "string" then return nil, "a list with commas" end
  for item in value:gmatch("[^,]+") do
    item = item:match("^%s*(.-)%s*$")
    if item ~= "" then items[#items + 1] = item end
  end
  return items
end

function convert.enum(value, declared)
  for _, allowed in ipairs(declared.values) do
    if value == allowed then return value end
  end
  return nil, "one of " .. table.concat(declared.values, ", ")
end

-- A limit as a user would write it.
local function limit(number, declared)
  if declared[1] == "size" and number >= 1 << 20 and number % (1 << 20) == 0 then
    return ("%dM"):format(number >> 20)
  end
  return tostring(number)
end

local function check_range(value, declared)
  if declared.min and value < declared.min then return nil, "at least " .. limit(declared.min, declared) end
  if declared.max and value > declared.max then return nil, "at most " .. limit(declared.max, declared) end
  return value
end

--- Converts one value to a declared type.
---@param value any text as a user writes it, or a value of the type already
---@param declared table|string the declaration, or the name of a type
---@param name string of the option, for the message
---@return any value nil when it does not fit
---@return table? err
function options.convert(value, declared, name)
  if type(declared) == "string" then declared = { declared } end
  local converted, expected = convert[declared[1]](value, declared)
  if type(converted) == "number" then converted, expected = check_range(converted, declared) end
  if converted == nil then
    local shown = declared[1] == "secret" and "***" or tostring(value)
    return bad(("%s: '%s' is not what is expected: %s"):format(name, shown, expected))
  end
  return converted
end

--- Checks a table of declarations itself.
---@param declared table
---@return true?
---@return string? wrong what is wrong with it
function options.check(declared)
  if type(declared) ~= "table" then return nil, "options is not a table" end
  for name, declaration in pairs(declared) do
    if type(name) ~= "string" or not name:find("^%a[%w_]*$") then
      return nil, ("option '%s': a name of letters, digits and _ expected"):format(tostring(name))
    end
    if type(declaration) ~= "table" or not convert[declaration[1]] then
      return nil, ("option '%s': {type, ...} expected, type one of boolean duration enum integer list "
        .. "secret size string"):format(name)
    end
    for key in pairs(declaration) do
      if key ~= 1 and not KEYS[key] then
        return nil, ("option '%s': unknown key '%s'"):format(name, tostring(key))
      end
    end
    if declaration[1] == "enum" and type(declaration.values) ~= "table" then
      return nil, ("option '%s': an enum needs values"):format(name)
    end
  end
  return true
end

-- The environment without raising: what may not be read counts as not there.
local function environment(name)
  local ok, value = pcall(sys.env, name)
  if not ok then
    if sys.is_error(value) and value.kind == "denied" then return nil end
    error(value, 0)
  end
  if value == "" then return nil end
  return value
end

local function from_environment(declared, env)
  local names = type(declared.env) == "table" and declared.env or { declared.env }
  for _, name in ipairs(names) do
    local value = env(name)
    if value then return value, name end
    local path = declared[1] == "secret" and env(name .. "_FILE")
    if path then
      local text, err = fs.read_text(path, 1024 * 1024)
      if not text then return nil, name .. "_FILE", err end
      return (text:gsub("[\r\n]+$", "")), name .. "_FILE"
    end
  end
end

-- The first source that has a value: value, where it is from.
local function find(name, declared, sources, env)
  if sources.given[name] ~= nil then return sources.given[name], sources.labels(name) end
  if declared.env then
    local value, from, err = from_environment(declared, env)
    if err then return nil, from, err end
    if value ~= nil then return value, from end
  end
  if sources.plan and sources.plan[name] ~= nil then return sources.plan[name], "plan: " .. name end
  return declared.default, name
end

local function check_names(declared, given, what)
  for name in pairs(given) do
    if not declared[name] then
      local near = options.nearest(tostring(name), declared)
      local known = {}
      for candidate in pairs(declared) do known[#known + 1] = candidate end
      table.sort(known)
      local hint = #known > 0 and "it has: " .. table.concat(known, ", ") or "it has none"
      if near then hint = ("did you mean %s?"):format(near) end
      return bad(("%s has no option '%s'"):format(what, tostring(name)), hint)
    end
  end
  return true
end

--- Finds and converts the values of declared options. Order: given, environment (and NAME_FILE for
--- secrets), plan, default.
---@param declared table
---@param given table? name -> text or value: flags, or what stands in a URL
---@param context table? {what = "store s3" (for messages), plan = table, env = function(name), label =
--- function(name) -> how a given option is called, "--name" for a flag}
---@return table? values
---@return table? err kind usage
function options.parse(declared, given, context)
  context = context or {}
  local what = context.what or "this"
  local sources = {
    given = given or {}, plan = context.plan,
    labels = context.label or function(name) return name end,
  }
  local ok, err = check_names(declared, sources.given, what)
  if ok and sources.plan then ok, err = check_names(declared, sources.plan, what .. " (plan)") end
  if not ok then return nil, err end
  local values, names = {}, {}
  for name in pairs(declared) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do
    local declaration = declared[name]
    local value, from, why = find(name, declaration, sources, context.env or environment)
    if why then return nil, why end
    if value ~= nil then
      values[name], err = options.convert(value, declaration, from)
      if values[name] == nil then return nil, err end
    end
    local missing = value == nil or (declaration[1] == "list" and #values[name] == 0)
    if declaration.required and missing then
      local env = type(declaration.env) == "table" and declaration.env[1] or declaration.env
      return bad(("%s: %s is missing"):format(what, sources.labels(name)),
        env and ("or set %s in the environment"):format(env) or nil)
    end
  end
  return values
end

options.environment = environment

return options
