-- SPDX-License-Identifier: MIT
--- A directory as a store: a path, or `file:///dir`. Keys are paths below it.
--- An object is written to a temporary name beside its own (`.NAME.lunark-PID-RANDOM.tmp`), brought
--- to the disk and renamed, and the directory is brought to the disk too: a key is whole or not
--- there. Its metadata, which a file has no place for on every file system, is in a small file
--- beside it (`.NAME.lunark`); it counts as long as size and time of the object are those it was
--- written for, so copying a store with `cp -a` or `rsync -a` keeps it.

local json = require "lunark.json"
local sys = require "lunark.core.sys"

local DAY = 86400
local PAGE = 1000
local MODE = 438 -- 0666, as the umask allows
local NAME_MAX, PROBE = 255, 4096

local Store = {}
Store.__index = Store
local Upload = {}
Upload.__index = Upload

local EACCES = 13 -- the system says no, not a missing capability

local function failed(kind, message, hint)
  return nil, sys.error { kind = kind, op = "local", message = message, hint = hint }
end

local function denied(self, err) -- what is to be granted is the store's directory, not a name in it
  if err.kind == "denied" and not err.code then err.hint = ('grant write for "%s"'):format(self.root) end
  return nil, err
end

-- --- names ---

local function is_private(name)
  return name:find("^%..+%.lunark$") ~= nil or name:find("^%..+%.lunark%-%d+%-%x+%.tmp$") ~= nil
end

-- What the root is without links, once it is there.
function Store:settle()
  if self.settled then return end
  local real = self.file.realpath(self.root == "" and "/" or self.root)
  if real then self.real, self.settled = real == "/" and "" or real, true end
end

-- Where the way to a path leads, as far as it is there: the rest would be made below that.
function Store:lead(path)
  local at = self.file.dirname(path)
  local real = self.file.realpath(at)
  while not real and #at > #self.root do
    if self.file.lstat(at) then return failed("denied", at .. " is a link that leads nowhere") end
    at = self.file.dirname(at)
    real = self.file.realpath(at)
  end
  return real or ""
end

-- The file of a key, refused where it would leave the root: by its components, and by links on its
-- way.
function Store:locate(key)
  if key == "" or key:find("\0", 1, true) then
    return failed("usage", ("'%s': a key has at least one byte, none of value 0"):format(key))
  end
  for part in (key .. "/"):gmatch("(.-)/") do
    if part == "" or part == "." or part == ".." or #part > NAME_MAX or is_private(part) then
      return failed("usage", ("'%s': '%s' can't be a part of a key in a directory"):format(key, part),
        "a part has 1 to 255 bytes, is neither . nor .., and no name that this store keeps for itself")
    end
  end
  local path = self.root .. "/" .. key
  local real, err = self:lead(path)
  if not real then return nil, err end
  self:settle()
  if real ~= "" and real ~= self.real and real:sub(1, #self.real + 1) ~= self.real .. "/" then
    return failed("denied", ("%s: a link leads out of %s, to %s"):format(path, self.root, real))
  end
  return path
end

local function shortened(self, name, extra)
  if #name + extra <= NAME_MAX then return name end
  return self.ctx.crypto.hex(self.ctx.crypto.digest("sha256", name)):sub(1, 40)
end

local function temporary_of(self, path)
  local file, crypto = self.file, self.ctx.crypto
  local name = shortened(self, file.basename(path), 40)
  return ("%s/.%s.lunark-%d-%s.tmp"):format(file.dirname(path), name, file.pid, crypto.hex(crypto.random(6)))
end

-- A temporary file that is removed when the block is left before it has its name (`done`), also by a
-- cancelled task, which raises where it waits.
local Temporary = {}
Temporary.__index = Temporary

function Temporary:__close()
  if not self.done then self.file.unlink(self.path) end
end

local function new_temporary(self, path)
  return setmetatable({ path = temporary_of(self, path), file = self.file }, Temporary)
end

local function sidecar_of(self, path)
  local file = self.file
  return ("%s/.%s.lunark"):format(file.dirname(path), shortened(self, file.basename(path), 8))
end

-- The file of a key that must be there, with its stat.
function Store:find(key)
  local path, err = self:locate(key)
  if not path then return nil, err end
  local info
  info, err = self.file.lstat(path)
  if not info then
    if err.kind == "not_found" then return failed("not_found", path .. ": there is no such object") end
    return nil, err
  end
  if info.type == "directory" then return failed("not_found", path .. ": there is no such object") end
  if info.type ~= "file" then
    return failed("denied", ("%s is a %s, a file expected"):format(path, info.type))
  end
  return path, info
end

-- --- metadata ---

local function read_sidecar(self, path)
  local text = self.file.read_text(sidecar_of(self, path), 65536)
  local records = text and json.decode(text)
  return type(records) == "table" and type(records.records) == "table" and records.records or {}
end

-- The record of an object. Two of one size and second are told apart by the inode, which is another one
-- in a copy of the store: then there is no more than one.
local function record_of(records, info)
  local found
  for _, record in ipairs(records) do
    if type(record) == "table" and record.size == info.size and record.mtime == info.mtime
      and type(record.meta) == "table" then
      if record.ino == info.ino then return record end
      found = found or record
    end
  end
  return found
end

local function meta_of(self, path, info)
  local record = record_of(read_sidecar(self, path), info)
  return record and record.meta or {}
end

-- Writes a small file to the disk under a temporary name, then renames it.
local function write_small(self, path, text)
  local temporary <close> = new_temporary(self, path)
  local handle, err = self.file.open(temporary.path, "x", MODE)
  if not handle then return nil, err end
  local ok
  ok, err = handle:pwrite(text, 0)
  if ok then ok, err = handle:sync() end
  handle:close()
  if ok then ok, err = self.file.rename(temporary.path, path) end
  temporary.done = ok
  return ok and true, err
end

-- Before an object gets its name: the record of the new one first, that of the one still there
-- behind it, so that whichever is found after a crash has its metadata.
local function write_meta(self, path, temporary, meta)
  local sidecar = sidecar_of(self, path)
  local before = read_sidecar(self, path)
  if next(meta) == nil and #before == 0 then return true end
  local info, err = self.file.lstat(temporary)
  if not info then return nil, err end
  local records = { { size = info.size, mtime = info.mtime, ino = info.ino, meta = meta } }
  local old = self.file.lstat(path)
  records[2] = old and record_of(before, old)
  return write_small(self, sidecar, json.encode { version = 1, records = records })
end

-- --- writing ---

-- What a killed process left: nobody has written to it for a day.
local function sweep(self, directory)
  for _, name in ipairs(self.file.readdir(directory) or {}) do
    if name:find("^%..+%.lunark%-%d+%-%x+%.tmp$") then
      local path = directory .. "/" .. name
      local info = self.file.lstat(path)
      if info and info.type == "file" and self.ctx.clock() - info.mtime > DAY then
        self.ctx.log.info("removing what an interrupted run left: " .. path)
        self.file.unlink(path)
      end
    end
  end
end

-- size: of what is written; how much a source will give is only a guess at what is stored of it.
local function check_room(self, directory, size, guess)
  local free = (size or guess) and self.file.free_bytes(directory)
  if free and guess and free < guess then
    local text = "%s: %d bytes are free, the source is expected to have %d"
    self.ctx.log.warn(text:format(self.root, free, guess))
  end
  if free and size and free < size then
    return failed("io", ("%s: %d bytes are free, %d are needed"):format(self.root, free, size),
      "make room on that file system, or choose another store")
  end
  return true
end

function Store:begin(key, meta, how)
  local path, err = self:locate(key)
  if not path then return nil, err end
  local directory = self.file.dirname(path)
  local ok, why, made = self.file.mkdir_all(directory)
  if not ok then return denied(self, why) end
  if not self.swept[directory] then
    self.swept[directory] = true
    sweep(self, directory)
  end
  ok, err = check_room(self, directory, how and how.size, how and how.expect_size)
  if not ok then return nil, err end
  local info = self.file.lstat(path)
  if info and info.type ~= "file" then
    return failed("conflict", ("%s is a %s, no object can take its name"):format(path, info.type))
  end
  local temporary = temporary_of(self, path)
  local handle, refused = self.file.open(temporary, "x", MODE)
  if not handle then return denied(self, refused) end
  return setmetatable({
    store = self, path = path, temporary = temporary, handle = handle, meta = meta or {}, made = made,
    exclusive = how and how.exclusive,
  }, Upload)
end

function Upload:part(_, body, offset)
  local ok, err = self.handle:pwrite(body, offset or 0)
  if not ok then return nil, err end
  return { size = type(body) == "string" and #body or body.size, offset = offset or 0 }
end

local function publish(self)
  local file, path = self.store.file, self.path
  if not self.exclusive then
    local ok, err = file.rename(self.temporary, path)
    -- A rename onto another name of the same file does nothing.
    if ok then file.unlink(self.temporary) end
    return ok, err
  end
  local ok, err = file.link(self.temporary, path)
  if not ok and err.kind == "conflict" then
    return failed("conflict", path .. ": the object is there already")
  elseif not ok then -- a file system without hard links
    if file.lstat(path) then return failed("conflict", path .. ": the object is there already") end
    return file.rename(self.temporary, path)
  end
  return file.unlink(self.temporary)
end

-- Names are on the disk once their directory is; new directories have names too.
local function sync_names(self)
  local file = self.store.file
  local ok, err = file.sync_dir(file.dirname(self.path))
  for index = #(self.made or {}), 1, -1 do
    local parent = file.dirname(self.made[index])
    if ok then ok, err = file.sync_dir(parent) end
    -- What is above the store need not be granted.
    if not ok and err.kind == "denied" and not err.code and #parent < #self.store.root then ok = true end
  end
  return ok, err
end

function Upload:finish(parts)
  local size = 0
  for _, part in ipairs(parts) do
    if part.offset ~= size then
      return failed("corrupt", ("%s: a part begins at byte %d, %d expected")
        :format(self.path, part.offset, size))
    end
    size = size + part.size
  end
  local ok, err = self.handle:sync()
  if not ok then return nil, err end
  local found = self.handle:size()
  if found ~= size then
    return failed("corrupt", ("%s has %s bytes, %d were written")
      :format(self.temporary, tostring(found), size))
  end
  self.handle:close()
  ok, err = write_meta(self.store, self.path, self.temporary, self.meta)
  if ok then ok, err = publish(self) end
  if not ok then return nil, err end
  self.done = true
  ok, err = sync_names(self)
  if not ok then return nil, err end
  return { size = size }
end

function Upload:abort()
  self.handle:close()
  if self.done then return true end
  local file = self.store.file
  local ok, err = file.unlink(self.temporary)
  if not ok and err.kind ~= "not_found" then return nil, err end
  for index = #(self.made or {}), 1, -1 do file.rmdir(self.made[index]) end
  return true
end

-- For a block that an upload must not outlive unfinished.
function Upload:__close()
  if not self.done then self:abort() end
end

function Store:put(key, body, meta, how)
  local size = type(body) == "string" and #body or body.size
  local begun, err = self:begin(key, meta, { exclusive = how and how.exclusive, size = size })
  if not begun then return nil, err end
  local upload <close> = begun
  local part, info
  part, err = upload:part(1, body, 0)
  if part then info, err = upload:finish { part } end
  return info, err
end

-- A second name for the same bytes where the file system has that: objects are replaced, never
-- changed.
function Store:copy(from, to, meta)
  local source, info = self:find(from)
  if not source then return nil, info end
  meta = meta or meta_of(self, source, info)
  local begun, err = self:begin(to, meta)
  if not begun then return nil, err end
  local upload <close> = begun
  self.file.unlink(upload.temporary)
  local ok = self.file.link(source, upload.temporary)
  if not ok then
    upload:abort()
    return self:copy_bytes(source, to, meta, info.size)
  end
  upload.handle:close()
  ok, err = write_meta(self, upload.path, upload.temporary, meta)
  if ok then ok, err = publish(upload) end
  if ok then
    upload.done = true
    ok, err = sync_names(upload)
  end
  if not ok then return nil, err end
  return { size = info.size }
end

function Store:copy_bytes(source, to, meta, size)
  local begun, err = self:begin(to, meta, { size = size })
  if not begun then return nil, err end
  local upload <close> = begun
  local input
  input, err = self.file.open(source, "r")
  local copied, info
  if input then
    copied, err = input:stream():to_file(upload.handle)
    input:close()
  end
  if copied then info, err = upload:finish { { size = copied, offset = 0 } } end
  return info, err
end

-- --- reading ---

local function describe(self, key, path, info)
  return { key = key, size = info.size, mtime = info.mtime, meta = meta_of(self, path, info) }
end

function Store:head(key)
  local path, info = self:find(key)
  if not path then return nil, info end
  return describe(self, key, path, info)
end

function Store:get(key, range)
  local path, info = self:find(key)
  if not path then return nil, info end
  local first, last = range and range[1] or 0, range and range[2]
  if range and (first >= info.size or (last and last < first)) then
    return failed("usage", ("%s has %d bytes, none from %d on"):format(path, info.size, first))
  end
  local handle, err = self.file.open(path, "r")
  if not handle then return nil, err end
  local stream
  stream, err = handle:stream(first, last)
  handle:close()
  if not stream then return nil, err end
  return stream, describe(self, key, path, info)
end

-- Adds the keys below a directory that begin with prefix. In the order of the keys' bytes: a
-- directory sorts as its name with the slash.
local function walk(self, directory, base, prefix, keys)
  local names, err = self.file.readdir(directory)
  if not names then
    if err.kind == "not_found" then return true end
    return nil, err
  end
  local entries = {}
  for _, name in ipairs(names) do
    local key = base .. name
    local info = not is_private(name) and self.file.lstat(directory .. "/" .. name)
    if info and info.type == "file" and key:sub(1, #prefix) == prefix then
      entries[#entries + 1] = { key = key, size = info.size, mtime = info.mtime }
    elseif info and info.type == "directory" then
      local below = key .. "/"
      local shared = math.min(#below, #prefix)
      if below:sub(1, shared) == prefix:sub(1, shared) then
        entries[#entries + 1] = { key = below, directory = true }
      end
    end
  end
  table.sort(entries, function(a, b) return a.key < b.key end)
  for _, entry in ipairs(entries) do
    if entry.directory then
      local ok
      ok, err = walk(self, self.root .. "/" .. entry.key:sub(1, -2), entry.key, prefix, keys)
      if not ok then return nil, err end
    else
      keys[#keys + 1] = entry
    end
  end
  return true
end

function Store:list(prefix, token)
  local keys = token and token.keys
  if not keys then
    local ok, err = self:check("read")
    if not ok then return nil, err end
    keys = {}
    local base = prefix:match("^(.*/)") or ""
    if base ~= "" then
      local inside
      inside, err = self:locate(base .. "x")
      if not inside then
        if err.kind == "usage" then return {} end
        return nil, err
      end
    end
    ok, err = walk(self, self.root .. "/" .. base:sub(1, -2), base, prefix, keys)
    if not ok then return nil, err end
  end
  local start = token and token.at or 1
  local page = table.move(keys, start, math.min(start + PAGE - 1, #keys), 1, {})
  if start + PAGE > #keys then return page, nil end
  return page, { keys = keys, at = start + PAGE }
end

-- --- what was left ---

-- Files of ours in a directory that stand for nothing: temporary ones, and metadata without its object.
local function leftovers(self, directory, base, names, found)
  local known = {}
  for _, name in ipairs(names) do
    local sidecar = not is_private(name) and sidecar_of(self, directory .. "/" .. name)
    if sidecar then known[self.file.basename(sidecar)] = true end
  end
  for _, name in ipairs(names) do
    local info = is_private(name) and not known[name] and self.file.lstat(directory .. "/" .. name)
    if info and info.type == "file" then
      local object = name:match("^%.(.+)%.lunark%-%d+%-%x+%.tmp$") or name:match("^%.(.+)%.lunark$")
      found[#found + 1] = {
        key = base .. object, id = base .. name, began = info.mtime, size = info.size, ours = true,
      }
    end
  end
end

local function look_below(self, directory, base, prefix, found)
  local names, err = self.file.readdir(directory)
  if not names then
    if err.kind == "not_found" then return true end
    return nil, err
  end
  if base:sub(1, #prefix) == prefix then leftovers(self, directory, base, names, found) end
  for _, name in ipairs(names) do
    local below = base .. name .. "/"
    local shared = math.min(#below, #prefix)
    local info = below:sub(1, shared) == prefix:sub(1, shared) and self.file.lstat(directory .. "/" .. name)
    if info and info.type == "directory" then
      local ok
      ok, err = look_below(self, directory .. "/" .. name, below, prefix, found)
      if not ok then return nil, err end
    end
  end
  return true
end

--- What killed runs have left, in the directories whose names begin with a prefix.
function Store:uploads(prefix)
  local found = {}
  local ok, err = look_below(self, self.root, "", prefix, found)
  if not ok then return nil, err end
  table.sort(found, function(a, b) return a.id < b.id end)
  return found, nil
end

function Store:upload_time(one)
  local info, err = self.file.lstat(self.root .. "/" .. one.id)
  if not info then return nil, err end
  return info.mtime
end

function Store:discard(one)
  local ok, err = self.file.unlink(self.root .. "/" .. one.id)
  if not ok and err.kind ~= "not_found" then return nil, err end
  return true
end

-- --- the rest ---

function Store:delete(keys)
  local errors = {}
  for _, key in ipairs(keys) do
    local path, info = self:find(key)
    if path then
      local ok, err = self.file.unlink(path)
      if ok or err.kind == "not_found" then
        self.file.unlink(sidecar_of(self, path))
        -- Directories are there for their objects only.
        local above = self.file.dirname(path)
        while #above > #self.root and self.file.rmdir(above) do above = self.file.dirname(above) end
      else
        errors[key] = err
      end
    elseif info.kind ~= "not_found" then
      errors[key] = info
    end
  end
  return errors
end

-- Whether anything can be written there at all: a full disk, a quota and a read-only mount are known
-- before the source is read.
local function try_writing(self)
  local temporary <close> = new_temporary(self, self.root .. "/check")
  local handle, err = self.file.open(temporary.path, "x", MODE)
  if not handle then return nil, err end
  local ok
  ok, err = handle:pwrite(("\0"):rep(PROBE), 0)
  if ok then ok, err = handle:sync() end
  handle:close()
  return ok and true, err
end

function Store:check(mode)
  local file, at = self.file, self.root
  local info, err = file.stat(at)
  if mode == "write" then
    while not info and err.kind == "not_found" and at ~= "/" do
      at = file.dirname(at)
      info, err = file.stat(at)
    end
  end
  if not info then
    if err.kind == "not_found" then
      return failed("not_found", ("directory %s does not exist"):format(self.root))
    end
    -- What is above the store need not be granted: the first write tells then.
    if at ~= self.root and err.kind == "denied" and not err.code then return true end
    return nil, err
  end
  if info.type ~= "directory" then
    return failed("io", ("%s is a %s, a directory expected"):format(at, info.type))
  end
  if mode == "write" and not file.access(at, "wx") then
    local _, why = failed("denied", ("directory %s can't be written to by this user"):format(at))
    why.code = EACCES
    return nil, why
  end
  if mode == "write" and at == self.root then return try_writing(self) end
  return true
end

local function open(url, _, ctx)
  local root = url.path
  -- What is not there yet gets its links resolved as far as it is.
  local real, tail, at = ctx.file.realpath(root), "", root
  while not real and at ~= "/" do
    tail = "/" .. ctx.file.basename(at) .. tail
    at = ctx.file.dirname(at)
    real = ctx.file.realpath(at)
  end
  real = ((real == "/" or not real) and "" or real) .. tail
  return setmetatable({
    root = root == "/" and "" or root, real = real, file = ctx.file, ctx = ctx, swept = {},
  }, Store)
end

return {
  api = 1, name = "local", schemes = { "file" }, root = true, options = {}, open = open,
  features = {
    range = true, range_width = 1, copy = true, exclusive = true, part_hash = {}, uploads = true,
    multipart = { min = 1, max = math.maxinteger, count = math.maxinteger, equal = false, align = 1 },
  },
}
