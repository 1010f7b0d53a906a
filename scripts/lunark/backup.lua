-- SPDX-License-Identifier: MIT
-- A backup job: what a policy gets, and what a script can open by itself. job:save does naming,
-- streaming, upload, check, manifest and latest for one item, in every store at once.
--
--   local job <close> = assert(backup.open { to = { "s3://bucket/nightly" } })
--   job:save("app", { program = { "pg_dump", "--format=custom", "app" }, suffix = ".dump" })
--   assert(job:finish())
--
-- Needs lunark.store, lunark.transfer, lunark.fs, lunark.task.

local exit = require "lunark.exit"
local fs = require "lunark.fs"
local crypto = require "lunark.core.crypto"
local lock = require "lunark.lock"
local log = require "lunark.log"
local manifest = require "lunark.manifest"
local naming = require "lunark.naming"
local progress = require "lunark.progress"
local prune = require "lunark.prune"
local publish = require "lunark.publish"
local report = require "lunark.report"
local retention = require "lunark.retention"
local source = require "lunark.source"
local store = require "lunark.store"
local sys = require "lunark.core.sys"
local task = require "lunark.task"
local transfer = require "lunark.transfer"
local url = require "lunark.url"

local backup = {}

--- How many seconds after the run's own a key is looked for before that is an error.
backup.KEY_TRIES = 120
--- How often an item is read again because another run took its key in the meantime.
backup.CONFLICT_TRIES = 8

local WORK = "^lunark%-%x+$" -- names of work folders

local OPEN = {
  to = true, stores = true, options = true, policy = true, style = true, latest = true, compress = true,
  work_dir = true, limit_rate = true, expect_size = true, progress = true, time = true,
  on_failure = true, store_failures = true, spill = true, run = true, keep = true, jobs = true,
}

---@class lunark.Job
---@field options table of the policy
---@field time integer start of the run, seconds since 1970
---@field run string identifier of the run
---@field jobs integer|nil what --jobs says; a policy may do as many items at once
---@field stores table list of lunark.store
---@field items table list of results, one for each save
---@field failures table list of errors
---@field warnings integer
---@field unreadable integer
local Job = {}
Job.__index = Job

-- What tells one store from another: a directory can be written in several ways.
local function place_of(target, text)
  return target.scheme == "file" and fs.realpath(target:describe()) or text
end

--- Opens stores and looks at each of them, so that one that can't be used is known before the source
--- is touched.
---@param urls table list of store URLs
---@return table list of lunark.store that can be used
---@return table list of errors of the others, with `url`
function backup.open_stores(urls)
  local usable, failures = {}, {}
  local opened = task.map(urls, math.max(#urls, 1), function(text)
    local target, err = store.open(text)
    if target and target.key then
      target, err = nil, sys.error {
        kind = "usage", message = ("%s names one archive, a store expected"):format(url.shown(text)),
      }
    end
    if target then
      local ok
      ok, err = target:check("write")
      if not ok then
        target = nil
        exit.unreachable(err)
      end
    end
    return { store = target, err = err }
  end)
  local seen = {}
  for i, one in ipairs(opened) do
    local place = one.store and place_of(one.store, urls[i])
    if place and seen[place] then
      one.store, one.err = nil, sys.error {
        kind = "usage", message = ("%s is the same store as %s"):format(url.shown(urls[i]), seen[place]),
        hint = "give each store once",
      }
    end
    if one.store then
      seen[place] = url.shown(urls[i])
      usable[#usable + 1] = one.store
    else
      one.err.url = url.shown(urls[i])
      failures[#failures + 1] = one.err
    end
  end
  return usable, failures
end

-- Only the job's own folder is granted, not the one that it is in.
local function grant_work(job, base)
  job.work_path = fs.join(fs.absolute(base or "/tmp"), "lunark-" .. job.run)
  if not sys.sealed() then
    sys.allow("read", job.work_path)
    sys.allow("write", job.work_path)
  end
end

--- Opens a job.
---@param given table to = list of URLs or stores = list of open stores; options, policy (name),
--- style ("standard" or "compat"), latest (default true), compress, work_dir, limit_rate (bytes a
--- second), expect_size (bytes), progress (lunark.progress), time (default now), on_failure (called with
--- each error instead of a line in the log), store_failures (list of errors of stores left out), spill
--- (parts that memory has no room for may wait in the work folder), run (its id, default a new one), keep
--- (lunark.retention.Rules: what is kept of an item once a backup of it is stored), jobs
---@return lunark.Job|nil to-be-closed
---@return table|nil err
function backup.open(given)
  for key in pairs(given) do
    if not OPEN[key] then
      error(sys.error { kind = "usage", message = "backup.open: unknown key '" .. tostring(key) .. "'" })
    end
  end
  if given.keep then
    local rules, wrong = retention.check(given.keep)
    if not rules then
      error(wrong)
    end
  end
  local job = setmetatable({
    options = given.options or {}, policy = given.policy, style = given.style or "standard",
    move_latest = given.latest ~= false, compress = given.compress, spill = given.spill,
    limit_rate = given.limit_rate, expect_size = given.expect_size, progress = given.progress,
    time = math.floor(given.time or sys.clock()), run = given.run or crypto.hex(crypto.random(6)),
    on_failure = given.on_failure, stores = given.stores, keep = given.keep, jobs = given.jobs,
    items = {}, failures = {}, warnings = 0, unreadable = 0, claimed = {},
  }, Job)
  local failures = given.store_failures or {}
  if not job.stores then
    job.stores, failures = backup.open_stores(given.to or {})
    if #job.stores == 0 then
      return nil, failures[1] or sys.error { kind = "usage", message = "no store to save to" }
    end
  end
  grant_work(job, given.work_dir)
  for _, err in ipairs(failures) do
    job:failed(nil, err)
  end
  return job
end

-- Notes a failure and says it.
function Job:failed(item, err)
  err.item = err.item or item
  self.failures[#self.failures + 1] = err
  if self.on_failure then
    self.on_failure(err)
  else
    log.error(err.url and ("%s: %s"):format(err.url, err.message) or err.message,
      { item = item, hint = err.hint, kind = err.kind })
  end
end

--- An error to return or to give to job:fail.
---@param fields table kind, message, hint, ...
---@return table
function Job.error(_, fields)
  return sys.error(fields)
end

--- Notes a warning of the job as a whole.
---@param message string
---@param fields table|nil for the log
function Job:warn(message, fields)
  if type(message) ~= "string" then
    error(sys.error { kind = "usage", message = "job:warn: a string expected, found a " .. type(message) })
  end
  self.warnings = self.warnings + 1
  log.warn(message, fields)
end

--- A fresh folder below the work directory, removed when the job is closed. What killed runs have left beside
--- it is removed first, where --work-dir names the directory.
---@return string|nil path
---@return table|nil err
function Job:work_dir()
  if not self.work then
    local ok, err = fs.mkdir(self.work_path, tonumber("700", 8))
    if not ok then
      return nil, err
    end
    self.work = self.work_path
    self.work_lock = lock.take(self.work)
    for _, path in ipairs(lock.sweep(fs.dirname(self.work), WORK)) do
      log.info(("%s was left by a run that did not end well and is removed"):format(path))
    end
  end
  return self.work
end

--- Shows that the job waits for a program, until the returned handle is closed.
---@param item string
---@param what string the program
function Job:waiting(item, what)
  return progress.waiting(self.progress, item, what)
end

-- The first second whose keys are free in all stores; a store that can't be asked is left out.
local function claim(job, name, suffix, stores)
  local seconds = job.time
  for _ = 1, backup.KEY_TRIES do
    local key = naming.data_key(name, seconds, suffix, job.style)
    local other = naming.manifest_key(name, seconds, job.style)
    local free = not job.claimed[other]
    job.claimed[other] = true
    for i = #stores, 1, -1 do
      local target = stores[i]
      local ok, err = publish.is_free(target, key)
      if ok then
        ok, err = publish.is_free(target, other)
      end
      if ok == nil then
        err.url = target:describe()
        job:failed(name, err)
        table.remove(stores, i)
      end
      free = free and ok ~= false
    end
    if #stores == 0 then
      return nil
    elseif free then
      return seconds, key
    end
    seconds = seconds + 1
  end
  job:failed(name, sys.error {
    kind = "conflict",
    message = ("%s: every key from %s on is taken"):format(name, naming.format_time(job.time, job.style)),
  })
  return nil
end

-- Reads the source into all targets. The outcome of transfer.upload, or nil, err.
local function send(job, name, opened, stream, targets)
  local spill_dir, why
  if job.spill then
    spill_dir, why = job:work_dir()
    if not spill_dir then
      return nil, why
    end
  end
  if job.limit_rate then
    stream = stream:limit(job.limit_rate)
  end
  local sent = { bytes = 0 }
  local expected = opened.given.expect_size or job.expect_size
    or opened:expected(transfer.capacity(targets, {}))
  if job.progress and job.progress:wants_total() then
    opened:begin()
  end
  local began = sys.monotonic()
  local _ <close> = job.progress and job.progress:track(name, function()
    local read, total, files = opened:sample()
    if not read and sent.bytes == 0 and opened.command then
      return { read = 0, waiting = tostring(opened.command[1]) }
    end
    return { read = read or sent.bytes, stored = sent.bytes, total = total, files = files }
  end) or nil
  local done, err = transfer.upload(stream, targets, {
    expect_size = expected,
    spill_dir = spill_dir,
    progress = function(bytes)
      sent.bytes = bytes
    end,
  })
  if done then
    done.seconds = sys.monotonic() - began
  end
  return done, err
end

local function record_of(job, name, opened, seconds, key, done, started)
  local facts = opened:finish()
  return {
    item = name, key = key, time = seconds, started = started, ended = sys.clock(),
    policy = job.policy, run = job.run, kind = opened.kind, suffix = opened.suffix,
    size = done.bytes, raw_size = facts.raw_size, sha256 = done.sha256,
    parts = done.parts, producers = facts.producers, archive = facts.archive,
    warnings = facts.warnings, warning_count = facts.warning_count, unreadable = facts.unreadable,
    details = opened.given.details,
  }
end

local function say_warnings(record)
  for i, warning in ipairs(record.warnings) do
    if i > 20 then
      log.warn(("%d more warnings are in the manifest"):format(record.warning_count - 20),
        { item = record.item })
      break
    end
    log.warn(warning.path and ("%s: %s"):format(warning.path, warning.message) or warning.message,
      { item = record.item })
  end
end

local function say_stored(record, outcomes, seconds)
  local raw = record.raw_size
  log.info(("stored %s: %s%s in %s"):format(record.key,
    raw and ("%s read, "):format(progress.size(raw)) or "", progress.size(record.size),
    progress.duration(seconds)), {
      item = record.item, key = record.key, size = record.size, sha256 = record.sha256,
      stores = outcomes,
    })
end

-- Publishes in every store that took the object.
local function publish_all(job, record, stores, done)
  local options = {
    stamp = naming.format_time(record.time, job.style), style = job.style, latest = job.move_latest,
  }
  return task.map(stores, math.max(#stores, 1), function(target, i)
    local sent = done.targets[i]
    if not sent.ok then
      return { ok = false, stored = false, err = sent.err }
    end
    return publish.object(target, record, { size = done.bytes, info = sent.info }, options)
  end)
end

-- What is left of an item that no store has: the source failed, or each store did.
local function lost(job, name, key, stores, err)
  local result = { item = name, ok = false, key = key, targets = {}, err = err }
  for i, sent in ipairs(err.targets or {}) do
    result.targets[i] = { ok = false, stored = false, err = sent.err, url = stores[i]:describe() }
  end
  if #result.targets == 0 then
    job:failed(name, err)
  end
  return result
end

-- One attempt to save. Returns the result, or nil and "conflict" when another run took the key.
local function attempt(job, name, given, stores)
  local started = sys.clock()
  local seconds, key = claim(job, name, source.suffix(given), stores)
  if not seconds then
    return { item = name, ok = false, targets = {} }
  end
  local opened <close>, err = source.open(given, job.compress, name, job.progress ~= nil)
  if not opened then
    job:failed(name, err)
    return { item = name, ok = false, targets = {}, err = err }
  end
  local targets = {}
  for i, target in ipairs(stores) do
    targets[i] = {
      store = target, key = key, exclusive = true,
      meta = publish.marks(name, naming.format_time(seconds, job.style)),
    }
  end
  local done
  done, err = send(job, name, opened, opened:take(), targets)
  if not done then
    if err.kind == "conflict" then
      return nil, err
    end
    return lost(job, name, key, stores, err)
  end
  local record = record_of(job, name, opened, seconds, key, done, started)
  say_warnings(record)
  local outcomes = publish_all(job, record, stores, done)
  local result = { item = name, key = key, record = record, ok = true, targets = {} }
  for i, outcome in ipairs(outcomes) do
    outcome.url, outcome.store = stores[i]:describe(), stores[i]
    result.targets[i] = outcome
    result.ok = result.ok and outcome.ok
    result.stored = result.stored or outcome.stored
  end
  result.seconds = done.seconds
  return result
end

-- Targets that lost the race for a key in every store try again, as long as the source can be read again.
local function all_conflict(result)
  for _, outcome in ipairs(result.targets) do
    if outcome.ok or not outcome.err or outcome.err.kind ~= "conflict" then
      return false
    end
  end
  return #result.targets > 0
end

-- Adds what became of an item to the job.
local function account(job, name, result)
  job.items[#job.items + 1] = result
  local names = {}
  for _, outcome in ipairs(result.targets) do
    if outcome.stored then
      names[#names + 1] = outcome.url
    end
    if not outcome.ok then
      outcome.err.url = outcome.err.url or outcome.url
      job:failed(name, outcome.err)
    end
  end
  local record = result.record
  if record then
    job.warnings = job.warnings + record.warning_count
    job.unreadable = job.unreadable + record.unreadable
    if result.stored then
      say_stored(record, table.concat(names, " "), result.seconds)
    end
  end
end

-- Stores the report beside the backup, wherever that was stored.
local function add_report(job, name, result, given)
  local stores = {}
  for _, target in ipairs(job.stores) do
    for _, outcome in ipairs(result.targets) do
      if outcome.stored and outcome.url == target:describe() then
        stores[#stores + 1] = target
      end
    end
  end
  for _, err in ipairs(#stores > 0 and report.store(given, result.record, stores, job.style) or {}) do
    job:failed(name, err)
  end
end

-- Thins an item out in the stores that took it.
local function keep_some(job, name, result)
  if result.record.unreadable > 0 then
    log.warn("older backups are not thinned out: something could not be read for this one", { item = name })
    return
  end
  for _, target in ipairs(job.stores) do
    for _, outcome in ipairs(result.targets) do
      if outcome.ok and outcome.url == target:describe() then
        local request = { rules = job.keep, item = name, suffix = result.record.suffix, now = sys.clock() }
        outcome.pruned = prune.after(target, request, result.key, job)
      end
    end
  end
end

--- The manifest of the newest backup of an item, by `latest` in the first store that has one.
---@param name string item
---@param suffix string as stored: ".tar.gz"
---@return table|nil manifest nil when there is none, or none that can be read
function Job:newest(name, suffix)
  for _, target in ipairs(self.stores) do
    local info = target:head(naming.latest_key(name, suffix))
    local dated = info and info.meta and info.meta["lunark-key"]
    local key = dated and naming.parse_key(naming.from_meta(dated))
    local found = key and key.time and manifest.fetch(target, naming.manifest_key(name, key.time, key.style))
    if found then
      return found
    end
  end
  return nil
end

--- Saves one item. Can be called from several tasks. A failure is noted in the job, which goes on.
--- The source is one of
--- `{ paths = { path | {path=, name=}, ... }, exclude =, exclude_caches =, one_file_system =, whole = }`,
--- `{ program = { "pg_dump", ... }, suffix = ".dump", env =, cwd =, user =, timeout =, ok =, ... }`,
--- `{ stream = Stream, suffix = }`; each with `compress`, `expect_size`, and `producers` and `warnings`
--- and `details` (a table) for the manifest, when programs ran before; and `report = { paths = {...} }`, an
--- archive that is stored beside it as `<item>-TIME.report.tar.gz`.
---@param name string item
---@param given table source
---@return table|nil result {item, key, record, targets}
---@return table|nil err the first one
function Job:save(name, given)
  source.suffix(given)
  local ok, err = naming.check_name(name)
  if not ok then
    self:failed(name, err)
    return nil, err
  end
  local before = #self.failures
  local result
  for _ = 1, backup.CONFLICT_TRIES do
    local stores = table.move(self.stores, 1, #self.stores, 1, {})
    result, err = attempt(self, name, given, stores)
    local taken = not result or all_conflict(result)
    if not taken or given.stream or given.stdin then
      break
    end
    log.info("another run has taken the key; reading again for the next one", { item = name })
  end
  if not result then
    self:failed(name, err)
    result = { item = name, ok = false, targets = {}, err = err }
  end
  account(self, name, result)
  if given.report and result.stored then
    add_report(self, name, result, given.report)
  end
  if self.keep and result.stored then
    keep_some(self, name, result)
  end
  if result.ok and #self.failures == before then
    return result
  end
  return nil, result.err or self.failures[before + 1] or self.failures[#self.failures]
end

--- Notes the failure of an item that never got as far as save.
---@param name string item
---@param err table|string
function Job:fail(name, err)
  if err == nil then
    error(sys.error { kind = "usage", message = "job:fail: an error expected, found nil" })
  end
  err = exit.as_error(err)
  self:failed(name, err)
  self.items[#self.items + 1] = { item = name, ok = false, targets = {}, err = err }
end

--- The exit status that the job asks for.
---@param strict boolean|nil warnings count
---@return integer
function Job:status(strict)
  local stored = false
  for _, item in ipairs(self.items) do
    stored = stored or item.stored
  end
  if #self.failures > 0 then
    return exit.combine(self.failures, stored)
  elseif self.unreadable > 0 or (strict and self.warnings > 0) then
    return exit.PARTIAL
  end
  return exit.OK
end

--- Notes what failed in the manifests of what the run has stored: what failed has none of its own. For the
--- end of the run; what can't be noted is a warning.
function Job:note_failures()
  for _, message in ipairs(publish.failures(self.items, self.failures, self.style)) do
    self:warn(message)
  end
end

--- Ends the job.
---@return true|nil
---@return table|nil err the first failure
function Job:finish()
  self:note_failures()
  self:close()
  if self.failures[1] then
    return nil, self.failures[1]
  elseif #self.items == 0 then
    return nil, sys.error { kind = "usage", message = "nothing was saved" }
  end
  return true
end

--- Removes the work folder. Idempotent.
function Job:close()
  if self.work then
    local path = self.work
    self.work = nil
    task.shield(function()
      local ok, err = fs.remove_all(path)
      if not ok then
        log.warn(("%s could not be removed: %s"):format(path, err.message))
      end
    end)
    if self.work_lock then
      self.work_lock:close()
    end
  end
end
Job.__close = Job.close

return backup
