-- SPDX-License-Identifier: MIT
--- AWS credentials: a chain of places to look in, in the order of the AWS tools. A place gives a
--- source of credentials, nothing (the next one is asked), or an error (the chain ends: what is there
--- but broken must be said). A source is asked again before its credentials end, and reads its files
--- again then. Needs what the provider hands in.

local files = require "providers.credential.aws.files"
local metadata = require "providers.credential.aws.metadata"
local sts = require "providers.credential.aws.sts"
local sys = require "lunark.core.sys"

local aws = {}

---@class lunark.aws.Credentials
---@field access_key_id string
---@field secret_access_key lunark.secret
---@field session_token lunark.secret?

---@class lunark.aws.Source
---@field text string where they are from, for messages
---@field fetch fun(): lunark.aws.Credentials?, number|table|nil credentials and the time they end at
---  (nil: they don't), or nil, err

---@class lunark.aws.Context
---@field env fun(name: string): string?
---@field read fun(path: string): string?, table? a small file
---@field secret fun(text: string): lunark.secret
---@field clock fun(): number
---@field http table lunark.http
---@field crypto table lunark.crypto
---@field log table
---@field grant fun(host: string) asks for the network capability
---@field grant_read fun(path: string)
---@field region string of STS
---@field ca_file string?
---@field profile string? chosen by name; then the environment's keys don't count
---@field mounted string? file that is mounted beside the job
---@field settings table of the profile, see files.profile
---@field sts_endpoint string? from the profile
---@field hint string what to do when there is nothing

local HINT = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or write them to ~/.aws/credentials"

local function bad(hint, format, ...)
  return nil, sys.error { kind = "auth", op = "credentials", message = format:format(...), hint = hint }
end

-- A source of a pair of keys that stands somewhere, found again by each read(): id, secret, token; or
-- nil, nil, err. Nothing when there is none now. names: of both, for the message `lacking`.
local function pair(context, text, names, lacking, read)
  local function fetch()
    local id, secret, token = read()
    if not id and not secret then return nil, token end
    if not id or not secret then
      return bad(nil, lacking, id and names[1] or names[2], id and names[2] or names[1])
    end
    return {
      access_key_id = id, secret_access_key = context.secret(secret),
      session_token = token and context.secret(token),
    }
  end
  local found, err = fetch()
  if not found then return nil, err end
  return { text = text, fetch = function()
    found, err = fetch()
    if found or err then return found, err end
    return bad(nil, "%s: the keys are gone", text)
  end }
end

--- Keys in the environment.
---@param context lunark.aws.Context
function aws.from_environment(context)
  if context.profile then return nil end
  local names = { "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY" }
  return pair(context, "the environment", names, "%s is set and %s is not", function()
    return context.env(names[1]), context.env(names[2]), context.env("AWS_SESSION_TOKEN")
  end)
end

local function web_identity(context, role)
  local ok, err = sts.prepare(context)
  if not ok then return nil, err end
  context.grant_read(role.token_file)
  return { text = role.what, fetch = function() return sts.assume_role_with_web_identity(context, role) end }
end

--- A token of a pod's service account (IRSA) or of another identity provider.
---@param context lunark.aws.Context
function aws.from_web_identity(context)
  if context.profile then return nil end
  local file, arn = context.env("AWS_WEB_IDENTITY_TOKEN_FILE"), context.env("AWS_ROLE_ARN")
  if not file then return nil end
  if not arn then return bad(nil, "AWS_WEB_IDENTITY_TOKEN_FILE is set and AWS_ROLE_ARN is not") end
  return web_identity(context, {
    arn = arn, token_file = file, session_name = context.env("AWS_ROLE_SESSION_NAME"), what = "role " .. arn,
  })
end

-- --- profiles ---

-- Keys of a profile. The files are read each time.
local function keys_of_profile(context, name)
  local text = ("%sAWS profile '%s'"):format(context.mounted and context.mounted .. ", " or "", name)
  local lacking = text:gsub("%%", "%%%%") .. " has %s and no %s"
  return pair(context, text, { "aws_access_key_id", "aws_secret_access_key" }, lacking, function()
    local sections, err = files.load(context)
    local settings = sections and sections[name] or {}
    return settings.aws_access_key_id, settings.aws_secret_access_key, settings.aws_session_token or err
  end)
end

local SOURCES = {
  Environment = aws.from_environment, EcsContainer = metadata.from_container,
  Ec2InstanceMetadata = metadata.from_instance,
}

local source_of_profile

-- What a role is assumed by: keys of another profile, or of a place that is named.
local function base_of_role(context, settings, sections, name, seen)
  local other, place = settings.source_profile, settings.credential_source
  if other and place then
    return bad(nil, "AWS profile '%s' has both source_profile and credential_source", name)
  end
  if place then
    if not SOURCES[place] then
      return bad("Environment, EcsContainer or Ec2InstanceMetadata",
        "AWS profile '%s': credential_source is '%s'", name, place)
    end
    local found, err = SOURCES[place](setmetatable({ profile = false }, { __index = context }))
    if found or err then return found, err end
    return bad(nil, "AWS profile '%s': there are no credentials in %s", name, place)
  end
  if not other then
    return bad("give source_profile, credential_source or web_identity_token_file",
      "AWS profile '%s' has role_arn and nothing to assume the role by", name)
  end
  if not sections[other] then
    return bad(nil, "AWS profile '%s': there is no source_profile '%s'", name, other)
  end
  local found, err = keys_of_profile(context, other)
  if found or err then return found, err end
  if seen[other] then
    return bad(nil, "AWS profile '%s': source_profile '%s' has no keys and leads back to it", name, other)
  end
  found, err = source_of_profile(context, other, sections, seen)
  if found or err then return found, err end
  return bad(nil, "AWS profile '%s': source_profile '%s' has no credentials", name, other)
end

local function role_of_profile(context, settings, sections, name, seen)
  local role = {
    arn = settings.role_arn, session_name = settings.role_session_name, external_id = settings.external_id,
    duration = math.tointeger(tonumber(settings.duration_seconds)),
    token_file = settings.web_identity_token_file,
    what = ("AWS profile '%s', role %s"):format(name, settings.role_arn),
  }
  if settings.mfa_serial then
    return bad("there is nobody to ask for a code: use a role without it",
      "AWS profile '%s' needs a second factor (mfa_serial)", name)
  end
  if role.token_file then return web_identity(context, role) end
  local base, err = base_of_role(context, settings, sections, name, seen)
  if not base then return nil, err end
  local ok
  ok, err = sts.prepare(context)
  if not ok then return nil, err end
  return { text = role.what, fetch = function()
    local keys, why = base.fetch()
    if not keys then return nil, why end
    return sts.assume_role(context, role, keys)
  end }
end

-- Ways that need a program or a browser.
local ELSEWHERE = { "credential_process", "sso_session", "sso_start_url", "login_session" }

function source_of_profile(context, name, sections, seen)
  local settings = sections[name] or {}
  seen[name] = true
  if settings.role_arn then return role_of_profile(context, settings, sections, name, seen) end
  local keys, err = keys_of_profile(context, name)
  if keys or err then return keys, err end
  for _, way in ipairs(ELSEWHERE) do
    if settings[way] then
      return bad("a provider runs no programs: give keys, with `aws configure export-credentials`",
        "AWS profile '%s' gets its credentials by %s, which is not supported", name, way)
    end
  end
end

--- A profile of the files: keys, or a role.
---@param context lunark.aws.Context
function aws.from_files(context)
  local settings, err, name, sections = files.profile(context)
  if not settings then return nil, err end
  return source_of_profile(context, name, sections, {})
end

--- The file that is mounted beside the job, in their format.
---@param context lunark.aws.Context
function aws.from_mounted(context)
  if not context.mounted then return nil end
  local found, err = aws.from_files(context)
  if found or err then return found, err end
  return bad(nil, "%s: [%s] with aws_access_key_id and aws_secret_access_key expected", context.mounted,
    context.profile or "default")
end

--- The places in their order. A script that knows another one inserts it.
aws.chain = {
  aws.from_mounted, aws.from_environment, aws.from_web_identity, aws.from_files, metadata.from_container,
  metadata.from_instance,
}

--- Asks the chain.
---@param context lunark.aws.Context
---@return lunark.aws.Source?
---@return table? err kind auth
function aws.find(context)
  context.hint = context.hint or HINT
  for _, place in ipairs(aws.chain) do
    local found, err = place(context)
    if found or err then return found, err end
  end
  return bad(context.hint, "there are no AWS credentials")
end

return aws
