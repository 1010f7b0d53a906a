-- SPDX-License-Identifier: MIT
--- Files that are written at positions and read as streams. Names (stat, rename, list ...) are lunark.fs.
-- Needs lunark.core.file, and the read or write capability for each path.
local core = require "lunark.core.file"

local file = {}

--- Opens a file. `w` makes or empties it, `x` makes it and fails (conflict) if it is there.
---@param path string
---@param mode? "r"|"w"|"x" default "r"
---@param perm? integer of a new file, before the umask; default 0600
---@return lunark.File|nil, lunark.Error|nil
file.open = core.open

--- Makes names that were created, renamed or removed in a directory last. Parks.
---@param path string
---@return boolean|nil, lunark.Error|nil
file.sync_dir = core.sync_dir

--- Bytes that may still be written to the file system of a path, or of where it would be made.
---@param path string
---@return integer|nil, lunark.Error|nil
file.free_bytes = core.free_bytes

return file
