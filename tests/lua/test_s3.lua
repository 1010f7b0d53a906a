-- SPDX-License-Identifier: MIT
-- providers/s3.lua: where requests go. Amazon's own addresses can't be asked in a test, so requests are
-- answered here.
local lu = require "luaunit"
local http = require "lunark.http"
local store = require "lunark.store"
local sys = require "lunark.core.sys"

local TestS3 = {}
local KEYS = { access_key_id = "AK", secret_access_key = "secret/key", endpoint = false }

-- A store, and the requests that it makes; `answer(request)` gives a response or nil, err.
local function open(url, answer)
  local options = {}
  for name, value in pairs(KEYS) do options[name] = value or nil end
  local s, err = store.open(url, options)
  if not s then return nil, err end
  local requests = {}
  s.inner.ctx.http = setmetatable({ request = function(request)
    local to = assert(http.parse_url(request.url))
    assert(request.sign {
      method = request.method, path = to.path, query = to.query or "", headers = request.headers,
      host = to.default_port and to.host or ("%s:%d"):format(to.host, to.port),
    })
    requests[#requests + 1] = request
    local response, failed = answer(request, #requests)
    if response then response.headers = response.headers or {} end
    return response, failed
  end }, { __index = http })
  return s, requests
end

local function found() return { status = 200, headers = { etag = '"x"', ["content-length"] = "1" } } end

local addresses = {
  ["s3://bucket/p?region=eu-west-1"] = "https://bucket.s3.eu-west-1.amazonaws.com/p/a%20b",
  ["s3://bucket?region=cn-north-1"] = "https://bucket.s3.cn-north-1.amazonaws.com.cn/a%20b",
  ["s3://my.bucket/p?region=us-gov-west-1"] = "https://s3.us-gov-west-1.amazonaws.com/my.bucket/p/a%20b",
  ["s3://bucket?region=eu-west-1&path_style=yes"] = "https://s3.eu-west-1.amazonaws.com/bucket/a%20b",
  ["s3://bucket?endpoint=http://127.0.0.1:9000/base/"] = "http://127.0.0.1:9000/base/bucket/a%20b",
  ["s3://bucket?endpoint=http://[::1]:9000"] = "http://[::1]:9000/bucket/a%20b",
  ["s3://bucket?endpoint=https://store.example&path_style=no"] = "https://bucket.store.example/a%20b",
}

for url, expected in pairs(addresses) do
  TestS3["test_address_of_" .. url:gsub("%W+", "_")] = function()
    local s, requests = open(url, found)
    assert(s:head("a b"))
    lu.assertEquals(requests[1].url, expected)
  end
end

function TestS3.test_a_port_that_need_not_be_named()
  local signatures = {}
  for index, port in ipairs { "", ":443" } do
    local s, requests = open("s3://bucket?endpoint=https://store.example" .. port, found)
    s.inner.ctx.clock = function() return 1700000000 end
    assert(s:head("key"))
    signatures[index] = requests[1].headers.authorization
  end
  lu.assertEquals(signatures[2], signatures[1])
end

function TestS3.test_the_bucket_is_in_another_region()
  local s, requests = open("s3://bucket?region=us-east-1", function(_, count)
    if count > 1 then return found() end
    return { status = 301, headers = { ["x-amz-bucket-region"] = "ap-south-1" } }
  end)
  assert(s:head("key"))
  assert(s:head("key"))
  lu.assertEquals(#requests, 3, "it is remembered")
  lu.assertEquals(requests[2].url, "https://bucket.s3.ap-south-1.amazonaws.com/key")
  lu.assertStrContains(requests[2].headers.authorization, "/ap-south-1/s3/aws4_request")
end

function TestS3.test_the_other_region_may_not_be_asked()
  local s = open("s3://bucket?region=us-east-1", function(_, count)
    if count > 1 then return nil, sys.error { kind = "denied", message = "net: not allowed" } end
    return { status = 301, headers = { ["x-amz-bucket-region"] = "ap-south-1" } }
  end)
  local _, err = s:head("key")
  lu.assertEquals(err.hint, "the bucket is in region ap-south-1: ?region=ap-south-1")
end

local wrong = {
  ["s3://b"] = "'b' is no name of a bucket",
  ["s3://bucket?endpoint=store.example"] = "https://host[:port] expected",
  ["s3://bucket?endpoint=ftp://x"] = "https://host[:port] expected",
  ["s3://bucket?region=a/b"] = "'a/b' is no region",
  ["s3://bucket?sse=AES256&sse_kms_key_id=x"] = "sse_kms_key_id is for sse=aws:kms",
  ["s3://bucket?sse=none"] = "sse", ["s3://bucket?copy_max=1M"] = "copy_max",
  ["s3://bucket?secret_access_key=x"] = "secret",
}

for url, expected in pairs(wrong) do
  TestS3["test_refused_" .. url:gsub("%W+", "_")] = function()
    local options = { access_key_id = "AK", secret_access_key = "x" }
    if url:find("secret_access_key", 1, true) then options = {} end
    local s, err = store.open(url, options)
    lu.assertNil(s)
    lu.assertEquals(err.kind, "usage")
    lu.assertStrContains(err.message, expected)
  end
end

-- Keys are bytes: escaped in addresses, in the header of a copy and in lists; deleted one by one where XML
-- can't carry them.
function TestS3.test_keys_of_any_bytes()
  local all = {}
  for byte = 1, 255 do all[byte] = string.char(byte) end
  local key = table.concat(all)
  local escaped = key:gsub("[^%w%-._~/]", function(char) return ("%%%02X"):format(char:byte()) end)
  local s, requests = open("s3://bucket?endpoint=https://store.example", function(request)
    if request.url:find("list%-type") then
      return { status = 200, body = "<ListBucketResult><EncodingType>url</EncodingType><Contents><Key>"
        .. escaped:gsub("%%20", "+") .. "</Key><Size>1</Size></Contents></ListBucketResult>" }
    elseif request.headers["x-amz-copy-source"] then
      return { status = 200, body = "<CopyObjectResult><ETag>&quot;x&quot;</ETag></CopyObjectResult>" }
    end
    return found()
  end)
  assert(s:head(key))
  lu.assertEquals(requests[1].url, "https://store.example/bucket/" .. escaped)
  lu.assertEquals(assert(s:page(""))[1].key, key)
  assert(s:copy(key, "to"))
  lu.assertEquals(requests[#requests].headers["x-amz-copy-source"], "/bucket/" .. escaped)
  assert(s:delete { key, "other\1" })
  lu.assertEquals({ requests[#requests - 1].method, requests[#requests].method }, { "DELETE", "DELETE" })
end

function TestS3.test_keys_and_metadata_that_can_not_be()
  local s, requests = open("s3://bucket", found)
  for _, key in ipairs { "", ("k"):rep(1025), "a\0b" } do
    local info, err = s:put(key, "x")
    lu.assertNil(info)
    lu.assertEquals(err.kind, "usage")
  end
  local info, err = s:put("key", "x", { note = "grün" })
  lu.assertNil(info)
  lu.assertStrContains(err.message, "metadata note")
  lu.assertEquals(#requests, 0)
end

return { TestS3 = TestS3 }
