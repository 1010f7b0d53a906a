-- SPDX-License-Identifier: MIT
-- What runs that did not end well have left in a store: uploads that were neither finished nor aborted,
-- archives without a manifest and reports without a backup that have our mark, and what else a store knows to
-- be left over. Nothing that is younger than a given age, and nothing that something was sent for since.
-- Needs lunark.store objects.

local exit = require "lunark.exit"
local log = require "lunark.log"
local naming = require "lunark.naming"
local prune = require "lunark.prune"
local task = require "lunark.task"

local orphans = {}

--- Seconds that something has to be old, where nothing else is said.
orphans.AGE = 86400
local WIDTH = 16
local YOUNG = "younger than --older-than"

---@class lunark.orphans.Line
---@field kind string "upload", "incomplete" or "report"
---@field key string
---@field size integer|nil
---@field time number|nil when it was last touched, as far as that is known
---@field action string "delete", "keep" or "leave"
---@field reasons string[]
---@field one table|nil of the store's uploads
---@field version string|nil
---@field report string|nil key of the report that goes with it
---@field deleted boolean|nil
---@field err table|nil

-- What was touched after this is young. By the store's clock, as far as it is known to be another one.
local function limit_of(store, request)
  return request.now + store.skew - (request.older or orphans.AGE)
end

-- The younger of two times that may not be known.
local function newest(one, other)
  return one and other and math.max(one, other) or one or other
end

local function decide(line, limit, reason)
  if not line.time then
    line.action, line.reasons = "leave", { "how old it is, the store does not tell" }
  elseif line.time > limit then
    line.action, line.reasons = "keep", { YOUNG }
  else
    line.action, line.reasons = "delete", { reason }
  end
end

-- An upload is as old as the last part that came. nil, err; false when it is gone.
local function look_at_upload(store, one, limit)
  local line = { kind = "upload", key = one.key, size = one.size, time = one.began, one = one }
  if not one.ours and not naming.parse_key(one.key) then
    line.action, line.reasons = "leave", { "its key is no backup's" }
    return line
  elseif not store:can_discard() then
    line.action, line.reasons = "leave", { store.features.uploads_note or "the store can't remove it" }
    return line
  elseif not one.began or one.began <= limit then
    local touched, err = store:upload_time(one)
    if touched == nil then
      return err.kind == "not_found" and false or nil, err
    end
    line.time = newest(one.began, touched or nil)
  end
  decide(line, limit, "neither finished nor aborted")
  return line
end

-- Adds the line that `look` gives for each one, several looks at once; false where it has none. The first
-- error of a look is the answer, after all of them.
local function add_lines(list, lines, look)
  local failed
  task.map(list, WIDTH, function(one)
    local line, err = look(one)
    if line then
      lines[#lines + 1] = line
    end
    failed = failed or (line == nil and err) or nil
    return true
  end)
  if failed then
    return nil, failed
  end
  return true
end

local function add_uploads(store, item, limit, lines)
  local found = {}
  for one, err in store:uploads(item and item .. "/" or "") do
    if not one then
      return nil, err
    end
    found[#found + 1] = one
  end
  return add_lines(found, lines, function(one)
    return look_at_upload(store, one, limit)
  end)
end

-- Objects that have our mark; those that have it not are another tool's.
local function add_marked(store, candidates, limit, lines)
  return add_lines(candidates, lines, function(line)
    local marked, err = prune.is_marked(store, line.key)
    if not marked then
      return (marked == false or err.kind == "not_found") and false or nil, err
    end
    decide(line, limit, line.kind == "report" and "its backup is not there" or "it has no manifest")
    return line
  end)
end

-- Archives without manifest and reports without both, whether they are ours or not.
local function candidates_of(store, item)
  local data, lost = prune.list(store, item)
  if not data then
    return nil, lost
  end
  local out = {}
  for _, found in ipairs(data) do
    if not found.manifest then
      out[#out + 1] = {
        kind = "incomplete", key = found.key, size = found.size, version = found.version,
        time = newest(found.time, found.mtime), report = not found.shared and found.report or nil,
      }
    end
  end
  for _, info in ipairs(lost) do
    out[#out + 1] = {
      kind = "report", key = info.key, size = info.size, version = prune.version_of(info),
      time = newest(naming.parse_key(info.key).time, info.mtime),
    }
  end
  return out
end

--- What is left over, and what of it goes.
---@param store table lunark.store
---@param request table {item = only this one, older = seconds, now = seconds since 1970}
---@return table|nil plan {store=, request=, lines = lunark.orphans.Line[], failures = errors of looking}
---@return table|nil err
function orphans.plan(store, request)
  local lines, failures = {}, {}
  local candidates, err = candidates_of(store, request.item)
  local limit = limit_of(store, request)
  local ok
  if candidates then
    ok, err = add_marked(store, candidates, limit, lines)
  end
  if not ok then
    return nil, exit.unreachable(err)
  end
  if store:can("uploads") then
    ok, err = add_uploads(store, request.item, limit, lines)
    failures[1] = not ok and err or nil
  else
    log.info(("unfinished uploads are not looked for: %s"):format(store.features.uploads_note
      or "the store can't list them"), { store = store:describe() })
  end
  table.sort(lines, function(a, b)
    return a.key < b.key or a.key == b.key and (a.one and a.one.id or "") < (b.one and b.one.id or "")
  end)
  return { store = store, request = request, lines = lines, failures = failures }
end

-- Removes an upload, unless something was sent for it since.
local function discard(store, line, limit)
  local touched, err = store:upload_time(line.one)
  if touched == nil then
    return err.kind == "not_found" and "gone" or nil, err
  elseif (touched or 0) > limit then
    log.info(("the upload of %s stays: something was sent for it since"):format(line.key))
    line.action, line.reasons = "keep", { YOUNG }
    return "kept"
  end
  local ok
  ok, err = store:discard(line.one)
  return ok and "deleted" or nil, err
end

local function account(line, state, err, outcome)
  line.err = not state and err or nil
  line.deleted = state == "deleted" or nil
  if line.deleted then
    outcome.deleted, outcome.bytes = outcome.deleted + 1, outcome.bytes + (line.size or 0)
  end
end

-- Deletes objects of which a new look says the same.
local function delete_objects(plan, outcome)
  local now, batch, keys = {}, {}, {}
  local candidates, err = candidates_of(plan.store, plan.request.item)
  if not candidates then
    return nil, err
  end
  for _, candidate in ipairs(candidates) do
    now[candidate.key] = candidate
  end
  for _, line in ipairs(plan.lines) do
    local again = now[line.key]
    if line.action == "delete" and line.kind ~= "upload" then
      if again and again.version == line.version and again.kind == line.kind then
        batch[#batch + 1], keys[#keys + 1] = line, line.key
        keys[#keys + 1] = again.report
      else
        line.action, line.reasons = "keep", { "it has changed" }
      end
    end
  end
  local errors, more = prune.delete(plan.store, keys, outcome)
  for _, line in ipairs(batch) do
    local why = not errors and more or errors and errors[line.key] or nil
    account(line, not why and "deleted" or nil, why, outcome)
    line.err = why or errors and errors[now[line.key].report or ""]
  end
  return true
end

--- Does what a plan says, as far as it still holds. Lines get `deleted` and `err`.
---@param plan table
---@return lunark.prune.Outcome|nil
---@return table|nil err
function orphans.apply(plan)
  local outcome = { deleted = 0, bytes = 0, failures = {}, locked = 0 }
  local ok, err = delete_objects(plan, outcome)
  if not ok then
    return nil, err
  end
  local limit, uploads = limit_of(plan.store, plan.request), {}
  for _, line in ipairs(plan.lines) do
    uploads[#uploads + 1] = line.action == "delete" and line.kind == "upload" and line or nil
  end
  task.map(uploads, WIDTH, function(line)
    local state, why = discard(plan.store, line, limit)
    account(line, state, why, outcome)
    return true
  end)
  prune.tell_errors(plan.lines, outcome)
  return outcome
end

return orphans
