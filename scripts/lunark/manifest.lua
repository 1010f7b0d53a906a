-- SPDX-License-Identifier: MIT
-- Manifests: the JSON object beside a backup that says what it is, how it was made and what it must
-- hash to. A backup is whole when its manifest is there, so it is written after the data was checked.

local json = require "lunark.json"
local naming = require "lunark.naming"
local sys = require "lunark.core.sys"
local time = require "lunark.time"

local manifest = {}

--- Version of the form written here. A reader ignores fields that it does not know.
manifest.FORM = 1
--- Manifests are small; more than this is no manifest.
manifest.MAX = 4 * 1024 * 1024

local ARCHIVE = { files = true, directories = true, links = true, others = true, bytes = true,
  members = true }

local function corrupt(key, expected)
  return nil, sys.error {
    kind = "corrupt",
    message = ("%s is no manifest: %s"):format(key, expected),
    hint = "the backup can still be restored by its full key, without the check against a manifest",
  }
end

--- Text as JSON can hold it: bytes that are no UTF-8 (a path may have any) are shown as \xNN.
---@param text string|nil
---@return string|nil
function manifest.shown(text)
  if text == nil or utf8.len(text) then
    return text
  end
  return (text:gsub("[\x80-\xff]", function(byte)
    return ("\\x%02x"):format(byte:byte())
  end))
end

-- An argument as it may be shown: secrets print as asterisks.
local function shown_command(command)
  local out = json.array()
  for i, argument in ipairs(command) do
    out[i] = manifest.shown(tostring(argument))
  end
  return out
end

---@class lunark.manifest.Record
---@field item string
---@field key string of the data object
---@field time number start of the run
---@field started number
---@field ended number
---@field policy string|nil
---@field run string identifier of the run
---@field kind string "archive", "program" or "stream"
---@field suffix string
---@field size integer bytes as stored
---@field raw_size integer|nil bytes before compression
---@field sha256 string of the object, lower-case hex
---@field parts integer|nil
---@field producers table list of {command=, code=, signal=, seconds=}
---@field archive table|nil counts of files, directories, links, others and bytes
---@field warnings table list of {path=, kind=, message=}
---@field warning_count integer
---@field unreadable integer
---@field details table|nil what the policy notes about the backup, for its restore
---@field failures table|nil what failed in the same run: list of {item=, kind=, code=, message=, store=}

--- The text of a manifest.
---@param record lunark.manifest.Record
---@param checked boolean|nil whether the store's own report of the object was compared with what was sent
---@return string
function manifest.encode(record, checked)
  local producers = {}
  for i, producer in ipairs(record.producers or {}) do
    producers[i] = {
      command = shown_command(producer.command or {}),
      code = producer.code,
      signal = producer.signal,
      seconds = producer.seconds,
    }
  end
  local warnings = {}
  for i, warning in ipairs(record.warnings or {}) do
    local path, message = manifest.shown(warning.path), manifest.shown(warning.message)
    warnings[i] = { path = path, kind = warning.kind, message = message }
  end
  return json.encode({
    lunark_manifest = manifest.FORM,
    version = sys.version,
    item = record.item,
    policy = record.policy,
    key = record.key,
    kind = record.kind,
    suffix = record.suffix,
    time = time.rfc3339(record.time),
    started = time.rfc3339(record.started),
    ended = time.rfc3339(record.ended),
    run = record.run,
    host = sys.hostname(),
    size = record.size,
    raw_size = record.raw_size,
    sha256 = record.sha256,
    checked = checked,
    parts = record.parts,
    producers = #producers > 0 and producers or nil,
    archive = record.archive,
    details = record.details,
    failures = record.failures,
    warnings = #warnings > 0 and warnings or nil,
    warning_count = record.warning_count or #warnings,
    unreadable = record.unreadable or 0,
  }, "  ") .. "\n"
end

local function is_count(value)
  return math.type(value) == "integer" and value >= 0
end

-- What is wrong with the fields that need not be there; nil when nothing is.
local function wrong_field(found)
  for _, name in ipairs { "item", "kind", "suffix", "policy", "run", "time" } do
    if found[name] ~= nil and type(found[name]) ~= "string" then
      return ("a text as %s expected"):format(name)
    end
  end
  if found.raw_size ~= nil and not is_count(found.raw_size) then
    return "raw_size in bytes expected"
  elseif found.archive ~= nil and type(found.archive) ~= "table" then
    return "counts as archive expected"
  end
  for name, value in pairs(found.archive or {}) do
    if type(name) == "string" and ARCHIVE[name] and not is_count(value) then
      return ("a count of %s expected"):format(name)
    end
  end
  return nil
end

--- Reads and checks a manifest.
---@param text string
---@param key string of the manifest, for messages and to check what it speaks of
---@return table|nil with the fields as written
---@return table|nil err kind corrupt
function manifest.decode(text, key)
  local found = json.decode(text)
  if type(found) ~= "table" then
    return corrupt(key, "JSON expected")
  elseif math.type(found.lunark_manifest) ~= "integer" then
    return corrupt(key, "the field lunark_manifest is missing")
  elseif found.lunark_manifest ~= manifest.FORM then
    return nil, sys.error {
      kind = "usage",
      message = ("%s has form %d, form %d expected"):format(key, found.lunark_manifest, manifest.FORM),
      hint = "use a newer lunark",
    }
  elseif type(found.sha256) ~= "string" or not found.sha256:find("^%x+$") or #found.sha256 ~= 64 then
    return corrupt(key, "sha256 with 64 hexadecimal digits expected")
  elseif math.type(found.size) ~= "integer" or found.size < 0 then
    return corrupt(key, "size in bytes expected")
  elseif type(found.key) ~= "string" or not naming.parse_key(found.key) then
    return corrupt(key, "the key of the backup expected")
  end
  local wrong = wrong_field(found)
  if wrong then
    return corrupt(key, wrong)
  end
  local stem = key:match("([^/]*)%.manifest%.json$")
  if not stem or found.key:match("[^/]*$"):sub(1, #stem + 1) ~= stem .. "." then
    return corrupt(key, ("it speaks of another backup, %s"):format(found.key))
  end
  found.sha256 = found.sha256:lower()
  return found
end

--- Fetches the manifest at a key.
---@param store table lunark.store
---@param key string
---@return table|nil
---@return table|nil err
function manifest.fetch(store, key)
  local stream, err = store:get(key)
  if not stream then
    return nil, err
  end
  local body <close> = stream
  local text
  text, err = body:read_all(manifest.MAX)
  if not text then
    if err.kind == "memory" then
      return corrupt(key, ("it is larger than %d bytes"):format(manifest.MAX))
    end
    return nil, err
  end
  return manifest.decode(text, key)
end

return manifest
