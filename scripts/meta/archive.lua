---@meta lunark.core.archive
--- lunark.core.archive: archives of paths and extraction in C. Scripts use lunark.archive, which
--- documents the options and results in full.

local archive = {}

--- Needs read for each root.
---@param options lunark.archive.Options
---@return lunark.Archive|nil
---@return table? err
function archive.create(options) end

--- Needs write for `into`. Takes the stream over; it may be gzip or plain tar.
---@param stream table
---@param options lunark.archive.ExtractOptions
---@return lunark.Extract|nil
---@return table? err
function archive.extract(stream, options) end

--- Parks. A walk without reading.
---@param options lunark.archive.Options
---@return table|nil {files, bytes}
---@return table? err
function archive.estimate(options) end

---@return table<string, string> engines name to version
function archive.engines() end

return archive
