-- SPDX-License-Identifier: MIT
---@meta lunark.core.archive
-- Documents runtime/lua_archive.c for editors; never loaded. Scripts use lunark.archive, which has the
-- same functions and documents options and results.

---@class lunark.core.archive
local archive = {}

---@class lunark.Archive: userdata
local Archive = {}

--- The .tar.gz; once. Reading begins with it.
---@return lunark.Stream|nil, lunark.Error|nil
function Archive:stream() end

--- So far: bytes of file data read, entries done, and the path that is being read.
---@return { bytes: integer, files: integer, path: string }
function Archive:progress() end

--- Once the stream was read to its end.
---@return lunark.archive.Result|nil
---@return lunark.Error|nil err kind usage: not read to its end
function Archive:result() end

--- Cancels what runs. Idempotent; further use is misuse.
function Archive:close() end

---@class lunark.Extract: userdata
local Extract = {}

--- Written so far.
---@return { bytes: integer, files: integer }
function Extract:progress() end

--- Parks until all is written. May be called again.
---@return lunark.archive.Result|nil without members and unreadable
---@return lunark.Error|nil err kind corrupt, conflict, io, cancelled
function Extract:wait() end

--- Cancels. Idempotent; who waits gets an error of kind cancelled.
function Extract:close() end

--- Needs read for each root.
---@param options lunark.archive.Options
---@return lunark.Archive|nil
---@return lunark.Error|nil err kind not_found for a root that is missing, denied where it may not be read
function archive.create(options) end

--- Needs write for `into`. Takes the stream over; it may be gzip or plain tar.
---@param stream lunark.Stream
---@param options lunark.archive.ExtractOptions
---@return lunark.Extract|nil
---@return lunark.Error|nil err
function archive.extract(stream, options) end

--- Parks. A walk without reading. Needs read for each root.
---@param options lunark.archive.Options those of the compression are ignored
---@return { files: integer, bytes: integer }|nil
---@return lunark.Error|nil err
function archive.estimate(options) end

--- The engines that are built in and that this CPU can run.
---@return table<string, string> engines name to version
function archive.engines() end

return archive
