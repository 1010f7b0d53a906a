-- SPDX-License-Identifier: MIT
--- Providers: finds the script that speaks to a kind of store, checks it, and loads it where it can
--- do little. Needs lunark.scripts. A provider's environment has Lua's plain functions and a
--- `require` for an allow-list; what it does in the world goes through the ctx that lunark.store
--- hands in. docs/providers.md is its contract.

local options = require "lunark.options"
local scripts = require "lunark.scripts"
local sys = require "lunark.core.sys"

local provider = {}

local API = 1

-- Schemes whose provider has another file name.
local FILES = { file = "local", gs = "gcs" }

local MODULES = {
  ["lunark.core.sys"] = true, ["lunark.core.crypto"] = true, ["lunark.core.task"] = true,
  ["lunark.crypto"] = true, ["lunark.json"] = true, ["lunark.log"] = true, ["lunark.task"] = true,
  ["lunark.time"] = true, ["lunark.url"] = true, ["lunark.xml"] = true,
}

local FEATURES = {
  range = "boolean", copy = "boolean", exclusive = "boolean", part_hash = "table", multipart = "table",
  put_max = "number", copy_max = "number", batch_delete = "boolean", uploads = "boolean",
  uploads_note = "string", range_width = "number",
}
local MULTIPART = {
  min = "number", max = "number", count = "number", equal = "boolean", align = "number", width = "number",
}
local KEYS = {
  api = true, name = true, schemes = true, options = true, features = true, open = true, needs = true,
  root = true, locate = true,
}

local DIGESTS = { md5 = true, sha1 = true, sha256 = true, sha512 = true, crc32 = true, crc32c = true }

local function bad(origin, format, ...)
  return nil, sys.error {
    kind = "usage", op = "provider", message = ("provider %s: %s"):format(origin, format:format(...)),
  }
end

local function check_fields(origin, where, given, known)
  if type(given) ~= "table" then return bad(origin, "'%s' is a %s, a table expected", where, type(given)) end
  for key, value in pairs(given) do
    local expected = known[key]
    if not expected then
      local near = options.nearest(tostring(key), known)
      return bad(origin, "unknown %s '%s'%s", where, tostring(key),
        near and (", did you mean '%s'?"):format(near) or "")
    end
    if expected ~= true and type(value) ~= expected then
      return bad(origin, "%s '%s' is a %s, a %s expected", where, key, type(value), expected)
    end
  end
  return true
end

local function check_schemes(origin, schemes)
  if type(schemes) ~= "table" or #schemes == 0 then
    return bad(origin, "'schemes' must be a list of URL schemes, like { \"s3\" }")
  end
  for _, scheme in ipairs(schemes) do
    if type(scheme) ~= "string" or not scheme:find("^%l[%w+.-]*$") then
      return bad(origin, "scheme '%s': lower-case letters and digits expected", tostring(scheme))
    end
  end
  return true
end

-- needs = { env = { "NAME", ... }, read = { { env = "NAME" }, { home = "path" }, ... } }
local function check_needs(needs, origin)
  local ok, err = check_fields(origin, "need", needs, { env = "table", read = "table" })
  if not ok then return nil, err end
  for _, name in ipairs(needs.env or {}) do
    if type(name) ~= "string" then
      return bad(origin, "needs.env holds a %s, names of variables expected", type(name))
    end
  end
  for _, place in ipairs(needs.read or {}) do
    local path = type(place) == "table" and (place.env or place.home)
    if type(path) ~= "string" then
      return bad(origin, "needs.read holds a %s, { env = NAME } or { home = PATH } expected", type(place))
    end
    ok, err = check_fields(origin, "key of needs.read", place, { env = "string", home = "string" })
    if not ok then return nil, err end
  end
  return true
end

--- Checks what a provider's file returned.
---@param found any
---@param origin string file, for messages
---@return table? provider
---@return table? err kind usage
function provider.check(found, origin)
  if type(found) ~= "table" then return bad(origin, "it returns a %s, a table expected", type(found)) end
  if found.api ~= API then
    local _, err = bad(origin, "it is written for api %s, api = %d expected", tostring(found.api), API)
    err.hint = math.type(found.api) == "integer" and found.api > API and "use a newer lunark"
      or "docs/providers.md has the contract"
    return nil, err
  end
  local ok, err = check_fields(origin, "key", found, KEYS)
  if not ok then return nil, err end
  if type(found.name) ~= "string" or found.name == "" then return bad(origin, "'name' must be a string") end
  ok, err = check_schemes(origin, found.schemes)
  if not ok then return nil, err end
  if type(found.open) ~= "function" then
    return bad(origin, "function 'open' is missing, open(url, options, ctx) expected")
  end
  if found.locate ~= nil and type(found.locate) ~= "function" then
    return bad(origin, "'locate' is a %s, locate(url) expected", type(found.locate))
  end
  if found.root ~= nil and type(found.root) ~= "boolean" then
    return bad(origin, "'root' is a %s, true or false expected", type(found.root))
  end
  ok, err = check_needs(found.needs or {}, origin)
  if ok then ok, err = provider.check_features(found.features or {}, origin) end
  if not ok then return nil, err end
  local good, wrong = options.check(found.options or {})
  if not good then return bad(origin, "%s", wrong) end
  return found
end

--- Checks a table of features.
---@param features table
---@param origin string
---@return true?
---@return table? err
function provider.check_features(features, origin)
  local ok, err = check_fields(origin, "feature", features, FEATURES)
  if not ok then return nil, err end
  for _, digest in ipairs(features.part_hash or {}) do
    if not DIGESTS[digest] then
      return bad(origin, "part_hash '%s': md5, sha1, sha256, sha512, crc32 or crc32c expected",
        tostring(digest))
    end
  end
  local multipart = features.multipart
  if not multipart then return true end
  ok, err = check_fields(origin, "multipart feature", multipart, MULTIPART)
  if not ok then return nil, err end
  for name, value in pairs(multipart) do
    if MULTIPART[name] == "number" and (math.type(value) ~= "integer" or value < 1) then
      return bad(origin, "multipart feature '%s' is %s, an integer from 1 expected", name, tostring(value))
    end
  end
  if (multipart.min or 1) > (multipart.max or math.maxinteger) then
    return bad(origin, "multipart: min is %d and max is %d", multipart.min, multipart.max)
  end
  return true
end

local REQUIRED = { "put", "get", "head", "list", "delete" }

--- Checks what a provider's open returned.
---@param store any
---@param found table the provider
---@return table? store
---@return table? err
function provider.check_store(store, found)
  local origin = found.origin or found.name
  if type(store) ~= "table" then return bad(origin, "open returns a %s, a table expected", type(store)) end
  for _, name in ipairs(REQUIRED) do
    if type(store[name]) ~= "function" then return bad(origin, "the store has no function '%s'", name) end
  end
  local features = store.features or found.features or {}
  local ok, err = provider.check_features(features, origin)
  if not ok then return nil, err end
  for _, pair in ipairs { { "multipart", "begin" }, { "copy", "copy" }, { "uploads", "uploads" } } do
    local feature, name = pair[1], pair[2]
    if features[feature] and type(store[name]) ~= "function" then
      return bad(origin, "the feature '%s' is declared and the store has no function '%s'", feature, name)
    end
  end
  return store
end

--- Checks what a store's begin returned.
---@param upload any
---@param origin string
---@return table? upload
---@return table? err
function provider.check_upload(upload, origin)
  if type(upload) ~= "table" then return bad(origin, "begin returns a %s, a table expected", type(upload)) end
  for _, name in ipairs { "part", "finish", "abort" } do
    if type(upload[name]) ~= "function" then return bad(origin, "the upload has no function '%s'", name) end
  end
  return upload
end

-- Loads `providers/...` and what it requires from there; one set of modules for each provider.
local function load_file(name, loaded)
  local source, origin = scripts.source(name)
  if not source then return nil, origin end
  local env = sys.environment()
  env._G = env
  env.require = function(module)
    if type(module) == "string" and module:find("^providers%.[%w_.]+$") then
      if loaded[module] == nil then
        local value, err = load_file(module:gsub("%.", "/") .. ".lua", loaded)
        if value == nil then error(err, 0) end
        loaded[module] = value
      end
      return loaded[module]
    end
    if not MODULES[module] then
      error(sys.error {
        kind = "denied", op = "require", hint = "a provider acts through the ctx that its open gets",
        message = ("provider %s: module '%s' is not for providers"):format(name, tostring(module)),
      }, 0)
    end
    return require(module)
  end
  local chunk, err = sys.load(origin == "embedded" and name or origin, source, env)
  if not chunk then return nil, err end
  local ok, value = pcall(chunk)
  if not ok then
    if sys.is_error(value) then return nil, value end
    return bad(origin, "%s", tostring(value))
  end
  if value == nil then value = true end
  return value, nil, origin
end

--- Loads one provider.
---@param name string relative: "providers/s3.lua"
---@return table? provider with `origin`
---@return table? err
function provider.load(name)
  local found, err, origin = load_file(name, {})
  if found == nil then return nil, err end
  origin = origin == "embedded" and name or origin
  found, err = provider.check(found, origin)
  if not found then return nil, err end
  found.origin = origin
  return found
end

local function speaks(found, scheme)
  for _, one in ipairs(found.schemes) do
    if one == scheme then return true end
  end
  return false
end

-- The address as the provider wants it, when it is one of its addresses.
local function place(found, address)
  if not found.locate then return address end
  local located, err = found.locate(address)
  if not located and not sys.is_error(err) then
    return bad(found.origin, "locate returned nil and no error")
  end
  return located, err
end

--- The provider of an address: the file that is called like its scheme first, then all others by what they
--- declare. One whose `locate` does not know the address is passed over.
---@param address lunark.url.Url
---@return table? provider
---@return table address as the provider wants it, or err of kind usage
function provider.find(address)
  local scheme = address.scheme
  local first = ("providers/%s.lua"):format(FILES[scheme] or scheme)
  local listed, known, broken, refused = scripts.list("providers"), {}, nil, nil
  for _, entry in ipairs(listed) do
    if entry.name == first then
      local found, err = provider.load(first)
      if not found then return nil, err end
      local located = speaks(found, scheme) and place(found, address)
      if located then return found, located end
    end
  end
  for _, entry in ipairs(listed) do
    local found, err = provider.load(entry.name)
    if not found then
      broken = broken or err
    elseif speaks(found, scheme) then
      local located, why = place(found, address)
      if located then return found, located end
      refused = refused or why
    else
      table.move(found.schemes, 1, #found.schemes, #known + 1, known)
    end
  end
  if broken or refused then return nil, refused or broken end
  table.sort(known)
  return nil, sys.error {
    kind = "usage", op = "provider", message = ("no provider speaks '%s://'"):format(scheme),
    hint = "there are: " .. table.concat(known, ", "),
  }
end

return provider
