-- SPDX-License-Identifier: MIT
-- providers/credential/aws.lua: the places, their order, and what is said when they hold nothing useful.
local lu = require "luaunit"
local aws = require "providers.credential.aws"
local sys = require "lunark.core.sys"

local TestAws = {}

-- A machine: environment and files.
local function machine(env, files, profile)
  return {
    env = function(name) return env[name] end, secret = sys.secret, profile = profile,
    read = function(path)
      if files[path] then return files[path] end
      return nil, sys.error { kind = "not_found", message = path .. ": no such file or directory" }
    end,
  }
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
s3 =
    addressing_style = path
    region = not-this
[profile sso]
sso_start_url = https://x
[profile "with space"]
role_arn = arn:aws:iam::1:role/x
]]
local HOME = { ["/h/.aws/credentials"] = CREDENTIALS, ["/h/.aws/config"] = CONFIG }

local function keys_of(found)
  local token = found.session_token
  return { found.access_key_id, found.secret_access_key:reveal(), token and token:reveal() }
end

function TestAws.test_environment_comes_first()
  local found = assert(aws.find(machine({
    HOME = "/h", AWS_ACCESS_KEY_ID = "AKENV", AWS_SECRET_ACCESS_KEY = "s", AWS_SESSION_TOKEN = "t",
  }, HOME)))
  lu.assertEquals(keys_of(found), { "AKENV", "s", "t" })
  lu.assertEquals(found.source, "the environment")
  lu.assertEquals(tostring(found.secret_access_key), "***")
end

function TestAws.test_files()
  local found = assert(aws.find(machine({ HOME = "/h" }, HOME)))
  lu.assertEquals(keys_of(found), { "AKDEFAULT", "default/secret+x=" })
  found = assert(aws.find(machine({ HOME = "/h", AWS_PROFILE = "prod" }, HOME)))
  lu.assertEquals(keys_of(found), { "AKPROD", "prodsecret", "token" })
  lu.assertEquals(found.source, "AWS profile 'prod'")
end

function TestAws.test_a_chosen_profile_beats_the_environment()
  local env = {
    HOME = "/h", AWS_ACCESS_KEY_ID = "AKENV", AWS_SECRET_ACCESS_KEY = "s", AWS_PROFILE = "default",
  }
  lu.assertEquals(assert(aws.find(machine(env, HOME, "prod"))).access_key_id, "AKPROD")
  lu.assertEquals(assert(aws.find(machine(env, HOME))).access_key_id, "AKENV")
end

function TestAws.test_files_named_by_variables()
  local env = { AWS_SHARED_CREDENTIALS_FILE = "/etc/keys", AWS_CONFIG_FILE = "/etc/config" }
  local found = assert(aws.find(machine(env, { ["/etc/keys"] = CREDENTIALS, ["/etc/config"] = CONFIG })))
  lu.assertEquals(found.access_key_id, "AKDEFAULT")
  local none, err = aws.find(machine(env, {}))
  lu.assertNil(none)
  lu.assertEquals(err.kind, "auth")
  lu.assertStrContains(err.message, "AWS_CONFIG_FILE: /etc/config: no such file")
end

function TestAws.test_settings()
  lu.assertEquals(aws.profile(machine({ HOME = "/h" }, HOME)).region, "eu-west-1")
  lu.assertEquals(aws.profile(machine({ HOME = "/h" }, HOME, "prod")).region, "us-west-2")
  lu.assertEquals(aws.profile(machine({}, {})), {})
end

local function refusal(context)
  local found, err = aws.find(context)
  lu.assertNil(found)
  lu.assertEquals(err.kind, "auth")
  return err
end

function TestAws.test_nothing()
  local err = refusal(machine({}, {}))
  lu.assertEquals(err.message, "there are no AWS credentials")
  lu.assertStrContains(err.hint, "AWS_ACCESS_KEY_ID")
  refusal(machine({ HOME = "/nowhere" }, {}))
end

function TestAws.test_half_of_a_pair()
  lu.assertEquals(refusal(machine({ AWS_ACCESS_KEY_ID = "x" }, {})).message,
    "AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not")
  lu.assertEquals(refusal(machine({ AWS_SECRET_ACCESS_KEY = "x" }, {})).message,
    "AWS_SECRET_ACCESS_KEY is set and AWS_ACCESS_KEY_ID is not")
  lu.assertEquals(refusal(machine({ HOME = "/h" }, HOME, "half")).message,
    "AWS profile 'half' has aws_access_key_id and no aws_secret_access_key")
end

function TestAws.test_profile_that_is_not_there()
  lu.assertEquals(refusal(machine({ HOME = "/h", AWS_PROFILE = "nope" }, HOME)).message,
    "there is no AWS profile 'nope'")
end

function TestAws.test_ways_that_are_not_supported_are_named()
  local env = { HOME = "/h" }
  lu.assertStrContains(refusal(machine(env, HOME, "sso")).message, "sso_start_url, which is not supported")
  lu.assertStrContains(refusal(machine(env, HOME, "with space")).message, "role_arn")
end

function TestAws.test_the_chain_can_be_extended()
  table.insert(aws.chain, 1, function(context)
    return { access_key_id = "OWN", secret_access_key = context.secret "x", source = "a test" }
  end)
  local found = aws.find(machine({}, {}))
  table.remove(aws.chain, 1)
  lu.assertEquals(found.access_key_id, "OWN")
end

function TestAws.test_ini()
  lu.assertEquals(aws.parse_ini("\xEF\xBB\xBF[a]\r\nx = 1\r\n;c\r\n#d\r\n[b] # c\ny=2=3\nnonsense\n[a]\nz=4"),
    { a = { x = "1", z = "4" }, b = { y = "2=3" } })
end

return { TestAws = TestAws }
