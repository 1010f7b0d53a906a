-- SPDX-License-Identifier: MIT
---@meta lunark.core.check
-- Documents runtime/lua_check.c for editors; never loaded. `lunark verify` uses it (lunark.verify_index,
-- lunark.verify_data). docs/format.md has the format.

---@class lunark.core.check
local check = {}

---@class lunark.check.Footer
---@field list_at integer
---@field list_size integer
---@field blocks integer
---@field members integer
---@field entries integer
---@field raw integer bytes of data, decompressed
---@field partial boolean the list does not name every block

--- The footer of an archive.
---@param tail string the last bytes of the file
---@param size integer of the file
---@return lunark.check.Footer|nil
---@return lunark.Error|nil err kind not_found: there is none; corrupt
function check.footer(tail, size) end

---@class lunark.check.Ref
---@field at integer offset of the block in the file
---@field size integer
---@field members integer
---@field records integer
---@field raw_at integer offset of its first data in the decompressed stream

--- The blocks that the first member of a list names.
---@param bytes string of the list, from where a member begins; at least all of that member
---@return lunark.check.Ref[]|nil
---@return integer|lunark.Error bytes of the member, or err kind corrupt
function check.list(bytes) end

---@class lunark.check.Block
---@field members integer
---@field records integer
---@field raw integer bytes of data in its members
---@field first integer|nil offset of its first member
---@field stop integer|nil where its last member ends
---@field raw_at integer|nil

--- One index block: its checksum is compared, all in it is read, and the numbers are added up.
---@param bytes string the index member
---@return lunark.check.Block|nil
---@return lunark.Error|nil err kind corrupt
function check.block(bytes) end

--- Whether one of lunark's gzip members begins here.
---@param bytes string
---@return boolean
function check.is_member(bytes) end

return check
