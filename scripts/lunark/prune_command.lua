-- SPDX-License-Identifier: MIT
-- `lunark prune`: shows what retention would delete, asks, deletes, and says what could not be.

local ask = require "lunark.ask"
local exit = require "lunark.exit"
local json = require "lunark.json"
local log = require "lunark.log"
local naming = require "lunark.naming"
local output = require "lunark.output"
local place = require "lunark.place"
local progress = require "lunark.progress"
local prune = require "lunark.prune"
local restore_command = require "lunark.restore_command"
local retention = require "lunark.retention"
local sys = require "lunark.core.sys"
local time = require "lunark.time"
local url = require "lunark.url"

local command = {
  summary = "delete old backups by a rule",
  options = {
    url = { "string", positional = true, metavar = "URL", help = "the store" },
    item = { "string", metavar = "NAME", help = "only this item" },
    adopt = { "boolean", help = "count archives of other tools by their names, and delete them, too" },
    yes = { "boolean", short = "y", help = "don't ask" },
    dry_run = { "boolean", help = "show the plan and do nothing" },
  },
}
for name, option in pairs(retention.options) do
  command.options[name] = option
end

local VERSIONS = "the store keeps what was deleted as old versions: a rule of the bucket has to remove those"

local function usage(message, hint)
  return sys.error { kind = "usage", message = message, hint = hint }
end

-- What the command line says, or raises what is wrong with it.
local function request_of(options, json_wanted)
  local rules, err = retention.of_options(options)
  if not rules then
    error(err or usage("lunark prune: nothing says what is kept", "give at least one of " .. retention.FLAGS))
  end
  if options.item then
    local ok, wrong = naming.check_name(options.item)
    if not ok then
      error(wrong)
    end
  end
  if not options.yes and not options.dry_run and (json_wanted or not ask.possible()) then
    error(usage("lunark prune deletes only after a yes, and nobody can be asked here",
      "--yes is one; --dry-run shows what would be deleted"))
  end
  return { rules = rules, item = options.item, adopt = options.adopt, now = sys.clock() }
end

local function plan_text(plan)
  local rows = { { "ITEM", "TIME", "SIZE", "PLAN", "WHY", "KEY" } }
  for i, line in ipairs(plan.lines) do
    local found = line.backup
    rows[i + 1] = {
      output.shown_name(found.item), time.rfc3339(found.time), progress.size(found.size or 0), line.action,
      #line.reasons > 0 and table.concat(line.reasons, ", ") or "no rule keeps it",
      output.shown_name(found.key),
    }
  end
  return #rows > 1 and output.columns(rows, { [3] = true }) or "no backups\n"
end

local function plan_json(plan, outcome, status)
  local lines = json.array {}
  for i, line in ipairs(plan.lines) do
    local found = line.backup
    lines[i] = {
      item = found.item, time = time.rfc3339(found.time), size = found.size, key = found.key,
      plan = line.action, reasons = json.array(line.reasons), deleted = line.deleted or false,
      locked = line.err and line.err.locked, error = line.err and output.plain_error(line.err),
    }
  end
  return {
    status = status, url = plan.store:describe(), backups = lines, dry_run = plan.dry_run or false,
    deleted = outcome and outcome.deleted or 0, bytes = outcome and outcome.bytes or 0,
    locked = outcome and outcome.locked or 0, versions = outcome and outcome.versions or false,
    failures = output.errors_json(outcome and outcome.failures or {}),
  }
end

-- What was left out of the count, said once.
local function say_left(plan)
  local left = prune.count(plan, "leave")
  if left > 0 then
    log.info(("%d archives don't count and are left alone: see WHY"):format(left))
  end
end

local function say_outcome(outcome, target)
  log.info(("%d backups deleted, %s"):format(outcome.deleted, progress.size(outcome.bytes)),
    { store = target:describe() })
  if outcome.versions then
    log.info(VERSIONS)
  end
  if outcome.locked > 0 then
    log.warn(prune.LOCKED:format(outcome.locked))
  end
end

--- The exit status of an outcome. What is locked is a warning.
---@param outcome lunark.prune.Outcome
---@param strict boolean|nil
---@return integer
function command.status(outcome, strict)
  if #outcome.failures > 0 then
    return exit.combine(outcome.failures, outcome.deleted > 0)
  end
  return strict and outcome.locked > 0 and exit.PARTIAL or exit.OK
end

-- Whether the plan is to be done.
local function agreed(plan, options)
  local count, bytes = prune.count(plan, "delete")
  if count == 0 or options.dry_run then
    return false
  end
  local question = "delete %d backups, %s, from %s?"
  if options.yes or ask.yes(question:format(count, progress.size(bytes), plan.store:describe())) then
    return true
  end
  log.info("nothing is deleted")
  return false
end

function command.run(context)
  local options, global = context.options, context.global
  local request = request_of(options, global.json)
  options.url = place.of(options.url, "URL", context.plan.title)
  local from = restore_command.open_store(options.url)
  if from.key then
    error(usage(("%s names one archive, a store expected"):format(url.shown(options.url))))
  end
  sys.seal()
  local plan, err = prune.plan(from, request)
  if not plan then
    err.url = url.shown(options.url)
    error(err)
  end
  if not global.json then
    assert(sys.write(1, plan_text(plan)))
    say_left(plan)
  end
  plan.dry_run = options.dry_run
  local outcome
  if agreed(plan, options) then
    outcome, err = prune.apply(plan)
    if not outcome then
      err.url = url.shown(options.url)
      error(err)
    end
    for _, failure in ipairs(outcome.failures) do
      context.report(failure)
    end
    say_outcome(outcome, from)
  end
  local status = outcome and command.status(outcome, global.strict) or exit.OK
  if global.json then
    output.json(plan_json(plan, outcome, status))
  end
  return status
end

return command
