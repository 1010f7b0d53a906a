-- SPDX-License-Identifier: MIT
---@meta lunark.core.exec
--- lunark.core.exec: programs with their pipes on the event loop. Scripts use lunark.exec, which adds
--- run, stream and shell.

local exec = {}

---@class lunark.Process
---@field pid integer
---@field stdout lunark.Stream? of stdout = "stream"; fails at its end when the program fails
---@field stderr lunark.Stream? of stderr = "stream"
local Process = {}

--- Starts a program as leader of a session and a process group of its own, with default signals and
--- no descriptor but its three. A name without slash is looked up in PATH of this process. Needs exec
--- for it. A handle that is collected ends its program, unless an output stream of it is still read.
---@param options lunark.exec.Options
---@return lunark.Process|nil
---@return table? err kind not_found, denied or io, with the reason
function exec.start(options) end

--- What start would run. Needs exec for it.
---@param name string
---@return string|nil path
---@return table? err kind not_found or denied
function exec.which(name) end

--- Parks until the program has ended and what is captured is complete. A streamed output must be read
--- meanwhile if it is longer than a pipe and a few chunks hold. Cancelling ends the program.
---@return lunark.exec.Result|nil
---@return table? err kind exit: the exit status was lost, because the host ignores or reaps SIGCHLD
function Process:wait() end

--- After the end: whether it ended as it should.
---@return boolean|nil true
---@return table? err kind exit, timeout or cancelled, or the kind of a failed input
function Process:status() end

--- Sends a signal to its process group.
---@param signal string|integer|nil "TERM" (default), "HUP", "SIGINT", 10 ...
---@return boolean|nil true
---@return table? err kind not_found when it has ended
function Process:kill(signal) end

--- Ends its process group, TERM first and KILL after the grace, without waiting for it; the runtime
--- reaps it. Afterwards wait and the others are misuse.
function Process:close() end

return exec
