-- SPDX-License-Identifier: MIT
-- The commands: options and work of each. A command is a table {summary, options, run}, where run gets
-- the context (see lunark.cli) and returns the exit status. `plan` may look at the words first. Those that
-- have a file of their own are loaded when they are asked for: every command would start later for them.

local backup = require "lunark.backup"
local commandline = require "lunark.commandline"
local exit = require "lunark.exit"
local fs = require "lunark.fs"
local json = require "lunark.json"
local list = require "lunark.list"
local log = require "lunark.log"
local output = require "lunark.output"
local place = require "lunark.place"
local policy = require "lunark.policy"
local progress = require "lunark.progress"
local retention = require "lunark.retention"
local scripts = require "lunark.scripts"
local store = require "lunark.store"
local sys = require "lunark.core.sys"
local task = require "lunark.task"
local time = require "lunark.time"
local url = require "lunark.url"

local commands = { order = { "backup", "restore", "list", "verify", "prune", "run", "scripts" } }

local OTHERS = { prune = "prune_command", restore = "restore_into", verify = "verify_command" }
setmetatable(commands, { __index = function(_, name)
  return OTHERS[name] and require("lunark." .. OTHERS[name])
end })

local function usage(message, hint)
  return sys.error { kind = "usage", message = message, hint = hint }
end

--- The JSON of a command that failed before it had anything to say.
function commands.failure_json(err, status)
  return json.encode({ status = status, failures = { output.plain_error(err) } }, "  ") .. "\n"
end

-- The folder that the job makes its own folder in.
local function work_base(context)
  local given = context.global.work_dir
  if given == "" then
    error(usage("--work-dir is empty, a folder expected"))
  elseif given then
    sys.allow("read", fs.absolute(given))
    sys.allow("write", fs.absolute(given))
    local ok, err = fs.mkdir_granted(given)
    if not ok then
      err.exit = exit.USAGE
      error(err)
    end
    return given
  end
  sys.allow("env", "TMPDIR")
  return sys.env("TMPDIR") or "/tmp"
end

-- --- backup ---

commands.backup = {
  summary = "back something up, as a policy says",
  options = {
    to = {
      "list", repeated = true, expected = true, metavar = "URL", env = "LUNARK_TO",
      help = "where to: a path, s3://, gs:// or azure://bucket/prefix; can be given several times",
    },
    latest = { "boolean", default = true, help = "move `latest` to this backup" },
    name_format = {
      "enum", values = { "standard", "compat" },
      help = "form of the time in names: 2020-06-16T123257Z or 2020-06-16-12:32:57",
    },
    compress = {
      "string", default = "balanced", metavar = "LEVEL", help = "fast, balanced, best, none, or 1 to 12",
    },
    expect_size = { "size", help = "size of the source when it can't be known, for the size of parts" },
  },
}
for name, option in pairs(retention.options) do
  commands.backup.options[name] = option
end

local function policies_text()
  local lines = { "Policies:" }
  for _, entry in ipairs(policy.names()) do
    local found, err = policy.load(entry.name)
    lines[#lines + 1] = ("  %-9s %s"):format(entry.name, found and found.summary or err.message)
  end
  lines[#lines + 1] = "lunark backup POLICY --help shows the options of one."
  return table.concat(lines, "\n")
end

function commands.backup.plan(plan, declared)
  local scan = commandline.scan(plan.words, declared, 1)
  local name = scan.words[1]
  plan.help = plan.help or scan.help
  if not name then
    if plan.help then
      plan.title, plan.epilog = "lunark backup POLICY", policies_text()
      return
    end
    error(usage("a policy is missing", "lunark backup --help lists them"))
  end
  local found, err = policy.load(name)
  if not found then
    error(err)
  end
  for option in pairs(found.options) do
    if declared[option] then
      error(usage(("policy %s: option '%s' is one of the command's own"):format(name, option),
        "give it another name"))
    end
  end
  plan.policy = found
  plan.title, plan.summary = "lunark backup " .. name, found.summary
  plan.words = table.move(scan.rest, 1, #scan.rest, #scan.before + 1, scan.before)
  table.insert(plan.groups, 1, { "Options of the policy", found.options })
end

local LEVELS = { fast = true, balanced = true, best = true, none = true }

local function compress_level(text)
  local number = math.tointeger(tonumber(text))
  if LEVELS[text] then
    return text
  elseif number and number >= 1 and number <= 12 then
    return number
  end
  error(usage(("--compress %s: fast, balanced, best, none, or a level from 1 to 12 expected"):format(text)))
end

-- How the programs behind an item ended.
local function endings_json(producers)
  local out = json.array {}
  for i, producer in ipairs(producers or {}) do
    out[i] = { code = producer.code, signal = producer.signal, seconds = producer.seconds }
  end
  return #out > 0 and out or nil
end

-- The last line of a run of several items, or of one with warnings.
local function say_outcome(job)
  local stored = 0
  for _, item in ipairs(job.items) do
    stored = stored + (item.stored and 1 or 0)
  end
  if #job.items > 1 or job.warnings > 0 then
    log.info(("%d of %d stored, %d failures, %d warnings"):format(stored, #job.items, #job.failures,
      job.warnings))
  end
end

-- The outcome of a job as JSON.
local function job_json(job, status)
  local items = json.array {}
  for i, item in ipairs(job.items) do
    local record = item.record or {}
    local stores = json.array {}
    for n, outcome in ipairs(item.targets) do
      stores[n] = {
        url = outcome.url, stored = outcome.stored, checked = outcome.checked, latest = outcome.latest,
        pruned = outcome.pruned and outcome.pruned.deleted,
        error = outcome.err and output.plain_error(outcome.err),
      }
    end
    items[i] = {
      item = item.item, key = item.key, ok = item.ok, size = record.size, raw_size = record.raw_size,
      sha256 = record.sha256, seconds = item.seconds, warnings = record.warning_count,
      unreadable = record.unreadable, stores = stores, producers = endings_json(record.producers),
    }
  end
  return {
    status = status, run = job.run, time = time.rfc3339(job.time), items = items,
    warnings = job.warnings, unreadable = job.unreadable, failures = output.errors_json(job.failures),
  }
end

-- Everything that can be wrong with a policy's options is wrong here, before a store is opened.
local function prepare_policy(found, options)
  policy.grant(policy.needs_of(found, options))
  if found.check then
    local ok, message, hint = found.check(options)
    if not ok then
      error(sys.is_error(message) and message
        or usage(message or ("policy %s: its check gives no reason for its no"):format(found.name), hint))
    end
  end
end

local function run_policy(found, job)
  local ok, err = pcall(found.backup, job)
  if not ok then
    err = exit.as_error(err)
    if exit.is_cancel(err) then
      error(err)
    end
    -- A timeout of the whole command comes as an error, too, and again at every park.
    task.sleep(0)
    job:failed(nil, err)
  elseif #job.items == 0 and #job.failures == 0 then
    job:failed(nil, sys.error { kind = "io", message = ("policy %s saved nothing"):format(found.name) })
  end
end

function commands.backup.run(context)
  local found, options, global = context.plan.policy, context.options, context.global
  local compress = compress_level(options.compress)
  local keep, wrong = retention.of_options(options)
  if wrong then
    error(wrong)
  end
  local to = place.of(options.to, "--to", context.plan.title, "LUNARK_TO")
  to = type(to) == "table" and to or { to }
  local base = work_base(context)
  prepare_policy(found, context.policy)
  local stores, failures = backup.open_stores(to)
  for _, err in ipairs(failures) do
    if exit.of(err) == exit.USAGE then
      error(err)
    end
  end
  if #stores == 0 then
    for _, err in ipairs(failures) do
      context.report(err)
    end
    local status = exit.combine(failures, false)
    if global.json then
      output.json { status = status, items = json.array {}, failures = output.errors_json(failures) }
    end
    return status
  end
  local shown <close> = progress.start(global.progress)
  local job <close> = assert(backup.open {
    stores = stores, store_failures = failures, options = context.policy, policy = found.name,
    style = options.name_format or found.naming, latest = options.latest, compress = compress,
    work_dir = base, spill = global.work_dir ~= nil, limit_rate = global.limit_rate,
    expect_size = options.expect_size, progress = shown, on_failure = context.report,
    run = context.run, keep = keep, jobs = global.jobs,
  })
  sys.seal()
  run_policy(found, job)
  job:note_failures()
  local status = job:status(global.strict)
  shown:close()
  say_outcome(job)
  if global.json then
    output.json(job_json(job, status))
  end
  return status
end

-- --- list ---

commands.list = {
  summary = "show the backups in a store",
  options = {
    url = { "string", positional = true, metavar = "URL", help = "the store" },
    item = { "string", metavar = "NAME", help = "only this item" },
    all = { "boolean", help = "show incomplete ones, too" },
    files = { "boolean", help = "show what is in the newest backup, or the one of --at" },
    at = { "string", metavar = "TIME", help = "with --files: which backup, its time or `latest`" },
    path = {
      "list", repeated = true, metavar = "GLOB",
      help = "with --files: only what matches, with a directory all below it; can be given several times",
    },
  },
}

-- What --files shows, and what goes only with it.
local function list_contents(from, context)
  local options = context.options
  local at = place.time_of(options.at)
  if from.key and (options.item or at) then
    error(usage("the URL names one archive: --item and --at say nothing there"))
  end
  local list_files = require "lunark.list_files"
  sys.seal()
  local globs = options.path and #options.path > 0 and options.path or nil
  local ok, err = list_files.run(from, {
    item = options.item, at = at, path = globs, json = context.global.json,
  })
  if not ok then
    err.url = err.url or url.shown(options.url)
    error(err)
  end
  return exit.OK
end

function commands.list.run(context)
  local options = context.options
  options.url = place.of(options.url, "URL", context.plan.title)
  if not options.files and (options.at or options.path and #options.path > 0) then
    error(usage("--at and --path go with --files"))
  end
  local from = place.open(options.url)
  if from.key and not options.files then
    error(usage(("%s names one archive, a store expected"):format(url.shown(options.url)),
      "--files shows what is in it"))
  end
  if options.files then
    return list_contents(from, context)
  end
  sys.seal()
  local backups, err = list.scan(from, options.item)
  if not backups then
    err.url = url.shown(options.url)
    error(err)
  end
  local rows, objects = { { "ITEM", "TIME", "SIZE", "STATE", "KEY" } }, json.array {}
  for _, found in ipairs(backups) do
    if found.state ~= "incomplete" or options.all then
      rows[#rows + 1] = {
        output.shown_name(found.item), time.rfc3339(found.time), progress.size(found.size or 0), found.state,
        output.shown_name(found.key),
      }
      objects[#objects + 1] = {
        item = found.item, time = time.rfc3339(found.time), size = found.size, state = found.state,
        key = found.key, manifest = found.manifest,
      }
    end
  end
  local text = context.global.json and json.encode({ url = from:describe(), backups = objects }, "  ") .. "\n"
    or #rows > 1 and output.columns(rows, { [3] = true }) or "no backups\n"
  local ok
  ok, err = sys.write(1, text)
  if not ok then
    error(err)
  end
  return exit.OK
end

-- --- run ---

commands.run = {
  summary = "run a Lua script",
  options = {
    script = { "string", positional = true, required = true, metavar = "SCRIPT", help = "file to run" },
  },
}

function commands.run.plan(plan, declared)
  local scan = commandline.scan(plan.words, declared, 1)
  plan.help = plan.help or scan.help
  plan.tail = "[args]"
  plan.args = scan.rest
  plan.words = scan.before
  plan.words[#plan.words + 1] = "--"
  plan.words[#plan.words + 1] = scan.words[1]
end

-- `needs { exec = {...} }`: grants the first time with `allow`, else checks that everything was allowed.
local function needs_of(allow)
  local declared = allow
  return function(needs)
    if type(needs) ~= "table" then
      error(usage("needs: a table expected, as in needs { exec = { \"pg_dump\" } }"), 2)
    end
    local err = policy.check_needs("script", needs)
    if err then
      error(err, 2)
    end
    if allow then
      policy.grant(needs, allow)
      allow()
      allow = nil
      return
    end
    for kind, values in pairs(needs) do
      for _, value in ipairs(values) do
        local ok, why = sys.check(kind, value)
        if not ok then
          why.hint = not declared and ("add --allow %s=%s, or --allow declared for all that the script needs")
            :format(kind, value) or why.hint
          error(why)
        end
      end
    end
  end
end

-- What the command line names to the script may be used by it: stores by their URLs.
local function grant_stores(args)
  for _, argument in ipairs(args) do
    if argument:find("^%w+://") then
      local opened, err = store.open(argument)
      if not opened and err.kind == "usage" then
        error(err)
      end
    end
  end
end

-- The person named the file, so nothing need be granted for it; what a script names is another matter.
local function read_script(path)
  if sys.sealed() then
    local ok, err = sys.check("read", fs.absolute(path))
    if not ok then
      return nil, err
    end
  end
  local file, why = io.open(path, "rb")
  local source
  if file then
    source, why = file:read("a")
    file:close()
  end
  if not source then
    why = tostring(why):gsub("^.*: ", ""):lower()
    return nil, usage(("script '%s' can't be read: %s"):format(path, why))
  end
  return source
end

-- What a script returns: an exit status, or nil and what failed.
local function script_status(path, result, why)
  if result == nil and why ~= nil then
    error(exit.as_error(why))
  elseif math.type(result) ~= "integer" then
    return exit.OK
  elseif result < 0 or result > 255 then
    local message = ("%s returned %d, an exit status from 0 to 255 expected"):format(path, result)
    error(exit.with(usage(message), exit.FAILED))
  end
  return result
end

function commands.run.run(context)
  local path = context.options.script
  local declared = false
  for _, value in ipairs(context.global.allow or {}) do
    declared = declared or value == "declared"
  end
  local source, err = read_script(path)
  if not source then
    error(err)
  end
  local environment = sys.environment()
  environment.arg = table.move(context.args, 1, #context.args, 1, { [0] = path })
  grant_stores(context.args)
  environment.needs = needs_of(sys.seal(declared))
  local chunk
  chunk, err = sys.load(path, source, environment)
  if not chunk then
    error(err)
  end
  return script_status(path, chunk(table.unpack(context.args)))
end

-- --- scripts ---

commands.scripts = {
  summary = "show where scripts come from, or the text of one",
  options = {
    dump = { "string", metavar = "NAME", help = "print one: policies/files.lua" },
  },
}

function commands.scripts.run(context)
  local name = context.options.dump
  local text
  if name then
    local err
    text, err = scripts.source(name:gsub("^scripts/", ""))
    if not text then
      err.exit, err.hint = exit.USAGE, "lunark scripts lists the names"
      error(err)
    end
  else
    local rows, objects = { { "NAME", "FROM" } }, json.array {}
    for i, entry in ipairs(scripts.list()) do
      rows[i + 1] = { entry.name, entry.origin .. (entry.replaces and " (replaces the embedded one)" or "") }
      objects[i] = entry
    end
    text = context.global.json and json.encode({ scripts = objects }, "  ") .. "\n"
      or output.columns(rows, {})
  end
  local ok, err = sys.write(1, text)
  if not ok then
    error(err)
  end
  return exit.OK
end

return commands
