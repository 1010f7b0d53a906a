-- SPDX-License-Identifier: MIT
-- `lunark verify --restore`: restores a backup into a scratch folder, compares what is there with the index,
-- and removes it. Needs write for the folder, lunark.store objects.

local check = require "lunark.core.check"
local exit = require "lunark.exit"
local fetch = require "lunark.fetch"
local file = require "lunark.file"
local fs = require "lunark.fs"
local index = require "lunark.verify_index"
local lock = require "lunark.lock"
local log = require "lunark.log"
local progress = require "lunark.progress"
local restore = require "lunark.restore"
local sys = require "lunark.core.sys"
local task = require "lunark.task"

local drill = {}

local NAME = "^lunark%-%x+$" -- names of scratch folders, as those of backups
local WIDTH = 4 -- blocks whose files are compared at once

-- Folders that can't be entered as they were restored.
local function open_up(path)
  local info = fs.lstat(path)
  if info and info.type == "directory" then
    fs.chmod(path, tonumber("700", 8))
    for _, name in ipairs(fs.readdir(path) or {}) do
      open_up(path .. "/" .. name)
    end
  end
end

local function remove(path)
  local ok, err = fs.remove_all(path)
  if not ok then
    open_up(path)
    ok, err = fs.remove_all(path)
  end
  if not ok then
    log.warn(("%s could not be removed: %s"):format(path, err.message))
  end
end

---@class lunark.verify.Scratch
---@field path string

--- A scratch folder, removed with all that is in it when it is closed. What killed runs have left beside it
--- is removed first.
---@param base string the folder that it is made in
---@param run string the run's name
---@return lunark.verify.Scratch|nil to-be-closed
---@return table|nil err
function drill.scratch(base, run)
  local path = fs.join(fs.absolute(base), "lunark-" .. run)
  local ok, err = fs.mkdir(path, tonumber("700", 8))
  if not ok then
    return nil, err
  end
  local held = lock.take(path)
  for _, left in ipairs(lock.sweep(fs.dirname(path), NAME)) do
    log.info(("%s was left by a run that did not end well and is removed"):format(left))
  end
  return setmetatable({ path = path }, {
    __close = function()
      if held then
        held:close()
      end
      remove(path)
    end,
  })
end

-- An error when there is no room for what is to be restored.
local function check_space(result, path)
  local free = file.free_bytes(path)
  local needed = result.record and result.record.raw_size or result.footer and result.footer.bytes
  if free and needed and free < needed then
    return nil, sys.error {
      kind = "io", hint = "name another folder with --work-dir",
      message = ("%s are free in %s, restoring %s needs %s"):format(progress.size(free), path, result.key,
        progress.size(needed)),
    }
  end
  return true
end

-- Compares the files with all blocks of the index.
local function compare(result, into)
  local counts = { entries = 0, files = 0, unchecked = 0 }
  local group <close> = task.group(WIDTH)
  for ref, err in index.blocks(result.source, result.footer) do
    if not ref then
      return nil, err
    end
    local started = group:spawn(function()
      local found = assert(check.compare(into, assert(index.block(result.source, ref))))
      for name in pairs(counts) do
        counts[name] = counts[name] + found[name]
      end
      for _, finding in ipairs(found.findings) do
        result:damage("restore", finding.message, nil, nil, finding.path)
      end
    end)
    if not started then
      break
    end
  end
  local ok, err = group:wait()
  if not ok then
    return nil, err
  end
  return counts
end

-- A program's output is one file.
local function compare_file(result, path)
  local info = fs.lstat(path)
  local size = result.footer and result.footer.bytes
  if not info or size and info.size ~= size then
    result:damage("restore", ("it has %s bytes after its restore, %s expected"):format(
      info and info.size or "no", size or "some"))
  end
  return { entries = 1, files = 1, unchecked = 0 }
end

-- Without an index: with a second reading of the tar. It may have a path twice, of which the last counts, so
-- what differs is no more than a warning.
local function compare_tar(store, result, into)
  local reader, err = fetch.open(store, result.key, { size = result.size })
  if not reader then
    return nil, err
  end
  local _ <close> = reader
  local found
  found, err = check.tar(reader.stream, into)
  for _, finding in ipairs(found and found.findings or {}) do
    result:warn("restore", finding.message, finding.path)
  end
  return found and { entries = found.entries, files = found.files, unchecked = found.unchecked }, err
end

-- What the network did is told from what happened here.
local function judge(result, err)
  if err.kind == "corrupt" then
    result:damage("restore", err.message)
    return true
  end
  if err.kind == "network" or err.kind == "auth" or err.kind == "throttled" then
    err.exit = nil
  end
  return nil, err
end

--- Restores a backup, compares it and removes it.
---@param store table lunark.store
---@param result lunark.verify.Result
---@param backup table lunark.list.Backup
---@param options table {scratch = lunark.verify.Scratch, progress=, limit_rate=}
---@return true|nil
---@return table|nil err
function drill.run(store, result, backup, options)
  local into = options.scratch.path .. "/restored"
  local ok, err = check_space(result, options.scratch.path)
  if ok then
    ok, err = fs.mkdir(into, tonumber("700", 8))
  end
  if not ok then
    return nil, exit.with(err, exit.FAILED)
  end
  local _ <close> = task.finally(function() remove(into) end)
  local expected = result.record or { sha256 = result.expected_sha256 }
  local restored
  restored, err = restore.read(store, backup, expected, {
    into = into, overwrite = true, progress = options.progress, limit_rate = options.limit_rate,
  })
  if not restored then
    return judge(result, err)
  end
  local counts
  if restored.path then
    counts = compare_file(result, restored.path)
  elseif result.footer and result.index_whole then
    counts, err = compare(result, into)
  else
    counts, err = compare_tar(store, result, into)
  end
  if not counts then
    return judge(result, err)
  end
  result.restored = counts
  result:did "restore"
  return true
end

return drill
