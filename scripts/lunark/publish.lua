-- SPDX-License-Identifier: MIT
-- Makes an uploaded object a backup: checks it, writes its manifest, moves `latest`. In that order, so
-- that whatever fails leaves earlier backups and `latest` as they were. Works on one store at a time.
-- Needs lunark.store objects, lunark.transfer.

local exit = require "lunark.exit"
local log = require "lunark.log"
local manifest = require "lunark.manifest"
local naming = require "lunark.naming"
local sys = require "lunark.core.sys"
local transfer = require "lunark.transfer"

local publish = {}

local NO_COPY = "`latest` is a copy, which needs the right to read: permit that, or give --no-latest"
local NAMED = 100 -- failures that a manifest names at most
local RACES = 5 -- times that another run may move `latest` between our look and our copy

-- Errors that say no more than that these credentials may not read.
local function may_not_read(err)
  return err.kind == "auth" and err.status == 403 or err.kind == "denied"
end

--- Metadata of a data object.
---@param item string
---@param stamp string TIME as in the key
---@return table
function publish.marks(item, stamp)
  return {
    ["lunark-version"] = sys.version,
    ["lunark-item"] = naming.to_meta(item),
    ["lunark-time"] = naming.to_meta(stamp),
    ["lunark-host"] = naming.to_meta(sys.hostname()),
  }
end

--- True when a key is free in a store, as far as these credentials can tell.
---@return boolean|nil
---@return table|nil err
function publish.is_free(store, key)
  local info, err = store:head(key)
  if info then
    return false
  elseif err.kind == "not_found" or may_not_read(err) then
    return true
  end
  return nil, err
end

--- Compares what the store reports of an object with what was sent.
---@param store table lunark.store
---@param key string
---@param sent table {size=, info=} info = the upload's own answer
---@return boolean|nil false when these credentials may not look: then the upload's own answer counts
---@return table|nil err
function publish.check(store, key, sent)
  local info, err = store:head(key)
  if not info then
    if may_not_read(err) then
      local text = "%s is not checked: these credentials can't read it, the upload's own answer counts"
      log.info(text:format(key), { key = key, store = store:describe() })
      return false
    elseif err.kind == "not_found" then
      return nil, sys.error {
        kind = "corrupt", op = "check", cause = err,
        message = ("%s was uploaded and is not there"):format(key),
      }
    end
    return nil, err
  end
  local found, expected = info.size, sent.size
  local what = "bytes"
  if found == expected and sent.info and sent.info.etag and info.etag then
    what, found, expected = "etag", info.etag, sent.info.etag
  end
  if found ~= expected then
    return nil, sys.error {
      kind = "corrupt", op = "check",
      message = ("%s has %s %s in the store, %s expected"):format(key, what, found, expected),
      hint = "the object is left where it is, without manifest, and does not count as a backup",
    }
  end
  return true
end

--- Writes the manifest.
---@param store table
---@param key string of the manifest
---@param text string
---@return true|nil
---@return table|nil err
function publish.manifest(store, key, text)
  local info, err = store:put(key, text, { ["lunark-version"] = sys.version })
  if not info then
    return nil, err
  end
  return true
end

-- The backup that `latest` stands for: its time and host, or nil when it says nothing. And the version of
-- `latest`: false when there is none, nil when that is not known.
local function standing(store, key)
  local info, err = store:head(key)
  if not info then
    if err.kind == "not_found" then
      return { version = false }
    elseif may_not_read(err) then
      return {}
    end
    return nil, err
  end
  local meta = info.meta or {}
  local dated = meta["lunark-key"] and naming.parse_key(naming.from_meta(meta["lunark-key"]))
  local host = meta["lunark-host"] and naming.from_meta(meta["lunark-host"])
  return { time = dated and dated.time, host = host, version = info.version }
end

-- Copies inside of the store; through this machine where the store can't.
local function copy(store, from, to, meta, version)
  if store:can("copy") then
    local done, err = store:copy(from, to, meta, { replaces = version })
    return done and true, err
  end
  local stream, err = store:get(from)
  if not stream then
    return nil, err
  end
  local body <close> = stream
  local done
  done, err = transfer.upload(body, { { store = store, key = to, meta = meta } }, { raw = true })
  return done and true, err
end

-- As publish.latest; nil and a conflict when somebody else has moved `latest` meanwhile.
local function move_latest(store, record, stamp)
  local key = naming.latest_key(record.item, record.suffix)
  local now, err = standing(store, key)
  if not now then
    return nil, err
  elseif now.time and now.time > record.time then
    log.info(("%s stands for a newer backup and stays"):format(key), { item = record.item })
    return false
  elseif now.host and now.host ~= sys.hostname() then
    log.warn(("%s was written by host %s"):format(key, now.host), { item = record.item })
  end
  local meta = publish.marks(record.item, stamp)
  meta["lunark-key"] = naming.to_meta(record.key)
  meta["lunark-sha256"] = record.sha256
  local done
  done, err = copy(store, record.key, key, meta, now.version)
  if not done then
    return nil, err
  end
  return true
end

--- Moves `latest` to a dated backup, unless it stands for a newer one. Where the store can tell, what
--- another run put there meanwhile is looked at again.
---@param store table
---@param record table lunark.manifest.Record
---@param stamp string TIME as in the key
---@return boolean|nil moved
---@return table|nil err
function publish.latest(store, record, stamp)
  local moved, err
  for _ = 1, RACES do
    moved, err = move_latest(store, record, stamp)
    if moved ~= nil or err.kind ~= "conflict" then
      break
    end
  end
  return moved, err
end

---@class lunark.publish.Outcome
---@field ok boolean
---@field err table|nil
---@field stored boolean true when the backup is whole and visible
---@field checked boolean|nil false when these credentials may not look at what was stored
---@field latest boolean|nil true when `latest` was moved

--- Check, manifest, latest.
---@param store table
---@param record table lunark.manifest.Record
---@param sent table {size=, info=}
---@param options table {stamp=, style=, latest=bool}
---@return lunark.publish.Outcome
function publish.object(store, record, sent, options)
  local checked, err = publish.check(store, record.key, sent)
  local ok
  if checked ~= nil then
    local key = naming.manifest_key(record.item, record.time, options.style)
    ok, err = publish.manifest(store, key, manifest.encode(record, checked))
  end
  if not ok then
    return { ok = false, err = err, stored = false }
  elseif not options.latest then
    return { ok = true, stored = true, checked = checked }
  end
  local moved
  moved, err = publish.latest(store, record, options.stamp)
  if moved == nil then
    local hint = may_not_read(err) and NO_COPY or err.hint
    return {
      ok = false, stored = true, checked = checked, latest = false,
      err = exit.with(sys.error {
        kind = err.kind, op = "latest", status = err.status, cause = err, hint = hint,
        message = ("stored as %s, latest not moved: %s"):format(record.key, err.message),
      }, exit.FAILED),
    }
  end
  return { ok = true, stored = true, checked = checked, latest = moved }
end

-- Errors as manifests name them.
local function named(failures)
  local out = {}
  for i, err in ipairs(failures) do
    local message, code = manifest.shown(err.message), math.tointeger(err.code)
    out[i] = i <= NAMED and {
      item = err.item, kind = err.kind, code = code, message = message, store = err.url,
    } or nil
  end
  return out
end

--- Writes once more the manifests of what a run has stored, with what failed in the same run.
---@param items table list of {item=, stored=, record=, targets = list of lunark.publish.Outcome with `store`}
---@param failures table list of errors; without one nothing is written
---@param style string form of TIME
---@return string[] messages about manifests that could not be written
function publish.failures(items, failures, style)
  local wrong = {}
  for _, item in ipairs(#failures > 0 and items or {}) do
    for _, outcome in ipairs(item.stored and item.targets or {}) do
      item.record.failures = named(failures)
      local key, ok, err = naming.manifest_key(item.item, item.record.time, style), true, nil
      if outcome.stored then
        ok, err = publish.manifest(outcome.store, key, manifest.encode(item.record, outcome.checked))
      end
      if not ok then
        wrong[#wrong + 1] = ("%s does not name what else failed in this run: %s"):format(key, err.message)
      end
    end
  end
  return wrong
end

return publish
