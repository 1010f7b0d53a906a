-- SPDX-License-Identifier: MIT
--- Tokens of Microsoft Entra ID: by client secret, by workload identity (a file that Kubernetes keeps
--- fresh), by the managed identity of a machine, an App Service or an Arc server. Files are read again at
--- each renewal. Metadata endpoints are never asked through a proxy.
--- https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow
--- https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token
--- https://learn.microsoft.com/azure/app-service/overview-managed-identity
--- https://learn.microsoft.com/azure/azure-arc/servers/managed-identity-authentication

local json = require "lunark.json"
local renewal = require "providers.credential.renewal"
local sys = require "lunark.core.sys"
local time = require "lunark.time"

local entra = {}

local RESOURCE = "https://storage.azure.com" -- the audience, in every cloud
local AUTHORITY = "https://login.microsoftonline.com"
local AUTHORITIES = {
  ["core.usgovcloudapi.net"] = "https://login.microsoftonline.us",
  ["core.chinacloudapi.cn"] = "https://login.chinacloudapi.cn",
}
local METADATA = "http://169.254.169.254"
local ARC_KEYS = "/var/opt/azcmagent/tokens"

local function bad(hint, format, ...)
  return nil, sys.error { kind = "auth", op = "credentials", message = format:format(...), hint = hint }
end

-- --- a token and its life ---

-- Seconds that an answer's token lasts: endpoints say it in one of three ways.
local function seconds_left(answer, now)
  local left = tonumber(answer.expires_in)
  if not left and answer.expires_on then
    local ends = tonumber(answer.expires_on) or (time.parse(tostring(answer.expires_on)))
    left = ends and ends - now
  end
  return left or 3600
end

-- source: words; fetch() -> answer of the endpoint, or nil, err. Credentials as the chain wants them.
local function new_token(context, source, fetch)
  local tokens = renewal.new(function()
    local answer, err = fetch()
    if not answer then return nil, err end
    local now = context.clock()
    local left = seconds_left(answer, now)
    context.log.debug(("azure: a token from %s, good for %.0f s"):format(source, left))
    return { token = context.secret("Bearer " .. answer.access_token) }, now + left
  end, { clock = context.clock, log = context.log, what = "the token from " .. source })
  tokens.source, tokens.renews = source, true
  return tokens
end

-- --- asking ---

-- The authority says more than one needs: codes, traces, times.
local function reason_of(response)
  local answer = response.body and response.body:find("^%s*{") and json.decode(response.body)
  if type(answer) ~= "table" then return ("it answers %d"):format(response.status) end
  local text = answer.error_description or answer.message or answer.error
  if type(text) ~= "string" then return ("it answers %d"):format(response.status) end
  text = text:match("^[^\r\n]*"):gsub("%s*Trace ID:.*$", ""):gsub("%.%s*$", "")
  return text
end

-- Sends a request for a token. what: words for messages; again: statuses that pass.
local function ask(context, what, request, again, hint)
  request.timeout, request.ca_file = 30, context.options.ca_file
  local response, err = context.http.request(request)
  if not response then return nil, err end
  local status = response.status
  if status == 200 then
    local answer = json.decode(response.body or "", what)
    if type(answer) ~= "table" or type(answer.access_token) ~= "string" or answer.access_token == "" then
      return bad(nil, "%s: the answer has no token", what)
    end
    return answer
  end
  local passing = again[status] or status == 429 or status >= 500
  err = sys.error {
    kind = status == 429 and "throttled" or status >= 500 and "network" or "auth", op = "credentials",
    status = status, retryable = passing, hint = hint, request_id = response.request_id,
    message = ("%s: %s"):format(what, reason_of(response)),
  }
  -- 410: the endpoint is being replaced, which takes a minute.
  err.retry_after = tonumber(response.headers["retry-after"]) or (status == 410 and 3) or nil
  return nil, err, response
end

local function form(context, pairs_list)
  local lines = {}
  for index, pair in ipairs(pairs_list) do lines[index] = pair[1] .. "=" .. context.http.escape(pair[2]) end
  return context.secret(table.concat(lines, "&"))
end

local function authority_of(context)
  local text = context.env("AZURE_AUTHORITY_HOST") or AUTHORITIES[context.suffix] or AUTHORITY
  if not text:find("://", 1, true) then text = "https://" .. text end
  local scheme, host = text:match("^(https?)://([^/?#]+)/*$")
  if not scheme or (scheme == "http" and not entra.is_loopback(host)) then
    return bad(nil, "AZURE_AUTHORITY_HOST '%s': https://host expected", text)
  end
  context.grant(host)
  return scheme .. "://" .. host
end

--- True for this machine, where nobody listens on the way.
---@param host string with or without a port
---@return boolean
function entra.is_loopback(host)
  local name = host:gsub(":%d+$", "")
  return name == "localhost" or name == "[::1]" or name:find("^127%.%d+%.%d+%.%d+$") ~= nil
end

-- A client's token from the authority; proof() gives the pairs that show who it is.
local function from_authority(context, tenant, client, source, proof)
  if not tenant:find("^[%w.-]+$") then
    return bad(nil, "AZURE_TENANT_ID '%s': an id or a domain expected", tenant)
  end
  local authority, err = authority_of(context)
  if not authority then return nil, err end
  return new_token(context, source, function()
    local pairs_list, why = proof()
    if not pairs_list then return nil, why end
    table.move({
      { "client_id", client }, { "scope", RESOURCE .. "/.default" }, { "grant_type", "client_credentials" },
    }, 1, 3, #pairs_list + 1, pairs_list)
    return ask(context, "Entra ID refuses " .. source, {
      method = "POST", url = ("%s/%s/oauth2/v2.0/token"):format(authority, tenant),
      headers = { ["content-type"] = "application/x-www-form-urlencoded" }, body = form(context, pairs_list),
    }, {}, "check AZURE_TENANT_ID, AZURE_CLIENT_ID and the credentials that are registered for them")
  end)
end

-- What stands in a file or variable, kept out of messages from now on.
local function secret_text(context, text)
  text = text:match("^%s*(.-)%s*$")
  if text ~= "" then context.secret(text) end
  return text
end

local function identity(context)
  local options = context.options
  local tenant = options.tenant_id or context.env("AZURE_TENANT_ID")
  return tenant, options.client_id or context.env("AZURE_CLIENT_ID")
end

local function missing(given, tenant, client)
  local lacks = not tenant and "AZURE_TENANT_ID" or not client and "AZURE_CLIENT_ID"
  return lacks and ("%s is set and %s is not"):format(given, lacks) or nil
end

-- --- the places ---

--- An application's secret.
---@param context lunark.azure.Context
function entra.client_secret(context)
  local path = context.env("AZURE_CLIENT_SECRET_FILE")
  local given = context.options.client_secret or context.env("AZURE_CLIENT_SECRET")
  if not given and not path then return nil end
  local tenant, client = identity(context)
  local wrong = missing(given and "AZURE_CLIENT_SECRET" or "AZURE_CLIENT_SECRET_FILE", tenant, client)
  if wrong then return bad(nil, "%s", wrong) end
  if not given then context.grant_read(path) end
  return from_authority(context, tenant, client, "the client secret of " .. client, function()
    local text, err = given, nil
    if not text then text, err = context.read(path) end
    if not text then return bad(nil, "AZURE_CLIENT_SECRET_FILE: %s", err.message) end
    if type(text) ~= "string" then text = text:reveal() end
    return { { "client_secret", secret_text(context, text) } }
  end)
end

--- A pod's token, which the authority takes for the application's.
---@param context lunark.azure.Context
function entra.workload(context)
  local path = context.env("AZURE_FEDERATED_TOKEN_FILE")
  if not path then return nil end
  local tenant, client = identity(context)
  local wrong = missing("AZURE_FEDERATED_TOKEN_FILE", tenant, client)
  if wrong then return bad("is the pod labelled azure.workload.identity/use: \"true\"?", "%s", wrong) end
  context.grant_read(path)
  return from_authority(context, tenant, client, "the workload identity " .. client, function()
    local text, err = context.read(path)
    if not text then return bad(nil, "AZURE_FEDERATED_TOKEN_FILE: %s", err.message) end
    return {
      { "client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" },
      { "client_assertion", secret_text(context, text) },
    }
  end)
end

local function parse_endpoint(context, text, name)
  local host = text:match("^https?://([^/?#]+)")
  if not host then return bad(nil, "%s '%s': http://host/path expected", name, text) end
  context.grant(host)
  return text
end

local function identity_query(version, client)
  local query = { { "api-version", version }, { "resource", RESOURCE .. "/" } }
  if client then query[3] = { "client_id", client } end
  return query
end

-- The server proves that the caller may read its file: a first answer names it, a second request quotes it.
local function from_arc(context, endpoint)
  context.grant_read(ARC_KEYS)
  return new_token(context, "the Arc server's identity", function()
    local request = {
      url = endpoint, query = identity_query("2020-06-01"), headers = { metadata = "true" }, proxy = "none",
    }
    local what = "the Arc server's identity"
    local answer, err, response = ask(context, what, request, {})
    if answer or not response or response.status ~= 401 then return answer, err end
    local path = (response.headers["www-authenticate"] or ""):match("^[Bb]asic realm=\"?([^\"]+)\"?%s*$")
    if not path or path:match("^(.*)/[%w_-]+%.key$") ~= ARC_KEYS then
      return bad(nil, "%s: it names no key in %s", what, ARC_KEYS)
    end
    local key
    key, err = context.read(path)
    if not key then return bad("add this user to the group himds", "%s: %s", what, err.message) end
    request.headers.authorization = context.secret("Basic " .. key)
    answer, err = ask(context, what, request, {})
    return answer, err
  end)
end

local function from_app_service(context, endpoint, header, client)
  local secret = context.secret(header)
  return new_token(context, "the managed identity of the App Service", function()
    return ask(context, "the managed identity of the App Service", {
      url = endpoint, query = identity_query("2019-08-01", client), proxy = "none",
      headers = { ["x-identity-header"] = secret },
    }, {}, "assign an identity, or set AZURE_CLIENT_ID to one that is assigned")
  end)
end

local function from_machine(context, client)
  local base = (context.env("AZURE_POD_IDENTITY_AUTHORITY_HOST") or METADATA):gsub("/+$", "")
  local ok, err = parse_endpoint(context, base, "AZURE_POD_IDENTITY_AUTHORITY_HOST")
  if not ok then return nil, err end
  local answered = false
  return new_token(context, "the machine's managed identity", function()
    local answer, why = ask(context, "the machine's managed identity", {
      url = base .. "/metadata/identity/oauth2/token", query = identity_query("2018-02-01", client),
      headers = { metadata = "true" }, proxy = "none", connect_timeout = 3,
    }, { [404] = true, [410] = true }, "assign an identity, or set AZURE_CLIENT_ID to one that is assigned")
    answered = answered or answer ~= nil or why.status ~= nil
    if answered or (why.kind ~= "network" and why.kind ~= "timeout") then return answer, why end
    -- Nothing is there: this is no machine of Azure.
    return bad(context.hint, "there are no Azure credentials, and no managed identity: %s", why.message)
  end)
end

--- The identity of where we run.
---@param context lunark.azure.Context
function entra.managed(context)
  local _, client = identity(context)
  local endpoint, header = context.env("IDENTITY_ENDPOINT"), context.env("IDENTITY_HEADER")
  if not endpoint then return from_machine(context, client) end
  local ok, err = parse_endpoint(context, endpoint, "IDENTITY_ENDPOINT")
  if not ok then return nil, err end
  if header then return from_app_service(context, endpoint, header, client) end
  if context.env("IMDS_ENDPOINT") then return from_arc(context, endpoint) end
  return bad(nil, "IDENTITY_ENDPOINT is set and neither IDENTITY_HEADER nor IMDS_ENDPOINT is")
end

return entra
