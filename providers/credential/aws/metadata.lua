-- SPDX-License-Identifier: MIT
--- Credentials that a machine hands out: to containers (ECS, EKS Pod Identity) and to instances (EC2,
--- metadata service v2). None of these requests ever goes through a proxy.
--- https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html
--- https://docs.aws.amazon.com/sdkref/latest/guide/feature-imds-credentials.html

local json = require "lunark.json"
local sys = require "lunark.core.sys"
local time = require "lunark.time"

local metadata = {}

local CONTAINER = "http://169.254.170.2" -- where AWS_CONTAINER_CREDENTIALS_RELATIVE_URI is
local INSTANCE = { ipv4 = "http://169.254.169.254", ipv6 = "http://[fd00:ec2::254]" }
local TOKEN_SECONDS = "21600"
local PATIENCE = 1 -- seconds: the service is on this machine, or it is not there
local ATTEMPTS = 3
local EXTENSION = 600 -- seconds that an instance goes on with credentials whose time is up

-- Hosts to which a token is sent without TLS.
local PLAIN = {
  localhost = true, ["[::1]"] = true, ["169.254.170.2"] = true, ["169.254.170.23"] = true,
  ["[fd00:ec2::23]"] = true,
}

local function failed(more)
  more.op = "credentials"
  return nil, sys.error(more)
end

local function ask(context, request)
  request.proxy, request.max = "none", 64 * 1024
  return context.http.request(request)
end

-- What a service says when it gives nothing, in one line.
local function reason(response)
  local body = json.decode(response.body or "")
  local words = type(body) == "table" and (body.message or body.Message or body.code or body.Code)
  if type(words) ~= "string" then words = (response.body or ""):match("^%s*([^<%c][^%c]*)") end
  return ("HTTP status %d%s"):format(response.status, words and ": " .. words:sub(1, 200) or "")
end

-- The credentials in an answer, and the time they end at.
local function read_answer(context, response, what)
  local body = json.decode(response.body)
  if type(body) ~= "table" then
    return failed { kind = "network", retryable = true, message = what .. ": the answer is no JSON" }
  end
  local id, secret, token = body.AccessKeyId, body.SecretAccessKey, body.Token
  if type(id) ~= "string" or type(secret) ~= "string" or (body.Code and body.Code ~= "Success") then
    return failed {
      kind = "auth", message = ("%s: no credentials in the answer: %s"):format(what, reason(response)),
    }
  end
  local ends = type(body.Expiration) == "string" and time.parse(body.Expiration) or nil
  return {
    access_key_id = id, secret_access_key = context.secret(secret),
    session_token = type(token) == "string" and token ~= "" and context.secret(token) or nil,
  }, ends
end

-- --- containers ---

local function may_be_plain(host)
  local name = host:lower():gsub(":%d+$", "")
  return PLAIN[name] or name:find("^127%.%d+%.%d+%.%d+$") ~= nil
end

-- Address of the service: url, host; or nil, err; nil when none is named.
local function container_url(context)
  local relative, full = context.env("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
    context.env("AWS_CONTAINER_CREDENTIALS_FULL_URI")
  if relative then return CONTAINER .. relative:gsub("^/*", "/"), "169.254.170.2" end
  if not full then return nil end
  local scheme, host = full:match("^(https?)://([^/?#]+)")
  if not scheme then
    return failed {
      kind = "auth", message = ("AWS_CONTAINER_CREDENTIALS_FULL_URI '%s' is no URL"):format(full),
    }
  end
  if scheme == "http" and not may_be_plain(host) then
    return failed {
      kind = "auth", hint = "use https, or a service on this machine",
      message = ("AWS_CONTAINER_CREDENTIALS_FULL_URI: credentials of %s can't be had over http"):format(host),
    }
  end
  return full, host
end

-- What the service is asked with; a file is read each time.
local function authorization(context)
  local path = context.env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")
  local token, from = context.env("AWS_CONTAINER_AUTHORIZATION_TOKEN"), "AWS_CONTAINER_AUTHORIZATION_TOKEN"
  if path then
    local err
    token, err = context.read(path)
    from = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"
    if not token then
      return failed { kind = "auth", message = ("%s: %s"):format(from, err.message), cause = err }
    end
  end
  if not token then return nil end
  token = token:gsub("[\r\n]+$", "")
  if token:find("[%c]") then return failed { kind = "auth", message = from .. " has more than one line" } end
  return context.secret(token)
end

--- Credentials of a container, where the environment names a service for that.
---@param context lunark.aws.Context
---@return lunark.aws.Source?
---@return table? err
function metadata.from_container(context)
  local url, host = container_url(context)
  if not url then return nil, host end
  local what = "container credentials of " .. host
  context.grant(host)
  local file = context.env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")
  if file then context.grant_read(file) end
  return { text = what, fetch = function()
    local token, err = authorization(context)
    if err then return nil, err end
    local response
    response, err = ask(context, {
      url = url, headers = { accept = "application/json", authorization = token },
      connect_timeout = 2, timeout = 10, ca_file = context.ca_file,
    })
    if not response then
      err.message = ("%s: %s"):format(what, err.message)
      return nil, err
    end
    if response.status ~= 200 then
      local busy = response.status >= 500 or response.status == 429
      return failed {
        kind = busy and "network" or "auth", retryable = busy, status = response.status,
        message = ("%s: %s"):format(what, reason(response)),
        hint = not busy and "check the role of the task or of the pod, and the authorization token" or nil,
      }
    end
    return read_answer(context, response, what)
  end }
end

-- --- instances ---

local function instance_url(context)
  local given = context.env("AWS_EC2_METADATA_SERVICE_ENDPOINT")
    or context.settings.ec2_metadata_service_endpoint
  if given then return (given:gsub("/+$", "")) end
  local mode = context.env("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE")
    or context.settings.ec2_metadata_service_endpoint_mode or "ipv4"
  return INSTANCE[mode:lower()] or INSTANCE.ipv4
end

-- A few attempts: whoever has no other credentials waits for this one.
local function ask_instance(context, url, request)
  local response, err
  for _ = 1, ATTEMPTS do
    response, err = ask(context, {
      url = url .. request.path, method = request.method, headers = request.headers,
      connect_timeout = PATIENCE, timeout = PATIENCE,
    })
    if response and response.status < 500 and response.status ~= 429 then return response end
    if err and err.kind ~= "timeout" and err.kind ~= "network" then break end
  end
  return response, err
end

-- One step; the body, or nil and why not.
local function step(context, url, request)
  local response, err = ask_instance(context, url, request)
  if not response then
    local hint = err.kind == "timeout" and request.method == "PUT"
      and "in a container the instance's hop limit for metadata must be 2" or nil
    return nil, err.message, hint, true
  end
  if response.status == 200 then return response end
  local busy = response.status >= 500 or response.status == 429
  if response.status == 404 and request.role then return nil, "the instance has no role", nil, false end
  return nil, reason(response), nil, busy
end

local function fetch_instance(context, url, what)
  local response, why, hint, again = step(context, url, {
    path = "/latest/api/token", method = "PUT",
    headers = { ["x-aws-ec2-metadata-token-ttl-seconds"] = TOKEN_SECONDS },
  })
  local base, headers = "/latest/meta-data/iam/security-credentials/", nil
  if response then
    headers = { ["x-aws-ec2-metadata-token"] = context.secret((response.body:gsub("%s+$", ""))) }
    response, why, hint, again = step(context, url, { path = base, headers = headers, role = true })
  end
  if response then
    local role = response.body:match("[^\r\n]+")
    if role and role:find("^[%w+=,.@_-]+$") then
      response, why, hint, again = step(context, url, { path = base .. role, headers = headers, role = true })
    else
      response, why, again = nil, "the instance has no role", false
    end
  end
  if response then return read_answer(context, response, what) end
  return nil, why, hint, again
end

--- Credentials of the instance's role. The last place: whether the service is there shows when it is
--- asked.
---@param context lunark.aws.Context
---@return lunark.aws.Source?
function metadata.from_instance(context)
  if (context.env("AWS_EC2_METADATA_DISABLED") or ""):lower() == "true" then return nil end
  local url = instance_url(context)
  local host = url:match("^https?://([^/?#]+)")
  if not host then
    return failed {
      kind = "auth", message = ("AWS_EC2_METADATA_SERVICE_ENDPOINT '%s' is no URL"):format(url),
    }
  end
  context.grant(host)
  local what, seen = "the instance's role, by " .. host, false
  return { text = what, fetch = function()
    local found, ends, hint, again = fetch_instance(context, url, what)
    if found then
      seen = true
      local now = context.clock()
      if ends and ends <= now then
        context.log.warn(("%s: the credentials ended at %s and are used all the same"):format(what,
          time.rfc3339(ends)))
        ends = now + EXTENSION
      end
      return found, ends
    elseif sys.is_error(ends) then
      return nil, ends
    elseif seen then
      return failed {
        kind = again and "network" or "auth", retryable = again, hint = hint,
        message = ("%s: %s"):format(what, ends),
      }
    end
    return failed {
      kind = "auth", message = ("there are no AWS credentials; %s: %s"):format(what, ends),
      hint = hint or context.hint,
    }
  end }
end

return metadata
