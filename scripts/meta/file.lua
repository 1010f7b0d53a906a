-- SPDX-License-Identifier: MIT
---@meta lunark.core.file
-- Documents runtime/lua_file.c for editors; never loaded. "Parks" means that the task waits and others run.

---@class lunark.File
local File = {}

--- Parks. Writes all of it, or fails.
---@param body string|lunark.Part
---@param offset? integer default 0
---@return boolean|nil, lunark.Error|nil
function File:pwrite(body, offset) end

--- Parks. Returns when the disk has it.
---@return boolean|nil, lunark.Error|nil
function File:sync() end

---@return integer|nil bytes, lunark.Error|nil
function File:size() end

--- Takes the lock of the file, without waiting; it ends with the file, or the process.
---@return boolean|nil, lunark.Error|nil err kind conflict when another has it
function File:lock() end

--- The bytes from first to last (inclusive), as far as the file has them.
---@param first? integer default 0
---@param last? integer default the end
---@return lunark.Stream|nil, lunark.Error|nil
function File:stream(first, last) end

--- Idempotent. What runs on it goes on.
function File:close() end

local core = {}

--- Needs read (mode r) or write. `w` makes or empties it, `x` makes it and fails (conflict) if it is there.
---@param path string
---@param mode? "r"|"w"|"x" default "r"
---@param perm? integer of a new file, before the umask; default 0600
---@return lunark.File|nil, lunark.Error|nil
function core.open(path, mode, perm) end

--- Parks until the disk has the names in a directory. Needs write.
---@param path string
---@return boolean|nil, lunark.Error|nil
function core.sync_dir(path) end

--- What may still be written to the file system of a path.
---@param path string
---@return integer|nil bytes, lunark.Error|nil
function core.free_bytes(path) end

return core
