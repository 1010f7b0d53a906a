-- SPDX-License-Identifier: MIT
---@meta lunark.core.stream
-- Documents runtime/lua_stream.c, lua_sink.c, lua_parts.c and lua_verify.c for editors; never
-- loaded. "Parks" means that the task waits and others run.

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

---@class lunark.VerifyOptions
---@field sha256? string 64 hexadecimal digits
---@field size? integer bytes
---@field most? integer bytes; more are corrupt at once
---@field begins? string[] at most 16 bytes each; fails at once (io) when it begins with none of them
---@field name? string of the object, for the message; default "the stream"

--- Moves the stream into one of the same bytes that fails at its end (corrupt) when they have another hash
--- or size, and at once when there are more.
---@param options lunark.VerifyOptions
---@return lunark.Stream|nil, lunark.Error|nil
function Stream:verify(options) end

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

--- Writes it to standard output; parks. Ends with an error of code EPIPE when nobody reads that any more.
---@return integer|nil bytes
---@return lunark.Error|nil err
function Stream:to_stdout() end

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

--- How it stands; known also after its end.
---@return "open"|"whole"|"failed"|"cancelled"
function Stream:state() end

--- Bytes that have passed so far.
---@return integer
function Stream:bytes() end

--- What these bytes were before compression.
---@return integer
function Stream:raw_bytes() end

--- Cancels. Idempotent.
function Stream:close() end

---@class lunark.Parts
local Parts = {}

--- Parks. The next part, nil at the whole end, or nil, err.
---@return lunark.Part|nil, lunark.Error|nil
function Parts:next() end

--- Bytes cut so far.
---@return integer
function Parts:bytes() end

--- Digests of the whole stream, after its end; misuse before.
---@return table<string, string> hex by name
function Parts:total() end

--- Cancels. Idempotent. Parts that were handed out stay.
function Parts:close() end

---@class lunark.Part
---@field number integer from 1
---@field offset integer in the stream
---@field size integer
---@field last boolean the whole end follows
---@field hash table<string, string> lower-case hex
local Part = {}

--- Its bytes, or some of them.
---@param offset integer? where they begin, default 0
---@param length integer? how many at most, default all
---@return string|nil, lunark.Error|nil
function Part:string(offset, length) end

--- Another handle on the same bytes.
---@return lunark.Part
function Part:ref() end

--- Gives the memory back, once all handles on it are closed. Idempotent.
function Part:close() end

--- One stream out of pieces that come in any order.
---@class lunark.Gather: userdata
local Gather = {}

--- Parks until piece `number` (from 0) is near enough to its turn to be taken in.
---@param number integer
---@return true|nil
---@return lunark.Error|nil err kind cancelled: the stream is over
function Gather:room(number) end

--- Takes in a stream as the next bytes of a piece; parks. Moves the stream.
---@param number integer
---@param body lunark.Stream
---@param most integer bytes; more are an error of kind io
---@return true|nil
---@return lunark.Error|nil err of the body, or cancelled
---@return integer bytes that were taken, also with an error
function Gather:take(number, body, most) end

--- The piece has all its bytes.
---@param number integer
function Gather:done(number) end

--- No piece follows: the stream ends whole.
function Gather:finish() end

--- The stream fails.
---@param err lunark.Error
function Gather:fail(err) end

--- The stream; once.
---@return lunark.Stream
function Gather:stream() end

--- Ends what waits; a stream that has not ended is cancelled. Idempotent.
function Gather:close() end

local core = {}

--- Joins pieces: `width` of them, the one whose turn it is and those behind it, can be taken in at once.
---@param width integer
---@return lunark.Gather|nil, lunark.Error|nil
function core.gather(width) end

--- A stream of the bytes of a string.
---@param text string|lunark.Secret
---@return lunark.Stream|nil, lunark.Error|nil
function core.of(text) end

--- A stream of a file's bytes. Needs read.
---@param path string
---@return lunark.Stream|nil, lunark.Error|nil
function core.file(path) end

--- A stream of what a task writes.
---@return lunark.Stream|nil
---@return lunark.Writer|lunark.Error
function core.pipe() end

---@class lunark.Writer
local Writer = {}

--- Parks until the bytes are in the stream.
---@param body string|lunark.Part
---@return true|nil, lunark.Error|nil err kind cancelled: nobody reads it any more
function Writer:write(body) end

--- The whole end, or with an error a failed one, also of a write that waits. The first end counts.
---@param err lunark.Error?
function Writer:finish(err) end

--- Fails the stream if it was not finished. Idempotent.
function Writer:close() end

--- True for a stream, also one that was moved or closed.
---@param value any
---@return boolean
function core.is_stream(value) end

return core
