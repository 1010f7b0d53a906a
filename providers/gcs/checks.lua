-- SPDX-License-Identifier: MIT
--- What was sent, and whether Google Cloud Storage's answer agrees with it: sizes, CRC-32C, MD5.

local crc32c = require "providers.gcs.crc32c"
local crypto = require "lunark.core.crypto"
local sys = require "lunark.core.sys"
local time = require "lunark.time"

local checks = {}

--- Bytes of a body.
---@param body string|lunark.Part
---@return integer
function checks.size(body)
  return type(body) == "string" and #body or body.size
end

--- The bytes themselves.
---@param body string|lunark.Part
---@return string
function checks.text(body)
  return type(body) == "string" and body or body:string()
end

--- CRC-32C of a body as a number. A part has it already when the store asked for it.
---@param body string|lunark.Part
---@return integer
function checks.crc(body)
  local known = type(body) ~= "string" and body.hash and body.hash.crc32c
  return crc32c.number(known and crypto.unhex(known) or crypto.digest("crc32c", checks.text(body)))
end

--- A CRC as Google writes it.
---@param crc integer
---@return string base64
function checks.encode(crc)
  return crypto.base64(crc32c.bytes(crc))
end

--- CRC of a whole object, from what is kept of its parts.
---@param parts table list of {size, crc}
---@return integer crc
---@return integer bytes
function checks.of_parts(parts)
  local crc, size = 0, 0
  for _, part in ipairs(parts) do
    crc, size = crc32c.combine(crc, part.crc, part.size), size + part.size
  end
  return crc, size
end

--- What the library is told of an object. The CRC stands for the ETag: Google's changes with the metadata
--- too.
---@param object table resource of the JSON API
---@return table info
function checks.info(object)
  return {
    key = object.name, size = math.tointeger(tonumber(object.size)), etag = object.crc32c or object.etag,
    version = object.generation, mtime = time.parse(object.updated or ""),
    meta = type(object.metadata) == "table" and object.metadata or {},
  }
end

--- What the store says of an object, if it is that: an answer of something between is not.
---@param object any resource of the JSON API
---@param key string? whose it must be
---@return table? object
---@return table? err kind network, to be asked again
function checks.described(object, key)
  if type(object) == "table" and type(object.name) == "string" and (not key or object.name == key)
    and math.tointeger(tonumber(object.size)) then
    return object
  end
  return nil, sys.error {
    kind = "network", op = "gcs", retryable = true,
    message = (key or "the bucket") .. ": the answer does not describe an object",
  }
end

--- Compares what the store says of an object with what was sent: it must state the CRC.
---@param object table resource of the JSON API
---@param sent table {size =, crc =, md5 = base64?}
---@param key string for the message
---@return true?
---@return table? err kind corrupt
function checks.object(object, sent, key)
  local described, err = checks.described(object, key)
  if not described then return nil, err end
  local expected = { size = tostring(sent.size), crc32c = checks.encode(sent.crc), md5Hash = sent.md5 }
  for _, name in ipairs { "size", "crc32c", "md5Hash" } do
    local found = object[name] or name ~= "md5Hash" and "none" or nil
    if found and expected[name] and tostring(found) ~= expected[name] then
      return nil, sys.error {
        kind = "corrupt", op = "gcs", retryable = true,
        message = ("%s: the store reports %s %s, %s was sent")
          :format(key, name, tostring(found), expected[name]),
      }
    end
  end
  return true
end

return checks
