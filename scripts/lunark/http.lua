-- SPDX-License-Identifier: MIT
--- HTTP requests: one attempt, signed in the calling task, over lunark.core.http. Needs net for the
--- host. No redirect is followed and nothing is retried here: lunark.retry and the providers do
--- that. Any status is a response. Bodies of a backup travel as parts and streams, never as
--- strings.

local core = require "lunark.core.http"
local crypto = require "lunark.core.crypto"
local sys = require "lunark.core.sys"

local http = {}

---@class lunark.http.Options
---@field url string http or https, escaped, without user, password and fragment; the path is sent
---  as it stands
---@field method string? default "GET"
---@field query table|string|nil list of {name, value} pairs, escaped in that order; or text that
---  is escaped already
---@field headers table? name = value, a string, a number or a secret; names are sent in lower case
---@field body string|lunark.Part|lunark.Stream|nil a stream is moved; it can't be sent again
---@field length integer? bytes of a stream, checked; without it the stream is sent chunked
---@field sink string? "stream": a body with a status below 300 becomes response.stream, as soon as
---  the header is there
---@field max integer? bytes of a body that becomes a string, default 1 MiB; longer is an error of
---  kind memory, or cut off with a status of 300 and above
---@field sign fun(request: lunark.http.Signable): any, any called before the attempt; may park;
---  false or nil with an error ends the request with that error
---@field connect_timeout number? seconds for name, connection and TLS, default 10
---@field idle_timeout number? seconds without a byte either way, default 60; 0 = none. Waiting for
---  the own side's streams does not count
---@field timeout number? seconds in all, default none
---@field ca_file string? PEM file of the CAs to trust, in place of CURL_CA_BUNDLE, SSL_CERT_FILE
---  and SSL_CERT_DIR
---@field ca_path string? directory of such files with hashed names
---@field insecure boolean? TLS is not verified
---@field proxy string? "env" (default), "none", or a URL; cloud metadata addresses never use one
---@field http2 boolean? default: where TLS offers it and there is neither body nor sink
---@field expect_continue boolean? sends `Expect: 100-continue` before the body
---@field resolve string[]? "host:port:address" entries, used in place of a look-up

---@class lunark.http.Signable what `sign` gets; it may change `headers` and `url`
---@field method string
---@field url string with its query
---@field host string as in the Host header: with the port unless it is the scheme's own
---@field path string as it is sent
---@field query string as it is sent, "" if there is none
---@field headers table lower-case name = string or secret
---@field body_size integer? nil for a stream of unknown length
---@field body_hash table lower-case hex by name of the digest; a part's own, a string's as asked
---  for; empty for a stream

---@class lunark.http.Response
---@field status integer
---@field headers table lower-case name = value; of several with one name the values are joined
---  with ", "
---@field body string? unless it is a stream
---@field stream lunark.Stream?
---@field request_id string?
---@field seconds number until the response, or its header, was there
---@field retries integer 0

-- What is settled here; the rest goes to the core as it is, which knows the names.
local OWN = { url = true, query = true, headers = true, sign = true }

local function misuse(format, ...)
  local message = "http.request: " .. format:format(...)
  error(sys.error { kind = "usage", op = "http.request", message = message }, 0)
end

--- Escapes everything but `A-Za-z0-9-._~` (RFC 3986).
---@param text string
---@return string
function http.escape(text)
  return (text:gsub("[^A-Za-z0-9%-._~]", function(byte) return ("%%%02X"):format(byte:byte()) end))
end

--- Writes a query: list of {name, value} pairs, values strings or numbers -> "name=value&...".
---@param list table
---@return string
function http.query(list)
  local out = {}
  for index, pair in ipairs(list) do
    if type(pair) ~= "table" or type(pair[1]) ~= "string" then
      misuse("query: entry %d is not {name, value}", index)
    end
    local value = pair[2]
    if value == nil then value = "" end
    if type(value) ~= "string" and math.type(value) ~= "integer" then
      misuse("query: '%s' must be a string or an integer, got %s", pair[1], type(value))
    end
    out[index] = http.escape(pair[1]) .. "=" .. http.escape(tostring(value))
  end
  return table.concat(out, "&")
end

--- Splits a URL as `request` understands it.
---@param text string
---@return table|nil url {scheme, host, port, default_port, path, query}; query nil if there is
---  none
---@return table? err kind usage
function http.parse_url(text)
  return core.parse_url(text)
end

local function with_query(url, query)
  if type(query) == "table" then query = http.query(query) end
  if query == nil or query == "" then return url end
  if type(query) ~= "string" then
    misuse("'query' must be a list or a string, got %s", type(query))
  end
  return url .. (url:find("?", 1, true) and "&" or "?") .. query
end

-- A copy with lower-case names and text values, which the signer may change.
local function copy_headers(given)
  local headers = {}
  for name, value in pairs(given or {}) do
    if type(name) ~= "string" then
      misuse("the name of a header must be a string, got %s", type(name))
    end
    local key = name:lower()
    if headers[key] then misuse("header '%s' stands there twice", key) end
    if type(value) == "number" then value = tostring(value) end
    if type(value) ~= "string" and not sys.is_secret(value) then
      misuse("header '%s' must be a string, a number or a secret, got %s", key, type(value))
    end
    headers[key] = value
  end
  return headers
end

-- Size and digests of a body: a string's digests are made when the signer asks.
local function describe_body(body, length)
  if body == nil then body = "" end
  local text = sys.is_secret(body) and body:reveal() or body
  if type(text) == "string" then
    return #text, setmetatable({}, {
      __index = function(hash, name)
        hash[name] = crypto.hex(crypto.digest(name, text))
        return hash[name]
      end,
    })
  end
  local is_part, hash = pcall(function() return body.hash end)
  if is_part and type(hash) == "table" then return body.size, hash end
  return length, {}
end

local function sign(options, url, headers)
  local parsed, err = core.parse_url(url)
  if not parsed then return nil, err end
  local request = {
    method = options.method or "GET",
    url = url,
    host = parsed.default_port and parsed.host or ("%s:%d"):format(parsed.host, parsed.port),
    path = parsed.path,
    query = parsed.query or "",
    headers = headers,
  }
  request.body_size, request.body_hash = describe_body(options.body, options.length)
  local done, failure = options.sign(request)
  if not done and failure ~= nil then return nil, failure end
  return request.url, copy_headers(request.headers)
end

--- Sends one request and parks until its response is there.
---@param options lunark.http.Options
---@return lunark.http.Response|nil
---@return table? err kind network, timeout, denied, memory, cancelled; or what the signer or the
---  body's source gave
function http.request(options)
  if type(options) ~= "table" then
    misuse("expected a table of options, got %s", type(options))
  end
  if type(options.url) ~= "string" then
    misuse("'url' must be a string, got %s", type(options.url))
  end
  local headers = copy_headers(options.headers)
  local url = with_query(options.url, options.query)
  if url:find("%00", 1, true) then
    local message = url:gsub("%?.*$", "") .. ": a name can't hold a byte of value 0"
    return nil, sys.error { kind = "usage", op = "http.request", message = message }
  end
  if options.sign then
    local signed, more = sign(options, url, headers)
    if not signed then return nil, more end
    url, headers = signed, more
  end
  local plain = { url = url, headers = headers }
  for key, value in pairs(options) do
    if not OWN[key] then plain[key] = value end
  end
  return core.request(plain)
end

--- The value of `authorization` for a name and a password (RFC 7617).
---@param user string
---@param password string|lunark.secret
---@return lunark.secret
function http.basic(user, password)
  local text = type(password) == "string" and password or password:reveal()
  return sys.secret("Basic " .. crypto.base64(user .. ":" .. text))
end

local KINDS = {
  [401] = "auth", [403] = "auth", [404] = "not_found", [408] = "timeout", [409] = "conflict",
  [410] = "not_found", [412] = "conflict", [416] = "usage", [429] = "throttled",
}

--- What a status means where a service says no more than that: a response below 300 as it is, else an error.
--- Statuses that pass (408, 423, 429, 5xx but 501, 505, 507) are `retryable`.
---@param what string what was asked for, for the message: "PUT a/key"
---@param response lunark.http.Response? nil: the error that comes with it is handed on
---@param err table?
---@return lunark.http.Response?
---@return table? err with `status`, and `retry_after` where the service says so
function http.check(what, response, err)
  local status = response and response.status
  if not response or status < 300 then return response, err end
  local lasting = status == 501 or status == 505 or status == 507
  err = sys.error {
    kind = KINDS[status] or "io", op = "http", status = status, request_id = response.request_id,
    retryable = status >= 500 and not lasting or status == 408 or status == 423 or status == 429,
    message = ("%s: the server answered %d"):format(what, status),
    hint = KINDS[status] == "auth" and "check the credentials, and what they permit" or nil,
  }
  err.retry_after = tonumber(response.headers["retry-after"])
  return nil, err
end

return http
