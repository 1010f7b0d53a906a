-- SPDX-License-Identifier: MIT
---@meta lunark.core.stream
-- Streams, Parts and Part, for editors. "Parks" means that the task waits and others run.

---@class lunark.Stream
local Stream = {}

--- Parks. One chunk (about 1 MiB at most), nil at the whole end, or nil, err.
---@return string|nil, lunark.Error|nil
function Stream:read() end

--- Parks. All that is left; nil, err (kind memory) when it is longer than max.
---@param max? integer bytes, default 16 MiB
---@return string|nil, lunark.Error|nil
function Stream:read_all(max) end

---@class lunark.GzipOptions
---@field level? "fast"|"balanced"|"best"|"none"|integer default "balanced"; 1 to 12
---@field engine? "auto"|"zlib"|"libdeflate"|"isal" default "auto"
---@field index? boolean default true
---@field jobs? integer chunks compressed at once, default the runtime's

--- Moves the stream into a stream of gzip members (docs/format.md).
---@param options? lunark.GzipOptions
---@return lunark.Stream|nil, lunark.Error|nil
function Stream:gzip(options) end

--- Moves the stream into its decompressed bytes. Damaged or cut off input fails (corrupt).
---@return lunark.Stream|nil, lunark.Error|nil
function Stream:gunzip() end

--- Moves the stream into one that passes at most so many bytes a second.
---@param bytes_per_second number
---@return lunark.Stream|nil, lunark.Error|nil
function Stream:limit(bytes_per_second) end

--- Parks. Reads to the end.
---@return integer|nil bytes, lunark.Error|nil
function Stream:discard() end

--- Parks. Reads to the end.
---@param names string[] md5 sha1 sha256 sha512 crc32 crc32c
---@return table<string, string>|nil hex, integer|lunark.Error bytes
function Stream:hash(names) end

--- Parks. Writes all to an open File, at its position, which moves on.
---@param file lunark.File
---@return integer|nil bytes, lunark.Error|nil
function Stream:to_file(file) end

---@class lunark.PartsOptions
---@field size? integer bytes of a part, default 8 MiB
---@field width? integer parts that exist at once, default 2
---@field hash? string[] digests of each part
---@field total? string[] digests of the whole stream
---@field spill_dir? string parts live in unlinked files there; needs write

--- Moves the stream into parts.
---@param options lunark.PartsOptions
---@return lunark.Parts|nil, lunark.Error|nil
function Stream:parts(options) end

---@return "open"|"whole"|"failed"|"cancelled"
function Stream:state() end

--- Bytes that have passed so far, and what they were before compression.
---@return integer
function Stream:bytes() end
---@return integer
function Stream:raw_bytes() end

--- Cancels. Idempotent.
function Stream:close() end

---@class lunark.Parts
local Parts = {}

--- Parks. The next part, nil at the whole end, or nil, err.
---@return lunark.Part|nil, lunark.Error|nil
function Parts:next() end
---@return integer
function Parts:bytes() end
--- Digests of the whole stream, after its end.
---@return table<string, string>
function Parts:total() end
function Parts:close() end

---@class lunark.Part
---@field number integer from 1
---@field offset integer in the stream
---@field size integer
---@field last boolean the whole end follows
---@field hash table<string, string> lower-case hex
local Part = {}

---@return string|nil, lunark.Error|nil
function Part:string() end
--- Another handle on the same bytes.
---@return lunark.Part
function Part:ref() end
function Part:close() end

local core = {}

---@param text string|lunark.Secret
---@return lunark.Stream|nil, lunark.Error|nil
function core.of(text) end
---@param path string
---@return lunark.Stream|nil, lunark.Error|nil
function core.file(path) end
---@param value any
---@return boolean
function core.is_stream(value) end

return core
