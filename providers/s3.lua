-- SPDX-License-Identifier: MIT
--- Amazon S3 and what speaks its protocol:
--- `s3://bucket/prefix?region=&endpoint=&profile=&path_style=`. One call is one attempt, but for a
--- redirect to the bucket's region; retries are the library's. docs/stores-s3.md is for users.

local checks = require "providers.s3.checks"
local place = require "providers.s3.place"
local s3_error = require "providers.s3.errors"
local sigv4 = require "providers.sign.sigv4"
local sys = require "lunark.core.sys"
local time = require "lunark.time"
local upload = require "providers.s3.upload"
local url = require "lunark.url"
local xml = require "lunark.xml"

local MiB, GiB = 1024 * 1024, 1024 * 1024 * 1024

-- Computed beside the upload, by the option `checksum`.
local PART_HASH = {
  crc32c = { "sha256", "crc32c" }, md5 = { "sha256", "md5" }, none = { "sha256" },
}

local NO_ETAG = "%s: the answer has no ETag"
-- A store over a folder gives no ETag for files that others have put there.
local NO_OBJECT = "%s: the answer has neither ETag nor Last-Modified"

local Store = {}
Store.__index = Store

local function usage(format, ...)
  return nil, sys.error { kind = "usage", op = "s3", message = format:format(...) }
end

-- An answer that keeps no rule of the protocol.
local function strange(op, format, ...)
  return nil, sys.error { kind = "corrupt", op = "s3." .. op, message = format:format(...) }
end

-- --- addresses ---

-- Host header and path of a key (nil: of the bucket).
function Store:address(key)
  local endpoint = self.endpoint
  local path = key and "/" .. sigv4.escape(key, true) or "/"
  if self.path_style then
    return endpoint.host, endpoint.path .. "/" .. self.bucket .. (key and path or "")
  end
  return self.bucket .. "." .. endpoint.host, endpoint.path .. path
end

function Store:move_to(region)
  self.region = region
  if self.endpoint.aws then
    self.endpoint = place.aws_endpoint(region)
    self.ctx.grant((self:address()))
  end
end

-- --- requests ---

--- Adds the signature to a request that is about to be sent. Parks while credentials are renewed.
---@param req table as lunark.http's sign gets it
---@return lunark.aws.Credentials? used
---@return table? err
function Store:sign(req, path, query, hash)
  local keys, err = self.credentials:get()
  if not keys then return nil, err end
  local signed = { host = req.host, ["x-amz-content-sha256"] = hash }
  req.headers["x-amz-content-sha256"] = hash
  for name, value in pairs(req.headers) do
    local lower = name:lower()
    if lower:find("^x%-amz%-") or lower == "content-md5" or lower == "content-type" then
      signed[lower] = value
    end
  end
  req.headers["authorization"] = sigv4.sign({
    method = req.method, path = path, query = query, headers = signed, payload_hash = hash,
  }, keys, { time = self.ctx.clock(), region = self.region, service = "s3" })
  req.headers["x-amz-date"] = signed["x-amz-date"]
  req.headers["x-amz-security-token"] = signed["x-amz-security-token"]
  return keys
end

-- One request to where the bucket is believed to be.
function Store:attempt(r)
  local host, path = self:address(r.key)
  r.region = self.region
  local query = sigv4.query(r.query or {})
  local hash = checks.payload(r.body)
  local headers = {}
  for name, value in pairs(r.headers or {}) do headers[name] = value end
  return self.ctx.http.request {
    method = r.method, headers = headers, body = r.body, sink = r.sink, max = r.max or 8 * MiB,
    url = ("%s://%s%s%s"):format(self.endpoint.scheme, host, path, query ~= "" and "?" .. query or ""),
    idle_timeout = r.idle_timeout, ca_file = self.options.ca_file,
    sign = function(req)
      local err
      r.keys, err = self:sign(req, path, query, hash)
      return r.keys, err
    end,
  }
end

--- What a response that is no success means.
---@return table err
function Store:classify(response, r)
  local err = s3_error.classify(response, {
    op = "s3." .. r.op, bucket = self.bucket, key = r.key, endpoint = self.endpoint.host,
    region = self.region, source = self.credentials.source, now = self.ctx.clock(),
  })
  -- Credentials that were good before may have been replaced meanwhile: once more with new ones.
  if s3_error.is_stale(err, r) and self.credentials:refused(r.keys) then err.retryable = true end
  return err
end

-- r = {op, method, key, query, headers, body, sink, max, idle_timeout, expect}. The response, or nil, err.
function Store:send(r)
  for turn = 1, 2 do
    local response, err = self:attempt(r)
    if not response then
      if turn == 2 and err.kind == "denied" then
        err.hint = ("the bucket is in region %s: ?region=%s"):format(self.region, self.region)
      end
      return nil, err
    end
    if response.status >= 200 and response.status < 300 then
      self.credentials:worked(r.keys)
      return response
    end
    local region = turn == 1 and s3_error.region_of(response)
    if not region or region == r.region then return nil, self:classify(response, r) end
    self.ctx.log.debug(("s3: bucket %s is in region %s, not %s"):format(self.bucket, region, r.region))
    self:move_to(region)
  end
end

-- An answer whose body is XML; an error inside of a 200 is an error.
function Store:send_xml(r)
  local response, err = self:send(r)
  if not response then return nil, err end
  local root
  root, err = xml.parse(response.body, ("s3: answer to %s of %s"):format(r.op, r.key or self.bucket))
  if not root then
    -- A long answer that was cut off: whether it was done is not known, so it is asked again.
    err.kind, err.retryable = "network", true
    return nil, err
  end
  if root.name == "Error" then return nil, self:classify(response, r) end
  if r.expect and root.name ~= r.expect then
    return upload.not_the_store(r.op, "%s: the answer is <%s>, <%s> expected", r.key or self.bucket,
      root.name, r.expect)
  end
  return root, nil, response
end

-- --- facts about objects ---

local function info_of(headers)
  local meta = {}
  for name, value in pairs(headers) do
    local short = name:match("^x%-amz%-meta%-(.+)$")
    if short then meta[short] = value end
  end
  return {
    size = math.tointeger(tonumber(headers["content-length"])), etag = checks.plain(headers["etag"]),
    version = checks.plain(headers["etag"]), mtime = time.parse_http(headers["last-modified"]), meta = meta,
    digest = checks.has_md5(headers),
  }
end

-- Headers of all that makes an object: put, begin, copy.
local function object_headers(self, meta, headers)
  headers = headers or {}
  for name, value in pairs(meta or {}) do
    if not name:find("^[%w-]+$") or value:find("[^\32-\126]") then
      return usage("metadata %s: letters, digits and - in the name, printable ASCII in the value", name)
    end
    headers["x-amz-meta-" .. name:lower()] = value
  end
  headers["x-amz-storage-class"] = self.options.storage_class
  headers["x-amz-server-side-encryption"] = self.options.sse
  headers["x-amz-server-side-encryption-aws-kms-key-id"] = self.options.sse_kms_key_id
  return headers
end

local function check_key(key)
  if key == "" or #key > 1024 or key:find("\0", 1, true) then
    return usage("'%s': a key has 1 to 1,024 bytes, none of value 0", key)
  end
  return true
end

-- The MD5 that a body travels with. Buckets with a default retention take none without a checksum.
function Store:md5_of(body)
  return self.options.checksum ~= "none" and checks.md5(body) or nil
end

-- --- the contract ---

--- Writes a whole object.
function Store:put(key, body, meta, how)
  local ok, err = check_key(key)
  if not ok then return nil, err end
  local headers
  local md5 = self:md5_of(body)
  headers, err = object_headers(self, meta, { ["content-md5"] = md5 and checks.header(md5) })
  if not headers then return nil, err end
  self:condition(headers, how and how.exclusive)
  local response
  response, err = self:send { op = "put", method = "PUT", key = key, headers = headers, body = body }
  if not response then
    if self:without_conditions(err, headers) then return self:put(key, body, meta) end
    if err.status == 412 then return self:written_before(key, body, meta, err) end
    return nil, err
  end
  local etag = checks.plain(response.headers["etag"])
  if not etag then return upload.not_the_store("put", NO_ETAG, key) end
  ok, err = checks.etag(response, etag, md5, key)
  if not ok then return nil, err end
  return {
    size = checks.size(body), etag = etag, version = etag,
    checksum = checks.payload(body),
  }
end

--- What must be under the key now: nothing, or an object with this ETag.
function Store:condition(headers, exclusive, etag)
  if not self.features.exclusive then return end
  if exclusive then headers["if-none-match"] = "*" end
  if etag then headers["if-match"] = ('"%s"'):format(etag) end
end

-- Stores that don't know conditions say so; the caller has looked for the key before.
function Store:without_conditions(err, headers)
  local conditional = headers["if-none-match"] or headers["if-match"]
  if conditional and (err.status == 501 or err.code == "NotImplemented") then
    self.features.exclusive = false
    return true
  end
  return false
end

-- The key is taken, perhaps by our own attempt whose answer was lost.
function Store:written_before(key, body, meta, conflict)
  local info = self:head(key)
  if info and checks.is_same(info, checks.size(body), checks.md5(body), meta) then return info end
  return nil, conflict
end

--- Reads an object, or the bytes first to last of it.
function Store:get(key, range)
  local ok, err = check_key(key)
  if not ok then return nil, err end
  local headers = {}
  if range then headers["range"] = ("bytes=%d-%s"):format(range[1] or 0, range[2] or "") end
  local response
  response, err = self:send { op = "get", method = "GET", key = key, headers = headers, sink = "stream" }
  if not response then return nil, err end
  local info = info_of(response.headers)
  if not range then
    if info.etag or info.mtime then return response.stream, info end
    response.stream:close()
    return upload.not_the_store("get", NO_OBJECT, key)
  end
  local first, whole = (response.headers["content-range"] or ""):match("^bytes (%d+)%-%d+/(%d+)$")
  if response.status ~= 206 or math.tointeger(tonumber(first)) ~= (range[1] or 0) then
    response.stream:close()
    return nil, sys.error {
      kind = "io", op = "s3.get", status = response.status,
      message = ("%s: bytes from %d were asked for, %s are sent"):format(key, range[1] or 0,
        response.headers["content-range"] or "all"),
    }
  end
  info.size = math.tointeger(tonumber(whole))
  return response.stream, info
end

--- Size, ETag, metadata.
function Store:head(key)
  local ok, err = check_key(key)
  if not ok then return nil, err end
  local response
  response, err = self:send { op = "head", method = "HEAD", key = key }
  if not response then return nil, err end
  local info = info_of(response.headers)
  if not info.etag and not info.mtime then return upload.not_the_store("head", NO_OBJECT, key) end
  info.key = key
  return info
end

--- One page of what is below a prefix, in the order of the keys' bytes.
function Store:list(prefix, token, max)
  local query = { { "list-type", "2" }, { "encoding-type", "url" }, { "prefix", prefix } }
  if token then query[#query + 1] = { "continuation-token", token } end
  if max then query[#query + 1] = { "max-keys", max } end
  local root, err = self:send_xml { op = "list", method = "GET", query = query, max = 16 * MiB,
    expect = "ListBucketResult" }
  if not root then return nil, err end
  local encoded = root:value("EncodingType") == "url"
  local page = {}
  for item in root:each("Contents") do
    local key = item:value("Key") or ""
    if encoded then key = url.unescape((key:gsub("+", " "))) or key end
    page[#page + 1] = {
      key = key, size = math.tointeger(tonumber(item:value("Size"))), etag = checks.plain(item:value("ETag")),
      mtime = time.parse(item:value("LastModified") or ""),
    }
  end
  if root:value("IsTruncated") ~= "true" then return page, nil end
  local following = root:value("NextContinuationToken")
  if not following or following == "" or following == token then
    return strange("list", "list of %s: the store says that there is more, and not where", self.bucket)
  end
  return page, following
end

--- Says whether the store can be used. mode is "read" or "write".
function Store:check(mode, prefix)
  local page, err = self:list(prefix, nil, 1)
  if page then return true end
  if mode == "write" and err.code == "AccessDenied" then return true end -- keys that can only write
  return nil, err
end

-- The facts are that a marker stands now for what is an old version from here on.
local function delete_one(self, key)
  local response, err = self:send { op = "delete", method = "DELETE", key = key }
  if response and (response.body or "") ~= "" then
    return upload.not_the_store("delete", "%s: the answer has a body, none expected", key)
  end
  if response then return true, { versions = response.headers["x-amz-delete-marker"] == "true" or nil } end
  if err.code == "NoSuchKey" then return true, {} end
  return nil, err
end

local function delete_batch(self, keys)
  local lines = { '<Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/">' }
  for _, key in ipairs(keys) do
    lines[#lines + 1] = "<Object><Key>" .. xml.escape(key) .. "</Key></Object>"
  end
  lines[#lines + 1] = "</Delete>"
  local body = table.concat(lines)
  local crypto = self.ctx.crypto
  return self:send_xml {
    op = "delete", method = "POST", query = { { "delete", "" } }, body = body, idle_timeout = 300,
    expect = "DeleteResult",
    headers = {
      ["content-type"] = "application/xml", ["content-md5"] = crypto.base64(crypto.digest("md5", body)),
    },
  }
end

-- What the store says of a batch.
local function read_deleted(self, root, errors, facts)
  local passing
  for item in root:each("Deleted") do
    facts.versions = facts.versions or item:value("DeleteMarker") == "true" or nil
  end
  for item in root:each("Error") do
    local key, code = item:value("Key") or "", item:value("Code") or ""
    if code ~= "NoSuchKey" then
      errors[key] = s3_error.of_code(code, item:value("Message"), {
        op = "s3.delete", bucket = self.bucket, key = key,
      })
      passing = errors[key].retryable and errors[key] or passing
    end
  end
  if passing then return nil, passing end
  return errors, facts
end

--- Deletes up to 1,000 keys. Those that were not there are fine. The errors of the others by key, and facts:
--- `versions` where the bucket keeps what was deleted. Where an error passes, all is to be tried again.
function Store:delete(keys)
  local batch, errors, facts = {}, {}, {}
  for _, key in ipairs(keys) do
    if #keys > 1 and xml.can_carry(key) and self.features.batch_delete then
      batch[#batch + 1] = key
    else
      local ok, more = delete_one(self, key)
      if not ok and (more.retryable or more.skew) then return nil, more end
      if ok then facts.versions = facts.versions or more.versions else errors[key] = more end
    end
  end
  if #batch == 0 then return errors, facts end
  local root, err = delete_batch(self, batch)
  if root then return read_deleted(self, root, errors, facts) end
  local unknown = err.status == 501 or err.code == "MalformedXML" or err.code == "NotImplemented"
  if not unknown then return nil, err end
  self.features.batch_delete = false
  local more, found = self:delete(batch)
  if not more then return nil, found end
  for key, why in pairs(more) do errors[key] = why end
  facts.versions = facts.versions or found.versions
  return errors, facts
end

--- A key as the header x-amz-copy-source has it.
---@param key string
---@return string
function Store:source_of(key)
  return "/" .. self.bucket .. "/" .. sigv4.escape(key, true)
end

-- Another attempt of ours may have been it; else the original or the target has changed.
function Store:copied_before(to, source, meta, conflict)
  local info = self:head(to)
  local same = info and info.size == source.size and checks.same_meta(meta or source.meta, info.meta)
  if same then return info end
  return nil, conflict
end

--- Copies inside of the bucket, without the bytes passing through here. how.replaces is the ETag that
--- `to` must have, false for none; stores that do not know the condition for copies take no notice.
function Store:copy(from, to, meta, how)
  how = how or {}
  local source, err = how.source, nil
  if not source then source, err = self:head(from) end
  if not source then return nil, err end
  local headers
  headers, err = object_headers(self, meta, {
    ["x-amz-copy-source"] = self:source_of(from), ["x-amz-copy-source-if-match"] = source.etag,
    ["x-amz-metadata-directive"] = meta and "REPLACE" or nil,
  })
  if not headers then return nil, err end
  self:condition(headers, how.replaces == false, how.replaces)
  local root
  root, err = self:send_xml {
    op = "copy", method = "PUT", key = to, headers = headers, idle_timeout = upload.SLOW,
    expect = "CopyObjectResult",
  }
  if not root then
    if self:without_conditions(err, headers) then return self:copy(from, to, meta, { source = source }) end
    local conditional = headers["if-match"] or headers["if-none-match"]
    if err.status == 412 and conditional then return self:copied_before(to, source, meta, err) end
    return nil, err
  end
  return { size = source.size, etag = checks.plain(root:value("ETag")) }
end

--- Begins an upload in parts.
function Store:begin(key, meta, how)
  local ok, err = check_key(key)
  if not ok then return nil, err end
  local headers
  headers, err = object_headers(self, meta)
  if not headers then return nil, err end
  how = how or {}
  local begun
  begun, err = upload.begin(self, key, headers, meta, how.copied)
  if not begun then return nil, err end
  begun.exclusive, begun.replaces = how.exclusive, how.replaces
  if how.attempt and how.attempt > 1 then begun:forget_lost() end
  return begun
end

--- One page of the uploads that are neither finished nor aborted.
function Store:uploads(prefix, token) return upload.list(self, prefix, token) end

--- When the last part of one came.
function Store:upload_time(one) return upload.last_part(self, one) end

--- Throws one away with all its parts.
function Store:discard(one) return upload.discard(self, one) end

-- --- opening ---

local function check_options(options)
  if not options.sse_kms_key_id then return true end
  options.sse = options.sse or "aws:kms"
  if options.sse == "AES256" then return usage("sse_kms_key_id is for sse=aws:kms") end
  return true
end

local function open(address, options, ctx)
  local bucket = address.host
  if not bucket:find("^[%w][%w._-]+$") then return usage("'%s' is no name of a bucket", bucket) end
  local ok, err = check_options(options)
  if not ok then return nil, err end
  local found
  found, err = place.find(bucket, options, ctx)
  if not found then return nil, err end
  local store = setmetatable({
    bucket = bucket, region = found.region, endpoint = found.endpoint, path_style = found.path_style,
    options = options, ctx = ctx, credentials = found.credentials, crc = options.checksum == "crc32c",
    features = {
      range = true, copy = true, exclusive = true, batch_delete = true, put_max = 5 * GiB,
      copy_max = options.copy_max, part_hash = PART_HASH[options.checksum], uploads = true,
      multipart = { min = 5 * MiB, max = 5 * GiB, count = 10000, equal = true, align = 1 },
    },
  }, Store)
  ctx.grant((store:address()))
  return store
end

return {
  api = 1, name = "s3", schemes = { "s3" },
  -- What it reads beside its options: the environment's keys and the files of the AWS tools.
  needs = {
    env = { "AWS_*", "HOME" },
    read = { { env = "AWS_SHARED_CREDENTIALS_FILE" }, { env = "AWS_CONFIG_FILE" }, { home = ".aws" } },
  },
  options = {
    region = { "string", env = { "AWS_REGION", "AWS_DEFAULT_REGION" }, help = "region of the bucket" },
    endpoint = {
      "string", env = { "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL" }, help = "https://host of another store",
    },
    profile = { "string", help = "section of ~/.aws/config and ~/.aws/credentials" },
    credentials_file = {
      "string", env = "LUNARK_CREDENTIALS",
      help = "a file like ~/.aws/credentials; default: /credentials/credentials",
    },
    path_style = { "boolean", help = "bucket in the path, not in the host name; default: with an endpoint" },
    checksum = {
      "enum", values = { "crc32c", "md5", "none" }, default = "crc32c",
      help = "what parts carry beside their SHA-256; MD5 where the store does not know CRC32C",
    },
    storage_class = { "string", help = "for example STANDARD_IA" },
    sse = {
      "enum", values = { "AES256", "aws:kms", "aws:kms:dsse" },
      help = "how the store encrypts what is written",
    },
    sse_kms_key_id = { "string", help = "the key for that: id, ARN or alias" },
    copy_max = { "size", default = 5 * GiB, min = 5 * MiB, help = "larger objects are copied in parts" },
    ca_file = { "string", env = "AWS_CA_BUNDLE", help = "certificates to trust" },
    access_key_id = { "string" }, secret_access_key = { "secret" }, session_token = { "secret" },
  },
  features = {
    range = true, copy = true, exclusive = true, part_hash = PART_HASH.crc32c, put_max = 5 * GiB,
    copy_max = 5 * GiB, uploads = true,
    multipart = { min = 5 * MiB, max = 5 * GiB, count = 10000, equal = true, align = 1 },
  },
  open = open,
}
