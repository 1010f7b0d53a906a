-- SPDX-License-Identifier: MIT
-- `lunark prune`: shows what retention would delete, asks, deletes, and says what could not be.

local ask = require "lunark.ask"
local exit = require "lunark.exit"
local json = require "lunark.json"
local log = require "lunark.log"
local naming = require "lunark.naming"
local orphans = require "lunark.orphans"
local output = require "lunark.output"
local place = require "lunark.place"
local progress = require "lunark.progress"
local prune = require "lunark.prune"
local retention = require "lunark.retention"
local sys = require "lunark.core.sys"
local time = require "lunark.time"
local url = require "lunark.url"

local command = {
  summary = "delete old backups by a rule, or what failed runs left",
  options = {
    url = { "string", positional = true, metavar = "URL", help = "the store" },
    item = { "string", metavar = "NAME", help = "only this item" },
    adopt = { "boolean", help = "count archives of other tools by their names, and delete them, too" },
    orphans = { "boolean", help = "delete unfinished uploads and incomplete objects instead" },
    older_than = { "duration", metavar = "TIME", help = "of those only what is older than this (24h)" },
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

-- Rules or age, or raises what is wrong with them.
local function what_of(options)
  local rules, err = retention.of_options(options)
  if err then
    error(err)
  elseif options.orphans and (rules or options.adopt) then
    error(usage("--orphans goes without --keep-... and --adopt", "run lunark prune once for each"))
  elseif options.older_than and not options.orphans then
    error(usage("--older-than says nothing without --orphans", "--keep-within keeps backups by their age"))
  elseif not rules and not options.orphans then
    error(usage("lunark prune: nothing says what is kept", "give at least one of " .. retention.FLAGS))
  end
  return { rules = rules, older = options.older_than, adopt = options.adopt }
end

-- What the command line says, or raises what is wrong with it.
local function request_of(options, json_wanted)
  local request = what_of(options)
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
  request.item, request.now = options.item, sys.clock()
  return request
end

-- A line of either plan: what it is about, as a person reads it.
local function facts_of(line)
  local found = line.backup or line
  return {
    what = found.item or line.kind, time = found.time and time.rfc3339(found.time), size = found.size,
    key = found.key,
  }
end

local function plan_text(plan)
  local first = plan.orphans and "KIND" or "ITEM"
  local rows = { { first, "TIME", "SIZE", "PLAN", "WHY", "KEY" } }
  for i, line in ipairs(plan.lines) do
    local facts = facts_of(line)
    rows[i + 1] = {
      output.shown_name(facts.what), facts.time or "-", facts.size and progress.size(facts.size) or "-",
      line.action, #line.reasons > 0 and table.concat(line.reasons, ", ") or "no rule keeps it",
      output.shown_name(facts.key),
    }
  end
  return #rows > 1 and output.columns(rows, { [3] = true })
    or plan.orphans and "nothing is left over\n" or "no backups\n"
end

local function lines_json(plan)
  local lines = json.array {}
  for i, line in ipairs(plan.lines) do
    local facts = facts_of(line)
    lines[i] = {
      item = not plan.orphans and facts.what or nil, kind = line.kind, time = facts.time, size = facts.size,
      key = facts.key, plan = line.action, reasons = json.array(line.reasons),
      deleted = line.deleted or false, locked = line.err and line.err.locked,
      error = line.err and output.plain_error(line.err),
    }
  end
  return lines
end

local function plan_json(plan, outcome, status)
  return {
    status = status, url = plan.store:describe(), dry_run = plan.dry_run or false,
    [plan.orphans and "orphans" or "backups"] = lines_json(plan), deleted = outcome.deleted,
    bytes = outcome.bytes, locked = outcome.locked, versions = outcome.versions or false,
    failures = output.errors_json(outcome.failures),
  }
end

-- What does not count, said once.
local function say_left(plan)
  local left = prune.count(plan, "leave")
  if left > 0 and not plan.orphans then
    log.info(("%d archives don't count and are left alone: see WHY"):format(left))
  end
end

local function say_outcome(outcome, plan)
  local what = plan.orphans and "left-over things" or "backups"
  log.info(("%d %s deleted, %s"):format(outcome.deleted, what, progress.size(outcome.bytes)),
    { store = plan.store:describe() })
  if outcome.versions then
    log.info(VERSIONS)
  end
  if outcome.locked > 0 then
    log.warn(prune.LOCKED:format(outcome.locked))
  end
end

-- The exit status of an outcome. What is locked is a warning.
local function status_of(outcome, strict)
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
  local question = plan.orphans and "delete %d left-over things, %s, from %s?"
    or "delete %d backups, %s, from %s?"
  if options.yes or ask.yes(question:format(count, progress.size(bytes), plan.store:describe())) then
    return true
  end
  log.info("nothing is deleted")
  return false
end

local function must(value, err, text)
  if not value then
    err.url = url.shown(text)
    error(err)
  end
  return value
end

-- Opens the store, makes the plan and shows it.
local function make_plan(options, request, json_wanted)
  local from = place.open(options.url)
  if from.key then
    error(usage(("%s names one archive, a store expected"):format(url.shown(options.url))))
  end
  sys.seal()
  local maker = options.orphans and orphans or prune
  local plan, err = maker.plan(from, request)
  plan = must(plan, err, options.url)
  plan.orphans, plan.dry_run, plan.maker = options.orphans, options.dry_run, maker
  if not json_wanted then
    assert(sys.write(1, plan_text(plan)))
    say_left(plan)
  end
  return plan
end

function command.run(context)
  local options, global = context.options, context.global
  local request = request_of(options, global.json)
  options.url = place.of(options.url, "URL", context.plan.title)
  local plan = make_plan(options, request, global.json)
  local outcome = { deleted = 0, bytes = 0, locked = 0, failures = {} }
  local go = agreed(plan, options)
  if go then
    local err
    outcome, err = plan.maker.apply(plan)
    outcome = must(outcome, err, options.url)
  end
  table.move(plan.failures or {}, 1, #(plan.failures or {}), #outcome.failures + 1, outcome.failures)
  for _, failure in ipairs(outcome.failures) do
    context.report(failure)
  end
  if go then
    say_outcome(outcome, plan)
  end
  local status = status_of(outcome, global.strict)
  if global.json then
    output.json(plan_json(plan, outcome, status))
  end
  return status
end

return command
