-- SPDX-License-Identifier: MIT
--- The credentials file that is mounted beside a job, one place for all clouds: /credentials/credentials,
--- or where the option `credentials_file` (or LUNARK_CREDENTIALS) says. What is in it is read, never
--- executed. At its usual place it may be missing; then the provider's chain goes on. Needs `read` and
--- `grant_read` of a context.

local sys = require "lunark.core.sys"

local mounted = { PLACE = "/credentials/credentials" }

-- How each cloud's file looks: what it is recognised by, and how it is described.
local FORMATS = {
  aws = {
    what = "a file of AWS profiles",
    form = "[default] with region, aws_access_key_id and aws_secret_access_key expected",
  },
  azure = {
    what = "Azure's file of variables",
    form = "lines export ACCOUNT_NAME=... and export ACCOUNT_KEY=... expected",
  },
  google = { what = "JSON", form = "the JSON of a Google service account's key expected" },
}
local EISDIR = 21
local HINT = "a file for another cloud is mounted elsewhere, or named behind the URL that it is for: "
  .. "?credentials_file=PATH"

local function bad(hint, format, ...)
  return nil, sys.error { kind = "usage", op = "credentials", message = format:format(...), hint = hint }
end

--- What kind of credentials a text is, by its first line that says something.
---@param text string
---@return string? cloud aws, azure or google; nil when it is none of theirs
function mounted.recognise(text)
  for line in text:gsub("^\xEF\xBB\xBF", ""):gmatch("[^\r\n]+") do
    if line:find("^%s*{") then return "google" end
    if line:find("^%s*%[[^%]{}\"]+%]") then return "aws" end
    if line:gsub("^%s*export%s+", ""):find("^%s*[%u_][%u%d_]*=") then return "azure" end
    if line:find("%S") and not line:find("^%s*[#;]") then return nil end
  end
end

--- Reads the file.
---@param context table
---@param path string
---@param cloud string
---@return string?
---@return table? err kind usage when it is not in that cloud's format; its content is never in it
function mounted.read(context, path, cloud)
  local text, err = context.read(path)
  if not text and (err.kind == "memory" or err.code == EISDIR) then -- it is no such file
    return bad(nil, "%s; %s", err.message, FORMATS[cloud].form)
  end
  if not text then return nil, err end
  local found = mounted.recognise(text)
  if found == cloud then return text end
  local what = found and "it is " .. FORMATS[found].what or not text:find("%S") and "it is empty"
    or "it is in no format that is known here"
  return bad(found and HINT or nil, "%s: %s; %s", path, what, FORMATS[cloud].form)
end

--- Looks whether there is one.
---@param context table
---@param given string? the place, when it is not the usual one; then the file must be there
---@param cloud string
---@return string? path nil and no error when there is none
---@return table? err what is there and can't be used
function mounted.find(context, given, cloud)
  local path = given or mounted.PLACE
  context.grant_read(path)
  local text, err = mounted.read(context, path, cloud)
  if text then return path end
  local missing = err.kind == "not_found" or err.kind == "denied" and not err.code
  if missing and not given then return nil end
  if missing then
    return bad("look at --credentials, LUNARK_CREDENTIALS or ?credentials_file=", "credentials file: %s",
      err.message)
  end
  return nil, err
end

return mounted
