-- SPDX-License-Identifier: MIT
-- `lunark restore POLICY`: what a policy does to restore what it has backed up. `lunark restore` without a
-- policy, into a folder, is in lunark.restore_into.

local exit = require "lunark.exit"
local json = require "lunark.json"
local place = require "lunark.place"
local policy = require "lunark.policy"
local progress = require "lunark.progress"
local recovery = require "lunark.recovery"
local sys = require "lunark.core.sys"
local time = require "lunark.time"

local INTO = "lunark restore --from URL --into DIR restores into a folder"

local command = {}

command.options = {
  from = {
    "string", expected = true, metavar = "URL", env = "LUNARK_FROM", help = "a store, or one archive in it",
  },
  at = { "string", metavar = "TIME", help = "which backup: its time, or `latest` (default: the newest)" },
  dry_run = { "boolean", help = "say what would be done, and do nothing" },
}

local function usage(message, hint)
  return sys.error { kind = "usage", message = message, hint = hint }
end

--- The names of the policies that can restore, for help.
---@return string
function command.policies_text()
  local names = {}
  for _, entry in ipairs(policy.names()) do
    local found = policy.load(entry.name)
    names[#names + 1] = found and found.restore and entry.name or nil
  end
  return "With a policy its own way: lunark restore " .. table.concat(names, "|") .. " --help"
end

local function is_policy(name)
  for _, entry in ipairs(policy.names()) do
    if entry.name == name then
      return true
    end
  end
  return false
end

--- Plans the restore of a policy.
---@param plan table as commands get it
---@param name string of the policy
---@param scan lunark.commandline.Scan
---@param global table options of every command
function command.plan(plan, name, scan, global)
  local found, err = policy.load(name)
  if not found then
    if not is_policy(name) then
      err.hint = "a store is named by --from: " .. INTO
    end
    error(err)
  elseif not found.restore then
    error(usage(("policy %s has no restore of its own"):format(name),
      INTO))
  end
  for option in pairs(found.restore.options) do
    if command.options[option] or global[option] then
      error(usage(("policy %s: option '%s' is one of the command's own"):format(name, option),
        "give it another name"))
    end
  end
  plan.policy, plan.command = found, command
  plan.title, plan.summary = "lunark restore " .. name, found.restore.summary
  plan.words = table.move(scan.rest, 1, #scan.rest, #scan.before + 1, scan.before)
  plan.groups = {
    { "Options of the policy", found.restore.options }, { "Options", command.options },
    { "Options of every command", global },
  }
end

-- Everything that can be wrong with the options is wrong here, before the store is opened.
local function prepare(found, given)
  policy.grant(policy.needs_of({ name = found.name, needs = found.restore.needs }, given))
  if found.restore.check then
    local ok, message, hint = found.restore.check(given)
    if not ok then
      error(sys.is_error(message) and message or usage(message, hint))
    end
  end
end

function command.run(context)
  local found, options, global = context.plan.policy, context.options, context.global
  local at = place.time_of(options.at)
  prepare(found, context.policy)
  local from = place.of(options.from, "--from", context.plan.title, "LUNARK_FROM")
  local opened = place.open(from)
  if opened.key and at then
    error(usage("--from names one archive: --at says nothing there"))
  end
  sys.seal()
  local shown <close> = progress.start(global.progress)
  local job = recovery.open {
    store = opened, options = context.policy, at = at, dry_run = options.dry_run, progress = shown,
    limit_rate = global.limit_rate,
  }
  found.restore.run(job)
  shown:close()
  local status = (global.strict and job.warnings > 0) and exit.PARTIAL or exit.OK
  if global.json then
    local items = json.array {}
    for i, item in ipairs(job.items) do
      item.time = item.time and time.rfc3339(item.time)
      items[i] = item
    end
    local text = json.encode({
      status = status, items = items, warnings = job.warnings, dry_run = options.dry_run,
    }, "  ")
    sys.write(1, text .. "\n")
  end
  return status
end

return command
