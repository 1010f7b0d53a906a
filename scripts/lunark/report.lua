-- SPDX-License-Identifier: MIT
-- Reports: an archive of what a program said about an item, stored beside its backup under the same time,
-- <item>/<item>-TIME.report.tar.gz. It has no manifest and no `latest`. Needs lunark.store objects.

local archive = require "lunark.archive"
local exit = require "lunark.exit"
local naming = require "lunark.naming"
local publish = require "lunark.publish"
local sys = require "lunark.core.sys"
local transfer = require "lunark.transfer"

local report = { SUFFIX = ".report.tar.gz" }

local function failure(record, target, err)
  local failed = sys.error {
    kind = err.kind, op = "report", status = err.status, cause = err, hint = err.hint,
    message = ("stored as %s, its report is not stored: %s"):format(record.key, err.message),
  }
  failed.url = target:describe()
  return exit.with(failed, exit.FAILED)
end

--- Stores the report of a backup that is stored.
---@param given table {paths = {...}} as for job:save
---@param record table lunark.manifest.Record of the backup
---@param stores table list of lunark.store
---@param style string form of TIME
---@return table failures list of errors, each with the store's `url`
function report.store(given, record, stores, style)
  local failures, targets = {}, {}
  local key = naming.data_key(record.item, record.time, report.SUFFIX, style)
  local marks = publish.marks(record.item, naming.format_time(record.time, style))
  for i, target in ipairs(stores) do
    targets[i] = { store = target, key = key, meta = marks }
  end
  local made, err = archive.create { roots = given.paths }
  local done
  if made then
    done, err = transfer.upload(made:stream(), targets)
  end
  for i, target in ipairs(stores) do
    local sent = done and done.targets[i] or not done and (err.targets or {})[i]
    if not done or not sent.ok then
      failures[#failures + 1] = failure(record, target, sent and sent.err or err)
    end
  end
  return failures
end

return report
