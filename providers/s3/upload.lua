-- SPDX-License-Identifier: MIT
--- Uploads in parts. Needs a store of providers/s3.lua, which sends the requests.
--- https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html

local checks = require "providers.s3.checks"
local sys = require "lunark.core.sys"
local time = require "lunark.time"
local url = require "lunark.url"
local xml = require "lunark.xml"

local upload = {}

--- Seconds without a byte: completing and copying may take the store that long.
upload.SLOW = 900

local ALGORITHM = "x-amz-checksum-algorithm"
-- What stores say to a header that they don't know.
local REFUSALS = { NotImplemented = true, InvalidArgument = true, InvalidRequest = true, [501] = true }
local NO_ETAG = "%s, part %d: the answer has no ETag"
local RECENT = 180 -- seconds: longer than the library tries to begin one

local Upload = {}
Upload.__index = Upload

--- Something else has answered: whether the store has done it is not known.
---@param op string
---@param format string
---@return nil
---@return table err kind network, retryable
function upload.not_the_store(op, format, ...)
  return nil, sys.error {
    kind = "network", op = "s3." .. op, retryable = true, message = format:format(...),
    hint = "is this an S3 endpoint, and nothing in between that answers for it?",
  }
end

--- Begins one.
---@param store table
---@param key string
---@param headers table of the object
---@param meta table<string, string>
---@param copied boolean? its parts are bytes of other objects
---@return table? upload
---@return table? err
function upload.begin(store, key, headers, meta, copied)
  headers[ALGORITHM] = store.crc and not copied and "CRC32C" or nil
  local root, err, response = store:send_xml {
    op = "begin", method = "POST", key = key, query = { { "uploads", "" } }, headers = headers,
    expect = "InitiateMultipartUploadResult",
  }
  if not root then
    if headers[ALGORITHM] and REFUSALS[err.code or err.status] then
      store.crc = false
      return upload.begin(store, key, headers, meta, copied)
    end
    return nil, err
  end
  -- Stores that don't know such checksums take no notice; those that do say the name again.
  local crc = headers[ALGORITHM] ~= nil and response.headers[ALGORITHM] == "CRC32C"
  local id = root:value("UploadId")
  if not id or id == "" then
    return nil, sys.error {
      kind = "corrupt", op = "s3.begin", message = key .. ": the store gives no upload id",
    }
  end
  return setmetatable({ store = store, key = key, id = id, meta = meta, crc = crc }, Upload)
end

local function has_parts(self, id)
  local root = self.store:send_xml {
    op = "parts", method = "GET", key = self.key, query = { { "uploadId", id }, { "max-parts", 1 } },
  }
  return not root or root:child("Part") ~= nil
end

--- An attempt to begin whose answer was lost has left an upload that nobody knows: it is looked for by its
--- key and time, and removed when it has no parts. Where that is not allowed it stays for the bucket's rule.
function Upload:forget_lost()
  local store = self.store
  local root = store:send_xml {
    op = "uploads", method = "GET", query = { { "prefix", self.key }, { "uploads", "" } },
  }
  if not root then return end
  local since = store.ctx.clock() - RECENT
  for one in root:each("Upload") do
    local id, began = one:value("UploadId"), time.parse(one:value("Initiated") or "")
    local is_lost = one:value("Key") == self.key and id ~= self.id and began and began >= since
    if is_lost and not has_parts(self, id) then
      store.ctx.log.debug(("%s: an upload whose beginning was not answered is removed"):format(self.key))
      setmetatable({ store = store, key = self.key, id = id }, Upload):abort()
    end
  end
end

-- --- uploads that were left ---

local function read_uploads(store, query)
  local root, err = store:send_xml {
    op = "uploads", method = "GET", query = query, max = 16 << 20, expect = "ListMultipartUploadsResult",
  }
  if not root then return nil, err end
  local encoded, page = root:value("EncodingType") == "url", {}
  for one in root:each("Upload") do
    local key = one:value("Key") or ""
    page[#page + 1] = {
      key = encoded and url.unescape((key:gsub("+", " "))) or key, id = one:value("UploadId"),
      began = time.parse(one:value("Initiated") or ""),
    }
  end
  if root:value("IsTruncated") ~= "true" then return page, nil end
  local key, id = root:value("NextKeyMarker"), root:value("NextUploadIdMarker")
  if not key or key == "" then
    return nil, sys.error {
      kind = "corrupt", op = "s3.uploads",
      message = "list of uploads: the store says that there are more, and not where",
    }
  end
  return page, { key = encoded and url.unescape((key:gsub("+", " "))) or key, id = id }
end

local function below(page, prefix)
  local kept = {}
  for _, one in ipairs(page) do
    if one.key:sub(1, #prefix) == prefix then kept[#kept + 1] = one end
  end
  return kept
end

--- One page of the uploads in flight below a prefix. MinIO answers only for whole keys and for the whole
--- bucket: where there is nothing, all are asked for.
---@return table[]? {key, id, began}
---@return table? token, or err
function upload.list(store, prefix, token)
  local all = prefix == "" or token and token.all
  local query = { { "encoding-type", "url" }, { "prefix", all and "" or prefix }, { "uploads", "" } }
  if token and token.key then
    query[#query + 1] = { "key-marker", token.key }
    query[#query + 1] = { "upload-id-marker", token.id }
  end
  local page, following = read_uploads(store, query)
  if not page then
    -- Who may ask only for the prefix has been answered already.
    if token and token.all and not token.key and following.status == 403 then return {}, nil end
    return nil, following
  end
  if #page == 0 and not all and not token then return {}, { all = true } end
  if following then following.all = token and token.all end
  return below(page, prefix), following
end

--- When the last part of an upload came.
---@return number|false|nil seconds since 1970, false without a part; nil, err
---@return table? err not_found when it is not there any more
function upload.last_part(store, one)
  local newest, marker = false, nil
  repeat
    local query = { { "uploadId", one.id } }
    if marker then query[2] = { "part-number-marker", marker } end
    local root, err = store:send_xml {
      op = "parts", method = "GET", key = one.key, query = query, max = 4 << 20, expect = "ListPartsResult",
    }
    if not root then
      if err.code == "NoSuchUpload" then err.kind = "not_found" end
      return nil, err
    end
    for part in root:each("Part") do
      newest = math.max(newest or 0, time.parse(part:value("LastModified") or "") or 0)
    end
    local before = marker
    marker = root:value("IsTruncated") == "true" and root:value("NextPartNumberMarker") or nil
  until not marker or marker == before
  return newest
end

--- Throws an upload away.
function upload.discard(store, one)
  return setmetatable({ store = store, key = one.key, id = one.id }, Upload):abort()
end

-- --- sending ---

-- What a part travels with: its CRC32C, or its MD5 where the store does not know that.
local function digests_of(self, body)
  if self.crc then
    local crc = checks.crc(body)
    return { crc = crc }, { ["x-amz-checksum-crc32c"] = checks.header(crc) }
  end
  local md5 = self.store:md5_of(body)
  return { md5 = md5 }, { ["content-md5"] = md5 and checks.header(md5) }
end

--- Sends one part.
---@return table? part {etag, size, crc or md5}
function Upload:part(number, body)
  local part, headers = digests_of(self, body)
  local response, err = self.store:send {
    op = "part", method = "PUT", key = self.key, body = body, headers = headers,
    query = { { "partNumber", number }, { "uploadId", self.id } },
  }
  if not response then return nil, err end
  part.etag, part.size = checks.plain(response.headers["etag"]), checks.size(body)
  if not part.etag then return upload.not_the_store("part", NO_ETAG, self.key, number) end
  local what = ("%s, part %d"):format(self.key, number)
  local ok
  if part.crc then
    ok, err = checks.same_crc(response.headers["x-amz-checksum-crc32c"], part.crc, what)
  else
    ok, err = checks.etag(response, part.etag, part.md5, what)
  end
  if not ok then return nil, err end
  return part
end

--- Makes one part of bytes of an object that is in the bucket.
function Upload:copy(number, key, first, last, etag)
  local root, err = self.store:send_xml {
    op = "copy", method = "PUT", key = self.key, idle_timeout = upload.SLOW, expect = "CopyPartResult",
    query = { { "partNumber", number }, { "uploadId", self.id } },
    headers = {
      ["x-amz-copy-source"] = self.store:source_of(key), ["x-amz-copy-source-if-match"] = etag,
      ["x-amz-copy-source-range"] = ("bytes=%d-%d"):format(first, last),
    },
  }
  if not root then return nil, err end
  local made = checks.plain(root:value("ETag"))
  if not made then return upload.not_the_store("copy", NO_ETAG, self.key, number) end
  return { etag = made, size = last - first + 1 }
end

-- An earlier attempt may have been done, its answer lost: the object is there then, as it was sent.
-- The first one that is seen here may be such a second one: libcurl sends again by itself when a kept
-- connection turns out to be closed.
local function finished_before(self, size, parts, err)
  local info = self.store:head(self.key)
  local etag = checks.of_parts(parts, true)
  if info and checks.is_same(info, size, etag, self.meta, #parts) then return info end
  return nil, err
end

local function list_of(parts)
  local lines, size = { '<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">' }, 0
  for number, part in ipairs(parts) do
    size = size + part.size
    local crc = part.crc and ("<ChecksumCRC32C>%s</ChecksumCRC32C>"):format(checks.header(part.crc)) or ""
    lines[#lines + 1] = ("<Part><PartNumber>%d</PartNumber><ETag>&quot;%s&quot;</ETag>%s</Part>"):format(
      number, xml.escape(part.etag), crc)
  end
  lines[#lines + 1] = "</CompleteMultipartUpload>"
  return table.concat(lines), size
end

-- Whether the object is made of what was sent.
local function check_whole(self, root, response, parts)
  local ok, err
  if self.crc then
    local reported = (root:value("ChecksumCRC32C") or ""):match("^(.-)%-%d+$") -- "composite" has their number
    ok, err = checks.same_crc(reported, checks.crc_of_parts(parts), self.key)
  else
    ok, err = checks.etag(response, checks.plain(root:value("ETag")), checks.of_parts(parts), self.key)
  end
  if not ok then err.retryable = false end
  return ok, err
end

--- Makes the parts one object, which is visible from then on.
function Upload:finish(parts)
  local body, size = list_of(parts)
  local store = self.store
  local headers = { ["content-type"] = "application/xml" }
  store:condition(headers, self.exclusive, self.replaces)
  local root, err, response = store:send_xml {
    op = "finish", method = "POST", key = self.key, query = { { "uploadId", self.id } },
    idle_timeout = upload.SLOW, body = body, headers = headers, expect = "CompleteMultipartUploadResult",
  }
  if not root then
    if store:without_conditions(err, headers) then return self:finish(parts) end
    if err.code == "NoSuchUpload" or err.status == 412 then
      return finished_before(self, size, parts, err)
    end
    return nil, err
  end
  local ok
  ok, err = check_whole(self, root, response, parts)
  if not ok then return nil, err end
  local reported = checks.plain(root:value("ETag"))
  return { size = size, etag = reported, version = reported }
end

--- Throws the parts away.
function Upload:abort()
  local response, err = self.store:send {
    op = "abort", method = "DELETE", key = self.key, query = { { "uploadId", self.id } },
  }
  if response and (response.body or "") ~= "" then
    return upload.not_the_store("abort", "%s: the answer has a body, none expected", self.key)
  end
  if response or err.code == "NoSuchUpload" then return true end
  return nil, err
end

return upload
