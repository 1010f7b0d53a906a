-- SPDX-License-Identifier: MIT
-- What a command works on: the store that its command line names, or CLOUD_PROVIDER and BUCKET in the
-- environment, as the jobs of the Neo4j charts have them; opened to be read, and at which time. Needs
-- lunark.store. docs/stores.md is for users.

local exit = require "lunark.exit"
local log = require "lunark.log"
local naming = require "lunark.naming"
local options = require "lunark.options"
local store = require "lunark.store"
local sys = require "lunark.core.sys"
local url = require "lunark.url"

local place = {}

local PROVIDER, BUCKET = "CLOUD_PROVIDER", "BUCKET"

--- The providers by the names that they have there: the scheme of a bare name first, then others that
--- mean the same; and what a BUCKET looks like, for messages.
place.providers = {
  aws = { schemes = { "s3" }, form = "s3://bucket/prefix" },
  gcp = { schemes = { "gs" }, form = "gs://bucket/prefix" },
  azure = { schemes = { "azure", "https" }, form = "container/path" },
}

local function usage(hint, format, ...)
  return nil, sys.error { kind = "usage", op = "place", message = format:format(...), hint = hint }
end

local function names_of_providers()
  local names = {}
  for name in pairs(place.providers) do
    names[#names + 1] = name
  end
  table.sort(names)
  return table.concat(names, ", ")
end

--- The URL that a provider and a bucket are.
---@param provider string aws, gcp or azure
---@param bucket string a URL, or NAME[/path], which takes the provider's scheme
---@return string|nil text a store's URL
---@return table|nil err kind usage
function place.url_of(provider, bucket)
  local known = place.providers[provider]
  if not known then
    return usage(nil, "%s is '%s', one of %s expected", PROVIDER, provider, names_of_providers())
  end
  local text = bucket
  local scheme = bucket:match("^(%a[%w+.-]*)://")
  if not scheme then
    if not bucket:find("^[%w$]") then
      return usage(nil, "%s is '%s', %s expected", BUCKET, url.shown(bucket), known.form)
    end
    text = known.schemes[1] .. "://" .. bucket
  elseif not (" " .. table.concat(known.schemes, " ") .. " "):find(" " .. scheme:lower() .. " ", 1, true) then
    return usage(("write %s, or set %s to the provider of that store"):format(known.form, PROVIDER),
      "%s is '%s' and %s is '%s': they don't fit together", PROVIDER, provider, BUCKET, url.shown(bucket))
  end
  local parsed, err = url.parse(text)
  if not parsed then
    err.message = BUCKET .. ": " .. err.message
    return nil, err
  end
  return text
end

-- What the environment says: provider, bucket.
local function environment()
  if not sys.sealed() then
    sys.allow("env", PROVIDER)
    sys.allow("env", BUCKET)
  end
  return options.environment(PROVIDER), options.environment(BUCKET)
end

--- The store that the environment names.
---@return string|nil text a store's URL; nil and no error when it names none
---@return table|nil err kind usage
function place.from_environment()
  local provider, bucket = environment()
  if not provider and not bucket then
    return nil
  elseif not provider or not bucket then
    local here, missing = provider and PROVIDER or BUCKET, provider and BUCKET or PROVIDER
    local hint = provider and "the bucket or container" or names_of_providers()
    return usage(("set %s, too: %s"):format(missing, hint), "%s is set and %s is not", here, missing)
  end
  return place.url_of(provider, bucket)
end

--- What a command works on: what its command line names, else the store of the environment.
---@param given string|table|nil URL, or list of them
---@param flag string how it is given: "--to"
---@param what string whose option that is, for messages: "lunark backup"
---@param variable string|nil that gives it as well
---@return string|table given, or the URL of the environment. Raises kind usage where there is neither
function place.of(given, flag, what, variable)
  if type(given) == "string" or given and #given > 0 then
    local provider, bucket = environment()
    if provider or bucket then
      log.info(("%s is given: %s and %s of the environment don't count"):format(flag, PROVIDER, BUCKET))
    end
    return given
  end
  local text, err = place.from_environment()
  if not text then
    local names = variable and variable .. ", or %s and %s," or "%s and %s"
    error(err or sys.error {
      kind = "usage", message = ("%s: %s is missing"):format(what, flag),
      hint = ("or set " .. names .. " in the environment"):format(PROVIDER, BUCKET),
    })
  end
  log.info(("%s and %s say: %s"):format(PROVIDER, BUCKET, url.shown(text)))
  return text
end

--- Opens a store to read from it, or raises why not.
---@param text string URL
---@return table lunark.store
function place.open(text)
  local opened, err = store.open(text)
  if opened then
    local ok
    ok, err = opened:check("read")
    if ok then
      return opened
    end
  end
  err.url = url.shown(text)
  error(exit.unreachable(err))
end

--- Which backup --at means, or raises why none.
---@param text string|nil
---@return integer|string|nil seconds since 1970, "latest", or nil where nothing is said
function place.time_of(text)
  if not text then
    return nil
  end
  local at, err = naming.parse_at(text)
  if not at then
    error(err)
  end
  return at
end

return place
