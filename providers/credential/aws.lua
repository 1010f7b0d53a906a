-- SPDX-License-Identifier: MIT
--- AWS credentials: a chain of places to look in. A place gives credentials, nothing (the next one
--- is asked), or an error (the chain ends: what is there but broken must be said). Needs what the
--- provider hands in: `env(name)`, `read(path)` for small files, `secret(text)`.

local sys = require "lunark.core.sys"

local aws = {}

---@class lunark.aws.Credentials
---@field access_key_id string
---@field secret_access_key lunark.secret
---@field session_token lunark.secret?
---@field source string where they are from, for messages

---@class lunark.aws.Context
---@field env fun(name: string): string?
---@field read fun(path: string): string?, table?
---@field secret fun(text: string): lunark.secret
---@field profile string? chosen by name; then the environment's keys don't count

local function bad(hint, format, ...)
  return nil, sys.error { kind = "auth", op = "credentials", message = format:format(...), hint = hint }
end

--- Reads the format of ~/.aws/config and ~/.aws/credentials: sections, `name = value`, indented
--- lines below a name (which are settings of a service, left out), comments with # or ;.
---@param text string
---@return table sections name -> {key -> value}
function aws.parse_ini(text)
  local sections, current = {}, nil
  for line in (text:gsub("^\xEF\xBB\xBF", "") .. "\n"):gmatch("(.-)\r?\n") do
    local section = line:match("^%s*%[%s*(.-)%s*%]%s*[#;]?.*$")
    if section then
      section = section:gsub('^profile%s+"?(.-)"?$', "%1")
      current = sections[section] or {}
      sections[section] = current
    elseif current and not line:find("^%s*[#;]") and not line:find("^%s") then
      local key, value = line:match("^([^=]-)%s*=%s*(.-)%s*$")
      if key then current[key:lower()] = value:gsub("%s[#;].*$", "") end
    end
  end
  return sections
end

local PLACES = { { "AWS_CONFIG_FILE", "config" }, { "AWS_SHARED_CREDENTIALS_FILE", "credentials" } }

local function file_of(context, variable, name)
  local path = context.env(variable)
  if path then return path, true end
  local home = context.env("HOME")
  if home then return home .. "/.aws/" .. name, false end
end

--- The settings of a profile from both files: credentials win over config.
---@param context lunark.aws.Context
---@return table? settings empty when there is nothing
---@return table? err
---@return string name of the profile
function aws.profile(context)
  local explicit = context.profile or context.env("AWS_PROFILE") or context.env("AWS_DEFAULT_PROFILE")
  local name = explicit or "default"
  local settings, found = {}, false
  for _, place in ipairs(PLACES) do
    local path, named = file_of(context, place[1], place[2])
    local text, err
    if path then text, err = context.read(path) end
    if err and (named or (err.kind ~= "not_found" and err.kind ~= "denied")) then
      return bad(nil, "%s: %s", place[1], err.message)
    end
    local section = text and aws.parse_ini(text)[name]
    if section then
      found = true
      for key, value in pairs(section) do settings[key] = value end
    end
  end
  if not found and explicit then
    return bad("look into ~/.aws/credentials and ~/.aws/config", "there is no AWS profile '%s'", name)
  end
  return settings, nil, name
end

--- Keys in the environment.
---@param context lunark.aws.Context
function aws.from_environment(context)
  if context.profile then return nil end
  local id, secret = context.env("AWS_ACCESS_KEY_ID"), context.env("AWS_SECRET_ACCESS_KEY")
  if not id and not secret then return nil end
  if not id or not secret then
    local has, lacks = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"
    if not id then has, lacks = lacks, has end
    return bad(nil, "%s is set and %s is not", has, lacks)
  end
  local token = context.env("AWS_SESSION_TOKEN")
  return {
    access_key_id = id, secret_access_key = context.secret(secret),
    session_token = token and context.secret(token),
    source = "the environment",
  }
end

--- Keys of a profile in the files.
---@param context lunark.aws.Context
function aws.from_files(context)
  local settings, err, name = aws.profile(context)
  if not settings then return nil, err end
  local id, secret = settings.aws_access_key_id, settings.aws_secret_access_key
  if not id and not secret then
    for _, other in ipairs { "role_arn", "sso_session", "sso_start_url", "credential_process" } do
      if settings[other] then
        return bad("give keys, for example from `aws configure export-credentials`",
          "AWS profile '%s' gets its credentials by %s, which is not supported", name, other)
      end
    end
    return nil
  end
  if not id or not secret then
    local has, lacks = "aws_access_key_id", "aws_secret_access_key"
    if not id then has, lacks = lacks, has end
    return bad(nil, "AWS profile '%s' has %s and no %s", name, has, lacks)
  end
  local token = settings.aws_session_token
  return {
    access_key_id = id, secret_access_key = context.secret(secret),
    session_token = token and context.secret(token),
    source = ("AWS profile '%s'"):format(name),
  }
end

--- The places in their order. A script that knows another one inserts it.
aws.chain = { aws.from_environment, aws.from_files }

--- Asks the chain.
---@param context lunark.aws.Context
---@return lunark.aws.Credentials?
---@return table? err kind auth
function aws.find(context)
  for _, place in ipairs(aws.chain) do
    local found, err = place(context)
    if found then return found end
    if err then return nil, err end
  end
  return bad("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or write them to ~/.aws/credentials",
    "there are no AWS credentials")
end

return aws
