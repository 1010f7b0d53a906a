-- SPDX-License-Identifier: MIT
---@meta lunark.core.index
-- Documents runtime/lua_index.c for editors; never loaded. Scripts use lunark.index, which reads an archive's
-- index from a store; here are its pieces, from their bytes (docs/format.md).

---@class lunark.core.index
local index = {}

---@class lunark.index.Footer
---@field list_at integer where the list of blocks begins in the file
---@field list_size integer bytes; it ends where the footer begins
---@field blocks integer
---@field members integer with data
---@field records integer
---@field bytes integer of data, decompressed
---@field partial boolean the list does not name every block
---@field ordered boolean the records come in the order of their paths

---@class lunark.index.Ref
---@field at integer where the block begins in the file
---@field size integer bytes
---@field members integer
---@field records integer
---@field raw_at integer where its first member's data begins in the data
---@field path string of its first record, at most 128 bytes

---@class lunark.index.Record
---@field path string as in the archive, at most 4,096 bytes
---@field cut boolean the path is longer
---@field type string of tar: "0" file, "1" hard link, "2" symbolic link, "5" directory ...
---@field mode integer permission and type bits
---@field size integer bytes of its data
---@field mtime integer seconds since 1970
---@field mtime_ns integer
---@field member integer offset in the file of the data member that it begins in
---@field header_at integer offset of its first tar block in that member's data
---@field data_at integer of its data, likewise
---@field large boolean its data goes on in the following members
---@field sha256 string|nil 32 bytes

--- The footer of a file of `size` bytes from its last bytes, 94 or more.
---@param tail string
---@param size integer
---@return lunark.index.Footer|nil
---@return lunark.Error|nil err kind not_found: there is no index; corrupt
function index.footer(tail, size) end

--- One member of the list of blocks.
---@param bytes string
---@param at? integer where it begins in them, default 0
---@return lunark.index.Ref[]|nil
---@return integer|lunark.Error next where the next one begins, or the error (corrupt)
function index.list(bytes, at) end

--- One index block.
---@param bytes string
---@param at? integer where it begins in them, default 0
---@return lunark.index.Block|nil
---@return lunark.Error|nil err kind corrupt
function index.block(bytes, at) end

--- Compares paths as the archive's order has them: bytes, `/` before all others.
---@param a string
---@param b string
---@return integer less than, equal to, or more than 0
function index.compare(a, b) end

--- True if the pattern, one as for --exclude but anchored, matches the path or a directory above it.
---@param pattern string
---@param path string
---@return boolean
function index.matches(pattern, path) end

--- Takes entries out of an archive's data, and compares them with what the plan says of them: path, type and
--- size in the header, and the SHA-256 (corrupt, before the entry is complete). Both streams are taken over.
---@param input lunark.Stream decompressed
---@param plan lunark.Stream a line an entry, "<I8I4I8c1Bc32s2" of string.pack: bytes of input before it,
--- of its headers, of its data, type, flags (1: the hash counts, 2: the path is cut), SHA-256, path
---@param bare boolean? the output is the data alone, not a tar
---@return lunark.Stream|nil
---@return lunark.Error|nil
function index.cut(input, plan, bare) end

--- The entries of a tar, or a tar in gzip, that has no index: it is read to its end. Taken over.
---@param input lunark.Stream
---@return lunark.Stream|nil a line an entry, "<s4" of string.unpack, in it "<I4c1i8i8I4": mode, type, size,
--- seconds since 1970, nanoseconds; the rest is the path
---@return lunark.Error|nil
function index.contents(input) end

---@class lunark.index.Block: userdata
local Block = {}

---@return integer records
---@return integer members
function Block:count() end

---@param number integer from 1
---@return lunark.index.Record
function Block:record(number) end

--- The first record from this number on whose path matches the pattern, as in `matches`.
---@param number integer
---@param pattern string
---@param type string? only records of that type
---@return integer|nil
function Block:next(number, pattern, type) end

---@param number integer from 1
---@return integer at where it begins in the file
---@return integer size bytes
---@return integer raw_at where its data begins in the data
---@return integer raw bytes of data
function Block:member(number) end

--- The member that begins there in the file, as `member` gives it; nil if the block does not have it.
---@param at integer
---@return integer|nil, integer, integer, integer
function Block:member_at(at) end

--- The member that has this byte of the data, likewise.
---@param raw integer
---@return integer|nil, integer, integer, integer
function Block:member_of(raw) end

--- Gives its memory back. Idempotent.
function Block:close() end

return index
