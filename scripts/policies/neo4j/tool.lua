-- SPDX-License-Identifier: MIT
-- neo4j: runs neo4j-admin, keeps what it says, and says why it failed. Its exit status decides; what it
-- prints is shown and stored, and read for hints alone.

local exec = require "lunark.exec"
local exit = require "lunark.exit"
local fs = require "lunark.fs"
local log = require "lunark.log"
local machine = require "lunark.machine"
local progress = require "lunark.progress"
local sys = require "lunark.core.sys"

local tool = {}

local PROGRAM = "neo4j-admin"
local PORT = 6362
local ANSWER = 5 -- seconds that an address has to accept a connection
local SAID = 1 << 20 -- bytes of what it says that are kept for the report
local WORDS = 8000 -- bytes in which its last words are
local TIGHT = 16 << 20 -- less free space than this explains a failure
local SIGKILL = 9
local JVM_GAVE_UP = 3

--- Takes a version apart: a line "4.4.10", "neo4j-admin 5.26.0" or "2025.01.0". Others are not looked at:
--- some say which Java is used.
---@param text string
---@return table|nil {major=, minor=, text=}
function tool.parse_version(text)
  for line in text:gmatch("[^\r\n]+") do
    local shown = line:match("^%s*neo4j%-admin%s+(%d+[%w.+-]*)%s*$") or line:match("^%s*(%d+[%w.+-]*)%s*$")
    local major, minor = (shown or ""):match("^(%d+)%.?(%d*)")
    if major then
      return { major = math.tointeger(major), minor = math.tointeger(minor) or 0, text = shown }
    end
  end
  return nil
end

--- Asks neo4j-admin for its version.
---@return table|nil
---@return table|nil err
function tool.version()
  local result, err = exec.run { PROGRAM, "--version" }
  if not result then
    err.exit = exit.USAGE
    if err.kind == "not_found" then
      err.hint = "install Neo4j, or give the folder of neo4j-admin in PATH"
    else
      err.hint = "or say it: --neo4j-version 4.4"
    end
    return nil, err
  end
  local version = tool.parse_version(result.stdout)
  if version then
    return version
  end
  return nil, sys.error {
    kind = "usage", message = ("neo4j-admin --version says '%s', a version expected")
      :format((result.stdout:sub(1, 60):gsub("%s+$", ""))), hint = "say it: --neo4j-version 4.4",
  }
end

--- The version that --neo4j-version says, or else neo4j-admin itself: 4.0 or later.
---@param given table options
---@return table|nil
---@return string|table|nil message, or an error
---@return string|nil hint
function tool.known_version(given)
  local version, err
  if given.neo4j_version then
    version = tool.parse_version(given.neo4j_version)
    if not version then
      return nil, ("--neo4j-version '%s' is no version"):format(given.neo4j_version),
        "write it as 4.4 or 5.26"
    end
  else
    version, err = tool.version()
    if not version then
      return nil, err
    end
  end
  if version.major < 4 then
    return nil, ("neo4j-admin is of Neo4j %s, 4.0 or later expected"):format(version.text),
      "the backup tool before 4.0 works in another way"
  end
  return version
end

--- The databases of --database and --databases, each once, in lower case as the server has them.
---@param given table
---@return string[]
function tool.databases(given)
  local list, seen = {}, {}
  for _, one in ipairs { given.database or {}, given.databases or {} } do
    for _, name in ipairs(one) do
      name = name:lower()
      if not seen[name] then
        seen[name] = true
        list[#list + 1] = name
      end
    end
  end
  return list
end

--- The servers of --from, which only a command line names, or else of --address.
---@param given table
---@return string[]
function tool.addresses(given)
  local named = given.from or {}
  return #named > 0 and named or given.address or {}
end

--- Host and port of an address.
---@param address string
---@return string host without brackets
---@return integer port
function tool.split_address(address)
  local host, port = address:match("^%[(.+)%]:(%d+)$")
  if not host then
    host, port = address:match("^([^:]*):(%d+)$")
  end
  host = host or address:match("^%[(.+)%]$") or address
  return host, math.tointeger(port) or PORT
end

--- An address as neo4j-admin takes it, with a port.
---@param address string
---@return string
function tool.full_address(address)
  local host, port = tool.split_address(address)
  return (host:find(":", 1, true) and "[%s]:%d" or "%s:%d"):format(host, port)
end

-- The last lines that say something.
local function last_words(text)
  local lines = {}
  for line in text:sub(-WORDS):gmatch("[^\n]+") do
    if line:find("%S") and not line:find("^%s+at ") and not line:find("^%s+%.%.%. %d+ more") then
      lines[#lines + 1] = line:match("^%s*(.-)%s*$")
    end
  end
  return table.concat(lines, " / ", math.max(1, #lines - 2))
end

local function hint_of(run, result, said)
  local dir = run.dir
  local free = fs.free(dir)
  if said:find("OutOfMemoryError", 1, true) then
    return "give neo4j-admin more memory with --heap-size"
  elseif said:find("No space left", 1, true) or (free and free < TIGHT) then
    return ("%s are free in %s: make room%s"):format(progress.size(free or 0), dir,
      run.restores and "" or ", or take another folder with --work-dir")
  elseif result.signal == SIGKILL or result.code == 128 + SIGKILL then
    return "perhaps it was killed for want of memory: see --heap-size, --pagecache, the container's limit"
  elseif said:find("[Uu]nmatched argument.*'backup'") then
    return "the Community Edition can't back up a running server: --method dump takes one that is stopped"
  elseif said:find("[Uu]nmatched argument.*'restore'") or said:find("[Uu]nmatched argument.*'unbind'") then
    return "the Community Edition restores dumps, not backups of the Enterprise Edition"
  end
  return nil
end

-- What went wrong with a run, as an error.
local function failure(run, result, what, kind)
  local told = last_words(result.stdout or "")
  return sys.error {
    kind = kind or "exit", code = result.code,
    message = ("%s: neo4j-admin %s%s"):format(run.database, what, told ~= "" and ": " .. told or ""),
    hint = hint_of(run, result, result.stdout or ""),
  }
end

--- Why a run that ended with success has left no backup, as an error.
---@param run table
---@param producer table
---@param why string
---@return table
function tool.left_nothing(run, producer, why)
  local err = failure(run, producer.result, ("ended with status %d and %s"):format(producer.code, why))
  err.hint = err.hint or "is there such a database on the server?"
  return err
end

--- Runs neo4j-admin for one database to its end; parks, however long it is silent.
---@param job table
---@param run table {database=, dir=, log= (file for what it says), ok= (statuses that are success)}
---@param argv string[]
---@return table|nil producer {command=, code=, seconds=, result=}
---@return table|nil err with `result` when the program ran
function tool.run(job, run, argv)
  local process <close>, err = exec.start(table.move(argv, 1, #argv, 1, {
    env = { HEAP_SIZE = job.options.heap_size }, stdout = "log", stderr = "stdout", log_max = SAID,
    log_item = run.database, ok = run.ok, remind = job.progress and 0 or nil,
  }))
  if not process then
    return nil, err
  end
  local result
  do
    local _ <close> = job:waiting(run.database, PROGRAM)
    result, err = process:wait()
  end
  if not result then
    return nil, err
  end
  local ok, why = process:status()
  local written, unwritten = fs.write_text(run.log, result.stdout, tonumber("644", 8))
  if not written then
    log.warn(("%s: %s"):format(run.database, unwritten.message), { item = run.database })
  end
  if ok and result.code == JVM_GAVE_UP and result.stdout:find("OutOfMemoryError", 1, true) then
    ok, why = nil, { kind = "exit" } -- Java ends with 3, too, when it may not go on without memory
  end
  if not ok then
    local ended = result.signal and ("was ended by signal %d"):format(result.signal)
      or ("ended with status %d"):format(result.code)
    err = failure(run, result, ended, why.kind)
    err.result = result
    return nil, err
  end
  return { command = argv, code = result.code, seconds = result.seconds, result = result }
end

-- An error that says that nothing answers at the address.
local function unreachable(options, address, why, cause)
  local prefix = options.version.major == 4 and "dbms" or "server"
  return sys.error {
    kind = "network", cause = cause,
    message = ("%s can't be reached: %s"):format(address, why),
    hint = ("the server needs %s.backup.enabled=true and a %s.backup.listen_address that others reach (its "
      .. "default is 127.0.0.1:%d), so that %s answers"):format(prefix, prefix, PORT, address),
  }
end

--- Runs neo4j-admin with the addresses of the server in turn, until one can be reached. The one that was is
--- the first for the next database.
---@param job table
---@param run table as for tool.run; `address` becomes the one that was taken
---@param make fun(options: table, run: table): string[] command line
---@return table|nil producer
---@return table|nil err
function tool.run_at(job, run, make)
  local options = job.options
  local order = table.move(options.servers, 1, #options.servers, 1, {})
  local err
  for i, address in ipairs(order) do
    run.address = tool.full_address(address)
    local producer
    producer, err = tool.run(job, run, make(options, run))
    if producer then
      if i > 1 then
        job:warn(("%s: backed up from %s"):format(run.database, run.address), { item = run.database })
        table.move(order, i + 1, #order, i)
        order[#order] = nil
        table.insert(order, 1, address)
        options.servers = order
      end
      return producer
    elseif not err.result or err.result.code ~= 1 then
      return nil, err
    end
    local host, port = tool.split_address(address)
    local answers, why = machine.answers(host, port, ANSWER)
    if answers then
      return nil, err
    end
    err = unreachable(options, run.address, why, err)
    if i < #order then
      log.warn(("%s: %s; the next address is tried"):format(run.database, err.message),
        { item = run.database })
    end
  end
  return nil, err
end

return tool
