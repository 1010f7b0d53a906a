-- SPDX-License-Identifier: MIT
-- neo4j: databases of a Neo4j 4.x server with `neo4j-admin backup`, one archive each.
-- The exit status of neo4j-admin decides: 0 is a backup, 2 and 3 are one whose consistency check could
-- not run or found something (a warning), and anything else is none. Archives hold backups/DATABASE/...

local exec = require "lunark.exec"
local fs = require "lunark.fs"
local policy = require "lunark.policy"

local CHECKED = {
  [2] = "the backup is whole, its consistency check could not run",
  [3] = "the backup is whole, its consistency check found inconsistencies",
}

local function flag(env, default, help)
  return { "boolean", env = env, default = default, help = help }
end

local function command(options, database, dir)
  local function told(name)
    return ("--%s=%s"):format(name:gsub("_", "-"), tostring(options[name]))
  end
  local address = options.address:find(":%d+$") and options.address or options.address .. ":6362"
  local argv = {
    "neo4j-admin", "backup", "--from=" .. address, "--backup-dir=" .. dir, "--database=" .. database,
    told "pagecache", told "fallback_to_full", told "check_consistency",
    ("--report-dir=%s/.report_%s"):format(dir, database), told "check_graph", told "check_indexes",
    told "check_label_scan_store", told "check_property_owners",
  }
  argv[#argv + 1] = options.verbose and "--verbose" or nil
  return argv
end

-- Backs up one database into the folder. What it was, for the manifest; or nil, err.
local function dump(job, database, dir)
  local report = ("%s/.report_%s"):format(dir, database)
  local ok, err = fs.mkdir_all(report)
  if not ok then
    return nil, err
  end
  local _ <close> = job:waiting(database, "neo4j-admin")
  local argv = command(job.options, database, dir)
  local run = {
    env = { HEAP_SIZE = job.options.heap_size }, stdout = "log", ok = { 0, 2, 3 }, log_prefix = database,
  }
  local result
  result, err = exec.run(table.move(argv, 1, #argv, 1, run))
  if not result then
    return nil, err
  end
  local files = fs.readdir(dir .. "/" .. database)
  if not files or #files == 0 then
    return nil, job:error {
      kind = "exit", code = result.code,
      message = ("neo4j-admin ended with status %d and left no backup of %s"):format(result.code, database),
    }
  end
  return { command = argv, code = result.code, seconds = result.seconds }
end

return policy {
  api = 1,
  name = "neo4j",
  summary = "databases of a Neo4j 4.x server with neo4j-admin backup",
  naming = "compat",
  needs = { exec = { "neo4j-admin" } },
  options = {
    address = { "string", env = "NEO4J_ADDR", required = true, metavar = "HOST[:6362]", help = "the server" },
    database = { "list", env = "DATABASE", required = true, metavar = "NAME,...", help = "what to back up" },
    heap_size = {
      "string", env = "HEAP_SIZE", default = "2G", metavar = "SIZE", help = "heap of neo4j-admin",
    },
    pagecache = {
      "string", env = "PAGE_CACHE", default = "2G", metavar = "SIZE", help = "page cache of neo4j-admin",
    },
    fallback_to_full = flag("FALLBACK_TO_FULL", true, "make a full backup where an incremental one fails"),
    check_consistency = flag("CHECK_CONSISTENCY", true, "check the backup"),
    check_graph = flag("CHECK_GRAPH", true, "check nodes and relationships"),
    check_indexes = flag("CHECK_INDEXES", true, "check indexes"),
    check_label_scan_store = flag("CHECK_LABEL_SCAN_STORE", true, "check the label scan store"),
    check_property_owners = flag("CHECK_PROPERTY_OWNERS", false, "check owners of properties"),
    verbose = { "boolean", default = true, help = "let neo4j-admin say more" },
  },
  check = function(options)
    for _, database in ipairs(options.database) do
      if not database:find("^[%w][%w._%-]*$") then
        return nil, ("'%s' is no name of a database"):format(database), "list the databases by name"
      end
    end
    return true
  end,
  backup = function(job)
    local base, err = job:work_dir()
    for _, database in ipairs(job.options.database) do
      local producer
      if base then
        producer, err = dump(job, database, base .. "/backups")
      end
      if not producer then
        job:fail(database, err)
      else
        job:save(database, {
          paths = { { path = base .. "/backups/" .. database, name = "backups/" .. database } },
          producers = { producer }, warnings = { CHECKED[producer.code] },
        })
        fs.remove_all(base .. "/backups/" .. database)
      end
    end
  end,
}
