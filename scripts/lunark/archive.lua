-- SPDX-License-Identifier: MIT
-- Archives of paths as a compressed stream, and extraction. Needs read for what is archived and write
-- for where it is extracted. How to use it:
--
--   local made = assert(archive.create { roots = { "/etc" }, exclude = { "*.bak" } })
--   assert(store:put("etc.tar.gz", made:stream()))
--   print(made:result().files)

local core = require "lunark.core.archive"

local archive = {}

---@class lunark.archive.Options
---@field roots (string|lunark.archive.Root)[] what to archive; a root that is missing is an error
---@field exclude string[]|nil patterns as in tar --exclude: not anchored, `*` matches `/` too
---@field exclude_caches boolean|nil keep only the tag of directories with a CACHEDIR.TAG, default false
---@field one_file_system boolean|nil leave out what is mounted below a root, default false
---@field whole boolean|nil what can't be read, changes or vanishes fails the stream, default false: warnings
---@field level string|integer|nil "fast", "balanced", "best", "none" or 1 to 12, default "balanced"
---@field engine string|nil "auto", "zlib", "libdeflate" or "isal", default "auto"
---@field jobs integer|nil members compressed at once, default as the runtime's
---@field index boolean|nil write the index of files, default true

---@class lunark.archive.Root
---@field path string in the file system
---@field name string|nil member path, default the path without a leading "/", "./" and anything up to ".."

---@class lunark.archive.Result
---@field files integer
---@field directories integer
---@field links integer hard and symbolic
---@field others integer devices and FIFOs
---@field bytes integer of file data
---@field members integer gzip members with data
---@field unreadable integer what could not be read
---@field skipped integer entries that were left out for what was in the target (extraction)
---@field warning_count integer
---@field warnings table[] {path, kind, message}, 1,000 at most; kind: changed vanished unreadable skipped

--- Makes an archive of paths; reading begins with its stream.
---@param options lunark.archive.Options
---@return lunark.Archive|nil
---@return table? err kind not_found for a root that is missing, denied where it may not be read
archive.create = core.create

---@class lunark.archive.ExtractOptions
---@field into string directory; made if it is missing
---@field existing string|nil what becomes of a file that is there: "error" (conflict), "skip", "replace", or
--- "keep-newer" (one that is newer than the archive's stays), default "error"
---@field overwrite boolean|nil existing = "replace"
---@field owner string|nil "keep" owners, "none", or "auto": keep as root, default "auto"
---@field mode string|nil "keep", or "umask": less the umask, no set-id bits, no access lists; default "keep"
---@field devices boolean|nil make devices, too (as root), default false: left out with a warning
---@field strip integer|nil leading components to take off, from members that no map names, default 0
---@field map string[][]|nil {from, to} each: members at and below `from` go to `to`; the first fits
---@field select string[]|nil only what one of these globs matches: patterns as in exclude, of the path from
--- its beginning on, and with a directory all below it. The result has `matched`, how often each did, and
--- `lost`, {path, target} of hard links that were selected when their targets were not: those are not made
---@field max_bytes integer|nil that may be written, holes not counted; more is an error of kind corrupt
---@field max_ratio integer|nil times the archive's size that may be written, beyond 256 MiB: else corrupt
---@field jobs integer|nil members decompressed at once, default as the runtime's

--- Extracts a tar, or a tar in gzip, beneath a directory. Members that would leave it are refused.
---@param stream lunark.Stream is taken over
---@param options lunark.archive.ExtractOptions
---@return lunark.Extract|nil
---@return table? err
archive.extract = core.extract

--- Counts what an archive with these options would hold, without reading files; parks.
---@param options lunark.archive.Options those that only matter for compression are ignored
---@return table|nil {files, bytes} regular files and their data
---@return table? err
archive.estimate = core.estimate

--- What is in an archive in a store: `for record, err in archive.contents(store, key)`, by its index, or by
--- reading one that has none. The last turn gives false and an error if it could not go on.
---@param store table lunark.store
---@param key string
---@param globs string[]|nil only what one of them matches, as `select` of extract
---@return fun(): lunark.index.Record|false|nil, table|nil
function archive.contents(store, key, globs)
  return require "lunark.contents".each(store, { key = key }, globs)
end

--- Chosen entries of an archive in a store as a tar, for extract, by ranged reads of what holds them; each is
--- compared with the index.
---@param store table lunark.store
---@param key string
---@param globs string[] as `select` of extract
---@return lunark.Pieces|nil to-be-closed, with `stream`
---@return table? err `index`: the archive has none, or a wrong one; it can be extracted whole, with `select`
function archive.pieces(store, key, globs)
  return require "lunark.pieces".open(store, key, nil, globs)
end

--- The compression engines that are built in and that this CPU can run.
---@return table<string, string> engines name to version
archive.engines = core.engines

return archive
