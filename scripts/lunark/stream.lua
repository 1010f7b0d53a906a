-- SPDX-License-Identifier: MIT
--- Sources of streams: bytes that move through the runtime without becoming Lua strings.
-- Needs lunark.core.stream. Streams also come from archives, programs and HTTP responses; their methods are
-- documented in scripts/meta/stream.lua.
local core = require "lunark.core.stream"

local stream = {}

--- A stream of the bytes of a string.
---@param text string
---@return lunark.Stream|nil, lunark.Error|nil
stream.of = core.of

--- A stream of a file's bytes. Needs read for the path.
---@param path string
---@return lunark.Stream|nil, lunark.Error|nil
stream.file = core.file

--- Joins pieces that are read at once to one stream, see scripts/meta/stream.lua. lunark.fetch does so with
--- the ranges of an object.
---@param width integer pieces, the one whose turn it is and those behind it
---@return lunark.Gather|nil, lunark.Error|nil
stream.gather = core.gather

--- A stream of what a task writes: `writer:write(part)` parks until it is in the stream, `writer:finish(err)`
--- ends it.
---@return lunark.Stream|nil
---@return lunark.Writer|lunark.Error
stream.pipe = core.pipe

--- True for a stream, also one that was moved or closed.
---@param value any
---@return boolean
stream.is_stream = core.is_stream

return stream
