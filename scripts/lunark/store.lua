-- SPDX-License-Identifier: MIT
--- Stores: a provider's store with retries, a prefix, and one set of methods for all kinds.
--- Needs the net capability for the store's host, or read and write for its directory: `open`
--- grants them itself while the runtime is not sealed.

local core_file = require "lunark.core.file"
local crypto = require "lunark.core.crypto"
local fs = require "lunark.fs"
local http = require "lunark.http"
local log = require "lunark.log"
local options = require "lunark.options"
local provider = require "lunark.provider"
local retry = require "lunark.retry"
local stream = require "lunark.core.stream"
local sys = require "lunark.core.sys"
local task = require "lunark.core.task"
local tasks = require "lunark.task"
local url = require "lunark.url"

--- Options for each store that has them, where neither its URL nor its caller says otherwise.
local store = { defaults = {} }

-- Seconds in all, with every retry. A part may be on its way for long on a thin line.
local DEADLINE = { default = 120, check = 20, part = 900, finish = 1800, copy = 1800, abort = 60 }
local BATCH = 1000
local COPY_PART = 256 * 1024 * 1024 -- bytes of a part that the store copies
local COPY_WIDTH = 8

---@class lunark.store.Info
---@field key string relative to the store's prefix
---@field size integer bytes
---@field etag string?
---@field version string?
---@field mtime number? seconds since 1970, by the store's clock
---@field meta table<string, string>? only from head and get

---@class lunark.Store
---@field scheme string
---@field features table what the store can do, see docs/providers.md
---@field key string? the one archive that the URL names
---@field found lunark.store.Info? what `check` has found of it
local Store = {}
Store.__index = Store

---@class lunark.Upload
local Upload = {}
Upload.__index = Upload

local function misuse(format, ...)
  error(sys.error { kind = "usage", op = "store", message = format:format(...) }, 0)
end

-- --- opening ---

local function grant(kind, value)
  if not sys.sealed() then sys.allow(kind, value) end
end

-- A file, and where it is a link what lies beside it: mounted secrets are links into a directory that is
-- swapped, so the file is another one each time it is read.
local function grant_file(path)
  path = fs.absolute(path)
  grant("read", path)
  if sys.sealed() then return end
  local itself, target = fs.lstat(path), fs.stat(path)
  if itself and itself.type == "link" and target and target.type == "file" then
    grant("read", fs.dirname(path))
  end
end

-- What a provider says that it reads beside its options.
local function grant_needs(needs)
  for _, name in ipairs(needs.env or {}) do grant("env", name) end
  for _, place in ipairs(needs.read or {}) do
    local path = place.env and options.environment(place.env)
    local home = place.home and options.environment("HOME")
    if home then path = fs.join(home, place.home) end
    if path then grant_file(path) end
  end
end

local function grant_options(declared)
  for _, declaration in pairs(declared) do
    local names = type(declaration.env) == "table" and declaration.env or { declaration.env }
    for _, name in ipairs(names) do
      grant("env", name)
      if declaration[1] == "secret" then grant("env", name .. "_FILE") end
    end
  end
end

-- All that a provider gets to act with.
local function make_ctx(found, self)
  local file
  if found.root then
    file = setmetatable({
      open = core_file.open, sync_dir = core_file.sync_dir, free_bytes = core_file.free_bytes,
      stream_of = stream.of, pid = sys.pid(),
    }, { __index = fs })
  end
  return {
    http = http, crypto = crypto, log = log.with { store = self.text }, secret = sys.secret, file = file,
    clock = function() return sys.clock() + self.skew end,
    env = options.environment, read = function(path) return fs.read_text(path) end,
    grant = function(host) grant("net", host) end, grant_read = grant_file,
  }
end

-- A directory that is called like an archive is a directory all the same.
local function place_of(address)
  if address.scheme == "file" then
    address.path = fs.absolute(address.path)
    grant("read", address.path)
    if address.archive and fs.is_dir(address.path) then address.archive = nil end
    if address.archive then address.path = fs.dirname(address.path) end
    grant("read", address.path)
    grant("write", address.path)
    return "", address.path
  end
  local path = address.path
  if address.archive then path = path:sub(1, #path - #address.archive):gsub("/+$", "") end
  local shown = ("%s://%s%s"):format(address.scheme, address.host, path ~= "" and "/" .. path or "")
  return path ~= "" and path .. "/" or "", shown
end

--- Opens the store of a URL. What it holds is looked at only by `check` and the other methods.
---@param text string path, file:///dir, s3://bucket/prefix?region=..., or the URL of one archive
---@param overrides table? options of the provider by name; they win over those in the URL
---@return lunark.Store?
---@return table? err kinds usage, auth
function store.open(text, overrides)
  local address, err = url.parse(text)
  if not address then return nil, err end
  local found, located = provider.find(address)
  if not found then return nil, located end
  address = located
  local given = {}
  for name, value in pairs(store.defaults) do
    if found.options and found.options[name] then given[name] = value end
  end
  for name, value in pairs(address.query) do given[name] = value end
  for name, value in pairs(overrides or {}) do given[name] = value end
  grant_options(found.options or {})
  grant_needs(found.needs or {})
  local values
  values, err = options.parse(found.options or {}, given, { what = address.scheme .. "://" .. address.host })
  if not values then return nil, err end
  local prefix, shown = place_of(address)
  local self = setmetatable({
    scheme = address.scheme, text = shown, prefix = prefix, key = address.archive, skew = 0,
    provider = found.name,
  }, Store)
  local inner
  inner, err = found.open(address, values, make_ctx(found, self))
  if inner then inner, err = provider.check_store(inner, found) end
  if not inner and not sys.is_error(err) then
    misuse("provider %s: open returned nil and no error", found.name or address.scheme)
  elseif not inner then
    return nil, err
  end
  self.inner = inner
  self.features = inner.features or found.features or {}
  return self
end

-- --- calls ---

-- Calls fn(attempt) with retries; a broken provider is told from a failed store.
function Store:try(what, class, fn)
  local function once(attempt)
    local first, second = fn(attempt)
    if first == nil and not sys.is_error(second) then
      misuse("provider %s: %s returned nil and no error", self.provider, what)
    end
    return first, second
  end
  return retry.run(once, {
    what = ("%s: %s"):format(self.text, what), deadline = DEADLINE[class] or DEADLINE.default, log = log,
    on_skew = function(offset) self.skew = self.skew + offset end,
  })
end

function Store:full(key)
  if type(key) ~= "string" then misuse("store: a key must be a string, got %s", type(key)) end
  return self.prefix .. key
end

function Store:relative(info, key)
  if type(info) ~= "table" then
    local what = key or "an object"
    misuse("provider %s: a table about %s expected, found a %s", self.provider, what, type(info))
  end
  info.key = key or (info.key or ""):sub(#self.prefix + 1)
  return info
end

--- The store's URL without its options, for people.
---@return string
function Store:describe() return self.text end

--- True when the store can: "copy", "range", "exclusive", "multipart".
---@param feature string
---@return boolean
function Store:can(feature)
  local has = self.features[feature]
  return has ~= nil and has ~= false
end

--- Says whether the store is there and lets these credentials in. For "write" a directory that is
--- not there is made. Where the URL names one archive, it is enough that this can be read: there are
--- credentials that may not list.
---@param mode string "read" or "write"
---@return true?
---@return table? err
function Store:check(mode)
  if mode == "read" and self.key then
    self.found = self:head(self.key)
    if self.found then return true end
  end
  if self.inner.check then
    local ok, err = self:try("check", "check", function() return self.inner:check(mode, self.prefix) end)
    if ok and mode == "write" and self.scheme == "file" and sys.check("write", self.text) then
      return fs.mkdir_granted(self.text)
    end
    return ok, err
  end
  local page, err = self:page("")
  return page and true, err
end

local function is_body(body)
  return type(body) == "string" or (type(body) == "userdata" and pcall(function() return body.size end))
end

--- Writes a whole object at once. Larger ones go through lunark.transfer.
---@param key string
---@param body string|lunark.Part
---@param meta table<string, string>?
---@param how table? {exclusive = true: conflict when the key is taken, as far as the store can tell;
--- expect_size = bytes}
---@return lunark.store.Info?
---@return table? err
function Store:put(key, body, meta, how)
  if not is_body(body) then misuse("store:put: a string or a part expected, got %s", type(body)) end
  local full = self:full(key)
  local info, err = self:try("put " .. key, "part", function(attempt)
    return self.inner:put(full, body, meta or {}, {
      exclusive = how and how.exclusive, expect_size = how and how.expect_size, attempt = attempt,
    })
  end)
  if not info then return nil, err end
  return self:relative(info, key)
end

--- Opens an object for reading.
---@param key string
---@param range table? {first, last}: bytes from 0, inclusive; last nil = to the end
---@return lunark.Stream?
---@return lunark.store.Info|table info, or err; info.size is that of the whole object
function Store:get(key, range)
  local full = self:full(key)
  local stream_or_nil, info = self:try("get " .. key, nil, function() return self.inner:get(full, range) end)
  if not stream_or_nil then return nil, info end
  return stream_or_nil, self:relative(info, key)
end

--- Reads bytes of an object inside of the retries: `fn(stream, info)` returns true, or nil and an error,
--- which is tried again where it is retryable.
---@param key string
---@param range fun(): table {first, last}, asked before each attempt
---@param fn fun(stream: lunark.Stream, info: lunark.store.Info): true?, table?
---@return true?
---@return table? err
function Store:read(key, range, fn)
  local full = self:full(key)
  return self:try("get " .. key, "part", function()
    local stream_or_nil, info = self.inner:get(full, range())
    if not stream_or_nil then return nil, info end
    local body <close> = stream_or_nil
    return fn(body, self:relative(info, key))
  end)
end

--- What the store knows of an object.
---@param key string
---@return lunark.store.Info?
---@return table? err kind not_found when there is none
function Store:head(key)
  local full = self:full(key)
  local info, err = self:try("head " .. key, nil, function() return self.inner:head(full) end)
  if not info then return nil, err end
  return self:relative(info, key)
end

--- One page of what is below a prefix, in bytewise order of keys.
---@param prefix string? relative to the store's
---@param token any? where the page before ended
---@return lunark.store.Info[]?
---@return any next token (nil: that was the last), or err
function Store:page(prefix, token)
  local full = self.prefix .. (prefix or "")
  local list, following = self:try("list " .. full, nil, function() return self.inner:list(full, token) end)
  if not list then return nil, following end
  if type(list) ~= "table" then
    misuse("provider %s: list returned a %s, a table expected", self.provider, type(list))
  end
  for _, info in ipairs(list) do self:relative(info) end
  return list, following
end

-- Iterates over pages: page(token) -> list, next token, or nil, err.
local function each(page)
  local list, token, index, ended = {}, nil, 0, false
  return function()
    while true do
      index = index + 1
      if list[index] then return list[index] end
      if ended then return nil end
      local following
      list, following = page(token)
      if not list then
        list, ended = {}, true
        return false, following
      end
      token, index, ended = following, 0, following == nil
    end
  end
end

--- Iterates over what is below a prefix: `for info, err in store:list(prefix)`. When a page can't
--- be had, the last turn gives false and the error.
---@param prefix string?
---@return fun(): lunark.store.Info|false|nil, table?
function Store:list(prefix)
  return each(function(token) return self:page(prefix, token) end)
end

--- Iterates over the uploads below a prefix that were begun and neither finished nor aborted, as list does.
--- Only when `store:can("uploads")`.
---@param prefix string?
---@return fun(): table|false|nil, table? {key, id, began = seconds since 1970 or nil, size = bytes or nil,
--- ours = true where lunark has surely begun it}
function Store:uploads(prefix)
  if not self:can("uploads") then misuse("%s can't list uploads", self.text) end
  local full = self.prefix .. (prefix or "")
  return each(function(token)
    local page, following = self:try("list uploads " .. full, nil, function()
      return self.inner:uploads(full, token)
    end)
    if not page then return nil, following end
    for _, one in ipairs(page) do self:relative(one) end
    return page, following
  end)
end

-- Calls a function about an upload that `uploads` gave; its key is the library's.
local function about_upload(self, name, what, one)
  local inner = setmetatable({ key = self:full(one.key) }, { __index = one })
  return self:try(what .. one.key, nil, function() return self.inner[name](self.inner, inner) end)
end

--- When something was last sent for such an upload.
---@param one table of uploads
---@return number|false|nil seconds since 1970, false where that is not known; nil, err
---@return table? err not_found when it is not there any more
function Store:upload_time(one)
  if not self.inner.upload_time then return one.began or false end
  return about_upload(self, "upload_time", "look at the upload of ", one)
end

--- Throws such an upload away, where the store can: `store:can_discard()`.
---@param one table of uploads
---@return true?
---@return table? err
function Store:discard(one)
  if not self:can_discard() then misuse("%s can't remove uploads", self.text) end
  return about_upload(self, "discard", "abort the upload of ", one)
end

--- True when unfinished uploads can be removed.
---@return boolean
function Store:can_discard() return self:can("uploads") and self.inner.discard ~= nil end

--- Deletes objects. One that is not there is no failure.
---@param keys string|string[]
---@return true?
---@return table facts {versions = true: the store says that it keeps what was deleted as an old version}, or
--- err: of several keys, `errors` has each one's by key; `versions` as in facts
function Store:delete(keys)
  if type(keys) == "string" then keys = { keys } end
  local errors, first, count, facts = {}, nil, 0, {}
  for start = 1, #keys, BATCH do
    local batch = {}
    for index = start, math.min(start + BATCH - 1, #keys) do batch[#batch + 1] = self:full(keys[index]) end
    local what = #batch == 1 and "delete " .. keys[start] or ("delete %d keys"):format(#batch)
    local failed, more = self:try(what, nil, function() return self.inner:delete(batch) end)
    if not failed then return nil, more end
    facts.versions = facts.versions or more and more.versions or nil
    for _, key in ipairs(batch) do
      if failed[key] then
        first, count = first or failed[key], count + 1
        errors[key:sub(#self.prefix + 1)] = failed[key]
      end
    end
  end
  if not first then return true, facts end
  first.versions = facts.versions
  if #keys == 1 then return nil, first end
  local err = sys.error {
    kind = first.kind, op = first.op, cause = first, hint = first.hint,
    message = ("%d of %d keys could not be deleted; %s"):format(count, #keys, first.message),
  }
  err.errors, err.versions = errors, facts.versions
  return nil, err
end

-- What is too large for one copy, in parts of one size.
local function copy_in_parts(self, from, to, meta, how)
  local source = how.source
  local multipart = self.features.multipart
  local size = math.max(math.min(COPY_PART, self.features.copy_max), math.ceil(source.size / multipart.count))
  local upload <close>, err = self:uploader(to, meta or source.meta, {
    exclusive = how.replaces == false, replaces = how.replaces or nil, copied = true,
  })
  if not upload then return nil, err end
  local starts = {}
  for first = 0, source.size - 1, size do starts[#starts + 1] = first end
  local failed
  tasks.map(starts, COPY_WIDTH, function(first, number)
    if failed then return false end -- those under way end by themselves: the store goes on with them anyway
    local last = math.min(first + size, source.size) - 1
    local part, why = upload:copy(number, from, first, last, source.etag)
    if not part then failed = failed or why end
    return part ~= nil
  end)
  if failed then return nil, failed end
  return upload:finish()
end

--- Copies inside of the store; the bytes don't pass through here. Only when `store:can("copy")`.
---@param from string
---@param to string
---@param meta table<string, string>? of the copy; nil keeps that of the original
---@param how table? {replaces = version that `to` must have, false: it must not be there}: else conflict, as
--- far as the store can tell
---@return lunark.store.Info?
---@return table? err
function Store:copy(from, to, meta, how)
  if not self:can("copy") then misuse("%s can't copy", self.text) end
  local source, target = self:full(from), self:full(to)
  local original, info, err
  if self.features.copy_max and self:can("multipart") then
    original, err = self:head(from)
    if not original then return nil, err end
  end
  local more = { replaces = how and how.replaces, source = original }
  if original and original.size > self.features.copy_max then
    return copy_in_parts(self, from, to, meta, more)
  end
  info, err = self:try(("copy %s to %s"):format(from, to), "copy", function()
    return self.inner:copy(source, target, meta, more)
  end)
  if not info then return nil, err end
  return self:relative(info, to)
end

--- Begins an upload in parts. lunark.transfer does this for a stream.
---@param key string
---@param meta table<string, string>?
---@param how table? {exclusive=, expect_size=, replaces = as for copy, copied = true: its parts are copies}
---@return lunark.Upload? to-be-closed: aborts unless finished
---@return table? err
function Store:uploader(key, meta, how)
  if not self:can("multipart") then misuse("%s takes no parts", self.text) end
  local full = self:full(key)
  local inner, err = self:try("begin " .. key, nil, function(attempt)
    return self.inner:begin(full, meta or {}, {
      exclusive = how and how.exclusive, expect_size = how and how.expect_size,
      replaces = how and how.replaces, copied = how and how.copied, attempt = attempt,
    })
  end)
  if inner then inner, err = provider.check_upload(inner, self.provider) end
  if not inner then return nil, err end
  return setmetatable({ store = self, inner = inner, key = key, parts = {}, open = true }, Upload)
end

--- Sends one part; several may be under way at once, unless `features.multipart.width` says
--- otherwise.
---@param number integer from 1
---@param body string|lunark.Part
---@param offset integer? where it begins; a Part knows
---@return table? what the store answered
---@return table? err
function Upload:part(number, body, offset)
  if not self.open then misuse("upload of %s: it is closed", self.key) end
  if not is_body(body) then misuse("upload:part: a string or a part expected, got %s", type(body)) end
  local at = offset or (type(body) ~= "string" and body.offset) or nil
  local part, err = self.store:try(("part %d of %s"):format(number, self.key), "part", function()
    return self.inner:part(number, body, at)
  end)
  if part then self.parts[number] = part end
  return part, err
end

--- Makes one part of the bytes first to last of an object that is in the store.
---@param number integer from 1
---@param from string
---@param first integer
---@param last integer
---@param etag string? what the object must still have
---@return table?
---@return table? err
function Upload:copy(number, from, first, last, etag)
  if not self.open then misuse("upload of %s: it is closed", self.key) end
  local source = self.store:full(from)
  local part, err = self.store:try(("copy part %d of %s"):format(number, self.key), "copy", function()
    return self.inner:copy(number, source, first, last, etag)
  end)
  if part then self.parts[number] = part end
  return part, err
end

--- Makes the parts one object; before this nothing is visible.
---@return lunark.store.Info?
---@return table? err
function Upload:finish()
  if not self.open then misuse("upload of %s: it is closed", self.key) end
  local count = 0
  for _ in pairs(self.parts) do count = count + 1 end
  if count ~= #self.parts or count == 0 then misuse("upload of %s: a part is missing", self.key) end
  local info, err = self.store:try("finish " .. self.key, "finish", function()
    return self.inner:finish(self.parts)
  end)
  if not info then return nil, err end
  self.open = false
  return self.store:relative(info, self.key)
end

--- Throws away what was sent. Runs to its end when the task is cancelled, for at most 20 s.
---@return true?
---@return table? err
function Upload:abort()
  if not self.open then return true end
  self.open = false
  return task.shield(function()
    local ok, err = self.store:try("abort " .. self.key, "abort", function() return self.inner:abort() end)
    if not ok then
      log.warn(("%s: the unfinished upload of %s could not be removed: %s"):format(self.store.text, self.key,
        err.message))
    end
    return ok, err
  end, 20)
end

function Upload:close() self:abort() end
Upload.__close = Upload.close

store.Store = Store

return store
