-- SPDX-License-Identifier: MIT
--- Session credentials from the Security Token Service (or a store that has one): AssumeRole and
--- AssumeRoleWithWebIdentity. Each call is one request.
--- https://docs.aws.amazon.com/STS/latest/APIReference/

local sigv4 = require "providers.sign.sigv4"
local sys = require "lunark.core.sys"
local time = require "lunark.time"
local xml = require "lunark.xml"

local sts = {}

local VERSION = "2011-06-15"

-- code -> kind, retryable, hint
local CODES = {
  AccessDenied = { "auth", false, "check the trust policy of the role and who may assume it" },
  ExpiredTokenException = { "auth", false, "the token has expired: whoever writes its file must renew it" },
  IDPCommunicationError = { "network", true },
  InvalidIdentityToken = { "auth", false, "check the identity provider in IAM, and the token's audience" },
  IDPRejectedClaim = { "auth", false, "check the role's trust policy: issuer, audience and subject" },
  RegionDisabledException = { "auth", false, "activate STS in this region, or give another one: ?region=" },
  RequestLimitExceeded = { "throttled", true },
  Throttling = { "throttled", true },
  ThrottlingException = { "throttled", true },
}

--- Where the service is.
---@param context lunark.aws.Context
---@return string url without a slash at its end
function sts.endpoint(context)
  local given = context.env("AWS_ENDPOINT_URL_STS") or context.env("AWS_ENDPOINT_URL") or context.sts_endpoint
  if given then return (given:gsub("/+$", "")) end
  local domain = context.region:find("^cn%-") and "amazonaws.com.cn" or "amazonaws.com"
  return ("https://sts.%s.%s"):format(context.region, domain)
end

--- Asks for the network capability, while there is time for that.
---@param context lunark.aws.Context
---@return true?
---@return table? err kind usage
function sts.prepare(context)
  local host = sts.endpoint(context):match("^https?://([^/?#]+)")
  if not host then
    return nil, sys.error {
      kind = "usage", op = "credentials",
      message = ("endpoint '%s' of STS: https://host[:port] expected"):format(sts.endpoint(context)),
    }
  end
  context.grant(host)
  return true
end

-- Seconds that the service's clock is ahead, where it refuses a signature for its age.
local function skew_of(response, words, now)
  if not words:find("Signature expired", 1, true) and not words:find("not yet current", 1, true) then
    return nil
  end
  local theirs = time.parse_http(response.headers["date"])
  return theirs and theirs - now
end

local function refusal(context, response, what)
  local root = (response.body or ""):find("^%s*<") and xml.parse(response.body)
  local outer = root and (root:child("Errors") or root)
  local found = outer and (outer:child("Error") or outer)
  local code, words = found and found:value("Code") or "", found and found:value("Message") or ""
  local status = response.status
  local known = CODES[code]
  if not known then
    local busy = status >= 500 or status == 408 or status == 429
    local throttled = status == 429 or status == 503
    known = { throttled and "throttled" or busy and "network" or "auth", busy }
  end
  local shown = words ~= "" and words:gsub("%.%s*$", "") or ("HTTP status %d"):format(status)
  local err = sys.error {
    kind = known[1], op = "credentials", status = status, code = code ~= "" and code or nil,
    retryable = known[2], request_id = response.request_id,
    message = ("%s: %s%s"):format(what, shown, code ~= "" and " (" .. code .. ")" or ""),
    hint = known[3] or known[1] == "auth" and "STS refuses to give credentials for this role" or nil,
  }
  err.retry_after = tonumber(response.headers["retry-after"])
  err.skew = skew_of(response, words, context.clock())
  return nil, err
end

-- Signs a request for STS with the credentials that a role is assumed by.
local function signer(context, credentials, body)
  return function(req)
    local signed = { host = req.host, ["content-type"] = req.headers["content-type"] }
    req.headers["authorization"] = sigv4.sign({
      method = req.method, path = req.path, query = req.query, headers = signed,
      payload_hash = context.crypto.hex(context.crypto.digest("sha256", body)),
    }, credentials, { time = context.clock(), region = context.region, service = "sts", normalize = true })
    req.headers["x-amz-date"] = signed["x-amz-date"]
    req.headers["x-amz-security-token"] = signed["x-amz-security-token"]
    return true
  end
end

local function read_answer(context, response, action, what)
  local root, err = xml.parse(response.body, what)
  local result = root and root:child(action .. "Result")
  local found = result and result:child("Credentials")
  local id, secret = found and found:value("AccessKeyId"), found and found:value("SecretAccessKey")
  local token = found and found:value("SessionToken")
  local ends = found and time.parse(found:value("Expiration") or "")
  if not id or not secret or not token or not ends then
    return nil, sys.error {
      kind = "network", op = "credentials", retryable = true, cause = err,
      message = what .. ": the answer of STS has no credentials",
    }
  end
  return {
    access_key_id = id, secret_access_key = context.secret(secret),
    session_token = context.secret(token),
  }, ends
end

-- One call. parameters is a list of {name, value}.
local function call(context, action, parameters, credentials, what)
  local list = { { "Action", action }, { "Version", VERSION } }
  for _, pair in ipairs(parameters) do
    if pair[2] then list[#list + 1] = pair end
  end
  local body = context.http.query(list)
  local response, err = context.http.request {
    method = "POST", url = sts.endpoint(context) .. "/", body = body, ca_file = context.ca_file,
    idle_timeout = 30,
    headers = { ["content-type"] = "application/x-www-form-urlencoded; charset=utf-8" },
    sign = credentials and signer(context, credentials, body) or nil,
  }
  if not response then
    err.message = ("%s: %s"):format(what, err.message)
    return nil, err
  end
  if response.status ~= 200 then return refusal(context, response, what) end
  return read_answer(context, response, action, what)
end

-- Shows up in the account's audit trail.
local function session_name(context, given)
  return given or ("lunark-%d"):format(math.floor(context.clock()))
end

--- A role, assumed with other credentials.
---@param context lunark.aws.Context
---@param role table {arn, session_name, external_id, duration, what}
---@param credentials lunark.aws.Credentials
---@return lunark.aws.Credentials?
---@return number|table|nil ends the time they end at, or err
function sts.assume_role(context, role, credentials)
  return call(context, "AssumeRole", {
    { "RoleArn", role.arn }, { "RoleSessionName", session_name(context, role.session_name) },
    { "DurationSeconds", role.duration }, { "ExternalId", role.external_id },
  }, credentials, role.what)
end

--- A role, assumed with a token of somebody that the account trusts. Its file is read each time.
---@param context lunark.aws.Context
---@param role table {arn, session_name, token_file, duration, what}
---@return lunark.aws.Credentials?
---@return number|table|nil ends, or err
function sts.assume_role_with_web_identity(context, role)
  local token, err = context.read(role.token_file)
  token = token and token:gsub("%s+$", "")
  if not token or token == "" then
    return nil, sys.error {
      kind = "auth", op = "credentials", cause = err,
      message = ("%s: no token: %s"):format(role.what, err and err.message or role.token_file .. " is empty"),
      hint = "AWS_WEB_IDENTITY_TOKEN_FILE, or web_identity_token_file of the profile, names the token's file",
    }
  end
  context.secret(token) -- never in a log
  return call(context, "AssumeRoleWithWebIdentity", {
    { "RoleArn", role.arn }, { "RoleSessionName", session_name(context, role.session_name) },
    { "DurationSeconds", role.duration }, { "WebIdentityToken", token },
  }, nil, role.what)
end

return sts
