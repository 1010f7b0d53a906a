-- SPDX-License-Identifier: MIT
---@meta lunark.core.crypto
--- lunark.core.crypto: OpenSSL and zlib for scripts. Where data or a key is taken it may be a string
--- or a secret; what comes back is a plain string. Names of digests: md5, sha1, sha256, sha512,
--- crc32, crc32c.

local crypto = {}

---@class lunark.Hasher
local Hasher = {}

--- The raw digest; a CRC is four bytes, the highest first.
---@param name string
---@param data string|lunark.Secret
---@return string|nil raw
---@return table? err kind io, when OpenSSL refuses the digest (md5 in FIPS mode)
function crypto.digest(name, data) end

--- The raw HMAC (RFC 2104). A CRC is misuse.
---@param name string
---@param key string|lunark.Secret
---@param data string|lunark.Secret
---@return string|nil raw
---@return table? err
function crypto.hmac(name, key, data) end

--- The raw signature RSASSA-PKCS1-v1_5 with SHA-256, as JSON web tokens of type RS256 have it.
---@param pem string|lunark.Secret RSA private key, PKCS#8 or PKCS#1, without passphrase
---@param data string|lunark.Secret
---@return string|nil raw
---@return table? err kind usage: what is wrong with the key
function crypto.rs256(pem, data) end

---@param data string|lunark.Secret
---@return string hex lower case
function crypto.hex(data) end

---@param text string|lunark.Secret either case
---@return string|nil data
---@return table? err kind corrupt
function crypto.unhex(text) end

--- RFC 4648, section 4, with padding and without line breaks.
---@param data string|lunark.Secret
---@return string text
function crypto.base64(data) end

--- Padding is required; white space and anything else that is not in the alphabet is an error.
---@param text string|lunark.Secret
---@return string|nil data
---@return table? err kind corrupt
function crypto.unbase64(text) end

--- RFC 4648, section 5, without padding.
---@param data string|lunark.Secret
---@return string text
function crypto.base64url(data) end

--- With or without padding.
---@param text string|lunark.Secret
---@return string|nil data
---@return table? err kind corrupt
function crypto.unbase64url(text) end

--- Whether both are the same, in a time that depends on their lengths alone.
---@param a string|lunark.Secret
---@param b string|lunark.Secret
---@return boolean
function crypto.equal(a, b) end

--- Bytes for keys, nonces and tokens.
---@param size integer bytes, 0 to 1 MiB
---@return string|nil data
---@return table? err
function crypto.random(size) end

--- A digest of data that come piece by piece.
---@param name string
---@return lunark.Hasher|nil
---@return table? err
function crypto.hasher(name) end

---@param data string|lunark.Secret
---@return lunark.Hasher self
function Hasher:update(data) end

--- The raw digest of what was added; the hasher starts anew.
---@return string raw
function Hasher:final() end

--- Frees it; further use is misuse.
function Hasher:close() end

return crypto
