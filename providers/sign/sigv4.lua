-- SPDX-License-Identifier: MIT
--- AWS Signature Version 4: the signature of one request, in its headers.
--- Needs lunark.crypto's functions (digest, hmac, hex). Sends nothing and keeps nothing.

local crypto = require "lunark.core.crypto"
local time = require "lunark.time"

local sigv4 = {}

--- SHA-256 of nothing, and the word for a payload that is not hashed.
sigv4.EMPTY_HASH = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
sigv4.UNSIGNED = "UNSIGNED-PAYLOAD"

local ALGORITHM = "AWS4-HMAC-SHA256"

local function hash(text)
  return crypto.hex(crypto.digest("sha256", text))
end

local function reveal(value)
  return type(value) == "string" and value or value:reveal()
end

--- Percent-encodes all but `A-Z a-z 0-9 - . _ ~`.
---@param text string
---@param keep_slash boolean? leave `/` as it is (paths)
---@return string
function sigv4.escape(text, keep_slash)
  return (text:gsub(keep_slash and "[^%w%-._~/]" or "[^%w%-._~]", function(byte)
    return ("%%%02X"):format(byte:byte())
  end))
end

--- The canonical query string, which is also what must be sent: encoded, sorted by name, then
--- value.
---@param pairs_list table list of {name, value}, not encoded
---@return string
function sigv4.query(pairs_list)
  local encoded = {}
  for index, pair in ipairs(pairs_list) do
    encoded[index] = { sigv4.escape(pair[1]), sigv4.escape(tostring(pair[2] or "")) }
  end
  table.sort(encoded, function(a, b)
    if a[1] ~= b[1] then return a[1] < b[1] end
    return a[2] < b[2]
  end)
  for index, pair in ipairs(encoded) do encoded[index] = pair[1] .. "=" .. pair[2] end
  return table.concat(encoded, "&")
end

-- Services other than S3 resolve `.` and `..` and encode the path once more.
local function normalized(path)
  local parts = {}
  for part in path:gmatch("[^/]+") do
    if part == ".." then
      table.remove(parts)
    elseif part ~= "." then
      parts[#parts + 1] = part
    end
  end
  local joined = "/" .. table.concat(parts, "/")
  if joined ~= "/" and path:sub(-1) == "/" then joined = joined .. "/" end
  return sigv4.escape(joined, true)
end

local function canonical_headers(headers)
  local names, values = {}, {}
  for name, value in pairs(headers) do
    local lower = name:lower()
    names[#names + 1] = lower
    values[lower] = reveal(value):gsub("^%s+", ""):gsub("%s+$", ""):gsub("%s+", " ")
  end
  table.sort(names)
  local lines = {}
  for index, name in ipairs(names) do lines[index] = name .. ":" .. values[name] .. "\n" end
  return table.concat(lines), table.concat(names, ";")
end

---@class lunark.sigv4.Request
---@field method string
---@field path string as it is sent, encoded
---@field query string canonical, see sigv4.query
---@field headers table name -> string or secret: the headers to sign; `host` must be among them
---@field payload_hash string lower-case hex of the body's SHA-256, or sigv4.UNSIGNED

---@class lunark.sigv4.Scope
---@field time number seconds since 1970
---@field region string
---@field service string
---@field normalize boolean? for services other than S3

--- Signs a request.
---@param request lunark.sigv4.Request headers get x-amz-date, and x-amz-security-token with a session token
---@param credentials table {access_key_id, secret_access_key, session_token}: strings or secrets
---@param scope lunark.sigv4.Scope
---@return string authorization value of the header Authorization
---@return string canonical request, for tests and for a server that disagrees
---@return string to_sign
function sigv4.sign(request, credentials, scope)
  local headers = request.headers
  local stamp = time.basic(scope.time)
  headers["x-amz-date"] = stamp
  if credentials.session_token then headers["x-amz-security-token"] = credentials.session_token end
  local header_lines, signed = canonical_headers(headers)
  local canonical = table.concat({
    request.method, scope.normalize and normalized(request.path) or request.path, request.query or "",
    header_lines, signed, request.payload_hash,
  }, "\n")
  local day = stamp:sub(1, 8)
  local credential_scope = ("%s/%s/%s/aws4_request"):format(day, scope.region, scope.service)
  local to_sign = table.concat({ ALGORITHM, stamp, credential_scope, hash(canonical) }, "\n")
  local key = crypto.hmac("sha256", "AWS4" .. reveal(credentials.secret_access_key), day)
  key = crypto.hmac("sha256", key, scope.region)
  key = crypto.hmac("sha256", key, scope.service)
  key = crypto.hmac("sha256", key, "aws4_request")
  local signature = crypto.hex(crypto.hmac("sha256", key, to_sign))
  return ("%s Credential=%s/%s, SignedHeaders=%s, Signature=%s"):format(ALGORITHM,
    reveal(credentials.access_key_id), credential_scope, signed, signature), canonical, to_sign
end

return sigv4
