-- SPDX-License-Identifier: MIT
--- URLs of stores: a path, `file:///dir`, `s3://bucket/prefix?region=...`. What stands in them,
--- never secrets.

local sys = require "lunark.core.sys"

local url = {}

local PERCENT = "write a percent sign as %25"
local SLASHES = "write file:///dir, or the path alone"

---@class lunark.url.Url
---@field scheme string lower case; "file" for a path
---@field host string bucket, container; "" for file
---@field path string prefix without leading and trailing `/`; an absolute or relative path for file
---@field query table name -> value: options of the store
---@field text string as given
---@field archive string? the last component, when the URL names one archive (.gz, .tgz, .tar)

local function bad(hint, format, ...)
  return nil, sys.error { kind = "usage", op = "url", message = format:format(...), hint = hint }
end

--- Decodes %XX.
---@param text string
---@return string?
function url.unescape(text)
  if text:gsub("%%%x%x", ""):find("%", 1, true) then return nil end
  return (text:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

--- True for a name under which a secret would travel.
---@param name string
---@return boolean
function url.is_secret_name(name)
  local plain = name:lower():gsub("[^%w]", "")
  if plain:find("keyid$") or plain:find("file$") then return false end -- who it is, where it is
  for _, word in ipairs { "secret", "token", "passw", "signature", "credential", "key" } do
    if plain:find(word, 1, true) then return true end
  end
  return plain == "sig" or plain == "sas" or plain == "pwd"
end

local function parse_query(text, query, shown)
  for pair in text:gmatch("[^&]+") do
    local raw_name, raw_value = pair:match("^([^=]+)=(.*)$")
    if not raw_name then return bad("write name=value", "%s: option '%s' has no value", shown, pair) end
    local name, value = url.unescape(raw_name), url.unescape(raw_value)
    if not name or not value then return bad(PERCENT, "%s: bad %% escape in '%s'", shown, raw_name) end
    if url.is_secret_name(name) then
      return bad("URLs end up in logs and process lists: use the environment or a credentials file",
        "%s: '%s' looks like a secret, which a URL must not carry", shown, name)
    end
    if query[name] ~= nil then return bad(nil, "%s: option '%s' stands there twice", shown, name) end
    query[name] = value
  end
  return query
end

local function archive_of(path)
  local last = path:match("([^/]+)$")
  for _, suffix in ipairs { "%S%.gz$", "%S%.tgz$", "%S%.tar$" } do
    if last and last:find(suffix) then return last end
  end
end

local function parse_file(text, rest)
  local path
  if rest then
    local host, after = rest:match("^([^/?]*)(/.*)$")
    if not host or (host ~= "" and host ~= "localhost") then
      return bad(SLASHES, "%s: three slashes are expected after 'file:'", text)
    end
    if after:find("?", 1, true) then
      return bad("write it as %3F if it is in the path", "%s: a directory has no options", text)
    end
    path = url.unescape(after)
    if not path then return bad(PERCENT, "%s: bad %% escape in the path", text) end
  else
    path = text
  end
  if path:find("\0", 1, true) then return bad(nil, "a path can't hold a byte of value 0") end
  if #path > 1 then path = path:gsub("/+$", "") end
  if path == "" then path = "/" end
  return { scheme = "file", host = "", path = path, query = {}, text = text, archive = archive_of(path) }
end

--- A store's URL as it may be shown, whatever somebody wrote into it: without user, password and options.
---@param text string
---@return string
function url.shown(text)
  return (text:gsub("%?.*$", ""):gsub("^(%a[%w+.-]*://)[^/]*@", "%1"))
end

--- Reads a store's URL. What has no `scheme://` is a path, but for `word:...`, which is a URL mistyped.
---@param text string
---@return lunark.url.Url?
---@return table? err kind usage
function url.parse(text)
  if type(text) ~= "string" or text == "" then
    return bad("give a path or a URL like s3://bucket/prefix", "the store's URL is empty")
  end
  local scheme, rest = text:match("^(%a[%w+.-]*)://(.*)$")
  if not scheme then
    if text:find("^file:/[^/]") then
      return bad(SLASHES, "%s: three slashes are expected after 'file:'", text)
    end
    local word, after = text:match("^(%a%w+):/*(.*)$") -- a name with a time in it has a `-` first
    if word then
      local shown = url.shown(text)
      return bad(("write %s://%s for a store, ./%s for a directory"):format(word, url.shown(after), shown),
        "%s: two slashes are expected after '%s:'", shown, word)
    end
    return parse_file(text)
  end
  scheme = scheme:lower()
  if scheme == "file" then return parse_file(text, rest) end
  local before, query_text = rest:match("^([^?]*)%??(.*)$")
  local host, path = before:match("^([^/]*)/?(.*)$")
  local shown = scheme .. "://" .. before
  if host:find("@", 1, true) then
    return bad("use the environment or a credentials file",
      "%s://...: a user or password in a URL is refused", scheme)
  end
  if before:find("#", 1, true) then
    return bad("write it as %23", "%s: '#' has no meaning here", shown)
  end
  if host == "" then
    return bad(("write %s://NAME/prefix"):format(scheme), "%s has no bucket or container", shown)
  end
  path = url.unescape(path)
  if not path then return bad(PERCENT, "%s: bad %% escape in the path", shown) end
  local query, err = parse_query(query_text, {}, shown)
  if not query then return nil, err end
  path = path:gsub("^/+", ""):gsub("/+$", "")
  return { scheme = scheme, host = host, path = path, query = query, text = text, archive = archive_of(path) }
end

return url
