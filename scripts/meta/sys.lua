-- SPDX-License-Identifier: MIT
---@meta lunark.core.sys
-- Documents runtime/lua_sys.c for editors; never loaded.

---@class lunark.core.sys
---@field version string
local sys = {}

---@alias lunark.Kind
---| "usage" | "denied" | "not_found" | "conflict" | "auth" | "throttled" | "timeout"
---| "network" | "exit" | "io" | "corrupt" | "cancelled" | "memory"

---@class lunark.Error
---@field kind lunark.Kind
---@field message string lower case, no final dot, names the object
---@field op? string what was being done
---@field code? integer errno, exit status or libcurl code
---@field status? integer HTTP status
---@field retryable? boolean
---@field request_id? string
---@field hint? string what to do
---@field cause? any

--- Makes the table an error: tostring gives `message (hint)`.
---@param fields lunark.Error
---@return lunark.Error
function sys.error(fields) end

--- True for a table that sys.error or the runtime made.
---@return boolean
function sys.is_error(value) end

---@class lunark.Secret: userdata
local Secret = {}

--- The text itself.
---@return string
function Secret:reveal() end

--- A value that prints as `***`; its text is taken out of every log line from now on.
---@param text string|lunark.Secret
---@return lunark.Secret
function sys.secret(text) end

--- True for a secret.
---@return boolean
function sys.is_secret(value) end

--- A variable of the environment. Needs env for the name: raises kind denied without it.
---@param name string
---@return string|nil
function sys.env(name) end

--- Wall time, fractions to the nanosecond.
---@return number seconds since 1970 UTC
function sys.clock() end

--- A clock for durations.
---@return number seconds since some moment, never set back
function sys.monotonic() end

---@return integer CPUs that affinity and the cgroup's quota give
function sys.cpus() end

---@return integer|nil bytes, the limit of the cgroup
function sys.memory_limit() end

---@return { memory: integer, jobs: integer } bytes of stream memory, threads that compress
function sys.budget() end

--- Changes what is given, for streams that are made from now on.
---@param budget { memory?: integer, jobs?: integer }
function sys.set_budget(budget) end

---@alias lunark.Capability "exec"|"net"|"read"|"write"|"env"|"posix"

--- Grants. Raises once the runtime is sealed.
---@param kind lunark.Capability
---@param value? string default "*"
function sys.allow(kind, value) end

--- Asks whether something is granted; the hint of the error says what to grant.
---@param kind lunark.Capability
---@param value? string default "*"
---@return boolean|nil ok
---@return lunark.Error|nil err of kind denied
function sys.check(kind, value) end

--- From now on nothing is granted any more.
---@param later? boolean gives a function that still grants as `allow` does, until it is called with nothing
---@return function? allow
function sys.seal(later) end

--- True after seal().
---@return boolean
function sys.sealed() end

--- Compiles source text. A first line with `#!` is left out.
---@param name string for messages
---@param source string
---@param env? table default a new sys.environment()
---@return function|nil
---@return lunark.Error|nil err with file and line
function sys.load(name, source, env) end

--- A new table of the globals that a script may use.
---@return table
function sys.environment() end

--- The text of a file in the program.
---@param name string "scripts/lunark/cli.lua", "providers/s3.lua"
---@return string|nil source
function sys.embedded(name) end

---@return string[]
function sys.embedded_names() end

--- The script of a relative name, "policies/files.lua": from the script directories, then the embedded ones.
---@param relative string
---@return string|nil source
---@return string|nil origin its path, or "embedded"
function sys.find(relative) end

---@return string[] in the order they are searched
function sys.script_dirs() end

--- Adds a script directory. Raises once the runtime is sealed.
---@param dir string
---@param place? integer 1 = searched first; default last
function sys.add_script_dir(dir, place) end

---@return string
function sys.hostname() end

---@return integer
function sys.pid() end

---@return integer effective user id
function sys.uid() end

---@param fd integer 0, 1 or 2
---@return boolean
function sys.isatty(fd) end

---@return integer of the terminal, 80 without one
function sys.columns() end

--- Never blocks for long: after a second without progress the rest is dropped.
---@param fd integer 1 or 2
---@param text string
---@return boolean|nil ok
---@return lunark.Error|nil err
function sys.write(fd, text) end

return sys
