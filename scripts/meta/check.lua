-- SPDX-License-Identifier: MIT
---@meta lunark.core.check
-- Documents runtime/lua_check.c for editors; never loaded. `lunark verify` uses it (lunark.verify_index,
-- lunark.verify_data). docs/format.md has the format.

---@class lunark.core.check
local check = {}

---@class lunark.check.Options
---@field at integer|nil where in the file the stream begins, default 0
---@field tar boolean|nil the data is a tar; else only the members are checked
---@field sample boolean|nil the stream is a part of the file; each block is given with its rows
---@field tolerant boolean|nil a part of the index is known to be damaged
---@field hash boolean|nil the SHA-256 of the whole stream is wanted
---@field jobs integer|nil

---@class lunark.check.Found
---@field bytes integer read
---@field members integer data members that are whole
---@field raw integer their data
---@field files integer regular files whose SHA-256 is that of the index
---@field entries integer records that were compared with the tar
---@field unchecked integer records with nothing to compare with
---@field finding_count integer
---@field findings table[] {first, last, message, path = of a file}, 100,000 at most
---@field sha256 string|nil

---@class lunark.Check: userdata
local Check = {}

--- Reads an archive and checks it. Where its members are is told by index blocks (`block`, in the order of
--- the file), then `finish`; where none is given, the members' own headers are followed.
---@param stream lunark.Stream is taken over
---@param options lunark.check.Options
---@return lunark.Check|nil
---@return lunark.Error|nil err
function check.data(stream, options) end

--- The next index block.
---@param bytes string the index member
---@param at integer its offset in the file
---@param row integer|nil of a sample: the first row of its table that is in the stream, default 0
---@param rows integer|nil how many, default 0
---@return true|nil
---@return lunark.Error|nil err kind corrupt
function Check:block(bytes, at, row, rows) end

--- No block is known before this place of the file.
---@param until_offset integer
---@return true|nil
---@return lunark.Error|nil err
function Check:walk(until_offset) end

--- No block follows.
function Check:finish() end

--- Parks until it wants blocks ("more") or has ended.
---@return string|lunark.check.Found|nil
---@return lunark.Error|nil err the stream's, or memory; damage is none
function Check:wait() end

--- So far.
---@return { bytes: integer, files: integer }
function Check:progress() end

--- Cancels. Idempotent.
function Check:close() end

---@class lunark.check.Compared
---@field entries integer that are as they should be
---@field files integer of them files whose SHA-256 was compared
---@field unchecked integer
---@field findings table[] {path, message}

--- Reads a tar of any tool, or one in gzip, to its end; parks. With a directory (needs write for it) each
--- entry
--- is compared with what was restored there, but for the data.
---@param stream lunark.Stream is taken over
---@param directory string|nil
---@return lunark.check.Compared|nil
---@return lunark.Error|nil err kind corrupt, or the stream's
function check.tar(stream, directory) end

--- Compares what was restored into a directory with the records of an index block; parks. Needs write for it.
---@param directory string
---@param bytes string the index member
---@return { entries: integer, files: integer, unchecked: integer, findings: table[] }|nil findings {path,
--- message}
---@return lunark.Error|nil err
function check.compare(directory, bytes) end

--- Whether one of lunark's gzip members begins here.
---@param bytes string
---@return boolean
---@return integer|nil kind of the member, 0 for data
---@return integer|nil size bytes of it
function check.is_member(bytes) end

return check
