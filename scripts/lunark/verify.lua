-- SPDX-License-Identifier: MIT
-- Verifies backups: what the store reports and the index say against the manifest. Only reads.
-- Needs lunark.store objects.

local data = require "lunark.verify_data"
local exit = require "lunark.exit"
local index = require "lunark.verify_index"
local list = require "lunark.list"
local manifest = require "lunark.manifest"
local naming = require "lunark.naming"
local restore = require "lunark.restore"
local drill = require "lunark.verify_restore"
local sys = require "lunark.core.sys"

local verify = {}

---@class lunark.verify.Finding
---@field what string "manifest", "object", "index", "data", "latest" or "restore"
---@field message string
---@field warning boolean|nil it is no damage
---@field path string|nil the file in the archive
---@field first integer|nil bytes of the object, inclusive
---@field last integer|nil

---@class lunark.verify.Result
---@field item string
---@field key string of the data object
---@field time integer|nil
---@field state string "ok", "damaged", "missing", "incomplete", "unverified", or "failed" with `err`
---@field size integer|nil
---@field checked string[] what was looked at: "manifest", "size", "index", "data", ...
---@field findings lunark.verify.Finding[]
---@field err table|nil why it could not be looked at
local Result = {}
Result.__index = Result

--- Notes damage.
function Result:damage(what, message, first, last, path)
  self.state = self.state == "missing" and "missing" or "damaged"
  self.findings[#self.findings + 1] = { what = what, message = message, first = first, last = last,
    path = path }
end

--- Notes what is no damage, and should be known.
function Result:warn(what, message, path)
  self.findings[#self.findings + 1] = { what = what, message = message, warning = true, path = path }
end

--- Notes what was looked at.
function Result:did(what)
  self.checked[#self.checked + 1] = what
end

local function new_result(backup)
  return setmetatable({
    item = backup.item, key = backup.key, time = backup.time, size = backup.size, state = "ok", checked = {},
    findings = {}, latest = backup.latest,
  }, Result)
end

-- --- the manifest ---

-- What an object must be by its manifest. nil where there is none that can be believed; false and an error
-- where the store can't be asked.
local function read_manifest(store, result, key)
  local record, err = manifest.fetch(store, key)
  if record then
    result:did "manifest"
    return record
  elseif err.kind == "corrupt" then
    result:damage("manifest", err.message)
  elseif err.kind == "usage" then
    result.state = "unverified"
    result:warn("manifest", ("%s; %s"):format(err.message, err.hint or "it can't be read"))
  elseif err.kind == "not_found" then
    result.state = "incomplete"
    result:warn("manifest", ("%s has no manifest any more"):format(result.key))
  else
    return false, err
  end
  return nil
end

-- Whether a manifest speaks of this object.
local function compare_names(result, record)
  if record.key ~= result.key and not result.by_key then
    result:damage("manifest", ("it speaks of %s, not of %s"):format(manifest.shown(record.key), result.key))
  elseif record.item ~= result.item then
    result:damage("manifest", ("it speaks of item %s"):format(manifest.shown(tostring(record.item))))
  end
end

-- --- the object ---

local function compare_object(result, record, info)
  if info.size ~= record.size then
    result:damage("object", ("%s has %d bytes in the store, %d by its manifest"):format(result.key, info.size
      or 0,
      record.size))
  end
  local digest = (info.meta or {})["lunark-sha256"]
  if digest and digest ~= record.sha256 then
    result:damage("object", ("%s is marked with SHA-256 %s, its manifest says %s"):format(result.key, digest,
      record.sha256))
  end
  result:did "size"
end

-- What the manifest and the footer both count.
local function compare_counts(result, record, footer)
  local counts = type(record.archive) == "table" and record.archive or {}
  local entries = 0
  for _, name in ipairs { "files", "directories", "links", "others" } do
    entries = entries + (math.tointeger(counts[name]) or 0)
  end
  local pairs_of = {
    { counts.members, footer.members, "members" },
    { counts.members and entries, footer.records, "entries" },
  }
  for _, pair in ipairs(pairs_of) do
    if pair[1] and pair[1] ~= pair[2] then
      result:damage("index", ("the manifest counts %s %s, the index %d"):format(tostring(pair[1]), pair[3],
        pair[2]))
    end
  end
end

-- Footer, list and blocks. Sets result.footer where the archive has an index that can be read.
local function check_index(store, result, record)
  if not store:can("range") then
    result:warn("index", ("%s can't read a part of an object: the index is not looked at")
      :format(store:describe()))
    return true
  end
  local source = index.source(store, result.key, result.size)
  local footer, err = index.footer(source)
  if footer then
    result.footer, result.source = footer, source
    local damaged = #result.findings
    local counts
    counts, err = index.check(source, footer, function(message, first, last)
      result:damage("index", message, first, last)
    end)
    if counts and #result.findings == damaged and record then
      compare_counts(result, record, footer)
    end
    result.index_whole = counts and #result.findings == damaged
    result:did "index"
    return counts and true, err
  elseif err.kind == "corrupt" then
    result:damage("index", err.message, math.max(0, result.size - 94), result.size - 1)
  elseif err.kind ~= "not_found" then
    return nil, err
  end
  local ours
  local none = err.kind == "not_found"
  ours, err = index.begins(source)
  if ours and none and record then
    result:damage("index", "the archive has no index at its end: it is cut off, or its footer is damaged")
  end
  result.members = ours
  return ours ~= nil, err
end

-- The object that a backup or `latest` is: what the store reports of it.
local function look_at(store, result)
  local info, err = store:head(result.key)
  if info then
    result.size = info.size or result.size
    return info
  elseif err.kind == "not_found" then
    result.state = "missing"
    result:damage("object", ("%s is not in the store"):format(result.key))
    return nil
  end
  return nil, err
end

-- --- kinds of backups ---

local function check_backup(store, result, backup)
  local record, err
  if backup.manifest then
    record, err = read_manifest(store, result, backup.manifest)
    if record == false then
      return nil, err
    end
  elseif backup.state == "incomplete" then
    result.state = "incomplete"
    result:warn("manifest",
      ("%s was written by lunark and has no manifest: it is not whole, or still being written")
      :format(result.key))
  else
    result.state = "unverified"
    result:warn("manifest", ("%s has no manifest: it is of another tool, there is nothing to compare with")
      :format(result.key))
  end
  local info
  info, err = look_at(store, result)
  if not info then
    return err == nil and true, err
  end
  if record then
    compare_names(result, record)
    compare_object(result, record, info)
  end
  result.record = record
  result.expected_sha256 = record and record.sha256 or (info.meta or {})["lunark-sha256"]
  return check_index(store, result, record)
end

-- `latest` is compared with the backup that it says it stands for.
local function check_latest(store, result)
  local info, err = look_at(store, result)
  if not info then
    return err == nil and true, err
  end
  local meta = info.meta or {}
  local key = meta["lunark-key"] and naming.from_meta(meta["lunark-key"])
  local parsed = key and naming.parse_key(key)
  result.expected_sha256 = meta["lunark-sha256"]
  if not key then
    result.state = "unverified"
    result:warn("latest", ("%s does not say which backup it stands for: "
      .. "it is of another tool, or was changed"):format(result.key))
    return true
  elseif not parsed or parsed.kind ~= "data" or parsed.item ~= result.item or not result.expected_sha256 then
    result:damage("latest", ("%s says that it stands for %s, a backup of %s and its SHA-256 expected")
      :format(result.key, key, result.item))
    return true
  end
  result.stands_for, result.time = key, parsed.time
  local other = result.by_key and key:match("[^/]*$") or key
  local at = other:sub(1, #other - #parsed.suffix) .. ".manifest.json"
  local record
  record, err = manifest.fetch(store, at)
  if record then
    compare_object(result, record, info)
    result:did "latest"
    result.record = record
  elseif err.kind == "not_found" then
    result:warn("latest", ("%s stands for %s, which is not there any more"):format(result.key, key))
  elseif err.kind == "corrupt" or err.kind == "usage" then
    result:warn("latest", ("%s stands for %s: %s"):format(result.key, key, err.message))
  else
    return nil, err
  end
  return true
end

-- A manifest whose data object is not there.
local function missing(store, lone)
  local record, err = manifest.fetch(store, lone.manifest)
  local result = new_result { item = lone.item, time = lone.time, key = record and record.key
    or lone.manifest }
  if record then
    result.state = "missing"
    result:damage("object", ("%s is not in the store, its manifest is"):format(record.key))
  elseif err.kind == "corrupt" or err.kind == "usage" then
    result.state = "missing"
    result:damage("manifest", ("%s has no data object, and can't be read: %s"):format(lone.manifest,
      err.message))
  elseif err.kind ~= "not_found" then
    result.state, result.err = "failed", err
  end
  return result
end

-- Whether an object is one whose data is to be read.
local function has_data(result, backup)
  return result.state ~= "missing" and (not backup.latest or backup.deep)
end

---@class lunark.verify.Options
---@field data string|number|nil "all", or percent of it: what is read
---@field seed integer|nil of the sample
---@field scratch lunark.verify.Scratch|nil where it is restored
---@field progress table|nil lunark.progress
---@field limit_rate integer|nil bytes a second

--- Verifies one backup, or `latest`.
---@param store table lunark.store
---@param backup table lunark.list.Backup, or with latest = true
---@param options lunark.verify.Options|nil
---@return lunark.verify.Result
function verify.backup(store, backup, options)
  options = options or {}
  local result = new_result(backup)
  result.by_key = store.key ~= nil
  local ok, err
  if backup.latest then
    ok, err = check_latest(store, result)
    if ok and backup.deep and result.state ~= "missing" then
      ok, err = check_index(store, result, result.record)
    end
  elseif backup.key then
    ok, err = check_backup(store, result, backup)
  else
    return missing(store, backup)
  end
  if ok and options.data and has_data(result, backup) then
    if options.data == "all" then
      ok, err = data.all(store, result, options)
    else
      ok, err = data.sample(store, result, options.data, options)
    end
  end
  if ok and options.scratch and has_data(result, backup) then
    ok, err = drill.run(store, result, backup, options)
  end
  if not ok then
    result.state, result.err = "failed", err.exit and err or exit.unreachable(err)
  end
  return result
end

-- --- which ones ---

local function by_item_and_age(a, b)
  if a.item ~= b.item then
    return a.item < b.item
  elseif (a.time or math.huge) ~= (b.time or math.huge) then
    return (a.time or math.huge) > (b.time or math.huge)
  end
  return (a.key or a.manifest) < (b.key or b.manifest)
end

-- The newest of each item that counts as a backup, of those that count as none all.
local function wanted(backup, seen, options)
  if options.at then
    return backup.time == options.at
  elseif options.all or backup.state == "incomplete" then
    return true
  elseif seen[backup.item] then
    return false
  end
  seen[backup.item] = true
  return true
end

local function select(backups, others, options)
  local chosen, seen = {}, {}
  for _, backup in ipairs(backups) do
    if wanted(backup, seen, options) then
      chosen[#chosen + 1] = backup
    end
  end
  for _, lone in ipairs(others.manifests) do
    if not options.at or lone.time == options.at then
      chosen[#chosen + 1] = lone
    end
  end
  for _, latest in ipairs(options.at and {} or others.latest) do
    chosen[#chosen + 1] = { latest = true, item = latest.item, key = latest.key, size = latest.size }
  end
  table.sort(chosen, by_item_and_age)
  return chosen
end

-- The one object that the URL names.
local function one_object(store)
  local found, err = restore.find(store)
  if not found then
    return nil, exit.unreachable(err)
  end
  local parsed = naming.parse_file(store.key)
  found.latest = parsed and parsed.kind == "latest" or nil
  found.deep = true
  return { found }
end

--- What is to be verified.
---@param store table lunark.store; its `key` names one object
---@param options table {item=, at = seconds since 1970 or "latest", all=}
---@return table[]|nil
---@return table|nil err
function verify.find(store, options)
  if store.key then
    return one_object(store)
  end
  local backups, others = list.scan(store, options.item)
  if not backups then
    return nil, others
  end
  local chosen
  if options.at == "latest" then
    chosen = {}
    for _, latest in ipairs(others.latest) do
      latest.latest, latest.deep = true, true
      chosen[#chosen + 1] = latest
    end
  else
    chosen = select(backups, others, options)
  end
  if #chosen == 0 then
    local of = options.item and (" of '%s'"):format(options.item) or ""
    local at = math.type(options.at) and " of " .. naming.format_time(options.at) or options.at
      and " as latest" or ""
    return nil, sys.error {
      kind = "not_found", hint = "lunark list shows what is there",
      message = ("%s: there is no backup%s%s"):format(store:describe(), of, at),
    }
  end
  return chosen
end

return verify
