-- SPDX-License-Identifier: MIT
-- Sources of a backup: paths, a program's output or a stream, made into one compressed stream whose
-- end says whether the source was whole. Used by lunark.backup; kinds and keys are those of job:save.
-- Needs lunark.archive, lunark.exec.

local archive = require "lunark.archive"
local exec = require "lunark.exec"
local exit = require "lunark.exit"
local fs = require "lunark.fs"
local naming = require "lunark.naming"
local statvfs = require "posix.sys.statvfs"
local sys = require "lunark.core.sys"
local task = require "lunark.task"

local source = {}

local COMMON = {
  suffix = true, compress = true, producers = true, warnings = true, expect_size = true, details = true,
  report = true,
}
local PATHS = { paths = true, exclude = true, exclude_caches = true, one_file_system = true, whole = true }
local PROGRAM = {
  program = true, env = true, clean_env = true, cwd = true, user = true, group = true, stdin = true,
  timeout = true, grace = true, allow_empty = true, ok = true, begins = true,
}
local STREAM = { stream = true }
local PASSED = {
  "env", "clean_env", "cwd", "user", "group", "stdin", "timeout", "grace", "allow_empty", "ok",
}

local function misuse(message, ...)
  error(sys.error { kind = "usage", message = message:format(...) })
end

-- The kind of a source and its allowed keys; raises what is wrong with it.
local function check(given)
  if type(given) ~= "table" then
    misuse("job:save: a source is a table, found a %s", type(given))
  end
  local kinds = (given.paths and 1 or 0) + (given.program and 1 or 0) + (given.stream and 1 or 0)
  if kinds ~= 1 then
    misuse("job:save: one of paths, program and stream expected, found %d of them", kinds)
  end
  local kind = given.paths and "archive" or given.program and "program" or "stream"
  local field = kind == "archive" and "paths" or kind
  local expected = kind == "stream" and "userdata" or "table"
  if type(given[field]) ~= expected then
    misuse("job:save: %s must be a %s, found a %s", field, kind == "stream" and "stream" or "list",
      type(given[field]))
  end
  local allowed = given.paths and PATHS or given.program and PROGRAM or STREAM
  for key in pairs(given) do
    if not allowed[key] and not COMMON[key] then
      misuse("job:save: unknown key '%s' for a source of %s", tostring(key), field)
    end
  end
  for _, key in ipairs { "details", "report" } do
    if given[key] ~= nil and type(given[key]) ~= "table" then
      misuse("job:save: %s must be a table, found a %s", key, type(given[key]))
    end
  end
  if given.report and type(given.report.paths) ~= "table" then
    misuse("job:save: report.paths must be a list of paths")
  end
  if kind ~= "archive" then
    local ok, err = naming.check_suffix(given.suffix or "")
    if not ok then
      error(err)
    end
  elseif given.suffix then
    misuse("job:save: an archive of paths has no suffix of its own")
  end
  return kind
end

---@class lunark.Source
---@field kind string "archive", "program" or "stream"
---@field suffix string as stored: ".tar.gz", ".dump.gz"
---@field stream table compressed
---@field begin fun(self) starts what counts the source for the progress
---@field finish fun(self): table facts for the manifest, once the stream has ended
local Source = {}
Source.__index = Source

-- A warning for each root that is a link to a directory: the link is stored, as tar does, and nothing in it.
local function links_to_directories(roots)
  local warnings = {}
  for _, root in ipairs(roots) do
    local path = (type(root) == "table" and root.path or root):gsub("(.)/+$", "%1")
    local info = fs.lstat(path)
    if info and info.type == "link" and fs.is_dir(path) then
      warnings[#warnings + 1] = {
        path = path, kind = "link",
        message = ("only the symbolic link is stored; to store the directory give %s")
          :format(fs.realpath(path) or "what it points to"),
      }
    end
  end
  return warnings
end

local function open_paths(self, given, level)
  local roots = {}
  for i, path in ipairs(given.paths) do
    roots[i] = path
  end
  self.walk = {
    roots = roots, exclude = given.exclude, exclude_caches = given.exclude_caches,
    one_file_system = given.one_file_system,
  }
  local made, err = archive.create {
    roots = roots, exclude = given.exclude, exclude_caches = given.exclude_caches,
    one_file_system = given.one_file_system, whole = given.whole, level = level, index = true,
  }
  if not made then
    return nil, exit.unreachable(err)
  end
  self.archive = made
  self.links = links_to_directories(roots)
  self.suffix = ".tar.gz"
  self.stream = made:stream()
  return self
end

local function open_program(self, given, level, item, shown)
  local options = { log_item = item, remind = shown and 0 or nil }
  for i, argument in ipairs(given.program) do
    options[i] = argument
  end
  for _, key in ipairs(PASSED) do
    options[key] = given[key]
  end
  local stream, process = exec.stream(options)
  if not stream then
    return nil, process
  end
  self.process = process
  self.command = given.program
  if given.begins then
    stream, process = stream:verify {
      begins = given.begins, name = ("the output of '%s'"):format(given.program[1]),
    }
    if not stream then
      return nil, process
    end
  end
  self.stream = stream:gzip { level = level, index = true }
  self.suffix = (given.suffix or "") .. ".gz"
  return self
end

--- Opens a source. Misuse is raised.
---@param given table as job:save takes it
---@param level string|integer|nil compression when the source has no wish of its own
---@param item string|nil whose it is, for the log
---@param shown boolean|nil a progress says that a program is waited for
---@return lunark.Source|nil to-be-closed
---@return table|nil err
function source.open(given, level, item, shown)
  local kind = check(given)
  local self = setmetatable({ kind = kind, given = given }, Source)
  level = given.compress or level
  if kind == "archive" then
    return open_paths(self, given, level)
  elseif kind == "program" then
    return open_program(self, given, level, item, shown)
  end
  self.suffix = (given.suffix or "") .. ".gz"
  self.stream = given.stream:gzip { level = level, index = true }
  return self
end

--- The suffix that a source will be stored with. Misuse is raised.
---@param given table
---@return string
function source.suffix(given)
  return check(given) == "archive" and ".tar.gz" or (given.suffix or "") .. ".gz"
end

--- The stream, for the one that will read it.
function Source:take()
  local stream = self.stream
  self.stream = nil
  return stream
end

--- True when the source can be read a second time.
function Source:again()
  return self.kind ~= "stream" and not self.given.stdin
end

--- Counts the files of an archive beside the backup, so that progress knows where the end is.
function Source:begin()
  if self.walk and not self.total then
    self.counter = task.spawn(function()
      local ok, found = pcall(archive.estimate, self.walk)
      if ok and found then
        self.total = found.bytes
      end
    end)
  end
end

-- Bytes in use on all file systems that a walk of the paths could read; nil when that can't be said.
local function in_use(paths)
  local total, seen = 0, {}
  local places = table.move(paths, 1, #paths, 1, {})
  local mounts = io.open("/proc/self/mounts")
  for line in mounts and mounts:lines() or function() end do
    local place = line:match("^%S+ (%S+) ")
    for _, path in ipairs(paths) do
      if place and (path == "/" or place:sub(1, #path + 1) == path .. "/") then
        places[#places + 1] = place
      end
    end
  end
  if mounts then
    mounts:close()
  end
  for _, place in ipairs(places) do
    local info = statvfs.statvfs(place)
    if not info then
      return nil
    end
    local key = ("%d:%d"):format(info.f_fsid, info.f_blocks)
    if not seen[key] then
      seen[key] = true
      total = total + (info.f_blocks - info.f_bfree) * info.f_frsize
    end
  end
  return mounts and total or nil
end

--- How much an archive will hold, for a store that must know it beforehand. Walks the paths only when the
--- file systems under them hold more than `limit` bytes: what is less needs no number.
---@param limit integer bytes
---@return integer|nil
function Source:expected(limit)
  if not self.walk or limit == math.maxinteger then
    return nil
  end
  local paths = {}
  for i, root in ipairs(self.walk.roots) do
    paths[i] = fs.absolute(type(root) == "table" and root.path or root)
  end
  local used = in_use(paths)
  if used and used <= limit then
    return nil
  end
  local found = archive.estimate(self.walk)
  self.total = found and found.bytes
  return self.total
end

--- Where the source is now.
---@return integer read
---@return integer|nil total
---@return integer|nil files
function Source:sample()
  if self.archive then
    local at = self.archive:progress()
    return at.bytes, self.total, at.files
  end
  return nil
end

-- The facts about a program that has ended; its stream says whether that was well.
local function producer_of(self)
  local result = self.process:wait()
  if not result then
    return nil
  end
  return { command = self.command, code = result.code, signal = result.signal, seconds = result.seconds }
end

--- What the source says about itself after its end: {producers, archive, warnings, warning_count,
--- unreadable, raw_size}.
function Source:finish()
  local facts = { producers = {}, warnings = {}, warning_count = 0, unreadable = 0 }
  for _, producer in ipairs(self.given.producers or {}) do
    facts.producers[#facts.producers + 1] = producer
  end
  if self.process then
    facts.producers[#facts.producers + 1] = producer_of(self)
  end
  for _, message in ipairs(self.given.warnings or {}) do
    facts.warnings[#facts.warnings + 1] = { kind = "producer", message = message }
  end
  table.move(self.links or {}, 1, #(self.links or {}), #facts.warnings + 1, facts.warnings)
  facts.warning_count = #facts.warnings
  local result = self.archive and self.archive:result()
  if result then
    for _, warning in ipairs(result.warnings or {}) do
      facts.warnings[#facts.warnings + 1] = warning
    end
    facts.warning_count = facts.warning_count + (result.warning_count or #(result.warnings or {}))
    facts.unreadable = result.unreadable or 0
    facts.raw_size = result.bytes
    facts.archive = {
      files = result.files, directories = result.directories, links = result.links,
      others = result.others, bytes = result.bytes, members = result.members,
    }
  end
  return facts
end

--- Ends whatever still runs. Idempotent.
function Source:close()
  if self.counter then
    task.cancel(self.counter, "the backup has ended")
    self.counter = nil
  end
  if self.stream then
    self.stream:close()
    self.stream = nil
  end
  if self.process then
    self.process:close()
    self.process = nil
  end
end
Source.__close = Source.close

return source
