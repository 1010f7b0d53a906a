-- SPDX-License-Identifier: MIT
-- The job of a policy's restore: finds backups in a store, reads them into folders, and collects what is to
-- be told in the end. Needs lunark.restore and an opened lunark.store; docs/policies.md has the contract.

local contents = require "lunark.contents"
local list = require "lunark.list"
local log = require "lunark.log"
local progress = require "lunark.progress"
local restore = require "lunark.restore"

local recovery = {}

---@class lunark.recovery.Job
---@field options table values of the options of the policy's restore
---@field at integer|string|nil which backup: seconds since 1970, "latest", nil for the newest
---@field dry_run boolean|nil only say what would be done
---@field store table lunark.store
---@field items table[] what was restored: what `done` was given
---@field warnings integer
local Job = {}
Job.__index = Job

--- Makes a job.
---@param context table {store=, options=, at=, dry_run=, progress=, limit_rate=}
---@return lunark.recovery.Job
function recovery.open(context)
  local job = setmetatable({ items = {}, warnings = 0 }, Job)
  for key, value in pairs(context) do
    job[key] = value
  end
  return job
end

--- The backups of an item that can be restored, the newest first.
---@param item string
---@return lunark.list.Backup[]|nil
---@return table|nil err
function Job:candidates(item)
  local backups, err = list.scan(self.store, item)
  if not backups then
    return nil, err
  end
  local kept = {}
  for _, backup in ipairs(backups) do
    if backup.item == item and backup.state ~= "incomplete" then
      kept[#kept + 1] = backup
    end
  end
  return kept
end

--- One backup. Where the store's URL names an archive, it is that one.
---@param item string
---@param at integer|string|nil
---@return lunark.list.Backup|nil
---@return table|nil err
function Job:find(item, at)
  return restore.find(self.store, item, at)
end

--- What is known of a backup: its manifest, or `sha256` alone, which may be nil.
---@param backup lunark.list.Backup
---@return table|nil
---@return table|nil err
function Job:expected(backup)
  return restore.expected(self.store, backup)
end

--- Reads a backup into a folder. When this returns a result, size and SHA-256 were those of its manifest;
--- with globs, those of each file in the archive's index.
---@param backup lunark.list.Backup
---@param expected table as Job:expected gives it
---@param into string
---@param globs string[]|nil only what one of them matches, of an archive
---@return table|nil result {files, directories, bytes, path}
---@return table|nil err
function Job:read(backup, expected, into, globs)
  local result, err = restore.read(self.store, backup, expected, {
    into = into, path = globs, overwrite = true, owner = "none", progress = self.progress,
    limit_rate = self.limit_rate,
  })
  if result then
    self.warnings = self.warnings + #(result.warnings or {})
  end
  return result, err
end

--- What is in an archive: `for record, err in job:contents(backup, globs)`, see lunark.contents.
---@param backup lunark.list.Backup
---@param globs string[]|nil
---@return fun(): lunark.index.Record|false|nil, table|nil
function Job:contents(backup, globs)
  return contents.each(self.store, backup, globs)
end

--- Shows that a program is waited for, until the handle is closed.
---@param item string
---@param what string
---@return table to-be-closed
function Job:waiting(item, what)
  return progress.waiting(self.progress, item, what)
end

--- A warning: status 5 under --strict.
---@param message string
---@param fields table|nil
function Job:warn(message, fields)
  self.warnings = self.warnings + 1
  log.warn(message, fields)
end

--- Notes what was restored, or would be.
---@param facts table {item=, key=, time=, bytes=, ...} shown by --json
function Job:done(facts)
  self.items[#self.items + 1] = facts
end

return recovery
