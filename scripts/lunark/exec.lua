-- SPDX-License-Identifier: MIT
-- lunark.exec - run programs: to their end, as a stream, or by hand. Needs exec for each program.
local core = require "lunark.core.exec"
local sys = require "lunark.core.sys"

---@class lunark.exec
local exec = {}

---@class lunark.exec.Options the array part is the program and its arguments; no shell is involved
---@field env table<string, string|number|lunark.Secret|false>? changes; false removes
---@field clean_env boolean? true: nothing is inherited
---@field cwd string? working directory, entered as `user`
---@field user string|integer? name or number; needs root
---@field group string|integer? name or number, default the user's own
---@field stdin string|lunark.Secret|lunark.Stream? what it reads; "inherit" = this process's own;
---  default nothing. A stream that fails ends the program before it sees the end of its input
---@field stdout string? "capture" (default), "stream", "log", "null" or "inherit"
---@field stderr string? the same, or "stdout"; default "log"
---@field capture_max integer? bytes that "capture" keeps of the end, default 1 MiB
---@field log_max integer? bytes that "log" keeps of the end, too, for the result; default none
---@field timeout number? seconds until it is ended, default none
---@field grace number? seconds between TERM and KILL, default 10
---@field remind number? seconds between two lines 'still waiting for', default 30; 0 = none
---@field allow_empty boolean? a stream without a byte is no failure
---@field ok integer[]? exit codes that are success, default {0}
---@field log_item string? the field `item` of its logged lines
---@field log_prefix string? of its logged lines, default the program's name

---@class lunark.exec.Result
---@field code integer? exit code; nil when a signal ended it
---@field signal integer? what ended it
---@field timed_out boolean
---@field left_open boolean a process that it left behind kept its pipes open for 5 s and was ended
---@field stdout string? of "capture", and of "log" with log_max
---@field stderr string? the same
---@field truncated boolean the beginning of what was captured is gone
---@field seconds number

--- Starts a program; a handle to wait for it, signal it and end it comes back at once.
---@param options lunark.exec.Options
---@return lunark.Process|nil
---@return table? err kind not_found, denied or io: why it can't be started
exec.start = core.start

--- The path that a program's name stands for: what start would run.
---@param name string
---@return string|nil path
---@return table? err
exec.which = core.which

--- Runs a program to its end; parks. Cancelling the task ends the program.
---@param options lunark.exec.Options
---@return lunark.exec.Result|nil
---@return table? err kind exit with `code` and the last lines of stderr, kind timeout, or why it
---  could not be started; `result` is what there is of a result
function exec.run(options)
  local process <close>, err = core.start(options)
  if not process then
    return nil, err
  end
  local result
  result, err = process:wait()
  if not result then
    return nil, err
  end
  local ok, why = process:status()
  if ok then
    return result
  end
  why.result = result
  return nil, why
end

local function with(options, changes)
  local copy = {}
  for key, value in pairs(options or {}) do
    copy[key] = value
  end
  for key, value in pairs(changes) do
    copy[key] = value
  end
  return copy
end

--- Starts a program whose output is a Stream. The stream fails at its end when the program fails or
--- prints nothing. The process need not be kept: the program goes on as long as the stream is read,
--- and is ended when the stream is closed.
---@param options lunark.exec.Options
---@return lunark.Stream|nil
---@return lunark.Process|table process, or the error
function exec.stream(options)
  local process, err = core.start(with(options, { stdout = "stream" }))
  if not process then
    return nil, err
  end
  return process.stdout, process
end

--- Runs a command line with /bin/sh; parks. Needs exec for /bin/sh, which can run anything.
---@param command string never put text into it that is not yours: pass it with options.env
---@param options lunark.exec.Options? without arguments
---@return lunark.exec.Result|nil
---@return table? err as of run
function exec.shell(command, options)
  if type(command) ~= "string" then
    error(
      sys.error {
        kind = "usage",
        op = "exec.shell",
        message = "exec.shell: expected a command line, got " .. type(command),
      },
      2
    )
  end
  return exec.run(with(options, { "/bin/sh", "-c", command }))
end

return exec
