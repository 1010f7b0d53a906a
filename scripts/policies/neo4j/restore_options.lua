-- SPDX-License-Identifier: MIT
-- neo4j: the options of a restore, and what is wrong with them before anything is touched.

local fs = require "lunark.fs"
local machine = require "lunark.machine"
local naming = require "lunark.naming"
local sys = require "lunark.core.sys"
local tool = require "policies.neo4j.tool"

local M = {}

M.declared = {
  database = { "list", env = "DATABASE", metavar = "NAME,...", help = "what to restore" },
  databases = { "list", metavar = "NAME,...", help = "the same as --database" },
  timestamp = { "string", env = "TIMESTAMP", metavar = "TIME", help = "the same as --at" },
  mixed = { "boolean", help = "the newest of each database, also from different runs" },
  data_dir = {
    "string", default = "/data", metavar = "DIR", help = "the server's folder with `databases` in it",
  },
  force = { "boolean", env = "FORCE_OVERWRITE", help = "replace databases that are there" },
  skip_existing = { "boolean", help = "leave databases that are there as they are, and end with status 0" },
  once = { "boolean", help = "do nothing where the same was restored before; for what is started again" },
  purge_on_complete = {
    "boolean", env = "PURGE_ON_COMPLETE", default = true, help = "remove the unpacked backup afterwards",
  },
  backup_set_dir = {
    "string", env = "BACKUP_SET_DIR", metavar = "DIR",
    help = "folder of the backup inside of the archive (default: backups/DATABASE or data/DATABASE)",
  },
  owner = {
    "string", metavar = "USER", help = "whose the databases shall be (as root: whose --data-dir is)",
  },
  unbind = { "boolean", default = true, help = "run `neo4j-admin unbind` first, for backups of 4.x" },
  allow_upgrade = {
    "string", metavar = "FILE", help = "4.x: add dbms.allow_upgrade=true to this neo4j.conf",
  },
  check_space = { "boolean", default = true, help = "compare free space with the size of the backups" },
  neo4j_version = { "string", metavar = "X.Y", help = "version of neo4j-admin (default: it is asked)" },
  heap_size = {
    "string", env = "HEAP_SIZE", metavar = "SIZE", help = "heap of neo4j-admin (default: its own)",
  },
  restore_until = { "string", metavar = "TX", help = "Neo4j 5: a transaction, or \"TIME UTC\"" },
  verbose = { "boolean", default = true, help = "let neo4j-admin say more" },
}

local function check_databases(given)
  given.names = tool.databases(given)
  if #given.names == 0 then
    return nil, "policy neo4j: --database is missing", "or set DATABASE in the environment"
  end
  for _, name in ipairs(given.names) do
    if not name:find("^%w[%w._-]*$") then
      return nil, ("'%s' is no name of a database"):format(name), "list the databases, commas between them"
    end
  end
  return true
end

local function check_time(given)
  if given.timestamp then
    local at, err = naming.parse_at(given.timestamp)
    given.time = at
    return at, err
  end
  return true
end

local function check_folders(given)
  given.data_dir = fs.absolute(given.data_dir):gsub("(.)/+$", "%1")
  if not fs.is_dir(given.data_dir) then
    return nil, ("--data-dir '%s': the server's data folder expected"):format(given.data_dir),
      "it is the one that holds the folder `databases`"
  end
  for _, below in ipairs { "", "/databases", "/transactions" } do
    local path = given.data_dir .. below
    if fs.exists(path) and not fs.access(path, "w") then
      return nil, ("%s can't be written to by this user"):format(path),
        "run as the user that owns it (neo4j), or as root"
    end
  end
  local inside = given.backup_set_dir
  if inside and ("/" .. inside .. "/"):find("/%.%./") then
    return nil, ("--backup-set-dir '%s' leads out of the archive"):format(inside)
  end
  return true
end

-- uid and gid that files shall have; none where they are right by themselves.
local function check_owner(given)
  local uid, gid
  if given.owner then
    uid, gid = machine.user(given.owner)
    if not uid then
      return nil, ("--owner '%s': there is no such user"):format(given.owner)
    end
  elseif sys.uid() == 0 then
    local info = fs.stat(given.data_dir)
    uid, gid = info.uid, info.gid
    if uid == 0 then
      uid, gid = machine.user("neo4j")
    end
  end
  if uid and uid ~= sys.uid() and sys.uid() ~= 0 then
    return nil, ("only root can give files to '%s'"):format(given.owner), "run as that user, without --owner"
  end
  given.uid, given.gid = uid, gid
  return true
end

local function check_version(given)
  local version, message, hint = tool.known_version(given)
  if not version then
    return nil, message, hint
  elseif version.major > 4 and given.allow_upgrade then
    return nil, ("--allow-upgrade is of Neo4j 4, this is neo4j-admin %s"):format(version.text)
  elseif version.major == 4 and given.restore_until then
    return nil, ("--restore-until is of Neo4j 5, this is neo4j-admin %s"):format(version.text)
  end
  given.version = version
  return true
end

--- Checks the options and completes them: `names`, `version`, `time`, `uid`, `gid`.
---@param given table
---@return true|nil
---@return string|table|nil message, or an error
---@return string|nil hint
function M.check(given)
  for _, check in ipairs { check_databases, check_time, check_folders, check_owner, check_version } do
    local ok, message, hint = check(given)
    if not ok then
      return nil, message, hint
    end
  end
  return true
end

--- What a restore needs, by its options.
---@param given table
---@return table
function M.needs(given)
  local places = { given.data_dir }
  if given.allow_upgrade then
    places[2] = given.allow_upgrade
    places[3] = given.allow_upgrade .. ".lunark.tmp"
  end
  return { exec = { "neo4j-admin" }, read = places, write = places }
end

return M
