-- SPDX-License-Identifier: MIT
-- The command: reads the command line, grants what it names, runs one command, says what went wrong,
-- and answers with the exit status. docs/guide.md describes commands and options for users.

local commandline = require "lunark.commandline"
local commands = require "lunark.commands"
local corelog = require "lunark.core.log"
local crypto = require "lunark.crypto"
local exit = require "lunark.exit"
local fs = require "lunark.fs"
local log = require "lunark.log"
local options = require "lunark.options"
local policy = require "lunark.policy"
local store = require "lunark.store"
local sys = require "lunark.core.sys"
local task = require "lunark.task"

local cli = {}

--- Options of every command.
cli.global = {
  json = { "boolean", help = "print the outcome as JSON" },
  strict = { "boolean", help = "any warning gives exit status 5" },
  timeout = { "duration", help = "end with status 124 after this time" },
  log_level = {
    "enum", values = { "debug", "info", "warn", "error" }, default = "info", env = "LUNARK_LOG_LEVEL",
    help = "what is logged",
  },
  log_format = {
    "enum", values = { "text", "json" }, default = "text", env = "LUNARK_LOG_FORMAT",
    help = "how a log line looks",
  },
  log_to = { "enum", values = { "stderr", "stdout" }, default = "stderr", help = "where the log goes" },
  progress = {
    "enum", values = { "auto", "bar", "plain", "none" }, default = "auto",
    help = "a bar, a line every 30 s, or nothing; auto: a bar on a terminal",
  },
  memory = {
    "size", min = 4 << 20, env = "LUNARK_MEMORY", help = "memory for streams (40M where nothing is said)",
  },
  jobs = { "integer", min = 1, max = 1024, env = "LUNARK_JOBS", help = "threads that compress (all CPUs)" },
  limit_rate = { "size", min = 1, help = "bytes a second to the stores, at most" },
  work_dir = { "string", metavar = "DIR", env = "LUNARK_WORK_DIR", help = "folder for temporary files" },
  credentials = {
    "string", metavar = "FILE", env = "LUNARK_CREDENTIALS",
    help = "file with a cloud's keys; /credentials/credentials where it is there",
  },
  scripts = {
    "list", repeated = true, metavar = "DIR", help = "folder with scripts of your own, searched first",
  },
  allow = {
    "list", repeated = true, metavar = "KIND=VALUE",
    help = "what a script may do: exec, net, read, write, env or posix; for run also `declared`",
  },
}

--- What a command gets to work with.
---@class lunark.cli.Context
---@field plan table what the words of the command line said
---@field global table values of cli.global
---@field options table values of the command's own options
---@field policy table|nil values of the policy's options
---@field args string[] of a script
---@field report fun(err: table) says an error

local function usage(message, hint)
  return sys.error { kind = "usage", message = message, hint = hint }
end

-- True when a text has a name in it that is not a part of a longer word.
local function mentions(text, name)
  return (" " .. text .. " "):find("[^%w_-]" .. name:gsub("%W", "%%%0") .. "[^%w_-]") ~= nil
end

-- Errors for people: one line with the name of the command, a second one with what to do.
local function say(err)
  local where = err.url or err.item
  where = where and not mentions(err.message, where) and where .. ": " or ""
  local text = ("lunark: %s%s"):format(where, err.message):gsub("%c", "?") .. "\n"
  local kind, what = (err.hint or ""):match('^grant (%a+) for "(.*)"')
  local hint = kind and err.kind == "denied" and ("add --allow %s=%s"):format(kind, what) or err.hint
  if hint then
    text = text .. "hint: " .. hint:gsub("%c", "?") .. "\n"
  end
  sys.write(2, text)
end

local function report(err, format)
  if format == "json" then
    log.error(err.message, { kind = err.kind, hint = err.hint, item = err.item, store = err.url })
  else
    say(err)
  end
end

local function grant_named(values)
  for _, value in ipairs(values or {}) do
    local kind, what = value:match("^(%a+)=(.+)$")
    if kind then
      policy.allow(kind, what)
    elseif value ~= "declared" then
      error(usage(("--allow %s: KIND=VALUE or declared expected"):format(value),
        "for example --allow exec=pg_dump"))
    end
  end
end

local function apply(global, run)
  corelog.set {
    level = global.log_level, format = global.log_format, to = global.log_to == "stdout" and 1 or 2,
    fields = { run = run },
  }
  if global.memory or global.jobs then
    sys.set_budget { memory = global.memory, jobs = global.jobs }
  end
  grant_named(global.allow)
  store.defaults.credentials_file = global.credentials and fs.absolute(global.credentials)
end

-- What stands behind the SCRIPT of `run` is not ours.
local function own_words(args)
  local scan = commandline.scan(args, cli.global, 2)
  return scan.words[1] == "run" and scan.before or args
end

-- How to say what went wrong when the command line could not be read to its end.
local function wished(args)
  local words = own_words(args)
  if not sys.sealed() then
    sys.allow("env", cli.global.log_format.env)
  end
  local formats, places = commandline.values(words, "log_format"), commandline.values(words, "log_to")
  local format = formats[#formats] or options.environment(cli.global.log_format.env)
  local wish = { json = commandline.has(words, "json"), log_format = format == "json" and "json" or "text" }
  corelog.set { format = wish.log_format, to = places[#places] == "stdout" and 1 or 2 }
  return wish
end

-- The script directories come before anything is looked up by name.
local function add_scripts(args)
  for i, given in ipairs(commandline.values(own_words(args), "scripts")) do
    local dir = fs.absolute(given)
    sys.allow("read", dir)
    if given == "" or not fs.is_dir(dir) then
      error(usage(("--scripts %s: there is no such folder"):format(given)))
    end
    sys.add_script_dir(dir, i)
  end
  for _, dir in ipairs(sys.script_dirs()) do
    sys.allow("read", dir)
  end
end

local function overview()
  local lines = { "Usage: lunark COMMAND [options]", "", "Commands:" }
  for _, name in ipairs(commands.order) do
    lines[#lines + 1] = ("  %-9s %s"):format(name, commands[name].summary)
  end
  table.move({
    "", "lunark COMMAND --help shows the options of a command, lunark --version the version.", "",
  }, 1, 3, #lines + 1, lines)
  return table.concat(lines, "\n")
end

local function out(text)
  local ok, err = sys.write(1, text)
  if not ok then
    return exit.FAILED, err
  end
  return exit.OK
end

local function merged(...)
  local all = {}
  for _, declared in ipairs { ... } do
    for name, option in pairs(declared) do
      all[name] = option
    end
  end
  return all
end

-- Finds command and, where it takes one, policy or script. Returns a plan, or the text of a help.
local function plan_of(args)
  local scan = commandline.scan(args, cli.global, 1)
  local name = scan.words[1]
  if scan.version and not name then
    return { text = "lunark " .. sys.version .. "\n" }
  elseif not name then
    if scan.help then
      return { text = overview() }
    end
    error(usage("a command is missing", "lunark --help lists them"))
  end
  local command = commands[name]
  if type(command) ~= "table" or not command.run then
    error(usage(("there is no command '%s'"):format(name),
      "there are: " .. table.concat(commands.order, ", ")))
  end
  local plan = { command = command, name = name, title = "lunark " .. name, summary = command.summary }
  plan.words = table.move(scan.rest, 1, #scan.rest, #scan.before + 1, scan.before)
  plan.help = scan.help
  plan.groups = { { "Options", command.options }, { "Options of every command", cli.global } }
  if command.plan then
    command.plan(plan, merged(command.options, cli.global))
  end
  local declared = {}
  for i, group in ipairs(plan.groups) do
    declared[i] = group[2]
  end
  local words = commandline.scan(plan.words, merged(table.unpack(declared)), math.huge)
  plan.help = plan.help or words.help
  return plan
end

local function run(args, context)
  add_scripts(args)
  local plan = plan_of(args)
  if plan.text then
    return out(plan.text)
  end
  local parser = commandline.parser(plan.title, plan.summary, plan.groups, plan.epilog, plan.tail)
  if plan.help then
    return out(parser:get_help() .. "\n")
  end
  local values, err = commandline.parse(parser, plan.groups, plan.words, plan.title)
  if not values then
    error(err)
  end
  context.plan, context.args = plan, plan.args
  context.options, context.global = values[#values - 1], values[#values]
  context.policy = values[#values - 2]
  context.run = crypto.hex(crypto.random(6))
  apply(context.global, context.run)
  context.report = function(failure)
    report(failure, context.global.log_format)
  end
  local function work()
    return plan.command.run(context)
  end
  if not context.global.timeout then
    return work()
  end
  local status, late = task.timeout(context.global.timeout, work)
  if status == nil then
    if late and late.kind == "timeout" then
      late.exit = exit.TIMEOUT
      late.message = ("not done after %g s (--timeout)"):format(context.global.timeout)
    end
    error(late)
  end
  return status
end

--- Runs the command.
---@param args string[] without the name of the program
---@return integer exit status
function cli.main(args)
  local context = {}
  local ok, status, late = pcall(run, args, context)
  if ok and late == nil then
    return status
  end
  local err = exit.as_error(ok and late or status)
  local global = context.global or wished(args)
  if exit.is_cancel(err) then
    report(sys.error { kind = "cancelled", message = "ended from outside: what was under way is not done" },
      global.log_format)
    error(err)
  end
  report(err, global.log_format)
  status = exit.combine({ err }, false)
  if global.json then
    sys.write(1, commands.failure_json(err, status))
  end
  return status
end

return cli
