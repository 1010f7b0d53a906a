-- SPDX-License-Identifier: MIT
--- Google Cloud Storage by its JSON API: `gs://bucket/prefix?endpoint=&storage_class=`.
--- One call is one attempt; retries are the library's. An upload's bytes go in turn through one
--- resumable session; after a broken request the session is asked how much it has.
--- https://cloud.google.com/storage/docs/json_api/v1

local checks = require "providers.gcs.checks"
local gcs_error = require "providers.gcs.errors"
local google = require "providers.credential.google"
local json = require "lunark.json"
local sys = require "lunark.core.sys"
local task = require "lunark.task"
local time = require "lunark.time"

local KiB, MiB = 1024, 1024 * 1024
local ALIGN = 256 * KiB -- a session keeps multiples of it, until the end is told
local PUT_MAX = 2 * MiB -- more goes through a session: a put's body is put together in memory
local SLOW = 300 -- seconds without a byte: finishing and copying may take the store that long
local PAGE = 1000
local TYPE = "application/octet-stream"
local FIELDS = "name,size,generation,updated,crc32c,md5Hash,etag,metadata,contentType"
local INCOMPLETE = 308 -- "Resume Incomplete"
local CANCELLED = 499 -- the answer to the end of a session

local Store = {}
Store.__index = Store
local Upload = {}
Upload.__index = Upload

local function failed(kind, op, format, ...)
  return nil, sys.error { kind = kind, op = "gcs." .. op, message = format:format(...) }
end

-- What an answer means is not known, so it is asked again.
local function unclear(op, format, ...)
  local _, err = failed("network", op, format, ...)
  err.retryable = true
  return nil, err
end

-- --- requests ---

-- The address of a key's resource (nil: of the bucket's list).
function Store:path(key)
  local escape = self.ctx.http.escape
  return ("/storage/v1/b/%s/o%s"):format(escape(self.bucket), key and "/" .. escape(key) or "")
end

function Store:upload_path()
  return ("/upload/storage/v1/b/%s/o"):format(self.ctx.http.escape(self.bucket))
end

--- r = {op, method, path, query, headers, body, sink, max, idle_timeout, key, also = status that is
--- fine}. The response, or nil, err.
function Store:send(r)
  local headers = { ["x-goog-user-project"] = self.options.user_project or self.credentials.quota_project }
  for name, value in pairs(r.headers or {}) do headers[name] = value end
  local authorization, err = self.credentials:header()
  if err then return nil, err end
  headers["authorization"] = authorization
  local response
  response, err = self.ctx.http.request {
    method = r.method or "GET", url = self.endpoint .. r.path, query = r.query, headers = headers,
    body = r.body, sink = r.sink, max = r.max or MiB, idle_timeout = r.idle_timeout,
    ca_file = self.options.ca_file,
  }
  if not response then return nil, err end
  local status = response.status
  if status >= 200 and status < 300 or status == r.also then
    self.credentials:worked(authorization)
    return response
  end
  err = gcs_error.classify(response, {
    op = "gcs." .. r.op, bucket = self.bucket, key = r.key, endpoint = self.host,
    source = self.credentials.source, now = self.ctx.clock(),
  })
  if status == 401 and self.credentials:refused(authorization) then err.retryable = true end
  return nil, err
end

local function decode(response, r)
  local body = json.decode(response.body or "")
  local subject = r.key or "the bucket"
  if type(body) ~= "table" then return unclear(r.op, "%s: the answer is not JSON", subject) end
  if body.error == nil then return body end
  local inner = type(body.error) == "table" and body.error.message or body.error
  return unclear(r.op, "%s: the answer of status %d has an error in it: %s", subject, response.status,
    tostring(inner))
end

-- An answer whose body is a JSON object.
function Store:send_json(r)
  local response, err = self:send(r)
  if not response then return nil, err end
  return decode(response, r)
end

-- --- facts about objects ---

-- The CRC stands for the ETag: Google's changes with the metadata too.
local function info_of(object)
  return {
    key = object.name, size = math.tointeger(tonumber(object.size)), etag = object.crc32c or object.etag,
    version = object.generation, mtime = time.parse(object.updated or ""),
    meta = type(object.metadata) == "table" and object.metadata or {},
  }
end

local function check_key(key)
  if #key < 1 or #key > 1024 or key:find("[\0\r\n]") or not utf8.len(key) or key == "." or key == ".." then
    return failed("usage", "key",
      "'%s': a key has 1 to 1,024 bytes of UTF-8 without line breaks, and is not . or ..", key)
  end
  return true
end

-- The resource that a new object begins with.
function Store:resource(key, meta)
  local ok, err = check_key(key)
  if not ok then return nil, err end
  local metadata = {}
  for name, value in pairs(meta or {}) do
    if not name:find("^[%w-]+$") or value:find("[^\32-\126]") then
      return failed("usage", "put",
        "metadata %s: letters, digits and - in the name, printable ASCII in the value", name)
    end
    metadata[name:lower()] = value
  end
  return { name = key, contentType = TYPE, metadata = metadata, storageClass = self.options.storage_class }
end

-- What goes into the query of a request that makes an object.
function Store:creation(query, how)
  if how and how.exclusive then query[#query + 1] = { "ifGenerationMatch", "0" } end
  if self.options.kms_key_id then query[#query + 1] = { "kmsKeyName", self.options.kms_key_id } end
  return query
end

function Store:stat(op, key)
  local ok, err = check_key(key)
  if not ok then return nil, err end
  local object
  object, err = self:send_json { op = op, path = self:path(key), key = key, query = { { "fields", FIELDS } } }
  if not object then return nil, err end
  return checks.described(object, key)
end

local function same_meta(object, meta)
  local found = type(object.metadata) == "table" and object.metadata or {}
  for name, value in pairs(meta) do
    if found[name] ~= value then return false end
  end
  return true
end

-- The key is taken, perhaps by an earlier attempt of our own whose answer was lost.
function Store:written_before(resource, sent, conflict)
  local object = self:stat("head", resource.name)
  local same = object and object.crc32c and checks.object(object, sent, resource.name)
  if same and same_meta(object, resource.metadata) then return info_of(object) end
  return nil, conflict
end

-- --- the contract ---

-- Metadata and bytes in one body: RFC 2387.
local function related(self, resource, text)
  local boundary = "lunark-" .. self.ctx.crypto.hex(self.ctx.crypto.random(16))
  return table.concat {
    "--", boundary, "\r\ncontent-type: application/json; charset=UTF-8\r\n\r\n", json.encode(resource),
    "\r\n--", boundary, "\r\ncontent-type: ", TYPE, "\r\n\r\n", text, "\r\n--", boundary, "--\r\n",
  }, "multipart/related; boundary=" .. boundary
end

--- Writes a whole object. The store refuses bytes that are not those of the checksums.
function Store:put(key, body, meta, how)
  local resource, err = self:resource(key, meta)
  if not resource then return nil, err end
  local text, crypto = checks.text(body), self.ctx.crypto
  local md5 = crypto.digest("md5", text)
  local sent = { size = #text, crc = checks.crc(body), md5 = md5 and crypto.base64(md5) }
  resource.crc32c, resource.md5Hash = checks.encode(sent.crc), sent.md5
  local whole, content_type = related(self, resource, text)
  local object
  object, err = self:send_json {
    op = "put", method = "POST", path = self:upload_path(), key = key, body = whole, idle_timeout = SLOW,
    query = self:creation({ { "uploadType", "multipart" }, { "name", key } }, how),
    headers = { ["content-type"] = content_type },
  }
  if not object then
    if err.status == 412 then return self:written_before(resource, sent, err) end
    if err.kind == "corrupt" then err.retryable = true end -- nothing was stored, and the bytes are still here
    return nil, err
  end
  local ok
  ok, err = checks.object(object, sent, key)
  if not ok then return nil, err end
  return info_of(object)
end

--- Reads an object, or the bytes first to last of it: of the generation whose metadata is given back.
function Store:get(key, range)
  local object, err = self:stat("get", key)
  if not object then return nil, err end
  local info = info_of(object)
  local first = range and (range[1] or 0) or 0
  if range and first >= info.size then
    return failed("usage", "get", "%s: it has %d bytes, none from %d on", key, info.size, first)
  end
  local last = math.min(range and range[2] or info.size - 1, info.size - 1)
  local response
  response, err = self:send {
    op = "get", path = self:path(key), key = key, sink = "stream",
    query = { { "alt", "media" }, { "generation", object.generation } },
    -- What is stored compressed comes as it is stored.
    headers = {
      ["accept-encoding"] = "gzip", range = range and ("bytes=%d-%s"):format(first, range[2] or ""),
    },
  }
  if not response then
    if err.status == 404 then err.retryable = true end -- replaced since the first answer
    return nil, err
  end
  if range and response.status ~= 206 then
    response.stream:close()
    return failed("io", "get", "%s: a range was asked for and the whole object is sent", key)
  end
  local length = tonumber(response.headers["content-length"])
  if length and length ~= last - first + 1 then
    response.stream:close()
    return failed("corrupt", "get", "%s: %d bytes are sent, %d expected", key, length, last - first + 1)
  end
  return response.stream, info
end

--- Size, checksum, generation, metadata.
function Store:head(key)
  local object, err = self:stat("head", key)
  if not object then return nil, err end
  return info_of(object)
end

--- One page of what is below a prefix, in the order of the keys' bytes.
function Store:list(prefix, token, max)
  local query = {
    { "prefix", prefix }, { "maxResults", max or PAGE },
    { "fields", ("nextPageToken,items(%s)"):format(FIELDS) },
  }
  if token then query[#query + 1] = { "pageToken", token } end
  local body, err = self:send_json { op = "list", path = self:path(), query = query, max = 16 * MiB }
  if not body then return nil, err end
  local page = {}
  for index, object in ipairs(body.items or {}) do
    local ok
    ok, err = checks.described(object)
    if not ok then return nil, err end
    page[index] = info_of(object)
  end
  local following = body.nextPageToken
  if following == "" then following = nil end
  if following and following == token then
    return failed("corrupt", "list", "list of %s: the store gives the same page again", self.bucket)
  end
  return page, following
end

--- Says whether the store can be used. mode is "read" or "write".
function Store:check(mode, prefix)
  local page, err = self:list(prefix, nil, 1)
  if page then return true end
  -- There are accounts that may only write.
  if mode == "write" and err.status == 403 and not err.retryable then return true end
  return nil, err
end

--- Deletes keys, several at once. Those that were not there are fine. The errors of the others by key.
function Store:delete(keys)
  local errors, again = {}, nil
  task.map(keys, 16, function(key)
    local response, err = self:send { op = "delete", method = "DELETE", path = self:path(key), key = key }
    if response or (err.kind == "not_found" and not err.no_bucket) then return true end
    errors[key] = err
    if err.retryable then again = err end
    return true
  end)
  if again then return nil, again end
  return errors
end

-- The copy must have the checksum of its source.
local function copied(object, source, key)
  local ok, err = checks.described(object, key)
  if not ok then return nil, err end
  if object.size == source.size and object.crc32c == source.crc32c then return info_of(object) end
  return failed("corrupt", "copy", "%s: the copy is not what %s is", key, source.name)
end

--- Copies inside of the bucket, without the bytes passing through here: in several calls where it takes
--- the store long. how.replaces is the version that `to` must have: false for none, nil for any.
function Store:copy(from, to, meta, how)
  local source, err = self:stat("copy", from)
  if not source then return nil, err end
  local resource
  resource, err = self:resource(to, meta or info_of(source).meta)
  if not resource then return nil, err end
  resource.contentType = source.contentType or TYPE
  local query = { { "ifSourceGenerationMatch", source.generation } }
  if how and how.replaces ~= nil then query[#query + 1] = { "ifGenerationMatch", how.replaces or "0" } end
  if self.options.kms_key_id then query[#query + 1] = { "destinationKmsKeyName", self.options.kms_key_id } end
  local r = {
    op = "copy", method = "POST", key = from, query = query, idle_timeout = SLOW,
    path = self:path(from) .. "/rewriteTo" .. self:path(to):gsub("^/storage/v1", ""),
    body = json.encode(resource), headers = { ["content-type"] = "application/json" },
  }
  -- A copy that has begun is gone on with, also by the next attempt.
  local base, call = #query, json.encode { r.path, r.body, query }
  while true do
    local token = self.rewrites[call]
    query[base + 1] = token and { "rewriteToken", token }
    local body
    body, err = self:send_json(r)
    self.rewrites[call] = body and body.rewriteToken or err and err.retryable and token or nil
    if not body then
      if err.status == 412 then return self:copied_before(resource, source, err) end
      return nil, err
    end
    if body.done then
      self.rewrites[call] = nil
      return copied(body.resource, source, to)
    end
    if not body.rewriteToken then
      return unclear("copy", "%s: the copy is neither done nor can it be gone on with", from)
    end
  end
end

-- What stands at the target is perhaps our own copy, of an attempt whose answer was lost.
function Store:copied_before(resource, source, conflict)
  local object = self:stat("head", resource.name)
  local same = object and object.crc32c == source.crc32c and object.size == source.size
  if same and same_meta(object, resource.metadata) then return info_of(object) end
  return nil, conflict
end

-- --- uploads ---

--- Begins a session. It holds nothing that is visible, and ends by itself after a week.
function Store:begin(key, meta, how)
  local resource, err = self:resource(key, meta)
  if not resource then return nil, err end
  local response
  response, err = self:send {
    op = "begin", method = "POST", path = self:upload_path(), key = key, body = json.encode(resource),
    query = self:creation({ { "uploadType", "resumable" }, { "name", key } }, how),
    headers = { ["content-type"] = "application/json; charset=UTF-8", ["x-upload-content-type"] = TYPE },
  }
  if not response then return nil, err end
  -- Requests go to where this one went, whatever host the answer names; the query is the key to the session.
  local path, query = (response.headers["location"] or ""):match("^https?://[^/]+([^?]*)%?(.+)$")
  if not path then return failed("corrupt", "begin", "%s: the store gives no upload session", key) end
  return setmetatable({
    store = self, resource = resource, path = path, session = self.ctx.secret(query), number = 0,
    first = 0, -- where the part `number` begins
    size = 0, -- where it ends
    stored = 0, -- bytes that the session has
  }, Upload)
end

function Upload:send(op, range, body, headers)
  headers = headers or {}
  headers["content-range"] = range
  return self.store:send {
    op = op, method = "PUT", path = self.path, query = self.session:reveal(), key = self.resource.name,
    body = body, headers = headers, also = INCOMPLETE, idle_timeout = SLOW,
  }
end

-- What an answer of the session says: that it has so many bytes, or that there is an object now.
function Upload:hear(response, op)
  if response.status ~= INCOMPLETE then
    local object, err = decode(response, { op = op, key = self.resource.name })
    if object then object, err = checks.described(object, self.resource.name) end
    self.object = object
    return object and true, err
  end
  local last = (response.headers["range"] or ""):match("^bytes=0%-(%d+)$")
  local stored = last and math.tointeger(tonumber(last)) + 1 or 0
  self.stored = stored - stored % ALIGN -- what is beyond is sent again
  return true
end

-- Asks how much the session has, or whether it is done.
function Upload:ask(op, total)
  local response, err = self:send(op, ("bytes */%s"):format(total or "*"), "")
  if not response then return nil, err end
  local ok
  ok, err = self:hear(response, op)
  self.unsure = not ok
  return ok, err
end

-- Sends what the session lacks of a body that begins at `first`; with `total` the object ends with it.
function Upload:send_rest(op, body, first, total, headers)
  local at, last = self.stored, first + checks.size(body) - 1
  if at < first then
    return failed("conflict", op, "%s: the session has lost bytes that it had confirmed", self.resource.name)
  end
  local rest = at == first and body or checks.text(body):sub(at - first + 1)
  local range = at <= last and ("%d-%d"):format(at, last) or "*"
  self.unsure = true -- until an answer is there
  local response, err = self:send(op, ("bytes %s/%s"):format(range, total or "*"), rest, headers)
  local ok
  if response then
    ok, err = self:hear(response, op)
    self.unsure = not ok
  elseif err.status == 400 or err.status == 416 then
    -- The session may have these bytes: what has arrived twice is refused.
    ok = self:ask(op, total)
    if not self.object and self.stored <= at then return nil, err end
  end
  if not ok then return nil, err end
  if self.object or self.stored > at then return true end
  self.unsure = true
  return unclear(op, "%s: the session takes no more bytes", self.resource.name)
end

-- Brings a body into the session; with `total` until there is an object.
function Upload:advance(body, first, total, headers)
  local op, size = total and "finish" or "part", checks.size(body)
  while not self.object do
    local ok, err = true, nil
    if self.unsure then ok, err = self:ask(op, total) end
    if ok and not self.object then
      if not total and self.stored >= first + size then return true end
      ok, err = self:send_rest(op, body, first, total, headers)
    end
    if not ok then return nil, err end
  end
  if total then return true end
  return failed("corrupt", op, "%s: the session was closed in the middle", self.resource.name)
end

local function gone(self, err)
  if err.status == 404 or err.status == 410 then
    err.kind = "io" -- no `conflict`: the key is not taken
    err.message = ("%s: the store knows nothing of this upload any more"):format(self.resource.name)
    err.hint = "its session has ended: after a week, or because somebody has ended it"
  end
  return nil, err
end

--- Sends one part; parts come in turn. The last one is kept for `finish`, which tells the end.
function Upload:part(number, body)
  local size = checks.size(body)
  if number == self.number + 1 and not self.tail then
    self.number, self.first, self.size = number, self.size, self.size + size
  elseif number ~= self.number then
    return failed("usage", "part",
      "%s: part %d after part %d: they come in turn, all but the last multiples of %d KiB",
      self.resource.name, number, self.number, ALIGN // KiB)
  end
  if size % ALIGN ~= 0 or type(body) ~= "string" and body.last then
    self.tail = self.tail or (type(body) == "string" and body or body:ref())
  else
    local ok, err = self:advance(body, self.first)
    if not ok then return gone(self, err) end
  end
  return { size = size, crc = checks.crc(body) }
end

-- The bytes are not those that were sent: nobody shall read them.
local function remove_damaged(self, object, err)
  err.retryable = false
  local removed = self.store:send {
    op = "delete", method = "DELETE", path = self.store:path(self.resource.name), key = self.resource.name,
    query = { { "generation", object.generation } },
  }
  err.hint = removed and "the damaged object was removed" or "the damaged object could not be removed"
  return nil, err
end

--- Sends what is left and tells the end: from then on the object is visible.
function Upload:finish(parts)
  local crc, total = checks.of_parts(parts)
  local sent = { size = total, crc = crc }
  local ok, err = self:advance(self.tail or "", self.tail and self.first or self.size, total, {
    ["x-goog-hash"] = "crc32c=" .. checks.encode(crc),
  })
  if not ok then
    -- An earlier attempt may have been done, its answer lost.
    if err.status == 404 or err.status == 410 or err.status == 412 then
      local info = self.store:written_before(self.resource, sent, err)
      if info then return info end
    end
    return gone(self, err)
  end
  ok, err = checks.object(self.object, sent, self.resource.name)
  if not ok then return remove_damaged(self, self.object, err) end
  self:release()
  return info_of(self.object)
end

function Upload:release()
  if self.tail and type(self.tail) ~= "string" then self.tail:close() end
  self.tail = nil
end

--- Ends the session, and what it holds.
function Upload:abort()
  self:release()
  local response, err = self.store:send {
    op = "abort", method = "DELETE", path = self.path, query = self.session:reveal(),
    key = self.resource.name, also = CANCELLED,
  }
  if response or err.status == 404 or err.status == 410 then return true end
  return nil, err
end

-- --- opening ---

local function parse_endpoint(text)
  if not text:find("://", 1, true) then text = "http://" .. text end -- as in STORAGE_EMULATOR_HOST
  local scheme, host, path = text:match("^(https?)://([^/?#]+)([^?#]*)$")
  if not scheme then return nil end
  return ("%s://%s%s"):format(scheme, host, (path:gsub("/+$", ""):gsub("/storage/v1$", ""))), host
end

local function open(address, options, ctx)
  local bucket = address.host
  if not bucket:find("^[%w][%w._-]+$") then
    return failed("usage", "open", "'%s' is no name of a bucket", bucket)
  end
  local emulator = not options.endpoint and ctx.env("STORAGE_EMULATOR_HOST")
  local text = options.endpoint or emulator or "https://storage.googleapis.com"
  local endpoint, host = parse_endpoint(text)
  if not endpoint then
    return failed("usage", "open", "endpoint '%s': https://host[:port] expected", text)
  end
  ctx.grant(host)
  local given = options.token or options.credentials or options.credentials_file
  local anonymous = options.anonymous or (emulator and not given)
  local credentials = google.anonymous
  if not anonymous then
    local err
    credentials, err = google.open(setmetatable({
      token = options.token, credentials = options.credentials, credentials_file = options.credentials_file,
    }, { __index = ctx }))
    if not credentials then return nil, err end
  end
  return setmetatable({
    bucket = bucket, endpoint = endpoint, host = host, options = options, ctx = ctx,
    credentials = credentials, rewrites = {},
  }, Store)
end

return {
  api = 1, name = "gcs", schemes = { "gs" },
  -- What it reads beside its options: what Google's libraries and tools read.
  needs = {
    env = {
      "GOOGLE_*", "CLOUDSDK_*", "GCE_METADATA_HOST", "GCE_METADATA_IP", "NO_GCE_CHECK",
      "STORAGE_EMULATOR_HOST", "HOME",
    },
    read = {
      { env = "GOOGLE_APPLICATION_CREDENTIALS" }, { env = "CLOUDSDK_AUTH_ACCESS_TOKEN_FILE" },
      { env = "CLOUDSDK_CONFIG" }, { home = ".config/gcloud" },
    },
  },
  options = {
    endpoint = { "string", help = "https://host of another place that speaks the JSON API" },
    storage_class = { "string", help = "for example NEARLINE; default: the bucket's" },
    kms_key_id = { "string", help = "projects/P/locations/L/keyRings/R/cryptoKeys/K" },
    user_project = {
      "string", env = "GOOGLE_CLOUD_QUOTA_PROJECT", help = "the project that pays for requests",
    },
    ca_file = { "string", help = "certificates to trust" },
    anonymous = { "boolean", help = "no credentials: public buckets, emulators" },
    token = { "secret" }, credentials = { "secret" },
    credentials_file = {
      "string", env = "LUNARK_CREDENTIALS", help = "JSON of a key; default: /credentials/credentials",
    },
  },
  features = {
    range = true, copy = true, exclusive = true, part_hash = { "crc32c" }, put_max = PUT_MAX,
    multipart = { min = ALIGN, align = ALIGN, width = 1 },
  },
  open = open,
}
