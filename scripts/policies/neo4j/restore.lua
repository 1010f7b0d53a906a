-- SPDX-License-Identifier: MIT
-- neo4j: restores databases. All backups are read and compared with their manifests before neo4j-admin
-- starts; an old database is set aside until the new one is whole.

local choice = require "policies.neo4j.restore_choice"
local command = require "policies.neo4j.command"
local folder = require "policies.neo4j.folder"
local fs = require "lunark.fs"
local lock = require "lunark.lock"
local log = require "lunark.log"
local machine = require "lunark.machine"
local naming = require "lunark.naming"
local state = require "policies.neo4j.restore_state"
local sys = require "lunark.core.sys"
local task = require "lunark.task"
local tool = require "policies.neo4j.tool"

local restore = {}

local STAGING = ".restore"
local UPGRADE = "dbms.allow_upgrade=true"

local function failed(kind, message, hint)
  return nil, sys.error { kind = kind, message = message, hint = hint }
end

-- Where a backup is once it is unpacked: a folder of 4.x, the last artifact of a chain, the folder of a dump.
local function source_of(job, one, staging)
  if one.dump then
    return staging .. "/dumps/" .. one.database
  end
  local given = job.options.backup_set_dir
  local inside = given and given:sub(1, #staging + 1) == staging .. "/" and given:sub(#staging + 2) or given
  local tried = inside and { inside } or { "backups/" .. one.database, "data/" .. one.database }
  for _, below in ipairs(tried) do
    local path = staging .. "/" .. below:gsub("^/+", "")
    if #(fs.readdir(path) or {}) > 0 then
      local artifacts = folder.artifacts(path, "*")
      return #artifacts > 0 and path .. "/" .. artifacts[#artifacts].file or path
    end
  end
  return failed("corrupt",
    ("%s: the archive has no %s in it"):format(one.backup.key, table.concat(tried, " and no ")),
    "say with --backup-set-dir which folder it is")
end

-- Reads a backup onto the data volume. Nothing has been changed when this fails.
local function fetch(job, one, staging)
  local into = staging
  if one.dump then
    into = staging .. "/dumps/" .. one.database
    assert(fs.mkdir_all(into))
  end
  log.info(("%s: reading %s"):format(one.database, one.backup.key), { item = one.database })
  local result, err = job:read(one.backup, one.expected, into)
  if result and one.dump then
    local path = ("%s/%s.dump"):format(into, one.database)
    local ok = true
    if result.path ~= path then
      ok, err = fs.rename(result.path, path)
    end
    result = ok and result
  end
  if not result then
    return nil, err
  end
  one.bytes = result.bytes
  one.source, err = source_of(job, one, staging)
  return one.source, err
end

local function run_tool(job, database, staging, argv)
  local run = {
    database = database, dir = job.options.data_dir, log = ("%s/%s.log"):format(staging, database),
    ok = { 0 }, restores = true,
  }
  return tool.run(job, run, argv)
end

local function argv_of(job, one)
  if one.dump then
    return command.load(job.options, one.database, one.source)
  end
  local make = job.options.version.major == 4 and command.restore4 or command.restore5
  return make(job.options, one.database, one.source)
end

-- The owner may read and write everything of a database, whatever the archive says.
local function open_modes(path)
  local info, err = fs.lstat(path)
  local ok = info
  local least = info and info.type == "directory" and tonumber("700", 8) or tonumber("600", 8)
  if info and info.type ~= "link" and info.mode & least ~= least then
    ok, err = fs.chmod(path, info.mode | least)
  end
  for _, name in ipairs(ok and info.type == "directory" and fs.readdir(path) or {}) do
    if ok then
      ok, err = open_modes(path .. "/" .. name)
    end
  end
  return ok and true, err
end

-- The new database: made, found where it belongs, given to its owner.
local function make(job, one, staging)
  local given = job.options
  local ok, err = true, nil
  if one.recovered == false and given.version.major == 4 then
    ok, err = run_tool(job, one.database, staging,
      { "neo4j-admin", "prepare-restore", "--target=" .. one.source, given.verbose and "--verbose" or nil })
  end
  if ok then
    ok, err = run_tool(job, one.database, staging, argv_of(job, one))
  end
  if not ok then
    return nil, err
  end
  local path = state.path(given.data_dir, one.database)
  if #(fs.readdir(path) or {}) == 0 then
    return failed("io", ("%s: neo4j-admin ended with status 0, and there is no database in %s")
      :format(one.database, path), "is --data-dir the folder that its configuration names?")
  end
  for _, below in ipairs { "databases", "transactions", "scripts" } do
    local there = ("%s/%s"):format(given.data_dir, below)
    if ok and given.uid and fs.exists(there) then
      ok, err = fs.chown_all(there, given.uid, given.gid)
    end
  end
  if ok then
    ok, err = open_modes(path)
  end
  return ok, err
end

-- Sets the old database aside, makes the new one, and ends with one of the two alone, also when the run is
-- ended meanwhile: neo4j-admin is over by then.
local function replace(job, one, staging, marker)
  local dir = job.options.data_dir
  local ok, err, ended, why
  do
    local _ <close> = task.finally(function()
      ended, why = state.finish(dir, marker)
    end)
    ok, err = state.begin(dir, marker, one.database)
    if ok then
      ok, err = make(job, one, staging)
    end
    if ok then
      marker.done[one.database] = one.backup.key
      ok, err = state.write(dir, marker)
    end
  end
  assert(ended, why)
  return ok, err
end

-- Users and roles of a database are in a script of their own.
local function say_metadata(given, database)
  for _, path in ipairs {
    ("%s/scripts/%s/restore_metadata.cypher"):format(given.data_dir, database),
    state.path(given.data_dir, database) .. "/tools/metadata_script.cypher",
  } do
    if fs.exists(path) then
      log.info(("%s: users and roles are in %s; once the server runs: cat %s | cypher-shell -d system "
        .. "--param \"database => '%s'\""):format(database, path, path, database), { item = database })
      return
    end
  end
end

local function allow_upgrade(path)
  local text, err = fs.read_text(path)
  if not text then
    return nil, err
  elseif ("\n" .. text):find("\n%s*dbms%.allow_upgrade%s*=%s*true%s*\n") then
    return true
  end
  local info = fs.stat(path)
  text = text:gsub("([^\n])$", "%1\n") .. UPGRADE .. "\n"
  return fs.write_text(path, text, info and info.mode & tonumber("7777", 8), path .. ".lunark.tmp")
end

-- A folder below which this user can't remove everything.
local function not_ours(path)
  local info = fs.lstat(path)
  if not info or info.type ~= "directory" then
    return nil
  elseif not fs.access(path, "w") then
    return path
  end
  for _, name in ipairs(fs.readdir(path) or {}) do
    local found = not_ours(path .. "/" .. name)
    if found then
      return found
    end
  end
  return nil
end

-- What is the matter before anything is touched.
local function check_all(job, chosen)
  local given = job.options
  for _, one in ipairs(chosen) do
    for _, path in ipairs(state.paths(given.data_dir, one.database)) do
      local theirs = not_ours(path)
      if theirs then
        return failed("io", ("%s: %s can't be replaced by this user"):format(one.database, theirs),
          "run as the user that owns it (neo4j), or as root")
      end
    end
    local locked = state.path(given.data_dir, one.database) .. "/database_lock"
    if machine.is_locked(locked) then
      return failed("conflict", ("%s: a server has this database in use"):format(one.database),
        "stop it, or this database, first")
    end
  end
  return choice.check_space(job, chosen)
end

local function fetch_all(job, chosen, staging)
  for _, one in ipairs(chosen) do
    local ok, err = fetch(job, one, staging)
    if not ok then
      err.item = err.item or one.database
      return nil, err
    end
  end
  return true
end

local function restore_all(job, chosen, staging, marker)
  local given = job.options
  local dumps = true
  for _, one in ipairs(chosen) do
    dumps = dumps and one.dump
  end
  if given.version.major == 4 and given.unbind and not dumps then
    assert(run_tool(job, "unbind", staging, { "neo4j-admin", "unbind" }))
  end
  if given.allow_upgrade then
    assert(allow_upgrade(given.allow_upgrade))
  end
  for _, one in ipairs(chosen) do
    local ok, err = replace(job, one, staging, marker)
    if not ok then
      err.item = one.database
      error(err)
    end
    log.info(("%s: restored %s"):format(one.database, one.backup.key),
      { item = one.database, key = one.backup.key })
    job:done(choice.facts(one))
    if one.database ~= "system" then
      say_metadata(given, one.database)
    end
  end
end

local function say_plan(job, chosen)
  for _, one in ipairs(chosen) do
    one.source = one.source or "..."
    log.info(("%s: would restore %s of %s"):format(one.database, one.backup.key,
      one.backup.time and naming.format_time(one.backup.time) or "an unknown time"), { item = one.database })
    job:done(choice.facts(one))
  end
end

-- The databases that are to be restored: not those that are there, as far as it was asked for.
local function wanted(given, marker)
  local names, there = {}, {}
  for _, name in ipairs(given.names) do
    local done = marker.state == "begun" and marker.request == given.request and marker.done[name]
    if given.force or not state.exists(given.data_dir, name) then
      names[#names + 1] = name
    elseif done then
      log.info(("%s: was restored by the run that was ended"):format(name), { item = name })
    elseif given.skip_existing then
      log.info(("%s: is there already, and stays as it is"):format(name), { item = name })
    else
      there[#there + 1] = name
    end
  end
  if #there > 0 then
    return failed("conflict", ("%s: there is such a database in %s/databases")
      :format(table.concat(there, ", "), given.data_dir), "--force (FORCE_OVERWRITE=true) replaces it")
  end
  return names
end

local function is_done(given, marker)
  if not given.once or marker.state ~= "done" or marker.request ~= given.request then
    return false
  end
  for _, name in ipairs(given.names) do
    if not state.exists(given.data_dir, name) then
      return false
    end
  end
  return true
end

-- Leaves out what a restore of the same request that was ended in the middle had done. Without --once, who
-- forces means it.
local function left_over(given, chosen, marker)
  local same = marker.state == "begun" and marker.request == given.request
  local rest = {}
  for _, one in ipairs(chosen) do
    local done = same and given.once and marker.done[one.database] == one.backup.key
    if not (done and state.exists(given.data_dir, one.database)) then
      rest[#rest + 1] = one
    end
  end
  return rest, same and marker.done or {}
end

-- From here on the data volume is changed. `held`: the lock, where there was something to lock.
local function work(job, chosen, before, held)
  local given = job.options
  local staging = given.data_dir .. "/" .. STAGING
  assert(fs.mkdir_all(staging, tonumber("700", 8)))
  local _ <close> = not held and assert(lock.take(staging)) or nil
  local rest, done = left_over(given, chosen, before)
  for _, name in ipairs(fs.readdir(staging) or {}) do
    if name ~= lock.NAME then
      assert(fs.remove_all(staging .. "/" .. name))
    end
  end
  local marker = { request = given.request, state = "begun", done = done }
  local _ <close> = setmetatable({}, { __close = function(_, err)
    if err or given.purge_on_complete then
      fs.remove_all(staging)
    end
  end })
  assert(fetch_all(job, rest, staging))
  restore_all(job, rest, staging, marker)
  marker.state = "done"
  assert(state.write(given.data_dir, marker))
end

--- Restores what the options name. Raises what went wrong.
---@param job lunark.recovery.Job
function restore.run(job)
  local given = job.options
  job.at = job.at or given.time
  given.request = state.request(job.store:describe(), given.names, job.at)
  local staging = given.data_dir .. "/" .. STAGING
  -- Of a restore that goes on, or of one that was killed: only the first holds its lock.
  local held <close> = not job.dry_run and fs.is_dir(staging) and assert(lock.take(staging)) or nil
  local marker = state.read(given.data_dir)
  if is_done(given, marker) then
    log.info("this was restored before: nothing is done", { request = given.request })
    return
  end
  if marker.at_work and not job.dry_run then
    log.warn(("%s: a restore was ended in the middle; what it has left is removed"):format(marker.at_work))
    assert(state.finish(given.data_dir, marker))
  end
  local names = assert(wanted(given, marker))
  if #names == 0 then
    return
  end
  local chosen = choice.choose(job, names)
  assert(check_all(job, chosen))
  if job.dry_run then
    return say_plan(job, chosen)
  end
  work(job, chosen, marker, held)
end

return restore
