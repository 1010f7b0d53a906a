-- SPDX-License-Identifier: MIT
-- `lunark restore` without a policy: a backup is restored into a folder, or a program's output goes to
-- standard output. Options and work of the command; lunark.restore does it.

local commandline = require "lunark.commandline"
local exit = require "lunark.exit"
local fs = require "lunark.fs"
local output = require "lunark.output"
local place = require "lunark.place"
local progress = require "lunark.progress"
local restore = require "lunark.restore"
local restore_command = require "lunark.restore_command"
local sys = require "lunark.core.sys"
local time = require "lunark.time"
local url = require "lunark.url"

local command = {
  summary = "restore a backup into a folder, or as a policy does it",
  options = {
    from = restore_command.options.from,
    item = { "string", metavar = "NAME", help = "which item, where the store has several" },
    at = { "string", metavar = "TIME", help = "which backup: its time, or `latest` (the newest)" },
    into = { "string", expected = true, metavar = "DIR", help = "folder that it is restored into" },
    path = {
      "list", repeated = true, metavar = "GLOB",
      help = "only what matches, with a directory all below it; can be given several times",
    },
    to_stdout = {
      "boolean", help = "write a program's output, or the one file of --path, to standard output",
    },
    overwrite = { "boolean", help = "the folder may have something in it, which is replaced" },
    existing = {
      "enum", values = { "error", "skip", "replace", "keep-newer" }, metavar = "WHAT",
      help = "the folder may have something in it; files that are there: error, skip, replace, or keep-newer",
    },
    strip = { "integer", min = 0, max = 10000, metavar = "N", help = "take N leading components off paths" },
    map = {
      "list", repeated = true, metavar = "OLD=NEW",
      help = "restore what is at or below OLD in the archive as NEW; can be given several times",
    },
    owner = { "enum", values = { "auto", "keep", "none" }, metavar = "WHO",
      help = "owners: keep them, none, or auto (keep as root)" },
    mode = { "enum", values = { "keep", "umask" }, metavar = "HOW",
      help = "modes: keep them, or less the umask" },
    devices = { "boolean", help = "make device nodes, too" },
    max_size = { "size", help = "bytes that may be written (default: as the manifest says)" },
    max_ratio = { "integer", min = 0, metavar = "N",
      help = "how many times its size an archive may have unpacked (default without manifest: 250; 0: any)" },
    space_check = { "boolean", default = true, help = "compare the size with free space before" },
    dry_run = { "boolean", help = "say what would be done, and write nothing" },
  },
}

local function usage(message, hint)
  return sys.error { kind = "usage", message = message, hint = hint }
end

function command.plan(plan, declared)
  local scan = commandline.scan(plan.words, declared, 1)
  plan.help = plan.help or scan.help
  plan.epilog = plan.help and not scan.words[1] and restore_command.policies_text() or nil
  if scan.words[1] then
    restore_command.plan(plan, scan.words[1], scan, plan.groups[2][2])
  end
end

-- OLD=NEW as pairs. Both are paths in the folder.
local function map_of(list)
  local map = {}
  for i, text in ipairs(list or {}) do
    local from, to = text:match("^(.-)=(.*)$")
    if not from then
      error(usage(("--map %s: OLD=NEW expected"):format(text), "as in --map srv/data=data"))
    elseif to:find("^/") or ("/" .. to .. "/"):find("/../", 1, true) then
      error(usage(("--map %s: %s is not a path below the folder"):format(text, to),
        "--into names the folder, NEW a path in it"))
    end
    map[i] = { from, to }
  end
  return #map > 0 and map or nil
end

local function check(options, global)
  for _, glob in ipairs(options.path or {}) do
    if glob == "" then
      error(usage("--path is empty, a path or a glob expected"))
    end
  end
  if (options.into == nil) == (not options.to_stdout) then
    error(usage(options.into and "--into and --to-stdout exclude each other" or "--into DIR is missing",
      not options.into and "or --to-stdout for a program's output" or nil))
  elseif options.overwrite and options.existing and options.existing ~= "replace" then
    error(usage(("--overwrite is --existing replace, and --existing %s is given"):format(options.existing)))
  elseif options.to_stdout and global.json and not options.dry_run then
    error(usage("--json and --to-stdout both mean standard output"))
  end
end

function command.run(context)
  local options, global = context.options, context.global
  check(options, global)
  local map, at = map_of(options.map), place.time_of(options.at)
  options.from = place.of(options.from, "--from", context.plan.title, "LUNARK_FROM")
  local from = place.open(options.from)
  if from.key and (options.item or at) then
    error(usage("--from names one archive: --item and --at say nothing there"))
  end
  if options.into then
    options.into = fs.absolute(options.into)
    sys.allow("read", options.into)
    sys.allow("write", options.into)
  end
  sys.seal()
  local shown <close> = progress.start(global.progress)
  local path = options.path and #options.path > 0 and options.path or false
  local given = { at = at, map = map, path = path, progress = shown, limit_rate = global.limit_rate }
  local result, err = restore.run(from, setmetatable(given, { __index = options }))
  shown:close()
  if not result then
    err.url = err.url or url.shown(options.from)
    error(err)
  end
  local status = (global.strict and result.warnings > 0) and exit.PARTIAL or exit.OK
  if global.json then
    result.time = result.time and time.rfc3339(result.time)
    result.status = status
    output.json(result)
  end
  return status
end

return command
