-- SPDX-License-Identifier: MIT
--- Google credentials: a chain of places to look in, as Google's own libraries have it, and the
--- exchange of what is found there for access tokens. A place gives a source of tokens, nothing
--- (the next one is asked), or an error (what is there but broken must be said).
--- https://cloud.google.com/docs/authentication/application-default-credentials

local json = require "lunark.json"
local mounted = require "providers.credential.mounted"
local sys = require "lunark.core.sys"
local renewal = require "providers.credential.renewal"
local time = require "lunark.time"

local google = {}

local SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
local STS_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
local TOKEN_URI = "https://oauth2.googleapis.com/token"
local METADATA = "169.254.169.254"
local TOKEN_PATH = "/computeMetadata/v1/instance/service-accounts/default/token"
local LIFETIME = 3600 -- seconds asked for
local NEAR = { ["127.0.0.1"] = true, localhost = true, ["[::1]"] = true, [METADATA] = true }

---@class lunark.google.Context
---@field env fun(name: string): string?
---@field read fun(path: string): string?, table?
---@field secret fun(text: string): lunark.secret
---@field http table lunark.http
---@field crypto table lunark.crypto
---@field clock fun(): number
---@field log table
---@field grant fun(host: string)
---@field grant_read fun(path: string)
---@field token lunark.secret? from the options
---@field credentials lunark.secret? JSON from the options
---@field credentials_file string? from the options

---@class lunark.google.Source
---@field text string where tokens are from, for messages
---@field fetch fun(): lunark.secret?, number|table|nil a token and the time it ends at, or nil, err
---@field quota_project string? the project that requests are counted for

local function bad(hint, format, ...)
  return nil, sys.error { kind = "auth", op = "credentials", message = format:format(...), hint = hint }
end

local function reveal(value)
  return type(value) == "string" and value or value:reveal()
end

-- --- requests to token services ---

-- Keys are not sent in the clear, but to this machine and its metadata service.
local function check_url(address, field, where)
  local scheme, host = (address or ""):match("^(https?)://([^/?#]+)")
  if not scheme then return bad(nil, "%s: %s is no URL", where, field) end
  local name = host:gsub(":%d+$", "")
  if scheme == "http" and not NEAR[name] then
    return bad(nil, "%s: %s %s: https is expected", where, field, address)
  end
  return host
end

-- What a token service says when it refuses: RFC 6749 (5.2), or Google's usual error.
local function refusal(response)
  local body = json.decode(response.body or "")
  if type(body) ~= "table" then return ("HTTP status %d"):format(response.status) end
  if type(body.error) == "table" then
    return tostring(body.error.message or body.error.status), body.error.status
  end
  return tostring(body.error_description or body.error or response.status), body.error
end

-- Seconds that the service's clock is ahead, when it refuses the times in a signed claim.
local function skew_of(response, words, clock)
  if not words:find("iat", 1, true) and not words:lower():find("short%-lived") then return nil end
  local theirs = time.parse_http(response.headers["date"])
  local skew = theirs and theirs - clock()
  return skew and math.abs(skew) > 30 and skew or nil
end

local function token_error(context, response, what)
  local status = response.status
  local words, code = refusal(response)
  local busy = status == 408 or status == 429 or status >= 500
  local err = sys.error {
    kind = not busy and "auth" or status == 429 and "throttled" or "network", op = "credentials",
    status = status, retryable = busy, code = type(code) == "string" and code or nil,
    request_id = response.request_id,
    message = ("%s: no access token: %s"):format(what, (words:gsub("%.%s*$", ""))),
    hint = not busy and "the token service refuses these credentials" or nil,
  }
  err.retry_after = tonumber(response.headers["retry-after"])
  err.skew = skew_of(response, words, context.clock)
  return err
end

-- The answer, whose status is 200, or nil, err.
local function send(context, request, what)
  request.max, request.connect_timeout = 256 * 1024, request.connect_timeout or 10
  request.idle_timeout = request.idle_timeout or 30
  local response, err = context.http.request(request)
  if not response then
    err.message = ("%s: %s"):format(what, err.message)
    return nil, err
  end
  if response.status ~= 200 then return nil, token_error(context, response, what) end
  return response
end

-- The answer's JSON, or nil, err.
local function ask(context, request, what)
  local response, err = send(context, request, what)
  if not response then return nil, err end
  local body = json.decode(response.body)
  if type(body) ~= "table" then
    return nil, sys.error {
      kind = "network", op = "credentials", retryable = true,
      message = what .. ": the token service's answer is no JSON",
    }
  end
  return body, nil, response
end

local function token_of(context, body, what)
  local token, seconds = body.access_token, tonumber(body.expires_in)
  if type(token) ~= "string" or token == "" then
    return bad(nil, "%s: the token service's answer has no access token", what)
  end
  return context.secret(token), context.clock() + (seconds or LIFETIME)
end

local function post_form(context, address, pairs_list, what)
  return ask(context, {
    method = "POST", url = address, body = context.http.query(pairs_list),
    headers = { ["content-type"] = "application/x-www-form-urlencoded", accept = "application/json" },
  }, what)
end

-- --- kinds of credential files ---

local kinds = {}

local function need(account, fields, where)
  for _, field in ipairs(fields) do
    if type(account[field]) ~= "string" or account[field] == "" then
      return bad(nil, "%s: '%s' is missing", where, field)
    end
  end
  return true
end

--- A signed claim (RFC 7523) for one token.
---@param context table
---@param account table {client_email, private_key, private_key_id, token_uri}
---@return string? jwt
---@return table? err
function google.assertion(context, account)
  local crypto, now = context.crypto, math.floor(context.clock())
  local header = { alg = "RS256", typ = "JWT", kid = account.private_key_id }
  local claims = {
    iss = account.client_email, scope = SCOPE, aud = account.token_uri or TOKEN_URI, iat = now,
    exp = now + LIFETIME,
  }
  local text = crypto.base64url(json.encode(header)) .. "." .. crypto.base64url(json.encode(claims))
  local signature, err = crypto.rs256(context.secret(account.private_key), text)
  if not signature then return nil, err end
  return text .. "." .. crypto.base64url(signature)
end

-- A key of a service account: its signature is exchanged for a token.
kinds.service_account = {
  needs = { "client_email", "private_key" }, urls = { "token_uri" },
  fetch = function(context, account, where)
    local assertion, err = google.assertion(context, account)
    if not assertion then
      return bad("get a new key of the service account", "%s: private_key: %s", where, err.message)
    end
    local body
    body, err = post_form(context, account.token_uri or TOKEN_URI, {
      { "grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer" }, { "assertion", assertion },
    }, where)
    if not body then return nil, err end
    return token_of(context, body, where)
  end,
}

-- What `gcloud auth application-default login` writes: a person's refresh token.
kinds.authorized_user = {
  needs = { "client_id", "client_secret", "refresh_token" }, urls = { "token_uri" },
  fetch = function(context, account, where)
    local body, err = post_form(context, account.token_uri or TOKEN_URI, {
      { "grant_type", "refresh_token" }, { "client_id", account.client_id },
      { "client_secret", reveal(context.secret(account.client_secret)) },
      { "refresh_token", reveal(context.secret(account.refresh_token)) },
    }, where)
    if not body then return nil, err end
    return token_of(context, body, where)
  end,
}

-- Somebody's token, in exchange for one of a service account.
local function impersonate(context, address, delegates, token, where)
  local body, err = ask(context, {
    method = "POST", url = address, body = json.encode {
      scope = json.array { SCOPE }, lifetime = LIFETIME .. "s",
      delegates = delegates and json.array(delegates),
    },
    headers = {
      ["content-type"] = "application/json", authorization = context.secret("Bearer " .. token:reveal()),
    },
  }, where)
  if not body then return nil, err end
  if type(body.accessToken) ~= "string" then
    return bad(nil, "%s: the answer has no token of the service account", where)
  end
  return context.secret(body.accessToken), time.parse(body.expireTime or "") or context.clock() + LIFETIME
end

-- What a source of the other identity provider's tokens says: a file or an address, asked each time. A
-- kubelet swaps the file; a build server has the address.
local function subject_text(context, source, where)
  if source.file then
    local text, err = context.read(source.file)
    if not text then return bad(nil, "%s: subject token: %s", where, err.message) end
    return text
  end
  local headers = {}
  for name, value in pairs(source.headers or {}) do headers[name] = context.secret(tostring(value)) end
  local response, err = send(context, { url = source.url, headers = headers }, where .. ", subject token")
  return response and response.body, err
end

local function subject_token(context, source, where)
  local text, err = subject_text(context, source, where)
  if not text then return nil, err end
  local place = source.file or source.url
  if source.format and source.format.type == "json" then
    local field = source.format.subject_token_field_name or "access_token"
    local found = json.decode(text)
    text = type(found) == "table" and found[field]
    if type(text) ~= "string" then return bad(nil, "%s: %s has no field '%s'", where, place, field) end
  end
  text = text:match("^%s*(.-)%s*$")
  if text == "" then return bad(nil, "%s: %s holds no token", where, place) end
  return context.secret(text)
end

local function check_subject(context, source, where)
  if type(source) == "table" and type(source.file) == "string" then
    context.grant_read(source.file)
    return true
  elseif type(source) == "table" and type(source.url) == "string" and not source.environment_id then
    local host, err = check_url(source.url, "credential_source.url", where)
    if host then context.grant(host) end
    return host and true, err
  end
  return bad("use a configuration whose credential_source is a file or a url",
    "%s: external_account with a token source that is not supported", where)
end

-- Workload identity federation: RFC 8693 at the security token service.
kinds.external_account = {
  needs = { "audience", "subject_token_type", "token_url" },
  urls = { "token_url", "service_account_impersonation_url" },
  check = function(context, account, where)
    return check_subject(context, account.credential_source, where)
  end,
  fetch = function(context, account, where)
    local subject, err = subject_token(context, account.credential_source, where)
    if not subject then return nil, err end
    local impersonated = account.service_account_impersonation_url
    local body
    body, err = post_form(context, account.token_url, {
      { "grant_type", "urn:ietf:params:oauth:grant-type:token-exchange" }, { "audience", account.audience },
      { "scope", impersonated and STS_SCOPE or SCOPE },
      { "requested_token_type", "urn:ietf:params:oauth:token-type:access_token" },
      { "subject_token", reveal(subject) }, { "subject_token_type", account.subject_token_type },
    }, where)
    if not body then return nil, err end
    local token, ends = token_of(context, body, where)
    if not token or not impersonated then return token, ends end
    return impersonate(context, impersonated, nil, token, where)
  end,
}

-- What `gcloud auth application-default login --impersonate-service-account` writes.
kinds.impersonated_service_account = {
  needs = { "service_account_impersonation_url" }, urls = { "service_account_impersonation_url" },
  check = function(context, account, where)
    local ok, err = google.check(context, account.source_credentials, where .. ", source_credentials")
    return ok and true, err
  end,
  fetch = function(context, account, where)
    local inner = account.source_credentials
    local token, err = kinds[inner.type].fetch(context, inner, where)
    if not token then return nil, err end
    return impersonate(context, account.service_account_impersonation_url, account.delegates, token, where)
  end,
}

--- Checks what a credential file holds, and asks for the capabilities that using it takes.
---@param context lunark.google.Context
---@param account any decoded JSON
---@param where string for messages
---@return table? account
---@return table? err
function google.check(context, account, where)
  if type(account) ~= "table" then return bad(nil, "%s: a JSON object of credentials expected", where) end
  local kind = kinds[account.type]
  if not kind then
    return bad("service_account, authorized_user, external_account and impersonated_service_account are",
      "%s: credentials of type '%s' are not supported", where, tostring(account.type))
  end
  local ok, err = need(account, kind.needs, where)
  if ok and kind.check then ok, err = kind.check(context, account, where) end
  if not ok then return nil, err end
  for _, field in ipairs(kind.urls) do
    local address = account[field] or (field == "token_uri" and TOKEN_URI) or nil
    if address then
      local host
      host, err = check_url(address, field, where)
      if not host then return nil, err end
      context.grant(host)
    end
  end
  return account
end

local function parse(context, text, where)
  local account = json.decode(text)
  if account == nil then return bad("a key file in JSON form is expected", "%s is not JSON", where) end
  return google.check(context, account, where)
end

-- A source that looks at its text anew for each token.
local function source_of(context, where, text_of)
  local text, err = text_of()
  if not text then return nil, err end
  local account
  account, err = parse(context, text, where)
  if not account then return nil, err end
  return {
    text = where, quota_project = account.quota_project_id,
    fetch = function()
      local now, wrong = text_of()
      if not now then return nil, wrong end
      local fresh
      fresh, wrong = parse(context, now, where)
      if not fresh then return nil, wrong end
      return kinds[fresh.type].fetch(context, fresh, where)
    end,
  }
end

local function source_of_file(context, path, where)
  context.grant_read(path)
  return source_of(context, where, function()
    local text, err = context.read(path)
    if not text then return bad(nil, "%s: %s", where, err.message) end
    return text
  end)
end

-- --- places ---

--- A token, key or file named by the options.
---@param context lunark.google.Context
function google.from_options(context)
  if context.token then
    return { text = "the option token", fetch = function() return context.token, nil end }
  end
  local given = context.credentials
  if given then
    return source_of(context, "the option credentials", function() return given:reveal() end)
  end
end

--- The file that is named by the options, or mounted beside the job.
---@param context lunark.google.Context
function google.from_mounted(context)
  local path, err = mounted.find(context, context.credentials_file, "google")
  if path then return source_of_file(context, path, path) end
  return nil, err
end

--- A token of `gcloud auth print-access-token`, as it stands or in a file.
---@param context lunark.google.Context
function google.from_token_environment(context)
  for _, name in ipairs { "GOOGLE_OAUTH_ACCESS_TOKEN", "CLOUDSDK_AUTH_ACCESS_TOKEN" } do
    local token = context.env(name)
    if token then
      local held = context.secret(token)
      return { text = name, fetch = function() return held, nil end }
    end
  end
  local name = "CLOUDSDK_AUTH_ACCESS_TOKEN_FILE"
  local path = context.env(name)
  if not path then return nil end
  context.grant_read(path)
  return {
    text = name,
    fetch = function()
      local text, err = context.read(path)
      if not text then return bad(nil, "%s: %s", name, err.message) end
      text = text:match("^%s*(.-)%s*$")
      if text == "" then return bad(nil, "%s: %s holds no token", name, path) end
      return context.secret(text), nil
    end,
  }
end

--- The file that GOOGLE_APPLICATION_CREDENTIALS names.
---@param context lunark.google.Context
function google.from_application_credentials(context)
  local path = context.env("GOOGLE_APPLICATION_CREDENTIALS")
  if path then return source_of_file(context, path, "GOOGLE_APPLICATION_CREDENTIALS") end
end

--- The file of `gcloud auth application-default login`.
---@param context lunark.google.Context
function google.from_gcloud(context)
  local dir, home = context.env("CLOUDSDK_CONFIG"), context.env("HOME")
  dir = dir or home and home .. "/.config/gcloud"
  if not dir then return nil end
  local path = dir .. "/application_default_credentials.json"
  local _, err = context.read(path)
  if err and (err.kind == "not_found" or err.kind == "denied") then return nil end
  return source_of_file(context, path, path)
end

local NONE = "set GOOGLE_APPLICATION_CREDENTIALS to a key file, or run where a service account is attached"

--- The service account of the machine, of the GKE pod: https://cloud.google.com/compute/docs/metadata
--- Never through a proxy.
---@param context lunark.google.Context
function google.from_metadata(context)
  local host = context.env("GCE_METADATA_HOST") or context.env("GCE_METADATA_IP") or METADATA
  if context.env("NO_GCE_CHECK") == "true" then return nil end
  context.grant(host)
  local met, tries = false, 0
  local where = "the metadata server at " .. host
  local function fetch()
    local body, err, response = ask(context, {
      url = ("http://%s%s"):format(host, TOKEN_PATH), headers = { ["metadata-flavor"] = "Google" },
      proxy = "none", connect_timeout = 3, idle_timeout = 20,
    }, where)
    if not body and not met and (err.kind == "network" or err.kind == "timeout") and not err.status then
      local _, none = bad(NONE,
        "there are no Google credentials: none in options, environment and files, and %s", err.message)
      -- In a pod's first seconds its server may not listen yet.
      tries = tries + 1
      none.retryable = err.kind == "network" and tries < 5
      return nil, none
    elseif not body and err.status == 404 then
      return bad("attach a service account to the machine or the pod", "%s knows no service account", where)
    elseif not body and not met and err.kind == "auth" then
      -- Google's gives a token to all that ask as it wants to be asked: this one is another's.
      return bad(NONE, "there are no Google credentials: none in options, environment and files, and %s",
        err.message)
    elseif not body then
      return nil, err
    end
    if response.headers["metadata-flavor"] ~= "Google" then
      return bad(NONE, "%s is none of Google's", where)
    end
    met = true
    return token_of(context, body, where)
  end
  return { text = where, fetch = fetch }
end

--- The places in their order. A script that knows another one inserts it.
google.chain = {
  google.from_options, google.from_mounted, google.from_token_environment,
  google.from_application_credentials, google.from_gcloud, google.from_metadata,
}

--- Asks the chain. Nothing is sent yet.
---@param context lunark.google.Context
---@return lunark.google.Source?
---@return table? err kind auth
function google.find(context)
  for _, place in ipairs(google.chain) do
    local found, err = place(context)
    if found then return found end
    if err then return nil, err end
  end
  return bad(NONE, "there are no Google credentials")
end

---@class lunark.google.Credentials
---@field source string where they are from
---@field quota_project string?
local Credentials = {}
Credentials.__index = Credentials

--- The value of the Authorization header. Parks while a token is fetched.
---@return lunark.secret?
---@return table? err
function Credentials:header() return self.tokens:get() end

--- A request with this header went well, or was refused (401). The latter is true when it may go
--- well with a new token.
function Credentials:worked(header) self.tokens:worked(header) end
function Credentials:refused(header) return self.tokens:refused(header) end

--- No credentials: public buckets, emulators.
google.anonymous = {
  header = function() return nil end, worked = function() end, refused = function() return false end,
}

--- Credentials that renew themselves.
---@param context lunark.google.Context
---@return lunark.google.Credentials?
---@return table? err
function google.open(context)
  local source, err = google.find(context)
  if not source then return nil, err end
  local before, header
  local tokens = renewal.new(function()
    local token, ends = source.fetch()
    if not token then return nil, ends end
    -- The same token keeps its header, which is what may be asked about later.
    if not before or token:reveal() ~= before:reveal() then
      before, header = token, context.secret("Bearer " .. token:reveal())
    end
    return header, ends
  end, { clock = context.clock, log = context.log, what = "the access token of " .. source.text })
  return setmetatable({
    source = source.text, quota_project = source.quota_project, tokens = tokens,
  }, Credentials)
end

return google
