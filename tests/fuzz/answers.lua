-- SPDX-License-Identifier: MIT
-- Any bytes as the answer of a store or of a token service, to each call of a provider. A call returns a
-- result or an error that is one, in a bounded number of requests; nothing raises.
-- Input: a byte for the store, one for the call, one for the status, then the body.
local http = require "lunark.http"
local provider = require "lunark.provider"
local store = require "lunark.store"
local sys = require "lunark.core.sys"

local STATUS = { 200, 200, 200, 204, 206, 301, 307, 400, 403, 404, 409, 412, 429, 500, 503, 200 }
local REQUESTS = 60

-- A provider is loaded once; a store is opened for each input, so that none remembers another.
local load, loaded = provider.load, {}
function provider.load(name)
  loaded[name] = loaded[name] or assert(load(name))
  return loaded[name]
end

local body, status, requests

local function answer()
  requests = requests + 1
  if requests > REQUESTS then error("a call asks without an end", 0) end
  local response = {
    status = status, body = body, request_id = "r", headers = {
      etag = '"' .. body:sub(1, 40):gsub("[%c]", "") .. '"', date = "Tue, 24 Nov 2026 10:00:00 GMT",
      ["content-length"] = body:match("%d+"), ["content-range"] = body:match("bytes [%d-]+/%d+"),
      ["x-amz-bucket-region"] = body:match("%l%l%-%l+%-%d"), ["last-modified"] = body:sub(1, 29),
      ["x-ms-copy-status"] = "success", ["x-ms-error-code"] = body:match("%u%l+%u%l+"),
      ["x-goog-generation"] = body:match("%d+"), ["x-goog-hash"] = body:match("crc32c=%g+"),
      ["content-md5"] = body:sub(1, 24), ["retry-after"] = body:match("%d"),
      location = body:match("https?://%g+"), range = body:match("bytes=0%-%d+"),
    },
  }
  response.stream = { close = function() end }
  return response
end
http.request = function(request)
  if request.sign then
    local url = assert(http.parse_url(request.url))
    local _, err = request.sign {
      method = request.method or "GET", path = url.path, query = url.query or "", host = url.host,
      headers = request.headers or {},
    }
    if err then return nil, err end
  end
  return answer()
end

local function open(url, options)
  return function()
    body, status, requests = "", 200, 0
    return assert(store.open(url, options)).inner
  end
end
local S3_KEYS = { access_key_id = "AK", secret_access_key = "secret" }
local google = '{"type":"authorized_user","client_id":"c","client_secret":"s","refresh_token":"r"}'
local OPEN = {
  open("s3://bucket?endpoint=https://s3.example&region=r-1", S3_KEYS),
  open("s3://bucket?region=eu-west-1", S3_KEYS),
  open("gs://bucket", { token = "token" }),
  open("gs://bucket", { credentials = google }),
  open("azure://container", { account = "account", account_key = "bm8ga2V5" }),
  open("azure://container", {
    account = "account", tenant_id = "t", client_id = "i", client_secret = "secret",
  }),
}
local CALLS = {
  function(s) return s:list("p/", nil, 10) end,
  function(s) return s:list("p/", "token", nil) end,
  function(s) return s:delete { "a", "b" } end,
  function(s) return s:delete { "a" } end,
  function(s) return s:head("a") end,
  function(s) return s:put("a", "body", { item = "x" }, { exclusive = true }) end,
  function(s) return s:get("a", { 0, 9 }) end,
  function(s) return s:check("write", "p/") end,
  function(s)
    local upload, err = s:begin("a", { item = "x" }, {})
    if not upload then return nil, err end
    upload:abort()
    return upload
  end,
  function(s) return s.copy and s.features ~= nil and s:copy("a", "b", nil, {}) or true end,
}

local function check_list(page)
  if type(page) ~= "table" then return end
  for _, item in ipairs(page) do
    assert(type(item) ~= "table" or item.key == nil or type(item.key) == "string", "a key that is no text")
  end
end

return function(data)
  local s = OPEN[(data:byte(1) or 0) % #OPEN + 1]()
  local call = (data:byte(2) or 0) % #CALLS + 1
  body, status, requests = data:sub(4), STATUS[(data:byte(3) or 0) % #STATUS + 1], 0
  local result, err = CALLS[call](s)
  if result == nil then
    assert(sys.is_error(err) and err.message ~= "", "an error expected, found " .. tostring(err))
    return err.kind .. err.message:sub(1, 60)
  end
  check_list(result)
  return "done" .. call
end
