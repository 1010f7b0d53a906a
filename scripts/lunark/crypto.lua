-- SPDX-License-Identifier: MIT
-- lunark.crypto - digests, HMAC, signatures, encodings, random bytes: lunark.core.crypto and what is
-- short in Lua. Needs nothing.
local core = require "lunark.core.crypto"

---@class lunark.crypto
local crypto = {}

crypto.digest = core.digest
crypto.hmac = core.hmac
crypto.rs256 = core.rs256
crypto.hex = core.hex
crypto.unhex = core.unhex
crypto.base64 = core.base64
crypto.unbase64 = core.unbase64
crypto.base64url = core.base64url
crypto.unbase64url = core.unbase64url
crypto.equal = core.equal
crypto.random = core.random
crypto.hasher = core.hasher

--- The digest as lower-case hex, as most protocols write it.
---@param name string md5, sha1, sha256, sha512, crc32 or crc32c
---@param data string|lunark.Secret
---@return string|nil hex
---@return table? err when OpenSSL refuses the digest
function crypto.hex_digest(name, data)
  local raw, err = core.digest(name, data)
  if not raw then
    return nil, err
  end
  return core.hex(raw)
end

return crypto
