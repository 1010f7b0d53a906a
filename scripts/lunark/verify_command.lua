-- SPDX-License-Identifier: MIT
-- `lunark verify`: options, what is printed, exit status. What is verified is in lunark.verify.

local crypto = require "lunark.crypto"
local exit = require "lunark.exit"
local fs = require "lunark.fs"
local json = require "lunark.json"
local log = require "lunark.log"
local manifest = require "lunark.manifest"
local output = require "lunark.output"
local place = require "lunark.place"
local progress = require "lunark.progress"
local sys = require "lunark.core.sys"
local time = require "lunark.time"
local url = require "lunark.url"
local drill = require "lunark.verify_restore"
local verify = require "lunark.verify"

local SHOWN = 20 -- findings of one backup in the log; --json has all

local command = {
  summary = "check that backups are whole",
  options = {
    url = { "string", positional = true, metavar = "URL", help = "a store, or one archive in it" },
    item = { "string", metavar = "NAME", help = "only this item" },
    at = { "string", metavar = "TIME", help = "the backups of this time, or `latest`" },
    all = { "boolean", help = "all backups, not only the newest of each item" },
    data = {
      "string", metavar = "all|N%",
      help = "read the data too, all or that much of it: each member's checksum, each file's SHA-256",
    },
    restore = { "boolean", help = "restore it into a scratch folder below --work-dir, compare, remove it" },
    seed = { "integer", min = 0, help = "repeats the choice of an earlier --data N%" },
  },
}

local function usage(message, hint)
  return sys.error { kind = "usage", message = message, hint = hint }
end

local function clean(text)
  return (manifest.shown(text):gsub("%c", "?"))
end

local function range_of(finding)
  return finding.first and finding.last and (" (bytes %d to %d)"):format(finding.first, finding.last) or ""
end

-- What the log shows: a damaged member is not named beside the files in it.
local function worth_saying(findings)
  local by_file, kept = {}, {}
  for _, finding in ipairs(findings) do
    if finding.path and finding.first then
      by_file[finding.first] = true
    end
  end
  for _, finding in ipairs(findings) do
    if finding.path or not by_file[finding.first or ""] then
      kept[#kept + 1] = finding
    end
  end
  return kept
end

-- Findings go to the log, each with what it is about.
local function say(result)
  local findings = worth_saying(result.findings)
  for i, finding in ipairs(findings) do
    if i > SHOWN then
      log.error(("%s: %d more findings, --json shows all"):format(clean(result.key), #findings - SHOWN),
        { item = result.item })
      break
    end
    local text = clean(finding.message)
    local where = not text:find(clean(result.key), 1, true) and clean(result.key) .. ": " or ""
    local path = finding.path and clean(finding.path) .. ": " or ""
    log[finding.warning and "warn" or "error"](where .. path .. text .. range_of(finding),
      { item = result.item, key = result.key, path = finding.path })
  end
end

-- One line for each backup.
local function line_of(result)
  local checked = #result.checked > 0 and table.concat(result.checked, ", ") or "-"
  local when = result.latest and "latest" or result.time and time.rfc3339(result.time) or "-"
  return ("%-10s  %s  %s  %s  checked: %s\n"):format(result.state, clean(result.item or "-"), when,
    clean(result.key), checked)
end

local function result_json(result)
  local findings = json.array {}
  for i, finding in ipairs(result.findings) do
    findings[i] = {
      what = finding.what, message = manifest.shown(finding.message), warning = finding.warning,
      path = manifest.shown(finding.path), first = finding.first, last = finding.last,
    }
  end
  return {
    item = result.item, key = result.key, time = result.time and time.rfc3339(result.time),
      size = result.size,
    state = result.state, checked = json.array(result.checked), findings = findings, latest = result.latest,
    stands_for = result.stands_for, counts = result.counts, restored = result.restored,
    error = result.err and output.plain_error(result.err),
  }
end

-- Damage comes before what could not be reached, that before warnings.
local function status_of(results, strict)
  local damaged, failed, warned = false, nil, false
  for _, result in ipairs(results) do
    damaged = damaged or result.state == "damaged" or result.state == "missing"
    failed = failed or result.err
    for _, finding in ipairs(result.findings) do
      warned = warned or finding.warning
    end
  end
  if damaged then
    return exit.DAMAGED
  elseif failed then
    return exit.of(failed)
  end
  return warned and strict and exit.PARTIAL or exit.OK
end

local function check_options(options, from)
  if options.all and options.at then
    error(usage("--all and --at exclude each other"))
  elseif from.key and (options.item or options.at or options.all) then
    error(usage("URL names one archive: --item, --at and --all say nothing there"))
  end
end

-- How much of the data is read: nil, "all", or a percentage.
local function amount_of(text)
  if text == nil or text == "all" then
    return text
  end
  local percent = tonumber(text:match("^(%d+%.?%d*)%%$"))
  if not percent or percent <= 0 or percent > 100 then
    error(usage(("--data %s: `all` or a percentage expected"):format(text), "for example --data 5%"))
  end
  return percent
end

local function seed_of(options, amount)
  if math.type(amount) == nil then
    if options.seed then
      error(usage("--seed says nothing without --data N%"))
    end
    return nil
  end
  local seed = options.seed or ("I4"):unpack(crypto.random(4))
  log.info(("--data %s --seed %d repeats this choice"):format(options.data, seed), { seed = seed })
  return seed
end

-- The folder that the scratch folder is made in; it may be written, and no more.
local function grant_work(given, run)
  if given == "" then
    error(usage("--work-dir is empty, a folder expected"))
  end
  if given then
    sys.allow("read", fs.absolute(given))
    sys.allow("write", fs.absolute(given))
    local ok, err = fs.mkdir_granted(given)
    if not ok then
      error(exit.with(err, exit.USAGE))
    end
    return given
  end
  sys.allow("env", "TMPDIR")
  local base = sys.env("TMPDIR") or "/tmp"
  local path = fs.join(fs.absolute(base), "lunark-" .. run)
  sys.allow("read", path)
  sys.allow("write", path)
  return base
end

local function scratch_in(base, run)
  local scratch, err = drill.scratch(base, run)
  if not scratch then
    error(exit.with(err, exit.FAILED))
  end
  return scratch
end

function command.run(context)
  local options, global = context.options, context.global
  local at = place.time_of(options.at)
  local amount = amount_of(options.data)
  local seed = seed_of(options, amount)
  options.url = place.of(options.url, "URL", context.plan.title)
  local from = place.open(options.url)
  check_options(options, from)
  local base = options.restore and grant_work(global.work_dir, context.run)
  sys.seal()
  local chosen, err = verify.find(from, { item = options.item, at = at, all = options.all })
  if not chosen then
    err.url = err.url or url.shown(options.url)
    error(err)
  end
  local scratch <close> = base and scratch_in(base, context.run) or nil
  local shown <close> = progress.start(global.progress)
  local results, objects = {}, json.array {}
  for i, backup in ipairs(chosen) do
    local result = verify.backup(from, backup, {
      data = amount, seed = seed, scratch = scratch, progress = shown, limit_rate = global.limit_rate,
    })
    results[i], objects[i] = result, result_json(result)
    say(result)
    if result.err then
      result.err.item = result.item
      context.report(result.err)
    end
    if not global.json then
      shown:clear()
      sys.write(1, line_of(result))
    end
  end
  shown:close()
  local status = status_of(results, global.strict)
  if global.json then
    output.json { status = status, url = from:describe(), backups = objects }
  end
  return status
end

return command
