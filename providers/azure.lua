-- SPDX-License-Identifier: MIT
--- Azure Blob Storage: `azure://container/prefix?account=&endpoint=&endpoint_suffix=`, or the same as
--- `https://ACCOUNT.blob.core.windows.net/container/prefix`. One call is one attempt; retries are the
--- library's.

local azure = require "providers.credential.azure"
local classify = require "providers.azure.errors".classify
local entra = require "providers.credential.entra"
local sign = require "providers.sign.azure"
local sys = require "lunark.core.sys"
local task = require "lunark.task"
local time = require "lunark.time"
local upload = require "providers.azure.upload"
local xml = require "lunark.xml"

local MiB = 1024 * 1024
local VERSION = "2021-12-02" -- of the protocol
local SUFFIX = "core.windows.net"
local WIDTH = 16 -- deletions at once
local PATIENCE = 5 -- questions in a row how a copy is getting on that may fail
local NO_ACCOUNT = "no storage account: set AZURE_STORAGE_ACCOUNT, or write ?account= behind the URL"

-- The statuses of success, by operation.
local EXPECTED = {
  put = { [201] = true }, part = { [201] = true }, finish = { [201] = true }, copy = { [202] = true },
  blocks = { [200] = true }, head = { [200] = true }, get = { [200] = true, [206] = true },
  list = { [200] = true }, metadata = { [200] = true }, delete = { [202] = true },
}

local FEATURES = {
  range = true, copy = true, exclusive = true, part_hash = { "md5" }, put_max = 5000 * MiB,
  multipart = { max = 4000 * MiB, count = 50000 },
  uploads = true,
  uploads_note = "the store throws blocks away a week after the last one; when that came is not told",
}

local Store = {}
Store.__index = Store

local function usage(format, ...)
  return nil, sys.error { kind = "usage", op = "azure", message = format:format(...) }
end

-- --- requests ---

local function escape(key)
  return (key:gsub("[^%w%-._~/]", function(byte) return ("%%%02X"):format(byte:byte()) end))
end

-- The URL of a blob (nil: of the container).
function Store:address(key)
  local base = ("%s://%s%s/%s"):format(self.endpoint.scheme, self.endpoint.host, self.endpoint.path,
    self.container)
  return key and base .. "/" .. escape(key) or base
end

--- Signs a request that is about to be sent; may park for a new token.
---@return table? used what it was signed with
---@return table? err
function Store:sign(req)
  local used, err = self.credentials:get()
  if not used then return nil, err end
  local headers = req.headers
  headers["x-ms-version"], headers["x-ms-date"] = VERSION, time.http(self.ctx.clock())
  if used.token then
    headers["authorization"] = used.token
  elseif used.sas then
    req.url = sign.with_sas(req.url, used.sas)
    local source = headers["x-ms-copy-source"]
    if source then headers["x-ms-copy-source"] = self.ctx.secret(sign.with_sas(source, used.sas)) end
  else
    headers["authorization"], err = sign.shared_key(req, self.account, used.key)
    if err then return nil, err end
  end
  return used
end

-- What is no error by its status, and no success either: something on the way answered in the store's place,
-- or the store read other bytes than were sent.
local function doubt(r, response)
  local subject = r.key or "the container"
  -- Each object has an ETag; a range is looked at later.
  local bare = (r.op == "get" or r.op == "head") and response.status == 200 and not response.headers["etag"]
  if bare or not EXPECTED[r.op][response.status] then
    return sys.error {
      kind = "network", op = "azure." .. r.op, status = response.status, retryable = true,
      message = ("%s: the answer is %d%s, which the store never gives here"):format(subject, response.status,
        bare and " without an ETag" or ""),
      hint = "is the endpoint that of a storage account, without a proxy that answers itself?",
    }
  end
  local sent, got = r.headers and r.headers["content-md5"], response.headers["content-md5"]
  if sent and got and sent ~= got then
    return sys.error {
      kind = "corrupt", op = "azure." .. r.op, status = response.status, retryable = true,
      message = ("%s: the store reports MD5 %s, %s was sent"):format(subject, got, sent),
    }
  end
end

-- r = {op, method, key, query, headers, body, sink, max, idle_timeout}. The response, or nil, err.
function Store:send(r)
  local used
  local response, err = self.ctx.http.request {
    method = r.method, url = self:address(r.key), query = r.query, headers = r.headers, body = r.body,
    sink = r.sink, max = r.max or MiB, idle_timeout = r.idle_timeout, ca_file = self.options.ca_file,
    sign = function(req)
      local why
      used, why = self:sign(req)
      return used, why
    end,
  }
  if not response then return nil, err end
  if response.status >= 200 and response.status < 300 then
    err = doubt(r, response)
    if not err then
      self.credentials:worked(used)
      return response
    end
    if response.stream then response.stream:close() end
    return nil, err
  end
  local now = self.ctx.clock()
  err = classify(response, {
    op = "azure." .. r.op, container = self.container, key = r.key, host = self.endpoint.host,
    source = self.credentials.source, now = now, dated = used.key ~= nil,
    ended = used.sas ~= nil and used.ends ~= nil and used.ends <= now,
  })
  local refused = response.status == 401 or err.code == "AuthenticationFailed"
  if refused and not err.skew and self.credentials:refused(used) then err.retryable = true end
  return nil, err
end

-- --- facts about objects ---

local function plain(etag)
  return etag and etag:match('^"?(.-)"?$')
end

local function size_of(body)
  return type(body) == "string" and #body or body.size
end

-- What the store compares with what arrives, in base64; nil where that was turned off.
function Store:md5_of(body)
  if not self.options.check_md5 then return nil end
  local crypto = self.ctx.crypto
  if type(body) == "string" then return crypto.base64(crypto.digest("md5", body)) end
  local hex = body.hash and body.hash.md5
  return hex and crypto.base64(crypto.unhex(hex))
end

-- Azure's names of metadata are identifiers, without hyphens; ours have no underscores. What conditions need,
-- a version for each write, is the ETag.
local function info_of(headers)
  local meta = {}
  for name, value in pairs(headers) do
    local short = name:match("^x%-ms%-meta%-(.+)$")
    if short then meta[short:gsub("_", "-")] = value end
  end
  return {
    size = math.tointeger(tonumber(headers["content-length"])), etag = plain(headers["etag"]), meta = meta,
    version = plain(headers["etag"]), mtime = time.parse_http(headers["last-modified"]),
    md5 = headers["content-md5"], copy_source = headers["x-ms-copy-source"],
  }
end

local function same(one, other)
  for name, value in pairs(one) do
    if other[name] ~= value then return false end
  end
  for name in pairs(other) do
    if one[name] == nil then return false end
  end
  return true
end

-- Headers of a call that makes an object.
function Store:making(meta, how, headers)
  headers = headers or {}
  for name, value in pairs(meta or {}) do
    if not name:find("^%a[%w-]*$") or value:find("[^\32-\126]") then
      return usage("metadata %s: a letter, then letters, digits and -, and a value of printable ASCII", name)
    end
    headers["x-ms-meta-" .. name:lower():gsub("-", "_")] = value
  end
  headers["x-ms-access-tier"] = self.options.access_tier
  if how and how.exclusive then headers["if-none-match"] = "*" end
  return headers
end

-- Names that Azure, or what is on the way to it, would take for another one, or a listing can't carry.
local function check_key(key)
  if not xml.can_carry(key) or key:find("%c") then
    return usage("'%s': a key is UTF-8 without control characters", key)
  end
  if key:find("\\", 1, true) then return usage("'%s': Azure takes \\ in a key for /", key) end
  if key == "" or utf8.len(key) > 1024 then return usage("'%s': a key has 1 to 1,024 characters", key) end
  for part in key:gmatch("[^/]+") do
    if part == "." or part == ".." then
      return usage("'%s': a key can't have the components . and ..", key)
    end
  end
  return true
end

-- --- the contract ---

--- Writes a whole object.
function Store:put(key, body, meta, how)
  local ok, err = check_key(key)
  if not ok then return nil, err end
  local md5 = self:md5_of(body)
  local headers
  headers, err = self:making(meta, how, { ["x-ms-blob-type"] = "BlockBlob", ["content-md5"] = md5 })
  if not headers then return nil, err end
  local response
  response, err = self:send { op = "put", method = "PUT", key = key, headers = headers, body = body }
  if response then return upload.written(size_of(body), response.headers) end
  if err.kind == "conflict" and md5 and headers["if-none-match"] then
    -- The key is taken, perhaps by our own attempt whose answer was lost.
    local info = self:head(key)
    local ours = info and info.md5 == md5 and info.size == size_of(body) and same(info.meta, meta or {})
    if ours then return info end
  end
  return nil, err
end

--- Reads an object, or the bytes first to last of it.
function Store:get(key, range)
  local ok, err = check_key(key)
  if not ok then return nil, err end
  local headers = {}
  if range then headers["x-ms-range"] = ("bytes=%d-%s"):format(range[1] or 0, range[2] or "") end
  local response
  response, err = self:send { op = "get", method = "GET", key = key, headers = headers, sink = "stream" }
  if not response then return nil, err end
  local info = info_of(response.headers)
  if not range then return response.stream, info end
  local first, last, whole = (response.headers["content-range"] or ""):match("^bytes (%d+)%-(%d+)/(%d+)$")
  info.size = math.tointeger(tonumber(whole))
  if response.status == 206 and info.size and tonumber(first) == (range[1] or 0) then
    if tonumber(last) >= tonumber(first) then return response.stream, info end
    response.stream:close()
    return usage("%s: there is nothing at byte %s, it has %s", key, first, whole)
  end
  response.stream:close()
  return nil, sys.error {
    kind = "io", op = "azure.get", status = response.status,
    message = ("%s: a range was asked for and something else is sent"):format(key),
  }
end

-- The headers that belong to an object.
function Store:properties(key)
  local ok, err = check_key(key)
  if not ok then return nil, err end
  local response
  response, err = self:send { op = "head", method = "HEAD", key = key }
  return response and response.headers, err
end

--- Size, ETag, metadata.
function Store:head(key)
  local headers, err = self:properties(key)
  if not headers then return nil, err end
  return info_of(headers)
end

-- One page of what is below a prefix, in the order of the keys' bytes; `include` names what else is listed.
local function list_page(self, prefix, token, max, include)
  local query = {
    { "restype", "container" }, { "comp", "list" }, { "prefix", prefix }, { "maxresults", max or 1000 },
  }
  if include then query[#query + 1] = { "include", include } end
  if token then query[#query + 1] = { "marker", token } end
  local response, err = self:send { op = "list", method = "GET", query = query, max = 8 * MiB }
  if not response then return nil, err end
  local what = ("list of container %s"):format(self.container)
  local root
  root, err = xml.parse((response.body:gsub("^\xEF\xBB\xBF", "")), what)
  local blobs = root and root:child("Blobs")
  if not blobs then
    -- An answer that was cut off, or is not the store's: it is asked again.
    local words = err and err.message or what .. ": the answer is no list of blobs"
    return nil, sys.error { kind = "network", op = "azure.list", retryable = true, message = words }
  end
  local page = {}
  for item in blobs:each("Blob") do
    local about = item:child("Properties")
    -- An account with a hierarchical namespace lists folders as well.
    if about and about:value("ResourceType") ~= "directory" then
      page[#page + 1] = {
        key = item:value("Name"), size = math.tointeger(tonumber(about:value("Content-Length"))),
        etag = plain(about:value("Etag")), mtime = time.parse_http(about:value("Last-Modified")),
      }
    end
  end
  table.sort(page, function(a, b) return a.key < b.key end)
  local following = root:value("NextMarker")
  if following == "" then following = nil end
  if following and following == token then
    return nil, sys.error {
      kind = "corrupt", op = "azure.list",
      message = what .. ": the store says that there is more, and not where",
    }
  end
  return page, following
end

--- One page of what is below a prefix.
function Store:list(prefix, token, max) return list_page(self, prefix, token, max) end

--- One page of the names that have blocks and no object. When the last block came is not told.
function Store:uploads(prefix, token)
  local page, following = list_page(self, prefix, token, nil, "uncommittedblobs")
  if not page then return nil, following end
  local found = {}
  for _, info in ipairs(page) do
    local waiting, err = false, nil
    if (info.size or 0) == 0 then waiting, err = upload.waiting(self, info.key) end
    if waiting == nil and err.kind ~= "not_found" then return nil, err end
    if waiting then found[#found + 1] = { key = info.key, size = waiting } end
  end
  return found, following
end

-- What is said to those who may write and not list.
local NO_LIST = { AuthorizationPermissionMismatch = true, AuthorizationResourceTypeMismatch = true }

--- Says whether the store can be used. mode is "read" or "write".
function Store:check(mode, prefix)
  local page, err = self:list(prefix, nil, 1)
  if page or (mode == "write" and NO_LIST[err.code]) then return true end
  return nil, err
end

--- Deletes one by one, several at once. Those that were not there are fine. The errors of the others by
--- key, and facts: `versions` where the account keeps what was deleted. Where an error passes, all is to be
--- tried again.
function Store:delete(keys)
  local errors, facts, passing = {}, {}, nil
  task.map(keys, WIDTH, function(key)
    local ok, err = check_key(key)
    if ok then ok, err = self:send { op = "delete", method = "DELETE", key = key } end
    local kept = ok and ok.headers["x-ms-delete-type-permanent"] == "false"
    facts.versions = facts.versions or kept or nil
    if ok or err.code == "BlobNotFound" then return true end
    errors[key] = err
    if err.retryable or err.skew then passing = err end
    return false
  end)
  if passing then return nil, passing end
  return errors, facts
end

-- What a failed copy leaves is empty and called like the whole: it goes, unless something else is there.
function Store:remove_failed(key, headers)
  self:send { op = "delete", method = "DELETE", key = key, headers = { ["if-match"] = headers["etag"] } }
end

-- Waits until a copy that the store makes in the background is whole. The headers of then.
function Store:wait_for_copy(key, headers)
  local id, pause, failures = headers["x-ms-copy-id"], 0.1, 0
  while headers["x-ms-copy-status"] == "pending" do
    task.sleep(pause)
    pause = math.min(pause * 1.5, 5)
    local now, err = self:properties(key)
    failures = now and 0 or failures + 1
    if not now and (not err.retryable or failures > PATIENCE) then return nil, err end
    headers = now or headers
    if headers["x-ms-copy-id"] ~= id then
      return nil, sys.error {
        kind = "conflict", op = "azure.copy", message = key .. ": something else was written there meanwhile",
      }
    end
  end
  if headers["x-ms-copy-status"] == "success" then return headers end
  self:remove_failed(key, headers)
  local words = headers["x-ms-copy-status-description"] or "no reason is given"
  return nil, sys.error {
    kind = "io", op = "azure.copy", retryable = words:find("^5%d%d") ~= nil,
    message = ("%s: the store's copy is '%s': %s"):format(key, headers["x-ms-copy-status"], words),
  }
end

-- Whether an earlier attempt has made this copy, its answer lost.
function Store:copied_before(from, to, source, meta)
  local headers = self:properties(to)
  local info = headers and info_of(headers)
  -- There with a signature behind it, or not.
  local made_of = info and info.copy_source and info.copy_source:gsub("%?.*$", "")
  local ours = made_of == self:address(from) and info.size == source.size and same(info.meta, meta)
  return ours and headers["x-ms-copy-status"] == "success" and info or nil
end

--- Copies inside of the container, without the bytes passing through here. how.replaces is the version that
--- `to` must have, false: it must not be there.
function Store:copy(from, to, meta, how)
  local ok, err = check_key(to)
  if not ok then return nil, err end
  local source
  source, err = self:head(from)
  if not source then return nil, err end
  local replaces = how and how.replaces
  local headers, wrong = self:making(meta, { exclusive = replaces == false }, {
    ["x-ms-copy-source"] = self:address(from), ["x-ms-source-if-match"] = ('"%s"'):format(source.etag),
    ["if-match"] = replaces and ('"%s"'):format(replaces) or nil,
  })
  if not headers then return nil, wrong end
  local response, why = self:send { op = "copy", method = "PUT", key = to, headers = headers }
  if not response then
    local may_be = why.kind == "conflict" and replaces ~= nil
    local before = may_be and self:copied_before(from, to, source, meta or source.meta)
    return before or nil, why
  end
  local done
  done, err = self:wait_for_copy(to, response.headers)
  if not done then return nil, err end
  if meta and not next(meta) and next(source.meta) then
    -- With no metadata of its own a copy gets that of the original.
    local query = { { "comp", "metadata" } }
    response, err = self:send { op = "metadata", method = "PUT", key = to, query = query }
    if not response then return nil, err end
    done = response.headers
  end
  return upload.written(source.size, done)
end

--- Begins an upload in parts (blocks).
function Store:begin(key, meta, how)
  local ok, err = check_key(key)
  if not ok then return nil, err end
  local headers
  headers, err = self:making(meta, how)
  if not headers then return nil, err end
  return upload.new(self, key, headers)
end

-- --- opening ---

--- `https://ACCOUNT.blob.SUFFIX/container/prefix` as `azure://container/prefix`.
local function locate(address)
  if address.scheme ~= "https" then return address end
  local account = address.host:match("^([%w-]+)%.[%w.]*blob%.[%w.-]+[%w:]*$")
  if not account then return usage("https://%s: ACCOUNT.blob.%s expected", address.host, SUFFIX) end
  local container, path = address.path:match("^([^/]+)/?(.*)$")
  if not container then return usage("https://%s: the container is missing behind the host", address.host) end
  local query = { account = account, endpoint = "https://" .. address.host }
  for name, value in pairs(address.query) do query[name] = value end
  return {
    scheme = "azure", host = container, path = path, query = query, text = address.text,
    archive = path ~= "" and address.archive or nil,
  }
end

-- Where blobs are: an endpoint that is given, with the account in its path where the host is no account's.
local function find_endpoint(text, account, suffix)
  if not text then
    if not account then return usage(NO_ACCOUNT) end
    return { scheme = "https", host = ("%s.blob.%s"):format(account, suffix), path = "" }, account
  end
  local scheme, host, path = text:match("^(https?)://([^/?#@]+)([^?#]*)$")
  if not scheme then return usage("endpoint '%s': https://host[:port][/account] expected", text) end
  path = path:gsub("/+$", "")
  account = account or path:match("^/([^/]+)") or host:match("^([%w-]+)%.[%w.]*blob%.")
  if not account then return usage(NO_ACCOUNT) end
  if path == "" and host:sub(1, #account + 1) ~= account .. "." and host:find("^[%d.:%[%]]+$") then
    path = "/" .. account
  end
  return { scheme = scheme, host = host, path = path }, account
end

-- What the host of an endpoint names: the account, and the cloud, which has its own authority for tokens.
local function names_in(endpoint)
  local host = (endpoint or ""):match("^https?://([^/?#:]+)") or ""
  return host:match("^([%w-]+)%.[%w.]*blob%.([%a][%w.-]+)$")
end

local function is_container(name)
  local usual = name:find("^[%l%d][%l%d-]*[%l%d]$") and not name:find("--", 1, true)
  return usual and #name >= 3 and #name <= 63 or name:find("^%$%l+$")
end

local function open(address, options, ctx)
  local container = address.host
  if not is_container(container) then
    return usage("'%s' is no name of a container: 3 to 63 lower-case letters, digits and single - expected",
      container)
  end
  local account, cloud = names_in(options.endpoint)
  local context = { options = options, suffix = options.endpoint_suffix or cloud }
  for name, value in pairs(ctx) do context[name] = value end
  local credentials, err = azure.find(context)
  if not credentials then return nil, err end
  local place = credentials.place
  if options.account and place.account and options.account ~= place.account then
    return usage("account %s is asked for, and %s is for account %s", options.account, credentials.source,
      place.account)
  end
  local endpoint
  endpoint, account = find_endpoint(options.endpoint or place.endpoint,
    options.account or place.account or account or azure.account(context),
    options.endpoint_suffix or place.suffix or SUFFIX)
  if not endpoint then return nil, account end
  if not account:find("^[%w-]+$") then return usage("'%s' is no name of a storage account", account) end
  if endpoint.scheme == "http" and credentials.renews and not entra.is_loopback(endpoint.host) then
    return usage("endpoint http://%s: a token is sent over https only", endpoint.host)
  end
  ctx.grant(endpoint.host)
  local features = {}
  for name, value in pairs(FEATURES) do features[name] = value end
  if not options.check_md5 then features.part_hash = nil end
  return setmetatable({
    container = container, account = account, endpoint = endpoint, options = options, ctx = ctx,
    credentials = credentials, features = features,
  }, Store)
end

return {
  api = 1, name = "azure", schemes = { "azure", "https" }, locate = locate,
  -- What it reads beside its options: the names of Azure's tools, and the files that they name.
  needs = { env = { "AZURE_*", "ACCOUNT_NAME", "ACCOUNT_KEY", "IDENTITY_*", "IMDS_ENDPOINT" } },
  options = {
    account = { "string", help = "storage account; default: AZURE_STORAGE_ACCOUNT" },
    endpoint = {
      "string", env = { "AZURE_STORAGE_BLOB_ENDPOINT", "AZURE_STORAGE_SERVICE_ENDPOINT" },
      help = "https://host[/account] of another store",
    },
    endpoint_suffix = { "string", help = "of another cloud, for example core.chinacloudapi.cn" },
    access_tier = { "string", help = "for example Cool" },
    check_md5 = { "boolean", default = true, help = "let the store compare MD5s of what is sent" },
    ca_file = { "string", help = "certificates to trust" },
    credentials_file = {
      "string", env = "LUNARK_CREDENTIALS",
      help = "a file with ACCOUNT_NAME= and ACCOUNT_KEY=; default: /credentials/credentials",
    },
    account_key = { "secret" }, sas_token = { "secret" }, connection_string = { "secret" },
    tenant_id = { "string" }, client_id = { "string" }, client_secret = { "secret" },
  },
  features = FEATURES,
  open = open,
}
