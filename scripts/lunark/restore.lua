-- SPDX-License-Identifier: MIT
-- Restores one backup: finds it, streams it into a folder, and compares what was read with the manifest.
-- Needs lunark.archive, lunark.file, lunark.fs and lunark.store objects.

local archive = require "lunark.archive"
local exit = require "lunark.exit"
local file = require "lunark.file"
local fs = require "lunark.fs"
local list = require "lunark.list"
local log = require "lunark.log"
local manifest = require "lunark.manifest"
local naming = require "lunark.naming"
local progress = require "lunark.progress"
local sys = require "lunark.core.sys"

local restore = {}

local function usage(message, hint)
  return nil, sys.error { kind = "usage", message = message, hint = hint }
end

-- Makes the folder, or makes sure that nothing in it is overwritten by accident.
local function prepare(into, overwrite)
  local info, err = fs.stat(into)
  if info then
    if info.type ~= "directory" then
      return usage(("%s is a %s, a directory expected"):format(into, info.type))
    end
    local names
    names, err = fs.readdir(into)
    if not names then
      return nil, err
    elseif #names > 0 and not overwrite then
      return usage(("%s is not empty"):format(into), "restore into another folder, or add --overwrite")
    end
    return true
  elseif err.kind ~= "not_found" then
    return nil, err
  end
  return fs.mkdir_granted(into)
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
  local info, err = store:head(key)
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

local function extract(stream, into, options)
  local job, err = archive.extract(stream, {
    into = into, overwrite = options.overwrite, owner = options.owner, devices = true,
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

-- A program's output: written under a name that shows it is not whole yet, then renamed.
local function write_file(stream, into, backup)
  local name = backup.item .. backup.suffix:gsub("%.gz$", "")
  local path, part = into .. "/" .. name, ("%s/.%s.lunark-%d.tmp"):format(into, name, sys.pid())
  local plain = backup.suffix:find("%.gz$") and stream:gunzip() or stream
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
    ok, err = fs.rename(part, path)
  end
  if not ok then
    fs.unlink(part)
    return nil, err
  end
  return { files = 1, directories = 0, links = 0, others = 0, bytes = bytes, warnings = {}, path = path }
end

-- The bytes are compared with what they must be on their way: damage is the end of the stream.
local function unpack_into(stream, backup, expected, options)
  local checked = stream:verify {
    size = expected.size or backup.size, sha256 = expected.sha256, name = backup.key,
  }
  local result, err
  if is_tar(backup, expected) then
    result, err = extract(checked, options.into, options)
  else
    result, err = write_file(checked, options.into, backup)
  end
  if not result and err.kind == "corrupt" then
    if not err.message:find(backup.key, 1, true) then
      err.message = ("%s is damaged: %s"):format(backup.key, err.message)
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

--- Reads one backup into a folder: an archive is extracted, other data becomes a file ITEM.SUFFIX. What was
--- read is compared with what it must be before this returns.
---@param store table
---@param backup lunark.list.Backup
---@param expected table as restore.expected gives it
---@param options table {into=, overwrite=, owner=, progress=, limit_rate=}
---@return table|nil result {files, directories, links, others, bytes, warnings, path}
---@return table|nil err
function restore.read(store, backup, expected, options)
  local stream, err = store:get(backup.key)
  if not stream then
    return nil, err.kind == "not_found" and err or exit.unreachable(err)
  end
  if options.limit_rate then
    stream = stream:limit(options.limit_rate)
  end
  local body <close> = stream
  local result
  result, err = unpack_into(body, backup, expected, {
    into = options.into, overwrite = options.overwrite, owner = options.owner, progress = options.progress,
    name = backup.item,
  })
  if not result then
    err.exit = err.kind ~= "corrupt" and exit.FAILED or nil
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
---@field into string folder
---@field overwrite boolean|nil
---@field progress table|nil lunark.progress
---@field limit_rate integer|nil bytes a second

--- Restores one backup.
---@param store table lunark.store; its `key` names one object
---@param options lunark.restore.Options
---@return table|nil result {item, key, time, files, bytes, warnings}
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
  local ok
  ok, err = prepare(options.into, options.overwrite)
  if not ok then
    err.url = options.into
    return nil, err
  end
  local began = sys.monotonic()
  local result
  result, err = restore.read(store, backup, expected, options)
  if not result then
    return nil, err
  end
  local seconds = sys.monotonic() - began
  log.info(("restored %s into %s: %d files, %s in %s"):format(backup.key, options.into, result.files,
    progress.size(result.bytes), progress.duration(seconds)), { item = backup.item, key = backup.key })
  return {
    item = backup.item, key = backup.key, time = backup.time, state = backup.state, into = options.into,
    files = result.files, directories = result.directories, links = result.links, others = result.others,
    bytes = result.bytes, warnings = #(result.warnings or {}), seconds = seconds, path = result.path,
  }
end

return restore
