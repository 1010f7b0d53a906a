-- SPDX-License-Identifier: MIT
-- Thinning out: what retention does to the backups of a store. A plan is made of what is listed and of the
-- manifests; before anything is deleted it is made again, and only what both want to delete goes. The
-- manifest of a backup goes first: what is interrupted leaves an incomplete object, none that looks good.
-- Needs lunark.store objects.

local exit = require "lunark.exit"
local log = require "lunark.log"
local manifest = require "lunark.manifest"
local naming = require "lunark.naming"
local retention = require "lunark.retention"
local sys = require "lunark.core.sys"
local task = require "lunark.task"

local prune = {}

local WIDTH = 32 -- manifests read at once
local BATCH = 500 -- backups at once: their archives and reports are one request
local AHEAD = 600 -- seconds that a time may be ahead: keys that were taken, clocks of other hosts
prune.LOCKED = "%d old backups are locked by the store: they go with a later run, when their time has passed"
local SAID = 10 -- errors of one kind that are said one by one

---@class lunark.prune.Found an archive and what belongs to it
---@field item string
---@field time integer
---@field key string
---@field suffix string
---@field size integer|nil
---@field mtime number|nil
---@field version string|nil what tells it from another one with its key; nil where the store says nothing
---@field manifest string|boolean the version of its manifest, true where that is not known, false without one
---@field report string|nil key
---@field shared boolean another archive has the same name and time
---@field state string "good"; "adopted" by its name alone; "left": not counted and not touched
---@field why string|nil of what is left
---@field adopted boolean|nil

---@class lunark.prune.Line of a plan
---@field backup lunark.prune.Found
---@field action string "keep", "delete", "leave", or "gone"
---@field reasons string[]
---@field deleted boolean|nil
---@field err table|nil why it is not

---@class lunark.prune.Plan
---@field store table
---@field request table
---@field lines lunark.prune.Line[] by item, newest first
---@field known table<string, lunark.prune.Found> what was found out, by key

--- What tells an object from another one with its key; nil where the store does not say.
---@param info table lunark.store.Info
---@return string|nil
function prune.version_of(info)
  local mark = info.etag or info.mtime
  return mark and ("%s %s"):format(mark, info.size) or nil
end

-- A key without its suffix: what archive, manifest and report of a backup begin with.
local function stem_of(key, suffix)
  return key:sub(1, #key - #suffix)
end

local function manifest_key(found)
  return stem_of(found.key, found.suffix) .. naming.MANIFEST
end

-- Reads the names below a prefix: archives, and by their stems how many there are and what is beside them.
local function read_names(store, prefix)
  local data, stems = {}, {}
  for info, err in store:list(prefix) do
    if not info then
      return nil, exit.unreachable(err)
    end
    local key = naming.parse_key(info.key)
    if key and key.time then
      local stem = stem_of(info.key, key.suffix)
      local beside = stems[stem] or { archives = 0, manifest = false }
      stems[stem] = beside
      if key.kind == "data" then
        beside.archives = beside.archives + 1
        data[#data + 1] = {
          item = key.item, time = key.time, key = info.key, suffix = key.suffix, size = info.size,
          mtime = info.mtime, version = prune.version_of(info),
        }
      elseif key.kind == "manifest" then
        beside.manifest = prune.version_of(info) or true
      else
        beside.report = info
      end
    end
  end
  return data, stems
end

--- The archives below a prefix, with what is beside them.
---@param store table lunark.store
---@param item string|nil only this one
---@return lunark.prune.Found[]|nil
---@return table list of lunark.store.Info: reports that have neither archive nor manifest; or err
function prune.list(store, item)
  local data, stems = read_names(store, item and item .. "/" or "")
  if not data then
    return nil, stems
  end
  for _, found in ipairs(data) do
    local beside = stems[stem_of(found.key, found.suffix)]
    found.manifest, found.shared = beside.manifest, beside.archives > 1
    found.report = beside.report and beside.report.key
  end
  local lost = {}
  for _, beside in pairs(stems) do
    if beside.report and beside.archives == 0 and not beside.manifest then
      lost[#lost + 1] = beside.report
    end
  end
  return data, lost
end

--- True when an object has our mark.
---@param store table
---@param key string
---@return boolean|nil nil when that can't be known
---@return table|nil err not_found when it is gone
function prune.is_marked(store, key)
  local info, err = store:head(key)
  if not info then
    return nil, err
  end
  return (info.meta or {})["lunark-version"] ~= nil
end

-- What the manifest says of an archive. A state and why, or nil, err when the store can't be asked.
local function state_of(store, found)
  local said, err = manifest.fetch(store, manifest_key(found))
  if said and said.key ~= found.key then
    return "left", "its manifest is another archive's"
  elseif said and said.size ~= found.size then
    return "left", ("it has %s bytes, its manifest says %d"):format(found.size or "unknown", said.size)
  elseif said then
    return "good"
  elseif err.kind == "corrupt" then
    return "left", "its manifest can't be read"
  elseif err.kind == "usage" then
    return "left", "its manifest is of a newer lunark"
  elseif err.kind == "not_found" then
    return "left", "it has no manifest"
  elseif not err.archived then
    return nil, err
  end
  -- A manifest in an archive class can't be read; the mark of the archive can.
  local marked, why = prune.is_marked(store, found.key)
  if marked == nil then
    return nil, why
  end
  return marked and "good" or "left", not marked and err.message or nil
end

-- The same without a manifest.
local function state_by_name(store, found)
  local marked, err = prune.is_marked(store, found.key)
  if marked then
    return "left", "it is incomplete: it has no manifest"
  elseif marked == nil and err.kind ~= "not_found" then
    return nil, err
  end
  return marked == false and "adopted" or "left", marked == nil and "it is gone" or nil
end

local function judge(store, found, adopt, known)
  local before = known[found.key]
  local same = before and found.version and before.version == found.version
    and before.manifest == found.manifest and found.manifest ~= true
  if same then
    found.state, found.why = before.state, before.why
    return true
  end
  local state, why
  if found.manifest then
    state, why = state_of(store, found)
  elseif adopt then
    state, why = state_by_name(store, found)
  else
    state, why = "left", "it has no manifest"
  end
  if not state then
    return nil, why
  end
  found.state, found.why = state, why
  return true
end

-- The lines of all series: what is stored of an item under one suffix, as `latest` is.
local function lines_of(data, request, now)
  local series, lines = {}, {}
  for _, found in ipairs(data) do
    if found.state == "left" then
      lines[#lines + 1] = { backup = found, action = "leave", reasons = { found.why } }
    else
      local name = found.item .. "\0" .. found.suffix
      series[name] = series[name] or {}
      found.adopted = found.state == "adopted" or nil
      table.insert(series[name], found)
    end
  end
  for _, backups in pairs(series) do
    for _, line in ipairs(retention.plan(backups, request.rules, now)) do
      line.action = line.keep and "keep" or "delete"
      lines[#lines + 1] = line
    end
  end
  table.sort(lines, function(a, b)
    if a.backup.item ~= b.backup.item then
      return a.backup.item < b.backup.item
    end
    return retention.by_age(a.backup, b.backup)
  end)
  return lines
end

--- What is to be kept and what goes.
---@param store table lunark.store
---@param request table {rules = lunark.retention.Rules, item = only this one, suffix = only this one of it,
--- adopt = archives without a mark count by their names, now = seconds since 1970}
---@param known table|nil of an earlier plan: what did not change is not read again
---@return lunark.prune.Plan|nil
---@return table|nil err
function prune.plan(store, request, known)
  local data, err = prune.list(store, request.item)
  if not data then
    return nil, err
  end
  local wanted = {}
  for _, found in ipairs(data) do
    if not request.suffix or found.suffix == request.suffix then
      wanted[#wanted + 1] = found
    end
  end
  known = known or {}
  local failed
  task.map(wanted, WIDTH, function(found)
    local ok, why = true, nil
    if not failed then
      ok, why = judge(store, found, request.adopt, known)
    end
    failed = failed or (not ok and why) or nil
    return true
  end)
  if failed then
    return nil, exit.unreachable(failed)
  end
  for _, found in ipairs(wanted) do
    known[found.key] = found
  end
  local lines = lines_of(wanted, request, (request.now or sys.clock()) + AHEAD)
  return { store = store, request = request, lines = lines, known = known }
end

--- How many lines of a plan have an action.
---@param plan lunark.prune.Plan
---@param action string
---@return integer count
---@return integer bytes
function prune.count(plan, action)
  local count, bytes = 0, 0
  for _, line in ipairs(plan.lines) do
    if line.action == action then
      count, bytes = count + 1, bytes + ((line.backup or line).size or 0)
    end
  end
  return count, bytes
end

---@class lunark.prune.Outcome
---@field deleted integer backups
---@field bytes integer of theirs
---@field failures table list of errors
---@field locked integer backups that the store does not let go yet
---@field versions boolean|nil the store keeps what was deleted as old versions

--- Deletes keys.
---@param store table
---@param keys string[]
---@param outcome lunark.prune.Outcome gets `versions`
---@return table<string, table>|nil errors by key
---@return table|nil err when nothing is known of any
function prune.delete(store, keys, outcome)
  if #keys == 0 then
    return {}
  end
  local ok, more = store:delete(keys)
  if ok then
    outcome.versions = outcome.versions or more.versions
    return {}
  end
  outcome.versions = outcome.versions or more.versions
  if more.errors or #keys == 1 then
    return more.errors or { [keys[1]] = more }
  end
  return nil, more
end

-- The keys that go with an archive; a report stays with another archive of its name and time.
local function keys_of(found)
  local keys = { found.key }
  if found.report and not found.shared then
    keys[2] = found.report
  end
  return keys
end

local function incomplete(err, found)
  local told = sys.error {
    kind = err.kind, op = err.op, status = err.status, cause = err,
    message = ("%s (its manifest is deleted already)"):format(err.message),
    hint = ("%s is incomplete now: lunark prune --orphans removes it"):format(found.key),
  }
  told.locked = err.locked
  return told
end

-- What became of one backup, by the errors of its manifest, archive and report.
local function settle(line, errors, outcome)
  local found = line.backup
  local keys = keys_of(found)
  local err = errors[found.key]
  if err then
    line.err = found.manifest and incomplete(err, found) or err
  else
    line.deleted = true
    outcome.deleted, outcome.bytes = outcome.deleted + 1, outcome.bytes + (found.size or 0)
    line.err = errors[keys[2] or ""]
  end
end

-- Deletes some backups: manifests, then the archives whose manifests are gone. nil, err when the store can't
-- be asked any more.
local function delete_batch(store, batch, outcome)
  local manifests, keys, going = {}, {}, {}
  for _, line in ipairs(batch) do
    manifests[#manifests + 1] = line.backup.manifest and manifest_key(line.backup) or nil
  end
  local errors, err = prune.delete(store, manifests, outcome)
  if not errors then
    return nil, err
  end
  for _, line in ipairs(batch) do
    local own = line.backup.manifest and errors[manifest_key(line.backup)]
    line.err = own
    if not own then
      going[#going + 1] = line
      table.move(keys_of(line.backup), 1, 2, #keys + 1, keys)
    end
  end
  errors, err = prune.delete(store, keys, outcome)
  if not errors then
    return nil, err
  end
  for _, line in ipairs(going) do
    settle(line, errors, outcome)
  end
  return true
end

--- Takes the errors of lines into an outcome, so many that a person reads them; what is locked is no failure.
---@param lines table[] with `err`
---@param outcome lunark.prune.Outcome
function prune.tell_errors(lines, outcome)
  local count = 0
  for _, line in ipairs(lines) do
    local err = line.err
    if err then
      err.item = line.backup and line.backup.item
      if err.locked then
        outcome.locked = outcome.locked + 1
      else
        count = count + 1
        outcome.failures[#outcome.failures + 1] = count <= SAID and err or nil
      end
    end
  end
  if count > SAID then
    table.insert(outcome.failures, sys.error {
      kind = outcome.failures[1].kind, op = "prune", cause = outcome.failures[1],
      message = ("%d more could not be deleted"):format(count - SAID),
    })
  end
end

-- Compares a listing with what a plan was made of, without keeping it: true when all is as it was.
local function is_unchanged(plan)
  local by_stem, missing = {}, 0
  for key, found in pairs(plan.known) do
    by_stem[stem_of(key, found.suffix)] = found
    missing = missing + 1 + (found.manifest and 1 or 0) + (found.report and 1 or 0)
  end
  local request, changed = plan.request, false
  for info, err in plan.store:list(request.item and request.item .. "/" or "") do
    if not info then
      return nil, exit.unreachable(err)
    end
    local key = naming.parse_key(info.key)
    local found = key and key.time and by_stem[stem_of(info.key, key.suffix)]
    local version, before = prune.version_of(info), nil
    if found and key.kind == "data" then
      before = found.key == info.key and found.version
    elseif found and key.kind == "manifest" then
      before = found.manifest
    elseif found then
      version, before = info.key, found.report
    end
    missing = missing - (found and 1 or 0)
    local wanted = key and key.kind == "data" and (not request.suffix or request.suffix == key.suffix)
    changed = changed or found and (not version or before ~= version) or not found and wanted
  end
  return not changed and missing == 0
end

-- What a plan deletes and what is to be deleted now, too, oldest first.
local function confirmed(plan, lines)
  local now, out = {}, {}
  for _, line in ipairs(lines) do
    now[line.backup.key] = line
  end
  for i = #plan.lines, 1, -1 do
    local line = plan.lines[i]
    local again = line.action == "delete" and now[line.backup.key]
    if line.action == "delete" and not again then
      line.action, line.reasons = "gone", { "it is gone already" }
    elseif again and (again.action ~= "delete" or again.backup.version ~= line.backup.version) then
      line.action, line.reasons = "keep", again.action == "keep" and again.reasons or { "it has changed" }
      log.info(("%s stays: what is stored has changed since the plan was made"):format(line.backup.key))
    elseif again then
      line.backup = again.backup
      out[#out + 1] = line
    end
  end
  return out
end

--- Does what a plan says, as far as it still holds. Lines get `deleted` and `err`.
---@param plan lunark.prune.Plan
---@return lunark.prune.Outcome|nil
---@return table|nil err when the store can't be asked
function prune.apply(plan)
  local outcome = { deleted = 0, bytes = 0, failures = {}, locked = 0 }
  if prune.count(plan, "delete") == 0 then
    return outcome
  end
  local same, err = is_unchanged(plan)
  local fresh = same and plan
  if same == false then
    fresh, err = prune.plan(plan.store, plan.request, plan.known)
  end
  if not fresh then
    return nil, err
  end
  local going = confirmed(plan, fresh.lines)
  for first = 1, #going, BATCH do
    local batch = table.move(going, first, math.min(first + BATCH - 1, #going), 1, {})
    local ok, why = delete_batch(plan.store, batch, outcome)
    if not ok then
      outcome.failures[1] = why
      break
    end
  end
  prune.tell_errors(going, outcome)
  return outcome
end

-- Says what became of thinning out an item after a backup of it.
local function tell(outcome, request, key, job)
  for _, err in ipairs(outcome.failures) do
    local failed = sys.error {
      kind = err.kind, op = "prune", status = err.status, cause = err, hint = err.hint,
      message = ("stored as %s, an older backup is not deleted: %s"):format(key, err.message),
    }
    job:failed(request.item, exit.with(failed, exit.FAILED))
  end
  if outcome.locked > 0 then
    job:warn(prune.LOCKED:format(outcome.locked), { item = request.item })
  end
  if outcome.deleted > 0 then
    log.info(("%d older backups deleted"):format(outcome.deleted),
      { item = request.item, versions = outcome.versions })
  end
end

--- Thins out the item that a job has just stored, and says so in the job.
---@param store table lunark.store
---@param request table as for prune.plan
---@param key string of the backup that is stored
---@param job table lunark.Job
---@return lunark.prune.Outcome|nil
function prune.after(store, request, key, job)
  local plan, err = prune.plan(store, request)
  local outcome
  if plan then
    outcome, err = prune.apply(plan)
  end
  if not outcome then
    outcome = { deleted = 0, bytes = 0, locked = 0, failures = { err } }
  end
  tell(outcome, request, key, job)
  return outcome
end

return prune
