-- SPDX-License-Identifier: MIT
--- Google Cloud Storage by its JSON API: `gs://bucket/prefix?endpoint=&storage_class=`.
--- One call is one attempt; retries are the library's. An upload's bytes go in turn through one
--- resumable session; after a broken request the session is asked how much it has.
--- https://cloud.google.com/storage/docs/json_api/v1

local checks = require "providers.gcs.checks"
local gcs_error = require "providers.gcs.errors"
local google = require "providers.credential.google"
local json = require "lunark.json"
local task = require "lunark.task"
local upload = require "providers.gcs.upload"

local MiB = 1024 * 1024
local PUT_MAX = 2 * MiB -- more goes through a session: a put's body is put together in memory
local SLOW = upload.SLOW
local PAGE = 1000
local TYPE = "application/octet-stream"
local FIELDS = "name,size,generation,updated,crc32c,md5Hash,etag,metadata,contentType"

local Store = {}
Store.__index = Store
local failed, unclear = gcs_error.failed, gcs_error.unclear

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

-- An answer whose body is a JSON object.
function Store:send_json(r)
  local response, err = self:send(r)
  if not response then return nil, err end
  return gcs_error.decode(response, r)
end

-- --- facts about objects ---

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
  if same and same_meta(object, resource.metadata) then return checks.info(object) end
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
    if err.status == 412 and err.kind == "conflict" then return self:written_before(resource, sent, err) end
    if err.kind == "corrupt" then err.retryable = true end -- nothing was stored, and the bytes are still here
    return nil, err
  end
  local ok
  ok, err = checks.object(object, sent, key)
  if not ok then return nil, err end
  return checks.info(object)
end

--- Reads an object, or the bytes first to last of it: of the generation whose metadata is given back.
function Store:get(key, range)
  local object, err = self:stat("get", key)
  if not object then return nil, err end
  local info = checks.info(object)
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
  return checks.info(object)
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
    page[index] = checks.info(object)
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
  if object.size == source.size and object.crc32c == source.crc32c then return checks.info(object) end
  return failed("corrupt", "copy", "%s: the copy is not what %s is", key, source.name)
end

--- Copies inside of the bucket, without the bytes passing through here: in several calls where it takes
--- the store long. how.replaces is the version that `to` must have: false for none, nil for any.
function Store:copy(from, to, meta, how)
  local source, err = self:stat("copy", from)
  if not source then return nil, err end
  local resource
  resource, err = self:resource(to, meta or checks.info(source).meta)
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
      if err.status ~= 412 or err.kind ~= "conflict" then return nil, err end
      return self:copied_before(resource, source, err)
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
  if same and same_meta(object, resource.metadata) then return checks.info(object) end
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
  return upload.new(self, resource, response)
end

-- --- opening ---

local function parse_endpoint(text)
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
  if emulator and not emulator:find("://", 1, true) then emulator = "http://" .. emulator end
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
    multipart = { min = upload.ALIGN, align = upload.ALIGN, width = 1 },
    uploads_note = "sessions can't be listed; Google ends each by itself a week after it was begun",
  },
  open = open,
}
