-- SPDX-License-Identifier: MIT
-- providers/credential/google.lua and renewal.lua: places, their order, what is asked of token services,
-- when tokens are renewed, and what is said when there is nothing useful. test_gcs_credentials.py has the
-- same with a server.
local lu = require "luaunit"
local crypto = require "lunark.crypto"
local google = require "providers.credential.google"
local http = require "lunark.http"
local json = require "lunark.json"
local renewal = require "providers.credential.renewal"
local sys = require "lunark.core.sys"
local task = require "lunark.task"
local time = require "lunark.time"

local TestPlaces, TestFiles, TestMetadata, TestRenewal = {}, {}, {}, {}

local NOW = 1772366400
local TOKEN = { access_token = "ya29.token", expires_in = 3599, token_type = "Bearer" }

-- A machine: environment and files; answers of its token services in turn, what they were asked in `asked`.
local function machine(env, files, answers, more)
  local m = {
    asked = {}, granted = {}, readable = {}, warned = {}, now = NOW, secret = sys.secret, crypto = crypto,
  }
  function m.env(name) return env[name] end
  function m.read(path)
    if files[path] then return files[path] end
    return nil, sys.error { kind = "not_found", message = path .. ": no such file or directory" }
  end
  function m.clock() return m.now end
  function m.grant(host) m.granted[host] = true end
  function m.grant_read(path) m.readable[path] = true end
  m.log = { warn = function(text) m.warned[#m.warned + 1] = text end }
  m.http = { query = http.query, escape = http.escape, request = function(request)
    m.asked[#m.asked + 1] = request
    local answer = table.remove(answers, 1)
    if sys.is_error(answer) then return nil, answer end
    return {
      status = answer.status or 200, headers = answer.headers or {},
      body = answer.text or json.encode(answer.body or TOKEN),
    }
  end }
  for name, value in pairs(more or {}) do m[name] = value end
  return m
end

local USER = json.encode {
  type = "authorized_user", client_id = "id", client_secret = "s3cret", refresh_token = "1//refresh",
  quota_project_id = "payer",
}

local function header_of(m)
  local found = assert(google.open(m))
  local header, err = found:header()
  return header and header:reveal(), err, found
end

-- --- places ---

local ADC = "/h/.config/gcloud/application_default_credentials.json"

function TestPlaces.test_order()
  local env = {
    HOME = "/h", GOOGLE_OAUTH_ACCESS_TOKEN = "env", CLOUDSDK_AUTH_ACCESS_TOKEN = "sdk",
    CLOUDSDK_AUTH_ACCESS_TOKEN_FILE = "/t", GOOGLE_APPLICATION_CREDENTIALS = "/adc",
  }
  local files = { ["/t"] = " file\n", ["/adc"] = USER, [ADC] = USER }
  local function source(given)
    local found = assert(google.find(machine(env, files, {}, given)))
    return found.text
  end
  lu.assertEquals(source { token = sys.secret "t", credentials = sys.secret(USER) }, "the option token")
  lu.assertEquals(source { credentials = sys.secret(USER), credentials_file = "/adc" },
    "the option credentials")
  lu.assertEquals(source { credentials_file = "/adc" }, "/adc")
  lu.assertEquals(source(), "GOOGLE_OAUTH_ACCESS_TOKEN")
  env.GOOGLE_OAUTH_ACCESS_TOKEN = nil
  lu.assertEquals(source(), "CLOUDSDK_AUTH_ACCESS_TOKEN")
  env.CLOUDSDK_AUTH_ACCESS_TOKEN = nil
  lu.assertEquals(source(), "CLOUDSDK_AUTH_ACCESS_TOKEN_FILE")
  env.CLOUDSDK_AUTH_ACCESS_TOKEN_FILE = nil
  lu.assertEquals(source(), "GOOGLE_APPLICATION_CREDENTIALS")
  env.GOOGLE_APPLICATION_CREDENTIALS = nil
  lu.assertEquals(source(), ADC)
  env.CLOUDSDK_CONFIG = "/c"
  lu.assertEquals(source(), "the metadata server at 169.254.169.254")
  files["/c/application_default_credentials.json"] = USER
  lu.assertEquals(source(), "/c/application_default_credentials.json")
end

function TestPlaces.test_plain_tokens()
  lu.assertEquals(header_of(machine({}, {}, {}, { token = sys.secret "t" })), "Bearer t")
  lu.assertEquals(header_of(machine({ GOOGLE_OAUTH_ACCESS_TOKEN = "e" }, {}, {})), "Bearer e")
end

function TestPlaces.test_token_file_is_read_again()
  local files = { ["/t"] = "one\n" }
  local m = machine({ CLOUDSDK_AUTH_ACCESS_TOKEN_FILE = "/t" }, files, {})
  local found = assert(google.open(m))
  lu.assertTrue(m.readable["/t"])
  lu.assertEquals(found:header():reveal(), "Bearer one")
  files["/t"] = "two"
  lu.assertEquals(found:header():reveal(), "Bearer one")
  m.now = m.now + 61
  lu.assertEquals(found:header():reveal(), "Bearer two")
end

function TestPlaces.test_nothing()
  local _, err = google.find(machine({ NO_GCE_CHECK = "true" }, {}, {}))
  lu.assertEquals({ err.kind, err.message }, { "auth", "there are no Google credentials" })
  lu.assertStrContains(err.hint, "GOOGLE_APPLICATION_CREDENTIALS")
end

function TestPlaces.test_what_is_there_but_broken()
  local function message(text)
    local files = { ["/f"] = text }
    local found, err = google.find(machine({ GOOGLE_APPLICATION_CREDENTIALS = "/f", HOME = "/h" }, files, {}))
    lu.assertNil(found)
    lu.assertEquals(err.kind, "auth")
    return err.message
  end
  local A = "GOOGLE_APPLICATION_CREDENTIALS"
  lu.assertEquals(message(nil), A .. ": /f: no such file or directory")
  lu.assertEquals(message "key=1", A .. " is not JSON")
  lu.assertEquals(message "[]", A .. ": credentials of type 'nil' are not supported")
  lu.assertEquals(message '{"type":"gdch"}', A .. ": credentials of type 'gdch' are not supported")
  lu.assertEquals(message '{"type":"service_account"}', A .. ": 'client_email' is missing")
  lu.assertEquals(message '{"type":"authorized_user","client_id":"a","client_secret":"b"}',
    A .. ": 'refresh_token' is missing")
  lu.assertEquals(message(USER:gsub("}$", ',"token_uri":"http://example.com/t"}')),
    A .. ": token_uri http://example.com/t: https is expected")
end

-- --- files ---

function TestFiles.test_authorized_user()
  local m = machine({ GOOGLE_APPLICATION_CREDENTIALS = "/f" }, { ["/f"] = USER }, { {} })
  local header, _, found = header_of(m)
  lu.assertEquals(header, "Bearer ya29.token")
  lu.assertEquals(found.quota_project, "payer")
  lu.assertTrue(m.granted["oauth2.googleapis.com"])
  lu.assertEquals(m.asked[1].url, "https://oauth2.googleapis.com/token")
  lu.assertEquals(m.asked[1].body,
    "grant_type=refresh_token&client_id=id&client_secret=s3cret&refresh_token=1%2F%2Frefresh")
end

function TestFiles.test_bad_private_key()
  local text = json.encode {
    type = "service_account", client_email = "a@b", private_key = "-----BEGIN no", private_key_id = "k",
  }
  local _, err = header_of(machine({}, {}, {}, { credentials = sys.secret(text) }))
  lu.assertEquals(err.kind, "auth")
  lu.assertStrContains(err.message, "the option credentials: private_key: ")
  lu.assertStrContains(err.hint, "new key")
end

local function federated(more)
  local account = {
    type = "external_account", audience = "//iam/pool", token_url = "https://sts.googleapis.com/v1/token",
    subject_token_type = "urn:ietf:params:oauth:token-type:jwt", credential_source = { file = "/token" },
  }
  for name, value in pairs(more or {}) do account[name] = value end
  return sys.secret(json.encode(account))
end

function TestFiles.test_workload_identity()
  local files = { ["/token"] = "first\n" }
  local m = machine({}, files, { {}, {} }, { credentials = federated() })
  local header, _, found = header_of(m)
  lu.assertEquals(header, "Bearer ya29.token")
  lu.assertTrue(m.readable["/token"] and m.granted["sts.googleapis.com"])
  lu.assertEquals(m.asked[1].body, table.concat({
    "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange", "audience=%2F%2Fiam%2Fpool",
    "scope=https%3A%2F%2Fwww.googleapis.com%2Fauth%2Fdevstorage.read_write",
    "requested_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aaccess_token", "subject_token=first",
    "subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Ajwt",
  }, "&"))
  files["/token"] = "second"
  m.now = m.now + 3500
  assert(found:header())
  lu.assertStrContains(m.asked[2].body, "subject_token=second&")
end

function TestFiles.test_workload_identity_of_a_service_account()
  local files = { ["/token"] = '{"id_token":"inner"}' }
  local m = machine({}, files, {
    {}, { body = { accessToken = "sa-token", expireTime = "2026-03-01T12:30:00Z" } }, {},
    { body = { accessToken = "sa-token2", expireTime = "2026-03-01T13:30:00Z" } },
  }, { credentials = federated {
    service_account_impersonation_url = "https://iamcredentials.googleapis.com/v1/x:generateAccessToken",
    credential_source = {
      file = "/token", format = { type = "json", subject_token_field_name = "id_token" },
    },
  } })
  local header, _, found = header_of(m)
  lu.assertEquals(header, "Bearer sa-token")
  lu.assertStrContains(m.asked[1].body, "subject_token=inner&")
  lu.assertStrContains(m.asked[1].body, "cloud-platform")
  lu.assertEquals(m.asked[2].url, "https://iamcredentials.googleapis.com/v1/x:generateAccessToken")
  lu.assertEquals(m.asked[2].headers.authorization:reveal(), "Bearer ya29.token")
  lu.assertEquals(json.decode(m.asked[2].body),
    { lifetime = "3600s", scope = { "https://www.googleapis.com/auth/devstorage.read_write" } })
  m.now = time.parse "2026-03-01T12:29:00Z"
  lu.assertEquals(found:header():reveal(), "Bearer sa-token2")
end

function TestFiles.test_token_sources_that_are_not_supported()
  local sources = {
    { executable = { command = "x" } }, { environment_id = "aws1" }, { url = "aws", environment_id = "aws1" },
  }
  for _, source in ipairs(sources) do
    local credentials = federated { credential_source = source }
    local _, err = google.find(machine({}, {}, {}, { credentials = credentials }))
    lu.assertStrContains(err.message, "token source that is not supported")
  end
end

function TestFiles.test_impersonated_service_account()
  local text = json.encode {
    type = "impersonated_service_account", source_credentials = json.decode(USER), delegates = { "d@x" },
    service_account_impersonation_url = "https://iamcredentials.googleapis.com/v1/y:generateAccessToken",
  }
  local m = machine({}, {}, { {}, { body = { accessToken = "sa" } } }, { credentials = sys.secret(text) })
  lu.assertEquals(header_of(m), "Bearer sa")
  lu.assertEquals(json.decode(m.asked[2].body).delegates, { "d@x" })
end

function TestFiles.test_refusals()
  local function refused(answer)
    local m = machine({}, { ["/f"] = USER }, { answer }, { credentials_file = "/f" })
    local _, err = header_of(m)
    return err
  end
  local err = refused {
    status = 400, body = { error = "invalid_grant", error_description = "Token has been revoked." },
  }
  lu.assertEquals({ err.kind, err.retryable, err.message, err.code },
    { "auth", false, "/f: no access token: Token has been revoked", "invalid_grant" })
  err = refused {
    status = 403, body = { error = { message = "IAM API is disabled.", status = "PERMISSION_DENIED" } },
  }
  lu.assertEquals({ err.kind, err.message, err.code },
    { "auth", "/f: no access token: IAM API is disabled", "PERMISSION_DENIED" })
  err = refused { status = 503, text = "busy", headers = { ["retry-after"] = "7" } }
  lu.assertEquals({ err.kind, err.retryable, err.retry_after, err.message },
    { "network", true, 7, "/f: no access token: HTTP status 503" })
  err = refused { status = 429 }
  lu.assertEquals({ err.kind, err.retryable }, { "throttled", true })
  err = refused { text = "<html>" }
  lu.assertEquals({ err.kind, err.retryable }, { "network", true })
  err = refused { body = { token_type = "Bearer" } }
  lu.assertEquals({ err.kind, err.message }, { "auth", "/f: the token service's answer has no access token" })
end

function TestFiles.test_clock_that_is_off()
  local m = machine({}, { ["/f"] = USER }, { {
    status = 400, headers = { date = time.http(NOW + 7200) },
    body = { error = "invalid_grant", error_description = "Invalid JWT: check your iat and exp values." },
  } }, { credentials_file = "/f" })
  local _, err = header_of(m)
  lu.assertEquals({ err.kind, err.skew }, { "auth", 7200 })
end

-- --- metadata ---

local FLAVOR = { ["metadata-flavor"] = "Google" }
local function down() return sys.error { kind = "network", message = "down", retryable = true } end

function TestMetadata.test_token()
  local m = machine({ GCE_METADATA_HOST = "metadata.test:8080" }, {}, { { headers = FLAVOR } })
  lu.assertEquals(header_of(m), "Bearer ya29.token")
  local asked = m.asked[1]
  lu.assertEquals(asked.url,
    "http://metadata.test:8080/computeMetadata/v1/instance/service-accounts/default/token")
  lu.assertEquals({ asked.headers["metadata-flavor"], asked.proxy }, { "Google", "none" })
  lu.assertTrue(m.granted["metadata.test:8080"])
end

function TestMetadata.test_somebody_elses_server()
  local _, err = header_of(machine({}, {}, { {} }))
  lu.assertEquals({ err.kind, err.message },
    { "auth", "the metadata server at 169.254.169.254 is none of Google's" })
end

function TestMetadata.test_no_service_account()
  local _, err = header_of(machine({}, {}, { { status = 404, text = "not found" } }))
  lu.assertEquals({ err.kind, err.message },
    { "auth", "the metadata server at 169.254.169.254 knows no service account" })
  lu.assertStrContains(err.hint, "attach")
end

function TestMetadata.test_no_server()
  local m = machine({}, {}, { sys.error { kind = "timeout", message = "no answer", retryable = true } })
  local _, err = header_of(m)
  lu.assertEquals({ err.kind, err.retryable }, { "auth", false })
  lu.assertStrContains(err.message, "there are no Google credentials: none in options, environment and "
    .. "files, and the metadata server at 169.254.169.254: no answer")
end

function TestMetadata.test_server_that_does_not_listen_yet()
  local refused = {}
  for index = 1, 5 do refused[index] = down() end
  local found = assert(google.open(machine({}, {}, refused)))
  for index = 1, 5 do
    local _, err = found:header()
    lu.assertEquals({ err.kind, err.retryable }, { "auth", index < 5 })
  end
end

function TestMetadata.test_server_that_answered_before()
  local m = machine({}, {}, { { headers = FLAVOR }, down() })
  local _, _, found = header_of(m)
  m.now = m.now + 4000
  local _, err = found:header()
  lu.assertEquals({ err.kind, err.retryable }, { "network", true })
end

-- --- renewal ---

local DOWN = down()

local function kept(answers)
  local m = { now = NOW, fetched = 0, warned = {} }
  m.tokens = renewal.new(function()
    m.fetched = m.fetched + 1
    if m.park then task.sleep(m.park) end
    local answer = table.remove(answers, 1)
    return answer[1], answer[2]
  end, { clock = function() return m.now end, what = "the token", log = {
    warn = function(text) m.warned[#m.warned + 1] = text end,
  } })
  return m
end

function TestRenewal.test_before_the_end()
  local m = kept { { "one", NOW + 3600 }, { "two", NOW + 7200 } }
  lu.assertEquals(m.tokens:get(), "one")
  m.now = NOW + 3600 - 226
  lu.assertEquals(m.tokens:get(), "one")
  m.now = NOW + 3600 - 224
  lu.assertEquals(m.tokens:get(), "two")
  lu.assertEquals(m.fetched, 2)
end

function TestRenewal.test_short_lives_are_used()
  local m = kept { { "one", NOW + 100 }, { "two", NOW + 200 } }
  lu.assertEquals(m.tokens:get(), "one")
  m.now = NOW + 49
  lu.assertEquals(m.tokens:get(), "one")
  m.now = NOW + 51
  lu.assertEquals(m.tokens:get(), "two")
end

function TestRenewal.test_failure_while_the_old_one_holds()
  local m = kept { { "one", NOW + 3600 }, { nil, DOWN }, { nil, DOWN }, { "two", NOW + 9000 } }
  m.tokens:get()
  m.now = NOW + 3500
  lu.assertEquals(m.tokens:get(), "one")
  lu.assertEquals(m.warned, { "the token could not be renewed, the present one holds for 100 s: down" })
  lu.assertEquals({ m.tokens:get(), m.fetched }, { "one", 2 })
  m.now = NOW + 3601
  lu.assertEquals({ m.tokens:get() }, { nil, DOWN })
  lu.assertEquals(m.tokens:get(), "two")
end

function TestRenewal.test_one_fetch_for_all()
  local m = kept { { "one", NOW + 3600 } }
  m.park = 0.05
  local got = task.map({ 1, 2, 3, 4 }, 4, function() return m.tokens:get() end)
  lu.assertEquals({ got, m.fetched }, { { "one", "one", "one", "one" }, 1 })
end

function TestRenewal.test_fetch_that_is_cancelled()
  local m = kept { { "one", NOW + 3600 } }
  m.park = 5
  local first = task.spawn(function() return m.tokens:get() end)
  task.sleep(0.02)
  local second = task.spawn(function() return m.tokens:get() end)
  task.sleep(0.02)
  m.park = nil
  task.cancel(first, "enough")
  lu.assertFalse((task.join(first)))
  lu.assertEquals({ task.join(second) }, { true, "one" })
end

function TestRenewal.test_refused()
  local m = kept { { "one", NOW + 3600 }, { "two", NOW + 3600 } }
  lu.assertEquals(m.tokens:get(), "one")
  lu.assertFalse(m.tokens:refused("one"), "never good: no use to fetch again")
  m.tokens:worked("one")
  lu.assertTrue(m.tokens:refused("one"))
  lu.assertEquals(m.tokens:get(), "two")
  lu.assertTrue(m.tokens:refused("one"), "another one is there by now")
  lu.assertFalse(m.tokens:refused("two"))
end

return {
  TestPlaces = TestPlaces, TestFiles = TestFiles, TestMetadata = TestMetadata, TestRenewal = TestRenewal,
}
