-- SPDX-License-Identifier: MIT
-- providers/credential/aws.lua: the places, their order, what each is asked, and what is said when they hold
-- nothing useful. Requests are answered here; tests/provider/test_s3_credentials.py has real servers.
local lu = require "luaunit"
local aws = require "providers.credential.aws"
local crypto = require "lunark.core.crypto"
local files = require "providers.credential.aws.files"
local http = require "lunark.http"
local renewal = require "providers.credential.renewal"
local sys = require "lunark.core.sys"

local TestAws = {}

local NOW = 1700000000 -- 2023-11-14T22:13:20Z
local SOON = "2023-11-14T23:13:20Z"
local said

local function quiet() end

-- A machine: environment, files, and a network that answers each request by `answers[METHOD url]`, a string,
-- a response or a function that gives one, else as if nobody were there. The requests are in `requests`.
local function machine(env, contents, more)
  local context = {
    env = function(name) return env[name] end, secret = sys.secret, crypto = crypto, region = "eu-west-1",
    clock = function() return NOW end, granted = {}, requests = {}, settings = {}, answers = {},
    log = { debug = quiet, info = quiet, warn = function(text) said = text end },
  }
  context.read = function(path)
    if contents[path] then return contents[path] end
    return nil, sys.error { kind = "not_found", message = path .. ": no such file or directory" }
  end
  context.grant = function(host) context.granted[host] = true end
  context.grant_read = context.grant
  context.http = setmetatable({ request = function(request)
    local url = request.url
    if request.sign then
      local host, path = url:match("^https?://([^/]+)(.*)$")
      request.sign {
        method = request.method, host = host, path = path, query = "", headers = request.headers,
      }
    end
    context.requests[#context.requests + 1] = request
    local answer = context.answers[(request.method or "GET") .. " " .. url]
    if type(answer) == "function" then answer = answer(request) end
    if type(answer) == "string" then answer = { status = 200, body = answer } end
    if not answer then
      return nil, sys.error { kind = "timeout", message = url .. ": no answer", retryable = true }
    end
    answer.headers = answer.headers or {}
    return answer
  end }, { __index = http })
  for key, value in pairs(more or {}) do context[key] = value end
  return context
end

local OFF = { AWS_EC2_METADATA_DISABLED = "true" }
local function with(more)
  local env = { AWS_EC2_METADATA_DISABLED = "true" }
  for name, value in pairs(more) do env[name] = value end
  return env
end

local CREDENTIALS = [[
# keys
[default]
aws_access_key_id = AKDEFAULT
aws_secret_access_key=default/secret+x=

[ prod ]
aws_access_key_id=AKPROD
aws_secret_access_key = prodsecret ; a comment
aws_session_token = token
[half]
aws_access_key_id = AKHALF
]]
local CONFIG = [[
[default]
region = eu-west-1
[profile prod]
region = us-west-2
services = mine
s3 =
    addressing_style = path
    region = not-this
[services mine]
sts =
  endpoint_url = https://sts.example
[profile sso]
sso_start_url = https://x
[profile process]
credential_process = /bin/keys
[profile "with space"]
role_arn = arn:aws:iam::1:role/x
[profile night]
role_arn = arn:aws:iam::1:role/night
source_profile = prod
role_session_name = me
external_id = a b
duration_seconds = 900
[profile chain]
role_arn = arn:aws:iam::2:role/second
source_profile = night
[profile round]
role_arn = arn:aws:iam::1:role/a
source_profile = trip
[profile trip]
role_arn = arn:aws:iam::1:role/b
source_profile = round
[profile env]
role_arn = arn:aws:iam::1:role/env
credential_source = Environment
[profile task]
role_arn = arn:aws:iam::1:role/task
credential_source = EcsContainer
[profile moon]
role_arn = arn:aws:iam::1:role/m
credential_source = Moon
[profile both]
role_arn = arn:aws:iam::1:role/m
credential_source = Environment
source_profile = prod
[profile mfa]
role_arn = arn:aws:iam::1:role/m
source_profile = prod
mfa_serial = arn:aws:iam::1:mfa/x
[profile web]
role_arn = arn:aws:iam::1:role/web
web_identity_token_file = /token
]]
local HOME = { ["/h/.aws/credentials"] = CREDENTIALS, ["/h/.aws/config"] = CONFIG }

local function keys_of(source)
  local found, ends = source.fetch()
  assert(found, ends)
  local token = found.session_token
  return { found.access_key_id, found.secret_access_key:reveal(), token and token:reveal() }, ends
end

local function refusal(context, fetched)
  local source, err = aws.find(context)
  if fetched then
    lu.assertNotNil(source, err)
    source, err = source.fetch()
  end
  lu.assertNil(source)
  return err
end

-- --- environment and files ---

function TestAws.test_environment_comes_first()
  local found = assert(aws.find(machine({
    HOME = "/h", AWS_ACCESS_KEY_ID = "AKENV", AWS_SECRET_ACCESS_KEY = "s", AWS_SESSION_TOKEN = "t",
    AWS_WEB_IDENTITY_TOKEN_FILE = "/token", AWS_ROLE_ARN = "arn",
  }, HOME)))
  lu.assertEquals(keys_of(found), { "AKENV", "s", "t" })
  lu.assertEquals(found.text, "the environment")
  lu.assertEquals(tostring(found.fetch().secret_access_key), "***")
end

function TestAws.test_files()
  local found = assert(aws.find(machine({ HOME = "/h" }, HOME)))
  lu.assertEquals(keys_of(found), { "AKDEFAULT", "default/secret+x=" })
  found = assert(aws.find(machine({ HOME = "/h", AWS_PROFILE = "prod" }, HOME)))
  lu.assertEquals(keys_of(found), { "AKPROD", "prodsecret", "token" })
  lu.assertEquals(found.text, "AWS profile 'prod'")
end

function TestAws.test_a_chosen_profile_beats_the_environment()
  local env = {
    HOME = "/h", AWS_ACCESS_KEY_ID = "AKENV", AWS_SECRET_ACCESS_KEY = "s", AWS_PROFILE = "default",
    AWS_WEB_IDENTITY_TOKEN_FILE = "/token", AWS_ROLE_ARN = "arn",
  }
  lu.assertEquals(keys_of(assert(aws.find(machine(env, HOME, { profile = "prod" }))))[1], "AKPROD")
  lu.assertEquals(keys_of(assert(aws.find(machine(env, HOME))))[1], "AKENV")
end

function TestAws.test_files_named_by_variables()
  local env = { AWS_SHARED_CREDENTIALS_FILE = "/etc/keys", AWS_CONFIG_FILE = "/etc/config" }
  local found = assert(aws.find(machine(env, { ["/etc/keys"] = CREDENTIALS, ["/etc/config"] = CONFIG })))
  lu.assertEquals(keys_of(found)[1], "AKDEFAULT")
  local err = refusal(machine(env, {}))
  lu.assertEquals(err.kind, "auth")
  lu.assertStrContains(err.message, "AWS_CONFIG_FILE: /etc/config: no such file")
end

function TestAws.test_files_are_read_again()
  local contents = { ["/keys"] = "[default]\naws_access_key_id = A\naws_secret_access_key = 1\n" }
  local found = assert(aws.find(machine(with { AWS_SHARED_CREDENTIALS_FILE = "/keys" }, contents)))
  lu.assertEquals(keys_of(found), { "A", "1" })
  contents["/keys"] = "[default]\naws_access_key_id = B\naws_secret_access_key = 2\n"
  lu.assertEquals(keys_of(found), { "B", "2" })
  contents["/keys"] = ""
  local none, err = found.fetch()
  lu.assertNil(none)
  lu.assertEquals(err.message, "AWS profile 'default': the keys are gone")
end

function TestAws.test_settings()
  local settings, _, name = files.profile(machine({ HOME = "/h" }, HOME))
  lu.assertEquals({ settings.region, name }, { "eu-west-1", "default" })
  local sections
  settings, _, _, sections = files.profile(machine({ HOME = "/h" }, HOME, { profile = "prod" }))
  lu.assertEquals(settings.region, "us-west-2")
  lu.assertEquals(settings["s3.addressing_style"], "path")
  lu.assertEquals(files.endpoint(settings, sections, "sts"), "https://sts.example")
  lu.assertNil(files.endpoint(settings, sections, "s3"))
  lu.assertEquals(files.endpoint({ endpoint_url = "https://e" }, {}, "s3"), "https://e")
  lu.assertEquals(files.profile(machine({}, {})), {})
end

function TestAws.test_nothing()
  local err = refusal(machine(OFF, {}))
  lu.assertEquals(err.kind, "auth")
  lu.assertEquals(err.message, "there are no AWS credentials")
  lu.assertStrContains(err.hint, "AWS_ACCESS_KEY_ID")
  refusal(machine(with { HOME = "/nowhere" }, {}))
end

function TestAws.test_half_of_a_pair()
  lu.assertEquals(refusal(machine({ AWS_ACCESS_KEY_ID = "x" }, {})).message,
    "AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not")
  lu.assertEquals(refusal(machine({ AWS_SECRET_ACCESS_KEY = "x" }, {})).message,
    "AWS_SECRET_ACCESS_KEY is set and AWS_ACCESS_KEY_ID is not")
  lu.assertEquals(refusal(machine({ HOME = "/h" }, HOME, { profile = "half" })).message,
    "AWS profile 'half' has aws_access_key_id and no aws_secret_access_key")
end

function TestAws.test_profile_that_is_not_there()
  lu.assertEquals(refusal(machine({ HOME = "/h", AWS_PROFILE = "nope" }, HOME)).message,
    "there is no AWS profile 'nope'")
end

function TestAws.test_profiles_that_are_of_no_use()
  for name, words in pairs {
    sso = "by sso_start_url, which is not supported", moon = "credential_source is 'Moon'",
    process = "by credential_process, which is not supported",
    ["with space"] = "has role_arn and nothing to assume the role by",
    both = "both source_profile and credential_source",
    round = "source_profile 'round' has no keys and leads back to it",
    mfa = "needs a second factor", task = "there are no credentials in EcsContainer",
  } do
    local err = refusal(machine({ HOME = "/h" }, HOME, { profile = name }))
    lu.assertEquals(err.kind, "auth")
    lu.assertStrContains(err.message, words)
  end
  local err = refusal(machine({ HOME = "/h" }, HOME, { profile = "process" }))
  lu.assertStrContains(err.hint, "runs no programs")
end

function TestAws.test_the_chain_can_be_extended()
  table.insert(aws.chain, 1, function(context)
    return { text = "a test", fetch = function()
      return { access_key_id = "OWN", secret_access_key = context.secret "x" }
    end }
  end)
  local found = aws.find(machine({}, {}))
  table.remove(aws.chain, 1)
  lu.assertEquals(keys_of(found)[1], "OWN")
end

function TestAws.test_ini()
  local text = "\xEF\xBB\xBF[a]\r\nx = 1\r\n;c\r\n#d\r\n[b] # c\ny=2=3\nnonsense\n[a]\nz=4\nq = # c\n r=1\n"
  lu.assertEquals(files.parse(text), { a = { x = "1", z = "4", ["q.r"] = "1" }, b = { y = "2=3" },
  })
end

-- --- STS ---

local function sts_answer(action, id)
  local text = "<%sResponse xmlns='https://sts.amazonaws.com/doc/2011-06-15/'><%sResult><Credentials>"
    .. "<AccessKeyId>%s</AccessKeyId><SecretAccessKey>sec</SecretAccessKey><SessionToken>tok</SessionToken>"
    .. "<Expiration>%s</Expiration></Credentials></%sResult></%sResponse>"
  return text:format(action, action, id, SOON, action, action)
end

local WEB, ROLE = "AssumeRoleWithWebIdentity", "AssumeRole"
local WEB_IDENTITY = { AWS_WEB_IDENTITY_TOKEN_FILE = "/token", AWS_ROLE_ARN = "arn" }
local STS = "POST https://sts.eu-west-1.amazonaws.com/"

function TestAws.test_web_identity()
  local contents = { ["/token"] = "the.web.token\n" }
  local context = machine({
    AWS_WEB_IDENTITY_TOKEN_FILE = "/token", AWS_ROLE_ARN = "arn:aws:iam::1:role/r",
  }, contents)
  context.answers[STS] = sts_answer(WEB, "ASIAWEB")
  local found = assert(aws.find(context))
  lu.assertEquals(found.text, "role arn:aws:iam::1:role/r")
  lu.assertTrue(context.granted["sts.eu-west-1.amazonaws.com"] and context.granted["/token"])
  local keys, ends = keys_of(found)
  lu.assertEquals(keys, { "ASIAWEB", "sec", "tok" })
  lu.assertEquals(ends, NOW + 3600)
  local request = context.requests[1]
  lu.assertEquals(request.body, "Action=AssumeRoleWithWebIdentity&Version=2011-06-15"
    .. "&RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fr&RoleSessionName=lunark-1700000000"
    .. "&WebIdentityToken=the.web.token")
  lu.assertNil(request.headers.authorization)
  contents["/token"] = "another"
  keys_of(found)
  lu.assertStrContains(context.requests[2].body, "WebIdentityToken=another")
  contents["/token"] = nil
  local none, err = found.fetch()
  lu.assertNil(none)
  lu.assertStrContains(err.message, "no token: /token: no such file")
end

function TestAws.test_web_identity_without_a_role()
  lu.assertEquals(refusal(machine({ AWS_WEB_IDENTITY_TOKEN_FILE = "/token" }, {})).message,
    "AWS_WEB_IDENTITY_TOKEN_FILE is set and AWS_ROLE_ARN is not")
end

function TestAws.test_where_sts_is()
  for _, case in ipairs {
    { {}, "https://sts.cn-north-1.amazonaws.com.cn/", region = "cn-north-1" },
    { { AWS_ENDPOINT_URL_STS = "http://127.0.0.1:1/", AWS_ENDPOINT_URL = "http://x" },
      "http://127.0.0.1:1/" },
    { { AWS_ENDPOINT_URL = "https://store.example" }, "https://store.example/" },
    { {}, "https://profile.example/", sts_endpoint = "https://profile.example" },
  } do
    local env = with(case[1])
    env.AWS_WEB_IDENTITY_TOKEN_FILE, env.AWS_ROLE_ARN = "/token", "arn"
    local context = machine(env, { ["/token"] = "t" }, { sts_endpoint = case.sts_endpoint })
    context.region = case.region or context.region
    assert(aws.find(context)).fetch()
    lu.assertEquals(context.requests[1].url, case[2])
  end
  local err = refusal(machine({
    AWS_WEB_IDENTITY_TOKEN_FILE = "/token", AWS_ROLE_ARN = "arn", AWS_ENDPOINT_URL_STS = "sts",
  }, {}))
  lu.assertEquals(err.kind, "usage")
end

function TestAws.test_web_identity_of_a_profile()
  local contents = { ["/h/.aws/config"] = CONFIG, ["/token"] = "t" }
  local context = machine({ HOME = "/h" }, contents, { profile = "web" })
  context.answers[STS] = sts_answer(WEB, "ASIAWEB")
  lu.assertEquals(keys_of(assert(aws.find(context)))[1], "ASIAWEB")
end

function TestAws.test_role_of_a_profile()
  local context = machine({ HOME = "/h", AWS_PROFILE = "night" }, HOME)
  context.answers[STS] = sts_answer(ROLE, "ASIANIGHT")
  local found = assert(aws.find(context))
  lu.assertEquals(keys_of(found), { "ASIANIGHT", "sec", "tok" })
  local request = context.requests[1]
  lu.assertEquals(request.body, "Action=AssumeRole&Version=2011-06-15"
    .. "&RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fnight&RoleSessionName=me"
    .. "&DurationSeconds=900&ExternalId=a%20b")
  lu.assertStrContains(request.headers.authorization, "Credential=AKPROD/20231114/eu-west-1/sts/aws4_request")
  lu.assertStrContains(request.headers.authorization,
    "SignedHeaders=content-type;host;x-amz-date;x-amz-security-token")
  lu.assertEquals(request.headers["x-amz-security-token"]:reveal(), "token")
end

function TestAws.test_roles_one_by_the_other()
  local context = machine({ HOME = "/h", AWS_PROFILE = "chain" }, HOME)
  context.answers[STS] = function(request)
    return sts_answer(ROLE, request.body:find("second", 1, true) and "ASIA2" or "ASIA1")
  end
  lu.assertEquals(keys_of(assert(aws.find(context)))[1], "ASIA2")
  lu.assertStrContains(context.requests[1].headers.authorization, "Credential=AKPROD/")
  lu.assertStrContains(context.requests[2].headers.authorization, "Credential=ASIA1/")
end

function TestAws.test_role_by_keys_of_the_environment()
  local context = machine({
    HOME = "/h", AWS_ACCESS_KEY_ID = "AKENV", AWS_SECRET_ACCESS_KEY = "s",
  }, HOME, { profile = "env" })
  context.answers[STS] = sts_answer(ROLE, "ASIA")
  lu.assertEquals(keys_of(assert(aws.find(context)))[1], "ASIA")
  lu.assertStrContains(context.requests[1].headers.authorization, "Credential=AKENV/")
end

function TestAws.test_refusals_of_sts()
  local function answered(status, code, message, headers)
    local context = machine(WEB_IDENTITY, { ["/token"] = "t" })
    context.answers[STS] = { status = status, headers = headers, body = ("<ErrorResponse><Error>"
      .. "<Code>%s</Code><Message>%s</Message></Error></ErrorResponse>"):format(code, message) }
    return refusal(context, true)
  end
  local err = answered(403, "AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity.")
  lu.assertEquals({ err.kind, err.retryable or false }, { "auth", false })
  lu.assertEquals(err.message,
    "role arn: Not authorized to perform sts:AssumeRoleWithWebIdentity (AccessDenied)")
  lu.assertStrContains(err.hint, "trust policy")
  lu.assertStrContains(answered(400, "ExpiredTokenException", "Token expired").hint, "must renew it")
  lu.assertTrue(answered(400, "IDPCommunicationError", "x").retryable)
  err = answered(503, "", "")
  lu.assertEquals({ err.kind, err.retryable }, { "throttled", true })
  err = answered(403, "SignatureDoesNotMatch", "Signature expired: 2 is now earlier than 3",
    { date = "Tue, 14 Nov 2023 23:13:20 GMT" })
  lu.assertEquals(err.skew, 3600)
end

function TestAws.test_answer_of_sts_that_is_none()
  for _, body in ipairs { "", "<html>", "<AssumeRoleWithWebIdentityResponse/>", sts_answer(ROLE, "x") } do
    local context = machine(WEB_IDENTITY, { ["/token"] = "t" })
    context.answers[STS] = body
    local err = refusal(context, true)
    lu.assertStrContains(err.message, "the answer of STS has no credentials")
    lu.assertTrue(err.retryable)
  end
end

-- --- containers ---

local ANSWER = '{"AccessKeyId":"ASIABOX","SecretAccessKey":"sec","Token":"tok","Expiration":"' .. SOON .. '"}'

function TestAws.test_task_of_ecs()
  local context = machine({
    AWS_CONTAINER_CREDENTIALS_RELATIVE_URI = "/v2/credentials/x",
    AWS_CONTAINER_CREDENTIALS_FULL_URI = "http://not",
  }, {})
  context.answers["GET http://169.254.170.2/v2/credentials/x"] = ANSWER
  local keys, ends = keys_of(assert(aws.find(context)))
  lu.assertEquals(keys, { "ASIABOX", "sec", "tok" })
  lu.assertEquals(ends, NOW + 3600)
  lu.assertEquals(context.requests[1].proxy, "none")
  lu.assertNil(context.requests[1].headers.authorization)
end

function TestAws.test_pod_identity_of_eks()
  local contents = { ["/pod"] = "first" }
  local url = "http://169.254.170.23/v1/credentials"
  local context = machine({
    AWS_CONTAINER_CREDENTIALS_FULL_URI = url, AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE = "/pod",
    AWS_CONTAINER_AUTHORIZATION_TOKEN = "not this one",
  }, contents)
  context.answers["GET " .. url] = ANSWER
  local found = assert(aws.find(context))
  keys_of(found)
  contents["/pod"] = "second\n"
  keys_of(found)
  lu.assertEquals(context.requests[1].headers.authorization:reveal(), "first")
  lu.assertEquals(context.requests[2].headers.authorization:reveal(), "second")
  lu.assertEquals(context.requests[2].proxy, "none")
  contents["/pod"] = "two\nlines"
  local none, err = found.fetch()
  lu.assertNil(none)
  lu.assertStrContains(err.message, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE has more than one line")
end

function TestAws.test_where_containers_may_ask()
  for url, allowed in pairs {
    ["http://169.254.170.2/x"] = true, ["http://169.254.170.23/x"] = true, ["http://[fd00:ec2::23]/x"] = true,
    ["http://127.0.0.1:8080/x"] = true, ["http://127.9.9.9/"] = true, ["http://[::1]:80/"] = true,
    ["http://localhost/x"] = true, ["https://anywhere.example/x"] = true,
    ["http://anywhere.example/x"] = false, ["ftp://127.0.0.1/"] = false,
    ["http://127.0.0.1.example/x"] = false, ["http://127.0.0.1@example/x"] = false,
    ["http://169.254.169.254/x"] = false,
  } do
    local found, err = aws.find(machine({ AWS_CONTAINER_CREDENTIALS_FULL_URI = url }, {}))
    lu.assertEquals(found ~= nil, allowed, url)
    if not allowed then lu.assertEquals(err.kind, "auth") end
  end
end

function TestAws.test_refusals_of_containers()
  local url = "http://127.0.0.1:1/c"
  local context = machine({ AWS_CONTAINER_CREDENTIALS_FULL_URI = url }, {})
  context.answers["GET " .. url] = { status = 400, body = '{"code":"x","message":"no such task"}' }
  local err = refusal(context, true)
  lu.assertEquals({ err.kind, err.retryable or false }, { "auth", false })
  lu.assertEquals(err.message, "container credentials of 127.0.0.1:1: HTTP status 400: no such task")
  context.answers["GET " .. url] = { status = 503, body = "" }
  lu.assertTrue(refusal(context, true).retryable)
  context.answers["GET " .. url] = "{}"
  lu.assertStrContains(refusal(context, true).message, "no credentials in the answer")
end

-- --- instances ---

local IMDS = "http://169.254.169.254/latest/"
local ROLES = IMDS .. "meta-data/iam/security-credentials/"

local function instance(env)
  local context = machine(env or {}, {})
  context.answers["PUT " .. IMDS .. "api/token"] = "the-token"
  context.answers["GET " .. ROLES] = "my-role\n"
  context.answers["GET " .. ROLES .. "my-role"] = '{"Code":"Success",' .. ANSWER:sub(2)
  return context
end

function TestAws.test_instance()
  local context = instance()
  local found = assert(aws.find(context))
  local keys, ends = keys_of(found)
  lu.assertEquals(keys, { "ASIABOX", "sec", "tok" })
  lu.assertEquals(ends, NOW + 3600)
  lu.assertEquals(context.requests[1].headers["x-aws-ec2-metadata-token-ttl-seconds"], "21600")
  for number = 1, 3 do lu.assertEquals(context.requests[number].proxy, "none") end
  for number = 2, 3 do
    lu.assertEquals(context.requests[number].headers["x-aws-ec2-metadata-token"]:reveal(), "the-token")
  end
end

function TestAws.test_instance_is_not_asked()
  local err = refusal(instance { AWS_EC2_METADATA_DISABLED = "TRUE" })
  lu.assertEquals(err.message, "there are no AWS credentials")
end

function TestAws.test_instance_elsewhere()
  for _, case in ipairs {
    { "http://127.0.0.1:1338", env = { AWS_EC2_METADATA_SERVICE_ENDPOINT = "http://127.0.0.1:1338/" } },
    { "http://[fd00:ec2::254]", env = { AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE = "IPv6" } },
    { "http://profile", env = {}, settings = { ec2_metadata_service_endpoint = "http://profile" } },
  } do
    local context = machine(case.env, {}, { settings = case.settings })
    refusal(context, true)
    lu.assertEquals(context.requests[1].url, case[1] .. "/latest/api/token")
  end
end

function TestAws.test_no_instance()
  local context = machine({}, {})
  local err = refusal(context, true)
  lu.assertEquals({ err.kind, err.retryable or false, #context.requests }, { "auth", false, 3 })
  lu.assertStrContains(err.message, "there are no AWS credentials; the instance's role, by 169.254.169.254: ")
  lu.assertStrContains(err.hint, "hop limit")
end

function TestAws.test_instance_without_a_role()
  local context = instance()
  context.answers["GET " .. ROLES] = { status = 404, body = "<html>" }
  lu.assertStrContains(refusal(context, true).message, "the instance has no role")
  context = instance()
  context.answers["PUT " .. IMDS .. "api/token"] = { status = 403, body = "" }
  lu.assertStrContains(refusal(context, true).message, "HTTP status 403")
  context = instance()
  context.answers["GET " .. ROLES .. "my-role"] =
    '{"Code":"AssumeRoleUnauthorizedAccess","Message":"EC2 cannot assume it"}'
  lu.assertStrContains(refusal(context, true).message, "HTTP status 200: EC2 cannot assume it")
end

function TestAws.test_instance_that_renews_late()
  local context = instance()
  context.answers["GET " .. ROLES .. "my-role"] = ANSWER:gsub("2023%-.*Z", "2023-11-14T22:00:00Z")
  local _, ends = keys_of(assert(aws.find(context)))
  lu.assertEquals(ends, NOW + 600)
  lu.assertStrContains(said, "ended at 2023-11-14T22:00:00Z and are used all the same")
end

function TestAws.test_instance_that_fails_later()
  local context = instance()
  local found = assert(aws.find(context))
  keys_of(found)
  context.answers = {}
  local none, err = found.fetch()
  lu.assertNil(none)
  lu.assertEquals({ err.kind, err.retryable }, { "network", true })
end

-- --- renewal ---

function TestAws.test_renewed_before_the_end()
  local now, count = NOW, 0
  local kept = renewal.new(function()
    count = count + 1
    return { access_key_id = "A" .. count }, now + 3600
  end, { clock = function() return now end, log = { warn = quiet }, what = "keys" })
  lu.assertEquals(kept:get().access_key_id, "A1")
  now = NOW + 3000
  lu.assertEquals(kept:get().access_key_id, "A1")
  now = NOW + 3500
  lu.assertEquals(kept:get().access_key_id, "A2")
end

return { TestAws = TestAws }
