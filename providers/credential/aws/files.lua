-- SPDX-License-Identifier: MIT
--- The files of the AWS tools, ~/.aws/config and ~/.aws/credentials: sections and profiles. Needs
--- `env(name)` and `read(path)` of the context.

local mounted = require "providers.credential.mounted"
local sys = require "lunark.core.sys"

local files = {}

local function bad(hint, format, ...)
  return nil, sys.error { kind = "auth", op = "credentials", message = format:format(...), hint = hint }
end

--- Reads the format: sections, `name = value`, indented lines below a name (settings of a service,
--- called `service.name` here), comments with # or ;.
---@param text string
---@return table sections name -> {key -> value}; "profile " before a name is left out
function files.parse(text)
  local sections, current, service = {}, nil, nil
  for line in (text:gsub("^\xEF\xBB\xBF", "") .. "\n"):gmatch("(.-)\r?\n") do
    local section = line:match("^%s*%[%s*(.-)%s*%]%s*[#;]?.*$")
    if section then
      section = section:gsub('^profile%s+"?(.-)"?$', "%1")
      current, service = sections[section] or {}, nil
      sections[section] = current
    elseif current and not line:find("^%s*[#;]") then
      local indent, key, value = line:match("^(%s*)([^=]-)%s*=%s*(.-)%s*$")
      value = value and value:gsub("^[#;].*$", ""):gsub("%s+[#;].*$", "")
      if key and indent == "" then
        current[key:lower()] = value ~= "" and value or nil
        service = value == "" and key:lower() or nil
      elseif key and service then
        current[service .. "." .. key:lower()] = value
      end
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

--- The sections of both files in one: credentials win over config. Where a file is mounted beside the job, of
--- that alone.
---@param context lunark.aws.Context
---@return table? sections
---@return table? err
function files.load(context)
  if context.mounted then
    local text, err = mounted.read(context, context.mounted, "aws")
    return text and files.parse(text), err
  end
  local sections = {}
  for _, place in ipairs(PLACES) do
    local path, named = file_of(context, place[1], place[2])
    local text, err
    if path then text, err = context.read(path) end
    if err and (named or (err.kind ~= "not_found" and err.kind ~= "denied")) then
      return bad(nil, "%s: %s", place[1], err.message)
    end
    for name, section in pairs(text and files.parse(text) or {}) do
      sections[name] = sections[name] or {}
      for key, value in pairs(section) do sections[name][key] = value end
    end
  end
  return sections
end

--- The settings of the profile that was chosen, else of `default`.
---@param context lunark.aws.Context
---@return table? settings empty when there is nothing
---@return table? err
---@return string? name of the profile
---@return table? sections all of them
function files.profile(context)
  local explicit = context.profile or context.env("AWS_PROFILE") or context.env("AWS_DEFAULT_PROFILE")
  local name = explicit or "default"
  local sections, err = files.load(context)
  if not sections then return nil, err end
  if not sections[name] and explicit then
    return bad("look into " .. (context.mounted or "~/.aws/credentials and ~/.aws/config"),
      "there is no AWS profile '%s'", name)
  end
  return sections[name] or {}, nil, name, sections
end

--- Where a service is: its own entry in the profile's `services` section, then the profile's.
---@param settings table
---@param sections table
---@param service string "s3", "sts"
---@return string?
function files.endpoint(settings, sections, service)
  local services = settings.services and sections["services " .. settings.services] or {}
  return services[service .. ".endpoint_url"] or settings.endpoint_url
end

return files
