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
local SAID = 10 -- errors of one kind that are said one by one

---@class lunark.prune.Found an archive and what belongs to it
---@field item string
---@field time integer
---@field stem string key without suffix
---@field key string
---@field suffix string
---@field size integer|nil
---@field version string|nil what tells it from another one with its key; nil where the store says nothing
---@field manifest table|nil lunark.store.Info
---@field report table|nil lunark.store.Info
---@field state string "good"; "adopted" by its name alone; "left": not counted and not touched
---@field why string|nil of what is left
---@field adopted boolean|nil

---@class lunark.prune.Line of a plan
---@field found lunark.prune.Found
---@field action string "keep", "delete" or "leave"
---@field reasons string[]
---@field deleted boolean|nil
---@field err table|nil why it is not

---@class lunark.prune.Plan
---@field store table
---@field request table
---@field lines lunark.prune.Line[] by item, newest first
---@field known table what manifests said, by key

-- What tells an object from another one with its key.
local function version_of(info)
  local mark = info.etag or info.mtime
  return mark and ("%s %s"):format(mark, info.size) or nil
end

--- The archives below a prefix, with their manifests and reports.
---@param store table lunark.store
---@param item string|nil only this one
---@return lunark.prune.Found[]|nil
---@return table|nil err
---@return table|nil reports that have neither archive nor manifest: list of lunark.store.Info
function prune.list(store, item)
  local data, stems = {}, {}
  for info, err in store:list(item and item .. "/" or "") do
    if not info then
      return nil, exit.unreachable(err)
    end
    local key = naming.parse_key(info.key)
    if key and key.time then
      local stem = info.key:sub(1, #info.key - #key.suffix)
      local beside = stems[stem] or { archives = 0 }
      stems[stem] = beside
      if key.kind == "data" then
        beside.archives = beside.archives + 1
        data[#data + 1] = {
          item = key.item, time = key.time, stem = stem, key = info.key, suffix = key.suffix,
          size = info.size, mtime = info.mtime, version = version_of(info),
        }
      else
        beside[key.kind] = info
      end
    end
  end
  for _, found in ipairs(data) do
    local beside = stems[found.stem]
    found.manifest, found.report, found.shared = beside.manifest, beside.report, beside.archives > 1
  end
  local lost = {}
  for _, beside in pairs(stems) do
    if beside.report and beside.archives == 0 and not beside.manifest then
      lost[#lost + 1] = beside.report
    end
  end
  return data, nil, lost
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
  local said, err = manifest.fetch(store, found.manifest.key)
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
  elseif err.kind ~= "io" then
    return nil, err
  end
  -- Manifests in an archive class can't be read; the mark of the object can.
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
  local versions = found.version and found.manifest and version_of(found.manifest)
  local before = known[found.key]
  if versions then
    versions = found.version .. "\n" .. versions
  end
  if before and before.versions == versions then
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
  if versions then
    known[found.key] = { versions = versions, state = state, why = why }
  end
  return true
end

-- The lines of all series: what is stored of an item under one suffix, as `latest` is.
local function lines_of(data, request, now)
  local series, order, lines = {}, {}, {}
  for _, found in ipairs(data) do
    if found.state == "left" then
      lines[#lines + 1] = { found = found, action = "leave", reasons = { found.why } }
    else
      local name = found.item .. "\0" .. found.suffix
      if not series[name] then
        series[name] = {}
        order[#order + 1] = name
      end
      found.adopted = found.state == "adopted" or nil
      table.insert(series[name], found)
    end
  end
  for _, name in ipairs(order) do
    for _, verdict in ipairs(retention.plan(series[name], request.rules, now)) do
      lines[#lines + 1] = {
        found = verdict.backup, action = verdict.keep and "keep" or "delete", reasons = verdict.reasons,
      }
    end
  end
  table.sort(lines, function(a, b)
    if a.found.item ~= b.found.item then
      return a.found.item < b.found.item
    end
    return retention.by_age(a.found, b.found)
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
  local lines = lines_of(wanted, request, request.now or sys.clock())
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
      count, bytes = count + 1, bytes + (line.found.size or 0)
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

-- Deletes keys. Errors by key; nil, err when nothing is known of any.
local function delete(store, keys, outcome)
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
    keys[2] = found.report.key
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
local function settle(line, errors, had_manifest, outcome)
  local found = line.found
  local keys = keys_of(found)
  local err = errors[found.key]
  if err then
    line.err = had_manifest and incomplete(err, found) or err
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
    manifests[#manifests + 1] = line.found.manifest and line.found.manifest.key or nil
  end
  local errors, err = delete(store, manifests, outcome)
  if not errors then
    return nil, err
  end
  for _, line in ipairs(batch) do
    local own = line.found.manifest and errors[line.found.manifest.key]
    line.err = own
    if not own then
      going[#going + 1] = line
      table.move(keys_of(line.found), 1, 2, #keys + 1, keys)
    end
  end
  errors, err = delete(store, keys, outcome)
  if not errors then
    return nil, err
  end
  for _, line in ipairs(going) do
    settle(line, errors, line.found.manifest ~= nil, outcome)
  end
  return true
end

-- The errors of the lines, so many that a person reads them; what is locked is no failure.
local function tell_errors(lines, outcome)
  local count = 0
  for _, line in ipairs(lines) do
    local err = line.err
    if err then
      err.item = line.found.item
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
      message = ("%d more backups could not be deleted"):format(count - SAID),
    })
  end
end

-- What a plan deletes and a newer one, too, oldest first.
local function confirmed(plan, fresh)
  local now, out = {}, {}
  for _, line in ipairs(fresh.lines) do
    now[line.found.key] = line
  end
  for i = #plan.lines, 1, -1 do
    local line = plan.lines[i]
    local again = line.action == "delete" and now[line.found.key]
    if line.action == "delete" and not again then
      line.action, line.reasons = "gone", { "it is gone already" }
    elseif again and (again.action ~= "delete" or again.found.version ~= line.found.version) then
      line.action, line.reasons = "keep", again.action == "keep" and again.reasons or { "it has changed" }
      log.info(("%s stays: what is stored has changed since the plan was made"):format(line.found.key))
    elseif again then
      line.found = again.found
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
  local fresh, err = prune.plan(plan.store, plan.request, plan.known)
  if not fresh then
    return nil, err
  end
  local going = confirmed(plan, fresh)
  for first = 1, #going, BATCH do
    local batch = table.move(going, first, math.min(first + BATCH - 1, #going), 1, {})
    local ok, why = delete_batch(plan.store, batch, outcome)
    if not ok then
      outcome.failures[1] = why
      break
    end
  end
  tell_errors(going, outcome)
  return outcome
end

return prune
