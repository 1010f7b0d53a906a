-- SPDX-License-Identifier: MIT
-- What is in a store: backups by item and time, and which of them are whole.
-- Needs lunark.store objects.

local exit = require "lunark.exit"
local naming = require "lunark.naming"
local sys = require "lunark.core.sys"
local task = require "lunark.task"

local list = {}

---@class lunark.list.Backup
---@field item string
---@field time integer seconds since 1970
---@field stamp string TIME as in the key
---@field key string
---@field suffix string
---@field size integer as the store reports it
---@field manifest string|nil its key
---@field state string "ok" with manifest; "incomplete" marked as ours, without; "unverified" of another tool

local WIDTH = 8

-- An object without manifest is ours, and so incomplete, or another tool's, and so unverified.
local function judge(store, found)
  if found.manifest then
    found.state = "ok"
    return true
  end
  local info, err = store:head(found.key)
  if info then
    found.state = (info.meta or {})["lunark-version"] and "incomplete" or "unverified"
    return true
  elseif err.kind == "not_found" then
    return true
  end
  return nil, err
end

local function by_age(a, b)
  if a.item ~= b.item then
    return a.item < b.item
  elseif a.time ~= b.time then
    return a.time > b.time
  end
  return a.key < b.key
end

-- Reads the names below a prefix: data objects with their manifests, and what else there is.
local function read_names(store, prefix)
  local data, manifests, latest = {}, {}, {}
  for info, err in store:list(prefix) do
    if not info then
      return nil, exit.unreachable(err)
    end
    local key = naming.parse_key(info.key)
    if key and key.kind == "manifest" then
      manifests[info.key] = key
    elseif key and key.kind == "latest" then
      latest[#latest + 1] = { item = key.item, key = info.key, suffix = key.suffix, size = info.size }
    elseif key and key.kind == "data" then
      data[#data + 1] = {
        item = key.item, time = key.time, stamp = key.stamp, key = info.key, suffix = key.suffix,
        size = info.size, manifest_key = naming.manifest_key(key.item, key.time, key.style),
      }
    end
  end
  local with_data = {}
  for _, found in ipairs(data) do
    found.manifest = manifests[found.manifest_key] and found.manifest_key or nil
    found.manifest_key = nil
    with_data[found.manifest or ""] = true
  end
  local lone = {}
  for key, parsed in pairs(manifests) do
    if not with_data[key] then
      lone[#lone + 1] = { item = parsed.item, time = parsed.time, stamp = parsed.stamp, manifest = key }
    end
  end
  return data, { latest = latest, manifests = lone }
end

---@class lunark.list.Others
---@field latest table[] {item=, key=, suffix=, size=} of each `latest`
---@field manifests table[] {item=, time=, stamp=, manifest=} of each manifest without data, in no order

--- All backups of a store, by item, the newest of each first.
---@param store table lunark.store
---@param item string|nil only this one
---@return lunark.list.Backup[]|nil
---@return lunark.list.Others|table others, or err
function list.scan(store, item)
  local data, others = read_names(store, item and item .. "/" or "")
  if not data then
    return nil, others
  end
  local failed
  task.map(data, WIDTH, function(found)
    local ok, why = judge(store, found)
    failed = failed or (not ok and why) or nil
    return true
  end)
  if failed then
    return nil, exit.unreachable(failed)
  end
  local kept = {}
  for _, found in ipairs(data) do
    if found.state then
      kept[#kept + 1] = found
    end
  end
  table.sort(kept, by_age)
  return kept, others
end

local function items_of(backups)
  local names, seen = {}, {}
  for _, found in ipairs(backups) do
    if not seen[found.item] and found.state ~= "incomplete" then
      seen[found.item] = true
      names[#names + 1] = found.item
    end
  end
  return names
end

local function not_found(store, message, ...)
  return nil, sys.error {
    kind = "not_found", message = ("%s: %s"):format(store:describe(), message:format(...)),
    hint = "lunark list shows what is there, with --all incomplete ones, too",
  }
end

-- Where `latest` of an item points, as a backup; latest of another tool is an object of its own.
local function follow_latest(store, item, backups)
  for info, err in store:list(item .. "/" .. item .. "-latest.") do
    if not info then
      return nil, err
    end
    local key = naming.parse_key(info.key)
    if key and key.kind == "latest" then
      local head
      head, err = store:head(info.key)
      if not head then
        return nil, err
      end
      local dated = (head.meta or {})["lunark-key"]
      dated = dated and naming.from_meta(dated)
      for _, found in ipairs(backups) do
        if found.key == dated then
          return found
        end
      end
      return {
        item = item, key = info.key, suffix = key.suffix, size = head.size or info.size,
        state = "unverified", sha256 = (head.meta or {})["lunark-sha256"],
      }
    end
  end
  return not_found(store, "item '%s' has no latest", item)
end

--- The backup to restore.
---@param store table lunark.store
---@param item string|nil needed when the store has several
---@param at integer|string|nil seconds since 1970, "latest", or nil for the newest
---@return lunark.list.Backup|nil
---@return table|nil err
function list.find(store, item, at)
  local backups, err = list.scan(store, item)
  if not backups then
    return nil, err
  end
  local names = items_of(backups)
  if not item and #names > 1 then
    return nil, sys.error {
      kind = "usage", hint = "say which with --item",
      message = ("%s has several items: %s"):format(store:describe(), table.concat(names, ", ")),
    }
  end
  item = item or names[1]
  if not item then
    return not_found(store, "there is no backup")
  elseif at == "latest" then
    return follow_latest(store, item, backups)
  end
  for _, found in ipairs(backups) do
    if found.item == item and found.state ~= "incomplete" and (at == nil or found.time == at) then
      return found
    end
  end
  if at then
    return not_found(store, "item '%s' has no backup of %s", item, naming.format_time(at))
  end
  return not_found(store, "there is no backup of '%s'", item)
end

return list
