-- SPDX-License-Identifier: MIT
-- The command line: which command and policy it names, its options by the tables that declare them,
-- and their help. Needs lua-argparse, lunark.options.
--
-- An option is declared as for lunark.options, `name = { type, env=, default=, required=, ... }`, and
-- for the command line also with `help`, `metavar`, `short` (one letter), `positional` and `repeated`
-- (given several times; then its values are not split at commas) and `expected` (shown as one that is
-- needed; the command may find it elsewhere). `_` in a name is written `-`. A boolean has the forms
-- --name, --no-name and --name=true|false.

local argparse = require "argparse"
local options = require "lunark.options"
local sys = require "lunark.core.sys"

local commandline = {}

local ONLY_HERE = { short = true, positional = true, repeated = true, expected = true }

local function usage(message, hint)
  return sys.error { kind = "usage", message = message, hint = hint }
end

local function dashed(name)
  return (name:gsub("_", "-"))
end

local function sorted_names(declared)
  local names = {}
  for name in pairs(declared) do
    names[#names + 1] = name
  end
  table.sort(names)
  return names
end

-- The option that a word of the command line names; and the value behind its "=".
local function named(declared, word)
  local name, value = word:match("^%-%-([^=]+)=(.*)$")
  name = name or word:match("^%-%-(.+)$")
  if name then
    name = name:gsub("%-", "_")
    local option = declared[name]
    if not option and name:find("^no_") then
      option = declared[name:sub(4)]
      if option and option[1] ~= "boolean" then
        option = nil
      end
    end
    return option, value, name
  end
  local letter = word:match("^%-(%a)$")
  for option_name, option in pairs(declared) do
    if letter and option.short == letter then
      return option, nil, option_name
    end
  end
  return nil
end

---@class lunark.commandline.Scan
---@field words string[] plain words, as far as they were asked for
---@field before string[] what stands before the last of them, options with it
---@field rest string[] what stands behind the last of them
---@field help boolean
---@field version boolean

--- Looks for the first `count` plain words, skipping options and their values.
---@param args string[]
---@param declared table options that can take a value
---@param count integer
---@return lunark.commandline.Scan
function commandline.scan(args, declared, count)
  local found = { words = {}, before = {}, rest = {}, help = false, version = false }
  local i = 1
  while i <= #args and #found.words < count do
    local word = args[i]
    if word == "--" then
      break
    elseif word == "-h" or word == "--help" then
      found.help = true
    elseif word == "--version" then
      found.version = true
    elseif word:sub(1, 1) == "-" and #word > 1 then
      found.before[#found.before + 1] = word
      local option, value = named(declared, word)
      if option and option[1] ~= "boolean" and not value and i < #args then
        i = i + 1
        found.before[#found.before + 1] = args[i]
      end
    else
      found.words[#found.words + 1] = word
    end
    i = i + 1
  end
  table.move(args, i, #args, 1, found.rest)
  return found
end

--- All values of one repeated option, wherever it stands; needed before anything else can be parsed.
---@param args string[]
---@param name string
---@return string[]
function commandline.values(args, name)
  local values = {}
  local flag = "--" .. dashed(name)
  for i, word in ipairs(args) do
    if word == "--" then
      break
    elseif word == flag then
      values[#values + 1] = args[i + 1]
    elseif word:sub(1, #flag + 1) == flag .. "=" then
      values[#values + 1] = word:sub(#flag + 2)
    end
  end
  return values
end

--- True when a boolean option is given in its plain form.
---@param args string[]
---@param name string
---@return boolean
function commandline.has(args, name)
  local flag, given = "--" .. dashed(name), false
  for _, word in ipairs(args) do
    if word == "--" then
      break
    elseif word == flag or word == "--no-" .. dashed(name) then
      given = word == flag
    end
  end
  return given
end

local TRUE = { ["true"] = true, yes = true, ["1"] = true, on = true }
local FALSE = { ["false"] = true, no = true, ["0"] = true, off = true }

-- --name=true and --name=false as --name and --no-name.
local function plain_booleans(args, declared)
  local out = {}
  local literal = false
  for _, word in ipairs(args) do
    literal = literal or word == "--"
    local option, value, name = nil, nil, nil
    if not literal then
      option, value, name = named(declared, word)
    end
    if option and option[1] == "boolean" and value then
      local low = value:lower()
      if not TRUE[low] and not FALSE[low] then
        return nil, usage(("option '--%s' is true or false, found '%s'"):format(dashed(name), value))
      end
      word = (TRUE[low] and "--" or "--no-") .. dashed(name)
    end
    out[#out + 1] = word
  end
  return out
end

local function describe(option)
  local notes = {}
  if option.default ~= nil and option[1] ~= "boolean" then
    local default = option.default
    notes[#notes + 1] = "default: " .. (type(default) == "table" and table.concat(default, ",") or default)
  end
  if option.env then
    notes[#notes + 1] = "environment: " .. (type(option.env) == "table" and option.env[1] or option.env)
  end
  local text = option.help or ""
  if option.default == true then
    text = "don't " .. text
  end
  if #notes > 0 then
    text = text .. " (" .. table.concat(notes, "; ") .. ")"
  end
  return text .. "."
end

local function metavar(name, option)
  if option.metavar then
    return option.metavar
  elseif option.values then
    return table.concat(option.values, "|")
  end
  return option[1] == "string" and name:upper() or option[1]:upper()
end

local function add_option(parser, name, option)
  local long = "--" .. dashed(name)
  local names = option.short and ("-" .. option.short .. " " .. long) or long
  if option[1] ~= "boolean" then
    local added = parser:option(names):target(name)
    added:argname(metavar(name, option)):description(describe(option))
    if option.repeated then
      added:count("*")
    end
    return
  end
  local function store(value)
    return function(result)
      result[name] = value
    end
  end
  local on, off = parser:flag(names), parser:flag("--no-" .. dashed(name))
  on:target(name):action(store(true)):init(nil)
  off:target("no_" .. name):action(store(false)):init(nil)
  if option.default == true then
    off:description(describe(option))
    on:hidden(true)
  else
    on:description(describe(option))
    off:hidden(true)
  end
end

local function add_positional(parser, name, option)
  local added = parser:argument(metavar(name, option)):target(name):description(describe(option))
  if option[1] == "list" then
    added:args(option.required and "+" or "*")
  elseif not option.required then
    added:args("?")
  end
end

-- One line: what is needed, and "[options]" for the rest.
local function usage_line(title, groups, tail)
  local words, positional = { "Usage:", title, "[options]" }, {}
  for _, group in ipairs(groups) do
    for _, name in ipairs(sorted_names(group[2])) do
      local option = group[2][name]
      local value = metavar(name, option)
      if option.positional then
        value = option[1] == "list" and value .. "..." or value
        positional[#positional + 1] = option.required and value or "[" .. value .. "]"
      elseif option.required or option.expected then
        words[#words + 1] = ("--%s %s"):format(dashed(name), value)
      end
    end
  end
  table.move(positional, 1, #positional, #words + 1, words)
  words[#words + 1] = tail
  return table.concat(words, " ")
end

--- Makes a parser.
---@param title string "lunark backup files"
---@param summary string
---@param groups table list of {title, options}
---@param epilog string|nil
---@param tail string|nil what else stands on the command line, for the usage
---@return table parser of argparse
function commandline.parser(title, summary, groups, epilog, tail)
  local parser = argparse(title, summary:sub(1, 1):upper() .. summary:sub(2) .. ".", epilog)
  parser:add_help(false):help_max_width(100):help_description_margin(30)
  parser:usage(usage_line(title, groups, tail))
  for _, group in ipairs(groups) do
    local first, arguments = #parser._options + 1, #parser._arguments + 1
    for _, name in ipairs(sorted_names(group[2])) do
      local option = group[2][name]
      if option.positional then
        add_positional(parser, name, option)
      else
        add_option(parser, name, option)
      end
    end
    local added = table.move(parser._arguments, arguments, #parser._arguments, 1, {})
    table.move(parser._options, first, #parser._options, #added + 1, added)
    if #added > 0 then
      parser:group(group[1], table.unpack(added))
    end
  end
  return parser
end

-- argparse ends the process by itself on some paths; this one raises instead.
local function parse_words(parser, args)
  local ok, result = parser:pparse(args)
  if ok then
    return result
  end
  local message, tip = result:match("^(.-)\n(.*)$")
  message = message or result
  return nil, usage(message:sub(1, 1):lower() .. message:sub(2), tip and tip:sub(1, 1):lower() .. tip:sub(2)
    or ("%s --help shows the options"):format(parser._name:match("^lunark [%w_-]+ ?[%w_-]*")))
end

-- What lunark.options is asked: the declaration without what only the command line knows.
local function bare(option)
  local out = {}
  for key, value in pairs(option) do
    if not ONLY_HERE[key] then
      out[key] = value
    end
  end
  return out
end

--- Checks a table of declarations itself.
---@param declared table
---@return true|nil
---@return string|nil wrong what is wrong with it
function commandline.check(declared)
  local plain = {}
  for name, option in pairs(declared) do
    plain[name] = type(option) == "table" and bare(option) or option
  end
  return options.check(plain)
end

-- Environment variables are read where an option declares them.
local function allow_environment(option)
  for _, name in ipairs(type(option.env) == "table" and option.env or { option.env }) do
    sys.allow("env", name)
    if option[1] == "secret" then
      sys.allow("env", name .. "_FILE")
    end
  end
end

local function label(name)
  return "--" .. dashed(name)
end

-- The values of one group of declarations from what argparse found.
local function read_group(group, result, title)
  local declared, flags, lists = {}, {}, {}
  for name, option in pairs(group) do
    local value = result[name]
    allow_environment(option)
    if option[1] == "list" and type(value) == "table" and #value > 0 then
      lists[name] = value
    else
      declared[name] = bare(option)
      if type(value) ~= "table" then
        flags[name] = value
      end
      if option.positional then
        declared[name].required = false -- argparse has seen to that
      end
    end
  end
  local values, err = options.parse(declared, flags, { what = title, label = label })
  if not values then
    return nil, err
  end
  for name, list in pairs(lists) do
    values[name] = list
  end
  return values
end

--- Reads options.
---@param parser table
---@param groups table as for commandline.parser
---@param args string[]
---@param title string whose options they are, for messages
---@return table[]|nil one table of values for each group
---@return table|nil err kind usage
function commandline.parse(parser, groups, args, title)
  local all = {}
  for _, group in ipairs(groups) do
    for name, option in pairs(group[2]) do
      all[name] = option
    end
  end
  local words, err = plain_booleans(args, all)
  if not words then
    return nil, err
  end
  local result
  result, err = parse_words(parser, words)
  if not result then
    return nil, err
  end
  local out = {}
  for i, group in ipairs(groups) do
    out[i], err = read_group(group[2], result, title)
    if not out[i] then
      return nil, err
    end
  end
  return out
end

return commandline
