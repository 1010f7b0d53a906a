-- SPDX-License-Identifier: MIT
-- neo4j: databases of a Neo4j server (4.0 or later) with neo4j-admin, one archive each.
-- The exit status of neo4j-admin decides: 0 is a backup; 2 and 3 of 4.x are one whose consistency check
-- could not run or found something (a warning); anything else is none. Archives hold backups/DATABASE/...

local before = require "policies.neo4j.before"
local command = require "policies.neo4j.command"
local exec = require "lunark.exec"
local folder = require "policies.neo4j.folder"
local fs = require "lunark.fs"
local lock = require "lunark.lock"
local log = require "lunark.log"
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

-- The files of a chain that ends with the newest artifact: back to the last full one.
local function chain_of(job, database, dir, artifacts)
  if #artifacts < 2 then
    return artifacts
  end
  local argv = command.inspect(job.options, database, dir)
  local result, err = exec.run(argv)
  local full, listed = {}, {}
  for line in (result and result.stdout or ""):gmatch("[^\n]+") do
    local file = line:match("([^/|%s]+%.backup)")
    if file then
      local cells = {}
      for cell in line:gmatch("[^|]+") do
        cells[#cells + 1] = cell:match("^%s*(.-)%s*$"):lower()
      end
      listed[file], full[file] = true, cells[5] == "true"
    end
  end
  local chain = {}
  for i = #artifacts, 1, -1 do
    local file = artifacts[i].file
    if listed[file] or i == #artifacts then
      table.insert(chain, 1, artifacts[i])
    end
    if full[file] then
      return chain
    end
  end
  if job.options.version.major >= 2025 and listed[artifacts[#artifacts].file] then
    return chain -- it lists the latest chain alone
  end
  log.warn(("%s: the chain of its backups is not known, all %d files are stored%s")
    :format(database, #artifacts, err and ": " .. err.message or ""), { item = database })
  return artifacts
end

-- Saves a database with what its run has left; `paths` are files and folders of the archive.
local function save(job, run, producer, paths, details)
  details.database, details.method, details.neo4j_version = run.database, "backup", job.options.version.text
  job:save(run.database, {
    paths = paths, producers = { producer }, warnings = { CHECKED[producer.code] }, details = details,
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
  if not files or #files == 0 or not folder.changed(old, folder.snapshot(path)) then
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
  for i, artifact in ipairs(chain_of(job, run.database, run.dir, folder.artifacts(run.dir, run.database))) do
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
  elseif #new_artifacts(run.dir, run.database, old) == 0 then
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

-- Does one database: folders before, `work(run)`, which gives true or nil and an error, and order afterwards.
local function with_run(job, database, dir, work)
  local run, err = prepare(job, database, dir)
  local ok = run
  if run then
    ok, err = work(run)
  end
  if not ok then
    job:fail(database, err)
  end
  if run then
    tidy(job, run)
  end
end

local function backup_one(job, database, dir)
  with_run(job, database, dir, function(run)
    local ok, err = before.space(job, database, dir)
    if not ok then
      return nil, err
    end
    return (job.options.version.major == 4 and backup4 or backup5)(job, run)
  end)
end

-- Saves a database that a run for a pattern has backed up; what that said is in its report.
local function save_matching(job, name, dir, producer)
  with_run(job, name, dir, function(run)
    local ok, err = fs.write_text(run.log, producer.result.stdout)
    if ok then
      save_chain(job, run, producer)
    end
    return ok, err
  end)
end

-- Runs neo4j-admin for all databases that match. Names of what it wrote, and of what is saved already: with
-- Neo4j 5 a run that ends with 0 is one for each database.
local function backup_matching(job, pattern, dir, done)
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
  elseif not four then
    for _, name in ipairs(names) do
      if not done[name] then
        done[name] = true
        save_matching(job, name, dir, producer)
      end
    end
  end
  return names
end

-- The databases to back up by name, after those that a pattern stands for were found.
local function expand(job, dir)
  local names, done = {}, {}
  for _, name in ipairs(job.options.names) do
    done[name] = not name:find("[*?]") or nil
  end
  for _, name in ipairs(job.options.names) do
    if done[name] then
      names[#names + 1] = name
    else
      for _, found in ipairs(backup_matching(job, name, dir, done)) do
        names[#names + 1] = not done[found] and found or nil
        done[found] = true
      end
    end
  end
  return names
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
  task.map(expand(job, dir), job.options.parallel, function(database)
    backup_one(job, database, dir)
  end)
end

local function dump_all(job)
  before.run(job)
  task.map(job.options.names, job.options.parallel, function(database)
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
