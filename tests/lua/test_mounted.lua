-- SPDX-License-Identifier: MIT
-- providers/credential/mounted.lua: the file of a job's container, what it is recognised by, what is said of
-- one that is wrong, and that each provider uses it before anything that it would find by itself.
local lu = require "luaunit"
local aws = require "providers.s3.place"
local azure = require "providers.credential.azure"
local crypto = require "lunark.core.crypto"
local google = require "providers.credential.google"
local http = require "lunark.http"
local mounted = require "providers.credential.mounted"
local sys = require "lunark.core.sys"

local TestMounted = {}
local PLACE = "/credentials/credentials"
local AWS = "[ default ]\nregion=eu-north-1\naws_access_key_id=AKIAMOUNTED\n"
  .. "aws_secret_access_key=hush/hush+\n"
local AZURE = "#!/bin/sh\nexport ACCOUNT_NAME=mountedaccount\nexport ACCOUNT_KEY='aHVzaCBodXNo'\n"
local GOOGLE = '\n {"type": "authorized_user", "client_id": "m", "client_secret": "hush", '
  .. '"refresh_token": "r"}'
local OF = { aws = AWS, azure = AZURE, google = GOOGLE }

local function context_of(files, env, more)
  local context = {
    env = function(name) return (env or {})[name] end, secret = sys.secret, crypto = crypto, granted = {},
    clock = function() return 1700000000 end, options = {},
    log = { debug = type, info = type, warn = type },
    grant = function() end,
  }
  context.read = function(path)
    local found = files[path]
    if type(found) == "string" then return found end
    return nil, found or sys.error { kind = "not_found", message = path .. ": no such file or directory" }
  end
  context.grant_read = function(path) context.granted[path] = true end
  for key, value in pairs(more or {}) do context[key] = value end
  return context
end

function TestMounted.test_recognise()
  for cloud, text in pairs(OF) do
    lu.assertEquals(mounted.recognise(text), cloud)
    lu.assertEquals(mounted.recognise("\xEF\xBB\xBF" .. text:gsub("\n", "\r\n")), cloud)
  end
  lu.assertEquals(mounted.recognise("# a comment\n; another\n\n[profile x]\n"), "aws")
  lu.assertEquals(mounted.recognise("AZURE_STORAGE_KEY=x"), "azure")
  for _, text in ipairs { "", "\n\n", "hello", "<xml/>", '[{"a": 1}]', "-----BEGIN KEY-----\n[x]\n" } do
    lu.assertNil(mounted.recognise(text))
  end
end

function TestMounted.test_the_usual_place_may_be_empty()
  local context = context_of {}
  for cloud in pairs(OF) do
    local path, err = mounted.find(context, nil, cloud)
    lu.assertNil(path)
    lu.assertNil(err)
  end
  lu.assertTrue(context.granted[PLACE])
  -- What these scripts may not read is not there; what the system refuses is there and can't be used.
  local capability = context_of { [PLACE] = sys.error { kind = "denied", message = "no" } }
  lu.assertNil((select(2, mounted.find(capability, nil, "aws"))))
  local refused = sys.error { kind = "denied", code = 13, message = "permission denied" }
  lu.assertIs(select(2, mounted.find(context_of { [PLACE] = refused }, nil, "aws")), refused)
end

function TestMounted.test_a_named_one_must_be_there()
  local path, err = mounted.find(context_of {}, "/mnt/key", "aws")
  lu.assertNil(path)
  lu.assertEquals(err.kind, "usage")
  lu.assertEquals(err.message, "credentials file: /mnt/key: no such file or directory")
end

-- What can't be such a file is wrong as one of another format is; a failing disk is not.
function TestMounted.test_a_directory_or_a_large_file_is_none()
  local function find(err)
    return select(2, mounted.find(context_of { ["/x"] = sys.error(err) }, "/x", "azure"))
  end
  local large = find { kind = "memory", message = "/x is longer than 9 bytes" }
  lu.assertEquals(large.kind, "usage")
  lu.assertEquals(large.message,
    "/x is longer than 9 bytes; lines export ACCOUNT_NAME=... and export ACCOUNT_KEY=... expected")
  local folder = find { kind = "io", code = 21, message = "/x: is a directory" }
  lu.assertEquals(folder.kind, "usage")
  lu.assertEquals(find { kind = "io", code = 5, message = "/x: input/output error" }.kind, "io")
end

function TestMounted.test_a_wrong_format_is_said_without_its_content()
  local expected = {
    aws = "[default] with region, aws_access_key_id and aws_secret_access_key expected",
    azure = "lines export ACCOUNT_NAME=... and export ACCOUNT_KEY=... expected",
    google = "the JSON of a Google service account's key expected",
  }
  local found = {
    aws = "it is a file of AWS profiles", azure = "it is Azure's file of variables", google = "it is JSON",
    other = "it is in no format that is known here", empty = "it is empty",
  }
  local texts = { other = "hush hush", empty = " \n", aws = AWS, azure = AZURE, google = GOOGLE }
  for cloud, form in pairs(expected) do
    for kind, text in pairs(texts) do
      local path, err = mounted.find(context_of { [PLACE] = text }, nil, cloud)
      if kind == cloud then
        lu.assertEquals(path, PLACE)
      else
        lu.assertEquals(err.kind, "usage")
        lu.assertEquals(err.message, ("%s: %s; %s"):format(PLACE, found[kind], form))
        lu.assertNotStrContains(tostring(err) .. (err.hint or ""), "hush")
      end
    end
  end
end

function TestMounted.test_aws_uses_it_before_the_environment()
  local env = {
    AWS_ACCESS_KEY_ID = "env", AWS_SECRET_ACCESS_KEY = "env", AWS_WEB_IDENTITY_TOKEN_FILE = "/t",
    AWS_ROLE_ARN = "arn:aws:iam::1:role/r", HOME = "/h",
  }
  local other = "[other]\naws_access_key_id = o\naws_secret_access_key = o\n"
  local files = { [PLACE] = AWS, ["/h/.aws/credentials"] = other }
  local context = context_of(files, env)
  local function keys(options)
    local found = assert(aws.find("bucket", options, context))
    return assert(found.credentials:get()), found
  end
  local used, found = keys {}
  lu.assertEquals(used.access_key_id, "AKIAMOUNTED")
  lu.assertEquals(used.secret_access_key:reveal(), "hush/hush+")
  lu.assertEquals(tostring(used.secret_access_key), "***")
  lu.assertEquals(found.region, "eu-north-1")
  lu.assertEquals(found.credentials.source, PLACE .. ", AWS profile 'default'")
  lu.assertEquals(select(2, keys { region = "us-west-2" }).region, "us-west-2")
  -- What is asked for by name wins over what lies there, but not over a file that is named too.
  lu.assertEquals(keys({ profile = "other" }).access_key_id, "o")
  local given = { access_key_id = "given", secret_access_key = sys.secret "x" }
  lu.assertEquals(keys(given).access_key_id, "given")
  files["/mnt/file"] = AWS .. "[other]\naws_access_key_id = mine\naws_secret_access_key = m\n"
  lu.assertEquals(keys({ profile = "other", credentials_file = "/mnt/file" }).access_key_id, "mine")
  files[PLACE] = "[default]\nregion = x\n"
  local none, err = aws.find("bucket", {}, context)
  lu.assertNil(none)
  lu.assertEquals(err.message,
    PLACE .. ": [default] with aws_access_key_id and aws_secret_access_key expected")
  files[PLACE] = nil
  lu.assertEquals(keys({}).access_key_id, "env")
end

function TestMounted.test_azure_uses_it_before_the_environment()
  local files = { [PLACE] = AZURE }
  local context = context_of(files, { AZURE_STORAGE_KEY = "ZW52", AZURE_CLIENT_ID = "env", HOME = "/h" })
  local found = assert(azure.find(context))
  lu.assertEquals({ found.place.account, found:get().key:reveal() }, { "mountedaccount", "aHVzaCBodXNo" })
  files[PLACE] = "export AZURE_STORAGE_ACCOUNT=a\nAZURE_TENANT_ID=t\nAZURE_CLIENT_ID=c\n"
    .. "AZURE_CLIENT_SECRET=hush\n"
  local sent
  context.http = setmetatable({ request = function(request)
    sent = request
    return { status = 200, headers = {}, body = '{"access_token": "T", "expires_in": 3600}' }
  end }, { __index = http })
  found = assert(azure.find(context))
  lu.assertEquals(found.place.account, "a")
  lu.assertEquals(found.source, "the client secret of c")
  lu.assertStrContains(assert(found:get()).token:reveal(), "T")
  lu.assertStrContains(sent.url, "/t/oauth2/v2.0/token")
  files[PLACE] = "export ACCOUNT_NAME=only\n"
  local _, err = azure.find(context)
  lu.assertStrContains(err.message, "there are no ACCOUNT_NAME and ACCOUNT_KEY in it")
  files[PLACE] = nil
  lu.assertEquals(assert(azure.find(context)):get().key:reveal(), "ZW52")
end

function TestMounted.test_google_uses_it_before_the_environment()
  local files = { [PLACE] = GOOGLE, ["/adc"] = GOOGLE }
  local context = context_of(files, { GOOGLE_APPLICATION_CREDENTIALS = "/adc" })
  lu.assertEquals(assert(google.find(context)).text, PLACE)
  files[PLACE] = "{not JSON, hush"
  local _, err = google.find(context)
  lu.assertStrContains(err.message, PLACE .. " is not JSON")
  lu.assertNotStrContains(tostring(err), "hush")
  files[PLACE] = nil
  lu.assertEquals(assert(google.find(context)).text, "GOOGLE_APPLICATION_CREDENTIALS")
end

return { TestMounted = TestMounted }
