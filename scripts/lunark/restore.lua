-- SPDX-License-Identifier: MIT
-- Restores one backup: finds it, streams it into a folder, and compares what was read with the manifest.
-- Needs lunark.archive, lunark.file, lunark.fs and lunark.store objects.

local archive = require "lunark.archive"
local contents = require "lunark.contents"
local exit = require "lunark.exit"
local fetch = require "lunark.fetch"
local file = require "lunark.file"
local fs = require "lunark.fs"
local list = require "lunark.list"
local log = require "lunark.log"
local manifest = require "lunark.manifest"
local naming = require "lunark.naming"
local paths = require "lunark.paths"
local pieces = require "lunark.pieces"
local progress = require "lunark.progress"
local sys = require "lunark.core.sys"

local restore = {}

local function usage(message, hint)
  return nil, sys.error { kind = "usage", message = message, hint = hint }
end

-- Whether the folder is there and may be restored into: nothing in it is overwritten by accident.
local function look(into, may_have)
  local info, err = fs.stat(into)
  if not info then
    if err.kind == "not_found" then
      return "missing"
    end
    return nil, err
  elseif info.type ~= "directory" then
    return usage(("%s is a %s, a directory expected"):format(into, info.type))
  end
  local names
  names, err = fs.readdir(into)
  if not names then
    return nil, err
  elseif #names > 0 and not may_have then
    return usage(("%s is not empty"):format(into),
      "restore into another folder, or add --overwrite or --existing")
  end
  return "there"
end

-- What the backup must be: size and hash, from its manifest or from the mark on `latest`.
local function expectation(store, backup)
  if backup.manifest then
    local record, err = manifest.fetch(store, backup.manifest)
    if not record then
      return nil, err
    end
    return record
  end
  if backup.state ~= "ok" then
    log.warn(("%s has no manifest: restored without comparing"):format(backup.key),
      { item = backup.item, state = backup.state })
  end
  return { sha256 = backup.sha256 }
end

-- An object by its full key, which need not be named like a backup of ours. The store begins at the
-- folder that it is in, so the name of that folder is not in the key.
local function by_key(store, key)
  local info, err = store.found, nil
  if not info then
    info, err = store:head(key)
  end
  if not info then
    return nil, err
  end
  local parsed = naming.parse_file(key)
  local meta = info.meta or {}
  local suffix = parsed and parsed.suffix or key:match("%.tar%.gz$") or key:match("%.[^./]*$") or ""
  local backup = {
    key = key, size = info.size, suffix = suffix, sha256 = meta["lunark-sha256"],
    state = meta["lunark-version"] and "incomplete" or "unverified",
    item = parsed and parsed.item or key:match("[^/]*$"):sub(1, -#suffix - 1),
    time = parsed and parsed.time,
  }
  if parsed and parsed.kind == "latest" then
    backup.state = "ok"
  elseif parsed and parsed.kind == "data" then
    local other = key:sub(1, #key - #parsed.suffix) .. ".manifest.json"
    if store:head(other) then
      backup.manifest, backup.state = other, "ok"
    end
  end
  return backup
end

local function is_tar(backup, expected)
  if expected.kind then
    return expected.kind == "archive"
  end
  return backup.suffix == ".tar.gz" or backup.suffix == ".tgz" or backup.suffix == ".tar"
end

local ENTRY = 512 -- what an entry counts for beside its data
local RATIO = 250 -- of what nothing is known of
local RATIO_FROM = 256 * 1024 * 1024 -- less than this may have any

-- What an archive may unpack to: as much as its manifest says, or what is usual.
local function limits(expected, options)
  local max_bytes, max_ratio = options.max_size, options.max_ratio
  local counts = expected.raw_size and expected.archive
  if counts and not max_bytes then
    local entries = 0
    for _, name in ipairs { "files", "directories", "links", "others" } do
      entries = entries + (counts[name] or 0)
    end
    max_bytes = expected.raw_size + ENTRY * (entries + 1)
  elseif not max_bytes and not max_ratio then
    max_ratio = RATIO
  end
  return max_bytes, max_ratio
end

local function extract(stream, expected, options)
  local max_bytes, max_ratio = limits(expected, options)
  local job, err = archive.extract(stream, {
    into = options.into, overwrite = options.overwrite, existing = options.existing, owner = options.owner,
    mode = options.mode, devices = options.devices, strip = options.strip, map = options.map,
    max_bytes = max_bytes, max_ratio = max_ratio, select = options.select,
  })
  if not job then
    return nil, err
  end
  local extraction <close> = job
  local _ <close> = options.progress and options.progress:track(options.name, function()
    local at = extraction:progress()
    return { read = at.bytes, files = at.files }
  end) or nil
  return extraction:wait()
end

-- A program's output as it was: what it unpacks to is compared with its manifest, too.
local function plain_output(stream, backup, expected, options)
  local plain = backup.suffix:find("%.gz$") and stream:gunzip() or stream
  local size, most = expected.kind and expected.raw_size, options.max_size
  local ratio = options.max_ratio or RATIO
  if not most and not size and ratio > 0 and backup.size then
    most = math.max(RATIO_FROM, math.floor(backup.size * ratio))
  end
  return (size or most) and plain:verify { size = size or nil, most = most, name = backup.key } or plain
end

-- The complete file gets its name, unless what is there stays: true, or false for that.
local function name_file(part, path, backup, options)
  local there = fs.lstat(path)
  local existing = options.existing or options.overwrite and "replace" or "error"
  if there and existing == "error" then
    return nil, sys.error { kind = "conflict", message = path .. " exists in the target" }
  elseif there and (existing == "skip" or existing == "keep-newer" and there.mtime > (backup.time or 0)) then
    return false, fs.unlink(part)
  end
  return fs.rename(part, path)
end

-- Written under a name that shows it is not whole yet, then renamed.
local function write_file(plain, into, backup, options)
  local name = backup.item .. backup.suffix:gsub("%.gz$", "")
  local path, part = into .. "/" .. name, ("%s/.%s.lunark-%d.tmp"):format(into, name, sys.pid())
  local out, err = file.open(part, "w", tonumber("600", 8))
  if not out then
    return nil, err
  end
  local handle <close> = out
  local bytes
  bytes, err = plain:to_file(handle)
  local ok = bytes
  if ok then
    ok, err = handle:sync()
  end
  if ok then
    ok, err = name_file(part, path, backup, options)
  end
  if ok == nil then
    fs.unlink(part)
    return nil, err
  end
  return {
    files = ok and 1 or 0, directories = 0, links = 0, others = 0, skipped = ok and 0 or 1,
    bytes = ok and bytes or 0, warnings = {}, path = path,
  }
end

local function write_out(plain)
  local bytes, err = plain:to_stdout()
  if not bytes then
    return nil, err
  end
  return { files = 1, directories = 0, links = 0, others = 0, skipped = 0, bytes = bytes, warnings = {} }
end

-- The bytes are compared with what they must be on their way: damage is the end of the stream.
local function unpack_into(stream, backup, expected, options)
  local checked = stream:verify {
    size = expected.size or backup.size, sha256 = expected.sha256, name = backup.key,
  }
  local result, err
  if is_tar(backup, expected) then
    result, err = extract(checked, expected, options)
  elseif options.to_stdout then
    result, err = write_out(plain_output(checked, backup, expected, options))
  else
    local plain = plain_output(checked, backup, expected, options)
    result, err = write_file(plain, options.into, backup, options)
  end
  if not result and err.kind == "corrupt" then
    if not err.message:find(backup.key, 1, true) then
      err.message = ("%s is damaged: %s"):format(backup.key, err.message)
    end
    if err.message:find("may have$") or err.message:find("times its size") then
      err.hint = "if it is what it should be, raise --max-size or --max-ratio"
    end
    err.hint = err.hint or "what was restored can't be trusted; restore another backup with --at"
  end
  return result, err
end

--- The backup that is meant.
---@param store table lunark.store; its `key` names one object
---@param item string|nil
---@param at integer|string|nil seconds since 1970, or "latest"
---@return lunark.list.Backup|nil
---@return table|nil err
function restore.find(store, item, at)
  if store.key then
    return by_key(store, store.key)
  end
  return list.find(store, item, at)
end

--- What a backup must be: its manifest, or what stands for it.
---@param store table
---@param backup lunark.list.Backup
---@return table|nil manifest, or a table with `sha256` alone
---@return table|nil err
function restore.expected(store, backup)
  local expected, err = expectation(store, backup)
  if not expected then
    return nil, exit.unreachable(err)
  end
  return expected
end

-- The whole object, as it is in the store.
local function read_whole(store, backup, expected, options)
  local reader, err = fetch.open(store, backup.key, { size = backup.size })
  if not reader then
    return nil, err.kind == "not_found" and err or exit.unreachable(err)
  end
  local _ <close> = reader
  local body <close> = options.limit_rate and reader.stream:limit(options.limit_rate) or reader.stream
  local result
  result, err = unpack_into(body, backup, expected, options)
  if not result then
    err.exit = err.kind ~= "corrupt" and exit.FAILED or nil
    return nil, err
  end
  return result
end

-- What the index says that globs select. An error with `index`: it is none, or wrong.
local function read_pieces(store, backup, expected, options)
  if not store:can("range") then
    return nil, { index = "none", message = "the store does not read parts of objects" }
  elseif expected.size and backup.size and expected.size ~= backup.size then
    return nil, { index = "damaged", message = "its size is not that of its manifest" }
  end
  local opened, err = pieces.open(store, backup.key, backup.size, options.select, {
    limit_rate = options.limit_rate,
  })
  if not opened then
    return nil, err.index and err or exit.unreachable(err)
  end
  local open <close> = opened
  local result
  result, err = extract(open.stream, expected, options)
  if not result then
    err.index = err.kind == "corrupt" and "damaged" or nil
    err.exit = exit.FAILED
    return nil, err
  end
  return result
end

local function read_paths(store, backup, expected, options)
  if not is_tar(backup, expected) then
    return usage(backup.key .. " is the output of a program: there are no paths in it", "leave --path out")
  end
  return paths.read({
    whole = function(chosen)
      return read_whole(store, backup, expected, chosen)
    end,
    pieces = function(chosen)
      return read_pieces(store, backup, expected, chosen)
    end,
  }, options)
end

-- The one file that globs select.
local function find_one(store, backup, globs)
  local one
  for record, err in contents.each(store, backup, globs) do
    if record == false then
      return nil, exit.unreachable(err)
    elseif record.type == "0" and not one then
      one = record
    elseif record.type == "1" or record.type == "2" then
      return usage(("%s is a link in %s"):format(record.path, backup.key), "restore it with --into")
    elseif record.type ~= "5" then
      return usage(("several files of %s match, among them %s and %s"):format(backup.key, one and one.path
        or record.path, record.path), "standard output takes one; restore them with --into")
    end
  end
  if not one then
    return nil, exit.with(sys.error {
      kind = "not_found", hint = "lunark list --files shows what is in it",
      message = ("no file in %s matches %s"):format(backup.key, table.concat(globs, ", ")),
    }, exit.FAILED)
  end
  return one
end

-- The bytes of one file to standard output. The last ones come when the whole was compared with the index.
local function read_one(store, backup, _, options)
  local record, err = find_one(store, backup, options.path)
  if not record then
    return nil, err
  end
  local opened
  opened, err = pieces.open(store, backup.key, backup.size, { paths.literal(record.path) }, {
    limit_rate = options.limit_rate, bare = true,
  })
  if not opened and err.index then
    return usage(("%s: %s: one file of it can't go to standard output"):format(backup.key, err.message),
      "restore it with --into")
  elseif not opened then
    return nil, exit.unreachable(err)
  end
  local open <close> = opened
  local result
  result, err = write_out(open.stream)
  if not result and err.kind ~= "corrupt" then
    err.exit = exit.FAILED
  end
  return result, err
end

--- Reads one backup into a folder: an archive is extracted, other data becomes a file ITEM.SUFFIX, or goes
--- to standard output. What was read is compared with what it must be before this returns.
---@param store table
---@param backup lunark.list.Backup
---@param expected table as restore.expected gives it
---@param options lunark.restore.Options without item, at, dry_run and space_check
---@return table|nil result {files, directories, links, others, skipped, bytes, warnings, path}
---@return table|nil err
function restore.read(store, backup, expected, options)
  local tar = is_tar(backup, expected)
  if options.to_stdout and tar and not options.path then
    return usage(backup.key .. " is an archive of files, and standard output takes one",
      "say which with --path, or restore it with --into")
  end
  local read = options.path and (options.to_stdout and tar and read_one or read_paths) or read_whole
  local result, err = read(store, backup, expected,
    setmetatable({ name = backup.item, key = backup.key }, { __index = options }))
  if not result then
    return nil, err
  end
  for i, warning in ipairs(result.warnings or {}) do
    if i <= 20 then
      log.warn(("%s: %s"):format(warning.path, warning.message), { item = backup.item })
    end
  end
  return result
end

---@class lunark.restore.Options
---@field item string|nil
---@field at integer|string|nil seconds since 1970, or "latest"
---@field into string|nil folder; or
---@field to_stdout boolean|nil a program's output goes to standard output
---@field path string[]|nil globs: only what they match, see lunark.paths
---@field overwrite boolean|nil existing = "replace"
---@field existing string|nil "error", "skip", "replace" or "keep-newer": the folder may have something in it
---@field owner string|nil "auto", "keep" or "none"
---@field mode string|nil "keep" or "umask"
---@field devices boolean|nil
---@field strip integer|nil
---@field map string[][]|nil {from, to} each
---@field max_size integer|nil bytes that may be written, default as the manifest says
---@field max_ratio integer|nil times the archive's size, default 250 where there is no manifest; 0 = any
---@field dry_run boolean|nil
---@field space_check boolean|nil false: free space is not looked at
---@field progress table|nil lunark.progress
---@field limit_rate integer|nil bytes a second

-- Free bytes where it goes to; an error when that is too little. nil where neither can be known.
local function check_space(expected, options)
  local free = file.free_bytes(options.into)
  local needed = expected.raw_size
  if not free or not needed or free >= needed or options.space_check == false or options.path then
    return free
  end
  local text = "%d bytes are free for %s, the backup has %d"
  return usage(text:format(free, options.into, needed),
    "restore it elsewhere; if it has large holes, or replaces what is there, add --no-space-check")
end

-- The folder is there (but for a dry run) and has room. Free bytes, where that is known.
local function make_room(expected, options)
  local there, err = look(options.into, options.overwrite or options.existing)
  if not there then
    return nil, err
  end
  local free
  free, err = check_space(expected, options)
  if not err and there == "missing" and not options.dry_run then
    local _
    _, err = fs.mkdir_granted(options.into)
  end
  return free, err
end

local function plan_of(store, backup, expected, options, free)
  local counts = expected.archive
  local what = counts and ("%d files, %s"):format(counts.files or 0, progress.size(expected.raw_size or 0))
    or expected.raw_size and progress.size(expected.raw_size) or "contents unknown"
  local where = options.to_stdout and "to standard output"
    or ("into %s, %s free"):format(options.into, free and progress.size(free) or "unknown how much is")
  log.info(("would restore %s from %s (%s stored; %s) %s"):format(backup.key, store:describe(),
    progress.size(backup.size or expected.size or 0), what, where), { item = backup.item, key = backup.key })
  return {
    dry_run = true, item = backup.item, key = backup.key, time = backup.time, state = backup.state,
    into = options.into, size = backup.size or expected.size, raw_size = expected.raw_size, free = free,
    files = counts and counts.files, warnings = 0,
  }
end

--- Restores one backup.
---@param store table lunark.store; its `key` names one object
---@param options lunark.restore.Options
---@return table|nil result {item, key, time, files, bytes, warnings}; with `dry_run` what would be done
---@return table|nil err
function restore.run(store, options)
  local backup, err = restore.find(store, options.item, options.at)
  if not backup then
    return nil, err
  end
  local expected
  expected, err = restore.expected(store, backup)
  if not expected then
    return nil, err
  end
  local free
  if options.into then
    free, err = make_room(expected, options)
    if err then
      err.url = options.into
      return nil, err
    end
  end
  if options.dry_run then
    return plan_of(store, backup, expected, options, free)
  end
  local began = sys.monotonic()
  local result
  result, err = restore.read(store, backup, expected, options)
  if not result then
    return nil, err
  end
  local seconds = sys.monotonic() - began
  log.info(("restored %s %s: %d files, %s in %s"):format(backup.key,
    options.into and "into " .. options.into or "to standard output", result.files,
    progress.size(result.bytes), progress.duration(seconds)), { item = backup.item, key = backup.key })
  return {
    item = backup.item, key = backup.key, time = backup.time, state = backup.state, into = options.into,
    files = result.files, directories = result.directories, links = result.links, others = result.others,
    skipped = result.skipped, bytes = result.bytes, warnings = #(result.warnings or {}), seconds = seconds,
    path = result.path,
  }
end

return restore
