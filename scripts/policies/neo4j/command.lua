-- SPDX-License-Identifier: MIT
-- neo4j: command lines of neo4j-admin. Options in the order in which the Labs chart gives them.

local command = {}

local function told(argv, options, name, default)
  local value = options[name]
  if value == nil then
    value = default
  end
  if value ~= nil then
    argv[#argv + 1] = ("--%s=%s"):format(name:gsub("_", "-"), tostring(value))
  end
end

-- What the tool of both versions takes at the end.
local function common(argv, options)
  told(argv, options, "additional_config")
  argv[#argv + 1] = options.expand_commands and "--expand-commands" or nil
end

--- `neo4j-admin backup` of Neo4j 4.x.
---@param options table of the policy
---@param run table {address=, database= (name or pattern), dir=, report=, fetch= (true: no check)}
---@return string[]
function command.backup4(options, run)
  local argv = {
    "neo4j-admin", "backup", "--from=" .. run.address, "--backup-dir=" .. run.dir,
    "--database=" .. run.database,
  }
  told(argv, options, "pagecache")
  told(argv, options, "fallback_to_full", true)
  local checked = not run.fetch and options.prepare_restore ~= false and options.check_consistency ~= false
  argv[#argv + 1] = "--check-consistency=" .. tostring(checked)
  argv[#argv + 1] = "--report-dir=" .. run.report
  told(argv, options, "check_graph", true)
  told(argv, options, "check_indexes", true)
  told(argv, options, "check_index_structure")
  told(argv, options, "check_label_scan_store", true)
  told(argv, options, "check_property_owners", false)
  if run.database ~= "system" then
    told(argv, options, "include_metadata")
  end
  told(argv, options, "prepare_restore")
  told(argv, options, "parallel_recovery")
  common(argv, options)
  argv[#argv + 1] = options.verbose and "--verbose" or nil
  return argv
end

--- `neo4j-admin database backup` of Neo4j 5 and later.
---@param options table of the policy
---@param run table {address=, database=, dir=, fetched= (a pattern's run has just backed it up)}
---@return string[]
function command.backup5(options, run)
  local argv = { "neo4j-admin", "database", "backup", "--from=" .. run.address }
  if run.database ~= "system" then
    told(argv, options, "include_metadata", "all")
  end
  told(argv, options, "keep_failed")
  told(argv, options, "parallel_recovery", false)
  -- What a pattern's run has just fetched in full is continued.
  local again = run.fetched and options.type == "FULL"
  argv[#argv + 1] = "--type=" .. (again and "AUTO" or options.type or "AUTO")
  argv[#argv + 1] = "--to-path=" .. run.dir
  told(argv, options, "pagecache")
  common(argv, options)
  argv[#argv + 1] = options.verbose and "--verbose" or nil
  argv[#argv + 1] = run.database
  return argv
end

--- A dump on standard output, of a database that nothing uses. Never with --verbose: what that says goes to
--- standard output, too, before the dump.
---@param options table of the policy
---@param database string
---@return string[]
function command.dump(options, database)
  local argv
  if options.version.major == 4 then
    argv = { "neo4j-admin", "dump", "--database=" .. database, "--to=-" }
  else
    argv = { "neo4j-admin", "database", "dump", "--to-stdout" }
  end
  common(argv, options)
  argv[#argv + 1] = options.version.major > 4 and database or nil
  return argv
end

--- Lists the artifacts of a folder. `backup inspect` is there since 5.25; since 2025.07 it always shows what
--- is in them, and has no option for that.
---@param options table of the policy
---@param database string
---@param dir string
---@return string[]
---@return boolean alone whether it lists the newest chain and nothing else
function command.inspect(options, database, dir)
  local major, minor = options.version.major, options.version.minor
  if major == 5 and minor < 25 then
    return { "neo4j-admin", "database", "backup", "--inspect-path=" .. dir }, false
  end
  local argv = { "neo4j-admin", "backup", "inspect", "--database=" .. database, "--latest-chain", "--empty" }
  if major == 5 or (major == 2025 and minor < 7) then
    argv[#argv + 1] = "--show-metadata"
  end
  argv[#argv + 1] = dir
  return argv, true
end

--- `neo4j-admin restore` of Neo4j 4.x, as the restore container of the Labs chart has it.
---@param options table of the restore
---@param database string
---@param from string folder of the backup
---@return string[]
function command.restore4(options, database, from)
  local argv = { "neo4j-admin", "restore", "--from=" .. from, "--database=" .. database }
  argv[#argv + 1] = options.force and "--force" or nil
  for _, word in ipairs {
    "--to-data-directory", options.data_dir .. "/databases/", "--to-data-tx-directory",
    options.data_dir .. "/transactions/", "--move",
  } do
    argv[#argv + 1] = word
  end
  argv[#argv + 1] = options.verbose and "--verbose" or nil
  return argv
end

--- `neo4j-admin database restore` of Neo4j 5 and later. A differential artifact brings its chain with it,
--- from the folder that it is in.
---@param options table of the restore
---@param database string
---@param from string an artifact, or the folder of a backup of 4.x
---@return string[]
function command.restore5(options, database, from)
  local argv = { "neo4j-admin", "database", "restore", "--from-path=" .. from }
  argv[#argv + 1] = options.force and "--overwrite-destination=true" or nil
  told(argv, options, "restore_until")
  argv[#argv + 1] = ("--to-path-data=%s/databases/"):format(options.data_dir)
  argv[#argv + 1] = ("--to-path-txn=%s/transactions/"):format(options.data_dir)
  argv[#argv + 1] = options.verbose and "--verbose" or nil
  argv[#argv + 1] = database
  return argv
end

--- Loads a dump into the folder that neo4j-admin has in its configuration.
---@param options table of the restore
---@param database string
---@param dir string folder with DATABASE.dump in it
---@return string[]
function command.load(options, database, dir)
  local argv
  if options.version.major == 4 then
    argv = { "neo4j-admin", "load", ("--from=%s/%s.dump"):format(dir, database), "--database=" .. database }
    argv[#argv + 1] = options.force and "--force" or nil
  else
    argv = { "neo4j-admin", "database", "load", "--from-path=" .. dir }
    argv[#argv + 1] = options.force and "--overwrite-destination=true" or nil
  end
  argv[#argv + 1] = options.verbose and "--verbose" or nil
  argv[#argv + 1] = options.version.major > 4 and database or nil
  return argv
end

return command
