-- SPDX-License-Identifier: MIT
--- Hashes of what is sent to S3, and whether the store's answer agrees with them.

local crypto = require "lunark.core.crypto"
local sigv4 = require "providers.sign.sigv4"
local sys = require "lunark.core.sys"
local task = require "lunark.core.task"

local checks = {}

local SLICE = 1024 * 1024 -- bytes

local function hash(name, text)
  return crypto.hex(crypto.digest(name, text))
end

-- A digest of a body in hex. A part has it already when the store asked for it; else it is made slice by
-- slice: a part may be larger than the memory that there is for it, and other tasks go on meanwhile.
local function digest_of(name, body)
  if type(body) == "string" then return hash(name, body) end
  local known = body.hash and body.hash[name]
  if known then return known end
  local hasher = crypto.hasher(name)
  for offset = 0, body.size - 1, SLICE do
    hasher:update(assert(body:string(offset, SLICE)))
    task.sleep(0)
  end
  return crypto.hex(hasher:final())
end

--- Lower-case hex of a body's SHA-256.
---@param body string|lunark.Part|nil
---@return string
function checks.payload(body)
  return body == nil and sigv4.EMPTY_HASH or digest_of("sha256", body)
end

--- The MD5 of a body, in hex.
---@param body string|lunark.Part
---@return string
function checks.md5(body)
  return digest_of("md5", body)
end

--- The CRC32C of a body, in hex.
---@param body string|lunark.Part
---@return string
function checks.crc(body)
  return digest_of("crc32c", body)
end

--- Compares the CRC32C that the store reports, if any, with ours.
---@param reported string? as in x-amz-checksum-crc32c
---@param expected string hex
---@param what string for the message
---@return true?
---@return table? err kind corrupt, retryable
function checks.same_crc(reported, expected, what)
  local ours = checks.header(expected)
  if not reported or reported == "" or reported == ours then return true end
  return nil, sys.error {
    kind = "corrupt", op = "s3", retryable = true,
    message = ("%s: the store reports CRC32C %s, %s was sent"):format(what, reported, ours),
  }
end

--- The checksum that S3 makes of the parts' CRC32Cs: "composite".
---@param parts table list of {crc}
---@return string hex
function checks.crc_of_parts(parts)
  local digests = {}
  for index, part in ipairs(parts) do digests[index] = crypto.unhex(part.crc) end
  return hash("crc32c", table.concat(digests))
end

--- Bytes of a body.
---@param body string|lunark.Part
---@return integer
function checks.size(body)
  return type(body) == "string" and #body or body.size
end

--- An ETag without its quotes.
---@param text string?
---@return string?
function checks.plain(text)
  return text and text:match('^"?(.-)"?$')
end

--- A digest as headers have it.
---@param hex string
---@return string base64
function checks.header(hex)
  return crypto.base64(crypto.unhex(hex))
end

--- The ETag that S3 makes of the parts' MD5s: nil where one is not known.
---@param parts table list of {etag, md5}
---@param believe boolean? take the parts' ETags for their MD5s where ours are not known
---@return string?
function checks.of_parts(parts, believe)
  local digests = {}
  for index, part in ipairs(parts) do
    local md5 = part.md5 or (believe and part.etag:match("^%x+$"))
    if not md5 or #md5 ~= 32 or md5 ~= part.etag then return nil end
    digests[index] = crypto.unhex(md5)
  end
  return hash("md5", table.concat(digests)) .. "-" .. #parts
end

--- False when the ETag can't be one of MD5s: the object is encrypted with a key of its own.
---@param headers table of the answer
---@return boolean
function checks.has_md5(headers)
  local encryption = headers["x-amz-server-side-encryption"]
  if encryption and encryption ~= "AES256" then return false end
  return not headers["x-amz-server-side-encryption-customer-algorithm"]
end

-- An ETag of another form is no MD5 either.
local function is_md5(etag, headers)
  if not checks.has_md5(headers) then return false end
  local digits, count = etag:match("^(%x+)(%-?%d*)$")
  return digits ~= nil and #digits == 32, count
end

--- Compares the store's ETag with our MD5. Where one is not known, or the ETag is no MD5, nothing is said.
---@param response table of lunark.http
---@param etag string?
---@param expected string?
---@param what string for the message
---@return true?
---@return table? err kind corrupt, retryable
function checks.etag(response, etag, expected, what)
  if not expected or not etag or etag == expected then return true end
  local comparable, count = is_md5(etag, response.headers)
  if not comparable or count ~= expected:sub(33) then return true end
  return nil, sys.error {
    kind = "corrupt", op = "s3", retryable = true, request_id = response.request_id,
    message = ("%s: the store reports MD5 %s, %s was sent"):format(what, etag, expected),
  }
end

--- True when both have the same names and values, and there is one at least.
---@param ours table<string, string>
---@param theirs table<string, string> with lower-case names
---@return boolean
function checks.same_meta(ours, theirs)
  for name, value in pairs(ours) do
    if theirs[name:lower()] ~= value then return false end
  end
  for name in pairs(theirs) do
    if not ours[name] then return false end
  end
  return next(ours) ~= nil
end

--- Whether an object is the one that was sent: size and ETag, or where that is no MD5 size and metadata.
---@param info table of the store's head
---@param size integer
---@param etag string? as it should be
---@param meta table<string, string>?
---@param count integer? of parts
---@return boolean
function checks.is_same(info, size, etag, meta, count)
  if info.size ~= size then return false end
  if etag and info.digest then return info.etag == etag end
  if (info.etag or ""):match("%-(%d+)$") ~= (count and tostring(count)) then return false end
  return not info.digest and checks.same_meta(meta or {}, info.meta)
end

return checks
