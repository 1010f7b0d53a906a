-- SPDX-License-Identifier: MIT
-- neo4j: runs neo4j-admin, keeps what it says, and says why it failed. Its exit status decides; what it
-- prints is shown and stored, and read for hints alone.

local exec = require "lunark.exec"
local exit = require "lunark.exit"
local file = require "lunark.file"
local fs = require "lunark.fs"
local log = require "lunark.log"
local machine = require "lunark.machine"
local progress = require "lunark.progress"
local sys = require "lunark.core.sys"
local task = require "lunark.task"

local tool = {}

local PROGRAM = "neo4j-admin"
local PORT = 6362
local ANSWER = 5 -- seconds that an address has to accept a connection
local WORDS = 2000 -- bytes of the last words
local TIGHT = 16 << 20 -- less free space than this explains a failure
local SIGKILL = 9

--- Takes a version apart: "4.4.10", "neo4j-admin 5.26.0", "2025.01.0".
---@param text string
---@return table|nil {major=, minor=, text=}
function tool.parse_version(text)
  local shown, major, minor = text:match("((%d+)%.(%d+)[%w.+-]*)")
  if not major and text:find("^%d+$") then
    shown, major, minor = text, text, "0"
  end
  return major and { major = math.tointeger(major), minor = math.tointeger(minor), text = shown }
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

-- Writes one output of the program to the log, line by line, and to the file; `words.text` gets its end.
local function follow(stream, item, sink, words)
  local rest = ""
  local function line(text)
    text = text:gsub("\r$", "")
    if text:find("%S") then
      log.info(("%s: %s"):format(item, text), { item = item })
    end
  end
  local chunk = stream:read()
  while chunk do
    sink(chunk)
    words.text = (words.text .. chunk):sub(-WORDS)
    rest = rest .. chunk
    local last = 1
    for text, after in rest:gmatch("([^\n]*)\n()") do
      line(text)
      last = after
    end
    rest = rest:sub(last)
    if #rest > WORDS then
      line(rest)
      rest = ""
    end
    chunk = stream:read()
  end
  line(rest)
end

-- A function that appends to the file.
local function writer(path)
  local opened, err = file.open(path, "w", tonumber("644", 8))
  if not opened then
    return nil, err
  end
  local at, failed = 0, nil
  return function(chunk)
    local from = at
    at = at + #chunk
    if not failed then
      local ok, why = opened:pwrite(chunk, from)
      failed = not ok
      if failed then
        log.warn(("%s: %s"):format(path, why.message))
      end
    end
  end, opened
end

-- The last lines that say something.
local function last_words(text)
  local lines = {}
  for line in text:gmatch("[^\n]+") do
    if line:find("%S") and not line:find("^%s+at ") then
      lines[#lines + 1] = line:match("^%s*(.-)%s*$")
    end
  end
  return table.concat(lines, " / ", math.max(1, #lines - 2))
end

local function hint_of(options, dir, result, said)
  local free = fs.free(dir)
  if said:find("OutOfMemoryError", 1, true) then
    return "give neo4j-admin more memory with --heap-size"
  elseif said:find("No space left", 1, true) or (free and free < TIGHT) then
    return ("%s are free in %s: make room, or take another folder with --work-dir")
      :format(progress.size(free or 0), dir)
  elseif result.signal == SIGKILL or result.code == 128 + SIGKILL then
    return "it was killed, perhaps for want of memory: see --heap-size, --pagecache and the limit of the container"
  elseif said:find("[Uu]nmatched argument") or said:find("[Uu]nknown command") then
    return ("neo4j-admin %s does not know this: the Community Edition has --method dump alone")
      :format(options.version.text)
  end
  return nil
end

-- Why a run failed, as an error.
local function failure(options, run, result, why, words)
  local said = words.err.text ~= "" and words.err.text or words.out.text
  local told = last_words(said)
  local ended = result.signal and ("was ended by signal %d"):format(result.signal)
    or ("ended with status %d"):format(result.code or -1)
  local err = sys.error {
    kind = why.kind, code = result.code,
    message = ("%s: neo4j-admin %s%s"):format(run.database, ended, told ~= "" and ": " .. told or ""),
    hint = hint_of(options, run.dir, result, words.out.text .. words.err.text) or why.hint,
  }
  err.result = result
  return err
end

--- Runs neo4j-admin for one database to its end; parks, however long it is silent.
---@param job table
---@param run table {database=, dir=, log= (file for what it says), ok= (statuses that are success)}
---@param argv string[]
---@return table|nil producer {command=, code=, seconds=}
---@return table|nil err
function tool.run(job, run, argv)
  local sink, opened = writer(run.log)
  if not sink then
    return nil, opened
  end
  local given = table.move(argv, 1, #argv, 1, {
    env = { HEAP_SIZE = job.options.heap_size }, stdout = "stream", stderr = "stream", allow_empty = true,
    ok = run.ok,
  })
  local process <close>, err = exec.start(given)
  if not process then
    opened:close()
    return nil, err
  end
  local words = { out = { text = "" }, err = { text = "" } }
  do
    local _ <close> = job:waiting(run.database, PROGRAM)
    local group <close> = task.group()
    group:spawn(follow, process.stdout, run.database, sink, words.out)
    group:spawn(follow, process.stderr, run.database, sink, words.err)
    group:wait()
  end
  local result
  result, err = process:wait()
  opened:close()
  if not result then
    return nil, err
  end
  local ok, why = process:status()
  if not ok then
    return nil, failure(job.options, run, result, why, words)
  end
  return { command = argv, code = result.code, seconds = result.seconds }
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
--- the
--- first for the next database.
---@param job table
---@param run table as for tool.run; `address` becomes the one that was taken
---@param make fun(options: table, run: table): string[] command line
---@return table|nil producer
---@return table|nil err
function tool.run_at(job, run, make)
  local options = job.options
  options.servers = options.servers or table.move(options.address, 1, #options.address, 1, {})
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
    elseif not err.result or err.result.signal then
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
