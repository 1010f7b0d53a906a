-- SPDX-License-Identifier: MIT
--- Azure credentials: a chain of places to look in. A place gives credentials, nothing (the next one is
--- asked), or an error (the chain ends: what is there but broken must be said). Credentials have `source`
--- (words for messages), `get()` -> what a request is signed with ({key =}, {sas =}, or {token = the whole
--- header}; may park), or nil, err, `worked(used)`, and `refused(used)` -> true when there is something
--- newer to try. Tokens, which `renews` tells, are in providers/credential/entra.lua.

local entra = require "providers.credential.entra"
local mounted = require "providers.credential.mounted"
local sign = require "providers.sign.azure"
local sys = require "lunark.core.sys"
local time = require "lunark.time"

local azure = {}

---@class lunark.azure.Context what the provider hands in
---@field options table account_key, sas_token, connection_string, client_id, client_secret, tenant_id,
---  credentials_file, ca_file
---@field env fun(name: string): string?
---@field read fun(path: string): string?, table?
---@field grant fun(host: string)
---@field grant_read fun(path: string)
---@field secret fun(text: string): lunark.secret
---@field clock fun(): number
---@field http table
---@field log table
---@field suffix string? of the cloud, for its authority

local HINT = "set AZURE_STORAGE_KEY, AZURE_STORAGE_SAS_TOKEN, AZURE_STORAGE_CONNECTION_STRING, or "
  .. "AZURE_TENANT_ID with AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, or run where there is a managed or "
  .. "workload identity"
local COPY = "copy it from the account's access keys"

-- The storage emulator's account, the same everywhere.
local EMULATOR = {
  AccountName = "devstoreaccount1", BlobEndpoint = "http://127.0.0.1:10000/devstoreaccount1",
  AccountKey = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
}

local function bad(hint, format, ...)
  return nil, sys.error { kind = "auth", op = "credentials", message = format:format(...), hint = hint }
end

local function reveal(value)
  return type(value) == "string" and value or value:reveal()
end

-- --- keys and SAS ---

-- What a file or variable holds may change while we run: `load` looks again.
local Fixed = {}
Fixed.__index = Fixed

--- A SAS that has ended is looked for again before it is refused.
function Fixed:get()
  local ends = self.material.ends
  if ends and self.load and ends <= self.clock() then self:refused(self.material) end
  return self.material
end

--- The store took it: nothing depends on that here.
function Fixed.worked() end

--- Looks where it came from for another one.
function Fixed:refused(used)
  if used ~= self.material then return true end
  local found = self.load and self.load()
  if not found or reveal(found.key or found.sas) == reveal(used.key or used.sas) then return false end
  self.material = found
  return true
end

local function key_of(text, from, context)
  text = reveal(text):match("^%s*(.-)%s*$")
  if not text:find("^[%w+/]+=*$") or #text % 4 ~= 0 then
    return bad(COPY, "%s: an account key is base64 text", from)
  end
  return { key = context.secret(text) }
end

local function sas_of(text, from, context)
  local query, ends = sign.sas(reveal(text))
  if not query then
    return bad("it looks like sv=...&sp=...&sig=...", "%s: that is no shared access signature", from)
  end
  for _, pair in ipairs(sign.parse_query(query)) do
    if pair[1] == "sig" then context.secret(pair[2]) end
  end
  return { sas = context.secret(query), ends = ends and (time.parse(ends)) or nil }
end

--- Reads a connection string.
---@param text string|lunark.secret
---@param from string
---@return table? fields as they are called there
---@return table? err
function azure.connection_string(text, from)
  local fields = {}
  for pair in reveal(text):gmatch("[^;\r\n]+") do
    local name, value = pair:match("^%s*([%w_]+)%s*=%s*(.-)%s*$")
    if not name then
      return bad(COPY, "%s: a connection string is name=value;name=value", from)
    end
    fields[name] = value
  end
  if (fields.UseDevelopmentStorage or ""):lower() == "true" then return EMULATOR end
  if not fields.AccountKey and not fields.SharedAccessSignature then
    return bad(COPY, "%s: it has no AccountKey and no SharedAccessSignature", from)
  end
  return fields
end

-- account, endpoint, suffix: as far as a connection string knows them.
local function place_of(fields)
  local suffix, scheme = fields.EndpointSuffix, fields.DefaultEndpointsProtocol or "https"
  local endpoint = fields.BlobEndpoint
  if not endpoint and fields.AccountName and (suffix or scheme ~= "https") then
    endpoint = ("%s://%s.blob.%s"):format(scheme, fields.AccountName, suffix or "core.windows.net")
  end
  return { account = fields.AccountName, endpoint = endpoint, suffix = suffix }
end

local function connection_of(text, from, context)
  local fields, err = azure.connection_string(text, from)
  if not fields then return nil, err end
  local material
  if fields.AccountKey then
    material, err = key_of(fields.AccountKey, from, context)
  else
    material, err = sas_of(fields.SharedAccessSignature, from, context)
  end
  if not material then return nil, err end
  material.place = place_of(fields)
  return material
end

local function fixed(context, material, source, load)
  return setmetatable({
    material = material, source = source, load = load, clock = context.clock, place = material.place or {},
  }, Fixed)
end

local KINDS = {
  { "account_key", key_of, { "AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY", "ACCOUNT_KEY" } },
  { "sas_token", sas_of, { "AZURE_STORAGE_SAS_TOKEN" } },
  { "connection_string", connection_of, { "AZURE_STORAGE_CONNECTION_STRING" } },
}

--- Given by the caller.
---@param context lunark.azure.Context
function azure.from_options(context)
  for _, kind in ipairs(KINDS) do
    local given = context.options[kind[1]]
    if given then
      local material, err = kind[2](given, kind[1], context)
      if not material then return nil, err end
      return fixed(context, material, "the option " .. kind[1])
    end
  end
end

--- Reads lines `export NAME=value`, as shells do where nothing has to be computed. Nothing is executed.
---@param text string
---@return table name -> value
function azure.parse_exports(text)
  local found = {}
  for line in (text:gsub("^\xEF\xBB\xBF", "") .. "\n"):gmatch("(.-)\r?\n") do
    local name, value = line:gsub("^%s*export%s+", ""):match("^%s*([%a_][%w_]*)=(.-)%s*;?%s*$")
    if name then
      found[name] = value:match("^'([^']*)'") or value:match('^"([^"]*)"') or value:gsub("%s+#.*$", "")
    end
  end
  return found
end

local ACCOUNTS = { "AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME", "ACCOUNT_NAME" }

local function first_of(names, env)
  for _, name in ipairs(names) do
    local value = env(name)
    if value then return value, name end
  end
end

-- The first kind of key that these variables have.
local function from_variables(env, context)
  for _, kind in ipairs(KINDS) do
    local value, name = first_of(kind[3], env)
    if value then return kind[2](value, name, context) end
  end
end

-- A client's secret in such a file, which is read again for each token.
local function client_in_file(context, path, variables)
  if not variables.AZURE_CLIENT_SECRET then return nil end
  local function env(name)
    if name == "AZURE_CLIENT_SECRET_FILE" then return path end
    return name ~= "AZURE_CLIENT_SECRET" and (variables[name] or context.env(name)) or nil
  end
  local function read()
    local text, err = mounted.read(context, path, "azure")
    local found = text and azure.parse_exports(text).AZURE_CLIENT_SECRET
    if found then context.secret(found) end
    return found, err or sys.error { kind = "auth", message = path .. ": AZURE_CLIENT_SECRET is gone" }
  end
  return entra.client_secret(setmetatable({ env = env, read = read }, { __index = context }))
end

--- The file that is named by the options, or mounted beside a job: ACCOUNT_NAME=... and ACCOUNT_KEY=..., or
--- what else the environment may have.
---@param context lunark.azure.Context
function azure.from_file(context)
  local path, missing = mounted.find(context, context.options.credentials_file, "azure")
  if not path then return nil, missing end
  local client
  local function load()
    local text, err = mounted.read(context, path, "azure")
    if not text then return nil, err end
    local variables = azure.parse_exports(text)
    local material, wrong = from_variables(function(name) return variables[name] end, context)
    if not material and not wrong then client, wrong = client_in_file(context, path, variables) end
    return material, wrong, first_of(ACCOUNTS, function(name) return variables[name] end)
  end
  local material, err, account = load()
  if not material and not client then
    return bad(nil, "%s: %s", path, err and err.message or "there are no ACCOUNT_NAME and ACCOUNT_KEY in it")
  end
  local found = client or fixed(context, material, path, load)
  found.place = found.place or {}
  found.place.account = found.place.account or account
  return found
end

-- NAME, or the text of the file that NAME_FILE names.
local function variable(context, name)
  local value = context.env(name)
  if value then return value, name end
  local path = context.env(name .. "_FILE")
  if not path then return nil end
  context.grant_read(path)
  local text, err = context.read(path)
  if not text then return bad(nil, "%s_FILE: %s", name, err.message) end
  return text, name .. "_FILE"
end

--- Keys in the environment.
---@param context lunark.azure.Context
function azure.from_environment(context)
  for _, kind in ipairs(KINDS) do
    for _, name in ipairs(kind[3]) do
      local value, from = variable(context, name)
      if not value and from then return nil, from end
      if value then
        local material, err = kind[2](value, from, context)
        if not material then return nil, err end
        local function load()
          local again = variable(context, name)
          return again and kind[2](again, from, context)
        end
        return fixed(context, material, "the environment (" .. from .. ")", from ~= name and load or nil)
      end
    end
  end
end

--- The places in their order. A script that knows another one inserts it.
azure.chain = {
  azure.from_options, azure.from_file, azure.from_environment, entra.client_secret, entra.workload,
  entra.managed,
}

--- Asks the chain.
---@param context lunark.azure.Context
---@return table? credentials
---@return table? err kind auth
function azure.find(context)
  context.hint = HINT
  for _, place in ipairs(azure.chain) do
    local found, err = place(context)
    if found then
      found.place = found.place or {}
      return found
    end
    if err then return nil, err end
  end
  return bad(HINT, "there are no Azure credentials")
end

--- The account that is named in the environment.
---@param context lunark.azure.Context
---@return string?
function azure.account(context)
  return (first_of(ACCOUNTS, context.env))
end

return azure
