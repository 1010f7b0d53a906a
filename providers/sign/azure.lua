-- SPDX-License-Identifier: MIT
--- Azure Storage's two ways to sign without a token: Shared Key (an HMAC in a header), and a shared
--- access signature (SAS), which is a query that somebody else signed. Sends nothing and keeps nothing.

local crypto = require "lunark.core.crypto"
local url = require "lunark.url"

local azure = {}

-- The headers that stand in the string to sign by their values alone, in this order.
local STANDARD = {
  "content-encoding", "content-language", "content-length", "content-md5", "content-type", "date",
  "if-modified-since", "if-match", "if-none-match", "if-unmodified-since", "range",
}

local function reveal(value)
  return type(value) == "string" and value or value:reveal()
end

-- The service sorts as .NET does in the culture en-US: a hyphen counts for nothing, an underscore comes
-- before digits, digits before letters.
local function sort_key(name)
  return (name:gsub("-", ""):gsub("_", " "))
end

local function canonical_headers(headers)
  local names = {}
  for name in pairs(headers) do
    if name:find("^x%-ms%-") then names[#names + 1] = name end
  end
  table.sort(names, function(a, b)
    local x, y = sort_key(a), sort_key(b)
    if x ~= y then return x < y end
    return a < b
  end)
  local lines = {}
  for index, name in ipairs(names) do
    lines[index] = name .. ":" .. reveal(headers[name]):match("^%s*(.-)%s*$") .. "\n"
  end
  return table.concat(lines)
end

--- Reads a query as it is sent.
---@param query string
---@return table list of {name, value}, decoded
function azure.parse_query(query)
  local list = {}
  for pair in query:gmatch("[^&]+") do
    local name, value = pair:match("^([^=]*)=?(.*)$")
    list[#list + 1] = { url.unescape(name) or name, url.unescape(value) or value }
  end
  return list
end

local function canonical_resource(account, path, query)
  local values, names = {}, {}
  for _, pair in ipairs(azure.parse_query(query)) do
    local name = pair[1]:lower()
    if not values[name] then
      values[name] = {}
      names[#names + 1] = name
    end
    table.insert(values[name], pair[2])
  end
  table.sort(names)
  local lines = { "/" .. account .. path }
  for _, name in ipairs(names) do
    table.sort(values[name])
    lines[#lines + 1] = name .. ":" .. table.concat(values[name], ",")
  end
  return table.concat(lines, "\n")
end

---@class lunark.azure.Request
---@field method string
---@field path string as it is sent, encoded; of a path-style endpoint with the account in it
---@field query string as it is sent
---@field headers table lower-case name -> string or secret, x-ms-date and x-ms-version among them
---@field body_size integer? bytes

--- What the signature of a request is made of, in version 2015-02-21 and later.
---@param request lunark.azure.Request
---@param account string
---@return string
function azure.string_to_sign(request, account)
  local headers = request.headers
  local lines = { request.method }
  for _, name in ipairs(STANDARD) do
    local value = headers[name] or ""
    if name == "content-length" then
      value = (request.body_size or 0) > 0 and ("%d"):format(request.body_size) or ""
    end
    lines[#lines + 1] = reveal(value)
  end
  return table.concat(lines, "\n") .. "\n" .. canonical_headers(headers)
    .. canonical_resource(account, request.path, request.query)
end

--- The value of the header Authorization.
---@param request lunark.azure.Request
---@param account string
---@param key string|lunark.secret the account's key, in base64
---@return string? authorization
---@return table? err kind corrupt: the key is no base64
function azure.shared_key(request, account, key)
  local raw, err = crypto.unbase64(key)
  if not raw then return nil, err end
  local signature = crypto.hmac("sha256", raw, azure.string_to_sign(request, account))
  return ("SharedKey %s:%s"):format(account, crypto.base64(signature))
end

--- A SAS without what people copy along with it: the address before it, the `?`, white space.
---@param text string
---@return string? query
---@return string? ends the time after which it is refused, as it stands there
function azure.sas(text)
  local query = text:match("^%s*(.-)%s*$"):gsub("^https?://[^?]*", ""):gsub("^%?", "")
  local found = {}
  for _, pair in ipairs(azure.parse_query(query)) do found[pair[1]] = pair[2] end
  if not found.sig or found.sig == "" or not found.sv then return nil end
  return query, found.se
end

--- A URL with a SAS at its end.
---@param address string
---@param sas string|lunark.secret
---@return string
function azure.with_sas(address, sas)
  return address .. (address:find("?", 1, true) and "&" or "?") .. reveal(sas)
end

return azure
