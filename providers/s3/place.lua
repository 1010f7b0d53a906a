-- SPDX-License-Identifier: MIT
--- Where a bucket is, and who asks for it: endpoint, region and credentials from options, environment
--- and profile.

local aws = require "providers.credential.aws"
local files = require "providers.credential.aws.files"
local mounted = require "providers.credential.mounted"
local renewal = require "providers.credential.renewal"
local sys = require "lunark.core.sys"

local place = {}

local function usage(format, ...)
  return nil, sys.error { kind = "usage", op = "s3", message = format:format(...) }
end

local function parse_endpoint(text)
  local scheme, host, path = text:match("^(https?)://([^/?#]+)([^?#]*)$")
  if not scheme then return nil end
  return { scheme = scheme, host = host, path = path:gsub("/+$", "") }
end

--- Amazon's own endpoint in a region.
---@param region string
---@return table endpoint {scheme, host, path, aws = true}
function place.aws_endpoint(region)
  local domain = region:find("^cn%-") and "amazonaws.com.cn" or "amazonaws.com"
  return { scheme = "https", host = ("s3.%s.%s"):format(region, domain), path = "", aws = true }
end

local function static_keys(options)
  if not options.secret_access_key then
    return usage("access_key_id is given and secret_access_key is not")
  end
  local keys = {
    access_key_id = options.access_key_id, secret_access_key = options.secret_access_key,
    session_token = options.session_token,
  }
  return { text = "the options", fetch = function() return keys end }
end

-- The credentials, which are renewed as they end.
local function find_credentials(options, context)
  local source, err
  if options.access_key_id then
    source, err = static_keys(options)
  else
    source, err = aws.find(context)
  end
  if not source then return nil, err end
  local kept = renewal.new(source.fetch, {
    clock = context.clock, log = context.log, what = "credentials of " .. source.text,
  })
  kept.source = source.text
  return kept
end

local function path_style_of(options, settings, endpoint, bucket)
  if options.path_style ~= nil then return options.path_style end
  local style = settings["s3.addressing_style"]
  if style == "path" or style == "virtual" then return style == "path" end
  return not endpoint.aws or bucket:find(".", 1, true) ~= nil
end

-- The file that is mounted beside the job, where nothing else is asked for by name.
local function find_mounted(options, ctx)
  local elsewhere = options.access_key_id or options.profile
  if elsewhere and not options.credentials_file then return nil end
  return mounted.find(ctx, options.credentials_file, "aws")
end

--- Settles all that.
---@param bucket string
---@param options table of the provider; ca_file is filled in
---@param ctx table
---@return table? found {region, endpoint, path_style, credentials}
---@return table? err kinds usage, auth
function place.find(bucket, options, ctx)
  local context = setmetatable({ profile = options.profile }, { __index = ctx })
  local settings, err, sections, _
  context.mounted, err = find_mounted(options, ctx)
  if err then return nil, err end
  settings, err, _, sections = files.profile(context)
  if not settings then return nil, err end
  local region = options.region or settings.region or "us-east-1"
  if not region:find("^[%w-]+$") then return usage("'%s' is no region", region) end
  local text = options.endpoint or files.endpoint(settings, sections, "s3")
  local endpoint = text and parse_endpoint(text) or (not text and place.aws_endpoint(region)) or nil
  if not endpoint then return usage("endpoint '%s': https://host[:port] expected", text) end
  options.ca_file = options.ca_file or settings.ca_bundle
  context.region, context.ca_file, context.settings = region, options.ca_file, settings
  context.sts_endpoint = files.endpoint(settings, sections, "sts")
  local credentials
  credentials, err = find_credentials(options, context)
  if not credentials then return nil, err end
  return {
    region = region, endpoint = endpoint, credentials = credentials,
    path_style = path_style_of(options, settings, endpoint, bucket),
  }
end

return place
