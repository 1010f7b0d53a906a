-- SPDX-License-Identifier: MIT
-- neo4j: databases of a Neo4j server (4.0 or later) with neo4j-admin, one archive each.
-- The exit status of neo4j-admin decides: 0 is a backup; 2 and 3 of 4.x are one whose consistency check
-- could not run or found something (a warning); anything else is none. Archives hold backups/DATABASE/...

local before = require "policies.neo4j.before"
local chain = require "policies.neo4j.chain"
local command = require "policies.neo4j.command"
local folder = require "policies.neo4j.folder"
local fs = require "lunark.fs"
local lock = require "lunark.lock"
local options = require "policies.neo4j.options"
local policy = require "lunark.policy"
local restore = require "policies.neo4j.restore"
local restore_options = require "policies.neo4j.restore_options"
local task = require "lunark.task"
local tool = require "policies.neo4j.tool"

local CHECKED = {
  [2] = "the backup is whole, its consistency check could not run",
  [3] = "the backup is whole, its consistency check found inconsistencies",
}

-- What a dump begins with: marks of its two forms of compression, or none before these. Some versions of
-- neo4j-admin print messages into it.
local DUMPS = { "DZV1", "DGV1", "\x1f\x8b", "\x28\xb5\x2f\xfd" }

-- A run of neo4j-admin: folders made, old reports removed.
local function prepare(job, database, dir)
  local run = { database = database, dir = dir, ok = { 0 } }
  run.report = folder.report(job.options, dir, database)
  run.log = run.report .. "/backup.log"
  local ok, err = fs.remove_all(run.report)
  if ok then
    ok, err = fs.mkdir_all(run.report)
  end
  return ok and run, err
end

local function nothing(run, producer, stale)
  return tool.left_nothing(run, producer,
    stale and "wrote nothing: what is there is of an earlier run" or "left no backup of " .. run.database)
end

-- Saves a database with what its run has left; `paths` are files and folders of the archive.
local function save(job, run, producer, paths, details)
  details.database, details.method, details.neo4j_version = run.database, "backup", job.options.version.text
  job:save(run.database, {
    paths = paths, whole = true, details = details,
    producers = { producer }, warnings = { CHECKED[producer.code] },
    report = { paths = { { path = run.report, name = "backups/.report_" .. run.database } } },
  })
end

-- 4.x: one folder for a database.
local function backup4(job, run)
  local path = run.dir .. "/" .. run.database
  local old = folder.snapshot(path)
  run.ok = { 0, 2, 3 }
  local producer, err = tool.run_at(job, run, command.backup4)
  if not producer then
    return nil, err
  end
  local files = fs.readdir(path)
  local written = run.fetched or folder.changed(old, folder.snapshot(path))
  if not files or #files == 0 or not written then
    return nil, nothing(run, producer, files ~= nil and #files > 0)
  end
  local recovered = job.options.prepare_restore ~= false
  save(job, run, producer, { { path = path, name = "backups/" .. run.database } }, { recovered = recovered })
  if not job.options.keep_failed then
    folder.clear_aside(run.dir, run.database)
  end
  return true
end

-- The artifacts of databases that were not there before.
local function new_artifacts(dir, pattern, old)
  local known, found = {}, {}
  for _, artifact in ipairs(old) do
    known[artifact.file] = true
  end
  for _, artifact in ipairs(folder.artifacts(dir, pattern)) do
    if not known[artifact.file] and artifact.size > 0 then
      found[#found + 1] = artifact
    end
  end
  return found
end

-- Saves the chain that ends with the newest artifact of a database.
local function save_chain(job, run, producer)
  local paths, files = {}, {}
  for i, artifact in ipairs(chain.of(job.options, run.database, run.dir)) do
    paths[i] = {
      path = run.dir .. "/" .. artifact.file, name = ("backups/%s/%s"):format(run.database, artifact.file),
    }
    files[i] = artifact.file
  end
  save(job, run, producer, paths, { chain = files })
end

-- Neo4j 5: a file with each run, and with it the chain that it ends.
local function backup5(job, run)
  local old = folder.artifacts(run.dir, run.database)
  local producer, err = tool.run_at(job, run, command.backup5)
  if not producer then
    return nil, err
  elseif not run.fetched and #new_artifacts(run.dir, run.database, old) == 0 then
    return nil, nothing(run, producer, #old > 0)
  end
  save_chain(job, run, producer)
  return true
end

-- Takes the files of a database away that are not to stay.
local function tidy(job, run)
  if job.options.remove_backup_files or not job.options.backup_dir then
    fs.remove_all(run.dir .. "/" .. run.database)
    for _, artifact in ipairs(folder.artifacts(run.dir, run.database)) do
      fs.unlink(run.dir .. "/" .. artifact.file)
    end
  end
  if not job.options.report_dir then
    fs.remove_all(run.report)
  end
end

-- Does one database: folders before, order afterwards.
local function backup_one(job, one, dir)
  local run, err = prepare(job, one.name, dir)
  local ok = run
  if run then
    run.fetched = one.fetched
    ok, err = before.space(job, one.name, dir)
  end
  if ok then
    ok, err = (job.options.version.major == 4 and backup4 or backup5)(job, run)
  end
  if not ok then
    job:fail(one.name, err)
  end
  if run then
    tidy(job, run)
  end
end

-- Runs neo4j-admin for all databases that match. The names of those that it has written.
local function fetch_matching(job, pattern, dir)
  local run, err = prepare(job, pattern, dir)
  if not run then
    job:fail(pattern, err)
    return {}
  end
  local four = job.options.version.major == 4
  local old = four and folder.databases(dir, pattern) or folder.artifacts(dir, pattern)
  run.fetch = true
  local producer
  producer, err = tool.run_at(job, run, four and command.backup4 or command.backup5)
  fs.remove_all(run.report)
  local names, seen = {}, {}
  if four then
    for name, snapshot in pairs(folder.databases(dir, pattern)) do
      names[#names + 1] = folder.changed(old[name] or {}, snapshot) and name or nil
    end
  else
    for _, artifact in ipairs(new_artifacts(dir, pattern, old)) do
      names[#names + 1] = not seen[artifact.database] and artifact.database or nil
      seen[artifact.database] = true
    end
  end
  table.sort(names)
  if not producer then
    job:fail(pattern, err)
  elseif #names == 0 then
    job:fail(pattern, nothing(run, producer))
  end
  return names
end

-- The databases to back up by name: {name=, fetched= (a pattern's run has written it already)}. Each of them
-- has a run of its own, because that of a pattern does not say how each database fared.
local function expand(job, dir)
  local list, known = {}, {}
  local function add(name, fetched)
    if not known[name] then
      known[name] = { name = name }
      list[#list + 1] = known[name]
    end
    known[name].fetched = known[name].fetched or fetched
  end
  for _, name in ipairs(job.options.names) do
    if not folder.is_pattern(name) then
      add(name, false)
    else
      for _, found in ipairs(fetch_matching(job, name, dir)) do
        add(found, true)
      end
    end
  end
  return list
end

-- The folder that neo4j-admin writes to, and what keeps other runs out of it.
local function open_folder(job)
  local given = job.options
  if not given.backup_dir then
    local base = assert(job:work_dir())
    assert(fs.mkdir_all(base .. "/backups"))
    return base .. "/backups", nil
  end
  local dir = fs.absolute(given.backup_dir)
  assert(fs.mkdir_granted(dir))
  local held = assert(lock.take(dir))
  for _, name in ipairs(given.remove_existing_files and given.names or {}) do
    assert(folder.clear(dir, name))
  end
  return dir, held
end

local function backup_all(job)
  if job.options.report_dir then
    assert(fs.mkdir_granted(job.options.report_dir))
  end
  local dir, lock_of_dir = open_folder(job)
  local _ <close> = lock_of_dir
  before.run(job, dir)
  task.map(expand(job, dir), before.at_once(job), function(one)
    backup_one(job, one, dir)
  end)
end

local function dump_all(job)
  before.run(job)
  task.map(job.options.names, before.at_once(job), function(database)
    job:save(database, {
      program = command.dump(job.options, database), suffix = ".dump", begins = DUMPS,
      env = { HEAP_SIZE = job.options.heap_size },
      details = { database = database, method = "dump", neo4j_version = job.options.version.text },
    })
  end)
end

return policy {
  api = 1,
  name = "neo4j",
  summary = "databases of a Neo4j server with neo4j-admin",
  naming = "compat",
  needs = options.needs,
  options = options.declared,
  check = options.check,
  restore = {
    summary = "restore databases with neo4j-admin into the folder of a stopped server",
    needs = restore_options.needs, options = restore_options.declared, check = restore_options.check,
    run = restore.run,
  },
  backup = function(job)
    if job.options.method == "dump" then
      dump_all(job)
    else
      backup_all(job)
    end
  end,
}
