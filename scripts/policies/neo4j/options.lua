-- SPDX-License-Identifier: MIT
-- neo4j: the options of the policy, and what is wrong with them before anything is touched.

local fs = require "lunark.fs"
local options = require "lunark.options"
local tool = require "policies.neo4j.tool"

local M = {}

local function flag(env, help)
  return { "boolean", env = env, help = help }
end

M.declared = {
  address = {
    "list", env = "NEO4J_ADDR", metavar = "HOST[:6362],...", help = "the servers, tried in this order",
  },
  from = { "list", metavar = "HOST[:6362],...", help = "the same as --address" },
  database = {
    "list", env = "DATABASE", metavar = "NAME,...",
    help = "what to back up; `*` and `?` stand for any letters",
  },
  databases = { "list", metavar = "NAME,...", help = "the same as --database" },
  method = {
    "enum", values = { "backup", "dump" }, default = "backup",
    help = "backup: of a running server (Enterprise); dump: of a stopped one on this machine",
  },
  neo4j_version = { "string", metavar = "X.Y", help = "version of neo4j-admin (default: it is asked)" },
  heap_size = {
    "string", env = "HEAP_SIZE", metavar = "SIZE", help = "heap of neo4j-admin (default: its own)",
  },
  pagecache = {
    "string", env = "PAGE_CACHE", metavar = "SIZE", help = "page cache of neo4j-admin (default: its own)",
  },
  backup_dir = {
    "string", metavar = "DIR",
    help = "folder that neo4j-admin writes to (default: a fresh one below --work-dir)",
  },
  report_dir = {
    "string", metavar = "DIR", help = "folder for reports (default: in the folder of the backup)",
  },
  remove_existing_files = {
    "boolean", env = "REMOVE_EXISTING_FILES", default = true,
    help = "remove what is in --backup-dir before the run",
  },
  remove_backup_files = {
    "boolean", env = "REMOVE_BACKUP_FILES", default = true,
    help = "remove a backup from --backup-dir after the run",
  },
  keep_failed = { "boolean", default = false, help = "keep what neo4j-admin set aside (DATABASE.err.N)" },
  check_space = { "boolean", default = true, help = "compare free space with the size of the backup before" },
  parallel = {
    "integer", min = 1, max = 64,
    help = "databases that are backed up at once (default: what --jobs says, or else 1)",
  },
  type = { "enum", values = { "AUTO", "FULL", "DIFF" }, help = "Neo4j 5: kind of backup (default: AUTO)" },
  fallback_to_full = flag("FALLBACK_TO_FULL", "4.x: a full one where an incremental fails (default: true)"),
  check_consistency = flag("CHECK_CONSISTENCY", "4.x: check the backup (default: true)"),
  check_graph = flag("CHECK_GRAPH", "4.x: check nodes and relationships (default: true)"),
  check_indexes = flag("CHECK_INDEXES", "4.x: check indexes (default: true)"),
  check_index_structure = flag(nil, "4.x: check the structure of indexes"),
  check_label_scan_store = flag("CHECK_LABEL_SCAN_STORE", "4.x: ignored by late ones (default: true)"),
  check_property_owners = flag("CHECK_PROPERTY_OWNERS", "4.x: ignored by late ones (default: false)"),
  prepare_restore = flag(nil, "4.x: recover the backup; without it there is no check either"),
  parallel_recovery = flag(nil, "recover with several threads (experimental)"),
  include_metadata = {
    "enum", values = { "all", "users", "roles", "none" }, help = "users and roles in the backup",
  },
  additional_config = { "string", metavar = "FILE", help = "configuration for neo4j-admin" },
  expand_commands = {
    "boolean", default = false, help = "let neo4j-admin expand commands in its configuration",
  },
  verbose = { "boolean", default = true, help = "let neo4j-admin say more (not of a dump)" },
}

local ONLY_4 = { "check_index_structure", "prepare_restore" }

local function label(name)
  return "--" .. name:gsub("_", "-")
end

local function check_databases(given)
  given.names = tool.databases(given)
  if #given.names == 0 then
    return nil, "policy neo4j: --database is missing", "or set DATABASE in the environment"
  end
  for _, name in ipairs(given.names) do
    if not name:find("^[%w*?][%w._*?-]*$") then
      return nil, ("'%s' is no name of a database"):format(name),
        "letters, digits, '.', '_' and '-'; '*' and '?' for any letters; commas between names"
    elseif given.method == "dump" and name:find("[*?]") then
      return nil, ("'%s': a dump takes databases by name"):format(name), "list the databases"
    end
  end
  return true
end

local function check_sizes(given)
  for _, name in ipairs { "heap_size", "pagecache" } do
    local value = given[name]
    if value and not (value:find("^%d+[kKmMgGtT]?$") and options.convert(value, "size", name)) then
      return nil, ("%s: '%s' is no size"):format(label(name), value), "write a number with k, m or g: 2G"
    end
  end
  return true
end

local function check_folders(given)
  for _, name in ipairs { "backup_dir", "report_dir" } do
    local path = given[name]
    if path == "" or (path and fs.exists(path) and not fs.is_dir(path)) then
      return nil, ("%s '%s': a folder expected"):format(label(name), path)
    end
  end
  given.report_dir = given.report_dir and fs.absolute(given.report_dir)
  local keeps = not given.remove_existing_files or not given.remove_backup_files
  if keeps and not given.backup_dir and given.method == "backup" then
    return nil, "files of a backup can be kept only in a folder of their own",
      "add --backup-dir DIR, or leave REMOVE_EXISTING_FILES and REMOVE_BACKUP_FILES true"
  end
  return true
end

local function is_address(text)
  local host, port = tool.split_address(text)
  local ipv6 = host:find(":.*:") and (host:find("^[%x:.]+$") or host:find("^[%x:.]+%%%w+$"))
  return (ipv6 or host:find("^[%w._-]+$")) and port >= 1 and port <= 65535
end

local function check_addresses(given)
  given.servers = tool.addresses(given)
  if given.method ~= "backup" then
    return true
  elseif #given.servers == 0 then
    return nil, "policy neo4j: --address is missing", "or set NEO4J_ADDR in the environment"
  end
  for _, address in ipairs(given.servers) do
    if not is_address(address) then
      return nil, ("--address '%s' is no address"):format(address), "write HOST, HOST:PORT or [IPV6]:PORT"
    end
  end
  return true
end

local function check_for_version(given)
  local version = given.version
  if given.method == "dump" then
    if version.major == 4 and given.additional_config then
      return nil, ("--additional-config is not for a dump of neo4j-admin %s"):format(version.text)
    end
    return true
  elseif version.major == 4 and (given.type or given.include_metadata == "none") then
    return nil, ("%s is of Neo4j 5, this is neo4j-admin %s")
      :format(given.type and "--type" or "--include-metadata none", version.text)
  end
  if given.type == "DIFF" and given.remove_existing_files then
    return nil, "a differential backup continues one that is kept",
      "add --backup-dir DIR --remove-existing-files=false"
  end
  for _, name in ipairs(version.major > 4 and ONLY_4 or {}) do
    if given[name] ~= nil then
      return nil, ("%s is of Neo4j 4, this is neo4j-admin %s"):format(label(name), version.text)
    end
  end
  return true
end

--- Checks the options and completes them: `names` (databases), `servers` (addresses), `version` ({major=,
--- minor=, text=}).
---@param given table
---@return true|nil
---@return string|table|nil message, or an error
---@return string|nil hint
function M.check(given)
  for _, check in ipairs { check_databases, check_addresses, check_sizes, check_folders } do
    local ok, message, hint = check(given)
    if not ok then
      return nil, message, hint
    end
  end
  local version, message, hint = tool.known_version(given)
  if not version then
    return nil, message, hint
  end
  given.version = version
  return check_for_version(given)
end

--- What the policy needs, by its options.
---@param given table
---@return table
function M.needs(given)
  local folders, hosts = {}, {}
  for _, name in ipairs { "backup_dir", "report_dir" } do
    folders[#folders + 1] = given[name] ~= "" and given[name] or nil
  end
  for _, address in ipairs(tool.addresses(given)) do
    hosts[#hosts + 1] = is_address(address) and (tool.split_address(address)) or nil -- check says the rest
  end
  return { exec = { "neo4j-admin" }, read = folders, write = folders, net = hosts }
end

return M
