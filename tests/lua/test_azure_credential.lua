-- SPDX-License-Identifier: MIT
-- providers/credential/azure.lua and entra.lua: places and their order, what is asked of token services, how
-- long tokens are used, and what is said when there is nothing useful. test_azure_credentials.py has the same
-- with servers.
local lu = require "luaunit"
local azure = require "providers.credential.azure"
local http = require "lunark.http"
local json = require "lunark.json"
local sys = require "lunark.core.sys"

local TestPlaces, TestFiles, TestTokens, TestArc = {}, {}, {}, {}

local NOW = 1772366400
local KEY, OTHER = "a2V5", "b3RoZXI="
local SAS = "sv=2021-12-02&sp=rl&sig=abc%3D"
local CLIENT = { AZURE_TENANT_ID = "tenant", AZURE_CLIENT_ID = "client" }
local KEYS = "/var/opt/azcmagent/tokens"

-- A machine: environment and files; answers of its token services in turn, what they were asked in `asked`.
local function machine(env, files, answers, more)
  local m = { asked = {}, granted = {}, readable = {}, warned = {}, now = NOW, options = {} }
  m.secret = sys.secret
  function m.env(name) return env[name] end
  function m.read(path)
    if files and files[path] then return files[path] end
    return nil, sys.error { kind = "not_found", message = path .. ": no such file or directory" }
  end
  function m.clock() return m.now end
  function m.grant(host) m.granted[host] = true end
  function m.grant_read(path) m.readable[path] = true end
  m.log = { warn = function(text) m.warned[#m.warned + 1] = text end, debug = function() end }
  m.http = { escape = http.escape, request = function(request)
    local headers = {}
    for name, value in pairs(request.headers or {}) do headers[name] = value end
    m.asked[#m.asked + 1] = setmetatable({ headers = headers }, { __index = request })
    local answer = table.remove(answers, 1)
    if sys.is_error(answer) then return nil, answer end
    return {
      status = answer.status or 200, headers = answer.headers or {},
      body = answer.text or json.encode(answer.body or { access_token = "ey.token", expires_in = "3599" }),
    }
  end }
  for name, value in pairs(more or {}) do m[name] = value end
  return m
end

local function with(base, more)
  local all = {}
  for name, value in pairs(base) do all[name] = value end
  for name, value in pairs(more) do all[name] = value end
  return all
end

-- The credentials of a machine, and the token that they give.
local function token_of(...)
  local m = machine(...)
  local found = assert(azure.find(m))
  local used, err = found:get()
  return used and used.token:reveal(), err, m, found
end

-- --- places ---

function TestPlaces.test_order()
  local env = with(CLIENT, {
    AZURE_STORAGE_KEY = KEY, AZURE_STORAGE_SAS_TOKEN = SAS, AZURE_CLIENT_SECRET = "s3cret",
    AZURE_STORAGE_CONNECTION_STRING = "AccountName=a;AccountKey=" .. KEY,
    AZURE_FEDERATED_TOKEN_FILE = "/token", IDENTITY_ENDPOINT = "http://127.0.0.1/msi", IDENTITY_HEADER = "h",
  })
  local files = { ["/credentials/credentials"] = "ACCOUNT_NAME=a\nACCOUNT_KEY=" .. KEY .. "\n" }
  local function source(options)
    return assert(azure.find(machine(env, files, {}, { options = options }))).source
  end
  local all = { account_key = KEY, sas_token = SAS, connection_string = "AccountKey=" .. KEY }
  lu.assertEquals(source(all), "the option account_key")
  all.account_key = nil
  lu.assertEquals(source(all), "the option sas_token")
  all.sas_token = nil
  lu.assertEquals(source(all), "the option connection_string")
  lu.assertEquals(source {}, "/credentials/credentials")
  files["/credentials/credentials"] = nil
  lu.assertEquals(source {}, "the environment (AZURE_STORAGE_KEY)")
  for _, step in ipairs {
    { "AZURE_STORAGE_KEY", "the environment (AZURE_STORAGE_SAS_TOKEN)" },
    { "AZURE_STORAGE_SAS_TOKEN", "the environment (AZURE_STORAGE_CONNECTION_STRING)" },
    { "AZURE_STORAGE_CONNECTION_STRING", "the client secret of client" },
    { "AZURE_CLIENT_SECRET", "the workload identity client" },
    { "AZURE_FEDERATED_TOKEN_FILE", "the managed identity of the App Service" },
    { "IDENTITY_ENDPOINT", "the machine's managed identity" },
  } do
    env[step[1]] = nil
    lu.assertEquals(source {}, step[2])
  end
end

function TestPlaces.test_what_is_there_but_broken_is_said()
  for message, env in pairs {
    ["AZURE_STORAGE_KEY: an account key is base64 text"] = { AZURE_STORAGE_KEY = "words", ACCOUNT_KEY = KEY },
    ["AZURE_STORAGE_SAS_TOKEN: that is no shared access signature"] = { AZURE_STORAGE_SAS_TOKEN = "sp=r" },
    ["AZURE_STORAGE_KEY_FILE: /k: no such file or directory"] = { AZURE_STORAGE_KEY_FILE = "/k" },
    ["AZURE_CLIENT_SECRET is set and AZURE_TENANT_ID is not"] = { AZURE_CLIENT_SECRET = "x" },
    ["AZURE_FEDERATED_TOKEN_FILE is set and AZURE_CLIENT_ID is not"] = {
      AZURE_FEDERATED_TOKEN_FILE = "/t", AZURE_TENANT_ID = "t",
    },
    ["AZURE_TENANT_ID '../x': an id or a domain expected"] = with(CLIENT, {
      AZURE_CLIENT_SECRET = "x", AZURE_TENANT_ID = "../x",
    }),
    ["IDENTITY_ENDPOINT is set and neither IDENTITY_HEADER nor IMDS_ENDPOINT is"] = {
      IDENTITY_ENDPOINT = "http://127.0.0.1/x",
    },
  } do
    local found, err = azure.find(machine(env, {}, {}))
    lu.assertNil(found, message)
    lu.assertEquals(err.kind, "auth")
    lu.assertEquals(err.message, message)
  end
end

function TestPlaces.test_connection_strings()
  local function place(text)
    local found = assert(azure.find(machine({ AZURE_STORAGE_CONNECTION_STRING = text }, {}, {})))
    return found.place
  end
  lu.assertEquals(place("DefaultEndpointsProtocol=https;AccountName=a;AccountKey=" .. KEY), { account = "a" })
  lu.assertEquals(place("AccountName=a;AccountKey=" .. KEY .. ";EndpointSuffix=core.chinacloudapi.cn"), {
    account = "a", endpoint = "https://a.blob.core.chinacloudapi.cn", suffix = "core.chinacloudapi.cn",
  })
  lu.assertEquals(place("DefaultEndpointsProtocol=http;AccountName=a;AccountKey=" .. KEY).endpoint,
    "http://a.blob.core.windows.net")
  lu.assertEquals(place("BlobEndpoint=https://h/a;SharedAccessSignature=" .. SAS).endpoint, "https://h/a")
  lu.assertEquals(place("UseDevelopmentStorage=true"), {
    account = "devstoreaccount1", endpoint = "http://127.0.0.1:10000/devstoreaccount1",
  })
end

-- --- files ---

function TestFiles.test_variables_as_shells_write_them()
  lu.assertEquals(azure.parse_exports("# comment\nexport A=1\n B='two words' # x\nexport C=\"3\"\r\nD=4;\n\n"
    .. "E=$(touch /x)\nno line\nF=5 # five\n"),
    { A = "1", B = "two words", C = "3", D = "4", E = "$(touch /x)", F = "5" })
end

function TestFiles.test_keys_are_read_again_when_they_are_refused()
  local files = { ["/k"] = KEY .. "\n" }
  local m = machine({ AZURE_STORAGE_KEY_FILE = "/k" }, files, {})
  local found = assert(azure.find(m))
  lu.assertTrue(m.readable["/k"])
  local used = found:get()
  lu.assertFalse(found:refused(used), "it is the same one")
  files["/k"] = OTHER
  lu.assertTrue(found:refused(used))
  lu.assertEquals(found:get().key:reveal(), OTHER)
  lu.assertTrue(found:refused(used), "it has been replaced")
end

function TestFiles.test_signatures_are_read_again_when_they_have_ended()
  local function sas(time) return SAS .. "&se=" .. time end
  local files = { ["/s"] = sas "2026-03-01T13:00:00Z" }
  local m = machine({ AZURE_STORAGE_SAS_TOKEN_FILE = "/s" }, files, {})
  local found = assert(azure.find(m))
  local first = found:get().sas:reveal()
  files["/s"] = sas "2026-03-01T15:00:00Z"
  lu.assertEquals(found:get().sas:reveal(), first)
  m.now = NOW + 3600
  lu.assertEquals(found:get().sas:reveal(), sas "2026-03-01T15:00:00Z")
end

-- --- tokens ---

function TestTokens.test_authorities_of_the_clouds()
  for suffix, authority in pairs {
    ["core.windows.net"] = "login.microsoftonline.com", ["core.chinacloudapi.cn"] = "login.chinacloudapi.cn",
    ["core.usgovcloudapi.net"] = "login.microsoftonline.us",
  } do
    local env = with(CLIENT, { AZURE_CLIENT_SECRET = "s3cret" })
    local token, _, m = token_of(env, {}, { {} }, { suffix = suffix })
    lu.assertEquals(token, "Bearer ey.token")
    lu.assertEquals(m.asked[1].url, ("https://%s/tenant/oauth2/v2.0/token"):format(authority))
    lu.assertTrue(m.granted[authority])
    lu.assertTrue(sys.is_secret(m.asked[1].body))
    lu.assertEquals(m.asked[1].body:reveal(), "client_secret=s3cret&client_id=client&"
      .. "scope=https%3A%2F%2Fstorage.azure.com%2F.default&grant_type=client_credentials")
    lu.assertNil(m.asked[1].proxy)
  end
end

function TestTokens.test_how_long_they_are_used()
  for _, answer in ipairs {
    { expires_in = 1000 }, { expires_in = "1000" }, { expires_on = tostring(NOW + 1000) },
    { expires_on = "2026-03-01T12:16:40Z" }, { expires_in = 1000, expires_on = "never" },
  } do
    answer.access_token = "one"
    local _, _, m, found = token_of({}, {}, { { body = answer }, { body = { access_token = "two" } } })
    m.now = NOW + 1000 - 226
    lu.assertEquals(found:get().token:reveal(), "Bearer one")
    m.now = NOW + 1000 - 224
    lu.assertEquals(found:get().token:reveal(), "Bearer two")
  end
end

function TestTokens.test_an_old_one_lasts_while_there_is_no_new_one()
  local busy = { status = 500, body = { error = "busy" } }
  local _, _, m, found = token_of({}, {}, { {}, busy, busy, { body = { access_token = "two" } } })
  m.now = NOW + 3500
  lu.assertEquals(found:get().token:reveal(), "Bearer ey.token")
  lu.assertStrContains(m.warned[1], "could not be renewed")
  m.now = NOW + 3600
  local used, err = found:get()
  lu.assertNil(used)
  lu.assertTrue(err.retryable)
  lu.assertEquals(found:get().token:reveal(), "Bearer two")
end

function TestTokens.test_those_that_were_revoked()
  local _, _, _, found = token_of({}, {}, { {}, { body = { access_token = "two" } } })
  local used = found:get()
  lu.assertFalse(found:refused(used), "it never worked")
  found:worked(used)
  lu.assertTrue(found:refused(used))
  lu.assertTrue(found:refused(used), "of several requests under way each is to be tried again")
  lu.assertEquals(found:get().token:reveal(), "Bearer two")
  lu.assertTrue(found:refused(used))
  lu.assertFalse(found:refused(found:get()), "nor does the new one work")
end

function TestTokens.test_answers_of_a_machine()
  for _, case in ipairs {
    { 400, "auth", false }, { 403, "auth", false }, { 404, "auth", true }, { 410, "auth", true, 3 },
    { 429, "throttled", true, 7, { ["retry-after"] = "7" } }, { 500, "network", true },
    { 503, "network", true },
  } do
    local text = '{"error":"x","error_description":"The words. Trace ID: 1\\r\\nmore"}'
    local token, err = token_of({}, {}, { { status = case[1], text = text, headers = case[5] } })
    lu.assertNil(token)
    lu.assertEquals({ err.kind, err.retryable, err.retry_after }, { case[2], case[3], case[4] })
    lu.assertEquals(err.message, "the machine's managed identity: The words")
  end
  for _, text in ipairs { "", "<html>", "[]", "{}", '{"access_token":""}', '{"access_token":1}' } do
    local _, err = token_of({}, {}, { { text = text } })
    lu.assertStrContains(err.message, "the answer has no token")
  end
end

function TestTokens.test_metadata_is_asked_directly()
  local _, _, m = token_of({ AZURE_CLIENT_ID = "me" }, {}, { {} })
  lu.assertEquals(m.asked[1].url, "http://169.254.169.254/metadata/identity/oauth2/token")
  lu.assertEquals(m.asked[1].query,
    { { "api-version", "2018-02-01" }, { "resource", "https://storage.azure.com/" }, { "client_id", "me" } })
  lu.assertEquals(m.asked[1].headers, { metadata = "true" })
  lu.assertEquals(m.asked[1].proxy, "none")
end

function TestTokens.test_no_machine_of_azure()
  local gone = sys.error { kind = "timeout", message = "no answer", retryable = true }
  local token, err = token_of({}, {}, { gone })
  lu.assertNil(token)
  lu.assertEquals(err.kind, "auth")
  lu.assertFalse(err.retryable or false)
  lu.assertEquals(err.message, "there are no Azure credentials, and no managed identity: no answer")
  lu.assertStrContains(err.hint, "AZURE_STORAGE_KEY")
end

-- --- Azure Arc ---

local ARC = { IDENTITY_ENDPOINT = "http://localhost:40342/arc", IMDS_ENDPOINT = "http://localhost:40342" }

local function challenge(realm)
  return { status = 401, headers = { ["www-authenticate"] = realm } }
end

function TestArc.test_it_proves_that_it_may_read_a_file()
  local files = { [KEYS .. "/one.key"] = "first", [KEYS .. "/two.key"] = "second" }
  local token, _, m, found = token_of(ARC, files, {
    challenge("Basic realm=" .. KEYS .. "/one.key"), {},
    challenge("Basic realm=" .. KEYS .. "/two.key"), { body = { access_token = "two" } },
  })
  lu.assertEquals(token, "Bearer ey.token")
  lu.assertTrue(m.readable[KEYS])
  lu.assertNil(m.asked[1].headers.authorization)
  lu.assertEquals(m.asked[2].headers.authorization:reveal(), "Basic first")
  lu.assertEquals(m.asked[2].query,
    { { "api-version", "2020-06-01" }, { "resource", "https://storage.azure.com/" } })
  lu.assertEquals({ m.asked[1].proxy, m.asked[2].proxy }, { "none", "none" })
  m.now = NOW + 3600
  lu.assertEquals(found:get().token:reveal(), "Bearer two")
  lu.assertEquals(m.asked[4].headers.authorization:reveal(), "Basic second")
end

function TestArc.test_it_reads_no_other_file()
  for _, realm in ipairs {
    "Basic realm=/etc/shadow", "Basic realm=" .. KEYS .. "/../x.key", "Basic realm=" .. KEYS .. "/a/b.key",
    "Basic realm=" .. KEYS .. "/one.txt", "Bearer realm=" .. KEYS .. "/one.key", "",
  } do
    local token, err, m = token_of(ARC, { ["/etc/shadow"] = "root" }, { challenge(realm) })
    lu.assertNil(token)
    lu.assertStrContains(err.message, "it names no key in " .. KEYS)
    lu.assertEquals(#m.asked, 1)
  end
end

function TestArc.test_a_key_that_may_not_be_read()
  local token, err = token_of(ARC, {}, { challenge("Basic realm=" .. KEYS .. "/one.key") })
  lu.assertNil(token)
  lu.assertStrContains(err.hint, "himds")
end

return { TestPlaces = TestPlaces, TestFiles = TestFiles, TestTokens = TestTokens, TestArc = TestArc }
